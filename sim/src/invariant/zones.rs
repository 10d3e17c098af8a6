//! `zone-rate`: nodes that are not ready are given NoExecute taints one after another, on average at most one in ten
//! seconds in a zone, and none while no node of the cluster is ready, since then the fault is more likely the control
//! plane's own.
//!
//! Writes may be held up and then arrive together, and a controller that has just become the leader does not know when
//! the last taint was given. So there may be `BURST` at once (a token bucket). It may take `NOTICED_AFTER` until a
//! controller has seen that no node is ready.

use std::collections::{BTreeMap, BTreeSet};

use skeg_core::object::{Node, ZONE_LABEL};

use super::{Commit, Invariant, Report};

/// The interval between two taints in a zone, in seconds.
const INTERVAL: f64 = 10.0;
/// Taints in a zone that may arrive together: two new leaders, and writes that were held up for 40 s.
const BURST: f64 = 6.0;
/// In seconds: faults hold a watch up by 90 s at most.
const NOTICED_AFTER: f64 = 120.0;
const TAINTS: [&str; 2] = ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"];

/// Which nodes are ready, and when taints were given.
#[derive(Debug, Default)]
pub(super) struct Zones {
    ready: BTreeSet<String>,
    /// When the last ready node ceased to be so; `None` while there is one, or was none yet.
    none_since: Option<f64>,
    /// By zone: how many taints may be given, and since when that is so.
    tokens: BTreeMap<String, (f64, f64)>,
}

fn is_ready(node: &Node) -> bool {
    node.status.conditions.iter().flatten().any(|c| c.type_ == "Ready" && c.status == "True")
}

fn is_tainted(node: &Node) -> bool {
    node.spec.taints.iter().flatten().any(|t| t.effect == "NoExecute" && TAINTS.contains(&&*t.key))
}

impl Zones {
    pub fn node(&mut self, commit: &Commit<'_>, old: Option<&Node>, new: Option<&Node>, report: &mut Report) {
        let Some(node) = new.or(old) else { return };
        if new.is_some_and(is_ready) {
            self.ready.insert(node.name().to_owned());
            self.none_since = None;
        } else if self.ready.remove(node.name()) && self.ready.is_empty() {
            self.none_since = Some(commit.at);
        }
        let (Some(old), Some(new)) = (old, new) else { return };
        if is_tainted(old) || !is_tainted(new) {
            return;
        }
        if let Some(since) = self.none_since.filter(|since| commit.at - since > NOTICED_AFTER) {
            let what = format!("{} is given a NoExecute taint; no node is ready since {since:.1} s", new.name());
            report.broken(Invariant::ZoneRate, commit.at, what);
        }
        let zone = new.meta.labels.as_ref().and_then(|l| l.get(ZONE_LABEL)).cloned().unwrap_or_default();
        let (tokens, since) = self.tokens.entry(zone.clone()).or_insert((BURST, commit.at));
        *tokens = (*tokens + (commit.at - *since) / INTERVAL).min(BURST) - 1.0;
        *since = commit.at;
        if *tokens < 0.0 {
            *tokens = 0.0;
            let what = format!("{} is tainted, and others of zone {zone:?} were a moment ago", new.name());
            report.broken(Invariant::ZoneRate, commit.at, what);
        }
    }
}
