//! Logs, commands, and forwarded ports of simulated containers, by WebSocket and by SPDY.

use std::io::{Read, Write};

use serde_json::{Value, json};
use skeg_spdy::frame::{self, Decoder, Frame};
use skeg_spdy::{Compressor, StreamId};

use crate::client::Cluster;

const PODS: &str = "/api/v1/namespaces/default/pods";

/// A cluster with a pod `web`, which is ready, and a pod `job`, which fails and is restarted.
fn cluster() -> Cluster {
    let cluster = Cluster::start("streams", &["--nodes", "1"]);
    cluster.wait_for("the namespace has its service account", || {
        cluster.get("/api/v1/namespaces/default/serviceaccounts/default").code == 200
    });
    let probe = json!({"httpGet": {"path": "/ready", "port": 80}, "periodSeconds": 1});
    let env = json!([{"name": "GREETING", "value": "good day"},
        {"name": "NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}}]);
    let web = json!({"name": "nginx", "image": "nginx:1", "env": env, "readinessProbe": probe,
        "ports": [{"containerPort": 80}]});
    let job =
        json!({"name": "main", "image": "busybox", "command": ["sh", "-c", "echo one; echo two; sleep 1; exit 3"]});
    for (name, container) in [("web", web), ("job", job)] {
        cluster.create(PODS, &json!({"metadata": {"name": name}, "spec": {"containers": [container]}}));
    }
    let status = |pod: &str| cluster.get(&format!("{PODS}/{pod}")).json()["status"]["containerStatuses"][0].clone();
    cluster.wait_for("web is ready", || status("web")["ready"] == true);
    cluster.wait_for("job was restarted", || status("job")["restartCount"].as_u64() > Some(0));
    cluster
}

/// A WebSocket's client end.
pub struct Socket<S> {
    stream: S,
}

impl<S: Read + Write> Socket<S> {
    /// Sends a message, masked with zeroes.
    pub fn send(&mut self, bytes: &[u8]) {
        assert!(bytes.len() < 126);
        let head = [0x82, 0x80 | bytes.len() as u8, 0, 0, 0, 0];
        self.stream.write_all(&[&head, bytes].concat()).expect("it reads");
    }

    /// The next message; `None` when the server closes.
    pub fn next(&mut self) -> Option<Vec<u8>> {
        let mut head = [0; 2];
        self.stream.read_exact(&mut head).expect("a message comes");
        let length = match head[1] {
            126 => {
                let mut length = [0; 2];
                self.stream.read_exact(&mut length).expect("its length comes");
                usize::from(u16::from_be_bytes(length))
            }
            short => usize::from(short),
        };
        let mut message = vec![0; length];
        self.stream.read_exact(&mut message).expect("it comes whole");
        (head[0] & 15 != 8).then_some(message)
    }

    /// All that comes on each channel until the server closes.
    fn rest(&mut self) -> [String; 4] {
        let mut all: [Vec<u8>; 4] = Default::default();
        while let Some(message) = self.next() {
            all[usize::from(message[0])].extend(&message[1..]);
        }
        all.map(|bytes| String::from_utf8(bytes).expect("text"))
    }
}

pub fn web_socket(cluster: &Cluster, path: &str, protocol: &str) -> Socket<impl Read + Write + use<>> {
    let headers = [
        ("Upgrade", "websocket"),
        ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ("Sec-WebSocket-Protocol", protocol),
    ];
    let (stream, answer) = cluster.upgrade(path, &headers);
    assert_eq!(answer.code, 101, "{path}: {}", answer.text());
    assert_eq!(answer.header("sec-websocket-accept"), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
    let chosen = answer.header("sec-websocket-protocol").expect("one is chosen");
    assert!(protocol.split(", ").any(|p| p == chosen), "{chosen}");
    Socket { stream }
}

/// Runs a command in the only container of a pod; returns what came on each channel: standard input (nothing), output
/// and error, and the outcome.
pub fn exec(cluster: &Cluster, pod: &str, argv: &[&str]) -> [String; 4] {
    let encode = |text: &str| text.bytes().map(|byte| format!("%{byte:02x}")).collect::<String>();
    let command: String = argv.iter().map(|arg| format!("command={}&", encode(arg))).collect();
    let path = format!("{PODS}/{pod}/exec?{command}stdout=true&stderr=true");
    web_socket(cluster, &path, "v4.channel.k8s.io").rest()
}

/// A SPDY connection's client end.
struct Spdy<S> {
    stream: S,
    compressor: Compressor,
    decoder: Decoder,
    next: StreamId,
}

impl<S: Read + Write> Spdy<S> {
    fn new(stream: S) -> Spdy<S> {
        Spdy { stream, compressor: Compressor::default(), decoder: Decoder::default(), next: 1 }
    }

    fn open(&mut self, headers: &[(&str, &str)]) -> StreamId {
        let mut bytes = Vec::new();
        frame::syn_stream(self.next, headers, &mut self.compressor, &mut bytes);
        self.stream.write_all(&bytes).expect("it reads");
        self.next += 2;
        self.next - 2
    }

    fn send(&mut self, stream: StreamId, data: &[u8], fin: bool) {
        let mut bytes = Vec::new();
        frame::data(stream, data, fin, &mut bytes);
        self.stream.write_all(&bytes).expect("it reads");
    }

    /// What comes on a stream until the server has finished it.
    fn rest(&mut self, stream: StreamId, others: &mut Vec<u8>) -> String {
        let mut all = Vec::new();
        loop {
            while let Some(frame) = self.decoder.frame().expect("the server speaks SPDY") {
                match frame {
                    Frame::Data { stream: from, bytes, fin } if from == stream => {
                        all.extend(bytes);
                        if fin {
                            return String::from_utf8(all).expect("text");
                        }
                    }
                    Frame::Data { bytes, .. } => others.extend(bytes),
                    Frame::SynReply { .. } => {}
                    other => panic!("{other:?}"),
                }
            }
            let mut chunk = [0; 4096];
            let read = self.stream.read(&mut chunk).expect("more comes");
            assert!(read > 0, "it ended after {all:?}");
            self.decoder.feed(&chunk[..read]);
        }
    }
}

/// The query of an exec of `sh -c SCRIPT`.
fn shell(script: &str, streams: &str) -> String {
    let script = script.replace(' ', "%20").replace(';', "%3B").replace('&', "%26").replace('>', "%3E");
    format!("{PODS}/web/exec?command=sh&command=-c&command={script}&{streams}")
}

#[test]
fn clients_look_into_containers() {
    let cluster = cluster();
    logs(&cluster);
    refusals(&cluster);
    exec_by_web_socket(&cluster);
    exec_by_spdy(&cluster);
    attach(&cluster);
    forward_by_spdy(&cluster);
    forward_by_channels(&cluster);
}

fn logs(cluster: &Cluster) {
    let check = |query: &str, code: u16, part: &str| {
        let answer = cluster.get(&format!("{PODS}/{query}"));
        assert_eq!(answer.code, code, "{query}: {}", answer.text());
        let text = if code == 200 { answer.text() } else { answer.json()["message"].to_string() };
        assert!(text.contains(part), "{query}: {text}");
    };
    check("web/log", 200, "container nginx of image nginx:1 is simulated: no program runs in it\n");
    check("web/log", 200, "\"GET /ready HTTP/1.1\" 200 \"kube-probe/1.36\"\n");
    check("job/log?previous=true&tailLines=2", 200, "one\ntwo\n");
    check("job/log?previous=true&container=main&limitBytes=3", 200, "one");
    check("web/log?previous=true", 400, "previous terminated container \\\"nginx\\\" in pod \\\"web\\\" not found");
    check("web/log?container=x", 400, "container x is not valid for pod web");
    check("web/log?tailLines=-1", 422, "must be greater than or equal to 0");
    check("none/log", 404, "pods \\\"none\\\" not found");
    // It ends after so many bytes, although the container goes on.
    let followed = cluster.get(&format!("{PODS}/web/log?follow=true&limitBytes=200&timestamps=true"));
    assert_eq!(followed.body.len(), 200);
    // Another pod's log is followed to the end of its run.
    let done = cluster.get(&format!("{PODS}/job/log?follow=true"));
    assert!(done.text().starts_with("one\ntwo\n"), "{}", done.text());
}

fn refusals(cluster: &Cluster) {
    let check = |path: &str, headers: &[(&str, &str)], code: u16, part: &str| {
        let answer = cluster.upgrade(&format!("{PODS}/{path}"), headers).1;
        assert_eq!(answer.code, code, "{path}: {}", answer.text());
        let message = answer.json()["message"].to_string();
        assert!(message.contains(part), "{path}: {message}");
    };
    let spdy = ("Upgrade", "SPDY/3.1");
    check("web/exec?command=ls&stdout=1", &[("Upgrade", "h3")], 400, "unknown protocol");
    check("web/exec?command=ls", &[spdy], 400, "at least 1 of stdin, stdout, stderr");
    check("web/exec?stdout=1", &[spdy], 400, "at least one command");
    check("web/exec?command=ls&stdout=1&container=x", &[spdy], 400, "container x is not valid for pod web");
    let other = [spdy, ("X-Stream-Protocol-Version", "v9.channel.k8s.io")];
    check("web/exec?command=ls&stdout=1", &other, 400, "unable to negotiate protocol: client supports [v9");
    check("none/portforward", &[spdy], 404, "not found");
    let plain = cluster.get(&format!("{PODS}/web/exec?command=ls&stdout=1"));
    assert_eq!((plain.code, plain.json()["message"].as_str()), (400, Some("Upgrade request required")));
}

fn exec_by_web_socket(cluster: &Cluster) {
    let v5 = "v5.channel.k8s.io, v4.channel.k8s.io";
    let script = "echo $GREETING on $NODE; echo oops >&2; exit 3";
    let [_, out, err, outcome] = web_socket(cluster, &shell(script, "stdout=1&stderr=1"), v5).rest();
    assert_eq!((out.as_str(), err.as_str()), ("good day on node-0\n", "oops\n"));
    let outcome: Value = serde_json::from_str(&outcome).expect("a Status");
    assert_eq!(
        (&outcome["reason"], &outcome["details"]["causes"][0]["message"]),
        (&json!("NonZeroExitCode"), &json!("3"))
    );
    // Standard input, closed by v5's own message.
    let mut socket = web_socket(cluster, &shell("cat > /tmp/x; wc -c /tmp/x", "stdin=1&stdout=1"), v5);
    socket.send(b"\0hello ");
    socket.send(b"\0world");
    socket.send(&[255, 0]);
    let [_, out, _, outcome] = socket.rest();
    assert_eq!((out.as_str(), outcome.as_str()), ("11 /tmp/x\n", r#"{"metadata":{},"status":"Success"}"#));
    // A command that is not there, to a client that knows base64 only.
    let path = format!("{PODS}/web/exec?command=nginx&stdout=1");
    let mut socket = web_socket(cluster, &path, "v4.base64.channel.k8s.io");
    let message = String::from_utf8(std::iter::from_fn(|| socket.next()).last().expect("one")).expect("text");
    assert!(message.starts_with('3'), "{message}");
}

fn exec_by_spdy(cluster: &Cluster) {
    let headers = [("Upgrade", "SPDY/3.1"), ("X-Stream-Protocol-Version", "v4.channel.k8s.io")];
    let (stream, answer) = cluster.upgrade(&shell("cat; exit 4", "stdin=1&stdout=1"), &headers);
    assert_eq!((answer.code, answer.header("x-stream-protocol-version")), (101, Some("v4.channel.k8s.io")));
    let mut spdy = Spdy::new(stream);
    let [error, stdin, stdout] = ["error", "stdin", "stdout"].map(|kind| spdy.open(&[("streamType", kind)]));
    spdy.send(stdin, b"through ", false);
    spdy.send(stdin, b"SPDY", true);
    assert_eq!(spdy.rest(stdout, &mut Vec::new()), "through SPDY");
    let outcome: Value = serde_json::from_str(&spdy.rest(error, &mut Vec::new())).expect("a Status");
    assert_eq!(outcome["details"]["causes"][0]["message"], "4");
    // Clients that name no protocol speak the first one, whose outcome is a text.
    let (stream, answer) = cluster.upgrade(&shell("exit 4", "stdout=1"), &headers[..1]);
    assert_eq!((answer.code, answer.header("x-stream-protocol-version")), (101, None));
    let mut spdy = Spdy::new(stream);
    let [error, _] = ["error", "stdout"].map(|kind| spdy.open(&[("streamType", kind)]));
    let want = "command terminated with non-zero exit code: exit status 4";
    assert_eq!(spdy.rest(error, &mut Vec::new()), want);
}

fn attach(cluster: &Cluster) {
    let attached = |pod: &str| web_socket(cluster, &format!("{PODS}/{pod}/attach?stdout=1"), "v4.channel.k8s.io");
    let mut socket = attached("web");
    assert_eq!(socket.next().as_deref(), Some(&b"\x01"[..]), "the connection works");
    let line = socket.next().expect("it is probed");
    assert!(line.starts_with(b"\x01\"GET /ready"), "{line:?}");
    // A shell that waits for its input is the container's own process.
    let shell = json!({"name": "sh", "image": "busybox", "stdin": true});
    cluster.create(
        PODS,
        &json!({"metadata": {"name": "shell"},
        "spec": {"restartPolicy": "Never", "containers": [shell]}}),
    );
    let phase = || cluster.get(&format!("{PODS}/shell")).json()["status"]["phase"].clone();
    cluster.wait_for("the shell runs", || phase() == "Running");
    let path = format!("{PODS}/shell/attach?stdin=1&stdout=1&stderr=1");
    let mut socket = web_socket(cluster, &path, "v4.channel.k8s.io");
    socket.send(b"\0echo hi; exit 5\n");
    let [_, out, _, outcome] = socket.rest();
    assert!(out == "hi\n" && outcome.contains("\"message\":\"5\""), "{out} {outcome}");
    cluster.wait_for("the pod has failed", || phase() == "Failed");
    assert_eq!(cluster.get(&format!("{PODS}/shell/log")).text(), "hi\n");
}

fn forward_by_spdy(cluster: &Cluster) {
    let headers = [("Upgrade", "SPDY/3.1"), ("X-Stream-Protocol-Version", "portforward.k8s.io")];
    let (stream, answer) = cluster.upgrade(&format!("{PODS}/web/portforward"), &headers);
    assert_eq!(answer.code, 101);
    let mut spdy = Spdy::new(stream);
    for (request, port, part) in
        [("0", "80", "simulated: container nginx of pod default/web, port 80"), ("1", "81", "refused")]
    {
        let pair = |kind| [("streamtype", kind), ("port", port), ("requestid", request)];
        let (error, data) = (spdy.open(&pair("error")), spdy.open(&pair("data")));
        spdy.send(data, b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n", false);
        let mut refused = Vec::new();
        let answer = spdy.rest(data, &mut refused);
        let all = answer + &String::from_utf8_lossy(&refused);
        assert!(all.contains(part), "{all}");
        assert_ne!(error, data);
    }
}

/// The WebSocket lasts as long as the longest of its connections.
fn forward_by_channels(cluster: &Cluster) {
    let forward = |ports| web_socket(cluster, &format!("{PODS}/web/portforward?ports={ports}"), "v4.channel.k8s.io");
    let mut socket = forward("80,80");
    for channel in 0..4 {
        assert_eq!(socket.next(), Some(vec![channel, 80, 0]));
    }
    for channel in ["\0", "\u{2}"] {
        socket.send(format!("{channel}GET /x HTTP/1.0\r\n\r\n").as_bytes());
        let answer = String::from_utf8(socket.next().expect("it answers")).expect("text");
        assert!(answer.starts_with(&format!("{channel}HTTP/1.1 200 OK")) && answer.ends_with("GET /x\n"), "{answer}");
    }
    assert_eq!(socket.next(), None, "the last connection has ended");
    let [_, refused, ..] = forward("81").rest();
    assert!(refused.starts_with("Q\0error forwarding port 81 to pod"), "{refused}");
}
