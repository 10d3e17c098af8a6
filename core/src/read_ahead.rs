//! Reading ahead: a hint to the processor that has no other effect.
//!
//! In a cluster of thousands of nodes, each heartbeat touches some thirty cache lines that were last touched ten
//! seconds of cluster time ago, and would miss on one after the other. A driver that knows which nodes act next can
//! have their lines fetched together, so that the misses overlap (Chen et al., "Improving Hash Join Performance through
//! Prefetching", ICDE 2004, "group prefetching"). Machines offer a `read_ahead` function that only reads.

use std::rc::Rc;

/// How far a read-ahead follows the pointers to an object in a map. Each step loads what the next one needs, so each
/// step is done for many objects before the next: short loops whose cache misses the processor can overlap.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step {
    /// The cell in the map's hash table.
    Cell,
    /// The entry in the map.
    Entry,
    /// The value that the entry points to.
    Value,
    /// The parts that the value points to.
    Parts,
}

impl Step {
    /// All steps in order.
    pub const ALL: [Step; 4] = [Step::Cell, Step::Entry, Step::Value, Step::Parts];
}

/// Reads a value and discards it.
pub fn touch<T: Copy>(value: &T) {
    std::hint::black_box(*value);
}

/// Reads the reference count of a shared value, which cloning or dropping it will change.
pub fn touch_shared<T: ?Sized>(value: &Rc<T>) {
    std::hint::black_box(Rc::strong_count(value));
}
