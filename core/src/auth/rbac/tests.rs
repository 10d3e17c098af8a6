use serde_json::{Value, json};

use super::{Change, Policy, Rule, check_grant};
use crate::auth::{Attempt, Authoriser, Resource, User, Verdict};
use crate::object::Object;

const GV: &str = "rbac.authorization.k8s.io/v1";

fn role(kind: &str, name: &str, rules: Value) -> Value {
    let mut role = json!({"apiVersion": GV, "kind": kind, "metadata": {"name": name}, "rules": rules});
    if kind == "Role" {
        role["metadata"]["namespace"] = json!("a");
    }
    role
}

fn binding(namespace: &str, name: &str, role: (&str, &str), subject: Value) -> Value {
    let kind = if namespace.is_empty() { "ClusterRoleBinding" } else { "RoleBinding" };
    let mut metadata = json!({"name": name});
    if !namespace.is_empty() {
        metadata["namespace"] = json!(namespace);
    }
    let reference = json!({"apiGroup": "rbac.authorization.k8s.io", "kind": role.0, "name": role.1});
    json!({"apiVersion": GV, "kind": kind, "metadata": metadata, "roleRef": reference, "subjects": [subject]})
}

fn policy(objects: &[Value]) -> Policy {
    let mut policy = Policy::default();
    for object in objects {
        let object = Object::from_json(object.clone()).unwrap();
        policy.apply(&Change::of(&object.key(), Some(&object)));
    }
    policy
}

fn pods<'a>(verb: &'a str, namespace: &'a str, name: &'a str) -> Attempt<'a> {
    Attempt::at(verb, Resource { resource: "pods", namespace, name, ..Resource::default() })
}

#[test]
fn rules_match_as_upstreams() {
    let check = |rule: Value, attempt: Attempt<'_>, want: bool| {
        assert_eq!(Rule::of_json(&rule).allows(&attempt), want, "{rule} {attempt:?}");
    };
    let read = json!({"verbs": ["get", "list"], "apiGroups": [""], "resources": ["pods", "*/scale"]});
    check(read.clone(), pods("get", "a", ""), true);
    check(read.clone(), pods("watch", "a", ""), false);
    let scale = Resource { group: "", resource: "things", subresource: "scale", namespace: "a", name: "x" };
    check(read.clone(), Attempt::at("get", scale), true);
    check(read.clone(), Attempt::at("get", Resource { subresource: "status", ..scale }), false);
    check(read.clone(), Attempt::at("get", Resource { resource: "pods", subresource: "log", ..scale }), false);
    check(read.clone(), Attempt::at("get", Resource { resource: "pods", group: "metrics.k8s.io", ..scale }), false);
    check(read, Attempt::path("get", "/metrics"), false);
    let named = json!({"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"], "resourceNames": ["x"]});
    check(named.clone(), pods("get", "a", "x"), true);
    check(named.clone(), pods("get", "a", "y"), false);
    check(named, pods("list", "a", ""), false);
    let log = json!({"verbs": ["get"], "apiGroups": [""], "resources": ["pods/log"]});
    check(log.clone(), Attempt::at("get", Resource { resource: "pods", subresource: "log", ..scale }), true);
    check(log, pods("get", "a", "x"), false);
    let paths = json!({"verbs": ["get"], "nonResourceURLs": ["/healthz", "/apis/*"]});
    check(paths.clone(), Attempt::path("get", "/healthz"), true);
    check(paths.clone(), Attempt::path("get", "/healthz/etcd"), false);
    check(paths.clone(), Attempt::path("get", "/apis/apps/v1"), true);
    check(paths.clone(), Attempt::path("get", "/apis"), false);
    check(paths.clone(), Attempt::path("post", "/healthz"), false);
    check(paths, pods("get", "a", "x"), false);
}

#[test]
fn bindings_say_whom_roles_are_for() {
    let read = json!([{"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]}]);
    let policy = policy(&[
        role("ClusterRole", "reader", read.clone()),
        role("Role", "local", read),
        binding("", "all", ("ClusterRole", "reader"), json!({"kind": "Group", "name": "readers"})),
        binding("a", "here", ("ClusterRole", "reader"), json!({"kind": "User", "name": "jane"})),
        binding("a", "mine", ("Role", "local"), json!({"kind": "ServiceAccount", "name": "bot"})),
        binding("b", "lost", ("Role", "local"), json!({"kind": "User", "name": "joe"})),
    ]);
    let check = |user: &User, namespace: &str, allowed: bool, reason: &str| {
        let verdict = policy.judge(user, &pods("get", namespace, "x"));
        assert_eq!((verdict.allows(), verdict.reason()), (allowed, reason), "{user:?} in {namespace:?}");
    };
    let (jane, joe) = (User::new("jane", &[]), User::new("joe", &[]));
    let (reader, bot) = (User::new("x", &["readers"]), User::service_account("a", "bot", ""));
    let all = "RBAC: allowed by ClusterRoleBinding \"all\" of ClusterRole \"reader\" to Group \"readers\"";
    check(&reader, "", true, all);
    check(&reader, "b", true, all);
    check(&jane, "a", true, "RBAC: allowed by RoleBinding \"here/a\" of ClusterRole \"reader\" to User \"jane\"");
    check(&jane, "b", false, "");
    check(&jane, "", false, "");
    check(&bot, "a", true, "RBAC: allowed by RoleBinding \"mine/a\" of Role \"local\" to ServiceAccount \"bot/a\"");
    check(&User::service_account("b", "bot", ""), "a", false, "");
    check(&joe, "b", false, "RBAC: role.rbac.authorization.k8s.io \"local\" not found");
}

#[test]
fn a_policy_follows_its_objects() {
    let read = json!([{"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]}]);
    let role = role("ClusterRole", "reader", read);
    let to = |name: &str| binding("", "b", ("ClusterRole", "reader"), json!({"kind": "User", "name": name}));
    let mut policy = policy(&[role.clone(), to("jane")]);
    let may = |policy: &Policy, name: &str| policy.judge(&User::new(name, &[]), &pods("get", "", "")).allows();
    assert!(may(&policy, "jane") && !may(&policy, "joe"));
    let change = |policy: &mut Policy, value: Value, gone: bool| {
        let object = Object::from_json(value).unwrap();
        policy.apply(&Change::of(&object.key(), Some(&object).filter(|_| !gone)));
    };
    change(&mut policy, to("joe"), false);
    assert!(!may(&policy, "jane") && may(&policy, "joe"));
    change(&mut policy, role.clone(), true);
    assert!(!may(&policy, "joe"));
    change(&mut policy, role, false);
    assert!(may(&policy, "joe"));
    change(&mut policy, to("joe"), true);
    assert!(!may(&policy, "joe"));
    policy.apply(&Change::Clear);
    assert_eq!(policy.judge(&User::new("joe", &[]), &pods("get", "", "")), Verdict::NoOpinion(String::new()));
}

#[test]
fn nobody_grants_what_they_do_not_have() {
    let held = policy(&[
        role(
            "ClusterRole",
            "some",
            json!([{"verbs": ["get", "list"], "apiGroups": [""], "resources": ["pods", "*/scale"]},
                {"verbs": ["*"], "apiGroups": ["apps"], "resources": ["*"], "resourceNames": ["x"]},
                {"verbs": ["get"], "nonResourceURLs": ["/apis/*"]}]),
        ),
        binding("", "b", ("ClusterRole", "some"), json!({"kind": "User", "name": "jane"})),
    ]);
    let jane = User::new("jane", &["g", "h"]);
    let check = |granted: Value, want: &str| {
        let rules: Vec<Rule> = granted.as_array().unwrap().iter().map(Rule::of_json).collect();
        let told = check_grant(&held, &jane, "", &rules).map_or_else(|e| e.0, |()| String::new());
        let want = match want {
            "" => String::new(),
            list => format!(
                "user \"jane\" (groups=[\"g\" \"h\"]) is attempting to grant RBAC permissions not currently held:\n{list}"
            ),
        };
        assert_eq!(told, want, "{granted}");
    };
    check(json!([]), "");
    check(json!([{"verbs": ["list", "get"], "apiGroups": [""], "resources": ["pods", "things/scale"]}]), "");
    check(json!([{"verbs": ["get"], "apiGroups": [""], "resources": ["pods"], "resourceNames": ["y"]}]), "");
    check(json!([{"verbs": ["get"], "apiGroups": ["apps"], "resources": ["a", "b"], "resourceNames": ["x"]}]), "");
    check(json!([{"verbs": ["get"], "nonResourceURLs": ["/apis/x/*", "/apis/y"]}]), "");
    check(
        json!([{"verbs": ["get", "watch", "delete"], "apiGroups": [""], "resources": ["pods", "secrets"]}]),
        "{APIGroups:[\"\"], Resources:[\"pods\"], Verbs:[\"watch\" \"delete\"]}\n\
         {APIGroups:[\"\"], Resources:[\"secrets\"], Verbs:[\"get\" \"watch\" \"delete\"]}",
    );
    check(
        json!([{"verbs": ["get"], "apiGroups": ["apps"], "resources": ["a"], "resourceNames": ["x", "y"]}]),
        "{APIGroups:[\"apps\"], Resources:[\"a\"], ResourceNames:[\"y\"], Verbs:[\"get\"]}",
    );
    check(
        json!([{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}, {"verbs": ["get"], "nonResourceURLs": ["*"]}]),
        "{APIGroups:[\"*\"], Resources:[\"*\"], Verbs:[\"*\"]}\n{NonResourceURLs:[\"*\"], Verbs:[\"get\"]}",
    );
}
