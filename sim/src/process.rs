//! Processes: what runs on the hosts. A process is a constructor; a crash drops the machine, a restart builds it again
//! with another incarnation of its random stream.

use std::rc::Rc;

use skeg_core::agent::{AgentConfig, NodeAgent};
use skeg_core::apiserver::{self, ApiServer};
use skeg_core::controllers::{ControllerManager, ManagerConfig};
use skeg_core::dns::{ClusterDns, DnsConfig};
use skeg_core::object::Kinds;
use skeg_core::proxy::{ProxyConfig, ServiceProxy};
use skeg_core::scheduler::{SchedulerConfig, SchedulerProcess};
use skeg_core::{Deadline, Machine, Rng};

use crate::net::{Connection, HostId};
use crate::user::User;

/// What a process is, and how it is built.
#[derive(Clone, Debug)]
pub enum Role {
    /// An API server; the number counts them.
    Api(usize),
    /// A replica of the controller manager.
    Manager(usize),
    /// A replica of the scheduler.
    Scheduler(usize),
    /// Whoever carries out the timeline at the API.
    User,
    /// The agent of a node; the number counts nodes.
    Agent(usize, Rc<AgentConfig>),
    /// The service proxy of a node.
    Proxy(usize, ProxyConfig),
    /// A replica of the cluster's DNS.
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

/// How the processes of a world are set up.
#[derive(Clone, Debug)]
pub struct Setup {
    /// Whether controller managers and schedulers elect a leader.
    pub leader_elect: bool,
    /// Whether Event objects are recorded.
    pub record_events: bool,
    /// Whether the controllers of a manager read the same views. Under faults each has its own: so it sees states of
    /// the cluster that the others do not, and what a shared view would hide comes out.
    pub share_informers: bool,
    /// The kinds of the world, which every process that stores or collects objects must number alike.
    pub kinds: Kinds,
}

/// A process and its place in the world. What every event looks at comes first, in one line of the processor's cache.
#[repr(C, align(64))]
pub struct Process {
    /// The machine; none while it is down.
    pub running: Option<Running>,
    /// The moment of the armed wake-up; `u64::MAX` if none is.
    pub armed: u64,
    /// How often it has been started.
    pub life: u32,
    /// Where it runs.
    pub host: HostId,
    /// Its connection to an API server, if it has one.
    pub connection: Option<Connection>,
    /// For traces and panics: `agent node-7`.
    pub name: Rc<str>,
    /// What it is.
    pub role: Role,
}

impl Role {
    /// The node that it runs on, if it is a node's.
    pub fn node(&self) -> Option<usize> {
        match self {
            Role::Agent(node, _) | Role::Proxy(node, _) => Some(*node),
            Role::Api(_) | Role::Manager(_) | Role::Scheduler(_) | Role::User | Role::Dns(_) => None,
        }
    }

    /// Builds the machine of a life.
    pub fn start(&self, seed: u64, name: &str, life: u32, setup: &Setup) -> Running {
        let Setup { leader_elect, record_events, share_informers, kinds } = setup.clone();
        let rng = Rng::stream(seed, name, u64::from(life));
        let identity: Rc<str> = Rc::from(format!("{}_{life}", name.replace(' ', "-")));
        match self {
            Role::Api(_) => {
                let config = apiserver::Config { name: Rc::from(name), kinds, ..apiserver::Config::default() };
                Running::Api(Box::new(ApiServer::new(config, rng)))
            }
            Role::Manager(_) => {
                let config = ManagerConfig { identity, leader_elect, record_events, share_informers, kinds };
                Running::Manager(Box::new(ControllerManager::new(config, rng)))
            }
            Role::Scheduler(_) => {
                let config = SchedulerConfig { identity, leader_elect, record_events, ..SchedulerConfig::default() };
                Running::Scheduler(Box::new(SchedulerProcess::new(config, rng)))
            }
            Role::User => Running::User(Box::new(User::new(rng))),
            Role::Agent(_, config) => Running::Agent(Box::new(NodeAgent::new((**config).clone(), rng))),
            Role::Proxy(_, config) => Running::Proxy(Box::new(ServiceProxy::new(config.clone(), rng))),
            Role::Dns(_) => Running::Dns(Box::new(ClusterDns::new(DnsConfig::default(), rng))),
        }
    }
}

impl Running {
    /// When the machine next wants to be woken.
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
