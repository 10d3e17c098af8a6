use proptest::prelude::*;
use serde_json::{Value, json};

use super::fields::FieldSet;
use super::{Writer, apply, track};
use crate::api::{Reason, Status};
use crate::random::Rng;
use crate::schema::draw::draw;
use crate::schema::{Schema, Type, builtin_kind};

const DEPLOYMENT: (&str, &str) = ("apps/v1", "Deployment");
const POD: (&str, &str) = ("v1", "Pod");
const SERVICE: (&str, &str) = ("v1", "Service");

fn of(kind: (&str, &str)) -> Type<'static> {
    builtin_kind(kind.0, kind.1).unwrap()
}

fn writer<'a>(kind: (&'a str, &str), manager: &'a str, time: &'a str) -> Writer<'a> {
    Writer { manager, api_version: kind.0, subresource: "", time, reset: &["status"] }
}

fn object(kind: (&str, &str), rest: Value) -> Value {
    let mut object = json!({"apiVersion": kind.0, "kind": kind.1, "metadata": {"name": "x", "namespace": "n"}});
    object.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
    object
}

fn applied(live: Option<&Value>, kind: (&str, &str), manager: &str, config: Value) -> Result<Value, Status> {
    apply(live, &object(kind, config), of(kind), writer(kind, manager, "2026-01-01T00:00:00Z"), false)
}

fn forced(live: &Value, kind: (&str, &str), manager: &str, config: Value) -> Value {
    apply(Some(live), &object(kind, config), of(kind), writer(kind, manager, "2026-01-02T00:00:00Z"), true).unwrap()
}

/// Who manages what: `manager/operation` and its fields.
fn managers(object: &Value) -> Vec<(String, Value)> {
    let entries = object["metadata"]["managedFields"].as_array().cloned().unwrap_or_default();
    let text = |e: &Value, key: &str| e[key].as_str().unwrap_or("").to_owned();
    entries
        .iter()
        .map(|e| (format!("{}/{}", text(e, "manager"), text(e, "operation")), e["fieldsV1"].clone()))
        .collect()
}

#[test]
fn what_is_applied_to_nothing_is_created_and_owned() {
    let config = json!({"spec": {"replicas": 3, "selector": {"matchLabels": {"a": "b"}}, "template": {
        "metadata": {"labels": {"a": "b"}},
        "spec": {"containers": [{"name": "c", "image": "i", "ports": [{"containerPort": 80}], "args": ["x"]}],
                 "nodeSelector": {"z": "1"}}}}});
    let got = applied(None, DEPLOYMENT, "kubectl", config).unwrap();
    assert_eq!(got["spec"]["replicas"], 3);
    let want = json!([{"manager": "kubectl", "operation": "Apply", "apiVersion": "apps/v1",
        "time": "2026-01-01T00:00:00Z", "fieldsType": "FieldsV1", "fieldsV1": {"f:spec": {
            "f:replicas": {}, "f:selector": {}, "f:template": {
                "f:metadata": {"f:labels": {"f:a": {}}},
                "f:spec": {"f:nodeSelector": {}, "f:containers": {"k:{\"name\":\"c\"}": {".": {}, "f:name": {},
                    "f:image": {}, "f:args": {},
                    "f:ports": {"k:{\"containerPort\":80,\"protocol\":\"TCP\"}": {".": {}, "f:containerPort": {}}}}}}}}}}]);
    assert_eq!(got["metadata"]["managedFields"], want);
}

#[test]
fn a_field_of_another_manager_is_a_conflict() {
    let spec = |replicas: u64| json!({"spec": {"replicas": replicas, "minReadySeconds": 1}});
    let created = object(DEPLOYMENT, spec(3));
    let mut live = created.clone();
    let entries = track(None, &created, of(DEPLOYMENT), writer(DEPLOYMENT, "kubectl-client-side-apply", "t")).unwrap();
    live["metadata"]["managedFields"] = Value::from(entries);
    let status = applied(Some(&live), DEPLOYMENT, "helm", spec(4)).unwrap_err();
    assert_eq!((status.reason, status.reason.code()), (Reason::Conflict, 409));
    assert_eq!(
        &*status.message,
        "Apply failed with 1 conflict: conflict with \"kubectl-client-side-apply\" using apps/v1: .spec.replicas"
    );
    let cause = &status.details.unwrap().causes[0];
    assert_eq!(
        (cause.reason.as_str(), cause.message.as_str(), cause.field.as_str()),
        ("FieldManagerConflict", "conflict with \"kubectl-client-side-apply\" using apps/v1", ".spec.replicas")
    );
    // The same value is shared and no conflict.
    let shared = applied(Some(&live), DEPLOYMENT, "helm", spec(3)).unwrap();
    assert_eq!(shared["spec"], live["spec"]);
    assert_eq!(managers(&shared).iter().filter(|(_, f)| f["f:spec"].get("f:replicas").is_some()).count(), 2);
    // Forced, it changes hands.
    let taken = forced(&live, DEPLOYMENT, "helm", spec(4));
    assert_eq!(taken["spec"]["replicas"], 4);
    let want = [
        ("helm/Apply".to_owned(), json!({"f:spec": {"f:minReadySeconds": {}, "f:replicas": {}}})),
        ("kubectl-client-side-apply/Update".to_owned(), json!({"f:spec": {".": {}, "f:minReadySeconds": {}}})),
    ];
    assert_eq!(managers(&taken), want);
}

#[test]
fn several_conflicts_are_listed_by_manager() {
    let live = applied(None, DEPLOYMENT, "a", json!({"spec": {"replicas": 1, "minReadySeconds": 1}})).unwrap();
    let live = applied(Some(&live), DEPLOYMENT, "b", json!({"spec": {"paused": true}})).unwrap();
    let config = json!({"spec": {"replicas": 2, "minReadySeconds": 2, "paused": false}});
    let status = applied(Some(&live), DEPLOYMENT, "c", config).unwrap_err();
    assert_eq!(
        &*status.message,
        "Apply failed with 3 conflicts: conflicts with \"a\":\n- .spec.minReadySeconds\n- .spec.replicas\n\
         conflicts with \"b\":\n- .spec.paused"
    );
}

#[test]
fn what_is_no_longer_applied_goes_unless_somebody_owns_it() {
    let container = |name: &str| json!({"name": name, "image": "i"});
    let one = json!({"metadata": {"name": "x", "namespace": "n", "labels": {"a": "1", "b": "2"}},
        "spec": {"containers": [container("a"), container("b")], "hostname": "h"}});
    let live = applied(None, POD, "me", one.clone()).unwrap();
    let live =
        applied(Some(&live), POD, "you", json!({"spec": {"containers": [{"name": "b", "image": "i"}]}})).unwrap();
    let two = json!({"metadata": {"name": "x", "namespace": "n", "labels": {"a": "1"}},
        "spec": {"containers": [container("a")]}});
    let got = applied(Some(&live), POD, "me", two).unwrap();
    assert_eq!(got["metadata"]["labels"], json!({"a": "1"}));
    assert_eq!(got["spec"], json!({"containers": [container("a"), container("b")]}));
    // Once it is nobody's, it goes.
    let got = applied(Some(&got), POD, "you", json!({"spec": {"hostname": "x"}})).unwrap();
    assert_eq!(got["spec"], json!({"containers": [container("a")], "hostname": "x"}));
    // What was never applied stays.
    let mut live = applied(None, POD, "me", one).unwrap();
    live["spec"]["containers"][0]["tty"] = json!(true);
    let got = applied(Some(&live), POD, "me", json!({"spec": {"containers": [container("a")]}})).unwrap();
    assert_eq!(got["spec"]["containers"], json!([{"name": "a", "image": "i", "tty": true}]));
}

#[test]
fn lists_are_merged_by_their_type() {
    let live = applied(None, SERVICE, "a", json!({"spec": {"ports": [{"port": 53, "protocol": "UDP"}]}})).unwrap();
    // By port and protocol, which is TCP where nothing is said.
    let got = applied(Some(&live), SERVICE, "b", json!({"spec": {"ports": [{"port": 53, "name": "tcp"}]}})).unwrap();
    assert_eq!(got["spec"]["ports"], json!([{"port": 53, "protocol": "UDP"}, {"port": 53, "name": "tcp"}]));
    let finalizers = |f: Value| json!({"metadata": {"name": "x", "namespace": "n", "finalizers": f}});
    let live = applied(None, POD, "a", finalizers(json!(["x/a"]))).unwrap();
    let got = applied(Some(&live), POD, "b", finalizers(json!(["x/b"]))).unwrap();
    assert_eq!(got["metadata"]["finalizers"], json!(["x/a", "x/b"]));
    assert_eq!(managers(&got)[0].1["f:metadata"]["f:finalizers"], json!({"v:\"x/a\"": {}}));
    // The order of whoever applies wins.
    let named =
        |names: &[&str]| json!({"spec": {"containers": names.iter().map(|n| json!({"name": n})).collect::<Value>()}});
    let live = applied(None, POD, "a", named(&["1", "2", "3"])).unwrap();
    let got = applied(Some(&live), POD, "b", named(&["3", "4", "1"])).unwrap();
    assert_eq!(got["spec"]["containers"], json!([{"name": "2"}, {"name": "3"}, {"name": "4"}, {"name": "1"}]));
    // An atomic list is one value.
    let tolerations = |key: &str| json!({"spec": {"tolerations": [{"key": key}]}});
    let live = applied(None, POD, "a", tolerations("a")).unwrap();
    let status = applied(Some(&live), POD, "b", tolerations("b")).unwrap_err();
    assert_eq!(&*status.message, "Apply failed with 1 conflict: conflict with \"a\": .spec.tolerations");
}

#[test]
fn what_cannot_be_applied_is_refused() {
    let check = |config: Value, want: &str| {
        let status = applied(None, DEPLOYMENT, "a", config.clone()).expect_err(want);
        assert_eq!(&*status.message, want, "{config}");
    };
    let typed = "failed to create typed patch object (n/x; apps/v1, Kind=Deployment): ";
    check(json!({"spec": {"foo": 1}}), &format!("{typed}.spec.foo: field not declared in schema"));
    check(
        json!({"spec": {"replicas": "3"}}),
        &format!("{typed}.spec.replicas: expected numeric (int or float), got string"),
    );
    check(
        json!({"spec": {"template": {"spec": {"containers": [{"name": "a"}, {"name": "a"}]}}}}),
        &format!("{typed}.spec.template.spec.containers: duplicate entries for key [name=\"a\"]"),
    );
    check(
        json!({"metadata": {"name": "x", "namespace": "n", "managedFields": []}}),
        "metadata.managedFields must be nil",
    );
    check(
        json!({"apiVersion": "apps/v1beta1"}),
        "Incorrect version specified in apply patch. Specified patch version: apps/v1beta1, expected: apps/v1",
    );
}

#[test]
fn plain_writes_are_tracked() {
    let new = object(DEPLOYMENT, json!({"spec": {"replicas": 1}, "status": {"replicas": 9}}));
    let made = track(None, &new, of(DEPLOYMENT), writer(DEPLOYMENT, "", "2026-01-01T00:00:00Z")).unwrap();
    let want = json!([{"manager": "unknown", "operation": "Update", "apiVersion": "apps/v1",
        "time": "2026-01-01T00:00:00Z", "fieldsType": "FieldsV1",
        "fieldsV1": {"f:spec": {".": {}, "f:replicas": {}}}}]);
    assert_eq!(Value::from(made.clone()), want);
    let mut live = new;
    live["metadata"]["managedFields"] = Value::from(made);
    // A status is written through its subresource, and tells nothing of the spec.
    let mut reported = live.clone();
    reported["status"]["replicas"] = json!(10);
    reported["spec"]["replicas"] = json!(5);
    let status =
        Writer { subresource: "status", reset: &["spec"], ..writer(DEPLOYMENT, "controller", "2026-01-02T00:00:00Z") };
    let entries = track(Some(&live), &reported, of(DEPLOYMENT), status).unwrap();
    assert_eq!(entries.len(), 2);
    assert_eq!(entries[1]["subresource"], "status");
    assert_eq!(entries[1]["fieldsV1"], json!({"f:status": {"f:replicas": {}}}));
    // An update that changes nothing changes no owner, nor any time.
    live["metadata"]["managedFields"] = Value::from(entries.clone());
    assert_eq!(track(Some(&live), &live, of(DEPLOYMENT), writer(DEPLOYMENT, "z", "t")), Some(entries.clone()));
    // A removed field is nobody's; one that is taken over changes hands.
    let mut changed = live.clone();
    changed["spec"] = json!({"paused": true});
    let got = track(Some(&live), &changed, of(DEPLOYMENT), writer(DEPLOYMENT, "z", "2026-01-03T00:00:00Z")).unwrap();
    assert_eq!(got[2]["fieldsV1"], json!({"f:spec": {"f:paused": {}}}));
    assert_eq!(got[0]["fieldsV1"], json!({"f:spec": {}}));
    // Clients that send none keep those that there are; an empty list means none.
    let mut unaware = live.clone();
    unaware["metadata"].as_object_mut().unwrap().remove("managedFields");
    assert_eq!(track(Some(&live), &unaware, of(DEPLOYMENT), writer(DEPLOYMENT, "z", "t")), Some(entries));
    unaware["metadata"]["managedFields"] = json!([]);
    assert_eq!(track(Some(&live), &unaware, of(DEPLOYMENT), writer(DEPLOYMENT, "z", "t")), None);
}

#[test]
fn of_too_many_updaters_the_oldest_become_one() {
    let mut live = object(POD, json!({"spec": {}}));
    live["metadata"]["managedFields"] = Value::from(track(None, &live, of(POD), writer(POD, "first", "0")).unwrap());
    for i in 0..15 {
        let mut new = live.clone();
        new["metadata"]["labels"][format!("l{i}")] = json!("x");
        let (name, time) = (format!("m{i}"), format!("2026-01-01T00:00:{i:02}Z"));
        new["metadata"]["managedFields"] =
            Value::from(track(Some(&live), &new, of(POD), writer(POD, &name, &time)).unwrap());
        live = new;
    }
    let names: Vec<String> = managers(&live).into_iter().map(|(name, _)| name).collect();
    assert_eq!(names.len(), 10, "{names:?}");
    assert_eq!(names[0], "ancient-changes/Update");
}

#[test]
fn kubectl_takes_over_from_its_client_side_apply() {
    let last = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "x", "namespace": "n"},
        "spec": {"replicas": 3}});
    let mut live = object(DEPLOYMENT, json!({"spec": {"replicas": 3}}));
    live["metadata"]["annotations"]["kubectl.kubernetes.io/last-applied-configuration"] = json!(last.to_string());
    let entries = track(None, &live, of(DEPLOYMENT), writer(DEPLOYMENT, "kubectl-client-side-apply", "t")).unwrap();
    live["metadata"]["managedFields"] = Value::from(entries);
    let config = json!({"spec": {"replicas": 5}});
    assert!(applied(Some(&live), DEPLOYMENT, "helm", config.clone()).is_err());
    let got = applied(Some(&live), DEPLOYMENT, "kubectl", config).unwrap();
    assert_eq!(got["spec"]["replicas"], 5);
    let annotation = &got["metadata"]["annotations"]["kubectl.kubernetes.io/last-applied-configuration"];
    assert!(annotation.as_str().unwrap().contains("\"replicas\":5"));
}

#[test]
fn where_nothing_was_tracked_all_belongs_to_before() {
    let live = object(DEPLOYMENT, json!({"spec": {"replicas": 3}}));
    assert_eq!(track(Some(&live), &live, of(DEPLOYMENT), writer(DEPLOYMENT, "z", "t")), None);
    let status = applied(Some(&live), DEPLOYMENT, "helm", json!({"spec": {"replicas": 4}})).unwrap_err();
    let want = "Apply failed with 1 conflict: conflict with \"before-first-apply\" using apps/v1: .spec.replicas";
    assert_eq!(&*status.message, want);
}

#[test]
fn custom_resources_are_applied_by_their_schema() {
    let schema = Schema::custom(&json!({"type": "object", "properties": {"spec": {"type": "object", "properties": {
        "ports": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["port"],
            "items": {"type": "object", "properties": {"port": {"type": "integer"}, "name": {"type": "string"}}}},
        "plain": {"type": "array", "items": {"type": "string"}},
        "open": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}}}}))
    .unwrap();
    let config = |spec: Value| json!({"apiVersion": "x.io/v1", "kind": "W", "metadata": {"name": "w"}, "spec": spec});
    let by = |manager| Writer { manager, api_version: "x.io/v1", subresource: "", time: "t", reset: &[] };
    let one = config(json!({"ports": [{"port": 1}], "plain": ["a"], "open": {"a": {"b": 1}}}));
    let live = apply(None, &one, schema.root(), by("a"), false).unwrap();
    assert_eq!(managers(&live)[0].1["f:spec"]["f:open"], json!({"f:a": {".": {}, "f:b": {}}}));
    let two = config(json!({"ports": [{"port": 2}], "open": {"a": {"c": 1}}}));
    let got = apply(Some(&live), &two, schema.root(), by("b"), false).unwrap();
    assert_eq!(
        got["spec"],
        json!({"ports": [{"port": 1}, {"port": 2}], "plain": ["a"], "open": {"a": {"b": 1, "c": 1}}})
    );
    let three = config(json!({"plain": ["b"]}));
    let status = apply(Some(&got), &three, schema.root(), by("b"), false).unwrap_err();
    assert_eq!(&*status.message, "Apply failed with 1 conflict: conflict with \"a\": .spec.plain");
}

/// A drawn deployment that can be applied: of every list, items that are told apart.
fn config(seed: u64, density: u64) -> Value {
    let mut config = draw(&mut Rng::from_seed(seed), density, of(DEPLOYMENT));
    config["apiVersion"] = json!("apps/v1");
    config["kind"] = json!("Deployment");
    let meta = config["metadata"].as_object_mut().unwrap();
    meta.remove("managedFields");
    config.as_object_mut().unwrap().remove("status");
    config
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn to_apply_twice_is_to_apply_once(seed in any::<u64>(), density in 1_u64..16) {
        let config = config(seed, density);
        let run = |live: Option<&Value>, time| apply(live, &config, of(DEPLOYMENT), writer(DEPLOYMENT, "a", time), false);
        if let Ok(once) = run(None, "1") {
            prop_assert_eq!(run(Some(&once), "2"), Ok(once));
        }
    }

    #[test]
    fn managers_of_different_fields_never_conflict(
        mine in prop::collection::btree_map("[a-m]", 0..9_u32, 0..5), yours in prop::collection::btree_map("[n-z]", 0..9_u32, 0..5),
        again in prop::collection::btree_map("[a-m]", 0..9_u32, 0..5),
    ) {
        let spec = |names: &std::collections::BTreeMap<String, u32>| {
            let labels = names.iter().map(|(k, v)| (k.clone(), json!(v.to_string())));
            let labels = Value::Object(labels.collect());
            let list: Value = names.iter().map(|(k, v)| json!({"name": k, "image": v.to_string()})).collect();
            json!({"metadata": {"name": "x", "namespace": "n", "labels": labels}, "spec": {"containers": list}})
        };
        let first = applied(None, POD, "me", spec(&mine)).unwrap();
        let second = applied(Some(&first), POD, "you", spec(&yours)).unwrap();
        let third = applied(Some(&second), POD, "me", spec(&again)).unwrap();
        // What there is, is what both apply.
        let mut labels = third["metadata"]["labels"].as_object().cloned().unwrap_or_default();
        labels.retain(|_, v| !v.is_null());
        let want: Vec<&String> = again.keys().chain(yours.keys()).collect();
        prop_assert_eq!(labels.keys().collect::<Vec<_>>(), want);
    }

    #[test]
    fn sets_come_back_from_json(seed in any::<u64>(), density in 1_u64..16) {
        let set = super::typed::field_set(&config(seed, density), of(DEPLOYMENT));
        prop_assert_eq!(FieldSet::from_json(&set.to_json()), Ok(set.clone()));
        prop_assert!(set.difference(&set).is_empty());
        prop_assert_eq!(&set.union(&set), &set);
        prop_assert_eq!(&set.intersection(&set), &set);
    }
}
