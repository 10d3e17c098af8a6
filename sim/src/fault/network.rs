//! Faults of the network: links break, slow down, lose messages or hold them back, and connections close.

use std::time::Duration;

use super::draw::Class;
use super::{FaultId, FaultKind, Target, UNTIL_HEALED, lasting, optional};
use crate::files::action::node_set;
use crate::files::fields::{Field, Fields};
use crate::files::write;
use crate::scenario::NodeSet;
use crate::world::World;

/// The links between two groups of machines break.
#[derive(Clone, Debug, PartialEq)]
pub struct Partition {
    /// One group.
    pub from: NodeSet,
    /// The other group.
    pub to: NodeSet,
    /// If true, only the direction from `from` to `to` breaks.
    pub one_way: bool,
    /// How long it lasts; `None`: until a `heal` step.
    pub for_: Option<Duration>,
}

impl FaultKind for Partition {
    fn read(f: &Fields<'_>) -> Option<Partition> {
        let side = |key| {
            let fields = f.require(key)?.fields()?;
            let set = node_set(&fields);
            fields.finish();
            set
        };
        let (from, to) = (side("from"), side("to"));
        let one_way = optional(f, "oneWay", false, Field::boolean);
        let for_ = lasting(f);
        let (from, to) = (from?, to?);
        if from == to {
            f.of.fail("Invalid value: both sides of the partition are the same nodes");
        }
        Some(Partition { from, to, one_way: one_way?, for_: for_? })
    }

    fn write(&self) -> write::Fields {
        let sides = vec![
            ("from", write::map(vec![write::nodes(&self.from)])),
            ("to", write::map(vec![write::nodes(&self.to)])),
        ];
        write::lasting([sides, vec![("oneWay", self.one_way.into())]].concat(), self.for_)
    }

    fn targets(&self) -> Vec<Target<'_>> {
        vec![Target::Nodes(&self.from), Target::Nodes(&self.to)]
    }

    fn node_sets_mut(&mut self) -> Vec<&mut NodeSet> {
        vec![&mut self.from, &mut self.to]
    }

    fn times_mut(&mut self) -> Vec<&mut Duration> {
        self.for_.iter_mut().collect()
    }

    fn describe(&self) -> String {
        format!("partition {} from {}{}", self.from, self.to, if self.one_way { ", one way" } else { "" })
    }

    fn lasts(&self) -> Option<Duration> {
        self.for_
    }

    fn disturbs_control(&self) -> Option<Duration> {
        Some(self.for_.unwrap_or(UNTIL_HEALED))
    }

    fn strike(&self, world: &mut World, id: FaultId) {
        let (from, to) = (world.hosts(&self.from), world.hosts(&self.to));
        world.net.cut(id, from, to, self.one_way);
    }

    fn heal(&self, world: &mut World, id: FaultId) {
        world.net.mend(id);
    }
}

/// The links of nodes become slow and lossy.
#[derive(Clone, Debug, PartialEq)]
pub struct Degrade {
    /// The machines whose links are affected.
    pub nodes: NodeSet,
    /// The additional latency.
    pub extra_latency: Duration,
    /// The share of messages in percent that are lost and sent again.
    pub loss_percent: u64,
    /// How long it lasts; `None`: until a `heal` step.
    pub for_: Option<Duration>,
}

impl FaultKind for Degrade {
    fn read(f: &Fields<'_>) -> Option<Degrade> {
        let extra_latency = optional(f, "extraLatency", Duration::ZERO, Field::duration);
        let loss = optional(f, "lossPercent", 0, |l| l.integer(0, 100));
        let for_ = lasting(f);
        let loss_percent = loss? as u64;
        Some(Degrade { nodes: node_set(f)?, extra_latency: extra_latency?, loss_percent, for_: for_? })
    }

    fn write(&self) -> write::Fields {
        let slow = ("extraLatency", write::duration(self.extra_latency));
        write::lasting(vec![write::nodes(&self.nodes), slow, ("lossPercent", self.loss_percent.into())], self.for_)
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
        let (slower, loss) = (self.extra_latency, self.loss_percent);
        format!("links of {} get {slower:?} slower and lose {loss}%", self.nodes)
    }

    fn lasts(&self) -> Option<Duration> {
        self.for_
    }

    fn disturbs_control(&self) -> Option<Duration> {
        Some(self.for_.unwrap_or(UNTIL_HEALED))
    }

    fn strike(&self, world: &mut World, id: FaultId) {
        let hosts = world.hosts(&self.nodes);
        world.net.degrade(id, hosts, self.extra_latency, self.loss_percent);
    }

    fn heal(&self, world: &mut World, id: FaultId) {
        world.net.mend(id);
    }
}

/// The links of nodes deliver nothing for a while; then all delayed messages arrive.
#[derive(Clone, Debug, PartialEq)]
pub struct Clog {
    /// The machines whose links are affected.
    pub nodes: NodeSet,
    /// How long the messages are held back.
    pub for_: Duration,
}

impl FaultKind for Clog {
    fn read(f: &Fields<'_>) -> Option<Clog> {
        let for_ = f.require("for").and_then(|d| d.duration());
        Some(Clog { nodes: node_set(f)?, for_: for_? })
    }

    fn write(&self) -> write::Fields {
        vec![write::nodes(&self.nodes), ("for", write::duration(self.for_))]
    }

    fn targets(&self) -> Vec<Target<'_>> {
        vec![Target::Nodes(&self.nodes)]
    }

    fn node_sets_mut(&mut self) -> Vec<&mut NodeSet> {
        vec![&mut self.nodes]
    }

    fn times_mut(&mut self) -> Vec<&mut Duration> {
        vec![&mut self.for_]
    }

    fn describe(&self) -> String {
        format!("links of {} are clogged for {:?}", self.nodes, self.for_)
    }

    fn lasts(&self) -> Option<Duration> {
        None
    }

    fn disturbs_control(&self) -> Option<Duration> {
        Some(self.for_)
    }

    fn strike(&self, world: &mut World, id: FaultId) {
        let hosts = world.hosts(&self.nodes);
        world.net.clog(id, hosts, world.now + self.for_.as_nanos() as u64);
    }

    fn heal(&self, world: &mut World, id: FaultId) {
        world.net.mend(id);
    }
}

/// Connections to the API close: requests in flight are lost before they are carried out, or their replies afterwards.
#[derive(Clone, Debug, PartialEq)]
pub struct DropConnections {
    /// The machines whose connections close.
    pub nodes: NodeSet,
}

impl FaultKind for DropConnections {
    fn read(f: &Fields<'_>) -> Option<DropConnections> {
        Some(DropConnections { nodes: node_set(f)? })
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
        format!("connections of {} die", self.nodes)
    }

    fn lasts(&self) -> Option<Duration> {
        None
    }

    fn disturbs_control(&self) -> Option<Duration> {
        Some(Duration::ZERO)
    }

    fn strike(&self, world: &mut World, _id: FaultId) {
        let hosts = world.hosts(&self.nodes);
        for p in world.processes.ids() {
            if hosts.contains(&world.processes[p].host) {
                world.kill_connection(p);
            }
        }
    }

    /// Nothing to undo: clients reconnect by themselves.
    fn heal(&self, _world: &mut World, _id: FaultId) {}
}

pub(super) const CLASSES: &[Class] = &[
    Class {
        name: "partition",
        rate: (0, 3),
        draw: |draw| {
            let (from, one_way) = (draw.zone_or_nodes(3, 8), draw.rng.chance(1, 2));
            draw.push(draw.at, Partition { from, to: NodeSet::ControlPlane, one_way, for_: draw.lasts });
        },
    },
    Class {
        name: "control-partition",
        rate: (0, 3),
        draw: |draw| {
            let (one_way, for_) = (draw.rng.chance(1, 2), Some(draw.seconds(1, 50)));
            draw.push(draw.at, Partition { from: NodeSet::ControlPlane, to: NodeSet::All, one_way, for_ });
        },
    },
    Class {
        name: "one-machine",
        rate: (0, 3),
        draw: |draw| {
            let (from, one_way) = (draw.control_machine(), draw.rng.chance(1, 3));
            let for_ = draw.seconds(1, 60);
            match draw.rng.below(3) {
                0 => draw.push(draw.at, Clog { nodes: from, for_ }),
                1 => draw.push(draw.at, DropConnections { nodes: from }),
                _ => draw.push(draw.at, Partition { from, to: NodeSet::ControlPlane, one_way, for_: Some(for_) }),
            }
        },
    },
    Class {
        name: "degrade",
        rate: (0, 3),
        draw: |draw| {
            let (nodes, extra_latency) = (draw.control_or_nodes(3, 10), draw.seconds(0, 2));
            let loss_percent = draw.rng.below(40);
            draw.push(draw.at, Degrade { nodes, extra_latency, loss_percent, for_: draw.lasts });
        },
    },
    Class {
        name: "connections",
        rate: (1, 5),
        draw: |draw| {
            let nodes = draw.control_or_nodes(2, 10);
            draw.push(draw.at, DropConnections { nodes });
        },
    },
    Class {
        name: "clog",
        rate: (0, 3),
        draw: |draw| {
            let (nodes, for_) = (draw.control_or_nodes(3, 10), draw.seconds(1, 45));
            draw.push(draw.at, Clog { nodes, for_ });
        },
    },
    Class {
        name: "flap",
        rate: (0, 3),
        draw: |draw| {
            let nodes = draw.some_nodes(4);
            let (one_way, mut when) = (draw.rng.chance(1, 2), draw.at);
            for _ in 0..2 + draw.rng.below(5) {
                let (from, to, for_) = (nodes.clone(), NodeSet::ControlPlane, draw.seconds(1, 20));
                draw.push(when, Partition { from, to, one_way, for_: Some(for_) });
                when += for_ + draw.seconds(1, 20);
            }
        },
    },
];
