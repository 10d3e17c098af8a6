//! What runs the containers of an agent: the simulated runtime, or Docker's engine on this host.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use skeg_core::Now;
use skeg_core::agent::{RuntimeCommand, RuntimeEvent};
use skeg_sim::runtime::{Fire, NodeRuntime};
use skeg_sim::scenario::ImageProfile;

use super::host::Carrier;
use super::tokens::{self, Minted};
use crate::up::docker::Docker;
use crate::up::streams::visit::Visit;

/// Either of both.
pub enum Containers {
    /// Containers behave as the profiles of their images say.
    Simulated(Simulated),
    /// They are real.
    Real(Real),
}

/// The simulated runtime, in real time.
pub struct Simulated {
    runtime: NodeRuntime,
    images: BTreeMap<String, ImageProfile>,
    /// When each operation ends, with its number.
    timers: BTreeSet<(u64, u64)>,
    fires: BTreeMap<u64, Fire>,
    next_fire: u64,
}

/// Docker, and the commands that wait for tokens.
pub struct Real {
    runtime: Docker,
    carrier: Carrier,
    waiting: BTreeMap<u64, RuntimeCommand>,
    next: u64,
}

impl Simulated {
    /// `runtime` has its containers open, and none yet.
    pub fn new(runtime: NodeRuntime, images: BTreeMap<String, ImageProfile>) -> Simulated {
        Simulated { runtime, images, timers: BTreeSet::new(), fires: BTreeMap::new(), next_fire: 0 }
    }

    fn fire_later(&mut self, now: Now, delay: Duration, fire: Fire) {
        self.next_fire += 1;
        self.fires.insert(self.next_fire, fire);
        self.timers.insert(((now.mono + delay).0, self.next_fire));
    }
}

impl Real {
    /// `carrier` asks the API servers for tokens.
    pub fn new(runtime: Docker, carrier: Carrier) -> Real {
        Real { runtime, carrier, waiting: BTreeMap::new(), next: 0 }
    }

    /// Carries out the command that has waited for these tokens.
    pub fn minted(&mut self, number: u64, minted: &Minted) {
        let command = self.waiting.remove(&number).expect("tokens are asked for once for each command");
        self.runtime.command(command, &|_, audience, seconds| minted.token(audience, seconds));
    }

    /// Lets a client look into a container.
    pub fn visit(&mut self, visit: Visit) {
        self.runtime.visit(visit);
    }

    /// Lets go of what a restart does not find again.
    pub fn end(&self) {
        self.runtime.end();
    }
}

impl Containers {
    /// When an operation ends, in monotone nanoseconds.
    pub fn poll_timeout(&self) -> Option<u64> {
        match self {
            Containers::Simulated(simulated) => simulated.timers.first().map(|(at, _)| *at),
            // Docker's operations end by messages.
            Containers::Real(_) => None,
        }
    }

    /// Does what is due; returns what is to be told to the agent.
    pub fn handle_timeout(&mut self, now: Now) -> Vec<RuntimeEvent> {
        let Containers::Simulated(of) = self else { return Vec::new() };
        let (mut events, mut later): (Vec<RuntimeEvent>, _) = (Vec::new(), Vec::new());
        while let Some((at, number)) = of.timers.first().copied()
            && at <= now.mono.0
        {
            of.timers.pop_first();
            let fire = of.fires.remove(&number).expect("what is due was put there");
            of.runtime.fire(now.mono.0, now.wall, fire, &of.images, &mut events, &mut later);
        }
        later.into_iter().for_each(|(delay, fire)| of.fire_later(now, delay, fire));
        events
    }

    /// Carries out a command of the agent.
    pub fn handle(&mut self, now: Now, command: RuntimeCommand) {
        match self {
            Containers::Simulated(of) => {
                let (delay, fire) = of.runtime.command(command, &of.images);
                of.fire_later(now, delay, fire);
            }
            Containers::Real(of) => match tokens::wanted(&command) {
                None => of.runtime.command(command, &|_, _, _| unreachable!("the command needs no token")),
                Some(wanted) => {
                    of.next += 1;
                    of.waiting.insert(of.next, command);
                    of.carrier.mint(of.next, wanted);
                }
            },
        }
    }
}
