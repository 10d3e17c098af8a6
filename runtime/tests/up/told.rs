//! What watches promise, checked on what recorded ones were told: events come in the order of revisions, each once,
//! none is missed, also not where a watch goes on where another was cut, and no bookmark is ahead of what was told.

use std::collections::BTreeMap;

/// What a watch was told.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Told {
    /// It begins with all that is there at this revision: keys with their values' revisions.
    Listed { rv: u64, items: BTreeMap<String, (u64, u64)> },
    /// An event.
    Event { kind: Kind, key: String, rv: u64, value: u64 },
    /// All up to this revision has been told.
    Bookmark(u64),
}

/// What happened to an object.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    Added,
    Modified,
    Deleted,
}

/// All that has been committed, by revision: the key, and its value, or `None` where it was deleted.
pub type Committed = BTreeMap<u64, (String, Option<u64>)>;

/// Adds what a watch was told to what has been committed. Two watches that were told different things of one revision
/// are an error.
pub fn commit(committed: &mut Committed, told: &[Told]) -> Result<(), String> {
    for one in told {
        let Told::Event { kind, key, rv, value } = one else { continue };
        let change = (key.clone(), Some(*value).filter(|_| *kind != Kind::Deleted));
        let other = committed.insert(*rv, change.clone());
        if let Some(other) = other.filter(|other| *other != change) {
            return Err(format!("revision {rv} is {change:?} and {other:?}"));
        }
    }
    Ok(())
}

/// All that is there at a revision.
fn at(committed: &Committed, rv: u64) -> BTreeMap<String, (u64, u64)> {
    let mut all = BTreeMap::new();
    for (rv, (key, value)) in committed.range(..=rv) {
        match value {
            Some(value) => all.insert(key.clone(), (*rv, *value)),
            None => all.remove(key),
        };
    }
    all
}

/// Checks what one watch was told, over all connections that it went over, against all that has been committed.
pub fn check(told: &[Told], committed: &Committed) -> Result<(), String> {
    let mut held: Option<(u64, BTreeMap<String, (u64, u64)>)> = None;
    for one in told {
        let missed = |from: u64, to: u64| {
            let missed = if from < to { committed.range(from + 1..to).next() } else { None };
            missed
                .map_or(Ok(()), |missed| Err(format!("{missed:?} was never told; after revision {from} came {one:?}")))
        };
        match one {
            Told::Listed { rv, items } => {
                if *items != at(committed, *rv) {
                    let there = at(committed, *rv);
                    return Err(format!("at revision {rv} there is {there:?}, and what was listed is {items:?}"));
                }
                held = Some((*rv, items.clone()));
            }
            Told::Event { kind, key, rv, value } => {
                let (last, items) = held.as_mut().ok_or("an event before the beginning")?;
                if *rv <= *last {
                    return Err(format!("told twice or out of order, after revision {last}: {one:?}"));
                }
                missed(*last, *rv)?;
                if committed.get(rv).is_some_and(|(of, now)| of != key || now.is_some_and(|now| now != *value)) {
                    return Err(format!("{one:?} tells of {:?}", committed[rv]));
                }
                let before =
                    if *kind == Kind::Deleted { items.remove(key) } else { items.insert(key.clone(), (*rv, *value)) };
                if before.is_some() != (*kind != Kind::Added) {
                    return Err(format!("{one:?}, and before it was {before:?}"));
                }
                *last = *rv;
            }
            Told::Bookmark(rv) => {
                let (last, _) = held.as_mut().ok_or("a bookmark before the beginning")?;
                if *rv < *last {
                    return Err(format!("a bookmark of {rv} after revision {last}"));
                }
                missed(*last, *rv + 1)?;
                *last = *rv;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::{Committed, Kind, Told, check, commit};

    fn event(kind: Kind, key: &str, rv: u64, value: u64) -> Told {
        Told::Event { kind, key: key.to_owned(), rv, value }
    }

    fn listed(rv: u64, items: &[(&str, u64, u64)]) -> Told {
        let items = items.iter().map(|(key, rv, value)| ((*key).to_owned(), (*rv, *value)));
        Told::Listed { rv, items: items.collect() }
    }

    /// a is made, changed and deleted, b is made.
    fn committed() -> Committed {
        let all = [(3, "a", Some(1)), (5, "b", Some(2)), (6, "a", Some(3)), (9, "a", None)];
        BTreeMap::from(all.map(|(rv, key, value)| (rv, (key.to_owned(), value))))
    }

    #[test]
    fn what_watches_promise_is_kept() {
        let whole = [
            listed(1, &[]),
            event(Kind::Added, "a", 3, 1),
            Told::Bookmark(4),
            event(Kind::Added, "b", 5, 2),
            event(Kind::Modified, "a", 6, 3),
            event(Kind::Deleted, "a", 9, 3),
            Told::Bookmark(9),
            Told::Bookmark(12),
        ];
        assert_eq!(check(&whole, &committed()), Ok(()));
        let mut told = Committed::new();
        assert_eq!(commit(&mut told, &whole), Ok(()));
        assert_eq!(told, committed());
        // One that begins in the middle, and again.
        let later =
            [listed(5, &[("a", 3, 1), ("b", 5, 2)]), event(Kind::Modified, "a", 6, 3), listed(9, &[("b", 5, 2)])];
        assert_eq!(check(&later, &committed()), Ok(()));
    }

    #[test]
    fn what_watches_break_is_seen() {
        let begin = || vec![listed(1, &[]), event(Kind::Added, "a", 3, 1)];
        let broken: &[(&str, Vec<Told>, &str)] = &[
            ("missed", vec![event(Kind::Modified, "a", 6, 3)], "never told"),
            ("twice", vec![event(Kind::Added, "b", 5, 2), event(Kind::Added, "b", 5, 2)], "twice"),
            ("backwards", vec![event(Kind::Added, "b", 5, 2), event(Kind::Modified, "a", 4, 1)], "out of order"),
            ("a bookmark that is ahead", vec![Told::Bookmark(5)], "never told"),
            ("a bookmark that goes back", vec![Told::Bookmark(2)], "a bookmark of 2"),
            ("an event after its bookmark", vec![Told::Bookmark(4), event(Kind::Added, "c", 4, 9)], "out of order"),
            ("another value", vec![event(Kind::Added, "b", 5, 7)], "tells of"),
            ("another key", vec![event(Kind::Added, "c", 5, 2)], "tells of"),
            ("added, and there", vec![event(Kind::Added, "b", 5, 2), event(Kind::Added, "a", 6, 3)], "before it was"),
            ("changed, and not there", vec![event(Kind::Modified, "b", 5, 2)], "before it was"),
            ("a list that lacks something", vec![listed(6, &[("b", 5, 2)])], "what was listed"),
            ("a list from before", vec![listed(6, &[("a", 3, 1), ("b", 5, 2)])], "what was listed"),
        ];
        for (what, more, expect) in broken {
            let why = check(&[begin(), more.clone()].concat(), &committed()).expect_err(what);
            assert!(why.contains(expect), "{what}: {why}");
        }
        let mut told = committed();
        let other = commit(&mut told, &[event(Kind::Modified, "a", 6, 8)]).expect_err("it is another value");
        assert!(other.contains("revision 6"), "{other}");
    }
}
