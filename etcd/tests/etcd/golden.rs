//! What a cluster has written into etcd in each format that was ever released, and that this version still reads it.
//!
//! A dump has keys and values in turn, as `etcdctl get --prefix /registry/` prints them.

use serde_json::Value;
use skeg_core::object::Kinds;
use skeg_core::store::remote::{ByteKeyValue, ByteOp, ByteReply, ByteRequest, FromRemote, Remote};
use skeg_core::store::{FromStore, Op, StoreReply, StoreRequest, Txn};

/// One object of each kind of a small cluster with a Deployment, a Service and a custom resource.
const FORMAT_1: &str = include_str!("format-1.txt");

#[test]
fn format_1_opens() {
    let mut remote = Remote::new(Kinds::default());
    let lines: Vec<&str> = FORMAT_1.lines().collect();
    assert!(lines.len() > 30, "it has more than a handful of keys");
    for pair in lines.chunks_exact(2) {
        let [key, value] = [pair[0], pair[1]];
        let bytes = |text: &str| text.as_bytes().to_vec();
        let kv = ByteKeyValue {
            key: bytes(key),
            value: bytes(value),
            create_revision: 7,
            mod_revision: 9,
            version: 2,
            lease: 0,
        };
        let reply = ByteReply::Range { revision: 9, kvs: vec![kv], more: false, count: 1 };
        let told = remote.decode(FromRemote::Reply(1, reply)).unwrap_or_else(|e| panic!("{e}"));
        let [FromStore::Reply(1, StoreReply::Range { kvs, .. })] = told.as_slice() else { panic!("{told:?}") };
        assert_eq!(kvs[0].mod_revision().0, 9, "{key}");
        let put = Op::Put { key: kvs[0].key().clone(), value: kvs[0].value.clone(), lease: None };
        let txn = Txn { success: [put].into_iter().collect(), ..Txn::default() };
        let ByteRequest::Txn { success, .. } = remote.encode(&StoreRequest::Txn(Box::new(txn))) else {
            panic!("{key}")
        };
        let [ByteOp::Put { key: written_key, value: written, .. }] = success.as_slice() else { panic!("{key}") };
        assert_eq!(written_key, key.as_bytes());
        match serde_json::from_str::<Value>(value) {
            Ok(object) => assert_eq!(serde_json::from_slice::<Value>(written).expect("JSON"), object, "{key}"),
            Err(_) => assert_eq!(written, value.as_bytes(), "{key}"),
        }
    }
}
