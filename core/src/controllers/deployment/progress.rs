//! Status of a Deployment: the counts and the conditions Available, Progressing and ReplicaFailure.

use std::time::Duration;

use k8s_openapi::api::apps::v1 as apps_v1;

use super::{Sync, scaling, size, wanted};
use crate::api::Subresource;
use crate::controllers::Write;
use crate::machine::Wall;
use crate::object::{Deployment, Object, ReplicaSet};

type Condition = apps_v1::DeploymentCondition;

fn condition<'a>(status: &'a apps_v1::DeploymentStatus, type_: &str) -> Option<&'a Condition> {
    status.conditions.iter().flatten().find(|c| c.type_ == type_)
}

/// Sets a condition. Changes nothing if status and reason are equal; the transition time changes only if the status
/// does.
fn set_condition(status: &mut apps_v1::DeploymentStatus, mut new: Condition) {
    let all = status.conditions.get_or_insert_with(Default::default);
    if let Some(old) = all.iter_mut().find(|c| c.type_ == new.type_) {
        if old.status == new.status && old.reason == new.reason {
            return;
        }
        if old.status == new.status {
            new.last_transition_time = old.last_transition_time.clone();
        }
        *old = new;
    } else {
        all.push(new);
    }
}

fn remove_condition(status: &mut apps_v1::DeploymentStatus, type_: &str) {
    if let Some(all) = &mut status.conditions {
        all.retain(|c| c.type_ != type_);
    }
}

/// Condition reasons, such as `NewReplicaSetAvailable`.
mod reason {
    pub const CREATED: &str = "NewReplicaSetCreated";
    pub const FOUND: &str = "FoundNewReplicaSet";
    pub const AVAILABLE: &str = "NewReplicaSetAvailable";
    pub const UPDATED: &str = "ReplicaSetUpdated";
    pub const TIMED_OUT: &str = "ProgressDeadlineExceeded";
    pub const PAUSED: &str = "DeploymentPaused";
    pub const RESUMED: &str = "DeploymentResumed";
}

/// Whether a rollout with this status is complete (`DeploymentComplete`).
fn complete(d: &Deployment, s: &apps_v1::DeploymentStatus) -> bool {
    let n = wanted(d);
    s.updated_replicas.unwrap_or(0) == n
        && s.replicas.unwrap_or(0) == n
        && s.available_replicas.unwrap_or(0) == n
        && s.observed_generation >= d.meta.generation
}

/// Whether the new status is closer to completion than the old one (`DeploymentProgressing`).
fn progressed(old: &apps_v1::DeploymentStatus, new: &apps_v1::DeploymentStatus) -> bool {
    let n = |v: Option<i32>| v.unwrap_or(0);
    let outdated = |s: &apps_v1::DeploymentStatus| n(s.replicas) - n(s.updated_replicas);
    n(new.updated_replicas) > n(old.updated_replicas)
        || outdated(new) < outdated(old)
        || n(new.ready_replicas) > n(old.ready_replicas)
        || n(new.available_replicas) > n(old.available_replicas)
}

impl Sync<'_> {
    /// Whether the rollout is complete according to the stored status.
    pub(super) fn is_complete(&self) -> bool {
        complete(self.d, &self.d.status)
    }

    /// Writes the status if it changed, unless this plan already writes to the Deployment itself.
    pub(super) fn sync_status(&mut self) {
        let key = self.d.key();
        let written = |w: &Write| matches!(w, Write::Update(o @ Object::Deployment(_), _) if o.key() == key);
        if self.plan.writes.iter().any(written) {
            return;
        }
        let mut status = self.counts();
        self.availability(&mut status);
        if self.d.spec.progress_deadline_seconds.is_some_and(|s| s != i32::MAX) {
            self.progress(&mut status);
        } else {
            remove_condition(&mut status, "Progressing");
        }
        self.replica_failure(&mut status);
        if status.conditions.as_ref().is_some_and(Vec::is_empty) {
            status.conditions = None;
        }
        if status != *self.d.status {
            let mut copy = self.d.clone();
            copy.set_status(status);
            self.plan.writes.push(Write::Update(Object::from(copy), Subresource::Status));
        }
    }

    fn counts(&self) -> apps_v1::DeploymentStatus {
        let sum = |f: &dyn Fn(&ReplicaSet) -> i32| self.all.iter().map(|rs| f(rs)).sum::<i32>();
        let available = sum(&|rs| rs.status.available_replicas.unwrap_or(0));
        let some = |n: i32| (n != 0).then_some(n);
        let terminating: Option<i32> =
            self.all.iter().map(|rs| rs.status.terminating_replicas).sum::<Option<i32>>().filter(|n| *n != 0);
        apps_v1::DeploymentStatus {
            observed_generation: self.d.meta.generation,
            replicas: some(sum(&|rs| rs.status.replicas)),
            updated_replicas: some(self.new_rs().map_or(0, |rs| rs.status.replicas)),
            ready_replicas: some(sum(&|rs| rs.status.ready_replicas.unwrap_or(0))),
            available_replicas: some(available),
            unavailable_replicas: some((sum(&size) - available).max(0)),
            terminating_replicas: terminating,
            collision_count: self.d.status.collision_count,
            conditions: self.d.status.conditions.clone(),
        }
    }

    fn condition(&self, type_: &str, status: &str, reason: &str, message: String) -> Condition {
        let time = Some(self.now.wall.to_time());
        Condition {
            type_: type_.to_owned(),
            status: status.to_owned(),
            reason: Some(reason.to_owned()),
            message: Some(message),
            last_update_time: time.clone(),
            last_transition_time: time,
        }
    }

    fn availability(&self, status: &mut apps_v1::DeploymentStatus) {
        let enough = wanted(self.d) - scaling::max_unavailable(self.d);
        let new = if status.available_replicas.unwrap_or(0) >= enough {
            let message = "Deployment has minimum availability.".to_owned();
            self.condition("Available", "True", "MinimumReplicasAvailable", message)
        } else {
            let message = "Deployment does not have minimum availability.".to_owned();
            self.condition("Available", "False", "MinimumReplicasUnavailable", message)
        };
        set_condition(status, new);
    }

    fn progress(&mut self, status: &mut apps_v1::DeploymentStatus) {
        let current = condition(&self.d.status, "Progressing").cloned();
        let current_reason = current.as_ref().and_then(|c| c.reason.as_deref()).unwrap_or("");
        if self.d.spec.paused == Some(true) {
            if current_reason != reason::TIMED_OUT && current_reason != reason::PAUSED {
                let message = "Deployment is paused".to_owned();
                set_condition(status, self.condition("Progressing", "Unknown", reason::PAUSED, message));
            }
            return;
        }
        if current_reason == reason::PAUSED {
            let message = "Deployment is resumed".to_owned();
            set_condition(status, self.condition("Progressing", "Unknown", reason::RESUMED, message));
            return;
        }
        if let Some(name) = self.created_name() {
            // Each rollout starts the progress deadline anew.
            let message = format!("Created new replica set {name:?}");
            set_condition(status, self.condition("Progressing", "True", reason::CREATED, message));
            return;
        }
        let done = status.replicas == status.updated_replicas && current_reason == reason::AVAILABLE;
        if done {
            return;
        }
        let subject = match self.new_rs() {
            Some(rs) => format!("ReplicaSet {:?}", rs.name()),
            None => format!("Deployment {:?}", self.d.name()),
        };
        if complete(self.d, status) {
            let message = format!("{subject} has successfully progressed.");
            set_condition(status, self.condition("Progressing", "True", reason::AVAILABLE, message));
        } else if progressed(&self.d.status, status) {
            let message = format!("{subject} is progressing.");
            let mut new = self.condition("Progressing", "True", reason::UPDATED, message);
            if let Some(c) = current.filter(|c| c.status == "True") {
                new.last_transition_time = c.last_transition_time;
            }
            // The update time must change even if status and reason do not, because the deadline counts from it.
            remove_condition(status, "Progressing");
            set_condition(status, new);
        } else if current.is_none() {
            let message = match self.new_rs() {
                Some(rs) => format!("Found new replica set {:?}", rs.name()),
                None => format!("{subject} is progressing."),
            };
            set_condition(status, self.condition("Progressing", "True", reason::FOUND, message));
        } else if let Some(left) = self.time_left(current.as_ref()) {
            if left.is_zero() {
                let message = format!("{subject} has timed out progressing.");
                set_condition(status, self.condition("Progressing", "False", reason::TIMED_OUT, message));
            } else {
                self.plan.requeue(left + Duration::from_secs(1));
            }
        }
    }

    /// Name of the ReplicaSet that this plan creates; `None` if it creates none.
    fn created_name(&self) -> Option<String> {
        self.plan.writes.iter().find_map(|w| match w {
            Write::Create(rs @ Object::ReplicaSet(_)) => Some(rs.name().to_owned()),
            _ => None,
        })
    }

    /// Time until the progress deadline; `None` if there is no deadline, zero if it has passed.
    fn time_left(&self, current: Option<&Condition>) -> Option<Duration> {
        // After completion, there is no deadline until the Deployment progresses again.
        let current = current.filter(|c| c.reason.as_deref() != Some(reason::AVAILABLE))?;
        if current.reason.as_deref() == Some(reason::TIMED_OUT) {
            return Some(Duration::ZERO);
        }
        let since = Wall::from_time(current.last_update_time.as_ref()?);
        let deadline = Duration::from_secs(self.d.spec.progress_deadline_seconds?.max(0) as u64);
        Some(deadline.saturating_sub(self.now.wall.since(since)))
    }

    fn replica_failure(&self, status: &mut apps_v1::DeploymentStatus) {
        let failure = |rs: &&ReplicaSet| {
            let found = rs.status.conditions.iter().flatten().find(|c| c.type_ == "ReplicaFailure");
            found.map(|c| (c.status.clone(), c.reason.clone(), c.message.clone()))
        };
        let found = self.new_rs().as_ref().and_then(failure).or_else(|| self.all.iter().find_map(failure));
        match found {
            Some((value, why, message)) => {
                let new =
                    self.condition("ReplicaFailure", &value, &why.unwrap_or_default(), message.unwrap_or_default());
                set_condition(status, new);
            }
            None => remove_condition(status, "ReplicaFailure"),
        }
    }
}
