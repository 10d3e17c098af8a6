//! Asks webhooks: posts a question by HTTPS, and reads the answer.
//!
//! Source: kubernetes `staging/src/k8s.io/apiserver/pkg/util/webhook`.

use std::sync::Arc;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::header::{ACCEPT, CONTENT_TYPE, HOST, HeaderName};
use hyper::{Method, Request, Uri};
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde_json::Value;
use skeg_core::apiserver::{Answered, ApiServer, Callee, Consultation};
use skeg_core::{Kind, Object};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// Longest answer, in bytes.
const LONGEST: usize = 8 << 20;

/// `host:port` at which a Service is reached, or why it is not.
pub type Reached = Result<String, String>;

/// The EndpointSlices of a Service.
pub fn slices_of(api: &ApiServer, namespace: &str, service: &str) -> impl Iterator<Item = Value> {
    let all = api.cached_in(Kind::ENDPOINT_SLICE, namespace).map(|(_, slice)| slice);
    let own = all.filter(move |slice| {
        let labels = slice.meta().labels.as_ref();
        labels.and_then(|labels| labels.get("kubernetes.io/service-name")).is_some_and(|of| of == service)
    });
    own.map(Object::to_json)
}

/// Asks a question. `service` is where the Service of the callee is reached; without meaning for a URL.
pub async fn ask(question: Consultation, service: Option<Reached>) -> Answered {
    let seconds = question.timeout.as_secs();
    let (base, dial) = match &question.callee {
        Callee::Url(url) => (url.clone(), None),
        Callee::Service { namespace, name, path, port } => {
            (format!("https://{name}.{namespace}.svc:{port}/{}", path.trim_start_matches('/')), service)
        }
    };
    let separator = if base.contains('?') { '&' } else { '?' };
    let url = format!("{base}{separator}timeout={seconds}s");
    let posted = async {
        let uri: Uri = url.parse().map_err(|e| format!("parse {url:?}: {e}"))?;
        post(&uri, dial, &question).await
    };
    let answered = tokio::time::timeout(question.timeout, posted).await;
    let answered = answered.unwrap_or_else(|_| Err("context deadline exceeded".to_owned()));
    answered.map_err(|why| format!("Post {url:?}: {why}"))
}

async fn post(uri: &Uri, dial: Option<Reached>, question: &Consultation) -> Answered {
    if uri.scheme_str() != Some("https") {
        return Err("only https is served".to_owned());
    }
    let host = uri.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
    let port = uri.port_u16().unwrap_or(443);
    let stream = match dial {
        Some(reached) => TcpStream::connect(reached?).await,
        None => TcpStream::connect((host.as_str(), port)).await,
    };
    let stream = stream.map_err(|e| format!("dial tcp {host}:{port}: {e}"))?;
    let name = ServerName::try_from(host.clone()).map_err(|e| e.to_string())?;
    let connector = TlsConnector::from(Arc::new(client(question.ca.as_deref())?));
    let stream = connector.connect(name, stream).await.map_err(|e| format!("tls: {e}"))?;
    let headers = [(CONTENT_TYPE, "application/json"), (ACCEPT, "application/json, */*")];
    let (code, body) = exchange(stream, uri, &headers, question.body.to_string()).await?;
    match code {
        200..300 => serde_json::from_slice::<Value>(&body).map_err(|e| format!("invalid answer: {e}")),
        404 => Err("the server could not find the requested resource".to_owned()),
        500.. => {
            let said = String::from_utf8_lossy(&body);
            Err(format!("an error on the server ({:?}) has prevented the request from succeeding", said.trim()))
        }
        code => Err(format!("the server responded with the status code {code} but did not return more information")),
    }
}

/// Posts a body over a stream, and reads the status code and the body of the answer.
pub(super) async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    uri: &Uri,
    headers: &[(HeaderName, &str)],
    body: String,
) -> Result<(u16, Vec<u8>), String> {
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|e| e.to_string())?;
    let connection = tokio::spawn(connection);
    let answered = async {
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        let authority = uri.authority().map_or("", |authority| authority.as_str());
        let request = Request::builder().method(Method::POST).uri(path).header(HOST, authority);
        let request = headers.iter().fold(request, |request, (name, value)| request.header(name, *value));
        let request = request.body(Full::new(Bytes::from(body))).map_err(|e| e.to_string())?;
        let response = sender.send_request(request).await.map_err(|e| e.to_string())?;
        let code = response.status().as_u16();
        let body = Limited::new(response.into_body(), LONGEST).collect().await.map_err(|e| e.to_string())?.to_bytes();
        Ok((code, body.to_vec()))
    };
    let answered = answered.await;
    connection.abort();
    answered
}

/// The TLS configuration for a webhook that these certificates identify, PEM.
fn client(ca: Option<&str>) -> Result<ClientConfig, String> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(ca.unwrap_or_default().as_bytes()) {
        let certificate = certificate.map_err(|e| format!("unable to load root certificates: {e}"))?;
        roots.add(certificate).map_err(|e| format!("unable to load root certificates: {e}"))?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let builder = builder.map_err(|e| e.to_string())?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}
