//! The deterministic simulator of Skeg.
//!
//! A world owns virtual time and drives thousands of the core's machines over simulated links, disks and container
//! runtimes, injects faults, checks invariants, records and replays. The same scenario and seed give the same run,
//! event by event.

pub mod action;
pub mod arrivals;
mod calendar_queue;
pub mod causes;
pub mod clock;
pub mod container;
pub mod converge;
pub mod event_queue;
pub mod explore;
mod extender;
pub mod fault;
pub mod files;
pub mod hook;
pub mod ids;
pub mod invariant;
pub mod look;
pub mod metrics;
pub mod moment;
pub mod net;
pub mod outcome;
pub mod process;
pub mod report;
pub mod run;
pub mod runtime;
pub mod scenario;
pub mod shrink;
pub mod statistics;
pub mod subnet;
pub mod user;
pub mod world;

pub use run::{Observer, Progress, RunOptions, Silent, run};
