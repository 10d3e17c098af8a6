//! `one-leader`: at most one candidate acts as leader of a role at a time. Whenever a candidate becomes leader, the
//! world asks all candidates of that role, each by its own clock, whether they lead.

use std::collections::BTreeMap;

use crate::ids::ProcessId;

/// Whether each process led its role when last asked.
#[derive(Debug, Default)]
pub struct Leaders(BTreeMap<(&'static str, ProcessId), bool>);

impl Leaders {
    /// Records whether a process leads its role. Returns true if it has just become leader.
    pub fn leads(&mut self, role: &'static str, process: ProcessId, leads: bool) -> bool {
        let before = self.0.insert((role, process), leads).unwrap_or(false);
        leads && !before
    }
}
