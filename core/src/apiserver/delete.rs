//! Delete: preconditions, grace period, finalizers, and what happens to dependents.
//!
//! Source: upstream's `registry/rest/delete.go` and `registry/generic/registry/store.go`;
//! <https://kubernetes.io/docs/concepts/architecture/garbage-collection/>.

use std::time::Duration;

use super::admission::webhook::Operation;
use super::update::check_precondition;
use super::write::{Commit, Deciding, Decision, Write};
use crate::api::{Call, DeleteOptions, Propagation, Response, Status};
use crate::machine::Wall;
use crate::object::{GarbageCollection, Kind, Object, ObjectKey, is_pod_terminal};
use crate::store::StoreKey;

const ORPHAN: &str = "orphan";
const FOREGROUND: &str = "foregroundDeletion";

/// The grace period of a delete.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Grace {
    /// The kind (or the object) is deleted without a grace period.
    None,
    /// The object is already being deleted, and the request does not shorten its grace period.
    Pending,
    /// This many seconds, counted from this time.
    Seconds(i64, Wall),
}

impl Deciding<'_> {
    pub(super) fn delete(&mut self, write: &mut Write) -> Decision {
        let Call::Delete { key, options } = &write.request.call else { unreachable!("not a delete") };
        let Some(current) = self.object(write, key) else {
            return Decision::refuse_if(key, Status::not_found(&self.info(key.kind), key.name()));
        };
        if let Err(status) = check_precondition(key, &options.precondition, &current) {
            return Decision::refuse_if(key, status);
        }
        let shown = match self.as_requested(write, &current) {
            Ok(shown) => shown,
            Err(decision) => return decision,
        };
        if let Err(decision) = self.consult_validating(write, (Operation::Delete, ""), None, Some(&shown)) {
            return decision;
        }
        let Call::Delete { key, options } = &write.request.call else { unreachable!("not a delete") };
        if key.kind == Kind::NAMESPACE {
            return self.delete_namespace(key, &current, options);
        }
        if key.kind == Kind::CUSTOM_RESOURCE_DEFINITION {
            return self.delete_definition(key, &current, options);
        }
        self.delete_object(key, &current, current.clone(), options)
    }

    /// Deletes `current`; `last` is its last state (an eviction adds a condition).
    pub(super) fn delete_object(
        &self,
        key: &ObjectKey,
        current: &Object,
        last: Object,
        options: &DeleteOptions,
    ) -> Decision {
        let grace = self.grace(current, options);
        if grace == Grace::Pending {
            let as_is = Ok(Response::Object(current.clone()));
            return Decision::AnswerIf(vec![StoreKey::Object(key.clone())], as_is);
        }
        let mut new = last;
        set_finalizers(&mut new, options);
        let held = new.meta().finalizers.as_ref().is_some_and(|f| !f.is_empty());
        match grace {
            Grace::Seconds(seconds, from) => mark(&mut new, from, seconds),
            Grace::None if held => mark(&mut new, self.now.wall, 0),
            Grace::None | Grace::Pending => {}
        }
        let stays = held || matches!(grace, Grace::Seconds(seconds, _) if seconds > 0);
        if !stays {
            return Decision::Commit(Commit::remove(key, current, new));
        }
        if new.meta() == current.meta() {
            let as_is = Ok(Response::Object(current.clone()));
            return Decision::AnswerIf(vec![StoreKey::Object(key.clone())], as_is);
        }
        Decision::Commit(Commit::replace(key, current, new))
    }

    fn grace(&self, object: &Object, options: &DeleteOptions) -> Grace {
        let Object::Pod(pod) = object else { return Grace::None };
        let meta = &pod.meta;
        if let Some(deadline) = &meta.deletion_timestamp {
            // The grace period of an object that is being deleted can only be shortened.
            let Some(left) = meta.deletion_grace_period_seconds else { return Grace::None };
            return match options.grace_seconds {
                Some(asked) if asked < left => {
                    let from = Wall::from_time(deadline).0 - left.saturating_mul(1_000_000);
                    Grace::Seconds(asked.max(0), Wall(from))
                }
                _ => Grace::Pending,
            };
        }
        let asked = options.grace_seconds.or(pod.spec.termination_grace_period_seconds).unwrap_or(0);
        let seconds = match asked {
            _ if pod.spec.node.is_none() || is_pod_terminal(pod) => 0,
            negative if negative < 0 => 1,
            seconds => seconds,
        };
        Grace::Seconds(seconds, self.now.wall)
    }
}

/// Sets the deletion timestamp or moves it earlier; the first time, the generation is incremented.
pub(super) fn mark(object: &mut Object, from: Wall, seconds: i64) {
    let first = !object.is_deleting();
    let before = object.meta().deletion_grace_period_seconds;
    if !first && before == Some(seconds) {
        return;
    }
    let meta = object.meta_mut();
    meta.deletion_grace_period_seconds = Some(seconds);
    // An object that is being deleted with zero grace keeps the timestamp of its first deletion.
    if first || before.is_some() {
        let grace = Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
        meta.deletion_timestamp = Some((from + grace).to_time());
    }
    if first {
        meta.generation = meta.generation.map(|g| if g > 0 { g + 1 } else { g });
    }
}

/// As `deletionFinalizersForGarbageCollection`: the requested policy replaces the existing one.
pub(super) fn set_finalizers(object: &mut Object, options: &DeleteOptions) {
    let by_default = match object.garbage_collection() {
        GarbageCollection::DeleteDependents => Propagation::Background,
        GarbageCollection::OrphanDependents => Propagation::Orphan,
        GarbageCollection::Unsupported => return,
    };
    let before = object.meta().finalizers.as_deref().unwrap_or(&[]);
    let has = |name: &str| before.iter().any(|f| f == name);
    let policy = options.propagation.unwrap_or_else(|| {
        if has(ORPHAN) {
            Propagation::Orphan
        } else if has(FOREGROUND) {
            Propagation::Foreground
        } else {
            by_default
        }
    });
    let wanted = match policy {
        Propagation::Orphan => Some(ORPHAN),
        Propagation::Foreground => Some(FOREGROUND),
        Propagation::Background => None,
    };
    if has(ORPHAN) == (wanted == Some(ORPHAN)) && has(FOREGROUND) == (wanted == Some(FOREGROUND)) {
        return;
    }
    let mut after: Vec<String> = before.iter().filter(|f| *f != ORPHAN && *f != FOREGROUND).cloned().collect();
    after.extend(wanted.map(str::to_owned));
    object.meta_mut().finalizers = (!after.is_empty()).then_some(after);
}
