//! The resources that a pod requests, and the QoS class that follows from them.
//!
//! Source: `k8s.io/component-helpers/resource` (`PodRequests`, `PodLimits`) and
//! <https://kubernetes.io/docs/concepts/workloads/pods/pod-qos/>.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, PodSpec};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use super::Milli;

/// Amounts by resource name.
pub type Amounts = BTreeMap<String, Milli>;

/// What must be free on a node for the scheduler to place a pod: the larger of the containers' sum and the peak of the
/// init containers, plus overhead. Sidecars (restartable init containers) count for as long as they run.
pub fn pod_requests(spec: &PodSpec) -> Amounts {
    effective(spec, |c| c.resources.as_ref()?.requests.as_ref(), |r| r.requests.as_ref(), true)
}

/// The pod's limits, by the same rule. Resources without a limit are absent.
pub fn pod_limits(spec: &PodSpec) -> Amounts {
    let mut limits = effective(spec, |c| c.resources.as_ref()?.limits.as_ref(), |r| r.limits.as_ref(), false);
    // Overhead is added to existing limits only.
    for (name, extra) in spec.overhead.iter().flatten() {
        if let Some(limit) = limits.get_mut(name).filter(|l| l.0 != 0) {
            limit.0 += Milli::of(extra).0;
        }
    }
    limits
}

/// The requests of a pod's containers together, without pod-level requests and overhead (`AggregateContainerRequests`).
pub fn container_requests(spec: &PodSpec) -> Amounts {
    effective(spec, |c| c.resources.as_ref()?.requests.as_ref(), |_| None, false)
}

/// The limits of a pod's containers together (`AggregateContainerLimits`).
pub fn container_limits(spec: &PodSpec) -> Amounts {
    effective(spec, |c| c.resources.as_ref()?.limits.as_ref(), |_| None, false)
}

/// Whether pod-level resources may include this resource (`IsSupportedPodLevelResource`).
pub fn is_pod_level(resource: &str) -> bool {
    matches!(resource, "cpu" | "memory") || resource.starts_with("hugepages-")
}

/// The QoS class, as in `status.qosClass`: `Guaranteed`, `Burstable` or `BestEffort`. The spec must have its defaults.
pub fn qos_class(spec: &PodSpec) -> &'static str {
    let (mut requests, mut limits) = ([0i128; 2], [0i128; 2]);
    let mut all_limited = true;
    let mut count = |r: Option<&BTreeMap<String, Quantity>>, l: Option<&BTreeMap<String, Quantity>>| {
        for (i, name) in ["cpu", "memory"].into_iter().enumerate() {
            let amount = |list: Option<&BTreeMap<String, Quantity>>| {
                list.and_then(|l| l.get(name)).map_or(0, |q| Milli::of(q).0.max(0))
            };
            requests[i] += amount(r);
            let limit = amount(l);
            limits[i] += limit;
            all_limited &= limit > 0;
        }
    };
    match &spec.resources {
        Some(r) if has_entries(r.requests.as_ref()) || has_entries(r.limits.as_ref()) => {
            count(r.requests.as_ref(), r.limits.as_ref());
        }
        _ => {
            for c in spec.containers.iter().chain(spec.init_containers.iter().flatten()) {
                let r = c.resources.as_ref();
                count(r.and_then(|r| r.requests.as_ref()), r.and_then(|r| r.limits.as_ref()));
            }
        }
    }
    if requests == [0; 2] && limits == [0; 2] {
        "BestEffort"
    } else if all_limited && requests == limits {
        "Guaranteed"
    } else {
        "Burstable"
    }
}

/// Whether an init container is a sidecar, which keeps running beside the pod's containers.
pub fn is_restartable_init(c: &Container) -> bool {
    c.restart_policy.as_deref() == Some("Always")
}

fn has_entries(list: Option<&BTreeMap<String, Quantity>>) -> bool {
    list.is_some_and(|l| !l.is_empty())
}

fn effective<'a>(
    spec: &'a PodSpec,
    of: impl Fn(&'a Container) -> Option<&'a BTreeMap<String, Quantity>>,
    of_pod: impl Fn(&'a k8s_openapi::api::core::v1::ResourceRequirements) -> Option<&'a BTreeMap<String, Quantity>>,
    overhead: bool,
) -> Amounts {
    let mut total = Amounts::new();
    for list in spec.containers.iter().filter_map(&of) {
        add(&mut total, list);
    }
    let inits = spec.init_containers.as_deref().unwrap_or_default();
    if !inits.is_empty() {
        let (mut sidecars, mut peak) = (Amounts::new(), Amounts::new());
        for c in inits {
            if is_restartable_init(c) {
                if let Some(list) = of(c) {
                    add(&mut total, list);
                    add(&mut sidecars, list);
                }
                raise(&mut peak, &sidecars);
            } else {
                let mut now = sidecars.clone();
                if let Some(list) = of(c) {
                    add(&mut now, list);
                }
                raise(&mut peak, &now);
            }
        }
        raise(&mut total, &peak);
    }
    for (name, quantity) in spec.resources.as_ref().and_then(of_pod).into_iter().flatten() {
        if is_pod_level(name) {
            total.insert(name.clone(), Milli::of(quantity));
        }
    }
    if overhead && let Some(list) = &spec.overhead {
        add(&mut total, list);
    }
    total
}

fn add(total: &mut Amounts, list: &BTreeMap<String, Quantity>) {
    for (name, quantity) in list {
        let amount = Milli::of(quantity);
        match total.get_mut(name) {
            Some(sum) => sum.0 = sum.0.saturating_add(amount.0),
            None => {
                total.insert(name.clone(), amount);
            }
        }
    }
}

fn raise(total: &mut Amounts, floor: &Amounts) {
    for (name, amount) in floor {
        match total.get_mut(name) {
            Some(sum) => sum.0 = sum.0.max(amount.0),
            None => {
                total.insert(name.clone(), *amount);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{PodSpec, pod_limits, pod_requests, qos_class};
    use serde_json::{Value, json};

    fn spec(v: Value) -> PodSpec {
        serde_json::from_value(v).unwrap()
    }

    fn c(requests: Value, limits: Value) -> Value {
        json!({"name": "c", "resources": {"requests": requests, "limits": limits}})
    }

    fn check(v: Value, cpu: i64, memory: i64) {
        let amounts = pod_requests(&spec(v.clone()));
        let get = |n: &str| amounts.get(n).map_or(0, |m| m.milli());
        assert_eq!((get("cpu"), get("memory") / 1000), (cpu, memory), "{v}");
    }

    #[test]
    fn requests_are_the_larger_of_sum_and_peak() {
        let small = c(json!({"cpu": "100m", "memory": "10"}), json!({}));
        let large = c(json!({"cpu": "1"}), json!({}));
        let mut sidecar = c(json!({"cpu": "300m"}), json!({}));
        sidecar["restartPolicy"] = json!("Always");
        check(json!({"containers": [small, small]}), 200, 20);
        check(json!({"containers": [small, small], "initContainers": [large]}), 1000, 20);
        check(json!({"containers": [small], "initContainers": [sidecar]}), 400, 10);
        check(json!({"containers": [small], "initContainers": [sidecar, large]}), 1300, 10);
        check(json!({"containers": [small], "initContainers": [large, sidecar]}), 1000, 10);
        check(json!({"containers": [small], "overhead": {"cpu": "50m"}}), 150, 10);
        check(json!({"containers": [small], "resources": {"requests": {"cpu": "2"}}}), 2000, 10);
        check(json!({"containers": []}), 0, 0);
    }

    #[test]
    fn overhead_raises_only_limits_that_exist() {
        let v = json!({"containers": [c(json!({}), json!({"cpu": "1"}))], "overhead": {"cpu": "50m", "memory": "1"}});
        let limits = pod_limits(&spec(v));
        assert_eq!(limits.get("cpu").unwrap().milli(), 1050);
        assert_eq!(limits.get("memory"), None);
    }

    #[test]
    fn quality_of_service() {
        let full = json!({"cpu": "1", "memory": "1Gi"});
        for (containers, want) in [
            (json!([c(json!({}), json!({}))]), "BestEffort"),
            (json!([c(json!({"cpu": "0"}), json!({}))]), "BestEffort"),
            (json!([c(json!({"nvidia.com/gpu": "1"}), json!({"nvidia.com/gpu": "1"}))]), "BestEffort"),
            (json!([c(full.clone(), full.clone())]), "Guaranteed"),
            (json!([c(full.clone(), full.clone()), c(json!({}), json!({}))]), "Burstable"),
            (json!([c(json!({"cpu": "1"}), full.clone())]), "Burstable"),
            (json!([c(json!({"cpu": "1000m", "memory": "1024Mi"}), full.clone())]), "Guaranteed"),
            (json!([c(json!({"cpu": "1"}), json!({"cpu": "1"}))]), "Burstable"),
        ] {
            assert_eq!(qos_class(&spec(json!({"containers": containers}))), want, "{containers}");
        }
    }
}
