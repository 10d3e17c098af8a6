//! Faults of the scheduler's extenders: they fail, are silent, or refuse nodes.

use std::time::Duration;

use super::draw::Class;
use super::{FaultId, FaultKind, Target, UNTIL_HEALED, lasting, optional};
use crate::extender::Trouble;
use crate::files::action::node_set;
use crate::files::fields::Fields;
use crate::files::write;
use crate::scenario::NodeSet;
use crate::world::World;

/// All extenders fail, or do not answer.
#[derive(Clone, Debug, PartialEq)]
pub struct ExtenderTrouble {
    /// Whether they do not answer; otherwise they answer with an error.
    pub silent: bool,
    /// How long it lasts; `None`: until a `heal` step.
    pub for_: Option<Duration>,
}

impl FaultKind for ExtenderTrouble {
    fn read(f: &Fields<'_>) -> Option<ExtenderTrouble> {
        let silent = optional(f, "silent", false, |silent| silent.boolean());
        Some(ExtenderTrouble { silent: silent?, for_: lasting(f)? })
    }

    fn write(&self) -> write::Fields {
        write::lasting(vec![("silent", self.silent.into())], self.for_)
    }

    fn times_mut(&mut self) -> Vec<&mut Duration> {
        self.for_.iter_mut().collect()
    }

    fn describe(&self) -> String {
        if self.silent { "extenders do not answer" } else { "extenders fail" }.to_owned()
    }

    fn lasts(&self) -> Option<Duration> {
        self.for_
    }

    fn disturbs_control(&self) -> Option<Duration> {
        Some(self.for_.unwrap_or(UNTIL_HEALED))
    }

    fn strike(&self, world: &mut World, id: FaultId) {
        world.extenders.strike(id, if self.silent { Trouble::Silent } else { Trouble::Fails });
    }

    fn heal(&self, world: &mut World, id: FaultId) {
        world.extenders.heal(id);
    }
}

/// All extenders refuse nodes.
#[derive(Clone, Debug, PartialEq)]
pub struct ExtenderRefusal {
    /// The nodes.
    pub nodes: NodeSet,
    /// How long it lasts; `None`: until a `heal` step.
    pub for_: Option<Duration>,
}

impl FaultKind for ExtenderRefusal {
    fn read(f: &Fields<'_>) -> Option<ExtenderRefusal> {
        let for_ = lasting(f);
        Some(ExtenderRefusal { nodes: node_set(f)?, for_: for_? })
    }

    fn write(&self) -> write::Fields {
        write::lasting(vec![write::nodes(&self.nodes)], self.for_)
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
        format!("extenders refuse {}", self.nodes)
    }

    fn lasts(&self) -> Option<Duration> {
        self.for_
    }

    fn disturbs_control(&self) -> Option<Duration> {
        Some(self.for_.unwrap_or(UNTIL_HEALED))
    }

    fn strike(&self, world: &mut World, id: FaultId) {
        let nodes = world.node_set(&self.nodes);
        let names = nodes.into_iter().map(|node| world.nodes[node].name.to_string()).collect();
        world.extenders.strike(id, Trouble::Refuses(names));
    }

    fn heal(&self, world: &mut World, id: FaultId) {
        world.extenders.heal(id);
    }
}

/// None: a cluster that is drawn has no extenders.
pub(super) const CLASSES: &[Class] = &[];
