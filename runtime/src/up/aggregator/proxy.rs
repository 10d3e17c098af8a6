//! Requests to other servers: those of clients, which are passed on, and the question whether a server answers.
//!
//! The server is told in headers who asks; it believes them for the certificate by which it knows this one.
//!
//! Source: kube-aggregator `pkg/apiserver/handler_proxy.go`, client-go `transport/round_trippers.go`.

use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::header::{AUTHORIZATION, HOST, HeaderMap, HeaderName, HeaderValue};
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use serde_json::Value;
use skeg_core::auth::{MASTERS, User};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::{Found, Question, Remote};
use crate::up::apiproxy::{Rest, end_to_end};
use crate::up::pki::Pair;
use crate::up::reply::{self, Content};

/// The name in the certificate by which other servers know this one.
pub const CLIENT: &str = "front-proxy-client";
/// How long a server may take to say what it serves.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long it may take to reach a server.
const REACH: Duration = Duration::from_secs(30);
/// Longest answer to that question, in bytes.
const LONGEST: usize = 8 << 20;
const USER: HeaderName = HeaderName::from_static("x-remote-user");
const UID: HeaderName = HeaderName::from_static("x-remote-uid");
const GROUP: HeaderName = HeaderName::from_static("x-remote-group");
const EXTRA: &str = "x-remote-extra-";
/// What cannot stand in the name of a header.
const NOT_IN_NAMES: AsciiSet = CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'%')
    .add(b'(')
    .add(b')')
    .add(b',')
    .add(b'/')
    .add(b':')
    .add(b';')
    .add(b'<')
    .add(b'=')
    .add(b'>')
    .add(b'?')
    .add(b'@')
    .add(b'[')
    .add(b'\\')
    .add(b']')
    .add(b'{')
    .add(b'}');

/// Trusts whatever certificate a server has, as `insecureSkipTLSVerify` says.
#[derive(Debug)]
struct Unverified(Arc<rustls::crypto::CryptoProvider>);

impl ServerCertVerifier for Unverified {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// Which server is trusted.
pub(in crate::up) enum Trust<'a> {
    /// One whose certificate these have signed, PEM.
    By(Option<&'a str>),
    Anybody,
}

impl Trust<'_> {
    pub(in crate::up) fn of(skips_verification: bool, ca: Option<&str>) -> Trust<'_> {
        if skips_verification { Trust::Anybody } else { Trust::By(ca) }
    }
}

/// The TLS configuration of a client that is known by a certificate.
pub(in crate::up) fn client(trust: &Trust<'_>, own: Option<&Pair>) -> Result<ClientConfig, String> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions();
    let builder = builder.map_err(|e| e.to_string())?;
    let builder = match trust {
        Trust::Anybody => builder.dangerous().with_custom_certificate_verifier(Arc::new(Unverified(provider))),
        Trust::By(ca) => {
            let mut roots = RootCertStore::empty();
            for certificate in CertificateDer::pem_slice_iter(ca.unwrap_or_default().as_bytes()) {
                let certificate = certificate.map_err(|e| format!("unable to load root certificates: {e}"))?;
                roots.add(certificate).map_err(|e| format!("unable to load root certificates: {e}"))?;
            }
            builder.with_root_certificates(roots)
        }
    };
    let Some(own) = own else { return Ok(builder.with_no_client_auth()) };
    let chain = CertificateDer::pem_slice_iter(own.certificate_pem.as_bytes()).collect::<Result<_, _>>();
    let chain = chain.map_err(|e| e.to_string())?;
    let key = PrivateKeyDer::from_pem_slice(own.key_pem.as_bytes()).map_err(|e| e.to_string())?;
    builder.with_client_auth_cert(chain, key).map_err(|e| e.to_string())
}

async fn connect(at: &str, name: &str, config: ClientConfig) -> Result<TlsStream<TcpStream>, String> {
    let connected = tokio::time::timeout(REACH, TcpStream::connect(at)).await;
    let stream = connected.map_err(|_| format!("dial tcp {at}: i/o timeout"))?;
    let stream = stream.map_err(|e| {
        let why = e.to_string().to_lowercase();
        format!("dial tcp {at}: connect: {}", why.split(" (os").next().unwrap_or_default())
    })?;
    let name = ServerName::try_from(name.to_owned()).map_err(|e| e.to_string())?;
    TlsConnector::from(Arc::new(config)).connect(name, stream).await.map_err(|e| format!("tls: {e}"))
}

/// Says in headers who asks (`SetAuthProxyHeaders`). Fails for what no header can say, such as a line break: whoever
/// asks must not pass for somebody else.
fn tell_user(headers: &mut HeaderMap, user: &User) -> Result<(), String> {
    let is_about_users = |name: &&HeaderName| {
        **name == AUTHORIZATION
            || name.as_str().starts_with("impersonate-")
            || name.as_str().starts_with(EXTRA)
            || [USER, UID, GROUP].contains(name)
    };
    let told: Vec<HeaderName> = headers.keys().filter(is_about_users).cloned().collect();
    told.iter().for_each(|name| drop(headers.remove(name)));
    let mut add = |name: HeaderName, value: &str| {
        let value = HeaderValue::from_bytes(value.as_bytes());
        let value = value.map_err(|_| format!("{name} cannot be told: a control character is in it"))?;
        headers.append(name, value);
        Ok::<(), String>(())
    };
    add(USER, &user.name)?;
    if !user.uid.is_empty() {
        add(UID, &user.uid)?;
    }
    user.groups.iter().try_for_each(|group| add(GROUP, group))?;
    for (key, values) in &user.extra {
        let name = format!("{EXTRA}{}", utf8_percent_encode(&key.to_lowercase(), &NOT_IN_NAMES));
        let name = HeaderName::try_from(&name).map_err(|_| format!("{name} is no name of a header"))?;
        values.iter().try_for_each(|value| add(name.clone(), value))?;
    }
    Ok(())
}

/// A request of a client.
pub struct Passed<'a> {
    pub user: &'a User,
    pub method: &'a Method,
    /// Path and query.
    pub target: &'a str,
    pub headers: &'a HeaderMap,
    pub body: Incoming,
}

/// 503 and such, in plain text as the aggregator answers.
pub fn refused(code: u16, why: &str) -> Response<Content> {
    reply::text(code, format!("{why}\n"))
}

/// Passes a request on to a server at `host:port`.
pub async fn pass(remote: &Remote, at: &str, own: Option<&Pair>, passed: Passed<'_>) -> Response<Content> {
    let trust = Trust::of(remote.skips_verification, remote.ca.as_deref());
    let config = match client(&trust, own) {
        Ok(config) => config,
        Err(why) => return refused(500, &why),
    };
    let (namespace, name, _) = &remote.service;
    match ask(at, &format!("{name}.{namespace}.svc"), config, passed).await {
        Ok(response) => response,
        Err(why) => refused(503, &format!("error trying to reach service: {why}")),
    }
}

async fn ask(at: &str, name: &str, config: ClientConfig, passed: Passed<'_>) -> Result<Response<Content>, String> {
    let stream = connect(at, name, config).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|e| e.to_string())?;
    // What is wrong with it, its one request says.
    tokio::spawn(connection);
    let mut request = Request::new(passed.body);
    *request.method_mut() = passed.method.clone();
    *request.uri_mut() = passed.target.parse().map_err(|_| "the path cannot be passed on".to_owned())?;
    let mut headers = end_to_end(passed.headers);
    tell_user(&mut headers, passed.user)?;
    headers.insert(HOST, HeaderValue::from_str(at).map_err(|e| e.to_string())?);
    *request.headers_mut() = headers;
    let response = sender.send_request(request).await.map_err(|e| e.to_string())?;
    let (head, body) = response.into_parts();
    let mut answer = Response::new(Rest::new(body, sender).boxed_unsync());
    *answer.status_mut() = head.status;
    *answer.headers_mut() = end_to_end(&head.headers);
    Ok(answer)
}

/// Asks a server what it serves of its group-version.
pub async fn probe(question: &Question, own: Option<&Pair>) -> Result<Found, String> {
    let url = format!("https://{}{}", question.at, question.path);
    let asked = async {
        let failing = |why: String| format!("failing or missing response from {url}: {why}");
        // As upstream's, the check does not ask who answers; but only whom it trusts may say what there is.
        get(question, &question.path, &Trust::Anybody, own).await.map_err(failing)?;
        let trust = Trust::of(question.skips_verification, question.ca.as_deref());
        let list = match get(question, &question.path, &trust, own).await {
            Ok(list) => list,
            Err(why) => {
                tracing::warn!(service = question.name, "what it serves is not believed: {why}");
                return Ok(Found::default());
            }
        };
        // Not every server describes itself.
        let index = get(question, "/openapi/v3", &trust, own).await.unwrap_or_default();
        let at = &index["paths"][question.path.trim_start_matches('/')]["serverRelativeURL"];
        let resources = list["resources"].as_array().cloned().unwrap_or_default();
        Ok(Found { resources, openapi: at.as_str().map(str::to_owned) })
    };
    tokio::time::timeout(PATIENCE, asked).await.unwrap_or_else(|_| {
        let why = "context deadline exceeded (Client.Timeout exceeded while awaiting headers)";
        Err(format!("failing or missing response from {url}: Get {url:?}: {why}"))
    })
}

async fn get(question: &Question, path: &str, trust: &Trust<'_>, own: Option<&Pair>) -> Result<Value, String> {
    let (at, url) = (&question.at, format!("https://{}{path}", question.at));
    let failed = |why: String| format!("Get {url:?}: {why}");
    let stream = connect(at, &question.host, client(trust, own)?).await.map_err(failed)?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|e| failed(e.to_string()))?;
    let connection = tokio::spawn(connection);
    let answered = async {
        let mut request = Request::new(Empty::<Bytes>::new());
        *request.uri_mut() = path.parse().map_err(|_| "the path cannot be asked for".to_owned())?;
        let headers = request.headers_mut();
        tell_user(headers, &User::new("system:kube-aggregator", &[MASTERS]))?;
        headers.insert(HOST, HeaderValue::from_str(at).map_err(|e| e.to_string())?);
        let response = sender.send_request(request).await.map_err(|e| failed(e.to_string()))?;
        let code = response.status();
        let body = Limited::new(response.into_body(), LONGEST).collect().await.map_err(|e| e.to_string())?;
        match code.is_success() {
            true => Ok(serde_json::from_slice(&body.to_bytes()).unwrap_or_default()),
            false => Err(format!("bad status from {url}: {}", code.as_u16())),
        }
    };
    let answered = answered.await;
    connection.abort();
    answered
}

#[cfg(test)]
mod tests {
    use hyper::header::{HeaderMap, HeaderName, HeaderValue};
    use skeg_core::auth::User;

    use super::tell_user;

    #[test]
    fn a_server_is_told_who_asks_and_nobody_else_says_so() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("authorization", "Bearer t"),
            ("impersonate-user", "a"),
            ("x-remote-user", "root"),
            ("x-remote-group", "system:masters"),
            ("x-remote-extra-scopes", "all"),
            ("accept", "application/json"),
        ] {
            headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        let mut user = User::new("jane", &["dev", "ops"]);
        user.extra.insert("example.com/Team".to_owned(), vec!["a".to_owned()]);
        tell_user(&mut headers, &user).unwrap();
        let all = |name: &str| headers.get_all(name).iter().map(|v| v.to_str().unwrap()).collect::<Vec<_>>();
        assert_eq!((all("x-remote-user"), all("x-remote-group")), (vec!["jane"], vec!["dev", "ops"]));
        assert_eq!(all("x-remote-extra-example.com%2fteam"), ["a"]);
        assert_eq!((headers.len(), all("accept")), (5, vec!["application/json"]));
        // What is no ASCII is told as it is, and nobody becomes nobody.
        tell_user(&mut headers, &User::new("jörg", &[])).unwrap();
        assert_eq!(headers["x-remote-user"].as_bytes(), "jörg".as_bytes());
        assert!(tell_user(&mut headers, &User::new("a\nb", &[])).is_err());
        assert!(tell_user(&mut headers, &User::new("a", &["b\nc"])).is_err());
    }
}
