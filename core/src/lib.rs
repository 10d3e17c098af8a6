//! The core of Skeg: every decision of a container orchestrator that speaks the Kubernetes API, as pure state machines.
//!
//! Nothing in this crate uses a clock, IO, ambient randomness or hash order. Time and randomness come in as arguments;
//! effects go out as values. See [`machine`] for the contract of each machine and `ARCHITECTURE.md` for the map.

pub mod agent;
pub mod api;
pub mod apiserver;
pub mod client;
pub mod controllers;
pub mod dns;
pub mod limits;
pub mod machine;
pub mod object;
pub mod patch;
pub mod protobuf;
pub mod proxy;
pub mod random;
pub mod read_ahead;
pub mod scheduler;
pub mod schema;
pub mod store;
pub mod table;

pub use machine::{Deadline, Machine, Mono, Now, Wall};
pub use object::{Kind, Kinds, Object, ObjectKey, Revision};
pub use random::Rng;
