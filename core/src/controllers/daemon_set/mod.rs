//! The DaemonSet controller: one pod on each node that should have one.
//!
//! What comes in: a set, the nodes, its pods and its ControllerRevisions. What goes out: pods to create, each with a
//! node affinity for its node, pods to delete, revisions and a status.
//!
//! Never creates a second pod for a node on which the view shows one, unless the update strategy has `maxSurge`. Node
//! heartbeats never cause a reconciliation.
//!
//! Source: upstream's `pkg/controller/daemon`; KEP-1591 (surge).

mod fit;
mod pods;
mod status;
mod update;

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::{apps::v1 as apps_v1, core::v1 as core_v1};

use crate::api::Status;
use crate::client::{Change, EventType, Index, Views, Watched};
use crate::controllers::claim::{Candidate, claim, concerned};
use crate::controllers::history::{self, History, POD_REVISION_LABEL, Recorded};
use crate::controllers::{Controller, EventNote, Plan, Write, pod_control};
use crate::limits;
use crate::machine::{Mono, Now};
use crate::object::{DaemonSet, Kind, Node, Object, ObjectKey, Pod, Selector, Templated, is_mere_report};

use fit::Fit;
use pods::PerNode;
pub(super) use pods::target;

/// The back-off before a failed pod on a node is replaced: initial and maximum.
const FAILED_POD_BACKOFF: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(15 * 60));

/// The controller.
#[derive(Debug, Default)]
pub struct DaemonSetController {
    /// The back-off for failed pods by set and node, and the time of the last replacement.
    failed: BTreeMap<(ObjectKey, String), (Duration, Mono)>,
}

const WATCHES: &[Watched] = &[
    Watched { kind: Kind::DAEMON_SET, indexes: &[] },
    Watched { kind: Kind::POD, indexes: &[Index::Controller] },
    Watched { kind: Kind::NODE, indexes: &[] },
    Watched { kind: Kind::CONTROLLER_REVISION, indexes: &[Index::Controller] },
];

impl Controller for DaemonSetController {
    fn name(&self) -> &'static str {
        "daemonset-controller"
    }

    fn watches(&self) -> &'static [Watched] {
        WATCHES
    }

    fn keys(&self, change: &Change, views: &Views, keys: &mut Vec<ObjectKey>) {
        match change.key.kind {
            Kind::DAEMON_SET => keys.push(change.key.clone()),
            Kind::NODE if !node_matters(change) => {}
            Kind::NODE => keys.extend(views.view(Kind::DAEMON_SET).iter().map(|(key, _)| key.clone())),
            _ => concerned(Kind::DAEMON_SET, change, views, may_adopt, keys),
        }
    }

    fn reconcile(&mut self, views: &Views, key: &ObjectKey, now: Now) -> Plan {
        let found = views.view(Kind::DAEMON_SET).get(key).and_then(|o| Some((o, o.get::<apps_v1::DaemonSet>()?)));
        let Some((object, set)) = found else {
            self.failed.retain(|(set, _), _| set != key);
            return Plan::nothing();
        };
        let spec = &*set.spec;
        let selector = Selector::from_label_selector(&spec.selector).ok();
        let mut plan = Plan::nothing();
        let Some(selector) = selector.filter(|s| !s.is_everything()) else {
            let message = "This daemon set is selecting all pods. A non-empty selector is required.".to_owned();
            plan.events.push(EventNote {
                about: object.clone(),
                type_: EventType::Warning,
                reason: "SelectingAll",
                message,
            });
            return plan;
        };
        let mut sync = Sync { views, object, set, spec, selector, now, plan, failed: &mut self.failed };
        sync.run();
        sync.plan
    }

    fn succeeded(
        &mut self,
        views: &Views,
        key: &ObjectKey,
        write: &Write,
        object: Option<&Object>,
    ) -> Option<EventNote> {
        let about = views.view(Kind::DAEMON_SET).get(key)?.clone();
        let (reason, message) = pod_control::succeeded(write, object)?;
        Some(EventNote { about, type_: EventType::Normal, reason, message })
    }

    fn failed(&mut self, views: &Views, key: &ObjectKey, write: &Write, error: &Status) -> Option<EventNote> {
        let about = views.view(Kind::DAEMON_SET).get(key)?.clone();
        let (reason, message) = pod_control::failed(write, error)?;
        Some(EventNote { about, type_: EventType::Warning, reason, message })
    }
}

/// Whether a change of a node can change where pods should run: the node was created or deleted, or its labels or
/// taints changed.
fn node_matters(change: &Change) -> bool {
    let (Some(Object::Node(old)), Some(Object::Node(new))) = (&change.old, &change.new) else { return true };
    let same = |old: &Node, new: &Node| {
        old.meta.labels == new.meta.labels && (old.spec.taints == new.spec.taints || old.spec == new.spec)
    };
    !is_mere_report(old, new) && !same(old, new)
}

fn may_adopt(set: &Object, dependant: &Object) -> bool {
    let Some(set) = set.get::<apps_v1::DaemonSet>() else { return false };
    Selector::from_label_selector(&set.spec.selector).is_ok_and(|s| !s.is_everything() && s.matches(dependant.labels()))
}

/// One reconciliation of one set.
struct Sync<'a> {
    views: &'a Views,
    /// The set, as a generic object and as a typed one.
    object: &'a Object,
    set: &'a DaemonSet,
    spec: &'a Templated<apps_v1::DaemonSetSpec>,
    selector: Selector,
    now: Now,
    plan: Plan,
    failed: &'a mut BTreeMap<(ObjectKey, String), (Duration, Mono)>,
}

impl<'a> Sync<'a> {
    fn run(&mut self) {
        if self.object.is_deleting() {
            return;
        }
        let history = History::of(self.views, self.object);
        let owned = self.views.controlled_by::<core_v1::Pod>(self.object.uid());
        let orphans = self.views.orphans::<core_v1::Pod>(self.object.namespace());
        self.plan.writes = claim(self.object, &self.selector, owned.chain(orphans).map(Candidate::from));
        self.plan.writes.extend(history.claims(self.views, &self.selector));
        if !self.plan.writes.is_empty() {
            return;
        }
        let labels = self.spec.template_meta().and_then(|m| m.labels.clone()).unwrap_or_default();
        let collisions = self.set.status.collision_count.unwrap_or(0);
        let template = self.spec.template();
        let current = match history.record(self.views, &template, POD_REVISION_LABEL, &labels, collisions) {
            Recorded::Is(revision) => revision,
            Recorded::After(write) => return self.plan.writes.push(*write),
            Recorded::Collides => return self.count_collision(collisions + 1),
        };
        let hash = history::hash(current, POD_REVISION_LABEL).to_owned();
        let per_node = PerNode::of(self.views.controlled_by::<core_v1::Pod>(self.object.uid()));
        let fits = self.fits();
        self.write_status(&fits, &per_node, &hash);
        let before = self.plan.writes.len();
        self.manage(&fits, &per_node, &hash);
        if self.plan.writes.len() == before {
            self.update(&fits, &per_node, &hash);
        }
        let is_live = |name: &str| {
            let live =
                |p: &Pod| history.named(name).is_some_and(|r| history::hash(r, POD_REVISION_LABEL) == hash_of(p));
            name == current.name() || per_node.pods().any(live)
        };
        self.plan.writes.extend(history.truncate(self.spec.revision_history_limit.unwrap_or(10), is_live));
    }

    fn count_collision(&mut self, count: i32) {
        let status = apps_v1::DaemonSetStatus { collision_count: Some(count), ..(*self.set.status).clone() };
        self.plan.writes.extend(Write::status(self.set, status));
    }

    /// Every node, and whether it should run a pod.
    fn fits(&self) -> Vec<(&'a Node, Fit)> {
        let pod = self.pod_spec();
        let nodes = self.views.list::<core_v1::Node>("");
        nodes.map(|node| (node, Fit::of(&pod, node))).collect()
    }

    /// Creates and deletes pods, at most `BURST_REPLICAS` of each in one pass.
    fn sync_nodes(&mut self, delete: &[&Pod], create: &[&str], hash: &str) {
        for node in create.iter().take(limits::BURST_REPLICAS) {
            let pod = self.new_pod(node, hash);
            self.plan.writes.push(Write::Create(Object::from(pod)));
        }
        for pod in delete.iter().take(limits::BURST_REPLICAS) {
            let (key, uid) = (pod.key(), pod.uid().into());
            self.plan.writes.push(Write::Delete { key, uid, rv: None, grace_seconds: None, propagation: None });
        }
    }
}

/// The hash of the revision from which a pod was created.
fn hash_of(pod: &Pod) -> &str {
    pod.meta.labels.as_ref().and_then(|l| l.get(POD_REVISION_LABEL)).map_or("", String::as_str)
}

#[cfg(test)]
mod tests;
