//! The disruption controller: how many pods of each PodDisruptionBudget may be evicted.
//!
//! It writes the status; the API server's eviction subresource uses up what the status allows.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use k8s_openapi::api::policy::v1::{self as policy_v1, PodDisruptionBudgetStatus};
use k8s_openapi::api::{apps::v1 as apps_v1, core::v1 as core_v1};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use super::{Controller, EventNote, Plan, Write};
use crate::api::Subresource;
use crate::client::{Change, EventType, Index, Views, Watched};
use crate::limits;
use crate::machine::{Now, Wall};
use crate::object::{
    Kind, Object, ObjectKey, Pod, PodCondition, PodDisruptionBudget, Requirement, Selector, Stamp, Text, Time,
    controller_of, is_pod_ready, scaled,
};

const CONDITION: &str = "DisruptionAllowed";
const TARGET: Text = Text::DISRUPTION_TARGET;

static WATCHED: &[Watched] = &[
    Watched { kind: Kind::POD_DISRUPTION_BUDGET, indexes: &[] },
    Watched { kind: Kind::POD, indexes: &[Index::Label] },
    Watched { kind: Kind::REPLICATION_CONTROLLER, indexes: &[] },
    Watched { kind: Kind::REPLICA_SET, indexes: &[] },
    Watched { kind: Kind::DEPLOYMENT, indexes: &[] },
    Watched { kind: Kind::STATEFUL_SET, indexes: &[] },
];

/// Maintains the status of PodDisruptionBudgets. Keys are budgets, and pods with a DisruptionTarget condition that may
/// be stale.
#[derive(Debug, Default)]
pub struct DisruptionController;

impl Controller for DisruptionController {
    fn name(&self) -> &'static str {
        "disruption-controller"
    }

    fn watches(&self) -> &'static [Watched] {
        WATCHED
    }

    fn keys(&self, change: &Change, views: &Views, keys: &mut Vec<ObjectKey>) {
        match change.key.kind {
            Kind::POD_DISRUPTION_BUDGET => {
                if change.new.is_some() {
                    keys.push(change.key.clone());
                }
            }
            Kind::POD => pod_keys(change, views, keys),
            _ => {
                // The scale that counts is that of the controller of a ReplicaSet, if it has one.
                if scale(change.old.as_ref()) != scale(change.new.as_ref()) {
                    let budgets = views.view(Kind::POD_DISRUPTION_BUDGET);
                    keys.extend(budgets.namespace(change.key.namespace()).map(Object::key));
                }
            }
        }
    }

    fn reconcile(&mut self, views: &Views, key: &ObjectKey, now: Now) -> Plan {
        if key.kind == Kind::POD {
            return stale_target(views, key, now);
        }
        views.get::<policy_v1::PodDisruptionBudget>(key).map_or_else(Plan::nothing, |pdb| sync(views, pdb, now))
    }
}

/// What of a workload enters how many pods are expected: its replicas, and the UID of its controller.
fn scale(workload: Option<&Object>) -> (Option<i32>, Option<&str>) {
    let above = workload.and_then(|workload| controller_of(workload.meta()));
    (workload.and_then(Object::replicas), above.map(|owner| owner.uid.as_str()))
}

fn pod_keys(change: &Change, views: &Views, keys: &mut Vec<ObjectKey>) {
    let old = change.old.as_ref().and_then(Object::get::<core_v1::Pod>);
    let new = change.new.as_ref().and_then(Object::get::<core_v1::Pod>);
    if new.is_some_and(is_target) && !old.is_some_and(is_target) {
        keys.push(change.key.clone());
    }
    if let (Some(old), Some(new)) = (old, new) {
        let same = (Rc::ptr_eq(&old.meta, &new.meta)
            || old.meta.labels == new.meta.labels
                && old.meta.deletion_timestamp == new.meta.deletion_timestamp
                && old.meta.owner_references == new.meta.owner_references)
            && is_pod_ready(old) == is_pod_ready(new);
        if same {
            return;
        }
    }
    let budgets = views.view(Kind::POD_DISRUPTION_BUDGET);
    if budgets.is_empty() {
        return;
    }
    for object in budgets.namespace(change.key.namespace()) {
        let Some(pdb) = object.get::<policy_v1::PodDisruptionBudget>() else { continue };
        let Some(selector) = selector_of(pdb) else { continue };
        if [old, new].into_iter().flatten().any(|p| selector.matches(p.meta.labels.as_ref())) {
            keys.push(object.key());
        }
    }
}

/// The selector of a budget: it selects nothing if it is not set; `None` if it is invalid.
fn selector_of(pdb: &PodDisruptionBudget) -> Option<Selector> {
    match &pdb.spec.selector {
        None => Some(Selector::nothing()),
        Some(s) => Selector::from_label_selector(s).ok(),
    }
}

fn pods_of<'a>(views: &'a Views, namespace: &str, selector: &Selector) -> Vec<&'a Pod> {
    let pods = views.view(Kind::POD);
    let rarest = selector
        .requirements
        .iter()
        .filter_map(|r| match r {
            Requirement::In(key, values) => match values.as_slice() {
                [value] => Some(format!("{namespace}/{key}={value}")),
                _ => None,
            },
            _ => None,
        })
        .min_by_key(|v| pods.indexed_len(Index::Label, v));
    let matches = |p: &&Pod| selector.matches(p.meta.labels.as_ref());
    match rarest {
        Some(value) => {
            pods.indexed(Index::Label, &value).filter_map(Object::get::<core_v1::Pod>).filter(matches).collect()
        }
        None => views.list::<core_v1::Pod>(namespace).filter(matches).collect(),
    }
}

/// How many pods are expected according to the controllers of the existing pods, and the pods without a controller.
fn expected_scale(views: &Views, pods: &[&Pod]) -> Result<(i32, usize), String> {
    let mut scales: BTreeMap<&str, i32> = BTreeMap::new();
    let mut unmanaged = 0;
    for pod in pods {
        let Some(owner) = controller_of(&pod.meta) else {
            unmanaged += 1;
            continue;
        };
        if scales.contains_key(owner.uid.as_str()) {
            continue;
        }
        let scale = scale_of(views, pod.namespace(), owner)
            .ok_or_else(|| format!("found no controllers for pod {:?}", pod.name()))?;
        scales.insert(&owner.uid, scale);
    }
    // Several ReplicaSets of one Deployment count once, with the Deployment's scale.
    let mut tops: BTreeMap<String, i32> = BTreeMap::new();
    for pod in pods {
        if let Some(owner) = controller_of(&pod.meta) {
            let top = deployment_of(views, pod.namespace(), owner).unwrap_or_else(|| owner.uid.clone());
            tops.insert(top, scales[owner.uid.as_str()]);
        }
    }
    Ok((tops.values().sum(), unmanaged))
}

fn workload<'a>(views: &'a Views, namespace: &str, owner: &crate::object::OwnerReference) -> Option<&'a Object> {
    let kind = Kind::by_api_version(&owner.api_version, &owner.kind)?;
    let view = views.synced(kind)?;
    view.get(&ObjectKey::new(kind, namespace, &owner.name)).filter(|o| o.uid() == owner.uid)
}

/// UID of the Deployment that owns a pod's ReplicaSet.
fn deployment_of(views: &Views, namespace: &str, owner: &crate::object::OwnerReference) -> Option<String> {
    let set = workload(views, namespace, owner)?.get::<apps_v1::ReplicaSet>()?;
    let above = controller_of(&set.meta)?;
    workload(views, namespace, above).map(|_| above.uid.clone())
}

fn scale_of(views: &Views, namespace: &str, owner: &crate::object::OwnerReference) -> Option<i32> {
    let object = workload(views, namespace, owner)?;
    if let Some(set) = object.get::<apps_v1::ReplicaSet>()
        && let Some(above) = controller_of(&set.meta)
    {
        // If a ReplicaSet has a managing owner, the owner's scale counts.
        return workload(views, namespace, above)?.replicas();
    }
    object.replicas()
}

/// `expectedPods` and `desiredHealthy`, and how many pods have no controller.
fn expected_and_desired(views: &Views, pdb: &PodDisruptionBudget, pods: &[&Pod]) -> Result<(i32, i32, usize), String> {
    let unreadable = |what: &str| format!("invalid value for {what}");
    if let Some(max) = &pdb.spec.max_unavailable {
        let (expected, unmanaged) = expected_scale(views, pods)?;
        let max = scaled(max, expected, true).ok_or_else(|| unreadable("maxUnavailable"))?;
        return Ok((expected, (expected - max).max(0), unmanaged));
    }
    let Some(min) = &pdb.spec.min_available else { return Ok((pods.len() as i32, 0, 0)) };
    if let crate::object::IntOrString::Int(n) = min {
        return Ok((pods.len() as i32, *n, 0));
    }
    let (expected, unmanaged) = expected_scale(views, pods)?;
    let desired = scaled(min, expected, true).ok_or_else(|| unreadable("minAvailable"))?;
    Ok((expected, desired, unmanaged))
}

fn sync(views: &Views, pdb: &PodDisruptionBudget, now: Now) -> Plan {
    let mut plan = Plan::nothing();
    if pdb.meta.deletion_timestamp.is_some() {
        return plan;
    }
    let note = |type_, reason, message| EventNote { about: Object::from(pdb.clone()), type_, reason, message };
    let counted = match selector_of(pdb) {
        None => Err("invalid label selector".to_owned()),
        Some(selector) => {
            let pods = pods_of(views, pdb.namespace(), &selector);
            expected_and_desired(views, pdb, &pods).map(|counts| (pods, counts))
        }
    };
    let (mut status, reason, message) = match counted {
        Err(message) => {
            plan.events.push(note(
                EventType::Warning,
                "CalculateExpectedPodCountFailed",
                format!("Failed to calculate the number of expected pods: {message}"),
            ));
            let mut status = (*pdb.status).clone();
            status.disruptions_allowed = Some(0);
            (status, "SyncFailed", message)
        }
        Ok((pods, (expected, desired, unmanaged))) => {
            if unmanaged > 0 {
                plan.events.push(note(EventType::Warning, "UnmanagedPods", format!(
                    "Pods selected by this PodDisruptionBudget (selector: {}) were found to be unmanaged. As a result, \
                     the status of the PDB cannot be calculated correctly, which may result in undefined behavior. To \
                     account for these pods please set \".spec.minAvailable\" field of the PDB to an integer value.",
                    selector_of(pdb).unwrap_or_default()
                )));
            }
            if pods.is_empty() {
                plan.events.push(note(EventType::Normal, "NoPods", "No matching pods found".to_owned()));
            }
            let (disrupted, overdue, recheck) = disrupted_pods(pdb, &pods, now.wall);
            plan.events.extend(overdue.into_iter().map(|pod| EventNote {
                about: Object::Pod(pod.clone()),
                type_: EventType::Warning,
                reason: "NotDeleted",
                message: format!(
                    "Pod was expected by PDB {}/{} to be deleted but it wasn't",
                    pdb.namespace(),
                    pdb.name()
                ),
            }));
            if let Some(after) = recheck {
                plan.requeue(after);
            }
            let healthy = pods.iter().filter(|p| is_healthy(p, &disrupted)).count() as i32;
            let allowed = if expected <= 0 { 0 } else { (healthy - desired).max(0) };
            let status = PodDisruptionBudgetStatus {
                current_healthy: Some(healthy),
                desired_healthy: Some(desired),
                expected_pods: Some(expected),
                disruptions_allowed: Some(allowed),
                disrupted_pods: (!disrupted.is_empty()).then_some(disrupted),
                conditions: pdb.status.conditions.clone(),
                observed_generation: pdb.meta.generation,
            };
            (status, if allowed > 0 { "SufficientPods" } else { "InsufficientPods" }, String::new())
        }
    };
    set_condition(&mut status, pdb.meta.generation, reason, &message, now.wall);
    if same_status(&status, &pdb.status) {
        plan.events.clear();
        return plan;
    }
    let mut next = pdb.clone();
    next.set_status(status);
    plan.writes.push(Write::Update(next.into(), Subresource::Status));
    plan
}

/// Whether two statuses are equal apart from how absent values are written.
fn same_status(a: &PodDisruptionBudgetStatus, b: &PodDisruptionBudgetStatus) -> bool {
    let plain = |s: &PodDisruptionBudgetStatus| {
        let mut s = s.clone();
        s.disrupted_pods = s.disrupted_pods.filter(|m| !m.is_empty());
        s
    };
    plain(a) == plain(b)
}

fn is_healthy(pod: &Pod, disrupted: &BTreeMap<String, Time>) -> bool {
    pod.meta.deletion_timestamp.is_none() && !disrupted.contains_key(pod.name()) && is_pod_ready(pod)
}

/// The evictions that were admitted but whose deletion has not been seen; those that timed out; when to check again.
fn disrupted_pods<'a>(
    pdb: &PodDisruptionBudget,
    pods: &[&'a Pod],
    wall: Wall,
) -> (BTreeMap<String, Time>, Vec<&'a Pod>, Option<Duration>) {
    let (mut disrupted, mut overdue, mut recheck) = (BTreeMap::new(), Vec::new(), None);
    let known = pdb.status.disrupted_pods.iter().flatten();
    for (name, time) in known {
        let pod = pods.iter().find(|p| p.name() == name);
        let Some(pod) = pod.filter(|p| p.meta.deletion_timestamp.is_none()) else { continue };
        let end = Wall::from_time(time) + limits::DISRUPTION_TIMEOUT;
        if end < wall {
            overdue.push(*pod);
            continue;
        }
        // One second more, because the comparison above is strict and timestamps in objects are whole seconds.
        let left = end.since(wall) + Duration::from_secs(1);
        recheck = Some(recheck.map_or(left, |r: Duration| r.min(left)));
        disrupted.insert(name.clone(), time.clone());
    }
    (disrupted, overdue, recheck)
}

fn set_condition(
    status: &mut PodDisruptionBudgetStatus,
    generation: Option<i64>,
    reason: &str,
    message: &str,
    wall: Wall,
) {
    let value = if status.disruptions_allowed.unwrap_or(0) > 0 { "True" } else { "False" };
    let conditions = status.conditions.get_or_insert_default();
    match conditions.iter_mut().find(|c| c.type_ == CONDITION) {
        Some(c) => {
            if c.status != value {
                c.last_transition_time = wall.to_time();
            }
            value.clone_into(&mut c.status);
            reason.clone_into(&mut c.reason);
            message.clone_into(&mut c.message);
            c.observed_generation = generation;
        }
        None => conditions.push(Condition {
            type_: CONDITION.to_owned(),
            status: value.to_owned(),
            reason: reason.to_owned(),
            message: message.to_owned(),
            last_transition_time: wall.to_time(),
            observed_generation: generation,
        }),
    }
}

fn is_target(pod: &Pod) -> bool {
    pod.meta.deletion_timestamp.is_none() && pod.status.condition(&TARGET).is_some_and(|c| c.status == Text::TRUE)
}

/// Resets the DisruptionTarget condition of a pod that was not deleted within two minutes.
fn stale_target(views: &Views, key: &ObjectKey, now: Now) -> Plan {
    let mut plan = Plan::nothing();
    let Some(pod) = views.get::<core_v1::Pod>(key).filter(|p| is_target(p)) else { return plan };
    if crate::object::is_pod_terminal(pod) {
        return plan;
    }
    let since = pod.status.condition(&TARGET).and_then(|c| c.last_transition_time.wall());
    let age = since.map_or(limits::DISRUPTION_TIMEOUT, |s| now.wall.since(s));
    if age < limits::DISRUPTION_TIMEOUT {
        plan.requeue(limits::DISRUPTION_TIMEOUT - age);
        return plan;
    }
    let mut next = pod.clone();
    for c in next.status_mut().conditions.iter_mut().filter(|c| c.type_ == TARGET) {
        *c = PodCondition {
            type_: TARGET,
            status: Text::FALSE,
            last_transition_time: Stamp::of(now.wall),
            ..PodCondition::default()
        };
    }
    plan.writes.push(Write::Update(next.into(), Subresource::Status));
    plan
}

#[cfg(test)]
mod tests {
    use super::{DisruptionController, WATCHED};
    use crate::client::Change;
    use crate::controllers::Controller;
    use crate::controllers::fake_cluster::{Fake, at, object, pod, with};
    use crate::object::{Kind, Object, ObjectKey};
    use serde_json::{Value, json};

    fn pdb(spec: Value) -> Object {
        let base = json!({"apiVersion":"policy/v1","kind":"PodDisruptionBudget",
            "metadata":{"name":"b","namespace":"d","uid":"b","generation":1},
            "spec":{"selector":{"matchLabels":{"app":"web"}}}});
        with(object(base), json!({"spec":spec}))
    }

    fn key() -> ObjectKey {
        ObjectKey::new(Kind::POD_DISRUPTION_BUDGET, "d", "b")
    }

    fn set(name: &str, replicas: i32, deployment: Option<&str>) -> Object {
        let owners: Vec<Value> = deployment
            .map(|d| json!({"apiVersion":"apps/v1","kind":"Deployment","name":d,"uid":d,"controller":true}))
            .into_iter()
            .collect();
        object(json!({"apiVersion":"apps/v1","kind":"ReplicaSet",
            "metadata":{"name":name,"namespace":"d","uid":name,"ownerReferences":owners},
            "spec":{"replicas":replicas,"selector":{}}}))
    }

    fn owned(name: &str, kind: &str, owner: &str) -> Object {
        let owners = json!([{"apiVersion":"apps/v1","kind":kind,"name":owner,"uid":owner,"controller":true}]);
        with(pod(name, "n"), json!({"metadata":{"ownerReferences":owners}}))
    }

    fn unready(base: Object) -> Object {
        with(base, json!({"status":{"conditions":[{"type":"Ready","status":"False"}]}}))
    }

    fn fake(spec: Value, others: Vec<Object>) -> Fake {
        let kinds: Vec<Kind> = WATCHED.iter().map(|w| w.kind).collect();
        Fake::new(&kinds, others.into_iter().chain([pdb(spec)]))
    }

    fn status(fake: &Fake) -> Value {
        fake.get(Kind::POD_DISRUPTION_BUDGET, "d/b").unwrap().to_json()["status"].clone()
    }

    #[test]
    fn what_changes_the_scale_of_pods_wakes_their_budget() {
        let fake = fake(json!({"maxUnavailable": 1}), vec![]);
        let woken = |old: Option<Object>, new: Option<Object>| {
            let changed = new.as_ref().or(old.as_ref()).expect("one of them").key();
            let mut keys = Vec::new();
            DisruptionController.keys(&Change { key: changed, old, new }, &fake.views, &mut keys);
            keys == [key()]
        };
        for (old, new, expect) in [
            (None, Some(set("a", 3, None)), true),
            (Some(set("a", 3, None)), Some(set("a", 4, None)), true),
            (Some(set("a", 3, None)), Some(set("a", 3, Some("dep"))), true),
            (Some(set("a", 3, Some("dep"))), Some(set("a", 3, Some("new"))), true),
            (Some(set("a", 3, Some("dep"))), Some(set("a", 3, Some("dep"))), false),
            (Some(set("a", 3, None)), None, true),
        ] {
            assert_eq!(woken(old.clone(), new.clone()), expect, "{old:?} to {new:?}");
        }
    }

    #[test]
    fn numbers() {
        let deployment = object(json!({"apiVersion":"apps/v1","kind":"Deployment",
            "metadata":{"name":"dep","namespace":"d","uid":"dep"},"spec":{"replicas":4,"selector":{},"template":{}}}));
        let stateful = object(json!({"apiVersion":"apps/v1","kind":"StatefulSet",
            "metadata":{"name":"sts","namespace":"d","uid":"sts"},"spec":{"replicas":5,"selector":{},"template":{}}}));
        let three = || {
            vec![
                set("a", 3, None),
                owned("p1", "ReplicaSet", "a"),
                owned("p2", "ReplicaSet", "a"),
                owned("p3", "ReplicaSet", "a"),
            ]
        };
        let rolled = vec![
            deployment,
            set("a", 3, Some("dep")),
            set("b", 1, Some("dep")),
            owned("p1", "ReplicaSet", "a"),
            owned("p2", "ReplicaSet", "b"),
        ];
        // current, desired, expected, allowed
        let cases: Vec<(&str, Value, Vec<Object>, [i64; 4], &str)> = vec![
            ("minAvailable", json!({"minAvailable":2}), three(), [3, 2, 3, 1], "SufficientPods"),
            ("none to spare", json!({"minAvailable":3}), three(), [3, 3, 3, 0], "InsufficientPods"),
            ("percent", json!({"minAvailable":"50%"}), three(), [3, 2, 3, 1], "SufficientPods"),
            ("maxUnavailable", json!({"maxUnavailable":1}), three(), [3, 2, 3, 1], "SufficientPods"),
            ("max percent", json!({"maxUnavailable":"100%"}), three(), [3, 0, 3, 3], "SufficientPods"),
            ("scale of the deployment", json!({"maxUnavailable":1}), rolled, [2, 3, 4, 0], "InsufficientPods"),
            (
                "stateful set",
                json!({"maxUnavailable":1}),
                vec![stateful, owned("p1", "StatefulSet", "sts")],
                [1, 4, 5, 0],
                "InsufficientPods",
            ),
            (
                "unready",
                json!({"minAvailable":1}),
                vec![pod("p1", "n"), unready(pod("p2", "n"))],
                [1, 1, 2, 0],
                "InsufficientPods",
            ),
            ("no pods", json!({"minAvailable":0}), vec![], [0, 0, 0, 0], "InsufficientPods"),
            ("no selector", json!({"minAvailable":0,"selector":null}), three(), [0, 0, 0, 0], "InsufficientPods"),
            (
                "everything",
                json!({"minAvailable":1,"selector":{"matchLabels":null}}),
                three(),
                [3, 1, 3, 2],
                "SufficientPods",
            ),
        ];
        for (what, spec, others, expect, reason) in cases {
            let mut fake = fake(spec, others);
            fake.settle(&mut DisruptionController, &key(), at(0));
            let s = status(&fake);
            let found = ["currentHealthy", "desiredHealthy", "expectedPods", "disruptionsAllowed"]
                .map(|f| s[f].as_i64().unwrap());
            assert_eq!(found, expect, "{what}");
            assert_eq!(s["conditions"][0]["reason"], reason, "{what}");
            assert_eq!(s["observedGeneration"], 1);
        }
    }

    #[test]
    fn pods_without_a_known_controller_fail_the_sync() {
        let mut fake = fake(json!({"maxUnavailable":1}), vec![owned("p1", "ReplicaSet", "gone")]);
        let plan = fake.step(&mut DisruptionController, &key(), at(0));
        assert_eq!(plan.events[0].reason, "CalculateExpectedPodCountFailed");
        assert_eq!(status(&fake)["conditions"][0]["reason"], "SyncFailed");
        assert_eq!(status(&fake)["disruptionsAllowed"], 0);
    }

    #[test]
    fn admitted_evictions_count_until_they_time_out() {
        let mut fake = fake(json!({"minAvailable":1}), vec![pod("p1", "n"), pod("p2", "n")]);
        fake.settle(&mut DisruptionController, &key(), at(0));
        let budget = fake.get(Kind::POD_DISRUPTION_BUDGET, "d/b").unwrap().clone();
        fake.put(with(budget, json!({"status":{"disruptedPods":{"p1":"2024-01-01T00:00:00Z","gone":"2024-01-01T00:00:00Z"},"disruptionsAllowed":0}})));
        let plan = fake.step(&mut DisruptionController, &key(), at(60));
        assert_eq!(plan.requeue_after.unwrap().as_secs(), 61);
        assert_eq!(status(&fake)["currentHealthy"], 1);
        assert_eq!(status(&fake)["disruptedPods"], json!({"p1":"2024-01-01T00:00:00Z"}));
        let plan = fake.step(&mut DisruptionController, &key(), at(121));
        assert_eq!(plan.events[0].reason, "NotDeleted");
        assert_eq!(status(&fake)["disruptionsAllowed"], 1);
    }

    #[test]
    fn a_pod_that_was_not_disrupted_after_all() {
        let target = with(
            pod("p1", "n"),
            json!({"status":{"conditions":[
            {"type":"DisruptionTarget","status":"True","lastTransitionTime":"2024-01-01T00:00:00Z"}]}}),
        );
        let (key, mut fake) = (target.key(), fake(json!({}), vec![target]));
        assert!(fake.step(&mut DisruptionController, &key, at(100)).writes.is_empty());
        fake.step(&mut DisruptionController, &key, at(120));
        assert_eq!(fake.get(Kind::POD, "d/p1").unwrap().to_json()["status"]["conditions"][0]["status"], "False");
    }

    #[test]
    fn what_concerns_a_budget() {
        let fake = fake(json!({"minAvailable":1}), vec![]);
        let other = with(pod("p1", "n"), json!({"metadata":{"labels":{"app":"other"}}}));
        for (old, new, expect) in [
            (pod("p1", "n"), unready(pod("p1", "n")), 1),
            (pod("p1", "n"), other.clone(), 1),
            (other.clone(), unready(other), 0),
            (pod("p1", "n"), with(pod("p1", "n"), json!({"metadata":{"annotations":{"a":"b"}}})), 0),
            (set("a", 3, None), set("a", 4, None), 1),
            (set("a", 3, None), set("a", 3, None), 0),
        ] {
            let mut keys = Vec::new();
            let change = Change { key: new.key(), old: Some(old), new: Some(new) };
            DisruptionController.keys(&change, &fake.views, &mut keys);
            assert_eq!(keys.len(), expect, "{change:?}");
        }
    }
}
