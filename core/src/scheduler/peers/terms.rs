//! What a pod says about other pods: spread constraints and affinity terms, as a shape holds them, and as they are
//! meant once the pod's namespace and labels are known.

use k8s_openapi::api::core::v1 as core_v1;
use k8s_openapi::api::core::v1::PodSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

use crate::object::{Labels, Requirement, Selector};

/// The weight of an existing pod's required affinity in the scores of others (`hardPodAffinityWeight`).
const HARD_POD_AFFINITY_WEIGHT: i64 = 1;

/// A topology spread constraint as written.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Spreading {
    /// Label of nodes whose values are the domains.
    pub key: String,
    /// How far domains may be apart.
    pub max_skew: i64,
    /// As long as there are fewer domains, the least one counts as empty.
    pub min_domains: i64,
    /// `DoNotSchedule`, as opposed to `ScheduleAnyway`.
    pub hard: bool,
    /// Which pods count.
    pub selector: Selector,
    /// Labels whose values the pods share with the pod itself (`matchLabelKeys`).
    pub label_keys: Vec<String>,
    /// Nodes that the pod's node affinity excludes do not count.
    pub honors_affinity: bool,
    /// Nodes whose taints the pod does not tolerate do not count.
    pub honors_taints: bool,
}

/// A pod affinity term as written.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct PodTerm {
    /// Namespaces by name; the pod's own is added if `own_namespace`.
    namespaces: Vec<String>,
    own_namespace: bool,
    namespace_selector: Selector,
    selector: Selector,
    /// `labelSelector` is there, so that the keys below count.
    selects: bool,
    label_keys: Vec<String>,
    other_label_keys: Vec<String>,
    /// Label of nodes whose values are the domains.
    pub key: String,
}

/// Which pods are meant: of these namespaces, with these labels.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Match {
    /// Namespaces by name.
    pub namespaces: Vec<String>,
    /// Namespaces by their labels, as well.
    pub namespace_selector: Selector,
    /// Labels of the pods.
    pub selector: Selector,
}

/// What a pod's term means for pods that come later.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Role {
    /// They must keep away.
    Anti,
    /// They score this much more in its domain.
    Score(i64),
}

/// A term that pods of a group carry.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Carried {
    /// What it means.
    pub role: Role,
    /// Whom it means.
    pub who: Match,
    /// Label of nodes whose values are the domains.
    pub key: String,
}

/// What a pod's spec says about other pods.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct PeerRules {
    /// Topology spread constraints.
    pub spread: Vec<Spreading>,
    /// Required affinity; all must be met by the same pods.
    pub affinity: Vec<PodTerm>,
    /// Required anti-affinity.
    pub anti: Vec<PodTerm>,
    /// Preferred affinity with weights; anti-affinity has negative ones.
    pub preferred: Vec<(i64, PodTerm)>,
}

/// A selector that is not there selects nothing, an empty one everything; so does one that cannot be read select
/// nothing.
fn selector(s: Option<&LabelSelector>) -> Selector {
    s.map_or_else(Selector::nothing, |s| Selector::from_label_selector(s).unwrap_or_else(|_| Selector::nothing()))
}

impl Spreading {
    fn new(c: &core_v1::TopologySpreadConstraint) -> Spreading {
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

    /// The constraints that pods of a Service or controller have without saying so (`systemDefaultConstraints`).
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

    /// Which pods count, for a pod with these labels.
    pub fn counted(&self, labels: &Labels) -> Selector {
        with_keys(self.selector.clone(), &self.label_keys, &[], labels)
    }
}

/// The label by which each node is a domain of its own.
pub const HOSTNAME: &str = "kubernetes.io/hostname";

/// A selector that asks as well that these labels be as the pod's own, and those not.
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

    /// Whom a pod of this namespace, with these labels, means by it.
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
    /// Pods of one namespace.
    pub fn within(namespace: &str, selector: Selector) -> Match {
        Match { namespaces: vec![namespace.to_owned()], namespace_selector: Selector::nothing(), selector }
    }

    /// Whether pods of this namespace, which has these labels, and with these labels, are meant.
    pub fn matches(&self, namespace: &str, namespace_labels: Option<&Labels>, labels: &Labels) -> bool {
        let named = self.namespaces.iter().any(|n| n == namespace);
        (named || self.namespace_selector.matches(namespace_labels)) && self.selector.matches(Some(labels))
    }

    /// Whether it asks for labels of namespaces.
    pub fn asks_namespaces(&self) -> bool {
        !self.namespace_selector.nothing && !self.namespace_selector.is_everything()
    }
}

impl PeerRules {
    /// From a pod's spec.
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

    /// Whether a pod that runs has anything to say to those that come.
    pub fn carries(&self) -> bool {
        !self.affinity.is_empty() || !self.anti.is_empty() || !self.preferred.is_empty()
    }

    /// What pods of this namespace, with these labels, say to those that come later.
    pub fn carried(&self, namespace: &str, labels: &Labels) -> Vec<Carried> {
        let carry = |role, t: &PodTerm| Carried { role, who: t.meant(namespace, labels), key: t.key.clone() };
        let anti = self.anti.iter().map(|t| carry(Role::Anti, t));
        let required = self.affinity.iter().map(|t| carry(Role::Score(HARD_POD_AFFINITY_WEIGHT), t));
        let preferred = self.preferred.iter().map(|(weight, t)| carry(Role::Score(*weight), t));
        anti.chain(required).chain(preferred).collect()
    }
}
