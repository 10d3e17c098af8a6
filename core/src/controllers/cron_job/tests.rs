//! Tests CronJobs step by step: every plan is carried out on the view, and the test makes Jobs finish.

use std::time::Duration;

use serde_json::{Value, json};

use super::CronJobController;
use crate::controllers::workload_world::{NOTHING, World, name};
use crate::object::{Kind, Object, ObjectKey};

/// A CronJob `c` with a five-minute schedule, created at 00:00:00; it is 00:01:40.
fn cron_job(spec: Value) -> World {
    let mut all = json!({"schedule": "*/5 * * * *", "concurrencyPolicy": "Allow", "suspend": false,
        "successfulJobsHistoryLimit": 3, "failedJobsHistoryLimit": 1,
        "jobTemplate": {"metadata": {"labels": {"app": "c"}}, "spec": {"template": {"spec": {"restartPolicy": "Never",
            "containers": [{"name": "c", "image": "i:1"}]}}}}});
    json_patch::merge(&mut all, &spec);
    let object = json!({"apiVersion": "batch/v1", "kind": "CronJob", "metadata": {"name": "c", "namespace": "d",
        "uid": "u", "generation": 1, "creationTimestamp": "2024-01-01T00:00:00Z"}, "spec": all});
    World::new(CronJobController, object, name)
}

/// Advances time.
fn wait(world: &mut World, seconds: u64) {
    world.now = world.now + Duration::from_secs(seconds);
}

/// Makes a Job finish as `Complete` or `Failed`.
fn ends(world: &mut World, job: &str, how: &str) {
    let at = world.now.wall.to_time();
    world.edit(&ObjectKey::new(Kind::JOB, "d", job), |v| {
        v["status"] = json!({"startTime": at, "conditions": [{"type": how, "status": "True"}]});
        if how == "Complete" {
            v["status"]["completionTime"] = json!(at);
        }
    });
}

fn active(world: &World) -> Vec<String> {
    let all = world.status("active");
    all.as_array().into_iter().flatten().map(|r| r["name"].as_str().unwrap().to_owned()).collect()
}

fn jobs(world: &World) -> Vec<String> {
    world.views.view(Kind::JOB).iter().map(|(key, _)| key.name().to_owned()).collect()
}

// The Jobs of 00:05, 00:10, 00:15 and 00:20.
const FIRST: &str = "c-28401125";
const SECOND: &str = "c-28401130";
const THIRD: &str = "c-28401135";
const FOURTH: &str = "c-28401140";

#[test]
fn a_job_at_each_time() {
    let mut world = cron_job(json!({}));
    assert_eq!(world.settle(), NOTHING);
    assert_eq!(world.plan().requeue_after, Some(Duration::from_millis(200_100)));
    wait(&mut world, 201);
    assert_eq!(world.settle(), [format!("+{FIRST}")]);
    assert_eq!(
        (active(&world), world.status("lastScheduleTime")),
        (vec![FIRST.to_owned()], json!("2024-01-01T00:05:00Z"))
    );
    assert_eq!(world.told, [format!("SuccessfulCreate: Created job {FIRST}")]);
    let job = world.get(Kind::JOB, FIRST).unwrap().to_json();
    assert_eq!(
        job["metadata"]["annotations"]["batch.kubernetes.io/cronjob-scheduled-timestamp"],
        "2024-01-01T00:05:00Z"
    );
    assert_eq!(
        (&job["metadata"]["labels"]["app"], &job["metadata"]["ownerReferences"][0]["kind"]),
        (&json!("c"), &json!("CronJob"))
    );
    wait(&mut world, 60);
    ends(&mut world, FIRST, "Complete");
    assert_eq!(world.settle(), NOTHING);
    assert_eq!((active(&world), world.status("lastSuccessfulTime")), (vec![], json!("2024-01-01T00:06:01Z")));
    assert_eq!(world.told[1], format!("SawCompletedJob: Saw completed job: {FIRST}, condition: Complete"));
    wait(&mut world, 240);
    assert_eq!(world.settle(), [format!("+{SECOND}")]);
}

#[test]
fn one_that_has_not_ended_is_left_alone_waited_for_or_replaced() {
    let after_the_first = |policy: &str| {
        let mut world = cron_job(json!({"concurrencyPolicy": policy}));
        wait(&mut world, 201);
        world.settle();
        wait(&mut world, 300);
        world.told.clear();
        world.settle();
        (active(&world), jobs(&world), world.told)
    };
    let created = format!("SuccessfulCreate: Created job {SECOND}");
    assert_eq!(after_the_first("Allow").0, [FIRST, SECOND]);
    let why = "JobAlreadyActive: Not starting job because prior execution is running and concurrency policy is Forbid";
    assert_eq!(after_the_first("Forbid"), (vec![FIRST.to_owned()], vec![FIRST.to_owned()], vec![why.to_owned()]));
    let deleted = format!("SuccessfulDelete: Deleted job {FIRST}");
    assert_eq!(after_the_first("Replace"), (vec![SECOND.to_owned()], vec![SECOND.to_owned()], vec![deleted, created]));
}

#[test]
fn what_was_forbidden_starts_once_it_may() {
    let mut world = cron_job(json!({"concurrencyPolicy": "Forbid"}));
    wait(&mut world, 201);
    world.settle();
    // The next scheduled time passes.
    wait(&mut world, 400);
    assert_eq!(world.settle(), NOTHING);
    ends(&mut world, FIRST, "Failed");
    assert_eq!(world.settle(), [format!("+{SECOND}")]);
}

#[test]
fn only_the_latest_of_the_missed_times_is_made_up_for() {
    let mut world = cron_job(json!({}));
    wait(&mut world, 1000);
    assert_eq!(world.settle(), [format!("+{THIRD}")]);
    let mut world = cron_job(json!({"startingDeadlineSeconds": 60}));
    wait(&mut world, 1000);
    assert_eq!(world.settle(), NOTHING, "it is too late for it");
    let mut world = cron_job(json!({"schedule": "* * * * *"}));
    wait(&mut world, 7200);
    world.settle();
    let why = "TooManyMissedTimes: too many missed start times. Set or decrease .spec.startingDeadlineSeconds or check clock skew";
    assert_eq!(world.told[1], why);
}

#[test]
fn the_oldest_that_have_ended_go() {
    let mut world = cron_job(json!({"successfulJobsHistoryLimit": 1, "failedJobsHistoryLimit": 1}));
    wait(&mut world, 201);
    for (job, how) in [(FIRST, "Complete"), (SECOND, "Failed"), (THIRD, "Complete"), (FOURTH, "Failed")] {
        assert_eq!(world.settle(), [format!("+{job}")]);
        wait(&mut world, 60);
        ends(&mut world, job, how);
        wait(&mut world, 240);
    }
    world.settle();
    assert_eq!(jobs(&world)[..2], [THIRD, FOURTH]);
    assert!(world.told.contains(&format!("SuccessfulDelete: Deleted job {SECOND}")), "{:?}", world.told);
}

#[test]
fn times_are_those_of_the_zone() {
    let mut world = cron_job(json!({"schedule": "10 1 * * *", "timeZone": "Europe/Zurich"}));
    assert_eq!(world.plan().requeue_after, Some(Duration::from_millis(500_100)));
    wait(&mut world, 501);
    assert_eq!(world.settle(), [format!("+{SECOND}")]);
    let job = world.get(Kind::JOB, SECOND).unwrap().to_json();
    let at = &job["metadata"]["annotations"]["batch.kubernetes.io/cronjob-scheduled-timestamp"];
    assert_eq!(at, "2024-01-01T01:10:00+01:00");
}

#[test]
fn what_cannot_be_kept_is_said() {
    for (spec, told) in [
        (
            json!({"timeZone": "Mars/Base"}),
            "UnknownTimeZone: invalid timeZone: \"Mars/Base\": unknown time zone Mars/Base",
        ),
        (
            json!({"schedule": "every day"}),
            "UnparseableSchedule: unparseable schedule: \"every day\" : expected exactly 5 fields, found 2: [every day]",
        ),
        (
            json!({"schedule": "59 23 31 2 *"}),
            "InvalidSchedule: invalid schedule: 59 23 31 2 * : time difference between two schedules is less than 1 second",
        ),
    ] {
        let mut world = cron_job(spec);
        wait(&mut world, 201);
        assert_eq!((world.settle().len(), world.told.as_slice()), (0, [told.to_owned()].as_slice()));
        assert_eq!(world.plan().requeue_after, None);
    }
    let mut world = cron_job(json!({"suspend": true}));
    wait(&mut world, 201);
    assert_eq!((world.settle(), world.told.len()), (vec![], 0));
}

#[test]
fn a_job_whose_maker_died_is_noted_and_a_strange_one_is_told() {
    let mut world = cron_job(json!({}));
    wait(&mut world, 201);
    world.settle();
    world.edit(&ObjectKey::new(Kind::CRON_JOB, "d", "c"), |v| v["status"] = json!({}));
    assert_eq!(world.settle(), NOTHING);
    assert_eq!(active(&world), [FIRST]);
    let mut strange = world.get(Kind::JOB, FIRST).unwrap().to_json();
    strange["metadata"]["name"] = json!("by-hand");
    strange["metadata"]["uid"] = json!("other");
    world.put(Object::from_json(strange).unwrap());
    world.told.clear();
    world.settle();
    assert_eq!(world.told, ["UnexpectedJob: Saw a job that the controller did not create or forgot: by-hand"]);
}

#[test]
fn a_job_that_was_deleted_is_active_no_more() {
    let mut world = cron_job(json!({}));
    wait(&mut world, 201);
    world.settle();
    world.views.view_mut(Kind::JOB).remove(&ObjectKey::new(Kind::JOB, "d", FIRST)).unwrap();
    assert_eq!(world.settle(), NOTHING, "its time has been kept");
    assert_eq!(active(&world), NOTHING);
    assert_eq!(world.told[1], format!("MissingJob: Active job went missing: {FIRST}"));
}

#[test]
fn a_change_of_a_job_concerns_its_cron_job() {
    let mut world = cron_job(json!({}));
    wait(&mut world, 201);
    world.settle();
    let job = world.get(Kind::JOB, FIRST).unwrap().clone();
    let change = crate::client::Change { key: job.key(), old: None, new: Some(job) };
    assert_eq!(world.keys(&change), [ObjectKey::new(Kind::CRON_JOB, "d", "c")]);
}
