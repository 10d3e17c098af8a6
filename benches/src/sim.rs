//! Whole clusters: how fast virtual time passes, and how much memory a large cluster uses.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::json;
use skeg_core::object::ObjectKey;
use skeg_core::{Kind, Object};
use skeg_sim::outcome::Outcome;
use skeg_sim::scenario::{Cluster, FaultLevel, NodePool, Scenario, Scheduling, Step, UserAction};
use skeg_sim::{Observer, Progress, RunOptions, Silent};

use crate::Figure;

const NODES: usize = 5_000;

/// Equal nodes of 16 CPUs, 64Gi and 110 pods in three zones; each bench adds its own steps.
///
/// There are no Services, hence no proxies; Events are not recorded where speed is measured, as scheduler_perf does not
/// either.
fn scenario(name: &str, nodes: usize) -> Scenario {
    let capacity = [("cpu", "16"), ("memory", "64Gi"), ("pods", "110")];
    let pool = NodePool {
        name: "node".to_owned(),
        count: nodes,
        names: Vec::new(),
        capacity: capacity.map(|(k, v)| (k.to_owned(), v.to_owned())).into(),
        labels: BTreeMap::new(),
        taints: Vec::new(),
        zone: None,
        cordoned: false,
    };
    Scenario {
        name: name.to_owned(),
        cluster: Cluster {
            pools: vec![pool],
            zones: 3,
            api_servers: 1,
            control_replicas: 1,
            proxies: false,
            latency: (Duration::from_micros(500), Duration::from_millis(2)),
            store_latency: (Duration::from_millis(1), Duration::from_millis(4)),
            record_events: false,
            service_cidr: skeg_core::apiserver::DEFAULT_SERVICE_CIDR,
            max_endpoints_per_slice: skeg_core::limits::MAX_ENDPOINTS_PER_SLICE,
            users: 1,
            features: skeg_core::features::FeatureGates::default(),
        },
        images: BTreeMap::new(),
        timeline: Vec::new(),
        loads: Vec::new(),
        expectations: Vec::new(),
        scheduling: Scheduling::default(),
        faults: FaultLevel::None,
        duration: Duration::from_secs(3600),
        settle: Duration::from_secs(3600),
        stop_when_converged: true,
    }
}

fn deployment(name: &str, replicas: usize) -> Object {
    let labels = json!({"app": name});
    let resources = json!({"requests": {"cpu": "100m", "memory": "500Mi"}});
    let json = json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name, "namespace": "default"},
        "spec": {"replicas": replicas, "selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels},
            "spec": {"containers": [{"name": "main", "image": "registry.k8s.io/pause:3.9", "resources": resources}]}}}});
    Object::from_json(json).expect("a deployment is a deployment")
}

fn key(name: &str) -> ObjectKey {
    ObjectKey::new(Kind::DEPLOYMENT, "default", name)
}

fn step(at: u64, action: UserAction) -> Step {
    Step::at(Duration::from_secs(at), action)
}

/// Records the wall time at which the run passed a virtual time, and at which this many pods were running.
struct Stopwatch {
    from: Duration,
    pods: i64,
    started: Option<Instant>,
    finished: Option<Instant>,
}

impl Observer for Stopwatch {
    fn progress(&mut self, p: &Progress<'_>) {
        if p.at < self.from || self.started.is_none() {
            self.started = Some(Instant::now());
        }
        if self.finished.is_none() && p.pods.get("Running").is_some_and(|n| *n >= self.pods) {
            self.finished = Some(Instant::now());
        }
    }
}

fn play(scenario: &Scenario, watch: &mut dyn Observer) -> Result<(Outcome, f64), String> {
    let started = Instant::now();
    let outcome = skeg_sim::run(scenario, 1, &RunOptions::default(), watch).map_err(|crash| crash.to_string())?;
    let wall = started.elapsed().as_secs_f64();
    if !outcome.converged {
        let why: Vec<String> = outcome.not_converged.iter().map(|n| format!("{}: {}", n.what, n.why)).collect();
        return Err(format!("{} did not converge: {}", scenario.name, why.join("; ")));
    }
    if let Some(broken) = outcome.invariants.iter().find(|i| i.broken) {
        return Err(format!("{}: invariant {} broke: {:?}", scenario.name, broken.name, broken.details));
    }
    let seconds = outcome.simulated_seconds;
    eprintln!("{}: {seconds:.0} simulated seconds, {} events in {wall:.1} s", scenario.name, outcome.events);
    Ok((outcome, wall))
}

/// 1,000 pods on 1,000 nodes: wall time from apply until all are Running.
pub fn thousand_pods() -> Result<Vec<Figure>, String> {
    let mut s = scenario("1000-pods-1000-nodes", 1_000);
    s.timeline = vec![step(60, UserAction::Apply(vec![deployment("web", 1_000)]))];
    let mut watch = Stopwatch { from: Duration::from_secs(60), pods: 1_000, started: None, finished: None };
    play(&s, &mut watch)?;
    let (Some(started), Some(finished)) = (watch.started, watch.finished) else {
        return Err("the run did not say when the pods ran".to_owned());
    };
    let seconds = finished.duration_since(started).as_secs_f64();
    Ok(vec![Figure { name: "sim/1000-pods-1000-nodes", value: seconds, unit: "s" }])
}

/// How fast virtual time passes in each hour after a start time.
struct Hours {
    from: Duration,
    /// For each hour, its first and last progress report, in virtual and wall time.
    hours: Vec<[(Duration, Instant); 2]>,
}

const HOUR: Duration = Duration::from_secs(3600);

impl Observer for Hours {
    fn progress(&mut self, p: &Progress<'_>) {
        let Some(since) = p.at.checked_sub(self.from) else { return };
        let (hour, moment) = (since.as_secs() / HOUR.as_secs(), (p.at, Instant::now()));
        match self.hours.get_mut(hour as usize) {
            Some([_, last]) => *last = moment,
            None => self.hours.push([moment; 2]),
        }
    }
}

impl Hours {
    /// Virtual seconds per wall second in each of the whole hours, slowest first.
    fn rates(&self, whole: usize) -> Vec<f64> {
        let rate = |[(began, started), (ended, finished)]: &[(Duration, Instant); 2]| {
            (*ended - *began).as_secs_f64() / finished.duration_since(*started).as_secs_f64()
        };
        let mut rates: Vec<f64> = self.hours.iter().take(whole).map(rate).collect();
        rates.sort_by(f64::total_cmp);
        rates
    }
}

/// A day of 5,000 nodes with all heartbeats; five pods are created and five deleted per second. The measurement starts
/// when the store's history has reached its full length, so that all hours are alike. The median hour is reported: half
/// of the hours are at least as fast, whatever else the machine does in the others. The slowest and the fastest are
/// printed too.
pub fn day_of_5000_nodes() -> Result<Vec<Figure>, String> {
    const EVERY: usize = 20;
    const FROM: usize = 900;
    const WHOLE: usize = 24;
    let until = FROM + WHOLE * HOUR.as_secs() as usize;
    let mut s = scenario("day-5000-nodes", NODES);
    s.duration = Duration::from_secs(until as u64);
    let first = ["ebb", "flood"].map(|name| deployment(name, 1_000)).into();
    s.timeline = vec![step(60, UserAction::Apply(first))];
    // One Deployment is scaled up and the other down, by a hundred pods each time.
    for (i, at) in (300..until).step_by(EVERY).enumerate() {
        for (name, grows) in [("ebb", i % 2 == 0), ("flood", i % 2 == 1)] {
            let replicas = if grows { 1_000 + 5 * EVERY as i32 } else { 1_000 };
            s.timeline.push(step(at as u64, UserAction::Scale { key: key(name), replicas }));
        }
    }
    let mut hours = Hours { from: Duration::from_secs(FROM as u64), hours: Vec::new() };
    play(&s, &mut hours)?;
    let rates = hours.rates(WHOLE);
    let [slowest, .., fastest] = rates[..] else { return Err("the run told of no moment of its hours".to_owned()) };
    let value = rates[(rates.len() - 1) / 2];
    eprintln!(
        "of its {} hours the slowest passed at {slowest:.0}, the middle one at {value:.0} and the fastest at \
         {fastest:.0} simulated seconds a second",
        rates.len()
    );
    Ok(vec![Figure { name: "sim/day-5000-nodes", value, unit: "simulated s/s" }])
}

/// 150,000 pods on 5,000 nodes until Ready, then a rolling update of 10,000 of them. Events are recorded, as they are
/// for users.
pub fn large() -> Result<Vec<Figure>, String> {
    let mut s = scenario("150k-pods", NODES);
    s.cluster.record_events = true;
    let all = (0..15).map(|i| deployment(&format!("web-{i}"), 10_000)).collect();
    let image = "registry.k8s.io/pause:3.10".to_owned();
    let set_image = UserAction::SetImage { key: key("web-0"), container: "main".to_owned(), image };
    s.timeline = vec![step(60, UserAction::Apply(all)), step(1200, set_image)];
    let (outcome, wall) = play(&s, &mut Silent)?;
    let ready: i64 = outcome.workloads.iter().filter(|w| w.kind == "Deployment").map(|w| i64::from(w.ready)).sum();
    if ready != 150_000 {
        return Err(format!("{ready} pods are ready, not 150000"));
    }
    Ok(vec![
        Figure { name: "sim/150k-pods", value: peak_rss_bytes() as f64, unit: "bytes" },
        Figure { name: "sim/150k-pods-wall", value: wall, unit: "s" },
    ])
}

/// What an event of the world costs at 20,000 nodes, over that at 1,000: a run of ten minutes as `skeg sim run` makes
/// it, with ten pods on each node. It is time on the processor, so that what else the machine does is left out.
pub fn cost_growth() -> Result<Vec<Figure>, String> {
    let cost = |nodes: usize| -> Result<f64, String> {
        let mut s = skeg_sim::run::plain(nodes, 3);
        s.name = format!("cost-growth at {nodes} nodes");
        s.stop_when_converged = false;
        let all = (0..nodes / 1_000).map(|i| deployment(&format!("web-{i}"), 10_000)).collect();
        s.timeline = vec![step(60, UserAction::Apply(all))];
        let before = processor_time()?;
        let (outcome, _) = play(&s, &mut Silent)?;
        let each = (processor_time()? - before).as_secs_f64() * 1e6 / outcome.events as f64;
        eprintln!("{nodes} nodes: {each:.2} µs an event");
        Ok(each)
    };
    // The first run pays for the pages that the others find.
    cost(1_000)?;
    let (few, many) = (cost(1_000)?, cost(20_000)?);
    Ok(vec![Figure { name: "sim/cost-growth", value: many / few, unit: "ratio" }])
}

/// What this thread has had of a processor so far.
fn processor_time() -> Result<Duration, String> {
    let path = "/proc/thread-self/schedstat";
    let text = std::fs::read_to_string(path).map_err(|e| format!("{path}: {e}"))?;
    let nanos = text.split_whitespace().next().and_then(|first| first.parse().ok());
    nanos.map(Duration::from_nanos).ok_or_else(|| format!("{path}: {text:?} does not begin with nanoseconds"))
}

/// Peak resident memory of this process so far.
pub fn peak_rss_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:")).unwrap_or_default();
    line.trim().trim_end_matches(" kB").trim().parse::<u64>().map_or(0, |kib| kib * 1024)
}
