//! Namespaces: what may be created in them, how they are deleted, and those that every cluster has.

use serde_json::json;

use super::delete::{mark, set_finalizers};
use super::write::{Commit, Deciding, Decision, Origin, Write};
use super::{ApiServer, Out};
use crate::api::{Call, Cause, DeleteOptions, Request, Response, Status, WriteOptions};
use crate::machine::Now;
use crate::object::{Kind, Object, ObjectKey};
use crate::store::StoreKey;

/// Namespaces that cannot be deleted (NamespaceLifecycle's `immortalNamespaces`).
const IMMORTAL: [&str; 3] = ["default", "kube-system", "kube-public"];

/// Objects that every cluster has from the start: kind, name and, for a PriorityClass, its value.
const BOOTSTRAP: [(Kind, &str, i32); 6] = [
    (Kind::NAMESPACE, "default", 0),
    (Kind::NAMESPACE, "kube-system", 0),
    (Kind::NAMESPACE, "kube-public", 0),
    (Kind::NAMESPACE, "kube-node-lease", 0),
    (Kind::PRIORITY_CLASS, "system-cluster-critical", 2_000_000_000),
    (Kind::PRIORITY_CLASS, "system-node-critical", 2_000_001_000),
];

impl Deciding<'_> {
    /// NamespaceLifecycle: nothing may be created in a namespace that does not exist or is being deleted.
    pub(super) fn namespace_lifecycle(&self, write: &Write, object: &Object) -> Result<(), Decision> {
        let name = object.namespace();
        if name.is_empty() {
            return Ok(());
        }
        let key = ObjectKey::new(Kind::NAMESPACE, "", name);
        let Some(Object::Namespace(namespace)) = self.object(write, &key) else {
            return Err(Decision::refuse_if(&key, Status::not_found(Kind::NAMESPACE.row(), name)));
        };
        if namespace.status.phase.as_deref() != Some("Terminating") && namespace.meta.deletion_timestamp.is_none() {
            return Ok(());
        }
        let why = format!("unable to create new content in namespace {name} because it is being terminated");
        let mut status = Status::forbidden(object.info(), object.name(), &why);
        if let Some(details) = &mut status.details {
            details.causes.push(Cause {
                reason: "NamespaceTerminating".to_owned(),
                message: format!("namespace {name} is being terminated"),
                field: "metadata.namespace".to_owned(),
            });
        }
        Err(Decision::refuse_if(&key, status))
    }

    /// Deletes a namespace: it becomes Terminating, and is removed once the finalizers in its spec are gone.
    pub(super) fn delete_namespace(&self, key: &ObjectKey, current: &Object, options: &DeleteOptions) -> Decision {
        if IMMORTAL.contains(&key.name()) {
            let status = Status::forbidden(key.kind.row(), key.name(), "this namespace may not be deleted");
            return Decision::refuse(status);
        }
        let Object::Namespace(namespace) = current else { unreachable!("a key of a namespace names one") };
        let mut new = current.clone();
        set_finalizers(&mut new, options);
        let held = new.meta().finalizers.as_ref().is_some_and(|f| !f.is_empty());
        if current.is_deleting() {
            let waits = held || namespace.spec.finalizers.as_ref().is_some_and(|f| !f.is_empty());
            if !waits {
                return Decision::Commit(Commit::remove(key, current, new));
            }
            let as_is = Ok(Response::Object(current.clone()));
            return Decision::AnswerIf(vec![StoreKey::Object(key.clone())], as_is);
        }
        if !held && namespace.spec.finalizers.as_ref().is_none_or(Vec::is_empty) {
            return Decision::Commit(Commit::remove(key, current, new));
        }
        mark(&mut new, self.now.wall, 0);
        if let Object::Namespace(ns) = &mut new {
            ns.status_mut().phase = Some("Terminating".to_owned());
        }
        Decision::Commit(Commit::replace(key, current, new))
    }
}

impl ApiServer {
    /// Creates those objects that every cluster has from the start and that do not exist.
    pub(super) fn bootstrap(&mut self, now: Now, out: &mut Vec<Out>) {
        for (kind, name, value) in BOOTSTRAP {
            if self.cache.get(&ObjectKey::new(kind, "", name)).is_some() {
                continue;
            }
            let mut manifest = json!({
                "apiVersion": kind.row().api_version(), "kind": kind.row().kind, "metadata": {"name": name},
            });
            if kind == Kind::PRIORITY_CLASS {
                manifest["value"] = json!(value);
                manifest["description"] = json!(if name == "system-node-critical" {
                    "Used for system critical pods that must not be moved from their current node."
                } else {
                    "Used for system critical pods that must run in the cluster, but can be moved to another node if \
                     necessary."
                });
            }
            let object = Object::from_json(manifest).expect("a built-in object reads back");
            let call = Call::Create { object, options: WriteOptions::default() };
            let user = std::rc::Rc::from("system:apiserver");
            self.write(now, Write::new(Origin::Bootstrap, Request::new(&user, call)), out);
        }
    }
}
