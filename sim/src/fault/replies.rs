//! Replies that come late: a process hears by its watches what came of its write before it hears that the write was
//! done, and what others did after it.

use std::time::Duration;

use super::draw::Class;
use super::{FaultId, FaultKind, Target, UNTIL_HEALED, lasting};
use crate::files::action::node_set;
use crate::files::fields::Fields;
use crate::files::write;
use crate::scenario::NodeSet;
use crate::world::World;

/// Each reply to a request of the processes on these machines for one object is delayed by a time of its own. Lists and
/// watches are not delayed: each request is a stream of its own, and streams do not wait for each other (RFC 9113).
#[derive(Clone, Debug, PartialEq)]
pub struct LateReplies {
    /// The machines.
    pub nodes: NodeSet,
    /// The maximum delay.
    pub up_to: Duration,
    /// How long it lasts; `None`: until a `heal` step.
    pub for_: Option<Duration>,
}

impl FaultKind for LateReplies {
    fn read(f: &Fields<'_>) -> Option<LateReplies> {
        let up_to = f.require("upTo").and_then(|d| d.duration());
        let for_ = lasting(f);
        Some(LateReplies { nodes: node_set(f)?, up_to: up_to?, for_: for_? })
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
        format!("replies to {} are late by up to {:?}", self.nodes, self.up_to)
    }

    fn lasts(&self) -> Option<Duration> {
        self.for_
    }

    fn disturbs_control(&self) -> Option<Duration> {
        Some(self.for_.unwrap_or(UNTIL_HEALED))
    }

    fn strike(&self, world: &mut World, id: FaultId) {
        for host in world.hosts(&self.nodes) {
            world.late_replies.entry(host).or_default().set(id, self.up_to);
        }
    }

    fn heal(&self, world: &mut World, id: FaultId) {
        world.late_replies.retain(|_, late| {
            late.remove(id);
            late.get().is_some()
        });
    }
}

pub(super) const CLASSES: &[Class] = &[Class {
    name: "late-replies",
    rate: (0, 3),
    draw: |draw| {
        let (nodes, up_to) = (draw.control_or_nodes(2, 10), draw.seconds(0, 8));
        draw.push(draw.at, LateReplies { nodes, up_to, for_: draw.lasts });
    },
}];
