//! The kubeconfig: a separate file, or the context `skeg` in the user's own.

use std::fs;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::pki::{Pair, Pki};
use crate::disk::{explain, write_private};

/// Name of the cluster, the user and the context.
pub const CONTEXT: &str = "skeg";
/// The extension of a cluster that names all of its servers. kubectl keeps extensions and does not read them.
pub const SERVERS: &str = "skeg.dev/servers";

/// The user's own kubeconfig: the first file of `$KUBECONFIG`, or `~/.kube/config`.
pub fn users_own() -> Result<PathBuf, String> {
    if let Some(list) = std::env::var_os("KUBECONFIG")
        && let Some(first) = std::env::split_paths(&list).find(|p| !p.as_os_str().is_empty())
    {
        return Ok(first);
    }
    let home = std::env::var_os("HOME").filter(|home| !home.is_empty());
    let home = home.ok_or("error: there is no home directory; name a file with --kubeconfig")?;
    Ok(Path::new(&home).join(".kube").join("config"))
}

/// Adds the cluster to a kubeconfig, and makes it the current context. Other entries are kept; comments are lost, as
/// with kubectl.
pub fn merge(path: &Path, url: &str, pki: &Pki) -> Result<(), String> {
    let error = |e: &std::io::Error| format!("error: {}: {}", path.display(), explain(e));
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => String::new(),
        Err(e) => return Err(error(&e)),
    };
    let old = if text.trim().is_empty() { Value::Null } else { parse(path, &text)? };
    let merged = with_cluster(old, url, pki).map_err(|why| format!("error: {}: {why}", path.display()))?;
    let yaml = serde_saphyr::to_string(&merged).map_err(|e| format!("error: {}: {e}", path.display()))?;
    if let Some(dir) = path.parent().filter(|dir| !dir.as_os_str().is_empty()) {
        fs::create_dir_all(dir).map_err(|e| error(&e))?;
    }
    write_private(path, &yaml).map_err(|e| error(&e))
}

/// A user's kubeconfig for a cluster of several servers: the context `skeg` is for the balancer, or for the
/// first server where there is none, and `skeg-1`, `skeg-2`, … are one a server. kubectl goes to one server only; an
/// agent goes to all that the cluster's extension names.
pub fn of_servers(servers: &[String], balancer: Option<&str>, ca_pem: &str, who: &Pair) -> Value {
    with_user(servers, balancer, ca_pem, client_certificate(&who.certificate_pem, &who.key_pem))
}

/// A user that is known by a certificate; both are PEM.
pub fn client_certificate(certificate: &str, key: &str) -> Value {
    json!({"client-certificate-data": STANDARD.encode(certificate), "client-key-data": STANDARD.encode(key)})
}

/// As [`of_servers`], for a user of any sort.
pub fn with_user(servers: &[String], balancer: Option<&str>, ca_pem: &str, user: Value) -> Value {
    let authority = STANDARD.encode(ca_pem);
    let (mut clusters, mut contexts) = (Vec::new(), Vec::new());
    let first = balancer.or(servers.first().map(String::as_str)).unwrap_or_default();
    let each = (1..).zip(servers).map(|(n, server)| (format!("{CONTEXT}-{n}"), server.as_str()));
    for (name, server) in std::iter::once((CONTEXT.to_owned(), first)).chain(each) {
        let mut cluster = json!({"server": server, "certificate-authority-data": authority});
        if name == CONTEXT {
            cluster["extensions"] = json!([{"name": SERVERS, "extension": {"servers": servers}}]);
        }
        clusters.push(json!({"name": name, "cluster": cluster}));
        contexts.push(json!({"name": name, "context": {"cluster": name, "user": CONTEXT}}));
    }
    json!({
        "apiVersion": "v1", "kind": "Config", "preferences": {}, "clusters": clusters, "contexts": contexts,
        "users": [{"name": CONTEXT, "user": user}], "current-context": CONTEXT,
    })
}

fn parse(path: &Path, text: &str) -> Result<Value, String> {
    let value: Value = serde_saphyr::from_str(text).map_err(|e| {
        let text = e.to_string();
        let first = text.lines().next().unwrap_or_default();
        format!("error: {}: {first}; mend the file, or name another with --kubeconfig", path.display())
    })?;
    if value.is_object() || value.is_null() {
        return Ok(value);
    }
    Err(format!("error: {}: it is no kubeconfig; name another file with --kubeconfig", path.display()))
}

fn with_cluster(old: Value, url: &str, pki: &Pki) -> Result<Value, String> {
    let mut config = if old.is_null() { json!({"apiVersion": "v1", "kind": "Config", "preferences": {}}) } else { old };
    let cluster = json!({"server": url, "certificate-authority-data": STANDARD.encode(&pki.ca_pem)});
    let entries = [
        ("clusters", "cluster", cluster),
        ("users", "user", client_certificate(&pki.admin.certificate_pem, &pki.admin.key_pem)),
        ("contexts", "context", json!({"cluster": CONTEXT, "user": CONTEXT})),
    ];
    for (list, field, value) in entries {
        let entry = json!({"name": CONTEXT, field: value});
        if config[list].is_null() {
            config[list] = json!([]);
        }
        let all = config[list].as_array_mut().ok_or_else(|| format!("{list} is not a list"))?;
        match all.iter_mut().find(|e| e["name"] == CONTEXT) {
            Some(old) => *old = entry,
            None => all.push(entry),
        }
    }
    config["current-context"] = json!(CONTEXT);
    Ok(config)
}

#[cfg(test)]
mod tests {
    use super::{CONTEXT, of_servers, with_cluster};
    use crate::up::pki;
    use serde_json::{Value, json};

    #[test]
    fn a_context_for_each_server_and_one_for_all() {
        let pki = pki::generate(&[]).unwrap();
        let servers = ["https://a:6443", "https://b:6443"].map(str::to_owned);
        let check = |balancer: Option<&str>, expect: &[(&str, &str)]| {
            let config = of_servers(&servers, balancer, &pki.ca_pem, &pki.admin);
            let clusters = config["clusters"].as_array().unwrap().iter();
            let got: Vec<(&str, &str)> =
                clusters.map(|c| (c["name"].as_str().unwrap(), c["cluster"]["server"].as_str().unwrap())).collect();
            assert_eq!(got, expect);
            let all = &config["clusters"][0]["cluster"]["extensions"][0];
            assert_eq!(*all, json!({"name": "skeg.dev/servers", "extension": {"servers": servers}}));
            assert_eq!(config["contexts"].as_array().unwrap().len(), expect.len());
        };
        let each = [("skeg-1", "https://a:6443"), ("skeg-2", "https://b:6443")];
        check(None, &[&[("skeg", "https://a:6443")], &each[..]].concat());
        check(Some("https://lb"), &[&[("skeg", "https://lb")], &each[..]].concat());
    }

    #[test]
    fn other_clusters_stay() {
        let pki = pki::generate(&[]).unwrap();
        let old = json!({"apiVersion": "v1", "kind": "Config", "current-context": "mine",
            "clusters": [{"name": "mine", "cluster": {"server": "https://mine"}}],
            "contexts": [{"name": CONTEXT, "context": {"cluster": "old"}}]});
        let new = with_cluster(old, "https://127.0.0.1:6443", &pki).unwrap();
        assert_eq!(new["clusters"][0]["cluster"]["server"], "https://mine");
        assert_eq!(new["clusters"][1]["cluster"]["server"], "https://127.0.0.1:6443");
        assert_eq!(new["contexts"], json!([{"name": CONTEXT, "context": {"cluster": CONTEXT, "user": CONTEXT}}]));
        assert_eq!(new["current-context"], CONTEXT);
        let again = with_cluster(new.clone(), "https://127.0.0.1:7443", &pki).unwrap();
        assert_eq!(again["clusters"].as_array().unwrap().len(), 2);
        assert!(with_cluster(json!({"users": "none"}), "https://x", &pki).is_err());
        assert_eq!(with_cluster(Value::Null, "https://x", &pki).unwrap()["kind"], "Config");
    }
}
