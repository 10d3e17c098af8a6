//! Nodes and processes: an agent's commands to its container runtime; start, crash and restart of processes; power.

use std::time::Duration;

use skeg_core::Machine;
use skeg_core::agent::{self, ProbeAction, RuntimeCommand, RuntimeEvent};
use skeg_core::api::FromServer;
use skeg_core::apiserver::Answered;
use skeg_core::dns::{self, RecordChange};
use skeg_core::proxy::{self, TableChange};
use skeg_core::scheduler;
use skeg_core::store::{self, StoreClient};

use super::{Event, STORE_HOST, World};
use crate::ids::{Id, NodeId, ProcessId};
use crate::invariant::Checkers;
use crate::process::{Role, Running};
use crate::runtime::Fire;

impl World {
    #[inline(always)]
    pub(super) fn from_agent(&mut self, process: ProcessId, msg: agent::Out) {
        match msg {
            agent::Out::Api(msg) => self.send(process, msg),
            agent::Out::Runtime(command) => self.command(process, command),
        }
    }

    /// Passes a command from an agent to its node's runtime.
    fn command(&mut self, process: ProcessId, command: RuntimeCommand) {
        let Role::Agent(node, _) = self.processes[process].role else { unreachable!("only agents say this") };
        if let RuntimeCommand::StopContainer { container, grace_seconds, .. } = &command {
            let Checkers { stops, report, .. } = &mut self.checkers;
            stops.told(self.now as f64 / 1e9, &self.nodes[node], container, *grace_seconds, report);
        }
        if let RuntimeCommand::Probe { container, action: ProbeAction::Hook(hook), .. } = &command {
            self.checkers.stops.hooked(&self.nodes[node], container, hook);
        }
        let (delay, fire) = self.nodes[node].runtime.command(command, &self.images);
        self.fire_later(node, delay, fire);
    }

    /// Passes on what a scheduler says. An extender's answer takes as long as a short call within a data centre.
    pub(super) fn from_scheduler(&mut self, process: ProcessId, msg: scheduler::Out) {
        match msg {
            scheduler::Out::Api(msg) => self.send(process, msg),
            scheduler::Out::Ask { ask, question } => {
                let delay = self.rng.duration(Duration::from_millis(1), Duration::from_millis(20));
                let Some(answer) = self.extenders.answer(&question) else { return };
                let (life, answer) = (self.processes[process].life, Box::new(answer));
                let at = self.now + delay.as_nanos() as u64;
                self.event_queue.push(at, Event::Extender { process, life, asked: ask, answer });
            }
        }
    }

    /// Gives a scheduler what an extender says.
    pub(super) fn to_scheduler(&mut self, process: ProcessId, life: u32, asked: u64, answer: Answered) {
        if self.processes[process].life != life {
            return;
        }
        let now = self.clock(self.processes[process].host);
        if let Some(Running::Scheduler(m)) = self.processes[process].running.as_mut() {
            m.handle(now, scheduler::In::Extender { asked, answer }, &mut self.scratch.scheduler);
        }
        self.deliver(process);
    }

    /// Configures a node's services as its proxy says. Like rules in a kernel, the configuration survives the proxy.
    pub(super) fn from_proxy(&mut self, process: ProcessId, msg: proxy::Out) {
        let Role::Proxy(node, _) = self.processes[process].role else { unreachable!("only proxies say this") };
        let services = &mut self.nodes[node].services;
        match msg {
            proxy::Out::Api(msg) => self.send(process, msg),
            proxy::Out::Table(TableChange::Replace(all)) => *services = all.into_iter().collect(),
            proxy::Out::Table(TableChange::Set(frontend, entry)) => drop(services.insert(frontend, entry)),
            proxy::Out::Table(TableChange::Remove(frontend)) => {
                let known = services.remove(&frontend);
                assert!(known.is_some(), "{frontend:?} is removed, and is not there");
            }
        }
    }

    /// Publishes the records of a DNS replica.
    pub(super) fn from_dns(&mut self, process: ProcessId, msg: dns::Out) {
        let Role::Dns(index) = self.processes[process].role else { unreachable!("only the DNS says this") };
        let zone = &mut self.zones[index];
        match msg {
            dns::Out::Api(msg) => self.send(process, msg),
            dns::Out::Records(RecordChange::Replace(all)) => *zone = all.into_iter().collect(),
            dns::Out::Records(RecordChange::Set(name, records)) => drop(zone.insert(name, records)),
            dns::Out::Records(RecordChange::Remove(name)) => {
                let known = zone.remove(&name);
                assert!(known.is_some(), "the records of {name} are removed, and are not there");
            }
        }
    }

    pub(super) fn fire_later(&mut self, node: NodeId, delay: Duration, fire: Fire) {
        let host = &self.nodes[node];
        let (epoch, agent_life) = (host.epoch, self.processes[host.agent].life);
        self.event_queue.push(self.now + delay.as_nanos() as u64, Event::Runtime { node, epoch, agent_life, fire });
    }

    pub(super) fn runtime(&mut self, node: NodeId, epoch: u32, agent_life: u32, fire: Fire) {
        if self.nodes[node].epoch != epoch {
            return;
        }
        self.read_for_news(self.nodes[node].agent);
        let now = self.clock(self.nodes[node].host);
        let (mut events, mut later) = (Vec::new(), Vec::new());
        let started = match &fire {
            Fire::Command(RuntimeCommand::StartContainer { container, .. }) => Some(container.clone()),
            Fire::Command(_) | Fire::Stop(..) | Fire::Exit(..) | Fire::Wake(_) => None,
        };
        self.nodes[node].runtime.fire(self.now, now.wall, fire, &self.images, &mut events, &mut later);
        if let Some(container) = started {
            let Checkers { containers, report, .. } = &mut self.checkers;
            containers.started(self.now as f64 / 1e9, (&self.nodes[node], agent_life), &container, report);
        }
        for (delay, fire) in later {
            self.fire_later(node, delay, fire);
        }
        let process = self.nodes[node].agent;
        let same_life = self.processes[process].life == agent_life;
        for event in events {
            // Completions are for the life of the agent that sent the command; other events are for any life.
            let own = matches!(event, RuntimeEvent::Exited { .. } | RuntimeEvent::SandboxGone { .. });
            if !own && !same_life {
                continue;
            }
            let now = self.clock(self.nodes[node].host);
            if let Some(Running::Agent(m)) = self.processes[process].running.as_mut() {
                m.handle(now, agent::In::Runtime(event), &mut self.scratch.agent);
            }
            self.deliver(process);
        }
    }

    pub(super) fn start(&mut self, process: ProcessId) {
        let p = &mut self.processes[process];
        if p.running.is_some() {
            return;
        }
        if p.role.node().is_some_and(|node| !self.nodes[node].up) {
            return;
        }
        p.life += 1;
        p.running = Some(p.role.start(self.seed, &p.name, p.life, &self.setup));
        self.wake(process);
    }

    pub(super) fn crash(&mut self, process: ProcessId) {
        let p = &mut self.processes[process];
        if p.running.take().is_none() {
            return;
        }
        // The life is incremented here, so that no message in flight reaches the next life.
        p.life += 1;
        let connection = p.connection.take();
        self.disarm(process);
        if let Some(c) = connection {
            // The end of a connection is heard after all that was said over it.
            let at = (self.now + 1_000_000).max(c.up + 1);
            self.event_queue
                .push(at, Event::Closed { process: self.apis[c.api()].process, life: c.life, conn: c.id() });
        }
        if let Role::Api(index) = self.processes[process].role {
            self.apis[index].store_life += 1;
            self.apis[index].is_severed = false;
            let now = self.clock(STORE_HOST);
            self.store.handle(now, store::In::Closed(StoreClient(index.number())), &mut self.store_host.out);
            self.from_store();
            for client in self.processes.ids() {
                let p = &mut self.processes[client];
                let Some(c) = p.connection.as_mut().filter(|c| c.api() == index) else { continue };
                c.dead = true;
                let (life, conn) = (p.life, c.id());
                let at =
                    self.now + self.rng.duration(Duration::from_millis(1), Duration::from_secs(2)).as_nanos() as u64;
                self.event_queue
                    .push(at, Event::ToClient { process: client, life, conn, msg: FromServer::Disconnected });
            }
        }
    }
}
