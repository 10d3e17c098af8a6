//! The classic `kubectl rolling-update`: a client that replaces one ReplicationController by another, pod by pod.
//!
//! What comes in: replies from the server. What goes out: one request at a time. Before every step it reads both
//! controllers and their pods as fresh as the store, and decides only from what it read. State that must survive the
//! process is in annotations of the controllers. Therefore a lost reply, a crash or a rollback at any point needs no
//! special handling: the next read shows the current state.
//!
//! Never scales such that fewer pods are available than the desired number minus `max_unavailable`. Never lets the two
//! controllers together request more than the desired number plus `max_surge`.
//!
//! Source: kubectl's `rolling_updater.go`, as it was until 1.17.

mod step;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use k8s_openapi::api::core::v1 as core_v1;

use crate::api::{
    Call, DeleteOptions, FromServer, ListOptions, Precondition, Reason, ReqId, ReqIds, Request, Response, Status,
    Subresource, ToServer, WriteOptions,
};
use crate::limits;
use crate::machine::{Deadline, Machine, Mono, Now};
use crate::object::{IntOrString, Kind, Object, ObjectKey, Pod, ReplicationController, Selector};
use crate::random::{Rng, mix_bytes};
use step::{Step, decide};

/// On the new controller: name and UID of the controller that it replaces.
pub const SOURCE_ID: &str = "kubectl.kubernetes.io/update-source-id";
/// On the new controller: its final number of replicas.
pub const DESIRED_REPLICAS: &str = "kubectl.kubernetes.io/desired-replicas";
/// On the old controller: its initial number of replicas.
pub const ORIGINAL_REPLICAS: &str = "kubectl.kubernetes.io/original-replicas";
/// On the old controller: name of the controller that replaces it.
pub const NEXT_CONTROLLER: &str = "kubectl.kubernetes.io/next-controller-id";
/// On a controller that takes over the name of the old one: name of the controller that it is a copy of.
pub const RENAME_FROM: &str = "kubectl.kubernetes.io/rename-from";
/// Label that distinguishes the pods of the two controllers (`--deployment-label-key`).
pub const DEFAULT_KEY: &str = "deployment";
/// How many progress messages are kept until they are taken.
const MAX_MESSAGES: usize = 1000;

/// What happens to the old controller at the end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CleanupPolicy {
    /// It is deleted.
    Delete,
    /// It is kept with zero replicas.
    Preserve,
    /// It is deleted and the new controller takes over its name.
    Rename,
}

/// Configuration of an update.
#[derive(Clone, Debug)]
pub struct RollingUpdateConfig {
    /// Namespace of both controllers.
    pub namespace: Rc<str>,
    /// Name of the old controller.
    pub old: Rc<str>,
    /// The new controller; its `spec.replicas` is the desired number, by default the old controller's.
    pub new: ReplicationController,
    /// Label that distinguishes the pods.
    pub key: Rc<str>,
    /// Delay between two steps (`--update-period`).
    pub update_period: Duration,
    /// Interval between two reads (`--poll-interval`).
    pub interval: Duration,
    /// How long there may be no progress (`--timeout`).
    pub timeout: Duration,
    /// How long a pod must have been ready to be available.
    pub min_ready_seconds: i32,
    /// How many pods may be unavailable during the update.
    pub max_unavailable: IntOrString,
    /// How many extra pods may exist during the update.
    pub max_surge: IntOrString,
    /// What happens to the old controller.
    pub cleanup: CleanupPolicy,
    /// Roll back to the old controller instead (`--rollback`).
    pub rollback: bool,
}

impl RollingUpdateConfig {
    /// A configuration with kubectl's defaults.
    pub fn new(namespace: &str, old: &str, new: ReplicationController) -> RollingUpdateConfig {
        RollingUpdateConfig {
            namespace: Rc::from(namespace),
            old: Rc::from(old),
            new,
            key: Rc::from(DEFAULT_KEY),
            update_period: Duration::from_secs(60),
            interval: Duration::from_secs(3),
            timeout: Duration::from_secs(300),
            min_ready_seconds: 0,
            max_unavailable: IntOrString::Int(0),
            max_surge: IntOrString::Int(1),
            cleanup: CleanupPolicy::Delete,
            rollback: false,
        }
    }
}

/// The controller that `kubectl rolling-update OLD [NEW] --image=IMAGE` creates: a copy of the old one with another
/// image and a different value of the label `key`. Without a name, it is named after the old one and the hash. Fails
/// with kubectl's message if the pods have several containers and none is named.
pub fn with_image(
    old: &ReplicationController,
    name: Option<&str>,
    container: Option<&str>,
    image: &str,
    key: &str,
) -> Result<ReplicationController, String> {
    let mut new = old.clone();
    new.rv = crate::object::Revision(0);
    let containers = &mut new.spec_mut().pod_mut().containers;
    let several = containers.len() > 1;
    let target = match container {
        Some(wanted) => containers.iter_mut().find(|c| c.name == wanted),
        None if several => return Err("must specify container to update when updating a multi-container pod".into()),
        None => containers.first_mut(),
    };
    match target {
        Some(c) => c.image = Some(image.to_owned()),
        None => {
            return Err(format!("container {:?} not found in controller {:?}", container.unwrap_or(""), old.name()));
        }
    }
    let hash = template_hash(&new, key);
    let name = name.map_or_else(|| format!("{}-{hash}", old.name()), str::to_owned);
    let (namespace, labels) = (old.meta.namespace.clone(), old.meta.labels.clone());
    *new.meta_mut() = crate::object::ObjectMeta { name: Some(name), namespace, labels, ..Default::default() };
    new.set_status(Default::default());
    let spec = new.spec_mut();
    spec.replicas = None;
    set_key(&mut spec.fields, key, &hash);
    Ok(new)
}

/// Sets the key in the selector and the template.
fn set_key(spec: &mut core_v1::ReplicationControllerSpec, key: &str, value: &str) {
    spec.selector.get_or_insert_default().insert(key.to_owned(), value.to_owned());
    set_template_key(spec, key, value);
}

fn set_template_key(spec: &mut core_v1::ReplicationControllerSpec, key: &str, value: &str) {
    let template = spec.template.get_or_insert_default();
    let labels = template.metadata.get_or_insert_default().labels.get_or_insert_default();
    labels.insert(key.to_owned(), value.to_owned());
}

/// Hash of a template without the key itself.
fn template_hash(rc: &ReplicationController, key: &str) -> String {
    let mut labels = rc.spec.template_meta().and_then(|m| m.labels.clone()).unwrap_or_default();
    labels.remove(key);
    let text = serde_json::to_vec(&(labels, &*rc.spec.pod)).expect("a pod template serialises");
    format!("{:016x}", mix_bytes(0, &text))
}

/// State of the update.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum UpdateState {
    /// In progress.
    Running,
    /// Complete.
    Done,
    /// Failed, with kubectl's message. [`RollingUpdate::resume`] continues.
    Failed(String),
}

/// What has been read for the next decision.
#[derive(Clone, Debug, Default)]
struct Observed {
    old: Option<ReplicationController>,
    new: Option<ReplicationController>,
    old_pods: Vec<Pod>,
    new_pods: Vec<Pod>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Ask {
    Old,
    New,
    OldPods,
    NewPods,
    Write,
}

#[derive(Debug)]
struct InFlight {
    id: ReqId,
    ask: Ask,
    until: Mono,
}

/// State that only the process has; all of it may be lost.
#[derive(Debug, Default)]
struct Memory {
    /// When a controller was last scaled.
    scaled: Option<Mono>,
    /// When there was last progress, and the sizes at that time.
    progress: Option<(Mono, i32, i32)>,
}

/// A rolling update. Drive it like any machine until [`state`](Self::state) is no longer `Running`.
#[derive(Debug)]
pub struct RollingUpdate {
    config: RollingUpdateConfig,
    user: Rc<str>,
    ids: ReqIds,
    rng: Rng,
    state: UpdateState,
    observed: Observed,
    in_flight: Option<InFlight>,
    /// When it reads again if no request is in flight, and what it reads first: a read whose reply was lost is
    /// repeated.
    next_at: Mono,
    next_ask: Ask,
    failures: u32,
    memory: Memory,
    messages: Vec<String>,
}

impl RollingUpdate {
    /// Starts an update, or continues one that was interrupted.
    pub fn new(config: RollingUpdateConfig, part: u16, rng: Rng) -> RollingUpdate {
        RollingUpdate {
            config,
            user: Rc::from("kubectl-rolling-update"),
            ids: ReqIds::new(part),
            rng,
            state: UpdateState::Running,
            observed: Observed::default(),
            in_flight: None,
            next_at: Mono::ZERO,
            next_ask: Ask::Old,
            failures: 0,
            memory: Memory::default(),
            messages: Vec::new(),
        }
    }

    /// The state of the update.
    pub fn state(&self) -> &UpdateState {
        &self.state
    }

    /// The messages that kubectl would have printed since the last call.
    pub fn take_messages(&mut self) -> Vec<String> {
        std::mem::take(&mut self.messages)
    }

    /// Rolls back to the old controller from wherever the update is.
    pub fn rollback(&mut self, now: Now) {
        self.config.rollback = true;
        self.resume(now);
    }

    /// Continues after a failure.
    pub fn resume(&mut self, now: Now) {
        self.state = UpdateState::Running;
        self.memory = Memory::default();
        if self.in_flight.is_none() {
            self.next_at = now.mono;
        }
    }

    fn say(&mut self, message: String) {
        if self.messages.len() < MAX_MESSAGES {
            self.messages.push(message);
        }
    }

    fn key(&self, name: &str) -> ObjectKey {
        ObjectKey::new(Kind::REPLICATION_CONTROLLER, &self.config.namespace, name)
    }

    fn send(&mut self, now: Now, ask: Ask, call: Call, out: &mut Vec<ToServer>) {
        assert!(self.in_flight.is_none(), "an update has one request on its way");
        let id = self.ids.next();
        out.push(ToServer::Request(id, Request::new(&self.user, call)));
        self.in_flight = Some(InFlight { id, ask, until: now.mono + limits::REQUEST_TIMEOUT });
    }

    fn read(&mut self, now: Now, ask: Ask, out: &mut Vec<ToServer>) {
        let call = match ask {
            Ask::Old => Call::Get { key: self.key(&self.config.old), rv: None },
            Ask::New => Call::Get { key: self.key(self.config.new.name()), rv: None },
            Ask::OldPods => self.list(self.observed.old.as_ref(), Some(&self.config.key)),
            Ask::NewPods => self.list(self.observed.new.as_ref(), None),
            Ask::Write => panic!("a write is not a read"),
        };
        self.send(now, ask, call, out);
    }

    /// Lists the pods that a controller selects, ignoring the label `without` in its selector.
    fn list(&self, rc: Option<&ReplicationController>, without: Option<&str>) -> Call {
        let mut labels: BTreeMap<String, String> = rc.and_then(|r| r.spec.selector.clone()).unwrap_or_default();
        if let Some(key) = without {
            labels.remove(key);
        }
        let labels = if labels.is_empty() { Selector::nothing() } else { Selector::from_map(&labels) };
        let options = ListOptions { labels, ..ListOptions::default() };
        Call::List { kind: Kind::POD, namespace: Rc::clone(&self.config.namespace), options }
    }

    /// Retries after a failure, with increasing delays. After a write with an unknown outcome, everything is read
    /// again.
    fn back_off(&mut self, now: Now, ask: Ask) {
        self.next_ask = if ask == Ask::Write { Ask::Old } else { ask };
        let base = self.config.interval.max(limits::QUEUE_BACKOFF_BASE).saturating_mul(1 << self.failures.min(8));
        self.failures = self.failures.saturating_add(1);
        self.next_at = now.mono + self.rng.jitter(base.min(limits::QUEUE_BACKOFF_MAX), 20);
    }

    fn take(&mut self, now: Now, ask: Ask, result: &Result<Response, Status>, out: &mut Vec<ToServer>) {
        let absent = matches!(result, Err(s) if s.reason == Reason::NotFound);
        match (ask, result) {
            (Ask::Write, Ok(_)) => {
                self.failures = 0;
                self.next_at = now.mono;
            }
            (Ask::Old, Ok(Response::Object(Object::ReplicationController(rc)))) => {
                self.observed.old = Some(rc.clone());
                self.read(now, Ask::New, out);
            }
            (Ask::Old, _) if absent => {
                self.observed.old = None;
                self.read(now, Ask::New, out);
            }
            (Ask::New, Ok(Response::Object(Object::ReplicationController(rc)))) => {
                self.observed.new = Some(rc.clone());
                self.read(now, Ask::OldPods, out);
            }
            (Ask::New, _) if absent => {
                self.observed.new = None;
                self.read(now, Ask::OldPods, out);
            }
            (Ask::OldPods | Ask::NewPods, Ok(Response::List { items, .. })) => {
                let pods: Vec<Pod> = items.iter().filter_map(Object::get::<core_v1::Pod>).cloned().collect();
                if ask == Ask::OldPods {
                    self.observed.old_pods = pods;
                    self.read(now, Ask::NewPods, out);
                } else {
                    self.observed.new_pods = pods;
                    self.act(now, out);
                }
            }
            // Whatever the failure was, the next read shows the result.
            (Ask::Old | Ask::New | Ask::OldPods | Ask::NewPods | Ask::Write, Ok(_) | Err(_)) => self.back_off(now, ask),
        }
    }

    /// Takes the next step from what has been read.
    fn act(&mut self, now: Now, out: &mut Vec<ToServer>) {
        self.failures = 0;
        let observed = std::mem::take(&mut self.observed);
        match decide(&self.config, &observed, &mut self.memory, now) {
            Step::Write { call, message } => {
                if let Some(message) = message {
                    self.say(message);
                }
                self.send(now, Ask::Write, call, out);
            }
            Step::Wait(time) => self.next_at = now.mono + time,
            Step::Done => self.state = UpdateState::Done,
            Step::Failed(why) => self.state = UpdateState::Failed(why),
        }
    }
}

/// An update at the revision that was read.
fn update(rc: ReplicationController) -> Call {
    let object = Object::ReplicationController(rc);
    Call::Update { object, subresource: Subresource::None, options: WriteOptions::default() }
}

/// A delete of exactly the object that was read.
fn delete(object: &Object, propagation: Option<crate::api::Propagation>) -> Call {
    let precondition = Precondition { uid: Some(object.uid().into()), rv: None };
    Call::Delete { key: object.key(), options: DeleteOptions { precondition, propagation, ..DeleteOptions::default() } }
}

impl Machine for RollingUpdate {
    type In = FromServer;
    type Out = ToServer;

    fn handle(&mut self, now: Now, input: FromServer, out: &mut Vec<ToServer>) {
        match input {
            FromServer::Reply(id, result) => {
                if let Some(flight) = self.in_flight.take_if(|f| f.id == id)
                    && self.state == UpdateState::Running
                {
                    self.take(now, flight.ask, &result, out);
                }
            }
            FromServer::Disconnected => {
                if let Some(flight) = self.in_flight.take() {
                    self.back_off(now, flight.ask);
                }
            }
            FromServer::Watch(..) => {}
        }
    }

    fn handle_timeout(&mut self, now: Now, out: &mut Vec<ToServer>) {
        if let Some(flight) = self.in_flight.take_if(|f| f.until <= now.mono) {
            self.back_off(now, flight.ask);
        }
        if self.state == UpdateState::Running && self.in_flight.is_none() && self.next_at <= now.mono {
            let ask = std::mem::replace(&mut self.next_ask, Ask::Old);
            self.read(now, ask, out);
        }
    }

    fn poll_timeout(&self) -> Option<Deadline> {
        match &self.in_flight {
            Some(f) => Some(Deadline { at: f.until, why: "request timed out" }),
            None if self.state == UpdateState::Running => Some(Deadline { at: self.next_at, why: "look again" }),
            None => None,
        }
    }
}
