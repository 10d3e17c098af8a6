//! What a Docker node asks of servers outside: probes and hooks by HTTPS.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::sync::{Arc, Mutex};

use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::json;

use crate::docker::{container, create, end, events, start, to_use, wait, with};
use crate::webhooks::{Identity, identity};

/// The heads of requests, with their names in lower case.
type Heads = Arc<Mutex<Vec<String>>>;

/// Answers what comes over a stream; the request's head is noted.
fn answer(stream: impl Read + Write, heads: &Heads, reply: &dyn Fn(&str) -> String) {
    let mut reader = BufReader::new(stream);
    let mut head = String::new();
    // What is no HTTP has no lines of text.
    while !head.ends_with("\r\n\r\n") && reader.read_line(&mut head).is_ok_and(|read| read > 0) {}
    heads.lock().expect("nobody panics").push(head.to_lowercase());
    let _ = reader.get_mut().write_all(reply(&head.to_lowercase()).as_bytes()).and_then(|()| reader.get_mut().flush());
}

/// A server at a free port, by TLS or in the clear.
fn serve(secure: bool, reply: impl Fn(&str) -> String + Send + 'static) -> (u16, Heads) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("there is a free port");
    let port = listener.local_addr().expect("it is bound").port();
    let heads = Heads::default();
    let heard = Arc::clone(&heads);
    let Identity { chain, key, .. } = identity();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = config.expect("versions are known").with_no_client_auth();
    let config = Arc::new(config.with_single_cert(chain, key).expect("they belong together"));
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let stream = stream.expect("it connects");
            if secure {
                let connection = ServerConnection::new(Arc::clone(&config)).expect("TLS can be set up");
                answer(StreamOwned::new(connection, stream), &heard, &reply);
            } else {
                answer(stream, &heard, &reply);
            }
        }
    });
    (port, heads)
}

fn empty(code: &str) -> String {
    format!("HTTP/1.1 {code}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
}

#[test]
fn probes_and_hooks_by_https_trust_anybody() {
    let Some(_engine) = to_use() else { return };
    let (port, heads) = serve(true, |head| empty(if head.starts_with("get /ill") { "500 Ill" } else { "200 OK" }));
    let (plain, _) = serve(false, |head| empty(if head.starts_with("get") { "200 OK" } else { "400 Bad Request" }));
    let cluster = start("docker-https", &["--in-memory"]);
    let get = |path: &str, port: u16| {
        let headers = json!([{"name": "Host", "value": "example.com"}, {"name": "X-Asks", "value": "a"},
            {"name": "X-Asks", "value": "b"}, {"name": "Authorization", "value": "Basic c2VjcmV0"}]);
        json!({"scheme": "HTTPS", "host": "127.0.0.1", "path": path, "port": port, "httpHeaders": headers})
    };
    let probed = |name: &str, path: &str, port: u16| {
        let probe = json!({"httpGet": get(path, port), "periodSeconds": 1});
        with(container(name, "exec sleep 1000"), "readinessProbe", probe)
    };
    let hook = |name: &str, path: &str, port: u16| {
        with(container(name, "exec sleep 1000"), "lifecycle", json!({"postStart": {"httpGet": get(path, port)}}))
    };
    create(&cluster, "well", json!({"containers": [probed("c", "/well", port)]}));
    create(&cluster, "ill", json!({"containers": [probed("c", "/ill", port)]}));
    create(&cluster, "plain", json!({"containers": [probed("c", "/plain", plain)]}));
    // To a hook, every answer will do.
    create(&cluster, "hook", json!({"containers": [hook("c", "/ill/hook", port)]}));
    create(&cluster, "falls-back", json!({"containers": [hook("c", "/back", plain)]}));
    let ready = "/status/containerStatuses/0/ready";
    for name in ["well", "hook", "falls-back"] {
        wait(&cluster, name, ready, json!(true));
    }
    let told = |name: &str, what: &str| {
        cluster.wait_for("the event", || events(&cluster, name).contains(what));
    };
    told("ill", "Readiness probe failed: HTTP probe failed with statuscode: 500");
    let url = format!("https://127.0.0.1:{plain}/plain");
    told("plain", &format!("Get \\\"{url}\\\": http: server gave HTTP response to HTTPS client"));
    told(
        "falls-back",
        &format!("request to HTTPS lifecycle hook 127.0.0.1:{plain} got HTTP response, retry with HTTP"),
    );
    assert!(!events(&cluster, "hook").contains("PostStartHook"), "{}", events(&cluster, "hook"));
    let heads = heads.lock().expect("nobody panics").clone();
    let head = |path: &str| heads.iter().find(|head| head.starts_with(path)).expect("it was asked").clone();
    for line in ["host: example.com", "x-asks: a", "x-asks: b", "authorization: basic c2vjcmv0", "accept: */*"] {
        assert!(head("get /well ").lines().any(|l| l == line), "{line:?} is not in\n{}", head("get /well "));
    }
    assert!(head("get /well ").contains("\r\nuser-agent: kube-probe/"), "{}", head("get /well "));
    assert!(head("get /ill/hook ").contains("\r\nuser-agent: kube-lifecycle/"), "{}", head("get /ill/hook "));
    end(cluster);
}
