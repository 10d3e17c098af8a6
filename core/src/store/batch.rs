//! The changes of one revision, as the history keeps them and watches receive them.

use std::fmt;
use std::ops::Deref;
use std::rc::Rc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::StoreEvent;

/// Changes of one revision; empty in a progress notification. Usually there is one change, which is stored inline;
/// several are shared behind an `Rc`.
#[derive(Clone)]
pub struct Batch(Changes);

#[derive(Clone)]
enum Changes {
    One([StoreEvent; 1]),
    Many(Rc<[StoreEvent]>),
}

impl Batch {
    /// Takes all changes out of `changes`.
    #[inline]
    pub(super) fn take(changes: &mut Vec<StoreEvent>) -> Batch {
        let one = if changes.len() == 1 { changes.pop() } else { None };
        Batch(one.map_or_else(|| Changes::Many(changes.drain(..).collect()), |one| Changes::One([one])))
    }

    /// Returns the change if there is exactly one.
    pub(super) fn into_one(self) -> Option<StoreEvent> {
        match self.0 {
            Changes::One([one]) => Some(one),
            Changes::Many(_) => None,
        }
    }
}

impl FromIterator<StoreEvent> for Batch {
    fn from_iter<I: IntoIterator<Item = StoreEvent>>(events: I) -> Batch {
        Batch::take(&mut events.into_iter().collect())
    }
}

impl Deref for Batch {
    type Target = [StoreEvent];

    #[inline]
    fn deref(&self) -> &[StoreEvent] {
        match &self.0 {
            Changes::One(one) => one,
            Changes::Many(many) => many,
        }
    }
}

impl Serialize for Batch {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_seq(self.iter())
    }
}

impl<'de> Deserialize<'de> for Batch {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Batch, D::Error> {
        Vec::<StoreEvent>::deserialize(from).map(Batch::from_iter)
    }
}

impl PartialEq for Batch {
    fn eq(&self, other: &Batch) -> bool {
        **self == **other
    }
}

impl fmt::Debug for Batch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use super::Batch;
    use crate::object::Revision;
    use crate::store::{Entry, KeyValue, StoreEvent, StoreKey, Stored};

    #[test]
    fn it_holds_what_it_was_given_however_many() {
        let event = |n: u64| {
            let (revision, text) = (Revision(7), Rc::<str>::from(n.to_string()));
            let (value, key) = (Stored::Mark(revision, Rc::clone(&text)), StoreKey::Private(text));
            let entry = Rc::new(Entry { key, create_revision: revision, lease: None });
            let kv = KeyValue { version: 1, value, entry: Rc::clone(&entry) };
            StoreEvent { entry, value: Some(Rc::new(kv)), previous: None, revision }
        };
        for n in [0, 1, 2, 5] {
            let events: Vec<StoreEvent> = (0..n).map(event).collect();
            let batch = Batch::from_iter(events.clone());
            assert_eq!((&*batch, &batch.clone()), (&*events, &batch));
            assert_ne!(batch, Batch::from_iter((0..=n).map(event)));
        }
    }
}
