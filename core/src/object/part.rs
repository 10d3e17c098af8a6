//! How a part of an object is held: behind a counter of its own where it is large, in place where it is small.

use std::cell::Cell;
use std::fmt::{self, Debug};
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

/// What can be told in brief.
pub trait InBrief: Clone + PartialEq + Debug {
    /// The brief. Small.
    type Brief: Copy;

    /// What is asked again and again.
    fn in_brief(&self) -> Self::Brief;
}

/// A part behind a counter of its own. What is asked most often is told in brief from beside the pointer: a condition
/// of a pod would be found by comparing strings, each in memory of its own, in every pod that is counted or ranked.
pub struct Briefed<T: InBrief> {
    shared: Rc<T>,
    /// Made when it is first asked for.
    brief: Cell<Option<T::Brief>>,
}

impl<T: InBrief> Briefed<T> {
    /// In brief.
    #[inline]
    pub fn brief(&self) -> T::Brief {
        self.brief.get().unwrap_or_else(|| {
            let brief = self.shared.in_brief();
            self.brief.set(Some(brief));
            brief
        })
    }

    /// Whether it is held in the same place as another.
    pub fn is_held_as(&self, other: &Briefed<T>) -> bool {
        Rc::ptr_eq(&self.shared, &other.shared)
    }
}

impl<T: InBrief> Clone for Briefed<T> {
    fn clone(&self) -> Briefed<T> {
        Briefed { shared: Rc::clone(&self.shared), brief: self.brief.clone() }
    }
}

impl<T: InBrief> PartialEq for Briefed<T> {
    fn eq(&self, other: &Briefed<T>) -> bool {
        self.is_held_as(other) || self.shared == other.shared
    }
}

impl<T: InBrief> Debug for Briefed<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.shared.fmt(f)
    }
}

impl<T: InBrief> Deref for Briefed<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.shared
    }
}

impl<T: InBrief> Part for Briefed<T> {
    type Of = T;

    fn new(of: T) -> Briefed<T> {
        Briefed { shared: Rc::new(of), brief: Cell::new(None) }
    }

    fn same(&self, other: &Briefed<T>) -> bool {
        self == other
    }

    fn make_mut(&mut self) -> &mut T {
        self.brief.set(None);
        Rc::make_mut(&mut self.shared)
    }
}
