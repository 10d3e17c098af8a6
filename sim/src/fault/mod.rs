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
mod freeze;
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
pub use freeze::Freeze;
pub(crate) use layered::Layered;
pub use network::{Clog, Degrade, DropConnections, Partition};
pub use node::{Kill, RestartAgent, Start};
pub use runtime::{CrashPods, RuntimeTrouble};
pub use skew::Skew;
pub use store::{Compact, StallStore};

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
    fn targets(&self) -> Vec<Target<'_>>;
    /// The description in reports.
    fn describe(&self) -> String;
    /// The time after which the fault is healed. `None` if it has no such time: it has no lasting effect, ends by
    /// itself, or lasts until a `heal` step.
    fn lasts(&self) -> Option<Duration>;
    /// Makes the fault happen.
    fn strike(&self, world: &mut World, id: FaultId);
    /// Undoes what `strike` did under this id, and nothing else.
    fn heal(&self, world: &mut World, id: FaultId);
}

macro_rules! faults {
    ($($variant:ident $name:literal)*) => {
        /// Something that goes wrong.
        #[derive(Clone, Debug, PartialEq)]
        #[allow(missing_docs)]
        pub enum Fault { $($variant($variant),)* }

        /// The names of the faults in a scenario.
        pub const NAMES: &[&str] = &[$($name),*];

        $(impl From<$variant> for Fault {
            fn from(fault: $variant) -> Fault { Fault::$variant(fault) }
        })*

        impl Fault {
            /// Reads a fault from the fields of a step. `None` without a reported problem if no fault has this name.
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
    Freeze "freeze"
}

/// Faults that only a scenario can list; they are never drawn from the seed.
pub const BY_HAND: &[&str] = &["start", "heal", "crashPods"];

impl Fault {
    /// What must exist in the cluster for the fault to be possible.
    pub(crate) fn targets(&self) -> Vec<Target<'_>> {
        self.kind().targets()
    }

    /// The sets of nodes that it affects.
    pub(crate) fn node_sets_mut(&mut self) -> Vec<&mut NodeSet> {
        match self {
            Fault::Kill(Kill { nodes, .. })
            | Fault::Start(Start { nodes })
            | Fault::RestartAgent(RestartAgent { nodes })
            | Fault::Degrade(Degrade { nodes, .. })
            | Fault::ClockJump(ClockJump { nodes, .. })
            | Fault::ClockDrift(ClockDrift { nodes, .. })
            | Fault::Clog(Clog { nodes, .. })
            | Fault::DropConnections(DropConnections { nodes })
            | Fault::RuntimeTrouble(RuntimeTrouble { nodes, .. })
            | Fault::Skew(Skew { nodes, .. })
            | Fault::Freeze(Freeze { nodes, .. }) => vec![nodes],
            Fault::Partition(Partition { from, to, .. }) => vec![from, to],
            Fault::Heal(_)
            | Fault::Overload(_)
            | Fault::RestartApiServer(_)
            | Fault::ChangeLeader(_)
            | Fault::Compact(_)
            | Fault::Lag(_)
            | Fault::StallStore(_)
            | Fault::CrashPods(_) => Vec::new(),
        }
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
        match self {
            Fault::Kill(_)
            | Fault::Start(_)
            | Fault::RestartAgent(_)
            | Fault::Heal(_)
            | Fault::RuntimeTrouble(_)
            | Fault::CrashPods(_) => None,
            Fault::Compact(_) | Fault::DropConnections(_) => Some(Duration::ZERO),
            Fault::Clog(Clog { for_, .. }) | Fault::StallStore(StallStore { for_ }) => Some(*for_),
            Fault::RestartApiServer(RestartApiServer { down_for, .. })
            | Fault::ChangeLeader(ChangeLeader { down_for }) => Some(*down_for),
            Fault::Partition(_)
            | Fault::Degrade(_)
            | Fault::ClockJump(_)
            | Fault::ClockDrift(_)
            | Fault::Overload(_)
            | Fault::Lag(_)
            | Fault::Skew(_)
            | Fault::Freeze(_) => Some(self.lasts().unwrap_or(UNTIL_HEALED)),
        }
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
