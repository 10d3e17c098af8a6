//! Probes and hooks, carried out against real containers.
//!
//! Source: kubernetes `pkg/probe/{exec,http,tcp,grpc}`, `pkg/kubelet/lifecycle/handlers.go`.

use std::time::Duration;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http2;
use hyper::header::CONTENT_TYPE;
use hyper::{Method, Request};
use hyper_util::rt::{TokioExecutor, TokioIo};
use k8s_openapi::api::core::v1 as core_v1;
use serde_json::json;
use skeg_core::agent::{HOOK_FELL_BACK, PROBE_ERRORED};
use skeg_core::object::IntOrString;
use tokio::net::TcpStream;

use super::engine::{Engine, Failure};
use super::http::{self, Caller};
use super::logs::Frames;

/// Longest part of a process's output or of a response that is read (`maxReadLength` and `maxRespBodyLength`).
pub(super) const LONGEST: usize = 10 << 10;

/// What is to be done, as plain values.
#[derive(Clone, Debug)]
pub enum Action {
    /// A probe.
    Probe(core_v1::Probe),
    /// A hook.
    Hook(core_v1::LifecycleHandler),
}

/// Why it did not succeed.
#[derive(Debug)]
pub enum Why {
    /// It was carried out, and failed.
    Failed(String),
    /// It could not be carried out.
    Errored(String),
    /// It was asked for by HTTPS, and this `host:port` has answered by HTTP only.
    FellBack(String),
}

impl Why {
    /// Reason and message for the agent.
    pub fn told(self) -> (&'static str, String) {
        match self {
            Why::Failed(message) => ("Unhealthy", message),
            Why::Errored(message) => (PROBE_ERRORED, message),
            Why::FellBack(at) => (HOOK_FELL_BACK, at),
        }
    }
}

/// Carries out a probe or a hook.
pub async fn run(
    engine: &Engine,
    container: &str,
    action: Action,
    timeout: Duration,
    address: Option<String>,
) -> Result<(), Why> {
    let address = address.unwrap_or_else(|| "127.0.0.1".to_owned());
    match action {
        Action::Probe(probe) => {
            if let Some(exec) = probe.exec {
                return exec_probe(engine, container, exec.command.unwrap_or_default(), timeout).await;
            }
            if let Some(get) = probe.http_get {
                return http::get(&get, &address, Caller::Probe, timeout).await;
            }
            if let Some(tcp) = probe.tcp_socket {
                let host = tcp.host.filter(|host| !host.is_empty()).unwrap_or(address);
                return tcp_connect(&host, number(&tcp.port)?, timeout).await.map(drop);
            }
            if let Some(grpc) = probe.grpc {
                let service = grpc.service.unwrap_or_default();
                let health = grpc_health(&address, grpc.port, &service);
                let late = || Err(Why::Failed(format!("timeout: health rpc did not complete within {timeout:?}")));
                return tokio::time::timeout(timeout, health).await.unwrap_or_else(|_| late());
            }
            Err(Why::Errored("missing probe handler".to_owned()))
        }
        Action::Hook(hook) => {
            if let Some(exec) = hook.exec {
                let command = exec.command.unwrap_or_default();
                let shown = command.clone();
                return exec_probe(engine, container, command, timeout).await.map_err(|why| match why {
                    Why::Failed(output) => {
                        Why::Failed(format!("Exec lifecycle hook ({shown:?}) for Container failed - error: {output:?}"))
                    }
                    other @ (Why::Errored(_) | Why::FellBack(_)) => other,
                });
            }
            if let Some(get) = hook.http_get {
                return http::get(&get, &address, Caller::Hook, timeout).await;
            }
            if let Some(sleep) = hook.sleep {
                tokio::time::sleep(Duration::from_secs(u64::try_from(sleep.seconds).unwrap_or(0))).await;
            }
            // A hook of a socket has never done anything.
            Ok(())
        }
    }
}

pub(super) fn number(port: &IntOrString) -> Result<u16, Why> {
    let number = match port {
        IntOrString::Int(number) => u16::try_from(*number).ok(),
        IntOrString::String(_) => None,
    };
    let name = || match port {
        IntOrString::Int(number) => number.to_string(),
        IntOrString::String(name) => name.clone(),
    };
    number.filter(|n| *n > 0).ok_or_else(|| Why::Errored(format!("couldn't find port: {:?}", name())))
}

async fn exec_probe(engine: &Engine, container: &str, command: Vec<String>, timeout: Duration) -> Result<(), Why> {
    let shown = command.join(" ");
    match tokio::time::timeout(timeout, exec(engine, container, command)).await {
        Err(_) => Err(Why::Failed(format!("command {shown:?} timed out"))),
        Ok(Ok((0, _))) => Ok(()),
        Ok(Ok((_, output))) => Err(Why::Failed(output)),
        Ok(Err(e @ Failure::Unreachable(_))) => Err(Why::Errored(e.to_string())),
        // The container does not run any more, or has no such program.
        Ok(Err(e)) => Err(Why::Failed(e.to_string())),
    }
}

/// Runs a command in a container; returns its exit code and what it wrote.
pub async fn exec(engine: &Engine, container: &str, command: Vec<String>) -> Result<(i64, String), Failure> {
    let wanted = json!({"AttachStdout": true, "AttachStderr": true, "Cmd": command});
    let made = engine.post(&format!("/containers/{container}/exec"), Some(&wanted)).await?;
    let id = made["Id"].as_str().unwrap_or_default();
    let body = Bytes::from_static(br#"{"Detach":false,"Tty":false}"#);
    let mut body = engine.stream(Method::POST, &format!("/exec/{id}/start"), "application/json", body).await?;
    let (mut frames, mut output) = (Frames::new(false), Vec::new());
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|e| Failure::Unreachable(e.to_string()))?;
        for (_, piece) in frame.data_ref().map(|data| frames.take(data)).unwrap_or_default() {
            let room = LONGEST.saturating_sub(output.len());
            output.extend_from_slice(&piece[..piece.len().min(room)]);
        }
    }
    let ended = engine.get(&format!("/exec/{id}/json")).await?;
    Ok((ended["ExitCode"].as_i64().unwrap_or(-1), String::from_utf8_lossy(&output).into_owned()))
}

pub(super) async fn tcp_connect(host: &str, port: u16, timeout: Duration) -> Result<TcpStream, Why> {
    let at = if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
    match tokio::time::timeout(timeout, TcpStream::connect(&at)).await {
        Err(_) => Err(Why::Failed(format!("dial tcp {at}: i/o timeout"))),
        Ok(Err(e)) => Err(Why::Failed(format!("dial tcp {at}: connect: {}", in_words(&e)))),
        Ok(Ok(stream)) => Ok(stream),
    }
}

/// An error of the system in the words of Go: without its number.
fn in_words(e: &std::io::Error) -> String {
    let text = e.to_string().to_lowercase();
    text.split(" (os error").next().unwrap_or_default().to_owned()
}

/// Asks gRPC's health service (<https://github.com/grpc/grpc/blob/master/doc/health-checking.md>).
async fn grpc_health(address: &str, port: i32, service: &str) -> Result<(), Why> {
    let at = format!("{address}:{port}");
    let unhealthy = |why: String| Why::Failed(format!("error: health rpc failed: {why}"));
    let stream = TcpStream::connect(&at).await;
    let stream =
        stream.map_err(|e| Why::Failed(format!("timeout: failed to connect service {at:?}: {}", in_words(&e))))?;
    let (mut sender, connection) =
        http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.map_err(|e| unhealthy(e.to_string()))?;
    tokio::spawn(connection);
    // `HealthCheckRequest { service = 1 }`, behind its flag and length.
    let mut message = Vec::new();
    if let (false, Ok(length)) = (service.is_empty(), u8::try_from(service.len()))
        && length < 0x80
    {
        message.extend([0x0a, length]);
        message.extend(service.as_bytes());
    }
    let mut body = vec![0];
    body.extend((message.len() as u32).to_be_bytes());
    body.extend(message);
    let request = Request::builder().method(Method::POST).uri(format!("http://{at}/grpc.health.v1.Health/Check"));
    let request = request.header(CONTENT_TYPE, "application/grpc").header("te", "trailers");
    let request = request.body(Full::new(Bytes::from(body))).map_err(|e| Why::Errored(e.to_string()))?;
    let response = sender.send_request(request).await.map_err(|e| unhealthy(e.to_string()))?;
    let early = response.headers().get("grpc-status").cloned();
    let collected = Limited::new(response.into_body(), LONGEST).collect().await;
    let collected = collected.map_err(|e| unhealthy(e.to_string()))?;
    let status = collected.trailers().and_then(|t| t.get("grpc-status").cloned()).or(early);
    match status.as_ref().and_then(|status| status.to_str().ok()) {
        Some("0") => {}
        Some("12") => {
            return Err(Why::Failed("error: this server does not implement the grpc health protocol".to_owned()));
        }
        code => return Err(unhealthy(format!("code = {}", code.unwrap_or("unknown")))),
    }
    // `HealthCheckResponse { status = 1 }`: SERVING is 1.
    match collected.to_bytes().get(5..) {
        Some([0x08, 1, ..]) => Ok(()),
        _ => Err(Why::Failed("service unhealthy (responded with \"NOT_SERVING\")".to_owned())),
    }
}
