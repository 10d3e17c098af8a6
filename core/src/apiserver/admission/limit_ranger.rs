//! LimitRanger: sets default requests and limits for containers of a namespace, and enforces minimum, maximum and ratio
//! for containers, pods and claims.
//!
//! Source: `plugin/pkg/admission/limitranger`.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, LimitRangeItem, LimitRangeSpec, PodSpec, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use serde::Deserialize;

use crate::api::Status;
use crate::apiserver::write::{Deciding, Decision, Write};
use crate::object::{Amounts, Kind, Object, Pod, container_limits, container_requests, is_pod_level};
use crate::quota::Count;
use crate::store::StoreKey;

/// The annotation that lists the defaults that were set in a pod.
pub(super) const SET: &str = "kubernetes.io/limit-ranger";

type List = BTreeMap<String, Quantity>;

/// The LimitRanges of a namespace, and their keys.
struct Ranges {
    items: Vec<LimitRangeItem>,
    keys: Vec<StoreKey>,
}

impl Deciding<'_> {
    fn limit_ranges(&self, write: &Write, namespace: &str) -> Ranges {
        let mut ranges = Ranges { items: Vec::new(), keys: Vec::new() };
        for (key, _) in self.cache.range(Kind::LIMIT_RANGE, namespace) {
            let Some(Object::Dynamic(range)) = self.known(write, key) else { continue };
            let spec = range.body.get("spec").and_then(|spec| LimitRangeSpec::deserialize(spec).ok());
            ranges.items.extend(spec.into_iter().flat_map(|spec| spec.limits));
            ranges.keys.push(StoreKey::Object(key.clone()));
        }
        ranges
    }

    /// Sets the default requests and limits of the namespace's LimitRanges in a pod's containers, and refuses the pod
    /// if it violates one of them.
    pub(super) fn limit_pod(&mut self, write: &Write, object: &mut Object) -> Result<(), Decision> {
        let Object::Pod(pod) = object else { return Ok(()) };
        let ranges = self.limit_ranges(write, pod.namespace());
        if ranges.items.is_empty() {
            return Ok(());
        }
        set_defaults(pod, &ranges.items);
        let errors = pod_errors(&pod.spec.shared, &ranges.items);
        ranges.refuse(errors, Kind::POD, pod.name())
    }

    /// Refuses a new claim that violates a LimitRange of its namespace.
    pub(super) fn limit_claim(&mut self, write: &Write, new: &Object, old: Option<&Object>) -> Result<(), Decision> {
        let claim = match (new, old) {
            (Object::Dynamic(claim), None) if claim.kind == Kind::PERSISTENT_VOLUME_CLAIM => claim,
            _ => return Ok(()),
        };
        let namespace = claim.meta.namespace.as_deref().unwrap_or("");
        let ranges = self.limit_ranges(write, namespace);
        let asked = claim.body.get("spec").and_then(|spec| spec.pointer("/resources/requests"));
        let asked: List = asked.and_then(|list| List::deserialize(list).ok()).unwrap_or_default();
        let asked = Sides { requests: shown(Some(&asked)), limits: BTreeMap::new() };
        let mut errors = Vec::new();
        for item in ranges.items.iter().filter(|item| item.type_ == "PersistentVolumeClaim") {
            errors
                .extend(each(&item.min).filter_map(|(name, least)| asked.below("PersistentVolumeClaim", name, least)));
            errors.extend(
                each(&item.max).filter_map(|(name, most)| asked.request_above("PersistentVolumeClaim", name, most)),
            );
        }
        let name = claim.meta.name.as_deref().unwrap_or("").to_owned();
        ranges.refuse(errors, Kind::PERSISTENT_VOLUME_CLAIM, &name)
    }
}

impl Ranges {
    fn refuse(self, mut errors: Vec<String>, kind: Kind, name: &str) -> Result<(), Decision> {
        let mut told: Vec<String> = Vec::new();
        errors.retain(|e| {
            !told.contains(e) && {
                told.push(e.clone());
                true
            }
        });
        let why = match errors.as_slice() {
            [] => return Ok(()),
            [one] => one.clone(),
            many => format!("[{}]", many.join(", ")),
        };
        Err(Decision::AnswerIf(self.keys, Err(Status::forbidden(kind.row(), name, &why))))
    }
}

fn each(list: &Option<List>) -> impl Iterator<Item = (&str, &Quantity)> {
    list.iter().flatten().map(|(name, quantity)| (name.as_str(), quantity))
}

/// Sets the requests and limits that containers leave out, and lists them in an annotation.
fn set_defaults(pod: &mut Pod, items: &[LimitRangeItem]) {
    let (mut requests, mut limits) = (List::new(), List::new());
    for item in items.iter().filter(|item| item.type_ == "Container") {
        requests.extend(item.default_request.clone().into_iter().flatten());
        limits.extend(item.default.clone().into_iter().flatten());
    }
    let lacks = |c: &Container| {
        let own = c.resources.clone().unwrap_or_default();
        let all =
            |wanted: &List, list: Option<List>| wanted.keys().all(|k| list.as_ref().is_some_and(|l| l.contains_key(k)));
        !(all(&requests, own.requests) && all(&limits, own.limits))
    };
    let spec = &*pod.spec.shared;
    if !spec.containers.iter().chain(spec.init_containers.iter().flatten()).any(lacks) {
        return;
    }
    let mut told = Vec::new();
    let spec = pod.spec_mut().shared.make_mut();
    for (what, containers) in
        [("container", &mut spec.containers), ("init container", spec.init_containers.get_or_insert_default())]
    {
        for container in containers {
            let own = container.resources.get_or_insert_with(ResourceRequirements::default);
            for (side, wanted, list) in [("request", &requests, &mut own.requests), ("limit", &limits, &mut own.limits)]
            {
                let set = fill(wanted, list);
                if !set.is_empty() {
                    told.push(format!("{} {side} for {what} {}", set.join(", "), container.name));
                }
            }
        }
    }
    if spec.init_containers.as_ref().is_some_and(Vec::is_empty) {
        spec.init_containers = None;
    }
    let text = format!("LimitRanger plugin set: {}", told.join("; "));
    pod.meta_mut().annotations.get_or_insert_default().insert(SET.to_owned(), text);
}

/// Adds the entries that a list lacks, and returns their names.
fn fill(wanted: &List, list: &mut Option<List>) -> Vec<String> {
    let missing: Vec<_> =
        wanted.iter().filter(|(name, _)| !list.as_ref().is_some_and(|l| l.contains_key(*name))).collect();
    for (name, quantity) in &missing {
        list.get_or_insert_default().insert((*name).clone(), (*quantity).clone());
    }
    missing.into_iter().map(|(name, _)| name.clone()).collect()
}

/// Requests and limits, in the form that error messages show.
struct Sides {
    requests: BTreeMap<String, Count>,
    limits: BTreeMap<String, Count>,
}

fn shown(list: Option<&List>) -> BTreeMap<String, Count> {
    list.into_iter().flatten().map(|(name, quantity)| (name.clone(), Count::read(&quantity.0))).collect()
}

impl Sides {
    fn of(container: &Container) -> Sides {
        let own = container.resources.as_ref();
        Sides {
            requests: shown(own.and_then(|r| r.requests.as_ref())),
            limits: shown(own.and_then(|r| r.limits.as_ref())),
        }
    }

    /// The requests and limits of a whole pod: its pod-level resources, or else the sum over its containers.
    fn of_pod(spec: &PodSpec) -> Sides {
        let own = spec.resources.as_ref();
        let together = |sums: Amounts, own: Option<&List>| {
            let mut sides: BTreeMap<String, Count> =
                sums.into_iter().map(|(name, amount)| (name.clone(), Count::sum(&name, amount))).collect();
            sides.extend(shown(own).into_iter().filter(|(name, _)| is_pod_level(name)));
            sides
        };
        Sides {
            requests: together(container_requests(spec), own.and_then(|r| r.requests.as_ref())),
            limits: together(container_limits(spec), own.and_then(|r| r.limits.as_ref())),
        }
    }

    fn below(&self, of: &str, name: &str, least: &Quantity) -> Option<String> {
        let least = Count::read(&least.0);
        let wrong = |what: String| Some(format!("minimum {name} usage per {of} is {least}{what}"));
        match (self.requests.get(name), self.limits.get(name)) {
            (None, _) => wrong(".  No request is specified".to_owned()),
            (Some(asked), _) if asked.amount < least.amount => wrong(format!(", but request is {asked}")),
            (_, Some(limit)) if limit.amount < least.amount => wrong(format!(", but limit is {limit}")),
            _ => None,
        }
    }

    fn above(&self, of: &str, name: &str, most: &Quantity) -> Option<String> {
        let most = Count::read(&most.0);
        let wrong = |what: String| Some(format!("maximum {name} usage per {of} is {most}{what}"));
        match (self.requests.get(name), self.limits.get(name)) {
            (_, None) => wrong(".  No limit is specified".to_owned()),
            (_, Some(limit)) if limit.amount > most.amount => wrong(format!(", but limit is {limit}")),
            (Some(asked), _) if asked.amount > most.amount => wrong(format!(", but request is {asked}")),
            _ => None,
        }
    }

    fn request_above(&self, of: &str, name: &str, most: &Quantity) -> Option<String> {
        let most = Count::read(&most.0);
        match self.requests.get(name) {
            None => Some(format!("maximum {name} usage per {of} is {most}.  No request is specified")),
            Some(asked) if asked.amount > most.amount => {
                Some(format!("maximum {name} usage per {of} is {most}, but request is {asked}"))
            }
            Some(_) => None,
        }
    }

    fn ratio_above(&self, of: &str, name: &str, most: &Quantity) -> Option<String> {
        let most = Count::read(&most.0);
        let wrong = |what: String| Some(format!("{name} max limit to request ratio per {of} is {most}, but {what}"));
        let something = |list: &BTreeMap<String, Count>| list.get(name).map(|c| c.amount.0).filter(|n| *n != 0);
        let Some(asked) = something(&self.requests) else {
            return wrong("no request is specified or request is 0".to_owned());
        };
        let Some(limit) = something(&self.limits) else {
            return wrong("no limit is specified or limit is 0".to_owned());
        };
        // Compared in integer arithmetic; formatted as Go's `%f`.
        let is_above = limit * 1000 > most.amount.0 * asked;
        let millionths = (limit * 10_000_000 / asked + 5) / 10;
        if !is_above {
            return None;
        }
        wrong(format!("provided ratio is {}.{:06}", millionths / 1_000_000, millionths % 1_000_000))
    }
}

fn pod_errors(spec: &PodSpec, items: &[LimitRangeItem]) -> Vec<String> {
    let mut errors = Vec::new();
    for item in items {
        let all: Vec<Sides> = match item.type_.as_str() {
            "Container" => spec.containers.iter().chain(spec.init_containers.iter().flatten()).map(Sides::of).collect(),
            "Pod" => vec![Sides::of_pod(spec)],
            _ => continue,
        };
        let of = item.type_.as_str();
        for sides in &all {
            errors.extend(each(&item.min).filter_map(|(name, least)| sides.below(of, name, least)));
            errors.extend(each(&item.max).filter_map(|(name, most)| sides.above(of, name, most)));
            errors.extend(
                each(&item.max_limit_request_ratio).filter_map(|(name, most)| sides.ratio_above(of, name, most)),
            );
        }
    }
    errors
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::{SET, pod_errors, set_defaults};
    use crate::object::{Object, Pod};

    fn pod(containers: Value) -> Pod {
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "d"},
            "spec": {"containers": containers}});
        let Object::Pod(pod) = Object::from_json(pod).unwrap() else { panic!() };
        pod
    }

    fn container(requests: Value, limits: Value) -> Value {
        json!({"name": "c", "resources": {"requests": requests, "limits": limits}})
    }

    #[test]
    fn what_is_left_out_is_set_and_said() {
        let items =
            json!([{"type": "Container", "default": {"cpu": "2", "memory": "1Gi"}, "defaultRequest": {"cpu": "1"}}]);
        let items: Vec<_> = serde_json::from_value(items).unwrap();
        let mut p = pod(json!([{"name": "a"}, {"name": "b", "resources": {"limits": {"cpu": "5"}}}]));
        set_defaults(&mut p, &items);
        let told = "LimitRanger plugin set: cpu request for container a; cpu, memory limit for container a; \
                    cpu request for container b; memory limit for container b";
        assert_eq!(p.meta.annotations.as_ref().unwrap()[SET], told);
        let spec = serde_json::to_value(&*p.spec.shared).unwrap();
        assert_eq!(
            spec["containers"][1]["resources"],
            json!({"requests": {"cpu": "1"}, "limits": {"cpu": "5", "memory": "1Gi"}})
        );
        assert_eq!(spec.get("initContainers"), None);
        let whole = json!({"cpu": "1", "memory": "1Gi"});
        let mut p = pod(json!([container(whole.clone(), whole)]));
        let before = p.clone();
        set_defaults(&mut p, &items);
        assert!(p.meta.annotations.is_none() && p.spec.shared.is_held_as(&before.spec.shared));
    }

    #[track_caller]
    fn check(item: Value, containers: Value, expect: &[&str]) {
        let items: Vec<_> = serde_json::from_value(json!([item])).unwrap();
        assert_eq!(pod_errors(&pod(containers).spec.shared, &items), expect);
    }

    #[test]
    fn least_most_and_ratio() {
        let least = json!({"type": "Container", "min": {"cpu": "200m"}});
        check(least.clone(), json!([container(json!({"cpu": "0.2"}), json!({}))]), &[]);
        check(
            least.clone(),
            json!([container(json!({"cpu": "100m"}), json!({}))]),
            &["minimum cpu usage per Container is 200m, but request is 100m"],
        );
        check(
            least.clone(),
            json!([container(json!({"cpu": "1"}), json!({"cpu": "100m"}))]),
            &["minimum cpu usage per Container is 200m, but limit is 100m"],
        );
        check(least, json!([{"name": "c"}]), &["minimum cpu usage per Container is 200m.  No request is specified"]);
        let most = json!({"type": "Container", "max": {"memory": "1Gi"}});
        check(
            most.clone(),
            json!([{"name": "c"}]),
            &["maximum memory usage per Container is 1Gi.  No limit is specified"],
        );
        check(
            most,
            json!([container(json!({}), json!({"memory": "1.5Gi"}))]),
            &["maximum memory usage per Container is 1Gi, but limit is 1536Mi"],
        );
        let ratio = json!({"type": "Container", "maxLimitRequestRatio": {"cpu": "1500m"}});
        check(ratio.clone(), json!([container(json!({"cpu": "2"}), json!({"cpu": "3"}))]), &[]);
        check(
            ratio.clone(),
            json!([container(json!({"cpu": "3"}), json!({"cpu": "5"}))]),
            &["cpu max limit to request ratio per Container is 1500m, but provided ratio is 1.666667"],
        );
        check(
            ratio,
            json!([container(json!({}), json!({"cpu": "5"}))]),
            &["cpu max limit to request ratio per Container is 1500m, but no request is specified or request is 0"],
        );
    }

    #[test]
    fn a_pod_as_a_whole() {
        let two = json!([container(json!({"cpu": "1"}), json!({"cpu": "1", "memory": "1Gi"})),
            {"name": "d", "resources": {"limits": {"cpu": "2", "memory": "1Gi"}}}]);
        let item = json!({"type": "Pod", "max": {"cpu": "2", "memory": "2Gi"}});
        check(item, two, &["maximum cpu usage per Pod is 2, but limit is 3"]);
    }
}
