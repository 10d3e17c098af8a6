//! Scores of PodTopologySpread over all nodes at once.
//!
//! Thousands of nodes have few different combinations of what the constraints look at, which is the domain of a node or
//! the pods on it. Nodes with the same combination have the same *pattern*. The part in floating point is computed once
//! per pattern. The nodes are walked with integers only: one pass finds the pattern of each node, one counts, and one
//! adds the score.

use super::class::{Asks, Soft, SoftPods};
use super::domains::NOWHERE;
use super::{Counter, Peers};
use crate::scheduler::scores::{log_of_domains, spread_count, spread_score};

/// Columns by slot and by pattern, kept from one decision to the next.
#[derive(Debug, Default)]
pub struct Patterns {
    /// The pattern of each slot.
    of: Vec<u32>,
    /// The upper bound of the pattern numbers.
    count: usize,
    /// By pattern: how many feasible nodes have it.
    nodes: Vec<u32>,
    /// By pattern: the last slot that has it.
    example: Vec<u32>,
    /// By pattern: what is added to a node's score.
    score: Vec<i32>,
    /// The patterns that a feasible node has, and their raw scores.
    raw: Vec<(usize, i32)>,
    /// By domain of one constraint: whether a scored node is in it.
    seen: Vec<bool>,
}

impl Patterns {
    /// Gives this many slots the same pattern.
    fn begin(&mut self, slots: usize) {
        self.of.clear();
        self.of.resize(slots, 0);
        self.count = usize::from(slots > 0);
    }

    /// Splits the patterns by one more constraint: by the key of each slot, which is below `numbers`.
    fn divide(&mut self, numbers: usize, keys: impl Iterator<Item = u32>) {
        if self.count * numbers <= 4 * self.of.len() + 1_024 {
            self.count *= numbers;
            // The result is below `count`, so no check for overflow is needed, and the loop can be vectorised.
            let refine = |pattern: u32, key: u32| pattern.wrapping_mul(numbers as u32).wrapping_add(key);
            self.of.iter_mut().zip(keys).for_each(|(pattern, key)| *pattern = refine(*pattern, key));
            return;
        }
        // Most of that many patterns would have no slot, so those that have one are numbered without gaps.
        let pairs: Vec<(u32, u32)> = self.of.iter().copied().zip(keys).collect();
        let mut sorted = pairs.clone();
        sorted.sort_unstable();
        sorted.dedup();
        self.count = sorted.len();
        let place = |pair: &(u32, u32)| sorted.binary_search(pair).expect("each pair is among them") as u32;
        self.of.iter_mut().zip(&pairs).for_each(|(pattern, pair)| *pattern = place(pair));
    }

    /// Counts the feasible nodes (those whose score is not negative) of each pattern.
    fn count(&mut self, scores: &[i32]) {
        self.nodes.clear();
        self.nodes.resize(self.count, 0);
        self.example.clear();
        self.example.resize(self.count, 0);
        for ((score, pattern), slot) in scores.iter().zip(&self.of).zip(0..) {
            if *score >= 0 {
                self.nodes[*pattern as usize] += 1;
                self.example[*pattern as usize] = slot;
            }
        }
    }
}

impl Peers {
    /// Adds the scores of the preferred constraints to a column of scores, in which only feasible nodes are not
    /// negative.
    pub(super) fn score_spread(&self, asks: &Asks, weight: i32, scores: &mut [i32], patterns: &mut Patterns) {
        patterns.begin(scores.len());
        for s in &asks.soft {
            let topology = &self.topologies[s.topology];
            let domains = topology.domain.iter();
            match (s.by_node, s.pods) {
                (false, _) => patterns.divide(topology.numbers(), domains.copied()),
                (true, Some(SoftPods::Counter(counter))) => {
                    let Counter { by_slot, most, .. } = &self.counters[counter];
                    let key = |(domain, pods): (&u32, &u32)| if *domain == NOWHERE { 0 } else { pods.wrapping_add(1) };
                    patterns.divide(*most as usize + 2, domains.zip(by_slot).map(key));
                }
                (true, Some(SoftPods::Tally(_)) | None) => {
                    patterns.divide(2, domains.map(|d| u32::from(*d != NOWHERE)))
                }
            }
        }
        patterns.count(scores);
        self.work_out(asks, weight, patterns);
        for (score, pattern) in scores.iter_mut().zip(&patterns.of) {
            let more = patterns.score[*pattern as usize];
            *score = score.wrapping_add(if *score >= 0 { more } else { 0 });
        }
    }

    /// Computes what is added to the score of each pattern that a feasible node has.
    fn work_out(&self, asks: &Asks, weight: i32, patterns: &mut Patterns) {
        let Patterns { nodes, example, score, raw, seen, .. } = patterns;
        let is_scored = |slot: u32| {
            let lacks = |s: &Soft| self.topologies[s.topology].domain[slot as usize] == NOWHERE;
            !(asks.soft_needs_all && asks.soft.iter().any(lacks))
        };
        raw.clear();
        let there = (0..nodes.len()).filter(|pattern| nodes[*pattern] > 0 && is_scored(example[*pattern]));
        raw.extend(there.map(|pattern| (pattern, 0)));
        let all: u32 = raw.iter().map(|(pattern, _)| nodes[*pattern]).sum();
        let mut weights = Vec::with_capacity(asks.soft.len());
        for s in &asks.soft {
            let size = if s.by_node {
                all as usize
            } else {
                let topology = &self.topologies[s.topology];
                seen.clear();
                seen.resize(topology.numbers(), false);
                let domain = |pattern: usize| topology.domain[example[pattern] as usize];
                raw.iter().for_each(|(pattern, _)| seen[domain(*pattern) as usize] = true);
                seen.iter().filter(|seen| **seen).count()
            };
            weights.push(log_of_domains(size));
        }
        let (mut least, mut most) = (i32::MAX, 0);
        for (pattern, raw) in raw.iter_mut() {
            let slot = example[*pattern] as usize;
            let sum = asks.soft.iter().zip(&weights).fold(0.0, |sum, (s, weight)| sum + self.value(s, slot, *weight));
            *raw = round(sum);
            (least, most) = (least.min(*raw), most.max(*raw));
        }
        score.clear();
        score.resize(nodes.len(), 0);
        for (pattern, raw) in &*raw {
            score[*pattern] = weight * spread_score(*raw, least, most);
        }
    }

    /// What a constraint adds to the raw score of a node.
    fn value(&self, s: &Soft, slot: usize, weight: f64) -> f64 {
        let domain = self.topologies[s.topology].domain[slot];
        if domain == NOWHERE {
            return 0.0;
        }
        let pods = match s.pods {
            None => 0,
            Some(SoftPods::Counter(counter)) => i64::from(self.counters[counter].by_slot[slot]),
            Some(SoftPods::Tally(tally)) => self.tallies[tally].counts.get(domain as usize).copied().unwrap_or(0),
        };
        spread_count(pods, s.max_skew, weight)
    }
}

/// Rounds to the nearest integer; halves are rounded up.
fn round(sum: f64) -> i32 {
    let whole = sum as i32;
    whole + i32::from(sum - f64::from(whole) >= 0.5)
}
