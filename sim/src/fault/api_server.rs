//! Faults of API servers: they are overloaded, crash, or receive changes from the store late.

use std::time::Duration;

use super::draw::Class;
use super::{FaultId, FaultKind, Target, UNTIL_HEALED, lasting, optional};
use crate::files::fields::{Field, Fields};
use crate::files::write;
use crate::ids::ApiId;
use crate::world::World;

fn index(f: &Fields<'_>) -> Option<usize> {
    optional(f, "apiServer", 0, |i| i.count(0, 99))
}

/// The API server with this index in the scenario; an index beyond the last one wraps around.
fn nth(world: &World, index: usize) -> ApiId {
    let apis: Vec<ApiId> = world.apis.ids().collect();
    apis[index % apis.len()]
}

/// An API server rejects a share of requests with status 429 (Too Many Requests).
#[derive(Clone, Debug, PartialEq)]
pub struct Overload {
    /// Index of the API server.
    pub index: usize,
    /// One request in `one_in` is rejected; zero ends every such fault on this API server.
    pub one_in: u64,
    /// How long it lasts; `None`: until a `heal` step.
    pub for_: Option<Duration>,
}

impl FaultKind for Overload {
    fn read(f: &Fields<'_>) -> Option<Overload> {
        let one_in = f.require("oneIn").and_then(|n| n.integer(0, i64::MAX));
        let for_ = lasting(f);
        Some(Overload { index: index(f)?, one_in: one_in? as u64, for_: for_? })
    }

    fn write(&self) -> write::Fields {
        write::lasting(vec![("apiServer", self.index.into()), ("oneIn", self.one_in.into())], self.for_)
    }

    fn targets(&self) -> Vec<Target<'_>> {
        vec![Target::ApiServer(self.index)]
    }

    fn times_mut(&mut self) -> Vec<&mut Duration> {
        self.for_.iter_mut().collect()
    }

    fn describe(&self) -> String {
        match self.one_in {
            0 => format!("API server {} is overloaded no more", self.index),
            one_in => format!("API server {} turns away one request in {one_in}", self.index),
        }
    }

    fn lasts(&self) -> Option<Duration> {
        self.for_
    }

    fn disturbs_control(&self) -> Option<Duration> {
        Some(self.for_.unwrap_or(UNTIL_HEALED))
    }

    fn strike(&self, world: &mut World, id: FaultId) {
        let api = nth(world, self.index);
        let overload = &mut world.apis[api].overload;
        match self.one_in {
            0 => overload.clear(),
            one_in => overload.set(id, one_in),
        }
    }

    fn heal(&self, world: &mut World, id: FaultId) {
        world.apis.iter_mut().for_each(|api| _ = api.overload.remove(id));
    }
}

/// An API server crashes and starts again.
#[derive(Clone, Debug, PartialEq)]
pub struct RestartApiServer {
    /// Index of the API server; `None`: a random one.
    pub index: Option<usize>,
    /// How long it is down.
    pub down_for: Duration,
}

impl FaultKind for RestartApiServer {
    fn read(f: &Fields<'_>) -> Option<RestartApiServer> {
        let index = match f.get("apiServer") {
            Some(i) => Some(i.count(0, 99)?),
            None => None,
        };
        Some(RestartApiServer { index, down_for: optional(f, "downFor", Duration::from_secs(10), Field::duration)? })
    }

    fn write(&self) -> write::Fields {
        let mut fields = vec![("downFor", write::duration(self.down_for))];
        fields.extend(self.index.map(|index| ("apiServer", index.into())));
        fields
    }

    fn targets(&self) -> Vec<Target<'_>> {
        self.index.map(Target::ApiServer).into_iter().collect()
    }

    fn times_mut(&mut self) -> Vec<&mut Duration> {
        vec![&mut self.down_for]
    }

    fn describe(&self) -> String {
        match self.index {
            Some(i) => format!("API server {i} is down for {:?}", self.down_for),
            None => format!("an API server is down for {:?}", self.down_for),
        }
    }

    fn lasts(&self) -> Option<Duration> {
        None
    }

    fn disturbs_control(&self) -> Option<Duration> {
        Some(self.down_for)
    }

    fn strike(&self, world: &mut World, id: FaultId) {
        let count = world.apis.len();
        let index = self.index.unwrap_or_else(|| world.rng.below(count as u64) as usize);
        let api = nth(world, index);
        world.restart_after(world.apis[api].process, id, self.down_for);
    }

    fn heal(&self, world: &mut World, id: FaultId) {
        world.bring_back(id);
    }
}

/// Changes from the store reach an API server late.
#[derive(Clone, Debug, PartialEq)]
pub struct Lag {
    /// Index of the API server.
    pub index: usize,
    /// The delay; zero ends every such fault on this API server.
    pub by: Duration,
    /// How long it lasts; `None`: until a `heal` step.
    pub for_: Option<Duration>,
}

impl FaultKind for Lag {
    fn read(f: &Fields<'_>) -> Option<Lag> {
        let by = f.require("by").and_then(|b| b.duration());
        let for_ = lasting(f);
        Some(Lag { index: index(f)?, by: by?, for_: for_? })
    }

    fn write(&self) -> write::Fields {
        write::lasting(vec![("apiServer", self.index.into()), ("by", write::duration(self.by))], self.for_)
    }

    fn targets(&self) -> Vec<Target<'_>> {
        vec![Target::ApiServer(self.index)]
    }

    fn times_mut(&mut self) -> Vec<&mut Duration> {
        [&mut self.by].into_iter().chain(&mut self.for_).collect()
    }

    fn describe(&self) -> String {
        match self.by {
            Duration::ZERO => format!("API server {} lags no more", self.index),
            by => format!("API server {} lags by {by:?}", self.index),
        }
    }

    fn lasts(&self) -> Option<Duration> {
        self.for_
    }

    fn disturbs_control(&self) -> Option<Duration> {
        Some(self.for_.unwrap_or(UNTIL_HEALED))
    }

    fn strike(&self, world: &mut World, id: FaultId) {
        let api = nth(world, self.index);
        let lag = &mut world.apis[api].lag;
        match self.by {
            Duration::ZERO => lag.clear(),
            by => lag.set(id, by),
        }
    }

    fn heal(&self, world: &mut World, id: FaultId) {
        world.apis.iter_mut().for_each(|api| _ = api.lag.remove(id));
    }
}

pub(super) const CLASSES: &[Class] = &[
    Class {
        name: "api-server",
        rate: (0, 3),
        draw: |draw| {
            let down_for = draw.seconds(1, 60);
            draw.push(draw.at, RestartApiServer { index: None, down_for });
        },
    },
    Class {
        name: "lag",
        rate: (0, 3),
        draw: |draw| {
            let (index, by) = (draw.api_server(), draw.seconds(0, 20));
            draw.push(draw.at, Lag { index, by, for_: draw.lasts });
        },
    },
    Class {
        name: "overload",
        rate: (0, 3),
        draw: |draw| {
            let (index, one_in) = (draw.api_server(), draw.rng.range(1, 6));
            draw.push(draw.at, Overload { index, one_in, for_: draw.lasts });
        },
    },
];
