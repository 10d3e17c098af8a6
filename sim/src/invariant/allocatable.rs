//! `node-over-allocatable`: the scheduler never binds a pod to a node whose allocatable resources do not cover the pod
//! and the pods already bound there.
//!
//! A pod that is created with `spec.nodeName` set bypasses the scheduler and is not checked; the node's agent rejects
//! it if it does not fit. After a node shrinks or is deleted, its previous allocatable resources still count for
//! `NODE_LAG`, because the scheduler's view may lag that long. With a profile that overcommits nodes, nothing is
//! checked.

use std::rc::Rc;

use skeg_core::object::{Amounts, Milli, NameMap, Object, Pod};

use super::binding::NODE_LAG;
use super::reading::place;
use super::{Commit, Invariant, Report};
use crate::statistics::{Requests, add, allocatable};

#[derive(Debug, Default)]
struct Usage {
    allocatable: Amounts,
    used: Amounts,
    /// The previous allocatable resources, and the time until which they were valid, in virtual seconds.
    before: Option<(Amounts, f64)>,
}

/// The allocatable resources of each node, and the sum of the requests of the pods bound to it.
#[derive(Debug, Default)]
pub(super) struct Allocatable {
    nodes: NameMap<Usage>,
    requests: Requests,
    /// Whether schedulers see to it.
    holds: bool,
}

impl Allocatable {
    pub fn new(holds: bool) -> Allocatable {
        Allocatable { holds, ..Allocatable::default() }
    }

    pub fn node(&mut self, commit: &Commit<'_>) {
        let Some(object) = commit.new.or(commit.old) else { return };
        let of = |object: Option<&Object>| match object {
            Some(Object::Node(node)) => allocatable(node),
            _ => Amounts::default(),
        };
        let (old, new) = (of(commit.old), of(commit.new));
        if old != new {
            let usage = self.nodes.entry(object.name());
            usage.before = commit.old.is_some().then_some((old, commit.at));
            usage.allocatable = new;
        }
    }

    pub fn pod(&mut self, commit: &Commit<'_>, report: &mut Report) {
        let (old, new) = (commit.old_pod(), commit.new_pod());
        let (was, is) = (old.and_then(place), new.and_then(place));
        if was == is {
            return;
        }
        if let (Some(node), Some(pod)) = (was, old) {
            let requests = self.requests.of(pod);
            add(&mut self.nodes.entry(node).used, &requests, -1);
        }
        if let (Some(node), Some(pod)) = (is, new) {
            let requests = self.requests.of(pod);
            add(&mut self.nodes.entry(node).used, &requests, 1);
            if self.holds && old.is_some_and(|o| o.spec.node.is_none()) {
                self.bound(commit.at, node, pod, report);
            }
        }
    }

    /// Whether a node has room for one more pod.
    pub fn has_room(&mut self, node: &str, pod: &Pod) -> bool {
        let requests = self.requests.of(pod);
        let usage = self.nodes.entry(node);
        let mut after = usage.used.clone();
        add(&mut after, &requests, 1);
        after.iter().all(|(resource, n)| usage.allocatable.get(resource).is_some_and(|has| n <= has))
    }

    fn bound(&mut self, at: f64, node: &Rc<str>, pod: &Pod, report: &mut Report) {
        let usage = self.nodes.entry(node);
        let before = usage.before.as_ref().filter(|(_, until)| at - until <= NODE_LAG);
        let has = |resource: &str| {
            let now = usage.allocatable.get(resource).copied().unwrap_or(Milli::ZERO);
            before.and_then(|(amounts, _)| amounts.get(resource).copied()).map_or(now, |then| now.max(then))
        };
        let over = usage.used.iter().find(|(resource, n)| **n > has(resource));
        if let Some((resource, n)) = over {
            let (has, asked) = (has(resource).to_decimal(), n.to_decimal());
            let what = format!("{node} has {resource} {has} and its pods ask for {asked} since {}", pod.key());
            report.broken(Invariant::NodeOverAllocatable, at, what);
        }
    }
}
