//! `child-outlives-owner`: the garbage collector never deletes an object that has a living owner. An owner lives as
//! long as it is stored, unless it waits for its dependents to be deleted first, or has waited: whoever deletes it
//! once more to orphan them may be too late.
//!
//! `orphans-survive`: it never deletes an object that existed already when its owner was deleted with orphan
//! propagation.
//!
//! `foreground-waits`: an owner that is deleted in the foreground goes after the dependents that block its deletion,
//! unless somebody deletes it otherwise, too.
//!
//! `orphans-at-rest`: at the end of a run, nothing is left whose controller is gone.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use skeg_core::Wall;
use skeg_core::api::{DeleteOptions, Propagation};
use skeg_core::controllers::GarbageCollector;
use skeg_core::object::{Kind, Object, ObjectKey, Revision, controller_of};
use skeg_core::store::{MemoryStore, StoreKey};

use super::{Asked, Commit, Invariant, Report};
use crate::clock::EPOCH;
use crate::converge::{is_of_cron_job, objects};

const ORPHAN: &str = "orphan";
const FOREGROUND: &str = "foregroundDeletion";

/// Owners by UID.
#[derive(Debug, Default)]
pub(super) struct Owners {
    /// Those that were deleted with orphan propagation, with the revision of the deletion.
    orphaning: BTreeMap<String, Revision>,
    /// Those that somebody wants to be deleted with another propagation. The last one to be carried out counts.
    overruled: BTreeSet<String>,
    /// When dependents have last changed owners.
    adopted: BTreeMap<ObjectKey, f64>,
    /// Those that somebody wants to be deleted before their dependents.
    hurried: BTreeSet<String>,
    /// Those that wait, or have waited, for their dependents to be deleted.
    waiting: BTreeSet<String>,
}

fn has_finalizer(object: &Object, name: &str) -> bool {
    object.meta().finalizers.iter().flatten().any(|finalizer| finalizer == name)
}

/// The kinds of what controllers make.
const DEPENDENTS: [Kind; 5] =
    [Kind::POD, Kind::REPLICA_SET, Kind::JOB, Kind::CONTROLLER_REVISION, Kind::PERSISTENT_VOLUME_CLAIM];

/// Returns a description of the first object whose controller is gone, or `None`. Those of CronJobs come and go.
pub(super) fn at_rest(store: &MemoryStore) -> Option<String> {
    DEPENDENTS.into_iter().flat_map(|kind| objects(store, kind)).filter(|o| !is_of_cron_job(store, o)).find_map(
        |object| {
            let owner = controller_of(object.meta())?;
            let kind = Kind::by_api_version(&owner.api_version, &owner.kind)?;
            let namespace = if kind.row().namespaced { object.namespace() } else { "" };
            let stored = store.object(&ObjectKey::new(kind, namespace, &owner.name));
            let lives = stored.is_some_and(|stored| stored.uid() == owner.uid);
            (!lives).then(|| format!("{} is there, and its owner {} {} is gone", object.key(), owner.kind, owner.name))
        },
    )
}

impl Owners {
    /// Notes an owner's deletion, and checks that it has waited. A view may lag by `lag` seconds.
    pub fn committed(&mut self, commit: &Commit<'_>, lag: f64, report: &mut Report) {
        if let (Some(owner), None) = (commit.old, commit.new)
            && has_finalizer(owner, FOREGROUND)
            && !self.hurried.contains(owner.uid())
            && let Some(child) = self.blocks(commit, owner, lag)
        {
            let what = format!("{} is gone, and {child} was to go first", owner.key());
            report.broken(Invariant::ForegroundWaits, commit.at, what);
        }
        if let (Some(old), Some(new)) = (commit.old, commit.new)
            && DEPENDENTS.contains(&new.kind())
            && !Rc::ptr_eq(old.meta(), new.meta())
            && old.meta().owner_references != new.meta().owner_references
        {
            self.adopted.insert(new.key(), commit.at);
        }
        let Some(new) = commit.new.filter(|new| new.is_deleting()) else { return };
        if has_finalizer(new, ORPHAN) {
            self.orphaning.entry(new.uid().to_owned()).or_insert(new.rv());
        }
        if has_finalizer(new, FOREGROUND) {
            self.waiting.insert(new.uid().to_owned());
            if commit.old.is_some_and(|old| has_finalizer(old, ORPHAN)) {
                self.overruled.insert(new.uid().to_owned());
            }
        }
    }

    /// A dependent that blocks the deletion of an owner and is not so new that a view may not show it.
    fn blocks(&self, commit: &Commit<'_>, owner: &Object, lag: f64) -> Option<ObjectKey> {
        let blocking = |child: &&Object| {
            let mut owners = child.meta().owner_references.iter().flatten();
            owners.any(|o| o.uid == owner.uid() && o.block_owner_deletion == Some(true))
        };
        let is_old = |child: &&Object| {
            let created = child.meta().creation_timestamp.as_ref().map_or(0, |at| Wall::from_time(at).0 - EPOCH);
            let adopted = self.adopted.get(&child.key()).copied().unwrap_or(0.0);
            commit.at - adopted.max(created as f64 / 1e6) > lag
        };
        let all = DEPENDENTS.into_iter().flat_map(|kind| objects(commit.store, kind));
        all.filter(blocking).find(is_old).map(Object::key)
    }

    fn overrule(&mut self, asked: &Asked<'_>, key: &ObjectKey, options: &DeleteOptions) {
        let foreground = options.propagation == Some(Propagation::Foreground);
        if let Some(owner) = asked.store.object(key).filter(|_| !foreground) {
            self.hurried.insert(owner.uid().to_owned());
        }
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
