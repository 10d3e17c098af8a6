//! Asks the scheduler's extenders: posts a question by HTTP or HTTPS, and reads the answer.
//!
//! Source: `pkg/scheduler/extender.go`. Over HTTPS, whoever asks to trust no certificates trusts none: those of public
//! authorities are not known here.

use std::path::Path;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hyper::Uri;
use hyper::header::CONTENT_TYPE;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use serde_json::Value;
use skeg_core::apiserver::Answered;
use skeg_core::scheduler::extenders::{Question, TIMED_OUT};
use skeg_sim::scenario::{ExtenderTls, Extending};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::aggregator::proxy::{Trust, client};
use super::consult::exchange;
use super::pki::Pair;
use crate::disk::explain;

/// How one extender is reached.
#[derive(Clone, Debug)]
struct Line {
    config: Arc<ClientConfig>,
    /// The name that its certificate must have; `None` for that of the URL.
    name: Option<String>,
}

/// How all of them are, by their numbers.
#[derive(Clone, Debug, Default)]
pub struct Lines(Vec<Line>);

impl Lines {
    /// Reads the certificates of extenders.
    pub fn new(extenders: &[Extending]) -> Result<Lines, String> {
        let lines = extenders
            .iter()
            .map(|e| Line::new(&e.tls).map_err(|why| format!("error: extender {:?}: {why}", e.extender.url_prefix)));
        lines.collect::<Result<_, _>>().map(Lines)
    }

    /// Asks a question.
    pub async fn ask(self, question: Question) -> Answered {
        let line = self.0.get(question.extender).cloned().ok_or("there is no such extender")?;
        let posted = tokio::time::timeout(question.timeout, post(&line, &question)).await;
        let posted = posted.unwrap_or_else(|_| Err(TIMED_OUT.to_owned()));
        let (code, body) = posted.map_err(|why| format!("Post {:?}: {why}", question.url))?;
        if code != 200 {
            return Err(format!("failed {} with extender at URL {}, code {code}", question.action, question.url));
        }
        serde_json::from_slice::<Value>(&body).map_err(|e| format!("invalid answer: {e}"))
    }
}

async fn post(line: &Line, question: &Question) -> Result<(u16, Vec<u8>), String> {
    let uri: Uri = question.url.parse().map_err(|e| format!("{e}"))?;
    let host = uri.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
    let (port, tls) = match uri.scheme_str() {
        Some("http") => (80, false),
        Some("https") => (443, true),
        scheme => return Err(format!("unsupported protocol scheme {:?}", scheme.unwrap_or_default())),
    };
    let port = uri.port_u16().unwrap_or(port);
    let stream = TcpStream::connect((host.as_str(), port)).await.map_err(|e| format!("dial tcp {host}:{port}: {e}"))?;
    let headers = [(CONTENT_TYPE, "application/json")];
    let body = question.body.to_string();
    if !tls {
        return exchange(stream, &uri, &headers, body).await;
    }
    let name = ServerName::try_from(line.name.clone().unwrap_or(host)).map_err(|e| e.to_string())?;
    let connector = TlsConnector::from(Arc::clone(&line.config));
    let stream = connector.connect(name, stream).await.map_err(|e| format!("tls: {e}"))?;
    exchange(stream, &uri, &headers, body).await
}

impl Line {
    fn new(tls: &ExtenderTls) -> Result<Line, String> {
        let ca = pem(&tls.ca_data, &tls.ca_file)?;
        let own = pem(&tls.cert_data, &tls.cert_file)?.zip(pem(&tls.key_data, &tls.key_file)?);
        let own = own.map(|(certificate_pem, key_pem)| Pair { certificate_pem, key_pem });
        let trust = Trust::of(tls.insecure || tls.https && ca.is_none(), ca.as_deref());
        let config = Arc::new(client(&trust, own.as_ref())?);
        Ok(Line { config, name: (!tls.server_name.is_empty()).then(|| tls.server_name.clone()) })
    }
}

/// PEM in base64, or else of a file; `None` if neither is given.
fn pem(data: &str, file: &str) -> Result<Option<String>, String> {
    let text = |bytes| String::from_utf8(bytes).map_err(|_| "its certificates and keys must be PEM".to_owned());
    if !data.is_empty() {
        return text(STANDARD.decode(data).map_err(|e| format!("illegal base64 data: {e}"))?).map(Some);
    }
    if file.is_empty() {
        return Ok(None);
    }
    let path = Path::new(file);
    text(std::fs::read(path).map_err(|e| format!("{}: {}", path.display(), explain(&e)))?).map(Some)
}
