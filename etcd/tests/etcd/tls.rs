//! etcd over TLS, where it asks for the certificates of its clients.

use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, SanType};
use skeg_etcd::{Etcd, EtcdOptions, EtcdTls};

use super::server::Server;

/// A certificate and its key, PEM.
struct Pair {
    certificate: String,
    key: String,
}

impl Pair {
    fn files(&self, dir: &Path, name: &str) -> [PathBuf; 2] {
        let paths = [dir.join(format!("{name}.crt")), dir.join(format!("{name}.key"))];
        std::fs::write(&paths[0], &self.certificate).expect("the directory can be written");
        std::fs::write(&paths[1], &self.key).expect("the directory can be written");
        paths
    }
}

fn authority() -> Pair {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().expect("keys can be made");
    let certificate = params.self_signed(&key).expect("it can be signed");
    Pair { certificate: certificate.pem(), key: key.serialize_pem() }
}

/// A certificate for this machine, that serves a server as well as a client.
fn signed(authority: &Pair) -> Pair {
    let key = KeyPair::from_pem(&authority.key).expect("it was made above");
    let issuer = Issuer::from_ca_cert_pem(&authority.certificate, key).expect("it was made above");
    let mut params = CertificateParams::default();
    params.subject_alt_names.push(SanType::IpAddress(IpAddr::V4(Ipv4Addr::LOCALHOST)));
    let key = KeyPair::generate().expect("keys can be made");
    let certificate = params.signed_by(&key, &issuer).expect("it can be signed");
    Pair { certificate: certificate.pem(), key: key.serialize_pem() }
}

#[test]
fn both_sides_show_certificates() {
    let dir = std::env::temp_dir().join(format!("skeg-etcd-tls-{}", std::process::id()));
    std::fs::create_dir_all(&dir).expect("the directory for temporary files can be written");
    let (ca, stranger) = (authority(), authority());
    let ours = signed(&ca);
    let [authorities, _] = ca.files(&dir, "ca");
    let [certificate, key] = signed(&ca).files(&dir, "server");
    let text = |path: &PathBuf| path.to_str().expect("paths of tests are text").to_owned();
    let files = [text(&certificate), text(&key), text(&authorities)];
    let args =
        ["--cert-file", &files[0], "--key-file", &files[1], "--client-cert-auth", "--trusted-ca-file", &files[2]];
    let Some(server) = Server::over_tls(&args) else { return };
    let open = |authority: &Pair, client: Option<&Pair>| {
        let bytes = |text: &String| text.clone().into_bytes();
        let identity = client.map(|pair| (bytes(&pair.certificate), bytes(&pair.key)));
        let tls = Some(EtcdTls { authorities: bytes(&authority.certificate), identity });
        Etcd::open(EtcdOptions { endpoints: vec![server.url()], tls, user: None }, drop)
    };
    drop(server.until_ready(|| open(&ca, Some(&ours))));
    assert!(open(&ca, None).is_err(), "etcd asks for the certificate of its client");
    assert!(open(&ca, Some(&signed(&stranger))).is_err(), "etcd does not know who signed it");
    assert!(open(&stranger, Some(&ours)).is_err(), "etcd's certificate is not known");
    std::fs::remove_dir_all(&dir).expect("it is ours");
}
