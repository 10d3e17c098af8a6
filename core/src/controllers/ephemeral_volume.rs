//! The ephemeral volume controller: makes the claim of each ephemeral volume of a pod, owned by the pod.
//!
//! What comes in: pods and claims. What goes out: claims. A claim that the pod does not own is never taken for its own.
//!
//! Source: upstream's `pkg/controller/volume/ephemeral`.

use k8s_openapi::api::core::v1 as core_v1;
use serde_json::{Value, json};

use super::claim::controller_ref;
use super::{Controller, EventNote, Plan, Write};
use crate::client::{Change, EventType, Views, Watched};
use crate::limits;
use crate::machine::Now;
use crate::object::{Kind, Object, ObjectKey, Pod, controller_of};
use crate::volume::{claims, not_of_pod};

/// The controller. It has no state.
#[derive(Debug, Default)]
pub struct EphemeralVolumeController;

const WATCHES: &[Watched] =
    &[Watched { kind: Kind::POD, indexes: &[] }, Watched { kind: Kind::PERSISTENT_VOLUME_CLAIM, indexes: &[] }];

impl Controller for EphemeralVolumeController {
    fn name(&self) -> &'static str {
        "ephemeral-volume-controller"
    }

    fn watches(&self) -> &'static [Watched] {
        WATCHES
    }

    fn keys(&self, change: &Change, _views: &Views, keys: &mut Vec<ObjectKey>) {
        match (&change.old, &change.new) {
            (None, Some(Object::Pod(pod))) if has_ephemeral(pod) => keys.push(change.key.clone()),
            // A claim that is gone is made again, if its pod is still there.
            (Some(old), None) if change.key.kind == Kind::PERSISTENT_VOLUME_CLAIM => {
                let owner = controller_of(old.meta()).filter(|owner| owner.kind == "Pod");
                keys.extend(owner.map(|owner| ObjectKey::new(Kind::POD, old.namespace(), &owner.name)));
            }
            _ => {}
        }
    }

    fn reconcile(&mut self, views: &Views, key: &ObjectKey, _now: Now) -> Plan {
        let mut plan = Plan::nothing();
        let pod = views.get::<core_v1::Pod>(key).filter(|pod| pod.meta.deletion_timestamp.is_none());
        let Some(pod) = pod else { return plan };
        for (claim, volume) in claims(pod) {
            let Some(template) = volume.ephemeral.as_ref().and_then(|e| e.volume_claim_template.as_ref()) else {
                continue;
            };
            match views.view(Kind::PERSISTENT_VOLUME_CLAIM).get(&claim) {
                None => plan.writes.push(Write::Create(made(pod, &claim, template))),
                Some(there) => {
                    let Some(why) = not_of_pod(pod, there) else { continue };
                    let message = format!("ephemeral volume {}: {why}", volume.name);
                    let about = Object::from(pod.clone());
                    plan.events.push(EventNote { about, type_: EventType::Warning, reason: "FailedBinding", message });
                    plan.requeue(limits::CLAIM_CONFLICT_RETRY);
                }
            }
        }
        plan
    }
}

fn has_ephemeral(pod: &Pod) -> bool {
    pod.spec.shared.volumes.iter().flatten().any(|volume| volume.ephemeral.is_some())
}

fn made(pod: &Pod, claim: &ObjectKey, template: &core_v1::PersistentVolumeClaimTemplate) -> Object {
    let meta = template.metadata.clone().unwrap_or_default();
    let mut value = json!({
        "apiVersion": "v1", "kind": "PersistentVolumeClaim",
        "metadata": {"name": claim.name(), "namespace": claim.namespace(),
            "ownerReferences": [controller_ref(&Object::from(pod.clone()))]},
        "spec": template.spec,
    });
    for (field, map) in [("labels", meta.labels), ("annotations", meta.annotations)] {
        if let Some(map) = map {
            value["metadata"][field] = json!(map);
        }
    }
    if let Some(Value::Null) = value.get("spec") {
        value["spec"] = json!({});
    }
    Object::from_json(value).expect("a claim of a pod's template reads")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::EphemeralVolumeController;
    use crate::controllers::fake_cluster::{Fake, at, object};
    use crate::object::Kind;

    #[test]
    fn each_ephemeral_volume_gets_a_claim_of_its_own() {
        let pod = object(json!({"apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": "p", "namespace": "d", "uid": "pod"},
            "spec": {"containers": [], "volumes": [
                {"name": "a", "ephemeral": {"volumeClaimTemplate": {"metadata": {"labels": {"l": "1"}},
                    "spec": {"accessModes": ["ReadWriteOnce"]}}}},
                {"name": "b", "ephemeral": {"volumeClaimTemplate": {"spec": {}}}},
                {"name": "c", "emptyDir": {}}]}}));
        let foreign = object(json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "spec": {},
            "metadata": {"name": "p-b", "namespace": "d", "uid": "x"}}));
        let key = pod.key();
        let mut fake = Fake::new(&[Kind::POD, Kind::PERSISTENT_VOLUME_CLAIM], [pod, foreign]);
        let plan = fake.step(&mut EphemeralVolumeController, &key, at(0));
        let told: Vec<&str> = plan.events.iter().map(|e| e.message.as_str()).collect();
        assert_eq!(told, ["ephemeral volume b: PVC d/p-b was not created for pod d/p (pod is not owner)"]);
        let made = fake.get(Kind::PERSISTENT_VOLUME_CLAIM, "d/p-a").expect("it is made").to_json();
        assert_eq!(made["metadata"]["labels"], json!({"l": "1"}));
        assert_eq!(made["metadata"]["ownerReferences"][0]["uid"], "pod");
        assert_eq!(made["spec"]["accessModes"], json!(["ReadWriteOnce"]));
    }
}
