//! A client of several API servers: it goes to one of them, and to the next where that one does not answer.
//!
//! What was surely not carried out is sent to the next server, and so is what only reads. What may have been carried
//! out is not sent again: the machine that asked knows how to find out.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, RwLock};
use std::time::Duration;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST, HeaderValue, USER_AGENT};
use hyper::{Method, Request, Response, Uri};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::kubeconfig::Credentials;
use super::link::Ask;
use crate::up::discovery::KUBERNETES_VERSION;

/// How long it may take to reach a server.
const REACH: Duration = Duration::from_secs(5);
/// How long a server may take to answer; the kubelet's `nodeStatusUpdateFrequency`, which bounds its heartbeats.
const PATIENCE: Duration = Duration::from_secs(10);
/// Longest reply, in bytes.
const LONGEST: usize = 256 << 20;
/// Most connections that wait for the next request.
const IDLE: usize = 8;

/// A server.
#[derive(Clone, Debug)]
struct Place {
    host: String,
    port: u16,
    name: ServerName<'static>,
}

/// The servers of a cluster.
#[derive(Debug)]
pub struct Client {
    places: Vec<Place>,
    /// The one that is asked at present.
    current: AtomicUsize,
    /// Who it is; a certificate is renewed while it works.
    identity: RwLock<Identity>,
    /// Connections that wait for the next request, with their server.
    idle: Mutex<Vec<(usize, Sender)>>,
}

/// The sending end of a connection, which is closed with it.
pub type Sender = SendRequest<Full<Bytes>>;

/// Who a client is.
#[derive(Clone, Debug)]
struct Identity {
    tls: Arc<ClientConfig>,
    /// A bearer token, where there is no certificate.
    token: Option<HeaderValue>,
}

impl Identity {
    fn of(tls: ClientConfig, token: Option<&str>) -> Result<Identity, String> {
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

/// Why a try failed.
enum Failed {
    Unsent(String),
    Unknown(String),
}

impl Client {
    /// A client of all servers of a kubeconfig.
    pub fn new(credentials: Credentials) -> Result<Client, String> {
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
        Ok(Client {
            places: servers.iter().map(place).collect::<Result<_, _>>()?,
            current: AtomicUsize::new(0),
            identity: RwLock::new(Identity::of(tls, token.as_deref())?),
            idle: Mutex::default(),
        })
    }

    /// Goes on with other credentials for the same servers. Watches that are open stay so.
    pub fn become_known_as(&self, credentials: Credentials) -> Result<(), String> {
        let identity = Identity::of(credentials.tls, credentials.token.as_deref())?;
        *self.identity.write().expect("nobody panics while it is held") = identity;
        self.idle.lock().expect("nobody panics while it is held").clear();
        Ok(())
    }

    fn identity(&self) -> Identity {
        self.identity.read().expect("nobody panics while it is held").clone()
    }

    /// The server that is asked at present.
    fn now(&self) -> usize {
        self.current.load(Ordering::Relaxed) % self.places.len()
    }

    /// Goes on to the next server, unless somebody else has done so already.
    fn leave(&self, at: usize, why: &str) {
        let next = (at + 1) % self.places.len();
        if self.current.compare_exchange(at, next, Ordering::Relaxed, Ordering::Relaxed).is_ok() && next != at {
            let place = |n: usize| format!("{}:{}", self.places[n].host, self.places[n].port);
            tracing::warn!("{} is left for {}: {why}", place(at), place(next));
        }
    }

    /// Sends a request, if need be to one server after the other, and reads the reply.
    pub async fn send(&self, ask: &Ask) -> Outcome {
        let reads = ask.method == Method::GET;
        let mut last = Outcome::Unsent("no server was asked".to_owned());
        for _ in 0..self.places.len() {
            let at = self.now();
            let answered = tokio::time::timeout(PATIENCE, self.exchange(at, ask)).await;
            last = match answered.unwrap_or_else(|_| Err(Failed::Unknown("no reply in time".to_owned()))) {
                // A server that cannot reach its store, or is about to end, has carried out nothing.
                Ok((503, body)) => {
                    self.leave(at, "it answers that it is not available");
                    Outcome::Answered(503, body)
                }
                Ok((code, body)) => return Outcome::Answered(code, body),
                Err(Failed::Unsent(why)) => {
                    self.leave(at, &why);
                    Outcome::Unsent(why)
                }
                Err(Failed::Unknown(why)) => {
                    self.leave(at, &why);
                    if !reads {
                        return Outcome::Unknown(why);
                    }
                    Outcome::Unsent(why)
                }
            };
        }
        last
    }

    async fn exchange(&self, at: usize, ask: &Ask) -> Result<(u16, Bytes), Failed> {
        let (sender, response) = self.open_at(at, ask).await?;
        let code = response.status().as_u16();
        let body = Limited::new(response.into_body(), LONGEST).collect().await;
        let body = body.map_err(|e| Failed::Unknown(e.to_string()))?.to_bytes();
        let mut idle = self.idle.lock().expect("nobody panics while it is held");
        if idle.len() < IDLE && !sender.is_closed() {
            idle.push((at, sender));
        }
        Ok((code, body))
    }

    /// Opens a request whose response does not end: a watch. It is opened at one server only, since the machine asks
    /// again by itself. The sender is to be kept as long as the response is read.
    pub async fn open(&self, ask: &Ask) -> Result<(Sender, Response<Incoming>), String> {
        let at = self.now();
        let opened = tokio::time::timeout(PATIENCE, self.open_at(at, ask)).await;
        match opened.unwrap_or_else(|_| Err(Failed::Unknown("no reply in time".to_owned()))) {
            Ok((sender, response)) => {
                if response.status().as_u16() == 503 {
                    self.leave(at, "it answers that it is not available");
                }
                Ok((sender, response))
            }
            Err(Failed::Unsent(why) | Failed::Unknown(why)) => {
                self.leave(at, &why);
                Err(why)
            }
        }
    }

    async fn open_at(&self, at: usize, ask: &Ask) -> Result<(Sender, Response<Incoming>), Failed> {
        let mut request = Request::builder().method(&ask.method).uri(&ask.path);
        let Place { host, port, .. } = &self.places[at];
        let host = if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
        request = request.header(HOST, host).header(ACCEPT, "application/json");
        request = request.header(USER_AGENT, format!("kubelet/{KUBERNETES_VERSION}"));
        if !ask.body.is_empty() {
            request = request.header(CONTENT_TYPE, ask.media_type);
        }
        if let Some(token) = self.identity().token {
            request = request.header(AUTHORIZATION, token);
        }
        let request = request.body(Full::new(Bytes::from(ask.body.clone())));
        let mut request = request.map_err(|e| Failed::Unsent(e.to_string()))?;
        // A connection that has waited may have been closed by the server meanwhile: then the request was not sent.
        while let Some(mut sender) = self.waiting(at) {
            if sender.ready().await.is_err() {
                continue;
            }
            match sender.try_send_request(request).await {
                Ok(response) => return Ok((sender, response)),
                Err(mut e) => match e.take_message() {
                    Some(unsent) => request = unsent,
                    None => return Err(Failed::Unknown(e.into_error().to_string())),
                },
            }
        }
        let mut sender = self.reach(at).await.map_err(Failed::Unsent)?;
        match sender.try_send_request(request).await {
            Ok(response) => Ok((sender, response)),
            Err(mut e) => {
                let unsent = e.take_message().is_some();
                let why = e.into_error().to_string();
                Err(if unsent { Failed::Unsent(why) } else { Failed::Unknown(why) })
            }
        }
    }

    /// A connection to a server that waits for a request.
    fn waiting(&self, at: usize) -> Option<Sender> {
        let mut idle = self.idle.lock().expect("nobody panics while it is held");
        idle.retain(|(_, sender)| !sender.is_closed());
        let found = idle.iter().position(|(of, _)| *of == at)?;
        Some(idle.swap_remove(found).1)
    }

    async fn reach(&self, at: usize) -> Result<Sender, String> {
        let Place { host, port, name } = &self.places[at];
        let reached = async {
            let stream = TcpStream::connect((host.as_str(), *port)).await.map_err(|e| e.to_string())?;
            stream.set_nodelay(true).map_err(|e| e.to_string())?;
            let connector = TlsConnector::from(self.identity().tls);
            let stream = connector.connect(name.clone(), stream).await.map_err(|e| format!("tls: {e}"))?;
            let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|e| e.to_string())?;
            // It ends with its last request; what is wrong with it, that request says.
            tokio::spawn(connection);
            Ok(sender)
        };
        tokio::time::timeout(REACH, reached).await.unwrap_or_else(|_| Err("it cannot be reached in time".to_owned()))
    }
}
