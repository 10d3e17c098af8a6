//! `generation-counts`: an object's `metadata.generation` never decreases, that of a workload increases with each
//! change of its spec, and its UID never changes.

use std::rc::Rc;

use skeg_core::object::Object;

use super::{Commit, Invariant, Report};

pub(super) fn check(commit: &Commit<'_>, report: &mut Report) {
    let (Some(old), Some(new)) = (commit.old, commit.new) else { return };
    let (before, after) = (old.meta(), new.meta());
    if before.generation == after.generation && differ(old, new) {
        let what =
            format!("{}: its spec has changed, and its generation is {:?} as before", new.key(), after.generation);
        report.broken(Invariant::GenerationCounts, commit.at, what);
    }
    if Rc::ptr_eq(before, after) || (before.generation <= after.generation && before.uid == after.uid) {
        return;
    }
    let (key, generations, uids) = (new.key(), (before.generation, after.generation), (&before.uid, &after.uid));
    let what = format!(
        "{key}: generation {:?} became {:?}, uid {:?} became {:?}",
        generations.0, generations.1, uids.0, uids.1
    );
    report.broken(Invariant::GenerationCounts, commit.at, what);
}

/// Whether the spec of a workload has changed.
fn differ(old: &Object, new: &Object) -> bool {
    match (old, new) {
        (Object::Deployment(old), Object::Deployment(new)) => !Rc::ptr_eq(&old.spec, &new.spec) && old.spec != new.spec,
        (Object::ReplicaSet(old), Object::ReplicaSet(new)) => !Rc::ptr_eq(&old.spec, &new.spec) && old.spec != new.spec,
        (Object::StatefulSet(old), Object::StatefulSet(new)) => {
            !Rc::ptr_eq(&old.spec, &new.spec) && old.spec != new.spec
        }
        (Object::DaemonSet(old), Object::DaemonSet(new)) => !Rc::ptr_eq(&old.spec, &new.spec) && old.spec != new.spec,
        (Object::Job(old), Object::Job(new)) => !Rc::ptr_eq(&old.spec, &new.spec) && old.spec != new.spec,
        _ => false,
    }
}
