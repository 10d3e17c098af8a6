//! Benchmarks.

pub mod schedule;
