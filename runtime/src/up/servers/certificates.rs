//! Certificates of nodes: approves the requests by which an agent asks to be its node, signs them, and deletes requests
//! that are old.
//!
//! Kubernetes does this in three controllers (csrapproving, csrsigning, csrcleaner), for more signers; here it is for
//! `kubernetes.io/kube-apiserver-client-kubelet` only. Every server does it: a write carries the revision that it was
//! decided from, so of two servers one signs and the other is refused.
//!
//! Source: kubernetes `pkg/controller/certificates/{approver,signer,cleaner}`.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rcgen::{CertificateSigningRequestParams, DistinguishedName, DnType, DnValue};
use serde_json::{Value, json};
use skeg_core::api::{Call, DeleteOptions, Precondition, ReqIds, Request, Subresource, ToServer, WriteOptions};
use skeg_core::auth::{Attempt, Authoriser, Resource, User};
use skeg_core::{Mono, Now, Object, ObjectKey, Revision, Wall};

use crate::up::pki::{self, Authority, NODE_USER, NODES};

/// How often the requests are looked at.
pub const INTERVAL: Duration = Duration::from_secs(1);
/// The signer of certificates by which agents are known to API servers.
pub const SIGNER: &str = "kubernetes.io/kube-apiserver-client-kubelet";
/// When a write that has not changed anything is tried again.
const AGAIN: Duration = Duration::from_secs(10);
/// How long a request is kept that is approved or denied (csrcleaner).
const KEPT: Duration = Duration::from_secs(3600);
/// How long one is kept that nobody has decided.
const KEPT_PENDING: Duration = Duration::from_secs(24 * 3600);
/// Shortest time that a certificate is asked for (`expirationSeconds`).
const SHORTEST: Duration = Duration::from_secs(600);

/// Approves and signs.
pub struct Certificates {
    authority: Authority,
    /// `--cluster-signing-duration`: how long a certificate holds at most.
    duration: Duration,
    ids: ReqIds,
    /// The revision of each request for which something was tried, and when.
    tried: BTreeMap<ObjectKey, (Revision, Mono)>,
}

/// What is done about a request.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    /// Approve it, for this reason, and sign it.
    Approve(&'static str),
    /// Sign it: somebody has approved it.
    Sign,
    /// Delete it: it is old.
    Delete,
    /// Nothing, or nothing yet.
    Leave,
}

fn condition<'a>(request: &'a Value, type_: &str) -> Option<&'a Value> {
    let all = request["status"]["conditions"].as_array()?;
    all.iter().find(|condition| condition["type"] == type_ && condition["status"] != "False")
}

fn words(list: &Value) -> impl Iterator<Item = &str> {
    list.as_array().into_iter().flatten().filter_map(Value::as_str)
}

/// The only value of a type in a name, as text.
fn value(name: &DistinguishedName, type_: &DnType) -> Option<String> {
    match name.get(type_)? {
        DnValue::Utf8String(text) => Some(text.clone()),
        DnValue::PrintableString(text) => Some(text.as_str().to_owned()),
        _ => None,
    }
}

/// The certificate that a request asks for.
fn asked(request: &Value) -> Option<CertificateSigningRequestParams> {
    let pem = STANDARD.decode(request["spec"]["request"].as_str()?).ok()?;
    CertificateSigningRequestParams::from_pem(std::str::from_utf8(&pem).ok()?).ok()
}

/// The node's user that a request asks to be, if it is that of a node and asks for nothing else
/// (`ValidateKubeletClientCSR`).
fn node_user(request: &Value) -> Option<String> {
    let asked = asked(request)?;
    let name = &asked.params.distinguished_name;
    let user = value(name, &DnType::CommonName).filter(|user| user.len() > NODE_USER.len())?;
    let is_node = user.starts_with(NODE_USER) && value(name, &DnType::OrganizationName).as_deref() == Some(NODES);
    let mut usages: Vec<&str> = words(&request["spec"]["usages"]).collect();
    usages.sort_unstable();
    let usual = matches!(usages[..], ["client auth", "digital signature"])
        || matches!(usages[..], ["client auth", "digital signature", "key encipherment"]);
    (is_node && usual && asked.params.subject_alt_names.is_empty()).then_some(user)
}

/// Who asks, as the API server has noted it.
fn requester(request: &Value) -> User {
    let spec = &request["spec"];
    let text = |name: &str| spec[name].as_str().unwrap_or_default().to_owned();
    let groups = words(&spec["groups"]).map(str::to_owned).collect();
    User { name: text("username"), uid: text("uid"), groups, ..User::default() }
}

fn decide(request: &Value, authority: &impl Authoriser, age: Duration) -> Verdict {
    let denied = condition(request, "Denied").is_some() || condition(request, "Failed").is_some();
    let approved = condition(request, "Approved").is_some();
    let signed = request["status"]["certificate"].as_str().is_some_and(|certificate| !certificate.is_empty());
    if age > if denied || signed { KEPT } else { KEPT_PENDING } {
        return Verdict::Delete;
    }
    if request["spec"]["signerName"] != SIGNER || denied || signed {
        return Verdict::Leave;
    }
    let Some(node) = node_user(request) else { return Verdict::Leave };
    if approved {
        return Verdict::Sign;
    }
    let user = requester(request);
    let may = |subresource| {
        let (group, resource) = ("certificates.k8s.io", "certificatesigningrequests");
        let attempt = Attempt::at("create", Resource { group, resource, subresource, ..Resource::default() });
        authority.judge(&user, &attempt).allows()
    };
    if user.name == node && may("selfnodeclient") {
        return Verdict::Approve("Auto approving self kubelet client certificate after SubjectAccessReview.");
    }
    if may("nodeclient") {
        return Verdict::Approve("Auto approving kubelet client certificate after SubjectAccessReview.");
    }
    Verdict::Leave
}

impl Certificates {
    /// `duration` is how long a certificate holds at most.
    pub fn new(authority: Authority, duration: Duration) -> Certificates {
        Certificates { authority, duration, ids: ReqIds::new(1), tried: BTreeMap::new() }
    }

    /// Looks at all requests; returns what is to be written.
    pub fn look<'a>(
        &mut self,
        now: Now,
        requests: impl Iterator<Item = (&'a ObjectKey, &'a Object)>,
        authority: &impl Authoriser,
    ) -> Vec<ToServer> {
        let mut calls = Vec::new();
        let mut tried = BTreeMap::new();
        for (key, object) in requests {
            if let Some((rv, at)) = self.tried.get(key)
                && *rv == object.rv()
                && now.mono.since(*at) < AGAIN
            {
                tried.insert(key.clone(), (*rv, *at));
                continue;
            }
            let created = object.meta().creation_timestamp.as_ref().map_or(now.wall, Wall::from_time);
            let request = object.to_json();
            let call = match decide(&request, authority, now.wall.since(created)) {
                Verdict::Leave => continue,
                Verdict::Delete => {
                    let precondition = Precondition { uid: None, rv: Some(object.rv()) };
                    let options = DeleteOptions { precondition, ..DeleteOptions::default() };
                    Call::Delete { key: key.clone(), options }
                }
                Verdict::Approve(why) => self.issue(now, object, request, Some(why)),
                Verdict::Sign => self.issue(now, object, request, None),
            };
            tried.insert(key.clone(), (object.rv(), now.mono));
            calls.push(call);
        }
        self.tried = tried;
        let user = Rc::from("system:serviceaccount:kube-system:certificate-controller");
        calls.into_iter().map(|call| ToServer::Request(self.ids.next(), Request::new(&user, call))).collect()
    }

    /// Writes the certificate into a request, or that it cannot be signed, and the approval if it has none.
    fn issue(&self, now: Now, object: &Object, mut request: Value, approval: Option<&str>) -> Call {
        let time = now.wall.to_time();
        let condition = |type_: &str, reason: &str, message: &str| {
            json!({"type": type_, "status": "True", "reason": reason, "message": message,
                "lastUpdateTime": time, "lastTransitionTime": time})
        };
        let mut added: Vec<Value> =
            approval.map(|why| condition("Approved", "AutoApproved", why)).into_iter().collect();
        let seconds = request["spec"]["expirationSeconds"].as_u64().map(Duration::from_secs);
        let duration = seconds.map_or(self.duration, |asked| asked.max(SHORTEST).min(self.duration));
        let asked = asked(&request).expect("it was read before");
        match pki::sign_node(&self.authority, asked, duration) {
            Ok(certificate) => request["status"]["certificate"] = json!(STANDARD.encode(certificate)),
            Err(why) => added.push(condition("Failed", "SigningError", &why)),
        }
        match request["status"]["conditions"].as_array_mut() {
            Some(conditions) => conditions.append(&mut added),
            None => request["status"]["conditions"] = json!(added),
        }
        let mut next = Object::from_json(request).expect("it was an object before");
        next.set_rv(object.rv());
        Call::Update { object: next, subresource: Subresource::Status, options: WriteOptions::default() }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;
    use rustls::pki_types::CertificateDer;
    use rustls::pki_types::pem::PemObject;
    use serde_json::{Value, json};
    use skeg_core::api::{Call, ToServer};
    use skeg_core::auth::{Authority as Policy, MASTERS, Mode};
    use skeg_core::{Mono, Now, Object, Wall};

    use super::{Certificates, SIGNER, Verdict, decide};
    use crate::up::identity::of_certificate;
    use crate::up::pki::{self, NODES};

    fn request(user: &str, organisation: Option<&str>, change: impl FnOnce(&mut Value)) -> Value {
        let (pem, _) = pki::ask_for(user, organisation).unwrap();
        let mut request = json!({"apiVersion": "certificates.k8s.io/v1", "kind": "CertificateSigningRequest",
            "metadata": {"name": "r", "resourceVersion": "5"},
            "spec": {"request": STANDARD.encode(pem), "signerName": SIGNER, "username": "system:bootstrap:abcdef",
                "usages": ["digital signature", "client auth"]}});
        change(&mut request);
        request
    }

    fn allow(mode: Mode) -> Policy {
        Policy { modes: vec![mode], ..Policy::default() }
    }

    #[test]
    fn only_a_nodes_certificate_is_approved_and_only_for_whom_it_is_allowed() {
        let check = |request: Value, mode: Mode, expect: Verdict| {
            assert_eq!(decide(&request, &allow(mode), Duration::ZERO), expect, "{request}");
        };
        let node = |change: fn(&mut Value)| request("system:node:a", Some(NODES), change);
        let own = "Auto approving self kubelet client certificate after SubjectAccessReview.";
        let other = "Auto approving kubelet client certificate after SubjectAccessReview.";
        check(node(|_| ()), Mode::AlwaysAllow, Verdict::Approve(other));
        check(node(|r| r["spec"]["username"] = json!("system:node:a")), Mode::AlwaysAllow, Verdict::Approve(own));
        check(node(|_| ()), Mode::AlwaysDeny, Verdict::Leave);
        let approve = |r: &mut Value| r["status"] = json!({"conditions": [{"type": "Approved", "status": "True"}]});
        check(node(approve), Mode::AlwaysDeny, Verdict::Sign);
        let deny = |r: &mut Value| r["status"] = json!({"conditions": [{"type": "Denied", "status": "True"}]});
        check(node(deny), Mode::AlwaysAllow, Verdict::Leave);
        check(node(|r| r["status"] = json!({"certificate": "x"})), Mode::AlwaysAllow, Verdict::Leave);
        check(node(|r| r["spec"]["signerName"] = json!("example.com/s")), Mode::AlwaysAllow, Verdict::Leave);
        check(node(|r| r["spec"]["usages"] = json!(["server auth"])), Mode::AlwaysAllow, Verdict::Leave);
        check(node(|r| r["spec"]["request"] = json!("eA==")), Mode::AlwaysAllow, Verdict::Leave);
        check(request("system:node:a", None, |_| ()), Mode::AlwaysAllow, Verdict::Leave);
        check(request("system:node:a", Some("system:masters"), |_| ()), Mode::AlwaysAllow, Verdict::Leave);
        check(request("jane", Some(NODES), |_| ()), Mode::AlwaysAllow, Verdict::Leave);
        check(request("system:node:", Some(NODES), |_| ()), Mode::AlwaysAllow, Verdict::Leave);
        let day = Duration::from_secs(24 * 3600 + 1);
        assert_eq!(decide(&node(|_| ()), &allow(Mode::AlwaysDeny), day), Verdict::Delete);
    }

    #[test]
    fn a_certificate_is_issued_once() {
        let authority = pki::new_authority().unwrap();
        let mut certificates = Certificates::new(authority, Duration::from_secs(3600));
        let object = Object::from_json(request("system:node:a", Some(NODES), |_| ())).unwrap();
        let key = object.key();
        let at = |seconds: u64| Now { mono: Mono(seconds * 1_000_000_000), wall: Wall::default() };
        let policy = allow(Mode::AlwaysAllow);
        let calls = certificates.look(at(0), [(&key, &object)].into_iter(), &policy);
        let [ToServer::Request(_, asked)] = &calls[..] else { panic!("{calls:?}") };
        let Call::Update { object: issued, .. } = &asked.call else { panic!("{asked:?}") };
        assert_eq!(issued.rv(), object.rv());
        let status = issued.to_json()["status"].clone();
        assert_eq!(status["conditions"][0]["type"], "Approved");
        let pem = STANDARD.decode(status["certificate"].as_str().unwrap()).unwrap();
        let user = of_certificate(&CertificateDer::from_pem_slice(&pem).unwrap()).unwrap();
        assert!(user.name == "system:node:a" && user.is_in(NODES) && !user.is_in(MASTERS), "{user:?}");
        assert!(certificates.look(at(1), [(&key, &object)].into_iter(), &policy).is_empty());
        assert_eq!(certificates.look(at(11), [(&key, &object)].into_iter(), &policy).len(), 1, "it may be lost");
    }
}
