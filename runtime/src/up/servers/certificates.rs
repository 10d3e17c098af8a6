//! Certificates of nodes: approves the requests by which an agent asks to be its node, or to serve its port, signs
//! them, and deletes requests that are old.
//!
//! Kubernetes does this in three controllers (csrapproving, csrsigning, csrcleaner), for more signers; here it is for
//! `kubernetes.io/kube-apiserver-client-kubelet` and `kubernetes.io/kubelet-serving`. The latter's requests Kubernetes
//! leaves to an administrator; here they are approved if the node itself asks, and for addresses that it has. Every
//! server does it: a write carries the revision that it was decided from, so of two servers one signs and the other is
//! refused. A request is approved by one write and signed by the next: the API server lets nobody approve who signs.
//!
//! Source: kubernetes `pkg/controller/certificates/{approver,signer,cleaner}`.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::rc::Rc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rcgen::{CertificateSigningRequestParams, DistinguishedName, DnType, DnValue, SanType};
use serde_json::{Value, json};
use skeg_core::api::{Call, DeleteOptions, Precondition, ReqIds, Request, Subresource, ToServer, WriteOptions};
use skeg_core::auth::{Attempt, Authoriser, Resource, User};
use skeg_core::{Mono, Now, Object, ObjectKey, Revision, Wall};

use crate::up::pki::{self, Authority, NODE_USER, NODES, Use};
use crate::up::proxy::overlap;

/// How often the requests are looked at.
pub const INTERVAL: Duration = Duration::from_secs(1);
/// The signer of certificates by which agents are known to API servers.
pub const SIGNER: &str = "kubernetes.io/kube-apiserver-client-kubelet";
/// The signer of certificates by which the ports of agents are known to API servers.
pub const SERVING: &str = "kubernetes.io/kubelet-serving";
/// When a request is looked at again that has not changed: a write may be lost, or its requester be allowed more.
const AGAIN: Duration = Duration::from_secs(10);
/// How long a request is kept after it was approved and signed, denied, or has failed (csrcleaner).
const KEPT: Duration = Duration::from_secs(3600);
/// How long one is kept after its creation that nobody has decided.
const KEPT_PENDING: Duration = Duration::from_secs(24 * 3600);
/// Shortest time that a certificate is asked for (`expirationSeconds`).
const SHORTEST: Duration = Duration::from_secs(600);

/// Approves and signs.
pub struct Certificates {
    authority: Authority,
    /// `--cluster-signing-duration`: how long a certificate holds at most.
    duration: Duration,
    ids: ReqIds,
    /// The revision of each request as it was looked at last, and when.
    looked_at: BTreeMap<ObjectKey, (Revision, Mono)>,
}

/// What is done about a request.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    /// Approve it, for this reason.
    Approve(&'static str),
    /// Sign it: it is approved.
    Sign,
    /// Delete it: it is old.
    Delete,
    /// Nothing, or nothing yet.
    Leave,
}

fn conditions(request: &Value) -> impl Iterator<Item = &Value> {
    request["status"]["conditions"].as_array().into_iter().flatten()
}

fn condition<'a>(request: &'a Value, type_: &str) -> Option<&'a Value> {
    conditions(request).find(|condition| condition["type"] == type_ && condition["status"] != "False")
}

/// What a request was granted, PEM.
fn certificate(request: &Value) -> Option<Vec<u8>> {
    let text = request["status"]["certificate"].as_str().filter(|text| !text.is_empty())?;
    Some(STANDARD.decode(text).unwrap_or_default())
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

/// The node's user that a request is about, if its name is that of a node and it is for these usages, with or without
/// `key encipherment`.
fn node_user(request: &Value, asked: &CertificateSigningRequestParams, usage: &str) -> Option<String> {
    let name = &asked.params.distinguished_name;
    let user = value(name, &DnType::CommonName).filter(|user| user.len() > NODE_USER.len())?;
    let is_node = user.starts_with(NODE_USER) && value(name, &DnType::OrganizationName).as_deref() == Some(NODES);
    let mut usages: Vec<&str> =
        words(&request["spec"]["usages"]).filter(|usage| *usage != "key encipherment").collect();
    usages.sort_unstable();
    let mut usual = ["digital signature", usage];
    usual.sort_unstable();
    (is_node && usages == usual).then_some(user)
}

/// The node's user that a request asks to be, if it asks for nothing else (`ValidateKubeletClientCSR`).
fn client(request: &Value) -> Option<String> {
    let asked = asked(request).filter(|asked| asked.params.subject_alt_names.is_empty())?;
    node_user(request, &asked, "client auth")
}

/// The node's user for whose port a certificate is asked for, and the names and addresses in it
/// (`ValidateKubeletServingCSR`).
fn serving(request: &Value) -> Option<(String, Vec<String>)> {
    let asked = asked(request)?;
    let name = |name: &SanType| match name {
        // A node says itself by which names it is known, and might say a server's.
        SanType::IpAddress(ip) => Some(ip.to_string()),
        _ => None,
    };
    let names: Option<Vec<String>> = asked.params.subject_alt_names.iter().map(name).collect();
    Some((node_user(request, &asked, "server auth")?, names.filter(|names| !names.is_empty())?))
}

/// Who asks, as the API server has noted it.
fn requester(request: &Value) -> User {
    let spec = &request["spec"];
    let text = |name: &str| spec[name].as_str().unwrap_or_default().to_owned();
    let groups = words(&spec["groups"]).map(str::to_owned).collect();
    User { name: text("username"), uid: text("uid"), groups, ..User::default() }
}

/// Whether a request is so old that it is deleted.
fn is_old(request: &Value, now: Wall) -> bool {
    let passed = |time: &Value, after: Duration| {
        let time = serde_json::from_value(time.clone());
        time.is_ok_and(|time| now.since(Wall::from_time(&time)) > after)
    };
    let signed = certificate(request);
    let expired = || signed.as_deref().and_then(pki::end).is_some_and(|end| end < now);
    let mut conditions = conditions(request).peekable();
    if conditions.peek().is_none() {
        return passed(&request["metadata"]["creationTimestamp"], KEPT_PENDING);
    }
    conditions.any(|condition| match condition["type"].as_str() {
        Some("Denied" | "Failed") => passed(&condition["lastUpdateTime"], KEPT),
        Some("Approved") => signed.is_some() && (passed(&condition["lastUpdateTime"], KEPT) || expired()),
        _ => false,
    })
}

/// `addresses` are those of a node, by its name.
fn decide(request: &Value, authority: &impl Authoriser, addresses: &dyn Fn(&str) -> Vec<String>, now: Wall) -> Verdict {
    if is_old(request, now) {
        return Verdict::Delete;
    }
    let denied = condition(request, "Denied").is_some() || condition(request, "Failed").is_some();
    let approved = condition(request, "Approved").is_some();
    let signed = certificate(request).is_some();
    if denied || signed {
        return Verdict::Leave;
    }
    let user = requester(request);
    if request["spec"]["signerName"] == SERVING {
        let Some((node, names)) = serving(request) else { return Verdict::Leave };
        let own = addresses(&node[NODE_USER.len()..]);
        let is_own = user.name == node && user.is_in(NODES) && names.iter().all(|name| own.contains(name));
        return match (approved, is_own) {
            (true, _) => Verdict::Sign,
            (false, true) => {
                Verdict::Approve("Auto approving kubelet serving certificate of the node's own addresses.")
            }
            (false, false) => Verdict::Leave,
        };
    }
    let Some(node) = client(request).filter(|_| request["spec"]["signerName"] == SIGNER) else {
        return Verdict::Leave;
    };
    if approved {
        return Verdict::Sign;
    }
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

/// Whether an address may be that of a host's port. A node says itself which addresses it has: one of a Service, such
/// as the API's, it cannot have.
pub fn is_of_a_host(address: &str, services: (Ipv4Addr, u8)) -> bool {
    match address.parse().map(|ip: IpAddr| ip.to_canonical()) {
        Ok(IpAddr::V4(ip)) => !ip.is_loopback() && !ip.is_unspecified() && !overlap((ip, 32), services),
        Ok(IpAddr::V6(ip)) => !ip.is_loopback() && !ip.is_unspecified(),
        Err(_) => false,
    }
}

impl Certificates {
    /// `duration` is how long a certificate holds at most.
    pub fn new(authority: Authority, duration: Duration) -> Certificates {
        Certificates { authority, duration, ids: ReqIds::new(1), looked_at: BTreeMap::new() }
    }

    /// Looks at all requests; returns what is to be written. `addresses` are those of a node, by its name.
    pub fn look<'a>(
        &mut self,
        now: Now,
        requests: impl Iterator<Item = (&'a ObjectKey, &'a Object)>,
        authority: &impl Authoriser,
        addresses: &dyn Fn(&str) -> Vec<String>,
    ) -> Vec<ToServer> {
        let (mut calls, mut looked_at) = (Vec::new(), BTreeMap::new());
        for (key, object) in requests {
            if let Some((rv, at)) = self.looked_at.get(key)
                && *rv == object.rv()
                && now.mono.since(*at) < AGAIN
            {
                looked_at.insert(key.clone(), (*rv, *at));
                continue;
            }
            looked_at.insert(key.clone(), (object.rv(), now.mono));
            let request = object.to_json();
            calls.extend(match decide(&request, authority, addresses, now.wall) {
                Verdict::Leave => None,
                Verdict::Delete => {
                    let precondition = Precondition { uid: None, rv: Some(object.rv()) };
                    let options = DeleteOptions { precondition, ..DeleteOptions::default() };
                    Some(Call::Delete { key: key.clone(), options })
                }
                Verdict::Approve(why) => {
                    let added = Some(condition_of(now, "Approved", "AutoApproved", why));
                    Some(update(object, request, added, Subresource::Approval))
                }
                Verdict::Sign => Some(self.sign(now, object, request)),
            });
        }
        self.looked_at = looked_at;
        let user = Rc::from("system:serviceaccount:kube-system:certificate-controller");
        calls.into_iter().map(|call| ToServer::Request(self.ids.next(), Request::new(&user, call))).collect()
    }

    /// Writes the certificate into a request, or that it cannot be signed.
    fn sign(&self, now: Now, object: &Object, mut request: Value) -> Call {
        let seconds = request["spec"]["expirationSeconds"].as_u64().map(Duration::from_secs);
        let duration = seconds.map_or(self.duration, |asked| asked.max(SHORTEST).min(self.duration));
        let asked = asked(&request).expect("it was read before");
        let what = if request["spec"]["signerName"] == SERVING { Use::Server } else { Use::Client };
        let failed = match pki::sign_node(&self.authority, asked, duration, what) {
            Ok(certificate) => {
                request["status"]["certificate"] = json!(STANDARD.encode(certificate));
                None
            }
            Err(why) => Some(condition_of(now, "Failed", "SigningError", &why)),
        };
        update(object, request, failed, Subresource::Status)
    }
}

fn condition_of(now: Now, type_: &str, reason: &str, message: &str) -> Value {
    let time = now.wall.to_time();
    json!({"type": type_, "status": "True", "reason": reason, "message": message,
        "lastUpdateTime": time, "lastTransitionTime": time})
}

/// Writes a request as it was changed, with one more condition.
fn update(object: &Object, mut request: Value, added: Option<Value>, subresource: Subresource) -> Call {
    if request["status"]["conditions"].is_null() {
        request["status"]["conditions"] = json!([]);
    }
    request["status"]["conditions"].as_array_mut().expect("the API server has seen to it").extend(added);
    let mut next = Object::from_json(request).expect("it was an object before");
    next.set_rv(object.rv());
    Call::Update { object: next, subresource, options: WriteOptions::default() }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;
    use rcgen::CertificateSigningRequestParams;
    use rustls::pki_types::CertificateDer;
    use rustls::pki_types::pem::PemObject;
    use serde_json::{Value, json};
    use skeg_core::api::{Call, Subresource, ToServer};
    use skeg_core::auth::{Authority as Policy, MASTERS, Mode};
    use skeg_core::{Mono, Now, Object, Revision, Wall};

    use super::{Certificates, SERVING, SIGNER, Verdict, decide, is_of_a_host};
    use crate::up::identity::of_certificate;
    use crate::up::pki::{self, NODES, Use};

    #[test]
    fn a_node_has_no_address_of_a_service() {
        let services = ([10, 96, 0, 0].into(), 12);
        for (address, expect) in [
            ("192.0.2.7", true),
            ("10.95.255.255", true),
            ("10.96.0.1", false),
            ("::ffff:10.96.0.1", false),
            ("127.0.0.1", false),
            ("::1", false),
            ("2001:db8::1", true),
            ("web", false),
        ] {
            assert_eq!(is_of_a_host(address, services), expect, "{address}");
        }
    }

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
            assert_eq!(decide(&request, &allow(mode), &|_| Vec::new(), Wall::default()), expect, "{request}");
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
    }

    #[test]
    fn only_a_node_itself_serves_at_its_addresses() {
        let (pem, _) = pki::ask_to_serve("system:node:a", NODES, [10, 0, 0, 7].into()).unwrap();
        let check = |expect: Verdict, addresses: &[&str], change: fn(&mut Value)| {
            let mut request = request("system:node:a", Some(NODES), |r| {
                r["spec"]["request"] = json!(STANDARD.encode(&pem));
                r["spec"]["signerName"] = json!(SERVING);
                r["spec"]["usages"] = json!(["digital signature", "server auth"]);
                r["spec"]["username"] = json!("system:node:a");
                r["spec"]["groups"] = json!([NODES]);
            });
            change(&mut request);
            let of = |node: &str| {
                assert_eq!(node, "a");
                addresses.iter().map(|address| (*address).to_owned()).collect()
            };
            let got = decide(&request, &allow(Mode::AlwaysAllow), &of, Wall::default());
            assert_eq!(got, expect, "{addresses:?} {request}");
        };
        let approve = || Verdict::Approve("Auto approving kubelet serving certificate of the node's own addresses.");
        check(approve(), &["a", "10.0.0.7"], |_| ());
        check(Verdict::Leave, &["a", "10.0.0.8"], |_| ());
        check(Verdict::Leave, &["10.0.0.7"], |r| r["spec"]["username"] = json!("system:node:b"));
        check(Verdict::Leave, &["10.0.0.7"], |r| r["spec"]["groups"] = json!([]));
        check(Verdict::Leave, &["10.0.0.7"], |r| r["spec"]["usages"] = json!(["digital signature", "client auth"]));
        check(Verdict::Leave, &["10.0.0.7"], |r| r["spec"]["signerName"] = json!(SIGNER));
        let approved = |r: &mut Value| r["status"] = json!({"conditions": [{"type": "Approved", "status": "True"}]});
        check(Verdict::Sign, &[], approved);
    }

    #[test]
    fn what_is_old_is_deleted() {
        const HOUR: i64 = 3600;
        let now = Wall(100 * HOUR * 1_000_000);
        let check = |age: i64, status: Value, expect: Verdict| {
            let ago = |seconds: i64| Wall(now.0 - seconds * 1_000_000).to_time();
            let request = request("system:node:a", Some(NODES), |r| {
                r["metadata"]["creationTimestamp"] = json!(ago(age));
                r["status"] = status;
                for condition in r["status"]["conditions"].as_array_mut().into_iter().flatten() {
                    condition["lastUpdateTime"] = json!(ago(condition["ago"].take().as_i64().unwrap()));
                }
            });
            assert_eq!(
                decide(&request, &allow(Mode::AlwaysDeny), &|_| Vec::new(), now),
                expect,
                "{age}: {}",
                request["status"]
            );
        };
        let condition = |type_: &str, ago: i64| json!([{"type": type_, "status": "True", "ago": ago}]);
        check(24 * HOUR - 1, Value::Null, Verdict::Leave);
        check(24 * HOUR + 1, Value::Null, Verdict::Delete);
        for type_ in ["Denied", "Failed"] {
            check(50 * HOUR, json!({"conditions": condition(type_, HOUR - 1)}), Verdict::Leave);
            check(50 * HOUR, json!({"conditions": condition(type_, HOUR + 1)}), Verdict::Delete);
        }
        // The certificate is no certificate, so it does not end.
        let signed = |ago: i64| json!({"conditions": condition("Approved", ago), "certificate": "eA=="});
        check(50 * HOUR, signed(HOUR - 1), Verdict::Leave);
        check(50 * HOUR, signed(HOUR + 1), Verdict::Delete);
        check(50 * HOUR, json!({"conditions": condition("Approved", 30 * HOUR)}), Verdict::Sign);
        let (pem, _) = pki::ask_for("system:node:a", Some(NODES)).unwrap();
        let asked = CertificateSigningRequestParams::from_pem(&pem).unwrap();
        let ended = pki::sign_node(&pki::new_authority().unwrap(), asked, Duration::ZERO, Use::Client).unwrap();
        let end = pki::end(ended.as_bytes()).unwrap();
        let request = request("system:node:a", Some(NODES), |r| {
            let time = end.to_time();
            r["status"] = json!({"certificate": STANDARD.encode(&ended),
                "conditions": [{"type": "Approved", "status": "True", "lastUpdateTime": time}]});
        });
        assert_eq!(decide(&request, &allow(Mode::AlwaysDeny), &|_| Vec::new(), end), Verdict::Leave);
        assert_eq!(
            decide(&request, &allow(Mode::AlwaysDeny), &|_| Vec::new(), end + Duration::from_secs(1)),
            Verdict::Delete
        );
    }

    /// The one update among what is to be written.
    fn written(calls: &[ToServer]) -> (&Object, Subresource) {
        let [ToServer::Request(_, asked)] = calls else { panic!("{calls:?}") };
        let Call::Update { object, subresource, .. } = &asked.call else { panic!("{asked:?}") };
        (object, *subresource)
    }

    #[test]
    fn a_request_is_approved_and_then_signed() {
        let authority = pki::new_authority().unwrap();
        let mut certificates = Certificates::new(authority, Duration::from_secs(3600));
        let asked = Object::from_json(request("system:node:a", Some(NODES), |_| ())).unwrap();
        let key = asked.key();
        let at = |seconds: u64| Now { mono: Mono(seconds * 1_000_000_000), wall: Wall::default() };
        let policy = allow(Mode::AlwaysAllow);
        let mut look = |seconds, object: &Object| {
            certificates.look(at(seconds), [(&key, object)].into_iter(), &policy, &|_| Vec::new())
        };
        let calls = look(0, &asked);
        let (approved, subresource) = written(&calls);
        assert_eq!((approved.rv(), subresource), (asked.rv(), Subresource::Approval));
        let status = approved.to_json()["status"].clone();
        assert!(status["conditions"][0]["type"] == "Approved" && status["certificate"].is_null(), "{status}");
        assert!(look(1, &asked).is_empty());
        assert_eq!(look(11, &asked).len(), 1, "it may be lost");
        let mut approved = approved.clone();
        approved.set_rv(Revision(6));
        let calls = look(12, &approved);
        let (signed, subresource) = written(&calls);
        assert_eq!((signed.rv(), subresource), (Revision(6), Subresource::Status));
        let status = signed.to_json()["status"].clone();
        assert_eq!(status["conditions"], approved.to_json()["status"]["conditions"]);
        let pem = STANDARD.decode(status["certificate"].as_str().unwrap()).unwrap();
        let user = of_certificate(&CertificateDer::from_pem_slice(&pem).unwrap()).unwrap();
        assert!(user.name == "system:node:a" && user.is_in(NODES) && !user.is_in(MASTERS), "{user:?}");
    }

    #[test]
    fn what_is_undecided_is_not_looked_at_all_the_time() {
        let authority = pki::new_authority().unwrap();
        let mut certificates = Certificates::new(authority, Duration::from_secs(3600));
        let object = Object::from_json(request("system:node:a", Some(NODES), |_| ())).unwrap();
        let key = object.key();
        let mut look = |seconds: u64, mode| {
            let now = Now { mono: Mono(seconds * 1_000_000_000), wall: Wall::default() };
            certificates.look(now, [(&key, &object)].into_iter(), &allow(mode), &|_| Vec::new()).len()
        };
        assert_eq!(look(0, Mode::AlwaysDeny), 0);
        assert_eq!(look(9, Mode::AlwaysAllow), 0);
        assert_eq!(look(10, Mode::AlwaysAllow), 1, "its requester may be allowed meanwhile");
    }
}
