//! The cluster DNS.
//!
//! What comes in: the API server's messages about Services, EndpointSlices and Namespaces. What goes out: requests to
//! the API server, and changes of the [`Zone`] for a driver that serves it. [`resolve`](ClusterDns::resolve) answers
//! queries. Never answers a query before all three kinds have been listed.

mod records;
#[cfg(test)]
mod tests;
mod zone;

use std::collections::BTreeSet;
use std::rc::Rc;

use k8s_openapi::api::core::v1 as core_v1;
use serde::{Deserialize, Serialize};

use crate::api::{FromServer, ToServer};
use crate::client::{Change, Informer, InformerConfig, View, Views};
use crate::limits;
use crate::machine::{Deadline, Machine, Now};
use crate::object::{FieldSelector, Kind, ObjectKey, Selector};
use crate::proxy::slices::SliceIndex;
use crate::random::Rng;
pub use records::RecordData;
pub use zone::{Answer, Record, RecordChange, RecordType, Zone};

const KINDS: [Kind; 3] = [Kind::SERVICE, Kind::ENDPOINT_SLICE, Kind::NAMESPACE];

/// Configuration of the DNS.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DnsConfig {
    /// Cluster domain, such as `cluster.local`.
    pub domain: Rc<str>,
    /// Time to live of records, in seconds.
    pub ttl: u32,
}

impl Default for DnsConfig {
    fn default() -> Self {
        DnsConfig { domain: Rc::from("cluster.local"), ttl: limits::DNS_TTL }
    }
}

/// Outputs of the DNS.
#[derive(Clone, Debug, Serialize)]
pub enum Out {
    /// To the API server.
    Api(ToServer),
    /// To the driver that serves the zone.
    Records(RecordChange),
}

/// Maintains the cluster's zone.
#[derive(Debug)]
pub struct ClusterDns {
    informers: [Informer; 3],
    views: Views,
    index: SliceIndex,
    zone: Zone,
    dirty: BTreeSet<ObjectKey>,
    replaced: bool,
}

impl ClusterDns {
    /// Creates a DNS with an empty zone.
    pub fn new(config: DnsConfig, mut rng: Rng) -> ClusterDns {
        let user: Rc<str> = Rc::from("coredns");
        let mut part = 0;
        let informers = KINDS.map(|kind| {
            let config = InformerConfig {
                kind,
                namespace: Rc::from(""),
                labels: Selector::everything(),
                fields: FieldSelector::everything(),
                user: Rc::clone(&user),
            };
            part += 1;
            Informer::new(config, part, Rng::from_seed(rng.next_u64()))
        });
        ClusterDns {
            informers,
            views: Views::new(KINDS.iter().map(|k| View::new(*k, &[])).collect()),
            index: SliceIndex::default(),
            zone: Zone::new(&config.domain, config.ttl),
            dirty: BTreeSet::new(),
            replaced: false,
        }
    }

    /// Answers a query; `None` while the cluster's state is not known yet (`SERVFAIL`).
    pub fn resolve(&self, name: &str, type_: RecordType) -> Option<Answer> {
        self.replaced.then(|| self.zone.resolve(name, type_))
    }

    /// The zone as last sent to the driver.
    pub fn zone(&self) -> &Zone {
        &self.zone
    }

    /// Its views of the cluster.
    pub fn views(&self) -> &Views {
        &self.views
    }

    fn take(&mut self, change: &Change) {
        match change.key.kind {
            Kind::NAMESPACE => self.zone.put_namespace(change.key.name(), change.new.is_some()),
            Kind::SERVICE => {
                self.dirty.insert(change.key.clone());
            }
            _ => {
                let dirty = &mut self.dirty;
                self.index.changed(change, |service| {
                    dirty.insert(service);
                });
            }
        }
    }

    fn sync(&mut self, out: &mut Vec<Out>) {
        if !self.replaced && !self.views.is_synced() {
            return;
        }
        let mut changes = Vec::new();
        while let Some(key) = self.dirty.pop_first() {
            let service = self.views.get::<core_v1::Service>(&key);
            let slices = if service.is_some() { self.index.of(&key, &self.views) } else { Vec::new() };
            self.zone.put(&key, records::records(self.zone.domain(), service, &slices), &mut changes);
        }
        if self.replaced {
            out.extend(changes.into_iter().map(Out::Records));
        } else {
            self.replaced = true;
            let all = self.zone.iter().map(|(n, d)| (Rc::clone(n), d)).collect();
            out.push(Out::Records(RecordChange::Replace(all)));
        }
    }
}

impl Machine for ClusterDns {
    type In = FromServer;
    type Out = Out;

    fn handle(&mut self, now: Now, input: FromServer, out: &mut Vec<Out>) {
        let (mut asks, mut changes) = (Vec::new(), Vec::new());
        for (informer, kind) in self.informers.iter_mut().zip(KINDS) {
            informer.handle(now, &input, self.views.view_mut(kind), &mut asks, &mut changes);
        }
        out.extend(asks.into_iter().map(Out::Api));
        changes.iter().for_each(|c| self.take(c));
        self.sync(out);
    }

    fn handle_timeout(&mut self, now: Now, out: &mut Vec<Out>) {
        let mut asks = Vec::new();
        for (informer, kind) in self.informers.iter_mut().zip(KINDS) {
            if informer.poll_timeout().is_some_and(|d| d.at <= now.mono) {
                informer.handle_timeout(now, self.views.view_mut(kind), &mut asks);
            }
        }
        out.extend(asks.into_iter().map(Out::Api));
    }

    fn poll_timeout(&self) -> Option<Deadline> {
        self.informers.iter().map(Informer::poll_timeout).fold(None, Deadline::earlier)
    }
}
