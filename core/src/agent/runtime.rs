//! The container-runtime port: commands out, completions and events in. The vocabulary is CRI's
//! (<https://kubernetes.io/docs/concepts/architecture/cri/>).
//!
//! The agent makes no assumptions about the runtime: after a restart it sends `List` and reconstructs its state from
//! the reply.

use std::rc::Rc;

use k8s_openapi::api::core::v1 as core_v1;
use serde::{Deserialize, Serialize};

use crate::machine::Wall;
use crate::object::SharedPodSpec;

/// Identifies a command, so that its completion can be routed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash, Serialize, Deserialize)]
pub struct OpId(pub u64);

/// Identifies a pod sandbox (network namespace and pause container).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct SandboxId(pub Rc<str>);

/// Identifies a container.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct ContainerId(pub Rc<str>);

/// What a container is created from. `pod_*` and `attempt` are stored as labels, so that a list after a restart is
/// complete.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ContainerSpec {
    /// The sandbox that it runs in.
    pub sandbox: SandboxId,
    /// UID of the pod.
    pub pod_uid: Rc<str>,
    /// Shared spec of the pod, which has everything else that a driver needs (env, command, mounts, security).
    pub pod: SharedPodSpec,
    /// Name within the pod.
    pub name: Rc<str>,
    /// `restartCount` of this run.
    pub attempt: u32,
    /// Its spec, if it is an ephemeral container.
    pub ephemeral: Option<Rc<core_v1::Container>>,
    /// The container whose PID namespace it shares, unless that is the pod's or the node's.
    pub target: Option<ContainerId>,
    /// What the agent has worked out for a runtime of real containers ([`super::AgentConfig::resolve`]).
    pub resolved: Option<Box<Resolved>>,
}

impl ContainerSpec {
    /// The container's own part of the pod's spec.
    pub fn container(&self) -> Option<&core_v1::Container> {
        let inits = self.pod.init_containers.iter().flatten();
        let lasting = || self.pod.containers.iter().chain(inits).find(|c| c.name == *self.name);
        self.ephemeral.as_deref().or_else(lasting)
    }
}

/// What a container's spec comes to, once everything that it refers to has been looked up.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Resolved {
    /// `namespace/name` of the pod.
    pub pod: Rc<str>,
    /// Environment variables.
    pub env: Vec<(String, String)>,
    /// `command`, expanded.
    pub command: Vec<String>,
    /// `args`, expanded.
    pub args: Vec<String>,
    /// Where the pod's volumes are mounted.
    pub mounts: Vec<Mount>,
}

/// A volume as a container sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// Name of the volume.
    pub volume: String,
    /// Path in the container.
    pub path: String,
    /// Path within the volume; empty for the whole volume.
    pub sub_path: String,
    /// Whether the container may only read it.
    pub read_only: bool,
    /// `mountPropagation`.
    pub propagation: Option<String>,
}

/// The volumes of a pod.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PodVolumes {
    /// UID of the pod.
    pub pod_uid: Rc<str>,
    /// Namespace of the pod.
    pub namespace: Rc<str>,
    /// Name of the pod.
    pub pod: Rc<str>,
    /// Whom tokens are for.
    pub service_account: Rc<str>,
    /// The group that files belong to (`securityContext.fsGroup`).
    pub fs_group: Option<i64>,
    /// The volumes, in the order of the spec.
    pub volumes: Vec<PodVolume>,
}

/// One volume of a pod.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PodVolume {
    /// Its name.
    pub name: String,
    /// What it has inside.
    pub content: VolumeContent,
}

impl PodVolume {
    /// The shortest lifetime of its tokens, in seconds; `None` if it has none.
    pub(super) fn token_seconds(&self) -> Option<i64> {
        let VolumeContent::Files { files, .. } = &self.content else { return None };
        let seconds = |file: &VolumeFile| match file.content {
            FileContent::Token { seconds, .. } => Some(seconds),
            FileContent::Bytes(_) => None,
        };
        files.iter().filter_map(seconds).min()
    }
}

/// What a volume has inside.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub enum VolumeContent {
    /// Nothing at first. `medium` is empty for the node's disk, or `Memory`; the limit is in bytes.
    EmptyDir { medium: String, size_limit: Option<i64> },
    /// A path of the node.
    HostPath { path: String, type_: String },
    /// The path of the node that a PersistentVolume is; `type_` is as that of `hostPath`. Where `made` says so, its
    /// directory is this volume's own, and everybody may write to it. Of a volume that `takes_group`, the files get the
    /// pod's.
    Persistent { path: String, type_: String, made: bool, takes_group: bool },
    /// These files, which the agent keeps up to date. What is secret must not get on a disk.
    Files { secret: bool, files: Vec<VolumeFile> },
    /// A type of volume that the agent does not know.
    Unknown(String),
}

/// One file of a volume.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct VolumeFile {
    /// Its path within the volume.
    pub path: String,
    /// Its permissions.
    pub mode: i32,
    /// What it holds.
    pub content: FileContent,
}

/// What a file of a volume holds.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub enum FileContent {
    Bytes(#[serde(with = "base64_text")] Vec<u8>),
    /// A token of the pod's service account, which the driver requests: every mount makes a new one.
    Token {
        audience: String,
        seconds: i64,
    },
}

/// Bytes as text, in base64.
mod base64_text {
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(bytes: &[u8], to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&STANDARD.encode(bytes))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<u8>, D::Error> {
        STANDARD.decode(String::deserialize(from)?).map_err(D::Error::custom)
    }
}

impl std::fmt::Debug for FileContent {
    // Never the bytes: they may be secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            FileContent::Bytes(bytes) => write!(f, "{} bytes", bytes.len()),
            FileContent::Token { audience, seconds } => write!(f, "token for {audience:?} for {seconds} s"),
        }
    }
}

/// A Secret with credentials for registries (`imagePullSecrets`). The agent does not look into it: only a runtime that
/// pulls does.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PullSecret {
    /// Whether it is of the type `kubernetes.io/dockercfg`, and not `kubernetes.io/dockerconfigjson`.
    pub is_dockercfg: bool,
    /// Docker's configuration, JSON.
    #[serde(with = "base64_text")]
    pub config: Vec<u8>,
}

impl std::fmt::Debug for PullSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} secret bytes", self.config.len())
    }
}

/// State of a container.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub enum ContainerState {
    /// Created but not started.
    Created,
    /// Running.
    Running { started_at: Wall },
    /// Exited.
    Exited { exit_code: i32, reason: Rc<str>, message: Rc<str>, started_at: Wall, finished_at: Wall },
}

/// A container in a list.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ContainerInfo {
    /// Its id.
    pub id: ContainerId,
    /// Its sandbox.
    pub sandbox: SandboxId,
    /// UID of the pod.
    pub pod_uid: Rc<str>,
    /// Name within the pod.
    pub name: Rc<str>,
    /// `restartCount` of this run.
    pub attempt: u32,
    /// Its state.
    pub state: ContainerState,
    /// Id of its image; empty if that is the image's name.
    pub image_id: Rc<str>,
}

/// A container that was created.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CreatedContainer {
    /// Its id.
    pub id: ContainerId,
    /// Id of its image; empty if that is the image's name.
    pub image_id: Rc<str>,
}

/// A sandbox in a list.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SandboxInfo {
    /// Its id.
    pub id: SandboxId,
    /// UID of the pod.
    pub pod_uid: Rc<str>,
    /// `namespace/name` of the pod.
    pub pod: Rc<str>,
    /// Address of the pod.
    pub ip: Rc<str>,
    /// Whether it is still running.
    pub ready: bool,
}

/// An image in a list.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ImageInfo {
    /// Reference by which pods name it.
    pub image: Rc<str>,
    /// Size in bytes.
    pub bytes: u64,
}

/// An image as it is stored, under all of its names.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StoredImage {
    /// Its id.
    pub id: Rc<str>,
    /// Its names, with tags and with digests.
    pub names: Vec<Rc<str>>,
    /// Size in bytes.
    pub bytes: u64,
    /// Whether any container is of it, running or not.
    pub in_use: bool,
    /// Whether the runtime needs it for itself.
    pub pinned: bool,
}

/// The disk of images, and what is on it of them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ImageDisk {
    /// Size in bytes.
    pub capacity: u64,
    /// What is free of that.
    pub available: u64,
    /// The images.
    pub images: Vec<StoredImage>,
}

/// How much there is of something, and how much of it is left.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Supply {
    /// All of it.
    pub capacity: u64,
    /// What is left.
    pub available: u64,
}

/// What is on a disk of something.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskUse {
    /// Bytes that it takes there.
    pub bytes: u64,
    /// Files and directories.
    pub inodes: u64,
}

impl DiskUse {
    /// Both together.
    pub fn plus(self, other: DiskUse) -> DiskUse {
        let bytes = self.bytes.saturating_add(other.bytes);
        DiskUse { bytes, inodes: self.inodes.saturating_add(other.inodes) }
    }
}

/// What a node uses.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NodeUse {
    /// Memory, in bytes; what is left is all but the working set.
    pub memory: Supply,
    /// The disk of pods' volumes and logs, in bytes.
    pub node_disk: Supply,
    /// Its files.
    pub node_inodes: Supply,
    /// The disk of images and of what containers write, in bytes.
    pub image_disk: Supply,
    /// Its files.
    pub image_inodes: Supply,
    /// Process ids.
    pub pids: Supply,
    /// Whether these are two disks.
    pub has_image_disk: bool,
    /// The pods that were asked for.
    pub pods: Vec<PodUse>,
}

/// What a pod uses.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PodUse {
    /// UID of the pod.
    pub pod_uid: Rc<str>,
    /// Its containers that run.
    pub containers: Vec<ContainerUse>,
    /// Its volumes on the node, by name.
    pub volumes: Vec<(Rc<str>, DiskUse)>,
}

/// What a container of a pod uses.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ContainerUse {
    /// Its name in the pod.
    pub name: Rc<str>,
    /// Working set in bytes.
    pub memory: u64,
    /// Processes and threads.
    pub processes: u64,
    /// What it has written beside its volumes.
    pub root: DiskUse,
    /// Its log.
    pub log: DiskUse,
}

/// Resource use of a container.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ContainerStats {
    /// The container.
    pub id: ContainerId,
    /// CPU in thousandths of a core.
    pub cpu_milli: u64,
    /// Working set in bytes.
    pub memory_bytes: u64,
}

/// The action of a probe or a lifecycle hook; exec runs in the container.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum ProbeAction {
    /// A probe of the container's spec: `startup`, `readiness` or `liveness`, by kind.
    Probe(Rc<core_v1::Probe>),
    /// A lifecycle hook.
    Hook(Rc<core_v1::LifecycleHandler>),
}

/// Commands to the runtime. Each one except `Forget` is completed by exactly one event with its [`OpId`], unless the
/// runtime or the machine dies.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub enum RuntimeCommand {
    /// Lists sandboxes, containers and images.
    List { op: OpId },
    /// Pulls an image, with what these Secrets say to registries.
    PullImage {
        op: OpId,
        image: Rc<str>,
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        secrets: Vec<PullSecret>,
    },
    /// Lists images for their collection, with the disk that they are on.
    ListImages { op: OpId },
    /// Removes an image, by its id.
    RemoveImage { op: OpId, id: Rc<str> },
    /// Measures what the node uses, and what these pods do, by UID.
    Measure { op: OpId, pods: Vec<Rc<str>> },
    /// Creates and starts a sandbox.
    RunSandbox { op: OpId, pod_uid: Rc<str>, pod: Rc<str>, host_network: bool, spec: SharedPodSpec },
    /// Makes a pod's volumes, or brings the files in them up to date. Sent only to runtimes of real containers.
    MountVolumes { op: OpId, volumes: Rc<PodVolumes> },
    /// Removes a pod's volumes, with what is in them.
    UnmountVolumes { op: OpId, pod_uid: Rc<str> },
    /// Removes what is in the directory of a volume that no pod uses; it need not be there.
    EmptyDirectory { op: OpId, path: Rc<str> },
    /// Removes a directory that has been emptied; it need not be there.
    RemoveDirectory { op: OpId, path: Rc<str> },
    /// Stops a sandbox and all containers in it.
    StopSandbox { op: OpId, sandbox: SandboxId },
    /// Removes a stopped sandbox and its containers.
    RemoveSandbox { op: OpId, sandbox: SandboxId },
    /// Creates a container.
    CreateContainer { op: OpId, spec: Rc<ContainerSpec> },
    /// Starts a created container.
    StartContainer { op: OpId, container: ContainerId },
    /// Asks a container to stop, and kills it after this many seconds. Completed when the container has stopped.
    StopContainer { op: OpId, container: ContainerId, grace_seconds: u32 },
    /// Gives a running container other resources.
    UpdateContainer { op: OpId, container: ContainerId, resources: Rc<core_v1::ResourceRequirements> },
    /// Removes a stopped container.
    RemoveContainer { op: OpId, container: ContainerId },
    /// Runs a probe or a hook against a container. `address` is the pod's, if it is known to be needed.
    Probe { op: OpId, container: ContainerId, action: ProbeAction, timeout_seconds: u32, address: Option<Rc<str>> },
    /// Reads the resource use of all containers.
    Stats { op: OpId },
}

/// Reason of a [`RuntimeError`] of a probe that could not be carried out: it says nothing about the container.
pub const PROBE_ERRORED: &str = "ProbeErrored";

/// Reason of a [`RuntimeError`] of a hook that was asked for by HTTPS and has succeeded by HTTP only; the message says
/// where.
pub const HOOK_FELL_BACK: &str = "LifecycleHTTPFallback";

/// Why a command failed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RuntimeError {
    /// CamelCase reason as in container states: `ErrImagePull`, `CreateContainerError`, `RunContainerError`.
    pub reason: Rc<str>,
    /// Human-readable message.
    pub message: Rc<str>,
}

/// Completions of commands, and unsolicited events.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub enum RuntimeEvent {
    Listed {
        op: OpId,
        sandboxes: Vec<SandboxInfo>,
        containers: Vec<ContainerInfo>,
        images: Vec<ImageInfo>,
    },
    Pulled {
        op: OpId,
        result: Result<ImageInfo, RuntimeError>,
    },
    ImagesListed {
        op: OpId,
        result: Result<ImageDisk, RuntimeError>,
    },
    ImageRemoved {
        op: OpId,
        result: Result<(), RuntimeError>,
    },
    Measured {
        op: OpId,
        result: Result<NodeUse, RuntimeError>,
    },
    SandboxRunning {
        op: OpId,
        result: Result<SandboxInfo, RuntimeError>,
    },
    SandboxStopped {
        op: OpId,
        result: Result<(), RuntimeError>,
    },
    SandboxRemoved {
        op: OpId,
        result: Result<(), RuntimeError>,
    },
    Created {
        op: OpId,
        result: Result<CreatedContainer, RuntimeError>,
    },
    Mounted {
        op: OpId,
        result: Result<(), RuntimeError>,
    },
    Unmounted {
        op: OpId,
        result: Result<(), RuntimeError>,
    },
    /// A directory was emptied or removed.
    DirectoryDone {
        op: OpId,
        result: Result<(), RuntimeError>,
    },
    Started {
        op: OpId,
        result: Result<(), RuntimeError>,
    },
    Stopped {
        op: OpId,
        result: Result<(), RuntimeError>,
    },
    Updated {
        op: OpId,
        result: Result<(), RuntimeError>,
    },
    Removed {
        op: OpId,
        result: Result<(), RuntimeError>,
    },
    /// A probe or hook ended; an error means that it failed, and says why.
    Probed {
        op: OpId,
        result: Result<(), RuntimeError>,
    },
    StatsRead {
        op: OpId,
        stats: Vec<ContainerStats>,
    },
    /// A container has exited, whether or not a stop was requested.
    Exited {
        container: ContainerId,
        state: ContainerState,
    },
    /// A sandbox has died by itself.
    SandboxGone {
        sandbox: SandboxId,
    },
    /// The runtime has not answered for a while, or answers again.
    Reachable(bool),
}
