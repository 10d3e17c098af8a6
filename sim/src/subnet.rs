//! The pod addresses of a node: each node has its own range, allocated as the `host-local` plug-in does.
//!
//! Addresses are allocated in a ring, so a released address is reused last. The network of all pods starts at
//! 10.128.0.0; nodes get consecutive ranges, each with room for twice the node's maximum number of pods.

use core::net::Ipv4Addr;
use std::collections::BTreeSet;
use std::rc::Rc;

use skeg_core::agent::AgentConfig;
use skeg_core::object::Milli;

/// First address of the network of all pods, 10.128.0.0.
const NETWORK: u32 = 10 << 24 | 128 << 16;
/// Exclusive upper bound: the loopback network follows.
const END: u32 = 127 << 24;
/// Minimum size of a node's range: a /24, of which there are enough for a million nodes.
const LEAST: u32 = 256;

/// The range of one node.
#[derive(Debug)]
pub struct Subnet {
    first: u32,
    size: u32,
    /// Where the search for a free address starts.
    next: u32,
    taken: BTreeSet<u32>,
}

impl Subnet {
    /// A range for each agent's node.
    pub fn of_agents<'a>(configs: impl Iterator<Item = &'a AgentConfig>) -> Vec<Subnet> {
        let pods = |c: &AgentConfig| c.capacity.get("pods").and_then(|n| Milli::parse(n).ok());
        let most = |c| pods(c).map_or(0, |n| u32::try_from(n.value()).unwrap_or(u32::MAX));
        Subnet::of_nodes(&configs.map(most).collect::<Vec<_>>())
    }

    /// A range for each node, given the nodes' maximum numbers of pods; a /24 for each if the network is too small for
    /// more.
    pub fn of_nodes(pods: &[u32]) -> Vec<Subnet> {
        let wished = Subnet::in_order(pods.iter().map(|n| n.checked_mul(2)?.max(LEAST).checked_next_power_of_two()));
        let least = || Subnet::in_order(pods.iter().map(|_| Some(LEAST)));
        wished.or_else(least).expect("a /24 for each node fits")
    }

    fn in_order(sizes: impl Iterator<Item = Option<u32>>) -> Option<Vec<Subnet>> {
        let mut next = NETWORK;
        let subnets = sizes.map(|size| {
            let size = size?;
            let first = next.checked_next_multiple_of(size)?;
            next = first.checked_add(size).filter(|end| *end <= END)?;
            // The first address identifies the range, the second belongs to the bridge, the last is the broadcast
            // address.
            Some(Subnet { first, size, next: 2, taken: BTreeSet::new() })
        });
        subnets.collect()
    }

    /// Allocates a free address.
    pub fn take(&mut self) -> Result<Rc<str>, String> {
        let usable = 2..self.size - 1;
        let order = (self.next..usable.end).chain(usable.start..self.next);
        let Some(free) = order.clone().find(|n| !self.taken.contains(n)) else {
            let show = |n: u32| Ipv4Addr::from(self.first + n);
            return Err(format!(
                "plugin type=\"host-local\" failed (add): failed to allocate for range 0: no IP addresses available \
                 in range set: {}-{}",
                show(1),
                show(self.size - 2)
            ));
        };
        self.taken.insert(free);
        self.next = if free + 1 < usable.end { free + 1 } else { usable.start };
        Ok(Rc::from(Ipv4Addr::from(self.first + free).to_string()))
    }

    /// Releases an address.
    pub fn release(&mut self, address: &str) {
        let address: Ipv4Addr = address.parse().expect("what was taken is an address");
        self.taken.remove(&(u32::from(address) - self.first));
    }

    /// Releases all addresses.
    pub fn release_all(&mut self) {
        self.taken.clear();
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::Subnet;

    fn one(pods: u32) -> Subnet {
        Subnet::of_nodes(&[pods]).remove(0)
    }

    #[test]
    fn nodes_get_ranges_of_their_own() {
        let mut nodes = Subnet::of_nodes(&[110, 110, 300, 1]);
        let firsts: Vec<_> = nodes.iter_mut().map(|n| n.take().unwrap().to_string()).collect();
        assert_eq!(firsts, ["10.128.0.2", "10.128.1.2", "10.128.4.2", "10.128.8.2"]);
    }

    #[test]
    fn where_there_is_no_room_for_more_each_gets_the_least() {
        let mut nodes = Subnet::of_nodes(&[u32::MAX, 5000]);
        assert_eq!(&*nodes[1].take().unwrap(), "10.128.1.2");
        assert_eq!(
            nodes.iter_mut().map(|n| std::iter::from_fn(|| n.take().ok()).count()).collect::<Vec<_>>(),
            [253, 252]
        );
        assert_eq!(&*Subnet::of_nodes(&vec![110; 1_000_000]).pop().unwrap().take().unwrap(), "25.194.63.2");
    }

    #[test]
    fn a_released_address_comes_back_last() {
        let mut subnet = one(110);
        let mut seen = BTreeSet::new();
        for _ in 0..253 {
            let address = subnet.take().unwrap();
            assert!(seen.insert(address.clone()), "{address} is another pod's");
            if seen.len() > 100 {
                // Addresses that were never used are allocated before released ones.
                subnet.release(&address);
            }
        }
        let again = subnet.take().unwrap();
        assert!(seen.contains(&again), "{again} is beyond the range");
    }

    #[test]
    fn a_full_range_refuses_in_the_plug_ins_words() {
        let mut subnet = one(110);
        let all: Vec<_> = std::iter::from_fn(|| subnet.take().ok()).collect();
        assert_eq!(all.len(), 253);
        assert_eq!(
            subnet.take().unwrap_err(),
            "plugin type=\"host-local\" failed (add): failed to allocate for range 0: no IP addresses available in \
             range set: 10.128.0.1-10.128.0.254"
        );
        subnet.release(&all[7]);
        assert_eq!(subnet.take().as_ref(), Ok(&all[7]));
    }
}
