//! `namespaces-go-empty`: a namespace is removed only when nothing is left in it. Events are let off: they may still be
//! written about what has just gone.

use skeg_core::object::{Kind, Object, ObjectKey};
use skeg_core::store::StoreKey;

use super::{Commit, Invariant, Report};

/// Checks a namespace that is removed.
pub(super) fn check(commit: &Commit<'_>, report: &mut Report) {
    let (Some(Object::Namespace(namespace)), None) = (commit.old, commit.new) else { return };
    let name = namespace.name();
    let kinds = Kind::all_stored().filter(|kind| kind.row().namespaced && *kind != Kind::EVENT);
    for kind in kinds {
        let (start, end) = (ObjectKey::range_start(kind, name), ObjectKey::range_end(kind, name));
        let mut left = commit.store.range(&StoreKey::Object(start), &StoreKey::Object(end));
        if let Some(object) = left.find_map(|kv| kv.value.object()) {
            let what = format!("namespace {name} is removed, and {} is left in it", object.key());
            report.broken(Invariant::NamespacesGoEmpty, commit.at, what);
        }
    }
}
