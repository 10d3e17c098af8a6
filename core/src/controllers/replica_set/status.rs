//! Status of a set: pod counts and the condition ReplicaFailure.

use k8s_openapi::api::{apps::v1 as apps_v1, core::v1 as core_v1};

use super::{Failure, Sync};
use crate::api::Subresource;
use crate::controllers::Write;
use crate::controllers::availability::until_available;
use crate::object::{Object, Time, is_pod_active, is_pod_ready};

impl Sync<'_> {
    /// Writes the status if it changed, and requeues the key for when the next ready pod becomes available.
    pub(super) fn status(&mut self, failure: Option<Failure>) {
        let counts = self.counts;
        let available = self.available();
        let mut copy = self.object.clone();
        let generation = self.object.meta().generation;
        let time = self.now.wall.to_time();
        let failure = match failure {
            Some(failure) => Verdict::Failed(failure),
            None if self.is_complete() || self.object.is_deleting() => Verdict::Fine,
            None => Verdict::Unknown,
        };
        match &mut copy {
            Object::ReplicaSet(rs) => {
                let old = rs.status.conditions.as_deref().unwrap_or(&[]);
                let conditions = rs_conditions(old, failure, time);
                let new = apps_v1::ReplicaSetStatus {
                    replicas: counts.replicas,
                    fully_labeled_replicas: some(counts.labeled),
                    ready_replicas: some(counts.ready),
                    available_replicas: some(available),
                    terminating_replicas: some(counts.terminating),
                    observed_generation: generation,
                    conditions,
                };
                if *rs.status == new {
                    return;
                }
                rs.set_status(new);
            }
            Object::ReplicationController(rc) => {
                let old = rc.status.conditions.as_deref().unwrap_or(&[]);
                let conditions = rc_conditions(old, failure, time);
                let new = core_v1::ReplicationControllerStatus {
                    replicas: counts.replicas,
                    fully_labeled_replicas: some(counts.labeled),
                    ready_replicas: some(counts.ready),
                    available_replicas: some(available),
                    observed_generation: generation,
                    conditions,
                };
                if *rc.status == new {
                    return;
                }
                rc.set_status(new);
            }
            other => unreachable!("a set is a ReplicaSet or a ReplicationController, not {:?}", other.kind()),
        }
        self.plan.writes.push(Write::Update(copy, Subresource::Status));
    }

    /// How many pods are available; requeues the key for when the next one becomes available.
    fn available(&mut self) -> i32 {
        if self.set.min_ready_seconds <= 0 {
            return self.counts.ready;
        }
        let mut available = 0;
        let pods = self.views.controlled_by::<core_v1::Pod>(self.object.uid());
        for pod in pods.filter(|p| is_pod_active(p) && is_pod_ready(p)) {
            match until_available(pod, Some(self.set.min_ready_seconds), self.now) {
                None => available += 1,
                Some(left) => self.plan.requeue(left),
            }
        }
        available
    }
}

fn some(n: i32) -> Option<i32> {
    (n != 0).then_some(n)
}

macro_rules! failure_conditions {
    ($name:ident, $condition:ty) => {
        /// The conditions with ReplicaFailure set or removed; `None` if nothing changes. A condition with the same
        /// reason is left unchanged, because its message may contain the generated name of a pod that was only
        /// attempted.
        fn $name(old: &[$condition], verdict: Verdict, now: Time) -> Option<Vec<$condition>> {
            let is_failure = |c: &&$condition| Option::<&String>::from(&c.type_).is_some_and(|t| t == "ReplicaFailure");
            let known = old.iter().find(is_failure);
            let failure = match verdict {
                Verdict::Unknown => known.cloned(),
                Verdict::Fine => None,
                Verdict::Failed(failure) => match known {
                    Some(known) if known.reason.as_deref() == Some(failure.reason) => Some(known.clone()),
                    Some(_) | None => Some(<$condition>::from(FailureCondition { failure, since: now })),
                },
            };
            let all: Vec<$condition> = old.iter().filter(|c| !is_failure(c)).cloned().chain(failure).collect();
            (!all.is_empty()).then_some(all)
        }
        impl From<FailureCondition> for $condition {
            fn from(c: FailureCondition) -> Self {
                Self {
                    type_: "ReplicaFailure".to_owned().into(),
                    status: "True".to_owned().into(),
                    reason: Some(c.failure.reason.to_owned()),
                    message: Some(c.failure.message),
                    last_transition_time: Some(c.since),
                }
            }
        }
    };
}

/// What is known about failures to create or delete pods.
enum Verdict {
    /// The set has the requested number of pods.
    Fine,
    /// There are too few or too many pods and no failure is known: the existing condition stays.
    Unknown,
    Failed(Failure),
}

struct FailureCondition {
    failure: Failure,
    since: Time,
}

failure_conditions!(rs_conditions, apps_v1::ReplicaSetCondition);
failure_conditions!(rc_conditions, core_v1::ReplicationControllerCondition);
