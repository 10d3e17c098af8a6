//! The scheduler machine.
//!
//! [`Scheduler`] is pure: its inputs are nodes, pods and the outcomes of binds, its outputs are decisions. It knows
//! neither the API nor leader election; [`SchedulerProcess`], the machine around it, does.
//!
//! Call order of [`Scheduler`]: report every change (`node_changed`, `pod_changed`, …), call `handle_timeout` at
//! `poll_timeout`, and after either call `next` until it returns `None`. After each `Bind`, either call `forget` if it
//! failed, or report the bound pod with `pod_changed`.
//!
//! It never
//! - gives a node more pods than fit, by everything that was reported or decided so far;
//! - takes an assumed pod off its node because a view lags;
//! - decides differently from filtering and scoring every node from scratch. One of several equally good nodes is
//!   drawn; a profile that shares GPUs may take the first.
//!
//! The plug-ins and their weights are kube-scheduler's; which of them count for a pod, and how, says the profile of its
//! `spec.schedulerName` ([`profile`]). What they lack is in [`framework`]; how pods affect each other is in [`peers`].

pub mod advice;
mod asked;
pub mod cache;
pub mod dynamic_resources;
pub mod events;
pub mod explain;
pub mod extenders;
pub mod filters;
mod find;
pub mod framework;
pub mod gpu;
pub mod images;
mod once;
pub mod peers;
pub mod pod_groups;
pub mod preemption;
mod process;
pub mod profile;
mod queue;
pub mod resources;
pub mod scores;
pub mod shape;
pub mod table;
pub mod trial;
pub mod volumes;
mod waking;

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use asked::Chosen;
use cache::{Nodes, Slot};
use dynamic_resources::{ClaimStep, DeviceClaim, DynamicResources};
use events::Events;
use extenders::{Candidate, Extender, Opinion, Verb};
use find::placed;
use gpu::Devices;
use peers::{ClassId, KinId, Peers};
use pod_groups::{GangDecision, Place, PodGroups, group_of};
use preemption::{Evicted, Evictions, Nomination};
pub use process::{In, Out, SchedulerConfig, SchedulerProcess};
use profile::{Plugin, Profile, Rules};
pub use queue::QueueCounts;
use queue::{PodId, Queue};
use shape::{ShapeId, Shapes};
use table::Table;
use volumes::{Readiness, VolumeStep, Volumes};

use crate::machine::{Deadline, Now};
use crate::object::{
    KeyMap, Kind, Labels, Meta, Node, Object, ObjectKey, Pod, Revision, Selector, SharedPodSpec, Text, is_pod_terminal,
};
use crate::random::Rng;

/// The name of the default scheduler (`spec.schedulerName`).
pub const DEFAULT_SCHEDULER: &str = "default-scheduler";

/// A decision about a pod.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Decision {
    /// Bind it. The scheduler counts it on the node from now on.
    Bind {
        /// The pod.
        pod: ObjectKey,
        /// Its UID.
        uid: Rc<str>,
        /// The node.
        node: Rc<str>,
        /// What has to be written, and its claims bound, before it is.
        volumes: Vec<VolumeStep>,
        /// What has to be written of its claims for devices, and seen, before it is.
        claims: Vec<ClaimStep>,
        /// Its GPUs, which the binding writes down.
        devices: Devices,
    },
    /// It fits no node.
    Unschedulable {
        /// The pod.
        pod: ObjectKey,
        /// Its UID.
        uid: Rc<str>,
        /// Why, in kube-scheduler's words.
        message: String,
        /// What to do with its nomination.
        nomination: Nomination,
        /// A claim for devices that is to be allocated anew, since it keeps the pod from nodes and nobody uses it.
        idle: Option<ObjectKey>,
    },
    /// A gang was tried as a whole.
    Gang(GangDecision),
    /// Extenders are to be asked about nodes; call `nodes_answered` or `not_answered` then.
    AskNodes {
        /// The pod.
        pod: ObjectKey,
        /// Its UID.
        uid: Rc<str>,
        /// The nodes.
        nodes: BTreeSet<Rc<str>>,
        /// Whether there is only the one that the pod is nominated for.
        nominated: bool,
    },
    /// Extenders are to be asked which pods to evict; call `victims_answered` then.
    AskVictims {
        /// The pod.
        pod: ObjectKey,
        /// Its UID.
        uid: Rc<str>,
        /// What they have said about nodes before.
        opinion: Opinion,
        /// The nodes where evictions help.
        candidates: Vec<Candidate>,
    },
    /// An extender has failed. The pod is tried again, and is nominated for no node any more.
    Failed {
        /// The pod.
        pod: ObjectKey,
        /// Its UID.
        uid: Rc<str>,
        /// Why.
        message: String,
    },
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    /// It has scheduling gates, or claims for devices that are not there.
    Gated,
    /// It is in the queue.
    Queued,
    /// It was taken from the queue, and waits for what extenders say.
    Asked,
    /// Its bind is decided, and not seen in the view yet.
    Assumed(Slot),
    /// It is bound.
    Bound(Slot),
}

#[derive(Debug)]
struct Tracked {
    key: ObjectKey,
    uid: Rc<str>,
    meta: Rc<Meta>,
    spec: SharedPodSpec,
    shape: ShapeId,
    class: ClassId,
    kin: KinId,
    priority: i32,
    /// Whether `preemptionPolicy` is not `Never`.
    may_preempt: bool,
    state: State,
    /// Whether it has scheduling gates.
    gates: bool,
    /// The group that it names, where that matters.
    group: Option<ObjectKey>,
    /// The order in which pods were first heard of.
    heard: u64,
    /// Whether it is not being deleted.
    alive: bool,
    /// Whether it is evicted, or about to be, to make room for another pod.
    is_victim: bool,
    /// The node that it is nominated for.
    nominated: Option<Slot>,
    /// `status.startTime` in seconds; `i64::MAX` if it has not started.
    started: i64,
    /// Its GPUs on the node that it is on.
    devices: Devices,
}

/// Decides which node each pod is bound to.
#[derive(Debug)]
pub struct Scheduler {
    /// The names of the profiles, and their rules.
    profiles: Vec<(Rc<str>, Rc<Rules>)>,
    rng: Rng,
    nodes: Nodes,
    shapes: Shapes,
    pods: Vec<Option<Tracked>>,
    vacant: Vec<PodId>,
    index: KeyMap<PodId>,
    queue: Queue,
    /// The feasible nodes and scores, by shape and priority.
    tables: BTreeMap<(ShapeId, i32), Table>,
    /// The shapes and priorities for which a node has been looked for.
    sought: BTreeSet<(ShapeId, i32)>,
    uses: u64,
    assumed: usize,
    peers: Peers,
    /// The pods on each slot.
    on: Vec<Vec<PodId>>,
    evictions: Evictions,
    volumes: Volumes,
    dynamic_resources: DynamicResources,
    /// `None` where pods' groups do not matter.
    groups: Option<PodGroups>,
    /// How many pods were ever heard of.
    heard: u64,
    extenders: Rc<[Extender]>,
    /// A column of scores, kept so that each decision can reuse its memory.
    scores: Vec<i32>,
}

impl Scheduler {
    /// A scheduler of the pods whose `spec.schedulerName` names one of the profiles, of which there is at least one.
    pub fn new(profiles: &[Profile], rng: Rng) -> Scheduler {
        assert!(!profiles.is_empty(), "a scheduler has a profile");
        let mut nodes = Nodes::default();
        let numbered = profiles.iter().enumerate();
        let rules = numbered.map(|(i, p)| (Rc::from(&*p.name), Rc::new(Rules::new(i, p, &mut nodes.resources))));
        Scheduler {
            profiles: rules.collect(),
            rng,
            nodes,
            shapes: Shapes::default(),
            pods: Vec::new(),
            vacant: Vec::new(),
            index: KeyMap::default(),
            queue: Queue::default(),
            tables: BTreeMap::new(),
            sought: BTreeSet::new(),
            uses: 0,
            assumed: 0,
            peers: Peers::default(),
            on: Vec::new(),
            evictions: Evictions::default(),
            volumes: Volumes::default(),
            dynamic_resources: DynamicResources::default(),
            groups: None,
            heard: 0,
            extenders: Rc::from([]),
            scores: Vec::new(),
        }
    }

    /// Handles a node that was added or has changed.
    pub fn node_changed(&mut self, now: Now, node: &Node) {
        let (slot, events) = self.nodes.put(node);
        if !events.is_empty() {
            self.happened(now, events, slot);
        }
    }

    /// Handles a deleted node. Its pods are counted until they are deleted too.
    pub fn node_removed(&mut self, now: Now, name: &str) {
        if self.nodes.remove(name) {
            self.others_changed(now);
        }
    }

    /// Handles a Service that was added or has changed. `None` if it has no selector or was deleted.
    pub fn service_changed(&mut self, now: Now, namespace: &str, name: &str, selector: Option<&Labels>) {
        self.peers.owners.service_changed(namespace, name, selector);
        self.owners_changed(now);
    }

    /// Handles a controller whose pods are spread by default, if it was added or has changed. `None` if it was deleted.
    pub fn controller_changed(
        &mut self,
        now: Now,
        kind: Kind,
        namespace: &str,
        name: &str,
        selector: Option<Selector>,
    ) {
        self.peers.owners.controller_changed(kind, namespace, name, selector);
        self.owners_changed(now);
    }

    /// Handles that other pods may be those that a pod is spread against by default. The system's own constraints
    /// refuse no node.
    fn owners_changed(&mut self, now: Now) {
        if self.profiles.iter().any(|(_, rules)| !rules.system_spread && !rules.spread.is_empty()) {
            self.others_changed(now);
        }
    }

    /// Handles a namespace that was added or has changed. `None` if it was deleted.
    pub fn namespace_changed(&mut self, now: Now, name: &str, labels: Option<&Labels>) {
        let pods = &self.pods;
        if self.peers.namespace_changed(name, labels, || placed(pods)) {
            self.others_changed(now);
        }
    }

    /// A claim, a volume, a StorageClass or a CSINode is there, or has changed; none if it is gone.
    pub fn storage_changed(&mut self, now: Now, key: &ObjectKey, object: Option<&Object>) {
        match self.volumes.changed(key, object) {
            volumes::Matters::All => self.wake_users(now, |_| true),
            volumes::Matters::ItsPods => self.wake_users(now, |claim| claim.key == *key),
            volumes::Matters::Nothing => {}
        }
    }

    /// How the claims of a pod for a node are.
    pub fn readiness(&self, pod: &ObjectKey, node: &str) -> Readiness {
        let Some(slot) = self.nodes.slot(node).filter(|slot| self.nodes.is_present(*slot)) else {
            return Readiness::Failed(format!("failed to get node {node:?}: node {node:?} not found"));
        };
        let Some(id) = self.index.get(pod) else {
            return Readiness::Failed(format!("pod {:?} does not exist any more", pod.path()));
        };
        let claims = &self.peers.class(self.tracked(*id).class).claims;
        self.volumes.readiness(claims, node, self.nodes.meta(slot))
    }

    /// A claim for devices, a DeviceClass or a ResourceSlice is there, or has changed; none if it is gone.
    pub fn devices_changed(&mut self, now: Now, key: &ObjectKey, object: Option<&Object>) {
        let matters = self.dynamic_resources.changed(key, object);
        let users = self.dynamic_resources.users(key);
        for id in &users {
            self.enqueue(now, *id);
        }
        match matters {
            dynamic_resources::Matters::All => self.wake_device_users(now, |_| true),
            dynamic_resources::Matters::ItsPods => {
                let classes: Vec<ClassId> = users.iter().map(|id| self.tracked(*id).class).collect();
                self.wake_device_users(now, |class| classes.contains(&class));
            }
        }
    }

    /// A claim for devices as it is known.
    pub fn device_claim(&self, key: &ObjectKey) -> Option<&Object> {
        self.dynamic_resources.claim(key)
    }

    /// A choice of devices for an assumed pod's claim is being written, based on this revision of the claim. `None`:
    /// what was sent was refused.
    pub fn claim_sent(&mut self, pod: &ObjectKey, claim: &ObjectKey, rv: Option<Revision>) {
        if let Some(id) = self.index.get(pod) {
            self.dynamic_resources.sent(*id, claim, rv);
        }
    }

    /// Nothing that was written for claims before can still be carried out.
    pub fn nothing_is_sent(&mut self, now: Now) {
        if self.dynamic_resources.nothing_is_sent() {
            self.wake_device_users(now, |_| true);
        }
    }

    /// A claim or volume as it is known.
    pub fn storage(&self, key: &ObjectKey) -> Option<&Object> {
        self.volumes.object(key)
    }

    /// Handles a pod that was added or has changed.
    pub fn pod_changed(&mut self, now: Now, pod: &Pod) {
        let key = pod.key();
        let known = self.index.get(&key).copied();
        if let Some(id) = known.filter(|id| *self.tracked(*id).uid != *pod.uid()) {
            self.drop_pod(now, id);
        }
        if is_pod_terminal(pod) {
            self.pod_removed(now, &key);
            return;
        }
        match (self.index.get(&key).copied(), &pod.spec.node) {
            (None, None) => self.add_unbound(now, key, pod),
            (None, Some(node)) => {
                let id = self.track(key, pod, State::Gated);
                self.count(id, node);
                self.arrived(now, id);
                self.join_group(now, id);
            }
            (Some(id), None) => self.update_unbound(now, id, pod),
            (Some(id), Some(node)) => self.update_bound(now, id, pod, node),
        }
    }

    /// Handles a deleted pod.
    pub fn pod_removed(&mut self, now: Now, key: &ObjectKey) {
        if let Some(id) = self.index.get(key).copied() {
            self.drop_pod(now, id);
        }
    }

    /// Handles that the bind of an assumed pod has certainly failed: takes the pod off its node and queues it again.
    /// Does nothing if the pod is not assumed, or is another one by now.
    pub fn forget(&mut self, now: Now, key: &ObjectKey, uid: &str) {
        let Some(id) = self.index.get(key).copied() else { return };
        let tracked = self.tracked(id);
        if let State::Assumed(slot) = tracked.state
            && *tracked.uid == *uid
        {
            self.uncount(id, slot);
            self.tracked_mut(id).state = State::Queued;
            self.queue.retry(now.mono, id);
            let (class, kin) = (self.tracked(id).class, self.tracked(id).kin);
            self.left(now, Events::ASSIGNED_POD_DELETE, slot, kin);
            self.free_volumes(now, id, class);
        }
    }

    /// Handles that the binds of all assumed pods have certainly failed.
    pub fn forget_all(&mut self, now: Now) {
        let assumed = self.pods.iter().flatten().filter(|t| matches!(t.state, State::Assumed(_)));
        let assumed: Vec<_> = assumed.map(|t| (t.key.clone(), Rc::clone(&t.uid))).collect();
        assumed.iter().for_each(|(key, uid)| self.forget(now, key, uid));
    }

    /// Moves the pods in the queue whose time has come.
    pub fn handle_timeout(&mut self, now: Now) {
        self.queue.handle_timeout(now.mono);
    }

    /// When `handle_timeout` must be called next.
    pub fn poll_timeout(&self) -> Option<Deadline> {
        self.queue.poll_timeout()
    }

    /// Decides about the next pod in the queue; `None` if there is none.
    pub fn next(&mut self, now: Now) -> Option<Decision> {
        let pods = &self.pods;
        self.peers.sweep(|| placed(pods));
        let id = loop {
            let id = self.queue.pop()?;
            if self.waits_for_group(id).is_some() {
                self.gate(id);
                continue;
            }
            match self.gang_of(id) {
                Some(gang) => return Some(Decision::Gang(self.try_gang(now, id, gang))),
                None => break id,
            }
        };
        let class = self.tracked(id).class;
        // Its own nomination takes no room from it.
        let before = self.withdraw(id);
        self.prepare(class);
        let there = before.filter(|slot| self.nodes.is_present(*slot) && self.rejection(id, *slot).is_none());
        if self.is_extended(id, &[Verb::Filter, Verb::Prioritize])
            && let Some(question) = self.ask_about_nodes(id, before, there)
        {
            return Some(question);
        }
        if let Some(slot) = there.or_else(|| self.find(id)) {
            return Some(self.assume(now, id, slot, before));
        }
        self.turn_down(now, id, before, &Opinion::default(), None)
    }

    /// Has a popped pod go to a node.
    fn assume(&mut self, now: Now, id: PodId, slot: Slot, before: Option<Slot>) -> Decision {
        let (pod, uid) = (self.tracked(id).key.clone(), Rc::clone(&self.tracked(id).uid));
        let class = self.tracked(id).class;
        let Place { node, volumes, claims, devices } = self.reserve(id, slot);
        if self.queue.found(id) {
            self.wake_if_feasible(now, class);
        }
        self.arrived(now, id);
        if let Some(slot) = before {
            self.happened(now, Events::ASSIGNED_POD_DELETE, slot);
        }
        Decision::Bind { pod, uid, node, volumes, claims, devices }
    }

    /// Counts a popped pod on a node, and says what its bind takes.
    fn reserve(&mut self, id: PodId, slot: Slot) -> Place {
        let (class, uid) = (self.tracked(id).class, Rc::clone(&self.tracked(id).uid));
        let node = Rc::clone(self.nodes.name(slot));
        let volumes = self.volume_steps(class, slot);
        let claims = self.claim_steps(class, slot, &uid);
        self.dynamic_resources.assume(id, &claims);
        self.volumes.assume(id, &node, &volumes);
        let devices = self.choose_devices(id, slot);
        // A pod that gets none keeps what it says itself, whatever that means.
        let said = Devices::of(&self.tracked(id).meta);
        self.tracked_mut(id).devices = if devices.is_empty() { said } else { devices };
        self.count(id, &node);
        self.tracked_mut(id).state = State::Assumed(slot);
        self.assumed += 1;
        Place { node, volumes, claims, devices }
    }

    /// Says why a popped pod fits no node, and what may be evicted for it. `opinion` is what extenders have said about
    /// nodes, `chosen` what they have about victims if they were asked.
    fn turn_down(
        &mut self,
        now: Now,
        id: PodId,
        before: Option<Slot>,
        opinion: &Opinion,
        chosen: Option<Chosen>,
    ) -> Option<Decision> {
        let (said_before, mut rejections) = self.unfit(id);
        self.add_refusals(id, opinion, &mut rejections);
        let (about_claims, idle) = self.after_filters(id, said_before.is_some(), &rejections);
        let (preemption, nomination) = match chosen {
            _ if self.nodes.is_empty() => (None, Nomination::Kept),
            Some(chosen) => self.preempt_chosen(now, id, chosen),
            None => match self.preempt(now, id, before, (&rejections, opinion)) {
                Evicted::Settled(message, nomination) => (message, nomination),
                Evicted::Open(candidates) => {
                    let (pod, uid) = self.begin_to_wait(id, before);
                    return Some(Decision::AskVictims { pod, uid, opinion: opinion.clone(), candidates });
                }
            },
        };
        if let (Nomination::Kept, Some(slot)) = (&nomination, before) {
            self.nominate(id, slot);
        }
        let nodes = (self.nodes.len(), &self.nodes.resources);
        let preempts = matches!(nomination, Nomination::Preempts(_));
        let after = (about_claims.filter(|_| !preempts), preemption.as_deref());
        let message = explain::message(nodes, said_before.as_deref(), &rejections, after);
        // Whom an extender has refused is tried again after any event, since nobody knows what it waits for.
        let known = !self.nodes.is_empty() && opinion.passed == opinion.asked;
        self.queue.unschedulable(now.mono, id, known);
        if let (Nomination::Cleared | Nomination::Preempts(_), Some(slot)) = (&nomination, before) {
            self.happened(now, Events::ASSIGNED_POD_DELETE, slot);
        }
        let (pod, uid) = (self.tracked(id).key.clone(), Rc::clone(&self.tracked(id).uid));
        Some(Decision::Unschedulable { pod, uid, message, nomination, idle })
    }

    /// Whether the pod with this key is assumed on a node.
    pub fn is_assumed(&self, key: &ObjectKey) -> bool {
        self.index.get(key).is_some_and(|id| matches!(self.tracked(*id).state, State::Assumed(_)))
    }

    /// The GPUs of a pod that is assumed or bound.
    pub fn devices(&self, key: &ObjectKey) -> Devices {
        self.index.get(key).map_or(Devices::NONE, |id| self.tracked(*id).devices)
    }

    /// How many pods are assumed.
    pub fn assumed(&self) -> usize {
        self.assumed
    }

    /// Whether a node of this name exists.
    pub fn has_node(&self, name: &str) -> bool {
        self.nodes.slot(name).is_some_and(|slot| self.nodes.is_present(slot))
    }

    /// How many pods wait in each part of the queue.
    pub fn waiting(&self) -> QueueCounts {
        self.queue.counts()
    }

    /// The nodes and what runs on them, as the scheduler counts.
    pub fn nodes(&self) -> &Nodes {
        &self.nodes
    }

    fn tracked(&self, id: PodId) -> &Tracked {
        self.pods[id as usize].as_ref().expect("an id is used only while its pod is tracked")
    }

    fn tracked_mut(&mut self, id: PodId) -> &mut Tracked {
        self.pods[id as usize].as_mut().expect("an id is used only while its pod is tracked")
    }

    /// The profile that schedules a pod; `None` if another scheduler does.
    fn profile_of(&self, pod: &Pod) -> Option<&Rc<Rules>> {
        let name = scheduler_of(pod);
        self.profiles.iter().find(|(profile, _)| **profile == *name).map(|(_, rules)| rules)
    }

    /// Whether the profile of a pod has this filter; true for a pod that another scheduler places.
    pub fn filters_by(&self, pod: &Pod, plugin: Plugin) -> bool {
        self.profile_of(pod).is_none_or(|rules| rules.filters.has(plugin))
    }

    /// Takes the shape of one more pod. A pod that another scheduler places is only counted, so that its rules do not
    /// matter.
    fn shape(&mut self, pod: &Pod) -> ShapeId {
        let rules = Rc::clone(self.profile_of(pod).unwrap_or(&self.profiles[0].1));
        self.shapes.take(pod, &mut self.nodes.resources, &rules)
    }

    /// Takes the shape and the class of one more pod.
    fn classify(&mut self, pod: &Pod) -> (ShapeId, ClassId) {
        let id = self.shape(pod);
        let shape = self.shapes.get(id);
        // The default constraints do not apply to a pod that has constraints of its own.
        let owner = if shape.peers.spread.is_empty() { self.peers.owners.of(&pod.meta) } else { None };
        let claims = (volumes::claims_of(pod), dynamic_resources::claims_of(pod));
        let group = self.groups.as_ref().and_then(|_| group_of(pod));
        (id, self.peers.take((id, shape), pod.namespace(), pod.meta.labels.as_ref(), owner, (claims, group)))
    }

    fn track(&mut self, key: ObjectKey, pod: &Pod, state: State) -> PodId {
        let (shape, class) = self.classify(pod);
        self.heard += 1;
        let tracked = Tracked {
            key: key.clone(),
            uid: Rc::from(pod.uid()),
            meta: Rc::clone(&pod.meta),
            spec: pod.spec.shared.clone(),
            shape,
            class,
            kin: self.peers.class(class).kin,
            priority: pod.spec.priority.unwrap_or(0),
            may_preempt: pod.spec.preemption_policy.as_deref() != Some("Never"),
            state,
            gates: is_gated(pod),
            group: self.groups.as_ref().and_then(|_| group_of(pod)),
            heard: self.heard,
            alive: pod.meta.deletion_timestamp.is_none(),
            is_victim: is_victim(pod),
            nominated: None,
            started: started(pod),
            devices: Devices::of(&pod.meta),
        };
        let id = self.vacant.pop().unwrap_or(self.pods.len() as PodId);
        if id as usize == self.pods.len() {
            self.pods.push(Some(tracked));
        } else {
            self.pods[id as usize] = Some(tracked);
        }
        self.index.insert(key, id);
        self.know_claims(id, class);
        id
    }

    fn add_unbound(&mut self, now: Now, key: ObjectKey, pod: &Pod) {
        if self.profile_of(pod).is_none() || pod.meta.deletion_timestamp.is_some() {
            return;
        }
        let id = self.track(key, pod, State::Gated);
        // This may put it into the queue, with others that it has waited for.
        self.join_group(now, id);
        self.enqueue(now, id);
        if self.tracked(id).state == State::Gated {
            return;
        }
        // An earlier scheduler may have evicted pods for it.
        let nominated = pod.status.nominated_node_name.get().and_then(|name| self.nodes.slot(name));
        if let Some(slot) = nominated {
            self.nominate(id, slot);
        }
    }

    /// Notes which claims a pod of a class has.
    fn know_claims(&mut self, id: PodId, class: ClassId) {
        let class = self.peers.class(class);
        self.volumes.know(&class.claims, id);
        self.dynamic_resources.know(&class.devices, id);
    }

    /// Whether a pod is not tried: it has scheduling gates, a claim for devices that is not there, or a group that is
    /// not, or lacks pods (`PreEnqueue`).
    fn must_wait(&self, id: PodId) -> bool {
        let class = self.peers.class(self.tracked(id).class);
        let counts = class.shape.rules.filters.has(Plugin::DynamicResources);
        let lacks = |claims: &Rc<[DeviceClaim]>| counts && self.dynamic_resources.lacks(claims).is_some();
        self.tracked(id).gates
            || class.devices.as_ref().is_some_and(lacks)
            || self.tracked(id).group.is_some() && self.waits_for_group(id).is_some()
    }

    /// Adds a pod that is on no node to the queue, if it need not wait any longer.
    fn enqueue(&mut self, now: Now, id: PodId) {
        if self.tracked(id).state != State::Gated || self.must_wait(id) {
            return;
        }
        self.tracked_mut(id).state = State::Queued;
        let (class, priority) = (self.tracked(id).class, self.tracked(id).priority);
        self.queue.add(now.mono, id, class, priority);
    }

    /// Handles that a tracked pod is seen without a node.
    fn update_unbound(&mut self, now: Now, id: PodId, pod: &Pod) {
        match self.tracked(id).state {
            // A pod never loses its node, so the view lags.
            State::Assumed(_) | State::Bound(_) => {}
            State::Gated | State::Queued | State::Asked if pod.meta.deletion_timestamp.is_some() => {
                self.drop_pod(now, id)
            }
            State::Gated => {
                self.reclassify(now, id, pod);
                self.enqueue(now, id);
            }
            State::Queued => {
                self.reclassify(now, id, pod);
            }
            State::Asked => {
                self.reclassify(now, id, pod);
                // If it asks for something else by now, it is decided anew.
                self.enqueue(now, id);
            }
        }
    }

    /// Handles that a tracked pod is seen on a node.
    fn update_bound(&mut self, now: Now, id: PodId, pod: &Pod, node: &Rc<str>) {
        match self.tracked(id).state {
            State::Assumed(slot) | State::Bound(slot) => self.update_placed(now, id, pod, (slot, node)),
            State::Queued | State::Asked => {
                let class = self.tracked(id).class;
                if self.queue.remove(id) {
                    self.wake_if_feasible(now, class);
                }
                self.withdraw(id);
                self.tracked_mut(id).state = State::Gated;
                self.reclassify(now, id, pod);
                self.tracked_mut(id).devices = Devices::of(&pod.meta);
                self.count(id, node);
                self.arrived(now, id);
            }
            State::Gated => {
                self.reclassify(now, id, pod);
                self.tracked_mut(id).devices = Devices::of(&pod.meta);
                self.count(id, node);
                self.arrived(now, id);
            }
        }
    }

    /// Handles that a pod that is counted on a slot is seen on a node.
    fn update_placed(&mut self, now: Now, id: PodId, pod: &Pod, (slot, node): (Slot, &Rc<str>)) {
        if let State::Assumed(slot) = self.tracked(id).state {
            self.queue.remove(id);
            self.assumed -= 1;
            self.tracked_mut(id).state = State::Bound(slot);
            if self.volumes.settle(id) {
                self.wake_users(now, |_| true);
            }
            self.settle_devices(now, id);
        }
        if self.tracked(id).started != started(pod) {
            self.tracked_mut(id).started = started(pod);
            self.evictions.started();
        }
        let alive = pod.meta.deletion_timestamp.is_none();
        if self.tracked(id).alive && !alive {
            self.peers.leaving(self.tracked(id).class, slot);
            self.tracked_mut(id).alive = false;
            let kin = self.tracked(id).kin;
            self.left(now, Events::NONE, slot, kin);
        }
        self.tracked_mut(id).is_victim |= is_victim(pod);
        let (before, shape) = (Rc::clone(&self.tracked(id).meta), self.tracked(id).shape);
        let same_meta = Rc::ptr_eq(&before, &pod.meta) || before.labels == pod.meta.labels;
        let same_devices = self.tracked(id).devices == Devices::of(&pod.meta);
        if same_meta && same_devices && self.nodes.name(slot) == node {
            let now_shape = self.shape(pod);
            self.shapes.release(now_shape);
            if now_shape == shape {
                // Most updates of a running pod change nothing that is counted.
                self.tracked_mut(id).meta = Rc::clone(&pod.meta);
                return;
            }
        }
        let kin = self.tracked(id).kin;
        self.uncount(id, slot);
        // Set first, so that counters that are made below do not count the pod.
        self.tracked_mut(id).state = State::Gated;
        self.left(now, Events::ASSIGNED_POD_DELETE.and(Events::ASSIGNED_POD_SCALE_DOWN), slot, kin);
        self.reclassify(now, id, pod);
        self.tracked_mut(id).devices = Devices::of(&pod.meta);
        self.count(id, node);
        self.arrived(now, id);
        self.happened(now, Events::ASSIGNED_POD_DELETE.and(Events::ASSIGNED_POD_SCALE_DOWN), slot);
    }

    /// Updates the shape, class and priority of a pod that is on no node.
    fn reclassify(&mut self, now: Now, id: PodId, pod: &Pod) {
        let (old_shape, old_class, old_priority) =
            (self.tracked(id).shape, self.tracked(id).class, self.tracked(id).priority);
        let (shape, class) = self.classify(pod);
        let kin = self.peers.class(class).kin;
        let priority = pod.spec.priority.unwrap_or(0);
        let nominated = if (class, priority) == (old_class, old_priority) { None } else { self.withdraw(id) };
        let tracked = self.tracked_mut(id);
        (tracked.meta, tracked.spec, tracked.gates) = (Rc::clone(&pod.meta), pod.spec.shared.clone(), is_gated(pod));
        (tracked.shape, tracked.class, tracked.kin, tracked.priority) = (shape, class, kin, priority);
        self.know_claims(id, class);
        if let Some(slot) = nominated {
            self.nominate(id, slot);
        }
        let changed = (class, priority) != (old_class, old_priority);
        let wake = match self.tracked(id).state {
            State::Queued => changed && self.queue.update(now.mono, id, class, priority),
            State::Asked if changed => {
                self.tracked_mut(id).state = State::Gated;
                self.queue.remove(id)
            }
            State::Asked | State::Gated | State::Assumed(_) | State::Bound(_) => false,
        };
        if wake {
            self.wake_if_feasible(now, old_class);
        }
        self.peers.release(old_class);
        self.shapes.release(old_shape);
    }

    fn drop_pod(&mut self, now: Now, id: PodId) {
        let (state, class, kin) = (self.tracked(id).state, self.tracked(id).class, self.tracked(id).kin);
        let nominated = self.withdraw(id);
        let mut freed = None;
        let mut wake = false;
        match state {
            State::Gated => {}
            State::Queued | State::Asked => wake = self.queue.remove(id),
            State::Assumed(slot) => {
                self.queue.remove(id);
                self.uncount(id, slot);
                freed = Some(slot);
            }
            State::Bound(slot) => {
                self.uncount(id, slot);
                freed = Some(slot);
            }
        }
        if wake {
            self.wake_if_feasible(now, class);
        }
        let gone = self.pods[id as usize].take().expect("it was there above");
        self.index.remove(&gone.key);
        self.vacant.push(id);
        self.leave_group(gone.group.as_ref(), id);
        if let Some(slot) = freed {
            self.left(now, Events::ASSIGNED_POD_DELETE, slot, kin);
            self.free_volumes(now, id, class);
        }
        self.volumes.forget(id);
        self.dynamic_resources.forget(id);
        if let Some(slot) = nominated {
            self.happened(now, Events::ASSIGNED_POD_DELETE, slot);
        }
        self.peers.release(class);
        self.shapes.release(gone.shape);
    }

    /// Counts a pod on a node.
    fn count(&mut self, id: PodId, node: &str) {
        let (class, alive) = (self.tracked(id).class, self.tracked(id).alive);
        let devices = self.tracked(id).devices;
        let slot = self.nodes.add_pod(node, self.shapes.get(self.tracked(id).shape), devices);
        self.tracked_mut(id).state = State::Bound(slot);
        if self.on.len() <= slot as usize {
            self.on.resize_with(slot as usize + 1, Vec::new);
        }
        self.on[slot as usize].push(id);
        self.peers.place(class, slot, alive, 1);
        self.volumes.place(&self.peers.class(class).claims, id, slot, true);
    }

    /// The pods on a slot.
    fn there(&self, slot: Slot) -> &[PodId] {
        self.on.get(slot as usize).map_or(&[], Vec::as_slice)
    }

    /// Stops counting a pod on its node.
    fn uncount(&mut self, id: PodId, slot: Slot) {
        let tracked = self.tracked(id);
        let assumed = matches!(tracked.state, State::Assumed(_));
        let (class, alive, devices) = (tracked.class, tracked.alive, tracked.devices);
        let shape = self.shapes.get(tracked.shape);
        self.nodes.remove_pod(slot, shape, devices);
        let here = &mut self.on[slot as usize];
        let at = here.iter().rposition(|pod| *pod == id).expect("a counted pod is on its slot");
        here.swap_remove(at);
        self.peers.place(class, slot, alive, -1);
        self.volumes.place(&self.peers.class(class).claims, id, slot, false);
        self.assumed -= usize::from(assumed);
    }
}

/// The name of the scheduler that is to place a pod.
pub fn scheduler_of(pod: &Pod) -> &str {
    pod.spec.scheduler_name.as_deref().filter(|name| !name.is_empty()).unwrap_or(DEFAULT_SCHEDULER)
}

fn is_gated(pod: &Pod) -> bool {
    pod.spec.scheduling_gates.as_ref().is_some_and(|gates| !gates.is_empty())
}

/// Whether a pod is being deleted to make room for another (`podTerminatingByPreemption`).
fn is_victim(pod: &Pod) -> bool {
    let target = || pod.status.conditions.iter().find(|c| c.type_ == *"DisruptionTarget");
    pod.meta.deletion_timestamp.is_some()
        && target().is_some_and(|c| c.status == Text::TRUE && c.reason == *"PreemptionByScheduler")
}

/// When a pod started, in seconds; `i64::MAX` if it has not.
fn started(pod: &Pod) -> i64 {
    pod.status.start_time.to_time().map_or(i64::MAX, |t| t.0.as_second())
}

#[cfg(test)]
mod reference;
#[cfg(test)]
mod tests;
