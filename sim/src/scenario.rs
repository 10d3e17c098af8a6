//! What is simulated: the shape of the cluster, what is applied to it, what happens to it, what is expected.
//!
//! These are plain values. Reading them from files, with errors that name file, line and field, is `files`' job.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use skeg_core::Object;
use skeg_core::api::Patch;
use skeg_core::object::{ObjectKey, Selector};

use crate::fault::Fault;

/// A whole run, but for its seed.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// For reports.
    pub name: String,
    /// Shape of the cluster.
    pub cluster: Cluster,
    /// Behaviour of images; the longest matching prefix wins, then `ImageProfile::default`.
    pub images: BTreeMap<String, ImageProfile>,
    /// What happens when, in order of `at`.
    pub timeline: Vec<Step>,
    /// What must hold, beside the invariants.
    pub expectations: Vec<Expectation>,
    /// How heavily faults are drawn by seed.
    pub faults: FaultLevel,
    /// Virtual time with faults; then every fault is healed.
    pub duration: Duration,
    /// Virtual time after `duration` within which the cluster must have reached its declared state and kept it.
    pub settle: Duration,
    /// End as soon as everything has converged after the timeline's last step, rather than at `duration`.
    pub stop_when_converged: bool,
}

/// Shape of the cluster.
#[derive(Clone, Debug)]
pub struct Cluster {
    /// Groups of equal nodes.
    pub pools: Vec<NodePool>,
    /// Zones that nodes are spread over, round robin: `zone-a`, `zone-b`, …
    pub zones: usize,
    /// API servers over one store.
    pub api_servers: usize,
    /// Replicas of the controller manager and of the scheduler (one leads).
    pub control_replicas: usize,
    /// Whether each node has a service proxy (and the cluster DNS); off for pure capacity runs.
    pub proxies: bool,
    /// Latency of links, one way: from, to.
    pub latency: (Duration, Duration),
    /// Latency of a store's commit: from, to.
    pub store_latency: (Duration, Duration),
    /// Whether Event objects are recorded.
    pub record_events: bool,
}

/// A group of equal nodes.
#[derive(Clone, Debug)]
pub struct NodePool {
    /// Nodes are called `<name>-0`, `<name>-1`, …
    pub name: String,
    /// How many.
    pub count: usize,
    /// Names of the nodes, one each, where they are not to be numbered; otherwise empty.
    pub names: Vec<String>,
    /// Capacity by resource, as Kubernetes quantities: `cpu: "4"`, `memory: 32Gi`, `pods: "110"`, `nvidia.com/gpu: "1"`.
    pub capacity: BTreeMap<String, String>,
    /// Labels beside the well-known ones.
    pub labels: BTreeMap<String, String>,
    /// `key=value:Effect`.
    pub taints: Vec<String>,
    /// Zone of all nodes of the pool; otherwise they are spread.
    pub zone: Option<String>,
    /// The nodes register as unschedulable.
    pub cordoned: bool,
}

/// How containers of an image behave.
#[derive(Clone, Debug, PartialEq)]
pub struct ImageProfile {
    /// Size in bytes; with the pull bandwidth it gives the pull time.
    pub bytes: u64,
    /// From start to running: from, to.
    pub start: (Duration, Duration),
    /// From running until probes succeed (readiness and startup): from, to.
    pub ready: (Duration, Duration),
    /// Exits by itself after this long with this code.
    pub exit: Option<(Duration, i32)>,
    /// Crashes in one start of so many; zero: never.
    pub crash_one_in: u64,
    /// The pull fails always.
    pub pull_fails: bool,
    /// Readiness never succeeds.
    pub never_ready: bool,
    /// Time from SIGTERM to exit.
    pub stop: Duration,
    /// Time that a lifecycle hook takes which does not say so itself, as one that sleeps does.
    pub hook: Duration,
    /// CPU in thousandths of a core that it uses.
    pub cpu_milli: u64,
    /// Memory in bytes that it uses.
    pub memory_bytes: u64,
}

impl Default for ImageProfile {
    fn default() -> Self {
        ImageProfile {
            bytes: 100 << 20,
            start: (Duration::from_millis(200), Duration::from_millis(800)),
            ready: (Duration::from_millis(500), Duration::from_secs(2)),
            exit: None,
            crash_one_in: 0,
            pull_fails: false,
            never_ready: false,
            stop: Duration::from_millis(500),
            hook: Duration::ZERO,
            cpu_milli: 50,
            memory_bytes: 64 << 20,
        }
    }
}

/// Something that happens at a moment of virtual time.
#[derive(Clone, Debug)]
pub struct Step {
    /// When, since the start of the run.
    pub at: Duration,
    /// What.
    pub action: Action,
}

/// What a step does.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub enum Action {
    User(UserAction),
    Fault(Fault),
}

impl Action {
    /// In words.
    pub fn describe(&self) -> String {
        match self {
            Action::User(action) => action.describe(),
            Action::Fault(fault) => fault.describe(),
        }
    }
}

impl From<UserAction> for Action {
    fn from(action: UserAction) -> Action {
        Action::User(action)
    }
}

impl<F: Into<Fault>> From<F> for Action {
    fn from(fault: F) -> Action {
        Action::Fault(fault.into())
    }
}

/// What a user does at the API.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub enum UserAction {
    /// `kubectl apply`: creates objects, or brings those that exist to what is said here and leaves the rest of them.
    Apply(Vec<Object>),
    /// Objects of an export come into being as they were; those that exist are replaced.
    Create(Vec<Object>),
    Delete(ObjectKey),
    Scale {
        key: ObjectKey,
        replicas: i32,
    },
    SetImage {
        key: ObjectKey,
        container: String,
        image: String,
    },
    Patch {
        key: ObjectKey,
        patch: Patch,
    },
    /// `kubectl rollout undo`, to a revision or to the one before.
    Rollback {
        key: ObjectKey,
        to_revision: Option<i64>,
    },
    Pause {
        key: ObjectKey,
        paused: bool,
    },
    Restart {
        key: ObjectKey,
    },
    /// The classic `kubectl rolling-update OLD -f NEW`: a new ReplicationController grows while the old one shrinks.
    RollingUpdate {
        old: ObjectKey,
        new: Box<Object>,
        interval: Duration,
        rollback_after: Option<Duration>,
    },
    Cordon {
        nodes: NodeSet,
        cordoned: bool,
    },
    Drain {
        nodes: NodeSet,
    },
}

/// Which nodes an action is about.
#[derive(Clone, Debug, PartialEq)]
pub enum NodeSet {
    /// Every node.
    All,
    /// By name.
    Names(Vec<String>),
    /// All of a zone.
    Zone(String),
    /// By labels.
    Labels(Selector),
    /// So many, drawn by the seed.
    Random(usize),
    /// The machines of the control plane (store, API servers, controllers, scheduler).
    ControlPlane,
}

impl fmt::Display for NodeSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NodeSet::All => f.write_str("all nodes"),
            NodeSet::Names(names) => f.write_str(&names.join(", ")),
            NodeSet::Zone(zone) => f.write_str(zone),
            NodeSet::Labels(selector) => write!(f, "nodes with {selector}"),
            NodeSet::Random(n) => write!(f, "{n} random node(s)"),
            NodeSet::ControlPlane => f.write_str("the control plane"),
        }
    }
}

/// How heavily faults are drawn by seed during `duration`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultLevel {
    /// None.
    None,
    /// A few mishaps: a node now and then, slow pulls, dropped connections.
    Light,
    /// Everything, all the time.
    Heavy,
}

/// What must hold, beside the invariants.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)]
pub enum Expectation {
    /// At the end of the run so many replicas of a workload are ready; with `by`, they first were no later than that.
    Ready { key: ObjectKey, replicas: i32, by: Option<Duration> },
    /// Ready replicas of these workloads together never fall below this from the moment they first reached it.
    NeverBelow { keys: Vec<ObjectKey>, replicas: i32 },
    /// A rollout is complete by then.
    RolledOut { key: ObjectKey, by: Duration },
    /// The workload runs this image at the end.
    Image { key: ObjectKey, image: String },
    /// So many pods are pending at the end.
    Pending { namespace: String, count: usize },
}
