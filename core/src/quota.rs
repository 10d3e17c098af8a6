//! What ResourceQuotas count: how much of each resource an object uses, and which quotas count an object.
//!
//! Input: objects. Output: amounts by a quota's resource names. Never: two callers (the admission plug-in, the
//! controller, the invariant checks) count the same object differently.
//!
//! Source: upstream's `pkg/quota/v1/evaluator/core`, `staging/src/k8s.io/apiserver/pkg/quota/v1`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, PodAffinityTerm, PodSpec};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use serde_json::{Map, Value, json};

use crate::machine::Wall;
use crate::object::{
    Amounts, Dynamic, Kind, KindInfo, Milli, Object, Pod, PodPhase, Service, pod_limits, pod_requests, qos_class,
};

/// Separates a storage class from a resource name that counts only claims of that class.
const OF_CLASS: &str = ".storageclass.storage.k8s.io/";
/// If a quota limits one of these, every container must specify it.
const MUST_BE_SAID: [&str; 6] = ["cpu", "memory", "requests.cpu", "requests.memory", "limits.cpu", "limits.memory"];

/// An amount, and the form in which it is written.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Count {
    /// The amount.
    pub amount: Milli,
    /// Whether it is written in powers of 1,024.
    binary: bool,
}

impl Count {
    /// A number of objects.
    pub fn of(n: usize) -> Count {
        Count { amount: Milli::units(n as i64), binary: false }
    }

    /// Parses a quantity; text that does not parse gives zero.
    pub fn read(text: &str) -> Count {
        Count { amount: Milli::parse(text).unwrap_or_default(), binary: text.ends_with('i') }
    }

    /// A sum of requests for a resource. Memory and storage are written in powers of 1,024.
    pub fn sum(resource: &str, amount: Milli) -> Count {
        let binary = ["memory", "storage", "hugepages-"].iter().any(|part| resource.contains(part));
        Count { amount, binary }
    }

    /// Adds another amount. The result has the form of the first amount that is not zero (`Quantity.Add`).
    fn add(&mut self, other: Count) {
        if self.amount == Milli::ZERO {
            self.binary = other.binary;
        }
        self.amount.0 += other.amount.0;
    }
}

impl fmt::Display for Count {
    /// Writes the canonical form.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let milli = self.amount.0;
        if milli % 1000 != 0 {
            return write!(f, "{milli}m");
        }
        let units = milli / 1000;
        if self.binary && units.abs() >= 1024 {
            return f.write_str(&self.amount.to_binary());
        }
        let suffixes = [(18, "E"), (15, "P"), (12, "T"), (9, "G"), (6, "M"), (3, "k")];
        let whole = |(power, _): &(u32, &str)| units != 0 && units % 10i128.pow(*power) == 0;
        match suffixes.into_iter().find(whole) {
            Some((power, suffix)) => write!(f, "{}{suffix}", units / 10i128.pow(power)),
            None => write!(f, "{units}"),
        }
    }
}

/// Amounts by a quota's resource names.
pub type Counts = BTreeMap<String, Count>;

/// Adds every amount of `more` to `to`.
pub fn add(to: &mut Counts, more: &Counts) {
    for (name, count) in more {
        to.entry(name.clone()).or_default().add(*count);
    }
}

/// Formats amounts for error messages: `cpu=1,memory=2Gi`.
pub fn in_words<'a>(counts: impl IntoIterator<Item = (&'a String, &'a Count)>) -> String {
    counts.into_iter().map(|(name, count)| format!("{name}={count}")).collect::<Vec<_>>().join(",")
}

/// Reads amounts from a JSON object of quantities.
pub fn from_json(list: Option<&Value>) -> Counts {
    let list = list.and_then(Value::as_object).into_iter().flatten();
    list.filter_map(|(name, q)| Some((name.clone(), Count::read(q.as_str()?)))).collect()
}

/// Writes amounts as a JSON object of quantities.
pub fn to_json(counts: &Counts) -> Value {
    counts.iter().map(|(name, count)| (name.clone(), json!(count.to_string()))).collect::<Map<_, _>>().into()
}

/// A ResourceQuota in parsed form.
#[derive(Debug)]
pub struct Quota {
    /// `spec.hard`.
    pub declared: Counts,
    /// `status.hard`: the limits that are enforced. The controller copies them from the spec.
    pub hard: Counts,
    /// `status.used`. A limited resource that is missing here has not been counted yet.
    pub used: Counts,
    scopes: Vec<Scope>,
}

#[derive(Debug)]
struct Scope {
    name: String,
    operator: String,
    values: Vec<String>,
}

impl Quota {
    /// Parses a ResourceQuota.
    pub fn read(object: &Dynamic) -> Quota {
        let spec = object.body.get("spec");
        let of_status = |field: &str| from_json(object.status.as_deref().and_then(|s| s.get(field)));
        let list = |path: &str| spec.and_then(|s| s.pointer(path)).and_then(Value::as_array).into_iter().flatten();
        let text = |v: &Value| v.as_str().unwrap_or("").to_owned();
        let plain = list("/scopes").map(|s| Scope { name: text(s), operator: "Exists".to_owned(), values: Vec::new() });
        let selected = list("/scopeSelector/matchExpressions").map(|e| Scope {
            name: text(&e["scopeName"]),
            operator: text(&e["operator"]),
            values: e["values"].as_array().into_iter().flatten().map(text).collect(),
        });
        Quota {
            declared: from_json(spec.and_then(|s| s.get("hard"))),
            hard: of_status("hard"),
            used: of_status("used"),
            scopes: plain.chain(selected).collect(),
        }
    }

    /// Whether an object matches all of the quota's scopes.
    pub fn covers(&self, object: &Object) -> bool {
        self.scopes.iter().all(|scope| scope.has(object))
    }
}

impl Scope {
    fn has(&self, object: &Object) -> bool {
        match object {
            Object::Pod(pod) => self.has_pod(pod),
            Object::Dynamic(claim) if claim.kind == Kind::PERSISTENT_VOLUME_CLAIM => {
                let at = |part: Option<&Value>, path: &str| {
                    part.and_then(|p| p.pointer(path))
                        .and_then(Value::as_str)
                        .filter(|n| !n.is_empty())
                        .map(str::to_owned)
                };
                let status = claim.status.as_deref();
                let classes = [
                    at(claim.body.get("spec"), "/volumeAttributesClassName"),
                    at(status, "/currentVolumeAttributesClassName"),
                    at(status, "/modifyVolumeStatus/targetVolumeAttributesClassName"),
                ];
                let mut classes = classes.into_iter().flatten().peekable();
                self.name == "VolumeAttributesClass"
                    && if classes.peek().is_none() {
                        self.selects(None)
                    } else {
                        classes.any(|c| self.selects(Some(&c)))
                    }
            }
            _ => false,
        }
    }

    fn has_pod(&self, pod: &Pod) -> bool {
        let spec = &*pod.spec.shared;
        let ends = spec.active_deadline_seconds.is_some_and(|s| s >= 0);
        let best_effort = qos_class(spec) == "BestEffort";
        match self.name.as_str() {
            "Terminating" => ends,
            "NotTerminating" => !ends,
            "BestEffort" => best_effort,
            "NotBestEffort" => !best_effort,
            "PriorityClass" => self.selects(spec.priority_class_name.as_deref().filter(|n| !n.is_empty())),
            "CrossNamespacePodAffinity" => asks_across_namespaces(spec),
            _ => false,
        }
    }

    fn selects(&self, name: Option<&str>) -> bool {
        let among = || name.is_some_and(|name| self.values.iter().any(|v| v == name));
        match self.operator.as_str() {
            "Exists" => name.is_some(),
            "DoesNotExist" => name.is_none(),
            "In" => among(),
            "NotIn" => !among(),
            _ => false,
        }
    }
}

fn asks_across_namespaces(spec: &PodSpec) -> bool {
    let across = |term: &PodAffinityTerm| {
        term.namespaces.as_ref().is_some_and(|n| !n.is_empty()) || term.namespace_selector.is_some()
    };
    let Some(affinity) = &spec.affinity else { return false };
    let (with, without) = (affinity.pod_affinity.as_ref(), affinity.pod_anti_affinity.as_ref());
    let required = with.and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref());
    let kept_off = without.and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref());
    let preferred = with.and_then(|a| a.preferred_during_scheduling_ignored_during_execution.as_ref());
    let avoided = without.and_then(|a| a.preferred_during_scheduling_ignored_during_execution.as_ref());
    required.into_iter().chain(kept_off).flatten().any(across)
        || preferred.into_iter().chain(avoided).flatten().any(|t| across(&t.pod_affinity_term))
}

/// Whether objects of a kind use the resource `name` of a quota (`MatchingResources`).
pub fn is_counted(kind: Kind, of: &KindInfo, name: &str) -> bool {
    if name.strip_prefix("count/").is_some_and(|resource| resource == of.qualified()) {
        return true;
    }
    match kind {
        Kind::POD => {
            let plain = name.strip_prefix("requests.").or_else(|| name.strip_prefix("limits.")).unwrap_or(name);
            let is_native = !name.contains('/') || name.contains("kubernetes.io/");
            name == "pods"
                || matches!(plain, "cpu" | "memory" | "ephemeral-storage")
                || name.starts_with("hugepages-")
                || name.starts_with("requests.hugepages-")
                || !is_native && name.starts_with("requests.")
        }
        Kind::SERVICE => matches!(name, "services" | "services.nodeports" | "services.loadbalancers"),
        Kind::PERSISTENT_VOLUME_CLAIM => {
            let plain = name.split_once(OF_CLASS).map_or(name, |(_, plain)| plain);
            matches!(plain, "persistentvolumeclaims" | "requests.storage")
        }
        Kind::CONFIG_MAP | Kind::SECRET | Kind::REPLICATION_CONTROLLER | Kind::RESOURCE_QUOTA => name == &*of.plural,
        _ => false,
    }
}

/// What an object uses at time `now`, by a quota's resource names.
pub fn usage(object: &Object, now: Wall) -> Counts {
    let info = object.info();
    let mut used = Counts::from([(format!("count/{}", info.qualified()), Count::of(1))]);
    match object {
        Object::Pod(pod) if is_charged(pod, now) => pod_usage(&pod.spec.shared, &mut used),
        Object::Pod(_) => {}
        Object::Service(service) => service_usage(service, &mut used),
        Object::Dynamic(claim) if claim.kind == Kind::PERSISTENT_VOLUME_CLAIM => claim_usage(claim, &mut used),
        other if is_counted(other.kind(), info, &info.plural) => {
            used.insert(info.plural.to_string(), Count::of(1));
        }
        _ => {}
    }
    used
}

/// Whether a pod uses compute resources: it has not terminated, and its deletion is not overdue. Otherwise only its
/// `count/pods` is charged.
fn is_charged(pod: &Pod, now: Wall) -> bool {
    if matches!(pod.status.summary().phase, PodPhase::Failed | PodPhase::Succeeded) {
        return false;
    }
    overdue_at(pod).is_none_or(|at| now <= at)
}

/// The time after which a pod that is being deleted is no longer charged; `None` if it is not being deleted.
pub fn overdue_at(pod: &Pod) -> Option<Wall> {
    let grace = Duration::from_secs(pod.meta.deletion_grace_period_seconds?.try_into().ok()?);
    Some(Wall::from_time(pod.meta.deletion_timestamp.as_ref()?) + grace)
}

fn pod_usage(spec: &PodSpec, used: &mut Counts) {
    used.insert("pods".to_owned(), Count::of(1));
    let lists = |c: &Container| c.resources.clone().unwrap_or_default();
    let all = || spec.containers.iter().chain(spec.init_containers.iter().flatten()).map(lists);
    let is_binary =
        |name: &str, quantity: Option<Quantity>| (name.to_owned(), quantity.is_some_and(|q| q.0.ends_with('i')));
    let requests: Amounts = pod_requests(spec);
    for (name, amount) in &requests {
        let (_, binary) = is_binary(name, all().find_map(|r| r.requests?.get(name).cloned()));
        let count = Count { amount: *amount, binary };
        let plain = matches!(name.as_str(), "cpu" | "memory" | "ephemeral-storage") || name.starts_with("hugepages-");
        if plain {
            used.insert(name.clone(), count);
        }
        // Extended resources are counted by request only.
        if plain || name.contains('/') {
            used.insert(format!("requests.{name}"), count);
        }
    }
    for (name, amount) in &pod_limits(spec) {
        let (_, binary) = is_binary(name, all().find_map(|r| r.limits?.get(name).cloned()));
        if matches!(name.as_str(), "cpu" | "memory" | "ephemeral-storage") {
            used.insert(format!("limits.{name}"), Count { amount: *amount, binary });
        }
    }
}

fn service_usage(service: &Service, used: &mut Counts) {
    let ports = service.spec.ports.as_deref().unwrap_or_default();
    let given = ports.iter().filter(|p| p.node_port.unwrap_or(0) != 0).count();
    let (nodes, balancers) = match service.spec.type_.as_deref() {
        Some("NodePort") => (ports.len(), 0),
        Some("LoadBalancer") if service.spec.allocate_load_balancer_node_ports == Some(false) => (given, 1),
        Some("LoadBalancer") => (ports.len(), 1),
        _ => (0, 0),
    };
    used.insert("services".to_owned(), Count::of(1));
    used.insert("services.nodeports".to_owned(), Count::of(nodes));
    used.insert("services.loadbalancers".to_owned(), Count::of(balancers));
}

fn claim_usage(claim: &Dynamic, used: &mut Counts) {
    let at =
        |part: Option<&Value>, path: &str| part.and_then(|p| p.pointer(path)).and_then(Value::as_str).map(Count::read);
    let spec = claim.body.get("spec");
    let by_annotation =
        claim.meta.annotations.as_ref().and_then(|a| a.get("volume.beta.kubernetes.io/storage-class")).cloned();
    let named = || spec.and_then(|s| s.get("storageClassName")).and_then(Value::as_str).map(str::to_owned);
    let class = by_annotation.or_else(named).filter(|c| !c.is_empty());
    let mut charge = |name: &str, count: Count| {
        used.insert(name.to_owned(), count);
        if let Some(class) = &class {
            used.insert(format!("{class}{OF_CLASS}{name}"), count);
        }
    };
    charge("persistentvolumeclaims", Count::of(1));
    if let Some(asked) = at(spec, "/resources/requests/storage") {
        let given = at(claim.status.as_deref(), "/allocatedResources/storage").unwrap_or_default();
        let mut most = if given.amount > asked.amount { given } else { asked };
        most.amount = Milli::units(most.amount.value());
        charge("requests.storage", most);
    }
}

/// Checks that every container of a pod specifies the resources that a quota counts. `Err` lists what is missing, in
/// Kubernetes' words.
pub fn says_enough<'a>(spec: &PodSpec, counted: impl Iterator<Item = &'a str>) -> Result<(), String> {
    let mut missing: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for name in counted.filter(|name| MUST_BE_SAID.contains(name)) {
        for container in spec.containers.iter().chain(spec.init_containers.iter().flatten()) {
            let resources = container.resources.as_ref();
            let said = match name.strip_prefix("limits.") {
                Some(resource) => resources.and_then(|r| r.limits.as_ref()).is_some_and(|l| l.contains_key(resource)),
                None => {
                    let resource = name.strip_prefix("requests.").unwrap_or(name);
                    resources.and_then(|r| r.requests.as_ref()).is_some_and(|l| l.contains_key(resource))
                }
            };
            if !said {
                missing.entry(name).or_default().insert(&container.name);
            }
        }
    }
    if missing.is_empty() {
        return Ok(());
    }
    let told = |(name, containers): (&&str, &BTreeSet<&str>)| {
        format!("{name} for: {}", containers.iter().copied().collect::<Vec<_>>().join(","))
    };
    Err(format!("must specify {}", missing.iter().map(told).collect::<Vec<_>>().join("; ")))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::{Count, Quota, in_words, is_counted, says_enough, usage};
    use crate::machine::Wall;
    use crate::object::{Kind, Object};

    fn object(api: &str, kind: &str, mut body: Value) -> Object {
        let base = json!({"apiVersion": api, "kind": kind, "metadata": {"name": "x", "namespace": "d"}});
        json_patch::merge(&mut body, &base);
        Object::from_json(body).unwrap()
    }

    fn pod(spec: Value) -> Object {
        object("v1", "Pod", json!({ "spec": spec }))
    }

    #[test]
    fn amounts_in_kubernetes_form() {
        for (text, shown) in [
            ("1500m", "1500m"),
            ("2000m", "2"),
            ("1000", "1k"),
            ("1024", "1024"),
            ("1024Ki", "1Mi"),
            ("0.5Ki", "512"),
            ("5M", "5M"),
            ("0", "0"),
        ] {
            assert_eq!(Count::read(text).to_string(), shown, "{text}");
        }
    }

    #[track_caller]
    fn uses(object: &Object, expect: &str) {
        assert_eq!(in_words(&usage(object, Wall(0))), expect);
    }

    #[test]
    fn what_objects_use() {
        uses(&object("v1", "ConfigMap", json!({})), "configmaps=1,count/configmaps=1");
        uses(&object("apps/v1", "StatefulSet", json!({"spec": {}})), "count/statefulsets.apps=1");
        let service = |spec: Value| object("v1", "Service", json!({ "spec": spec }));
        let ports = json!([{"port": 1, "nodePort": 30001}, {"port": 2}]);
        uses(
            &service(json!({"type": "NodePort", "ports": ports})),
            "count/services=1,services=1,services.loadbalancers=0,services.nodeports=2",
        );
        uses(
            &service(json!({"type": "LoadBalancer", "allocateLoadBalancerNodePorts": false, "ports": ports})),
            "count/services=1,services=1,services.loadbalancers=1,services.nodeports=1",
        );
        let claim = json!({"spec": {"storageClassName": "gold", "resources": {"requests": {"storage": "1Gi"}}},
            "status": {"allocatedResources": {"storage": "2Gi"}}});
        uses(
            &object("v1", "PersistentVolumeClaim", claim),
            "count/persistentvolumeclaims=1,gold.storageclass.storage.k8s.io/persistentvolumeclaims=1,\
             gold.storageclass.storage.k8s.io/requests.storage=2Gi,persistentvolumeclaims=1,requests.storage=2Gi",
        );
    }

    #[test]
    fn what_pods_use_until_they_have_ended() {
        let resources =
            json!({"requests": {"cpu": "500m", "memory": "1Gi", "example.com/gpu": "2"}, "limits": {"cpu": "1"}});
        let mut whole = json!({"spec": {"containers": [{"name": "a", "resources": resources}]}});
        let all = "count/pods=1,cpu=500m,limits.cpu=1,memory=1Gi,pods=1,requests.cpu=500m,requests.example.com/gpu=2,\
                   requests.memory=1Gi";
        uses(&object("v1", "Pod", whole.clone()), all);
        for (status, charged) in [("Running", true), ("Succeeded", false), ("Failed", false)] {
            whole["status"] = json!({"phase": status});
            uses(&object("v1", "Pod", whole.clone()), if charged { all } else { "count/pods=1" });
        }
        whole["status"] = json!({});
        whole["metadata"] = json!({"deletionTimestamp": "1970-01-01T00:00:10Z", "deletionGracePeriodSeconds": 5});
        let going = object("v1", "Pod", whole);
        uses(&going, all);
        assert_eq!(in_words(&usage(&going, Wall(15_000_001))), "count/pods=1", "it is overdue");
    }

    #[test]
    fn which_names_count_which_kind() {
        for (kind, name, expect) in [
            (Kind::POD, "pods", true),
            (Kind::POD, "count/pods", true),
            (Kind::POD, "limits.memory", true),
            (Kind::POD, "requests.example.com/gpu", true),
            (Kind::POD, "example.com/gpu", false),
            (Kind::POD, "requests.hugepages-2Mi", true),
            (Kind::POD, "requests.storage", false),
            (Kind::SERVICE, "services.nodeports", true),
            (Kind::PERSISTENT_VOLUME_CLAIM, "gold.storageclass.storage.k8s.io/requests.storage", true),
            (Kind::SECRET, "secrets", true),
            (Kind::DEPLOYMENT, "count/deployments.apps", true),
            (Kind::DEPLOYMENT, "deployments", false),
        ] {
            assert_eq!(is_counted(kind, kind.row(), name), expect, "{kind} {name}");
        }
    }

    #[test]
    fn scopes() {
        let quota = |spec: Value| {
            let Object::Dynamic(quota) = object("v1", "ResourceQuota", json!({ "spec": spec })) else { panic!() };
            Quota::read(&quota)
        };
        let plain = pod(json!({"containers": [{"name": "a"}]}));
        let job = pod(json!({"activeDeadlineSeconds": 5, "priorityClassName": "high",
            "containers": [{"name": "a", "resources": {"requests": {"cpu": "1"}}}]}));
        let term = json!({"topologyKey": "z", "namespaces": ["other"]});
        let across = pod(json!({"containers": [{"name": "a"}], "affinity": {"podAntiAffinity":
            {"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 1, "podAffinityTerm": term}]}}}));
        let by_class = |operator: &str, values: Value| json!({"scopeSelector": {"matchExpressions": [{"scopeName": "PriorityClass", "operator": operator, "values": values}]}});
        for (spec, expect) in [
            (json!({}), [true; 3]),
            (json!({"scopes": ["Terminating"]}), [false, true, false]),
            (json!({"scopes": ["NotTerminating", "BestEffort"]}), [true, false, true]),
            (json!({"scopes": ["NotBestEffort"]}), [false, true, false]),
            (json!({"scopes": ["CrossNamespacePodAffinity"]}), [false, false, true]),
            (by_class("In", json!(["high"])), [false, true, false]),
            (by_class("NotIn", json!(["high"])), [true, false, true]),
            (by_class("Exists", json!([])), [false, true, false]),
            (by_class("DoesNotExist", json!([])), [true, false, true]),
        ] {
            let quota = quota(spec.clone());
            assert_eq!([&plain, &job, &across].map(|p| quota.covers(p)), expect, "{spec}");
        }
    }

    #[test]
    fn containers_must_say_what_is_counted() {
        let spec = json!({"containers": [{"name": "b"}, {"name": "a", "resources": {"requests": {"cpu": "1"}}}],
            "initContainers": [{"name": "i", "resources": {"limits": {"memory": "1"}}}]});
        let spec = serde_json::from_value(spec).unwrap();
        let check = |names: &[&str], expect: Result<(), &str>| {
            assert_eq!(says_enough(&spec, names.iter().copied()), expect.map_err(str::to_owned));
        };
        check(&["pods", "ephemeral-storage"], Ok(()));
        check(&["limits.memory", "cpu"], Err("must specify cpu for: b,i; limits.memory for: a,b"));
    }
}
