//! The suite that every store must pass, on etcd.

use std::rc::Rc;

use proptest::prelude::{Just, ProptestConfig, Strategy, prop_oneof};
use proptest::test_runner::TestRunner;
use proptest::{collection, option};
use skeg_core::store::conformance::{CASES, Step, Subject, behaves_as_the_naive_store};
use skeg_core::store::{Op, StoreKey, StoreReply, StoreRequest, Stored, Txn, everything};

use super::server::Server;
use super::subject::Clients;

/// How many runs are compared with the naive store.
const RUNS: u32 = 4;
/// The case that waits for leases to end: it takes 13 s of real time.
const SLOW: &str = "keys end with their lease";

/// The client that clears.
const CLIENT: u32 = 9;

fn write(clients: &mut Clients<'_>, ops: Vec<Op>) {
    let reply = clients.ask(CLIENT, StoreRequest::Txn(Box::new(Txn { success: ops.into(), ..Txn::default() })));
    assert!(matches!(reply, StoreReply::Txn { succeeded: true, .. }), "{reply:?}");
}

/// Removes what the case before has left, and makes a revision that nobody has compacted.
fn clear(server: &Server) {
    let mut clients = Clients::new(server);
    let key = StoreKey::Private(Rc::from("cleared"));
    write(&mut clients, vec![Op::Put { key, value: Stored::mark(""), lease: None }]);
    let range = StoreRequest::Range { span: Box::new(everything()), at: None, limit: 0 };
    let StoreReply::Range { kvs, .. } = clients.ask(CLIENT, range) else { panic!("the keys cannot be read") };
    write(&mut clients, kvs.iter().map(|kv| Op::Delete { key: kv.key().clone() }).collect());
}

fn run(wanted: impl Fn(&str) -> bool) {
    let Some(server) = Server::start() else { return };
    for (name, case) in CASES.iter().filter(|(name, _)| wanted(name)) {
        println!("{name}");
        case(&mut Clients::new(&server));
        clear(&server);
    }
}

#[test]
fn it_does_what_every_store_must() {
    run(|name| name != SLOW);
}

#[test]
fn its_leases_end() {
    run(|name| name == SLOW);
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let writes = collection::btree_map(0u8..6, option::of(0u8..9), 0..4).prop_map(|m| m.into_iter().collect());
    let step = prop_oneof![
        6 => (option::weighted(0.3, (0u8..6, 0u8..12)), writes)
            .prop_map(|(compare, writes)| Step::Txn { compare, writes }),
        1 => (1u8..14).prop_map(Step::Compact),
        2 => (0u8..14).prop_map(Step::Read),
        // Not from revision 1: at that one, the case before was cleared, which the naive store knows nothing of.
        1 => prop_oneof![Just(0u8), 2u8..14].prop_map(Step::Watch),
    ];
    collection::vec(step, 1..20)
}

#[test]
fn it_behaves_as_the_naive_store() {
    let Some(server) = Server::start() else { return };
    let config = ProptestConfig { cases: RUNS, failure_persistence: None, ..ProptestConfig::default() };
    let compared = TestRunner::new(config).run(&steps(), |steps| {
        behaves_as_the_naive_store(&mut Clients::new(&server), &steps);
        clear(&server);
        Ok(())
    });
    compared.expect("it behaves as the naive store");
}
