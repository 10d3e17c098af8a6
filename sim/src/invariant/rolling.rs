//! `members-roll-in-turn`: a StatefulSet's controller deletes the members that it is to have only in a rolling update:
//! none below the partition, and no more than `maxUnavailable` until they are ready again; of those beyond its size it
//! deletes the highest first. `daemons-roll-in-turn`: that of a DaemonSet deletes ready pods on sound nodes for a new
//! revision only, and no more than `maxUnavailable` until these nodes have a ready pod again.
//!
//! A controller knows its own writes, and a new leader waits for those of the one before. Of what others have changed
//! it may hear late: a set whose spec has changed within a view's lag is not judged.

use std::collections::{BTreeMap, BTreeSet};

use skeg_core::api::DeleteOptions;
use skeg_core::object::{
    DaemonSet, IntOrString, Kind, Object, ObjectKey, Pod, StatefulSet, controller_of, is_node_ready, scaled,
};

use super::reading::{is_active, is_ready, is_terminal};
use super::{Asked, Commit, Invariant, Report};
use crate::converge::objects;

/// How long, in seconds, a deletion may be on its way.
const ON_ITS_WAY: f64 = 5.0;
/// How long, in seconds, a daemon's pod must have been ready for its controller to know.
const SEEN_READY: f64 = 120.0;
const REVISION: &str = "controller-revision-hash";

/// What is known of a set.
#[derive(Debug, Default)]
struct Set {
    generation: Option<i64>,
    /// When its spec last changed.
    changed: f64,
    /// The pods or nodes that wait for a successor, with the time of the deletion.
    rolling: BTreeMap<String, f64>,
}

/// StatefulSets and DaemonSets by UID, and since when their pods are ready, by UID.
#[derive(Debug, Default)]
pub(super) struct Rolling {
    sets: BTreeMap<String, Set>,
    ready: BTreeMap<String, f64>,
    /// Members whose deletion was asked for, by UID.
    going: BTreeSet<String>,
}

fn label<'a>(pod: &'a Pod, key: &str) -> Option<&'a str> {
    pod.meta.labels.as_ref()?.get(key).map(String::as_str)
}

fn ordinal(pod: &Pod) -> Option<i32> {
    pod.name().rsplit('-').next()?.parse().ok()
}

fn at_least_one(value: Option<&IntOrString>, of: i32, up: bool) -> usize {
    let count = value.map_or(Some(1), |value| scaled(value, of, up)).unwrap_or(1);
    usize::try_from(count).unwrap_or(0).max(1)
}

/// The revision that a set rolls out.
fn newest_revision(asked: &Asked<'_>, uid: &str) -> Option<String> {
    let of_set = objects(asked.store, Kind::CONTROLLER_REVISION).filter_map(|object| match object {
        Object::ControllerRevision(r) if controller_of(&r.meta).is_some_and(|owner| owner.uid == uid) => Some(r),
        _ => None,
    });
    let newest = of_set.max_by_key(|revision| revision.spec.revision)?;
    newest.meta.labels.as_ref()?.get(REVISION).cloned()
}

impl Rolling {
    /// Notes that the spec of a set has changed.
    pub fn set(&mut self, at: f64, set: &Object) {
        let known = self.sets.entry(set.uid().to_owned()).or_default();
        if known.generation != set.meta().generation {
            (known.generation, known.changed) = (set.meta().generation, at);
        }
    }

    pub fn pod(&mut self, commit: &Commit<'_>) {
        let (old, new) = (commit.old_pod(), commit.new_pod());
        let Some(pod) = new.or(old) else { return };
        let counts = |pod: Option<&Pod>| pod.is_some_and(|pod| is_active(pod) && is_ready(pod));
        if new.is_none() {
            self.going.remove(pod.uid());
        }
        let Some(owner) = controller_of(&pod.meta).filter(|o| matches!(&*o.kind, "StatefulSet" | "DaemonSet")) else {
            return;
        };
        if !counts(new) {
            self.ready.remove(pod.uid());
        } else if !counts(old) {
            self.ready.insert(pod.uid().to_owned(), commit.at);
            let place = if owner.kind == "DaemonSet" { pod.spec.node.as_deref() } else { Some(pod.name()) };
            if let (Some(set), Some(place)) = (self.sets.get_mut(&owner.uid), place) {
                set.rolling.remove(place);
            }
        }
    }

    /// Checks a delete as it arrives. A view may lag by `lag` seconds.
    pub fn asked(
        &mut self,
        asked: &Asked<'_>,
        (key, options): (&ObjectKey, &DeleteOptions),
        lag: f64,
        report: &mut Report,
    ) {
        let kind = match &*asked.request.user {
            "statefulset-controller" => Kind::STATEFUL_SET,
            "daemonset-controller" => Kind::DAEMON_SET,
            _ => return,
        };
        let Some(Object::Pod(pod)) = asked.store.object(key) else { return };
        let meant = options.precondition.uid.as_deref() == Some(pod.uid()) && is_active(pod);
        let Some(owner) = controller_of(&pod.meta).filter(|_| meant) else { return };
        let set = asked.store.object(&ObjectKey::new(kind, pod.namespace(), &owner.name));
        let Some(set) = set.filter(|set| set.uid() == owner.uid && !set.is_deleting()) else { return };
        let known = self.sets.entry(owner.uid.clone()).or_default();
        let is_settled = asked.at - known.changed > lag;
        match set {
            Object::StatefulSet(set) if !is_wanted(set, pod) => {
                self.going.insert(pod.uid().to_owned());
                check_surplus(asked, set, (pod, &self.going), report);
            }
            Object::StatefulSet(set) if is_settled => known.check_member(asked, set, pod, report),
            Object::DaemonSet(set) if is_settled => {
                let since = self.ready.get(pod.uid()).copied();
                let is_known = since.is_some_and(|since| asked.at - since > SEEN_READY);
                if is_known {
                    known.check_daemon(asked, set, pod, report);
                }
            }
            _ => {}
        }
    }
}

/// Whether a set is to have this member.
fn is_wanted(set: &StatefulSet, pod: &Pod) -> bool {
    let first = set.spec.ordinals.as_ref().and_then(|o| o.start).unwrap_or(0);
    ordinal(pod).is_none_or(|ordinal| (first..first + set.spec.replicas.unwrap_or(1)).contains(&ordinal))
}

/// Checks the deletion of a member that the set is not to have.
fn check_surplus(asked: &Asked<'_>, set: &StatefulSet, (pod, going): (&Pod, &BTreeSet<String>), report: &mut Report) {
    let Some(deleted) = ordinal(pod) else { return };
    let higher = objects(asked.store, Kind::POD).find_map(|object| match object {
        Object::Pod(other) => {
            let owned = controller_of(&other.meta).is_some_and(|owner| owner.uid == set.uid());
            let stays = owned && is_active(other) && !going.contains(other.uid());
            (stays && ordinal(other).is_some_and(|other| other > deleted)).then_some(other)
        }
        _ => None,
    });
    if let Some(higher) = higher {
        let what = format!("{} is deleted before {}, and the set is to have neither", pod.key(), higher.name());
        report.broken(Invariant::MembersRollInTurn, asked.at, what);
    }
}

impl Set {
    /// Notes a deletion, and how many successors are missing by then.
    fn roll(&mut self, at: f64, place: &str, is_back: impl Fn(&str) -> bool) -> usize {
        self.rolling.retain(|place, since| at - *since <= ON_ITS_WAY || !is_back(place));
        self.rolling.insert(place.to_owned(), at);
        self.rolling.len()
    }

    fn check_member(&mut self, asked: &Asked<'_>, set: &StatefulSet, pod: &Pod, report: &mut Report) {
        let mut broken = |what: String| report.broken(Invariant::MembersRollInTurn, asked.at, what);
        let first = set.spec.ordinals.as_ref().and_then(|o| o.start).unwrap_or(0);
        let replicas = set.spec.replicas.unwrap_or(1);
        let Some(ordinal) = ordinal(pod) else { return };
        let key = pod.key();
        let strategy = set.spec.update_strategy.as_ref();
        let rolling = strategy.and_then(|s| s.rolling_update.as_ref());
        let partition = rolling.and_then(|r| r.partition).unwrap_or(0);
        if strategy.and_then(|s| s.type_.as_deref()) == Some("OnDelete") {
            broken(format!("{key} is deleted, and its set does so only when told to (OnDelete)"));
        }
        if ordinal - first < partition {
            broken(format!("{key} is deleted, and is below the partition {partition}"));
        }
        let most = at_least_one(rolling.and_then(|r| r.max_unavailable.as_ref()), replicas, false);
        let is_back = |name: &str| {
            let pod = asked.store.object(&ObjectKey::new(Kind::POD, set.namespace(), name));
            matches!(pod, Some(Object::Pod(pod)) if is_active(pod) && is_ready(pod))
        };
        let missing = self.roll(asked.at, pod.name(), is_back);
        if missing > most {
            broken(format!("{key} is the {missing}. member to be deleted and not yet replaced, at most {most} may be"));
        }
    }

    fn check_daemon(&mut self, asked: &Asked<'_>, set: &DaemonSet, pod: &Pod, report: &mut Report) {
        let Some(name) = pod.spec.node.as_deref() else { return };
        let Some(Object::Node(node)) = asked.store.object(&ObjectKey::new(Kind::NODE, "", name)) else { return };
        let is_sound = is_node_ready(node) && node.spec.taints.iter().flatten().next().is_none();
        let on_node = |other: &&Pod| {
            let owned = controller_of(&other.meta).is_some_and(|owner| owner.uid == set.uid());
            owned && other.spec.node.as_deref() == Some(name) && !is_terminal(other)
        };
        let pods = objects(asked.store, Kind::POD).filter_map(|object| match object {
            Object::Pod(pod) => Some(pod),
            _ => None,
        });
        if !is_sound || pods.filter(on_node).count() != 1 {
            return;
        }
        let mut broken = |what: String| report.broken(Invariant::DaemonsRollInTurn, asked.at, what);
        let strategy = set.spec.update_strategy.as_ref();
        if strategy.and_then(|s| s.type_.as_deref()) == Some("OnDelete") {
            broken(format!("{} is deleted, and its set does so only when told to (OnDelete)", pod.key()));
        }
        if newest_revision(asked, set.uid()).as_deref() == label(pod, REVISION) {
            return;
        }
        let most = strategy.and_then(|s| s.rolling_update.as_ref()?.max_unavailable.as_ref());
        let most = at_least_one(most, set.status.desired_number_scheduled, true);
        let is_back = |place: &str| {
            objects(asked.store, Kind::POD).any(|object| match object {
                Object::Pod(pod) => {
                    let owned = controller_of(&pod.meta).is_some_and(|owner| owner.uid == set.uid());
                    owned && pod.spec.node.as_deref() == Some(place) && is_active(pod) && is_ready(pod)
                }
                _ => false,
            })
        };
        let missing = self.roll(asked.at, name, is_back);
        if missing > most {
            let key = pod.key();
            broken(format!("{key} is the {missing}. pod to be deleted and not yet replaced, at most {most} may be"));
        }
    }
}
