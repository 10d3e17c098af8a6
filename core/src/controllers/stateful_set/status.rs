//! The status of a StatefulSet.

use k8s_openapi::api::apps::v1 as apps_v1;

use super::identity::Member;
use super::{Revisions, Sync, is_running_and_ready, revision_of};
use crate::controllers::Write;

impl Sync<'_> {
    /// Writes the status (pod counts and revisions) if it has changed.
    pub(super) fn write_status(&mut self, members: &[Member<'_>], revisions: &Revisions<'_>) {
        let mut new = apps_v1::StatefulSetStatus {
            observed_generation: self.object.meta().generation,
            collision_count: Some(self.set.status.collision_count.unwrap_or(0)),
            current_revision: Some(revisions.current.name().to_owned()),
            update_revision: Some(revisions.update.name().to_owned()),
            conditions: self.set.status.conditions.clone(),
            ..self.counts(members, revisions)
        };
        self.complete(&mut new);
        self.plan.writes.extend(Write::status(self.set, new));
    }

    fn counts(&mut self, members: &[Member<'_>], revisions: &Revisions<'_>) -> apps_v1::StatefulSetStatus {
        let (mut ready, mut available, mut current, mut updated) = (0, 0, 0, 0);
        for Member { pod, .. } in members {
            ready += i32::from(is_running_and_ready(pod));
            available += i32::from(self.is_available(pod));
            if pod.meta.deletion_timestamp.is_none() {
                current += i32::from(revision_of(pod) == revisions.current.name());
                updated += i32::from(revision_of(pod) == revisions.update.name());
            }
        }
        let some = |n: i32| (n != 0).then_some(n);
        apps_v1::StatefulSetStatus {
            replicas: i32::try_from(members.len()).expect("a set has fewer pods than that"),
            ready_replicas: some(ready),
            available_replicas: Some(available),
            current_replicas: some(current),
            updated_replicas: some(updated),
            ..apps_v1::StatefulSetStatus::default()
        }
    }

    /// If an update has reached every pod, makes its revision the current one (`completeRollingUpdate`).
    fn complete(&self, status: &mut apps_v1::StatefulSetStatus) {
        let all = Some(self.replicas()).filter(|n| *n != 0);
        let rolls = self.spec.update_strategy.as_ref().and_then(|s| s.type_.as_deref()) == Some("RollingUpdate");
        let reached = status.updated_replicas == all && status.ready_replicas == all;
        if rolls && reached && status.replicas == self.replicas() {
            status.current_replicas = status.updated_replicas;
            status.current_revision.clone_from(&status.update_revision);
        }
    }
}
