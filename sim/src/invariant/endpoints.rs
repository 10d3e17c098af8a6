//! `ready-and-terminating`: an endpoint is never both ready and terminating, unless its Service has
//! `publishNotReadyAddresses`. `endpoints-at-rest`: at the end of a run, a Service's EndpointSlices list exactly its
//! ready pods.

use std::collections::BTreeSet;

use skeg_core::object::{Kind, Object, ObjectKey};
use skeg_core::store::MemoryStore;

use super::services::{all, publishes_all, ready_pods, service_of, slices};
use super::{Commit, Invariant, Report};

/// The label that names who manages a slice, and the value that the EndpointSlice controller sets.
const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
const CONTROLLER: &str = "endpointslice-controller.k8s.io";

/// Services that have or once had `publishNotReadyAddresses`: a slice may have been written from an older view.
#[derive(Debug, Default)]
pub(super) struct Endpoints {
    publishing: BTreeSet<ObjectKey>,
}

impl Endpoints {
    pub fn service(&mut self, commit: &Commit<'_>) {
        if let Some(Object::Service(service)) = commit.new
            && publishes_all(service)
        {
            self.publishing.insert(service.key());
        }
    }

    pub fn slice(&mut self, commit: &Commit<'_>, report: &mut Report) {
        let Some(Object::EndpointSlice(slice)) = commit.new else { return };
        let managed = slice.meta.labels.as_ref().and_then(|l| l.get(MANAGED_BY));
        if managed.is_none_or(|by| by != CONTROLLER) {
            return;
        }
        let both = slice.spec.endpoints.iter().flatten().find(|e| {
            let conditions = e.conditions.as_ref();
            conditions.is_some_and(|c| c.ready == Some(true) && c.terminating == Some(true))
        });
        let Some(endpoint) = both else { return };
        let service = service_of(slice).map(|name| ObjectKey::new(Kind::SERVICE, slice.namespace(), name));
        if service.is_some_and(|key| !self.publishing.contains(&key)) {
            let pod = endpoint.target_ref.as_ref().and_then(|t| t.name.as_deref()).unwrap_or("?");
            let what = format!("{}: {pod} at {:?} is ready and terminating", slice.key(), endpoint.addresses);
            report.broken(Invariant::ReadyAndTerminating, commit.at, what);
        }
    }
}

/// Compares the EndpointSlices of each Service with its ready pods. Returns a description of the first difference, or
/// `None`.
pub(super) fn at_rest(store: &MemoryStore) -> Option<String> {
    for service in all(store) {
        let Some(pods) = ready_pods(store, service) else { continue };
        let mut expect: Vec<&str> = pods.iter().map(|p| p.name()).collect();
        let mut found: Vec<&str> = Vec::new();
        for slice in slices(store, service) {
            for e in slice.spec.endpoints.iter().flatten() {
                if e.conditions.as_ref().and_then(|c| c.ready) == Some(true) {
                    found.extend(e.target_ref.as_ref().and_then(|t| t.name.as_deref()));
                }
            }
        }
        expect.sort_unstable();
        found.sort_unstable();
        if expect != found {
            let key = service.key();
            return Some(format!("{key}: ready pods are {expect:?}, its EndpointSlices name {found:?}"));
        }
    }
    None
}
