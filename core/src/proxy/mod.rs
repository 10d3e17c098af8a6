//! The service proxy of one node.
//!
//! What comes in: the API server's messages about Services and EndpointSlices. What goes out: requests to the API
//! server, and changes of the node's [`ServiceTable`], which a driver applies to nftables, to a userspace forwarder or
//! to the simulated network. Never emits a table before both kinds have been listed; never emits a change that has no
//! cause.
//!
//! Changes are batched for up to a second ([`limits::PROXY_MIN_SYNC`]); the cost of a sync is proportional to the
//! number of services that changed.

pub(crate) mod slices;
mod table;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::rc::Rc;

use k8s_openapi::api::core::v1 as core_v1;
use serde::{Deserialize, Serialize};

use crate::api::{FromServer, ToServer};
use crate::client::{Change, Informer, InformerConfig, View, Views};
use crate::limits;
use crate::machine::{Deadline, Machine, Mono, Now};
use crate::object::{FieldSelector, Kind, ObjectKey, Requirement, Selector};
use crate::random::Rng;
use slices::SliceIndex;
pub use table::{Backend, Entry, Frontend, Host, Placement, Protocol, ServiceTable, TableChange, WhenEmpty, lines};

/// Configuration of the proxy.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct ProxyConfig {
    /// Name of the node.
    pub node_name: Rc<str>,
    /// Zone of the node; empty if it has none.
    pub zone: Rc<str>,
}

/// Outputs of the proxy.
#[derive(Clone, Debug, Serialize)]
pub enum Out {
    /// To the API server.
    Api(ToServer),
    /// To the driver that applies the table.
    Table(TableChange),
}

/// Maintains the node's table.
#[derive(Debug)]
pub struct ServiceProxy {
    place: Placement,
    services: Informer,
    slices: Informer,
    views: Views,
    index: SliceIndex,
    table: ServiceTable,
    dirty: BTreeSet<ObjectKey>,
    /// Changes are batched until this time.
    next_sync: Mono,
    replaced: bool,
}

impl ServiceProxy {
    /// Creates a proxy with an empty table.
    pub fn new(config: ProxyConfig, mut rng: Rng) -> ServiceProxy {
        let user: Rc<str> = Rc::from("kube-proxy");
        let absent = |label: &str| Requirement::Absent(label.to_owned());
        let own_proxy = absent("service.kubernetes.io/service-proxy-name");
        let headless = absent("service.kubernetes.io/headless");
        let mut informer = |kind, part, requirements| {
            let config = InformerConfig {
                kind,
                namespace: Rc::from(""),
                labels: Selector { requirements, nothing: false },
                fields: FieldSelector::everything(),
                user: Rc::clone(&user),
            };
            Informer::new(config, part, Rng::from_seed(rng.next_u64()))
        };
        ServiceProxy {
            place: Placement { node_name: config.node_name, zone: config.zone },
            services: informer(Kind::SERVICE, 1, vec![headless.clone(), own_proxy.clone()]),
            slices: informer(Kind::ENDPOINT_SLICE, 2, vec![headless, own_proxy]),
            views: Views::new(vec![View::new(Kind::SERVICE, &[]), View::new(Kind::ENDPOINT_SLICE, &[])]),
            index: SliceIndex::default(),
            table: ServiceTable::default(),
            dirty: BTreeSet::new(),
            next_sync: Mono::ZERO,
            replaced: false,
        }
    }

    /// The table as last sent to the driver.
    pub fn table(&self) -> &ServiceTable {
        &self.table
    }

    /// Its views of the cluster.
    pub fn views(&self) -> &Views {
        &self.views
    }

    fn take(&mut self, changes: &[Change]) {
        for change in changes {
            if change.key.kind == Kind::SERVICE {
                self.dirty.insert(change.key.clone());
            } else {
                let dirty = &mut self.dirty;
                self.index.changed(change, |service| {
                    dirty.insert(service);
                });
            }
        }
    }

    fn sync(&mut self, now: Now, out: &mut Vec<Out>) {
        let ready = self.replaced || self.views.is_synced();
        if !ready || self.replaced && self.dirty.is_empty() || now.mono < self.next_sync {
            return;
        }
        self.next_sync = now.mono + limits::PROXY_MIN_SYNC;
        let mut changes = Vec::new();
        while let Some(key) = self.dirty.pop_first() {
            let service = self.views.get::<core_v1::Service>(&key);
            let slices = if service.is_some() { self.index.of(&key, &self.views) } else { Vec::new() };
            let lines = lines(&self.place, &key, service, &slices);
            let freed = self.table.put(&key, lines, &mut changes);
            self.dirty.extend(freed);
        }
        if self.replaced {
            out.extend(changes.into_iter().map(Out::Table));
        } else {
            self.replaced = true;
            let all = self.table.iter().map(|(f, e)| (*f, Rc::clone(e))).collect();
            out.push(Out::Table(TableChange::Replace(all)));
        }
    }
}

impl Machine for ServiceProxy {
    type In = FromServer;
    type Out = Out;

    fn handle(&mut self, now: Now, input: FromServer, out: &mut Vec<Out>) {
        let (mut asks, mut changes) = (Vec::new(), Vec::new());
        self.services.handle(now, &input, self.views.view_mut(Kind::SERVICE), &mut asks, &mut changes);
        self.slices.handle(now, &input, self.views.view_mut(Kind::ENDPOINT_SLICE), &mut asks, &mut changes);
        out.extend(asks.into_iter().map(Out::Api));
        self.take(&changes);
        self.sync(now, out);
    }

    fn handle_timeout(&mut self, now: Now, out: &mut Vec<Out>) {
        let mut asks = Vec::new();
        for (informer, kind) in [(&mut self.services, Kind::SERVICE), (&mut self.slices, Kind::ENDPOINT_SLICE)] {
            if informer.poll_timeout().is_some_and(|d| d.at <= now.mono) {
                informer.handle_timeout(now, self.views.view_mut(kind), &mut asks);
            }
        }
        out.extend(asks.into_iter().map(Out::Api));
        self.sync(now, out);
    }

    fn poll_timeout(&self) -> Option<Deadline> {
        let waits = self.replaced && !self.dirty.is_empty();
        let sync = waits.then_some(Deadline { at: self.next_sync, why: "sync the service table" });
        let informers = Deadline::earlier(self.services.poll_timeout(), self.slices.poll_timeout());
        Deadline::earlier(sync, informers)
    }
}
