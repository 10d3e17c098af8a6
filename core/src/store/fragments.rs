//! Reassembles the watch responses of a byte store into what this port promises: one complete batch for each revision.

use super::{Batch, StoreEvent};
use crate::object::Revision;

/// The responses of one etcd watch, in order. Large ones are fragmented if the watch allows it, and a fragment may end
/// in the middle of a revision.
#[derive(Debug, Default)]
pub struct Fragments {
    /// Events of a revision that may not be complete yet.
    open: Vec<StoreEvent>,
}

impl Fragments {
    /// Takes a response: its events, the revision in its header, and whether more fragments follow. Returns the
    /// revisions that are now complete. A response without events says that every change up to its revision has been
    /// sent.
    pub fn take(&mut self, header: Revision, events: Vec<StoreEvent>, more: bool) -> Vec<(Revision, Batch)> {
        let mut complete = Vec::new();
        if events.is_empty() && self.open.is_empty() && !more {
            complete.push((header, Batch::from_iter([])));
        }
        for event in events {
            if self.open.first().is_some_and(|open| open.revision != event.revision) {
                complete.extend(self.close());
            }
            self.open.push(event);
        }
        if !more {
            complete.extend(self.close());
        }
        complete
    }

    fn close(&mut self) -> Option<(Revision, Batch)> {
        let revision = self.open.first()?.revision;
        Some((revision, Batch::take(&mut self.open)))
    }
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use super::Fragments;
    use crate::object::Revision;
    use crate::store::{Entry, StoreEvent, StoreKey};

    fn check(responses: &[(u64, &[u64], bool)], expect: &[(u64, usize)]) {
        let entry = Rc::new(Entry { key: StoreKey::Private(Rc::from("k")), create_revision: Revision(1), lease: None });
        let event = |revision: &u64| StoreEvent {
            entry: Rc::clone(&entry),
            value: None,
            previous: None,
            revision: Revision(*revision),
        };
        let mut fragments = Fragments::default();
        let mut got = Vec::new();
        for (header, events, more) in responses {
            let complete = fragments.take(Revision(*header), events.iter().map(event).collect(), *more);
            got.extend(complete.iter().map(|(revision, batch)| (revision.0, batch.len())));
        }
        assert_eq!(got, expect, "{responses:?}");
    }

    #[test]
    fn a_batch_is_a_whole_revision() {
        check(&[(5, &[3, 3, 5], false)], &[(3, 2), (5, 1)]);
        check(&[(5, &[3], true), (5, &[3, 5], true), (5, &[5], false)], &[(3, 2), (5, 2)]);
        check(&[(5, &[3], true), (5, &[], false)], &[(3, 1)]);
        check(&[(7, &[], false), (7, &[8], false)], &[(7, 0), (8, 1)]);
    }
}
