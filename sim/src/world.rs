//! The world: owns virtual time, drives every process, carries every message, and lets fate act.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use skeg_core::agent::{self, AgentConfig, RuntimeEvent};
use skeg_core::api::{FromServer, ToServer};
use skeg_core::apiserver::{self, ConnId};
use skeg_core::object::{Kind, ObjectKey, REGION_LABEL, Selector, ZONE_LABEL};
use skeg_core::random::mix;
use skeg_core::store::{self, FromStore, MemoryStore, StoreClient, StoreKey, StoreRequest, Stored};
use skeg_core::{Machine, Mono, Now, Rng, Wall};

use crate::action::{describe, is_users};
use crate::heap::Heap;
use crate::invariant::Checkers;
use crate::net::{Connection, HostId, Network};
use crate::outcome::Happening;
use crate::process::{Process, Role, Running};
use crate::runtime::{Fire, NodeRuntime};
use crate::scenario::{Action, ImageProfile, NodeSet, Scenario};

/// Wall-clock time at virtual time zero: 2026-01-01T00:00:00Z, in microseconds.
pub const EPOCH: i64 = 1_767_225_600_000_000;
/// How long until an end notices that its connection is dead, at most.
const NOTICE: Duration = Duration::from_secs(30);
/// How long a refused connection takes to be refused.
const REFUSED: Duration = Duration::from_millis(500);
/// Host of the store.
const STORE_HOST: HostId = 0;

/// Something that will happen.
#[derive(Debug)]
enum Event {
    Wake { process: u32, life: u32 },
    ToApi { process: u32, life: u32, conn: u64, msg: ToServer },
    ToClient { process: u32, life: u32, conn: u64, msg: FromServer },
    Closed { process: u32, life: u32, conn: u64 },
    ToStore { api: usize, life: u32, id: u64, request: StoreRequest },
    FromStore { process: u32, life: u32, msg: FromStore },
    Runtime { node: usize, epoch: u32, agent_life: u32, fire: Fire },
    Step(usize),
    Restart { process: u32 },
    StoreWake,
}

/// Kinds of events, for hashes and counts.
#[derive(Clone, Copy)]
enum Tag {
    Wake,
    ToApi,
    ToClient,
    Closed,
    ToStore,
    FromStore,
    Runtime,
    Step,
    Restart,
    StoreWake,
}

/// Their names, in order.
const TAGS: [&str; 10] =
    ["wake", "to api", "to client", "closed", "to store", "from store", "runtime", "step", "restart", "store wake"];

/// What a machine says goes here first; kept, so that a step need not allocate.
#[derive(Debug, Default)]
struct Scratch {
    api: Vec<apiserver::Out>,
    client: Vec<ToServer>,
    agent: Vec<agent::Out>,
}

/// A node beside its processes: its runtime, and whether it has power.
pub struct NodeHost {
    /// Name of the node.
    pub name: String,
    /// Zone.
    pub zone: String,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Its container runtime.
    pub runtime: NodeRuntime,
    /// Whether it has power.
    pub up: bool,
    epoch: u32,
    agent: u32,
    host: HostId,
}

/// The world of one run.
pub struct World {
    /// Virtual time in nanoseconds.
    pub now: u64,
    /// The seed of the run.
    pub seed: u64,
    /// The store: the truth that checkers read.
    pub store: MemoryStore,
    /// Every node.
    pub nodes: Vec<NodeHost>,
    /// Every process.
    pub processes: Vec<Process>,
    /// Invariants.
    pub checkers: Checkers,
    /// Faults that happened.
    pub faults: Vec<Happening>,
    /// What users did.
    pub actions: Vec<Happening>,
    /// How many events were carried out.
    pub events: u64,
    /// Hash over all of them.
    pub hash: u64,
    counts: [u64; TAGS.len()],
    /// Wake-ups apart from everything else: they are thousands and small, messages on their way are few and large.
    wakes: Heap<(u32, u32)>,
    heap: Heap<Event>,
    net: Network,
    rng: Rng,
    images: BTreeMap<String, ImageProfile>,
    timeline: Vec<(Duration, Action)>,
    apis: Vec<u32>,
    user: u32,
    conns: Vec<u32>,
    clock_offsets: Vec<i64>,
    /// Extra delay of the store's events on their way to an API server.
    lags: Vec<Duration>,
    store_latency: (Duration, Duration),
    store_stalled_until: u64,
    store_armed: u64,
    /// When the last message from an API server arrives at the store, and back: in order.
    store_up: Vec<u64>,
    store_down: Vec<u64>,
    store_events: Vec<u64>,
    leader_elect: bool,
    record_events: bool,
    scratch: Scratch,
    store_out: Vec<store::Out>,
    /// The event that is being carried out, for the trace.
    current: String,
    traced: bool,
}

/// Splits nodes of a scenario over zones and gives each its configuration.
fn node_configs(scenario: &Scenario) -> Vec<(AgentConfig, String)> {
    let zones = scenario.cluster.zones.max(1);
    let mut all = Vec::new();
    for pool in &scenario.cluster.pools {
        for i in 0..pool.count {
            let n = all.len();
            let letter = |z: usize| {
                if z < 26 { char::from(b'a' + z as u8).to_string() } else { format!("z{z}") }
            };
            let zone = pool.zone.clone().unwrap_or_else(|| format!("zone-{}", letter(n % zones)));
            let name = pool.names.get(i).cloned().unwrap_or_else(|| format!("{}-{i}", pool.name));
            let mut labels = pool.labels.clone();
            labels.entry(ZONE_LABEL.to_owned()).or_insert_with(|| zone.clone());
            labels.entry(REGION_LABEL.to_owned()).or_insert_with(|| "sim".to_owned());
            let zone = labels[ZONE_LABEL].clone();
            let taints = pool.taints.iter().filter_map(|t| AgentConfig::parse_taint(t).ok()).collect();
            let config = AgentConfig {
                node_name: Arc::from(name),
                labels,
                taints,
                capacity: pool.capacity.clone(),
                host_ip: Arc::from(format!("172.{}.{}.{}", 16 + (n >> 16), (n >> 8) & 255, n & 255)),
                record_events: scenario.cluster.record_events,
                ..AgentConfig::default()
            };
            all.push((config, zone));
        }
    }
    all
}

impl World {
    /// Builds the world of a scenario; `timeline` is the scenario's own plus the faults drawn by the seed.
    pub fn new(scenario: &Scenario, seed: u64, timeline: Vec<(Duration, Action)>, traced: bool) -> World {
        let cluster = &scenario.cluster;
        let mut processes = Vec::new();
        let mut host: HostId = STORE_HOST;
        let add = |name: String, role: Role, host: HostId, processes: &mut Vec<Process>| {
            let (name, armed) = (Arc::from(name), u64::MAX);
            processes.push(Process { name, role, host, life: 0, running: None, connection: None, armed });
            (processes.len() - 1) as u32
        };
        let mut next_host = || {
            host += 1;
            host
        };
        let apis: Vec<u32> = (0..cluster.api_servers.max(1))
            .map(|i| add(format!("api-server {i}"), Role::Api(i), next_host(), &mut processes))
            .collect();
        for i in 0..cluster.control_replicas.max(1) {
            let host = next_host();
            add(format!("controller-manager {i}"), Role::Manager(i), host, &mut processes);
            add(format!("scheduler {i}"), Role::Scheduler(i), host, &mut processes);
        }
        let user = add("user".to_owned(), Role::User, next_host(), &mut processes);
        let mut nodes = Vec::new();
        for (n, (config, zone)) in node_configs(scenario).into_iter().enumerate() {
            let (host, name, labels) = (next_host(), config.node_name.to_string(), config.labels.clone());
            let agent = add(format!("agent {name}"), Role::Agent(n, Arc::new(config)), host, &mut processes);
            let runtime = NodeRuntime::new(n as u32, Rng::stream(seed, &format!("runtime {name}"), 0));
            nodes.push(NodeHost { name, zone, labels, runtime, up: true, epoch: 0, agent, host });
        }
        let count = apis.len();
        let mut world = World {
            now: 0,
            seed,
            store: MemoryStore::new(),
            nodes,
            processes,
            checkers: Checkers::default(),
            faults: Vec::new(),
            actions: Vec::new(),
            events: 0,
            hash: mix(0, seed),
            counts: [0; TAGS.len()],
            wakes: Heap::new(mix(seed, 2)),
            heap: Heap::new(mix(seed, 1)),
            net: Network::new(cluster.latency, Rng::stream(seed, "network", 0)),
            rng: Rng::stream(seed, "world", 0),
            images: scenario.images.clone(),
            timeline,
            apis,
            user,
            conns: Vec::new(),
            clock_offsets: vec![0; host as usize + 1],
            lags: vec![Duration::ZERO; count],
            store_latency: cluster.store_latency,
            store_stalled_until: 0,
            store_armed: u64::MAX,
            store_up: vec![0; count],
            store_down: vec![0; count],
            store_events: vec![0; count],
            leader_elect: cluster.control_replicas > 1 || scenario.faults != crate::scenario::FaultLevel::None,
            record_events: cluster.record_events,
            scratch: Scratch::default(),
            store_out: Vec::new(),
            current: String::new(),
            traced,
        };
        for i in 0..world.timeline.len() {
            world.heap.push(world.timeline[i].0.as_nanos() as u64, Event::Step(i));
        }
        // Processes come up over the first second, agents last, as machines do.
        for p in 0..world.processes.len() {
            let late = matches!(world.processes[p].role, Role::Agent(..));
            let at =
                world.rng.below(if late { 1_000_000_000 } else { 50_000_000 }) + if late { 200_000_000 } else { 0 };
            world.heap.push(at, Event::Restart { process: p as u32 });
        }
        world
    }

    /// The moment of the next event.
    pub fn next_at(&self) -> Option<u64> {
        match (self.wakes.next_at(), self.heap.next_at()) {
            (Some(wake), Some(other)) => Some(wake.min(other)),
            (wake, other) => wake.or(other),
        }
    }

    fn pop(&mut self) -> Option<(u64, Event)> {
        let wake_is_next = match (self.wakes.next(), self.heap.next()) {
            (Some(wake), Some(other)) => wake < other,
            (wake, _) => wake.is_some(),
        };
        if wake_is_next {
            self.wakes.pop().map(|(at, (process, life))| (at, Event::Wake { process, life }))
        } else {
            self.heap.pop()
        }
    }

    /// The event that was carried out last, in words; empty unless the run is traced.
    pub fn current(&self) -> &str {
        &self.current
    }

    /// What a process sees as the time.
    fn clock(&self, host: HostId) -> Now {
        let wall = EPOCH + (self.now / 1000) as i64 + self.clock_offsets[host as usize];
        Now { mono: Mono(self.now), wall: Wall(wall) }
    }

    /// Carries out the next event. False if there is none.
    pub fn step(&mut self) -> bool {
        let Some((at, event)) = self.pop() else { return false };
        debug_assert!(at >= self.now, "time does not go back");
        self.now = at;
        if let Event::Wake { process, life } = event {
            // A wake-up that has been moved is no event.
            let p = &mut self.processes[process as usize];
            if p.life != life || p.armed != at {
                self.current.clear();
                return true;
            }
            // What it was to do then has been put off meanwhile.
            if p.running.as_ref().and_then(Running::poll_timeout).is_none_or(|d| d.at.0 > at) {
                p.armed = u64::MAX;
                self.arm(process);
                self.current.clear();
                return true;
            }
        }
        self.events += 1;
        self.digest(at, &event);
        match event {
            Event::Wake { process, .. } => {
                self.processes[process as usize].armed = u64::MAX;
                self.wake(process);
            }
            Event::ToApi { process, life, conn, msg } => self.to_api(process, life, conn, msg),
            Event::ToClient { process, life, conn, msg } => self.to_client(process, life, conn, msg),
            Event::Closed { process, life, conn } => {
                if self.processes[process as usize].life == life {
                    self.api_handle(process, apiserver::In::Closed(ConnId(conn)));
                }
            }
            Event::ToStore { api, life, id, request } => self.to_store(api, life, id, request),
            Event::FromStore { process, life, msg } => {
                if self.processes[process as usize].life == life {
                    self.api_handle(process, apiserver::In::Store(msg));
                }
            }
            Event::Runtime { node, epoch, agent_life, fire } => self.runtime(node, epoch, agent_life, fire),
            Event::Step(i) => self.act(i),
            Event::Restart { process } => self.start(process),
            Event::StoreWake => {
                self.store_armed = u64::MAX;
                let mut out = Vec::new();
                let now = self.clock(STORE_HOST);
                self.store.handle_timeout(now, &mut out);
                self.checkers.commits(self.now as f64 / 1e9, &self.store);
                self.from_store(out);
                self.arm_store();
            }
        }
        true
    }

    fn digest(&mut self, at: u64, event: &Event) {
        let (tag, who, what): (Tag, u64, u64) = match event {
            Event::Wake { process, .. } => (Tag::Wake, u64::from(*process), 0),
            Event::ToApi { process, msg, .. } => {
                let what = match msg {
                    ToServer::Request(id, _) => id.0,
                    ToServer::Cancel(id) => !id.0,
                };
                (Tag::ToApi, u64::from(*process), what)
            }
            Event::ToClient { process, msg, .. } => {
                let what = match msg {
                    FromServer::Reply(id, result) => mix(id.0, u64::from(result.is_ok())),
                    FromServer::Watch(id, e) => mix(id.0, e.rv().0),
                    FromServer::Disconnected => 1,
                };
                (Tag::ToClient, u64::from(*process), what)
            }
            Event::Closed { process, conn, .. } => (Tag::Closed, u64::from(*process), *conn),
            Event::ToStore { api, id, .. } => (Tag::ToStore, *api as u64, *id),
            Event::FromStore { process, msg, .. } => {
                let what = match msg {
                    FromStore::Reply(id, _) => *id,
                    FromStore::Events { revision, .. } => revision.0,
                    FromStore::Disconnected => 1,
                };
                (Tag::FromStore, u64::from(*process), what)
            }
            Event::Runtime { node, epoch, .. } => (Tag::Runtime, *node as u64, u64::from(*epoch)),
            Event::Step(i) => (Tag::Step, *i as u64, 0),
            Event::Restart { process } => (Tag::Restart, u64::from(*process), 0),
            Event::StoreWake => (Tag::StoreWake, 0, 0),
        };
        self.counts[tag as usize] += 1;
        self.hash = mix(self.hash, at ^ mix(who << 8 | tag as u64, what));
        if self.traced {
            let text = format!("{event:?}");
            self.current = format!("{} {who}: {}", TAGS[tag as usize], text.chars().take(300).collect::<String>());
        }
    }

    /// Events by kind, as far as there were any.
    pub fn counters(&self) -> BTreeMap<String, u64> {
        let some = TAGS.iter().zip(self.counts).filter(|(_, n)| *n > 0);
        some.map(|(name, n)| ((*name).to_owned(), n)).collect()
    }

    fn wake(&mut self, process: u32) {
        let now = self.clock(self.processes[process as usize].host);
        let out = &mut self.scratch;
        match self.processes[process as usize].running.as_mut() {
            Some(Running::Api(m)) => m.handle_timeout(now, &mut out.api),
            Some(Running::Manager(m)) => m.handle_timeout(now, &mut out.client),
            Some(Running::Scheduler(m)) => m.handle_timeout(now, &mut out.client),
            Some(Running::User(m)) => m.handle_timeout(now, &mut out.client),
            Some(Running::Agent(m)) => m.handle_timeout(now, &mut out.agent),
            None => {}
        }
        self.deliver(process);
    }

    /// Sends on what a machine has said, and notes when it wants to be woken.
    fn deliver(&mut self, process: u32) {
        if !self.scratch.api.is_empty() {
            let mut out = std::mem::take(&mut self.scratch.api);
            self.from_api(process, &mut out);
            self.scratch.api = out;
        }
        if !self.scratch.agent.is_empty() {
            let mut out = std::mem::take(&mut self.scratch.agent);
            self.from_agent(process, &mut out);
            self.scratch.agent = out;
        }
        if !self.scratch.client.is_empty() {
            let mut out = std::mem::take(&mut self.scratch.client);
            out.drain(..).for_each(|msg| self.send(process, msg));
            self.scratch.client = out;
        }
        if self.processes[process as usize].role.is_elected() {
            self.observe_leaders(process);
        }
        self.arm(process);
    }

    fn arm(&mut self, process: u32) {
        let p = &mut self.processes[process as usize];
        let Some(deadline) = p.running.as_ref().and_then(Running::poll_timeout) else { return };
        let at = deadline.at.0.max(self.now + 1);
        if at < p.armed {
            p.armed = at;
            let life = p.life;
            self.wakes.push(at, (process, life));
        }
    }

    fn arm_store(&mut self) {
        if let Some(deadline) = self.store.poll_timeout() {
            let at = deadline.at.0.max(self.now + 1);
            if at < self.store_armed {
                self.store_armed = at;
                self.heap.push(at, Event::StoreWake);
            }
        }
    }

    // --- clients and API servers -------------------------------------------------------------------------------

    /// The API server that a load balancer would choose: a living one that can be reached.
    fn choose_api(&mut self, host: HostId) -> Option<usize> {
        let alive = |w: &World, i: &usize| {
            let p = &w.processes[w.apis[*i] as usize];
            p.running.is_some() && !w.net.is_cut(host, p.host) && !w.net.is_cut(p.host, host)
        };
        let living: Vec<usize> = (0..self.apis.len()).filter(|i| alive(self, i)).collect();
        self.rng.pick(&living).copied()
    }

    fn connect(&mut self, process: u32) -> Option<Connection> {
        let api = self.choose_api(self.processes[process as usize].host)?;
        let id = self.conns.len() as u64;
        self.conns.push(process);
        let life = self.processes[self.apis[api] as usize].life;
        let connection = Connection { id, api, life, up: self.now, down: self.now, dead: false };
        self.processes[process as usize].connection = Some(connection);
        Some(connection)
    }

    fn send(&mut self, process: u32, msg: ToServer) {
        let connection = match self.processes[process as usize].connection {
            Some(connection) => connection,
            None => match self.connect(process) {
                Some(connection) => connection,
                None => return self.refuse(process),
            },
        };
        let from = self.processes[process as usize].host;
        let to_process = self.apis[connection.api];
        let to = self.processes[to_process as usize].host;
        if connection.dead {
            return;
        }
        if self.net.is_cut(from, to) {
            return self.kill_connection(process);
        }
        let at = (self.now + self.net.delay(from, to).as_nanos() as u64).max(connection.up + 1);
        let c = self.processes[process as usize].connection.as_mut().expect("it was just there");
        c.up = at;
        let event = Event::ToApi { process: to_process, life: connection.life, conn: connection.id, msg };
        self.heap.push(at, event);
    }

    /// Nobody answers: the client learns it soon.
    fn refuse(&mut self, process: u32) {
        let life = self.processes[process as usize].life;
        let at = self.now + REFUSED.as_nanos() as u64;
        self.heap.push(at, Event::ToClient { process, life, conn: u64::MAX, msg: FromServer::Disconnected });
    }

    /// The connection carries nothing any more; both ends notice some time later.
    fn kill_connection(&mut self, process: u32) {
        let Some(c) = self.processes[process as usize].connection.as_mut().filter(|c| !c.dead) else { return };
        c.dead = true;
        let (conn, api, api_life) = (c.id, c.api, c.life);
        let life = self.processes[process as usize].life;
        let lo = Duration::from_secs(1);
        let (client, server) = (self.rng.duration(lo, NOTICE), self.rng.duration(lo, NOTICE));
        let (client, server) = (self.now + client.as_nanos() as u64, self.now + server.as_nanos() as u64);
        self.heap.push(client, Event::ToClient { process, life, conn, msg: FromServer::Disconnected });
        self.heap.push(server, Event::Closed { process: self.apis[api], life: api_life, conn });
    }

    fn to_api(&mut self, process: u32, life: u32, conn: u64, msg: ToServer) {
        if self.processes[process as usize].life != life || self.processes[process as usize].running.is_none() {
            return;
        }
        let client = self.conns[conn as usize];
        let connection = self.processes[client as usize].connection;
        if connection.is_none_or(|c| c.id != conn || c.dead) {
            return;
        }
        if let ToServer::Request(_, request) = &msg {
            let at = self.seconds();
            self.checkers.request(at, &self.store, request);
        }
        self.api_handle(process, apiserver::In::Client(ConnId(conn), msg));
    }

    fn api_handle(&mut self, process: u32, input: apiserver::In) {
        let now = self.clock(self.processes[process as usize].host);
        let Some(Running::Api(api)) = self.processes[process as usize].running.as_mut() else { return };
        api.handle(now, input, &mut self.scratch.api);
        self.deliver(process);
    }

    fn from_api(&mut self, process: u32, out: &mut Vec<apiserver::Out>) {
        let Role::Api(index) = self.processes[process as usize].role else { unreachable!("only API servers say this") };
        let from = self.processes[process as usize].host;
        for msg in out.drain(..) {
            match msg {
                apiserver::Out::Client(ConnId(conn), msg) => self.reply(from, conn, msg),
                apiserver::Out::Store(id, request) => {
                    let life = self.processes[process as usize].life;
                    let delay = self.net.delay(from, STORE_HOST)
                        + self.rng.duration(self.store_latency.0, self.store_latency.1);
                    let at = (self.now + delay.as_nanos() as u64).max(self.store_up[index] + 1);
                    let at = at.max(self.store_stalled_until);
                    self.store_up[index] = at;
                    self.heap.push(at, Event::ToStore { api: index, life, id, request });
                }
            }
        }
    }

    fn reply(&mut self, from: HostId, conn: u64, msg: FromServer) {
        let process = self.conns[conn as usize];
        let host = self.processes[process as usize].host;
        let Some(connection) = self.processes[process as usize].connection.filter(|c| c.id == conn && !c.dead) else {
            return;
        };
        if self.net.is_cut(from, host) {
            return self.kill_connection(process);
        }
        let at = (self.now + self.net.delay(from, host).as_nanos() as u64).max(connection.down + 1);
        let c = self.processes[process as usize].connection.as_mut().expect("it was just there");
        c.down = at;
        let life = self.processes[process as usize].life;
        self.heap.push(at, Event::ToClient { process, life, conn, msg });
    }

    fn to_client(&mut self, process: u32, life: u32, conn: u64, msg: FromServer) {
        if self.processes[process as usize].life != life {
            return;
        }
        let broken = matches!(msg, FromServer::Disconnected);
        let p = &mut self.processes[process as usize];
        if conn != u64::MAX {
            if p.connection.is_none_or(|c| c.id != conn || (c.dead && !broken)) {
                return;
            }
            if broken {
                p.connection = None;
            }
        }
        let now = self.clock(self.processes[process as usize].host);
        let out = &mut self.scratch;
        match self.processes[process as usize].running.as_mut() {
            Some(Running::Manager(m)) => m.handle(now, msg, &mut out.client),
            Some(Running::Scheduler(m)) => m.handle(now, msg, &mut out.client),
            Some(Running::User(m)) => {
                m.handle(now, msg, &mut out.client);
                for done in m.take_done() {
                    let what = match done.error {
                        Some(error) => format!("{}: {error}", done.what),
                        None => done.what,
                    };
                    self.actions.push(Happening { at: self.now as f64 / 1e9, what });
                }
            }
            Some(Running::Agent(m)) => m.handle(now, agent::In::Api(msg), &mut out.agent),
            Some(Running::Api(_)) => unreachable!("an API server is nobody's client"),
            None => {}
        }
        self.deliver(process);
    }

    // --- the store ------------------------------------------------------------------------------------------------

    fn to_store(&mut self, api: usize, life: u32, id: u64, request: StoreRequest) {
        if self.processes[self.apis[api] as usize].life != life {
            return;
        }
        let mut out = std::mem::take(&mut self.store_out);
        let client = StoreClient(api as u32);
        let now = self.clock(STORE_HOST);
        self.store.handle(now, store::In::Request(client, id, request), &mut out);
        self.checkers.commits(self.now as f64 / 1e9, &self.store);
        self.from_store(out);
        self.arm_store();
    }

    fn from_store(&mut self, mut out: Vec<store::Out>) {
        for store::Out { to, msg } in out.drain(..) {
            let index = to.0 as usize;
            let process = self.apis[index];
            let (life, host) = (self.processes[process as usize].life, self.processes[process as usize].host);
            let delay = self.net.delay(STORE_HOST, host);
            let at = if matches!(msg, FromStore::Events { .. }) {
                let at = (self.now + (delay + self.lags[index]).as_nanos() as u64).max(self.store_events[index] + 1);
                self.store_events[index] = at;
                at
            } else {
                let at = (self.now + delay.as_nanos() as u64).max(self.store_down[index] + 1);
                // The reply to a watch opens its stream: it comes before the stream's events and after older ones.
                self.store_down[index] = at;
                at
            };
            self.heap.push(at, Event::FromStore { process, life, msg });
        }
        self.store_out = out;
    }

    // --- nodes ----------------------------------------------------------------------------------------------------

    fn from_agent(&mut self, process: u32, out: &mut Vec<agent::Out>) {
        let Role::Agent(node, _) = self.processes[process as usize].role else { unreachable!("only agents say this") };
        for msg in out.drain(..) {
            match msg {
                agent::Out::Api(msg) => self.send(process, msg),
                agent::Out::Runtime(command) => {
                    let (delay, fire) = self.nodes[node].runtime.command(command, &self.images);
                    self.fire_later(node, delay, fire);
                }
            }
        }
    }

    fn fire_later(&mut self, node: usize, delay: Duration, fire: Fire) {
        let host = &self.nodes[node];
        let (epoch, agent_life) = (host.epoch, self.processes[host.agent as usize].life);
        self.heap.push(self.now + delay.as_nanos() as u64, Event::Runtime { node, epoch, agent_life, fire });
    }

    fn runtime(&mut self, node: usize, epoch: u32, agent_life: u32, fire: Fire) {
        if self.nodes[node].epoch != epoch {
            return;
        }
        let now = self.clock(self.nodes[node].host);
        let (mut events, mut later) = (Vec::new(), Vec::new());
        self.nodes[node].runtime.fire(self.now, now.wall, fire, &self.images, &mut events, &mut later);
        for (delay, fire) in later {
            self.fire_later(node, delay, fire);
        }
        let process = self.nodes[node].agent;
        let same_life = self.processes[process as usize].life == agent_life;
        for event in events {
            // Completions are the asker's; what happens by itself is everybody's.
            let own = matches!(event, RuntimeEvent::Exited { .. } | RuntimeEvent::SandboxGone { .. });
            if !own && !same_life {
                continue;
            }
            let now = self.clock(self.nodes[node].host);
            if let Some(Running::Agent(m)) = self.processes[process as usize].running.as_mut() {
                m.handle(now, agent::In::Runtime(event), &mut self.scratch.agent);
            }
            self.deliver(process);
        }
    }

    // --- life and death -------------------------------------------------------------------------------------------

    fn start(&mut self, process: u32) {
        let p = &mut self.processes[process as usize];
        if p.running.is_some() {
            return;
        }
        if let Role::Agent(node, _) = p.role
            && !self.nodes[node].up
        {
            return;
        }
        p.life += 1;
        p.armed = u64::MAX;
        p.running = Some(p.role.start(self.seed, &p.name, p.life, self.leader_elect, self.record_events));
        self.wake(process);
    }

    fn crash(&mut self, process: u32) {
        let p = &mut self.processes[process as usize];
        if p.running.take().is_none() {
            return;
        }
        // The life ends now, so that nothing that is on its way to it arrives.
        p.life += 1;
        p.armed = u64::MAX;
        let connection = p.connection.take();
        if let Some(c) = connection {
            let at = self.now + 1_000_000;
            self.heap.push(at, Event::Closed { process: self.apis[c.api], life: c.life, conn: c.id });
        }
        if let Role::Api(index) = self.processes[process as usize].role {
            let mut out = Vec::new();
            let now = self.clock(STORE_HOST);
            self.store.handle(now, store::In::Closed(StoreClient(index as u32)), &mut out);
            self.from_store(out);
            for client in 0..self.processes.len() as u32 {
                let p = &mut self.processes[client as usize];
                let Some(c) = p.connection.as_mut().filter(|c| c.api == index) else { continue };
                c.dead = true;
                let (life, conn) = (p.life, c.id);
                let at =
                    self.now + self.rng.duration(Duration::from_millis(1), Duration::from_secs(2)).as_nanos() as u64;
                self.heap.push(at, Event::ToClient { process: client, life, conn, msg: FromServer::Disconnected });
            }
        }
    }

    fn restart_after(&mut self, process: u32, down: Duration) {
        self.crash(process);
        self.heap.push(self.now + down.as_nanos() as u64, Event::Restart { process });
    }

    // --- the timeline ---------------------------------------------------------------------------------------------

    fn seconds(&self) -> f64 {
        self.now as f64 / 1e9
    }

    fn node_set(&mut self, set: &NodeSet) -> Vec<usize> {
        let by = |f: &dyn Fn(&NodeHost) -> bool| -> Vec<usize> {
            self.nodes.iter().enumerate().filter(|(_, n)| f(n)).map(|(i, _)| i).collect()
        };
        match set {
            NodeSet::All => by(&|_| true),
            NodeSet::Names(names) => by(&|n| names.contains(&n.name)),
            NodeSet::Zone(zone) => by(&|n| n.zone == *zone),
            NodeSet::Labels(selector) => by(&|n| selector.matches(Some(&n.labels))),
            NodeSet::Random(count) => {
                let mut left = by(&|_| true);
                let mut chosen = Vec::new();
                while chosen.len() < *count && !left.is_empty() {
                    let i = self.rng.below(left.len() as u64) as usize;
                    chosen.push(left.swap_remove(i));
                }
                chosen
            }
            NodeSet::ControlPlane => Vec::new(),
        }
    }

    fn hosts(&mut self, set: &NodeSet) -> BTreeSet<HostId> {
        if *set == NodeSet::ControlPlane {
            let control = self.processes.iter().filter(|p| !matches!(p.role, Role::Agent(..) | Role::User));
            return control.map(|p| p.host).chain([STORE_HOST]).collect();
        }
        self.node_set(set).into_iter().map(|n| self.nodes[n].host).collect()
    }

    fn act(&mut self, step: usize) {
        let action = self.timeline[step].1.clone();
        if is_users(&action) && self.processes[self.user as usize].running.is_none() {
            // A step at the very start waits for its user.
            self.heap.push(self.now + 10_000_000, Event::Step(step));
            return;
        }
        let what = describe(&action);
        let happening = Happening { at: self.seconds(), what };
        if is_users(&action) {
            let nodes: Vec<String> = match &action {
                Action::Cordon { nodes, .. } | Action::Drain { nodes } => {
                    let nodes = nodes.clone();
                    self.node_set(&nodes).into_iter().map(|n| self.nodes[n].name.clone()).collect()
                }
                _ => Vec::new(),
            };
            let user = self.user;
            let now = self.clock(self.processes[user as usize].host);
            if let Some(Running::User(u)) = self.processes[user as usize].running.as_mut() {
                u.act(now, &action, &nodes);
            }
            self.arm(user);
        } else {
            self.faults.push(happening);
            self.fate(&action);
        }
    }

    fn fate(&mut self, action: &Action) {
        match action {
            Action::Kill { nodes, disk_lost } => {
                for n in self.node_set(nodes) {
                    self.power_off(n, *disk_lost);
                }
            }
            Action::Start { nodes } => {
                for n in self.node_set(nodes) {
                    self.power_on(n);
                }
            }
            Action::RestartAgent { nodes } => {
                for n in self.node_set(nodes) {
                    let (agent, down) =
                        (self.nodes[n].agent, self.rng.duration(Duration::from_secs(1), Duration::from_secs(20)));
                    self.restart_after(agent, down);
                }
            }
            Action::Partition { from, to, one_way } => {
                let (from, to) = (self.hosts(from), self.hosts(to));
                self.net.cut(from, to, *one_way);
            }
            Action::Heal => self.heal(),
            Action::Degrade { nodes, extra_latency, loss_percent } => {
                let hosts = self.hosts(nodes);
                self.net.degrade(hosts, *extra_latency, *loss_percent);
            }
            Action::ClockJump { nodes, by_seconds } => {
                for host in self.hosts(nodes) {
                    self.clock_offsets[host as usize] += by_seconds * 1_000_000;
                }
            }
            Action::RestartApiServer { index, down_for } => {
                let count = self.apis.len();
                let i = index.unwrap_or_else(|| self.rng.below(count as u64) as usize) % count;
                self.restart_after(self.apis[i], *down_for);
            }
            Action::ChangeLeader { down_for } => self.change_leader(*down_for),
            Action::Compact => {
                let at = self.store.revision();
                let now = self.clock(STORE_HOST);
                // A client of its own, to which nothing is delivered.
                let request = store::In::Request(StoreClient(u32::MAX), 0, StoreRequest::Compact { at });
                self.store.handle(now, request, &mut Vec::new());
            }
            Action::Lag { index, by } => {
                let i = index % self.lags.len();
                self.lags[i] = *by;
            }
            Action::StallStore { for_ } => {
                self.store_stalled_until = self.now + for_.as_nanos() as u64;
            }
            Action::CrashPods { namespace, selector } => self.crash_pods(namespace, selector),
            Action::DropConnections { nodes } => {
                let hosts = self.hosts(nodes);
                for p in 0..self.processes.len() as u32 {
                    if hosts.contains(&self.processes[p as usize].host) {
                        self.kill_connection(p);
                    }
                }
            }
            Action::RuntimeTrouble { nodes, one_in } => {
                for n in self.node_set(nodes) {
                    self.nodes[n].runtime.trouble_one_in = *one_in;
                }
            }
            other => unreachable!("a user's action: {other:?}"),
        }
    }

    fn power_off(&mut self, n: usize, disk_lost: bool) {
        if !self.nodes[n].up {
            return;
        }
        let wall = self.clock(self.nodes[n].host).wall;
        let node = &mut self.nodes[n];
        node.up = false;
        node.epoch += 1;
        node.runtime.power_off(wall, disk_lost);
        let agent = node.agent;
        // The machine is gone without a word: the server learns of it by silence.
        let connection = self.processes[agent as usize].connection.take();
        self.crash(agent);
        if let Some(c) = connection {
            let at = self.now + self.rng.duration(Duration::from_secs(1), NOTICE).as_nanos() as u64;
            self.heap.push(at, Event::Closed { process: self.apis[c.api], life: c.life, conn: c.id });
        }
    }

    fn power_on(&mut self, n: usize) {
        if self.nodes[n].up {
            return;
        }
        self.nodes[n].up = true;
        let process = self.nodes[n].agent;
        let boot = self.rng.duration(Duration::from_secs(1), Duration::from_secs(5));
        self.heap.push(self.now + boot.as_nanos() as u64, Event::Restart { process });
    }

    /// Mends links, clocks, lags and runtimes, and brings back whatever is down.
    fn heal(&mut self) {
        self.net.heal();
        self.clock_offsets.fill(0);
        self.lags.fill(Duration::ZERO);
        self.store_stalled_until = 0;
        for n in 0..self.nodes.len() {
            self.nodes[n].runtime.trouble_one_in = 0;
            self.power_on(n);
        }
        for p in 0..self.processes.len() as u32 {
            if self.processes[p as usize].running.is_none()
                && !matches!(self.processes[p as usize].role, Role::Agent(..))
            {
                self.heap.push(self.now + 1, Event::Restart { process: p });
            }
        }
    }

    fn change_leader(&mut self, down: Duration) {
        for p in 0..self.processes.len() as u32 {
            let now = self.clock(self.processes[p as usize].host);
            let leads = match &self.processes[p as usize].running {
                Some(Running::Manager(m)) => m.is_leader(now),
                Some(Running::Scheduler(m)) => m.is_leader(now),
                _ => false,
            };
            if leads {
                self.restart_after(p, down);
            }
        }
    }

    fn crash_pods(&mut self, namespace: &str, selector: &Selector) {
        let start = StoreKey::Object(ObjectKey::range_start(Kind::POD, namespace));
        let end = StoreKey::Object(ObjectKey::range_end(Kind::POD, namespace));
        let matching = self.store.range(&start, &end).filter_map(|kv| match &kv.value {
            Stored::Object(o) if selector.matches(o.labels()) => Some(o.uid().to_owned()),
            _ => None,
        });
        let uids: Vec<String> = matching.collect();
        for n in 0..self.nodes.len() {
            for uid in &uids {
                for id in self.nodes[n].runtime.running(uid) {
                    self.fire_later(n, Duration::from_millis(1), Fire::Exit(id, 1));
                }
            }
        }
    }

    /// Tells the checkers who acts as a leader now.
    fn observe_leaders(&mut self, process: u32) {
        if !self.leader_elect {
            return;
        }
        let now = self.clock(self.processes[process as usize].host);
        let (role, leads) = match &self.processes[process as usize].running {
            Some(Running::Manager(m)) => ("controller-manager", m.is_leader(now)),
            Some(Running::Scheduler(m)) => ("scheduler", m.is_leader(now)),
            _ => return,
        };
        if !self.checkers.leads(role, process, leads) {
            return;
        }
        // Another one has just begun to lead: nobody else may still do.
        let others: Vec<u32> = (0..self.processes.len() as u32)
            .filter(|p| *p != process)
            .filter(|p| {
                let now = self.clock(self.processes[*p as usize].host);
                match &self.processes[*p as usize].running {
                    Some(Running::Manager(m)) if role == "controller-manager" => m.is_leader(now),
                    Some(Running::Scheduler(m)) if role == "scheduler" => m.is_leader(now),
                    _ => false,
                }
            })
            .collect();
        let at = self.seconds();
        if let Some(other) = others.first() {
            let (a, b) = (&self.processes[process as usize].name, &self.processes[*other as usize].name);
            let what = format!("{a} leads while {b} still does");
            self.checkers.broken("one-leader", at, what);
        }
    }

    /// Mends everything, as the timeline's `heal` does.
    pub fn heal_all(&mut self) {
        let what = "heal everything".to_owned();
        self.faults.push(Happening { at: self.seconds(), what });
        self.heal();
    }

    /// About how many objects there are.
    pub fn store_size(&self) -> usize {
        self.checkers.phases.values().map(|n| usize::try_from(*n).unwrap_or(0)).sum::<usize>() + self.nodes.len()
    }

    /// Whether the users have done all that they were to do.
    pub fn users_are_idle(&self) -> bool {
        match &self.processes[self.user as usize].running {
            Some(Running::User(u)) => u.is_idle(),
            _ => true,
        }
    }

    /// API servers that run, for the checkers at the end.
    pub fn api_servers(&self) -> impl Iterator<Item = &apiserver::ApiServer> {
        self.apis.iter().filter_map(|p| match &self.processes[*p as usize].running {
            Some(Running::Api(api)) => Some(&**api),
            _ => None,
        })
    }
}
