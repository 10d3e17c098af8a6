//! Processes on the hosts. A process knows how to construct its machine: a crash drops the machine, a restart
//! constructs it again with the random stream of the next incarnation.

use std::rc::Rc;

use skeg_core::agent::{AgentConfig, NodeAgent};
use skeg_core::apiserver::{self, ApiServer};
use skeg_core::client::ElectionTimes;
use skeg_core::controllers::{ControllerManager, LoadBalancerRange, ManagerConfig, Metrics, PodRanges, TokenSigner};
use skeg_core::dns::{ClusterDns, DnsConfig};
use skeg_core::features::FeatureGates;
use skeg_core::object::Kinds;
use skeg_core::proxy::{ProxyConfig, ServiceProxy};
use skeg_core::scheduler::extenders::Extender;
use skeg_core::scheduler::profile::Profile;
use skeg_core::scheduler::{SchedulerConfig, SchedulerProcess};
use skeg_core::{Deadline, Machine, Now, Rng};

use crate::ids::{ApiId, NodeId};
use crate::net::{Connection, HostId};
use crate::user::User;

/// What a process is; determines how its machine is constructed.
#[derive(Clone, Debug)]
pub enum Role {
    /// An API server.
    Api(ApiId),
    /// A replica of the controller manager, with its index.
    Manager(usize),
    /// A replica of the scheduler, with its index.
    Scheduler(usize),
    /// One of the machines of the users, who carry out the timeline's actions at the API.
    User,
    /// The agent of a node.
    Agent(NodeId, Rc<AgentConfig>),
    /// The service proxy of a node.
    Proxy(NodeId, ProxyConfig),
    /// A replica of the cluster DNS, with its index.
    Dns(usize),
}

/// The running machine of a process.
pub enum Running {
    /// See [`Role::Api`].
    Api(Box<ApiServer>),
    /// See [`Role::Manager`].
    Manager(Box<ControllerManager>),
    /// See [`Role::Scheduler`].
    Scheduler(Box<SchedulerProcess>),
    /// See [`Role::User`].
    User(Box<User>),
    /// See [`Role::Agent`].
    Agent(Box<NodeAgent>),
    /// See [`Role::Proxy`].
    Proxy(Box<ServiceProxy>),
    /// See [`Role::Dns`].
    Dns(Box<ClusterDns>),
}

/// Configuration of a world's processes.
#[derive(Clone, Debug)]
pub struct Setup {
    /// Whether controller managers and schedulers use leader election.
    pub leader_elect: bool,
    /// How long leadership lasts.
    pub election: ElectionTimes,
    /// What tells the processes of one host from those of others in elections; `None` where their names do.
    pub host: Option<Rc<str>>,
    /// How pods are scheduled.
    pub profiles: Rc<[Profile]>,
    /// The extenders that have a say in it.
    pub extenders: Rc<[Extender]>,
    /// Whether Event objects are recorded.
    pub record_events: bool,
    /// The network from which Services get their addresses.
    pub service_cidr: ([u8; 4], u8),
    /// Whether the controllers of a manager share their views. With faults, each controller has its own: it then sees
    /// states of the cluster that others do not, which exposes bugs that a shared view would hide.
    pub share_informers: bool,
    /// The most endpoints that are put into one EndpointSlice.
    pub max_endpoints_per_slice: usize,
    /// Addresses for Services of type LoadBalancer; `None` if nobody gives any.
    pub load_balancers: Option<LoadBalancerRange>,
    /// The ranges that nodes are given, if they are.
    pub pod_ranges: Option<PodRanges>,
    /// Whether claims are bound and volumes made; see [`crate::scenario::Scenario::uses_volumes`].
    pub volumes: bool,
    /// Whether nodes run real containers; see [`skeg_core::controllers::ManagerConfig`].
    pub real_nodes: bool,
    /// Whether devices are allocated to claims; see [`crate::scenario::Scenario::uses_devices`].
    pub devices: bool,
    /// Whether workloads are scaled by metrics, and where these come from.
    pub autoscaling: Option<Metrics>,
    /// Whether controllers run that only clusters with untrusted users need.
    pub access_control: bool,
    /// The certificates, PEM, by which pods trust the API server; `None` if nobody publishes them.
    pub root_ca: Option<Rc<str>>,
    /// Who signs the tokens that Secrets are for; `None` if nobody does.
    pub tokens: Option<Rc<dyn TokenSigner>>,
    /// The kinds of the world; all processes that store or collect objects must share this registry.
    pub kinds: Kinds,
    /// Which feature gates are on.
    pub features: FeatureGates,
}

/// A process and its place in the world. Fields that every event reads come first, in one cache line.
#[repr(C, align(64))]
pub struct Process {
    /// The machine; `None` while the process is down.
    pub running: Option<Running>,
    /// Virtual time of its wake-up; `u64::MAX` if there is none.
    pub armed: u64,
    /// How many times it has been started.
    pub life: u32,
    /// The host that it runs on.
    pub host: HostId,
    /// Its connection to an API server, if it has one.
    pub connection: Option<Connection>,
    /// Name for traces and panics, such as `agent node-7`.
    pub name: Rc<str>,
    /// Its role.
    pub role: Role,
}

impl Setup {
    /// The name by which a process takes part in elections.
    fn identity(&self, name: &str, life: u32) -> Rc<str> {
        self.host.clone().unwrap_or_else(|| Rc::from(format!("{}_{life}", name.replace(' ', "-"))))
    }

    /// The configuration of a controller manager of this name, in this life.
    pub fn manager(&self, name: &str, life: u32) -> ManagerConfig {
        let identity = self.identity(name, life);
        let setup = self.clone();
        let Setup { leader_elect, election, record_events, share_informers, max_endpoints_per_slice, .. } = setup;
        let Setup { load_balancers, pod_ranges, volumes, real_nodes, devices, autoscaling, access_control, .. } =
            setup.clone();
        let Setup { root_ca, tokens, kinds, features, .. } = setup;
        ManagerConfig {
            identity,
            leader_elect,
            election,
            record_events,
            share_informers,
            max_endpoints_per_slice,
            load_balancers,
            pod_ranges,
            real_nodes,
            volumes,
            devices,
            autoscaling,
            access_control,
            root_ca,
            tokens,
            kinds,
            features,
        }
    }

    /// The configuration of a scheduler of this name, in this life.
    pub fn scheduler(&self, name: &str, life: u32) -> SchedulerConfig {
        let &Setup { leader_elect, election, record_events, volumes, devices, features, .. } = self;
        let (identity, profiles) = (self.identity(name, life), Rc::clone(&self.profiles));
        let extenders = Rc::clone(&self.extenders);
        SchedulerConfig {
            identity,
            leader_elect,
            election,
            record_events,
            profiles,
            volumes,
            devices,
            extenders,
            features,
        }
    }
}

impl Role {
    /// Whether it is a machine of the users.
    pub fn is_user(&self) -> bool {
        matches!(self, Role::User)
    }

    /// The node that it runs on; `None` if it is not a node's process.
    pub fn node(&self) -> Option<NodeId> {
        match self {
            Role::Agent(node, _) | Role::Proxy(node, _) => Some(*node),
            Role::Api(_) | Role::Manager(_) | Role::Scheduler(_) | Role::User | Role::Dns(_) => None,
        }
    }

    /// Constructs the machine for a life.
    pub fn start(&self, seed: u64, name: &str, life: u32, setup: &Setup) -> Running {
        let rng = Rng::stream(seed, name, u64::from(life));
        match self {
            Role::Api(_) => {
                let (kinds, service_cidr) = (setup.kinds.clone(), setup.service_cidr);
                let (name, features) = (Rc::from(name), setup.features);
                let config = apiserver::Config { name, kinds, service_cidr, features, ..apiserver::Config::default() };
                Running::Api(Box::new(ApiServer::new(config, rng)))
            }
            Role::Manager(_) => Running::Manager(Box::new(ControllerManager::new(setup.manager(name, life), rng))),
            Role::Scheduler(_) => Running::Scheduler(Box::new(SchedulerProcess::new(setup.scheduler(name, life), rng))),
            Role::User => Running::User(Box::new(User::new(rng))),
            Role::Agent(_, config) => Running::Agent(Box::new(NodeAgent::new((**config).clone(), rng))),
            Role::Proxy(_, config) => Running::Proxy(Box::new(ServiceProxy::new(config.clone(), rng))),
            Role::Dns(_) => Running::Dns(Box::new(ClusterDns::new(DnsConfig::default(), rng))),
        }
    }
}

impl Running {
    /// The role that the process is elected for, and whether it leads by this time; `None` if it takes part in no
    /// election.
    pub fn leadership(&self, now: Now) -> Option<(&'static str, bool)> {
        match self {
            Running::Manager(m) => Some(("controller-manager", m.is_leader(now))),
            Running::Scheduler(m) => Some(("scheduler", m.is_leader(now))),
            Running::Api(_) | Running::User(_) | Running::Agent(_) | Running::Proxy(_) | Running::Dns(_) => None,
        }
    }

    /// When the machine must next be woken.
    #[inline]
    pub fn poll_timeout(&self) -> Option<Deadline> {
        match self {
            Running::Api(m) => m.poll_timeout(),
            Running::Manager(m) => m.poll_timeout(),
            Running::Scheduler(m) => m.poll_timeout(),
            Running::User(m) => m.poll_timeout(),
            Running::Agent(m) => m.poll_timeout(),
            Running::Proxy(m) => m.poll_timeout(),
            Running::Dns(m) => m.poll_timeout(),
        }
    }
}
