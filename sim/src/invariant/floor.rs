//! `available-floor`: a Deployment's controller never scales the sum of its ReplicaSets below `replicas -
//! maxUnavailable`.

use std::collections::BTreeMap;

use skeg_core::object::{Deployment, IntOrString, Kind, Object, ObjectKey, ReplicaSet, controller_of, scaled};

use super::{Commit, Invariant, Report};

/// The sizes of each Deployment's ReplicaSets, by Deployment UID and then by ReplicaSet UID.
#[derive(Debug, Default)]
pub(super) struct Floor {
    sizes: BTreeMap<String, BTreeMap<String, i32>>,
}

impl Floor {
    pub fn set(&mut self, commit: &Commit<'_>, report: &mut Report) {
        let Some(Object::ReplicaSet(set)) = commit.new.or(commit.old) else { return };
        let Some(owner) = controller_of(&set.meta).filter(|o| o.kind == "Deployment") else { return };
        let sizes = self.sizes.entry(owner.uid.clone()).or_default();
        if commit.new.is_none() {
            sizes.remove(set.uid());
            return;
        }
        let size = set.spec.replicas.unwrap_or(1);
        let before = sizes.insert(set.uid().to_owned(), size);
        let total: i32 = sizes.values().sum();
        let key = ObjectKey::new(Kind::DEPLOYMENT, set.namespace(), &owner.name);
        if before.is_some_and(|b| b > size)
            && let Some(Object::Deployment(d)) = commit.store.object(&key)
            && let Some(floor) = floor(d, set)
            && total < floor
        {
            let what =
                format!("{key} has {total} replicas in all, the floor is {floor}, since {} has {size}", set.name());
            report.broken(Invariant::AvailableFloor, commit.at, what);
        }
    }
}

/// The minimum that the Deployment's total size must keep when this ReplicaSet is scaled down, computed from the
/// `desired-replicas` annotation that the controller writes with each scaling. `None` if the floor does not apply: the
/// strategy is not `RollingUpdate`, or the Deployment has been scaled since.
fn floor(d: &Deployment, set: &ReplicaSet) -> Option<i32> {
    let strategy = d.spec.strategy.as_ref();
    if strategy.and_then(|s| s.type_.as_deref()).unwrap_or("RollingUpdate") != "RollingUpdate" {
        return None;
    }
    let noted: i32 = set.meta.annotations.as_ref()?.get("deployment.kubernetes.io/desired-replicas")?.parse().ok()?;
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
