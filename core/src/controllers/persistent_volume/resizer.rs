//! The resizer: grows the volume of a bound claim that asks for more than it has.
//!
//! It stands for the external resizers of all CSI drivers, for volumes whose file system grows without the node's help.
//! Which claims may grow is up to admission (`PersistentVolumeClaimResize`).
//!
//! Source: `kubernetes-csi/external-resizer`, upstream's `pkg/controller/volume/expand`.

use serde_json::json;

use super::{Controller, Plan, event, update};
use crate::api::Subresource;
use crate::client::{Change, EventType, Views, Watched};
use crate::machine::Now;
use crate::object::{Kind, Milli, Object, ObjectKey};
use crate::volume::{capacity, claim_of, class_of, requested, text, value};

/// The controller. It has no state.
#[derive(Debug, Default)]
pub struct Resizer;

const WATCHES: &[Watched] = &[
    Watched { kind: Kind::PERSISTENT_VOLUME_CLAIM, indexes: &[] },
    Watched { kind: Kind::PERSISTENT_VOLUME, indexes: &[] },
    Watched { kind: Kind::STORAGE_CLASS, indexes: &[] },
];

impl Controller for Resizer {
    fn name(&self) -> &'static str {
        "external-resizer"
    }

    fn watches(&self) -> &'static [Watched] {
        WATCHES
    }

    fn keys(&self, change: &Change, _views: &Views, keys: &mut Vec<ObjectKey>) {
        match change.key.kind {
            Kind::PERSISTENT_VOLUME_CLAIM => keys.push(change.key.clone()),
            Kind::PERSISTENT_VOLUME => keys.extend(change.new.iter().filter_map(claim_of).map(|(claim, _)| claim)),
            _ => {}
        }
    }

    fn reconcile(&mut self, views: &Views, key: &ObjectKey, _now: Now) -> Plan {
        let mut plan = Plan::nothing();
        let claim = views.view(Kind::PERSISTENT_VOLUME_CLAIM).get(key);
        let Some(claim) = claim.filter(|c| !c.is_deleting() && text(c, "/status/phase") == "Bound") else {
            return plan;
        };
        let asked = requested(claim);
        if asked <= Milli::parse(text(claim, "/status/capacity/storage")).unwrap_or_default() {
            return plan;
        }
        let volume = views.view(Kind::PERSISTENT_VOLUME).find("", text(claim, "/spec/volumeName"));
        let class = views.view(Kind::STORAGE_CLASS).find("", class_of(claim));
        let (Some(volume), Some(class)) = (volume, class) else { return plan };
        if value(class, "/allowVolumeExpansion") != Some(&json!(true)) {
            return plan;
        }
        grow(claim, volume, &mut plan);
        plan
    }
}

/// The next step: the volume grows first, then the claim's status says so.
fn grow(claim: &Object, volume: &Object, plan: &mut Plan) {
    let asked = json!(text(claim, "/spec/resources/requests/storage"));
    if capacity(volume) < requested(claim) {
        event(
            plan,
            claim,
            EventType::Normal,
            "ExternalExpanding",
            "waiting for an external controller to expand this PVC",
        );
        event(
            plan,
            claim,
            EventType::Normal,
            "Resizing",
            format!("External resizer is resizing volume {}", volume.name()),
        );
        plan.writes.push(update(volume, Subresource::None, |v| v["spec"]["capacity"]["storage"] = asked));
        return;
    }
    let has = json!(text(volume, "/spec/capacity/storage"));
    event(plan, claim, EventType::Normal, "VolumeResizeSuccessful", "Resize volume succeeded");
    plan.writes.push(update(claim, Subresource::Status, |v| {
        v["status"]["capacity"]["storage"] = has;
        v["status"]["allocatedResources"]["storage"] = asked;
    }));
}
