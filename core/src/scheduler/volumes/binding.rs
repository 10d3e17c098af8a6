//! VolumeBinding: a node must reach the volumes of a pod's claims, or claims that wait for a node must be able to get
//! theirs there. Source: `plugins/volumebinding`, `FindMatchingVolume`.

use std::collections::BTreeSet;
use std::rc::Rc;

use k8s_openapi::api::core::v1::{NodeSelectorTerm, TopologySelectorTerm};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use serde::Deserialize;

use super::{Needs, Place, VolumeStep, Volumes};
use crate::object::{Kind, Milli, Object, ObjectKey, ObjectMeta, Selector};
use crate::scheduler::cache::{Nodes, Slot};
use crate::scheduler::framework::{Reason, Rejection};
use crate::scheduler::shape::Term;
use crate::volume;

/// Said of nodes from which a bound volume cannot be reached.
const NODE_CONFLICT: &str = "node(s) didn't match PersistentVolume's node affinity";
/// Said of nodes where a claim that waits could get no volume.
const BIND_CONFLICT: &str = "node(s) didn't find available persistent volumes to bind";
/// Said where the volume of a bound claim is not there.
const NO_VOLUME: &str = "node(s) unavailable due to one or more pvc(s) bound to non-existent pv(s)";

/// A claim that gets its volume once a node is chosen.
#[derive(Debug)]
pub(super) struct Delayed {
    pub(super) claim: ObjectKey,
    pub(super) size: Milli,
    /// A node that was chosen for it already.
    selected: Option<Rc<str>>,
    /// Volumes that it could have, the best first, with where each can be reached.
    candidates: Vec<(ObjectKey, Place)>,
    /// Where a volume can be made for it; `None`: nowhere.
    made: Option<Vec<Term>>,
}

/// Whether a volume is free, or names a claim that may not be bound yet.
pub(super) fn may_be_bound(volume: &Object) -> bool {
    let phase = volume::text(volume, "/status/phase");
    !volume.is_deleting() && (volume::claim_of(volume).is_some() || phase == "Available")
}

/// Where a volume can be reached: one term must match; `None`: from everywhere.
pub(super) fn places(volume: &Object) -> Place {
    let terms = volume::value(volume, "/spec/nodeAffinity/required/nodeSelectorTerms")?;
    let terms = Vec::<NodeSelectorTerm>::deserialize(terms).unwrap_or_default();
    Some(terms.iter().map(Term::new).collect())
}

/// Where a class' volumes can be made; empty: everywhere.
fn topologies(class: &Object) -> Vec<Term> {
    let terms = volume::value(class, "/allowedTopologies");
    let terms = terms.and_then(|terms| Vec::<TopologySelectorTerm>::deserialize(terms).ok()).unwrap_or_default();
    terms.iter().map(Term::of_topology).collect()
}

fn reaches(terms: Option<&Vec<Term>>, node: &ObjectMeta) -> bool {
    terms.is_none_or(|terms| terms.iter().any(|term| term.matches(node)))
}

impl Volumes {
    /// What a claim that waits for a node could get.
    pub(super) fn delayed(&self, claim: &Object) -> Delayed {
        let key = claim.key();
        let class = self.get(Kind::STORAGE_CLASS, volume::class_of(claim));
        let is_made = |class: &&Object| !matches!(volume::text(class, "/provisioner"), "" | volume::NO_PROVISIONER);
        let annotated = volume::annotation(claim, volume::SELECTED_NODE).map(Rc::from);
        let selected = annotated.or_else(|| self.assumed_node(&key));
        let candidates = if selected.is_some() { Vec::new() } else { self.candidates(claim, &key) };
        Delayed {
            size: volume::requested(claim),
            selected,
            candidates,
            made: class.filter(is_made).map(topologies),
            claim: key,
        }
    }

    /// The node that a pod which is being bound has chosen for a claim.
    fn assumed_node(&self, claim: &ObjectKey) -> Option<Rc<str>> {
        let provisions = |steps: &[VolumeStep]| {
            steps.iter().any(|step| matches!(step, VolumeStep::Provision { claim: other } if other == claim))
        };
        self.assumed.values().find(|(_, steps)| provisions(steps)).map(|(node, _)| Rc::clone(node))
    }

    /// The claim that a pod which is being bound has chosen a volume for.
    fn assumed_claim(&self, volume: &ObjectKey) -> Option<&ObjectKey> {
        let steps = self.assumed.values().flat_map(|(_, steps)| steps);
        let mut chosen = steps.filter_map(|step| match step {
            VolumeStep::Bind { volume: other, claim } if other == volume => Some(claim),
            VolumeStep::Bind { .. } | VolumeStep::Provision { .. } => None,
        });
        chosen.next()
    }

    /// Volumes that a claim could have: one that names it, and no other; else free ones, the smallest first.
    fn candidates(&self, claim: &Object, key: &ObjectKey) -> Vec<(ObjectKey, Place)> {
        let of_class = self.unbound.get(volume::class_of(claim)).into_iter().flatten();
        let selector = volume::value(claim, "/spec/selector").filter(|s| !s.is_null());
        let selector = selector.map(|s| LabelSelector::deserialize(s).unwrap_or_default());
        let selector = selector.map(|s| Selector::from_label_selector(&s).unwrap_or_else(|_| Selector::nothing()));
        let mut free: Vec<(Milli, &ObjectKey, &Object)> = Vec::new();
        for volume_key in of_class {
            let volume = &self.objects[volume_key];
            if !suits(volume, claim) {
                continue;
            }
            let named = volume::is_for(volume, claim) || self.assumed_claim(volume_key) == Some(key);
            if named {
                return vec![(volume_key.clone(), places(volume))];
            }
            let is_free = volume::claim_of(volume).is_none() && self.assumed_claim(volume_key).is_none();
            if is_free && selector.as_ref().is_none_or(|s| s.matches(volume.labels())) {
                free.push((volume::capacity(volume), volume_key, volume));
            }
        }
        free.sort_by(|a, b| (a.0, a.1).cmp(&(b.0, b.1)));
        free.into_iter().map(|(_, key, volume)| (key.clone(), places(volume))).collect()
    }
}

/// Why a node is none.
pub(super) fn rejection(needs: &Needs, nodes: &Nodes, slot: Slot) -> Option<Rejection> {
    let node = nodes.meta(slot);
    // The first claim whose volume is not there, or is elsewhere, decides.
    let wrong = needs.bound.iter().find_map(|place| match place {
        None => Some(NO_VOLUME),
        Some(place) => (!reaches(place.as_ref(), node)).then_some(NODE_CONFLICT),
    });
    let unbound = plan(needs, nodes, slot).is_none().then_some(BIND_CONFLICT);
    let reasons: Vec<Reason> = wrong.into_iter().chain(unbound).map(Reason::Text).collect();
    (!reasons.is_empty()).then_some(Rejection { plugin: "VolumeBinding", reasons, unresolvable: true })
}

/// Whether a volume is as a claim asks, but for its place.
fn suits(volume: &Object, claim: &Object) -> bool {
    let attributes = |object| volume::text(object, "/spec/volumeAttributesClassName").to_owned();
    volume::capacity(volume) >= volume::requested(claim)
        && volume::volume_mode(volume) == volume::volume_mode(claim)
        && volume::access_modes(claim).all(|mode| volume::access_modes(volume).any(|has| has == mode))
        && attributes(volume) == attributes(claim)
}

/// What has to be written for a pod on a node; `None` if some claim could get no volume there.
pub(in crate::scheduler) fn plan(needs: &Needs, nodes: &Nodes, slot: Slot) -> Option<Vec<VolumeStep>> {
    let (node, name) = (nodes.meta(slot), nodes.name(slot));
    let mut chosen: BTreeSet<&ObjectKey> = BTreeSet::new();
    let mut steps = Vec::new();
    for delayed in &needs.delayed {
        let claim = delayed.claim.clone();
        if delayed.selected.as_ref().is_some_and(|selected| selected != name) {
            return None;
        }
        let fits = |(volume, at): &&(ObjectKey, Place)| !chosen.contains(volume) && reaches(at.as_ref(), node);
        if let Some((volume, _)) = delayed.candidates.iter().find(fits) {
            chosen.insert(volume);
            steps.push(VolumeStep::Bind { volume: volume.clone(), claim });
            continue;
        }
        let terms = delayed.made.as_ref()?;
        if !terms.is_empty() && !reaches(Some(terms), node) {
            return None;
        }
        steps.push(VolumeStep::Provision { claim });
    }
    Some(steps)
}
