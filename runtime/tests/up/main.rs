//! `skeg up` from a client's point of view: a cluster on a free port of this machine, accessed over TLS.

#![cfg(feature = "up")]
// Tests are drivers: they start processes and read the clock.
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

mod access;
#[cfg(feature = "etcd")]
mod agents;
mod aggregation;
mod apiproxy;
mod apply;
mod autoscaling;
mod bad_input;
mod claims;
mod client;
mod clients;
mod conversion;
mod crash;
mod custom;
mod docker;
#[cfg(feature = "etcd")]
mod docker_agents;
mod docker_outside;
mod doctor;
mod envtest;
#[cfg(feature = "etcd")]
mod etcd;
#[cfg(feature = "etcd")]
#[path = "../../../etcd/tests/etcd/server.rs"]
mod etcd_server;
mod extenders;
mod fit;
mod flow;
mod golden;
mod helm;
#[cfg(feature = "etcd")]
mod history;
#[cfg(feature = "etcd")]
mod hosts;
mod kube_rs;
mod kubectl;
#[cfg(feature = "etcd")]
mod leaders;
#[cfg(feature = "etcd")]
mod linear;
mod load;
mod objects;
mod options;
#[cfg(feature = "etcd")]
mod partitions;
mod recording;
#[cfg(feature = "etcd")]
mod servers;
mod services;
mod streams;
mod tokens;
#[cfg(feature = "etcd")]
mod told;
mod webhooks;
