//! The API server machine.
//!
//! What comes in: requests from clients, each on a connection; replies and events from the store. What goes out:
//! replies and watch events to clients; requests to the store. Never uses another server's memory to answer. Never
//! writes except by a transaction on the revision from which the write was decided.
//!
//! Path of a write: decode → admit → default → validate → transact → reply. Several servers can use one store; each has
//! its own watch cache, which may lag. Writes are decided from the cache and checked by the store: after a failed
//! transaction, and before a rejection that is based on a cached value, the server reads the newest value from the
//! store.
//!
//! One watch covers the whole store, so that the cache is the state of the store at one revision, for all kinds.

mod addresses;
mod admission;
mod cache;
mod certificate;
mod collection;
mod conversion;
mod create;
mod custom;
mod delete;
mod event_lease;
mod eviction;
mod fields;
mod gated;
mod housekeeping;
mod inflight;
mod list;
mod managed;
mod namespace;
mod pod;
mod policy;
mod scale;
mod service_ip;
mod service_range;
mod store_link;
mod update;
mod watch;
mod write;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use serde::{Deserialize, Serialize};

use crate::api::{Call, FromServer, ReqId, Request, Response, Status, ToServer};
use crate::auth::Mode;
use crate::features::FeatureGates;
use crate::limits;
use crate::machine::{Deadline, Machine, Mono, Now};
use crate::object::{Kind, KindRef, Kinds, Object, ObjectKey, Revision};
use crate::random::Rng;
use crate::read_ahead::Step;
use crate::store::{FromStore, StoreReply, StoreRequest};

pub use admission::plug_ins;
pub use admission::webhook::{Answered, Callee, Consultation};
use cache::Cache;
pub use conversion::{Conversion, Converted};
use inflight::{InFlight, Window};
use list::{Page, Read, ReadKind};
pub use service_ip::{DEFAULT_SERVICE_CIDR, parse_cidr};
pub use service_range::{ALLOCATOR, DEFAULT_SERVICE_CIDR_NAME, MANAGED_BY_LABEL, ip_address};
use watch::Watchers;
use write::{Origin, Write};

/// Identifies a client's connection. After a reconnect it is a different connection.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash, Serialize, Deserialize)]
pub struct ConnId(pub u64);

/// Inputs of the API server.
#[derive(Debug, Serialize, Deserialize)]
pub enum In {
    /// A message from a client; the first message opens the connection.
    Client(ConnId, ToServer),
    /// A client's connection was closed.
    Closed(ConnId),
    /// A reply or event from the store.
    Store(FromStore),
    /// The answers to the questions with this number, in their order.
    Consulted(u64, Vec<Answered>),
}

/// Outputs of the API server.
#[derive(Debug, Serialize, Deserialize)]
pub enum Out {
    /// To a client.
    Client(ConnId, FromServer),
    /// A note about a request, sent before its reply.
    Note(ConnId, ReqId, Note),
    /// To the store, with an id that its reply repeats.
    Store(u64, StoreRequest),
    /// Questions to be asked outside, all at once, with a number that the answers repeat. The driver has to answer
    /// each, if only with a failure.
    Consult(u64, Vec<Consultation>),
}

/// Something about a request that its reply does not say.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Note {
    /// A warning for the client.
    Warning(Box<str>),
    /// A server-side apply has created the object.
    Created,
}

/// Configuration of an API server.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Config {
    /// Name, for traces.
    pub name: Rc<str>,
    /// `--service-cluster-ip-range`: network and prefix length.
    pub service_cidr: ([u8; 4], u8),
    /// `--service-node-port-range`, inclusive at both ends.
    pub node_port_range: (u16, u16),
    /// `--disable-admission-plugins`; [`plug_ins`] are the names that have a meaning.
    pub disabled_plug_ins: BTreeSet<String>,
    /// Whether webhooks are asked about writes, and to convert. Otherwise their configurations have no effect.
    pub webhooks: bool,
    /// Whether the admission plug-in ServiceAccount gives pods a volume with a token of their account.
    pub mount_tokens: bool,
    /// The kinds of its world, in which custom kinds get their numbers.
    #[serde(skip)]
    pub kinds: Kinds,
    /// Whether `managedFields` are tracked from the creation of an object on, as in Kubernetes. Otherwise they are
    /// tracked from its first apply on, and cost nothing before.
    pub track_fields: bool,
    /// `--authorization-mode`: how it is decided what the identity of a request may do. Without it, every client is
    /// trusted, and the server keeps no policy.
    pub authorisation: Option<Vec<Mode>>,
    /// `--feature-gates`. In a recording that does not say so, all are off.
    #[serde(default)]
    pub features: FeatureGates,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            name: Rc::from("kube-apiserver"),
            service_cidr: DEFAULT_SERVICE_CIDR,
            node_port_range: (30000, 32767),
            disabled_plug_ins: BTreeSet::new(),
            webhooks: false,
            mount_tokens: false,
            kinds: Kinds::default(),
            track_fields: false,
            authorisation: None,
            features: FeatureGates::default(),
        }
    }
}

/// The purpose of a request to the store.
#[derive(Debug)]
enum Job {
    /// Loads the cache.
    Load,
    /// Starts the watch with this id.
    Watch,
    /// Commits a write.
    Commit(Box<Write>),
    /// Reads fresh values for a write.
    FetchFresh(Box<Write>),
    /// Reads the store's revision for a consistent read.
    Revision(Box<Read>),
    /// Reads one object from the store.
    Get(ConnId, ReqId, ObjectKey),
    /// Reads a page of a list from the store.
    Page(Box<Page>),
    /// Tries to take the turn to compact.
    CompactTurn,
    /// Grants a lease for the next Events.
    EventLease,
    /// The reply is ignored.
    Forget,
}

/// An API server. See the module's documentation.
#[derive(Debug)]
pub struct ApiServer {
    config: Config,
    rng: Rng,
    cache: Cache,
    customs: custom::Customs,
    grants: Option<policy::Grants>,
    hooks: admission::webhook::Hooks,
    policies: admission::policy::Policies,
    /// Writes that wait for answers from outside.
    consulting: BTreeMap<u64, Box<Write>>,
    watchers: Watchers,
    link: store_link::Link,
    inflight: Window,
    /// The id of the next request to the store; these have no gaps.
    next_id: u64,
    /// The id of the next collection or consultation.
    next_task: u64,
    waits: list::Waits,
    memo: admission::Memo,
    event_lease: event_lease::EventLease,
    collections: BTreeMap<u64, collection::Collection>,
    compaction: housekeeping::Compaction,
    next_tick: Mono,
}

impl ApiServer {
    /// Creates a server with an empty cache; the first `handle_timeout` connects it to the store.
    pub fn new(config: Config, rng: Rng) -> ApiServer {
        ApiServer {
            grants: config.authorisation.as_deref().map(policy::Grants::new),
            config,
            rng,
            cache: Cache::default(),
            customs: custom::Customs::default(),
            hooks: admission::webhook::Hooks::default(),
            policies: admission::policy::Policies::default(),
            consulting: BTreeMap::new(),
            watchers: Watchers::default(),
            link: store_link::Link::new(),
            inflight: Window::default(),
            next_id: 1,
            next_task: 1,
            waits: list::Waits::default(),
            memo: admission::Memo::default(),
            event_lease: event_lease::EventLease::default(),
            collections: BTreeMap::new(),
            compaction: housekeeping::Compaction::default(),
            next_tick: Mono::ZERO,
        }
    }

    /// Name of the server.
    pub fn name(&self) -> &str {
        &self.config.name
    }

    /// Who asked for a write that the store has not answered yet, and over which connection; `None` if it is the
    /// server's own, or no write.
    pub fn asker(&self, id: u64) -> Option<(ConnId, &str)> {
        match self.inflight.get(id)? {
            Job::Commit(write) => write.asker(),
            _ => None,
        }
    }

    /// The revision of its watch cache; zero before the cache is loaded.
    pub fn revision(&self) -> Revision {
        self.cache.revision()
    }

    /// Whether it can answer: its cache is loaded and its watch of the store is open.
    pub fn is_ready(&self) -> bool {
        self.link.is_up()
    }

    /// The objects of a kind in its watch cache, in key order.
    pub fn cached(&self, kind: Kind) -> impl Iterator<Item = (&ObjectKey, &Object)> {
        self.cache.objects(kind)
    }

    /// An object in its watch cache.
    pub fn cached_object(&self, key: &ObjectKey) -> Option<&Object> {
        self.cache.get(key)
    }

    /// The objects of a kind in a namespace (empty: in all namespaces) in its watch cache, in key order.
    pub fn cached_in(&self, kind: Kind, namespace: &str) -> impl Iterator<Item = (&ObjectKey, &Object)> {
        self.cache.range(kind, namespace)
    }

    /// Reads ahead the memory that writes of these objects will touch.
    pub fn read_ahead(&self, keys: &[&ObjectKey], step: Step) {
        keys.iter().for_each(|key| self.cache.read_ahead(key, step));
    }

    /// Which feature gates are on.
    pub fn features(&self) -> FeatureGates {
        self.config.features
    }

    /// The kinds that its world knows, whether or not this server serves them.
    pub fn kinds(&self) -> &Kinds {
        &self.config.kinds
    }

    /// Whether it serves a kind at present.
    #[inline]
    pub fn serves(&self, kind: Kind) -> bool {
        match kind.built_in() {
            None => self.customs.of(kind).is_some(),
            Some(row) => row.verbs.stored() && self.config.features.serves(kind),
        }
    }

    /// Every resource that it serves at present, built-in ones first; for discovery.
    pub fn resources(&self) -> impl Iterator<Item = (Kind, KindRef)> {
        self.config.kinds.all().filter(|kind| self.serves(*kind)).map(|kind| (kind, self.config.kinds.info(kind)))
    }

    /// Finds a served resource by the group, version and plural name in a path.
    pub fn by_path(&self, group: &str, version: &str, plural: &str) -> Option<(Kind, KindRef)> {
        let kind = self.config.kinds.by_path(group, version, plural).filter(|kind| self.serves(*kind))?;
        Some((kind, self.config.kinds.info(kind)))
    }

    /// How many watches of a kind it serves.
    pub fn watches(&self, kind: Kind) -> usize {
        self.watchers.count(kind)
    }

    fn request(&mut self, now: Now, conn: ConnId, id: ReqId, request: Box<Request>, out: &mut Vec<Out>) {
        if !self.link.is_up() {
            return reply(conn, id, Err(unavailable()), out);
        }
        if !self.serves(request.call.kind()) {
            return reply(conn, id, Err(Status::not_served()), out);
        }
        let what = match &request.call {
            Call::Get { .. } | Call::List { .. } | Call::Watch { .. } => ReadKind::of(request.call),
            Call::DeleteCollection { .. } => return self.delete_collection(now, conn, id, request, out),
            Call::GetScale { .. }
            | Call::Create { .. }
            | Call::Update { .. }
            | Call::Patch { .. }
            | Call::Delete { .. }
            | Call::Bind { .. }
            | Call::Evict { .. }
            | Call::Connect { .. }
            | Call::SetScale { .. } => return self.write(now, Write::new(Origin::Client(conn, id), request), out),
        };
        self.read(now, Read { conn, id, what }, out);
    }

    /// Numbers something that outlives requests to the store.
    fn next_task(&mut self) -> u64 {
        let id = self.next_task;
        self.next_task += 1;
        id
    }

    #[inline(always)]
    fn ask_store(&mut self, now: Now, job: Job, request: StoreRequest, out: &mut Vec<Out>) -> u64 {
        let id = self.next_id;
        self.next_id += 1;
        self.inflight.push(id, InFlight { sent: now.mono, job });
        out.push(Out::Store(id, request));
        id
    }

    #[inline(always)]
    fn store_says(&mut self, now: Now, message: FromStore, out: &mut Vec<Out>) {
        self.link.heard(now);
        match message {
            FromStore::Reply(id, answer) => {
                // A reply with an unknown id belongs to a request that has timed out.
                if let Some(InFlight { job, .. }) = self.inflight.take(id) {
                    self.store_answers(now, id, job, answer, out);
                }
            }
            FromStore::Events { watch, revision, events } => {
                let counts = self.link.watches(watch) && (!events.is_empty() || self.link.trusts_progress());
                if counts && revision > self.cache.revision() {
                    self.advance(now, revision, &events, out);
                }
            }
            FromStore::WatchCanceled { watch, compacted } => self.watch_canceled(now, watch, compacted, out),
            FromStore::Progress(progress) => self.link.set_progress(progress),
            FromStore::Disconnected => self.lose_store(now, out),
        }
    }

    fn store_answers(&mut self, now: Now, id: u64, job: Job, answer: StoreReply, out: &mut Vec<Out>) {
        match job {
            Job::Load => self.loaded(now, answer, out),
            Job::Watch => self.watching(now, id, answer, out),
            Job::Commit(write) => self.committed(now, write, answer, out),
            Job::FetchFresh(write) => self.fetched_fresh(now, write, answer, out),
            Job::Revision(read) => self.revision_known(now, *read, answer, out),
            Job::Get(conn, id, key) => list::got(conn, id, &self.config.kinds.info(key.kind), &key, answer, out),
            Job::Page(page) => self.page_read(now, *page, answer, out),
            Job::CompactTurn => self.compact(now, answer, out),
            Job::EventLease => self.event_lease_granted(now, answer, out),
            Job::Forget => {}
        }
    }

    /// Handles a request to the store whose reply will not come.
    fn give_up(&mut self, now: Now, job: Job, out: &mut Vec<Out>) {
        match job {
            Job::Commit(write) => self.answer(now, write.origin, Err(unknown_outcome()), out),
            Job::FetchFresh(write) => self.answer(now, write.origin, Err(unavailable()), out),
            Job::Revision(read) => reply(read.conn, read.id, Err(unavailable()), out),
            Job::Get(conn, id, _) => reply(conn, id, Err(unavailable()), out),
            Job::Page(page) => reply(page.conn, page.id, Err(unavailable()), out),
            Job::EventLease => self.event_lease_failed(now, &unavailable(), out),
            Job::Load | Job::Watch => self.connecting_failed(now),
            Job::CompactTurn | Job::Forget => {}
        }
    }
}

fn reply(conn: ConnId, id: ReqId, result: Result<Response, Status>, out: &mut Vec<Out>) {
    out.push(Out::Client(conn, FromServer::Reply(id, result)));
}

fn unavailable() -> Status {
    Status::unavailable("the server is currently unable to handle the request")
}

fn unknown_outcome() -> Status {
    Status::timeout("Timeout: request did not complete within the allotted timeout")
}

impl Machine for ApiServer {
    type In = In;
    type Out = Out;

    fn handle(&mut self, now: Now, input: In, out: &mut Vec<Out>) {
        match input {
            In::Client(conn, ToServer::Request(id, request)) => self.request(now, conn, id, request, out),
            In::Client(conn, ToServer::Cancel(id)) => {
                self.watchers.cancel(conn, id);
                self.waits.cancel(conn, id);
            }
            In::Closed(conn) => {
                self.watchers.close(conn);
                self.waits.close(conn);
            }
            In::Store(message) => self.store_says(now, message, out),
            In::Consulted(id, answers) => self.consulted(now, id, answers, out),
        }
    }

    fn handle_timeout(&mut self, now: Now, out: &mut Vec<Out>) {
        if self.link.is_due(now) {
            self.connect(now, out);
        }
        if self.link.wants_progress(now) {
            self.ask_for_progress(now, out);
        }
        if now.mono >= self.next_tick {
            self.next_tick = now.mono + limits::HOUSEKEEPING_INTERVAL;
            self.housekeep(now, out);
        }
    }

    fn poll_timeout(&self) -> Option<Deadline> {
        Deadline::earlier(self.link.deadline(), Some(Deadline { at: self.next_tick, why: "housekeeping" }))
    }
}
