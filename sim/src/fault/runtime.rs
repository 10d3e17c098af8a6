//! Faults of container runtimes: calls fail or are slow, and containers crash.

use std::time::Duration;

use skeg_core::object::Selector;

use super::draw::Class;
use super::{FaultId, FaultKind, Target, lasting, optional};
use crate::files::action::node_set;
use crate::files::fields::Fields;
use crate::files::write;
use crate::scenario::NodeSet;
use crate::world::World;

/// A share of the calls of nodes' container runtimes fail or are slow.
#[derive(Clone, Debug, PartialEq)]
pub struct RuntimeTrouble {
    /// The nodes.
    pub nodes: NodeSet,
    /// One call in `one_in` is affected; zero ends every such fault on these nodes.
    pub one_in: u64,
    /// How long it lasts; `None`: until a `heal` step.
    pub for_: Option<Duration>,
}

impl FaultKind for RuntimeTrouble {
    fn read(f: &Fields<'_>) -> Option<RuntimeTrouble> {
        let one_in = f.require("oneIn").and_then(|n| n.integer(0, i64::MAX));
        let for_ = lasting(f);
        Some(RuntimeTrouble { nodes: node_set(f)?, one_in: one_in? as u64, for_: for_? })
    }

    fn write(&self) -> write::Fields {
        write::lasting(vec![write::nodes(&self.nodes), ("oneIn", self.one_in.into())], self.for_)
    }

    fn targets(&self) -> Vec<Target<'_>> {
        vec![Target::Nodes(&self.nodes)]
    }

    fn node_sets_mut(&mut self) -> Vec<&mut NodeSet> {
        vec![&mut self.nodes]
    }

    fn times_mut(&mut self) -> Vec<&mut Duration> {
        self.for_.iter_mut().collect()
    }

    fn describe(&self) -> String {
        match self.one_in {
            0 => format!("the container runtimes of {} work again", self.nodes),
            one_in => format!("the container runtimes of {} fail one time in {one_in}", self.nodes),
        }
    }

    fn lasts(&self) -> Option<Duration> {
        self.for_
    }

    fn disturbs_control(&self) -> Option<Duration> {
        None
    }

    fn strike(&self, world: &mut World, id: FaultId) {
        for n in world.node_set(&self.nodes) {
            world.nodes[n].change_trouble(|trouble| match self.one_in {
                0 => trouble.clear(),
                one_in => trouble.set(id, one_in),
            });
        }
    }

    fn heal(&self, world: &mut World, id: FaultId) {
        for node in world.nodes.iter_mut() {
            node.change_trouble(|trouble| _ = trouble.remove(id));
        }
    }
}

/// All containers of the pods that match crash.
#[derive(Clone, Debug, PartialEq)]
pub struct CrashPods {
    /// Namespace of the pods.
    pub namespace: String,
    /// Label selector of the pods.
    pub selector: Selector,
}

impl FaultKind for CrashPods {
    fn read(f: &Fields<'_>) -> Option<CrashPods> {
        let namespace = optional(f, "namespace", "default".to_owned(), |n| n.name().map(str::to_owned));
        Some(CrashPods { namespace: namespace?, selector: f.require("selector").and_then(|s| s.selector())? })
    }

    fn write(&self) -> write::Fields {
        vec![("namespace", self.namespace.as_str().into()), ("selector", self.selector.to_string().into())]
    }

    fn describe(&self) -> String {
        format!("pods {} in {} crash", self.selector, self.namespace)
    }

    fn lasts(&self) -> Option<Duration> {
        None
    }

    fn disturbs_control(&self) -> Option<Duration> {
        None
    }

    fn strike(&self, world: &mut World, _id: FaultId) {
        world.crash_pods(&self.namespace, &self.selector);
    }

    /// Nothing to undo: the agents restart the containers.
    fn heal(&self, _world: &mut World, _id: FaultId) {}
}

pub(super) const CLASSES: &[Class] = &[Class {
    name: "runtime",
    rate: (0, 3),
    draw: |draw| {
        let (nodes, one_in) = (draw.zone_or_nodes(4, 10), draw.rng.range(2, 10));
        draw.push(draw.at, RuntimeTrouble { nodes, one_in, for_: draw.lasts });
    },
}];
