//! The scale subresource.

use serde_json::{Value, json};

use super::write::{Decision, Reply};
use super::{ApiServer, Job, Out};
use crate::api::{Call, FromServer, Response, Status, Subresource, WriteOptions};
use crate::machine::Now;
use crate::object::{LabelSelector, Object, ObjectKey, Revision, Selector};

/// The scale of an object, or none for kinds that cannot be scaled.
pub(super) fn response(object: &Object) -> Option<Response> {
    if !object.kind().info().subresources.contains(&"scale") {
        return None;
    }
    let selector = |s: &LabelSelector| Selector::from_label_selector(s).map(|s| s.to_string()).unwrap_or_default();
    let (replicas, current, selector) = match object {
        Object::Deployment(o) => (o.spec.replicas, o.status.replicas.unwrap_or(0), selector(&o.spec.selector)),
        Object::ReplicaSet(o) => (o.spec.replicas, o.status.replicas, selector(&o.spec.selector)),
        Object::ReplicationController(o) => {
            let labels = o.spec.selector.as_ref().map(Selector::from_map).unwrap_or_default();
            (o.spec.replicas, o.status.replicas, labels.to_string())
        }
        Object::Dynamic(o) => {
            let number = |v: Option<&Value>| v.and_then(Value::as_i64).and_then(|n| i32::try_from(n).ok());
            let spec = o.body.get("spec");
            let current = number(o.status.as_ref().and_then(|s| s.get("replicas")));
            let labels = spec.and_then(|s| s.get("selector")).cloned().unwrap_or_else(|| json!({}));
            let labels: Option<LabelSelector> = serde_json::from_value(labels).ok();
            let labels = labels.map(|l| selector(&l)).unwrap_or_default();
            (number(spec.and_then(|s| s.get("replicas"))), current.unwrap_or(0), labels)
        }
        _ => return None,
    };
    Some(Response::Scale { key: object.key(), replicas: replicas.unwrap_or(1), current, selector, rv: object.rv() })
}

impl ApiServer {
    pub(super) fn get_scale(&mut self, job: Job, out: &mut Vec<Out>) {
        let Call::GetScale { key } = &job.request.call else { unreachable!("not a scale: {:?}", job.request.call) };
        let result = match self.cache.get(key) {
            None => Err(Status::not_found(key.kind, key.name())),
            Some(object) => response(object).ok_or_else(|| Status::method_not_allowed(key.kind, "scale")),
        };
        out.push(Out::Client(job.conn, FromServer::Reply(job.id, result)));
    }

    pub(super) fn decide_scale(
        &mut self,
        now: Now,
        key: &ObjectKey,
        replicas: i32,
        rv: Revision,
        current: &Object,
        options: WriteOptions,
    ) -> Decision {
        if rv.0 != 0 && rv != current.rv() {
            return Decision::Refuse(Status::stale(key.kind, key.name()));
        }
        if replicas < 0 {
            let error =
                crate::object::FieldError::invalid("spec.replicas", replicas, "must be greater than or equal to 0");
            return Decision::Refuse(Status::invalid(key.kind, key.name(), &[error]));
        }
        let mut new = current.clone();
        match &mut new {
            Object::Deployment(o) => o.spec_mut().replicas = Some(replicas),
            Object::ReplicaSet(o) => o.spec_mut().replicas = Some(replicas),
            Object::ReplicationController(o) => o.spec_mut().replicas = Some(replicas),
            Object::Dynamic(o) if key.kind.info().subresources.contains(&"scale") => {
                let body = std::sync::Arc::make_mut(&mut o.body);
                let spec = body.entry("spec").or_insert_with(|| json!({}));
                if let Some(spec) = spec.as_object_mut() {
                    spec.insert("replicas".to_owned(), json!(replicas));
                }
            }
            _ => return Decision::Refuse(Status::method_not_allowed(key.kind, "scale")),
        }
        self.replace(now, key, &new, Subresource::None, current, options, Reply::Scale)
    }
}
