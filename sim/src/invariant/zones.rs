//! `zone-rate`: nodes that are not ready are given NoExecute taints one after another, on average at most one in ten
//! seconds in a zone, and none while no node of the cluster is ready, since then the fault is more likely the control
//! plane's own. Where at most `FEW` are not ready, and nothing disturbs the control plane, each has its taint within
//! `TAINTED_AFTER`.
//!
//! Writes may be held up and then arrive together, and a controller that has just become the leader does not know when
//! the last taint was given. So there may be `BURST` at once (a token bucket). It may take `NOTICED_AFTER` until a
//! controller has seen that no node is ready.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use k8s_openapi::api::core::v1 as core_v1;
use skeg_core::object::{Kind, Node, ObjectKey, ZONE_LABEL};
use skeg_core::store::StoreKey;

use super::{Commit, Invariant, Report};

/// The interval between two taints in a zone, in seconds.
const INTERVAL: f64 = 10.0;
/// Taints in a zone that may arrive together: two new leaders, and writes that were held up for 40 s.
const BURST: f64 = 6.0;
/// In seconds: faults hold a watch up by 90 s at most.
const NOTICED_AFTER: f64 = 120.0;
/// So many nodes that are not ready are never a disruption of a zone.
const FEW: usize = 2;
/// In seconds: their turns, and how late the controller may hear of them.
const TAINTED_AFTER: f64 = 60.0;
const TAINTS: [&str; 2] = ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"];

/// Which nodes are ready, and when taints were given.
#[derive(Debug, Default)]
pub(super) struct Zones {
    ready: BTreeSet<String>,
    /// When the last ready node ceased to be so; `None` while there is one, or was none yet.
    none_since: Option<f64>,
    /// By zone: how many taints may be given, and since when that is so.
    tokens: BTreeMap<String, (f64, f64)>,
    /// The nodes that were ready and are so no more, with since when.
    unready: BTreeMap<String, f64>,
    /// When each of them must have its taint; earliest first.
    due: VecDeque<(f64, String)>,
    /// When more than a few nodes were not ready, or none was, for the last time.
    many_at: f64,
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
            self.unready.remove(node.name());
            self.none_since = None;
        } else if self.ready.remove(node.name()) {
            self.none_since = self.ready.is_empty().then_some(commit.at).or(self.none_since);
            self.unready.insert(node.name().to_owned(), commit.at);
            self.due.push_back((commit.at + TAINTED_AFTER, node.name().to_owned()));
        }
        if new.is_none() {
            self.unready.remove(node.name());
        }
        if self.ready.is_empty() || self.unready.len() > FEW {
            self.many_at = commit.at;
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

    /// Checks the nodes that must have their taint by now. `calm_since` is since when nothing disturbs the control
    /// plane.
    pub fn check_due(&mut self, commit: &Commit<'_>, calm_since: f64, report: &mut Report) {
        while let Some((due, name)) = self.due.pop_front_if(|(due, _)| *due <= commit.at) {
            let since = due - TAINTED_AFTER;
            let is_same = self.unready.get(&name) == Some(&since);
            // Where more than a few were not ready meanwhile, their turns may come later.
            if !is_same || self.many_at >= since || calm_since > since {
                continue;
            }
            let key = StoreKey::Object(ObjectKey::new(Kind::NODE, "", &name));
            let node = commit.store.get(&key).and_then(|kv| kv.value.object()?.get::<core_v1::Node>());
            if node.is_some_and(|node| !is_tainted(node)) {
                let what = format!("{name} is not ready since {since:.1} s, and has no NoExecute taint");
                report.broken(Invariant::ZoneRate, commit.at, what);
            }
        }
    }
}
