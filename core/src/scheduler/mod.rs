//! The scheduler machine.
