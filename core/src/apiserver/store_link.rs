//! The connection to the store: load, watch, resume, and reload after compaction, with unlimited retries and back-off.
//!
//! A load consists of many pages at one revision and may take minutes. Pages that have been read are kept when the
//! connection breaks, and a page whose reply times out is requested again at half the size.

use std::rc::Rc;
use std::time::Duration;

use smallvec::smallvec;

use super::{ApiServer, Job, Out};
use crate::limits;
use crate::machine::{Deadline, Mono, Now};
use crate::object::{Kind, Revision};
use crate::store::{
    Batch, KeyValue, Op, Progress, StoreError, StoreKey, StoreReply, StoreRequest, Stored, Txn, WatchId, everything,
};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    /// Disconnected; connects at this time.
    Down(Mono),
    /// A load or the start of a watch is in progress.
    Connecting,
    /// The watch is open.
    Up,
}

/// State of the connection to the store.
#[derive(Debug)]
pub(super) struct Link {
    state: State,
    watch: Option<WatchId>,
    heard: Mono,
    backoff: Duration,
    /// The watch cannot be resumed: the next connection reloads the cache.
    reload: bool,
    loading: Loading,
    /// What the store's progress notifications guarantee.
    progress: Progress,
    /// When to request progress next, because something waits for a revision.
    ask_progress: Option<Mono>,
}

/// A load in progress.
#[derive(Debug)]
struct Loading {
    /// Revision of the first page; the other pages are read at this revision.
    at: Option<Revision>,
    kvs: Vec<Rc<KeyValue>>,
    /// Number of keys in a page.
    page: usize,
}

impl Default for Loading {
    fn default() -> Loading {
        Loading { at: None, kvs: Vec::new(), page: limits::LOAD_PAGE }
    }
}

impl Loading {
    /// The request for the next page.
    fn request(&self) -> StoreRequest {
        let mut span = everything();
        if let Some(last) = self.kvs.last() {
            span.start = last.key().successor();
        }
        StoreRequest::Range { span: Box::new(span), at: self.at, limit: self.page }
    }
}

impl Link {
    pub(super) fn new() -> Link {
        Link {
            state: State::Down(Mono::ZERO),
            watch: None,
            heard: Mono::ZERO,
            backoff: limits::STORE_BACKOFF_BASE,
            reload: true,
            loading: Loading::default(),
            progress: Progress::default(),
            ask_progress: None,
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

    pub(super) fn set_progress(&mut self, progress: Progress) {
        self.progress = progress;
    }

    /// Whether a progress notification guarantees that no earlier event is missing.
    pub(super) fn trusts_progress(&self) -> bool {
        self.progress != Progress::Overtakes
    }

    /// Schedules a progress request because something waits for a revision. Usually the event is already on its way; if
    /// none arrives, the store is asked.
    pub(super) fn wait_for_revision(&mut self, now: Now) {
        if self.progress != Progress::Needless && self.ask_progress.is_none() {
            self.ask_progress = Some(now.mono + limits::PROGRESS_INTERVAL);
        }
    }

    pub(super) fn wants_progress(&self, now: Now) -> bool {
        self.ask_progress.is_some_and(|at| at <= now.mono)
    }

    pub(super) fn deadline(&self) -> Option<Deadline> {
        let connect = match self.state {
            State::Down(at) => Some(Deadline { at, why: "connect to the store" }),
            State::Connecting | State::Up => None,
        };
        Deadline::earlier(connect, self.ask_progress.map(|at| Deadline { at, why: "ask the store for progress" }))
    }
}

/// The key that is written if progress notifications may overtake events.
const PROGRESS_KEY: &str = "progress";

impl ApiServer {
    pub(super) fn connect(&mut self, now: Now, out: &mut Vec<Out>) {
        self.link.state = State::Connecting;
        self.link.heard = now.mono;
        if self.link.reload {
            self.load(now, out);
        } else {
            self.watch_store(now, out);
        }
    }

    fn load(&mut self, now: Now, out: &mut Vec<Out>) {
        let request = self.link.loading.request();
        self.ask_store(now, Job::Load, request, out);
    }

    fn watch_store(&mut self, now: Now, out: &mut Vec<Out>) {
        let watch = WatchId(self.next_id);
        self.link.watch = Some(watch);
        let from = Revision(self.cache.revision().0 + 1);
        self.ask_store(now, Job::Watch, StoreRequest::Watch { watch, span: Box::new(everything()), from }, out);
    }

    pub(super) fn loaded(&mut self, now: Now, answer: StoreReply, out: &mut Vec<Out>) {
        match answer {
            StoreReply::Range { revision, kvs, more, .. } => {
                let loading = &mut self.link.loading;
                let at = *loading.at.get_or_insert(revision);
                let goes_on = more && !kvs.is_empty();
                loading.kvs.extend(kvs);
                if goes_on {
                    return self.load(now, out);
                }
                let kvs = std::mem::take(&mut self.link.loading).kvs;
                self.watchers.end_all(out);
                self.memo.clear();
                self.cache.load(at, kvs);
                self.load_definitions();
                if let Some(grants) = &mut self.grants {
                    grants.load(&self.cache);
                }
                self.link.reload = false;
                self.watch_store(now, out);
                self.serve_waiting(now, out);
            }
            StoreReply::Error(StoreError::Compacted { .. }) => {
                // The remaining pages can no longer be read at that revision.
                self.link.loading = Loading::default();
                self.retry_later(now);
            }
            StoreReply::Txn { .. }
            | StoreReply::Watching { .. }
            | StoreReply::WatchCanceled { .. }
            | StoreReply::Compacted { .. }
            | StoreReply::Lease { .. }
            | StoreReply::Revoked { .. }
            | StoreReply::Revision { .. }
            | StoreReply::ProgressAsked
            | StoreReply::Error(_) => self.retry_later(now),
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
                self.set_policy_up(now, out);
                self.tend_definitions(now, out);
            }
            StoreReply::WatchCanceled { watch, compacted: compacted @ Some(_) } => {
                self.watch_canceled(now, watch, compacted, out);
            }
            StoreReply::Error(_) => {
                // The watch may have been created nevertheless; its events must not arrive in addition to the next
                // watch's.
                self.ask_store(now, Job::Forget, StoreRequest::CancelWatch { watch: WatchId(id) }, out);
                self.retry_later(now);
            }
            StoreReply::Txn { .. }
            | StoreReply::Range { .. }
            | StoreReply::WatchCanceled { .. }
            | StoreReply::Compacted { .. }
            | StoreReply::Lease { .. }
            | StoreReply::Revoked { .. }
            | StoreReply::Revision { .. }
            | StoreReply::ProgressAsked => self.retry_later(now),
        }
    }

    /// Handles that the store has ended a watch: resumes it, or reloads everything if it cannot be resumed.
    pub(super) fn watch_canceled(&mut self, now: Now, watch: WatchId, compacted: Option<Revision>, out: &mut Vec<Out>) {
        if !self.link.watches(watch) {
            return;
        }
        self.link.watch = None;
        match compacted {
            Some(_) => {
                self.link.reload = true;
                self.connect(now, out);
            }
            None => self.retry_later(now),
        }
    }

    /// Asks the store for progress: something has waited for a revision for a while, and no event has arrived.
    pub(super) fn ask_for_progress(&mut self, now: Now, out: &mut Vec<Out>) {
        self.link.ask_progress = None;
        if self.waits.is_empty() || !self.link.is_up() {
            return;
        }
        self.link.wait_for_revision(now);
        let request = match self.link.progress {
            Progress::Needless => return,
            Progress::Ordered => StoreRequest::Progress,
            Progress::Overtakes => {
                let key = StoreKey::Private(Rc::from(PROGRESS_KEY));
                let put = Op::Put { key, value: Stored::mark(&self.config.name), lease: None };
                StoreRequest::Txn(Box::new(Txn { success: smallvec![put], ..Txn::default() }))
            }
        };
        self.ask_store(now, Job::Forget, request, out);
    }

    fn retry_later(&mut self, now: Now) {
        let wait = self.rng.jitter(self.link.backoff, 50);
        self.link.backoff = (self.link.backoff * 2).min(limits::STORE_BACKOFF_MAX);
        self.link.state = State::Down(now.mono + wait);
        self.link.watch = None;
    }

    /// Halves the page size: a page whose reply timed out may have been too large.
    fn ask_for_less(&mut self) {
        let page = &mut self.link.loading.page;
        *page = (*page / 2).max(limits::PAGE_SIZE);
    }

    /// Handles the loss of a reply that was needed to connect.
    pub(super) fn connecting_failed(&mut self, now: Now) {
        if self.link.state == State::Connecting {
            self.ask_for_less();
            self.retry_later(now);
        }
    }

    /// Handles a broken connection: the outcome of requests in flight is unknown. The watch will be resumed at the
    /// cache's revision.
    pub(super) fn lose_store(&mut self, now: Now, out: &mut Vec<Out>) {
        self.retry_later(now);
        for flight in std::mem::take(&mut self.inflight) {
            self.give_up(now, flight.job, out);
        }
    }

    /// Checks whether the store still replies.
    pub(super) fn probe_store(&mut self, now: Now, out: &mut Vec<Out>) {
        let silence = now.mono.since(self.link.heard);
        match self.link.state {
            State::Up if silence >= limits::STORE_SILENCE => {
                // The store may still have the old watch; without the cancel, events would arrive twice.
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

    /// Applies the events of one revision to the cache and sends them to the watchers.
    #[inline]
    pub(super) fn advance(&mut self, now: Now, revision: Revision, events: &Batch, out: &mut Vec<Out>) {
        self.cache.advance(revision);
        let mut defines = false;
        for event in events.iter() {
            let completed = self.cache.completed(event);
            let event = completed.as_ref().unwrap_or(event);
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
        if let Some(grants) = &mut self.grants {
            grants.follow(&self.cache, events);
            self.set_policy_up(now, out);
        }
        if self.waits.is_due(revision) {
            self.serve_waiting(now, out);
        }
    }
}
