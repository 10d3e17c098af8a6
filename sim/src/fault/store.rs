//! Faults of the store: it is compacted, or stalls.

use std::time::Duration;

use super::draw::Class;
use super::{FaultId, FaultKind, Partition};
use crate::files::fields::Fields;
use crate::files::write;
use crate::scenario::NodeSet;
use crate::world::World;

/// The store is compacted to its current revision, so that watchers that lag behind get 410 (Gone).
#[derive(Clone, Debug, PartialEq)]
pub struct Compact;

impl FaultKind for Compact {
    fn read(_f: &Fields<'_>) -> Option<Compact> {
        Some(Compact)
    }

    fn write(&self) -> write::Fields {
        Vec::new()
    }

    fn describe(&self) -> String {
        "compact the store".to_owned()
    }

    fn lasts(&self) -> Option<Duration> {
        None
    }

    fn disturbs_control(&self) -> Option<Duration> {
        Some(Duration::ZERO)
    }

    fn strike(&self, world: &mut World, _id: FaultId) {
        world.compact();
    }

    /// Nothing to undo: compacted history cannot be restored.
    fn heal(&self, _world: &mut World, _id: FaultId) {}
}

/// The store executes no requests for a while.
#[derive(Clone, Debug, PartialEq)]
pub struct StallStore {
    /// How long.
    pub for_: Duration,
}

impl FaultKind for StallStore {
    fn read(f: &Fields<'_>) -> Option<StallStore> {
        Some(StallStore { for_: f.require("for").and_then(|d| d.duration())? })
    }

    fn write(&self) -> write::Fields {
        vec![("for", write::duration(self.for_))]
    }

    fn times_mut(&mut self) -> Vec<&mut Duration> {
        vec![&mut self.for_]
    }

    fn describe(&self) -> String {
        format!("the store stalls for {:?}", self.for_)
    }

    fn lasts(&self) -> Option<Duration> {
        None
    }

    fn disturbs_control(&self) -> Option<Duration> {
        Some(self.for_)
    }

    fn strike(&self, world: &mut World, id: FaultId) {
        world.store_host.stalls.set(id, world.now + self.for_.as_nanos() as u64);
        world.restall();
    }

    fn heal(&self, world: &mut World, id: FaultId) {
        world.store_host.stalls.remove(id);
        world.restall();
    }
}

pub(super) const CLASSES: &[Class] = &[
    Class { name: "compact", rate: (0, 3), draw: |draw| draw.push(draw.at, Compact) },
    Class {
        name: "stall",
        rate: (0, 3),
        draw: |draw| {
            let for_ = draw.seconds(1, 20);
            draw.push(draw.at, StallStore { for_ });
        },
    },
    // An API server is cut from the store, and what it misses is compacted meanwhile.
    Class {
        name: "missed-compaction",
        rate: (0, 2),
        draw: |draw| {
            let from = NodeSet::Machine(format!("api-server-{}", draw.api_server()));
            let (to, for_) = (NodeSet::Machine("store".to_owned()), draw.seconds(4, 40));
            draw.push(draw.at, Partition { from, to, one_way: false, for_: Some(for_) });
            draw.push(draw.at + for_ * 3 / 4, Compact);
        },
    },
];
