//! Credentials for registries, and which of them are meant for an image.
//!
//! Source: kubernetes `pkg/credentialprovider/{config,keyring}.go`, `pkg/credentialprovider/secrets`;
//! <https://kubernetes.io/docs/concepts/containers/images/#config-json>.

use std::collections::BTreeMap;

use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::general_purpose::{self, URL_SAFE};
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use hyper::header::HeaderValue;
use serde_json::{Map, Value, json};
use skeg_core::agent::PullSecret;

/// Credentials for Docker Hub are written for this host.
const HUB: &str = "index.docker.io";
/// A part of a credential that is shorter than this is no secret, and is not looked for in messages.
const HIDDEN: usize = 4;

/// Who somebody is at a registry.
#[derive(Clone, PartialEq, Eq)]
pub struct Credential {
    username: String,
    password: String,
}

impl std::fmt::Debug for Credential {
    // Never what it is.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Credential")
    }
}

impl Credential {
    /// As the engine takes it.
    pub fn header(&self) -> HeaderValue {
        let told = json!({"username": self.username, "password": self.password}).to_string();
        let mut value = HeaderValue::from_str(&URL_SAFE.encode(told)).expect("base64 can be sent");
        value.set_sensitive(true);
        value
    }

    /// A message without it: registries may repeat what they are told.
    pub fn hidden_in(&self, message: &str) -> String {
        let basic = general_purpose::STANDARD.encode(format!("{}:{}", self.username, self.password));
        let secret = [basic.as_str(), self.password.as_str()].into_iter().filter(|text| text.len() >= HIDDEN);
        secret.fold(message.to_owned(), |message, text| message.replace(text, "***"))
    }

    fn of(entry: &Value) -> Result<Credential, String> {
        let text = |field: &str| entry[field].as_str().unwrap_or_default();
        let auth = text("auth");
        if auth.is_empty() {
            return Ok(Credential { username: text("username").to_owned(), password: text("password").to_owned() });
        }
        let config = GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
        let decoded = GeneralPurpose::new(&STANDARD, config).decode(auth.trim());
        // What is wrong with it is not repeated: it is a secret.
        let decoded = decoded.map_err(|_| "illegal base64 data in the auth field".to_owned())?;
        let decoded = String::from_utf8_lossy(&decoded);
        let (username, password) = decoded
            .split_once(':')
            .ok_or_else(|| "unable to parse auth field, must be formatted as base64(username:password)".to_owned())?;
        Ok(Credential { username: username.to_owned(), password: password.to_owned() })
    }
}

/// Credentials by where they are meant for: a host, with a port and the beginning of a path if it has them.
#[derive(Clone, Debug, Default)]
pub struct Keyring(BTreeMap<String, Vec<Credential>>);

impl Keyring {
    /// What these Secrets say.
    pub fn of(secrets: &[PullSecret]) -> Result<Keyring, String> {
        let mut keyring = Keyring::default();
        for secret in secrets {
            let read: Result<Map<String, Value>, _> = serde_json::from_slice(&secret.config);
            // The message of the parser tells the place and nothing of what is there.
            let read = read.map_err(|e| format!("an image pull secret is no JSON object: {e}"))?;
            let entries = if secret.is_dockercfg { Some(&read) } else { read.get("auths").and_then(Value::as_object) };
            for (place, entry) in entries.into_iter().flatten() {
                keyring.0.entry(key(place)).or_default().push(Credential::of(entry)?);
            }
        }
        Ok(keyring)
    }

    /// The credentials that are meant for an image, the most special first.
    pub fn lookup(&self, image: &str) -> Vec<Credential> {
        let image = repository(image);
        let found = self.0.iter().rev().filter(|(place, _)| is_for(place, &image)).flat_map(|(_, all)| all);
        let found: Vec<_> = found.cloned().collect();
        match self.0.get(HUB) {
            Some(hub) if found.is_empty() && image.starts_with("docker.io/") => hub.clone(),
            _ => found,
        }
    }
}

/// Where a credential is meant for. Paths of the registry's API stand for all of it.
fn key(place: &str) -> String {
    let bare = place.strip_prefix("https://").or_else(|| place.strip_prefix("http://")).unwrap_or(place);
    let (host, path) = bare.split_at(bare.find('/').unwrap_or(bare.len()));
    let path = match path {
        "/v1" | "/v2" => path,
        path => {
            path.strip_prefix("/v1").or_else(|| path.strip_prefix("/v2")).filter(|p| p.starts_with('/')).unwrap_or(path)
        }
    };
    if path == "/" { host.to_owned() } else { format!("{host}{path}") }
}

/// The repository of an image with its registry's host, and without tag and digest.
fn repository(image: &str) -> String {
    let name = image.split('@').next().unwrap_or_default();
    let last = name.rsplit('/').next().unwrap_or_default();
    let name = last.split_once(':').map_or(name, |(_, tag)| &name[..name.len() - tag.len() - 1]);
    match name.split_once('/') {
        Some((HUB, rest)) => format!("docker.io/{rest}"),
        Some((host, _)) if host.contains(['.', ':']) || host == "localhost" => name.to_owned(),
        Some(_) => format!("docker.io/{name}"),
        None => format!("docker.io/library/{name}"),
    }
}

/// Whether a place, each part of whose host may be a pattern, is that of a repository (`URLsMatch`).
fn is_for(place: &str, repository: &str) -> bool {
    let split = |text: &str| {
        let (host, path) = text.split_at(text.find('/').unwrap_or(text.len()));
        let (host, port) = host.split_once(':').unwrap_or((host, ""));
        (host.split('.').map(str::to_owned).collect::<Vec<_>>(), port.to_owned(), path.to_owned())
    };
    let ((wanted, port, path), (host, its_port, its_path)) = (split(place), split(repository));
    port == its_port
        && wanted.len() == host.len()
        && its_path.starts_with(&path)
        && wanted.iter().zip(&host).all(|(pattern, part)| matches(pattern.as_bytes(), part.as_bytes()))
}

/// Whether a text is like a pattern of a shell: `*`, `?`, `[a-z]`, `[^a-z]` (`filepath.Match`).
fn matches(pattern: &[u8], text: &[u8]) -> bool {
    match (pattern, text) {
        ([], text) => text.is_empty(),
        ([b'*', rest @ ..], text) => (0..=text.len()).any(|n| matches(rest, &text[n..])),
        ([b'?', rest @ ..], [_, text @ ..]) => matches(rest, text),
        ([b'[', class @ ..], [first, text @ ..]) => {
            let Some(end) = class.iter().position(|byte| *byte == b']') else { return false };
            let (class, rest) = (&class[..end], &class[end + 1..]);
            let (negated, class) = class.strip_prefix(b"^").map_or((false, class), |class| (true, class));
            is_in(class, *first) != negated && matches(rest, text)
        }
        ([wanted, rest @ ..], [first, text @ ..]) => wanted == first && matches(rest, text),
        (_, []) => false,
    }
}

fn is_in(class: &[u8], byte: u8) -> bool {
    match class {
        [from, b'-', to, rest @ ..] => (from..=to).contains(&&byte) || is_in(rest, byte),
        [one, rest @ ..] => *one == byte || is_in(rest, byte),
        [] => false,
    }
}

#[cfg(test)]
mod tests {
    use super::{Credential, Keyring};
    use base64::Engine;
    use base64::engine::general_purpose::URL_SAFE;
    use serde_json::{Value, json};
    use skeg_core::agent::PullSecret;

    fn secret(is_dockercfg: bool, config: &Value) -> PullSecret {
        PullSecret { is_dockercfg, config: config.to_string().into_bytes() }
    }

    /// Passwords of the credentials that are meant for an image.
    fn found(places: &[&str], image: &str) -> Vec<String> {
        let entries: Value =
            places.iter().map(|p| ((*p).to_owned(), json!({"username": "u", "password": *p}))).collect();
        let keyring = Keyring::of(&[secret(false, &json!({"auths": entries}))]).expect("it is well");
        keyring.lookup(image).into_iter().map(|credential| credential.password).collect()
    }

    #[test]
    fn credentials_are_for_their_registries() {
        for (places, image, expect) in [
            (&["r.io"][..], "r.io/a:1", &["r.io"][..]),
            (&["r.io"], "r.io/a@sha256:00", &["r.io"]),
            (&["https://r.io/v2/"], "r.io/a", &["https://r.io/v2/"]),
            (&["http://r.io:5000/v1/"], "r.io:5000/a/b:x", &["http://r.io:5000/v1/"]),
            (&["r.io"], "r.io:5000/a", &[]),
            (&["r.io:5000"], "r.io/a", &[]),
            (&["r.io"], "x.r.io/a", &[]),
            (&["*.r.io"], "x.r.io/a", &["*.r.io"]),
            (&["*.r.io"], "x.y.r.io/a", &[]),
            (&["r[a-c]?.io"], "rb1.io/a", &["r[a-c]?.io"]),
            (&["r[^a-c].io"], "rb.io/a", &[]),
            (&["r.io", "r.io/team", "r.io/other"], "r.io/team/a", &["r.io/team", "r.io"]),
            (&["https://index.docker.io/v1/"], "nginx", &["https://index.docker.io/v1/"]),
            (&["https://index.docker.io/v1/"], "me/app:1", &["https://index.docker.io/v1/"]),
            (&["https://index.docker.io/v1/"], "r.io/app", &[]),
            (&["docker.io", "index.docker.io"], "library/nginx", &["docker.io"]),
            (&["localhost:5000"], "localhost:5000/a", &["localhost:5000"]),
        ] {
            assert_eq!(found(places, image), expect, "{places:?} {image}");
        }
    }

    #[test]
    fn both_types_of_secrets_and_both_forms_of_credentials_are_read() {
        let auth = |text: &str| json!({"auth": text});
        for (is_dockercfg, config, expect) in [
            (true, json!({"r.io": {"username": "u", "password": "p", "email": "e"}}), Ok("u:p")),
            (false, json!({"auths": {"r.io": auth("dTpwOnE=")}}), Ok("u:p:q")),
            (false, json!({"auths": {"r.io": auth("dTpw")}}), Ok("u:p")),
            (false, json!({"auths": {"r.io": auth("dTpwOnE")}}), Ok("u:p:q")),
            (false, json!({"auths": {"r.io": auth("dXU=")}}), Err("base64(username:password)")),
            (false, json!({"auths": {"r.io": auth("!")}}), Err("illegal base64")),
            (false, json!({"r.io": auth("dTpw")}), Ok("")),
            (false, json!([]), Err("no JSON object")),
        ] {
            let keyring = Keyring::of(&[secret(is_dockercfg, &config)]);
            let told = keyring.map(|keyring| {
                let told = |c: &Credential| format!("{}:{}", c.username, c.password);
                keyring.lookup("r.io/a").iter().map(told).collect::<String>()
            });
            match expect {
                Ok(expect) => assert_eq!(told.as_deref(), Ok(expect), "{config}"),
                Err(why) => assert!(told.as_ref().is_err_and(|e| e.contains(why)), "{config}: {told:?}"),
            }
        }
    }

    #[test]
    fn what_is_secret_is_shown_to_the_engine_only() {
        let credential = Credential { username: "me".to_owned(), password: "hunter2".to_owned() };
        let header = credential.header();
        assert!(header.is_sensitive());
        let told: Value = serde_json::from_slice(&URL_SAFE.decode(header.as_bytes()).expect("base64")).expect("JSON");
        assert_eq!(told, json!({"username": "me", "password": "hunter2"}));
        let repeated = credential.hidden_in("hunter2 is wrong: Basic bWU6aHVudGVyMg==");
        assert_eq!(repeated, "*** is wrong: Basic ***");
        assert_eq!(format!("{credential:?}"), "Credential");
    }
}
