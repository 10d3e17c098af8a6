//! The Services of the cluster, as the agent of a real node watches them for the environment of its containers.

use std::collections::BTreeMap;
use std::rc::Rc;

use k8s_openapi::api::core::v1 as core_v1;

use super::environment::of_service;
use crate::api::{FromServer, ToServer};
use crate::client::{Informer, InformerConfig, View};
use crate::machine::{Deadline, Now};
use crate::object::{FieldSelector, Kind, Selector};
use crate::random::Rng;

/// A watched view of all Services.
#[derive(Debug)]
pub(super) struct Services {
    informer: Informer,
    view: View,
}

impl Services {
    pub(super) fn new(user: Rc<str>, part: u16, rng: Rng) -> Services {
        let config = InformerConfig {
            kind: Kind::SERVICE,
            namespace: Rc::from(""),
            labels: Selector::everything(),
            fields: FieldSelector::default(),
            user,
        };
        Services { informer: Informer::new(config, part, rng), view: View::new(Kind::SERVICE, &[]) }
    }

    /// Whether all of them have been read at least once.
    pub(super) fn is_synced(&self) -> bool {
        self.view.is_synced()
    }

    /// Handles a message of the API; returns whether the view has just become complete.
    pub(super) fn handle(&mut self, now: Now, message: &FromServer, requests: &mut Vec<ToServer>) -> bool {
        let was = self.is_synced();
        self.informer.handle(now, message, &mut self.view, requests, &mut Vec::new());
        !was && self.is_synced()
    }

    pub(super) fn handle_timeout(&mut self, now: Now, requests: &mut Vec<ToServer>) {
        self.informer.handle_timeout(now, &mut self.view, requests);
    }

    pub(super) fn poll_timeout(&self) -> Option<Deadline> {
        self.informer.poll_timeout()
    }

    /// The variables of the Services of a namespace, where `links` asks for them, and always those of the API server.
    pub(super) fn variables(&self, namespace: &str, links: bool) -> BTreeMap<String, String> {
        let mut all = BTreeMap::new();
        let api = self.view.find("default", "kubernetes");
        let own = self.view.namespace(namespace).filter(|_| links);
        for service in api.into_iter().chain(own).filter_map(|object| object.get::<core_v1::Service>()) {
            of_service(service.name(), &service.spec, &mut all);
        }
        all
    }
}
