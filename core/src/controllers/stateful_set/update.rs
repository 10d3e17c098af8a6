//! The rolling update of a StatefulSet: from the highest ordinal down, with at most `maxUnavailable` pods unavailable.

use k8s_openapi::api::apps::v1 as apps_v1;

use super::{Sync, revision_of};
use crate::object::{ControllerRevision, IntOrString, Pod, scaled};

impl Sync<'_> {
    /// Deletes pods of other revisions, as many as the strategy allows now. `pods` are the pods of the wanted ordinals,
    /// in order.
    pub(super) fn update_pods(&mut self, pods: &[Option<&Pod>], update: &ControllerRevision) {
        let strategy = self.spec.update_strategy.clone().unwrap_or_default();
        if strategy.type_.as_deref() == Some("OnDelete") {
            return;
        }
        let rolling = strategy.rolling_update.unwrap_or_default();
        let unavailable = pods.iter().filter(|pod| pod.is_none_or(|p| self.is_unavailable(p))).count();
        let mut left = self.max_unavailable(&rolling).saturating_sub(unavailable);
        let partition = usize::try_from(rolling.partition.unwrap_or(0)).unwrap_or(0);
        for pod in pods.iter().skip(partition).rev().copied().flatten() {
            let outdated = revision_of(pod) != update.name() && pod.meta.deletion_timestamp.is_none();
            if left > 0 && outdated {
                self.delete(pod);
                left -= 1;
            }
        }
    }

    /// `maxUnavailable`: one if not given; a percentage gives at least one.
    fn max_unavailable(&self, rolling: &apps_v1::RollingUpdateStatefulSetStrategy) -> usize {
        let one = IntOrString::Int(1);
        let value = rolling.max_unavailable.as_ref().unwrap_or(&one);
        let count = scaled(value, self.replicas(), false).unwrap_or(1);
        usize::try_from(count).unwrap_or(0).max(1)
    }
}
