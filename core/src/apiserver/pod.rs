//! Binding of pods.

use std::rc::Rc;

use serde_json::json;

use super::admission::webhook::Operation;
use super::write::{Commit, Deciding, Decision, Write};
use crate::api::{Annotations, Call, Response, Status};
use crate::object::{Kind, Object, ObjectKey, PodCondition, Revision, Text};
use crate::store::StoreKey;

impl Deciding<'_> {
    /// `pods/binding`: assigns a pod to a node, once.
    pub(super) fn bind(&mut self, write: &mut Write) -> Decision {
        let Call::Bind { pod: key, uid, node, annotations } = &write.request.call else {
            unreachable!("not a binding")
        };
        let (node, annotations) = &match self.judged_binding(write, key, uid, (node, annotations)) {
            Ok(judged) => judged,
            Err(decision) => return decision,
        };
        let current = self.object(write, key);
        let Some(Object::Pod(pod)) = &current else {
            return Decision::refuse_if(key, Status::not_found(Kind::POD.row(), key.name()));
        };
        if pod.uid() != &**uid {
            let why = format!("Precondition failed: UID in precondition: {uid}, UID in object meta: {}", pod.uid());
            return Decision::refuse_if(key, conflict(key, &why));
        }
        if pod.meta.deletion_timestamp.is_some() {
            let why = format!("pod {} is being deleted, cannot be assigned to a host", key.name());
            return Decision::refuse_if(key, conflict(key, &why));
        }
        match pod.spec.node.as_deref() {
            // An earlier attempt succeeded, but its reply was lost.
            Some(bound) if bound == &**node => {
                let done = Ok(Response::Done { rv: pod.rv });
                return Decision::AnswerIf(vec![StoreKey::Object(key.clone())], done);
            }
            Some(bound) => {
                let why = format!("pod {} is already assigned to node {bound:?}", key.name());
                return Decision::refuse_if(key, conflict(key, &why));
            }
            None => {}
        }
        if pod.spec.scheduling_gates.as_ref().is_some_and(|g| !g.is_empty()) {
            let why = format!("pod {} has non-empty .spec.schedulingGates", key.name());
            return Decision::refuse_if(key, conflict(key, &why));
        }
        let mut bound = pod.clone();
        bound.spec_mut().node = Some(Rc::clone(node));
        if !annotations.is_empty() {
            let own = bound.meta_mut().annotations.get_or_insert_default();
            own.extend(annotations.iter().map(|(key, value)| (key.clone(), value.clone())));
        }
        bound.status_mut().nominated_node_name = Text::EMPTY;
        let scheduled = PodCondition { type_: Text::POD_SCHEDULED, status: Text::TRUE, ..PodCondition::default() };
        bound.status_mut().set_condition_at(self.now.wall, scheduled);
        let old = Object::Pod(pod.clone());
        let mut commit = Commit::replace(key, &old, Object::Pod(bound));
        commit.response = Response::Done { rv: Revision(0) };
        Decision::Commit(commit)
    }
}

impl Deciding<'_> {
    /// The node and the annotations of a binding that policies and webhooks allow, as they have it.
    fn judged_binding(
        &mut self,
        write: &Write,
        key: &ObjectKey,
        uid: &str,
        (node, annotations): (&Rc<str>, &Annotations),
    ) -> Result<(Rc<str>, Annotations), Decision> {
        if !self.consults_about(Kind::POD) {
            return Ok((Rc::clone(node), annotations.clone()));
        }
        let mut binding = json!({"apiVersion": "v1", "kind": "Binding", "target": {"kind": "Node", "name": **node},
            "metadata": {"name": key.name(), "namespace": key.namespace(), "uid": uid}});
        if !annotations.is_empty() {
            binding["metadata"]["annotations"] = json!(annotations);
        }
        let made = self.consult_about_subresource(write, key, (Operation::Create, "binding"), (binding, None))?;
        let node = Rc::from(made["target"]["name"].as_str().unwrap_or_default());
        Ok((node, serde_json::from_value(made["metadata"]["annotations"].clone()).unwrap_or_default()))
    }
}

fn conflict(key: &ObjectKey, why: &str) -> Status {
    let mut status = Status::conflict(Kind::POD.row(), key.name(), why);
    status.message = format!("Operation cannot be fulfilled on pods/binding {:?}: {why}", key.name()).into();
    if let Some(details) = &mut status.details {
        "pods/binding".clone_into(&mut details.kind);
    }
    status
}
