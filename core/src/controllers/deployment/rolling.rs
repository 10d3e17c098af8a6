//! The RollingUpdate strategy: scales up the new ReplicaSet within `maxSurge` and scales down the old ones within
//! `maxUnavailable`.

use super::{Sync, available, scaling, size, wanted};

impl Sync<'_> {
    pub(super) fn rolling(&mut self) {
        if self.sync_revision(true) {
            // The new ReplicaSet was created or annotated; the view must show that first.
            self.sync_status();
            return;
        }
        if !self.grow_new() {
            self.shrink_old();
        }
        if self.is_complete() {
            self.clean_up();
        }
        self.sync_status();
    }

    fn grow_new(&mut self) -> bool {
        let Some(new) = self.new_rs() else { return false };
        let wanted = wanted(self.d);
        if size(new) > wanted {
            return self.scale_to(new, wanted);
        }
        let total = self.all.iter().map(|rs| size(rs)).sum();
        let target = scaling::new_size(self.d, total, size(new));
        self.scale_to(new, target)
    }

    /// Scales down old ReplicaSets: first by their unhealthy replicas, then as far as the number of available pods
    /// allows.
    fn shrink_old(&mut self) {
        let Some(new) = self.new_rs() else { return };
        let old: Vec<_> = self.old().filter(|rs| size(rs) > 0).collect();
        if old.is_empty() {
            return;
        }
        let least = wanted(self.d) - scaling::max_unavailable(self.d);
        let total: i32 = self.all.iter().map(|rs| size(rs)).sum();
        let new_unavailable = size(new) - available(new);
        let most = total - least - new_unavailable;
        if most <= 0 {
            return;
        }
        let mut sizes: Vec<i32> = old.iter().map(|rs| size(rs)).collect();
        let mut cleaned = 0;
        for (rs, target) in old.iter().zip(&mut sizes) {
            let unhealthy = (size(rs) - available(rs)).min(most - cleaned).max(0);
            *target -= unhealthy;
            cleaned += unhealthy;
        }
        let all_available: i32 = self.all.iter().map(|rs| available(rs)).sum();
        let mut spare = (all_available - least).max(0).min(most - cleaned);
        for target in &mut sizes {
            let down = spare.min(*target);
            *target -= down;
            spare -= down;
        }
        for (rs, target) in old.into_iter().zip(sizes) {
            if target != size(rs) {
                self.scale_to(rs, target);
            }
        }
    }
}
