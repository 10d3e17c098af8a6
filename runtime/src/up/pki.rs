//! Certificates of a cluster: its certificate authority, the server's certificate and the administrator's.

use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType,
};

use super::aggregator::proxy;
use super::cluster::ApiOptions;
use crate::disk::{explain, write_private};
use skeg_core::Wall;
use skeg_core::auth::MASTERS;
use x509_parser::pem::Pem;

/// The group of all nodes, and what the name of a node's user begins with.
pub const NODES: &str = "system:nodes";
pub const NODE_USER: &str = "system:node:";

/// DNS names by which pods reach the API server.
const SERVICE_NAMES: [&str; 5] =
    ["localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local"];

/// A certificate with its key.
#[derive(Clone, Debug)]
pub struct Pair {
    /// The certificate, PEM.
    pub certificate_pem: String,
    /// The private key, PEM.
    pub key_pem: String,
}

/// The certificates of the server and its administrator.
#[derive(Clone, Debug)]
pub struct Pki {
    /// The authority's certificate, PEM.
    pub ca_pem: String,
    /// The server's.
    pub server: Pair,
    /// The administrator's.
    pub admin: Pair,
}

fn named(common_name: &str, organisation: Option<&str>) -> CertificateParams {
    let mut params = CertificateParams::default();
    let mut subject = DistinguishedName::new();
    if let Some(organisation) = organisation {
        subject.push(DnType::OrganizationName, organisation);
    }
    subject.push(DnType::CommonName, common_name);
    params.distinguished_name = subject;
    params
}

/// A certificate authority: its certificate and its key, PEM.
#[derive(Clone)]
pub struct Authority {
    certificate: String,
    key: String,
}

impl std::fmt::Debug for Authority {
    /// Without the key, which belongs in no log.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authority").field("certificate", &self.certificate).finish_non_exhaustive()
    }
}

impl Authority {
    fn issuer(&self) -> Result<Issuer<'_, KeyPair>, rcgen::Error> {
        Issuer::from_ca_cert_pem(&self.certificate, KeyPair::from_pem(&self.key)?)
    }
}

/// By what servers of other group-versions know this one.
#[derive(Clone, Debug)]
pub struct FrontProxy {
    /// The authority of clients, PEM.
    pub client_ca_pem: String,
    /// The authority that has signed `client`, PEM.
    pub ca_pem: String,
    /// This server's certificate as their client.
    pub client: Pair,
}

/// What other servers know this one by. The authority is kept in a directory, if there is one.
pub fn front_proxy(client_ca_pem: &str, dir: Option<&Path>) -> Result<FrontProxy, String> {
    let failed = |e: rcgen::Error| format!("error: certificates could not be made: {e}");
    let authority = match dir {
        Some(dir) => authority_in(dir, "front-proxy-ca", "front-proxy-ca")?,
        None => authority_named("front-proxy-ca").map_err(failed)?,
    };
    let mut params = named(proxy::CLIENT, None);
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    let client = authority.issuer().and_then(|issuer| sign(params, &issuer)).map_err(failed)?;
    Ok(FrontProxy { client_ca_pem: client_ca_pem.to_owned(), ca_pem: authority.certificate, client })
}

/// Makes an authority.
pub fn new_authority() -> Result<Authority, rcgen::Error> {
    authority_named("kubernetes")
}

fn authority_named(name: &str) -> Result<Authority, rcgen::Error> {
    let mut params = named(name, None);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages =
        vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment, KeyUsagePurpose::KeyCertSign];
    let key = KeyPair::generate()?;
    let certificate = params.self_signed(&key)?;
    Ok(Authority { certificate: certificate.pem(), key: key.serialize_pem() })
}

/// Makes a certificate authority, and certificates for a server that listens at these addresses.
pub fn generate(addresses: &[IpAddr]) -> Result<Pki, String> {
    let made = new_authority().and_then(|authority| issue(&authority, addresses, &[]));
    made.map_err(|e| format!("error: certificates could not be made: {e}"))
}

fn error(path: &Path, e: &std::io::Error) -> String {
    format!("error: {}: {}", path.display(), explain(e))
}

fn bad(dir: &Path, e: &rcgen::Error) -> String {
    format!("error: {}: {e}", dir.display())
}

/// The certificate and the key of an authority in a directory.
fn files(dir: &Path, stem: &str) -> [PathBuf; 2] {
    [dir.join(format!("{stem}.crt")), dir.join(format!("{stem}.key"))]
}

/// The authority of several servers.
pub fn read_authority(dir: &Path) -> Result<Authority, String> {
    let missing = "; `skeg server init` makes it, and every server has a copy";
    let read = |path: &Path| fs::read_to_string(path).map_err(|e| error(path, &e) + missing);
    let [certificate, key] = files(dir, "ca");
    Ok(Authority { certificate: read(&certificate)?, key: read(&key)? })
}

/// The certificate of the authority of several servers, PEM.
pub fn certificate(dir: &Path) -> Result<String, String> {
    read_authority(dir).map(|authority| authority.certificate)
}

/// A certificate by which a node's agent is known, signed by the authority in a directory, and the authority's
/// certificate, PEM.
pub fn of_node(dir: &Path, name: &str) -> Result<(String, Pair), String> {
    let authority = read_authority(dir)?;
    let signed = || {
        let mut params = named(&format!("{NODE_USER}{name}"), Some(NODES));
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        sign(params, &authority.issuer()?)
    };
    let pair = signed().map_err(|e| bad(dir, &e))?;
    Ok((authority.certificate, pair))
}

/// What a certificate of a node is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Use {
    /// The node is known by it to servers.
    Client,
    /// The node's port is known by it to servers; the addresses and names in it are kept.
    Server,
}

/// Signs a request for a node's certificate, PEM: its name and key are kept, and what its use needs.
pub fn sign_node(
    authority: &Authority,
    mut asked: CertificateSigningRequestParams,
    duration: Duration,
    what: Use,
) -> Result<String, String> {
    let now = SystemTime::now();
    // Clocks differ a little.
    let (begins, ends) = (now - Duration::from_secs(300), now + duration);
    let (name, names) = (asked.params.distinguished_name.clone(), std::mem::take(&mut asked.params.subject_alt_names));
    asked.params = CertificateParams::default();
    asked.params.distinguished_name = name;
    (asked.params.not_before, asked.params.not_after) = (begins.into(), ends.into());
    asked.params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
    asked.params.extended_key_usages = match what {
        Use::Client => vec![ExtendedKeyUsagePurpose::ClientAuth],
        Use::Server => vec![ExtendedKeyUsagePurpose::ServerAuth],
    };
    if what == Use::Server {
        asked.params.subject_alt_names = names;
    }
    authority.issuer().and_then(|issuer| asked.signed_by(&issuer)).map(|made| made.pem()).map_err(|e| e.to_string())
}

/// By what a server is known to agents (kubeadm's `apiserver-kubelet-client`).
pub fn kubelet_client(authority: &Authority) -> Result<Pair, String> {
    let mut params = named("kube-apiserver-kubelet-client", Some(MASTERS));
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    let signed = authority.issuer().and_then(|issuer| sign(params, &issuer));
    signed.map_err(|e| format!("error: certificates could not be made: {e}"))
}

/// A request for a certificate by which the port of a node is known, and its key, both PEM.
pub fn ask_to_serve(common_name: &str, organisation: &str, ip: IpAddr) -> Result<(String, String), String> {
    let mut params = named(common_name, Some(organisation));
    params.subject_alt_names.push(SanType::IpAddress(ip));
    request(&params)
}

fn request(params: &CertificateParams) -> Result<(String, String), String> {
    let made = KeyPair::generate().and_then(|key| Ok((params.serialize_request(&key)?.pem()?, key.serialize_pem())));
    made.map_err(|e| format!("a request for a certificate could not be made: {e}"))
}

/// When a certificate (PEM) ends; `None` if it cannot be read.
pub fn end(certificate: &[u8]) -> Option<Wall> {
    let pem = Pem::iter_from_buffer(certificate).next()?.ok()?;
    let seconds = pem.parse_x509().ok()?.validity().not_after.timestamp();
    Some(Wall(seconds.checked_mul(1_000_000)?))
}

/// A request for a certificate with this name, and its key, both PEM.
pub fn ask_for(common_name: &str, organisation: Option<&str>) -> Result<(String, String), String> {
    request(&named(common_name, organisation))
}

/// As [`generate`], but for one of several servers: the certificate authority must be in the directory. The server is
/// also reached by these hosts, which are names or addresses.
pub fn of_servers(dir: &Path, addresses: &[IpAddr], hosts: &[String]) -> Result<Pki, String> {
    let authority = read_authority(dir)?;
    let (mut addresses, mut names) = (addresses.to_vec(), Vec::new());
    for host in hosts {
        match host.parse() {
            Ok(address) => addresses.push(address),
            Err(_) => names.push(host.as_str()),
        }
    }
    addresses.sort_unstable();
    addresses.dedup();
    issue(&authority, &addresses, &names).map_err(|e| bad(dir, &e))
}

/// As [`generate`], but keeps the certificate authority in a directory, so that older certificates remain valid.
pub fn kept_in(dir: &Path, addresses: &[IpAddr]) -> Result<Pki, String> {
    let authority = authority_in(dir, "ca", "kubernetes")?;
    issue(&authority, addresses, &[]).map_err(|e| bad(dir, &e))
}

/// The authority that a directory has under this name; it is made if there is none.
fn authority_in(dir: &Path, stem: &str, common_name: &str) -> Result<Authority, String> {
    let [certificate, key] = files(dir, stem);
    let read = |path: &Path| match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(error(path, &e)),
    };
    if let (Some(certificate), Some(key)) = (read(&certificate)?, read(&key)?) {
        return Ok(Authority { certificate, key });
    }
    let authority = authority_named(common_name).map_err(|e| bad(dir, &e))?;
    fs::create_dir_all(dir).map_err(|e| error(dir, &e))?;
    // The key is written first. If the process crashes in between, the next start finds no certificate and makes both
    // anew.
    for (path, text) in [(&key, &authority.key), (&certificate, &authority.certificate)] {
        write_private(path, text).map_err(|e| error(path, &e))?;
    }
    Ok(authority)
}

fn issue(authority: &Authority, addresses: &[IpAddr], names: &[&str]) -> Result<Pki, rcgen::Error> {
    let issuer = authority.issuer()?;
    let mut server = named("kube-apiserver", None);
    server.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    for name in SERVICE_NAMES.iter().chain(names).copied() {
        server.subject_alt_names.push(SanType::DnsName(name.try_into()?));
    }
    let service = IpAddr::V4(ApiOptions::default().first_service_ip());
    let own = [IpAddr::from([127, 0, 0, 1]), IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1]), service];
    for address in own.iter().chain(addresses.iter().filter(|a| !a.is_unspecified() && !own.contains(a))) {
        server.subject_alt_names.push(SanType::IpAddress(*address));
    }
    let mut admin = named("kubernetes-admin", Some(MASTERS));
    admin.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    Ok(Pki { ca_pem: authority.certificate.clone(), server: sign(server, &issuer)?, admin: sign(admin, &issuer)? })
}

fn sign(mut params: CertificateParams, authority: &Issuer<'_, KeyPair>) -> Result<Pair, rcgen::Error> {
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
    let key = KeyPair::generate()?;
    let certificate = params.signed_by(&key, authority)?;
    Ok(Pair { certificate_pem: certificate.pem(), key_pem: key.serialize_pem() })
}

#[cfg(test)]
mod tests {
    use super::{MASTERS, Pair, generate};
    use crate::up::identity::of_certificate;
    use rustls::pki_types::CertificateDer;
    use rustls::pki_types::pem::PemObject;

    #[test]
    fn the_administrators_certificate_says_who_it_is() {
        let pki = generate(&[]).unwrap();
        let identity = |pair: &Pair| {
            let der = CertificateDer::from_pem_slice(pair.certificate_pem.as_bytes()).unwrap();
            of_certificate(&der).unwrap()
        };
        let admin = identity(&pki.admin);
        assert_eq!((admin.name.as_str(), admin.is_in(MASTERS)), ("kubernetes-admin", true));
        assert!(!identity(&pki.server).is_in(MASTERS));
    }
}
