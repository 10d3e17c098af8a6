//! Claims on real nodes: directories of the node, made by the provisioner of the default class and removed with the
//! claim; and volumes made by hand.

use std::path::Path;

use serde_json::{Value, json};

use crate::client::{Cluster, scratch};
use crate::docker::{PODS, container, create, end, events, gone, log, pod, start, to_use, wait, with};
use crate::recording;

const SETS: &str = "/apis/apps/v1/namespaces/default/statefulsets";
const CLAIMS: &str = "/api/v1/namespaces/default/persistentvolumeclaims";
const VOLUMES: &str = "/api/v1/persistentvolumes";

/// The only volume there is.
fn volume(cluster: &Cluster) -> Value {
    let list = cluster.get(VOLUMES).json();
    let items = list["items"].as_array().expect("a list");
    assert_eq!(items.len(), 1, "{list}");
    items[0].clone()
}

fn claim(name: &str, spec: Value) -> Value {
    let mut spec = with(spec, "accessModes", json!(["ReadWriteOnce"]));
    spec["resources"] = json!({"requests": {"storage": "1Mi"}});
    json!({"metadata": {"name": name}, "spec": spec})
}

#[test]
fn what_is_written_outlives_the_pod_and_not_the_claim() {
    let Some(_engine) = to_use() else { return };
    let record = recording::empty("docker-claims");
    let cluster = start("docker-claims", &["--in-memory", "--record", record.to_str().expect("text")]);
    // Nobody but the pod's group may write: its user is not the one who made the directory.
    let script = "echo $(id -u):$(id -G) >> /data/who || exit 1; cat /data/who; exec sleep 1000";
    let mounts = json!([{"name": "data", "mountPath": "/data"}]);
    let spec = json!({"terminationGracePeriodSeconds": 1, "automountServiceAccountToken": false,
        "securityContext": {"runAsUser": 1000, "fsGroup": 4321},
        "containers": [with(container("c", script), "volumeMounts", mounts)]});
    cluster.create(
        SETS,
        &json!({"metadata": {"name": "db"}, "spec": {"serviceName": "db", "selector": {"matchLabels": {"app": "db"}},
            "template": {"metadata": {"labels": {"app": "db"}}, "spec": spec},
            "volumeClaimTemplates": [claim("data", json!({}))]}}),
    );
    cluster.wait_for("it writes", || log(&cluster, "db-0", "").contains("1000:"));
    let first = log(&cluster, "db-0", "");
    assert!(first.lines().count() == 1 && first.contains("4321"), "{first}");
    let before = pod(&cluster, "db-0")["metadata"]["uid"].clone();
    assert_eq!(cluster.send("DELETE", &format!("{PODS}/db-0"), &[], b"").code, 200);
    cluster.wait_for("another pod writes, too", || {
        pod(&cluster, "db-0")["metadata"]["uid"] != before && log(&cluster, "db-0", "").lines().count() == 2
    });

    let made = volume(&cluster);
    let path = Path::new(made["spec"]["hostPath"]["path"].as_str().expect("it is a directory")).to_owned();
    assert!(path.join("who").exists(), "{}", path.display());
    assert_eq!(
        (&made["spec"]["persistentVolumeReclaimPolicy"], &made["status"]["phase"]),
        (&json!("Delete"), &json!("Bound"))
    );
    assert_eq!(cluster.send("DELETE", &format!("{CLAIMS}/data-db-0"), &[], b"").code, 200);
    std::thread::sleep(std::time::Duration::from_secs(2));
    assert!(path.join("who").exists(), "the claim is in use");
    assert_eq!(cluster.send("DELETE", &format!("{SETS}/db"), &[], b"").code, 200);
    cluster.wait_for("the volume goes with its claim", || {
        cluster.get(VOLUMES).json()["items"].as_array().is_some_and(Vec::is_empty)
    });
    cluster.wait_for("and its directory", || !path.exists());
    end(cluster);
    recording::replays(&record);
}

#[test]
fn volumes_made_by_hand_are_mounted() {
    let Some(_engine) = to_use() else { return };
    let cluster = start("docker-by-hand", &["--in-memory"]);
    let dir = scratch("docker-by-hand").join("disk");
    let _ = std::fs::remove_dir_all(&dir);
    let nodes = || cluster.get("/api/v1/nodes").json()["items"].as_array().cloned().unwrap_or_default();
    cluster.wait_for("there is a node", || !nodes().is_empty());
    let volume = |name: &str, source: &str, path: &Path| {
        let node = nodes()[0]["metadata"]["name"].clone();
        let on = json!([{"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "In", "values": [node]}]}]);
        let mut spec = json!({"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"], "storageClassName": "",
            "nodeAffinity": {"required": {"nodeSelectorTerms": on}}});
        spec[source] = json!({"path": path});
        cluster.create(VOLUMES, &json!({"metadata": {"name": name}, "spec": spec}));
        cluster.create(CLAIMS, &claim(name, json!({"storageClassName": "", "volumeName": name})));
    };
    volume("disk", "local", &dir);
    let mounts = |read_only: bool| json!([{"name": "data", "mountPath": "/data", "readOnly": read_only}]);
    let of = |claim: &str, script: &str| {
        json!({"restartPolicy": "Never", "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": claim}}],
            "containers": [with(container("c", script), "volumeMounts", mounts(false))]})
    };
    create(&cluster, "writes", of("disk", "echo here > /data/file"));
    cluster.wait_for("it is said that there is no such disk", || {
        events(&cluster, "writes").contains("FailedMount: \"MountVolume.SetUp failed for volume \\\"data\\\"")
    });
    std::fs::create_dir_all(&dir).expect("it is ours");
    wait(&cluster, "writes", "/status/phase", json!("Succeeded"));
    assert_eq!(std::fs::read_to_string(dir.join("file")).expect("it is written"), "here\n");
    let mut reads = of("disk", "cat /data/file; touch /data/other || echo read-only");
    reads["volumes"][0]["persistentVolumeClaim"]["readOnly"] = json!(true);
    create(&cluster, "reads", reads);
    wait(&cluster, "reads", "/status/phase", json!("Succeeded"));
    assert_eq!(log(&cluster, "reads", "").lines().filter(|line| ["here", "read-only"].contains(line)).count(), 2);
    for name in ["writes", "reads"] {
        gone(&cluster, name);
    }
    assert!(dir.join("file").exists(), "its owner keeps it");
    end(cluster);
}
