//! Streams into simulated containers: `kubectl logs`, `exec`, `attach`, `cp` and `port-forward`.
//!
//! Clients come by WebSocket (KEP-4006) or, older ones, by SPDY/3.1. The containers' logs, files and processes live on
//! the machines' thread (`skeg_sim::container`); bytes cross as [`visit::Visit`] and [`visit::Heard`].
//!
//! Source: <https://kep.k8s.io/4006>, kubernetes `staging/src/k8s.io/kubelet/pkg/cri/streaming`.

mod command;
mod environment;
mod exec;
pub mod log;
mod pod;
mod port_forward;
pub mod remote;
mod spdy;
mod upgrade;
pub mod visit;
mod websocket;

pub use exec::{attach, exec};
pub use pod::container;
pub use port_forward::{Ports, port_forward};
pub use upgrade::Upgrade;
