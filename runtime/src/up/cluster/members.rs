//! The clients of the API server on the machines' thread, and the container runtimes of their nodes.

use std::collections::BTreeMap;
use std::time::Duration;

use skeg_core::agent::{self, PodVolumes, RuntimeCommand, RuntimeEvent};
use skeg_core::api::{FromServer, ToServer};
use skeg_core::apiserver::{Answered, ConnId};
use skeg_core::auth::token::Reference;
use skeg_core::dns::{self as names, DnsConfig};
use skeg_core::proxy;
use skeg_core::scheduler;
use skeg_core::{Kind, Machine, Now, ObjectKey};
use skeg_sim::process::{Role, Running, Setup};
use skeg_sim::runtime::Fire;
use skeg_sim::scenario::ImageProfile;

use super::{Cluster, Message, Sleeper, arm};
use crate::measured::Measured;
use crate::recording::format::Of;
use crate::recording::tape::{Tape, Track};
use crate::up::ask::Inbound;
use crate::up::docker::Happened;
use crate::up::streams::visit::Visit;
use crate::up::usage::Used;

/// A client of the API server on this thread: the controller manager, the scheduler or a node's agent.
pub(super) struct Member {
    pub(super) name: String,
    pub(super) running: Running,
    /// When its timer is due (monotonic nanoseconds).
    pub(super) armed: Option<u64>,
    /// What is recorded of it.
    pub(super) track: Track,
}

/// What is recorded of a member.
pub(super) fn track(
    tape: &Tape,
    stream @ (_, name, life): (u64, &str, u32),
    role: &Role,
    setup: &Setup,
    (images, measured): (&Option<BTreeMap<String, ImageProfile>>, bool),
) -> Track {
    let stream = (stream.0, name, u64::from(life));
    match role {
        Role::Manager(_) => tape.machine(name, stream, || Of::Controllers {
            config: setup.manager(name, life),
            images: images.clone(),
            measured,
            signs: setup.tokens.is_some(),
        }),
        Role::Scheduler(_) => tape.machine(name, stream, || Of::Scheduler(setup.scheduler(name, life))),
        Role::Agent(_, config) => tape.machine(name, stream, || Of::Agent((**config).clone())),
        Role::Proxy(_, config) => tape.machine(name, stream, || Of::Proxy(config.clone())),
        Role::Dns(_) => tape.machine(name, stream, || Of::Names(DnsConfig::default())),
        Role::Api(_) | Role::User => Track::default(),
    }
}

impl Member {
    /// Has it give up what it leads.
    pub(super) fn resign(&mut self, now: Now) -> Vec<ToServer> {
        let mut calls = Vec::new();
        match &mut self.running {
            Running::Manager(m) => {
                self.track.resign(now);
                m.resign(now, &mut calls);
                self.track.decided(&calls, m.poll_timeout());
            }
            Running::Scheduler(m) => {
                let mut said = Vec::new();
                self.track.resign(now);
                m.resign(now, &mut said);
                self.track.decided(&said, m.poll_timeout());
                calls.extend(said.into_iter().filter_map(|said| match said {
                    scheduler::Out::Api(message) => Some(message),
                    // Whoever gives up asks nothing more.
                    scheduler::Out::Ask { .. } => None,
                }));
            }
            Running::Agent(_) | Running::Proxy(_) | Running::Dns(_) | Running::Api(_) | Running::User(_) => {}
        }
        calls
    }

    /// Gives an agent a message, or `None` when its timer is due.
    fn tell_agent(&mut self, now: Now, input: Option<agent::In>) -> Vec<agent::Out> {
        let Running::Agent(agent) = &mut self.running else { return Vec::new() };
        self.track.step(&mut **agent, now, input)
    }
}

impl Cluster {
    /// Whether the controllers lead here and there is an autoscaler that goes by what real pods use.
    pub(super) fn needs_usage(&self) -> bool {
        let now = self.now();
        let leads = |member: &Member| matches!(&member.running, Running::Manager(m) if m.is_leader(now));
        self.measured.is_some()
            && self.members.iter().any(leads)
            && self.api.cached(Kind::HORIZONTAL_POD_AUTOSCALER).next().is_some()
    }

    /// Tells the controllers what pods use.
    pub(super) fn measured(&mut self, used: Used) {
        let (Some(metrics), now) = (&self.measured, self.now()) else { return };
        let mut pods: BTreeMap<String, BTreeMap<String, (u64, u64)>> = BTreeMap::new();
        for usage in used.containers {
            let pod = pods.entry(usage.pod_uid).or_default();
            pod.insert(usage.container, (usage.cpu_milli, usage.memory_bytes));
        }
        let measured = Measured { at: now.wall, pods };
        for member in &self.members {
            if let Running::Manager(m) = &member.running {
                member.track.measured(now, &measured, m.poll_timeout());
            }
        }
        metrics.tell(measured);
    }

    /// Gives a member a message, or `None` when its timer is due.
    pub(super) fn step_member(&mut self, index: usize, now: Now, message: Option<FromServer>) {
        let (mut calls, mut agent_out) = (Vec::new(), Vec::new());
        let member = &mut self.members[index];
        match (&mut member.running, message) {
            (Running::Manager(m), message) => calls = member.track.step(&mut **m, now, message),
            (Running::Scheduler(_), message) => {
                return self.step_scheduler(index, now, message.map(scheduler::In::Api));
            }
            (Running::Agent(_), message) => agent_out = member.tell_agent(now, message.map(agent::In::Api)),
            (Running::Proxy(m), message) => {
                let out = member.track.step(&mut **m, now, message);
                let serving = self.serving.as_ref().expect("there is no proxy without it");
                for out in out {
                    match out {
                        proxy::Out::Api(message) => calls.push(message),
                        proxy::Out::Table(change) => serving.proxy.apply(&change),
                    }
                }
            }
            (Running::Dns(m), message) => {
                let out = member.track.step(&mut **m, now, message);
                calls.extend(out.into_iter().filter_map(|out| match out {
                    names::Out::Api(message) => Some(message),
                    // Queries are answered from the machine itself.
                    names::Out::Records(_) => None,
                }));
            }
            (Running::Api(_) | Running::User(_), _) => {
                unreachable!("{} is no member of a cluster that is up", member.name)
            }
        }
        let conn = ConnId(index as u64);
        self.queue.extend(calls.into_iter().map(|message| Message::ToApi(conn, message)));
        self.after_agent(index, agent_out);
    }

    /// Gives the scheduler a message, or `None` when its timer is due.
    fn step_scheduler(&mut self, index: usize, now: Now, message: Option<scheduler::In>) {
        let member = &mut self.members[index];
        let Running::Scheduler(machine) = &mut member.running else { return };
        for said in member.track.step(&mut **machine, now, message) {
            match said {
                scheduler::Out::Api(message) => self.queue.push_back(Message::ToApi(ConnId(index as u64), message)),
                scheduler::Out::Ask { ask, question } => {
                    let (asked, cluster) = (self.extenders.clone().ask(*question), self.outside.cluster.clone());
                    self.outside.runtime.spawn(async move {
                        // An error means that the cluster has ended.
                        let _ = cluster.send(Inbound::Extender(index, ask, asked.await));
                    });
                }
            }
        }
        self.after_agent(index, Vec::new());
    }

    /// Gives the scheduler what an extender says.
    pub(super) fn extender_answered(&mut self, index: usize, asked: u64, answer: Answered) {
        let now = self.now();
        self.step_scheduler(index, now, Some(scheduler::In::Extender { asked, answer }));
    }

    pub(super) fn after_agent(&mut self, index: usize, out: Vec<agent::Out>) {
        for out in out {
            match out {
                agent::Out::Api(message) => self.queue.push_back(Message::ToApi(ConnId(index as u64), message)),
                agent::Out::Runtime(command) if self.docker.as_ref().is_some_and(|docker| docker.member == index) => {
                    self.docker_command(command);
                }
                agent::Out::Runtime(command) => {
                    let node = self.runtimes.partition_point(|(agent, _)| *agent < index);
                    let (delay, fire) = self.runtimes[node].1.command(command, &self.images);
                    self.fire_later(node, delay, fire);
                }
            }
        }
        let member = &mut self.members[index];
        arm(&mut self.timers, &mut member.armed, Sleeper::Member(index), member.running.poll_timeout());
    }

    /// Hands a command to the runtime of real containers.
    fn docker_command(&self, command: RuntimeCommand) {
        let Some(docker) = &self.docker else { return };
        let reference = |kind: Kind, namespace: &str, name: &str| {
            let object = self.api.cached_object(&ObjectKey::new(kind, namespace, name));
            let uid = object.and_then(|object| object.meta().uid.clone());
            let uid = uid.ok_or_else(|| format!("{} {name:?} not found", kind.row().plural))?;
            Ok::<_, String>(Reference { name: name.to_owned(), uid })
        };
        let mint = |volumes: &PodVolumes, audience: &str, seconds: i64| {
            let account = reference(Kind::SERVICE_ACCOUNT, &volumes.namespace, &volumes.service_account)?;
            let node = reference(Kind::NODE, "", &docker.name)?;
            let pod = Reference { name: volumes.pod.to_string(), uid: volumes.pod_uid.to_string() };
            let now = self.clock.real_time();
            docker.tokens.for_pod((&volumes.namespace, account), pod, node, (audience, seconds), now)
        };
        docker.runtime.command(command, &mint);
    }

    /// Tells the agent of the Docker node what its runtime says.
    pub(super) fn docker_happened(&mut self, happened: Happened) {
        let Some(index) = self.docker.as_ref().map(|docker| docker.member) else { return };
        let now = self.now();
        let out = self.members[index].tell_agent(now, Some(agent::In::Runtime(happened.event())));
        self.after_agent(index, out);
    }

    /// A client looks into a container.
    pub(super) fn visit(&mut self, visit: Visit) {
        if let Some(docker) = self.docker.as_mut().filter(|docker| docker.runtime.is_host_of(&visit)) {
            return docker.runtime.visit(visit);
        }
        let (wall, mut later) = (self.now().wall, Vec::new());
        let node = self.visitors.handle(visit, wall, &self.nodes, &mut self.runtimes, &self.images, &mut later);
        if let Some(node) = node {
            self.visitors.hand_on(node, &mut self.runtimes[node].1);
            later.into_iter().for_each(|(delay, fire)| self.fire_later(node, delay, fire));
        }
    }

    fn fire_later(&mut self, node: usize, delay: Duration, fire: Fire) {
        let at = (self.now().mono + delay).0;
        self.next_fire += 1;
        self.fires.insert(self.next_fire, fire);
        self.timers.insert((at, Sleeper::Runtime(node, self.next_fire)));
    }

    /// Completes an operation of a container runtime, or an event of its containers.
    pub(super) fn fire(&mut self, node: usize, number: u64, now: Now) {
        let fire = self.fires.remove(&number).expect("what is due was put there");
        let (mut events, mut later): (Vec<RuntimeEvent>, _) = (Vec::new(), Vec::new());
        let (index, runtime) = &mut self.runtimes[node];
        let index = *index;
        runtime.fire(now.mono.0, now.wall, fire, &self.images, &mut events, &mut later);
        self.visitors.hand_on(node, runtime);
        for (delay, fire) in later {
            self.fire_later(node, delay, fire);
        }
        let member = &mut self.members[index];
        let tell = |event| member.tell_agent(now, Some(agent::In::Runtime(event)));
        let out = events.into_iter().flat_map(tell).collect();
        self.after_agent(index, out);
    }
}
