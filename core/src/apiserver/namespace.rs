//! Namespaces: how they are deleted, and those that every cluster has.

use serde_json::json;

use super::delete::{mark, set_finalizers};
use super::service_range::{DEFAULT_SERVICE_CIDR_NAME, default_service_cidr};
use super::write::{Commit, Deciding, Decision, Origin, Write};
use super::{ApiServer, Out};
use crate::api::{Call, DeleteOptions, Request, Response, WriteOptions};
use crate::machine::Now;
use crate::object::{Kind, Object, ObjectKey};
use crate::store::StoreKey;

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
    /// Deletes a namespace: it becomes Terminating, and is removed once the finalizers in its spec are gone.
    pub(super) fn delete_namespace(&self, key: &ObjectKey, current: &Object, options: &DeleteOptions) -> Decision {
        if let Err(refusal) = self.spare_namespace(key.name()) {
            return Decision::refuse(refusal);
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
            self.create_own(now, object, out);
        }
        let range = ObjectKey::new(Kind::SERVICE_CIDR, "", DEFAULT_SERVICE_CIDR_NAME);
        if self.cache.get(&range).is_none() {
            let range = default_service_cidr(self.config.service_cidr, now.wall);
            self.create_own(now, range, out);
        }
    }

    fn create_own(&mut self, now: Now, object: Object, out: &mut Vec<Out>) {
        let call = Call::Create { object, options: WriteOptions::default() };
        let user = std::rc::Rc::from("system:apiserver");
        self.write(now, Write::new(Origin::Bootstrap, Request::new(&user, call)), out);
    }
}
