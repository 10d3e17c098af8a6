//! The deterministic simulator of Skeg.
//!
//! A world owns virtual time and drives thousands of the core's machines over simulated links, disks and container
//! runtimes, injects faults, checks invariants, records and replays. Same scenario and seed, same run: to the event.

pub mod files;
pub mod outcome;
pub mod report;
pub mod scenario;
