//! All pods of a node: which ones exist, which pod an event belongs to, and the deadline of each pod.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;
use std::time::Duration;

use k8s_openapi::api::core::v1 as core_v1;

use super::Out;
use super::admission::{Cause, Rejection, pod_requests};
use super::adopt::{Found, by_pod};
use super::pod::{Ctx, NODE_SLOT, OP_BITS, PodState, Shared, What};
use super::pressure::{Candidate, EVICTED, Eviction};
use super::runtime::{
    ContainerId, ContainerInfo, ContainerState, ImageInfo, OpId, RuntimeCommand, RuntimeError, RuntimeEvent, SandboxId,
    SandboxInfo,
};
use crate::api::{FromServer, ReqId, Response, Status};
use crate::client::{Change, EventType, View};
use crate::limits::{GONE_PODS, RUNTIME_REQUEST_TIMEOUT};
use crate::machine::{Deadline, Mono, Now};
use crate::object::{Labels, Object, Pod, Revision, pod_phase};
use crate::volume::has_claims;

/// Delay between two requests for the runtime's list while something is in doubt.
const LIST_PAUSE: Duration = Duration::from_secs(1);

/// State of the request for the runtime's list.
#[derive(Debug)]
struct Listing {
    /// The request in flight: the command and its deadline.
    asked: Option<(OpId, Mono)>,
    not_before: Mono,
    /// Interval at which the list is read even if nothing is in doubt; zero means never.
    interval: Duration,
    next: Option<Mono>,
}

/// All pods of a node.
#[derive(Debug)]
pub(super) struct Pods {
    pub(super) shared: Shared,
    slots: Vec<Option<Box<PodState>>>,
    free: Vec<u32>,
    by_uid: BTreeMap<Rc<str>, u32>,
    timers: BTreeSet<(Mono, u32)>,
    /// UIDs of pods that are gone for good, so that a stale view does not bring them back.
    gone: VecDeque<Rc<str>>,
    listing: Listing,
    /// The runtime's first list, kept until the view is synced.
    found: Option<BTreeMap<Rc<str>, Found>>,
    /// The runtime's list and the view are both known, so pods are acted on.
    begun: bool,
    /// The runtime has answered, and does not any more.
    unreachable: bool,
}

impl Pods {
    pub(super) fn new(shared: Shared, relist_interval: Duration) -> Pods {
        Pods {
            shared,
            slots: Vec::new(),
            free: Vec::new(),
            by_uid: BTreeMap::new(),
            timers: BTreeSet::new(),
            gone: VecDeque::new(),
            listing: Listing { asked: None, not_before: Mono::ZERO, interval: relist_interval, next: Some(Mono::ZERO) },
            found: None,
            begun: false,
            unreachable: false,
        }
    }

    /// Whether the runtime has replied, and has not been lost since.
    pub(super) fn runtime_is_up(&self) -> bool {
        (self.begun || self.found.is_some()) && !self.unreachable
    }

    /// Handles a message for the view of Services. Containers wait until it is complete.
    pub(super) fn tell_services(&mut self, now: Now, message: &FromServer, out: &mut Vec<Out>) {
        let Some(services) = &mut self.shared.services else { return };
        let mut requests = Vec::new();
        let complete = services.handle(now, message, &mut requests);
        out.extend(requests.into_iter().map(Out::Api));
        for slot in (0..self.slots.len() as u32).filter(|_| complete) {
            self.with(slot, now, out, |_, _| {});
        }
    }

    /// Does what is due for the view of Services.
    pub(super) fn services_timeout(&mut self, now: Now, out: &mut Vec<Out>) {
        let Some(services) = &mut self.shared.services else { return };
        if services.poll_timeout().is_some_and(|d| d.at <= now.mono) {
            let mut requests = Vec::new();
            services.handle_timeout(now, &mut requests);
            out.extend(requests.into_iter().map(Out::Api));
        }
    }

    /// Starts acting on pods once both the runtime's list and the view are known.
    pub(super) fn begin(&mut self, now: Now, view: &View, out: &mut Vec<Out>) {
        if self.begun || !view.is_synced() {
            return;
        }
        let Some(mut found) = self.found.take() else { return };
        self.begun = true;
        let mut pods: Vec<Pod> = view.iter().filter_map(|(_, o)| o.get().cloned()).collect();
        // Pods that are already here keep their place; the others follow in order of creation.
        pods.sort_by_cached_key(|p| {
            let here = p.status.start_time.is_some() || found.contains_key(p.uid());
            (!here, created(p), p.name().to_owned())
        });
        self.shared.adopting = true;
        for pod in pods {
            let there = found.remove(pod.uid()).unwrap_or_default();
            self.add(pod, there, now, out);
        }
        self.shared.adopting = false;
        self.add_orphans(found, now, out);
    }

    /// Handles changes of the view.
    pub(super) fn view_changed(&mut self, now: Now, view: &View, changes: Vec<Change>, out: &mut Vec<Out>) {
        if !self.begun {
            return self.begin(now, view, out);
        }
        let mut new = Vec::new();
        for change in changes {
            let old = change.old.as_ref().and_then(Object::get::<core_v1::Pod>);
            let pod = change.new.as_ref().and_then(Object::get::<core_v1::Pod>);
            if let Some(old) = old.filter(|o| pod.is_none_or(|p| p.uid() != o.uid())) {
                self.removed(old.uid(), view.revision(), now, out);
            }
            let Some(pod) = pod else { continue };
            match self.by_uid.get(pod.uid()) {
                Some(slot) => self.with(*slot, now, out, |state, _| {
                    state.in_view = true;
                    state.newer(pod.clone());
                }),
                None => new.push(pod.clone()),
            }
        }
        new.sort_by_cached_key(|p| (created(p), p.name().to_owned()));
        for pod in new {
            self.add(pod, Found::default(), now, out);
        }
    }

    fn removed(&mut self, uid: &str, revision: Revision, now: Now, out: &mut Vec<Out>) {
        let Some(slot) = self.by_uid.get(uid).copied() else { return };
        self.with(slot, now, out, |state, ctx| {
            state.in_view = false;
            if revision < state.pod.rv {
                // The view went back to a revision before this pod's, so it cannot say that the pod is gone: ask the
                // API.
                state.write.read_again();
            } else {
                state.vanished(ctx);
            }
        });
    }

    fn slot(&mut self) -> u32 {
        self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            let slot = self.slots.len() as u32 - 1;
            assert!(slot < NODE_SLOT, "a node never has sixteen million pods");
            slot
        })
    }

    /// Adds a pod, with what the runtime already has of it.
    fn add(&mut self, pod: Pod, found: Found, now: Now, out: &mut Vec<Out>) {
        if self.by_uid.contains_key(pod.uid()) || self.gone.iter().any(|g| **g == *pod.uid()) {
            return;
        }
        let slot = self.slot();
        let mut state = Box::new(PodState::new(slot, pod));
        let same_name = |o: &PodState| o.pod.name() == state.pod.name() && o.pod.namespace() == state.pod.namespace();
        state.has_predecessor = self.slots.iter().flatten().any(|o| same_name(o));
        self.admit(&mut state, &found);
        self.place(state);
        self.with(slot, now, out, |state, ctx| {
            let here = !found.sandboxes.is_empty() || !found.containers.is_empty();
            if here && has_claims(&state.pod.spec) {
                ctx.shared.attachments.doubt(slot);
            }
            if here || state.pod.status.start_time.is_some() {
                state.adopt(found, ctx);
            }
            if let Some(r) = state.rejection.clone() {
                state.event(ctx, EventType::Warning, &r.reason, || r.message.clone());
            }
        });
    }

    /// Admits a pod. A pod that was admitted before keeps its place; a new one must fit.
    fn admit(&mut self, state: &mut PodState, found: &Found) {
        let here = !found.containers.is_empty() || !found.sandboxes.is_empty();
        let ended =
            matches!(pod_phase(&state.pod), "Succeeded" | "Failed") || state.pod.meta.deletion_timestamp.is_some();
        if ended && !here {
            return;
        }
        let spec = state.pod.spec.shared.clone();
        let asks = state.resized.as_ref().map_or_else(|| pod_requests(&spec), |resized| resized.requests());
        let known = here || state.pod.status.start_time.is_some();
        let shared = &mut self.shared;
        let fits = if known {
            Ok(())
        } else {
            // Before the Node is registered, the labels with which it will be registered are used.
            let labels = shared.node_meta.as_ref().map_or_else(
                || Cow::Owned(shared.config.node_labels()),
                |meta| meta.labels.as_ref().map_or_else(|| Cow::Owned(Labels::new()), Cow::Borrowed),
            );
            match shared.pressure.refuses(&spec) {
                Some(rejection) => Err(rejection),
                None => shared.room.check(&spec, &asks, &shared.config.node_name, Some(&labels)),
            }
        };
        match fits {
            Ok(()) => {
                shared.room.take(&spec, &asks);
                state.asks = Some(Box::new(asks));
                state.admitted = true;
            }
            Err(rejection) => state.rejection = Some(Box::new(rejection)),
        }
    }

    fn place(&mut self, state: Box<PodState>) {
        let slot = state.slot;
        self.by_uid.insert(Rc::clone(&state.uid), slot);
        let place = &mut self.slots[slot as usize];
        assert!(place.is_none(), "a slot holds one pod");
        *place = Some(state);
    }

    /// Adds pods that the runtime has and the view does not. The view may be stale, so the API is asked before they are
    /// stopped and removed.
    fn add_orphans(&mut self, found: BTreeMap<Rc<str>, Found>, now: Now, out: &mut Vec<Out>) {
        for (uid, found) in found {
            let slot = self.slot();
            self.place(Box::new(PodState::orphan(slot, &uid, found)));
            self.shared.attachments.doubt(slot);
            self.with(slot, now, out, |_, _| {});
        }
    }

    /// Applies a function to a pod, then syncs the pod and its timer.
    fn with(&mut self, slot: u32, now: Now, out: &mut Vec<Out>, f: impl FnOnce(&mut PodState, &mut Ctx<'_>)) {
        let Some(mut state) = self.slots.get_mut(slot as usize).and_then(Option::take) else { return };
        let mut ctx = Ctx { now, shared: &mut self.shared, out };
        f(&mut state, &mut ctx);
        state.sync(&mut ctx);
        if let Some(pod) = state.verified.take() {
            let found = state.unverified.take().map(|f| *f).unwrap_or_default();
            self.release(&state);
            self.add(*pod, found, now, out);
            // What the runtime's list showed may have changed while the API was asked.
            self.shared.wants_list = true;
        } else if state.is_gone() {
            self.forget(*state, now, out);
        } else {
            self.set_timer(&mut state, now);
            self.slots[slot as usize] = Some(state);
        }
        self.ask_if_in_doubt(now, out);
    }

    fn set_timer(&mut self, state: &mut PodState, now: Now) {
        // Everything that is due was just done, so the next deadline is in the future; otherwise a deadline that stays
        // due would make the driver spin.
        let earliest = now.mono + Duration::from_millis(1);
        let next = state.next_deadline().map(|(at, why)| (at.max(earliest), why));
        if next != state.deadline {
            if let Some((at, _)) = state.deadline {
                self.timers.remove(&(at, state.slot));
            }
            if let Some((at, _)) = next {
                self.timers.insert((at, state.slot));
            }
            state.deadline = next;
        }
    }

    /// Removes a pod from all tables.
    fn release(&mut self, state: &PodState) {
        if let Some((at, _)) = state.deadline {
            self.timers.remove(&(at, state.slot));
        }
        if let Some(id) = state.write.request_in_flight() {
            self.shared.requests.remove(&id);
        }
        if state.refers {
            self.shared.references.release(state.slot);
        }
        self.shared.attachments.release(state.slot);
        self.by_uid.remove(&state.uid);
        self.free.push(state.slot);
    }

    fn forget(&mut self, state: PodState, now: Now, out: &mut Vec<Out>) {
        self.release(&state);
        if self.gone.len() == GONE_PODS {
            self.gone.pop_front();
        }
        self.gone.push_back(state.uid);
        let (namespace, name) = (state.pod.namespace(), state.pod.name());
        let is_heir = |o: &PodState| o.has_predecessor && o.pod.name() == name && o.pod.namespace() == namespace;
        let heirs: Vec<u32> = self.slots.iter().flatten().filter(|o| is_heir(o)).map(|o| o.slot).collect();
        if let [heir] = heirs[..] {
            self.with(heir, now, out, |state, _| state.has_predecessor = false);
        } else if let Some(first) = heirs.first() {
            // If several pods with one name wait, they follow one after the other.
            self.with(*first, now, out, |state, _| state.has_predecessor = false);
        }
    }

    /// Handles an event from the runtime.
    pub(super) fn runtime_event(&mut self, now: Now, view: &View, event: RuntimeEvent, out: &mut Vec<Out>) {
        match event {
            RuntimeEvent::Listed { op, sandboxes, containers, images } => {
                self.listed(op, (sandboxes, containers, images), now, view, out);
            }
            RuntimeEvent::Pulled { op, result } => self.pulled(op, result, now, out),
            RuntimeEvent::Exited { container, state } => self.exited(container, state, now, out),
            RuntimeEvent::SandboxGone { sandbox } => self.sandbox_gone(&sandbox, now, out),
            // They are about no pod.
            RuntimeEvent::StatsRead { .. }
            | RuntimeEvent::DirectoryDone { .. }
            | RuntimeEvent::ImagesListed { .. }
            | RuntimeEvent::Measured { .. }
            | RuntimeEvent::ImageRemoved { .. } => {}
            RuntimeEvent::Reachable(reachable) => self.unreachable = !reachable,
            RuntimeEvent::SandboxRunning { op, .. }
            | RuntimeEvent::SandboxStopped { op, .. }
            | RuntimeEvent::SandboxRemoved { op, .. }
            | RuntimeEvent::Mounted { op, .. }
            | RuntimeEvent::Unmounted { op, .. }
            | RuntimeEvent::Created { op, .. }
            | RuntimeEvent::Started { op, .. }
            | RuntimeEvent::Stopped { op, .. }
            | RuntimeEvent::Removed { op, .. }
            | RuntimeEvent::Updated { op, .. }
            | RuntimeEvent::Probed { op, .. } => {
                let slot = (op.0 >> OP_BITS) as u32;
                if self.slots.get(slot as usize).is_some_and(Option::is_some) {
                    self.with(slot, now, out, |state, ctx| state.completed(op, event, ctx));
                } else if !matches!(event, RuntimeEvent::Probed { .. } | RuntimeEvent::Stopped { .. }) {
                    self.shared.wants_list = true;
                    self.ask_if_in_doubt(now, out);
                }
            }
        }
    }

    fn exited(&mut self, id: ContainerId, state: ContainerState, now: Now, out: &mut Vec<Out>) {
        if let Some((slot, i)) = self.shared.containers.get(&id).copied() {
            self.with(slot, now, out, |pod, ctx| pod.runtime_exit(usize::from(i), &id, state, ctx));
        } else if let Some(found) = &mut self.found {
            let mut all = found.values_mut().flat_map(|f| &mut f.containers);
            if let Some(info) = all.find(|c| c.id == id) {
                info.state = state;
            }
        }
    }

    fn sandbox_gone(&mut self, id: &SandboxId, now: Now, out: &mut Vec<Out>) {
        let slot = self.slots.iter().flatten().find(|p| p.sandbox.id.as_ref() == Some(id)).map(|p| p.slot);
        if let Some(slot) = slot {
            self.with(slot, now, out, |pod, ctx| pod.sandbox_gone(ctx));
        } else if let Some(found) = &mut self.found {
            found.values_mut().flat_map(|f| &mut f.sandboxes).filter(|s| s.id == *id).for_each(|s| s.ready = false);
        }
    }

    fn pulled(&mut self, op: OpId, result: Result<ImageInfo, RuntimeError>, now: Now, out: &mut Vec<Out>) {
        let Some(ended) = self.shared.images.ended(op, result.as_ref().ok()) else { return };
        for (slot, i) in ended.waiters {
            self.with(slot, now, out, |pod, ctx| pod.pulled(i, ended.since, &result, ctx));
        }
    }

    /// Handles the runtime's list.
    fn listed(
        &mut self,
        op: OpId,
        (sandboxes, containers, images): (Vec<SandboxInfo>, Vec<ContainerInfo>, Vec<ImageInfo>),
        now: Now,
        view: &View,
        out: &mut Vec<Out>,
    ) {
        if self.listing.asked.take_if(|(id, _)| *id == op).is_none() {
            return;
        }
        self.listing.not_before = now.mono + LIST_PAUSE;
        self.listing.next =
            (!self.listing.interval.is_zero()).then(|| now.mono + self.shared.rng.jitter(self.listing.interval, 10));
        self.shared.images.listed(images);
        let mut found = by_pod(sandboxes, containers);
        if !self.begun {
            self.found = Some(found);
            return self.begin(now, view, out);
        }
        self.shared.wants_list = false;
        let number = op.0 & ((1 << OP_BITS) - 1);
        for slot in 0..self.slots.len() as u32 {
            let Some(state) = &self.slots[slot as usize] else { continue };
            let there = found.remove(&state.uid).unwrap_or_default();
            let busy =
                state.ops.iter().any(|o| !matches!(o.what, What::Probe(..) | What::RemoveContainer | What::Update(..)));
            if busy || state.touched >= number {
                // The list may be older than this pod's state.
                self.shared.wants_list |= state.suspect;
            } else if state.suspect || !state.ending.finished {
                self.with(slot, now, out, |pod, ctx| pod.reconcile(there, ctx));
            }
        }
        self.add_orphans(found, now, out);
        self.ask_if_in_doubt(now, out);
    }

    /// The pods that are not ending.
    pub(super) fn candidates(&self) -> Vec<Candidate<'_>> {
        let there = self.slots.iter().flatten().filter(|pod| pod.admitted && pod.ending.stop.is_none() && pod.in_api);
        let there =
            there.filter(|pod| pod.unverified.is_none() && !matches!(pod_phase(&pod.pod), "Succeeded" | "Failed"));
        there.map(|pod| Candidate { slot: pod.slot, uid: &pod.uid, pod: &pod.pod }).collect()
    }

    /// Whether any of these pods is still ending.
    pub(super) fn are_ending(&self, uids: &[Rc<str>]) -> bool {
        let slots = uids.iter().filter_map(|uid| self.by_uid.get(uid));
        slots.filter_map(|slot| self.slots[*slot as usize].as_ref()).any(|pod| !pod.ending.finished)
    }

    /// Evicts a pod.
    pub(super) fn evict(&mut self, eviction: Eviction, now: Now, out: &mut Vec<Out>) {
        self.with(eviction.slot, now, out, |state, ctx| {
            let Eviction { message, is_for_node, .. } = eviction;
            state.event(ctx, EventType::Warning, EVICTED, || message.clone());
            let cause = if is_for_node { Cause::Pressure } else { Cause::Limit };
            state.rejection = Some(Box::new(Rejection { cause, reason: EVICTED.to_owned(), message }));
        });
    }

    /// Has the runtime's list read again.
    pub(super) fn list_again(&mut self, now: Now, out: &mut Vec<Out>) {
        self.shared.wants_list = true;
        self.ask_if_in_doubt(now, out);
    }

    fn ask_if_in_doubt(&mut self, now: Now, out: &mut Vec<Out>) {
        if self.shared.wants_list && self.listing.asked.is_none() && self.listing.not_before <= now.mono {
            self.ask(now, out);
        }
    }

    fn ask(&mut self, now: Now, out: &mut Vec<Out>) {
        let op = self.shared.op(NODE_SLOT);
        self.shared.wants_list = false;
        self.listing.next = None;
        self.listing.asked = Some((op, now.mono + RUNTIME_REQUEST_TIMEOUT));
        out.push(Out::Runtime(RuntimeCommand::List { op }));
    }

    /// Handles the API's reply to a request about a pod.
    pub(super) fn replied(&mut self, now: Now, id: ReqId, result: Result<Response, Status>, out: &mut Vec<Out>) {
        if let Some(slot) = self.shared.requests.remove(&id) {
            self.with(slot, now, out, |pod, ctx| pod.replied(id, result, ctx));
        }
    }

    /// Handles the API's reply to a read of an object that pods refer to.
    pub(super) fn reference_replied(
        &mut self,
        now: Now,
        id: ReqId,
        result: Result<Response, Status>,
        out: &mut Vec<Out>,
    ) {
        for slot in self.shared.references.replied(now, id, result) {
            self.with(slot, now, out, |_, _| {});
        }
    }

    /// The attachable volumes that the node uses; the second value says whether those that it used before may be among
    /// them.
    pub(super) fn volumes_in_use(&self) -> (Vec<String>, bool) {
        let (names, more) = self.shared.attachments.in_use();
        (names, more || !self.begun)
    }

    /// Handles which volumes the node's status says are in use, and which are attached.
    pub(super) fn volumes_told(
        &mut self,
        now: Now,
        told: &BTreeSet<String>,
        attached: &[core_v1::AttachedVolume],
        out: &mut Vec<Out>,
    ) {
        for slot in self.shared.attachments.told(told, attached) {
            self.with(slot, now, out, |_, _| {});
        }
    }

    /// Handles the loss of the connection to the API.
    pub(super) fn disconnected(&mut self, now: Now, out: &mut Vec<Out>) {
        self.shared.references.disconnected(now);
        let slots: BTreeSet<u32> = std::mem::take(&mut self.shared.requests).into_values().collect();
        for slot in slots {
            self.with(slot, now, out, |pod, ctx| pod.lost_connection(ctx));
        }
    }

    /// Does whatever is due.
    pub(super) fn handle_timeout(&mut self, now: Now, out: &mut Vec<Out>) {
        if let Some((_, at)) = self.listing.asked {
            if at <= now.mono {
                self.listing.asked = None;
                self.listing.not_before = now.mono + LIST_PAUSE;
                self.shared.wants_list = true;
            }
        } else if self.listing.next.is_some_and(|at| at <= now.mono) {
            self.ask(now, out);
        }
        self.ask_if_in_doubt(now, out);
        while let Some(op) = self.shared.images.overdue(now.mono) {
            let late = RuntimeError { reason: "ErrImagePull".into(), message: "context deadline exceeded".into() };
            self.pulled(op, Err(late), now, out);
        }
        if self.shared.references.deadline().is_some_and(|at| at <= now.mono) {
            for slot in self.shared.references.handle_timeout(now) {
                self.with(slot, now, out, |_, _| {});
            }
        }
        // A pod that was processed gets a deadline in the future, so this loop ends.
        while let Some((_, slot)) = self.timers.first().copied().filter(|(at, _)| *at <= now.mono) {
            self.with(slot, now, out, |_, _| {});
        }
    }

    /// When `handle_timeout` is next needed, and why.
    #[inline(always)]
    pub(super) fn poll_timeout(&self) -> Option<Deadline> {
        let pod = self.timers.first().map(|(at, slot)| {
            let why = self.slots[*slot as usize].as_ref().and_then(|p| p.deadline).map_or("look at a pod", |d| d.1);
            Deadline { at: *at, why }
        });
        let list = match (&self.listing.asked, self.listing.next) {
            (Some((_, at)), _) => Some(Deadline { at: *at, why: "list of the container runtime is overdue" }),
            (None, _) if self.shared.wants_list => {
                Some(Deadline { at: self.listing.not_before, why: "list the container runtime in doubt" })
            }
            (None, next) => next.map(|at| Deadline { at, why: "list the container runtime" }),
        };
        let pull = self.shared.images.deadline().map(|at| Deadline { at, why: "image pull is overdue" });
        let read = self.shared.references.deadline().map(|at| Deadline { at, why: "read what a pod refers to" });
        Deadline::earlier(Deadline::earlier(pod, list), Deadline::earlier(pull, read))
    }

    /// How many pods the agent manages.
    pub(super) fn len(&self) -> usize {
        self.by_uid.len()
    }
}

fn created(pod: &Pod) -> i64 {
    pod.meta.creation_timestamp.as_ref().map_or(i64::MAX, |t| t.0.as_second())
}
