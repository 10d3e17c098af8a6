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
mod discovery;
mod handler;
mod identity;
mod instance;
mod kubeconfig;
mod log;
mod openapi;
mod params;
mod pki;
mod render;
mod reply;
mod route;
mod server;

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc;

use skeg_core::agent::AgentConfig;
use skeg_core::object::{REGION_LABEL, ZONE_LABEL};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;

pub use args::{InstanceArgs, UP_HELP, UpArgs};
pub use instance::{down, status};

use ask::Inbound;
use bootstrap::Bootstrap;
use cluster::{Cluster, Plan};
use handler::Handler;
use instance::{Instance, Running};

use crate::Exit;
use crate::disk::explain;

/// Threads that serve HTTP.
const HTTP_THREADS: usize = 2;

/// `skeg up`: runs until it is asked to end.
pub fn up(args: &UpArgs) -> Result<Exit, String> {
    start_log(args.log_format);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(HTTP_THREADS)
        .thread_name("http")
        .enable_all()
        .build()
        .map_err(|e| format!("error: threads could not be started: {}", explain(&e)))?;
    let listener = runtime.block_on(TcpListener::bind(args.listen)).map_err(|e| listen_error(args.listen, &e))?;
    let address = listener.local_addr().map_err(|e| listen_error(args.listen, &e))?;
    let mut running = Running::claim(address)?;

    let pki = pki::generate(&[address.ip()]).map_err(|e| format!("error: certificates could not be made: {e}"))?;
    let tls = server::tls(&pki).map_err(|e| format!("error: TLS could not be set up: {e}"))?;
    let reached = reached_at(address);
    let url = format!("https://{reached}");
    let kubeconfig = match &args.kubeconfig {
        Some(path) => path.clone(),
        None => kubeconfig::users_own()?,
    };
    kubeconfig::merge(&kubeconfig, &url, &pki)?;

    let (to_cluster, inbox) = mpsc::channel();
    let ready = Arc::new(AtomicBool::new(false));
    let (nodes, advertised, is_ready) = (args.nodes, advertised(address), Arc::clone(&ready));
    let seed = seed()?;
    // Dropped when the cluster's thread ends, however that comes about.
    let (alive, ended) = oneshot::channel::<()>();
    let machines = std::thread::Builder::new().name("cluster".to_owned()).spawn(move || {
        let _alive = alive;
        let (nodes, bootstrap) = ((0..nodes).map(node).collect(), Bootstrap::new(advertised));
        let plan = Plan { seed, nodes, images: BTreeMap::new(), bootstrap };
        Cluster::new(plan, is_ready).run(&inbox);
    });
    let machines = machines.map_err(|e| format!("error: threads could not be started: {}", explain(&e)))?;

    running.describe(&Instance { pid: std::process::id(), url, kubeconfig: kubeconfig.clone(), nodes: args.nodes })?;
    let handler = Arc::new(Handler::new(to_cluster.clone(), ready, reached.to_string()));
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
    match machines.join() {
        Ok(()) => Ok(Exit::Well),
        Err(_) => Err("error: the cluster has crashed, see above; this is a bug of skeg".to_owned()),
    }
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

/// Draws what names and UIDs follow from: two clusters must not make the same.
fn seed() -> Result<u64, String> {
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
