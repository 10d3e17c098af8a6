//! Roles and bindings: those that every cluster has, and who may write which.

use std::rc::Rc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::{Cluster, cluster_of, key, object_in, request};
use crate::api::{Call, DeleteOptions, Request, Status, Subresource, WriteOptions};
use crate::apiserver::Config;
use crate::auth::rbac::bootstrap;
use crate::auth::{Authoriser, Authority, Mode, User};
use crate::object::{Kind, Object};

const GV: &str = "rbac.authorization.k8s.io/v1";

fn guarded() -> Cluster {
    cluster_of(1, &Config { authorisation: Some(vec![Mode::Rbac]), ..Config::default() })
}

fn by(user: &User, call: Call) -> Request {
    Request { identity: Some(Rc::new(user.clone())), ..request(call) }
}

fn ask(c: &mut Cluster, user: &User, call: Call) -> Result<Object, Status> {
    let id = c.send(0, by(user, call));
    c.reply(id).expect("it is answered at once").map(object_in)
}

fn create(c: &mut Cluster, user: &User, value: Value) -> Result<Object, Status> {
    let (object, options) = (Object::from_json(value).unwrap(), WriteOptions::default());
    ask(c, user, Call::Create { object, options })
}

fn update(c: &mut Cluster, user: &User, object: Object) -> Result<Object, Status> {
    let (subresource, options) = (Subresource::None, WriteOptions::default());
    ask(c, user, Call::Update { object, subresource, options })
}

fn role(kind: &str, name: &str, verbs: &[&str]) -> Value {
    let mut role = json!({"apiVersion": GV, "kind": kind, "metadata": {"name": name},
        "rules": [{"verbs": verbs, "apiGroups": [""], "resources": ["pods"]}]});
    if kind == "Role" {
        role["metadata"]["namespace"] = json!("default");
    }
    role
}

fn binding(kind: &str, name: &str, role: (&str, &str), to: &str) -> Value {
    let mut binding = json!({"apiVersion": GV, "kind": kind, "metadata": {"name": name},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": role.0, "name": role.1},
        "subjects": [{"kind": "User", "apiGroup": "rbac.authorization.k8s.io", "name": to}]});
    if kind == "RoleBinding" {
        binding["metadata"]["namespace"] = json!("default");
    }
    binding
}

#[test]
fn a_server_makes_what_every_cluster_has_once() {
    let mut c = guarded();
    assert!(c.servers[0].has_policy());
    for wanted in bootstrap::objects() {
        assert!(c.get(&wanted.key()).is_some(), "{}", wanted.key());
    }
    let mut copy = Authority { modes: vec![Mode::Rbac], ..Authority::default() };
    c.servers[0].take_policy_changes().iter().for_each(|change| copy.policy.apply(change));
    let scheduler = User::new("system:kube-scheduler", &[]);
    assert!(!copy.rules(&scheduler, "").is_empty());
    assert_eq!(copy.rules(&scheduler, ""), c.servers[0].authority().unwrap().rules(&scheduler, ""));
    // What is deleted comes back with the next start of a server, and not before.
    let dns = key(Kind::CLUSTER_ROLE, "system:kube-dns");
    c.delete(&dns, DeleteOptions::default()).unwrap();
    c.tick(5);
    assert!(c.get(&dns).is_none());
}

#[test]
fn servers_without_users_have_no_policy() {
    let mut c = cluster_of(1, &Config::default());
    assert!(c.servers[0].has_policy() && c.servers[0].authority().is_none());
    assert!(c.get(&key(Kind::CLUSTER_ROLE, "cluster-admin")).is_none());
    assert!(c.servers[0].take_policy_changes().is_empty());
}

#[test]
fn nobody_writes_a_role_that_gives_more_than_they_have() {
    let mut c = guarded();
    let jane = User::new("jane", &["system:authenticated"]);
    c.create(role("ClusterRole", "reader", &["get"])).unwrap();
    c.create(binding("RoleBinding", "jane-reads", ("ClusterRole", "reader"), "jane")).unwrap();
    let mut check = |value: Value, want: &str| {
        let told = create(&mut c, &jane, value.clone()).map_or_else(|status| status.message.into(), |_| String::new());
        assert!(told.contains(want) && told.is_empty() == want.is_empty(), "{value}: {told}");
    };
    check(role("Role", "same", &["get"]), "");
    check(
        role("Role", "more", &["get", "delete"]),
        "roles.rbac.authorization.k8s.io \"more\" is forbidden: user \"jane\" (groups=[\"system:authenticated\"]) is \
         attempting to grant RBAC permissions not currently held:\n{APIGroups:[\"\"], Resources:[\"pods\"], \
         Verbs:[\"delete\"]}",
    );
    check(role("ClusterRole", "wider", &["get"]), "attempting to grant RBAC permissions not currently held");
    check(binding("RoleBinding", "give", ("ClusterRole", "reader"), "joe"), "");
    check(binding("RoleBinding", "all", ("ClusterRole", "cluster-admin"), "joe"), "NonResourceURLs:[\"*\"]");
    check(
        binding("RoleBinding", "lost", ("Role", "nothing"), "joe"),
        "roles.rbac.authorization.k8s.io \"nothing\" not found",
    );
    let mut aggregates = role("ClusterRole", "all", &[]);
    aggregates["rules"] = json!([]);
    aggregates["aggregationRule"] = json!({"clusterRoleSelectors": [{"matchLabels": {"a": "b"}}]});
    check(aggregates.clone(), "must have cluster-admin privileges to use the aggregationRule");
    // Who may escalate or bind, or is an administrator, gives what they like.
    let admin = User::new("admin", &["system:masters"]);
    create(&mut c, &admin, aggregates).unwrap();
    let mut trusted = role("ClusterRole", "trusted", &[]);
    trusted["rules"] = json!([{"verbs": ["bind", "escalate"], "apiGroups": ["rbac.authorization.k8s.io"],
        "resources": ["clusterroles", "roles"]}]);
    c.create(trusted).unwrap();
    c.create(binding("ClusterRoleBinding", "trusts", ("ClusterRole", "trusted"), "ann")).unwrap();
    let ann = User::new("ann", &[]);
    create(&mut c, &ann, role("ClusterRole", "any", &["*"])).unwrap();
    create(&mut c, &ann, binding("ClusterRoleBinding", "any", ("ClusterRole", "cluster-admin"), "joe")).unwrap();
}

#[test]
fn a_role_is_checked_when_it_changes() {
    let mut c = guarded();
    let jane = User::new("jane", &[]);
    let more = c.create(role("Role", "more", &["get", "delete"])).unwrap();
    let mut other = more.to_json();
    other["rules"][0]["verbs"] = json!(["get"]);
    let refused = update(&mut c, &jane, Object::from_json(other).unwrap()).unwrap_err();
    assert!(refused.message.contains("Verbs:[\"get\"]"), "{refused}");
    // A label may give the rules to a role that aggregates.
    let wide = c.create(role("ClusterRole", "wide", &["get"])).unwrap();
    for mut labelled in [more, wide] {
        labelled.meta_mut().labels = Some([("aggregate-to-edit".to_owned(), "true".to_owned())].into());
        let refused = update(&mut c, &jane, labelled).unwrap_err();
        assert!(refused.message.contains("not currently held"), "{refused}");
    }
    let mut aggregates = role("ClusterRole", "aggregates", &[]);
    aggregates["rules"] = json!([]);
    aggregates["aggregationRule"] = json!({"clusterRoleSelectors": [{"matchLabels": {"a": "b"}}]});
    let mut alone = c.create(aggregates).unwrap().to_json();
    alone.as_object_mut().unwrap().remove("aggregationRule");
    let refused = update(&mut c, &jane, Object::from_json(alone).unwrap()).unwrap_err();
    assert!(refused.message.contains("must have cluster-admin privileges"), "{refused}");
    let bound = c.create(binding("RoleBinding", "b", ("Role", "more"), "joe")).unwrap();
    let mut to_jane = bound.to_json();
    to_jane["subjects"][0]["name"] = json!("jane");
    let refused = update(&mut c, &jane, Object::from_json(to_jane).unwrap()).unwrap_err();
    assert!(refused.message.contains("Verbs:[\"get\" \"delete\"]"), "{refused}");
    let mut released = bound;
    released.meta_mut().finalizers = Some(vec!["a/b".to_owned()]);
    update(&mut c, &jane, released).unwrap();
}

#[test]
fn whoever_approves_or_signs_certificates_may_do_it_for_their_signer() {
    let mut c = guarded();
    let admin = User::new("root", &["system:masters"]);
    let pem = |type_: &str| STANDARD.encode(format!("-----BEGIN {type_}-----\nMAA=\n-----END {type_}-----\n"));
    let asked = json!({"apiVersion": "certificates.k8s.io/v1", "kind": "CertificateSigningRequest",
        "metadata": {"name": "r"}, "spec": {"request": pem("CERTIFICATE REQUEST"), "signerName": "example.com/s",
            "usages": ["client auth"]}});
    let made = create(&mut c, &admin, asked).unwrap();
    // The rules of a user of each name.
    for (user, verb, name) in [
        ("exact", "approve", "example.com/s"),
        ("all", "approve", "example.com/*"),
        ("other", "approve", "example.com/t"),
        ("signer", "sign", "example.com/s"),
    ] {
        let rules = json!([{"verbs": [verb], "apiGroups": ["certificates.k8s.io"], "resources": ["signers"],
            "resourceNames": [name]}]);
        let role = json!({"apiVersion": GV, "kind": "ClusterRole", "metadata": {"name": user}, "rules": rules});
        create(&mut c, &admin, role).unwrap();
        create(&mut c, &admin, binding("ClusterRoleBinding", user, ("ClusterRole", user), user)).unwrap();
    }
    let mut attempt = |user: &str, subresource: Subresource, status: Value| {
        let mut value = made.to_json();
        value["status"] = status;
        value["metadata"]["resourceVersion"] = json!("");
        let (object, options) =
            (Object::from_json(value).unwrap(), WriteOptions { dry_run: true, ..Default::default() });
        ask(&mut c, &User::new(user, &[]), Call::Update { object, subresource, options }).err().map(|e| e.message)
    };
    let no = |verb: &str| {
        let of = "certificatesigningrequests.certificates.k8s.io \"r\" is forbidden";
        Some(format!("{of}: user not permitted to {verb} requests with signerName \"example.com/s\"").into())
    };
    let verdict = json!({"conditions": [{"type": "Approved", "status": "True"}]});
    for (user, want) in [("exact", None), ("all", None), ("other", no("approve")), ("signer", no("approve"))] {
        assert_eq!(attempt(user, Subresource::Approval, verdict.clone()), want, "{user}");
    }
    for status in
        [json!({"certificate": pem("CERTIFICATE")}), json!({"conditions": [{"type": "Failed", "status": "True"}]})]
    {
        assert_eq!(attempt("signer", Subresource::Status, status.clone()), None, "{status}");
        assert_eq!(attempt("exact", Subresource::Status, status.clone()), no("sign"), "{status}");
    }
}
