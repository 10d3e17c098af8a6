//! Two steps about the whole cluster: leaders crash, and all faults heal.

use std::time::Duration;

use super::draw::Class;
use super::{FaultId, FaultKind, optional};
use crate::files::fields::{Field, Fields};
use crate::files::write;
use crate::world::World;

/// The leading controller manager and the leading scheduler crash and start again.
#[derive(Clone, Debug, PartialEq)]
pub struct ChangeLeader {
    /// How long they are down.
    pub down_for: Duration,
}

impl FaultKind for ChangeLeader {
    fn read(f: &Fields<'_>) -> Option<ChangeLeader> {
        Some(ChangeLeader { down_for: optional(f, "downFor", Duration::from_secs(10), Field::duration)? })
    }

    fn write(&self) -> write::Fields {
        vec![("downFor", write::duration(self.down_for))]
    }

    fn times_mut(&mut self) -> Vec<&mut Duration> {
        vec![&mut self.down_for]
    }

    fn describe(&self) -> String {
        format!("the leaders crash, for {:?}", self.down_for)
    }

    fn lasts(&self) -> Option<Duration> {
        None
    }

    fn disturbs_control(&self) -> Option<Duration> {
        Some(self.down_for)
    }

    fn strike(&self, world: &mut World, id: FaultId) {
        for p in world.processes.ids() {
            if world.is_leader(p) {
                world.restart_after(p, id, self.down_for);
            }
        }
    }

    fn heal(&self, world: &mut World, id: FaultId) {
        world.bring_back(id);
    }
}

/// Heals every fault so far.
#[derive(Clone, Debug, PartialEq)]
pub struct Heal;

impl FaultKind for Heal {
    fn read(_f: &Fields<'_>) -> Option<Heal> {
        Some(Heal)
    }

    fn write(&self) -> write::Fields {
        Vec::new()
    }

    fn describe(&self) -> String {
        "heal".to_owned()
    }

    fn lasts(&self) -> Option<Duration> {
        None
    }

    fn disturbs_control(&self) -> Option<Duration> {
        None
    }

    fn strike(&self, world: &mut World, _id: FaultId) {
        world.heal_each();
    }

    fn heal(&self, _world: &mut World, _id: FaultId) {}
}

pub(super) const CLASSES: &[Class] = &[Class {
    name: "leader",
    rate: (0, 3),
    draw: |draw| {
        let down_for = draw.seconds(1, 60);
        draw.push(draw.at, ChangeLeader { down_for });
    },
}];
