//! Zones: how disrupted each is, and at which rate its nodes may be given NoExecute taints.
//!
//! A zone that loses most of its nodes at once is more likely disconnected than dead, so evictions slow down there. If
//! all zones are lost, the fault is more likely on the side of the control plane, and evictions stop.

use std::time::Duration;

use crate::limits;
use crate::machine::Mono;
use crate::object::{Node, REGION_LABEL, ZONE_LABEL};

/// How disrupted a zone is (`ZoneState`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum ZoneState {
    Normal,
    PartialDisruption,
    FullDisruption,
}

impl ZoneState {
    /// The state that follows from the numbers of ready and not-ready nodes (`ComputeZoneState`).
    pub(super) fn of(ready: usize, not_ready: usize) -> ZoneState {
        if ready == 0 && not_ready > 0 {
            ZoneState::FullDisruption
        } else if not_ready > 2 && not_ready * 100 >= (ready + not_ready) * limits::UNHEALTHY_ZONE_PERCENT {
            ZoneState::PartialDisruption
        } else {
            ZoneState::Normal
        }
    }

    /// Interval between two nodes of the zone that are given NoExecute taints; `None` means never.
    pub(super) fn interval(self, nodes: usize) -> Option<Duration> {
        match self {
            ZoneState::Normal | ZoneState::FullDisruption => Some(limits::EVICTION_INTERVAL),
            ZoneState::PartialDisruption => {
                (nodes > limits::LARGE_ZONE_NODES).then_some(limits::SECONDARY_EVICTION_INTERVAL)
            }
        }
    }
}

/// One zone in one region.
#[derive(Debug)]
pub(super) struct Zone {
    name: String,
    /// Number of ready nodes, as last examined.
    pub(super) ready: usize,
    /// Number of nodes that are not ready.
    pub(super) not_ready: usize,
    /// State at the last check.
    pub(super) state: ZoneState,
    last_grant: Option<Mono>,
}

impl Zone {
    /// Permits tainting one node if the interval has passed; returns whether it did.
    pub(super) fn grant(&mut self, now: Mono) -> bool {
        let Some(interval) = self.state.interval(self.ready + self.not_ready) else { return false };
        let due = self.last_grant.is_none_or(|last| now.since(last) >= interval);
        if due {
            self.last_grant = Some(now);
        }
        due
    }
}

/// All zones that have been seen on nodes.
#[derive(Debug, Default)]
pub(super) struct Zones {
    zones: Vec<Zone>,
}

impl Zones {
    /// Index of a node's zone.
    pub(super) fn number(&mut self, node: &Node) -> usize {
        let label = |key: &str| node.meta.labels.as_ref().and_then(|l| l.get(key)).map_or("", String::as_str);
        let name = match (label(REGION_LABEL), label(ZONE_LABEL)) {
            ("", "") => String::new(),
            (region, zone) => format!("{region}:\0:{zone}"),
        };
        self.zones.iter().position(|z| z.name == name).unwrap_or_else(|| {
            let zone = Zone { name, ready: 0, not_ready: 0, state: ZoneState::Normal, last_grant: None };
            self.zones.push(zone);
            self.zones.len() - 1
        })
    }

    /// One zone.
    pub(super) fn get_mut(&mut self, number: usize) -> &mut Zone {
        &mut self.zones[number]
    }

    /// Counts a node in its zone.
    pub(super) fn count(&mut self, number: usize, ready: bool) {
        let zone = &mut self.zones[number];
        if ready { zone.ready += 1 } else { zone.not_ready += 1 }
    }

    /// Removes a node from the count of its zone; `ready` must be what it was counted as.
    pub(super) fn discount(&mut self, number: usize, ready: bool) {
        let zone = &mut self.zones[number];
        if ready { zone.ready -= 1 } else { zone.not_ready -= 1 }
    }

    /// Whether there is no node that is not ready.
    pub(super) fn all_ready(&self) -> bool {
        self.zones.iter().all(|z| z.not_ready == 0)
    }

    /// Sets each zone's state from its counts; returns whether all zones with nodes are fully disrupted.
    pub(super) fn judge(&mut self) -> bool {
        let mut inhabited = 0;
        let mut full = 0;
        for zone in self.zones.iter_mut().filter(|z| z.ready + z.not_ready > 0) {
            zone.state = ZoneState::of(zone.ready, zone.not_ready);
            inhabited += 1;
            full += usize::from(zone.state == ZoneState::FullDisruption);
        }
        inhabited > 0 && inhabited == full
    }
}

#[cfg(test)]
mod tests {
    use super::ZoneState::{FullDisruption, Normal, PartialDisruption};
    use super::{Zone, ZoneState};
    use crate::machine::Mono;
    use std::time::Duration;

    #[test]
    fn states() {
        for (ready, not_ready, expect) in [
            (3, 0, Normal),
            (0, 0, Normal),
            (0, 1, FullDisruption),
            (1, 2, Normal),
            (2, 3, PartialDisruption),
            (5, 5, Normal),
            (45, 55, PartialDisruption),
            (46, 54, Normal),
        ] {
            assert_eq!(ZoneState::of(ready, not_ready), expect, "{ready}/{not_ready}");
        }
    }

    #[test]
    fn rates() {
        for (state, nodes, expect) in [
            (Normal, 3, Some(10)),
            (FullDisruption, 3, Some(10)),
            (PartialDisruption, 50, None),
            (PartialDisruption, 51, Some(100)),
        ] {
            assert_eq!(state.interval(nodes), expect.map(Duration::from_secs), "{state:?} {nodes}");
        }
        let mut zone = Zone { name: String::new(), ready: 1, not_ready: 1, state: Normal, last_grant: None };
        let grants: Vec<bool> = [0, 5, 10, 15, 40].map(|s| zone.grant(Mono(s * 1_000_000_000))).to_vec();
        assert_eq!(grants, [true, false, true, false, true]);
    }
}
