//! Faults drawn by seed: a timeline of the same actions that a scenario may name by hand, so that a failing one can be
//! written down and cut short.

use std::collections::BTreeSet;
use std::time::Duration;

use skeg_core::Rng;

use crate::scenario::{Action, FaultLevel, NodeSet, Scenario};

/// What can happen; each class is drawn from a stream of its own, so that adding one moves no other.
const CLASSES: [&str; 19] = [
    "node",
    "disk",
    "zone",
    "agent",
    "api-server",
    "leader",
    "partition",
    "control-partition",
    "degrade",
    "connections",
    "clock",
    "compact",
    "lag",
    "stall",
    "runtime",
    "drift",
    "clog",
    "flap",
    "overload",
];

/// How often a class happens in ten minutes on a cluster under heavy faults: at least and at most.
fn rate(class: &str) -> (u64, u64) {
    match class {
        "node" => (1, 6),
        "agent" | "connections" => (1, 5),
        "zone" => (0, 2),
        _ => (0, 3),
    }
}

/// Draws the faults of a run.
pub fn draw(scenario: &Scenario, seed: u64) -> Vec<(Duration, Action)> {
    let divisor = match scenario.faults {
        FaultLevel::None => return Vec::new(),
        FaultLevel::Light => 4,
        FaultLevel::Heavy => 1,
    };
    let mut all = Vec::new();
    for class in CLASSES {
        let mut rng = Rng::stream(seed, &format!("fault {class}"), 0);
        let (least, most) = rate(class);
        let spans = (scenario.duration.as_secs() / 600).max(1);
        let mut count = rng.range(least * spans, most * spans + 1);
        if divisor > 1 {
            count = (0..count).filter(|_| rng.chance(1, divisor)).count() as u64;
        }
        for _ in 0..count {
            let at = rng.duration(Duration::from_secs(5), scenario.duration);
            one(class, scenario, at, &mut rng, &mut all);
        }
    }
    all.retain(|(at, _)| *at < scenario.duration);
    all.sort_by_key(|(at, _)| *at);
    all
}

fn seconds(rng: &mut Rng, lo: u64, hi: u64) -> Duration {
    Duration::from_millis(rng.range(lo * 1000, hi * 1000))
}

/// A few nodes by name, so that what goes down is what comes back.
fn some_nodes(scenario: &Scenario, rng: &mut Rng, most: u64) -> NodeSet {
    let pools = &scenario.cluster.pools;
    let names: Vec<String> = pools
        .iter()
        .flat_map(|p| (0..p.count).map(|i| p.names.get(i).cloned().unwrap_or_else(|| format!("{}-{i}", p.name))))
        .collect();
    let count = 1 + rng.below(most);
    let drawn: BTreeSet<String> = (0..count).filter_map(|_| rng.pick(&names).cloned()).collect();
    NodeSet::Names(drawn.into_iter().collect())
}

fn one(class: &str, scenario: &Scenario, at: Duration, rng: &mut Rng, all: &mut Vec<(Duration, Action)>) {
    let zone = |rng: &mut Rng| {
        let z = rng.below(scenario.cluster.zones.max(1) as u64) as u8;
        NodeSet::Zone(format!("zone-{}", char::from(b'a' + z.min(25))))
    };
    let heal_at = at + seconds(rng, 5, 120);
    let mut push = |at, action| all.push((at, action));
    match class {
        "node" | "disk" => {
            let nodes = some_nodes(scenario, rng, 3);
            push(at, Action::Kill { nodes: nodes.clone(), disk_lost: class == "disk" });
            push(at + seconds(rng, 5, 300), Action::Start { nodes });
        }
        "zone" => {
            let nodes = zone(rng);
            push(at, Action::Kill { nodes: nodes.clone(), disk_lost: false });
            push(at + seconds(rng, 20, 180), Action::Start { nodes });
        }
        "agent" => push(at, Action::RestartAgent { nodes: some_nodes(scenario, rng, 8) }),
        "api-server" => push(at, Action::RestartApiServer { index: None, down_for: seconds(rng, 1, 60) }),
        "leader" => push(at, Action::ChangeLeader { down_for: seconds(rng, 1, 60) }),
        "partition" => {
            let from = if rng.chance(1, 3) { zone(rng) } else { some_nodes(scenario, rng, 8) };
            push(at, Action::Partition { from, to: NodeSet::ControlPlane, one_way: rng.chance(1, 2) });
            push(heal_at, Action::Heal);
        }
        "control-partition" => {
            let one_way = rng.chance(1, 2);
            push(at, Action::Partition { from: NodeSet::ControlPlane, to: NodeSet::All, one_way });
            push(at + seconds(rng, 1, 50), Action::Heal);
        }
        "degrade" => {
            let nodes = if rng.chance(1, 3) { NodeSet::ControlPlane } else { some_nodes(scenario, rng, 10) };
            let extra_latency = seconds(rng, 0, 2);
            push(at, Action::Degrade { nodes, extra_latency, loss_percent: rng.below(40) });
            push(heal_at, Action::Heal);
        }
        "connections" => {
            let nodes = if rng.chance(1, 2) { NodeSet::ControlPlane } else { some_nodes(scenario, rng, 10) };
            push(at, Action::DropConnections { nodes });
        }
        "clock" => {
            let nodes = if rng.chance(1, 3) { NodeSet::ControlPlane } else { some_nodes(scenario, rng, 5) };
            let by_seconds = rng.range(1, 240) as i64 - 120;
            push(at, Action::ClockJump { nodes, by_seconds });
        }
        "compact" => push(at, Action::Compact),
        "lag" => {
            let index = rng.below(scenario.cluster.api_servers.max(1) as u64) as usize;
            push(at, Action::Lag { index, by: seconds(rng, 0, 20) });
            push(heal_at, Action::Lag { index, by: Duration::ZERO });
        }
        "stall" => push(at, Action::StallStore { for_: seconds(rng, 1, 20) }),
        "runtime" => {
            let nodes = if rng.chance(1, 4) { zone(rng) } else { some_nodes(scenario, rng, 10) };
            push(at, Action::RuntimeTrouble { nodes: nodes.clone(), one_in: rng.range(2, 10) });
            push(heal_at, Action::RuntimeTrouble { nodes, one_in: 0 });
        }
        "drift" => {
            let nodes = if rng.chance(1, 3) { NodeSet::ControlPlane } else { some_nodes(scenario, rng, 5) };
            // Far more than a real clock drifts, and within what an election allows for.
            let ppm = rng.below(100_000) as i64 - 50_000;
            push(at, Action::ClockDrift { nodes, ppm });
            push(heal_at, Action::Heal);
        }
        "clog" => {
            let nodes = if rng.chance(1, 3) { NodeSet::ControlPlane } else { some_nodes(scenario, rng, 10) };
            push(at, Action::Clog { nodes, for_: seconds(rng, 1, 45) });
        }
        "flap" => {
            let nodes = some_nodes(scenario, rng, 4);
            let one_way = rng.chance(1, 2);
            let mut when = at;
            for _ in 0..2 + rng.below(5) {
                let (from, to) = (nodes.clone(), NodeSet::ControlPlane);
                push(when, Action::Partition { from, to, one_way });
                when += seconds(rng, 1, 20);
                push(when, Action::Heal);
                when += seconds(rng, 1, 20);
            }
        }
        "overload" => {
            let index = rng.below(scenario.cluster.api_servers.max(1) as u64) as usize;
            push(at, Action::Overload { index, one_in: rng.range(1, 6) });
            push(heal_at, Action::Overload { index, one_in: 0 });
        }
        other => unreachable!("{other} is not in the table of classes"),
    }
}

#[cfg(test)]
mod tests {
    use super::draw;
    use crate::run::plain;
    use crate::scenario::FaultLevel;
    use std::time::Duration;

    #[test]
    fn the_seed_draws_and_the_level_thins() {
        let mut scenario = plain(50, 3);
        scenario.duration = Duration::from_secs(600);
        scenario.faults = FaultLevel::Heavy;
        let count = |s: &crate::scenario::Scenario| (0..20).map(|seed| draw(s, seed).len()).sum::<usize>();
        let heavy = count(&scenario);
        assert_eq!(format!("{:?}", draw(&scenario, 3)), format!("{:?}", draw(&scenario, 3)));
        scenario.faults = FaultLevel::Light;
        let light = count(&scenario);
        scenario.faults = FaultLevel::None;
        assert_eq!(count(&scenario), 0);
        assert!(light > 0 && light < heavy, "{light} of {heavy}");
    }
}
