//! Memory of 150,000 pods decoded from bytes, compared with pods that were created in the process.

use std::num::NonZeroU64;
use std::process::Command;
use std::rc::Rc;
use std::time::Instant;

use serde_json::json;
use skeg_core::Object;
use skeg_core::machine::Now;
use skeg_core::object::{BoundPodSpec, Kinds, Obj, ObjectMeta, Pod, PodStatus, Revision, SharedPodSpec, Text};
use skeg_core::store::codec::{decode_key, encode, encode_key};
use skeg_core::store::{Codec, Entry, KeyValue, LeaseId, MemoryStore, StoreKey, Stored};

use crate::Figure;
use crate::sim::peak_rss_bytes;

const PODS: usize = 150_000;
const TEMPLATES: usize = 50;
const NODES: usize = 5_000;

/// A running pod of a ReplicaSet as the machines of a cluster create it, sharing all parts that they share.
struct Template {
    meta: ObjectMeta,
    spec: SharedPodSpec,
    status: PodStatus,
}

fn template(t: usize) -> Template {
    let name = format!("web-{t}-5d4f8c7b9");
    let since = "2026-01-01T00:00:00Z";
    let condition =
        |kind: &str| json!({"type": kind, "status": "True", "lastTransitionTime": since, "observedGeneration": 1});
    let conditions =
        ["PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled"].map(condition);
    let image = format!("registry.example/web:{t}");
    let pod = json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "x", "namespace": "default", "uid": "x", "generateName": format!("{name}-"),
            "creationTimestamp": "2026-01-01T00:00:00Z", "generation": 1,
            "labels": {"app": format!("web-{t}"), "pod-template-hash": "5d4f8c7b9"},
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": name, "controller": true,
                "uid": format!("0000-{t}"), "blockOwnerDeletion": true}]},
        "spec": {"restartPolicy": "Always", "dnsPolicy": "ClusterFirst", "schedulerName": "default-scheduler",
            "serviceAccountName": "default", "terminationGracePeriodSeconds": 30,
            "containers": [{"name": "main", "image": image, "env": [{"name": "TEMPLATE", "value": t.to_string()}],
                "resources": {"requests": {"cpu": "100m", "memory": "500Mi"}}}]},
        "status": {"phase": "Running", "qosClass": "Burstable", "hostIP": "x", "hostIPs": [{"ip": "x"}], "podIP": "x",
            "podIPs": [{"ip": "x"}], "startTime": "2026-01-01T00:00:00Z", "conditions": conditions,
            "containerStatuses": [{"name": "main", "image": image, "imageID": format!("{image}@sha256:0"),
                "containerID": "x", "ready": true, "started": true, "restartCount": 0,
                "state": {"running": {"startedAt": "2026-01-01T00:00:00Z"}}, "lastState": {}}]}});
    match Object::from_json(pod) {
        Ok(Object::Pod(pod)) => Template {
            meta: ObjectMeta::clone(&pod.meta),
            spec: pod.spec.shared.clone(),
            status: PodStatus::clone(&pod.status),
        },
        other => panic!("a pod is a pod: {other:?}"),
    }
}

fn pod(template: &Template, nodes: &[(Rc<str>, Text)], i: usize) -> Pod {
    let (node, ip) = &nodes[i % nodes.len()];
    let generate = template.meta.generate_name.as_deref().unwrap_or_default();
    let meta = ObjectMeta {
        name: Some(format!("{generate}{i:05x}")),
        uid: Some(format!("11111111-2222-3333-4444-{i:012}")),
        ..template.meta.clone()
    };
    let spec = BoundPodSpec { shared: template.spec.clone(), node: Some(Rc::clone(node)) };
    let mut status = template.status.clone();
    status.host_ip = ip.clone();
    status.pod_ip = Text::from(&*format!("10.{}.{}.{}", i >> 16, i >> 8 & 255, i & 255));
    status.container_statuses[0].container_id = Text::from(&*format!("sim://{i:020}"));
    Obj::new(meta, spec, status)
}

/// A store with all these pods; if `from_bytes` is true, each is encoded and decoded first.
fn store(from_bytes: bool) -> MemoryStore {
    let templates: Vec<Template> = (0..TEMPLATES).map(template).collect();
    let node = |n: usize| (Rc::from(format!("node-{n}")), Text::from(&*format!("192.168.{}.{}", n >> 8, n & 255)));
    let nodes: Vec<(Rc<str>, Text)> = (0..NODES).map(node).collect();
    let mut codec = Codec::new(Kinds::default());
    let values = (0..PODS).map(|i| {
        let mut object = Object::Pod(pod(&templates[i % TEMPLATES], &nodes, i));
        let revision = Revision(i as u64 + 2);
        object.set_rv(revision);
        let (mut key, mut value) = (StoreKey::Object(object.key()), Stored::Object(object));
        if from_bytes {
            let bytes = (encode_key(codec.kinds(), &key), encode(&value));
            key = decode_key(codec.kinds(), &bytes.0).expect("a key is a key");
            value = codec.decode(&key, revision, &bytes.1, None).expect("a value is a value");
        }
        let entry = Rc::new(Entry { key, create_revision: revision, lease: None });
        KeyValue { version: 1, value, entry }
    });
    MemoryStore::restore(Now::default(), Revision(PODS as u64 + 1), LeaseId(NonZeroU64::MIN), [], values)
}

/// Peak memory of this process once the pods exist, and how long that took in seconds.
pub fn measure(from_bytes: bool) -> String {
    let start = Instant::now();
    let store = store(from_bytes);
    assert_eq!(store.objects(skeg_core::Kind::POD).count(), PODS);
    format!("{} {}", peak_rss_bytes(), start.elapsed().as_secs_f64())
}

/// Each half runs in a separate process, because peak memory is measured per process.
pub fn restore_150k() -> Result<Vec<Figure>, String> {
    let half = |name: &str| -> Result<(f64, f64), String> {
        let binary = std::env::current_exe().map_err(|e| format!("this program's own path: {e}"))?;
        let output = Command::new(binary).arg(name).output().map_err(|e| format!("{name}: {e}"))?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let mut numbers = text.split_whitespace().map(str::parse::<f64>);
        match (numbers.next(), numbers.next()) {
            (Some(Ok(bytes)), Some(Ok(seconds))) => Ok((bytes, seconds)),
            _ => Err(format!("{name}: {} {}", output.status, String::from_utf8_lossy(&output.stderr))),
        }
    };
    let (made, _) = half("restore-made")?;
    let (loaded, seconds) = half("restore-loaded")?;
    eprintln!("made: {:.0} MiB, loaded: {:.0} MiB", made / 1_048_576.0, loaded / 1_048_576.0);
    Ok(vec![
        Figure { name: "sim/restore-150k", value: loaded / made, unit: "times that of making them" },
        Figure { name: "sim/restore-150k-bytes", value: loaded, unit: "bytes" },
        Figure { name: "sim/restore-150k-wall", value: seconds, unit: "s" },
    ])
}
