//! An informer: keeps one [`View`] up to date by list and watch. It resumes by resourceVersion, takes bookmarks, and
//! lists again on 410.
//!
//! Call order: the owner hands every `FromServer` to `handle` (messages of other parts are ignored), and calls
//! `handle_timeout` at `poll_timeout`. The first call of `handle_timeout` starts the list.

use std::sync::Arc;

use super::{Change, View};
use crate::api::{FromServer, ReqIds, ToServer};
use crate::machine::{Deadline, Mono, Now};
use crate::object::{FieldSelector, Kind, Selector};
use crate::random::Rng;

/// What an informer is to watch.
#[derive(Clone, Debug)]
pub struct InformerConfig {
    /// Kind of objects.
    pub kind: Kind,
    /// Namespace; empty for all.
    pub namespace: Arc<str>,
    /// Only objects with these labels.
    pub labels: Selector,
    /// Only objects with these fields.
    pub fields: FieldSelector,
    /// Name of the component, for requests.
    pub user: Arc<str>,
}

/// Keeps a view up to date. The view is its owner's, so that several can stand in one [`Views`](super::Views).
#[derive(Debug)]
pub struct Informer {
    config: InformerConfig,
    ids: ReqIds,
    rng: Rng,
}

impl Informer {
    /// `part` is the number by which replies find back to this informer; unique within the client.
    pub fn new(config: InformerConfig, part: u16, rng: Rng) -> Informer {
        Informer { config, ids: ReqIds::new(part), rng }
    }

    /// Takes a message from the server; changes of the view are pushed in order.
    pub fn handle(
        &mut self,
        _now: Now,
        _input: &FromServer,
        _view: &mut View,
        _out: &mut Vec<ToServer>,
        _changes: &mut Vec<Change>,
    ) {
    }

    /// Starts, resumes or lists again, if that is due.
    pub fn handle_timeout(&mut self, _now: Now, _view: &mut View, _out: &mut Vec<ToServer>) {
        let _ = (&self.config, &mut self.ids, &mut self.rng);
    }

    /// When it next wants to act.
    pub fn poll_timeout(&self) -> Option<Deadline> {
        Some(Deadline { at: Mono::ZERO, why: "list" })
    }
}
