//! Who may do what: roles and bindings, refusals, impersonation, and reviews of access.

use serde_json::{Value, json};

use crate::client::{Answer, Cluster, scratch};

const PODS: &str = "/api/v1/namespaces/default/pods";
const ROLES: &str = "/apis/rbac.authorization.k8s.io/v1/namespaces/default/roles";
const BINDINGS: &str = "/apis/rbac.authorization.k8s.io/v1/namespaces/default/rolebindings";
const CLUSTER_ROLES: &str = "/apis/rbac.authorization.k8s.io/v1/clusterroles";

/// Sends a request as a user, through the administrator.
fn send_as(cluster: &Cluster, user: &str, method: &str, path: &str, body: &Value) -> Answer {
    let headers = [("Impersonate-User", user), ("Content-Type", "application/json")];
    let body = if body.is_null() { String::new() } else { body.to_string() };
    cluster.send(method, path, &headers, body.as_bytes())
}

fn message(answer: &Answer) -> String {
    answer.json()["message"].as_str().unwrap_or_default().to_owned()
}

fn binding(name: &str, role: (&str, &str), user: &str) -> Value {
    json!({"metadata": {"name": name},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": role.0, "name": role.1},
        "subjects": [{"kind": "User", "apiGroup": "rbac.authorization.k8s.io", "name": user}]})
}

fn role(name: &str, verbs: &[&str], resource: &str) -> Value {
    json!({"metadata": {"name": name}, "rules": [{"verbs": verbs, "apiGroups": [""], "resources": [resource]}]})
}

#[test]
fn roles_and_bindings_say_what_users_may_do() {
    let cluster = Cluster::start("rbac", &["--nodes", "0"]);
    let get = |path: &str| send_as(&cluster, "jane", "GET", path, &Value::Null);
    let refused = get(PODS);
    let in_default = "User \"jane\" cannot list resource \"pods\" in API group \"\" in the namespace \"default\"";
    assert_eq!((refused.code, message(&refused)), (403, format!("pods is forbidden: {in_default}")));
    assert_eq!(refused.json()["details"], json!({"kind": "pods"}));
    // Nobody learns what is there who may not see it.
    let nothing = "deployments.apps \"d\" is forbidden: User \"jane\" cannot get resource \"deployments\" in API group \
                   \"apps\" in the namespace \"not-there\"";
    assert_eq!(message(&get("/apis/apps/v1/namespaces/not-there/deployments/d")), nothing);
    assert_eq!(get("/apis/apps/v1").code, 200, "discovery is for everybody who is known");
    assert_eq!(message(&get("/metrics")), "forbidden: User \"jane\" cannot get path \"/metrics\"");

    cluster.create(ROLES, &role("reads", &["get", "list"], "pods"));
    cluster.create(BINDINGS, &binding("jane-reads", ("Role", "reads"), "jane"));
    cluster.wait_for("jane may list pods", || get(PODS).code == 200);
    assert_eq!(get("/api/v1/pods").code, 403);
    assert_eq!(send_as(&cluster, "jane", "POST", PODS, &json!({})).code, 403);
    // The old paths of watches allow nothing but watches.
    let watch = "/api/v1/watch/namespaces/default";
    cluster.create(ROLES, &role("watches", &["watch"], "*"));
    cluster.create(BINDINGS, &binding("joe-watches", ("Role", "watches"), "joe"));
    cluster.wait_for("joe may watch pods", || {
        send_as(&cluster, "joe", "GET", &format!("{watch}/pods?timeoutSeconds=1"), &Value::Null).code == 200
    });
    for (method, path, code) in [
        ("DELETE", "pods/p", 403),
        ("PATCH", "pods/p", 403),
        ("POST", "serviceaccounts/default/token", 403),
        ("GET", "pods/p/exec?command=sh", 404),
    ] {
        let path = format!("{watch}/{path}");
        assert_eq!(send_as(&cluster, "joe", method, &path, &json!({})).code, code, "{method} {path}");
        let of_admin = cluster.send(method, &path, &[("Content-Type", "application/json")], b"{}").code;
        assert!(matches!(of_admin, 404 | 405), "{method} {path}: {of_admin}");
    }
    cluster.send("DELETE", &format!("{BINDINGS}/jane-reads"), &[], b"");
    cluster.wait_for("jane may no more", || get(PODS).code == 403);

    cluster.wait_for("roles are aggregated", || {
        let admin = cluster.get(&format!("{CLUSTER_ROLES}/admin")).json();
        let has = |resource: &str| admin["rules"].to_string().contains(&format!("{resource:?}"));
        has("rolebindings") && has("statefulsets/scale") && has("pods/log")
    });
    for path in ["/version", "/healthz", "/readyz"] {
        assert_eq!(cluster.get_as_stranger(path).code, 200, "{path}");
    }
    for path in ["/api", "/apis/apps/v1", "/api/v1/nodes", "/not/there", "/metrics"] {
        assert_eq!(cluster.get_as_stranger(path).code, 403, "{path}");
    }
}

#[test]
fn nobody_gives_what_they_do_not_have() {
    let cluster = Cluster::start("escalation", &["--nodes", "0"]);
    cluster.wait_for("roles are aggregated", || {
        cluster.get(&format!("{CLUSTER_ROLES}/admin")).json()["rules"].to_string().contains("rolebindings")
    });
    cluster.create(BINDINGS, &binding("jane", ("ClusterRole", "admin"), "jane"));
    let post = |path: &str, body: &Value| send_as(&cluster, "jane", "POST", path, body);
    cluster.wait_for("jane may write roles", || post(ROLES, &role("a", &["get"], "pods")).code == 201);
    let refused = post(ROLES, &role("b", &["get", "bind"], "nodes"));
    let lacking = "roles.rbac.authorization.k8s.io \"b\" is forbidden: user \"jane\" (groups=[\"system:authenticated\"]) \
                   is attempting to grant RBAC permissions not currently held:\n{APIGroups:[\"\"], \
                   Resources:[\"nodes\"], Verbs:[\"get\" \"bind\"]}";
    assert_eq!((refused.code, message(&refused)), (403, lacking.to_owned()));
    assert_eq!(post(BINDINGS, &binding("b", ("ClusterRole", "view"), "joe")).code, 201);
    assert_eq!(post(BINDINGS, &binding("c", ("ClusterRole", "cluster-admin"), "joe")).code, 403);
    assert_eq!(post(CLUSTER_ROLES, &role("c", &["get"], "pods")).code, 403, "that is outside of the namespace");
}

#[test]
fn users_ask_what_they_may_do() {
    let cluster = Cluster::start("can-i", &["--nodes", "0"]);
    let ask = |user: &str, review: &str, spec: Value| {
        let path = format!("/apis/authorization.k8s.io/v1/{review}");
        let answer = send_as(&cluster, user, "POST", &path, &json!({"spec": spec}));
        assert_eq!(answer.code, 201, "{}", answer.text());
        answer.json()["status"].clone()
    };
    let pods = |user: &str, verb: &str| {
        let spec = json!({"resourceAttributes": {"verb": verb, "resource": "pods", "namespace": "default"}});
        ask(user, "selfsubjectaccessreviews", spec)
    };
    cluster.create(BINDINGS, &binding("jane", ("ClusterRole", "view"), "jane"));
    cluster.wait_for("jane may list pods", || pods("jane", "list")["allowed"] == true);
    let reason = "RBAC: allowed by RoleBinding \"jane/default\" of ClusterRole \"view\" to User \"jane\"";
    assert_eq!(pods("jane", "list")["reason"], reason);
    assert_eq!(pods("jane", "delete"), json!({"allowed": false}));
    assert_eq!(pods("joe", "list"), json!({"allowed": false}));
    let rules = ask("jane", "selfsubjectrulesreviews", json!({"namespace": "default"}));
    assert!(rules["resourceRules"].to_string().contains("\"pods/log\""), "{rules}");
    assert!(rules["nonResourceRules"].to_string().contains("\"/apis/*\""), "{rules}");
    let table = [("Content-Type", "application/json"), ("Accept", "application/json;as=Table;v=v1;g=meta.k8s.io")];
    let path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
    assert_eq!(cluster.send("POST", path, &table, b"{}").code, 406, "a review has no metadata to show in a table");
    let who = send_as(&cluster, "jane", "POST", "/apis/authentication.k8s.io/v1/selfsubjectreviews", &json!({}));
    let info = json!({"username": "jane", "groups": ["system:authenticated"]});
    assert_eq!(who.json()["status"]["userInfo"], info);
    let about = json!({"spec": {"user": "jane", "resourceAttributes": {"verb": "list", "resource": "pods",
        "namespace": "default"}}});
    let path = "/apis/authorization.k8s.io/v1/subjectaccessreviews";
    assert_eq!(cluster.create(path, &about)["status"]["allowed"], true);
    assert_eq!(send_as(&cluster, "jane", "POST", path, &about).code, 403, "only about herself");
    let acting = [("Impersonate-User", "jane"), ("Impersonate-User", "joe")];
    assert_eq!(cluster.send("GET", PODS, &acting[..1], b"").code, 200);
    let lonely = cluster.send("GET", PODS, &[("Impersonate-Group", "g")], b"");
    assert_eq!(lonely.code, 500, "{}", lonely.text());
}

#[test]
fn other_modes_allow_all_or_nothing() {
    let check = |mode: &str, code: u16, message_part: &str| {
        let test = format!("mode-{mode}");
        let cluster = Cluster::start(&test, &["--nodes", "0", "--authorization-mode", mode]);
        let answer = send_as(&cluster, "jane", "GET", PODS, &Value::Null);
        assert_eq!(answer.code, code, "{mode}: {}", answer.text());
        assert!(answer.text().contains(message_part), "{mode}: {}", answer.text());
        assert_eq!(cluster.get(PODS).code, 200, "{mode}: the administrator may");
    };
    check("AlwaysAllow", 200, "PodList");
    check("AlwaysDeny", 403, "in the namespace \\\"default\\\": Everything is forbidden.");
}

#[test]
fn a_cluster_that_starts_again_gets_back_the_roles_it_lacks() {
    let dir = scratch("rbac-kept").join("data");
    let _ = std::fs::remove_dir_all(&dir);
    let start = || Cluster::start_with("rbac-kept", &["--data-dir", dir.to_str().expect("text"), "--nodes", "0"]);
    let mut cluster = start();
    let view = format!("{CLUSTER_ROLES}/system:kube-dns");
    assert_eq!(cluster.send("DELETE", &view, &[], b"").code, 200);
    let changed = json!({"metadata": {"labels": {"mine": "yes"}}});
    let discovery = format!("{CLUSTER_ROLES}/system:discovery");
    assert_eq!(cluster.write("PATCH", &discovery, &changed).code, 200);
    let version = cluster.get(&format!("{CLUSTER_ROLES}/cluster-admin")).json()["metadata"]["resourceVersion"].clone();
    cluster.kill();
    let cluster = start();
    assert_eq!(cluster.get(&view).code, 200);
    assert_eq!(cluster.get(&discovery).json()["metadata"]["labels"]["mine"], "yes");
    let kept = cluster.get(&format!("{CLUSTER_ROLES}/cluster-admin")).json();
    assert_eq!(kept["metadata"]["resourceVersion"], version, "what is complete is not written again");
}
