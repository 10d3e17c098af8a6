//! What runs in production: a server on etcd, and an agent with containers in Docker. Each is a process of its own.
//! They need etcd, and root with Docker's engine (`SKEG_DOCKER_SOCKET` names another socket) and a static busybox.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use hyper::Method;
use serde_json::{Value, json};

use crate::Figure;
use crate::api::{PODS_PATH, Process, Result, Server, administrator, binary, explain, median, pod, rss_of};

const CREATED: usize = 10_000;
const NODES: usize = 5_000;
const PODS: usize = 50_000;
/// Pods of the agent whose memory is measured.
const CONTAINERS: usize = 50;
/// Pods, and as many pairs of plain containers, whose start is timed.
const STARTS: usize = 15;
const IMAGE: &str = "skeg-bench-busybox:1";
/// How long something may take that others have to do.
const PATIENCE: Duration = Duration::from_secs(300);

fn scratch(name: &str) -> Result<PathBuf> {
    let dir = std::env::temp_dir().join(format!("skeg-bench-{name}-{}", std::process::id()));
    std::fs::create_dir_all(&dir).map_err(explain)?;
    Ok(dir)
}

/// An etcd of one member, and its URL. What it writes is safe on disk before it is acknowledged.
fn etcd() -> Result<(Process, String)> {
    let dir = scratch("etcd")?;
    let port = || TcpListener::bind("127.0.0.1:0").and_then(|open| open.local_addr()).map(|at| at.port());
    let url = |port: std::io::Result<u16>| port.map(|port| format!("http://127.0.0.1:{port}")).map_err(explain);
    let (clients, peers) = (url(port())?, url(port())?);
    let mut etcd = Command::new("etcd");
    etcd.args(["--name", "bench", "--quota-backend-bytes", "4294967296", "--data-dir"]).arg(dir.join("data"));
    etcd.args(["--listen-client-urls", &clients, "--advertise-client-urls", &clients]);
    etcd.args(["--listen-peer-urls", &peers, "--initial-advertise-peer-urls", &peers]);
    etcd.args(["--initial-cluster", &format!("bench={peers}")]);
    let child = etcd.stdout(Stdio::null()).stderr(Stdio::null()).spawn().map_err(|e| format!("etcd: {e}"))?;
    let process = Process { child, dir };
    let begun = Instant::now();
    while TcpStream::connect(clients.trim_start_matches("http://")).is_err() {
        if begun.elapsed() > PATIENCE {
            return Err("etcd does not listen".to_owned());
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok((process, clients))
}

fn node(number: usize) -> Value {
    let ready = json!([{"type": "Ready", "status": "True", "reason": "KubeletReady", "message": "it is"}]);
    json!({"apiVersion": "v1", "kind": "Node",
        "metadata": {"name": format!("node-{number}"), "labels": {"topology.kubernetes.io/zone": "a"}},
        "spec": {}, "status": {"conditions": ready, "capacity": {"cpu": "16", "memory": "64Gi", "pods": "110"}}})
}

fn bound(number: usize) -> Value {
    let mut pod = pod(number);
    pod["spec"]["nodeName"] = json!(format!("node-{}", number % NODES));
    pod
}

async fn server() -> Result<Vec<Figure>> {
    let (_etcd, url) = etcd()?;
    let server = Server::start("etcd", &["--etcd", &url]).await?;
    let created = server.create(PODS_PATH, CREATED, pod).await?;
    drop(server);
    let (_etcd, url) = etcd()?;
    let server = Server::start("etcd", &["--etcd", &url]).await?;
    server.create("/api/v1/nodes", NODES, node).await?;
    server.create(PODS_PATH, PODS, bound).await?;
    // What was used in the making is given back.
    tokio::time::sleep(Duration::from_secs(5)).await;
    Ok(vec![
        Figure { name: "server/create-etcd", value: created, unit: "pods/s" },
        Figure { name: "server/rss-5000-nodes", value: server.rss()? as f64 / 1e6, unit: "MB" },
    ])
}

fn socket() -> String {
    std::env::var("SKEG_DOCKER_SOCKET").unwrap_or_else(|_| "/var/run/docker.sock".to_owned())
}

/// Asks Docker's engine.
fn engine(method: &str, path: &str, body: &[u8]) -> Result<Value> {
    let mut stream = UnixStream::connect(socket()).map_err(|e| format!("{}: {e}", socket()))?;
    let head = format!(
        "{method} {path} HTTP/1.0\r\nHost: docker\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body)).map_err(explain)?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).map_err(explain)?;
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    match head.split(' ').nth(1) {
        Some(code) if code.starts_with('2') => Ok(serde_json::from_str(body).unwrap_or(Value::Null)),
        _ => Err(format!("{path}: {answer}")),
    }
}

/// Makes the image of the containers.
fn make_image() -> Result<()> {
    let dir = scratch("image")?;
    std::fs::create_dir_all(dir.join("bin")).map_err(explain)?;
    std::fs::copy("/bin/busybox", dir.join("bin/busybox")).map_err(|e| format!("a static busybox: {e}"))?;
    let tar = Command::new("tar").arg("-C").arg(&dir).args(["-c", "."]).output().map_err(explain)?;
    let (name, tag) = IMAGE.split_once(':').expect("it has a tag");
    engine("POST", &format!("/images/create?fromSrc=-&repo={name}&tag={tag}"), &tar.stdout)?;
    std::fs::remove_dir_all(dir).map_err(explain)
}

fn idle(name: &str, node: Option<&str>) -> Value {
    let container = json!({"name": "c", "image": IMAGE, "command": ["/bin/busybox", "sleep", "3600"]});
    let mut pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": {
        "containers": [container], "terminationGracePeriodSeconds": 0, "automountServiceAccountToken": false}});
    if let Some(node) = node {
        pod["spec"]["nodeName"] = json!(node);
    }
    pod
}

/// What the engine takes for the two containers of a pod.
fn plain(number: usize) -> Result<f64> {
    let begun = Instant::now();
    let mut ids = Vec::new();
    for (image, command) in [("skeg-pause:1", json!(["/pause"])), (IMAGE, json!(["/bin/busybox", "sleep", "3600"]))] {
        let network = ids.first().map_or_else(|| "default".to_owned(), |id| format!("container:{id}"));
        let body = json!({"Image": image, "Cmd": command, "HostConfig": {"NetworkMode": network}});
        let path = format!("/containers/create?name=skeg-bench-{number}-{}", ids.len());
        let made = engine("POST", &path, body.to_string().as_bytes())?;
        let id = made["Id"].as_str().ok_or("a container has no id")?.to_owned();
        engine("POST", &format!("/containers/{id}/start"), b"")?;
        ids.push(id);
    }
    let took = begun.elapsed().as_secs_f64() * 1000.0;
    ids.iter().rev().try_for_each(|id| engine("DELETE", &format!("/containers/{id}?force=1"), b"").map(drop))?;
    Ok(took)
}

/// From the create of a pod until it is Running.
async fn start_pod(server: &Server, name: &str) -> Result<f64> {
    let mut client = server.connect().await?;
    let begun = Instant::now();
    client.send(Method::POST, PODS_PATH, &idle(name, None)).await?;
    loop {
        let (_, body) = client.send(Method::GET, &format!("{PODS_PATH}/{name}"), &Value::Null).await?;
        let pod: Value = serde_json::from_slice(&body).map_err(explain)?;
        if pod["status"]["phase"] == "Running" {
            return Ok(begun.elapsed().as_secs_f64() * 1000.0);
        }
        if begun.elapsed() > PATIENCE {
            return Err(format!("{name} does not run: {}", pod["status"]));
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

async fn starts() -> Result<Figure> {
    let host = format!("unix://{}", socket());
    let server = Server::start_with("docker", &["--docker", "--docker-host", &host, "--in-memory"]).await?;
    start_pod(&server, "first").await?;
    let (mut pods, mut containers) = (Vec::new(), Vec::new());
    for n in 0..STARTS {
        containers.push(plain(n)?);
        pods.push(start_pod(&server, &format!("pod-{n}")).await?);
    }
    let (pods, containers) = (median(pods), median(containers));
    eprintln!("a pod runs after {pods:.0} ms, and its containers alone take {containers:.0} ms");
    server.end()?;
    Ok(Figure { name: "agent/pod-start-overhead-ms", value: pods - containers, unit: "ms" })
}

fn run(args: &[&str]) -> Result<()> {
    let done = Command::new(binary()?).args(args).output().map_err(explain)?;
    if done.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&done.stderr).into_owned()) }
}

async fn memory() -> Result<Figure> {
    let (_etcd, url) = etcd()?;
    let dir = scratch("pki")?;
    let text = |path: PathBuf| path.display().to_string();
    let (keys, config, root) = (text(dir.join("keys")), text(dir.join("node.conf")), text(dir.join("root")));
    let at = TcpListener::bind("127.0.0.1:0").and_then(|open| open.local_addr()).map_err(explain)?.to_string();
    run(&["server", "init", &keys, "--servers", &format!("https://{at}")])?;
    run(&["server", "kubeconfig", &keys, "--node", "bench", "--out", &config])?;
    let mut command = Command::new(binary()?);
    command.args(["server", "--listen", &at, "--etcd", &url, "--pki", &keys]).stderr(Stdio::null());
    let child = command.stdout(Stdio::null()).spawn().map_err(explain)?;
    let admin = std::fs::read_to_string(format!("{keys}/admin.conf")).map_err(explain)?;
    let tls = administrator(&serde_saphyr::from_str(&admin).map_err(explain)?)?;
    let server = Server::at(Process { child, dir }, at, tls).await?;
    let mut command = Command::new(binary()?);
    command.args(["agent", "--docker", "--docker-host", &socket(), "--node-name", "bench", "--kubeconfig", &config]);
    command.args(["--image-gc-high-threshold", "100", "--eviction-hard", "memory.available<1Mi"]);
    let child = command.args(["--root-dir", &root]).stderr(Stdio::null()).spawn().map_err(explain)?;
    let agent = Process { child, dir: scratch("agent")? };
    let mut client = server.connect().await?;
    for n in 0..CONTAINERS {
        let (code, body) = client.send(Method::POST, PODS_PATH, &idle(&format!("p-{n}"), Some("bench"))).await?;
        if code != 201 {
            return Err(String::from_utf8_lossy(&body).into_owned());
        }
    }
    let begun = Instant::now();
    loop {
        let (_, body) = client.send(Method::GET, PODS_PATH, &Value::Null).await?;
        let list: Value = serde_json::from_slice(&body).map_err(explain)?;
        let runs = |pod: &&Value| pod["status"]["phase"] == "Running";
        if list["items"].as_array().is_some_and(|pods| pods.iter().filter(runs).count() == CONTAINERS) {
            break;
        }
        if begun.elapsed() > PATIENCE {
            return Err("the pods do not run".to_owned());
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    tokio::time::sleep(Duration::from_secs(5)).await;
    let used = rss_of(agent.child.id())? as f64 / 1e6;
    let (code, _) = client.send(Method::DELETE, PODS_PATH, &Value::Null).await?;
    let begun = Instant::now();
    while code == 200 && begun.elapsed() < PATIENCE {
        let list = engine("GET", "/containers/json?all=1", b"")?;
        if list.as_array().is_none_or(Vec::is_empty) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    Ok(Figure { name: "agent/rss-50-pods", value: used, unit: "MB" })
}

/// One group of the figures.
pub fn measure(group: &str) -> Result<Vec<Figure>> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.map_err(explain)?.block_on(async {
        match group {
            "server" => server().await,
            _ => {
                make_image()?;
                Ok(vec![starts().await?, memory().await?])
            }
        }
    })
}
