//! The `/scale` subresource of Deployments, ReplicaSets, ReplicationControllers, StatefulSets and custom kinds.

use serde_json::{Value, json};

use super::admission::webhook::Operation;
use super::custom::ScalePaths;
use super::service_ip::Allocation;
use super::write::{Deciding, Decision, Write};
use crate::api::{Call, Patch, Response, Scale, Status, Subresource};
use crate::object::structural::at_path;
use crate::object::{FieldError, Object, ObjectKey, Replicas, Revision};
use crate::store::StoreKey;

impl Deciding<'_> {
    pub(super) fn get_scale(&mut self, write: &mut Write) -> Decision {
        let Call::GetScale { key } = &write.request.call else { unreachable!("not a read of a scale") };
        match self.scaled(write, key) {
            // A get without a resourceVersion must be consistent, so the store confirms the object's revision.
            Ok((_, _, scale)) => {
                let fresh = Ok(Response::Scale(Box::new(scale)));
                Decision::AnswerIf(vec![StoreKey::Object(key.clone())], fresh)
            }
            Err(decision) => decision,
        }
    }

    pub(super) fn set_scale(&mut self, write: &mut Write) -> Decision {
        let Call::SetScale { key, replicas, rv, .. } = &write.request.call else { unreachable!("not a scale") };
        let (key, replicas, rv) = (key.clone(), *replicas, *rv);
        match self.scaled(write, &key) {
            Ok((stored, current, scale)) => self.scale_to(write, &key, (&stored, &current), scale, replicas, rv),
            Err(decision) => decision,
        }
    }

    /// Handles a patch of the `autoscaling/v1` Scale.
    pub(super) fn patch_scale(&mut self, write: &mut Write) -> Decision {
        let Call::Patch { key, patch, .. } = &write.request.call else { unreachable!("not a patch") };
        let (stored, current, scale) = match self.scaled(write, key) {
            Ok(found) => found,
            Err(decision) => return decision,
        };
        let patched = match patch_json(to_json(&scale), patch) {
            Ok(patched) => patched,
            Err(status) => return Decision::refuse(status),
        };
        let rv = match base_of(&patched["metadata"]["resourceVersion"]) {
            Ok(rv) => rv,
            Err(status) => return Decision::refuse(status),
        };
        let replicas = &patched["spec"]["replicas"];
        let number = if replicas.is_null() { Some(0) } else { replicas.as_i64().and_then(|n| i32::try_from(n).ok()) };
        let Some(number) = number else {
            let text = format!("Scale in version \"v1\" cannot be handled: spec.replicas: {replicas} is not a number");
            return Decision::refuse(Status::bad_request(text));
        };
        let key = key.clone();
        self.scale_to(write, &key, (&stored, &current), scale, number, rv)
    }

    /// The paths of the replica counts in a custom object; `None` for other kinds.
    fn scale_paths(&self, object: &Object) -> Option<&ScalePaths> {
        self.customs.of(object.kind()).and_then(|custom| custom.scale(&object.info().version))
    }

    /// An object as it is stored and as the request sees it, and its Scale.
    fn scaled(&mut self, write: &Write, key: &ObjectKey) -> Result<(Object, Object, Scale), Decision> {
        let of = self.info(key.kind);
        if !of.has_subresource("scale") {
            return Err(Decision::refuse(Status::method_not_allowed(&of, "scale")));
        }
        let missing = || Decision::refuse_if(key, Status::not_found(&of, key.name()));
        let stored = self.object(write, key).ok_or_else(missing)?;
        let current = self.as_requested(write, &stored)?;
        let scale = scale_of(&current, self.scale_paths(&current)).ok_or_else(missing)?;
        Ok((stored, current, scale))
    }

    fn scale_to(
        &mut self,
        write: &Write,
        key: &ObjectKey,
        (stored, current): (&Object, &Object),
        scale: Scale,
        replicas: i32,
        rv: Revision,
    ) -> Decision {
        if replicas < 0 {
            let error = FieldError::invalid("spec.replicas", replicas, "must be greater than or equal to 0");
            return Decision::refuse(Status::invalid(current.info(), key.name(), &[error]));
        }
        if rv.0 != 0 && rv != current.rv() {
            return Decision::refuse_if(key, Status::stale(current.info(), key.name()));
        }
        let sent = Scale { replicas, ..scale.clone() };
        let judged = (to_json(&sent), Some(to_json(&scale)));
        let made = match self.consult_about_subresource(write, key, (Operation::Update, "scale"), judged) {
            Ok(made) => made,
            Err(decision) => return decision,
        };
        let made = made["spec"]["replicas"].as_i64().and_then(|replicas| i32::try_from(replicas).ok());
        let replicas = made.unwrap_or(0);
        let mut new = current.clone();
        set_replicas(&mut new, self.scale_paths(current), replicas);
        self.track(write, Some(current), &mut new, Subresource::Scale, &current.info().version);
        let mut deciding = match self.customs.of(key.kind).cloned() {
            Some(custom) => self.store_custom(write, &custom, key, stored, current, new),
            None => self.store_change(key, current, new, Allocation::default()),
        };
        let answer = Response::Scale(Box::new(Scale { replicas, ..scale }));
        match &mut deciding {
            Decision::Commit(commit) => commit.response = answer,
            Decision::AnswerIf(_, result @ Ok(_)) => *result = Ok(answer),
            Decision::Answer(_)
            | Decision::AnswerIf(..)
            | Decision::Await(_)
            | Decision::AwaitEventLease
            | Decision::Consult(_) => {}
        }
        deciding
    }
}

/// Applies a patch to the JSON of a Scale. A strategic merge patch is applied as a merge patch, since a Scale has no
/// lists.
fn patch_json(mut scale: Value, patch: &Patch) -> Result<Value, Status> {
    match patch {
        Patch::Merge(body) | Patch::Strategic(body) | Patch::Apply { body, .. } => json_patch::merge(&mut scale, body),
        Patch::Json(body) => {
            let steps: json_patch::Patch = serde_json::from_value(body.clone())
                .map_err(|e| Status::bad_request(format!("error decoding patch: {e}")))?;
            json_patch::patch(&mut scale, &steps).map_err(|e| Status::bad_request(e.to_string()))?;
        }
    }
    Ok(scale)
}

/// The `resourceVersion` of a Scale; zero if it has none.
fn base_of(rv: &Value) -> Result<Revision, Status> {
    let unreadable = |why: String| Status::bad_request(format!("Scale in version \"v1\" cannot be handled: {why}"));
    match rv {
        Value::Null => Ok(Revision(0)),
        Value::String(text) => Revision::parse(text, "metadata.resourceVersion").map_err(|e| unreadable(e.to_string())),
        other => Err(unreadable(format!("metadata.resourceVersion: {other} is not a string"))),
    }
}

/// The Scale of an object. `paths` says where a custom object has its replica counts.
fn scale_of(object: &Object, paths: Option<&ScalePaths>) -> Option<Scale> {
    let custom = |object: &Object| {
        let (Object::Dynamic(o), Some(paths)) = (object, paths) else { return None };
        let selector = paths.selector.as_deref().and_then(|path| at_path(&o.body, o.status.as_deref(), path));
        Some(Replicas {
            wanted: o.count(&paths.spec).unwrap_or(0),
            current: o.count(&paths.status).unwrap_or(0),
            selector: selector.and_then(Value::as_str).unwrap_or("").to_owned(),
        })
    };
    let Replicas { wanted, current, selector } = object.scale().or_else(|| custom(object))?;
    Some(Scale { key: object.key(), replicas: wanted, current, selector, rv: object.rv() })
}

/// The `autoscaling/v1` Scale as JSON.
fn to_json(scale: &Scale) -> Value {
    json!({
        "apiVersion": "autoscaling/v1", "kind": "Scale",
        "metadata": {"name": scale.key.name(), "namespace": scale.key.namespace(),
            "resourceVersion": scale.rv.to_string()},
        "spec": {"replicas": scale.replicas},
        "status": {"replicas": scale.current, "selector": scale.selector},
    })
}

fn set_replicas(object: &mut Object, paths: Option<&ScalePaths>, replicas: i32) {
    match (object, paths) {
        (Object::Dynamic(o), Some(paths)) => o.set_count(&paths.spec, replicas),
        (object, _) => object.set_replicas(replicas),
    }
}
