//! The node IPAM controller: gives each node a range of addresses for its pods, out of the cluster's network.
//!
//! A node keeps the range that is in its spec, whoever gave it, and its range is free again once the node is gone. No
//! range is given twice: a leader decides only once its view shows all that earlier leaders wrote, and a write carries
//! the revision of the node that it was decided by. Ranges are taken in turn, so that one that was just released is not
//! the next to be given.
//!
//! Source: kube-controller-manager's `pkg/controller/nodeipam/ipam/range_allocator.go` and `cidrset/cidr_set.go`.

use core::net::Ipv4Addr;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::rc::Rc;

use k8s_openapi::api::core::v1 as core_v1;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{Controller, EventNote, Plan, Write};
use crate::api::{Patch, Subresource};
use crate::apiserver::parse_cidr;
use crate::client::{Change, EventType, Views, Watched};
use crate::limits;
use crate::machine::Now;
use crate::object::{Kind, Node, Object, ObjectKey};

static WATCHED: &[Watched] = &[Watched { kind: Kind::NODE, indexes: &[] }];

/// The ranges that nodes are given.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PodRanges {
    /// `--cluster-cidr`: the network of all pods, and the length of its prefix.
    pub cluster: ([u8; 4], u8),
    /// `--node-cidr-mask-size`: the length of the prefix of a node's range.
    pub mask: u8,
    /// `--service-cluster-ip-range`: what of the cluster's network is in it is given to no node.
    pub services: Option<([u8; 4], u8)>,
}

impl PodRanges {
    /// How much longer the prefix of a range may be than that of the network.
    const MOST_BITS: u8 = 16;

    /// Checks that there are ranges, and that they have room for pods.
    pub fn check(&self) -> Result<(), String> {
        let prefix = self.cluster.1;
        if self.mask < prefix || self.mask > 30 {
            return Err(format!("a node's range must be within the cluster's network: {prefix} to 30"));
        }
        if self.mask - prefix > Self::MOST_BITS {
            return Err("New CIDR set failed; the node CIDR size is too big".to_owned());
        }
        Ok(())
    }

    fn count(self) -> u32 {
        1 << (self.mask - self.cluster.1)
    }

    fn size(self) -> u32 {
        1 << (32 - self.mask)
    }

    /// The range of this number.
    fn range(self, number: u32) -> String {
        let first = u32::from_be_bytes(self.cluster.0).wrapping_add(number.wrapping_mul(self.size()));
        format!("{}/{}", Ipv4Addr::from_bits(first), self.mask)
    }

    /// The numbers of the ranges that share addresses with a network.
    fn sharing(self, (network, prefix): ([u8; 4], u8)) -> Option<RangeInclusive<u32>> {
        let (own, other) = (u64::from(u32::from_be_bytes(self.cluster.0)), u64::from(u32::from_be_bytes(network)));
        let (own_end, other_end) = (own + (1 << (32 - self.cluster.1)), other + (1 << (32 - prefix)));
        if other >= own_end || own >= other_end {
            return None;
        }
        let number = |address: u64| u32::try_from((address - own) / u64::from(self.size())).expect("it is within");
        Some(number(own.max(other))..=number(own_end.min(other_end) - 1))
    }
}

/// Gives ranges to nodes. Keys are nodes.
#[derive(Debug)]
pub struct NodeIpamController {
    ranges: PodRanges,
    /// The nodes by the numbers of their ranges, of which a foreign one may share several. Made by the first reconcile
    /// of a term, and kept up to date from then on.
    holders: Option<BTreeMap<u32, BTreeSet<ObjectKey>>>,
    /// Ranges that were given and are not in the view yet.
    given: BTreeMap<ObjectKey, u32>,
    /// Where the search for a free range begins.
    next: u32,
    /// Nodes for which there was none.
    waiting: BTreeSet<ObjectKey>,
}

fn cidrs(node: &Node) -> impl Iterator<Item = &str> {
    let several = node.spec.pod_cidrs.iter().flatten();
    let all = several.chain(&node.spec.pod_cidr).map(String::as_str);
    all.filter(|cidr| !cidr.is_empty())
}

impl NodeIpamController {
    /// Creates a controller that gives these ranges.
    pub fn new(ranges: PodRanges) -> NodeIpamController {
        let (given, waiting) = (BTreeMap::new(), BTreeSet::new());
        NodeIpamController { ranges, holders: None, given, next: 0, waiting }
    }

    fn note(&mut self, object: &Object, there: bool) {
        let (Object::Node(node), Some(holders)) = (object, &mut self.holders) else { return };
        for number in cidrs(node).filter_map(parse_cidr).filter_map(|cidr| self.ranges.sharing(cidr)).flatten() {
            let of = holders.entry(number).or_default();
            if there {
                of.insert(node.key());
            } else {
                of.remove(&node.key());
                if of.is_empty() {
                    holders.remove(&number);
                }
            }
        }
    }

    /// A range that nobody has, beginning after the one that was given last.
    fn choose(&self) -> Option<u32> {
        let services = self.ranges.services.and_then(|services| self.ranges.sharing(services));
        let is_free = |number: &u32| {
            services.as_ref().is_none_or(|services| !services.contains(number))
                && self.holders.as_ref().is_none_or(|holders| !holders.contains_key(number))
                && self.given.values().all(|given| given != number)
        };
        let count = self.ranges.count();
        (self.next..count).chain(0..self.next.min(count)).find(is_free)
    }

    fn give(&mut self, key: &ObjectKey, node: &Node) -> Plan {
        let mut plan = Plan::nothing();
        // An earlier write may have failed, or its reply may be lost: the same range is written again.
        let Some(number) = self.given.get(key).copied().or_else(|| self.choose()) else {
            self.waiting.insert(key.clone());
            let message = format!("Node {} status is now: CIDRNotAvailable", key.name());
            let (about, type_) = (Object::Node(node.clone()), EventType::Normal);
            plan.events.push(EventNote { about, type_, reason: "CIDRNotAvailable", message });
            plan.requeue(limits::POD_RANGE_RETRY);
            return plan;
        };
        self.waiting.remove(key);
        self.given.insert(key.clone(), number);
        self.next = (number + 1) % self.ranges.count();
        let range = self.ranges.range(number);
        plan.writes.push(Write::Patch {
            key: key.clone(),
            uid: Rc::from(node.uid()),
            rv: Some(node.rv),
            patch: Patch::Merge(json!({"spec": {"podCIDR": range, "podCIDRs": [range]}})),
            subresource: Subresource::None,
        });
        plan
    }
}

impl Controller for NodeIpamController {
    fn name(&self) -> &'static str {
        "node-ipam-controller"
    }

    fn watches(&self) -> &'static [Watched] {
        WATCHED
    }

    fn observe(&mut self, change: &Change, _now: Now) {
        change.old.iter().for_each(|old| self.note(old, false));
        change.new.iter().for_each(|new| self.note(new, true));
        match &change.new {
            Some(Object::Node(node)) if cidrs(node).next().is_none() => {}
            Some(_) | None => {
                self.given.remove(&change.key);
                self.waiting.remove(&change.key);
            }
        }
    }

    fn keys(&self, change: &Change, _views: &Views, keys: &mut Vec<ObjectKey>) {
        match &change.new {
            Some(Object::Node(node)) if cidrs(node).next().is_none() => keys.push(change.key.clone()),
            Some(_) => {}
            // What it had is free.
            None => keys.extend(self.waiting.iter().cloned()),
        }
    }

    fn reconcile(&mut self, views: &Views, key: &ObjectKey, _now: Now) -> Plan {
        if self.holders.is_none() {
            self.holders = Some(BTreeMap::new());
            views.view(Kind::NODE).iter().for_each(|(_, node)| self.note(node, true));
        }
        match views.get::<core_v1::Node>(key) {
            Some(node) if cidrs(node).next().is_none() => self.give(key, node),
            Some(_) | None => Plan::nothing(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{NodeIpamController, PodRanges};
    use crate::controllers::fake_cluster::{Fake, at, node, with};
    use crate::controllers::{Controller, Write};
    use crate::object::{Kind, Object, ObjectKey};
    use serde_json::{Value, json};

    const RANGES: PodRanges = PodRanges { cluster: ([10, 244, 0, 0], 22), mask: 24, services: None };

    fn has(name: &str, cidr: &str) -> Object {
        with(node(name), json!({"spec": {"podCIDR": cidr, "podCIDRs": [cidr]}}))
    }

    fn key(name: &str) -> ObjectKey {
        ObjectKey::new(Kind::NODE, "", name)
    }

    fn range(fake: &Fake, name: &str) -> String {
        let node = fake.get(Kind::NODE, name).unwrap().to_json();
        assert_eq!(node["spec"]["podCIDRs"], json!([node["spec"]["podCIDR"]]));
        node["spec"]["podCIDR"].as_str().unwrap_or_default().to_owned()
    }

    #[test]
    fn each_node_has_a_range_of_its_own() {
        let nodes = [node("a"), has("b", "10.244.1.0/24"), node("c"), has("d", "192.168.7.0/24"), node("e")];
        let mut fake = Fake::new(&[Kind::NODE], nodes);
        let mut ipam = NodeIpamController::new(RANGES);
        for name in ["a", "b", "c", "d", "e"] {
            fake.step(&mut ipam, &key(name), at(0));
        }
        let got = ["a", "b", "c", "d", "e"].map(|name| range(&fake, name));
        assert_eq!(got, ["10.244.0.0/24", "10.244.1.0/24", "10.244.2.0/24", "192.168.7.0/24", "10.244.3.0/24"]);

        // There is none left, until a node goes.
        fake.put(node("f"));
        let plan = fake.step(&mut ipam, &key("f"), at(1));
        assert!(plan.writes.is_empty() && plan.requeue_after.is_some());
        let told: Vec<_> = plan.events.iter().map(|event| (event.reason, event.message.as_str())).collect();
        assert_eq!(told, [("CIDRNotAvailable", "Node f status is now: CIDRNotAvailable")]);
        let gone = fake.get(Kind::NODE, "b").cloned().unwrap();
        fake.remove(&key("b"));
        let change = crate::client::Change { key: key("b"), old: Some(gone), new: None };
        let mut woken = Vec::new();
        ipam.keys(&change, &fake.views, &mut woken);
        assert_eq!(woken, [key("f")]);
        fake.step(&mut ipam, &key("f"), at(2));
        assert_eq!(range(&fake, "f"), "10.244.1.0/24");
    }

    #[test]
    fn a_range_that_was_released_is_not_the_next() {
        let mut fake = Fake::new(&[Kind::NODE], [node("a")]);
        let mut ipam = NodeIpamController::new(RANGES);
        fake.step(&mut ipam, &key("a"), at(0));
        fake.remove(&key("a"));
        fake.put(node("b"));
        fake.step(&mut ipam, &key("b"), at(1));
        assert_eq!(range(&fake, "b"), "10.244.1.0/24");
    }

    #[test]
    fn a_write_that_failed_is_made_again_and_no_other_node_has_its_range() {
        let mut fake = Fake::new(&[Kind::NODE], [node("a"), node("b")]);
        let mut ipam = NodeIpamController::new(RANGES);
        fake.tell(&mut ipam, at(0));
        let patch = |plan: crate::controllers::Plan| match &plan.writes[..] {
            [Write::Patch { rv: Some(_), patch: crate::api::Patch::Merge(body), .. }] => {
                body["spec"]["podCIDR"].clone()
            }
            other => panic!("{other:?}"),
        };
        let of_a = patch(ipam.reconcile(&fake.views, &key("a"), at(0)));
        let of_b = patch(ipam.reconcile(&fake.views, &key("b"), at(0)));
        let again = patch(ipam.reconcile(&fake.views, &key("a"), at(1)));
        assert_eq!((&of_a, &of_b, &again), (&json!("10.244.0.0/24"), &json!("10.244.1.0/24"), &of_a));
        // The leader that comes next begins with what is there.
        fake.put(has("a", "10.244.0.0/24"));
        let mut next = NodeIpamController::new(RANGES);
        fake.step(&mut next, &key("b"), at(2));
        assert_eq!(range(&fake, "b"), "10.244.1.0/24");
    }

    #[test]
    fn what_services_have_is_given_to_no_node() {
        let services = Some(([10, 244, 0, 0], 23));
        let mut fake = Fake::new(&[Kind::NODE], [node("a")]);
        let mut ipam = NodeIpamController::new(PodRanges { services, ..RANGES });
        fake.step(&mut ipam, &key("a"), at(0));
        assert_eq!(range(&fake, "a"), "10.244.2.0/24");
    }

    #[test]
    fn ranges_that_cannot_be_are_refused() {
        let check = |prefix: u8, mask: u8, expect: Value| {
            let ranges = PodRanges { cluster: ([10, 0, 0, 0], prefix), mask, services: None };
            assert_eq!(json!(ranges.check().err()), expect, "{prefix} {mask}");
        };
        check(16, 24, Value::Null);
        check(24, 24, Value::Null);
        check(8, 24, Value::Null);
        check(7, 24, json!("New CIDR set failed; the node CIDR size is too big"));
        check(25, 24, json!("a node's range must be within the cluster's network: 25 to 30"));
        check(16, 31, json!("a node's range must be within the cluster's network: 16 to 30"));
        let ranges = PodRanges { cluster: ([10, 244, 0, 0], 16), mask: 24, services: None };
        for (network, expect) in [
            (([10, 244, 3, 128], 25), Some(3..=3)),
            (([10, 0, 0, 0], 8), Some(0..=255)),
            (([10, 243, 0, 0], 16), None),
            (([10, 245, 0, 0], 16), None),
        ] {
            assert_eq!(ranges.sharing(network), expect, "{network:?}");
        }
    }
}
