//! What users do in an explored cluster: they scale, roll out, pause, undo, restart, replace and drain, sometimes all
//! at once.

use std::time::Duration;

use serde_json::json;

use skeg_core::api::Patch;
use skeg_core::object::ObjectKey;
use skeg_core::{Kind, Rng};

use super::BEGIN;
use super::workload::Workload;
use crate::fault::RestartAgent;
use crate::scenario::{Action, NodeSet, Step, UserAction};

/// Steps with their times, in no order.
struct Steps<'a> {
    rng: &'a mut Rng,
    /// When they all act at once, if they do.
    together: Option<Duration>,
    duration: Duration,
    all: Vec<Step>,
}

impl Steps<'_> {
    /// A moment at which to begin with something that is over within so many seconds.
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

/// What users do to workloads and nodes until `duration`.
pub fn draw(rng: &mut Rng, workloads: &[Workload], nodes: &[String], duration: Duration) -> Vec<Step> {
    let together = rng.chance(1, 3).then(|| rng.duration(BEGIN, duration));
    let mut steps = Steps { rng, together, duration, all: Vec::new() };
    for workload in workloads {
        // Who replaces it does nothing else to it: others would find it gone.
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
    // A cordon that met a fault may have come after it was taken back: it is taken back once more when all is well.
    if !cordoned.is_empty() {
        let nodes = NodeSet::Names(cordoned);
        steps.push(duration + Duration::from_secs(40), UserAction::Cordon { nodes, cordoned: false });
    }
    steps.all
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

/// Another image, and perhaps back.
fn roll_out(steps: &mut Steps<'_>, key: ObjectKey) {
    let (at, container) = (steps.moment(90), "main".to_owned());
    let image = format!("explore/web:{}", 2 + steps.rng.below(2));
    steps.push(at, UserAction::SetImage { key: key.clone(), container: container.clone(), image });
    if steps.rng.chance(1, 2) {
        let (later, image) = (steps.seconds(0, 90), "explore/web:1".to_owned());
        steps.push(at + later, UserAction::SetImage { key, container, image });
    }
}

/// A node is drained, cordoned for a while, or deleted and comes back under its name. Answers whether it was cordoned.
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
