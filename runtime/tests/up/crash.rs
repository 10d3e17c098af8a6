//! A killed cluster: what it acknowledged exists after a restart, and damage is detected and reported.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Mutex;
use std::time::Duration;

use serde_json::{Value, json};

use crate::client::{Cluster, scratch};
use crate::load::{MAPS, kill_9, names, write_until_killed};

/// How often a cluster is killed in the middle of its writes; `SKEG_KILLS` overrides it.
const KILLS: usize = 5;

/// An empty data directory for one test.
fn data_dir(test: &str) -> PathBuf {
    let dir = scratch(test).join("data");
    if dir.exists() {
        std::fs::remove_dir_all(&dir).expect("it is ours");
    }
    dir
}

fn start(test: &str, dir: &Path) -> Cluster {
    Cluster::start_with(test, &["--nodes", "0", "--data-dir", dir.to_str().expect("paths of tests are text")])
}

/// Tries to start a cluster, which must be refused.
fn refused(dir: &Path) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_skeg"));
    let kubeconfig = scratch("refused").join("kubeconfig");
    command.args(["up", "--listen", "127.0.0.1:0", "--nodes", "0", "--data-dir"]).arg(dir);
    command.arg("--kubeconfig").arg(kubeconfig).output().expect("the binary runs")
}

fn journal(dir: &Path) -> PathBuf {
    let files = std::fs::read_dir(dir).expect("it is there").flatten().map(|entry| entry.path());
    let is_journal = |p: &PathBuf| p.file_name().is_some_and(|n| n.to_string_lossy().starts_with("journal-"));
    files.filter(is_journal).max().expect("there is a journal")
}

#[test]
fn nothing_acknowledged_is_lost_by_kill_9() {
    let dir = data_dir("kill-9");
    let kills = std::env::var("SKEG_KILLS").ok().and_then(|n| n.parse().ok()).unwrap_or(KILLS);
    let acknowledged = Mutex::new(BTreeSet::new());
    let mut revision = 0;
    for kill in 0..kills {
        let mut cluster = start("kill-9", &dir);
        let there = names(&cluster);
        let missing: Vec<String> = acknowledged.lock().expect("no writer panics").difference(&there).cloned().collect();
        assert!(missing.is_empty(), "after {kill} kills, acknowledged and lost: {missing:?}");
        let list = cluster.get(MAPS).json();
        let now: u64 = list["metadata"]["resourceVersion"].as_str().expect("a revision").parse().expect("a number");
        assert!(now >= revision, "revisions do not go back: {revision}, then {now}");
        revision = now;
        // Each kill happens at a different moment.
        let time = Duration::from_millis(150 + 83 * kill as u64 % 400);
        write_until_killed(&cluster, kill, time, &acknowledged, || kill_9(&cluster));
        cluster.kill();
    }
    let cluster = start("kill-9", &dir);
    let acknowledged = acknowledged.into_inner().expect("no writer panics");
    assert!(acknowledged.is_subset(&names(&cluster)));
}

#[test]
fn a_cluster_goes_on_where_it_was() {
    let dir = data_dir("goes-on");
    let mut cluster = start("goes-on", &dir);
    let made = cluster.create(MAPS, &json!({"metadata": {"name": "a"}, "data": {"k": "v"}}));
    let old = std::fs::read_to_string(&cluster.kubeconfig).expect("it is there");
    assert_eq!(cluster.skeg("down").status.code(), Some(0));
    assert_eq!(cluster.exit_code(), Some(0));
    let cluster = start("goes-on", &dir);
    let found = cluster.get(&format!("{MAPS}/a")).json();
    assert_eq!((&found["data"], &found["metadata"]), (&made["data"], &made["metadata"]));
    // A watch continues from a revision of the earlier process.
    let revision = made["metadata"]["resourceVersion"].as_str().expect("a revision").to_owned();
    cluster.create(MAPS, &json!({"metadata": {"name": "b"}}));
    let events = cluster.watch(&format!("{MAPS}?watch=1&resourceVersion={revision}"), 1);
    assert_eq!(events[0]["object"]["metadata"]["name"], "b");
    let authority = |text: &str| {
        let config: Value = serde_saphyr::from_str(text).expect("YAML");
        config["clusters"][0]["cluster"]["certificate-authority-data"].clone()
    };
    let new = std::fs::read_to_string(&cluster.kubeconfig).expect("it is there");
    assert_eq!(authority(&old), authority(&new), "the authority stays");
    let again = refused(&dir);
    assert_eq!(again.status.code(), Some(2));
    let why = String::from_utf8_lossy(&again.stderr).into_owned();
    assert!(why.contains("a running cluster uses this directory"), "{why}");
}

#[test]
fn a_torn_end_is_cut_and_damage_is_refused() {
    let dir = data_dir("torn");
    let mut cluster = start("torn", &dir);
    for name in ["a", "b", "c"] {
        cluster.create(MAPS, &json!({"metadata": {"name": name}}));
    }
    cluster.kill();
    let mut file = std::fs::OpenOptions::new().append(true).open(journal(&dir)).expect("it is ours");
    file.write_all(&[9, 0, 0, 0, 1, 2, 3]).expect("it can be written");
    drop(file);
    let mut cluster = start("torn", &dir);
    assert_eq!(names(&cluster), ["a", "b", "c"].map(str::to_owned).into());
    cluster.create(MAPS, &json!({"metadata": {"name": "d"}}));
    cluster.kill();
    // A flipped bit in the middle of the journal is not an incomplete last record: what follows it was acknowledged.
    let path = journal(&dir);
    let mut bytes = std::fs::read(&path).expect("it is ours");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&path, &bytes).expect("it is ours");
    let damaged = refused(&dir);
    assert_eq!(damaged.status.code(), Some(2), "{}", String::from_utf8_lossy(&damaged.stderr));
    bytes[middle] ^= 1;
    std::fs::write(&path, &bytes).expect("it is ours");
    assert_eq!(names(&start("torn", &dir)), ["a", "b", "c", "d"].map(str::to_owned).into());
    std::fs::write(dir.join("format"), "9\n").expect("it is ours");
    let newer = refused(&dir);
    let why = String::from_utf8_lossy(&newer.stderr).into_owned();
    assert!(newer.status.code() == Some(2) && why.contains("format \"9\""), "{why}");
}
