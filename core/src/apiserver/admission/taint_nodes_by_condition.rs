//! TaintNodesByCondition: no pod is scheduled to a new node before the node is known to be ready.
//!
//! Source: kubernetes `plugin/pkg/admission/nodetaint/admission.go`.

use k8s_openapi::api::core::v1::Taint;

use crate::apiserver::write::{Deciding, Decision, Write};
use crate::object::{Object, TAINT_NOT_READY};

impl Deciding<'_> {
    /// Taints a new node.
    pub(super) fn taint_node(&mut self, _write: &Write, object: &mut Object) -> Result<(), Decision> {
        let Object::Node(node) = object else { return Ok(()) };
        let taints = node.spec_mut().taints.get_or_insert_with(Vec::new);
        if !taints.iter().any(|t| t.key == TAINT_NOT_READY && t.effect == "NoSchedule") {
            let (key, effect) = (TAINT_NOT_READY.to_owned(), "NoSchedule".to_owned());
            taints.push(Taint { key, effect, ..Taint::default() });
        }
        Ok(())
    }
}
