//! Golden scenarios: the story of each controller, told by the Events that a run records.
//!
//! `tests/golden/NAME.yaml` is the scenario and `NAME.txt` its story, which `UPDATE_GOLDEN=1` regenerates. A story has
//! one line for each Event about an object of the story's kinds, with its virtual time in seconds; of kinds about which
//! nobody records Events, one for each object that is made, changed or removed; and one for each binding that
//! annotates.

use std::path::{Path, PathBuf};

use serde_json::Value;
use skeg_sim::files::{LoadOptions, load};
use skeg_sim::{Observer, RunOptions, run};
use skeg_tests::Disk;

/// Collects the lines of a story.
struct Teller {
    kinds: &'static [&'static str],
    /// The kinds whose changes are told.
    changes: &'static [&'static str],
    lines: Vec<String>,
}

impl Observer for Teller {
    fn event(&mut self, _n: u64, at: u64, _hash: u64, what: &str) {
        let seconds = at as f64 / 1e9;
        for commit in what.split(" | r").skip(1) {
            let Some((_, commit)) = commit.split_once(' ') else { continue };
            if let Some((verb, kind, name)) = change_of(commit)
                && self.changes.contains(&kind)
            {
                self.lines.push(format!("{seconds:8.1}s {verb:<7} {kind} {name}"));
            }
            if let Some((name, annotations)) = annotated_binding(commit) {
                self.lines.push(format!("{seconds:8.1}s bind    Pod {name} with {annotations}"));
            }
            if let Some(value) = commit.strip_prefix("create Object(Event/").and_then(object_of) {
                let about = &value["involvedObject"];
                if self.kinds.iter().any(|kind| about["kind"] == *kind) {
                    let text = |v: &Value| v.as_str().unwrap_or("").to_owned();
                    let (kind, name) = (text(&about["kind"]), text(&about["name"]));
                    let (type_, reason, message) =
                        (text(&value["type"]), text(&value["reason"]), text(&value["message"]));
                    self.lines.push(format!("{seconds:8.1}s {type_:<7} {reason:<18} {kind} {name}: {message}"));
                }
            }
        }
    }
}

/// Parses what a commit does, to an object of which kind and name: `create Object(Kind/NAMESPACE/NAME): …`.
fn change_of(commit: &str) -> Option<(&str, &str, &str)> {
    let (verb, rest) = commit.split_once(" Object(")?;
    let (kind, name) = rest.split_once(')')?.0.split_once('/')?;
    Some((verb, kind, name))
}

/// The pod that a commit binds to a node, and the annotations that it gets by that.
fn annotated_binding(commit: &str) -> Option<(&str, &str)> {
    let (_, _, name) = change_of(commit).filter(|(_, kind, _)| *kind == "Pod")?;
    commit.contains(" spec.nodeName=").then_some(())?;
    let annotations = commit.split(' ').find_map(|change| change.strip_prefix("metadata.annotations="))?;
    Some((name, annotations))
}

/// Parses the object in `NAMESPACE/NAME): JSON`.
fn object_of(text: &str) -> Option<Value> {
    let (_, json) = text.split_once(": ")?;
    serde_json::from_str(json).ok()
}

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("golden").join(name)
}

/// Runs a scenario and compares its story with the golden one. `warned` are the features of its input that are not
/// carried out yet.
fn check(name: &str, kinds: &'static [&'static str], warned: &[&str]) {
    check_changes(name, kinds, &[], warned);
}

/// The same, and tells the changes of objects of these kinds.
fn check_changes(name: &str, kinds: &'static [&'static str], changes: &'static [&'static str], warned: &[&str]) {
    let file = golden(&format!("{name}.yaml")).to_string_lossy().into_owned();
    let loaded = load(&[file], &Disk, &LoadOptions::default()).unwrap_or_else(|problems| panic!("{problems}"));
    assert_eq!(loaded.warnings, warned, "{name}");
    let mut teller = Teller { kinds, changes, lines: Vec::new() };
    let options = RunOptions { trace: true, ..RunOptions::default() };
    let outcome = run(&loaded.scenario, 1, &options, &mut teller).unwrap_or_else(|crash| panic!("{crash}"));
    for i in &outcome.invariants {
        assert!(!i.broken, "{name}: {}: {:#?}", i.name, i.details);
    }
    for e in &outcome.expectations {
        assert!(e.met, "{name}: {}: seen {}", e.what, e.seen);
    }
    assert!(outcome.converged, "{name}: {:#?}", outcome.not_converged);
    let mut story = teller.lines.join("\n");
    story.push('\n');
    let file = golden(&format!("{name}.txt"));
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&file, &story).expect("the golden file can be written");
    }
    let expect = std::fs::read_to_string(&file).unwrap_or_default();
    assert_eq!(story, expect, "{name}: if this is right, UPDATE_GOLDEN=1 writes it down");
}

#[test]
fn gpus() {
    check("gpus", &["Pod"], &[]);
}

#[test]
fn quota() {
    check("quota", &["Deployment", "ReplicaSet", "ResourceQuota"], &[]);
}

#[test]
fn gangs() {
    check_changes("gangs", &["Pod"], &["PodGroup"], &[]);
}

#[test]
fn cron_job() {
    check("cron_job", &["CronJob", "Job"], &[]);
}

#[test]
fn volumes() {
    check("volumes", &["PersistentVolume", "PersistentVolumeClaim", "StatefulSet"], &[]);
}

#[test]
fn database() {
    check("database", &["PersistentVolumeClaim", "StatefulSet", "Pod"], &[]);
}

#[test]
fn attachments() {
    check("attachments", &["PersistentVolumeClaim", "Deployment", "Pod"], &[]);
}

#[test]
fn devices() {
    check_changes("devices", &["Job", "Pod", "ResourceClaim"], &["ResourceClaim"], &[]);
}

#[test]
fn autoscaler() {
    check("autoscaler", &["HorizontalPodAutoscaler", "Deployment"], &[]);
}

#[test]
fn services() {
    check_changes("services", &["Endpoints"], &["EndpointSlice", "IPAddress", "ServiceCIDR"], &[]);
}

#[test]
fn extenders() {
    let file = golden("extenders.yaml").to_string_lossy().into_owned();
    let played = "a simulation plays it: it refuses no node and scores none but as faults say, and binds no pod";
    let warned = format!("{file}: extenders[0]: {played}");
    check("extenders", &["Pod"], &[&warned]);
}
