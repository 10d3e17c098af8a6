//! The Deployment controller: scales ReplicaSets so that pods of the newest template run, at the pace that the strategy
//! allows.
//!
//! What comes in: a Deployment, its ReplicaSets and their pods. What goes out: ReplicaSets to create, scale and delete;
//! revision annotations; status. Never writes to one object twice in one plan, so each write carries the revision on
//! which it was decided.
//!
//! Source: <https://kubernetes.io/docs/concepts/workloads/controllers/deployment/> and upstream's
//! `pkg/controller/deployment`.

mod progress;
mod recreate;
mod revisions;
mod rollback;
mod rolling;
mod scaling;

use k8s_openapi::api::{apps::v1 as apps_v1, core::v1 as core_v1};

pub use rollback::{has_rollout_begun, rollback_patch};

use crate::api::{Reason, Subresource};
use crate::client::{Change, EventType, Index, Views, Watched};
use crate::controllers::claim::{Candidate, claim};
use crate::controllers::{Controller, EventNote, Plan, Write};
use crate::machine::Now;
use crate::object::{Deployment, Kind, Object, ObjectKey, ReplicaSet, Selector, controller_of};

/// The label that distinguishes the pods of a Deployment's ReplicaSets.
pub const POD_TEMPLATE_HASH: &str = "pod-template-hash";
/// Annotation with the revision number of a rollout.
pub const REVISION: &str = "deployment.kubernetes.io/revision";
/// Annotation with earlier revisions of a ReplicaSet that became the newest again by a rollback.
pub const REVISION_HISTORY: &str = "deployment.kubernetes.io/revision-history";
/// Annotation with the Deployment's replicas at the time when the ReplicaSet was last scaled.
pub const DESIRED_REPLICAS: &str = "deployment.kubernetes.io/desired-replicas";
/// Annotation with the Deployment's replicas plus surge at the time when the ReplicaSet was last scaled.
pub const MAX_REPLICAS: &str = "deployment.kubernetes.io/max-replicas";

/// The Deployment controller. It has no state.
#[derive(Debug, Default)]
pub struct DeploymentController {}

impl Controller for DeploymentController {
    fn name(&self) -> &'static str {
        "deployment-controller"
    }

    fn watches(&self) -> &'static [Watched] {
        &[
            Watched { kind: Kind::DEPLOYMENT, indexes: &[] },
            Watched { kind: Kind::REPLICA_SET, indexes: &[Index::Controller] },
            Watched { kind: Kind::POD, indexes: &[Index::Controller] },
        ]
    }

    fn keys(&self, change: &Change, views: &Views, keys: &mut Vec<ObjectKey>) {
        match change.key.kind {
            Kind::DEPLOYMENT => keys.push(change.key.clone()),
            Kind::REPLICA_SET => {
                for object in change.old.iter().chain(change.new.iter()) {
                    push_owner(object, keys);
                }
                if change.new.as_ref().is_some_and(|o| controller_of(o.meta()).is_none()) {
                    push_adopters(change, views, keys);
                }
            }
            // Only deletions of pods matter here, and only for Recreate, which waits until the old pods are gone.
            Kind::POD if change.new.is_none() => {
                let owner = change.old.as_ref().and_then(|o| controller_of(o.meta()));
                if let Some(owner) = owner.filter(|o| o.kind == "ReplicaSet") {
                    let rs = views.named::<apps_v1::ReplicaSet>(change.key.namespace(), &owner.name);
                    if let Some(rs) = rs {
                        push_owner(&Object::from(rs.clone()), keys);
                    }
                }
            }
            _ => {}
        }
    }

    fn reconcile(&mut self, views: &Views, key: &ObjectKey, now: Now) -> Plan {
        match views.get::<apps_v1::Deployment>(key) {
            Some(deployment) => Sync::new(views, deployment, now).map_or_else(Plan::nothing, Sync::run),
            None => Plan::nothing(),
        }
    }

    fn failed(
        &mut self,
        views: &Views,
        key: &ObjectKey,
        write: &Write,
        error: &crate::api::Status,
    ) -> Option<EventNote> {
        let deployment = views.get::<apps_v1::Deployment>(key)?;
        let Write::Create(Object::ReplicaSet(rs)) = write else { return None };
        // This is most likely its own ReplicaSet, from a create whose reply was lost; the view will show it.
        if error.reason == Reason::AlreadyExists {
            return None;
        }
        Some(EventNote {
            about: Object::from(deployment.clone()),
            type_: EventType::Warning,
            reason: "ReplicaSetCreateError",
            message: format!("Failed to create new replica set {:?}: {error}", rs.name()),
        })
    }
}

fn push_owner(object: &Object, keys: &mut Vec<ObjectKey>) {
    if let Some(owner) = controller_of(object.meta()).filter(|o| o.kind == "Deployment") {
        keys.push(ObjectKey::new(Kind::DEPLOYMENT, object.namespace(), &owner.name));
    }
}

fn push_adopters(change: &Change, views: &Views, keys: &mut Vec<ObjectKey>) {
    let Some(rs) = &change.new else { return };
    for d in views.list::<apps_v1::Deployment>(rs.namespace()) {
        if Selector::from_label_selector(&d.spec.selector).is_ok_and(|s| s.matches(rs.labels())) {
            keys.push(d.key());
        }
    }
}

/// `spec.replicas`, which defaults to 1.
pub(crate) fn wanted(d: &Deployment) -> i32 {
    d.spec.replicas.unwrap_or(1)
}

/// `spec.replicas` of a ReplicaSet, which defaults to 1.
fn size(rs: &ReplicaSet) -> i32 {
    rs.spec.replicas.unwrap_or(1)
}

/// Available replicas, but at most `spec.replicas`: if the status lags behind a scale-down, the removed pods must not
/// be counted as available.
fn available(rs: &ReplicaSet) -> i32 {
    rs.status.available_replicas.unwrap_or(0).min(size(rs))
}

/// Whether the strategy is RollingUpdate.
fn is_rolling(d: &Deployment) -> bool {
    d.spec.strategy.as_ref().and_then(|s| s.type_.as_deref()).unwrap_or("RollingUpdate") == "RollingUpdate"
}

/// One reconciliation: the Deployment, its ReplicaSets sorted by age, and the plan so far.
struct Sync<'a> {
    views: &'a Views,
    d: &'a Deployment,
    selector: Selector,
    /// All ReplicaSets of the Deployment, oldest first.
    all: Vec<&'a ReplicaSet>,
    /// Index in `all` of the ReplicaSet with the Deployment's template.
    new: Option<usize>,
    now: Now,
    plan: Plan,
}

impl<'a> Sync<'a> {
    fn new(views: &'a Views, d: &'a Deployment, now: Now) -> Option<Sync<'a>> {
        // Validation rejects invalid and empty selectors. An object that has one nevertheless is left alone.
        let selector = Selector::from_label_selector(&d.spec.selector).ok().filter(|s| !s.is_everything())?;
        let mut all: Vec<&ReplicaSet> = views.controlled_by::<apps_v1::ReplicaSet>(d.uid()).collect();
        all.sort_by(|a, b| (&a.meta.creation_timestamp, a.name()).cmp(&(&b.meta.creation_timestamp, b.name())));
        let new = revisions::find_new(d, &all);
        Some(Sync { views, d, selector, all, new, now, plan: Plan::nothing() })
    }

    fn run(mut self) -> Plan {
        if self.d.meta.deletion_timestamp.is_some() {
            self.sync_status();
            return self.plan;
        }
        if self.claim() {
            return self.plan;
        }
        if self.d.spec.paused == Some(true) || self.is_scaling_event() {
            if !self.sync_revision(false) {
                self.scale();
            }
            self.sync_status();
        } else if is_rolling(self.d) {
            self.rolling();
        } else {
            self.recreate();
        }
        self.plan
    }

    fn new_rs(&self) -> Option<&'a ReplicaSet> {
        self.new.map(|i| self.all[i])
    }

    /// Old ReplicaSets, oldest first.
    fn old(&self) -> impl Iterator<Item = &'a ReplicaSet> + use<'a, '_> {
        self.all.iter().enumerate().filter(|(i, _)| Some(*i) != self.new).map(|(_, rs)| *rs)
    }

    fn event(&mut self, type_: EventType, reason: &'static str, message: String) {
        self.plan.events.push(EventNote { about: Object::from(self.d.clone()), type_, reason, message });
    }

    /// Adopts matching orphans and releases ReplicaSets that no longer match. Returns true if there was something to
    /// do.
    fn claim(&mut self) -> bool {
        let orphans = self.views.orphans::<apps_v1::ReplicaSet>(self.d.namespace());
        let candidates = self.all.iter().copied().chain(orphans);
        self.plan.writes.extend(claim(&Object::from(self.d.clone()), &self.selector, candidates.map(Candidate::from)));
        !self.plan.writes.is_empty()
    }

    /// Whether `spec.replicas` changed since the ReplicaSets were last scaled.
    fn is_scaling_event(&self) -> bool {
        let wanted = wanted(self.d).to_string();
        self.all.iter().filter(|rs| size(rs) > 0).any(|rs| {
            let noted = rs.meta.annotations.as_ref().and_then(|a| a.get(DESIRED_REPLICAS));
            noted.is_some_and(|noted| *noted != wanted)
        })
    }

    /// Scales a ReplicaSet and updates its annotations. Does nothing if nothing changes.
    fn scale_to(&mut self, rs: &ReplicaSet, replicas: i32) -> bool {
        let max = wanted(self.d) + scaling::max_surge(self.d);
        let mut copy = rs.clone();
        let notes = [(DESIRED_REPLICAS, wanted(self.d).to_string()), (MAX_REPLICAS, max.to_string())];
        let has = |k: &str, v: &String| rs.meta.annotations.as_ref().is_some_and(|a| a.get(k) == Some(v));
        let same_notes = notes.iter().all(|(k, v)| has(k, v));
        let before = size(rs);
        if before == replicas && same_notes {
            return false;
        }
        if !same_notes {
            let annotations = copy.meta_mut().annotations.get_or_insert_with(Default::default);
            annotations.extend(notes.map(|(k, v)| (k.to_owned(), v)));
        }
        copy.spec_mut().replicas = Some(replicas);
        self.plan.writes.push(Write::Update(Object::from(copy), Subresource::None));
        if before != replicas {
            let direction = if replicas > before { "up" } else { "down" };
            let message = format!("Scaled {direction} replica set {} from {before} to {replicas}", rs.name());
            self.event(EventType::Normal, "ScalingReplicaSet", message);
        }
        before != replicas
    }

    /// Deletes ReplicaSets beyond `revisionHistoryLimit`, oldest first, if the rollout is complete.
    fn clean_up(&mut self) {
        let limit = self.d.spec.revision_history_limit.unwrap_or(10).max(0) as usize;
        let mut old: Vec<&ReplicaSet> = self.old().filter(|rs| rs.meta.deletion_timestamp.is_none()).collect();
        let excess = old.len().saturating_sub(limit);
        old.sort_by_key(|rs| revisions::revision(&rs.meta));
        for rs in old.into_iter().take(excess) {
            let settled = rs.status.observed_generation >= rs.meta.generation;
            if rs.status.replicas == 0 && size(rs) == 0 && settled {
                self.plan.writes.push(Write::Delete {
                    key: rs.key(),
                    uid: rs.uid().into(),
                    rv: Some(rs.rv),
                    grace_seconds: None,
                    propagation: None,
                });
            }
        }
    }

    /// Whether pods of old ReplicaSets still exist (Recreate waits until they are gone, not only until they are being
    /// deleted).
    fn old_pods_running(&self) -> bool {
        self.old().any(|rs| {
            let mut pods = self.views.controlled_by::<core_v1::Pod>(rs.uid());
            // The view of pods may lag behind that of ReplicaSets, whose statuses count them too.
            let counted = rs.status.replicas + rs.status.terminating_replicas.unwrap_or(0);
            pods.any(|p| !crate::object::is_pod_terminal(p)) || counted > 0
        })
    }
}

#[cfg(test)]
mod tests;
