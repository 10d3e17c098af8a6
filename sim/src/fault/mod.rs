//! Faults: what goes wrong in a cluster, either listed in a scenario's timeline or drawn from the seed.
//!
//! Each fault is a type in the file of its family. Its [`FaultKind`] implementation holds everything about it: how it
//! is read from a scenario, its targets, its description, how it changes the world, and how that is undone. The classes
//! that draw it from the seed follow at the end of the file. A fault undoes only its own changes, never those of
//! another fault; for that, the world keeps every change under the [`FaultId`] of the fault that made it ([`Layered`]).

mod api_server;
mod clock;
mod control;
mod draw;
mod extender;
mod freeze;
mod layered;
mod moment;
mod network;
mod node;
mod replies;
mod runtime;
mod skew;
mod store;

use std::time::Duration;

use draw::Class;
pub use draw::{draw, draw_some};
pub(crate) use layered::Layered;

use crate::files::action::optional;
use crate::files::fields::Fields;
use crate::files::write;
use crate::scenario::NodeSet;
use crate::world::World;

/// Longer than any run: a year.
const UNTIL_HEALED: Duration = Duration::from_secs(31_536_000);

/// Identifies a fault within a run: the index of its step in the timeline.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct FaultId(pub u32);

/// Something that a fault refers to; a scenario file is checked for whether it exists.
pub(crate) enum Target<'a> {
    /// These nodes.
    Nodes(&'a NodeSet),
    /// The API server with this index.
    ApiServer(usize),
}

/// What every fault must implement.
pub(crate) trait FaultKind {
    /// Reads the fault from the fields of its step in a scenario. `None` if a field is invalid; the problem has been
    /// reported.
    fn read(f: &Fields<'_>) -> Option<Self>
    where
        Self: Sized;
    /// The fields from which [`read`](Self::read) reads the same fault.
    fn write(&self) -> write::Fields;
    /// What must exist in the cluster for the fault to be possible.
    fn targets(&self) -> Vec<Target<'_>> {
        Vec::new()
    }
    /// The sets of nodes among its [`targets`](Self::targets), in the same order.
    fn node_sets_mut(&mut self) -> Vec<&mut NodeSet> {
        Vec::new()
    }
    /// How long it lasts, and how late it makes things.
    fn times_mut(&mut self) -> Vec<&mut Duration> {
        Vec::new()
    }
    /// The description in reports.
    fn describe(&self) -> String;
    /// The time after which the fault is healed. `None` if it has no such time: it has no lasting effect, ends by
    /// itself, or lasts until a `heal` step.
    fn lasts(&self) -> Option<Duration>;
    /// How long it disturbs what the control plane hears and does; `None` if not at all.
    fn disturbs_control(&self) -> Option<Duration>;
    /// Makes the fault happen.
    fn strike(&self, world: &mut World, id: FaultId);
    /// Undoes what `strike` did under this id, and nothing else.
    fn heal(&self, world: &mut World, id: FaultId);
}

macro_rules! faults {
    ($($family:ident { $($variant:ident $name:literal)* })*) => {
        $(pub use $family::{$($variant),*};)*

        /// Something that goes wrong.
        #[derive(Clone, Debug, PartialEq)]
        #[allow(missing_docs)]
        pub enum Fault { $($($variant($variant),)*)* }

        /// The names of the faults in a scenario.
        pub const NAMES: &[&str] = &[$($($name),*),*];

        /// The classes that draw faults, by family.
        const FAMILIES: &[&[Class]] = &[$($family::CLASSES),*];

        $($(impl From<$variant> for Fault {
            fn from(fault: $variant) -> Fault { Fault::$variant(fault) }
        })*)*

        impl Fault {
            /// Reads a fault from the fields of a step. `None` without a reported problem if no fault has this name.
            pub(crate) fn read(name: &str, f: &Fields<'_>) -> Option<Fault> {
                match name { $($($name => $variant::read(f).map(Fault::$variant),)*)* _ => None }
            }

            /// Its name in a scenario.
            pub fn name(&self) -> &'static str {
                match self { $($(Fault::$variant(_) => $name,)*)* }
            }

            fn kind(&self) -> &dyn FaultKind {
                match self { $($(Fault::$variant(fault) => fault,)*)* }
            }

            /// How long it lasts, and how late it makes things.
            pub(crate) fn times_mut(&mut self) -> Vec<&mut Duration> {
                match self { $($(Fault::$variant(fault) => fault.times_mut(),)*)* }
            }

            /// The sets of nodes that it affects.
            pub(crate) fn node_sets_mut(&mut self) -> Vec<&mut NodeSet> {
                match self { $($(Fault::$variant(fault) => fault.node_sets_mut(),)*)* }
            }
        }
    };
}

// The order of the families enters what the seed draws: a new family comes last.
faults! {
    node { Kill "kill" Start "start" RestartAgent "restartAgent" }
    api_server { Overload "overload" RestartApiServer "restartApiServer" Lag "lag" }
    control { ChangeLeader "changeLeader" Heal "heal" }
    network { Partition "partition" Degrade "degrade" Clog "clog" DropConnections "dropConnections" }
    clock { ClockJump "clockJump" ClockDrift "clockDrift" }
    store { Compact "compact" StallStore "stallStore" }
    runtime { RuntimeTrouble "runtimeTrouble" CrashPods "crashPods" }
    skew { Skew "skew" }
    freeze { Freeze "freeze" }
    replies { LateReplies "lateReplies" }
    moment { Crash "crash" }
    extender { ExtenderTrouble "extenderTrouble" ExtenderRefusal "extenderRefusal" }
}

/// Faults that only a scenario can list; they are never drawn from the seed.
pub const BY_HAND: &[&str] = &["start", "heal", "crashPods", "extenderTrouble", "extenderRefusal"];

impl Fault {
    /// What must exist in the cluster for the fault to be possible.
    pub(crate) fn targets(&self) -> Vec<Target<'_>> {
        self.kind().targets()
    }

    /// The fields of its step in a scenario.
    pub(crate) fn write(&self) -> write::Fields {
        self.kind().write()
    }

    /// The description in reports, with the duration if there is one.
    pub fn describe(&self) -> String {
        let Some(lasts) = self.kind().lasts() else { return self.kind().describe() };
        format!("{}, for {lasts:?}", self.kind().describe())
    }

    /// The time after which the fault is healed; `None` if it has no such time.
    pub(crate) fn lasts(&self) -> Option<Duration> {
        self.kind().lasts()
    }

    /// How long it disturbs what the control plane hears and does; `None` if not at all.
    pub(crate) fn disturbs_control(&self) -> Option<Duration> {
        self.kind().disturbs_control()
    }

    pub(crate) fn strike(&self, world: &mut World, id: FaultId) {
        self.kind().strike(world, id);
    }

    pub(crate) fn heal(&self, world: &mut World, id: FaultId) {
        self.kind().heal(world, id);
    }
}

/// Reads the optional field `for`. The outer `None` means that the field is invalid, the inner one that it is absent.
fn lasting(f: &Fields<'_>) -> Option<Option<Duration>> {
    match f.get("for") {
        Some(field) => field.duration().map(Some),
        None => Some(None),
    }
}
