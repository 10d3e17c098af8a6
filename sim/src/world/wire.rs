//! Messages in flight between clients, API servers and the store.

use std::time::Duration;

use skeg_core::Machine;
use skeg_core::agent;
use skeg_core::api::{Call, FromServer, Status, ToServer, WatchEvent};
use skeg_core::apiserver::{self, ConnId};
use skeg_core::object::ObjectKey;
use skeg_core::random::mix;
use skeg_core::scheduler;
use skeg_core::store::{self, FromStore, StoreClient, StoreReply, StoreRequest};

use super::hosts::ApiHost;
use super::{Event, Link, NOTICE, REFUSED, STORE_HOST, World};
use crate::fault::Layered;
use crate::ids::{ApiId, Id, ProcessId};
use crate::invariant::{Asked, Checkers, Invariant, bound_blindly};
use crate::net::{Connection, HostId};
use crate::outcome::Happening;
use crate::process::{Process, Role, Running};

/// The `Retry-After` of an overloaded API server.
const TURNED_AWAY: Duration = Duration::from_secs(1);

impl World {
    /// The API server that a load balancer would choose: a running one that can be reached.
    pub(super) fn choose_api(&mut self, host: HostId) -> Option<ApiId> {
        let alive = |w: &World, i: &ApiId| {
            let p = &w.processes[w.apis[*i].process];
            p.running.is_some() && !w.net.is_cut(host, p.host) && !w.net.is_cut(p.host, host)
        };
        let living: Vec<ApiId> = self.apis.ids().filter(|i| alive(self, i)).collect();
        self.rng.pick(&living).copied()
    }

    pub(super) fn connect(&mut self, process: ProcessId) -> Option<Connection> {
        let api = self.choose_api(self.processes[process].host)?;
        let id = self.conns.len() as u64;
        self.conns.push(Link { client: process, is_cut: false });
        let life = self.processes[self.apis[api].process].life;
        let connection = Connection::new(id, api, life, self.now);
        self.processes[process].connection = Some(connection);
        Some(connection)
    }

    #[inline(always)]
    pub(crate) fn send(&mut self, process: ProcessId, msg: ToServer) {
        if !self.waiting.is_empty() && !self.goes_out(process, &msg) {
            return;
        }
        let connection = match self.processes[process].connection {
            Some(connection) => connection,
            None => match self.connect(process) {
                Some(connection) => connection,
                None => return self.refuse(process),
            },
        };
        if let ToServer::Request(_, request) = &msg
            && let Call::Bind { pod, node, .. } = &request.call
        {
            self.check_binding(process, pod, node);
        }
        let from = self.processes[process].host;
        let to_process = self.apis[connection.api()].process;
        let to = self.processes[to_process].host;
        if connection.dead {
            return;
        }
        if self.net.is_cut(from, to) {
            return self.kill_connection(process);
        }
        let at = (self.now + self.net.delay(self.now, from, to)).max(connection.up + 1);
        let c = self.processes[process].connection.as_mut().expect("it was just there");
        c.up = at;
        if let (Some(causes), ToServer::Request(id, request)) = (&mut self.causes, &msg) {
            causes.asked(self.now, process, connection.id(), *id, request);
        }
        if !self.late_replies.is_empty() {
            self.expect_late(from, connection.id(), &msg);
        }
        let event = Event::ToApi { process: to_process, life: connection.life, conn: connection.id(), msg };
        self.event_queue.push(at, event);
    }

    #[inline(never)]
    fn check_binding(&mut self, process: ProcessId, pod: &ObjectKey, node: &str) {
        let Some(Running::Scheduler(scheduler)) = &self.processes[process].running else { return };
        if let Some(what) = bound_blindly(scheduler, pod, node) {
            self.checkers.broken(Invariant::BoundAsSeen, self.seconds(), what);
        }
    }

    /// Refuses a process's connection attempt: the client learns it soon.
    pub(super) fn refuse(&mut self, process: ProcessId) {
        let life = self.processes[process].life;
        let at = self.now + REFUSED.as_nanos() as u64;
        self.event_queue.push(at, Event::ToClient { process, life, conn: u64::MAX, msg: FromServer::Disconnected });
    }

    /// Kills a connection: it carries nothing any more, and both ends notice some time later.
    pub(crate) fn kill_connection(&mut self, process: ProcessId) {
        let Some(c) = self.processes[process].connection.as_mut().filter(|c| !c.dead) else { return };
        c.dead = true;
        let (conn, api, api_life) = (c.id(), c.api(), c.life);
        self.conns[conn as usize].is_cut = true;
        let life = self.processes[process].life;
        let lo = Duration::from_secs(1);
        let (client, server) = (self.rng.duration(lo, NOTICE), self.rng.duration(lo, NOTICE));
        let (client, server) = (self.now + client.as_nanos() as u64, self.now + server.as_nanos() as u64);
        self.event_queue.push(client, Event::ToClient { process, life, conn, msg: FromServer::Disconnected });
        self.event_queue.push(server, Event::Closed { process: self.apis[api].process, life: api_life, conn });
    }

    #[inline]
    pub(super) fn to_api(&mut self, process: ProcessId, life: u32, conn: u64, msg: ToServer) {
        if self.processes[process].life != life || self.processes[process].running.is_none() {
            return;
        }
        // What a client sent before it crashed arrives all the same.
        let Link { client, is_cut } = self.conns[conn as usize];
        if is_cut {
            return;
        }
        if let ToServer::Request(_, request) = &msg {
            let at = self.seconds();
            let from = self.processes[client].role.node().map(|node| &self.nodes[node]);
            let asked = Asked { at, store: &self.store, request, from };
            self.checkers.request(&asked);
            if !self.calm {
                self.checkers.disturbed_request(&asked);
            }
        }
        if let ToServer::Request(id, request) = &msg
            && !self.calm
        {
            self.checkers.exchanges.asked(&self.store, conn, *id, request);
        }
        if let ToServer::Request(id, _) = &msg
            && self.turns_away(process)
        {
            let status = Status::too_many_requests("Too many requests, please try again later.", TURNED_AWAY);
            let host = self.processes[process].host;
            return self.reply(host, conn, FromServer::Reply(*id, Err(status)));
        }
        self.api_handle(process, apiserver::In::Client(ConnId(conn), msg), None);
    }

    /// Whether an overloaded API server rejects this request, as API Priority and Fairness would.
    fn turns_away(&mut self, process: ProcessId) -> bool {
        let Role::Api(index) = self.processes[process].role else { return false };
        self.apis[index].overload.get().is_some_and(|one_in| self.rng.chance(1, one_in))
    }

    #[inline(never)]
    pub(super) fn api_handle(&mut self, process: ProcessId, input: apiserver::In, then: Option<apiserver::In>) {
        let now = self.clock(self.processes[process].host);
        let Some(Running::Api(api)) = self.processes[process].running.as_mut() else { return };
        api.handle(now, input, &mut self.scratch.api);
        if let Some(then) = then {
            api.handle(now, then, &mut self.scratch.api);
        }
        self.deliver(process);
    }

    #[inline(always)]
    pub(super) fn from_api(&mut self, process: ProcessId, msg: apiserver::Out) {
        let Process { host, role, .. } = &self.processes[process];
        let from = *host;
        match msg {
            apiserver::Out::Client(ConnId(conn), msg) => self.reply(from, conn, msg),
            // Nobody in the simulator reads them.
            apiserver::Out::Note(..) => {}
            apiserver::Out::Consult(..) => unreachable!("simulated servers ask no webhooks"),
            apiserver::Out::Store(id, request) => {
                let Role::Api(index) = *role else { unreachable!("only API servers say this") };
                if self.net.is_cut(from, STORE_HOST) || self.net.is_cut(STORE_HOST, from) {
                    return self.sever_store(index);
                }
                let life = self.apis[index].store_life;
                let delay = self.net.delay(self.now, from, STORE_HOST)
                    + self.rng.range(self.store_host.latency.0, self.store_host.latency.1);
                let at = (self.now + delay).max(self.apis[index].up + 1);
                let at = at.max(self.store_host.stalled_until);
                self.apis[index].up = at;
                self.event_queue.push(at, Event::ToStore { api: index, life, id, request });
            }
        }
    }

    #[inline(never)]
    pub(super) fn reply(&mut self, from: HostId, conn: u64, msg: FromServer) {
        let process = self.conns[conn as usize].client;
        if let Some(causes) = &mut self.causes {
            causes.answered(conn, &msg);
        }
        if !self.calm {
            let at = self.seconds();
            let Checkers { exchanges, report, .. } = &mut self.checkers;
            exchanges.answered(at, conn, &msg, report);
        }
        #[cfg(test)]
        if self.loses(process, &msg) {
            return;
        }
        let host = self.processes[process].host;
        let Some(connection) = self.processes[process].connection.filter(|c| c.id() == conn && !c.dead) else {
            return;
        };
        if self.net.is_cut(from, host) {
            return self.kill_connection(process);
        }
        let at = (self.now + self.net.delay(self.now, from, host)).max(connection.down + 1);
        let c = self.processes[process].connection.as_mut().expect("it was just there");
        c.down = at;
        let at = if self.late.is_empty() { at } else { at + self.lateness(host, conn, &msg) };
        let at = if self.skews.is_empty() && self.watch_down.is_empty() { at } else { self.skewed(process, &msg, at) };
        let life = self.processes[process].life;
        if matches!(&msg, FromServer::Watch(_, event) if !matches!(event, WatchEvent::Bookmark { .. })) {
            self.read_for_news(process);
        }
        self.event_queue.push(at, Event::ToClient { process, life, conn, msg });
    }

    /// Notes a request whose reply will be late.
    #[cold]
    fn expect_late(&mut self, from: HostId, conn: u64, msg: &ToServer) {
        if let ToServer::Request(id, request) = msg
            && self.late_replies.contains_key(&from)
            && (request.call.writes() || matches!(request.call, Call::Get { .. }))
        {
            self.late.insert((conn, *id));
        }
    }

    /// How much later than others a reply to a machine arrives.
    #[cold]
    fn lateness(&mut self, to: HostId, conn: u64, msg: &FromServer) -> u64 {
        let FromServer::Reply(id, _) = msg else { return 0 };
        if !self.late.remove(&(conn, *id)) {
            return 0;
        }
        let up_to = self.late_replies.get(&to).and_then(Layered::get).unwrap_or_default();
        self.rng.below((up_to.as_nanos() as u64).max(1))
    }

    /// When a message arrives that is due at a moment, if the watches of its process run apart: half of them are on
    /// time, each other one is late by a time of its own, and in order. Were all late, few would be so by much more
    /// than others.
    #[cold]
    fn skewed(&mut self, process: ProcessId, msg: &FromServer, at: u64) -> u64 {
        let (id, is_event) = match msg {
            FromServer::Watch(id, _) => (*id, true),
            FromServer::Reply(id, _) => (*id, false),
            FromServer::Disconnected => return at,
        };
        let now = self.now;
        self.watch_down.retain(|_, last| *last > now);
        let up_to = self.skews.get(&self.processes[process].host).and_then(Layered::get);
        let lag = up_to.filter(|_| is_event).map_or(0, |up_to| {
            let drawn = mix(mix(self.seed, u64::from(process.number())), id.0);
            if drawn.is_multiple_of(2) { 0 } else { drawn / 2 % (up_to.as_nanos() as u64).max(1) }
        });
        let after = self.watch_down.get(&(process, id)).map_or(0, |last| last + 1);
        let at = (at + lag).max(after);
        if is_event && (lag > 0 || after > 0) {
            self.watch_down.insert((process, id), at);
        }
        at
    }

    #[inline]
    pub(super) fn to_client(&mut self, process: ProcessId, life: u32, conn: u64, msg: FromServer) {
        if self.processes[process].life != life {
            return;
        }
        let broken = matches!(msg, FromServer::Disconnected);
        let p = &mut self.processes[process];
        if conn != u64::MAX {
            if p.connection.is_none_or(|c| c.id() != conn || (c.dead && !broken)) {
                return;
            }
            if broken {
                p.connection = None;
            }
        }
        if let Some(causes) = &mut self.causes {
            causes.heard(self.now, process, conn, &msg);
        }
        let heard = if self.waiting.is_empty() { None } else { self.heard(process, &msg) };
        let now = self.clock(self.processes[process].host);
        let out = &mut self.scratch;
        match self.processes[process].running.as_mut() {
            Some(Running::Manager(m)) => m.handle(now, msg, &mut out.client),
            Some(Running::Scheduler(m)) => m.handle(now, scheduler::In::Api(msg), &mut out.scheduler),
            Some(Running::User(m)) => {
                m.handle(now, msg, &mut out.client);
                for done in m.take_done() {
                    let what = match done.error {
                        Some(error) => format!("{}: {error}", done.what),
                        None => done.what,
                    };
                    self.actions.push(Happening { at: self.now as f64 / 1e9, what });
                }
            }
            Some(Running::Agent(m)) => m.handle(now, agent::In::Api(msg), &mut out.agent),
            Some(Running::Proxy(m)) => m.handle(now, msg, &mut out.proxy),
            Some(Running::Dns(m)) => m.handle(now, msg, &mut out.dns),
            Some(Running::Api(_)) => unreachable!("an API server is nobody's client"),
            None => {}
        }
        self.deliver(process);
        if let Some(heard) = heard {
            self.notice(heard);
        }
    }

    #[inline(always)]
    pub(super) fn to_store(&mut self, api: ApiId, life: u32, id: u64, request: StoreRequest) {
        if self.apis[api].store_life != life {
            return;
        }
        let client = StoreClient(api.number());
        let now = self.clock(STORE_HOST);
        self.store.handle(now, store::In::Request(client, id, request), &mut self.store_host.out);
        self.record_commits();
        let committed = if self.waiting.is_empty() { None } else { self.committed(api, id) };
        self.from_store();
        self.arm_store();
        if let Some(committed) = committed {
            self.notice(committed);
        }
    }

    /// The number of an API server's connection to the store.
    #[inline(always)]
    pub(super) fn store_life(&self, process: ProcessId) -> Option<u32> {
        match self.processes[process].role {
            Role::Api(index) => Some(self.apis[index].store_life),
            _ => None,
        }
    }

    /// An API server's connection to the store breaks: what is on its way is lost, and the server notices some time
    /// later. What it asks until then is lost as well.
    #[cold]
    fn sever_store(&mut self, index: ApiId) {
        let api = &mut self.apis[index];
        if std::mem::replace(&mut api.is_severed, true) {
            return;
        }
        api.store_life += 1;
        let (process, life) = (api.process, api.store_life);
        let now = self.clock(STORE_HOST);
        let mut nothing = Vec::new();
        self.store.handle(now, store::In::Closed(StoreClient(index.number())), &mut nothing);
        assert!(nothing.is_empty(), "who is gone is told nothing");
        let notices = self.rng.duration(Duration::from_secs(1), Duration::from_secs(10));
        let (at, msg) = (self.now + notices.as_nanos() as u64, FromStore::Disconnected);
        self.event_queue.push(at, Event::FromStore { process, life, msg, with: None });
    }

    #[inline(always)]
    pub(super) fn from_store(&mut self) {
        self.store_host.out.reverse();
        while let Some(store::Out { to, msg }) = self.store_host.out.pop() {
            let index = ApiId::new(to.0);
            let lag = self.apis[index].lag.get().map_or(0, |lag| lag.as_nanos() as u64);
            let together = |next: &store::Out| self.calm && lag == 0 && next.to == to && are_one_step(&msg, &next.msg);
            let with = self.store_host.out.pop_if(|next| together(next)).map(|next| next.msg);
            let tells = with.is_some() || matches!(msg, FromStore::Events { .. });
            let ApiHost { process, store_life: life, .. } = self.apis[index];
            let host = self.processes[process].host;
            if self.net.is_cut(STORE_HOST, host) {
                self.sever_store(index);
                continue;
            }
            let mut at = self.now + self.net.delay(self.now, STORE_HOST, host);
            if tells {
                at = (at + lag).max(self.apis[index].events + 1);
            }
            if !tells || with.is_some() {
                // The reply to a watch request opens its stream: it arrives before the stream's events and after older
                // messages.
                at = at.max(self.apis[index].down + 1);
                self.apis[index].down = at;
            }
            if tells {
                self.apis[index].events = at;
            }
            let (msg, with) = match with {
                Some(events) if self.rng.chance(1, 2) => (events, Some(msg)),
                with => (msg, with),
            };
            self.event_queue.push(at, Event::FromStore { process, life, msg, with });
        }
    }
}

/// Whether these are the reply to a transaction and the events of its changes. In a run without drawn faults they
/// arrive together, as over one connection, and either may be processed first; in a run with faults each is delivered
/// separately.
fn are_one_step(reply: &FromStore, events: &FromStore) -> bool {
    matches!((reply, events), (FromStore::Reply(_, StoreReply::Txn { .. }), FromStore::Events { .. }))
}
