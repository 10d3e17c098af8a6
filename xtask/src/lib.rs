//! What the tasks of this repository do beside starting other commands, so that tests can do it too.

// A task runner is a driver: it reads files and its environment and starts processes.
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

pub mod schema;
