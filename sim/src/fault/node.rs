//! Faults of nodes: they lose power and start again, and their agents restart.

use std::time::Duration;

use super::draw::{Class, Draw};
use super::{FaultId, FaultKind, Target, lasting, optional};
use crate::files::action::node_set;
use crate::files::fields::{Field, Fields};
use crate::files::write;
use crate::scenario::NodeSet;
use crate::world::World;

/// Nodes lose power.
#[derive(Clone, Debug, PartialEq)]
pub struct Kill {
    /// The nodes.
    pub nodes: NodeSet,
    /// Whether their disks are lost as well.
    pub disk_lost: bool,
    /// How long they are down; `None`: until a `start` or `heal` step.
    pub for_: Option<Duration>,
}

impl FaultKind for Kill {
    fn read(f: &Fields<'_>) -> Option<Kill> {
        let disk_lost = optional(f, "diskLost", false, Field::boolean);
        let for_ = lasting(f);
        Some(Kill { nodes: node_set(f)?, disk_lost: disk_lost?, for_: for_? })
    }

    fn write(&self) -> write::Fields {
        write::lasting(vec![write::nodes(&self.nodes), ("diskLost", self.disk_lost.into())], self.for_)
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
        format!("kill {}{}", self.nodes, if self.disk_lost { " with its disk" } else { "" })
    }

    fn lasts(&self) -> Option<Duration> {
        self.for_
    }

    fn disturbs_control(&self) -> Option<Duration> {
        None
    }

    fn strike(&self, world: &mut World, id: FaultId) {
        for n in world.node_set(&self.nodes) {
            world.power_off(n, id, self.disk_lost);
        }
    }

    /// A node that another fault also keeps down stays down.
    fn heal(&self, world: &mut World, id: FaultId) {
        for n in world.nodes.ids() {
            world.power_back(n, id);
        }
    }
}

/// Nodes that are down start again, whichever fault took them down.
#[derive(Clone, Debug, PartialEq)]
pub struct Start {
    /// The nodes.
    pub nodes: NodeSet,
}

impl FaultKind for Start {
    fn read(f: &Fields<'_>) -> Option<Start> {
        Some(Start { nodes: node_set(f)? })
    }

    fn write(&self) -> write::Fields {
        vec![write::nodes(&self.nodes)]
    }

    fn targets(&self) -> Vec<Target<'_>> {
        vec![Target::Nodes(&self.nodes)]
    }

    fn node_sets_mut(&mut self) -> Vec<&mut NodeSet> {
        vec![&mut self.nodes]
    }

    fn describe(&self) -> String {
        format!("start {}", self.nodes)
    }

    fn lasts(&self) -> Option<Duration> {
        None
    }

    fn disturbs_control(&self) -> Option<Duration> {
        None
    }

    fn strike(&self, world: &mut World, _id: FaultId) {
        for n in world.node_set(&self.nodes) {
            world.power_on(n);
        }
    }

    fn heal(&self, _world: &mut World, _id: FaultId) {}
}

/// The processes of nodes (agent and service proxy) restart; containers keep running.
#[derive(Clone, Debug, PartialEq)]
pub struct RestartAgent {
    /// The nodes.
    pub nodes: NodeSet,
}

impl FaultKind for RestartAgent {
    fn read(f: &Fields<'_>) -> Option<RestartAgent> {
        Some(RestartAgent { nodes: node_set(f)? })
    }

    fn write(&self) -> write::Fields {
        vec![write::nodes(&self.nodes)]
    }

    fn targets(&self) -> Vec<Target<'_>> {
        vec![Target::Nodes(&self.nodes)]
    }

    fn node_sets_mut(&mut self) -> Vec<&mut NodeSet> {
        vec![&mut self.nodes]
    }

    fn describe(&self) -> String {
        format!("restart the agent of {}", self.nodes)
    }

    fn lasts(&self) -> Option<Duration> {
        None
    }

    fn disturbs_control(&self) -> Option<Duration> {
        None
    }

    fn strike(&self, world: &mut World, id: FaultId) {
        for n in world.node_set(&self.nodes) {
            for process in world.processes_of(n) {
                let down = world.rng.duration(Duration::from_secs(1), Duration::from_secs(20));
                world.restart_after(process, id, down);
            }
        }
    }

    /// Nothing to undo: the processes start again by themselves within seconds.
    fn heal(&self, _world: &mut World, _id: FaultId) {}
}

pub(super) const CLASSES: &[Class] = &[
    Class { name: "node", rate: (1, 6), draw: |draw| kill_some(draw, false) },
    Class { name: "disk", rate: (0, 3), draw: |draw| kill_some(draw, true) },
    Class {
        name: "zone",
        rate: (0, 2),
        draw: |draw| {
            let (nodes, for_) = (draw.zone(), Some(draw.seconds(20, 180)));
            draw.push(draw.at, Kill { nodes, disk_lost: false, for_ });
        },
    },
    Class {
        name: "agent",
        rate: (1, 5),
        draw: |draw| {
            let nodes = draw.some_nodes(8);
            draw.push(draw.at, RestartAgent { nodes });
        },
    },
];

fn kill_some(draw: &mut Draw<'_>, disk_lost: bool) {
    let (nodes, for_) = (draw.some_nodes(3), Some(draw.seconds(5, 300)));
    draw.push(draw.at, Kill { nodes, disk_lost, for_ });
}
