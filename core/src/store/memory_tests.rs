//! Tests the stores of this crate: what every store must do, and what only these promise.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use proptest::prelude::{Just, Strategy, prop_oneof};
use proptest::{collection, option, proptest};

use super::conformance::{self, CASES, Step, Subject};
use super::memory::{In, MemoryStore, Out, StoreClient};
use super::{
    DurableStore, Entry, FromStore, KeyValue, Op, StoreError, StoreKey, StoreReply, StoreRequest, Stored, Txn,
};
use crate::machine::{Machine, Mono, Now};
use crate::object::Revision;

#[derive(Debug)]
enum Store {
    Memory(MemoryStore),
    Durable(DurableStore),
}

/// A store of this crate, which replies immediately.
#[derive(Debug)]
struct AtOnce {
    store: Store,
    now: Now,
    said: BTreeMap<u32, Vec<FromStore>>,
}

impl AtOnce {
    fn new(store: Store) -> AtOnce {
        AtOnce { store, now: Now { mono: Mono::ZERO, ..Now::default() }, said: BTreeMap::new() }
    }

    fn handle(&mut self, input: In) -> Option<StoreReply> {
        let mut out = Vec::new();
        match &mut self.store {
            Store::Memory(store) => store.handle(self.now, input, &mut out),
            Store::Durable(store) => store.handle(self.now, input, &mut out, &mut Vec::new()),
        }
        self.hear(out)
    }

    fn hear(&mut self, out: Vec<Out>) -> Option<StoreReply> {
        let mut answer = None;
        for Out { to, msg } in out {
            match msg {
                FromStore::Reply(7, reply) => assert!(answer.replace(reply).is_none(), "one answer to a request"),
                other => self.said.entry(to.0).or_default().push(other),
            }
        }
        answer
    }
}

impl Subject for AtOnce {
    fn ask(&mut self, client: u32, request: StoreRequest) -> StoreReply {
        self.handle(In::Request(StoreClient(client), 7, request)).expect("an answer")
    }

    fn told(&mut self, client: u32, _up_to: Revision) -> Vec<FromStore> {
        self.said.remove(&client).unwrap_or_default()
    }

    fn pass(&mut self, seconds: u64) {
        self.now = self.now + Duration::from_secs(seconds);
        let mut out = Vec::new();
        match &mut self.store {
            Store::Memory(store) => store.handle_timeout(self.now, &mut out),
            Store::Durable(store) => store.handle_timeout(self.now, &mut out, &mut Vec::new()),
        }
        assert!(self.hear(out).is_none());
    }

    fn close(&mut self, client: u32) {
        self.handle(In::Closed(StoreClient(client)));
    }
}

fn both() -> [AtOnce; 2] {
    [Store::Memory(MemoryStore::new()), Store::Durable(DurableStore::default())].map(AtOnce::new)
}

#[test]
fn they_do_what_every_store_must() {
    for (name, case) in CASES {
        for mut store in both() {
            println!("{name}");
            case(&mut store);
        }
    }
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let writes = collection::btree_map(0u8..6, option::of(0u8..9), 0..4).prop_map(|m| m.into_iter().collect());
    let step = prop_oneof![
        6 => (option::of((0u8..6, 0u8..20)), writes).prop_map(|(compare, writes)| Step::Txn { compare, writes }),
        1 => (1u8..30).prop_map(Step::Compact),
        3 => (1u8..30).prop_map(Step::Read),
        2 => (0u8..30).prop_map(Step::Watch),
        1 => Just(Step::Read(0)),
    ];
    collection::vec(step, 1..60)
}

proptest! {
    #[test]
    fn they_behave_as_the_naive_store(steps in steps()) {
        for mut store in both() {
            conformance::behaves_as_the_naive_store(&mut store, &steps);
        }
    }
}

fn key(name: &str) -> StoreKey {
    StoreKey::Private(Rc::from(name))
}

fn put(name: &str, text: &str) -> Op {
    Op::Put { key: key(name), value: Stored::mark(text), lease: None }
}

fn ask(store: &mut MemoryStore, request: StoreRequest) -> StoreReply {
    let mut out = Vec::new();
    store.handle(Now::default(), In::Request(StoreClient(1), 7, request), &mut out);
    match out.remove(0).msg {
        FromStore::Reply(7, reply) => reply,
        other => panic!("{other:?} instead of a reply"),
    }
}

fn do_ops(ops: Vec<Op>) -> StoreRequest {
    StoreRequest::Txn(Box::new(Txn { success: ops.into(), ..Txn::default() }))
}

fn all_at(revision: Option<u64>) -> StoreRequest {
    StoreRequest::Range { span: Box::new(key("")..key("~")), at: revision.map(Revision), limit: 0 }
}

/// The first value of a range and the revision of its put.
fn first(reply: StoreReply) -> (String, u64) {
    match reply {
        StoreReply::Range { kvs, .. } => match &kvs[0].value {
            Stored::Mark(revision, text) => (text.to_string(), revision.0),
            other => panic!("{other:?} instead of a mark"),
        },
        other => panic!("{other:?} instead of a range"),
    }
}

#[test]
fn what_is_let_go_after_a_compaction_is_nobodys() {
    let mut store = MemoryStore::new();
    let value = |n: u64| {
        if n.is_multiple_of(3) { vec![put("a", &n.to_string()), put("b", "x")] } else { vec![put("a", &n.to_string())] }
    };
    // Revision n has the value n.
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
        assert_eq!(first(ask(&mut store, all_at(Some(old)))), (old.to_string(), old));
    }
    assert_eq!(Rc::strong_count(&fifty), 1, "nobody holds what is let go");
    assert_eq!(held[0].value, Stored::Mark(Revision(90), Rc::from("90")), "what somebody holds stays as it is");
    let StoreReply::Error(StoreError::Compacted { .. }) = ask(&mut store, all_at(Some(199))) else {
        panic!("what is compacted away is out of reach")
    };
}

#[test]
fn a_restored_store_goes_on_where_the_other_was() {
    let mut store = MemoryStore::new();
    (2..=9).for_each(|n| drop(ask(&mut store, do_ops(vec![put("a", &n.to_string()), put(&format!("k{n}"), "v")]))));
    let all = super::everything();
    let values: Vec<KeyValue> = store.range(&all.start, &all.end).map(|kv| (**kv).clone()).collect();
    let mut restored =
        MemoryStore::restore(Now::default(), store.revision(), store.next_lease(), store.leases(), values);
    assert_eq!(ask(&mut restored, all_at(None)), ask(&mut store, all_at(None)));
    let gone = StoreReply::Error(StoreError::Compacted { oldest: Revision(9) });
    assert_eq!((restored.compacted(), ask(&mut restored, all_at(Some(8)))), (Revision(9), gone));
    assert_eq!(restored.replay(Revision(11), [put("a", "11")]), Err(Revision(10)));
    assert_eq!(restored.replay(Revision(10), [put("a", "10"), Op::Delete { key: key("k2") }]), Ok(()));
    ask(&mut store, do_ops(vec![put("a", "10"), Op::Delete { key: key("k2") }]));
    assert_eq!(restored.changes_after(Revision(9)), store.changes_after(Revision(9)));
    assert_eq!(ask(&mut restored, all_at(Some(9))), ask(&mut store, all_at(Some(9))));
}

#[test]
fn a_version_and_what_all_versions_share_fill_a_line_of_the_cache_each() {
    let counters = 2 * size_of::<usize>();
    assert!(size_of::<KeyValue>() + counters <= 64, "{}", size_of::<KeyValue>());
    assert!(size_of::<Entry>() + counters <= 64, "{}", size_of::<Entry>());
}
