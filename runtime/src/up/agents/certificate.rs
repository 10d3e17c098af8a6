//! An agent's own certificate: asked for with a bootstrap token, kept in its kubeconfig, and renewed in time.
//!
//! Source: <https://kubernetes.io/docs/reference/access-authn-authz/kubelet-tls-bootstrapping/>.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hyper::Method;
use serde_json::{Value, json};
use skeg_core::Rng;
use tokio::time::sleep;
use x509_parser::pem::Pem;

use super::client::{Client, Outcome};
use super::kubeconfig::Credentials;
use super::link::Ask;
use crate::disk::{explain, write_private};
use crate::up::pki::{self, NODE_USER, NODES};
use crate::up::servers::certificates::SIGNER;

const REQUESTS: &str = "/apis/certificates.k8s.io/v1/certificatesigningrequests";
/// How often it is looked whether a certificate has been issued.
const LOOK: Duration = Duration::from_secs(1);
/// How long that is waited for before another one is asked for.
const PATIENCE: Duration = Duration::from_secs(300);
/// How long to wait after a failure.
const AGAIN: Duration = Duration::from_secs(10);
/// Longest sleep: a clock may be set.
const LONGEST_SLEEP: Duration = Duration::from_secs(3600);

/// A node's kubeconfig, and who the node is.
#[derive(Clone, Debug)]
pub struct Identity {
    /// Name of the node.
    pub node: String,
    /// The kubeconfig that is kept.
    pub kubeconfig: PathBuf,
}

async fn ask(client: &Client, method: Method, path: String, body: Option<&Value>) -> Result<Value, String> {
    let body = body.map(|body| body.to_string().into_bytes()).unwrap_or_default();
    match client.send(&Ask { method, path, media_type: "application/json", body }).await {
        Outcome::Answered(200..300, body) => serde_json::from_slice(&body).map_err(|e| e.to_string()),
        Outcome::Answered(code, body) => {
            let said: Value = serde_json::from_slice(&body).unwrap_or_default();
            Err(format!("{code}: {}", said["message"].as_str().unwrap_or_default()))
        }
        Outcome::Unsent(why) | Outcome::Unknown(why) => Err(why),
    }
}

/// Asks for a certificate and waits for it. Returns it with its key, both PEM.
async fn obtain(client: &Client, node: &str) -> Result<(String, String), String> {
    let (request, key) = pki::ask_for(&format!("{NODE_USER}{node}"), Some(NODES))?;
    let asked = json!({
        "apiVersion": "certificates.k8s.io/v1", "kind": "CertificateSigningRequest",
        "metadata": {"generateName": "node-csr-"},
        "spec": {"request": STANDARD.encode(request), "signerName": SIGNER,
            "usages": ["digital signature", "client auth"]},
    });
    let made = ask(client, Method::POST, REQUESTS.to_owned(), Some(&asked)).await?;
    let name = made["metadata"]["name"].as_str().unwrap_or_default();
    let issued = async {
        loop {
            let status = match ask(client, Method::GET, format!("{REQUESTS}/{name}"), None).await {
                Ok(found) => found["status"].clone(),
                Err(why) => {
                    tracing::warn!("the request {name:?} for a certificate cannot be read: {why}");
                    Value::Null
                }
            };
            if let Some(certificate) = status["certificate"].as_str() {
                let pem = STANDARD.decode(certificate).ok().and_then(|pem| String::from_utf8(pem).ok());
                return pem.ok_or_else(|| "what was issued is no certificate".to_owned());
            }
            let conditions = status["conditions"].as_array().into_iter().flatten();
            let mut refused = conditions.filter(|c| c["type"] == "Denied" || c["type"] == "Failed");
            if let Some(condition) = refused.next() {
                return Err(condition["message"].as_str().unwrap_or_default().to_owned());
            }
            sleep(LOOK).await;
        }
    };
    let issued = tokio::time::timeout(PATIENCE, issued).await;
    let certificate = issued.unwrap_or_else(|_| Err("nobody has approved it in time".to_owned()));
    Ok((certificate.map_err(|why| format!("the request {name:?} for a certificate: {why}"))?, key))
}

/// Asks for the first certificate with a bootstrap token until there is one, and writes the node's kubeconfig.
pub async fn bootstrap(identity: &Identity, bootstrap: &Path) -> Result<(), String> {
    let credentials = Credentials::read(bootstrap)?;
    let template = credentials.config.clone();
    let client = Client::new(credentials).map_err(|why| format!("error: {}: {why}", bootstrap.display()))?;
    loop {
        match obtain(&client, &identity.node).await {
            Ok((certificate, key)) => {
                write(identity, &template, &certificate, &key)?;
                tracing::info!(node = identity.node, "the node has its first certificate");
                return Ok(());
            }
            Err(why) => tracing::warn!("no certificate yet: {why}"),
        }
        sleep(AGAIN).await;
    }
}

fn write(identity: &Identity, template: &Value, certificate: &str, key: &str) -> Result<(), String> {
    let config = Credentials::with_certificate(template, certificate, key);
    let path = &identity.kubeconfig;
    let error = |e: &dyn std::fmt::Display| format!("error: {}: {e}", path.display());
    let yaml = serde_saphyr::to_string(&config).map_err(|e| error(&e))?;
    write_private(path, &yaml).map_err(|e| error(&explain(&e)))
}

/// When the certificate ends; `None` if it cannot be read.
fn end(certificate: &[u8]) -> Option<SystemTime> {
    let pem = Pem::iter_from_buffer(certificate).next()?.ok()?;
    let seconds = pem.parse_x509().ok()?.validity().not_after.timestamp();
    u64::try_from(seconds).ok().map(|seconds| UNIX_EPOCH + Duration::from_secs(seconds))
}

/// Renews the certificate for ever: each after 70 to 90 percent of the time that was left of it.
pub async fn renew(
    identity: Identity,
    client: Arc<Client>,
    mut credentials: Value,
    mut certificate: Vec<u8>,
    mut rng: Rng,
) {
    loop {
        let Some(end) = end(&certificate) else {
            tracing::warn!("the node's certificate cannot be read, so it is not renewed");
            return;
        };
        let left = end.duration_since(SystemTime::now()).unwrap_or_default();
        let due = SystemTime::now() + left * 7 / 10 + rng.duration(Duration::ZERO, left / 5);
        while let Ok(wait) = due.duration_since(SystemTime::now()) {
            sleep(wait.min(LONGEST_SLEEP)).await;
        }
        let renewed = async {
            let (new, key) = obtain(&client, &identity.node).await?;
            write(&identity, &credentials, &new, &key)?;
            let read = Credentials::read(&identity.kubeconfig)?;
            (credentials, certificate) = (read.config.clone(), new.into_bytes());
            client.become_known_as(read)
        };
        match renewed.await {
            Ok(()) => tracing::info!(node = identity.node, "the node's certificate is renewed"),
            Err(why) => {
                tracing::warn!("the node's certificate is not renewed: {why}");
                sleep(AGAIN.min(left / 10).max(LOOK)).await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use rcgen::CertificateSigningRequestParams;

    use super::end;
    use crate::up::pki;

    #[test]
    fn the_end_of_a_certificate_is_read() {
        let (request, _) = pki::ask_for("system:node:a", None).unwrap();
        let asked = CertificateSigningRequestParams::from_pem(&request).unwrap();
        let hour = Duration::from_secs(3600);
        let certificate = pki::sign_node(&pki::new_authority().unwrap(), asked, hour).unwrap();
        let left = end(certificate.as_bytes()).unwrap().duration_since(SystemTime::now()).unwrap();
        assert!(left <= hour && left > hour - Duration::from_secs(60), "{left:?}");
        assert!(end(b"nothing").is_none());
    }
}
