//! `kubectl rollout undo`: returns to an earlier template.

use serde_json::json;

use super::{POD_TEMPLATE_HASH, revisions};
use crate::api::Patch;
use crate::object::{Deployment, ReplicaSet, is_controlled_by};

/// Whether the rollout of the Deployment's template has begun: a ReplicaSet has that template. Until then, the revision
/// before the newest is not the one that a user means.
pub fn has_rollout_begun<'a>(d: &Deployment, mut replica_sets: impl Iterator<Item = &'a ReplicaSet>) -> bool {
    replica_sets.any(|rs| is_controlled_by(&rs.meta, d.uid()) && revisions::same_template(d, rs))
}

/// The patch that returns a Deployment to `to_revision`, or (`None` or zero) to the revision before the newest. The
/// error texts are kubectl's.
pub fn rollback_patch<'a>(
    d: &Deployment,
    replica_sets: impl Iterator<Item = &'a ReplicaSet>,
    to_revision: Option<i64>,
) -> Result<Patch, String> {
    if d.spec.paused == Some(true) {
        return Err(format!(
            "you cannot rollback a paused deployment; resume it first with 'kubectl rollout resume deployment/{}' and try again",
            d.name()
        ));
    }
    let mut owned: Vec<&ReplicaSet> = replica_sets.filter(|rs| is_controlled_by(&rs.meta, d.uid())).collect();
    owned.sort_by_key(|rs| revisions::revision(&rs.meta));
    let target = match to_revision.filter(|r| *r != 0) {
        Some(r) => owned
            .iter()
            .find(|rs| revisions::revision(&rs.meta) == r)
            .ok_or_else(|| format!("unable to find specified revision {r} in history"))?,
        None => {
            let previous = owned.len().checked_sub(2).and_then(|i| owned.get(i));
            previous.ok_or_else(|| format!("no rollout history found for deployment {:?}", d.name()))?
        }
    };
    let mut meta = target.spec.template_meta().cloned().unwrap_or_default();
    if let Some(labels) = &mut meta.labels {
        labels.remove(POD_TEMPLATE_HASH);
    }
    let template = json!({"metadata": meta, "spec": *target.spec.pod});
    Ok(Patch::Json(json!([{"op": "replace", "path": "/spec/template", "value": template}])))
}
