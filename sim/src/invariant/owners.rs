//! `child-outlives-owner`: the garbage collector never deletes an object that has a living owner. An owner lives as
//! long as it is stored, unless it waits for its dependents to be deleted first.

use skeg_core::api::DeleteOptions;
use skeg_core::controllers::GarbageCollector;
use skeg_core::object::{Kind, Object, ObjectKey, Revision};

use super::{Asked, Invariant, Report};

const FOREGROUND: &str = "foregroundDeletion";

fn has_finalizer(object: &Object, name: &str) -> bool {
    object.meta().finalizers.iter().flatten().any(|finalizer| finalizer == name)
}

/// Checks a delete as it arrives.
pub(super) fn check(asked: &Asked<'_>, key: &ObjectKey, options: &DeleteOptions, report: &mut Report) {
    if *asked.request.user != *GarbageCollector::NAME {
        return;
    }
    let Some(child) = asked.store.object(key) else { return };
    let meant = |uid: &str| uid == child.uid();
    let is_version = |rv: Revision| rv == child.rv();
    if !options.precondition.uid.as_deref().is_none_or(meant) || !options.precondition.rv.is_none_or(is_version) {
        return;
    }
    for owner in child.meta().owner_references.iter().flatten() {
        let Some(kind) = Kind::by_api_version(&owner.api_version, &owner.kind) else { continue };
        let namespace = if kind.row().namespaced { child.namespace() } else { "" };
        let stored = asked.store.object(&ObjectKey::new(kind, namespace, &owner.name));
        let stored = stored.filter(|stored| stored.uid() == owner.uid);
        if stored.is_some_and(|stored| !stored.is_deleting() || !has_finalizer(stored, FOREGROUND)) {
            let what = format!("{key} is deleted while its owner {} {} lives", owner.kind, owner.name);
            report.broken(Invariant::ChildOutlivesOwner, asked.at, what);
        }
    }
}
