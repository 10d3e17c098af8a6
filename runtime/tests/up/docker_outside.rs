//! What a Docker node asks of servers outside: probes and hooks by HTTPS, and images of a registry that knows its
//! users.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::process::Command;
use std::sync::{Arc, Mutex};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::json;

use crate::client::scratch;
use crate::docker;
use crate::docker::{IMAGE, PODS, busybox, container, create, end, engine, events, pod, start, to_use, wait, with};
use crate::recording;
use crate::webhooks::{Identity, identity};

/// The heads of requests, with their names in lower case.
type Heads = Arc<Mutex<Vec<String>>>;

/// Answers what comes over a stream; the request's head is noted.
fn answer(stream: impl Read + Write, heads: &Heads, reply: &dyn Fn(&str) -> Vec<u8>) {
    let mut reader = BufReader::new(stream);
    let mut head = String::new();
    // What is no HTTP has no lines of text.
    while !head.ends_with("\r\n\r\n") && reader.read_line(&mut head).is_ok_and(|read| read > 0) {}
    heads.lock().expect("nobody panics").push(head.to_lowercase());
    let _ = reader.get_mut().write_all(&reply(&head)).and_then(|()| reader.get_mut().flush());
}

/// A server at a free port, by TLS or in the clear.
fn serve(secure: bool, reply: impl Fn(&str) -> Vec<u8> + Send + 'static) -> (u16, Heads) {
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

fn empty(code: &str) -> Vec<u8> {
    with_body(code, "", b"")
}

fn with_body(code: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let length = body.len();
    let head = format!("HTTP/1.1 {code}\r\nContent-Length: {length}\r\nConnection: close\r\n{headers}\r\n");
    [head.as_bytes(), body].concat()
}

fn digest(bytes: &[u8]) -> String {
    let hash = ring::digest::digest(&ring::digest::SHA256, bytes);
    format!("sha256:{}", hash.as_ref().iter().map(|byte| format!("{byte:02x}")).collect::<String>())
}

/// A registry with an image of any name, for whoever knows the password; returns its port.
fn registry(test: &str, user: &str, password: &str) -> u16 {
    let root = scratch(test).join("root");
    let _ = std::fs::remove_dir_all(&root);
    std::fs::create_dir_all(root.join("bin")).expect("it is ours");
    std::fs::copy(busybox().expect("it was looked for"), root.join("bin/sh")).expect("it can be read");
    let tar = Command::new("tar").arg("-C").arg(&root).args(["-c", "."]).output().expect("tar runs");
    let layer = tar.stdout;
    let type_ = "application/vnd.docker.distribution.manifest.v2+json";
    let image = move |name: &str, layer: &[u8]| {
        let config = json!({"architecture": "amd64", "os": "linux", "author": name,
            "config": {"Cmd": ["sh", "-c", "exit 0"]}, "rootfs": {"type": "layers", "diff_ids": [digest(layer)]}});
        let config = config.to_string().into_bytes();
        let part = |type_: &str, bytes: &[u8]| {
            let type_ = format!("application/vnd.docker.{type_}");
            json!({"mediaType": type_, "size": bytes.len(), "digest": digest(bytes)})
        };
        let manifest = json!({"schemaVersion": 2, "mediaType": type_,
            "config": part("container.image.v1+json", &config), "layers": [part("image.rootfs.diff.tar.gzip", layer)]});
        (config, manifest.to_string().into_bytes())
    };
    let basic = format!("Authorization: Basic {}", STANDARD.encode(format!("{user}:{password}")));
    let (port, _) = serve(false, move |head| {
        if !head.contains(&basic) {
            // As a registry that helps too much.
            let told = head.lines().find(|line| line.starts_with("Authorization")).unwrap_or_default();
            let body = json!({"errors": [{"code": "UNAUTHORIZED", "message": format!("who is {told}?")}]}).to_string();
            return with_body("401 Unauthorized", "WWW-Authenticate: Basic realm=\"test\"\r\n", body.as_bytes());
        }
        let path = head.split(' ').nth(1).unwrap_or_default();
        let (config, manifest) = image(path.split('/').nth(2).unwrap_or_default(), &layer);
        let body = match path {
            "/v2/" => b"{}".as_slice(),
            path if path.contains("/manifests/") => &manifest,
            path if path.ends_with(&digest(&config)) => &config,
            _ => &layer,
        };
        let headers = match path.contains("/manifests/") {
            true => format!("Content-Type: {type_}\r\nDocker-Content-Digest: {}\r\n", digest(&manifest)),
            false => "Content-Type: application/octet-stream\r\n".to_owned(),
        };
        let mut all = with_body("200 OK", &headers, body);
        if head.starts_with("HEAD") {
            all.truncate(all.len() - body.len());
        }
        all
    });
    port
}

#[test]
fn images_are_pulled_with_the_secrets_of_pod_and_account() {
    let Some(_engine) = to_use() else { return };
    const PASSWORD: &str = "opensesame-0815";
    let port = registry("docker-registry", "robot", PASSWORD);
    let record = recording::empty("docker-pulls");
    let always = ["--image-gc-high-threshold", "0", "--image-gc-low-threshold", "0", "--image-gc-period", "2s"];
    let young = ["--minimum-image-ttl-duration", "3s", "--in-memory", "--record", record.to_str().expect("text")];
    let cluster = start("docker-pulls", &[&always[..], &young[..]].concat());
    let host = format!("127.0.0.1:{port}");
    let secret = |name: &str, type_: &str, config: &serde_json::Value| {
        let data = json!({format!(".{type_}"): config.to_string()});
        let object = json!({"metadata": {"name": name}, "type": format!("kubernetes.io/{type_}"), "stringData": data});
        cluster.create("/api/v1/namespaces/default/secrets", &object);
    };
    let auth = |password: &str| json!({"auth": STANDARD.encode(format!("robot:{password}"))});
    secret("right", "dockerconfigjson", &json!({"auths": {format!("http://{host}/v2/"): auth(PASSWORD)}}));
    secret("wrong", "dockerconfigjson", &json!({"auths": {&host: auth("opensesame-0816")}}));
    secret("old", "dockercfg", &json!({&host: {"username": "robot", "password": PASSWORD}}));
    let accounts = "/api/v1/namespaces/default/serviceaccounts";
    cluster.create(accounts, &json!({"metadata": {"name": "robot"}, "imagePullSecrets": [{"name": "old"}]}));
    let create = |name: &str, account: &str, secrets: &[&str]| {
        let container = json!({"name": "c", "image": format!("{host}/{name}:1"), "imagePullPolicy": "Always"});
        let secrets: Vec<_> = secrets.iter().map(|name| json!({"name": name})).collect();
        create(
            &cluster,
            name,
            json!({"restartPolicy": "Never", "containers": [container], "imagePullSecrets": secrets,
            "serviceAccountName": account}),
        );
    };
    create("own", "default", &["right"]);
    create("account", "robot", &[]);
    create("several", "default", &["missing", "wrong", "right"]);
    create("refused", "default", &["wrong"]);
    create("nobody", "default", &[]);
    let filler = with(
        container("c", "dd if=/dev/zero of=/v/x bs=1M count=3; exec sleep 1000"),
        "volumeMounts",
        json!([{"name": "v", "mountPath": "/v"}]),
    );
    let limited = json!([{"name": "v", "emptyDir": {"sizeLimit": "2Mi"}}]);
    docker::create(&cluster, "filler", json!({"containers": [filler], "volumes": limited}));
    for name in ["own", "account", "several"] {
        wait(&cluster, name, "/status/phase", json!("Succeeded"));
    }
    for name in ["refused", "nobody"] {
        wait(&cluster, name, "/status/containerStatuses/0/state/waiting/reason", json!("ImagePullBackOff"));
    }
    let told = events(&cluster, "several");
    assert!(told.contains("Unable to retrieve some image pull secrets (missing); attempting"), "{told}");
    let refused = [pod(&cluster, "refused").to_string(), events(&cluster, "refused")].concat();
    let guess = STANDARD.encode("robot:opensesame-0816");
    assert!(refused.contains("who is Authorization: Basic ***") && !refused.contains(&guess), "{refused}");
    wait(&cluster, "filler", "/status/reason", json!("Evicted"));
    let why = "Usage of EmptyDir volume \"v\" exceeds the limit \"2Mi\". ";
    assert_eq!(pod(&cluster, "filler")["status"]["message"], why);
    // What no container is of any more is removed; what one is of that has ended, or what others brought, is not.
    let has = |image: &str| engine("GET", &format!("/images/{image}/json"), b"").expect("it answers").0 == 200;
    let delete = |name: &str| {
        assert_eq!(cluster.send("DELETE", &format!("{PODS}/{name}?gracePeriodSeconds=0"), &[], b"").code, 200);
        cluster.wait_for("the image is removed", || !has(&format!("{host}/{name}:1")));
    };
    ["own", "account"].into_iter().for_each(delete);
    assert!(has(&format!("{host}/several:1")) && has(IMAGE), "they stay");
    delete("several");
    cluster.wait_for("the node says that this is not enough", || {
        let all = cluster.get("/api/v1/events").text();
        all.contains("\"FreeDiskSpaceFailed\"") && all.contains("\"ImageGCFailed\"")
    });
    end(cluster);
    recording::replays(&record);
    let all = recording::text(&record);
    assert!(all.contains(&format!("{host}/own:1")), "what was pulled is in the recording");
    for secret in ["opensesame".to_owned(), STANDARD.encode("robot:open")[..16].to_owned()] {
        assert!(!all.contains(&secret), "{secret} is in the recording");
    }
}

#[test]
fn probes_and_hooks_by_https_trust_anybody() {
    let Some(_engine) = to_use() else { return };
    let (port, heads) = serve(true, |head| empty(if head.starts_with("GET /ill") { "500 Ill" } else { "200 OK" }));
    let (plain, _) = serve(false, |head| empty(if head.starts_with("GET") { "200 OK" } else { "400 Bad Request" }));
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

#[test]
fn a_node_that_is_short_of_memory_evicts() {
    let Some(_engine) = to_use() else { return };
    let meminfo = std::fs::read_to_string("/proc/meminfo").expect("it can be read");
    let total = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:")).expect("it says so");
    let total: u64 = total.trim().trim_end_matches(" kB").parse().expect("a number");
    // More than this host has left, whatever runs on it, and less than all: some is left for pods.
    let threshold = format!("memory.available<{}Mi", (total >> 10) - 200);
    let record = recording::empty("docker-pressure");
    let cluster = start(
        "docker-pressure",
        &["--in-memory", "--eviction-hard", &threshold, "--record", record.to_str().expect("text")],
    );
    let name = || cluster.get("/api/v1/nodes").json()["items"][0]["metadata"]["name"].as_str().map(str::to_owned);
    cluster.wait_for("the node is there", || name().is_some());
    let node = name().expect("it is there");
    let is_short = || {
        let node = cluster.get(&format!("/api/v1/nodes/{node}")).json();
        let conditions = node["status"]["conditions"].as_array().cloned().unwrap_or_default();
        let is_short = conditions.iter().any(|c| c["type"] == "MemoryPressure" && c["status"] == "True");
        is_short && node["spec"]["taints"].to_string().contains("node.kubernetes.io/memory-pressure")
    };
    cluster.wait_for("the node says that it is short of memory, and is tainted", is_short);
    // The scheduler keeps them away; the node itself looks who comes.
    let place = |name: &str, more: serde_json::Value| {
        let mut spec = json!({"nodeName": node, "containers": [container("c", "exec sleep 1000")]});
        spec.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        create(&cluster, name, spec);
    };
    place("critical", json!({"priorityClassName": "system-node-critical"}));
    place("refused", json!({}));
    let asks = with(container("c", "exec sleep 1000"), "resources", json!({"requests": {"memory": "1"}}));
    place("evicted", json!({"containers": [asks]}));
    wait(&cluster, "refused", "/status/message", json!("Pod was rejected: The node had condition: [MemoryPressure]. "));
    wait(&cluster, "evicted", "/status/reason", json!("Evicted"));
    let status = &pod(&cluster, "evicted")["status"];
    let message = status["message"].as_str().unwrap_or_default();
    assert!(message.starts_with("The node was low on resource: memory. Threshold quantity: "), "{status:#}");
    let conditions = status["conditions"].as_array().cloned().unwrap_or_default();
    assert_eq!(status["phase"], "Failed");
    assert!(conditions.iter().any(|c| c["reason"] == "TerminationByKubelet"), "{status:#}");
    assert!(events(&cluster, "evicted").contains("Evicted: \"The node was low on resource: memory. "));
    assert!(cluster.get("/api/v1/events").text().contains("Attempting to reclaim memory"));
    wait(&cluster, "critical", "/status/phase", json!("Running"));
    end(cluster);
    recording::replays(&record);
}
