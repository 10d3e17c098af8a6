//! TaintToleration: a node scores higher the fewer of its `PreferNoSchedule` taints the pod does not tolerate.

use crate::scheduler::cache::{Nodes, Slot};
use crate::scheduler::framework::{Normalize, Reads, ScorePlugin};
use crate::scheduler::profile::Plugin;
use crate::scheduler::shape::{Effect, Shape};

/// The TaintToleration score.
pub struct PreferredTaints;

impl ScorePlugin for PreferredTaints {
    fn plugin(&self) -> Plugin {
        Plugin::TaintToleration
    }

    fn reads(&self) -> Reads {
        Reads::Node
    }

    fn normalize(&self) -> Normalize {
        Normalize::Reversed
    }

    fn score(&self, shape: &Shape, nodes: &Nodes, slot: Slot) -> i64 {
        let soft = nodes.taints(slot).iter().filter(|t| t.effect == Effect::PreferNoSchedule);
        soft.filter(|t| !shape.tolerates(&t.key, &t.value, t.effect)).count() as i64
    }
}
