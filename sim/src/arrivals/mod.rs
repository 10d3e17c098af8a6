//! Plays the arrival of a trace's pods through the scheduler machine, and measures how much of the GPUs they get.
//!
//! What comes in: a [`Trace`], a policy, how much arrives, and a seed. What goes out: an [`Outcome`], plain values.
//! Nodes and pods are those of the API, and the machine is the one of every cluster, with a profile that shares GPUs;
//! there is no API server around it, and pods that fit nowhere are withdrawn.
//!
//! Arrivals are as in Weng et al., ATC'23: all pods of the trace in an order drawn by the seed, then pods drawn among
//! them, until what arrived asks for that share of the cluster's GPUs; or, where the trace has more, without some of
//! its pods, which are drawn too. Nodes come in an order drawn by the seed: policies take the first of equally good
//! ones.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::rc::Rc;

use serde::Serialize;
use serde_json::json;
use skeg_core::object::{BoundPodSpec, Node, Obj, ObjectMeta, Pod, Revision, SharedPodSpec};
use skeg_core::scheduler::gpu::{Ask, GPU_INDEX, GPU_MILLI, GPU_MODEL, GpuShare, Policy, Target, WHOLE};
use skeg_core::scheduler::profile::{Plugin, Plugins, Profile, Weights};
use skeg_core::scheduler::{Decision, Scheduler};
use skeg_core::{Now, Object, Rng};

/// The share of the trace's pods, in percent, whose kinds are the workload that FGD measures fragmentation by.
const TYPICAL: usize = 95;

/// A node of a trace.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TraceNode {
    /// Its name.
    pub name: String,
    /// Thousandths of a CPU.
    pub cpu: i64,
    /// MiB.
    pub memory: i64,
    /// GPUs.
    pub gpus: i64,
    /// Their model; empty where there is none.
    pub model: String,
}

/// What pods of a trace ask for.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct TracePod {
    /// Thousandths of a CPU.
    pub cpu: i64,
    /// MiB.
    pub memory: i64,
    /// Thousandths of a GPU: less than 1000 is a share of one.
    pub gpu: i64,
    /// The models that they take; none for any.
    pub models: Vec<String>,
}

/// A cluster, and the pods that ran on it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Trace {
    /// The nodes.
    pub nodes: Vec<TraceNode>,
    /// The pods, in the order of the trace.
    pub pods: Vec<TracePod>,
}

/// What came of one run.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Outcome {
    /// The policy's name.
    pub policy: &'static str,
    /// The seed.
    pub seed: u64,
    /// How many pods arrived.
    pub arrived: usize,
    /// How many of them found a node.
    pub bound: usize,
    /// By what had arrived in whole percent of the cluster's GPUs, how much of these was not allocated, in percent: the
    /// mean over the arrivals that round to it. A percentage that no arrival rounds to has the value before it.
    pub unallocated: Vec<f64>,
}

/// Runs of several policies and seeds.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Study {
    /// How many nodes there are.
    pub nodes: usize,
    /// How many GPUs they have.
    pub gpus: i64,
    /// How many pods the trace has.
    pub pods: usize,
    /// Until how many percent of the GPUs pods arrive.
    pub percent: u32,
    /// What came of it, by policy.
    pub policies: Vec<Summary>,
    /// What came of each run: policies as they were given, seeds in order.
    pub runs: Vec<Outcome>,
}

/// What came of all seeds of a policy.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Summary {
    /// The policy's name.
    pub policy: &'static str,
    /// What was not allocated when all GPUs were asked for, in percent: the mean of all seeds.
    pub at_100: f64,
    /// The same at the end.
    pub at_end: f64,
    /// The least of all seeds at the end.
    pub least: f64,
    /// The most of all seeds at the end.
    pub most: f64,
    /// The mean of all seeds, by what had arrived in percent.
    pub unallocated: Vec<f64>,
}

impl Study {
    /// Sums runs up.
    pub fn new(trace: &Trace, percent: u32, runs: Vec<Outcome>) -> Study {
        let mut policies: Vec<Summary> = Vec::new();
        for run in &runs {
            if policies.iter().all(|known| known.policy != run.policy) {
                policies.push(Summary::new(run.policy, &runs, percent as usize));
            }
        }
        Study { nodes: trace.nodes.len(), gpus: trace.gpus(), pods: trace.pods.len(), percent, policies, runs }
    }
}

impl Summary {
    fn new(policy: &'static str, runs: &[Outcome], percent: usize) -> Summary {
        let of = || runs.iter().filter(|run| run.policy == policy);
        let mean = |percent: usize| of().map(|run| run.at(percent)).sum::<f64>() / of().count() as f64;
        let end = || of().map(|run| run.at(percent));
        Summary {
            policy,
            at_100: mean(percent.min(100)),
            at_end: mean(percent),
            least: end().fold(f64::MAX, f64::min),
            most: end().fold(0.0, f64::max),
            unallocated: (0..=percent).map(mean).collect(),
        }
    }
}

impl Outcome {
    /// What was not allocated when so many percent had arrived, or at the end.
    pub fn at(&self, percent: usize) -> f64 {
        self.unallocated.get(percent).or(self.unallocated.last()).copied().unwrap_or(100.0)
    }
}

impl Trace {
    /// The GPUs of all nodes.
    pub fn gpus(&self) -> i64 {
        self.nodes.iter().map(|n| n.gpus).sum()
    }

    /// The most usual kinds of pods, as the workload that fragmentation is measured by.
    pub fn workload(&self) -> Vec<Target> {
        let mut kinds: BTreeMap<(i64, i64, &Vec<String>), usize> = BTreeMap::new();
        for pod in &self.pods {
            *kinds.entry((pod.cpu, pod.gpu, &pod.models)).or_insert(0) += 1;
        }
        let mut kinds: Vec<_> = kinds.into_iter().map(|(kind, pods)| (pods, kind)).collect();
        kinds.sort_unstable_by(|a, b| b.cmp(a));
        let mut seen = 0;
        let is_typical = |(pods, _): &(usize, _)| {
            let more = seen * 100 < self.pods.len() * TYPICAL;
            seen += pods;
            more
        };
        let typical = kinds.into_iter().take_while(is_typical);
        let target = |(pods, (cpu, gpu, models)): (usize, (i64, i64, &Vec<String>))| Target {
            cpu,
            gpu: Ask::of(gpu),
            models: models.clone(),
            pods: pods as i64,
        };
        typical.map(target).collect()
    }

    /// The pods that arrive, by their index in the trace, until they ask for so many percent of the GPUs.
    pub fn arrivals(&self, percent: u32, rng: &mut Rng) -> Vec<usize> {
        let most = self.gpus() * WHOLE * i64::from(percent) / 100;
        let mut order: Vec<usize> = (0..self.pods.len()).collect();
        shuffle(&mut order, rng);
        let mut asked: i64 = self.pods.iter().map(|p| p.gpu).sum();
        if asked <= 0 {
            return order;
        }
        while asked > most {
            asked -= self.pods[order.remove(rng.below(order.len() as u64) as usize)].gpu;
        }
        loop {
            let drawn = rng.below(self.pods.len() as u64) as usize;
            asked += self.pods[drawn].gpu;
            if asked > most {
                return order;
            }
            order.push(drawn);
        }
    }
}

fn shuffle<T>(all: &mut [T], rng: &mut Rng) {
    for i in (1..all.len()).rev() {
        all.swap(i, rng.below(i as u64 + 1) as usize);
    }
}

/// The profile that schedules the pods: the default one's filters and GPUShare, which alone scores.
pub fn profile(trace: &Trace, policy: Policy) -> Profile {
    let mut weights = Weights::default();
    Plugin::ALL.into_iter().for_each(|plugin| weights.set(plugin, i64::from(plugin == Plugin::GPUShare)));
    let most = |of: fn(&TraceNode) -> i64| trace.nodes.iter().map(of).max().unwrap_or(0).max(1);
    let largest = (most(|n| n.cpu), most(|n| n.gpus * WHOLE));
    let filters: Plugins = Plugin::ALL.into_iter().filter(|plugin| plugin.is_filter()).collect();
    let gpu_share = GpuShare { policy, largest, workload: trace.workload() };
    Profile { filters, weights, gpu_share, ..Profile::default() }
}

fn node(of: &TraceNode, rv: usize) -> Node {
    let resources = json!({"cpu": format!("{}m", of.cpu), "memory": format!("{}Mi", of.memory), "pods": "1000",
        GPU_MILLI: (of.gpus * WHOLE).to_string()});
    let mut labels = json!({"kubernetes.io/hostname": of.name});
    if !of.model.is_empty() {
        labels[GPU_MODEL] = json!(of.model);
    }
    let node = json!({"apiVersion": "v1", "kind": "Node", "status": {"capacity": resources, "allocatable": resources},
        "metadata": {"name": of.name, "uid": format!("node-{rv}"), "labels": labels}});
    match Object::from_json(node) {
        Ok(Object::Node(node)) => node,
        other => panic!("a node is a node: {other:?}"),
    }
}

/// The spec that pods with the same requests share.
fn spec(of: &TracePod) -> SharedPodSpec {
    let mut resources = json!({"requests": {"cpu": format!("{}m", of.cpu), "memory": format!("{}Mi", of.memory)}});
    if of.gpu > 0 {
        resources["requests"][GPU_MILLI] = json!(of.gpu.to_string());
        resources["limits"] = json!({GPU_MILLI: of.gpu.to_string()});
    }
    let mut spec = json!({"schedulerName": "default-scheduler",
        "containers": [{"name": "main", "image": "registry.k8s.io/pause:3.9", "resources": resources}]});
    if !of.models.is_empty() {
        let model = json!({"key": GPU_MODEL, "operator": "In", "values": of.models});
        let terms = json!({"nodeSelectorTerms": [{"matchExpressions": [model]}]});
        spec["affinity"] = json!({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": terms}});
    }
    let spec: k8s_openapi::api::core::v1::PodSpec = serde_json::from_value(spec).expect("a pod spec is a pod spec");
    spec.into()
}

fn pod(spec: &SharedPodSpec, i: usize) -> Pod {
    let meta = ObjectMeta {
        name: Some(format!("pod-{i}")),
        namespace: Some("default".to_owned()),
        uid: Some(format!("pod-{i}")),
        ..ObjectMeta::default()
    };
    let mut pod = Obj::new(meta, BoundPodSpec { shared: spec.clone(), node: None }, Default::default());
    pod.rv = Revision(i as u64 + 1);
    pod
}

/// Lets the pods arrive, one by one, until they ask for so many percent of the cluster's GPUs.
pub fn play(trace: &Trace, policy: Policy, percent: u32, seed: u64) -> Outcome {
    let mut scheduler = Scheduler::new(&[profile(trace, policy)], Rng::stream(seed, "scheduler", 0));
    let now = Now::default();
    let mut nodes: Vec<&TraceNode> = trace.nodes.iter().collect();
    shuffle(&mut nodes, &mut Rng::stream(seed, "nodes", 0));
    nodes.into_iter().zip(1..).for_each(|(of, rv)| scheduler.node_changed(now, &node(of, rv)));
    let kinds: BTreeMap<&TracePod, SharedPodSpec> = trace.pods.iter().map(|p| (p, spec(p))).collect();
    let arrivals = trace.arrivals(percent, &mut Rng::stream(seed, "arrivals", 0));
    let mut curve = Curve::new(trace.gpus() * WHOLE, percent);
    let mut bound = 0;
    for (i, of) in arrivals.iter().map(|at| &trace.pods[*at]).enumerate() {
        let pod = pod(&kinds[of], i);
        scheduler.pod_changed(now, &pod);
        let mut allocated = 0;
        while let Some(decision) = scheduler.next(now) {
            match decision {
                Decision::Bind { node, devices, .. } => {
                    bound += 1;
                    allocated = of.gpu;
                    let mut placed = pod.clone();
                    placed.spec_mut().node = Some(Rc::clone(&node));
                    let index = (GPU_INDEX.to_owned(), devices.to_string());
                    placed.meta_mut().annotations = (!devices.is_empty()).then(|| [index].into());
                    scheduler.pod_changed(now, &placed);
                }
                Decision::Unschedulable { pod, .. } => scheduler.pod_removed(now, &pod),
                Decision::Gang(_)
                | Decision::AskNodes { .. }
                | Decision::AskVictims { .. }
                | Decision::Failed { .. } => {
                    unreachable!("it has no extenders, and knows of no gangs")
                }
            }
        }
        curve.arrived(of.gpu, allocated);
    }
    Outcome { policy: policy.name(), seed, arrived: arrivals.len(), bound, unallocated: curve.end() }
}

/// What of the GPUs is allocated, as pods arrive.
struct Curve {
    capacity: i64,
    arrived: i64,
    allocated: i64,
    /// By whole percent: the sum of what was allocated, and at how many arrivals.
    sums: Vec<(i64, i64)>,
}

impl Curve {
    fn new(capacity: i64, percent: u32) -> Curve {
        Curve { capacity, arrived: 0, allocated: 0, sums: vec![(0, 0); percent as usize + 1] }
    }

    fn arrived(&mut self, asked: i64, allocated: i64) {
        self.arrived += asked;
        self.allocated += allocated;
        let percent = (self.arrived * 100 + self.capacity / 2) / self.capacity.max(1);
        let last = self.sums.len() - 1;
        let (sum, arrivals) = &mut self.sums[(percent as usize).min(last)];
        *sum += self.allocated;
        *arrivals += 1;
    }

    fn end(self) -> Vec<f64> {
        let mut before = 100.0;
        let share = |(sum, arrivals): (i64, i64)| {
            if arrivals > 0 {
                before = 100.0 * (1.0 - sum as f64 / (arrivals * self.capacity) as f64);
            }
            before
        };
        self.sums.into_iter().map(share).collect()
    }
}
