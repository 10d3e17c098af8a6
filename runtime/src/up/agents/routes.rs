//! Routes between the pods of nodes, by the way that flannel calls host-gw: to the range of another node's pods
//! (`spec.podCIDR`), by that node's `InternalIP`. The nodes must be on one network.
//!
//! What comes in: the API server's messages about Nodes. What goes out: requests, of which one says what range this
//! node's pods have, which is that of Docker's bridge; and all routes, whenever one changes, for a thread that carries
//! them out ([`carry_out`](super::rules)).
//!
//! Source: flannel `pkg/backend/hostgw`, `pkg/trafficmngr/iptables`.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::rc::Rc;
use std::sync::mpsc::Sender;

use serde_json::{Value, json};
use skeg_core::api::{
    Call, FromServer, Patch, Precondition, ReqId, ReqIds, Request, Subresource, ToServer, WriteOptions,
};
use skeg_core::client::{Change, Informer, InformerConfig, View, Views};
use skeg_core::object::{FieldSelector, Selector};
use skeg_core::{Deadline, Kind, Now, Object, ObjectKey, Revision, Rng};

use crate::up::proxy::network;

/// A range of addresses: the first of them, and the length of its prefix.
pub type Range = (Ipv4Addr, u8);
/// Where the ranges of other nodes are reached.
pub type Table = BTreeMap<Range, Ipv4Addr>;

/// Whether two ranges have an address in common.
fn overlap(one: Range, other: Range) -> bool {
    let length = one.1.min(other.1);
    let prefix = |range: Range| range.0.to_bits().checked_shr(32 - u32::from(length)).unwrap_or(0);
    prefix(one) == prefix(other)
}

/// What a Node says of its pods.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Peer {
    range: Range,
    by: Ipv4Addr,
}

impl Peer {
    fn of(node: &Value) -> Option<Peer> {
        let range = network(node["spec"]["podCIDR"].as_str()?)?;
        let mut addresses = node["status"]["addresses"].as_array()?.iter();
        let by = addresses.find(|address| address["type"] == "InternalIP")?["address"].as_str()?.parse().ok()?;
        Some(Peer { range, by })
    }
}

/// See the module's documentation.
pub struct Routes {
    node: Rc<str>,
    own: Range,
    informer: Informer,
    views: Views,
    /// Other nodes that have said where their pods are.
    peers: BTreeMap<String, Peer>,
    /// Those of them whose pods have addresses of this node's.
    rivals: BTreeSet<String>,
    /// The revision of this Node, if it says of no pods; what that is to be is written once.
    silent: Option<Revision>,
    /// The request that writes it, and the revision that it is based on.
    asked: Option<(ReqId, Revision)>,
    told: Option<Table>,
    tell: Sender<Table>,
    ids: ReqIds,
    user: Rc<str>,
}

impl Routes {
    /// `own` is the range of this node's pods; all routes go to `tell`.
    pub fn new(node: &Rc<str>, own: Range, tell: Sender<Table>, mut rng: Rng) -> Routes {
        let user: Rc<str> = Rc::from("skeg-routes");
        let config = InformerConfig {
            kind: Kind::NODE,
            namespace: Rc::from(""),
            labels: Selector::everything(),
            fields: FieldSelector::everything(),
            user: Rc::clone(&user),
        };
        Routes {
            node: Rc::clone(node),
            own,
            informer: Informer::new(config, 1, Rng::from_seed(rng.next_u64())),
            views: Views::new(vec![View::new(Kind::NODE, &[])]),
            peers: BTreeMap::new(),
            rivals: BTreeSet::new(),
            silent: None,
            asked: None,
            told: None,
            tell,
            // Those of the informer have its own part, so these are no others'.
            ids: ReqIds::new(2),
            user,
        }
    }

    /// When it wants to be woken.
    pub fn poll_timeout(&self) -> Option<Deadline> {
        self.informer.poll_timeout()
    }

    /// Handles a message, or `None` when its time has come; returns what it asks.
    pub fn handle(&mut self, now: Now, message: Option<FromServer>) -> Vec<ToServer> {
        let (mut asks, mut changes) = (Vec::new(), Vec::new());
        if let Some(FromServer::Reply(id, Err(why))) = &message
            && let Some((_, rv)) = self.asked.take_if(|(asked, _)| asked == id)
        {
            tracing::info!("the node's podCIDR is not written yet: {}", why.message);
            self.silent = self.silent.or(Some(rv));
        }
        let view = self.views.view_mut(Kind::NODE);
        match message {
            Some(message) => self.informer.handle(now, &message, view, &mut asks, &mut changes),
            None => self.informer.handle_timeout(now, view, &mut asks),
        }
        changes.iter().for_each(|change| self.take(change));
        if self.views.is_synced() {
            self.tell();
            // What was refused is written again when something has happened.
            asks.extend(if changes.is_empty() { None } else { self.say() });
        }
        asks
    }

    fn take(&mut self, change: &Change) {
        let name = change.key.name();
        let node = change.new.as_ref().map(Object::to_json);
        if name == &*self.node {
            // What has come of an earlier request is seen here.
            self.asked = None;
            self.silent = change.new.as_ref().filter(|_| self.is_silent(&node.unwrap_or_default())).map(Object::rv);
            return;
        }
        let peer = node.as_ref().and_then(Peer::of);
        let (rivals, peer): (Vec<Peer>, _) = peer.into_iter().partition(|peer| overlap(peer.range, self.own));
        if rivals.is_empty() {
            self.rivals.remove(name);
        } else if self.rivals.insert(name.to_owned()) {
            tracing::warn!(
                node = name,
                "the node's pods have the addresses of this one's, and are not reached; give each node's Docker a range \
                 of its own (--bip)"
            );
        }
        self.peers.remove(name);
        self.peers.extend(peer.into_iter().map(|peer: Peer| (name.to_owned(), peer)));
    }

    fn own(&self) -> String {
        format!("{}/{}", self.own.0, self.own.1)
    }

    /// Whether this Node has no range yet.
    fn is_silent(&self, node: &Value) -> bool {
        let said = node["spec"]["podCIDR"].as_str().filter(|cidr| !cidr.is_empty());
        if let Some(said) = said.filter(|said| *said != self.own()) {
            tracing::warn!(
                "the node's podCIDR is {said}, and Docker's bridge has {}: its pods are not reached from others; let \
                 the agent make a network of that range (--docker-network), or delete the Node",
                self.own()
            );
        }
        said.is_none()
    }

    /// Writes the range of this node's pods into the Node, if that has none and nobody else has it.
    fn say(&mut self) -> Option<ToServer> {
        if !self.rivals.is_empty() {
            return None;
        }
        let rv = self.silent.take()?;
        let own = self.own();
        let call = Call::Patch {
            key: ObjectKey::new(Kind::NODE, "", &self.node),
            patch: Patch::Merge(json!({"spec": {"podCIDR": own, "podCIDRs": [own]}})),
            subresource: Subresource::None,
            precondition: Precondition { uid: None, rv: Some(rv) },
            options: WriteOptions::default(),
        };
        let id = self.ids.next();
        self.asked = Some((id, rv));
        Some(ToServer::Request(id, Request::new(&self.user, call)))
    }

    /// Tells all routes if they are not those that were told last.
    fn tell(&mut self) {
        let table: Table = self.peers.values().map(|peer| (peer.range, peer.by)).collect();
        if self.told.as_ref() != Some(&table) {
            self.told = Some(table.clone());
            // An error means that the process ends.
            let _ = self.tell.send(table);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;
    use std::sync::mpsc::channel;

    use serde_json::{Value, json};
    use skeg_core::api::{Call, FromServer, Response, Status, ToServer, WatchEvent};
    use skeg_core::{Mono, Now, Object, Revision, Rng, Wall};

    use super::{Routes, Table, overlap};

    fn node(name: &str, cidr: Option<&str>, ip: &str, rv: u64) -> Object {
        let mut node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name,
            "resourceVersion": rv.to_string()}, "spec": {},
            "status": {"addresses": [{"type": "InternalIP", "address": ip}]}});
        if let Some(cidr) = cidr {
            node["spec"] = json!({"podCIDR": cidr, "podCIDRs": [cidr]});
        }
        Object::from_json(node).unwrap()
    }

    fn table(routes: &[(&str, &str)]) -> Table {
        routes.iter().map(|(cidr, by)| (super::network(cidr).unwrap(), by.parse().unwrap())).collect()
    }

    #[test]
    fn routes_follow_the_nodes() {
        let (tell, told) = channel();
        let own = super::network("10.244.0.0/24").unwrap();
        let mut routes = Routes::new(&Rc::from("me"), own, tell, Rng::from_seed(1));
        let now = Now { mono: Mono(1), wall: Wall(0) };
        let mut asks = routes.handle(now, None);
        let ToServer::Request(list, request) = asks.remove(0) else { panic!() };
        assert!(matches!(request.call, Call::List { .. }), "{request:?}");
        assert!(told.try_recv().is_err(), "nothing is known yet");
        let items = vec![node("me", None, "10.0.0.1", 1), node("b", Some("10.244.1.0/24"), "10.0.0.2", 2)];
        let listed = Response::List { items: Rc::new(items), rv: Revision(2), rest: None };
        let asks = routes.handle(now, Some(FromServer::Reply(list, Ok(listed))));
        assert_eq!(told.try_recv(), Ok(table(&[("10.244.1.0/24", "10.0.0.2")])));
        let (mut watch, mut said) = (None, Value::Null);
        for ask in asks {
            let ToServer::Request(id, request) = ask else { panic!() };
            match request.call {
                Call::Watch { .. } => watch = Some(id),
                Call::Patch { patch: skeg_core::api::Patch::Merge(body), .. } => said = body,
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(said, json!({"spec": {"podCIDR": "10.244.0.0/24", "podCIDRs": ["10.244.0.0/24"]}}));
        let watch = watch.expect("it goes on to watch");
        let mut event = |event| routes.handle(now, Some(FromServer::Watch(watch, event)));
        // One that says it, one that has the addresses of this node, and one that goes.
        assert!(event(WatchEvent::Modified(node("me", Some("10.244.0.0/24"), "10.0.0.1", 3))).is_empty());
        assert!(told.try_recv().is_err(), "nothing has changed");
        event(WatchEvent::Added(node("c", Some("10.244.2.0/24"), "10.0.0.3", 4)));
        let both = [("10.244.1.0/24", "10.0.0.2"), ("10.244.2.0/24", "10.0.0.3")];
        assert_eq!(told.try_recv(), Ok(table(&both)));
        event(WatchEvent::Added(node("d", Some("10.244.0.128/25"), "10.0.0.4", 5)));
        assert!(told.try_recv().is_err(), "it is no other range");
        event(WatchEvent::Deleted(node("b", Some("10.244.1.0/24"), "10.0.0.2", 6)));
        assert_eq!(told.try_recv(), Ok(table(&both[1..])));
        // A node that is registered anew says it again, once nobody else has the range.
        event(WatchEvent::Deleted(node("me", Some("10.244.0.0/24"), "10.0.0.1", 7)));
        assert!(event(WatchEvent::Added(node("me", None, "10.0.0.1", 8))).is_empty());
        let said = event(WatchEvent::Deleted(node("d", Some("10.244.0.128/25"), "10.0.0.4", 9)));
        let [ToServer::Request(said, _)] = &said[..] else { panic!("{said:?}") };
        assert!(event(WatchEvent::Added(node("e", None, "10.0.0.5", 10))).is_empty(), "it is written once");
        let lost = FromServer::Reply(*said, Err(Status::unavailable("no server")));
        assert!(routes.handle(now, Some(lost)).is_empty());
        let next = FromServer::Watch(watch, WatchEvent::Modified(node("e", None, "10.0.0.5", 11)));
        let again = routes.handle(now, Some(next));
        let [ToServer::Request(again, _)] = &again[..] else { panic!("{again:?}: it was lost") };
        // It was carried out, and its reply is lost.
        let me = WatchEvent::Modified(node("me", Some("10.244.0.0/24"), "10.0.0.1", 12));
        assert!(routes.handle(now, Some(FromServer::Watch(watch, me))).is_empty());
        routes.handle(now, Some(FromServer::Reply(*again, Err(Status::timeout("no reply")))));
        let next = FromServer::Watch(watch, WatchEvent::Modified(node("e", None, "10.0.0.5", 13)));
        assert!(routes.handle(now, Some(next)).is_empty());
    }

    #[test]
    fn ranges_overlap_where_one_holds_the_other() {
        let check = |one: &str, other: &str, expect: bool| {
            let [one, other] = [one, other].map(|cidr| super::network(cidr).unwrap());
            assert_eq!((overlap(one, other), overlap(other, one)), (expect, expect));
        };
        check("10.244.0.0/24", "10.244.1.0/24", false);
        check("10.244.0.0/16", "10.244.1.0/24", true);
        check("10.244.1.0/24", "10.244.1.0/24", true);
        check("0.0.0.0/0", "10.244.1.0/24", true);
    }
}
