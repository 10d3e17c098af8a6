//! User actions in an explored cluster: scaling, rollouts, pauses, rollbacks, restarts, replacements and drains,
//! sometimes many at the same time.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::json;

use skeg_core::api::Patch;
use skeg_core::object::ObjectKey;
use skeg_core::{Kind, Rng};

use super::BEGIN;
use super::workload::Workload;
use crate::fault::RestartAgent;
use crate::scenario::{Action, NodeSet, Step, UserAction};

/// The steps drawn so far, unsorted.
struct Steps<'a> {
    rng: &'a mut Rng,
    /// The time at which most users act; `None` if they act at independent times.
    together: Option<Duration>,
    duration: Duration,
    all: Vec<Step>,
}

impl Steps<'_> {
    /// A random time for an action that takes up to `seconds`, so that it ends before `duration`.
    fn moment(&mut self, seconds: u64) -> Duration {
        let last = self.duration.saturating_sub(Duration::from_secs(seconds)).max(BEGIN + Duration::from_secs(1));
        match self.together {
            Some(at) if self.rng.chance(3, 4) => at.min(last),
            _ => self.rng.duration(BEGIN, last),
        }
    }

    fn seconds(&mut self, least: u64, most: u64) -> Duration {
        Duration::from_millis(self.rng.range(least * 1_000, most * 1_000))
    }

    fn push(&mut self, at: Duration, action: impl Into<Action>) {
        self.all.push(Step { at, action: action.into() });
    }
}

/// Draws what users do to workloads and nodes until `duration`.
pub fn draw(rng: &mut Rng, workloads: &[Workload], nodes: &[String], duration: Duration) -> Vec<Step> {
    let together = rng.chance(1, 3).then(|| rng.duration(BEGIN, duration));
    let mut steps = Steps { rng, together, duration, all: Vec::new() };
    for workload in workloads {
        // A workload that is replaced gets no other actions: they could find it missing.
        let replaces = steps.rng.chance(1, 5);
        for _ in 0..steps.rng.below(5) {
            if replaces {
                let at = steps.moment(0);
                steps.push(at, UserAction::Replace(workload.objects[..1].to_vec()));
            } else {
                on_workload(&mut steps, workload);
            }
        }
    }
    let mut free: Vec<&String> = nodes.iter().collect();
    let mut cordoned = Vec::new();
    for _ in 0..steps.rng.below(4).min(nodes.len() as u64) {
        let node = free.swap_remove(steps.rng.below(free.len() as u64) as usize);
        if on_node(&mut steps, node) {
            cordoned.push(node.clone());
        }
    }
    // Because of a fault, a cordon may have been carried out after the uncordon that belongs to it. So all nodes are
    // uncordoned once more at the end, when no faults are left.
    if !cordoned.is_empty() {
        let nodes = NodeSet::Names(cordoned);
        steps.push(duration + Duration::from_secs(40), UserAction::Cordon { nodes, cordoned: false });
    }
    let mut steps = steps.all;
    drop_refused_restarts(&mut steps);
    steps
}

/// Drops restarts that kubectl might refuse: of a Deployment that is also paused, and a second one of a workload, which
/// must come a second after the first. Faults may delay any step past another.
fn drop_refused_restarts(steps: &mut Vec<Step>) {
    let pauses = |step: &Step| match &step.action {
        Action::User(UserAction::Pause { key, .. }) => Some(key.clone()),
        _ => None,
    };
    let mut taken: BTreeSet<ObjectKey> = steps.iter().filter_map(pauses).collect();
    steps.retain(|step| match &step.action {
        Action::User(UserAction::Restart { key }) => taken.insert(key.clone()),
        _ => true,
    });
}

fn on_workload(steps: &mut Steps<'_>, workload: &Workload) {
    let key = workload.key.clone();
    let at = steps.moment(0);
    match steps.rng.below(5) {
        0 | 1 if workload.scales() => {
            let replicas = steps.rng.below(workload.replicas + 1) as i32;
            steps.push(at, UserAction::Scale { key, replicas });
        }
        2 if workload.rolls() && workload.is_own => roll_out(steps, key),
        2 | 3 if workload.rolls() => steps.push(at, UserAction::Restart { key }),
        4 if key.kind == Kind::DEPLOYMENT => {
            let (at, later) = (steps.moment(30), steps.seconds(1, 30));
            steps.push(at, UserAction::Pause { key: key.clone(), paused: true });
            steps.push(at + later, UserAction::Pause { key, paused: false });
        }
        4 if key.kind == Kind::JOB && !workload.vanishes() => {
            let (at, later) = (steps.moment(30), steps.seconds(1, 30));
            let patch = |suspend| Patch::Merge(json!({"spec": {"suspend": suspend}}));
            steps.push(at, UserAction::Patch { key: key.clone(), patch: patch(true) });
            steps.push(at + later, UserAction::Patch { key, patch: patch(false) });
        }
        _ => {}
    }
}

/// Sets another image and, one time in two, sets the first one again later.
fn roll_out(steps: &mut Steps<'_>, key: ObjectKey) {
    let (at, container) = (steps.moment(90), "main".to_owned());
    let image = format!("explore/web:{}", 2 + steps.rng.below(2));
    steps.push(at, UserAction::SetImage { key: key.clone(), container: container.clone(), image });
    if steps.rng.chance(1, 2) {
        let (later, image) = (steps.seconds(0, 90), "explore/web:1".to_owned());
        steps.push(at + later, UserAction::SetImage { key, container, image });
    }
}

/// Drains a node, cordons it for a while, or deletes it and lets it register again under its name. Returns whether it
/// was cordoned.
fn on_node(steps: &mut Steps<'_>, name: &str) -> bool {
    let set = NodeSet::Names(vec![name.to_owned()]);
    let (at, later) = (steps.moment(60), steps.seconds(1, 60));
    let how = steps.rng.below(4);
    match how {
        0 | 1 => steps.push(at, UserAction::Drain { nodes: set.clone() }),
        2 => steps.push(at, UserAction::Cordon { nodes: set.clone(), cordoned: true }),
        _ => {
            steps.push(at, UserAction::Delete(ObjectKey::new(Kind::NODE, "", name)));
            steps.push(at + later, RestartAgent { nodes: set });
            return false;
        }
    }
    steps.push(at + later, UserAction::Cordon { nodes: set, cordoned: false });
    true
}
