//! The TTL-after-finished controller: deletes a Job some time after it has finished.
//!
//! What comes in: Jobs. What goes out: deletes with foreground propagation. Never deletes a Job that has not finished,
//! or one that differs from the Job in the view.
//!
//! Source: upstream's `pkg/controller/ttlafterfinished`; KEP-592.

use std::time::Duration;

use k8s_openapi::api::batch::v1 as batch_v1;

use super::job::is_finished;
use super::{Controller, Plan, Write};
use crate::api::Propagation;
use crate::client::{Change, Views, Watched};
use crate::machine::{Now, Wall};
use crate::object::{Kind, ObjectKey};

/// The controller. It has no state.
#[derive(Debug, Default)]
pub struct TtlAfterFinishedController;

impl Controller for TtlAfterFinishedController {
    fn name(&self) -> &'static str {
        "ttl-after-finished-controller"
    }

    fn watches(&self) -> &'static [Watched] {
        &[Watched { kind: Kind::JOB, indexes: &[] }]
    }

    fn keys(&self, change: &Change, _views: &Views, keys: &mut Vec<ObjectKey>) {
        keys.extend(change.new.as_ref().map(|_| change.key.clone()));
    }

    fn reconcile(&mut self, views: &Views, key: &ObjectKey, now: Now) -> Plan {
        let mut plan = Plan::nothing();
        let Some(job) = views.get::<batch_v1::Job>(key).filter(|j| !j.meta.is_deleting()) else { return plan };
        let finished = is_finished(&job.status);
        let Some(ttl) = job.spec.ttl_seconds_after_finished.filter(|_| finished) else { return plan };
        let ended = job.status.conditions.iter().flatten();
        let ended = ended.filter(|c| matches!(c.type_.as_str(), "Complete" | "Failed") && c.status == "True");
        let Some(ended) = ended.filter_map(|c| c.last_transition_time.as_ref()).map(Wall::from_time).next() else {
            return plan;
        };
        let ttl = Duration::from_secs(u64::try_from(ttl).unwrap_or(0));
        let left = ttl.saturating_sub(now.wall.since(ended));
        if left.is_zero() {
            plan.writes.push(Write::Delete {
                key: key.clone(),
                uid: job.uid().into(),
                rv: Some(job.rv),
                grace_seconds: None,
                propagation: Some(Propagation::Foreground),
            });
        } else {
            plan.requeue(left);
        }
        plan
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use std::time::Duration;

    use super::TtlAfterFinishedController;
    use crate::client::Views;
    use crate::controllers::workload_world::NOW;
    use crate::controllers::{Controller, Write};
    use crate::object::{Kind, Object};

    #[test]
    fn a_job_goes_so_long_after_it_has_ended() {
        let ended = json!([{"type": "Complete", "status": "True", "lastTransitionTime": "2024-01-01T00:01:30Z"}]);
        for (ttl, conditions, deleted, again) in [
            (Value::Null, ended.clone(), false, None),
            (json!(100), Value::Null, false, None),
            // It finished ten seconds ago.
            (json!(10), ended.clone(), true, None),
            (json!(0), ended.clone(), true, None),
            (json!(100), ended, false, Some(Duration::from_secs(90))),
        ] {
            let job = json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "j", "namespace": "d", "uid": "u"},
                "spec": {"template": {"spec": {"containers": []}}, "ttlSecondsAfterFinished": ttl},
                "status": {"conditions": conditions}});
            let object = Object::from_json(job).unwrap();
            let (key, views) = (object.key(), Views::of(&[Kind::JOB], [object]));
            let plan = TtlAfterFinishedController.reconcile(&views, &key, NOW);
            let deletes = matches!(plan.writes.as_slice(), [Write::Delete { .. }]);
            assert_eq!((deletes, plan.requeue_after), (deleted, again), "ttl {ttl}");
        }
    }
}
