//! The options of `skeg up`: a faster clock, image profiles, and addresses for load balancers.

use std::process::Command;

use serde_json::{Value, json};

use crate::client::{Cluster, scratch};

const SERVICES: &str = "/api/v1/namespaces/default/services";
const PODS: &str = "/api/v1/namespaces/default/pods";

#[test]
fn services_get_addresses_of_the_range() {
    let cluster = Cluster::start("load-balancer", &["--nodes", "0", "--load-balancer-range", "192.0.2.0/30"]);
    for name in ["a", "b"] {
        let body = json!({"metadata": {"name": name}, "spec": {"type": "LoadBalancer", "ports": [{"port": 80}]}});
        cluster.create(SERVICES, &body);
    }
    let address = |name: &str| {
        let service = cluster.get(&format!("{SERVICES}/{name}")).json();
        service["status"]["loadBalancer"]["ingress"][0]["ip"].as_str().map(str::to_owned)
    };
    cluster.wait_for("both have an address", || address("a").is_some() && address("b").is_some());
    let mut both = [address("a"), address("b")];
    both.sort();
    assert_eq!(both, [Some("192.0.2.1".to_owned()), Some("192.0.2.2".to_owned())]);
}

#[test]
fn a_faster_clock_ends_what_takes_hours() {
    let file = scratch("speed").join("images.yaml");
    std::fs::write(&file, "batch: {exit: {after: 40m, code: 0}, start: 1s..2s}\n").expect("it can be written");
    let file = file.to_str().expect("paths of tests are text");
    let cluster = Cluster::start("speed", &["--nodes", "1", "--speed", "1000", "--image-profile", file]);
    cluster.wait_for("there is an account", || {
        cluster.get("/api/v1/namespaces/default/serviceaccounts/default").code == 200
    });
    let spec = json!({"restartPolicy": "Never", "containers": [{"name": "c", "image": "batch"}]});
    cluster.create(PODS, &json!({"metadata": {"name": "p"}, "spec": spec}));
    let pod = || cluster.get(&format!("{PODS}/p")).json();
    cluster.wait_for("forty minutes have passed", || pod()["status"]["phase"] == "Succeeded");
    let state = pod()["status"]["containerStatuses"][0]["state"]["terminated"].clone();
    let (started, finished) = (text(&state["startedAt"]), text(&state["finishedAt"]));
    assert_ne!(started[..15], finished[..15], "more than ten minutes lie between: {started}, {finished}");
}

fn text(value: &Value) -> String {
    value.as_str().expect("a time").to_owned()
}

#[test]
fn clients_are_disturbed_by_seed() {
    let codes = |seed: &str| -> Vec<u16> {
        let cluster = Cluster::start("perturb", &["--nodes", "0", "--perturb", "heavy", "--seed", seed]);
        let ask = |n: usize| {
            let body = json!({"metadata": {"name": format!("m{n}")}}).to_string();
            let headers = [("Content-Type", "application/json"), ("User-Agent", "program/1.0")];
            cluster.send("POST", "/api/v1/namespaces/default/configmaps", &headers, body.as_bytes()).code
        };
        let codes = (0..40).map(ask).collect();
        // What another program asks for does not change what happens to this one.
        assert_eq!(cluster.get("/readyz").code, 200);
        codes
    };
    let first = codes("3");
    for code in [201, 429, 504] {
        assert!(first.contains(&code), "{code} in {first:?}");
    }
    assert_eq!(first, codes("3"));
    assert_ne!(first, codes("4"));
}

#[test]
fn bad_options_are_refused_by_name() {
    let check = |args: &[&str], want: &str| {
        let refused = Command::new(env!("CARGO_BIN_EXE_skeg")).arg("up").args(args).output().expect("it runs");
        let why = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(refused.status.code() == Some(2) && why.contains(want), "{args:?}: {why}");
    };
    check(&["--speed", "60"], "--in-memory");
    check(&["--in-memory", "--speed", "0"], "--speed");
    check(&["--in-memory", "--perturb", "much"], "possible values: light, heavy");
    check(&["--load-balancer-range", "10.0.0.1"], "10.0.0.0/24");
    let base = ["--in-memory", "--listen", "127.0.0.1:0", "--image-profile"];
    check(&[&base[..], &["/nowhere/images.yaml"]].concat(), "/nowhere/images.yaml");
    let file = scratch("bad-images").join("images.yaml");
    std::fs::write(&file, "nginx: {exits: 3s}\n").expect("it can be written");
    check(&[&base[..], &[file.to_str().expect("paths of tests are text")]].concat(), "exits");
}

#[test]
fn feature_gates_serve_what_is_off_by_default() {
    const GROUP: &str = "/apis/scheduling.k8s.io/v1alpha2";
    let groups = format!("{GROUP}/namespaces/default/podgroups");
    let pod = |name: &str| {
        json!({"metadata": {"name": name}, "spec": {"schedulingGroup": {"podGroupName": "g"},
            "containers": [{"name": "c", "image": "i"}]}})
    };
    let has_account = |cluster: &Cluster| {
        cluster.wait_for("there is an account", || {
            cluster.get("/api/v1/namespaces/default/serviceaccounts/default").code == 200
        });
    };
    let off = Cluster::start("gates-off", &["--nodes", "0"]);
    has_account(&off);
    assert_eq!((off.get(GROUP).code, off.get(&groups).code), (404, 404));
    off.create(PODS, &pod("p"));
    assert_eq!(off.get(&format!("{PODS}/p")).json()["spec"]["schedulingGroup"], Value::Null);

    let gates = "GenericWorkload=true,GangScheduling=true";
    let cluster = Cluster::start("gates", &["--nodes", "1", "--feature-gates", gates]);
    has_account(&cluster);
    let served = cluster.get(GROUP).json();
    let names: Vec<&str> = served["resources"].as_array().unwrap().iter().filter_map(|r| r["name"].as_str()).collect();
    assert_eq!(names, ["workloads", "podgroups", "podgroups/status"]);
    let schemas = &cluster.get(&format!("/openapi/v3{GROUP}")).json()["components"]["schemas"];
    assert!(schemas["io.k8s.api.scheduling.v1alpha2.PodGroup"].is_object());
    let policy = json!({"gang": {"minCount": 2}});
    let template = json!({"podGroupTemplates": [{"name": "t", "schedulingPolicy": policy}]});
    let workload = json!({"metadata": {"name": "w"}, "spec": template});
    cluster.create(&format!("{GROUP}/namespaces/default/workloads"), &workload);
    let group = json!({"metadata": {"name": "g"}, "spec": {"schedulingPolicy": policy, "priority": 7}});
    cluster.create(&groups, &group);
    assert_eq!(cluster.get(&format!("{groups}/g")).json()["spec"], json!({"schedulingPolicy": policy}));
    cluster.create(PODS, &pod("p"));
    cluster.create(PODS, &pod("q"));
    let node = |name: &str| cluster.get(&format!("{PODS}/{name}")).json()["spec"]["nodeName"].is_string();
    cluster.wait_for("both have a node", || node("p") && node("q"));
    let condition = || cluster.get(&format!("{groups}/g")).json()["status"]["conditions"][0].clone();
    cluster.wait_for("the group says so", || condition()["reason"] == "Scheduled");
    assert_eq!((&condition()["type"], &condition()["status"]), (&json!("PodGroupScheduled"), &json!("True")));

    let mut refused = Command::new(env!("CARGO_BIN_EXE_skeg"));
    let refused = refused.args(["up", "--in-memory", "--feature-gates", "GangScheduling=true"]).output().unwrap();
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(said.contains("depends on features that are disabled: [GenericWorkload]"), "{said}");
    assert_eq!(refused.status.code(), Some(2));
}
