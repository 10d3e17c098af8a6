//! `pod-bound-twice`: a pod's node is written once, and is a node that exists.
//!
//! The scheduler decides by its view: a node that was deleted a moment ago may still be there for it, as upstream's
//! pod garbage collector knows. So a node counts as existing for as long as a view may lag.

use std::collections::BTreeMap;
use std::rc::Rc;

use skeg_core::object::{Kind, ObjectKey};

use super::{Commit, Invariant, Report};

/// For how long a view may not know that a node is gone, in seconds: longer than any watch stays behind without being
/// taken for dead.
pub(super) const VIEW_LAG: f64 = 120.0;

/// Nodes that went, and when.
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

    /// Whether there is no such node, and has been none for longer than a view may lag.
    fn is_long_gone(&self, commit: &Commit<'_>, node: &str) -> bool {
        commit.store.object(&ObjectKey::new(Kind::NODE, "", node)).is_none()
            && self.gone.get(node).is_none_or(|gone| commit.at - gone > VIEW_LAG)
    }
}
