//! Invariants: what must hold in every run. One checker a file; each says what it looks at and what it allows for.
//!
//! Those that can are checked as the run goes, at every commit, request or start of a container; what the cluster comes
//! to in the end is checked at rest. Cost follows what happens, not the cluster. Checkers read objects themselves
//! (`reading`) and never by what the core has made of them.

mod addresses;
mod allocatable;
mod binding;
mod budgets;
mod caches;
mod containers;
mod deletion;
mod endpoints;
mod floor;
mod generation;
mod leaders;
mod names;
mod owners;
mod proxies;
mod quotas;
pub mod reading;
mod replicas;
mod scheduler;
mod services;
#[cfg(test)]
mod tests;
mod views;

use std::collections::BTreeMap;

use skeg_core::api::Request;
use skeg_core::object::{Object, Pod};
use skeg_core::store::MemoryStore;

use crate::outcome::{Happening, InvariantResult};
use crate::world::{NodeHost, World};

pub use caches::stale_cache;
pub use scheduler::miscounting;
pub use views::stale_view;

/// How many breaks of one invariant are told in words.
const TOLD: usize = 5;

macro_rules! invariants {
    ($($(#[doc = $doc:literal])* $variant:ident $name:literal)*) => {
        /// What must hold in every run.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
        pub enum Invariant { $($(#[doc = $doc])* $variant,)* }

        impl Invariant {
            /// All of them, in the order in which reports show them.
            pub const ALL: &[Invariant] = &[$(Invariant::$variant),*];

            /// Its name in reports.
            pub fn name(self) -> &'static str {
                match self { $(Invariant::$variant => $name,)* }
            }
        }
    };
}

invariants! {
    /// The scheduler binds no pod to a node that cannot allocate it beside those that it has.
    NodeOverAllocatable "node-over-allocatable"
    /// A pod's node is written once, and is a node that exists.
    PodBoundTwice "pod-bound-twice"
    /// A Deployment's controller never scales its ReplicaSets below `replicas - maxUnavailable` in all.
    AvailableFloor "available-floor"
    /// At most one candidate acts as leader of a role.
    OneLeader "one-leader"
    /// The garbage collector deletes nothing that has a living owner.
    ChildOutlivesOwner "child-outlives-owner"
    /// `metadata.generation` and the UID of an object never go back or change.
    GenerationCounts "generation-counts"
    /// An eviction takes one of the disruptions that its budget allows.
    BudgetIsSpent "budget-is-spent"
    /// No set makes a pod that is one more than the most replicas that it ever had; a DaemonSet none a second time for
    /// a node.
    MostReplicas "most-replicas"
    /// No endpoint is both ready and terminating, unless its Service publishes addresses that are not ready.
    ReadyAndTerminating "ready-and-terminating"
    /// No two Services have one cluster IP.
    ServiceAddresses "service-addresses"
    /// A node's agent deletes no pod of the API whose containers run.
    DeletedWhileRunning "deleted-while-running"
    /// No two running containers are of one pod and name.
    OneContainer "one-container"
    /// A container that is never to be restarted starts once.
    NeverRestarts "never-restarts"
    /// At the end every API server's cache shows what the store holds.
    CachesAtRest "caches-at-rest-equal-store"
    /// At the end every reader's own view shows what the store holds.
    ViewsAtRest "views-at-rest-equal-store"
    /// At the end the scheduler counts on each node what is bound to it.
    SchedulerAtRest "scheduler-at-rest-equals-store"
    /// At the end the EndpointSlices of a Service name its ready pods, and no others.
    EndpointsAtRest "endpoints-at-rest"
    /// At the end every node's service table is what follows from the store; a cluster IP leads to the ready pods.
    ProxiesAtRest "proxies-at-rest"
    /// At the end the status of a ResourceQuota says that as much is used as there is.
    QuotasAtRest "quotas-at-rest"
    /// At the end the DNS answers each Service's name with its cluster IP, or its ready pods where it is headless.
    NamesAtRest "names-at-rest"
    /// At the end the declared state is reached, and kept.
    ConvergedAndKept "converged-and-kept"
}

/// A commit, as checkers see it. Renewals of Leases and reports of Nodes that say nothing new are no commits here.
pub struct Commit<'a> {
    /// Virtual seconds.
    pub at: f64,
    /// The store, after it.
    pub store: &'a MemoryStore,
    /// What was there.
    pub old: Option<&'a Object>,
    /// What is there now.
    pub new: Option<&'a Object>,
}

impl<'a> Commit<'a> {
    /// The pod that was there.
    pub fn old_pod(&self) -> Option<&'a Pod> {
        pod(self.old)
    }

    /// The pod that is there now.
    pub fn new_pod(&self) -> Option<&'a Pod> {
        pod(self.new)
    }
}

fn pod(object: Option<&Object>) -> Option<&Pod> {
    match object {
        Some(Object::Pod(pod)) => Some(pod),
        _ => None,
    }
}

/// A request as an API server gets it.
pub struct Asked<'a> {
    /// Virtual seconds.
    pub at: f64,
    /// The store at this moment.
    pub store: &'a MemoryStore,
    /// The request.
    pub request: &'a Request,
    /// The node whose process asks, if it is a node's.
    pub from: Option<&'a NodeHost>,
}

/// What was broken.
#[derive(Debug, Default)]
pub struct Report(BTreeMap<Invariant, Vec<Happening>>);

impl Report {
    /// Notes that an invariant is broken. The first times are told.
    pub fn broken(&mut self, invariant: Invariant, at: f64, what: String) {
        let told = self.0.entry(invariant).or_default();
        if told.len() < TOLD {
            told.push(Happening { at, what });
        }
    }

    /// Every invariant with what came of it.
    pub fn results(&self) -> Vec<InvariantResult> {
        let result = |invariant: &Invariant| InvariantResult {
            name: invariant.name().to_owned(),
            broken: self.0.contains_key(invariant),
            details: self.0.get(invariant).cloned().unwrap_or_default(),
        };
        Invariant::ALL.iter().map(result).collect()
    }

    /// Those that are broken.
    #[cfg(test)]
    pub fn names(&self) -> Vec<&'static str> {
        self.0.keys().map(|invariant| invariant.name()).collect()
    }
}

/// The checkers of what happens as a run goes.
#[derive(Debug, Default)]
pub struct Checkers {
    /// What they found.
    pub report: Report,
    allocatable: allocatable::Allocatable,
    binding: binding::Binding,
    floor: floor::Floor,
    /// Who leads what.
    pub leaders: leaders::Leaders,
    replicas: replicas::Replicas,
    endpoints: endpoints::Endpoints,
    addresses: addresses::Addresses,
    /// What runs on the nodes.
    pub containers: containers::Containers,
}

impl Checkers {
    /// Looks at a commit.
    pub fn commit(&mut self, commit: &Commit<'_>) {
        let report = &mut self.report;
        generation::check(commit, report);
        match commit.new.or(commit.old) {
            Some(Object::Pod(_)) => {
                self.binding.pod(commit, report);
                self.allocatable.pod(commit, report);
                self.replicas.pod(commit, report);
            }
            Some(Object::Node(_)) => {
                self.binding.node(commit);
                self.allocatable.node(commit);
            }
            Some(Object::ReplicaSet(set)) => {
                self.floor.set(commit, report);
                self.replicas.set(set.uid(), set.spec.replicas);
            }
            Some(Object::Job(job)) => self.replicas.job(job),
            Some(Object::DaemonSet(set)) => self.replicas.daemon_set(set),
            Some(Object::PodDisruptionBudget(_)) => budgets::check(commit, report),
            Some(Object::ReplicationController(set)) => self.replicas.set(set.uid(), set.spec.replicas),
            Some(Object::Service(_)) => {
                self.addresses.service(commit, report);
                self.endpoints.service(commit);
            }
            Some(Object::EndpointSlice(_)) => self.endpoints.slice(commit, report),
            _ => {}
        }
    }

    /// Looks at a request as an API server gets it.
    #[inline(always)]
    pub fn request(&mut self, asked: &Asked<'_>) {
        if let skeg_core::api::Call::Delete { key, options } = &asked.request.call {
            owners::check(asked, key, options, &mut self.report);
            deletion::check(asked, key, options, &mut self.report);
        }
    }

    /// Notes that an invariant is broken.
    pub fn broken(&mut self, invariant: Invariant, at: f64, what: String) {
        self.report.broken(invariant, at, what);
    }
}

/// The first invariant of what is at rest (Services, the tables of the proxies, names) that does not hold at this
/// moment, and why.
pub fn unsettled(world: &World) -> Option<(Invariant, String)> {
    let endpoints = endpoints::at_rest(&world.store).map(|what| (Invariant::EndpointsAtRest, what));
    let tables = || proxies::at_rest(world).map(|what| (Invariant::ProxiesAtRest, what));
    let names = || names::at_rest(world).map(|what| (Invariant::NamesAtRest, what));
    let quotas = || quotas::at_rest(&world.store).map(|what| (Invariant::QuotasAtRest, what));
    endpoints.or_else(tables).or_else(names).or_else(quotas)
}
