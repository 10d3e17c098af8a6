//! What connects the containers of an agent: the machines of the service proxy, of the cluster's names and of the
//! routes to other nodes' pods, each with its own view of the cluster, and the threads that carry out what they decide.

use std::rc::Rc;
use std::sync::mpsc::channel;

use skeg_core::api::{FromServer, ToServer};
use skeg_core::dns::{self, ClusterDns, DnsConfig};
use skeg_core::proxy::{self, ProxyConfig, ServiceProxy};
use skeg_core::{Deadline, Machine, Now, Rng};

use super::routes::Routes;
use super::rules;
use crate::disk::explain;
use crate::recording::format::Of;
use crate::recording::tape::{Tape, Track};
use crate::up::dns::Lookup;
use crate::up::docker::Bridge;
use crate::up::proxy::Proxy;

/// See the module's documentation.
pub struct Serving {
    proxy: ServiceProxy,
    rules: Proxy,
    names: ClusterDns,
    routes: Routes,
    /// What is recorded of the proxy and of the names.
    tracks: [Track; 2],
}

impl Serving {
    /// `rules` carries out what the proxy of this node decides; `bridge` is that of its pods.
    pub fn new(node: &Rc<str>, rules: Proxy, bridge: Bridge, seed: u64, tape: &Tape) -> Result<Serving, String> {
        let config = ProxyConfig { node_name: Rc::clone(node), zone: Rc::from("") };
        let (own, (tell, inbox)) = (bridge.network, channel());
        let thread = std::thread::Builder::new().name("routes".to_owned());
        let thread = thread.spawn(move || rules::carry_out(own, &bridge.device, &inbox));
        thread.map_err(|e| format!("error: threads could not be started: {}", explain(&e)))?;
        let proxy = tape.machine("proxy", (seed, "proxy", 0), || Of::Proxy(config.clone()));
        let names = tape.machine("dns", (seed, "dns", 0), || Of::Names(DnsConfig::default()));
        Ok(Serving {
            tracks: [proxy, names],
            proxy: ServiceProxy::new(config, Rng::stream(seed, "proxy", 0)),
            rules,
            names: ClusterDns::new(DnsConfig::default(), Rng::stream(seed, "dns", 0)),
            routes: Routes::new(node, own, tell, Rng::stream(seed, "routes", 0)),
        })
    }

    /// When the proxy wants to be woken.
    pub fn poll_proxy(&self) -> Option<Deadline> {
        self.proxy.poll_timeout()
    }

    /// When the names want to be woken.
    pub fn poll_names(&self) -> Option<Deadline> {
        self.names.poll_timeout()
    }

    /// When the routes want to be woken.
    pub fn poll_routes(&self) -> Option<Deadline> {
        self.routes.poll_timeout()
    }

    /// Gives the proxy a message, or `None` when its time has come; returns what it asks.
    pub fn handle_proxy(&mut self, now: Now, message: Option<FromServer>) -> Vec<ToServer> {
        let out = self.tracks[0].step(&mut self.proxy, now, message);
        let mut calls = Vec::new();
        for out in out {
            match out {
                proxy::Out::Api(message) => calls.push(message),
                proxy::Out::Table(change) => self.rules.apply(&change),
            }
        }
        calls
    }

    /// The same for the names.
    pub fn handle_names(&mut self, now: Now, message: Option<FromServer>) -> Vec<ToServer> {
        let out = self.tracks[1].step(&mut self.names, now, message);
        let call = |out| match out {
            dns::Out::Api(message) => Some(message),
            // Queries are answered from the machine itself.
            dns::Out::Records(_) => None,
        };
        out.into_iter().filter_map(call).collect()
    }

    /// The same for the routes.
    pub fn handle_routes(&mut self, now: Now, message: Option<FromServer>) -> Vec<ToServer> {
        self.routes.handle(now, message)
    }

    /// Answers a query.
    pub fn resolve(&self, lookup: Lookup) {
        lookup.answer(&self.names);
    }

    /// Removes the rules of Services.
    pub fn end(self) {
        self.rules.end();
    }
}
