//! `kubectl rollout`: undo and restart.

use serde_json::json;

use skeg_core::api::Patch;
use skeg_core::controllers::deployment::{has_rollout_begun, rollback_patch};
use skeg_core::object::{Object, ReplicaSet};

use super::command::{Task, patch_task};

/// The annotation that a restart sets.
const RESTARTED_AT: &str = "kubectl.kubernetes.io/restartedAt";

/// Whether the rollout of the Deployment's newest template has not begun yet. The revision to roll back to is then
/// unknown; a user at a terminal would wait. The rollout of a paused Deployment does not begin.
pub(super) fn is_unseen(deployment: &Object, items: &[Object]) -> bool {
    let Object::Deployment(d) = deployment else { return false };
    let is_paused = d.spec.paused == Some(true);
    !is_paused && (d.status.observed_generation < d.meta.generation || !has_rollout_begun(d, sets(items)))
}

fn sets(items: &[Object]) -> impl Iterator<Item = &ReplicaSet> {
    items.iter().filter_map(|o| match o {
        Object::ReplicaSet(rs) => Some(rs),
        _ => None,
    })
}

/// `kubectl rollout undo`.
pub(super) fn undo(deployment: &Object, items: &[Object], to_revision: Option<i64>) -> Result<Vec<Task>, String> {
    let Object::Deployment(d) = deployment else { return Err(format!("{} cannot be rolled back", deployment.kind())) };
    let patch = rollback_patch(d, sets(items), to_revision)?;
    Ok(vec![patch_task(&deployment.key(), patch)])
}

/// `kubectl rollout restart` (`pkg/polymorphichelpers/objectrestarter.go`): sets an annotation with the time, in
/// seconds, in the template.
pub(super) fn restart(live: &Object, stamp: &str) -> Result<Vec<Task>, String> {
    if matches!(live, Object::Deployment(d) if d.spec.paused == Some(true)) {
        return Err("can't restart paused deployment (run rollout resume first)".to_owned());
    }
    let value = live.to_json();
    let last = value.pointer("/spec/template/metadata/annotations").and_then(|a| a.get(RESTARTED_AT));
    if last.is_some_and(|last| last == stamp) {
        let why = "if restart has already been triggered within the past second, please wait before attempting to \
                   trigger another";
        return Err(why.to_owned());
    }
    let body = json!({"spec": {"template": {"metadata": {"annotations": {RESTARTED_AT: stamp}}}}});
    Ok(vec![patch_task(&live.key(), Patch::Strategic(body))])
}
