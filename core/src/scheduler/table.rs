//! The result of filtering and scoring every node for one pod shape. Only nodes that changed are looked at again, and
//! the best node is found quickly.
//!
//! The result is always the same as if every node were filtered and scored from scratch. Normalised scores depend on
//! the greatest raw score among the feasible nodes. The raw scores of the feasible nodes are therefore counted, and all
//! totals are computed again only when the greatest raw score changes.

use std::collections::BTreeMap;
use std::rc::Rc;

use super::cache::{Nodes, Slot};
use super::framework::{NORMALIZED, Reads, Rejection, filter, normalized_score, plain_score, raw_scores};
use super::profile::Rules;
use super::shape::Shape;
use super::trial::Trial;

/// The best score within a subtree, and how many nodes have it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Best {
    /// The score; -1 if no node is feasible.
    pub score: i64,
    /// How many nodes have it.
    pub count: u32,
}

const NOBODY: Best = Best { score: -1, count: 0 };

impl Best {
    fn of(a: Best, b: Best) -> Best {
        match a.score.cmp(&b.score) {
            std::cmp::Ordering::Greater => a,
            std::cmp::Ordering::Less => b,
            std::cmp::Ordering::Equal => Best { score: a.score, count: a.count + b.count },
        }
    }
}

/// A tournament tree over slots. Changing a score and finding the n-th of the best slots both take logarithmic time.
#[derive(Debug)]
pub struct Tournament {
    leaves: usize,
    best: Vec<Best>,
}

impl Tournament {
    /// A tree for this many slots, none of them feasible.
    pub fn new(slots: usize) -> Tournament {
        let leaves = slots.next_power_of_two().max(1);
        Tournament { leaves, best: vec![NOBODY; leaves * 2] }
    }

    /// Sets a slot's score; -1 if it is not feasible.
    pub fn set(&mut self, slot: Slot, score: i64) {
        let mut i = self.leaves + slot as usize;
        self.best[i] = if score < 0 { NOBODY } else { Best { score, count: 1 } };
        while i > 1 {
            i /= 2;
            let merged = Best::of(self.best[2 * i], self.best[2 * i + 1]);
            if self.best[i] == merged {
                return;
            }
            self.best[i] = merged;
        }
    }

    /// The best score, and how many slots have it.
    pub fn top(&self) -> Best {
        self.best[1]
    }

    /// The `n`-th of the slots that have the best score, in slot order.
    pub fn nth(&self, mut n: u32) -> Slot {
        let top = self.top();
        assert!(n < top.count, "there are only as many best slots");
        let mut i = 1;
        while i < self.leaves {
            i *= 2;
            let left = self.best[i];
            let in_left = if left.score == top.score { left.count } else { 0 };
            if n >= in_left {
                n -= in_left;
                i += 1;
            }
        }
        (i - self.leaves) as Slot
    }
}

/// How many nodes have each rejection.
#[derive(Debug, Default)]
pub struct Rejections {
    ids: BTreeMap<Rejection, u32>,
    all: Vec<Rejection>,
    counts: Vec<u32>,
}

impl Rejections {
    /// The number of a rejection, which gets one if it has none.
    fn id(&mut self, rejection: Rejection) -> u32 {
        if let Some(id) = self.ids.get(&rejection) {
            return *id;
        }
        let id = self.all.len() as u32;
        self.all.push(rejection.clone());
        self.counts.push(0);
        self.ids.insert(rejection, id);
        id
    }

    /// Counts more nodes with a rejection.
    pub fn add(&mut self, rejection: Rejection, nodes: u32) {
        let id = self.id(rejection);
        self.counts[id as usize] += nodes;
    }

    /// Each rejection with its number of nodes, if that is not zero.
    pub fn iter(&self) -> impl Iterator<Item = (&Rejection, u32)> {
        self.all.iter().zip(self.counts.iter().copied()).filter(|(_, n)| *n > 0)
    }
}

/// The result for a slot.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Verdict {
    /// There is no node there.
    Absent,
    /// The node is rejected, for the reason with this number.
    Rejected(u32),
    /// The node is feasible; this is its score without the normalised ones.
    Feasible(i64),
}

#[derive(Clone, Copy, Debug)]
struct Row {
    /// One more than the number of the last change that it includes; zero if it includes none.
    seen: u64,
    /// The node's generation when `fixed` and `raw` were computed; zero if they were not.
    generation: u64,
    /// The rejection by a filter that reads only the node itself.
    fixed: Option<u32>,
    raw: [i64; NORMALIZED],
    verdict: Verdict,
}

const BLANK: Row = Row { seen: 0, generation: 0, fixed: None, raw: [0; NORMALIZED], verdict: Verdict::Absent };

/// The results for all nodes, for one pod shape.
#[derive(Debug)]
pub struct Table {
    rows: Vec<Row>,
    /// The scores of the feasible nodes without the normalised ones; -1 for the others.
    scores: Vec<i32>,
    tree: Tournament,
    rejections: Rejections,
    /// For each normalised score: how many feasible nodes have each raw score.
    raws: [BTreeMap<i64, u32>; NORMALIZED],
    /// The greatest raw scores, with which the totals in the tree were computed.
    max: [i64; NORMALIZED],
    /// The number of the first change that the table does not include.
    seen: u64,
    /// When the table was last used, for an owner of many tables.
    pub used: u64,
}

impl Default for Table {
    /// An empty table; the first refresh looks at every node.
    fn default() -> Table {
        Table {
            rows: Vec::new(),
            scores: Vec::new(),
            tree: Tournament::new(0),
            rejections: Rejections::default(),
            raws: Default::default(),
            max: [0; NORMALIZED],
            seen: 0,
            used: 0,
        }
    }
}

impl Table {
    /// Brings the table up to date with all changes of nodes.
    pub fn refresh(&mut self, shape: &Rc<Shape>, priority: i32, nodes: &Nodes) {
        let slots = nodes.slots();
        if self.rows.len() < slots as usize {
            self.rows.resize(slots as usize, BLANK);
            self.scores.resize(slots as usize, -1);
            if self.tree.leaves < slots as usize {
                self.tree = Tournament::new(slots as usize);
                self.total_all(&shape.rules);
            }
        }
        let behind = nodes.now() - self.seen;
        match nodes.changes_since(self.seen).filter(|_| behind <= u64::from(slots)) {
            Some(changed) => changed.for_each(|slot| self.look(shape, priority, nodes, slot)),
            None => (0..slots).for_each(|slot| self.look(shape, priority, nodes, slot)),
        }
        self.seen = nodes.now();
        let max = std::array::from_fn(|i| self.raws[i].last_key_value().map_or(0, |(raw, _)| *raw));
        if max != self.max {
            self.max = max;
            self.total_all(&shape.rules);
        }
    }

    /// The best score and how many nodes have it, as of the last refresh.
    pub fn top(&self) -> Best {
        self.tree.top()
    }

    /// The `n`-th of the best nodes, in slot order.
    pub fn nth(&self, n: u32) -> Slot {
        self.tree.nth(n)
    }

    /// The scores of the feasible nodes by slot, without the normalised ones; -1 for the others.
    pub fn scores(&self) -> &[i32] {
        &self.scores
    }

    /// Adds the normalised scores to a column of scores. Some of its nodes may have been found infeasible (-1)
    /// meanwhile.
    pub fn add_normalized(&self, rules: &Rules, scores: &mut [i32]) {
        if self.raws.iter().all(|counts| counts.len() <= 1) {
            // The normalised scores are the same for all nodes.
            return;
        }
        let mut max = [0; NORMALIZED];
        for (row, _) in self.rows.iter().zip(&*scores).filter(|(_, score)| **score >= 0) {
            max.iter_mut().zip(row.raw).for_each(|(max, raw)| *max = raw.max(*max));
        }
        for (row, score) in self.rows.iter().zip(scores).filter(|(_, score)| **score >= 0) {
            *score += normalized_score(rules, &row.raw, &max) as i32;
        }
    }

    /// Why a node is not feasible; `None` if it is feasible or does not exist.
    pub fn rejection(&self, slot: Slot) -> Option<&Rejection> {
        match self.rows[slot as usize].verdict {
            Verdict::Absent | Verdict::Feasible(_) => None,
            Verdict::Rejected(id) => Some(&self.rejections.all[id as usize]),
        }
    }

    /// Why the other nodes are not feasible.
    pub fn rejections(&self) -> &Rejections {
        &self.rejections
    }

    /// Computes a slot's result again, unless it is up to date.
    fn look(&mut self, shape: &Rc<Shape>, priority: i32, nodes: &Nodes, slot: Slot) {
        let mut row = self.rows[slot as usize];
        // Changes are numbered from zero, so a row with `seen` 0 lags behind the first change.
        if row.seen > nodes.changed_at(slot) {
            return;
        }
        let before = row;
        if row.generation != nodes.generation(slot) {
            row.generation = nodes.generation(slot);
            row.fixed = filter(Reads::Node, shape, nodes, slot).map(|r| self.rejections.id(r));
            row.raw = raw_scores(shape, nodes, slot);
        }
        row.verdict = if !nodes.is_present(slot) {
            Verdict::Absent
        } else if let Some(id) = row.fixed {
            Verdict::Rejected(id)
        } else if let Some(rejection) = usage(shape, priority, nodes, slot) {
            Verdict::Rejected(self.rejections.id(rejection))
        } else {
            Verdict::Feasible(plain_score(shape, nodes, slot))
        };
        row.seen = nodes.now();
        self.rows[slot as usize] = row;
        self.scores[slot as usize] = match row.verdict {
            Verdict::Absent | Verdict::Rejected(_) => -1,
            Verdict::Feasible(score) => score as i32,
        };
        self.recount(&before, &row);
        self.tree.set(slot, total(&shape.rules, &row, &self.max));
    }

    /// Replaces the old state of a row by its new state in the counts.
    fn recount(&mut self, before: &Row, after: &Row) {
        let feasible = |row: &Row| matches!(row.verdict, Verdict::Feasible(_));
        if feasible(before) && feasible(after) && before.raw == after.raw {
            return;
        }
        match before.verdict {
            Verdict::Absent => {}
            Verdict::Rejected(id) => self.rejections.counts[id as usize] -= 1,
            Verdict::Feasible(_) => {
                for (raws, raw) in self.raws.iter_mut().zip(before.raw) {
                    let count = raws.get_mut(&raw).expect("a feasible node's raw scores are counted");
                    *count -= 1;
                    if *count == 0 {
                        raws.remove(&raw);
                    }
                }
            }
        }
        match after.verdict {
            Verdict::Absent => {}
            Verdict::Rejected(id) => self.rejections.counts[id as usize] += 1,
            Verdict::Feasible(_) => {
                for (raws, raw) in self.raws.iter_mut().zip(after.raw) {
                    *raws.entry(raw).or_insert(0) += 1;
                }
            }
        }
    }

    fn total_all(&mut self, rules: &Rules) {
        for (slot, row) in self.rows.iter().enumerate() {
            self.tree.set(slot as Slot, total(rules, row, &self.max));
        }
    }
}

fn total(rules: &Rules, row: &Row, max: &[i64; NORMALIZED]) -> i64 {
    match row.verdict {
        Verdict::Absent | Verdict::Rejected(_) => -1,
        // A raw score above `max` becomes the greatest one next, and then all totals are computed again.
        Verdict::Feasible(score) if row.raw.iter().zip(max).any(|(raw, max)| raw > max) => score,
        Verdict::Feasible(score) => score + normalized_score(rules, &row.raw, max),
    }
}

/// Why a pod of this shape and priority does not fit a node beside its pods and the nominated pods that go first
/// (`RunFilterPluginsWithNominatedPods`).
pub fn usage(shape: &Rc<Shape>, priority: i32, nodes: &Nodes, slot: Slot) -> Option<Rejection> {
    let mut first = nodes.nominees(slot).iter().filter(|n| n.priority >= priority).peekable();
    if first.peek().is_some() {
        let mut trial = Trial::new(shape, slot);
        first.for_each(|n| trial.add(&n.shape));
        if let Some(rejection) = trial.rejection(nodes) {
            return Some(rejection);
        }
    }
    filter(Reads::Usage, shape, nodes, slot)
}

/// Filters and scores only these slots, from scratch. Returns the feasible ones, with the scores of the plug-ins that
/// look at nodes alone, and why the others are not feasible.
pub fn scan(
    shape: &Rc<Shape>,
    priority: i32,
    nodes: &Nodes,
    slots: impl Iterator<Item = Slot>,
) -> (Vec<(Slot, i32)>, Rejections) {
    let mut rejections = Rejections::default();
    let mut feasible = Vec::new();
    for slot in slots {
        match filter(Reads::Node, shape, nodes, slot).or_else(|| usage(shape, priority, nodes, slot)) {
            Some(rejection) => rejections.add(rejection, 1),
            None => feasible.push((slot, raw_scores(shape, nodes, slot), plain_score(shape, nodes, slot))),
        }
    }
    let max = std::array::from_fn(|i| feasible.iter().map(|(_, raw, _)| raw[i]).max().unwrap_or(0));
    let total =
        |(slot, raw, plain): &(Slot, _, i64)| (*slot, (*plain + normalized_score(&shape.rules, raw, &max)) as i32);
    (feasible.iter().map(total).collect(), rejections)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::Tournament;

    proptest! {
        #[test]
        fn tournament_is_a_scan(slots in 1usize..40, moves in prop::collection::vec((0usize..40, -1i64..4), 0..80)) {
            let mut tree = Tournament::new(slots);
            let mut scores = vec![-1; slots];
            for (slot, score) in moves {
                let slot = slot % slots;
                tree.set(slot as u32, score);
                scores[slot] = score;
                let best = *scores.iter().max().unwrap();
                let wins = |s: &u32| best >= 0 && scores[*s as usize] == best;
                let winners: Vec<u32> = (0..slots as u32).filter(wins).collect();
                prop_assert_eq!(tree.top().score, best);
                prop_assert_eq!(tree.top().count as usize, winners.len());
                for (n, winner) in winners.iter().enumerate() {
                    prop_assert_eq!(tree.nth(n as u32), *winner);
                }
            }
        }
    }
}
