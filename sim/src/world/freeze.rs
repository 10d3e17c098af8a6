//! Frozen machines: their processes do not run and hear nothing. What arrives for them waits, and is carried out in
//! order as soon as they go on.

use std::collections::{BTreeMap, VecDeque};

use super::{Event, Next, STORE_HOST, World};
use crate::fault::FaultId;
use crate::net::HostId;

/// The frozen machines and what waits for them. Events stay in their slots of the event queue.
#[derive(Debug, Default)]
pub(super) struct Freezer {
    frozen: BTreeMap<HostId, Frozen>,
    /// The events that waited for machines which have gone on.
    due: VecDeque<u32>,
}

#[derive(Debug, Default)]
struct Frozen {
    by: Vec<FaultId>,
    waiting: VecDeque<u32>,
}

impl Freezer {
    /// The next event that waited for a machine which has gone on.
    #[inline(always)]
    pub(super) fn pop_due(&mut self) -> Option<Next> {
        self.due.pop_front().map(Next::Queued)
    }
}

impl World {
    /// Freezes a machine until the fault is healed.
    pub(crate) fn freeze(&mut self, host: HostId, by: FaultId) {
        self.freezer.frozen.entry(host).or_default().by.push(by);
    }

    /// Lets the machines go on that only this fault has frozen.
    pub(crate) fn thaw(&mut self, by: FaultId) {
        let thawed = self.freezer.frozen.extract_if(.., |_, frozen| {
            frozen.by.retain(|id| *id != by);
            frozen.by.is_empty()
        });
        let thawed: Vec<(HostId, Frozen)> = thawed.collect();
        for (host, frozen) in thawed {
            self.freezer.due.extend(frozen.waiting);
            let woken: Vec<_> = self.processes.ids().filter(|p| self.processes[*p].host == host).collect();
            woken.into_iter().for_each(|process| self.rearm(process));
        }
    }

    /// Whether the machine that something happens on is frozen. If so, an event waits until it goes on; a wake-up is
    /// dropped, since every process of the machine is woken by then.
    #[inline(always)]
    pub(super) fn holds(&mut self, next: Next) -> bool {
        !self.freezer.frozen.is_empty() && self.holds_on_frozen(next)
    }

    #[cold]
    fn holds_on_frozen(&mut self, next: Next) -> bool {
        let host = match next {
            Next::Wake(process) => Some(self.processes[process].host),
            Next::Queued(slot) => self.host_of(self.event_queue.peek(slot)),
        };
        let Some(frozen) = host.and_then(|host| self.freezer.frozen.get_mut(&host)) else { return false };
        match next {
            Next::Wake(process) => self.processes[process].armed = u64::MAX,
            Next::Queued(slot) => frozen.waiting.push_back(slot),
        }
        true
    }

    /// The machine that an event happens on; `None` for steps of the timeline.
    fn host_of(&self, event: &Event) -> Option<HostId> {
        match event {
            Event::ToApi { process, .. }
            | Event::ToClient { process, .. }
            | Event::Closed { process, .. }
            | Event::FromStore { process, .. }
            | Event::Extender { process, .. }
            | Event::Restart { process } => Some(self.processes[*process].host),
            Event::Runtime { node, .. } => Some(self.nodes[*node].host),
            Event::ToStore { .. } | Event::StoreWake => Some(STORE_HOST),
            Event::Step(_) | Event::Mend(_) => None,
        }
    }
}
