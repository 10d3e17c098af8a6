//! A client of Docker's API over its Unix socket.
//!
//! One connection a request: the engine is on the same host. Replies are JSON values: of a reply of a thousand fields,
//! five are read.
//!
//! Source: <https://docs.docker.com/reference/api/engine/>.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use form_urlencoded::Serializer;
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::header::{CONNECTION, CONTENT_TYPE, HOST, HeaderValue, UPGRADE};
use hyper::upgrade::Upgraded;
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::UnixStream;

/// The newest version of the API that this client knows.
const NEWEST: (u32, u32) = (1, 47);
/// The oldest one that has all that is needed (Docker 20.10).
const OLDEST: (u32, u32) = (1, 41);
/// How long the engine may take to answer a request that asks it to do nothing that takes time.
const PATIENCE: Duration = Duration::from_secs(110);

const JSON: &str = "application/json";

/// What a request asks for beside the usual.
enum Extra {
    None,
    /// A connection to streams.
    Upgrade,
    /// That the registry be asked as this user.
    Auth(HeaderValue),
}

/// Why a request failed.
#[derive(Clone, Debug)]
pub enum Failure {
    /// The engine does not answer: what became of the request is unknown.
    Unreachable(String),
    /// It refused: status code and message.
    Refused(u16, String),
}

impl Failure {
    /// Whether what the request was about does not exist.
    pub fn is_missing(&self) -> bool {
        matches!(self, Failure::Refused(404, _))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Unreachable(why) => write!(f, "Cannot connect to the Docker daemon: {why}"),
            Failure::Refused(_, message) => write!(f, "Error response from daemon: {message}"),
        }
    }
}

/// Docker's engine.
#[derive(Clone, Debug)]
pub struct Engine {
    socket: PathBuf,
    /// `/v1.41`.
    prefix: String,
}

/// A query string.
pub fn query(pairs: &[(&str, &str)]) -> String {
    Serializer::new(String::new()).extend_pairs(pairs).finish()
}

fn version_of(text: &str) -> Option<(u32, u32)> {
    let (major, minor) = text.split_once('.')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

impl Engine {
    /// Connects to the engine at this socket, and agrees on a version of the API.
    pub async fn connect(socket: &Path) -> Result<Engine, String> {
        let mut engine = Engine { socket: socket.to_owned(), prefix: String::new() };
        let at = socket.display();
        let version = engine.get("/version").await.map_err(|e| {
            format!("error: {at}: {e}; is Docker running, and may this user use it? --docker-host names another socket")
        })?;
        let newest = version_of(version["ApiVersion"].as_str().unwrap_or_default());
        let newest = newest.ok_or_else(|| format!("error: {at}: what answers there is not Docker"))?;
        if newest < OLDEST {
            let (major, minor) = newest;
            return Err(format!("error: {at}: this Docker speaks API {major}.{minor}; 1.41 (Docker 20.10) is needed"));
        }
        let (major, minor) = newest.min(NEWEST);
        engine.prefix = format!("/v{major}.{minor}");
        Ok(engine)
    }

    /// Asks for something.
    pub async fn get(&self, path: &str) -> Result<Value, Failure> {
        self.call(Method::GET, path, None).await
    }

    /// Asks the engine to do something.
    pub async fn post(&self, path: &str, body: Option<&Value>) -> Result<Value, Failure> {
        self.call(Method::POST, path, body).await
    }

    /// The same for what takes up to this much longer.
    pub async fn post_slowly(&self, path: &str, longer: Duration) -> Result<Value, Failure> {
        within(PATIENCE + longer, self.exchange(Method::POST, path, None)).await
    }

    /// Asks the engine to remove something. That it is not there is fine.
    pub async fn remove(&self, path: &str) -> Result<(), Failure> {
        match self.call(Method::DELETE, path, None).await {
            Err(e) if e.is_missing() => Ok(()),
            // The same removal is already in progress.
            Err(Failure::Refused(409, why)) if why.contains("already in progress") => Ok(()),
            result => result.map(drop),
        }
    }

    async fn call(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Value, Failure> {
        within(PATIENCE, self.exchange(method, path, body)).await
    }

    async fn exchange(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Value, Failure> {
        let body = body.map(|body| Bytes::from(body.to_string())).unwrap_or_default();
        let response = self.send(method, path, JSON, body, Extra::None).await?;
        let bytes = response.into_body().collect().await.map_err(broken)?.to_bytes();
        // Replies without content, and those in plain text, have nothing to read.
        Ok(serde_json::from_slice(&bytes).unwrap_or_default())
    }

    /// Asks for something that comes bit by bit.
    pub async fn stream(&self, method: Method, path: &str, type_: &str, body: Bytes) -> Result<Incoming, Failure> {
        Ok(self.send(method, path, type_, body, Extra::None).await?.into_body())
    }

    /// Asks for an image, as whom the registry knows; what becomes of it comes bit by bit.
    pub async fn pull(&self, path: &str, auth: Option<HeaderValue>) -> Result<Incoming, Failure> {
        let extra = auth.map_or(Extra::None, Extra::Auth);
        Ok(self.send(Method::POST, path, JSON, Bytes::new(), extra).await?.into_body())
    }

    /// Asks for a connection to the streams of a process.
    pub async fn upgrade(&self, path: &str, body: &Value) -> Result<TokioIo<Upgraded>, Failure> {
        let body = Bytes::from(body.to_string());
        let response = self.send(Method::POST, path, JSON, body, Extra::Upgrade).await?;
        Ok(TokioIo::new(hyper::upgrade::on(response).await.map_err(broken)?))
    }

    /// Sends a request; returns the response if its code says that all is well.
    async fn send(
        &self,
        method: Method,
        path: &str,
        type_: &str,
        body: Bytes,
        extra: Extra,
    ) -> Result<Response<Incoming>, Failure> {
        let connected = tokio::time::timeout(Duration::from_secs(10), UnixStream::connect(&self.socket)).await;
        let stream = connected.map_err(|_| Failure::Unreachable("it does not accept connections".to_owned()))?;
        let stream = stream.map_err(|e| Failure::Unreachable(e.to_string()))?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
        // It ends when the response has been read, or this future is dropped.
        tokio::spawn(connection.with_upgrades());
        let mut request = Request::builder().method(method).uri(format!("{}{path}", self.prefix));
        request = request.header(HOST, "docker").header(CONTENT_TYPE, type_);
        request = match extra {
            Extra::None => request,
            Extra::Upgrade => request.header(CONNECTION, "Upgrade").header(UPGRADE, "tcp"),
            Extra::Auth(auth) => request.header("x-registry-auth", auth),
        };
        let request = request.body(Full::new(body)).map_err(|e| Failure::Refused(400, e.to_string()))?;
        let response = sender.send_request(request).await.map_err(broken)?;
        let code = response.status().as_u16();
        // 304: it is already so.
        if matches!(code, 101 | 200..=299 | 304) {
            return Ok(response);
        }
        let bytes = response.into_body().collect().await.map_err(broken)?.to_bytes();
        let told: Value = serde_json::from_slice(&bytes).unwrap_or(json!({}));
        let message = told["message"].as_str().map(str::to_owned);
        let message = message.unwrap_or_else(|| String::from_utf8_lossy(&bytes).trim().to_owned());
        Err(Failure::Refused(code, message))
    }
}

fn broken(e: hyper::Error) -> Failure {
    Failure::Unreachable(e.to_string())
}

async fn within<T>(time: Duration, work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let late = || Err(Failure::Unreachable("context deadline exceeded".to_owned()));
    tokio::time::timeout(time, work).await.unwrap_or_else(|_| late())
}

/// The lines of a body, one at a time.
pub struct Lines {
    body: Incoming,
    buffer: Vec<u8>,
}

impl Lines {
    /// The lines of this body.
    pub fn of(body: Incoming) -> Lines {
        Lines { body, buffer: Vec::new() }
    }

    /// The next line without its end; `None` at the end of the body, or when the connection breaks.
    pub async fn next(&mut self) -> Option<Vec<u8>> {
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let line = self.buffer.drain(..=end).collect::<Vec<u8>>();
                return Some(line[..end].to_vec());
            }
            let frame = self.body.frame().await?.ok()?;
            if let Some(data) = frame.data_ref() {
                self.buffer.extend_from_slice(data);
            }
        }
    }
}
