//! TaintToleration: the fewer untolerated `PreferNoSchedule` taints, the better.

use crate::scheduler::cache::{Nodes, Slot};
use crate::scheduler::framework::{Normalize, Reads, ScorePlugin};
use crate::scheduler::shape::{Effect, Shape};

/// The plug-in.
pub struct PreferredTaints;

impl ScorePlugin for PreferredTaints {
    fn name(&self) -> &'static str {
        "TaintToleration"
    }

    fn reads(&self) -> Reads {
        Reads::Node
    }

    fn weight(&self) -> i64 {
        3
    }

    fn normalize(&self) -> Normalize {
        Normalize::Reversed
    }

    fn score(&self, shape: &Shape, nodes: &Nodes, slot: Slot) -> i64 {
        let soft = nodes.taints(slot).iter().filter(|t| t.effect == Effect::PreferNoSchedule);
        soft.filter(|t| !shape.tolerates(&t.key, &t.value, t.effect)).count() as i64
    }
}
