//! Probes and hooks by HTTP and HTTPS. No certificate is verified: who asks is the node, about a pod's own address.
//!
//! Source: kubernetes `pkg/probe/http`, `pkg/kubelet/lifecycle/handlers.go`.

use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::header::{ACCEPT, AUTHORIZATION, HOST, USER_AGENT};
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1 as core_v1;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;

use super::probes::{LONGEST, Why, number, tcp_connect};
use crate::up::aggregator::proxy::{Trust, client};

/// What asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Caller {
    /// A probe, which judges the code of the answer.
    Probe,
    /// A hook, to which every answer will do.
    Hook,
}

impl Caller {
    fn agent(self) -> &'static str {
        match self {
            Caller::Probe => "kube-probe/1.36",
            Caller::Hook => "kube-lifecycle/1.36",
        }
    }
}

/// What is asked, and where.
struct Asked<'a> {
    get: &'a core_v1::HTTPGetAction,
    caller: Caller,
    host: &'a str,
    port: u16,
    path: String,
    timeout: Duration,
}

/// Why there is no answer.
enum Unanswered {
    /// What was asked by HTTPS answers by HTTP.
    Plain,
    /// Any other reason.
    Other(Why),
}

/// Carries out a probe or a hook.
pub async fn get(get: &core_v1::HTTPGetAction, address: &str, caller: Caller, timeout: Duration) -> Result<(), Why> {
    let path = get.path.as_deref().unwrap_or("/");
    let asked = Asked {
        get,
        caller,
        host: get.host.as_deref().filter(|host| !host.is_empty()).unwrap_or(address),
        port: number(&get.port)?,
        path: if path.starts_with('/') { path.to_owned() } else { format!("/{path}") },
        timeout,
    };
    let secure = get.scheme.as_deref().is_some_and(|scheme| scheme.eq_ignore_ascii_case("HTTPS"));
    let late = "context deadline exceeded (Client.Timeout exceeded while awaiting headers)";
    let answered = tokio::time::timeout(timeout, asked.ask(secure)).await;
    answered.unwrap_or_else(|_| Err(asked.failed(secure, late)))
}

impl Asked<'_> {
    async fn ask(&self, secure: bool) -> Result<(), Why> {
        let code = match self.code(secure).await {
            Ok(code) => code,
            Err(Unanswered::Other(why)) => return Err(why),
            Err(Unanswered::Plain) if self.caller == Caller::Hook => {
                return match self.code(false).await {
                    Ok(_) => Err(Why::FellBack(self.at())),
                    Err(_) => Err(self.answered_plainly()),
                };
            }
            Err(Unanswered::Plain) => return Err(self.answered_plainly()),
        };
        match (self.caller, code) {
            (Caller::Hook, _) | (Caller::Probe, 200..400) => Ok(()),
            (Caller::Probe, code) => Err(Why::Failed(format!("HTTP probe failed with statuscode: {code}"))),
        }
    }

    fn at(&self) -> String {
        match self.host.contains(':') {
            true => format!("[{}]:{}", self.host, self.port),
            false => format!("{}:{}", self.host, self.port),
        }
    }

    fn failed(&self, secure: bool, why: &str) -> Why {
        let scheme = if secure { "https" } else { "http" };
        Why::Failed(format!("Get {:?}: {why}", format!("{scheme}://{}{}", self.at(), self.path)))
    }

    fn answered_plainly(&self) -> Why {
        self.failed(true, "http: server gave HTTP response to HTTPS client")
    }

    /// The status code of the answer.
    async fn code(&self, secure: bool) -> Result<u16, Unanswered> {
        let stream = tcp_connect(self.host, self.port, self.timeout).await.map_err(|why| match why {
            Why::Failed(why) => Unanswered::Other(self.failed(secure, &why)),
            other @ (Why::Errored(_) | Why::FellBack(_)) => Unanswered::Other(other),
        })?;
        // A hook that is sent again in the clear does not say who it is.
        let authorized = secure || !self.is_secure();
        if !secure {
            return self.exchange(stream, secure, authorized).await;
        }
        let errored = |why: String| Unanswered::Other(Why::Errored(why));
        let config = client(&Trust::Anybody, None).map_err(errored)?;
        let name = ServerName::try_from(self.host.to_owned()).map_err(|e| errored(e.to_string()))?;
        let connected = TlsConnector::from(Arc::new(config)).connect(name, stream).await;
        let stream = connected.map_err(|e| match e.get_ref().and_then(|e| e.downcast_ref()) {
            Some(rustls::Error::InvalidMessage(rustls::InvalidMessage::InvalidContentType)) => Unanswered::Plain,
            _ => Unanswered::Other(self.failed(secure, &e.to_string())),
        })?;
        self.exchange(stream, secure, authorized).await
    }

    fn is_secure(&self) -> bool {
        self.get.scheme.as_deref().is_some_and(|scheme| scheme.eq_ignore_ascii_case("HTTPS"))
    }

    async fn exchange(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        secure: bool,
        authorized: bool,
    ) -> Result<u16, Unanswered> {
        let failed = |e: hyper::Error| Unanswered::Other(self.failed(secure, &e.to_string()));
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(failed)?;
        tokio::spawn(connection);
        let request = self.request(authorized).map_err(|e| Unanswered::Other(Why::Errored(e.to_string())))?;
        let response = sender.send_request(request).await.map_err(failed)?;
        let code = response.status().as_u16();
        // What it says is not told to anybody; who answers may say it to the end, though, up to a limit.
        drop(Limited::new(response.into_body(), LONGEST).collect().await);
        Ok(code)
    }

    fn request(&self, authorized: bool) -> Result<Request<Empty<Bytes>>, hyper::http::Error> {
        let headers = self.get.http_headers.iter().flatten();
        let given = |name: &str| headers.clone().any(|h| h.name.eq_ignore_ascii_case(name));
        let mut request = Request::builder().method(Method::GET).uri(&self.path);
        if !given("host") {
            request = request.header(HOST, self.at());
        }
        if !given("user-agent") {
            request = request.header(USER_AGENT, self.caller.agent());
        }
        if !given("accept") {
            request = request.header(ACCEPT, "*/*");
        }
        let sent = |h: &&core_v1::HTTPHeader| {
            !h.value.is_empty() && (authorized || !h.name.eq_ignore_ascii_case(AUTHORIZATION.as_str()))
        };
        for header in headers.filter(sent) {
            request = request.header(header.name.as_str(), header.value.as_str());
        }
        request.body(Empty::new())
    }
}
