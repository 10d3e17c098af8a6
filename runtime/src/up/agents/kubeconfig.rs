//! What an agent reads of a kubeconfig: the servers of the current context, whom it trusts, and who it is.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};
use serde_json::Value;

use crate::disk::explain;
use crate::up::kubeconfig::{SERVERS, client_certificate};

/// How servers are reached, and as whom.
#[derive(Debug)]
pub struct Credentials {
    /// URLs of the servers, of which there is one at least.
    pub servers: Vec<String>,
    /// Whom to trust, and the client's certificate if it has one.
    pub tls: ClientConfig,
    /// The certificates of whom to trust, PEM.
    pub authority: Vec<u8>,
    /// A bearer token, if there is no certificate.
    pub token: Option<String>,
    /// The client's certificate, PEM.
    pub certificate: Option<Vec<u8>>,
    /// The kubeconfig itself.
    pub config: Value,
}

impl Credentials {
    /// Reads a kubeconfig.
    pub fn read(path: &Path) -> Result<Credentials, String> {
        let text = fs::read_to_string(path).map_err(|e| format!("error: {}: {}", path.display(), explain(&e)))?;
        let config: Value = serde_saphyr::from_str(&text).map_err(|e| {
            let text = e.to_string();
            format!("error: {}: {}; it is no kubeconfig", path.display(), text.lines().next().unwrap_or_default())
        })?;
        let dir = path.parent().unwrap_or(Path::new(""));
        credentials(&config, dir).map_err(|why| format!("error: {}: {why}", path.display()))
    }
}

impl Credentials {
    /// The namespace of the current context.
    pub fn namespace(&self) -> String {
        let context = &self.config["current-context"];
        let entries = self.config["contexts"].as_array().into_iter().flatten();
        let found = entries.into_iter().find(|entry| entry["name"] == *context);
        let namespace = found.and_then(|entry| entry["context"]["namespace"].as_str());
        namespace.filter(|name| !name.is_empty()).unwrap_or("default").to_owned()
    }

    /// The same kubeconfig, with another certificate of its current user.
    pub fn with_certificate(config: &Value, certificate: &str, key: &str) -> Value {
        let mut config = config.clone();
        let context = config["current-context"].clone();
        let contexts = config["contexts"].as_array().into_iter().flatten();
        let of = contexts.into_iter().find(|entry| entry["name"] == context);
        let name = of.map_or(Value::Null, |entry| entry["context"]["user"].clone());
        let user = client_certificate(certificate, key);
        for entry in config["users"].as_array_mut().into_iter().flatten().filter(|entry| entry["name"] == name) {
            entry["user"] = user.clone();
        }
        config
    }
}

/// The entry of this name in a list of the kubeconfig.
fn named<'a>(config: &'a Value, list: &str, field: &str, name: &str) -> Result<&'a Value, String> {
    let entries = config[list].as_array().into_iter().flatten();
    let found = entries.into_iter().find(|entry| entry["name"] == name).map(|entry| &entry[field]);
    found.filter(|found| found.is_object()).ok_or_else(|| format!("{list} has no {name:?}"))
}

/// What stands in a field as base64, or in the file that another field names; `None` if neither is there.
fn data(of: &Value, field: &str, dir: &Path) -> Result<Option<Vec<u8>>, String> {
    if let Some(text) = of[&format!("{field}-data")].as_str().filter(|text| !text.is_empty()) {
        let data = STANDARD.decode(text.split_whitespace().collect::<String>());
        return data.map(Some).map_err(|e| format!("{field}-data is no base64: {e}"));
    }
    let Some(file) = of[field].as_str().filter(|file| !file.is_empty()) else { return Ok(None) };
    let file: PathBuf = dir.join(file);
    fs::read(&file).map(Some).map_err(|e| format!("{}: {}", file.display(), explain(&e)))
}

fn credentials(config: &Value, dir: &Path) -> Result<Credentials, String> {
    let text = |value: &Value| value.as_str().filter(|text| !text.is_empty()).map(str::to_owned);
    let context = text(&config["current-context"]).ok_or("it has no current-context")?;
    let context = named(config, "contexts", "context", &context)?;
    let of = |field: &str| text(&context[field]).ok_or_else(|| format!("the current context has no {field}"));
    let cluster = named(config, "clusters", "cluster", &of("cluster")?)?;
    let user = named(config, "users", "user", &of("user")?)?;

    let extensions = cluster["extensions"].as_array().into_iter().flatten();
    let all = extensions.into_iter().find(|extension| extension["name"] == SERVERS);
    let all = all.and_then(|extension| extension["extension"]["servers"].as_array());
    let mut servers: Vec<String> = text(&cluster["server"]).into_iter().collect();
    for server in all.into_iter().flatten().filter_map(text) {
        if !servers.contains(&server) {
            servers.push(server);
        }
    }
    if servers.is_empty() {
        return Err("the cluster has no server".to_owned());
    }

    let mut roots = RootCertStore::empty();
    let authorities = data(cluster, "certificate-authority", dir)?;
    let authorities = authorities.ok_or("the cluster has no certificate-authority; servers are not trusted blindly")?;
    for authority in CertificateDer::pem_slice_iter(&authorities) {
        let authority = authority.map_err(|e| format!("certificate-authority: {e}"))?;
        roots.add(authority).map_err(|e| format!("certificate-authority: {e}"))?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let builder = builder.map_err(|e| e.to_string())?.with_root_certificates(roots);

    let (certificate, key) = (data(user, "client-certificate", dir)?, data(user, "client-key", dir)?);
    let token = match (text(&user["token"]), text(&user["tokenFile"])) {
        (Some(token), _) => Some(token),
        (None, Some(file)) => {
            let file = dir.join(file);
            let read = fs::read_to_string(&file).map_err(|e| format!("{}: {}", file.display(), explain(&e)))?;
            Some(read.trim().to_owned())
        }
        (None, None) => None,
    };
    match (certificate, key, token) {
        (Some(certificate), Some(key), _) => {
            let chain = CertificateDer::pem_slice_iter(&certificate).collect::<Result<Vec<_>, _>>();
            let chain = chain.map_err(|e| format!("client-certificate: {e}"))?;
            let key = PrivateKeyDer::from_pem_slice(&key).map_err(|e| format!("client-key: {e}"))?;
            let tls = builder.with_client_auth_cert(chain, key).map_err(|e| format!("client-certificate: {e}"))?;
            let (token, certificate) = (None, Some(certificate));
            Ok(Credentials { servers, tls, authority: authorities, token, certificate, config: config.clone() })
        }
        (_, _, Some(token)) => {
            let tls = builder.with_no_client_auth();
            let (token, certificate) = (Some(token), None);
            Ok(Credentials { servers, tls, authority: authorities, token, certificate, config: config.clone() })
        }
        (_, _, None) => Err("the user has neither a client-certificate with its client-key nor a token".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use serde_json::{Value, json};

    use super::{Credentials, credentials};
    use crate::up::kubeconfig::of_servers;
    use crate::up::pki::{self, Pair};

    fn good() -> Value {
        let pki = pki::generate(&[]).unwrap();
        let servers = ["https://a:6443", "https://b:6443"].map(str::to_owned);
        of_servers(&servers, Some("https://balancer"), &pki.ca_pem, &pki.admin)
    }

    #[test]
    fn all_servers_are_found() {
        let read = credentials(&good(), Path::new("")).unwrap();
        assert_eq!(read.servers, ["https://balancer", "https://a:6443", "https://b:6443"]);
        assert!(read.token.is_none() && read.tls.client_auth_cert_resolver.has_certs());
        let mut by_token = good();
        by_token["users"][0]["user"] = json!({"token": "t"});
        let by_token = credentials(&by_token, Path::new("")).unwrap();
        assert_eq!(by_token.token.as_deref(), Some("t"));
        // What a bootstrap token has got.
        let Pair { certificate_pem, key_pem } = pki::generate(&[]).unwrap().admin;
        let known = Credentials::with_certificate(&by_token.config, &certificate_pem, &key_pem);
        let known = credentials(&known, Path::new("")).unwrap();
        assert!(known.token.is_none() && known.certificate.as_deref() == Some(certificate_pem.as_bytes()));
        assert_eq!(known.servers, by_token.servers);
    }

    #[test]
    fn what_is_missing_is_named() {
        let check = |change: fn(&mut Value), expect: &str| {
            let mut config = good();
            change(&mut config);
            let why = credentials(&config, Path::new("")).unwrap_err();
            assert!(why.contains(expect), "{why}");
        };
        check(|c| c["current-context"] = json!(""), "no current-context");
        check(|c| c["current-context"] = json!("other"), "contexts has no \"other\"");
        check(|c| c["users"] = json!([]), "users has no \"skeg\"");
        check(|c| c["users"][0]["user"] = json!({}), "neither a client-certificate");
        check(|c| c["clusters"][0]["cluster"]["certificate-authority-data"] = json!("?"), "no base64");
        check(
            |c| drop(c["clusters"][0]["cluster"].as_object_mut().unwrap().remove("certificate-authority-data")),
            "blindly",
        );
    }
}
