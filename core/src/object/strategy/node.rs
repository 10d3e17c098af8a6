//! Node. Source: `pkg/registry/core/node/strategy.go`.

use std::borrow::Cow;
use std::rc::Rc;

use k8s_openapi::api::core::v1 as core_v1;

use super::{Strategy, flag};
use crate::object::{
    FieldError, Inline, Kind, Node, Obj, Object, ObjectMeta, ReportedNodeStatus, Resource, validation,
};

resource!(Node core_v1::Node, NODE, Rc core_v1::NodeSpec, Inline ReportedNodeStatus,
|w| (w.metadata, w.spec.unwrap_or_default(), ReportedNodeStatus::new(w.status.unwrap_or_default())),
|meta, spec, status| Self {
    metadata: meta,
    spec: Some(spec.clone()),
    status: Some(status.to_whole()).filter(|status| *status != Default::default()),
});

impl Strategy for core_v1::Node {
    /// A kubelet registers its node with a status, so the status is kept.
    fn prepare_for_create(_node: &mut Node) {}

    fn validate(node: &Node, errors: &mut Vec<FieldError>) {
        validation::node(&node.spec, errors);
    }

    fn validate_update(new: &Node, old: &Node, errors: &mut Vec<FieldError>) {
        if !Rc::ptr_eq(&new.spec, &old.spec) {
            validation::node(&new.spec, errors);
            validation::node_update(&new.spec, &old.spec, errors);
        }
    }

    fn field<'a>(node: &'a Node, _path: &str) -> Option<Cow<'a, str>> {
        flag(node.spec.unschedulable)
    }
}
