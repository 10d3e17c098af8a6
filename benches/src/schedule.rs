//! How fast the scheduler machine decides, alone: no API, no election, no objects in its inner loop. Shapes as in
//! Kubernetes' scheduler_perf: nodes of 4 CPUs, 32Gi and 110 pods, pods of 100m and 500Mi; every node is looked at.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use skeg_core::object::{Kind, Labels, Pod, Selector};
use skeg_core::scheduler::preemption::Nomination;
use skeg_core::scheduler::profile::Profile;
use skeg_core::scheduler::{Decision, Scheduler};
use skeg_core::{Now, Rng};

use crate::Figure;
use crate::objects::{Template, node};

const NODES: usize = 5_000;
const ZONE: &str = "topology.kubernetes.io/zone";
const HOSTNAME: &str = "kubernetes.io/hostname";

/// Every figure of the scheduler.
pub fn all() -> Vec<Figure> {
    vec![
        basic(),
        deployment(),
        topology_spreading(),
        pod_anti_affinity(),
        pod_affinity(),
        preferred_affinity(),
        node_affinity(),
        mixed(),
        unschedulable(),
        preemption(),
        all_different(),
    ]
}

/// A scheduler of 5,000 nodes.
struct Bench {
    scheduler: Scheduler,
    now: Now,
    /// How many pods have been made.
    pods: usize,
    /// Victims of preemptions, to be deleted.
    victims: Vec<skeg_core::ObjectKey>,
}

impl Bench {
    fn new() -> Bench {
        let mut scheduler = Scheduler::new(&[Profile::default()], Rng::from_seed(1));
        let now = Now::default();
        (0..NODES).for_each(|i| scheduler.node_changed(now, &node(i)));
        Bench { scheduler, now, pods: 0, victims: Vec::new() }
    }

    /// So many pods, each from the next template in turn.
    fn make(&mut self, templates: &[Template], pods: usize) -> Vec<Pod> {
        let first = self.pods;
        self.pods += pods;
        let each = |(i, template): (usize, &Template)| template.pod(first + i, (first + i) as u64 + 1);
        templates.iter().cycle().take(pods).enumerate().map(each).collect()
    }

    /// Lets pods come in and decides about all; how many were bound, and how long it took.
    fn schedule(&mut self, pods: &[Pod]) -> (usize, Duration) {
        let started = Instant::now();
        for pod in pods {
            self.scheduler.pod_changed(self.now, pod);
        }
        let mut bound = 0;
        while let Some(decision) = self.scheduler.next(self.now) {
            match decision {
                Decision::Bind { .. } => bound += 1,
                Decision::Unschedulable { nomination: Nomination::Preempts(p), .. } => {
                    self.victims.extend(p.victims.into_iter().map(|(key, _)| key));
                }
                Decision::Unschedulable { .. } => {}
                Decision::Gang(_)
                | Decision::AskNodes { .. }
                | Decision::AskVictims { .. }
                | Decision::Failed { .. } => {
                    unreachable!("it has no extenders, and knows of no gangs")
                }
            }
        }
        (bound, started.elapsed())
    }

    /// Pods a second, after some were placed before.
    fn measure(mut self, name: &'static str, before: (&[Template], usize), measured: (&[Template], usize)) -> Figure {
        let pods = self.make(before.0, before.1);
        let (bound, _) = self.schedule(&pods);
        assert_eq!(bound, before.1, "{name}: every pod that is placed before finds a node");
        let pods = self.make(measured.0, measured.1);
        let (bound, took) = self.schedule(&pods);
        assert_eq!(bound, measured.1, "{name}: every pod finds a node");
        figure(name, measured.1, took)
    }
}

fn figure(name: &'static str, pods: usize, took: Duration) -> Figure {
    Figure { name, value: pods as f64 / took.as_secs_f64(), unit: "pods/s" }
}

fn basic() -> Figure {
    let plain = [Template::new()];
    Bench::new().measure("schedule/basic-5000", (&plain, 5_000), (&plain, 50_000))
}

/// Pods of ReplicaSets under a Service: default spreading.
fn deployment() -> Figure {
    let mut bench = Bench::new();
    let labels = Labels::from([("app".to_owned(), "bench".to_owned())]);
    bench.scheduler.service_changed(bench.now, "bench", "service", Some(&labels));
    let selector = Some(Selector::from_map(&labels));
    bench.scheduler.controller_changed(bench.now, Kind::REPLICA_SET, "bench", "set", selector);
    let owned = [Template::new().owned_by("set")];
    bench.measure("schedule/deployment-5000", (&owned, 5_000), (&owned, 50_000))
}

fn topology_spreading() -> Figure {
    let spread = json!({"topologySpreadConstraints": [{"maxSkew": 5, "topologyKey": ZONE,
        "whenUnsatisfiable": "DoNotSchedule", "labelSelector": {"matchLabels": {"color": "blue"}}}]});
    let (plain, spread) = ([Template::new()], [Template::with(spread).labelled("color", "blue")]);
    Bench::new().measure("schedule/topology-spreading", (&plain, 5_000), (&spread, 5_000))
}

fn term(key: &str, color: &str) -> Value {
    json!({"topologyKey": key, "labelSelector": {"matchLabels": {"color": color}}, "namespaces": ["bench", "other"]})
}

fn required(kind: &str, key: &str, color: &str) -> Template {
    let terms = json!({"requiredDuringSchedulingIgnoredDuringExecution": [term(key, color)]});
    Template::with(json!({"affinity": {kind: terms}})).labelled("color", color)
}

fn preferred(kind: &str, key: &str, color: &str) -> Template {
    let terms = json!([{"weight": 1, "podAffinityTerm": term(key, color)}]);
    let terms = json!({"preferredDuringSchedulingIgnoredDuringExecution": terms});
    Template::with(json!({"affinity": {kind: terms}})).labelled("color", color)
}

fn pod_anti_affinity() -> Figure {
    let before = [required("podAntiAffinity", HOSTNAME, "green").in_namespace("other")];
    let measured = [required("podAntiAffinity", HOSTNAME, "green")];
    Bench::new().measure("schedule/pod-anti-affinity", (&before, 1_000), (&measured, 2_000))
}

fn pod_affinity() -> Figure {
    let near = [required("podAffinity", ZONE, "blue")];
    Bench::new().measure("schedule/pod-affinity", (&near, 5_000), (&near, 5_000))
}

fn preferred_affinity() -> Figure {
    let both = [preferred("podAffinity", HOSTNAME, "red"), preferred("podAntiAffinity", HOSTNAME, "yellow")];
    Bench::new().measure("schedule/preferred-affinity", (&both, 5_000), (&both, 5_000))
}

fn node_affinity() -> Figure {
    let zones = json!([{"matchExpressions": [{"key": ZONE, "operator": "In", "values": ["zone-a", "zone-b"]}]}]);
    let required = json!({"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": zones}});
    let choosy = [Template::with(json!({"affinity": {"nodeAffinity": required}}))];
    Bench::new().measure("schedule/node-affinity", (&choosy, 5_000), (&choosy, 10_000))
}

fn mixed() -> Figure {
    let before = [
        Template::new(),
        required("podAffinity", ZONE, "blue"),
        required("podAntiAffinity", HOSTNAME, "green"),
        preferred("podAffinity", HOSTNAME, "red"),
        preferred("podAntiAffinity", HOSTNAME, "yellow"),
    ];
    Bench::new().measure("schedule/mixed", (&before, 10_000), (&[Template::new()], 5_000))
}

fn requesting(cpu: &str, priority: i32) -> Template {
    let requests = json!({"cpu": cpu, "memory": "500Mi"});
    let container = json!([{"name": "main", "resources": {"requests": requests}}]);
    Template::with(json!({"containers": container, "priority": priority}))
}

/// Pods that fit nowhere wait while others come.
fn unschedulable() -> Figure {
    let mut bench = Bench::new();
    let large = bench.make(&[requesting("9", 0)], 20_000);
    let (bound, _) = bench.schedule(&large);
    assert_eq!(bound, 0, "no node has 9 CPUs");
    bench.measure("schedule/unschedulable", (&[], 0), (&[Template::new()], 10_000))
}

/// Pods that evict others. The victims are gone at once; from the first preemptor that comes in to the last that is
/// bound.
fn preemption() -> Figure {
    let mut bench = Bench::new();
    let low = bench.make(&[requesting("900m", 0)], 20_000);
    let (bound, _) = bench.schedule(&low);
    assert_eq!(bound, 20_000, "four on each node");
    let mut waiting: VecDeque<Vec<Pod>> =
        bench.make(&[requesting("3", 10)], 5_000).chunks(50).map(<[_]>::to_vec).collect();
    let (mut placed, mut took) = (0, Duration::ZERO);
    while placed < 5_000 {
        let pods = waiting.pop_front().unwrap_or_default();
        let (bound, spent) = bench.schedule(&pods);
        let started = Instant::now();
        for victim in std::mem::take(&mut bench.victims) {
            bench.scheduler.pod_removed(bench.now, &victim);
        }
        bench.now.mono = bench.now.mono + Duration::from_secs(1);
        bench.scheduler.handle_timeout(bench.now);
        placed += bound;
        took += spent + started.elapsed();
    }
    figure("schedule/preemption", 5_000, took)
}

/// Every pod asks for something else.
fn all_different() -> Figure {
    let mut rng = Rng::from_seed(2);
    let mut different = || {
        let (cpu, memory) = (50 + rng.below(200), 100 + rng.below(900));
        let requests = json!({"cpu": format!("{cpu}m"), "memory": format!("{memory}Mi")});
        Template::with(json!({"containers": [{"name": "main", "resources": {"requests": requests}}]}))
    };
    let templates: Vec<Template> = (0..10_000).map(|_| different()).collect();
    Bench::new().measure("schedule/all-different", (&[], 0), (&templates, 10_000))
}
