//! How a part of an object is held: reference-counted if it is large, in place if it is small.

use std::cell::Cell;
use std::fmt::{self, Debug};
use std::ops::{Deref, DerefMut};
use std::rc::Rc;

/// A part of an object (its spec or status) as [`Parts`](super::Parts) holds it. Cloning it never copies anything
/// large.
pub trait Part: Clone + PartialEq + Debug + Deref<Target = <Self as Part>::Of> {
    /// The type of the content.
    type Of;
    /// Wraps a value.
    fn new(of: Self::Of) -> Self;
    /// Whether both share the same memory, and so are certainly equal. `false` does not mean that they differ.
    fn shares(&self, other: &Self) -> bool;
    /// Whether they are equal; those that share memory are equal at once.
    fn same(&self, other: &Self) -> bool;
    /// The content for writing (copied first if shared).
    fn make_mut(&mut self) -> &mut Self::Of;
}

impl<T: Clone + PartialEq + Debug> Part for Rc<T> {
    type Of = T;

    fn new(of: T) -> Rc<T> {
        Rc::new(of)
    }

    fn shares(&self, other: &Rc<T>) -> bool {
        Rc::ptr_eq(self, other)
    }

    fn same(&self, other: &Rc<T>) -> bool {
        Rc::ptr_eq(self, other) || **self == **other
    }

    fn make_mut(&mut self) -> &mut T {
        Rc::make_mut(self)
    }
}

/// A small part, held in place without a reference count.
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

    fn shares(&self, other: &Inline<T>) -> bool {
        self.0 == other.0
    }

    fn same(&self, other: &Inline<T>) -> bool {
        self.0 == other.0
    }

    fn make_mut(&mut self) -> &mut T {
        &mut self.0
    }
}

/// A type that has a small summary of the fields that are read most often.
pub trait Summarize: Clone + PartialEq + Debug {
    /// The summary.
    type Summary: Copy;

    /// Computes the summary.
    fn summarize(&self) -> Self::Summary;
}

/// A reference-counted part with its summary beside the pointer. Without the summary, counting or ranking pods would
/// search each pod's conditions by comparing strings that are not in the processor's cache.
pub struct Summarized<T: Summarize> {
    shared: Rc<T>,
    /// Computed on first use.
    summary: Cell<Option<T::Summary>>,
}

impl<T: Summarize> Summarized<T> {
    /// The summary, computed on first use.
    #[inline]
    pub fn summary(&self) -> T::Summary {
        self.summary.get().unwrap_or_else(|| {
            let summary = self.shared.summarize();
            self.summary.set(Some(summary));
            summary
        })
    }

    /// Whether both share the same memory.
    pub fn is_held_as(&self, other: &Summarized<T>) -> bool {
        Rc::ptr_eq(&self.shared, &other.shared)
    }
}

impl<T: Summarize> Clone for Summarized<T> {
    fn clone(&self) -> Summarized<T> {
        Summarized { shared: Rc::clone(&self.shared), summary: self.summary.clone() }
    }
}

impl<T: Summarize> PartialEq for Summarized<T> {
    fn eq(&self, other: &Summarized<T>) -> bool {
        self.is_held_as(other) || self.shared == other.shared
    }
}

impl<T: Summarize> Debug for Summarized<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.shared.fmt(f)
    }
}

impl<T: Summarize> Deref for Summarized<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.shared
    }
}

impl<T: Summarize> Part for Summarized<T> {
    type Of = T;

    fn new(of: T) -> Summarized<T> {
        Summarized { shared: Rc::new(of), summary: Cell::new(None) }
    }

    fn shares(&self, other: &Summarized<T>) -> bool {
        Rc::ptr_eq(&self.shared, &other.shared)
    }

    fn same(&self, other: &Summarized<T>) -> bool {
        self == other
    }

    fn make_mut(&mut self) -> &mut T {
        self.summary.set(None);
        Rc::make_mut(&mut self.shared)
    }
}
