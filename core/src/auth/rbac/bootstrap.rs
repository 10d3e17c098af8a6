//! The roles and bindings that every cluster has, and how a server that starts brings a cluster's own up to date.
//!
//! Source: kubernetes `plugin/pkg/auth/authorizer/rbac/bootstrappolicy`, `pkg/registry/rbac/reconciliation`.

use serde_json::{Value, json};

use super::{GROUP, Rule};
use crate::object::Object;

/// The table of roles and bindings.
const TABLE: &str = include_str!("bootstrap.txt");
/// An annotation by which a user keeps a server from changing a role or binding.
const AUTOUPDATE: &str = "rbac.authorization.kubernetes.io/autoupdate";
const READ: [&str; 3] = ["get", "list", "watch"];
const WRITE: [&str; 5] = ["create", "delete", "deletecollection", "patch", "update"];
const SYSTEM: &str = "kube-system";

/// What to do about an object that every cluster has.
#[derive(Clone, PartialEq, Debug)]
pub enum Step {
    /// Create it.
    Create(Object),
    /// Replace it by this, which has what was missing.
    Update(Object),
    /// Delete it, since the role of a binding cannot be changed; it is created by the next step.
    Delete,
}

/// The roles and bindings that every cluster has, roles first.
pub fn objects() -> Vec<Object> {
    let (mut roles, mut bindings): (Vec<Value>, Vec<Value>) = (Vec::new(), Vec::new());
    for line in joined(TABLE) {
        let (head, rest) = line.trim().split_once(' ').unwrap_or((line.trim(), ""));
        match head {
            _ if line.starts_with(' ') => add_rule(roles.last_mut().expect("a rule follows its role"), line.trim()),
            "role" => roles.push(role(rest)),
            "bind" => bindings.push(binding(rest)),
            "controller" => {
                roles.push(role(&format!("system:controller:{rest}")));
                bindings.push(binding(&format!("system:controller:{rest} account:{rest}")));
            }
            other => unreachable!("the table has no line of {other:?}"),
        }
    }
    let read = |value| Object::from_json(value).expect("the table's objects are well-formed");
    roles.into_iter().chain(bindings).map(read).collect()
}

/// The lines of the table, without comments, each with those that go on with it.
fn joined(table: &str) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for line in table.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        match line.strip_prefix("        ") {
            Some(more) => {
                let last = lines.last_mut().expect("something is gone on with");
                last.push(' ');
                last.push_str(more);
            }
            None => lines.push(line.to_owned()),
        }
    }
    lines
}

fn object(kind: &str, name: &str, namespace: Option<&str>) -> Value {
    let kind = if namespace.is_some() { kind.to_owned() } else { format!("Cluster{kind}") };
    let mut metadata = json!({"name": name, "annotations": {AUTOUPDATE: "true"},
        "labels": {"kubernetes.io/bootstrapping": "rbac-defaults"}});
    if let Some(namespace) = namespace {
        metadata["namespace"] = json!(namespace);
    }
    json!({"apiVersion": format!("{GROUP}/v1"), "kind": kind, "metadata": metadata})
}

/// `NAME [in NAMESPACE] [aggregates LABEL] [into LABEL]`.
fn role(line: &str) -> Value {
    let mut words = line.split(' ');
    let name = words.next().expect("a role has a name");
    let options: Vec<&str> = words.collect();
    let option = |wanted: &str| options.chunks(2).find(|o| o[0] == wanted).map(|o| o[1]);
    let mut role = object("Role", name, option("in"));
    let label = |to: &str| format!("rbac.authorization.k8s.io/aggregate-to-{to}");
    if let Some(to) = option("into") {
        role["metadata"]["labels"][label(to)] = json!("true");
    }
    match option("aggregates") {
        Some(of) => {
            role["aggregationRule"] = json!({"clusterRoleSelectors": [{"matchLabels": {label(of): "true"}}]});
            role["rules"] = Value::Null;
        }
        None => role["rules"] = json!([]),
    }
    role
}

/// `VERBS | GROUPS | RESOURCES [| NAMES]`, `VERBS | PATHS` or `events`.
fn add_rule(role: &mut Value, line: &str) {
    let line = if line == "events" { "create update patch | core events.k8s.io | events" } else { line };
    let parts: Vec<Vec<&str>> = line.split(" | ").map(|part| part.split(' ').collect()).collect();
    let verbs = parts[0].iter().flat_map(|verb| match *verb {
        "read" => READ.to_vec(),
        "write" => WRITE.to_vec(),
        verb => vec![verb],
    });
    let mut rule = json!({"verbs": verbs.collect::<Vec<_>>()});
    if let [_, paths] = parts.as_slice() {
        rule["nonResourceURLs"] = json!(paths);
    } else {
        let groups = parts[1].iter().copied();
        rule["apiGroups"] = groups.map(|group| if group == "core" { "" } else { group }).collect();
        rule["resources"] = json!(parts[2]);
        if let Some(names) = parts.get(3) {
            rule["resourceNames"] = json!(names);
        }
    }
    role["rules"].as_array_mut().expect("only roles that aggregate have none").push(rule);
}

/// `NAME [in NAMESPACE] [as NAME] SUBJECT…`.
fn binding(line: &str) -> Value {
    let mut words = line.split(' ').peekable();
    let role = words.next().expect("a binding has a role");
    let mut option = |wanted: &str| words.next_if_eq(&wanted).and_then(|_| words.next());
    let (namespace, name) = (option("in"), option("as").unwrap_or(role));
    let mut binding = object("RoleBinding", name, namespace);
    let kind = if namespace.is_some() { "Role" } else { "ClusterRole" };
    binding["roleRef"] = json!({"apiGroup": GROUP, "kind": kind, "name": role});
    let subject = |word: &str| {
        let (kind, name) = word.split_once(':').expect("a subject has a kind");
        match kind {
            "account" => json!({"kind": "ServiceAccount", "name": name, "namespace": SYSTEM}),
            "user" => json!({"kind": "User", "apiGroup": GROUP, "name": name}),
            "group" => json!({"kind": "Group", "apiGroup": GROUP, "name": name}),
            other => unreachable!("the table has no subject of kind {other:?}"),
        }
    };
    binding["subjects"] = words.map(subject).collect();
    binding
}

/// What to do about one of [`objects`], given the cluster's own: what a user has added stays, what is missing comes.
pub fn step(wanted: &Object, held: Option<&Object>) -> Option<Step> {
    let Some(held) = held else { return Some(Step::Create(wanted.clone())) };
    let annotations = held.meta().annotations.as_ref();
    if annotations.and_then(|a| a.get(AUTOUPDATE)).is_some_and(|value| value == "false") {
        return None;
    }
    let (Object::Dynamic(wanted), Object::Dynamic(current)) = (wanted, held) else {
        unreachable!("roles and bindings are held as JSON")
    };
    if wanted.body.get("roleRef") != current.body.get("roleRef") {
        return Some(Step::Delete);
    }
    let mut next = held.to_json();
    for (field, covered) in [("rules", covers as fn(&[Value], &Value) -> bool), ("subjects", has)] {
        let list = |of: &serde_json::Map<String, Value>| of.get(field).and_then(Value::as_array).cloned();
        // The rules of a role that aggregates are its controller's.
        if wanted.body.contains_key("aggregationRule") {
            continue;
        }
        let (wanted, mut there) = (list(&wanted.body).unwrap_or_default(), list(&current.body).unwrap_or_default());
        let missing: Vec<Value> = wanted.into_iter().filter(|one| !covered(&there, one)).collect();
        if !missing.is_empty() {
            there.extend(missing);
            next[field] = Value::Array(there);
        }
    }
    if let Some(rule) = wanted.body.get("aggregationRule") {
        next["aggregationRule"] = rule.clone();
    }
    for field in ["labels", "annotations"] {
        let wanted = serde_json::to_value(&wanted.meta.labels).expect("labels are JSON");
        let wanted = if field == "labels" { wanted } else { json!({AUTOUPDATE: "true"}) };
        for (name, value) in wanted.as_object().into_iter().flatten() {
            next["metadata"][field][name] = value.clone();
        }
    }
    let next = Object::from_json(next).expect("it was an object before");
    (next != *held).then_some(Step::Update(next))
}

fn covers(rules: &[Value], one: &Value) -> bool {
    let held: Vec<Rule> = rules.iter().map(Rule::of_json).collect();
    super::escalation::covered(&held, &Rule::of_json(one))
}

fn has(subjects: &[Value], one: &Value) -> bool {
    subjects.iter().any(|subject| ["kind", "name", "namespace"].iter().all(|field| subject[*field] == one[*field]))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{Step, objects, step};
    use crate::auth::rbac::{Change, Policy};
    use crate::auth::{Attempt, Authoriser, Resource, User};
    use crate::object::{Kind, Object, validation};

    fn find(kind: Kind, name: &str) -> Object {
        objects().into_iter().find(|o| o.kind() == kind && o.name() == name).unwrap()
    }

    #[test]
    fn the_table_is_valid_and_says_what_kubernetes_does() {
        let mut policy = Policy::default();
        for object in objects() {
            assert_eq!(validation::create(&object), [], "{}", object.key());
            policy.apply(&Change::of(&object.key(), Some(&object)));
        }
        let check = |user: &User, attempt: Attempt<'_>, want: bool| {
            assert_eq!(policy.judge(user, &attempt).allows(), want, "{} {attempt:?}", user.name);
        };
        let (anonymous, jane) = (User::anonymous(), User::new("jane", &["system:authenticated"]));
        let scheduler = User::new("system:kube-scheduler", &["system:authenticated"]);
        let reviews =
            Resource { group: "authorization.k8s.io", resource: "selfsubjectaccessreviews", ..Resource::default() };
        let bind =
            Resource { resource: "pods", subresource: "binding", namespace: "a", name: "p", ..Resource::default() };
        let lease = Resource {
            group: "coordination.k8s.io",
            resource: "leases",
            namespace: "kube-system",
            name: "kube-scheduler",
            ..Resource::default()
        };
        check(&anonymous, Attempt::path("get", "/version"), true);
        check(&anonymous, Attempt::path("get", "/apis/apps/v1"), false);
        check(&jane, Attempt::path("get", "/apis/apps/v1"), true);
        check(&jane, Attempt::path("get", "/metrics"), false);
        check(&jane, Attempt::at("create", reviews), true);
        check(&anonymous, Attempt::at("create", reviews), false);
        check(&scheduler, Attempt::at("create", bind), true);
        check(&jane, Attempt::at("create", bind), false);
        check(&scheduler, Attempt::at("update", lease), true);
        check(&scheduler, Attempt::at("update", Resource { name: "other", ..lease }), false);
        let collector = User::service_account("kube-system", "generic-garbage-collector", "");
        check(
            &collector,
            Attempt::at("delete", Resource { resource: "pods", namespace: "a", ..Resource::default() }),
            true,
        );
        let account = User::service_account("a", "default", "");
        check(&account, Attempt::path("get", "/openid/v1/jwks"), true);
        check(&jane, Attempt::path("get", "/openid/v1/jwks"), false);
        let edit = find(Kind::CLUSTER_ROLE, "edit").to_json();
        assert_eq!(edit["metadata"]["labels"]["rbac.authorization.k8s.io/aggregate-to-admin"], "true");
        assert_eq!(
            edit["aggregationRule"]["clusterRoleSelectors"][0]["matchLabels"],
            json!({"rbac.authorization.k8s.io/aggregate-to-edit": "true"})
        );
    }

    #[test]
    fn what_a_user_added_stays_and_what_is_missing_comes() {
        let wanted = find(Kind::CLUSTER_ROLE, "system:kube-dns");
        assert_eq!(step(&wanted, None), Some(Step::Create(wanted.clone())));
        assert_eq!(step(&wanted, Some(&wanted)), None);
        let mut own = wanted.to_json();
        own["rules"] = json!([{"verbs": ["get"], "apiGroups": [""], "resources": ["nodes"]}]);
        own["metadata"]["labels"] = json!({"mine": "yes"});
        let Some(Step::Update(next)) = step(&wanted, Some(&Object::from_json(own.clone()).unwrap())) else { panic!() };
        let next = next.to_json();
        assert_eq!(next["rules"].as_array().unwrap().len(), 2);
        assert_eq!(next["metadata"]["labels"].as_object().unwrap().len(), 2);
        own["metadata"]["annotations"] = json!({"rbac.authorization.kubernetes.io/autoupdate": "false"});
        assert_eq!(step(&wanted, Some(&Object::from_json(own).unwrap())), None);
        let wider = json!({"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]});
        let mut own = wanted.to_json();
        own["rules"] = json!([wider]);
        assert_eq!(step(&wanted, Some(&Object::from_json(own).unwrap())), None);
        let wanted = find(Kind::CLUSTER_ROLE_BINDING, "cluster-admin");
        let mut own = wanted.to_json();
        own["subjects"] = json!([{"kind": "User", "apiGroup": "rbac.authorization.k8s.io", "name": "jane"}]);
        let Some(Step::Update(next)) = step(&wanted, Some(&Object::from_json(own.clone()).unwrap())) else { panic!() };
        assert_eq!(next.to_json()["subjects"].as_array().unwrap().len(), 2);
        own["roleRef"]["name"] = json!("view");
        assert_eq!(step(&wanted, Some(&Object::from_json(own).unwrap())), Some(Step::Delete));
        let view = find(Kind::CLUSTER_ROLE, "view");
        let mut own = view.to_json();
        own["rules"] = json!([{"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]}]);
        assert_eq!(step(&view, Some(&Object::from_json(own).unwrap())), None, "its controller fills it");
    }
}
