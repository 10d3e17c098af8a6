//! Records the Events of a scheduler process: each profile's bear its name.

use std::rc::Rc;

use super::{EVENTS, MORE_EVENTS};
use crate::api::{FromServer, ToServer};
use crate::client::{EventType, Recorder};
use crate::machine::{Deadline, Now};
use crate::object::Object;
use crate::random::{Rng, mix};
use crate::scheduler::profile::Profile;
use crate::scheduler::scheduler_of;

/// A recorder for each profile.
#[derive(Debug)]
pub(super) struct Recorders(Vec<(Rc<str>, Recorder)>);

impl Recorders {
    /// Those of these profiles, each with a part of the connection.
    pub(super) fn new(profiles: &[Profile], enabled: bool, rng: Rng) -> Recorders {
        let mut others = rng.clone();
        let rngs = std::iter::once(rng).chain((1..).map(|n| Rng::from_seed(mix(others.next_u64(), n))));
        let parts = std::iter::once(EVENTS).chain(MORE_EVENTS..);
        let recorder = |((profile, rng), part): ((&Profile, Rng), u16)| {
            let name: Rc<str> = Rc::from(&*profile.name);
            (Rc::clone(&name), Recorder::new(name, Rc::from(""), enabled, part, rng))
        };
        Recorders(profiles.iter().zip(rngs).zip(parts).map(recorder).collect())
    }

    /// Whether Events are recorded; if not, a caller need not format a message.
    pub(super) fn is_enabled(&self) -> bool {
        self.0[0].1.is_enabled()
    }

    /// Records an Event about a pod, in the name of its scheduler.
    pub(super) fn record(
        &mut self,
        now: Now,
        pod: &Object,
        type_: EventType,
        reason: &str,
        message: &str,
        out: &mut Vec<ToServer>,
    ) {
        let name = match pod {
            Object::Pod(pod) => scheduler_of(pod),
            _ => "",
        };
        self.record_as(name, now, (pod, type_, reason), message, out);
    }

    /// Records an Event in the name of a scheduler.
    pub(super) fn record_as(
        &mut self,
        scheduler: &str,
        now: Now,
        (about, type_, reason): (&Object, EventType, &str),
        message: &str,
        out: &mut Vec<ToServer>,
    ) {
        let own = self.0.iter().position(|(name, _)| **name == *scheduler);
        self.0[own.unwrap_or(0)].1.record(now, about, type_, reason, message, out);
    }

    pub(super) fn handle(&mut self, now: Now, input: &FromServer, out: &mut Vec<ToServer>) {
        self.0.iter_mut().for_each(|(_, recorder)| recorder.handle(now, input, out));
    }

    pub(super) fn handle_timeout(&mut self, now: Now, out: &mut Vec<ToServer>) {
        self.0.iter_mut().for_each(|(_, recorder)| recorder.handle_timeout(now, out));
    }

    pub(super) fn poll_timeout(&self) -> Option<Deadline> {
        self.0.iter().map(|(_, recorder)| recorder.poll_timeout()).fold(None, Deadline::earlier)
    }
}
