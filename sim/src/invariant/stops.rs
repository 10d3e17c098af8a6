//! `grace-is-kept`: the containers of a pod that is deleted have its grace period to end in. `hooks-run-first`: each
//! has run its preStop hook before, as long as there was time. `sidecars-go-last`: its sidecars are not told to end
//! while a main container runs, as long as there is time (KEP-753).
//!
//! Checked each time an agent tells its runtime to stop a container.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::LifecycleHandler;
use skeg_core::agent::{ContainerId, ContainerSpec, ContainerState};
use skeg_core::object::Pod;

use super::reading::DRIFT;
use super::{Commit, Invariant, Report};
use crate::world::NodeHost;

/// In seconds: an agent reckons in whole ones.
const SLACK: f64 = 1.0;

/// What is being stopped.
#[derive(Debug, Default)]
pub struct Stops {
    /// When each pod that is being deleted was, and its grace period in seconds, by UID.
    deleted: BTreeMap<String, (f64, f64)>,
    /// The containers whose preStop hooks have been run, by node.
    hooked: BTreeSet<(String, ContainerId)>,
}

fn is_sidecar(spec: &ContainerSpec) -> bool {
    let inits = spec.pod.init_containers.as_deref().unwrap_or_default();
    inits.iter().any(|init| init.name == *spec.name && init.restart_policy.as_deref() == Some("Always"))
}

fn is_main(spec: &ContainerSpec) -> bool {
    spec.pod.containers.iter().any(|main| main.name == *spec.name)
}

fn pre_stop(spec: &ContainerSpec) -> Option<&LifecycleHandler> {
    spec.container()?.lifecycle.as_ref()?.pre_stop.as_ref()
}

impl Stops {
    pub(super) fn pod(&mut self, commit: &Commit<'_>) {
        let grace =
            |pod: &Pod| pod.meta.deletion_grace_period_seconds.filter(|_| pod.meta.deletion_timestamp.is_some());
        let Some(new) = commit.new_pod() else {
            if let Some(old) = commit.old_pod() {
                self.deleted.remove(old.uid());
            }
            return;
        };
        let grace = grace(new).map(|seconds| seconds as f64);
        if let Some(grace) = grace.filter(|grace| self.deleted.get(new.uid()).is_none_or(|(_, known)| grace < known)) {
            self.deleted.insert(new.uid().to_owned(), (commit.at, grace));
        }
    }

    /// Notes that a hook of a container is run.
    pub fn hooked(&mut self, node: &NodeHost, id: &ContainerId, hook: &LifecycleHandler) {
        let found = node.runtime.containers().find(|(other, ..)| *other == id);
        if found.is_some_and(|(_, spec, _)| pre_stop(spec) == Some(hook)) {
            self.hooked.insert((node.name.clone(), id.clone()));
        }
    }

    /// Checks what a node's runtime is told to stop, with this many seconds of grace.
    pub fn told(&mut self, at: f64, node: &NodeHost, id: &ContainerId, grace: u32, report: &mut Report) {
        let found = node.runtime.containers().find(|(other, ..)| *other == id);
        let Some((_, spec, ContainerState::Running { .. })) = found else { return };
        let Some((deleted, given)) = self.deleted.get(&*spec.pod_uid) else { return };
        let (passed, left) = (at - deleted, given * (1.0 - DRIFT) - SLACK);
        if passed + f64::from(grace) < left {
            let what = format!(
                "{}: container {} of pod {} is given {grace} s to end in, {passed:.1} s after the pod was deleted with a \
                 grace period of {given} s",
                node.name, spec.name, spec.pod_uid
            );
            report.broken(Invariant::GraceIsKept, at, what);
        }
        let is_hooked = self.hooked.remove(&(node.name.clone(), id.clone()));
        if pre_stop(spec).is_some() && !is_hooked && passed < left {
            let what =
                format!("{}: container {} of pod {} is stopped without its hook", node.name, spec.name, spec.pod_uid);
            report.broken(Invariant::HooksRunFirst, at, what);
        }
        let runs = |state: &ContainerState| matches!(state, ContainerState::Running { .. });
        let mut others = node.runtime.containers();
        let main = others.find(|(_, other, state)| other.pod_uid == spec.pod_uid && is_main(other) && runs(state));
        if let Some((main, ..)) = main.filter(|_| is_sidecar(spec) && passed < left) {
            let what = format!("{}: sidecar {} of pod {} ends before {}", node.name, spec.name, spec.pod_uid, main.0);
            report.broken(Invariant::SidecarsGoLast, at, what);
        }
    }
}
