//! The namespace controller: deletes the contents of a namespace that is being deleted, then removes its finalizer.
//!
//! It watches only namespaces. After it has deleted everything, it asks the store for each kind whether any objects are
//! left. Pods are deleted first, so that the network policies that apply to them exist longer than they do (KEP-5080,
//! ordered namespace deletion).

use std::collections::BTreeMap;
use std::rc::Rc;

use k8s_openapi::api::core::v1::{self as core_v1, NamespaceCondition};

use super::{Controller, EventNote, Plan, Write};
use crate::api::{Status, Subresource};
use crate::client::{Change, Views, Watched};
use crate::features::FeatureGates;
use crate::machine::{Now, Wall};
use crate::object::{Kind, Kinds, Namespace, ObjectKey};

const FINALIZER: &str = "kubernetes";
const TERMINATING: &str = "Terminating";

static WATCHED: &[Watched] = &[Watched { kind: Kind::NAMESPACE, indexes: &[] }];

/// The namespace to look at after a change of it or of an object in it with this name, for controllers by which every
/// namespace has such an object.
pub(super) fn namespace_with(change: &Change, name: &str) -> Option<ObjectKey> {
    let key = &change.key;
    if key.kind == Kind::NAMESPACE {
        return change.new.is_some().then(|| key.clone());
    }
    (key.name() == name).then(|| ObjectKey::new(Kind::NAMESPACE, "", key.namespace()))
}

/// What prevented the last attempt from completing.
#[derive(Debug)]
enum Obstacle {
    /// Objects are left: `pods. has 2 resource instances`, and the finalizers that hold them.
    Remaining(String, Vec<String>),
    /// A delete failed.
    Failure(String),
}

/// Deletes the contents of namespaces and finalizes them. Keys are namespaces.
#[derive(Debug, Default)]
pub struct NamespaceController {
    kinds: Kinds,
    features: FeatureGates,
    obstacles: BTreeMap<ObjectKey, Obstacle>,
}

impl NamespaceController {
    /// Creates it for a world with these kinds. If a custom kind is no longer served, the API server reports that, and
    /// the kind has no objects.
    pub fn new(kinds: Kinds, features: FeatureGates) -> NamespaceController {
        NamespaceController { kinds, features, ..NamespaceController::default() }
    }
}

impl Controller for NamespaceController {
    fn name(&self) -> &'static str {
        "namespace-controller"
    }

    fn watches(&self) -> &'static [Watched] {
        WATCHED
    }

    fn keys(&self, change: &Change, _views: &Views, keys: &mut Vec<ObjectKey>) {
        let goes = change.new.as_ref().is_some_and(crate::object::Object::is_deleting);
        if goes || change.new.is_none() && self.obstacles.contains_key(&change.key) {
            keys.push(change.key.clone());
        }
    }

    fn reconcile(&mut self, views: &Views, key: &ObjectKey, now: Now) -> Plan {
        let mut plan = Plan::nothing();
        let namespace = views.get::<core_v1::Namespace>(key).filter(|n| n.meta.deletion_timestamp.is_some());
        let Some(namespace) = namespace else {
            self.obstacles.remove(key);
            return plan;
        };
        if !namespace.spec.finalizers.iter().flatten().any(|f| f == FINALIZER) {
            return plan;
        }
        if let Some(next) = with_status(namespace, self.obstacles.get(key), now.wall) {
            plan.writes.push(Write::Update(next.into(), Subresource::Status));
            return plan;
        }
        // Changes nothing, but fails unless the stored namespace is still this one: the deletes below use its name and
        // must not affect another namespace with the same name.
        plan.writes.push(Write::Update(namespace.clone().into(), Subresource::Status));
        let name: Rc<str> = Rc::from(key.name());
        let emptied = |k: &Kind| self.kinds.info(*k).namespaced && *k != Kind::POD && self.features.serves(*k);
        let kinds: Vec<Kind> = self.kinds.all_stored().filter(emptied).collect();
        for group in [&[Kind::POD][..], &kinds] {
            let each = |kind: &Kind| (*kind, Rc::clone(&name));
            plan.writes
                .extend(group.iter().map(each).map(|(kind, namespace)| Write::DeleteCollection { kind, namespace }));
            plan.writes.extend(group.iter().map(each).map(|(kind, namespace)| Write::ExpectEmpty { kind, namespace }));
        }
        let mut next = namespace.clone();
        if let Some(list) = &mut next.spec_mut().finalizers {
            list.retain(|f| f != FINALIZER);
        }
        plan.writes.push(Write::Update(next.into(), Subresource::Finalize));
        plan
    }

    fn failed(&mut self, _views: &Views, key: &ObjectKey, write: &Write, error: &Status) -> Option<EventNote> {
        let obstacle = match write {
            Write::ExpectEmpty { .. } => {
                let causes = error.details.iter().flat_map(|details| &details.causes);
                Obstacle::Remaining(error.message.to_string(), causes.map(|cause| cause.message.clone()).collect())
            }
            Write::DeleteCollection { .. } => Obstacle::Failure(error.message.to_string()),
            Write::Create(_)
            | Write::Update(..)
            | Write::Patch { .. }
            | Write::SetScale { .. }
            | Write::Delete { .. }
            | Write::ExpectUnused { .. }
            | Write::ExpectMissing { .. } => return None,
        };
        self.obstacles.insert(key.clone(), obstacle);
        None
    }
}

/// The namespace with the status that it should have; `None` if it has that status.
fn with_status(namespace: &Namespace, obstacle: Option<&Obstacle>, wall: Wall) -> Option<Namespace> {
    let mut next = namespace.clone();
    let mut changed = false;
    if next.status.phase.as_deref() != Some(TERMINATING) {
        next.status_mut().phase = Some(TERMINATING.to_owned());
        changed = true;
    }
    if let Some(obstacle) = obstacle {
        for (type_, status, reason, message) in conditions(obstacle) {
            let known = namespace.status.conditions.iter().flatten().find(|c| c.type_ == type_);
            if known.is_some_and(|c| c.status == status && c.message.as_ref() == Some(&message)) {
                continue;
            }
            let since = known.filter(|c| c.status == status).and_then(|c| c.last_transition_time.clone());
            let list = next.status_mut().conditions.get_or_insert_default();
            list.retain(|c| c.type_ != type_);
            list.push(NamespaceCondition {
                type_: type_.to_owned(),
                status: status.to_owned(),
                reason: Some(reason.to_owned()),
                message: Some(message),
                last_transition_time: Some(since.unwrap_or_else(|| wall.to_time())),
            });
            changed = true;
        }
    }
    changed.then_some(next)
}

fn conditions(obstacle: &Obstacle) -> Vec<(&'static str, &'static str, &'static str, String)> {
    let fine = |type_, reason, message: &str| (type_, "False", reason, message.to_owned());
    let mut all = vec![
        fine("NamespaceDeletionDiscoveryFailure", "ResourcesDiscovered", "All resources successfully discovered"),
        fine(
            "NamespaceDeletionGroupVersionParsingFailure",
            "ParsedGroupVersions",
            "All legacy kube types successfully parsed",
        ),
    ];
    let deleted = "All content successfully deleted, may be waiting on finalization";
    match obstacle {
        Obstacle::Remaining(what, held) => {
            all.push(fine("NamespaceDeletionContentFailure", "ContentDeleted", deleted));
            let message = format!("Some resources are remaining: {what}");
            all.push(("NamespaceContentRemaining", "True", "SomeResourcesRemain", message));
            let finalizers = "NamespaceFinalizersRemaining";
            all.push(if held.is_empty() {
                fine(finalizers, "ContentHasNoFinalizers", "All content-preserving finalizers finished")
            } else {
                let message = format!("Some content in the namespace has finalizers remaining: {}", held.join(", "));
                (finalizers, "True", "SomeFinalizersRemain", message)
            });
        }
        Obstacle::Failure(what) => {
            let message = format!("Failed to delete all resource types, 1 remaining: {what}");
            all.push(("NamespaceDeletionContentFailure", "True", "ContentDeletionFailed", message));
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::{FeatureGates, Kinds, NamespaceController, Write};
    use crate::api::{Status, Subresource};
    use crate::controllers::Controller;
    use crate::controllers::fake_cluster::{Fake, at, object, with};
    use crate::object::{Kind, Object, ObjectKey};
    use serde_json::json;

    fn going() -> Object {
        object(json!({"apiVersion":"v1","kind":"Namespace","metadata":{"name":"n","uid":"u",
            "deletionTimestamp":"2024-01-01T00:00:00Z"},"spec":{"finalizers":["kubernetes"]},"status":{"phase":"Terminating"}}))
    }

    fn key() -> ObjectKey {
        ObjectKey::new(Kind::NAMESPACE, "", "n")
    }

    #[test]
    fn it_is_emptied_pods_first_before_it_goes() {
        let fake = Fake::new(&[Kind::NAMESPACE], [going()]);
        let on = FeatureGates { generic_workload: true, gang_scheduling: true };
        let plan = NamespaceController::new(Kinds::default(), on).reconcile(&fake.views, &key(), at(0));
        let told =
            |k: Kind| plan.writes.iter().position(|w| matches!(w, Write::DeleteCollection { kind, .. } if *kind == k));
        let asked =
            |k: Kind| plan.writes.iter().position(|w| matches!(w, Write::ExpectEmpty { kind, .. } if *kind == k));
        for kind in Kind::all_stored().filter(|k| k.row().namespaced) {
            assert!(told(kind).unwrap() < asked(kind).unwrap(), "{kind}");
            assert!(kind == Kind::POD || asked(Kind::POD) < told(kind), "{kind}");
        }
        assert!(told(Kind::NODE).is_none());
        let last = plan.writes.last().unwrap();
        assert!(matches!(last, Write::Update(Object::Namespace(n), Subresource::Finalize)
            if n.spec.finalizers.as_ref().unwrap().is_empty()));
    }

    #[test]
    fn others_are_left_alone() {
        for patch in [
            json!({"metadata":{"deletionTimestamp":null}}),
            json!({"spec":{"finalizers":["example.com/mine"]}}),
            json!({"spec":{"finalizers":null}}),
        ] {
            let fake = Fake::new(&[Kind::NAMESPACE], [with(going(), patch)]);
            assert!(NamespaceController::default().reconcile(&fake.views, &key(), at(0)).writes.is_empty());
        }
    }

    #[test]
    fn what_remains_is_told_in_conditions() {
        let mut fake = Fake::new(&[Kind::NAMESPACE], [with(going(), json!({"status":{"phase":"Active"}}))]);
        let mut controller = NamespaceController::default();
        let only_status =
            |plan: &crate::controllers::Plan| matches!(plan.writes[..], [Write::Update(_, Subresource::Status)]);
        assert!(only_status(&fake.step(&mut controller, &key(), at(0))), "first the phase");
        let write = Write::ExpectEmpty { kind: Kind::POD, namespace: "n".into() };
        let pod = |finalizers: serde_json::Value| {
            let metadata = json!({"name": "p", "namespace": "n", "finalizers": finalizers});
            object(json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata}))
        };
        let left = [pod(json!(["b.com/x", "a.com/x"])), pod(json!(["b.com/x"]))];
        controller.failed(&fake.views, &key(), &write, &Write::not_empty(Kind::POD.row(), &left));
        assert!(only_status(&fake.step(&mut controller, &key(), at(1))));
        assert!(!only_status(&controller.reconcile(&fake.views, &key(), at(2))), "told once");
        let json = fake.get(Kind::NAMESPACE, "n").unwrap().to_json();
        let list = json["status"]["conditions"].as_array().unwrap();
        let remaining = list.iter().find(|c| c["type"] == "NamespaceContentRemaining").unwrap();
        assert_eq!(remaining["message"], "Some resources are remaining: pods. has 2 resource instances");
        let finalizers = list.iter().find(|c| c["type"] == "NamespaceFinalizersRemaining").unwrap();
        assert_eq!(
            finalizers["message"],
            "Some content in the namespace has finalizers remaining: a.com/x in 1 resource instances, b.com/x in 2 \
             resource instances"
        );
        controller.failed(&fake.views, &key(), &write, &Write::not_empty(Kind::POD.row(), &[pod(json!(null))]));
        fake.step(&mut controller, &key(), at(2));
        let json = fake.get(Kind::NAMESPACE, "n").unwrap().to_json();
        let list = json["status"]["conditions"].as_array().unwrap();
        let finalizers = list.iter().find(|c| c["type"] == "NamespaceFinalizersRemaining").unwrap();
        assert_eq!((&finalizers["status"], &finalizers["reason"]), (&json!("False"), &json!("ContentHasNoFinalizers")));
        let write = Write::DeleteCollection { kind: Kind::POD, namespace: "n".into() };
        controller.failed(&fake.views, &key(), &write, &Status::internal("no"));
        assert!(only_status(&fake.step(&mut controller, &key(), at(3))));
    }
}
