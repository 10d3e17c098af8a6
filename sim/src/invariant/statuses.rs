//! `statuses-add-up`: a pod is Ready only while all its containers are ready and running; one whose containers are
//! restarted fails for a reason only; one that has succeeded or failed stays so; no deletion is taken back; containers
//! are never restarted less often than before, and are as ready as before if nothing has happened to them; and since
//! when the pod is scheduled does not change.
//! `statuses-at-rest`: at the end of a run, a container is said to run exactly if it runs on the pod's node.

use std::collections::BTreeMap;

use skeg_core::agent;
use skeg_core::object::{ContainerState, ContainerStatus, Kind, Object, Pod, Text};

use super::reading::{is_active, is_ready, is_terminal, phase, place};
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
    if std::ptr::eq(&raw const *old.status, &raw const *new.status) {
        return;
    }
    // Others may have changed to and fro between two reports.
    let scheduled = |pod: &Pod| {
        let condition = pod.status.condition(&Text::POD_SCHEDULED).filter(|c| c.status == Text::TRUE);
        condition.map(|condition| condition.last_transition_time)
    };
    if let (Some(before), Some(after)) = (scheduled(old), scheduled(new))
        && before != after
    {
        broken("it is scheduled as before, and since then only".to_owned());
    }
    if is_withdrawn(old, new) {
        broken("its containers are not ready any more, and run as before".to_owned());
    }
    let restarts =
        |name: &Text| old.status.container_statuses.iter().find(|c| c.name == *name).map(|c| c.restart_count);
    let fewer = new.status.container_statuses.iter().find(|c| restarts(&c.name) > Some(c.restart_count));
    if let Some(container) = fewer {
        let (name, count) = (container.name.as_str(), container.restart_count);
        broken(format!("container {name} was restarted {count} times, and more often before"));
    }
}

/// Whether the readiness of a pod's containers is withdrawn although all of them run on, in a pod that stays. What is
/// simulated has no probes that fail once they have succeeded.
fn is_withdrawn(old: &Pod, new: &Pod) -> bool {
    let ready = |pod: &Pod| pod.status.condition(&Text::CONTAINERS_READY).is_some_and(|c| c.status == Text::TRUE);
    if !ready(old) || ready(new) || !is_active(new) {
        return false;
    }
    let (before, after) = (&old.status.container_statuses, &new.status.container_statuses);
    let same = |pair: (&ContainerStatus, &ContainerStatus)| {
        let (old, new) = pair;
        old.name == new.name && old.container_id == new.container_id && is_running(&new.state)
    };
    before.len() == after.len() && before.iter().zip(after).all(same)
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
