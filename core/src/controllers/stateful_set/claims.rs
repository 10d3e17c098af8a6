//! The PersistentVolumeClaims of a StatefulSet's pods. They are created before the pod; their owner references follow
//! `persistentVolumeClaimRetentionPolicy`.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1 as core_v1;
use serde_json::{Value, json};

use super::Sync;
use super::identity::{Member, claim_name};
use crate::api::{Patch, Subresource};
use crate::controllers::Write;
use crate::controllers::claim::controller_ref;
use crate::object::{Kind, Object, OwnerReference};

impl Sync<'_> {
    /// Creates the missing claims of an ordinal. Returns true if all claims exist and none is being deleted or about to
    /// be.
    pub(super) fn make_claims(&mut self, ordinal: i32) -> bool {
        let view = self.views.view(Kind::PERSISTENT_VOLUME_CLAIM);
        let set = self.object.name();
        let found: Vec<_> = self
            .claim_templates()
            .iter()
            .map(|t| (t, view.find(self.object.namespace(), &claim_name(t, set, ordinal))))
            .collect();
        let ready =
            found.iter().all(|(_, claim)| claim.is_some_and(|c| !c.is_deleting() && !self.is_stale(c, ordinal)));
        let missing: Vec<Object> =
            found.iter().filter(|(_, claim)| claim.is_none()).map(|(t, _)| self.new_claim(t, ordinal)).collect();
        self.plan.writes.extend(missing.into_iter().map(Write::Create));
        ready
    }

    /// Whether the garbage collector will delete a claim because it belongs to the ordinal's pod of before
    /// (`PodClaimIsStale`), of which there is none now, or to the set that had this name before.
    fn is_stale(&self, claim: &Object, ordinal: i32) -> bool {
        let policy = self.spec.persistent_volume_claim_retention_policy.as_ref();
        let deletes = policy.and_then(|policy| policy.when_scaled.as_deref()) == Some("Delete");
        let pod = format!("{}-{ordinal}", self.object.name());
        let is_former_pod =
            |owner: &OwnerReference| deletes && owner.api_version == "v1" && owner.kind == "Pod" && owner.name == pod;
        let is_former_set = |owner: &OwnerReference| {
            let is_set = owner.api_version == "apps/v1" && owner.kind == "StatefulSet";
            is_set && owner.name == self.object.name() && owner.uid != self.object.uid()
        };
        claim.meta().owner_references.iter().flatten().any(|owner| is_former_pod(owner) || is_former_set(owner))
    }

    fn new_claim(&self, template: &core_v1::PersistentVolumeClaim, ordinal: i32) -> Object {
        let mut labels: BTreeMap<String, String> = template.metadata.labels.clone().unwrap_or_default();
        labels.extend(self.spec.selector.match_labels.clone().unwrap_or_default());
        let info = Kind::PERSISTENT_VOLUME_CLAIM.row();
        let value = json!({
            "apiVersion": info.api_version(), "kind": info.kind,
            "metadata": {
                "name": claim_name(template, self.object.name(), ordinal),
                "namespace": self.object.namespace(),
                "labels": labels,
                "annotations": template.metadata.annotations,
            },
            "spec": template.spec,
        });
        Object::from_json(value).expect("a claim reads")
    }

    /// Sets the owner references of a member's claims, so that the garbage collector deletes the claims together with
    /// their owner: the pod, if the policy deletes on scale-down and the ordinal is no longer wanted; the set, if the
    /// policy deletes with the set; otherwise none.
    pub(super) fn own_claims(&mut self, member: Member<'_>) {
        let policy = self.spec.persistent_volume_claim_retention_policy.clone().unwrap_or_default();
        let deletes = |p: Option<&str>| p == Some("Delete");
        let by_pod = deletes(policy.when_scaled.as_deref()) && !self.is_wanted(member.ordinal);
        let by_set = deletes(policy.when_deleted.as_deref()) && !by_pod;
        let pod = Object::from(member.pod.clone());
        let view = self.views.view(Kind::PERSISTENT_VOLUME_CLAIM);
        let names = self.claim_templates().iter().map(|t| claim_name(t, self.object.name(), member.ordinal));
        let claims: Vec<&Object> = names.filter_map(|n| view.find(self.object.namespace(), &n)).collect();
        for claim in claims {
            let owners = claim.meta().owner_references.as_deref().unwrap_or(&[]);
            let wanted = owners_of(owners, &[(self.object, by_set), (&pod, by_pod)]);
            if wanted != owners && !claim.is_deleting() {
                self.plan.writes.push(set_owners(claim, &wanted));
            }
        }
    }
}

/// Returns `references` with or without a reference to each of `owners`, as its flag says. If another object controls
/// the claim, `references` is returned unchanged.
fn owners_of(references: &[OwnerReference], owners: &[(&Object, bool)]) -> Vec<OwnerReference> {
    let is_ours = |r: &OwnerReference| owners.iter().any(|(o, _)| o.uid() == r.uid);
    let mut all: Vec<OwnerReference> = references.to_vec();
    if references.iter().any(|r| r.controller == Some(true) && !is_ours(r)) {
        return all;
    }
    all.retain(|r| owners.iter().all(|(o, wanted)| o.uid() != r.uid || *wanted));
    for (owner, _) in owners.iter().filter(|(_, wanted)| *wanted) {
        if !all.iter().any(|r| r.uid == owner.uid()) {
            all.push(controller_ref(owner));
        }
    }
    all
}

fn set_owners(claim: &Object, references: &[OwnerReference]) -> Write {
    let references = if references.is_empty() { Value::Null } else { json!(references) };
    Write::Patch {
        key: claim.key(),
        uid: claim.uid().into(),
        rv: Some(claim.rv()),
        patch: Patch::Merge(json!({"metadata": {"ownerReferences": references}})),
        subresource: Subresource::None,
    }
}
