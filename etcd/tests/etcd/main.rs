//! The store on etcd against etcd itself, which each test starts for itself in a directory of its own.
//!
//! Where etcd is not installed these tests are skipped and say so; with `SKEG_REQUIRE_ETCD` set they fail.

#![cfg(feature = "client")]
// Tests are drivers: they start processes, wait and read the environment.
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

mod conformance;
mod faults;
mod golden;
mod server;
mod subject;
mod tls;
