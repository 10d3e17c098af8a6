//! What came of a run: what reports, `--output json` and exit codes are made from.

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
    /// Virtual time passed.
    pub simulated_seconds: f64,
    /// Real time passed; the only figure (with `peak_rss_bytes`) that differs between equal runs. Set by the driver.
    pub wall_seconds: f64,
    /// Events of the world's queue that were carried out.
    pub events: u64,
    /// Hash over all of them, in hexadecimal.
    pub event_hash: String,
    /// What of the input is not carried out, and so was not rehearsed. Set by the driver.
    pub warnings: Vec<String>,
    /// Whether the declared state was reached and kept.
    pub converged: bool,
    /// What was not, and why: the first of it.
    pub not_converged: Vec<NotConverged>,
    /// How much was not, in all.
    pub not_converged_total: usize,
    /// Every invariant that was checked.
    pub invariants: Vec<InvariantResult>,
    /// Expectations of the scenario.
    pub expectations: Vec<ExpectationResult>,
    /// Deployments, ReplicaSets without owner, ReplicationControllers, …
    pub workloads: Vec<Workload>,
    /// Pods by phase at the end.
    pub pods: BTreeMap<String, usize>,
    /// Pods that wait for a node, and why: the first of them.
    pub pending: Vec<PendingPod>,
    /// How many pods wait for a node, in all.
    pub pending_total: usize,
    /// Rollouts that happened.
    pub rollouts: Vec<Rollout>,
    /// Faults that were injected, in order.
    pub faults: Vec<Happening>,
    /// What users did, in order.
    pub actions: Vec<Happening>,
    /// Kubernetes Events by reason.
    pub event_reasons: BTreeMap<String, u64>,
    /// Messages and writes by kind, for those who tune.
    pub counters: BTreeMap<String, u64>,
    /// Utilisation at the end: share of allocatable that is requested, by resource.
    pub utilisation: BTreeMap<String, f64>,
    /// Samples over virtual time, for plots.
    pub series: Vec<Sample>,
    /// Peak resident memory of the process. Set by the driver.
    pub peak_rss_bytes: u64,
}

/// Something that has not reached its declared state.
#[derive(Clone, Debug, Serialize, Default, PartialEq)]
pub struct NotConverged {
    /// `Deployment default/web`.
    pub what: String,
    /// Why.
    pub why: String,
}

/// An invariant and how often it was broken.
#[derive(Clone, Debug, Serialize, Default, PartialEq)]
pub struct InvariantResult {
    /// Its name.
    pub name: String,
    /// Whether it was broken.
    pub broken: bool,
    /// The first times it was broken: when, and how.
    pub details: Vec<Happening>,
}

/// An expectation and whether it held.
#[derive(Clone, Debug, Serialize, Default, PartialEq)]
pub struct ExpectationResult {
    /// In words.
    pub what: String,
    /// Whether it held.
    pub met: bool,
    /// What was seen.
    pub seen: String,
}

/// A workload at the end.
#[derive(Clone, Debug, Serialize, Default, PartialEq)]
#[allow(missing_docs)]
pub struct Workload {
    pub kind: String,
    pub namespace: String,
    pub name: String,
    pub desired: i32,
    pub ready: i32,
}

/// A pod without a node at the end.
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
    /// When it was complete.
    pub finished: Option<f64>,
    /// Fewest available replicas meanwhile.
    pub lowest_available: i32,
    /// Replicas wanted.
    pub desired: i32,
}

/// Something that happened at a moment.
#[derive(Clone, Debug, Serialize, Default, PartialEq)]
pub struct Happening {
    /// Virtual seconds.
    pub at: f64,
    /// What.
    pub what: String,
}

/// State of the cluster at a moment.
#[derive(Clone, Debug, Serialize, Default, PartialEq)]
pub struct Sample {
    /// Virtual seconds.
    pub at: f64,
    /// Pods by phase; `Ready` counts pods that are ready.
    pub pods: BTreeMap<String, usize>,
    /// Nodes whose Ready condition is true.
    pub nodes_ready: usize,
    /// Share of allocatable that is requested, by resource.
    pub utilisation: BTreeMap<String, f64>,
}
