//! The command as users run it: what it prints, what it rejects, how it exits.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate is in the repository").to_owned()
}

fn skeg(args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_skeg"));
    command.args(args).current_dir(root()).stdin(Stdio::null());
    command.output().expect("the binary runs")
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).expect("output is text")
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).expect("errors are text")
}

/// A directory for one test.
fn scratch(test: &str) -> PathBuf {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(test);
    std::fs::create_dir_all(&dir).expect("it can be made");
    dir
}

fn json(args: &[&str]) -> (i32, Value) {
    let output = skeg(&[args, &["--output", "json"]].concat());
    let text = stdout(&output);
    assert_eq!(text.lines().count(), 1, "exactly one object: {text}{}", stderr(&output));
    (output.status.code().unwrap_or(-1), serde_json::from_str(&text).expect("output is JSON"))
}

#[test]
fn an_example_runs_to_its_report() {
    let output = skeg(&["sim", "run", "examples/shop.yaml"]);
    let text = stdout(&output);
    assert_eq!(output.status.code(), Some(0), "{text}{}", stderr(&output));
    for part in ["WORKLOADS", "ROLLOUTS", "UTILISATION", "INVARIANTS", "RESULT", "converged; no invariant broken"] {
        assert!(text.contains(part), "{part} is not in\n{text}");
    }
    assert!(!text.contains('\u{1b}'), "no colours where nobody looks");
}

#[test]
fn json_has_every_field_that_was_promised() {
    let (code, o) = json(&["sim", "run", "examples/shop.yaml", "--nodes", "20", "--seed", "5"]);
    assert_eq!((code, &o["seed"], &o["nodes"]), (0, &Value::from(5), &Value::from(20)));
    for number in ["simulated_seconds", "wall_seconds", "events", "peak_rss_bytes"] {
        assert!(o[number].as_f64().is_some_and(|n| n > 0.0), "{number}: {}", o[number]);
    }
    assert_eq!(o["event_hash"].as_str().map(str::len), Some(16));
    assert_eq!((&o["converged"], o["not_converged"].as_array().map(Vec::len)), (&Value::from(true), Some(0)));
    let invariants = o["invariants"].as_array().expect("a list");
    assert!(!invariants.is_empty() && invariants.iter().all(|i| i["broken"] == false && i["name"].is_string()));
    let api = o["workloads"].as_array().expect("a list").iter().find(|w| w["name"] == "api").expect("it is there");
    assert_eq!((&api["kind"], &api["namespace"]), (&Value::from("Deployment"), &Value::from("shop")));
    assert_eq!((&api["desired"], &api["ready"]), (&Value::from(12), &Value::from(12)));
    assert_eq!(o["pods"]["Running"], 24);
}

#[test]
fn the_same_seed_is_the_same_run_and_another_is_not() {
    let run = |seed: &str| {
        let args = ["sim", "run", "examples/shop.yaml", "--for", "4m", "--faults", "heavy", "--seed", seed];
        let (_, mut o) = json(&args);
        let object = o.as_object_mut().expect("an object");
        object.remove("wall_seconds");
        object.remove("peak_rss_bytes");
        o
    };
    let (a, b, c) = (run("7"), run("7"), run("8"));
    assert_eq!(a, b, "nothing else differs either");
    assert_ne!(a["event_hash"], c["event_hash"]);
}

#[test]
fn threads_change_nothing() {
    let run = |jobs: &str| {
        let args = ["sim", "run", "examples/shop.yaml", "--for", "1m", "--seeds", "3..7", "--jobs", jobs];
        let (code, o) = json(&[&args[..], &["--faults", "light"]].concat());
        assert_eq!((code, &o["runs"], &o["failed"]), (0, &Value::from(4), &Value::from(0)), "{o}");
        o["hashes"].clone()
    };
    let one = run("1");
    assert_eq!(one, run("4"));
    assert_eq!(one[0]["seed"], 3);
    let alone = json(&["sim", "run", "examples/shop.yaml", "--for", "1m", "--faults", "light", "--seed", "3"]).1;
    assert_eq!(one[0]["event_hash"], alone["event_hash"]);
}

#[test]
fn a_recorded_run_replays_and_two_are_told_apart() {
    let dir = scratch("replay");
    let path = |name: &str| dir.join(name).to_string_lossy().into_owned();
    let record = |name: &str, seed: &str| {
        let args = ["sim", "run", "examples/shop.yaml", "--seed", seed, "--nodes", "5", "--trace", &path(name)];
        json(&args).1["event_hash"].clone()
    };
    let (a, plain) = (record("a", "1"), json(&["sim", "run", "examples/shop.yaml", "--seed", "1", "--nodes", "5"]).1);
    assert_eq!(a, plain["event_hash"], "recording changes nothing");
    record("b", "2");
    let replay = skeg(&["sim", "replay", &path("a"), "--output", "json"]);
    assert_eq!(replay.status.code(), Some(0), "{}", stderr(&replay));
    let again: Value = serde_json::from_str(&stdout(&replay)).expect("output is JSON");
    assert_eq!(again["event_hash"], a);
    assert_eq!(skeg(&["sim", "diff", &path("a"), &path("a")]).status.code(), Some(0));
    let diff = skeg(&["sim", "diff", &path("a"), &path("b")]);
    assert_eq!(diff.status.code(), Some(1));
    assert!(stdout(&diff).contains("seed differs: 1 and 2") && stdout(&diff).contains("the runs part after"));
    // One event of the recording is changed.
    let text = std::fs::read_to_string(path("a")).expect("it was written");
    let changed: Vec<String> =
        text.lines().enumerate().map(|(i, l)| if i == 500 { l.replacen(' ', " 9", 1) } else { l.to_owned() }).collect();
    std::fs::write(path("c"), changed.join("\n") + "\n").expect("it can be written");
    let forged = skeg(&["sim", "replay", &path("c")]);
    assert_eq!(forged.status.code(), Some(3), "{}", stderr(&forged));
    assert!(stderr(&forged).contains("the run went another way"), "{}", stderr(&forged));
    assert_eq!(skeg(&["sim", "replay", "examples/shop.yaml"]).status.code(), Some(2));
}

#[test]
fn a_page_is_written() {
    let path = scratch("page").join("report.html");
    let output = skeg(&["sim", "run", "examples/shop.yaml", "--report", &path.to_string_lossy(), "--quiet"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let page = std::fs::read_to_string(&path).expect("it was written");
    assert!(page.contains("<svg") && page.ends_with("</html>\n"));
    let refused = skeg(&["sim", "run", "examples/shop.yaml", "--report", "no/such/directory/report.html"]);
    assert_eq!(refused.status.code(), Some(2));
    assert!(stdout(&refused).is_empty(), "it is refused before the run");
}

#[test]
fn what_does_not_converge_says_why() {
    let dir = scratch("not-converged");
    let file = dir.join("huge.yaml");
    let scenario = "apiVersion: skeg.dev/v1alpha1
kind: Scenario
metadata: {name: huge}
spec:
  duration: 2m
  settle: 1m
  timeline:
  - at: 30s
    apply:
      apiVersion: v1
      kind: Pod
      metadata: {name: huge}
      spec:
        containers:
        - {name: main, image: a, resources: {requests: {cpu: 1k}}}
";
    std::fs::write(&file, scenario).expect("it can be written");
    let (code, o) = json(&["sim", "run", &file.to_string_lossy()]);
    assert_eq!(code, 4, "{o}");
    assert_eq!(o["converged"], false);
    let why = o["pending"][0]["why"].as_str().unwrap_or_default();
    assert!(why.starts_with("0/10 nodes are available: ") && why.contains("Insufficient cpu"), "{o}");
}

/// A Deployment whose second image never gets ready fails among others; faults, drains and the others go, it stays.
#[test]
fn a_failing_seed_shrinks_to_a_small_file_that_fails_alike() {
    let deployment = |name: &str| {
        format!(
            "  - {{apiVersion: apps/v1, kind: Deployment, metadata: {{name: {name}}}, spec: {{replicas: 3, selector: \
             {{matchLabels: {{app: {name}}}}}, template: {{metadata: {{labels: {{app: {name}}}}}, spec: {{containers: \
             [{{name: main, image: 'example/{name}:1', readinessProbe: {{httpGet: {{path: /, port: 80}}}}}}]}}}}}}}}\n"
        )
    };
    let text = format!(
        "apiVersion: skeg.dev/v1alpha1\nkind: Scenario\nmetadata: {{name: broken-rollout}}\nspec:\n  cluster: {{pools: \
         [{{name: node, count: 6}}]}}\n  images: {{'example/web:2': {{neverReady: true}}}}\n  manifests:\n{}{}{}  \
         timeline:\n  - {{at: 40s, drain: {{names: [node-3]}}}}\n  - {{at: 45s, setImage: {{target: deployment/web, \
         container: main, image: 'example/web:2'}}}}\n  - {{at: 50s, scale: {{target: deployment/api, replicas: \
         5}}}}\n  - {{at: 60s, uncordon: {{names: [node-3]}}}}\n  faults: light\n  duration: 3m\n  settle: 2m\n",
        deployment("api"),
        deployment("web"),
        deployment("db"),
    );
    let (dir, as_text) = (scratch("shrink"), |path: &Path| path.to_str().expect("a path is text").to_owned());
    let (whole, small) = (dir.join("whole.yaml"), dir.join("small.yaml"));
    std::fs::write(&whole, text).expect("it is written");
    let (whole, small) = (as_text(&whole), as_text(&small));
    let output = skeg(&["sim", "shrink", &whole, "--seed", "3", "--out", &small, "--quiet"]);
    assert_eq!(output.status.code(), Some(0), "{}{}", stdout(&output), stderr(&output));
    let left = std::fs::read_to_string(&small).expect("it was written");
    let steps = left.lines().filter(|line| line.contains("at: ") || line.contains("\"at\":")).count();
    assert!(left.contains("example/web:2") && steps == 1 && !left.contains("example/db:1"), "{left}");
    let (code, o) = json(&["sim", "run", &small, "--seed", "3"]);
    assert_eq!((code, &o["converged"]), (4, &Value::from(false)), "{left}");
    let (code, told) = json(&["sim", "why", &small, "--seed", "3"]);
    let story: Vec<String> = told["story"].as_array().expect("a list").iter().map(Value::to_string).collect();
    let tells = |parts: &[&str]| assert!(story.iter().any(|line| parts.iter().all(|p| line.contains(p))), "{told:#}");
    assert_eq!((code, &told["hash"]), (0, &o["event_hash"]), "it is the same run");
    tells(&["kubernetes-admin (user)", "put Deployment/default/web", "example/web:2"]);
    tells(&["create Pod/default/web-"]);
    tells(&["it had not heard of"]);
    assert!(!story.iter().any(|line| line.contains("resourceVersion")), "each commit changes it: {told:#}");
    let last = story.last().expect("it has an end");
    assert!(last.contains("\"by\":\"invariant\"") && last.contains("converged-and-kept"), "{last}");
    let output = skeg(&["sim", "shrink", "examples/shop.yaml", "--seed", "1"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("error: seed 1: it does not fail"), "{}", stderr(&output));
    let output = skeg(&["sim", "why", "examples/shop.yaml", "--seed", "1"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("error: seed 1: it does not fail"), "{}", stderr(&output));
}

/// What a seed draws can be read, changed and run.
#[test]
fn an_explored_seed_is_written_as_a_scenario_that_runs_alike() {
    let path = scratch("explored").join("seven.yaml");
    let path = path.to_str().expect("a path is text");
    let (code, explored) = json(&["sim", "explore", "--seed", "7", "--out", path]);
    assert_eq!(code, 0, "{explored}");
    let (_, run) = json(&["sim", "run", path, "--seed", "7"]);
    assert!(run["event_hash"].is_string() && run["event_hash"] == explored["event_hash"], "{run}");
}

#[test]
fn what_is_not_carried_out_is_said_everywhere_and_refused_with_strict() {
    let dir = scratch("gaps");
    let file = dir.join("policy.yaml");
    let policy =
        "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: p}\nspec: {podSelector: {}}\n";
    std::fs::write(&file, policy).expect("it can be written");
    let path = file.to_string_lossy();
    let warning = "NetworkPolicy default/p: kind: stored, but network policies are not simulated yet";
    let output = skeg(&["sim", "run", &path]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert!(stderr(&output).contains(&format!("warning: {warning}")), "{}", stderr(&output));
    assert!(stdout(&output).contains("NOT CARRIED OUT") && stdout(&output).contains(warning), "{}", stdout(&output));
    assert_eq!(json(&["sim", "run", &path]).1["warnings"], serde_json::json!([warning]));
    let refused = skeg(&["sim", "run", &path, "--strict"]);
    assert_eq!(refused.status.code(), Some(2), "{}", stderr(&refused));
    assert!(stdout(&refused).is_empty() && stderr(&refused).contains(warning), "{}", stderr(&refused));
    let well = skeg(&["sim", "run", "examples/shop.yaml", "--strict", "--quiet"]);
    assert_eq!(well.status.code(), Some(0), "{}", stderr(&well));
}

#[test]
fn an_export_keeps_its_bindings_if_asked() {
    let dir = scratch("export");
    let file = dir.join("live.yaml");
    std::fs::write(&file, EXPORT).expect("it can be written");
    let path = file.to_string_lossy();
    let (code, o) = json(&["sim", "run", &path]);
    assert_eq!((code, &o["nodes"], &o["pods"]["Running"]), (0, &Value::from(2), &Value::from(2)), "{o}");
    let (code, o) = json(&["sim", "run", &path, "--keep-bindings"]);
    assert_eq!((code, &o["pods"]["Running"]), (0, &Value::from(2)), "{o}");
    let rs =
        o["workloads"].as_array().expect("a list").iter().find(|w| w["kind"] == "Deployment").expect("it is there");
    assert_eq!(rs["ready"], 2);
    assert_eq!(o["event_reasons"].get("Scheduled"), None, "nobody scheduled what was bound: {}", o["event_reasons"]);
}

const EXPORT: &str = r#"apiVersion: v1
kind: List
items:
- apiVersion: v1
  kind: Node
  metadata: {name: ip-10-0-0-1, uid: n1, labels: {topology.kubernetes.io/zone: eu-1a}}
  status: {allocatable: {cpu: "4", memory: 8Gi, pods: "110"}}
- apiVersion: v1
  kind: Node
  metadata: {name: ip-10-0-0-2, uid: n2, labels: {topology.kubernetes.io/zone: eu-1b}}
  status: {allocatable: {cpu: "4", memory: 8Gi, pods: "110"}}
- apiVersion: apps/v1
  kind: Deployment
  metadata: {name: web, namespace: shop, uid: d1, resourceVersion: "9", creationTimestamp: "2026-01-01T00:00:00Z"}
  spec:
    replicas: 2
    selector: {matchLabels: {app: web}}
    template:
      metadata: {creationTimestamp: null, labels: {app: web}}
      spec: {containers: [{name: web, image: "nginx:1"}]}
  status: {replicas: 2}
- apiVersion: apps/v1
  kind: ReplicaSet
  metadata:
    name: web-5d9
    namespace: shop
    uid: r1
    labels: {app: web, pod-template-hash: 5d9}
    ownerReferences: [{apiVersion: apps/v1, kind: Deployment, name: web, uid: d1, controller: true}]
  spec:
    replicas: 2
    selector: {matchLabels: {app: web, pod-template-hash: 5d9}}
    template:
      metadata: {labels: {app: web, pod-template-hash: 5d9}}
      spec: {containers: [{name: web, image: "nginx:1"}]}
- apiVersion: v1
  kind: Pod
  metadata:
    name: web-5d9-a
    namespace: shop
    uid: p1
    labels: {app: web, pod-template-hash: 5d9}
    ownerReferences: [{apiVersion: apps/v1, kind: ReplicaSet, name: web-5d9, uid: r1, controller: true}]
  spec: {nodeName: ip-10-0-0-2, containers: [{name: web, image: "nginx:1"}]}
  status: {phase: Running}
- apiVersion: v1
  kind: Pod
  metadata:
    name: web-5d9-b
    namespace: shop
    uid: p2
    labels: {app: web, pod-template-hash: 5d9}
    ownerReferences: [{apiVersion: apps/v1, kind: ReplicaSet, name: web-5d9, uid: r1, controller: true}]
  spec: {nodeName: ip-10-0-0-2, containers: [{name: web, image: "nginx:1"}]}
  status: {phase: Running}
"#;

#[test]
fn arrivals_say_what_is_not_allocated() {
    let dir = scratch("arrivals");
    let path = |name: &str| dir.join(name).display().to_string();
    let (nodes, pods, page) = (path("n.csv"), path("p.csv"), path("gpus.html"));
    let rows: String = (0..4).map(|i| format!("n{i},8000,8000,2,T4\n")).collect();
    std::fs::write(&nodes, format!("sn,cpu_milli,memory_mib,gpu,model\n{rows}")).expect("it can be written");
    let rows: String = (0..8).map(|i| format!("p{i},1000,1000,1,{}\n", if i % 2 == 0 { 600 } else { 400 })).collect();
    std::fs::write(&pods, format!("name,cpu_milli,memory_mib,num_gpu,gpu_milli\n{rows}")).expect("it can be written");
    let args = ["sim", "arrivals", &nodes, &pods, "--policy", "fgd,Packing,FGD", "--seeds", "3..5", "--jobs", "2"];
    let output = skeg(&[&args[..], &["--report", &page]].concat());
    let text = stdout(&output);
    assert_eq!(output.status.code(), Some(0), "{text}{}", stderr(&output));
    let head = "4 nodes with 8 GPUs; the arrival of a trace of 8 pods until 130% of the GPUs are asked for; 2 seeds\n";
    assert!(text.starts_with(head), "{text}");
    let (first, second) = (text.find("\n  FGD "), text.find("\n  Packing "));
    assert!(first.is_some() && first < second, "in the order in which they are given: {text}");
    let (code, o) = json(&args);
    assert_eq!(
        (code, o["policies"].as_array().map(Vec::len), o["runs"].as_array().map(Vec::len)),
        (0, Some(2), Some(4))
    );
    assert_eq!((&o["runs"][0]["policy"], &o["runs"][1]["seed"]), (&Value::from("FGD"), &Value::from(4)));
    let page = std::fs::read_to_string(page).expect("it was written");
    assert!(page.contains("<svg") && page.contains(">130%</text>") && page.contains("<td>Packing</td>"), "{page}");
    let (code, why) = {
        let output = skeg(&["sim", "arrivals", &pods, &nodes]);
        (output.status.code(), stderr(&output))
    };
    assert_eq!(code, Some(2), "{why}");
    assert!(why.contains("p.csv, line 1: there is no column sn; needed are sn, cpu_milli, memory_mib, gpu"), "{why}");
}

#[test]
fn help_and_version_are_there() {
    let version = skeg(&["version"]);
    assert_eq!(stdout(&version), format!("skeg {}\n", env!("CARGO_PKG_VERSION")));
    let help = stdout(&skeg(&["sim", "run", "--help"]));
    assert!(help.contains("Examples:") && help.contains("Exit codes:") && help.contains("--keep-bindings"));
}

#[test]
fn whoever_stops_reading_is_no_error() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_skeg"));
    command.args(["sim", "run", "examples/shop.yaml"]).current_dir(root());
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the binary runs");
    drop(child.stdout.take());
    let output = child.wait_with_output().expect("it ends");
    assert_eq!((output.status.code(), stderr(&output).contains("panicked")), (Some(0), false));
}

#[test]
fn shared_manifests_say_what_is_not_carried_out() {
    let Some(shared) = std::env::var_os("SKEG_SHARED") else { return };
    for (name, words) in [
        ("guestbook-go", "Service default/guestbook: spec.type: no load balancer is made"),
        ("online-boutique", "Service default/frontend-external: spec.type: no load balancer is made"),
    ] {
        let file = Path::new(&shared).join(format!("data/manifests/{name}.yaml"));
        let refused = skeg(&["sim", "run", &file.to_string_lossy(), "--strict"]);
        assert_eq!(refused.status.code(), Some(2), "{name}: {}", stderr(&refused));
        assert!(stderr(&refused).contains(words), "{name}: {}\n  lacks {words}", stderr(&refused));
        // The message is also shown without `--strict`.
        let run = skeg(&["sim", "run", &file.to_string_lossy(), "--for", "10s", "--settle", "10s"]);
        assert!(stderr(&run).contains(&format!("warning: {words}")), "{name}: {}\n  lacks {words}", stderr(&run));
    }
}

#[test]
fn shared_manifests_converge() {
    // Only where the data exists, because it may not be part of this repository.
    let Some(shared) = std::env::var_os("SKEG_SHARED") else { return };
    let all = [("online-boutique", 12), ("guestbook-go", 3), ("cassandra", 1), ("cockroachdb-statefulset", 1)];
    for (name, workloads) in all {
        let given = Path::new(&shared).join(format!("data/manifests/{name}.yaml"));
        // A budget is of a version that is served no more.
        let mended = std::fs::read_to_string(given).expect("it is there").replace("policy/v1beta1", "policy/v1");
        let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}.yaml"));
        std::fs::write(&file, mended).expect("it can be written");
        let (code, o) = json(&["sim", "run", &file.to_string_lossy(), "--nodes", "100", "--seed", "1"]);
        assert_eq!(code, 0, "{name}: {}", o["not_converged"]);
        let all = o["workloads"].as_array().expect("a list");
        assert!(all.len() >= workloads && all.iter().all(|w| w["ready"] == w["desired"]), "{name}: {all:?}");
    }
}

#[test]
fn pods_are_scheduled_as_the_configuration_says() {
    let dir = scratch("scheduler-config");
    let file = |name: &str, text: &str| {
        let path = dir.join(name);
        std::fs::write(&path, text).expect("it can be written");
        path.to_string_lossy().into_owned()
    };
    let config = |name: &str, text: &str| {
        let head = "apiVersion: kubescheduler.config.k8s.io/v1\nkind: KubeSchedulerConfiguration\n";
        file(name, &format!("{head}{text}"))
    };
    let pod = |name: &str| {
        format!(
            "---\napiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec:\n  schedulerName: pack\n  containers: \
             [{{name: c, image: web, resources: {{requests: {{cpu: 1, memory: 1Gi}}}}}}]\n"
        )
    };
    let app = file("app.yaml", &["a", "b", "c", "d"].map(pod).concat());
    let pack = "profiles:\n- schedulerName: default-scheduler\n- schedulerName: pack\n  pluginConfig:\n  - name: \
                NodeResourcesFit\n    args: {scoringStrategy: {type: MostAllocated}}\n";
    let pack = config("pack.yaml", pack);
    let nodes = |config: &str| {
        let on = |name| {
            let args = ["sim", "explain", "pod", name, &app, "--nodes", "4", "--scheduler-config", config];
            let output = skeg(&[&args[..], &["--output", "json", "--quiet"]].concat());
            assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
            serde_json::from_str::<Value>(&stdout(&output)).expect("output is JSON")["state"].to_string()
        };
        ["a", "b", "c", "d"].map(on).into_iter().collect::<std::collections::BTreeSet<_>>().len()
    };
    let least = config("least.yaml", "profiles: [{schedulerName: pack}]");
    assert_eq!((nodes(&pack), nodes(&least)), (1, 4), "all on one node, and each on one of its own");
    // Among the FILEs it is the same, and a recording has it.
    let run = |args: &[&str]| json(&[&["sim", "run", &app, "--nodes", "4"], args].concat());
    let trace = dir.join("trace").to_string_lossy().into_owned();
    let (code, one) = run(&["--scheduler-config", &pack, "--trace", &trace]);
    assert_eq!((code, &one["event_hash"]), (0, &run(&[&pack]).1["event_hash"]));
    assert_eq!(skeg(&["sim", "replay", &trace]).status.code(), Some(0));
    let (code, without) = run(&[]);
    let why = without["pending"][0]["why"].as_str().unwrap_or_default();
    assert_eq!((code, why), (4, "spec.schedulerName is \"pack\", and no scheduler of that name runs here"));
    let lax = config("lax.yaml", "percentageOfNodesToScore: 10\nprofiles: [{schedulerName: pack}]");
    let (code, warned) = run(&["--scheduler-config", &lax]);
    let warning = format!("{lax}: percentageOfNodesToScore: every node is looked at");
    assert_eq!((code, &warned["warnings"][0]), (0, &Value::from(warning)));
    for (name, text, expect) in [
        ("field.yaml", "profile: []", "profile: unknown field \"profile\"; did you mean \"profiles\"?"),
        (
            "plugin.yaml",
            "profiles: [{plugins: {score: {enabled: [{name: Mine}]}}}]",
            "profiles[0].plugins.score.enabled[0]: ScorePlugin \"Mine\" does not exist",
        ),
        (
            "twice.yaml",
            "profiles: [{schedulerName: a}, {schedulerName: a}]",
            "profiles[1].schedulerName: Duplicate value: \"a\": profiles[0].schedulerName is the same",
        ),
    ] {
        let path = config(name, text);
        let output = skeg(&["sim", "run", &app, "--scheduler-config", &path]);
        let expect = format!("error: {path}, document 1, line 3: {expect}\n");
        assert_eq!((output.status.code(), stderr(&output)), (Some(2), expect));
        #[cfg(feature = "up")]
        {
            let up = skeg(&["up", "--in-memory", "--listen", "127.0.0.1:0", "--scheduler-config", &path]);
            assert!(up.status.code() == Some(2) && stderr(&up).contains(text.split(':').next().unwrap_or_default()));
        }
    }
    let strict = skeg(&["sim", "run", &app, "--strict", "--scheduler-config", &lax]);
    assert!(strict.status.code() == Some(2) && stderr(&strict).contains("every node is looked at"));
    let both = skeg(&["sim", "run", &app, &pack, "--scheduler-config", &pack]);
    assert_eq!(both.status.code(), Some(2));
    assert!(stderr(&both).contains("a run has one KubeSchedulerConfiguration, and another one is given"));
}
