//! NodeAffinity: a node scores higher the greater the weights of the preferred terms, the pod's and those that the
//! profile adds, that match it.

use crate::scheduler::cache::{Nodes, Slot};
use crate::scheduler::framework::{Normalize, Reads, ScorePlugin};
use crate::scheduler::profile::Plugin;
use crate::scheduler::shape::Shape;

/// The NodeAffinity score.
pub struct PreferredNodeAffinity;

impl ScorePlugin for PreferredNodeAffinity {
    fn plugin(&self) -> Plugin {
        Plugin::NodeAffinity
    }

    fn reads(&self) -> Reads {
        Reads::Node
    }

    fn normalize(&self) -> Normalize {
        Normalize::Proportional
    }

    fn score(&self, shape: &Shape, nodes: &Nodes, slot: Slot) -> i64 {
        let meta = nodes.meta(slot);
        let terms = shape.rules.preferred.iter().chain(&shape.preferred);
        terms.filter(|(_, term)| term.matches(meta)).map(|(weight, _)| weight).sum()
    }
}
