//! The repository tasks that do more than start other commands; a library, so that tests can call them too.

// A task runner is a driver: it reads files and the environment and starts processes.
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

pub mod bugs;
pub mod schema;
