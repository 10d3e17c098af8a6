//! Writes that admission policies judge.

use serde_json::{Value, json};

use super::{Cluster, cluster, config_map, deployment, key, pod, refusal};
use crate::api::{DeleteOptions, Reason};
use crate::object::{Kind, Object};

const API: &str = "admissionregistration.k8s.io/v1";

fn policy(resources: &str, more: Value) -> Value {
    let mut spec = json!({"matchConstraints": {"resourceRules": [{"apiGroups": ["*"], "apiVersions": ["*"],
        "operations": ["*"], "resources": [resources]}]}});
    json_patch::merge(&mut spec, &more);
    json!({"apiVersion": API, "kind": "ValidatingAdmissionPolicy", "metadata": {"name": "p"}, "spec": spec})
}

fn binding(more: Value) -> Value {
    let mut spec = json!({"policyName": "p", "validationActions": ["Deny"]});
    json_patch::merge(&mut spec, &more);
    json!({"apiVersion": API, "kind": "ValidatingAdmissionPolicyBinding", "metadata": {"name": "b"}, "spec": spec})
}

fn bound(resources: &str, more: Value, bound: Value) -> Cluster {
    let mut c = cluster(1);
    c.create(policy(resources, more)).unwrap();
    c.create(binding(bound)).unwrap();
    c
}

fn judged(more: Value, object: Value) -> String {
    let mut c = bound("*", more, json!({}));
    c.create(object).map_or_else(|status| status.message.into(), |_| String::new())
}

const DENIED: &str = "ValidatingAdmissionPolicy 'p' with binding 'b' denied request: ";

#[test]
fn a_policy_denies_what_its_validations_refuse() {
    let check = |more: Value, object: Value, want: &str| {
        let want = if want.is_empty() { String::new() } else { format!("{DENIED}{want}") };
        let got = judged(more.clone(), object);
        let got = got.split_once(" is forbidden: ").map_or(got.as_str(), |(_, why)| why);
        assert_eq!(got, want, "{more}");
    };
    let few = json!({"validations": [{"expression": "object.spec.replicas <= 5"}]});
    check(few.clone(), deployment("d", 5), "");
    check(few.clone(), deployment("d", 6), "failed expression: object.spec.replicas <= 5");
    check(few, config_map("a"), "expression 'object.spec.replicas <= 5' resulted in error: no such key: spec");
    let ignored = json!({"validations": [{"expression": "object.spec.x > 5"}], "failurePolicy": "Ignore"});
    check(ignored, config_map("a"), "");
    let said = json!({"validations": [{"expression": "false", "message": "no", "messageExpression":
        "request.operation + ' of ' + object.metadata.name + ' by ' + request.userInfo.username"}]});
    check(said, config_map("a"), "CREATE of a by test");
    let plain = json!({"validations": [{"expression": "false", "message": "no", "messageExpression": "object.x"}]});
    assert!(cluster(1).create(policy("*", plain)).is_err(), "a message is a string");
    let other = json!({"matchConditions": [{"name": "only-b", "expression": "object.metadata.name == 'b'"}],
        "validations": [{"expression": "false"}]});
    check(other.clone(), config_map("a"), "");
    check(other, config_map("b"), "failed expression: false");
    let named = json!({"variables": [{"name": "who", "expression": "object.metadata.name"},
        {"name": "bad", "expression": "object.none"}, {"name": "long", "expression": "variables.who.size() > 1"}],
        "validations": [{"expression": "!variables.long", "message": "long"}]});
    check(named.clone(), config_map("a"), "");
    check(named, config_map("ab"), "long");
    let failed = json!({"variables": [{"name": "bad", "expression": "object.none"}],
        "validations": [{"expression": "variables.bad == 1"}]});
    check(
        failed,
        config_map("a"),
        "expression 'variables.bad == 1' resulted in error: composited variable \"bad\" fails to evaluate: expression \
         'object.none' resulted in error: no such key: none",
    );
    let space = json!({"validations": [{"expression": "namespaceObject.metadata.name != 'default'"}]});
    check(space, config_map("a"), "failed expression: namespaceObject.metadata.name != 'default'");
    let costly = "[1,2,3,4,5,6,7,8,9,10]";
    let costly = format!(
        "{costly}.all(a, {costly}.all(b, {costly}.all(c, {costly}.all(d, {costly}.all(e, {costly}.all(f, a > 0))))))"
    );
    check(
        json!({"validations": [{"expression": costly}]}),
        config_map("a"),
        "validation failed due to running out of cost budget, no further validation rules will be run",
    );
}

#[test]
fn refusals_have_the_reason_that_is_asked_for() {
    for (reason, want) in [(json!(null), Reason::Invalid), (json!("Forbidden"), Reason::Forbidden)] {
        let mut validation = json!({"expression": "false"});
        json_patch::merge(&mut validation, &json!({"reason": reason}));
        let mut c = bound("configmaps", json!({"validations": [validation]}), json!({}));
        let status = c.create(config_map("a")).unwrap_err();
        assert_eq!(status.reason, want);
        let why = format!("{DENIED}failed expression: false");
        assert_eq!(&*status.message, format!("configmaps \"a\" is forbidden: {why}"));
        let details = status.details.unwrap();
        assert_eq!((details.kind.as_str(), details.causes[0].message.as_str()), ("configmaps", why.as_str()));
    }
}

#[test]
fn bindings_choose_and_only_warn() {
    let never = || json!({"validations": [{"expression": "false", "message": "never"}]});
    let mut c = bound("*", never(), json!({"validationActions": ["Warn", "Audit"]}));
    c.create(config_map("a")).unwrap();
    let warned = "Validation failed for ValidatingAdmissionPolicy 'p' with binding 'b': never";
    assert_eq!(c.warnings.last().unwrap().1, warned);
    let only = json!({"matchResources": {"resourceRules": [{"apiGroups": [""], "apiVersions": ["v1"],
        "operations": ["CREATE"], "resources": ["pods"]}], "objectSelector": {"matchLabels": {"app": "x"}}}});
    let except = json!({"matchResources": {"excludeResourceRules": [{"apiGroups": [""], "apiVersions": ["v1"],
        "operations": ["*"], "resources": ["configmaps"]}]}});
    let mut c = bound("*", never(), except);
    c.create(config_map("a")).unwrap();
    assert!(c.create(pod("p")).is_err());
    let mut c = bound("*", never(), only);
    c.create(config_map("a")).unwrap();
    c.create(pod("p")).unwrap();
    let mut labelled = pod("q");
    labelled["metadata"]["labels"] = json!({"app": "x"});
    assert!(refusal(c.create(labelled.clone())).1.ends_with("denied request: never"));
    // A policy without a binding does nothing, nor does one whose binding has gone.
    c.delete(&key(Kind::VALIDATING_ADMISSION_POLICY_BINDING, "b"), DeleteOptions::default()).unwrap();
    c.create(labelled).unwrap();
}

#[test]
fn updates_and_deletes_are_judged_too() {
    let kept = json!({"validations": [{"expression":
        "request.operation != 'DELETE' && (oldObject == null || object.data.k == oldObject.data.k)"}]});
    let mut c = bound("configmaps", kept, json!({}));
    let made = c.create(config_map("a")).unwrap();
    let mut changed = made.clone();
    super::set_data(&mut changed, "w");
    assert_eq!(refusal(c.update(changed)).0, Reason::Invalid);
    assert_eq!(refusal(c.delete(&made.key(), DeleteOptions::default())).0, Reason::Invalid);
    // What judges can be mended whatever it says.
    c.delete(&key(Kind::VALIDATING_ADMISSION_POLICY, "p"), DeleteOptions::default()).unwrap();
    c.delete(&made.key(), DeleteOptions::default()).unwrap();
}

#[test]
fn parameters_come_from_objects() {
    let limited = || {
        json!({"paramKind": {"apiVersion": "v1", "kind": "ConfigMap"},
            "validations": [{"expression": "object.spec.replicas <= int(params.data.max)",
                "messageExpression": "'at most ' + params.data.max"}]})
    };
    let limit = |name: &str, max: &str| {
        let mut map = config_map(name);
        map["data"] = json!({"max": max});
        map["metadata"]["labels"] = json!({"limit": "yes"});
        map
    };
    let check = |reference: Value, replicas: i32, want: Option<&str>| {
        let mut c = bound("deployments", limited(), json!({"paramRef": reference}));
        c.create(limit("one", "3")).unwrap();
        c.create(limit("two", "2")).unwrap();
        let got = c.create(deployment("d", replicas)).err().map(|status| status.message.to_string());
        let want = want.map(|want| format!("deployments.apps \"d\" is forbidden: {DENIED}{want}"));
        assert_eq!(got, want, "{reference} {replicas}");
    };
    check(json!({"name": "one", "parameterNotFoundAction": "Deny"}), 3, None);
    check(json!({"name": "one", "parameterNotFoundAction": "Deny"}), 4, Some("at most 3"));
    let all = json!({"selector": {"matchLabels": {"limit": "yes"}}, "parameterNotFoundAction": "Deny"});
    check(all, 3, Some("at most 2"));
    let none = "failed to configure binding: no params found for policy binding with `Deny` parameterNotFoundAction";
    check(json!({"name": "three", "parameterNotFoundAction": "Deny"}), 1, Some(none));
    check(json!({"name": "three", "parameterNotFoundAction": "Allow"}), 9, None);
}

#[test]
fn what_is_wrong_in_a_policy_is_refused() {
    let check = |more: Value, want: &str| {
        let (reason, message) = refusal(cluster(1).create(policy("*", more.clone())));
        assert_eq!(reason, Reason::Invalid);
        assert!(message.ends_with(want), "{more}: {message}");
    };
    let one = |expression: &str| json!({"validations": [{"expression": expression}]});
    check(
        one("object.x ="),
        "spec.validations[0].expression: Invalid value: \"object.x =\": compilation failed: ERROR: <input>:1:10: \
         Syntax error: mismatched input '=' expecting <EOF>\n | object.x =\n | .........^",
    );
    check(one("1 + 1"), "spec.validations[0].expression: Invalid value: \"1 + 1\": must evaluate to bool");
    check(one("params.x == 1"), "undeclared reference to 'params' (in container '')\n | params.x == 1\n | ^");
    check(one("request.foo == ''"), "undefined field 'foo'\n | request.foo == ''\n | .......^");
    check(
        one("authorizer == null"),
        "undeclared reference to 'authorizer' (in container '')\n | authorizer == null\n | ^",
    );
    check(
        json!({}),
        "[spec.validations: Required value: validations or auditAnnotations must contain at least one item, \
         spec.auditAnnotations: Required value: validations or auditAnnotations must contain at least one item]",
    );
    check(
        json!({"matchConstraints": null, "validations": [{"expression": "true"}]}),
        "spec.matchConstraints: Required value",
    );
    let (_, message) = refusal(cluster(1).create(binding(json!({"validationActions": ["Deny", "Warn", "Warn"]}))));
    assert!(message.contains("spec.validationActions[2]: Duplicate value: \"Warn\""), "{message}");
    assert!(message.contains("must not contain both Deny and Warn"), "{message}");
    let made = cluster(1).create(policy("*", one("true"))).unwrap();
    let Object::Dynamic(made) = made else { panic!("a policy is held as JSON") };
    assert_eq!(
        (&made.body["spec"]["failurePolicy"], &made.body["spec"]["matchConstraints"]["matchPolicy"]),
        (&json!("Fail"), &json!("Equivalent"))
    );
}

/// A cluster with mutating policies, each with a binding of its name.
fn with_mutating(policies: &[(&str, Value)]) -> Cluster {
    let mut c = cluster(1);
    for (name, more) in policies {
        let mut made = policy("*", more.clone());
        (made["kind"], made["metadata"]["name"]) = (json!("MutatingAdmissionPolicy"), json!(name));
        c.create(made).unwrap_or_else(|status| panic!("{status}"));
        c.create(json!({"apiVersion": API, "kind": "MutatingAdmissionPolicyBinding", "metadata": {"name": name},
            "spec": {"policyName": name}}))
            .unwrap();
    }
    c
}

fn merged(expression: &str) -> Value {
    json!({"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": expression}})
}

fn patched(expression: &str) -> Value {
    json!({"patchType": "JSONPatch", "jsonPatch": {"expression": expression}})
}

#[test]
fn a_policy_changes_what_is_written() {
    let check = |mutations: &[Value], more: Value, at: &str, want: Value| {
        let mut spec = json!({"mutations": mutations, "matchConditions": [{"name": "deployments",
            "expression": "request.resource.resource == 'deployments'"}]});
        json_patch::merge(&mut spec, &more);
        let mut c = with_mutating(&[("m", spec)]);
        let made = c.create(deployment("d", 2)).map_or_else(|e| json!(e.message), |made| made.to_json());
        let got = if made.is_string() { &made } else { made.pointer(at).unwrap_or(&Value::Null) };
        assert_eq!(*got, want, "{mutations:?}");
        c.create(config_map("a")).unwrap();
    };
    let replicas = "Object{spec: Object.spec{replicas: object.spec.replicas % 2 == 0 ? object.spec.replicas + 1 : 7}}";
    check(&[merged(replicas)], json!({}), "/spec/replicas", json!(3));
    check(&[merged(replicas), merged(replicas)], json!({}), "/spec/replicas", json!(7));
    let variable = json!({"variables": [{"name": "one", "expression": "object.spec.replicas - 1"}]});
    check(&[merged("Object{spec: Object.spec{replicas: variables.one}}")], variable, "/spec/replicas", json!(1));
    // Items of a list with keys are merged with those that are there.
    let sidecar = "Object{spec: Object.spec{template: Object.spec.template{spec: Object.spec.template.spec{containers: \
                   [Object.spec.template.spec.containers{name: 'more', image: 'i'}]}}}}";
    check(&[merged(sidecar)], json!({}), "/spec/template/spec/containers/1/name", json!("more"));
    let label = "[JSONPatch{op: 'add', path: '/metadata/labels', value: {'a/b': 'c'}}, JSONPatch{op: 'test', path: \
                 '/metadata/labels/' + jsonpatch.escapeKey('a/b'), value: 'c'}]";
    check(&[patched(label)], json!({}), "/metadata/labels", json!({"a/b": "c"}));
    // One whose test fails is not applied at all.
    let tested = "[JSONPatch{op: 'replace', path: '/spec/replicas', value: 5}, JSONPatch{op: 'test', path: \
                  '/spec/paused', value: true}]";
    check(&[patched(tested), merged(replicas)], json!({}), "/spec/replicas", json!(3));
    let wrong = "[JSONPatch{op: 'remove', path: '/spec/none'}]";
    let ignore = || json!({"failurePolicy": "Ignore"});
    check(&[merged(replicas), patched(wrong), merged(replicas)], ignore(), "/spec/replicas", json!(7));
    // The conditions are asked before the first mutation only.
    let even = json!({"matchConditions": [{"name": "even", "expression": "object.kind == 'Deployment' && \
        object.spec.replicas % 2 == 0"}]});
    check(&[merged(replicas), merged(replicas)], even, "/spec/replicas", json!(7));
    let refused = |why: &str| json!(format!("policy 'm' with binding 'm' denied request: {why}"));
    let rename = "Object{metadata: Object.metadata{name: 'other'}}";
    let why = "the name, namespace and kind of an object cannot be changed";
    check(&[merged(rename)], json!({}), "", refused(why));
    check(&[merged(rename)], json!({"failurePolicy": "Ignore"}), "/metadata/name", json!("d"));
    let selector = "Object{spec: Object.spec{selector: Object.spec.selector{matchLabels: {'a': 'b'}}}}";
    let why = "error applying patch: invalid ApplyConfiguration: may not mutate atomic arrays, maps or structs: \
               .spec.selector";
    check(&[merged(selector)], json!({}), "", refused(why));
    let why = "error applying patch: failed to convert patch object to typed object: .spec.nope: field not declared in \
               schema";
    check(&[merged("Object{spec: Object.spec{nope: 1}}")], json!({}), "", refused(why));
}

#[test]
fn policies_that_ask_for_it_see_what_others_have_changed() {
    let count = |policy: &str| {
        let more = merged("Object{spec: Object.spec{replicas: object.spec.replicas + 1}}");
        json!({"reinvocationPolicy": policy, "mutations": [more], "matchConditions": [{"name": "deployments",
            "expression": "request.resource.resource == 'deployments'"}]})
    };
    for (first, second, want) in
        [("Never", "Never", 4), ("IfNeeded", "Never", 5), ("Never", "IfNeeded", 5), ("IfNeeded", "IfNeeded", 6)]
    {
        let mut c = with_mutating(&[("a", count(first)), ("b", count(second))]);
        let made = c.create(deployment("d", 2)).unwrap();
        assert_eq!(made.to_json()["spec"]["replicas"], want, "{first} {second}");
        let mut changed = made;
        let Object::Deployment(d) = &mut changed else { panic!() };
        d.spec_mut().replicas = Some(0);
        assert_eq!(c.update(changed).unwrap().to_json()["spec"]["replicas"], want - 2, "updates too");
    }
}

#[test]
fn policies_that_could_not_work_are_refused() {
    let check = |more: Value, want: &str| {
        let mut made = policy("*", more.clone());
        made["kind"] = json!("MutatingAdmissionPolicy");
        let message = cluster(1).create(made).expect_err(&more.to_string()).message;
        assert!(message.contains(want), "{more}: {message}");
    };
    check(json!({}), "spec.mutations: Required value: mutations must contain at least one item");
    let of = |mutation: Value| json!({"mutations": [mutation]});
    let at = "spec.mutations[0]";
    check(
        of(merged("1")),
        &format!("{at}.applyConfiguration.expression: Invalid value: \"1\": must evaluate to Object"),
    );
    check(
        of(patched("Object{}")),
        &format!("{at}.jsonPatch.expression: Invalid value: \"Object{{}}\": must evaluate to"),
    );
    check(of(merged("Object{")), "compilation failed: ERROR: <input>:1:8: Syntax error");
    check(of(json!({"patchType": "Merge"})), &format!("{at}.patchType: Unsupported value: \"Merge\""));
    check(of(json!({"patchType": "JSONPatch"})), &format!("{at}.jsonPatch: Required value"));
    let deletes = json!({"mutations": [merged("Object{}")], "matchConstraints": {"resourceRules": [{"apiGroups": ["*"],
        "apiVersions": ["*"], "operations": ["DELETE"], "resources": ["*"]}]}});
    check(deletes, "resourceRules[0].operations[0]: Unsupported value: \"DELETE\"");
}
