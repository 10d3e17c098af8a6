//! When each process is to be woken, and what the next few wake-ups, and news on their way, will touch.
//!
//! Most of what happens in a large cluster at rest is that agents wake and beat, thousands of them in turn. Each
//! process has one wake-up, which moves when its deadline does: its old key stays behind, and is nobody's from then on.
//! The next few are known by their pages, so that what they will touch can be read together.

use skeg_core::agent::NodeAgent;
use skeg_core::api::{FromServer, ReqId, WatchEvent};
use skeg_core::apiserver;
use skeg_core::object::ObjectKey;
use skeg_core::read_ahead::{Step, touch};

use super::World;
use crate::calendar_queue::{CalendarQueue, Key, NEVER, key, moment, unowned, whose};
use crate::process::Running;

/// Wake-ups stand on pages of 2^24 ns, 17 ms; a thousand of them reach beyond the next heartbeat.
const PAGE: u32 = 24;
const PAGES: usize = 16;
/// How many pages are read ahead for together, and how many wake-ups in one go.
const TOGETHER: u64 = 4;
const AHEAD: usize = 32;
/// An API server that says so many things at once most likely sends its bookmarks.
pub(super) const MANY: usize = 8;
/// Clusters of fewer nodes stay in the processor's cache by themselves.
const LARGE: usize = 400;

/// Wake-ups by virtual time in nanoseconds, one a process.
#[derive(Debug)]
pub(super) struct Timers {
    pages: CalendarQueue,
    /// The key of each process's wake-up.
    keys: Vec<Key>,
    /// The earliest of them, as long as that is known.
    first: Option<Key>,
    /// The last page that was read ahead for.
    read: u64,
    seed: u64,
    drawn: u64,
}

impl Timers {
    pub(super) fn new(seed: u64, processes: usize) -> Timers {
        Timers {
            pages: CalendarQueue::new(PAGE, PAGES),
            keys: vec![NEVER; processes],
            first: None,
            read: 0,
            seed,
            drawn: 0,
        }
    }

    /// Sets the moment of a process's wake-up, whether it had one or not.
    #[inline(never)]
    pub(super) fn set(&mut self, at: u64, process: u32) {
        self.drawn += 1;
        let key = key(at, self.seed, self.drawn, process);
        self.forget(process);
        self.keys[process as usize] = key;
        self.first = self.first.map(|first| first.min(key));
        self.pages.add(key);
    }

    /// Takes a process's wake-up away, if it has one.
    pub(super) fn clear(&mut self, process: u32) {
        self.forget(process);
        self.keys[process as usize] = NEVER;
    }

    /// The wake-up of this process is about to change: if it is the first, another will be.
    #[inline]
    fn forget(&mut self, process: u32) {
        self.first = self.first.filter(|first| whose(*first) != process);
    }

    /// The key of the next, but for whose it is.
    #[inline(always)]
    pub(super) fn next(&mut self) -> Key {
        let first = match self.first {
            Some(first) => first,
            None => self.find_first(),
        };
        unowned(first)
    }

    /// The first key, which may be nobody's any more if it was set on a page that was open already.
    #[inline(always)]
    fn first_set(&mut self) -> Option<Key> {
        self.pages.first_of(u64::MAX, |key| self.keys[whose(key) as usize] == key)
    }

    #[inline(always)]
    fn find_first(&mut self) -> Key {
        let mut first = self.first_set();
        while let Some(key) = first.filter(|key| self.keys[whose(*key) as usize] != *key) {
            assert_eq!(self.pages.take_first(), Some(key), "what is first is taken first");
            first = self.first_set();
        }
        let first = first.unwrap_or(NEVER);
        self.first = Some(first);
        first
    }

    /// Takes out the one that `next` has told: its moment, and the process.
    #[inline(always)]
    pub(super) fn pop(&mut self) -> Option<(u64, u32)> {
        // What was set when nothing else was is on a page that nobody has opened.
        self.first_set()?;
        let key = self.pages.take_first()?;
        let first = self.first.take();
        assert_eq!(first, Some(key), "the first has been found, and stands first");
        self.keys[whose(key) as usize] = NEVER;
        Some((moment(key), whose(key)))
    }

    /// Whether time has come to pages that were not read ahead for.
    fn is_ahead(&self) -> bool {
        self.pages.number() > self.read
    }

    /// The processes that are woken within the next few pages.
    fn take_ahead(&mut self) -> Vec<u32> {
        self.read = self.pages.number() + TOGETHER - 1;
        let mut processes = Vec::with_capacity(2 * AHEAD);
        self.pages.ahead(TOGETHER).for_each(|key| {
            if self.keys[whose(key) as usize] == key {
                processes.push(whose(key));
            }
        });
        processes
    }
}

impl World {
    /// Once the last few wake-ups have come, reads what the next few will touch.
    #[inline]
    pub(super) fn read_ahead(&mut self) {
        if self.timers.is_ahead() {
            let soon = self.timers.take_ahead();
            if self.nodes.len() >= LARGE {
                soon.chunks(AHEAD).for_each(|soon| self.read_for(soon));
            }
        }
    }

    /// The agent that a process is, where reading ahead is worth it.
    #[inline]
    fn far_agent(&self, process: u32) -> Option<&NodeAgent> {
        match &self.processes[process as usize].running {
            Some(Running::Agent(agent)) if self.nodes.len() >= LARGE => Some(agent),
            _ => None,
        }
    }

    /// Reads together what news will touch that is on its way to an agent, or is about to be told.
    #[inline]
    pub(super) fn read_for_news(&self, process: u32) {
        if let Some(agent) = self.far_agent(process) {
            agent.read_ahead_news();
        }
    }

    /// Reads together what the bookmarks will touch that an API server has just said: each has many agents to tell.
    pub(super) fn read_for_bookmarks(&self) {
        let mut told: Vec<(&NodeAgent, ReqId)> = Vec::new();
        for said in self.scratch.api.chunks(AHEAD) {
            let processes = said.iter().filter_map(|said| match said {
                apiserver::Out::Client(conn, FromServer::Watch(id, WatchEvent::Bookmark { .. })) => {
                    Some((self.conns[conn.0 as usize], *id))
                }
                _ => None,
            });
            processes.clone().for_each(|(process, _)| touch(&self.processes[process as usize].life));
            told.extend(processes.filter_map(|(process, id)| Some((self.far_agent(process)?, id))));
            for step in Step::ALL {
                told.iter().for_each(|(agent, id)| agent.read_ahead_bookmark(*id, step));
            }
            told.clear();
        }
    }

    fn read_for(&self, processes: &[u32]) {
        // Step by step and each for all, since each step's addresses come from the one before.
        let soon = || processes.iter().map(|process| &self.processes[*process as usize]);
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
            for process in &self.processes[..self.control] {
                match &process.running {
                    Some(Running::Api(api)) => api.read_ahead(&leases, step),
                    Some(Running::Manager(manager)) => manager.read_ahead(&leases, step),
                    _ => {}
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{NEVER, Timers, moment};
    use skeg_core::Rng;

    #[test]
    fn whatever_is_set_cleared_and_taken_ahead_the_earliest_is_next() {
        [500, 1 << 26, 1 << 34, 1 << 40].into_iter().for_each(earliest_is_next);
    }

    /// Sets at moments that are at most `spread` after the last that was popped.
    fn earliest_is_next(spread: u64) {
        let (mut timers, mut rng) = (Timers::new(3, 60), Rng::from_seed(3));
        let (mut waiting, mut now) = ([None; 60], 0);
        for _ in 0..30_000 {
            let process = rng.below(60) as u32;
            match rng.below(8) {
                0..5 => {
                    let at = now + rng.below(spread);
                    waiting[process as usize] = Some(at);
                    timers.set(at, process);
                }
                5 => {
                    waiting[process as usize] = None;
                    timers.clear(process);
                }
                _ => {
                    let least = waiting.iter().flatten().min().copied();
                    assert_eq!(moment(timers.next()), least.unwrap_or(u64::MAX));
                    if let Some(at) = least {
                        let (woken_at, process) = timers.pop().expect("there is a next one");
                        assert_eq!((woken_at, waiting[process as usize].take()), (at, Some(at)));
                        now = at;
                    }
                }
            }
            if timers.is_ahead() && rng.chance(1, 4) {
                timers.next();
                for process in timers.take_ahead() {
                    assert!(waiting[process as usize].is_some(), "{process} will be woken");
                }
            }
        }
    }

    #[test]
    fn the_seed_breaks_ties() {
        let order = |seed| {
            let mut timers = Timers::new(seed, 8);
            (0..8).for_each(|process| timers.set(5, process));
            let next = || if timers.next() == NEVER { None } else { timers.pop().map(|(_, process)| process) };
            std::iter::from_fn(next).collect::<Vec<_>>()
        };
        assert_eq!(order(1), order(1));
        assert!((2..20).any(|seed| order(seed) != order(1)));
    }
}
