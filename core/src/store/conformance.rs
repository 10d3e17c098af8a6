//! What every store must do, as tests that can drive any store: in memory, embedded and durable, etcd.
//!
//! Each of [`CASES`] gets its own store without any of our keys. The store need not be at its first revision: the tests
//! count revisions from the initial one, as if that were 1. Nothing else may write to it. A case panics if the store
//! behaves differently. [`behaves_as_the_naive_store`] compares a store with full copies of every revision, over steps
//! that a property test generates.

use std::collections::BTreeMap;
use std::rc::Rc;

use smallvec::smallvec;

use super::{
    Compare, Entry, Few, FromStore, KeyValue, LeaseId, Op, Progress, StoreError, StoreEvent, StoreKey, StoreReply,
    StoreRequest, Stored, Txn, WatchId,
};
use crate::object::{Object, ObjectKey, Revision};

/// A store under test.
pub trait Subject {
    /// Sends a request as a client and waits for the reply.
    fn ask(&mut self, client: u32, request: StoreRequest) -> StoreReply;
    /// Messages other than replies that a client has received since the last call. Must wait until no further message
    /// about a revision up to `up_to` can arrive.
    fn told(&mut self, client: u32, up_to: Revision) -> Vec<FromStore>;
    /// Lets time pass.
    fn pass(&mut self, seconds: u64);
    /// Breaks a client's connection.
    fn close(&mut self, client: u32);
    /// What the store's progress notifications guarantee.
    fn progress(&self) -> Progress {
        Progress::Needless
    }
}

/// A case: its name and its test function.
pub type Case = (&'static str, fn(&mut dyn Subject));

/// All cases.
pub const CASES: &[Case] = &[
    ("it reads at every revision", reads_at_every_revision),
    ("a limit tells of more, and the rest follows at the same revision", pages),
    ("transactions compare", transactions_compare),
    ("nothing written is no revision", nothing_written),
    ("a transaction sees its own writes", a_transaction_sees_its_own_writes),
    ("objects carry the revision of their commit", objects),
    ("a watch replays what it missed and goes on", watches),
    ("a watch of the future waits for it", a_watch_of_the_future),
    ("a closed client hears nothing", a_closed_client),
    ("compaction forgets", compaction),
    ("keys end with their lease", leases),
    ("revoking a lease deletes its keys at one revision", revoking),
    ("a notice of progress comes after the events before it", progress),
    ("a consistent read tells the newest revision", consistent_reads),
];

const CLIENT: u32 = 1;

fn key(name: &str) -> StoreKey {
    StoreKey::Private(Rc::from(name))
}

fn put(name: &str, text: &str) -> Op {
    Op::Put { key: key(name), value: Stored::mark(text), lease: None }
}

fn del(name: &str) -> Op {
    Op::Delete { key: key(name) }
}

/// A store, and the offset by which the tests count revisions.
struct Told<'a> {
    store: &'a mut dyn Subject,
    /// Difference between a real revision and the number that the tests use.
    base: u64,
}

impl<'a> Told<'a> {
    fn new(store: &'a mut dyn Subject) -> Told<'a> {
        let StoreReply::Revision { revision } = store.ask(CLIENT, StoreRequest::Revision) else {
            panic!("no revision")
        };
        Told { store, base: revision.0 - 1 }
    }

    /// Revisions: 2: a=1; 3: a=2 b=1; 4: delete a; 5: a=3.
    fn example(store: &'a mut dyn Subject) -> Told<'a> {
        let mut told = Told::new(store);
        for ops in [vec![put("a", "1")], vec![put("a", "2"), put("b", "1")], vec![del("a")], vec![put("a", "3")]] {
            told.write(ops);
        }
        told
    }

    fn real(&self, revision: u64) -> Revision {
        Revision(self.base + revision)
    }

    fn ask(&mut self, request: StoreRequest) -> StoreReply {
        self.store.ask(CLIENT, request)
    }

    fn txn(&mut self, txn: Txn) -> (u64, bool, Vec<Option<Rc<KeyValue>>>) {
        match self.ask(StoreRequest::Txn(Box::new(txn))) {
            StoreReply::Txn { revision, succeeded, results } => (revision.0 - self.base, succeeded, results),
            other => panic!("{other:?} instead of a transaction"),
        }
    }

    fn write(&mut self, ops: Vec<Op>) -> u64 {
        self.txn(Txn { success: ops.into(), ..Txn::default() }).0
    }

    fn revision(&mut self) -> u64 {
        match self.ask(StoreRequest::Revision) {
            StoreReply::Revision { revision } => revision.0 - self.base,
            other => panic!("{other:?} instead of a revision"),
        }
    }

    fn range(&mut self, at: Option<u64>) -> StoreReply {
        let at = at.map(|r| self.real(r));
        self.ask(StoreRequest::Range { span: Box::new(key("")..key("~")), at, limit: 0 })
    }

    fn texts(&mut self, at: Option<u64>) -> Vec<String> {
        match self.range(at) {
            StoreReply::Range { kvs, .. } => kvs.iter().map(|kv| self.text(kv)).collect(),
            other => panic!("{other:?} instead of a range"),
        }
    }

    /// `key=value@created/changed/version`.
    fn text(&self, kv: &KeyValue) -> String {
        match (kv.key(), &kv.value) {
            (StoreKey::Private(k), Stored::Mark(_, v)) => {
                let (created, changed) = (kv.entry.create_revision.0 - self.base, kv.mod_revision().0 - self.base);
                format!("{k}={v}@{created}/{changed}/{}", kv.version)
            }
            other => panic!("{other:?} instead of a mark"),
        }
    }

    fn watch(&mut self, watch: u64, from: u64) -> StoreReply {
        let from = if from == 0 { Revision(0) } else { self.real(from) };
        self.ask(StoreRequest::Watch { watch: WatchId(watch), span: Box::new(key("a")..key("c")), from })
    }

    /// The changes received, as `revision key:before>after` for each revision.
    fn events(&mut self) -> Vec<String> {
        let newest = self.revision();
        let said = self.store.told(CLIENT, self.real(newest));
        let mut shown = Vec::new();
        for message in said {
            let FromStore::Events { revision, events, .. } = message else { panic!("{message:?} instead of events") };
            let value = |kv: &Option<Rc<KeyValue>>| match kv.as_ref().map(|kv| &kv.value) {
                Some(Stored::Mark(_, v)) => v.to_string(),
                _ => "-".to_owned(),
            };
            let one = |e: &StoreEvent| {
                assert_eq!(e.revision, revision);
                assert!(e.value.iter().chain(&e.previous).all(|kv| kv.key() == e.key()));
                let StoreKey::Private(k) = e.key() else { panic!("{e:?}") };
                format!("{k}:{}>{}", value(&e.previous), value(&e.value))
            };
            let all = events.iter().map(one).collect::<Vec<_>>().join(" ");
            shown.push(format!("{} {all}", revision.0 - self.base).trim_end().to_owned());
        }
        shown
    }

    fn grant(&mut self, ttl: u64) -> LeaseId {
        match self.ask(StoreRequest::LeaseGrant { ttl_seconds: ttl }) {
            StoreReply::Lease { lease, ttl_seconds, .. } if ttl_seconds >= ttl => lease,
            other => panic!("{other:?} instead of a lease"),
        }
    }
}

fn reads_at_every_revision(store: &mut dyn Subject) {
    let mut t = Told::example(store);
    for (revision, expect) in [
        (Some(1), &[][..]),
        (Some(2), &["a=1@2/2/1"]),
        (Some(3), &["a=2@2/3/2", "b=1@3/3/1"]),
        (Some(4), &["b=1@3/3/1"]),
        (Some(5), &["a=3@5/5/1", "b=1@3/3/1"]),
        (None, &["a=3@5/5/1", "b=1@3/3/1"]),
    ] {
        assert_eq!(t.texts(revision), expect, "at {revision:?}");
    }
    let newest = t.real(5);
    assert_eq!(t.range(Some(6)), StoreReply::Error(StoreError::FutureRevision { newest }));
}

fn pages(store: &mut dyn Subject) {
    let mut t = Told::example(store);
    let mut page = |start: StoreKey, at: Option<Revision>, limit| match t.ask(StoreRequest::Range {
        span: Box::new(start..key("~")),
        at,
        limit,
    }) {
        StoreReply::Range { kvs, more, count, revision } => {
            (kvs.iter().map(|kv| kv.key().clone()).collect::<Vec<_>>(), more, count, revision)
        }
        other => panic!("{other:?} instead of a range"),
    };
    let (keys, more, count, revision) = page(key(""), None, 1);
    assert_eq!((&keys, more, count), (&vec![key("a")], true, 2));
    let after = keys[0].successor();
    assert_eq!(page(after.clone(), Some(revision), 0), (vec![key("b")], false, 1, revision));
    t.write(vec![del("b"), put("c", "1")]);
    let mut page = |start: StoreKey, at: Option<Revision>| match t.ask(StoreRequest::Range {
        span: Box::new(start..key("~")),
        at,
        limit: 1,
    }) {
        StoreReply::Range { kvs, more, .. } => (kvs.iter().map(|kv| kv.key().clone()).collect::<Vec<_>>(), more),
        other => panic!("{other:?} instead of a range"),
    };
    assert_eq!(page(after.clone(), Some(revision)), (vec![key("b")], false), "a later write is not in it");
    assert_eq!(page(after, None), (vec![key("c")], false));
}

fn transactions_compare(store: &mut dyn Subject) {
    let mut t = Told::example(store);
    let compares: [(Few<Compare>, bool); 8] = [
        (smallvec![], true),
        (smallvec![Compare::ModRevision(key("a"), t.real(5))], true),
        (smallvec![Compare::ModRevision(key("a"), t.real(4))], false),
        (smallvec![Compare::ModRevision(key("x"), Revision(0))], true),
        (smallvec![Compare::CreateRevision(key("b"), t.real(3))], true),
        (smallvec![Compare::CreateRevision(key("b"), Revision(0))], false),
        (smallvec![Compare::Version(key("a"), 1), Compare::Version(key("b"), 2)], false),
        (smallvec![Compare::Version(key("x"), 0)], true),
    ];
    let mut newest = 5;
    for (compare, expect) in compares {
        let shown = format!("{compare:?}");
        let (success, failure) = (smallvec![put("c", "1")], vec![Op::Get { key: key("b") }]);
        let (revision, succeeded, results) = t.txn(Txn { compare, success, failure });
        newest += u64::from(expect);
        assert_eq!((succeeded, revision), (expect, newest), "{shown}");
        assert_eq!(results.first().is_some_and(Option::is_some), !expect, "{shown}");
    }
}

fn nothing_written(store: &mut dyn Subject) {
    let mut t = Told::example(store);
    for ops in [vec![], vec![del("nothing")], vec![Op::Get { key: key("a") }]] {
        assert_eq!((t.write(ops), t.revision()), (5, 5));
    }
}

fn a_transaction_sees_its_own_writes(store: &mut dyn Subject) {
    let mut t = Told::example(store);
    let ops = smallvec![put("a", "4"), Op::Get { key: key("a") }];
    let (_, _, results) = t.txn(Txn { success: ops, ..Txn::default() });
    let texts: Vec<_> = results.iter().flatten().map(|kv| t.text(kv)).collect();
    assert_eq!(texts, ["a=4@5/6/2"]);
}

fn objects(store: &mut dyn Subject) {
    let mut t = Told::new(store);
    let value = serde_json::json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c", "namespace": "d",
        "uid": "u", "labels": {"a": "b"}}, "data": {"k": "v"}});
    let object = Object::from_json(value).expect("a ConfigMap");
    let object_key = object.key();
    let key = StoreKey::Object(object_key.clone());
    t.write(vec![Op::Put { key: key.clone(), value: Stored::Object(object.clone()), lease: None }]);
    let (_, _, results) = t.txn(Txn { success: smallvec![Op::Get { key: key.clone() }], ..Txn::default() });
    let mut expect = object;
    expect.set_rv(t.real(2));
    assert_eq!(results[0].as_ref().map(|kv| &kv.value), Some(&Stored::Object(expect)));
    let kind = object_key.kind;
    let span = |namespace: &str| {
        let ends = [ObjectKey::range_start(kind, namespace), ObjectKey::range_end(kind, namespace)];
        let [start, end] = ends.map(StoreKey::Object);
        Box::new(start..end)
    };
    for (namespace, found) in [("", 1), ("d", 1), ("e", 0)] {
        match t.ask(StoreRequest::Range { span: span(namespace), at: None, limit: 0 }) {
            StoreReply::Range { kvs, count, .. } => assert_eq!((kvs.len(), count), (found, found as u64)),
            other => panic!("{other:?} instead of a range"),
        }
    }
}

fn watches(store: &mut dyn Subject) {
    let mut t = Told::example(store);
    let all: &[&str] = &["2 a:->1", "3 a:1>2 b:->1", "4 a:2>-", "5 a:->3"];
    let (mut newest, mut b) = (5, 1);
    for (id, (from, missed)) in [(2, all), (4, &all[2..]), (6, &[]), (0, &[])].into_iter().enumerate() {
        assert!(matches!(t.watch(id as u64, from), StoreReply::Watching { .. }));
        let seen = t.events();
        assert_eq!(seen[..missed.len()], *missed, "from {from}");
        // Changes of earlier rounds are received too if they are not older than the start.
        assert_eq!(seen.len() - missed.len(), if from == 0 { 0 } else { 2 * id }, "from {from}");
        newest = t.write(vec![put("b", &(b + 1).to_string()), put("z", "1")]);
        assert_eq!(t.events(), [format!("{newest} b:{b}>{}", b + 1)], "from {from}");
        t.write(vec![put("z", "2")]);
        assert!(t.events().is_empty());
        t.ask(StoreRequest::CancelWatch { watch: WatchId(id as u64) });
        newest = t.write(vec![put("b", &(b + 2).to_string())]);
        assert!(t.events().is_empty(), "a watch that has ended hears nothing");
        b += 2;
    }
    assert_eq!(newest, 5 + 3 * 4);
}

fn a_watch_of_the_future(store: &mut dyn Subject) {
    let mut t = Told::example(store);
    t.watch(1, 7);
    t.write(vec![put("a", "6")]);
    assert!(t.events().is_empty());
    t.write(vec![put("a", "7")]);
    assert_eq!(t.events(), ["7 a:6>7"]);
}

fn a_closed_client(store: &mut dyn Subject) {
    let mut t = Told::example(store);
    t.watch(1, 0);
    t.store.close(CLIENT);
    let txn = Txn { success: smallvec![put("a", "6")], ..Txn::default() };
    t.store.ask(CLIENT + 1, StoreRequest::Txn(Box::new(txn)));
    assert!(t.store.told(CLIENT, t.real(6)).is_empty());
}

fn compaction(store: &mut dyn Subject) {
    let mut t = Told::example(store);
    let (four, newest) = (t.real(4), t.real(5));
    assert_eq!(t.ask(StoreRequest::Compact { at: four }), StoreReply::Compacted { revision: newest });
    let gone = StoreReply::Error(StoreError::Compacted { oldest: four });
    assert_eq!(t.range(Some(3)), gone);
    assert_eq!(t.texts(Some(4)), ["b=1@3/3/1"]);
    assert_eq!(t.ask(StoreRequest::Compact { at: four }), gone);
    let six = t.real(6);
    assert_eq!(t.ask(StoreRequest::Compact { at: six }), StoreReply::Error(StoreError::FutureRevision { newest }));
    assert_eq!(t.watch(1, 3), StoreReply::WatchCanceled { watch: WatchId(1), compacted: Some(four) });
    assert!(matches!(t.watch(2, 5), StoreReply::Watching { .. }));
    assert_eq!(t.events(), ["5 a:->3"]);
}

fn leases(store: &mut dyn Subject) {
    let mut t = Told::new(store);
    let lease = t.grant(6);
    let leased = |k: &str| Op::Put { key: key(k), value: Stored::mark("v"), lease: Some(lease) };
    t.write(vec![leased("a"), leased("b"), leased("ba")]);
    // A put without a lease detaches the key from it.
    t.write(vec![put("ba", "stays")]);
    t.store.pass(3);
    assert!(matches!(t.ask(StoreRequest::LeaseKeepAlive { lease }), StoreReply::Lease { .. }));
    t.watch(1, 0);
    t.store.pass(4);
    assert_eq!((t.revision(), t.events().len()), (3, 0), "it was kept alive");
    t.store.pass(6);
    let all = t.events().join(" ");
    assert!(all.contains("a:v>-") && all.contains("b:v>-") && !all.contains("ba:"), "{all}");
    assert_eq!(t.texts(None), ["ba=stays@2/3/2"]);
    let gone = StoreReply::Error(StoreError::LeaseNotFound);
    assert_eq!(t.ask(StoreRequest::LeaseKeepAlive { lease }), gone);
    assert_eq!(t.ask(StoreRequest::LeaseRevoke { lease }), gone);
    let before = t.revision();
    let txn = Txn { success: smallvec![put("x", "1"), leased("a")], ..Txn::default() };
    assert_eq!(t.ask(StoreRequest::Txn(Box::new(txn))), gone);
    assert_eq!((t.revision(), t.texts(None).len()), (before, 1), "none of it is done");
}

fn revoking(store: &mut dyn Subject) {
    let mut t = Told::new(store);
    let (lease, other) = (t.grant(60), t.grant(60));
    assert_ne!(lease, other);
    let leased = |k: &str| Op::Put { key: key(k), value: Stored::mark("v"), lease: Some(lease) };
    t.write(vec![leased("a"), leased("b"), put("ba", "v")]);
    t.watch(1, 0);
    assert!(matches!(t.ask(StoreRequest::LeaseRevoke { lease }), StoreReply::Revoked { .. }));
    assert_eq!(t.events(), ["3 a:v>- b:v>-"]);
    assert!(matches!(t.ask(StoreRequest::LeaseRevoke { lease: other }), StoreReply::Revoked { .. }));
    assert_eq!((t.revision(), t.texts(None).len()), (3, 1), "a lease without keys ends without a revision");
}

fn progress(store: &mut dyn Subject) {
    let mut t = Told::example(store);
    if t.store.progress() == Progress::Overtakes {
        return;
    }
    t.watch(4, 5);
    t.write(vec![put("z", "1")]);
    assert_eq!(t.ask(StoreRequest::Progress), StoreReply::ProgressAsked);
    assert_eq!(t.events(), ["5 a:->3", "6"]);
}

fn consistent_reads(store: &mut dyn Subject) {
    let mut t = Told::example(store);
    for n in 6..9 {
        let txn = Txn { success: smallvec![put("a", "x")], ..Txn::default() };
        t.store.ask(CLIENT + 1, StoreRequest::Txn(Box::new(txn)));
        assert_eq!(t.revision(), n);
    }
}

/// One step of a run of [`behaves_as_the_naive_store`]. Keys are numbers below six; revisions are counted from 1.
#[derive(Clone, Debug)]
pub enum Step {
    /// Writes and deletes keys if a key is at a revision.
    Txn {
        /// The key and its revision; zero means that the key is absent.
        compare: Option<(u8, u8)>,
        /// What is written, each key at most once; `None` deletes the key.
        writes: Vec<(u8, Option<u8>)>,
    },
    /// Compacts at a revision, at least 1.
    Compact(u8),
    /// Reads everything at a revision; zero means the newest.
    Read(u8),
    /// Watches everything from a revision; zero means from now.
    Watch(u8),
}

type Snapshot = BTreeMap<StoreKey, Rc<KeyValue>>;
type Seen = (u64, StoreKey, Option<Rc<KeyValue>>, Option<Rc<KeyValue>>);

fn letter(k: u8) -> StoreKey {
    key(&((b'a' + k) as char).to_string())
}

/// The naive store: a full copy of every revision.
struct Model {
    base: u64,
    snapshots: Vec<Snapshot>,
    compacted: u64,
}

impl Model {
    fn newest(&self) -> u64 {
        self.snapshots.len() as u64 - 1
    }

    fn last(&self) -> &Snapshot {
        self.snapshots.last().expect("there is one from the beginning")
    }

    fn write(&mut self, writes: &[(u8, Option<u8>)]) {
        let revision = Revision(self.base + self.newest() + 1);
        let mut next = self.last().clone();
        let mut changed = false;
        for (k, value) in writes {
            let (key, old) = (letter(*k), next.get(&letter(*k)).cloned());
            match value {
                Some(v) => {
                    let create_revision = old.as_ref().map_or(revision, |o| o.entry.create_revision);
                    let entry = Rc::new(Entry { key: key.clone(), create_revision, lease: None });
                    let value = Stored::Mark(revision, Rc::from(v.to_string()));
                    next.insert(key, Rc::new(KeyValue { value, version: old.map_or(1, |o| o.version + 1), entry }));
                    changed = true;
                }
                None => changed |= next.remove(&key).is_some(),
            }
        }
        if changed {
            self.snapshots.push(next);
        }
    }

    /// What a watch from `from` must have received by now.
    fn history(&self, from: u64) -> Vec<Seen> {
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

/// Runs the steps on a store and on full copies of every revision, and compares all replies and events.
pub fn behaves_as_the_naive_store(store: &mut dyn Subject, steps: &[Step]) {
    let mut t = Told::new(store);
    let mut model = Model { base: t.base, snapshots: vec![Snapshot::new(), Snapshot::new()], compacted: 0 };
    let mut watches: Vec<(u64, Vec<Seen>)> = Vec::new();
    for step in steps {
        match step {
            Step::Txn { compare, writes } => {
                let of = |r: u8| if r == 0 { Revision(0) } else { t.real(u64::from(r)) };
                let holds = compare.is_none_or(|(k, r)| {
                    model.last().get(&letter(k)).map_or(Revision(0), |kv| kv.mod_revision()) == of(r)
                });
                let compare = compare.iter().map(|(k, r)| Compare::ModRevision(letter(*k), of(*r))).collect();
                let op = |(k, v): &(u8, Option<u8>)| match v {
                    Some(v) => Op::Put { key: letter(*k), value: Stored::mark(&v.to_string()), lease: None },
                    None => Op::Delete { key: letter(*k) },
                };
                let success = writes.iter().map(op).collect();
                let (revision, succeeded, _) = t.txn(Txn { compare, success, failure: Vec::new() });
                if holds {
                    model.write(writes);
                }
                assert_eq!((revision, succeeded), (model.newest(), holds));
            }
            Step::Compact(r) => {
                let r = u64::from(*r);
                let may = r > model.compacted && r <= model.newest();
                let at = t.real(r);
                assert_eq!(matches!(t.ask(StoreRequest::Compact { at }), StoreReply::Compacted { .. }), may);
                if may {
                    model.compacted = r;
                }
            }
            Step::Read(r) => {
                let r = u64::from(*r);
                let reply = t.range(Some(r).filter(|r| *r > 0));
                let r = if r == 0 { model.newest() } else { r };
                match reply {
                    StoreReply::Range { kvs, .. } => {
                        let expect: Vec<Rc<KeyValue>> = model.snapshots[r as usize].values().cloned().collect();
                        assert_eq!(kvs, expect, "at {r}");
                    }
                    StoreReply::Error(_) => assert!(r < model.compacted || r > model.newest(), "at {r}"),
                    other => panic!("{other:?} instead of a range"),
                }
            }
            Step::Watch(r) => {
                let from = if *r == 0 { Revision(0) } else { t.real(u64::from(*r)) };
                let (watch, span) = (WatchId(watches.len() as u64), Box::new(key("")..key("~")));
                let reply = t.ask(StoreRequest::Watch { watch, span, from });
                let start = if *r == 0 { model.newest() + 1 } else { u64::from(*r) };
                let stands = start >= model.compacted;
                assert_eq!(matches!(reply, StoreReply::Watching { .. }), stands, "from {start}");
                // A rejected watch must never receive anything.
                watches.push((if stands { start } else { u64::MAX }, Vec::new()));
            }
        }
        let newest = t.real(model.newest());
        for message in t.store.told(CLIENT, newest) {
            let FromStore::Events { watch, revision, events } = message else { panic!("{message:?}") };
            for e in events.iter() {
                let seen = (revision.0 - t.base, e.key().clone(), e.value.clone(), e.previous.clone());
                watches[watch.0 as usize].1.push(seen);
            }
        }
        for (from, seen) in &watches {
            assert_eq!(seen, &model.history(*from), "a watch from {from}");
        }
    }
}
