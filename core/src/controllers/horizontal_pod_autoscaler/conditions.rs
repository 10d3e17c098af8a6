//! The conditions of an autoscaler's status.

use k8s_openapi::api::autoscaling::v2 as autoscaling_v2;

use crate::machine::Now;
use crate::object::Time;

/// Conditions in the order in which they were first set; see `setConditionInList`.
#[derive(Debug)]
pub(super) struct Conditions {
    pub(super) list: Vec<autoscaling_v2::HorizontalPodAutoscalerCondition>,
    now: Time,
}

impl Conditions {
    pub(super) fn of(status: &autoscaling_v2::HorizontalPodAutoscalerStatus, now: Now) -> Conditions {
        Conditions { list: status.conditions.clone().unwrap_or_default(), now: now.wall.to_time() }
    }

    /// Sets a condition; the time changes only with its value.
    pub(super) fn set(&mut self, type_: &str, holds: bool, reason: &str, message: String) {
        let status = if holds { "True" } else { "False" }.to_owned();
        let (reason, message) = (Some(reason.to_owned()), Some(message));
        match self.list.iter_mut().find(|c| c.type_ == type_) {
            Some(condition) => {
                if condition.status != status {
                    condition.last_transition_time = Some(self.now.clone());
                }
                (condition.status, condition.reason, condition.message) = (status, reason, message);
            }
            None => self.list.push(autoscaling_v2::HorizontalPodAutoscalerCondition {
                type_: type_.to_owned(),
                status,
                reason,
                message,
                last_transition_time: Some(self.now.clone()),
            }),
        }
    }
}
