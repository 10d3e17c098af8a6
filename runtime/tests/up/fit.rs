//! `skeg sim fit`: a shop of small images runs on Docker and is recorded; with the profiles that are made of that, the
//! simulator takes as long for a pod's start and for a rollout as other runs do. As the tests of [`crate::docker`], it
//! is skipped where there is no engine.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::client::{Cluster, scratch};
use crate::docker::{IMAGE, another_name, end, start, to_use};
use crate::recording;

const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";
const PODS: &str = "/api/v1/namespaces/default/pods";
/// The parts of the shop: their replicas, and how long each takes to open its port.
const PARTS: [(&str, u32, u32); 3] = [("front", 3, 4), ("catalog", 2, 3), ("cart", 2, 2)];
/// How far medians may be apart, as a share of the simulator's.
const APART: f64 = 0.25;

fn image(part: &str) -> String {
    format!("skeg-test-{part}:1")
}

fn part((name, replicas, opens): (&str, u32, u32), version: &str) -> Value {
    let labels = json!({"app": name});
    let script =
        format!("sleep {opens}; cat /proc/sys/kernel/hostname > /tmp/index.html; exec httpd -f -p 8080 -h /tmp");
    let container = json!({"name": "c", "image": image(name), "imagePullPolicy": "IfNotPresent",
        "command": ["sh", "-c", script], "env": [{"name": "VERSION", "value": version}],
        "readinessProbe": {"tcpSocket": {"port": 8080}, "periodSeconds": 1, "failureThreshold": 30}});
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name}, "spec": {
        "replicas": replicas, "selector": {"matchLabels": labels},
        "template": {"metadata": {"labels": labels}, "spec": {"automountServiceAccountToken": false,
            "terminationGracePeriodSeconds": 1, "containers": [container]}}}})
}

/// Times of one run, in seconds.
#[derive(Debug, Default)]
struct Times {
    pod_starts: Vec<f64>,
    rollouts: Vec<f64>,
}

fn median(mut all: Vec<f64>) -> f64 {
    all.sort_by(f64::total_cmp);
    all[all.len() / 2]
}

/// Follows a watch until it is told to stop, and says when each event came.
fn follow(cluster: &Cluster, path: &str, stop: &AtomicBool, tell: &Sender<(Instant, Value)>) {
    while !stop.load(Ordering::Relaxed) {
        // It begins with all that is there, which is nothing.
        cluster.follow(&format!("{path}?watch=1&timeoutSeconds=600"), Duration::from_secs(120), |event| {
            tell.send((Instant::now(), event)).is_ok() && !stop.load(Ordering::Relaxed)
        });
    }
}

/// Runs the shop on Docker, and rolls out another version of each part.
fn run(test: &str, recordings: &Path) -> Times {
    let record = recordings.to_str().expect("paths of tests are text");
    let cluster = start(test, &["--in-memory", "--service-cluster-ip-range", "10.215.0.0/24", "--record", record]);
    let (stop, (tell, events)) = (AtomicBool::new(false), channel());
    let mut times = Times::default();
    std::thread::scope(|scope| {
        for path in [PODS, DEPLOYMENTS] {
            let (tell, stop, cluster) = (tell.clone(), &stop, &cluster);
            scope.spawn(move || follow(cluster, path, stop, &tell));
        }
        std::thread::sleep(Duration::from_secs(1));
        let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            PARTS.iter().for_each(|part_of| _ = cluster.create(DEPLOYMENTS, &part(*part_of, "1")));
            cluster.wait_for("the shop is open", || PARTS.iter().all(|part| is_rolled_out(&cluster, part)));
            for part_of in &PARTS {
                let change = json!({"spec": {"template": part(*part_of, "2")["spec"]["template"]}});
                assert_eq!(cluster.write("PATCH", &format!("{DEPLOYMENTS}/{}", part_of.0), &change).code, 200);
            }
            cluster.wait_for("the other version is open", || PARTS.iter().all(|part| is_rolled_out(&cluster, part)));
            std::thread::sleep(Duration::from_secs(2));
        }));
        stop.store(true, Ordering::Relaxed);
        // One more event, for each watch to see that it is to stop.
        let nowhere = json!({"nodeSelector": {"no": "where"}, "containers": [{"name": "c", "image": IMAGE}]});
        cluster.create(PODS, &json!({"metadata": {"name": "last"}, "spec": nowhere}));
        cluster.create(DEPLOYMENTS, &part(("last", 0, 0), "1"));
        ended.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
    drop(tell);
    read(events.iter(), &mut times);
    end(cluster);
    times
}

fn is_rolled_out(cluster: &Cluster, (name, replicas, _): &(&str, u32, u32)) -> bool {
    is_done(&cluster.get(&format!("{DEPLOYMENTS}/{name}")).json(), *replicas)
}

fn is_done(deployment: &Value, replicas: u32) -> bool {
    let status = &deployment["status"];
    status["observedGeneration"] == deployment["metadata"]["generation"]
        && [&status["replicas"], &status["updatedReplicas"], &status["availableReplicas"]]
            .iter()
            .all(|n| **n == replicas)
}

/// The times of what watches told, as the simulator reckons them.
fn read(events: impl Iterator<Item = (Instant, Value)>, times: &mut Times) {
    let mut created: BTreeMap<String, Instant> = BTreeMap::new();
    let mut rolling: BTreeMap<(String, u64), Instant> = BTreeMap::new();
    for (at, event) in events {
        let object = &event["object"];
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let (name, uid) = (text(&object["metadata"]["name"]), text(&object["metadata"]["uid"]));
        if name.starts_with("last") {
            continue;
        }
        if object["kind"] == "Pod" {
            if event["type"] == "ADDED" {
                created.insert(uid.clone(), at);
            }
            let conditions = object["status"]["conditions"].as_array().into_iter().flatten();
            if conditions.into_iter().any(|c| c["type"] == "Ready" && c["status"] == "True") {
                times.pod_starts.extend(created.remove(&uid).map(|created| (at - created).as_secs_f64()));
            }
        } else if let Some((_, replicas, _)) = PARTS.iter().find(|(part, ..)| *part == name) {
            // Nothing but its template is changed, so a new generation is a rollout.
            let generation = object["metadata"]["generation"].as_u64().unwrap_or_default();
            let begun = *rolling.entry((name.clone(), generation)).or_insert(at);
            if is_done(object, *replicas) && rolling.insert((name, generation + 1_000), at).is_none() {
                times.rollouts.push((at - begun).as_secs_f64());
            }
        }
    }
}

/// The same in the simulator, with these profiles: medians of pod starts and of rollouts.
fn simulate(test: &str, profiles: &Path) -> (f64, f64) {
    let text = std::fs::read_to_string(profiles).expect("they were written");
    let images: Value = serde_saphyr::from_str(&text).expect("profiles are YAML");
    let parts: Vec<Value> = PARTS.iter().map(|of| part(*of, "1")).collect();
    let changes: Vec<Value> = PARTS.iter().map(|of| part(*of, "2")).collect();
    let scenario = json!({"apiVersion": "skeg.dev/v1alpha1", "kind": "Scenario", "metadata": {"name": "shop"}, "spec": {
        "cluster": {"pools": [{"name": "node", "count": 1}]}, "images": images, "manifests": parts,
        "timeline": [{"at": "60s", "apply": changes}], "duration": "2m"}});
    let file = scratch(test).join("scenario.yaml");
    std::fs::write(&file, scenario.to_string()).expect("it can be written");
    let mut sim = Command::new(env!("CARGO_BIN_EXE_skeg"));
    let done = sim.args(["sim", "run"]).arg(&file).args(["--output", "json", "--quiet"]).output().expect("it runs");
    let said = String::from_utf8_lossy(&done.stdout).into_owned();
    assert!(done.status.success(), "{said}{}", String::from_utf8_lossy(&done.stderr));
    let outcome: Value = serde_json::from_str(&said).expect("JSON");
    let took = |rollout: &Value| Some(rollout["finished"].as_f64()? - rollout["started"].as_f64()?);
    let rollouts: Vec<f64> = outcome["rollouts"].as_array().expect("a list").iter().filter_map(took).collect();
    assert_eq!((rollouts.len(), &outcome["pod_starts"]["count"]), (6, &json!(14)), "{outcome}");
    (outcome["pod_starts"]["p50"].as_f64().expect("a number"), median(rollouts))
}

#[test]
fn the_simulator_takes_as_long_as_a_run_that_it_was_fitted_to() {
    let Some(_engine) = to_use() else { return };
    PARTS.iter().for_each(|(name, ..)| another_name(&image(name)));
    let dir = recording::empty("fit");
    run("fit", &dir);
    let profiles = scratch("fit").join("profiles.yaml");
    let mut fit = Command::new(env!("CARGO_BIN_EXE_skeg"));
    let fitted = fit.args(["sim", "fit"]).arg(&dir).arg("--out").arg(&profiles).output().expect("it runs");
    assert!(fitted.status.success(), "{}", String::from_utf8_lossy(&fitted.stderr));
    println!("{}", std::fs::read_to_string(&profiles).expect("they were written"));
    let (pods, rollouts) = simulate("fit", &profiles);
    // At length, five other runs are compared; here, one.
    let others = if std::env::var_os("SKEG_SOAK_MINUTES").is_some() { 5 } else { 1 };
    for n in 0..others {
        let Times { pod_starts, rollouts: took } = run("fit", &recording::empty("fit-other"));
        assert_eq!((pod_starts.len(), took.len()), (14, 6), "run {n}");
        for (what, real, simulated) in [("pods start", median(pod_starts), pods), ("rollouts", median(took), rollouts)]
        {
            println!("run {n}: {what}: {real:.2} s, simulated {simulated:.2} s");
            let apart = (real - simulated).abs() / simulated;
            assert!(apart < APART, "run {n}: {what} took {real:.2} s, and {simulated:.2} s in the simulator");
        }
    }
}
