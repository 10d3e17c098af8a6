//! The node agent machine: Kubernetes' kubelet, as decisions over a container-runtime port.

mod runtime;

pub use runtime::{
    ContainerId, ContainerInfo, ContainerSpec, ContainerState, ContainerStats, ImageInfo, OpId, ProbeAction,
    RuntimeCommand, RuntimeError, RuntimeEvent, SandboxId, SandboxInfo,
};
