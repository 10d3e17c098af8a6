//! What few workloads have: Jobs that fail or are given a time, other claims, classes, limits and places. Drawn apart,
//! so that what else is drawn does not depend on it.

use serde_json::{Value, json};

use skeg_core::Rng;
use skeg_core::object::Object;

use super::workload::{PATIENT, WAITING, Workload};
use crate::converge::MAY_FAIL;

/// The label of nodes that users set late, and pods that wait for it.
pub const LABEL: &str = "explore";

/// Changes some workloads of a cluster with so many nodes, and adds what limits them all.
pub fn vary(rng: &mut Rng, nodes: usize, workloads: &mut [Workload], common: &mut Vec<Object>) {
    place(rng, nodes, workloads);
    for workload in workloads.iter_mut() {
        let mut object = workload.objects[0].to_json();
        match &*workload.objects[0].info().kind {
            "Job" => job(rng, &mut object),
            "CronJob" => cron_job(rng, &mut object),
            "StatefulSet" => stateful_set(rng, &mut object),
            "Deployment" if rng.chance(1, 4) => {
                object["spec"]["progressDeadlineSeconds"] = json!(10 + rng.below(60));
            }
            "DaemonSet" if rng.chance(1, 4) => object["spec"]["revisionHistoryLimit"] = json!(rng.below(3)),
            _ => {}
        }
        pod(rng, &mut object);
        workload.objects[0] = read(object);
    }
    if rng.chance(1, 6) {
        common.push(limits());
    }
    if rng.chance(1, 4) {
        common.push(scoped_quota(rng));
    }
}

/// Keeps the pods of one workload to nodes that are labelled later, or away from those of another one.
fn place(rng: &mut Rng, nodes: usize, workloads: &mut [Workload]) {
    let is_free = |workload: &Workload| !workload.is_daemon() && !workload.is_placed();
    let free: Vec<usize> = (0..workloads.len()).filter(|i| is_free(&workloads[*i])).collect();
    let (labelled, apart) = (rng.chance(1, 8), rng.chance(1, 3));
    let (Some(first), last) = (free.first().copied(), free.last().copied().unwrap_or_default()) else { return };
    let mut object = workloads[first].objects[0].to_json();
    let spec = &mut template(&mut object)["spec"];
    if labelled {
        spec["nodeSelector"] = json!({LABEL: "here"});
    } else if apart && first != last && workloads[first].most.max(workloads[last].most) + 3 <= nodes {
        let other = json!({"matchLabels": {"app": workloads[last].key.name()}});
        let term = json!({"topologyKey": "kubernetes.io/hostname", "labelSelector": other});
        spec["affinity"] = json!({"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}});
    } else {
        return;
    }
    workloads[first].objects[0] = read(object);
}

fn read(object: Value) -> Object {
    Object::from_json(object).expect("what is drawn is well formed")
}

/// The pod template of a workload.
fn template(object: &mut Value) -> &mut Value {
    let spec = &mut object["spec"];
    if spec["jobTemplate"].is_null() { &mut spec["template"] } else { &mut spec["jobTemplate"]["spec"]["template"] }
}

fn image(job: &mut Value, image: &str) {
    template(job)["spec"]["containers"][0]["image"] = json!(image);
}

/// Lets a Job, or those of a CronJob, end either way.
fn may_fail(metadata: &mut Value) {
    metadata["annotations"][MAY_FAIL] = json!("true");
}

/// Half of the Jobs are as they are: their pods succeed, and soon.
fn job(rng: &mut Rng, job: &mut Value) {
    let never = template(job)["spec"]["restartPolicy"] == "Never";
    let indexed = job["spec"]["completionMode"] == "Indexed";
    match rng.below(14) {
        0 => image(job, "explore/long:1"),
        1 => image(job, "explore/shaky:1"),
        2 | 3 => {
            image(job, "explore/failing:1");
            may_fail(&mut job["metadata"]);
            job["spec"]["backoffLimit"] = json!(rng.below(4));
        }
        4 => {
            image(job, "explore/long:1");
            may_fail(&mut job["metadata"]);
            job["spec"]["activeDeadlineSeconds"] = json!(5 + rng.below(90));
        }
        5 if never && indexed => {
            image(job, "explore/failing:1");
            may_fail(&mut job["metadata"]);
            job["spec"]["backoffLimitPerIndex"] = json!(rng.below(3));
            if rng.chance(1, 2) {
                let most = job["spec"]["completions"].as_u64().unwrap_or(1).min(3);
                job["spec"]["maxFailedIndexes"] = json!(rng.below(most + 1));
            }
        }
        5 if never => {
            image(job, "explore/failing:1");
            may_fail(&mut job["metadata"]);
            let codes = json!({"operator": "In", "values": [1]});
            job["spec"]["podFailurePolicy"] = json!({"rules": [{"action": "FailJob", "onExitCodes": codes}]});
        }
        6 if never => {
            image(job, "explore/shaky:1");
            let lost = json!([{"type": "DisruptionTarget", "status": "True"}]);
            job["spec"]["podFailurePolicy"] = json!({"rules": [{"action": "Ignore", "onPodConditions": lost}]});
        }
        6 if indexed => {
            let completions = job["spec"]["completions"].as_u64().unwrap_or(1);
            let rule = json!({"succeededCount": 1 + rng.below(completions)});
            job["spec"]["successPolicy"] = json!({"rules": [rule]});
        }
        _ => {}
    }
}

fn cron_job(rng: &mut Rng, cron_job: &mut Value) {
    if rng.chance(1, 4) {
        cron_job["spec"]["startingDeadlineSeconds"] = json!(15 + rng.below(100));
    }
    if rng.chance(1, 4) {
        cron_job["spec"]["schedule"] = json!("*/2 * * * *");
    }
    if rng.chance(1, 5) {
        image(cron_job, "explore/failing:1");
        may_fail(&mut cron_job["spec"]["jobTemplate"]["metadata"]);
        cron_job["spec"]["jobTemplate"]["spec"]["backoffLimit"] = json!(rng.below(2));
        cron_job["spec"]["failedJobsHistoryLimit"] = json!(rng.below(3));
    } else if rng.chance(1, 4) {
        image(cron_job, "explore/long:1");
    }
}

fn stateful_set(rng: &mut Rng, set: &mut Value) {
    let spec = &mut set["spec"];
    if rng.chance(1, 5) && spec["updateStrategy"]["rollingUpdate"]["partition"].is_null() {
        spec["ordinals"] = json!({"start": 1 + rng.below(4)});
    }
    if rng.chance(1, 4) {
        spec["revisionHistoryLimit"] = json!(rng.below(3));
    }
    if !spec["volumeClaimTemplates"].is_array() {
        return;
    }
    // Where it goes when the set shrinks, and comes back at once, a pod may be bound for the one before.
    let goes = spec["persistentVolumeClaimRetentionPolicy"]["whenScaled"] == "Delete";
    let claim = &mut spec["volumeClaimTemplates"][0]["spec"];
    if rng.chance(1, 3) && !goes {
        claim["storageClassName"] = json!(WAITING);
    }
    if rng.chance(1, 4) {
        claim["accessModes"] = json!(["ReadWriteOncePod"]);
    }
}

/// Other probes, and another class.
fn pod(rng: &mut Rng, object: &mut Value) {
    let spec = &mut template(object)["spec"];
    if spec["priorityClassName"].is_string() && rng.chance(1, 3) {
        spec["priorityClassName"] = json!(PATIENT);
    }
    let container = &mut spec["containers"][0];
    if container["image"].as_str().is_some_and(|image| image.starts_with("explore/web")) {
        let probe = json!({"httpGet": {"path": "/", "port": "http"}, "periodSeconds": 1 + rng.below(3),
            "failureThreshold": 60});
        if rng.chance(1, 8) {
            container["startupProbe"] = probe.clone();
        }
        if rng.chance(1, 8) {
            container["livenessProbe"] = probe;
        }
    }
}

/// What containers ask for that do not say, and the bounds within which all of them stay.
fn limits() -> Object {
    let item = json!({"type": "Container", "defaultRequest": {"memory": "1Mi"}, "default": {"memory": "64Mi"},
        "min": {"memory": "1Mi"}, "max": {"memory": "1Gi"}});
    read(json!({"apiVersion": "v1", "kind": "LimitRange", "metadata": {"name": "explore", "namespace": "default"},
        "spec": {"limits": [item]}}))
}

/// A quota of pods of one sort that leaves room for all.
fn scoped_quota(rng: &mut Rng) -> Object {
    let scope = *rng.pick(&["BestEffort", "NotBestEffort", "Terminating", "NotTerminating"]).expect("there are some");
    read(json!({"apiVersion": "v1", "kind": "ResourceQuota",
        "metadata": {"name": format!("explore-{}", scope.to_lowercase()), "namespace": "default"},
        "spec": {"hard": {"pods": "1000"}, "scopes": [scope]}}))
}
