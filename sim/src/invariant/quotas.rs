//! `quota-holds`: no pod is created beyond the number that a ResourceQuota allows in its namespace. It is checked once
//! an API server must have heard of the quota; pods that are being deleted may or may not count.
//!
//! `quotas-at-rest`: at the end of a run, `status.used` of each ResourceQuota equals the actual usage.
//!
//! Of their resources only object counts are checked, pods that have not terminated, and the requests of the containers
//! of those pods. A resource is skipped if a pod's requests are harder to compute (sidecars, overhead, pod-level
//! requests). Quotas with a `scopeSelector` are not checked, and those with scopes at the end only.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, PodSpec};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use skeg_core::object::{Kind, Milli, Object, ObjectKey, Pod};
use skeg_core::store::MemoryStore;

use super::binding::VIEW_LAG;
use super::reading::{is_active, phase};
use super::{Commit, Invariant, Report};
use crate::converge::objects;

/// The quotas of numbers of pods, with the time of their creation, and the active pods, by namespace.
#[derive(Debug, Default)]
pub(super) struct Quotas {
    most: BTreeMap<ObjectKey, (f64, i64)>,
    active: BTreeMap<String, i64>,
}

impl Quotas {
    pub fn quota(&mut self, commit: &Commit<'_>) {
        let Some(key) = commit.new.or(commit.old).map(Object::key) else { return };
        let spec = commit.new.map(|quota| quota.to_json()["spec"].take()).unwrap_or_default();
        let is_scoped = !spec["scopes"].is_null() || !spec["scopeSelector"].is_null();
        let hard = spec["hard"]["pods"].as_str().and_then(|n| n.parse().ok()).filter(|_| !is_scoped);
        match hard {
            Some(hard) => self.most.entry(key).or_insert((commit.at, hard)).1 = hard,
            None => drop(self.most.remove(&key)),
        }
    }

    pub fn pod(&mut self, commit: &Commit<'_>, report: &mut Report) {
        let counts = |pod: Option<&Pod>| pod.is_some_and(is_active);
        let (was, is) = (counts(commit.old_pod()), counts(commit.new_pod()));
        if was == is {
            return;
        }
        let Some(pod) = commit.new_pod().or(commit.old_pod()) else { return };
        let active = self.active.entry(pod.namespace().to_owned()).or_default();
        *active += if is { 1 } else { -1 };
        if commit.old.is_some() {
            return;
        }
        let mut here = self.most.iter().filter(|(key, _)| key.namespace() == pod.namespace());
        if let Some((key, (_, most))) = here.find(|(_, (since, most))| commit.at - since > VIEW_LAG && *active > *most)
        {
            let what = format!("{} is the {active}. active pod, and {key} allows {most}", pod.key());
            report.broken(Invariant::QuotaHolds, commit.at, what);
        }
    }
}

/// Returns a description of the first quota whose status differs from the actual usage, or `None`.
pub(super) fn at_rest(store: &MemoryStore) -> Option<String> {
    objects(store, Kind::RESOURCE_QUOTA).find_map(|object| {
        let value = object.to_json();
        if !value["spec"]["scopeSelector"].is_null() {
            return None;
        }
        let scopes = value["spec"]["scopes"].as_array().into_iter().flatten();
        let scopes: Option<Vec<Scope>> = scopes.map(|scope| Scope::of(scope.as_str()?)).collect();
        let scopes = scopes?;
        let key = object.key();
        if value["status"]["hard"] != value["spec"]["hard"] {
            return Some(format!("{key}: the limits of its spec are not those of its status"));
        }
        value["status"]["used"].as_object().into_iter().flatten().find_map(|(name, said)| {
            let said = said.as_str().and_then(|q| Milli::parse(q).ok())?;
            let live = live(store, object.namespace(), name, &scopes)?;
            let (said_text, live_text) = (said.to_decimal(), live.to_decimal());
            (said != live).then(|| format!("{key}: {said_text} {name} are said to be used, and there are {live_text}"))
        })
    })
}

fn live(store: &MemoryStore, namespace: &str, name: &str, scopes: &[Scope]) -> Option<Milli> {
    let here = |kind: Kind| objects(store, kind).filter(|o| o.namespace() == namespace);
    if let Some(resource) = name.strip_prefix("count/") {
        let kind = Kind::all_stored().find(|kind| kind.row().qualified() == resource)?;
        return Some(Milli::units(here(kind).count() as i64));
    }
    let pods = || here(Kind::POD).filter_map(running).filter(|pod| scopes.iter().all(|scope| scope.has(pod)));
    match name {
        "pods" => Some(Milli::units(pods().count() as i64)),
        "services" => Some(Milli::units(here(Kind::SERVICE).count() as i64)),
        "configmaps" => Some(Milli::units(here(Kind::CONFIG_MAP).count() as i64)),
        "secrets" => Some(Milli::units(here(Kind::SECRET).count() as i64)),
        _ => {
            let resource = name.strip_prefix("requests.").unwrap_or(name);
            let is_plain = matches!(resource, "cpu" | "memory" | "ephemeral-storage");
            let asked: Option<Vec<i128>> =
                pods().filter(|_| is_plain).map(|pod| requested(&pod.spec, resource)).collect();
            is_plain.then(|| asked.map(|asked| Milli(asked.iter().sum())))?
        }
    }
}

/// Pods to which a quota is limited.
enum Scope {
    /// Those that ask for nothing, or those that ask for something.
    BestEffort(bool),
    /// Those with a deadline, or those without.
    Terminating(bool),
}

impl Scope {
    /// `None` for a scope that is not checked.
    fn of(name: &str) -> Option<Scope> {
        Some(match name {
            "BestEffort" => Scope::BestEffort(true),
            "NotBestEffort" => Scope::BestEffort(false),
            "Terminating" => Scope::Terminating(true),
            "NotTerminating" => Scope::Terminating(false),
            _ => return None,
        })
    }

    fn has(&self, pod: &Pod) -> bool {
        let some = |list: Option<&BTreeMap<String, Quantity>>| list.is_some_and(|list| !list.is_empty());
        let asks = |c: &Container| {
            let resources = c.resources.as_ref();
            some(resources.and_then(|r| r.requests.as_ref())) || some(resources.and_then(|r| r.limits.as_ref()))
        };
        let mut containers = pod.spec.containers.iter().chain(pod.spec.init_containers.iter().flatten());
        match self {
            Scope::BestEffort(is) => *is != containers.any(asks),
            Scope::Terminating(is) => *is == pod.spec.active_deadline_seconds.is_some(),
        }
    }
}

/// The object as a pod; `None` if it is not a pod or has terminated.
fn running(object: &Object) -> Option<&Pod> {
    let Object::Pod(pod) = object else { return None };
    (!matches!(phase(pod), "Succeeded" | "Failed")).then_some(pod)
}

/// What a pod requests of a resource, in thousandths; `None` if that does not follow from its containers alone.
fn requested(spec: &PodSpec, resource: &str) -> Option<i128> {
    let init = spec.init_containers.as_deref().unwrap_or_default();
    if spec.overhead.is_some() || spec.resources.is_some() || init.iter().any(|c| c.restart_policy.is_some()) {
        return None;
    }
    let of = |c: &Container| {
        let requests = c.resources.as_ref().and_then(|r| r.requests.as_ref());
        requests.and_then(|r| r.get(resource)).map_or(0, |q| Milli::of(q).0)
    };
    let peak = init.iter().map(of).max().unwrap_or(0);
    Some(spec.containers.iter().map(of).sum::<i128>().max(peak))
}
