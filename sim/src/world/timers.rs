//! When each process must be woken, and read-ahead for the next wake-ups and for messages in flight.
//!
//! In a large idle cluster, most events are wake-ups of agents for their heartbeats, thousands of them in turn. Each
//! process has one wake-up. When it changes, the old key stays in the queue and becomes stale. The next wake-ups are
//! known from their pages, so that the memory they will touch can be read ahead together.

use skeg_core::agent::NodeAgent;
use skeg_core::api::{FromServer, ReqId, WatchEvent};
use skeg_core::apiserver;
use skeg_core::object::ObjectKey;
use skeg_core::read_ahead::{Step, touch};

use super::World;
use crate::calendar_queue::{CalendarQueue, Key, NEVER, key, moment, unowned, whose};
use crate::ids::{Id, ProcessId, Table};
use crate::process::Running;

/// Wake-ups are on pages of 2^24 ns (17 ms); a thousand pages reach beyond the next heartbeat.
const PAGE: u32 = 24;
const PAGES: usize = 16;
/// How many pages are read ahead together, and how many wake-ups at a time.
const TOGETHER: u64 = 4;
const AHEAD: usize = 32;
/// An API server that pushes this many messages at once is most likely sending bookmarks.
pub(super) const MANY: usize = 8;
/// The data of smaller clusters stays in the processor's cache anyway.
const LARGE: usize = 400;

/// The process that a key belongs to.
#[inline(always)]
fn owner(key: Key) -> ProcessId {
    ProcessId::new(whose(key))
}

/// Wake-ups by virtual time in nanoseconds, at most one for each process.
#[derive(Debug)]
pub(super) struct Timers {
    pages: CalendarQueue,
    /// The current key of each process's wake-up.
    keys: Table<ProcessId, Key>,
    /// The earliest key, while it is known.
    first: Option<Key>,
    /// The last page that was read ahead.
    read: u64,
    seed: u64,
    drawn: u64,
}

impl Timers {
    pub(super) fn new(seed: u64, processes: usize) -> Timers {
        Timers {
            pages: CalendarQueue::new(PAGE, PAGES),
            keys: vec![NEVER; processes].into_iter().collect(),
            first: None,
            read: 0,
            seed,
            drawn: 0,
        }
    }

    /// Sets a process's wake-up, replacing an earlier one.
    #[inline(never)]
    pub(super) fn set(&mut self, at: u64, process: ProcessId) {
        self.drawn += 1;
        let key = key(at, self.seed, self.drawn, process.number());
        self.forget(process);
        self.keys[process] = key;
        self.first = self.first.map(|first| first.min(key));
        self.pages.add(key);
    }

    /// Removes a process's wake-up if it has one.
    pub(super) fn clear(&mut self, process: ProcessId) {
        self.forget(process);
        self.keys[process] = NEVER;
    }

    /// Invalidates the cached first key if it belongs to this process, whose wake-up is about to change.
    #[inline]
    fn forget(&mut self, process: ProcessId) {
        self.first = self.first.filter(|first| owner(*first) != process);
    }

    /// The key of the next wake-up, without its owner.
    #[inline(always)]
    pub(super) fn next(&mut self) -> Key {
        let first = match self.first {
            Some(first) => first,
            None => self.find_first(),
        };
        unowned(first)
    }

    /// The first key that is not stale. A key can become stale after it was set on a page that is already open.
    #[inline(always)]
    fn first_set(&mut self) -> Option<Key> {
        self.pages.first_of(u64::MAX, |key| self.keys[owner(key)] == key)
    }

    #[inline(always)]
    fn find_first(&mut self) -> Key {
        let mut first = self.first_set();
        while let Some(key) = first.filter(|key| self.keys[owner(*key)] != *key) {
            assert_eq!(self.pages.take_first(), Some(key), "what is first is taken first");
            first = self.first_set();
        }
        let first = first.unwrap_or(NEVER);
        self.first = Some(first);
        first
    }

    /// Removes the wake-up that `next` returned; returns its time and its process.
    #[inline(always)]
    pub(super) fn pop(&mut self) -> Option<(u64, ProcessId)> {
        // If it was set while there was no other, its page has not been opened yet.
        self.first_set()?;
        let key = self.pages.take_first()?;
        let first = self.first.take();
        assert_eq!(first, Some(key), "the first has been found, and stands first");
        self.keys[owner(key)] = NEVER;
        Some((moment(key), owner(key)))
    }

    /// Whether time has reached pages that were not read ahead.
    fn is_ahead(&self) -> bool {
        self.pages.number() > self.read
    }

    /// The processes that are woken within the next pages.
    fn take_ahead(&mut self) -> Vec<ProcessId> {
        self.read = self.pages.number() + TOGETHER - 1;
        let mut processes = Vec::with_capacity(2 * AHEAD);
        self.pages.ahead(TOGETHER).for_each(|key| {
            if self.keys[owner(key)] == key {
                processes.push(owner(key));
            }
        });
        processes
    }
}

impl World {
    /// Reads ahead for the next wake-ups, once those of the last read-ahead have passed.
    #[inline]
    pub(super) fn read_ahead(&mut self) {
        if self.timers.is_ahead() {
            let soon = self.timers.take_ahead();
            if self.nodes.len() >= LARGE {
                soon.chunks(AHEAD).for_each(|soon| self.read_for(soon));
            }
        }
    }

    /// The agent in a process; `None` if it is not an agent or the cluster is too small for read-ahead to help.
    #[inline]
    fn far_agent(&self, process: ProcessId) -> Option<&NodeAgent> {
        match &self.processes[process].running {
            Some(Running::Agent(agent)) if self.nodes.len() >= LARGE => Some(agent),
            _ => None,
        }
    }

    /// Reads ahead the memory that a message to an agent will touch.
    #[inline]
    pub(super) fn read_for_news(&self, process: ProcessId) {
        if let Some(agent) = self.far_agent(process) {
            agent.read_ahead_news();
        }
    }

    /// Reads ahead the memory that an API server's bookmarks will touch: it sends them to many agents at once.
    pub(super) fn read_for_bookmarks(&self) {
        let mut told: Vec<(&NodeAgent, ReqId)> = Vec::new();
        for said in self.scratch.api.chunks(AHEAD) {
            let processes = said.iter().filter_map(|said| match said {
                apiserver::Out::Client(conn, FromServer::Watch(id, WatchEvent::Bookmark { .. })) => {
                    Some((self.conns[conn.0 as usize].client, *id))
                }
                _ => None,
            });
            processes.clone().for_each(|(process, _)| touch(&self.processes[process].life));
            told.extend(processes.filter_map(|(process, id)| Some((self.far_agent(process)?, id))));
            for step in Step::ALL {
                told.iter().for_each(|(agent, id)| agent.read_ahead_bookmark(*id, step));
            }
            told.clear();
        }
    }

    fn read_for(&self, processes: &[ProcessId]) {
        // Each step is done for all processes before the next, because each step's addresses come from the one before.
        let soon = || processes.iter().map(|process| &self.processes[*process]);
        soon().for_each(|process| touch(&process.life));
        let mut agents: Vec<&NodeAgent> = Vec::with_capacity(processes.len());
        soon().for_each(|process| {
            if let Some(Running::Agent(agent)) = &process.running {
                agents.push(agent);
            }
        });
        for step in Step::ALL {
            agents.iter().for_each(|agent| agent.read_ahead(step));
        }
        let mut leases: Vec<&ObjectKey> = Vec::with_capacity(agents.len());
        leases.extend(agents.iter().filter_map(|agent| agent.lease_key()));
        leases.iter().for_each(|key| key.read_ahead());
        for step in Step::ALL {
            self.store.read_ahead(&leases, step);
            for process in self.processes.iter().take(self.control) {
                match &process.running {
                    Some(Running::Api(api)) => api.read_ahead(&leases, step),
                    Some(Running::Manager(manager)) => manager.read_ahead(&leases, step),
                    Some(
                        Running::Scheduler(_)
                        | Running::User(_)
                        | Running::Agent(_)
                        | Running::Proxy(_)
                        | Running::Dns(_),
                    )
                    | None => {}
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{NEVER, Timers, moment};
    use crate::ids::{Id, ProcessId, Table};
    use skeg_core::Rng;

    #[test]
    fn whatever_is_set_cleared_and_taken_ahead_the_earliest_is_next() {
        [500, 1 << 26, 1 << 34, 1 << 40].into_iter().for_each(earliest_is_next);
    }

    /// Sets wake-ups at most `spread` after the last one that was popped.
    fn earliest_is_next(spread: u64) {
        let (mut timers, mut rng) = (Timers::new(3, 60), Rng::from_seed(3));
        let (mut waiting, mut now): (Table<ProcessId, _>, _) = ([None; 60].into_iter().collect(), 0);
        for _ in 0..30_000 {
            let process = ProcessId::new(rng.below(60) as u32);
            match rng.below(8) {
                0..5 => {
                    let at = now + rng.below(spread);
                    waiting[process] = Some(at);
                    timers.set(at, process);
                }
                5 => {
                    waiting[process] = None;
                    timers.clear(process);
                }
                _ => {
                    let least = waiting.iter().flatten().min().copied();
                    assert_eq!(moment(timers.next()), least.unwrap_or(u64::MAX));
                    if let Some(at) = least {
                        let (woken_at, process) = timers.pop().expect("there is a next one");
                        assert_eq!((woken_at, waiting[process].take()), (at, Some(at)));
                        now = at;
                    }
                }
            }
            if timers.is_ahead() && rng.chance(1, 4) {
                timers.next();
                for process in timers.take_ahead() {
                    assert!(waiting[process].is_some(), "{process} will be woken");
                }
            }
        }
    }

    #[test]
    fn the_seed_breaks_ties() {
        let order = |seed| {
            let mut timers = Timers::new(seed, 8);
            (0..8).for_each(|process| timers.set(5, ProcessId::new(process)));
            let next = || if timers.next() == NEVER { None } else { timers.pop().map(|(_, process)| process) };
            std::iter::from_fn(next).collect::<Vec<_>>()
        };
        assert_eq!(order(1), order(1));
        assert!((2..20).any(|seed| order(seed) != order(1)));
    }
}
