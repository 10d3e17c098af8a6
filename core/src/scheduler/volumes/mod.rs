//! What pods with claims ask of nodes: the plug-ins VolumeRestrictions, NodeVolumeLimits, VolumeBinding and VolumeZone,
//! each in a file. Everything here is looked up for pods with claims only. All but VolumeBinding can be disabled.
//!
//! What comes in: claims, volumes, classes and CSINodes, and which pods with claims are on which node. What goes out:
//! why a node is none for such a pod, and what has to be written before the pod is bound ([`VolumeStep`]). What never
//! happens: a volume is chosen for two claims, also while the choice is not in any view yet.
//!
//! Not here: conflicts of volumes that pods name without a claim (`NoDiskConflict`), and free capacity of drivers that
//! publish it (CSIStorageCapacity), and attachments that no pod explains (they count against a node's limit upstream).

mod binding;
mod limits;
mod restrictions;
#[cfg(test)]
mod tests;
mod zone;

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use serde_json::Value;

use super::cache::{Nodes, Slot};
use super::framework::Rejection;
use super::peers::ClassId;
use super::profile::{Plugin, Plugins};
use super::queue::PodId;
use crate::object::{Kind, Object, ObjectKey, Pod};
use crate::volume;
use binding::Delayed;
pub(super) use binding::plan;

/// A claim that a pod uses.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct PodClaim {
    /// The claim.
    pub key: ObjectKey,
    /// If it is that of an ephemeral volume: the pod, and its UID, which must own it.
    pub of: Option<(ObjectKey, Rc<str>)>,
}

/// The claims of a pod; `None` if it has none.
pub type PodClaims = Option<Rc<[PodClaim]>>;

/// The claims of a pod, each once, also if several of its volumes name it.
pub fn claims_of(pod: &Pod) -> PodClaims {
    if !volume::has_claims(&pod.spec.shared) {
        return None;
    }
    let mut all: Vec<PodClaim> = Vec::new();
    for (key, volume) in volume::claims(pod) {
        let named = volume.persistent_volume_claim.is_some();
        let claim = PodClaim { key, of: (!named).then(|| (pod.key(), Rc::from(pod.uid()))) };
        if !all.contains(&claim) {
            all.push(claim);
        }
    }
    Some(all.into())
}

/// What has to be written before a pod is bound to a node.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum VolumeStep {
    /// A volume is to name a claim.
    Bind {
        /// The volume.
        volume: ObjectKey,
        /// The claim.
        claim: ObjectKey,
    },
    /// A volume is to be made for a claim, for the pod's node.
    Provision {
        /// The claim.
        claim: ObjectKey,
    },
}

/// How the claims of a pod that waits to be bound are.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Readiness {
    /// All are bound.
    Ready,
    /// Some are not yet.
    Waiting,
    /// It will not come to that.
    Failed(String),
}

/// Where a volume can be reached: one term must match. `None`: from everywhere.
type Place = Option<Vec<super::shape::Term>>;

/// The pods that a rule sees on a node: those on it but some, and some that are nominated for it.
#[derive(Clone, Copy, Debug)]
pub(super) struct There<'a> {
    /// The pods on the node.
    pub(super) on: &'a [PodId],
    /// Those that are taken as not there.
    pub(super) gone: &'a BTreeSet<PodId>,
    /// Pods that are nominated for the node and taken as there.
    pub(super) nominees: &'a [PodId],
}

impl There<'_> {
    fn pods(&self) -> impl Iterator<Item = PodId> {
        self.on.iter().filter(|pod| !self.gone.contains(pod)).chain(self.nominees).copied()
    }
}

/// To which pods a change may matter.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Matters {
    /// To every pod with claims.
    All,
    /// To those that use the claim that has changed.
    ItsPods,
    /// To none.
    Nothing,
}

/// What the claims of a class ask of nodes, as of the last change of anything here.
#[derive(Debug, Default)]
pub(super) struct Needs {
    class: Option<ClassId>,
    /// The plug-ins that count.
    filters: Plugins,
    /// Why no node is looked at.
    refused: Option<String>,
    /// Where the volumes of bound claims can be reached, in the order of the claims; `None`: a volume is not there.
    bound: Vec<Option<Place>>,
    /// Labels for zones that volumes carry, with the values that suit.
    zones: Vec<(String, Vec<String>)>,
    /// Claims that get their volume once a node is chosen, the smallest first.
    delayed: Vec<Delayed>,
    /// Claims that one pod may use.
    exclusive: Vec<ObjectKey>,
    /// Volumes that a CSI driver attaches: driver and volume.
    attached: Vec<(String, String)>,
}

/// See the module's documentation.
#[derive(Debug, Default)]
pub(super) struct Volumes {
    /// Claims, volumes, classes and CSINodes.
    objects: BTreeMap<ObjectKey, Object>,
    /// Volumes that are free, or for a claim that is not bound, by class.
    unbound: BTreeMap<String, BTreeSet<ObjectKey>>,
    /// Pods on nodes by the claims that they use, with their nodes.
    users: BTreeMap<ObjectKey, BTreeMap<PodId, Slot>>,
    /// The claims of pods, those on nodes and those that wait.
    claims: BTreeMap<PodId, Rc<[PodClaim]>>,
    /// What was decided for pods and is in no view yet.
    assumed: BTreeMap<PodId, (Rc<str>, Vec<VolumeStep>)>,
    /// What a class asks, worked out last.
    needs: Rc<Needs>,
}

impl Volumes {
    /// A claim, a volume, a class or a CSINode is there, has changed, or is gone. Says to which pods that may matter.
    pub(super) fn changed(&mut self, key: &ObjectKey, object: Option<&Object>) -> Matters {
        let old = match object {
            Some(object) => self.objects.insert(key.clone(), object.clone()),
            None => self.objects.remove(key),
        };
        match key.kind {
            Kind::PERSISTENT_VOLUME => {
                if let Some(of_class) = old.as_ref().and_then(|old| self.unbound.get_mut(volume::class_of(old))) {
                    of_class.remove(key);
                }
                if let Some(new) = object.filter(|v| binding::may_be_bound(v)) {
                    self.unbound.entry(volume::class_of(new).to_owned()).or_default().insert(key.clone());
                }
                let asked = |v: &Object| (v.labels().cloned(), spec_of(v).cloned(), binding::may_be_bound(v));
                if old.as_ref().map(asked) == object.map(asked) { Matters::Nothing } else { Matters::All }
            }
            // A claim that gets its volume changes what the pods that use it count for on their nodes.
            Kind::PERSISTENT_VOLUME_CLAIM
                if self.users.contains_key(key) && old.as_ref().and_then(spec_of) != object.and_then(spec_of) =>
            {
                Matters::All
            }
            Kind::PERSISTENT_VOLUME_CLAIM => Matters::ItsPods,
            _ => Matters::All,
        }
    }

    /// An object as it is known.
    pub(super) fn object(&self, key: &ObjectKey) -> Option<&Object> {
        self.objects.get(key)
    }

    fn get(&self, kind: Kind, name: &str) -> Option<&Object> {
        self.objects.get(&ObjectKey::new(kind, "", name))
    }

    /// A pod is known, with these claims.
    pub(super) fn know(&mut self, claims: &PodClaims, pod: PodId) {
        match claims {
            Some(claims) => self.claims.insert(pod, Rc::clone(claims)),
            None => self.claims.remove(&pod),
        };
    }

    /// A pod is not known any more.
    pub(super) fn forget(&mut self, pod: PodId) {
        self.claims.remove(&pod);
        self.assumed.remove(&pod);
    }

    /// Counts a pod as on a node, or no longer.
    pub(super) fn place(&mut self, claims: &PodClaims, pod: PodId, slot: Slot, there: bool) {
        for claim in claims.iter().flat_map(|claims| claims.iter()) {
            if there {
                self.users.entry(claim.key.clone()).or_default().insert(pod, slot);
            } else if let Some(users) = self.users.get_mut(&claim.key) {
                users.remove(&pod);
                if users.is_empty() {
                    self.users.remove(&claim.key);
                }
            }
        }
    }

    /// Works out what a class asks.
    pub(super) fn prepare(&mut self, class: ClassId, claims: &PodClaims, filters: Plugins) {
        let Some(claims) = claims else { return };
        let mut needs = Needs { class: Some(class), filters, ..Needs::default() };
        needs.refused = self.refusal(claims, filters);
        if needs.refused.is_none() {
            for claim in claims.iter() {
                self.ask(&self.objects[&claim.key], &mut needs);
            }
            needs.delayed.sort_by(|a, b| (a.size, &a.claim).cmp(&(b.size, &b.claim)));
        }
        self.needs = Rc::new(needs);
    }

    /// What a class asks, which was prepared; `None` if it has no claims.
    pub(super) fn needs(&self, class: ClassId, claims: &PodClaims) -> Option<Rc<Needs>> {
        claims.as_ref()?;
        assert_eq!(self.needs.class, Some(class), "what is asked of volumes is prepared first");
        Some(Rc::clone(&self.needs))
    }

    /// Why claims keep their pods from every node; `None` if they do not. Each plug-in's pre-filter looks at all of
    /// them: VolumeRestrictions, VolumeBinding, VolumeZone.
    fn refusal(&self, claims: &[PodClaim], filters: Plugins) -> Option<String> {
        let named = || claims.iter().filter(|claim| claim.of.is_none());
        let missing = named().find(|claim| !self.objects.contains_key(&claim.key));
        if let Some(claim) = missing {
            return Some(format!("persistentvolumeclaim {:?} not found", claim.key.name()));
        }
        if let Some(why) = claims.iter().find_map(|claim| self.unusable(claim)) {
            return Some(why);
        }
        let found = || claims.iter().map(|claim| &self.objects[&claim.key]);
        let waits = |claim: &Object| {
            let class = self.get(Kind::STORAGE_CLASS, volume::class_of(claim));
            class.is_some_and(volume::waits_for_consumer) && volume_of(claim).is_empty()
        };
        if found().any(|claim| !is_fully_bound(claim) && !waits(claim)) {
            return Some("pod has unbound immediate PersistentVolumeClaims".to_owned());
        }
        if !filters.has(Plugin::VolumeZone) {
            return None;
        }
        let volumes = named().map(|claim| volume_of(&self.objects[&claim.key])).filter(|name| !name.is_empty());
        let mut gone = volumes.filter(|name| self.get(Kind::PERSISTENT_VOLUME, name).is_none());
        gone.next().map(|name| format!("persistentvolume {name:?} not found"))
    }

    /// Why a claim cannot be used (`podHasPVCs`).
    fn unusable(&self, claim: &PodClaim) -> Option<String> {
        let name = claim.key.name();
        let Some(object) = self.objects.get(&claim.key) else {
            return Some(format!(
                "waiting for ephemeral volume controller to create the persistentvolumeclaim {name:?}"
            ));
        };
        if volume::text(object, "/status/phase") == "Lost" {
            let volume = volume_of(object);
            return Some(format!("persistentvolumeclaim {name:?} bound to non-existent persistentvolume {volume:?}"));
        }
        if object.is_deleting() {
            return Some(format!("persistentvolumeclaim {name:?} is being deleted"));
        }
        let (pod, uid) = claim.of.as_ref()?;
        let owners = object.meta().owner_references.as_deref().unwrap_or(&[]);
        let is_its = owners.iter().any(|owner| owner.controller == Some(true) && *owner.uid == **uid);
        (!is_its).then(|| format!("PVC {} was not created for pod {} (pod is not owner)", claim.key.path(), pod.path()))
    }

    fn ask(&self, claim: &Object, needs: &mut Needs) {
        if restrictions::is_exclusive(claim) {
            needs.exclusive.push(claim.key());
        }
        if !is_fully_bound(claim) {
            limits::ask_unbound(self, claim, needs);
            needs.delayed.push(self.delayed(claim));
            return;
        }
        let volume = self.get(Kind::PERSISTENT_VOLUME, volume_of(claim));
        needs.bound.push(volume.map(binding::places));
        let Some(volume) = volume else {
            return limits::ask_unbound(self, claim, needs);
        };
        zone::ask(volume, needs);
        limits::ask_bound(volume, needs);
    }

    /// Why a node is none for pods of a class that no claim keeps from every node.
    pub(super) fn rejection(&self, needs: &Needs, nodes: &Nodes, slot: Slot, there: &There<'_>) -> Option<Rejection> {
        let counts = |plugin| needs.filters.has(plugin).then_some(());
        counts(Plugin::VolumeRestrictions)
            .and_then(|()| restrictions::rejection(self, needs, nodes, there))
            .or_else(|| {
                counts(Plugin::NodeVolumeLimits).and_then(|()| limits::rejection(self, needs, nodes, slot, there))
            })
            .or_else(|| binding::rejection(needs, nodes, slot))
            .or_else(|| counts(Plugin::VolumeZone).and_then(|()| zone::rejection(needs, nodes, slot)))
    }

    /// Why no node is looked at for pods of a class.
    pub(super) fn refused(&self, class: ClassId) -> Option<&str> {
        self.needs.refused.as_deref().filter(|_| self.needs.class == Some(class))
    }

    /// Notes what was decided for a pod, and counts on it until a view shows it or it is [settled](Self::settle).
    pub(super) fn assume(&mut self, pod: PodId, node: &Rc<str>, steps: &[VolumeStep]) {
        if !steps.is_empty() {
            self.assumed.insert(pod, (Rc::clone(node), steps.to_vec()));
        }
    }

    /// What was decided for a pod is in the views, or will not come to anything. Returns whether there was anything.
    pub(super) fn settle(&mut self, pod: PodId) -> bool {
        self.assumed.remove(&pod).is_some()
    }

    /// How the claims of a pod for a node are (`checkBindings`).
    pub(super) fn readiness(&self, claims: &PodClaims, node: &str, labels: &crate::object::ObjectMeta) -> Readiness {
        for claim in claims.iter().flat_map(|claims| claims.iter()) {
            let name = claim.key.name();
            let Some(object) = self.objects.get(&claim.key) else {
                return Readiness::Failed(format!("failed to check binding: persistentvolumeclaim {name:?} not found"));
            };
            if !is_fully_bound(object) {
                let selected = volume::annotation(object, volume::SELECTED_NODE);
                if selected.is_some_and(|selected| selected != node) {
                    return Readiness::Failed(format!("provisioning failed for PVC {name:?}"));
                }
                return Readiness::Waiting;
            }
            let volume = volume_of(object);
            let Some(object) = self.get(Kind::PERSISTENT_VOLUME, volume) else { return Readiness::Waiting };
            if !binding::places(object).is_none_or(|terms| terms.iter().any(|term| term.matches(labels))) {
                let why = "no matching NodeSelectorTerms";
                return Readiness::Failed(format!("pv {volume:?} node affinity doesn't match node {node:?}: {why}"));
            }
        }
        Readiness::Ready
    }
}

fn is_fully_bound(claim: &Object) -> bool {
    volume::is_bound(claim) && !volume_of(claim).is_empty()
}

/// The volume that a claim names; empty if it names none.
fn volume_of(claim: &Object) -> &str {
    volume::text(claim, "/spec/volumeName")
}

fn spec_of(object: &Object) -> Option<&Value> {
    volume::value(object, "/spec")
}
