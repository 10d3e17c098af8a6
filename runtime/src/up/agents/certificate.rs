//! An agent's own certificate: asked for with a bootstrap token, kept in its kubeconfig, and renewed in time.
//!
//! Source: <https://kubernetes.io/docs/reference/access-authn-authz/kubelet-tls-bootstrapping/>.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hyper::Method;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde_json::{Value, json};
use skeg_core::{Rng, Wall};
use tokio::sync::oneshot::Sender;
use tokio::time::sleep;

use super::client::Client;
use super::kubeconfig::Credentials;
use super::port::Shown;
use crate::disk::{explain, write_private};
use crate::up::clock::time_of_day;
use crate::up::identity::of_certificate;
use crate::up::pki::{self, NODE_USER, NODES};
use crate::up::servers::certificates::{SERVING, SIGNER};

const REQUESTS: &str = "/apis/certificates.k8s.io/v1/certificatesigningrequests";
/// How often it is looked whether a certificate has been issued.
const LOOK: Duration = Duration::from_secs(1);
/// How long that is waited for before another one is asked for.
const PATIENCE: Duration = Duration::from_secs(300);
/// How long to wait after a failure; less where little is left of a certificate.
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
    /// The kubeconfig with a bootstrap token, by which the first certificate is asked for, and the next one where the
    /// node's has ended.
    pub bootstrap: Option<PathBuf>,
}

impl Identity {
    /// Whether the kubeconfig that is kept is of no use, and another one can be had: it is missing, or its certificate
    /// has ended (`isClientConfigStillValid`).
    pub fn is_of_no_use(&self) -> bool {
        let ended = || {
            let kept = Credentials::read(&self.kubeconfig).ok();
            kept.and_then(|kept| kept.certificate).is_some_and(|kept| has_ended(&kept, time_of_day()))
        };
        self.bootstrap.is_some() && (!self.kubeconfig.exists() || ended())
    }

    /// Refuses a certificate that is not this node's, or that has ended.
    pub fn check(&self, certificate: &[u8]) -> Result<(), String> {
        let error = |why: String| Err(format!("error: {}: {why}", self.kubeconfig.display()));
        let der = CertificateDer::from_pem_slice(certificate).ok();
        let Some(user) = der.and_then(|der| of_certificate(&der)) else {
            return error("its certificate cannot be read".to_owned());
        };
        let own = format!("{NODE_USER}{}", self.node);
        if user.name != own {
            return error(format!("its certificate is that of {:?}, and this node is {own:?}", user.name));
        }
        if has_ended(certificate, time_of_day()) {
            return error("its certificate has ended; --bootstrap-kubeconfig names what asks for another".to_owned());
        }
        Ok(())
    }
}

/// Whether a certificate (PEM) has ended.
fn has_ended(certificate: &[u8], now: Wall) -> bool {
    pki::end(certificate).is_some_and(|end| end <= now)
}

/// Asks for a certificate and waits for it. Returns it with its key, both PEM.
async fn obtain(client: &Client, node: &str) -> Result<(String, String), String> {
    let (request, key) = pki::ask_for(&format!("{NODE_USER}{node}"), Some(NODES))?;
    Ok((issued(client, SIGNER, "client auth", &request).await?, key))
}

/// Asks a signer for a certificate, and waits for it.
async fn issued(client: &Client, signer: &str, usage: &str, request: &str) -> Result<String, String> {
    let asked = json!({
        "apiVersion": "certificates.k8s.io/v1", "kind": "CertificateSigningRequest",
        "metadata": {"generateName": "node-csr-"},
        "spec": {"request": STANDARD.encode(request), "signerName": signer, "usages": ["digital signature", usage]},
    });
    let made = client.call(Method::POST, REQUESTS.to_owned(), Some(&asked)).await?;
    let name = made["metadata"]["name"].as_str().unwrap_or_default();
    let issued = async {
        loop {
            let status = match client.call(Method::GET, format!("{REQUESTS}/{name}"), None).await {
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
    certificate.map_err(|why| format!("the request {name:?} for a certificate: {why}"))
}

/// Keeps a certificate for the port of the node, for ever: each is shown until 70 to 90 percent of its time are over.
/// `begun` is told when there is the first.
pub async fn serve(node: String, ip: IpAddr, client: Arc<Client>, shown: Arc<Shown>, begun: Sender<()>, mut rng: Rng) {
    let mut begun = Some(begun);
    // It is granted to a node that is registered with this address.
    while client.call(Method::GET, format!("/api/v1/nodes/{node}"), None).await.is_err() {
        sleep(LOOK).await;
    }
    loop {
        let asked = async {
            let (request, key) = pki::ask_to_serve(&format!("{NODE_USER}{node}"), NODES, ip)?;
            let certificate = issued(&client, SERVING, "server auth", &request).await?;
            shown.show(&certificate, &key)?;
            Ok::<_, String>(certificate)
        };
        match asked.await {
            Ok(certificate) => {
                // An error means that the port is not served any more.
                let _ = begun.take().map(|begun| begun.send(()));
                let left = pki::end(certificate.as_bytes()).map_or(AGAIN, |end| end.since(time_of_day()));
                wait(left * 7 / 10 + rng.duration(Duration::ZERO, left / 5)).await;
            }
            Err(why) => {
                tracing::warn!("the agent's port has no new certificate: {why}");
                sleep(AGAIN).await;
            }
        }
    }
}

/// Waits for a time of day.
async fn wait(time: Duration) {
    let due = time_of_day() + time;
    loop {
        let left = due.since(time_of_day());
        if left.is_zero() {
            return;
        }
        sleep(left.min(LONGEST_SLEEP)).await;
    }
}

/// Asks for a certificate with the bootstrap token, once, and writes the node's kubeconfig.
async fn join(identity: &Identity, bootstrap: &Path) -> Result<(), String> {
    let credentials = Credentials::read(bootstrap)?;
    let template = credentials.config.clone();
    let client = Client::new(credentials, "kubelet").map_err(|why| format!("error: {}: {why}", bootstrap.display()))?;
    let (certificate, key) = obtain(&client, &identity.node).await?;
    write(identity, &template, &certificate, &key)?;
    tracing::info!(node = identity.node, "the node has got a certificate by its token");
    Ok(())
}

/// Asks for the first certificate until there is one.
pub async fn bootstrap(identity: &Identity, bootstrap: &Path) -> Result<(), String> {
    // What is wrong with the file itself does not mend by waiting.
    Client::new(Credentials::read(bootstrap)?, "kubelet")
        .map_err(|why| format!("error: {}: {why}", bootstrap.display()))?;
    while let Err(why) = join(identity, bootstrap).await {
        tracing::warn!("no certificate yet: {why}");
        sleep(AGAIN).await;
    }
    Ok(())
}

fn write(identity: &Identity, template: &Value, certificate: &str, key: &str) -> Result<(), String> {
    let config = Credentials::with_certificate(template, certificate, key);
    let path = &identity.kubeconfig;
    let error = |e: &dyn std::fmt::Display| format!("error: {}: {e}", path.display());
    let yaml = serde_saphyr::to_string(&config).map_err(|e| error(&e))?;
    write_private(path, &yaml).map_err(|e| error(&explain(&e)))
}

/// Renews the certificate for ever: each after 70 to 90 percent of the time that was left of it. One that has ended
/// all the same is asked for by the bootstrap token.
pub async fn renew(
    identity: Identity,
    client: Arc<Client>,
    mut credentials: Value,
    mut certificate: Vec<u8>,
    mut rng: Rng,
) {
    loop {
        let Some(end) = pki::end(&certificate) else {
            tracing::warn!("the node's certificate cannot be read, so it is not renewed");
            return;
        };
        let left = end.since(time_of_day());
        wait(left * 7 / 10 + rng.duration(Duration::ZERO, left / 5)).await;
        let again = AGAIN.min(left / 10).max(LOOK);
        loop {
            let by_token = identity.bootstrap.as_deref().filter(|_| has_ended(&certificate, time_of_day()));
            let renewed = async {
                match by_token {
                    Some(bootstrap) => join(&identity, bootstrap).await?,
                    None => {
                        let (new, key) = obtain(&client, &identity.node).await?;
                        write(&identity, &credentials, &new, &key)?;
                    }
                }
                let read = Credentials::read(&identity.kubeconfig)?;
                let new = read.certificate.clone().ok_or("what was written has no certificate")?;
                (credentials, certificate) = (read.config.clone(), new);
                client.become_known_as(read)
            };
            match renewed.await {
                Ok(()) => break,
                Err(why) => tracing::warn!("the node's certificate is not renewed: {why}"),
            }
            sleep(again).await;
        }
        tracing::info!(node = identity.node, "the node's certificate is renewed");
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::time::Duration;

    use rcgen::CertificateSigningRequestParams;

    use super::{Credentials, Identity, has_ended};
    use crate::up::clock::time_of_day;
    use crate::up::kubeconfig::of_servers;
    use crate::up::pki::{self, NODES, Pair, Use};

    /// A certificate of a user, and its key.
    fn of(user: &str, holds: Duration) -> Pair {
        let (request, key_pem) = pki::ask_for(user, Some(NODES)).unwrap();
        let asked = CertificateSigningRequestParams::from_pem(&request).unwrap();
        let certificate_pem = pki::sign_node(&pki::new_authority().unwrap(), asked, holds, Use::Client).unwrap();
        Pair { certificate_pem, key_pem }
    }

    #[test]
    fn the_end_of_a_certificate_is_read() {
        let hour = Duration::from_secs(3600);
        let certificate = of("system:node:a", hour).certificate_pem.into_bytes();
        let left = pki::end(&certificate).unwrap().since(time_of_day());
        assert!(left <= hour && left > hour - Duration::from_secs(60), "{left:?}");
        assert!(pki::end(b"nothing").is_none());
        assert!(!has_ended(&certificate, time_of_day()) && has_ended(&certificate, time_of_day() + hour));
        assert!(!has_ended(b"nothing", time_of_day()), "it is not known to have");
    }

    #[test]
    fn only_the_nodes_own_certificate_is_of_use() {
        let authority = pki::generate(&[]).unwrap();
        let dir = std::env::temp_dir().join(format!("skeg-identity-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let kubeconfig = dir.join("node.conf");
        let identity = Identity { node: "a".to_owned(), kubeconfig, bootstrap: Some(PathBuf::from("token.conf")) };
        let without = Identity { bootstrap: None, ..identity.clone() };
        let is_of_no_use = || (identity.is_of_no_use(), without.is_of_no_use());
        assert_eq!(is_of_no_use(), (true, false), "it is missing");
        let check = |user: &str, holds: Duration, of_no_use: bool, refused: Option<&str>| {
            let config = of_servers(&["https://a:6443".to_owned()], None, &authority.ca_pem, &of(user, holds));
            std::fs::write(&identity.kubeconfig, serde_saphyr::to_string(&config).unwrap()).unwrap();
            assert_eq!(is_of_no_use(), (of_no_use, false), "{user}");
            let kept = Credentials::read(&identity.kubeconfig).unwrap().certificate.unwrap();
            match (identity.check(&kept), refused) {
                (Ok(()), None) => {}
                (Err(why), Some(expect)) => assert!(why.contains(expect), "{why}"),
                (checked, _) => panic!("{user}: {checked:?}, and not {refused:?}"),
            }
        };
        let hour = Duration::from_secs(3600);
        check("system:node:a", hour, false, None);
        check("system:node:a", Duration::ZERO, true, Some("has ended"));
        check("system:node:b", hour, false, Some("is that of \"system:node:b\", and this node is \"system:node:a\""));
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
