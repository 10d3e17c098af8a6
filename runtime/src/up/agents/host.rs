//! The thread of one node's agent: it drives the agent, its containers and what serves them in real time, and carries
//! messages between these machines and the API servers.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::time::Duration;

use http_body_util::BodyExt;
use hyper::body::Bytes;
use skeg_core::agent::{self, AgentConfig, NodeAgent};
use skeg_core::api::{FromServer, ReqId, Status, ToServer};
use skeg_core::{Deadline, Machine, Rng};
use tokio::runtime::Handle;
use tokio::sync::mpsc::unbounded_channel;
use tokio::task::AbortHandle;

use super::client::{Client, Outcome};
use super::containers::Containers;
use super::link::{self, Ask, Expect};
use super::serving::Serving;
use super::tokens::{Minted, Wanted};
use crate::disk::explain;
use crate::recording::tape::Track;
use crate::up::ask;
use crate::up::clock::Clock;

/// Longest line of a watch, in bytes.
const LONGEST_LINE: usize = 64 << 20;

/// A machine on the agent's thread. Each numbers its own requests.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Who {
    /// The agent itself.
    Agent,
    /// The service proxy.
    Proxy,
    /// The cluster's names.
    Names,
    /// The routes to other nodes' pods.
    Routes,
}

/// The number of a request, and whose it is.
type Id = (Who, ReqId);

/// A message to the agent's thread.
#[derive(Debug)]
pub enum Inbound {
    /// What became of a request.
    Outcome(Id, Expect, Outcome),
    /// A line of a watch.
    Line(Id, Bytes),
    /// A watch has ended, or was refused.
    Ended(Id, Status),
    /// The tokens that a command of this number waits for.
    Minted(u64, Minted),
    /// Something of this host: of the containers' engine, or of the server of names.
    Local(ask::Inbound),
    /// The process must stop.
    Stop,
}

/// Carries requests out on the threads of HTTP, and tells the agent's thread what came of them.
#[derive(Clone)]
pub struct Carrier {
    /// The servers.
    pub client: Arc<Client>,
    /// The threads of HTTP.
    pub runtime: Handle,
    /// Where answers go.
    pub tell: Sender<Inbound>,
}

impl Carrier {
    /// Carries a request out. The handle ends a watch.
    fn carry(&self, id: Id, ask: Ask, expect: Expect) -> Option<AbortHandle> {
        let Carrier { client, tell, .. } = self.clone();
        if expect == Expect::Events {
            let watch = async move {
                let ended = watch(&client, id, &ask, &tell).await;
                // An error means that the agent's thread has ended, here and below.
                let _ = tell.send(Inbound::Ended(id, ended));
            };
            return Some(self.runtime.spawn(watch).abort_handle());
        }
        self.runtime.spawn(async move {
            let outcome = client.send(&ask).await;
            let _ = tell.send(Inbound::Outcome(id, expect, outcome));
        });
        None
    }

    /// What the engine of containers and the server of names tell: it is handed on to the agent's thread.
    pub fn local(&self) -> Result<ask::ToCluster, String> {
        let (sender, mut inbox) = unbounded_channel();
        let tell = self.tell.clone();
        let hand_on = move || {
            while let Some(inbound) = inbox.blocking_recv() {
                if tell.send(Inbound::Local(inbound)).is_err() {
                    return;
                }
            }
        };
        let thread = std::thread::Builder::new().name("local".to_owned()).spawn(hand_on);
        thread.map_err(|e| format!("error: threads could not be started: {}", explain(&e)))?;
        Ok(sender)
    }

    /// Asks for the tokens that the command of this number waits for.
    pub fn mint(&self, number: u64, wanted: Wanted) {
        let Carrier { client, tell, .. } = self.clone();
        self.runtime.spawn(async move {
            let minted = wanted.mint(&client).await;
            let _ = tell.send(Inbound::Minted(number, minted));
        });
    }
}

/// Follows a watch to its end, and says why it ended.
async fn watch(client: &Client, id: Id, ask: &Ask, tell: &Sender<Inbound>) -> Status {
    let (_connection, response) = match client.open(ask).await {
        Ok(opened) => opened,
        Err(why) => return Status::unavailable(why),
    };
    let code = response.status().as_u16();
    let mut body = response.into_body();
    if code != 200 {
        let said = body.collect().await.map(|said| said.to_bytes()).unwrap_or_default();
        return link::reply(Expect::Events, code, &said).err().unwrap_or_else(|| Status::unavailable("no watch"));
    }
    let mut rest: Vec<u8> = Vec::new();
    while let Some(frame) = body.frame().await {
        let data = match frame.map(hyper::body::Frame::into_data) {
            Ok(Ok(data)) => data,
            Ok(Err(_)) => continue,
            Err(e) => return Status::unavailable(e.to_string()),
        };
        rest.extend_from_slice(&data);
        let Some(end) = rest.iter().rposition(|byte| *byte == b'\n') else {
            if rest.len() > LONGEST_LINE {
                return Status::unavailable("a line of the watch is too long");
            }
            continue;
        };
        for line in rest[..end].split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            if tell.send(Inbound::Line(id, Bytes::copy_from_slice(line))).is_err() {
                return Status::unavailable("the agent has ended");
            }
        }
        rest.drain(..=end);
    }
    Status::unavailable("the watch has ended")
}

/// The agent of a node, with its containers.
pub struct Host {
    clock: Clock,
    agent: NodeAgent,
    /// What is recorded of it.
    track: Track,
    containers: Containers,
    /// What serves Services to the containers, where that is possible.
    serving: Option<Serving>,
    carrier: Carrier,
    watches: BTreeMap<Id, AbortHandle>,
}

impl Host {
    /// `serving` is for real containers.
    pub fn new(
        config: AgentConfig,
        containers: Containers,
        serving: Option<Serving>,
        carrier: Carrier,
        (track, rng): (Track, Rng),
    ) -> Host {
        let agent = NodeAgent::new(config, rng);
        Host { clock: Clock::new(1), agent, track, containers, serving, carrier, watches: BTreeMap::new() }
    }

    /// Runs until it receives `Stop` or all senders of `inbox` are gone.
    pub fn run(mut self, inbox: &Receiver<Inbound>) {
        loop {
            self.wake();
            match inbox.recv_timeout(self.until_next()) {
                Ok(Inbound::Stop) | Err(RecvTimeoutError::Disconnected) => break,
                Ok(inbound) => self.take(inbound),
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
        if let Containers::Real(containers) = &self.containers {
            containers.end();
        }
        if let Some(serving) = self.serving.take() {
            serving.end();
        }
    }

    /// When each machine wants to be woken.
    fn deadlines(&self) -> [(Who, Option<Deadline>); 4] {
        let serving = self.serving.as_ref();
        [
            (Who::Agent, self.agent.poll_timeout()),
            (Who::Proxy, serving.and_then(Serving::poll_proxy)),
            (Who::Names, serving.and_then(Serving::poll_names)),
            (Who::Routes, serving.and_then(Serving::poll_routes)),
        ]
    }

    fn until_next(&self) -> Duration {
        let now = self.clock.now().mono.0;
        let machines = self.deadlines().into_iter().filter_map(|(_, deadline)| Some(deadline?.at.0)).min();
        let next = machines.into_iter().chain(self.containers.poll_timeout()).min().unwrap_or(u64::MAX);
        // If the clock is set or the host suspended, the timers are checked within a minute.
        Duration::from_nanos(next.saturating_sub(now)).min(Duration::from_secs(60))
    }

    /// Does what is due.
    fn wake(&mut self) {
        let now = self.clock.now();
        for event in self.containers.handle_timeout(now) {
            self.tell_agent(agent::In::Runtime(event));
        }
        for (who, deadline) in self.deadlines() {
            if deadline.is_some_and(|deadline| deadline.at <= now.mono) {
                self.step(who, None);
            }
        }
    }

    fn take(&mut self, inbound: Inbound) {
        match inbound {
            Inbound::Outcome((who, id), expect, outcome) => {
                self.step(who, Some(FromServer::Reply(id, outcome.reply(expect))));
            }
            // What still comes of a watch that was cancelled is not for its machine.
            Inbound::Line(id, line) if self.watches.contains_key(&id) => match link::event(&line) {
                Ok(event) => self.step(id.0, Some(FromServer::Watch(id.1, event))),
                Err(status) => self.ended(id, status),
            },
            Inbound::Ended(id, status) if self.watches.contains_key(&id) => self.ended(id, status),
            Inbound::Minted(number, minted) => {
                let Containers::Real(containers) = &mut self.containers else { return };
                containers.minted(number, &minted);
            }
            Inbound::Local(ask::Inbound::Runtime(happened)) => self.tell_agent(agent::In::Runtime(happened.event())),
            Inbound::Local(ask::Inbound::Resolve(lookup)) => {
                self.serving.as_ref().expect("names are asked of what serves them").resolve(lookup);
            }
            Inbound::Local(ask::Inbound::Visit(visit)) => {
                let Containers::Real(containers) = &mut self.containers else { return };
                containers.visit(visit);
            }
            Inbound::Line(..) | Inbound::Ended(..) | Inbound::Stop => {}
            Inbound::Local(other) => unreachable!("an agent has no API server that is told {other:?}"),
        }
    }

    fn ended(&mut self, id: Id, status: Status) {
        self.cancel(id);
        self.step(id.0, Some(FromServer::Reply(id.1, Err(status))));
    }

    fn cancel(&mut self, id: Id) {
        if let Some(watch) = self.watches.remove(&id) {
            watch.abort();
        }
    }

    /// Gives a machine a message, or `None` when its time has come.
    fn step(&mut self, who: Who, message: Option<FromServer>) {
        let now = self.clock.now();
        const THERE: &str = "it asks only if it is there";
        let calls = match (who, message) {
            (Who::Agent, Some(message)) => return self.tell_agent(agent::In::Api(message)),
            (Who::Agent, None) => {
                let out = self.track.step(&mut self.agent, now, None);
                return self.after_agent(out);
            }
            (Who::Proxy, message) => self.serving.as_mut().expect(THERE).handle_proxy(now, message),
            (Who::Names, message) => self.serving.as_mut().expect(THERE).handle_names(now, message),
            (Who::Routes, message) => self.serving.as_mut().expect(THERE).handle_routes(now, message),
        };
        calls.into_iter().for_each(|call| self.carry_out(who, call));
    }

    fn tell_agent(&mut self, input: agent::In) {
        let out = self.track.step(&mut self.agent, self.clock.now(), Some(input));
        self.after_agent(out);
    }

    fn after_agent(&mut self, out: Vec<agent::Out>) {
        for out in out {
            match out {
                agent::Out::Api(message) => self.carry_out(Who::Agent, message),
                agent::Out::Runtime(command) => self.containers.handle(self.clock.now(), command),
            }
        }
    }

    fn carry_out(&mut self, who: Who, message: ToServer) {
        match message {
            ToServer::Request(id, request) => {
                let (ask, expect) = link::ask(&request);
                if let Some(watch) = self.carrier.carry((who, id), ask, expect) {
                    self.watches.insert((who, id), watch);
                }
            }
            ToServer::Cancel(id) => self.cancel((who, id)),
        }
    }
}
