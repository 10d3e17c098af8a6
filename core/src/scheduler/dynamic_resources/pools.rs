//! The devices that drivers publish in ResourceSlices, by the pools that these make up.
//!
//! Left out are devices that share counters with others, that count for some nodes of their slice only, or that wait
//! for conditions before they are bound: as with Kubernetes' feature gates for them off, they are not allocated.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use k8s_openapi::api::core::v1::NodeSelector;
use k8s_openapi::api::resource::v1::{Device, DeviceAttribute, DeviceTaint, ResourceSlice, ResourceSliceSpec};
use serde::Deserialize;

use crate::object::ObjectMeta;
use crate::object::device_selector::SelectableDevice;
use crate::resource_claim::DeviceId;
use crate::scheduler::shape::Term;

/// Driver and name of a pool.
pub(super) type PoolId = (String, String);

/// From which nodes the devices of a slice can be used.
#[derive(Debug)]
pub(super) enum Place {
    Node(String),
    Nodes(NodeSelector, Vec<Term>),
    Everywhere,
    /// In a way that is not known here.
    Unknown,
}

impl Place {
    fn new(spec: &ResourceSliceSpec) -> Place {
        match (&spec.node_name, spec.all_nodes, &spec.node_selector) {
            (Some(node), ..) if !node.is_empty() => Place::Node(node.clone()),
            (_, Some(true), _) => Place::Everywhere,
            (.., Some(selector)) => {
                Place::Nodes(selector.clone(), selector.node_selector_terms.iter().map(Term::new).collect())
            }
            _ => Place::Unknown,
        }
    }

    fn reaches(&self, node: &ObjectMeta) -> bool {
        match self {
            Place::Node(name) => node.name.as_ref() == Some(name),
            Place::Nodes(_, terms) => terms.iter().any(|term| term.matches(node)),
            Place::Everywhere => true,
            Place::Unknown => false,
        }
    }
}

/// A device of a slice.
#[derive(Debug)]
pub(super) struct PoolDevice {
    pub(super) id: DeviceId,
    pub(super) taints: Vec<DeviceTaint>,
    /// Whether it may be allocated at all.
    pub(super) usable: bool,
    pub(super) selectable: SelectableDevice,
    attributes: BTreeMap<String, DeviceAttribute>,
    /// Whether expressions select it, by their numbers: a device does not change.
    pub(super) selected: RefCell<BTreeMap<u64, Result<bool, Rc<str>>>>,
}

impl PoolDevice {
    fn new(driver: &str, pool: &str, device: Device) -> PoolDevice {
        let has = |list: &Option<Vec<String>>| list.as_ref().is_some_and(|list| !list.is_empty());
        let usable = !has(&device.binding_conditions) && device.consumes_counters.as_ref().is_none_or(Vec::is_empty);
        let id = DeviceId { driver: driver.to_owned(), pool: pool.to_owned(), device: device.name.clone() };
        PoolDevice {
            id,
            usable,
            selectable: SelectableDevice::new(driver, &device),
            taints: device.taints.unwrap_or_default(),
            attributes: device.attributes.unwrap_or_default(),
            selected: RefCell::default(),
        }
    }

    /// The value of a fully qualified attribute (`lookupAttribute`).
    pub(super) fn attribute(&self, name: &str) -> Option<&DeviceAttribute> {
        let own = || name.split_once('/').filter(|(domain, _)| *domain == self.id.driver).map(|(_, id)| id);
        self.attributes.get(name).or_else(|| self.attributes.get(own()?))
    }
}

/// A ResourceSlice.
#[derive(Debug)]
pub(super) struct Slice {
    pub(super) place: Place,
    pub(super) devices: Vec<Rc<PoolDevice>>,
    pool: PoolId,
    generation: i64,
    /// Of how many slices its pool is made.
    count: i64,
}

/// The newest slices of a pool.
#[derive(Debug)]
pub(super) struct Pool {
    id: PoolId,
    slices: Vec<Rc<Slice>>,
    /// Whether some slices of it are not there yet.
    pub(super) is_incomplete: bool,
    /// Whether two of its devices have the same name.
    pub(super) is_invalid: bool,
}

impl Pool {
    fn new(id: PoolId, all: &[Rc<Slice>]) -> Pool {
        let newest = all.iter().map(|slice| slice.generation).max().unwrap_or_default();
        let slices: Vec<Rc<Slice>> = all.iter().filter(|slice| slice.generation == newest).cloned().collect();
        let mut names = BTreeSet::new();
        let mut devices = slices.iter().flat_map(|slice| &slice.devices);
        let is_invalid = !devices.all(|device| names.insert(device.id.device.as_str()));
        let is_incomplete = slices.first().is_some_and(|first| first.count != slices.len() as i64);
        Pool { is_incomplete, is_invalid, id, slices }
    }
}

/// A pool, as a node can use it.
#[derive(Debug)]
pub(super) struct PoolAt {
    pub(super) pool: Rc<Pool>,
    /// Its slices whose devices can be used from the node.
    pub(super) slices: Vec<Rc<Slice>>,
}

impl PoolAt {
    /// Its name in messages.
    pub(super) fn name(&self) -> String {
        format!("{}/{}", self.pool.id.0, self.pool.id.1)
    }
}

/// All slices and pools.
#[derive(Debug, Default)]
pub(super) struct Pools {
    slices: BTreeMap<String, Rc<Slice>>,
    pools: BTreeMap<PoolId, Rc<Pool>>,
    /// The pools with slices for one node, by node.
    local: BTreeMap<String, BTreeSet<PoolId>>,
    /// The pools with slices for several nodes.
    wide: BTreeSet<PoolId>,
}

impl Pools {
    /// A slice is there or has changed; `None` if it is gone.
    pub(super) fn changed(&mut self, name: &str, slice: Option<&serde_json::Value>) {
        let new = slice.and_then(|value| ResourceSlice::deserialize(value).ok()).map(|slice| read(slice.spec));
        let old = match new {
            Some(new) => self.slices.insert(name.to_owned(), Rc::new(new)),
            None => self.slices.remove(name),
        };
        let pools = old.iter().chain(self.slices.get(name)).map(|slice| slice.pool.clone());
        pools.collect::<BTreeSet<_>>().into_iter().for_each(|pool| self.gather(pool));
    }

    fn gather(&mut self, id: PoolId) {
        if let Some(old) = self.pools.remove(&id) {
            for slice in &old.slices {
                if let Place::Node(node) = &slice.place
                    && let Some(of_node) = self.local.get_mut(node)
                {
                    of_node.remove(&id);
                    if of_node.is_empty() {
                        self.local.remove(node);
                    }
                }
            }
            self.wide.remove(&id);
        }
        let all: Vec<Rc<Slice>> = self.slices.values().filter(|slice| slice.pool == id).cloned().collect();
        if all.is_empty() {
            return;
        }
        let pool = Pool::new(id.clone(), &all);
        for slice in &pool.slices {
            match &slice.place {
                Place::Node(node) => self.local.entry(node.clone()).or_default().insert(id.clone()),
                Place::Nodes(..) | Place::Everywhere => self.wide.insert(id.clone()),
                Place::Unknown => false,
            };
        }
        self.pools.insert(id, Rc::new(pool));
    }

    /// The pools with devices that a node can use, in the order of their names (`GatherPools`).
    pub(super) fn of_node(&self, node: &ObjectMeta) -> Vec<PoolAt> {
        let local = self.local.get(node.name.as_deref().unwrap_or_default()).into_iter().flatten();
        let ids: BTreeSet<&PoolId> = local.chain(&self.wide).collect();
        let at = |id: &PoolId| {
            let pool = Rc::clone(&self.pools[id]);
            let slices: Vec<Rc<Slice>> = pool.slices.iter().filter(|s| s.place.reaches(node)).cloned().collect();
            (!slices.is_empty()).then_some(PoolAt { pool, slices })
        };
        ids.into_iter().filter_map(at).collect()
    }
}

fn read(spec: ResourceSliceSpec) -> Slice {
    let per_device = spec.per_device_node_selection == Some(true);
    let place = if per_device { Place::Unknown } else { Place::new(&spec) };
    let (driver, pool) = (spec.driver, spec.pool);
    let devices = spec.devices.unwrap_or_default().into_iter();
    Slice {
        place,
        devices: devices.map(|device| Rc::new(PoolDevice::new(&driver, &pool.name, device))).collect(),
        generation: pool.generation,
        count: pool.resource_slice_count,
        pool: (driver, pool.name),
    }
}
