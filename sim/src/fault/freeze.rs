//! Machines freeze: their processes are paused, as by the migration of a virtual machine or by SIGSTOP, and go on
//! without knowing of it. Their clocks go on.

use std::time::Duration;

use super::draw::Class;
use super::{FaultId, FaultKind, Target, lasting};
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

    fn describe(&self) -> String {
        format!("{} freezes", self.nodes)
    }

    fn lasts(&self) -> Option<Duration> {
        self.for_
    }

    fn strike(&self, world: &mut World, id: FaultId) {
        world.hosts(&self.nodes).into_iter().for_each(|host| world.freeze(host, id));
    }

    fn heal(&self, world: &mut World, id: FaultId) {
        world.thaw(id);
    }
}

pub(super) const CLASSES: &[Class] = &[Class {
    name: "freeze",
    rate: (0, 3),
    draw: |draw| {
        let nodes = if draw.rng.chance(2, 3) { draw.control_machine() } else { draw.some_nodes(4) };
        let for_ = Some(draw.seconds(1, 45));
        draw.push(draw.at, Freeze { nodes, for_ });
    },
}];
