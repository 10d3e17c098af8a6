//! Scheduler processes over unreliable connections, with a real API server and store.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use serde_json::{Value, json};

use super::{In, Out, SchedulerConfig, SchedulerProcess};
use crate::api::{
    Call, DeleteOptions, FromServer, Patch, Precondition, ReqId, Request, Subresource, ToServer, WriteOptions,
};
use crate::apiserver::{self, Answered, ApiServer, ConnId};
use crate::features::FeatureGates;
use crate::limits;
use crate::machine::{Machine, Mono, Now, Wall};
use crate::object::{Kind, Milli, Object, ObjectKey, Pod, Text};
use crate::random::Rng;
use crate::scheduler::extenders::{Extender, Question};
use crate::scheduler::profile::Profile;
use crate::scheduler::resources::ResourceId;
use crate::store::{self, MemoryStore, StoreClient};

/// The user's connection.
const USER: ConnId = ConnId(0);

/// What an extender says to a question; `None` if nothing.
type Extends = Box<dyn FnMut(&Question) -> Option<Answered>>;

pub(super) struct Line {
    pub(super) process: SchedulerProcess,
    conn: ConnId,
    up: BTreeMap<(Mono, u64), (ConnId, ToServer)>,
    down: BTreeMap<(Mono, u64), In>,
    /// Keeps the order of messages: when the last one of each direction arrives.
    free: [Mono; 2],
}

pub(super) struct Cluster {
    pub(super) now: Now,
    store: MemoryStore,
    api: ApiServer,
    pub(super) lines: Vec<Line>,
    rng: Rng,
    count: u64,
    /// Whether connections lose messages, stall and break.
    bad: bool,
    /// How long a bad connection stalls at most.
    stall: Duration,
    replies: u64,
    /// The node that each pod was first seen bound to, by UID.
    bound: BTreeMap<String, Rc<str>>,
    pub(super) extenders: Rc<[Extender]>,
    pub(super) extends: Extends,
    features: FeatureGates,
}

impl Cluster {
    pub(super) fn new(seed: u64) -> Cluster {
        Cluster::with(seed, FeatureGates::default())
    }

    /// A cluster with these gates.
    pub(super) fn with(seed: u64, features: FeatureGates) -> Cluster {
        let config = apiserver::Config { features, ..apiserver::Config::default() };
        let mut cluster = Cluster {
            features,
            now: Now { mono: Mono::ZERO, wall: Wall(1_700_000_000_000_000) },
            store: MemoryStore::new(),
            api: ApiServer::new(config, Rng::from_seed(seed)),
            lines: Vec::new(),
            rng: Rng::from_seed(seed + 1),
            count: 1,
            bad: false,
            stall: Duration::from_secs(15),
            replies: 0,
            bound: BTreeMap::new(),
            extenders: Rc::from([]),
            extends: Box::new(|question| panic!("nobody is to be asked: {question:?}")),
        };
        cluster.api_timeout();
        cluster.create(json!({"apiVersion": "v1", "kind": "ServiceAccount",
            "metadata": {"name": "default", "namespace": "default"}}));
        cluster
    }

    pub(super) fn start(&mut self, identity: &str, leader_elect: bool) -> usize {
        let process = self.process(identity, leader_elect);
        let conn = self.conn();
        let free = [Mono::ZERO; 2];
        self.lines.push(Line { process, conn, up: BTreeMap::new(), down: BTreeMap::new(), free });
        self.lines.len() - 1
    }

    fn process(&mut self, identity: &str, leader_elect: bool) -> SchedulerProcess {
        let (identity, extenders, features) = (identity.into(), Rc::clone(&self.extenders), self.features);
        let config = SchedulerConfig { identity, leader_elect, extenders, features, ..SchedulerConfig::default() };
        SchedulerProcess::new(config, Rng::from_seed(self.rng.next_u64()))
    }

    fn conn(&mut self) -> ConnId {
        self.count += 1;
        ConnId(self.count)
    }

    fn api_timeout(&mut self) {
        let mut out = Vec::new();
        if self.api.poll_timeout().is_some_and(|d| d.at <= self.now.mono) {
            self.api.handle_timeout(self.now, &mut out);
        }
        self.take_api(out);
        let mut out = Vec::new();
        if self.store.poll_timeout().is_some_and(|d| d.at <= self.now.mono) {
            self.store.handle_timeout(self.now, &mut out);
        }
        self.take_store(out);
    }

    fn ask_api(&mut self, input: apiserver::In) {
        let mut out = Vec::new();
        self.api.handle(self.now, input, &mut out);
        self.take_api(out);
    }

    fn take_api(&mut self, out: Vec<apiserver::Out>) {
        for message in out {
            match message {
                apiserver::Out::Store(id, request) => {
                    let mut out = Vec::new();
                    self.store.handle(self.now, store::In::Request(StoreClient(1), id, request), &mut out);
                    self.take_store(out);
                }
                apiserver::Out::Client(USER, FromServer::Reply(_, result)) => {
                    self.replies += 1;
                    assert!(result.is_ok(), "{result:?}");
                }
                apiserver::Out::Note(..) | apiserver::Out::Consult(..) => {}
                apiserver::Out::Client(conn, message) => {
                    let Some(index) = self.lines.iter().position(|l| l.conn == conn) else { continue };
                    let lost = self.bad && matches!(message, FromServer::Reply(..)) && self.rng.chance(1, 20);
                    if !lost {
                        let at = self.arrival(index, 1);
                        self.lines[index].down.insert((at, self.count), In::Api(message));
                    }
                }
            }
        }
    }

    fn take_store(&mut self, out: Vec<store::Out>) {
        for message in out {
            self.ask_api(apiserver::In::Store(message.msg));
        }
    }

    fn arrival(&mut self, index: usize, way: usize) -> Mono {
        let mut delay = self.rng.duration(Duration::from_millis(1), Duration::from_millis(20));
        if self.bad && self.rng.chance(1, 60) {
            delay += self.rng.duration(Duration::ZERO, self.stall);
        }
        self.count += 1;
        let free = &mut self.lines[index].free[way];
        *free = (*free).max(self.now.mono + delay);
        *free
    }

    pub(super) fn user(&mut self, call: Call) {
        let before = self.replies;
        let request = Request::new(&Rc::from("user"), call);
        self.count += 1;
        self.ask_api(apiserver::In::Client(USER, ToServer::Request(ReqId(self.count), request)));
        assert_eq!(self.replies, before + 1, "the store answers at once, and so does the server");
    }

    pub(super) fn create(&mut self, object: Value) {
        let object = Object::from_json(object).unwrap();
        self.user(Call::Create { object, options: WriteOptions::default() });
    }

    pub(super) fn node(&mut self, name: &str, cpu: &str) {
        self.create(json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}}));
        let status = json!({"status": {"allocatable": {"cpu": cpu, "memory": "8Gi", "pods": "110"}}});
        self.user(Call::Patch {
            key: ObjectKey::new(Kind::NODE, "", name),
            patch: Patch::Merge(status),
            subresource: Subresource::Status,
            precondition: Precondition::default(),
            options: WriteOptions::default(),
        });
        // As the node lifecycle controller does once the node is ready.
        self.user(Call::Patch {
            key: ObjectKey::new(Kind::NODE, "", name),
            patch: Patch::Merge(json!({"spec": {"taints": null}})),
            subresource: Subresource::None,
            precondition: Precondition::default(),
            options: WriteOptions::default(),
        });
    }

    pub(super) fn pod(&mut self, name: &str, cpu: &str) {
        let container = json!({"name": "c", "image": "i", "resources": {"requests": {"cpu": cpu}}});
        self.create(json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "default"},
            "spec": {"containers": [container]}}));
    }

    /// Deletes a pod at once.
    pub(super) fn delete(&mut self, name: &str) {
        let options = DeleteOptions { grace_seconds: Some(0), ..DeleteOptions::default() };
        self.user(Call::Delete { key: ObjectKey::new(Kind::POD, "default", name), options });
    }

    pub(super) fn pods(&self) -> Vec<&Pod> {
        self.api.cached(Kind::POD).filter_map(|(_, o)| o.get()).collect()
    }

    /// An object as the API server knows it.
    pub(super) fn object(&self, key: &ObjectKey) -> Option<&Object> {
        self.api.cached_object(key)
    }

    pub(super) fn bound(&self) -> usize {
        self.pods().iter().filter(|p| p.spec.node.is_some()).count()
    }

    pub(super) fn events(&self, reason: &str) -> Vec<Value> {
        let all = self.api.cached(Kind::EVENT).map(|(_, o)| o.to_json());
        all.filter(|e| e["reason"] == reason).collect()
    }

    /// Has a process give up its leadership.
    pub(super) fn resign(&mut self, index: usize) {
        let mut out = Vec::new();
        self.lines[index].process.resign(self.now, &mut out);
        self.send(index, out);
    }

    /// Gives a process a message.
    pub(super) fn tell(&mut self, index: usize, message: In) {
        let mut out = Vec::new();
        self.lines[index].process.handle(self.now, message, &mut out);
        self.send(index, out);
    }

    pub(super) fn disconnect(&mut self, index: usize) {
        // Messages to the server that are under way may still arrive, late.
        let now = self.now;
        let old = std::mem::replace(&mut self.lines[index].conn, ConnId(0));
        self.lines[index].conn = self.conn();
        self.lines[index].down.clear();
        let mut out = Vec::new();
        self.lines[index].process.handle(now, In::Api(FromServer::Disconnected), &mut out);
        self.send(index, out);
        self.ask_api(apiserver::In::Closed(old));
    }

    pub(super) fn crash(&mut self, index: usize, identity: &str, leader_elect: bool) {
        let process = self.process(identity, leader_elect);
        let old = std::mem::replace(&mut self.lines[index].conn, ConnId(0));
        self.lines[index].conn = self.conn();
        self.lines[index].down.clear();
        self.lines[index].process = process;
        self.ask_api(apiserver::In::Closed(old));
    }

    fn send(&mut self, index: usize, out: Vec<Out>) {
        for message in out {
            let message = match message {
                Out::Api(message) => message,
                Out::Ask { ask, question } => {
                    if let Some(answer) = (self.extends)(&question) {
                        self.count += 1;
                        let at = self.now.mono + Duration::from_millis(1);
                        self.lines[index].down.insert((at, self.count), In::Extender { asked: ask, answer });
                    }
                    continue;
                }
            };
            let lost = self.bad && self.rng.chance(1, 20);
            let watch = matches!(&message, ToServer::Request(_, r) if matches!(r.call, Call::Watch { .. }));
            if !lost || watch {
                let at = self.arrival(index, 0);
                let conn = self.lines[index].conn;
                self.lines[index].up.insert((at, self.count), (conn, message));
            }
        }
    }

    fn next(&self) -> Option<Mono> {
        let lines = self.lines.iter().flat_map(|l| {
            let up = l.up.first_key_value().map(|((at, _), _)| *at);
            let down = l.down.first_key_value().map(|((at, _), _)| *at);
            [up, down, l.process.poll_timeout().map(|d| d.at)]
        });
        let servers = [self.api.poll_timeout(), self.store.poll_timeout()].map(|d| d.map(|d| d.at));
        lines.chain(servers).flatten().min()
    }

    pub(super) fn run(&mut self, time: Duration) {
        let end = self.now.mono + time;
        while let Some(at) = self.next().filter(|at| *at <= end) {
            let at = at.max(self.now.mono);
            self.now = self.now + at.since(self.now.mono);
            self.api_timeout();
            for index in 0..self.lines.len() {
                self.step(index);
            }
            self.check();
        }
        self.now = self.now + end.since(self.now.mono);
    }

    fn step(&mut self, index: usize) {
        let now = self.now;
        while let Some(entry) = self.lines[index].up.first_entry().filter(|e| e.key().0 <= now.mono) {
            let (conn, message) = entry.remove();
            self.ask_api(apiserver::In::Client(conn, message));
        }
        let line = &mut self.lines[index];
        let mut out = Vec::new();
        if line.process.poll_timeout().is_some_and(|d| d.at <= now.mono) {
            line.process.handle_timeout(now, &mut out);
            let again = line.process.poll_timeout();
            assert!(again.is_none_or(|d| d.at > now.mono), "{again:?} is due although it has just been handled");
        }
        while let Some(entry) = line.down.first_entry().filter(|e| e.key().0 <= now.mono) {
            line.process.handle(now, entry.remove(), &mut out);
        }
        self.send(index, out);
        if self.bad && self.rng.chance(1, 2_000) {
            self.disconnect(index);
        }
    }

    /// Checks that no node holds more than fits, and that no pod has moved.
    fn check(&mut self) {
        let mut used: BTreeMap<Rc<str>, i64> = BTreeMap::new();
        let mut seen = Vec::new();
        for pod in self.pods() {
            let Some(node) = &pod.spec.node else { continue };
            let requests = pod.spec.containers[0].resources.as_ref().unwrap().requests.as_ref().unwrap();
            *used.entry(Rc::clone(node)).or_insert(0) += Milli::of(&requests["cpu"]).milli();
            seen.push((pod.uid().to_owned(), Rc::clone(node)));
        }
        for (node, used) in used {
            let key = ObjectKey::new(Kind::NODE, "", &node);
            let object = self.api.cached(Kind::NODE).find(|(k, _)| **k == key);
            if let Some((_, Object::Node(n))) = object {
                let has = Milli::of(&n.status.allocatable.as_ref().unwrap()["cpu"]).milli();
                assert!(used <= has, "{node} has {has} and is given {used} at {:?}", self.now.mono);
            }
        }
        for (uid, node) in seen {
            let first = self.bound.entry(uid).or_insert_with(|| Rc::clone(&node));
            assert_eq!(*first, node, "a pod stays where it is");
        }
    }

    /// Checks that a process counts what is stored.
    pub(super) fn check_counts(&self, index: usize) {
        let core = self.lines[index].process.scheduler();
        assert_eq!(core.assumed(), 0);
        for (key, _) in self.api.cached(Kind::NODE) {
            let slot = core.nodes().slot(key.name()).unwrap();
            let there = self.pods().iter().filter(|p| p.spec.node.as_deref() == Some(key.name())).count();
            assert_eq!(core.nodes().requested(ResourceId::PODS, slot), there as i64, "{key}");
        }
    }
}

#[test]
fn pods_are_bound_and_the_rest_are_told_why() {
    let mut c = Cluster::new(1);
    c.node("n1", "2");
    c.start("a", true);
    (0..3).for_each(|i| c.pod(&format!("p{i}"), "1"));
    c.run(Duration::from_secs(5));
    assert_eq!(c.bound(), 2);
    let scheduled = c.events("Scheduled");
    assert_eq!(scheduled.len(), 2);
    let name = scheduled[0]["involvedObject"]["name"].as_str().unwrap();
    assert_eq!(scheduled[0]["message"], format!("Successfully assigned default/{name} to n1"));
    let waiting = c.pods().into_iter().find(|p| p.spec.node.is_none()).unwrap().clone();
    let condition = waiting.status.condition(&Text::POD_SCHEDULED).unwrap();
    let message = "0/1 nodes are available: 1 Insufficient cpu. preemption: 0/1 nodes are available: 1 No preemption \
                   victims found for incoming pod.";
    assert_eq!(
        (condition.status.as_str(), condition.reason.as_str(), condition.message.as_str()),
        ("False", "Unschedulable", message)
    );
    assert_eq!(c.events("FailedScheduling")[0]["message"], message);
    let rv = waiting.rv;
    c.run(limits::SCHEDULER_UNSCHEDULABLE_MAX * 2);
    assert_eq!(c.pods().into_iter().find(|p| p.name() == waiting.name()).unwrap().rv, rv, "said once");
    let gone = name.to_owned();
    c.delete(&gone);
    c.run(Duration::from_secs(2));
    assert_eq!(c.bound(), 2);
    c.check_counts(0);
}

#[test]
fn without_election_it_acts_at_once_by_a_fresh_list() {
    let mut c = Cluster::new(2);
    c.node("n1", "1");
    c.pod("p", "1");
    c.start("a", false);
    c.run(Duration::from_millis(500));
    assert_eq!(c.bound(), 1);
    c.pod("q", "1");
    c.crash(0, "b", false);
    c.run(Duration::from_secs(30));
    assert_eq!(c.bound(), 1);
    assert!(c.lines[0].process.is_leader(c.now));
}

#[test]
fn a_lost_reply_costs_time_and_nothing_else() {
    let mut c = Cluster::new(3);
    c.node("n1", "1");
    c.start("a", false);
    c.run(Duration::from_secs(1));
    c.pod("p", "1");
    // The bind is carried out, but neither its reply nor a watch event comes back.
    while c.bound() == 0 {
        let step = c.next().unwrap().since(c.now.mono);
        c.run(step);
    }
    c.lines[0].down.clear();
    c.disconnect(0);
    assert_eq!(c.lines[0].process.scheduler().assumed(), 1);
    c.pod("q", "1");
    c.run(Duration::from_secs(60));
    assert_eq!((c.bound(), c.events("Scheduled").len()), (1, 1));
    c.check_counts(0);
}

#[test]
fn a_bind_that_never_arrived_is_sent_again() {
    let mut c = Cluster::new(4);
    c.node("n1", "1");
    c.start("a", false);
    c.run(Duration::from_secs(1));
    c.pod("p", "1");
    let has_bind = |c: &Cluster| {
        let is =
            |m: &(ConnId, ToServer)| matches!(&m.1, ToServer::Request(_, r) if matches!(r.call, Call::Bind { .. }));
        c.lines[0].up.values().any(is)
    };
    while !has_bind(&c) {
        let step = c.next().unwrap().since(c.now.mono);
        c.run(step);
    }
    c.lines[0].up.clear();
    c.run(Duration::from_secs(5));
    assert_eq!((c.bound(), c.lines[0].process.scheduler().assumed()), (0, 1), "nothing is certain yet");
    c.run(limits::REQUEST_TIMEOUT);
    assert_eq!(c.bound(), 1);
    c.check_counts(0);
}

#[test]
fn a_new_leader_counts_what_the_old_one_bound() {
    let mut c = Cluster::new(5);
    (0..4).for_each(|i| c.node(&format!("n{i}"), "1"));
    c.start("a", true);
    c.run(Duration::from_secs(3));
    c.start("b", true);
    (0..2).for_each(|i| c.pod(&format!("p{i}"), "1"));
    c.run(Duration::from_secs(1));
    assert_eq!(c.bound(), 2);
    assert!(c.lines[0].process.is_leader(c.now) && !c.lines[1].process.is_leader(c.now));
    c.crash(0, "a2", true);
    (2..6).for_each(|i| c.pod(&format!("p{i}"), "1"));
    c.run(Duration::from_secs(60));
    assert_eq!(c.bound(), 4);
    let leaders = c.lines.iter().filter(|l| l.process.is_leader(c.now)).count();
    assert_eq!(leaders, 1);
}

/// Two candidates with bad connections, one of which crashes now and then, while nodes and pods come and go. Then all
/// faults end.
fn play(seed: u64) {
    let mut c = Cluster::new(seed);
    c.stall = Duration::from_secs(if seed.is_multiple_of(2) { 15 } else { 1 });
    (0..4).for_each(|i| c.node(&format!("n{i}"), "2"));
    c.start("a", true);
    c.start("b", true);
    c.bad = true;
    let mut made = 0;
    for round in 0..30 {
        for _ in 0..c.rng.below(4) {
            c.pod(&format!("p{made:03}"), if made % 5 == 0 { "1" } else { "500m" });
            made += 1;
        }
        if c.rng.chance(1, 2)
            && let Some(name) = c.pods().get(round % 7).map(|p| p.name().to_owned())
        {
            c.delete(&name);
        }
        if c.rng.chance(1, 8) {
            let index = c.rng.below(2) as usize;
            c.crash(index, &format!("r{round}"), true);
        }
        let time = c.rng.duration(Duration::from_millis(100), Duration::from_secs(6));
        c.run(time);
    }
    c.bad = false;
    c.run(Duration::from_secs(90));
    let leaders: Vec<usize> = (0..2).filter(|i| c.lines[*i].process.is_leader(c.now)).collect();
    assert_eq!(leaders.len(), 1, "seed {seed}");
    c.check_counts(leaders[0]);
    // A pod that still waits fits no node.
    let mut free: BTreeMap<String, i64> = (0..4).map(|i| (format!("n{i}"), 2000)).collect();
    let cpu = |p: &Pod| {
        Milli::of(&p.spec.containers[0].resources.as_ref().unwrap().requests.as_ref().unwrap()["cpu"]).milli()
    };
    for pod in c.pods() {
        if let Some(node) = &pod.spec.node {
            *free.get_mut(&**node).unwrap() -= cpu(pod);
        }
    }
    let most = free.values().copied().max().unwrap();
    for pod in c.pods().into_iter().filter(|p| p.spec.node.is_none()) {
        assert!(cpu(pod) > most, "seed {seed}: {} waits though {free:?} is free", pod.name());
        let condition = pod.status.condition(&Text::POD_SCHEDULED);
        assert!(condition.is_some_and(|c| c.status == Text::FALSE), "seed {seed}: {} is not told why", pod.name());
    }
}

#[test]
fn faults_never_overfill_a_node_and_end_well() {
    for seed in 0..40 {
        play(seed);
    }
}

#[test]
fn what_is_said_of_pods_is_said_by_their_scheduler() {
    let mut c = Cluster::new(1);
    c.node("n1", "2");
    let line = c.start("a", true);
    let named = |name: &str| Profile { name: name.to_owned(), ..Profile::default() };
    let profiles = Rc::from([named("default-scheduler"), named("pack"), named("third")]);
    let config = SchedulerConfig { identity: "a".into(), profiles, ..SchedulerConfig::default() };
    c.lines[line].process = SchedulerProcess::new(config, Rng::from_seed(5));
    let container = json!({"name": "c", "image": "i", "resources": {"requests": {"cpu": "1"}}});
    for (name, scheduler) in [("a", "default-scheduler"), ("b", "pack"), ("c", "third"), ("d", "nobody")] {
        c.create(json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "default"},
            "spec": {"containers": [container], "schedulerName": scheduler}}));
        c.run(Duration::from_secs(2));
    }
    let said = |c: &Cluster, reason: &str| -> Vec<String> {
        let all = c.events(reason).into_iter();
        let by = all.map(|e| {
            assert_eq!(e["source"]["component"], e["reportingComponent"]);
            format!("{} by {}", e["involvedObject"]["name"], e["source"]["component"])
        });
        by.collect()
    };
    assert_eq!(said(&c, "Scheduled"), [r#""a" by "default-scheduler""#, r#""b" by "pack""#]);
    assert_eq!(said(&c, "FailedScheduling"), [r#""c" by "third""#]);
}
