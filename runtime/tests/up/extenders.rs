//! The scheduler's extenders, which listen on this machine.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::{Value, json};

use crate::client::{Cluster, scratch};
use crate::webhooks::{Identity, identity, read};

const PODS: &str = "/api/v1/namespaces/default/pods";

/// An extender that answers with what a function makes of the path and the question: a code and a body.
struct Extender {
    port: u16,
    /// Its authority's certificate, base64 of PEM; empty where it speaks plain HTTP.
    ca: String,
    /// The questions, with their paths, in the order in which they came.
    asked: Arc<Mutex<Vec<(String, Value)>>>,
}

impl Extender {
    fn start(secure: bool, answer: impl Fn(&str, &Value) -> (u16, Value) + Send + 'static) -> Extender {
        let Identity { ca, chain, key } = identity();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let config = config.expect("versions are known").with_no_client_auth();
        let config = Arc::new(config.with_single_cert(chain, key).expect("they belong together"));
        let listener = TcpListener::bind("127.0.0.1:0").expect("there is a free port");
        let port = listener.local_addr().expect("it is bound").port();
        let asked: Arc<Mutex<Vec<(String, Value)>>> = Arc::default();
        let heard = Arc::clone(&asked);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let stream = stream.expect("it connects");
                if secure {
                    let connection = ServerConnection::new(Arc::clone(&config)).expect("TLS can be set up");
                    serve(StreamOwned::new(connection, stream), &heard, &answer);
                } else {
                    serve(stream, &heard, &answer);
                }
            }
        });
        Extender { port, ca: if secure { ca } else { String::new() }, asked }
    }

    fn count(&self, path: &str) -> usize {
        self.asked.lock().expect("nobody panics").iter().filter(|(asked, _)| asked == path).count()
    }
}

fn serve<S: Read + Write>(
    stream: S,
    heard: &Mutex<Vec<(String, Value)>>,
    answer: &dyn Fn(&str, &Value) -> (u16, Value),
) {
    let Some((mut stream, head, question)) = read(stream) else { return };
    let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
    let (code, body) = answer(&path, &question);
    heard.lock().expect("nobody panics").push((path, question));
    let body = body.to_string();
    let head = format!("HTTP/1.1 {code} Said\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
    let _ = stream.write_all(format!("{head}{body}").as_bytes()).and_then(|()| stream.flush());
}

/// A cluster of three nodes whose scheduler asks these extenders (YAML of their fields).
fn cluster(test: &str, extenders: &[String]) -> Cluster {
    let file = scratch(test).with_extension("yaml");
    let list: Vec<String> = extenders.iter().map(|extender| format!("- {{{extender}}}\n")).collect();
    let head = "apiVersion: kubescheduler.config.k8s.io/v1\nkind: KubeSchedulerConfiguration\nextenders:\n";
    std::fs::create_dir_all(file.parent().expect("it is in a directory")).expect("it can be made");
    std::fs::write(&file, format!("{head}{}", list.concat())).expect("it can be written");
    Cluster::start(test, &["--nodes", "3", "--scheduler-config", &file.to_string_lossy()])
}

fn pod(cluster: &Cluster, name: &str) {
    let body = json!({"metadata": {"name": name}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    cluster.create(PODS, &body);
}

fn node_of(cluster: &Cluster, pod: &str) -> Option<String> {
    cluster.get(&format!("{PODS}/{pod}")).json()["spec"]["nodeName"].as_str().map(str::to_owned)
}

/// The messages of the Events about a pod that give this reason.
fn events(cluster: &Cluster, pod: &str, reason: &str) -> Vec<String> {
    let all = cluster.get("/api/v1/namespaces/default/events").json();
    let all = all["items"].as_array().cloned().unwrap_or_default();
    let about = all.iter().filter(|e| e["involvedObject"]["name"] == pod && e["reason"] == reason);
    about.map(|e| e["message"].as_str().unwrap_or_default().to_owned()).collect()
}

#[test]
fn extenders_refuse_and_score_over_http_and_https() {
    let names = |question: &Value| question["NodeNames"].as_array().cloned().expect("it knows the nodes");
    let refuses = Extender::start(false, move |path, question| match path {
        // The scheduler sees the nodes become ready one by one, and tries again after a failure.
        "/e/filter" if names(question).len() < 3 => (500, json!({})),
        "/e/filter" => {
            let passed: Vec<Value> = names(question).into_iter().filter(|name| name != "node-0").collect();
            (200, json!({"NodeNames": passed, "FailedNodes": {"node-0": "it is not liked"}}))
        }
        path => panic!("{path}"),
    });
    let scores = Extender::start(true, |path, question| match path {
        "/rate" => {
            let nodes = question["Nodes"]["items"].as_array().expect("it knows no nodes");
            let host = |node: &Value| {
                let name = &node["metadata"]["name"];
                json!({"Host": name, "Score": if name == "node-2" { 10 } else { 0 }})
            };
            assert!(nodes.iter().all(|node| node["status"]["allocatable"].is_object()), "{question}");
            (200, nodes.iter().map(host).collect())
        }
        path => panic!("{path}"),
    });
    let (http, https, ca) = (refuses.port, scores.port, &scores.ca);
    let cluster = cluster(
        "extenders",
        &[
            format!("urlPrefix: 'http://127.0.0.1:{http}/e/', filterVerb: filter, nodeCacheCapable: true"),
            format!(
                "urlPrefix: 'https://127.0.0.1:{https}', prioritizeVerb: rate, weight: 100, tlsConfig: {{caData: {ca}}}"
            ),
        ],
    );
    pod(&cluster, "p");
    cluster.wait_for("the pod has a node", || node_of(&cluster, "p").is_some());
    assert_eq!(node_of(&cluster, "p").as_deref(), Some("node-2"));
    let asked = refuses.asked.lock().expect("nobody panics").clone();
    let of_all = asked.iter().filter(|(_, question)| names(question).len() == 3).count();
    assert_eq!((of_all, scores.count("/rate")), (1, 1), "{asked:?}");
    let asked = &asked[0].1;
    assert_eq!((&asked["Pod"]["metadata"]["name"], &asked["Nodes"]), (&json!("p"), &Value::Null));
}

#[test]
fn an_extender_binds_or_fails() {
    let fails = Arc::new(Mutex::new(true));
    let failing = Arc::clone(&fails);
    // Whoever serves the binding writes it: here the test does, when it has been asked.
    let binder = Extender::start(false, move |path, _| match path {
        "/filter" if *failing.lock().expect("nobody panics") => (500, json!({})),
        "/filter" => (200, json!({"NodeNames": ["node-1"]})),
        "/bind" => (200, json!({})),
        path => panic!("{path}"),
    });
    let verbs = "filterVerb: filter, bindVerb: bind, nodeCacheCapable: true";
    let port = binder.port;
    let cluster = cluster("extender-binds", &[format!("urlPrefix: 'http://127.0.0.1:{port}', {verbs}")]);
    pod(&cluster, "p");
    let why = format!("failed filter with extender at URL http://127.0.0.1:{port}/filter, code 500");
    cluster.wait_for("the failure is told", || events(&cluster, "p", "FailedScheduling").contains(&why));
    *fails.lock().expect("nobody panics") = false;
    cluster.wait_for("it is asked to bind", || binder.count("/bind") > 0);
    let asked = binder.asked.lock().expect("nobody panics").iter().find(|(path, _)| path == "/bind").cloned();
    let (_, asked) = asked.expect("it was counted");
    let uid = cluster.get(&format!("{PODS}/p")).json()["metadata"]["uid"].clone();
    assert_eq!(asked, json!({"PodName": "p", "PodNamespace": "default", "PodUID": uid, "Node": "node-1"}));
    let target = json!({"kind": "Node", "name": "node-1"});
    cluster.create(&format!("{PODS}/p/binding"), &json!({"metadata": {"name": "p"}, "target": target}));
    cluster.wait_for("it is told", || !events(&cluster, "p", "Scheduled").is_empty());
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!((binder.count("/bind"), node_of(&cluster, "p").as_deref()), (1, Some("node-1")));
}
