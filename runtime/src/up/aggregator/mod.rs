//! Aggregation: which group-versions other servers serve (APIServices), and whether those answer.
//!
//! What this server serves itself has an APIService too, `Local`. On the machines' thread, [`Aggregator`] keeps these,
//! checks the others and publishes what is to be led where; `proxy.rs` passes requests on.
//!
//! Source: kube-aggregator `pkg/controllers/{autoregister,status}`, kubernetes `pkg/controlplane/apiserver`,
//! `pkg/controlplane/controller/{crdregistration,clusterauthenticationtrust}`.

mod availability;
mod local;
pub mod proxy;

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::{Arc, RwLock};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use skeg_core::api::{Call, DeleteOptions, Precondition, ReqIds, Request, Subresource, ToServer, WriteOptions};
use skeg_core::apiserver::ApiServer;
use skeg_core::{Kind, Mono, Now, Object, ObjectKey};

use super::consult::{Reached, slices_of};
use super::pki::{FrontProxy, Pair};
use availability::Condition;

/// How often APIServices are looked at.
pub const INTERVAL: Duration = Duration::from_secs(1);
/// How often a server is asked that has answered (the resync period).
const AGAIN: Duration = Duration::from_secs(30);
/// The ConfigMap by which other servers know this one.
const AUTHENTICATION: &str = "extension-apiserver-authentication";

/// A group-version that another server serves.
#[derive(Clone, PartialEq, Debug)]
pub struct Remote {
    pub group: String,
    pub version: String,
    /// Namespace, name and port of the Service.
    pub service: (String, String, u16),
    /// Certificates by which to trust it, PEM.
    pub ca: Option<String>,
    /// `insecureSkipTLSVerify`.
    pub skips_verification: bool,
    /// Whether the condition `Available` holds.
    pub is_available: bool,
    /// `groupPriorityMinimum` and `versionPriority`.
    pub priority: (i64, i64),
    /// What it serves, as it said last.
    pub found: Found,
}

/// What a server has said of itself.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Found {
    /// The `resources` of its APIResourceList.
    pub resources: Vec<Value>,
    /// Where its OpenAPI document of the group-version is.
    pub openapi: Option<String>,
}

/// The group-versions that other servers serve, for the HTTP threads.
pub type Remotes = Arc<RwLock<Arc<Vec<Remote>>>>;

/// A server that is to be asked whether it serves its group-version.
#[derive(Clone, PartialEq, Debug)]
pub struct Question {
    /// The APIService.
    pub name: String,
    /// `/apis/GROUP/VERSION`.
    pub path: String,
    /// `host:port`.
    pub at: String,
    /// `NAME.NAMESPACE.svc`, for which its certificate must be.
    pub host: String,
    /// See [`Remote`].
    pub ca: Option<String>,
    /// See [`Remote`].
    pub skips_verification: bool,
}

/// What is to be done.
#[derive(Default)]
pub struct Looked {
    /// For the API server.
    pub calls: Vec<ToServer>,
    pub questions: Vec<Question>,
    pub remotes: Vec<Remote>,
}

/// What has been asked of a server.
struct Probe {
    /// What it depends on: if that changes, it is asked again.
    of: String,
    is_under_way: bool,
    due: Mono,
    failures: u32,
    said: Option<Result<(), String>>,
    found: Found,
}

/// Keeps the APIServices.
#[derive(Default)]
pub struct Aggregator {
    front_proxy: Option<FrontProxy>,
    ids: Option<ReqIds>,
    /// Whether every group-version of this server has had an APIService: what a user deletes then stays deleted.
    has_begun: bool,
    /// The APIServices of this server by name, and the generation of the definitions that they were made of.
    wanted: (Option<u64>, Rc<BTreeMap<String, Value>>),
    probes: BTreeMap<String, Probe>,
}

fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// The certificates of `caBundle`, PEM.
fn authorities(spec: &Value) -> Option<String> {
    let pem = STANDARD.decode(text(spec, "/caBundle")).ok().and_then(|pem| String::from_utf8(pem).ok());
    pem.filter(|pem| !pem.is_empty())
}

fn skips_verification(spec: &Value) -> bool {
    spec["insecureSkipTLSVerify"] == true
}

impl Aggregator {
    /// `front_proxy` is by what other servers know this one.
    pub fn new(front_proxy: Option<FrontProxy>) -> Aggregator {
        Aggregator { front_proxy, ids: Some(ReqIds::new(1)), ..Aggregator::default() }
    }

    /// The certificate by which other servers know this one.
    pub fn own_certificate(&self) -> Option<Pair> {
        self.front_proxy.as_ref().map(|front_proxy| front_proxy.client.clone())
    }

    /// Looks at everything; `reach` says where a Service is.
    pub fn look(&mut self, now: Now, api: &ApiServer, reach: &dyn Fn(&str, &str, u16) -> Reached) -> Looked {
        let mut looked = Looked::default();
        let services: Vec<Value> = api.cached(Kind::API_SERVICE).map(|(_, object)| object.to_json()).collect();
        self.register(&services, api, &mut looked);
        self.probes.retain(|name, _| services.iter().any(|service| text(service, "/metadata/name") == name));
        for service in &services {
            self.check(now, service, api, reach, &mut looked);
        }
        self.tell_who_asks(api, &mut looked);
        looked
    }

    /// A server has answered, or has not.
    pub fn answered(&mut self, now: Now, name: &str, said: Result<Found, String>) {
        let Some(probe) = self.probes.get_mut(name) else { return };
        probe.is_under_way = false;
        match said {
            Ok(found) => {
                (probe.found, probe.failures, probe.said) = (found, 0, Some(Ok(())));
                probe.due = now.mono + AGAIN;
            }
            Err(why) => {
                probe.failures = (probe.failures + 1).min(5);
                probe.said = Some(Err(why));
                probe.due = now.mono + Duration::from_secs(1 << probe.failures).min(AGAIN);
            }
        }
    }

    fn call(&mut self, call: Call, looked: &mut Looked) {
        let user = Rc::from("system:apiserver");
        let id = self.ids.get_or_insert_with(|| ReqIds::new(1)).next();
        looked.calls.push(ToServer::Request(id, Request::new(&user, call)));
    }

    fn create(&mut self, value: Value, looked: &mut Looked) {
        let object = Object::from_json(value).expect("what is made here is well-formed");
        self.call(Call::Create { object, options: WriteOptions::default() }, looked);
    }

    fn update(&mut self, value: Value, subresource: Subresource, looked: &mut Looked) {
        // What is in the cache can be read; if it has changed meanwhile, its revision has too.
        let Ok(object) = Object::from_json(value) else { return };
        self.call(Call::Update { object, subresource, options: WriteOptions::default() }, looked);
    }

    /// Keeps an APIService for each group-version of this server (autoregister).
    fn register(&mut self, services: &[Value], api: &ApiServer, looked: &mut Looked) {
        let generation = api.definitions_generation();
        if self.wanted.0 != Some(generation) {
            let definitions = api.cached(Kind::CUSTOM_RESOURCE_DEFINITION).map(|(_, object)| object.to_json());
            self.wanted = (Some(generation), Rc::new(local::wanted(definitions)));
        }
        let wanted = Rc::clone(&self.wanted.1);
        let find = |name: &str| services.iter().find(|service| text(service, "/metadata/name") == name);
        let mut is_complete = true;
        for (name, want) in &*wanted {
            let managed = &want["metadata"]["labels"][local::MANAGED];
            match find(name) {
                None if self.has_begun && managed == "onstart" => {}
                None => {
                    is_complete = false;
                    self.create(want.clone(), looked);
                }
                Some(held) if held["metadata"]["labels"].get(local::MANAGED).is_none() => {}
                Some(held) if held["spec"] == want["spec"] => {}
                Some(held) => {
                    let mut next = held.clone();
                    next["spec"] = want["spec"].clone();
                    self.update(next, Subresource::None, looked);
                }
            }
        }
        for held in services {
            let name = text(held, "/metadata/name");
            let managed = held["metadata"]["labels"].get(local::MANAGED).and_then(Value::as_str);
            let is_gone = managed == Some("true") || managed == Some("onstart") && !self.has_begun;
            if is_gone && !wanted.contains_key(name) {
                let uid = Some(Rc::from(text(held, "/metadata/uid")));
                let options =
                    DeleteOptions { precondition: Precondition { uid, rv: None }, ..DeleteOptions::default() };
                self.call(Call::Delete { key: ObjectKey::new(Kind::API_SERVICE, "", name), options }, looked);
            }
        }
        self.has_begun |= is_complete;
    }

    /// Checks whether an APIService is available, and publishes it if another server serves it.
    fn check(
        &mut self,
        now: Now,
        held: &Value,
        api: &ApiServer,
        reach: &dyn Fn(&str, &str, u16) -> Reached,
        looked: &mut Looked,
    ) {
        let (name, spec) = (text(held, "/metadata/name"), &held["spec"]);
        let service = spec.get("service").filter(|service| !service.is_null());
        let Some(service) = service else {
            return self.tell(now, held, &Condition::local(), looked);
        };
        let (namespace, target) = (text(service, "/namespace").to_owned(), text(service, "/name").to_owned());
        let port = service["port"].as_u64().and_then(|port| u16::try_from(port).ok()).unwrap_or(443);
        let key = ObjectKey::new(Kind::SERVICE, &namespace, &target);
        let found = api.cached_object(&key).map(Object::to_json);
        let slices: Vec<Value> = slices_of(api, &namespace, &target).collect();
        let condition = match availability::before_asking((&namespace, &target, port), found.as_ref(), &slices) {
            Err(condition) => {
                self.probes.remove(name);
                Some(condition)
            }
            Ok(()) => self.probe(now, name, spec, reach(&namespace, &target, port), looked),
        };
        if let Some(condition) = condition {
            self.tell(now, held, &condition, looked);
        }
        let conditions = held["status"]["conditions"].as_array().into_iter().flatten();
        let is_available = conditions.into_iter().any(|c| c["type"] == "Available" && c["status"] == "True");
        let priority = |name: &str| spec[name].as_i64().unwrap_or(0);
        looked.remotes.push(Remote {
            group: text(spec, "/group").to_owned(),
            version: text(spec, "/version").to_owned(),
            service: (namespace, target, port),
            ca: authorities(spec),
            skips_verification: skips_verification(spec),
            is_available,
            priority: (priority("groupPriorityMinimum"), priority("versionPriority")),
            found: self.probes.get(name).map(|probe| probe.found.clone()).unwrap_or_default(),
        });
    }

    /// What a server has answered; it is asked if that is due.
    fn probe(
        &mut self,
        now: Now,
        name: &str,
        spec: &Value,
        reached: Reached,
        looked: &mut Looked,
    ) -> Option<Condition> {
        let of = format!("{reached:?} {spec}");
        let begin = || Probe {
            of: of.clone(),
            is_under_way: false,
            due: now.mono,
            failures: 0,
            said: None,
            found: Found::default(),
        };
        let probe = self.probes.entry(name.to_owned()).or_insert_with(begin);
        if probe.of != of && !probe.is_under_way {
            *probe = Probe { found: std::mem::take(&mut probe.found), ..begin() };
        }
        if now.mono >= probe.due && !probe.is_under_way {
            let path = availability::path(spec);
            match reached {
                Ok(at) => {
                    probe.is_under_way = true;
                    let service = |field: &str| text(spec, &format!("/service/{field}"));
                    let host = format!("{}.{}.svc", service("name"), service("namespace"));
                    let (ca, skips_verification) = (authorities(spec), skips_verification(spec));
                    looked.questions.push(Question { name: name.to_owned(), path, at, host, ca, skips_verification });
                }
                Err(why) => {
                    probe.said = Some(Err(why));
                    probe.due = now.mono + AGAIN;
                }
            }
        }
        Some(match probe.said.as_ref()? {
            Ok(()) => Condition::passed(),
            Err(why) => Condition::failed("FailedDiscoveryCheck", why.clone()),
        })
    }

    /// Writes a condition that has changed.
    fn tell(&mut self, now: Now, held: &Value, condition: &Condition, looked: &mut Looked) {
        if let Some(status) = condition.applied(&held["status"], now.wall) {
            let mut next = held.clone();
            next["status"] = status;
            self.update(next, Subresource::Status, looked);
        }
    }

    /// Keeps the ConfigMap by which other servers know who asks, and whom to believe.
    fn tell_who_asks(&mut self, api: &ApiServer, looked: &mut Looked) {
        let Some(front_proxy) = self.front_proxy.clone() else { return };
        let key = ObjectKey::new(Kind::CONFIG_MAP, "kube-system", AUTHENTICATION);
        match api.cached_object(&key).map(Object::to_json) {
            None => {
                let data = authentication(&front_proxy, &Value::Null);
                self.create(
                    json!({"apiVersion": "v1", "kind": "ConfigMap", "data": data,
                        "metadata": {"name": AUTHENTICATION, "namespace": "kube-system"}}),
                    looked,
                );
            }
            Some(mut held) => {
                let data = authentication(&front_proxy, &held["data"]);
                if data != held["data"] {
                    held["data"] = data;
                    self.update(held, Subresource::None, looked);
                }
            }
        }
    }
}

/// The data of that ConfigMap: the authorities of all servers are in it.
fn authentication(front_proxy: &FrontProxy, held: &Value) -> Value {
    let mut data = match held {
        Value::Object(_) => held.clone(),
        _ => json!({}),
    };
    for (field, own) in
        [("client-ca-file", &front_proxy.client_ca_pem), ("requestheader-client-ca-file", &front_proxy.ca_pem)]
    {
        let known = data[field].as_str().unwrap_or_default();
        if own.is_empty() {
            continue;
        }
        if !known.contains(own.trim()) {
            let separator = if known.is_empty() || known.ends_with('\n') { "" } else { "\n" };
            data[field] = json!(format!("{known}{separator}{own}"));
        }
    }
    for (field, list) in [
        ("requestheader-allowed-names", proxy::CLIENT),
        ("requestheader-extra-headers-prefix", "X-Remote-Extra-"),
        ("requestheader-group-headers", "X-Remote-Group"),
        ("requestheader-uid-headers", "X-Remote-Uid"),
        ("requestheader-username-headers", "X-Remote-User"),
    ] {
        data[field] = json!(json!([list]).to_string());
    }
    data
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{FrontProxy, authentication};
    use crate::up::pki;

    #[test]
    fn the_authorities_of_all_servers_are_told() {
        let front_proxy = |ca: &str| FrontProxy {
            client_ca_pem: "clients\n".to_owned(),
            ca_pem: ca.to_owned(),
            client: pki::generate(&[]).unwrap().admin,
        };
        let first = authentication(&front_proxy("one\n"), &json!(null));
        assert_eq!(first["requestheader-client-ca-file"], "one\n");
        assert_eq!(first["requestheader-allowed-names"], "[\"front-proxy-client\"]");
        let both = authentication(&front_proxy("two\n"), &first);
        assert_eq!(both["requestheader-client-ca-file"], "one\ntwo\n");
        assert_eq!(both["client-ca-file"], "clients\n");
        assert_eq!(authentication(&front_proxy("one\n"), &both), both);
    }
}
