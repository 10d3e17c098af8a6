//! The filters and scores of PodTopologySpread and InterPodAffinity for the pods of a class: its own rules about the
//! pods on nodes, and the rules of those about it.

use std::rc::Rc;

use super::domains::{Inclusion, NOWHERE, Tally};
use super::spread::Patterns;
use super::terms::{Carried, HOSTNAME, Match, PodTerm, Role, Spreading};
use super::{ClassId, KinId, OwnerId, Peers, Who};
use crate::object::{Labels, ObjectKey};
use crate::scheduler::cache::Slot;
use crate::scheduler::dynamic_resources::DeviceClaims;
use crate::scheduler::framework::Rejection;
use crate::scheduler::profile::Plugin;
use crate::scheduler::scores::affinity_score;
use crate::scheduler::shape::{Shape, ShapeId};
use crate::scheduler::volumes::PodClaims;

/// The reason of nodes that lack the topology key of a spread constraint.
const MISSING_LABEL: &str = "node(s) didn't match pod topology spread constraints (missing required label)";
/// The reason of nodes where the skew would be too great.
const UNEVEN: &str = "node(s) didn't match pod topology spread constraints";
/// The reason of nodes that do not meet the pod's affinity.
const AFFINITY: &str = "node(s) didn't match pod affinity rules";
/// The reason of nodes that do not meet the pod's anti-affinity.
const ANTI_AFFINITY: &str = "node(s) didn't match pod anti-affinity rules";
/// The reason of nodes where another pod's anti-affinity excludes this one.
const EXISTING_ANTI_AFFINITY: &str = "node(s) didn't satisfy existing pods anti-affinity rules";

/// Pods with the same rules about nodes and about other pods.
#[derive(Debug)]
pub struct Class {
    /// Their shape's number.
    pub shape_id: ShapeId,
    /// Their shape.
    pub shape: Rc<Shape>,
    /// Their kin.
    pub kin: KinId,
    /// Their controller.
    pub owner: Option<OwnerId>,
    /// Their claims.
    pub claims: PodClaims,
    /// Their claims for devices.
    pub devices: DeviceClaims,
    /// Their group. Pods of a gang wait for other reasons than others like them.
    pub group: Option<ObjectKey>,
    /// How many pods belong to it.
    pub pods: u32,
    /// Their rules about other pods, once resolved. Boxed, since most classes have none.
    pub asks: Option<Box<Asks>>,
    /// The generation of the owners' selectors that the rules are based on.
    owners_epoch: Option<u64>,
    /// How many of the terms of pods on nodes have been looked at.
    rules_seen: usize,
}

/// A required spread constraint.
#[derive(Debug)]
struct Hard {
    topology: usize,
    /// `None` if the selector is empty, which counts no pods.
    tally: Option<usize>,
    max_skew: i64,
    min_domains: i64,
    /// One if the constraint's selector matches the pod itself.
    itself: i64,
}

/// A preferred spread constraint.
#[derive(Debug)]
pub(super) struct Soft {
    pub(super) topology: usize,
    /// `None` where the selector is empty, which counts nobody.
    pub(super) pods: Option<SoftPods>,
    /// Whether each node is a domain of its own.
    pub(super) by_node: bool,
    pub(super) max_skew: i64,
}

/// The pods that a preferred constraint counts.
#[derive(Clone, Copy, Debug)]
pub(super) enum SoftPods {
    /// Summed up by domain.
    Tally(usize),
    /// Of each node by itself.
    Counter(usize),
}

/// The rules of a class about other pods.
#[derive(Debug, Default)]
pub struct Asks {
    hard: Vec<Hard>,
    pub(super) soft: Vec<Soft>,
    /// Whether nodes that lack a topology key of the preferred constraints are not scored.
    pub(super) soft_needs_all: bool,
    affinity: Vec<usize>,
    /// Whether the pod matches its own required affinity.
    likes_itself: bool,
    anti: Vec<usize>,
    /// Required anti-affinity terms of pods on nodes against this class.
    against: Vec<usize>,
    /// Terms, of its own and of pods on nodes, that affect scores.
    likes: Vec<(i64, usize)>,
    /// The topologies of the tallies and constraints.
    topologies: Vec<usize>,
}

impl Class {
    /// A class without pods.
    pub fn new(
        (shape_id, shape): (ShapeId, Rc<Shape>),
        kin: KinId,
        owner: Option<OwnerId>,
        (claims, devices): (PodClaims, DeviceClaims),
        group: Option<ObjectKey>,
    ) -> Class {
        let (pods, asks, owners_epoch, rules_seen) = (0, None, None, 0);
        Class { shape_id, shape, kin, owner, claims, devices, group, pods, asks, owners_epoch, rules_seen }
    }

    /// Forgets the resolved rules, because their numbers are no longer valid.
    pub fn forget(&mut self) {
        self.asks = None;
        self.owners_epoch = None;
        self.rules_seen = 0;
    }

    /// Whether its rules are not resolved, or were forgotten. [`Class::asks`] says nothing then.
    pub fn is_forgotten(&self) -> bool {
        self.owners_epoch.is_none()
    }

    /// Whether its rules concern only nodes.
    pub fn is_plain(&self) -> bool {
        self.asks.is_none() && !self.has_claims()
    }

    /// Whether its pods have claims, for volumes or devices.
    pub fn has_claims(&self) -> bool {
        self.claims.is_some() || self.devices.is_some()
    }

    /// Whether a node can be rejected because of other pods, of volumes, or of devices.
    pub fn is_particular(&self) -> bool {
        let asks =
            |a: &Asks| !(a.hard.is_empty() && a.affinity.is_empty() && a.anti.is_empty() && a.against.is_empty());
        self.has_claims() || self.asks.as_deref().is_some_and(asks)
    }
}

impl Asks {
    /// Its tallies.
    pub fn tallies(&self) -> impl Iterator<Item = usize> {
        let soft = self.soft.iter().filter_map(|s| match s.pods {
            Some(SoftPods::Tally(tally)) => Some(tally),
            Some(SoftPods::Counter(_)) | None => None,
        });
        let spread = self.hard.iter().filter_map(|h| h.tally).chain(soft);
        let terms = self.affinity.iter().chain(&self.anti).chain(&self.against).copied();
        spread.chain(terms).chain(self.likes.iter().map(|(_, tally)| *tally))
    }

    /// Its counters that are read slot by slot.
    pub fn counters(&self) -> impl Iterator<Item = usize> {
        self.soft.iter().filter_map(|s| match s.pods {
            Some(SoftPods::Counter(counter)) => Some(counter),
            Some(SoftPods::Tally(_)) | None => None,
        })
    }

    /// Its topologies.
    pub fn topologies(&self) -> impl Iterator<Item = usize> {
        self.topologies.iter().copied()
    }

    fn is_empty(&self) -> bool {
        self.hard.is_empty() && self.soft.is_empty() && self.tallies().next().is_none()
    }
}

/// The change of the counts if pods were added to a node or removed from it.
#[derive(Clone, Debug, Default)]
pub struct Extra {
    /// The change of each tally in which the node counts.
    pods: Vec<(usize, i64)>,
}

impl Extra {
    /// Whether nothing changes.
    pub fn is_empty(&self) -> bool {
        self.pods.is_empty()
    }

    fn of(&self, tally: usize) -> i64 {
        self.pods.iter().filter(|(t, _)| *t == tally).map(|(_, pods)| pods).sum()
    }
}

/// Columns that are kept so that each decision can reuse their memory.
#[derive(Debug, Default)]
pub struct Scratch {
    allowed: Vec<bool>,
    patterns: Patterns,
    likes: Vec<i64>,
}

impl Peers {
    /// Resolves a class's rules with the current owners and terms of pods on nodes, unless that is done.
    pub(super) fn ask(&mut self, id: ClassId) {
        let class = self.class(id);
        if class.owners_epoch != Some(self.owners.epoch()) {
            self.ask_own(id);
        }
        if self.class(id).rules_seen < self.rules.len() {
            self.ask_rules(id);
        }
    }

    /// Its own constraints and terms.
    fn ask_own(&mut self, id: ClassId) {
        let class = self.class(id);
        let (shape, kin, owner) = (Rc::clone(&class.shape), &self.kin[&class.kin], class.owner);
        let (namespace, labels) = (Rc::clone(&kin.namespace), kin.labels.clone());
        let mut asks = Asks::default();
        let rules = &shape.peers;
        if !rules.spread.is_empty() {
            self.ask_spreads(&mut asks, (&shape, &namespace, &labels), &rules.spread, true);
        } else if let Some(selector) = self.owners.selector(&namespace, &labels, owner) {
            let of_owner =
                |c: &Spreading| Spreading { selector: selector.clone(), label_keys: Vec::new(), ..c.clone() };
            let defaults: Vec<Spreading> = shape.rules.spread.iter().map(of_owner).collect();
            self.ask_spreads(&mut asks, (&shape, &namespace, &labels), &defaults, !shape.rules.system_spread);
        }
        self.ask_terms(&mut asks, &shape, &namespace, &labels);
        let epoch = self.owners.epoch();
        let class = self.class_mut(id);
        class.asks = (!asks.is_empty()).then(|| Box::new(asks));
        class.owners_epoch = Some(epoch);
        class.rules_seen = 0;
    }

    /// Its spread constraints. `needs_all`: whether only nodes count that have the topology keys of all of a kind.
    fn ask_spreads(
        &mut self,
        asks: &mut Asks,
        (shape, namespace, labels): (&Rc<Shape>, &str, &Labels),
        all: &[Spreading],
        needs_all: bool,
    ) {
        let plugin = Plugin::PodTopologySpread;
        let (filters, scores) = (shape.rules.filters.has(plugin), shape.rules.weights.of(plugin) > 0);
        for c in all.iter().filter(|c| if c.hard { filters } else { scores }) {
            let like = all.iter().filter(|other| needs_all && other.hard == c.hard);
            let mut keys: Vec<_> = like.map(|other| other.key.clone()).collect();
            keys.sort_unstable();
            keys.dedup();
            self.ask_spread(asks, (shape, namespace, labels), c, keys);
        }
        asks.soft_needs_all = needs_all;
    }

    fn ask_spread(
        &mut self,
        asks: &mut Asks,
        (shape, namespace, labels): (&Rc<Shape>, &str, &Labels),
        c: &Spreading,
        keys: Vec<String>,
    ) {
        let selector = c.counted(labels);
        let topology = self.topology(&c.key);
        asks.topologies.push(topology);
        let affinity = c.honors_affinity && shape.is_choosy();
        // A single key is the topology key of the domains themselves.
        let keys = if keys.len() > 1 { keys } else { Vec::new() };
        let counter =
            (!selector.is_everything()).then(|| self.counter(Who::Alive(Match::within(namespace, selector.clone()))));
        let by = (affinity || c.honors_taints).then(|| Rc::clone(shape));
        let inclusion = Inclusion { keys, shape: by, affinity, taints: c.honors_taints };
        let (max_skew, min_domains, by_node) = (c.max_skew, c.min_domains, c.key == HOSTNAME);
        if c.hard {
            let tally = counter.map(|counter| self.tally(counter, topology, inclusion));
            tally.into_iter().for_each(|tally| self.tallies[tally].keep_least());
            let itself = i64::from(selector.matches(Some(labels)));
            asks.hard.push(Hard { topology, tally, max_skew, min_domains, itself });
        } else {
            let pods = counter.map(|counter| match by_node {
                true => SoftPods::Counter(counter),
                false => SoftPods::Tally(self.tally(counter, topology, inclusion)),
            });
            asks.soft.push(Soft { topology, pods, by_node, max_skew });
        }
    }

    fn ask_terms(&mut self, asks: &mut Asks, shape: &Shape, namespace: &str, labels: &Labels) {
        let meant = |t: &PodTerm| t.meant(namespace, labels);
        let rules = &shape.peers;
        let plugin = Plugin::InterPodAffinity;
        if shape.rules.weights.of(plugin) > 0 {
            for (weight, t) in &rules.preferred {
                let tally = self.ask_term(&mut asks.topologies, Who::All(vec![meant(t)]), &t.key);
                asks.likes.push((*weight, tally));
            }
        }
        if !shape.rules.filters.has(plugin) {
            return;
        }
        let all: Vec<Match> = rules.affinity.iter().map(meant).collect();
        let mine = self.namespaces.get(namespace).cloned();
        asks.likes_itself = all.iter().all(|m| m.matches(namespace, mine.as_ref(), labels));
        for t in &rules.affinity {
            let tally = self.ask_term(&mut asks.topologies, Who::All(all.clone()), &t.key);
            asks.affinity.push(tally);
        }
        for t in &rules.anti {
            let tally = self.ask_term(&mut asks.topologies, Who::All(vec![meant(t)]), &t.key);
            asks.anti.push(tally);
        }
    }

    fn ask_term(&mut self, topologies: &mut Vec<usize>, who: Who, key: &str) -> usize {
        let topology = self.topology(key);
        topologies.push(topology);
        let counter = self.counter(who);
        self.tally(counter, topology, Inclusion::default())
    }

    /// The terms of pods on nodes that concern this class.
    fn ask_rules(&mut self, id: ClassId) {
        let class = self.class_mut(id);
        let (kin, first, shape) = (class.kin, class.rules_seen, Rc::clone(&class.shape));
        let mut asks = class.asks.take().unwrap_or_default();
        let Peers { kin: all, namespaces, counters, .. } = self;
        let kin = &all[&kin];
        let mine = namespaces.get(&kin.namespace);
        let means = |rule: &usize| match &counters[*rule].who {
            Who::Carriers(c) if c.who.matches(&kin.namespace, mine, &kin.labels) => Some((*rule, c.clone())),
            Who::Carriers(_) => None,
            Who::All(_) | Who::Alive(_) => unreachable!("rules are carried terms"),
        };
        let meant: Vec<(usize, Carried)> = self.rules[first..].iter().filter_map(means).collect();
        for (counter, carried) in meant {
            if !hears(&shape, carried.role) {
                continue;
            }
            let topology = self.topology(&carried.key);
            asks.topologies.push(topology);
            let tally = self.tally(counter, topology, Inclusion::default());
            match carried.role {
                Role::Anti => asks.against.push(tally),
                Role::Affinity => asks.likes.push((shape.rules.hard_pod_affinity_weight, tally)),
                Role::Score(weight) => asks.likes.push((weight, tally)),
            }
        }
        asks.topologies.sort_unstable();
        asks.topologies.dedup();
        let seen = self.rules.len();
        let class = self.class_mut(id);
        class.rules_seen = seen;
        class.asks = (!asks.is_empty()).then_some(asks);
    }

    /// The change at a slot if these pods were added, or removed if their number is negative.
    pub fn extra(&mut self, slot: Slot, pods: impl Iterator<Item = (ClassId, bool, i64)>) -> Extra {
        let mut extra = Extra::default();
        for (class, alive, n) in pods {
            let kin = self.class(class).kin;
            self.learn(kin);
            for share in self.kin[&kin].shares.iter().filter(|s| alive || !s.alive) {
                for tally in &self.counters[share.counter].tallies {
                    if self.tallies[*tally].domain(slot) != NOWHERE {
                        extra.pods.push((*tally, share.times * n));
                    }
                }
            }
        }
        extra
    }

    /// Makes the counters for the terms of a pod of this class that is about to be placed.
    pub fn announce(&mut self, class: ClassId) {
        let kin = self.class(class).kin;
        self.hear(kin);
    }

    fn at(&self, tally: usize, slot: Slot, extra: &Extra) -> i64 {
        let t = &self.tallies[tally];
        t.counts[t.domain(slot) as usize] + extra.of(tally)
    }

    /// Why a class may not run on an otherwise feasible node because of other pods; `None` if it may.
    pub fn rejection(&self, id: ClassId, slot: Slot, extra: &Extra) -> Option<Rejection> {
        let asks = self.class(id).asks.as_ref()?;
        for h in &asks.hard {
            let domain = self.topologies[h.topology].domain[slot as usize];
            if domain == NOWHERE {
                return Some(Rejection::unresolvable("PodTopologySpread", MISSING_LABEL));
            }
            let skew = h.tally.map_or(0, |tally| {
                let (t, more) = (&self.tallies[tally], extra.of(tally));
                t.counts[domain as usize] + more - t.least(h.min_domains, Some((t.domain(slot), more)))
            });
            if skew + h.itself > h.max_skew {
                return Some(Rejection::resolvable("PodTopologySpread", UNEVEN));
            }
        }
        if !self.meets_affinity(asks, slot, extra) {
            return Some(Rejection::unresolvable("InterPodAffinity", AFFINITY));
        }
        let somebody = |tally: &usize| self.tallies[*tally].domain(slot) != NOWHERE && self.at(*tally, slot, extra) > 0;
        if asks.anti.iter().any(somebody) {
            return Some(Rejection::resolvable("InterPodAffinity", ANTI_AFFINITY));
        }
        let refused = asks.against.iter().any(somebody);
        refused.then(|| Rejection::resolvable("InterPodAffinity", EXISTING_ANTI_AFFINITY))
    }

    fn meets_affinity(&self, asks: &Asks, slot: Slot, extra: &Extra) -> bool {
        let at = |tally: &usize| self.tallies[*tally].domain(slot);
        if asks.affinity.iter().any(|tally| at(tally) == NOWHERE) {
            return false;
        }
        let near = |tally: &usize| self.at(*tally, slot, extra) > 0;
        asks.affinity.iter().all(near) || self.may_be_first(asks, extra)
    }

    /// Whether the pod may be the first of a group with affinity to itself.
    fn may_be_first(&self, asks: &Asks, extra: &Extra) -> bool {
        asks.likes_itself && asks.affinity.iter().all(|tally| self.tallies[*tally].total + extra.of(*tally) == 0)
    }

    /// What would have to change so that other pods no longer exclude a class from a node.
    pub fn remedy(&self, id: ClassId, slot: Slot, plugin: &str) -> String {
        let Some(asks) = &self.class(id).asks else { return String::new() };
        let none = Extra::default();
        if plugin == "PodTopologySpread" {
            for h in &asks.hard {
                let topology = &self.topologies[h.topology];
                let domain = topology.domain[slot as usize];
                if domain == NOWHERE {
                    return format!("label the node with {}", topology.key);
                }
                let Some(tally) = h.tally.map(|t| &self.tallies[t]) else { continue };
                let (pods, least) = (tally.counts[domain as usize], tally.least(h.min_domains, None));
                if pods + h.itself - least > h.max_skew {
                    return format!(
                        "more pods in the other values of {}: {pods} of those that count are here, {least} where they \
                         are fewest, and maxSkew is {}",
                        topology.key, h.max_skew
                    );
                }
            }
        }
        let key = |tally: &usize| &self.topologies[self.tallies[*tally].topology].key;
        if let Some(tally) = asks.affinity.iter().find(|tally| self.at(**tally, slot, &none) <= 0) {
            return format!("a pod that its required affinity selects, in this node's {}", key(tally));
        }
        if let Some(tally) = asks.anti.iter().find(|tally| self.at(**tally, slot, &none) > 0) {
            let pods = self.at(*tally, slot, &none);
            return format!("none of the {pods} pods that its anti-affinity selects in this node's {}", key(tally));
        }
        let against = asks.against.iter().find(|tally| self.at(**tally, slot, &none) > 0);
        against.map_or_else(String::new, |tally| {
            let pods = self.at(*tally, slot, &none);
            format!("none of the {pods} pods in this node's {} whose anti-affinity selects it", key(tally))
        })
    }

    /// Sets to -1, in a column of scores, the nodes that other pods exclude a class from.
    pub fn judge(&mut self, id: ClassId, scores: &mut [i32]) {
        let mut allowed = std::mem::take(&mut self.scratch.allowed);
        let Some(asks) = self.classes.get(&id).and_then(|class| class.asks.as_ref()) else { return };
        for h in &asks.hard {
            let topology = &self.topologies[h.topology];
            allowed.clear();
            allowed.resize(topology.numbers(), h.itself <= h.max_skew);
            if let Some(tally) = h.tally.map(|t| &self.tallies[t]) {
                let most = h.max_skew - h.itself + tally.least(h.min_domains, None);
                allowed.iter_mut().zip(&tally.counts).for_each(|(allowed, pods)| *allowed = *pods <= most);
            }
            allowed[NOWHERE as usize] = false;
            keep(scores, &topology.domain, &allowed);
        }
        if !asks.affinity.is_empty() {
            let first = self.may_be_first(asks, &Extra::default());
            for tally in &asks.affinity {
                let tally = &self.tallies[*tally];
                allowed.clear();
                allowed.extend(tally.counts.iter().map(|pods| first || *pods > 0));
                allowed[NOWHERE as usize] = false;
                keep(scores, &self.topologies[tally.topology].domain, &allowed);
            }
        }
        for tally in asks.anti.iter().chain(&asks.against) {
            let tally = &self.tallies[*tally];
            if tally.total != 0 {
                allowed.clear();
                allowed.extend(tally.counts.iter().map(|pods| *pods <= 0));
                allowed[NOWHERE as usize] = true;
                keep(scores, &self.topologies[tally.topology].domain, &allowed);
            }
        }
        self.scratch.allowed = allowed;
    }

    /// Adds the scores that depend on other pods to a column of scores, in which only feasible nodes are not negative.
    pub fn score(&mut self, id: ClassId, scores: &mut [i32]) {
        let mut scratch = std::mem::take(&mut self.scratch);
        let class = self.class(id);
        if let Some(asks) = &class.asks {
            let weight = |plugin| class.shape.rules.weights.of(plugin) as i32;
            if !asks.soft.is_empty() {
                self.score_spread(asks, weight(Plugin::PodTopologySpread), scores, &mut scratch.patterns);
            }
            if !asks.likes.is_empty() {
                self.score_likes(asks, weight(Plugin::InterPodAffinity), scores, &mut scratch);
            }
        }
        self.scratch = scratch;
    }

    fn score_likes(&self, asks: &Asks, weight: i32, scores: &mut [i32], scratch: &mut Scratch) {
        let likes = &mut scratch.likes;
        likes.clear();
        likes.resize(scores.len(), 0);
        let mut any = false;
        for (likes_by, tally) in &asks.likes {
            let tally: &Tally = &self.tallies[*tally];
            if tally.total == 0 {
                continue;
            }
            any = true;
            let domain = &self.topologies[tally.topology].domain;
            likes.iter_mut().zip(&**domain).for_each(|(sum, d)| *sum += likes_by * tally.counts[*d as usize]);
        }
        if !any {
            return;
        }
        let (mut least, mut most) = (i64::MAX, i64::MIN);
        for (_, likes) in scores.iter().zip(&*likes).filter(|(score, _)| **score >= 0) {
            least = least.min(*likes);
            most = most.max(*likes);
        }
        if least >= most {
            return;
        }
        for (score, likes) in scores.iter_mut().zip(&*likes).filter(|(score, _)| **score >= 0) {
            *score += weight * affinity_score(*likes, least, most);
        }
    }
}

/// Whether a term of pods on nodes counts for pods of a shape.
fn hears(shape: &Shape, role: Role) -> bool {
    let (rules, plugin) = (&shape.rules, Plugin::InterPodAffinity);
    let scores = rules.weights.of(plugin) > 0 && !(rules.ignore_preferred_terms && shape.peers.preferred.is_empty());
    match role {
        Role::Anti => rules.filters.has(plugin),
        Role::Affinity => scores && rules.hard_pod_affinity_weight > 0,
        Role::Score(_) => scores,
    }
}

/// Sets to -1 the scores of slots whose domain is not allowed.
fn keep(scores: &mut [i32], domain: &[u32], allowed: &[bool]) {
    for (score, domain) in scores.iter_mut().zip(domain) {
        if !allowed[*domain as usize] {
            *score = -1;
        }
    }
}
