//! `child-outlives-owner`: the garbage collector never deletes an object that has a living owner. An owner lives as
//! long as it is stored, unless it waits for its dependents to be deleted first, or has waited: whoever deletes it
//! once more to orphan them may be too late.
//!
//! `orphans-survive`: it never deletes an object that existed already when its owner was deleted with orphan
//! propagation.

use std::collections::{BTreeMap, BTreeSet};

use skeg_core::api::{DeleteOptions, Propagation};
use skeg_core::controllers::GarbageCollector;
use skeg_core::object::{Kind, Object, ObjectKey, Revision};
use skeg_core::store::StoreKey;

use super::{Asked, Commit, Invariant, Report};

const ORPHAN: &str = "orphan";
const FOREGROUND: &str = "foregroundDeletion";

/// Owners by UID.
#[derive(Debug, Default)]
pub(super) struct Owners {
    /// Those that were deleted with orphan propagation, with the revision of the deletion.
    orphaning: BTreeMap<String, Revision>,
    /// Those that somebody wants to be deleted with another propagation. The last one to be carried out counts.
    overruled: BTreeSet<String>,
    /// Those that wait, or have waited, for their dependents to be deleted.
    waiting: BTreeSet<String>,
}

fn has_finalizer(object: &Object, name: &str) -> bool {
    object.meta().finalizers.iter().flatten().any(|finalizer| finalizer == name)
}

impl Owners {
    pub fn committed(&mut self, commit: &Commit<'_>) {
        let Some(new) = commit.new.filter(|new| new.is_deleting()) else { return };
        if has_finalizer(new, ORPHAN) {
            self.orphaning.entry(new.uid().to_owned()).or_insert(new.rv());
        }
        if has_finalizer(new, FOREGROUND) {
            self.waiting.insert(new.uid().to_owned());
        }
    }

    fn overrule(&mut self, asked: &Asked<'_>, key: &ObjectKey, options: &DeleteOptions) {
        if options.propagation.is_some_and(|propagation| propagation != Propagation::Orphan)
            && let Some(owner) = asked.store.object(key)
        {
            self.overruled.insert(owner.uid().to_owned());
        }
    }

    /// Checks a delete as it arrives.
    pub fn check(&mut self, asked: &Asked<'_>, key: &ObjectKey, options: &DeleteOptions, report: &mut Report) {
        if *asked.request.user != *GarbageCollector::NAME {
            self.overrule(asked, key, options);
            return;
        }
        let Some(child) = asked.store.get(&StoreKey::Object(key.clone())) else { return };
        let created = child.entry.create_revision;
        let Some(child) = child.value.object() else { return };
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
            if stored.is_some() && !self.waiting.contains(&owner.uid) {
                let what = format!("{key} is deleted while its owner {} {} lives", owner.kind, owner.name);
                report.broken(Invariant::ChildOutlivesOwner, asked.at, what);
            }
            let orphaned = self.orphaning.get(&owner.uid).filter(|_| !self.overruled.contains(&owner.uid));
            if orphaned.is_some_and(|orphaned| created < *orphaned) {
                let what = format!("{key} is deleted; {} {} was to leave it", owner.kind, owner.name);
                report.broken(Invariant::OrphansSurvive, asked.at, what);
            }
        }
    }
}
