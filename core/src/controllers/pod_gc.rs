//! The pod garbage collector: deletes pods that no other component will ever finish.
//!
//! These are pods bound to nodes that do not exist, terminating pods that were never bound or whose node is out of
//! service, and terminated pods beyond a threshold. Keys are nodes and pods; there are no scans.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use k8s_openapi::api::core::v1 as core_v1;

use super::{Controller, Plan, Write};
use crate::api::Subresource;
use crate::client::{Change, Index, Views, Watched};
use crate::limits;
use crate::machine::{Mono, Now};
use crate::object::{
    Kind, Node, Object, ObjectKey, Pod, PodCondition, Revision, Stamp, Text, Time, is_node_ready, is_pod_terminal,
};

/// The taint by which somebody declares that a node does not run.
pub(super) const OUT_OF_SERVICE: &str = "node.kubernetes.io/out-of-service";

static WATCHED: &[Watched] =
    &[Watched { kind: Kind::NODE, indexes: &[] }, Watched { kind: Kind::POD, indexes: &[Index::Node] }];

/// Terminated pods in the order of their deletion: evicted ones first, then by age.
type FinishedId = (bool, Option<Time>, ObjectKey);

/// Deletes pods that no other component will delete.
#[derive(Debug)]
pub struct PodGcController {
    threshold: usize,
    /// Nodes that do not exist: since when this is known, and the revision that proves it.
    missing: BTreeMap<ObjectKey, (Mono, Revision)>,
    finished: BTreeSet<FinishedId>,
    finished_ids: BTreeMap<ObjectKey, FinishedId>,
}

impl Default for PodGcController {
    fn default() -> Self {
        PodGcController {
            threshold: limits::TERMINATED_PODS,
            missing: BTreeMap::new(),
            finished: BTreeSet::new(),
            finished_ids: BTreeMap::new(),
        }
    }
}

impl Controller for PodGcController {
    fn name(&self) -> &'static str {
        "pod-garbage-collector"
    }

    fn watches(&self) -> &'static [Watched] {
        WATCHED
    }

    fn keys(&self, change: &Change, views: &Views, keys: &mut Vec<ObjectKey>) {
        match (&change.old, &change.new) {
            (_, Some(Object::Node(node))) if self.missing.contains_key(&change.key) || is_out_of_service(node) => {
                keys.push(change.key.clone());
            }
            (Some(Object::Node(_)), None) => keys.push(change.key.clone()),
            (old, Some(Object::Pod(new))) => {
                let old = old.as_ref().and_then(Object::get::<core_v1::Pod>);
                self.pod_keys(&change.key, old, new, views, keys);
            }
            (Some(Object::Pod(_)), None) if self.finished_ids.contains_key(&change.key) => {
                keys.push(change.key.clone());
            }
            _ => {}
        }
    }

    fn reconcile(&mut self, views: &Views, key: &ObjectKey, now: Now) -> Plan {
        if key.kind == Kind::NODE { self.reconcile_node(views, key, now) } else { self.reconcile_pod(views, key) }
    }
}

fn is_out_of_service(node: &Node) -> bool {
    node.spec.taints.iter().flatten().any(|t| t.key == OUT_OF_SERVICE) && !is_node_ready(node)
}

fn force_delete(pod: &Pod) -> Write {
    Write::Delete { key: pod.key(), uid: Rc::from(pod.uid()), rv: None, grace_seconds: Some(0), propagation: None }
}

impl PodGcController {
    fn pod_keys(&self, key: &ObjectKey, old: Option<&Pod>, new: &Pod, views: &Views, keys: &mut Vec<ObjectKey>) {
        let deleting = |p: &Pod| p.meta.deletion_timestamp.is_some();
        let bound_now = old.is_none_or(|o| o.spec.node != new.spec.node);
        let deleting_now = deleting(new) && old.is_none_or(|o| !deleting(o));
        let finished_now = is_pod_terminal(new) && old.is_none_or(|o| !is_pod_terminal(o));
        if !bound_now && !deleting_now && !finished_now {
            return;
        }
        let mut concerns_pod = finished_now || deleting_now && new.spec.node.is_none();
        if let Some(node) = &new.spec.node {
            let node = ObjectKey::new(Kind::NODE, "", node);
            match views.get::<core_v1::Node>(&node) {
                Some(node) => concerns_pod |= deleting_now && is_out_of_service(node),
                None if bound_now => keys.push(node),
                None => {}
            }
        }
        if concerns_pod {
            keys.push(key.clone());
        }
    }

    fn reconcile_node(&mut self, views: &Views, key: &ObjectKey, now: Now) -> Plan {
        let mut plan = Plan::nothing();
        let pods = || views.view(Kind::POD).indexed(Index::Node, key.name()).filter_map(Object::get::<core_v1::Pod>);
        if let Some(node) = views.get::<core_v1::Node>(key) {
            self.missing.remove(key);
            if is_out_of_service(node) {
                let going = || pods().filter(|p| p.meta.deletion_timestamp.is_some());
                plan.writes.extend(going().filter_map(|p| failed(p, None)));
                plan.writes.extend(going().map(force_delete));
            }
            return plan;
        }
        let Some(newest) = pods().map(|p| p.rv).max() else {
            self.missing.remove(key);
            return plan;
        };
        let (since, proof) = *self.missing.entry(key.clone()).or_insert((now.mono, newest));
        let waited = now.mono.since(since);
        if waited < limits::ORPHAN_QUARANTINE {
            plan.requeue(limits::ORPHAN_QUARANTINE - waited);
            return plan;
        }
        if views.view(Kind::NODE).revision() < proof {
            plan.wait_for(Kind::NODE, limits::GARBAGE_RETRY);
            return plan;
        }
        plan.writes.extend(pods().filter_map(|p| failed(p, Some(orphaned(now)))));
        plan.writes.extend(pods().map(force_delete));
        plan
    }

    fn reconcile_pod(&mut self, views: &Views, key: &ObjectKey) -> Plan {
        let mut plan = Plan::nothing();
        let pod = views.get::<core_v1::Pod>(key);
        self.note_finished(key, pod);
        if let Some(pod) = pod.filter(|p| p.meta.deletion_timestamp.is_some()) {
            let node = pod.spec.node.as_deref().map(|n| views.named::<core_v1::Node>("", n));
            let lost = match node {
                None => true,
                Some(node) => node.is_some_and(is_out_of_service),
            };
            if lost {
                plan.writes.extend(failed(pod, None));
                plan.writes.push(force_delete(pod));
            }
            return plan;
        }
        let excess = self.finished.len().saturating_sub(self.threshold);
        let oldest = self.finished.iter().take(excess.min(limits::BURST_REPLICAS));
        plan.writes.extend(oldest.filter_map(|(_, _, key)| views.get::<core_v1::Pod>(key)).map(force_delete));
        plan
    }

    fn note_finished(&mut self, key: &ObjectKey, pod: Option<&Pod>) {
        if let Some(id) = self.finished_ids.remove(key) {
            self.finished.remove(&id);
        }
        if let Some(pod) = pod.filter(|p| is_pod_terminal(p)) {
            let evicted = pod.status.reason == "Evicted";
            let id = (!evicted, pod.meta.creation_timestamp.clone(), key.clone());
            self.finished.insert(id.clone());
            self.finished_ids.insert(key.clone(), id);
        }
    }
}

/// Gives a pod the phase Failed, which no agent will, and a condition; `None` if it has already terminated. Whoever
/// holds it by a finalizer until it has ended, as a Job does, lets it go then.
fn failed(pod: &Pod, condition: Option<PodCondition>) -> Option<Write> {
    if is_pod_terminal(pod) {
        return None;
    }
    let mut next = pod.clone();
    let status = next.status_mut();
    status.phase = Text::FAILED;
    if let Some(condition) = condition {
        status.conditions.retain(|c| c.type_ != condition.type_);
        status.conditions.push(condition);
    }
    Some(Write::Update(next.into(), Subresource::Status))
}

/// That a pod is disrupted because its node is gone.
fn orphaned(now: Now) -> PodCondition {
    PodCondition {
        type_: Text::DISRUPTION_TARGET,
        status: Text::TRUE,
        reason: "DeletionByPodGC".into(),
        message: "PodGC: node no longer exists".into(),
        last_transition_time: Stamp::of(now.wall),
        ..PodCondition::default()
    }
}

#[cfg(test)]
mod tests {
    use super::PodGcController;
    use crate::api::Subresource;
    use crate::client::Change;
    use crate::controllers::fake_cluster::{Fake, at, node, pod, with};
    use crate::controllers::{Controller, Write};
    use crate::object::{Kind, Object, ObjectKey, Revision};
    use serde_json::json;

    const KINDS: &[Kind] = &[Kind::NODE, Kind::POD];

    fn left(fake: &Fake) -> Vec<String> {
        fake.views.view(Kind::POD).iter().map(|(k, _)| k.name().to_owned()).collect()
    }

    #[test]
    fn pods_of_a_node_that_is_gone_go_after_quarantine() {
        let mut fake = Fake::new(KINDS, [node("n2"), pod("p1", "n1"), pod("p2", "n2"), pod("p3", "")]);
        let mut gc = PodGcController::default();
        let key = ObjectKey::new(Kind::NODE, "", "n1");
        assert!(fake.step(&mut gc, &key, at(0)).requeue_after.is_some());
        assert!(fake.step(&mut gc, &key, at(39)).writes.is_empty());
        fake.views.view_mut(Kind::NODE).set_revision(Revision(1));
        assert!(fake.step(&mut gc, &key, at(41)).writes.is_empty(), "the node may yet turn up");
        fake.advance();
        assert_eq!(fake.step(&mut gc, &key, at(46)).writes.len(), 2);
        assert_eq!(left(&fake), ["p2", "p3"]);
        assert!(fake.step(&mut gc, &key, at(47)).writes.is_empty());
    }

    #[test]
    fn a_node_that_comes_back_keeps_its_pods() {
        let mut fake = Fake::new(KINDS, [pod("p1", "n1")]);
        let mut gc = PodGcController::default();
        let key = node("n1").key();
        fake.step(&mut gc, &key, at(0));
        fake.put(node("n1"));
        fake.step(&mut gc, &key, at(50));
        fake.remove(&key);
        assert!(fake.step(&mut gc, &key, at(60)).writes.is_empty(), "quarantine starts anew");
    }

    #[test]
    fn deleted_pods_that_no_kubelet_will_finish() {
        let deleting = json!({"metadata":{"deletionTimestamp":"2024-01-01T00:00:00Z"}});
        let out = json!({"spec":{"taints":[{"key":"node.kubernetes.io/out-of-service","effect":"NoExecute"}]},
            "status":{"conditions":[{"type":"Ready","status":"Unknown"}]}});
        for (object, with_node, expect) in [
            (with(pod("p1", ""), deleting.clone()), node("n1"), 0),
            (pod("p1", ""), node("n1"), 1),
            (with(pod("p1", "n1"), deleting.clone()), node("n1"), 1),
            (with(pod("p1", "n1"), deleting.clone()), with(node("n1"), out.clone()), 0),
            (pod("p1", "n1"), with(node("n1"), out.clone()), 1),
        ] {
            let text = format!("{object:?} {with_node:?}");
            for key in [object.key(), with_node.key()] {
                let mut fake = Fake::new(KINDS, [object.clone(), with_node.clone()]);
                let mut gc = PodGcController::default();
                if key.kind == Kind::NODE
                    && object.get::<k8s_openapi::api::core::v1::Pod>().unwrap().spec.node.is_none()
                {
                    continue;
                }
                fake.step(&mut gc, &key, at(0));
                assert_eq!(left(&fake).len(), expect, "{text} by {key}");
            }
        }
    }

    #[test]
    fn what_no_agent_ends_has_failed_first() {
        let deleting = json!({"metadata": {"deletionTimestamp": "2024-01-01T00:00:00Z", "finalizers": ["a/b"]}});
        for (phase, first) in [("Pending", "Failed"), ("Succeeded", "")] {
            let going = with(with(pod("p1", ""), deleting.clone()), json!({"status": {"phase": phase}}));
            let mut fake = Fake::new(KINDS, [going.clone()]);
            let plan = fake.step(&mut PodGcController::default(), &going.key(), at(0));
            let told = match &plan.writes[0] {
                Write::Update(object, Subresource::Status) => object.to_json()["status"]["phase"].clone(),
                _ => json!(""),
            };
            assert_eq!(told, first, "{:?}", plan.writes);
            assert!(matches!(plan.writes.last(), Some(Write::Delete { .. })));
        }
    }

    #[test]
    fn the_oldest_finished_pods_go() {
        let done = |i: u32, reason: Option<&str>| {
            with(
                pod(&format!("p{i}"), "n1"),
                json!({"metadata":{"creationTimestamp":format!("2024-01-01T00:00:{:02}Z", 50 - i)},
                "status":{"phase":"Failed","reason":reason}}),
            )
        };
        let mut fake =
            Fake::new(KINDS, [node("n1"), done(1, None), done(2, None), done(3, Some("Evicted")), done(4, None)]);
        let mut gc = PodGcController { threshold: 2, ..PodGcController::default() };
        for i in 1..=4 {
            fake.step(&mut gc, &ObjectKey::new(Kind::POD, "d", &format!("p{i}")), at(0));
        }
        assert_eq!(left(&fake).len(), 2);
        assert!(!left(&fake).contains(&"p3".to_owned()), "evicted ones go first");
    }

    #[test]
    fn ordinary_changes_concern_nobody() {
        let fake = Fake::new(KINDS, [node("n1"), pod("p1", "n1")]);
        let gc = PodGcController::default();
        let count = |old: Option<Object>, new: Option<Object>| {
            let key = old.as_ref().or(new.as_ref()).unwrap().key();
            let mut keys = Vec::new();
            gc.keys(&Change { key, old, new }, &fake.views, &mut keys);
            keys.len()
        };
        assert_eq!(count(None, Some(pod("p1", "n1"))), 0);
        assert_eq!(count(Some(pod("p1", "n1")), None), 0);
        assert_eq!(count(Some(node("n1")), Some(node("n1"))), 0);
        assert_eq!(count(None, Some(pod("p1", "gone"))), 1);
        assert_eq!(count(Some(pod("p1", "n1")), Some(with(pod("p1", "n1"), json!({"status":{"phase":"Failed"}})))), 1);
    }
}
