//! The naive scheduler: filters and scores from API objects, each time from scratch, as in the documents and the source
//! of kube-scheduler.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1 as core_v1;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

use super::devices::{Allocation, Devices};
use super::gpu::GPU;
use super::storage::{ClaimName, Step, Storage};
use crate::object::{Labels, Nano, Node, Pod, Selector};
use crate::scheduler::profile::{Plugin, Profile, Strategy};

/// A pod with its requests, which are computed once.
pub struct Naive {
    pub pod: Pod,
    labels: Labels,
    near: Vec<Term>,
    far: Vec<Term>,
    preferred: Vec<(i64, Term)>,
    spread: Vec<(bool, Spread)>,
    asked: BTreeMap<&'static str, i64>,
    asked_or_default: BTreeMap<&'static str, i64>,
    pub priority: i32,
    /// Its annotations before it is bound.
    pub annotations: Option<Labels>,
    /// The node that it is on.
    pub on: Option<String>,
    /// The node that it is nominated for.
    pub nominated: Option<String>,
    /// Whether it is evicted to make room for another.
    pub is_victim: bool,
    /// What was decided for its claims and is not stored yet.
    pub steps: Vec<Step>,
    /// What was decided for its claims for devices and is not stored yet.
    pub allocations: Vec<(ClaimName, Allocation)>,
    /// Whether it has never been tried, since its claims or its group are not there.
    pub waits: bool,
}

/// The cluster, as API objects.
#[derive(Default)]
pub struct World {
    /// How pods are scheduled.
    pub profiles: Vec<Profile>,
    pub nodes: BTreeMap<String, Node>,
    pub pods: BTreeMap<String, Naive>,
    pub namespaces: BTreeMap<String, Labels>,
    /// The selector of the only Service in each namespace.
    pub services: BTreeMap<String, Labels>,
    /// The selector of the only ReplicaSet in each namespace, which is called `set`.
    pub sets: BTreeMap<String, Labels>,
    /// The only PodDisruptionBudget in each namespace, and how many evictions it allows.
    pub budgets: BTreeMap<String, (Labels, i32)>,
    /// Claims, volumes and what they depend on.
    pub storage: Storage,
    /// Claims for devices, and devices.
    pub devices: Devices,
    /// The least number of pods of each group that is a gang; none of one that is not.
    pub groups: BTreeMap<super::gangs::Name, Option<usize>>,
}

const RESOURCES: [&str; 5] = ["cpu", "memory", "ephemeral-storage", "example.com/gpu", GPU];
const HOSTNAME: &str = "kubernetes.io/hostname";
const ZONE: &str = "topology.kubernetes.io/zone";

fn amount(list: Option<&BTreeMap<String, Quantity>>, name: &str) -> Nano {
    list.and_then(|l| l.get(name)).map_or(Nano(0), Nano::of)
}

/// An amount in the unit of kube-scheduler, rounded up.
fn rounded(name: &str, n: Nano) -> i64 {
    let unit = if name == "cpu" { 1_000_000 } else { 1_000_000_000 };
    ((n.0 + unit - 1) / unit) as i64
}

/// What a node has of a resource.
pub fn allocatable(node: &Node, name: &str) -> i64 {
    rounded(name, amount(node.status.allocatable.as_ref(), name))
}

fn is_extended(name: &str) -> bool {
    name == "example.com/gpu" || name == GPU
}

fn whole_pod(pod: &Pod) -> Option<&BTreeMap<String, Quantity>> {
    pod.spec.resources.as_ref().and_then(|r| r.requests.as_ref())
}

fn requests(c: &core_v1::Container) -> Option<&BTreeMap<String, Quantity>> {
    c.resources.as_ref().and_then(|r| r.requests.as_ref())
}

/// The requests that count for a container: the greatest of spec and status, or the status if the resize is infeasible.
fn counted(pod: &Pod, c: &core_v1::Container, name: &str) -> Nano {
    let status = pod.status.container_statuses.iter().find(|s| s.name == *c.name.as_str());
    let Some(said) = status.and_then(|s| s.rest.as_ref()).filter(|r| r.resources.is_some()) else {
        return amount(requests(c), name);
    };
    let infeasible = pod.status.conditions.iter().any(|c| c.type_ == *"PodResizePending" && c.reason == *"Infeasible");
    let given = amount(said.allocated_resources.as_ref(), name);
    let taken = amount(said.resources.as_ref().and_then(|r| r.requests.as_ref()), name);
    let asked = if infeasible { Nano(0) } else { amount(requests(c), name) };
    given.max(taken).max(asked)
}

fn asked(pod: &Pod, name: &str) -> i64 {
    let exact = if whole_pod(pod).is_some_and(|r| r.contains_key(name)) && !is_extended(name) {
        amount(whole_pod(pod), name)
    } else {
        Nano(pod.spec.containers.iter().map(|c| counted(pod, c, name).0).sum())
    };
    rounded(name, exact)
}

fn asked_or_default(pod: &Pod, name: &str, default: Nano) -> i64 {
    let mine = whole_pod(pod).is_some_and(|r| r.contains_key("cpu") || r.contains_key("memory"));
    let somebody = pod.spec.containers.iter().any(|c| requests(c).is_some_and(|r| r.contains_key(name)));
    if mine && (somebody || whole_pod(pod).is_some_and(|r| r.contains_key(name))) {
        return asked(pod, name);
    }
    let of = |c: &core_v1::Container| {
        if requests(c).is_some_and(|r| r.contains_key(name)) { counted(pod, c, name).0 } else { default.0 }
    };
    rounded(name, Nano(pod.spec.containers.iter().map(of).sum()))
}

impl Naive {
    pub fn new(pod: Pod, on: Option<String>) -> Naive {
        let defaults = [("cpu", Nano(100_000_000)), ("memory", Nano((200 << 20) * 1_000_000_000))];
        Naive {
            asked: RESOURCES.iter().map(|r| (*r, asked(&pod, r))).collect(),
            asked_or_default: defaults.iter().map(|(r, d)| (*r, asked_or_default(&pod, r, *d))).collect(),
            labels: pod.meta.labels.clone().unwrap_or_default(),
            near: required(&pod, false).into_iter().map(Term::new).collect(),
            far: required(&pod, true).into_iter().map(Term::new).collect(),
            preferred: preferred(&pod).into_iter().map(|(weight, t)| (weight, Term::new(t))).collect(),
            spread: pod.spec.topology_spread_constraints.iter().flatten().map(|c| spread(&pod, c)).collect(),
            priority: pod.spec.priority.unwrap_or(0),
            annotations: pod.meta.annotations.clone(),
            pod,
            on,
            nominated: None,
            is_victim: false,
            steps: Vec::new(),
            allocations: Vec::new(),
            waits: false,
        }
    }

    /// Its request of a resource.
    pub fn asked(&self, name: &str) -> i64 {
        self.asked[name]
    }

    fn is_going(&self) -> bool {
        self.pod.meta.deletion_timestamp.is_some()
    }
}

fn host_ports(pod: &Pod) -> Vec<(i32, String, String)> {
    let ports = pod.spec.containers.iter().flat_map(|c| c.ports.iter().flatten());
    let ports = ports.filter(|p| p.host_port.is_some());
    ports
        .map(|p| {
            let ip = p.host_ip.clone().unwrap_or_else(|| "0.0.0.0".to_owned());
            (p.host_port.unwrap(), p.protocol.clone().unwrap_or_else(|| "TCP".to_owned()), ip)
        })
        .collect()
}

fn tolerated(pod: &Pod, key: &str, value: &str, effect: &str) -> bool {
    pod.spec.tolerations.iter().flatten().any(|t| {
        let effect_ok = t.effect.as_deref().is_none_or(|e| e == effect);
        let key_ok = t.key.as_deref().is_none_or(|k| k == key);
        let value_ok = t.operator.as_deref() == Some("Exists") || t.value.as_deref().unwrap_or("") == value;
        effect_ok && key_ok && value_ok
    })
}

fn tolerates_node(pod: &Pod, node: &Node) -> bool {
    let mut hard = node.spec.taints.iter().flatten().filter(|t| t.effect != "PreferNoSchedule");
    hard.all(|t| tolerated(pod, &t.key, t.value.as_deref().unwrap_or(""), &t.effect))
}

fn requirement(labels: &Labels, r: &core_v1::NodeSelectorRequirement) -> bool {
    let value = labels.get(&r.key);
    let values = r.values.clone().unwrap_or_default();
    match r.operator.as_str() {
        "In" => value.is_some_and(|v| values.contains(v)),
        "NotIn" => value.is_none_or(|v| !values.contains(v)),
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        "Gt" => value.and_then(|v| v.parse::<i64>().ok()).is_some_and(|v| v > values[0].parse::<i64>().unwrap()),
        "Lt" => value.and_then(|v| v.parse::<i64>().ok()).is_some_and(|v| v < values[0].parse::<i64>().unwrap()),
        other => panic!("{other}"),
    }
}

fn term(node: &Node, t: &core_v1::NodeSelectorTerm) -> bool {
    let labels = node.meta.labels.clone().unwrap_or_default();
    let name = BTreeMap::from([("metadata.name".to_owned(), node.name().to_owned())]);
    let (e, f) = (t.match_expressions.iter().flatten(), t.match_fields.iter().flatten());
    (e.clone().count() + f.clone().count() > 0)
        && e.into_iter().all(|r| requirement(&labels, r))
        && f.into_iter().all(|r| requirement(&name, r))
}

fn node_affinity(pod: &Pod) -> Option<&core_v1::NodeAffinity> {
    pod.spec.affinity.as_ref()?.node_affinity.as_ref()
}

fn likes_node(pod: &Pod, node: &Node) -> bool {
    let labels = node.meta.labels.clone().unwrap_or_default();
    let required = node_affinity(pod).and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref());
    pod.spec.node_selector.iter().flatten().all(|(k, v)| labels.get(k) == Some(v))
        && required.is_none_or(|s| s.node_selector_terms.iter().any(|t| term(node, t)))
}

/// A missing selector selects nothing.
fn parse(selector: Option<&LabelSelector>) -> Selector {
    selector.map_or_else(Selector::nothing, |s| Selector::from_label_selector(s).unwrap())
}

/// A constraint, and whether it is `DoNotSchedule`.
fn spread(pod: &Pod, c: &core_v1::TopologySpreadConstraint) -> (bool, Spread) {
    let labels = pod.meta.labels.clone().unwrap_or_default();
    let mut selector = parse(c.label_selector.as_ref());
    for key in c.match_label_keys.iter().flatten().filter(|key| labels.contains_key(*key)) {
        let same = Selector::from_map(&Labels::from([(key.clone(), labels[key].clone())]));
        selector.requirements.extend(same.requirements);
    }
    let spread = Spread {
        key: c.topology_key.clone(),
        max_skew: i64::from(c.max_skew),
        min_domains: i64::from(c.min_domains.unwrap_or(1)),
        selector,
        affinity: c.node_affinity_policy.as_deref() != Some("Ignore"),
        taints: c.node_taints_policy.as_deref() == Some("Honor"),
    };
    (c.when_unsatisfiable == "DoNotSchedule", spread)
}

fn get<'a>(node: &'a Node, key: &str) -> Option<&'a String> {
    node.meta.labels.as_ref().and_then(|l| l.get(key))
}

/// A pod affinity term, and its selectors.
struct Term {
    term: core_v1::PodAffinityTerm,
    namespaces: Selector,
    pods: Selector,
}

impl Term {
    fn new(term: core_v1::PodAffinityTerm) -> Term {
        let (namespaces, pods) = (parse(term.namespace_selector.as_ref()), parse(term.label_selector.as_ref()));
        Term { term, namespaces, pods }
    }
}

/// A spread constraint with its defaults.
#[derive(Clone)]
struct Spread {
    key: String,
    max_skew: i64,
    min_domains: i64,
    selector: Selector,
    affinity: bool,
    taints: bool,
}

/// The pods on nodes, each with its node.
pub type Placed<'a> = Vec<(&'a Naive, &'a Node)>;

/// By straight lines between points, each a share in percent and a score from 0 to 10.
fn broken_line(points: &[(i64, i64)], share: i64) -> i64 {
    let before = points.iter().rev().find(|(at, _)| *at <= share);
    let after = points.iter().find(|(at, _)| *at >= share);
    match (before, after) {
        (Some((_, score)), None) | (None, Some((_, score))) => score * 10,
        (Some((from, low)), Some((to, high))) if to > from => {
            low * 10 + (high - low) * 10 * (share - from) / (to - from)
        }
        (Some((_, score)), Some(_)) => score * 10,
        (None, None) => panic!("a shape has a point"),
    }
}

impl World {
    /// The profile that schedules a pod.
    pub fn profile(&self, pod: &Pod) -> Option<&Profile> {
        let name = pod.spec.scheduler_name.clone().unwrap_or_default();
        let name = if name.is_empty() { "default-scheduler".to_owned() } else { name };
        self.profiles.iter().find(|p| p.name == name)
    }

    fn filters(&self, pod: &Naive, plugin: Plugin) -> bool {
        self.profile(&pod.pod).unwrap().filters.has(plugin)
    }

    pub fn placed(&self) -> Placed<'_> {
        let on = |p: &Naive| p.on.as_ref().and_then(|on| self.nodes.get(on));
        self.pods.values().filter_map(|p| on(p).map(|node| (p, node))).collect()
    }

    fn spreads(&self, pod: &Naive, hard: bool) -> (Vec<Spread>, bool) {
        let labels = &pod.labels;
        if !pod.spread.is_empty() {
            let own = pod.spread.iter().filter(|(is_hard, _)| *is_hard == hard);
            return (own.map(|(_, s)| s.clone()).collect(), true);
        }
        let mut wanted = Labels::new();
        let namespace = pod.pod.namespace();
        let service = self.services.get(namespace).filter(|s| s.iter().all(|(k, v)| labels.get(k) == Some(v)));
        wanted.extend(service.into_iter().flatten().map(|(k, v)| (k.clone(), v.clone())));
        let owned = pod.pod.meta.owner_references.iter().flatten().any(|o| o.name == "set");
        let set = self.sets.get(namespace).filter(|_| owned);
        wanted.extend(set.into_iter().flatten().map(|(k, v)| (k.clone(), v.clone())));
        if wanted.is_empty() {
            return (Vec::new(), false);
        }
        if let Some(constraints) = &self.profile(&pod.pod).unwrap().default_constraints {
            let of_owner = |(is_hard, s)| (is_hard, Spread { selector: Selector::from_map(&wanted), ..s });
            let all = constraints.iter().map(|c| of_owner(spread(&pod.pod, c)));
            return (all.filter(|(is_hard, _)| *is_hard == hard).map(|(_, s)| s).collect(), true);
        }
        if hard {
            return (Vec::new(), false);
        }
        let default = |key: &str, max_skew| Spread {
            key: key.to_owned(),
            max_skew,
            min_domains: 1,
            selector: Selector::from_map(&wanted),
            affinity: true,
            taints: false,
        };
        (vec![default(ZONE, 5), default(HOSTNAME, 3)], false)
    }

    /// How many pods on a node count.
    fn matching(pod: &Naive, node: &Node, s: &Spread, placed: &Placed<'_>) -> i64 {
        if s.selector.is_everything() {
            return 0;
        }
        let counts = |(other, on): &&(&Naive, &Node)| {
            on.name() == node.name()
                && !other.is_going()
                && other.pod.namespace() == pod.pod.namespace()
                && s.selector.matches(Some(&other.labels))
        };
        placed.iter().filter(counts).count() as i64
    }

    fn includes(pod: &Naive, node: &Node, s: &Spread) -> bool {
        (!s.affinity || likes_node(&pod.pod, node)) && (!s.taints || tolerates_node(&pod.pod, node))
    }

    fn spread_refusal(&self, pod: &Naive, node: &Node, placed: &Placed<'_>) -> Option<(String, bool)> {
        if !self.filters(pod, Plugin::PodTopologySpread) {
            return None;
        }
        let (constraints, _) = self.spreads(pod, true);
        for s in &constraints {
            let Some(here) = get(node, &s.key) else {
                let why = "node(s) didn't match pod topology spread constraints (missing required label)";
                return Some((why.to_owned(), true));
            };
            let mut domains: BTreeMap<&String, i64> = BTreeMap::new();
            let has_all = |n: &&Node| constraints.iter().all(|c| get(n, &c.key).is_some());
            for n in self.nodes.values().filter(has_all).filter(|n| World::includes(pod, n, s)) {
                *domains.entry(get(n, &s.key).unwrap()).or_insert(0) += World::matching(pod, n, s, placed);
            }
            let few = (domains.len() as i64) < s.min_domains;
            let least = if few { 0 } else { domains.values().min().copied().unwrap_or(0) };
            let itself = i64::from(s.selector.matches(Some(&pod.labels)));
            if domains.get(here).copied().unwrap_or(0) + itself - least > s.max_skew {
                return Some(("node(s) didn't match pod topology spread constraints".to_owned(), false));
            }
        }
        None
    }

    /// Whether a term of one pod selects another.
    fn means(&self, owner: &Naive, term: &Term, other: &Naive) -> bool {
        let (namespace, t) = (other.pod.namespace(), &term.term);
        let named = match (&t.namespaces, &t.namespace_selector) {
            (None, None) => namespace == owner.pod.namespace(),
            (names, _) if names.iter().flatten().any(|n| n == namespace) => true,
            (_, _) => term.namespaces.matches(self.namespaces.get(namespace)),
        };
        let (mine, theirs) = (&owner.labels, &other.labels);
        let same = |key: &String| mine.get(key).is_none_or(|v| theirs.get(key) == Some(v));
        let differs = |key: &String| mine.get(key).is_none_or(|v| theirs.get(key) != Some(v));
        named
            && term.pods.matches(Some(theirs))
            && t.match_label_keys.iter().flatten().all(same)
            && t.mismatch_label_keys.iter().flatten().all(differs)
    }

    fn affinity_refusal(&self, pod: &Naive, node: &Node, placed: &Placed<'_>) -> Option<(String, bool)> {
        if !self.filters(pod, Plugin::InterPodAffinity) {
            return None;
        }
        let terms = &pod.near;
        if terms.iter().any(|t| get(node, &t.term.topology_key).is_none()) {
            return Some(("node(s) didn't match pod affinity rules".to_owned(), true));
        }
        let all = |other: &Naive| terms.iter().all(|t| self.means(pod, t, other));
        let near = |t: &Term, on: &Node| get(on, &t.term.topology_key) == get(node, &t.term.topology_key);
        let met = |t: &Term| placed.iter().any(|(other, on)| all(other) && near(t, on));
        if !terms.iter().all(met) {
            let labelled = |on: &Node| terms.iter().any(|t| get(on, &t.term.topology_key).is_some());
            let nobody = !placed.iter().any(|(other, on)| all(other) && labelled(on));
            if !(nobody && all(pod)) {
                return Some(("node(s) didn't match pod affinity rules".to_owned(), true));
            }
        }
        let shares = |t: &Term, on: &Node| get(node, &t.term.topology_key).is_some() && near(t, on);
        for t in &pod.far {
            if placed.iter().any(|(other, on)| self.means(pod, t, other) && shares(t, on)) {
                return Some(("node(s) didn't match pod anti-affinity rules".to_owned(), false));
            }
        }
        for (other, on) in placed {
            if other.far.iter().any(|t| self.means(other, t, pod) && shares(t, on)) {
                return Some(("node(s) didn't satisfy existing pods anti-affinity rules".to_owned(), false));
            }
        }
        None
    }

    /// Why a node is not feasible for a pod while these pods are on nodes, and whether no eviction helps.
    pub fn reasons(&self, pod: &Naive, node: &Node, placed: &Placed<'_>) -> Option<(Vec<String>, bool)> {
        let one = |s: &str, hopeless| Some((vec![s.to_owned()], hopeless));
        let (p, on) = (&pod.pod, |plugin| self.filters(pod, plugin));
        let cordoned = node.spec.unschedulable == Some(true);
        if on(Plugin::NodeUnschedulable)
            && cordoned
            && !tolerated(p, "node.kubernetes.io/unschedulable", "", "NoSchedule")
        {
            return one("node(s) were unschedulable", true);
        }
        if on(Plugin::TaintToleration) && !tolerates_node(p, node) {
            return one("node(s) had untolerated taint(s)", true);
        }
        let added = &self.profile(p).unwrap().added_affinity.required_during_scheduling_ignored_during_execution;
        if on(Plugin::NodeAffinity)
            && added.as_ref().is_some_and(|s| !s.node_selector_terms.iter().any(|t| term(node, t)))
        {
            return one("node(s) didn't match scheduler-enforced node affinity", true);
        }
        if on(Plugin::NodeAffinity) && !likes_node(p, node) {
            return one("node(s) didn't match Pod's node affinity/selector", true);
        }
        if let Some(why) = self.usage_reasons(pod, node, placed) {
            return Some(why);
        }
        if let Some(why) = self.volume_refusal(pod, node, placed) {
            return Some(why);
        }
        let others = self.spread_refusal(pod, node, placed).or_else(|| self.affinity_refusal(pod, node, placed));
        let devices = || self.device_refusal(pod, node).map(|why| (why, true));
        others.or_else(devices).map(|(why, hopeless)| (vec![why], hopeless))
    }

    /// Why the pods on a node leave no room for a pod.
    fn usage_reasons(&self, pod: &Naive, node: &Node, placed: &Placed<'_>) -> Option<(Vec<String>, bool)> {
        let profile = self.profile(&pod.pod).unwrap();
        let here: Vec<&Naive> = placed.iter().filter(|(_, on)| on.name() == node.name()).map(|(p, _)| *p).collect();
        let taken: Vec<_> = here.iter().flat_map(|p| host_ports(&p.pod)).collect();
        let wanted = host_ports(&pod.pod).into_iter().filter(|_| profile.filters.has(Plugin::NodePorts));
        for (port, protocol, ip) in wanted {
            let any = "0.0.0.0";
            if taken.iter().any(|(p, q, i)| *p == port && *q == protocol && (i == any || ip == any || *i == ip)) {
                return Some((vec!["node(s) didn't have free ports for the requested pod ports".to_owned()], false));
            }
        }
        let fits = profile.filters.has(Plugin::NodeResourcesFit);
        let short = if fits { self.shortages(pod, node, &here) } else { None };
        short.or_else(|| self.gpu_refusal(pod, node, &here))
    }

    /// The resources of which a node has too little left.
    fn shortages(&self, pod: &Naive, node: &Node, here: &[&Naive]) -> Option<(Vec<String>, bool)> {
        let profile = self.profile(&pod.pod).unwrap();
        let allocatable = node.status.allocatable.as_ref();
        let (mut short, mut hopeless) = (Vec::new(), false);
        if here.len() as i64 + 1 > rounded("pods", amount(allocatable, "pods")) {
            short.push("Too many pods".to_owned());
        }
        let ignored = |r: &str| {
            let (names, groups) = (&profile.ignored_resources, &profile.ignored_groups);
            let group = r.split('/').next().unwrap();
            is_extended(r) && (names.iter().any(|n| n == r) || groups.iter().any(|g| g == group))
        };
        for r in RESOURCES.into_iter().filter(|r| !ignored(r)) {
            let (wanted, whole) = (pod.asked[r], rounded(r, amount(allocatable, r)));
            let used: i64 = here.iter().map(|p| p.asked[r]).sum();
            if wanted > 0 && wanted > whole - used {
                short.push(format!("Insufficient {r}"));
            }
            hopeless |= wanted > whole;
        }
        if short.is_empty() { None } else { Some((short, hopeless)) }
    }

    /// The scores of NodeResourcesFit and NodeResourcesBalancedAllocation.
    fn resource_scores(&self, pod: &Naive, node: &Node, placed: &Placed<'_>) -> (i64, i64) {
        let profile = self.profile(&pod.pod).unwrap();
        let allocatable = node.status.allocatable.as_ref();
        let before: Vec<&Naive> = placed.iter().filter(|(_, on)| on.name() == node.name()).map(|(p, _)| *p).collect();
        let after: Vec<&Naive> = before.iter().copied().chain([pod]).collect();
        let whole = |r: &str| rounded(r, amount(allocatable, r));
        // Nodes do not count anything else, and pods that do not ask for it are not scored by it.
        let counts = |r: &&str| RESOURCES.contains(r) && whole(r) > 0 && (!is_extended(r) || pod.asked[*r] > 0);
        let (mut sum, mut weights) = (0, 0);
        for (r, weight) in profile.resources.iter().map(|(r, weight)| (r.as_str(), *weight)) {
            if !counts(&r) {
                continue;
            }
            let of = |p: &&Naive| p.asked_or_default.get(r).copied().unwrap_or_else(|| p.asked[r]);
            let (whole, used) = (i128::from(whole(r)), after.iter().map(of).map(i128::from).sum::<i128>());
            let score = match &profile.strategy {
                Strategy::LeastAllocated => (whole - used).max(0) * 100 / whole,
                Strategy::MostAllocated => used.min(whole) * 100 / whole,
                Strategy::RequestedToCapacityRatio(points) => {
                    i128::from(broken_line(points, (used.min(whole) * 100 / whole) as i64))
                }
            };
            if score > 0 || !matches!(profile.strategy, Strategy::RequestedToCapacityRatio(_)) {
                sum += score as i64 * weight;
                weights += weight;
            }
        }
        let fit = match &profile.strategy {
            _ if weights == 0 => 0,
            Strategy::RequestedToCapacityRatio(_) => (sum as f64 / weights as f64).round() as i64,
            Strategy::LeastAllocated | Strategy::MostAllocated => sum / weights,
        };
        let balanced: Vec<&str> =
            profile.balanced.iter().map(String::as_str).filter(|r| RESOURCES.contains(r)).collect();
        let balance = |pods: &[&Naive]| {
            let used = |r: &str| pods.iter().map(|p| p.asked[r]).sum::<i64>() as f64;
            let has = balanced.iter().filter(|r| counts(r));
            let fractions: Vec<f64> = has.map(|r| f64::min(1.0, used(r) / whole(r) as f64)).collect();
            let mean = fractions.iter().sum::<f64>() / fractions.len() as f64;
            let squares = fractions.iter().map(|f| (f - mean) * (f - mean)).sum::<f64>();
            let deviation = match fractions.as_slice() {
                [] | [_] => 0.0,
                [a, b] => ((a - b) / 2.0).abs(),
                all => (squares / all.len() as f64).sqrt(),
            };
            ((1.0 - deviation) * 100.0) as i64
        };
        let any = balanced.iter().any(|r| pod.asked[*r] > 0);
        (fit, if any { 50 + (50 + balance(&after) - balance(&before)) / 2 } else { 0 })
    }

    fn image_score(&self, pod: &Naive, node: &Node) -> i64 {
        const MB: f64 = 1048576.0;
        let spec = &pod.pod.spec;
        let containers: Vec<_> = spec.init_containers.iter().flatten().chain(&spec.containers).collect();
        let volumes = spec.volumes.iter().flatten().filter_map(|v| v.image.as_ref()?.reference.clone());
        let wanted = containers.iter().filter_map(|c| c.image.clone()).chain(volumes);
        let has = |node: &Node, name: &str| {
            let named = |image: &&core_v1::ContainerImage| image.names.iter().flatten().any(|n| n == name);
            node.status.images.iter().flatten().find(named).map(|image| image.size_bytes.unwrap_or(0))
        };
        let worth = |name: String| {
            let tagged = name.rsplit('/').next().is_some_and(|last| last.contains(':'));
            let name = if tagged { name } else { name + ":latest" };
            let holders = self.nodes.values().filter(|n| has(n, &name).is_some()).count() as f64;
            has(node, &name).map_or(0.0, |bytes| (bytes as f64 * (holders / self.nodes.len() as f64)).floor())
        };
        let (sum, most) = (wanted.map(worth).sum::<f64>(), 1000.0 * MB * containers.len() as f64);
        ((sum.clamp(23.0 * MB, most) - 23.0 * MB) * 100.0 / (most - 23.0 * MB)) as i64
    }

    /// The names of the best nodes for a pod; empty if none is feasible.
    pub fn best(&self, pod: &Naive) -> BTreeSet<String> {
        let scores = self.scores(pod);
        let best = scores.values().max();
        scores.iter().filter(|(_, score)| Some(*score) == best).map(|(name, _)| name.clone()).collect()
    }

    /// The scores of the feasible nodes.
    pub fn scores(&self, pod: &Naive) -> BTreeMap<String, i64> {
        let (placed, profile) = (self.placed(), self.profile(&pod.pod).unwrap());
        let feasible: Vec<&Node> = self.nodes.values().filter(|n| self.refusal(pod, n).is_none()).collect();
        let soft = |node: &&&Node| {
            let taints = node.spec.taints.iter().flatten().filter(|t| t.effect == "PreferNoSchedule");
            taints.filter(|t| !tolerated(&pod.pod, &t.key, t.value.as_deref().unwrap_or(""), &t.effect)).count() as i64
        };
        let liked = |node: &&&Node| {
            let both = [node_affinity(&pod.pod), Some(&profile.added_affinity)].into_iter().flatten();
            let terms = both.filter_map(|a| a.preferred_during_scheduling_ignored_during_execution.as_ref());
            terms.flatten().filter(|p| term(node, &p.preference)).map(|p| i64::from(p.weight)).sum::<i64>()
        };
        let max_soft = feasible.iter().map(|n| soft(&n)).max().unwrap_or(0);
        let max_liked = feasible.iter().map(|n| liked(&n)).max().unwrap_or(0);
        let spread = self.spread_scores(pod, &feasible, &placed);
        let affinity = self.affinity_scores(pod, &feasible, &placed);
        let score = |(i, node): (usize, &&Node)| {
            let taint = if max_soft == 0 { 100 } else { 100 - soft(&node) * 100 / max_soft };
            let label = if max_liked == 0 { 0 } else { liked(&node) * 100 / max_liked };
            let (fit, balanced) = self.resource_scores(pod, node, &placed);
            let here: Vec<&Naive> = placed.iter().filter(|(_, on)| on.name() == node.name()).map(|(p, _)| *p).collect();
            let scores = [
                (Plugin::TaintToleration, taint),
                (Plugin::NodeAffinity, label),
                (Plugin::NodeResourcesFit, fit),
                (Plugin::PodTopologySpread, spread[i]),
                (Plugin::InterPodAffinity, affinity[i]),
                (Plugin::NodeResourcesBalancedAllocation, balanced),
                (Plugin::ImageLocality, self.image_score(pod, node)),
                (Plugin::GPUShare, self.gpu_share(pod, node, &here).0),
            ];
            scores.iter().map(|(plugin, score)| profile.weights.of(*plugin) * score).sum::<i64>()
        };
        feasible.iter().enumerate().map(|of| (of.1.name().to_owned(), score(of))).collect()
    }

    fn spread_scores(&self, pod: &Naive, feasible: &[&Node], placed: &Placed<'_>) -> Vec<i64> {
        let (constraints, needs_all) = self.spreads(pod, false);
        if constraints.is_empty() {
            return vec![0; feasible.len()];
        }
        let has_all = |n: &Node| constraints.iter().all(|c| get(n, &c.key).is_some());
        let scored: Vec<bool> = feasible.iter().map(|n| !needs_all || has_all(n)).collect();
        let taking_part = || feasible.iter().zip(&scored).filter(|(_, scored)| **scored).map(|(n, _)| *n);
        let mut raw = vec![0.0; feasible.len()];
        for s in &constraints {
            let by_node = s.key == HOSTNAME;
            let values: BTreeSet<Option<&String>> = taking_part().map(|n| get(n, &s.key)).collect();
            let size = if by_node { taking_part().count() } else { values.len() };
            let weight = (size as f64 + 2.0).ln();
            for (raw, node) in raw.iter_mut().zip(feasible).filter(|(_, n)| get(n, &s.key).is_some()) {
                let counts = |n: &&Node| {
                    get(n, &s.key) == get(node, &s.key) && World::includes(pod, n, s) && (!needs_all || has_all(n))
                };
                let pods: i64 = if by_node {
                    World::matching(pod, node, s, placed)
                } else {
                    self.nodes.values().filter(counts).map(|n| World::matching(pod, n, s, placed)).sum()
                };
                *raw += pods as f64 * weight + (s.max_skew - 1) as f64;
            }
        }
        let raw: Vec<i64> = raw.iter().map(|r: &f64| r.round() as i64).collect();
        let known = || raw.iter().zip(&scored).filter(|(_, scored)| **scored).map(|(raw, _)| *raw);
        let (least, most) = (known().min().unwrap_or(0), known().max().unwrap_or(0));
        let score = |(raw, scored): (&i64, &bool)| match (scored, most) {
            (false, _) => 0,
            (true, 0) => 100,
            (true, _) => 100 * (most + least - raw) / most,
        };
        raw.iter().zip(&scored).map(score).collect()
    }

    fn affinity_scores(&self, pod: &Naive, feasible: &[&Node], placed: &Placed<'_>) -> Vec<i64> {
        let profile = self.profile(&pod.pod).unwrap();
        if profile.ignore_preferred_terms && pod.preferred.is_empty() {
            return vec![0; feasible.len()];
        }
        let sum = |node: &&Node| -> i64 {
            let near = |t: &Term, on: &Node| {
                let here = get(node, &t.term.topology_key);
                here.is_some() && get(on, &t.term.topology_key) == here
            };
            let of = |(other, on): &(&Naive, &Node)| -> i64 {
                let mine = pod.preferred.iter().map(|(weight, t)| (*weight, t));
                let mine = mine.filter(|(_, t)| self.means(pod, t, other) && near(t, on));
                let hard = other.near.iter().map(|t| (profile.hard_pod_affinity_weight, t));
                let theirs = hard.chain(other.preferred.iter().map(|(weight, t)| (*weight, t)));
                let theirs = theirs.filter(|(_, t)| self.means(other, t, pod) && near(t, on));
                mine.chain(theirs).map(|(weight, _)| weight).sum()
            };
            placed.iter().map(of).sum()
        };
        let sums: Vec<i64> = feasible.iter().map(sum).collect();
        let (least, most) = (sums.iter().min().copied().unwrap_or(0), sums.iter().max().copied().unwrap_or(0));
        let score = |s: &i64| {
            if most > least { (100.0 * ((s - least) as f64 / (most - least) as f64)) as i64 } else { 0 }
        };
        sums.iter().map(score).collect()
    }

    /// The only node names that the required node affinity can match.
    pub fn named_only(&self, pod: &Pod) -> Option<BTreeSet<String>> {
        if !self.profile(pod).unwrap().narrows {
            return None;
        }
        let required = node_affinity(pod)?.required_during_scheduling_ignored_during_execution.as_ref()?;
        let mut all = BTreeSet::new();
        for t in &required.node_selector_terms {
            let mut sets = t.match_fields.iter().flatten().filter(|r| r.operator == "In");
            let first: BTreeSet<String> = sets.next()?.values.clone().unwrap().into_iter().collect();
            let both =
                sets.fold(first, |a, r| a.into_iter().filter(|n| r.values.as_ref().unwrap().contains(n)).collect());
            all.extend(both);
        }
        Some(all)
    }

    /// The other pods of at least this priority that are nominated for a node.
    fn nominees<'a>(&'a self, pod: &Naive, node: &'a Node) -> Placed<'a> {
        let waits = |p: &&Naive| {
            p.nominated.as_deref() == Some(node.name()) && p.priority >= pod.priority && p.pod.name() != pod.pod.name()
        };
        self.pods.values().filter(waits).map(|p| (p, node)).collect()
    }

    /// Why a node is not feasible for a pod, with and without the pods that are nominated for it.
    pub fn refusal(&self, pod: &Naive, node: &Node) -> Option<(Vec<String>, bool)> {
        if let Some(why) = self.refused(pod).or_else(|| self.devices_refused(pod)) {
            return Some((vec![why], true));
        }
        if self.named_only(&pod.pod).is_some_and(|names| !names.contains(node.name())) {
            return Some((vec!["node(s) didn't satisfy plugin(s) [NodeAffinity]".to_owned()], true));
        }
        self.refusal_beside(pod, node, self.placed())
    }

    /// As `refusal`, while these pods are on nodes.
    pub fn refusal_beside<'a>(
        &'a self,
        pod: &Naive,
        node: &'a Node,
        placed: Placed<'a>,
    ) -> Option<(Vec<String>, bool)> {
        let nominees = self.nominees(pod, node);
        if !nominees.is_empty() {
            let with: Placed<'a> = placed.iter().copied().chain(nominees).collect();
            if let Some(why) = self.reasons(pod, node, &with) {
                return Some(why);
            }
        }
        self.reasons(pod, node, &placed)
    }
}

fn required(pod: &Pod, anti: bool) -> Vec<core_v1::PodAffinityTerm> {
    let affinity = pod.spec.affinity.as_ref();
    let terms = if anti {
        let a = affinity.and_then(|a| a.pod_anti_affinity.as_ref());
        a.and_then(|a| a.required_during_scheduling_ignored_during_execution.clone())
    } else {
        let a = affinity.and_then(|a| a.pod_affinity.as_ref());
        a.and_then(|a| a.required_during_scheduling_ignored_during_execution.clone())
    };
    terms.unwrap_or_default()
}

fn preferred(pod: &Pod) -> Vec<(i64, core_v1::PodAffinityTerm)> {
    let affinity = pod.spec.affinity.as_ref();
    let liked = affinity.and_then(|a| a.pod_affinity.as_ref());
    let liked = liked.and_then(|a| a.preferred_during_scheduling_ignored_during_execution.clone()).unwrap_or_default();
    let disliked = affinity.and_then(|a| a.pod_anti_affinity.as_ref());
    let disliked =
        disliked.and_then(|a| a.preferred_during_scheduling_ignored_during_execution.clone()).unwrap_or_default();
    let liked = liked.into_iter().map(|t| (i64::from(t.weight), t.pod_affinity_term));
    liked.chain(disliked.into_iter().map(|t| (-i64::from(t.weight), t.pod_affinity_term))).collect()
}
