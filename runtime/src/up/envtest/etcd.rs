//! `etcd`: answers its health check, and owns the directory where the API server stores its data.
//!
//! It does not serve etcd's gRPC API. Only a `kube-apiserver` of this binary can use it, and asks it over HTTP for the
//! directory.

use std::convert::Infallible;
use std::ffi::OsString;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::path::PathBuf;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::CONTENT_TYPE;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

use crate::Exit;
use crate::disk::explain;

/// Path under which the API server requests [`Data`].
const DATA: &str = "/skeg/data";
/// Time-out of that request, and of receiving the head of a request.
const PATIENCE: Duration = Duration::from_secs(10);

/// Where the API server must store its data.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct Data {
    /// An absolute path.
    pub(super) dir: PathBuf,
    /// Whether acknowledged commits must survive a crash of the host.
    pub(super) fsync: bool,
}

/// The etcd of envtest: it answers its health check and owns the data directory of skeg's kube-apiserver.
#[derive(clap::Parser, Debug)]
#[command(name = "etcd", disable_version_flag = true, max_term_width = 100)]
struct EtcdArgs {
    /// Where the data is kept.
    #[arg(long, value_name = "DIR", default_value = "default.etcd")]
    data_dir: PathBuf,
    /// Addresses to listen at for clients.
    #[arg(long, value_name = "URLS", default_value = "http://localhost:2379", value_delimiter = ',')]
    listen_client_urls: Vec<String>,
    /// Give up durability if the machine stops, for speed.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_value = "false", default_missing_value = "true",
        require_equals = true)]
    unsafe_no_fsync: bool,
    /// Accepted, without effect: there are no other members.
    #[arg(long, value_name = "URLS")]
    listen_peer_urls: Option<String>,
    /// Accepted, without effect: there are no other members.
    #[arg(long, value_name = "URLS")]
    initial_advertise_peer_urls: Option<String>,
    /// Accepted, without effect: there are no other members.
    #[arg(long, value_name = "MEMBERS")]
    initial_cluster: Option<String>,
    /// Accepted, without effect: there are no other members.
    #[arg(long, value_name = "URLS")]
    advertise_client_urls: Option<String>,
    /// Accepted, without effect.
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Accepted, without effect.
    #[arg(long, value_name = "LEVEL")]
    log_level: Option<String>,
    /// Accepted, without effect: the journal is cut short by itself.
    #[arg(long, value_name = "MODE")]
    auto_compaction_mode: Option<String>,
    /// Accepted, without effect: the journal is cut short by itself.
    #[arg(long, value_name = "RETENTION")]
    auto_compaction_retention: Option<String>,
    /// Accepted, without effect: there is no quota.
    #[arg(long, value_name = "BYTES")]
    quota_backend_bytes: Option<String>,
}

/// Parses `http://host:port` and resolves the host.
fn address(url: &str) -> Result<SocketAddr, String> {
    let bad = |why: &str| format!("error: {url}: {why}; clients are listened to at http://HOST:PORT");
    let host = url.strip_prefix("http://").ok_or_else(|| bad("only http is served"))?;
    let mut found = host.trim_end_matches('/').to_socket_addrs().map_err(|e| bad(&e.to_string()))?;
    found.next().ok_or_else(|| bad("the host has no address"))
}

pub(super) fn run(args: Vec<OsString>) -> Result<Exit, String> {
    let args: EtcdArgs = match super::parse(args) {
        Ok(args) => args,
        Err(ended) => return ended,
    };
    let error = |e: &std::io::Error| format!("error: {}: {}", args.data_dir.display(), explain(e));
    std::fs::create_dir_all(&args.data_dir).map_err(|e| error(&e))?;
    let dir = std::fs::canonicalize(&args.data_dir).map_err(|e| error(&e))?;
    let data = Data { dir, fsync: !args.unsafe_no_fsync };
    let addresses = args.listen_client_urls.iter().map(|url| address(url)).collect::<Result<Vec<_>, _>>()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|e| format!("error: threads could not be started: {}", explain(&e)))?;
    runtime.block_on(async {
        let signals = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()));
        let (Ok(mut term), Ok(mut int)) = signals else {
            return Err("error: signals cannot be listened to".to_owned());
        };
        for address in addresses {
            let listener = TcpListener::bind(address).await;
            let listener = listener.map_err(|e| format!("error: {address}: {}", explain(&e)))?;
            tokio::spawn(serve(listener, data.clone()));
        }
        tokio::select! {
            _ = term.recv() => {}
            _ = int.recv() => {}
        }
        Ok(Exit::Well)
    })
}

async fn serve(listener: TcpListener, data: Data) {
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            // Too many open files, or the client has disconnected: retried after a moment.
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let data = data.clone();
        let service = service_fn(move |request| {
            let answer = answer(&request, &data);
            async move { Ok::<_, Infallible>(answer) }
        });
        let mut builder = http1::Builder::new();
        builder.timer(TokioTimer::new()).header_read_timeout(PATIENCE);
        tokio::spawn(builder.serve_connection(TokioIo::new(stream), service));
    }
}

fn answer(request: &Request<Incoming>, data: &Data) -> Response<Full<Bytes>> {
    let (code, body) = match request.uri().path() {
        "/health" | "/livez" | "/readyz" => (StatusCode::OK, json!({"health": "true", "reason": ""})),
        "/version" => (StatusCode::OK, json!({"etcdserver": "3.6.0", "etcdcluster": "3.6.0"})),
        DATA => (StatusCode::OK, json!(data)),
        _ => (StatusCode::NOT_FOUND, json!({"error": "this etcd belongs to skeg's kube-apiserver, and has no API"})),
    };
    let mut response = Response::new(Full::new(Bytes::from(body.to_string())));
    *response.status_mut() = code;
    response.headers_mut().insert(CONTENT_TYPE, hyper::header::HeaderValue::from_static("application/json"));
    response
}

/// Asks an etcd of this binary where the API server must store its data.
pub(super) fn data_of(url: &str) -> Result<Data, String> {
    let address = address(url)?;
    let foreign = || {
        format!(
            "error: {url}: is no etcd of `skeg envtest-assets`; a real one cannot be used by this kube-apiserver yet"
        )
    };
    let ask = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        write!(stream, "GET {DATA} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
        let mut text = String::new();
        stream.take(64 << 10).read_to_string(&mut text)?;
        Ok(text)
    };
    let text = ask().map_err(|e| format!("error: {url}: {}", explain(&e)))?;
    let (head, body) = text.split_once("\r\n\r\n").ok_or_else(foreign)?;
    if !head.starts_with("HTTP/1.1 200") {
        return Err(foreign());
    }
    serde_json::from_str(body).map_err(|_| foreign())
}
