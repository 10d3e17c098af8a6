//! `one-container`: there are never two running containers with the same pod and name. `never-restarts`: a container
//! whose restart policy is `Never` is started only once, unless it has restart rules of its own.
//!
//! Checked each time a runtime has started a container. After a node has lost its disk, its containers may start again.

use std::collections::BTreeMap;
use std::rc::Rc;

use skeg_core::agent::{ContainerId, ContainerSpec, ContainerState};

use super::{Invariant, Report};
use crate::world::NodeHost;

/// How often each container with the restart policy `Never` was started: by node and pod UID, then by container name.
#[derive(Debug, Default)]
pub struct Containers {
    starts: BTreeMap<(String, Rc<str>), BTreeMap<Rc<str>, u32>>,
}

/// Whether a container must never be restarted, however it exits.
fn never_restarts(spec: &ContainerSpec) -> bool {
    if spec.ephemeral.is_some() {
        return true;
    }
    let Some(container) = spec.container() else { return false };
    let policy = container.restart_policy.as_ref().or(spec.pod.restart_policy.as_ref());
    let has_rules = container.restart_policy_rules.as_ref().is_some_and(|rules| !rules.is_empty());
    policy.is_some_and(|policy| policy == "Never") && !has_rules
}

impl Containers {
    /// Checks a container that a node's runtime has just tried to start.
    pub fn started(&mut self, at: f64, node: &NodeHost, id: &ContainerId, report: &mut Report) {
        let runs = |state: &ContainerState| matches!(state, ContainerState::Running { .. });
        let Some((_, spec, _)) = node.runtime.containers().find(|(other, _, state)| *other == id && runs(state)) else {
            return;
        };
        let twin = node.runtime.containers().find(|(other, twin, state)| {
            *other != id && twin.pod_uid == spec.pod_uid && twin.name == spec.name && runs(state)
        });
        if let Some((twin, ..)) = twin {
            let (uid, name) = (&spec.pod_uid, &spec.name);
            let what =
                format!("{}: {} and {} are both container {name} of pod {uid}, and run", node.name, twin.0, id.0);
            report.broken(Invariant::OneContainer, at, what);
        }
        if never_restarts(spec) {
            let pod = self.starts.entry((node.name.clone(), Rc::clone(&spec.pod_uid))).or_default();
            let starts = pod.entry(Rc::clone(&spec.name)).or_default();
            *starts += 1;
            if *starts > 1 {
                let (uid, name) = (&spec.pod_uid, &spec.name);
                let what = format!("{}: container {name} of pod {uid} starts the {starts}. time", node.name);
                report.broken(Invariant::NeverRestarts, at, what);
            }
        }
    }

    /// Forgets the starts on a node that has lost its disk.
    pub fn forget(&mut self, node: &str) {
        self.starts.retain(|(name, _), _| name != node);
    }
}
