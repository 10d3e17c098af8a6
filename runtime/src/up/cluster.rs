//! The machines' thread: it owns the store, the API server, controllers, scheduler and nodes, and drives them in real
//! time.
//!
//! What comes in: requests from HTTP, through one channel. What goes out: their answers, and the events of their
//! watches. Messages between the machines take no time: they are kept in one queue and handled in order.

mod members;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, RwLock};
use std::time::Duration;

use serde_json::Value;
use skeg_core::agent;
use skeg_core::api::{FromServer, ToServer};
use skeg_core::apiserver::{self, Answered, Callee, ConnId, Consultation};
use skeg_core::auth::{Authority, Mode};
use skeg_core::client::ElectionTimes;
use skeg_core::controllers::{LoadBalancerRange, Metrics, PodRanges};
use skeg_core::features::FeatureGates;
use skeg_core::proxy::ProxyConfig;
use skeg_core::store::{FromStore, StoreClient, StoreRequest};
use skeg_core::{Deadline, Kind, Kinds, Machine, Now, Object, ObjectKey, Rng};
use skeg_sim::ids::{Id, NodeId};
use skeg_sim::metrics::SimulatedMetrics;
use skeg_sim::process::{Role, Running, Setup};
use skeg_sim::runtime::{Fire, NodeRuntime};
use skeg_sim::scenario::{ImageProfile, Scheduling};
use skeg_sim::subnet::Subnet;
use tokio::runtime::Handle;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::aggregator::{self, Aggregator, Remotes};
use super::ask::{Inbound, ToCluster};
use super::bootstrap::Bootstrap;
use super::clients::Clients;
use super::clock::Clock;
use super::consult::{self, Reached};
use super::docker::{self, Docker};
use super::extenders::Lines;
use super::flow;
use super::keeper::Keeper;
use super::pki::{self, FrontProxy, Pair};
use super::proxy::Proxy;
use super::served::{Catalogue, Served};
use super::servers::certificates::{self, Certificates};
use super::servers::peers::{self, Peers};
use super::streams::remote::Kubelets;
use super::streams::visit::Visitors;
use super::tokens::{Signer, Tokens};
use crate::measured::MeasuredMetrics;
use crate::recording::format::Of;
use crate::recording::tape::{Tape, Track};
use crate::recording::writer::Recorder;
use members::Member;

/// The API server's connection for all HTTP requests.
const HTTP: ConnId = ConnId(u64::MAX);
/// The API server's connection for [`Bootstrap`].
const BOOTSTRAP: ConnId = ConnId(u64::MAX - 1);
/// The API server's connection for [`Peers`].
const PEERS: ConnId = ConnId(u64::MAX - 2);
/// The API server's connection for [`Certificates`].
const CERTIFICATES: ConnId = ConnId(u64::MAX - 3);
/// The API server's connection for [`Aggregator`].
const AGGREGATOR: ConnId = ConnId(u64::MAX - 4);
/// The API server's connection for [`flow::Keeper`].
const FLOWS: ConnId = ConnId(u64::MAX - 5);
/// How often [`Bootstrap`] checks its objects (upstream's `kubernetesservice` controller).
const BOOTSTRAP_INTERVAL: Duration = Duration::from_secs(10);
/// The API server's number as a client of the store.
const API: StoreClient = StoreClient(0);
/// Maximum number of requests that are taken before the timers are checked again.
const TAKEN_AT_ONCE: usize = 64;
/// Maximum number of messages that are handled before requests and timers are checked again.
const CARRIED_AT_ONCE: usize = 256;

/// The configuration of a cluster.
#[derive(Debug)]
pub struct Plan {
    /// Seed of the random numbers for names, UIDs and delays.
    pub seed: u64,
    /// The configuration of each simulated node's agent, with the node object that it registers.
    pub nodes: Vec<agent::AgentConfig>,
    /// The number of the first of them, from which the pods' addresses follow.
    pub first_node: u32,
    /// What issues tokens of service accounts.
    pub tokens: Arc<Tokens>,
    /// The node that runs real containers.
    pub docker: Option<docker::Found>,
    /// What runs beside the API server.
    pub components: Components,
    /// What it is among several servers; `None` if it is the only one.
    pub several: Option<Several>,
    /// Addresses for Services of type LoadBalancer.
    pub load_balancers: LoadBalancerRange,
    /// Options of the API server.
    pub api: ApiOptions,
    /// `--authorization-mode`.
    pub authorisation: Vec<Mode>,
    /// The certificates, PEM, by which pods trust the API server; `None` if they are not published.
    pub root_ca: Option<String>,
    /// By what servers of other group-versions know this one.
    pub front_proxy: Option<FrontProxy>,
    /// How images behave.
    pub images: BTreeMap<String, ImageProfile>,
    /// How pods are scheduled.
    pub scheduling: Scheduling,
    /// What the machines are recorded by.
    pub recorder: Option<Recorder>,
    /// Creates the objects that every cluster has.
    pub bootstrap: Bootstrap,
}

/// What runs beside the API server.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Components {
    /// The controllers.
    pub controllers: bool,
    /// The scheduler.
    pub scheduler: bool,
}

/// One of several servers.
#[derive(Clone, Debug)]
pub struct Several {
    /// The ranges of pods' addresses that nodes are given, if they are.
    pub pod_ranges: Option<PodRanges>,
    /// The host's name.
    pub host: String,
    /// A name that no other process has.
    pub holder: String,
    /// Where others reach this server; `None` if only this host can, so that it is no endpoint of the Service
    /// `kubernetes`.
    pub at: Option<SocketAddr>,
    /// How long controllers and scheduler lead.
    pub election: ElectionTimes,
    /// How long it goes on to serve once it is asked to end (`--shutdown-delay-duration`).
    pub shutdown_delay: Duration,
    /// How agents are reached.
    pub kubelets: Kubelets,
    /// What signs the certificates of agents.
    pub authority: pki::Authority,
    /// How long those hold (`--cluster-signing-duration`).
    pub signing_duration: Duration,
}

/// Options of the API server, as plain values.
#[derive(Clone, Debug)]
pub struct ApiOptions {
    /// `--service-cluster-ip-range`: network and length of its prefix.
    pub service_cidr: ([u8; 4], u8),
    /// `--service-node-port-range`, both ends included.
    pub node_port_range: (u16, u16),
    /// `--disable-admission-plugins`.
    pub disabled_plug_ins: BTreeSet<String>,
    /// `--feature-gates`, which the scheduler and the controllers follow as well.
    pub features: FeatureGates,
}

impl Default for ApiOptions {
    fn default() -> ApiOptions {
        let apiserver::Config { service_cidr, node_port_range, disabled_plug_ins, features, .. } =
            apiserver::Config::default();
        ApiOptions { service_cidr, node_port_range, disabled_plug_ins, features }
    }
}

impl ApiOptions {
    /// The first address of the Service network, which is the cluster IP of the Service `kubernetes`.
    pub fn first_service_ip(&self) -> Ipv4Addr {
        Ipv4Addr::from_bits(Ipv4Addr::from(self.service_cidr.0).to_bits() + 1)
    }
}

/// State of the cluster that the HTTP threads read directly.
#[derive(Clone, Debug)]
pub struct Shared {
    /// Whether [`Bootstrap`] has completed.
    pub ready: Arc<AtomicBool>,
    /// Whether the roles and bindings that every cluster has are there.
    pub has_policy: Arc<AtomicBool>,
    /// Whether the store answers, and its events arrive.
    pub connected: Arc<AtomicBool>,
    /// Whether the process has been asked to end.
    pub ending: Arc<AtomicBool>,
    /// Whether other servers use the same store.
    pub shares_store: bool,
    /// How the agents of nodes in other processes are reached; `None` if there are none.
    pub kubelets: Option<Kubelets>,
    /// The names of the simulated nodes of this process.
    pub own_nodes: Arc<BTreeSet<String>>,
    /// A copy of the API server's authorisers.
    pub authority: Arc<RwLock<Authority>>,
    /// The resources that are served.
    pub catalogue: Catalogue,
    /// The group-versions that other servers serve.
    pub remotes: Remotes,
    /// The FlowSchemas that are in force.
    pub flows: flow::Published,
    /// The certificate by which those know this one.
    pub proxy_client: Option<Arc<Pair>>,
    /// The cluster's clock.
    pub clock: Clock,
}

/// A message between two machines.
enum Message {
    ToApi(ConnId, ToServer),
    ToMember(usize, FromServer),
    ToStore(u64, StoreRequest),
    FromStore(FromStore),
    Consulted(u64, Vec<Answered>),
}

/// The node that runs real containers.
struct DockerNode {
    /// The index in `members` of its agent.
    member: usize,
    /// The node's name.
    name: Rc<str>,
    runtime: Docker,
    tokens: Arc<Tokens>,
}

/// What serves Services to the node that runs real containers.
struct Serving {
    /// The index in `members` of the machine that knows names.
    names: usize,
    proxy: Proxy,
}

/// Whose timer is due.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Sleeper {
    Store,
    Api,
    /// The periodic check of [`Bootstrap`].
    Bootstrap,
    /// The next pass of [`Peers`].
    Peers,
    /// The next look of [`Certificates`].
    Certificates,
    /// The next look at the APIServices.
    Aggregator,
    /// The next look at FlowSchemas and priority levels.
    Flows,
    Member(usize),
    /// A node's container runtime, and the number of the entry in `fires` that is due.
    Runtime(usize, u64),
}

/// Where the cluster's questions to webhooks are asked, and answered.
#[derive(Debug)]
pub struct Outside {
    /// The threads that ask.
    pub runtime: Handle,
    /// The channel for the answers.
    pub cluster: ToCluster,
}

/// The machines, and the messages and timers between them.
pub struct Cluster {
    clock: Clock,
    store: Keeper,
    api: apiserver::ApiServer,
    /// What is recorded of it.
    api_track: Track,
    members: Vec<Member>,
    /// Container runtimes; the number is the index in `members` of the node's agent.
    runtimes: Vec<(usize, NodeRuntime)>,
    fires: BTreeMap<u64, Fire>,
    next_fire: u64,
    images: BTreeMap<String, ImageProfile>,
    /// What is known of the pods of real nodes; `None` where they are simulated.
    measured: Option<Rc<MeasuredMetrics>>,
    /// The node that runs real containers.
    docker: Option<DockerNode>,
    /// What serves Services to its containers; `None` if that is not possible.
    serving: Option<Serving>,
    /// Clients that look into simulated containers.
    visitors: Visitors,
    /// The nodes' indices in `runtimes`.
    nodes: BTreeMap<String, usize>,
    queue: VecDeque<Message>,
    timers: BTreeSet<(u64, Sleeper)>,
    store_armed: Option<u64>,
    api_armed: Option<u64>,
    clients: Clients,
    bootstrap: Bootstrap,
    peers: Option<Peers>,
    certificates: Option<Certificates>,
    /// The network of cluster IPs.
    services: (Ipv4Addr, u8),
    aggregator: Aggregator,
    /// How the scheduler's extenders are reached.
    extenders: Lines,
    flows: flow::Keeper,
    /// Dropped once everything that was led has been given up.
    leaving: Option<oneshot::Sender<()>>,
    shared: Shared,
    outside: Outside,
    /// Whether the API server was connected to its store.
    was_connected: bool,
    /// The generation of the definitions that were published last.
    published: u64,
    /// Whether the roles and bindings that every cluster has were there.
    had_policy: bool,
    api_out: Vec<apiserver::Out>,
    /// Told of the API server after each change of an object.
    on_change: Option<OnChange>,
}

/// See [`Cluster::on_change`].
pub type OnChange = Box<dyn FnMut(&apiserver::ApiServer)>;

impl Cluster {
    /// Builds the machines without running them. Fails if a thread cannot be started.
    pub fn new(plan: Plan, kinds: Kinds, store: Keeper, shared: Shared, outside: Outside) -> Result<Cluster, String> {
        let Plan { seed, nodes, first_node, tokens, docker, components, several, load_balancers, .. } = plan;
        let Plan { api, authorisation, root_ca, front_proxy, images, scheduling, bootstrap, recorder, .. } = plan;
        let extenders = Lines::new(&scheduling.extenders)?;
        let tape = Tape::new(recorder, kinds.clone());
        let real_nodes = docker.is_some() || several.is_some();
        let measured = real_nodes.then(|| Rc::new(MeasuredMetrics::default()));
        let metrics: Metrics = match &measured {
            Some(measured) => Some(Rc::clone(measured) as Rc<_>),
            None => Some(Rc::new(SimulatedMetrics::of_images(images.clone()))),
        };
        let setup = Setup {
            leader_elect: several.is_some(),
            election: several.as_ref().map_or_else(ElectionTimes::default, |several| several.election),
            host: several.as_ref().map(|several| Rc::from(several.holder.as_str())),
            profiles: scheduling.profiles.into(),
            extenders: scheduling.extenders.iter().map(|e| e.extender.clone()).collect(),
            record_events: true,
            service_cidr: api.service_cidr,
            max_endpoints_per_slice: skeg_core::limits::MAX_ENDPOINTS_PER_SLICE,
            share_informers: true,
            load_balancers: Some(load_balancers),
            pod_ranges: several.as_ref().and_then(|several| several.pod_ranges),
            volumes: true,
            real_nodes,
            devices: true,
            autoscaling: Some(metrics),
            access_control: true,
            root_ca: root_ca.map(Rc::from),
            tokens: Some(tape.signer(Rc::new(Signer(Arc::clone(&tokens))))),
            kinds: kinds.clone(),
            features: api.features,
        };
        // Of simulated pods, the images are what is measured.
        let profiles = (!real_nodes).then(|| images.clone());
        let start = |name: String, role: Role| {
            let track = members::track(&tape, (seed, &name, 1), &role, &setup, (&profiles, real_nodes));
            let running = role.start(seed, &name, 1, &setup);
            Member { name, running, armed: None, track }
        };
        let mut members = Vec::new();
        if components.controllers {
            members.push(start("controller-manager".to_owned(), Role::Manager(0)));
        }
        if components.scheduler {
            members.push(start("scheduler".to_owned(), Role::Scheduler(0)));
        }
        let mut runtimes = Vec::new();
        // These nodes are alike, so the addresses of those before them are known.
        let subnets = Subnet::of_agents(nodes.iter().cycle().take(first_node as usize + nodes.len()));
        let subnets = subnets.into_iter().skip(first_node as usize).collect::<Vec<_>>();
        let names = nodes.iter().enumerate().map(|(n, config)| (config.node_name.to_string(), n)).collect();
        for (n, (config, addresses)) in (first_node..).map(NodeId::new).zip(nodes.into_iter().zip(subnets)) {
            let rng = Rng::stream(seed, &format!("runtime {}", config.node_name), 0);
            let mut runtime = NodeRuntime::new(n.number(), addresses, rng);
            runtime.open();
            runtimes.push((members.len(), runtime));
            members.push(start(format!("agent {}", config.node_name), Role::Agent(n, config.into())));
        }
        let (mut serving, mut docker_node) = (None, None);
        if let Some(found) = docker {
            let (member, config) = (members.len(), found.agent_config());
            let name = Rc::clone(&config.node_name);
            let number = NodeId::new(runtimes.len() as u32);
            members.push(start(format!("agent {name}"), Role::Agent(number, config.into())));
            let (runtime, proxy) = found.start(outside.runtime.clone(), outside.cluster.clone())?;
            if let Some(proxy) = proxy {
                let config = ProxyConfig { node_name: Rc::clone(&name), zone: Rc::from("") };
                members.push(start(format!("proxy {name}"), Role::Proxy(number, config)));
                serving = Some(Serving { names: members.len(), proxy });
                members.push(start("dns".to_owned(), Role::Dns(0)));
            }
            docker_node = Some(DockerNode { member, name, runtime, tokens });
        }
        let clients = Clients::new(kinds.clone());
        let signs = |several: &Several| Certificates::new(several.authority.clone(), several.signing_duration);
        let certificates = several.as_ref().map(signs);
        let peers = several.and_then(|several| Some(Peers::new(&several.host, several.at?, &several.holder)));
        let ApiOptions { service_cidr, node_port_range, disabled_plug_ins, features } = api;
        shared.catalogue.publish(Served::built_in_with(features));
        let config = apiserver::Config {
            service_cidr,
            node_port_range,
            disabled_plug_ins,
            features,
            mount_tokens: true,
            webhooks: true,
            kinds,
            track_fields: true,
            authorisation: Some(authorisation),
            ..apiserver::Config::default()
        };
        let api_track = tape.machine("api-server", (seed, "api-server", 0), || Of::ApiServer(config.clone()));
        let api = apiserver::ApiServer::new(config, Rng::stream(seed, "api-server", 0));
        Ok(Cluster {
            clock: shared.clock,
            store,
            api,
            api_track,
            members,
            runtimes,
            fires: BTreeMap::new(),
            next_fire: 0,
            images,
            measured,
            docker: docker_node,
            serving,
            visitors: Visitors::default(),
            nodes: names,
            queue: VecDeque::new(),
            timers: BTreeSet::new(),
            store_armed: None,
            api_armed: None,
            clients,
            bootstrap,
            peers,
            certificates,
            services: (service_cidr.0.into(), service_cidr.1),
            aggregator: Aggregator::new(front_proxy),
            extenders,
            flows: flow::Keeper::new(),
            leaving: None,
            shared,
            outside,
            was_connected: false,
            published: 0,
            had_policy: false,
            api_out: Vec::new(),
            on_change: None,
        })
    }

    /// Has this called after each change of an object.
    pub fn on_change(&mut self, call: OnChange) {
        self.on_change = Some(call);
    }

    /// Runs until it receives `Stop` or all senders of `inbox` are gone. Fails if the store does.
    pub async fn run(&mut self, mut inbox: UnboundedReceiver<Inbound>) -> Result<(), String> {
        self.wake(Sleeper::Api);
        let mut has_begun = false;
        // Requests from before the API server had read its store.
        let mut early = Vec::new();
        loop {
            self.carry_out();
            self.wake_due();
            self.carry_out();
            let next = self.clients.work_off();
            self.queue.extend(next.map(|message| Message::ToApi(HTTP, message)));
            if !has_begun && self.api.is_ready() {
                has_begun = true;
                self.begin();
                for inbound in early.drain(..) {
                    self.take(inbound)?;
                }
                continue;
            }
            self.notice_left();
            let inbound = match timeout(self.until_next(), inbox.recv()).await {
                Ok(Some(inbound)) => inbound,
                Ok(None) => return Ok(()),
                Err(_elapsed) => continue,
            };
            let more = std::iter::from_fn(|| inbox.try_recv().ok()).take(TAKEN_AT_ONCE);
            for inbound in std::iter::once(inbound).chain(more) {
                match inbound {
                    Inbound::Ask(..) | Inbound::Cancel(_) if !has_begun => early.push(inbound),
                    Inbound::Stop => return Ok(()),
                    inbound => self.take(inbound)?,
                }
            }
        }
    }

    /// Ends what runs beside the machines. Must be called off the threads of any runtime.
    pub fn end(self) {
        if let Some(docker) = &self.docker {
            docker.runtime.end();
        }
        if let Some(serving) = self.serving {
            serving.proxy.end();
        }
    }

    /// Wakes the machines that need the API server, once that has read its store.
    fn begin(&mut self) {
        self.wake(Sleeper::Bootstrap);
        self.wake(Sleeper::Peers);
        self.wake(Sleeper::Certificates);
        self.wake(Sleeper::Aggregator);
        self.wake(Sleeper::Flows);
        for member in 0..self.members.len() {
            self.wake(Sleeper::Member(member));
        }
    }

    /// Takes a message from another thread. Fails if the store has failed.
    fn take(&mut self, inbound: Inbound) -> Result<(), String> {
        match inbound {
            Inbound::Ask(ask, answer) => {
                if let Some(message) = self.clients.ask(ask, answer) {
                    self.queue.push_back(Message::ToApi(HTTP, message));
                }
            }
            Inbound::Cancel(watch) => {
                let message = self.clients.cancel(watch);
                self.queue.push_back(Message::ToApi(HTTP, message));
            }
            Inbound::Visit(visit) => self.visit(visit),
            // An error means that nobody waits for it any more.
            Inbound::NeedsUsage(reply) => drop(reply.send(self.needs_usage())),
            Inbound::Measured(used) => self.measured(used),
            Inbound::Runtime(happened) => self.docker_happened(happened),
            Inbound::Resolve(lookup) => {
                let names = self.serving.as_ref().map(|serving| &self.members[serving.names].running);
                if let Some(Running::Dns(names)) = names {
                    lookup.answer(names);
                }
            }
            Inbound::Consult(question, reply) => {
                let asked = self.asked(&question);
                self.outside.runtime.spawn(async move {
                    // An error means that nobody waits for it any more.
                    let _ = reply.send(consult::ask(question, asked).await);
                });
            }
            Inbound::Reach((namespace, name, port), reply) => {
                // An error means that nobody waits for it any more.
                let _ = reply.send(self.reach(&namespace, &name, port));
            }
            Inbound::Probed(name, said) => {
                let now = self.now();
                self.aggregator.answered(now, &name, said);
                self.look_at_api_services();
            }
            Inbound::Consulted(id, answers) => self.queue.push_back(Message::Consulted(id, answers)),
            Inbound::Extender(member, asked, answer) => self.extender_answered(member, asked, answer),
            Inbound::Synced(number) => {
                let told = self.store.synced(number);
                self.after_store(told);
            }
            Inbound::Store(message) => {
                let told = self.store.received(message)?;
                self.after_store(told);
            }
            Inbound::Leave(done) => self.leave(done),
            Inbound::EndWatches => {
                let ended = self.clients.end_watches();
                self.queue.extend(ended.into_iter().map(|message| Message::ToApi(HTTP, message)));
            }
            Inbound::Fail(why) => return Err(why),
            // It ends the loop that calls this.
            Inbound::Stop => {}
        }
        Ok(())
    }

    /// Gives up what this process leads, and takes it out of the endpoints.
    fn leave(&mut self, done: oneshot::Sender<()>) {
        let now = self.now();
        self.leaving = Some(done);
        for index in 0..self.members.len() {
            let calls = self.members[index].resign(now);
            self.queue.extend(calls.into_iter().map(|message| Message::ToApi(ConnId(index as u64), message)));
            self.after_agent(index, Vec::new());
        }
        let next = self.peers.as_mut().and_then(|peers| peers.leave(now));
        self.queue.extend(next.map(|message| Message::ToApi(PEERS, message)));
    }

    /// Says so once this process leads nothing any more.
    fn notice_left(&mut self) {
        let leads = |member: &Member| match &member.running {
            Running::Manager(m) => !m.has_resigned(),
            Running::Scheduler(m) => !m.has_resigned(),
            Running::Agent(_) | Running::Proxy(_) | Running::Dns(_) | Running::Api(_) | Running::User(_) => false,
        };
        let has_left = || self.peers.as_ref().is_none_or(Peers::has_left) && !self.members.iter().any(leads);
        if self.leaving.is_some() && has_left() {
            self.leaving = None;
        }
    }

    fn now(&self) -> Now {
        self.clock.now()
    }

    fn until_next(&self) -> Duration {
        if !self.queue.is_empty() || self.clients.has_backlog() {
            return Duration::ZERO;
        }
        let next = self.timers.first().map_or(u64::MAX, |(at, _)| *at);
        let wait = self.clock.real(Duration::from_nanos(next.saturating_sub(self.now().mono.0)));
        // If the clock is set or the host suspended, the timers are checked within a minute.
        wait.min(Duration::from_secs(60))
    }

    /// Handles the timers that are due.
    fn wake_due(&mut self) {
        let now = self.now().mono.0;
        while let Some((at, sleeper)) = self.timers.first().copied()
            && at <= now
        {
            self.timers.pop_first();
            self.wake(sleeper);
            self.carry_out();
        }
    }

    fn wake(&mut self, sleeper: Sleeper) {
        let now = self.now();
        match sleeper {
            Sleeper::Store => {
                self.store_armed = None;
                let told = self.store.handle_timeout(now);
                self.after_store(told);
            }
            Sleeper::Api => {
                self.api_armed = None;
                self.api_track.timeout(now);
                self.api.handle_timeout(now, &mut self.api_out);
                self.after_api();
            }
            Sleeper::Bootstrap => {
                let next = self.bootstrap.look_again();
                self.queue.extend(next.map(|message| Message::ToApi(BOOTSTRAP, message)));
                self.timers.insert(((now.mono + BOOTSTRAP_INTERVAL).0, Sleeper::Bootstrap));
            }
            Sleeper::Peers => {
                let Some(peers) = &mut self.peers else { return };
                let next = peers.look_again(now);
                self.queue.extend(next.map(|message| Message::ToApi(PEERS, message)));
                self.timers.insert(((now.mono + peers::INTERVAL).0, Sleeper::Peers));
            }
            Sleeper::Certificates => {
                let Some(certificates) = &mut self.certificates else { return };
                let authority = self.shared.authority.read().expect("nobody panics while it is changed");
                let requests = self.api.cached(Kind::CERTIFICATE_SIGNING_REQUEST);
                let addresses = |node: &str| {
                    let node = self.api.cached_object(&ObjectKey::new(Kind::NODE, "", node)).map(Object::to_json);
                    let all = node.unwrap_or_default()["status"]["addresses"].as_array().cloned().unwrap_or_default();
                    let all = all.iter().filter_map(|a| a["address"].as_str().map(str::to_owned));
                    all.filter(|address| certificates::is_of_a_host(address, self.services)).collect()
                };
                let calls = certificates.look(now, requests, &*authority, &addresses);
                self.queue.extend(calls.into_iter().map(|message| Message::ToApi(CERTIFICATES, message)));
                self.timers.insert(((now.mono + certificates::INTERVAL).0, Sleeper::Certificates));
            }
            Sleeper::Flows => {
                let (calls, flows) = self.flows.look(now, &self.api);
                self.queue.extend(calls.into_iter().map(|message| Message::ToApi(FLOWS, message)));
                let mut published = self.shared.flows.write().expect("nobody panics while it is read");
                if **published != flows {
                    *published = Arc::new(flows);
                }
                self.timers.insert(((now.mono + flow::INTERVAL).0, Sleeper::Flows));
            }
            Sleeper::Aggregator => {
                self.look_at_api_services();
                self.timers.insert(((now.mono + aggregator::INTERVAL).0, Sleeper::Aggregator));
            }
            Sleeper::Member(member) => {
                self.members[member].armed = None;
                self.step_member(member, now, None);
            }
            Sleeper::Runtime(node, number) => self.fire(node, number, now),
        }
    }

    /// Handles messages until the queue is empty, or `CARRIED_AT_ONCE` have been handled.
    fn carry_out(&mut self) {
        for _ in 0..CARRIED_AT_ONCE {
            let Some(message) = self.queue.pop_front() else { return };
            let now = self.now();
            match message {
                Message::ToApi(conn, message) => {
                    let asked = match &message {
                        ToServer::Request(id, _) if conn == HTTP => Some(*id),
                        ToServer::Request(..) | ToServer::Cancel(_) => None,
                    };
                    self.tell_api(now, apiserver::In::Client(conn, message));
                    let next = asked.and_then(|id| self.clients.handled(id));
                    self.queue.extend(next.map(|message| Message::ToApi(HTTP, message)));
                }
                Message::Consulted(id, answers) => {
                    self.tell_api(now, apiserver::In::Consulted(id, answers));
                }
                Message::ToMember(member, message) => self.step_member(member, now, Some(message)),
                Message::ToStore(id, request) => {
                    let told = self.store.handle(now, API, id, request);
                    self.after_store(told);
                }
                Message::FromStore(message) => {
                    self.tell_api(now, apiserver::In::Store(message));
                    if let Some(call) = &mut self.on_change {
                        call(&self.api);
                    }
                }
            }
        }
    }

    fn after_store(&mut self, told: Vec<FromStore>) {
        self.queue.extend(told.into_iter().map(Message::FromStore));
        arm(&mut self.timers, &mut self.store_armed, Sleeper::Store, self.store.poll_timeout());
    }

    fn tell_api(&mut self, now: Now, input: apiserver::In) {
        self.api_track.handle(now, &input);
        self.api.handle(now, input, &mut self.api_out);
        self.after_api();
    }

    fn after_api(&mut self) {
        self.api_track.decided(&self.api_out, self.api.poll_timeout());
        let mut out = std::mem::take(&mut self.api_out);
        for out in out.drain(..) {
            match out {
                apiserver::Out::Store(id, request) => self.queue.push_back(Message::ToStore(id, request)),
                apiserver::Out::Note(HTTP, id, note) => self.clients.noted(id, note),
                apiserver::Out::Note(..) => {}
                apiserver::Out::Consult(id, questions) => self.consult(id, questions),
                apiserver::Out::Client(HTTP, message) => {
                    if let Some(message) = self.clients.answered(message) {
                        self.queue.push_back(Message::ToApi(HTTP, message));
                    }
                }
                apiserver::Out::Client(BOOTSTRAP, message) => {
                    let next = self.bootstrap.answered(message);
                    self.queue.extend(next.map(|message| Message::ToApi(BOOTSTRAP, message)));
                    self.look_at_bootstrap();
                }
                // What was refused, another server has done, or it is tried again.
                apiserver::Out::Client(CERTIFICATES | AGGREGATOR | FLOWS, _) => {}
                apiserver::Out::Client(PEERS, message) => {
                    let Some(peers) = &mut self.peers else { continue };
                    let next = peers.answered(self.clock.now(), message);
                    self.queue.extend(next.map(|message| Message::ToApi(PEERS, message)));
                    for refused in peers.take_refused() {
                        tracing::warn!("the endpoints of this server could not be kept: {refused}");
                    }
                }
                apiserver::Out::Client(ConnId(member), message) => {
                    self.queue.push_back(Message::ToMember(member as usize, message));
                }
            }
        }
        self.api_out = out;
        let connected = self.api.is_ready();
        if std::mem::replace(&mut self.was_connected, connected) != connected {
            self.shared.connected.store(connected, Ordering::Release);
        }
        self.publish_definitions();
        self.publish_policy();
        arm(&mut self.timers, &mut self.api_armed, Sleeper::Api, self.api.poll_timeout());
    }

    /// Asks questions outside; their answers come back through the inbox.
    fn consult(&self, id: u64, questions: Vec<Consultation>) {
        let reached = questions.iter().map(|question| self.asked(question));
        let asked: Vec<_> = questions.iter().cloned().zip(reached).map(|(q, at)| consult::ask(q, at)).collect();
        let cluster = self.outside.cluster.clone();
        self.outside.runtime.spawn(async move {
            let asked: Vec<_> = asked.into_iter().map(tokio::spawn).collect();
            let mut answers = Vec::new();
            for answer in asked {
                answers.push(answer.await.unwrap_or_else(|e| Err(e.to_string())));
            }
            // An error means that the cluster has ended.
            let _ = cluster.send(Inbound::Consulted(id, answers));
        });
    }

    /// Where the Service is that a question goes to, if it goes to one.
    fn asked(&self, question: &Consultation) -> Option<Reached> {
        match &question.callee {
            Callee::Url(_) => None,
            Callee::Service { namespace, name, port, .. } => Some(self.reach(namespace, name, *port)),
        }
    }

    /// Where a Service is: a ready endpoint of it, or the host that it names.
    fn reach(&self, namespace: &str, name: &str, port: u16) -> Reached {
        let key = ObjectKey::new(Kind::SERVICE, namespace, name);
        let service = self.api.cached_object(&key).map(Object::to_json);
        let service = service.ok_or_else(|| format!("service {name:?} not found"))?;
        let ports = service["spec"]["ports"].as_array().cloned().unwrap_or_default();
        if service["spec"]["type"] == "ExternalName" {
            let host = service["spec"]["externalName"].as_str().unwrap_or_default();
            return Ok(format!("{host}:{port}"));
        }
        let wanted = ports.into_iter().find(|p| p["port"] == port);
        let wanted = wanted.ok_or_else(|| format!("no service port {port} found for service {name:?}"))?;
        let named = wanted["name"].as_str().unwrap_or_default();
        let found = consult::slices_of(&self.api, namespace, name).find_map(|slice| {
            let port = slice["ports"].as_array()?.iter().find(|p| p["name"].as_str().unwrap_or_default() == named)?;
            let port = u16::try_from(port["port"].as_u64()?).ok()?;
            let ready = |e: &&Value| e["conditions"]["ready"] != false;
            let address = slice["endpoints"].as_array()?.iter().find(ready)?["addresses"][0].as_str()?.parse().ok()?;
            Some(SocketAddr::new(address, port).to_string())
        });
        found.ok_or_else(|| format!("no endpoints available for service {name:?}"))
    }

    /// Keeps the APIServices, and publishes what other servers serve.
    fn look_at_api_services(&mut self) {
        let mut aggregator = std::mem::take(&mut self.aggregator);
        let reach = |namespace: &str, name: &str, port: u16| self.reach(namespace, name, port);
        let looked = aggregator.look(self.now(), &self.api, &reach);
        self.queue.extend(looked.calls.into_iter().map(|message| Message::ToApi(AGGREGATOR, message)));
        for question in looked.questions {
            let (cluster, own) = (self.outside.cluster.clone(), aggregator.own_certificate());
            self.outside.runtime.spawn(async move {
                let said = aggregator::proxy::probe(&question, own.as_ref()).await;
                // An error means that the cluster has ended.
                let _ = cluster.send(Inbound::Probed(question.name, said));
            });
        }
        self.aggregator = aggregator;
        let mut remotes = self.shared.remotes.write().expect("nobody panics while it is read");
        if **remotes != looked.remotes {
            *remotes = Arc::new(looked.remotes);
        }
    }

    /// Publishes the served resources to the HTTP threads if a definition was added, changed or removed.
    fn publish_definitions(&mut self) {
        let generation = self.api.definitions_generation();
        if generation != self.published {
            self.published = generation;
            let customs = self.api.served_definitions().map(|(kind, info, spec)| (kind, (*info).clone(), spec));
            self.shared.catalogue.publish(Served::with(self.api.features(), customs));
        }
    }

    /// Publishes what has changed of roles and bindings.
    fn publish_policy(&mut self) {
        let changes = self.api.take_policy_changes();
        if !changes.is_empty() {
            let mut authority = self.shared.authority.write().expect("nobody panics while it is read");
            changes.iter().for_each(|change| authority.policy.apply(change));
        }
        if !self.had_policy && self.api.has_policy() {
            self.had_policy = true;
            self.shared.has_policy.store(true, Ordering::Release);
        }
    }

    /// Logs what was refused, and sets `ready` once [`Bootstrap`] has completed.
    fn look_at_bootstrap(&mut self) {
        for refused in self.bootstrap.take_refused() {
            tracing::warn!("what every cluster has was refused: {refused}");
        }
        self.shared.ready.store(self.bootstrap.was_done(), Ordering::Release);
    }
}

/// Sets or clears a timer.
fn arm(timers: &mut BTreeSet<(u64, Sleeper)>, armed: &mut Option<u64>, who: Sleeper, next: Option<Deadline>) {
    let next = next.map(|deadline| deadline.at.0);
    if *armed != next {
        if let Some(old) = armed.take() {
            timers.remove(&(old, who));
        }
        if let Some(at) = next {
            timers.insert((at, who));
        }
        *armed = next;
    }
}
