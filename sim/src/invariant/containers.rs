//! `one-container`: there are never two running containers with the same pod and name. `never-restarts`: a container
//! whose restart policy is `Never` is started only once, unless it has restart rules of its own. `inits-come-first`: no
//! container starts before the init containers before it have completed, or, if they are sidecars, have been started.
//!
//! `restarts-back-off`: a container that has been restarted, and ended once more, is not restarted at once.
//!
//! Checked each time a runtime has started a container. After a node has lost its disk, its containers may start again,
//! and so may init containers in a new sandbox, as long as no main container has started.

use std::collections::BTreeMap;
use std::rc::Rc;

use skeg_core::agent::{ContainerId, ContainerSpec, ContainerState, SandboxId};

use super::reading::DRIFT;
use super::{Invariant, Report};
use crate::world::NodeHost;

/// How often each container with the restart policy `Never` was started: by node and pod UID.
#[derive(Debug, Default)]
pub struct Containers {
    starts: BTreeMap<(String, Rc<str>), Starts>,
    /// The last restart of each container that has been restarted, by node, pod UID and name.
    lately: BTreeMap<(String, Rc<str>, Rc<str>), Lately>,
}

/// A restart of a container. What a new life of its agent, or another image, starts need not wait.
#[derive(Debug)]
struct Lately {
    at: f64,
    sandbox: SandboxId,
    agent_life: u32,
    image: Option<String>,
}

/// The shortest time, in seconds, between the end of a container that has been restarted and its next start.
const BACK_OFF: f64 = 10.0;

/// How often the containers of a pod were started, by name.
#[derive(Debug, Default)]
struct Starts {
    counts: BTreeMap<Rc<str>, u32>,
    /// The sandbox of the last start.
    sandbox: Option<SandboxId>,
    /// A main container has started.
    is_initialized: bool,
}

impl Starts {
    /// Counts a start; returns how often this container has been started.
    fn count(&mut self, spec: &ContainerSpec) -> u32 {
        if self.sandbox.as_ref() != Some(&spec.sandbox) && !self.is_initialized {
            self.counts.clear();
        }
        self.sandbox = Some(spec.sandbox.clone());
        self.is_initialized |= spec.pod.containers.iter().any(|main| main.name == *spec.name);
        let starts = self.counts.entry(Rc::clone(&spec.name)).or_default();
        *starts += 1;
        *starts
    }
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

/// The init container that should have come before this container, and has not. Ephemeral containers wait for none.
fn missing_init<'a>(node: &NodeHost, spec: &'a ContainerSpec) -> Option<&'a str> {
    if spec.ephemeral.is_some() {
        return None;
    }
    let inits = spec.pod.init_containers.as_deref().unwrap_or_default();
    let before = inits.iter().take_while(|init| init.name != *spec.name);
    let missing = before.filter(|init| {
        let is_sidecar = init.restart_policy.as_deref() == Some("Always");
        let has_come = |state: &ContainerState| match state {
            ContainerState::Created => false,
            ContainerState::Running { .. } => is_sidecar,
            ContainerState::Exited { exit_code, .. } => is_sidecar || *exit_code == 0,
        };
        !node
            .runtime
            .containers()
            .any(|(_, other, state)| other.sandbox == spec.sandbox && *other.name == *init.name && has_come(state))
    });
    missing.map(|init| init.name.as_str()).next()
}

impl Containers {
    /// Checks a container that a node's runtime has just tried to start.
    pub fn started(&mut self, at: f64, (node, agent_life): (&NodeHost, u32), id: &ContainerId, report: &mut Report) {
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
        if let Some(early) = missing_init(node, spec) {
            let what = format!("{}: container {} of pod {} starts before {early}", node.name, spec.name, spec.pod_uid);
            report.broken(Invariant::InitsComeFirst, at, what);
        }
        self.check_back_off(at, (node, agent_life), spec, report);
        if never_restarts(spec) {
            let pod = self.starts.entry((node.name.clone(), Rc::clone(&spec.pod_uid))).or_default();
            let starts = pod.count(spec);
            if starts > 1 {
                let (uid, name) = (&spec.pod_uid, &spec.name);
                let what = format!("{}: container {name} of pod {uid} starts the {starts}. time", node.name);
                report.broken(Invariant::NeverRestarts, at, what);
            }
        }
    }

    /// Checks that a restart has waited: a container is restarted at once after its first end only.
    fn check_back_off(&mut self, at: f64, (node, life): (&NodeHost, u32), spec: &ContainerSpec, report: &mut Report) {
        if spec.attempt == 0 {
            return;
        }
        let place = (node.name.clone(), Rc::clone(&spec.pod_uid), Rc::clone(&spec.name));
        let image = spec.container().and_then(|container| container.image.clone());
        let known = self
            .lately
            .remove(&place)
            .filter(|known| (&known.sandbox, known.agent_life, &known.image) == (&spec.sandbox, life, &image));
        if let Some(passed) = known.map(|known| at - known.at).filter(|passed| *passed < BACK_OFF * (1.0 - DRIFT)) {
            let (uid, name) = (&spec.pod_uid, &spec.name);
            let what = format!("{}: container {name} of pod {uid} is restarted after {passed:.1} s, again", node.name);
            report.broken(Invariant::RestartsBackOff, at, what);
        }
        self.lately.insert(place, Lately { at, sandbox: spec.sandbox.clone(), agent_life: life, image });
    }

    /// Forgets the starts on a node that has lost its disk.
    pub fn forget(&mut self, node: &str) {
        self.starts.retain(|(name, _), _| name != node);
    }
}
