//! A pod's spec: one shared [`SharedPodSpec`] for all pods of a template, and the node beside it.

use std::ops::Deref;
use std::rc::Rc;

use k8s_openapi::api::core::v1::PodSpec;

use super::SharedPodSpec;

/// A pod's spec with its node kept apart, so that binding a pod copies nothing of the template.
///
/// Dereferences to the shared [`PodSpec`], whose own `node_name` is always `None`: read [`node`](Self::node).
#[derive(Clone, Debug, PartialEq, Default)]
pub struct BoundPodSpec {
    /// Everything but the node's name.
    pub shared: SharedPodSpec,
    /// `spec.nodeName`.
    pub node: Option<Rc<str>>,
}

impl BoundPodSpec {
    /// Takes `nodeName` out of a whole spec.
    pub fn new(mut spec: PodSpec) -> BoundPodSpec {
        let node = spec.node_name.take().filter(|n| !n.is_empty()).map(Rc::from);
        BoundPodSpec { shared: spec.into(), node }
    }

    /// The spec of a pod of this template. It is shared, save where the template itself names a node: a shared spec
    /// names none.
    pub fn of_template(template: &SharedPodSpec) -> BoundPodSpec {
        match template.node_name {
            None => BoundPodSpec { shared: template.clone(), node: None },
            Some(_) => BoundPodSpec::new(PodSpec::clone(template)),
        }
    }

    /// As the whole spec, `nodeName` included. Copies everything.
    pub fn to_whole(&self) -> PodSpec {
        let mut spec = PodSpec::clone(&self.shared);
        spec.node_name = self.node.as_deref().map(str::to_owned);
        spec
    }
}

impl Deref for BoundPodSpec {
    type Target = PodSpec;
    fn deref(&self) -> &PodSpec {
        &self.shared
    }
}

impl PartialEq<PodSpec> for BoundPodSpec {
    fn eq(&self, other: &PodSpec) -> bool {
        *self.shared == *other
    }
}
