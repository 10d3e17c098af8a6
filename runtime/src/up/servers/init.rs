//! `skeg server init`: the directory of keys that every server of a cluster has a copy of.
//!
//! | file | what |
//! |---|---|
//! | `front-proxy-ca.crt`, `front-proxy-ca.key` | the authority by which the servers of APIServices know these |
//! | `ca.crt`, `ca.key` | the authority that signs the certificates of servers, users and nodes |
//! | `sa.key` | signs the tokens of service accounts |
//! | `servers` | the URLs of the servers and of the balancer before them, a line each; servers name them in their certificates |
//! | `admin.conf` | a kubeconfig for the administrator |

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use hyper::Uri;
use serde_json::{Value, json};

use crate::Exit;
use crate::disk::{explain, write_private};
use crate::up::clock::Clock;
use crate::up::keys::Keys;
use crate::up::{bootstrap_tokens, kubeconfig as kubeconfigs, pki};

/// Arguments of `server init`.
#[derive(Args, Debug)]
pub struct InitArgs {
    /// The directory; it is made. Keys that are there already stay.
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    /// The URLs of the servers, as clients reach them.
    #[arg(long, value_name = "URL,…", value_delimiter = ',', required = true, value_parser = server_url)]
    servers: Vec<String>,
    /// The URL of a load balancer before them, if there is one.
    #[arg(long, value_name = "URL", value_parser = server_url)]
    balancer: Option<String>,
}

/// Arguments of `server kubeconfig`.
#[derive(Args, Debug)]
pub struct KubeconfigArgs {
    /// The directory of keys.
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    /// Name of the node.
    #[arg(long, value_name = "NAME")]
    node: String,
    /// Where to write the kubeconfig.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

/// Arguments of `server token`.
#[derive(Args, Debug)]
pub struct TokenArgs {
    /// The directory of keys.
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    /// Where to write the kubeconfig.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// How long the token holds.
    #[arg(long, value_name = "DURATION", default_value = "24h", value_parser = crate::cli::duration)]
    ttl: Duration,
}

/// The key that signs tokens of service accounts.
pub fn signing_key(dir: &Path) -> PathBuf {
    dir.join("sa.key")
}

/// The administrator's kubeconfig.
pub fn kubeconfig(dir: &Path) -> PathBuf {
    dir.join("admin.conf")
}

fn servers(dir: &Path) -> PathBuf {
    dir.join("servers")
}

/// Checks that text is the URL of a server.
fn server_url(text: &str) -> Result<String, String> {
    let url: Option<Uri> = text.parse().ok();
    let well = url.is_some_and(|url| {
        url.scheme_str() == Some("https") && url.host().is_some_and(|host| !host.is_empty()) && url.path() == "/"
    });
    if well { Ok(text.trim_end_matches('/').to_owned()) } else { Err("write it like https://10.0.0.1:6443".to_owned()) }
}

/// The URLs of servers and balancer.
fn urls(dir: &Path) -> Result<Vec<String>, String> {
    let path = servers(dir);
    let text = fs::read_to_string(&path)
        .map_err(|e| format!("error: {}: {}; `skeg server init` makes it", path.display(), explain(&e)))?;
    Ok(text.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned).collect())
}

/// The hosts in the URLs of servers and balancer.
pub fn hosts(dir: &Path) -> Result<Vec<String>, String> {
    let path = servers(dir);
    let host = |line: &str| {
        let url: Option<Uri> = line.parse().ok();
        let host = url.as_ref().and_then(Uri::host).map(|host| host.trim_matches(['[', ']']).to_owned());
        host.ok_or_else(|| {
            format!("error: {}: {line:?} is no URL; write it like https://10.0.0.1:6443", path.display())
        })
    };
    urls(dir)?.iter().map(|url| host(url)).collect()
}

fn write(path: &Path, text: &str) -> Result<(), String> {
    write_private(path, text).map_err(|e| format!("error: {}: {}", path.display(), explain(&e)))
}

fn yaml(value: &Value) -> String {
    serde_saphyr::to_string(value).expect("a kubeconfig is plain data")
}

/// Makes the kubeconfig of a node.
pub fn node(args: &KubeconfigArgs) -> Result<Exit, String> {
    let KubeconfigArgs { dir, node, out } = args;
    let (authority, pair) = pki::of_node(dir, node)?;
    write(out, &yaml(&kubeconfigs::of_servers(&urls(dir)?, None, &authority, &pair)))?;
    println!("made: {}; run on the node: skeg agent --kubeconfig {}", out.display(), out.display());
    Ok(Exit::Well)
}

/// Makes a bootstrap token: prints its Secret, and writes a kubeconfig with it.
pub fn token(args: &TokenArgs) -> Result<Exit, String> {
    let TokenArgs { dir, out, ttl } = args;
    let (id, secret) = (random_text(6)?, random_text(16)?);
    let user = json!({"token": format!("{id}.{secret}")});
    write(out, &yaml(&kubeconfigs::with_user(&urls(dir)?, None, &pki::certificate(dir)?, user)))?;
    let expires = (Clock::new(1).real_time() + *ttl).to_time();
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret", "type": bootstrap_tokens::TYPE,
        "metadata": {"name": format!("{}{id}", bootstrap_tokens::PREFIX), "namespace": bootstrap_tokens::NAMESPACE},
        "stringData": {"token-id": id, "token-secret": secret, "expiration": expires,
            "usage-bootstrap-authentication": "true"},
    });
    print!("{}", yaml(&secret));
    Ok(Exit::Well)
}

/// Random lower-case letters and digits.
fn random_text(length: usize) -> Result<String, String> {
    const ALPHABET: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";
    let mut bytes = vec![0; length];
    getrandom::fill(&mut bytes).map_err(|e| format!("error: the system gives no random numbers: {e}"))?;
    Ok(bytes.into_iter().map(|byte| char::from(ALPHABET[usize::from(byte % 32)])).collect())
}

/// Makes the directory.
pub fn init(args: &InitArgs) -> Result<Exit, String> {
    let InitArgs { dir, servers: urls, balancer } = args;
    let pki = pki::kept_in(dir, &[])?;
    pki::front_proxy(&pki.ca_pem, Some(dir))?;
    Keys::kept_in(&signing_key(dir))?;
    let lines: String = urls.iter().chain(balancer).map(|url| format!("{url}\n")).collect();
    let admin = kubeconfigs::of_servers(urls, balancer.as_deref(), &pki.ca_pem, &pki.admin);
    write(&servers(dir), &lines)?;
    write(&kubeconfig(dir), &yaml(&admin))?;
    println!("made: {}; copy it to every server, and run there:", dir.display());
    println!("  skeg server --pki {} --etcd URL,…", dir.display());
    println!("then: kubectl --kubeconfig {} get nodes", kubeconfig(dir).display());
    Ok(Exit::Well)
}

#[cfg(test)]
mod tests {
    use super::server_url;

    #[test]
    fn only_urls_of_servers_are_taken() {
        for (text, expect) in [
            ("https://10.0.0.1:6443", Some("https://10.0.0.1:6443")),
            ("https://balancer.example/", Some("https://balancer.example")),
            ("https://[::1]:6443", Some("https://[::1]:6443")),
            ("http://10.0.0.1:6443", None),
            ("10.0.0.1:6443", None),
            ("https://", None),
            ("https://a/b", None),
        ] {
            assert_eq!(server_url(text).ok().as_deref(), expect, "{text}");
        }
    }
}
