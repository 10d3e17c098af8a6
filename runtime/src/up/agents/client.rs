//! A client of several API servers: it goes to one of them, and to the next where that one does not answer.
//!
//! What was surely not carried out is sent to the next server, and so is what only reads. What may have been carried
//! out is not sent again: the machine that asked knows how to find out.
//!
//! Requests and watches share connections of HTTP/2, which are pinged: a server whose host vanishes closes none, and a
//! watch would wait for its events for ever.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, RwLock};
use std::time::Duration;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http2::{self, SendRequest};
use hyper::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderValue, USER_AGENT};
use hyper::{Method, Request, Response, Uri};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use serde_json::Value;
use skeg_core::api::{self, Status};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::kubeconfig::Credentials;
use super::link::{self, Ask, Expect};
use crate::up::discovery::KUBERNETES_VERSION;

/// How long it may take to reach a server.
const REACH: Duration = Duration::from_secs(5);
/// How long a server may take to answer; the kubelet's `nodeStatusUpdateFrequency`, which bounds its heartbeats.
const PATIENCE: Duration = Duration::from_secs(10);
/// Longest reply, in bytes.
const LONGEST: usize = 256 << 20;
/// How long a connection may be silent before it is pinged, and how long the ping may take. Both together, and what it
/// takes to reach the next server, are less than the ten seconds that a server is given to answer.
const SILENCE: Duration = Duration::from_secs(3);
const PING: Duration = Duration::from_secs(3);
/// Most requests and watches that share a connection; a server takes up to 250 (`--http2-max-streams-per-connection`).
const STREAMS: usize = 100;
const HTTP2: &[u8] = b"h2";

/// A server.
#[derive(Clone, Debug)]
struct Place {
    host: String,
    port: u16,
    name: ServerName<'static>,
}

/// The servers of a cluster.
#[derive(Debug)]
struct Places {
    all: Vec<Place>,
    /// The one that is asked at present.
    current: AtomicUsize,
}

/// A client of the servers of a cluster.
#[derive(Debug)]
pub struct Client {
    places: Arc<Places>,
    /// The program that it is to servers.
    program: &'static str,
    /// Who it is; a certificate is renewed while it works.
    identity: RwLock<Identity>,
    /// Connections that are open, with their servers.
    open: Mutex<Vec<(usize, Connection)>>,
}

/// A connection, as one of those that use it holds it. It is closed when nobody does.
#[derive(Clone, Debug)]
pub struct Connection {
    sender: SendRequest<Full<Bytes>>,
    /// Counts those that use it, by its references.
    users: Arc<()>,
}

/// Who a client is.
#[derive(Clone, Debug)]
struct Identity {
    tls: Arc<ClientConfig>,
    /// A bearer token, where there is no certificate.
    token: Option<HeaderValue>,
}

impl Identity {
    fn of(mut tls: ClientConfig, token: Option<&str>) -> Result<Identity, String> {
        tls.alpn_protocols = vec![HTTP2.to_vec()];
        let header = |token: &str| {
            let value = HeaderValue::from_str(&format!("Bearer {token}"));
            let mut value = value.map_err(|_| "the token has characters that no token has".to_owned())?;
            value.set_sensitive(true);
            Ok::<_, String>(value)
        };
        Ok(Identity { tls: Arc::new(tls), token: token.map(header).transpose()? })
    }
}

/// What became of a request.
#[derive(Debug)]
pub enum Outcome {
    /// A server answered, with a status code and a body.
    Answered(u16, Bytes),
    /// It was not carried out.
    Unsent(String),
    /// It may have been carried out.
    Unknown(String),
}

impl Outcome {
    /// What a machine is told of it.
    pub fn reply(self, expect: Expect) -> Result<api::Response, Status> {
        match self {
            Outcome::Answered(code, body) => link::reply(expect, code, &body),
            Outcome::Unsent(why) => Err(Status::unavailable(why)),
            Outcome::Unknown(why) => Err(Status::timeout(why)),
        }
    }
}

/// Why a try failed.
enum Failed {
    Unsent(String),
    Unknown(String),
}

impl Places {
    /// The server that is asked at present.
    fn now(&self) -> usize {
        self.current.load(Ordering::Relaxed) % self.all.len()
    }

    /// Goes on to the next server, unless somebody else has done so already.
    fn leave(&self, at: usize, why: &str) {
        let next = (at + 1) % self.all.len();
        if self.current.compare_exchange(at, next, Ordering::Relaxed, Ordering::Relaxed).is_ok() && next != at {
            let place = |n: usize| format!("{}:{}", self.all[n].host, self.all[n].port);
            tracing::warn!("{} is left for {}: {why}", place(at), place(next));
        }
    }
}

impl Client {
    /// A client of all servers of a kubeconfig, which calls itself by this program's name.
    pub fn new(credentials: Credentials, program: &'static str) -> Result<Client, String> {
        let Credentials { servers, tls, token, .. } = credentials;
        let place = |url: &String| {
            let bad = || format!("{url:?} is not the URL of a server, such as https://10.0.0.1:6443");
            let uri: Uri = url.parse().map_err(|_| bad())?;
            let host = uri.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
            let name = ServerName::try_from(host.clone()).map_err(|_| bad())?;
            if uri.scheme_str() != Some("https") {
                return Err(bad());
            }
            Ok(Place { host, port: uri.port_u16().unwrap_or(443), name })
        };
        let all = servers.iter().map(place).collect::<Result<_, _>>()?;
        Ok(Client {
            program,
            places: Arc::new(Places { all, current: AtomicUsize::new(0) }),
            identity: RwLock::new(Identity::of(tls, token.as_deref())?),
            open: Mutex::default(),
        })
    }

    /// Goes on with other credentials for the same servers. Watches that are open stay so.
    pub fn become_known_as(&self, credentials: Credentials) -> Result<(), String> {
        let identity = Identity::of(credentials.tls, credentials.token.as_deref())?;
        *self.identity.write().expect("nobody panics while it is held") = identity;
        self.open.lock().expect("nobody panics while it is held").clear();
        Ok(())
    }

    fn identity(&self) -> Identity {
        self.identity.read().expect("nobody panics while it is held").clone()
    }

    /// Sends a request, if need be to one server after the other, and reads the reply.
    pub async fn send(&self, ask: &Ask) -> Outcome {
        let reads = ask.method == Method::GET;
        let mut last = Outcome::Unsent("no server was asked".to_owned());
        for _ in 0..self.places.all.len() {
            let at = self.places.now();
            let answered = tokio::time::timeout(PATIENCE, self.exchange(at, ask)).await;
            last = match answered.unwrap_or_else(|_| Err(Failed::Unknown("no reply in time".to_owned()))) {
                // A server that cannot reach its store, or is about to end, has carried out nothing.
                Ok((503, body)) => {
                    self.places.leave(at, "it answers that it is not available");
                    Outcome::Answered(503, body)
                }
                Ok((code, body)) => return Outcome::Answered(code, body),
                Err(Failed::Unsent(why)) => {
                    self.places.leave(at, &why);
                    Outcome::Unsent(why)
                }
                Err(Failed::Unknown(why)) => {
                    self.places.leave(at, &why);
                    if !reads {
                        return Outcome::Unknown(why);
                    }
                    Outcome::Unsent(why)
                }
            };
        }
        last
    }

    /// Sends JSON and reads JSON. An error begins with the code, if there is one.
    pub async fn call(&self, method: Method, path: String, body: Option<&Value>) -> Result<Value, String> {
        let body = body.map(|body| body.to_string().into_bytes()).unwrap_or_default();
        match self.send(&Ask { method, path, media_type: "application/json", body }).await {
            Outcome::Answered(200..300, body) => serde_json::from_slice(&body).map_err(|e| e.to_string()),
            Outcome::Answered(code, body) => {
                let said: Value = serde_json::from_slice(&body).unwrap_or_default();
                Err(format!("{code}: {}", said["message"].as_str().unwrap_or_default()))
            }
            Outcome::Unsent(why) | Outcome::Unknown(why) => Err(why),
        }
    }

    async fn exchange(&self, at: usize, ask: &Ask) -> Result<(u16, Bytes), Failed> {
        let (_connection, response) = self.open_at(at, ask).await?;
        let code = response.status().as_u16();
        let body = Limited::new(response.into_body(), LONGEST).collect().await;
        Ok((code, body.map_err(|e| Failed::Unknown(e.to_string()))?.to_bytes()))
    }

    /// Opens a request whose response does not end: a watch. It is opened at one server only, since the machine asks
    /// again by itself. The connection is to be kept as long as the response is read.
    pub async fn open(&self, ask: &Ask) -> Result<(Connection, Response<Incoming>), String> {
        let at = self.places.now();
        let opened = tokio::time::timeout(PATIENCE, self.open_at(at, ask)).await;
        match opened.unwrap_or_else(|_| Err(Failed::Unknown("no reply in time".to_owned()))) {
            Ok((connection, response)) => {
                if response.status().as_u16() == 503 {
                    self.places.leave(at, "it answers that it is not available");
                }
                Ok((connection, response))
            }
            Err(Failed::Unsent(why) | Failed::Unknown(why)) => {
                self.places.leave(at, &why);
                Err(why)
            }
        }
    }

    async fn open_at(&self, at: usize, ask: &Ask) -> Result<(Connection, Response<Incoming>), Failed> {
        let Place { host, port, .. } = &self.places.all[at];
        let host = if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
        let mut request = Request::builder().method(&ask.method).uri(format!("https://{host}{}", ask.path));
        request = request.header(ACCEPT, "application/json");
        request = request.header(USER_AGENT, format!("{}/{KUBERNETES_VERSION}", self.program));
        if !ask.body.is_empty() {
            request = request.header(CONTENT_TYPE, ask.media_type);
        }
        if let Some(token) = self.identity().token {
            request = request.header(AUTHORIZATION, token);
        }
        let request = request.body(Full::new(Bytes::from(ask.body.clone())));
        let mut request = request.map_err(|e| Failed::Unsent(e.to_string()))?;
        // A connection that was open may be closed by the server meanwhile: then the request was not sent.
        while let Some(mut connection) = self.waiting(at) {
            if connection.sender.ready().await.is_err() {
                continue;
            }
            match connection.sender.try_send_request(request).await {
                Ok(response) => return Ok((connection, response)),
                Err(mut e) => match e.take_message() {
                    Some(unsent) => request = unsent,
                    None => return Err(Failed::Unknown(e.into_error().to_string())),
                },
            }
        }
        let mut connection = self.reach(at).await.map_err(Failed::Unsent)?;
        self.open.lock().expect("nobody panics while it is held").push((at, connection.clone()));
        match connection.sender.try_send_request(request).await {
            Ok(response) => Ok((connection, response)),
            Err(mut e) => {
                let unsent = e.take_message().is_some();
                let why = e.into_error().to_string();
                Err(if unsent { Failed::Unsent(why) } else { Failed::Unknown(why) })
            }
        }
    }

    /// A connection to a server that is open and has room.
    fn waiting(&self, at: usize) -> Option<Connection> {
        let mut open = self.open.lock().expect("nobody panics while it is held");
        open.retain(|(_, connection)| !connection.sender.is_closed());
        // One reference is that of the list itself.
        let has_room = |connection: &Connection| Arc::strong_count(&connection.users) <= STREAMS;
        open.iter().find(|(of, connection)| *of == at && has_room(connection)).map(|(_, found)| found.clone())
    }

    async fn reach(&self, at: usize) -> Result<Connection, String> {
        let Place { host, port, name } = &self.places.all[at];
        let reached = async {
            let stream = TcpStream::connect((host.as_str(), *port)).await.map_err(|e| e.to_string())?;
            stream.set_nodelay(true).map_err(|e| e.to_string())?;
            let connector = TlsConnector::from(self.identity().tls);
            let stream = connector.connect(name.clone(), stream).await.map_err(|e| format!("tls: {e}"))?;
            if stream.get_ref().1.alpn_protocol() != Some(HTTP2) {
                return Err("it does not speak HTTP/2".to_owned());
            }
            let mut builder = http2::Builder::new(TokioExecutor::new());
            builder.timer(TokioTimer::new()).keep_alive_interval(SILENCE).keep_alive_timeout(PING);
            builder.handshake(TokioIo::new(stream)).await.map_err(|e| e.to_string())
        };
        let reached = tokio::time::timeout(REACH, reached).await;
        let (sender, connection) = reached.unwrap_or_else(|_| Err("it cannot be reached in time".to_owned()))?;
        let places = Arc::clone(&self.places);
        tokio::spawn(async move {
            // What was asked for on it hears of it, too, and is to be asked for elsewhere.
            if let Err(e) = connection.await {
                places.leave(at, &format!("a connection has failed: {e}"));
            }
        });
        Ok(Connection { sender, users: Arc::new(()) })
    }
}
