//! Convergence: whether the cluster has reached the declared state, and if not, why.

use std::time::Duration;

use k8s_openapi::api::{batch::v1 as batch_v1, core::v1 as core_v1};

use skeg_core::Wall;
use skeg_core::cron::{self, Schedule};
use skeg_core::object::{
    ContainerState, CronJob, DaemonSet, Job, Kind, Object, ObjectKey, ObjectMeta, Pod, Selector, StatefulSet, Text,
    controller_of, is_node_ready, is_pod_ready, is_pod_terminal, pod_phase,
};
use skeg_core::scheduler::scheduler_of;
use skeg_core::store::{MemoryStore, StoreKey, Stored};
use skeg_core::volume;

use crate::clock::Clock;
use crate::outcome::{NotConverged, PendingPod, Workload};
use crate::user::{Declared, User};
use crate::world::World;

/// Objects of a kind in the store.
pub fn objects(store: &MemoryStore, kind: Kind) -> impl Iterator<Item = &Object> {
    let start = StoreKey::Object(ObjectKey::range_start(kind, ""));
    let end = StoreKey::Object(ObjectKey::range_end(kind, ""));
    store.range(&start, &end).filter_map(|kv| match &kv.value {
        Stored::Object(object) => Some(object),
        Stored::Mark(..) => None,
    })
}

/// How many items that have not converged are listed.
const TOLD: usize = 50;

/// Objects that have not reached their declared state.
#[derive(Debug)]
pub struct Unconverged {
    /// The first ones.
    pub list: Vec<NotConverged>,
    /// Their total number.
    pub total: usize,
    /// Stop after the first: only whether there is any is needed.
    only_whether: bool,
}

impl Unconverged {
    fn new(only_whether: bool) -> Unconverged {
        Unconverged { list: Vec::new(), total: 0, only_whether }
    }

    /// Whether everything has converged.
    pub fn is_empty(&self) -> bool {
        self.total == 0
    }

    /// Whether no more items need be searched.
    fn is_enough(&self) -> bool {
        self.only_whether && self.total > 0
    }

    /// Adds an item; the reason is computed only if the item is listed.
    pub fn add(&mut self, what: impl FnOnce() -> String, why: impl FnOnce() -> String) {
        self.total += 1;
        if self.list.len() < TOLD && !self.only_whether {
            self.list.push(NotConverged { what: what(), why: why() });
        }
    }

    fn add_object(&mut self, object: &Object, why: impl FnOnce() -> String) {
        self.add(|| name_of(&object.key()), why);
    }

    /// Adds the items of another list.
    pub fn extend(&mut self, other: Unconverged) {
        self.total += other.total;
        let room = TOLD.saturating_sub(self.list.len());
        self.list.extend(other.list.into_iter().take(room));
    }
}

/// `Deployment shop/web`.
fn name_of(key: &ObjectKey) -> String {
    format!("{} {}", key.kind, key.path())
}

/// Whether the cluster has reached the state that the store declares.
pub fn is_converged(world: &World) -> bool {
    look(world, true).is_empty()
}

/// The objects that have not reached the state that the store declares.
pub fn unconverged(world: &World) -> Unconverged {
    look(world, false)
}

fn look(world: &World, only_whether: bool) -> Unconverged {
    let mut found = Unconverged::new(only_whether);
    workloads_unconverged(world, &mut found);
    nodes_unconverged(world, &mut found);
    if !found.is_enough() {
        cron_jobs_unconverged(world, &mut found);
    }
    for check in [namespaces_unconverged, pods_unconverged, claims_unconverged] {
        if !found.is_enough() {
            check(world, &mut found);
        }
    }
    found
}

/// Requests of users that were not fulfilled, even if the cluster has otherwise converged: what the API rejected, what
/// is declared but does not exist, what is still waiting.
pub fn complaints(world: &World) -> Unconverged {
    let mut found = Unconverged::new(false);
    for (what, why) in world.users().flat_map(User::waiting) {
        found.add(|| what, || why);
    }
    for (what, why) in world.users().flat_map(User::refused) {
        found.add(|| what.clone(), || format!("refused: {why}"));
    }
    for (key, declared) in world.users().flat_map(User::declared) {
        if let Some(why) = &declared.refused {
            found.add(|| name_of(key), || format!("not as declared, since the API refused it: {why}"));
        } else if world.store.object(key).is_none() && !may_vanish(&world.store, key, declared) {
            found.add(
                || name_of(key),
                || "declared, and not there: it was deleted, and nothing makes it again".to_owned(),
            );
        }
    }
    found
}

/// Whether a declared object may legitimately be gone: a controller owns it by now, or it expires.
fn may_vanish(store: &MemoryStore, key: &ObjectKey, declared: &Declared) -> bool {
    let selects = |o: &Object| {
        let selector = match o {
            Object::Deployment(d) => Selector::from_label_selector(&d.spec.selector).ok(),
            Object::ReplicaSet(r) => Selector::from_label_selector(&r.spec.selector).ok(),
            Object::ReplicationController(r) => r.spec.selector.as_ref().map(Selector::from_map),
            _ => None,
        };
        o.namespace() == key.namespace() && selector.is_some_and(|s| s.matches(declared.object.labels()))
    };
    match key.kind {
        _ if declared.of_controller => true,
        Kind::EVENT => true,
        Kind::JOB => {
            matches!(&*declared.object, Object::Job(job) if job.spec.ttl_seconds_after_finished.is_some())
        }
        Kind::REPLICA_SET => objects(store, Kind::DEPLOYMENT).any(selects),
        Kind::POD => objects(store, Kind::REPLICA_SET).chain(objects(store, Kind::REPLICATION_CONTROLLER)).any(selects),
        _ => false,
    }
}

/// Kinds whose objects have pods and report their progress in their status.
const WORKLOADS: [Kind; 6] = [
    Kind::DEPLOYMENT,
    Kind::REPLICA_SET,
    Kind::REPLICATION_CONTROLLER,
    Kind::STATEFUL_SET,
    Kind::DAEMON_SET,
    Kind::JOB,
];

fn workloads_unconverged(world: &World, found: &mut Unconverged) {
    let store = &world.store;
    for kind in WORKLOADS {
        for object in objects(store, kind) {
            if found.is_enough() {
                return;
            }
            if is_of_cron_job(store, object) {
                continue;
            }
            if object.is_deleting() {
                found.add_object(object, || "it is being deleted".to_owned());
                continue;
            }
            if let Some(why) = lagging(object).or_else(|| outlives_its_time(world, object)) {
                let cause = || why_pods_wait(world, object).map(|cause| format!("; {cause}")).unwrap_or_default();
                found.add_object(object, || why + &cause());
            }
        }
    }
}

/// What is missing in a workload's status; `None` if nothing is.
fn lagging(object: &Object) -> Option<String> {
    let n = |v: Option<i32>| v.unwrap_or(0);
    let generation = object.meta().generation;
    let (observed, wanted, counts) = match object {
        Object::Deployment(d) => {
            let s = &d.status;
            let counts = vec![
                ("replicas", n(s.replicas)),
                ("updated", n(s.updated_replicas)),
                ("ready", n(s.ready_replicas)),
                ("available", n(s.available_replicas)),
            ];
            (s.observed_generation, n(d.spec.replicas.or(Some(1))), counts)
        }
        Object::ReplicaSet(r) => {
            let s = &r.status;
            let counts =
                vec![("replicas", s.replicas), ("ready", n(s.ready_replicas)), ("available", n(s.available_replicas))];
            (s.observed_generation, n(r.spec.replicas.or(Some(1))), counts)
        }
        Object::ReplicationController(r) => {
            let s = &r.status;
            let counts =
                vec![("replicas", s.replicas), ("ready", n(s.ready_replicas)), ("available", n(s.available_replicas))];
            (s.observed_generation, n(r.spec.replicas.or(Some(1))), counts)
        }
        Object::Job(job) => return job_lags(job),
        Object::StatefulSet(set) => return stateful_set_lags(set),
        Object::DaemonSet(set) => return daemon_set_lags(set),
        Object::Pod(_)
        | Object::Node(_)
        | Object::Lease(_)
        | Object::Namespace(_)
        | Object::Service(_)
        | Object::Endpoints(_)
        | Object::EndpointSlice(_)
        | Object::Event(_)
        | Object::ServiceAccount(_)
        | Object::PodDisruptionBudget(_)
        | Object::ControllerRevision(_)
        | Object::CronJob(_)
        | Object::Dynamic(_) => return None,
    };
    if let Object::Deployment(d) = object
        && d.spec.paused == Some(true)
    {
        return None;
    }
    if observed < generation {
        return Some(format!("generation {} is not observed yet", generation.unwrap_or(0)));
    }
    if counts.iter().all(|(_, n)| *n == wanted) {
        return None;
    }
    Some(shortfall(wanted, &counts))
}

fn shortfall<N: std::fmt::Display>(wanted: N, counts: &[(&str, N)]) -> String {
    let list: Vec<String> = counts.iter().map(|(name, n)| format!("{n} {name}")).collect();
    format!("{wanted} wanted: {}", list.join(", "))
}

/// What is missing in the status of a StatefulSet, as for `kubectl rollout status`; `None` if nothing is.
fn stateful_set_lags(set: &StatefulSet) -> Option<String> {
    let (spec, status) = (&set.spec, &set.status);
    let strategy = spec.update_strategy.as_ref();
    let partition = strategy.and_then(|s| s.rolling_update.as_ref()?.partition).unwrap_or(0);
    let wanted = spec.replicas.unwrap_or(1);
    let counts = [
        ("replicas", status.replicas),
        ("ready", status.ready_replicas.unwrap_or(0)),
        ("available", status.available_replicas.unwrap_or(0)),
    ];
    let rolls = strategy.and_then(|s| s.type_.as_deref()) != Some("OnDelete");
    let least_updated = if rolls { wanted - partition } else { 0 };
    let updated = status.updated_replicas.unwrap_or(0);
    set_lags(&set.meta, status.observed_generation, wanted, &counts, updated, least_updated)
}

/// What is missing in the status of a DaemonSet; `None` if nothing is.
fn daemon_set_lags(set: &DaemonSet) -> Option<String> {
    let status = &set.status;
    let wanted = status.desired_number_scheduled;
    let counts = [
        ("scheduled", status.current_number_scheduled),
        ("ready", status.number_ready),
        ("available", status.number_available.unwrap_or(0)),
    ];
    let strategy = set.spec.update_strategy.as_ref().and_then(|s| s.type_.as_deref());
    let least_updated = if strategy == Some("OnDelete") { 0 } else { wanted };
    let updated = status.updated_number_scheduled.unwrap_or(0);
    set_lags(&set.meta, status.observed_generation, wanted, &counts, updated, least_updated)
}

fn set_lags(
    meta: &ObjectMeta,
    observed: Option<i64>,
    wanted: i32,
    counts: &[(&str, i32)],
    updated: i32,
    least_updated: i32,
) -> Option<String> {
    let generation = meta.generation.unwrap_or(0);
    if observed.unwrap_or(0) < generation {
        return Some(format!("generation {generation} is not observed yet"));
    }
    if counts.iter().all(|(_, n)| *n == wanted) && updated >= least_updated {
        return None;
    }
    let counts: Vec<_> = counts.iter().copied().chain([("updated", updated)]).collect();
    Some(shortfall(wanted, &counts))
}

/// How a Job has ended, if it has: `Complete` or `Failed`, and why.
fn job_end(job: &Job) -> Option<(&'static str, String)> {
    ["Failed", "Complete"].into_iter().find_map(|end| {
        let holds = |c: &&batch_v1::JobCondition| c.type_ == end && c.status == "True";
        let condition = job.status.conditions.iter().flatten().find(holds)?;
        let (reason, message) = (condition.reason.as_deref(), condition.message.as_deref());
        Some((end, format!("{}: {}", reason.unwrap_or(""), message.unwrap_or(""))))
    })
}

/// The annotation of a Job that has come to its end also when it has failed.
pub const MAY_FAIL: &str = "skeg.dev/may-fail";

fn may_fail(job: &Job) -> bool {
    job.meta.annotations.as_ref().and_then(|all| all.get(MAY_FAIL)).is_some_and(|said| said == "true")
}

/// Why a Job has not finished; `None` if it has, or is suspended.
fn job_lags(job: &Job) -> Option<String> {
    match job_end(job) {
        Some(("Failed", why)) => return (!may_fail(job)).then(|| format!("it has failed: {why}")),
        Some(_) => return None,
        None if job.spec.suspend == Some(true) => {
            let active = job.status.active.unwrap_or(0);
            return (active > 0).then(|| format!("it is suspended, and has {active} active pods"));
        }
        None => {}
    }
    let (status, n) = (&job.status, |count: Option<i32>| count.unwrap_or(0));
    let (active, succeeded, failed) = (n(status.active), n(status.succeeded), n(status.failed));
    Some(format!("it has not ended: {active} active, {succeeded} succeeded, {failed} failed"))
}

/// How long after its time a finished Job may still be there.
const TTL_PATIENCE: Duration = Duration::from_secs(60);

/// Since when a finished Job is to be gone.
fn outlives_its_time(world: &World, object: &Object) -> Option<String> {
    let Object::Job(job) = object else { return None };
    let ttl = Duration::from_secs(u64::try_from(job.spec.ttl_seconds_after_finished?).unwrap_or(0));
    let ends = |c: &&batch_v1::JobCondition| matches!(&*c.type_, "Complete" | "Failed") && c.status == "True";
    let ended = job.status.conditions.iter().flatten().find(ends)?.last_transition_time.as_ref()?;
    let over = Clock::steady(world.now).wall.since(Wall::from_time(ended)).checked_sub(ttl + TTL_PATIENCE)?;
    Some(format!("it was to be deleted {:.0}s ago", (over + TTL_PATIENCE).as_secs_f64()))
}

/// The first reason why one of its pods is not ready.
fn why_pods_wait(world: &World, object: &Object) -> Option<String> {
    let store = &world.store;
    if let Object::Deployment(_) = object {
        let owned = |o: &&Object| controller_of(o.meta()).is_some_and(|c| c.uid == object.uid());
        return objects(store, Kind::REPLICA_SET)
            .filter(owned)
            .find_map(|rs| failure_of(rs).or_else(|| why_pods_wait(world, rs)));
    }
    let owned = |p: &&Pod| controller_of(&p.meta).is_some_and(|c| c.uid == object.uid());
    let pods = objects(store, Kind::POD).filter_map(Object::get::<core_v1::Pod>);
    pods.filter(owned).find_map(|pod| why_not_ready(world, pod)).or_else(|| failure_of(object))
}

fn failure_of(object: &Object) -> Option<String> {
    match object {
        Object::ReplicaSet(rs) => {
            let c = rs.status.conditions.iter().flatten().next()?;
            c.message.clone()
        }
        Object::ReplicationController(rc) => rc.status.conditions.iter().flatten().next()?.message.clone(),
        _ => None,
    }
}

/// Why a pod is not ready; `None` if it is.
fn why_not_ready(world: &World, pod: &Pod) -> Option<String> {
    let store = &world.store;
    if is_pod_ready(pod) || is_pod_terminal(pod) {
        return None;
    }
    let name = pod.name();
    if pod.meta.deletion_timestamp.is_some() {
        return Some(format!("pod {name} is terminating"));
    }
    if pod.spec.node.is_none() {
        return Some(format!("pod {name} is not scheduled: {}", why_unscheduled(world, pod)));
    }
    let statuses = pod.status.init_container_statuses.iter().chain(&pod.status.container_statuses);
    for status in statuses {
        match &status.state {
            ContainerState::Waiting { reason, message } => {
                let missing = message.is_empty().then(|| missing_source(store, pod)).flatten();
                let message = missing.as_deref().unwrap_or(message.as_str());
                return Some(format!("container {} of pod {name} waits: {reason} {message}", status.name));
            }
            ContainerState::Running { .. } if !status.ready => {
                return Some(format!("container {} of pod {name} runs and is not ready", status.name));
            }
            ContainerState::Running { .. }
            | ContainerState::Absent
            | ContainerState::Empty
            | ContainerState::Terminated(_)
            | ContainerState::Several(_) => {}
        }
    }
    if let Some(gate) = pod.status.condition(&Text::READY).filter(|c| c.reason == Text::READINESS_GATES_NOT_READY) {
        return Some(format!("pod {name} is not ready: {}", gate.message));
    }
    let node = pod.spec.node.as_deref().unwrap_or("");
    let missing = missing_source(store, pod).map(|why| format!(": {why}")).unwrap_or_default();
    Some(format!("pod {name} is {} on {node}{missing}", pod_phase(pod)))
}

/// What a volume of a pod refers to and is not there, in the kubelet's words. The pod's containers wait for it, and
/// their status does not say so.
fn missing_source(store: &MemoryStore, pod: &Pod) -> Option<String> {
    let missing = |kind: Kind, name: &str, optional: Option<bool>| {
        let key = ObjectKey::new(kind, pod.namespace(), name);
        let what = if kind == Kind::SECRET { "secret" } else { "configmap" };
        (optional != Some(true) && store.object(&key).is_none()).then(|| format!("{what} {name:?} not found"))
    };
    pod.spec.volumes.iter().flatten().find_map(|volume| {
        let secret = volume.secret.as_ref();
        let secret = secret.and_then(|s| missing(Kind::SECRET, s.secret_name.as_deref()?, s.optional));
        let map = || volume.config_map.as_ref().and_then(|c| missing(Kind::CONFIG_MAP, &c.name, c.optional));
        let claim = || {
            let name = skeg_core::volume::claim_name(pod.name(), volume)?;
            let key = ObjectKey::new(Kind::PERSISTENT_VOLUME_CLAIM, pod.namespace(), &name);
            match store.object(&key) {
                None => Some(format!("persistentvolumeclaim {name:?} not found")),
                Some(claim) => claim.is_deleting().then(|| format!("persistentvolumeclaim {name:?} is being deleted")),
            }
        };
        let why = secret.or_else(map).or_else(claim)?;
        Some(format!("MountVolume.SetUp failed for volume {:?} : {why}", volume.name))
    })
}

/// Why a pod has no node: the scheduler's message, or that its scheduler does not run here.
fn why_unscheduled(world: &World, pod: &Pod) -> String {
    let scheduler = scheduler_of(pod);
    let runs = world.setup.profiles.iter().any(|profile| profile.name == *scheduler);
    let told = pod.status.condition(&Text::POD_SCHEDULED).and_then(|c| c.message.to_option());
    match told {
        Some(words) => words,
        None if !runs => {
            format!("spec.schedulerName is {scheduler:?}, and no scheduler of that name runs here")
        }
        None => "it has not been looked at".to_owned(),
    }
}

fn nodes_unconverged(world: &World, found: &mut Unconverged) {
    for object in objects(&world.store, Kind::NODE) {
        let Object::Node(node) = object else { continue };
        if found.is_enough() {
            return;
        }
        let tainted = |t: &core_v1::Taint| {
            t.key == skeg_core::object::TAINT_NOT_READY || t.key == skeg_core::object::TAINT_UNREACHABLE
        };
        if !is_node_ready(node) {
            found.add_object(object, || "the node is not ready".to_owned());
        } else if node.spec.taints.iter().flatten().any(tainted) {
            found.add_object(object, || "the node is ready and still tainted".to_owned());
        }
    }
    // A Node that a user has deleted is not expected until its agent registers it again.
    for host in world.nodes.iter() {
        let key = ObjectKey::new(Kind::NODE, "", &host.name);
        let deleted = || world.users().any(|user| user.has_deleted(&key));
        if !found.is_enough() && world.store.object(&key).is_none() && !deleted() {
            found.add(|| name_of(&key), || "the node has not registered".to_owned());
        }
    }
}

fn namespaces_unconverged(world: &World, found: &mut Unconverged) {
    let store = &world.store;
    for object in objects(store, Kind::NAMESPACE).filter(|o| o.is_deleting()) {
        found.add_object(object, || "the namespace is terminating".to_owned());
    }
}

/// Claims that are going, lost, or wait for a volume although no pod has to come first.
fn claims_unconverged(world: &World, found: &mut Unconverged) {
    let store = &world.store;
    for claim in objects(store, Kind::PERSISTENT_VOLUME_CLAIM) {
        let class = ObjectKey::new(Kind::STORAGE_CLASS, "", volume::class_of(claim));
        let waits = store.object(&class).is_some_and(volume::waits_for_consumer);
        match volume::text(claim, "/status/phase") {
            _ if claim.is_deleting() => found.add_object(claim, || "it is being deleted".to_owned()),
            "Pending" if !waits => found.add_object(claim, || "it has no volume".to_owned()),
            "Lost" => found.add_object(claim, || "its volume is gone".to_owned()),
            _ => {}
        }
    }
}

fn pods_unconverged(world: &World, found: &mut Unconverged) {
    let store = &world.store;
    for object in objects(store, Kind::POD) {
        let Object::Pod(pod) = object else { continue };
        if found.is_enough() {
            return;
        }
        if is_of_cron_job(store, object) {
            continue;
        }
        if pod.meta.deletion_timestamp.is_some() {
            let node = pod.spec.node.as_deref().unwrap_or("no node");
            found.add_object(object, || format!("it is terminating, on {node}"));
        } else if controller_of(&pod.meta).is_none()
            && let Some(why) = why_not_ready(world, pod)
        {
            found.add_object(object, || why);
        }
    }
}

/// Whether it is a CronJob's Job, or the pod of one: those come and go.
pub fn is_of_cron_job(store: &MemoryStore, object: &Object) -> bool {
    match controller_of(object.meta()) {
        Some(owner) if owner.kind == "CronJob" => true,
        Some(owner) if owner.kind == "Job" => {
            let cron_job = owner.name.rsplit_once('-').filter(|(_, at)| at.bytes().all(|b| b.is_ascii_digit()));
            let key = cron_job.map(|(name, _)| ObjectKey::new(Kind::CRON_JOB, object.namespace(), name));
            key.is_some_and(|key| store.object(&key).is_some())
        }
        Some(_) | None => false,
    }
}

/// How long after a time of its schedule a CronJob may still be without the Job for it.
const CRON_PATIENCE: Duration = Duration::from_secs(10);

/// CronJobs that have not kept a time of their schedule, or whose last Job has failed.
fn cron_jobs_unconverged(world: &World, found: &mut Unconverged) {
    for object in objects(&world.store, Kind::CRON_JOB) {
        let Object::CronJob(cron_job) = object else { continue };
        if let Some(why) = cron_job_lags(world, cron_job) {
            found.add_object(object, || why);
        }
    }
}

fn cron_job_lags(world: &World, cron_job: &CronJob) -> Option<String> {
    if cron_job.meta.deletion_timestamp.is_some() {
        return Some("it is being deleted".to_owned());
    }
    let (spec, status) = (&cron_job.spec, &cron_job.status);
    let jobs = objects(&world.store, Kind::JOB).filter_map(Object::get::<batch_v1::Job>);
    let owned = jobs.filter(|job| controller_of(&job.meta).is_some_and(|c| c.uid == cron_job.uid()));
    let ended = owned.filter_map(|job| job_end(job).map(|(end, why)| (job, end, why)));
    let last = ended.max_by_key(|(job, ..)| job.meta.creation_timestamp.as_ref().map(|t| t.0));
    if let Some((job, "Failed", why)) = last.filter(|(job, ..)| !may_fail(job)) {
        return Some(format!("its Job {} has failed: {why}", job.name()));
    }
    let holds_back = spec.concurrency_policy.as_deref() == Some("Forbid") && status.active.is_some();
    if spec.suspend == Some(true) || holds_back {
        return None;
    }
    let (Ok(schedule), Some(zone)) =
        (Schedule::parse(&spec.schedule), cron::time_zone(spec.time_zone.as_deref().unwrap_or("")))
    else {
        return Some(format!("its schedule {:?} cannot be kept", spec.schedule));
    };
    let since = status.last_schedule_time.as_ref().or(cron_job.meta.creation_timestamp.as_ref())?;
    let next = schedule.next(since.0.as_second(), &zone)?;
    let now = Clock::steady(world.now).wall;
    let late = now.since(Wall(next * 1_000_000));
    // What is longer ago than the deadline is not made up for.
    let deadline = spec.starting_deadline_seconds.map_or(Duration::MAX, |s| Duration::from_secs(s.unsigned_abs()));
    (late > CRON_PATIENCE && late <= deadline)
        .then(|| format!("its time was {:.0}s ago, and no Job was made", late.as_secs_f64()))
}

/// Workloads at the end of a run, except those with an owner.
pub fn workloads(store: &MemoryStore) -> Vec<Workload> {
    let mut all = Vec::new();
    // Jobs need not be ready.
    for kind in WORKLOADS.into_iter().filter(|kind| *kind != Kind::JOB) {
        for object in objects(store, kind).filter(|o| controller_of(o.meta()).is_none()) {
            let (desired, ready) = desired_and_ready(object);
            all.push(Workload {
                kind: kind.to_string(),
                namespace: object.namespace().to_owned(),
                name: object.name().to_owned(),
                desired,
                ready,
            });
        }
    }
    all
}

fn desired_and_ready(object: &Object) -> (i32, i32) {
    let (desired, ready) = match object {
        Object::Deployment(o) => (o.spec.replicas, o.status.ready_replicas),
        Object::ReplicaSet(o) => (o.spec.replicas, o.status.ready_replicas),
        Object::ReplicationController(o) => (o.spec.replicas, o.status.ready_replicas),
        Object::StatefulSet(o) => (o.spec.replicas, o.status.ready_replicas),
        Object::DaemonSet(o) => (Some(o.status.desired_number_scheduled), Some(o.status.number_ready)),
        other => unreachable!("{:?} is no workload", other.kind()),
    };
    (desired.unwrap_or(1), ready.unwrap_or(0))
}

/// How many pending pods are listed.
const PENDING: usize = 100;

/// Pods without a node, in one namespace or in all namespaces (empty).
pub fn waiting_pods<'s>(store: &'s MemoryStore, namespace: &'s str) -> impl Iterator<Item = &'s Pod> {
    let pods = objects(store, Kind::POD).filter_map(Object::get::<core_v1::Pod>);
    let of_namespace = pods.filter(move |p| namespace.is_empty() || p.namespace() == namespace);
    of_namespace.filter(|p| p.spec.node.is_none() && !is_pod_terminal(p))
}

/// The first pods without a node, with the scheduler's messages.
pub fn pending(world: &World) -> Vec<PendingPod> {
    let store = &world.store;
    let told = waiting_pods(store, "").take(PENDING);
    told.map(|p| PendingPod { pod: format!("{}/{}", p.namespace(), p.name()), why: why_unscheduled(world, p) })
        .collect()
}
