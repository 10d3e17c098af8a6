//! Invariants: what must hold in every run. There is one file per checker; its doc says what is checked and what is
//! tolerated.
//!
//! Invariants that can be checked during the run are checked at every commit, every request or every container start.
//! Invariants about the final state are checked at the end, when the cluster is at rest. The cost of the checks during
//! the run depends on the number of changes, not on the size of the cluster. Checkers read the stored objects
//! themselves (see `reading`) and never use values that core has derived from them.

mod addresses;
mod allocatable;
mod attachments;
mod autoscalers;
mod binding;
mod budgets;
mod caches;
mod claims;
mod conditions;
mod containers;
mod counts;
mod cron_jobs;
mod deletion;
mod devices;
mod endpoints;
mod evictions;
mod exchanges;
mod floor;
mod gangs;
mod generation;
mod guards;
mod jobs;
mod leaders;
mod limits;
mod members;
mod names;
mod namespaces;
mod overdue;
mod owners;
mod placement;
mod proxies;
mod quotas;
pub mod reading;
mod replicas;
mod rolling;
mod rollouts;
mod scheduler;
mod services;
mod silence;
mod spread;
mod statuses;
mod stops;
mod surplus;
#[cfg(test)]
mod tests;
mod victims;
mod views;
mod waiting;
mod zones;

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1 as core_v1;
use skeg_core::api::{Call, Request};
use skeg_core::object::{Kind, Object, Pod};
use skeg_core::scheduler::profile::Plugin;
use skeg_core::store::MemoryStore;

use crate::outcome::{Happening, InvariantResult};
use crate::scenario::Scheduling;
use crate::world::{NodeHost, World};

pub use caches::stale_cache;
pub use scheduler::{bound_blindly, miscounting};
pub use views::stale_view;

/// The maximum number of violations of one invariant that a report describes.
const TOLD: usize = 5;

macro_rules! invariants {
    ($($(#[doc = $doc:literal])* $variant:ident $name:literal)*) => {
        /// What must hold in every run.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
        pub enum Invariant { $($(#[doc = $doc])* $variant,)* }

        impl Invariant {
            /// All invariants, in the order in which reports show them.
            pub const ALL: &[Invariant] = &[$(Invariant::$variant),*];

            /// The invariant's name in reports.
            pub fn name(self) -> &'static str {
                match self { $(Invariant::$variant => $name,)* }
            }
        }
    };
}

invariants! {
    /// The scheduler never binds a pod to a node whose allocatable resources do not cover the pod and the pods already
    /// bound there.
    NodeOverAllocatable "node-over-allocatable"
    /// `spec.nodeName` of a pod is set once, to a node that exists.
    PodBoundTwice "pod-bound-twice"
    /// A Deployment's controller never scales its ReplicaSets down below `replicas - maxUnavailable`, neither in
    /// replicas nor in available pods.
    AvailableFloor "available-floor"
    /// A Deployment's controller never scales its ReplicaSets up beyond `replicas + maxSurge`.
    SurgeCeiling "surge-ceiling"
    /// No ReplicaSet is created for a template that its Deployment was given while it was paused.
    PausedDoesNotRoll "paused-does-not-roll"
    /// With the strategy `Recreate`, no pod of one ReplicaSet is created while pods of another one run.
    RecreateWaits "recreate-waits"
    /// An ordered StatefulSet creates no member before the one before it has been ready.
    MembersInOrder "members-in-order"
    /// A StatefulSet's controller deletes no more members at once than its rolling update allows, none below its
    /// partition, and of those beyond its size the highest first.
    MembersRollInTurn "members-roll-in-turn"
    /// A ReplicaSet that is scaled down deletes no ready pod while it has one that has not been ready for some time.
    UnreadyGoFirst "unready-go-first"
    /// A DaemonSet's controller deletes no more ready pods at once than its rolling update allows.
    DaemonsRollInTurn "daemons-roll-in-turn"
    /// A CronJob creates no Job that its concurrency policy forbids, and none while it is suspended.
    CronJobsTakeTurns "cron-jobs-take-turns"
    /// An autoscaler keeps within its bounds, and does not scale down within its stabilisation window.
    AutoscalersKeepBounds "autoscalers-keep-bounds"
    /// A Job never counts more succeeded pods than have succeeded, no more pods succeed than it has completions, and it
    /// is complete only when so many have.
    JobCounts "job-counts"
    /// A Job counts no more failed pods than have failed, fails only for what has happened, and makes no pods after it
    /// has finished.
    JobsFailRightly "jobs-fail-rightly"
    /// A Job is deleted for its `ttlSecondsAfterFinished` not before that time has passed, nor much later.
    TtlIsKept "ttl-is-kept"
    /// Nodes that are not ready are tainted for eviction one after another, soon, and none while no node is ready.
    ZoneRate "zone-rate"
    /// Pods leave a tainted node when their tolerations say so: neither before, nor much later.
    EvictedInTime "evicted-in-time"
    /// The scheduler deletes pods only for the sake of a waiting pod of higher priority.
    VictimsAreLesser "victims-are-lesser"
    /// The scheduler deletes no more pods than those that wait need room for.
    VictimsAreNeeded "victims-are-needed"
    /// The readiness of a node is never declared unknown while its agent renews its lease, unless something disturbs
    /// the control plane; that of all nodes never.
    HeardNodesAreKnown "heard-nodes-are-known"
    /// The pods of a node that is not ready are marked as not ready soon, unless something disturbs the control plane.
    DeadNodesServeNothing "dead-nodes-serve-nothing"
    /// The scheduler never binds a pod to a node that its own view shows as gone, or as one that the pod may not run
    /// on: for its taints, its labels, its ports in use, the pods that it keeps away from, or those that it is spread
    /// with.
    BoundAsSeen "bound-as-seen"
    /// Of a gang, at least its least number of pods is bound soon after the first, unless something disturbs the
    /// control plane or a pod of it is deleted.
    GangsBindTogether "gangs-bind-together"
    /// At most one candidate acts as leader of a role.
    OneLeader "one-leader"
    /// Creates, updates and bindings of a leader are carried out only while it leads.
    DeposedLeadersWriteNothing "deposed-leaders-write-nothing"
    /// Updates of controllers and agents name the version that they change; their deletions name the object's UID, and
    /// those of the garbage collector its version.
    WritesAreGuarded "writes-are-guarded"
    /// An update changes the version that it names.
    UpdatesKeepOthers "updates-keep-others"
    /// A consistent read never shows an older state than the one that was stored when it arrived.
    FreshReads "fresh-reads"
    /// The garbage collector never deletes an object that has a living owner.
    ChildOutlivesOwner "child-outlives-owner"
    /// The garbage collector never deletes what existed when its owner was deleted with orphan propagation.
    OrphansSurvive "orphans-survive"
    /// An owner that is deleted in the foreground goes after the dependents that block its deletion.
    ForegroundWaits "foreground-waits"
    /// An object's `metadata.generation` never decreases, that of a workload increases with its spec, and its UID never
    /// changes.
    GenerationCounts "generation-counts"
    /// Every eviction uses up one of the disruptions that the PodDisruptionBudget allows.
    BudgetIsSpent "budget-is-spent"
    /// The disruption controller never allows more disruptions than a budget has healthy pods to spare.
    BudgetIsEarned "budget-is-earned"
    /// A ReplicaSet, ReplicationController or Job never creates a pod beyond the highest number of replicas that it
    /// ever had; a DaemonSet never creates a second pod for a node, a Job none for an index that has one.
    MostReplicas "most-replicas"
    /// A claim of access mode ReadWriteOncePod is never used by two pods on nodes.
    OnePodPerClaim "one-pod-per-claim"
    /// A claim is removed only when no pod on a node uses it any more.
    ClaimsStayWhileUsed "claims-stay-while-used"
    /// A volume that one node may use at a time is never attached to two.
    OneNodePerVolume "one-node-per-volume"
    /// A device is never allocated to two claims at a time.
    OneClaimPerDevice "one-claim-per-device"
    /// A volume is not detached from a node that uses it, unless that has been lost for six minutes.
    DetachedWhenUnused "detached-when-unused"
    /// An endpoint is never both ready and terminating, unless its Service has `publishNotReadyAddresses`.
    ReadyAndTerminating "ready-and-terminating"
    /// No more than two EndpointSlices of a Service that its controller manages list the same pod: the one that it
    /// leaves and the one that it comes to.
    SlicesDoNotPileUp "slices-do-not-pile-up"
    /// No two Services have the same cluster IP or node port.
    ServiceAddresses "service-addresses"
    /// A node's agent never deletes a pod from the API while the pod's containers run.
    DeletedWhileRunning "deleted-while-running"
    /// Nobody but its agent removes a pod that is bound to a node, unless the deletion is forced.
    DeletionWaits "deletion-waits"
    /// There are never two running containers with the same pod and name.
    OneContainer "one-container"
    /// A container whose restart policy is `Never` is started only once.
    NeverRestarts "never-restarts"
    /// No container of a pod starts before the init containers before it have completed, or, if they are sidecars, have
    /// been started.
    InitsComeFirst "inits-come-first"
    /// The containers of a pod that is deleted have its grace period to end in.
    GraceIsKept "grace-is-kept"
    /// A container that is stopped because its pod is deleted has run its preStop hook before.
    HooksRunFirst "hooks-run-first"
    /// Sidecars of a pod that ends are not stopped before its main containers.
    SidecarsGoLast "sidecars-go-last"
    /// A container that crashes again and again is not restarted at once.
    RestartsBackOff "restarts-back-off"
    /// While nothing disturbs the control plane, what is due is done within a bound: a suspended Job's pods are
    /// deleted, a pod for whose sake others were evicted is bound, a deleted pod on a sound node is gone.
    DoneInTime "done-in-time"
    /// A namespace is removed only when nothing is left in it.
    NamespacesGoEmpty "namespaces-go-empty"
    /// No more pods are created than a ResourceQuota allows.
    QuotaHolds "quota-holds"
    /// Containers of new pods are within the bounds of the LimitRanges of their namespace, and have their defaults.
    LimitsAreKept "limits-are-kept"
    /// A pod is Ready only while its containers are, fails only if it may, one that has ended stays so, and no deletion
    /// is taken back.
    StatusesAddUp "statuses-add-up"
    /// At the end of a run, every API server's watch cache equals the store.
    CachesAtRest "caches-at-rest-equal-store"
    /// At the end of a run, every process's view equals the store.
    ViewsAtRest "views-at-rest-equal-store"
    /// At the end of a run, the scheduler counts on each node exactly the pods that are bound to it.
    SchedulerAtRest "scheduler-at-rest-equals-store"
    /// At the end of a run, a container is said to run exactly if it runs.
    StatusesAtRest "statuses-at-rest"
    /// At the end of a run, sets of pods and PodDisruptionBudgets count the pods that there are, and no more is kept of
    /// the past than history limits say.
    CountsAtRest "counts-at-rest"
    /// At the end of a run, claims and volumes that are bound are bound to each other.
    ClaimsAtRest "claims-at-rest"
    /// At the end of a run, nothing is left whose controller is gone.
    OrphansAtRest "orphans-at-rest"
    /// At the end of a run, a Deployment's conditions and revision are those of what there is.
    ConditionsAtRest "conditions-at-rest"
    /// At the end of a run, a Service's EndpointSlices list exactly its ready pods.
    EndpointsAtRest "endpoints-at-rest"
    /// At the end of a run, every node's service table is the one computed from the store, and each cluster IP leads to
    /// the ready pods.
    ProxiesAtRest "proxies-at-rest"
    /// At the end of a run, `status.used` of each ResourceQuota equals the actual usage.
    QuotasAtRest "quotas-at-rest"
    /// At the end of a run, DNS resolves each Service's name to its cluster IP, or, if it is headless, to its ready
    /// pods.
    NamesAtRest "names-at-rest"
    /// At the end of a run, the declared state has been reached and does not change any more.
    ConvergedAndKept "converged-and-kept"
}

/// A commit, as checkers see it. Commits of Leases and Node heartbeats are not shown to checkers.
pub struct Commit<'a> {
    /// Time of the commit, in virtual seconds.
    pub at: f64,
    /// The store after the commit.
    pub store: &'a MemoryStore,
    /// The object before the commit; `None` if it was created.
    pub old: Option<&'a Object>,
    /// The object after the commit; `None` if it was deleted.
    pub new: Option<&'a Object>,
}

impl<'a> Commit<'a> {
    /// The pod before the commit; `None` if it did not exist or the object is not a pod.
    pub fn old_pod(&self) -> Option<&'a Pod> {
        pod(self.old)
    }

    /// The pod after the commit; `None` if it no longer exists or the object is not a pod.
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

/// A request as it arrives at an API server.
pub struct Asked<'a> {
    /// Time of arrival, in virtual seconds.
    pub at: f64,
    /// The store at that time.
    pub store: &'a MemoryStore,
    /// The request.
    pub request: &'a Request,
    /// The node that sent the request; `None` if the sender is not a process of a node.
    pub from: Option<&'a NodeHost>,
}

/// The violations found so far, by invariant.
#[derive(Debug, Default)]
pub struct Report(BTreeMap<Invariant, Vec<Happening>>);

impl Report {
    /// Records a violation of an invariant. Only the first `TOLD` violations of each invariant are described.
    pub fn broken(&mut self, invariant: Invariant, at: f64, what: String) {
        let told = self.0.entry(invariant).or_default();
        if told.len() < TOLD {
            told.push(Happening { at, what });
        }
    }

    /// The result of every invariant.
    pub fn results(&self) -> Vec<InvariantResult> {
        let result = |invariant: &Invariant| InvariantResult {
            name: invariant.name().to_owned(),
            broken: self.0.contains_key(invariant),
            details: self.0.get(invariant).cloned().unwrap_or_default(),
        };
        Invariant::ALL.iter().map(result).collect()
    }

    /// The names of the violated invariants.
    #[cfg(test)]
    pub fn names(&self) -> Vec<&'static str> {
        self.0.keys().map(|invariant| invariant.name()).collect()
    }
}

/// The checkers that run while the simulation proceeds.
#[derive(Debug, Default)]
pub struct Checkers {
    /// The violations that they found.
    pub report: Report,
    allocatable: allocatable::Allocatable,
    binding: binding::Binding,
    floor: floor::Floor,
    gangs: gangs::Gangs,
    /// Which processes lead their roles.
    pub leaders: leaders::Leaders,
    replicas: replicas::Replicas,
    claims: claims::Claims,
    attachments: attachments::Attachments,
    devices: devices::Devices,
    endpoints: endpoints::Endpoints,
    addresses: addresses::Addresses,
    members: members::Members,
    jobs: jobs::Jobs,
    zones: zones::Zones,
    deletions: deletion::Deletions,
    budgets: budgets::Budgets,
    owners: owners::Owners,
    /// The requests that have no reply yet.
    pub exchanges: exchanges::Exchanges,
    /// Which nodes are heard of.
    pub silence: silence::Silence,
    /// How often containers were started.
    pub containers: containers::Containers,
    /// The pods that are being deleted.
    pub stops: stops::Stops,
    autoscalers: autoscalers::Autoscalers,
    cron_jobs: cron_jobs::CronJobs,
    evictions: evictions::Evictions,
    overdue: overdue::Overdue,
    quotas: quotas::Quotas,
    limits: limits::Limits,
    rolling: rolling::Rolling,
    rollouts: rollouts::Rollouts,
    surplus: surplus::Surplus,
    victims: victims::Victims,
    waiting: waiting::Waiting,
}

impl Checkers {
    /// The checkers of a cluster whose pods are scheduled so. What its filters do not see to does not hold.
    pub fn new(scheduling: &Scheduling) -> Checkers {
        let allocatable = allocatable::Allocatable::new(!scheduling.overcommits());
        let claims = claims::Claims::new(scheduling.always_filters(Plugin::VolumeRestrictions));
        Checkers { allocatable, claims, ..Checkers::default() }
    }

    /// Checks a commit.
    pub fn commit<'a>(&mut self, commit: &Commit<'a>) {
        let report = &mut self.report;
        generation::check(commit, report);
        self.owners.committed(commit, self.silence.lag(commit.at), report);
        self.silence.check_pods(commit, report);
        self.zones.check_due(commit, self.silence.calm_since(), report);
        self.gangs.check_due(commit, self.silence.calm_since(), report);
        let lag = self.silence.lag(commit.at);
        match commit.new.or(commit.old) {
            Some(Object::Pod(_)) => {
                self.binding.pod(commit, report);
                self.gangs.pod(commit);
                self.allocatable.pod(commit, report);
                self.replicas.pod(commit, report);
                self.claims.pod(commit, report);
                self.floor.pod(commit, report);
                self.members.pod(commit, report);
                self.jobs.pod(commit, report);
                self.deletions.pod(commit, report);
                self.budgets.pod(commit, report);
                self.quotas.pod(commit, report);
                self.limits.pod(commit, report);
                self.rolling.pod(commit);
                self.stops.pod(commit);
                self.surplus.pod(commit);
                self.victims.pod(commit);
                statuses::check(commit, report);
            }
            Some(Object::Node(_)) => {
                let node = |object: Option<&'a Object>| object.and_then(Object::get::<core_v1::Node>);
                self.zones.node(commit, node(commit.old), node(commit.new), report);
                self.silence.node(commit, report);
                self.binding.node(commit);
                self.allocatable.node(commit);
            }
            Some(Object::ReplicaSet(set)) => {
                self.floor.set(commit, report);
                self.rollouts.set(commit, report);
                self.replicas.set(set.uid(), set.spec.replicas);
            }
            Some(Object::Job(job)) => {
                self.replicas.job(job);
                self.jobs.job(commit, job, lag, report);
                self.cron_jobs.job(commit, lag, report);
            }
            Some(Object::CronJob(cron_job)) => self.cron_jobs.cron_job(commit.at, cron_job),
            Some(Object::Deployment(_)) => self.rollouts.deployment(commit),
            Some(object @ Object::StatefulSet(_)) => self.rolling.set(commit.at, object),
            Some(object @ Object::DaemonSet(set)) => {
                self.replicas.daemon_set(set);
                self.rolling.set(commit.at, object);
            }
            Some(Object::Namespace(_)) => namespaces::check(commit, report),
            Some(Object::PodDisruptionBudget(_)) => self.budgets.budget(commit, report),
            Some(Object::ReplicationController(set)) => self.replicas.set(set.uid(), set.spec.replicas),
            Some(Object::Service(_)) => {
                self.addresses.service(commit, report);
                self.endpoints.service(commit);
            }
            Some(Object::EndpointSlice(_)) => self.endpoints.slice(commit, report),
            Some(Object::Dynamic(d)) if d.kind == Kind::VOLUME_ATTACHMENT => {
                self.attachments.attachment(commit, report);
            }
            Some(Object::Dynamic(d)) if d.kind == Kind::RESOURCE_CLAIM => self.devices.claim(commit, report),
            Some(Object::Dynamic(d)) if d.kind == Kind::PERSISTENT_VOLUME_CLAIM => self.claims.claim(commit, report),
            Some(Object::Dynamic(d)) if d.kind == Kind::RESOURCE_QUOTA => self.quotas.quota(commit),
            Some(Object::Dynamic(d)) if d.kind == Kind::LIMIT_RANGE => self.limits.range(commit),
            Some(
                Object::Lease(_)
                | Object::Endpoints(_)
                | Object::Event(_)
                | Object::ServiceAccount(_)
                | Object::ControllerRevision(_)
                | Object::Dynamic(_),
            )
            | None => {}
        }
    }

    /// Checks a commit of a run in which something goes wrong: what costs too much for the others.
    pub fn disturbed(&mut self, commit: &Commit<'_>) {
        self.evictions.check_due(commit, self.silence.calm_since(), &mut self.report);
        self.overdue.check(commit, self.silence.calm_since(), &mut self.report);
        self.overdue.note(commit);
        match commit.new.or(commit.old) {
            Some(Object::EndpointSlice(_)) => self.endpoints.listed(commit, &mut self.report),
            Some(Object::Node(_)) => {
                self.evictions.node(commit);
                self.attachments.node(commit);
                self.waiting.node(commit);
            }
            Some(Object::Pod(_)) => {
                self.attachments.pod(commit);
                self.waiting.pod(commit);
            }
            _ => {}
        }
        self.waiting.check(commit, self.silence.calm_since(), &mut self.allocatable, &mut self.report);
    }

    /// Checks a request as it arrives at an API server.
    #[inline(always)]
    pub fn request(&mut self, asked: &Asked<'_>) {
        guards::check(asked, &mut self.report);
        match &asked.request.call {
            Call::Delete { key, options } => {
                self.owners.check(asked, key, options, &mut self.report);
                self.deletions.asked(asked, key, options, &mut self.report);
                self.evictions.asked(asked, key, options, &mut self.report);
                self.victims.asked(asked, key, options, &mut self.report);
                self.surplus.asked(asked, (key, options), self.silence.lag(asked.at), &mut self.report);
                self.jobs.asked(asked, (key, options), self.silence.lag(asked.at), &mut self.report);
            }
            Call::SetScale { .. } => self.autoscalers.asked(asked, &mut self.report),
            call @ Call::Evict { .. } => self.deletions.evicted(call),
            Call::Create { .. }
            | Call::Update { .. }
            | Call::Patch { .. }
            | Call::DeleteCollection { .. }
            | Call::Get { .. }
            | Call::List { .. }
            | Call::Watch { .. }
            | Call::Bind { .. }
            | Call::Connect { .. }
            | Call::GetScale { .. } => {}
        }
    }

    /// Checks a request of a run in which something goes wrong: what costs too much for the others.
    pub fn disturbed_request(&mut self, asked: &Asked<'_>) {
        if let Call::Delete { key, options } = &asked.request.call {
            let lag = self.silence.lag(asked.at);
            self.rolling.asked(asked, (key, options), lag, &mut self.report);
            self.attachments.asked(asked, key, lag, &mut self.report);
        }
    }

    /// Records a violation of an invariant.
    pub fn broken(&mut self, invariant: Invariant, at: f64, what: String) {
        self.report.broken(invariant, at, what);
    }
}

/// Checks the invariants of the final state that depend on the statuses of pods and of what counts them, Services,
/// service tables, DNS names and quotas. Returns the first one that does not hold now, with the reason.
pub fn unsettled(world: &World) -> Option<(Invariant, String)> {
    let statuses = statuses::at_rest(world).map(|what| (Invariant::StatusesAtRest, what));
    let counts = || counts::at_rest(&world.store).map(|what| (Invariant::CountsAtRest, what));
    let conditions = || conditions::at_rest(&world.store).map(|what| (Invariant::ConditionsAtRest, what));
    let endpoints = || endpoints::at_rest(&world.store).map(|what| (Invariant::EndpointsAtRest, what));
    let tables = || proxies::at_rest(world).map(|what| (Invariant::ProxiesAtRest, what));
    let names = || names::at_rest(world).map(|what| (Invariant::NamesAtRest, what));
    let quotas = || quotas::at_rest(&world.store).map(|what| (Invariant::QuotasAtRest, what));
    let orphans = || owners::at_rest(&world.store).map(|what| (Invariant::OrphansAtRest, what));
    let claims = || claims::at_rest(&world.store).map(|what| (Invariant::ClaimsAtRest, what));
    let workloads = statuses.or_else(counts).or_else(conditions).or_else(orphans).or_else(claims);
    workloads.or_else(endpoints).or_else(tables).or_else(names).or_else(quotas)
}
