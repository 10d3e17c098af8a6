//! Builds a world: hosts, processes, nodes, and the first events.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use skeg_core::Rng;
use skeg_core::agent::AgentConfig;
use skeg_core::client::ElectionTimes;
use skeg_core::controllers::MetricsSource;
use skeg_core::object::{Kinds, REGION_LABEL, ZONE_LABEL};
use skeg_core::proxy::ProxyConfig;
use skeg_core::random::mix;
use skeg_core::store::MemoryStore;

use super::freeze::Freezer;
use super::hosts::{ApiHost, Clocks, NodeHost, StoreHost};
use super::timers::Timers;
use super::{Event, STORE_HOST, Scratch, Struck, TAGS, Trace, World};
use crate::event_queue::EventQueue;
use crate::extender::{self, Extenders};
use crate::fault::Layered;
use crate::ids::{ApiId, Id, NodeId, ProcessId, Table};
use crate::invariant::Checkers;
use crate::metrics::SimulatedMetrics;
use crate::net::{HostId, Network};
use crate::process::{Process, Role, Setup};
use crate::runtime::NodeRuntime;
use crate::scenario::{FaultLevel, Scenario, Step};
use crate::statistics::Statistics;
use crate::subnet::Subnet;

/// Spreads the nodes of a scenario over zones and gives each its configuration.
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
            let taint =
                |t: &String| AgentConfig::parse_taint(t).unwrap_or_else(|why| panic!("pool {}: {why}", pool.name));
            let taints = pool.taints.iter().map(taint).collect();
            let config = AgentConfig {
                node_name: Rc::from(name),
                labels,
                taints,
                register_schedulable: !pool.cordoned,
                capacity: pool.capacity.clone(),
                host_ip: Rc::from(format!("172.{}.{}.{}", 16 + (n >> 16), (n >> 8) & 255, n & 255)),
                record_events: scenario.cluster.record_events,
                ..AgentConfig::default()
            };
            all.push((config, zone));
        }
    }
    all
}

impl World {
    /// Builds the world of a scenario; `timeline` contains the scenario's steps and the faults drawn by the seed.
    pub fn new(scenario: &Scenario, seed: u64, timeline: Vec<Step>, traced: bool) -> World {
        let cluster = &scenario.cluster;
        let mut processes = Table::default();
        let mut host: HostId = STORE_HOST;
        let add = |name: String, role: Role, host: HostId, processes: &mut Table<ProcessId, Process>| {
            let (name, armed) = (Rc::from(name), u64::MAX);
            processes.push(Process { name, role, host, life: 0, running: None, connection: None, armed })
        };
        let mut next_host = || {
            host += 1;
            host
        };
        let mut apis: Table<ApiId, ApiHost> = Table::default();
        for i in 0..cluster.api_servers.max(1) {
            let process = add(format!("api-server {i}"), Role::Api(apis.next()), next_host(), &mut processes);
            apis.push(ApiHost::new(process));
        }
        for i in 0..cluster.control_replicas.max(1) {
            let host = next_host();
            add(format!("controller-manager {i}"), Role::Manager(i), host, &mut processes);
            add(format!("scheduler {i}"), Role::Scheduler(i), host, &mut processes);
        }
        let replicas = if cluster.proxies { cluster.control_replicas.max(1) } else { 0 };
        for i in 0..replicas {
            add(format!("dns {i}"), Role::Dns(i), next_host(), &mut processes);
        }
        let mut users = Vec::new();
        for i in 0..cluster.users.max(1) {
            let name = if i == 0 { "user".to_owned() } else { format!("user {i}") };
            users.push(add(name, Role::User, next_host(), &mut processes));
        }
        let control = processes.len();
        let mut nodes: Table<NodeId, NodeHost> = Table::default();
        let configs = node_configs(scenario);
        let subnets = Subnet::of_agents(configs.iter().map(|(config, _)| config));
        for ((config, zone), addresses) in configs.into_iter().zip(subnets) {
            let n = nodes.next();
            let (host, name, labels) = (next_host(), config.node_name.to_string(), config.labels.clone());
            let agent = add(format!("agent {name}"), Role::Agent(n, Rc::new(config)), host, &mut processes);
            let proxy = cluster.proxies.then(|| {
                let config = ProxyConfig { node_name: Rc::from(&*name), zone: Rc::from(&*zone) };
                add(format!("proxy {name}"), Role::Proxy(n, config), host, &mut processes)
            });
            let runtime = NodeRuntime::new(n.number(), addresses, Rng::stream(seed, &format!("runtime {name}"), 0));
            let services = BTreeMap::new();
            nodes.push(NodeHost {
                name,
                zone,
                labels,
                runtime,
                up: true,
                down_by: Vec::new(),
                trouble: Layered::default(),
                epoch: 0,
                agent,
                proxy,
                host,
                services,
            });
        }
        let metrics = || Rc::new(SimulatedMetrics::of(scenario)) as Rc<dyn MetricsSource>;
        let timers = Timers::new(mix(seed, 2), processes.len());
        let mut world = World {
            now: 0,
            seed,
            store: MemoryStore::new(),
            nodes,
            zones: vec![BTreeMap::new(); replicas],
            processes,
            checkers: Checkers::new(&scenario.scheduling),
            statistics: Statistics::default(),
            faults: Vec::new(),
            actions: Vec::new(),
            events: 0,
            hash: mix(0, seed),
            counts: [0; TAGS.len()],
            timers,
            event_queue: EventQueue::new(mix(seed, 1)),
            net: Network::new(cluster.latency, Rng::stream(seed, "network", 0)),
            rng: Rng::stream(seed, "world", 0),
            images: scenario.images.clone(),
            extenders: Extenders::default(),
            timeline,
            waiting: Vec::new(),
            in_vain: Vec::new(),
            late_replies: BTreeMap::new(),
            late: BTreeSet::new(),
            apis,
            users,
            conns: Vec::new(),
            clocks: Clocks::new(host as usize + 1),
            control,
            store_host: StoreHost {
                latency: (cluster.store_latency.0.as_nanos() as u64, cluster.store_latency.1.as_nanos() as u64),
                stalled_until: 0,
                stalls: Layered::default(),
                armed: u64::MAX,
                out: Vec::new(),
            },
            struck: Struck::default(),
            actor: None,
            freezer: Freezer::default(),
            skews: BTreeMap::new(),
            watch_down: BTreeMap::new(),
            causes: None,
            calm: scenario.faults == FaultLevel::None,
            setup: Setup {
                leader_elect: cluster.control_replicas > 1 || scenario.faults != FaultLevel::None,
                election: ElectionTimes::default(),
                host: None,
                profiles: scenario.scheduling.profiles.as_slice().into(),
                extenders: extender::simulated(&scenario.scheduling.extenders),
                record_events: cluster.record_events,
                service_cidr: cluster.service_cidr,
                max_endpoints_per_slice: cluster.max_endpoints_per_slice,
                share_informers: scenario.faults == FaultLevel::None,
                load_balancers: None,
                pod_ranges: None,
                volumes: scenario.uses_volumes(),
                real_nodes: false,
                devices: scenario.uses_devices(),
                autoscaling: scenario.uses_autoscaling().then(|| Some(metrics())),
                access_control: false,
                root_ca: None,
                tokens: None,
                kinds: Kinds::default(),
                features: cluster.features,
            },
            scratch: Scratch::default(),
            last_woken: (0, ProcessId::new(0), 0),
            trace: Trace { wanted: traced, ..Trace::default() },
            #[cfg(test)]
            losing: None,
        };
        for i in 0..world.timeline.len() {
            world.event_queue.push(world.timeline[i].at.as_nanos() as u64, Event::Step(i));
        }
        // Processes start during the first second, agents last, as in a real cluster.
        for process in world.processes.ids() {
            let late = world.processes[process].role.node().is_some();
            let at =
                world.rng.below(if late { 1_000_000_000 } else { 50_000_000 }) + if late { 200_000_000 } else { 0 };
            world.event_queue.push(at, Event::Restart { process });
        }
        world
    }
}
