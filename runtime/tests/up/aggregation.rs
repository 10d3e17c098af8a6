//! An APIService whose server listens on this machine.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::sync::{Arc, Mutex};

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConnection, StreamOwned};
use serde_json::{Value, json};

use crate::client::Cluster;
use crate::webhooks::{Identity, identity};

const SERVICES: &str = "/apis/apiregistration.k8s.io/v1/apiservices";
const NAME: &str = "v1.things.example.com";

/// A server of `things.example.com/v1` that wants to know who asks by a certificate of the front proxy.
struct Things {
    port: u16,
    ca: String,
    /// The heads of the requests, in the order in which they came.
    heads: Arc<Mutex<Vec<String>>>,
}

impl Things {
    fn start(front_proxy: &str) -> Things {
        let Identity { ca, chain, key } = identity();
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(front_proxy.as_bytes()) {
            roots.add(certificate.expect("it is PEM")).expect("it is an authority");
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider)).build();
        let config = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let config = config.expect("versions are known").with_client_cert_verifier(verifier.expect("it has roots"));
        let config = Arc::new(config.with_single_cert(chain, key).expect("they belong together"));
        let listener = TcpListener::bind("127.0.0.1:0").expect("there is a free port");
        let port = listener.local_addr().expect("it is bound").port();
        let heads: Arc<Mutex<Vec<String>>> = Arc::default();
        let heard = Arc::clone(&heads);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let connection = ServerConnection::new(Arc::clone(&config)).expect("TLS can be set up");
                let stream = StreamOwned::new(connection, stream.expect("it connects"));
                let heard = Arc::clone(&heard);
                std::thread::spawn(move || serve(stream, &heard));
            }
        });
        Things { port, ca, heads }
    }

    /// The heads of the requests for a path.
    fn asked(&self, line: &str) -> Vec<String> {
        let heads = self.heads.lock().expect("nobody panics");
        heads.iter().filter(|head| head.starts_with(line)).cloned().collect()
    }
}

fn serve<S: Read + Write>(stream: S, heard: &Mutex<Vec<String>>) -> Option<()> {
    let mut reader = BufReader::new(stream);
    let (mut head, mut length) = (String::new(), 0);
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok().filter(|read| *read > 0)?;
        match line.trim_end().split_once(": ") {
            Some((name, value)) if name.eq_ignore_ascii_case("content-length") => length = value.trim().parse().ok()?,
            _ if line.trim_end().is_empty() => break,
            _ => {}
        }
        head += &line;
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
    heard.lock().expect("nobody panics").push(head.clone());
    let answer = match path.split('?').next().unwrap_or_default() {
        "/apis/things.example.com/v1" => json!({"kind": "APIResourceList", "groupVersion": "things.example.com/v1",
            "resources": [{"name": "things", "singularName": "thing", "namespaced": true, "kind": "Thing",
                "verbs": ["create", "get", "list"]}]}),
        "/openapi/v3" => json!({"paths": {"apis/things.example.com/v1":
            {"serverRelativeURL": "/openapi/v3/apis/things.example.com/v1?hash=A"}}}),
        _ => json!({"path": path, "body": String::from_utf8_lossy(&body)}),
    };
    let (mut stream, answer) = (reader.into_inner(), answer.to_string());
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nContent-Type: application/json\r\n\r\n", answer.len());
    stream.write_all(format!("{head}{answer}").as_bytes()).and_then(|()| stream.flush()).ok()
}

fn available(cluster: &Cluster, name: &str) -> Value {
    let conditions = cluster.get(&format!("{SERVICES}/{name}")).json()["status"]["conditions"].clone();
    json!([conditions[0]["type"], conditions[0]["status"], conditions[0]["reason"]])
}

#[test]
fn requests_are_led_to_the_server_of_an_api_service() {
    let cluster = Cluster::start("aggregation", &["--nodes", "0"]);
    let config = "/api/v1/namespaces/kube-system/configmaps/extension-apiserver-authentication";
    cluster.wait_for("it is told who asks", || cluster.get(config).code == 200);
    let data = cluster.get(config).json()["data"].clone();
    assert_eq!(data["requestheader-username-headers"], "[\"X-Remote-User\"]");
    let things = Things::start(data["requestheader-client-ca-file"].as_str().unwrap());
    let service = json!({"namespace": "default", "name": "hook", "port": things.port});
    let spec = json!({"group": "things.example.com", "version": "v1", "service": service, "caBundle": things.ca,
        "groupPriorityMinimum": 100, "versionPriority": 10});
    cluster.create(SERVICES, &json!({"metadata": {"name": NAME}, "spec": spec}));
    let says = |reason: &str, status: &str| json!(["Available", status, reason]);
    cluster.wait_for("the Service is missed", || available(&cluster, NAME) == says("ServiceNotFound", "False"));
    let own = "/apis/things.example.com/v1/namespaces/default/things/a";
    let refused = cluster.get(own);
    assert_eq!((refused.code, refused.text()), (503, "service unavailable\n".to_owned()));
    let aggregated = [("Accept", "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList")];
    let version = || {
        let all = cluster.send("GET", "/apis", &aggregated, b"").json();
        let items = all["items"].as_array().unwrap().clone();
        items.into_iter().find(|item| item["metadata"]["name"] == "things.example.com").unwrap()["versions"][0].clone()
    };
    assert_eq!((&version()["freshness"], &version()["resources"]), (&json!("Stale"), &json!([])));

    let spec = json!({"type": "ExternalName", "externalName": "localhost"});
    let body = json!({"metadata": {"name": "hook"}, "spec": spec});
    cluster.create("/api/v1/namespaces/default/services", &body);
    cluster.wait_for("it is available", || available(&cluster, NAME) == says("Passed", "True"));
    assert!(things.asked("GET /apis/things.example.com/v1 ")[0].contains("x-remote-user: system:kube-aggregator"));
    cluster.wait_for("it is fresh", || version()["freshness"] == "Current");
    assert_eq!(version()["resources"][0]["resource"], "things");
    let groups = cluster.get("/apis").json();
    assert!(groups["groups"].as_array().unwrap().iter().any(|group| group["name"] == "things.example.com"));
    assert_eq!(cluster.get("/apis/things.example.com").json()["preferredVersion"]["version"], "v1");
    assert_eq!(cluster.get("/apis/things.example.com/v1").json()["resources"][0]["kind"], "Thing");
    let url = "/openapi/v3/apis/things.example.com/v1?hash=A";
    let index = cluster.get("/openapi/v3").json();
    assert_eq!(index["paths"]["apis/things.example.com/v1"]["serverRelativeURL"], url);
    assert_eq!(cluster.get(url).json()["path"], url);

    let forged = [("X-Remote-User", "root"), ("Content-Type", "application/json")];
    let answer = cluster.send("POST", &format!("{own}?dryRun=All"), &forged, b"{\"a\": 1}").json();
    assert_eq!((&answer["path"], &answer["body"]), (&json!(format!("{own}?dryRun=All")), &json!("{\"a\": 1}")));
    let head = things.asked("POST ").remove(0);
    assert!(
        head.contains("x-remote-user: kubernetes-admin") && head.contains("x-remote-group: system:masters"),
        "{head}"
    );
    assert!(!head.contains("root") && !head.to_lowercase().contains("authorization"), "{head}");
    assert_eq!(cluster.get_as_stranger(own).code, 403, "whoever may not do it is not led there");

    let merge = [("Content-Type", "application/merge-patch+json")];
    let stranger = json!({"spec": {"caBundle": null}}).to_string();
    let path = format!("{SERVICES}/{NAME}");
    assert_eq!(cluster.send("PATCH", &path, &merge, stranger.as_bytes()).code, 200);
    cluster.wait_for("it is not trusted", || {
        let answer = cluster.get(own);
        answer.code == 503 && answer.text().contains("invalid peer certificate: UnknownIssuer")
    });
    assert_eq!(cluster.send("DELETE", &path, &[], b"").code, 200);
    cluster.wait_for("nothing is led there", || cluster.get("/apis/things.example.com/v1").code == 404);
}

#[test]
fn what_this_server_serves_is_local() {
    let cluster = Cluster::start("aggregation-local", &["--nodes", "0"]);
    let local = json!(["Available", "True", "Local"]);
    cluster.wait_for("built-in groups are listed", || available(&cluster, "v1.resource.k8s.io") == local);
    let list = || {
        let table = [("Accept", "application/json;as=Table;v=v1;g=meta.k8s.io")];
        let rows = cluster.send("GET", SERVICES, &table, b"").json()["rows"].as_array().unwrap().clone();
        rows.into_iter().map(|row| row["cells"].as_array().unwrap()[..3].to_vec()).collect::<Vec<_>>()
    };
    assert_eq!((list().len(), json!(list()[0])), (21, json!(["v1.", "Local", "True"])));
    let definition = json!({"metadata": {"name": "ws.example.com"}, "spec": {"group": "example.com",
        "scope": "Cluster", "names": {"plural": "ws", "kind": "W"}, "versions": [{"name": "v1", "served": true,
            "storage": true, "schema": {"openAPIV3Schema": {"type": "object"}}}]}});
    let definitions = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    cluster.create(definitions, &definition);
    cluster.wait_for("the definition's group is listed", || available(&cluster, "v1.example.com") == local);
    let own = format!("{SERVICES}/v1.example.com");
    assert_eq!(cluster.get(&own).json()["metadata"]["labels"]["kube-aggregator.kubernetes.io/automanaged"], "true");
    assert_eq!(cluster.send("DELETE", &own, &[], b"").code, 200);
    cluster.wait_for("it comes again", || cluster.get(&own).code == 200);
    assert_eq!(cluster.send("DELETE", &format!("{definitions}/ws.example.com"), &[], b"").code, 200);
    cluster.wait_for("it goes with its definition", || cluster.get(&own).code == 404);
    let wrong = cluster.write(
        "POST",
        SERVICES,
        &json!({"metadata": {"name": "x"}, "spec": {"group": "g.y",
        "version": "v1", "groupPriorityMinimum": 1, "versionPriority": 1}}),
    );
    let why = "APIService.apiregistration.k8s.io \"x\" is invalid: metadata.name: Invalid value: \"x\": must be \
               `spec.version+\".\"+spec.group`: \"v1.g.y\"";
    assert_eq!((wrong.code, wrong.json()["message"].as_str().unwrap()), (422, why));
}
