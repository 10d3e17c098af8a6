//! The world: owns virtual time, drives every process, carries every message, and carries out the timeline.

mod build;
mod freeze;
mod hosts;
mod moments;
mod node;
#[cfg(test)]
mod plant;
mod timeline;
mod timers;
mod trace;
mod wire;

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;

use skeg_core::agent;
use skeg_core::api::{FromServer, ReqId, ToServer};
use skeg_core::apiserver::{self, Answered, ConnId};
use skeg_core::dns::{self, RecordData};
use skeg_core::object::{Object, ObjectKey, is_mere_report};
use skeg_core::proxy;
use skeg_core::random::mix;
use skeg_core::scheduler;
use skeg_core::scheduler::advice::Advice;
use skeg_core::store::{FromStore, MemoryStore, StoreRequest};
use skeg_core::{Deadline, Machine, Mono, Now, Rng};

use crate::calendar_queue::moment;
use crate::causes::Causes;
use crate::clock::Clock;
use crate::event_queue::EventQueue;
use crate::extender::Extenders;
use crate::fault::{Fault, FaultId, Layered};
use crate::ids::{ApiId, Id, NodeId, ProcessId, Table};
use crate::invariant::{Checkers, Commit, Invariant};
use crate::net::{HostId, Network};
use crate::outcome::Happening;
use crate::process::{Process, Role, Running, Setup};
use crate::runtime::Fire;
use crate::scenario::{ImageProfile, Step};
use crate::statistics::Statistics;
use crate::user::User;
use freeze::Freezer;
pub use hosts::NodeHost;
use hosts::{ApiHost, Clocks, StoreHost};
use moments::Waiting;
use timers::{MANY, Timers};

/// Maximum time until an end notices that its connection is dead.
const NOTICE: Duration = Duration::from_secs(30);
/// How long it takes until a connection attempt is refused.
const REFUSED: Duration = Duration::from_millis(500);
/// The namespace of the Leases by which nodes are heard of.
const NODE_LEASES: &str = "kube-node-lease";
/// Host of the store.
const STORE_HOST: HostId = 0;
/// How often a process may be woken at one moment.
const ENDLESS: u32 = 100_000;

/// A future event.
#[derive(Debug)]
enum Event {
    ToApi {
        process: ProcessId,
        life: u32,
        conn: u64,
        msg: ToServer,
    },
    ToClient {
        process: ProcessId,
        life: u32,
        conn: u64,
        msg: FromServer,
    },
    Closed {
        process: ProcessId,
        life: u32,
        conn: u64,
    },
    ToStore {
        api: ApiId,
        life: u32,
        id: u64,
        request: StoreRequest,
    },
    /// A message from the store, and another one that arrives with it.
    FromStore {
        process: ProcessId,
        life: u32,
        msg: FromStore,
        with: Option<FromStore>,
    },
    Runtime {
        node: NodeId,
        epoch: u32,
        agent_life: u32,
        fire: Fire,
    },
    Step(usize),
    /// The end of a fault's duration.
    Mend(FaultId),
    Restart {
        process: ProcessId,
    },
    StoreWake,
    /// What an extender says to a scheduler.
    Extender {
        process: ProcessId,
        life: u32,
        asked: u64,
        answer: Box<Answered>,
    },
}

impl Event {
    #[inline(always)]
    fn tag(&self) -> Tag {
        match self {
            Event::ToApi { .. } => Tag::ToApi,
            Event::ToClient { .. } => Tag::ToClient,
            Event::Closed { .. } => Tag::Closed,
            Event::ToStore { .. } => Tag::ToStore,
            Event::FromStore { .. } => Tag::FromStore,
            Event::Runtime { .. } => Tag::Runtime,
            Event::Step(_) => Tag::Step,
            Event::Mend(_) => Tag::Mend,
            Event::Restart { .. } => Tag::Restart,
            Event::StoreWake => Tag::StoreWake,
            Event::Extender { .. } => Tag::Extender,
        }
    }

    /// The number of the process, API server, node or step that it is for.
    fn who(&self) -> u32 {
        match self {
            Event::ToApi { process, .. }
            | Event::ToClient { process, .. }
            | Event::Closed { process, .. }
            | Event::FromStore { process, .. }
            | Event::Extender { process, .. }
            | Event::Restart { process } => process.number(),
            Event::ToStore { api, .. } => api.number(),
            Event::Runtime { node, .. } => node.number(),
            Event::Step(step) => *step as u32,
            Event::Mend(id) => id.0,
            Event::StoreWake => 0,
        }
    }
}

/// The next thing to happen.
#[derive(Clone, Copy)]
enum Next {
    /// A process is woken.
    Wake(ProcessId),
    /// The event in this slot of the event queue.
    Queued(u32),
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
    Mend,
    Extender,
}

/// Their names, in order.
const TAGS: [&str; 12] = [
    "wake",
    "to api",
    "to client",
    "closed",
    "to store",
    "from store",
    "runtime",
    "step",
    "restart",
    "store wake",
    "mend",
    "extender",
];

/// Buffers for what a machine pushes to `out`; kept so that a step need not allocate.
#[derive(Debug, Default)]
struct Scratch {
    api: Vec<apiserver::Out>,
    client: Vec<ToServer>,
    scheduler: Vec<scheduler::Out>,
    agent: Vec<agent::Out>,
    proxy: Vec<proxy::Out>,
    dns: Vec<dns::Out>,
}

/// A connection from its beginning on, also after its client has ended.
#[derive(Clone, Copy)]
struct Link {
    client: ProcessId,
    /// It was cut: what is on its way to the server is lost.
    is_cut: bool,
}

/// Faults that have struck.
#[derive(Default)]
struct Struck {
    /// Those that are not healed.
    active: Vec<(FaultId, Fault)>,
    /// Processes that are down because of a fault.
    taken_down: Vec<(FaultId, ProcessId)>,
}

/// What is told of the event that is being carried out.
#[derive(Default)]
struct Trace {
    /// Whether the run is traced.
    wanted: bool,
    /// Description of the current event, if it is.
    current: String,
    /// The process whose machine is running, for the message of a crash.
    acting: Option<ProcessId>,
}

/// The world of one run.
pub struct World {
    /// Virtual time in nanoseconds.
    pub now: u64,
    /// The seed of the run.
    pub seed: u64,
    /// The store: the state that checkers treat as the truth.
    pub store: MemoryStore,
    /// Every node.
    pub nodes: Table<NodeId, NodeHost>,
    /// The records that each replica of the DNS publishes.
    pub zones: Vec<BTreeMap<Rc<str>, Vec<RecordData>>>,
    /// Every process.
    pub processes: Table<ProcessId, Process>,
    /// Invariants.
    pub checkers: Checkers,
    /// Statistics for reports and expectations.
    pub statistics: Statistics,
    /// Faults that have struck.
    pub faults: Vec<Happening>,
    /// Actions that users have carried out.
    pub actions: Vec<Happening>,
    /// Number of events that were carried out.
    pub events: u64,
    /// Hash of all of them.
    pub hash: u64,
    counts: [u64; TAGS.len()],
    timers: Timers,
    event_queue: EventQueue<Event>,
    pub(crate) net: Network,
    pub(crate) rng: Rng,
    images: BTreeMap<String, ImageProfile>,
    pub(crate) extenders: Extenders,
    timeline: Vec<Step>,
    /// The steps that wait for a moment.
    waiting: Vec<Waiting>,
    /// Steps that waited until all faults were healed, in words.
    pub in_vain: Vec<Happening>,
    pub(crate) apis: Table<ApiId, ApiHost>,
    users: Vec<ProcessId>,
    /// Every connection that was ever made.
    conns: Vec<Link>,
    clocks: Clocks,
    /// Processes `0..control` are control-plane processes; nodes' processes follow.
    control: usize,
    pub(crate) store_host: StoreHost,
    struck: Struck,
    /// The machine of whoever did what the step waited for that is being carried out.
    actor: Option<HostId>,
    freezer: Freezer,
    /// Machines whose processes' watches run apart, and by how much at most.
    pub(crate) skews: BTreeMap<HostId, Layered<Duration>>,
    /// Machines whose replies are late, and by how much at most.
    pub(crate) late_replies: BTreeMap<HostId, Layered<Duration>>,
    /// Requests whose replies will be late, by connection.
    late: BTreeSet<(u64, ReqId)>,
    /// When the last message of a watch that runs apart arrives: what follows on it comes after.
    watch_down: BTreeMap<(ProcessId, ReqId), u64>,
    /// What is kept to explain a failure, if that is wanted.
    pub(crate) causes: Option<Box<Causes>>,
    /// No faults are drawn in this run.
    calm: bool,
    pub(crate) setup: Setup,
    scratch: Scratch,
    /// The last process that was woken: when, which, and how often at that moment, beside the first time.
    last_woken: (u64, ProcessId, u32),
    trace: Trace,
    /// A process for which the next watch event is lost.
    #[cfg(test)]
    losing: Option<ProcessId>,
}

impl World {
    /// Removes the next event and returns it with its time, unless it is after `until`.
    #[inline(always)]
    fn pop(&mut self, until: u64) -> Option<(u64, Next)> {
        let wake = self.timers.next();
        self.read_ahead();
        let other = self.event_queue.next(until.min(moment(wake)));
        if moment(wake.min(other)) > until {
            None
        } else if wake < other {
            self.timers.pop().map(|(at, process)| (at, Next::Wake(process)))
        } else {
            self.event_queue.pop().map(|(at, slot)| (at, Next::Queued(slot)))
        }
    }

    /// Description of the last event; empty unless the run is traced.
    pub fn current(&self) -> &str {
        &self.trace.current
    }

    /// Advances virtual time to `at`, unless it is already later.
    #[inline(always)]
    pub fn pass(&mut self, at: u64) {
        self.now = self.now.max(at);
        self.clocks.time = Clock::steady(self.now);
    }

    /// The time as a process on this host sees it.
    #[inline(always)]
    fn clock(&self, host: HostId) -> Now {
        self.clocks.at(self.now, host)
    }

    /// The virtual time at which a host's clock shows a monotonic time.
    #[inline(always)]
    fn when(&self, host: HostId, shown: Mono) -> u64 {
        self.clocks.when(host, shown)
    }

    /// Carries out the next event. Returns false if there is none up to `until`.
    #[inline(always)]
    pub fn step(&mut self, until: u64) -> bool {
        let due = self.freezer.pop_due().map(|next| (self.now, next));
        let Some((at, next)) = due.or_else(|| self.pop(until)) else { return false };
        debug_assert!(at >= self.now, "time does not go back");
        self.pass(at);
        if self.holds(next) {
            self.trace.current.clear();
            return true;
        }
        match next {
            Next::Wake(process) => self.woken(at, process),
            Next::Queued(slot) => self.carry_out(at, slot),
        }
        true
    }

    /// Wakes a process.
    #[inline(always)]
    fn woken(&mut self, at: u64, process: ProcessId) {
        self.processes[process].armed = u64::MAX;
        // A clock that was just corrected may not show the deadline yet. This does not count as an event.
        if !self.clocks.steady && !self.is_due(process) {
            self.rearm(process);
            return self.trace.current.clear();
        }
        if self.trace.wanted {
            self.trace.current = format!("{} {process}", TAGS[Tag::Wake as usize]);
        }
        self.record_process_event(at, Tag::Wake, process, 0);
        self.wake(process);
        self.check_progress(at, process);
    }

    /// Fails the run if a process is woken at one moment for ever: a real one would take a whole processor.
    #[inline(always)]
    fn check_progress(&mut self, at: u64, process: ProcessId) {
        let (last, woken, count) = self.last_woken;
        let count = if (last, woken) == (at, process) { count + 1 } else { 0 };
        self.last_woken = (at, process, count);
        if count == ENDLESS {
            let due = self.processes[process].running.as_ref().and_then(Running::poll_timeout);
            panic!("it asks to be woken at once, {count} times: {}", due.map_or("no reason", |due| due.why));
        }
    }

    /// Carries out the event in a slot of the event queue. Each kind of event that carries a message is removed
    /// separately, so that no more bytes are moved than it has.
    #[inline(always)]
    fn carry_out(&mut self, at: u64, slot: u32) {
        if self.trace.wanted {
            self.describe(slot);
        }
        match self.event_queue.peek(slot).tag() {
            Tag::ToApi => {
                let Event::ToApi { process, life, conn, msg } = self.event_queue.take(slot) else {
                    unreachable!("by its tag")
                };
                let what = match &msg {
                    ToServer::Request(id, _) => id.0,
                    ToServer::Cancel(id) => !id.0,
                };
                self.record_process_event(at, Tag::ToApi, process, what);
                self.to_api(process, life, conn, msg);
            }
            Tag::ToClient => {
                let Event::ToClient { process, life, conn, msg } = self.event_queue.take(slot) else {
                    unreachable!("by its tag")
                };
                let what = match &msg {
                    FromServer::Reply(id, result) => id.0.rotate_left(1) ^ u64::from(result.is_ok()),
                    FromServer::Watch(id, e) => id.0.rotate_left(1) ^ e.rv().0.rotate_left(32),
                    FromServer::Disconnected => 1,
                };
                self.record_process_event(at, Tag::ToClient, process, what);
                self.to_client(process, life, conn, msg);
            }
            Tag::ToStore => {
                let Event::ToStore { api, life, id, request } = self.event_queue.take(slot) else {
                    unreachable!("by its tag")
                };
                self.record_event(at, Tag::ToStore, u64::from(api.number()), id);
                self.to_store(api, life, id, request);
            }
            Tag::FromStore => {
                let Event::FromStore { process, life, msg, with } = self.event_queue.take(slot) else {
                    unreachable!("by its tag")
                };
                let what = |msg: &FromStore| match msg {
                    FromStore::Reply(id, _) => *id,
                    FromStore::Events { revision, .. } => !revision.0,
                    FromStore::Disconnected => 1,
                    FromStore::WatchCanceled { .. } => 2,
                    FromStore::Progress(_) => 3,
                };
                let both = what(&msg) ^ with.as_ref().map_or(0, |with| what(with).rotate_left(1));
                self.record_process_event(at, Tag::FromStore, process, both);
                if self.store_life(process) == Some(life) {
                    if let (FromStore::Disconnected, Role::Api(api)) = (&msg, &self.processes[process].role) {
                        self.apis[*api].is_severed = false;
                    }
                    self.api_handle(process, apiserver::In::Store(msg), with.map(apiserver::In::Store));
                }
            }
            Tag::Wake
            | Tag::Closed
            | Tag::Runtime
            | Tag::Step
            | Tag::Mend
            | Tag::Restart
            | Tag::StoreWake
            | Tag::Extender => {
                let event = self.event_queue.take(slot);
                self.carry_out_rare(at, event);
            }
        }
    }

    /// Carries out an event that carries no message.
    #[inline(never)]
    fn carry_out_rare(&mut self, at: u64, event: Event) {
        match event {
            Event::Closed { process, life, conn } => {
                self.record_process_event(at, Tag::Closed, process, conn);
                if self.processes[process].life == life {
                    self.api_handle(process, apiserver::In::Closed(ConnId(conn)), None);
                }
            }
            Event::Runtime { node, epoch, agent_life, fire } => {
                self.record_event(at, Tag::Runtime, u64::from(node.number()), u64::from(epoch));
                self.trace.acting = Some(self.nodes[node].agent);
                self.runtime(node, epoch, agent_life, fire);
            }
            Event::Extender { process, life, asked, answer } => {
                self.record_process_event(at, Tag::Extender, process, asked);
                self.to_scheduler(process, life, asked, *answer);
            }
            Event::Step(i) => {
                self.record_event(at, Tag::Step, i as u64, 0);
                self.act(i);
            }
            Event::Mend(id) => {
                self.record_event(at, Tag::Mend, u64::from(id.0), 0);
                self.heal(id);
            }
            Event::Restart { process } => {
                self.record_process_event(at, Tag::Restart, process, 0);
                self.start(process);
            }
            Event::StoreWake => {
                self.record_event(at, Tag::StoreWake, 0, 0);
                self.store_host.armed = u64::MAX;
                let now = self.clock(STORE_HOST);
                self.store.handle_timeout(now, &mut self.store_host.out);
                self.record_commits();
                self.from_store();
                self.arm_store();
            }
            Event::ToApi { .. } | Event::ToClient { .. } | Event::ToStore { .. } | Event::FromStore { .. } => {
                unreachable!("it carries a message")
            }
        }
    }

    /// Name of the machine that is running or ran last.
    pub fn acting(&self) -> &str {
        self.trace.acting.map_or("the store", |process| &self.processes[process].name)
    }

    /// Records an event for a process; see `record_event`.
    #[inline(always)]
    fn record_process_event(&mut self, at: u64, tag: Tag, process: ProcessId, what: u64) {
        self.record_event(at, tag, u64::from(process.number()), what);
        self.trace.acting = Some(process);
    }

    /// Records an event that is for the store or the timeline, not for a process: in the hash, in the counts and for
    /// the message of a crash. `who` and `what` identify its subject.
    #[inline(always)]
    fn record_event(&mut self, at: u64, tag: Tag, who: u64, what: u64) {
        self.events += 1;
        self.trace.acting = None;
        self.counts[tag as usize] += 1;
        // All fields are mixed in one step, because tens of thousands of events are recorded each second.
        self.hash = mix(self.hash.rotate_left(7) ^ what, at ^ (who << 8 | tag as u64) << 40);
    }

    /// Records what the store has just committed: in the hash, for the checkers and for the trace.
    #[inline(always)]
    fn record_commits(&mut self) {
        let at = self.now as f64 / 1e9;
        for change in self.store.just_changed().flat_map(|batch| &**batch) {
            self.hash = change.digest(self.hash);
            if let Some(causes) = &mut self.causes
                && let Some(what) = trace::in_short(change)
            {
                causes.committed(self.now, change, &what);
            }
            let old = change.previous.as_ref().and_then(|kv| kv.value.object());
            let new = change.value.as_ref().and_then(|kv| kv.value.object());
            match (old, new) {
                (_, Some(Object::Lease(lease))) if !self.calm && lease.namespace() == NODE_LEASES => {
                    self.checkers.silence.renewed(at, lease.name());
                    continue;
                }
                (Some(Object::Lease(_)), _) | (_, Some(Object::Lease(_))) => continue,
                (Some(Object::Node(old)), Some(Object::Node(new))) if is_mere_report(old, new) => continue,
                (None, None) => {
                    self.checkers.exchanges.committed(change);
                    continue;
                }
                // Of every other kind, typed or not, each change counts.
                (_, _) => {}
            }
            let commit = Commit { at, store: &self.store, old, new };
            self.statistics.commit(&commit);
            self.checkers.commit(&commit);
            if !self.calm {
                self.checkers.disturbed(&commit);
                self.checkers.exchanges.changed(change);
            }
        }
        if self.trace.wanted {
            self.describe_commits();
        }
    }

    /// Number of events by kind, for kinds that occurred.
    pub fn counters(&self) -> BTreeMap<String, u64> {
        let some = TAGS.iter().zip(self.counts).filter(|(_, n)| *n > 0);
        some.map(|(name, n)| ((*name).to_owned(), n)).collect()
    }

    fn wake(&mut self, process: ProcessId) {
        let now = self.clock(self.processes[process].host);
        let out = &mut self.scratch;
        match self.processes[process].running.as_mut() {
            Some(Running::Api(m)) => m.handle_timeout(now, &mut out.api),
            Some(Running::Manager(m)) => m.handle_timeout(now, &mut out.client),
            Some(Running::Scheduler(m)) => m.handle_timeout(now, &mut out.scheduler),
            Some(Running::User(m)) => m.handle_timeout(now, &mut out.client),
            Some(Running::Agent(m)) => m.handle_timeout(now, &mut out.agent),
            Some(Running::Proxy(m)) => m.handle_timeout(now, &mut out.proxy),
            Some(Running::Dns(m)) => m.handle_timeout(now, &mut out.dns),
            None => {}
        }
        self.deliver(process);
    }

    /// Sends what a machine has pushed to `out`, and updates its wake-up.
    #[inline(never)]
    fn deliver(&mut self, process: ProcessId) {
        let Some(running) = &self.processes[process].running else { return self.disarm(process) };
        let due = running.poll_timeout();
        match running {
            Running::Api(_) => {
                if self.scratch.api.len() >= MANY {
                    self.read_for_bookmarks();
                }
                self.send_on(process, |said| &mut said.api, World::from_api);
            }
            Running::Agent(_) => self.send_on(process, |said| &mut said.agent, World::from_agent),
            Running::Manager(_) | Running::User(_) => {
                self.send_on(process, |said| &mut said.client, World::send);
                self.observe_leaders(process);
            }
            Running::Scheduler(_) => {
                self.send_on(process, |said| &mut said.scheduler, World::from_scheduler);
                self.observe_leaders(process);
            }
            Running::Proxy(_) => self.send_on(process, |said| &mut said.proxy, World::from_proxy),
            Running::Dns(_) => self.send_on(process, |said| &mut said.dns, World::from_dns),
        }
        self.arm(process, due);
    }

    /// Sends messages in order. They are removed from the end of the vector, so that nothing else is moved; no machine
    /// runs in the meantime.
    #[inline(always)]
    fn send_on<T>(
        &mut self,
        process: ProcessId,
        said: impl Fn(&mut Scratch) -> &mut Vec<T>,
        send: impl Fn(&mut World, ProcessId, T),
    ) {
        said(&mut self.scratch).reverse();
        while let Some(msg) = said(&mut self.scratch).pop() {
            send(self, process, msg);
            // A step that waited for this message may have crashed the process.
            if self.processes[process].running.is_none() {
                said(&mut self.scratch).clear();
            }
        }
    }

    /// Whether a process's deadline has come by its own clock.
    fn is_due(&self, process: ProcessId) -> bool {
        let p = &self.processes[process];
        let shown = self.clock(p.host).mono;
        p.running.as_ref().and_then(Running::poll_timeout).is_some_and(|d| d.at <= shown)
    }

    /// Sets the wake-up of a process to its deadline.
    #[inline(always)]
    fn arm(&mut self, process: ProcessId, due: Option<Deadline>) {
        let Some(deadline) = due else { return self.disarm(process) };
        let at = self.when(self.processes[process].host, deadline.at).max(self.now + 1);
        let armed = &mut self.processes[process].armed;
        if at != *armed {
            *armed = at;
            self.timers.set(at, process);
        }
    }

    /// Like `arm`, with the deadline of its machine.
    fn rearm(&mut self, process: ProcessId) {
        let due = self.processes[process].running.as_ref().and_then(Running::poll_timeout);
        self.arm(process, due);
    }

    fn disarm(&mut self, process: ProcessId) {
        self.processes[process].armed = u64::MAX;
        self.timers.clear(process);
    }

    #[inline(always)]
    fn arm_store(&mut self) {
        if let Some(deadline) = self.store.poll_timeout() {
            let at = self.when(STORE_HOST, deadline.at).max(self.now + 1);
            if at < self.store_host.armed {
                self.store_host.armed = at;
                self.event_queue.push(at, Event::StoreWake);
            }
        }
    }

    /// Tells the checkers which processes now act as leaders.
    fn observe_leaders(&mut self, process: ProcessId) {
        if !self.setup.leader_elect {
            return;
        }
        let Some((role, leads)) = self.leadership(process) else { return };
        if !self.checkers.leaders.leads(role, process, leads) {
            return;
        }
        // Another process has just become the leader, so no other may still act as one.
        let others: Vec<ProcessId> = self
            .processes
            .ids()
            .filter(|p| *p != process)
            .filter(|p| self.leadership(*p) == Some((role, true)))
            .collect();
        let at = self.seconds();
        if let Some(other) = others.first() {
            let (a, b) = (&self.processes[process].name, &self.processes[*other].name);
            let what = format!("{a} leads while {b} still does");
            self.checkers.broken(Invariant::OneLeader, at, what);
        }
    }

    /// What the leading scheduler makes of a pod; none if there is no leader, or it knows of no such pod. Nothing may
    /// be carried out after it.
    pub fn advise(&mut self, pod: &ObjectKey) -> Option<Advice> {
        let leads = |p: &ProcessId| match &self.processes[*p].running {
            Some(Running::Scheduler(m)) => m.is_leader(self.clock(self.processes[*p].host)),
            _ => false,
        };
        let leader = self.processes.ids().find(leads)?;
        match &mut self.processes[leader].running {
            Some(Running::Scheduler(m)) => m.advise(pod),
            _ => None,
        }
    }

    /// Heals every fault, as the timeline's `heal` does.
    pub fn heal_all(&mut self) {
        let what = "heal everything".to_owned();
        self.faults.push(Happening { at: self.seconds(), what });
        self.heal_each();
    }

    /// Approximate number of objects in the store.
    pub fn store_size(&self) -> usize {
        self.statistics.phases.values().map(|n| usize::try_from(*n).unwrap_or(0)).sum::<usize>() + self.nodes.len()
    }

    /// What runs on the users' machines.
    pub fn users(&self) -> impl Iterator<Item = &User> {
        self.users.iter().filter_map(|process| match &self.processes[*process].running {
            Some(Running::User(user)) => Some(&**user),
            _ => None,
        })
    }

    /// Whether the users have completed all their actions.
    pub fn users_are_idle(&self) -> bool {
        self.users().all(User::is_idle)
    }

    /// Running API servers, for the checkers at the end.
    pub fn api_servers(&self) -> impl Iterator<Item = &apiserver::ApiServer> {
        self.apis.iter().filter_map(|api| match &self.processes[api.process].running {
            Some(Running::Api(api)) => Some(&**api),
            _ => None,
        })
    }
}
