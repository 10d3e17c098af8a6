//! Faults: what goes wrong in a cluster, by hand in a scenario's timeline or drawn by the seed.
//!
//! A fault is a type of its own in the file of its family, where all that it is stands side by side: how it is written
//! in a scenario ([`FaultKind::read`]), what it is about, its words, what it does to the world, and how that is undone.
//! The classes by which the seed draws it stand below it. Each heals what it did itself, and nothing that another has
//! done: whatever is changed in the world is kept under the [`FaultId`] of who changed it ([`Layered`]).

mod api_server;
mod clock;
mod control;
mod draw;
mod layered;
mod network;
mod node;
mod runtime;
mod skew;
mod store;

use std::time::Duration;

pub use api_server::{Lag, Overload, RestartApiServer};
pub use clock::{ClockDrift, ClockJump};
pub use control::{ChangeLeader, Heal};
pub use draw::{draw, draw_some};
pub(crate) use layered::Layered;
pub use network::{Clog, Degrade, DropConnections, Partition};
pub use node::{Kill, RestartAgent, Start};
pub use runtime::{CrashPods, RuntimeTrouble};
pub use skew::Skew;
pub use store::{Compact, StallStore};

use crate::files::action::optional;
use crate::files::fields::Fields;
use crate::scenario::NodeSet;
use crate::world::World;

/// Names a fault of a run: the number of its step in the timeline.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct FaultId(pub u32);

/// What a fault is about, for checking a file.
pub(crate) enum Target<'a> {
    /// These nodes.
    Nodes(&'a NodeSet),
    /// The API server of this number.
    ApiServer(usize),
}

/// What every fault must say of itself.
pub(crate) trait FaultKind {
    /// From the fields of its step in a scenario.
    fn read(f: &Fields<'_>) -> Option<Self>
    where
        Self: Sized;
    /// What must exist for it to happen.
    fn targets(&self) -> Vec<Target<'_>>;
    /// In words.
    fn describe(&self) -> String;
    /// How long until it heals by itself; none: it is over at once, ends by what it did, or waits for `heal`.
    fn lasts(&self) -> Option<Duration>;
    /// Does it.
    fn strike(&self, world: &mut World, id: FaultId);
    /// Undoes what it did, and nothing else.
    fn heal(&self, world: &mut World, id: FaultId);
}

macro_rules! faults {
    ($($variant:ident $name:literal)*) => {
        /// What goes wrong.
        #[derive(Clone, Debug, PartialEq)]
        #[allow(missing_docs)]
        pub enum Fault { $($variant($variant),)* }

        /// Their names in a scenario.
        pub const NAMES: &[&str] = &[$($name),*];

        $(impl From<$variant> for Fault {
            fn from(fault: $variant) -> Fault { Fault::$variant(fault) }
        })*

        impl Fault {
            /// From the fields of a step; none without a word if there is no fault of this name.
            pub(crate) fn read(name: &str, f: &Fields<'_>) -> Option<Fault> {
                match name { $($name => $variant::read(f).map(Fault::$variant),)* _ => None }
            }

            /// Its name in a scenario.
            pub fn name(&self) -> &'static str {
                match self { $(Fault::$variant(_) => $name,)* }
            }

            fn kind(&self) -> &dyn FaultKind {
                match self { $(Fault::$variant(fault) => fault,)* }
            }
        }
    };
}

faults! {
    Kill "kill"
    Start "start"
    RestartAgent "restartAgent"
    Partition "partition"
    Heal "heal"
    Degrade "degrade"
    ClockJump "clockJump"
    ClockDrift "clockDrift"
    Clog "clog"
    Overload "overload"
    RestartApiServer "restartApiServer"
    ChangeLeader "changeLeader"
    Compact "compact"
    Lag "lag"
    StallStore "stallStore"
    DropConnections "dropConnections"
    RuntimeTrouble "runtimeTrouble"
    CrashPods "crashPods"
    Skew "skew"
}

/// Those that only a scenario names, and no seed draws.
pub const BY_HAND: &[&str] = &["start", "heal", "crashPods"];

impl Fault {
    /// What it is about.
    pub(crate) fn targets(&self) -> Vec<Target<'_>> {
        self.kind().targets()
    }

    /// In words.
    pub fn describe(&self) -> String {
        let Some(lasts) = self.kind().lasts() else { return self.kind().describe() };
        format!("{}, for {lasts:?}", self.kind().describe())
    }

    /// How long until it heals by itself, if it does.
    pub(crate) fn lasts(&self) -> Option<Duration> {
        self.kind().lasts()
    }

    pub(crate) fn strike(&self, world: &mut World, id: FaultId) {
        self.kind().strike(world, id);
    }

    pub(crate) fn heal(&self, world: &mut World, id: FaultId) {
        self.kind().heal(world, id);
    }
}

/// The optional field `for`: how long it lasts.
fn lasting(f: &Fields<'_>) -> Option<Option<Duration>> {
    match f.get("for") {
        Some(field) => field.duration().map(Some),
        None => Some(None),
    }
}
