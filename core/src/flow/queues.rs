//! The queues of one priority level: a request takes a seat, or more than one, or waits in the emptiest queue of its
//! flow's hand until it is the one that fair queuing serves next.
//!
//! Fair queuing keeps a virtual time for the level, which says how many seat-nanoseconds each queue that has something
//! to do has been given since the beginning, and for each queue the virtual time at which its next request begins. The
//! queue whose next request would *end* first in virtual time is served.
//!
//! Source: KEP-1040, "Fair Queuing for Server Requests".

use std::collections::VecDeque;
use std::time::Duration;

use super::hand::deal;
use super::{Ticket, Width};
use crate::machine::Mono;

/// How long a request is taken to last until it has ended (apiserver `estimatedServiceDuration`).
const ESTIMATED: Duration = Duration::from_millis(3);

/// How a level's requests wait.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Queuing {
    /// How many queues there are; at least one.
    pub queues: usize,
    /// How many of them a flow's requests may wait in; at most `queues`.
    pub hand_size: usize,
    /// How many requests wait in one.
    pub length_limit: usize,
}

/// A request that waits.
#[derive(Clone, Copy, Debug)]
struct Waiting {
    ticket: Ticket,
    width: Width,
    /// The virtual time when it came.
    arrived: i128,
}

#[derive(Clone, Debug, Default)]
struct Queue {
    waiting: VecDeque<Waiting>,
    executing: usize,
    /// Of those that are answered, and of those that were and tell watchers.
    seats: u32,
    /// When its next request begins, in virtual time.
    next: i128,
}

impl Queue {
    fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.executing == 0 && self.seats == 0
    }

    fn seats_waiting(&self) -> u32 {
        self.waiting.iter().map(|waiting| waiting.width.seats()).sum()
    }

    /// A queue never begins a request, in virtual time, before the request came.
    fn bound(&mut self) {
        if let Some(first) = self.waiting.front() {
            self.next = self.next.max(first.arrived);
        }
    }
}

/// The seats and queues of a level.
#[derive(Clone, Debug)]
pub(super) struct Queues {
    queuing: Option<Queuing>,
    /// How many seats may be taken; `None` for a level that is exempt.
    pub(super) limit: Option<u32>,
    /// More than `queuing` says while those that are too many still have something to do.
    queues: Vec<Queue>,
    /// Virtual time, and when it was reckoned.
    virtual_now: i128,
    reckoned: Mono,
    last_served: usize,
    arrivals: usize,
    pub(super) executing: usize,
    pub(super) seats: u32,
    pub(super) waiting: usize,
}

/// What becomes of a request that comes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Arrival {
    /// It has its seats; it came through this queue, if any.
    Starts(Option<usize>),
    /// It waits in this queue.
    Waits(usize),
    /// There are too many, and nothing waits at this level.
    NoSeat,
    /// Its queue is full.
    QueueFull,
}

impl Queues {
    pub(super) fn new(now: Mono) -> Queues {
        Queues {
            queuing: None,
            limit: Some(0),
            queues: Vec::new(),
            virtual_now: 0,
            reckoned: now,
            last_served: 0,
            arrivals: 0,
            executing: 0,
            seats: 0,
            waiting: 0,
        }
    }

    /// Changes how requests wait. Those that wait stay where they are.
    pub(super) fn configure(&mut self, now: Mono, queuing: Option<Queuing>) {
        self.pass(now);
        self.queuing = queuing;
        let wanted = queuing.map_or(0, |queuing| queuing.queues);
        if self.queues.len() < wanted {
            self.queues.resize_with(wanted, Queue::default);
        }
        self.drop_idle();
    }

    fn drop_idle(&mut self) {
        let wanted = self.queuing.map_or(0, |queuing| queuing.queues);
        while self.queues.len() > wanted && self.queues.last().is_some_and(Queue::is_idle) {
            self.queues.pop();
        }
    }

    pub(super) fn is_idle(&self) -> bool {
        self.executing == 0 && self.waiting == 0 && self.seats == 0
    }

    /// Seats that are taken or waited for.
    pub(super) fn demand(&self) -> u32 {
        self.seats + self.queues.iter().map(Queue::seats_waiting).sum::<u32>()
    }

    /// Lets virtual time pass: all seats that are taken, shared among the queues that have something to do.
    fn pass(&mut self, now: Mono) {
        let real = now.since(self.reckoned).as_nanos() as i128;
        self.reckoned = now;
        let busy = self.queues.iter().filter(|queue| !queue.is_idle()).count() as i128;
        if busy > 0 {
            let wanted: u32 = self.queues.iter().map(|queue| queue.seats + queue.seats_waiting()).sum();
            let seats = self.limit.map_or(wanted, |limit| wanted.min(limit));
            self.virtual_now += real * i128::from(seats) / busy;
        }
    }

    /// Whether so many seats can be taken. What wants more than all waits until it is alone.
    fn has_room(&self, seats: u32) -> bool {
        let Some(limit) = self.limit else { return true };
        if seats > limit { self.seats == 0 } else { self.seats + seats <= limit }
    }

    /// A request of a flow comes that takes so many seats. Those that start by it are `started`.
    pub(super) fn arrive(
        &mut self,
        now: Mono,
        ticket: Ticket,
        (flow, width): (u64, Width),
        started: &mut Vec<(Ticket, usize)>,
    ) -> Arrival {
        self.pass(now);
        let seats = width.seats();
        let Some(queuing) = self.queuing else {
            if !self.has_room(seats) {
                return Arrival::NoSeat;
            }
            (self.executing, self.seats) = (self.executing + 1, self.seats + seats);
            return Arrival::Starts(None);
        };
        let at = self.choose(flow, queuing);
        let is_full = self.limit.is_some_and(|limit| self.seats >= limit);
        let queue = &mut self.queues[at];
        if is_full && queue.waiting.len() >= queuing.length_limit {
            return Arrival::QueueFull;
        }
        if queue.is_idle() {
            queue.next = self.virtual_now;
        }
        queue.waiting.push_back(Waiting { ticket, width, arrived: self.virtual_now });
        queue.bound();
        self.waiting += 1;
        self.serve(started);
        match started.iter().position(|(other, _)| *other == ticket) {
            Some(own) => Arrival::Starts(Some(started.remove(own).1)),
            None => Arrival::Waits(at),
        }
    }

    /// The queue of the flow's hand in which the least waits; equal ones take turns.
    fn choose(&mut self, flow: u64, queuing: Queuing) -> usize {
        let hand = deal(flow, queuing.queues, queuing.hand_size);
        let first = self.arrivals % hand.len();
        self.arrivals = self.arrivals.wrapping_add(1);
        let in_turn = hand[first..].iter().chain(&hand[..first]).copied();
        in_turn.min_by_key(|&at| self.queues[at].seats_waiting()).expect("a hand has a card")
    }

    /// Starts requests that wait, as long as there is room for the next one.
    pub(super) fn serve(&mut self, started: &mut Vec<(Ticket, usize)>) {
        while self.waiting > 0 {
            let Some(at) = self.next_queue() else { return };
            let queue = &mut self.queues[at];
            let next = *queue.waiting.front().expect("a queue that is served has a request");
            let seats = next.width.seats();
            if !self.has_room(seats) {
                return;
            }
            let queue = &mut self.queues[at];
            queue.waiting.pop_front();
            queue.executing += 1;
            queue.seats += seats;
            queue.next += next.width.work(ESTIMATED);
            queue.bound();
            self.last_served = at;
            self.waiting -= 1;
            (self.executing, self.seats) = (self.executing + 1, self.seats + seats);
            started.push((next.ticket, at));
        }
    }

    /// The queue whose next request would end first, beginning after the one that was served last.
    fn next_queue(&self) -> Option<usize> {
        let count = self.queues.len();
        let in_turn = (1..=count).map(|step| (self.last_served + step) % count);
        let end = |at: usize| {
            let queue = &self.queues[at];
            queue.waiting.front().map(|first| (queue.next + first.width.work(ESTIMATED), at))
        };
        in_turn.filter_map(end).min_by_key(|(end, _)| *end).map(|(_, at)| at)
    }

    /// A request has been answered that had its seats since `began`. It keeps them until they are released.
    pub(super) fn end(&mut self, now: Mono, queue: Option<usize>, (width, began): (Width, Mono)) {
        self.pass(now);
        self.executing -= 1;
        if let Some(at) = queue {
            let queue = &mut self.queues[at];
            queue.executing -= 1;
            // It was reckoned with an estimate.
            queue.next += width.work(now.since(began)) - width.work(ESTIMATED);
            queue.bound();
        }
    }

    /// A request that has been answered gives its seats back. Those that start by it are `started`.
    pub(super) fn release(
        &mut self,
        now: Mono,
        queue: Option<usize>,
        width: Width,
        started: &mut Vec<(Ticket, usize)>,
    ) {
        self.pass(now);
        self.seats -= width.seats();
        if let Some(at) = queue {
            self.queues[at].seats -= width.seats();
        }
        self.serve(started);
        self.drop_idle();
    }

    /// A request that waits in a queue gives up.
    pub(super) fn give_up(&mut self, now: Mono, queue: usize, ticket: Ticket, started: &mut Vec<(Ticket, usize)>) {
        self.pass(now);
        let queue = &mut self.queues[queue];
        let before = queue.waiting.len();
        queue.waiting.retain(|waiting| waiting.ticket != ticket);
        queue.bound();
        self.waiting -= before - queue.waiting.len();
        // It may have been one that wanted many seats, before others that want few.
        self.serve(started);
        self.drop_idle();
    }
}
