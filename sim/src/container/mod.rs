//! The inside of a simulated container, as `kubectl logs`, `exec`, `cp`, `attach` and `port-forward` see it: what it
//! logs, its files, a tiny shell, and a server that answers on its ports. No program runs in it.
//!
//! Pure: bytes and the time come in, bytes and exit codes come out. The simulator itself does not use it.

mod command;
pub mod environment;
pub mod files;
pub mod inside;
pub mod log;
pub mod process;
mod script;
pub mod server;
mod tar;
