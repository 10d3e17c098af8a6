//! NamespaceLifecycle: nothing is created in a namespace that is not there or is ending, and some are never deleted.
//!
//! Source: kubernetes `staging/src/k8s.io/apiserver/pkg/admission/plugin/namespace/lifecycle/admission.go`.

use super::NAMESPACE_LIFECYCLE;
use crate::api::{Cause, Status};
use crate::apiserver::write::{Deciding, Decision, Write};
use crate::object::{Kind, Object, ObjectKey, is_namespace_ending};

/// Namespaces that cannot be deleted (`immortalNamespaces`).
const IMMORTAL: [&str; 3] = ["default", "kube-system", "kube-public"];

impl Deciding<'_> {
    /// Refuses an object in a namespace that does not exist or is being deleted.
    pub(in crate::apiserver) fn namespace_lifecycle(&self, write: &Write, object: &Object) -> Result<(), Decision> {
        let name = object.namespace();
        if name.is_empty() || !self.runs(NAMESPACE_LIFECYCLE) {
            return Ok(());
        }
        let key = ObjectKey::new(Kind::NAMESPACE, "", name);
        let Some(Object::Namespace(namespace)) = self.known(write, &key) else {
            return Err(Decision::refuse_if(&key, Status::not_found(Kind::NAMESPACE.row(), name)));
        };
        if !is_namespace_ending(namespace) {
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

    /// Refuses to delete a namespace that every cluster needs.
    pub(in crate::apiserver) fn spare_namespace(&self, name: &str) -> Result<(), Status> {
        if IMMORTAL.contains(&name) && self.runs(NAMESPACE_LIFECYCLE) {
            return Err(Status::forbidden(Kind::NAMESPACE.row(), name, "this namespace may not be deleted"));
        }
        Ok(())
    }
}
