//! `surge-ceiling`: a Deployment's controller never scales its ReplicaSets up beyond `replicas + maxSurge`, as they
//! ever were. `paused-does-not-roll`: it creates no ReplicaSet for a template that was given while it was paused.

use std::collections::BTreeMap;

use skeg_core::object::{Deployment, IntOrString, Kind, Object, ObjectKey, ReplicaSet, controller_of, scaled};

use super::{Commit, Invariant, Report};

/// What is known of one Deployment.
#[derive(Debug, Default)]
struct Rollout {
    /// The highest number of replicas, surge included, that it ever allowed.
    most: i32,
    /// Whether it has always been paused since it was given its present template.
    is_held: bool,
    generation: Option<i64>,
    /// The sizes of its ReplicaSets by UID.
    sizes: BTreeMap<String, i32>,
}

/// Deployments by UID.
#[derive(Debug, Default)]
pub(super) struct Rollouts(BTreeMap<String, Rollout>);

/// `replicas + maxSurge`.
fn ceiling(d: &Deployment) -> i32 {
    let replicas = d.spec.replicas.unwrap_or(1);
    let strategy = d.spec.strategy.as_ref();
    if strategy.and_then(|s| s.type_.as_deref()) == Some("Recreate") {
        return replicas;
    }
    let quarter = IntOrString::String("25%".to_owned());
    let surge = strategy.and_then(|s| s.rolling_update.as_ref()?.max_surge.as_ref()).unwrap_or(&quarter);
    replicas + scaled(surge, replicas, true).unwrap_or(0)
}

impl Rollouts {
    pub fn deployment(&mut self, commit: &Commit<'_>) {
        let Some(Object::Deployment(d)) = commit.new else { return };
        let rollout = self.0.entry(d.uid().to_owned()).or_default();
        if rollout.generation == d.meta.generation {
            return;
        }
        let is_paused = d.spec.paused == Some(true);
        let is_same = matches!(commit.old, Some(Object::Deployment(old)) if old.spec.template() == d.spec.template());
        rollout.is_held = is_paused && (rollout.is_held || !is_same);
        rollout.generation = d.meta.generation;
        rollout.most = rollout.most.max(ceiling(d));
    }

    pub fn set(&mut self, commit: &Commit<'_>, report: &mut Report) {
        let Some(Object::ReplicaSet(set)) = commit.new.or(commit.old) else { return };
        let Some(owner) = controller_of(&set.meta).filter(|o| o.kind == "Deployment") else { return };
        let Some(rollout) = self.0.get_mut(&owner.uid) else { return };
        if commit.new.is_none() {
            rollout.sizes.remove(set.uid());
            return;
        }
        let size = set.spec.replicas.unwrap_or(1);
        let before = rollout.sizes.insert(set.uid().to_owned(), size);
        // One that is adopted comes with its size.
        let adopted = before.is_none() && commit.old.is_some();
        let total: i32 = rollout.sizes.values().sum();
        if !adopted && size > before.unwrap_or(0) && total > rollout.most {
            let (name, most) = (&owner.name, rollout.most);
            let what = format!("{} is scaled to {size}: Deployment {name} has {total}, at most {most}", set.key());
            report.broken(Invariant::SurgeCeiling, commit.at, what);
        }
        let d = commit.store.object(&ObjectKey::new(Kind::DEPLOYMENT, set.namespace(), &owner.name));
        if let Some(Object::Deployment(d)) = d.filter(|d| d.uid() == owner.uid)
            && commit.old.is_none()
            && rollout.is_held
            && runs_the_same(set, d)
        {
            let what = format!("{} is created; {} has been paused since it got this template", set.key(), d.key());
            report.broken(Invariant::PausedDoesNotRoll, commit.at, what);
        }
    }
}

fn runs_the_same(set: &ReplicaSet, d: &Deployment) -> bool {
    set.spec.pod.containers == d.spec.pod.containers && set.spec.pod.init_containers == d.spec.pod.init_containers
}
