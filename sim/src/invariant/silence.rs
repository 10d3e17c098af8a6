//! `heard-nodes-are-known`: the node controller never declares the readiness of a node unknown whose agent has renewed
//! its lease all along. `dead-nodes-serve-nothing`: the pods of a node that is not ready are marked as not ready soon.
//! Neither is judged while something disturbs the control plane: the node controller may then hear of renewals late.
//! But that the last of several nodes is declared unknown while all renew their leases is never right: who hears of no
//! node at all knows that it is deaf.
//!
//! A judgement may be held up on its way, so a node counts as silent for `HELD_UP` after a pause of `PAUSE` between two
//! renewals, half of the time that a node may be silent. Not checked in runs without faults.

use std::collections::{BTreeMap, VecDeque};

use k8s_openapi::api::core::v1 as core_v1;
use skeg_core::object::{Kind, Object, ObjectKey};
use skeg_core::store::StoreKey;

use super::binding::VIEW_LAG;
use super::reading::{is_ready, is_terminal};
use super::{Commit, Invariant, Report};

/// In seconds.
const PAUSE: f64 = 20.0;
/// In seconds: longer than a request can be on its way.
const HELD_UP: f64 = 120.0;
/// How long, in seconds, a view may lag while nothing disturbs the control plane.
const CALM_LAG: f64 = 10.0;
/// Within how many seconds the pods of a node that is not ready are marked.
const MARKED_AFTER: f64 = 20.0;

/// The renewals of a node's lease.
#[derive(Debug)]
struct Renewals {
    last: f64,
    /// When the last pause between two renewals ended.
    resumed: f64,
}

/// What is known of the nodes' leases and readiness.
#[derive(Debug, Default)]
pub struct Silence {
    leases: BTreeMap<String, Renewals>,
    /// Since when each node that is not ready is so.
    unready: BTreeMap<String, f64>,
    /// Nodes whose pods must be marked by a time; earliest first.
    due: VecDeque<(f64, String)>,
    /// Until when faults may disturb the control plane.
    disturbed_until: f64,
}

/// The status of a node's `Ready` condition; `Unknown` if it has none.
fn readiness(node: &core_v1::NodeStatus) -> &str {
    let ready = node.conditions.iter().flatten().find(|c| c.type_ == "Ready");
    ready.map_or("Unknown", |c| &c.status)
}

impl Silence {
    /// Notes that a node's lease was renewed.
    pub fn renewed(&mut self, at: f64, node: &str) {
        match self.leases.get_mut(node) {
            Some(lease) => {
                if at - lease.last > PAUSE {
                    lease.resumed = at;
                }
                lease.last = at;
            }
            None => drop(self.leases.insert(node.to_owned(), Renewals { last: at, resumed: at })),
        }
    }

    /// Notes that a fault may disturb the control plane until this time.
    pub fn disturb(&mut self, until: f64) {
        self.disturbed_until = self.disturbed_until.max(until);
    }

    /// Notes that all faults have been healed.
    pub fn healed(&mut self, at: f64) {
        self.disturbed_until = self.disturbed_until.min(at + HELD_UP);
    }

    /// Since when nothing disturbs the control plane; in the future, if something does.
    pub(super) fn calm_since(&self) -> f64 {
        self.disturbed_until
    }

    /// How long, in seconds, a view may lag now.
    pub(super) fn lag(&self, at: f64) -> f64 {
        if self.disturbed_until <= at { CALM_LAG } else { VIEW_LAG }
    }

    pub(super) fn node(&mut self, commit: &Commit<'_>, report: &mut Report) {
        let of = |object: Option<&Object>| match object {
            Some(Object::Node(node)) => Some(readiness(&node.status).to_owned()),
            _ => None,
        };
        let Some(name) = commit.new.or(commit.old).map(Object::name) else { return };
        match (of(commit.old).as_deref(), of(commit.new).as_deref()) {
            (_, None | Some("True")) => drop(self.unready.remove(name)),
            (Some("True"), Some(now)) => {
                self.unready.insert(name.to_owned(), commit.at);
                self.due.push_back((commit.at + MARKED_AFTER, name.to_owned()));
                if now == "Unknown" {
                    self.judged(commit.at, name, report);
                }
            }
            (Some("False"), Some("Unknown")) => self.judged(commit.at, name, report),
            (_, Some(_)) => {}
        }
    }

    fn judged(&self, at: f64, node: &str, report: &mut Report) {
        let Some(lease) = self.leases.get(node) else { return };
        let heard_for = |lease: &Renewals, long: f64| at - lease.last < PAUSE && at - lease.resumed > long;
        let nodes = self.leases.len();
        let all_heard = || self.leases.values().all(|lease| heard_for(lease, HELD_UP / 2.0));
        if nodes > 1 && self.unready.len() == nodes && all_heard() {
            let what = format!("{node} is declared unknown as the last of {nodes} nodes, which all renew their leases");
            report.broken(Invariant::HeardNodesAreKnown, at, what);
        }
        if heard_for(lease, HELD_UP) && self.disturbed_until <= at {
            let what = format!("{node} is declared unknown; its lease was renewed at {:.1} s and before", lease.last);
            report.broken(Invariant::HeardNodesAreKnown, at, what);
        }
    }

    /// Checks the pods of nodes that have not been ready for long enough.
    pub(super) fn check_pods(&mut self, commit: &Commit<'_>, report: &mut Report) {
        let mut dead = Vec::new();
        while let Some((due, node)) = self.due.pop_front_if(|(due, _)| *due <= commit.at) {
            let since = due - MARKED_AFTER;
            if self.unready.get(&node) == Some(&since) && self.disturbed_until <= since {
                dead.push(node);
            }
        }
        if dead.is_empty() {
            return;
        }
        let (start, end) = (ObjectKey::range_start(Kind::POD, ""), ObjectKey::range_end(Kind::POD, ""));
        for kv in commit.store.range(&StoreKey::Object(start), &StoreKey::Object(end)) {
            let Some(Object::Pod(pod)) = kv.value.object() else { continue };
            let on_dead = pod.spec.node.as_deref().filter(|node| dead.iter().any(|dead| dead == node));
            let serves = is_ready(pod) && !is_terminal(pod) && pod.meta.deletion_timestamp.is_none();
            if let Some(node) = on_dead.filter(|_| serves) {
                let what = format!("{} is ready, and {node} has not been so for {MARKED_AFTER} s", pod.key());
                report.broken(Invariant::DeadNodesServeNothing, commit.at, what);
            }
        }
    }
}
