//! Tokens of service accounts that live in Secrets: they end with their Secret or account and at no time.
//!
//! Source: kubernetes `pkg/serviceaccount/legacy.go`;
//! <https://kubernetes.io/docs/reference/access-authn-authz/service-accounts-admin/#manual-secret-management-for-serviceaccounts>.

use serde_json::{Value, json};

use super::token::Reference;
use super::{User, service_account_name, split_service_account};

/// The type of such a Secret.
pub const SECRET_TYPE: &str = "kubernetes.io/service-account-token";
/// The annotation of the Secret that names its account.
pub const ACCOUNT_NAME: &str = "kubernetes.io/service-account.name";
/// The annotation of the Secret with the UID of its account.
pub const ACCOUNT_UID: &str = "kubernetes.io/service-account.uid";
/// Who issues them, whatever the issuer of other tokens is called.
const ISSUER: &str = "kubernetes/serviceaccount";
const PREFIX: &str = "kubernetes.io/serviceaccount";

/// What such a token claims.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LegacyClaims {
    /// Namespace of Secret and account.
    pub namespace: String,
    /// Name of the Secret.
    pub secret: String,
    /// The account.
    pub account: Reference,
}

impl LegacyClaims {
    /// The claims as a JSON Web Token carries them.
    pub fn to_json(&self) -> Value {
        json!({
            "iss": ISSUER, "sub": service_account_name(&self.namespace, &self.account.name),
            format!("{PREFIX}/namespace"): self.namespace, format!("{PREFIX}/secret.name"): self.secret,
            format!("{PREFIX}/service-account.name"): self.account.name,
            format!("{PREFIX}/service-account.uid"): self.account.uid,
        })
    }

    /// Reads the claims of a token; `None` if it is of another issuer. An error says what is wrong with them.
    pub fn read(value: &Value) -> Option<Result<LegacyClaims, String>> {
        if value["iss"] != ISSUER {
            return None;
        }
        let claim = |name: &str, called: &str| match value[format!("{PREFIX}/{name}")].as_str() {
            None | Some("") => Err(format!("{called} claim is missing")),
            Some(given) => Ok(given.to_owned()),
        };
        let read = || {
            let subject = value["sub"].as_str().filter(|sub| !sub.is_empty()).ok_or("sub claim is missing")?;
            let claims = LegacyClaims {
                namespace: claim("namespace", "namespace")?,
                secret: claim("secret.name", "secretName")?,
                account: Reference {
                    name: claim("service-account.name", "serviceAccountName")?,
                    uid: claim("service-account.uid", "serviceAccountUID")?,
                },
            };
            let own = (claims.namespace.as_str(), claims.account.name.as_str());
            if split_service_account(subject) == Some(own) {
                Ok(claims)
            } else {
                Err("sub claim is invalid".to_owned())
            }
        };
        Some(read())
    }

    /// The user that the token stands for.
    pub fn user(&self) -> User {
        User::service_account(&self.namespace, &self.account.name, &self.account.uid)
    }
}

#[cfg(test)]
mod tests {
    use super::{LegacyClaims, Reference};
    use serde_json::{Value, json};

    #[test]
    fn claims_are_read_as_they_were_written() {
        let account = Reference { name: "bot".to_owned(), uid: "u".to_owned() };
        let claims = LegacyClaims { namespace: "n".to_owned(), secret: "s".to_owned(), account };
        assert_eq!(LegacyClaims::read(&claims.to_json()), Some(Ok(claims.clone())));
        assert_eq!(claims.user().name, "system:serviceaccount:n:bot");
        let check = |name: &str, to: Value, want: Option<&str>| {
            let mut value = claims.to_json();
            value[name] = to;
            let got = LegacyClaims::read(&value).map(|read| read.unwrap_err());
            assert_eq!(got.as_deref(), want, "{name}");
        };
        check("iss", json!("https://elsewhere"), None);
        check("sub", json!(""), Some("sub claim is missing"));
        check("sub", json!("system:serviceaccount:n:other"), Some("sub claim is invalid"));
        check("kubernetes.io/serviceaccount/namespace", json!(null), Some("namespace claim is missing"));
        check("kubernetes.io/serviceaccount/secret.name", json!(""), Some("secretName claim is missing"));
        let uid = "kubernetes.io/serviceaccount/service-account.uid";
        check(uid, json!(3), Some("serviceAccountUID claim is missing"));
    }
}
