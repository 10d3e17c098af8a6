//! The keys that sign and check the tokens of service accounts, and JSON Web Tokens and key sets made of them.
//!
//! Tokens are signed with ES256 by a key that a cluster makes for itself; a key that is given may be ECDSA's over P-256
//! or P-384, or RSA's.
//!
//! Source: kubernetes `pkg/serviceaccount/jwt.go`; RFC 7515, RFC 7517.

use std::fs;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::digest::{SHA256, digest};
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED, ECDSA_P384_SHA384_FIXED_SIGNING,
    EcdsaKeyPair, KeyPair, RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_SHA256, RsaKeyPair, UnparsedPublicKey,
    VerificationAlgorithm,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, SubjectPublicKeyInfoDer};
use serde_json::{Value, json};
use x509_parser::der_parser::asn1_rs::{Oid, oid};
use x509_parser::prelude::{FromDer, X509Certificate};
use x509_parser::x509::SubjectPublicKeyInfo;

use crate::disk::{explain, write_private};

/// What precedes the key itself in the DER of a public key, for P-256, P-384.
const P256_PREFIX: &[u8] = &[
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce,
    0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];
const P384_PREFIX: &[u8] = &[
    0x30, 0x76, 0x30, 0x10, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x05, 0x2b, 0x81, 0x04, 0x00,
    0x22, 0x03, 0x62, 0x00,
];
const EC: Oid<'static> = oid!(1.2.840.10045.2.1);
const P256: Oid<'static> = oid!(1.2.840.10045.3.1.7);
const P384: Oid<'static> = oid!(1.3.132.0.34);
const RSA: Oid<'static> = oid!(1.2.840.113549.1.1.1);

/// How a key signs, in the words of RFC 7518.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Algorithm {
    Es256,
    Es384,
    Rs256,
}

impl Algorithm {
    fn name(self) -> &'static str {
        match self {
            Algorithm::Es256 => "ES256",
            Algorithm::Es384 => "ES384",
            Algorithm::Rs256 => "RS256",
        }
    }

    fn verification(self) -> &'static dyn VerificationAlgorithm {
        match self {
            Algorithm::Es256 => &ECDSA_P256_SHA256_FIXED,
            Algorithm::Es384 => &ECDSA_P384_SHA384_FIXED,
            Algorithm::Rs256 => &RSA_PKCS1_2048_8192_SHA256,
        }
    }
}

/// A key that checks signatures.
#[derive(Clone, PartialEq, Eq, Debug)]
struct PublicKey {
    algorithm: Algorithm,
    /// The point of an ECDSA key, or the PKCS#1 DER of an RSA key.
    key: Vec<u8>,
    /// `kid`: the SHA-256 hash of the key's DER.
    id: String,
}

impl PublicKey {
    /// Reads a `SubjectPublicKeyInfo`.
    fn of_der(der: &[u8]) -> Option<PublicKey> {
        let (_, info) = SubjectPublicKeyInfo::from_der(der).ok()?;
        let curve = || info.algorithm.parameters.as_ref().and_then(|p| p.as_oid().ok());
        let algorithm = match &info.algorithm.algorithm {
            kind if *kind == RSA => Algorithm::Rs256,
            kind if *kind == EC && curve() == Some(P256) => Algorithm::Es256,
            kind if *kind == EC && curve() == Some(P384) => Algorithm::Es384,
            _ => return None,
        };
        let id = URL_SAFE_NO_PAD.encode(digest(&SHA256, der));
        Some(PublicKey { algorithm, key: info.subject_public_key.data.to_vec(), id })
    }

    /// The key as a JSON Web Key.
    fn to_json(&self) -> Value {
        let mut key = json!({"use": "sig", "kid": self.id, "alg": self.algorithm.name()});
        let ec = |key: &mut Value, curve: &str| {
            // A point is written as 4, x and y.
            let (x, y) = self.key[1..].split_at((self.key.len() - 1) / 2);
            key["kty"] = json!("EC");
            key["crv"] = json!(curve);
            key["x"] = json!(URL_SAFE_NO_PAD.encode(x));
            key["y"] = json!(URL_SAFE_NO_PAD.encode(y));
        };
        match self.algorithm {
            Algorithm::Es256 => ec(&mut key, "P-256"),
            Algorithm::Es384 => ec(&mut key, "P-384"),
            Algorithm::Rs256 => {
                let (_, public) =
                    x509_parser::public_key::RSAPublicKey::from_der(&self.key).expect("it was read before");
                let number = |bytes: &[u8]| {
                    let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
                    json!(URL_SAFE_NO_PAD.encode(&bytes[zeros..]))
                };
                key["kty"] = json!("RSA");
                key["n"] = number(public.modulus);
                key["e"] = number(public.exponent);
            }
        }
        key
    }
}

/// A key that signs.
enum PrivateKey {
    Ecdsa(EcdsaKeyPair),
    Rsa(RsaKeyPair),
}

impl PrivateKey {
    fn of_pem(pem: &str) -> Option<(PrivateKey, PublicKey)> {
        let der = PrivateKeyDer::from_pem_slice(pem.as_bytes()).ok()?;
        let random = SystemRandom::new();
        let bytes = der.secret_der();
        let ecdsa = |algorithm, prefix: &[u8]| {
            let pair = EcdsaKeyPair::from_pkcs8(algorithm, bytes, &random).ok()?;
            let public = PublicKey::of_der(&[prefix, pair.public_key().as_ref()].concat())?;
            Some((PrivateKey::Ecdsa(pair), public))
        };
        let rsa = || {
            let pair = RsaKeyPair::from_pkcs8(bytes).or_else(|_| RsaKeyPair::from_der(bytes)).ok()?;
            let public = PublicKey::of_der(&rsa_public_der(pair.public_key().as_ref()))?;
            Some((PrivateKey::Rsa(pair), public))
        };
        ecdsa(&ECDSA_P256_SHA256_FIXED_SIGNING, P256_PREFIX)
            .or_else(|| ecdsa(&ECDSA_P384_SHA384_FIXED_SIGNING, P384_PREFIX))
            .or_else(rsa)
    }

    fn sign(&self, message: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        match self {
            PrivateKey::Ecdsa(pair) => {
                pair.sign(&random, message).expect("the system gives random numbers").as_ref().to_vec()
            }
            PrivateKey::Rsa(pair) => {
                let mut signature = vec![0; pair.public().modulus_len()];
                let signed = pair.sign(&RSA_PKCS1_SHA256, &random, message, &mut signature);
                signed.expect("the system gives random numbers");
                signature
            }
        }
    }
}

/// The `SubjectPublicKeyInfo` of an RSA key, given its PKCS#1 DER.
fn rsa_public_der(pkcs1: &[u8]) -> Vec<u8> {
    fn element(tag: u8, content: &[u8]) -> Vec<u8> {
        let length = content.len();
        let mut der = vec![tag];
        match length {
            0..128 => der.push(length as u8),
            _ => {
                let bytes: Vec<u8> = length.to_be_bytes().into_iter().skip_while(|byte| *byte == 0).collect();
                der.push(0x80 | bytes.len() as u8);
                der.extend(bytes);
            }
        }
        der.extend(content);
        der
    }
    let algorithm = [0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01, 0x05, 0x00];
    let bits = [&[0], pkcs1].concat();
    element(0x30, &[element(0x30, &algorithm), element(0x03, &bits)].concat())
}

/// The keys of a cluster.
pub struct Keys {
    signer: PrivateKey,
    /// The signer's public key first.
    public: Vec<PublicKey>,
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keys").field("public", &self.public).finish_non_exhaustive()
    }
}

impl Keys {
    /// Makes a new key.
    pub fn generate() -> Result<Keys, String> {
        let made = rcgen::KeyPair::generate().map_err(|e| format!("error: a key could not be made: {e}"))?;
        Keys::of_pem(&made.serialize_pem(), &[]).ok_or_else(|| "error: a key could not be made".to_owned())
    }

    /// The key in a file, which is made if it does not exist.
    pub fn kept_in(file: &Path) -> Result<Keys, String> {
        let error = |e: &std::io::Error| format!("error: {}: {}", file.display(), explain(e));
        let pem = match fs::read_to_string(file) {
            Ok(pem) => pem,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                let made = rcgen::KeyPair::generate().map_err(|e| format!("error: {}: {e}", file.display()))?;
                let pem = made.serialize_pem();
                write_private(file, &pem).map_err(|e| error(&e))?;
                pem
            }
            Err(e) => return Err(error(&e)),
        };
        Keys::of_pem(&pem, &[]).ok_or_else(|| format!("error: {}: is no private key, PEM", file.display()))
    }

    /// A key to sign with, and others (public keys, private keys or certificates) whose signatures count too; all PEM.
    /// `None` if one cannot be read, or is of no known kind.
    pub fn of_pem(signer: &str, others: &[String]) -> Option<Keys> {
        let (signer, own) = PrivateKey::of_pem(signer)?;
        let mut public = vec![own];
        for pem in others {
            let key = public_of_pem(pem)?;
            if !public.contains(&key) {
                public.push(key);
            }
        }
        Some(Keys { signer, public })
    }

    /// Signs claims: a JSON Web Token.
    pub fn sign(&self, claims: &Value) -> String {
        let own = &self.public[0];
        let header = json!({"alg": own.algorithm.name(), "kid": own.id});
        let encode = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let message = format!("{}.{}", encode(&header), encode(claims));
        let signature = URL_SAFE_NO_PAD.encode(self.signer.sign(message.as_bytes()));
        format!("{message}.{signature}")
    }

    /// The claims of a JSON Web Token that one of the keys has signed.
    pub fn verify(&self, token: &str) -> Option<Value> {
        let (message, signature) = token.rsplit_once('.')?;
        let (header, claims) = message.split_once('.')?;
        let decode = |text: &str| URL_SAFE_NO_PAD.decode(text).ok();
        let json = |text: &str| serde_json::from_slice::<Value>(&decode(text)?).ok();
        let (header, signature) = (json(header)?, decode(signature)?);
        let named = header["kid"].as_str();
        let fits = |key: &&PublicKey| named.is_none_or(|id| id == key.id) && header["alg"] == key.algorithm.name();
        let signed = |key: &PublicKey| {
            let public = UnparsedPublicKey::new(key.algorithm.verification(), &key.key);
            public.verify(message.as_bytes(), &signature).is_ok()
        };
        self.public.iter().filter(fits).any(signed).then(|| json(claims))?
    }

    /// The public keys as a JSON Web Key Set.
    pub fn to_json(&self) -> Value {
        json!({"keys": self.public.iter().map(PublicKey::to_json).collect::<Vec<_>>()})
    }

    /// The algorithms of the keys, each once.
    pub fn algorithms(&self) -> Vec<&'static str> {
        let mut all: Vec<_> = self.public.iter().map(|key| key.algorithm.name()).collect();
        all.sort_unstable();
        all.dedup();
        all
    }
}

fn public_of_pem(pem: &str) -> Option<PublicKey> {
    if let Ok(key) = SubjectPublicKeyInfoDer::from_pem_slice(pem.as_bytes()) {
        return PublicKey::of_der(&key);
    }
    if let Ok(certificate) = CertificateDer::from_pem_slice(pem.as_bytes()) {
        let (_, certificate) = X509Certificate::from_der(&certificate).ok()?;
        return PublicKey::of_der(certificate.public_key().raw);
    }
    PrivateKey::of_pem(pem).map(|(_, public)| public)
}

#[cfg(test)]
mod tests {
    use super::{Keys, rsa_public_der};
    use rcgen::KeyPair;
    use serde_json::json;

    #[test]
    fn a_token_is_told_from_a_forged_one() {
        let keys = Keys::generate().unwrap();
        let token = keys.sign(&json!({"a": 1}));
        assert_eq!(keys.verify(&token), Some(json!({"a": 1})));
        assert_eq!(Keys::generate().unwrap().verify(&token), None, "another cluster's");
        let parts: Vec<&str> = token.split('.').collect();
        let other = keys.sign(&json!({"a": 2}));
        let claims = other.split('.').nth(1).unwrap();
        for forged in [
            format!("{}.{claims}.{}", parts[0], parts[2]),
            format!("{}.{}.", parts[0], parts[1]),
            format!("{}.{}", parts[0], parts[1]),
            // {"alg":"none"}
            format!("eyJhbGciOiJub25lIn0.{}.", parts[1]),
            String::new(),
            "..".to_owned(),
        ] {
            assert_eq!(keys.verify(&forged), None, "{forged}");
        }
    }

    #[test]
    fn given_keys_check_what_they_signed() {
        let (own, old) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
        let before = Keys::of_pem(&old.serialize_pem(), &[]).unwrap().sign(&json!({}));
        let check = |others: &[String], want: bool| {
            let keys = Keys::of_pem(&own.serialize_pem(), others).unwrap();
            assert_eq!(keys.verify(&before).is_some(), want, "{others:?}");
            assert_eq!(keys.to_json()["keys"].as_array().unwrap().len(), 1 + usize::from(want));
        };
        check(&[], false);
        check(&[own.public_key_pem()], false);
        check(&[old.public_key_pem()], true);
        check(&[old.serialize_pem()], true);
        let certificate = rcgen::CertificateParams::default().self_signed(&old).unwrap();
        check(&[certificate.pem()], true);
        assert!(Keys::of_pem("nothing", &[]).is_none());
        assert!(Keys::of_pem(&own.serialize_pem(), &["nothing".to_owned()]).is_none());
    }

    #[test]
    fn keys_are_described_for_others() {
        let keys = Keys::generate().unwrap().to_json();
        let key = &keys["keys"][0];
        assert_eq!(
            (key["kty"].as_str(), key["crv"].as_str(), key["alg"].as_str()),
            (Some("EC"), Some("P-256"), Some("ES256"))
        );
        assert!(["kid", "x", "y"].iter().all(|part| key[*part].as_str().unwrap().len() == 43), "{key}");
        // Of 2,048 bits: a sequence of 270 bytes.
        let der = rsa_public_der(&[7; 270]);
        assert_eq!(&der[..4], [0x30, 0x82, 0x01, 0x22]);
    }
}
