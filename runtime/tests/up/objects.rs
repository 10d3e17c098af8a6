//! What API clients rely on: discovery, the verbs, tables, watches, and running workloads.

use serde_json::{Value, json};

use crate::client::Cluster;

fn deployment(name: &str, replicas: u32) -> Value {
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name},
        "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": name}},
            "template": {"metadata": {"labels": {"app": name}},
                "spec": {"containers": [{"name": "c", "image": "nginx:1"}]}}}})
}

const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";

#[test]
fn a_cluster_has_what_everybody_expects() {
    let cluster = Cluster::start("expected", &["--nodes", "3"]);
    let version = cluster.get_as_stranger("/version").json();
    assert_eq!(version["gitVersion"], "v1.36.0");
    for path in ["/healthz", "/livez", "/readyz", "/readyz?verbose"] {
        assert_eq!(cluster.get_as_stranger(path).code, 200, "{path}");
    }
    assert_eq!(cluster.get_as_stranger("/api/v1/nodes").code, 403);
    let nobody = [("Authorization", "Bearer nobody")];
    assert_eq!(cluster.send_as_stranger("GET", "/version", &nobody, b"").code, 401);
    assert_eq!(cluster.send("GET", "/api", &nobody, b"").code, 200, "the certificate says already who it is");
    for path in [
        "/api/v1/namespaces/kube-system",
        "/api/v1/namespaces/default/services/kubernetes",
        "/apis/scheduling.k8s.io/v1/priorityclasses/system-node-critical",
        "/apis/storage.k8s.io/v1/storageclasses/standard",
    ] {
        assert_eq!(cluster.get(path).code, 200, "{path}");
    }
    let service = cluster.get("/api/v1/namespaces/default/services/kubernetes").json();
    assert_eq!(service["spec"]["clusterIP"], "10.96.0.1");
    cluster.wait_for("three nodes are ready", || {
        let nodes = cluster.get("/api/v1/nodes").json();
        let ready = |node: &Value| {
            let conditions = node["status"]["conditions"].as_array().cloned().unwrap_or_default();
            conditions.iter().any(|c| c["type"] == "Ready" && c["status"] == "True")
        };
        nodes["items"].as_array().unwrap().iter().filter(|n| ready(n)).count() == 3
    });
    cluster.wait_for("the default account is there", || {
        cluster.get("/api/v1/namespaces/default/serviceaccounts/default").code == 200
    });
}

#[test]
fn discovery_comes_in_the_version_that_is_asked_for() {
    let cluster = Cluster::start("discovery", &["--nodes", "0"]);
    for version in ["v2", "v2beta1"] {
        let wanted = format!("application/json;g=apidiscovery.k8s.io;v={version};as=APIGroupDiscoveryList");
        let answer = cluster.send("GET", "/apis", &[("Accept", &format!("{wanted},application/json"))], b"");
        assert_eq!(answer.header("content-type"), Some(&*wanted));
        assert_eq!(answer.json()["apiVersion"], format!("apidiscovery.k8s.io/{version}"));
    }
    assert_eq!(cluster.get("/apis").json()["kind"], "APIGroupList");
    assert_eq!(cluster.get("/api").json()["kind"], "APIVersions");
    assert_eq!(cluster.get("/apis/apps/v1").json()["kind"], "APIResourceList");
    assert_eq!(cluster.get("/apis/apps").json()["preferredVersion"]["version"], "v1");
    let index = cluster.get("/openapi/v3").json();
    let url = index["paths"]["apis/apps/v1"]["serverRelativeURL"].as_str().unwrap().to_owned();
    let document = cluster.get(&url);
    let deployment = &document.json()["components"]["schemas"]["io.k8s.api.apps.v1.Deployment"];
    let spec = &deployment["properties"]["spec"];
    assert_eq!(spec["allOf"][0]["$ref"], "#/components/schemas/io.k8s.api.apps.v1.DeploymentSpec");
    assert_eq!(spec["description"], "Specification of the desired behavior of the Deployment.");
    assert_eq!(document.header("cache-control"), Some("public, immutable"));
    let etag = document.header("etag").unwrap();
    assert_eq!(cluster.send("GET", &url, &[("If-None-Match", etag)], b"").code, 304);
    let compressed = cluster.send("GET", &url, &[("Accept-Encoding", "gzip")], b"");
    assert_eq!(compressed.header("content-encoding"), Some("gzip"));
    assert!(compressed.body.len() * 5 < document.body.len());
    let stale = cluster.get("/openapi/v3/apis/apps/v1?hash=0");
    assert_eq!((stale.code, stale.header("location")), (301, Some(&*url)));
}

#[test]
fn objects_live_through_every_verb() {
    let cluster = Cluster::start("verbs", &["--nodes", "0"]);
    let map = |data: &str| json!({"metadata": {"name": "a", "labels": {"l": data}}, "data": {"k": data}});
    let made = cluster.create(CONFIG_MAPS, &map("1"));
    assert_eq!((&made["kind"], &made["apiVersion"]), (&json!("ConfigMap"), &json!("v1")));
    assert_eq!(cluster.write("POST", CONFIG_MAPS, &map("1")).code, 409);
    let path = format!("{CONFIG_MAPS}/a");
    assert_eq!(cluster.get(&path).json()["data"]["k"], "1");
    // Without a content type, the body is JSON.
    let put = cluster.send("PUT", &path, &[], map("2").to_string().as_bytes());
    assert_eq!((put.code, &put.json()["data"]["k"]), (200, &json!("2")));
    let mut stale = map("3");
    stale["metadata"]["resourceVersion"] = made["metadata"]["resourceVersion"].clone();
    let conflict = cluster.write("PUT", &path, &stale);
    assert_eq!((conflict.code, &conflict.json()["reason"]), (409, &json!("Conflict")));
    let yaml = "metadata:\n  name: b\ndata:\n  k: v\n";
    let made = cluster.send("POST", CONFIG_MAPS, &[("Content-Type", "application/yaml")], yaml.as_bytes());
    assert_eq!(made.code, 201, "{}", made.text());
    let as_yaml = cluster.send("GET", &path, &[("Accept", "application/yaml")], b"");
    assert!(as_yaml.text().contains("kind: ConfigMap"), "{}", as_yaml.text());
    let patches = [
        ("application/merge-patch+json", r#"{"data":{"m":"1"}}"#),
        ("application/json-patch+json", r#"[{"op":"add","path":"/data/j","value":"2"}]"#),
        ("application/strategic-merge-patch+json", r#"{"data":{"s":"3"}}"#),
    ];
    for (content_type, body) in patches {
        let patched = cluster.send("PATCH", &path, &[("Content-Type", content_type)], body.as_bytes());
        assert_eq!(patched.code, 200, "{content_type}: {}", patched.text());
    }
    assert_eq!(cluster.get(&path).json()["data"], json!({"k": "2", "m": "1", "j": "2", "s": "3"}));
    let dry = cluster.write("POST", &format!("{CONFIG_MAPS}?dryRun=All"), &json!({"metadata": {"name": "dry"}}));
    assert_eq!((dry.code, cluster.get(&format!("{CONFIG_MAPS}/dry")).code), (201, 404));
    let first = cluster.get(&format!("{CONFIG_MAPS}?limit=1")).json();
    let token = first["metadata"]["continue"].as_str().unwrap();
    let second = cluster.get(&format!("{CONFIG_MAPS}?limit=1&continue={token}")).json();
    let name = |list: &Value| list["items"][0]["metadata"]["name"].clone();
    assert_eq!((name(&first), name(&second)), (json!("a"), json!("b")));
    let labelled = cluster.get(&format!("{CONFIG_MAPS}?labelSelector=l%3D2")).json();
    assert_eq!(labelled["items"].as_array().unwrap().len(), 1);
    let gone = cluster.send("DELETE", &path, &[], b"");
    assert_eq!((gone.code, &gone.json()["status"]), (200, &json!("Success")));
    let missing = cluster.get(&path);
    assert_eq!(missing.code, 404);
    assert_eq!(missing.json()["message"], "configmaps \"a\" not found");
    assert_eq!(cluster.send("DELETE", CONFIG_MAPS, &[], b"").code, 200);
    let left = cluster.get(CONFIG_MAPS).json()["items"].as_array().unwrap().clone();
    // That of every namespace may have come back by now.
    assert!(left.iter().all(|map| map["metadata"]["name"] == "kube-root-ca.crt"), "{left:?}");
}

#[test]
fn a_deployment_runs_and_is_shown_in_tables_and_watches() {
    let cluster = Cluster::start("deployment", &["--nodes", "2"]);
    let deployments = "/apis/apps/v1/namespaces/default/deployments";
    cluster.create(deployments, &deployment("web", 3));
    let watched = cluster.watch(&format!("{deployments}?watch=1&resourceVersion=0"), 1);
    assert_eq!((&watched[0]["type"], &watched[0]["object"]["metadata"]["name"]), (&json!("ADDED"), &json!("web")));
    cluster.wait_for("the deployment is available", || {
        cluster.get(&format!("{deployments}/web")).json()["status"]["availableReplicas"] == 3
    });
    let table = ("Accept", "application/json;as=Table;v=v1;g=meta.k8s.io,application/json");
    let pods = cluster.send("GET", "/api/v1/namespaces/default/pods?limit=500", &[table], b"").json();
    assert_eq!((&pods["kind"], pods["rows"].as_array().unwrap().len()), (&json!("Table"), 3));
    let cells: Vec<&Value> = pods["rows"].as_array().unwrap().iter().map(|row| &row["cells"]).collect();
    assert!(cells.iter().all(|c| c[1] == "1/1" && c[2] == "Running"), "{cells:?}");
    // A watch-list starts with all existing objects and then sends a bookmark that marks their end.
    let path = "/api/v1/namespaces/default/pods?watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan\
                &allowWatchBookmarks=true";
    let events = cluster.watch(path, 4);
    assert_eq!(events.iter().filter(|e| e["type"] == "ADDED").count(), 3);
    assert_eq!(events[3]["type"], "BOOKMARK");
    assert_eq!(events[3]["object"]["metadata"]["annotations"]["k8s.io/initial-events-end"], "true");
    let scale = cluster.write("PATCH", &format!("{deployments}/web/scale"), &json!({"spec": {"replicas": 1}}));
    assert_eq!((scale.code, &scale.json()["kind"]), (200, &json!("Scale")));
    cluster.wait_for("one pod is left", || {
        cluster.get("/api/v1/namespaces/default/pods").json()["items"].as_array().unwrap().len() == 1
    });
    let pods = cluster.get("/api/v1/namespaces/default/pods").json();
    let pod = pods["items"][0]["metadata"]["name"].as_str().unwrap();
    let log = cluster.get(&format!("/api/v1/namespaces/default/pods/{pod}/log"));
    assert!(log.code == 200 && log.text().contains("nginx:1"), "{}", log.text());
    let eviction = json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod}});
    let evicted = cluster.write("POST", &format!("/api/v1/namespaces/default/pods/{pod}/eviction"), &eviction);
    assert_eq!(evicted.code, 201, "{}", evicted.text());
}

/// As another scheduler binds, with annotations that say what it has reserved.
#[test]
fn a_binding_annotates_its_pod() {
    let cluster = Cluster::start("binding", &["--nodes", "1"]);
    let pods = "/api/v1/namespaces/default/pods";
    for (name, with_uid) in [("a", true), ("b", false)] {
        let spec = json!({"schedulerName": "other", "containers": [{"name": "c", "image": "nginx:1"}]});
        let meta = json!({"name": name, "annotations": {"kept": "1", "both": "1"}});
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec});
        let uid = cluster.create(pods, &pod)["metadata"]["uid"].clone();
        let mut binding = json!({"apiVersion": "v1", "kind": "Binding", "target": {"kind": "Node", "name": "node-0"},
            "metadata": {"name": name, "annotations": {"both": "2", "new": "3"}}});
        if with_uid {
            binding["metadata"]["uid"] = uid;
        }
        let bound = cluster.write("POST", &format!("{pods}/{name}/binding"), &binding);
        assert_eq!(bound.code, 201, "{}", bound.text());
        let pod = cluster.get(&format!("{pods}/{name}")).json();
        assert_eq!(pod["spec"]["nodeName"], "node-0");
        assert_eq!(pod["metadata"]["annotations"], json!({"kept": "1", "both": "2", "new": "3"}));
        binding["metadata"]["annotations"] = json!({"a": 1});
        assert_eq!(cluster.write("POST", &format!("{pods}/{name}/binding"), &binding).code, 400);
    }
}

#[test]
fn a_watch_from_a_forgotten_revision_ends_with_410() {
    let cluster = Cluster::start("watch-410", &["--nodes", "0"]);
    let events = cluster.watch(&format!("{CONFIG_MAPS}?watch=1&resourceVersion=1&timeoutSeconds=1"), 0);
    assert!(events.is_empty(), "a watch from a known revision begins");
    let path = "/api/v1/namespaces/default/configmaps?watch=1&resourceVersion=abc";
    assert_eq!(cluster.get(path).code, 422);
}

#[test]
fn it_ends_when_it_is_asked_to() {
    let mut cluster = Cluster::start("down", &["--nodes", "1"]);
    let status = cluster.skeg("status");
    assert_eq!(status.status.code(), Some(0));
    assert!(String::from_utf8_lossy(&status.stdout).starts_with("running: https://127.0.0.1:"));
    assert_eq!(cluster.skeg("up").status.code(), Some(2), "the address is taken");
    assert_eq!(cluster.skeg("down").status.code(), Some(0));
    assert_eq!(cluster.exit_code(), Some(0));
    assert_eq!(cluster.skeg("status").status.code(), Some(1));
    assert_eq!(cluster.skeg("down").status.code(), Some(2));
}

#[test]
fn built_in_resources_are_served_in_their_second_versions() {
    let cluster = Cluster::start("second-versions", &["--nodes", "0"]);
    let group = cluster.get("/apis/autoscaling").json();
    let versions: Vec<_> = group["versions"].as_array().unwrap().iter().map(|v| v["version"].clone()).collect();
    assert_eq!(json!(versions), json!(["v2", "v1"]));
    let event = json!({"apiVersion": "events.k8s.io/v1", "kind": "Event", "metadata": {"name": "e"}, "note": "a note",
        "regarding": {"kind": "Pod", "namespace": "default", "name": "p"}, "reason": "R", "type": "Normal",
        "action": "A", "eventTime": "2026-01-01T00:00:00.000000Z", "reportingController": "c",
        "reportingInstance": "i"});
    let events = "/apis/events.k8s.io/v1/namespaces/default/events";
    let made = cluster.create(events, &event);
    assert_eq!((&made["note"], &made["apiVersion"]), (&json!("a note"), &json!("events.k8s.io/v1")));
    let of = |reporter: &str| {
        let found = cluster.get(&format!("{events}?fieldSelector=reportingController%3D{reporter}")).json();
        found["items"].as_array().map(Vec::len)
    };
    assert_eq!((of("c"), of("d")), (Some(1), Some(0)));
    let held = cluster.get("/api/v1/namespaces/default/events/e").json();
    assert_eq!((&held["message"], &held["involvedObject"]["name"]), (&json!("a note"), &json!("p")));
    let patch = [("Content-Type", "application/strategic-merge-patch+json")];
    let more = br#"{"series": {"count": 2, "lastObservedTime": "2026-01-01T00:00:01.000000Z"}, "note": "again"}"#;
    let patched = cluster.send("PATCH", &format!("{events}/e"), &patch, more);
    assert_eq!(patched.json()["note"], "again", "{}", patched.text());
    let table = cluster.send("GET", events, &[("Accept", "application/json;as=Table;v=v1;g=meta.k8s.io")], b"").json();
    assert!(table["rows"][0]["cells"].to_string().contains("pod/p"), "{table}");

    let scalers = "/apis/autoscaling/v1/namespaces/default/horizontalpodautoscalers";
    let scaler = json!({"metadata": {"name": "h"}, "spec": {"maxReplicas": 3, "targetCPUUtilizationPercentage": 60,
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}}});
    assert_eq!(cluster.create(scalers, &scaler)["spec"]["targetCPUUtilizationPercentage"], 60);
    let held = cluster.get(&format!("{}/h", scalers.replace("v1", "v2"))).json();
    assert_eq!(held["spec"]["metrics"][0]["resource"]["target"]["averageUtilization"], 60);
    let percent = br#"{"spec": {"targetCPUUtilizationPercentage": 70}}"#;
    let refused = cluster.send("PATCH", &format!("{scalers}/h"), &patch, percent);
    assert!(refused.code == 400 && refused.text().contains("use autoscaling/v2"), "{}", refused.text());
}
