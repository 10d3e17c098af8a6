//! A Node's status: a shared part, and the time of the last kubelet report beside it.

use std::ops::{Deref, DerefMut};
use std::rc::Rc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{NodeCondition, NodeStatus};

use super::Time;

/// Placeholder for the time of the report in the conditions of the shared status.
const REPORTED: Time = Time(Timestamp::MIN);

/// A Node's status, with the time of the kubelet's report held apart. Most reports change nothing but this time, and so
/// copy nothing else.
///
/// Dereferences to the shared [`NodeStatus`]. Never read `lastHeartbeatTime` there, since it may be a placeholder: call
/// [`heartbeat`](Self::heartbeat).
#[derive(Clone, Debug, Default)]
pub struct ReportedNodeStatus {
    shared: Rc<NodeStatus>,
    /// The newest `lastHeartbeatTime` of the conditions.
    reported: Option<Time>,
}

impl ReportedNodeStatus {
    /// Splits the time of the report from a whole status.
    pub fn new(mut status: NodeStatus) -> ReportedNodeStatus {
        let reported = status.conditions.iter().flatten().filter_map(|c| c.last_heartbeat_time.clone()).max();
        let conditions = status.conditions.iter_mut().flatten().filter(|c| c.last_heartbeat_time.is_some());
        for condition in conditions.filter(|c| c.last_heartbeat_time == reported) {
            condition.last_heartbeat_time = Some(REPORTED);
        }
        ReportedNodeStatus { shared: Rc::new(status), reported }
    }

    /// The same status with another time of report.
    pub fn reported_at(&self, time: Time) -> ReportedNodeStatus {
        ReportedNodeStatus { shared: Rc::clone(&self.shared), reported: Some(time) }
    }

    /// Shares the rest of another status if it is equal, whatever the times of the reports.
    pub(super) fn share(&mut self, other: &ReportedNodeStatus) {
        if self.shared == other.shared {
            self.shared = Rc::clone(&other.shared);
        }
    }

    /// Builds the whole status. Copies everything.
    pub fn to_whole(&self) -> NodeStatus {
        let mut whole = NodeStatus::clone(&self.shared);
        for condition in whole.conditions.iter_mut().flatten() {
            condition.last_heartbeat_time = self.heartbeat(condition);
        }
        whole
    }

    /// The `lastHeartbeatTime` of a condition of this status.
    pub fn heartbeat(&self, condition: &NodeCondition) -> Option<Time> {
        match &condition.last_heartbeat_time {
            Some(time) if *time == REPORTED => self.reported.clone(),
            own => own.clone(),
        }
    }

    /// Whether every report of the kubelet renews this condition.
    pub fn is_reported(&self, condition: &NodeCondition) -> bool {
        condition.last_heartbeat_time == Some(REPORTED)
    }

    /// The status without the time of the report.
    pub(super) fn shared(&self) -> &Rc<NodeStatus> {
        &self.shared
    }

    /// The time of the report.
    pub fn reported(&self) -> Option<&Time> {
        self.reported.as_ref()
    }

    /// `true` if the two share everything but the time of the report. If `false`, they may still be equal.
    pub fn same_apart_from_report(&self, other: &ReportedNodeStatus) -> bool {
        Rc::ptr_eq(&self.shared, &other.shared)
    }
}

impl PartialEq for ReportedNodeStatus {
    fn eq(&self, other: &ReportedNodeStatus) -> bool {
        self.reported == other.reported && (self.same_apart_from_report(other) || self.shared == other.shared)
    }
}

impl Deref for ReportedNodeStatus {
    type Target = NodeStatus;

    fn deref(&self) -> &NodeStatus {
        &self.shared
    }
}

impl DerefMut for ReportedNodeStatus {
    fn deref_mut(&mut self) -> &mut NodeStatus {
        Rc::make_mut(&mut self.shared)
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::NodeStatus;
    use serde_json::json;

    use super::ReportedNodeStatus;

    fn status(times: [Option<&str>; 3]) -> NodeStatus {
        let condition = |(i, at)| json!({"type": format!("C{i}"), "status": "True", "lastHeartbeatTime": at});
        let conditions: Vec<_> = times.into_iter().enumerate().map(condition).collect();
        serde_json::from_value(json!({"conditions": conditions, "capacity": {"cpu": "4"}})).expect("a status")
    }

    #[test]
    fn every_time_comes_back() {
        let (early, late) = (Some("2026-01-01T00:00:00Z"), Some("2026-01-01T00:05:00Z"));
        for times in [[None; 3], [late; 3], [early, late, late], [None, early, None], [late, None, early]] {
            let whole = status(times);
            let held = ReportedNodeStatus::new(whole.clone());
            assert_eq!(held.to_whole(), whole, "{times:?}");
            assert_eq!(held, ReportedNodeStatus::new(whole));
        }
        assert_eq!(ReportedNodeStatus::new(NodeStatus::default()).to_whole(), NodeStatus::default());
    }

    #[test]
    fn a_report_that_says_nothing_new_shares_everything_else() {
        let (early, late) = (Some("2026-01-01T00:00:00Z"), Some("2026-01-01T00:05:00Z"));
        let first = ReportedNodeStatus::new(status([early, None, early]));
        let time = ReportedNodeStatus::new(status([late; 3])).reported().expect("a time").clone();
        let next = first.reported_at(time);
        assert!(next != first && next.same_apart_from_report(&first));
        assert_eq!(next.to_whole(), status([late, None, late]));
    }
}
