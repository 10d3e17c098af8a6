//! Controllers: near-pure functions from a view to a plan, run by one generic runner.
//!
//! A controller says which kinds it reads, which of its keys a change concerns, and, for a key, what is to be written.
//! It never sends anything: the runner in [`client`](crate::client) owns the queue, the back-off, the writes in flight
//! and the read-your-writes guard. Controllers never call each other; they meet in the store.

mod cluster;
mod endpoint_slice;
mod endpoints;
mod garbage_collector;
mod node_lifecycle;
mod plan;
mod pod_gc;
mod service_backends;
#[cfg(test)]
mod fake_cluster;

pub use cluster::cluster_controllers;
pub use plan::{Controller, EventNote, Plan, Watched, Write};
