//! `one-pod-per-claim`: a claim of access mode ReadWriteOncePod is never used by two pods on nodes.
//!
//! Checked when a pod is bound. A pod that has ended, or that is gone from the store, uses nothing any more. Pods that
//! are created with a node of their user's choice pass no scheduler. With a profile that does not filter by it, nothing
//! is checked.
//!
//! `claims-stay-while-used`: a claim is removed only when no pod on a node uses it any more.
//!
//! `claims-at-rest`: at the end of a run, claims and volumes that are bound are bound to each other, by UID.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::json;
use skeg_core::object::{Kind, Object, ObjectKey, Pod};
use skeg_core::store::MemoryStore;
use skeg_core::volume::text;

use super::reading::place;
use super::{Commit, Invariant, Report};
use crate::converge::objects;

/// The pods on nodes by the claims that they use.
#[derive(Debug, Default)]
pub(super) struct Claims {
    used: BTreeMap<ObjectKey, BTreeSet<ObjectKey>>,
    /// Whether schedulers see to it.
    holds: bool,
}

/// The claims that a pod on a node names.
fn claims(pod: &Pod) -> impl Iterator<Item = ObjectKey> {
    let volumes = pod.spec.volumes.iter().flatten().filter(|_| place(pod).is_some());
    let names = volumes.filter_map(|volume| volume.persistent_volume_claim.as_ref());
    names.map(|claim| ObjectKey::new(Kind::PERSISTENT_VOLUME_CLAIM, pod.namespace(), &claim.claim_name))
}

fn is_for_one(commit: &Commit<'_>, claim: &ObjectKey) -> bool {
    let modes = |claim: &skeg_core::Object| claim.to_json()["spec"]["accessModes"] == json!(["ReadWriteOncePod"]);
    commit.store.object(claim).is_some_and(modes)
}

/// Returns a description of the first claim or volume that is bound to what is not there, or not to it, or `None`.
pub(super) fn at_rest(store: &MemoryStore) -> Option<String> {
    let is_bound = |object: &&Object| text(object, "/status/phase") == "Bound" && !object.is_deleting();
    let claims = objects(store, Kind::PERSISTENT_VOLUME_CLAIM).filter(is_bound).find_map(|claim| {
        let volume = ObjectKey::new(Kind::PERSISTENT_VOLUME, "", text(claim, "/spec/volumeName"));
        let its = store.object(&volume).is_some_and(|volume| text(volume, "/spec/claimRef/uid") == claim.uid());
        (!its).then(|| format!("{} is bound to {volume}, which is not bound to it", claim.key()))
    });
    claims.or_else(|| {
        objects(store, Kind::PERSISTENT_VOLUME).filter(is_bound).find_map(|volume| {
            let (namespace, name) = (text(volume, "/spec/claimRef/namespace"), text(volume, "/spec/claimRef/name"));
            let claim = ObjectKey::new(Kind::PERSISTENT_VOLUME_CLAIM, namespace, name);
            let its = store.object(&claim).is_some_and(|claim| claim.uid() == text(volume, "/spec/claimRef/uid"));
            (!its).then(|| format!("{} is bound to {claim}, which is not there", volume.key()))
        })
    })
}

impl Claims {
    pub fn new(holds: bool) -> Claims {
        Claims { used: BTreeMap::new(), holds }
    }

    /// Checks a claim that is removed.
    pub fn claim(&self, commit: &Commit<'_>, report: &mut Report) {
        let (Some(claim), None) = (commit.old, commit.new) else { return };
        if let Some(pod) = self.used.get(&claim.key()).and_then(BTreeSet::first) {
            let what = format!("{} is removed while {pod} uses it", claim.key());
            report.broken(Invariant::ClaimsStayWhileUsed, commit.at, what);
        }
    }

    pub fn pod(&mut self, commit: &Commit<'_>, report: &mut Report) {
        let (old, new) = (commit.old_pod(), commit.new_pod());
        let (was, is) = (old.and_then(place), new.and_then(place));
        if was == is {
            return;
        }
        for claim in old.into_iter().flat_map(claims) {
            if let Some(pods) = self.used.get_mut(&claim) {
                pods.remove(&old.expect("it has claims").key());
                if pods.is_empty() {
                    self.used.remove(&claim);
                }
            }
        }
        for (pod, claim) in new.into_iter().flat_map(|pod| claims(pod).map(move |claim| (pod, claim))) {
            let pods = self.used.entry(claim.clone()).or_default();
            if self.holds
                && old.is_some()
                && let Some(other) = pods.first()
                && is_for_one(commit, &claim)
            {
                let what = format!("{} is bound to a node while {other} uses {claim}", pod.key());
                report.broken(Invariant::OnePodPerClaim, commit.at, what);
            }
            pods.insert(pod.key());
        }
    }
}
