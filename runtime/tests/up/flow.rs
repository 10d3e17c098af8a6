//! Priority and fairness: its objects, and what requests are told of them.

use std::io::Write;

use serde_json::json;

use crate::client::Cluster;

const API: &str = "/apis/flowcontrol.apiserver.k8s.io/v1";

#[test]
fn every_cluster_has_its_flow_schemas_and_priority_levels() {
    let cluster = Cluster::start("flow", &["--nodes", "0"]);
    let cells = |resource: &str| {
        let table = [("Accept", "application/json;as=Table;v=v1;g=meta.k8s.io")];
        let rows = cluster.send("GET", &format!("{API}/{resource}"), &table, b"").json()["rows"].as_array().cloned();
        rows.unwrap_or_default().into_iter().map(|row| row["cells"].clone()).collect::<Vec<_>>()
    };
    let found = || cells("flowschemas").iter().filter(|cells| cells[5] == "False").count() == 13;
    cluster.wait_for("the schemas are there, and their levels", found);
    let levels = cells("prioritylevelconfigurations");
    let level = |name: &str| json!(levels.iter().find(|cells| cells[0] == name).unwrap().as_array().unwrap()[..6]);
    assert_eq!(levels.len(), 8);
    assert_eq!(level("exempt"), json!(["exempt", "Exempt", "<none>", "<none>", "<none>", "<none>"]));
    assert_eq!(level("workload-low"), json!(["workload-low", "Limited", 100, 128, 6, 50]));

    let uid = |resource: &str, name: &str| {
        cluster.get(&format!("{API}/{resource}/{name}")).json()["metadata"]["uid"].as_str().unwrap().to_owned()
    };
    let told = |answer: &crate::client::Answer| {
        let header = |name: &str| answer.header(name).unwrap_or_default().to_owned();
        (header("x-kubernetes-pf-flowschema-uid"), header("x-kubernetes-pf-prioritylevel-uid"))
    };
    let exempt = (uid("flowschemas", "exempt"), uid("prioritylevelconfigurations", "exempt"));
    assert_eq!(told(&cluster.get("/api/v1/namespaces")), exempt);
    let global = (uid("flowschemas", "global-default"), uid("prioritylevelconfigurations", "global-default"));
    let jane = [("Impersonate-User", "jane")];
    let refused = cluster.send("GET", "/api/v1/namespaces", &jane, b"");
    assert_eq!((refused.code, told(&refused)), (403, global.clone()), "what is refused belongs somewhere too");

    let schema = json!({"metadata": {"name": "mine"}, "spec": {"priorityLevelConfiguration": {"name": "mine"},
        "matchingPrecedence": 5, "rules": [{"subjects": [{"kind": "User", "user": {"name": "jane"}}],
            "resourceRules": [{"verbs": ["list"], "apiGroups": [""], "resources": ["namespaces"],
                "clusterScope": true}]}]}});
    cluster.create(&format!("{API}/flowschemas"), &schema);
    let dangling = || cluster.get(&format!("{API}/flowschemas/mine")).json()["status"]["conditions"][0].clone();
    cluster.wait_for("its level is missed", || dangling()["status"] == "True");
    assert_eq!(
        dangling()["message"],
        "This FlowSchema references the PriorityLevelConfiguration object named \"mine\" but there is no such object"
    );
    assert_eq!(told(&cluster.send("GET", "/api/v1/namespaces", &jane, b"")), global);
    let level = json!({"metadata": {"name": "mine"}, "spec": {"type": "Limited", "limited": {
        "limitResponse": {"type": "Queue", "queuing": {}}}}});
    let made = cluster.create(&format!("{API}/prioritylevelconfigurations"), &level);
    let queuing = json!({"queues": 64, "handSize": 8, "queueLengthLimit": 50});
    assert_eq!(made["spec"]["limited"]["limitResponse"]["queuing"], queuing);
    cluster.wait_for("its level is found", || dangling()["status"] == "False");
    let own = (uid("flowschemas", "mine"), uid("prioritylevelconfigurations", "mine"));
    let led = || told(&cluster.send("GET", "/api/v1/namespaces", &jane, b"")) == own;
    cluster.wait_for("requests belong to it", led);
}

#[test]
fn what_every_cluster_has_is_kept_as_upstream_keeps_it() {
    let cluster = Cluster::start("flow-kept", &["--nodes", "0"]);
    let level = |name: &str| format!("{API}/prioritylevelconfigurations/{name}");
    let annotation = "apf.kubernetes.io/autoupdate-spec";
    let shares = |name: &str| {
        let held = cluster.get(&level(name)).json();
        (
            held["spec"]["limited"]["nominalConcurrencyShares"].clone(),
            held["metadata"]["annotations"][annotation].clone(),
        )
    };
    cluster.wait_for("they are there", || shares("catch-all") == (json!(5), json!("true")));
    cluster.wait_for("they are there", || shares("system") == (json!(30), json!("true")));
    let patch = |name: &str, more: serde_json::Value| {
        let mut body = json!({"spec": {"limited": {"nominalConcurrencyShares": 7}}});
        if !more.is_null() {
            body["metadata"] = json!({"annotations": {annotation: more}});
        }
        assert_eq!(cluster.write("PATCH", &level(name), &body).code, 200);
    };
    patch("system", json!(null));
    cluster.wait_for("it is as it was", || shares("system") == (json!(30), json!("true")));
    patch("system", json!("false"));
    patch("catch-all", json!("false"));
    cluster.wait_for("what is mandatory is as it was", || shares("catch-all") == (json!(5), json!("true")));
    assert_eq!(shares("system"), (json!(7), json!("false")), "that is the user's own");
    assert_eq!(cluster.send("DELETE", &level("system"), &[], b"").code, 200);
    cluster.wait_for("it comes again", || shares("system") == (json!(30), json!("true")));
}

/// Three seats, which three clients take who never finish what they send.
#[test]
fn a_level_whose_seats_are_taken_turns_requests_away_or_lets_them_wait() {
    let cluster = Cluster::start("flow-seats", &["--nodes", "0"]);
    let level = |response: serde_json::Value| {
        json!({"metadata": {"name": "tiny"}, "spec": {"type": "Limited", "limited": {"nominalConcurrencyShares": 1,
            "lendablePercent": 0, "borrowingLimitPercent": 0, "limitResponse": response}}})
    };
    cluster.create(&format!("{API}/prioritylevelconfigurations"), &level(json!({"type": "Reject"})));
    let rule = json!({"subjects": [{"kind": "User", "user": {"name": "jane"}}], "resourceRules": [{"verbs": ["*"],
        "apiGroups": [""], "resources": ["configmaps"], "namespaces": ["*"]}]});
    let schema = json!({"metadata": {"name": "tiny"}, "spec": {"priorityLevelConfiguration": {"name": "tiny"},
        "matchingPrecedence": 5, "distinguisherMethod": {"type": "ByUser"}, "rules": [rule]}});
    let uid = cluster.create(&format!("{API}/flowschemas"), &schema)["metadata"]["uid"].clone();
    let role = "rbac.authorization.k8s.io";
    cluster.create(
        &format!("/apis/{role}/v1/clusterrolebindings"),
        &json!({"metadata": {"name": "jane"}, "roleRef": {"apiGroup": role, "kind": "ClusterRole",
            "name": "cluster-admin"}, "subjects": [{"apiGroup": role, "kind": "User", "name": "jane"}]}),
    );
    let jane = [("Impersonate-User", "jane"), ("Content-Type", "application/json")];
    let maps = "/api/v1/namespaces/default/configmaps";
    let ask = || cluster.send("GET", maps, &jane, b"");
    let is_hers = || ask().header("x-kubernetes-pf-flowschema-uid").is_some_and(|told| uid == told);
    cluster.wait_for("the schema is in force", || is_hers() && ask().code == 200);

    let mut taken: Vec<_> = (0..3).map(|_| cluster.begin_post(maps, &jane)).collect();
    cluster.wait_for("the seats are taken", || ask().code == 429);
    let refused = ask();
    assert_eq!(refused.header("retry-after"), Some("1"));
    let status = refused.json();
    assert_eq!((&status["reason"], &status["code"]), (&json!("TooManyRequests"), &json!(429)));
    assert_eq!(cluster.get(maps).code, 200, "others are answered");
    let metrics = cluster.get("/metrics").text();
    let of = "flow_schema=\"tiny\",priority_level=\"tiny\"";
    let holds = |line: String| assert!(metrics.contains(&line), "{line} is not in {metrics}");
    holds(format!("apiserver_flowcontrol_current_executing_requests{{{of}}} 3\n"));
    holds("apiserver_flowcontrol_nominal_limit_seats{priority_level=\"tiny\"} 3\n".to_owned());
    holds(format!("apiserver_flowcontrol_rejected_requests_total{{{of},reason=\"concurrency-limit\"}} "));

    let queue = json!({"type": "Queue", "queuing": {"queues": 1, "handSize": 1, "queueLengthLimit": 1}});
    let patched = cluster.write("PATCH", &format!("{API}/prioritylevelconfigurations/tiny"), &level(queue));
    assert_eq!(patched.code, 200, "{}", patched.text());
    std::thread::scope(|threads| {
        let waiting = std::cell::Cell::new(None);
        cluster.wait_for("requests wait", || {
            let asked: std::thread::ScopedJoinHandle<'_, u16> = threads.spawn(|| ask().code);
            let in_queue = format!("apiserver_flowcontrol_current_inqueue_requests{{{of}}} 1\n");
            let waits = || cluster.get("/metrics").text().contains(&in_queue);
            while !asked.is_finished() && !waits() {
                std::thread::sleep(std::time::Duration::from_millis(20));
            }
            let waits = !asked.is_finished();
            waiting.set(waits.then_some(asked));
            waits
        });
        assert_eq!(ask().code, 429, "the queue is full");
        taken[0].write_all(b"{}").expect("it reads");
        assert_eq!(waiting.take().unwrap().join().unwrap(), 200, "it has had its turn");
    });
    drop(taken);
    cluster.wait_for("seats are free", || ask().code == 200);
}
