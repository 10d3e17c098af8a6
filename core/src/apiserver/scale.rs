//! `/scale` of Deployments, ReplicaSets, ReplicationControllers and StatefulSets.

use std::rc::Rc;

use serde_json::{Value, json};

use super::service_ip::Allocation;
use super::write::{Deciding, Decision, Write};
use crate::api::{Call, Patch, Response, Status};
use crate::object::{FieldError, Kind, Labels, Object, ObjectKey, Revision, Selector};
use crate::store::StoreKey;

impl Deciding<'_> {
    pub(super) fn get_scale(&mut self, write: &mut Write) -> Decision {
        let Call::GetScale { key } = &write.request.call else { unreachable!("not a read of a scale") };
        match self.scaled(write, key) {
            // A read without a revision is as fresh as the store.
            Ok((current, scale)) => {
                let fresh = Ok(scale.response(key, current.rv()));
                Decision::AnswerIf(vec![StoreKey::Object(key.clone())], fresh)
            }
            Err(decision) => decision,
        }
    }

    pub(super) fn set_scale(&mut self, write: &mut Write) -> Decision {
        let Call::SetScale { key, replicas, rv, .. } = &write.request.call else { unreachable!("not a scale") };
        let (key, replicas, rv) = (key.clone(), *replicas, *rv);
        match self.scaled(write, &key) {
            Ok((current, scale)) => self.scale_to(&key, &current, scale, replicas, rv),
            Err(decision) => decision,
        }
    }

    /// A patch of the `autoscaling/v1` Scale.
    pub(super) fn patch_scale(&mut self, write: &mut Write) -> Decision {
        let Call::Patch { key, patch, .. } = &write.request.call else { unreachable!("not a patch") };
        let (current, scale) = match self.scaled(write, key) {
            Ok(found) => found,
            Err(decision) => return decision,
        };
        let patched = match patch_json(scale.to_json(key, current.rv()), patch) {
            Ok(patched) => patched,
            Err(status) => return Decision::refuse(status),
        };
        let rv = patched["metadata"]["resourceVersion"].as_str().and_then(|rv| rv.parse().ok()).unwrap_or(0);
        let replicas = &patched["spec"]["replicas"];
        let number = if replicas.is_null() { Some(0) } else { replicas.as_i64().and_then(|n| i32::try_from(n).ok()) };
        let Some(number) = number else {
            let text = format!("Scale in version \"v1\" cannot be handled: spec.replicas: {replicas} is not a number");
            return Decision::refuse(Status::bad_request(text));
        };
        let key = key.clone();
        self.scale_to(&key, &current, scale, number, Revision(rv))
    }

    fn scaled(&self, write: &Write, key: &ObjectKey) -> Result<(Object, Scale), Decision> {
        if !key.kind.info().subresources.contains(&"scale") {
            return Err(Decision::refuse(Status::method_not_allowed(key.kind, "scale")));
        }
        let missing = || Decision::refuse_if(key, Status::not_found(key.kind, key.name()));
        let current = self.object(write, key).ok_or_else(missing)?;
        let scale = Scale::of(&current).ok_or_else(missing)?;
        Ok((current, scale))
    }

    fn scale_to(&self, key: &ObjectKey, current: &Object, scale: Scale, replicas: i32, rv: Revision) -> Decision {
        if replicas < 0 {
            let error = FieldError::invalid("spec.replicas", replicas, "must be greater than or equal to 0");
            return Decision::refuse(Status::invalid(key.kind, key.name(), &[error]));
        }
        if rv.0 != 0 && rv != current.rv() {
            return Decision::refuse_if(key, Status::stale(key.kind, key.name()));
        }
        let mut new = current.clone();
        set_replicas(&mut new, replicas);
        let mut deciding = self.store_change(key, current, new, Allocation::default());
        let answer = Scale { replicas, ..scale };
        match &mut deciding {
            Decision::Commit(commit) => commit.response = answer.response(key, Revision(0)),
            Decision::AnswerIf(_, result @ Ok(_)) => *result = Ok(answer.response(key, current.rv())),
            Decision::Answer(_) | Decision::AnswerIf(..) | Decision::Await(_) | Decision::AwaitEventLease => {}
        }
        deciding
    }
}

/// Applies a patch to the JSON of a Scale. A strategic merge of it is a plain merge: it has no lists.
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

/// What `/scale` shows of an object.
struct Scale {
    replicas: i32,
    current: i32,
    selector: String,
}

impl Scale {
    fn of(object: &Object) -> Option<Scale> {
        let labels = |s: &Selector| s.to_string();
        Some(match object {
            Object::Deployment(o) => Scale {
                replicas: o.spec.replicas.unwrap_or(1),
                current: o.status.replicas.unwrap_or(0),
                selector: Selector::from_label_selector(&o.spec.selector).map(|s| labels(&s)).unwrap_or_default(),
            },
            Object::ReplicaSet(o) => Scale {
                replicas: o.spec.replicas.unwrap_or(1),
                current: o.status.replicas,
                selector: Selector::from_label_selector(&o.spec.selector).map(|s| labels(&s)).unwrap_or_default(),
            },
            Object::ReplicationController(o) => Scale {
                replicas: o.spec.replicas.unwrap_or(1),
                current: o.status.replicas,
                selector: labels(&Selector::from_map(o.spec.selector.as_ref().unwrap_or(&Labels::new()))),
            },
            Object::Dynamic(o) if o.kind == Kind::STATEFUL_SET => {
                let number = |v: Option<&Value>| v.and_then(Value::as_i64).and_then(|n| i32::try_from(n).ok());
                let spec = o.body.get("spec");
                let selector = spec.and_then(|s| s.get("selector")).cloned().unwrap_or_default();
                let selector = serde_json::from_value(selector).unwrap_or_default();
                Scale {
                    replicas: number(spec.and_then(|s| s.get("replicas"))).unwrap_or(1),
                    current: number(o.status.as_ref().and_then(|s| s.get("replicas"))).unwrap_or(0),
                    selector: Selector::from_label_selector(&selector).map(|s| labels(&s)).unwrap_or_default(),
                }
            }
            _ => return None,
        })
    }

    fn response(&self, key: &ObjectKey, rv: Revision) -> Response {
        let Scale { replicas, current, selector } = self;
        Response::Scale { key: key.clone(), replicas: *replicas, current: *current, selector: selector.clone(), rv }
    }

    fn to_json(&self, key: &ObjectKey, rv: Revision) -> Value {
        json!({
            "apiVersion": "autoscaling/v1", "kind": "Scale",
            "metadata": {"name": key.name(), "namespace": key.namespace(), "resourceVersion": rv.to_string()},
            "spec": {"replicas": self.replicas},
            "status": {"replicas": self.current, "selector": self.selector},
        })
    }
}

fn set_replicas(object: &mut Object, replicas: i32) {
    match object {
        Object::Deployment(o) => o.spec_mut().replicas = Some(replicas),
        Object::ReplicaSet(o) => o.spec_mut().replicas = Some(replicas),
        Object::ReplicationController(o) => o.spec_mut().replicas = Some(replicas),
        Object::Dynamic(o) => {
            let body = Rc::make_mut(&mut o.body);
            let spec = body.entry("spec").or_insert_with(|| json!({}));
            if let Value::Object(spec) = spec {
                spec.insert("replicas".to_owned(), json!(replicas));
            }
        }
        _ => unreachable!("a kind without a scale was refused before"),
    }
}
