//! Tests the autoscaler: what a metric asks for, how fast it is followed, and what the status and the Events say.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use serde_json::{Value, json};

use super::behavior::{Ask, Memory};
use super::replicas::{Tolerance, Workload};
use super::{Described, HorizontalPodAutoscalerController, MetricsSource, PodUsage};
use crate::controllers::fake_cluster::{Fake, at, object};
use crate::machine::{Mono, Now, Wall};
use crate::object::{Kind, Object, ObjectKey, Pod, Selector};

const KINDS: &[Kind] = &[
    Kind::HORIZONTAL_POD_AUTOSCALER,
    Kind::POD,
    Kind::DEPLOYMENT,
    Kind::REPLICA_SET,
    Kind::STATEFUL_SET,
    Kind::REPLICATION_CONTROLLER,
];

/// A pod of `web` that has been ready for long, with one container that requests one core.
fn pod(name: &str, patch: Value) -> Object {
    let mut value = json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": "d", "labels": {"app": "web"}},
        "spec": {"containers": [{"name": "main", "resources": {"requests": {"cpu": "1"}}}]},
        "status": {"phase": "Running", "startTime": "2020-01-01T00:00:00Z", "conditions": [
            {"type": "Ready", "status": "True", "lastTransitionTime": "2020-01-01T00:01:00Z"}]}});
    json_patch::merge(&mut value, &patch);
    object(value)
}

fn typed(object: Object) -> Pod {
    let Object::Pod(pod) = object else { panic!("a pod") };
    pod
}

fn usage(now: Now, cpu: i64) -> PodUsage {
    let used = BTreeMap::from([("cpu".to_owned(), cpu)]);
    let containers = BTreeMap::from([("main".to_owned(), used)]);
    PodUsage { at: now.wall, window: Duration::from_secs(30), containers }
}

const PENDING: &str = r#"{"status": {"phase": "Pending", "conditions": null}}"#;
const FAILED: &str = r#"{"status": {"phase": "Failed"}}"#;
const GOING: &str = r#"{"metadata": {"deletionTimestamp": "2024-01-01T00:00:00Z", "finalizers": ["f"]}}"#;
const NEVER_READY: &str = r#"{"status": {"conditions": [
    {"type": "Ready", "status": "False", "lastTransitionTime": "2020-01-01T00:00:10Z"}]}}"#;

/// `pods`: what is merged over each, and what it uses of its core in thousandths, if that is known.
fn check(current: i32, target: i32, pods: &[(&str, Option<i64>)], expect: Result<i32, &str>) {
    let now = at(0);
    let all: Vec<Pod> = pods
        .iter()
        .enumerate()
        .map(|(i, (patch, _))| {
            let patch = if patch.is_empty() { json!({}) } else { serde_json::from_str(patch).unwrap() };
            typed(pod(&format!("p{i}"), patch))
        })
        .collect();
    let used = pods.iter().enumerate();
    let used = used.filter_map(|(i, (_, cpu))| Some((format!("p{i}"), usage(now, (*cpu)?)))).collect();
    let refs: Vec<&Pod> = all.iter().collect();
    let workload = Workload { pods: &refs, current, tolerance: Tolerance { up: 0.1, down: 0.1 } };
    let got = workload.by_utilization(now, &used, ("cpu", None), target).map(|p| p.replicas);
    assert_eq!(got, expect.map_err(str::to_owned), "{current} at {target}%: {pods:?}");
}

#[test]
fn utilisation_asks_for_replicas() {
    let fine = |cpu| ("", Some(cpu));
    check(2, 50, &[fine(500), fine(500)], Ok(2));
    check(2, 50, &[fine(540), fine(540)], Ok(2));
    check(2, 50, &[fine(1000), fine(1000)], Ok(4));
    check(3, 50, &[fine(300), fine(500), fine(700)], Ok(3));
    check(4, 50, &[fine(100), fine(100), fine(100), fine(100)], Ok(1));
    check(1, 100, &[fine(2500)], Ok(3));
    // A pod without a sample: idle when it would be scaled up, busy when it would be scaled down.
    check(3, 50, &[fine(1000), fine(1000), ("", None)], Ok(4));
    check(3, 50, &[fine(100), fine(100), ("", None)], Ok(3));
    // Pods that are not ready yet count as idle, and only when it would be scaled up.
    check(3, 50, &[fine(1000), fine(1000), (PENDING, None)], Ok(4));
    check(3, 50, &[fine(100), fine(100), (PENDING, None)], Ok(1));
    check(3, 50, &[fine(1000), fine(1000), (NEVER_READY, Some(10))], Ok(4));
    // Those that have failed, or are going, do not count at all.
    check(3, 50, &[fine(1000), (FAILED, Some(0)), (GOING, Some(0))], Ok(2));
    check(
        1,
        50,
        &[("", None)],
        Err("unable to get metrics for resource cpu: no metrics returned from resource metrics API"),
    );
    check(1, 50, &[(PENDING, Some(5))], Err("did not receive metrics for targeted pods (pods might be unready)"));
    let no_request = r#"{"spec": {"containers": [{"name": "main"}]}}"#;
    check(1, 50, &[(no_request, Some(5))], Err("missing request for cpu in container main of Pod p0"));
}

#[test]
fn one_value_asks_for_replicas() {
    let all: Vec<Pod> = (0..3).map(|i| typed(pod(&format!("p{i}"), json!({})))).collect();
    let refs: Vec<&Pod> = all.iter().collect();
    let workload = |current| Workload { pods: &refs, current, tolerance: Tolerance { up: 0.1, down: 0.1 } };
    for (current, value, target, expect) in [(3, 100, 100, 3), (3, 200, 100, 6), (3, 50, 100, 2), (0, 250, 100, 3)] {
        assert_eq!(workload(current).by_value(value, target).replicas, expect, "{value} of {target}");
    }
    for (there, value, target, expect, share) in [(3, 300, 100, 3, 100), (3, 900, 100, 9, 300), (3, 150, 100, 2, 50)] {
        let proposal = workload(there).by_share(there, value, target);
        assert_eq!((proposal.replicas, proposal.value), (expect, share), "{value} by {target}");
    }
}

fn rules(value: Value) -> k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscalerBehavior {
    serde_json::from_value(value).unwrap()
}

/// Replicas and reasons of proposals at times in seconds; what is decided is taken to be carried out.
fn follow(behavior: Option<Value>, begin: i32, steps: &[(u64, i32, i32, &str)]) {
    let behavior = behavior.map(rules);
    let (mut memory, mut current) = (Memory::default(), begin);
    memory.begin(Mono::ZERO, begin);
    for (second, desired, expect, reason) in steps {
        let now = Mono::ZERO + Duration::from_secs(*second);
        let ask = Ask { min: 1, max: 50, current, desired: *desired };
        let got = memory.limit(now, behavior.as_ref(), ask);
        let why = if got.able.0 == "ReadyForNewScale" { got.limited.1 } else { got.able.0 };
        assert_eq!((got.replicas, why), (*expect, *reason), "at {second} s, {desired} wanted of {current}");
        if got.replicas != current {
            memory.scaled(now, behavior.as_ref(), current, got.replicas);
        }
        current = got.replicas;
    }
}

#[test]
fn without_behaviour_it_doubles_and_waits_five_minutes_to_shrink() {
    follow(
        None,
        1,
        &[
            (0, 1, 1, "DesiredWithinRange"),
            (15, 20, 4, "ScaleUpLimit"),
            (30, 20, 8, "ScaleUpLimit"),
            (45, 9, 16, "ScaleDownStabilized"),
            (60, 90, 32, "ScaleUpLimit"),
            (75, 90, 50, "TooManyReplicas"),
            (300, 2, 50, "ScaleDownStabilized"),
            (376, 2, 2, "DesiredWithinRange"),
            (700, 0, 1, "TooFewReplicas"),
        ],
    );
}

#[test]
fn policies_bound_each_period() {
    let up = json!({"scaleUp": {"stabilizationWindowSeconds": 0, "policies": [
        {"type": "Pods", "value": 2, "periodSeconds": 60}, {"type": "Percent", "value": 10, "periodSeconds": 60}]},
        "scaleDown": {"stabilizationWindowSeconds": 0, "policies": [{"type": "Percent", "value": 50, "periodSeconds": 30}]}});
    follow(
        Some(up),
        10,
        &[
            (15, 30, 12, "ScaleUpLimit"),
            (30, 30, 12, "ScaleUpLimit"),
            (76, 30, 14, "ScaleUpLimit"),
            (150, 1, 7, "ScaleDownLimit"),
            (165, 1, 7, "ScaleDownLimit"),
            (181, 1, 3, "ScaleDownLimit"),
        ],
    );
    let never = json!({"scaleDown": {"selectPolicy": "Disabled", "stabilizationWindowSeconds": 0}});
    follow(Some(never), 10, &[(15, 1, 10, "ScaleDownLimit")]);
    let slow = json!({"scaleUp": {"selectPolicy": "Min", "policies": [
        {"type": "Pods", "value": 2, "periodSeconds": 60}, {"type": "Percent", "value": 10, "periodSeconds": 60}]}});
    follow(Some(slow), 10, &[(15, 30, 11, "ScaleUpLimit")]);
}

#[test]
fn recommendations_are_remembered_for_their_window() {
    let both = json!({"scaleUp": {"stabilizationWindowSeconds": 60}, "scaleDown": {"stabilizationWindowSeconds": 120}});
    follow(
        Some(both),
        5,
        &[
            (15, 8, 5, "ScaleUpStabilized"),
            (30, 8, 5, "ScaleUpStabilized"),
            (61, 8, 8, "DesiredWithinRange"),
            (75, 3, 8, "ScaleDownStabilized"),
            (182, 3, 3, "DesiredWithinRange"),
        ],
    );
}

#[derive(Debug)]
struct Source(i64);

impl MetricsSource for Source {
    fn usage(&self, now: Now, _pod: &Pod, _others: &[&Pod]) -> Option<PodUsage> {
        Some(usage(now, self.0))
    }

    fn of_pod(&self, _now: Now, _pod: &Pod, name: &str, _selector: Option<&Selector>) -> Option<i64> {
        (name == "requests").then_some(30_000)
    }

    fn of_object(&self, _now: Now, object: &Described, _name: &str, _selector: Option<&Selector>) -> Option<i64> {
        (object.name == "queue").then_some(90_000)
    }

    fn external(&self, _now: Now, _namespace: &str, name: &str, _selector: Option<&Selector>) -> Vec<i64> {
        if name == "jobs" { vec![20_000, 20_000] } else { Vec::new() }
    }
}

/// Two ready pods of a Deployment `web`, and an autoscaler from 1 to 10 with this spec, half a minute later: replicas,
/// Events, and the conditions as `Type=Status Reason`.
fn look(cpu: Option<i64>, patch: Value, deployment: Value) -> (i64, Vec<String>, Vec<String>) {
    let mut hpa = json!({"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": "h", "namespace": "d", "generation": 1}, "spec": {"minReplicas": 1, "maxReplicas": 10,
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"},
            "metrics": [{"type": "Resource", "resource": {"name": "cpu",
                "target": {"type": "Utilization", "averageUtilization": 50}}}]}});
    json_patch::merge(&mut hpa, &patch);
    let mut target = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web", "namespace": "d"},
        "spec": {"replicas": 2, "selector": {"matchLabels": {"app": "web"}},
            "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": []}}},
        "status": {"replicas": 2}});
    json_patch::merge(&mut target, &deployment);
    let mut fake = Fake::new(KINDS, [object(hpa), object(target), pod("a", json!({})), pod("b", json!({}))]);
    let metrics = cpu.map(|cpu| Rc::new(Source(cpu)) as Rc<dyn MetricsSource>);
    let mut controller = HorizontalPodAutoscalerController::new(metrics);
    let key = ObjectKey::new(Kind::HORIZONTAL_POD_AUTOSCALER, "d", "h");
    assert!(fake.step(&mut controller, &key, at(0)).writes.is_empty(), "the first look is after a period");
    let plan = fake.step(&mut controller, &key, at(15));
    let told = plan.events.iter().map(|e| format!("{}: {}", e.reason, e.message)).collect();
    let status = fake.get(key.kind, key.path()).unwrap().to_json()["status"].clone();
    let condition = |c: &Value| {
        let text = |field: &str| c[field].as_str().unwrap().to_owned();
        format!("{}={} {}", text("type"), text("status"), text("reason"))
    };
    let conditions = status["conditions"].as_array().into_iter().flatten().map(condition).collect();
    let replicas = fake.get(Kind::DEPLOYMENT, "d/web").map_or(0, |d| d.to_json()["spec"]["replicas"].as_i64().unwrap());
    (replicas, told, conditions)
}

fn expect(got: (i64, Vec<String>, Vec<String>), replicas: i64, told: &[&str], conditions: &[&str]) {
    assert_eq!(
        (got.0, got.1, got.2),
        (
            replicas,
            told.iter().map(|t| (*t).to_owned()).collect(),
            conditions.iter().map(|t| (*t).to_owned()).collect()
        )
    );
}

const ACTIVE: [&str; 3] = [
    "AbleToScale=True SucceededRescale",
    "ScalingActive=True ValidMetricFound",
    "ScalingLimited=False DesiredWithinRange",
];
const NO_API: &str = "failed to get cpu utilization: unable to get metrics for resource cpu: unable to fetch metrics from \
    resource metrics API: the server could not find the requested resource (get pods.metrics.k8s.io)";

#[test]
fn a_workload_is_scaled_and_told_why() {
    let none = || json!({});
    let above = "SuccessfulRescale: New size: 4; reason: cpu resource utilization (percentage of request) above target";
    expect(look(Some(1000), none(), none()), 4, &[above], &ACTIVE);
    let ready = ["AbleToScale=True ReadyForNewScale", ACTIVE[1], ACTIVE[2]];
    expect(look(Some(500), none(), none()), 2, &[], &ready);
    let stable = ["AbleToScale=True ScaleDownStabilized", ACTIVE[1], ACTIVE[2]];
    expect(look(Some(100), none(), none()), 2, &[], &stable);
    let wide = json!({"spec": {"behavior": {"scaleUp": {"tolerance": "1.5"}}}});
    expect(look(Some(1000), wide, none()), 2, &[], &ready);
    let few = "SuccessfulRescale: New size: 3; reason: Current number of replicas below Spec.MinReplicas";
    expect(look(Some(500), json!({"spec": {"minReplicas": 3}}), none()), 3, &[few], &ACTIVE[..1]);
    let many = "SuccessfulRescale: New size: 1; reason: Current number of replicas above Spec.MaxReplicas";
    expect(look(Some(500), json!({"spec": {"maxReplicas": 1}}), none()), 1, &[many], &ACTIVE[..1]);
    let off = ["AbleToScale=True SucceededGetScale", "ScalingActive=False ScalingDisabled"];
    expect(look(Some(500), none(), json!({"spec": {"replicas": 0}})), 0, &[], &off);
}

#[test]
fn what_cannot_be_measured_is_said() {
    let failed = format!("FailedGetResourceMetric: {NO_API}");
    let summary =
        format!("FailedComputeMetricsReplicas: invalid metrics (1 invalid out of 1), first error is: {NO_API}");
    let conditions = ["AbleToScale=True SucceededGetScale", "ScalingActive=False FailedGetResourceMetric"];
    expect(look(None, json!({}), json!({})), 2, &[&failed, &summary], &conditions);
    let other = json!({"spec": {"scaleTargetRef": {"name": "gone"}}});
    let gone = "FailedGetScale: deployments.apps \"gone\" not found";
    expect(look(Some(1), other, json!({})), 2, &[gone], &["AbleToScale=False FailedGetScale"]);
}

#[test]
fn every_type_of_metric_asks() {
    let of = |metric: Value| json!({"spec": {"metrics": [metric]}});
    let average = |value: &str| json!({"type": "AverageValue", "averageValue": value});
    for (metric, replicas, name) in [
        (json!({"type": "Resource", "resource": {"name": "cpu", "target": average("200m")}}), 5, "cpu resource"),
        (
            json!({"type": "ContainerResource", "containerResource": {"name": "cpu", "container": "main",
                "target": {"type": "Utilization", "averageUtilization": 20}}}),
            5,
            "cpu container resource utilization (percentage of request)",
        ),
        (
            json!({"type": "Pods", "pods": {"metric": {"name": "requests"}, "target": average("10")}}),
            6,
            "pods metric requests",
        ),
        (
            json!({"type": "Object", "object": {"metric": {"name": "length"}, "target": {"type": "Value", "value": "30"},
                "describedObject": {"kind": "Service", "name": "queue"}}}),
            6,
            "Service metric length",
        ),
        (
            json!({"type": "External", "external": {"metric": {"name": "jobs"}, "target": average("5")}}),
            8,
            "external metric jobs(nil)",
        ),
    ] {
        let mut patch = of(metric);
        patch["spec"]["behavior"] =
            json!({"scaleUp": {"policies": [{"type": "Pods", "value": 20, "periodSeconds": 15}]}});
        let told = format!("SuccessfulRescale: New size: {replicas}; reason: {name} above target");
        expect(look(Some(500), patch, json!({})), replicas, &[&told], &ACTIVE);
    }
}

#[test]
fn samples_of_the_start_do_not_count() {
    let start = Wall(at(0).wall.0).to_time();
    let young = json!({"status": {"startTime": start, "conditions": [
        {"type": "Ready", "status": "True", "lastTransitionTime": start}]}});
    let young = typed(pod("young", young));
    let old = typed(pod("old", json!({})));
    let refs = [&old, &young];
    let workload = Workload { pods: &refs, current: 2, tolerance: Tolerance { up: 0.1, down: 0.1 } };
    for (seconds, expect) in [(20, 2), (40, 3)] {
        let now = at(seconds);
        let used = BTreeMap::from([("old".to_owned(), usage(now, 500)), ("young".to_owned(), usage(now, 1000))]);
        let got = workload.by_utilization(now, &used, ("cpu", None), 50).unwrap().replicas;
        assert_eq!(got, expect, "{seconds} s after its start");
    }
}
