//! Tests Jobs step by step: every plan is carried out on the view, and the test makes pods terminate.

use std::time::Duration;

use serde_json::{Value, json};

use super::JobController;
use crate::controllers::workload_world::{NOTHING, World, name};
use crate::object::{Kind, ObjectKey};

fn with(spec: Value, tell: fn(&Value) -> String) -> World {
    let mut all = json!({"parallelism": 1, "completions": 1, "backoffLimit": 6, "completionMode": "NonIndexed",
        "suspend": false, "podReplacementPolicy": "TerminatingOrFailed",
        "selector": {"matchLabels": {"batch.kubernetes.io/controller-uid": "u"}},
        "template": {"metadata": {"labels": {"batch.kubernetes.io/controller-uid": "u", "batch.kubernetes.io/job-name": "pi"}},
            "spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i:1"}]}}});
    json_patch::merge(&mut all, &spec);
    let job = json!({"apiVersion": "batch/v1", "kind": "Job",
        "metadata": {"name": "pi", "namespace": "d", "uid": "u", "generation": 1}, "spec": all});
    World::new(JobController::default(), job, tell)
}

fn job(spec: Value) -> World {
    with(spec, name)
}

fn index(pod: &Value) -> String {
    pod["metadata"]["annotations"]["batch.kubernetes.io/job-completion-index"].as_str().unwrap().to_owned()
}

fn indexed(spec: Value) -> World {
    let mut all = json!({"completionMode": "Indexed", "completions": 3, "parallelism": 3});
    json_patch::merge(&mut all, &spec);
    with(all, index)
}

fn conditions(world: &World) -> Vec<String> {
    let all = world.status("conditions");
    let shown = |c: &Value| format!("{}={}:{}", c["type"], c["status"], c["reason"]).replace('"', "");
    all.as_array().into_iter().flatten().map(shown).collect()
}

/// Advances time.
fn wait(world: &mut World, seconds: u64) {
    world.now = world.now + Duration::from_secs(seconds);
}

/// Makes a pod terminate with this exit code.
fn exits(world: &mut World, pod: &str, code: i32) {
    world.edit_pod(pod, |v| {
        v["status"] = json!({"phase": if code == 0 { "Succeeded" } else { "Failed" }, "containerStatuses": [{"name": "c",
            "image": "i", "imageID": "", "ready": false, "restartCount": 0, "state": {"terminated": {"exitCode": code}}}]});
    });
}

#[test]
fn pods_run_side_by_side_until_enough_have_succeeded() {
    let mut world = job(json!({"completions": 3, "parallelism": 2}));
    assert_eq!(world.settle(), ["+p1", "+p2"]);
    let pod = world.pod("p1");
    assert_eq!(pod["metadata"]["finalizers"], json!(["batch.kubernetes.io/job-tracking"]));
    assert_eq!(pod["metadata"]["generateName"], "pi-");
    exits(&mut world, "p1", 0);
    // One pod has succeeded, one runs and one is missing: the third is created.
    assert_eq!(world.settle(), ["+p3"]);
    assert_eq!((world.status("succeeded"), world.status("active")), (json!(1), json!(2)));
    exits(&mut world, "p2", 0);
    assert_eq!(world.settle(), NOTHING);
    exits(&mut world, "p3", 0);
    assert_eq!(world.settle(), NOTHING);
    assert_eq!((world.status("succeeded"), world.status("active")), (json!(3), Value::Null));
    assert_eq!(conditions(&world), ["SuccessCriteriaMet=True:CompletionsReached", "Complete=True:CompletionsReached"]);
    assert_eq!(world.status("completionTime"), "2024-01-01T00:01:40Z");
    assert_eq!(world.pod("p3")["metadata"]["finalizers"], Value::Null);
}

#[test]
fn a_work_queue_ends_once_one_has_succeeded_and_the_rest_are_done() {
    let mut world = job(json!({"completions": null, "parallelism": 2}));
    assert_eq!(world.settle(), ["+p1", "+p2"]);
    exits(&mut world, "p1", 0);
    assert_eq!(world.settle(), NOTHING);
    assert_eq!(conditions(&world), NOTHING);
    exits(&mut world, "p2", 0);
    world.settle();
    assert_eq!(conditions(&world).len(), 2);
}

#[test]
fn failures_are_waited_after_and_too_many_end_it() {
    let mut world = job(json!({"backoffLimit": 1}));
    world.settle();
    exits(&mut world, "p1", 1);
    assert_eq!(world.settle(), NOTHING);
    assert_eq!(world.plan().requeue_after, Some(Duration::from_secs(10)));
    wait(&mut world, 10);
    assert_eq!(world.settle(), ["+p2"]);
    exits(&mut world, "p2", 1);
    assert_eq!(world.settle(), NOTHING);
    assert_eq!(conditions(&world), ["FailureTarget=True:BackoffLimitExceeded", "Failed=True:BackoffLimitExceeded"]);
    assert_eq!(world.status("failed"), 2);
}

#[test]
fn a_finished_job_is_left_alone() {
    let mut world = job(json!({}));
    world.settle();
    exits(&mut world, "p1", 0);
    world.settle();
    world.gone("p1");
    assert_eq!(world.settle(), NOTHING);
}

#[test]
fn a_deadline_takes_running_pods_along() {
    let mut world = job(json!({"activeDeadlineSeconds": 60, "parallelism": 2, "completions": 2}));
    world.settle();
    world.ready("p1");
    world.settle();
    assert_eq!(world.plan().requeue_after, Some(Duration::from_secs(60)));
    wait(&mut world, 60);
    assert_eq!(world.settle(), ["-p1", "-p2"]);
    // The `Failed` condition is set only after the last pod is gone.
    assert_eq!(conditions(&world), ["FailureTarget=True:DeadlineExceeded"]);
    world.reap();
    world.settle();
    assert_eq!(conditions(&world)[1], "Failed=True:DeadlineExceeded");
    assert_eq!(world.status("failed"), 2);
}

#[test]
fn suspension_stops_the_pods_and_the_clock() {
    let mut world = job(json!({"parallelism": 2, "completions": 2}));
    world.settle();
    world.edit_spec(json!({"suspend": true}));
    assert_eq!(world.settle(), ["-p1", "-p2"]);
    assert_eq!(
        (conditions(&world), world.status("startTime")),
        (vec!["Suspended=True:JobSuspended".to_owned()], Value::Null)
    );
    world.reap();
    world.edit_spec(json!({"suspend": false}));
    wait(&mut world, 600);
    assert_eq!(world.settle(), ["+p3", "+p4"]);
    assert_eq!(
        (conditions(&world)[0].as_str(), world.status("startTime")),
        ("Suspended=False:JobResumed", json!("2024-01-01T00:11:40Z"))
    );
}

#[test]
fn a_pod_is_counted_once_however_often_it_is_seen() {
    let mut world = job(json!({"completions": 2}));
    world.settle();
    exits(&mut world, "p1", 0);
    // The status is written, but the view still shows the pod with its finalizer: a pass at this point must not count
    // it again.
    let first = world.plan().writes.remove(0);
    let crate::controllers::Write::Update(status, _) = first else { panic!("the status comes first") };
    world.put(status);
    assert_eq!(world.status("uncountedTerminatedPods"), json!({"succeeded": ["u-p1"]}));
    let again = world.plan();
    let writes = again.writes.iter().filter(|w| matches!(w, crate::controllers::Write::Update(..))).count();
    assert_eq!(writes, 0, "what stands in the status already is not written again");
    world.settle();
    assert_eq!(world.status("succeeded"), 1);
}

#[test]
fn each_index_has_its_pod() {
    let mut world = indexed(json!({"parallelism": 2}));
    assert_eq!(world.settle(), ["+0", "+1"]);
    let pod = world.pod("p2");
    assert_eq!((&pod["spec"]["hostname"], &pod["metadata"]["generateName"]), (&json!("pi-1"), &json!("pi-1-")));
    assert_eq!(pod["spec"]["containers"][0]["env"][0]["name"], "JOB_COMPLETION_INDEX");
    exits(&mut world, "p2", 0);
    assert_eq!(world.settle(), ["+2"]);
    assert_eq!((world.status("completedIndexes"), world.status("succeeded")), (json!("1"), json!(1)));
    exits(&mut world, "p1", 1);
    world.settle();
    wait(&mut world, 10);
    assert_eq!(world.settle(), ["+0"]);
    for pod in ["p3", "p4"] {
        exits(&mut world, pod, 0);
    }
    world.settle();
    assert_eq!(world.status("completedIndexes"), "0-2");
    assert_eq!(conditions(&world)[1], "Complete=True:CompletionsReached");
}

#[test]
fn an_index_fails_by_its_own_limit_and_the_others_go_on() {
    let mut world =
        indexed(json!({"completions": 2, "parallelism": 2, "backoffLimitPerIndex": 1, "backoffLimit": 2147483647}));
    world.settle();
    exits(&mut world, "p1", 1);
    assert_eq!(world.settle(), NOTHING);
    assert_ne!(world.pod("p1")["metadata"]["finalizers"], Value::Null, "it remembers the failure until it is replaced");
    wait(&mut world, 10);
    assert_eq!(world.settle(), ["+0"]);
    assert_eq!(world.pod("p3")["metadata"]["annotations"]["batch.kubernetes.io/job-index-failure-count"], "1");
    exits(&mut world, "p3", 1);
    assert_eq!(world.settle(), NOTHING);
    assert_eq!(world.status("failedIndexes"), "0");
    exits(&mut world, "p2", 0);
    world.settle();
    assert_eq!(conditions(&world), ["FailureTarget=True:FailedIndexes", "Failed=True:FailedIndexes"]);
}

#[test]
fn the_failure_policy_decides_what_a_failure_is() {
    let rule = |action: &str, code: i32| json!({"action": action, "onExitCodes": {"operator": "In", "values": [code]}});
    let policy = json!({"rules": [rule("FailJob", 42), rule("Ignore", 7),
        {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}]});
    let start = || {
        let mut world =
            job(json!({"backoffLimit": 0, "podFailurePolicy": policy.clone(), "podReplacementPolicy": "Failed"}));
        world.settle();
        world
    };
    let mut world = start();
    exits(&mut world, "p1", 42);
    world.settle();
    assert_eq!(conditions(&world)[1], "Failed=True:PodFailurePolicy");
    let message = world.status("conditions")[0]["message"].clone();
    assert_eq!(message, "Container c for pod d/p1 failed with exit code 42 matching FailJob rule at index 0");
    let mut world = start();
    exits(&mut world, "p1", 7);
    world.settle();
    assert_eq!((conditions(&world).len(), world.status("failed")), (0, Value::Null));
    wait(&mut world, 10);
    assert_eq!(world.settle(), ["+p2"]);
    world.edit_pod("p2", |v| {
        v["status"] = json!({"phase": "Failed", "conditions": [{"type": "DisruptionTarget", "status": "True"}]});
    });
    world.settle();
    assert_eq!(conditions(&world).len(), 0);
}

#[test]
fn a_terminating_pod_is_replaced_at_once_or_when_it_has_ended() {
    for (policy, expect) in [("TerminatingOrFailed", vec!["+p2"]), ("Failed", vec![])] {
        let mut world = job(json!({"podReplacementPolicy": policy}));
        world.settle();
        world.edit_pod("p1", |v| v["metadata"]["deletionTimestamp"] = json!("2024-01-01T00:01:30Z"));
        world.settle();
        wait(&mut world, 10);
        let done = if world.pods().len() == 1 { vec!["+p2".to_owned()] } else { world.settle() };
        assert_eq!(done, expect, "{policy}");
    }
}

#[test]
fn a_success_policy_ends_it_early() {
    let mut world = indexed(json!({"successPolicy": {"rules": [{"succeededIndexes": "0,2", "succeededCount": 1}]}}));
    world.settle();
    exits(&mut world, "p2", 0);
    world.settle();
    assert_eq!(conditions(&world), NOTHING);
    exits(&mut world, "p3", 0);
    assert_eq!(world.settle(), ["-0"]);
    world.reap();
    world.settle();
    assert_eq!(conditions(&world), ["SuccessCriteriaMet=True:SuccessPolicy", "Complete=True:SuccessPolicy"]);
}

#[test]
fn fewer_at_once_takes_those_away_that_have_come_least_far() {
    let mut world = job(json!({"completions": 5, "parallelism": 3}));
    world.settle();
    world.edit_pod("p1", |v| v["spec"]["nodeName"] = json!("n"));
    world.edit_spec(json!({"parallelism": 1}));
    let mut gone = world.settle();
    gone.sort();
    assert_eq!(gone, ["-p2", "-p3"]);
}

#[test]
fn the_pods_of_a_job_that_is_gone_are_let_go() {
    let mut world = job(json!({}));
    world.settle();
    world.views.view_mut(Kind::JOB).remove(&ObjectKey::new(Kind::JOB, "d", "pi"));
    world.settle();
    assert_eq!(world.pod("p1")["metadata"]["finalizers"], Value::Null);
}

#[test]
fn another_manager_manages_alone() {
    let mut world = job(json!({"managedBy": "kueue.x-k8s.io/multikueue"}));
    assert_eq!(world.settle(), NOTHING);
}
