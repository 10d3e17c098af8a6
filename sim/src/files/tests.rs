//! Tests with whole files: the result is a scenario or problems.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{LoadOptions, Loaded, Problems, Source, load};
use crate::fault::Target;
use crate::scenario::{Action, FaultLevel, UserAction};

/// Files in memory.
struct Memory(BTreeMap<String, String>);

impl Source for Memory {
    fn read(&self, path: &str) -> Result<Vec<u8>, String> {
        self.0.get(path).map(|s| s.clone().into_bytes()).ok_or_else(|| "there is no such file".to_owned())
    }
    fn directory(&self, _: &str) -> Option<Vec<String>> {
        None
    }
}

fn load_files(files: &[(&str, &str)], options: &LoadOptions) -> Result<Loaded, Problems> {
    let memory = Memory(files.iter().map(|(n, t)| ((*n).to_owned(), (*t).to_owned())).collect());
    load(&[files[0].0.to_owned()], &memory, options)
}

fn scenario(spec: &str) -> Result<Loaded, Problems> {
    let text = format!("apiVersion: skeg.dev/v1alpha1\nkind: Scenario\nmetadata:\n  name: s\nspec:\n{spec}");
    load_files(&[("d/s.yaml", &text), ("d/app.yaml", APP)], &LoadOptions::default())
}

const APP: &str = "apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: shop}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
      - {name: web, image: 'nginx:1'}
";

#[test]
fn plain_manifests_get_a_default_cluster() {
    let options = LoadOptions { nodes: Some(40), faults: Some(FaultLevel::Light), ..LoadOptions::default() };
    let loaded = load_files(&[("app.yaml", APP)], &options).unwrap();
    let s = &loaded.scenario;
    assert_eq!((s.name.as_str(), s.cluster.pools[0].count, s.cluster.zones), ("app", 40, 3));
    assert_eq!((s.faults, s.stop_when_converged, s.duration), (FaultLevel::Light, false, Duration::from_secs(600)));
    let Action::User(UserAction::Apply(objects)) = &s.timeline[0].action else { panic!("{:?}", s.timeline) };
    assert_eq!(objects.len(), 2, "the namespace is made: {objects:?}");
    assert_eq!(loaded.notes.len(), 1);
    let plain = load_files(&[("app.yaml", APP)], &LoadOptions::default()).unwrap().scenario;
    assert!(plain.stop_when_converged);
}

#[test]
fn a_scenario_is_read() {
    let loaded = scenario(
        "  cluster:\n    zones: 2\n    latency: 1ms..3ms\n    pools:\n    - {name: big, count: 5, capacity: {cpu: 4, memory: 8Gi}}
  images:\n    nginx: {size: 50Mi, start: 1s..2s, exit: {after: 5m, code: 3}}
  manifests:\n  - app.yaml
  timeline:
  - at: 2m\n    kill: {zone: zone-b, diskLost: true}
  - at: 1m\n    scale: {target: deployment/shop/web, replicas: 4}
  - at: 3m\n    heal:
  - at: 4m\n    partition: {from: {controlPlane: true}, to: {random: 2}, oneWay: true}
  expect:
  - ready: {target: deploy/shop/web, replicas: 4, by: 6m}
  duration: 10m
",
    )
    .unwrap();
    let s = loaded.scenario;
    let at: Vec<u64> = s.timeline.iter().map(|t| t.at.as_secs()).collect();
    assert_eq!(at, [0, 60, 120, 180, 240]);
    assert_eq!(s.images["nginx"].exit, Some((Duration::from_secs(300), 3)));
    assert_eq!(s.cluster.pools[0].capacity["memory"], "8Gi");
    assert_eq!((s.expectations.len(), s.stop_when_converged), (1, false));
}

#[test]
fn every_fault_has_a_name_in_files() {
    let mut seen = std::collections::BTreeSet::new();
    for (step, want) in [
        ("kill: {zone: zone-a, diskLost: true, for: 1m}", "kill zone-a with its disk, for 60s"),
        ("start: {random: 2}", "start 2 random node(s)"),
        ("restartAgent: {labels: \"a=b\"}", "restart the agent of nodes with a=b"),
        (
            "partition: {from: {zone: zone-a}, to: {controlPlane: true}, oneWay: true, for: 5s}",
            "partition zone-a from the control plane, one way, for 5s",
        ),
        ("heal: {}", "heal"),
        ("heal:", "heal"),
        ("degrade: {all: true, extraLatency: 1s, lossPercent: 3}", "links of all nodes get 1s slower and lose 3%"),
        ("clockJump: {controlPlane: true, by: -30s}", "clock of the control plane jumps by -30s"),
        ("clockDrift: {controlPlane: true, ppm: -200}", "clock of the control plane drifts by -200 ppm"),
        ("clog: {names: [node-1], for: 20s}", "links of node-1 are clogged for 20s"),
        ("overload: {oneIn: 3}", "API server 0 turns away one request in 3"),
        ("overload: {apiServer: 1, oneIn: 0}", "API server 1 is overloaded no more"),
        ("restartApiServer: {apiServer: 1}", "API server 1 is down for 10s"),
        ("changeLeader: {downFor: 5s}", "the leaders crash, for 5s"),
        ("compact: true", "compact the store"),
        ("lag: {apiServer: 1, by: 3s, for: 1m}", "API server 1 lags by 3s, for 60s"),
        ("lag: {apiServer: 1, by: 0s}", "API server 1 lags no more"),
        ("stallStore: {for: 3s}", "the store stalls for 3s"),
        ("dropConnections: {all: true}", "connections of all nodes die"),
        ("runtimeTrouble: {all: true, oneIn: 0}", "the container runtimes of all nodes work again"),
        (
            "skew: {machine: controller-manager-1, upTo: 5s, for: 1m}",
            "watches of the machine of controller-manager-1 run apart by up to 5s, for 60s",
        ),
        ("freeze: {machine: api-server-0, for: 20s}", "the machine of api-server-0 freezes, for 20s"),
        (
            "lateReplies: {controlPlane: true, upTo: 5s, for: 1m}",
            "replies to the control plane are late by up to 5s, for 60s",
        ),
        ("crash: {machine: dns-0, downFor: 5s}", "the processes of the machine of dns-0 crash, for 5s"),
        ("crashPods: {selector: \"a=b\"}", "pods a=b in default crash"),
        ("extenderTrouble: {for: 1m}", "extenders fail, for 60s"),
        ("extenderTrouble: {silent: true}", "extenders do not answer"),
        ("extenderRefusal: {names: [node-1], for: 1m}", "extenders refuse node-1, for 60s"),
    ] {
        let spec = format!("  manifests: [app.yaml]\n  timeline:\n  - at: 1m\n    {step}\n");
        let loaded = scenario(&spec).unwrap_or_else(|problems| panic!("{step}: {problems}"));
        let action = &loaded.scenario.timeline.last().expect("a step").action;
        assert_eq!(action.describe(), want);
        let Action::Fault(mut fault) = action.clone() else { panic!("{step} is a fault") };
        let nodes = fault.targets().iter().filter(|target| matches!(target, Target::Nodes(_))).count();
        assert_eq!(fault.node_sets_mut().len(), nodes, "{step}: `node_sets_mut` are those of `targets`");
        seen.insert(step.split(':').next().expect("a name"));
    }
    assert_eq!(seen, crate::fault::NAMES.iter().copied().collect());
}

fn refused(spec: &str, want: &str) {
    let got = scenario(spec).map(|l| l.scenario).unwrap_err().to_string();
    assert!(got.contains(want), "{got}\n  lacks\n{want}");
}

#[test]
fn what_contradicts_or_is_unknown_is_refused() {
    refused("  duraton: 5m\n", "d/s.yaml, document 1, line 6: spec.duraton: unknown field \"duraton\"");
    refused("  duration: 0s\n", "line 6: spec.duration: Invalid value: \"0s\": must be longer than 0s");
    refused("  duration: soon\n", "must be of type duration; a duration is written like 90s, 5m or 2h30m");
    refused(
        "  faults: some\n",
        "spec.faults: Unsupported value: \"some\": supported values: \"heavy\", \"light\", \"listed\", \"none\"",
    );
    refused("  cluster:\n    pools: []\n", "spec.cluster.pools: Invalid value: a cluster needs at least one pool");
    refused(
        "  cluster:\n    pools:\n    - {name: a, count: 1}\n    - {name: a, count: 0}\n",
        "spec.cluster.pools[1].count: Invalid value: 0: must be greater than or equal to 1",
    );
    let gates = |gates: &str| format!("  cluster:\n    featureGates: {{{gates}}}\n");
    refused(&gates("GenericWorklod: true"), "Invalid value: true: unrecognized feature gate: GenericWorklod");
    refused(&gates("GenericWorkload: 1"), "must be of type boolean");
    refused(&gates("GangScheduling: true"), "depends on features that are disabled: [GenericWorkload]");
    let spec = "{schedulingPolicy: {basic: {}}}";
    let group = format!("apiVersion: scheduling.k8s.io/v1alpha2, kind: PodGroup, metadata: {{name: g}}, spec: {spec}");
    refused(
        &format!("  manifests:\n  - {{{group}}}\n"),
        "PodGroup default/g: scheduling.k8s.io/v1alpha2 is served only where the feature gate GenericWorkload is on",
    );
    let timeline = |step: &str| format!("  manifests: [app.yaml]\n  duration: 5m\n  timeline:\n  - {step}\n");
    let step = |s: &str, want: &str| refused(&timeline(s), want);
    step("{at: 6m, heal: {}}", "spec.timeline[0]: Invalid value: \"6m\": the step is after the end of the run (5m)");
    step("{at: 1m}", "a step needs an action");
    step("{at: 1m, heal: {}, compact: {}}", "a step has one action, found heal and compact");
    step("{at: 1m, kil: {zone: zone-a}}", "unknown field \"kil\"; did you mean \"kill\"?");
    step("{at: 1m, kill: {zone: zone-x}}", "spec.timeline[0]: Not found: zone \"zone-x\"");
    step("{at: 1m, clog: {machine: api-server-9, for: 1s}}", "Not found: machine \"api-server-9\"; machines are");
    step("{at: 1m, kill: {}}", "spec.timeline[0].kill: Required value: say which nodes");
    step("{at: 1m, kill: {all: true, random: 2}}", "give only one of all, names, zone");
    refused(
        "  cluster:\n    pools:\n    - {name: a, count: 2}\n  timeline:\n  - {at: 1m, kill: {names: [a-1, a-2]}}\n",
        "spec.timeline[0]: Not found: node \"a-2\"; nodes are named after their pool",
    );
    step(
        "{at: 1m, scale: {target: deployment/web, replicas: 1}}",
        "Not found: Deployment \"default/web\"; the scenario's are shop/web",
    );
    step("{at: 1m, scale: {target: deployment/shop/web, replicas: -1}}", "must be greater than or equal to 0");
    step("{at: 1m, scale: {target: deployment/shop/web, replicas: 1, by: 2}}", "scale.by: unknown field \"by\"");
    step(
        "{at: 1m, setImage: {target: deployment/shop/web, container: webb, image: x}}",
        "Not found: container \"webb\"; Deployment/shop/web has web",
    );
    step("{at: 1m, delete: widget/x}", "the server doesn't have a resource type \"widget\"");
    step("{at: 1m, lag: {apiServer: 7, by: 5s}}", "Not found: API server 7; the cluster has 2 of them");
    step("{at: 1m, partition: {from: {all: true}, to: {all: true}}}", "both sides of the partition are the same");
    refused("  manifests: [none.yaml]\n", "spec.manifests[0]: Invalid value: \"none.yaml\": there is no such file");
    refused(
        "  manifests: [app.yaml]\n  duration: 5m\n  settle: 1m\n  expect:\n  - rolledOut: {target: deployment/shop/web, by: 9m}\n",
        "Invalid value: \"9m\": is after the end of the run (6m)",
    );
    refused(
        "  manifests: [app.yaml, app.yaml]\n",
        "Deployment shop/web is given at d/app.yaml, document 1, line 1 already",
    );
}

#[test]
fn what_is_wrong_is_collected_over_all_documents() {
    let text =
        format!("{APP}---\nkind: X\n---\n{}---\na: [\n", APP.replace("replicas", "replcas").replace("web", "w2"));
    let problems = load_files(&[("a.yaml", &text)], &LoadOptions::default()).map(|l| l.scenario).unwrap_err();
    let documents: Vec<usize> = problems.list.iter().map(|p| p.document).collect();
    assert_eq!(documents, [2, 3, 4], "{problems}");
    assert!(problems.to_string().contains("line 19: spec.replcas: unknown field \"spec.replcas\""), "{problems}");
}

#[test]
fn many_problems_are_counted() {
    let text: String = (0..50).map(|i| format!("---\nkind: X{i}\n")).collect();
    let problems = load_files(&[("a.yaml", &text)], &LoadOptions::default()).map(|l| l.scenario).unwrap_err();
    assert_eq!((problems.list.len(), problems.more), (20, 30));
}

#[test]
fn an_empty_input_is_refused() {
    let problems = load_files(&[("a.yaml", "# nothing\n")], &LoadOptions::default()).map(|l| l.scenario).unwrap_err();
    assert!(problems.to_string().contains("there is no object in it"), "{problems}");
}

#[test]
fn the_examples_are_read() {
    let read = |name: &str| {
        let path = format!("{}/../examples/{name}", env!("CARGO_MANIFEST_DIR"));
        std::fs::read_to_string(path).expect("the example is there")
    };
    let shop = read("shop.yaml");
    for name in ["shop-zone-outage.yaml", "rolling-update-rc.yaml", "heavy-50.yaml", "shop.yaml"] {
        let text = read(name);
        let loaded = load_files(&[(name, &text), ("shop.yaml", &shop)], &LoadOptions::default());
        assert!(loaded.is_ok(), "{}", loaded.map(|l| l.scenario).unwrap_err());
    }
}

#[test]
fn a_step_may_wait_for_a_moment() {
    let pools = "  cluster:\n    controlReplicas: 2\n    pools:\n    - {name: node, count: 3}\n";
    let read = |step: &str| {
        let spec = format!("{pools}  manifests: [app.yaml]\n  timeline:\n  - {step}\n  duration: 10m\n");
        scenario(&spec).map(|loaded| loaded.scenario.timeline.last().expect("it has a step").describe())
    };
    for (step, expect) in [
        (
            "{when: {commit: pods, by: replicaset-controller, nth: 3}, crash: {actor: true}}",
            "the processes of its machine crash, for 10s, after commit 3 of pods by replicaset-controller",
        ),
        (
            "{at: 1m, when: {send: any}, dropConnections: {controlPlane: true}}",
            "connections of the control plane die, before anybody sends write 1 of anything",
        ),
        (
            "{when: {hear: Pod, by: agent-node-2, nth: 5}, delete: deploy/shop/web}",
            "delete Deployment/shop/web, after agent-node-2 has heard 5 times of pods",
        ),
        ("{when: {send: pods, by: kube-scheduler}, heal: {}}", "heal, before kube-scheduler sends write 1 of pods"),
    ] {
        assert_eq!(read(step).unwrap(), expect);
    }
    for (step, expect) in [
        ("{when: {commit: pods, nth: 0}, heal: {}}", "nth"),
        ("{when: {}, heal: {}}", "say what the step waits for: send, commit or hear"),
        ("{when: {commit: pods, hear: pods}, heal: {}}", "give only one of send, commit and hear"),
        ("{when: {commit: podz}, heal: {}}", "the server doesn't have a resource type \"podz\""),
        ("{when: {commit: pods, by: replicasets-controller}, heal: {}}", "did you mean \"replicaset-controller\"?"),
        ("{when: {hear: pods, by: replicaset-controller}, heal: {}}", "nobody of this name hears anything"),
        ("{when: {send: pods, by: 'node:node-3'}, heal: {}}", "nobody of this name writes anything"),
        ("{when: {commit: pods, of: web}, heal: {}}", "unknown field \"of\""),
        ("{at: 1m, crash: {actor: true}}", "actor is the machine of who did what the step waits for"),
        ("{heal: {}}", "at"),
    ] {
        let problems = read(step).unwrap_err().to_string();
        assert!(problems.contains(expect), "{step}: {problems}");
    }
}
