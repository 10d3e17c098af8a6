//! Numbers of a Deployment: resolved surge and unavailability, and proportional scaling.

use k8s_openapi::api::apps::v1 as apps_v1;

use super::{Sync, available, is_rolling, size, wanted};
use crate::object::{Deployment, IntOrString, ReplicaSet, scaled};

fn rolling_update(d: &Deployment) -> Option<&apps_v1::RollingUpdateDeployment> {
    d.spec.strategy.as_ref().and_then(|s| s.rolling_update.as_ref())
}

/// `maxSurge` and `maxUnavailable` as numbers of pods, as in `ResolveFenceposts`: surge rounds up, unavailability
/// rounds down, and if both are zero, one pod may be unavailable.
pub(super) fn fenceposts(d: &Deployment) -> (i32, i32) {
    if !is_rolling(d) {
        return (0, 0);
    }
    let quarter = IntOrString::String("25%".to_owned());
    let given = rolling_update(d);
    let surge = given.and_then(|r| r.max_surge.as_ref()).unwrap_or(&quarter);
    let unavailable = given.and_then(|r| r.max_unavailable.as_ref()).unwrap_or(&quarter);
    let surge = scaled(surge, wanted(d), true).unwrap_or(0).max(0);
    let unavailable = scaled(unavailable, wanted(d), false).unwrap_or(0).max(0);
    (surge, if surge == 0 && unavailable == 0 { 1 } else { unavailable })
}

/// How many pods above `spec.replicas` a rollout may run.
pub(super) fn max_surge(d: &Deployment) -> i32 {
    fenceposts(d).0
}

/// How many pods below `spec.replicas` a rollout may leave unavailable.
pub(crate) fn max_unavailable(d: &Deployment) -> i32 {
    fenceposts(d).1.min(wanted(d))
}

/// Size that the newest ReplicaSet may have now (`NewRSNewReplicas`).
pub(super) fn new_size(d: &Deployment, total: i32, current: i32) -> i32 {
    if !is_rolling(d) {
        return wanted(d);
    }
    let room = wanted(d) + max_surge(d) - total;
    if room <= 0 { current } else { current + room.min(wanted(d) - current) }
}

/// Share of the change for a ReplicaSet with `size` replicas (`GetReplicaSetFraction`), rounded to nearest.
fn share(size: i32, wanted: i32, surge: i32, max_noted: i32) -> i32 {
    if wanted == 0 {
        return -size;
    }
    let (size, total, noted) = (i64::from(size), i64::from(wanted + surge), i64::from(max_noted.max(1)));
    // round(size * total / noted) with halves away from zero, in integers.
    let new = (2 * size * total + noted).div_euclid(2 * noted);
    (new - size) as i32
}

impl<'a> Sync<'a> {
    /// Handles a change of `spec.replicas` without rolling out a new template.
    pub(super) fn scale(&mut self) {
        let active: Vec<&'a ReplicaSet> = self.all.iter().copied().filter(|rs| size(rs) > 0).collect();
        let single = match active.len() {
            0 => self.new_rs().or_else(|| self.old().last()),
            1 => Some(active[0]),
            _ => None,
        };
        if let Some(rs) = single {
            self.scale_to(rs, wanted(self.d));
            return;
        }
        if let Some(new) = self.new_rs().filter(|rs| size(rs) == wanted(self.d) && available(rs) == wanted(self.d)) {
            let noted = self.scale_to(new, wanted(self.d));
            debug_assert!(!noted, "a saturated ReplicaSet keeps its size");
            for rs in self.old().filter(|rs| size(rs) > 0).collect::<Vec<_>>() {
                self.scale_to(rs, 0);
            }
            return;
        }
        if is_rolling(self.d) {
            self.scale_in_proportion(active);
        }
    }

    fn scale_in_proportion(&mut self, mut active: Vec<&'a ReplicaSet>) {
        let (wanted, surge) = (wanted(self.d), max_surge(self.d));
        let total: i32 = active.iter().map(|rs| size(rs)).sum();
        let allowed = if wanted > 0 { wanted + surge } else { 0 };
        let to_add = allowed - total;
        // Larger ReplicaSets first; among equal ones, the newer first when scaling up and the older first when scaling
        // down.
        active.sort_by_key(|rs| std::cmp::Reverse(size(rs)));
        if to_add > 0 {
            active.sort_by(|a, b| {
                size(b).cmp(&size(a)).then_with(|| b.meta.creation_timestamp.cmp(&a.meta.creation_timestamp))
            });
        }
        let mut added = 0;
        let mut sizes = Vec::new();
        for rs in &active {
            let mut portion = 0;
            if to_add != 0 && size(rs) != 0 {
                let noted = rs.meta.annotations.as_ref().and_then(|a| a.get(super::MAX_REPLICAS)?.parse().ok());
                let fraction =
                    share(size(rs), wanted, surge, noted.unwrap_or_else(|| self.d.status.replicas.unwrap_or(0)));
                let left = to_add - added;
                portion = if to_add > 0 { fraction.min(left) } else { fraction.max(left) };
            }
            added += portion;
            sizes.push(size(rs) + portion);
        }
        let leftover = to_add - added;
        if let Some(first) = sizes.first_mut() {
            *first = (*first + leftover).max(0);
        }
        for (rs, size) in active.into_iter().zip(sizes) {
            self.scale_to(rs, size);
        }
    }
}
