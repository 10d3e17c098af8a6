//! The store in memory.

/// An MVCC store in memory.
#[derive(Debug, Default)]
pub struct MemoryStore {}
