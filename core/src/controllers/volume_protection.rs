//! Protection of claims and volumes in use: a claim that is deleted stays while a pod on a node uses it, a volume while
//! it is bound. Both carry a finalizer, which these controllers remove.
//!
//! Source: upstream's `pkg/controller/volume/pvcprotection` and `pvprotection`.

use std::rc::Rc;

use k8s_openapi::api::core::v1 as core_v1;

use super::groups::Groups;
use super::{Controller, Plan, Write};
use crate::api::Subresource;
use crate::client::{Change, Views, Watched};
use crate::machine::Now;
use crate::object::{Kind, Object, ObjectKey};
use crate::volume::{CLAIM_PROTECTION, VOLUME_PROTECTION, claims, is_shut_down, is_used_by, text};

/// Pods on nodes, by the claims that they use.
type Users = Groups<ObjectKey, ObjectKey>;

/// Keeps claims while pods use them.
#[derive(Debug, Default)]
pub struct ClaimProtection {
    /// Made by the first reconcile, and kept up to date from then on.
    users: Option<Users>,
}

/// Keeps volumes while they are bound.
#[derive(Debug, Default)]
pub struct VolumeProtection;

const CLAIM_WATCHES: &[Watched] =
    &[Watched { kind: Kind::PERSISTENT_VOLUME_CLAIM, indexes: &[] }, Watched { kind: Kind::POD, indexes: &[] }];

const VOLUME_WATCHES: &[Watched] = &[Watched { kind: Kind::PERSISTENT_VOLUME, indexes: &[] }];

impl Controller for ClaimProtection {
    fn name(&self) -> &'static str {
        "pvc-protection-controller"
    }

    fn watches(&self) -> &'static [Watched] {
        CLAIM_WATCHES
    }

    fn observe(&mut self, change: &Change, _now: Now) {
        let Some(users) = &mut self.users else { return };
        if let (Some(Object::Pod(old)), Some(Object::Pod(new))) = (&change.old, &change.new)
            && Rc::ptr_eq(&old.spec, &new.spec)
        {
            // The same node and the same claims: a pod's status changes more often than what it uses.
            return;
        }
        change.old.iter().for_each(|old| note(users, old, false));
        change.new.iter().for_each(|new| note(users, new, true));
    }

    fn keys(&self, change: &Change, _views: &Views, keys: &mut Vec<ObjectKey>) {
        match (&change.old, &change.new) {
            (_, Some(claim)) if change.key.kind == Kind::PERSISTENT_VOLUME_CLAIM => keys.push(claim.key()),
            (Some(Object::Pod(pod)), new) => {
                let ended = new.as_ref().and_then(Object::get::<core_v1::Pod>).is_none_or(is_shut_down);
                if ended {
                    keys.extend(claims(pod).map(|(claim, _)| claim));
                }
            }
            _ => {}
        }
    }

    fn reconcile(&mut self, views: &Views, key: &ObjectKey, _now: Now) -> Plan {
        let mut plan = Plan::nothing();
        let users = self.users.get_or_insert_with(|| all_users(views));
        let Some(claim) = views.view(Kind::PERSISTENT_VOLUME_CLAIM).get(key) else { return plan };
        if !claim.is_deleting() {
            plan.writes.extend(protect(claim, CLAIM_PROTECTION));
            return plan;
        }
        let pods = views.view(Kind::POD);
        let uses = |key: &ObjectKey| pods.get(key).is_some_and(|pod| is_used_by(claim, pod));
        if users.get(key).is_some_and(|pods| pods.iter().any(uses)) {
            return plan;
        }
        // Pods that came before the deletion must be known. Those that come later cannot use the claim any more.
        if pods.revision() < claim.rv() {
            plan.writes.push(Write::ExpectUnused { claim: claim.clone() });
        }
        plan.writes.extend(unprotect(claim, CLAIM_PROTECTION));
        plan
    }
}

impl Controller for VolumeProtection {
    fn name(&self) -> &'static str {
        "pv-protection-controller"
    }

    fn watches(&self) -> &'static [Watched] {
        VOLUME_WATCHES
    }

    fn keys(&self, change: &Change, _views: &Views, keys: &mut Vec<ObjectKey>) {
        keys.extend(change.new.as_ref().map(Object::key));
    }

    fn reconcile(&mut self, views: &Views, key: &ObjectKey, _now: Now) -> Plan {
        let mut plan = Plan::nothing();
        let Some(volume) = views.view(Kind::PERSISTENT_VOLUME).get(key) else { return plan };
        if !volume.is_deleting() {
            plan.writes.extend(protect(volume, VOLUME_PROTECTION));
        } else if text(volume, "/status/phase") != "Bound" {
            plan.writes.extend(unprotect(volume, VOLUME_PROTECTION));
        }
        plan
    }
}

fn all_users(views: &Views) -> Users {
    let mut users = Users::default();
    views.view(Kind::POD).iter().for_each(|(_, pod)| note(&mut users, pod, true));
    users
}

fn note(users: &mut Users, object: &Object, there: bool) {
    if let Object::Pod(pod) = object
        && pod.spec.node.is_some()
    {
        users.put_user(pod, there);
    }
}

fn protect(object: &Object, finalizer: &str) -> Option<Write> {
    let has = object.meta().finalizers.iter().flatten().any(|f| f == finalizer);
    (!has).then(|| {
        let mut copy = object.clone();
        copy.meta_mut().finalizers.get_or_insert_default().push(finalizer.to_owned());
        Write::Update(copy, Subresource::None)
    })
}

fn unprotect(object: &Object, finalizer: &str) -> Option<Write> {
    let has = object.meta().finalizers.iter().flatten().any(|f| f == finalizer);
    has.then(|| {
        let mut copy = object.clone();
        copy.meta_mut().finalizers.get_or_insert_default().retain(|f| f != finalizer);
        Write::Update(copy, Subresource::None)
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::{ClaimProtection, VolumeProtection};
    use crate::controllers::fake_cluster::{Fake, at, object};
    use crate::object::{Kind, Object, ObjectKey};

    fn claim(owner: Option<&str>) -> Object {
        let owners =
            owner.map(|uid| json!([{"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": uid, "controller": true}]));
        object(json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "spec": {"accessModes": ["ReadWriteOnce"]},
            "metadata": {"name": "c", "namespace": "d", "uid": "u", "ownerReferences": owners,
                "finalizers": ["kubernetes.io/pvc-protection"], "deletionTimestamp": "2024-01-01T00:00:00Z"}}))
    }

    fn pod(node: &str, volume: Value, phase: &str, grace: Option<i64>) -> Object {
        let deleted = grace.map(|_| "2024-01-01T00:00:00Z");
        object(json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "d", "uid": "pod",
                "deletionTimestamp": deleted, "deletionGracePeriodSeconds": grace},
            "spec": {"nodeName": node, "containers": [], "volumes": [volume]}, "status": {"phase": phase}}))
    }

    #[test]
    fn a_claim_stays_while_a_pod_on_a_node_uses_it() {
        let named = || json!({"name": "v", "persistentVolumeClaim": {"claimName": "c"}});
        let of_pod = || json!({"name": "v", "ephemeral": {}});
        for (owner, pod, stays) in [
            (None, None, false),
            (None, Some(pod("n", named(), "Running", None)), true),
            (None, Some(pod("", named(), "Pending", None)), false),
            // A pod that has ended still has its volumes.
            (None, Some(pod("n", named(), "Succeeded", None)), true),
            (None, Some(pod("n", named(), "Running", Some(0))), true),
            (None, Some(pod("n", json!({"name": "v", "emptyDir": {}}), "Running", None)), false),
            (None, Some(pod("n", of_pod(), "Running", None)), false),
        ] {
            check(claim(owner), pod, stays);
        }
        let named_p_v = |owner: &str| {
            let mut claim = claim(Some(owner)).to_json();
            claim["metadata"]["name"] = json!("p-v");
            object(claim)
        };
        check(named_p_v("pod"), Some(pod("n", of_pod(), "Running", None)), true);
        check(named_p_v("pod"), Some(pod("n", of_pod(), "Running", Some(0))), false);
        check(named_p_v("other"), Some(pod("n", of_pod(), "Running", None)), false);
    }

    fn check(claim: Object, pod: Option<Object>, stays: bool) {
        let (key, told) = (claim.key(), format!("{claim:?} {pod:?}"));
        let mut fake = Fake::new(&[Kind::PERSISTENT_VOLUME_CLAIM, Kind::POD], pod.into_iter().chain([claim]));
        fake.settle(&mut ClaimProtection::default(), &key, at(0));
        assert_eq!(fake.get(key.kind, key.path()).is_some(), stays, "{told}");
    }

    #[test]
    fn a_claim_goes_with_its_last_pod() {
        let used = json!({"name": "v", "persistentVolumeClaim": {"claimName": "c"}});
        let user = pod("n", used, "Running", None);
        let mut fake = Fake::new(&[Kind::PERSISTENT_VOLUME_CLAIM, Kind::POD], [user.clone(), claim(None)]);
        let (mut controller, key) = (ClaimProtection::default(), claim(None).key());
        assert!(fake.step(&mut controller, &key, at(0)).writes.is_empty());
        fake.remove(&user.key());
        assert_eq!(fake.step(&mut controller, &key, at(1)).writes.len(), 1);
        assert!(fake.get(key.kind, key.path()).is_none());
    }

    #[test]
    fn a_volume_stays_while_it_is_bound() {
        for (phase, stays) in [("Bound", true), ("Released", false), ("Available", false)] {
            let volume = object(json!({"apiVersion": "v1", "kind": "PersistentVolume", "spec": {},
                "metadata": {"name": "v", "finalizers": ["kubernetes.io/pv-protection"],
                    "deletionTimestamp": "2024-01-01T00:00:00Z"},
                "status": {"phase": phase}}));
            let mut fake = Fake::new(&[Kind::PERSISTENT_VOLUME], [volume]);
            let key = ObjectKey::new(Kind::PERSISTENT_VOLUME, "", "v");
            fake.settle(&mut VolumeProtection, &key, at(0));
            assert_eq!(fake.get(key.kind, key.path()).is_some(), stays, "{phase}");
        }
    }
}
