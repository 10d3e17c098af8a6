//! `pod-bound-twice`: `spec.nodeName` of a pod is set once, to a node that exists.
//!
//! The scheduler decides from its view, which may still show a node that was deleted a moment ago; upstream's pod
//! garbage collector exists for such pods. So a deleted node counts as existing for `NODE_LAG`.

use std::collections::BTreeMap;
use std::rc::Rc;

use skeg_core::object::{Kind, ObjectKey};

use super::{Commit, Invariant, Report};

/// How long a view may lag while API servers are up, in seconds: longer than any watch can lag before its connection is
/// considered dead.
pub(super) const VIEW_LAG: f64 = 120.0;

/// How long after a node's deletion the scheduler may still see the node, in seconds: its API server may be down for a
/// minute, twice in a row, and its views connect again one after another, up to half a minute apart.
pub(super) const NODE_LAG: f64 = 240.0;

/// Deleted nodes, with the time of deletion in virtual seconds.
#[derive(Debug, Default)]
pub(super) struct Binding {
    gone: BTreeMap<String, f64>,
}

impl Binding {
    pub fn node(&mut self, commit: &Commit<'_>) {
        if let (Some(node), None) = (commit.old, commit.new) {
            self.gone.insert(node.name().to_owned(), commit.at);
        }
    }

    pub fn pod(&mut self, commit: &Commit<'_>, report: &mut Report) {
        let Some(new) = commit.new_pod() else { return };
        let (Some(node), Some(old)) = (&new.spec.node, commit.old_pod()) else { return };
        match &old.spec.node {
            Some(before) if Rc::ptr_eq(before, node) || before == node => {}
            Some(before) => {
                let what = format!("{} was on {before} and is on {node}", new.key());
                report.broken(Invariant::PodBoundTwice, commit.at, what);
            }
            None if self.is_long_gone(commit, node) => {
                let what = format!("{} was bound to {node}, which is gone", new.key());
                report.broken(Invariant::PodBoundTwice, commit.at, what);
            }
            None => {}
        }
    }

    /// Whether the node does not exist, and was deleted more than `NODE_LAG` ago or never existed.
    fn is_long_gone(&self, commit: &Commit<'_>, node: &str) -> bool {
        commit.store.object(&ObjectKey::new(Kind::NODE, "", node)).is_none()
            && self.gone.get(node).is_none_or(|gone| commit.at - gone > NODE_LAG)
    }
}
