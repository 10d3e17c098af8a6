//! The scheduler as a process: election, informers, binds, conditions and Events around the pure [`Scheduler`].
//!
//! Its input are messages of the API server and answers of extenders, its output are requests and questions. It never
//! - decides without leadership, or from a pod view that is older than its leadership, so that it misses no bind of an
//!   earlier leader. Binds that an earlier leader sends later carry an older fence and are refused;
//! - forgets an assumed pod while its bind may still be carried out. After a lost reply it reads the pod, not from its
//!   view but from the store, and sends the same bind, to the same node, again if the pod is still unbound;
//! - decides from a view that went back in time; it lists the pods again first.

mod binds;
mod claims;
mod evictions;
mod extenders;
mod freshness;
mod gangs;
mod recorders;
mod reports;
mod requests;
mod surroundings;
mod volumes;

use std::rc::Rc;
use std::time::Duration;

use k8s_openapi::api::core::v1 as core_v1;
use serde::{Deserialize, Serialize};

use binds::{Bind, Binds};
use claims::Claims;
use extenders::Asks;
use freshness::Freshness;
use gangs::{Gangs, group_patch};
use recorders::Recorders;
use reports::{Reports, condition_patch};
use requests::{Requests, Sent};
use surroundings::{Also, Surroundings};

use super::advice::Advice;
use super::dynamic_resources::ClaimStep;
use super::extenders::{Extender, Question};
use super::gpu::GPU_INDEX;
use super::preemption::Nomination;
use super::profile::Profile;
use super::volumes::VolumeStep;
use super::{Decision, Scheduler};
use crate::api::{
    Call, Fence, FromServer, Patch, Precondition, Reason, ReqId, Request, Response, Status, Subresource, ToServer,
    WriteOptions,
};
use crate::apiserver::Answered;
use crate::client::{Change, ElectionTimes, Elector, EventType, Informer, InformerConfig, View};
use crate::features::FeatureGates;
use crate::limits;
use crate::machine::{Deadline, Machine, Mono, Now};
use crate::object::{FieldSelector, Kind, Object, ObjectKey, Pod, Revision, Selector, is_mere_report};
use crate::random::{Rng, mix};

const ELECTION: u16 = 1;
const PODS: u16 = 2;
const NODES: u16 = 3;
const EVENTS: u16 = 4;
const CALLS: u16 = 5;
/// The first part of the informers of all other kinds.
const SURROUNDINGS: u16 = 6;
/// The first part of the recorders of all profiles but the first; last, since there may be any number.
const MORE_EVENTS: u16 = 32;

/// How a scheduler process is set up.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SchedulerConfig {
    /// The name of this candidate in the election.
    pub identity: Rc<str>,
    /// Whether to take part in leader election. Otherwise it acts at once, and its writes carry no fence.
    pub leader_elect: bool,
    /// How long leadership lasts.
    pub election: ElectionTimes,
    /// Whether to record Events.
    pub record_events: bool,
    /// How it schedules which pods, by their `spec.schedulerName`.
    pub profiles: Rc<[Profile]>,
    /// Whether it reads claims and volumes. Without them, pods with claims wait for ever.
    pub volumes: bool,
    /// Whether it reads claims for devices, and the devices. Without them, pods with such claims wait for ever. In a
    /// recording that does not say so, it does not.
    #[serde(default)]
    pub devices: bool,
    /// The extenders that have a say in its decisions.
    #[serde(default = "no_extenders")]
    pub extenders: Rc<[Extender]>,
    /// `--feature-gates`. In a recording that does not say so, all are off.
    #[serde(default)]
    pub features: FeatureGates,
}

fn no_extenders() -> Rc<[Extender]> {
    Rc::from([])
}

/// A message to the scheduler. In recordings, those of the API server stand as they are.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(untagged)]
pub enum In {
    /// From the API server.
    Api(FromServer),
    /// What came of a question to an extender.
    Extender {
        /// The question's number.
        asked: u64,
        /// The answer.
        answer: Answered,
    },
}

/// A message of the scheduler. In recordings, those to the API server stand as they are.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Out {
    /// To the API server.
    Api(ToServer),
    /// A question to an extender. It gets an answer or none; a second one does not matter.
    Ask {
        /// Its number.
        ask: u64,
        /// The question.
        question: Box<Question>,
    },
}

impl Default for SchedulerConfig {
    fn default() -> SchedulerConfig {
        SchedulerConfig {
            identity: Rc::from("kube-scheduler"),
            leader_elect: true,
            election: ElectionTimes::default(),
            record_events: true,
            profiles: Rc::from([Profile::default()]),
            volumes: true,
            devices: true,
            extenders: no_extenders(),
            features: FeatureGates::default(),
        }
    }
}

/// The scheduler process.
#[derive(Debug)]
pub struct SchedulerProcess {
    user: Rc<str>,
    elector: Option<Elector>,
    pod_informer: Informer,
    node_informer: Informer,
    pods: View,
    nodes: View,
    recorder: Recorders,
    requests: Requests,
    core: Scheduler,
    started: bool,
    freshness: Freshness,
    /// The same for the view of claims for devices.
    claims_freshness: Freshness,
    binds: Binds,
    reports: Reports,
    changes: Vec<Change>,
    surroundings: Surroundings,
    /// Whether pods that wait for their claims may have to wait no longer.
    volumes_changed: bool,
    claims: Claims,
    gangs: Gangs,
    asks: Asks,
    /// Messages to the API server, kept so that their memory is used again.
    calls: Vec<ToServer>,
}

fn informer(kind: Kind, user: &Rc<str>, part: u16, rng: Rng) -> Informer {
    let config = InformerConfig {
        kind,
        namespace: Rc::from(""),
        labels: Selector::everything(),
        fields: FieldSelector::everything(),
        user: Rc::clone(user),
    };
    Informer::new(config, part, rng)
}

/// How long to wait after a failed request: 1 s, doubled with every failure, at most 10 s.
fn retry_after(failures: u32) -> Duration {
    let doubled = limits::SCHEDULER_BACKOFF_BASE.saturating_mul(1 << failures.min(16));
    doubled.min(limits::SCHEDULER_BACKOFF_MAX)
}

impl SchedulerProcess {
    /// A process that has just started and knows nothing.
    pub fn new(config: SchedulerConfig, mut rng: Rng) -> SchedulerProcess {
        let user: Rc<str> = Rc::from("system:kube-scheduler");
        let mut fork = |part: u16| Rng::from_seed(mix(rng.next_u64(), u64::from(part)));
        let lease = ObjectKey::new(Kind::LEASE, "kube-system", "kube-scheduler");
        let times = config.election;
        let elector = Elector::new(lease, config.identity, times, Rc::clone(&user), ELECTION, fork(ELECTION));
        let profiles = config.profiles;
        let also =
            Also { volumes: config.volumes, devices: config.devices, pod_groups: config.features.generic_workload };
        SchedulerProcess {
            elector: config.leader_elect.then_some(elector),
            pod_informer: informer(Kind::POD, &user, PODS, fork(PODS)),
            node_informer: informer(Kind::NODE, &user, NODES, fork(NODES)),
            pods: View::new(Kind::POD, &[]),
            nodes: View::new(Kind::NODE, &[]),
            recorder: Recorders::new(&profiles, config.record_events, fork(EVENTS)),
            requests: Requests::new(CALLS),
            core: Scheduler::new(&profiles, fork(0))
                .with_extenders(&config.extenders)
                .with_gangs(config.features.gang_scheduling),
            surroundings: Surroundings::new(&user, SURROUNDINGS, fork(SURROUNDINGS), also),
            volumes_changed: false,
            claims: Claims::default(),
            gangs: Gangs::default(),
            asks: Asks::new(config.extenders),
            calls: Vec::new(),
            user,
            started: false,
            freshness: Freshness::default(),
            claims_freshness: Freshness::default(),
            binds: Binds::default(),
            reports: Reports::default(),
            changes: Vec::new(),
        }
    }

    /// Whether this process may act.
    pub fn is_leader(&self, now: Now) -> bool {
        self.elector.as_ref().is_none_or(|e| e.fence(now).is_some())
    }

    /// Gives its leadership up for good, because the process is about to end.
    pub fn resign(&mut self, now: Now, out: &mut Vec<Out>) {
        let mut calls = Vec::new();
        if let Some(elector) = &mut self.elector {
            elector.resign(now, &mut calls);
        }
        out.extend(calls.into_iter().map(Out::Api));
    }

    /// Whether it has resigned, and has nothing to say about that any more.
    pub fn has_resigned(&self) -> bool {
        self.elector.as_ref().is_none_or(Elector::has_resigned)
    }

    /// Whether the binding of a pod was sent before, and what came of that is unknown.
    pub fn binds_again(&self, pod: &ObjectKey) -> bool {
        self.binds.is_again(pod)
    }

    /// Its views of pods and nodes, for observers.
    pub fn views(&self) -> [&View; 2] {
        [&self.pods, &self.nodes]
    }

    /// The pure scheduler in it, for checkers.
    pub fn scheduler(&self) -> &Scheduler {
        &self.core
    }

    /// What hinders a pod from being scheduled; see [`Scheduler::advise`].
    pub fn advise(&mut self, pod: &ObjectKey) -> Option<Advice> {
        self.core.advise(pod)
    }

    fn fence(&self, now: Now) -> Option<Fence> {
        self.elector.as_ref().and_then(|e| e.fence(now))
    }

    fn send(&mut self, now: Now, what: Sent, call: Call, out: &mut Vec<ToServer>) -> ReqId {
        let fence = if what.is_write() { self.fence(now) } else { None };
        let id = self.requests.add(now, what);
        let request = Request {
            user: Rc::clone(&self.user),
            identity: None,
            field_manager: None,
            version: None,
            minded: Vec::new(),
            fence,
            call,
        };
        out.push(ToServer::Request(id, Box::new(request)));
        id
    }

    /// Tells the scheduler of the changes that the informers have made to the views.
    fn apply_changes(&mut self, now: Now, out: &mut Vec<ToServer>) {
        let changes = std::mem::take(&mut self.changes);
        for change in &changes {
            match &change.new {
                Some(Object::Node(node)) => match &change.old {
                    Some(Object::Node(old)) if is_mere_report(old, node) => {}
                    _ => self.core.node_changed(now, node),
                },
                Some(Object::Pod(pod)) => self.apply_pod(now, &change.key, pod, out),
                Some(_) => {}
                None if change.key.kind == Kind::NODE => {
                    self.core.node_removed(now, change.key.name());
                    self.volumes_changed = true;
                    self.claims.changed = true;
                }
                // A view that went back in time may miss pods that are being bound; see `catch_up`.
                None if self.freshness.went_back() && self.binds.get(&change.key).is_some() => {}
                None => {
                    self.reports.remove(&change.key);
                    self.drop_bind(&change.key);
                    self.asks.remove(&change.key);
                    self.core.pod_removed(now, &change.key);
                }
            }
        }
        self.changes = changes;
        self.changes.clear();
    }

    /// Tells the scheduler of a pod, as the view or a read shows it.
    fn apply_pod(&mut self, now: Now, key: &ObjectKey, pod: &Pod, out: &mut Vec<ToServer>) {
        if let Some(bind) = self.binds.get(key) {
            if *bind.uid != *pod.uid() {
                self.drop_bind(key);
            } else if pod.spec.node.is_some() {
                let here = pod.spec.node.as_ref() == Some(&bind.node);
                self.settle(now, key, here, out);
            }
        }
        if pod.spec.node.is_some() {
            self.reports.remove(key);
        }
        self.core.pod_changed(now, pod);
    }

    /// Handles that the outcome of a bind has become certain.
    fn settle(&mut self, now: Now, key: &ObjectKey, bound: bool, out: &mut Vec<ToServer>) {
        let Some(bind) = self.drop_bind(key) else { return };
        if !bound {
            self.core.forget(now, key, &bind.uid);
            return;
        }
        if self.recorder.is_enabled()
            && let Some(pod) = self.pods.get(key)
        {
            let message = format!("Successfully assigned {} to {}", key.path(), bind.node);
            self.recorder.record(now, pod, EventType::Normal, "Scheduled", &message, out);
        }
        self.gangs.bound(key);
    }

    /// Forgets a bind, and the request that it waits for.
    fn drop_bind(&mut self, key: &ObjectKey) -> Option<Bind> {
        let bind = self.binds.remove(key)?;
        self.claims.remove(key);
        if let Some(id) = bind.request() {
            self.requests.remove(id);
        }
        Some(bind)
    }

    fn handle_reply(&mut self, now: Now, id: ReqId, result: &Result<Response, Status>, out: &mut Vec<ToServer>) {
        let Some(what) = self.requests.remove(id) else { return };
        if let (Err(status), Some(elector)) = (result, &mut self.elector)
            && status.is_fenced()
        {
            elector.deposed(now);
        }
        match what {
            Sent::Bind(key) => self.handle_bound(now, &key, result, out),
            Sent::Read(key) => self.handle_read(now, &key, result, out),
            Sent::Condition(key, message) => self.handle_reported(now, &key, &message, result),
            Sent::Mark(victim) => self.handle_marked(now, victim, result, out),
            Sent::Evict(victim) => self.handle_evicted(now, &victim, result, out),
            Sent::Volume(key) => self.handle_volume(now, &key, result, out),
            Sent::Claim(pod, claim) => self.handle_claim(now, (&pod, &claim), result, out),
            Sent::Deallocation | Sent::Nomination => {}
        }
    }

    fn handle_bound(&mut self, now: Now, key: &ObjectKey, result: &Result<Response, Status>, out: &mut Vec<ToServer>) {
        match result {
            Ok(_) => self.settle(now, key, true, out),
            // An earlier attempt or somebody else may have bound it, or it may be another pod by now.
            Err(status) if status.is_unknown_outcome() || status.reason == Reason::Conflict => {
                self.binds.doubt(now, key);
            }
            Err(status) => {
                if let Some(pod) = self.pods.get(key).filter(|_| status.reason != Reason::NotFound) {
                    let why = format!("binding rejected: running Bind plugin \"DefaultBinder\": {status}");
                    self.recorder.record(now, pod, EventType::Warning, "FailedScheduling", &why, out);
                }
                self.settle(now, key, false, out);
            }
        }
    }

    fn handle_read(&mut self, now: Now, key: &ObjectKey, result: &Result<Response, Status>, out: &mut Vec<ToServer>) {
        let Some(bind) = self.binds.get(key) else { return };
        let (uid, node) = (Rc::clone(&bind.uid), Rc::clone(&bind.node));
        match result {
            Ok(Response::Object(Object::Pod(pod))) if *uid != *pod.uid() => self.settle(now, key, false, out),
            Ok(Response::Object(Object::Pod(pod))) if pod.spec.node.is_some() => {
                let pod = pod.clone();
                self.apply_pod(now, key, &pod, out);
            }
            Ok(Response::Object(Object::Pod(pod))) => {
                let wanted = pod.meta.deletion_timestamp.is_none() && self.core.has_node(&node) && !bind.by_extender;
                if wanted && self.is_leader(now) {
                    self.bind_ourselves(now, key.clone(), uid, node, out);
                } else if wanted {
                    self.binds.doubt(now, key);
                } else {
                    self.settle(now, key, false, out);
                }
            }
            Err(status) if status.reason == Reason::NotFound => self.settle(now, key, false, out),
            Ok(_) | Err(_) => self.binds.doubt(now, key),
        }
    }

    /// Binds a pod, after all that has to be written before.
    fn begin_bind(
        &mut self,
        now: Now,
        (pod, uid): (ObjectKey, Rc<str>),
        node: Rc<str>,
        (volumes, claims): (&[VolumeStep], Vec<ClaimStep>),
        out: &mut Vec<ToServer>,
    ) {
        if !claims.is_empty() {
            self.claims.add(pod.clone(), claims);
        }
        if volumes.is_empty() {
            self.bind_after_claims(now, pod, uid, node, out);
        } else {
            self.bind_volumes(now, (pod, uid), node, volumes, out);
        }
    }

    /// Binds a pod, after its claims for devices have been written if there are any.
    fn bind_after_claims(&mut self, now: Now, pod: ObjectKey, uid: Rc<str>, node: Rc<str>, out: &mut Vec<ToServer>) {
        if !self.claims.has(&pod) {
            return self.bind(now, pod, uid, node, out);
        }
        self.binds.waits_for_devices(pod.clone(), uid, node);
        self.check_claims_of(now, pod, out);
    }

    /// Binds a pod, or has an extender bind it.
    fn bind(&mut self, now: Now, pod: ObjectKey, uid: Rc<str>, node: Rc<str>, out: &mut Vec<ToServer>) {
        if self.waits_for_gang(&pod, &uid, &node) {
            return;
        }
        if !self.bind_by_extender(now, (&pod, &uid), &node, 0) {
            self.bind_ourselves(now, pod, uid, node, out);
        }
    }

    /// Sends a bind, for the first time or again.
    fn bind_ourselves(&mut self, now: Now, pod: ObjectKey, uid: Rc<str>, node: Rc<str>, out: &mut Vec<ToServer>) {
        let devices = self.core.devices(&pod);
        let index = (!devices.is_empty()).then(|| (GPU_INDEX.to_owned(), devices.to_string()));
        let annotations = index.into_iter().collect();
        let call = Call::Bind { pod: pod.clone(), uid: Rc::clone(&uid), node: Rc::clone(&node), annotations };
        let id = self.send(now, Sent::Bind(pod.clone()), call, out);
        self.binds.sent(pod, uid, node, id);
    }

    /// Writes into a pod's conditions why it is on no node.
    fn report(
        &mut self,
        now: Now,
        (key, uid): (ObjectKey, Rc<str>),
        (reason, message): (&'static str, String),
        out: &mut Vec<ToServer>,
    ) {
        self.reports.insert(key.clone(), uid, reason, Rc::from(message));
        self.send_report(now, key, out);
    }

    /// Writes a report, unless the pod is bound, is gone or has that condition already.
    fn send_report(&mut self, now: Now, key: ObjectKey, out: &mut Vec<ToServer>) {
        let Some(report) = self.reports.get(&key) else { return };
        let group = self.surroundings.pod_group(&key).filter(|g| *g.uid() == *report.uid);
        let of_group = group.and_then(|group| group_patch(now, group, report.reason, &report.message));
        let pod = self.pods.get(&key).and_then(Object::get::<core_v1::Pod>);
        let pod = pod.filter(|p| *p.uid() == *report.uid && p.spec.node.is_none());
        let of_pod = || pod.and_then(|pod| condition_patch(now, pod, report.reason, &report.message));
        let Some(patch) = of_group.or_else(of_pod) else {
            self.reports.remove(&key);
            return;
        };
        let message = Rc::clone(&report.message);
        let call = Call::Patch {
            key: key.clone(),
            patch: Patch::Strategic(patch),
            subresource: Subresource::Status,
            precondition: Precondition { uid: Some(Rc::clone(&report.uid)), rv: None },
            options: WriteOptions::default(),
        };
        self.send(now, Sent::Condition(key, message), call, out);
    }

    fn handle_reported(&mut self, now: Now, key: &ObjectKey, message: &str, result: &Result<Response, Status>) {
        let latest = self.reports.get(key).is_some_and(|r| *r.message == *message);
        match result {
            Ok(_) if !latest => {}
            Err(status) if status.reason != Reason::NotFound => self.reports.retry(now, key),
            // It is written, or the pod is gone or another one by now.
            Ok(_) | Err(_) => self.reports.remove(key),
        }
    }

    /// Handles a lost connection: no request has a known outcome.
    fn disconnected(&mut self, now: Now, out: &mut Vec<ToServer>) {
        let unknown = Err(Status::timeout("the connection broke"));
        for what in self.requests.take_all() {
            self.handle_unknown_outcome(now, what, &unknown, out);
        }
    }

    fn handle_unknown_outcome(
        &mut self,
        now: Now,
        what: Sent,
        unknown: &Result<Response, Status>,
        out: &mut Vec<ToServer>,
    ) {
        match what {
            Sent::Mark(victim) => self.handle_marked(now, victim, unknown, out),
            Sent::Evict(victim) => self.handle_evicted(now, &victim, unknown, out),
            Sent::Volume(key) => self.handle_volume(now, &key, unknown, out),
            Sent::Claim(pod, claim) => self.handle_claim(now, (&pod, &claim), unknown, out),
            Sent::Deallocation | Sent::Nomination => {}
            Sent::Bind(key) | Sent::Read(key) => self.binds.doubt(now, &key),
            Sent::Condition(key, message) => self.handle_reported(now, &key, &message, unknown),
        }
    }

    /// Returns whether this process leads and its views are fresh enough to decide from.
    fn catch_up(&mut self, now: Now, out: &mut Vec<ToServer>) -> bool {
        if !self.is_leader(now) {
            return false;
        }
        let term = self.fence(now).map_or(Revision(0), |f| f.epoch);
        if self.freshness.begin_term(term) {
            // By the time that the view has reached the term, it shows every bind that an earlier leadership of this
            // process got through; the fence refuses the others.
            for key in self.binds.pods().cloned().collect::<Vec<_>>() {
                self.drop_bind(&key);
            }
            self.gangs.clear();
            self.asks.clear();
            self.core.nobody_is_asked(now);
        }
        if let Some(required) = self.freshness.required()
            && self.pods.revision() < required
        {
            // A list that was on its way already may turn out to be older, and pods may not change any more.
            self.relist(now, Some(required), out);
        }
        if !self.claims_are_fresh(now, term, out) {
            return false;
        }
        let Some(required) = self.freshness.required() else { return true };
        let synced = self.pods.is_synced() && self.nodes.is_synced() && self.surroundings.is_synced();
        if !synced || self.pods.revision() < required {
            return false;
        }
        let gone = self.binds.pods().filter(|key| self.pods.get(key).is_none());
        for key in gone.cloned().collect::<Vec<_>>() {
            self.drop_bind(&key);
            self.core.pod_removed(now, &key);
        }
        if self.freshness.caught_up() {
            self.core.forget_all(now);
            self.core.nothing_is_sent(now);
        }
        true
    }

    /// Whether the view of claims for devices is as fresh as a leadership and as itself before: devices that an earlier
    /// leader has given away must not be given away again.
    fn claims_are_fresh(&mut self, now: Now, term: Revision, out: &mut Vec<ToServer>) -> bool {
        let Some(revision) = self.surroundings.claims_revision() else { return true };
        self.claims_freshness.begin_term(term);
        match self.claims_freshness.required() {
            Some(required) if revision < required => {
                // As with pods, a list that was on its way may turn out to be older.
                self.surroundings.list_claims(now, Some(required), out);
                false
            }
            _ => {
                self.claims_freshness.caught_up();
                true
            }
        }
    }

    /// Lists the claims for devices again if their view went back in time.
    fn check_claims_view(&mut self, now: Now, out: &mut Vec<ToServer>) {
        if let Some(revision) = self.surroundings.claims_revision()
            && self.claims_freshness.view_changed(revision)
        {
            self.surroundings.list_claims(now, None, out);
        }
    }

    /// Lists the pods again if their view went back in time.
    fn check_view(&mut self, now: Now, out: &mut Vec<ToServer>) {
        if self.freshness.view_changed(self.pods.revision()) {
            self.relist(now, None, out);
        }
    }

    /// Lists all pods again, at once.
    fn relist(&mut self, now: Now, rv: Option<Revision>, out: &mut Vec<ToServer>) {
        self.pod_informer.relist(now, rv, out);
        self.pod_informer.handle_timeout(now, &mut self.pods, out);
    }

    /// Makes decisions and carries them out.
    fn act(&mut self, now: Now, out: &mut Vec<ToServer>) {
        if !self.catch_up(now, out) {
            return;
        }
        if std::mem::take(&mut self.volumes_changed) {
            self.check_volumes(now, out);
        }
        if self.claims.changed {
            self.check_claims(now, out);
        }
        self.check_gangs(now, out);
        self.take_answers(now, out);
        while self.requests.len() + self.binds.doubtful() + self.asks.len() < limits::SCHEDULER_IN_FLIGHT {
            let Some(decision) = self.core.next(now) else { break };
            self.carry_out(now, Some(decision), out);
        }
    }

    /// Carries out a decision, if there is one.
    fn carry_out(&mut self, now: Now, decision: Option<Decision>, out: &mut Vec<ToServer>) {
        match decision {
            None => {}
            Some(Decision::Gang(decision)) => self.carry_out_gang(now, decision, out),
            Some(Decision::Bind { pod, uid, node, volumes, claims, .. }) => {
                self.report_group_of(now, &pod, (gangs::SCHEDULED, ""), out);
                self.begin_bind(now, (pod, uid), node, (&volumes, claims), out);
            }
            Some(Decision::Unschedulable { pod, uid, message, nomination, idle }) => {
                if let Some(claim) = idle {
                    self.deallocate(now, &claim, out);
                }
                self.record_failure(now, &pod, &message, out);
                self.report_group_of(now, &pod, ("Unschedulable", &message), out);
                match &nomination {
                    Nomination::Kept => {}
                    Nomination::Cleared => self.patch_nomination(now, &pod, &uid, None, out),
                    Nomination::Preempts(preemption) => {
                        self.patch_nomination(now, &pod, &uid, Some(&preemption.node), out);
                        self.preempt(now, (&pod, &uid), preemption, out);
                    }
                }
                self.report(now, (pod, uid), ("Unschedulable", message), out);
            }
            Some(Decision::AskNodes { pod, uid, nodes, nominated }) => {
                self.ask_about_nodes(now, (pod, uid), nodes, nominated, out);
            }
            Some(Decision::AskVictims { pod, uid, opinion, candidates }) => {
                self.ask_about_victims(now, (pod, uid), (opinion, candidates), out);
            }
            Some(Decision::Failed { pod, uid, message }) => {
                self.record_failure(now, &pod, &message, out);
                self.patch_nomination(now, &pod, &uid, None, out);
                self.report(now, (pod, uid), ("SchedulerError", message), out);
            }
        }
    }

    fn record_failure(&mut self, now: Now, pod: &ObjectKey, message: &str, out: &mut Vec<ToServer>) {
        if let Some(object) = self.pods.get(pod) {
            self.recorder.record(now, object, EventType::Warning, "FailedScheduling", message, out);
        }
    }

    fn handle_own_timeouts(&mut self, now: Now, out: &mut Vec<ToServer>) {
        let unknown = Err(Status::timeout("no reply in time"));
        while let Some(what) = self.requests.pop_expired(now) {
            self.handle_unknown_outcome(now, what, &unknown, out);
        }
        while let Some(key) = self.binds.pop_doubtful(now) {
            let call = Call::Get { key: key.clone(), rv: None };
            let id = self.send(now, Sent::Read(key.clone()), call, out);
            self.binds.reading(&key, id);
        }
        while let Some(key) = self.binds.overdue(now) {
            self.give_up_volumes(now, &key, "context deadline exceeded", out);
        }
        self.check_overdue_gangs(now, out);
        self.claims.handle_timeout(now);
        self.asks.handle_timeout(now);
        while let Some(key) = self.reports.pop_due(now) {
            if self.is_leader(now) {
                self.send_report(now, key, out);
            } else {
                self.reports.retry(now, &key);
            }
        }
    }
}

impl SchedulerProcess {
    fn handle_api(&mut self, now: Now, input: &FromServer, out: &mut Vec<ToServer>) {
        if let Some(elector) = &mut self.elector {
            elector.handle(now, input, out);
        }
        self.recorder.handle(now, input, out);
        self.pod_informer.handle(now, input, &mut self.pods, out, &mut self.changes);
        self.check_view(now, out);
        self.node_informer.handle(now, input, &mut self.nodes, out, &mut self.changes);
        let about = self.surroundings.handle(now, input, &mut self.core, out);
        self.volumes_changed |= about.volumes;
        self.claims.changed |= about.devices;
        self.check_claims_view(now, out);
        self.apply_changes(now, out);
        match input {
            FromServer::Reply(id, result) => self.handle_reply(now, *id, result, out),
            FromServer::Disconnected => self.disconnected(now, out),
            FromServer::Watch(..) => {}
        }
    }

    fn handle_timeouts(&mut self, now: Now, out: &mut Vec<ToServer>) {
        if !self.started {
            self.started = true;
            // Without a fence there is no revision to wait for, so the first list is read from the store.
            if self.elector.is_none() {
                self.pod_informer.relist(now, None, out);
                self.surroundings.list_claims(now, None, out);
            }
            self.freshness.require_lists();
        }
        if let Some(elector) = &mut self.elector {
            elector.handle_timeout(now, out);
        }
        self.recorder.handle_timeout(now, out);
        self.pod_informer.handle_timeout(now, &mut self.pods, out);
        self.node_informer.handle_timeout(now, &mut self.nodes, out);
        self.surroundings.handle_timeout(now, out);
        self.handle_own_timeouts(now, out);
        self.core.handle_timeout(now);
    }

    /// Acts, and hands on what there is to say.
    fn end_turn(&mut self, now: Now, mut calls: Vec<ToServer>, out: &mut Vec<Out>) {
        self.act(now, &mut calls);
        out.extend(calls.drain(..).map(Out::Api));
        self.calls = calls;
        let questions = self.asks.take_questions();
        out.extend(questions.map(|(ask, question)| Out::Ask { ask, question: Box::new(question) }));
    }
}

impl Machine for SchedulerProcess {
    type In = In;
    type Out = Out;

    fn handle(&mut self, now: Now, input: In, out: &mut Vec<Out>) {
        let mut calls = std::mem::take(&mut self.calls);
        match input {
            In::Api(message) => self.handle_api(now, &message, &mut calls),
            In::Extender { asked, answer } => self.asks.answered(asked, answer),
        }
        self.end_turn(now, calls, out);
    }

    fn handle_timeout(&mut self, now: Now, out: &mut Vec<Out>) {
        let mut calls = std::mem::take(&mut self.calls);
        self.handle_timeouts(now, &mut calls);
        self.end_turn(now, calls, out);
    }

    fn poll_timeout(&self) -> Option<Deadline> {
        let start = (!self.started).then_some(Deadline { at: Mono::ZERO, why: "start" });
        [
            start,
            self.elector.as_ref().and_then(Elector::poll_timeout),
            self.recorder.poll_timeout(),
            self.pod_informer.poll_timeout(),
            self.node_informer.poll_timeout(),
            self.surroundings.poll_timeout(),
            self.core.poll_timeout(),
            self.requests.poll_timeout(),
            self.binds.poll_timeout(),
            self.claims.poll_timeout(),
            self.gangs.poll_timeout(),
            self.asks.poll_timeout(),
            self.reports.poll_timeout(),
        ]
        .into_iter()
        .fold(None, Deadline::earlier)
    }
}

#[cfg(test)]
mod extender_tests;
#[cfg(test)]
mod gang_tests;
#[cfg(test)]
mod tests;
