//! What the world knows of its hosts beside their processes: nodes, API servers, the store, and the clocks of all.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use skeg_core::proxy::{Entry, Frontend};
use skeg_core::{Mono, Now, store};

use crate::clock::Clock;
use crate::fault::{FaultId, Layered};
use crate::ids::ProcessId;
use crate::net::HostId;
use crate::runtime::NodeRuntime;

/// A node apart from its processes: its runtime, and whether it has power.
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
    /// Faults that keep it powered off.
    pub(super) down_by: Vec<FaultId>,
    /// Faults that affect its runtime: one in this many operations.
    pub(super) trouble: Layered<u64>,
    pub(super) epoch: u32,
    pub(super) agent: ProcessId,
    pub(super) proxy: Option<ProcessId>,
    pub(super) host: HostId,
    /// Where the node sends connections to Services, as its proxy last configured it.
    pub services: BTreeMap<Frontend, Rc<Entry>>,
}

impl NodeHost {
    /// Whether a service proxy runs on it.
    pub fn has_proxy(&self) -> bool {
        self.proxy.is_some()
    }

    /// Changes the faults that affect its runtime.
    pub(crate) fn change_trouble(&mut self, change: impl FnOnce(&mut Layered<u64>)) {
        change(&mut self.trouble);
        self.runtime.trouble_one_in = self.trouble.get().unwrap_or(0);
    }
}

/// An API server's way to the store.
pub(crate) struct ApiHost {
    pub process: ProcessId,
    /// Faults that make it reject one in this many requests.
    pub overload: Layered<u64>,
    /// The extra delay of the store's events on their way to it.
    pub lag: Layered<Duration>,
    /// When its last message arrives at the store: messages arrive in order.
    pub(super) up: u64,
    /// When the store's last reply arrives.
    pub(super) down: u64,
    /// When the store's last events arrive.
    pub(super) events: u64,
    /// Numbers its connections to the store.
    pub(super) store_life: u32,
    /// It has lost its connection to the store, and does not know it yet.
    pub(super) is_severed: bool,
}

impl ApiHost {
    pub(super) fn new(process: ProcessId) -> ApiHost {
        ApiHost {
            process,
            overload: Layered::default(),
            lag: Layered::default(),
            up: 0,
            down: 0,
            events: 0,
            store_life: 0,
            is_severed: false,
        }
    }
}

/// What surrounds the store.
pub(crate) struct StoreHost {
    /// How long it takes to answer: a range in nanoseconds.
    pub(super) latency: (u64, u64),
    pub(super) stalled_until: u64,
    /// Until when each fault stalls it.
    pub stalls: Layered<u64>,
    /// When it is to be woken.
    pub(super) armed: u64,
    /// What it has said and was not sent yet.
    pub(super) out: Vec<store::Out>,
}

/// The clocks of all hosts.
pub(super) struct Clocks {
    pub(super) all: Vec<Clock>,
    /// No fault has changed any clock: all show the same time.
    pub(super) steady: bool,
    /// The time on such a clock.
    pub(super) time: Now,
}

impl Clocks {
    pub(super) fn new(hosts: usize) -> Clocks {
        Clocks { all: vec![Clock::default(); hosts], steady: true, time: Clock::steady(0) }
    }

    /// What a host sees as the time.
    #[inline(always)]
    pub(super) fn at(&self, now: u64, host: HostId) -> Now {
        if self.steady { self.time } else { self.all[host as usize].at(now) }
    }

    /// The virtual time at which a host's clock shows a moment.
    #[inline(always)]
    pub(super) fn when(&self, host: HostId, shown: Mono) -> u64 {
        if self.steady { shown.0 } else { self.all[host as usize].when(shown) }
    }
}
