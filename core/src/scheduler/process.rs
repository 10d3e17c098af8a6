//! The scheduler as a process: election, informers, binds, conditions and events around the pure [`Scheduler`].
//!
//! What comes in: messages of the server. What goes out: requests. What never happens:
//! - a decision without leadership, or by a pod view that is older than the leadership, so that no bind of an
//!   earlier leader is missed: binds of earlier leaders carry older fences and are refused from then on;
//! - an assumed pod is forgotten while its bind may yet be carried out. After a lost reply the pod is read, not by
//!   the view but from the store; if it is unbound the same bind, to the same node, is sent again;
//! - a view that has gone back in time is decided by: it is listed anew first.

mod evictions;
mod surroundings;

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;

use k8s_openapi::api::core::v1 as core_v1;
use serde_json::json;

use evictions::Victim;
use surroundings::Surroundings;

use super::advice::Advice;
use super::preemption::Nomination;
use super::{DEFAULT_SCHEDULER, Decision, Scheduler};
use crate::api::{
    Call, Fence, FromServer, Patch, Precondition, Reason, ReqId, ReqIds, Request, Response, Status, Subresource,
    ToServer, WriteOptions,
};
use crate::client::{Change, Elector, EventType, Informer, InformerConfig, Recorder, View};
use crate::limits;
use crate::machine::{Deadline, Machine, Mono, Now};
use crate::object::{
    FieldSelector, Kind, Object, ObjectKey, Pod, PodCondition, Revision, Selector, Text, is_mere_report,
};
use crate::random::{Rng, mix};

const ELECTION: u16 = 1;
const PODS: u16 = 2;
const NODES: u16 = 3;
const EVENTS: u16 = 4;
const CALLS: u16 = 5;
/// The first of the parts that read everything else.
const SURROUNDINGS: u16 = 6;

/// How a scheduler process is set up.
#[derive(Clone, Debug)]
pub struct SchedulerConfig {
    /// Name of this candidate in the election.
    pub identity: Rc<str>,
    /// Whether to stand for election; otherwise it acts at once, without fence.
    pub leader_elect: bool,
    /// Whether to record Events.
    pub record_events: bool,
    /// `spec.schedulerName` of the pods that it schedules.
    pub scheduler_name: Rc<str>,
}

impl Default for SchedulerConfig {
    fn default() -> SchedulerConfig {
        SchedulerConfig {
            identity: Rc::from("kube-scheduler"),
            leader_elect: true,
            record_events: true,
            scheduler_name: Rc::from(DEFAULT_SCHEDULER),
        }
    }
}

/// What a bind is at.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Step {
    /// The bind is on its way.
    Binding(ReqId),
    /// Its outcome is unknown; the pod is read at this time.
    Doubtful(Mono),
    /// The pod is being read.
    Reading(ReqId),
}

/// A bind whose outcome is not certain yet.
#[derive(Debug)]
struct Bind {
    uid: Rc<str>,
    node: Rc<str>,
    step: Step,
    /// Failures since it was first sent.
    failures: u32,
}

/// A request of this process itself.
#[derive(Clone, Debug)]
enum Sent {
    Bind(ObjectKey),
    Read(ObjectKey),
    /// A condition with this message.
    Condition(ObjectKey, Rc<str>),
    /// That a pod is evicted, in its conditions.
    Mark(Victim),
    /// Its deletion.
    Evict(Victim),
    /// For which node a pod is nominated; it is written again when the pod is next looked at.
    Nomination,
}

/// That a pod is unschedulable, until it is written into its conditions.
#[derive(Debug)]
struct Report {
    uid: Rc<str>,
    message: Rc<str>,
    failures: u32,
    /// When to try again.
    due: Option<Mono>,
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
    recorder: Recorder,
    ids: ReqIds,
    core: Scheduler,
    started: bool,
    /// The leadership that binds and assumptions belong to.
    term: Option<Revision>,
    /// The leadership is new: assumptions of the one before end when the view has caught up.
    new_term: bool,
    /// Decisions wait until the pod view has reached this revision.
    wanted: Option<Revision>,
    /// Highest revision that the pod view has had.
    reached: Revision,
    /// Whether the last change of the pod view took it back in time.
    behind: bool,
    binds: BTreeMap<ObjectKey, Bind>,
    sent: BTreeMap<ReqId, (Mono, Sent)>,
    /// When requests time out.
    timeouts: BTreeSet<(Mono, ReqId)>,
    /// Doubtful binds by when their pods are read.
    doubts: BTreeSet<(Mono, ObjectKey)>,
    /// Conditions that are not known to be written.
    reports: BTreeMap<ObjectKey, Report>,
    /// Those of them that wait to be tried again, by when.
    reports_due: BTreeSet<(Mono, ObjectKey)>,
    changes: Vec<Change>,
    surroundings: Surroundings,
    scheduler_name: Rc<str>,
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
        let elector = Elector::new(lease, config.identity, Rc::clone(&user), ELECTION, fork(ELECTION));
        let host = Rc::from("");
        let component = Rc::clone(&config.scheduler_name);
        SchedulerProcess {
            elector: config.leader_elect.then_some(elector),
            pod_informer: informer(Kind::POD, &user, PODS, fork(PODS)),
            node_informer: informer(Kind::NODE, &user, NODES, fork(NODES)),
            pods: View::new(Kind::POD, &[]),
            nodes: View::new(Kind::NODE, &[]),
            recorder: Recorder::new(component, host, config.record_events, EVENTS, fork(EVENTS)),
            ids: ReqIds::new(CALLS),
            core: Scheduler::new(Rc::clone(&config.scheduler_name), fork(0)),
            surroundings: Surroundings::new(&user, SURROUNDINGS, fork(SURROUNDINGS)),
            scheduler_name: config.scheduler_name,
            user,
            started: false,
            term: None,
            new_term: false,
            wanted: None,
            reached: Revision(0),
            behind: false,
            binds: BTreeMap::new(),
            sent: BTreeMap::new(),
            timeouts: BTreeSet::new(),
            doubts: BTreeSet::new(),
            reports: BTreeMap::new(),
            reports_due: BTreeSet::new(),
            changes: Vec::new(),
        }
    }

    /// Whether this process may act.
    pub fn is_leader(&self, now: Now) -> bool {
        self.elector.as_ref().is_none_or(|e| e.fence(now).is_some())
    }

    /// What it has been told of the cluster, for observers.
    pub fn views(&self) -> [&View; 2] {
        [&self.pods, &self.nodes]
    }

    /// The pure scheduler within, for checkers.
    pub fn scheduler(&self) -> &Scheduler {
        &self.core
    }

    /// What the scheduler makes of a pod; see [`Scheduler::advise`].
    pub fn advise(&mut self, pod: &ObjectKey) -> Option<Advice> {
        self.core.advise(pod)
    }

    fn fence(&self, now: Now) -> Option<Fence> {
        self.elector.as_ref().and_then(|e| e.fence(now))
    }

    fn send(&mut self, now: Now, what: Sent, call: Call, out: &mut Vec<ToServer>) -> ReqId {
        let id = self.ids.next();
        let until = now.mono + limits::REQUEST_TIMEOUT;
        let fence = match what {
            Sent::Bind(_) | Sent::Condition(..) | Sent::Mark(_) | Sent::Evict(_) | Sent::Nomination => self.fence(now),
            Sent::Read(_) => None,
        };
        let request = Request { user: Rc::clone(&self.user), field_manager: None, fence, call };
        out.push(ToServer::Request(id, Box::new(request)));
        self.sent.insert(id, (until, what));
        self.timeouts.insert((until, id));
        id
    }

    /// Feeds the scheduler with what the informers have changed.
    fn take_changes(&mut self, now: Now, out: &mut Vec<ToServer>) {
        let changes = std::mem::take(&mut self.changes);
        for change in &changes {
            match &change.new {
                Some(Object::Node(node)) => match &change.old {
                    Some(Object::Node(old)) if is_mere_report(old, node) => {}
                    _ => self.core.node_changed(now, node),
                },
                Some(Object::Pod(pod)) => self.take_pod(now, &change.key, pod, out),
                Some(_) => {}
                None if change.key.kind == Kind::NODE => self.core.node_removed(now, change.key.name()),
                // A view that has gone back does not know of pods that are being bound; see `catch_up`.
                None if self.behind && self.binds.contains_key(&change.key) => {}
                None => {
                    self.drop_report(&change.key);
                    self.drop_bind(&change.key);
                    self.core.pod_removed(now, &change.key);
                }
            }
        }
        self.changes = changes;
        self.changes.clear();
    }

    /// A pod as the view or a read shows it.
    fn take_pod(&mut self, now: Now, key: &ObjectKey, pod: &Pod, out: &mut Vec<ToServer>) {
        if let Some(bind) = self.binds.get(key) {
            if *bind.uid != *pod.uid() {
                self.drop_bind(key);
            } else if pod.spec.node.is_some() {
                let here = pod.spec.node.as_ref() == Some(&bind.node);
                self.settle(now, key, here, out);
            }
        }
        if pod.spec.node.is_some() {
            self.drop_report(key);
        }
        self.core.pod_changed(now, pod);
    }

    /// The outcome of a bind is certain.
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
    }

    /// Stops to follow a bind.
    fn drop_bind(&mut self, key: &ObjectKey) -> Option<Bind> {
        let bind = self.binds.remove(key)?;
        match bind.step {
            Step::Binding(id) | Step::Reading(id) => {
                self.unsend(id);
            }
            Step::Doubtful(at) => {
                self.doubts.remove(&(at, key.clone()));
            }
        }
        Some(bind)
    }

    fn unsend(&mut self, id: ReqId) -> Option<Sent> {
        let (until, what) = self.sent.remove(&id)?;
        self.timeouts.remove(&(until, id));
        Some(what)
    }

    fn take_reply(&mut self, now: Now, id: ReqId, result: &Result<Response, Status>, out: &mut Vec<ToServer>) {
        let Some(what) = self.unsend(id) else { return };
        if let (Err(status), Some(elector)) = (result, &mut self.elector)
            && status.is_fenced()
        {
            elector.deposed(now);
        }
        match what {
            Sent::Bind(key) => self.take_bound(now, &key, result, out),
            Sent::Read(key) => self.take_read(now, &key, result, out),
            Sent::Condition(key, message) => self.take_reported(now, &key, &message, result),
            Sent::Mark(victim) => self.take_marked(now, victim, result, out),
            Sent::Evict(victim) => self.take_evicted(now, &victim, result, out),
            Sent::Nomination => {}
        }
    }

    fn take_bound(&mut self, now: Now, key: &ObjectKey, result: &Result<Response, Status>, out: &mut Vec<ToServer>) {
        match result {
            Ok(_) => self.settle(now, key, true, out),
            // It may have been bound by an earlier try, by somebody else, or be another pod: the store knows.
            Err(status) if status.is_unknown_outcome() || status.reason == Reason::Conflict => self.doubt(now, key),
            Err(status) => {
                if let Some(pod) = self.pods.get(key).filter(|_| status.reason != Reason::NotFound) {
                    let why = format!("binding rejected: running Bind plugin \"DefaultBinder\": {status}");
                    self.recorder.record(now, pod, EventType::Warning, "FailedScheduling", &why, out);
                }
                self.settle(now, key, false, out);
            }
        }
    }

    /// The outcome of a bind is unknown: its pod is read, after a back-off.
    fn doubt(&mut self, now: Now, key: &ObjectKey) {
        let Some(bind) = self.binds.get_mut(key) else { return };
        let at = now.mono + retry_after(bind.failures);
        bind.failures = bind.failures.saturating_add(1);
        bind.step = Step::Doubtful(at);
        self.doubts.insert((at, key.clone()));
    }

    fn take_read(&mut self, now: Now, key: &ObjectKey, result: &Result<Response, Status>, out: &mut Vec<ToServer>) {
        let Some(bind) = self.binds.get(key) else { return };
        let (uid, node) = (Rc::clone(&bind.uid), Rc::clone(&bind.node));
        match result {
            Ok(Response::Object(Object::Pod(pod))) if *uid != *pod.uid() => self.settle(now, key, false, out),
            Ok(Response::Object(Object::Pod(pod))) if pod.spec.node.is_some() => {
                let pod = pod.clone();
                self.take_pod(now, key, &pod, out);
            }
            Ok(Response::Object(Object::Pod(pod))) => {
                let wanted = pod.meta.deletion_timestamp.is_none() && self.core.has_node(&node);
                if wanted && self.is_leader(now) {
                    self.bind(now, key.clone(), uid, node, out);
                } else if wanted {
                    self.doubt(now, key);
                } else {
                    self.settle(now, key, false, out);
                }
            }
            Err(status) if status.reason == Reason::NotFound => self.settle(now, key, false, out),
            Ok(_) | Err(_) => self.doubt(now, key),
        }
    }

    /// Sends a bind, or sends it again.
    fn bind(&mut self, now: Now, pod: ObjectKey, uid: Rc<str>, node: Rc<str>, out: &mut Vec<ToServer>) {
        let call = Call::Bind { pod: pod.clone(), uid: Rc::clone(&uid), node: Rc::clone(&node) };
        let id = self.send(now, Sent::Bind(pod.clone()), call, out);
        let failures = self.binds.get(&pod).map_or(0, |b| b.failures);
        self.binds.insert(pod, Bind { uid, node, step: Step::Binding(id), failures });
    }

    /// Notes on a pod that it is unschedulable.
    fn report(&mut self, now: Now, key: ObjectKey, uid: Rc<str>, message: Rc<str>, out: &mut Vec<ToServer>) {
        self.drop_report(&key);
        self.reports.insert(key.clone(), Report { uid, message, failures: 0, due: None });
        self.send_report(now, key, out);
    }

    /// Writes a report, if it still says something new.
    fn send_report(&mut self, now: Now, key: ObjectKey, out: &mut Vec<ToServer>) {
        let Some(report) = self.reports.get(&key) else { return };
        let pod = self.pods.get(&key).and_then(Object::get::<core_v1::Pod>);
        let pod = pod.filter(|p| *p.uid() == *report.uid && p.spec.node.is_none());
        let Some(patch) = pod.and_then(|pod| condition_patch(now, pod, &report.message)) else {
            self.drop_report(&key);
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

    fn take_reported(&mut self, now: Now, key: &ObjectKey, message: &str, result: &Result<Response, Status>) {
        let latest = self.reports.get(key).is_some_and(|r| *r.message == *message);
        match result {
            Ok(_) if !latest => {}
            Err(status) if status.reason != Reason::NotFound => self.retry_report(now, key),
            // Written; or gone, or another pod by now.
            Ok(_) | Err(_) => self.drop_report(key),
        }
    }

    fn retry_report(&mut self, now: Now, key: &ObjectKey) {
        let Some(report) = self.reports.get_mut(key).filter(|r| r.due.is_none()) else { return };
        let at = now.mono + retry_after(report.failures);
        report.failures = report.failures.saturating_add(1);
        report.due = Some(at);
        self.reports_due.insert((at, key.clone()));
    }

    fn drop_report(&mut self, key: &ObjectKey) {
        if let Some(at) = self.reports.remove(key).and_then(|r| r.due) {
            self.reports_due.remove(&(at, key.clone()));
        }
    }

    /// Every request on its way has an unknown outcome.
    fn disconnected(&mut self, now: Now, out: &mut Vec<ToServer>) {
        self.timeouts.clear();
        let unknown = Err(Status::timeout("the connection broke"));
        for (_, (_, what)) in std::mem::take(&mut self.sent) {
            self.take_lost(now, what, &unknown, out);
        }
    }

    fn take_lost(&mut self, now: Now, what: Sent, unknown: &Result<Response, Status>, out: &mut Vec<ToServer>) {
        match what {
            Sent::Mark(victim) => self.take_marked(now, victim, unknown, out),
            Sent::Evict(victim) => self.take_evicted(now, &victim, unknown, out),
            Sent::Nomination => {}
            Sent::Bind(key) | Sent::Read(key) => self.doubt(now, &key),
            Sent::Condition(key, message) => self.take_reported(now, &key, &message, unknown),
        }
    }

    /// Whether the views are fresh enough to decide by.
    fn catch_up(&mut self, now: Now, out: &mut Vec<ToServer>) -> bool {
        if !self.is_leader(now) {
            return false;
        }
        let term = self.fence(now).map_or(Revision(0), |f| f.epoch);
        if self.term != Some(term) {
            self.term = Some(term);
            self.new_term = true;
            self.wanted = Some(self.wanted.map_or(term, |w| w.max(term)));
            // What an earlier leadership of this process has sent is refused by its fence, or shown by then.
            while let Some((key, _)) = self.binds.first_key_value() {
                let key = key.clone();
                self.drop_bind(&key);
            }
            if self.pods.revision() < term {
                self.relist(now, Some(term), out);
            }
        }
        let Some(wanted) = self.wanted else { return true };
        let synced = self.pods.is_synced() && self.nodes.is_synced() && self.surroundings.is_synced();
        if !synced || self.pods.revision() < wanted {
            return false;
        }
        self.wanted = None;
        self.behind = false;
        let gone = self.binds.keys().filter(|key| self.pods.get(key).is_none());
        for key in gone.cloned().collect::<Vec<_>>() {
            self.drop_bind(&key);
            self.core.pod_removed(now, &key);
        }
        if std::mem::take(&mut self.new_term) {
            self.core.forget_all(now);
        }
        true
    }

    /// Sees to it that no view is decided by that is older than one that was decided by before.
    fn check_view(&mut self, now: Now, out: &mut Vec<ToServer>) {
        let revision = self.pods.revision();
        if revision >= self.reached {
            self.reached = revision;
        } else if self.wanted.is_none_or(|w| w < self.reached) {
            self.wanted = Some(self.reached);
            self.relist(now, None, out);
        }
        self.behind = revision < self.reached;
    }

    /// Lists all pods anew, at once.
    fn relist(&mut self, now: Now, rv: Option<Revision>, out: &mut Vec<ToServer>) {
        self.pod_informer.relist(now, rv, out);
        self.pod_informer.handle_timeout(now, &mut self.pods, out);
    }

    /// Takes decisions and carries them out.
    fn act(&mut self, now: Now, out: &mut Vec<ToServer>) {
        if !self.catch_up(now, out) {
            return;
        }
        while self.sent.len() + self.doubts.len() < limits::SCHEDULER_IN_FLIGHT {
            match self.core.next(now) {
                None => break,
                Some(Decision::Bind { pod, uid, node }) => self.bind(now, pod, uid, node, out),
                Some(Decision::Unschedulable { pod, uid, message, nomination }) => {
                    if let Some(object) = self.pods.get(&pod) {
                        self.recorder.record(now, object, EventType::Warning, "FailedScheduling", &message, out);
                    }
                    match &nomination {
                        Nomination::Kept => {}
                        Nomination::Cleared => self.patch_nomination(now, &pod, &uid, None, out),
                        Nomination::Preempts(preemption) => {
                            self.patch_nomination(now, &pod, &uid, Some(&preemption.node), out);
                            self.preempt(now, &uid, preemption, out);
                        }
                    }
                    self.report(now, pod, uid, Rc::from(message), out);
                }
            }
        }
    }

    fn handle_own_timeouts(&mut self, now: Now, out: &mut Vec<ToServer>) {
        let unknown = Err(Status::timeout("no reply in time"));
        while let Some((_, id)) = self.timeouts.first().copied().filter(|(at, _)| *at <= now.mono) {
            let what = self.unsend(id).expect("a request is waited for as long as it is noted");
            self.take_lost(now, what, &unknown, out);
        }
        while let Some((at, key)) = self.doubts.first().filter(|(at, _)| *at <= now.mono).cloned() {
            self.doubts.remove(&(at, key.clone()));
            let call = Call::Get { key: key.clone(), rv: None };
            let id = self.send(now, Sent::Read(key.clone()), call, out);
            self.binds.get_mut(&key).expect("a doubt is about a bind").step = Step::Reading(id);
        }
        while let Some((at, key)) = self.reports_due.first().filter(|(at, _)| *at <= now.mono).cloned() {
            self.reports_due.remove(&(at, key.clone()));
            self.reports.get_mut(&key).expect("a report is due while it is kept").due = None;
            if self.is_leader(now) {
                self.send_report(now, key, out);
            } else {
                self.retry_report(now, &key);
            }
        }
    }
}

/// The patch that notes a pod as unschedulable; none if it is noted already.
fn condition_patch(now: Now, pod: &Pod, message: &str) -> Option<serde_json::Value> {
    let old = pod.status.condition(&Text::POD_SCHEDULED);
    let same = |c: &PodCondition| c.status == Text::FALSE && c.reason == Text::UNSCHEDULABLE && c.message == *message;
    if old.is_some_and(same) {
        return None;
    }
    let since = old.filter(|c| c.status == Text::FALSE).and_then(|c| c.last_transition_time.to_time());
    Some(json!({"status": {"conditions": [{
        "type": "PodScheduled",
        "status": "False",
        "reason": "Unschedulable",
        "message": message,
        "lastProbeTime": null,
        "lastTransitionTime": since.unwrap_or_else(|| now.wall.to_time()),
    }]}}))
}

impl Machine for SchedulerProcess {
    type In = FromServer;
    type Out = ToServer;

    fn handle(&mut self, now: Now, input: FromServer, out: &mut Vec<ToServer>) {
        if let Some(elector) = &mut self.elector {
            elector.handle(now, &input, out);
        }
        self.recorder.handle(now, &input, out);
        self.pod_informer.handle(now, &input, &mut self.pods, out, &mut self.changes);
        self.check_view(now, out);
        self.node_informer.handle(now, &input, &mut self.nodes, out, &mut self.changes);
        self.surroundings.handle(now, &input, &mut self.core, out);
        self.take_changes(now, out);
        match &input {
            FromServer::Reply(id, result) => self.take_reply(now, *id, result, out),
            FromServer::Disconnected => self.disconnected(now, out),
            FromServer::Watch(..) => {}
        }
        self.act(now, out);
    }

    fn handle_timeout(&mut self, now: Now, out: &mut Vec<ToServer>) {
        if !self.started {
            self.started = true;
            // Without a fence there is no epoch to wait for: the first list is as fresh as the store.
            if self.elector.is_none() {
                self.pod_informer.relist(now, None, out);
            }
            self.wanted = Some(Revision(0));
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
        self.act(now, out);
    }

    fn poll_timeout(&self) -> Option<Deadline> {
        let start = (!self.started).then_some(Deadline { at: Mono::ZERO, why: "start" });
        let reply = self.timeouts.first().map(|(at, _)| Deadline { at: *at, why: "request timed out" });
        let doubt = self.doubts.first().map(|(at, _)| Deadline { at: *at, why: "read doubtful pod" });
        let report = self.reports_due.first();
        let report = report.map(|(at, _)| Deadline { at: *at, why: "write condition again" });
        [
            start,
            self.elector.as_ref().and_then(Elector::poll_timeout),
            self.recorder.poll_timeout(),
            self.pod_informer.poll_timeout(),
            self.node_informer.poll_timeout(),
            self.surroundings.poll_timeout(),
            self.core.poll_timeout(),
            reply,
            doubt,
            report,
        ]
        .into_iter()
        .fold(None, Deadline::earlier)
    }
}

#[cfg(test)]
mod tests;
