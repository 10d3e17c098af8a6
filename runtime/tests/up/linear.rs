//! Whether a recorded history of one key is linearizable: whether there is an order of its operations, each at a moment
//! between its beginning and its end, in which each has the outcome that it had.
//!
//! What comes in: operations with their times and outcomes. What comes out: nothing, or how far an order could be found
//! and which operations fit nowhere after it. An operation whose outcome is unknown takes effect at any moment after
//! its beginning, or never.
//!
//! The search is that of Wing and Gong ("Testing and verifying concurrent objects", 1993), which forgets no
//! configuration that it has been in (Lowe, "Testing for linearizability", 2017). Each value is written once, so that a
//! value that was read or told says which write has made it, and at which revision.

use std::collections::{BTreeMap, HashSet};

/// What was asked of a key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Call {
    /// Create with this value.
    Create(u64),
    /// Write this value if the key is still at this revision.
    Update { base: u64, value: u64 },
    /// Delete, if the key is still at this revision.
    Delete { base: Option<u64> },
    /// Read.
    Get,
}

/// What came of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// A create or update was carried out, at this revision.
    Written(u64),
    /// A delete was carried out.
    Deleted,
    /// A read found this revision and value.
    Found(u64, u64),
    /// The key is there already (409, AlreadyExists).
    Exists,
    /// The key is at another revision (409, Conflict).
    Conflict,
    /// The key is not there (404).
    Absent,
    /// Nobody knows.
    Unknown,
    /// It was not sent, or turned away (429, 503): nothing was done.
    Refused,
}

/// An operation on one key, with moments of one clock.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Op {
    pub begun: u64,
    pub ended: u64,
    pub call: Call,
    pub outcome: Outcome,
}

/// What a key is between two operations.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
struct State {
    /// The revision, if it is known, and the value; `None` while the key is not there.
    object: Option<(Option<u64>, u64)>,
    /// The last revision that is known: revisions only grow.
    floor: u64,
}

/// The state after an operation, if it can have its outcome in this state. `told` has the revisions of values.
fn apply(state: State, op: &Op, told: &BTreeMap<u64, u64>) -> Option<State> {
    let State { object, floor } = state;
    let same = Some(state);
    // Whether the key is at this revision. One that nobody has been told of nobody can name.
    let at = |base: u64| object.is_some_and(|(rv, _)| rv == Some(base));
    let write = |rv: Option<u64>, value| {
        let grows = rv.is_none_or(|rv| rv > floor);
        grows.then(|| State { object: Some((rv, value)), floor: rv.unwrap_or(floor) })
    };
    let absent = || Some(State { object: None, floor });
    match (op.call, op.outcome) {
        (Call::Create(value), Outcome::Written(rv)) if object.is_none() => write(Some(rv), value),
        (Call::Create(value), Outcome::Unknown) if object.is_none() => write(told.get(&value).copied(), value),
        (Call::Create(_), Outcome::Exists) if object.is_some() => same,
        (Call::Update { base, value }, Outcome::Written(rv)) if at(base) => write(Some(rv), value),
        (Call::Update { base, value }, Outcome::Unknown) if at(base) => write(told.get(&value).copied(), value),
        (Call::Update { base, .. } | Call::Delete { base: Some(base) }, Outcome::Conflict)
            if object.is_some() && !at(base) =>
        {
            same
        }
        (Call::Update { .. } | Call::Delete { .. } | Call::Get, Outcome::Absent) if object.is_none() => same,
        (Call::Delete { base: Some(base) }, Outcome::Deleted | Outcome::Unknown) if at(base) => absent(),
        (Call::Delete { base: None }, Outcome::Deleted | Outcome::Unknown) if object.is_some() => absent(),
        (Call::Get, Outcome::Found(rv, value)) if object == Some((Some(rv), value)) => same,
        _ => None,
    }
}

/// How many configurations are looked at before it is given up.
const MOST: usize = 2_000_000;

/// A set of operations, by their places.
type Done = Vec<u64>;

fn has(done: &Done, n: usize) -> bool {
    done[n / 64] >> (n % 64) & 1 == 1
}

/// Checks the history of one key, which is not there at first. `told` says of values at which revision each was
/// written, as watches have told.
pub fn check(ops: &[Op], told: &BTreeMap<u64, u64>) -> Result<(), String> {
    let mut told = told.clone();
    for op in ops {
        let found = match (op.call, op.outcome) {
            (Call::Create(value) | Call::Update { value, .. }, Outcome::Written(rv)) => Some((value, rv)),
            (_, Outcome::Found(rv, value)) => Some((value, rv)),
            _ => None,
        };
        if let Some((value, rv)) = found
            && told.insert(value, rv).is_some_and(|other| other != rv)
        {
            return Err(format!("the value {value} is at two revisions: {op:?}, and another"));
        }
    }
    let mut all = ops.to_vec();
    all.sort_by_key(|op| op.begun);
    // What is unknown and does nothing but read, says nothing.
    let says = |op: &&Op| match op.outcome {
        Outcome::Unknown => op.call != Call::Get,
        outcome => outcome != Outcome::Refused,
    };
    let ops: Vec<Op> = all.iter().filter(says).copied().collect();
    let sure = ops.iter().filter(|op| op.outcome != Outcome::Unknown).count();
    let start = (vec![0; ops.len().div_ceil(64)], State::default(), 0);
    let (mut seen, mut open) = (HashSet::new(), vec![start]);
    let mut furthest = (0, State::default(), Vec::new());
    while let Some((done, state, count)) = open.pop() {
        if count == sure {
            return Ok(());
        }
        if seen.len() > MOST {
            return Err(format!("undecided after {MOST} configurations of {} operations", ops.len()));
        }
        // What has begun after another has ended comes after it.
        let left = |n: &usize| !has(&done, *n);
        let ends = |n: usize| if ops[n].outcome == Outcome::Unknown { u64::MAX } else { ops[n].ended };
        let deadline = (0..ops.len()).filter(left).map(ends).min().unwrap_or(u64::MAX);
        let next = (0..ops.len()).filter(left).take_while(|n| ops[*n].begun <= deadline);
        let next: Vec<usize> = next.collect();
        if count > furthest.0 || furthest.2.is_empty() {
            furthest = (count, state, next.clone());
        }
        // What is pushed last is tried first: those whose outcome is known.
        let (sure, unknown): (Vec<_>, Vec<_>) = next.into_iter().partition(|n| ops[*n].outcome != Outcome::Unknown);
        for n in unknown.into_iter().chain(sure.into_iter().rev()) {
            let Some(after) = apply(state, &ops[n], &told) else { continue };
            let mut done = done.clone();
            done[n / 64] |= 1 << (n % 64);
            if seen.insert((done.clone(), after)) {
                open.push((done, after, count + usize::from(ops[n].outcome != Outcome::Unknown)));
            }
        }
    }
    let (count, state, next) = furthest;
    let show = |ops: &mut dyn Iterator<Item = Op>| ops.map(|op| format!("\n  {op:?}")).collect::<String>();
    let (next, all) = (show(&mut next.iter().map(|n| ops[*n])), show(&mut all.into_iter()));
    Err(format!(
        "there is no order: of {sure} operations {count} have one, then it is {state:?}, and next were{next}\n\
         of all{all}"
    ))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::Call::{Create, Delete, Get, Update};
    use super::Outcome::{Absent, Conflict, Deleted, Exists, Found, Unknown, Written};
    use super::{Call, Op, Outcome, check};

    type Row = (u64, u64, Call, Outcome);

    fn result(rows: &[Row]) -> Result<(), String> {
        let op = |&(begun, ended, call, outcome): &Row| Op { begun, ended, call, outcome };
        check(&rows.iter().map(op).collect::<Vec<_>>(), &BTreeMap::new())
    }

    #[test]
    fn histories_that_have_an_order_are_taken() {
        let histories: &[&[Row]] = &[
            &[],
            // One after the other.
            &[
                (0, 1, Get, Absent),
                (2, 3, Create(1), Written(10)),
                (4, 5, Create(2), Exists),
                (6, 7, Update { base: 10, value: 3 }, Written(11)),
                (8, 9, Update { base: 10, value: 4 }, Conflict),
                (10, 11, Get, Found(11, 3)),
                (12, 13, Delete { base: None }, Deleted),
                (14, 15, Delete { base: None }, Absent),
                (16, 17, Update { base: 11, value: 5 }, Absent),
                (18, 19, Create(6), Written(13)),
                (20, 21, Delete { base: Some(11) }, Conflict),
                (22, 23, Delete { base: Some(13) }, Deleted),
            ],
            // At once: the read sees the value before its write has ended.
            &[(0, 10, Create(1), Written(10)), (1, 2, Get, Found(10, 1)), (3, 9, Get, Found(10, 1))],
            // Of two creates at once, one finds the other.
            &[(0, 10, Create(1), Exists), (5, 6, Create(2), Written(7))],
            // Unknown, and never carried out.
            &[(0, 1, Create(1), Unknown), (2, 3, Get, Absent), (4, 5, Create(2), Written(9))],
            // Unknown, and carried out much later.
            &[(0, 1, Create(1), Unknown), (2, 3, Get, Absent), (4, 5, Create(2), Exists), (6, 7, Get, Found(9, 1))],
            // Unknown twice: deleted by one of them, between two reads.
            &[
                (0, 1, Create(1), Written(5)),
                (2, 3, Update { base: 5, value: 2 }, Unknown),
                (4, 5, Delete { base: None }, Unknown),
                (6, 7, Get, Found(6, 2)),
                (8, 9, Get, Absent),
            ],
            // A revision that nobody was told is none that an update can name.
            &[
                (0, 1, Create(1), Written(5)),
                (2, 3, Update { base: 5, value: 2 }, Unknown),
                (4, 5, Update { base: 5, value: 3 }, Conflict),
                (6, 7, Delete { base: None }, Deleted),
            ],
        ];
        for history in histories {
            assert_eq!(result(history), Ok(()), "{history:?}");
        }
    }

    #[test]
    fn histories_without_an_order_are_refused() {
        let histories: &[(&str, &[Row])] = &[
            ("acknowledged and lost", &[(0, 1, Create(1), Written(10)), (2, 3, Get, Absent)]),
            (
                "an update that is acknowledged and lost",
                &[
                    (0, 1, Create(1), Written(10)),
                    (2, 3, Update { base: 10, value: 2 }, Written(11)),
                    (4, 5, Get, Found(10, 1)),
                ],
            ),
            (
                "a read that goes back",
                &[
                    (0, 1, Create(1), Written(10)),
                    (2, 20, Update { base: 10, value: 2 }, Written(11)),
                    (3, 4, Get, Found(11, 2)),
                    (5, 6, Get, Found(10, 1)),
                ],
            ),
            (
                "two updates of one revision",
                &[
                    (0, 1, Create(1), Written(10)),
                    (2, 9, Update { base: 10, value: 2 }, Written(11)),
                    (2, 9, Update { base: 10, value: 3 }, Written(12)),
                ],
            ),
            ("two creates", &[(0, 9, Create(1), Written(10)), (0, 9, Create(2), Written(11))]),
            (
                "a conflict with nobody",
                &[(0, 1, Create(1), Written(10)), (2, 3, Update { base: 10, value: 2 }, Conflict)],
            ),
            ("what nobody wrote", &[(0, 1, Get, Found(3, 7))]),
            ("what was refused, and carried out", &[(0, 1, Create(1), Exists), (2, 3, Get, Found(5, 1))]),
            ("an end before its beginning", &[(0, 1, Get, Found(5, 1)), (2, 3, Create(1), Unknown)]),
            (
                "deleted, and back",
                &[(0, 1, Create(1), Written(5)), (2, 3, Delete { base: None }, Deleted), (4, 5, Get, Found(5, 1))],
            ),
            (
                "unknown, carried out twice",
                &[
                    (0, 1, Create(1), Written(5)),
                    (2, 3, Delete { base: None }, Unknown),
                    (4, 5, Get, Absent),
                    (6, 7, Create(2), Written(8)),
                    (8, 9, Get, Absent),
                ],
            ),
            (
                "revisions that go back",
                &[
                    (0, 1, Create(1), Written(10)),
                    (2, 3, Delete { base: None }, Deleted),
                    (4, 5, Create(2), Written(9)),
                ],
            ),
            ("one value at two revisions", &[(0, 1, Create(1), Written(10)), (2, 3, Get, Found(11, 1))]),
            (
                "another's value at this revision",
                &[
                    (0, 1, Create(1), Written(10)),
                    (2, 3, Update { base: 10, value: 2 }, Written(11)),
                    (4, 5, Update { base: 11, value: 3 }, Unknown),
                    (6, 7, Update { base: 11, value: 4 }, Written(12)),
                    (8, 9, Get, Found(13, 3)),
                ],
            ),
        ];
        for (what, history) in histories {
            let why = result(history).expect_err(what);
            assert!(why.contains("there is no order") || why.contains("two revisions"), "{what}: {why}");
        }
    }

    #[test]
    fn what_a_watch_has_told_counts() {
        let ops = [(0, 1, Create(1), Unknown), (2, 3, Update { base: 8, value: 2 }, Written(9))];
        let op = |(begun, ended, call, outcome)| Op { begun, ended, call, outcome };
        let ops = ops.map(op);
        assert_eq!(check(&ops, &BTreeMap::from([(1, 8)])), Ok(()));
        assert!(check(&ops, &BTreeMap::from([(1, 7)])).is_err(), "it is at another revision");
        assert!(check(&ops, &BTreeMap::new()).is_err(), "nobody could know its revision");
    }

    /// Many whose outcome nobody knows do not make the search endless.
    #[test]
    fn a_long_history_is_decided() {
        let (mut rows, mut rv): (Vec<Row>, u64) = (vec![(0, 1, Create(0), Written(1))], 1);
        for n in 1..300 {
            let at = 10 * n;
            rows.push((at, at + 1, Update { base: rv, value: 2 * n }, Unknown));
            rows.push((at + 2, at + 9, Update { base: rv, value: 2 * n + 1 }, Written(rv + 2)));
            rows.push((at + 2, at + 9, Create(5000 + n), Exists));
            rows.push((at + 3, at + 4, Delete { base: Some(rv) }, Unknown));
            rv += 2;
        }
        assert_eq!(result(&rows), Ok(()));
        rows.push((9000, 9001, Get, Found(rv - 2, 2 * 298 + 1)));
        assert!(result(&rows).is_err());
    }
}
