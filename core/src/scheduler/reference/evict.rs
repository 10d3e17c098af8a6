//! The naive preemption: on every node, all pods of lower priority are removed, then as many as fit are put back.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use super::naive::{Naive, Placed, World};
use crate::object::Node;

/// The result for a pod that fits nowhere.
#[derive(Debug, PartialEq)]
pub struct Unfit {
    pub message: String,
    pub nomination: Outcome,
    /// Whether one of its claims for devices is to be allocated anew.
    pub idle: bool,
}

/// What to do with its nomination.
#[derive(Debug, PartialEq)]
pub enum Outcome {
    Kept,
    Cleared,
    /// Preempt on one of these nodes; the names of the victims, by node.
    Preempts(BTreeMap<String, Vec<String>>),
}

type Cost = (usize, i32, i64, usize, Reverse<i64>);

fn histogram(counts: BTreeMap<String, u32>) -> String {
    let mut all: Vec<_> = counts.into_iter().map(|(reason, n)| format!("{n} {reason}")).collect();
    all.sort();
    all.join(", ")
}

fn started(p: &Naive) -> i64 {
    p.pod.status.start_time.to_time().map_or(i64::MAX, |t| t.0.as_second())
}

/// Most important first.
fn sort(pods: &mut [&Naive]) {
    pods.sort_by_key(|p| (Reverse(p.priority), started(p), p.pod.namespace().to_owned(), p.pod.name().to_owned()));
}

impl World {
    /// Why a pod fits nowhere, and what to do with its nomination.
    pub fn unfit(&self, pod: &Naive) -> Unfit {
        let total = self.nodes.len();
        if total == 0 {
            let message = "no nodes available to schedule pods".to_owned();
            return Unfit { message, nomination: Outcome::Kept, idle: false };
        }
        let mut said = BTreeMap::new();
        for node in self.nodes.values() {
            let (reasons, _) = self.refusal(pod, node).unwrap();
            reasons.into_iter().for_each(|r| *said.entry(r).or_insert(0) += 1);
        }
        let before = self.refused(pod).or_else(|| self.devices_refused(pod));
        let conflict = self.named_only(&pod.pod).is_some_and(|names| names.is_empty());
        let claims = self.after_filters(pod, conflict || before.is_some());
        let said = match self.named_only(&pod.pod) {
            Some(names) if names.is_empty() => "pod affinity terms conflict".to_owned(),
            Some(_) | None => before.clone().unwrap_or_else(|| histogram(said)),
        };
        let bare = format!("0/{total} nodes are available: {said}.");
        let head = claims.map_or(bare.clone(), |claims| format!("{bare} {claims}"));
        let comma = if claims.is_some() { "," } else { "" };
        let idle = claims == Some("deallocation of ResourceClaim completed");
        if !self.profile(&pod.pod).unwrap().preempts {
            return Unfit { message: head, nomination: Outcome::Kept, idle };
        }
        let kept = |why: &str| {
            let message = format!("{head}{comma} preemption: {why}");
            Unfit { message, nomination: Outcome::Kept, idle }
        };
        if pod.pod.spec.preemption_policy.as_deref() == Some("Never") {
            return kept("not eligible due to preemptionPolicy=Never.");
        }
        if let Some(node) = pod.nominated.as_ref().and_then(|n| self.nodes.get(n)) {
            let hopeless = self.refusal(pod, node).is_some_and(|(_, hopeless)| hopeless);
            let going = |p: &Naive| p.is_victim && p.priority < pod.priority && p.on.as_deref() == Some(node.name());
            if !hopeless && self.pods.values().any(going) {
                return kept("not eligible due to a terminating pod on the nominated node.");
            }
        }
        let (mut why, mut costs) = (BTreeMap::new(), Vec::new());
        for node in self.nodes.values() {
            match self.dry_run(pod, node) {
                Ok((cost, victims)) => costs.push((cost, node.name().to_owned(), victims)),
                Err(reasons) => reasons.into_iter().for_each(|r| *why.entry(r).or_insert(0) += 1),
            }
        }
        if let Some(least) = costs.iter().map(|(cost, ..)| *cost).min() {
            let best = costs.into_iter().filter(|(cost, ..)| *cost == least);
            let best = best.map(|(_, node, victims)| (node, victims)).collect();
            return Unfit { message: bare, nomination: Outcome::Preempts(best), idle };
        }
        let message = format!("{head}{comma} preemption: 0/{total} nodes are available: {}.", histogram(why));
        let nomination = if pod.nominated.is_some() { Outcome::Cleared } else { Outcome::Kept };
        Unfit { message, nomination, idle }
    }

    fn dry_run(&self, pod: &Naive, node: &Node) -> Result<(Cost, Vec<String>), Vec<String>> {
        if self.refusal(pod, node).unwrap().1 {
            return Err(vec!["Preemption is not helpful for scheduling".to_owned()]);
        }
        let lower = |p: &&Naive| p.on.as_deref() == Some(node.name()) && p.priority < pod.priority;
        let mut candidates: Vec<&Naive> = self.pods.values().filter(lower).collect();
        if candidates.is_empty() {
            return Err(vec!["No preemption victims found for incoming pod".to_owned()]);
        }
        sort(&mut candidates);
        let without = |gone: &[&Naive]| {
            let stays = |p: &Naive| !gone.iter().any(|g| g.pod.key() == p.pod.key());
            let placed: Placed<'_> = self.placed().into_iter().filter(|(p, _)| stays(p)).collect();
            self.refusal_beside(pod, node, placed)
        };
        if let Some((reasons, _)) = without(&candidates) {
            return Err(reasons);
        }
        let mut left: BTreeMap<&String, i32> = self.budgets.iter().map(|(ns, (_, allowed))| (ns, *allowed)).collect();
        let violates = |p: &&Naive| {
            let labels = p.pod.meta.labels.clone().unwrap_or_default();
            let Some((namespace, (wanted, _))) = self.budgets.get_key_value(p.pod.namespace()) else { return false };
            if labels.is_empty() || wanted.is_empty() || wanted.iter().any(|(k, v)| labels.get(k) != Some(v)) {
                return false;
            }
            *left.get_mut(namespace).unwrap() -= 1;
            left[namespace] < 0
        };
        let (violating, others): (Vec<&Naive>, Vec<&Naive>) = candidates.iter().copied().partition(violates);
        let mut gone = candidates.clone();
        let mut violations = 0;
        for (pods, violate) in [(violating, 1), (others, 0)] {
            for p in pods {
                let fewer: Vec<&Naive> = gone.iter().copied().filter(|g| g.pod.key() != p.pod.key()).collect();
                if without(&fewer).is_none() {
                    gone = fewer;
                } else {
                    violations += violate;
                }
            }
        }
        sort(&mut gone);
        let highest = gone[0].priority;
        let sum = gone.iter().map(|p| i64::from(p.priority) + (1 << 31)).sum();
        let first = gone.iter().filter(|p| p.priority == highest).map(|p| started(p)).min().unwrap();
        let names = gone.iter().map(|p| p.pod.name().to_owned()).collect();
        Ok(((violations, highest, sum, gone.len(), Reverse(first)), names))
    }
}
