//! `ready-and-terminating`: an endpoint is never both ready and terminating, unless its Service has
//! `publishNotReadyAddresses`. `slices-do-not-pile-up`: no more than two slices of a Service list the same pod. A pod
//! may stand in two while it moves from one to the other; a controller that makes slices before it sees those that it
//! has made fills the store with them. `endpoints-at-rest`: at the end of a run, a Service's slices list exactly its
//! ready pods.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

use skeg_core::object::{EndpointSlice, Kind, Object, ObjectKey};
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
    /// The slices that list each pod, by namespace, Service and the pod's UID.
    listed: BTreeMap<(String, String, String), BTreeSet<String>>,
}

/// Whether its controller manages a slice.
fn is_managed(slice: &EndpointSlice) -> bool {
    let by = slice.meta.labels.as_ref().and_then(|labels| labels.get(MANAGED_BY));
    by.is_some_and(|by| by == CONTROLLER)
}

/// Where a slice lists pods, in the form of [`Endpoints::listed`]; nowhere if its controller does not manage it.
fn listings(slice: &EndpointSlice) -> impl Iterator<Item = (String, String, String)> {
    let service = service_of(slice).filter(|_| is_managed(slice));
    let endpoints = slice.spec.endpoints.iter().flatten();
    let uids = endpoints.filter_map(|endpoint| endpoint.target_ref.as_ref()?.uid.clone());
    service
        .into_iter()
        .flat_map(move |service| uids.clone().map(move |uid| (slice.namespace().to_owned(), service.to_owned(), uid)))
}

impl Endpoints {
    pub fn service(&mut self, commit: &Commit<'_>) {
        if let Some(Object::Service(service)) = commit.new
            && publishes_all(service)
        {
            self.publishing.insert(service.key());
        }
    }

    /// Checks that a slice lists no pod that two others list.
    pub fn listed(&mut self, commit: &Commit<'_>, report: &mut Report) {
        if let Some(Object::EndpointSlice(old)) = commit.old {
            for listing in listings(old) {
                if let Entry::Occupied(mut slices) = self.listed.entry(listing) {
                    slices.get_mut().remove(old.name());
                    if slices.get().is_empty() {
                        slices.remove();
                    }
                }
            }
        }
        let Some(Object::EndpointSlice(new)) = commit.new else { return };
        for listing in listings(new) {
            let uid = listing.2.clone();
            let slices = self.listed.entry(listing).or_default();
            slices.insert(new.name().to_owned());
            if slices.len() > 2 {
                let others: Vec<&str> = slices.iter().map(String::as_str).filter(|name| *name != new.name()).collect();
                let what = format!("{} lists the pod {uid}, which {} list already", new.key(), others.join(" and "));
                report.broken(Invariant::SlicesDoNotPileUp, commit.at, what);
            }
        }
    }

    pub fn slice(&mut self, commit: &Commit<'_>, report: &mut Report) {
        let Some(Object::EndpointSlice(slice)) = commit.new else { return };
        if !is_managed(slice) {
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
