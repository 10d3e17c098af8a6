//! Whole rehearsals, from a file to the verdict: cases in which Skeg once gave a wrong answer.
//!
//! Each is a small input and the right outcome, which is what Kubernetes and kubectl do.

use skeg_sim::files::{LoadOptions, Loaded, Source, load};
use skeg_sim::outcome::{Happening, Outcome};
use skeg_sim::{RunOptions, Silent, run};
use skeg_tests::Disk;

/// One file, held in memory.
struct Text<'t>(&'t str);

impl Source for Text<'_> {
    fn read(&self, _path: &str) -> Result<Vec<u8>, String> {
        Ok(self.0.as_bytes().to_vec())
    }

    fn directory(&self, _path: &str) -> Option<Vec<String>> {
        None
    }
}

fn read_with(text: &str, options: &LoadOptions) -> Result<Loaded, String> {
    load(&["input.yaml".to_owned()], &Text(text), options).map_err(|problems| problems.to_string())
}

fn read(text: &str) -> Loaded {
    read_with(text, &LoadOptions::default()).unwrap_or_else(|problems| panic!("{problems}"))
}

fn outcome_of(loaded: &Loaded, seed: u64) -> Outcome {
    let outcome = run(&loaded.scenario, seed, &RunOptions::default(), &mut Silent);
    let outcome = outcome.unwrap_or_else(|crash| panic!("{crash}"));
    for i in outcome.invariants.iter().filter(|i| i.name != "converged-and-kept") {
        assert!(!i.broken, "seed {seed}: {}: {:#?}", i.name, i.details);
    }
    outcome
}

fn go(text: &str) -> Outcome {
    outcome_of(&read(text), 1)
}

fn lines(happenings: &[Happening]) -> String {
    happenings.iter().map(|h| format!("{:.1} {}\n", h.at, h.what)).collect()
}

fn assert_well(o: &Outcome) {
    assert!(o.converged, "{:#?}\n{}", o.not_converged, lines(&o.actions));
    assert_met(o);
}

fn assert_met(o: &Outcome) {
    for e in &o.expectations {
        assert!(e.met, "{}: seen {}\n{:#?}\n{}", e.what, e.seen, o.not_converged, lines(&o.actions));
    }
}

/// Asserts that `what` has not converged and that the reason contains all these words.
fn assert_lacks(o: &Outcome, what: &str, why: &[&str]) {
    assert!(!o.converged, "it is converged\n{}", lines(&o.actions));
    let found = o.not_converged.iter().find(|n| n.what.contains(what) && why.iter().all(|w| n.why.contains(w)));
    assert!(found.is_some(), "{what}: {why:?} is not among {:#?}\n{}", o.not_converged, lines(&o.actions));
}

/// A scenario with this `spec` on nodes with four CPUs.
fn scenario(nodes: usize, spec: &str) -> String {
    format!(
        "apiVersion: skeg.dev/v1alpha1\nkind: Scenario\nmetadata: {{name: test}}\nspec:\n  cluster: {{zones: 1, \
         pools: [{{name: node, count: {nodes}, capacity: {{cpu: 4}}}}]}}\n{spec}"
    )
}

/// A Deployment in one line; `spec` has its fields other than selector and template.
fn deployment(name: &str, spec: &str, container: &str) -> String {
    format!(
        "{{apiVersion: apps/v1, kind: Deployment, metadata: {{name: {name}}}, spec: {{{spec}selector: {{matchLabels: \
         {{app: {name}}}}}, template: {{metadata: {{labels: {{app: {name}}}}}, spec: {{containers: [{{name: a, \
         {container}}}]}}}}}}}}"
    )
}

fn budget(app: &str) -> String {
    format!(
        "{{apiVersion: policy/v1, kind: PodDisruptionBudget, metadata: {{name: keep-{app}}}, spec: {{maxUnavailable: 0, \
         selector: {{matchLabels: {{app: {app}}}}}}}}}"
    )
}

#[test]
fn apply_leaves_what_the_file_does_not_speak_of() {
    let (first, second) = (deployment("web", "", "image: 'web:1'"), deployment("web", "", "image: 'web:2'"));
    let o = go(&scenario(
        3,
        &format!(
            "  manifests: [{first}]\n  timeline:\n  - {{at: 30s, scale: {{target: deploy/web, replicas: 4}}}}\n  \
             - {{at: 60s, apply: [{second}]}}\n  expect:\n  - ready: {{target: deploy/web, replicas: 4}}\n  \
             - image: {{target: deploy/web, image: 'web:2'}}\n  duration: 2m\n  settle: 2m\n"
        ),
    ));
    assert_well(&o);
    let o = go(&scenario(
        3,
        &format!(
            "  manifests: [{first}]\n  timeline:\n  - {{at: 30s, pause: deploy/web}}\n  - {{at: 60s, apply: [{second}]}}\n  \
             duration: 2m\n  settle: 2m\n"
        ),
    ));
    assert!(o.rollouts.last().is_some_and(|r| r.finished.is_none()), "a pause stays: {:?}", o.rollouts);
}

#[test]
fn apply_takes_away_what_the_file_has_no_more() {
    let first = deployment("web", "replicas: 3, ", "image: 'web:1'");
    let second = deployment("web", "", "image: 'web:1'");
    let o = go(&scenario(
        3,
        &format!(
            "  manifests: [{first}]\n  timeline:\n  - {{at: 60s, apply: [{second}]}}\n  expect:\n  \
             - ready: {{target: deploy/web, replicas: 1}}\n  duration: 2m\n  settle: 2m\n"
        ),
    ));
    assert_well(&o);
}

#[test]
fn a_blocked_drain_names_pod_and_budget_and_holds_up_nobody() {
    let manifests = [
        budget("kept"),
        deployment("kept", "replicas: 2, ", "image: 'a:1'"),
        deployment("free", "replicas: 6, ", "image: 'a:1'"),
        deployment("other", "", "image: 'a:1'"),
    ];
    let o = go(&scenario(
        2,
        &format!(
            "  manifests: [{}]\n  timeline:\n  - {{at: 1m, drain: {{names: [node-0]}}}}\n  - {{at: 90s, scale: {{target: \
             deploy/other, replicas: 3}}}}\n  expect:\n  - ready: {{target: deploy/other, replicas: 3}}\n  \
             - ready: {{target: deploy/free, replicas: 6}}\n  duration: 3m\n  settle: 1m\n",
            manifests.join(", ")
        ),
    ));
    assert_met(&o);
    let why = ["Cannot evict pod as it would violate the pod's disruption budget.", "budget keep-kept needs 2 healthy"];
    assert_lacks(&o, "drain node-0: evict Pod/default/kept-", &why);
    let evicted = o.actions.iter().filter(|a| a.what.starts_with("drain node-0: evict Pod/default/free-"));
    assert!(evicted.clone().count() > 0, "{}", lines(&o.actions));
    for a in evicted {
        assert!(a.at < 61.0, "the other pods go at once: {}", lines(&o.actions));
    }
    let refusals = o.actions.iter().filter(|a| a.what.contains("Cannot evict")).count();
    assert!(refusals <= 2, "a refusal that stays the same is told once a pod: {}", lines(&o.actions));
}

#[test]
fn a_drain_goes_on_when_the_budget_allows_it() {
    let manifests = [budget("kept"), deployment("kept", "replicas: 2, ", "image: 'a:1'")];
    let o = go(&scenario(
        3,
        &format!(
            "  manifests: [{}]\n  timeline:\n  - {{at: 1m, drain: {{names: [node-0, node-1]}}}}\n  - {{at: 2m, patch: \
             {{target: pdb/keep-kept, patch: {{spec: {{maxUnavailable: 1}}}}}}}}\n  expect:\n  \
             - ready: {{target: deploy/kept, replicas: 2}}\n  duration: 3m\n  settle: 3m\n",
            manifests.join(", ")
        ),
    ));
    assert_well(&o);
    let evicted: Vec<&Happening> = o.actions.iter().filter(|a| a.what.contains("evict Pod/")).collect();
    assert!(evicted.iter().any(|a| a.at > 120.0 && !a.what.contains("Cannot")), "{}", lines(&o.actions));
}

#[test]
fn what_the_api_refuses_is_not_converged() {
    let service = |name: &str| {
        format!(
            "{{apiVersion: v1, kind: Service, metadata: {{name: {name}}}, spec: {{type: NodePort, selector: {{app: x}}, \
             ports: [{{port: 80, nodePort: 30080}}]}}}}\n---\n"
        )
    };
    let o = go(&format!("{}{}", service("a"), service("b")));
    assert_lacks(&o, "Service default/b", &["refused", "spec.ports[0].nodePort", "provided port is already allocated"]);
    assert_eq!(o.not_converged_total, 1);
    assert!(o.simulated_seconds < 120.0, "no waiting brings it back: {} s", o.simulated_seconds);
}

#[test]
fn a_later_apply_that_is_refused_is_not_forgotten() {
    let first = deployment("web", "", "image: 'web:1'");
    let immutable = first.replace("app: web", "app: other");
    let steps = |then: &str| {
        let apply = format!("  - {{at: 30s, apply: [{immutable}]}}\n{then}");
        scenario(2, &format!("  manifests: [{first}]\n  timeline:\n{apply}  duration: 2m\n  settle: 2m\n"))
    };
    assert_lacks(
        &go(&steps("")),
        "Deployment default/web",
        &["not as declared", "spec.selector", "field is immutable"],
    );
    assert_well(&go(&steps(&format!("  - {{at: 60s, apply: [{first}]}}\n"))));
    assert_well(&go(&steps("  - {at: 60s, delete: deploy/web}\n")));
}

#[test]
fn a_step_that_is_refused_is_not_forgotten() {
    let web = deployment("web", "", "image: 'web:1'");
    let o = go(&scenario(
        2,
        &format!(
            "  manifests: [{web}]\n  timeline:\n  - {{at: 30s, patch: {{target: deploy/web, patch: {{spec: {{replicas: \
             -1}}}}}}}}\n  - {{at: 31s, scale: {{target: deploy/web, replicas: 2}}}}\n  duration: 1m\n  settle: 2m\n"
        ),
    ));
    let why = ["spec.replicas: Invalid value: -1: must be greater than or equal to 0"];
    assert_lacks(&o, "patch Deployment/default/web", &why);
    assert_eq!(o.workloads[0].ready, 2, "the next step is carried out all the same");
}

#[test]
fn what_is_declared_and_gone_is_missed() {
    let pod = "{apiVersion: v1, kind: Pod, metadata: {name: bare}, spec: {nodeName: node-0, containers: [{name: a, image: 'a:1'}]}}";
    // The node dies permanently; its pod is evicted and no controller creates it again.
    let lost =
        |steps: &str| scenario(3, &format!("  manifests: [{pod}]\n  timeline:\n{steps}  duration: 9m\n  settle: 2m\n"));
    let o = go(&lost("  - {at: 1m, kill: {names: [node-0]}}\n  - {at: 8m, start: {names: [node-0]}}\n"));
    assert_lacks(&o, "Pod default/bare", &["declared, and not there"]);
    assert_well(&go(&lost("  - {at: 1m, delete: pod/bare}\n")));
    assert_well(&go(&lost("  - {at: 1m, drain: {names: [node-0]}}\n")));
}

#[test]
fn every_restart_is_a_rollout() {
    let web = deployment("web", "replicas: 2, ", "image: 'web:1'");
    let o = go(&scenario(
        2,
        &format!(
            "  manifests: [{web}]\n  timeline:\n  - {{at: 1m, restart: deploy/web}}\n  - {{at: 2m, restart: deploy/web}}\n  \
             duration: 3m\n  settle: 2m\n"
        ),
    ));
    assert_well(&o);
    assert_eq!(o.rollouts.len(), 3, "the first one, and one for each: {:?}", o.rollouts);
    // A second restart within one second is rejected, as kubectl does, and the rejection is reported.
    let o = go(&scenario(
        2,
        &format!(
            "  manifests: [{web}]\n  timeline:\n  - {{at: 60s, restart: deploy/web}}\n  - {{at: 60100ms, restart: \
             deploy/web}}\n  duration: 2m\n  settle: 2m\n"
        ),
    ));
    assert_lacks(&o, "restart Deployment/default/web", &["already been triggered within the past second"]);
}

#[test]
fn a_cordoned_node_of_the_input_is_cordoned_from_the_start() {
    let node = |name: &str, spec: &str| {
        format!(
            "apiVersion: v1\nkind: Node\nmetadata: {{name: {name}, uid: {name}}}\nspec: {{{spec}}}\nstatus: {{allocatable: \
             {{cpu: 2, memory: 8Gi, pods: 20}}}}\n---\n"
        )
    };
    let web = deployment("web", "replicas: 4, ", "image: 'a:1', resources: {requests: {cpu: 1}}");
    let text = format!("{}{}{web}\n", node("open", ""), node("closed", "unschedulable: true"));
    let loaded =
        read_with(&text, &LoadOptions { settle: Some(std::time::Duration::from_secs(30)), ..Default::default() });
    let mut loaded = loaded.unwrap_or_else(|problems| panic!("{problems}"));
    loaded.scenario.duration = std::time::Duration::from_secs(30);
    for seed in 0..12 {
        let o = outcome_of(&loaded, seed);
        assert_eq!(o.pending_total, 2, "seed {seed}");
    }
}

#[test]
fn pending_pods_are_counted_everywhere_and_to_the_last() {
    let pods: Vec<String> = (0..130)
        .map(|i| {
            format!(
                "{{apiVersion: v1, kind: Pod, metadata: {{name: p{i}, namespace: ns{}}}, spec: {{containers: [{{name: a, \
                 image: 'a:1', resources: {{requests: {{cpu: 9}}}}}}]}}}}",
                i % 2
            )
        })
        .collect();
    let o = go(&scenario(
        1,
        &format!(
            "  manifests: [{}]\n  expect:\n  - pending: {{count: 130}}\n  - pending: {{namespace: '', count: 130}}\n  \
             - pending: {{namespace: ns1, count: 65}}\n  - pending: {{namespace: default, count: 0}}\n  \
             duration: 30s\n  settle: 30s\n",
            pods.join(", ")
        ),
    ));
    assert_met(&o);
    assert_eq!((o.pending_total, o.pending.len()), (130, 100));
    assert_eq!((o.not_converged_total, o.not_converged.len()), (130, 50));
    let text = skeg_sim::report::text(&o, false);
    for words in ["not converged (130 reasons)", "and 90 more", "PENDING PODS (130; the reasons of the first 100)"] {
        assert!(text.contains(words), "{words} is not in\n{text}");
    }
}

#[test]
fn who_waits_for_nobody_says_so() {
    let pod = |name: &str, spec: &str| {
        format!(
            "{{apiVersion: v1, kind: Pod, metadata: {{name: {name}}}, spec: {{{spec}, containers: [{{name: a, image: \
             'a:1'}}]}}}}"
        )
    };
    let manifests = [
        pod("foreign", "schedulerName: volcano"),
        pod("gated", "readinessGates: [{conditionType: example.com/lb}]"),
        pod("held", "schedulingGates: [{name: example.com/quota}]"),
    ];
    let spec = format!("  manifests: [{}]\n  duration: 1m\n  settle: 30s\n", manifests.join(", "));
    let o = go(&scenario(1, &spec));
    assert_lacks(&o, "Pod default/foreign", &["spec.schedulerName is \"volcano\"", "no scheduler of that name runs"]);
    assert_lacks(&o, "Pod default/gated", &["readiness gate \"example.com/lb\" does not exist"]);
    assert_lacks(&o, "Pod default/held", &["not scheduled", "gate"]);
}

#[test]
fn a_node_that_a_user_deletes_is_gone_until_its_agent_starts_anew() {
    let web = deployment("web", "replicas: 6, ", "image: 'web:1'");
    let steps = |more: &str| {
        format!(
            "  manifests: [{web}]\n  timeline:\n  - {{at: 1m, delete: node/node-0}}\n{more}  expect:\n  - ready: {{target: \
             deploy/web, replicas: 6}}\n  duration: 4m\n  settle: 4m\n"
        )
    };
    for seed in 0..6 {
        let gone = outcome_of(&read(&scenario(3, &steps(""))), seed);
        assert_well(&gone);
        assert_eq!(gone.series.last().map(|s| s.nodes_ready), Some(2), "seed {seed}");
        let back = steps("  - {at: 3m, restartAgent: {names: [node-0]}}\n");
        let back = outcome_of(&read(&scenario(3, &back)), seed);
        assert_well(&back);
        assert_eq!(back.series.last().map(|s| s.nodes_ready), Some(3), "seed {seed}");
        // Its power fails while it is being deleted, and it comes back with the same name.
        let reborn = steps("  - {at: 61s, kill: {names: [node-0]}}\n  - {at: 2m, start: {names: [node-0]}}\n");
        let reborn = outcome_of(&read(&scenario(3, &reborn)), seed);
        assert_well(&reborn);
        assert_eq!(reborn.series.last().map(|s| s.nodes_ready), Some(3), "seed {seed}");
    }
}

#[test]
fn sets_and_jobs_count() {
    let pods = |labels: &str, spec: &str| {
        format!(
            "template: {{metadata: {{labels: {{app: {labels}}}}}, spec: {{{spec}containers: [{{name: a, image: \
             'a:1'}}]}}}}"
        )
    };
    let workload = |kind: &str, name: &str, spec: &str, pod: &str| {
        format!(
            "{{apiVersion: apps/v1, kind: {kind}, metadata: {{name: {name}}}, spec: {{{spec}selector: {{matchLabels: {{app: \
             {name}}}}}, {}}}}}",
            pods(name, pod)
        )
    };
    let job = |name: &str, spec: &str| {
        let template = pods(name, "restartPolicy: Never, ");
        format!("{{apiVersion: batch/v1, kind: Job, metadata: {{name: {name}}}, spec: {{{spec}{template}}}}}")
    };
    let well = [
        workload("StatefulSet", "db", "replicas: 3, serviceName: db, ", ""),
        workload("DaemonSet", "log", "", ""),
        job("once", "completions: 3, "),
        job("later", "suspend: true, "),
    ];
    let o = go(&scenario(2, &format!("  manifests: [{}]\n  duration: 2m\n  settle: 2m\n", well.join(", "))));
    assert_well(&o);
    let ready: Vec<(&str, i32, i32)> = o.workloads.iter().map(|w| (&*w.name, w.ready, w.desired)).collect();
    assert_eq!(ready, [("db", 3, 3), ("log", 2, 2)]);
    let ill = [
        workload("StatefulSet", "huge", "replicas: 2, serviceName: db, ", "nodeSelector: {no: such}, "),
        job("fails", "backoffLimit: 0, ").replace("a:1", "bad:1"),
    ];
    let images = "  images: {bad: {exit: {after: 1s, code: 1}}}\n";
    let spec = format!("{images}  manifests: [{}]\n  duration: 1m\n  settle: 30s\n", ill.join(", "));
    let o = go(&scenario(2, &spec));
    assert_lacks(
        &o,
        "StatefulSet default/huge",
        &["2 wanted: 1 replicas, 0 ready", "didn't match Pod's node affinity"],
    );
    assert_lacks(&o, "Job default/fails", &["it has failed: BackoffLimitExceeded"]);
}

/// The expected result of a case.
enum Want {
    /// It is rejected with a message that contains all these words.
    Refused(&'static [&'static str]),
    /// It runs with a warning that contains all these words (empty: with no warning), and the function asserts the
    /// outcome.
    Runs(&'static [&'static str], fn(&Outcome)),
}

/// The cases by name; cases that only name an invariant must not violate it.
const CASES: &[(&str, Want)] = &[
    ("a01-hostnetwork-template", Want::Runs(&[], assert_well)),
    ("a02-sysadmin", Want::Runs(&[], assert_well)),
    ("a03-cluster-scoped-namespace", Want::Runs(&[], assert_well)),
    (
        "a04-ipv6-service",
        Want::Runs(&[], |o| {
            let why = ["spec.ipFamilies[0]: Invalid value: \"IPv6\": not configured on this cluster"];
            assert_lacks(o, "Service default/s6", &why);
        }),
    ),
    ("a05-template-without-spec", Want::Refused(&["spec.template.spec.containers: Required value"])),
    (
        "a07-kind-advice",
        Want::Refused(&[
            "\"Service\" in version \"serving.knative.dev/v1\"; custom resources are not supported yet",
            "document 2, line 9: spec.matchConstraints: Required value",
            "APIService v1beta1.metrics.k8s.io: kind: stored, but the group that it names is not served yet",
        ]),
    ),
    (
        "b00-pending-all",
        Want::Runs(&[], |o| {
            let met: Vec<bool> = o.expectations.iter().map(|e| e.met).collect();
            assert_eq!(met, [true, true, false, true], "{:?}", o.expectations);
        }),
    ),
    ("b00b-stale-reason", Want::Runs(&[], assert_well)),
    (
        "b03b-nodeport-conflict-manifest",
        Want::Runs(&[], |o| {
            let why = ["spec.ports[0].nodePort: Invalid value: 30053: provided port is already allocated"];
            assert_lacks(o, "Service default/b", &why);
        }),
    ),
    (
        "b06-drain-blocked-silent",
        Want::Runs(&[], |o| {
            let why = ["would violate the pod's disruption budget", "The disruption budget p needs 2 healthy pods"];
            assert_lacks(o, "drain node-0: evict Pod/default/d-", &why);
        }),
    ),
    ("b14-nodename-endless", Want::Runs(&[], |o| assert_lacks(o, "ReplicaSet default/r", &["2 ready"]))),
    (
        "b17c-overhead",
        Want::Runs(&[], |o| {
            let why = ["pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead"];
            assert_lacks(o, "Pod default/overhead", &why);
        }),
    ),
    ("b17d-podlevel-less", Want::Refused(&["must be greater than or equal to aggregate container requests of 200m"])),
    (
        "b17e-runtimeclass",
        Want::Runs(&[], |o| {
            assert_lacks(o, "Pod default/rc", &["pod rejected: RuntimeClass \"no-such\" not found"]);
        }),
    ),
    (
        "b17f-runtimeclass-overhead",
        Want::Runs(&[], |o| {
            assert_eq!(o.pending_total, 5);
            assert!(o.pending[0].why.contains("didn't match Pod's node affinity/selector"), "{:?}", o.pending);
        }),
    ),
    (
        "b18-podsecurity",
        Want::Runs(&[], |o| {
            assert_lacks(o, "Deployment strict/d", &["violates PodSecurity \"restricted:latest\"", "hostPID=true"]);
        }),
    ),
    (
        "b24-antiaffinity-silent",
        Want::Runs(&[], |o| {
            assert_eq!(o.pending_total, 5);
            // No node is looked at, so that none lacks the label of the other constraint.
            let why = "persistentvolumeclaim \"no-such-claim\" not found";
            assert!(o.pending[0].why.contains(why), "{:?}", o.pending);
        }),
    ),
    (
        "b24b-configmap-missing",
        Want::Runs(&[], |o| {
            assert_lacks(o, "Pod default/p", &["ContainerCreating", "secret \"missing\" not found"]);
        }),
    ),
    ("b29-drain-blocks-later-steps", Want::Runs(&[], assert_met)),
    ("b30a-named-some", Want::Runs(&[], assert_well)),
    ("b35-duplicate-pod-ips", Want::Runs(&[], assert_well)),
    ("b38-apply-keeps-replicas", Want::Runs(&[], assert_well)),
    ("b43-prestop-sleep", Want::Runs(&[], assert_well)),
    ("b49-cordoned-node", Want::Runs(&[], |o| assert_eq!(o.pending_total, 2, "{:?}", o.pending))),
    (
        "b50-restart-twice",
        Want::Runs(&[], |o| {
            assert_well(o);
            assert_eq!(o.rollouts.len(), 4, "{:?}", o.rollouts);
        }),
    ),
];

#[test]
fn shared_cases_come_out_right() {
    // Only where the data exists, because it may not be part of this repository.
    let Some(shared) = std::env::var_os("SKEG_SHARED") else { return };
    for (name, want) in CASES {
        let file = std::path::Path::new(&shared).join(format!("data/cases/{name}.yaml"));
        let duration = Some(std::time::Duration::from_secs(120));
        let is_scenario = std::fs::read_to_string(&file).is_ok_and(|text| text.contains("kind: Scenario"));
        let options = LoadOptions { settle: duration.filter(|_| !is_scenario), ..LoadOptions::default() };
        let loaded = load(&[file.to_string_lossy().into_owned()], &Disk, &options);
        match (want, loaded) {
            (Want::Refused(words), Err(problems)) => {
                let problems = problems.to_string();
                words.iter().for_each(|w| assert!(problems.contains(w), "{name}: {problems}\n  lacks {w}"));
            }
            (Want::Refused(_), Ok(_)) => panic!("{name} is not refused"),
            (Want::Runs(..), Err(problems)) => panic!("{name}: {problems}"),
            (Want::Runs(warned, check), Ok(mut loaded)) => {
                let warnings = loaded.warnings.join("\n");
                warned.iter().for_each(|w| assert!(warnings.contains(w), "{name}: {warnings}\n  lacks {w}"));
                assert_eq!(warned.is_empty(), loaded.warnings.is_empty(), "{name}: {warnings}");
                if !is_scenario {
                    // Plain manifests that never converge would run for an hour.
                    loaded.scenario.duration = std::time::Duration::from_secs(60);
                }
                if *name == "b14-nodename-endless" {
                    // Its pods fail and are replaced endlessly, which takes a debug build minutes to simulate.
                    loaded.scenario.duration = std::time::Duration::from_secs(15);
                    loaded.scenario.settle = std::time::Duration::from_secs(15);
                }
                check(&outcome_of(&loaded, 1));
            }
        }
    }
}

/// The scenarios of `tests/failed` are what was left of explored runs that failed. Each failed with several of these
/// seeds.
#[test]
fn what_failed_once_holds() {
    let scenarios = skeg_tests::files(&skeg_tests::root().join("tests/failed"), ".yaml");
    assert!(!scenarios.is_empty());
    for path in scenarios {
        let text = std::fs::read_to_string(&path).expect("it is there");
        let loaded = read(&text);
        for seed in 0..10 {
            assert_well(&outcome_of(&loaded, seed));
        }
    }
}
