//! One claim: finding its volume, asking for one to be made, and its phase.

use serde_json::json;

use super::catalog::Catalog;
use super::matching::{find, mismatch};
use super::{event, update};
use crate::api::Subresource;
use crate::client::{EventType, Views};
use crate::controllers::Plan;
use crate::object::{Kind, Object, ObjectKey};
use crate::volume::{
    BIND_COMPLETED, BOUND_BY_CONTROLLER, NO_PROVISIONER, PROVISIONER, SELECTED_NODE, annotation, claim_of, class_of,
    csi_name, default_class, is_bound, is_for, names_class, text, value, waits_for_consumer,
};

/// Plans the next step for a claim (`syncClaim`).
pub(super) fn sync(catalog: &Catalog, views: &Views, claim: &Object, plan: &mut Plan) {
    if is_bound(claim) {
        return sync_bound(views, claim, plan);
    }
    if claim.is_deleting() {
        return;
    }
    let name = text(claim, "/spec/volumeName");
    if name.is_empty() {
        let class = views.view(Kind::STORAGE_CLASS).find("", class_of(claim));
        let waits = class.is_some_and(waits_for_consumer);
        return match find(catalog, views, claim, waits) {
            Some(volume) => bind(claim, volume, plan),
            None => await_volume(catalog, views, claim, plan),
        };
    }
    match views.view(Kind::PERSISTENT_VOLUME).find("", name) {
        None => phase(claim, "Pending", plan),
        Some(volume) if is_for(volume, claim) => bind(claim, volume, plan),
        Some(volume) if claim_of(volume).is_some() => {
            event(
                plan,
                claim,
                EventType::Warning,
                "FailedBinding",
                format!("volume {name:?} already bound to a different claim."),
            );
            phase(claim, "Pending", plan);
        }
        Some(volume) => match mismatch(volume, claim) {
            Some(why) => {
                event(
                    plan,
                    claim,
                    EventType::Warning,
                    "VolumeMismatch",
                    format!("Cannot bind to requested volume {name:?}: {why}"),
                );
                phase(claim, "Pending", plan);
            }
            None => bind(claim, volume, plan),
        },
    }
}

/// Plans the next step of bringing a claim and a volume together: first the volume names the claim, then the claim the
/// volume.
fn bind(claim: &Object, volume: &Object, plan: &mut Plan) {
    if claim_of(volume).is_none_or(|(_, uid)| uid != claim.uid()) {
        let by_user = is_for(volume, claim);
        plan.writes.push(update(volume, Subresource::None, |v| {
            v["spec"]["claimRef"] = json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim",
                "namespace": claim.namespace(), "name": claim.name(), "uid": claim.uid(),
                "resourceVersion": claim.rv().0.to_string()});
            if !by_user {
                v["metadata"]["annotations"][BOUND_BY_CONTROLLER] = json!("yes");
            }
        }));
        return;
    }
    let by_user = !text(claim, "/spec/volumeName").is_empty();
    plan.writes.push(update(claim, Subresource::None, |v| {
        v["spec"]["volumeName"] = json!(volume.name());
        v["metadata"]["annotations"][BIND_COMPLETED] = json!("yes");
        if !by_user {
            v["metadata"]["annotations"][BOUND_BY_CONTROLLER] = json!("yes");
        }
    }));
}

fn sync_bound(views: &Views, claim: &Object, plan: &mut Plan) {
    let name = text(claim, "/spec/volumeName");
    if name.is_empty() {
        let why = "Bound claim has lost reference to PersistentVolume. Data on the volume is lost!";
        return lost(claim, "ClaimLost", why, plan);
    }
    let volumes = views.view(Kind::PERSISTENT_VOLUME);
    match volumes.find("", name).map(|volume| (volume, claim_of(volume))) {
        // The view of volumes may be older than the binding.
        None if volumes.revision() < claim.rv() => {
            plan.wait_for(Kind::PERSISTENT_VOLUME, crate::limits::GARBAGE_RETRY);
        }
        None => {
            let why = "Bound claim has lost its PersistentVolume. Data on the volume is lost!";
            lost(claim, "ClaimLost", why, plan);
        }
        Some((volume, Some((_, uid)))) if uid == claim.uid() => settle(claim, volume, plan),
        // It does not name the claim any more, or only as a user names it.
        Some((volume, of)) if of.is_none() || is_for(volume, claim) => bind(claim, volume, plan),
        Some(_) => {
            let why = "Two claims are bound to the same volume, this one is bound incorrectly";
            lost(claim, "ClaimMisbound", why, plan);
        }
    }
}

fn lost(claim: &Object, reason: &'static str, why: &str, plan: &mut Plan) {
    if text(claim, "/status/phase") == "Lost" {
        return;
    }
    event(plan, claim, EventType::Warning, reason, why);
    plan.writes.push(update(claim, Subresource::Status, |v| v["status"] = json!({"phase": "Lost"})));
}

/// The status of a claim that has its volume.
fn settle(claim: &Object, volume: &Object, plan: &mut Plan) {
    let modes = value(volume, "/spec/accessModes");
    let is_new = text(claim, "/status/phase") != "Bound";
    let class = value(volume, "/spec/volumeAttributesClassName").filter(|class| class.is_string());
    let has_class = class.is_none() || value(claim, "/status/currentVolumeAttributesClassName") == class;
    if !is_new && value(claim, "/status/accessModes") == modes && has_class {
        return;
    }
    plan.writes.push(update(claim, Subresource::Status, |v| {
        let status = &mut v["status"];
        status["accessModes"] = json!(modes);
        // Later, the capacity may be less than the volume's on purpose: while its file system has yet to grow.
        if is_new {
            status["phase"] = json!("Bound");
            status["capacity"] = json!(value(volume, "/spec/capacity"));
        }
        if let Some(class) = class {
            status["currentVolumeAttributesClassName"] = class.clone();
        }
    }));
}

fn phase(claim: &Object, phase: &str, plan: &mut Plan) {
    if text(claim, "/status/phase") != phase {
        plan.writes.push(update(claim, Subresource::Status, |v| v["status"]["phase"] = json!(phase)));
    }
}

/// A claim for which there is no volume. If its class has a provisioner, the claim is annotated for it.
fn await_volume(catalog: &Catalog, views: &Views, claim: &Object, plan: &mut Plan) {
    let classes = views.view(Kind::STORAGE_CLASS);
    if !names_class(claim)
        && let Some(class) = default_class(classes.iter().map(|(_, class)| class))
    {
        plan.writes.push(update(claim, Subresource::None, |v| v["spec"]["storageClassName"] = json!(class.name())));
        return;
    }
    let name = class_of(claim);
    let class = classes.find("", name);
    if class.is_some_and(waits_for_consumer) && annotation(claim, SELECTED_NODE).is_none() {
        let (reason, message) = waiting(catalog, claim);
        event(plan, claim, EventType::Normal, reason, message);
        return phase(claim, "Pending", plan);
    }
    if name.is_empty() {
        let why = "no persistent volumes available for this claim and no storage class is set";
        event(plan, claim, EventType::Normal, "FailedBinding", why);
        return phase(claim, "Pending", plan);
    }
    let Some(class) = class else {
        let why = format!("storageclass.storage.k8s.io {name:?} not found");
        return event(plan, claim, EventType::Warning, "ProvisioningFailed", why);
    };
    let provisioner = text(class, "/provisioner");
    let by = csi_name(provisioner);
    if provisioner == NO_PROVISIONER || by.starts_with("kubernetes.io/") {
        return event(
            plan,
            claim,
            EventType::Warning,
            "ProvisioningFailed",
            format!("no volume plugin matched name: {provisioner}"),
        );
    }
    if PROVISIONER.iter().any(|key| annotation(claim, key) != Some(by)) {
        plan.writes.push(update(claim, Subresource::None, |v| {
            PROVISIONER.iter().for_each(|key| v["metadata"]["annotations"][*key] = json!(by));
        }));
    }
    let told = format!(
        "Waiting for a volume to be created either by the external provisioner '{by}' or manually by the system \
         administrator. If volume creation is delayed, please verify that the provisioner is running and correctly \
         registered."
    );
    event(plan, claim, EventType::Normal, "ExternalProvisioning", told);
}

/// What a claim waits for whose class waits for a consumer: reason and message.
fn waiting(catalog: &Catalog, claim: &Object) -> (&'static str, String) {
    let pods: Vec<&str> = catalog.consumers(claim.key_ref()).map(ObjectKey::name).collect();
    match pods.as_slice() {
        [] => ("WaitForFirstConsumer", "waiting for first consumer to be created before binding".to_owned()),
        [pod] => ("WaitForPodScheduled", format!("waiting for pod {pod} to be scheduled")),
        pods => ("WaitForPodScheduled", format!("waiting for pods {} to be scheduled", pods.join(","))),
    }
}
