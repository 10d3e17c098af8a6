//! Incrementally updated counts of a set's pods, so that a change of one pod costs the same in a set of ten thousand as
//! in a set of ten.

use std::ops::{AddAssign, SubAssign};
use std::rc::Rc;

use k8s_openapi::api::core::v1 as core_v1;

use super::set::Set;
use crate::client::Views;
use crate::object::{Labels, Object, Pod, Selector, controller_of, is_pod_ready, is_pod_terminal};

/// Pod counts of a set.
#[derive(Clone, Copy, Default, PartialEq, Debug)]
pub(super) struct Counts {
    /// Pods that are neither terminated nor terminating.
    pub replicas: i32,
    /// Of those, how many have all labels of the template.
    pub labeled: i32,
    /// Of those, how many are ready.
    pub ready: i32,
    /// Of those in `replicas`, how many the selector no longer matches.
    pub strangers: i32,
    /// Pods that are terminating but not terminated.
    pub terminating: i32,
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Counts) {
        self.replicas += other.replicas;
        self.labeled += other.labeled;
        self.ready += other.ready;
        self.strangers += other.strangers;
        self.terminating += other.terminating;
    }
}

impl SubAssign for Counts {
    fn sub_assign(&mut self, other: Counts) {
        self.replicas -= other.replicas;
        self.labeled -= other.labeled;
        self.ready -= other.ready;
        self.strangers -= other.strangers;
        self.terminating -= other.terminating;
    }
}

/// The counts of one set, and the parts of the set that they depend on.
#[derive(Debug)]
pub(super) struct Tally {
    uid: String,
    selector: Selector,
    labels: Option<Labels>,
    counts: Counts,
}

/// Whether two states of a pod certainly count the same in any set; most changes of a pod affect no count.
pub(super) fn weigh_the_same(old: &Pod, new: &Pod) -> bool {
    Rc::ptr_eq(&old.meta, &new.meta)
        && is_pod_terminal(old) == is_pod_terminal(new)
        && is_pod_ready(old) == is_pod_ready(new)
}

impl Tally {
    /// Counts all pods of a set.
    pub(super) fn of(object: &Object, set: &Set<'_>, views: &Views) -> Tally {
        let labels = set.template_meta.and_then(|m| m.labels.clone());
        let counts = Counts::default();
        let mut tally = Tally { uid: object.uid().to_owned(), selector: set.selector.clone(), labels, counts };
        for pod in views.controlled_by::<core_v1::Pod>(object.uid()) {
            tally.counts += tally.weigh(pod);
        }
        tally
    }

    /// Whether the tally is still valid for this version of the set.
    pub(super) fn fits(&self, object: &Object, set: &Set<'_>) -> bool {
        self.uid == object.uid()
            && self.selector == set.selector
            && self.labels.as_ref() == set.template_meta.and_then(|m| m.labels.as_ref())
    }

    /// Applies a change of a pod.
    pub(super) fn changed(&mut self, old: Option<&Pod>, new: Option<&Pod>) {
        let own = |pod: &&Pod| controller_of(&pod.meta).is_some_and(|owner| owner.uid == self.uid);
        let (old, new) = (old.filter(own).map(|p| self.weigh(p)), new.filter(own).map(|p| self.weigh(p)));
        self.counts -= old.unwrap_or_default();
        self.counts += new.unwrap_or_default();
    }

    pub(super) fn counts(&self) -> Counts {
        self.counts
    }

    /// What one pod adds to the counts.
    fn weigh(&self, pod: &Pod) -> Counts {
        if is_pod_terminal(pod) {
            return Counts::default();
        }
        if pod.meta.deletion_timestamp.is_some() {
            return Counts { terminating: 1, ..Counts::default() };
        }
        let labels = pod.meta.labels.as_ref();
        let has = |(k, v): (&String, &String)| labels.and_then(|l| l.get(k)) == Some(v);
        Counts {
            replicas: 1,
            labeled: i32::from(self.labels.iter().flatten().all(has)),
            ready: i32::from(is_pod_ready(pod)),
            strangers: i32::from(!self.selector.matches(labels)),
            terminating: 0,
        }
    }
}
