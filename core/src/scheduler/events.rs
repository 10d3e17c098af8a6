//! What happens in the cluster, as far as it may make a waiting pod schedulable.

use std::ops::BitOrAssign;

/// A set of kinds of cluster events that may make a pod schedulable (`fwk.ClusterEvent`).
#[derive(Clone, Copy, PartialEq, Eq, Debug, PartialOrd, Ord)]
pub struct Events(u8);

impl Events {
    /// The empty set.
    pub const NONE: Events = Events(0);
    /// A node was added.
    pub const NODE_ADD: Events = Events(1);
    /// A node's allocatable changed.
    pub const NODE_UPDATE_ALLOCATABLE: Events = Events(2);
    /// A node's labels changed.
    pub const NODE_UPDATE_LABEL: Events = Events(4);
    /// A node's taints or `spec.unschedulable` changed.
    pub const NODE_UPDATE_TAINT: Events = Events(8);
    /// A pod was deleted from its node, or will not be bound to it after all.
    pub const ASSIGNED_POD_DELETE: Events = Events(16);
    /// A pod on a node requests less.
    pub const ASSIGNED_POD_SCALE_DOWN: Events = Events(32);

    /// Whether the set is empty.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether the sets have an event in common.
    pub fn intersects(self, other: Events) -> bool {
        self.0 & other.0 != 0
    }

    /// The union of both sets.
    pub const fn and(self, other: Events) -> Events {
        Events(self.0 | other.0)
    }
}

impl BitOrAssign for Events {
    fn bitor_assign(&mut self, other: Events) {
        self.0 |= other.0;
    }
}
