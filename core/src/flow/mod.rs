//! Priority and fairness: which of the requests that come to an API server are answered now, which wait, and which are
//! turned away. FlowSchemas sort them into priority levels, and into flows within a level; each level has seats of its
//! own, of which it may lend some; flows of a level take turns.
//!
//! So a client that asks too much keeps neither heartbeats nor leaders from being renewed, nor others of its own level
//! from being answered.
//!
//! Source: KEP-1040,
//! <https://kubernetes.io/docs/concepts/cluster-administration/flow-control/>.

pub mod bootstrap;
mod hand;
mod matching;
mod queues;
mod seats;
mod width;

use std::collections::BTreeMap;
use std::time::Duration;

use sha2::{Digest, Sha256};

pub use self::matching::is_about;
pub use self::queues::Queuing;
use self::queues::{Arrival, Queues};
use self::seats::{Bounds, Demand, PERIOD};
pub use self::width::Width;
use crate::machine::Mono;

/// How long a request waits at most (apiserver: a quarter of `--request-timeout`).
pub const LONGEST_WAIT: Duration = Duration::from_secs(15);
/// The most of its level's nominal seats that one request keeps for watchers, in percent.
const MOST_OF_LEVEL: u32 = 15;

/// A priority level, as its PriorityLevelConfiguration has it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LevelConfig {
    /// Its name.
    pub name: String,
    /// Whether its requests are never held up.
    pub is_exempt: bool,
    /// `nominalConcurrencyShares`.
    pub shares: u32,
    /// `lendablePercent`.
    pub lendable: u32,
    /// `borrowingLimitPercent`; without it there is no limit.
    pub borrowing: Option<u32>,
    /// How requests wait; if they do not, they are turned away.
    pub queuing: Option<Queuing>,
}

/// A request that was let in or waits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Ticket(u64);

/// A request that comes.
#[derive(Clone, Copy, Debug)]
pub struct Comer<'a> {
    /// The name of its FlowSchema.
    pub schema: &'a str,
    /// The name of its priority level.
    pub level: &'a str,
    /// By what the FlowSchema tells flows apart: a user, a namespace, or nothing.
    pub distinguisher: &'a str,
    /// How many seats it takes, and for how long.
    pub width: Width,
}

/// What becomes of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Decision {
    /// It is answered; [`Dispatcher::end`] says when that is done.
    Start(Ticket),
    /// It waits, until it starts by another's end, or gives up.
    Wait(Ticket),
    /// It is turned away.
    Refuse(Refusal),
}

/// Why a request is turned away; the names are those of the metric `apiserver_flowcontrol_rejected_requests_total`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Refusal {
    /// The level has no seat left, and no queues.
    ConcurrencyLimit,
    /// Its queue is full.
    QueueFull,
    /// It has waited too long.
    TimeOut,
    /// The client has gone.
    Cancelled,
}

impl Refusal {
    /// As the metric names it.
    pub fn name(self) -> &'static str {
        match self {
            Refusal::ConcurrencyLimit => "concurrency-limit",
            Refusal::QueueFull => "queue-full",
            Refusal::TimeOut => "time-out",
            Refusal::Cancelled => "cancelled",
        }
    }
}

#[derive(Debug)]
struct Level {
    config: LevelConfig,
    /// It is configured no more, and goes once nothing of it waits or is answered.
    is_leaving: bool,
    bounds: Bounds,
    demand: Demand,
    queues: Queues,
}

impl Level {
    /// A request keeps no more for watchers than a part of its level, which others of its hand leave it.
    fn narrow(&self, width: Width) -> Width {
        let nominal = self.bounds.nominal;
        let hand = self.config.queuing.map_or(1, |queuing| u32::try_from(queuing.hand_size).unwrap_or(u32::MAX));
        width.narrowed((nominal * MOST_OF_LEVEL).div_ceil(100).min(nominal / hand.max(1)))
    }
}

/// A request that was let in or waits.
#[derive(Clone, Debug)]
struct Held {
    level: String,
    schema: String,
    width: Width,
    queue: Option<usize>,
    /// When it started; `None` while it waits.
    began: Option<Mono>,
    /// Whether it has been answered, and keeps its seats for what it tells to watchers.
    lingers: bool,
}

/// The seats of a level.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Limits {
    /// By its shares.
    pub nominal: u32,
    /// What it may have now; `None` if there is no limit.
    pub current: Option<u32>,
}

/// What requests do at the moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Present {
    /// Seats that are taken.
    pub seats: u32,
    /// Requests that are answered.
    pub executing: usize,
    /// Requests that wait.
    pub waiting: usize,
}

/// What has become of requests so far, by level and FlowSchema.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Totals {
    /// Requests that were let in.
    pub dispatched: u64,
    /// Requests that were turned away.
    pub refused: BTreeMap<Refusal, u64>,
}

/// Decides which requests are answered.
#[derive(Debug)]
pub struct Dispatcher {
    /// Seats of the server.
    seats: u32,
    levels: BTreeMap<String, Level>,
    held: BTreeMap<Ticket, Held>,
    tickets: u64,
    /// When seats are next lent and borrowed.
    next_period: Mono,
    totals: BTreeMap<(String, String), Totals>,
}

fn flow_hash(schema: &str, distinguisher: &str) -> u64 {
    let digest = Sha256::new().chain_update(schema).chain_update([0]).chain_update(distinguisher).finalize();
    let (first, _) = digest.split_first_chunk::<8>().expect("a digest has 32 bytes");
    u64::from_le_bytes(*first)
}

impl Dispatcher {
    /// A server that answers so many requests at once, apart from those that are exempt. It has no level yet.
    pub fn new(seats: u32, now: Mono) -> Dispatcher {
        Dispatcher {
            seats,
            levels: BTreeMap::new(),
            held: BTreeMap::new(),
            tickets: 0,
            next_period: now + PERIOD,
            totals: BTreeMap::new(),
        }
    }

    /// Replaces the levels. Returns the requests that start by it.
    pub fn configure(&mut self, now: Mono, configs: Vec<LevelConfig>) -> Vec<Ticket> {
        for level in self.levels.values_mut() {
            level.is_leaving = true;
        }
        for config in configs {
            let level = self.levels.entry(config.name.clone()).or_insert_with(|| Level {
                config: config.clone(),
                is_leaving: false,
                bounds: Bounds::default(),
                demand: Demand::new(now),
                queues: Queues::new(now),
            });
            (level.config, level.is_leaving) = (config, false);
            level.queues.configure(now, level.config.queuing);
        }
        self.levels.retain(|_, level| !level.is_leaving || !level.queues.is_idle());
        self.totals.retain(|(level, _), _| self.levels.contains_key(level));
        let all: u32 = self.levels.values().fold(0, |sum, level| sum.saturating_add(level.config.shares));
        let mut started = Vec::new();
        for level in self.levels.values_mut() {
            let LevelConfig { is_exempt, shares, lendable, borrowing, .. } = level.config;
            level.bounds = Bounds::new(self.seats, shares, all, lendable, borrowing);
            if is_exempt {
                level.queues.limit = None;
                level.queues.serve(&mut started);
            }
        }
        self.divide(now, &mut started);
        self.begin(now, started)
    }

    /// Lends and borrows by what was needed in the period that has ended.
    fn divide(&mut self, now: Mono, started: &mut Vec<(Ticket, usize)>) {
        let limited = self.levels.values_mut().filter(|level| !level.config.is_exempt);
        let parts = limited.map(|level| (level.bounds, &mut level.demand));
        let seats = seats::divide(self.seats, now, parts);
        let limited = self.levels.values_mut().filter(|level| !level.config.is_exempt);
        for (level, seats) in limited.zip(seats) {
            level.queues.limit = Some(seats);
            level.queues.serve(started);
        }
        self.next_period = now + PERIOD;
    }

    fn check_period(&mut self, now: Mono) -> Vec<Ticket> {
        if now < self.next_period {
            return Vec::new();
        }
        let mut started = Vec::new();
        self.divide(now, &mut started);
        self.begin(now, started)
    }

    /// Notes that requests have started which waited.
    fn begin(&mut self, now: Mono, started: Vec<(Ticket, usize)>) -> Vec<Ticket> {
        for (ticket, queue) in &started {
            let held = self.held.get_mut(ticket).expect("what starts is held");
            (held.began, held.queue) = (Some(now), Some(*queue));
            self.totals.entry((held.level.clone(), held.schema.clone())).or_default().dispatched += 1;
        }
        started.into_iter().map(|(ticket, _)| ticket).collect()
    }

    /// A request comes. Others may start by it, where seats were just borrowed. One of a level that is not there is
    /// answered.
    pub fn arrive(&mut self, now: Mono, comer: Comer<'_>) -> (Decision, Vec<Ticket>) {
        let mut others = self.check_period(now);
        self.tickets += 1;
        let ticket = Ticket(self.tickets);
        let mut width = comer.width;
        let schema = comer.schema.to_owned();
        let mut started = Vec::new();
        let arrival = match self.levels.get_mut(comer.level) {
            None => Arrival::Starts(None),
            Some(level) => {
                let flow = flow_hash(comer.schema, comer.distinguisher);
                width = level.narrow(width);
                let arrival = level.queues.arrive(now, ticket, (flow, width), &mut started);
                level.demand.set(now, level.queues.demand());
                arrival
            }
        };
        let totals = self.totals.entry((comer.level.to_owned(), schema.clone())).or_default();
        // What is of no level never counts at one, even if one of that name comes.
        let level = if self.levels.contains_key(comer.level) { comer.level.to_owned() } else { String::new() };
        let (queue, began) = match arrival {
            Arrival::Starts(queue) => {
                totals.dispatched += 1;
                (queue, Some(now))
            }
            Arrival::Waits(queue) => (Some(queue), None),
            Arrival::NoSeat | Arrival::QueueFull => {
                let why = if arrival == Arrival::NoSeat { Refusal::ConcurrencyLimit } else { Refusal::QueueFull };
                *totals.refused.entry(why).or_default() += 1;
                return (Decision::Refuse(why), others);
            }
        };
        self.held.insert(ticket, Held { level, schema, width, queue, began, lingers: false });
        others.extend(self.begin(now, started));
        (if began.is_some() { Decision::Start(ticket) } else { Decision::Wait(ticket) }, others)
    }

    /// A request that had started has been answered. Returns those that start by it. If it keeps its seats for what it
    /// tells to watchers, [`Dispatcher::lingers`] says for how long, and [`Dispatcher::release`] must follow.
    pub fn end(&mut self, now: Mono, ticket: Ticket) -> Vec<Ticket> {
        let mut others = self.check_period(now);
        let Some(held) = self.held.get_mut(&ticket).filter(|held| !held.lingers) else { return others };
        let began = held.began.expect("only what has started ends");
        let level = self.levels.get_mut(&held.level);
        held.lingers = !held.width.after.is_zero() && level.as_ref().is_some_and(|level| !level.config.is_exempt);
        if let Some(level) = level {
            level.queues.end(now, held.queue, (held.width, began));
        }
        if !held.lingers {
            others.extend(self.release(now, ticket));
        }
        others
    }

    /// How long a request that has been answered keeps its seats; `None` if it does not.
    pub fn lingers(&self, ticket: Ticket) -> Option<Duration> {
        self.held.get(&ticket).filter(|held| held.lingers).map(|held| held.width.after)
    }

    /// A request that has been answered has told its watchers. Returns those that start by it.
    pub fn release(&mut self, now: Mono, ticket: Ticket) -> Vec<Ticket> {
        let mut others = self.check_period(now);
        let Some(held) = self.held.remove(&ticket) else { return others };
        let mut started = Vec::new();
        if let Some(level) = self.levels.get_mut(&held.level) {
            level.queues.release(now, held.queue, held.width, &mut started);
        }
        self.left(now, &held.level);
        others.extend(self.begin(now, started));
        others
    }

    /// A request that waits gives up. Returns those that start by it.
    pub fn give_up(&mut self, now: Mono, ticket: Ticket, why: Refusal) -> Vec<Ticket> {
        let mut others = self.check_period(now);
        // It may have started just now.
        if self.held.get(&ticket).is_none_or(|held| held.began.is_some()) {
            others.extend(self.end(now, ticket));
            // Nobody was told anything.
            others.extend(self.release(now, ticket));
            return others;
        }
        let held = self.held.remove(&ticket).expect("it was just there");
        let totals = self.totals.entry((held.level.clone(), held.schema.clone())).or_default();
        *totals.refused.entry(why).or_default() += 1;
        let mut started = Vec::new();
        if let (Some(level), Some(queue)) = (self.levels.get_mut(&held.level), held.queue) {
            level.queues.give_up(now, queue, ticket, &mut started);
        }
        self.left(now, &held.level);
        others.extend(self.begin(now, started));
        others
    }

    /// A request of a level has gone.
    fn left(&mut self, now: Mono, name: &str) {
        let Some(level) = self.levels.get_mut(name) else { return };
        level.demand.set(now, level.queues.demand());
        if level.is_leaving && level.queues.is_idle() {
            self.levels.remove(name);
        }
    }

    /// The seats of each level.
    pub fn limits(&self) -> impl Iterator<Item = (&str, Limits)> {
        self.levels
            .iter()
            .map(|(name, level)| (&**name, Limits { nominal: level.bounds.nominal, current: level.queues.limit }))
    }

    /// What requests do at the moment, by level and FlowSchema.
    pub fn present(&self) -> BTreeMap<(&str, &str), Present> {
        let mut all: BTreeMap<(&str, &str), Present> =
            self.totals.keys().map(|(level, schema)| ((&**level, &**schema), Present::default())).collect();
        for held in self.held.values() {
            let of = all.entry((&held.level, &held.schema)).or_default();
            match held.began {
                Some(_) => {
                    of.seats += held.width.seats();
                    of.executing += usize::from(!held.lingers);
                }
                None => of.waiting += 1,
            }
        }
        all
    }

    /// What has become of requests, by level and FlowSchema.
    pub fn totals(&self) -> impl Iterator<Item = (&str, &str, &Totals)> {
        self.totals.iter().map(|((level, schema), totals)| (&**level, &**schema, totals))
    }
}

#[cfg(test)]
mod tests;
