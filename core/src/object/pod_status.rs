//! A Pod's status, and beside it in brief what everybody asks of it.

use std::cell::Cell;
use std::fmt;
use std::ops::Deref;
use std::rc::Rc;

use k8s_openapi::api::core::v1::PodStatus;

use super::{Part, pod_condition};
use crate::machine::Wall;

/// A Pod's phase.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs)]
pub enum PodPhase {
    Pending,
    Running,
    Succeeded,
    Failed,
    Unknown,
    /// Something that Kubernetes does not know.
    Other,
}

/// What a Pod's `Ready` condition says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PodReadiness {
    /// There is none.
    Absent,
    /// It is not true.
    Not,
    /// It is true.
    Ready,
}

/// What is asked of a Pod's status again and again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PodBrief {
    /// `lastTransitionTime` of the `Ready` condition; [`NEVER`] if there is none.
    since: Wall,
    /// The most restarts of any of its containers, init containers left out.
    pub restarts: i32,
    /// `status.phase`, `Pending` where unset.
    pub phase: PodPhase,
    /// Whether it is ready.
    pub readiness: PodReadiness,
}

const NEVER: Wall = Wall(i64::MIN);

impl InBrief for PodStatus {
    type Brief = PodBrief;

    fn in_brief(&self) -> PodBrief {
        let ready = pod_condition(self, "Ready");
        let since = ready.and_then(|c| c.last_transition_time.as_ref());
        PodBrief {
            since: since.map_or(NEVER, Wall::from_time),
            restarts: self.container_statuses.iter().flatten().map(|c| c.restart_count).max().unwrap_or(0),
            phase: match self.phase.as_deref() {
                None | Some("Pending") => PodPhase::Pending,
                Some("Running") => PodPhase::Running,
                Some("Succeeded") => PodPhase::Succeeded,
                Some("Failed") => PodPhase::Failed,
                Some("Unknown") => PodPhase::Unknown,
                Some(_) => PodPhase::Other,
            },
            readiness: match ready {
                None => PodReadiness::Absent,
                Some(c) if c.status == "True" => PodReadiness::Ready,
                Some(_) => PodReadiness::Not,
            },
        }
    }
}

impl PodBrief {
    /// Whether its `Ready` condition is true.
    pub fn is_ready(&self) -> bool {
        self.readiness == PodReadiness::Ready
    }

    /// `lastTransitionTime` of its `Ready` condition.
    pub fn since(&self) -> Option<Wall> {
        (self.since != NEVER).then_some(self.since)
    }
}

/// What can be told in brief.
pub trait InBrief: Clone + PartialEq + fmt::Debug {
    /// The brief. Small.
    type Brief: Copy;

    /// What is asked again and again.
    fn in_brief(&self) -> Self::Brief;
}

/// A part behind a counter of its own. What is asked most often is told in brief from beside the pointer: a condition
/// of a pod would be found by comparing strings, each in memory of its own, in every pod that is counted or ranked.
pub struct Briefed<T: InBrief> {
    shared: Rc<T>,
    /// Made when it is first asked for.
    brief: Cell<Option<T::Brief>>,
}

impl<T: InBrief> Briefed<T> {
    /// In brief.
    #[inline]
    pub fn brief(&self) -> T::Brief {
        self.brief.get().unwrap_or_else(|| {
            let brief = self.shared.in_brief();
            self.brief.set(Some(brief));
            brief
        })
    }

    /// Whether it is held in the same place as another.
    pub fn is_held_as(&self, other: &Briefed<T>) -> bool {
        Rc::ptr_eq(&self.shared, &other.shared)
    }
}

impl<T: InBrief> Clone for Briefed<T> {
    fn clone(&self) -> Briefed<T> {
        Briefed { shared: Rc::clone(&self.shared), brief: self.brief.clone() }
    }
}

impl<T: InBrief> PartialEq for Briefed<T> {
    fn eq(&self, other: &Briefed<T>) -> bool {
        self.is_held_as(other) || self.shared == other.shared
    }
}

impl<T: InBrief> fmt::Debug for Briefed<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.shared.fmt(f)
    }
}

impl<T: InBrief> Deref for Briefed<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.shared
    }
}

impl<T: InBrief> Part for Briefed<T> {
    type Of = T;

    fn new(of: T) -> Briefed<T> {
        Briefed { shared: Rc::new(of), brief: Cell::new(None) }
    }

    fn same(&self, other: &Briefed<T>) -> bool {
        self == other
    }

    fn make_mut(&mut self) -> &mut T {
        self.brief.set(None);
        Rc::make_mut(&mut self.shared)
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::PodStatus;
    use serde_json::json;

    use super::{Briefed, PodPhase, PodReadiness};
    use crate::machine::Wall;
    use crate::object::Part;

    #[test]
    fn the_brief_is_that_of_the_status_also_after_a_change() {
        let container = |n| json!({"name": "c", "image": "i", "imageID": "", "ready": true, "restartCount": n});
        let status: PodStatus = serde_json::from_value(json!({
            "phase": "Running",
            "conditions": [
                {"type": "Initialized", "status": "True", "lastTransitionTime": "2026-01-01T00:00:01Z"},
                {"type": "Ready", "status": "True", "lastTransitionTime": "1970-01-01T00:00:07Z"},
            ],
            "containerStatuses": [container(3), container(5)],
        }))
        .expect("a status");
        let mut held = Briefed::new(status);
        let brief = held.brief();
        assert_eq!((brief.phase, brief.is_ready(), brief.restarts), (PodPhase::Running, true, 5));
        assert_eq!(brief.since(), Some(Wall(7_000_000)));
        let copy = held.clone();
        let changed = held.make_mut();
        changed.phase = Some("Failed".to_owned());
        changed.conditions.as_mut().expect("conditions")[1].status = "False".to_owned();
        assert_eq!((held.brief().phase, held.brief().readiness), (PodPhase::Failed, PodReadiness::Not));
        assert_eq!(copy.brief(), brief, "a copy that was made before is as it was");
        let none = Briefed::new(PodStatus::default()).brief();
        assert_eq!((none.phase, none.readiness, none.since()), (PodPhase::Pending, PodReadiness::Absent, None));
        assert_eq!(size_of::<Briefed<PodStatus>>(), 24);
    }
}
