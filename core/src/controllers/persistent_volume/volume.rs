//! One volume: its phase, and what becomes of it when its claim is gone.

use serde_json::{Value, json};

use super::{event, remove_annotation, update};
use crate::api::Subresource;
use crate::client::{EventType, Views};
use crate::controllers::{Plan, Write};
use crate::limits;
use crate::object::{Kind, Object};
use crate::volume::{BOUND_BY_CONTROLLER, PROVISIONED_BY, annotation, claim_of, text, volume_mode};

/// Plans the next step for a volume (`syncVolume`).
pub(super) fn sync(views: &Views, volume: &Object, plan: &mut Plan) {
    let Some((key, uid)) = claim_of(volume).filter(|(_, uid)| !uid.is_empty()) else {
        return phase(volume, "Available", "", plan);
    };
    let claims = views.view(Kind::PERSISTENT_VOLUME_CLAIM);
    let claim = claims.get(&key).filter(|claim| claim.uid() == uid);
    // A view of claims as old as the binding does not show a claim that was bound since.
    if claim.is_none() && claims.revision() < volume.rv() {
        return plan.wait_for(Kind::PERSISTENT_VOLUME_CLAIM, limits::GARBAGE_RETRY);
    }
    let Some(claim) = claim else { return release(volume, plan) };
    let name = text(claim, "/spec/volumeName");
    if name.is_empty() {
        if volume_mode(claim) != volume_mode(volume) {
            let why = format!(
                "Cannot bind PersistentVolume to requested PersistentVolumeClaim {:?} due to incompatible volumeMode.",
                claim.name()
            );
            event(plan, volume, EventType::Warning, "VolumeMismatch", why);
            let why = format!(
                "Cannot bind PersistentVolume {:?} to requested PersistentVolumeClaim due to incompatible volumeMode.",
                volume.name()
            );
            return event(plan, claim, EventType::Warning, "VolumeMismatch", why);
        }
        plan.wake.push(key);
    } else if name == volume.name() {
        phase(volume, "Bound", "", plan);
    } else if annotation(volume, PROVISIONED_BY).is_some() && reclaim_policy(volume) == "Delete" {
        // It was made for the claim, which has another volume by now.
        release(volume, plan);
    } else {
        unbind(volume, plan);
    }
}

fn reclaim_policy(volume: &Object) -> &str {
    text(volume, "/spec/persistentVolumeReclaimPolicy")
}

/// Gives a volume a phase. What is said of the phase that it has already is left to who said it.
fn phase(volume: &Object, phase: &str, message: &str, plan: &mut Plan) {
    if text(volume, "/status/phase") == phase {
        return;
    }
    plan.writes.push(update(volume, Subresource::Status, |v| {
        v["status"]["phase"] = json!(phase);
        match message {
            "" => drop(v["status"].as_object_mut().and_then(|status| status.remove("message"))),
            message => v["status"]["message"] = json!(message),
        }
    }));
}

/// The claim of a volume is gone.
fn release(volume: &Object, plan: &mut Plan) {
    if !matches!(text(volume, "/status/phase"), "Released" | "Failed") {
        return phase(volume, "Released", "", plan);
    }
    match reclaim_policy(volume) {
        // Whoever provisioned the volume deletes it.
        "Delete" if annotation(volume, PROVISIONED_BY).is_some() => {}
        "Delete" if is_temporary(volume) => plan.writes.push(delete(volume)),
        "Delete" => {
            let name = volume.name();
            let why =
                format!("error getting deleter volume plugin for volume {name:?}: no deletable volume plugin matched");
            fail(volume, "VolumeFailedDelete", &why, plan);
        }
        "Recycle" => fail(volume, "VolumeFailedRecycle", "No recycler plugin found for the volume!", plan),
        _ => {}
    }
}

/// A directory that the plug-in for host paths deletes by itself.
fn is_temporary(volume: &Object) -> bool {
    text(volume, "/spec/hostPath/path").strip_prefix("/tmp/").is_some_and(|rest| !rest.is_empty())
}

fn fail(volume: &Object, reason: &'static str, why: &str, plan: &mut Plan) {
    if text(volume, "/status/phase") != "Failed" {
        event(plan, volume, EventType::Warning, reason, why);
    }
    phase(volume, "Failed", why, plan);
}

/// Deletes a volume at its revision.
pub(super) fn delete(volume: &Object) -> Write {
    Write::Delete {
        key: volume.key(),
        uid: volume.uid().into(),
        rv: Some(volume.rv()),
        grace_seconds: None,
        propagation: None,
    }
}

/// A volume names a claim that has another volume.
fn unbind(volume: &Object, plan: &mut Plan) {
    let by_controller = annotation(volume, BOUND_BY_CONTROLLER).is_some();
    plan.writes.push(update(volume, Subresource::None, |v| {
        if by_controller {
            v["spec"]["claimRef"] = Value::Null;
            remove_annotation(v, BOUND_BY_CONTROLLER);
        } else {
            v["spec"]["claimRef"]["uid"] = Value::Null;
        }
    }));
}
