//! What goes wrong with etcd: it is killed, is full, holds somebody else's data or data of another format.

use std::process::Command;
use std::rc::Rc;

use skeg_core::store::{Op, StoreError, StoreKey, StoreReply, StoreRequest, Stored, Txn};
use skeg_etcd::{Etcd, EtcdOptions};

use super::server::Server;
use super::subject::Client;

fn put(name: &str, text: &str) -> StoreRequest {
    let key = StoreKey::Private(Rc::from(name));
    let put = Op::Put { key, value: Stored::mark(text), lease: None };
    StoreRequest::Txn(Box::new(Txn { success: [put].into_iter().collect(), ..Txn::default() }))
}

fn get(name: &str) -> StoreRequest {
    let get = Op::Get { key: StoreKey::Private(Rc::from(name)) };
    StoreRequest::Txn(Box::new(Txn { success: [get].into_iter().collect(), ..Txn::default() }))
}

fn etcdctl(server: &Server, args: &[&str]) {
    let status = Command::new("etcdctl")
        .env("ETCDCTL_API", "3")
        .args(["--endpoints", &server.url()])
        .args(args)
        .stdout(std::process::Stdio::null())
        .status();
    assert!(status.expect("etcdctl is installed (apt-get install etcd-client)").success(), "{args:?}");
}

#[test]
fn what_is_acknowledged_survives_a_kill() {
    let Some(mut server) = Server::start() else { return };
    let mut client = Client::open(&server);
    let mut acknowledged = Vec::new();
    for round in 0..3 {
        for n in 0..20 {
            let name = format!("{round}-{n}");
            if matches!(client.ask(&put(&name, "v")), StoreReply::Txn { succeeded: true, .. }) {
                acknowledged.push(name);
            }
        }
        server.kill();
        assert_eq!(client.ask(&put("down", "v")), StoreReply::Error(StoreError::Unavailable));
        server.restart();
        // The same client comes back by itself.
        server.until_ready(|| match client.ask(&StoreRequest::Revision) {
            StoreReply::Revision { .. } => Ok(()),
            other => Err(format!("{other:?}")),
        });
    }
    assert_eq!(acknowledged.len(), 60);
    for name in acknowledged {
        match client.ask(&get(&name)) {
            StoreReply::Txn { results, .. } => assert!(results[0].is_some(), "{name} is lost"),
            other => panic!("{other:?} instead of {name}"),
        }
    }
}

#[test]
fn refused_writes_are_told() {
    let Some(server) = Server::with(&["--quota-backend-bytes", "16777216"]) else { return };
    let mut client = Client::open(&server);
    let large = "x".repeat(4 << 20);
    assert_eq!(client.ask(&put("large", &large)), StoreReply::Error(StoreError::TooLarge));
    let many = (0..200).map(|n| Op::Get { key: StoreKey::Private(Rc::from(n.to_string())) }).collect();
    let txn = StoreRequest::Txn(Box::new(Txn { success: many, ..Txn::default() }));
    assert_eq!(client.ask(&txn), StoreReply::Error(StoreError::TooLarge));
    let text = "x".repeat(1 << 20);
    // etcd reckons its size anew when it commits a batch, however much is written until then.
    let full = (0..400).map(|n| client.ask(&put(&n.to_string(), &text))).find(|r| matches!(r, StoreReply::Error(_)));
    assert_eq!(full, Some(StoreReply::Error(StoreError::NoSpace)));
    assert!(matches!(client.ask(&get("0")), StoreReply::Txn { .. }), "reads still work");
}

#[test]
fn data_that_it_cannot_read_is_named() {
    let Some(server) = Server::start() else { return };
    let options = || EtcdOptions { endpoints: vec![server.url()], ..EtcdOptions::default() };
    drop(Client::open(&server));
    etcdctl(&server, &["put", "/skeg/format", "2"]);
    let error = Etcd::open(options(), drop).err().expect("another format is refused");
    assert!(error.contains("the data is of format \"2\", and this version of skeg reads format 1"), "{error}");
    etcdctl(&server, &["del", "/skeg/format"]);
    etcdctl(&server, &["put", "/registry/pods/default/p", "k8s"]);
    let error = Etcd::open(options(), drop).err().expect("somebody else's data is refused");
    assert!(error.contains("it holds keys under /registry/ that skeg has not written"), "{error}");
}

#[test]
fn a_password_is_asked_for() {
    let Some(server) = Server::start() else { return };
    drop(Client::open(&server));
    etcdctl(&server, &["user", "add", "root:secret"]);
    etcdctl(&server, &["user", "grant-role", "root", "root"]);
    etcdctl(&server, &["auth", "enable"]);
    let open = |password: Option<&str>| {
        let user = password.map(|password| ("root".to_owned(), password.to_owned()));
        Etcd::open(EtcdOptions { endpoints: vec![server.url()], user, tls: None }, drop).map(drop)
    };
    assert_eq!(open(Some("secret")), Ok(()));
    let error = open(None).expect_err("nobody comes in without");
    assert!(error.contains("user name is empty"), "{error}");
    let error = open(Some("guess")).expect_err("it is another");
    assert!(error.contains("authentication failed") && !error.contains("guess"), "{error}");
}

#[test]
fn an_etcd_that_is_not_there_is_named() {
    let options = EtcdOptions { endpoints: vec!["http://127.0.0.1:1".to_owned()], ..EtcdOptions::default() };
    let error = Etcd::open(options, drop).err().expect("nobody listens there");
    assert!(error.starts_with("error: etcd at http://127.0.0.1:1 cannot be used:"), "{error}");
}
