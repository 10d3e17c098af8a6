//! `statuses-add-up`: a pod is Ready only while all its containers are ready and running; one whose containers are
//! restarted fails for a reason only; one that has succeeded or failed stays so; and no deletion is taken back.
//! `statuses-at-rest`: at the end of a run, a container is said to run exactly if it runs on the pod's node.

use std::collections::BTreeMap;

use skeg_core::agent;
use skeg_core::object::{ContainerState, Kind, Object, Pod, Text};

use super::reading::{is_ready, is_terminal, phase, place};
use super::{Commit, Invariant, Report};
use crate::converge::{is_of_cron_job, objects};
use crate::world::{NodeHost, World};

/// Checks a pod that was written.
pub(super) fn check(commit: &Commit<'_>, report: &mut Report) {
    let Some(new) = commit.new_pod() else { return };
    let mut broken =
        |what: String| report.broken(Invariant::StatusesAddUp, commit.at, format!("{}: {what}", new.key()));
    if let Some(unready) = new.status.container_statuses.iter().find(|c| !(c.ready && is_running(&c.state)))
        && is_ready(new)
    {
        broken(format!("it is Ready, and its container {} is not", unready.name.as_str()));
    }
    let Some(old) = commit.old_pod().filter(|old| old.uid() == new.uid()) else { return };
    if is_terminal(old) && phase(old) != phase(new) {
        broken(format!("it was {}, and is {} now", phase(old), phase(new)));
    }
    if phase(old) != phase(new) && new.status.phase == Text::FAILED && !may_fail(new) {
        broken("it has failed, and its containers were to be restarted".to_owned());
    }
    if old.meta.deletion_timestamp.is_some() && new.meta.deletion_timestamp.is_none() {
        broken("its deletion is taken back".to_owned());
    }
}

/// Whether a pod may fail: its containers are not restarted, it is given up for a reason, or it is going anyway.
fn may_fail(pod: &Pod) -> bool {
    let never = pod.spec.restart_policy.as_deref() == Some("Never");
    let is_given_up =
        pod.status.conditions.iter().any(|c| c.type_ == Text::DISRUPTION_TARGET && c.status == Text::TRUE);
    never || !pod.status.reason.is_empty() || is_given_up || pod.meta.deletion_timestamp.is_some()
}

fn is_running(state: &ContainerState) -> bool {
    matches!(state, ContainerState::Running { .. })
}

/// Compares the statuses of pods with what runs on the nodes that have power. Pods of CronJobs are left out: they never
/// rest. Returns a description of the first difference, or `None`.
pub(super) fn at_rest(world: &World) -> Option<String> {
    let nodes: BTreeMap<&str, &NodeHost> =
        world.nodes.iter().filter(|node| node.up).map(|node| (node.name.as_str(), node)).collect();
    objects(&world.store, Kind::POD).find_map(|object| {
        let Object::Pod(pod) = object else { return None };
        let node = nodes.get(&**place(pod)?)?;
        if is_of_cron_job(&world.store, object) {
            return None;
        }
        let statuses = pod.status.init_container_statuses.iter().chain(&pod.status.container_statuses);
        statuses.filter(|_| pod.meta.deletion_timestamp.is_none()).find_map(|status| {
            let found = node.runtime.find(pod.uid(), status.name.as_str());
            let runs = found.is_some_and(|(.., state)| matches!(state, agent::ContainerState::Running { .. }));
            (runs != is_running(&status.state)).then(|| {
                let [is, said] = [runs, !runs].map(|runs| if runs { "runs" } else { "does not run" });
                format!(
                    "{}: its container {} {is} on {}, and is said to be one that {said}",
                    pod.key(),
                    status.name.as_str(),
                    node.name
                )
            })
        })
    })
}
