//! Whether the pod view is fresh enough to decide from.
//!
//! The scheduler makes no decision from a view that is older than its leadership, since it might miss a bind of an
//! earlier leader, and none from a view that is older than one it has decided from before.

use crate::object::Revision;

/// How fresh the pod view is, and how fresh it must be.
#[derive(Debug)]
pub(super) struct Freshness {
    /// The leadership that binds and assumptions belong to; `None` before the first one.
    term: Option<Revision>,
    /// The leadership is new: the assumptions of the earlier one end as soon as the view has caught up.
    new_term: bool,
    /// Decisions wait until the pod view has reached this revision.
    required: Option<Revision>,
    /// The highest revision that the pod view has had.
    reached: Revision,
    /// Whether the last change of the pod view took it back in time.
    went_back: bool,
}

impl Default for Freshness {
    /// Nothing has been read, and nothing is required.
    fn default() -> Freshness {
        Freshness { term: None, new_term: false, required: None, reached: Revision(0), went_back: false }
    }
}

impl Freshness {
    /// Requires that all views have been listed.
    pub(super) fn require_lists(&mut self) {
        self.required = Some(Revision(0));
    }

    /// Records under which leadership the process acts. Returns whether that is a new one. If so, the pod view must
    /// reach the revision at which the leadership began.
    pub(super) fn begin_term(&mut self, term: Revision) -> bool {
        if self.term == Some(term) {
            return false;
        }
        self.term = Some(term);
        self.new_term = true;
        self.required = Some(self.required.map_or(term, |r| r.max(term)));
        true
    }

    /// Records the pod view's revision after a possible change. Returns whether the view went back in time and must be
    /// listed again.
    pub(super) fn view_changed(&mut self, revision: Revision) -> bool {
        let mut list_again = false;
        if revision >= self.reached {
            self.reached = revision;
        } else if self.required.is_none_or(|r| r < self.reached) {
            self.required = Some(self.reached);
            list_again = true;
        }
        self.went_back = revision < self.reached;
        list_again
    }

    /// Whether the pod view is now older than it has been before.
    pub(super) fn went_back(&self) -> bool {
        self.went_back
    }

    /// The revision that decisions wait for; `None` if the view is fresh enough.
    pub(super) fn required(&self) -> Option<Revision> {
        self.required
    }

    /// Records that the view has reached the required revision. Returns whether the leadership is new, so that the
    /// assumptions of the earlier one end.
    pub(super) fn caught_up(&mut self) -> bool {
        self.required = None;
        self.went_back = false;
        std::mem::take(&mut self.new_term)
    }
}

#[cfg(test)]
mod tests {
    use super::Freshness;
    use crate::object::Revision;

    #[test]
    fn a_view_that_went_back_is_listed_once_and_waited_for() {
        let mut fresh = Freshness::default();
        assert!(!fresh.view_changed(Revision(7)));
        assert_eq!((fresh.required(), fresh.went_back()), (None, false));
        assert!(fresh.view_changed(Revision(5)));
        assert_eq!((fresh.required(), fresh.went_back()), (Some(Revision(7)), true));
        assert!(!fresh.view_changed(Revision(6)), "it is being listed already");
        assert!(!fresh.view_changed(Revision(8)));
        assert!(!fresh.caught_up(), "the leadership is the same");
        assert_eq!((fresh.required(), fresh.went_back()), (None, false));
    }

    #[test]
    fn a_new_term_waits_for_the_revision_at_which_it_began() {
        let mut fresh = Freshness::default();
        fresh.require_lists();
        assert!(fresh.begin_term(Revision(9)));
        assert_eq!(fresh.required(), Some(Revision(9)));
        assert!(!fresh.begin_term(Revision(9)));
        assert!(fresh.caught_up());
        assert!(!fresh.caught_up(), "assumptions end once");
        assert!(fresh.begin_term(Revision(12)));
    }
}
