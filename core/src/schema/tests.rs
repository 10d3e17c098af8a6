use serde_json::{Value, json};

use super::{ListType, Scalar, Schema, Shape, Type, builtin, builtin_kind};
use crate::object::{Kind, Verbs};

fn at<'a>(mut of: Type<'a>, path: &str) -> Type<'a> {
    for name in path.split('.').filter(|n| !n.is_empty()) {
        of = match name {
            "[]" => of.items().unwrap_or_else(|| panic!("{path}: {of:?} has no items")),
            name => of.field(name).unwrap_or_else(|| panic!("{path}: {of:?} has no field {name}")),
        };
    }
    of
}

fn keys(of: Type<'_>) -> Vec<&str> {
    match of.shape() {
        Shape::List(_, ListType::Map(keys)) => keys.iter().map(|k| &**k).collect(),
        _ => Vec::new(),
    }
}

#[test]
fn every_kind_of_the_registry_is_in_the_table() {
    for kind in Kind::all() {
        let info = kind.row();
        let of = builtin_kind(&info.api_version(), &info.kind).unwrap_or_else(|| panic!("{kind}"));
        let message = of.message().unwrap();
        assert!(message.is_kind, "{kind}");
        // Reviews and bindings can only be created, so they have no list type.
        let list = builtin_kind(&info.api_version(), &format!("{}List", info.kind));
        assert_eq!(list.map(|list| at(list, "items.[]")), (info.verbs != Verbs::Create).then_some(of), "{kind}");
        assert_eq!(format!("{:?}", at(of, "metadata")), "ObjectMeta", "{kind}");
    }
}

#[test]
fn types_lead_to_types() {
    let pod = builtin_kind("v1", "Pod").unwrap();
    let cases = [
        ("apiVersion", "String"),
        ("spec.containers", "[]Container"),
        ("spec.containers.[].resources.limits", "{}Quantity"),
        ("spec.containers.[].livenessProbe.httpGet.port", "IntOrString"),
        ("spec.volumes.[].configMap.name", "String"),
        ("spec.ephemeralContainers.[].env.[].valueFrom", "EnvVarSource"),
        ("metadata.creationTimestamp", "Time"),
        ("metadata.managedFields.[].fieldsV1.anything.[].goes", "Any"),
        ("metadata.labels.x", "String"),
    ];
    for (path, want) in cases {
        assert_eq!(format!("{:?}", at(pod, path)), want, "{path}");
    }
    assert_eq!(pod.field("nope"), None);
    assert_eq!(at(pod, "spec.containers.[]").field("nope"), None);
    let review = builtin_kind("authentication.k8s.io/v1", "TokenReview").unwrap();
    assert_eq!(format!("{:?}", at(review, "status.user.extra.x.[]")), "String");
    assert!(builtin_kind("policy/v1", "DeleteOptions").is_some());
    assert!(builtin_kind("v1", "Nope").is_none());
}

/// For some lists, server-side apply uses more keys than strategic merge.
#[test]
fn merge_keys_and_map_keys_are_told_apart() {
    let cases = [
        ("v1", "Pod", "spec.containers.[]", "ports", "containerPort", &["containerPort", "protocol"][..]),
        ("v1", "Pod", "spec.ephemeralContainers.[]", "ports", "containerPort", &["containerPort", "protocol"]),
        ("v1", "Service", "spec", "ports", "port", &["port", "protocol"]),
        ("v1", "Pod", "spec", "topologySpreadConstraints", "topologyKey", &["topologyKey", "whenUnsatisfiable"]),
        ("v1", "Pod", "spec", "containers", "name", &["name"]),
        ("v1", "Pod", "metadata", "ownerReferences", "uid", &["uid"]),
        ("v1", "Pod", "metadata", "finalizers", "", &[]),
        ("v1", "Node", "status", "conditions", "type", &["type"]),
    ];
    for (version, kind, path, name, merge, map) in cases {
        let of = at(builtin_kind(version, kind).unwrap(), path);
        let field = of.message().unwrap().field(name).unwrap();
        assert_eq!(field.merge.by.as_deref(), Some(merge), "{kind} {path}.{name}");
        assert_eq!(keys(of.type_of(field)), map, "{kind} {path}.{name}");
    }
    let budget = at(builtin_kind("policy/v1", "PodDisruptionBudget").unwrap(), "spec");
    assert!(budget.message().unwrap().field("selector").unwrap().merge.replace);
    assert!(at(budget, "selector").is_atomic());
    let deployment = at(builtin_kind("apps/v1", "Deployment").unwrap(), "spec");
    assert!(deployment.message().unwrap().field("strategy").unwrap().merge.retain_keys);
    assert!(!at(deployment, "template").is_atomic());
    assert!(at(deployment, "template.spec.tolerations").is_atomic());
    assert!(at(deployment, "template.spec.nodeSelector").is_atomic());
    assert!(!at(deployment, "template.metadata.labels").is_atomic());
}

#[test]
fn a_bad_table_is_refused_by_line() {
    let head = "package a.v1 io.a.v1 a/v1\n";
    for (body, want) in [
        ("M\n x 1 Nope\n", "line 3: \" x 1 Nope\": a.v1.Nope: there is no such message"),
        ("M\n x 1 string burn\n", "line 3: \" x 1 string burn\": attribute \"burn\" is not known"),
        ("M\n x\n", "line 3: \" x\": a field has a number and a type"),
        ("M\n b 1 bool\n a 2 bool\n", "line 4: \" a 2 bool\": fields are not in order"),
        ("M\nM\n", "a.v1.M: twice"),
        ("M burn\n", "line 2: \"M burn\": flag \"burn\" is not known"),
    ] {
        assert_eq!(Schema::parse(&format!("{head}{body}")).unwrap_err(), want);
    }
}

fn widget() -> Value {
    json!({"type": "object", "properties": {
        "apiVersion": {"type": "string"}, "kind": {"type": "string"}, "metadata": {"type": "object"},
        "spec": {"type": "object", "required": ["size"], "properties": {
            "size": {"x-kubernetes-int-or-string": true},
            "count": {"type": "integer", "default": 1},
            "labels": {"type": "object", "additionalProperties": {"type": "string"}},
            "selector": {"type": "object", "x-kubernetes-map-type": "atomic", "properties": {"a": {"type": "string"}}},
            "tags": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}},
            "ports": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["port"],
                "items": {"type": "object", "properties": {"port": {"type": "integer"}}}},
            "open": {"type": "object", "x-kubernetes-preserve-unknown-fields": true,
                "properties": {"known": {"type": "object"}}},
            "pod": {"type": "object", "x-kubernetes-embedded-resource": true,
                "x-kubernetes-preserve-unknown-fields": true},
            "anything": {"x-kubernetes-preserve-unknown-fields": true},
        }},
    }})
}

#[test]
fn a_custom_resources_types_are_the_same_structure() {
    let schema = Schema::custom(&widget()).unwrap();
    let root = schema.root();
    let cases = [
        ("kind", "String"),
        ("metadata.labels", "{}String"),
        ("spec.size", "IntOrString"),
        ("spec.labels.x", "String"),
        ("spec.open.other.deep", "Any"),
        ("spec.anything.[].deep", "Any"),
        ("spec.pod.metadata.name", "String"),
        ("spec.pod.spec.x", "Any"),
        ("spec.ports.[].port", "Int64"),
    ];
    for (path, want) in cases {
        assert_eq!(format!("{:?}", at(root, path)), want, "{path}");
    }
    assert_eq!(keys(at(root, "spec.ports")), ["port"]);
    assert!(at(root, "spec.selector").is_atomic() && !at(root, "spec.tags").is_atomic());
    let spec = at(root, "spec").message().unwrap();
    assert!(spec.field("size").unwrap().required);
    assert_eq!(spec.field("count").unwrap().default, Some(json!(1)));
    assert_eq!(at(root, "spec").field("nope"), None);
    assert_eq!(at(root, "spec.open.known").field("nope"), None);
    assert!(matches!(Type::any().shape(), Shape::Scalar(Scalar::Any)));
}

#[test]
fn a_schema_that_is_none_is_refused() {
    for (schema, want) in [
        (json!({"properties": {"a": {"type": "burn"}}}), "openAPIV3Schema.properties[a].type: \"burn\" is not a type"),
        (
            json!({"properties": {"a": {"type": "array", "x-kubernetes-list-type": "burn"}}}),
            "openAPIV3Schema.properties[a].x-kubernetes-list-type: \"burn\" is not a list type",
        ),
    ] {
        assert_eq!(Schema::custom(&schema).unwrap_err(), want);
    }
    let mut deep = json!({"type": "string"});
    for _ in 0..200 {
        deep = json!({"type": "object", "properties": {"x": deep}});
    }
    assert!(Schema::custom(&deep).unwrap_err().contains("nested more than"));
    assert!(matches!(builtin().messages().count(), 700..));
}
