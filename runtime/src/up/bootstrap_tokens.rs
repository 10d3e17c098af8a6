//! Bootstrap tokens: `ID.SECRET`, kept in Secrets of `kube-system`, by which a node that is new asks for its
//! certificate.
//!
//! Source: <https://kubernetes.io/docs/reference/access-authn-authz/bootstrap-tokens/>, kubernetes
//! `plugin/pkg/auth/authenticator/token/bootstrap`.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use skeg_core::auth::{AUTHENTICATED, User};
use skeg_core::{Kind, Wall};

use super::handler::Handler;

/// The group of whoever has a bootstrap token.
pub const BOOTSTRAPPERS: &str = "system:bootstrappers";
/// The namespace of the Secrets.
pub const NAMESPACE: &str = "kube-system";
/// Their type.
pub const TYPE: &str = "bootstrap.kubernetes.io/token";
/// What their names begin with.
pub const PREFIX: &str = "bootstrap-token-";

/// The parts of a token of this form; `None` if it has another one.
fn parts(token: &str) -> Option<(&str, &str)> {
    let (id, secret) = token.split_once('.')?;
    let plain =
        |text: &str, length| text.len() == length && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    (plain(id, 6) && plain(secret, 16)).then_some((id, secret))
}

/// Who a token stands for by its Secret; the error says why it stands for nobody.
fn user(id: &str, secret: &str, held: &Value, now: Wall) -> Result<User, &'static str> {
    let text = |key: &str| {
        let encoded = held["data"][key].as_str().unwrap_or_default();
        STANDARD.decode(encoded).ok().and_then(|bytes| String::from_utf8(bytes).ok()).unwrap_or_default()
    };
    if held["type"] != TYPE || !held["metadata"]["deletionTimestamp"].is_null() {
        return Err("there is no such token");
    }
    let expected = text("token-secret");
    // In constant time, so that the time of a refusal says nothing about the secret.
    let differ = expected.bytes().zip(secret.bytes()).fold(0, |differ, (a, b)| differ | (a ^ b));
    if text("token-id") != id || expected.len() != secret.len() || differ != 0 {
        return Err("there is no such token");
    }
    let expires = text("expiration");
    if !expires.is_empty() {
        let at = serde_json::from_value(Value::String(expires)).ok().map(|at| Wall::from_time(&at));
        if at.is_none_or(|at| at <= now) {
            return Err("the token has expired");
        }
    }
    if text("usage-bootstrap-authentication") != "true" {
        return Err("the token is not for authentication");
    }
    let also = text("auth-extra-groups");
    let also: Vec<&str> = also.split(',').filter(|group| !group.is_empty()).collect();
    if also.iter().any(|group| !group.starts_with("system:bootstrappers:")) {
        return Err("the token's groups are not those of bootstrappers");
    }
    Ok(User::new(&format!("system:bootstrap:{id}"), &[&[BOOTSTRAPPERS], &also[..], &[AUTHENTICATED]].concat()))
}

impl Handler {
    /// Who a bootstrap token stands for; `None` if it has another form. The error says why it stands for nobody.
    pub(super) async fn bootstrapper(&self, token: &str) -> Option<Result<User, String>> {
        let (id, secret) = parts(token)?;
        let held = match self.look_up(Kind::SECRET, NAMESPACE, &format!("{PREFIX}{id}")).await {
            Ok(held) => held.unwrap_or_default(),
            Err(status) => return Some(Err(status.message.into())),
        };
        Some(user(id, secret, &held, self.shared.clock.real_time()).map_err(str::to_owned))
    }
}

#[cfg(test)]
mod tests {
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;
    use serde_json::{Value, json};
    use skeg_core::Wall;

    use super::{parts, user};

    #[test]
    fn a_token_is_what_its_secret_says() {
        let secret = |changes: &[(&str, &str)]| {
            let mut data = json!({});
            let all = [
                ("token-id", "abcdef"),
                ("token-secret", "0123456789abcdef"),
                ("usage-bootstrap-authentication", "true"),
                ("auth-extra-groups", "system:bootstrappers:a,system:bootstrappers:b"),
                ("expiration", "2027-01-01T00:00:00Z"),
            ];
            for (key, value) in all.iter().chain(changes) {
                data[*key] = json!(STANDARD.encode(value));
            }
            json!({"type": "bootstrap.kubernetes.io/token", "data": data, "metadata": {}})
        };
        // 2026-01-01.
        let now = Wall(1_767_225_600_000_000);
        let ask = |held: &Value, secret: &str| user("abcdef", secret, held, now);
        let good = "0123456789abcdef";
        let who = ask(&secret(&[]), good).unwrap();
        assert_eq!(who.name, "system:bootstrap:abcdef");
        let groups =
            ["system:bootstrappers", "system:bootstrappers:a", "system:bootstrappers:b", "system:authenticated"];
        assert_eq!(who.groups, groups);
        assert_eq!(ask(&secret(&[("expiration", ""), ("auth-extra-groups", "")]), good).unwrap().groups.len(), 2);
        for (held, said, why) in [
            (secret(&[]), "0123456789abcdeg", "no such token"),
            (secret(&[("token-id", "other1")]), good, "no such token"),
            (secret(&[("expiration", "2025-01-01T00:00:00Z")]), good, "expired"),
            (secret(&[("expiration", "soon")]), good, "expired"),
            (secret(&[("usage-bootstrap-authentication", "false")]), good, "not for authentication"),
            (secret(&[("auth-extra-groups", "system:masters")]), good, "groups"),
            (json!({"type": "Opaque"}), good, "no such token"),
            (Value::Null, good, "no such token"),
        ] {
            assert!(ask(&held, said).unwrap_err().contains(why), "{held}");
        }
    }

    #[test]
    fn other_tokens_are_left_to_others() {
        assert_eq!(parts("abcdef.0123456789abcdef"), Some(("abcdef", "0123456789abcdef")));
        for other in ["abcdef.0123456789abcde", "Abcdef.0123456789abcdef", "a.b.c", "", "abcdef0123456789abcdef"] {
            assert_eq!(parts(other), None, "{other}");
        }
    }
}
