//! The objects that pods refer to: ConfigMaps and Secrets in environments and volumes, and claims. Each is read when
//! the first pod needs it, and again when the cached copy is too old, as with the kubelet's watch strategy `Cache`. A
//! container is never created, and a volume never mounted, before the objects that it needs exist, unless they are
//! optional, and its claims are bound.
//!
//! A pod without references costs nothing here. Drivers of real runtimes find here what to pass to containers.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use k8s_openapi::api::core::v1 as core_v1;
use serde_json::Value;

use super::Out;
use super::runtime::PullSecret;
use crate::api::{Call, Reason, ReqId, ReqIds, Request, Response, Status, ToServer};
use crate::controllers::root_ca;
use crate::limits::REQUEST_TIMEOUT;
use crate::machine::{Mono, Now};
use crate::object::{Kind, Object, ObjectKey};
use crate::resource_claim;
use crate::volume;

/// How long a cached object is valid.
const FRESH: Duration = Duration::from_secs(60);
/// How long the absence of an object is cached.
const MISSING: Duration = Duration::from_secs(1);
/// How long what is read for one pod is cached: no longer than it takes to tell the pod.
const ONCE: Duration = Duration::from_millis(1);
/// Delay after a failed request.
const PAUSE: Duration = Duration::from_secs(1);

/// The cached state of one object.
#[derive(Debug, Default)]
struct Entry {
    /// The result of the last read; `Some(None)`: the object did not exist.
    seen: Option<Option<Object>>,
    at: Mono,
    /// The request in flight and its deadline.
    asked: Option<(ReqId, Mono)>,
    /// Whether a pod has asked since its users were last told to ask again. What nobody waits for is not due.
    wanted: bool,
    not_before: Mono,
    /// Slots of the pods that wait for it or use it.
    users: BTreeSet<u32>,
}

/// Every object that a pod of the node refers to.
#[derive(Debug)]
pub(super) struct References {
    /// Whether pods also wait for what every namespace has: real containers read it.
    strict: bool,
    user: Rc<str>,
    ids: ReqIds,
    entries: BTreeMap<ObjectKey, Entry>,
    /// When `handle_timeout` is next needed: a request times out or may be retried.
    next: Option<Mono>,
}

impl References {
    pub(super) fn new(user: Rc<str>, part: u16, strict: bool) -> References {
        References { strict, user, ids: ReqIds::new(part), entries: BTreeMap::new(), next: None }
    }

    /// Whether it is known if the object exists. If not, requests it.
    pub(super) fn ask(&mut self, key: &ObjectKey, slot: u32, now: Now, out: &mut Vec<Out>) -> bool {
        let entry = self.entries.entry(key.clone()).or_default();
        entry.users.insert(slot);
        let good_for = match &entry.seen {
            // A claim that cannot be used yet may be bound at any time.
            Some(Some(object)) if claim_trouble(object).is_some() => MISSING,
            // Which pods may use a claim for devices changes with each of them: it is read for each.
            Some(Some(object)) if object.kind() == Kind::RESOURCE_CLAIM => ONCE,
            Some(Some(_)) => FRESH,
            Some(None) => MISSING,
            None => Duration::ZERO,
        };
        if entry.seen.is_some() && now.mono.since(entry.at) < good_for {
            return true;
        }
        entry.wanted = true;
        if entry.asked.is_none() && entry.not_before <= now.mono {
            let id = self.ids.next();
            entry.asked = Some((id, now.mono + REQUEST_TIMEOUT));
            let call = Call::Get { key: key.clone(), rv: None };
            out.push(Out::Api(ToServer::Request(id, Request::new(&self.user, call))));
        }
        self.schedule();
        false
    }

    /// The unique name of the volume of a bound claim, if it has to be attached to the node; the error is that there is
    /// no such volume. `None` if that is not known yet; then it is asked for, one object after the other.
    pub(super) fn attachable(
        &mut self,
        claim: &ObjectKey,
        slot: u32,
        now: Now,
        out: &mut Vec<Out>,
    ) -> Option<Result<Option<String>, String>> {
        let name = volume::text(self.seen(claim)?, "/spec/volumeName");
        let key = ObjectKey::new(Kind::PERSISTENT_VOLUME, "", name);
        if !self.ask(&key, slot, now, out) {
            return None;
        }
        let Some(volume) = self.seen(&key).cloned() else {
            let name = key.name();
            return Some(Err(format!(
                "failed to fetch PV {name} from API server: persistentvolumes {name:?} not found"
            )));
        };
        let Some(driver) = volume::csi_driver(&volume) else { return Some(Ok(None)) };
        let driver = ObjectKey::new(Kind::CSI_DRIVER, "", driver);
        if !self.ask(&driver, slot, now, out) {
            return None;
        }
        let needs_none = self.seen(&driver).is_some_and(|driver| !volume::requires_attachment(driver));
        Some(Ok(volume::unique_name(&volume).filter(|_| !needs_none)))
    }

    /// The result of the last read, however old.
    pub(super) fn seen(&self, key: &ObjectKey) -> Option<&Object> {
        self.entries.get(key)?.seen.as_ref()?.as_ref()
    }

    /// The keys of a ConfigMap or Secret with their values, as it was last read; none if it did not exist.
    pub(super) fn entries(&self, key: &ObjectKey) -> Vec<(String, Vec<u8>)> {
        let Some(Object::Dynamic(object)) = self.seen(key) else { return Vec::new() };
        let of = |field: &str, encoded: bool| -> Vec<(String, Vec<u8>)> {
            let map = object.body.get(field).and_then(Value::as_object).into_iter().flatten();
            let bytes = |text: &str| match encoded {
                true => STANDARD.decode(text).unwrap_or_default(),
                false => text.as_bytes().to_vec(),
            };
            map.filter_map(|(k, v)| Some((k.clone(), bytes(v.as_str()?)))).collect()
        };
        let secret = key.kind == Kind::SECRET;
        let mut all = of("data", secret);
        all.extend(of("binaryData", true));
        all
    }

    /// What a Secret says to registries, as it was last read; `None` if it says nothing to them, or does not exist.
    pub(super) fn pull_secret(&self, key: &ObjectKey) -> Option<PullSecret> {
        let Object::Dynamic(object) = self.seen(key)? else { return None };
        let (is_dockercfg, entry) = match object.body.get("type").and_then(Value::as_str)? {
            "kubernetes.io/dockerconfigjson" => (false, ".dockerconfigjson"),
            "kubernetes.io/dockercfg" => (true, ".dockercfg"),
            _ => return None,
        };
        let (_, config) = self.entries(key).into_iter().find(|(name, config)| name == entry && !config.is_empty())?;
        Some(PullSecret { is_dockercfg, config })
    }

    /// Handles a reply; returns the slots of the affected pods.
    pub(super) fn replied(&mut self, now: Now, id: ReqId, result: Result<Response, Status>) -> Vec<u32> {
        let asked = |e: &Entry| e.asked.is_some_and(|(asked, _)| asked == id);
        let Some(entry) = self.entries.values_mut().find(|e| asked(e)) else { return Vec::new() };
        entry.asked = None;
        match result {
            Ok(Response::Object(object)) => (entry.seen, entry.at) = (Some(Some(object)), now.mono),
            Err(status) if status.reason == Reason::NotFound => (entry.seen, entry.at) = (Some(None), now.mono),
            Ok(_) | Err(_) => (entry.seen, entry.not_before) = (None, now.mono + PAUSE),
        }
        let users = entry.users.iter().copied().collect();
        self.schedule();
        users
    }

    /// Handles the loss of the connection: no request in flight will get a reply.
    pub(super) fn disconnected(&mut self, now: Now) {
        for entry in self.entries.values_mut().filter(|e| e.asked.is_some()) {
            (entry.asked, entry.seen, entry.not_before) = (None, None, now.mono + PAUSE);
        }
        self.schedule();
    }

    /// Gives up requests that have timed out; returns the slots of the pods that must be processed again.
    pub(super) fn handle_timeout(&mut self, now: Now) -> BTreeSet<u32> {
        let mut users = BTreeSet::new();
        for entry in self.entries.values_mut() {
            if entry.due().is_some_and(|at| at <= now.mono) {
                (entry.asked, entry.seen, entry.not_before) = (None, None, now.mono);
                entry.wanted = false;
                users.extend(entry.users.iter().copied());
            }
        }
        self.next = None;
        users
    }

    /// Handles the removal of a pod.
    pub(super) fn release(&mut self, slot: u32) {
        self.entries.retain(|_, e| {
            e.users.remove(&slot);
            !e.users.is_empty()
        });
        self.schedule();
    }

    /// When `handle_timeout` is next needed.
    #[inline(always)]
    pub(super) fn deadline(&self) -> Option<Mono> {
        self.next
    }

    fn schedule(&mut self) {
        self.next = self.entries.values().filter_map(Entry::due).min();
    }
}

impl Entry {
    fn due(&self) -> Option<Mono> {
        match self.asked {
            Some((_, overdue)) => Some(overdue),
            None if self.seen.is_none() && self.wanted => Some(self.not_before),
            None => None,
        }
    }
}

/// What a pod needs from an object.
#[derive(Debug)]
pub(super) struct Need<'a> {
    pub(super) key: ObjectKey,
    /// Keys that the object must have; if empty, the object must only exist.
    entries: Vec<&'a str>,
    optional: bool,
    /// Every namespace has it, once a controller has published it.
    published: bool,
    /// The need is one key for an environment variable; the error message then names the object.
    variable: bool,
}

impl Need<'_> {
    /// Why the need cannot be met, in the kubelet's words; `None` if it is met.
    pub(super) fn wrong(&self, references: &References) -> Option<String> {
        if self.optional || (self.published && !references.strict) {
            return None;
        }
        if self.key.kind == Kind::PERSISTENT_VOLUME_CLAIM {
            let Some(claim) = references.seen(&self.key) else {
                return Some(format!("failed to fetch PVC from API server: {} {:?} not found", CLAIM, self.key.name()));
            };
            return claim_trouble(claim).map(str::to_owned);
        }
        let secret = self.key.kind == Kind::SECRET;
        let Some(Object::Dynamic(object)) = references.seen(&self.key) else {
            let what = if secret { "secret" } else { "configmap" };
            return Some(format!("{what} {:?} not found", self.key.name()));
        };
        let holds = |entry: &str| {
            let fields = ["data", "binaryData", "stringData"];
            fields.iter().any(|f| object.body.get(*f).is_some_and(|map| map.get(entry).is_some()))
        };
        let entry = self.entries.iter().find(|entry| !holds(entry))?;
        Some(match (self.variable, secret) {
            (true, true) => format!("couldn't find key {entry} in Secret {}", self.key.path()),
            (true, false) => format!("couldn't find key {entry} in ConfigMap {}", self.key.path()),
            (false, true) => format!("references non-existent secret key: {entry}"),
            (false, false) => format!("configmap references non-existent config key: {entry}"),
        })
    }
}

const CLAIM: &str = "persistentvolumeclaims";

/// Why a claim cannot be used; `None` if it can, or is no claim (`getPVCExtractPV`).
fn claim_trouble(claim: &Object) -> Option<&'static str> {
    if claim.kind() != Kind::PERSISTENT_VOLUME_CLAIM {
        None
    } else if claim.is_deleting() {
        Some("PVC is being deleted")
    } else if volume::text(claim, "/status/phase") != "Bound" || volume::text(claim, "/spec/volumeName").is_empty() {
        Some("PVC is not bound")
    } else {
        None
    }
}

/// The claim that a volume of a pod needs.
pub(super) fn claim_needed<'a>(pod: &str, namespace: &str, volume: &core_v1::Volume) -> Option<Need<'a>> {
    let name = volume::claim_name(pod, volume)?;
    Some(need(Kind::PERSISTENT_VOLUME_CLAIM, namespace, &name, None))
}

/// Whether the environment of a container refers to any object.
pub(super) fn refers_to_any(c: &core_v1::Container) -> bool {
    environment_needs(c, "").next().is_some()
}

/// Whether a pod refers to any object, apart from ephemeral containers.
pub(super) fn refers(spec: &core_v1::PodSpec) -> bool {
    let mut containers = spec.containers.iter().chain(spec.init_containers.iter().flatten());
    volume::has_claims(spec)
        || resource_claim::has_claims(spec)
        || spec.image_pull_secrets.iter().flatten().next().is_some()
        || spec.volumes.iter().flatten().any(|v| volume_needs(v, "").next().is_some())
        || containers.any(refers_to_any)
}

/// What the environment of a container needs, in the order in which the kubelet checks.
pub(super) fn environment_needs<'a>(
    c: &'a core_v1::Container,
    namespace: &'a str,
) -> impl Iterator<Item = Need<'a>> + 'a {
    let whole = c.env_from.iter().flatten().flat_map(move |e| {
        let map = e.config_map_ref.as_ref().map(|r| need(Kind::CONFIG_MAP, namespace, &r.name, r.optional));
        let secret = e.secret_ref.as_ref().map(|r| need(Kind::SECRET, namespace, &r.name, r.optional));
        map.into_iter().chain(secret)
    });
    let single = c.env.iter().flatten().filter_map(|e| e.value_from.as_ref()).flat_map(move |from| {
        let map = from.config_map_key_ref.as_ref().map(|r| (Kind::CONFIG_MAP, &r.name, r.optional, &r.key));
        let secret = from.secret_key_ref.as_ref().map(|r| (Kind::SECRET, &r.name, r.optional, &r.key));
        map.into_iter().chain(secret).map(move |(kind, name, optional, key)| Need {
            entries: vec![key],
            variable: true,
            ..need(kind, namespace, name, optional)
        })
    });
    whole.chain(single)
}

fn need<'a>(kind: Kind, namespace: &str, name: &str, optional: Option<bool>) -> Need<'a> {
    let key = ObjectKey::new(kind, namespace, name);
    // It is published only where a root CA is configured. Only real containers read it, so no other pod waits for it.
    let published = kind == Kind::CONFIG_MAP && name == root_ca::NAME;
    Need { key, entries: Vec::new(), optional: optional == Some(true), published, variable: false }
}

/// What a volume needs.
pub(super) fn volume_needs<'a>(v: &'a core_v1::Volume, namespace: &'a str) -> impl Iterator<Item = Need<'a>> + 'a {
    let of = move |kind, name: &str, optional, items: &'a Option<Vec<core_v1::KeyToPath>>| Need {
        entries: items.iter().flatten().map(|i| i.key.as_str()).collect(),
        ..need(kind, namespace, name, optional)
    };
    let map = v.config_map.as_ref().map(|c| of(Kind::CONFIG_MAP, &c.name, c.optional, &c.items));
    let secret = v.secret.as_ref();
    let secret = secret.map(|s| of(Kind::SECRET, s.secret_name.as_deref().unwrap_or(""), s.optional, &s.items));
    let projected = v.projected.iter().flat_map(|p| p.sources.iter().flatten()).flat_map(move |source| {
        let secret = source.secret.as_ref().map(|s| of(Kind::SECRET, &s.name, s.optional, &s.items));
        let map = source.config_map.as_ref().map(|c| of(Kind::CONFIG_MAP, &c.name, c.optional, &c.items));
        secret.into_iter().chain(map)
    });
    map.into_iter().chain(secret).chain(projected)
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use super::{PAUSE, References};
    use crate::api::Status;
    use crate::machine::{Mono, Now, Wall};
    use crate::object::{Kind, ObjectKey};

    /// A pod that has to wait for one object does not ask for the next: that one must not be due for ever.
    #[test]
    fn what_nobody_asks_for_is_not_due() {
        let at = |mono: Mono| Now { mono, wall: Wall(0) };
        let [claim, volume] =
            [Kind::PERSISTENT_VOLUME_CLAIM, Kind::PERSISTENT_VOLUME].map(|kind| ObjectKey::new(kind, "", "x"));
        let mut references = References::new(Rc::from("kubelet"), 1, false);
        let mut out = Vec::new();
        let ask = |references: &mut References, key: &ObjectKey, now: Mono| {
            references.ask(key, 0, at(now), &mut Vec::new());
        };
        references.ask(&volume, 0, at(Mono(0)), &mut out);
        let request = references.entries[&volume].asked.expect("it is in flight").0;
        references.replied(at(Mono(0)), request, Err(Status::timeout("late")));
        let again = Mono(0) + PAUSE;
        assert_eq!(references.deadline(), Some(again), "what was asked for is tried again");
        assert_eq!(references.handle_timeout(at(again)).len(), 1);
        ask(&mut references, &claim, again);
        assert!(references.deadline().is_some_and(|due| due > again), "{:?}", references.deadline());
        ask(&mut references, &volume, again);
        assert!(references.entries[&volume].asked.is_some(), "once it is asked for, it is read at once");
    }
}
