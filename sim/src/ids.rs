//! The ids of a world's processes, nodes and API servers, and lists that are indexed by them.

use std::fmt;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut, Index, IndexMut};

/// A place in a [`Table`].
pub trait Id: Copy {
    /// The id of a place.
    fn new(number: u32) -> Self;
    /// Its place.
    fn number(self) -> u32;
}

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(u32);

        impl Id for $name {
            #[inline(always)]
            fn new(number: u32) -> $name {
                $name(number)
            }
            #[inline(always)]
            fn number(self) -> u32 {
                self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    )*};
}

ids! {
    /// A process of a world.
    ProcessId;
    /// A node of a world, whose agent and service proxy are processes.
    NodeId;
    /// An API server of a world, which is also a process.
    ApiId;
}

/// A list that is indexed by ids of its own.
#[derive(Clone, Debug)]
pub struct Table<I, T>(Vec<T>, PhantomData<I>);

impl<I: Id, T> Table<I, T> {
    /// All ids, in order.
    pub fn ids(&self) -> impl Iterator<Item = I> + use<I, T> {
        (0..self.next().number()).map(I::new)
    }

    /// The id of the next one that is added.
    pub fn next(&self) -> I {
        I::new(u32::try_from(self.0.len()).expect("a world has fewer than four billion of anything"))
    }

    /// Adds one at the end.
    pub fn push(&mut self, one: T) -> I {
        let id = self.next();
        self.0.push(one);
        id
    }
}

impl<I, T> Default for Table<I, T> {
    fn default() -> Table<I, T> {
        Table(Vec::new(), PhantomData)
    }
}

impl<I, T> FromIterator<T> for Table<I, T> {
    fn from_iter<A: IntoIterator<Item = T>>(all: A) -> Table<I, T> {
        Table(all.into_iter().collect(), PhantomData)
    }
}

impl<I: Id, T> Index<I> for Table<I, T> {
    type Output = T;

    #[inline(always)]
    fn index(&self, id: I) -> &T {
        &self.0[id.number() as usize]
    }
}

impl<I: Id, T> IndexMut<I> for Table<I, T> {
    #[inline(always)]
    fn index_mut(&mut self, id: I) -> &mut T {
        &mut self.0[id.number() as usize]
    }
}

impl<I, T> Deref for Table<I, T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &self.0
    }
}

impl<I, T> DerefMut for Table<I, T> {
    fn deref_mut(&mut self) -> &mut [T] {
        &mut self.0
    }
}
