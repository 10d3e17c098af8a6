//! The API server machine.
//!
//! What comes in: requests of clients, each on a connection; replies and events of the store. What goes out: replies
//! and watch events to clients; requests to the store. What never happens: an answer that reads another server's
//! memory; a write that is not a transaction on the revision it was decided by; a refusal that was decided on a cache
//! which may be behind.
//!
//! Path of a write: decode → admit → default → validate → transact → reply. Several servers run over one store; each
//! keeps a watch cache of its own, which may be behind. A decision is taken on the cached object; the transaction
//! compares its revision and, where the cache was behind, reads the object, and the decision is taken again.

mod admission;
mod cache;
mod create;
mod delete;
mod fields;
mod pod;
mod read;
mod scale;
mod service;
mod update;
mod watch;
mod write;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::api::{Call, FromServer, ListOptions, ReqId, Request, Status, ToServer};
use crate::limits;
use crate::machine::{Deadline, Machine, Mono, Now};
use crate::object::{Kind, Object, ObjectKey, Revision};
use crate::random::Rng;
use crate::store::{FromStore, KeyValue, StoreError, StoreEvent, StoreKey, StoreReply, StoreRequest, WatchId};

use cache::Cache;
use watch::Watchers;
use write::{Group, Settled};

/// Bookmarks go out a part of the watchers at a time, this often.
const BOOKMARK_TICK: Duration = Duration::from_secs(1);
/// How long a read waits for the cache to become as fresh as it asks (upstream: 3 s).
const FRESHNESS_PATIENCE: Duration = Duration::from_secs(3);
/// How long the server waits before it asks the store again after a failure.
const STORE_RETRY: Duration = Duration::from_millis(500);

/// Names a client's connection. A reconnect is another connection.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub struct ConnId(pub u64);

/// What the API server can be told.
#[derive(Debug)]
pub enum In {
    /// A client says something; the first message opens the connection.
    Client(ConnId, ToServer),
    /// A client's connection broke.
    Closed(ConnId),
    /// The store answers or tells of changes.
    Store(FromStore),
}

/// What the API server can ask for.
#[derive(Debug)]
pub enum Out {
    /// To a client.
    Client(ConnId, FromServer),
    /// To the store, with an id that its reply will carry.
    Store(u64, StoreRequest),
}

/// How an API server is set up.
#[derive(Clone, Debug)]
pub struct Config {
    /// For traces.
    pub name: Arc<str>,
    /// `--service-cluster-ip-range`: network and prefix length.
    pub service_cidr: ([u8; 4], u8),
    /// `--service-node-port-range`, inclusive.
    pub node_port_range: (u16, u16),
}

impl Default for Config {
    fn default() -> Config {
        Config {
            name: Arc::from("kube-apiserver"),
            service_cidr: ([10, 96, 0, 0], 12),
            node_port_range: (30000, 32767),
        }
    }
}

/// A request on its way.
#[derive(Debug)]
struct Job {
    conn: ConnId,
    id: ReqId,
    request: Request,
    /// Part of a deletecollection: the group that is told instead of the client.
    group: Option<u64>,
    /// How often the transaction lost against another writer.
    attempts: u32,
    /// Whether the cache has been fresh since the request came in.
    verified: bool,
}

/// What a reply of the store is for.
#[derive(Debug)]
enum Pending {
    Load,
    StartWatch,
    Compact,
    Bootstrap,
    /// The store's revision was asked for; the job waits until the cache has reached it.
    Freshness(Job),
    Write(Job, Box<Settled>),
    Page {
        conn: ConnId,
        id: ReqId,
        kind: Kind,
        options: ListOptions,
        rv: Revision,
    },
}

/// A job that waits for the cache.
#[derive(Debug)]
struct Waiting {
    job: Job,
    needed: Revision,
    until: Mono,
}

/// The API server. See the module's documentation.
#[derive(Debug)]
pub struct ApiServer {
    config: Config,
    rng: Rng,
    cache: Cache,
    watchers: Watchers,
    next_store_id: u64,
    pending: BTreeMap<u64, Pending>,
    waiting: Vec<Waiting>,
    groups: BTreeMap<u64, Group>,
    next_group: u64,
    /// Pod specs that have been through defaulting, admission and validation, by the address of what came in.
    prepared: admission::Prepared,
    allocations: service::Allocations,
    watch: WatchId,
    /// When to load the cache; none while it is loading or loaded.
    load_at: Option<Mono>,
    next_bookmarks: Mono,
    bookmark_turn: usize,
    next_compaction: Mono,
    compact_to: Revision,
}

impl ApiServer {
    /// A server that knows nothing yet; its first `handle_timeout` starts to load the cache.
    pub fn new(config: Config, rng: Rng) -> ApiServer {
        ApiServer {
            allocations: service::Allocations::new(&config),
            config,
            rng,
            cache: Cache::default(),
            watchers: Watchers::default(),
            next_store_id: 1,
            pending: BTreeMap::new(),
            waiting: Vec::new(),
            groups: BTreeMap::new(),
            next_group: 1,
            prepared: admission::Prepared::default(),
            watch: WatchId(0),
            load_at: Some(Mono::ZERO),
            next_bookmarks: Mono::ZERO,
            bookmark_turn: 0,
            next_compaction: Mono::ZERO,
            compact_to: Revision(0),
        }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.config.name
    }

    /// The revision that its cache has reached.
    pub fn revision(&self) -> Revision {
        self.cache.revision()
    }

    /// Whether it answers (`/readyz`).
    pub fn is_ready(&self) -> bool {
        self.cache.is_loaded() && self.load_at.is_none()
    }

    /// The cached objects of a kind.
    pub fn cached(&self, kind: Kind) -> impl Iterator<Item = (&ObjectKey, &Object)> {
        self.cache.range(kind, "", None)
    }

    /// How many watches of a kind there are.
    pub fn watches(&self, kind: Kind) -> usize {
        self.watchers.count(kind)
    }

    fn ask(&mut self, _now: Now, request: StoreRequest, pending: Pending, out: &mut Vec<Out>) {
        let id = self.next_store_id;
        self.next_store_id += 1;
        self.pending.insert(id, pending);
        out.push(Out::Store(id, request));
    }

    fn object_range() -> (StoreKey, StoreKey) {
        let first = ObjectKey::range_start(Kind(0), "");
        (StoreKey::Object(first.clone()), StoreKey::Fence(first))
    }

    fn load(&mut self, now: Now, out: &mut Vec<Out>) {
        self.load_at = None;
        let (start, end) = ApiServer::object_range();
        self.ask(now, StoreRequest::Range { start, end, at: None, limit: 0 }, Pending::Load, out);
    }

    fn loaded(&mut self, now: Now, kvs: Vec<KeyValue>, revision: Revision, out: &mut Vec<Out>) {
        let first = !self.cache.is_loaded();
        for change in self.cache.load(kvs, revision, now.mono) {
            self.allocations.note(&change.old, &change.new);
            self.watchers.dispatch(&change, out);
        }
        self.watch = WatchId(self.watch.0 + 1);
        let (start, end) = ApiServer::object_range();
        let from = Revision(revision.0 + 1);
        self.ask(now, StoreRequest::Watch { watch: self.watch, start, end, from }, Pending::StartWatch, out);
        if first {
            self.next_bookmarks = now.mono + BOOKMARK_TICK;
            self.next_compaction = now.mono + limits::COMPACTION_INTERVAL;
            self.bootstrap(now, out);
        }
        self.wake_waiting(now, out);
    }

    fn events(&mut self, now: Now, revision: Revision, events: &[StoreEvent], out: &mut Vec<Out>) {
        for event in events {
            if let Some(change) = self.cache.apply(event, now.mono) {
                self.allocations.note(&change.old, &change.new);
                self.watchers.dispatch(&change, out);
            }
        }
        self.cache.advance(revision);
        if !self.waiting.is_empty() {
            self.wake_waiting(now, out);
        }
    }

    fn wake_waiting(&mut self, now: Now, out: &mut Vec<Out>) {
        let revision = self.cache.revision();
        let mut i = 0;
        while i < self.waiting.len() {
            if self.waiting[i].needed <= revision {
                let mut job = self.waiting.remove(i).job;
                job.verified = true;
                self.run(now, job, out);
            } else {
                i += 1;
            }
        }
    }

    /// Carries a job out on a cache that is fresh enough for it.
    fn run(&mut self, now: Now, job: Job, out: &mut Vec<Out>) {
        match job.request.call {
            Call::Get { .. } | Call::List { .. } | Call::Watch { .. } => self.read(now, job, out),
            Call::GetScale { .. } => self.get_scale(job, out),
            Call::DeleteCollection { .. } => self.delete_collection(now, job, out),
            _ => self.write(now, job, None, out),
        }
    }

    /// Lets a job wait until the cache has everything that the store has now.
    fn verify(&mut self, now: Now, job: Job, out: &mut Vec<Out>) {
        self.ask(now, StoreRequest::Progress, Pending::Freshness(job), out);
    }

    fn request(&mut self, now: Now, conn: ConnId, id: ReqId, request: Request, out: &mut Vec<Out>) {
        if !self.is_ready() {
            let status = Status::unavailable("the server is not ready: its watch cache is being loaded");
            out.push(Out::Client(conn, FromServer::Reply(id, Err(status))));
            return;
        }
        let mut job = Job { conn, id, request, group: None, attempts: 0, verified: false };
        match job.request.call {
            Call::Get { .. } | Call::List { .. } | Call::Watch { .. } => {
                match ApiServer::freshness(&job.request.call) {
                    None => self.verify(now, job, out),
                    Some(needed) if needed <= self.cache.revision() => self.run(now, job, out),
                    Some(needed) => {
                        job.verified = true;
                        self.waiting.push(Waiting { job, needed, until: now.mono + FRESHNESS_PATIENCE });
                    }
                }
            }
            Call::GetScale { .. } | Call::DeleteCollection { .. } => self.verify(now, job, out),
            _ => self.run(now, job, out),
        }
    }

    fn store_reply(&mut self, now: Now, id: u64, reply: StoreReply, out: &mut Vec<Out>) {
        // A reply to a request of before the last disconnect has no owner any more.
        let Some(pending) = self.pending.remove(&id) else { return };
        match (pending, reply) {
            (Pending::Load, StoreReply::Range { revision, kvs, .. }) => self.loaded(now, kvs, revision, out),
            (Pending::Load, _) => self.load_at = Some(now.mono + STORE_RETRY),
            (Pending::StartWatch, StoreReply::Watching { .. }) => {}
            // Compacted between list and watch, or refused: load again.
            (Pending::StartWatch, _) => self.load_at = Some(now.mono + STORE_RETRY),
            (Pending::Freshness(job), StoreReply::Txn { revision, .. }) => {
                let until = now.mono + FRESHNESS_PATIENCE;
                self.waiting.push(Waiting { job, needed: revision, until });
                self.wake_waiting(now, out);
            }
            (Pending::Freshness(job), _) => {
                self.finish(now, &job, Err(Status::unavailable("the store cannot be reached")), out);
            }
            (Pending::Write(job, settled), StoreReply::Txn { revision, succeeded, results }) => {
                self.settle(now, job, *settled, revision, succeeded, results, out);
            }
            (Pending::Write(job, _), _) => {
                let status = Status::timeout("the store did not answer; the write may have been carried out");
                self.finish(now, &job, Err(status), out);
            }
            (Pending::Page { conn, id, kind, options, rv }, StoreReply::Range { kvs, .. }) => {
                self.page_from_store(conn, id, kind, &options, rv, kvs, out);
            }
            (Pending::Page { conn, id, .. }, reply) => {
                let status = match reply {
                    StoreReply::Error(StoreError::Compacted { .. }) => Status::expired(
                        "The provided continue parameter is too old to display a consistent list result. You must \
                         start a new list without the continue parameter, or use the continue token in this response \
                         to retrieve the remainder of the results.",
                    ),
                    StoreReply::Error(StoreError::FutureRevision { .. }) => too_large(),
                    _ => Status::unavailable("the store cannot be reached"),
                };
                out.push(Out::Client(conn, FromServer::Reply(id, Err(status))));
            }
            // Somebody else has compacted or bootstrapped already, or will.
            (Pending::Compact | Pending::Bootstrap, _) => {}
        }
    }

    fn store_lost(&mut self, now: Now, out: &mut Vec<Out>) {
        for (_, pending) in std::mem::take(&mut self.pending) {
            match pending {
                Pending::Write(job, _) => {
                    let status = Status::timeout("the connection to the store broke; the outcome is unknown");
                    self.finish(now, &job, Err(status), out);
                }
                Pending::Freshness(job) => {
                    self.finish(now, &job, Err(Status::unavailable("the store cannot be reached")), out);
                }
                Pending::Page { conn, id, .. } => {
                    let status = Status::unavailable("the store cannot be reached");
                    out.push(Out::Client(conn, FromServer::Reply(id, Err(status))));
                }
                Pending::Load | Pending::StartWatch | Pending::Compact | Pending::Bootstrap => {}
            }
        }
        self.load_at = Some(now.mono + STORE_RETRY);
    }

    fn time_out_waiting(&mut self, now: Now, out: &mut Vec<Out>) {
        let mut i = 0;
        while i < self.waiting.len() {
            if self.waiting[i].until <= now.mono {
                let waiting = self.waiting.remove(i);
                self.finish(now, &waiting.job, Err(too_large()), out);
            } else {
                i += 1;
            }
        }
    }

    fn compact(&mut self, now: Now, out: &mut Vec<Out>) {
        self.next_compaction = now.mono + limits::COMPACTION_INTERVAL;
        let at = std::mem::replace(&mut self.compact_to, self.cache.revision());
        if at.0 != 0 {
            self.ask(now, StoreRequest::Compact { at }, Pending::Compact, out);
        }
    }
}

fn too_large() -> Status {
    let mut status = Status::timeout("Too large resource version: the cache has not reached it in time");
    status.reason = crate::api::Reason::ServiceUnavailable;
    status
}

impl Machine for ApiServer {
    type In = In;
    type Out = Out;

    fn handle(&mut self, now: Now, input: In, out: &mut Vec<Out>) {
        match input {
            In::Client(conn, ToServer::Request(id, request)) => self.request(now, conn, id, request, out),
            In::Client(conn, ToServer::Cancel(id)) => {
                self.watchers.remove(conn, id);
            }
            In::Closed(conn) => {
                self.watchers.remove_connection(conn);
                self.waiting.retain(|w| w.job.conn != conn);
            }
            In::Store(FromStore::Reply(id, reply)) => self.store_reply(now, id, reply, out),
            In::Store(FromStore::Events { watch, revision, events }) => {
                if watch == self.watch {
                    self.events(now, revision, &events, out);
                }
            }
            In::Store(FromStore::Disconnected) => self.store_lost(now, out),
        }
    }

    fn handle_timeout(&mut self, now: Now, out: &mut Vec<Out>) {
        if self.load_at.is_some_and(|at| at <= now.mono) {
            self.load(now, out);
        }
        self.time_out_waiting(now, out);
        if !self.cache.is_loaded() {
            return;
        }
        if self.next_bookmarks <= now.mono {
            self.next_bookmarks = now.mono + BOOKMARK_TICK;
            let turns = (limits::BOOKMARK_INTERVAL.as_secs() / BOOKMARK_TICK.as_secs()) as usize;
            self.bookmark_turn = (self.bookmark_turn + 1) % turns;
            self.watchers.bookmark(self.bookmark_turn, turns, self.cache.revision(), out);
        }
        if self.next_compaction <= now.mono {
            self.compact(now, out);
        }
    }

    fn poll_timeout(&self) -> Option<Deadline> {
        let load = self.load_at.map(|at| Deadline { at, why: "load the watch cache" });
        let waiting = self.waiting.iter().map(|w| w.until).min();
        let waiting = waiting.map(|at| Deadline { at, why: "give up waiting for the cache" });
        let regular = self.cache.is_loaded().then_some(Deadline { at: self.next_bookmarks, why: "send bookmarks" });
        let compaction = self.cache.is_loaded().then_some(Deadline { at: self.next_compaction, why: "compact" });
        Deadline::earlier(Deadline::earlier(load, waiting), Deadline::earlier(regular, compaction))
    }
}

#[cfg(test)]
mod tests;
