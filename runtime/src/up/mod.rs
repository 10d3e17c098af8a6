//! `skeg up`: the Kubernetes API over HTTP, backed by controllers, a scheduler and simulated nodes.
//!
//! All machines run on one thread ([`cluster`]); sockets, TLS and encoding on others ([`server`], [`handler`]). They
//! exchange plain values ([`ask`]).

mod accept;
mod agents;
mod aggregator;
mod apiproxy;
mod args;
mod ask;
mod attempt;
mod body;
mod bootstrap;
mod bootstrap_tokens;
mod clients;
mod clock;
mod cluster;
mod consult;
mod conversion;
mod data;
mod discovery;
mod dns;
mod docker;
mod doctor;
pub mod envtest;
mod extenders;
mod flow;
#[cfg(test)]
mod fuzz;
mod handler;
mod identity;
mod instance;
mod keeper;
mod keys;
mod kubeconfig;
mod metrics;
mod openapi;
mod params;
mod perturb;
mod pki;
mod proxy;
mod render;
mod reply;
mod review;
mod rolling_update;
mod route;
mod selection;
mod served;
mod server;
mod servers;
mod service;
mod streams;
pub mod testing;
mod tokens;
mod usage;

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::path::Path;

use skeg_core::controllers::LoadBalancerRange;
use skeg_sim::scenario::{ImageProfile, Scheduling};
use tokio::net::TcpListener;

pub use agents::{AGENT_HELP, AgentArgs, agent};
pub use args::{InstanceArgs, UP_HELP, UpArgs};
pub use doctor::{DOCTOR_HELP, DoctorArgs, doctor};
pub use instance::{down, status};
pub use rolling_update::{ROLLING_UPDATE_HELP, RollingUpdateArgs, rolling_update};
pub use servers::{SERVER_HELP, ServerArgs, server};

use clock::Clock;
use cluster::{ApiOptions, Components};
use data::DataDir;
use instance::{Instance, Running};
use keys::Keys;
use service::{Data, Service, Start};
use tokens::{ISSUER, TokenOptions};

use crate::Exit;
use crate::disk::explain;

/// `skeg up`: runs until it is asked to stop.
pub fn up(args: &UpArgs) -> Result<Exit, String> {
    start_log(args.log_format);
    let scheduling = scheduling(args.scheduler_config.as_deref())?;
    let runtime = service::http_threads()?;
    let listener = runtime.block_on(TcpListener::bind(args.listen)).map_err(|e| listen_error(args.listen, &e))?;
    let address = listener.local_addr().map_err(|e| listen_error(args.listen, &e))?;
    let mut running = Running::claim(address)?;

    let dir = match (&args.data_dir, args.in_memory) {
        (_, true) => None,
        (Some(dir), false) => Some(dir.clone()),
        (None, false) => Some(data::default_path()?),
    };
    let data = match &dir {
        None => Data::Memory,
        Some(_) if !args.etcd.endpoints.is_empty() => Data::Etcd(args.etcd.clone()),
        Some(dir) => {
            let (dir, found) = DataDir::open(dir, true)?;
            Data::Directory(dir, found)
        }
    };
    let mut api = ApiOptions::default();
    api.service_cidr = args.service_cluster_ip_range.unwrap_or(api.service_cidr);
    api.features = args.feature_gates;
    let reached = reached_at(address);
    let url = format!("https://{reached}");
    let kubeconfig = match &args.kubeconfig {
        Some(path) => path.clone(),
        None => kubeconfig::users_own()?,
    };

    let nodes = if args.docker { 0 } else { args.nodes };
    let docker = match args.docker {
        true => {
            let (state, cluster) = docker::identity(dir.as_deref(), address);
            let options = docker::Options {
                network: None,
                socket: args.docker_host.trim_start_matches("unix://").into(),
                state,
                cluster,
                node: None,
                host_ip: advertised(address).ip(),
                ephemeral: dir.is_none(),
                services: (api.service_cidr.0.into(), api.service_cidr.1),
                // Images of this host may be somebody's who does not know of the cluster.
                images: args.upkeep.images(false)?,
                eviction: args.upkeep.eviction("")?,
            };
            let found = runtime.block_on(docker::find(options))?;
            docker::NOT_YET.iter().for_each(|what| tracing::warn!("not yet on a Docker node: {what}"));
            Some(found)
        }
        false => None,
    };
    let mut listeners = vec![listener];
    // Pods do not reach the loopback address.
    if let Some(gateway) = docker.as_ref().and_then(docker::Found::gateway).filter(|_| address.ip().is_loopback()) {
        let at = SocketAddr::new(gateway.into(), address.port());
        let for_pods = runtime.block_on(TcpListener::bind(at)).map_err(|e| listen_error(at, &e))?;
        listeners.push(for_pods);
    }
    let advertised = match listeners.get(1) {
        Some(for_pods) => for_pods.local_addr().map_err(|e| listen_error(args.listen, &e))?,
        None => advertised(address),
    };
    let mut names = vec![address.ip(), advertised.ip(), api.first_service_ip().into()];
    names.dedup();
    let pki = match &dir {
        Some(dir) => pki::kept_in(&dir.join("pki"), &names)?,
        None => pki::generate(&names)?,
    };
    let keys = match &dir {
        Some(dir) => Keys::kept_in(&dir.join("pki").join("sa.key"))?,
        None => Keys::generate()?,
    };
    let tls = server::tls(Some(&pki.ca_pem), &pki.server.certificate_pem, &pki.server.key_pem)?;
    let seed = args.seed.map_or_else(service::random_number, Ok)?;
    // It is dropped last, when all has been recorded.
    let (_recording, recorder) = args.record.begin("up", clock::time_of_day())?;
    let start = Start {
        seed,
        nodes: 0..nodes,
        docker,
        components: Components { controllers: true, scheduler: true },
        load_balancers: LoadBalancerRange { cidr: args.load_balancer_range },
        images: image_profiles(args.image_profile.as_deref())?,
        scheduling,
        clock: Clock::new(args.speed),
        api,
        advertised,
        root_ca: Some(pki.ca_pem.clone()),
        front_proxy: Some(pki::front_proxy(&pki.ca_pem, dir.as_ref().map(|dir| dir.join("pki")).as_deref())?),
        authorisation: args.authorization_mode.iter().map(|mode| mode.core()).collect(),
        several: None,
        recorder,
    };
    let tokens = TokenOptions { keys, issuer: ISSUER.to_owned(), audiences: Vec::new() };
    let service = Service::start(&runtime, start, (data, tokens), reached.to_string())?.perturbed(seed, args.perturb);
    kubeconfig::merge(&kubeconfig, &url, &pki)?;
    running.describe(&Instance {
        pid: std::process::id(),
        url,
        kubeconfig: kubeconfig.clone(),
        nodes: nodes + u32::from(args.docker),
    })?;
    service.serve(&runtime, listeners, tls, || {
        println!("{}", how_to_use(args, &kubeconfig));
        tracing::info!(address = %address, nodes, docker = args.docker, "the API is served");
    })
}

/// Reads the file of `--image-profile`.
fn image_profiles(file: Option<&Path>) -> Result<BTreeMap<String, ImageProfile>, String> {
    let Some(path) = file else { return Ok(BTreeMap::new()) };
    let bytes = std::fs::read(path).map_err(|e| format!("error: {}: {}", path.display(), explain(&e)))?;
    skeg_sim::files::images(&path.display().to_string(), &bytes).map_err(|problems| problems.to_string())
}

/// Reads the file of `--scheduler-config`. What it asks and is not carried out is logged.
fn scheduling(file: Option<&Path>) -> Result<Scheduling, String> {
    let Some(path) = file else { return Ok(Scheduling::default()) };
    let bytes = std::fs::read(path).map_err(|e| format!("error: {}: {}", path.display(), explain(&e)))?;
    let read = skeg_sim::files::scheduler::read_file(&path.display().to_string(), &bytes);
    let configuration = read.map_err(|problems| problems.to_string())?;
    configuration.warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
    Ok(configuration.scheduling)
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

/// What is printed for the user once the cluster runs.
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

/// The address that is advertised within the cluster (`--advertise-address`). If the listening address is not reachable
/// from elsewhere, it is that of the default network interface, which is found without sending a packet.
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
