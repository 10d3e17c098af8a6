//! The controller's state of each node's health: heartbeats as observed by this process, and the resulting conditions.
//!
//! Time is measured by this process's own clock from the moment when it saw a heartbeat; the nodes' clocks are never
//! used.

use std::collections::BTreeSet;
use std::rc::Rc;

use k8s_openapi::api::core::v1::NodeCondition;

use crate::limits;
use crate::machine::{Mono, Now, Wall};
use crate::object::{Lease, Node, Revision, Time, node_condition};

/// The status of a node's Ready condition.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Readiness {
    True,
    False,
    Unknown,
}

impl Readiness {
    /// The readiness of a node; Unknown if it has no Ready condition.
    pub(super) fn of(node: &Node) -> Readiness {
        match node_condition(&node.status, "Ready").map(|c| c.status.as_str()) {
            Some("True") => Readiness::True,
            Some("False") => Readiness::False,
            _ => Readiness::Unknown,
        }
    }
}

/// The controller's state of a node; lost with the process.
#[derive(Debug)]
pub(super) struct NodeState {
    /// When a heartbeat in the node's status was last seen, or the node was first seen. Lease heartbeats are stored
    /// separately.
    pub(super) heard: Mono,
    /// Whether it has been silent for longer than the grace period.
    pub(super) silent: bool,
    /// Readiness when the Node object was last examined.
    pub(super) readiness: Readiness,
    /// Number of its zone.
    pub(super) zone: usize,
    /// Whether it is counted in its zone.
    pub(super) counted: bool,
    /// Whether it has a NoExecute taint from this controller.
    pub(super) tainted: bool,
    /// Whether it may be given a NoExecute taint.
    pub(super) granted: bool,
    /// Whether all its pods have been marked not ready.
    pub(super) pods_marked: bool,
    /// UIDs of the pods that have been marked. Each is marked once, because the agent may report it ready again if the
    /// node is alive after all.
    pub(super) marked: BTreeSet<Rc<str>>,
    /// Where its lease heartbeats are stored; `None` until it has a lease.
    pub(super) beat: Option<u32>,
    /// The revision that was last examined, and the heartbeat in it.
    node: Revision,
    heartbeat: Option<Time>,
    /// Whether `heartbeat` is the time of a kubelet status report.
    reports: bool,
    posted: bool,
}

/// The last heartbeat of a node's lease. Separate from the rest and small, because thousands are processed in turn.
#[derive(Clone, Copy, Debug)]
pub(super) struct Beat {
    lease: Revision,
    heard: Mono,
}

impl Beat {
    /// The state after a lease is first seen.
    pub(super) fn new(lease: Revision, now: Mono) -> Beat {
        Beat { lease, heard: now }
    }

    /// Handles a lease at this revision. A greater revision is a heartbeat; a smaller one (the view went back in time)
    /// is not.
    pub(super) fn see(&mut self, lease: Revision, now: Mono) {
        if lease > self.lease {
            *self = Beat::new(lease, now);
        }
    }
}

impl NodeState {
    /// The state of a node that is seen for the first time.
    pub(super) fn new(now: Mono) -> NodeState {
        NodeState {
            heard: now,
            silent: false,
            readiness: Readiness::Unknown,
            zone: 0,
            counted: false,
            tainted: false,
            granted: false,
            pods_marked: false,
            marked: BTreeSet::new(),
            beat: None,
            node: Revision(0),
            heartbeat: None,
            reports: false,
            posted: false,
        }
    }

    /// Examines the Node; returns whether its revision differs from the last one examined.
    pub(super) fn see_node(&mut self, node: &Node, now: Mono) -> bool {
        if node.rv == self.node {
            return false;
        }
        self.node = node.rv;
        self.readiness = Readiness::of(node);
        let ready = node_condition(&node.status, "Ready");
        self.posted = ready.is_some();
        self.reports = ready.is_some_and(|c| node.status.is_reported(c));
        let heartbeat = ready.and_then(|c| node.status.heartbeat(c));
        if heartbeat != self.heartbeat {
            self.heartbeat = heartbeat;
            self.heard = now;
        }
        true
    }

    /// Handles a mere status report: does what [`see_node`](Self::see_node) would do, provided that the previous
    /// version of the node was examined. Returns whether it did.
    pub(super) fn see_report(&mut self, old: &Node, new: &Node, now: Mono) -> bool {
        let known = self.node == old.rv;
        if known {
            self.node = new.rv;
            if self.reports && self.heartbeat.as_ref() != new.status.reported() {
                self.heartbeat = new.status.reported().cloned();
                self.heard = now;
            }
        }
        known
    }

    /// When the grace period ends, by the heartbeats seen so far.
    pub(super) fn silent_after(&self, beat: Option<&Beat>) -> Mono {
        let heard = beat.map_or(self.heard, |beat| beat.heard.max(self.heard));
        heard + if self.posted { limits::NODE_MONITOR_GRACE } else { limits::NODE_STARTUP_GRACE }
    }

    /// Decides whether the node has been silent for too long. Returns true if it has, and that is new or its conditions
    /// do not say so yet.
    pub(super) fn judge(&mut self, beat: Option<&Beat>, now: Mono) -> bool {
        let silent = now > self.silent_after(beat);
        let news = silent && (!self.silent || self.readiness != Readiness::Unknown || !self.posted);
        self.silent = silent;
        news
    }

    /// Whether the node still counts as silent, given these objects that were read later.
    pub(super) fn still_silent(&self, node: &Node, lease: Option<&Lease>, beat: Option<&Beat>) -> bool {
        let heartbeat = node_condition(&node.status, "Ready").and_then(|c| node.status.heartbeat(c));
        self.silent && lease.is_none_or(|l| beat.is_some_and(|beat| l.rv <= beat.lease)) && heartbeat == self.heartbeat
    }
}

/// The node with all conditions that its kubelet reports set to Unknown; `None` if they already are.
pub(super) fn conditions_unknown(node: &Node, now: Now) -> Option<Node> {
    let mut next = node.clone();
    let mut changed = false;
    let created = node.meta.creation_timestamp.clone();
    for type_ in ["Ready", "MemoryPressure", "DiskPressure", "PIDPressure"] {
        match node_condition(&node.status, type_) {
            Some(c) if c.status == "Unknown" => continue,
            Some(_) => {
                let list = next.status_mut().conditions.get_or_insert_default();
                if let Some(c) = list.iter_mut().find(|c| c.type_ == type_) {
                    set_unknown(c, "NodeStatusUnknown", "Kubelet stopped posting node status.", now.wall);
                }
            }
            None => {
                let mut c = NodeCondition {
                    type_: type_.to_owned(),
                    last_heartbeat_time: created.clone(),
                    ..NodeCondition::default()
                };
                set_unknown(&mut c, "NodeStatusNeverUpdated", "Kubelet never posted node status.", now.wall);
                next.status_mut().conditions.get_or_insert_default().push(c);
            }
        }
        changed = true;
    }
    changed.then_some(next)
}

fn set_unknown(condition: &mut NodeCondition, reason: &str, message: &str, wall: Wall) {
    condition.status = "Unknown".to_owned();
    condition.reason = Some(reason.to_owned());
    condition.message = Some(message.to_owned());
    condition.last_transition_time = Some(wall.to_time());
}

#[cfg(test)]
mod tests {
    use super::{Beat, NodeState, conditions_unknown};
    use crate::controllers::fake_cluster::{at, node, with};
    use crate::object::{Object, Revision, is_mere_report};
    use k8s_openapi::api::core::v1 as core_v1;
    use serde_json::json;

    #[test]
    fn silence_is_by_our_own_clock() {
        let object = node("n1");
        let node = object.get::<core_v1::Node>().unwrap();
        let mut state = NodeState::new(at(0).mono);
        let mut seen = node.clone();
        seen.rv = Revision(5);
        assert!(state.see_node(&seen, at(0).mono));
        let mut beat = Beat::new(Revision(1), at(0).mono);
        for (secs, lease, expect) in [
            (10, 11, false),
            (50, 11, false),
            (51, 11, true),
            (55, 11, true),
            (56, 12, false),
            (60, 3, false),
            (97, 3, true),
        ] {
            beat.see(Revision(lease), at(secs).mono);
            state.judge(Some(&beat), at(secs).mono);
            assert_eq!(state.silent, expect, "at {secs} s");
        }
    }

    #[test]
    fn a_mere_report_is_heard_if_the_node_was_seen_as_it_was_before() {
        let condition = |at: &str| json!({"type": "Ready", "status": "True", "lastHeartbeatTime": at});
        let of = |at| with(node("n1"), json!({"status": {"conditions": [condition(at)]}}));
        let mut early = of("2024-01-01T00:00:00Z").get::<core_v1::Node>().expect("a Node").clone();
        early.rv = Revision(5);
        let late = of("2024-01-01T00:05:00Z").get::<core_v1::Node>().expect("a Node").clone();
        let mut next = early.clone();
        next.rv = Revision(early.rv.0 + 1);
        next.set_status(early.status.reported_at(late.status.reported().expect("a time").clone()));
        assert!(is_mere_report(&early, &next) && !is_mere_report(&early, &late));

        let mut state = NodeState::new(at(0).mono);
        assert!(!state.see_report(&early, &next, at(5).mono), "there was no look");
        assert!(state.see_node(&early, at(10).mono));
        assert!(state.see_report(&early, &next, at(20).mono));
        assert_eq!(state.heard, at(20).mono);
        assert!(!state.see_node(&next, at(30).mono), "it is known");
        assert!(!state.see_report(&early, &next, at(40).mono), "another was seen last");
        // A status report does not include the time of this condition.
        let mut state = NodeState::new(at(0).mono);
        let old = with(
            of("2024-01-01T00:00:00Z"),
            json!({"status": {"conditions": [
                condition("2024-01-01T00:00:00Z"),
                {"type": "Other", "status": "True", "lastHeartbeatTime": "2024-01-01T00:01:00Z"},
            ]}}),
        );
        let mut old = old.get::<core_v1::Node>().expect("a Node").clone();
        old.rv = Revision(5);
        let mut next = old.clone();
        next.rv = Revision(old.rv.0 + 1);
        next.set_status(old.status.reported_at(late.status.reported().expect("a time").clone()));
        assert!(state.see_node(&old, at(10).mono) && state.see_report(&old, &next, at(20).mono));
        assert_eq!(state.heard, at(10).mono);
    }

    #[test]
    fn unknown_conditions_say_why() {
        let old = node("n1");
        let never = with(node("n2"), json!({"status":{"conditions":null}}));
        for (object, reason) in [(old, "NodeStatusUnknown"), (never, "NodeStatusNeverUpdated")] {
            let next = conditions_unknown(object.get::<core_v1::Node>().unwrap(), at(9)).expect("a change");
            assert!(conditions_unknown(&next, at(10)).is_none());
            let json = Object::from(next).to_json();
            let list = json["status"]["conditions"].as_array().unwrap().clone();
            assert_eq!(list.len(), 4);
            assert!(list.iter().all(|c| c["status"] == "Unknown"));
            assert_eq!(list[0]["reason"], reason);
            assert_eq!(list[0]["lastTransitionTime"], "2024-01-01T00:00:09Z");
        }
    }
}
