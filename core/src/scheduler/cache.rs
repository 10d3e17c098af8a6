//! What the scheduler knows about nodes, as columns of numbers. Its inner loop reads nothing else.
//!
//! Each node has a slot. The slot of a deleted node stays while pods are counted on it, as kube-scheduler keeps a
//! `NodeInfo` without a node. All changes of slots are logged, so that the table of a pod shape looks only at the slots
//! that changed since it was last used.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;

use super::events::Events;
use super::gpu::{Devices, Gpus};
use super::images::Images;
use super::peers::ClassId;
use super::resources::{ResourceId, ResourceNames};
use super::scores::{Part, balance_without};
use super::shape::{HostPort, Shape, Taint};
use crate::limits;
use crate::object::{Meta, NameMap, Node, ObjectMeta, ReportedNodeStatus};

/// The index of a node in the columns.
pub type Slot = u32;

/// A pod that is nominated for a node, from which others are evicted for it (`status.nominatedNodeName`).
#[derive(Clone, Debug)]
pub struct Nominee {
    /// Its number in the scheduler.
    pub pod: u32,
    /// Its priority. Pods of the same or a lower priority do not take its room.
    pub priority: i32,
    /// Its shape.
    pub shape: Rc<Shape>,
    /// Its class.
    pub class: ClassId,
}

/// The host ports in use on a node, each with its number of pods.
type Ports = BTreeMap<HostPort, u32>;

/// All nodes, by slot.
#[derive(Debug, Default)]
pub struct Nodes {
    /// The names of resources.
    pub resources: ResourceNames,
    /// The images that the nodes hold.
    pub images: Images,
    index: NameMap<Slot>,
    vacant: BTreeSet<Slot>,
    count: usize,
    names: Vec<Rc<str>>,
    present: Vec<bool>,
    meta: Vec<Rc<Meta>>,
    statuses: Vec<ReportedNodeStatus>,
    unschedulable: Vec<bool>,
    taints: Vec<Rc<[Taint]>>,
    allocatable: Vec<Vec<i64>>,
    requested: Vec<Vec<i64>>,
    nonzero: [Vec<i64>; 2],
    /// How balanced CPU and memory are; -1 where a node lacks one of them.
    balance: Vec<i64>,
    ports: Vec<Ports>,
    gpus: Vec<Gpus>,
    /// By slot: counts changes of the node itself, as opposed to its pods.
    generation: Vec<u64>,
    /// Counts additions and deletions of nodes, and changes of their labels.
    layout: u64,
    /// Counts additions and deletions of nodes, and changes of their taints.
    taint_layout: u64,
    changed_at: Vec<u64>,
    nominees: BTreeMap<Slot, Vec<Nominee>>,
    log: VecDeque<Slot>,
    /// The number of the first change in the log.
    log_start: u64,
}

impl Nodes {
    /// How many nodes there are.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there are no nodes.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// How many slots there are, including vacant ones.
    pub fn slots(&self) -> Slot {
        self.names.len() as Slot
    }

    /// The slot of a node name; `None` if there is neither such a node nor a pod on it.
    pub fn slot(&self, name: &str) -> Option<Slot> {
        self.index.get(name).copied()
    }

    /// The name of the node at a slot.
    pub fn name(&self, slot: Slot) -> &Rc<str> {
        &self.names[slot as usize]
    }

    /// Whether the node itself exists.
    pub fn is_present(&self, slot: Slot) -> bool {
        self.present[slot as usize]
    }

    /// The node's metadata, for labels.
    pub fn meta(&self, slot: Slot) -> &ObjectMeta {
        &self.meta[slot as usize]
    }

    /// `spec.unschedulable`.
    pub fn is_unschedulable(&self, slot: Slot) -> bool {
        self.unschedulable[slot as usize]
    }

    /// The node's taints.
    pub fn taints(&self, slot: Slot) -> &[Taint] {
        &self.taints[slot as usize]
    }

    /// How much of a resource is allocatable to pods.
    pub fn allocatable(&self, resource: ResourceId, slot: Slot) -> i64 {
        self.allocatable.get(usize::from(resource.0)).map_or(0, |column| column[slot as usize])
    }

    /// Whether a node is there, and neither taints nor `spec.unschedulable` keep pods from it.
    pub fn is_quiet(&self, slot: Slot) -> bool {
        let slot = slot as usize;
        self.present[slot] && !self.unschedulable[slot] && self.taints[slot].is_empty()
    }

    /// How much of a resource is allocatable, by slot; `None` of one that nobody has named.
    pub fn allocatable_by_slot(&self, resource: ResourceId) -> Option<&[i64]> {
        self.allocatable.get(usize::from(resource.0)).map(Vec::as_slice)
    }

    /// How much of a resource the pods on each node request, by slot; `None` of one that nobody has named.
    pub fn requested_by_slot(&self, resource: ResourceId) -> Option<&[i64]> {
        self.requested.get(usize::from(resource.0)).map(Vec::as_slice)
    }

    /// How balanced CPU and memory of the nodes are, by slot; -1 where a node lacks one of them.
    pub fn balance_by_slot(&self) -> &[i64] {
        &self.balance
    }

    /// [`Self::nonzero_requested`] by slot.
    pub fn nonzero_by_slot(&self, which: usize) -> &[i64] {
        &self.nonzero[which]
    }

    /// How much of a resource the pods on the node request.
    pub fn requested(&self, resource: ResourceId, slot: Slot) -> i64 {
        self.requested.get(usize::from(resource.0)).map_or(0, |column| column[slot as usize])
    }

    /// How much CPU (0) or memory (1) the pods on the node request, with Kubernetes' defaults for missing requests.
    pub fn nonzero_requested(&self, which: usize, slot: Slot) -> i64 {
        self.nonzero[which][slot as usize]
    }

    /// Whether a host port is in use on the node.
    pub fn is_port_taken(&self, wanted: &HostPort, slot: Slot) -> bool {
        let ports = &self.ports[slot as usize];
        !ports.is_empty()
            && ports
                .range(wanted.any_address()..)
                .take_while(|(p, _)| p.same_socket(wanted))
                .any(|(p, _)| p.conflicts(wanted))
    }

    /// The node's GPUs.
    pub fn gpus(&self, slot: Slot) -> &Gpus {
        &self.gpus[slot as usize]
    }

    /// Counts changes of the node itself: its existence, labels and taints.
    pub fn generation(&self, slot: Slot) -> u64 {
        self.generation[slot as usize]
    }

    /// Counts additions and deletions of nodes, and changes of their labels.
    pub fn layout(&self) -> u64 {
        self.layout
    }

    /// Counts additions and deletions of nodes, and changes of their taints.
    pub fn taint_layout(&self) -> u64 {
        self.taint_layout
    }

    /// The host ports in use on the node, each with its number of pods.
    pub fn ports(&self, slot: Slot) -> impl Iterator<Item = (&HostPort, u32)> {
        self.ports[slot as usize].iter().map(|(port, pods)| (port, *pods))
    }

    /// The pods that are nominated for the node.
    pub fn nominees(&self, slot: Slot) -> &[Nominee] {
        if self.nominees.is_empty() { &[] } else { self.nominees.get(&slot).map_or(&[], Vec::as_slice) }
    }

    /// The slots that pods are nominated for, in order.
    pub fn nominated(&self) -> impl Iterator<Item = Slot> + use<'_> {
        self.nominees.keys().copied()
    }

    /// Nominates a pod for the node.
    pub fn nominate(&mut self, slot: Slot, nominee: Nominee) {
        self.nominees.entry(slot).or_default().push(nominee);
        self.touch(slot);
    }

    /// Ends the nomination of a pod for the node.
    pub fn withdraw(&mut self, slot: Slot, pod: u32) {
        let here = self.nominees.get_mut(&slot).expect("a pod is withdrawn from where it was nominated");
        here.retain(|n| n.pod != pod);
        if here.is_empty() {
            self.nominees.remove(&slot);
        }
        self.touch(slot);
        self.vacate(slot);
    }

    /// The number of the next change.
    pub fn now(&self) -> u64 {
        self.log_start + self.log.len() as u64
    }

    /// The number of the last change of a slot.
    pub fn changed_at(&self, slot: Slot) -> u64 {
        self.changed_at[slot as usize]
    }

    /// The slots of the changes from this number on, with repeats; `None` if the log no longer goes back that far.
    pub fn changes_since(&self, change: u64) -> Option<impl Iterator<Item = Slot> + use<'_>> {
        let skip = usize::try_from(change.checked_sub(self.log_start)?).ok()?;
        Some(self.log.range(skip.min(self.log.len())..).copied())
    }

    /// Adds or updates a node. Returns its slot, and what has changed.
    pub fn put(&mut self, node: &Node) -> (Slot, Events) {
        let slot = self.claim(node.name());
        let i = slot as usize;
        let mut events = Events::NONE;
        if !self.present[i] {
            self.present[i] = true;
            self.count += 1;
            events |= Events::NODE_ADD;
        }
        let unschedulable = node.spec.unschedulable == Some(true);
        let taints: Vec<Taint> = node.spec.taints.iter().flatten().map(Taint::new).collect();
        if self.unschedulable[i] != unschedulable || *self.taints[i] != *taints {
            self.unschedulable[i] = unschedulable;
            self.taints[i] = Rc::from(taints);
            events |= Events::NODE_UPDATE_TAINT;
        }
        if !Rc::ptr_eq(&self.meta[i], &node.meta) && self.meta[i].labels != node.meta.labels {
            events |= Events::NODE_UPDATE_LABEL;
        }
        self.meta[i] = Rc::clone(&node.meta);
        if !events.is_empty() {
            self.generation[i] += 1;
            self.layout += u64::from(events.intersects(Events::NODE_ADD.and(Events::NODE_UPDATE_LABEL)));
            self.taint_layout += u64::from(events.intersects(Events::NODE_ADD.and(Events::NODE_UPDATE_TAINT)));
        }
        if !self.statuses[i].same_apart_from_report(&node.status) {
            if self.statuses[i].images != node.status.images {
                self.images.put(slot, node.status.images.as_deref().unwrap_or_default());
            }
            self.statuses[i] = ReportedNodeStatus::clone(&node.status);
            if self.put_allocatable(i, node) {
                events |= Events::NODE_UPDATE_ALLOCATABLE;
            }
        }
        if !events.is_empty() {
            self.touch(slot);
        }
        (slot, events)
    }

    fn put_allocatable(&mut self, i: usize, node: &Node) -> bool {
        // As in Kubernetes, allocatable defaults to capacity.
        let said = node.status.allocatable.as_ref().or(node.status.capacity.as_ref());
        let mut amounts = Vec::new();
        for (name, quantity) in said.into_iter().flatten() {
            if let Some(id) = self.resources.id(name) {
                amounts.push((usize::from(id.0), ResourceNames::amount(id, quantity)));
            }
        }
        self.widen();
        let mut changed = false;
        for (r, column) in self.allocatable.iter_mut().enumerate() {
            let amount = amounts.iter().find(|(id, _)| *id == r).map_or(0, |(_, n)| *n);
            changed |= column[i] != amount;
            column[i] = amount;
        }
        self.gpus[i].resize(self.allocatable[usize::from(ResourceId::GPU_MILLI.0)][i]);
        changed
    }

    /// Removes a node. Its pods are still counted. Returns whether the node existed.
    pub fn remove(&mut self, name: &str) -> bool {
        let Some(slot) = self.slot(name).filter(|s| self.is_present(*s)) else { return false };
        let i = slot as usize;
        self.present[i] = false;
        self.count -= 1;
        self.generation[i] += 1;
        self.layout += 1;
        self.taint_layout += 1;
        self.unschedulable[i] = false;
        self.taints[i] = Rc::from([]);
        self.meta[i] = Rc::default();
        self.statuses[i] = ReportedNodeStatus::default();
        self.images.put(slot, &[]);
        for column in &mut self.allocatable {
            column[i] = 0;
        }
        self.gpus[i].resize(0);
        self.touch(slot);
        self.vacate(slot);
        true
    }

    /// Counts a pod of this shape, and with these devices, on the node with this name.
    pub fn add_pod(&mut self, name: &str, shape: &Shape, devices: Devices) -> Slot {
        let slot = self.claim(name);
        self.count_pod(slot, shape, 1);
        self.gpus[slot as usize].count(devices, shape.request(ResourceId::GPU_MILLI), 1);
        for port in &shape.ports {
            *self.ports[slot as usize].entry(port.clone()).or_insert(0) += 1;
        }
        slot
    }

    /// Stops counting a pod of this shape, and with these devices.
    pub fn remove_pod(&mut self, slot: Slot, shape: &Shape, devices: Devices) {
        self.count_pod(slot, shape, -1);
        self.gpus[slot as usize].count(devices, shape.request(ResourceId::GPU_MILLI), -1);
        for port in &shape.ports {
            let ports = &mut self.ports[slot as usize];
            let held = ports.get_mut(port).expect("a port that a counted pod holds is noted");
            *held -= 1;
            if *held == 0 {
                ports.remove(port);
            }
        }
        self.vacate(slot);
    }

    fn count_pod(&mut self, slot: Slot, shape: &Shape, sign: i64) {
        self.widen();
        let i = slot as usize;
        for (r, amount) in &shape.requests {
            // Sums beyond 2^63 wrap, as in kube-scheduler. Only absurd quantities reach that.
            let sum = &mut self.requested[usize::from(r.0)][i];
            *sum = sum.wrapping_add(sign.wrapping_mul(*amount));
        }
        let pods = &mut self.requested[usize::from(ResourceId::PODS.0)][i];
        *pods += sign;
        assert!(*pods >= 0, "no pod is taken off a node twice");
        for (column, amount) in self.nonzero.iter_mut().zip(shape.nonzero) {
            column[i] = column[i].wrapping_add(sign.wrapping_mul(amount));
        }
        self.touch(slot);
    }

    /// The slot of a node name, which gets one if it has none.
    fn claim(&mut self, name: &str) -> Slot {
        if let Some(slot) = self.slot(name) {
            return slot;
        }
        let name: Rc<str> = Rc::from(name);
        let slot = self.vacant.pop_first().unwrap_or(self.names.len() as Slot);
        if slot as usize == self.names.len() {
            self.names.push(Rc::clone(&name));
            self.present.push(false);
            self.meta.push(Rc::default());
            self.statuses.push(ReportedNodeStatus::default());
            self.unschedulable.push(false);
            self.taints.push(Rc::from([]));
            self.ports.push(Ports::new());
            self.gpus.push(Gpus::default());
            self.generation.push(0);
            self.changed_at.push(0);
            self.balance.push(-1);
            let columns = self.allocatable.iter_mut().chain(&mut self.requested).chain(&mut self.nonzero);
            columns.for_each(|column| column.push(0));
        } else {
            self.names[slot as usize] = Rc::clone(&name);
        }
        self.generation[slot as usize] += 1;
        self.index.insert(name, slot);
        self.touch(slot);
        slot
    }

    /// Frees a slot if neither its node exists nor any pod is counted on it.
    fn vacate(&mut self, slot: Slot) {
        let is_used = self.is_present(slot) || self.requested(ResourceId::PODS, slot) > 0;
        if !is_used && !self.nominees.contains_key(&slot) {
            self.index.remove(&self.names[slot as usize]);
            self.vacant.insert(slot);
        }
    }

    /// Adds columns for resources that are new.
    fn widen(&mut self) {
        let slots = self.names.len();
        while self.allocatable.len() < self.resources.len() {
            self.allocatable.push(vec![0; slots]);
            self.requested.push(vec![0; slots]);
        }
    }

    fn balance_now(&self, i: usize) -> i64 {
        let part = |resource: ResourceId| {
            let (capacity, used) =
                (self.allocatable.get(usize::from(resource.0))?, &self.requested[usize::from(resource.0)]);
            Some(Part { capacity: capacity[i], used: used[i], asked: 0 })
        };
        let parts = part(ResourceId::CPU).zip(part(ResourceId::MEMORY));
        parts.and_then(|(cpu, memory)| balance_without(&[cpu, memory])).unwrap_or(-1)
    }

    /// Records that a slot has changed.
    pub fn touch(&mut self, slot: Slot) {
        self.changed_at[slot as usize] = self.now();
        self.balance[slot as usize] = self.balance_now(slot as usize);
        self.log.push_back(slot);
        let most = limits::SCHEDULER_CHANGES.max(self.names.len()) * 2;
        if self.log.len() > most {
            let drop = most / 2;
            self.log.drain(..drop);
            self.log_start += drop as u64;
        }
    }
}
