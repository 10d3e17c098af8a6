//! The store in memory against tables, and against a model that keeps a whole copy of every revision.

use std::collections::BTreeMap;
use std::num::NonZeroU64;
use std::rc::Rc;
use std::time::Duration;

use proptest::prelude::{Just, Strategy, prop_oneof};
use proptest::{collection, option, prop_assert, prop_assert_eq, proptest};
use smallvec::smallvec;

use super::memory::{In, MemoryStore, Out, StoreClient};
use super::{
    Batch, Compare, Entry, FromStore, KeyValue, LeaseId, Op, StoreError, StoreEvent, StoreKey, StoreReply,
    StoreRequest, Stored, Txn, WatchId,
};
use crate::machine::{Machine, Mono, Now};
use crate::object::Revision;

const CLIENT: StoreClient = StoreClient(1);

fn key(name: &str) -> StoreKey {
    StoreKey::Private(Rc::from(name))
}

fn mark(text: &str) -> Stored {
    Stored::mark(text)
}

fn put(name: &str, text: &str) -> Op {
    Op::Put { key: key(name), value: mark(text), lease: None }
}

fn del(name: &str) -> Op {
    Op::Delete { key: key(name) }
}

fn do_ops(ops: Vec<Op>) -> StoreRequest {
    StoreRequest::Txn(Box::new(Txn { success: ops.into(), ..Txn::default() }))
}

fn at(seconds: u64) -> Now {
    Now { mono: Mono::ZERO + Duration::from_secs(seconds), ..Now::default() }
}

fn ask_at(store: &mut MemoryStore, seconds: u64, request: StoreRequest) -> (StoreReply, Vec<Out>) {
    let mut out = Vec::new();
    store.handle(at(seconds), In::Request(CLIENT, 7, request), &mut out);
    let rest = out.split_off(1);
    match out.pop().unwrap().msg {
        FromStore::Reply(7, reply) => (reply, rest),
        other => panic!("{other:?} instead of a reply"),
    }
}

fn ask(store: &mut MemoryStore, request: StoreRequest) -> StoreReply {
    ask_at(store, 0, request).0
}

fn all_at(revision: Option<u64>) -> StoreRequest {
    StoreRequest::Range { span: Box::new(key("")..key("~")), at: revision.map(Revision), limit: 0 }
}

fn texts(reply: &StoreReply) -> Vec<String> {
    let StoreReply::Range { kvs, .. } = reply else { panic!("{reply:?} instead of a range") };
    let show = |kv: &Rc<KeyValue>| match (kv.key(), &kv.value) {
        (StoreKey::Private(k), Stored::Mark(_, v)) => {
            format!("{k}={v}@{}/{}/{}", kv.entry.create_revision.0, kv.mod_revision().0, kv.version)
        }
        other => panic!("{other:?}"),
    };
    kvs.iter().map(show).collect()
}

fn events(out: &[Out]) -> Vec<String> {
    let mut shown = Vec::new();
    for o in out {
        let FromStore::Events { revision, events, .. } = &o.msg else { panic!("{o:?} instead of events") };
        let text = |kv: &Option<Rc<KeyValue>>| match kv.as_ref().map(|kv| &kv.value) {
            Some(Stored::Mark(_, v)) => v.to_string(),
            _ => "-".to_owned(),
        };
        let one = |e: &StoreEvent| {
            assert_eq!(e.revision, *revision);
            let StoreKey::Private(k) = e.key() else { panic!("{e:?}") };
            format!("{k}:{}>{}", text(&e.previous), text(&e.value))
        };
        shown.push(format!("{} {}", revision.0, events.iter().map(one).collect::<Vec<_>>().join(" ")));
    }
    shown
}

/// Revisions: 2: a=1; 3: a=2 b=1; 4: delete a; 5: a=3.
fn example() -> MemoryStore {
    let mut store = MemoryStore::new();
    for ops in [vec![put("a", "1")], vec![put("a", "2"), put("b", "1")], vec![del("a")], vec![put("a", "3")]] {
        ask(&mut store, do_ops(ops));
    }
    store
}

#[test]
fn reads_at_every_revision() {
    let mut store = example();
    for (revision, expect) in [
        (Some(1), vec![]),
        (Some(2), vec!["a=1@2/2/1"]),
        (Some(3), vec!["a=2@2/3/2", "b=1@3/3/1"]),
        (Some(4), vec!["b=1@3/3/1"]),
        (Some(5), vec!["a=3@5/5/1", "b=1@3/3/1"]),
        (None, vec!["a=3@5/5/1", "b=1@3/3/1"]),
    ] {
        assert_eq!(texts(&ask(&mut store, all_at(revision))), expect, "{revision:?}");
    }
    let newest = Revision(5);
    assert_eq!(ask(&mut store, all_at(Some(6))), StoreReply::Error(StoreError::FutureRevision { newest }));
}

#[test]
fn a_limit_tells_of_more() {
    let mut store = example();
    let StoreReply::Range { kvs, more, count, .. } =
        ask(&mut store, StoreRequest::Range { span: Box::new(key("")..key("~")), at: None, limit: 1 })
    else {
        panic!()
    };
    assert_eq!((kvs.len(), more, count), (1, true, 2));
}

#[test]
fn transactions_compare() {
    for (compare, expect) in [
        (smallvec![], true),
        (smallvec![Compare::ModRevision(key("a"), Revision(5))], true),
        (smallvec![Compare::ModRevision(key("a"), Revision(4))], false),
        (smallvec![Compare::ModRevision(key("x"), Revision(0))], true),
        (smallvec![Compare::CreateRevision(key("b"), Revision(3))], true),
        (smallvec![Compare::CreateRevision(key("b"), Revision(0))], false),
        (smallvec![Compare::Version(key("a"), 1), Compare::Version(key("b"), 2)], false),
        (smallvec![Compare::Version(key("x"), 0)], true),
    ] {
        let mut store = example();
        let txn = Txn {
            compare: compare.clone(),
            success: smallvec![put("c", "1")],
            failure: vec![Op::Get { key: key("b") }],
        };
        let reply = ask(&mut store, StoreRequest::Txn(Box::new(txn)));
        let StoreReply::Txn { revision, succeeded, results } = reply else { panic!() };
        assert_eq!(succeeded, expect, "{compare:?}");
        assert_eq!(revision.0, if expect { 6 } else { 5 });
        assert_eq!(results.first().is_some_and(Option::is_some), !expect);
    }
}

#[test]
fn nothing_written_is_no_revision() {
    let mut store = example();
    for ops in [vec![], vec![del("nothing")], vec![Op::Get { key: key("a") }]] {
        ask(&mut store, do_ops(ops));
        assert_eq!(store.revision(), Revision(5));
    }
}

#[test]
fn a_transaction_sees_its_own_writes() {
    let mut store = example();
    let reply = ask(&mut store, do_ops(vec![put("a", "4"), Op::Get { key: key("a") }]));
    let StoreReply::Txn { results, .. } = reply else { panic!() };
    let values: Vec<_> = results.into_iter().map(|r| r.map(|kv| kv.value.clone())).collect();
    assert_eq!(values, [Some(Stored::Mark(Revision(6), Rc::from("4")))]);
}

#[test]
fn what_is_let_go_after_a_compaction_is_nobodys() {
    let mut store = MemoryStore::new();
    let value = |n: u64| {
        if n.is_multiple_of(3) { vec![put("a", &n.to_string()), put("b", "x")] } else { vec![put("a", &n.to_string())] }
    };
    // Revision n holds n.
    (2..=300).for_each(|n| drop(ask(&mut store, do_ops(value(n)))));
    let StoreReply::Range { kvs: held, .. } = ask(&mut store, all_at(Some(90))) else { panic!("a range") };
    let StoreReply::Range { kvs, .. } = ask(&mut store, all_at(Some(50))) else { panic!("a range") };
    let Stored::Mark(_, fifty) = kvs[0].value.clone() else { panic!("a mark") };
    drop(kvs);
    ask(&mut store, StoreRequest::Compact { at: Revision(200) });
    assert_eq!((store.history_len(), Rc::strong_count(&fifty)), (101, 2));
    for n in 301..=900 {
        ask(&mut store, do_ops(value(n)));
        assert_eq!(store.history_len() as u64, n - 199);
        let old = 200 + n % 100;
        assert!(texts(&ask(&mut store, all_at(Some(old))))[0].starts_with(&format!("a={old}@2/{old}/")));
    }
    assert_eq!(Rc::strong_count(&fifty), 1, "nobody holds what is let go");
    assert_eq!(held[0].value, Stored::Mark(Revision(90), Rc::from("90")), "what somebody holds stays as it is");
    let StoreReply::Error(StoreError::Compacted { .. }) = ask(&mut store, all_at(Some(199))) else {
        panic!("what is compacted away is out of reach")
    };
}

#[test]
fn a_watch_replays_and_goes_on() {
    let all: &[&str] = &["2 a:->1", "3 a:1>2 b:->1", "4 a:2>-", "5 a:->3"];
    for (from, missed) in [(2, all), (4, &all[2..]), (6, &[]), (0, &[])] {
        let mut store = example();
        let watch = StoreRequest::Watch { watch: WatchId(1), span: Box::new(key("a")..key("c")), from: Revision(from) };
        let (reply, out) = ask_at(&mut store, 0, watch);
        assert!(matches!(reply, StoreReply::Watching { .. }));
        assert_eq!(events(&out), missed, "from {from}");
        let (_, out) = ask_at(&mut store, 0, do_ops(vec![put("b", "2"), put("z", "1")]));
        assert_eq!(events(&out), ["6 b:1>2"], "from {from}");
        let (_, out) = ask_at(&mut store, 0, do_ops(vec![put("z", "2")]));
        assert!(out.is_empty());
        ask(&mut store, StoreRequest::CancelWatch { watch: WatchId(1) });
        let (_, out) = ask_at(&mut store, 0, do_ops(vec![put("b", "3")]));
        assert!(out.is_empty());
    }
}

#[test]
fn a_watch_of_the_future_waits_for_it() {
    let mut store = example();
    let watch = StoreRequest::Watch { watch: WatchId(1), span: Box::new(key("a")..key("c")), from: Revision(7) };
    ask(&mut store, watch);
    assert!(events(&ask_at(&mut store, 0, do_ops(vec![put("a", "6")])).1).is_empty());
    assert_eq!(events(&ask_at(&mut store, 0, do_ops(vec![put("a", "7")])).1), ["7 a:6>7"]);
}

#[test]
fn a_closed_client_hears_nothing() {
    let mut store = example();
    ask(&mut store, StoreRequest::Watch { watch: WatchId(1), span: Box::new(key("a")..key("c")), from: Revision(0) });
    store.handle(at(0), In::Closed(CLIENT), &mut Vec::new());
    assert!(ask_at(&mut store, 0, do_ops(vec![put("a", "6")])).1.is_empty());
}

#[test]
fn compaction_forgets() {
    let mut store = example();
    assert_eq!(
        ask(&mut store, StoreRequest::Compact { at: Revision(4) }),
        StoreReply::Compacted { revision: Revision(5) }
    );
    let gone = StoreError::Compacted { oldest: Revision(4) };
    assert_eq!(ask(&mut store, all_at(Some(3))), StoreReply::Error(gone.clone()));
    assert_eq!(texts(&ask(&mut store, all_at(Some(4)))), ["b=1@3/3/1"]);
    assert_eq!(ask(&mut store, StoreRequest::Compact { at: Revision(4) }), StoreReply::Error(gone));
    let newest = Revision(5);
    assert_eq!(
        ask(&mut store, StoreRequest::Compact { at: Revision(6) }),
        StoreReply::Error(StoreError::FutureRevision { newest })
    );
    for (from, expect) in [(3, None), (4, Some(vec!["4 a:2>-", "5 a:->3"]))] {
        let watch = StoreRequest::Watch { watch: WatchId(1), span: Box::new(key("a")..key("c")), from: Revision(from) };
        let (reply, out) = ask_at(&mut store, 0, watch);
        match expect {
            Some(expect) => assert_eq!(events(&out), expect),
            None => {
                let compacted = Some(Revision(4));
                assert_eq!(reply, StoreReply::WatchCanceled { watch: WatchId(1), compacted });
            }
        }
    }
}

#[test]
fn leases_end_with_their_keys() {
    let mut store = MemoryStore::new();
    let StoreReply::Lease { lease, ttl_seconds: 10, .. } =
        ask(&mut store, StoreRequest::LeaseGrant { ttl_seconds: 10 })
    else {
        panic!()
    };
    let leased = |k: &str| Op::Put { key: key(k), value: mark("v"), lease: Some(lease) };
    ask(&mut store, do_ops(vec![leased("a"), leased("b"), leased("c")]));
    // A put without the lease takes the key out of it.
    ask(&mut store, do_ops(vec![put("c", "stays")]));
    ask_at(&mut store, 5, StoreRequest::LeaseKeepAlive { lease });
    ask(&mut store, StoreRequest::Watch { watch: WatchId(1), span: Box::new(key("a")..key("z")), from: Revision(0) });
    let mut out = Vec::new();
    store.handle_timeout(at(14), &mut out);
    assert!(out.is_empty());
    assert_eq!(store.poll_timeout().unwrap().at, at(15).mono);
    store.handle_timeout(at(15), &mut out);
    assert_eq!(events(&out), ["4 a:v>- b:v>-"]);
    assert_eq!(texts(&ask(&mut store, all_at(None))), ["c=stays@2/3/2"]);
    assert_eq!(store.poll_timeout(), None);
    let gone = StoreReply::Error(StoreError::LeaseNotFound);
    assert_eq!(ask(&mut store, StoreRequest::LeaseKeepAlive { lease }), gone);
    assert_eq!(ask(&mut store, StoreRequest::LeaseRevoke { lease }), gone);
    assert_eq!(ask(&mut store, do_ops(vec![leased("a")])), gone);
    assert_eq!(store.revision(), Revision(4));
}

#[test]
fn revoking_deletes_and_progress_tells() {
    let mut store = MemoryStore::new();
    ask(&mut store, StoreRequest::LeaseGrant { ttl_seconds: 10 });
    let lease = Some(LeaseId(NonZeroU64::MIN));
    ask(&mut store, do_ops(vec![Op::Put { key: key("a"), value: mark("v"), lease }]));
    ask(&mut store, StoreRequest::LeaseRevoke { lease: LeaseId(NonZeroU64::MIN) });
    assert!(texts(&ask(&mut store, all_at(None))).is_empty());
    ask(&mut store, StoreRequest::Watch { watch: WatchId(4), span: Box::new(key("a")..key("b")), from: Revision(0) });
    let mut out = Vec::new();
    store.handle(at(0), In::Request(CLIENT, 1, StoreRequest::Progress), &mut out);
    let events = Batch::from_iter([]);
    let msg = FromStore::Events { watch: WatchId(4), revision: Revision(3), events };
    let reply = FromStore::Reply(1, StoreReply::Txn { revision: Revision(3), succeeded: true, results: Vec::new() });
    assert_eq!(out, [Out { to: CLIENT, msg }, Out { to: CLIENT, msg: reply }]);
}

type Snapshot = BTreeMap<StoreKey, Rc<KeyValue>>;

/// One step of a random run.
#[derive(Clone, Debug)]
enum Step {
    Txn { compare: Option<(u8, u8)>, writes: Vec<(u8, Option<u8>)> },
    Compact(u8),
    Read(u8),
    Watch(u8),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let writes = collection::btree_map(0u8..6, option::of(0u8..9), 0..4).prop_map(|m| m.into_iter().collect());
    let step = prop_oneof![
        6 => (option::of((0u8..6, 0u8..20)), writes).prop_map(|(compare, writes)| Step::Txn { compare, writes }),
        1 => (0u8..30).prop_map(Step::Compact),
        3 => (0u8..30).prop_map(Step::Read),
        2 => (0u8..30).prop_map(Step::Watch),
        1 => Just(Step::Read(0)),
    ];
    collection::vec(step, 1..60)
}

fn letter(k: u8) -> StoreKey {
    key(&((b'a' + k) as char).to_string())
}

/// The naive store: a whole copy for each revision.
struct Model {
    snapshots: Vec<Snapshot>,
    compacted: u64,
}

impl Model {
    fn newest(&self) -> u64 {
        self.snapshots.len() as u64 - 1
    }

    fn write(&mut self, writes: &[(u8, Option<u8>)]) {
        let revision = Revision(self.newest() + 1);
        let mut next = self.snapshots.last().unwrap().clone();
        let mut changed = false;
        for (k, value) in writes {
            let (key, old) = (letter(*k), next.get(&letter(*k)).cloned());
            match value {
                Some(v) => {
                    let entry = Entry {
                        key: key.clone(),
                        create_revision: old.as_ref().map_or(revision, |o| o.entry.create_revision),
                        lease: None,
                    };
                    let kv = KeyValue {
                        value: Stored::Mark(revision, Rc::from(v.to_string())),
                        version: old.map_or(1, |o| o.version + 1),
                        entry: Rc::new(entry),
                    };
                    next.insert(key, Rc::new(kv));
                    changed = true;
                }
                None => changed |= next.remove(&key).is_some(),
            }
        }
        if changed {
            self.snapshots.push(next);
        }
    }

    /// What a watch from `from` has seen by now, as `(revision, key, value)`.
    fn history(&self, from: u64) -> Vec<(u64, StoreKey, Option<Rc<KeyValue>>, Option<Rc<KeyValue>>)> {
        let mut seen = Vec::new();
        for r in from.max(1)..=self.newest() {
            let (old, new) = (&self.snapshots[r as usize - 1], &self.snapshots[r as usize]);
            for k in (0..6).map(letter) {
                if old.get(&k) != new.get(&k) {
                    seen.push((r, k.clone(), new.get(&k).cloned(), old.get(&k).cloned()));
                }
            }
        }
        seen
    }
}

fn run(steps: Vec<Step>) -> Result<(), proptest::test_runner::TestCaseError> {
    let mut store = MemoryStore::new();
    let mut model = Model { snapshots: vec![Snapshot::new(), Snapshot::new()], compacted: 0 };
    let mut watches: Vec<(u64, Vec<(u64, StoreKey, Option<Rc<KeyValue>>, Option<Rc<KeyValue>>)>)> = Vec::new();
    for step in steps {
        let mut out = Vec::new();
        match step {
            Step::Txn { compare, writes } => {
                let holds = compare.is_none_or(|(k, r)| {
                    model.snapshots.last().unwrap().get(&letter(k)).map_or(0, |kv| kv.mod_revision().0) == u64::from(r)
                });
                let compare =
                    compare.iter().map(|(k, r)| Compare::ModRevision(letter(*k), Revision(u64::from(*r)))).collect();
                let op = |(k, v): &(u8, Option<u8>)| match v {
                    Some(v) => Op::Put { key: letter(*k), value: mark(&v.to_string()), lease: None },
                    None => Op::Delete { key: letter(*k) },
                };
                let txn = Txn { compare, success: writes.iter().map(op).collect(), failure: Vec::new() };
                let (reply, events) = ask_at(&mut store, 0, StoreRequest::Txn(Box::new(txn)));
                out = events;
                if holds {
                    model.write(&writes);
                }
                let StoreReply::Txn { revision, succeeded, .. } = reply else { panic!("{reply:?}") };
                prop_assert_eq!((revision.0, succeeded), (model.newest(), holds));
            }
            Step::Compact(r) => {
                let r = u64::from(r);
                let ok = r > model.compacted && r <= model.newest();
                let reply = ask(&mut store, StoreRequest::Compact { at: Revision(r) });
                prop_assert_eq!(matches!(reply, StoreReply::Compacted { .. }), ok);
                if ok {
                    model.compacted = r;
                }
            }
            Step::Read(r) => {
                let r = u64::from(r);
                let reply = ask(&mut store, all_at(Some(r)));
                let r = if r == 0 { model.newest() } else { r };
                match reply {
                    StoreReply::Range { kvs, .. } => {
                        let expect: Vec<Rc<KeyValue>> = model.snapshots[r as usize].values().cloned().collect();
                        prop_assert_eq!(kvs, expect);
                    }
                    StoreReply::Error(_) => prop_assert!(r < model.compacted || r > model.newest()),
                    other => panic!("{other:?}"),
                }
            }
            Step::Watch(r) => {
                let id = watches.len() as u64;
                let from = Revision(u64::from(r));
                let watch = StoreRequest::Watch { watch: WatchId(id), span: Box::new(key("")..key("~")), from };
                let (reply, events) = ask_at(&mut store, 0, watch);
                out = events;
                let start = if r == 0 { model.newest() + 1 } else { u64::from(r) };
                prop_assert_eq!(matches!(reply, StoreReply::Watching { .. }), start >= model.compacted);
                // A refused watch is expected to see nothing ever.
                let expect_from = if start >= model.compacted { start } else { u64::MAX };
                watches.push((expect_from, Vec::new()));
            }
        }
        for o in out {
            let FromStore::Events { watch, revision, events } = o.msg else { panic!("{o:?}") };
            for e in events.iter() {
                let seen = (revision.0, e.key().clone(), e.value.clone(), e.previous.clone());
                watches[watch.0 as usize].1.push(seen);
            }
        }
        for (from, seen) in &watches {
            prop_assert_eq!(seen, &model.history(*from));
        }
    }
    Ok(())
}

proptest! {
    #[test]
    fn behaves_as_the_naive_store(steps in steps()) {
        run(steps)?;
    }
}

#[test]
fn a_version_and_what_all_versions_share_fill_a_line_of_the_cache_each() {
    let counters = 2 * size_of::<usize>();
    assert!(size_of::<KeyValue>() + counters <= 64, "{}", size_of::<KeyValue>());
    assert!(size_of::<Entry>() + counters <= 64, "{}", size_of::<Entry>());
}
