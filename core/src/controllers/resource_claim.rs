//! The resource claim controller: makes the claims of pods from templates, and takes claims from pods that have ended.
//!
//! What comes in: pods, claims and templates. What goes out: claims, the names of these in pods' statuses, and who may
//! use which claim. A claim that nobody may use any more has no devices any more. Whether a pod is gone is asked of the
//! API server, since the view of pods may lag behind that of claims.
//!
//! Source: upstream's `pkg/controller/resourceclaim`.

use std::collections::BTreeMap;
use std::rc::Rc;

use k8s_openapi::api::core::v1 as core_v1;
use serde_json::{Value, json};

use super::claim::controller_ref;
use super::{Controller, EventNote, Plan, Write};
use crate::api::Subresource;
use crate::client::{Change, EventType, Index, Views, Watched};
use crate::limits;
use crate::machine::Now;
use crate::object::{Dynamic, Kind, Object, ObjectKey, Pod, PodStatus, controller_of, is_pod_terminal};
use crate::resource_claim::{self, FINALIZER, Named, POD_CLAIM_NAME, claims};
use crate::volume;

/// The controller.
#[derive(Debug, Default)]
pub struct ResourceClaimController {
    /// Claims whose devices it has taken, by UID: their finalizer goes too, if nothing else happens to them before.
    deallocated: BTreeMap<ObjectKey, Rc<str>>,
}

const WATCHES: &[Watched] = &[
    Watched { kind: Kind::POD, indexes: &[] },
    Watched { kind: Kind::RESOURCE_CLAIM, indexes: &[Index::Controller] },
    Watched { kind: Kind::RESOURCE_CLAIM_TEMPLATE, indexes: &[] },
];

impl Controller for ResourceClaimController {
    fn name(&self) -> &'static str {
        "resource-claim-controller"
    }

    fn watches(&self) -> &'static [Watched] {
        WATCHES
    }

    fn keys(&self, change: &Change, _views: &Views, keys: &mut Vec<ObjectKey>) {
        let owner = |claim: &Object| {
            let owner = controller_of(claim.meta()).filter(|owner| owner.kind == "Pod");
            owner.map(|owner| ObjectKey::new(Kind::POD, claim.namespace(), &owner.name))
        };
        match (change.key.kind, &change.old, &change.new) {
            (Kind::POD, old, new) => {
                let pod = new.as_ref().or(old.as_ref()).and_then(Object::get::<core_v1::Pod>);
                let Some(pod) = pod.filter(|pod| resource_claim::has_claims(&pod.spec.shared)) else { return };
                if new.is_some() {
                    keys.push(change.key.clone());
                }
                if new.is_none() || is_done(pod) {
                    keys.extend(claims(pod).filter_map(|(_, named)| named.claim().cloned()));
                }
            }
            (Kind::RESOURCE_CLAIM, old, new) => {
                if new.is_some() {
                    keys.push(change.key.clone());
                }
                keys.extend(new.as_ref().or(old.as_ref()).and_then(owner));
            }
            _ => {}
        }
    }

    fn reconcile(&mut self, views: &Views, key: &ObjectKey, _now: Now) -> Plan {
        if key.kind == Kind::POD {
            return views.get::<core_v1::Pod>(key).map(|pod| provide(views, pod)).unwrap_or_default();
        }
        match views.view(Kind::RESOURCE_CLAIM).get(key) {
            Some(Object::Dynamic(claim)) => self.release(views, key, claim),
            _ => {
                self.deallocated.remove(key);
                Plan::nothing()
            }
        }
    }
}

/// Whether a pod needs its claims no more (`isPodDone`): it has ended, or was deleted before it got a node.
fn is_done(pod: &Pod) -> bool {
    is_pod_terminal(pod) || pod.meta.deletion_timestamp.is_some() && pod.spec.node.is_none()
}

/// Makes the claims of a pod, tells the pod of them, and reserves them for it if no scheduler does.
fn provide(views: &Views, pod: &Pod) -> Plan {
    let mut plan = Plan::nothing();
    // A pod that has ended gets no claim in place of the one that it has given back.
    if pod.meta.deletion_timestamp.is_some() || is_done(pod) {
        return plan;
    }
    let mut made: Vec<core_v1::PodResourceClaimStatus> = Vec::new();
    for (claim, named) in claims(pod) {
        let Some(template) = &claim.resource_claim_template_name else { continue };
        let there = named.claim().and_then(|key| views.view(Kind::RESOURCE_CLAIM).get(key));
        let is_its = |there: &Object| resource_claim::not_of_pod(&pod.key(), pod.uid(), there).is_none();
        if matches!(named, Named::NotNeeded) || there.is_some_and(is_its) {
            continue;
        }
        let mut orphans = views.view(Kind::RESOURCE_CLAIM).indexed(Index::Controller, pod.uid());
        let orphan = orphans.find(|orphan| volume::annotation(orphan, POD_CLAIM_NAME) == Some(&claim.name));
        if let Some(orphan) = orphan {
            let resource_claim_name = Some(orphan.name().to_owned());
            made.push(core_v1::PodResourceClaimStatus { name: claim.name.clone(), resource_claim_name });
            continue;
        }
        match views.view(Kind::RESOURCE_CLAIM_TEMPLATE).find(pod.namespace(), template) {
            Some(template) => plan.writes.push(Write::Create(from_template(pod, &claim.name, template))),
            None => {
                let missing = format!("resourceclaimtemplate.resource.k8s.io {template:?} not found");
                let message =
                    format!("PodResourceClaim {}: resource claim template {template:?}: {missing}", claim.name);
                let reason = "FailedResourceClaimCreation";
                let about = Object::from(pod.clone());
                plan.events.push(EventNote { about, type_: EventType::Warning, reason, message });
                plan.requeue(limits::CLAIM_CONFLICT_RETRY);
            }
        }
    }
    if !made.is_empty() {
        let mut status = PodStatus::clone(&pod.status);
        let told = status.rest.get_or_insert_default().resource_claim_statuses.get_or_insert_default();
        told.retain(|known| !made.iter().any(|made| made.name == known.name));
        told.extend(made);
        plan.writes.extend(Write::status(pod, status));
    }
    if pod.spec.node.is_some() {
        reserve(views, pod, &mut plan);
    }
    plan
}

/// Reserves the allocated claims of a pod that was put on a node by somebody else than the scheduler.
fn reserve(views: &Views, pod: &Pod, plan: &mut Plan) {
    for key in claims(pod).filter_map(|(_, named)| named.claim().cloned()) {
        let Some(claim @ Object::Dynamic(dynamic)) = views.view(Kind::RESOURCE_CLAIM).get(&key) else { continue };
        if resource_claim::is_reserved_for(claim, pod.uid()) {
            continue;
        }
        if resource_claim::allocation(claim).is_none() {
            // Nothing else tells of its allocation if other pods share it.
            plan.requeue(limits::CLAIM_CONFLICT_RETRY);
        } else if resource_claim::can_be_reserved(claim) && !claim.is_deleting() {
            let mut consumers = consumers(dynamic);
            consumers.push(json!({"resource": "pods", "name": pod.name(), "uid": pod.uid()}));
            plan.writes.push(with_status(dynamic, |status| status["reservedFor"] = json!(consumers)));
        }
    }
}

/// A claim of a pod's own. The runner chooses its name.
fn from_template(pod: &Pod, name: &str, template: &Object) -> Object {
    let of = |path: &str| volume::value(template, path).cloned().unwrap_or(Value::Null);
    let mut annotations = of("/spec/metadata/annotations");
    if annotations.is_null() {
        annotations = json!({});
    }
    annotations[POD_CLAIM_NAME] = json!(name);
    let mut value = json!({
        "apiVersion": "resource.k8s.io/v1", "kind": "ResourceClaim",
        "metadata": {"generateName": prefix(pod.name(), name), "namespace": pod.namespace(), "annotations": annotations,
            "ownerReferences": [controller_ref(&Object::from(pod.clone()))]},
        "spec": of("/spec/spec"),
    });
    let labels = of("/spec/metadata/labels");
    if !labels.is_null() {
        value["metadata"]["labels"] = labels;
    }
    if value["spec"].is_null() {
        value["spec"] = json!({});
    }
    Object::from_json(value).expect("a claim of a template reads")
}

/// What names of claims begin with. Long names of pod and claim are both cut, in proportion.
fn prefix(pod: &str, claim: &str) -> String {
    let whole = format!("{pod}-{claim}-");
    let most = 57;
    if whole.len() <= most {
        return whole;
    }
    let cut = |name: &str| name[..name.len() * most / whole.len()].to_owned();
    format!("{}-{}", cut(pod), cut(claim))
}

fn consumers(claim: &Dynamic) -> Vec<Value> {
    let all = claim.status.as_ref().and_then(|status| status.get("reservedFor")).and_then(Value::as_array);
    all.cloned().unwrap_or_default()
}

/// The write of a claim with another status.
fn with_status(claim: &Dynamic, change: impl FnOnce(&mut Value)) -> Write {
    let mut claim = claim.clone();
    let mut status = claim.status.as_deref().cloned().unwrap_or_else(|| json!({}));
    change(&mut status);
    claim.status = Some(Rc::new(status));
    Write::Update(Object::Dynamic(claim), Subresource::Status)
}

impl ResourceClaimController {
    /// Takes a claim from pods that need it no more, and its devices and finalizer from a claim that nobody needs.
    fn release(&mut self, views: &Views, key: &ObjectKey, claim: &Dynamic) -> Plan {
        let mut plan = Plan::nothing();
        let object = Object::Dynamic(claim.clone());
        let has_finalizer = object.meta().finalizers.iter().flatten().any(|finalizer| finalizer == FINALIZER);
        let is_allocated = resource_claim::allocation(&object).is_some();
        let (all, mut valid) = (consumers(claim), Vec::new());
        for consumer in &all {
            let text = |field: &str| consumer.get(field).and_then(Value::as_str).unwrap_or_default();
            let of_pod = text("apiGroup").is_empty() && text("resource") == "pods";
            let pod = ObjectKey::new(Kind::POD, key.namespace(), text("name"));
            let there = views.get::<core_v1::Pod>(&pod).filter(|pod| pod.uid() == text("uid"));
            match there {
                // What else may use it is not known here.
                _ if !of_pod => valid.push(consumer.clone()),
                Some(pod) if !is_done(pod) => valid.push(consumer.clone()),
                Some(_) => {}
                None => plan.writes.push(Write::ExpectMissing { key: pod, uid: Some(Rc::from(text("uid"))) }),
            }
        }
        if is_allocated {
            self.deallocated.remove(key);
        }
        if valid.len() < all.len() {
            let frees = valid.is_empty() && has_finalizer;
            if frees {
                self.deallocated.insert(key.clone(), Rc::from(object.uid()));
            }
            plan.writes.push(with_status(claim, |status| free(status, &valid, frees)));
            return plan;
        }
        let was_freed = self.deallocated.get(key).is_some_and(|uid| **uid == *object.uid());
        if has_finalizer && valid.is_empty() && is_allocated && object.is_deleting() {
            plan.writes.push(with_status(claim, |status| free(status, &[], true)));
        } else if has_finalizer && valid.is_empty() && !is_allocated && (object.is_deleting() || was_freed) {
            let mut claim = Object::Dynamic(claim.clone());
            claim.meta_mut().finalizers.get_or_insert_default().retain(|finalizer| finalizer != FINALIZER);
            plan.writes.push(Write::Update(claim, Subresource::None));
        } else if valid.is_empty() && !object.is_deleting() && is_for_nobody(views, &object) {
            let (uid, rv) = (Rc::from(object.uid()), Some(object.rv()));
            plan.writes.push(Write::Delete { key: key.clone(), uid, rv, grace_seconds: None, propagation: None });
        }
        plan
    }
}

fn free(status: &mut Value, consumers: &[Value], frees: bool) {
    let Value::Object(status) = status else { return };
    if consumers.is_empty() {
        status.remove("reservedFor");
    } else {
        status.insert("reservedFor".to_owned(), json!(consumers));
    }
    if frees {
        status.remove("allocation");
        status.remove("devices");
    }
}

/// Whether the pod that a claim was made for needs it no more. If it is not there at all, the garbage collector knows.
fn is_for_nobody(views: &Views, claim: &Object) -> bool {
    let Some(owner) = controller_of(claim.meta()).filter(|owner| owner.kind == "Pod") else { return false };
    let pod = views.named::<core_v1::Pod>(claim.namespace(), &owner.name);
    pod.is_some_and(|pod| pod.uid() != owner.uid || is_done(pod))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::{ResourceClaimController, prefix};
    use crate::controllers::Write;
    use crate::controllers::fake_cluster::{Fake, at, object, with};
    use crate::object::{Kind, Object, ObjectKey};

    const KINDS: [Kind; 3] = [Kind::POD, Kind::RESOURCE_CLAIM, Kind::RESOURCE_CLAIM_TEMPLATE];

    fn pod(patch: Value) -> Object {
        let pod = object(json!({"apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": "p", "namespace": "d", "uid": "pod"},
            "spec": {"containers": [], "resourceClaims": [{"name": "gpu", "resourceClaimTemplateName": "t"}]}}));
        with(pod, patch)
    }

    fn template() -> Object {
        object(json!({"apiVersion": "resource.k8s.io/v1", "kind": "ResourceClaimTemplate",
            "metadata": {"name": "t", "namespace": "d"}, "spec": {"metadata": {"labels": {"l": "1"}},
                "spec": {"devices": {"requests": [{"name": "r", "exactly": {"deviceClassName": "c"}}]}}}}))
    }

    /// An allocated claim that these pods may use.
    fn claim(pods: &[&str], patch: Value) -> Object {
        let user = |name: &&str| json!({"resource": "pods", "name": name, "uid": format!("uid-{name}")});
        let claim = object(json!({"apiVersion": "resource.k8s.io/v1", "kind": "ResourceClaim",
            "metadata": {"name": "c", "namespace": "d", "uid": "claim",
                "finalizers": ["resource.kubernetes.io/delete-protection"]},
            "spec": {}, "status": {"allocation": {"devices": {"results": []}},
                "reservedFor": pods.iter().map(user).collect::<Vec<Value>>()}}));
        with(claim, patch)
    }

    fn user(name: &str, phase: &str) -> Object {
        object(json!({"apiVersion": "v1", "kind": "Pod", "spec": {"nodeName": "n", "containers": []},
            "metadata": {"name": name, "namespace": "d", "uid": format!("uid-{name}")}, "status": {"phase": phase}}))
    }

    fn key() -> ObjectKey {
        ObjectKey::from_path(Kind::RESOURCE_CLAIM, "d/c")
    }

    #[test]
    fn a_pod_gets_a_claim_from_its_template_and_is_told_its_name() {
        let pod = pod(json!({}));
        let key = pod.key();
        let mut fake = Fake::new(&KINDS, [pod]);
        let mut controller = ResourceClaimController::default();
        let plan = fake.step(&mut controller, &key, at(0));
        let told: Vec<&str> = plan.events.iter().map(|e| e.message.as_str()).collect();
        let why = "PodResourceClaim gpu: resource claim template \"t\": resourceclaimtemplate.resource.k8s.io \"t\" \
            not found";
        assert_eq!(told, [why]);
        assert!(plan.requeue_after.is_some());
        fake.put(template());
        fake.settle(&mut controller, &key, at(0));
        let claims: Vec<Object> = fake.views.view(Kind::RESOURCE_CLAIM).iter().map(|(_, c)| c.clone()).collect();
        let [claim] = claims.as_slice() else { panic!("{claims:?}") };
        assert!(claim.name().starts_with("p-gpu-"), "{}", claim.name());
        let made = claim.to_json();
        assert_eq!(made["metadata"]["annotations"], json!({"resource.kubernetes.io/pod-claim-name": "gpu"}));
        assert_eq!(made["metadata"]["labels"], json!({"l": "1"}));
        assert_eq!(made["metadata"]["ownerReferences"][0]["uid"], "pod");
        assert_eq!(made["spec"]["devices"]["requests"][0]["name"], "r");
        let status = &fake.get(Kind::POD, "d/p").unwrap().to_json()["status"]["resourceClaimStatuses"];
        assert_eq!(*status, json!([{"name": "gpu", "resourceClaimName": claim.name()}]));
    }

    #[test]
    fn a_claim_is_taken_from_pods_that_have_ended_and_then_freed() {
        let mut fake =
            Fake::new(&KINDS, [user("a", "Succeeded"), user("b", "Running"), claim(&["a", "b", "gone"], json!({}))]);
        let mut controller = ResourceClaimController::default();
        let plan = fake.step(&mut controller, &key(), at(0));
        assert!(matches!(&plan.writes[0], Write::ExpectMissing { uid: Some(uid), .. } if **uid == *"uid-gone"));
        let status = || json!([{"resource": "pods", "name": "b", "uid": "uid-b"}]);
        let now = fake.get(Kind::RESOURCE_CLAIM, "d/c").unwrap().to_json();
        assert_eq!(now["status"]["reservedFor"], status());
        assert!(now["status"]["allocation"].is_object(), "b uses it");
        fake.put(user("b", "Failed"));
        fake.settle(&mut controller, &key(), at(0));
        let now = fake.get(Kind::RESOURCE_CLAIM, "d/c").unwrap().to_json();
        assert_eq!((&now["status"], &now["metadata"]["finalizers"]), (&json!({}), &json!([])));
    }

    #[test]
    fn a_finalizer_that_the_scheduler_has_just_added_stays() {
        let fresh = claim(&[], json!({"status": {"allocation": null}}));
        let mut fake = Fake::new(&KINDS, [fresh]);
        assert!(fake.step(&mut ResourceClaimController::default(), &key(), at(0)).writes.is_empty());
    }

    #[test]
    fn a_deleted_claim_is_freed_and_goes() {
        let going = claim(&[], json!({"metadata": {"deletionTimestamp": "2024-01-01T00:00:00Z"}}));
        let mut fake = Fake::new(&KINDS, [going]);
        fake.settle(&mut ResourceClaimController::default(), &key(), at(0));
        assert!(fake.get(Kind::RESOURCE_CLAIM, "d/c").is_none());
    }

    #[test]
    fn a_claim_of_a_pod_that_has_ended_is_deleted() {
        let owner = json!([{"apiVersion": "v1", "kind": "Pod", "name": "a", "uid": "uid-a", "controller": true}]);
        let owned = claim(&[], json!({"metadata": {"ownerReferences": owner, "finalizers": null}}));
        for (phase, stays) in [("Running", true), ("Succeeded", false)] {
            let mut fake = Fake::new(&KINDS, [user("a", phase), owned.clone()]);
            fake.settle(&mut ResourceClaimController::default(), &key(), at(0));
            assert_eq!(fake.get(Kind::RESOURCE_CLAIM, "d/c").is_some(), stays, "{phase}");
        }
    }

    #[test]
    fn a_pod_that_has_ended_gets_no_other_claim() {
        let ended = pod(json!({"status": {"phase": "Succeeded",
            "resourceClaimStatuses": [{"name": "gpu", "resourceClaimName": "gone"}]}}));
        let key = ended.key();
        let mut fake = Fake::new(&KINDS, [ended, template()]);
        assert!(fake.step(&mut ResourceClaimController::default(), &key, at(0)).writes.is_empty());
    }

    #[test]
    fn a_pod_that_was_put_on_a_node_by_hand_gets_its_claim() {
        let bound =
            pod(json!({"spec": {"nodeName": "n", "resourceClaims": [{"name": "x", "resourceClaimName": "c"}]}}));
        let key = bound.key();
        let mut fake = Fake::new(&KINDS, [bound, claim(&[], json!({}))]);
        fake.settle(&mut ResourceClaimController::default(), &key, at(0));
        let now = fake.get(Kind::RESOURCE_CLAIM, "d/c").unwrap().to_json();
        assert_eq!(now["status"]["reservedFor"], json!([{"resource": "pods", "name": "p", "uid": "pod"}]));
    }

    #[test]
    fn long_names_are_cut() {
        assert_eq!(prefix("p", "gpu"), "p-gpu-");
        let (pod, claim) = ("p".repeat(60), "c".repeat(40));
        assert_eq!(prefix(&pod, &claim), format!("{}-{}", "p".repeat(33), "c".repeat(22)));
    }
}
