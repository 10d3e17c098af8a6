//! Exploration: draws complete scenarios from a seed. They are small and short, so that ten thousand of them can run in
//! the time of one large scenario. The cluster, latencies, workloads, user actions and faults are all drawn; the same
//! seed always gives the same scenario.
//!
//! Every drawn scenario can converge: the nodes have room for everything that is declared, disruption budgets allow an
//! eviction when all pods are healthy, and what users leave behind (a cordon, a pause) is undone at the end. So a run
//! that does not converge, or that violates an invariant, has found a bug in a machine or in the exploration itself.

mod coverage;
mod template;
mod users;
mod variety;
mod workload;

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::json;
use skeg_core::api::{Patch, Propagation};
use skeg_core::apiserver::DEFAULT_SERVICE_CIDR;
use skeg_core::limits::MAX_ENDPOINTS_PER_SLICE;
use skeg_core::object::{Milli, ObjectKey};
use skeg_core::{Kind, Object, Rng};

use crate::fault;
use crate::scenario::{Action, Cluster, FaultLevel, NodePool, Scenario, Scheduling, Step, UserAction};
use users::Scene;
use workload::Workload;

pub use coverage::Coverage;

/// The CPU request of every pod of an explored workload, in thousandths of a core. All pods request the same, so that
/// the capacity of a node can be given as a number of pods.
const SLOT: usize = 100;

/// When user actions and faults begin: by then everything declared has been created. A step that refers to an object
/// that does not exist yet would be rejected, and the run would be reported as not converged.
const BEGIN: Duration = Duration::from_secs(30);

/// Draws the scenario of a seed.
pub fn draw(seed: u64) -> Scenario {
    let rng = &mut stream(seed);
    let nodes = node_count(rng);
    let mut workloads = workload::draw(rng, nodes);
    let mut more = Vec::new();
    variety::vary(&mut Rng::stream(seed, "variety", 0), nodes, &mut workloads, &mut more);
    let duration = 3 * BEGIN + Duration::from_secs(rng.below(240));
    let mut scenario = Scenario {
        name: format!("explored-{seed}"),
        cluster: cluster(rng, nodes, &workloads),
        images: workload::images(rng),
        timeline: Vec::new(),
        loads: Vec::new(),
        expectations: Vec::new(),
        scheduling: Scheduling::default(),
        faults: level(rng),
        duration,
        settle: Duration::from_secs(1800),
        stop_when_converged: false,
    };
    let mut common = workload::common(rng, &workloads);
    common.extend(more);
    // Drawn apart, so that what else is drawn does not depend on it.
    let of_devices = &mut Rng::stream(seed, "devices", 0);
    if of_devices.chance(1, 6) {
        common.extend(workload::devices(of_devices, &node_names(&scenario.cluster), &mut workloads));
    }
    scenario.timeline.push(Step::at(Duration::ZERO, UserAction::Apply(common)));
    scenario.loads = workload::loads(rng, &workloads, duration);
    if rng.chance(1, 8) {
        fill(&mut scenario, rng);
    }
    happen(&mut scenario, rng, seed, &workloads);
    scenario
}

/// At most so many pods fill a cluster.
const MOST_FILLERS: usize = 80;

/// Fills the cluster, before anything else happens, with pods whose place all others may take, until the end.
fn fill(scenario: &mut Scenario, rng: &mut Rng) {
    let pods: usize = scenario.cluster.pools.iter().map(|pool| pool.count * slots(pool)).sum();
    let objects = workload::filler(pods.min(MOST_FILLERS)).to_vec();
    scenario.timeline.push(Step::at(rng.duration(Duration::ZERO, BEGIN / 2), UserAction::Apply(objects)));
    let key = ObjectKey::new(Kind::NAMESPACE, "", workload::FILLER);
    let delete = UserAction::Delete { key, cascade: Propagation::Background, grace_period: None };
    scenario.timeline.push(Step::at(scenario.duration, delete));
    // As long as the map is there, so is its namespace.
    let key = ObjectKey::new(Kind::CONFIG_MAP, workload::FILLER, workload::FILLER);
    let patch = Patch::Merge(json!({"metadata": {"finalizers": null}}));
    let later = scenario.duration + Duration::from_secs(30);
    scenario.timeline.push(Step::at(later, UserAction::Patch { key, patch }));
}

/// For how many pods of workloads a node of a pool has CPU.
fn slots(pool: &NodePool) -> usize {
    pool.capacity.get("cpu").and_then(|cpu| Milli::parse(cpu).ok()).map_or(0, |cpu| cpu.milli() as usize / SLOT)
}

/// Runs a given scenario (its nodes, images, objects and steps) with a control plane, latencies, user actions and
/// faults that are drawn from a seed. Its expectations are dropped, because they do not take the other users into
/// account.
pub fn around(given: &Scenario, seed: u64) -> Scenario {
    let rng = &mut stream(seed);
    let mut scenario = given.clone();
    let last = given.timeline.iter().map(|step| step.at).max().unwrap_or_default();
    scenario.duration = last + 3 * BEGIN + Duration::from_secs(rng.below(240));
    scenario.faults = level(rng);
    scenario.stop_when_converged = false;
    scenario.expectations.clear();
    let cluster = &mut scenario.cluster;
    (cluster.api_servers, cluster.control_replicas) = (1 + rng.below(4) as usize, 1 + rng.below(3) as usize);
    (cluster.latency, cluster.store_latency) = (link_latency(rng), store_latency(rng));
    let applied = given.timeline.iter().filter_map(|step| match &step.action {
        Action::User(UserAction::Apply(objects)) => Some(objects),
        _ => None,
    });
    // A scenario that has user actions of its own gets no drawn ones for its workloads.
    let alone = given.timeline.iter().all(|step| matches!(step.action, Action::User(UserAction::Apply(_))));
    let objects: Vec<&Object> = applied.flatten().filter(|_| alone).collect();
    let workloads: Vec<Workload> = objects.into_iter().filter_map(Workload::given).collect();
    happen(&mut scenario, rng, seed, &workloads);
    scenario
}

/// The random stream of everything but the faults.
fn stream(seed: u64) -> Rng {
    Rng::stream(seed, "explore", 0)
}

/// One run in five has no faults.
fn level(rng: &mut Rng) -> FaultLevel {
    if rng.chance(1, 5) { FaultLevel::None } else { FaultLevel::Listed }
}

/// Adds the user actions and the faults.
fn happen(scenario: &mut Scenario, rng: &mut Rng, seed: u64, workloads: &[Workload]) {
    let nodes = node_names(&scenario.cluster);
    let kinds = workloads.iter().flat_map(|workload| &workload.objects).map(Object::kind).collect();
    let swarm =
        if scenario.faults == FaultLevel::Listed { fault::draw_some(scenario, &kinds, seed) } else { Vec::new() };
    let swarm: Vec<Step> = swarm.into_iter().filter(|step| step.at >= BEGIN).collect();
    let faults: Vec<Duration> = swarm.iter().map(|step| step.at).collect();
    let (duration, has_spare_node) = (scenario.duration, has_spare_node(&scenario.cluster, workloads));
    let scene = Scene { workloads, nodes: &nodes, faults: &faults, has_spare_node, duration };
    scenario.timeline.extend(users::draw(rng, &scene));
    if scenario.faults == FaultLevel::Listed {
        scenario.timeline.extend(swarm);
        scenario.timeline.push(Step::at(scenario.duration, fault::Heal));
    }
    // A minute without faults, in which users undo what they left behind.
    scenario.duration += Duration::from_secs(60);
    scenario.timeline.sort_by_key(|step| step.at);
}

fn node_names(cluster: &Cluster) -> Vec<String> {
    let of_pool = |p: &NodePool| -> Vec<String> {
        (0..p.count).map(|i| p.names.get(i).cloned().unwrap_or_else(|| format!("{}-{i}", p.name))).collect()
    };
    cluster.pools.iter().flat_map(of_pool).collect()
}

/// Whether all drawn workloads have room on one node fewer.
fn has_spare_node(cluster: &Cluster, workloads: &[Workload]) -> bool {
    let [pool] = &cluster.pools[..] else { return false };
    let drawn = workloads.iter().all(|w| w.is_own && !w.is_placed());
    drawn && pool.count > 2 && (pool.count - 1) * slots(pool) >= workloads.iter().map(|w| w.most).sum()
}

/// Mostly a small number of nodes.
fn node_count(rng: &mut Rng) -> usize {
    let count = match rng.below(10) {
        0..=4 => 1 + rng.below(4),
        5..=8 => 3 + rng.below(10),
        _ => 10 + rng.below(40),
    };
    count as usize
}

/// Minimum and maximum latency; the minimum is one of `magnitudes`, in microseconds.
fn latency(rng: &mut Rng, magnitudes: &[u64]) -> (Duration, Duration) {
    let least = *rng.pick(magnitudes).expect("there are some");
    let spread = *rng.pick(&[1, 4, 10]).expect("there are some");
    (Duration::from_micros(least), Duration::from_micros(least * (1 + spread)))
}

fn link_latency(rng: &mut Rng) -> (Duration, Duration) {
    latency(rng, &[20, 200, 200, 2_000, 20_000])
}

fn store_latency(rng: &mut Rng) -> (Duration, Duration) {
    latency(rng, &[50, 1_000, 1_000, 10_000])
}

/// Draws a cluster. One time in three it is nearly full: it has room for no more than all workloads need at most. If
/// there is a DaemonSet, every node has room for all pods of all workloads, because no other pod is evicted to make
/// room for a DaemonSet's pod; so it has if pods may not run just anywhere.
fn cluster(rng: &mut Rng, nodes: usize, workloads: &[Workload]) -> Cluster {
    let most = workloads.iter().map(|w| w.most).sum::<usize>();
    let daemons = workloads.iter().filter(|w| w.is_daemon()).count();
    let placed = workloads.iter().any(Workload::is_placed);
    let slots = match (daemons, rng.chance(1, 3)) {
        (0, true) if !placed => most.div_ceil(nodes),
        (0, false) if !placed => 2 * most.div_ceil(nodes) + 4,
        // During an update there may be two on a node.
        (_, _) => most + 2 * daemons,
    };
    let cpu = Milli::parse(&format!("{}m", slots * SLOT)).expect("it is a quantity");
    let services = workloads.iter().flat_map(|w| &w.objects).filter(|o| o.kind() == Kind::SERVICE).count();
    let narrow = 32 - (2 * services as u32 + 8).next_power_of_two().ilog2() as u8;
    let capacity = [
        // As the reader of files writes it, so that a scenario that is written and read again gives the same run.
        ("cpu", cpu.to_decimal()),
        ("memory", "64Gi".into()),
        ("pods", "250".into()),
        ("ephemeral-storage", "100Gi".into()),
    ];
    let pool = NodePool {
        name: "node".to_owned(),
        count: nodes,
        names: Vec::new(),
        capacity: capacity.map(|(resource, amount)| (resource.to_owned(), amount)).into(),
        labels: BTreeMap::new(),
        taints: Vec::new(),
        zone: None,
        cordoned: false,
    };
    Cluster {
        pools: vec![pool],
        zones: 1 + rng.below(3) as usize,
        api_servers: 1 + rng.below(4) as usize,
        control_replicas: 1 + rng.below(3) as usize,
        proxies: rng.chance(1, 2),
        // Few addresses, so that API servers that allocate at the same time would collide.
        service_cidr: (DEFAULT_SERVICE_CIDR.0, if rng.chance(1, 2) { narrow } else { DEFAULT_SERVICE_CIDR.1 }),
        // Few endpoints in a slice, so that slices come and go.
        max_endpoints_per_slice: if rng.chance(1, 2) { 1 + rng.below(5) as usize } else { MAX_ENDPOINTS_PER_SLICE },
        users: 1 + rng.below(3) as usize,
        latency: link_latency(rng),
        store_latency: store_latency(rng),
        record_events: rng.chance(1, 4),
        features: skeg_core::features::FeatureGates::default(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::draw;
    use crate::run::{RunOptions, Silent, run};
    use crate::scenario::{Action, UserAction};

    #[test]
    fn a_seed_draws_one_scenario() {
        let told = |seed| format!("{:?}", draw(seed));
        assert_eq!(told(3), told(3));
        assert_ne!(told(3), told(4));
    }

    #[test]
    fn every_kind_of_workload_and_step_is_drawn() {
        let (mut kinds, mut words) = (BTreeSet::new(), BTreeSet::new());
        for step in (0..200).flat_map(|seed| draw(seed).timeline) {
            if let Action::User(UserAction::Apply(objects)) = &step.action {
                kinds.extend(objects.iter().map(|o| o.kind().to_string()));
            }
            words.extend(step.action.describe().split(' ').next().map(str::to_owned));
        }
        for kind in super::workload::KINDS {
            assert!(kinds.contains(*kind), "no {kind} among {kinds:?}");
        }
        for word in ["scale", "set", "restart", "pause", "replace", "patch", "drain", "delete", "kill"] {
            assert!(words.contains(word), "nobody {word}s: {words:?}");
        }
    }

    #[test]
    fn nobody_restarts_what_is_paused_or_restarted_already() {
        let mut both = [0, 0];
        for seed in 0..300 {
            let (mut paused, mut restarted) = (BTreeSet::new(), BTreeSet::new());
            for step in draw(seed).timeline {
                match step.action {
                    Action::User(UserAction::Pause { key, .. }) => drop(paused.insert(key)),
                    Action::User(UserAction::Restart { key }) => assert!(restarted.insert(key), "seed {seed}"),
                    _ => {}
                }
            }
            assert!(paused.is_disjoint(&restarted), "seed {seed}: {paused:?}, {restarted:?}");
            both = [both[0] + paused.len(), both[1] + restarted.len()];
        }
        assert!(both.iter().all(|count| *count > 0), "both are drawn: {both:?}");
    }

    #[test]
    fn explored_runs_converge_and_break_nothing() {
        for seed in 0..6 {
            let outcome = run(&draw(seed), seed, &RunOptions::default(), &mut Silent).expect("no machine panics");
            assert!(outcome.converged, "seed {seed}: {:?}", outcome.not_converged);
            let broken: Vec<_> = outcome.invariants.iter().filter(|i| i.broken).collect();
            assert!(broken.is_empty(), "seed {seed}: {broken:?}");
        }
    }
}
