//! Ephemeral containers of a pod on the node: added while it runs, started once, and never again (KEP-277; kubelet
//! `computePodActions`, `startSpec.getTargetID`).

use std::rc::Rc;

use k8s_openapi::api::core::v1 as core_v1;

use super::pod::{Container, PodState, Role};
use super::references::refers_to_any;
use super::runtime::ContainerId;
use crate::object::{Pod, as_container};

/// What an ephemeral container has beside what every container has.
#[derive(Debug)]
pub(super) struct Ephemeral {
    pub(super) spec: Rc<core_v1::Container>,
    /// Name of the container whose processes it sees; empty for its own.
    target: String,
}

impl PodState {
    /// Takes in the ephemeral containers that a version of the pod has and this state has not. They come last, so that
    /// no other container's index changes.
    pub(super) fn add_ephemeral_containers(&mut self, pod: &Pod) {
        for e in pod.spec.ephemeral_containers.iter().flatten() {
            if self.containers.iter().any(|c| *c.name == *e.name) {
                continue;
            }
            let mut container = Container::new(&e.name, Role::Ephemeral, 0);
            let (spec, target) = (Rc::new(as_container(e)), e.target_container_name.clone().unwrap_or_default());
            self.refers |= refers_to_any(&spec);
            container.ephemeral = Some(Rc::new(Ephemeral { spec, target }));
            self.containers.push(container);
            self.write.dirty = true;
        }
    }

    /// The container whose processes a container is to see; `None` if only its own. An error says that there is none.
    pub(super) fn target(&self, i: usize) -> Result<Option<ContainerId>, String> {
        let Some(e) = self.containers[i].ephemeral.as_ref().filter(|e| !e.target.is_empty()) else { return Ok(None) };
        let of = self.containers.iter().find(|c| *c.name == e.target);
        let id = of.and_then(|c| c.id().or_else(|| c.exit().or(c.last.as_deref())?.id.as_ref()));
        id.cloned().map(Some).ok_or_else(|| format!("unable to find target container {}", e.target))
    }
}
