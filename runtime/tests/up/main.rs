//! `skeg up` as clients meet it: a cluster on a free port of this machine, asked over TLS.

#![cfg(feature = "up")]
// Tests are drivers: they start processes and look at the clock.
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

mod bad_input;
mod client;
mod crash;
mod kubectl;
mod objects;
