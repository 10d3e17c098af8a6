//! Delete: preconditions, grace, finalizers and what becomes of dependants.
//!
//! Source: upstream's `registry/rest/delete.go` and `registry/generic/registry/store.go`;
//! <https://kubernetes.io/docs/concepts/architecture/garbage-collection/>.

use std::time::Duration;

use super::ApiServer;
use super::update::check;
use super::write::{Commit, Decision, Reply};
use crate::api::{DeleteOptions, Propagation, Response};
use crate::machine::{Now, Wall};
use crate::object::{Kind, Object, ObjectKey, is_pod_terminal};

const ORPHAN: &str = "orphan";
const FOREGROUND: &str = "foregroundDeletion";

/// Whether an object that is being deleted has nothing left to wait for.
pub(super) fn is_to_be_removed(object: &Object) -> bool {
    let meta = object.meta();
    let finalized = meta.finalizers.as_ref().is_none_or(Vec::is_empty);
    let graceful = meta.deletion_grace_period_seconds.unwrap_or(0) > 0;
    let namespace_waits =
        matches!(object, Object::Namespace(ns) if ns.spec.finalizers.as_ref().is_some_and(|f| !f.is_empty()));
    meta.deletion_timestamp.is_some() && finalized && !graceful && !namespace_waits
}

/// Seconds of grace that a pod gets; nothing else is deleted gracefully.
fn grace(object: &Object, options: &DeleteOptions) -> i64 {
    let Object::Pod(pod) = object else { return 0 };
    if pod.spec.node.is_none() || is_pod_terminal(pod) {
        return 0;
    }
    let asked = options.grace_seconds.or(pod.spec.termination_grace_period_seconds).unwrap_or(30);
    if asked < 0 { 1 } else { asked }
}

/// The finalizers that the propagation policy asks for.
fn finalizers(object: &Object, options: &DeleteOptions) -> Vec<String> {
    let default = if object.kind() == Kind::REPLICATION_CONTROLLER { Some(Propagation::Orphan) } else { None };
    let before = object.meta().finalizers.clone().unwrap_or_default();
    let policy = match options.propagation.or_else(|| {
        // Finalizers that stand already say what was asked before.
        if before.iter().any(|f| f == ORPHAN) {
            Some(Propagation::Orphan)
        } else if before.iter().any(|f| f == FOREGROUND) {
            Some(Propagation::Foreground)
        } else {
            default
        }
    }) {
        Some(Propagation::Orphan) => Some(ORPHAN),
        Some(Propagation::Foreground) => Some(FOREGROUND),
        Some(Propagation::Background) | None => None,
    };
    let mut all: Vec<String> = before.into_iter().filter(|f| f != ORPHAN && f != FOREGROUND).collect();
    all.extend(policy.map(str::to_owned));
    all
}

impl ApiServer {
    pub(super) fn decide_delete(
        &mut self,
        now: Now,
        key: &ObjectKey,
        options: &DeleteOptions,
        current: &Object,
    ) -> Decision {
        if let Err(status) = check(key, &options.precondition, current) {
            return Decision::Refuse(status);
        }
        let mut new = current.clone();
        let wanted = finalizers(current, options);
        if current.meta().finalizers.as_deref().unwrap_or(&[]) != wanted {
            new.meta_mut().finalizers = (!wanted.is_empty()).then_some(wanted);
        }
        self.mark(now, options, current, &mut new);
        if let Object::Namespace(ns) = &mut new
            && ns.status.phase.as_deref() != Some("Terminating")
        {
            ns.status_mut().phase = Some("Terminating".to_owned());
        }
        let removed = is_to_be_removed(&new);
        if !removed && new == *current {
            return Decision::Unchanged(Response::Object(new));
        }
        if options.dry_run {
            return Decision::DryRun(Response::Object(new));
        }
        let (put, extra) =
            if removed { (None, self.allocations.for_delete(current)) } else { (Some(new.clone()), Vec::new()) };
        Decision::Commit(Commit { key: key.clone(), put, compare: Vec::new(), extra, reply: Reply::Object(new) })
    }

    /// Sets, or brings forward, the time of deletion.
    fn mark(&self, now: Now, options: &DeleteOptions, current: &Object, new: &mut Object) {
        let seconds = grace(current, options);
        let deadline = |from: Wall| (from + Duration::from_secs(u64::try_from(seconds).unwrap_or(0))).to_time();
        if current.is_deleting() {
            let left = current.meta().deletion_grace_period_seconds.unwrap_or(0);
            // Grace can only be shortened, and only by who asks for it.
            if options.grace_seconds.is_some() && seconds < left {
                let meta = new.meta_mut();
                meta.deletion_grace_period_seconds = Some(seconds);
                meta.deletion_timestamp = Some(deadline(now.wall));
            }
            return;
        }
        let counted = current.kind().info().has_generation;
        let meta = new.meta_mut();
        meta.deletion_timestamp = Some(deadline(now.wall));
        meta.deletion_grace_period_seconds = Some(seconds);
        if counted {
            meta.generation = meta.generation.map(|g| g + 1);
        }
    }
}
