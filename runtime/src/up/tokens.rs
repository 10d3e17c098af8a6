//! Tokens of service accounts over HTTP: bearer tokens, TokenRequest, TokenReview, and the discovery of the keys.
//!
//! Source: <https://kubernetes.io/docs/reference/access-authn-authz/service-accounts-admin/>,
//! <https://kubernetes.io/docs/tasks/configure-pod-container/configure-service-account/#service-account-issuer-discovery>.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hyper::Response;
use hyper::body::Incoming;
use hyper::header::{AUTHORIZATION, CACHE_CONTROL, HeaderMap, HeaderValue};
use serde_json::{Value, json};
use skeg_core::api::{Reason, Status};
use skeg_core::auth::User;
use skeg_core::auth::legacy_token::LegacyClaims;
use skeg_core::auth::token::{self, Bound, Claims, Reference, Wanted};
use skeg_core::controllers::TokenSigner;
use skeg_core::object::KindInfo;
use skeg_core::{Kind, Wall};
use tokio::time::Instant;

use super::ask::{Answer, Target, What};
use super::handler::{Handler, Head};
use super::keys::Keys;
use super::reply::{self, Content};
use super::route::{Objects, not_found};
use super::{body, review};

/// `--service-account-issuer`, where none is given.
pub const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";
/// How long an accepted token is not checked again (`TokenSuccessCacheTTL` of kube-apiserver).
const REMEMBERED: Duration = Duration::from_secs(10);
/// How many accepted tokens are remembered.
const REMEMBERED_TOKENS: usize = 10_000;

/// What a server needs to issue tokens, and to accept them.
#[derive(Debug)]
pub struct Tokens {
    keys: Keys,
    /// `--service-account-issuer`.
    issuer: String,
    /// `--api-audiences`.
    audiences: Vec<String>,
    /// Where the keys are found.
    jwks_uri: String,
    /// Accepted tokens, with when they must be checked again.
    accepted: Mutex<BTreeMap<String, (Instant, User)>>,
}

/// The options of [`Tokens`], as plain values.
#[derive(Debug)]
pub struct TokenOptions {
    /// The keys.
    pub keys: Keys,
    /// `--service-account-issuer`.
    pub issuer: String,
    /// `--api-audiences`; the issuer where empty.
    pub audiences: Vec<String>,
}

impl Tokens {
    /// `address` is the `host:port` that clients use.
    pub fn new(options: TokenOptions, address: &str) -> Tokens {
        let TokenOptions { keys, issuer, mut audiences } = options;
        if audiences.is_empty() {
            audiences.push(issuer.clone());
        }
        let jwks_uri = format!("https://{address}/openid/v1/jwks");
        Tokens { keys, issuer, audiences, jwks_uri, accepted: Mutex::default() }
    }

    /// A token for a pod's own use, as its projected volume asks for one. `node` is where the pod runs.
    pub fn for_pod(
        &self,
        (namespace, account): (&str, Reference),
        pod: Reference,
        node: Reference,
        (audience, seconds): (&str, i64),
        now: Wall,
    ) -> Result<String, String> {
        let audiences = if audience.is_empty() { self.audiences.clone() } else { vec![audience.to_owned()] };
        let bound = Some(Bound { kind: Kind::POD, object: pod });
        let for_api_server = audiences.iter().all(|audience| self.audiences.contains(audience));
        let wanted = Wanted { audiences, seconds, bound };
        let id = uuid().map_err(|status| status.message.to_string())?;
        let claims = Claims::new(&wanted, namespace, account, Some(node), for_api_server, id, now);
        Ok(self.keys.sign(&claims.to_json(&self.issuer)))
    }

    fn remembered(&self, token: &str) -> Option<User> {
        let accepted = self.accepted.lock().expect("nobody panics while it is held");
        accepted.get(token).filter(|(until, _)| *until > Instant::now()).map(|(_, user)| user.clone())
    }

    fn remember(&self, token: &str, user: &User) {
        let now = Instant::now();
        let mut accepted = self.accepted.lock().expect("nobody panics while it is held");
        if accepted.len() >= REMEMBERED_TOKENS {
            accepted.retain(|_, (until, _)| *until > now);
        }
        if accepted.len() < REMEMBERED_TOKENS {
            accepted.insert(token.to_owned(), (now + REMEMBERED, user.clone()));
        }
    }

    /// `/.well-known/openid-configuration`.
    pub fn configuration(&self) -> Response<Content> {
        let configuration = json!({
            "issuer": self.issuer, "jwks_uri": self.jwks_uri, "response_types_supported": ["id_token"],
            "subject_types_supported": ["public"], "id_token_signing_alg_values_supported": self.keys.algorithms(),
        });
        public(reply::typed("application/json", &configuration))
    }

    /// `/openid/v1/jwks`.
    pub fn key_set(&self) -> Response<Content> {
        public(reply::typed("application/jwk-set+json", &self.keys.to_json()))
    }
}

/// A response that may be kept for an hour.
fn public(mut response: Response<Content>) -> Response<Content> {
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("public, max-age=3600"));
    response
}

/// The bearer token of a request.
pub fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(AUTHORIZATION)?.to_str().ok()?.trim().split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim_start()).filter(|token| !token.is_empty())
}

fn text(value: &Value, name: &str) -> String {
    value[name].as_str().unwrap_or_default().to_owned()
}

const INVALID: &str = "invalid bearer token";

/// Why a token that was signed here is refused.
fn told(why: String) -> String {
    format!("[{INVALID}, {why}]")
}

/// Signs the tokens that Secrets are for.
#[derive(Debug)]
pub struct Signer(pub Arc<Tokens>);

impl TokenSigner for Signer {
    fn sign(&self, claims: &Value) -> String {
        self.0.keys.sign(claims)
    }
}

impl Handler {
    /// The user that a token stands for; the error says why it stands for nobody.
    pub(super) async fn user_of(&self, token: &str) -> Result<User, String> {
        if let Some(user) = self.tokens.remembered(token) {
            return Ok(user);
        }
        if let Some(bootstrapper) = self.bootstrapper(token).await {
            return bootstrapper;
        }
        let (user, _) = self.check_token(token, &self.tokens.audiences).await?;
        self.tokens.remember(token, &user);
        Ok(user)
    }

    /// The user of a token that holds now, and for which of these audiences it does.
    async fn check_token(&self, token: &str, audiences: &[String]) -> Result<(User, Vec<String>), String> {
        let claims = self.tokens.keys.verify(token).ok_or(INVALID)?;
        if let Some(claims) = LegacyClaims::read(&claims) {
            return self.check_legacy_token(token, claims, audiences).await.map_err(told);
        }
        let claims = Claims::read(&claims, &self.tokens.issuer).ok_or(INVALID)?;
        // Tokens are on real time, whatever the cluster's clock does.
        claims.check(self.shared.clock.real_time(), audiences).map_err(told)?;
        for (kind, namespace, of) in claims.depends_on() {
            let found = self.look_up(kind, namespace, &of.name).await.map_err(|status| told(status.message.into()))?;
            let Some(found) = found else {
                return Err(told("service account token has been invalidated".to_owned()));
            };
            let (uid, what) = (text(&found["metadata"], "uid"), &kind.row().kind);
            if uid != of.uid {
                return Err(told(format!("{what} UID ({uid}) does not match claim ({})", of.uid)));
            }
            // The API server stamped it by the cluster's clock.
            let deleted = serde_json::from_value(found["metadata"]["deletionTimestamp"].clone()).ok();
            if deleted.is_some_and(|at| token::ended_with(&at, self.shared.clock.now().wall)) {
                return Err(told("service account token has been invalidated".to_owned()));
            }
        }
        Ok((claims.user(), claims.shared(audiences)))
    }

    /// The same for the token of a Secret, which must still have it. Such tokens are for the API server.
    async fn check_legacy_token(
        &self,
        token: &str,
        claims: Result<LegacyClaims, String>,
        audiences: &[String],
    ) -> Result<(User, Vec<String>), String> {
        let claims = claims?;
        let own = &self.tokens.audiences;
        let shared: Vec<String> = audiences.iter().filter(|audience| own.contains(audience)).cloned().collect();
        if shared.is_empty() {
            return Err(token::not_for(own, audiences));
        }
        let (namespace, account) = (claims.namespace.as_str(), &claims.account);
        let look_up = async |kind: Kind, name: &str| {
            self.look_up(kind, namespace, name).await.map_err(|status| status.message.to_string())
        };
        let is_going = |object: &Value| !object["metadata"]["deletionTimestamp"].is_null();
        let secret = look_up(Kind::SECRET, &claims.secret).await?.filter(|secret| !is_going(secret));
        let secret = secret.ok_or("service account token has been invalidated")?;
        let held = STANDARD.decode(secret["data"]["token"].as_str().unwrap_or_default()).unwrap_or_default();
        if held != token.as_bytes() {
            return Err("service account token does not match server token".to_owned());
        }
        let found = look_up(Kind::SERVICE_ACCOUNT, &account.name).await?;
        let found = found.ok_or_else(|| format!("serviceaccounts {:?} not found", account.name))?;
        if is_going(&found) {
            return Err(format!("ServiceAccount {namespace}/{} has been deleted", account.name));
        }
        let uid = text(&found["metadata"], "uid");
        if uid != account.uid {
            return Err(format!("ServiceAccount UID ({uid}) does not match claim ({})", account.uid));
        }
        Ok((claims.user(), shared))
    }

    /// An object as the API server's cache has it. If it is not there, the store is asked, since another server may
    /// have made it a moment ago (upstream's `serviceaccount` getters do the same).
    pub(super) async fn look_up(&self, kind: Kind, namespace: &str, name: &str) -> Result<Option<Value>, Status> {
        match self.look_up_at(kind, namespace, name, Some(0)).await? {
            None if self.shared.shares_store => self.look_up_at(kind, namespace, name, None).await,
            found => Ok(found),
        }
    }

    /// Reads a built-in object for the server itself, at a revision; `None`: the newest.
    pub(super) async fn look_up_at(
        &self,
        kind: Kind,
        namespace: &str,
        name: &str,
        rv: Option<u64>,
    ) -> Result<Option<Value>, Status> {
        let served = self.shared.catalogue.now();
        let KindInfo { group, version, plural, .. } = kind.row();
        let resource = served.by_path(group, version, plural).expect("these are built in");
        let target = Target { kind, namespace: namespace.to_owned(), name: name.to_owned() };
        let reply = self.ask_for_itself(resource, What::Get { target, rv }).await?;
        match reply.result {
            Ok(Answer::Object(object)) => Ok(Some(object)),
            Ok(other) => unreachable!("a read is not answered by {other:?}"),
            Err(status) if status.reason == Reason::NotFound => Ok(None),
            Err(status) => Err(status),
        }
    }

    pub(super) async fn required(&self, kind: Kind, namespace: &str, name: &str) -> Result<Value, Status> {
        let found = self.look_up(kind, namespace, name).await?;
        found.ok_or_else(|| Status::not_found(kind.row(), name))
    }

    /// Issues a token (`serviceaccounts/token`).
    pub(super) async fn request_token(
        &self,
        head: &Head<'_>,
        objects: &Objects,
        body: Incoming,
    ) -> Result<Response<Content>, Status> {
        let (media_type, bytes) = (body::media_type(head.headers), body::read(body).await?);
        let (mut request, _) = body::object(&media_type, &bytes)?;
        for (field, expected) in [("apiVersion", "authentication.k8s.io/v1"), ("kind", "TokenRequest")] {
            match request.get(field).and_then(Value::as_str).unwrap_or_default() {
                "" => {}
                given if given == expected => {}
                given => {
                    let why = format!("the {field} in the data ({given}) does not match the expected one ({expected})");
                    return Err(Status::bad_request(why));
                }
            }
        }
        let Some(fields) = request.as_object_mut() else {
            return Err(Status::bad_request("a TokenRequest is an object"));
        };
        fields.insert("apiVersion".to_owned(), json!("authentication.k8s.io/v1"));
        fields.insert("kind".to_owned(), json!("TokenRequest"));
        let (namespace, name) = (objects.namespace.as_str(), objects.name.as_deref().ok_or_else(not_found)?);
        let account = self.required(Kind::SERVICE_ACCOUNT, namespace, name).await?;
        let mut wanted = Wanted::read(&request["spec"], &self.tokens.audiences)?;
        let node = match &mut wanted.bound {
            Some(bound) => self.bind(namespace, name, bound).await?,
            None => None,
        };
        let for_api_server = wanted.audiences.iter().all(|audience| self.tokens.audiences.contains(audience));
        let account = Reference { name: name.to_owned(), uid: text(&account["metadata"], "uid") };
        let now = self.shared.clock.real_time();
        let claims = Claims::new(&wanted, namespace, account, node, for_api_server, uuid()?, now);
        request["metadata"] = json!({"name": name, "namespace": namespace, "creationTimestamp": now.to_time()});
        request["spec"]["audiences"] = json!(wanted.audiences);
        request["spec"]["expirationSeconds"] = json!(wanted.seconds);
        let ends = now + Duration::from_secs(u64::try_from(wanted.seconds).unwrap_or_default());
        let token = self.tokens.keys.sign(&claims.to_json(&self.tokens.issuer));
        request["status"] = json!({"token": token, "expirationTimestamp": ends.to_time()});
        Ok(reply::value(201, &request, head.accepted.encoding, false))
    }

    /// Finds the object that a token is to be bound to, and fills in its UID; returns the node of a pod.
    async fn bind(&self, namespace: &str, account: &str, bound: &mut Bound) -> Result<Option<Reference>, Status> {
        let Bound { kind, object } = bound;
        let place = if kind.row().namespaced { namespace } else { "" };
        let found = self.required(*kind, place, &object.name).await?;
        let uid = text(&found["metadata"], "uid");
        if *kind == Kind::POD && text(&found["spec"], "serviceAccountName") != account {
            let why = "to pod running with different serviceaccount name.";
            return Err(Status::bad_request(format!("cannot bind token for serviceaccount {account:?} {why}")));
        }
        if !object.uid.is_empty() && object.uid != uid {
            let why = format!(
                "the UID in the bound object reference ({}) does not match the UID in record. The object might have been \
                 deleted and then recreated",
                object.uid
            );
            return Err(Status::conflict(kind.row(), &object.name, &why));
        }
        object.uid = uid;
        let node = text(&found["spec"], "nodeName");
        if *kind != Kind::POD || node.is_empty() {
            return Ok(None);
        }
        let found = self.look_up(Kind::NODE, "", &node).await?;
        let uid = found.map(|found| text(&found["metadata"], "uid")).unwrap_or_default();
        Ok(Some(Reference { name: node, uid }))
    }

    /// The status of a TokenReview.
    pub(super) async fn review_token(&self, spec: &Value) -> Result<Value, Status> {
        let token = spec["token"].as_str().unwrap_or_default();
        if token.is_empty() {
            return Err(Status::bad_request("token is required for TokenReview in authentication"));
        }
        let asked = token::audiences_of("TokenReview", spec)?;
        let audiences = if asked.is_empty() { &self.tokens.audiences } else { &asked };
        Ok(match self.check_token(token, audiences).await {
            Ok((user, audiences)) => json!({"authenticated": true, "user": review::user_info(&user),
                "audiences": audiences}),
            Err(why) => json!({"user": {}, "error": why}),
        })
    }
}

/// A random UUID.
pub fn uuid() -> Result<String, Status> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|e| Status::internal(format!("the system gives no random numbers: {e}")))?;
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]))
}
