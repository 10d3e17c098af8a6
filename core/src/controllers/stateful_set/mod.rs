//! The StatefulSet controller: pods with stable identities, created in order.
//!
//! What comes in: a set, its pods, its ControllerRevisions and its pods' claims. What goes out: pods and claims to
//! create, pods to delete, revisions and a status.
//!
//! Never creates a second pod with an identity while the view still shows the first. Never creates a pod of an ordered
//! set while an earlier one is unavailable. Never deletes a claim (the garbage collector does, because of the owner
//! references that are set here by the retention policy).
//!
//! Source: upstream's `pkg/controller/statefulset`; KEP-3335 (start ordinal), KEP-1847 (retention), KEP-961
//! (maxUnavailable).

mod claims;
mod identity;
mod status;
mod update;

use k8s_openapi::api::{apps::v1 as apps_v1, core::v1 as core_v1};

use crate::api::Status;
use crate::client::{Change, EventType, Index, Views, Watched};
use crate::controllers::claim::{Candidate, claim, concerned};
use crate::controllers::history::{self, HASH_LABEL, History, POD_REVISION_LABEL, Recorded};
use crate::controllers::{Controller, EventNote, Plan, Write};
use crate::machine::Now;
use crate::object::{
    ControllerRevision, Kind, Object, ObjectKey, Pod, PodPhase, Selector, StatefulSet, Templated, is_pod_ready,
    is_pod_terminal,
};

use identity::{Member, ordinal_of};

/// The controller. It is stateless.
#[derive(Debug, Default)]
pub struct StatefulSetController;

const WATCHES: &[Watched] = &[
    Watched { kind: Kind::STATEFUL_SET, indexes: &[] },
    Watched { kind: Kind::POD, indexes: &[Index::Controller] },
    Watched { kind: Kind::CONTROLLER_REVISION, indexes: &[Index::Controller] },
    Watched { kind: Kind::PERSISTENT_VOLUME_CLAIM, indexes: &[] },
];

impl Controller for StatefulSetController {
    fn name(&self) -> &'static str {
        "statefulset-controller"
    }

    fn watches(&self) -> &'static [Watched] {
        WATCHES
    }

    fn keys(&self, change: &Change, views: &Views, keys: &mut Vec<ObjectKey>) {
        match change.key.kind {
            Kind::STATEFUL_SET => keys.push(change.key.clone()),
            Kind::PERSISTENT_VOLUME_CLAIM => keys.extend(identity::sets_of_claim(&change.key, views)),
            _ => concerned(Kind::STATEFUL_SET, change, views, may_adopt, keys),
        }
    }

    fn reconcile(&mut self, views: &Views, key: &ObjectKey, now: Now) -> Plan {
        let Some(object) = views.view(Kind::STATEFUL_SET).get(key) else { return Plan::nothing() };
        let Some(set) = object.get::<apps_v1::StatefulSet>() else { return Plan::nothing() };
        let spec = &*set.spec;
        // Validation rejects a selector that matches everything. If there is one nevertheless, it must not adopt
        // anything.
        let selector = Selector::from_label_selector(&spec.selector).ok().filter(|s| !s.is_everything());
        let Some(selector) = selector else { return Plan::nothing() };
        let mut sync = Sync { views, object, set, spec, selector, now, plan: Plan::nothing() };
        sync.run();
        sync.plan
    }

    fn succeeded(&mut self, views: &Views, key: &ObjectKey, write: &Write, _: Option<&Object>) -> Option<EventNote> {
        let about = views.view(Kind::STATEFUL_SET).get(key)?.clone();
        let (verb, what) = told(write, key)?;
        let reason = if verb == "create" { "SuccessfulCreate" } else { "SuccessfulDelete" };
        let end = if matches!(write, Write::Create(o) if o.kind() != Kind::POD) { "success" } else { "successful" };
        let message = format!("{verb} {what} in StatefulSet {} {end}", key.name());
        Some(EventNote { about, type_: EventType::Normal, reason, message })
    }

    fn failed(&mut self, views: &Views, key: &ObjectKey, write: &Write, error: &Status) -> Option<EventNote> {
        let about = views.view(Kind::STATEFUL_SET).get(key)?.clone();
        let (verb, what) = told(write, key)?;
        let reason = if verb == "create" { "FailedCreate" } else { "FailedDelete" };
        let message = format!("{verb} {what} in StatefulSet {} failed error: {error}", key.name());
        Some(EventNote { about, type_: EventType::Warning, reason, message })
    }
}

/// The verb and the object in the Event about a write; `None` for writes without an Event.
fn told(write: &Write, set: &ObjectKey) -> Option<(&'static str, String)> {
    match write {
        Write::Create(o) if o.kind() == Kind::POD => Some(("create", format!("Pod {}", o.name()))),
        Write::Create(o) if o.kind() == Kind::PERSISTENT_VOLUME_CLAIM => {
            let ordinal = o.name().rsplit('-').next().unwrap_or("");
            Some(("create", format!("Claim {} Pod {}-{ordinal}", o.name(), set.name())))
        }
        Write::Delete { key, .. } if key.kind == Kind::POD => Some(("delete", format!("Pod {}", key.name()))),
        Write::Create(_)
        | Write::Delete { .. }
        | Write::Update(..)
        | Write::Patch { .. }
        | Write::SetScale { .. }
        | Write::DeleteCollection { .. }
        | Write::ExpectEmpty { .. }
        | Write::ExpectUnused { .. }
        | Write::ExpectMissing { .. } => None,
    }
}

fn may_adopt(set: &Object, dependant: &Object) -> bool {
    let Some(set) = set.get::<apps_v1::StatefulSet>() else { return false };
    Selector::from_label_selector(&set.spec.selector).is_ok_and(|s| !s.is_everything() && s.matches(dependant.labels()))
}

/// One reconciliation of one set.
struct Sync<'a> {
    views: &'a Views,
    /// The set, as a generic object and as a typed one.
    object: &'a Object,
    set: &'a StatefulSet,
    spec: &'a Templated<apps_v1::StatefulSetSpec>,
    selector: Selector,
    now: Now,
    plan: Plan,
}

/// The revisions from which pods are created.
struct Revisions<'a> {
    current: &'a ControllerRevision,
    update: &'a ControllerRevision,
}

/// Whether an ordered set may go on to the next pod.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Order {
    GoOn,
    Wait,
}

impl<'a> Sync<'a> {
    fn run(&mut self) {
        let history = History::of(self.views, self.object);
        self.claim(&history);
        if !self.plan.writes.is_empty() {
            return;
        }
        let labels = self.spec.template_meta().and_then(|m| m.labels.clone()).unwrap_or_default();
        let collisions = self.set.status.collision_count.unwrap_or(0);
        let update = match history.record(self.views, &self.spec.template(), HASH_LABEL, &labels, collisions) {
            Recorded::Is(revision) => revision,
            // A set that is being deleted gets no new revisions.
            Recorded::After(_) | Recorded::Collides if self.object.is_deleting() => return,
            Recorded::After(write) => return self.plan.writes.push(*write),
            Recorded::Collides => return self.count_collision(collisions + 1),
        };
        let current =
            self.set.status.current_revision.as_deref().and_then(|name| history.named(name)).unwrap_or(update);
        let revisions = Revisions { current, update };
        let members = self.members();
        self.write_status(&members, &revisions);
        if !self.object.is_deleting() {
            self.manage(&members, &revisions);
            let is_live = |name: &str| {
                name == current.name() || name == update.name() || members.iter().any(|m| revision_of(m.pod) == name)
            };
            self.plan.writes.extend(history.truncate(self.spec.revision_history_limit.unwrap_or(10), is_live));
        }
    }

    /// Adopts and releases revisions, and pods whose names are those of members.
    fn claim(&mut self, history: &History<'_>) {
        let owned = self.views.controlled_by::<core_v1::Pod>(self.object.uid());
        let orphans = self.views.orphans::<core_v1::Pod>(self.object.namespace());
        let members = owned.chain(orphans).filter(|p| ordinal_of(self.object.name(), p.name()).is_some());
        self.plan.writes.extend(claim(self.object, &self.selector, members.map(Candidate::from)));
        self.plan.writes.extend(history.claims(self.views, &self.selector));
    }

    fn count_collision(&mut self, count: i32) {
        let status = apps_v1::StatefulSetStatus { collision_count: Some(count), ..(*self.set.status).clone() };
        self.plan.writes.extend(Write::status(self.set, status));
    }

    /// The set's pods, sorted by ordinal.
    fn members(&self) -> Vec<Member<'a>> {
        let pods = self.views.controlled_by::<core_v1::Pod>(self.object.uid());
        let member = |pod: &'a Pod| Some(Member { ordinal: ordinal_of(self.object.name(), pod.name())?, pod });
        let mut members: Vec<Member<'a>> = pods.filter_map(member).collect();
        members.sort_by_key(|m| m.ordinal);
        members
    }

    fn is_ordered(&self) -> bool {
        self.spec.pod_management_policy.as_deref() != Some("Parallel")
    }

    fn replicas(&self) -> i32 {
        self.spec.replicas.unwrap_or(1).max(0)
    }

    fn start(&self) -> i32 {
        self.spec.ordinals.as_ref().and_then(|o| o.start).unwrap_or(0)
    }

    /// Whether the set should have a pod with this ordinal.
    fn is_wanted(&self, ordinal: i32) -> bool {
        (self.start()..self.start().saturating_add(self.replicas())).contains(&ordinal)
    }

    /// Creates, repairs and deletes pods: first the wanted ordinals, then the ones that are not wanted, then pods of
    /// old revisions.
    fn manage(&mut self, members: &[Member<'a>], revisions: &Revisions<'a>) {
        let wanted: Vec<(i32, Option<&'a Pod>)> = (self.start()..self.start().saturating_add(self.replicas()))
            .map(|ordinal| (ordinal, members.iter().find(|m| m.ordinal == ordinal).map(|m| m.pod)))
            .collect();
        let condemned: Vec<Member<'a>> = members.iter().rev().filter(|m| !self.is_wanted(m.ordinal)).copied().collect();
        for (ordinal, pod) in &wanted {
            if self.manage_wanted(*ordinal, *pod, revisions) == Order::Wait && self.is_ordered() {
                return;
            }
        }
        let first = wanted.iter().find(|(_, pod)| pod.is_none_or(|p| self.is_unavailable(p)));
        let first_unavailable = match first {
            Some((_, pod)) => *pod,
            None => condemned.iter().rev().find(|m| self.is_unavailable(m.pod)).map(|m| m.pod),
        };
        for member in &condemned {
            self.own_claims(*member);
            if self.manage_condemned(member.pod, first_unavailable) == Order::Wait && self.is_ordered() {
                return;
            }
        }
        let pods: Vec<Option<&Pod>> = wanted.iter().map(|(_, pod)| *pod).collect();
        self.update_pods(&pods, revisions.update);
    }

    fn manage_wanted(&mut self, ordinal: i32, pod: Option<&'a Pod>, revisions: &Revisions<'a>) -> Order {
        let Some(pod) = pod else {
            if self.make_claims(ordinal) {
                let pod = self.new_pod(ordinal, revisions);
                self.plan.writes.extend(pod.map(|pod| Write::Create(Object::from(pod))));
            }
            return Order::Wait;
        };
        if is_pod_terminal(pod) {
            if pod.meta.deletion_timestamp.is_none() {
                self.delete(pod);
            }
            // A replacement is created once the pod is gone.
            return Order::Wait;
        }
        if pod.status.summary().phase == PodPhase::Pending {
            self.make_claims(ordinal);
        }
        if self.is_unavailable(pod) {
            return Order::Wait;
        }
        self.own_claims(Member { ordinal, pod });
        self.plan.writes.extend(identity::mend(pod, ordinal));
        Order::GoOn
    }

    fn manage_condemned(&mut self, pod: &'a Pod, first_unavailable: Option<&'a Pod>) -> Order {
        if pod.meta.deletion_timestamp.is_some() {
            return Order::Wait;
        }
        let is_first = first_unavailable.is_some_and(|first| first.uid() == pod.uid());
        if self.is_ordered() && !self.is_available(pod) && !is_first {
            return Order::Wait;
        }
        self.delete(pod);
        Order::Wait
    }

    fn delete(&mut self, pod: &Pod) {
        let (key, uid) = (pod.key(), pod.uid().into());
        self.plan.writes.push(Write::Delete { key, uid, rv: None, grace_seconds: None, propagation: None });
    }

    /// Whether the pod is running, and ready for `minReadySeconds`. If only time is missing, requeues the key.
    fn is_available(&mut self, pod: &Pod) -> bool {
        if !is_running_and_ready(pod) {
            return false;
        }
        let left = crate::controllers::availability::until_available(pod, self.spec.min_ready_seconds, self.now);
        if let Some(left) = left {
            self.plan.requeue(left);
        }
        left.is_none()
    }

    fn is_unavailable(&mut self, pod: &Pod) -> bool {
        !self.is_available(pod) || pod.meta.deletion_timestamp.is_some()
    }
}

fn is_running_and_ready(pod: &Pod) -> bool {
    pod.status.summary().phase == PodPhase::Running && is_pod_ready(pod)
}

/// The name of the revision from which a pod was created.
fn revision_of(pod: &Pod) -> &str {
    pod.meta.labels.as_ref().and_then(|l| l.get(POD_REVISION_LABEL)).map_or("", String::as_str)
}

#[cfg(test)]
mod tests;
