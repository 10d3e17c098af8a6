//! Clients of one etcd, as the conformance suite drives a store.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use skeg_core::object::{Kinds, Revision};
use skeg_core::store::conformance::Subject;
use skeg_core::store::remote::{FromRemote, Remote};
use skeg_core::store::{FromStore, Progress, StoreReply, StoreRequest, WatchId};
use skeg_etcd::{Etcd, EtcdOptions};

use super::server::Server;

/// How long etcd may take to reply.
const PATIENCE: Duration = Duration::from_secs(30);
/// When progress is asked for again: an etcd whose watch has not caught up says nothing.
const AGAIN: Duration = Duration::from_millis(100);
/// An old etcd chooses at random between progress and events that are ready. After this many rounds of progress none is
/// left.
const ROUNDS: u32 = 20;
/// What etcd counts of watches that still miss something: those that have not caught up, and events on their way.
const MISSING: [&str; 2] = ["etcd_debugging_mvcc_slow_watcher_total ", "etcd_debugging_mvcc_pending_events_total "];

/// One client: a connection and the translation to bytes.
pub struct Client {
    etcd: Etcd,
    url: String,
    remote: Remote,
    inbox: Receiver<FromRemote>,
    next: u64,
    progress: Progress,
    watches: BTreeSet<WatchId>,
    /// A watch was opened since the last wait.
    is_catching_up: bool,
    told: Vec<FromStore>,
}

impl Client {
    /// Connects to etcd, once it is ready.
    pub fn open(server: &Server) -> Client {
        let (etcd, inbox) = server.until_ready(|| {
            let (sender, inbox) = channel();
            let options = EtcdOptions { endpoints: vec![server.url()], ..EtcdOptions::default() };
            // An error means that the client is gone.
            Etcd::open(options, move |message| drop(sender.send(message))).map(|etcd| (etcd, inbox))
        });
        let remote = Remote::new(Kinds::default());
        let (watches, told) = (BTreeSet::new(), Vec::new());
        let mut client = Client {
            etcd,
            url: server.url(),
            remote,
            inbox,
            next: 1,
            progress: Progress::Ordered,
            watches,
            is_catching_up: false,
            told,
        };
        match client.hear(PATIENCE).as_deref() {
            Some([FromStore::Progress(progress)]) => client.progress = *progress,
            other => panic!("{other:?} instead of what progress guarantees"),
        }
        client
    }

    /// What the next message says; `None` if there is none in time.
    fn hear(&mut self, patience: Duration) -> Option<Vec<FromStore>> {
        match self.inbox.recv_timeout(patience) {
            Ok(message) => Some(self.remote.decode(message).expect("only skeg writes to this etcd")),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => panic!("the thread of etcd's client has ended"),
        }
    }

    /// Sends a request and waits for its reply.
    pub fn ask(&mut self, request: &StoreRequest) -> StoreReply {
        let id = self.next;
        self.next += 1;
        let request = self.remote.encode(request);
        self.etcd.ask(id, request);
        loop {
            for message in self.hear(PATIENCE).expect("etcd replies in time") {
                match message {
                    FromStore::Reply(to, reply) if to == id => return reply,
                    other => self.told.push(other),
                }
            }
        }
    }

    /// Waits until etcd has sent what new watches have missed. An old etcd tells progress before that.
    fn catch_up(&self) {
        for _ in 0..PATIENCE.as_millis() / AGAIN.as_millis() {
            let metrics = metrics(&self.url);
            let count = |name: &str| metrics.lines().find_map(|line| line.strip_prefix(name)).map(str::to_owned);
            let counts =
                MISSING.map(|name| count(name).unwrap_or_else(|| panic!("etcd has no metric {name}:{metrics}")));
            if counts.iter().all(|count| count == "0") {
                return;
            }
            std::thread::sleep(AGAIN);
        }
        panic!("etcd's watches do not catch up");
    }

    /// Waits until every event of the past has arrived.
    fn settle(&mut self) {
        if std::mem::take(&mut self.is_catching_up) && self.progress == Progress::Overtakes {
            self.catch_up();
        }
        let rounds = if self.progress == Progress::Overtakes { ROUNDS } else { 1 };
        for _ in 0..rounds {
            let mut silent = self.watches.clone();
            while !silent.is_empty() {
                assert_eq!(self.ask(&StoreRequest::Progress), StoreReply::ProgressAsked);
                while !silent.is_empty() {
                    let Some(heard) = self.hear(AGAIN) else { break };
                    for message in heard {
                        match message {
                            FromStore::Events { watch, events, .. } if events.is_empty() => drop(silent.remove(&watch)),
                            other => self.told.push(other),
                        }
                    }
                }
            }
        }
    }
}

/// What etcd counts, as text.
fn metrics(url: &str) -> String {
    let address = url.strip_prefix("http://").expect("the store's tests use no TLS");
    let mut stream = TcpStream::connect(address).expect("etcd listens");
    stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").expect("etcd reads");
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("etcd answers");
    text
}

/// Clients of one etcd.
pub struct Clients<'a> {
    server: &'a Server,
    clients: BTreeMap<u32, Client>,
}

impl<'a> Clients<'a> {
    /// None yet.
    pub fn new(server: &'a Server) -> Clients<'a> {
        Clients { server, clients: BTreeMap::new() }
    }

    fn client(&mut self, number: u32) -> &mut Client {
        self.clients.entry(number).or_insert_with(|| Client::open(self.server))
    }
}

impl Subject for Clients<'_> {
    fn ask(&mut self, client: u32, request: StoreRequest) -> StoreReply {
        let client = self.client(client);
        let is_progress = request == StoreRequest::Progress;
        let reply = client.ask(&request);
        match (&request, &reply) {
            (StoreRequest::Watch { watch, .. }, StoreReply::Watching { .. }) => {
                client.watches.insert(*watch);
                client.is_catching_up = true;
            }
            (StoreRequest::CancelWatch { watch }, _) => drop(client.watches.remove(watch)),
            (_, _) => {}
        }
        if is_progress {
            // What the test asks for itself is part of what it is told.
            let mut silent = client.watches.clone();
            while !silent.is_empty() {
                for message in client.hear(PATIENCE).expect("etcd tells progress in time") {
                    if let FromStore::Events { watch, events, .. } = &message
                        && events.is_empty()
                    {
                        silent.remove(watch);
                    }
                    client.told.push(message);
                }
            }
        }
        reply
    }

    fn told(&mut self, client: u32, _up_to: Revision) -> Vec<FromStore> {
        let Some(client) = self.clients.get_mut(&client) else { return Vec::new() };
        client.settle();
        std::mem::take(&mut client.told)
    }

    fn pass(&mut self, seconds: u64) {
        std::thread::sleep(Duration::from_secs(seconds));
    }

    fn close(&mut self, client: u32) {
        self.clients.remove(&client);
    }

    fn progress(&self) -> Progress {
        self.clients.values().next().map_or(Progress::Overtakes, |client| client.progress)
    }
}
