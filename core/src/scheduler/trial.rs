//! A node as it would be with more or fewer pods: used for nominated pods and for evictions.

use std::rc::Rc;

use super::cache::{Nodes, Slot};
use super::filters::{PORTS_TAKEN, insufficient, no_devices};
use super::framework::Rejection;
use super::gpu::{Ask, Devices, tightest};
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
    /// The devices of pods that were put back (1) or removed (-1), with what each requests.
    devices: Vec<(Devices, i64, i64)>,
    /// What added pods ask of GPUs.
    asks: Vec<Ask>,
}

impl Trial {
    /// The node as it is.
    pub fn new(shape: &Rc<Shape>, slot: Slot) -> Trial {
        let asked = std::iter::once(ResourceId::PODS).chain(shape.requests.iter().map(|(r, _)| *r));
        let more = asked.map(|r| (r, 0)).collect();
        let (ports, devices, asks) = (Vec::new(), Vec::new(), Vec::new());
        Trial { shape: Rc::clone(shape), slot, more, ports, devices, asks }
    }

    /// Adds a pod of this shape, which would get any devices.
    pub fn add(&mut self, pod: &Rc<Shape>) {
        self.change(pod, 1);
        if !matches!(pod.gpu, Ask::Nothing | Ask::Odd) {
            self.asks.push(pod.gpu);
        }
    }

    /// Removes a pod of this shape and with these devices, which is on the node.
    pub fn remove(&mut self, pod: &Rc<Shape>, devices: Devices) {
        self.change(pod, -1);
        self.devices.push((devices, pod.request(ResourceId::GPU_MILLI), -1));
    }

    /// Puts a pod back that was removed.
    pub fn put_back(&mut self, pod: &Rc<Shape>, devices: Devices) {
        self.change(pod, 1);
        self.devices.push((devices, pod.request(ResourceId::GPU_MILLI), 1));
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
        let free = |r: ResourceId| nodes.allocatable(r, self.slot).wrapping_sub(nodes.requested(r, self.slot));
        let more = |r: ResourceId| self.more.iter().find(|(resource, _)| *resource == r).map_or(0, |(_, more)| *more);
        let fits = || insufficient(&self.shape, nodes, self.slot, |r| free(r).wrapping_add(more(r)));
        let unfit = if filters.has(Plugin::NodeResourcesFit) { fits() } else { None };
        unfit.or_else(|| self.no_devices(nodes))
    }

    /// Why the node's GPUs do not have what the shape asks for, once the added pods have got theirs: which devices they
    /// will get is not known yet, so that these are the ones that fit most tightly.
    fn no_devices(&self, nodes: &Nodes) -> Option<Rejection> {
        if self.shape.gpu == Ask::Nothing {
            return None;
        }
        let mut gpus = nodes.gpus(self.slot).clone();
        self.devices.iter().for_each(|(devices, milli, sign)| gpus.count(*devices, *milli, *sign));
        let mut asks = self.asks.clone();
        asks.sort_unstable_by_key(|ask| std::cmp::Reverse(ask.milli()));
        for ask in asks {
            match tightest(ask, gpus.free()) {
                Some(devices) => gpus.count(devices, ask.milli(), 1),
                // As with other resources, pods that go first may ask for more than there is.
                None => return no_devices(ask, &gpus),
            }
        }
        no_devices(self.shape.gpu, &gpus)
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
