//! Create: a name, the server's metadata, admission, defaults, validation.

use serde_json::Value;

use super::ApiServer;
use super::write::{Commit, Decision, Reply};
use crate::api::{Response, Status, WriteOptions};
use crate::machine::Now;
use crate::object::{Kind, Object, ObjectKey, ObjectMeta};
use crate::store::{Op, StoreKey, Stored};

impl ApiServer {
    /// Chooses the name of an object that has only a `generateName`, and checks its namespace's form.
    pub(super) fn name_object(&mut self, object: &mut Object) -> Result<(), Status> {
        let info = object.kind().info();
        if info.namespaced && object.namespace().is_empty() {
            return Err(Status::bad_request("an empty namespace may not be set during creation"));
        }
        if !info.namespaced && !object.namespace().is_empty() {
            return Err(Status::bad_request("namespace field must be empty for cluster-scoped resources"));
        }
        if object.name().is_empty() {
            let Some(prefix) = object.meta().generate_name.clone().filter(|p| !p.is_empty()) else {
                let error = crate::object::FieldError::required("metadata.name", "name or generateName is required");
                return Err(Status::invalid(object.kind(), "", &[error]));
            };
            // Names have 63 characters at most (names.SimpleNameGenerator keeps 58 of the prefix).
            let prefix: String = prefix.chars().take(58).collect();
            object.meta_mut().name = Some(format!("{prefix}{}", self.rng.name_suffix(5)));
        }
        Ok(())
    }

    pub(super) fn decide_create(
        &mut self,
        now: Now,
        key: &ObjectKey,
        object: &Object,
        options: WriteOptions,
    ) -> Decision {
        if object.rv().0 != 0 {
            return Decision::Refuse(Status::bad_request("resourceVersion should not be set on objects to be created"));
        }
        let mut object = object.clone();
        self.stamp(now, &mut object);
        reset_status(&mut object);
        if let Err(status) = self.admit_create(&mut object) {
            return Decision::Refuse(status);
        }
        let allocated = match self.allocations.for_create(&mut object, &mut self.rng) {
            Ok(allocated) => allocated,
            Err(errors) => return Decision::Refuse(Status::invalid(key.kind, key.name(), &errors)),
        };
        if options.dry_run {
            return Decision::DryRun(Response::Object(object));
        }
        let (compare, mut extra) = allocated;
        extra.extend(fence_of(key, None, &object));
        Decision::Commit(Commit {
            key: key.clone(),
            put: Some(object.clone()),
            compare,
            extra,
            reply: Reply::Object(object),
        })
    }

    /// Metadata that only the server writes.
    fn stamp(&mut self, now: Now, object: &mut Object) {
        let uid = self.rng.uuid();
        let counted = object.kind().info().has_generation;
        let meta: &mut ObjectMeta = object.meta_mut();
        meta.uid = Some(uid);
        meta.creation_timestamp = Some(now.wall.to_time());
        meta.generation = counted.then_some(1);
        meta.deletion_timestamp = None;
        meta.deletion_grace_period_seconds = None;
        meta.self_link = None;
        meta.managed_fields = None;
        meta.resource_version = None;
    }
}

/// Kinds with a status subresource start with an empty status, save those whose strategy keeps what is given.
fn reset_status(object: &mut Object) {
    match object {
        Object::Pod(o) => o.status = Default::default(),
        Object::Namespace(o) => o.status = Default::default(),
        Object::Service(o) => o.status = Default::default(),
        Object::ReplicationController(o) => o.status = Default::default(),
        Object::ReplicaSet(o) => o.status = Default::default(),
        Object::Deployment(o) => o.status = Default::default(),
        Object::PodDisruptionBudget(o) => o.status = Default::default(),
        Object::Dynamic(o) if o.kind.info().subresources.contains(&"status") => {
            o.status = match o.kind {
                Kind::PERSISTENT_VOLUME | Kind::PERSISTENT_VOLUME_CLAIM => {
                    Some(std::sync::Arc::new(serde_json::json!({"phase": "Pending"})))
                }
                _ => None::<std::sync::Arc<Value>>,
            };
        }
        // A node registers with its status; the others have none.
        Object::Node(_)
        | Object::Lease(_)
        | Object::Endpoints(_)
        | Object::EndpointSlice(_)
        | Object::Event(_)
        | Object::ServiceAccount(_)
        | Object::Dynamic(_) => {}
    }
}

/// A Lease that changes hands moves its fence in the same transaction; see [`Fence`](crate::api::Fence).
pub(super) fn fence_of(key: &ObjectKey, old: Option<&Object>, new: &Object) -> Option<Op> {
    let Object::Lease(new) = new else { return None };
    if key.namespace() == crate::object::NODE_LEASE_NAMESPACE {
        return None;
    }
    let same = matches!(old, Some(Object::Lease(old))
        if old.spec.holder_identity == new.spec.holder_identity
            && old.spec.lease_transitions == new.spec.lease_transitions);
    let holder = std::sync::Arc::from(new.spec.holder_identity.as_deref().unwrap_or(""));
    (!same).then(|| Op::Put { key: StoreKey::Fence(key.clone()), value: Stored::Mark(holder), lease: None })
}
