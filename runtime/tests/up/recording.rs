//! Recordings of real runs, which `skeg sim replay` repeats decision by decision.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::client::{Cluster, scratch};

const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";
const PODS: &str = "/api/v1/namespaces/default/pods";
const SECRETS: &str = "/api/v1/namespaces/default/secrets";
/// What no recording may hold.
const PASSWORD: &str = "opensesame-4711";

/// An empty directory for the recordings of one test.
pub fn empty(test: &str) -> PathBuf {
    let dir = scratch(test).join("recordings");
    if dir.exists() {
        std::fs::remove_dir_all(&dir).expect("it is ours");
    }
    dir
}

fn replay(dir: &Path, more: &[&str]) -> Output {
    let mut replay = Command::new(env!("CARGO_BIN_EXE_skeg"));
    replay.args(["sim", "replay"]).arg(dir).args(more).output().expect("the binary runs")
}

/// Replays all that is in a directory, where nothing may diverge; returns what is told.
pub fn replays(dir: &Path) -> Value {
    let done = replay(dir, &["--output", "json"]);
    let (said, why) = (String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
    let result: Value = serde_json::from_str(&said).unwrap_or_else(|e| panic!("{e}: {said}{why}"));
    assert!(done.status.success() && result["first"].is_null(), "{}: {}", dir.display(), result["first"]);
    let machines = result["machines"].as_array().expect("a list");
    assert!(machines.iter().all(|m| m["inputs"].as_u64() > Some(0) && m["diverged"] == 0), "{machines:#?}");
    assert_eq!(result["excused"], json!([]), "no decision follows from a Secret's value");
    result
}

/// All files of the recordings in a directory, one after the other.
pub fn text(dir: &Path) -> String {
    let entries = |dir: &Path| -> Vec<PathBuf> {
        let all = std::fs::read_dir(dir).expect("it is there");
        all.map(|entry| entry.expect("it can be read").path()).collect()
    };
    let files = entries(dir).iter().flat_map(|dir| entries(dir)).collect::<Vec<_>>();
    files.iter().map(|file| std::fs::read_to_string(file).expect("it is text")).collect()
}

fn deployment(image: &str, replicas: u32) -> Value {
    let labels = json!({"app": "web"});
    json!({"metadata": {"name": "web"}, "spec": {"replicas": replicas, "selector": {"matchLabels": labels},
        "template": {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "c", "image": image}]}}}})
}

/// Whether the rollout of the Deployment is over.
fn is_rolled_out(cluster: &Cluster, replicas: u32) -> bool {
    let web = cluster.get(&format!("{DEPLOYMENTS}/web")).json();
    let status = &web["status"];
    status["observedGeneration"] == web["metadata"]["generation"]
        && [&status["replicas"], &status["updatedReplicas"], &status["availableReplicas"]]
            .iter()
            .all(|n| **n == replicas)
}

#[test]
fn what_was_recorded_is_decided_again() {
    let dir = empty("record");
    let mut cluster = Cluster::start("record", &["--nodes", "3", "--record", dir.to_str().expect("text")]);
    let secret = json!({"metadata": {"name": "s"}, "stringData": {"password": PASSWORD}});
    cluster.create(SECRETS, &secret);
    let patch = json!({"data": {"more": STANDARD.encode(format!("more-{PASSWORD}"))}});
    assert_eq!(cluster.write("PATCH", &format!("{SECRETS}/s"), &patch).code, 200);
    let annotations = json!({"kubernetes.io/service-account.name": "default"});
    let token = json!({"metadata": {"name": "t", "annotations": annotations},
        "type": "kubernetes.io/service-account-token"});
    cluster.create(SECRETS, &token);
    let mut signed = String::new();
    cluster.wait_for("the Secret has a token", || {
        let token = cluster.get(&format!("{SECRETS}/t")).json()["data"]["token"].clone();
        signed = token.as_str().unwrap_or_default().to_owned();
        !signed.is_empty()
    });
    cluster.create(DEPLOYMENTS, &deployment("i:1", 4));
    cluster.wait_for("it is rolled out", || is_rolled_out(&cluster, 4));
    let change = json!({"spec": deployment("i:2", 3)["spec"]});
    assert_eq!(cluster.write("PATCH", &format!("{DEPLOYMENTS}/web"), &change).code, 200);
    cluster.wait_for("the change is rolled out", || is_rolled_out(&cluster, 3));
    let foreground = json!({"propagationPolicy": "Foreground"});
    assert_eq!(cluster.write("DELETE", &format!("{DEPLOYMENTS}/web"), &foreground).code, 200);
    cluster.wait_for("all of it is gone", || {
        cluster.get(&format!("{DEPLOYMENTS}/web")).code == 404
            && cluster.get(PODS).json()["items"].as_array().is_some_and(Vec::is_empty)
    });
    assert!(cluster.skeg("down").status.success());
    assert_eq!(cluster.exit_code(), Some(0));

    let result = replays(&dir);
    let names: Vec<&str> =
        result["machines"].as_array().unwrap().iter().filter_map(|m| m["machine"].as_str()).collect();
    let nodes = ["agent node-0", "agent node-1", "agent node-2"];
    assert_eq!(names, [&["controller-manager", "scheduler"][..], &nodes, &["api-server"]].concat());
    assert_eq!(result["notes"], json!([]), "it was asked to end");
    let all = text(&dir);
    let token = String::from_utf8(STANDARD.decode(&signed).expect("base64")).expect("a token is text");
    for hidden in
        [PASSWORD, &STANDARD.encode(PASSWORD)[..18], &STANDARD.encode(format!("more-{PASSWORD}")), &token, &signed]
    {
        assert!(!all.contains(hidden), "{hidden} is in the recording");
    }
    assert!(all.contains("web") && all.contains("\"Secret\""));

    let table = replay(&dir, &[]);
    let table = String::from_utf8_lossy(&table.stdout).into_owned();
    assert!(table.starts_with("machine ") && table.ends_with(", 0 diverging\n"), "{table}");
}

#[test]
fn what_a_killed_process_has_recorded_is_replayed() {
    let dir = empty("record-killed");
    let args = ["--nodes", "1", "--record", dir.to_str().expect("text")];
    let mut cluster = Cluster::start("record-killed", &args);
    cluster.create(DEPLOYMENTS, &deployment("i:1", 2));
    cluster.wait_for("it is rolled out", || is_rolled_out(&cluster, 2));
    cluster.kill();
    let result = replays(&dir);
    let note = result["notes"][0].as_str().expect("it has no end");
    assert!(note.contains("without an end"), "{note}");

    // A decision that is not as it was recorded is exit code 3, and shown.
    let process = std::fs::read_dir(&dir).expect("it is there").next().expect("one").expect("it can be read").path();
    let file = process.join("000001.jsonl");
    let whole = std::fs::read_to_string(&file).expect("it is text");
    let at = whole.rfind("\"next\":").expect("machines want to be woken") + "\"next\":".len();
    std::fs::write(&file, format!("{}9{}", &whole[..at], &whole[at..])).expect("it is ours");
    let told = replay(&dir, &[]);
    let text = String::from_utf8_lossy(&told.stdout).into_owned();
    assert_eq!(told.status.code(), Some(3), "{text}");
    assert!(text.contains("the first that diverges: ") && text.contains("to be woken at"), "{text}");
}

#[test]
fn what_cannot_be_recorded_or_replayed_is_told() {
    let dir = empty("record-refused");
    let file = scratch("record-refused").join("file");
    std::fs::write(&file, "x").expect("it can be written");
    let check = |args: &[&str], want: &str| {
        let refused = Command::new(env!("CARGO_BIN_EXE_skeg")).args(args).output().expect("it runs");
        let why = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(refused.status.code() == Some(2) && why.contains(want), "{args:?}: {why}");
    };
    let up = ["up", "--in-memory", "--listen", "127.0.0.1:0", "--kubeconfig", "/dev/null"];
    let (file, dir) = (file.to_str().expect("text"), dir.to_str().expect("text"));
    check(&[&up[..], &["--record", file]].concat(), file);
    check(&[&up[..], &["--record", dir, "--record-limit", "much"]].concat(), "500Mi");
    check(&[&up[..], &["--record-limit", "1Mi"]].concat(), "--record");
    check(&["sim", "replay", dir], "no such file");
    std::fs::create_dir_all(dir).expect("it can be made");
    check(&["sim", "replay", dir], "there is no recording in it");
}
