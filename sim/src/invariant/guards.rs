//! `writes-are-guarded`: controllers, the scheduler and agents change and delete only what they have judged. Their
//! updates name the version, their deletions the UID, and those of the garbage collector the version as well. Without
//! that, a decision from a late view hits an object that has changed, or another one of the same name.

use skeg_core::api::Call;
use skeg_core::controllers::GarbageCollector;
use skeg_core::object::Revision;

use super::reading::SCHEDULER;
use super::{Asked, Invariant, Report};

/// Checks a write as it arrives.
pub(super) fn check(asked: &Asked<'_>, report: &mut Report) {
    let request = asked.request;
    let user = &*request.user;
    let is_controller = user.ends_with("-controller") || [GarbageCollector::NAME, SCHEDULER].contains(&user);
    // Users may write whatever they like.
    if asked.from.is_none() && !is_controller {
        return;
    }
    let (key, lacks) = match &request.call {
        Call::Update { object, .. } if object.rv() == Revision(0) => (object.key(), "the version that it changes"),
        Call::SetScale { key, rv: Revision(0), .. } => (key.clone(), "the version that it changes"),
        Call::Delete { key, options } | Call::Evict { pod: key, options } => match &options.precondition {
            guard if guard.uid.is_none() => (key.clone(), "the UID of what it deletes"),
            guard if guard.rv.is_none() && user == GarbageCollector::NAME => {
                (key.clone(), "the version that it has judged")
            }
            _ => return,
        },
        _ => return,
    };
    let what = format!("{user} writes {key} without naming {lacks}");
    report.broken(Invariant::WritesAreGuarded, asked.at, what);
}
