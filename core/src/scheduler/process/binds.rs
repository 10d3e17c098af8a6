//! Binds whose outcome is not certain yet.
//!
//! A bind is followed until the store says what came of it. If its reply is lost, or says that the pod has changed, the
//! pod is read after a back-off.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use super::retry_after;
use crate::api::ReqId;
use crate::machine::{Deadline, Mono, Now};
use crate::object::ObjectKey;

/// How far a bind has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Step {
    /// The request was sent.
    Binding(ReqId),
    /// Its outcome is unknown; the pod is read at this time.
    Doubtful(Mono),
    /// The pod is being read.
    Reading(ReqId),
    /// The pod's claims are being bound first, until this time at most.
    Volumes(Mono),
    /// The pod's claims for devices are being written first.
    Claims,
    /// The pod waits for others of its gang.
    Gang,
    /// An extender was asked to bind the pod, by the question of this number.
    Extender(u64),
}

/// A bind whose outcome is not certain yet.
#[derive(Debug)]
pub(super) struct Bind {
    /// The pod's UID.
    pub(super) uid: Rc<str>,
    /// The node that it is bound to.
    pub(super) node: Rc<str>,
    step: Step,
    /// Whether an extender was asked, so that it is not for this process to send it again.
    pub(super) by_extender: bool,
    /// How often its outcome was unknown since it was first sent.
    failures: u32,
}

impl Bind {
    /// Whether the pod's claims are being bound first.
    pub(super) fn waits_for_volumes(&self) -> bool {
        matches!(self.step, Step::Volumes(_))
    }

    /// Whether the pod's claims for devices are being written first.
    pub(super) fn waits_for_claims(&self) -> bool {
        matches!(self.step, Step::Claims)
    }

    /// Whether the pod waits for nothing but others of its gang.
    pub(super) fn is_ready(&self) -> bool {
        self.step == Step::Gang
    }

    /// Whether it waits for the answer to this question.
    pub(super) fn waits_for(&self, question: u64) -> bool {
        self.step == Step::Extender(question)
    }

    /// The request that it waits for.
    pub(super) fn request(&self) -> Option<ReqId> {
        match self.step {
            Step::Binding(id) | Step::Reading(id) => Some(id),
            Step::Doubtful(_) | Step::Volumes(_) | Step::Claims | Step::Gang | Step::Extender(_) => None,
        }
    }
}

/// All such binds, by pod.
#[derive(Debug, Default)]
pub(super) struct Binds {
    binds: BTreeMap<ObjectKey, Bind>,
    /// The doubtful ones by when their pods are read.
    doubtful: BTreeSet<(Mono, ObjectKey)>,
    /// Those that wait for claims, by until when.
    volumes: BTreeSet<(Mono, ObjectKey)>,
}

impl Binds {
    /// The bind of a pod.
    pub(super) fn get(&self, pod: &ObjectKey) -> Option<&Bind> {
        self.binds.get(pod)
    }

    /// Whether a pod's bind is sent again, since what came of it before is unknown.
    pub(super) fn is_again(&self, pod: &ObjectKey) -> bool {
        self.binds.get(pod).is_some_and(|bind| bind.failures > 0)
    }

    /// The pods, in order.
    pub(super) fn pods(&self) -> impl Iterator<Item = &ObjectKey> {
        self.binds.keys()
    }

    /// How many of the binds are doubtful and not being read.
    pub(super) fn doubtful(&self) -> usize {
        self.doubtful.len()
    }

    /// Records that a bind is sent, for the first time or again.
    pub(super) fn sent(&mut self, pod: ObjectKey, uid: Rc<str>, node: Rc<str>, request: ReqId) {
        let failures = self.binds.get(&pod).map_or(0, |b| b.failures);
        self.binds.insert(pod, Bind { uid, node, step: Step::Binding(request), by_extender: false, failures });
    }

    /// Records that a pod's claims are bound before the pod is, until a time at most.
    pub(super) fn waits(&mut self, pod: ObjectKey, uid: Rc<str>, node: Rc<str>, until: Mono) {
        self.volumes.insert((until, pod.clone()));
        self.binds.insert(pod, Bind { uid, node, step: Step::Volumes(until), by_extender: false, failures: 0 });
    }

    /// Records that a pod's claims for devices are written before the pod is bound.
    pub(super) fn waits_for_devices(&mut self, pod: ObjectKey, uid: Rc<str>, node: Rc<str>) {
        self.binds.insert(pod, Bind { uid, node, step: Step::Claims, by_extender: false, failures: 0 });
    }

    /// Records that a pod waits for others of its gang before it is bound.
    pub(super) fn waits_for_gang(&mut self, pod: ObjectKey, uid: Rc<str>, node: Rc<str>) {
        self.binds.insert(pod, Bind { uid, node, step: Step::Gang, by_extender: false, failures: 0 });
    }

    /// Records that an extender is asked to bind a pod.
    pub(super) fn asked(&mut self, pod: ObjectKey, uid: Rc<str>, node: Rc<str>, question: u64) {
        let step = Step::Extender(question);
        self.binds.insert(pod, Bind { uid, node, step, by_extender: true, failures: 0 });
    }

    /// The pods whose claims are being bound.
    pub(super) fn waiting(&self) -> impl Iterator<Item = &ObjectKey> {
        self.volumes.iter().map(|(_, pod)| pod)
    }

    /// A pod whose claims were not bound in time.
    pub(super) fn overdue(&self, now: Now) -> Option<ObjectKey> {
        self.volumes.first().filter(|(until, _)| *until <= now.mono).map(|(_, pod)| pod.clone())
    }

    /// Records that the outcome of a pod's bind is unknown.
    pub(super) fn doubt(&mut self, now: Now, pod: &ObjectKey) {
        let Some(bind) = self.binds.get_mut(pod) else { return };
        let at = now.mono + retry_after(bind.failures);
        bind.failures = bind.failures.saturating_add(1);
        bind.step = Step::Doubtful(at);
        self.doubtful.insert((at, pod.clone()));
    }

    /// A pod that must be read now. The caller reads it and calls [`Binds::reading`].
    pub(super) fn pop_doubtful(&mut self, now: Now) -> Option<ObjectKey> {
        self.doubtful.first().filter(|(at, _)| *at <= now.mono)?;
        self.doubtful.pop_first().map(|(_, pod)| pod)
    }

    /// Records that a pod is being read.
    pub(super) fn reading(&mut self, pod: &ObjectKey, request: ReqId) {
        self.binds.get_mut(pod).expect("only a pod that is being bound is doubtful").step = Step::Reading(request);
    }

    /// Forgets a bind.
    pub(super) fn remove(&mut self, pod: &ObjectKey) -> Option<Bind> {
        let bind = self.binds.remove(pod)?;
        match bind.step {
            Step::Doubtful(at) => self.doubtful.remove(&(at, pod.clone())),
            Step::Volumes(until) => self.volumes.remove(&(until, pod.clone())),
            Step::Binding(_) | Step::Reading(_) | Step::Claims | Step::Gang | Step::Extender(_) => false,
        };
        Some(bind)
    }

    /// When the next pod must be read.
    pub(super) fn poll_timeout(&self) -> Option<Deadline> {
        let doubt = self.doubtful.first().map(|(at, _)| Deadline { at: *at, why: "read doubtful pod" });
        let volumes = self.volumes.first().map(|(at, _)| Deadline { at: *at, why: "claims are not bound" });
        Deadline::earlier(doubt, volumes)
    }
}
