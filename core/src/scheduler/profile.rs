//! Profiles: which plug-ins schedule the pods of a `spec.schedulerName`, with what weights and arguments.
//!
//! A [`Profile`] is plain data in Kubernetes' words (`KubeSchedulerProfile`, with its defaults filled in). [`Rules`] is
//! the same in the form in which filters and scores read it: resources as numbers, terms parsed.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use k8s_openapi::api::core::v1 as core_v1;
use serde::{Deserialize, Serialize};

use super::DEFAULT_SCHEDULER;
use super::gpu::{GpuShare, Policy, Sharing};
use super::peers::terms::Spreading;
use super::resources::{ResourceId, ResourceNames};
use super::shape::Term;
use crate::object::is_extended_resource;

/// The plug-ins that filter or score nodes: those of kube-scheduler in its default order, and GPUShare, which is our
/// own and which only profiles have that enable it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[allow(missing_docs)]
pub enum Plugin {
    NodeUnschedulable,
    NodeName,
    TaintToleration,
    NodeAffinity,
    NodePorts,
    NodeResourcesFit,
    VolumeRestrictions,
    NodeVolumeLimits,
    VolumeBinding,
    VolumeZone,
    PodTopologySpread,
    InterPodAffinity,
    DynamicResources,
    NodeResourcesBalancedAllocation,
    ImageLocality,
    GPUShare,
}

/// How many plug-ins there are.
const PLUGINS: usize = 16;

impl Plugin {
    /// All of them, in order.
    pub const ALL: [Plugin; PLUGINS] = [
        Plugin::NodeUnschedulable,
        Plugin::NodeName,
        Plugin::TaintToleration,
        Plugin::NodeAffinity,
        Plugin::NodePorts,
        Plugin::NodeResourcesFit,
        Plugin::VolumeRestrictions,
        Plugin::NodeVolumeLimits,
        Plugin::VolumeBinding,
        Plugin::VolumeZone,
        Plugin::PodTopologySpread,
        Plugin::InterPodAffinity,
        Plugin::DynamicResources,
        Plugin::NodeResourcesBalancedAllocation,
        Plugin::ImageLocality,
        Plugin::GPUShare,
    ];

    /// Its name in configurations.
    pub fn name(self) -> &'static str {
        match self {
            Plugin::NodeUnschedulable => "NodeUnschedulable",
            Plugin::NodeName => "NodeName",
            Plugin::TaintToleration => "TaintToleration",
            Plugin::NodeAffinity => "NodeAffinity",
            Plugin::NodePorts => "NodePorts",
            Plugin::NodeResourcesFit => "NodeResourcesFit",
            Plugin::VolumeRestrictions => "VolumeRestrictions",
            Plugin::NodeVolumeLimits => "NodeVolumeLimits",
            Plugin::VolumeBinding => "VolumeBinding",
            Plugin::VolumeZone => "VolumeZone",
            Plugin::PodTopologySpread => "PodTopologySpread",
            Plugin::InterPodAffinity => "InterPodAffinity",
            Plugin::DynamicResources => "DynamicResources",
            Plugin::NodeResourcesBalancedAllocation => "NodeResourcesBalancedAllocation",
            Plugin::ImageLocality => "ImageLocality",
            Plugin::GPUShare => "GPUShare",
        }
    }

    /// Whether it can filter nodes.
    pub fn is_filter(self) -> bool {
        !matches!(self, Plugin::NodeResourcesBalancedAllocation | Plugin::ImageLocality)
    }

    /// Whether it can score nodes.
    pub fn is_score(self) -> bool {
        self == Plugin::GPUShare || self.default_weight() > 0
    }

    /// Whether the default profile has it.
    pub fn is_default(self) -> bool {
        self != Plugin::GPUShare
    }

    /// Its weight in the default profile; zero if it does not score nodes there.
    pub fn default_weight(self) -> i64 {
        match self {
            Plugin::TaintToleration => 3,
            Plugin::NodeAffinity | Plugin::PodTopologySpread | Plugin::InterPodAffinity => 2,
            Plugin::NodeResourcesFit | Plugin::NodeResourcesBalancedAllocation | Plugin::ImageLocality => 1,
            Plugin::NodeUnschedulable
            | Plugin::NodeName
            | Plugin::NodePorts
            | Plugin::VolumeRestrictions
            | Plugin::NodeVolumeLimits
            | Plugin::VolumeBinding
            | Plugin::VolumeZone
            | Plugin::DynamicResources
            | Plugin::GPUShare => 0,
        }
    }
}

/// A set of plug-ins.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(into = "Vec<String>", try_from = "Vec<String>")]
pub struct Plugins(u32);

impl Plugins {
    /// All that filter in the default profile.
    pub fn filters() -> Plugins {
        Plugin::ALL.into_iter().filter(|p| p.is_filter() && p.is_default()).collect()
    }

    /// Whether a plug-in is in it.
    pub fn has(self, plugin: Plugin) -> bool {
        self.0 & (1 << plugin as u32) != 0
    }

    /// The same without a plug-in.
    #[must_use]
    pub fn without(self, plugin: Plugin) -> Plugins {
        Plugins(self.0 & !(1 << plugin as u32))
    }
}

impl FromIterator<Plugin> for Plugins {
    fn from_iter<I: IntoIterator<Item = Plugin>>(plugins: I) -> Plugins {
        Plugins(plugins.into_iter().fold(0, |all, plugin| all | 1 << plugin as u32))
    }
}

/// The plug-in of this name.
fn named(name: &str) -> Result<Plugin, String> {
    let known = Plugin::ALL.into_iter().find(|plugin| plugin.name() == name);
    known.ok_or_else(|| format!("there is no plug-in {name:?}"))
}

/// By their names, since their numbers may change.
impl From<Plugins> for Vec<String> {
    fn from(plugins: Plugins) -> Vec<String> {
        Plugin::ALL.into_iter().filter(|p| plugins.has(*p)).map(|p| p.name().to_owned()).collect()
    }
}

impl TryFrom<Vec<String>> for Plugins {
    type Error = String;

    fn try_from(names: Vec<String>) -> Result<Plugins, String> {
        names.iter().map(|name| named(name)).collect()
    }
}

/// The weights of the plug-ins that score nodes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(into = "BTreeMap<String, i64>", try_from = "BTreeMap<String, i64>")]
pub struct Weights([i64; PLUGINS]);

impl Default for Weights {
    fn default() -> Weights {
        Weights(Plugin::ALL.map(Plugin::default_weight))
    }
}

/// Those that are not zero, by the names of their plug-ins.
impl From<Weights> for BTreeMap<String, i64> {
    fn from(weights: Weights) -> BTreeMap<String, i64> {
        let scoring = Plugin::ALL.into_iter().filter(|p| weights.of(*p) != 0);
        scoring.map(|p| (p.name().to_owned(), weights.of(p))).collect()
    }
}

impl TryFrom<BTreeMap<String, i64>> for Weights {
    type Error = String;

    fn try_from(named_weights: BTreeMap<String, i64>) -> Result<Weights, String> {
        let mut weights = Weights([0; PLUGINS]);
        for (name, weight) in named_weights {
            weights.set(named(&name)?, weight);
        }
        Ok(weights)
    }
}

impl Weights {
    /// The greatest sum of weights, with which the highest total score still fits into a column.
    pub const MOST: i64 = i32::MAX as i64 / super::framework::MAX_NODE_SCORE;

    /// A plug-in's weight; zero if it does not score.
    pub fn of(&self, plugin: Plugin) -> i64 {
        self.0[plugin as usize]
    }

    /// Sets a plug-in's weight. With zero it does not score.
    pub fn set(&mut self, plugin: Plugin, weight: i64) {
        self.0[plugin as usize] = weight;
    }

    /// The sum of all weights.
    pub fn sum(&self) -> i64 {
        self.0.iter().sum()
    }
}

/// How NodeResourcesFit scores a resource of a node.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Strategy {
    /// Higher the more is left.
    LeastAllocated,
    /// Higher the less is left.
    MostAllocated,
    /// By straight lines between these points: the used share in percent, and its score from 0 to 10.
    RequestedToCapacityRatio(Vec<(i64, i64)>),
}

/// How the pods of a `spec.schedulerName` are scheduled. In a recording that does not say so, as by default.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(default)]
pub struct Profile {
    /// Its `schedulerName`.
    pub name: String,
    /// The plug-ins that filter nodes.
    pub filters: Plugins,
    /// Whether NodeAffinity's pre-filter is enabled, which looks only at the nodes that a pod's affinity names.
    pub narrows: bool,
    /// Whether DefaultPreemption is enabled.
    pub preempts: bool,
    /// The plug-ins that score nodes.
    pub weights: Weights,
    /// `NodeResourcesFitArgs.scoringStrategy`.
    pub strategy: Strategy,
    /// The resources that the strategy looks at, with weights.
    pub resources: Vec<(String, i64)>,
    /// `NodeResourcesFitArgs.ignoredResources`: extended resources that the filter does not look at.
    pub ignored_resources: Vec<String>,
    /// `NodeResourcesFitArgs.ignoredResourceGroups`: what their names begin with, before the slash.
    pub ignored_groups: Vec<String>,
    /// The resources that NodeResourcesBalancedAllocation looks at.
    pub balanced: Vec<String>,
    /// `NodeAffinityArgs.addedAffinity`.
    pub added_affinity: core_v1::NodeAffinity,
    /// `PodTopologySpreadArgs.defaultConstraints`; `None` for those of the system.
    pub default_constraints: Option<Vec<core_v1::TopologySpreadConstraint>>,
    /// `InterPodAffinityArgs.hardPodAffinityWeight`.
    pub hard_pod_affinity_weight: i64,
    /// `InterPodAffinityArgs.ignorePreferredTermsOfExistingPods`.
    pub ignore_preferred_terms: bool,
    /// The arguments of GPUShare.
    pub gpu_share: GpuShare,
}

impl Default for Profile {
    /// The default scheduler's default profile.
    fn default() -> Profile {
        Profile {
            name: DEFAULT_SCHEDULER.to_owned(),
            filters: Plugins::filters(),
            narrows: true,
            preempts: true,
            weights: Weights::default(),
            strategy: Strategy::LeastAllocated,
            resources: ["cpu", "memory"].map(|r| (r.to_owned(), 1)).into(),
            ignored_resources: Vec::new(),
            ignored_groups: Vec::new(),
            balanced: ["cpu", "memory"].map(str::to_owned).into(),
            added_affinity: core_v1::NodeAffinity::default(),
            default_constraints: None,
            hard_pod_affinity_weight: 1,
            ignore_preferred_terms: false,
            gpu_share: GpuShare::default(),
        }
    }
}

/// A [`Profile`] as filters and scores read it. Those of a scheduler are told apart by their number.
#[derive(Debug)]
pub struct Rules {
    number: usize,
    /// The plug-ins that filter nodes.
    pub filters: Plugins,
    /// See [`Profile::narrows`].
    pub narrows: bool,
    /// See [`Profile::preempts`].
    pub preempts: bool,
    /// The plug-ins that score nodes.
    pub weights: Weights,
    /// How NodeResourcesFit scores.
    pub strategy: Strategy,
    /// The resources that it looks at, with weights.
    pub resources: Vec<(ResourceId, i64)>,
    /// The resources that NodeResourcesBalancedAllocation looks at.
    pub balanced: Vec<ResourceId>,
    /// The terms of the added required affinity, one of which must match.
    pub required: Option<Vec<Term>>,
    /// The terms of the added preferred affinity, with weights.
    pub preferred: Vec<(i64, Term)>,
    /// The spread constraints of pods without their own. Their selectors are those of the pod's owners.
    pub spread: Vec<Spreading>,
    /// Whether these are the system's.
    pub system_spread: bool,
    /// What a pod's required affinity to another adds to the other's score.
    pub hard_pod_affinity_weight: i64,
    /// Whether terms of pods on nodes score only for pods that have preferred terms themselves.
    pub ignore_preferred_terms: bool,
    /// How GPUs are shared, where GPUShare is enabled.
    pub sharing: Sharing,
    ignored_resources: Vec<String>,
    ignored_groups: Vec<String>,
}

impl Rules {
    /// The rules of a profile, which is the one of this number.
    pub fn new(number: usize, profile: &Profile, names: &mut ResourceNames) -> Rules {
        let preferred = profile.added_affinity.preferred_during_scheduling_ignored_during_execution.iter().flatten();
        let required = profile.added_affinity.required_during_scheduling_ignored_during_execution.as_ref();
        let system = profile.default_constraints.is_none();
        let listed = profile.default_constraints.iter().flatten().map(Spreading::new);
        Rules {
            number,
            filters: profile.filters,
            narrows: profile.narrows,
            preempts: profile.preempts,
            weights: profile.weights,
            strategy: profile.strategy.clone(),
            resources: counted(profile.resources.iter().map(|(name, weight)| (name.as_str(), *weight)), names),
            balanced: counted(profile.balanced.iter().map(|name| (name.as_str(), 1)), names)
                .into_iter()
                .map(|(r, _)| r)
                .collect(),
            required: required.map(|s| s.node_selector_terms.iter().map(Term::new).collect()),
            preferred: super::shape::preferred(preferred),
            spread: if system { Spreading::system_defaults().into() } else { listed.collect() },
            system_spread: system,
            hard_pod_affinity_weight: profile.hard_pod_affinity_weight,
            ignore_preferred_terms: profile.ignore_preferred_terms,
            sharing: Sharing::new(&profile.gpu_share),
            ignored_resources: profile.ignored_resources.clone(),
            ignored_groups: profile.ignored_groups.clone(),
        }
    }

    /// Whether the first of several equally good nodes is taken, in the order in which they came, rather than drawn: so
    /// that nodes are filled one after the other, as whoever saves GPUs wants.
    pub fn takes_first(&self) -> bool {
        self.weights.of(Plugin::GPUShare) > 0 && self.sharing.policy() != Policy::Random
    }

    /// Whether NodeResourcesFit's filter does not look at a resource.
    pub fn ignores(&self, resource: &str) -> bool {
        let group = resource.split('/').next().unwrap_or_default();
        is_extended_resource(resource)
            && (self.ignored_resources.iter().any(|r| r == resource) || self.ignored_groups.iter().any(|g| g == group))
    }
}

impl Default for Rules {
    fn default() -> Rules {
        Rules::new(0, &Profile::default(), &mut ResourceNames::default())
    }
}

impl PartialEq for Rules {
    fn eq(&self, other: &Rules) -> bool {
        self.number == other.number
    }
}

impl Eq for Rules {}

impl PartialOrd for Rules {
    fn partial_cmp(&self, other: &Rules) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Rules {
    fn cmp(&self, other: &Rules) -> Ordering {
        self.number.cmp(&other.number)
    }
}

/// The resources of which nodes have any that scores look at; the others never count.
fn counted<'a>(all: impl Iterator<Item = (&'a str, i64)>, names: &mut ResourceNames) -> Vec<(ResourceId, i64)> {
    let known = all.filter(|(name, _)| matches!(*name, "cpu" | "memory" | "ephemeral-storage") || is_scalar(name));
    known.filter_map(|(name, weight)| Some((names.id(name)?, weight))).collect()
}

/// Whether a resource is counted by its name on nodes (`IsScalarResourceName`).
fn is_scalar(name: &str) -> bool {
    is_extended_resource(name)
        || name.contains("kubernetes.io/")
        || name.starts_with("hugepages-")
        || name.starts_with("attachable-volumes-")
}
