//! The status of a DaemonSet.

use k8s_openapi::api::apps::v1 as apps_v1;

use super::fit::Fit;
use super::pods::PerNode;
use super::{Sync, hash_of};
use crate::controllers::Write;
use crate::object::{Node, is_pod_ready};

impl Sync<'_> {
    /// Writes the status (how many nodes should have a pod and how many do) if it has changed.
    pub(super) fn write_status(&mut self, fits: &[(&Node, Fit)], per_node: &PerNode<'_>, hash: &str) {
        let (mut desired, mut current, mut misplaced) = (0, 0, 0);
        let (mut ready, mut available, mut updated) = (0, 0, 0);
        for (node, fit) in fits {
            let first = per_node.on(node.name()).first();
            match fit {
                Fit::Runs => {
                    desired += 1;
                    let Some(pod) = first else { continue };
                    current += 1;
                    ready += i32::from(is_pod_ready(pod));
                    available += i32::from(self.is_available(pod));
                    updated += i32::from(hash_of(pod) == hash);
                }
                Fit::Stays | Fit::Goes => misplaced += i32::from(first.is_some()),
            }
        }
        let some = |n: i32| (n != 0).then_some(n);
        let new = apps_v1::DaemonSetStatus {
            collision_count: self.set.status.collision_count,
            conditions: self.set.status.conditions.clone(),
            current_number_scheduled: current,
            desired_number_scheduled: desired,
            number_available: some(available),
            number_misscheduled: misplaced,
            number_ready: ready,
            number_unavailable: some(desired - available),
            observed_generation: self.object.meta().generation,
            updated_number_scheduled: some(updated),
        };
        self.plan.writes.extend(Write::status(self.set, new));
    }
}
