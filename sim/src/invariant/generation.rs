//! `generation-counts`: an object's `metadata.generation` never decreases, and its UID never changes.

use std::rc::Rc;

use super::{Commit, Invariant, Report};

pub(super) fn check(commit: &Commit<'_>, report: &mut Report) {
    let (Some(old), Some(new)) = (commit.old, commit.new) else { return };
    let (before, after) = (old.meta(), new.meta());
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
