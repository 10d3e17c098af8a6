//! Shrinking: makes a small scenario of one that fails, such that it still fails in the same way. Steps of users and
//! faults, objects, nodes, API servers and replicas are taken away, then time: at the end, between steps, and of
//! faults. Whether something can go is found out by running the scenario without it: delta debugging (Zeller and Hildebrandt, "Simplifying and Isolating
//! Failure-Inducing Input", 2002) for lists, halving for numbers.

use std::time::Duration;

use skeg_core::object::{Kind, ObjectKey};

use crate::fault::Target;
use crate::scenario::{Action, NodeSet, Scenario, Step, UserAction};

/// Shrinks a scenario. `fails` tells whether a smaller one still fails in the same way; to end early, it returns
/// `false` from then on.
pub fn shrink(scenario: &Scenario, fails: &mut dyn FnMut(&Scenario) -> bool) -> Scenario {
    let mut least = scenario.clone();
    loop {
        let before = size(&least);
        steps(&mut least, fails);
        objects(&mut least, fails);
        nodes(&mut least, fails);
        cluster(&mut least, fails);
        images(&mut least, fails);
        time(&mut least, fails);
        gaps(&mut least, fails);
        lasting(&mut least, fails);
        if size(&least) == before {
            return least;
        }
    }
}

/// What is shorter is not shortened.
const SHORT: Duration = Duration::from_secs(2);

/// Steps, objects, nodes, images, virtual time and how long faults last; a round that does not reduce it is the last.
fn size(scenario: &Scenario) -> (usize, usize, usize, usize, Duration, Duration) {
    let objects = scenario.timeline.iter().map(|step| applied(&step.action).map_or(0, <[_]>::len)).sum();
    let nodes = scenario.cluster.pools.iter().map(|p| p.count).sum();
    let times = |step: &Step| match step.action.clone() {
        Action::Fault(mut fault) => fault.times_mut().into_iter().map(|time| *time).sum(),
        Action::User(_) => Duration::ZERO,
    };
    let lasting = scenario.timeline.iter().map(times).sum();
    let time = scenario.duration + scenario.settle;
    (scenario.timeline.len(), objects, nodes, scenario.images.len(), time, lasting)
}

fn applied(action: &Action) -> Option<&[skeg_core::Object]> {
    match action {
        Action::User(UserAction::Apply(objects)) => Some(objects),
        _ => None,
    }
}

/// Makes a change if the changed scenario still fails.
fn attempt(least: &mut Scenario, fails: &mut dyn FnMut(&Scenario) -> bool, change: impl FnOnce(&mut Scenario)) -> bool {
    let mut next = least.clone();
    change(&mut next);
    next.timeline.retain_mut(|step| is_possible(step, least, &next.cluster.pools, next.cluster.api_servers));
    let smaller = fails(&next);
    if smaller {
        *least = next;
    }
    smaller
}

/// Whether everything that a step refers to still exists. Nodes that do not are removed from its sets.
fn is_possible(step: &mut Step, before: &Scenario, pools: &[crate::scenario::NodePool], api_servers: usize) -> bool {
    // Only pools with numbered nodes are reduced.
    let gone = |name: &String| {
        before.cluster.pools.iter().zip(pools).any(|(had, has)| {
            (has.count..had.count).any(|i| had.names.is_empty() && *name == format!("{}-{i}", had.name))
        })
    };
    let prune = |set: &mut NodeSet| match set {
        NodeSet::Names(names) => {
            names.retain(|name| !gone(name));
            !names.is_empty()
        }
        NodeSet::Machine(name) => {
            name.strip_prefix("api-server-").is_none_or(|n| n.parse().is_ok_and(|n: usize| n < api_servers))
        }
        NodeSet::All
        | NodeSet::Zone(_)
        | NodeSet::Labels(_)
        | NodeSet::Random(_)
        | NodeSet::ControlPlane
        | NodeSet::Actor => true,
    };
    match &mut step.action {
        Action::User(
            UserAction::Cordon { nodes, .. } | UserAction::Taint { nodes, .. } | UserAction::Drain { nodes },
        ) => prune(nodes),
        Action::User(UserAction::Delete { key, .. }) if key.kind == Kind::NODE => !gone(&key.name().to_owned()),
        Action::User(_) => true,
        Action::Fault(fault) => {
            let whole = fault.targets().iter().all(|target| match target {
                Target::ApiServer(index) => *index < api_servers,
                Target::Nodes(_) => true,
            });
            whole && fault.node_sets_mut().into_iter().all(prune)
        }
    }
}

/// A small part of a list that still fails, found by taking away runs of items.
fn fewest<T: Clone>(all: &[T], mut fails: impl FnMut(&[T]) -> bool) -> Vec<T> {
    let mut left = all.to_vec();
    let mut run = left.len().div_ceil(2);
    while run > 0 {
        let (mut at, mut some) = (0, false);
        while at < left.len() {
            let mut without = left.clone();
            without.drain(at..(at + run).min(left.len()));
            if fails(&without) {
                (left, some) = (without, true);
            } else {
                at += run;
            }
        }
        // If a single item could be removed, others may have become unnecessary.
        run = if run == 1 && !some { 0 } else { (run / 2).max(1) };
    }
    left
}

/// Removes steps, except those that apply objects.
fn steps(least: &mut Scenario, fails: &mut dyn FnMut(&Scenario) -> bool) {
    let (kept, free): (Vec<Step>, Vec<Step>) =
        least.timeline.iter().cloned().partition(|step| applied(&step.action).is_some());
    let with = |some: &[Step]| {
        let mut next = least.clone();
        next.timeline = kept.iter().chain(some).cloned().collect();
        next.timeline.sort_by_key(|step| step.at);
        next
    };
    let left = fewest(&free, |some| fails(&with(some)));
    *least = with(&left);
}

/// Removes objects, and the steps that act on them.
fn objects(least: &mut Scenario, fails: &mut dyn FnMut(&Scenario) -> bool) {
    let all: Vec<ObjectKey> =
        least.timeline.iter().filter_map(|step| applied(&step.action)).flatten().map(skeg_core::Object::key).collect();
    let with = |some: &[ObjectKey]| {
        let gone = |key: &ObjectKey| all.contains(key) && !some.contains(key);
        let mut next = least.clone();
        next.timeline.retain_mut(|step| match &mut step.action {
            Action::User(UserAction::Apply(objects) | UserAction::Replace { objects, .. }) => {
                objects.retain(|object| !gone(&object.key()));
                !objects.is_empty()
            }
            Action::User(action) => action.target().is_none_or(|key| !gone(key)),
            Action::Fault(_) => true,
        });
        next
    };
    let left = fewest(&all, |some| fails(&with(some)));
    *least = with(&left);
}

/// Removes nodes, the last ones first.
fn nodes(least: &mut Scenario, fails: &mut dyn FnMut(&Scenario) -> bool) {
    for pool in 0..least.cluster.pools.len() {
        if !least.cluster.pools[pool].names.is_empty() {
            continue;
        }
        let mut cut = least.cluster.pools[pool].count / 2;
        while cut > 0 {
            let count = least.cluster.pools[pool].count;
            let fewer = count.saturating_sub(cut).max(1);
            if fewer == count || !attempt(least, fails, |next| next.cluster.pools[pool].count = fewer) {
                cut /= 2;
            }
        }
    }
}

/// Makes the cluster simpler.
fn cluster(least: &mut Scenario, fails: &mut dyn FnMut(&Scenario) -> bool) {
    let simpler: [fn(&mut Scenario); 7] = [
        |next| next.cluster.zones = 1,
        |next| next.cluster.api_servers = 1,
        |next| next.cluster.control_replicas = 1,
        |next| next.cluster.users = 1,
        |next| next.cluster.max_endpoints_per_slice = skeg_core::limits::MAX_ENDPOINTS_PER_SLICE,
        |next| next.cluster.proxies = false,
        |next| next.cluster.record_events = false,
    ];
    for change in simpler {
        let mut next = least.clone();
        change(&mut next);
        if format!("{:?}", next.cluster) != format!("{:?}", least.cluster) {
            attempt(least, fails, change);
        }
    }
}

/// Removes the profiles of images.
fn images(least: &mut Scenario, fails: &mut dyn FnMut(&Scenario) -> bool) {
    let all: Vec<String> = least.images.keys().cloned().collect();
    let with = |some: &[String]| {
        let mut next = least.clone();
        next.images.retain(|image, _| some.contains(image));
        next
    };
    let left = fewest(&all, |some| fails(&with(some)));
    *least = with(&left);
}

/// Ends the run earlier.
fn time(least: &mut Scenario, fails: &mut dyn FnMut(&Scenario) -> bool) {
    let last = least.timeline.iter().map(|step| step.at).max().unwrap_or_default();
    let second = Duration::from_secs(1);
    for end in [last + second, last + 30 * second, least.duration / 2] {
        // A scenario lasts.
        let end = end.max(second);
        if end >= last && end < least.duration && attempt(least, fails, |next| next.duration = end) {
            break;
        }
    }
    for settle in [120 * second, 400 * second] {
        if settle < least.settle && attempt(least, fails, |next| next.settle = settle) {
            break;
        }
    }
}

/// Lets steps come sooner after those before them, and the end sooner after the last one.
fn gaps(least: &mut Scenario, fails: &mut dyn FnMut(&Scenario) -> bool) {
    for i in 0..least.timeline.len() {
        let at = |scenario: &Scenario, i: usize| scenario.timeline[i].at;
        let before = if i == 0 { Duration::ZERO } else { at(least, i - 1) };
        let gap = at(least, i) - before;
        for part in [16, 4, 2] {
            let sooner = gap - gap / part;
            let shift = |next: &mut Scenario| {
                next.timeline[i..].iter_mut().for_each(|step| step.at -= sooner);
                next.duration = next.duration.saturating_sub(sooner).max(Duration::from_secs(1));
            };
            if sooner >= SHORT && attempt(least, fails, shift) {
                break;
            }
        }
    }
}

/// Shortens faults, and how late they make things.
fn lasting(least: &mut Scenario, fails: &mut dyn FnMut(&Scenario) -> bool) {
    for i in 0..least.timeline.len() {
        let Action::Fault(fault) = &mut least.timeline[i].action else { continue };
        for which in 0..fault.times_mut().len() {
            for part in [8, 2] {
                let shorter = |next: &mut Scenario| {
                    let Action::Fault(fault) = &mut next.timeline[i].action else { return };
                    let mut times = fault.times_mut();
                    *times[which] /= part;
                };
                let Action::Fault(fault) = &mut least.timeline[i].action else { break };
                if *fault.times_mut()[which] >= SHORT && attempt(least, fails, shorter) {
                    break;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{fewest, shrink};
    use crate::explore;
    use crate::scenario::{Action, UserAction};

    #[test]
    fn what_is_not_needed_is_taken_away() {
        let all: Vec<u32> = (0..50).collect();
        let check = |needed: &[u32]| {
            let left = fewest(&all, |some| needed.iter().all(|n| some.contains(n)));
            assert_eq!(left, needed);
        };
        check(&[]);
        check(&[7]);
        check(&[0, 24, 25, 49]);
    }

    #[test]
    fn the_least_scenario_of_all_can_be_read_again() {
        let least = shrink(&explore::draw(1), &mut |_| true);
        assert!(least.timeline.is_empty() && least.images.is_empty() && !least.duration.is_zero(), "{least:?}");
    }

    /// Every scenario with a drain "fails" here, so one drain is left.
    #[test]
    fn the_failing_step_is_left() {
        let drains = |s: &crate::scenario::Scenario| {
            s.timeline.iter().any(|step| matches!(step.action, Action::User(UserAction::Drain { .. })))
        };
        let drawn = (0..).map(explore::draw).find(drains).expect("some seed drains");
        let least = shrink(&drawn, &mut |s| drains(s) && !s.timeline.is_empty());
        assert_eq!(
            least.timeline.iter().filter(|s| !matches!(s.action, Action::User(UserAction::Apply(_)))).count(),
            1
        );
        assert!(least.duration < drawn.duration + Duration::from_secs(1), "{:?}", least.duration);
        assert_eq!((least.cluster.api_servers, least.cluster.zones), (1, 1));
    }
}
