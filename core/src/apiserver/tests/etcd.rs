//! The API server with a fake etcd that does everything that etcd is allowed to do. It omits previous values at and
//! before its compacted revision, counts other users' writes, sends pages and fragments, rejects requests, loses
//! replies (whether or not the request was carried out), lets progress notifications overtake events in its old
//! version, and ends watches whose events have been compacted.

use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::time::Duration;

use proptest::prelude::{Strategy, any, prop_oneof};
use proptest::{collection, proptest, sample};
use serde_json::json;
use smallvec::smallvec;

use super::{key, request};
use crate::api::{
    Call, DeleteOptions, FromServer, ListOptions, Reason, ReqId, Response, Status, Subresource, ToServer, WatchEvent,
    WatchOptions, WriteOptions,
};
use crate::apiserver::{ApiServer, Config, ConnId, In, Out};
use crate::machine::{Machine, Mono, Now, Wall};
use crate::object::{Kind, Object, Revision};
use crate::random::Rng;
use crate::store::{
    self, Fragments, FromStore, MemoryStore, Op, Progress, StoreClient, StoreError, StoreKey, StoreReply, StoreRequest,
    Stored, Txn, WatchId, everything,
};

/// The next step.
#[derive(Clone, Debug)]
enum Act {
    Create(u8),
    Update(u8),
    Delete(u8),
    List,
    Get(u8),
    /// Carries out one of the requests in flight; its reply is then in flight.
    Carry(u8),
    /// Delivers a reply.
    Answer(u8),
    /// Loses a request, before or after it is carried out.
    Lose(u8, bool),
    /// The same, and etcd reports that the outcome is unknown.
    Unavailable(u8, bool),
    /// Rejects a write.
    Refuse(u8, StoreError),
    /// Delivers this many events, in one response or in fragments of this size.
    Events(u8, u8),
    /// Another user writes a key outside our prefix.
    Foreign,
    /// Another client compacts at this many revisions ago.
    Compact(u8),
    /// etcd ends the watch if it is permitted to.
    EndWatch,
    Disconnect,
    Tick(u16),
}

fn act() -> impl Strategy<Value = Act> {
    let error = sample::select(vec![StoreError::TooLarge, StoreError::NoSpace, StoreError::Denied]);
    prop_oneof![
        4 => (0..4u8).prop_map(Act::Create),
        6 => (0..4u8).prop_map(Act::Update),
        3 => (0..4u8).prop_map(Act::Delete),
        3 => sample::select(vec![Act::List, Act::Get(0), Act::Get(1)]),
        16 => any::<u8>().prop_map(Act::Carry),
        16 => any::<u8>().prop_map(Act::Answer),
        1 => (any::<u8>(), any::<bool>()).prop_map(|(i, done)| Act::Lose(i, done)),
        1 => (any::<u8>(), any::<bool>()).prop_map(|(i, done)| Act::Unavailable(i, done)),
        1 => (any::<u8>(), error).prop_map(|(i, error)| Act::Refuse(i, error)),
        8 => (1..6u8, 0..3u8).prop_map(|(n, size)| Act::Events(n, size)),
        3 => sample::select(vec![Act::Foreign, Act::Foreign, Act::Foreign, Act::EndWatch, Act::Disconnect]),
        2 => (0..6u8).prop_map(Act::Compact),
        4 => sample::select(vec![50, 150, 1000, 4000]).prop_map(Act::Tick),
    ]
}

/// The values of the ConfigMaps by name.
type State = BTreeMap<String, String>;

/// A client's request.
#[derive(Debug)]
struct Asked {
    call: &'static str,
    name: String,
    /// The value that it writes, which no other request writes.
    value: String,
    /// The store's revision when the request was sent.
    at: Revision,
}

/// A client that lists and watches, and checks everything it receives.
#[derive(Debug, Default)]
struct Reflector {
    listing: Option<ReqId>,
    watching: Option<ReqId>,
    view: State,
    rv: Revision,
}

struct World {
    progress: Progress,
    now: Now,
    server: ApiServer,
    etcd: MemoryStore,
    connection: u32,
    requests: Vec<(u64, StoreRequest)>,
    replies: Vec<(u64, StoreReply)>,
    /// Messages from etcd to the watch, in order.
    stream: VecDeque<FromStore>,
    /// The state after each revision.
    history: BTreeMap<Revision, State>,
    asked: BTreeMap<ReqId, Asked>,
    reflector: Reflector,
    next: u64,
}

fn name(k: u8) -> String {
    format!("c{k}")
}

fn object(name: &str, value: &str) -> Object {
    Object::from_json(json!({"apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": "default"}, "data": {"v": value}}))
    .unwrap()
}

fn value_of(object: &Object) -> String {
    object.to_json()["data"]["v"].as_str().unwrap_or_default().to_owned()
}

impl World {
    fn new(progress: Progress) -> World {
        let mut world = World {
            progress,
            now: Now { mono: Mono::ZERO, wall: Wall(1_700_000_000_000_000) },
            server: ApiServer::new(Config::default(), Rng::from_seed(5)),
            etcd: MemoryStore::new(),
            connection: 1,
            requests: Vec::new(),
            replies: Vec::new(),
            stream: VecDeque::new(),
            history: BTreeMap::from([(Revision(1), State::new())]),
            asked: BTreeMap::new(),
            reflector: Reflector::default(),
            next: 1,
        };
        world.tell(FromStore::Progress(progress));
        world.tick(0);
        world.settle(3);
        assert!(world.server.is_ready());
        world
    }

    fn handle(&mut self, input: In) {
        let mut out = Vec::new();
        self.server.handle(self.now, input, &mut out);
        self.heard(out);
    }

    fn heard(&mut self, out: Vec<Out>) {
        for message in out {
            match message {
                Out::Store(id, request) => self.requests.push((id, request)),
                Out::Client(_, FromServer::Reply(id, result)) => self.replied(id, result),
                Out::Client(_, FromServer::Watch(id, event)) => self.watched(id, event),
                Out::Client(_, FromServer::Disconnected) => panic!("a server does not disconnect"),
                Out::Note(..) | Out::Consult(..) => {}
            }
        }
    }

    fn tell(&mut self, message: FromStore) {
        self.handle(In::Store(message));
    }

    fn tick(&mut self, millis: u16) {
        self.now = self.now + Duration::from_millis(u64::from(millis));
        let mut out = Vec::new();
        self.etcd.handle_timeout(self.now, &mut out);
        self.etcd_says(out);
        let mut out = Vec::new();
        self.server.handle_timeout(self.now, &mut out);
        self.heard(out);
    }

    fn etcd_says(&mut self, out: Vec<store::Out>) {
        let newest = self.etcd.revision();
        if !self.history.contains_key(&newest) {
            let maps = self.etcd.objects(Kind::CONFIG_MAP);
            let state = maps.map(|(key, object)| (key.name().to_owned(), value_of(object))).collect();
            self.history.insert(newest, state);
        }
        for message in out.into_iter().filter(|m| m.to == StoreClient(self.connection)) {
            match message.msg {
                FromStore::Reply(id, reply) => self.replies.push((id, reply)),
                // An old etcd may send a progress notification before earlier events.
                FromStore::Events { events, watch, revision }
                    if events.is_empty() && self.progress == Progress::Overtakes =>
                {
                    self.stream.push_front(FromStore::Events { events, watch, revision });
                }
                other => self.stream.push_back(other),
            }
        }
    }

    fn carry(&mut self, id: u64, mut request: StoreRequest) {
        if let StoreRequest::Range { span, limit, .. } = &mut request
            && span.end == everything().end
        {
            // Whatever the requested limit, a page is short.
            *limit = 3;
        }
        let mut out = Vec::new();
        let input = store::In::Request(StoreClient(self.connection), id, request);
        self.etcd.handle(self.now, input, &mut out);
        self.etcd_says(out);
    }

    fn by_others(&mut self, request: StoreRequest) {
        let mut out = Vec::new();
        self.etcd.handle(self.now, store::In::Request(StoreClient(0), 0, request), &mut out);
        self.etcd_says(out);
    }

    /// Removes and returns one of the requests in flight.
    fn taken(&mut self, i: u8) -> Option<(u64, StoreRequest)> {
        let n = self.requests.len();
        (n > 0).then(|| self.requests.remove(usize::from(i) % n))
    }

    fn answer(&mut self, i: u8) {
        if !self.replies.is_empty() {
            let (id, reply) = self.replies.remove(usize::from(i) % self.replies.len());
            self.tell(FromStore::Reply(id, reply));
        }
    }

    /// Delivers the next messages of the watch: consecutive events in one response, in fragments of `size` events.
    fn events(&mut self, n: u8, size: u8) {
        let compacted = self.etcd.compacted();
        let (mut of, mut header, mut response) = (WatchId(0), Revision(0), Vec::new());
        for _ in 0..n {
            let Some(message) = self.stream.pop_front() else { break };
            match message {
                FromStore::Events { watch, revision, events } if !events.is_empty() => {
                    if of != watch {
                        self.respond(of, header, std::mem::take(&mut response), size);
                    }
                    (of, header) = (watch, revision);
                    response.extend(events.iter().cloned().map(|mut event| {
                        if event.revision <= compacted {
                            event.previous = None;
                            if event.value.is_none() {
                                // In that case, a delete event has only its key.
                                let entry = store::Entry { create_revision: Revision(0), ..(*event.entry).clone() };
                                event.entry = Rc::new(entry);
                            }
                        }
                        event
                    }));
                }
                other => {
                    self.respond(of, header, std::mem::take(&mut response), size);
                    self.tell(other);
                }
            }
        }
        self.respond(of, header, response, size);
    }

    fn respond(&mut self, watch: WatchId, header: Revision, events: Vec<store::StoreEvent>, size: u8) {
        if events.is_empty() {
            return;
        }
        let mut fragments = Fragments::default();
        let size = if size == 0 { events.len() } else { usize::from(size) };
        let chunks = events.len().div_ceil(size);
        for (i, chunk) in events.chunks(size).enumerate() {
            for (revision, events) in fragments.take(header, chunk.to_vec(), i + 1 < chunks) {
                self.tell(FromStore::Events { watch, revision, events });
            }
        }
    }

    fn end_watch(&mut self) {
        let watch = self.stream.iter().find_map(|message| match message {
            FromStore::Events { watch, .. } => Some(*watch),
            _ => None,
        });
        let Some(watch) = watch else { return };
        let compacted = self.etcd.compacted();
        // What another watch has coming stays: the server may have begun one while this one was not known to exist.
        let is_its = |message: &FromStore| matches!(message, FromStore::Events { watch: of, .. } if *of == watch);
        let (ended, left): (VecDeque<_>, VecDeque<_>) = std::mem::take(&mut self.stream).into_iter().partition(is_its);
        self.stream = left;
        let behind = ended.iter().any(|message| {
            matches!(message, FromStore::Events { revision, events, .. } if !events.is_empty() && *revision < compacted)
        });
        let cancel = StoreRequest::CancelWatch { watch };
        let input = store::In::Request(StoreClient(self.connection), 0, cancel);
        self.etcd.handle(self.now, input, &mut Vec::new());
        self.tell(FromStore::WatchCanceled { watch, compacted: behind.then_some(compacted) });
    }

    fn disconnect(&mut self) {
        self.etcd.handle(self.now, store::In::Closed(StoreClient(self.connection)), &mut Vec::new());
        self.connection += 1;
        self.requests.clear();
        self.replies.clear();
        self.stream.clear();
        self.tell(FromStore::Disconnected);
        self.tell(FromStore::Progress(self.progress));
    }

    fn send(&mut self, call: &'static str, name: &str, value: String, what: Call) -> ReqId {
        let id = ReqId(self.next);
        self.next += 1;
        let asked = Asked { call, name: name.to_owned(), value, at: self.etcd.revision() };
        self.asked.insert(id, asked);
        self.handle(In::Client(ConnId(1), ToServer::Request(id, Box::new(request(what)))));
        id
    }

    fn list(&mut self) -> ReqId {
        let call = Call::List { kind: Kind::CONFIG_MAP, namespace: Rc::from(""), options: ListOptions::default() };
        self.send("list", "", String::new(), call)
    }

    /// Continues the reflector's current list or watch.
    fn reflect(&mut self) {
        if self.reflector.listing.is_none() && self.reflector.watching.is_none() {
            // The reply may arrive immediately.
            self.reflector.listing = Some(ReqId(self.next));
            self.list();
        }
    }

    fn state_at(&self, revision: Revision) -> &State {
        self.history.range(..=revision).next_back().expect("there is one from the beginning").1
    }

    fn replied(&mut self, id: ReqId, result: Result<Response, Status>) {
        if self.reflector.watching == Some(id) {
            let status = result.expect_err("a watch ends with an error");
            assert!(
                matches!(status.reason, Reason::Expired | Reason::ServiceUnavailable | Reason::Timeout),
                "{status:?}"
            );
            self.reflector.watching = None;
            return;
        }
        let asked = self.asked.remove(&id).expect("a request is answered once");
        match &result {
            Ok(Response::List { items, rv, .. }) => {
                assert!(*rv >= asked.at, "a list as of {rv:?} was asked for at {:?}", asked.at);
                let listed: State = items.iter().map(|o| (o.name().to_owned(), value_of(o))).collect();
                assert_eq!(&listed, self.state_at(*rv), "a list as of {rv:?}");
                if self.reflector.listing == Some(id) {
                    (self.reflector.view, self.reflector.rv) = (listed, *rv);
                }
            }
            Ok(Response::Object(object)) if asked.call == "get" => {
                let (seen, name) = (value_of(object), &asked.name);
                let since = self.history.range(..=asked.at).next_back().map_or(Revision(1), |(rv, _)| *rv);
                let stood = self.history.range(since..).any(|(_, state)| state.get(name) == Some(&seen));
                assert!(stood, "{name} was not {seen} since {:?}", asked.at);
            }
            Ok(Response::Object(object)) => {
                let found = self.state_at(object.rv()).get(&asked.name);
                let expect = (asked.call != "delete").then_some(&asked.value);
                assert_eq!(found, expect, "{asked:?} at {:?}", object.rv());
            }
            Ok(_) => {}
            Err(status) if status.is_unknown_outcome() => {}
            Err(status) => {
                let written = self.history.values().any(|state| state.values().any(|v| *v == asked.value));
                assert!(!written || asked.value.is_empty(), "{asked:?} was refused with {status:?} and done");
            }
        }
        if self.reflector.listing == Some(id) {
            self.reflector.listing = None;
            if result.is_ok() {
                let options = WatchOptions { rv: self.reflector.rv, bookmarks: true, ..WatchOptions::default() };
                let call = Call::Watch { kind: Kind::CONFIG_MAP, namespace: Rc::from(""), options };
                self.reflector.watching = Some(ReqId(self.next));
                self.send("watch", "", String::new(), call);
            }
        }
    }

    fn watched(&mut self, id: ReqId, event: WatchEvent) {
        assert_eq!(self.reflector.watching, Some(id), "{event:?}");
        let (view, before) = (&mut self.reflector.view, self.reflector.rv);
        let rv = match &event {
            WatchEvent::Added(o) => {
                assert_eq!(view.insert(o.name().to_owned(), value_of(o)), None, "{event:?}");
                o.rv()
            }
            WatchEvent::Modified(o) => {
                assert!(view.insert(o.name().to_owned(), value_of(o)).is_some(), "{event:?}");
                o.rv()
            }
            WatchEvent::Deleted(o) => {
                assert!(view.remove(o.name()).is_some(), "{event:?}");
                o.rv()
            }
            WatchEvent::Bookmark { rv, .. } => *rv,
        };
        assert!(rv > before, "{event:?} came after {before:?}");
        self.reflector.rv = rv;
        let state = self.history.range(..=rv).next_back().expect("there is one from the beginning").1;
        assert_eq!(&self.reflector.view, state, "after {event:?}");
    }

    fn act(&mut self, act: &Act) {
        match act {
            Act::Create(k) => {
                let (name, value) = (name(*k), self.next.to_string());
                let call = Call::Create { object: object(&name, &value), options: WriteOptions::default() };
                self.send("create", &name, value, call);
            }
            Act::Update(k) => {
                let (name, value) = (name(*k), self.next.to_string());
                let (object, options) = (object(&name, &value), WriteOptions::default());
                self.send("update", &name, value, Call::Update { object, subresource: Subresource::None, options });
            }
            Act::Delete(k) => {
                let key = key(Kind::CONFIG_MAP, &name(*k));
                let call = Call::Delete { key, options: DeleteOptions::default() };
                self.send("delete", &name(*k), String::new(), call);
            }
            Act::List => drop(self.list()),
            Act::Get(k) => {
                let key = key(Kind::CONFIG_MAP, &name(*k));
                self.send("get", &name(*k), String::new(), Call::Get { key, rv: None });
            }
            Act::Carry(i) => {
                if let Some((id, request)) = self.taken(*i) {
                    self.carry(id, request);
                }
            }
            Act::Answer(i) => self.answer(*i),
            Act::Lose(i, done) | Act::Unavailable(i, done) => {
                let Some((id, request)) = self.taken(*i) else { return };
                if *done {
                    self.carry(id, request);
                    self.replies.retain(|(other, _)| *other != id);
                }
                if matches!(act, Act::Unavailable(..)) {
                    self.tell(FromStore::Reply(id, StoreReply::Error(StoreError::Unavailable)));
                }
            }
            Act::Refuse(i, error) => {
                let Some((id, request)) = self.taken(*i) else { return };
                match request {
                    StoreRequest::Txn(txn) if !txn.compare.is_empty() => {
                        self.tell(FromStore::Reply(id, StoreReply::Error(error.clone())));
                    }
                    other => self.requests.push((id, other)),
                }
            }
            Act::Events(n, size) => self.events(*n, *size),
            Act::Foreign => {
                let key = StoreKey::Private(Rc::from("\u{10FFFF} not ours"));
                let put = Op::Put { key, value: Stored::mark("x"), lease: None };
                self.by_others(StoreRequest::Txn(Box::new(Txn { success: smallvec![put], ..Txn::default() })));
            }
            Act::Compact(ago) => {
                let at = Revision(self.etcd.revision().0.saturating_sub(u64::from(*ago)));
                self.by_others(StoreRequest::Compact { at });
            }
            Act::EndWatch => self.end_watch(),
            Act::Disconnect => self.disconnect(),
            Act::Tick(millis) => self.tick(*millis),
        }
        self.reflect();
    }

    /// Runs this many seconds without faults.
    fn settle(&mut self, seconds: u64) {
        for _ in 0..seconds * 5 {
            while !(self.requests.is_empty() && self.replies.is_empty() && self.stream.is_empty()) {
                while !self.requests.is_empty() {
                    let (id, request) = self.requests.remove(0);
                    self.carry(id, request);
                }
                self.events(u8::MAX, 0);
                while !self.replies.is_empty() {
                    self.answer(0);
                }
            }
            self.tick(200);
        }
    }
}

fn run(progress: Progress, acts: &[Act]) {
    let mut world = World::new(progress);
    world.reflect();
    for act in acts {
        world.act(act);
    }
    world.settle(40);
    world.reflect();
    world.settle(10);
    assert!(world.server.is_ready(), "it connects again");
    world.asked.retain(|_, asked| asked.call != "watch");
    assert!(world.asked.is_empty(), "nobody waits for ever: {:?}", world.asked);
    let newest = world.state_at(world.etcd.revision());
    assert!(world.reflector.watching.is_some());
    assert_eq!(&world.reflector.view, newest, "no event is lost");
    // Another user's write advances the revision; a consistent read must still be answered.
    world.act(&Act::Foreign);
    let list = world.list();
    world.settle(2);
    assert!(!world.asked.contains_key(&list), "a consistent read comes");
}

proptest! {
    #[test]
    fn it_loses_nothing_whatever_etcd_does(
        progress in sample::select(vec![Progress::Ordered, Progress::Overtakes]),
        acts in collection::vec(act(), 1..150),
    ) {
        run(progress, &acts);
    }
}

/// The server does not know that its first watch exists, since the reply was an error; that watch ends while another
/// one has the same event coming.
#[test]
fn a_watch_that_ends_takes_no_events_of_another() {
    let acts = [
        Act::Carry(0),
        Act::Create(0),
        Act::Carry(0),
        Act::EndWatch,
        Act::Tick(150),
        Act::Unavailable(0, true),
        Act::Tick(1000),
        Act::Carry(0),
        Act::Carry(0),
        Act::EndWatch,
    ];
    run(Progress::Ordered, &acts);
}

/// A progress notification that overtakes an event must not be trusted.
#[test]
fn an_old_etcds_notice_of_progress_is_not_believed() {
    for progress in [Progress::Ordered, Progress::Overtakes] {
        let mut world = World::new(progress);
        world.reflect();
        world.settle(1);
        world.act(&Act::Create(0));
        // The write is carried out and answered; its event is in flight, and so is a later progress notification.
        while !world.requests.is_empty() {
            world.act(&Act::Carry(0));
        }
        let watch = world.stream.iter().find_map(|m| match m {
            FromStore::Events { watch, .. } => Some(*watch),
            _ => None,
        });
        let (revision, events) = (world.etcd.revision(), store::Batch::from_iter([]));
        let notice = FromStore::Events { watch: watch.expect("the event of the create"), revision, events };
        if progress == Progress::Overtakes {
            world.stream.push_front(notice);
        } else {
            world.stream.push_back(notice);
        }
        let list = world.list();
        world.settle(3);
        assert!(!world.asked.contains_key(&list));
        assert_eq!(world.reflector.view.len(), 1, "{progress:?}");
    }
}

#[test]
fn refusals_are_told_from_what_nobody_knows() {
    for (error, code, message) in [
        (StoreError::TooLarge, 413, "Request entity too large: etcdserver: request is too large"),
        (StoreError::NoSpace, 500, "Internal error occurred: etcdserver: mvcc: database space exceeded"),
        (StoreError::Denied, 500, "Internal error occurred: etcdserver: permission denied"),
        (StoreError::Unavailable, 504, "Timeout: request did not complete within the allotted timeout"),
    ] {
        let status = crate::apiserver::write::refused(&error);
        assert_eq!((status.reason.code(), &*status.message), (code, message));
        assert_eq!(status.is_unknown_outcome(), error == StoreError::Unavailable);
    }
}
