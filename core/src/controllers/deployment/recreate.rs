//! The Recreate strategy: all old pods must be gone before new ones are created.

use super::{Sync, size, wanted};

impl Sync<'_> {
    pub(super) fn recreate(&mut self) {
        if self.sync_revision(false) {
            self.sync_status();
            return;
        }
        let mut scaled_down = false;
        for rs in self.old().filter(|rs| size(rs) > 0).collect::<Vec<_>>() {
            scaled_down |= self.scale_to(rs, 0);
        }
        if scaled_down || self.old_pods_running() {
            self.sync_status();
            return;
        }
        if !self.sync_revision(true) {
            if let Some(new) = self.new_rs() {
                self.scale_to(new, wanted(self.d));
            }
            if self.is_complete() {
                self.clean_up();
            }
        }
        self.sync_status();
    }
}
