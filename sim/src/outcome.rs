//! The outcome of a run, from which reports, `--output json` and exit codes are made.

use std::collections::BTreeMap;

use serde::Serialize;

/// The result of one run.
#[derive(Clone, Debug, Serialize, Default)]
pub struct Outcome {
    /// Name of the scenario.
    pub name: String,
    /// Seed of the run.
    pub seed: u64,
    /// Nodes of the cluster.
    pub nodes: usize,
    /// Virtual time that passed.
    pub simulated_seconds: f64,
    /// Real time that passed; with `peak_rss_bytes` the only figure that differs between identical runs. Set by the
    /// driver.
    pub wall_seconds: f64,
    /// How many events of the world's queue were carried out.
    pub events: u64,
    /// Hash of all events, in hexadecimal.
    pub event_hash: String,
    /// Parts of the input that Skeg does not carry out, and so were not rehearsed. Set by the driver.
    pub warnings: Vec<String>,
    /// Whether the declared state was reached and kept.
    pub converged: bool,
    /// The first objects that did not converge, and why.
    pub not_converged: Vec<NotConverged>,
    /// How many objects did not converge.
    pub not_converged_total: usize,
    /// Every invariant, with the result of its checks.
    pub invariants: Vec<InvariantResult>,
    /// Expectations of the scenario.
    pub expectations: Vec<ExpectationResult>,
    /// Deployments, ReplicaSets without owner, ReplicationControllers, …
    pub workloads: Vec<Workload>,
    /// Pods by phase at the end.
    pub pods: BTreeMap<String, usize>,
    /// The first pods without a node, and why.
    pub pending: Vec<PendingPod>,
    /// How many pods have no node.
    pub pending_total: usize,
    /// The rollouts during the run.
    pub rollouts: Vec<Rollout>,
    /// How long pods took from their creation until they were ready for the first time.
    pub pod_starts: PodStarts,
    /// The injected faults, in order.
    pub faults: Vec<Happening>,
    /// Steps that waited for a moment that did not come, and when they were given up.
    pub in_vain: Vec<Happening>,
    /// The actions of users, in order.
    pub actions: Vec<Happening>,
    /// Kubernetes Events by reason.
    pub event_reasons: BTreeMap<String, u64>,
    /// Messages and writes by kind, for performance tuning.
    pub counters: BTreeMap<String, u64>,
    /// Utilisation at the end: requested share of allocatable, by resource.
    pub utilisation: BTreeMap<String, f64>,
    /// Samples over virtual time, for plots.
    pub series: Vec<Sample>,
    /// Peak resident memory of the process. Set by the driver.
    pub peak_rss_bytes: u64,
}

/// An object that has not reached its declared state.
#[derive(Clone, Debug, Serialize, Default, PartialEq)]
pub struct NotConverged {
    /// `Deployment default/web`.
    pub what: String,
    /// Why.
    pub why: String,
}

/// An invariant and its violations.
#[derive(Clone, Debug, Serialize, Default, PartialEq)]
pub struct InvariantResult {
    /// Its name.
    pub name: String,
    /// Whether it was broken.
    pub broken: bool,
    /// The first violations: when and how.
    pub details: Vec<Happening>,
}

/// An expectation and whether it was met.
#[derive(Clone, Debug, Serialize, Default, PartialEq)]
pub struct ExpectationResult {
    /// The expectation in words.
    pub what: String,
    /// Whether it was met.
    pub met: bool,
    /// What was observed.
    pub seen: String,
}

/// A workload at the end of the run.
#[derive(Clone, Debug, Serialize, Default, PartialEq)]
#[allow(missing_docs)]
pub struct Workload {
    pub kind: String,
    pub namespace: String,
    pub name: String,
    pub desired: i32,
    pub ready: i32,
}

/// A pod without a node at the end of the run.
#[derive(Clone, Debug, Serialize, Default, PartialEq)]
pub struct PendingPod {
    /// Namespace and name.
    pub pod: String,
    /// The scheduler's message.
    pub why: String,
}

/// A rollout of a workload.
#[derive(Clone, Debug, Serialize, Default, PartialEq)]
pub struct Rollout {
    /// `Deployment default/web`.
    pub workload: String,
    /// When its template changed, in virtual seconds.
    pub started: f64,
    /// When it was complete; `None` if it was not.
    pub finished: Option<f64>,
    /// Fewest available replicas during the rollout.
    pub lowest_available: i32,
    /// Desired replicas.
    pub desired: i32,
}

/// Times from the creation of pods until they were ready for the first time, in seconds.
#[derive(Clone, Debug, Serialize, Default, PartialEq)]
pub struct PodStarts {
    /// Of how many pods.
    pub count: usize,
    /// Half of them took no longer.
    pub p50: f64,
    /// Nine of ten did.
    pub p90: f64,
    /// Ninety-nine of a hundred did.
    pub p99: f64,
}

impl PodStarts {
    /// Of these times.
    pub fn of(mut seconds: Vec<f64>) -> PodStarts {
        seconds.sort_by(f64::total_cmp);
        let at = |percent: usize| {
            let rank = (seconds.len() * percent).div_ceil(100).max(1) - 1;
            seconds.get(rank).map_or(0.0, |time| (time * 1000.0).round() / 1000.0)
        };
        PodStarts { count: seconds.len(), p50: at(50), p90: at(90), p99: at(99) }
    }
}

/// Something that happened at a virtual time.
#[derive(Clone, Debug, Serialize, Default, PartialEq)]
pub struct Happening {
    /// Virtual seconds.
    pub at: f64,
    /// What happened.
    pub what: String,
}

/// State of the cluster at a virtual time.
#[derive(Clone, Debug, Serialize, Default, PartialEq)]
pub struct Sample {
    /// Virtual seconds.
    pub at: f64,
    /// Pods by phase; `Ready` counts pods that are ready.
    pub pods: BTreeMap<String, usize>,
    /// Nodes whose Ready condition is true.
    pub nodes_ready: usize,
    /// Requested share of allocatable, by resource.
    pub utilisation: BTreeMap<String, f64>,
}
