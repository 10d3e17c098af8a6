//! Malformed requests to `skeg up`: each gets a `Status` with the right code.

use std::fmt::Write;

use serde_json::{Value, json};

use crate::client::Cluster;

const PODS: &str = "/api/v1/namespaces/default/pods";
const MAPS: &str = "/api/v1/namespaces/default/configmaps";

#[test]
fn nonsense_gets_a_status() {
    let cluster = Cluster::start("nonsense", &["--nodes", "0"]);
    let deep = format!("{{\"metadata\":{}1{}}}", "{\"a\":".repeat(3000), "}".repeat(3000));
    let large = json!({"metadata": {"name": "a", "annotations": {"a": "x".repeat(10 << 20)}}}).to_string();
    let annotated = json!({"metadata": {"name": "a", "annotations": {"a": "x".repeat(300 << 10)}}}).to_string();
    let mut bomb = "a: &x0 [a, a, a, a]\n".to_owned();
    for i in 0..12 {
        writeln!(bomb, "b{i}: &x{} [*x{i}, *x{i}, *x{i}, *x{i}]", i + 1).expect("strings take all");
    }
    let copies: Vec<Value> = (0..20_000).map(|_| json!({"op": "copy", "from": "/data", "path": "/data/x"})).collect();
    let copies = Value::from(copies).to_string();
    cluster.create(MAPS, &json!({"metadata": {"name": "m"}, "data": {"k": "v"}}));
    let m = &*format!("{MAPS}/m");
    let json = "application/json";
    let merge = "application/merge-patch+json";
    let cases: Vec<(&str, &str, &str, &str, u16)> = vec![
        ("GET", "/api/v1/nothing", json, "", 404),
        ("GET", "/nothing", json, "", 404),
        ("GET", "/api/v1/namespaces/..%2f..%2fx/pods", json, "", 400),
        ("GET", "/api/v1/namespaces/default/pods/%2e%2e", json, "", 400),
        ("GET", "/api/v1/namespaces/default/pods/a%00b", json, "", 400),
        ("TRACE", PODS, json, "", 405),
        ("POST", "/api/v1/namespaces/default/pods/p", json, "{}", 405),
        ("PUT", PODS, json, "{}", 405),
        ("POST", PODS, json, "", 400),
        ("POST", PODS, json, "{", 400),
        ("POST", PODS, json, "[]", 400),
        ("POST", PODS, json, "null", 400),
        ("POST", PODS, json, &deep, 400),
        ("POST", MAPS, json, &large, 413),
        ("POST", MAPS, json, &annotated, 422),
        ("POST", PODS, "text/html", "{}", 415),
        ("POST", PODS, "application/yaml", &bomb, 400),
        ("POST", PODS, json, r#"{"kind":"Service","apiVersion":"v1"}"#, 400),
        ("POST", PODS, json, r#"{"kind":"Pod","apiVersion":"v9"}"#, 400),
        ("POST", PODS, json, r#"{"metadata":{"name":"p","namespace":"other"}}"#, 400),
        ("POST", PODS, json, r#"{"metadata":{"name":"p"},"spec":{"containers":"none"}}"#, 400),
        ("POST", PODS, json, r#"{"metadata":{"name":"UPPER"},"spec":{"containers":[{"name":"c","image":"i"}]}}"#, 422),
        ("PUT", m, json, r#"{"metadata":{"name":"m","resourceVersion":"abc"}}"#, 400),
        ("PUT", m, json, r#"{"metadata":{"name":"other"}}"#, 400),
        ("PATCH", m, json, "{}", 415),
        ("PATCH", m, merge, r#"{"metadata":{"resourceVersion":"abc"}}"#, 400),
        ("PATCH", m, merge, "{", 400),
        ("PATCH", m, "application/json-patch+json", &copies, 413),
        ("PATCH", m, "application/json-patch+json", r#"[{"op":"test","path":"/data/k","value":"w"}]"#, 422),
        ("DELETE", m, json, r#"{"propagationPolicy":"Sometimes"}"#, 422),
        ("DELETE", m, json, r#"{"preconditions":{"resourceVersion":"abc"}}"#, 400),
        ("DELETE", m, json, r#"{"preconditions":{"uid":"abc"}}"#, 409),
        ("GET", "/api/v1/pods?resourceVersion=abc", json, "", 422),
        ("GET", "/api/v1/pods?continue=%25", json, "", 400),
        ("GET", "/api/v1/pods?fieldSelector=spec.nothing%3Da", json, "", 400),
        ("GET", "/api/v1/pods?resourceVersionMatch=Exact", json, "", 422),
        ("POST", "/api/v1/namespaces/default/configmaps?dryRun=Some", json, "{}", 422),
        ("POST", "/api/v1/namespaces/default/configmaps?fieldValidation=Lax", json, "{}", 422),
    ];
    for (method, path, content_type, body, code) in cases {
        let answer = cluster.send(method, path, &[("Content-Type", content_type)], body.as_bytes());
        let shown = format!("{method} {path} {}: {}", &body[..body.len().min(80)], answer.text());
        assert_eq!(answer.code, code, "{shown}");
        assert_eq!((&answer.json()["kind"], &answer.json()["code"]), (&json!("Status"), &json!(code)), "{shown}");
    }
    let unchanged = cluster.get(m).json();
    assert_eq!(unchanged["data"], json!({"k": "v"}), "nothing of all this was written");
    let refused = cluster.send("GET", PODS, &[("Accept", "text/html")], b"");
    assert_eq!(refused.code, 406);
}

#[test]
fn unknown_fields_are_dropped_warned_of_or_refused() {
    let cluster = Cluster::start("unknown-fields", &["--nodes", "0"]);
    let body = |name: &str| json!({"metadata": {"name": name}, "data": {"a": "b"}, "dat": {}});
    let post = |name: &str, validation: &str| {
        cluster.write("POST", &format!("{MAPS}?fieldValidation={validation}"), &body(name))
    };
    assert_eq!((post("a", "Ignore").code, post("b", "Ignore").header("warning")), (201, None));
    let warned = post("c", "Warn");
    assert_eq!((warned.code, warned.header("warning")), (201, Some("299 - \"unknown field \\\"dat\\\"\"")));
    let refused = post("d", "Strict");
    assert_eq!(refused.code, 400);
    let message = refused.json()["message"].as_str().unwrap_or_default().to_owned();
    assert!(message.ends_with("strict decoding error: unknown field \"dat\""), "{message}");
}
