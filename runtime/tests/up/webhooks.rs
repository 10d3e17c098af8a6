//! Admission webhooks that listen on this machine; what they are made of serves other webhooks too.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::sync::{Arc, Mutex};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::{Value, json};

use crate::client::Cluster;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const CONFIGURATIONS: &str = "/apis/admissionregistration.k8s.io/v1";

/// A webhook that answers with what a function makes of the question.
pub struct Webhook {
    port: u16,
    /// Its authority's certificate, base64 of PEM.
    ca: String,
    /// The questions, in the order in which they came.
    pub asked: Arc<Mutex<Vec<Value>>>,
}

/// Who a server on this machine is.
pub struct Identity {
    /// Its authority's certificate, base64 of PEM.
    pub ca: String,
    pub chain: Vec<CertificateDer<'static>>,
    pub key: PrivateKeyDer<'static>,
}

/// An identity of this machine, and of the Service `hook` in the namespace `default`.
pub fn identity() -> Identity {
    let mut authority = CertificateParams::default();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca_key = KeyPair::generate().expect("keys can be made");
    let ca = authority.self_signed(&ca_key).expect("it can be signed");
    let issuer = Issuer::new(authority, ca_key);
    let key = KeyPair::generate().expect("keys can be made");
    let names = vec!["127.0.0.1".to_owned(), "hook.default.svc".to_owned()];
    let own = CertificateParams::new(names).expect("these are names").signed_by(&key, &issuer);
    let chain = vec![own.expect("it can be signed").der().clone()];
    Identity { ca: STANDARD.encode(ca.pem()), chain, key: PrivateKeyDer::Pkcs8(key.serialize_der().into()) }
}

impl Webhook {
    pub fn start(answer: impl Fn(&Value) -> Value + Send + 'static) -> Webhook {
        let Identity { ca, chain, key } = identity();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let config = config.expect("versions are known").with_no_client_auth();
        let config = Arc::new(config.with_single_cert(chain, key).expect("they belong together"));
        let listener = TcpListener::bind("127.0.0.1:0").expect("there is a free port");
        let port = listener.local_addr().expect("it is bound").port();
        let asked: Arc<Mutex<Vec<Value>>> = Arc::default();
        let heard = Arc::clone(&asked);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let connection = ServerConnection::new(Arc::clone(&config)).expect("TLS can be set up");
                let stream = StreamOwned::new(connection, stream.expect("it connects"));
                let Some((mut stream, _, question)) = read(stream) else { continue };
                let body = answer(&question["request"]).to_string();
                heard.lock().expect("nobody panics").push(question["request"].clone());
                let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
                let _ = stream.write_all(format!("{head}{body}").as_bytes()).and_then(|()| stream.flush());
            }
        });
        Webhook { port, ca, asked }
    }

    pub fn url(&self) -> Value {
        json!({"url": format!("https://127.0.0.1:{}/ask", self.port), "caBundle": self.ca})
    }
}

/// Reads a request: its first line and its body. `None` if the client does not trust the certificate.
pub fn read<S: Read + Write>(stream: S) -> Option<(S, String, Value)> {
    let mut reader = BufReader::new(stream);
    let (mut first, mut line, mut length) = (String::new(), String::new(), 0);
    reader.read_line(&mut first).ok()?;
    loop {
        line.clear();
        reader.read_line(&mut line).ok()?;
        match line.trim_end().split_once(':') {
            Some((name, value)) if name.eq_ignore_ascii_case("content-length") => length = value.trim().parse().ok()?,
            _ if line.trim_end().is_empty() => break,
            _ => {}
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some((reader.into_inner(), first, serde_json::from_slice(&body).ok()?))
}

fn review(request: &Value, more: Value) -> Value {
    let mut response = json!({"uid": request["uid"], "allowed": true});
    for (name, value) in more.as_object().expect("an object") {
        response[name] = value.clone();
    }
    json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response})
}

fn configure(cluster: &Cluster, kind: &str, client: Value, rule: Value) {
    let body = json!({"metadata": {"name": "hook"}, "webhooks": [{"name": "hook.example.com", "clientConfig": client,
        "rules": [rule], "sideEffects": "None", "admissionReviewVersions": ["v1"], "timeoutSeconds": 5}]});
    cluster.create(&format!("{CONFIGURATIONS}/{kind}webhookconfigurations"), &body);
}

fn rule(group: &str, resource: &str) -> Value {
    json!({"operations": ["CREATE", "UPDATE", "DELETE"], "apiGroups": [group], "apiVersions": ["*"],
        "resources": [resource]})
}

#[test]
fn a_webhook_refuses_what_it_does_not_like() {
    let cluster = Cluster::start("webhook-validates", &["--nodes", "0"]);
    let hook = Webhook::start(|request| match request["object"]["data"]["k"].as_str() {
        Some("bad") => review(request, json!({"allowed": false, "status": {"code": 403, "message": "it is bad"}})),
        _ => review(request, json!({"warnings": ["careful"]})),
    });
    configure(&cluster, "validating", hook.url(), rule("", "configmaps"));
    let map = |name: &str, value: &str| json!({"metadata": {"name": name}, "data": {"k": value}});
    let refused = cluster.write("POST", MAPS, &map("a", "bad"));
    let why = "admission webhook \"hook.example.com\" denied the request: it is bad";
    assert_eq!((refused.code, refused.json()["message"].as_str()), (403, Some(why)));
    let made = cluster.write("POST", MAPS, &map("a", "good"));
    assert_eq!((made.code, made.header("warning")), (201, Some("299 - \"careful\"")));
    let changed = cluster.write("PATCH", &format!("{MAPS}/a"), &json!({"data": {"k": "bad"}}));
    assert_eq!(changed.code, 403);
    assert_eq!(cluster.send("DELETE", &format!("{MAPS}/a"), &[], b"").code, 200);
    let asked = hook.asked.lock().expect("nobody panics");
    let operations: Vec<_> = asked.iter().map(|request| request["operation"].as_str().unwrap()).collect();
    assert_eq!(operations, ["CREATE", "CREATE", "UPDATE", "DELETE"]);
    assert_eq!(asked[0]["userInfo"]["username"], "kubernetes-admin");
    assert_eq!(asked[2]["oldObject"]["data"]["k"], "good");
}

#[test]
fn a_webhook_changes_pods_and_custom_objects() {
    let cluster = Cluster::start("webhook-mutates", &["--nodes", "1"]);
    let patch = |operations: Value| json!({"patchType": "JSONPatch", "patch": STANDARD.encode(operations.to_string())});
    let hook = Webhook::start(move |request| match request["operation"].as_str() {
        Some("CREATE") => {
            let label = json!([{"op": "add", "path": "/metadata/labels", "value": {"from": "hook"}}]);
            review(request, patch(label))
        }
        _ => review(request, json!({})),
    });
    let definition = json!({"metadata": {"name": "widgets.example.com"}, "spec": {"group": "example.com",
        "scope": "Namespaced", "names": {"plural": "widgets", "kind": "Widget"}, "versions": [{"name": "v1",
            "served": true, "storage": true, "schema": {"openAPIV3Schema": {"type": "object",
                "properties": {"spec": {"type": "object", "properties": {"size": {"type": "integer"}}}}}}}]}});
    cluster.create("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", &definition);
    let widgets = "/apis/example.com/v1/namespaces/default/widgets";
    cluster.wait_for("widgets are served", || cluster.get(widgets).code == 200);
    configure(&cluster, "mutating", hook.url(), rule("*", "*"));
    let widget = cluster.create(
        widgets,
        &json!({"metadata": {"name": "w"}, "spec": {"size": 1}, "kind": "Widget",
        "apiVersion": "example.com/v1"}),
    );
    assert_eq!(widget["metadata"]["labels"], json!({"from": "hook"}));
    cluster.wait_for("there is an account", || {
        cluster.get("/api/v1/namespaces/default/serviceaccounts/default").code == 200
    });
    let pods = "/api/v1/namespaces/default/pods";
    let body = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    assert_eq!(cluster.create(pods, &body)["metadata"]["labels"], json!({"from": "hook"}));
    cluster.wait_for("it runs", || cluster.get(&format!("{pods}/p")).json()["status"]["phase"] == "Running");
    let own = format!("{CONFIGURATIONS}/mutatingwebhookconfigurations/hook");
    assert_eq!(cluster.send("DELETE", &own, &[], b"").code, 200);
    let plain = cluster.create(MAPS, &json!({"metadata": {"name": "a"}}));
    assert_eq!(plain["metadata"]["labels"], Value::Null);
}

#[test]
fn a_webhook_refuses_evictions() {
    let cluster = Cluster::start("webhook-evictions", &["--nodes", "0"]);
    let hook = Webhook::start(|request| match request["object"]["kind"].as_str() {
        Some("Eviction") => review(request, json!({"allowed": false, "status": {"code": 429, "message": "not now"}})),
        _ => review(request, json!({})),
    });
    configure(&cluster, "validating", hook.url(), rule("", "pods/eviction"));
    cluster.wait_for("there is an account", || {
        cluster.get("/api/v1/namespaces/default/serviceaccounts/default").code == 200
    });
    let pods = "/api/v1/namespaces/default/pods";
    cluster.create(pods, &json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i"}]}}));
    let eviction = json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "p"}});
    let refused = cluster.write("POST", &format!("{pods}/p/eviction"), &eviction);
    let why = "admission webhook \"hook.example.com\" denied the request: not now";
    assert_eq!((refused.code, refused.json()["message"].as_str()), (429, Some(why)));
    assert_eq!(cluster.get(&format!("{pods}/p")).json()["metadata"]["deletionTimestamp"], Value::Null);
}

#[test]
fn a_webhook_refuses_connections() {
    let cluster = Cluster::start("webhook-connections", &["--nodes", "0"]);
    let hook = Webhook::start(|request| review(request, json!({"allowed": false, "status": {"message": "not there"}})));
    let connections = json!({"operations": ["CONNECT"], "apiGroups": [""], "apiVersions": ["v1"],
        "resources": ["pods/exec", "services/proxy", "nodes/proxy"]});
    configure(&cluster, "validating", hook.url(), connections);
    let namespace = "/api/v1/namespaces/default";
    let refused = |path: &str| cluster.get(path).json()["message"].as_str().unwrap_or_default().to_owned();
    let why = "admission webhook \"hook.example.com\" denied the request: not there";
    assert_eq!(refused(&format!("{namespace}/pods/p/exec?command=ls")), why);
    assert_eq!(refused(&format!("{namespace}/services/s:80/proxy/a%20b/")), why);
    assert_eq!(refused("/api/v1/nodes/n/proxy/healthz"), why);
    assert_eq!(refused(&format!("{namespace}/pods/p/log")), "pods \"p\" not found", "logs are read");
    let asked = hook.asked.lock().expect("nobody panics");
    let of: Vec<_> = asked.iter().map(|request| (request["name"].clone(), request["object"].clone())).collect();
    let exec = json!({"apiVersion": "v1", "kind": "PodExecOptions", "command": ["ls"]});
    let service = json!({"apiVersion": "v1", "kind": "ServiceProxyOptions", "path": "/a b/"});
    let node = json!({"apiVersion": "v1", "kind": "NodeProxyOptions", "path": "/healthz"});
    assert_eq!(of, [(json!("p"), exec), (json!("s:80"), service), (json!("n"), node)]);
}

#[test]
fn a_webhook_that_is_missed_is_said_to_be() {
    let cluster = Cluster::start("webhook-missed", &["--nodes", "0"]);
    let hook = Webhook::start(|request| review(request, json!({})));
    let service = json!({"namespace": "default", "name": "hook", "path": "/ask", "port": 8443});
    configure(&cluster, "validating", json!({"service": service, "caBundle": hook.ca}), rule("", "configmaps"));
    let check = |why: &str| {
        let answer = cluster.write("POST", MAPS, &json!({"metadata": {"name": "a"}}));
        let message = answer.json()["message"].as_str().unwrap_or_default().to_owned();
        let failed =
            "Internal error occurred: failed calling webhook \"hook.example.com\": failed to call webhook: Post";
        assert!(answer.code == 500 && message.starts_with(failed) && message.contains(why), "{message}");
    };
    check("\"https://hook.default.svc:8443/ask?timeout=5s\": service \"hook\" not found");
    let ports = json!([{"port": 8443, "targetPort": hook.port}]);
    let body = json!({"metadata": {"name": "hook"}, "spec": {"ports": ports}});
    cluster.create("/api/v1/namespaces/default/services", &body);
    check("no endpoints available for service \"hook\"");
    let path = format!("{CONFIGURATIONS}/validatingwebhookconfigurations/hook");
    let own = |client: &Value| {
        let mut held = cluster.get(&path).json();
        held["webhooks"][0]["clientConfig"] = client.clone();
        assert_eq!(cluster.write("PUT", &path, &held).code, 200);
    };
    let mut stranger = hook.url();
    stranger["caBundle"] = json!("");
    own(&stranger);
    check("tls: invalid peer certificate: UnknownIssuer");
    own(&json!({"url": "https://127.0.0.1:1/", "caBundle": hook.ca}));
    check("Connection refused");
    own(&hook.url());
    cluster.create(MAPS, &json!({"metadata": {"name": "a"}}));
}
