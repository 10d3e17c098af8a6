//! Ephemeral containers: added to a pod that is there, to look into it, and started once.
//!
//! Source: KEP-277, <https://kubernetes.io/docs/concepts/workloads/pods/ephemeral-containers/>.

use std::borrow::Cow;

use k8s_openapi::api::core::v1::{Container, EphemeralContainer, PodSpec};

use super::{ContainerStatus, Pod, PodStatus};

/// An ephemeral container as an ordinary one (`EphemeralContainerCommon`), which is everything but its target.
pub fn as_container(e: &EphemeralContainer) -> Container {
    macro_rules! container {
        ($($field:ident)*) => {{
            let EphemeralContainer { target_container_name: _, $($field),* } = e.clone();
            Container { $($field),* }
        }};
    }
    container! {
        args command env env_from image image_pull_policy lifecycle liveness_probe name ports readiness_probe
        resize_policy resources restart_policy restart_policy_rules security_context startup_probe stdin stdin_once
        termination_message_path termination_message_policy tty volume_devices volume_mounts working_dir
    }
}

/// Every container of a pod: init containers first, ephemeral ones last (`podutil.VisitContainers`).
pub fn all_containers(spec: &PodSpec) -> impl Iterator<Item = Cow<'_, Container>> {
    let lasting = spec.init_containers.iter().flatten().chain(&spec.containers).map(Cow::Borrowed);
    lasting.chain(spec.ephemeral_containers.iter().flatten().map(|e| Cow::Owned(as_container(e))))
}

/// Takes from `sent` the ephemeral containers, and nothing else.
pub fn take_ephemeral_containers(pod: &mut Pod, sent: &Pod) {
    let (now, wanted) = (&pod.spec.ephemeral_containers, &sent.spec.ephemeral_containers);
    if now.as_deref().unwrap_or_default() != wanted.as_deref().unwrap_or_default() {
        let wanted = wanted.clone();
        pod.spec_mut().shared.make_mut().ephemeral_containers = wanted;
    }
}

impl PodStatus {
    /// `ephemeralContainerStatuses`.
    pub fn ephemeral_container_statuses(&self) -> Vec<ContainerStatus> {
        let held = self.rest.as_ref().and_then(|rest| rest.ephemeral_container_statuses.as_ref());
        held.into_iter().flatten().cloned().map(ContainerStatus::new).collect()
    }

    /// Sets `ephemeralContainerStatuses`.
    pub fn set_ephemeral_container_statuses(&mut self, statuses: &[ContainerStatus]) {
        let whole = (!statuses.is_empty()).then(|| statuses.iter().map(ContainerStatus::to_whole).collect());
        if whole.is_none() && self.rest.is_none() {
            return;
        }
        self.rest.get_or_insert_default().ephemeral_container_statuses = whole;
        if self.rest.as_deref().is_some_and(|rest| *rest == Default::default()) {
            self.rest = None;
        }
    }
}
