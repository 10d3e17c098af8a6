//! Reading ahead: a hint to the processor, without any effect.
//!
//! In a cluster of thousands of nodes each heartbeat touches some thirty lines of memory that were last touched ten
//! seconds of cluster time ago, and waits for one after the other. A driver that knows which nodes will act next can
//! have their lines read together, and so wait once for all of them (Chen et al., "Improving Hash Join Performance
//! through Prefetching", ICDE 2004, "group prefetching"). Machines offer a `read_ahead` that only looks.

use std::rc::Rc;

/// How deep a look ahead for an object of some map goes. What one step brings tells the next where to look, so each is
/// taken for many objects before the next: loops of few instructions, whose waits the processor lets overlap.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step {
    /// Its cell in the map's table.
    Cell,
    /// Its entry in the map.
    Entry,
    /// What the entry points to.
    Value,
    /// What that points to.
    Parts,
}

impl Step {
    /// One after the other.
    pub const ALL: [Step; 4] = [Step::Cell, Step::Entry, Step::Value, Step::Parts];
}

/// Reads a value, and forgets it.
pub fn touch<T: Copy>(value: &T) {
    std::hint::black_box(*value);
}

/// Reads the counter of a shared value, which whoever copies or drops it will change.
pub fn touch_shared<T: ?Sized>(value: &Rc<T>) {
    std::hint::black_box(Rc::strong_count(value));
}
