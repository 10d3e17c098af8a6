//! Names of resources as numbers, and their amounts in the units that the scheduler counts in.

use std::collections::BTreeMap;
use std::rc::Rc;

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use super::gpu::GPU_MILLI;
use crate::object::Nano;

/// A resource, as a number.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct ResourceId(pub u16);

impl ResourceId {
    /// `cpu`, in thousandths.
    pub const CPU: ResourceId = ResourceId(0);
    /// `memory`, in bytes.
    pub const MEMORY: ResourceId = ResourceId(1);
    /// `ephemeral-storage`, in bytes.
    pub const EPHEMERAL_STORAGE: ResourceId = ResourceId(2);
    /// `pods`, each pod one.
    pub const PODS: ResourceId = ResourceId(3);
    /// [`GPU_MILLI`], in thousandths of a GPU.
    pub const GPU_MILLI: ResourceId = ResourceId(4);

    /// Whether scores count it for pods, too, that request none of it; an extended resource only for those that do.
    pub fn is_native(self) -> bool {
        matches!(self, ResourceId::CPU | ResourceId::MEMORY | ResourceId::EPHEMERAL_STORAGE)
    }
}

/// The names of resources, each with its number.
#[derive(Debug)]
pub struct ResourceNames {
    names: Vec<Rc<str>>,
    ids: BTreeMap<Rc<str>, ResourceId>,
}

impl Default for ResourceNames {
    fn default() -> ResourceNames {
        let mut names = ResourceNames { names: Vec::new(), ids: BTreeMap::new() };
        for (name, id) in [
            ("cpu", ResourceId::CPU),
            ("memory", ResourceId::MEMORY),
            ("ephemeral-storage", ResourceId::EPHEMERAL_STORAGE),
            ("pods", ResourceId::PODS),
            (GPU_MILLI, ResourceId::GPU_MILLI),
        ] {
            assert_eq!(names.id(name), Some(id), "the well-known resources come first");
        }
        names
    }
}

impl ResourceNames {
    /// The number of a resource, which gets one if it has none. `None` if all numbers are taken.
    pub fn id(&mut self, name: &str) -> Option<ResourceId> {
        if let Some(id) = self.ids.get(name) {
            return Some(*id);
        }
        let id = ResourceId(u16::try_from(self.names.len()).ok()?);
        let name: Rc<str> = Rc::from(name);
        self.names.push(Rc::clone(&name));
        self.ids.insert(name, id);
        Some(id)
    }

    /// How many resources have a number. The numbers are `0..len`.
    pub fn len(&self) -> usize {
        self.names.len()
    }

    /// Never true, since the well-known resources always have a number.
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// The name of a resource.
    pub fn name(&self, id: ResourceId) -> &str {
        &self.names[usize::from(id.0)]
    }

    /// A quantity of a resource in the scheduler's unit: thousandths for CPU, whole units for everything else.
    pub fn amount(id: ResourceId, quantity: &Quantity) -> i64 {
        ResourceNames::rounded(id, Nano::of(quantity))
    }

    /// An exact amount of a resource in the scheduler's unit, rounded up. Negative amounts count as zero.
    pub fn rounded(id: ResourceId, exact: Nano) -> i64 {
        let parsed = exact.to_milli();
        let n = if id == ResourceId::CPU { parsed.milli() } else { parsed.value() };
        n.max(0)
    }
}
