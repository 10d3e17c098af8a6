//! NodeAffinity: a node scores higher the greater the weights of the preferred terms that match it.

use crate::scheduler::cache::{Nodes, Slot};
use crate::scheduler::framework::{Normalize, Reads, ScorePlugin};
use crate::scheduler::shape::Shape;

/// The NodeAffinity score.
pub struct PreferredNodeAffinity;

impl ScorePlugin for PreferredNodeAffinity {
    fn name(&self) -> &'static str {
        "NodeAffinity"
    }

    fn reads(&self) -> Reads {
        Reads::Node
    }

    fn weight(&self) -> i64 {
        2
    }

    fn normalize(&self) -> Normalize {
        Normalize::Proportional
    }

    fn score(&self, shape: &Shape, nodes: &Nodes, slot: Slot) -> i64 {
        let meta = nodes.meta(slot);
        shape.preferred.iter().filter(|(_, term)| term.matches(meta)).map(|(weight, _)| weight).sum()
    }
}
