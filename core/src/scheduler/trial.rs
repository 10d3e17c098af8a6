//! A node as it would be with more or fewer pods: used for nominated pods and for evictions.

use std::rc::Rc;

use super::cache::{Nodes, Slot};
use super::filters::{PORTS_TAKEN, insufficient};
use super::framework::Rejection;
use super::profile::Plugin;
use super::resources::ResourceId;
use super::shape::{HostPort, Shape};

/// Checks whether one shape would fit one node.
#[derive(Clone, Debug)]
pub struct Trial {
    shape: Rc<Shape>,
    slot: Slot,
    /// How much more would be free of `pods` (the first) and of each resource that the shape requests.
    more: Vec<(ResourceId, i64)>,
    /// The pods with host ports that were added (1) or removed (-1).
    ports: Vec<(Rc<Shape>, i64)>,
}

impl Trial {
    /// The node as it is.
    pub fn new(shape: &Rc<Shape>, slot: Slot) -> Trial {
        let asked = std::iter::once(ResourceId::PODS).chain(shape.requests.iter().map(|(r, _)| *r));
        Trial { shape: Rc::clone(shape), slot, more: asked.map(|r| (r, 0)).collect(), ports: Vec::new() }
    }

    /// Adds a pod of this shape.
    pub fn add(&mut self, pod: &Rc<Shape>) {
        self.change(pod, 1);
    }

    /// Removes a pod of this shape, which is on the node.
    pub fn remove(&mut self, pod: &Rc<Shape>) {
        self.change(pod, -1);
    }

    fn change(&mut self, pod: &Rc<Shape>, pods: i64) {
        for (resource, more) in &mut self.more {
            let each = if *resource == ResourceId::PODS { 1 } else { pod.request(*resource) };
            *more = more.wrapping_sub(pods.wrapping_mul(each));
        }
        if !pod.ports.is_empty() && !self.shape.ports.is_empty() {
            self.ports.push((Rc::clone(pod), pods));
        }
    }

    /// Why the shape would not fit beside the pods on the node; `None` if it would.
    pub fn rejection(&self, nodes: &Nodes) -> Option<Rejection> {
        let filters = self.shape.rules.filters;
        if filters.has(Plugin::NodePorts) && self.shape.ports.iter().any(|wanted| self.is_taken(nodes, wanted)) {
            return Some(Rejection::resolvable("NodePorts", PORTS_TAKEN));
        }
        if !filters.has(Plugin::NodeResourcesFit) {
            return None;
        }
        let free = |r: ResourceId| nodes.allocatable(r, self.slot).wrapping_sub(nodes.requested(r, self.slot));
        let more = |r: ResourceId| self.more.iter().find(|(resource, _)| *resource == r).map_or(0, |(_, more)| *more);
        insufficient(&self.shape, nodes, self.slot, |r| free(r).wrapping_add(more(r)))
    }

    fn is_taken(&self, nodes: &Nodes, wanted: &HostPort) -> bool {
        let held = |port: &HostPort| -> i64 {
            let all = self.ports.iter().flat_map(|(pod, pods)| pod.ports.iter().map(move |p| (p, *pods)));
            all.filter(|(p, _)| *p == port).map(|(_, pods)| pods).sum()
        };
        let mut there = nodes.ports(self.slot).filter(|(p, _)| p.conflicts(wanted));
        let mut came = self.ports.iter().flat_map(|(pod, _)| &pod.ports).filter(|p| p.conflicts(wanted));
        there.any(|(port, pods)| i64::from(pods) + held(port) > 0) || came.any(|port| held(port) > 0)
    }
}
