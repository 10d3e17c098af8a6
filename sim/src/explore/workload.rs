//! Workloads of an explored cluster, of every kind in [`KINDS`], with Services and disruption budgets.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};

use skeg_core::object::ObjectKey;
use skeg_core::{Kind, Object, Rng};

use super::SLOT;
use super::template::{Placing, config, init_containers, is_placed, template};
use super::variety::LABEL;
use crate::scenario::{ImageProfile, Load};

/// The kinds of workloads, by their names in manifests.
pub const KINDS: &[&str] =
    &["Deployment", "ReplicaSet", "ReplicationController", "StatefulSet", "DaemonSet", "Job", "CronJob"];

/// A workload with the objects that belong to it.
pub struct Workload {
    /// Key of the workload object.
    pub key: ObjectKey,
    /// Whether it was drawn here, with the images of [`images`]; false for a workload of a given scenario.
    pub is_own: bool,
    /// The highest number of replicas that users request.
    pub replicas: u64,
    /// The highest number of pods that it can have, surge included; zero for a drawn DaemonSet.
    pub most: usize,
    /// The workload object first, then its Services and its disruption budget.
    pub objects: Vec<Object>,
}

/// Draws one to five workloads.
pub fn draw(rng: &mut Rng, nodes: usize) -> Vec<Workload> {
    let count = 1 + rng.below(5).min(rng.below(5));
    (0..count).map(|i| workload(rng, i, nodes)).collect()
}

/// The behaviour of all workloads' images; the tags `:1`, `:2` and `:3` of an image behave alike.
pub fn images(rng: &mut Rng) -> BTreeMap<String, ImageProfile> {
    let mut between = |lo: u64, hi: u64| {
        let least = rng.range(lo, hi);
        (Duration::from_millis(least), Duration::from_millis(least + rng.below(hi)))
    };
    let web = ImageProfile { start: between(20, 1_000), ready: between(0, 4_000), ..ImageProfile::default() };
    let task = ImageProfile { start: between(20, 1_000), exit: Some((between(200, 30_000).0, 0)), ..web.clone() };
    let mut stop = || Duration::from_millis(if rng.chance(1, 2) { rng.below(20_000) } else { rng.below(500) });
    let (web, task) = (ImageProfile { stop: stop(), ..web }, ImageProfile { stop: stop(), ..task });
    let init = ImageProfile { exit: Some((Duration::from_millis(500), 0)), ..task.clone() };
    let flaky = ImageProfile { stop: stop(), crash_one_in: 4 + rng.below(8), ..web.clone() };
    let after = task.exit.map_or(Duration::ZERO, |(after, _)| after);
    let long = ImageProfile { exit: Some((after + Duration::from_secs(40), 0)), ..task.clone() };
    let failing = ImageProfile { exit: Some((after, 1)), ..task.clone() };
    let shaky = ImageProfile { crash_one_in: 3, ..task.clone() };
    let all = [("web", web), ("task", task), ("init", init), ("flaky", flaky), ("long", long), ("failing", failing)];
    let all = all.into_iter().chain([("shaky", shaky)]);
    all.map(|(name, profile)| (format!("explore/{name}"), profile)).collect()
}

/// The class of pods that may take the place of others.
pub const URGENT: &str = "explore-urgent";
/// The class of pods whose place all others may take.
pub const FILLER: &str = "explore-filler";

/// The class of pods that are urgent and take no place of others.
pub const PATIENT: &str = "explore-patient";
/// The class of claims that wait for their first pod.
pub const WAITING: &str = "explore-waiting";

/// What workloads refer to: classes of priority and of storage; and, one time in four, a quota. Half of the quotas
/// leave no room for the replacements of pods that are still going.
pub fn common(rng: &mut Rng, workloads: &[Workload]) -> Vec<Object> {
    let class = |name: &str, value: i32| {
        let metadata = json!({"name": name});
        read(
            json!({"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": metadata, "value": value}),
        )
    };
    let mut objects = vec![
        class(URGENT, 1000),
        class(FILLER, -1000),
        read(json!({"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": PATIENT},
            "value": 1000, "preemptionPolicy": "Never"})),
        read(json!({"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass",
            "metadata": {"name": "explore"}, "provisioner": "disk.example.com"})),
        read(json!({"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": {"name": WAITING},
            "provisioner": "disk.example.com", "volumeBindingMode": "WaitForFirstConsumer"})),
    ];
    if rng.chance(1, 4) {
        let is_bounded = workloads.iter().all(|workload| !workload.is_daemon() && !workload.ends());
        let most: usize = workloads.iter().map(|workload| workload.replicas as usize + 1).sum();
        let pods = if is_bounded && rng.chance(1, 2) { most } else { 1000 };
        objects.push(read(json!({"apiVersion": "v1", "kind": "ResourceQuota",
            "metadata": {"name": "explore", "namespace": "default"},
            "spec": {"hard": {"pods": pods.to_string(), "services": "500", "count/replicasets.apps": "200"}}})));
    }
    objects
}

/// The most devices of one node.
const DEVICES: u64 = 128;

/// Gives a claim for a device to each pod of a workload, or to all of them together. Each node has devices for as many
/// pods as there can be, those that are about to end included. Returns the devices and what else that takes; nothing if
/// no workload is drawn that could use any.
pub fn devices(rng: &mut Rng, nodes: &[String], workloads: &mut [Workload]) -> Vec<Object> {
    let of_pods = |workload: &&mut Workload| !workload.is_daemon() && workload.key.kind != Kind::CRON_JOB;
    let mut able: Vec<&mut Workload> = workloads.iter_mut().filter(of_pods).collect();
    if able.is_empty() {
        return Vec::new();
    }
    let chosen = rng.below(able.len() as u64) as usize;
    let workload = &mut *able[chosen];
    let shared = rng.chance(1, 5);
    let claim = if shared {
        json!({"name": "device", "resourceClaimName": "explore"})
    } else {
        json!({"name": "device", "resourceClaimTemplateName": "explore"})
    };
    let mut object = workload.objects[0].to_json();
    let pod = &mut object["spec"]["template"]["spec"];
    pod["resourceClaims"] = json!([claim]);
    pod["containers"][0]["resources"]["claims"] = json!([{"name": "device"}]);
    workload.objects[0] = read(object);
    let count = (2 * workload.most as u64 + rng.below(4)).clamp(1, DEVICES);
    let group = "resource.k8s.io/v1";
    let expression = "device.attributes['explore.example.com'].healthy";
    let claim = json!({"devices": {"requests": [{"name": "one", "exactly": {"deviceClassName": "explore"}}]}});
    let mut objects = vec![
        read(json!({"apiVersion": group, "kind": "DeviceClass", "metadata": {"name": "explore"},
            "spec": {"selectors": [{"cel": {"expression": expression}}]}})),
        read(json!({"apiVersion": group, "kind": "ResourceClaimTemplate",
            "metadata": {"name": "explore", "namespace": "default"}, "spec": {"spec": claim}})),
    ];
    if shared {
        objects.push(read(json!({"apiVersion": group, "kind": "ResourceClaim",
            "metadata": {"name": "explore", "namespace": "default"}, "spec": claim})));
    }
    let device = |i: u64| json!({"name": format!("device-{i}"), "attributes": {"healthy": {"bool": true}}});
    // A device that all share can be used from every node: there would not be room for all of them on one.
    let fabric = [("fabric", json!({"allNodes": true}))];
    let each = nodes.iter().map(|node| (node.as_str(), json!({"nodeName": node})));
    let places: Vec<(&str, Value)> = if shared { fabric.into() } else { each.collect() };
    for (pool, mut spec) in places {
        spec["driver"] = json!("explore.example.com");
        spec["pool"] = json!({"name": pool, "generation": 1, "resourceSliceCount": 1});
        spec["devices"] = (0..count).map(device).collect();
        objects.push(read(json!({"apiVersion": group, "kind": "ResourceSlice",
            "metadata": {"name": format!("explore-{pool}")}, "spec": spec})));
    }
    objects
}

fn workload(rng: &mut Rng, number: u64, nodes: usize) -> Workload {
    let kind = *rng.pick(KINDS).expect("there are some");
    let name = format!("{}-{number}", kind.to_lowercase());
    let most = if nodes > 12 { 30 } else { 8 };
    let replicas = 1 + rng.below(most);
    let least = u64::from(rng.chance(3, 4));
    let now = rng.range(least, replicas + 1);
    let surge = if kind == "Deployment" { replicas as usize + 1 } else { 0 };
    let placing = Placing { number, has_own_nodes: replicas as usize + surge + 2 <= nodes };
    let object = match kind {
        "Deployment" => deployment(rng, &name, now, &placing),
        "ReplicaSet" => {
            let spec = json!({"replicas": now, "selector": selector(&name)});
            set(rng, ("apps/v1", kind), &name, spec, Some(&placing))
        }
        "ReplicationController" => {
            let spec = json!({"replicas": now, "selector": {"app": name.clone()}});
            set(rng, ("v1", kind), &name, spec, Some(&placing))
        }
        "StatefulSet" => stateful_set(rng, &name, now, &placing),
        "DaemonSet" => daemon_set(rng, &name),
        "CronJob" => cron_job(rng, &name),
        _ => job(rng, &name, replicas),
    };
    let is_daemon = kind == "DaemonSet";
    let mut objects = vec![read(object)];
    objects.extend(config(&objects[0]));
    if !matches!(kind, "Job" | "CronJob") {
        services(rng, &name, &mut objects);
        // The count of a DaemonSet's pods is in no scale, so a budget of them allows nothing; and a drain would wait
        // for one that was an orphan when it began.
        if rng.chance(1, 2) && !is_daemon {
            objects.push(budget(rng, &name));
        }
        if rng.chance(1, 6) && !is_daemon {
            objects.push(autoscaler(rng, &objects[0], replicas));
        }
    }
    Workload {
        key: objects[0].key(),
        is_own: true,
        replicas,
        most: if is_daemon { 0 } else { replicas as usize + surge },
        objects,
    }
}

fn read(object: Value) -> Object {
    Object::from_json(object).expect("what is drawn is well formed")
}

fn selector(name: &str) -> Value {
    json!({"matchLabels": {"app": name}})
}

fn set(rng: &mut Rng, (version, kind): (&str, &str), name: &str, mut spec: Value, placing: Option<&Placing>) -> Value {
    let image = if rng.chance(1, 5) { "explore/flaky" } else { "explore/web" };
    spec["template"] = template(rng, name, image, placing);
    if rng.chance(1, 4) && kind != "DaemonSet" {
        spec["minReadySeconds"] = json!(rng.below(10));
    }
    json!({"apiVersion": version, "kind": kind, "metadata": {"name": name, "namespace": "default"}, "spec": spec})
}

/// An absolute number or a percentage. An absolute number is at least one; a percentage may round down to zero.
fn some(rng: &mut Rng) -> Value {
    if rng.chance(1, 2) { json!(1 + rng.below(3)) } else { json!(format!("{}%", 10 + rng.below(60))) }
}

fn deployment(rng: &mut Rng, name: &str, replicas: u64, placing: &Placing) -> Value {
    let strategy = match rng.below(5) {
        0 => json!({"type": "Recreate"}),
        1 => json!({"rollingUpdate": {"maxSurge": 0, "maxUnavailable": some(rng)}}),
        2 => json!({"rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}),
        3 => json!({"rollingUpdate": {"maxSurge": some(rng), "maxUnavailable": some(rng)}}),
        _ => json!({}),
    };
    let spec = json!({"replicas": replicas, "selector": selector(name), "strategy": strategy,
        "revisionHistoryLimit": rng.below(4), "progressDeadlineSeconds": 3600});
    set(rng, ("apps/v1", "Deployment"), name, spec, Some(placing))
}

fn stateful_set(rng: &mut Rng, name: &str, replicas: u64, placing: &Placing) -> Value {
    let policy = if rng.chance(1, 2) { "OrderedReady" } else { "Parallel" };
    let mut spec = json!({"replicas": replicas, "selector": selector(name), "serviceName": name,
        "podManagementPolicy": policy});
    if rng.chance(1, 3) {
        spec["volumeClaimTemplates"] = json!([{"metadata": {"name": "data"}, "spec": {"accessModes": ["ReadWriteOnce"],
            "storageClassName": "explore", "resources": {"requests": {"storage": "1Gi"}}}}]);
        if rng.chance(1, 2) {
            let mut policy = || *rng.pick(&["Retain", "Delete"]).expect("there are some");
            spec["persistentVolumeClaimRetentionPolicy"] = json!({"whenScaled": policy(), "whenDeleted": policy()});
        }
    }
    match rng.below(8) {
        0 => spec["updateStrategy"] = json!({"type": "OnDelete"}),
        1 | 2 => spec["updateStrategy"] = json!({"rollingUpdate": {"partition": rng.below(replicas + 1)}}),
        3 => spec["updateStrategy"] = json!({"rollingUpdate": {"maxUnavailable": 1 + rng.below(3)}}),
        _ => {}
    }
    set(rng, ("apps/v1", "StatefulSet"), name, spec, Some(placing))
}

fn daemon_set(rng: &mut Rng, name: &str) -> Value {
    let strategy = match rng.below(8) {
        0 => json!({"type": "OnDelete"}),
        1 | 2 => json!({"rollingUpdate": {"maxSurge": some(rng), "maxUnavailable": 0}}),
        3..=5 => json!({"rollingUpdate": {"maxUnavailable": some(rng)}}),
        _ => json!({"rollingUpdate": {}}),
    };
    let spec = json!({"selector": selector(name), "updateStrategy": strategy});
    set(rng, ("apps/v1", "DaemonSet"), name, spec, None)
}

/// Draws a Job that completes however often its pods are lost.
fn job(rng: &mut Rng, name: &str, parallelism: u64) -> Value {
    let mut pod = template(rng, name, "explore/task", None);
    pod["spec"]["restartPolicy"] = json!(if rng.chance(2, 3) { "Never" } else { "OnFailure" });
    if rng.chance(1, 3) {
        pod["spec"]["initContainers"] = init_containers(rng);
    }
    // Of those with few completions each one counts.
    let (parallelism, more) =
        if rng.chance(1, 3) { (1 + rng.below(2), rng.below(2)) } else { (parallelism, rng.below(8)) };
    let mut spec = json!({"parallelism": parallelism, "completions": parallelism + more,
        "backoffLimit": 100_000, "template": pod});
    if rng.chance(1, 2) {
        spec["completionMode"] = json!("Indexed");
    }
    if rng.chance(1, 4) {
        spec["ttlSecondsAfterFinished"] = json!(rng.below(60));
    }
    json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name, "namespace": "default"}, "spec": spec})
}

/// Draws a CronJob that runs a short Job every minute.
fn cron_job(rng: &mut Rng, name: &str) -> Value {
    let mut pod = template(rng, name, "explore/task", None);
    pod["spec"]["restartPolicy"] = json!("OnFailure");
    let policy = *rng.pick(&["Allow", "Forbid", "Replace"]).expect("there are some");
    let spec = json!({"schedule": "* * * * *", "concurrencyPolicy": policy,
        "successfulJobsHistoryLimit": rng.below(3), "failedJobsHistoryLimit": 1,
        "jobTemplate": {"spec": {"backoffLimit": 100_000, "template": pod}}});
    json!({"apiVersion": "batch/v1", "kind": "CronJob", "metadata": {"name": name, "namespace": "default"},
        "spec": spec})
}

/// Draws Services: none, one, or (one time in ten) twenty. Each is headless, has a cluster IP, a node port as well, or
/// `publishNotReadyAddresses`.
fn services(rng: &mut Rng, name: &str, objects: &mut Vec<Object>) {
    let count = match rng.below(10) {
        0 => 20,
        1..=6 => 1,
        _ => 0,
    };
    for i in 0..count {
        let mut spec = json!({"selector": {"app": name}, "ports": [{"port": 80, "targetPort": "http"}]});
        match rng.below(7) {
            0 => spec["clusterIP"] = json!("None"),
            1 => spec["publishNotReadyAddresses"] = json!(true),
            2 => spec["type"] = json!("NodePort"),
            _ => {}
        }
        let name = if i == 0 { name.to_owned() } else { format!("{name}-{i}") };
        objects.push(read(json!({"apiVersion": "v1", "kind": "Service",
            "metadata": {"name": name, "namespace": "default"}, "spec": spec})));
    }
}

/// Draws an autoscaler of a workload by the CPU of its pods.
fn autoscaler(rng: &mut Rng, workload: &Object, most: u64) -> Object {
    let target =
        json!({"apiVersion": workload.info().api_version(), "kind": &*workload.info().kind, "name": workload.name()});
    let mut spec = json!({"scaleTargetRef": target, "minReplicas": 1 + rng.below(most), "maxReplicas": most,
        "metrics": [{"type": "Resource", "resource": {"name": "cpu", "target":
            {"type": "Utilization", "averageUtilization": 40 + rng.below(60)}}}]});
    if rng.chance(1, 2) {
        // Shorter ones let it swing: what is measured is older than which pods are ready.
        spec["behavior"] = json!({"scaleDown": {"stabilizationWindowSeconds": 30 + rng.below(60)}});
    }
    read(json!({"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "spec": spec,
        "metadata": {"name": workload.name(), "namespace": workload.namespace()}}))
}

/// What has to be done by the workloads that are scaled by it, at times before `end`.
pub fn loads(rng: &mut Rng, workloads: &[Workload], end: Duration) -> Vec<Load> {
    let mut loads = Vec::new();
    let is_scaled =
        |workload: &&Workload| workload.objects.iter().any(|object| object.kind() == Kind::HORIZONTAL_POD_AUTOSCALER);
    for workload in workloads.iter().filter(is_scaled) {
        for _ in 0..1 + rng.below(4) {
            let cpu_milli = rng.below(workload.replicas * SLOT as u64 + 1);
            loads.push(Load { at: rng.duration(Duration::ZERO, end), target: workload.key.clone(), cpu_milli });
        }
    }
    loads.sort_by_key(|load| load.at);
    loads
}

/// What keeps the map of the filler from going, until somebody takes it away.
pub const KEPT: &str = "explore.example.com/kept";

/// A namespace, and in it pods without which the cluster would have room: this many, and everybody may take their
/// place; and a map that is kept.
pub fn filler(pods: usize) -> [Object; 3] {
    let app = json!({"app": FILLER});
    let container =
        json!({"name": "main", "image": "explore/web:1", "resources": {"requests": {"cpu": format!("{SLOT}m")}}});
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": FILLER}});
    let set = json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "metadata": {"name": FILLER, "namespace": FILLER},
        "spec": {"replicas": pods, "selector": {"matchLabels": app}, "template": {"metadata": {"labels": app},
            "spec": {"priorityClassName": FILLER, "terminationGracePeriodSeconds": 5, "containers": [container]}}}});
    let kept = json!({"apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": FILLER, "namespace": FILLER, "finalizers": [KEPT]}});
    [read(namespace), read(set), read(kept)]
}

/// Draws a disruption budget that allows an eviction when all pods are healthy.
fn budget(rng: &mut Rng, name: &str) -> Object {
    let most = if rng.chance(2, 3) { json!(1) } else { json!("40%") };
    read(json!({"apiVersion": "policy/v1", "kind": "PodDisruptionBudget",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"maxUnavailable": most, "selector": selector(name),
            "unhealthyPodEvictionPolicy": if rng.chance(1, 3) { "AlwaysAllow" } else { "IfHealthyBudget" }}}))
}

impl Workload {
    /// A workload from an object of a given scenario; `None` if the object is not of a workload kind.
    pub fn given(object: &Object) -> Option<Workload> {
        KINDS.contains(&object.info().kind.as_ref()).then(|| {
            let replicas = object.to_json()["spec"]["replicas"].as_u64().unwrap_or(1);
            let (key, objects) = (object.key(), vec![object.clone()]);
            Workload { key, is_own: false, replicas, most: replicas as usize, objects }
        })
    }

    /// The name of its template of claims; `None` if it has none.
    pub fn claim(&self) -> Option<String> {
        self.objects[0].to_json()["spec"]["volumeClaimTemplates"][0]["metadata"]["name"].as_str().map(str::to_owned)
    }

    /// The number in the name of its first pod, if it is a StatefulSet.
    pub fn first_ordinal(&self) -> u64 {
        self.objects[0].to_json()["spec"]["ordinals"]["start"].as_u64().unwrap_or(0)
    }

    /// Whether its pods may not run just anywhere.
    pub fn is_placed(&self) -> bool {
        is_placed(&self.objects[0])
    }

    /// Whether it runs a pod on each node.
    pub fn is_daemon(&self) -> bool {
        self.key.kind == Kind::DAEMON_SET
    }

    /// Whether it is deleted automatically after it has finished.
    pub fn vanishes(&self) -> bool {
        !self.objects[0].to_json()["spec"]["ttlSecondsAfterFinished"].is_null()
    }

    /// Whether its pods wait for a label of a node.
    pub fn waits_for_label(&self) -> bool {
        let spec = self.objects[0].pod_spec();
        spec.is_some_and(|spec| spec.node_selector.iter().flatten().any(|(key, _)| key == LABEL))
    }

    /// Whether each index of its pods may fail so often.
    pub fn has_limit_per_index(&self) -> bool {
        !self.objects[0].to_json()["spec"]["backoffLimitPerIndex"].is_null()
    }

    /// Whether its pods end by themselves.
    pub fn ends(&self) -> bool {
        matches!(self.key.kind, Kind::JOB | Kind::CRON_JOB)
    }

    /// Whether it takes over pods or ReplicaSets that one before it has left. A Job does not: its selector is its own.
    pub fn adopts(&self) -> bool {
        !self.ends()
    }

    /// Whether its claims are deleted with it.
    pub fn takes_claims_along(&self) -> bool {
        let set = self.objects.iter().find(|object| object.kind() == Kind::STATEFUL_SET).map(Object::to_json);
        set.is_some_and(|set| {
            set["spec"]["persistentVolumeClaimRetentionPolicy"]["whenDeleted"] == "Delete"
                && set["spec"]["volumeClaimTemplates"].is_array()
        })
    }

    /// Whether it has replicas that can be scaled.
    pub fn scales(&self) -> bool {
        !self.is_daemon() && !self.ends()
    }

    /// Whether it rolls out changes of its pod template.
    pub fn rolls(&self) -> bool {
        matches!(self.key.kind, Kind::DEPLOYMENT | Kind::STATEFUL_SET | Kind::DAEMON_SET)
    }
}
