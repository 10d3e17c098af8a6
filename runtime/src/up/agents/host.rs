//! The thread of one node's agent: it drives the agent and its simulated containers in real time, and carries messages
//! between the agent and the API servers.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::time::Duration;

use http_body_util::BodyExt;
use hyper::body::Bytes;
use skeg_core::agent::{self, AgentConfig, NodeAgent, RuntimeEvent};
use skeg_core::api::{FromServer, ReqId, Status, ToServer};
use skeg_core::{Machine, Rng};
use skeg_sim::runtime::{Fire, NodeRuntime};
use skeg_sim::scenario::ImageProfile;
use tokio::runtime::Handle;
use tokio::task::AbortHandle;

use super::client::{Client, Outcome};
use super::link::{self, Ask, Expect};
use crate::up::clock::Clock;

/// Longest line of a watch, in bytes.
const LONGEST_LINE: usize = 64 << 20;

/// A message to the agent's thread.
#[derive(Debug)]
pub enum Inbound {
    /// What became of a request.
    Outcome(ReqId, Expect, Outcome),
    /// A line of a watch.
    Line(ReqId, Bytes),
    /// A watch has ended, or was refused.
    Ended(ReqId, Status),
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
    fn carry(&self, id: ReqId, ask: Ask, expect: Expect) -> Option<AbortHandle> {
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
}

/// Follows a watch to its end, and says why it ended.
async fn watch(client: &Client, id: ReqId, ask: &Ask, tell: &Sender<Inbound>) -> Status {
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

/// The agent of a node whose containers are simulated.
pub struct Host {
    clock: Clock,
    agent: NodeAgent,
    runtime: NodeRuntime,
    images: BTreeMap<String, ImageProfile>,
    carrier: Carrier,
    watches: BTreeMap<ReqId, AbortHandle>,
    /// When each operation of the runtime ends, with its number.
    timers: BTreeSet<(u64, u64)>,
    fires: BTreeMap<u64, Fire>,
    next_fire: u64,
}

impl Host {
    /// `runtime` has its containers open, and none yet.
    pub fn new(
        config: AgentConfig,
        runtime: NodeRuntime,
        images: BTreeMap<String, ImageProfile>,
        carrier: Carrier,
        rng: Rng,
    ) -> Host {
        Host {
            clock: Clock::new(1),
            agent: NodeAgent::new(config, rng),
            runtime,
            images,
            carrier,
            watches: BTreeMap::new(),
            timers: BTreeSet::new(),
            fires: BTreeMap::new(),
            next_fire: 0,
        }
    }

    /// Runs until it receives `Stop` or all senders of `inbox` are gone.
    pub fn run(mut self, inbox: &Receiver<Inbound>) {
        loop {
            self.wake();
            let inbound = match inbox.recv_timeout(self.until_next()) {
                Ok(Inbound::Stop) | Err(RecvTimeoutError::Disconnected) => return,
                Ok(inbound) => inbound,
                Err(RecvTimeoutError::Timeout) => continue,
            };
            self.take(inbound);
        }
    }

    fn until_next(&self) -> Duration {
        let now = self.clock.now().mono.0;
        let own = self.agent.poll_timeout().map_or(u64::MAX, |deadline| deadline.at.0);
        let runtime = self.timers.first().map_or(u64::MAX, |(at, _)| *at);
        // If the clock is set or the host suspended, the timers are checked within a minute.
        Duration::from_nanos(own.min(runtime).saturating_sub(now)).min(Duration::from_secs(60))
    }

    /// Does what is due.
    fn wake(&mut self) {
        let now = self.clock.now();
        while let Some((at, number)) = self.timers.first().copied()
            && at <= now.mono.0
        {
            self.timers.pop_first();
            let fire = self.fires.remove(&number).expect("what is due was put there");
            let (mut events, mut later): (Vec<RuntimeEvent>, _) = (Vec::new(), Vec::new());
            self.runtime.fire(now.mono.0, now.wall, fire, &self.images, &mut events, &mut later);
            later.into_iter().for_each(|(delay, fire)| self.fire_later(delay, fire));
            events.into_iter().for_each(|event| self.tell(agent::In::Runtime(event)));
        }
        if self.agent.poll_timeout().is_some_and(|deadline| deadline.at <= now.mono) {
            let mut out = Vec::new();
            self.agent.handle_timeout(now, &mut out);
            self.after(out);
        }
    }

    fn take(&mut self, inbound: Inbound) {
        let message = match inbound {
            Inbound::Outcome(id, expect, outcome) => FromServer::Reply(
                id,
                match outcome {
                    Outcome::Answered(code, body) => link::reply(expect, code, &body),
                    Outcome::Unsent(why) => Err(Status::unavailable(why)),
                    Outcome::Unknown(why) => Err(Status::timeout(why)),
                },
            ),
            // What still comes of a watch that was cancelled is not for the agent.
            Inbound::Line(id, line) if self.watches.contains_key(&id) => match link::event(&line) {
                Ok(event) => FromServer::Watch(id, event),
                Err(status) => self.ended(id, status),
            },
            Inbound::Ended(id, status) if self.watches.contains_key(&id) => self.ended(id, status),
            Inbound::Line(..) | Inbound::Ended(..) | Inbound::Stop => return,
        };
        self.tell(agent::In::Api(message));
    }

    fn ended(&mut self, id: ReqId, status: Status) -> FromServer {
        self.cancel(id);
        FromServer::Reply(id, Err(status))
    }

    fn cancel(&mut self, id: ReqId) {
        if let Some(watch) = self.watches.remove(&id) {
            watch.abort();
        }
    }

    fn tell(&mut self, input: agent::In) {
        let mut out = Vec::new();
        self.agent.handle(self.clock.now(), input, &mut out);
        self.after(out);
    }

    fn after(&mut self, out: Vec<agent::Out>) {
        for out in out {
            match out {
                agent::Out::Api(ToServer::Request(id, request)) => {
                    let (ask, expect) = link::ask(&request);
                    if let Some(watch) = self.carrier.carry(id, ask, expect) {
                        self.watches.insert(id, watch);
                    }
                }
                agent::Out::Api(ToServer::Cancel(id)) => self.cancel(id),
                agent::Out::Runtime(command) => {
                    let (delay, fire) = self.runtime.command(command, &self.images);
                    self.fire_later(delay, fire);
                }
            }
        }
    }

    fn fire_later(&mut self, delay: Duration, fire: Fire) {
        self.next_fire += 1;
        self.fires.insert(self.next_fire, fire);
        self.timers.insert(((self.clock.now().mono + delay).0, self.next_fire));
    }
}
