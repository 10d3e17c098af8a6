//! `deleted-while-running`: a node's agent deletes a pod from the API only when none of its containers run. Otherwise a
//! replacement with the same identity could run beside them, with no API object for the old containers.

use skeg_core::api::DeleteOptions;
use skeg_core::object::{Kind, Object, ObjectKey};

use super::{Asked, Invariant, Report};

pub(super) fn check(asked: &Asked<'_>, key: &ObjectKey, options: &DeleteOptions, report: &mut Report) {
    let Some(node) = asked.from.filter(|_| key.kind == Kind::POD) else { return };
    let Some(Object::Pod(pod)) = asked.store.object(key) else { return };
    let meant = options.precondition.uid.as_deref().is_none_or(|uid| uid == pod.uid());
    if !meant || pod.spec.node.as_deref() != Some(&*node.name) {
        return;
    }
    let running = node.runtime.running(pod.uid());
    if let Some(container) = running.first() {
        let (user, count) = (&asked.request.user, running.len());
        let what = format!("{user} deletes {key} while {count} of its containers run, {} first", container.0);
        report.broken(Invariant::DeletedWhileRunning, asked.at, what);
    }
}
