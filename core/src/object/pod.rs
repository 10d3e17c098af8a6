//! A pod's spec: a [`SharedPodSpec`] that all pods of a template share, and the node's name beside it.

use std::ops::Deref;
use std::rc::Rc;

use k8s_openapi::api::core::v1::PodSpec;

use super::SharedPodSpec;

/// A pod's spec with the node's name held apart, so that binding a pod does not copy the shared spec.
///
/// Dereferences to the shared [`PodSpec`]. Its `node_name` is always `None`: read [`node`](Self::node).
#[derive(Clone, Debug, PartialEq, Default)]
pub struct BoundPodSpec {
    /// Everything but the node's name.
    pub shared: SharedPodSpec,
    /// `spec.nodeName`.
    pub node: Option<Rc<str>>,
}

impl BoundPodSpec {
    /// Splits `nodeName` from a whole spec.
    pub fn new(mut spec: PodSpec) -> BoundPodSpec {
        let node = spec.node_name.take().filter(|n| !n.is_empty()).map(Rc::from);
        BoundPodSpec { shared: spec.into(), node }
    }

    /// The spec of a pod made from this template. It is shared, unless the template sets `nodeName`: a shared spec
    /// never does.
    pub fn of_template(template: &SharedPodSpec) -> BoundPodSpec {
        match template.node_name {
            None => BoundPodSpec { shared: template.clone(), node: None },
            Some(_) => BoundPodSpec::new(PodSpec::clone(template)),
        }
    }

    /// Builds the whole spec, including `nodeName`. Copies everything.
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
