//! Machines freeze: their processes are paused, as by the migration of a virtual machine or by SIGSTOP, and go on
//! without knowing of it. Their clocks go on.

use std::time::Duration;

use super::control::ChangeLeader;
use super::draw::Class;
use super::{FaultId, FaultKind, Target, UNTIL_HEALED, lasting};
use crate::files::action::node_set;
use crate::files::fields::Fields;
use crate::files::write;
use crate::scenario::NodeSet;
use crate::world::World;

/// Nothing runs on these machines; what is sent to them is handled afterwards, all at once and in order.
#[derive(Clone, Debug, PartialEq)]
pub struct Freeze {
    /// The machines.
    pub nodes: NodeSet,
    /// How long it lasts; `None`: until a `heal` step.
    pub for_: Option<Duration>,
}

impl FaultKind for Freeze {
    fn read(f: &Fields<'_>) -> Option<Freeze> {
        let for_ = lasting(f);
        Some(Freeze { nodes: node_set(f)?, for_: for_? })
    }

    fn write(&self) -> write::Fields {
        write::lasting(vec![write::nodes(&self.nodes)], self.for_)
    }

    fn targets(&self) -> Vec<Target<'_>> {
        vec![Target::Nodes(&self.nodes)]
    }

    fn node_sets_mut(&mut self) -> Vec<&mut NodeSet> {
        vec![&mut self.nodes]
    }

    fn times_mut(&mut self) -> Vec<&mut Duration> {
        self.for_.iter_mut().collect()
    }

    fn describe(&self) -> String {
        format!("{} freezes", self.nodes)
    }

    fn lasts(&self) -> Option<Duration> {
        self.for_
    }

    fn disturbs_control(&self) -> Option<Duration> {
        Some(self.for_.unwrap_or(UNTIL_HEALED))
    }

    fn strike(&self, world: &mut World, id: FaultId) {
        world.hosts(&self.nodes).into_iter().for_each(|host| world.freeze(host, id));
    }

    fn heal(&self, world: &mut World, id: FaultId) {
        world.thaw(id);
    }
}

pub(super) const CLASSES: &[Class] = &[
    Class {
        name: "freeze",
        rate: (0, 3),
        draw: |draw| {
            let nodes = if draw.rng.chance(2, 3) { draw.control_machine() } else { draw.some_nodes(4) };
            let for_ = Some(draw.seconds(1, 45));
            draw.push(draw.at, Freeze { nodes, for_ });
        },
    },
    // What the leaders have asked for waits in an API server that hangs, and is carried out when others lead.
    Class {
        name: "late-writes",
        rate: (0, 2),
        draw: |draw| {
            let nodes = NodeSet::Machine(format!("api-server-{}", draw.api_server()));
            let (for_, down_for) = (Some(draw.seconds(20, 60)), draw.seconds(30, 60));
            draw.push(draw.at, Freeze { nodes, for_ });
            let soon = Duration::from_millis(draw.rng.below(500));
            draw.push(draw.at + soon, ChangeLeader { down_for });
        },
    },
];
