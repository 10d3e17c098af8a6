//! The watches of one process are delayed by different times: it may learn of a child before its owner, or of a pod's
//! end before its deletion.

use std::time::Duration;

use super::draw::Class;
use super::{FaultId, FaultKind, Target, UNTIL_HEALED, lasting};
use crate::files::action::node_set;
use crate::files::fields::Fields;
use crate::files::write;
use crate::scenario::NodeSet;
use crate::world::World;

/// Half of the watches of the processes on these machines are delayed, each by a time of its own. Replies are not
/// delayed, so that a process may know that a write succeeded while its views do not show the write yet.
#[derive(Clone, Debug, PartialEq)]
pub struct Skew {
    /// The machines.
    pub nodes: NodeSet,
    /// The maximum delay.
    pub up_to: Duration,
    /// How long it lasts; `None`: until a `heal` step.
    pub for_: Option<Duration>,
}

impl FaultKind for Skew {
    fn read(f: &Fields<'_>) -> Option<Skew> {
        let up_to = f.require("upTo").and_then(|d| d.duration());
        let for_ = lasting(f);
        Some(Skew { nodes: node_set(f)?, up_to: up_to?, for_: for_? })
    }

    fn write(&self) -> write::Fields {
        write::lasting(vec![write::nodes(&self.nodes), ("upTo", write::duration(self.up_to))], self.for_)
    }

    fn targets(&self) -> Vec<Target<'_>> {
        vec![Target::Nodes(&self.nodes)]
    }

    fn node_sets_mut(&mut self) -> Vec<&mut NodeSet> {
        vec![&mut self.nodes]
    }

    fn times_mut(&mut self) -> Vec<&mut Duration> {
        [&mut self.up_to].into_iter().chain(&mut self.for_).collect()
    }

    fn describe(&self) -> String {
        format!("watches of {} run apart by up to {:?}", self.nodes, self.up_to)
    }

    fn lasts(&self) -> Option<Duration> {
        self.for_
    }

    fn disturbs_control(&self) -> Option<Duration> {
        Some(self.for_.unwrap_or(UNTIL_HEALED))
    }

    fn strike(&self, world: &mut World, id: FaultId) {
        for host in world.hosts(&self.nodes) {
            world.skews.entry(host).or_default().set(id, self.up_to);
        }
    }

    fn heal(&self, world: &mut World, id: FaultId) {
        world.skews.retain(|_, skew| {
            skew.remove(id);
            skew.get().is_some()
        });
    }
}

pub(super) const CLASSES: &[Class] = &[
    Class {
        name: "skew",
        rate: (0, 3),
        draw: |draw| {
            let (nodes, up_to) = (draw.control_or_nodes(2, 10), draw.seconds(0, 5));
            draw.push(draw.at, Skew { nodes, up_to, for_: draw.lasts });
        },
    },
    // Some views of one machine are so late that its processes act on others meanwhile.
    Class {
        name: "held-view",
        rate: (0, 3),
        draw: |draw| {
            let (nodes, up_to) = (draw.control_machine(), draw.seconds(5, 90));
            draw.push(draw.at, Skew { nodes, up_to, for_: draw.lasts });
        },
    },
];
