//! The ReplicaSet and ReplicationController controllers: keep the requested number of pods of a template.
//!
//! Both kinds use the same logic through [`Set`]. What comes in: a set and the pods that it manages or may adopt. What
//! goes out: pods to create and delete, owner references to patch, a status. Never touches a pod of another owner.
//! Never creates a pod with a name that was not chosen before sending.
//!
//! Source: upstream's `pkg/controller/replicaset` (which also handles ReplicationControllers by conversion).

mod ranking;
mod set;
mod status;
mod tally;

use std::collections::BTreeMap;

use k8s_openapi::api::{apps::v1 as apps_v1, core::v1 as core_v1};

use crate::api::Status;
use crate::client::{Change, EventType, Index, Views, Watched};
use crate::controllers::claim::{Candidate, claim, concerned, controller_ref};
use crate::controllers::{Controller, EventNote, Plan, Write, pod_control};
use crate::limits;
use crate::machine::Now;
use crate::object::{
    BoundPodSpec, KeyMap, Kind, NameMap, Object, ObjectKey, ObjectMeta, Pod, PodStatus, controller_of, is_pod_active,
    pod_phase,
};

use set::Set;
use tally::{Counts, Tally};

/// The last failed write, for the `ReplicaFailure` condition.
#[derive(Clone, Debug, PartialEq)]
struct Failure {
    reason: &'static str,
    message: String,
}

/// The controller of one of the two kinds.
#[derive(Debug)]
pub struct ReplicaSetController {
    kind: Kind,
    failures: BTreeMap<ObjectKey, Failure>,
    tallies: KeyMap<Tally>,
}

impl ReplicaSetController {
    /// Creates the ReplicaSet controller.
    pub fn replica_sets() -> ReplicaSetController {
        ReplicaSetController::of(Kind::REPLICA_SET)
    }

    /// Creates the ReplicationController controller.
    pub fn replication_controllers() -> ReplicaSetController {
        ReplicaSetController::of(Kind::REPLICATION_CONTROLLER)
    }

    fn of(kind: Kind) -> ReplicaSetController {
        ReplicaSetController { kind, failures: BTreeMap::new(), tallies: KeyMap::default() }
    }

    /// The counts of a set, from its tally if there is a valid one.
    fn counts(&mut self, key: &ObjectKey, object: &Object, set: &Set<'_>, views: &Views) -> Counts {
        match self.tallies.get(key).filter(|t| t.fits(object, set)) {
            Some(tally) => {
                let counts = tally.counts();
                debug_assert_eq!(counts, Tally::of(object, set, views).counts(), "{key}: a change was not observed");
                counts
            }
            None => {
                let tally = Tally::of(object, set, views);
                let counts = tally.counts();
                self.tallies.insert(key.clone(), tally);
                counts
            }
        }
    }
}

impl Controller for ReplicaSetController {
    fn name(&self) -> &'static str {
        if self.kind == Kind::REPLICA_SET { "replicaset-controller" } else { "replication-controller" }
    }

    fn watches(&self) -> &'static [Watched] {
        if self.kind == Kind::REPLICA_SET {
            &[
                Watched { kind: Kind::REPLICA_SET, indexes: &[Index::Controller] },
                Watched { kind: Kind::POD, indexes: &[Index::Controller] },
            ]
        } else {
            &[
                Watched { kind: Kind::REPLICATION_CONTROLLER, indexes: &[] },
                Watched { kind: Kind::POD, indexes: &[Index::Controller] },
            ]
        }
    }

    fn observe(&mut self, change: &Change, _now: Now) {
        let old = change.old.as_ref().and_then(Object::get::<core_v1::Pod>);
        let new = change.new.as_ref().and_then(Object::get::<core_v1::Pod>);
        if let (Some(old), Some(new)) = (old, new)
            && tally::weigh_the_same(old, new)
        {
            return;
        }
        let mut seen = None;
        for owner in [old, new].into_iter().flatten().filter_map(|p| controller_of(&p.meta)) {
            if owner.kind == self.kind.row().kind && seen.replace(&owner.name) != Some(&owner.name) {
                let slot = self.tallies.find(self.kind, change.key.namespace(), &owner.name);
                if let Some(slot) = slot {
                    self.tallies.at_mut(slot).1.changed(old, new);
                }
            }
        }
    }

    fn keys(&self, change: &Change, views: &Views, keys: &mut Vec<ObjectKey>) {
        if change.key.kind == self.kind {
            keys.push(change.key.clone());
            return;
        }
        if !pod_matters(change) {
            return;
        }
        let adopts = |set: &Object, pod: &Object| Set::of(set).is_some_and(|s| s.selector.matches(pod.labels()));
        concerned(self.kind, change, views, adopts, keys);
    }

    fn reconcile(&mut self, views: &Views, key: &ObjectKey, now: Now) -> Plan {
        let object = views.view(self.kind).get(key);
        let Some((object, set)) = object.and_then(|o| Set::of(o).map(|s| (o, s))) else {
            self.failures.remove(key);
            self.tallies.remove(key);
            return Plan::nothing();
        };
        let failure = self.failures.get(key).cloned();
        let counts = self.counts(key, object, &set, views);
        let mut sync = Sync { views, object, set, counts, now, plan: Plan::nothing() };
        if object.is_deleting() {
            sync.status(failure);
            return sync.plan;
        }
        if !sync.claim() {
            sync.status(failure);
            // The failure is kept until the set has the requested number of pods.
            if sync.manage() == 0 {
                self.failures.remove(key);
            }
        }
        sync.plan
    }

    fn succeeded(
        &mut self,
        views: &Views,
        key: &ObjectKey,
        write: &Write,
        object: Option<&Object>,
    ) -> Option<EventNote> {
        let about = views.view(self.kind).get(key)?.clone();
        let (reason, message) = pod_control::succeeded(write, object)?;
        Some(EventNote { about, type_: EventType::Normal, reason, message })
    }

    fn failed(&mut self, views: &Views, key: &ObjectKey, write: &Write, error: &Status) -> Option<EventNote> {
        let about = views.view(self.kind).get(key)?.clone();
        // The whole namespace is being deleted; an event on this set would add nothing.
        if matches!(write, Write::Create(_)) && is_namespace_terminating(error) {
            return None;
        }
        let (reason, message) = pod_control::failed(write, error)?;
        self.failures.insert(key.clone(), Failure { reason, message: error.to_string() });
        Some(EventNote { about, type_: EventType::Warning, reason, message })
    }
}

/// One reconciliation of one set.
struct Sync<'a> {
    views: &'a Views,
    object: &'a Object,
    set: Set<'a>,
    counts: Counts,
    now: Now,
    plan: Plan,
}

impl<'a> Sync<'a> {
    /// Active pods that this set manages.
    fn active(&self) -> Vec<&'a Pod> {
        self.views.controlled_by::<core_v1::Pod>(self.object.uid()).filter(|p| is_pod_active(p)).collect()
    }

    /// Adopts matching orphans and releases pods that no longer match. Returns true if there was something to do.
    fn claim(&mut self) -> bool {
        let mut orphans = self.views.orphans::<core_v1::Pod>(self.object.namespace());
        if self.counts.strangers == 0 && orphans.next().is_none() {
            return false;
        }
        let candidates = self
            .views
            .controlled_by::<core_v1::Pod>(self.object.uid())
            .chain(self.views.orphans::<core_v1::Pod>(self.object.namespace()));
        let active = candidates.filter(|p| is_pod_active(p)).map(Candidate::from);
        let writes = claim(self.object, &self.set.selector, active);
        self.plan.writes.extend(writes);
        !self.plan.writes.is_empty()
    }

    /// Creates or deletes pods to reach the requested number, at most `BURST_REPLICAS` in one pass. Returns the number
    /// of planned writes.
    fn manage(&mut self) -> usize {
        let before = self.plan.writes.len();
        let (active, wanted) = (self.active_count(), self.wanted());
        if active < wanted {
            let missing = (wanted - active).min(limits::BURST_REPLICAS);
            let pod = Object::from(self.pod());
            // All creates share the metadata and spec; the runner gives each its name.
            self.plan.writes.extend((0..missing).map(|_| Write::Create(pod.clone())));
        } else if active > wanted {
            let surplus = (active - wanted).min(limits::BURST_REPLICAS);
            let ranked = ranking::to_delete(self.active(), surplus, &self.related(), self.now);
            self.plan.writes.extend(ranked.into_iter().map(|pod| Write::Delete {
                key: pod.key(),
                uid: pod.uid().into(),
                rv: None,
                grace_seconds: None,
                propagation: None,
            }));
        }
        self.plan.writes.len() - before
    }

    /// Whether the set has the requested number of pods.
    fn is_complete(&self) -> bool {
        self.active_count() == self.wanted()
    }

    fn active_count(&self) -> usize {
        usize::try_from(self.counts.replicas).expect("a count of pods is not negative")
    }

    fn wanted(&self) -> usize {
        usize::try_from(self.set.replicas).unwrap_or(0)
    }

    /// Active pods of this set and of the sets with the same owner, counted by node: pods on crowded nodes are deleted
    /// first.
    fn related(&self) -> NameMap<usize> {
        let mut uids = vec![self.object.uid()];
        if let Some(owner) = controller_of(self.object.meta()).filter(|_| self.object.kind() == Kind::REPLICA_SET) {
            let siblings = self.views.controlled_by::<apps_v1::ReplicaSet>(&owner.uid).map(|rs| rs.uid());
            uids.extend(siblings.filter(|uid| *uid != self.object.uid()));
        }
        let mut per_node = NameMap::default();
        for uid in uids {
            for pod in self.views.controlled_by::<core_v1::Pod>(uid).filter(|p| is_pod_active(p)) {
                if let Some(node) = &pod.spec.node {
                    *per_node.entry_of(node) += 1;
                }
            }
        }
        per_node
    }

    fn pod(&self) -> Pod {
        let template = self.set.template_meta.cloned().unwrap_or_default();
        let meta = ObjectMeta {
            generate_name: Some(format!("{}-", self.object.name())),
            namespace: self.object.meta().namespace.clone(),
            labels: template.labels,
            annotations: template.annotations,
            finalizers: template.finalizers,
            owner_references: Some(vec![controller_ref(self.object)]),
            ..ObjectMeta::default()
        };
        Pod::new(meta, BoundPodSpec::of_template(self.set.pod), PodStatus::default())
    }
}

/// Whether a change of a pod can affect what its set decides or reports.
fn pod_matters(change: &Change) -> bool {
    let (Some(Object::Pod(old)), Some(Object::Pod(new))) = (&change.old, &change.new) else { return true };
    let ready = |p: &Pod| (p.status.summary().readiness, p.status.summary().since());
    old.meta != new.meta || pod_phase(old) != pod_phase(new) || ready(old) != ready(new)
}

fn is_namespace_terminating(error: &Status) -> bool {
    error.details.as_ref().is_some_and(|d| d.causes.iter().any(|c| c.reason == "NamespaceTerminating"))
}

#[cfg(test)]
mod template_tests;
#[cfg(test)]
mod tests;
