//! The proxies of pods, Services and nodes.

use serde_json::{Value, json};

use crate::client::Cluster;

const NAMESPACE: &str = "/api/v1/namespaces/default";

#[test]
fn requests_are_passed_on_to_pods_services_and_nodes() {
    let cluster = Cluster::start("apiproxy", &["--nodes", "2"]);
    cluster
        .wait_for("the account is there", || cluster.get(&format!("{NAMESPACE}/serviceaccounts/default")).code == 200);
    let container = json!({"name": "c", "image": "nginx", "ports": [{"containerPort": 8080, "name": "web"}]});
    let pod = json!({"metadata": {"name": "p", "labels": {"app": "p"}}, "spec": {"containers": [container]}});
    cluster.create(&format!("{NAMESPACE}/pods"), &pod);
    let ports = json!([{"name": "http", "port": 80, "targetPort": "web"}]);
    let service =
        |name: &str, app: &str| json!({"metadata": {"name": name}, "spec": {"selector": {"app": app}, "ports": ports}});
    for (name, app) in [("s", "p"), ("empty", "none")] {
        cluster.create(&format!("{NAMESPACE}/services"), &service(name, app));
    }
    let ready = || {
        let subsets = cluster.get(&format!("{NAMESPACE}/endpoints/s")).json()["subsets"].clone();
        subsets[0]["addresses"][0]["ip"].is_string()
    };
    cluster.wait_for("the pod is an endpoint", ready);

    let said = |target: &str| format!("simulated: container c of pod default/p, port 8080\nGET {target}\n");
    for (path, target) in [
        ("pods/p/proxy/", "/"),
        ("pods/p/proxy/a%2Fb/c?d=e%20f", "/a%2Fb/c?d=e%20f"),
        ("pods/http:p:8080/proxy/x", "/x"),
        ("services/s/proxy/", ""),
        ("services/s:http/proxy/x", "/x"),
        ("services/http:s:80/proxy/x?y", "/x?y"),
    ] {
        let answer = cluster.get(&format!("{NAMESPACE}/{path}"));
        match target {
            // A port without a name is no port of this Service.
            "" => assert_eq!(
                (answer.code, message(&answer)),
                (503, "no endpoints available for service \"s\"".to_owned())
            ),
            target => assert_eq!((answer.code, answer.text()), (200, said(target)), "{path}"),
        }
    }
    let answer = cluster.send("DELETE", &format!("{NAMESPACE}/pods/p/proxy/x"), &[], b"");
    assert_eq!((answer.code, answer.text()), (200, said("/x").replace("GET", "DELETE")));
    let moved = cluster.get(&format!("{NAMESPACE}/pods/p/proxy?a=b"));
    let location = format!("{NAMESPACE}/pods/p/proxy/?a=b");
    assert_eq!((moved.code, moved.header("location")), (301, Some(location.as_str())));

    let address = cluster.get(&format!("{NAMESPACE}/pods/p")).json()["status"]["podIP"].as_str().unwrap().to_owned();
    let refused = format!("error trying to reach service: dial tcp {address}:81: connect: connection refused");
    for (path, code, why) in [
        ("pods/p:81/proxy/", 503, refused.as_str()),
        ("pods/q/proxy/", 404, "pods \"q\" not found"),
        ("pods/p//proxy", 404, "the server could not find the requested resource"),
        ("pods//proxy/x", 404, "the server could not find the requested resource"),
        ("pods/ftp:p:1/proxy/", 400, "invalid pod request \"ftp:p:1\""),
        ("services/s:81/proxy/", 503, "no service port 81 found for service \"s\""),
        ("services/empty:http/proxy/", 503, "no endpoints available for service \"empty\""),
    ] {
        let answer = cluster.get(&format!("{NAMESPACE}/{path}"));
        assert_eq!((answer.code, message(&answer)), (code, why.to_owned()), "{path}");
    }

    assert_eq!(cluster.get("/api/v1/nodes/node-0/proxy/healthz").text(), "ok");
    assert_eq!(cluster.get("/api/v1/nodes/node-7/proxy/healthz").code, 404);
    // A node that somebody has made by hand has nobody who would answer.
    cluster.create("/api/v1/nodes", &json!({"metadata": {"name": "by-hand"}}));
    let nobody = cluster.get("/api/v1/nodes/by-hand/proxy/healthz");
    assert!(nobody.code == 503 && nobody.text().contains("has no agent"), "{}", nobody.text());
    assert_eq!(cluster.get("/api/v1/nodes/node-0/proxy/nothing").text(), "404 page not found\n");
    let node = cluster.get(&format!("{NAMESPACE}/pods/p")).json()["spec"]["nodeName"].as_str().unwrap().to_owned();
    let summary = cluster.get(&format!("/api/v1/nodes/{node}/proxy/stats/summary")).json();
    let pod = &summary["pods"][0];
    assert_eq!((&summary["node"]["nodeName"], &pod["podRef"]["name"]), (&json!(node), &json!("p")));
    assert_eq!((&pod["containers"][0]["name"], &pod["cpu"]["usageNanoCores"]), (&json!("c"), &json!(50_000_000)));
    assert!(pod["memory"]["workingSetBytes"].as_u64() > Some(0), "{summary}");

    // Whoever may not, learns nothing of what is there.
    for path in [format!("{NAMESPACE}/pods/p/proxy/"), "/api/v1/nodes/node-0/proxy/healthz".to_owned()] {
        let answer = cluster.get_as_stranger(&path);
        assert_eq!(answer.code, 403, "{path}");
        assert!(message(&answer).contains("/proxy\""), "{}", message(&answer));
    }
}

fn message(answer: &crate::client::Answer) -> String {
    let value: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    value["message"].as_str().unwrap_or_default().to_owned()
}
