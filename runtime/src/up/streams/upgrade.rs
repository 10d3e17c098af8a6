//! The handshake: from an HTTP/1.1 request to a connection that carries frames.

use http_body_util::{BodyExt, Empty};
use hyper::header::{CONNECTION, HeaderMap, HeaderName, HeaderValue, SEC_WEBSOCKET_PROTOCOL, UPGRADE};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper::{Response, StatusCode};
use hyper_util::rt::TokioIo;
use skeg_core::api::Status;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};

use crate::up::reply::Content;

/// Maximum bytes of a WebSocket message. Clients send at most a few ten thousand.
const MAX_MESSAGE: usize = 1 << 20;
const STREAM_PROTOCOL: HeaderName = HeaderName::from_static("x-stream-protocol-version");
const ACCEPTED_PROTOCOLS: HeaderName = HeaderName::from_static("x-accepted-stream-protocol-versions");
/// A bearer token among the subprotocols, which browsers cannot send as a header.
pub const TOKEN_PROTOCOL: &str = "base64url.bearer.authorization.k8s.io.";

/// The connection of a WebSocket.
pub type Socket = WebSocketStream<TokioIo<Upgraded>>;

/// A request that can become another protocol.
pub struct Upgrade<'a> {
    headers: &'a HeaderMap,
    connection: OnUpgrade,
}

/// Which protocol it becomes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Transport {
    /// WebSocket.
    WebSocket,
    /// SPDY/3.1.
    Spdy,
}

/// What a handshake has agreed on.
pub struct Agreed {
    /// The protocol.
    pub transport: Transport,
    /// The subprotocol; empty if the client named none.
    pub protocol: String,
    /// 101.
    pub response: Response<Content>,
    connection: OnUpgrade,
}

fn list(headers: &HeaderMap, name: &HeaderName) -> Vec<String> {
    let values = headers.get_all(name).iter().filter_map(|v| v.to_str().ok());
    values.flat_map(|v| v.split(',')).map(|v| v.trim().to_owned()).filter(|v| !v.is_empty()).collect()
}

impl<'a> Upgrade<'a> {
    /// `connection` is the extension that hyper puts into a request that may be upgraded.
    pub fn new(headers: &'a HeaderMap, connection: Option<OnUpgrade>) -> Result<Upgrade<'a>, Status> {
        let asked = list(headers, &CONNECTION).iter().any(|v| v.eq_ignore_ascii_case("upgrade"));
        match connection {
            Some(connection) if asked => Ok(Upgrade { headers, connection }),
            _ => Err(Status::bad_request("Upgrade request required")),
        }
    }

    /// Agrees with the client on a subprotocol: the first that it names and the server speaks on this transport.
    pub fn agree(self, web_socket: &[&str], spdy: &[&str]) -> Result<Agreed, Status> {
        let upgrade = list(self.headers, &UPGRADE).join(",").to_ascii_lowercase();
        let (transport, header, known) = match upgrade.as_str() {
            "websocket" => (Transport::WebSocket, SEC_WEBSOCKET_PROTOCOL, web_socket),
            "spdy/3.1" => (Transport::Spdy, STREAM_PROTOCOL, spdy),
            other => return Err(Status::bad_request(format!("unable to upgrade: unknown protocol {other:?}"))),
        };
        let offered: Vec<String> =
            list(self.headers, &header).into_iter().filter(|p| !p.starts_with(TOKEN_PROTOCOL)).collect();
        let chosen = offered.iter().find(|p| known.contains(&p.as_str()));
        if chosen.is_none() && !offered.is_empty() {
            let (client, server) = (offered.join(" "), known.join(" "));
            let why = format!("unable to negotiate protocol: client supports [{client}], server accepts [{server}]");
            return Err(Status::bad_request(format!("unable to upgrade: {why}")));
        }
        let protocol = chosen.cloned().unwrap_or_default();
        let mut response = Response::new(Empty::new().boxed_unsync());
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        let headers = response.headers_mut();
        headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        match transport {
            Transport::WebSocket => {
                let key =
                    self.headers.get("sec-websocket-key").ok_or_else(|| Status::bad_request("websocket: no key"))?;
                if self.headers.get("sec-websocket-version").is_none_or(|v| v != "13") {
                    return Err(Status::bad_request("websocket: version 13 is required"));
                }
                headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
                let accept = HeaderValue::from_str(&derive_accept_key(key.as_bytes())).expect("base64 is plain");
                headers.insert("sec-websocket-accept", accept);
            }
            Transport::Spdy => {
                headers.insert(UPGRADE, HeaderValue::from_static("SPDY/3.1"));
                headers.insert(ACCEPTED_PROTOCOLS, HeaderValue::from_str(&known.join(",")).expect("names are plain"));
            }
        }
        if !protocol.is_empty() {
            headers.insert(header, HeaderValue::from_str(&protocol).expect("it is one of the known"));
        }
        Ok(Agreed { transport, protocol, response, connection: self.connection })
    }
}

impl Agreed {
    /// The response, and what becomes of the connection once it has been sent.
    pub fn split(self) -> (Response<Content>, Switching) {
        let Agreed { transport, protocol, response, connection } = self;
        (response, Switching { transport, protocol, connection })
    }
}

/// A connection that becomes another protocol.
pub struct Switching {
    /// The protocol.
    pub transport: Transport,
    /// The subprotocol; empty if the client named none.
    pub protocol: String,
    connection: OnUpgrade,
}

impl Switching {
    /// The connection; `None` if the client has gone.
    pub async fn raw(self) -> Option<TokioIo<Upgraded>> {
        self.connection.await.ok().map(TokioIo::new)
    }

    /// The connection as a WebSocket; `None` if the client has gone.
    pub async fn socket(self) -> Option<Socket> {
        let config = WebSocketConfig::default().max_message_size(Some(MAX_MESSAGE)).max_frame_size(Some(MAX_MESSAGE));
        Some(WebSocketStream::from_raw_socket(self.raw().await?, Role::Server, Some(config)).await)
    }
}
