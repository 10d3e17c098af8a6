//! The common part of `skeg up` and its `kube-apiserver`: starts the machines' thread, and serves until asked to stop.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::ops::Range;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::sync::{Arc, RwLock};
use std::thread::JoinHandle;
use std::time::Duration;

use rustls::ServerConfig;
use skeg_core::agent::AgentConfig;
use skeg_core::auth::{Authority, Mode};
use skeg_core::controllers::LoadBalancerRange;
use skeg_core::object::{REGION_LABEL, ZONE_LABEL};
use skeg_core::store::journal::Tail;
use skeg_core::store::{Codec, DurableStore, MemoryStore, Recovered};
use skeg_core::{Kinds, Mono, Now};
use skeg_sim::scenario::{ImageProfile, Scheduling};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc::unbounded_channel;
use tokio::sync::oneshot;

use super::aggregator::Remotes;
use super::args::EtcdArgs;
use super::ask::{Inbound, ToCluster};
use super::bootstrap::Bootstrap;
use super::clock::Clock;
use super::cluster::{ApiOptions, Cluster, Components, Outside, Plan, Several, Shared};
use super::data::{DataDir, Found};
use super::docker;
use super::flow;
use super::handler::Handler;
use super::keeper::Keeper;
use super::perturb::{Perturb, Perturbed, Perturber};
use super::pki::FrontProxy;
use super::served::Catalogue;
use super::server;
use super::tokens::{TokenOptions, Tokens};
use crate::Exit;
use crate::disk::explain;
use crate::recording::writer::Recorder;

/// Number of threads that serve HTTP.
const HTTP_THREADS: usize = 2;
/// How long open requests may take to complete after the process was asked to end.
const FAREWELL: Duration = Duration::from_secs(2);
/// The same for one of several servers, whose clients go on elsewhere: longer than a request to etcd may take.
const FAREWELL_OF_SEVERAL: Duration = Duration::from_secs(12);
/// How long it may take to give up what is led. What is not given up then expires.
const RESIGNATION: Duration = Duration::from_secs(3);

/// The configuration of a service.
#[derive(Debug)]
pub struct Start {
    /// Decides names, UIDs and delays. Two clusters that are to be told apart need different ones.
    pub seed: u64,
    /// The numbers of the simulated nodes.
    pub nodes: Range<u32>,
    /// The node that runs real containers.
    pub docker: Option<docker::Found>,
    /// What runs beside the API server.
    pub components: Components,
    /// Addresses for Services of type LoadBalancer.
    pub load_balancers: LoadBalancerRange,
    /// How images behave.
    pub images: BTreeMap<String, ImageProfile>,
    /// How pods are scheduled.
    pub scheduling: Scheduling,
    /// The cluster's clock.
    pub clock: Clock,
    /// Options of the API server.
    pub api: ApiOptions,
    /// The address at which pods reach the API server (`--advertise-address`).
    pub advertised: SocketAddr,
    /// `--authorization-mode`.
    pub authorisation: Vec<Mode>,
    /// The certificates, PEM, by which pods trust the API server; `None` if they are not published.
    pub root_ca: Option<String>,
    /// By what servers of other group-versions know this one.
    pub front_proxy: Option<FrontProxy>,
    /// What it is among several servers; `None` if it is the only one.
    pub several: Option<Several>,
    /// What the machines are recorded by.
    pub recorder: Option<Recorder>,
}

impl Start {
    /// What the machines share with what serves HTTP.
    pub fn shared(&self) -> Shared {
        let authority = Authority { modes: self.authorisation.clone(), ..Authority::default() };
        Shared {
            ready: Arc::new(AtomicBool::new(false)),
            has_policy: Arc::new(AtomicBool::new(false)),
            connected: Arc::new(AtomicBool::new(false)),
            ending: Arc::new(AtomicBool::new(false)),
            shares_store: self.several.is_some(),
            kubelets: self.several.as_ref().map(|several| several.kubelets.clone()),
            own_nodes: Arc::new(self.nodes.clone().map(|n| node(n).node_name.to_string()).collect()),
            authority: Arc::new(RwLock::new(authority)),
            catalogue: Catalogue::default(),
            remotes: Remotes::default(),
            flows: flow::Published::default(),
            proxy_client: self.front_proxy.as_ref().map(|front_proxy| Arc::new(front_proxy.client.clone())),
            clock: self.clock,
        }
    }

    /// The machines of this configuration. `tokens` issues tokens of accounts.
    pub fn plan(self, tokens: Arc<Tokens>) -> Plan {
        let first_service_ip = self.api.first_service_ip();
        let dns = match self.several {
            // Each node has a server of names of its own.
            Some(_) => {
                docker::dns_address((self.api.service_cidr.0.into(), self.api.service_cidr.1)).map(|ip| (ip, None))
            }
            None => self.docker.as_ref().and_then(docker::Found::dns).map(|(ip, at)| (ip, Some(at))),
        };
        Plan {
            seed: self.seed,
            first_node: self.nodes.start,
            nodes: self.nodes.map(node).collect(),
            tokens,
            docker: self.docker,
            components: self.components,
            bootstrap: Bootstrap::new(self.advertised, first_service_ip, dns, self.several.is_some()),
            several: self.several,
            load_balancers: self.load_balancers,
            api: self.api,
            authorisation: self.authorisation,
            root_ca: self.root_ca,
            front_proxy: self.front_proxy,
            images: self.images,
            scheduling: self.scheduling,
            recorder: self.recorder,
        }
    }
}

/// Where the data of a cluster is kept.
#[derive(Debug)]
pub enum Data {
    /// In memory: it is lost when the cluster stops.
    Memory,
    /// In this directory, which has this content.
    Directory(DataDir, Found),
    /// In etcd.
    Etcd(EtcdArgs),
}

/// The machines' thread, and the handler of HTTP requests.
pub struct Service {
    handler: Arc<Handler>,
    to_cluster: ToCluster,
    machines: JoinHandle<Result<(), String>>,
    /// Closed when the machines' thread ends, for whatever reason.
    ended: oneshot::Receiver<()>,
    /// Set once the process is asked to end.
    ending: Arc<AtomicBool>,
    /// How long it goes on to serve then, and how long open requests may take after that.
    patience: (Duration, Duration),
    /// What disturbs clients, if anything does.
    perturber: Option<Arc<Perturber>>,
}

/// Starts the threads that serve HTTP. Must be called first, because it sets the key of name hashes.
pub fn http_threads() -> Result<Runtime, String> {
    // Names come from users here, so their hashes must be keyed, and keyed before the first name is hashed.
    skeg_core::random::key_name_hashes(random_number()?);
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(HTTP_THREADS)
        .thread_name("http")
        .enable_all()
        .build()
        .map_err(|e| format!("error: threads could not be started: {}", explain(&e)))
}

/// What drives the machines: on one thread, since they stay on it.
pub fn machines_runtime() -> Result<Runtime, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
    runtime.map_err(|e| format!("error: a thread could not be started: {}", explain(&e)))
}

impl Service {
    /// Starts the machines' thread, and waits until it has read its data. `reached` is the address that clients use;
    /// `runtime` asks webhooks.
    pub fn start(
        runtime: &Runtime,
        start: Start,
        (data, tokens): (Data, TokenOptions),
        reached: String,
    ) -> Result<Service, String> {
        let shared = start.shared();
        let (shared_with_http, ending) = (shared.clone(), Arc::clone(&shared.ending));
        let patience = match &start.several {
            Some(several) => (several.shutdown_delay, FAREWELL_OF_SEVERAL),
            None => (Duration::ZERO, FAREWELL),
        };
        let (to_cluster, inbox) = unbounded_channel();
        let (alive, ended) = oneshot::channel::<()>();
        let (started, has_started) = mpsc::channel();
        let (from_store, tokens) = (to_cluster.clone(), Arc::new(Tokens::new(tokens, &reached)));
        let (signer, clock) = (Arc::clone(&tokens), start.clock);
        let outside = Outside { runtime: runtime.handle().clone(), cluster: to_cluster.clone() };
        let thread = std::thread::Builder::new().name("cluster".to_owned());
        let machines = thread.spawn(move || {
            let _alive = alive;
            let kinds = Kinds::default();
            let keeper = match data {
                Data::Directory(dir, found) => recover(dir, &found, &kinds, clock.now(), from_store)?,
                Data::Memory => Keeper::Memory(MemoryStore::new()),
                Data::Etcd(args) => etcd(args, &kinds, from_store)?,
            };
            let mut cluster = Cluster::new(start.plan(signer), kinds, keeper, shared, outside)?;
            // `Service::start` is waiting for this message.
            let _ = started.send(());
            let ended = machines_runtime()?.block_on(cluster.run(inbox));
            cluster.end();
            ended
        });
        let machines = machines.map_err(|e| format!("error: threads could not be started: {}", explain(&e)))?;
        if has_started.recv().is_err() {
            // The thread has ended before it started; `finish` returns its error.
            finish(machines)?;
            unreachable!("without an error the machines begin");
        }
        let handler = Arc::new(Handler::new(to_cluster.clone(), shared_with_http, reached, tokens));
        Ok(Service { handler, to_cluster, machines, ended, ending, patience, perturber: None })
    }

    /// Disturbs clients by this seed, if a level is given.
    pub fn perturbed(mut self, seed: u64, level: Option<Perturb>) -> Service {
        if let Some(level) = level {
            tracing::info!(seed, ?level, "clients are disturbed; the same seed disturbs them alike");
        }
        self.perturber = level.map(|level| Arc::new(Perturber::new(seed, level)));
        self
    }

    /// Serves until SIGTERM or SIGINT, or until the machines' thread ends. `begun` is called when signal handlers are
    /// installed.
    ///
    /// The end is in this order, so that clients of several servers notice nothing but closed connections: `/readyz`
    /// fails, what is led is given up and the address leaves the endpoints; after a delay no connection is accepted any
    /// more, watches end, and requests that are open are answered.
    pub fn serve(
        self,
        runtime: &Runtime,
        listeners: Vec<TcpListener>,
        tls: ServerConfig,
        begun: impl FnOnce(),
    ) -> Result<Exit, String> {
        let Service { handler, to_cluster, machines, ended, ending, patience: (delay, farewell), perturber } = self;
        let served = runtime.block_on(async {
            let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
            begun();
            let stop = async {
                tokio::select! {
                    _ = term.recv() => {}
                    _ = int.recv() => {}
                    _ = ended => return,
                }
                tracing::info!("asked to end");
                ending.store(true, Ordering::Release);
                let (leaving, left) = oneshot::channel();
                // An error means that the machines' thread has ended.
                let _ = to_cluster.send(Inbound::Leave(leaving));
                let (_, ()) = tokio::join!(tokio::time::timeout(RESIGNATION, left), tokio::time::sleep(delay));
                let _ = to_cluster.send(Inbound::EndWatches);
            };
            let measures = Arc::clone(&handler);
            let measures = tokio::spawn(async move { measures.measure().await });
            match perturber {
                None => server::serve(listeners, tls, handler, stop, farewell).await,
                Some(perturber) => {
                    let disturbed = Arc::new(Perturbed { inner: handler, perturber, client: None });
                    server::serve(listeners, tls, disturbed, stop, farewell).await;
                }
            }
            measures.abort();
            Ok::<(), std::io::Error>(())
        });
        served.map_err(|e| format!("error: signals cannot be listened to: {}", explain(&e)))?;
        // An error means that the machines' thread has ended; `finish` returns the reason.
        let _ = to_cluster.send(Inbound::Stop);
        finish(machines)
    }
}

/// Waits for the machines' thread, and returns its result.
fn finish(machines: JoinHandle<Result<(), String>>) -> Result<Exit, String> {
    match machines.join() {
        Ok(ended) => ended.map(|()| Exit::Well),
        Err(_) => Err("error: the cluster has crashed, see above; this is a bug of skeg".to_owned()),
    }
}

/// Recovers the store from a data directory, and starts the thread that continues its journal.
fn recover(dir: DataDir, found: &Found, kinds: &Kinds, now: Now, cluster: ToCluster) -> Result<Keeper, String> {
    let path = dir.path().to_owned();
    let at = Now { mono: Mono::ZERO, ..now };
    let mut codec = Codec::new(kinds.clone());
    let recovered = DurableStore::recover(at, &mut codec, found.snapshot.as_deref(), &found.journal);
    let Recovered { store, end, tail, replayed } =
        recovered.map_err(|e| format!("error: {}: {e}; it is left as it is", path.display()))?;
    if tail != Tail::Clean {
        tracing::warn!("{}: {tail}; it was not acknowledged, and is cut off", path.display());
    }
    tracing::info!(dir = %path.display(), revision = store.memory().revision().0, replayed, "the data is read");
    let journal = dir.continue_journal(end)?;
    let room = journal.room();
    let (jobs, inbox) = mpsc::channel();
    let thread = std::thread::Builder::new().name("journal".to_owned());
    let writer = thread.spawn(move || journal.run(&inbox, &cluster));
    writer.map_err(|e| format!("error: threads could not be started: {}", explain(&e)))?;
    Ok(Keeper::durable(store, jobs, room))
}

/// Connects to etcd. Its messages go to the machines' thread.
#[cfg(feature = "etcd")]
fn etcd(args: EtcdArgs, kinds: &Kinds, cluster: ToCluster) -> Result<Keeper, String> {
    use std::path::Path;

    use skeg_core::store::remote::Remote;
    use skeg_etcd::{Etcd, EtcdOptions, EtcdTls};
    let read = |path: &Path| std::fs::read(path).map_err(|e| format!("error: {}: {}", path.display(), explain(&e)));
    let identity = match (&args.certificate, &args.key) {
        (Some(certificate), Some(key)) => Some((read(certificate)?, read(key)?)),
        (_, _) => None,
    };
    let tls = match &args.authorities {
        Some(authorities) => Some(EtcdTls { authorities: read(authorities)?, identity }),
        None => None,
    };
    let user = match (args.user, &args.password) {
        (Some(name), Some(file)) => {
            let password = String::from_utf8(read(file)?);
            let password = password.map_err(|_| format!("error: {}: it is not text", file.display()))?;
            Some((name, password.trim_end().to_owned()))
        }
        (_, _) => None,
    };
    let options = EtcdOptions { endpoints: args.endpoints, tls, user };
    let etcd = Etcd::open(options, move |message| {
        // An error means that the cluster has stopped.
        let _ = cluster.send(Inbound::Store(message));
    })?;
    Ok(Keeper::elsewhere(Remote::new(kinds.clone()), move |id, request| etcd.ask(id, request)))
}

/// This binary has no client of etcd.
#[cfg(not(feature = "etcd"))]
fn etcd(_: EtcdArgs, _: &Kinds, _: ToCluster) -> Result<Keeper, String> {
    Err("error: --etcd: this skeg was built without it; build with `--features up,etcd`, which needs protoc".to_owned())
}

/// A random number from the operating system.
pub fn random_number() -> Result<u64, String> {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).map_err(|e| format!("error: the system gives no random numbers: {e}"))?;
    Ok(u64::from_le_bytes(bytes))
}

/// A simulated node, in one of three zones.
pub fn node(n: u32) -> AgentConfig {
    let zone = ["zone-a", "zone-b", "zone-c"][n as usize % 3];
    let labels = [(ZONE_LABEL, zone), (REGION_LABEL, "sim")];
    let capacity = [("cpu", "16"), ("memory", "64Gi"), ("pods", "110"), ("ephemeral-storage", "100Gi")];
    let owned = |(k, v): (&str, &str)| (k.to_owned(), v.to_owned());
    AgentConfig {
        node_name: Rc::from(format!("node-{n}")),
        labels: labels.into_iter().map(owned).collect(),
        capacity: capacity.into_iter().map(owned).collect(),
        host_ip: Rc::from(format!("172.{}.{}.{}", 16 + (n >> 16), (n >> 8) & 255, n & 255)),
        ..AgentConfig::default()
    }
}
