use super::{Schema, check};
use serde_json::{Value, json};

/// A schema with rules for its `spec`.
fn schema(rules: Value) -> Value {
    json!({"type": "object", "properties": {"spec": {"type": "object", "x-kubernetes-validations": rules, "properties": {
        "min": {"type": "integer"}, "max": {"type": "integer"}, "name": {"type": "string"},
        "namespace": {"type": "string"}, "size": {"x-kubernetes-int-or-string": true}, "memory": {"type": "string"},
        "labels": {"type": "object", "additionalProperties": {"type": "string"}},
        "hosts": {"type": "array", "items": {"type": "string"}},
        "ports": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
            "items": {"type": "object", "required": ["name"], "properties": {
                "name": {"type": "string"}, "number": {"type": "integer",
                    "x-kubernetes-validations": [{"rule": "self == oldSelf", "message": "number is immutable"}]}}}}}}}})
}

fn errors_of(schema: &Value, new: Value, old: Option<Value>) -> Vec<String> {
    let mut errors = Vec::new();
    check(schema, "s", &mut errors);
    assert_eq!(errors, []);
    let whole = |spec: Value| json!({"spec": spec});
    Schema::parse(schema).validate(&whole(new), old.map(whole).as_ref(), &mut errors);
    errors.iter().map(ToString::to_string).collect()
}

#[track_caller]
fn broken(rule: Value, new: Value, want: &[&str]) {
    assert_eq!(errors_of(&schema(json!([rule])), new.clone(), None), want, "{rule} {new}");
}

#[track_caller]
fn changed(rule: Value, old: Value, new: Value, want: &[&str]) {
    assert_eq!(errors_of(&schema(json!([rule])), new.clone(), Some(old.clone())), want, "{rule} {old} {new}");
}

#[test]
fn rules_that_do_not_hold_are_told_in_kubernetes_words() {
    let rule = json!({"rule": "self.min <= self.max"});
    broken(rule.clone(), json!({"min": 1, "max": 2}), &[]);
    broken(
        rule.clone(),
        json!({"min": 3, "max": 2}),
        &["spec: Invalid value: \"object\": failed rule: self.min <= self.max"],
    );
    broken(
        rule,
        json!({"min": 3}),
        &["spec: Invalid value: \"object\": no such key: max evaluating rule: self.min <= self.max"],
    );
    broken(
        json!({"rule": "self.min <= self.max", "message": "min is above max", "reason": "FieldValueForbidden", "fieldPath": ".min"}),
        json!({"min": 3, "max": 2}),
        &["spec.min: Forbidden: min is above max"],
    );
    broken(
        json!({"rule": "self.min <= self.max", "messageExpression": "'%d is above %d'.format([self.min, self.max])"}),
        json!({"min": 3, "max": 2}),
        &["spec: Invalid value: \"object\": 3 is above 2"],
    );
    broken(
        json!({"rule": "self.size == 1 || self.size.endsWith('%')"}),
        json!({"size": 2}),
        &["spec: Invalid value: \"object\": 'no such overload': call arguments did not match a supported operator, \
           function or macro signature for rule: self.size == 1 || self.size.endsWith('%')"],
    );
    broken(
        json!({"rule": "self.__namespace__ == 'a' && self.labels.all(k, k.size() > 1)"}),
        json!({"namespace": "a", "labels": {"ab": "c"}}),
        &[],
    );
    broken(json!({"rule": "quantity(self.memory).isLessThan(quantity('1Gi'))"}), json!({"memory": "512Mi"}), &[]);
    broken(
        json!({"rule": "self.hosts.all(h, !format.dns1123Subdomain().validate(h).hasValue())"}),
        json!({"hosts": ["a.b", "A"]}),
        &[
            "spec: Invalid value: \"object\": failed rule: self.hosts.all(h, !format.dns1123Subdomain().validate(h).hasValue())",
        ],
    );
    broken(
        json!({"rule": "true"}),
        json!({"min": "x"}),
        &[
            "spec.min: Invalid value: \"string\": spec.min in body must be of type integer: \"string\"",
            "<nil>: Invalid value: \"null\": some validation rules were not checked because the object was invalid; \
             correct the existing errors to complete validation",
        ],
    );
}

#[test]
fn rules_may_compare_with_what_was() {
    let rule = json!({"rule": "self.name == oldSelf.name", "message": "name is immutable"});
    broken(rule.clone(), json!({"name": "a"}), &[]);
    changed(
        rule.clone(),
        json!({"name": "a"}),
        json!({"name": "b"}),
        &["spec: Invalid value: \"object\": name is immutable"],
    );
    changed(rule, json!({"name": "a"}), json!({"name": "a", "min": 1}), &[]);
    let optional = json!({"rule": "oldSelf.hasValue() || self.min == 1", "optionalOldSelf": true, "message": "m"});
    broken(optional.clone(), json!({"min": 2}), &["spec: Invalid value: \"object\": m"]);
    changed(optional, json!({"min": 1}), json!({"min": 2}), &[]);
    let ports = |one: i64, two: i64| json!({"ports": [{"name": "two", "number": two}, {"name": "one", "number": one}]});
    let (true_, old) = (json!({"rule": "true"}), json!({"ports": [{"name": "one", "number": 1}]}));
    changed(true_.clone(), old.clone(), ports(1, 2), &[]);
    changed(true_, old, ports(3, 2), &["spec.ports[1].number: Invalid value: \"integer\": number is immutable"]);
}

/// KEP-4008.
#[test]
fn what_has_not_changed_is_not_reported() {
    let rule = json!({"rule": "!has(self.name) || self.name == 'a'"});
    let bad = json!({"name": "b"});
    changed(rule.clone(), bad.clone(), bad.clone(), &[]);
    changed(
        rule,
        bad,
        json!({"name": "b", "min": 1}),
        &["spec: Invalid value: \"object\": failed rule: !has(self.name) || self.name == 'a'"],
    );
    let limited = json!({"type": "object", "properties": {"spec": {"type": "object", "properties": {
        "name": {"type": "string", "maxLength": 1, "x-kubernetes-validations": [{"rule": "self != 'b'"}]},
        "hosts": {"type": "array", "items": {"type": "string", "maxLength": 1}}, "min": {"type": "integer"}}}}});
    let check = |old: Value, new: Value, want: &[&str]| assert_eq!(errors_of(&limited, new, Some(old)), want);
    check(json!({"name": "long"}), json!({"name": "long", "min": 1}), &[]);
    check(json!({"name": "b"}), json!({"name": "b", "min": 1}), &[]);
    check(
        json!({"name": "a"}),
        json!({"name": "b"}),
        &["spec.name: Invalid value: \"string\": failed rule: self != 'b'"],
    );
    check(json!({"hosts": ["long"]}), json!({"hosts": ["long"], "min": 1}), &[]);
    check(
        json!({"hosts": ["long"]}),
        json!({"hosts": ["long", "a"]}),
        &[
            "spec.hosts[0]: Too long: may not be more than 1 bytes",
            "<nil>: Invalid value: \"null\": some validation rules were not checked because the object was invalid; \
         correct the existing errors to complete validation",
        ],
    );
}

#[test]
fn rules_have_a_limit() {
    let long = "self.hosts.all(a, self.hosts.all(b, self.hosts.all(c, a + b + c != '')))";
    let hosts = json!({"hosts": vec!["h"; 200]});
    let want = format!(
        "spec: Invalid value: \"object\": 'operation cancelled: actual cost limit exceeded': no further validation \
         rules will be run due to call cost exceeds limit for rule: {long}"
    );
    assert_eq!(errors_of(&schema(json!([{"rule": long}, {"rule": "false"}])), hosts.clone(), None), [want]);
    let rules = vec![json!({"rule": "self.hosts.all(a, self.hosts.all(b, a + b != ''))"}); 100];
    let want = "spec: Invalid value: \"object\": validation failed due to running out of cost budget, no further \
                validation rules will be run";
    assert_eq!(errors_of(&schema(json!(rules)), hosts, None), [want]);
}

#[test]
fn rules_that_are_wrong_are_refused_with_their_definition() {
    let check = |rule: Value, want: &str| {
        let mut errors = Vec::new();
        check(&schema(json!([rule])), "s", &mut errors);
        let errors: Vec<String> = errors.iter().map(ToString::to_string).collect();
        let path = "s.properties[spec].x-kubernetes-validations[0]";
        assert_eq!(errors, [format!("{path}{want}")], "{rule}");
    };
    let go = |rule: &str| {
        format!(
            "apiextensions.ValidationRule{{Rule:{rule:?}, Message:\"\", MessageExpression:\"\", \
             Reason:(*apiextensions.FieldValueErrorReason)(nil), FieldPath:\"\", OptionalOldSelf:(*bool)(nil)}}"
        )
    };
    check(
        json!({"rule": "self.mim <= 1"}),
        &format!(
            ".rule: Invalid value: {}: compilation failed: ERROR: <input>:1:5: undefined field 'mim'\n | self.mim <= 1\n | ....^",
            go("self.mim <= 1")
        ),
    );
    check(
        json!({"rule": "self.min"}),
        &format!(".rule: Invalid value: {}: cel expression must evaluate to a bool", go("self.min")),
    );
    check(json!({"rule": " "}), ".rule: Required value: rule is not specified");
    check(
        json!({"rule": "true\n&& true"}),
        ".message: Required value: message must be specified if rule contains line breaks",
    );
    check(
        json!({"rule": "true", "message": " "}),
        ".message: Invalid value: \" \": message must be non-empty if specified",
    );
    check(
        json!({"rule": "true", "fieldPath": ".x"}),
        ".fieldPath: Invalid value: \".x\": fieldPath must be a valid path",
    );
    check(
        json!({"rule": "true", "reason": "Whim"}),
        ".reason: Unsupported value: \"Whim\": supported values: \
        \"FieldValueDuplicate\", \"FieldValueForbidden\", \"FieldValueInvalid\", \"FieldValueRequired\"",
    );
    check(
        json!({"rule": "true", "optionalOldSelf": true}),
        ".optionalOldSelf: Invalid value: true: may not be set if oldSelf is not used in rule",
    );
    let schema = json!({"type": "object", "properties": {"l": {"type": "array", "items": {"type": "string",
        "x-kubernetes-validations": [{"rule": "self == oldSelf"}]}}}});
    let mut errors = Vec::new();
    super::check(&schema, "s", &mut errors);
    assert_eq!(
        errors[0].to_string(),
        "s.properties[l].items.x-kubernetes-validations[0].rule: Invalid value: \
        \"self == oldSelf\": oldSelf cannot be used on the uncorrelatable portion of the schema within s.properties[l]"
    );
}
