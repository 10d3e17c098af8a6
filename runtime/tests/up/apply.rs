//! Protobuf in both directions, server-side apply, and checks of unknown fields.

use serde_json::{Value, json};
use skeg_core::protobuf;

use crate::client::{Answer, Cluster};

const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";
const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";
const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";

fn deployment(replicas: i32, more: Value) -> Value {
    let mut spec = json!({"replicas": replicas, "selector": {"matchLabels": {"app": "web"}},
        "template": {"metadata": {"labels": {"app": "web"}},
            "spec": {"containers": [{"name": "c", "image": "nginx:1"}]}}});
    spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}, "spec": spec})
}

fn apply(cluster: &Cluster, query: &str, body: &Value) -> Answer {
    let path = format!("{DEPLOYMENTS}/web?{query}");
    let headers = [("Content-Type", "application/apply-patch+yaml")];
    cluster.send("PATCH", &path, &headers, body.to_string().as_bytes())
}

#[test]
fn bodies_and_replies_may_be_protobuf() {
    let cluster = Cluster::start("protobuf", &["--nodes", "0"]);
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"k": "v"}});
    let body = protobuf::encode(&map).unwrap();
    let headers = [("Content-Type", PROTOBUF), ("Accept", "application/vnd.kubernetes.protobuf,application/json")];
    let made = cluster.send("POST", CONFIG_MAPS, &headers, &body);
    assert_eq!((made.code, made.header("content-type")), (201, Some(PROTOBUF)));
    let made = protobuf::decode(&made.body, None).unwrap();
    assert_eq!(made, cluster.get(&format!("{CONFIG_MAPS}/a")).json());
    assert_eq!(made["data"], json!({"k": "v"}));

    let list = protobuf::decode(&cluster.send("GET", CONFIG_MAPS, &headers[1..], b"").body, None).unwrap();
    assert_eq!(list["kind"], "ConfigMapList");
    assert!(list["items"].as_array().unwrap().iter().any(|i| i["metadata"]["name"] == "a"));
    let again = cluster.send("POST", CONFIG_MAPS, &headers, &body);
    let status = protobuf::decode(&again.body, None).unwrap();
    assert_eq!((again.code, &status["reason"]), (409, &json!("AlreadyExists")));

    let watch = cluster.send("GET", &format!("{CONFIG_MAPS}?watch=1&timeoutSeconds=1"), &headers[1..], b"");
    assert_eq!(watch.header("content-type"), Some("application/vnd.kubernetes.protobuf;stream=watch"));
    let length = u32::from_be_bytes(*watch.body.first_chunk().unwrap()) as usize;
    let of = skeg_core::schema::builtin_kind("v1", "WatchEvent").unwrap();
    let event = protobuf::decode_message(&watch.body[4..4 + length], of).unwrap();
    assert_eq!((&event["type"], &event["object"]["kind"]), (&json!("ADDED"), &json!("ConfigMap")));

    for (body, part) in [
        (&body[..body.len() - 1], "unexpected EOF"),
        (b"k8s\0".as_slice(), "does not match the expected kind"),
        (b"{}".as_slice(), "does not appear to be a protobuf message"),
    ] {
        let refused = cluster.send("POST", CONFIG_MAPS, &headers[..1], body);
        assert_eq!(refused.code, 400, "{}", refused.text());
        assert!(refused.json()["message"].as_str().unwrap().contains(part), "{}", refused.text());
    }
}

#[test]
fn fields_have_managers_and_an_apply_takes_them_over_by_force_only() {
    let cluster = Cluster::start("apply", &["--nodes", "0"]);
    let made = apply(&cluster, "fieldManager=one", &deployment(0, json!({"minReadySeconds": 3})));
    assert_eq!(made.code, 201, "{}", made.text());
    assert_eq!(made.json()["metadata"]["managedFields"][0]["manager"], "one");
    let again = apply(&cluster, "fieldManager=one", &deployment(0, json!({"minReadySeconds": 3})));
    assert_eq!(again.code, 200);
    assert_eq!(again.json()["metadata"]["generation"], 1, "nothing has changed");

    let conflict = apply(&cluster, "fieldManager=two", &deployment(2, json!({})));
    assert_eq!(conflict.code, 409);
    let message = "Apply failed with 1 conflict: conflict with \"one\": .spec.replicas";
    assert_eq!(conflict.json()["message"], message);
    let cause = &conflict.json()["details"]["causes"][0];
    assert_eq!((&cause["reason"], &cause["field"]), (&json!("FieldManagerConflict"), &json!(".spec.replicas")));
    let forced = apply(&cluster, "fieldManager=two&force=true", &deployment(2, json!({})));
    assert_eq!((forced.code, &forced.json()["spec"]["replicas"]), (200, &json!(2)));
    // A field that no manager applies any more is removed.
    let less = apply(&cluster, "fieldManager=one&force=true", &deployment(2, json!({})));
    assert_eq!(less.json()["spec"].get("minReadySeconds"), None, "{}", less.text());

    // Without `fieldManager`, the manager is the client's name in the user agent.
    let patch = [("Content-Type", "application/merge-patch+json"), ("User-Agent", "editor/1.0 (linux)")];
    let path = format!("{DEPLOYMENTS}/web");
    let edited = cluster.send("PATCH", &path, &patch, br#"{"spec":{"paused":true}}"#).json();
    let managers = edited["metadata"]["managedFields"].as_array().unwrap();
    let editor = managers.iter().find(|m| m["manager"] == "editor").expect("the editor manages what it wrote");
    assert_eq!(editor["fieldsV1"], json!({"f:spec": {"f:paused": {}}}));

    assert_eq!(apply(&cluster, "", &deployment(2, json!({}))).code, 422);
    assert_eq!(cluster.send("PATCH", &format!("{path}?force=true"), &patch, b"{}").code, 422);
    let other = apply(&cluster, "fieldManager=one", &json!({"apiVersion": "apps/v2", "kind": "Deployment"}));
    assert_eq!(other.code, 400, "{}", other.text());
}

#[test]
fn unknown_and_duplicate_fields_are_ignored_warned_of_or_refused() {
    let cluster = Cluster::start("validation", &["--nodes", "0"]);
    let create = |query: &str, name: &str| {
        let body = format!(r#"{{"metadata":{{"name":"{name}"}},"data":{{"a":"1","a":"2"}},"dta":{{}}}}"#);
        cluster.send("POST", &format!("{CONFIG_MAPS}?{query}"), &[], body.as_bytes())
    };
    let warnings = |answer: &Answer| -> Vec<String> {
        answer.headers.iter().filter(|(n, _)| n == "warning").map(|(_, v)| v.clone()).collect()
    };
    let warned = create("", "a");
    assert_eq!(warned.code, 201);
    assert_eq!(warnings(&warned), [r#"299 - "unknown field \"dta\"""#, r#"299 - "duplicate field \"data.a\"""#]);
    assert_eq!(warned.json()["data"], json!({"a": "2"}));
    let ignored = create("fieldValidation=Ignore", "b");
    assert_eq!((ignored.code, warnings(&ignored).len()), (201, 0));
    let strict = create("fieldValidation=Strict", "c");
    assert_eq!(strict.code, 400);
    let want = "ConfigMap in version \"v1\" cannot be handled as a ConfigMap: strict decoding error: unknown field \
                \"dta\", duplicate field \"data.a\"";
    assert_eq!(strict.json()["message"], want);
    let patch = |query: &str| cluster.write("PATCH", &format!("{CONFIG_MAPS}/a?{query}"), &json!({"dta": {}}));
    assert_eq!(warnings(&patch("")), [r#"299 - "unknown field \"dta\"""#]);
    assert_eq!(patch("fieldValidation=Strict").code, 422);
    assert_eq!(patch("fieldValidation=Lax").code, 422);

    let twice = |media_type: &str, body: &str| {
        let path = format!("{CONFIG_MAPS}/a?fieldManager=m&fieldValidation=Strict");
        let method = if media_type == "application/yaml" { "PUT" } else { "PATCH" };
        let answer = cluster.send(method, &path, &[("Content-Type", media_type)], body.as_bytes());
        (answer.code, answer.json()["message"].as_str().unwrap_or_default().to_owned())
    };
    let yaml = "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: a\ndata:\n  a: v\n  a: w\n";
    let line = "yaml: unmarshal errors:\n  line 7: key \"a\" already set in map";
    let (code, message) = twice("application/yaml", yaml);
    assert!(code == 400 && message.ends_with(&format!("strict decoding error: {line}")), "{message}");
    let want = format!("error strict decoding YAML: error converting YAML to JSON: {line}");
    assert_eq!(twice("application/apply-patch+yaml", yaml), (400, want));
    let (code, message) = twice("application/merge-patch+json", r#"{"data":{"a":"1","a":"2"}}"#);
    assert!(code == 422 && message.ends_with("strict decoding error: duplicate field \"data.a\""), "{message}");
}
