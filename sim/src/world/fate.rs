//! The timeline: what users do goes to their process, everything else is done to the world here.

use std::collections::BTreeSet;
use std::time::Duration;

use skeg_core::Machine;
use skeg_core::object::{Kind, ObjectKey, Selector};
use skeg_core::store::{self, StoreClient, StoreKey, StoreRequest, Stored};

use super::{Event, NOTICE, NodeHost, STORE_HOST, World};
use crate::action::{describe, is_users};
use crate::net::HostId;
use crate::outcome::Happening;
use crate::process::{Process, Role, Running};
use crate::runtime::Fire;
use crate::scenario::{Action, NodeSet};

impl World {
    pub(super) fn seconds(&self) -> f64 {
        self.now as f64 / 1e9
    }

    pub(super) fn node_set(&mut self, set: &NodeSet) -> Vec<usize> {
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

    pub(super) fn hosts(&mut self, set: &NodeSet) -> BTreeSet<HostId> {
        if *set == NodeSet::ControlPlane {
            let of_control = |p: &&Process| p.role.node().is_none() && !matches!(p.role, Role::User);
            let control = self.processes.iter().filter(of_control);
            return control.map(|p| p.host).chain([STORE_HOST]).collect();
        }
        self.node_set(set).into_iter().map(|n| self.nodes[n].host).collect()
    }

    pub(super) fn act(&mut self, step: usize) {
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
            self.rearm(user);
        } else {
            self.faults.push(happening);
            self.fate(&action);
        }
    }

    pub(super) fn fate(&mut self, action: &Action) {
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
                    for process in [Some(self.nodes[n].agent), self.nodes[n].proxy].into_iter().flatten() {
                        let down = self.rng.duration(Duration::from_secs(1), Duration::from_secs(20));
                        self.restart_after(process, down);
                    }
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
                    self.steady = false;
                    self.clocks[host as usize].jump(*by_seconds);
                }
            }
            Action::ClockDrift { nodes, ppm } => {
                for host in self.hosts(nodes) {
                    self.steady = false;
                    self.clocks[host as usize].drift(self.now, *ppm);
                }
                // Who waits for its own clock is woken earlier or later now.
                (0..self.processes.len() as u32).for_each(|p| self.rearm(p));
            }
            Action::Clog { nodes, for_ } => {
                let hosts = self.hosts(nodes);
                self.net.clog(hosts, self.now + for_.as_nanos() as u64);
            }
            Action::Overload { index, one_in } => {
                let i = index % self.overloads.len();
                self.overloads[i] = *one_in;
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

    pub(super) fn power_off(&mut self, n: usize, disk_lost: bool) {
        if !self.nodes[n].up {
            return;
        }
        let wall = self.clock(self.nodes[n].host).wall;
        let node = &mut self.nodes[n];
        node.up = false;
        node.epoch += 1;
        node.runtime.power_off(wall, disk_lost);
        node.services.clear();
        for process in [Some(node.agent), node.proxy].into_iter().flatten() {
            // The machine is gone without a word: the server learns of it by silence.
            let connection = self.processes[process as usize].connection.take();
            self.crash(process);
            if let Some(c) = connection {
                let at = self.now + self.rng.duration(Duration::from_secs(1), NOTICE).as_nanos() as u64;
                self.heap.push(at, Event::Closed { process: self.apis[c.api()], life: c.life, conn: c.id() });
            }
        }
    }

    pub(super) fn power_on(&mut self, n: usize) {
        if self.nodes[n].up {
            return;
        }
        self.nodes[n].up = true;
        for process in [Some(self.nodes[n].agent), self.nodes[n].proxy].into_iter().flatten() {
            let boot = self.rng.duration(Duration::from_secs(1), Duration::from_secs(5));
            self.heap.push(self.now + boot.as_nanos() as u64, Event::Restart { process });
        }
    }

    /// Mends links, clocks, lags and runtimes, and brings back whatever is down.
    pub(super) fn heal(&mut self) {
        self.net.heal();
        let now = self.now;
        self.clocks.iter_mut().for_each(|clock| clock.mend(now));
        self.overloads.fill(0);
        self.lags.fill(Duration::ZERO);
        self.store_stalled_until = 0;
        for n in 0..self.nodes.len() {
            self.nodes[n].runtime.trouble_one_in = 0;
            self.power_on(n);
        }
        for p in 0..self.processes.len() as u32 {
            let process = &self.processes[p as usize];
            if process.running.is_none() && process.role.node().is_none() {
                self.heap.push(self.now + 1, Event::Restart { process: p });
            }
        }
    }

    pub(super) fn change_leader(&mut self, down: Duration) {
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

    pub(super) fn crash_pods(&mut self, namespace: &str, selector: &Selector) {
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
}
