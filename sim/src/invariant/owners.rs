//! `child-outlives-owner`: the garbage collector never deletes an object that has a living owner.

use skeg_core::api::DeleteOptions;
use skeg_core::object::{Kind, ObjectKey};

use super::{Asked, Invariant, Report};

/// The user name that the garbage collector's requests carry.
const COLLECTOR: &str = "garbage-collector";

pub(super) fn check(asked: &Asked<'_>, key: &ObjectKey, options: &DeleteOptions, report: &mut Report) {
    if *asked.request.user != *COLLECTOR {
        return;
    }
    let Some(child) = asked.store.object(key) else { return };
    if options.precondition.uid.as_deref().is_some_and(|uid| uid != child.uid()) {
        return;
    }
    for owner in child.meta().owner_references.iter().flatten() {
        let Some(kind) = Kind::by_api_version(&owner.api_version, &owner.kind) else { continue };
        let namespace = if kind.row().namespaced { child.namespace() } else { "" };
        let living = asked
            .store
            .object(&ObjectKey::new(kind, namespace, &owner.name))
            .is_some_and(|o| o.uid() == owner.uid && !o.is_deleting());
        if living {
            let what = format!("{key} is deleted while its owner {} {} lives", owner.kind, owner.name);
            report.broken(Invariant::ChildOutlivesOwner, asked.at, what);
        }
    }
}
