//! Certificates of a cluster: an authority of its own, the server's, and the administrator's.

use std::net::IpAddr;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose, SanType,
};

use super::bootstrap::KUBERNETES_IP;
use super::identity::MASTERS;

/// Names by which pods reach the API server.
const SERVICE_NAMES: [&str; 5] =
    ["localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local"];

/// A certificate with its key.
#[derive(Clone, Debug)]
pub struct Pair {
    /// The certificate, DER.
    pub certificate: Vec<u8>,
    /// The certificate, PEM.
    pub certificate_pem: String,
    /// The private key, PKCS #8, DER.
    pub key: Vec<u8>,
    /// The private key, PEM.
    pub key_pem: String,
}

/// What a server needs, and what its administrator gets.
#[derive(Clone, Debug)]
pub struct Pki {
    /// The authority's certificate, PEM.
    pub ca_pem: String,
    /// The authority's certificate, DER.
    pub ca: Vec<u8>,
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

/// Makes an authority and what it signs, for a server that listens at these addresses.
pub fn generate(addresses: &[IpAddr]) -> Result<Pki, rcgen::Error> {
    let mut authority = named("kubernetes", None);
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    authority.key_usages =
        vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment, KeyUsagePurpose::KeyCertSign];
    let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate()?)?;

    let mut server = named("kube-apiserver", None);
    server.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    for name in SERVICE_NAMES {
        server.subject_alt_names.push(SanType::DnsName(name.try_into()?));
    }
    let service: IpAddr = KUBERNETES_IP.parse().expect("the Service's address is one");
    let own = [IpAddr::from([127, 0, 0, 1]), IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1]), service];
    for address in own.iter().chain(addresses.iter().filter(|a| !a.is_unspecified() && !own.contains(a))) {
        server.subject_alt_names.push(SanType::IpAddress(*address));
    }
    let mut admin = named("kubernetes-admin", Some(MASTERS));
    admin.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];

    Ok(Pki {
        ca_pem: authority.pem(),
        ca: authority.der().to_vec(),
        server: sign(server, &authority)?,
        admin: sign(admin, &authority)?,
    })
}

fn sign(mut params: CertificateParams, authority: &CertifiedIssuer<'_, KeyPair>) -> Result<Pair, rcgen::Error> {
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
    let key = KeyPair::generate()?;
    let certificate = params.signed_by(&key, authority)?;
    Ok(Pair {
        certificate: certificate.der().to_vec(),
        certificate_pem: certificate.pem(),
        key: key.serialize_der(),
        key_pem: key.serialize_pem(),
    })
}

#[cfg(test)]
mod tests {
    use super::generate;
    use crate::up::identity::Identity;

    #[test]
    fn the_administrators_certificate_says_who_it_is() {
        let pki = generate(&[]).unwrap();
        let admin = Identity::of_certificate(&pki.admin.certificate).unwrap();
        assert_eq!((admin.name.as_str(), admin.is_master()), ("kubernetes-admin", true));
        let server = Identity::of_certificate(&pki.server.certificate).unwrap();
        assert!(!server.is_master());
    }
}
