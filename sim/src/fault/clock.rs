//! Faults of clocks: they jump or drift.

use std::time::Duration;

use super::draw::Class;
use super::{FaultId, FaultKind, Target, UNTIL_HEALED, lasting};
use crate::files::action::{node_set, signed_seconds};
use crate::files::fields::Fields;
use crate::files::write;
use crate::scenario::NodeSet;
use crate::world::World;

/// Wall clocks of nodes or of the control plane jump.
#[derive(Clone, Debug, PartialEq)]
pub struct ClockJump {
    /// The machines whose clocks jump.
    pub nodes: NodeSet,
    /// The size of the jump in seconds; negative: back in time.
    pub by_seconds: i64,
}

impl FaultKind for ClockJump {
    fn read(f: &Fields<'_>) -> Option<ClockJump> {
        let by = f.require("by").and_then(|b| signed_seconds(&b));
        Some(ClockJump { nodes: node_set(f)?, by_seconds: by? })
    }

    fn write(&self) -> write::Fields {
        vec![write::nodes(&self.nodes), ("by", format!("{}s", self.by_seconds).into())]
    }

    fn targets(&self) -> Vec<Target<'_>> {
        vec![Target::Nodes(&self.nodes)]
    }

    fn node_sets_mut(&mut self) -> Vec<&mut NodeSet> {
        vec![&mut self.nodes]
    }

    fn describe(&self) -> String {
        format!("clock of {} jumps by {}s", self.nodes, self.by_seconds)
    }

    fn lasts(&self) -> Option<Duration> {
        None
    }

    fn disturbs_control(&self) -> Option<Duration> {
        Some(UNTIL_HEALED)
    }

    fn strike(&self, world: &mut World, id: FaultId) {
        for host in world.hosts(&self.nodes) {
            world.tamper_with_clock(host).jump(id, self.by_seconds);
        }
    }

    fn heal(&self, world: &mut World, id: FaultId) {
        world.mend_clocks(id);
    }
}

/// Clocks run fast or slow.
#[derive(Clone, Debug, PartialEq)]
pub struct ClockDrift {
    /// The machines whose clocks drift.
    pub nodes: NodeSet,
    /// The drift in parts per million; negative: slow.
    pub ppm: i64,
    /// How long it lasts; `None`: until a `heal` step.
    pub for_: Option<Duration>,
}

impl FaultKind for ClockDrift {
    fn read(f: &Fields<'_>) -> Option<ClockDrift> {
        let ppm = f.require("ppm").and_then(|p| p.integer(-500_000, 500_000));
        let for_ = lasting(f);
        Some(ClockDrift { nodes: node_set(f)?, ppm: ppm?, for_: for_? })
    }

    fn write(&self) -> write::Fields {
        write::lasting(vec![write::nodes(&self.nodes), ("ppm", self.ppm.into())], self.for_)
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
        format!("clock of {} drifts by {} ppm", self.nodes, self.ppm)
    }

    fn lasts(&self) -> Option<Duration> {
        self.for_
    }

    fn disturbs_control(&self) -> Option<Duration> {
        Some(self.for_.unwrap_or(UNTIL_HEALED))
    }

    fn strike(&self, world: &mut World, id: FaultId) {
        let now = world.now;
        for host in world.hosts(&self.nodes) {
            world.tamper_with_clock(host).drift(now, id, self.ppm);
        }
        world.rearm_all();
    }

    fn heal(&self, world: &mut World, id: FaultId) {
        world.mend_clocks(id);
    }
}

pub(super) const CLASSES: &[Class] = &[
    Class {
        name: "clock",
        rate: (0, 3),
        draw: |draw| {
            let nodes = draw.control_or_nodes(3, 5);
            let by_seconds = match draw.rng.range(1, 240) as i64 - 120 {
                0 => 120,
                by => by,
            };
            draw.push(draw.at, ClockJump { nodes, by_seconds });
        },
    },
    Class {
        name: "drift",
        rate: (0, 3),
        draw: |draw| {
            let nodes = draw.control_or_nodes(3, 5);
            // Far more than a real clock drifts, and within what leader election tolerates.
            let ppm = draw.rng.below(100_000) as i64 - 50_000;
            draw.push(draw.at, ClockDrift { nodes, ppm, for_: draw.lasts });
        },
    },
];
