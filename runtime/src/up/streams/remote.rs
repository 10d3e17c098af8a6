//! Streams into containers that another process runs: the request of a client is carried to the port of the node's
//! agent, and its answer back. The client's identity stays here: to the agent, it is this server that asks.
//!
//! Source: kubernetes `pkg/registry/core/pod/strategy.go` (`LogLocation`, `ExecLocation`, …), `pkg/kubelet/client`.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use form_urlencoded::Serializer;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{
    CONNECTION, CONTENT_TYPE, HOST, HeaderMap, HeaderName, HeaderValue, SEC_WEBSOCKET_PROTOCOL, UPGRADE,
};
use hyper::upgrade::OnUpgrade;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde_json::Value;
use skeg_core::api::Status;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::upgrade::TOKEN_PROTOCOL;
use crate::up::apiproxy::{Rest, end_to_end};
use crate::up::params::Params;
use crate::up::pki::Pair;
use crate::up::reply::Content;
use crate::up::usage::{Used, of_summary};

/// How long it may take to reach an agent (the API server's `--kubelet-timeout`).
const REACH: Duration = Duration::from_secs(5);

/// Longest summary of what a node uses that is read, in bytes.
const SUMMARY: usize = 8 << 20;

/// Who this server is to agents, and which it trusts.
#[derive(Clone, Debug)]
pub struct Kubelets {
    tls: Arc<ClientConfig>,
}

/// What a client asks of a pod that an agent runs.
#[derive(Debug)]
pub struct Carried<'a> {
    /// `log`, `exec`, `attach` or `portforward`.
    pub subresource: &'a str,
    /// The pod.
    pub pod: &'a Value,
    /// The container; `None` for a pod's ports.
    pub container: Option<String>,
    /// The client's method.
    pub method: &'a Method,
    /// Its parameters.
    pub params: &'a Params,
    /// Its headers.
    pub headers: &'a HeaderMap,
}

impl Carried<'_> {
    /// Path and query at the agent's port.
    fn uri(&self) -> String {
        let verb = match self.subresource {
            "log" => "containerLogs",
            "portforward" => "portForward",
            other => other,
        };
        let text = |name: &str| self.pod["metadata"][name].as_str().unwrap_or_default();
        let mut path = format!("/{verb}/{}/{}", text("namespace"), text("name"));
        let mut query = Serializer::new(String::new());
        query.extend_pairs(self.params.pairs().filter(|(name, _)| *name != "container"));
        if let Some(container) = &self.container {
            path += &format!("/{container}");
            query.append_pair("container", container);
        }
        let query = query.finish();
        if query.is_empty() { path } else { format!("{path}?{query}") }
    }
}

/// The headers of a handshake: who asks is not told on.
fn handshake(headers: &HeaderMap) -> HeaderMap {
    let is_of_it = |name: &HeaderName| {
        [CONNECTION, UPGRADE].contains(name)
            || ["sec-websocket-", "x-stream-protocol-", "x-accepted-stream-"]
                .iter()
                .any(|p| name.as_str().starts_with(p))
    };
    let mut kept = HeaderMap::new();
    for (name, value) in headers.iter().filter(|(name, _)| is_of_it(name)) {
        let mut value = value.clone();
        if *name == SEC_WEBSOCKET_PROTOCOL {
            let all = value.to_str().unwrap_or_default().split(',').map(str::trim);
            let plain: Vec<&str> = all.filter(|protocol| !protocol.starts_with(TOKEN_PROTOCOL)).collect();
            value = HeaderValue::from_str(&plain.join(", ")).expect("it was a part of one");
        }
        kept.append(name.clone(), value);
    }
    kept
}

/// Where the agent of a node listens.
fn place(node: &Value) -> Option<(IpAddr, u16)> {
    let mut addresses = node["status"]["addresses"].as_array()?.iter();
    let address = addresses.find(|address| address["type"] == "InternalIP")?["address"].as_str()?.parse().ok()?;
    let port = node["status"]["daemonEndpoints"]["kubeletEndpoint"]["Port"].as_u64()?;
    Some((address, u16::try_from(port).ok()?))
}

impl Kubelets {
    /// `authority` signs the certificates of agents, PEM; `own` is by what they know this server.
    pub fn new(authority: &str, own: &Pair) -> Result<Kubelets, String> {
        let error = |e: &dyn std::fmt::Display| format!("error: TLS to agents could not be set up: {e}");
        let mut roots = RootCertStore::empty();
        for authority in CertificateDer::pem_slice_iter(authority.as_bytes()) {
            roots.add(authority.map_err(|e| error(&e))?).map_err(|e| error(&e))?;
        }
        let chain = CertificateDer::from_pem_slice(own.certificate_pem.as_bytes()).map_err(|e| error(&e))?;
        let key = PrivateKeyDer::from_pem_slice(own.key_pem.as_bytes()).map_err(|e| error(&e))?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let builder = builder.map_err(|e| error(&e))?.with_root_certificates(roots);
        Ok(Kubelets { tls: Arc::new(builder.with_client_auth_cert(vec![chain], key).map_err(|e| error(&e))?) })
    }

    /// Carries a request to the agent of a node. `upgrade` is the client's connection, if it becomes another protocol.
    pub async fn carry(
        &self,
        node: &Value,
        carried: Carried<'_>,
        upgrade: Option<OnUpgrade>,
    ) -> Result<Response<Content>, Status> {
        let failed = |why: String| Status::internal(format!("error dialing backend: {why}"));
        let (mut sender, at) = self.dial(node).await.map_err(failed)?;
        let mut request = Request::builder().method(carried.method).uri(carried.uri()).header(HOST, at.to_string());
        if let Some(headers) = request.headers_mut() {
            headers.extend(handshake(carried.headers));
        }
        let request = request.body(Empty::<Bytes>::new()).map_err(|e| failed(e.to_string()))?;
        let answered = tokio::time::timeout(REACH, sender.send_request(request)).await;
        let answered = answered.map_err(|_| failed("i/o timeout".to_owned()))?;
        let mut response = answered.map_err(|e| failed(e.to_string()))?;
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            let (head, body) = response.into_parts();
            let mut answer = Response::new(Rest::new(body, sender).boxed_unsync());
            *answer.status_mut() = head.status;
            answer.headers_mut().extend(head.headers.get(CONTENT_TYPE).map(|value| (CONTENT_TYPE, value.clone())));
            return Ok(answer);
        }
        let theirs = hyper::upgrade::on(&mut response);
        let mut answer = Response::new(Empty::new().boxed_unsync());
        *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        *answer.headers_mut() = handshake(response.headers());
        let ours = upgrade.ok_or_else(|| Status::bad_request("Upgrade request required"))?;
        tokio::spawn(async move {
            let (Ok(ours), Ok(theirs)) = tokio::join!(ours, theirs) else { return };
            // An error means that either end has gone.
            let _ = tokio::io::copy_bidirectional(&mut TokioIo::new(ours), &mut TokioIo::new(theirs)).await;
        });
        Ok(answer)
    }

    /// What the agent of a node answers at a path of its port, asked in the name of this server.
    pub async fn ask(&self, node: &Value, method: &Method, target: &str) -> Result<Response<Content>, Status> {
        let failed = |why: String| Status::unavailable(format!("error trying to reach service: {why}"));
        let (mut sender, at) = self.dial(node).await.map_err(failed)?;
        let request = Request::builder().method(method).uri(target).header(HOST, at.to_string());
        let request = request.body(Empty::<Bytes>::new()).map_err(|e| failed(e.to_string()))?;
        let answered = tokio::time::timeout(REACH, sender.send_request(request)).await;
        let answered = answered.map_err(|_| failed("i/o timeout".to_owned()))?.map_err(|e| failed(e.to_string()))?;
        let (head, body) = answered.into_parts();
        let mut answer = Response::new(Rest::new(body, sender).boxed_unsync());
        *answer.status_mut() = head.status;
        *answer.headers_mut() = end_to_end(&head.headers);
        Ok(answer)
    }

    /// What the agent of a node says that it and its pods use.
    pub async fn used(self, node: Value) -> Result<Used, String> {
        let answer =
            self.ask(&node, &Method::GET, "/stats/summary").await.map_err(|status| status.message.to_string())?;
        let code = answer.status();
        let body = tokio::time::timeout(REACH, Limited::new(answer.into_body(), SUMMARY).collect()).await;
        let body = body.map_err(|_| "i/o timeout".to_owned())?.map_err(|e| e.to_string())?.to_bytes();
        let summary = serde_json::from_slice(&body).unwrap_or_default();
        let name = node["metadata"]["name"].as_str().unwrap_or_default();
        of_summary(name, &summary).ok_or_else(|| format!("the answer is no summary ({code})"))
    }

    /// A connection to the agent of a node, and where that is.
    async fn dial(&self, node: &Value) -> Result<(SendRequest<Empty<Bytes>>, SocketAddr), String> {
        let at = SocketAddr::from(place(node).ok_or("the node has no address")?);
        let reached = tokio::time::timeout(REACH, self.reach(at)).await;
        let reached = reached.unwrap_or_else(|_| Err("i/o timeout".to_owned()));
        Ok((reached.map_err(|why| format!("dial tcp {at}: {why}"))?, at))
    }

    async fn reach(&self, at: SocketAddr) -> Result<SendRequest<Empty<Bytes>>, String> {
        let stream = TcpStream::connect(at).await.map_err(|e| format!("connect: {e}"))?;
        stream.set_nodelay(true).map_err(|e| e.to_string())?;
        let name = ServerName::IpAddress(at.ip().into());
        let stream = TlsConnector::from(Arc::clone(&self.tls)).connect(name, stream).await;
        let stream = stream.map_err(|e| format!("tls: {e}"))?;
        let handshake = http1::handshake(TokioIo::new(stream)).await;
        let (sender, connection) = handshake.map_err(|e| e.to_string())?;
        // What is wrong with it, its one request says.
        tokio::spawn(connection.with_upgrades());
        Ok(sender)
    }
}

#[cfg(test)]
mod tests {
    use hyper::Method;
    use hyper::header::{AUTHORIZATION, HeaderMap, HeaderValue, SEC_WEBSOCKET_PROTOCOL, UPGRADE};
    use serde_json::json;

    use super::{Carried, handshake, place};
    use crate::up::params::Params;

    #[test]
    fn a_request_is_told_as_a_kubelet_is_asked() {
        let check = |subresource: &str, container: Option<&str>, query: &str, expect: &str| {
            let (pod, params) = (json!({"metadata": {"namespace": "n", "name": "p"}}), Params::parse(Some(query)));
            let (container, headers) = (container.map(str::to_owned), HeaderMap::new());
            let (pod, params, headers, method) = (&pod, &params, &headers, &Method::GET);
            assert_eq!(Carried { subresource, pod, container, method, params, headers }.uri(), expect);
        };
        check("log", Some("c"), "follow=true", "/containerLogs/n/p/c?follow=true&container=c");
        check("exec", Some("c"), "container=c&command=a+b&command=c", "/exec/n/p/c?command=a+b&command=c&container=c");
        check("portforward", None, "", "/portForward/n/p");
    }

    #[test]
    fn a_clients_token_stays_here() {
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, HeaderValue::from_static("Bearer x"));
        headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
        let protocols = HeaderValue::from_static("base64url.bearer.authorization.k8s.io.eA, v5.channel.k8s.io");
        headers.insert(SEC_WEBSOCKET_PROTOCOL, protocols);
        let kept = handshake(&headers);
        assert_eq!((kept.len(), &kept[SEC_WEBSOCKET_PROTOCOL]), (2, &HeaderValue::from_static("v5.channel.k8s.io")));
    }

    #[test]
    fn an_agent_is_where_its_node_says() {
        let node = json!({"status": {"addresses": [{"type": "Hostname", "address": "n"},
            {"type": "InternalIP", "address": "10.0.0.7"}], "daemonEndpoints": {"kubeletEndpoint": {"Port": 10250}}}});
        assert_eq!(place(&node), Some(([10, 0, 0, 7].into(), 10250)));
        assert_eq!(place(&json!({})), None);
    }
}
