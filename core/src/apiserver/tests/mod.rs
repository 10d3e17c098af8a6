//! The API server with the in-memory store; messages are delivered until none are left.

mod admission;
mod apply;
mod conversions;
mod custom;
mod deletes;
mod etcd;
mod pods;
mod policies;
mod policy;
mod reads;
mod services;
mod store_trouble;
mod watches;
mod webhooks;
mod writes;

use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::time::Duration;

use serde_json::{Value, json};

use super::{ApiServer, Config, ConnId, Consultation, In, Note, Out};
use crate::api::{
    Call, DeleteOptions, Fence, FromServer, ListOptions, Reason, ReqId, Request, Response, Status, Subresource,
    ToServer, WatchEvent, WatchOptions, WriteOptions,
};
use crate::machine::{Machine, Mono, Now, Wall};
use crate::object::{Kind, Object, ObjectKey, Revision};
use crate::random::Rng;
use crate::store::{self, FromStore, MemoryStore, StoreClient};

/// Several API servers with one store. Messages arrive immediately unless they are held back.
pub(super) struct Cluster {
    pub store: MemoryStore,
    pub servers: Vec<ApiServer>,
    pub now: Now,
    /// Servers that receive no events at present.
    pub lagging: Vec<bool>,
    /// Servers whose requests to the store are lost.
    pub cut_off: Vec<bool>,
    held: Vec<VecDeque<FromStore>>,
    replies: BTreeMap<u64, Result<Response, Status>>,
    watched: BTreeMap<u64, Vec<WatchEvent>>,
    /// Warnings, with the requests that they are for.
    pub warnings: Vec<(ReqId, String)>,
    /// Requests whose apply has created the object.
    pub created: Vec<ReqId>,
    /// Questions that wait for an answer, with their numbers.
    pub questions: Vec<(u64, Vec<Consultation>)>,
    next_request: u64,
}

pub(super) fn cluster(servers: usize) -> Cluster {
    cluster_of(servers, &Config::default())
}

/// A cluster whose servers are configured like this.
pub(super) fn cluster_of(servers: usize, config: &Config) -> Cluster {
    let mut cluster = Cluster {
        store: MemoryStore::new(),
        servers: (0..servers).map(|i| ApiServer::new(config.clone(), Rng::stream(7, "apiserver", i as u64))).collect(),
        now: Now { mono: Mono::ZERO, wall: Wall(1_700_000_000_000_000) },
        lagging: vec![false; servers],
        cut_off: vec![false; servers],
        held: (0..servers).map(|_| VecDeque::new()).collect(),
        replies: BTreeMap::new(),
        watched: BTreeMap::new(),
        warnings: Vec::new(),
        created: Vec::new(),
        questions: Vec::new(),
        next_request: 1,
    };
    cluster.tick(0);
    for name in ["default", "kube-system"] {
        let account = json!({"apiVersion":"v1","kind":"ServiceAccount","metadata":{"name":"default","namespace":name}});
        cluster.create(account).unwrap();
    }
    cluster
}

impl Cluster {
    /// Advances time, one second at a time.
    pub fn tick(&mut self, seconds: u64) {
        for i in 0..=seconds {
            if i > 0 {
                self.now = self.now + Duration::from_secs(1);
            }
            let mut out = Vec::new();
            self.store.handle_timeout(self.now, &mut out);
            self.from_store(out);
            for s in 0..self.servers.len() {
                let mut out = Vec::new();
                self.servers[s].handle_timeout(self.now, &mut out);
                self.from_server(s, out);
            }
        }
    }

    fn from_server(&mut self, server: usize, out: Vec<Out>) {
        for message in out {
            match message {
                Out::Client(_, FromServer::Reply(id, result)) => {
                    let before = self.replies.insert(id.0, result);
                    assert!(before.is_none(), "a request is answered once");
                }
                Out::Client(_, FromServer::Watch(id, event)) => self.watched.entry(id.0).or_default().push(event),
                Out::Client(_, FromServer::Disconnected) => panic!("a server does not disconnect"),
                Out::Note(_, id, Note::Warning(text)) => self.warnings.push((id, text.to_string())),
                Out::Note(_, id, Note::Created) => self.created.push(id),
                Out::Consult(id, questions) => self.questions.push((id, questions)),
                Out::Store(..) if self.cut_off[server] => {}
                Out::Store(id, request) => {
                    let mut out = Vec::new();
                    let from = StoreClient(server as u32);
                    self.store.handle(self.now, store::In::Request(from, id, request), &mut out);
                    self.from_store(out);
                }
            }
        }
    }

    fn from_store(&mut self, out: Vec<store::Out>) {
        for message in out {
            let server = message.to.0 as usize;
            match message.msg {
                events @ FromStore::Events { .. } if self.lagging[server] => self.held[server].push_back(events),
                other => self.tell(server, other),
            }
        }
    }

    pub fn tell(&mut self, server: usize, message: FromStore) {
        let mut out = Vec::new();
        self.servers[server].handle(self.now, In::Store(message), &mut out);
        self.from_server(server, out);
    }

    /// Delivers all missed events to a lagging server.
    pub fn catch_up(&mut self, server: usize) {
        self.lagging[server] = false;
        while let Some(message) = self.held[server].pop_front() {
            self.tell(server, message);
        }
    }

    /// Breaks a server's connection to the store.
    pub fn disconnect(&mut self, server: usize) {
        self.held[server].clear();
        self.store.handle(self.now, store::In::Closed(StoreClient(server as u32)), &mut Vec::new());
        self.tell(server, FromStore::Disconnected);
    }

    pub fn send(&mut self, server: usize, request: Request) -> u64 {
        let id = self.next_request;
        self.next_request += 1;
        let mut out = Vec::new();
        let message = ToServer::Request(ReqId(id), Box::new(request));
        self.servers[server].handle(self.now, In::Client(ConnId(1), message), &mut out);
        self.from_server(server, out);
        id
    }

    /// Answers the oldest questions of the first server; returns what was asked.
    pub fn consult(&mut self, answer: impl Fn(&Consultation) -> super::Answered) -> Vec<Consultation> {
        let (id, questions) = self.questions.remove(0);
        let answers = questions.iter().map(answer).collect();
        let mut out = Vec::new();
        self.servers[0].handle(self.now, In::Consulted(id, answers), &mut out);
        self.from_server(0, out);
        questions
    }

    pub fn reply(&mut self, id: u64) -> Option<Result<Response, Status>> {
        self.replies.remove(&id)
    }

    pub fn call_at(&mut self, server: usize, call: Call) -> Result<Response, Status> {
        let id = self.send(server, request(call));
        self.reply(id).expect("the request is answered at once")
    }

    pub fn call(&mut self, call: Call) -> Result<Response, Status> {
        self.call_at(0, call)
    }

    pub fn create_at(&mut self, server: usize, manifest: Value) -> Result<Object, Status> {
        let object = Object::from_json(manifest).unwrap();
        self.call_at(server, Call::Create { object, options: WriteOptions::default() }).map(object_in)
    }

    pub fn create(&mut self, manifest: Value) -> Result<Object, Status> {
        self.create_at(0, manifest)
    }

    pub fn update_at(&mut self, server: usize, object: Object, sub: Subresource) -> Result<Object, Status> {
        let options = WriteOptions::default();
        self.call_at(server, Call::Update { object, subresource: sub, options }).map(object_in)
    }

    pub fn update(&mut self, object: Object) -> Result<Object, Status> {
        self.update_at(0, object, Subresource::None)
    }

    pub fn update_status(&mut self, object: Object) -> Result<Object, Status> {
        self.update_at(0, object, Subresource::Status)
    }

    pub fn delete(&mut self, key: &ObjectKey, options: DeleteOptions) -> Result<Object, Status> {
        self.call(Call::Delete { key: key.clone(), options }).map(object_in)
    }

    pub fn get(&mut self, key: &ObjectKey) -> Option<Object> {
        match self.call(Call::Get { key: key.clone(), rv: None }) {
            Ok(response) => Some(object_in(response)),
            Err(status) => {
                assert_eq!(status.reason, Reason::NotFound);
                None
            }
        }
    }

    pub fn list_at(&mut self, server: usize, kind: Kind, options: ListOptions) -> Result<Vec<String>, Status> {
        match self.call_at(server, Call::List { kind, namespace: Rc::from(""), options })? {
            Response::List { items, .. } => Ok(items.iter().map(|o| o.name().to_owned()).collect()),
            other => panic!("{other:?} instead of a list"),
        }
    }

    pub fn watch_at(&mut self, server: usize, kind: Kind, namespace: &str, options: WatchOptions) -> u64 {
        self.send(server, request(Call::Watch { kind, namespace: Rc::from(namespace), options }))
    }

    /// What a watch has received since the last call, in order: `+a`, `~a`, `-a`, `*` for a bookmark, `!` for the
    /// initial-events-end bookmark.
    pub fn seen(&mut self, watch: u64) -> String {
        let events = self.watched.remove(&watch).unwrap_or_default();
        let show = |e: &WatchEvent| match e {
            WatchEvent::Added(o) => format!("+{}", o.name()),
            WatchEvent::Modified(o) => format!("~{}", o.name()),
            WatchEvent::Deleted(o) => format!("-{}", o.name()),
            WatchEvent::Bookmark { initial_events_end: false, .. } => "*".to_owned(),
            WatchEvent::Bookmark { initial_events_end: true, .. } => "!".to_owned(),
        };
        events.iter().map(show).collect::<Vec<_>>().join(" ")
    }

    /// A running pod on a node.
    pub fn running_pod(&mut self, name: &str, node: &str) -> Object {
        let pod = self.create(pod(name)).unwrap();
        self.bind(0, &pod, node).unwrap();
        let mut pod = self.get(&pod.key()).unwrap();
        set_phase(&mut pod, "Running");
        self.update_status(pod).unwrap()
    }

    pub fn bind(&mut self, server: usize, pod: &Object, node: &str) -> Result<Response, Status> {
        self.bind_annotated(server, pod, node, &[])
    }

    pub fn bind_annotated(
        &mut self,
        server: usize,
        pod: &Object,
        node: &str,
        annotations: &[(&str, &str)],
    ) -> Result<Response, Status> {
        let (uid, node) = (Rc::from(pod.uid()), Rc::from(node));
        let annotations = annotations.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        self.call_at(server, Call::Bind { pod: pod.key(), uid, node, annotations })
    }
}

pub(super) fn request(call: Call) -> Request {
    *Request::new(&Rc::from("test"), call)
}

pub(super) fn object_in(response: Response) -> Object {
    match response {
        Response::Object(object) => object,
        other => panic!("{other:?} instead of an object"),
    }
}

pub(super) fn key(kind: Kind, name: &str) -> ObjectKey {
    ObjectKey::new(kind, if kind.row().namespaced { "default" } else { "" }, name)
}

pub(super) fn pod(name: &str) -> Value {
    json!({"apiVersion":"v1","kind":"Pod","metadata":{"name":name,"namespace":"default","labels":{"app":"web"}},
        "spec":{"containers":[{"name":"c","image":"nginx:1"}],"terminationGracePeriodSeconds":30}})
}

pub(super) fn config_map(name: &str) -> Value {
    json!({"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":name,"namespace":"default"},"data":{"k":"v"}})
}

pub(super) fn deployment(name: &str, replicas: i32) -> Value {
    json!({"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":name,"namespace":"default"},
        "spec":{"replicas":replicas,"selector":{"matchLabels":{"app":"web"}},"template":{
            "metadata":{"labels":{"app":"web"}},"spec":{"containers":[{"name":"c","image":"nginx:1"}]}}}})
}

pub(super) fn set_phase(object: &mut Object, phase: &str) {
    let Object::Pod(pod) = object else { panic!("not a pod") };
    pod.status_mut().phase = phase.into();
}

pub(super) fn set_data(object: &mut Object, value: &str) {
    let Object::Dynamic(o) = object else { panic!("not dynamic") };
    Rc::make_mut(&mut o.body).insert("data".to_owned(), json!({"k": value}));
}

/// The reason and message of an error.
pub(super) fn refusal<T: std::fmt::Debug>(result: Result<T, Status>) -> (Reason, String) {
    let status = result.unwrap_err();
    (status.reason, status.message.into())
}

pub(super) fn fenced(call: Call, lease: &ObjectKey, epoch: Revision) -> Request {
    Request { fence: Some(Fence { lease: lease.clone(), epoch }), ..request(call) }
}
