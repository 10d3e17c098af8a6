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
