//! The objects other than pods and nodes that the scheduler reads: owners of pods that are spread by default,
//! namespaces and disruption budgets.

use std::rc::Rc;

use super::informer;
use crate::api::{FromServer, ToServer};
use crate::client::{Change, Informer, View};
use crate::machine::{Deadline, Now};
use crate::object::{Kind, Labels, Object, ObjectKey, Revision, Selector};
use crate::random::{Rng, mix};
use crate::scheduler::Scheduler;
use crate::scheduler::preemption::Budget;

/// The kinds that are read.
const KINDS: [Kind; 6] = [
    Kind::SERVICE,
    Kind::REPLICATION_CONTROLLER,
    Kind::REPLICA_SET,
    Kind::STATEFUL_SET,
    Kind::NAMESPACE,
    Kind::POD_DISRUPTION_BUDGET,
];

/// Those that pods with claims need.
const STORAGE: [Kind; 4] =
    [Kind::PERSISTENT_VOLUME_CLAIM, Kind::PERSISTENT_VOLUME, Kind::STORAGE_CLASS, Kind::CSI_NODE];

/// Those that pods with claims for devices need.
const DEVICES: [Kind; 3] = [Kind::RESOURCE_CLAIM, Kind::DEVICE_CLASS, Kind::RESOURCE_SLICE];

/// Which kinds are read beside those that always are.
#[derive(Clone, Copy, Debug)]
pub(super) struct Also {
    pub(super) volumes: bool,
    pub(super) devices: bool,
    pub(super) pod_groups: bool,
}

/// What has changed.
#[derive(Clone, Copy, Debug)]
pub(super) struct About {
    /// Anything about volumes.
    pub(super) volumes: bool,
    /// Anything about devices.
    pub(super) devices: bool,
}

/// An informer for each of them.
#[derive(Debug)]
pub(super) struct Surroundings {
    read: Vec<(Informer, View)>,
    changes: Vec<Change>,
}

impl Surroundings {
    /// Creates the informers. They are consecutive parts of the connection, from `first_part` on.
    pub(super) fn new(user: &Rc<str>, first_part: u16, mut rng: Rng, also: Also) -> Surroundings {
        let make = |(kind, part): (&Kind, u16)| {
            let rng = Rng::from_seed(mix(rng.next_u64(), u64::from(part)));
            (informer(*kind, user, part, rng), View::new(*kind, &[]))
        };
        let storage = STORAGE.iter().filter(|_| also.volumes);
        let devices = DEVICES.iter().filter(|_| also.devices);
        let groups = [Kind::POD_GROUP].iter().filter(|_| also.pod_groups);
        let kinds = KINDS.iter().chain(storage).chain(devices).chain(groups);
        Surroundings { read: kinds.zip(first_part..).map(make).collect(), changes: Vec::new() }
    }

    /// Whether all kinds have been listed.
    pub(super) fn is_synced(&self) -> bool {
        self.read.iter().all(|(_, view)| view.is_synced())
    }

    /// A PodGroup as it is known.
    pub(super) fn pod_group(&self, key: &ObjectKey) -> Option<&Object> {
        self.read.iter().find(|(_, view)| view.kind() == Kind::POD_GROUP)?.1.get(key)
    }

    /// The revision of the view of claims for devices; `None` if they are not read.
    pub(super) fn claims_revision(&self) -> Option<Revision> {
        self.read.iter().find(|(_, view)| view.kind() == Kind::RESOURCE_CLAIM).map(|(_, view)| view.revision())
    }

    /// Lists the claims for devices again, at once.
    pub(super) fn list_claims(&mut self, now: Now, rv: Option<Revision>, out: &mut Vec<ToServer>) {
        for (informer, view) in self.read.iter_mut().filter(|(_, view)| view.kind() == Kind::RESOURCE_CLAIM) {
            informer.relist(now, rv, out);
            informer.handle_timeout(now, view, out);
        }
    }

    /// Handles a message. Returns what has changed.
    pub(super) fn handle(
        &mut self,
        now: Now,
        input: &FromServer,
        core: &mut Scheduler,
        out: &mut Vec<ToServer>,
    ) -> About {
        for (informer, view) in &mut self.read {
            informer.handle(now, input, view, out, &mut self.changes);
        }
        let about = |kinds: &[Kind]| self.changes.iter().any(|change| kinds.contains(&change.key.kind));
        let about = About { volumes: about(&STORAGE), devices: about(&DEVICES) };
        for change in self.changes.drain(..) {
            tell(core, now, &change.key, change.new.as_ref());
        }
        about
    }

    pub(super) fn handle_timeout(&mut self, now: Now, out: &mut Vec<ToServer>) {
        for (informer, view) in &mut self.read {
            informer.handle_timeout(now, view, out);
        }
    }

    pub(super) fn poll_timeout(&self) -> Option<Deadline> {
        self.read.iter().map(|(informer, _)| informer.poll_timeout()).fold(None, Deadline::earlier)
    }
}

/// Tells the scheduler of a change; `None` is a deleted object.
fn tell(core: &mut Scheduler, now: Now, key: &ObjectKey, object: Option<&Object>) {
    let (namespace, name) = (key.namespace(), key.name());
    match key.kind {
        Kind::SERVICE => {
            let selector = match object {
                Some(Object::Service(s)) => s.spec.selector.as_ref(),
                _ => None,
            };
            core.service_changed(now, namespace, name, selector);
        }
        Kind::NAMESPACE => {
            let none = Labels::new();
            let labels = object.map(|o| o.meta().labels.as_ref().unwrap_or(&none));
            core.namespace_changed(now, name, labels);
        }
        Kind::POD_GROUP => core.pod_group_changed(now, key, object),
        Kind::POD_DISRUPTION_BUDGET => core.budget_changed(namespace, name, object.and_then(budget)),
        kind if STORAGE.contains(&kind) => core.storage_changed(now, key, object),
        kind if DEVICES.contains(&kind) => core.devices_changed(now, key, object),
        kind => core.controller_changed(now, kind, namespace, name, object.and_then(selector)),
    }
}

/// The selector of a controller; `None` for other kinds.
fn selector(object: &Object) -> Option<Selector> {
    match object {
        Object::ReplicaSet(rs) => Selector::from_label_selector(&rs.spec.selector).ok(),
        Object::ReplicationController(rc) => rc.spec.selector.as_ref().map(Selector::from_map),
        Object::StatefulSet(set) => Selector::from_label_selector(&set.spec.selector).ok(),
        _ => None,
    }
}

fn budget(object: &Object) -> Option<Budget> {
    let Object::PodDisruptionBudget(pdb) = object else { return None };
    // Without a selector, or with an empty one, it protects no pods.
    let selector = pdb.spec.selector.as_ref().map(Selector::from_label_selector)?.ok()?;
    let disrupted = pdb.status.disrupted_pods.iter().flatten().map(|(name, _)| name.clone()).collect();
    Some(Budget { selector, allowed: pdb.status.disruptions_allowed.unwrap_or(0), disrupted })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::selector;
    use crate::object::{Object, Selector};

    #[test]
    fn controllers_select() {
        let check = |api: &str, kind: &str, spec: Value, expect: Option<&str>| {
            let mut whole = json!({"apiVersion": api, "kind": kind, "metadata": {"name": "x", "namespace": "d"}});
            whole["spec"] = spec;
            let object = Object::from_json(whole).unwrap();
            assert_eq!(selector(&object), expect.map(|e| Selector::parse(e).unwrap()), "{kind}");
        };
        let template = json!({"metadata": {"labels": {"a": "b"}}, "spec": {"containers": []}});
        let by_labels = json!({"selector": {"matchLabels": {"a": "b"}}, "template": template, "serviceName": "s"});
        check("apps/v1", "ReplicaSet", by_labels.clone(), Some("a=b"));
        check("apps/v1", "StatefulSet", by_labels, Some("a=b"));
        check("v1", "ReplicationController", json!({"selector": {"a": "b"}, "template": template}), Some("a=b"));
    }
}
