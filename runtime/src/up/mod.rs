//! `skeg up`: the Kubernetes API over HTTP, with controllers, scheduler and simulated nodes behind it.
//!
//! The machines live on one thread ([`cluster`]); sockets, TLS and encoding on others ([`server`], [`handler`]).
//! Between them go plain values ([`ask`]).

mod accept;
mod args;
mod ask;
mod body;
mod bootstrap;
mod clients;
mod cluster;
mod data;
mod discovery;
mod handler;
mod identity;
mod instance;
mod keeper;
mod kubeconfig;
mod log;
mod openapi;
mod params;
mod pki;
mod render;
mod reply;
mod route;
mod served;
mod server;

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc;
use std::thread::JoinHandle;

use skeg_core::agent::AgentConfig;
use skeg_core::object::{REGION_LABEL, ZONE_LABEL};
use skeg_core::store::journal::Tail;
use skeg_core::store::{Codec, DurableStore, MemoryStore, Recovered};
use skeg_core::{Kinds, Mono, Now};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;

pub use args::{InstanceArgs, UP_HELP, UpArgs};
pub use instance::{down, status};

use ask::Inbound;
use bootstrap::Bootstrap;
use cluster::{Cluster, Plan, Shared};
use data::{DataDir, Found};
use handler::Handler;
use instance::{Instance, Running};
use keeper::Keeper;
use served::Catalogue;

use crate::Exit;
use crate::disk::explain;

/// Threads that serve HTTP.
const HTTP_THREADS: usize = 2;

/// `skeg up`: runs until it is asked to end.
pub fn up(args: &UpArgs) -> Result<Exit, String> {
    start_log(args.log_format);
    // Before any name is hashed: names come from users here.
    skeg_core::random::key_name_hashes(random_number()?);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(HTTP_THREADS)
        .thread_name("http")
        .enable_all()
        .build()
        .map_err(|e| format!("error: threads could not be started: {}", explain(&e)))?;
    let listener = runtime.block_on(TcpListener::bind(args.listen)).map_err(|e| listen_error(args.listen, &e))?;
    let address = listener.local_addr().map_err(|e| listen_error(args.listen, &e))?;
    let mut running = Running::claim(address)?;

    let data = match (&args.data_dir, args.in_memory) {
        (_, true) => None,
        (Some(dir), false) => Some(DataDir::open(dir)?),
        (None, false) => Some(DataDir::open(&data::default_path()?)?),
    };
    let pki = match &data {
        Some((dir, _)) => pki::kept_in(&dir.path().join("pki"), &[address.ip()])?,
        None => pki::generate(&[address.ip()])?,
    };
    let tls = server::tls(&pki).map_err(|e| format!("error: TLS could not be set up: {e}"))?;
    let reached = reached_at(address);
    let url = format!("https://{reached}");
    let kubeconfig = match &args.kubeconfig {
        Some(path) => path.clone(),
        None => kubeconfig::users_own()?,
    };

    let (ready, catalogue) = (Arc::new(AtomicBool::new(false)), Catalogue::default());
    let shared = Shared { ready: Arc::clone(&ready), catalogue: catalogue.clone() };
    let (to_cluster, machines, ended) = start_machines(args.nodes, advertised(address), data, shared)?;
    kubeconfig::merge(&kubeconfig, &url, &pki)?;

    running.describe(&Instance { pid: std::process::id(), url, kubeconfig: kubeconfig.clone(), nodes: args.nodes })?;
    let handler = Arc::new(Handler::new(to_cluster.clone(), catalogue, ready, reached.to_string()));
    let served = runtime.block_on(async {
        let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        println!("{}", how_to_use(args, &kubeconfig));
        tracing::info!(address = %address, nodes = args.nodes, "the API is served");
        let stop = async {
            tokio::select! {
                _ = term.recv() => {}
                _ = int.recv() => {}
                _ = ended => return,
            }
            tracing::info!("asked to end");
        };
        server::serve(listener, tls, handler, stop).await;
        Ok::<(), std::io::Error>(())
    });
    served.map_err(|e| format!("error: signals cannot be listened to: {}", explain(&e)))?;
    // The cluster may have ended by itself, which joining it shows.
    let _ = to_cluster.send(Inbound::Stop);
    finish(machines)
}

/// The way to the machines' thread, the thread, and what is closed when it ends, however that comes about.
type Machines = (mpsc::Sender<Inbound>, JoinHandle<Result<(), String>>, oneshot::Receiver<()>);

/// Starts the thread of the machines, and waits until they have read their data.
fn start_machines(
    nodes: u32,
    advertised: SocketAddr,
    data: Option<(DataDir, Found)>,
    shared: Shared,
) -> Result<Machines, String> {
    // Two clusters must not make the same names and UIDs.
    let seed = random_number()?;
    let (to_cluster, inbox) = mpsc::channel();
    let (alive, ended) = oneshot::channel::<()>();
    let (started, has_started) = mpsc::channel();
    let from_journal = to_cluster.clone();
    let thread = std::thread::Builder::new().name("cluster".to_owned());
    let machines = thread.spawn(move || {
        let _alive = alive;
        let kinds = Kinds::default();
        let keeper = match data {
            Some((dir, found)) => recover(dir, &found, &kinds, from_journal)?,
            None => Keeper::Memory(MemoryStore::new()),
        };
        let (nodes, bootstrap) = ((0..nodes).map(node).collect(), Bootstrap::new(advertised));
        let plan = Plan { seed, nodes, images: BTreeMap::new(), bootstrap };
        let cluster = Cluster::new(plan, kinds, keeper, shared);
        // Whoever started this thread waits for it.
        let _ = started.send(());
        cluster.run(&inbox)
    });
    let machines = machines.map_err(|e| format!("error: threads could not be started: {}", explain(&e)))?;
    if has_started.recv().is_err() {
        // It ended before it had begun, and says why.
        finish(machines)?;
        unreachable!("without an error the machines begin");
    }
    Ok((to_cluster, machines, ended))
}

/// Waits for the cluster's thread, and tells how it ended.
fn finish(machines: JoinHandle<Result<(), String>>) -> Result<Exit, String> {
    match machines.join() {
        Ok(ended) => ended.map(|()| Exit::Well),
        Err(_) => Err("error: the cluster has crashed, see above; this is a bug of skeg".to_owned()),
    }
}

/// The store as it was when the last cluster ended, and its journal, which goes on.
fn recover(dir: DataDir, found: &Found, kinds: &Kinds, cluster: mpsc::Sender<Inbound>) -> Result<Keeper, String> {
    let path = dir.path().to_owned();
    let at = Now { mono: Mono::ZERO, wall: handler::wall() };
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

fn start_log(format: args::LogFormat) {
    let log = tracing_subscriber::fmt().with_writer(std::io::stderr).with_max_level(tracing::Level::INFO);
    match format {
        args::LogFormat::Text => log.with_target(false).with_ansi(std::io::stderr().is_terminal()).init(),
        args::LogFormat::Json => log.json().init(),
    }
}

fn listen_error(listen: SocketAddr, e: &std::io::Error) -> String {
    format!("error: {listen}: {}; another address is chosen with --listen", explain(e))
}

/// How the user goes on.
fn how_to_use(args: &UpArgs, kubeconfig: &std::path::Path) -> String {
    match args.kubeconfig {
        Some(_) => format!("kubectl --kubeconfig {} get nodes", kubeconfig.display()),
        None => format!("kubectl --context {} get nodes", kubeconfig::CONTEXT),
    }
}

/// The address that clients on this machine use.
fn reached_at(address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => SocketAddr::from(([127, 0, 0, 1], address.port())),
        IpAddr::V6(ip) if ip.is_unspecified() => SocketAddr::from(([0, 0, 0, 0, 0, 0, 0, 1], address.port())),
        _ => address,
    }
}

/// The address that is told to the cluster (`--advertise-address`): that of the default interface, where the one that
/// is listened at means nothing elsewhere. No packet is sent to find it out.
fn advertised(address: SocketAddr) -> SocketAddr {
    if !address.ip().is_loopback() && !address.ip().is_unspecified() {
        return address;
    }
    let outward = || -> std::io::Result<SocketAddr> {
        let socket = UdpSocket::bind(("0.0.0.0", 0))?;
        socket.connect(("192.0.2.1", 9))?;
        socket.local_addr()
    };
    outward().map_or(address, |outward| SocketAddr::new(outward.ip(), address.port()))
}

/// A number that nobody can guess.
fn random_number() -> Result<u64, String> {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).map_err(|e| format!("error: the system gives no random numbers: {e}"))?;
    Ok(u64::from_le_bytes(bytes))
}

/// A simulated node, in one of three zones.
fn node(n: u32) -> AgentConfig {
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
