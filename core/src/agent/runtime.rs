//! The container-runtime port: commands out, completions and events in. The vocabulary is CRI's
//! (<https://kubernetes.io/docs/concepts/architecture/cri/>).
//!
//! The agent makes no assumptions about the runtime: after a restart it sends `List` and reconstructs its state from
//! the reply.

use std::rc::Rc;

use k8s_openapi::api::core::v1 as core_v1;

use crate::machine::Wall;
use crate::object::SharedPodSpec;

/// Identifies a command, so that its completion can be routed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub struct OpId(pub u64);

/// Identifies a pod sandbox (network namespace and pause container).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct SandboxId(pub Rc<str>);

/// Identifies a container.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct ContainerId(pub Rc<str>);

/// What a container is created from. `pod_*` and `attempt` are stored as labels, so that a list after a restart is
/// complete.
#[derive(Clone, Debug, PartialEq)]
pub struct ContainerSpec {
    /// The sandbox that it runs in.
    pub sandbox: SandboxId,
    /// UID of the pod.
    pub pod_uid: Rc<str>,
    /// Shared spec of the pod, which has everything else that a driver needs (env, command, mounts, security).
    pub pod: SharedPodSpec,
    /// Name within the pod, in `init_containers` or `containers` of `pod`.
    pub name: Rc<str>,
    /// `restartCount` of this run.
    pub attempt: u32,
}

/// State of a container.
#[derive(Clone, Debug, PartialEq)]
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
#[derive(Clone, Debug, PartialEq)]
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
}

/// A sandbox in a list.
#[derive(Clone, Debug, PartialEq)]
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
#[derive(Clone, Debug, PartialEq)]
pub struct ImageInfo {
    /// Reference by which pods name it.
    pub image: Rc<str>,
    /// Size in bytes.
    pub bytes: u64,
}

/// Resource use of a container.
#[derive(Clone, Debug, PartialEq)]
pub struct ContainerStats {
    /// The container.
    pub id: ContainerId,
    /// CPU in thousandths of a core.
    pub cpu_milli: u64,
    /// Working set in bytes.
    pub memory_bytes: u64,
}

/// The action of a probe or a lifecycle hook; exec runs in the container.
#[derive(Clone, Debug, PartialEq)]
pub enum ProbeAction {
    /// A probe of the container's spec: `startup`, `readiness` or `liveness`, by kind.
    Probe(Rc<core_v1::Probe>),
    /// A lifecycle hook.
    Hook(Rc<core_v1::LifecycleHandler>),
}

/// Commands to the runtime. Each one except `Forget` is completed by exactly one event with its [`OpId`], unless the
/// runtime or the machine dies.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)]
pub enum RuntimeCommand {
    /// Lists sandboxes, containers and images.
    List { op: OpId },
    /// Pulls an image.
    PullImage { op: OpId, image: Rc<str> },
    /// Creates and starts a sandbox.
    RunSandbox { op: OpId, pod_uid: Rc<str>, pod: Rc<str>, host_network: bool },
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
    /// Removes a stopped container.
    RemoveContainer { op: OpId, container: ContainerId },
    /// Runs a probe or a hook against a container.
    Probe { op: OpId, container: ContainerId, action: ProbeAction, timeout_seconds: u32 },
    /// Reads the resource use of all containers.
    Stats { op: OpId },
}

/// Why a command failed.
#[derive(Clone, Debug, PartialEq)]
pub struct RuntimeError {
    /// CamelCase reason as in container states: `ErrImagePull`, `CreateContainerError`, `RunContainerError`.
    pub reason: Rc<str>,
    /// Human-readable message.
    pub message: Rc<str>,
}

/// Completions of commands, and unsolicited events.
#[derive(Clone, Debug, PartialEq)]
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
        result: Result<ContainerId, RuntimeError>,
    },
    Started {
        op: OpId,
        result: Result<(), RuntimeError>,
    },
    Stopped {
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
}
