//! The scheduling framework's vocabulary: plug-ins that filter and score.
//!
//! The tables [`FILTERS`] and [`SCORES`] are the plug-ins that look only at nodes, in kube-scheduler's default order.
//! Which of them count for a pod, and with what weights, say the [`Rules`] of its profile. A new plug-in is a file in
//! `filters/` or `scores/`, a row here and one of [`Plugin`]. The volume plug-ins, which run next and look at claims,
//! are in [`volumes`](super::volumes); PodTopologySpread and InterPodAffinity, which look at other pods, in
//! [`peers`](super::peers); DynamicResources, which runs last, in [`dynamic_resources`](super::dynamic_resources).
//! ImageLocality, whose scores depend on what other nodes hold, is in [`images`](super::images).
//!
//! Three mistakes of kube-scheduler are not copied. A preferred `Gt` or `Lt` whose value is no integer matches nothing,
//! where kube-scheduler fails the pod with an error. Pod-level requests count in scores. A victim that is already
//! terminating is subtracted only once from the counts of topology spread.

use std::rc::Rc;

use super::cache::{Nodes, Slot};
use super::events::Events;
use super::filters::{
    GpuShareFit, NodeAffinity, NodeName, NodePorts, NodeResourcesFit, NodeUnschedulable, TaintToleration,
};
use super::profile::{Plugin, Rules};
use super::resources::{ResourceId, ResourceNames};
use super::scores::{BalancedAllocation, FitScore, GpuShareScore, PreferredNodeAffinity, PreferredTaints};
use super::shape::Shape;

/// The highest score of a plug-in (`MaxNodeScore`).
pub const MAX_NODE_SCORE: i64 = 100;

/// What a plug-in's result depends on. It is computed again only when that has changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reads {
    /// The node itself: its name, labels and taints.
    Node,
    /// Also the pods on the node, and its allocatable resources.
    Usage,
}

/// What an event means for a waiting pod (`fwk.QueueingHint`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum QueueingHint {
    /// The pod may be schedulable now.
    Queue,
    /// The event does not help the pod.
    Skip,
}

/// Why a node was filtered out. A node can have several reasons.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Reason {
    /// A reason with this text.
    Text(&'static str),
    /// Too little of a resource.
    Insufficient(ResourceId),
    /// A reason whose text tells of this very case.
    Said(Rc<str>),
}

impl Reason {
    /// The text of the reason, in kube-scheduler's words.
    pub fn text(&self, resources: &ResourceNames) -> String {
        match self {
            Reason::Text(text) => (*text).to_owned(),
            Reason::Said(text) => text.to_string(),
            Reason::Insufficient(ResourceId::PODS) => "Too many pods".to_owned(),
            Reason::Insufficient(r) => format!("Insufficient {}", resources.name(*r)),
        }
    }
}

/// A filter's rejection of a node.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Rejection {
    /// The plug-in that rejected the node.
    pub plugin: &'static str,
    /// Its reasons.
    pub reasons: Vec<Reason>,
    /// Whether no eviction could help (`UnschedulableAndUnresolvable`).
    pub unresolvable: bool,
}

impl Rejection {
    /// A rejection for one reason that evictions may change.
    pub fn resolvable(plugin: &'static str, reason: &'static str) -> Rejection {
        Rejection { plugin, reasons: vec![Reason::Text(reason)], unresolvable: false }
    }

    /// A rejection for one reason that no eviction could change.
    pub fn unresolvable(plugin: &'static str, reason: &'static str) -> Rejection {
        Rejection { plugin, reasons: vec![Reason::Text(reason)], unresolvable: true }
    }
}

/// Decides whether a pod of a shape may run on a node.
pub trait FilterPlugin: Sync {
    /// Which one it is.
    fn plugin(&self) -> Plugin;
    /// Its name in kube-scheduler.
    fn name(&self) -> &'static str {
        self.plugin().name()
    }
    /// What its result depends on.
    fn reads(&self) -> Reads;
    /// The events that may end a rejection (`EventsToRegister`).
    fn events(&self) -> Events;
    /// `Some` if a pod of this shape may not run on the node.
    fn filter(&self, shape: &Shape, nodes: &Nodes, slot: Slot) -> Option<Rejection>;
}

/// How a plug-in's raw scores are normalised to 0 to 100 (`helper.DefaultNormalizeScore`): in proportion to the
/// greatest raw score among the feasible nodes, rounded down.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Normalize {
    /// Raw scores are not normalised.
    No,
    /// The greatest raw score is the best.
    Proportional,
    /// The greatest raw score is the worst.
    Reversed,
}

impl Normalize {
    /// Normalises a raw score; `max` is the greatest raw score.
    pub fn apply(self, raw: i64, max: i64) -> i64 {
        match self {
            Normalize::No => raw,
            Normalize::Proportional if max == 0 => raw,
            Normalize::Proportional => MAX_NODE_SCORE * raw / max,
            Normalize::Reversed if max == 0 => MAX_NODE_SCORE,
            Normalize::Reversed => MAX_NODE_SCORE - MAX_NODE_SCORE * raw / max,
        }
    }
}

/// Scores a feasible node for a pod of a shape.
pub trait ScorePlugin: Sync {
    /// Which one it is.
    fn plugin(&self) -> Plugin;
    /// What its raw scores depend on.
    fn reads(&self) -> Reads;
    /// How its raw scores are normalised.
    fn normalize(&self) -> Normalize;
    /// The raw score; never negative.
    fn score(&self, shape: &Shape, nodes: &Nodes, slot: Slot) -> i64;
}

/// The filters, in kube-scheduler's order, and our own; the first rejection counts. Those that read only the node come
/// first.
pub static FILTERS: [&dyn FilterPlugin; 7] =
    [&NodeUnschedulable, &NodeName, &TaintToleration, &NodeAffinity, &NodePorts, &NodeResourcesFit, &GpuShareFit];

/// How many score plug-ins have normalised scores.
pub const NORMALIZED: usize = 2;

/// The score plug-ins with normalised scores. All of them read only the node.
pub static NORMALIZED_SCORES: [&dyn ScorePlugin; NORMALIZED] = [&PreferredTaints, &PreferredNodeAffinity];

/// The score plug-ins whose raw scores are not normalised.
pub static SCORES: [&dyn ScorePlugin; 3] = [&FitScore, &BalancedAllocation, &GpuShareScore];

/// The filters that count for pods of a shape.
fn filters(shape: &Shape) -> impl Iterator<Item = &'static &'static dyn FilterPlugin> {
    let enabled = shape.rules.filters;
    FILTERS.iter().filter(move |f| enabled.has(f.plugin()))
}

/// The first rejection by one of the filters that read this.
pub fn filter(reads: Reads, shape: &Shape, nodes: &Nodes, slot: Slot) -> Option<Rejection> {
    filters(shape).filter(|f| f.reads() == reads).find_map(|f| f.filter(shape, nodes, slot))
}

/// The weighted sum of the scores that are not normalised.
pub fn plain_score(shape: &Shape, nodes: &Nodes, slot: Slot) -> i64 {
    let weighted = |s: &&dyn ScorePlugin| match shape.rules.weights.of(s.plugin()) {
        0 => 0,
        weight => weight * s.score(shape, nodes, slot),
    };
    SCORES.iter().map(weighted).sum()
}

/// The raw scores of the plug-ins with normalised scores; zero of those that do not count.
pub fn raw_scores(shape: &Shape, nodes: &Nodes, slot: Slot) -> [i64; NORMALIZED] {
    let counts = |s: &&dyn ScorePlugin| shape.rules.weights.of(s.plugin()) > 0;
    let raw = |s: &dyn ScorePlugin| s.score(shape, nodes, slot);
    NORMALIZED_SCORES.map(|s| if counts(&s) { raw(s) } else { 0 })
}

/// The weighted sum of the normalised scores.
pub fn normalized_score(rules: &Rules, raw: &[i64; NORMALIZED], max: &[i64; NORMALIZED]) -> i64 {
    let scores = NORMALIZED_SCORES.iter().zip(raw.iter().zip(max));
    scores.map(|(s, (raw, max))| rules.weights.of(s.plugin()) * s.normalize().apply(*raw, *max)).sum()
}

/// Whether waiting pods of a shape are to be retried after an event at a node.
///
/// kube-scheduler asks only the plug-ins that rejected the pod. The reasons may have changed since, one by one, without
/// a retry, and then the pod is overlooked. Asking every filter is exact, and costs little here.
pub fn queueing_hint(events: Events, shape: &Shape, nodes: &Nodes, slot: Slot) -> QueueingHint {
    // A new node helps also where no filter has rejected any.
    let heard = events.intersects(Events::NODE_ADD) || filters(shape).any(|f| f.events().intersects(events));
    let fits = || filters(shape).all(|f| f.filter(shape, nodes, slot).is_none());
    if heard && nodes.is_present(slot) && shape.admits(nodes.name(slot)) && fits() {
        QueueingHint::Queue
    } else {
        QueueingHint::Skip
    }
}

#[cfg(test)]
mod tests {
    use super::{FILTERS, NORMALIZED_SCORES, Normalize, Reads, SCORES};
    use crate::scheduler::profile::Weights;

    #[test]
    fn profile_is_kube_schedulers() {
        let names: Vec<_> = FILTERS.iter().map(|f| f.name()).collect();
        let expect = [
            "NodeUnschedulable",
            "NodeName",
            "TaintToleration",
            "NodeAffinity",
            "NodePorts",
            "NodeResourcesFit",
            "GPUShare",
        ];
        assert_eq!(names, expect);
        let last_fixed = FILTERS.iter().rposition(|f| f.reads() == Reads::Node).unwrap();
        assert!(FILTERS[..last_fixed].iter().all(|f| f.reads() == Reads::Node));
        assert!(NORMALIZED_SCORES.iter().all(|s| s.reads() == Reads::Node && s.normalize() != Normalize::No));
        assert!(SCORES.iter().all(|s| s.normalize() == Normalize::No));
        let weights = Weights::default();
        let scores = NORMALIZED_SCORES.iter().chain(&SCORES);
        let weights: Vec<_> = scores.map(|s| (s.plugin().name(), weights.of(s.plugin()))).collect();
        let expect = [
            ("TaintToleration", 3),
            ("NodeAffinity", 2),
            ("NodeResourcesFit", 1),
            ("NodeResourcesBalancedAllocation", 1),
            ("GPUShare", 0),
        ];
        assert_eq!(weights, expect);
    }

    #[test]
    fn normalises_as_kubernetes() {
        for (normalize, raw, max, expect) in [
            (Normalize::No, 7, 9, 7),
            (Normalize::Proportional, 0, 0, 0),
            (Normalize::Proportional, 1, 3, 33),
            (Normalize::Proportional, 3, 3, 100),
            (Normalize::Reversed, 0, 0, 100),
            (Normalize::Reversed, 0, 3, 100),
            (Normalize::Reversed, 2, 3, 34),
            (Normalize::Reversed, 3, 3, 0),
        ] {
            assert_eq!(normalize.apply(raw, max), expect, "{normalize:?} {raw}/{max}");
        }
    }
}
