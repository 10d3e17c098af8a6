//! User actions in an explored cluster: scaling, rollouts, pauses, rollbacks, restarts, replacements, deletions and
//! drains, sometimes many at the same time, and often just when something goes wrong.

use std::collections::BTreeSet;
use std::time::Duration;

use k8s_openapi::api::core::v1::Taint;
use serde_json::json;

use skeg_core::api::{Patch, Propagation};
use skeg_core::object::ObjectKey;
use skeg_core::{Kind, Object, Rng};

use super::BEGIN;
use super::variety::LABEL;
use super::workload::Workload;
use crate::fault::{RestartAgent, Skew};
use crate::files::manifest::rank;
use crate::scenario::{Action, NodeSet, Step, UserAction};

/// The steps drawn so far, unsorted.
struct Steps<'a> {
    rng: &'a mut Rng,
    /// The time at which most users act; `None` if they act at independent times.
    together: Option<Duration>,
    /// When faults begin.
    faults: &'a [Duration],
    duration: Duration,
    /// Pods whose claims are deleted. Because of a fault, one may have been made anew before that.
    orphaned: Vec<ObjectKey>,
    all: Vec<Step>,
}

impl Steps<'_> {
    /// A random time, from `first` on, for an action that takes up to `seconds`, so that it ends before `duration`.
    /// Often it is the time at which all users act, or one about when a fault begins.
    fn moment(&mut self, first: Duration, seconds: u64) -> Duration {
        let last = self.duration.saturating_sub(Duration::from_secs(seconds)).max(first + Duration::from_secs(1));
        let at = match self.together {
            Some(at) if self.rng.chance(3, 4) => at,
            _ if self.rng.chance(1, 2) => match self.rng.pick(self.faults) {
                // So shortly before it that what follows is still under way, or within some seconds of it.
                Some(fault) => {
                    let (before, span) = *self.rng.pick(&[(300, 350), (3_000, 10_000)]).expect("there are some");
                    let around = self.rng.duration(*fault, *fault + Duration::from_millis(span));
                    around.saturating_sub(Duration::from_millis(before))
                }
                None => self.rng.duration(first, last),
            },
            _ => self.rng.duration(first, last),
        };
        at.clamp(first, last)
    }

    fn seconds(&mut self, least: u64, most: u64) -> Duration {
        Duration::from_millis(self.rng.range(least * 1_000, most * 1_000))
    }

    fn push(&mut self, at: Duration, action: impl Into<Action>) {
        self.all.push(Step::at(at, action));
    }
}

/// What users find.
pub struct Scene<'a> {
    /// The workloads.
    pub workloads: &'a [Workload],
    /// The names of the nodes.
    pub nodes: &'a [String],
    /// When faults begin.
    pub faults: &'a [Duration],
    /// Whether all workloads have room on one node fewer.
    pub has_spare_node: bool,
    /// When users must have done everything.
    pub duration: Duration,
}

/// Draws what users do to workloads and nodes. Workloads that were drawn are declared here, too.
pub fn draw(rng: &mut Rng, scene: &Scene<'_>) -> Vec<Step> {
    let Scene { workloads, nodes, faults, duration, .. } = *scene;
    let together = rng.chance(1, 3).then(|| rng.duration(BEGIN, duration));
    let mut steps = Steps { rng, together, faults, duration, orphaned: Vec::new(), all: Vec::new() };
    for workload in workloads {
        let begin = if workload.is_own { declare(&mut steps, workload) } else { BEGIN };
        let service = workload.objects.iter().find(|o| o.kind() == Kind::SERVICE && o.name() == workload.key.name());
        if let Some(service) = service.filter(|_| workload.is_own && steps.rng.chance(1, 6)) {
            on_service(&mut steps, service, begin);
        }
        // A workload that is replaced gets no other actions: they could find it missing.
        let replaces = steps.rng.chance(1, 5);
        for _ in 0..steps.rng.below(5) {
            if replaces {
                replace(&mut steps, workload, begin);
            } else {
                on_workload(&mut steps, workload, begin);
            }
        }
    }
    if workloads.iter().any(Workload::waits_for_label) {
        label(&mut steps, nodes);
    }
    let mut free: Vec<&String> = nodes.iter().collect();
    let (mut cordoned, mut deleted, mut tainted) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..steps.rng.below(4).min(nodes.len() as u64) {
        let node = free.swap_remove(steps.rng.below(free.len() as u64) as usize);
        match on_node(&mut steps, node) {
            OnNode::Drained | OnNode::Cordoned => cordoned.push(node.clone()),
            OnNode::Deleted => {
                cordoned.push(node.clone());
                deleted.push(node.clone());
            }
            OnNode::Tainted(taint) => tainted.push((node.clone(), taint)),
        }
    }
    if scene.has_spare_node && steps.rng.chance(1, 6) && !free.is_empty() {
        let node = steps.rng.pick(&free).expect("there are some");
        let at = steps.moment(BEGIN, 0);
        steps.push(at, delete(ObjectKey::new(Kind::NODE, "", node)));
    }
    // Because of a fault, a cordon may have been carried out after the uncordon or the deletion that belongs to it, and
    // a node may have been deleted after its agent was restarted. So both are done once more at the end, when no faults
    // are left.
    let end = duration + Duration::from_secs(40);
    for pod in std::mem::take(&mut steps.orphaned) {
        steps.push(end, delete(pod));
    }
    for node in cordoned {
        steps.push(end, UserAction::Cordon { nodes: NodeSet::Names(vec![node]), cordoned: false });
    }
    for (node, taint) in tainted {
        steps.push(end, taint_of(&node, &taint, true));
    }
    if !deleted.is_empty() {
        steps.push(end, RestartAgent { nodes: NodeSet::Names(deleted) });
    }
    let mut steps = steps.all;
    drop_refused_restarts(&mut steps);
    steps
}

/// Labels all nodes for the pods that wait for that, and again at the end those that have registered anew.
fn label(steps: &mut Steps<'_>, nodes: &[String]) {
    let (at, end) = (steps.moment(BEGIN, 0), steps.duration + Duration::from_secs(45));
    for node in nodes {
        let key = ObjectKey::new(Kind::NODE, "", node);
        let patch = Patch::Merge(json!({"metadata": {"labels": {LABEL: "here"}}}));
        steps.push(at, UserAction::Patch { key: key.clone(), patch: patch.clone() });
        steps.push(end, UserAction::Patch { key, patch });
    }
}

/// Changes where the port of a workload's Service leads to, and one time in two takes its node port away.
fn on_service(steps: &mut Steps<'_>, service: &Object, begin: Duration) {
    let at = steps.moment(begin, 0);
    let mut spec = json!({"ports": [{"port": 80, "targetPort": 8080}]});
    if steps.rng.chance(1, 2) {
        spec["type"] = json!("ClusterIP");
    }
    steps.push(at, UserAction::Patch { key: service.key(), patch: Patch::Merge(json!({"spec": spec})) });
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

fn delete(key: ObjectKey) -> UserAction {
    UserAction::Delete { key, cascade: Propagation::Background, grace_period: None }
}

/// Declares a workload, at once or later: most Jobs would have ended before anything happens. Returns from when on
/// users may act on it.
fn declare(steps: &mut Steps<'_>, workload: &Workload) -> Duration {
    let late = if workload.ends() { (3, 4) } else { (1, 4) };
    let at = if steps.rng.chance(late.0, late.1) { steps.moment(BEGIN, 30) } else { Duration::ZERO };
    let mut objects = workload.objects.clone();
    objects.sort_by_key(|object| rank(object.kind()));
    // What its pods refer to may come after them.
    if steps.rng.chance(1, 2)
        && let Some(config) = objects.iter().position(|object| object.kind() == Kind::CONFIG_MAP)
    {
        let later = at + steps.seconds(0, 20);
        let config = objects.remove(config);
        steps.push(later, UserAction::Apply(vec![config]));
    }
    steps.push(at, UserAction::Apply(objects));
    BEGIN.max(at + Duration::from_millis(100))
}

fn replace(steps: &mut Steps<'_>, workload: &Workload, begin: Duration) {
    let at = steps.moment(begin, 0);
    let cascade = match steps.rng.below(3) {
        0 => Propagation::Foreground,
        // Claims that go with their set do not wait for pods that outlive it, which do not start again then.
        1 if workload.adopts() && !workload.takes_claims_along() => Propagation::Orphan,
        _ => Propagation::Background,
    };
    // Its controller may be making pods when they become orphans.
    if cascade == Propagation::Orphan && workload.scales() {
        let (before, replicas) = (Duration::from_millis(steps.rng.below(1_000)), workload.replicas as i32);
        let key = workload.key.clone();
        steps.push(at.saturating_sub(before).max(begin), UserAction::Scale { key, replicas });
        // And those who clean up after it may not have heard of these.
        if !steps.faults.is_empty() && steps.rng.chance(1, 2) {
            let (up_to, for_) = (steps.seconds(2, 40), Some(steps.seconds(10, 60)));
            let early = at.saturating_sub(steps.seconds(0, 3)).max(begin);
            steps.push(early, Skew { nodes: NodeSet::ControlPlane, up_to, for_ });
        }
    }
    steps.push(at, UserAction::Replace { objects: workload.objects[..1].to_vec(), cascade });
}

fn on_workload(steps: &mut Steps<'_>, workload: &Workload, begin: Duration) {
    let key = workload.key.clone();
    let at = steps.moment(begin, 0);
    match steps.rng.below(6) {
        0 | 1 if workload.scales() => {
            let replicas = steps.rng.below(workload.replicas + 1) as i32;
            steps.push(at, UserAction::Scale { key, replicas });
        }
        2 if workload.rolls() && workload.is_own => roll_out(steps, key, begin),
        2 | 3 if workload.rolls() => steps.push(at, UserAction::Restart { key }),
        4 if key.kind == Kind::DEPLOYMENT => {
            let (at, later) = (steps.moment(begin, 30), steps.seconds(1, 30));
            steps.push(at, UserAction::Pause { key: key.clone(), paused: true });
            if workload.is_own && steps.rng.chance(1, 2) {
                let (key, container) = (key.clone(), "main".to_owned());
                let image = format!("explore/web:{}", 2 + steps.rng.below(2));
                let meanwhile = steps.rng.duration(Duration::ZERO, later);
                steps.push(at + meanwhile, UserAction::SetImage { key, container, image });
            }
            steps.push(at + later, UserAction::Pause { key, paused: false });
        }
        4 if workload.ends() && !workload.vanishes() => {
            let most = if key.kind == Kind::CRON_JOB { 150 } else { 30 };
            let (at, later) = (steps.moment(begin, most), steps.seconds(1, most));
            let patch = |suspend| Patch::Merge(json!({"spec": {"suspend": suspend}}));
            steps.push(at, UserAction::Patch { key: key.clone(), patch: patch(true) });
            // A Job may stay so, unless it keeps failed pods until it replaces them.
            let stays = key.kind == Kind::JOB && !steps.rng.chance(3, 4) && !workload.has_limit_per_index();
            if !stays {
                let back = (at + later).min(steps.duration);
                steps.push(back, UserAction::Patch { key, patch: patch(false) });
            }
        }
        5 if key.kind == Kind::STATEFUL_SET => {
            let pod = format!("{}-{}", key.name(), workload.first_ordinal() + steps.rng.below(workload.replicas));
            let key = ObjectKey::new(Kind::POD, key.namespace(), &pod);
            // With its claim, which goes when the pod does.
            if let Some(claim) = workload.claim().filter(|_| workload.is_own && steps.rng.chance(1, 2)) {
                let name = format!("{claim}-{pod}");
                let before = at.saturating_sub(steps.seconds(0, 5)).max(begin);
                steps.push(before, delete(ObjectKey::new(Kind::PERSISTENT_VOLUME_CLAIM, key.namespace(), &name)));
                steps.orphaned.push(key.clone());
            }
            let delete = |grace_period| {
                let (key, cascade) = (key.clone(), Propagation::Background);
                UserAction::Delete { key, cascade, grace_period }
            };
            // At once, in order, or in order and, since that takes so long, at once.
            let how = steps.rng.below(3);
            if how != 0 {
                steps.push(at, delete(None));
            }
            let patience = if how == 2 { steps.seconds(0, 10) } else { Duration::ZERO };
            if how != 1 {
                steps.push(at + patience, delete(Some(0)));
            }
        }
        0 if key.kind == Kind::JOB && workload.is_own && !workload.vanishes() => {
            let parallelism = 1 + steps.rng.below(workload.replicas);
            let patch = Patch::Merge(json!({"spec": {"parallelism": parallelism}}));
            steps.push(at, UserAction::Patch { key, patch });
        }
        _ => {}
    }
}

/// Sets another image and, one time in two, sets the first one again later.
fn roll_out(steps: &mut Steps<'_>, key: ObjectKey, begin: Duration) {
    let (at, container) = (steps.moment(begin, 90), "main".to_owned());
    let image = format!("explore/web:{}", 2 + steps.rng.below(2));
    steps.push(at, UserAction::SetImage { key: key.clone(), container: container.clone(), image });
    if steps.rng.chance(1, 2) {
        let (later, image) = (steps.seconds(0, 90), "explore/web:1".to_owned());
        steps.push(at + later, UserAction::SetImage { key, container, image });
    }
}

enum OnNode {
    Drained,
    Cordoned,
    Deleted,
    Tainted(Taint),
}

fn taint_of(node: &str, taint: &Taint, removed: bool) -> UserAction {
    UserAction::Taint { nodes: NodeSet::Names(vec![node.to_owned()]), taint: Box::new(taint.clone()), removed }
}

/// Drains a node, cordons it for a while, taints it until the end, or deletes it and lets it register again under its
/// name.
fn on_node(steps: &mut Steps<'_>, name: &str) -> OnNode {
    let set = NodeSet::Names(vec![name.to_owned()]);
    let (at, later) = (steps.moment(BEGIN, 60), steps.seconds(1, 150));
    let back = (at + later).min(steps.duration);
    let how = match steps.rng.below(5) {
        0 | 1 => OnNode::Drained,
        2 => OnNode::Cordoned,
        3 => {
            let effect = *steps.rng.pick(&["NoExecute", "NoSchedule"]).expect("there are some");
            OnNode::Tainted(Taint { key: "explore".to_owned(), effect: effect.to_owned(), ..Taint::default() })
        }
        _ => OnNode::Deleted,
    };
    match &how {
        OnNode::Tainted(taint) => {
            steps.push(at, taint_of(name, taint, false));
            return how;
        }
        OnNode::Drained => steps.push(at, UserAction::Drain { nodes: set.clone() }),
        OnNode::Cordoned => steps.push(at, UserAction::Cordon { nodes: set.clone(), cordoned: true }),
        OnNode::Deleted => {
            // What was cordoned comes back without a cordon.
            if steps.rng.chance(1, 2) {
                let before = at.saturating_sub(steps.seconds(1, 20)).max(BEGIN);
                steps.push(before, UserAction::Cordon { nodes: set.clone(), cordoned: true });
            }
            steps.push(at, delete(ObjectKey::new(Kind::NODE, "", name)));
            steps.push(back, RestartAgent { nodes: set });
            return how;
        }
    }
    steps.push(back, UserAction::Cordon { nodes: set, cordoned: false });
    how
}
