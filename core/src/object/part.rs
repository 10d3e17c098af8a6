//! How a part of an object is held: behind a counter of its own where it is large, in place where it is small.

use std::fmt::Debug;
use std::ops::{Deref, DerefMut};
use std::rc::Rc;

/// A part of an object (its spec, its status) as [`Parts`](super::Parts) holds it. A clone copies nothing large.
pub trait Part: Clone + PartialEq + Debug + Deref<Target = <Self as Part>::Of> {
    /// What is held.
    type Of;
    /// Holds it.
    fn new(of: Self::Of) -> Self;
    /// Held in the same place, or equal.
    fn same(&self, other: &Self) -> bool;
    /// For writing; copied if shared.
    fn make_mut(&mut self) -> &mut Self::Of;
}

impl<T: Clone + PartialEq + Debug> Part for Rc<T> {
    type Of = T;

    fn new(of: T) -> Rc<T> {
        Rc::new(of)
    }

    fn same(&self, other: &Rc<T>) -> bool {
        Rc::ptr_eq(self, other) || **self == **other
    }

    fn make_mut(&mut self) -> &mut T {
        Rc::make_mut(self)
    }
}

/// A small part, held in place: nothing to share, and nothing to count.
#[derive(Clone, PartialEq, Debug)]
pub struct Inline<T>(T);

impl<T> Deref for Inline<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T> DerefMut for Inline<T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.0
    }
}

impl<T: Clone + PartialEq + Debug> Part for Inline<T> {
    type Of = T;

    fn new(of: T) -> Inline<T> {
        Inline(of)
    }

    fn same(&self, other: &Inline<T>) -> bool {
        self.0 == other.0
    }

    fn make_mut(&mut self) -> &mut T {
        &mut self.0
    }
}
