//! The API over HTTP: `skeg up` in a process of its own, and this process as its one client.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::client::conn::{http1, http2};
use hyper::{Method, Request};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::Figure;

/// Connections of the one client process.
const CONNECTIONS: usize = 50;
const PODS: usize = 10_000;
const WATCHERS: usize = 1_000;
/// Watches on one connection; HTTP/2 carries at most 250.
const WATCHES_PER_CONNECTION: usize = 100;
/// Changes that each watcher is told of.
const CHANGES: usize = 200;
const LISTED: usize = 150_000;
const LEASES: usize = 500;
/// How long leases are renewed, each once a second, while all pods are listed again and again.
const RENEWING: Duration = Duration::from_secs(20);

pub const PODS_PATH: &str = "/api/v1/namespaces/default/pods";
const MAPS_PATH: &str = "/api/v1/namespaces/default/configmaps";
const LEASES_PATH: &str = "/apis/coordination.k8s.io/v1/namespaces/default/leases";

pub type Result<T> = std::result::Result<T, String>;

pub fn explain(e: impl std::fmt::Display) -> String {
    e.to_string()
}

/// A process and its directory, both of which go when it is dropped.
pub struct Process {
    pub child: Child,
    pub dir: PathBuf,
}

/// `skeg up` in a process of its own, until it is dropped.
pub struct Server {
    process: Process,
    address: String,
    tls: Arc<ClientConfig>,
    /// From the start of the process to its first answer.
    boot: Duration,
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself, and what it wrote is of no use.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

/// The binary beside this one.
pub fn binary() -> Result<PathBuf> {
    let own = std::env::current_exe().map_err(explain)?;
    let path = own.with_file_name("skeg");
    match path.exists() {
        true => Ok(path),
        false => Err(format!("{}: it is not there; `cargo xtask bench` builds it", path.display())),
    }
}

/// TLS as the administrator that a kubeconfig names.
pub fn administrator(kubeconfig: &Value) -> Result<ClientConfig> {
    let pem = |pointer: &str| {
        let text = kubeconfig.pointer(pointer).and_then(Value::as_str);
        let text = text.ok_or_else(|| format!("the kubeconfig has no {pointer}"))?;
        STANDARD.decode(text).map_err(explain)
    };
    let mut roots = RootCertStore::empty();
    let authority = pem("/clusters/0/cluster/certificate-authority-data")?;
    roots.add(CertificateDer::from_pem_slice(&authority).map_err(explain)?).map_err(explain)?;
    let certificate = pem("/users/0/user/client-certificate-data")?;
    let certificate = CertificateDer::from_pem_slice(&certificate).map_err(explain)?;
    let key = PrivateKeyDer::from_pem_slice(&pem("/users/0/user/client-key-data")?).map_err(explain)?;
    let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()));
    let builder = builder.with_safe_default_protocol_versions().map_err(explain)?.with_root_certificates(roots);
    builder.with_client_auth_cert(vec![certificate], key).map_err(explain)
}

impl Server {
    /// Starts one without nodes, so that nothing but the API is measured.
    pub async fn start(name: &str, args: &[&str]) -> Result<Server> {
        Server::start_with(name, &[&["--nodes", "0"], args].concat()).await
    }

    /// Starts one with these arguments.
    pub async fn start_with(name: &str, args: &[&str]) -> Result<Server> {
        let dir = std::env::temp_dir().join(format!("skeg-bench-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&dir).map_err(explain)?;
        let (kubeconfig, data) = (dir.join("kubeconfig"), dir.join("data"));
        let mut command = Command::new(binary()?);
        command.args(["up", "--listen", "127.0.0.1:0", "--kubeconfig"]).arg(&kubeconfig).args(args);
        if !args.contains(&"--in-memory") {
            command.arg("--data-dir").arg(data);
        }
        let begun = Instant::now();
        let child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().map_err(explain)?;
        let mut process = Process { child, dir };
        let mut line = String::new();
        let out = process.child.stdout.take().expect("it is piped");
        BufReader::new(out).read_line(&mut line).map_err(explain)?;
        let text = std::fs::read_to_string(&kubeconfig).map_err(|e| format!("skeg up did not begin: {e}"))?;
        let config: Value = serde_saphyr::from_str(&text).map_err(explain)?;
        let address = config.pointer("/clusters/0/cluster/server").and_then(Value::as_str).unwrap_or_default();
        let address = address.trim_start_matches("https://").to_owned();
        let mut server = Server::at(process, address, administrator(&config)?).await?;
        server.boot = begun.elapsed();
        let account = "/api/v1/namespaces/default/serviceaccounts/default";
        while server.connect().await?.send(Method::GET, account, &Value::Null).await?.0 != 200 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Ok(server)
    }

    /// One that has been started, once it is ready.
    pub async fn at(process: Process, address: String, tls: ClientConfig) -> Result<Server> {
        let server = Server { process, address, tls: Arc::new(tls), boot: Duration::ZERO };
        let mut last = String::new();
        for _ in 0..30_000 {
            match server.connect().await {
                Ok(mut client) => {
                    if client.send(Method::GET, "/readyz", &Value::Null).await?.0 == 200 {
                        return Ok(server);
                    }
                }
                Err(why) => last = why,
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        Err(format!("the server does not become ready: {last}"))
    }

    /// Ends it in order, so that nothing of it is left.
    pub fn end(mut self) -> Result<()> {
        let asked = Command::new("kill").arg(self.process.child.id().to_string()).status().map_err(explain)?;
        let ended = self.process.child.wait().map_err(explain)?;
        if asked.success() && ended.success() { Ok(()) } else { Err(format!("it did not end well: {ended}")) }
    }

    async fn stream(&self, protocol: Option<&[u8]>) -> Result<TlsStream<TcpStream>> {
        let mut config = ClientConfig::clone(&self.tls);
        config.alpn_protocols = protocol.into_iter().map(<[u8]>::to_vec).collect();
        let stream = TcpStream::connect(&self.address).await.map_err(explain)?;
        stream.set_nodelay(true).map_err(explain)?;
        let name = ServerName::try_from("127.0.0.1").map_err(explain)?;
        TlsConnector::from(Arc::new(config)).connect(name, stream).await.map_err(explain)
    }

    pub async fn connect(&self) -> Result<Client> {
        let io = TokioIo::new(self.stream(None).await?);
        let (sender, connection) = http1::handshake(io).await.map_err(explain)?;
        tokio::spawn(connection);
        Ok(Client(sender))
    }

    /// Resident memory, in bytes.
    pub fn rss(&self) -> Result<u64> {
        rss_of(self.process.child.id())
    }

    /// Creates objects over all connections; returns how many a second.
    pub async fn create(&self, path: &'static str, count: usize, object: fn(usize) -> Value) -> Result<f64> {
        let mut clients = Vec::new();
        for _ in 0..CONNECTIONS {
            clients.push(self.connect().await?);
        }
        let next = Arc::new(AtomicUsize::new(0));
        let begun = Instant::now();
        let work = clients.into_iter().map(|mut client| {
            let next = Arc::clone(&next);
            tokio::spawn(async move {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= count {
                        return Ok(());
                    }
                    let (code, body) = client.send(Method::POST, path, &object(number)).await?;
                    if code != 201 {
                        return Err(format!("{path}: {code}: {}", String::from_utf8_lossy(&body)));
                    }
                }
            })
        });
        for client in work.collect::<Vec<_>>() {
            client.await.map_err(explain)??;
        }
        Ok(count as f64 / begun.elapsed().as_secs_f64())
    }
}

/// Resident memory of a process, in bytes.
pub fn rss_of(process: u32) -> Result<u64> {
    let path = Path::new("/proc").join(process.to_string()).join("status");
    let status = std::fs::read_to_string(path).map_err(explain)?;
    let kilobytes = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes = kilobytes.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
    kilobytes.map(|kilobytes| kilobytes << 10).ok_or_else(|| "/proc says nothing of memory".to_owned())
}

/// A connection that carries one request after the other.
pub struct Client(http1::SendRequest<Full<Bytes>>);

fn request(method: Method, path: &str, body: &Value) -> Request<Full<Bytes>> {
    let bytes = if body.is_null() { Bytes::new() } else { Bytes::from(body.to_string()) };
    let request = Request::builder().method(method).uri(path).header("Host", "127.0.0.1");
    request.header("Content-Type", "application/json").body(Full::new(bytes)).expect("it is well-formed")
}

impl Client {
    pub async fn send(&mut self, method: Method, path: &str, body: &Value) -> Result<(u16, Bytes)> {
        self.0.ready().await.map_err(explain)?;
        let response = self.0.send_request(request(method, path, body)).await.map_err(explain)?;
        let code = response.status().as_u16();
        Ok((code, response.into_body().collect().await.map_err(explain)?.to_bytes()))
    }
}

/// A pod as a ReplicaSet makes it, with a probe, resources and an environment.
pub fn pod(number: usize) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": format!("web-{number}"), "labels": {"app": "web", "pod-template-hash": "5d4f8c7b9"}},
        "spec": {"containers": [{"name": "main", "image": "registry.example/web:1",
            "ports": [{"containerPort": 8080}],
            "env": [{"name": "LOG_LEVEL", "value": "info"}, {"name": "REGION", "value": "north"}],
            "readinessProbe": {"httpGet": {"path": "/healthz", "port": 8080}},
            "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"memory": "256Mi"}}}]}})
}

fn lease(number: usize) -> Value {
    json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": format!("node-{number}")},
        "spec": {"holderIdentity": format!("node-{number}"), "leaseDurationSeconds": 40,
            "renewTime": "2026-01-01T00:00:00.000000Z"}})
}

fn map(number: usize) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": format!("map-{number}")},
        "data": {"key": "a value of some length, as people write them"}})
}

pub fn median(mut all: Vec<f64>) -> f64 {
    all.sort_by(f64::total_cmp);
    all[all.len() / 2]
}

async fn boots() -> Result<Vec<Figure>> {
    let mut boots = Vec::new();
    for _ in 0..5 {
        boots.push(Server::start("boot", &["--in-memory"]).await?.boot.as_secs_f64() * 1000.0);
    }
    let server = Server::start("idle", &["--in-memory"]).await?;
    let mut client = server.connect().await?;
    for path in ["/openapi/v2", "/openapi/v3", "/openapi/v3/api/v1", "/openapi/v3/apis/apps/v1"] {
        client.send(Method::GET, path, &Value::Null).await?;
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    let idle = server.rss()? as f64 / 1e6;
    Ok(vec![
        Figure { name: "api/boot-ms", value: median(boots), unit: "ms" },
        Figure { name: "api/idle-rss", value: idle, unit: "MB" },
    ])
}

async fn creates() -> Result<Vec<Figure>> {
    let server = Server::start("memory", &["--in-memory"]).await?;
    let in_memory = server.create(PODS_PATH, PODS, pod).await?;
    let mut client = server.connect().await?;
    let mut lists = Vec::new();
    for _ in 0..7 {
        let begun = Instant::now();
        let (code, body) = client.send(Method::GET, "/api/v1/pods", &Value::Null).await?;
        lists.push(begun.elapsed().as_secs_f64() * 1000.0);
        if code != 200 || body.len() < PODS * 100 {
            return Err(format!("a list of pods: {code}, {} bytes", body.len()));
        }
    }
    drop(server);
    let durable = Server::start("durable", &[]).await?.create(PODS_PATH, PODS, pod).await?;
    Ok(vec![
        Figure { name: "api/create-memory", value: in_memory, unit: "pods/s" },
        Figure { name: "api/list-10k-ms", value: median(lists), unit: "ms" },
        Figure { name: "api/create-durable", value: durable, unit: "pods/s" },
    ])
}

async fn watches() -> Result<Vec<Figure>> {
    let server = Server::start("watch", &["--in-memory"]).await?;
    let (seen, began) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicUsize::new(0)));
    let mut watchers = Vec::new();
    for _ in 0..WATCHERS / WATCHES_PER_CONNECTION {
        let io = TokioIo::new(server.stream(Some(b"h2")).await?);
        let (sender, connection) = http2::handshake(TokioExecutor::new(), io).await.map_err(explain)?;
        tokio::spawn(connection);
        for _ in 0..WATCHES_PER_CONNECTION {
            let (mut sender, seen, began) = (sender.clone(), Arc::clone(&seen), Arc::clone(&began));
            let uri =
                format!("https://127.0.0.1{MAPS_PATH}?watch=true&resourceVersion=0&fieldSelector=metadata.name%21%3Dx");
            watchers.push(tokio::spawn(async move {
                let response = sender.send_request(request(Method::GET, &uri, &Value::Null)).await.map_err(explain)?;
                began.fetch_add(1, Ordering::Relaxed);
                let mut body = response.into_body();
                while let Some(frame) = body.frame().await {
                    let frame = frame.map_err(explain)?;
                    let lines = frame.data_ref().map_or(0, |data| data.iter().filter(|b| **b == b'\n').count());
                    seen.fetch_add(lines as u64, Ordering::Relaxed);
                }
                Ok::<(), String>(())
            }));
        }
    }
    while began.load(Ordering::Relaxed) < WATCHERS {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    // What was there when they began is no change.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let before = seen.load(Ordering::Relaxed);
    let begun = Instant::now();
    server.create(MAPS_PATH, CHANGES, map).await?;
    let expected = (WATCHERS * CHANGES) as u64;
    while seen.load(Ordering::Relaxed) - before < expected {
        if begun.elapsed() > Duration::from_secs(120) {
            return Err(format!("of {expected} events {} came", seen.load(Ordering::Relaxed) - before));
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let rate = expected as f64 / begun.elapsed().as_secs_f64();
    watchers.iter().for_each(tokio::task::JoinHandle::abort);
    Ok(vec![Figure { name: "api/watch-1000", value: rate, unit: "events/s" }])
}

async fn leases() -> Result<Vec<Figure>> {
    let server = Arc::new(Server::start("leases", &["--in-memory"]).await?);
    server.create(PODS_PATH, LISTED, pod).await?;
    server.create(LEASES_PATH, LEASES, lease).await?;
    let over = Arc::new(AtomicBool::new(false));
    let lists = {
        let (mut client, over) = (server.connect().await?, Arc::clone(&over));
        tokio::spawn(async move {
            let mut lists = 0;
            while !over.load(Ordering::Relaxed) {
                client.send(Method::GET, "/api/v1/pods", &Value::Null).await?;
                lists += 1;
            }
            Ok::<usize, String>(lists)
        })
    };
    let mut renewers = Vec::new();
    for connection in 0..CONNECTIONS {
        let (mut client, over) = (server.connect().await?, Arc::clone(&over));
        renewers.push(tokio::spawn(async move {
            let mut tick = tokio::time::interval(Duration::from_secs(1) / (LEASES / CONNECTIONS) as u32);
            // As a kubelet does, each is written as it was answered last.
            let own = (connection..LEASES).step_by(CONNECTIONS);
            let mut held: VecDeque<(String, Value)> = VecDeque::new();
            for number in own {
                let path = format!("{LEASES_PATH}/node-{number}");
                let (_, body) = client.send(Method::GET, &path, &Value::Null).await?;
                held.push_back((path, serde_json::from_slice(&body).map_err(explain)?));
            }
            let mut took = Vec::new();
            while !over.load(Ordering::Relaxed) {
                tick.tick().await;
                let (path, lease) = held.pop_front().expect("it has some");
                let begun = Instant::now();
                let (code, body) = client.send(Method::PUT, &path, &lease).await?;
                took.push(begun.elapsed().as_secs_f64() * 1000.0);
                if code != 200 {
                    return Err(format!("{path}: {code}: {}", String::from_utf8_lossy(&body)));
                }
                held.push_back((path, serde_json::from_slice(&body).map_err(explain)?));
            }
            Ok(took)
        }));
    }
    tokio::time::sleep(RENEWING).await;
    over.store(true, Ordering::Relaxed);
    let mut took = Vec::new();
    for renewer in renewers {
        took.extend(renewer.await.map_err(explain)??);
    }
    let lists = lists.await.map_err(explain)??;
    took.sort_by(f64::total_cmp);
    Ok(vec![
        Figure { name: "api/lease-p99-during-list", value: took[took.len() * 99 / 100], unit: "ms" },
        Figure { name: "api/lists-during-leases", value: lists as f64, unit: "lists" },
    ])
}

/// One group of the figures.
pub fn measure(group: &str) -> Result<Vec<Figure>> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.map_err(explain)?.block_on(async {
        match group {
            "api-boot" => boots().await,
            "api-create" => creates().await,
            "api-watch" => watches().await,
            _ => leases().await,
        }
    })
}
