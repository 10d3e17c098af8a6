//! Topology domains, the values of a node label, as numbers; and the pods counted in each.

use std::collections::BTreeMap;
use std::rc::Rc;

use crate::scheduler::cache::{Nodes, Slot};
use crate::scheduler::shape::{Effect, Shape};

/// No domain: the node lacks the label, does not exist, or does not count.
pub const NOWHERE: u32 = 0;

/// The domains of a topology key.
#[derive(Debug)]
pub struct Topology {
    /// The label.
    pub key: String,
    ids: BTreeMap<String, u32>,
    /// The domain of each slot.
    pub domain: Rc<Vec<u32>>,
    /// By slot: the node's generation when its domain was read.
    generation: Vec<u64>,
    layout: Option<u64>,
}

impl Topology {
    /// A topology that has not looked at any node yet.
    pub fn new(key: &str) -> Topology {
        let (ids, domain) = (BTreeMap::new(), Rc::default());
        Topology { key: key.to_owned(), ids, domain, generation: Vec::new(), layout: None }
    }

    /// How many domain numbers there are, including [`NOWHERE`].
    pub fn numbers(&self) -> usize {
        self.ids.len() + 1
    }

    /// Brings the domains up to date with all changes of nodes.
    pub fn refresh(&mut self, nodes: &Nodes) {
        let slots = nodes.slots() as usize;
        if self.layout == Some(nodes.layout()) && self.domain.len() == slots {
            return;
        }
        self.layout = Some(nodes.layout());
        // Unused values keep their numbers. Once there are too many, all are numbered again.
        if self.ids.len() > 4 * slots + 64 {
            self.ids.clear();
            self.generation.clear();
        }
        self.generation.resize(slots, 0);
        let domain = Rc::make_mut(&mut self.domain);
        domain.resize(slots, NOWHERE);
        let known = domain.iter_mut().zip(&mut self.generation);
        for ((domain, generation), slot) in known.zip(0..) {
            if *generation == nodes.generation(slot) {
                continue;
            }
            *generation = nodes.generation(slot);
            let labels = nodes.meta(slot).labels.as_ref().filter(|_| nodes.is_present(slot));
            *domain = match labels.and_then(|l| l.get(&self.key)) {
                None => NOWHERE,
                Some(value) => match self.ids.get(value) {
                    Some(id) => *id,
                    None => {
                        let id = self.ids.len() as u32 + 1;
                        self.ids.insert(value.clone(), id);
                        id
                    }
                },
            };
        }
    }
}

/// Which nodes count for a spread constraint.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct Inclusion {
    /// The topology keys that they must have as labels.
    pub keys: Vec<String>,
    /// The shape whose node affinity or tolerations they must match; `None` if neither matters.
    pub shape: Option<Rc<Shape>>,
    /// Whether the node affinity must match.
    pub affinity: bool,
    /// Whether the tolerations must match.
    pub taints: bool,
}

impl Inclusion {
    /// Whether every node with a domain counts.
    pub fn is_everywhere(&self) -> bool {
        self.keys.is_empty() && self.shape.is_none()
    }

    fn includes(&self, nodes: &Nodes, slot: Slot) -> bool {
        let meta = nodes.meta(slot);
        let has = |key: &String| meta.labels.as_ref().is_some_and(|l| l.contains_key(key));
        let keeps_away = |effect: Effect| matches!(effect, Effect::NoSchedule | Effect::NoExecute);
        self.keys.iter().all(has)
            && self.shape.as_ref().is_none_or(|shape| {
                let tolerated = || {
                    let mut taints = nodes.taints(slot).iter().filter(|t| keeps_away(t.effect));
                    taints.all(|t| shape.tolerates(&t.key, &t.value, t.effect))
                };
                (!self.affinity || shape.likes_node(meta)) && (!self.taints || tolerated())
            })
    }
}

/// The pods of one counter, summed up by domain.
#[derive(Debug)]
pub struct Tally {
    /// The counter.
    pub counter: usize,
    /// The topology that the domains belong to.
    pub topology: usize,
    inclusion: Inclusion,
    /// The domain in which the pods of each slot count.
    domain: Rc<Vec<u32>>,
    /// The number of pods in each domain.
    pub counts: Vec<i64>,
    /// The number of pods in all domains.
    pub total: i64,
    /// Whether a constraint asks for the domain with the fewest pods.
    keeps_least: bool,
    /// How many of the domains that have a node that counts have each number of pods. Only if `keeps_least`.
    spread: BTreeMap<i64, u32>,
    /// How many domains have a node that counts.
    domains: i64,
    /// The layouts of nodes and taints that it is based on.
    valid: Option<(u64, u64)>,
}

impl Tally {
    /// A tally that has counted nothing yet.
    pub fn new(counter: usize, topology: usize, inclusion: Inclusion) -> Tally {
        Tally {
            counter,
            topology,
            inclusion,
            domain: Rc::default(),
            counts: Vec::new(),
            total: 0,
            keeps_least: false,
            spread: BTreeMap::new(),
            domains: 0,
            valid: None,
        }
    }

    /// Starts to keep the domain with the fewest pods.
    pub fn keep_least(&mut self) {
        if !self.keeps_least {
            self.keeps_least = true;
            self.valid = None;
        }
    }

    /// Brings the tally up to date with all changes of nodes: counts again if any of them matters.
    pub fn refresh(&mut self, topology: &Topology, by_slot: &[u32], nodes: &Nodes) {
        let valid = (nodes.layout(), if self.inclusion.taints { nodes.taint_layout() } else { 0 });
        if self.valid == Some(valid)
            && self.domain.len() == topology.domain.len()
            && self.counts.len() == topology.numbers()
        {
            return;
        }
        self.valid = Some(valid);
        self.domain = if self.inclusion.is_everywhere() {
            Rc::clone(&topology.domain)
        } else {
            let of = |(slot, domain): (usize, &u32)| {
                let counts = *domain != NOWHERE && self.inclusion.includes(nodes, slot as Slot);
                if counts { *domain } else { NOWHERE }
            };
            Rc::new(topology.domain.iter().enumerate().map(of).collect())
        };
        self.counts = vec![0; topology.numbers()];
        self.total = 0;
        let mut seen = vec![false; topology.numbers()];
        for (slot, domain) in self.domain.iter().enumerate().filter(|(_, d)| **d != NOWHERE) {
            seen[*domain as usize] = true;
            let pods = i64::from(by_slot.get(slot).copied().unwrap_or(0));
            self.counts[*domain as usize] += pods;
            self.total += pods;
        }
        self.spread.clear();
        self.domains = 0;
        if !self.keeps_least {
            return;
        }
        for (count, _) in self.counts.iter().zip(seen).filter(|(_, seen)| *seen) {
            *self.spread.entry(*count).or_insert(0) += 1;
            self.domains += 1;
        }
    }

    /// The domain in which the pods of a slot count.
    pub fn domain(&self, slot: Slot) -> u32 {
        self.domain.get(slot as usize).copied().unwrap_or(NOWHERE)
    }

    /// Adds pods on a slot.
    pub fn add(&mut self, slot: Slot, pods: i64) {
        let domain = self.domain(slot);
        if domain == NOWHERE || self.valid.is_none() {
            return;
        }
        let count = &mut self.counts[domain as usize];
        let before = *count;
        *count += pods;
        self.total += pods;
        if !self.keeps_least || pods == 0 {
            return;
        }
        *self.spread.entry(before + pods).or_insert(0) += 1;
        let of = self.spread.get_mut(&before).expect("a domain's count is among the counts");
        *of -= 1;
        if *of == 0 {
            self.spread.remove(&before);
        }
    }

    /// The least number of pods in a domain, if one domain had this many more. Zero if there are fewer domains than
    /// `min_domains`.
    pub fn least(&self, min_domains: i64, more: Option<(u32, i64)>) -> i64 {
        if self.domains < min_domains {
            return 0;
        }
        let Some((domain, more)) = more.filter(|(domain, more)| *domain != NOWHERE && *more != 0) else {
            return self.spread.first_key_value().map_or(0, |(least, _)| *least);
        };
        let here = self.counts[domain as usize];
        let others = self.spread.iter().find(|(count, domains)| **count != here || **domains > 1);
        others.map_or(here + more, |(least, _)| (*least).min(here + more))
    }
}
