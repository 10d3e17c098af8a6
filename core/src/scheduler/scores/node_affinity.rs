//! NodeAffinity: the more preferred terms match, by weight, the better.

use crate::scheduler::cache::{Nodes, Slot};
use crate::scheduler::framework::{Normalize, Reads, ScorePlugin};
use crate::scheduler::shape::Shape;

/// The plug-in.
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
