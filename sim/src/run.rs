//! One run: the timeline and the faults, then all faults are healed, then the declared state must be reached and kept.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::time::Duration;

use skeg_core::object::{Kind, Object, ObjectKey};
use skeg_core::scheduler::advice::Advice;

use crate::causes::Cause;
use crate::converge::{self, Unconverged};
use crate::fault;
use crate::ids::{Id, ProcessId};
use crate::invariant::{self, Invariant};
use crate::look::{self, Look, Show};
use crate::outcome::{ExpectationResult, Happening, Outcome, Sample};
use crate::scenario::{Cluster, Expectation, FaultLevel, NodePool, Scenario, Scheduling};
use crate::world::World;

/// How long the declared state must be kept: longer than a silent node still counts as ready (`NODE_MONITOR_GRACE`).
const HOLD: Duration = Duration::from_secs(60);
/// How long changes may be in flight to the caches that are checked at the end.
const GRACE: Duration = Duration::from_secs(2);
/// How many times caches and views may lag before that counts as a violation.
const LOOKS: usize = 30;
/// How often convergence is checked.
const LOOK: Duration = Duration::from_millis(500);
/// Most samples of a run.
const SAMPLES: u64 = 600;

/// How a run is observed.
#[derive(Clone, Debug, Default)]
pub struct RunOptions {
    /// Describe every event to the observer.
    pub trace: bool,
    /// Say at the end what the scheduler makes of this pod.
    pub explain: Option<ObjectKey>,
    /// Say at the end how a failure came about.
    pub why: bool,
}

/// Progress of a run.
#[derive(Clone, Debug)]
pub struct Progress<'a> {
    /// Virtual time.
    pub at: Duration,
    /// Latest virtual time at which the run ends.
    pub end: Duration,
    /// Number of events so far.
    pub events: u64,
    /// Pods by phase.
    pub pods: &'a BTreeMap<String, i64>,
    /// Pods that are ready.
    pub ready: i64,
}

/// Observes a run. An observer never changes the run.
pub trait Observer {
    /// Called from time to time.
    fn progress(&mut self, _progress: &Progress<'_>) {}
    /// Called for each event of a traced run: its number, its virtual time in nanoseconds, the hash so far, and its
    /// description.
    fn event(&mut self, _n: u64, _at: u64, _hash: u64, _what: &str) {}
    /// Called at the end for the pod that was asked about, if the scheduler knows of it.
    fn explained(&mut self, _advice: Advice) {}
    /// Called at the end of a run that failed, if that was asked for: how it came about.
    fn caused(&mut self, _story: Vec<Cause>) {}
}

/// An observer that does nothing.
#[derive(Debug, Default)]
pub struct Silent;

impl Observer for Silent {}

/// A machine panicked, which is a bug; says where in the run.
#[derive(Clone, Debug)]
pub struct Crash {
    /// Seed of the run.
    pub seed: u64,
    /// Virtual seconds.
    pub at: f64,
    /// The machine that was running, such as `agent node-7`.
    pub machine: String,
    /// The panic message.
    pub message: String,
}

impl std::fmt::Display for Crash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} panicked at {:.6}s of seed {}: {}", self.machine, self.at, self.seed, self.message)
    }
}

impl std::error::Error for Crash {}

/// A scenario with a cluster of equal, empty nodes.
pub fn plain(nodes: usize, zones: usize) -> Scenario {
    let capacity = [("cpu", "16"), ("memory", "64Gi"), ("ephemeral-storage", "100Gi"), ("pods", "110")];
    let pool = NodePool {
        name: "node".to_owned(),
        count: nodes,
        names: Vec::new(),
        capacity: capacity.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
        labels: BTreeMap::new(),
        taints: Vec::new(),
        zone: None,
        cordoned: false,
    };
    Scenario {
        name: "plain".to_owned(),
        cluster: Cluster {
            pools: vec![pool],
            zones,
            api_servers: 2,
            control_replicas: 2,
            proxies: true,
            latency: (Duration::from_micros(200), Duration::from_millis(2)),
            store_latency: (Duration::from_millis(1), Duration::from_millis(5)),
            record_events: true,
            users: 1,
            max_endpoints_per_slice: skeg_core::limits::MAX_ENDPOINTS_PER_SLICE,
            service_cidr: skeg_core::apiserver::DEFAULT_SERVICE_CIDR,
            features: skeg_core::features::FeatureGates::default(),
        },
        images: BTreeMap::new(),
        timeline: Vec::new(),
        loads: Vec::new(),
        expectations: Vec::new(),
        scheduling: Scheduling::default(),
        faults: FaultLevel::None,
        duration: Duration::from_secs(600),
        settle: Duration::from_secs(1800),
        stop_when_converged: true,
    }
}

/// Runs a scenario with a seed. The same scenario and seed give the same run.
pub fn run(
    scenario: &Scenario,
    seed: u64,
    options: &RunOptions,
    observer: &mut dyn Observer,
) -> Result<Outcome, Crash> {
    let mut run = Run::new(scenario, seed, options);
    let lacks = run.play_safely(observer)?;
    let advice = options.explain.as_ref().and_then(|pod| run.world.advise(pod));
    advice.into_iter().for_each(|advice| observer.explained(advice));
    let causes = run.world.causes.take();
    let names: Vec<_> = run.world.processes.ids().map(|id| Rc::clone(&run.world.processes[id].name)).collect();
    let outcome = run.outcome(lacks);
    if let (Some(causes), Some(first)) = (causes, first_failure(&outcome)) {
        let who = |process: ProcessId| names[process.number() as usize].to_string();
        observer.caused(causes.story(first.1.at, (first.0, &first.1.what), &outcome.faults, &who));
    }
    Ok(outcome)
}

/// Runs a scenario up to a moment, or to its end if that comes first, and looks into its machines.
pub fn look(
    scenario: &Scenario,
    seed: u64,
    at: Duration,
    shows: &[Show],
    observer: &mut dyn Observer,
) -> Result<Vec<Look>, Crash> {
    let mut run = Run::new(scenario, seed, &RunOptions::default());
    run.stop = nanos(at);
    run.play_safely(observer)?;
    Ok(shows.iter().map(|show| look::look(&run.world, show)).collect())
}

/// The invariant that was broken first, and how.
fn first_failure(outcome: &Outcome) -> Option<(&str, &Happening)> {
    let broken = outcome.invariants.iter().filter(|invariant| invariant.broken);
    let first = broken.filter_map(|invariant| Some((&*invariant.name, invariant.details.first()?)));
    first.min_by(|a, b| a.1.at.total_cmp(&b.1.at))
}

struct Run<'a> {
    scenario: &'a Scenario,
    world: World,
    samples: Vec<Sample>,
    /// For each expectation, the number of its mark in the statistics if it needs one.
    marks: Vec<Option<usize>>,
    /// The virtual time at which it is broken off.
    stop: u64,
}

/// Starts to collect what an expectation needs to be checked later.
fn watch(expectation: &Expectation, world: &mut World) -> Option<usize> {
    match expectation {
        Expectation::Ready { key, replicas, by: Some(_) } => {
            Some(world.statistics.watch_for(std::slice::from_ref(key), *replicas))
        }
        Expectation::NeverBelow { keys, replicas } => Some(world.statistics.watch_for(keys, *replicas)),
        Expectation::Ready { .. }
        | Expectation::RolledOut { .. }
        | Expectation::Image { .. }
        | Expectation::Pending { .. } => None,
    }
}

fn nanos(d: Duration) -> u64 {
    u64::try_from(d.as_nanos()).unwrap_or(u64::MAX)
}

impl<'a> Run<'a> {
    fn new(scenario: &'a Scenario, seed: u64, options: &RunOptions) -> Run<'a> {
        let mut timeline = scenario.timeline.clone();
        timeline.extend(fault::draw(scenario, seed));
        timeline.sort_by_key(|step| step.at);
        let mut world = World::new(scenario, seed, timeline, options.trace);
        world.causes = options.why.then(Box::default);
        let marks = scenario.expectations.iter().map(|e| watch(e, &mut world)).collect();
        Run { scenario, world, samples: Vec::new(), marks, stop: u64::MAX }
    }

    /// Plays it. A panic is a bug in a machine; the world is not used after it.
    fn play_safely(&mut self, observer: &mut dyn Observer) -> Result<Unconverged, Crash> {
        catch_unwind(AssertUnwindSafe(|| self.play(observer))).map_err(|panic| {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message");
            let (at, machine) = (self.world.now as f64 / 1e9, self.world.acting().to_owned());
            Crash { seed: self.world.seed, at, machine, message: text.to_owned() }
        })
    }

    fn play(&mut self, observer: &mut dyn Observer) -> Unconverged {
        let scenario = self.scenario;
        let last_step = scenario.timeline.iter().map(|s| s.at).max().unwrap_or_default();
        let quiet = scenario.faults == FaultLevel::None && scenario.stop_when_converged;
        let end = scenario.duration + scenario.settle;
        if !quiet {
            // First the whole duration with faults.
            self.until(nanos(scenario.duration), end, observer);
            if self.world.now < self.stop {
                self.world.heal_all();
            }
        } else {
            self.until(nanos(last_step) + 1, end, observer);
        }
        self.settle(end, observer)
    }

    /// Carries out events up to a virtual time.
    fn until(&mut self, until: u64, end: Duration, observer: &mut dyn Observer) {
        let sample_every = (nanos(end) / SAMPLES).max(1_000_000_000);
        let mut sample_at = self.samples.last().map_or(0, |s| (s.at * 1e9) as u64 + sample_every);
        let until = until.min(self.stop);
        while self.world.step(until) {
            if self.world.events.is_multiple_of(8192) {
                self.tell(end, observer);
            }
            if !self.world.current().is_empty() {
                observer.event(self.world.events, self.world.now, self.world.hash, self.world.current());
            }
            if self.world.now >= sample_at {
                self.sample();
                sample_at = self.world.now + sample_every;
            }
        }
        self.world.pass(until);
    }

    fn tell(&self, end: Duration, observer: &mut dyn Observer) {
        observer.progress(&Progress {
            at: Duration::from_nanos(self.world.now),
            end,
            events: self.world.events,
            pods: &self.world.statistics.phases,
            ready: self.world.statistics.ready,
        });
    }

    /// Waits until the declared state is reached, then checks that it is kept. Returns what has not converged.
    fn settle(&mut self, end: Duration, observer: &mut dyn Observer) -> Unconverged {
        let mut since: Option<u64> = None;
        // The store's number of changes at the last check, and whether it had converged then.
        let mut looked: Option<(u64, bool)> = None;
        loop {
            let now = self.world.now;
            // A check costs a walk over the store: the larger the store, the less often it is checked, and only if
            // something changed.
            let step = nanos(LOOK).max(self.world.store_size() as u64 * 20_000);
            let well = self.world.users_are_idle() && self.is_converged(&mut looked);
            match (well, since) {
                (true, None) => since = Some(now),
                // A process that lost its connection just before the end gets time to notice. Waiting cannot fix what
                // was rejected or is gone.
                (true, Some(from)) if now - from >= nanos(HOLD) && invariant::unsettled(&self.world).is_none() => {
                    return converge::complaints(&self.world);
                }
                (true, Some(_)) => {}
                (false, _) => since = None,
            }
            if now >= nanos(end).min(self.stop) {
                return self.lacks_at_the_end();
            }
            self.until((now + step).min(nanos(end)), end, observer);
        }
    }

    /// What has not converged when the time is up.
    fn lacks_at_the_end(&mut self) -> Unconverged {
        let mut lacks = converge::complaints(&self.world);
        lacks.extend(converge::unconverged(&self.world));
        if lacks.is_empty()
            && let Some((invariant, why)) = invariant::unsettled(&self.world)
        {
            // Everything else is at rest, and this has had all the time there was, so the invariant is violated.
            self.world.checkers.broken(invariant, self.world.now as f64 / 1e9, why.clone());
            lacks.add(|| "services".to_owned(), || why);
        }
        if lacks.is_empty() {
            let why = "the declared state was reached too late to see whether it is kept";
            lacks.add(|| "the cluster".to_owned(), || why.to_owned());
        }
        lacks
    }

    /// Whether the store has converged; checks only if something changed since the last check in `looked`.
    fn is_converged(&self, looked: &mut Option<(u64, bool)>) -> bool {
        let changes = self.world.statistics.changes;
        let known = looked.filter(|(then, _)| *then == changes);
        let converged = known.map_or_else(|| converge::is_converged(&self.world), |(_, so)| so);
        *looked = Some((changes, converged));
        converged
    }

    fn sample(&mut self) {
        let statistics = &self.world.statistics;
        let mut pods: BTreeMap<String, usize> =
            statistics.phases.iter().filter(|(_, n)| **n > 0).map(|(k, n)| (k.clone(), *n as usize)).collect();
        pods.insert("Ready".to_owned(), statistics.ready.max(0) as usize);
        self.samples.push(Sample {
            at: self.world.now as f64 / 1e9,
            pods,
            nodes_ready: statistics.nodes_ready.max(0) as usize,
            utilisation: statistics.utilisation(),
        });
    }

    fn outcome(mut self, lacks: Unconverged) -> Outcome {
        let Unconverged { list: not_converged, total: not_converged_total, .. } = lacks;
        let converged = not_converged_total == 0;
        self.sample();
        let at = self.world.now as f64 / 1e9;
        if !converged {
            let what = not_converged.first().map_or(String::new(), |n| format!("{}: {}", n.what, n.why));
            self.world.checkers.broken(Invariant::ConvergedAndKept, at, what);
        } else {
            // What else must hold at rest held when the settling ended; while this waits, CronJobs go on.
            if let Some((invariant, what)) = self.stale() {
                self.world.checkers.broken(invariant, at, what);
            }
        }
        self.world.give_up();
        let marked = self.scenario.expectations.iter().zip(&self.marks);
        let expectations = marked.map(|(e, mark)| self.check(e, *mark)).collect();
        let world = self.world;
        let pods = world.statistics.phases.iter().filter(|(_, n)| **n > 0);
        Outcome {
            name: self.scenario.name.clone(),
            seed: world.seed,
            nodes: world.nodes.len(),
            simulated_seconds: at,
            wall_seconds: 0.0,
            events: world.events,
            event_hash: format!("{:016x}", world.hash),
            converged,
            not_converged,
            not_converged_total,
            warnings: Vec::new(),
            invariants: world.checkers.report.results(),
            expectations,
            workloads: converge::workloads(&world.store),
            pods: pods.map(|(k, n)| (k.clone(), *n as usize)).collect(),
            pending: converge::pending(&world),
            pending_total: converge::waiting_pods(&world.store, "").count(),
            rollouts: world.statistics.rollouts(),
            pod_starts: world.statistics.pod_starts(),
            utilisation: world.statistics.utilisation(),
            event_reasons: world.statistics.event_reasons.clone(),
            counters: world.counters(),
            faults: world.faults,
            in_vain: world.in_vain,
            actions: world.actions,
            series: self.samples,
            peak_rss_bytes: 0,
        }
    }

    /// An object that a cache or view lacks although the store has it. Changes in flight at the time of the check get
    /// time to arrive, and processes that have just lost their connection get time to reconnect.
    fn stale(&mut self) -> Option<(Invariant, String)> {
        let mut found = None;
        for _ in 0..LOOKS {
            let judged = self.world.store.revision();
            self.until(self.world.now + nanos(GRACE), Duration::MAX, &mut Silent);
            let cache = invariant::stale_cache(&self.world, judged).map(|what| (Invariant::CachesAtRest, what));
            let view = || invariant::stale_view(&self.world, judged).map(|what| (Invariant::ViewsAtRest, what));
            let scheduler = || invariant::miscounting(&self.world, judged).map(|w| (Invariant::SchedulerAtRest, w));
            found = cache.or_else(view).or_else(scheduler);
            if found.is_none() {
                break;
            }
        }
        found
    }

    fn check(&self, expectation: &Expectation, mark: Option<usize>) -> ExpectationResult {
        let statistics = &self.world.statistics;
        let mark = mark.map(|number| statistics.marked(number));
        let (what, met, seen) = match expectation {
            Expectation::Ready { key, replicas, by } => {
                let n = statistics.ready_pods(key);
                let reached = mark.and_then(|m| m.reached);
                let in_time = by.is_none_or(|by| reached.is_some_and(|at| at <= by.as_secs_f64()));
                let when = by.map(|d| format!(" by {d:?}")).unwrap_or_default();
                let first = reached.map(|at| format!(", first at {at:.1}s")).unwrap_or_default();
                (format!("{key} has {replicas} ready{when}"), in_time && n == *replicas, format!("{n} ready{first}"))
            }
            Expectation::NeverBelow { keys, replicas } => {
                let lowest = mark.and_then(|m| m.lowest);
                let seen = lowest.map_or("never reached".to_owned(), |(n, at)| format!("lowest {n} at {at:.1}s"));
                let names: Vec<String> = keys.iter().map(ObjectKey::to_string).collect();
                let (names, have) = (names.join(" and "), if keys.len() == 1 { "never has" } else { "never have" });
                let what = format!("{names} {have} fewer than {replicas} ready");
                (what, lowest.is_some_and(|(n, _)| n >= *replicas), seen)
            }
            Expectation::RolledOut { key, by } => {
                let name = format!("Deployment {}", key.path());
                let rollouts = statistics.rollouts();
                let last = rollouts.iter().rev().find(|r| r.workload == name);
                let finished = last.and_then(|r| r.finished);
                let seen = finished.map_or("not complete".to_owned(), |f| format!("complete at {f:.1}s"));
                (format!("{key} is rolled out by {by:?}"), finished.is_some_and(|f| f <= by.as_secs_f64()), seen)
            }
            Expectation::Image { key, image } => {
                let found = self.images(key);
                (format!("{key} runs {image}"), found.contains(image), found.join(", "))
            }
            Expectation::Pending { namespace, count } => {
                let n = converge::waiting_pods(&self.world.store, namespace).count();
                let place = if namespace.is_empty() { "all namespaces" } else { namespace };
                (format!("{count} pods are pending in {place}"), n == *count, n.to_string())
            }
        };
        ExpectationResult { what, met, seen }
    }

    fn images(&self, key: &ObjectKey) -> Vec<String> {
        let store = &self.world.store;
        let found = converge::objects(store, key.kind).find(|o| o.key() == *key);
        let Some(pod) = found.and_then(Object::pod_spec).filter(|_| key.kind != Kind::POD) else { return Vec::new() };
        pod.containers.iter().filter_map(|c| c.image.clone()).collect()
    }
}
