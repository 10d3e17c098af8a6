//! The connection to the store: load, watch, resume, load again after compaction; with back-off, for ever.

use std::time::Duration;

use super::{ApiServer, Job, Out};
use crate::limits;
use crate::machine::{Deadline, Mono, Now};
use crate::object::{Kind, Revision};
use crate::store::{Batch, StoreKey, StoreReply, StoreRequest, WatchId, everything};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    /// Connects at this time.
    Down(Mono),
    /// A load or the start of a watch is under way.
    Connecting,
    /// The watch stands.
    Up,
}

/// Where the connection to the store stands.
#[derive(Debug)]
pub(super) struct Link {
    state: State,
    watch: Option<WatchId>,
    heard: Mono,
    backoff: Duration,
    /// The cache can't be carried on: the next connection loads it anew.
    reload: bool,
}

impl Link {
    pub(super) fn new() -> Link {
        Link {
            state: State::Down(Mono::ZERO),
            watch: None,
            heard: Mono::ZERO,
            backoff: limits::STORE_BACKOFF_BASE,
            reload: true,
        }
    }

    pub(super) fn is_up(&self) -> bool {
        self.state == State::Up
    }

    pub(super) fn watches(&self, watch: WatchId) -> bool {
        self.watch == Some(watch)
    }

    pub(super) fn heard(&mut self, now: Now) {
        self.heard = now.mono;
    }

    pub(super) fn is_due(&self, now: Now) -> bool {
        matches!(self.state, State::Down(at) if at <= now.mono)
    }

    pub(super) fn deadline(&self) -> Option<Deadline> {
        match self.state {
            State::Down(at) => Some(Deadline { at, why: "connect to the store" }),
            State::Connecting | State::Up => None,
        }
    }
}

impl ApiServer {
    pub(super) fn connect(&mut self, now: Now, out: &mut Vec<Out>) {
        self.link.state = State::Connecting;
        self.link.heard = now.mono;
        if self.link.reload {
            self.ask_store(
                now,
                Job::Load,
                StoreRequest::Range { span: Box::new(everything()), at: None, limit: 0 },
                out,
            );
        } else {
            self.watch_store(now, out);
        }
    }

    fn watch_store(&mut self, now: Now, out: &mut Vec<Out>) {
        let watch = WatchId(self.next_id);
        self.link.watch = Some(watch);
        let from = Revision(self.cache.revision().0 + 1);
        self.ask_store(now, Job::Watch, StoreRequest::Watch { watch, span: Box::new(everything()), from }, out);
    }

    pub(super) fn loaded(&mut self, now: Now, answer: StoreReply, out: &mut Vec<Out>) {
        match answer {
            StoreReply::Range { revision, kvs, .. } => {
                self.watchers.end_all(out);
                self.memo.clear();
                self.cache.load(revision, kvs);
                self.load_definitions();
                self.link.reload = false;
                self.watch_store(now, out);
                self.serve_waiting(now, out);
            }
            _ => self.retry_later(now),
        }
    }

    pub(super) fn watching(&mut self, now: Now, id: u64, answer: StoreReply, out: &mut Vec<Out>) {
        if self.link.watch != Some(WatchId(id)) {
            return;
        }
        match answer {
            StoreReply::Watching { .. } => {
                self.link.state = State::Up;
                self.link.backoff = limits::STORE_BACKOFF_BASE;
                self.bootstrap(now, out);
                self.tend_definitions(now, out);
            }
            StoreReply::WatchCanceled { compacted: Some(_), .. } => {
                self.link.reload = true;
                self.connect(now, out);
            }
            _ => self.retry_later(now),
        }
    }

    fn retry_later(&mut self, now: Now) {
        let wait = self.rng.jitter(self.link.backoff, 50);
        self.link.backoff = (self.link.backoff * 2).min(limits::STORE_BACKOFF_MAX);
        self.link.state = State::Down(now.mono + wait);
        self.link.watch = None;
    }

    /// The reply that would have connected this server is lost.
    pub(super) fn connecting_failed(&mut self, now: Now) {
        if self.link.state == State::Connecting {
            self.retry_later(now);
        }
    }

    /// The connection broke: what was in flight has an unknown outcome. The watch is resumed where it broke off.
    pub(super) fn lose_store(&mut self, now: Now, out: &mut Vec<Out>) {
        self.retry_later(now);
        for flight in std::mem::take(&mut self.inflight) {
            self.give_up(now, flight.job, out);
        }
    }

    /// Looks whether the store is still there.
    pub(super) fn probe_store(&mut self, now: Now, out: &mut Vec<Out>) {
        let silence = now.mono.since(self.link.heard);
        match self.link.state {
            State::Up if silence >= limits::STORE_SILENCE => {
                // The store may still hold the old watch; it must not send everything twice.
                if let Some(watch) = self.link.watch.take() {
                    self.ask_store(now, Job::Forget, StoreRequest::CancelWatch { watch }, out);
                }
                self.lose_store(now, out);
            }
            State::Up if silence >= limits::STORE_PROBE_AFTER => {
                self.ask_store(now, Job::Forget, StoreRequest::Progress, out);
            }
            State::Connecting if silence >= limits::STORE_TIMEOUT => self.lose_store(now, out),
            State::Up | State::Connecting | State::Down(_) => {}
        }
    }

    /// Takes the events of one revision into the cache and on to the watchers.
    #[inline]
    pub(super) fn advance(&mut self, now: Now, revision: Revision, events: &Batch, out: &mut Vec<Out>) {
        self.cache.advance(revision);
        let mut defines = false;
        for event in events.iter() {
            self.cache.apply(event);
            if let StoreKey::Object(key) = event.key() {
                self.watchers.dispatch(key, event, out);
                defines |= key.kind == Kind::CUSTOM_RESOURCE_DEFINITION;
            }
        }
        if defines {
            for event in events.iter() {
                if let StoreKey::Object(key) = event.key()
                    && key.kind == Kind::CUSTOM_RESOURCE_DEFINITION
                {
                    self.definition_changed(now, key, out);
                }
            }
        }
        if self.waits.is_due(revision) {
            self.serve_waiting(now, out);
        }
    }
}
