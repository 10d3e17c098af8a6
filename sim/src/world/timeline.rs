//! The timeline: user actions go to the users' process, faults change the world. The faults are in `fault`; this file
//! has the operations that they use.

use std::collections::BTreeSet;
use std::time::Duration;

use skeg_core::Machine;
use skeg_core::object::{Kind, ObjectKey, Selector};
use skeg_core::store::{self, StoreClient, StoreKey, StoreRequest, Stored};

use super::{Event, NOTICE, NodeHost, STORE_HOST, World};
use crate::clock::Clock;
use crate::fault::{Fault, FaultId};
use crate::ids::{NodeId, ProcessId};
use crate::net::HostId;
use crate::outcome::Happening;
use crate::process::{Process, Role, Running};
use crate::runtime::Fire;
use crate::scenario::{Action, NodeSet, UserAction};

/// How long, in seconds, a fault may still disturb the control plane after it has ended: dead connections are noticed,
/// leaders elected, lists made.
const SETTLED_AFTER: f64 = 90.0;

impl World {
    pub(crate) fn seconds(&self) -> f64 {
        self.now as f64 / 1e9
    }

    /// The nodes of a set.
    pub(crate) fn node_set(&mut self, set: &NodeSet) -> Vec<NodeId> {
        let by = |f: &dyn Fn(&NodeHost) -> bool| -> Vec<NodeId> {
            self.nodes.ids().filter(|n| f(&self.nodes[*n])).collect()
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
            NodeSet::Actor => by(&|n| self.actor == Some(n.host)),
            NodeSet::ControlPlane | NodeSet::Machine(_) => Vec::new(),
        }
    }

    /// The hosts of a set.
    pub(crate) fn hosts(&mut self, set: &NodeSet) -> BTreeSet<HostId> {
        if *set == NodeSet::ControlPlane {
            let of_control = |p: &&Process| p.role.node().is_none() && !matches!(p.role, Role::User);
            let control = self.processes.iter().filter(of_control);
            return control.map(|p| p.host).chain([STORE_HOST]).collect();
        }
        if let NodeSet::Machine(name) = set {
            let named = self.processes.iter().find(|p| p.name.replace(' ', "-") == *name);
            return BTreeSet::from([named.map_or(STORE_HOST, |p| p.host)]);
        }
        if *set == NodeSet::Actor {
            return self.actor.into_iter().collect();
        }
        self.node_set(set).into_iter().map(|n| self.nodes[n].host).collect()
    }

    /// Carries out a step of the timeline, or lets it wait for its moment.
    pub(super) fn act(&mut self, step: usize) {
        if let Some(moment) = self.timeline[step].when.take() {
            return self.wait(step, moment);
        }
        match self.timeline[step].action.clone() {
            Action::User(action) => self.users_act(step, &action),
            Action::Fault(fault) => self.strike(FaultId(step as u32), fault),
        }
    }

    fn users_act(&mut self, step: usize, action: &UserAction) {
        let user = self.users[action.shared_by(self.users.len())];
        if self.processes[user].running.is_none() {
            // A step at the very start waits until the users' process is running.
            self.event_queue.push(self.now + 10_000_000, Event::Step(step));
            return;
        }
        let nodes = action.nodes().map(|nodes| self.node_set(nodes)).unwrap_or_default();
        let nodes: Vec<String> = nodes.into_iter().map(|n| self.nodes[n].name.clone()).collect();
        let now = self.clock(self.processes[user].host);
        if let Some(Running::User(u)) = self.processes[user].running.as_mut() {
            u.act(now, action, &nodes);
        }
        self.rearm(user);
    }

    /// Lets a fault strike, and schedules its healing if it has a duration.
    fn strike(&mut self, id: FaultId, fault: Fault) {
        self.faults.push(Happening { at: self.seconds(), what: fault.describe() });
        fault.strike(self, id);
        if let Some(lasts) = fault.disturbs_control() {
            self.checkers.silence.disturb(self.seconds() + lasts.as_secs_f64() + SETTLED_AFTER);
        }
        if let Some(lasts) = fault.lasts() {
            self.event_queue.push(self.now + lasts.as_nanos() as u64, Event::Mend(id));
        }
        self.struck.active.push((id, fault));
    }

    /// Heals a fault unless it is already healed.
    pub(super) fn heal(&mut self, id: FaultId) {
        if let Some(i) = self.struck.active.iter().position(|(other, _)| *other == id) {
            let (_, fault) = self.struck.active.remove(i);
            self.faults.push(Happening { at: self.seconds(), what: format!("over: {}", fault.describe()) });
            fault.heal(self, id);
        }
    }

    /// Heals all active faults.
    pub(crate) fn heal_each(&mut self) {
        for (id, fault) in std::mem::take(&mut self.struck.active) {
            fault.heal(self, id);
        }
        self.checkers.silence.healed(self.seconds());
        self.give_up();
    }

    /// Cuts a node's power until this fault is healed.
    pub(crate) fn power_off(&mut self, n: NodeId, by: FaultId, disk_lost: bool) {
        let wall = self.clock(self.nodes[n].host).wall;
        let node = &mut self.nodes[n];
        node.down_by.push(by);
        if disk_lost || node.up {
            node.runtime.power_off(wall, disk_lost);
        }
        if disk_lost {
            self.checkers.containers.forget(&self.nodes[n].name);
        }
        let node = &mut self.nodes[n];
        if !node.up {
            return;
        }
        node.up = false;
        node.epoch += 1;
        node.services.clear();
        for process in self.processes_of(n) {
            // A machine without power closes no connections: the server notices only by the silence.
            let connection = self.processes[process].connection.take();
            self.crash(process);
            if let Some(c) = connection {
                let silence = self.rng.duration(Duration::from_secs(1), NOTICE).as_nanos() as u64;
                let at = (self.now + silence).max(c.up + 1);
                self.event_queue
                    .push(at, Event::Closed { process: self.apis[c.api()].process, life: c.life, conn: c.id() });
            }
        }
    }

    /// Removes a fault from those that keep a node powered off; if it was the last, the node gets power.
    pub(crate) fn power_back(&mut self, n: NodeId, by: FaultId) {
        let down_by = &mut self.nodes[n].down_by;
        down_by.retain(|id| *id != by);
        if down_by.is_empty() {
            self.power_on(n);
        }
    }

    /// Powers a node on, whatever switched it off.
    pub(crate) fn power_on(&mut self, n: NodeId) {
        self.nodes[n].down_by.clear();
        if self.nodes[n].up {
            return;
        }
        self.nodes[n].up = true;
        for process in self.processes_of(n) {
            let boot = self.rng.duration(Duration::from_secs(1), Duration::from_secs(5));
            self.event_queue.push(self.now + boot.as_nanos() as u64, Event::Restart { process });
        }
    }

    /// The processes of a node.
    pub(crate) fn processes_of(&self, n: NodeId) -> impl Iterator<Item = ProcessId> + use<> {
        [Some(self.nodes[n].agent), self.nodes[n].proxy].into_iter().flatten()
    }

    /// Crashes a process; it restarts after a delay, or when the fault is healed.
    pub(crate) fn restart_after(&mut self, process: ProcessId, by: FaultId, down: Duration) {
        self.crash(process);
        self.struck.taken_down.push((by, process));
        self.event_queue.push(self.now + down.as_nanos() as u64, Event::Restart { process });
    }

    /// Restarts the processes that a fault has taken down.
    pub(crate) fn bring_back(&mut self, by: FaultId) {
        for (_, process) in self.struck.taken_down.extract_if(.., |(id, _)| *id == by) {
            self.event_queue.push(self.now + 1, Event::Restart { process });
        }
    }

    /// The clock of a host, for a fault to change.
    pub(crate) fn tamper_with_clock(&mut self, host: HostId) -> &mut Clock {
        self.clocks.steady = false;
        &mut self.clocks.all[host as usize]
    }

    /// Undoes a fault's changes of clocks.
    pub(crate) fn mend_clocks(&mut self, by: FaultId) {
        let now = self.now;
        self.clocks.all.iter_mut().for_each(|clock| clock.mend(now, by));
        self.rearm_all();
    }

    /// Recomputes all wake-ups after clocks have changed.
    pub(crate) fn rearm_all(&mut self) {
        self.processes.ids().for_each(|p| self.rearm(p));
    }

    /// Whether a process is the leader of its role by its own clock.
    pub(crate) fn is_leader(&self, process: ProcessId) -> bool {
        self.leadership(process).is_some_and(|(_, leads)| leads)
    }

    /// See [`Running::leadership`]; by the clock of the process. `None` if the process does not run.
    pub(crate) fn leadership(&self, process: ProcessId) -> Option<(&'static str, bool)> {
        let now = self.clock(self.processes[process].host);
        self.processes[process].running.as_ref()?.leadership(now)
    }

    /// Compacts the store up to the current revision.
    pub(crate) fn compact(&mut self) {
        let at = self.store.revision();
        let now = self.clock(STORE_HOST);
        // A separate client, which receives nothing.
        let request = store::In::Request(StoreClient(u32::MAX), 0, StoreRequest::Compact { at });
        self.store.handle(now, request, &mut Vec::new());
    }

    /// Recomputes until when the store stalls.
    pub(crate) fn restall(&mut self) {
        self.store_host.stalled_until = self.store_host.stalls.all().max().unwrap_or(0);
    }

    /// Crashes the containers of the matching pods.
    pub(crate) fn crash_pods(&mut self, namespace: &str, selector: &Selector) {
        let start = StoreKey::Object(ObjectKey::range_start(Kind::POD, namespace));
        let end = StoreKey::Object(ObjectKey::range_end(Kind::POD, namespace));
        let matching = self.store.range(&start, &end).filter_map(|kv| match &kv.value {
            Stored::Object(o) if selector.matches(o.labels()) => Some(o.uid().to_owned()),
            _ => None,
        });
        let uids: Vec<String> = matching.collect();
        for n in self.nodes.ids() {
            for uid in &uids {
                for id in self.nodes[n].runtime.running(uid) {
                    self.fire_later(n, Duration::from_millis(1), Fire::Exit(id, 1));
                }
            }
        }
    }
}
