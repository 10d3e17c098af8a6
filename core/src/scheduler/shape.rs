//! A pod's shape: what filters and scores need to know about it, and nothing else. Pods of equal shape share work.

use std::collections::BTreeMap;
use std::rc::Rc;

use k8s_openapi::api::core::v1 as core_v1;
use k8s_openapi::api::core::v1::PodSpec;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use super::gpu::Ask;
use super::peers::terms::PeerRules;
use super::profile::{Plugin, Rules};
use super::resources::{ResourceId, ResourceNames};
use crate::limits;
use crate::object::{Nano, ObjectMeta, Pod, PodStatus, Requirement, SharedPodSpec, Text, is_restartable_init};

/// The CPU that a container without a CPU request counts with in scores: 100m.
const DEFAULT_MILLI_CPU: Nano = Nano(100_000_000);
/// The memory that a container without a memory request counts with in scores, in bytes.
const DEFAULT_MEMORY: i64 = 200 << 20;

/// The effect of a taint.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[allow(missing_docs)]
pub enum Effect {
    NoSchedule,
    PreferNoSchedule,
    NoExecute,
    /// An effect that Kubernetes does not define.
    Other,
}

impl Effect {
    fn new(text: &str) -> Effect {
        match text {
            "NoSchedule" => Effect::NoSchedule,
            "PreferNoSchedule" => Effect::PreferNoSchedule,
            "NoExecute" => Effect::NoExecute,
            _ => Effect::Other,
        }
    }
}

/// A node's taint.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Taint {
    /// Its key.
    pub key: String,
    /// Its value.
    pub value: String,
    /// Its effect.
    pub effect: Effect,
}

impl Taint {
    /// Converts a taint of a node's spec.
    pub fn new(taint: &core_v1::Taint) -> Taint {
        let value = taint.value.clone().unwrap_or_default();
        Taint { key: taint.key.clone(), value, effect: Effect::new(&taint.effect) }
    }
}

/// A pod's toleration.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Toleration {
    /// The key of the taint; empty for every key.
    pub key: String,
    /// The value of the taint; `None` for every value (`Exists`).
    pub value: Option<String>,
    /// The effect of the taint; `None` for every effect.
    pub effect: Option<Effect>,
}

impl Toleration {
    /// Converts a toleration of a pod's spec. `None` if its operator is unknown; such a toleration tolerates nothing.
    fn new(t: &core_v1::Toleration) -> Option<Toleration> {
        let value = match t.operator.as_deref().unwrap_or("") {
            "" | "Equal" => Some(t.value.clone().unwrap_or_default()),
            "Exists" => None,
            _ => return None,
        };
        let effect = t.effect.as_deref().filter(|e| !e.is_empty()).map(Effect::new);
        Some(Toleration { key: t.key.clone().unwrap_or_default(), value, effect })
    }

    /// Whether it tolerates a taint.
    pub fn tolerates(&self, key: &str, value: &str, effect: Effect) -> bool {
        self.effect.is_none_or(|e| e == effect)
            && (self.key.is_empty() || self.key == key)
            && self.value.as_ref().is_none_or(|v| v == value)
    }
}

/// A host port that a pod uses.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct HostPort {
    /// The port.
    pub port: i32,
    /// `TCP`, `UDP` or `SCTP`.
    pub protocol: String,
    /// The address; empty for every address.
    pub address: String,
}

impl HostPort {
    fn new(p: &core_v1::ContainerPort) -> Option<HostPort> {
        let port = p.host_port.filter(|n| *n > 0)?;
        let protocol = p.protocol.clone().filter(|p| !p.is_empty()).unwrap_or_else(|| "TCP".to_owned());
        let address = p.host_ip.clone().filter(|ip| ip != "0.0.0.0").unwrap_or_default();
        Some(HostPort { port, protocol, address })
    }

    /// The same port on every address. It sorts before those on a single address.
    pub fn any_address(&self) -> HostPort {
        HostPort { port: self.port, protocol: self.protocol.clone(), address: String::new() }
    }

    /// Whether port and protocol are the same.
    pub fn same_socket(&self, other: &HostPort) -> bool {
        self.port == other.port && self.protocol == other.protocol
    }

    /// Whether two pods with these ports cannot run on the same node.
    pub fn conflicts(&self, other: &HostPort) -> bool {
        self.same_socket(other)
            && (self.address.is_empty() || other.address.is_empty() || self.address == other.address)
    }
}

/// A node selector term. All its requirements must hold; an empty term matches nothing.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct Term {
    labels: Vec<Requirement>,
    /// Lists of names that must (`true`) or must not contain the node's name.
    names: Vec<(bool, Vec<String>)>,
    /// Whether a requirement is invalid.
    broken: bool,
}

impl Term {
    /// From a node selector's term.
    pub(super) fn new(term: &core_v1::NodeSelectorTerm) -> Term {
        let mut parsed = Term::default();
        for e in term.match_expressions.iter().flatten() {
            match requirement(e) {
                Some(r) => parsed.labels.push(r),
                None => parsed.broken = true,
            }
        }
        for f in term.match_fields.iter().flatten() {
            let values = f.values.clone().unwrap_or_default();
            match (f.key.as_str(), f.operator.as_str()) {
                ("metadata.name", "In") => parsed.names.push((true, values)),
                ("metadata.name", "NotIn") => parsed.names.push((false, values)),
                _ => parsed.broken = true,
            }
        }
        parsed
    }

    /// From a term of a StorageClass' `allowedTopologies`.
    pub(super) fn of_topology(term: &core_v1::TopologySelectorTerm) -> Term {
        let labels = term.match_label_expressions.iter().flatten();
        let labels = labels.map(|e| Requirement::In(e.key.clone(), e.values.clone()));
        Term { labels: labels.collect(), ..Term::default() }
    }

    fn is_empty(&self) -> bool {
        self.labels.is_empty() && self.names.is_empty() && !self.broken
    }

    /// Whether it matches a node.
    pub fn matches(&self, meta: &ObjectMeta) -> bool {
        let name = meta.name.as_deref().unwrap_or("");
        !self.broken
            && !self.is_empty()
            && self.names.iter().all(|(within, names)| names.iter().any(|n| n == name) == *within)
            && self.labels.iter().all(|r| r.matches(meta.labels.as_ref()))
    }

    /// The names of the only nodes that it can match; `None` if it does not restrict names.
    fn only(&self) -> Option<Vec<String>> {
        let mut lists = self.names.iter().filter(|(within, _)| *within).map(|(_, names)| names);
        let first = lists.next()?.clone();
        Some(lists.fold(first, |all, names| all.into_iter().filter(|n| names.contains(n)).collect()))
    }
}

fn requirement(e: &core_v1::NodeSelectorRequirement) -> Option<Requirement> {
    let values = || e.values.clone().unwrap_or_default();
    let number = || match values().as_slice() {
        [one] => one.parse::<i64>().ok(),
        _ => None,
    };
    let key = e.key.clone();
    Some(match e.operator.as_str() {
        "In" => Requirement::In(key, values()),
        "NotIn" => Requirement::NotIn(key, values()),
        "Exists" => Requirement::Exists(key),
        "DoesNotExist" => Requirement::Absent(key),
        "Gt" => Requirement::Gt(key, number()?),
        "Lt" => Requirement::Lt(key, number()?),
        _ => return None,
    })
}

/// What filters and scores need to know about a pod.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct Shape {
    /// Its requests above zero, ordered by resource. Without `pods`.
    pub requests: Vec<(ResourceId, i64)>,
    /// Its CPU and memory requests for scores, with Kubernetes' defaults for missing ones.
    pub nonzero: [i64; 2],
    /// Its tolerations, sorted and without repeats.
    pub tolerations: Vec<Toleration>,
    /// The node that it names itself.
    pub node_name: Option<String>,
    /// `spec.nodeSelector`.
    pub node_selector: Vec<(String, String)>,
    /// The terms of its required node affinity, one of which must match; `None` if it has none.
    pub required: Option<Vec<Term>>,
    /// The names of the only nodes that its required node affinity can match, sorted (NodeAffinity's
    /// `PreFilterResult`). `None` if the affinity does not restrict names.
    pub only: Option<Vec<String>>,
    /// The terms of its preferred node affinity, with weights.
    pub preferred: Vec<(i64, Term)>,
    /// Its host ports.
    pub ports: Vec<HostPort>,
    /// Its rules about other pods.
    pub peers: PeerRules,
    /// The resources among its requests that NodeResourcesFit's filter does not look at.
    pub ignored: Vec<ResourceId>,
    /// The resources by which NodeResourcesFit scores it, each with its weight and what is requested of it: of CPU and
    /// memory with Kubernetes' defaults.
    pub scored: Vec<(ResourceId, i64, i64)>,
    /// Those that NodeResourcesBalancedAllocation balances, with the requests; none if it requests none of them.
    pub balanced: Vec<(ResourceId, i64)>,
    /// What it asks of GPUs, if its profile shares them.
    pub gpu: Ask,
    /// The rules of its profile.
    pub rules: Rc<Rules>,
}

impl Shape {
    /// The shape of pods with this spec and status, and of this profile.
    pub fn new(spec: &PodSpec, status: &PodStatus, resources: &mut ResourceNames, rules: &Rc<Rules>) -> Shape {
        let mut tolerations: Vec<_> = spec.tolerations.iter().flatten().filter_map(Toleration::new).collect();
        tolerations.sort_unstable();
        tolerations.dedup();
        let affinity = spec.affinity.as_ref().and_then(|a| a.node_affinity.as_ref());
        let required = affinity.and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref());
        let required: Option<Vec<Term>> = required.map(|s| s.node_selector_terms.iter().map(Term::new).collect());
        let preferred = affinity.and_then(|a| a.preferred_during_scheduling_ignored_during_execution.as_ref());
        let init = spec.init_containers.iter().flatten().filter(|c| is_restartable_init(c));
        let ports = spec.containers.iter().chain(init).flat_map(|c| c.ports.iter().flatten());
        let mut ports: Vec<_> = ports.filter_map(HostPort::new).collect();
        ports.sort_unstable();
        let (requests, nonzero) = requests(spec, &Resize::new(status), resources);
        let ignored = requests.iter().filter(|(r, _)| rules.ignores(resources.name(*r))).map(|(r, _)| *r).collect();
        let request = |resource| among(&requests, resource);
        let scored = rules.resources.iter().filter_map(|(resource, weight)| match *resource {
            ResourceId::CPU => Some((*resource, *weight, nonzero[0])),
            ResourceId::MEMORY => Some((*resource, *weight, nonzero[1])),
            other => Some((other, *weight, request(other))).filter(|(_, _, asked)| *asked > 0 || other.is_native()),
        });
        let balanced = rules.balanced.iter().map(|resource| (*resource, request(*resource)));
        let mut balanced: Vec<_> = balanced.filter(|(resource, asked)| *asked > 0 || resource.is_native()).collect();
        if balanced.iter().all(|(_, asked)| *asked == 0) {
            balanced.clear();
        }
        let shares_gpus = rules.filters.has(Plugin::GPUShare);
        let gpu = if shares_gpus { Ask::of(request(ResourceId::GPU_MILLI)) } else { Ask::Nothing };
        Shape {
            scored: scored.collect(),
            balanced,
            requests,
            nonzero,
            tolerations,
            node_name: None,
            node_selector: spec.node_selector.clone().unwrap_or_default().into_iter().collect(),
            only: required.as_deref().filter(|_| rules.narrows).and_then(only),
            required,
            preferred: self::preferred(preferred.into_iter().flatten()),
            ports,
            peers: PeerRules::new(spec),
            ignored,
            gpu,
            rules: Rc::clone(rules),
        }
    }

    /// Whether it restricts nodes by labels or names.
    pub fn is_choosy(&self) -> bool {
        !self.node_selector.is_empty() || self.required.is_some()
    }

    /// Whether a node matches its `nodeSelector` and required node affinity.
    pub fn likes_node(&self, meta: &ObjectMeta) -> bool {
        let label = |key: &str| meta.labels.as_ref().and_then(|l| l.get(key));
        self.node_selector.iter().all(|(key, value)| label(key) == Some(value))
            && self.required.as_ref().is_none_or(|terms| terms.iter().any(|t| t.matches(meta)))
    }

    /// Whether one of its tolerations tolerates the taint.
    pub fn tolerates(&self, key: &str, value: &str, effect: Effect) -> bool {
        self.tolerations.iter().any(|t| t.tolerates(key, value, effect))
    }

    /// Whether its required node affinity can match a node of this name.
    pub fn admits(&self, node: &str) -> bool {
        self.only.as_ref().is_none_or(|names| names.binary_search_by(|n| n.as_str().cmp(node)).is_ok())
    }

    /// Its requests that NodeResourcesFit's filter looks at.
    pub fn checked(&self) -> impl Iterator<Item = (ResourceId, i64)> {
        self.requests.iter().copied().filter(|(r, _)| self.ignored.is_empty() || !self.ignored.contains(r))
    }

    /// How much of a resource it requests.
    pub fn request(&self, resource: ResourceId) -> i64 {
        among(&self.requests, resource)
    }
}

/// How much of a resource is among requests.
fn among(requests: &[(ResourceId, i64)], resource: ResourceId) -> i64 {
    requests.iter().find(|(r, _)| *r == resource).map_or(0, |(_, n)| *n)
}

/// Preferred terms with their weights, without those that match nothing or weigh nothing.
pub(super) fn preferred<'a>(terms: impl Iterator<Item = &'a core_v1::PreferredSchedulingTerm>) -> Vec<(i64, Term)> {
    let terms = terms.map(|p| (i64::from(p.weight.max(0)), Term::new(&p.preference)));
    terms.filter(|(weight, term)| *weight > 0 && !term.is_empty()).collect()
}

/// The only node names that can match, where one of the terms must; `None` if a term does not restrict names.
fn only(terms: &[Term]) -> Option<Vec<String>> {
    let mut all = Vec::new();
    for term in terms {
        all.extend(term.only()?);
    }
    // Without a term nothing matches, but not because of the name.
    if terms.is_empty() {
        return None;
    }
    all.sort_unstable();
    all.dedup();
    Some(all)
}

/// Exact amounts by resource. They are rounded only after all amounts of a pod are added up.
type Amounts = BTreeMap<ResourceId, Nano>;

fn add(to: &mut Amounts, from: &Amounts) {
    for (r, n) in from {
        to.entry(*r).or_default().0 += n.0;
    }
}

fn raise(to: &mut Amounts, from: &Amounts) {
    for (r, n) in from {
        let entry = to.entry(*r).or_default();
        *entry = (*entry).max(*n);
    }
}

fn amounts(list: Option<&BTreeMap<String, Quantity>>, resources: &mut ResourceNames) -> Amounts {
    let known = list.into_iter().flatten();
    known.filter_map(|(name, q)| resources.id(name).map(|id| (id, Nano::of(q).max(Nano(0))))).collect()
}

/// The requests that a pod's status shows by container, which matter while its containers are being resized.
struct Resize<'a> {
    statuses: Vec<(&'a str, &'a core_v1::ContainerStatus)>,
    /// Whether the resize is infeasible on the node, so that the spec's requests do not count.
    infeasible: bool,
}

impl<'a> Resize<'a> {
    fn new(status: &'a PodStatus) -> Resize<'a> {
        let all = status.container_statuses.iter().chain(&status.init_container_statuses);
        let said = all.filter_map(|c| {
            c.rest.as_deref().filter(|r| r.resources.is_some()).map(|r| (c.name.get().unwrap_or(""), r))
        });
        let pending = status.condition(&Text::from("PodResizePending"));
        Resize { statuses: said.collect(), infeasible: pending.is_some_and(|c| c.reason == *"Infeasible") }
    }

    /// The requests that count for a container (`determineContainerReqs`): the greatest of spec, allocated and actual.
    fn requests(&self, c: &core_v1::Container, resources: &mut ResourceNames) -> Amounts {
        let asked = c.resources.as_ref().and_then(|r| r.requests.as_ref());
        let Some((_, status)) = self.statuses.iter().find(|(name, _)| *name == c.name) else {
            return amounts(asked, resources);
        };
        let mut most = amounts(status.resources.as_ref().and_then(|r| r.requests.as_ref()), resources);
        raise(&mut most, &amounts(status.allocated_resources.as_ref(), resources));
        if !self.infeasible {
            raise(&mut most, &amounts(asked, resources));
        }
        most
    }
}

fn is_pod_level(r: ResourceId, resources: &ResourceNames) -> bool {
    r == ResourceId::CPU || r == ResourceId::MEMORY || resources.name(r).starts_with("hugepages-")
}

/// A pod's requests (`resourcehelper.PodRequests`). `defaults` replace the requests that a container lacks.
fn pod_requests(spec: &PodSpec, resize: &Resize<'_>, defaults: &Amounts, resources: &mut ResourceNames) -> Amounts {
    let mut of = |c: &core_v1::Container| {
        let mut asked = resize.requests(c, resources);
        for (r, n) in defaults {
            asked.entry(*r).or_insert(*n);
        }
        asked
    };
    let mut total = Amounts::new();
    for c in &spec.containers {
        add(&mut total, &of(c));
    }
    // Sidecars keep running beside the containers after them; other init containers run one at a time.
    let (mut sidecars, mut peak) = (Amounts::new(), Amounts::new());
    for c in spec.init_containers.iter().flatten() {
        let mut asked = of(c);
        if is_restartable_init(c) {
            add(&mut total, &asked);
            add(&mut sidecars, &asked);
            raise(&mut peak, &sidecars);
        } else {
            add(&mut asked, &sidecars);
            raise(&mut peak, &asked);
        }
    }
    raise(&mut total, &peak);
    for (r, n) in amounts(spec.resources.as_ref().and_then(|r| r.requests.as_ref()), resources) {
        if is_pod_level(r, resources) {
            total.insert(r, n);
        }
    }
    add(&mut total, &amounts(spec.overhead.as_ref(), resources));
    total
}

/// A pod's requests, and its CPU and memory requests with defaults for scores. The defaults apply to each container
/// that lacks a request. For a pod with pod-level requests they apply only to a resource that neither the pod nor any
/// container requests (`getNonMissingContainerRequests`).
fn requests(spec: &PodSpec, resize: &Resize<'_>, resources: &mut ResourceNames) -> (Vec<(ResourceId, i64)>, [i64; 2]) {
    let plain = pod_requests(spec, resize, &Amounts::new(), resources);
    let mut defaults =
        Amounts::from([(ResourceId::CPU, DEFAULT_MILLI_CPU), (ResourceId::MEMORY, Nano::units(DEFAULT_MEMORY))]);
    let whole = amounts(spec.resources.as_ref().and_then(|r| r.requests.as_ref()), resources);
    if whole.keys().any(|r| is_pod_level(*r, resources)) {
        defaults.retain(|r, _| !plain.contains_key(r));
    }
    let full = pod_requests(spec, resize, &defaults, resources);
    let counted = |all: &Amounts, r: ResourceId| all.get(&r).map_or(0, |n| ResourceNames::rounded(r, *n));
    let nonzero = [ResourceId::CPU, ResourceId::MEMORY].map(|r| counted(&full, r));
    let asked = plain.iter().map(|(r, n)| (*r, ResourceNames::rounded(*r, *n)));
    (asked.filter(|(r, n)| *r != ResourceId::PODS && *n > 0).collect(), nonzero)
}

/// Whether a pod's status shows its containers' resources, so that they count in addition to its spec.
fn is_resized(status: &PodStatus) -> bool {
    let all = status.container_statuses.iter().chain(&status.init_container_statuses);
    all.into_iter().any(|c| c.rest.as_ref().is_some_and(|r| r.resources.is_some()))
}

/// A shape, as a number.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct ShapeId(pub u32);

#[derive(Debug)]
struct Held {
    shape: Rc<Shape>,
    /// How many pods have it.
    pods: u32,
}

/// The shapes of all pods, each held once.
#[derive(Debug, Default)]
pub struct Shapes {
    held: BTreeMap<ShapeId, Held>,
    ids: BTreeMap<Rc<Shape>, ShapeId>,
    /// Numbers are never reused, so what is stored under a number never belongs to another shape.
    next: u32,
    /// The shape of each known spec, by the spec's fingerprint. It names the scheduler, and so the rules.
    specs: BTreeMap<u64, Vec<(SharedPodSpec, ShapeId)>>,
}

impl Shapes {
    /// Takes the shape of a new pod, which these rules schedule.
    pub fn take(&mut self, pod: &Pod, resources: &mut ResourceNames, rules: &Rc<Rules>) -> ShapeId {
        let spec = &pod.spec.shared;
        let id = if is_resized(&pod.status) {
            self.sweep();
            self.intern(Shape::new(spec, &pod.status, resources, rules))
        } else {
            self.of_spec(spec, resources, rules)
        };
        self.held_mut(id).pods += 1;
        id
    }

    fn of_spec(&mut self, spec: &SharedPodSpec, resources: &mut ResourceNames, rules: &Rc<Rules>) -> ShapeId {
        let print = spec.fingerprint();
        let known = self.specs.get(&print).and_then(|specs| specs.iter().find(|(known, _)| known == spec));
        if let Some((_, id)) = known {
            return *id;
        }
        self.sweep();
        let id = self.intern(Shape::new(spec, &PodStatus::default(), resources, rules));
        self.specs.entry(print).or_default().push((spec.clone(), id));
        id
    }

    /// Releases the shape of a pod that is gone.
    pub fn release(&mut self, id: ShapeId) {
        let pods = &mut self.held_mut(id).pods;
        *pods = pods.checked_sub(1).expect("a shape is released once for each pod that took it");
    }

    /// The shape with a number that a pod has taken.
    pub fn get(&self, id: ShapeId) -> &Rc<Shape> {
        &self.held.get(&id).expect("a shape is held while pods are of it").shape
    }

    fn held_mut(&mut self, id: ShapeId) -> &mut Held {
        self.held.get_mut(&id).expect("a shape is held while pods are of it")
    }

    fn intern(&mut self, shape: Shape) -> ShapeId {
        if let Some(id) = self.ids.get(&shape) {
            return *id;
        }
        let shape = Rc::new(shape);
        let id = ShapeId(self.next);
        self.next += 1;
        self.held.insert(id, Held { shape: Rc::clone(&shape), pods: 0 });
        self.ids.insert(shape, id);
        id
    }

    /// Forgets unused specs and shapes once there are many.
    fn sweep(&mut self) {
        if self.specs.len() < limits::SCHEDULER_SHAPES {
            return;
        }
        self.specs.clear();
        let ids = &mut self.ids;
        self.held.retain(|_, held| {
            if held.pods == 0 {
                ids.remove(&held.shape);
            }
            held.pods > 0
        });
    }
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use serde_json::{Value, json};

    use super::{ResourceId, ResourceNames, Shape, Shapes};
    use crate::limits;
    use crate::object::{Object, Pod, PodStatus};

    fn pod(mut whole: Value) -> Pod {
        let meta = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "d"}});
        json_patch::merge(&mut whole, &meta);
        let Object::Pod(pod) = Object::from_json(whole).unwrap() else { panic!() };
        pod
    }

    fn shape(spec: Value) -> Shape {
        let (spec, rules) = (serde_json::from_value(spec).unwrap(), Rc::default());
        Shape::new(&spec, &PodStatus::default(), &mut ResourceNames::default(), &rules)
    }

    fn check_requests(spec: Value, cpu: i64, memory: i64, nonzero: [i64; 2]) {
        let s = shape(spec.clone());
        let got = (s.request(ResourceId::CPU), s.request(ResourceId::MEMORY), s.nonzero);
        assert_eq!(got, (cpu, memory, nonzero), "{spec}");
    }

    fn container(cpu: &str, memory: &str) -> Value {
        json!({"name": "c", "resources": {"requests": {"cpu": cpu, "memory": memory}}})
    }

    fn sidecar(cpu: &str, memory: &str) -> Value {
        let mut c = container(cpu, memory);
        c["restartPolicy"] = json!("Always");
        c
    }

    #[test]
    fn requests_as_kubernetes_sums_them() {
        check_requests(json!({"containers": [{"name": "c"}]}), 0, 0, [100, 200 << 20]);
        check_requests(
            json!({"containers": [container("100m", "1Mi"), container("1", "1Mi")]}),
            1100,
            2 << 20,
            [1100, 2 << 20],
        );
        let init =
            json!({"containers": [container("2", "1")], "initContainers": [container("3", "1"), container("1", "5")]});
        check_requests(init, 3000, 5, [3000, 5]);
        let side = json!({"containers": [container("1", "1")],
            "initContainers": [sidecar("2", "1"), container("2", "9"), sidecar("1", "1")]});
        check_requests(side, 4000, 10, [4000, 10]);
        let overhead = json!({"containers": [container("1", "1")], "overhead": {"cpu": "250m"}});
        check_requests(overhead, 1250, 1, [1250, 1]);
        let pod_level = json!({"containers": [{"name": "c"}], "resources": {"requests": {"cpu": "3"}}});
        check_requests(pod_level, 3000, 0, [3000, 200 << 20]);
        let one_asks =
            json!({"containers": [container("1", "1"), {"name": "d"}], "resources": {"requests": {"cpu": "3"}}});
        check_requests(one_asks, 3000, 1, [3000, 1]);
        // Fractions of a byte are added up before the sum is rounded.
        let parts = json!({"containers": [container("500u", "400m"), container("500u", "400m")]});
        check_requests(parts, 1, 1, [1, 1]);
        check_requests(json!({"containers": [container("1", "300Ti")]}), 1000, 300 << 40, [1000, 300 << 40]);
        check_requests(json!({"containers": [container("-1", "x")]}), 0, 0, [0, 0]);
    }

    #[test]
    fn a_resize_under_way_counts_the_greater() {
        let check = |conditions: Value, resources: Value, expect: i64| {
            let mut names = ResourceNames::default();
            let of_container = json!({"name": "c", "image": "", "imageID": "", "ready": true, "restartCount": 0,
                "resources": resources, "allocatedResources": {"cpu": "1500m"}});
            let status = json!({"conditions": conditions, "containerStatuses": [of_container]});
            let p = pod(json!({"spec": {"containers": [container("2", "1")]}, "status": status}));
            let (mut shapes, id) = (Shapes::default(), 0);
            let taken = shapes.take(&p, &mut names, &Rc::default());
            assert_eq!((taken.0, shapes.get(taken).request(ResourceId::CPU)), (id, expect), "{conditions} {resources}");
        };
        let has = |cpu: &str| json!({"requests": {"cpu": cpu}});
        let pending = |reason: &str| json!([{"type": "PodResizePending", "status": "True", "reason": reason}]);
        check(json!([]), has("1"), 2000);
        check(json!([]), has("3"), 3000);
        check(pending("Deferred"), has("1"), 2000);
        check(pending("Infeasible"), has("1"), 1500);
        check(pending("Infeasible"), Value::Null, 2000);
    }

    #[test]
    fn what_does_not_matter_is_not_in_the_shape() {
        let exists = json!({"key": "a", "operator": "Exists"});
        let for_a_while = json!({"key": "b", "value": "c", "effect": "NoExecute", "tolerationSeconds": 3});
        let for_ever = json!({"key": "b", "operator": "Equal", "value": "c", "effect": "NoExecute"});
        let a = json!({"containers": [container("1", "1")], "priority": 5, "tolerations": [exists, for_a_while]});
        let mut other = container("1000m", "1");
        other["image"] = json!("i");
        let b = json!({"containers": [other], "tolerations": [for_ever, exists]});
        let (a, b) = (shape(a), shape(b));
        assert_eq!(a, b);
        assert_ne!(a, shape(json!({"containers": [container("2", "1")]})));
    }

    #[test]
    fn names_in_required_affinity_narrow_the_nodes() {
        let affinity = |terms: Value| {
            shape(json!({"containers": [], "affinity": {"nodeAffinity":
                {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}}}))
            .only
        };
        let name = |n: &[&str]| json!({"matchFields": [{"key": "metadata.name", "operator": "In", "values": n}]});
        assert_eq!(affinity(json!([name(&["b"]), name(&["a"])])), Some(vec!["a".to_owned(), "b".to_owned()]));
        assert_eq!(affinity(json!([name(&["b"]), {"matchExpressions": [{"key": "a", "operator": "Exists"}]}])), None);
        let both = json!({"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["a"]},
            {"key": "metadata.name", "operator": "In", "values": ["b"]}]});
        assert_eq!(affinity(json!([both])), Some(vec![]));
    }

    #[test]
    fn shapes_are_shared_and_swept() {
        let (mut shapes, mut names, rules) = (Shapes::default(), ResourceNames::default(), Rc::default());
        let spec = |cpu: usize| {
            let spec = json!({"containers": [container(&format!("{cpu}m"), "1")]});
            pod(json!({"spec": spec}))
        };
        let kept = spec(1);
        let id = shapes.take(&kept, &mut names, &rules);
        assert_eq!(shapes.take(&spec(1), &mut names, &rules), id);
        shapes.release(id);
        for cpu in 2..limits::SCHEDULER_SHAPES * 2 {
            let other = shapes.take(&spec(cpu), &mut names, &rules);
            shapes.release(other);
        }
        assert!(shapes.held.len() <= limits::SCHEDULER_SHAPES + 1);
        assert_eq!(shapes.take(&kept, &mut names, &rules), id);
        assert!(Rc::ptr_eq(shapes.get(id), shapes.ids.get_key_value(shapes.get(id)).unwrap().0));
    }
}
