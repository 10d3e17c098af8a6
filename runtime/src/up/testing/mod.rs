//! A whole cluster inside of a test, for those who write operators.
//!
//! API server, controllers, scheduler and simulated nodes run on the test's own thread, and time is virtual: it jumps
//! to whatever comes next, so that an hour of waiting takes no longer than what happens in it. What `perturb` disturbs
//! is drawn from the seed, and the same seed disturbs the same requests again.
//!
//! # Limits
//!
//! Determinism ends where the program under test brings chance of its own: a `HashMap` with its random hashes, or a
//! `select!` that polls in random order (`biased;` does not). Time is tokio's: `std::time::Instant` and threads that
//! sleep are not part of it, and a program that computes without end stops it.

mod service;
#[cfg(test)]
pub(crate) mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::ops::Range;
use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::FutureExt;
use serde_json::Value;
use skeg_core::apiserver::ApiServer;
use skeg_core::auth::{MASTERS, Mode, User};
use skeg_core::controllers::LoadBalancerRange;
use skeg_core::store::MemoryStore;
use skeg_core::{Kinds, Wall};
use skeg_sim::scenario::Scheduling;
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::sync::mpsc::unbounded_channel;
use tokio::task::{LocalSet, spawn_local};
use tokio::time::Instant;

pub use self::service::{Error, Service};
pub use super::perturb::{Done, Perturb};

use super::args::{LOAD_BALANCERS, cidr};
use super::ask::Inbound;
use super::clock::Clock;
use super::cluster::{ApiOptions, Cluster, Components, Outside};
use super::handler::Handler;
use super::keeper::Keeper;
use super::keys::Keys;
use super::perturb::{Nth, Perturbed, Perturber};
use super::served::{Catalogue, Served};
use super::service::Start;
use super::tokens::{ISSUER, TokenOptions, Tokens};
use crate::recording::writer::{Recorder, Recording, begin};

/// How long a program is down when it is restarted.
const DOWN: Duration = Duration::from_secs(1);
/// Where the cluster says that it is reached.
const ADDRESS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), 6443);
/// The time of day at which each cluster starts: 2026-01-01T00:00:00Z, in microseconds since 1970.
const MIDNIGHT: Wall = Wall(1_767_225_600_000_000);
/// How often a failing run is run again, at most, to find what it needs to fail.
const SHRINKS: usize = 60;

/// What an invariant looks at: all objects as they are after a change.
pub struct Objects<'a> {
    api: &'a ApiServer,
    served: Arc<Served>,
}

impl fmt::Debug for Objects<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Objects").finish_non_exhaustive()
    }
}

impl Objects<'_> {
    /// The objects of a resource, by namespace and name; none if it is not served. `version` is as in an object's
    /// `apiVersion`, such as `v1` or `apps/v1`.
    pub fn list(&self, version: &str, plural: &str) -> Vec<Value> {
        let (group, version) = version.split_once('/').unwrap_or(("", version));
        let Some(resource) = self.served.by_path(group, version, plural) else { return Vec::new() };
        self.api.cached(resource.kind).map(|(_, object)| resource.present(object.to_json())).collect()
    }
}

/// Says why the objects are not as they must be.
type Invariant = Rc<dyn Fn(&Objects<'_>) -> Result<(), String>>;

/// How a cluster is made, and its tests are run.
#[derive(Clone)]
pub struct Builder {
    nodes: u32,
    seed: u64,
    perturb: Option<Perturb>,
    limit: Duration,
    invariants: Vec<(Rc<str>, Invariant)>,
    /// Where its machines are recorded.
    record: Option<PathBuf>,
}

impl fmt::Debug for Builder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Builder { nodes, seed, perturb, limit, invariants, record: _ } = self;
        let names: Vec<&str> = invariants.iter().map(|(name, _)| &**name).collect();
        let mut all = f.debug_struct("Builder");
        all.field("nodes", nodes).field("seed", seed).field("perturb", perturb);
        all.field("limit", limit).field("invariants", &names).finish()
    }
}

/// How a run failed.
#[derive(Clone, Debug)]
pub struct Failure {
    /// The seed.
    pub seed: u64,
    /// What was not as it must be.
    pub why: String,
    /// How long the cluster had been running.
    pub at: Duration,
    /// What was disturbed; after [`Builder::check`], only what it takes to fail.
    pub disturbances: Vec<Done>,
    /// How many there were before anything was left out.
    pub of: usize,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "seed {}: {} ({:.3} s after the start)", self.seed, self.why, self.at.as_secs_f64())?;
        match (self.disturbances.len(), self.of) {
            (0, _) => writeln!(f, "nothing needs to be disturbed for that")?,
            (count, of) => writeln!(f, "with {count} of {of} disturbances:")?,
        }
        self.disturbances.iter().try_for_each(|done| writeln!(f, "  {done}"))?;
        write!(f, "the same again: TestCluster::builder().seed({})", self.seed)
    }
}

/// What a run that went well leaves.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// What was disturbed.
    pub disturbances: Vec<Done>,
    /// How long the cluster had been running, in its own time.
    pub lasted: Duration,
}

/// A cluster, within a test that it runs. Clones are the same cluster.
#[derive(Clone, Debug)]
pub struct TestCluster {
    handler: Arc<Handler>,
    perturber: Option<Arc<Perturber>>,
    failed: Arc<Failed>,
}

/// What has failed first.
#[derive(Debug, Default)]
struct Failed {
    why: Mutex<Option<String>>,
    told: Notify,
}

impl Failed {
    fn set(&self, why: String) {
        self.why.lock().expect("nobody panics while it is set").get_or_insert(why);
        self.told.notify_one();
    }

    async fn wait(&self) -> String {
        loop {
            self.told.notified().await;
            if let Some(why) = self.why.lock().expect("nobody panics while it is set").clone() {
                return why;
            }
        }
    }
}

/// What a panic says.
fn said(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "it panicked".to_owned())
}

impl TestCluster {
    /// One node, seed 0, nothing disturbed, at most an hour of the cluster's time.
    pub fn builder() -> Builder {
        Builder {
            nodes: 1,
            seed: 0,
            perturb: None,
            limit: Duration::from_secs(3600),
            invariants: Vec::new(),
            record: None,
        }
    }

    /// The API for a client that may do all, and that nothing disturbs:
    /// `kube::Client::new(cluster.service(), "default")`.
    pub fn service(&self) -> Service {
        Service::new(Arc::clone(&self.handler), admin())
    }

    /// The same for a user of this name in these groups, subject to the cluster's roles.
    pub fn service_as(&self, name: &str, groups: &[&str]) -> Service {
        Service::new(Arc::clone(&self.handler), user(name, groups))
    }

    /// Runs a program of this name, whose requests are disturbed, and which is restarted between any two of them: the
    /// future is dropped, and made again a second later. What the program has given to `tokio::spawn` goes on until its
    /// next request, which fails. A panic fails the run.
    pub fn program<F, P>(&self, name: &str, make: F)
    where
        F: Fn(Service) -> P + 'static,
        P: Future<Output = ()> + 'static,
    {
        let (this, name): (_, Arc<str>) = (self.clone(), Arc::from(name));
        spawn_local(async move {
            loop {
                let (service, restart) = this.disturbed(&name);
                let program = AssertUnwindSafe(make(service.clone())).catch_unwind();
                let ended = tokio::select! {
                    biased;
                    () = restart.notified() => None,
                    ended = program => Some(ended),
                };
                service.end();
                match ended {
                    None => tokio::time::sleep(DOWN).await,
                    Some(Ok(())) => return,
                    Some(Err(panic)) => return this.failed.set(format!("{name} panicked: {}", said(&*panic))),
                }
            }
        });
    }

    /// The API for a program, and what tells that the program is to be restarted.
    fn disturbed(&self, name: &Arc<str>) -> (Service, Arc<Notify>) {
        let Some(perturber) = &self.perturber else { return (self.service(), Arc::default()) };
        let (inner, perturber) = (Arc::clone(&self.handler), Arc::clone(perturber));
        let restart = perturber.program(name);
        let perturbed = Perturbed { inner, perturber, client: Some(Arc::clone(name)) };
        (Service::new(Arc::new(perturbed), admin()), restart)
    }

    /// Ends all disturbances, and waits until what has been held back has arrived. What the program then makes of it,
    /// it makes in peace.
    pub async fn heal(&self) {
        if let Some(perturber) = &self.perturber {
            tokio::time::sleep(perturber.calm()).await;
        }
    }
}

fn user(name: &str, groups: &[&str]) -> User {
    let groups = groups.iter().copied().chain(["system:authenticated"]).map(str::to_owned).collect();
    User { name: name.to_owned(), groups, ..User::default() }
}

fn admin() -> User {
    user("kubernetes-admin", &[MASTERS])
}

impl Builder {
    /// Number of nodes. Each has 16 CPUs and 64 GiB, in one of three zones.
    pub fn nodes(mut self, nodes: u32) -> Builder {
        self.nodes = nodes;
        self
    }

    /// The seed of the cluster's names, delays and disturbances.
    pub fn seed(mut self, seed: u64) -> Builder {
        self.seed = seed;
        self
    }

    /// Disturbs the requests of programs.
    pub fn perturb(mut self, level: Perturb) -> Builder {
        self.perturb = Some(level);
        self
    }

    /// The most that a run may take, in the cluster's time.
    pub fn limit(mut self, limit: Duration) -> Builder {
        self.limit = limit;
        self
    }

    /// What must hold after each change of any object. A closure that panics fails the run.
    pub fn invariant(mut self, name: &str, holds: impl Fn(&Objects<'_>) -> Result<(), String> + 'static) -> Builder {
        self.invariants.push((Rc::from(name), Rc::new(holds)));
        self
    }

    /// Makes a cluster, and runs the test in it.
    pub fn run<F, T>(&self, test: F) -> Result<Report, Box<Failure>>
    where
        F: Fn(TestCluster) -> T,
        T: Future<Output = ()>,
    {
        self.once(&test, None)
    }

    /// Runs the test with each of these seeds. Panics at the first that fails, with what had to be disturbed for that.
    pub fn check<F, T>(&self, seeds: Range<u64>, test: F)
    where
        F: Fn(TestCluster) -> T,
        T: Future<Output = ()>,
    {
        for seed in seeds {
            let this = Builder { seed, ..self.clone() };
            if let Err(failure) = this.run(&test) {
                panic!("{}", this.shrink(&test, failure));
            }
        }
    }

    /// Leaves out disturbances as long as the run still fails.
    fn shrink<F, T>(&self, test: &F, mut failure: Box<Failure>) -> Box<Failure>
    where
        F: Fn(TestCluster) -> T,
        T: Future<Output = ()>,
    {
        let of = failure.of;
        let (mut tries, mut part) = (0, failure.disturbances.len().div_ceil(2));
        while part > 0 && tries < SHRINKS {
            let all: Vec<Nth> = failure.disturbances.iter().map(|done| done.nth.clone()).collect();
            let without = |from: usize| -> BTreeSet<Nth> {
                let kept = all.iter().enumerate().filter(|(n, _)| !(from..from + part).contains(n));
                kept.map(|(_, nth)| nth.clone()).collect()
            };
            let found = (0..all.len()).step_by(part).take(SHRINKS - tries).find_map(|from| {
                tries += 1;
                self.once(test, Some(without(from))).err().filter(|less| less.disturbances.len() < all.len())
            });
            match found {
                Some(less) => failure = less,
                None if part == 1 => break,
                None => part = part.div_ceil(2),
            }
            part = part.min(failure.disturbances.len());
        }
        failure.of = of;
        failure
    }

    fn once<F, T>(&self, test: &F, only: Option<BTreeSet<Nth>>) -> Result<Report, Box<Failure>>
    where
        F: Fn(TestCluster) -> T,
        T: Future<Output = ()>,
    {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
        let runtime = runtime.expect("the system has what a thread needs");
        let local = LocalSet::new();
        local.block_on(&runtime, async {
            let started = Instant::now();
            let cluster = self.start(only);
            while !cluster.handler.shared.ready.load(Ordering::Acquire) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            let ended = tokio::select! {
                biased;
                why = cluster.failed.wait() => Some(why),
                ended = AssertUnwindSafe(test(cluster.clone())).catch_unwind() => {
                    ended.err().map(|panic| said(&*panic))
                }
                () = tokio::time::sleep(self.limit) => Some(format!("the test is not over after {:?}", self.limit)),
            };
            let disturbances = cluster.perturber.as_ref().map(|perturber| perturber.done()).unwrap_or_default();
            let (at, of) = (started.elapsed(), disturbances.len());
            match ended {
                None => Ok(Report { disturbances, lasted: at }),
                Some(why) => Err(Box::new(Failure { seed: self.seed, why, at, disturbances, of })),
            }
        })
    }

    /// Starts a cluster on this thread.
    fn start(&self, only: Option<BTreeSet<Nth>>) -> TestCluster {
        let (recording, recorder) = self.recording();
        let start = Start {
            seed: self.seed,
            nodes: 0..self.nodes,
            docker: None,
            components: Components { controllers: true, scheduler: true },
            load_balancers: LoadBalancerRange { cidr: cidr(LOAD_BALANCERS).expect("it is one") },
            images: BTreeMap::new(),
            scheduling: Scheduling::default(),
            clock: Clock::of_test(MIDNIGHT),
            api: ApiOptions::default(),
            advertised: ADDRESS,
            authorisation: vec![Mode::Rbac],
            root_ca: None,
            front_proxy: None,
            several: None,
            recorder,
        };
        let (to_cluster, inbox) = unbounded_channel::<Inbound>();
        let shared = start.shared();
        let keys = Keys::generate().expect("the system gives random numbers");
        let options = TokenOptions { keys, issuer: ISSUER.to_owned(), audiences: Vec::new() };
        let tokens = Arc::new(Tokens::new(options, &ADDRESS.to_string()));
        let plan = start.plan(Arc::clone(&tokens));
        let outside = Outside { runtime: Handle::current(), cluster: to_cluster.clone() };
        let keeper = Keeper::Memory(MemoryStore::new());
        let cluster = Cluster::new(plan, Kinds::default(), keeper, shared.clone(), outside);
        let mut cluster = cluster.expect("nothing that could fail is asked for");
        let failed = Arc::new(Failed::default());
        cluster.on_change(self.judge(shared.catalogue.clone(), Arc::clone(&failed)));
        let ended = Arc::clone(&failed);
        spawn_local(async move {
            // It is dropped last, when all has been recorded.
            let (_recording, mut cluster) = (recording, cluster);
            if let Err(why) = cluster.run(inbox).await {
                ended.set(why);
            }
        });
        let perturber = self.perturb.map(|level| Arc::new(Perturber::new(self.seed, level).recorded(only)));
        let handler = Arc::new(Handler::new(to_cluster, shared, ADDRESS.to_string(), tokens));
        TestCluster { handler, perturber, failed }
    }

    /// Has the machines recorded in a new directory within this one.
    #[cfg(test)]
    pub(crate) fn record(mut self, dir: &std::path::Path) -> Builder {
        self.record = Some(dir.to_owned());
        self
    }

    /// Begins to record the cluster, if that is asked for.
    fn recording(&self) -> (Recording, Option<Recorder>) {
        let begin = |dir: &PathBuf| begin(dir, 1 << 30, "test", MIDNIGHT).expect("tests can write");
        self.record.as_ref().map(begin).unwrap_or_default()
    }

    /// What looks at the objects after each change.
    fn judge(&self, catalogue: Catalogue, failed: Arc<Failed>) -> Box<dyn FnMut(&ApiServer)> {
        let invariants = self.invariants.clone();
        Box::new(move |api| {
            let objects = Objects { api, served: catalogue.now() };
            for (name, holds) in &invariants {
                match std::panic::catch_unwind(AssertUnwindSafe(|| holds(&objects))) {
                    Ok(Ok(())) => {}
                    Ok(Err(why)) => failed.set(format!("invariant {name}: {why}")),
                    Err(panic) => failed.set(format!("invariant {name} panicked: {}", said(&*panic))),
                }
            }
        })
    }
}
