//! Recordings of real runs: every input of every machine, and what it decided, so that `skeg sim replay DIR` gives the
//! inputs to the same machines again and compares each decision.
//!
//! What comes in: on the machines' thread, each input before it is handled and each batch of outputs after it
//! ([`tape`]); there the values of Secrets are replaced ([`secrets`]). What goes out: lines of JSON ([`format`]), which
//! a thread of its own puts into files of bounded size ([`writer`]). The thread that decides never waits for a disk.

pub mod fit;
pub mod format;
mod reading;
pub mod replay;
#[cfg(feature = "up")]
mod secrets;
#[cfg(feature = "up")]
pub mod tape;
#[cfg(all(test, feature = "up"))]
mod tests;
#[cfg(feature = "up")]
pub mod writer;
