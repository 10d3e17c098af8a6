//! Scenarios: the shape of the cluster, what is applied to it, what happens to it, what is expected.
//!
//! These are plain values. The `files` module reads them from files and reports errors with file, line and field.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use k8s_openapi::api::core::v1::{PodSpec, Taint};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use skeg_core::api::{Patch, Propagation};
use skeg_core::features::FeatureGates;
use skeg_core::object::{ObjectKey, Selector};
use skeg_core::scheduler::extenders::Extender;
use skeg_core::scheduler::profile::{Plugin, Profile};
use skeg_core::{Kind, Object, resource_claim, volume};

use crate::fault::Fault;
use crate::moment::Moment;

/// A whole run except its seed.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// Name for reports.
    pub name: String,
    /// Shape of the cluster.
    pub cluster: Cluster,
    /// Behaviour of images by name prefix; the longest matching prefix wins, otherwise `ImageProfile::default`.
    pub images: BTreeMap<String, ImageProfile>,
    /// The steps in order of `at`.
    pub timeline: Vec<Step>,
    /// What workloads have to do, in order of `at`.
    pub loads: Vec<Load>,
    /// What must hold in addition to the invariants.
    pub expectations: Vec<Expectation>,
    /// How pods are scheduled.
    pub scheduling: Scheduling,
    /// How many faults the seed draws.
    pub faults: FaultLevel,
    /// Virtual time during which faults occur; then all faults are healed.
    pub duration: Duration,
    /// Virtual time after `duration` within which the cluster must reach its declared state and keep it.
    pub settle: Duration,
    /// End as soon as everything has converged after the timeline's last step, instead of at `duration`.
    pub stop_when_converged: bool,
}

impl Scenario {
    /// Whether anything that users apply scales a workload by metrics; as [`Scenario::uses_volumes`].
    pub fn uses_autoscaling(&self) -> bool {
        let is_one = |object: &Object| object.kind() == Kind::HORIZONTAL_POD_AUTOSCALER;
        self.timeline.iter().any(|step| match &step.action {
            Action::User(
                UserAction::Apply(all) | UserAction::Create(all) | UserAction::Replace { objects: all, .. },
            ) => all.iter().any(is_one),
            Action::User(_) | Action::Fault(_) => false,
        })
    }

    /// Whether anything that users apply has to do with volumes: then the controllers for them run. In other runs they
    /// would only cost time.
    pub fn uses_volumes(&self) -> bool {
        let kinds = [Kind::PERSISTENT_VOLUME, Kind::PERSISTENT_VOLUME_CLAIM, Kind::STORAGE_CLASS, Kind::CSI_NODE];
        let words = ["persistentVolumeClaim", "volumeClaimTemplates", "ephemeral"];
        let of_pods = |spec: &PodSpec| volume::has_claims(spec);
        let templates = |object: &Object| match object {
            Object::StatefulSet(set) => set.spec.volume_claim_templates.iter().flatten().next().is_some(),
            _ => false,
        };
        self.concerns(&kinds, &words, |object| templates(object) || object.pod_spec().is_some_and(|s| of_pods(s)))
    }

    /// Whether anything that users apply has to do with claims for devices; as [`Scenario::uses_volumes`].
    pub fn uses_devices(&self) -> bool {
        let kinds = [Kind::RESOURCE_CLAIM, Kind::RESOURCE_CLAIM_TEMPLATE, Kind::DEVICE_CLASS, Kind::RESOURCE_SLICE];
        let of_pods = |object: &Object| object.pod_spec().is_some_and(|spec| resource_claim::has_claims(spec));
        self.concerns(&kinds, &["resourceClaims"], of_pods)
    }

    /// Whether anything that users apply is of one of these kinds, says so itself, or mentions one of these fields
    /// where it is not known what becomes of it.
    fn concerns(&self, kinds: &[Kind], words: &[&str], says: impl Fn(&Object) -> bool) -> bool {
        let concerns = |object: &Object| {
            let is_cron_job = matches!(object, Object::CronJob(_));
            kinds.contains(&object.kind()) || says(object) || is_cron_job && mentions(&object.to_json(), words)
        };
        self.timeline.iter().any(|step| match &step.action {
            Action::User(
                UserAction::Apply(all) | UserAction::Create(all) | UserAction::Replace { objects: all, .. },
            ) => all.iter().any(concerns),
            Action::User(UserAction::RollingUpdate { new, .. }) => concerns(new),
            Action::User(UserAction::Patch { key, patch }) => {
                let (Patch::Merge(body) | Patch::Json(body) | Patch::Strategic(body) | Patch::Apply { body, .. }) =
                    patch;
                kinds.contains(&key.kind) || mentions(body, words)
            }
            Action::User(_) | Action::Fault(_) => false,
        })
    }
}

/// Whether some field, however deep, has one of these names; also as the path of a JSON patch.
fn mentions(value: &Value, words: &[&str]) -> bool {
    match value {
        Value::Object(map) => map.iter().any(|(key, inner)| words.contains(&key.as_str()) || mentions(inner, words)),
        Value::Array(items) => items.iter().any(|item| mentions(item, words)),
        Value::String(path) => path.starts_with('/') && path.split('/').any(|step| words.contains(&step)),
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}

/// What a workload has to do from a moment on: its ready pods share it.
#[derive(Clone, Debug)]
pub struct Load {
    /// Since when, from the start of the run.
    pub at: Duration,
    /// The workload.
    pub target: ObjectKey,
    /// CPU that all its pods use together, in thousandths of a core.
    pub cpu_milli: u64,
}

/// An extender, and how it is reached.
#[derive(Clone, PartialEq, Debug)]
pub struct Extending {
    /// What it serves.
    pub extender: Extender,
    /// How it is reached.
    pub tls: ExtenderTls,
}

/// How an extender is reached over TLS (`ExtenderTLSConfig`). Text is empty where it is not given.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct ExtenderTls {
    /// `enableHTTPS`: without certificates to trust, any is trusted.
    pub https: bool,
    /// Whether any certificate is trusted.
    pub insecure: bool,
    /// The name in the extender's certificate, where it is not the URL's.
    pub server_name: String,
    /// A file with the certificate to show, PEM.
    pub cert_file: String,
    /// A file with its key, PEM.
    pub key_file: String,
    /// A file with the certificates to trust, PEM.
    pub ca_file: String,
    /// The certificate to show, PEM in base64; goes before the file.
    pub cert_data: String,
    /// Its key, PEM in base64; goes before the file.
    pub key_data: String,
    /// The certificates to trust, PEM in base64; go before the file.
    pub ca_data: String,
}

/// How pods are scheduled.
#[derive(Clone, Debug)]
pub struct Scheduling {
    /// The profiles of the scheduler; at least one.
    pub profiles: Vec<Profile>,
    /// The extenders that have a say.
    pub extenders: Vec<Extending>,
    /// The `KubeSchedulerConfiguration` that says so; `None` if it is the default.
    pub document: Option<Value>,
}

impl Default for Scheduling {
    fn default() -> Scheduling {
        Scheduling { profiles: vec![Profile::default()], extenders: Vec::new(), document: None }
    }
}

impl Scheduling {
    /// Whether a filter counts for all pods.
    pub fn always_filters(&self, plugin: Plugin) -> bool {
        self.profiles.iter().all(|profile| profile.filters.has(plugin))
    }

    /// Whether the pods on a node may ask for more than it has.
    pub fn overcommits(&self) -> bool {
        let ignores = |p: &Profile| !p.ignored_resources.is_empty() || !p.ignored_groups.is_empty();
        !self.always_filters(Plugin::NodeResourcesFit) || self.profiles.iter().any(ignores)
    }
}

/// Shape of the cluster.
#[derive(Clone, Debug)]
pub struct Cluster {
    /// Groups of equal nodes.
    pub pools: Vec<NodePool>,
    /// How many zones nodes are spread over, round robin: `zone-a`, `zone-b`, …
    pub zones: usize,
    /// How many API servers use the store.
    pub api_servers: usize,
    /// Replicas of the controller manager and of the scheduler (one of each leads).
    pub control_replicas: usize,
    /// Whether each node has a service proxy (and the cluster has DNS); off for pure capacity runs.
    pub proxies: bool,
    /// How many machines users work at; each has a connection of its own, and all that is done to one object is done
    /// from the same machine.
    pub users: usize,
    /// The network from which Services get their addresses: its first address and the length of its prefix.
    pub service_cidr: ([u8; 4], u8),
    /// The most endpoints that are put into one EndpointSlice.
    pub max_endpoints_per_slice: usize,
    /// Minimum and maximum one-way latency of links.
    pub latency: (Duration, Duration),
    /// Minimum and maximum latency of a commit in the store.
    pub store_latency: (Duration, Duration),
    /// Whether Event objects are recorded.
    pub record_events: bool,
    /// Which feature gates are on.
    pub features: FeatureGates,
}

/// A group of equal nodes.
#[derive(Clone, Debug)]
pub struct NodePool {
    /// Nodes are named `<name>-0`, `<name>-1`, …
    pub name: String,
    /// Number of nodes.
    pub count: usize,
    /// Names of the nodes if they are not to be numbered; otherwise empty.
    pub names: Vec<String>,
    /// Capacity by resource, as Kubernetes quantities: `cpu: "4"`, `memory: 32Gi`, `pods: "110"`, `nvidia.com/gpu: "1"`.
    pub capacity: BTreeMap<String, String>,
    /// Labels in addition to the well-known ones.
    pub labels: BTreeMap<String, String>,
    /// `key=value:Effect`.
    pub taints: Vec<String>,
    /// Zone of all nodes in the pool; `None` spreads them.
    pub zone: Option<String>,
    /// The nodes register as unschedulable.
    pub cordoned: bool,
}

/// How containers of an image behave.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ImageProfile {
    /// Size in bytes; together with the pull bandwidth, determines the pull time.
    pub bytes: u64,
    /// Minimum and maximum pull time, where it does not follow from the size.
    #[serde(default)]
    pub pull: Option<(Duration, Duration)>,
    /// Minimum and maximum time from start to running.
    pub start: (Duration, Duration),
    /// Minimum and maximum time from running until probes succeed (readiness and startup).
    pub ready: (Duration, Duration),
    /// Exits by itself after this time with this code.
    pub exit: Option<(Duration, i32)>,
    /// One in this many starts crashes; zero means never.
    pub crash_one_in: u64,
    /// Pulling the image always fails.
    pub pull_fails: bool,
    /// The readiness probe never succeeds.
    pub never_ready: bool,
    /// Time from SIGTERM to exit.
    pub stop: Duration,
    /// How long a lifecycle hook takes that does not state its own time (as one that sleeps does).
    pub hook: Duration,
    /// CPU use in thousandths of a core.
    pub cpu_milli: u64,
    /// Memory use in bytes.
    pub memory_bytes: u64,
    /// Lines that a container logs when it starts.
    pub log: Vec<String>,
}

impl Default for ImageProfile {
    fn default() -> Self {
        ImageProfile {
            bytes: 100 << 20,
            pull: None,
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
            log: Vec::new(),
        }
    }
}

/// Something that happens at a virtual time.
#[derive(Clone, Debug)]
pub struct Step {
    /// Time since the start of the run.
    pub at: Duration,
    /// What the step waits for from that time on.
    pub when: Option<Moment>,
    /// What happens.
    pub action: Action,
}

impl Step {
    /// A step that waits for its time only.
    pub fn at(at: Duration, action: impl Into<Action>) -> Step {
        Step { at, when: None, action: action.into() }
    }

    /// A step that waits for a moment after its time.
    pub fn when(at: Duration, moment: Moment, action: impl Into<Action>) -> Step {
        Step { at, when: Some(moment), action: action.into() }
    }

    /// What happens, and on what it waits.
    pub fn describe(&self) -> String {
        match &self.when {
            None => self.action.describe(),
            Some(moment) => format!("{}, {moment}", self.action.describe()),
        }
    }
}

/// The action of a step.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub enum Action {
    User(UserAction),
    Fault(Fault),
}

impl Action {
    /// The name of the fault; `None` of what users do.
    pub fn fault(&self) -> Option<&'static str> {
        match self {
            Action::User(_) => None,
            Action::Fault(fault) => Some(fault.name()),
        }
    }

    /// Describes the action in words.
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

/// An action of a user at the API.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub enum UserAction {
    /// `kubectl apply`: creates objects, or changes the given fields of existing objects and keeps their other fields.
    Apply(Vec<Object>),
    /// Creates the objects of an export as they were; existing objects are replaced.
    Create(Vec<Object>),
    /// `kubectl replace --force`, with `--cascade`: each is deleted, and made anew as soon as it is gone.
    Replace {
        objects: Vec<Object>,
        cascade: Propagation,
    },
    /// `kubectl delete`, with `--cascade` and `--grace-period` in seconds.
    Delete {
        key: ObjectKey,
        cascade: Propagation,
        grace_period: Option<i64>,
    },
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
    /// `kubectl rollout undo`, to a revision or to the previous one.
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
    /// The classic `kubectl rolling-update OLD -f NEW`: a new ReplicationController is scaled up while the old one is
    /// scaled down.
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
    /// `kubectl taint`: sets a taint, or removes that of its key and effect.
    Taint {
        nodes: NodeSet,
        taint: Box<Taint>,
        removed: bool,
    },
    Drain {
        nodes: NodeSet,
    },
}

/// The nodes that an action applies to.
#[derive(Clone, Debug, PartialEq)]
pub enum NodeSet {
    /// Every node.
    All,
    /// Nodes with these names.
    Names(Vec<String>),
    /// All nodes in a zone.
    Zone(String),
    /// Nodes that match a label selector.
    Labels(Selector),
    /// This many nodes, drawn by the seed.
    Random(usize),
    /// The hosts of the control plane (store, API servers, controllers, scheduler).
    ControlPlane,
    /// One host of the control plane, by the name of a process on it: `store`, `api-server-0`, `controller-manager-1`
    /// (where the scheduler of this number runs too), `dns-0`.
    Machine(String),
    /// The machine of whoever did what the step waits for.
    Actor,
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
            NodeSet::Machine(name) => write!(f, "the machine of {name}"),
            NodeSet::Actor => f.write_str("its machine"),
        }
    }
}

/// How many faults the seed draws during `duration`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultLevel {
    /// None.
    None,
    /// Those that the timeline names and no others, in a cluster as it is under faults (see *Determinism* in
    /// ARCHITECTURE.md).
    Listed,
    /// A few: an occasional node failure, slow pulls, dropped connections.
    Light,
    /// All types of faults, all the time.
    Heavy,
}

/// What must hold in addition to the invariants.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)]
pub enum Expectation {
    /// At the end of the run, this many replicas of a workload are ready; with `by`, they must have been ready by then
    /// for the first time.
    Ready { key: ObjectKey, replicas: i32, by: Option<Duration> },
    /// The total of ready replicas of these workloads never falls below this number after first reaching it.
    NeverBelow { keys: Vec<ObjectKey>, replicas: i32 },
    /// A rollout is complete by this time.
    RolledOut { key: ObjectKey, by: Duration },
    /// The workload runs this image at the end.
    Image { key: ObjectKey, image: String },
    /// This many pods are pending at the end.
    Pending { namespace: String, count: usize },
}
