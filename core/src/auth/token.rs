//! Tokens of service accounts: what is asked for, what a token claims, and whether its claims still hold. Signing and
//! checking signatures is the driver's.
//!
//! Source: kubernetes `pkg/serviceaccount/claims.go`, `pkg/registry/core/serviceaccount/storage/token.go`,
//! `pkg/apis/authentication/validation`;
//! <https://kubernetes.io/docs/reference/access-authn-authz/service-accounts-admin/>.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{User, service_account_name, split_service_account};
use crate::api::Status;
use crate::machine::Wall;
use crate::object::{FieldError, Kind, Time};

/// The lifetime, in seconds, that the projected volume of every pod asks for. A token that is asked for with exactly
/// this lifetime, for the API server, lives [`EXTENDED`] instead, for clients that do not read it anew.
pub const PROJECTED: i64 = 3600 + 7;
/// See [`PROJECTED`].
const EXTENDED: i64 = 365 * 24 * 3600;
/// The lifetime of a token where none is asked for, in seconds.
const DEFAULT_LIFETIME: i64 = 3600;
const SHORTEST: i64 = 600;
const LONGEST: i64 = 1 << 32;
/// Clocks of those who issue and check tokens may differ by so many seconds.
const LEEWAY: i64 = 60;

/// A named object as a token refers to it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Reference {
    /// Its name.
    pub name: String,
    /// Its UID.
    pub uid: String,
}

/// The object that a token is bound to: the token ends with it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Bound {
    /// Pod, Secret or Node.
    pub kind: Kind,
    /// Which one.
    pub object: Reference,
}

/// What a TokenRequest asks for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Wanted {
    /// Whom the token is for; never empty.
    pub audiences: Vec<String>,
    /// Lifetime in seconds.
    pub seconds: i64,
    /// The object that the token is to be bound to; its UID is empty if the request does not say it.
    pub bound: Option<Bound>,
}

impl Wanted {
    /// Reads the `spec` of a TokenRequest. `audiences` are those of the API server.
    pub fn read(spec: &Value, audiences: &[String]) -> Result<Wanted, Status> {
        if !spec.is_object() && !spec.is_null() {
            return Err(unreadable("TokenRequest", "spec", "an object"));
        }
        let asked = audiences_of("TokenRequest", spec)?;
        let seconds = match &spec["expirationSeconds"] {
            Value::Null => DEFAULT_LIFETIME,
            given => given.as_i64().ok_or_else(|| unreadable("TokenRequest", "spec.expirationSeconds", "a number"))?,
        };
        let wrong = match seconds {
            ..SHORTEST => Some("may not specify a duration less than 10 minutes"),
            SHORTEST..=LONGEST => None,
            _ => Some("may not specify a duration larger than 2^32 seconds"),
        };
        if let Some(wrong) = wrong {
            let error = FieldError::invalid("spec.expirationSeconds", format_args!("{seconds}"), wrong);
            return Err(Status::invalid_named("authentication.k8s.io", "TokenRequest", "", &[error]));
        }
        let bound = match &spec["boundObjectRef"] {
            Value::Null => None,
            reference => Some(bound(reference)?),
        };
        let audiences = if asked.is_empty() { audiences.to_vec() } else { asked };
        Ok(Wanted { audiences, seconds, bound })
    }
}

fn unreadable(kind: &str, field: &str, what: &str) -> Status {
    let why = format!("{kind} in version \"v1\" cannot be handled as a {kind}: {field} is not {what}");
    Status::bad_request(why)
}

/// The audiences in the `spec` of a request of this kind. What is no list of texts is refused: read as none, it would
/// stand for the API server.
pub fn audiences_of(kind: &str, spec: &Value) -> Result<Vec<String>, Status> {
    let wrong = || unreadable(kind, "spec.audiences", "a list of strings");
    let text = |value: &Value| value.as_str().map(str::to_owned).ok_or_else(wrong);
    match &spec["audiences"] {
        Value::Null => Ok(Vec::new()),
        Value::Array(all) => all.iter().map(text).collect(),
        _ => Err(wrong()),
    }
}

/// Whether something that a token depends on was deleted long enough ago for the token to have ended with it. It may
/// still be there, held by a finalizer.
pub fn ended_with(deleted: &Time, now: Wall) -> bool {
    seconds(Wall::from_time(deleted)) < seconds(now) - LEEWAY
}

/// Why a token for its `own` audiences is refused where it should be for others.
pub fn not_for(own: &[String], asked: &[String]) -> String {
    let list = |of: &[String]| format!("[{}]", of.iter().map(|a| format!("{a:?}")).collect::<Vec<_>>().join(" "));
    format!("token audiences {} is invalid for the target audiences {}", list(own), list(asked))
}

fn bound(reference: &Value) -> Result<Bound, Status> {
    let text = |name: &str| reference[name].as_str().unwrap_or_default().to_owned();
    let (version, kind) = (text("apiVersion"), text("kind"));
    let kind = match (version.as_str(), kind.as_str()) {
        ("v1", "Pod") => Kind::POD,
        ("v1", "Secret") => Kind::SECRET,
        ("v1", "Node") => Kind::NODE,
        _ => {
            let (group, version) = version.split_once('/').unwrap_or(("", &version));
            let what = format!("{group}/{version}, Kind={kind}");
            return Err(Status::bad_request(format!("cannot bind token to object of type {what}")));
        }
    };
    Ok(Bound { kind, object: Reference { name: text("name"), uid: text("uid") } })
}

/// What a token claims. Times are seconds since 1970.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Claims {
    /// Whom it is for.
    pub audiences: Vec<String>,
    /// When it was issued.
    pub issued: i64,
    /// From when it holds.
    pub not_before: i64,
    /// Until when it holds.
    pub expires: i64,
    /// When its client should have read a newer one.
    pub warn_after: Option<i64>,
    /// Its own name (`jti`).
    pub id: String,
    /// Namespace of the service account.
    pub namespace: String,
    /// The service account.
    pub account: Reference,
    /// The pod that it is bound to.
    pub pod: Option<Reference>,
    /// The Secret that it is bound to.
    pub secret: Option<Reference>,
    /// The node that it is bound to, or that its pod runs on.
    pub node: Option<Reference>,
}

fn seconds(now: Wall) -> i64 {
    now.0.div_euclid(1_000_000)
}

impl Claims {
    /// The claims of a new token. `node` is the node of the pod that it is bound to.
    pub fn new(
        wanted: &Wanted,
        namespace: &str,
        account: Reference,
        node: Option<Reference>,
        for_api_server: bool,
        id: String,
        now: Wall,
    ) -> Claims {
        let now = seconds(now);
        let extended = wanted.seconds == PROJECTED && for_api_server;
        let mut claims = Claims {
            audiences: wanted.audiences.clone(),
            issued: now,
            not_before: now,
            expires: now + if extended { EXTENDED } else { wanted.seconds },
            warn_after: extended.then_some(now + wanted.seconds),
            id,
            namespace: namespace.to_owned(),
            account,
            node,
            ..Claims::default()
        };
        if let Some(Bound { kind, object }) = wanted.bound.clone() {
            let slot = match kind {
                Kind::POD => &mut claims.pod,
                Kind::SECRET => &mut claims.secret,
                _ => &mut claims.node,
            };
            *slot = Some(object);
        }
        claims
    }

    /// The claims as a JSON Web Token carries them.
    pub fn to_json(&self, issuer: &str) -> Value {
        let reference = |of: &Reference| json!({"name": of.name, "uid": of.uid});
        let mut kubernetes = json!({"namespace": self.namespace, "serviceaccount": reference(&self.account)});
        for (name, of) in [("pod", &self.pod), ("secret", &self.secret), ("node", &self.node)] {
            if let Some(of) = of {
                kubernetes[name] = reference(of);
            }
        }
        if let Some(at) = self.warn_after {
            kubernetes["warnafter"] = json!(at);
        }
        json!({
            "iss": issuer, "sub": service_account_name(&self.namespace, &self.account.name), "aud": self.audiences,
            "iat": self.issued, "nbf": self.not_before, "exp": self.expires, "jti": self.id,
            "kubernetes.io": kubernetes,
        })
    }

    /// Reads the claims of a token from this issuer; `None` if it is another's, or they contradict each other.
    pub fn read(value: &Value, issuer: &str) -> Option<Claims> {
        let kubernetes = &value["kubernetes.io"];
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let reference = |name: &str| {
            let of = kubernetes.get(name)?;
            Some(Reference { name: text(&of["name"]), uid: text(&of["uid"]) })
        };
        let audiences = match &value["aud"] {
            Value::String(one) => vec![one.clone()],
            many => many.as_array()?.iter().map(text).collect(),
        };
        let claims = Claims {
            audiences,
            issued: value["iat"].as_i64().unwrap_or(0),
            not_before: value["nbf"].as_i64().unwrap_or(0),
            expires: value["exp"].as_i64()?,
            warn_after: kubernetes["warnafter"].as_i64(),
            id: text(&value["jti"]),
            namespace: text(&kubernetes["namespace"]),
            account: reference("serviceaccount")?,
            pod: reference("pod"),
            secret: reference("secret"),
            node: reference("node"),
        };
        let subject = split_service_account(value["sub"].as_str()?)?;
        let own = (claims.namespace.as_str(), claims.account.name.as_str());
        (value["iss"] == issuer && subject == own).then_some(claims)
    }

    /// Whether a token holds at a time, and for one of these audiences; the error says what is wrong.
    pub fn check(&self, now: Wall, audiences: &[String]) -> Result<(), String> {
        let now = seconds(now);
        if self.not_before > now + LEEWAY {
            return Err("service account token is not valid yet".to_owned());
        }
        if self.expires < now - LEEWAY {
            return Err("service account token has expired".to_owned());
        }
        if self.shared(audiences).is_empty() {
            return Err(not_for(&self.audiences, audiences));
        }
        Ok(())
    }

    /// Those of these audiences that the token is for.
    pub fn shared(&self, audiences: &[String]) -> Vec<String> {
        audiences.iter().filter(|a| self.audiences.contains(a)).cloned().collect()
    }

    /// What has to be there for the token to hold: kind, namespace and which object.
    pub fn depends_on(&self) -> Vec<(Kind, &str, &Reference)> {
        let namespace = self.namespace.as_str();
        let mut all = vec![(Kind::SERVICE_ACCOUNT, namespace, &self.account)];
        all.extend(self.pod.iter().map(|pod| (Kind::POD, namespace, pod)));
        all.extend(self.secret.iter().map(|secret| (Kind::SECRET, namespace, secret)));
        // The node of a pod is only told; a token that is bound to a node alone ends with it.
        let node = self.node.iter().filter(|_| self.pod.is_none());
        all.extend(node.map(|node| (Kind::NODE, "", node)));
        all
    }

    /// The user that the token stands for.
    pub fn user(&self) -> User {
        let mut extra = BTreeMap::new();
        let mut tell = |name: &str, value: String| {
            extra.insert(format!("authentication.kubernetes.io/{name}"), vec![value]);
        };
        if !self.id.is_empty() {
            tell("credential-id", format!("JTI={}", self.id));
        }
        for (kind, of) in [("pod", &self.pod), ("node", &self.node)] {
            if let Some(of) = of {
                tell(&format!("{kind}-name"), of.name.clone());
                tell(&format!("{kind}-uid"), of.uid.clone());
            }
        }
        User { extra, ..User::service_account(&self.namespace, &self.account.name, &self.account.uid) }
    }
}

#[cfg(test)]
mod tests {
    use super::{Claims, Reference, Wanted};
    use crate::machine::Wall;
    use crate::object::Kind;
    use serde_json::{Value, json};

    const NOW: Wall = Wall(1_700_000_000_000_000);

    fn api() -> Vec<String> {
        vec!["https://api".to_owned()]
    }

    fn reference(name: &str) -> Reference {
        Reference { name: name.to_owned(), uid: format!("{name}-uid") }
    }

    fn claims(spec: Value) -> Claims {
        let wanted = Wanted::read(&spec, &api()).unwrap();
        let for_api_server = wanted.audiences == api();
        Claims::new(&wanted, "a", reference("bot"), None, for_api_server, "id".to_owned(), NOW)
    }

    #[test]
    fn requests_are_read_as_upstream_does() {
        let wanted = Wanted::read(&json!({}), &api()).unwrap();
        assert_eq!((wanted.audiences, wanted.seconds, wanted.bound), (api(), 3600, None));
        let refused = |spec: Value, code: u16, want: &str| {
            let status = Wanted::read(&spec, &api()).unwrap_err();
            assert!(status.reason.code() == code && status.message.contains(want), "{spec}: {status}");
        };
        refused(
            json!({"expirationSeconds": 599}),
            422,
            "spec.expirationSeconds: Invalid value: 599: may not specify a duration less than 10 minutes",
        );
        refused(json!({"expirationSeconds": 1i64 << 33}), 422, "may not specify a duration larger than 2^32 seconds");
        for (spec, field) in [
            (json!("x"), "spec is not an object"),
            (json!({"audiences": "vault"}), "spec.audiences is not a list of strings"),
            (json!({"audiences": [7]}), "spec.audiences is not a list of strings"),
            (json!({"expirationSeconds": "600"}), "spec.expirationSeconds is not a number"),
        ] {
            refused(spec, 400, field);
        }
        let map = json!({"boundObjectRef": {"apiVersion": "v1", "kind": "ConfigMap", "name": "x"}});
        refused(map, 400, "cannot bind token to object of type /v1, Kind=ConfigMap");
    }

    #[test]
    fn claims_survive_the_wire() {
        let pod = json!({"boundObjectRef": {"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "u"}});
        for spec in [json!({}), json!({"expirationSeconds": 3607}), pod] {
            let claims = claims(spec);
            let json = claims.to_json("https://api");
            assert_eq!(Claims::read(&json, "https://api"), Some(claims));
            assert_eq!(Claims::read(&json, "https://other"), None);
            let mut another = json.clone();
            another["sub"] = json!("system:serviceaccount:a:other");
            assert_eq!(Claims::read(&another, "https://api"), None);
        }
    }

    #[test]
    fn a_token_holds_for_its_time_and_audience() {
        let later = |seconds: i64| Wall(NOW.0 + seconds * 1_000_000);
        let check = |spec: Value, at: i64, audience: &str, want: &str| {
            let checked = claims(spec.clone()).check(later(at), &[audience.to_owned()]);
            assert_eq!(checked.err().unwrap_or_default(), want, "{spec} after {at} s");
        };
        let audience = "token audiences [\"https://api\"] is invalid for the target audiences [\"other\"]";
        check(json!({}), 0, "https://api", "");
        check(json!({}), 3600, "https://api", "");
        check(json!({}), 3700, "https://api", "service account token has expired");
        check(json!({}), -100, "https://api", "service account token is not valid yet");
        check(json!({}), 0, "other", audience);
        check(
            json!({"audiences": ["other"], "expirationSeconds": 3607}),
            4000,
            "other",
            "service account token has expired",
        );
        check(json!({"expirationSeconds": 3607}), 4000, "https://api", "");
    }

    #[test]
    fn a_token_ends_a_minute_after_what_it_depends_on_was_deleted() {
        for (after, ended) in [(-5, false), (60, false), (61, true)] {
            let deleted = Wall(NOW.0 - after * 1_000_000).to_time();
            assert_eq!(super::ended_with(&deleted, NOW), ended, "after {after} s");
        }
    }

    #[test]
    fn a_token_stands_for_a_user_and_on_what_is_there() {
        let spec = json!({"boundObjectRef": {"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "u"}});
        let mut claims = claims(spec);
        claims.node = Some(reference("n"));
        let kinds: Vec<Kind> = claims.depends_on().iter().map(|(kind, ..)| *kind).collect();
        assert_eq!(kinds, [Kind::SERVICE_ACCOUNT, Kind::POD]);
        let user = claims.user();
        assert_eq!((user.name.as_str(), user.uid.as_str()), ("system:serviceaccount:a:bot", "bot-uid"));
        for (name, value) in [("credential-id", "JTI=id"), ("pod-name", "p"), ("pod-uid", "u"), ("node-name", "n")] {
            assert_eq!(user.extra[&format!("authentication.kubernetes.io/{name}")], [value]);
        }
    }
}
