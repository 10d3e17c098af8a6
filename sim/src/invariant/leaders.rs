//! `one-leader`: at most one candidate acts as leader of a role. The world asks the candidates themselves, each by its
//! own clock, whenever one begins to lead.

use std::collections::BTreeMap;

use crate::ids::ProcessId;

/// Who was last seen to lead.
#[derive(Debug, Default)]
pub struct Leaders(BTreeMap<(&'static str, ProcessId), bool>);

impl Leaders {
    /// Notes whether a process leads its role; true if it has just begun to.
    pub fn leads(&mut self, role: &'static str, process: ProcessId, leads: bool) -> bool {
        let before = self.0.insert((role, process), leads).unwrap_or(false);
        leads && !before
    }
}
