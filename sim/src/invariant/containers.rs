//! `one-container`: no two running containers are of one pod and name. `never-restarts`: a container that is never to
//! be restarted starts once, unless rules of its own say otherwise.
//!
//! Looked at when a runtime has started a container. What a node forgot with its disk may start again.

use std::collections::BTreeMap;
use std::rc::Rc;

use skeg_core::agent::{ContainerId, ContainerSpec, ContainerState};

use super::{Invariant, Report};
use crate::world::NodeHost;

/// Starts of containers that are never to be restarted, by node and pod, and by name.
#[derive(Debug, Default)]
pub struct Containers {
    starts: BTreeMap<(String, Rc<str>), BTreeMap<Rc<str>, u32>>,
}

/// Whether a container is never to be started again, whatever its end.
fn never_restarts(spec: &ContainerSpec) -> bool {
    let inits = spec.pod.init_containers.iter().flatten();
    let Some(container) = spec.pod.containers.iter().chain(inits).find(|c| c.name == *spec.name) else { return false };
    let policy = container.restart_policy.as_ref().or(spec.pod.restart_policy.as_ref());
    let has_rules = container.restart_policy_rules.as_ref().is_some_and(|rules| !rules.is_empty());
    policy.is_some_and(|policy| policy == "Never") && !has_rules
}

impl Containers {
    /// A node's runtime has tried to start a container.
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

    /// A node has lost its disk.
    pub fn forget(&mut self, node: &str) {
        self.starts.retain(|(name, _), _| name != node);
    }
}
