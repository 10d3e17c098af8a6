//! `available-floor`: a Deployment's controller never scales its ReplicaSets down below `replicas - maxUnavailable`,
//! neither in replicas nor in available pods. `recreate-waits`: with the strategy `Recreate`, no pod of one ReplicaSet
//! is created while pods of another one run.
//!
//! The controller counts available pods in its view. So a pod counts as available if it is ready or was ready within
//! `LAG`, and a ReplicaSet has at most as many available pods as replicas, because it deletes the others first. A pod
//! that has only just been created may not be in the view yet, and does not count as running. A Deployment that is
//! paused does not roll out: its newest ReplicaSet is scaled to its size once it alone has replicas, whatever still
//! runs.

use std::collections::{BTreeMap, VecDeque};

use skeg_core::object::{
    Deployment, IntOrString, Kind, Object, ObjectKey, OwnerReference, Pod, ReplicaSet, controller_of, scaled,
};

use super::reading::{is_active, is_ready, is_terminal};
use super::{Commit, Invariant, Report};

/// How long, in seconds, a pod that is no longer ready may count as available: the longest that a view may lag, and
/// that the controllers may be without a leader.
const LAG: f64 = 300.0;
/// How long, in seconds, it may take a view to show a pod that was created, while nothing is wrong with its watch.
const SHOWN_AFTER: f64 = 10.0;
const DESIRED_REPLICAS: &str = "deployment.kubernetes.io/desired-replicas";

/// The pods of one ReplicaSet.
#[derive(Debug, Default)]
struct Pods {
    ready: i32,
    /// When pods became ready.
    gained: VecDeque<f64>,
    /// When pods ceased to be ready.
    lost: VecDeque<f64>,
    /// Pods that have not terminated, by UID, with the time of creation.
    running: BTreeMap<String, f64>,
}

impl Pods {
    /// How many pods are ready or were so lately.
    fn available(&mut self, at: f64) -> i32 {
        while self.lost.front().is_some_and(|lost| at - lost > LAG) {
            self.lost.pop_front();
        }
        self.ready + i32::try_from(self.lost.len()).unwrap_or(i32::MAX)
    }

    /// How many pods have been ready for this many seconds, and so may count as available.
    fn settled(&mut self, at: f64, least: f64) -> i32 {
        while self.gained.front().is_some_and(|gained| at - gained > least) {
            self.gained.pop_front();
        }
        (self.ready - i32::try_from(self.gained.len()).unwrap_or(i32::MAX)).max(0)
    }
}

/// The sizes of each Deployment's ReplicaSets, by Deployment UID, then by ReplicaSet UID; the pods by ReplicaSet UID.
#[derive(Debug, Default)]
pub(super) struct Floor {
    sizes: BTreeMap<String, BTreeMap<String, i32>>,
    pods: BTreeMap<String, Pods>,
}

fn deployment_of(set: &ReplicaSet) -> Option<&OwnerReference> {
    controller_of(&set.meta).filter(|o| o.kind == "Deployment")
}

fn deployment<'a>(commit: &Commit<'a>, set: &ReplicaSet) -> Option<&'a Deployment> {
    let owner = deployment_of(set)?;
    match commit.store.object(&ObjectKey::new(Kind::DEPLOYMENT, set.namespace(), &owner.name))? {
        Object::Deployment(d) if d.uid() == owner.uid => Some(d),
        _ => None,
    }
}

impl Floor {
    pub fn set(&mut self, commit: &Commit<'_>, report: &mut Report) {
        let Some(Object::ReplicaSet(set)) = commit.new.or(commit.old) else { return };
        let Some(owner) = deployment_of(set) else { return };
        let sizes = self.sizes.entry(owner.uid.clone()).or_default();
        if commit.new.is_none() {
            sizes.remove(set.uid());
            self.pods.remove(set.uid());
            return;
        }
        let size = set.spec.replicas.unwrap_or(1);
        let Some(before) = sizes.insert(set.uid().to_owned(), size).filter(|before| *before > size) else { return };
        let total: i32 = sizes.values().sum();
        let Some((d, floor)) = deployment(commit, set).and_then(|d| Some((d, floor(d, set)?))) else { return };
        let (key, name) = (d.key(), set.name());
        if total < floor {
            let what = format!("{key} has {total} replicas in all, the floor is {floor}, since {name} has {size}");
            report.broken(Invariant::AvailableFloor, commit.at, what);
        }
        // A change of `spec.replicas` is spread over all ReplicaSets, whatever is available.
        let rescaled = matches!(commit.old, Some(Object::ReplicaSet(old)) if noted(old) != noted(set));
        let mut available = 0;
        for (uid, size) in sizes.iter().filter(|(uid, _)| *uid != set.uid()) {
            available += self.pods.get_mut(uid).map_or(0, |pods| pods.available(commit.at)).min(*size);
        }
        // With `minReadySeconds`, a pod that is ready is available only later, and a view shows it later still.
        let least = d.spec.min_ready_seconds.filter(|s| *s > 0).map_or(0.0, |s| f64::from(s) + SHOWN_AFTER);
        let pods = self.pods.get_mut(set.uid());
        let own = pods.map_or((0, 0), |pods| (pods.settled(commit.at, least), pods.available(commit.at)));
        // Where no available pod has to go, only pods that are not available are given up.
        let spares = own.0.min(before) == own.0.min(size);
        let keeps = available + own.1.min(size);
        if keeps < floor && !spares && !rescaled {
            let what =
                format!("{key} keeps {keeps} available pods, the floor is {floor}, since {name} has {size} replicas");
            report.broken(Invariant::AvailableFloor, commit.at, what);
        }
    }

    pub fn pod(&mut self, commit: &Commit<'_>, report: &mut Report) {
        let counts = |pod: Option<&Pod>| pod.is_some_and(|p| is_active(p) && is_ready(p));
        let runs = |pod: Option<&Pod>| pod.is_some_and(|p| !is_terminal(p));
        let (old, new) = (commit.old_pod(), commit.new_pod());
        if (counts(old), runs(old)) == (counts(new), runs(new)) {
            return;
        }
        let Some(pod) = new.or(old) else { return };
        let Some(owner) = controller_of(&pod.meta).filter(|o| o.kind == "ReplicaSet") else { return };
        let pods = self.pods.entry(owner.uid.clone()).or_default();
        match (counts(old), counts(new)) {
            (false, true) => {
                pods.ready += 1;
                pods.gained.push_back(commit.at);
            }
            (true, false) => {
                pods.ready -= 1;
                pods.lost.push_back(commit.at);
            }
            (false, false) | (true, true) => {}
        }
        if !runs(new) {
            pods.running.remove(pod.uid());
        } else if !runs(old) {
            pods.running.insert(pod.uid().to_owned(), commit.at);
            self.created(commit, pod, owner, report);
        }
    }

    /// Checks `recreate-waits`.
    fn created(&self, commit: &Commit<'_>, pod: &Pod, owner: &OwnerReference, report: &mut Report) {
        let set = commit.store.object(&ObjectKey::new(Kind::REPLICA_SET, pod.namespace(), &owner.name));
        let Some(Object::ReplicaSet(set)) = set.filter(|set| set.uid() == owner.uid) else { return };
        let Some(d) = deployment(commit, set) else { return };
        let recreates = d.spec.strategy.as_ref().is_some_and(|s| s.type_.as_deref() == Some("Recreate"));
        if !recreates || set.spec.replicas == Some(0) || d.spec.paused == Some(true) {
            return;
        }
        let others = self.sizes.get(d.uid()).into_iter().flat_map(BTreeMap::keys).filter(|uid| *uid != set.uid());
        let old = others.filter_map(|uid| self.pods.get(uid)).flat_map(|pods| pods.running.values());
        let count = old.filter(|created| commit.at - **created > SHOWN_AFTER).count();
        if count > 0 {
            let what = format!("{} is created while {count} pods of older ReplicaSets of {} run", pod.key(), d.key());
            report.broken(Invariant::RecreateWaits, commit.at, what);
        }
    }
}

fn noted(set: &ReplicaSet) -> Option<i32> {
    set.meta.annotations.as_ref()?.get(DESIRED_REPLICAS)?.parse().ok()
}

/// The minimum that the Deployment's total size must keep when this ReplicaSet is scaled down, computed from the
/// `desired-replicas` annotation that the controller writes with each scaling. `None` if the floor does not apply: the
/// strategy is not `RollingUpdate`, or the Deployment has been scaled since.
fn floor(d: &Deployment, set: &ReplicaSet) -> Option<i32> {
    let strategy = d.spec.strategy.as_ref();
    if strategy.and_then(|s| s.type_.as_deref()).unwrap_or("RollingUpdate") != "RollingUpdate" {
        return None;
    }
    let noted = noted(set)?;
    if noted != d.spec.replicas.unwrap_or(1) {
        return None;
    }
    let quarter = IntOrString::String("25%".to_owned());
    let rolling = strategy.and_then(|s| s.rolling_update.as_ref());
    let unavailable = rolling.and_then(|r| r.max_unavailable.as_ref()).unwrap_or(&quarter);
    let surge = rolling.and_then(|r| r.max_surge.as_ref()).unwrap_or(&quarter);
    let unavailable = scaled(unavailable, noted, false)?;
    let surge = scaled(surge, noted, true)?;
    Some(noted - if unavailable == 0 && surge == 0 { 1 } else { unavailable })
}
