//! A pod's rules about other pods, which are spread constraints and affinity terms: in the form in which a shape holds
//! them, and resolved for a pod's namespace and labels.

use k8s_openapi::api::core::v1 as core_v1;
use k8s_openapi::api::core::v1::PodSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

use crate::object::{Labels, Requirement, Selector};

/// A topology spread constraint as written.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Spreading {
    /// `topologyKey`: the label of nodes whose values are the domains.
    pub key: String,
    /// `maxSkew`.
    pub max_skew: i64,
    /// `minDomains`: with fewer domains, the least number of pods in a domain counts as zero.
    pub min_domains: i64,
    /// Whether it is `DoNotSchedule`, not `ScheduleAnyway`.
    pub hard: bool,
    /// Selects the pods that count.
    pub selector: Selector,
    /// `matchLabelKeys`: labels in which the counted pods must equal the pod itself.
    pub label_keys: Vec<String>,
    /// Whether nodes that the pod's node affinity excludes do not count.
    pub honors_affinity: bool,
    /// Whether nodes whose taints the pod does not tolerate do not count.
    pub honors_taints: bool,
}

/// A pod affinity term as written.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct PodTerm {
    /// The namespaces by name. The pod's own is added if `own_namespace` is set.
    namespaces: Vec<String>,
    own_namespace: bool,
    namespace_selector: Selector,
    selector: Selector,
    /// Whether there is a `labelSelector`, so that the keys below apply.
    selects: bool,
    label_keys: Vec<String>,
    other_label_keys: Vec<String>,
    /// `topologyKey`: the label of nodes whose values are the domains.
    pub key: String,
}

/// The pods that a term selects, by namespace and labels.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Match {
    /// The namespaces by name.
    pub namespaces: Vec<String>,
    /// Also the namespaces with matching labels.
    pub namespace_selector: Selector,
    /// The pods by their labels.
    pub selector: Selector,
}

/// The effect of a pod's term on pods that are scheduled later.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Role {
    /// They may not run in its domain.
    Anti,
    /// Nodes in its domain score more for them, as much as their profile says (`hardPodAffinityWeight`).
    Affinity,
    /// Nodes in its domain score this much more for them.
    Score(i64),
}

/// A term of pods on nodes that concerns pods that are scheduled later.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Carried {
    /// Its effect.
    pub role: Role,
    /// The pods that it concerns.
    pub who: Match,
    /// `topologyKey`: the label of nodes whose values are the domains.
    pub key: String,
}

/// A pod spec's rules about other pods.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct PeerRules {
    /// Topology spread constraints.
    pub spread: Vec<Spreading>,
    /// Required affinity. The same pods must match all terms.
    pub affinity: Vec<PodTerm>,
    /// Required anti-affinity.
    pub anti: Vec<PodTerm>,
    /// Preferred affinity with weights; those of anti-affinity are negative.
    pub preferred: Vec<(i64, PodTerm)>,
}

/// Converts a selector. A missing or invalid one selects nothing, an empty one everything.
fn selector(s: Option<&LabelSelector>) -> Selector {
    s.map_or_else(Selector::nothing, |s| Selector::from_label_selector(s).unwrap_or_else(|_| Selector::nothing()))
}

impl Spreading {
    /// A constraint of a pod's spec, or of a profile.
    pub fn new(c: &core_v1::TopologySpreadConstraint) -> Spreading {
        let honors = |policy: &Option<String>, default: &str| policy.as_deref().unwrap_or(default) == "Honor";
        Spreading {
            key: c.topology_key.clone(),
            max_skew: i64::from(c.max_skew),
            min_domains: i64::from(c.min_domains.unwrap_or(1)),
            hard: c.when_unsatisfiable == "DoNotSchedule",
            selector: selector(c.label_selector.as_ref()),
            label_keys: c.match_label_keys.clone().unwrap_or_default(),
            honors_affinity: honors(&c.node_affinity_policy, "Honor"),
            honors_taints: honors(&c.node_taints_policy, "Ignore"),
        }
    }

    /// The default constraints of pods that belong to a Service or controller (`systemDefaultConstraints`).
    pub fn system_defaults() -> [Spreading; 2] {
        let soft = |key: &str, max_skew| Spreading {
            key: key.to_owned(),
            max_skew,
            min_domains: 1,
            hard: false,
            selector: Selector::nothing(),
            label_keys: Vec::new(),
            honors_affinity: true,
            honors_taints: false,
        };
        [soft("topology.kubernetes.io/zone", 5), soft(HOSTNAME, 3)]
    }

    /// The selector of the pods that count, for a pod with these labels.
    pub fn counted(&self, labels: &Labels) -> Selector {
        with_keys(self.selector.clone(), &self.label_keys, &[], labels)
    }
}

/// The topology key with which each node is a domain of its own.
pub const HOSTNAME: &str = "kubernetes.io/hostname";

/// Adds to a selector that the labels `same` must equal the pod's own, and the labels `other` must not.
fn with_keys(mut selector: Selector, same: &[String], other: &[String], labels: &Labels) -> Selector {
    for (key, value) in same.iter().filter_map(|key| Some((key, labels.get(key)?))) {
        selector.requirements.push(Requirement::In(key.clone(), vec![value.clone()]));
    }
    for (key, value) in other.iter().filter_map(|key| Some((key, labels.get(key)?))) {
        selector.requirements.push(Requirement::NotIn(key.clone(), vec![value.clone()]));
    }
    selector
}

impl PodTerm {
    fn new(t: &core_v1::PodAffinityTerm) -> PodTerm {
        let mut namespaces = t.namespaces.clone().unwrap_or_default();
        namespaces.sort_unstable();
        namespaces.dedup();
        PodTerm {
            own_namespace: namespaces.is_empty() && t.namespace_selector.is_none(),
            namespaces,
            namespace_selector: selector(t.namespace_selector.as_ref()),
            selector: selector(t.label_selector.as_ref()),
            selects: t.label_selector.is_some(),
            label_keys: t.match_label_keys.clone().unwrap_or_default(),
            other_label_keys: t.mismatch_label_keys.clone().unwrap_or_default(),
            key: t.topology_key.clone(),
        }
    }

    /// Resolves the term for a pod of this namespace with these labels.
    pub fn meant(&self, namespace: &str, labels: &Labels) -> Match {
        let mut namespaces = self.namespaces.clone();
        if self.own_namespace {
            namespaces.push(namespace.to_owned());
        }
        let selector = self.selector.clone();
        let selector =
            if self.selects { with_keys(selector, &self.label_keys, &self.other_label_keys, labels) } else { selector };
        Match { namespaces, namespace_selector: self.namespace_selector.clone(), selector }
    }
}

impl Match {
    /// The pods of one namespace that a selector selects.
    pub fn within(namespace: &str, selector: Selector) -> Match {
        Match { namespaces: vec![namespace.to_owned()], namespace_selector: Selector::nothing(), selector }
    }

    /// Whether it matches a pod with these labels in a namespace of this name and with these labels.
    pub fn matches(&self, namespace: &str, namespace_labels: Option<&Labels>, labels: &Labels) -> bool {
        let named = self.namespaces.iter().any(|n| n == namespace);
        (named || self.namespace_selector.matches(namespace_labels)) && self.selector.matches(Some(labels))
    }

    /// Whether it selects namespaces by labels.
    pub fn asks_namespaces(&self) -> bool {
        !self.namespace_selector.nothing && !self.namespace_selector.is_everything()
    }
}

impl PeerRules {
    /// The rules in a pod's spec.
    pub fn new(spec: &PodSpec) -> PeerRules {
        let affinity = spec.affinity.as_ref().and_then(|a| a.pod_affinity.as_ref());
        let anti = spec.affinity.as_ref().and_then(|a| a.pod_anti_affinity.as_ref());
        let required = |terms: Option<&Vec<core_v1::PodAffinityTerm>>| -> Vec<PodTerm> {
            terms.into_iter().flatten().map(PodTerm::new).collect()
        };
        let preferred = |terms: Option<&Vec<core_v1::WeightedPodAffinityTerm>>, sign: i64| {
            let terms = terms.into_iter().flatten();
            terms.map(move |t| (sign * i64::from(t.weight), PodTerm::new(&t.pod_affinity_term))).collect::<Vec<_>>()
        };
        let liked =
            preferred(affinity.and_then(|a| a.preferred_during_scheduling_ignored_during_execution.as_ref()), 1);
        let disliked =
            preferred(anti.and_then(|a| a.preferred_during_scheduling_ignored_during_execution.as_ref()), -1);
        PeerRules {
            spread: spec.topology_spread_constraints.iter().flatten().map(Spreading::new).collect(),
            affinity: required(affinity.and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref())),
            anti: required(anti.and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref())),
            preferred: [liked, disliked].concat(),
        }
    }

    /// Whether any rule of a running pod concerns pods that are scheduled later.
    pub fn carries(&self) -> bool {
        !self.affinity.is_empty() || !self.anti.is_empty() || !self.preferred.is_empty()
    }

    /// The terms of pods of this namespace with these labels that concern pods that are scheduled later.
    pub fn carried(&self, namespace: &str, labels: &Labels) -> Vec<Carried> {
        let carry = |role, t: &PodTerm| Carried { role, who: t.meant(namespace, labels), key: t.key.clone() };
        let anti = self.anti.iter().map(|t| carry(Role::Anti, t));
        let required = self.affinity.iter().map(|t| carry(Role::Affinity, t));
        let preferred = self.preferred.iter().map(|(weight, t)| carry(Role::Score(*weight), t));
        anti.chain(required).chain(preferred).collect()
    }
}
