//! `skeg doctor`: what a host lacks.

use std::process::Command;

use serde_json::{Value, json};

use crate::client::{Cluster, scratch};

/// Runs it; returns the exit code, what it found, and what it complained of.
fn doctor(args: &[&str]) -> (Option<i32>, Vec<Value>, String) {
    let mut skeg = Command::new(env!("CARGO_BIN_EXE_skeg"));
    let done = skeg.arg("doctor").args(args).args(["--output", "json"]).output().expect("the binary runs");
    let found: Value = serde_json::from_slice(&done.stdout).unwrap_or_default();
    let checks = found["checks"].as_array().cloned().unwrap_or_default();
    (done.status.code(), checks, String::from_utf8_lossy(&done.stderr).into_owned())
}

#[test]
fn servers_and_their_clocks_are_looked_at() {
    let mut cluster = Cluster::start("doctor", &["--nodes", "0"]);
    let kubeconfig = cluster.kubeconfig.to_str().expect("text").to_owned();
    let (code, checks, _) = doctor(&["--kubeconfig", &kubeconfig]);
    assert_eq!((code, checks.len()), (Some(0), 1), "{checks:?}");
    let server = format!("server https://{}", cluster.address);
    let want = json!({"check": server, "state": "ok", "found": "ready; the clocks agree", "advice": ""});
    assert_eq!(checks[0], want);
    cluster.kill();
    let (code, checks, _) = doctor(&["--kubeconfig", &kubeconfig]);
    assert_eq!((code, &checks[0]["state"]), (Some(1), &json!("missing")), "{checks:?}");
    assert!(checks[0]["advice"].as_str().is_some_and(|advice| advice.contains("start it")), "{checks:?}");
}

#[cfg(feature = "etcd")]
#[test]
fn members_of_etcd_are_looked_at() {
    let Some(etcd) = crate::etcd::etcd() else { return };
    let there = etcd.url();
    let (code, checks, _) = doctor(&["--etcd", &format!("{there},http://127.0.0.1:1")]);
    assert_eq!((code, checks.len()), (Some(1), 2), "{checks:?}");
    assert_eq!(checks[0]["check"], format!("etcd {there}"));
    // An old one works, with a word about it.
    assert_ne!(checks[0]["state"], "missing", "{checks:?}");
    assert!(checks[0]["found"].as_str().is_some_and(|version| version.starts_with("3.")), "{checks:?}");
    assert_eq!(checks[1]["state"], "missing", "{checks:?}");
    let (code, _, _) = doctor(&["--etcd", &there]);
    assert_eq!(code, Some(0));
}

#[test]
fn what_a_node_needs_is_named() {
    let nowhere = scratch("doctor-docker").join("docker.sock");
    let socket = nowhere.to_str().expect("text");
    let (code, checks, _) = doctor(&["--docker-host", socket]);
    let names: Vec<&str> = checks.iter().filter_map(|check| check["check"].as_str()).collect();
    assert_eq!(names, ["user", "Docker", "cgroups", "nftables", "conntrack", "ip", "forwarding"]);
    assert_eq!((code, &checks[1]["state"]), (Some(1), &json!("missing")), "{checks:?}");
    assert!(checks[1]["found"].as_str().is_some_and(|found| found.contains(socket)), "{checks:?}");
    let (code, _, why) = doctor(&["--kubeconfig", "/nowhere"]);
    assert!(code == Some(2) && why.contains("/nowhere"), "{why}");
}
