//! The container-runtime port: commands out, completions and events in. CRI's vocabulary
//! (<https://kubernetes.io/docs/concepts/architecture/cri/>).
//!
//! The agent never assumes: after a restart it sends `List` and rebuilds what it knows from the answer.

use std::rc::Rc;

use k8s_openapi::api::core::v1 as core_v1;

use crate::machine::Wall;
use crate::object::SharedPodSpec;

/// Names a command, so that its completion finds its way back.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub struct OpId(pub u64);

/// Names a pod sandbox (network namespace and pause container).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct SandboxId(pub Rc<str>);

/// Names a container.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct ContainerId(pub Rc<str>);

/// What a container is made from. `pod_*` and `attempt` are kept as labels, so that a list after a restart says all.
#[derive(Clone, Debug, PartialEq)]
pub struct ContainerSpec {
    /// The sandbox it lives in.
    pub sandbox: SandboxId,
    /// UID of the pod.
    pub pod_uid: Rc<str>,
    /// Shared spec of the pod, for everything that a driver needs (env, command, mounts, security).
    pub pod: SharedPodSpec,
    /// Name within the pod; it is in `init_containers` or `containers` of `pod`.
    pub name: Rc<str>,
    /// `restartCount` of this life.
    pub attempt: u32,
}

/// State of a container.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)]
pub enum ContainerState {
    /// Created and not started.
    Created,
    /// Running.
    Running { started_at: Wall },
    /// Exited.
    Exited { exit_code: i32, reason: Rc<str>, message: Rc<str>, started_at: Wall, finished_at: Wall },
}

/// A container as a list shows it.
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
    /// `restartCount` of this life.
    pub attempt: u32,
    /// Its state.
    pub state: ContainerState,
}

/// A sandbox as a list shows it.
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
    /// Whether it still runs.
    pub ready: bool,
}

/// An image as a list shows it.
#[derive(Clone, Debug, PartialEq)]
pub struct ImageInfo {
    /// Reference as pods name it.
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

/// What a probe or a lifecycle hook does; exec runs in the container.
#[derive(Clone, Debug, PartialEq)]
pub enum ProbeAction {
    /// A probe of the container's spec: `startup`, `readiness` or `liveness`, by kind.
    Probe(Rc<core_v1::Probe>),
    /// A lifecycle hook.
    Hook(Rc<core_v1::LifecycleHandler>),
}

/// Commands to the runtime. Each but `Forget` is completed by exactly one event with its [`OpId`], unless the runtime
/// or the machine dies.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)]
pub enum RuntimeCommand {
    /// Lists sandboxes, containers and images.
    List { op: OpId },
    /// Pulls an image.
    PullImage { op: OpId, image: Rc<str> },
    /// Makes a sandbox.
    RunSandbox { op: OpId, pod_uid: Rc<str>, pod: Rc<str>, host_network: bool },
    /// Stops a sandbox and whatever runs in it.
    StopSandbox { op: OpId, sandbox: SandboxId },
    /// Removes a stopped sandbox and its containers.
    RemoveSandbox { op: OpId, sandbox: SandboxId },
    /// Makes a container.
    CreateContainer { op: OpId, spec: Rc<ContainerSpec> },
    /// Starts a created container.
    StartContainer { op: OpId, container: ContainerId },
    /// Asks a container to stop, and kills it after so many seconds. Completed when it has stopped.
    StopContainer { op: OpId, container: ContainerId, grace_seconds: u32 },
    /// Removes a stopped container.
    RemoveContainer { op: OpId, container: ContainerId },
    /// Runs a probe or a hook against a container.
    Probe { op: OpId, container: ContainerId, action: ProbeAction, timeout_seconds: u32 },
    /// Reads resource use of all containers.
    Stats { op: OpId },
}

/// Why a command failed.
#[derive(Clone, Debug, PartialEq)]
pub struct RuntimeError {
    /// CamelCase reason as container states show it: `ErrImagePull`, `CreateContainerError`, `RunContainerError`.
    pub reason: Rc<str>,
    /// Human-readable.
    pub message: Rc<str>,
}

/// Completions, and what happens by itself.
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
    /// A probe or hook ended; an error says that it failed and why.
    Probed {
        op: OpId,
        result: Result<(), RuntimeError>,
    },
    StatsRead {
        op: OpId,
        stats: Vec<ContainerStats>,
    },
    /// A container has exited, whether asked to or not.
    Exited {
        container: ContainerId,
        state: ContainerState,
    },
    /// A sandbox has died by itself.
    SandboxGone {
        sandbox: SandboxId,
    },
}
