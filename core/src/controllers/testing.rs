//! A small cluster for tests: an in-memory API server whose replies get lost and whose watches lag, and pods that
//! become ready and terminate by themselves.

use std::any::Any;
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::time::Duration;

use crate::api::{
    Call, FromServer, Patch, Precondition, Propagation, ReqId, Response, Status, Subresource, ToServer, WatchEvent,
};
use crate::machine::{Machine, Mono, Now, Wall};
use crate::object::{Kind, Object, ObjectKey, PodCondition, PodStatus, Revision, Text, is_pod_active, is_pod_ready};
use crate::random::Rng;

/// Wall time at the start of every test.
pub const EPOCH: i64 = 1_700_000_000_000_000;

/// The store and the API server combined.
#[derive(Debug, Default)]
pub struct Server {
    pub objects: BTreeMap<ObjectKey, Object>,
    pub revision: u64,
    log: Vec<WatchEvent>,
    uids: u64,
    /// Every create that was carried out.
    pub created: Vec<ObjectKey>,
    /// Whether creates of pods are rejected.
    pub refuse_pods: bool,
    leases: BTreeMap<ObjectKey, (i32, Revision)>,
}

impl Server {
    fn commit(&mut self, mut object: Object, event: fn(Object) -> WatchEvent) -> Object {
        self.revision += 1;
        object.set_rv(Revision(self.revision));
        if let Object::Lease(lease) = &object {
            let transitions = lease.spec.lease_transitions.unwrap_or(0);
            let entry = self.leases.entry(object.key()).or_insert((transitions, object.rv()));
            if entry.0 != transitions {
                *entry = (transitions, object.rv());
            }
        }
        self.log.push(event(object.clone()));
        object
    }

    fn put(&mut self, object: Object) -> Object {
        let object = self.commit(object, WatchEvent::Modified);
        self.objects.insert(object.key(), object.clone());
        object
    }

    /// Creates an object as a user would.
    pub fn create(&mut self, now: Now, mut object: Object) -> Result<Object, Status> {
        let key = object.key();
        assert!(!key.name().is_empty(), "the client names what it creates");
        if self.objects.contains_key(&key) {
            return Err(Status::already_exists(key.kind.row(), key.name()));
        }
        if self.refuse_pods && key.kind == Kind::POD {
            return Err(Status::forbidden(key.kind.row(), key.name(), "exceeded quota"));
        }
        self.uids += 1;
        let uid = format!("uid-{}", self.uids);
        let meta = object.meta_mut();
        meta.uid = Some(uid);
        meta.creation_timestamp = Some(now.wall.to_time());
        meta.generation = Some(1);
        let object = self.commit(object, WatchEvent::Added);
        self.objects.insert(key.clone(), object.clone());
        self.created.push(key);
        Ok(object)
    }

    /// Changes an object in any way, as a user would.
    pub fn edit(&mut self, key: &ObjectKey, edit: impl FnOnce(&mut Object)) {
        let old = self.objects[key].clone();
        let mut new = old.clone();
        edit(&mut new);
        self.replace(old, new);
    }

    fn replace(&mut self, old: Object, mut new: Object) -> Object {
        if !old.same_spec(&new) {
            let generation = old.meta().generation.unwrap_or(0) + 1;
            new.meta_mut().generation = Some(generation);
        }
        if old.meta() == new.meta() && old.same_spec(&new) && old.same_status(&new) {
            return old;
        }
        self.put(new)
    }

    fn find(&self, key: &ObjectKey, condition: &Precondition) -> Result<Object, Status> {
        let found = self.objects.get(key).ok_or_else(|| Status::not_found(key.kind.row(), key.name()))?;
        if condition.uid.as_deref().is_some_and(|uid| uid != found.uid()) {
            return Err(Status::conflict(key.kind.row(), key.name(), "Precondition failed: UID in precondition"));
        }
        if condition.rv.is_some_and(|rv| rv != found.rv()) {
            return Err(Status::stale(key.kind.row(), key.name()));
        }
        Ok(found.clone())
    }

    /// Removes an object immediately.
    pub fn remove(&mut self, key: &ObjectKey) {
        let object = self.objects.remove(key).expect("what is removed is there");
        self.commit(object, WatchEvent::Deleted);
    }

    fn delete(&mut self, now: Now, key: &ObjectKey, condition: &Precondition) -> Result<Object, Status> {
        let mut object = self.find(key, condition)?;
        if key.kind == Kind::POD {
            if object.is_deleting() {
                return Ok(object);
            }
            object.meta_mut().deletion_timestamp = Some(now.wall.to_time());
            return Ok(self.put(object));
        }
        self.objects.remove(key);
        Ok(self.commit(object, WatchEvent::Deleted))
    }

    fn orphan(&mut self, owner: &str) {
        let owned = |o: &&Object| o.meta().owner_references.iter().flatten().any(|r| r.uid == owner);
        let dependants: Vec<Object> = self.objects.values().filter(owned).cloned().collect();
        for mut object in dependants {
            object.meta_mut().owner_references = None;
            self.put(object);
        }
    }

    fn call(&mut self, now: Now, call: Call) -> Result<Response, Status> {
        Ok(Response::Object(match call {
            Call::Get { key, .. } => self.find(&key, &Precondition::default())?,
            Call::Create { object, .. } => self.create(now, object)?,
            Call::Update { object: new, subresource, .. } => {
                let rv = (new.rv().0 != 0).then_some(new.rv());
                let old = self.find(&new.key(), &Precondition { uid: None, rv })?;
                let mut merged = if subresource == Subresource::Status { old.clone() } else { new.clone() };
                merged.take_status(if subresource == Subresource::Status { &new } else { &old });
                self.replace(old, merged)
            }
            Call::Patch { key, patch: Patch::Merge(body), precondition, .. } => {
                let old = self.find(&key, &precondition)?;
                let mut value = old.to_json();
                json_patch::merge(&mut value, &body);
                self.replace(old, Object::from_json(value).expect("a patch keeps an object readable"))
            }
            Call::Delete { key, options } => {
                let deleted = self.delete(now, &key, &options.precondition)?;
                if options.propagation == Some(Propagation::Orphan) {
                    self.orphan(deleted.uid());
                }
                deleted
            }
            Call::List { kind, options, .. } => {
                let of_kind = self.objects.iter().filter(|(k, o)| k.kind == kind && options.labels.matches(o.labels()));
                let items = Rc::new(of_kind.map(|(_, o)| o.clone()).collect());
                let rv = Revision(self.revision);
                return Ok(Response::List { items, rv, rest: None });
            }
            other => panic!("the miniature server cannot {other:?}"),
        }))
    }

    fn is_fenced_off(&self, request: &crate::api::Request) -> bool {
        request.fence.as_ref().is_some_and(|f| self.leases.get(&f.lease).is_none_or(|(_, epoch)| *epoch != f.epoch))
    }

    /// Objects of a kind.
    pub fn of(&self, kind: Kind) -> impl Iterator<Item = &Object> {
        self.objects.iter().filter(move |(k, _)| k.kind == kind).map(|(_, o)| o)
    }

    /// Number of active pods and number of ready pods among them.
    pub fn pods(&self) -> (usize, usize) {
        let active = || self.of(Kind::POD).filter_map(Object::get).filter(|p| is_pod_active(p));
        (active().count(), active().filter(|p| is_pod_ready(p)).count())
    }
}

#[derive(Debug)]
struct OpenWatch {
    id: ReqId,
    kind: Kind,
    /// How many events of the log have been sent.
    sent: usize,
    /// Nothing is delivered before this time.
    free: Mono,
}

/// A machine whose state a test can inspect.
pub trait Tested: Machine<In = FromServer, Out = ToServer> + Any {}

impl<M: Machine<In = FromServer, Out = ToServer> + Any> Tested for M {}

/// A machine that talks to the server over an unreliable connection.
pub struct Client {
    pub machine: Box<dyn Tested>,
    watches: Vec<OpenWatch>,
    inbox: BTreeMap<(Mono, u64), FromServer>,
}

/// A server, its clients, and running pods.
pub struct Cluster {
    pub now: Now,
    pub server: Server,
    pub clients: Vec<Client>,
    rng: Rng,
    sequence: u64,
    /// Percentage of requests that are lost, on the way to the server or back.
    pub loss: u64,
    /// Longest delay of an event.
    pub lag: Duration,
    /// How long a pod takes to become ready.
    pub start_time: Duration,
    /// Pods with this image never become ready.
    pub broken_image: &'static str,
    next_tick: Mono,
}

impl Cluster {
    pub fn new(seed: u64) -> Cluster {
        Cluster {
            now: Now { mono: Mono::ZERO, wall: Wall(EPOCH) },
            server: Server::default(),
            clients: Vec::new(),
            rng: Rng::from_seed(seed),
            sequence: 0,
            loss: 0,
            lag: Duration::from_millis(50),
            start_time: Duration::from_secs(2),
            broken_image: "broken",
            next_tick: Mono::ZERO,
        }
    }

    /// Adds a machine; returns its index.
    pub fn add(&mut self, machine: Box<dyn Tested>) -> usize {
        self.clients.push(Client { machine, watches: Vec::new(), inbox: BTreeMap::new() });
        self.wake(self.clients.len() - 1);
        self.clients.len() - 1
    }

    /// Replaces a client's machine, as after a crash.
    pub fn restart(&mut self, index: usize, machine: Box<dyn Tested>) {
        self.clients[index] = Client { machine, watches: Vec::new(), inbox: BTreeMap::new() };
        self.wake(index);
    }

    /// A client's machine.
    pub fn machine<M: Tested>(&mut self, index: usize) -> &mut M {
        let machine: &mut dyn Any = &mut *self.clients[index].machine;
        machine.downcast_mut().expect("the test knows what it put there")
    }

    fn wake(&mut self, index: usize) {
        let mut out = Vec::new();
        self.clients[index].machine.handle_timeout(self.now, &mut out);
        self.take(index, out);
    }

    fn post(&mut self, index: usize, at: Mono, message: FromServer) {
        self.sequence += 1;
        self.clients[index].inbox.insert((at, self.sequence), message);
    }

    fn delay(&mut self) -> Mono {
        self.now.mono + self.rng.duration(Duration::from_millis(1), Duration::from_millis(20))
    }

    fn take(&mut self, index: usize, out: Vec<ToServer>) {
        for message in out {
            match message {
                ToServer::Cancel(id) => self.clients[index].watches.retain(|w| w.id != id),
                ToServer::Request(id, request) => {
                    if let Call::Watch { kind, options, .. } = &request.call {
                        let sent = self.server.log.partition_point(|e| e.rv() <= options.rv);
                        let watch = OpenWatch { id, kind: *kind, sent, free: self.now.mono };
                        self.clients[index].watches.push(watch);
                        continue;
                    }
                    let lost_there = self.rng.chance(self.loss, 200);
                    let lost_back = self.rng.chance(self.loss, 200);
                    if lost_there {
                        continue;
                    }
                    let reply = if self.server.is_fenced_off(&request) {
                        Err(Status::fenced(Kind::LEASE.row(), "", "x"))
                    } else {
                        self.server.call(self.now, request.call)
                    };
                    if !lost_back {
                        let at = self.delay();
                        self.post(index, at, FromServer::Reply(id, reply));
                    }
                }
            }
        }
        self.publish();
    }

    /// Sends new events to the watches, each in order and with a delay.
    fn publish(&mut self) {
        for index in 0..self.clients.len() {
            for w in 0..self.clients[index].watches.len() {
                let late = self.now.mono + self.rng.duration(Duration::from_millis(1), self.lag);
                let watch = &mut self.clients[index].watches[w];
                let (id, kind, from) = (watch.id, watch.kind, watch.sent);
                watch.sent = self.server.log.len();
                watch.free = watch.free.max(late);
                let at = watch.free;
                let is_of = |e: &&WatchEvent| match e {
                    WatchEvent::Added(o) | WatchEvent::Modified(o) | WatchEvent::Deleted(o) => o.kind() == kind,
                    WatchEvent::Bookmark { .. } => true,
                };
                let events: Vec<WatchEvent> = self.server.log[from..].iter().filter(is_of).cloned().collect();
                events.into_iter().for_each(|e| self.post(index, at, FromServer::Watch(id, e)));
            }
        }
    }

    /// Breaks a client's connection.
    pub fn disconnect(&mut self, index: usize) {
        self.clients[index].watches.clear();
        self.clients[index].inbox.clear();
        let mut out = Vec::new();
        self.clients[index].machine.handle(self.now, FromServer::Disconnected, &mut out);
        self.take(index, out);
    }

    /// Starts and terminates pods, and garbage-collects objects without owners.
    fn tick(&mut self) {
        let due = |t: &crate::object::Time, after: Duration| Wall::from_time(t) + after <= self.now.wall;
        let mut gone = VecDeque::new();
        let mut ready = VecDeque::new();
        for (key, object) in &self.server.objects {
            let alive = |uid: &String| self.server.objects.values().any(|o| o.uid() == uid);
            let owners = object.meta().owner_references.as_deref().unwrap_or_default();
            if !owners.is_empty() && !owners.iter().any(|o| alive(&o.uid)) {
                gone.push_back(key.clone());
            } else if let Object::Pod(pod) = object {
                let broken = pod.spec.containers.iter().any(|c| c.image.as_deref() == Some(self.broken_image));
                let created = pod.meta.creation_timestamp.as_ref();
                match &pod.meta.deletion_timestamp {
                    Some(t) if due(t, Duration::from_secs(1)) => gone.push_back(key.clone()),
                    None if !broken && !is_pod_ready(pod) && created.is_some_and(|t| due(t, self.start_time)) => {
                        ready.push_back(key.clone());
                    }
                    Some(_) | None => {}
                }
            }
        }
        gone.iter().for_each(|key| self.server.remove(key));
        let time = self.now.wall.to_time();
        for key in ready {
            self.server.edit(&key, |pod| make_ready(pod, &time));
        }
        self.publish();
    }

    /// Advances time.
    pub fn run(&mut self, time: Duration) {
        self.run_checked(time, |_| {});
    }

    /// Advances time and calls `check` after each step.
    pub fn run_checked(&mut self, time: Duration, mut check: impl FnMut(&Cluster)) {
        let end = self.now.mono + time;
        loop {
            let deadline = |c: &Client| {
                let inbox = c.inbox.first_key_value().map(|((at, _), _)| *at);
                inbox.into_iter().chain(c.machine.poll_timeout().map(|d| d.at)).min()
            };
            let next = self.clients.iter().filter_map(deadline).min().unwrap_or(end).min(self.next_tick).min(end);
            let next = next.max(self.now.mono);
            self.now = self.now + (next - self.now.mono);
            if next >= end {
                return;
            }
            if self.next_tick <= next {
                self.next_tick = next + Duration::from_millis(500);
                self.tick();
            }
            for index in 0..self.clients.len() {
                let client = &mut self.clients[index];
                let mut out = Vec::new();
                if client.machine.poll_timeout().is_some_and(|d| d.at <= next) {
                    client.machine.handle_timeout(self.now, &mut out);
                    let again = client.machine.poll_timeout();
                    assert!(again.is_none_or(|d| d.at > next), "{again:?} is due although it has just been handled");
                }
                while let Some(entry) = client.inbox.first_entry() {
                    if entry.key().0 > next {
                        break;
                    }
                    client.machine.handle(self.now, entry.remove(), &mut out);
                }
                self.take(index, out);
            }
            check(self);
        }
    }
}

/// Marks a pod running and ready.
pub fn make_ready(pod: &mut Object, time: &crate::object::Time) {
    let Object::Pod(pod) = pod else { panic!("only pods become ready") };
    let condition = PodCondition {
        type_: Text::READY,
        status: Text::TRUE,
        last_transition_time: Some(time.clone()).into(),
        ..PodCondition::default()
    };
    pod.set_status(PodStatus { phase: Text::RUNNING, conditions: vec![condition], ..PodStatus::default() });
}
