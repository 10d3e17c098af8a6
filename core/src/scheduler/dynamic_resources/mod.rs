//! DynamicResources: what pods with claims for devices ask of nodes, and which devices their claims get.
//!
//! What comes in: claims, classes and slices (`resource.k8s.io`), and which pods use claims. What goes out: why a node
//! is none for such a pod, and what has to be written before the pod is bound ([`ClaimStep`]). What never happens: a
//! device is given to two claims, also while the choice is in no view yet, or nobody knows whether it was written.
//!
//! A pod waits outside of the queue until its claims are there (`PreEnqueue`). Where kube-scheduler ends an attempt
//! with an error, as for an expression that fails, the node is refused with that text. A pod that is scheduled again
//! keeps its reservations meanwhile. Pods with extended resources that a class stands for are not here.
//!
//! Source: `plugins/dynamicresources`.

mod allocator;
mod ask;
mod pools;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use k8s_openapi::api::core::v1::NodeSelector;
use k8s_openapi::api::resource::v1::DeviceClass;
use serde::Deserialize;
use serde_json::Value;

use super::cache::{Nodes, Slot};
use super::framework::{Reason, Rejection};
use super::peers::ClassId;
use super::queue::PodId;
use super::shape::Term;
use crate::object::{Kind, Object, ObjectKey, Pod, Revision};
use crate::resource_claim::{self, DeviceId, Named};
use allocator::Allocation;
use ask::{Ask, Classes, Expressions};
use pools::Pools;

/// Said of nodes where the devices are not to be had.
const CANNOT_ALLOCATE: &str = "cannot allocate all claims";
/// Said of nodes from which the devices of an allocated claim cannot be used.
const NOT_AVAILABLE: &str = "resourceclaim not available on the node";

/// Whether a node was rejected because the devices of an allocated claim cannot be used from it.
pub(super) fn is_elsewhere(rejection: &Rejection) -> bool {
    rejection.reasons == [Reason::Text(NOT_AVAILABLE)]
}

/// A claim for devices that a pod uses.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct DeviceClaim {
    /// The claim; `None` if it has not been made yet.
    key: Option<ObjectKey>,
    /// If it is made from a template: the pod, and its UID, which must own it.
    of: Option<(ObjectKey, Rc<str>)>,
}

/// The claims for devices of a pod; `None` if it has none.
pub type DeviceClaims = Option<Rc<[DeviceClaim]>>;

/// The claims for devices of a pod, each once.
pub fn claims_of(pod: &Pod) -> DeviceClaims {
    if !resource_claim::has_claims(&pod.spec.shared) {
        return None;
    }
    let of = || Some((pod.key(), Rc::from(pod.uid())));
    let mut all: Vec<DeviceClaim> = Vec::new();
    for (_, named) in resource_claim::claims(pod) {
        let claim = match named {
            Named::Own(key) => DeviceClaim { key: Some(key), of: None },
            Named::Made(key) => DeviceClaim { key: Some(key), of: of() },
            Named::NotMade => DeviceClaim { key: None, of: of() },
            Named::NotNeeded => continue,
        };
        if !all.contains(&claim) {
            all.push(claim);
        }
    }
    (!all.is_empty()).then(|| all.into())
}

/// What has to be written of a claim before its pod is bound: that the pod may use it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ClaimStep {
    /// The claim.
    pub claim: ObjectKey,
    /// Its UID.
    pub uid: Rc<str>,
    /// What it gets, if it is not allocated yet (`status.allocation`).
    pub allocation: Option<Rc<Value>>,
    /// The devices of these that it alone may use.
    pub devices: Rc<[DeviceId]>,
}

/// A choice of devices for a claim that is in no view yet.
#[derive(Debug)]
struct Pending {
    /// The pod that it was made for, while that is to be bound.
    by: Option<PodId>,
    /// The revision of the claim that the last write of the choice was based on, if one was sent: until the claim is at
    /// another one, the write may still be carried out.
    sent: Option<Revision>,
    devices: Rc<[DeviceId]>,
}

/// To which pods a change may matter.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Matters {
    /// To every pod with claims for devices.
    All,
    /// To those that use the claim.
    ItsPods,
}

/// What the claims of a class ask of nodes, as of the last change of anything here.
#[derive(Debug, Default)]
pub(super) struct Needs {
    class: Option<ClassId>,
    /// Why no node is looked at.
    refused: Option<String>,
    /// The claims.
    claims: Vec<ObjectKey>,
    /// Those that are allocated and not usable from everywhere, with where they are.
    places: Vec<(ObjectKey, Vec<Term>)>,
    /// Those that are to be allocated.
    asks: Vec<Ask>,
    /// The devices that claims may get by choices that are in no view yet.
    held: BTreeMap<DeviceId, BTreeSet<ObjectKey>>,
}

/// See the module's documentation.
#[derive(Debug, Default)]
pub(super) struct DynamicResources {
    claims: BTreeMap<ObjectKey, Object>,
    classes: Classes,
    pools: Pools,
    expressions: Expressions,
    /// How many claims have a device, by what the view shows.
    taken: BTreeMap<DeviceId, u32>,
    pending: BTreeMap<ObjectKey, Vec<Pending>>,
    /// The pods that use a claim.
    users: BTreeMap<ObjectKey, BTreeSet<PodId>>,
    pods: BTreeMap<PodId, Rc<[DeviceClaim]>>,
    /// What a class asks, worked out last.
    needs: Rc<Needs>,
}

impl DynamicResources {
    /// A claim, a class or a slice is there, has changed, or is gone. Says to which pods that may matter.
    pub(super) fn changed(&mut self, key: &ObjectKey, object: Option<&Object>) -> Matters {
        match key.kind {
            Kind::RESOURCE_CLAIM => self.claim_changed(key, object),
            Kind::DEVICE_CLASS => {
                let name = key.name().to_owned();
                match object.and_then(|object| DeviceClass::deserialize(object.to_json()).ok()) {
                    Some(class) => self.classes.insert(name, class),
                    None => self.classes.remove(&name),
                };
                Matters::All
            }
            _ => {
                self.pools.changed(key.name(), object.map(Object::to_json).as_ref());
                Matters::All
            }
        }
    }

    fn claim_changed(&mut self, key: &ObjectKey, object: Option<&Object>) -> Matters {
        let old = match object {
            Some(object) => self.claims.insert(key.clone(), object.clone()),
            None => self.claims.remove(key),
        };
        let devices = |claim: Option<&Object>| -> Vec<DeviceId> {
            claim.and_then(resource_claim::allocation).into_iter().flat_map(resource_claim::devices).collect()
        };
        let (before, after) = (devices(old.as_ref()), devices(object));
        for device in after.iter() {
            *self.taken.entry(device.clone()).or_default() += 1;
        }
        for device in before.iter() {
            let count = self.taken.get_mut(device).expect("what a claim has is counted");
            *count -= 1;
            if *count == 0 {
                self.taken.remove(device);
            }
        }
        let freed = before.iter().any(|device| !after.contains(device));
        let resolved = self.resolve(key, |pending| {
            if object.is_none_or(|claim| pending.sent.is_some_and(|sent| claim.rv() > sent)) {
                pending.sent = None;
            }
        });
        if freed || resolved { Matters::All } else { Matters::ItsPods }
    }

    /// Changes the choices for a claim, and forgets those that cannot come true any more. Returns whether there were
    /// any.
    fn resolve(&mut self, claim: &ObjectKey, mut change: impl FnMut(&mut Pending)) -> bool {
        let Some(choices) = self.pending.get_mut(claim) else { return false };
        let before = choices.len();
        choices.iter_mut().for_each(&mut change);
        choices.retain(|pending| pending.by.is_some() || pending.sent.is_some());
        let resolved = choices.len() < before;
        if choices.is_empty() {
            self.pending.remove(claim);
        }
        resolved
    }

    /// A claim as it is known.
    pub(super) fn claim(&self, key: &ObjectKey) -> Option<&Object> {
        self.claims.get(key)
    }

    /// A pod is known, with these claims.
    pub(super) fn know(&mut self, claims: &DeviceClaims, pod: PodId) {
        if self.pods.get(&pod) == claims.as_ref() {
            return;
        }
        self.leave(pod);
        if let Some(claims) = claims {
            for key in claims.iter().filter_map(|claim| claim.key.as_ref()) {
                self.users.entry(key.clone()).or_default().insert(pod);
            }
            self.pods.insert(pod, Rc::clone(claims));
        }
    }

    fn leave(&mut self, pod: PodId) {
        let Some(claims) = self.pods.remove(&pod) else { return };
        for key in claims.iter().filter_map(|claim| claim.key.as_ref()) {
            let Some(users) = self.users.get_mut(key) else { continue };
            users.remove(&pod);
            if users.is_empty() {
                self.users.remove(key);
            }
        }
    }

    /// A pod is not known any more.
    pub(super) fn forget(&mut self, pod: PodId) {
        self.leave(pod);
    }

    /// The pods that use a claim.
    pub(super) fn users(&self, claim: &ObjectKey) -> Vec<PodId> {
        self.users.get(claim).into_iter().flatten().copied().collect()
    }

    /// Why a pod's claims are not there (`foreachPodResourceClaim`); `None` if all are.
    pub(super) fn lacks(&self, claims: &[DeviceClaim]) -> Option<String> {
        claims.iter().find_map(|DeviceClaim { key, of }| {
            let Some(key) = key else {
                let pod = of.as_ref().map(|(pod, _)| pod.path()).unwrap_or_default();
                return Some(format!("pod {pod:?}: ResourceClaim not created yet"));
            };
            let Some(claim) = self.claims.get(key) else {
                return Some(format!("could not find ResourceClaim {:?}", key.path()));
            };
            if claim.is_deleting() {
                return Some(format!("resourceclaim {:?} is being deleted", key.name()));
            }
            of.as_ref().and_then(|(pod, uid)| resource_claim::not_of_pod(pod, uid, claim))
        })
    }

    /// Works out what a class asks.
    pub(super) fn prepare(&mut self, class: ClassId, claims: &DeviceClaims) {
        let Some(claims) = claims else { return };
        let mut needs = Needs { class: Some(class), ..Needs::default() };
        if let Err(why) = self.ask(claims, &mut needs) {
            needs.refused = Some(why);
        }
        self.needs = Rc::new(needs);
    }

    /// What claims ask; an error says why no node is looked at.
    fn ask(&mut self, claims: &[DeviceClaim], needs: &mut Needs) -> Result<(), String> {
        if let Some(why) = self.lacks(claims) {
            return Err(why);
        }
        for DeviceClaim { key, of } in claims {
            let Some(key) = key else { continue };
            let claim = &self.claims[key];
            needs.claims.push(key.clone());
            let Some(allocation) = resource_claim::allocation(claim) else {
                if self.pending.get(key).is_some_and(|choices| choices.iter().any(|pending| pending.by.is_some())) {
                    let claim = key.path();
                    return Err(format!("resource claim {claim} is in the process of being allocated"));
                }
                needs.asks.push(ask::read(claim, &self.classes, &mut self.expressions)?);
                continue;
            };
            // Only a pod that owns its claim may have it reserved already; of others it is not known here.
            let mine = of.as_ref().is_some_and(|(_, uid)| resource_claim::is_reserved_for(claim, uid));
            if !mine && !resource_claim::can_be_reserved(claim) {
                return Err("resourceclaim in use".to_owned());
            }
            if let Some(selector) = allocation.get("nodeSelector").filter(|selector| !selector.is_null()) {
                let selector = NodeSelector::deserialize(selector).unwrap_or_default();
                needs.places.push((key.clone(), selector.node_selector_terms.iter().map(Term::new).collect()));
            }
        }
        for (claim, choices) in &self.pending {
            for device in choices.iter().flat_map(|pending| pending.devices.iter()) {
                needs.held.entry(device.clone()).or_default().insert(claim.clone());
            }
        }
        Ok(())
    }

    /// What a class asks, which was prepared; `None` if it has no claims.
    pub(super) fn needs(&self, class: ClassId, claims: &DeviceClaims) -> Option<Rc<Needs>> {
        claims.as_ref()?;
        assert_eq!(self.needs.class, Some(class), "what is asked of devices is prepared first");
        Some(Rc::clone(&self.needs))
    }

    /// Why no node is looked at for pods of a class.
    pub(super) fn refused(&self, class: ClassId) -> Option<&str> {
        self.needs.refused.as_deref().filter(|_| self.needs.class == Some(class))
    }

    fn allocate(&self, needs: &Needs, nodes: &Nodes, slot: Slot) -> Result<Option<Vec<Allocation>>, String> {
        if needs.asks.is_empty() {
            return Ok(Some(Vec::new()));
        }
        // A choice for the same claim comes true instead of this one, or not at all.
        let is_free = |device: &DeviceId, claim: &ObjectKey| {
            let others = |holders: &BTreeSet<ObjectKey>| holders.iter().any(|holder| holder != claim);
            !self.taken.contains_key(device) && !needs.held.get(device).is_some_and(others)
        };
        allocator::allocate(&needs.asks, &self.pools.of_node(nodes.meta(slot)), &is_free)
    }

    /// Why a node is none for pods of a class that no claim keeps from every node.
    pub(super) fn rejection(&self, needs: &Needs, nodes: &Nodes, slot: Slot) -> Option<Rejection> {
        let why = match self.allocate(needs, nodes, slot) {
            Err(why) => Some(Reason::Said(Rc::from(why))),
            Ok(None) => Some(Reason::Text(CANNOT_ALLOCATE)),
            Ok(Some(_)) => self.unavailable(needs, nodes, slot).next().map(|_| Reason::Text(NOT_AVAILABLE)),
        };
        why.map(|why| Rejection { plugin: "DynamicResources", reasons: vec![why], unresolvable: true })
    }

    /// The claims whose devices cannot be used from a node.
    fn unavailable<'a>(
        &self,
        needs: &'a Needs,
        nodes: &'a Nodes,
        slot: Slot,
    ) -> impl Iterator<Item = &'a ObjectKey> + use<'a> {
        let elsewhere = move |terms: &[Term]| !terms.iter().any(|term| term.matches(nodes.meta(slot)));
        needs.places.iter().filter(move |(_, terms)| elsewhere(terms)).map(|(claim, _)| claim)
    }

    /// A claim whose devices cannot be used from one of these nodes, and which nobody else uses than perhaps this pod
    /// (`PostFilter`): to be allocated anew.
    pub(super) fn idle(&self, needs: &Needs, nodes: &Nodes, slots: &[Slot], uid: &str) -> Option<ObjectKey> {
        let away: BTreeSet<&ObjectKey> = slots.iter().flat_map(|slot| self.unavailable(needs, nodes, *slot)).collect();
        let is_idle = |claim: &&ObjectKey| {
            let mut others = resource_claim::consumers(&self.claims[*claim]).filter(|consumer| consumer.uid != uid);
            others.next().is_none()
        };
        away.into_iter().find(is_idle).cloned()
    }

    /// What has to be written for a pod on a node that it fits.
    pub(super) fn plan(&self, needs: &Needs, nodes: &Nodes, slot: Slot, uid: &str) -> Vec<ClaimStep> {
        let found = self.allocate(needs, nodes, slot);
        let found = found.ok().flatten().expect("the node was found to fit");
        let mut found: BTreeMap<&ObjectKey, Allocation> = needs.asks.iter().map(|ask| &ask.claim).zip(found).collect();
        let step = |key: &ObjectKey| {
            let claim = &self.claims[key];
            let allocation = found.remove(key);
            if allocation.is_none() && resource_claim::is_reserved_for(claim, uid) {
                return None;
            }
            let (value, devices) = allocation.map_or((None, Vec::new()), |a| (Some(Rc::new(a.value)), a.devices));
            Some(ClaimStep { claim: key.clone(), uid: claim.uid().into(), allocation: value, devices: devices.into() })
        };
        needs.claims.iter().filter_map(step).collect()
    }

    /// Notes what was decided for a pod, and counts on it from now on.
    pub(super) fn assume(&mut self, pod: PodId, steps: &[ClaimStep]) {
        for step in steps.iter().filter(|step| step.allocation.is_some()) {
            let pending = Pending { by: Some(pod), sent: None, devices: Rc::clone(&step.devices) };
            self.pending.entry(step.claim.clone()).or_default().push(pending);
        }
    }

    /// A choice for a pod is being written, based on this revision of the claim; `None`: none that was sent can still
    /// be carried out.
    pub(super) fn sent(&mut self, pod: PodId, claim: &ObjectKey, rv: Option<Revision>) {
        self.resolve(claim, |pending| {
            if pending.by == Some(pod) {
                pending.sent = rv;
            }
        });
    }

    /// A pod is bound, or will not be: what may still be written for it counts, and nothing else. Returns whether
    /// anything counts no more.
    pub(super) fn settle(&mut self, pod: PodId) -> bool {
        let claims: Vec<ObjectKey> = self
            .pending
            .iter()
            .filter(|(_, c)| c.iter().any(|p| p.by == Some(pod)))
            .map(|(key, _)| key.clone())
            .collect();
        let mut freed = false;
        for claim in claims {
            freed |= self.resolve(&claim, |pending| {
                if pending.by == Some(pod) {
                    pending.by = None;
                }
            });
        }
        freed
    }

    /// Nothing that was ever sent can still be carried out. Returns whether anything was.
    pub(super) fn nothing_is_sent(&mut self) -> bool {
        let claims: Vec<ObjectKey> = self.pending.keys().cloned().collect();
        let mut freed = false;
        for claim in claims {
            freed |= self.resolve(&claim, |pending| pending.sent = None);
        }
        freed
    }
}
