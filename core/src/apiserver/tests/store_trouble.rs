//! Starts, disconnects, silence, compaction and lost replies of the store.

use std::rc::Rc;

use super::{cluster, config_map, key, refusal, request};
use crate::api::{Call, ListOptions, Reason, WatchOptions, WriteOptions};
use crate::apiserver::{ApiServer, Config};
use crate::limits;
use crate::machine::Machine;
use crate::object::{Kind, Object, Revision};
use crate::random::Rng;
use crate::store::{self, StoreClient, StoreRequest};

fn from(rv: Revision) -> WatchOptions {
    WatchOptions { rv, ..WatchOptions::default() }
}

#[test]
fn a_new_server_makes_what_every_cluster_has() {
    let mut c = cluster(1);
    let namespaces = c.list_at(0, Kind::NAMESPACE, ListOptions::default()).unwrap();
    assert_eq!(namespaces, ["default", "kube-node-lease", "kube-public", "kube-system"]);
    let classes = c.list_at(0, Kind::PRIORITY_CLASS, ListOptions::default()).unwrap();
    assert_eq!(classes, ["system-cluster-critical", "system-node-critical"]);
    let before = c.store.revision();
    c.servers.push(ApiServer::new(Config::default(), Rng::from_seed(1)));
    c.lagging.push(false);
    c.cut_off.push(false);
    c.held.push(Default::default());
    c.tick(5);
    assert!(c.servers[1].is_ready());
    assert_eq!(c.store.revision(), before, "the second server finds everything there");
    assert_eq!(c.servers[1].cached(Kind::NAMESPACE).count(), 4);
}

#[test]
fn a_server_without_a_store_is_unavailable() {
    let mut c = cluster(1);
    c.cut_off[0] = true;
    c.disconnect(0);
    assert!(!c.servers[0].is_ready());
    let list = Call::List { kind: Kind::POD, namespace: Rc::from(""), options: ListOptions::default() };
    assert_eq!(refusal(c.call(list)).0, Reason::ServiceUnavailable);
    c.tick(60);
    assert!(!c.servers[0].is_ready());
    c.cut_off[0] = false;
    c.tick(2 * limits::STORE_BACKOFF_MAX.as_secs() + limits::STORE_TIMEOUT.as_secs());
    assert!(c.servers[0].is_ready(), "it never gives up");
}

#[test]
fn a_reconnect_resumes_without_a_gap() {
    let mut c = cluster(2);
    c.create(config_map("a")).unwrap();
    let watch = c.watch_at(1, Kind::CONFIG_MAP, "", WatchOptions::default());
    assert_eq!(c.seen(watch), "+a");
    c.disconnect(1);
    c.create(config_map("b")).unwrap();
    c.delete(&key(Kind::CONFIG_MAP, "a"), Default::default()).unwrap();
    assert_eq!(c.seen(watch), "");
    c.tick(2);
    assert_eq!(c.seen(watch), "+b -a");
    c.create(config_map("c")).unwrap();
    assert_eq!(c.seen(watch), "+c");
}

#[test]
fn a_reconnect_after_compaction_loads_anew() {
    let mut c = cluster(2);
    let a = c.create(config_map("a")).unwrap();
    let watch = c.watch_at(1, Kind::CONFIG_MAP, "", from(a.rv()));
    c.disconnect(1);
    c.create(config_map("b")).unwrap();
    c.create(config_map("c")).unwrap();
    let compact = StoreRequest::Compact { at: c.store.revision() };
    c.store.handle(c.now, store::In::Request(StoreClient(9), 1, compact), &mut Vec::new());
    c.tick(2);
    assert!(c.servers[1].is_ready());
    assert_eq!(refusal(c.reply(watch).unwrap()).0, Reason::Expired, "what was missed is not known");
    assert_eq!(c.list_at(1, Kind::CONFIG_MAP, ListOptions::default()).unwrap(), ["a", "b", "c"]);
    let again = c.watch_at(1, Kind::CONFIG_MAP, "", from(a.rv()));
    assert_eq!(refusal(c.reply(again).unwrap()).0, Reason::Expired);
}

#[test]
fn a_lost_request_has_an_unknown_outcome() {
    let mut c = cluster(1);
    c.cut_off[0] = true;
    let object = Object::from_json(config_map("a")).unwrap();
    let write = c.send(0, request(Call::Create { object, options: WriteOptions::default() }));
    let read = c.send(0, request(Call::Get { key: key(Kind::CONFIG_MAP, "a"), rv: None }));
    let event = serde_json::json!({"apiVersion":"v1","kind":"Event","metadata":{"name":"e","namespace":"default"},
        "involvedObject":{"kind":"Pod","name":"p","namespace":"default"}});
    let object = Object::from_json(event).unwrap();
    let event = c.send(0, request(Call::Create { object, options: WriteOptions::default() }));
    c.tick(limits::STORE_TIMEOUT.as_secs() + 1);
    assert!(c.reply(write).unwrap().unwrap_err().is_unknown_outcome());
    for id in [read, event] {
        assert_eq!(refusal(c.reply(id).unwrap()).0, Reason::ServiceUnavailable, "nothing was done");
    }
}

#[test]
fn silence_is_probed_and_then_a_lost_store() {
    let mut c = cluster(1);
    c.tick(60);
    assert!(c.servers[0].is_ready(), "a store that answers probes is there");
    c.cut_off[0] = true;
    c.tick(limits::STORE_SILENCE.as_secs() + 2);
    assert!(!c.servers[0].is_ready());
    c.cut_off[0] = false;
    c.tick(20);
    assert!(c.servers[0].is_ready());
    // Its old watch is cancelled: every event arrives once.
    let watch = c.watch_at(0, Kind::CONFIG_MAP, "", WatchOptions::default());
    c.create(config_map("a")).unwrap();
    assert_eq!(c.seen(watch), "+a");
}

#[test]
fn one_of_several_servers_compacts() {
    let mut c = cluster(3);
    let interval = limits::COMPACTION_INTERVAL.as_secs();
    for i in 0..50 {
        c.create(config_map(&format!("a{i}"))).unwrap();
    }
    c.tick(interval + 1);
    assert_eq!(c.store.compacted(), Revision(0), "nothing is older than an interval yet");
    let then = c.store.revision();
    for i in 0..50 {
        c.create(config_map(&format!("b{i}"))).unwrap();
    }
    c.tick(interval + 1);
    let compacted = c.store.compacted();
    assert!(compacted >= Revision(then.0 - 2) && compacted <= then, "{compacted:?} of {then:?}");
    assert!(c.store.history_len() < 60);
    assert!(c.servers.iter().all(ApiServer::is_ready));
}
