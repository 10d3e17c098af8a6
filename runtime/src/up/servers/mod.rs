//! `skeg server`: one of several servers of a cluster that is kept in etcd.
//!
//! All of them serve the API; controllers and scheduler act on one, which is elected over a Lease, and stand by on the
//! others. What they share is in etcd, and in a directory of keys that each has a copy of ([`init`] makes it). The rest
//! is what `skeg up` runs, too.

pub mod certificates;
mod definitions;
mod init;
pub mod peers;

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use skeg_core::client::ElectionTimes;
use skeg_core::controllers::{LoadBalancerRange, PodRanges};
use skeg_core::features::FeatureGates;
use tokio::net::TcpListener;

use super::args::{AuthorizationMode, EtcdArgs, LOAD_BALANCERS, LogFormat, cidr};
use super::clock::{Clock, time_of_day};
use super::cluster::{ApiOptions, Components, Several};
use super::instance::{Instance, Running};
use super::keys::Keys;
use super::service::{self, Data, Service, Start};
use super::streams::remote::Kubelets;
use super::tokens::{ISSUER, TokenOptions};
use super::{
    advertised, image_profiles, listen_error, pki, reached_at, scheduling, server as sockets, start_log, tokens,
};
use crate::Exit;
use crate::cli::duration;
use crate::recording::writer::RecordArgs;

/// The end of the text of `skeg server --help`.
pub const SERVER_HELP: &str = "\
Examples:
  skeg server init /etc/skeg --servers https://10.0.0.1:6443,https://10.0.0.2:6443,https://10.0.0.3:6443
      the cluster's keys, and a kubeconfig for its administrator; copy the directory to the three hosts
  skeg server --pki /etc/skeg --etcd http://10.0.0.1:2379,http://10.0.0.2:2379,http://10.0.0.3:2379
      on each of the hosts

docs/servers.md says how they work together.

Exit codes:
  0  it ran, and was asked to end
  2  bad input or bad usage";

/// Arguments of `server`.
#[derive(Args, Debug)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub struct ServerArgs {
    #[command(subcommand)]
    command: Option<ServerCommand>,
    #[command(flatten)]
    run: RunArgs,
}

#[derive(Subcommand, Debug)]
enum ServerCommand {
    /// Make the keys of a cluster, and a kubeconfig for its administrator.
    Init(init::InitArgs),
    /// Make a kubeconfig by which `skeg agent` is a node of the cluster.
    Kubeconfig(init::KubeconfigArgs),
    /// Make a bootstrap token, by which new agents ask for their certificates: prints its Secret, for `kubectl apply`.
    Token(init::TokenArgs),
}

/// Arguments of one server.
#[derive(Args, Debug)]
struct RunArgs {
    /// The directory that `skeg server init` has made.
    #[arg(long, value_name = "DIR", required = true)]
    pki: Option<PathBuf>,
    #[command(flatten)]
    etcd: EtcdArgs,
    /// Address to serve the API at; port 0 takes any that is free.
    #[arg(long, value_name = "ADDRESS", default_value = "0.0.0.0:6443")]
    listen: SocketAddr,
    /// The address by which others reach this server: its endpoint of the Service `kubernetes`. Where not given, it is
    /// the address that is listened at, or that of the default network interface.
    #[arg(long, value_name = "IP")]
    advertise_address: Option<IpAddr>,
    /// What runs here. The API is served in any case; controllers and scheduler act on one server at a time.
    #[arg(long, value_name = "NAMES", value_delimiter = ',', default_value = "apiserver,controllers,scheduler")]
    components: Vec<Component>,
    /// How long a candidate waits, once a leader's Lease does not change any more, before it leads itself.
    #[arg(long, value_name = "DURATION", default_value = "15s", value_parser = duration)]
    leader_elect_lease_duration: Duration,
    /// How long a leader acts that cannot renew its Lease; shorter than the lease's duration.
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = duration)]
    leader_elect_renew_deadline: Duration,
    /// How often a leader renews its Lease, and the others look at it.
    #[arg(long, value_name = "DURATION", default_value = "2s", value_parser = duration)]
    leader_elect_retry_period: Duration,
    /// How long requests are served after this server was asked to end and `/readyz` has begun to fail: as long as load
    /// balancers take to notice.
    #[arg(long, value_name = "DURATION", default_value = "0s", value_parser = duration)]
    shutdown_delay_duration: Duration,
    /// How long the certificates hold that are signed for agents, which renew them in time.
    #[arg(long, value_name = "DURATION", default_value = "8760h", value_parser = duration)]
    cluster_signing_duration: Duration,
    /// Simulated nodes that this server runs; they come and go with it.
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=20_000))]
    nodes: u32,
    /// Number of the first of them. No two servers may run nodes of the same number.
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=20_000))]
    first_node: u32,
    /// Addresses for Services of type LoadBalancer.
    #[arg(long, value_name = "CIDR", default_value = LOAD_BALANCERS, value_parser = cidr)]
    load_balancer_range: ([u8; 4], u8),
    /// The network of cluster IPs, the same on all servers.
    #[arg(long, value_name = "CIDR", value_parser = cidr)]
    service_cluster_ip_range: Option<([u8; 4], u8)>,
    /// Features that are off by default, the same on all servers: `GenericWorkload=true,GangScheduling=true`
    /// (docs/scheduler.md).
    #[arg(long, value_name = "NAME=BOOL,...", default_value = "", hide_default_value = true,
        value_parser = FeatureGates::parse)]
    feature_gates: FeatureGates,
    /// Give each node a range of addresses for its pods, out of the cluster's; agents use it for their pods' network
    /// (`skeg agent --docker-network`). All servers are given the same.
    #[arg(long, requires = "cluster_cidr")]
    allocate_node_cidrs: bool,
    /// The network of all pods.
    #[arg(long, value_name = "CIDR", value_parser = cidr, requires = "allocate_node_cidrs")]
    cluster_cidr: Option<([u8; 4], u8)>,
    /// The length of the prefix of a node's range.
    #[arg(long, value_name = "BITS", default_value_t = 24, requires = "allocate_node_cidrs")]
    node_cidr_mask_size: u8,
    /// How images behave on simulated nodes: a YAML file of `spec.images` as a scenario has it.
    #[arg(long, value_name = "FILE")]
    image_profile: Option<PathBuf>,
    /// How pods are scheduled: a KubeSchedulerConfiguration, as kube-scheduler takes it (docs/scheduler.md); the same
    /// on all servers.
    #[arg(long, value_name = "FILE")]
    scheduler_config: Option<PathBuf>,
    /// How it is decided what users may do; several are asked in this order. The administrator may everything.
    #[arg(long, value_name = "MODES", default_value = "RBAC", value_delimiter = ',')]
    authorization_mode: Vec<AuthorizationMode>,
    /// How it is recorded, if it is.
    #[command(flatten)]
    record: RecordArgs,
    /// How the log is written to standard error.
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    log_format: LogFormat,
}

/// A part of a server.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
enum Component {
    /// The API.
    Apiserver,
    /// The controllers.
    Controllers,
    /// The scheduler.
    Scheduler,
}

/// `skeg server` and its subcommands.
pub fn server(args: &ServerArgs) -> Result<Exit, String> {
    match &args.command {
        Some(ServerCommand::Init(args)) => init::init(args),
        Some(ServerCommand::Kubeconfig(args)) => init::node(args),
        Some(ServerCommand::Token(args)) => init::token(args),
        None => args.run.run(),
    }
}

impl RunArgs {
    fn election(&self) -> Result<ElectionTimes, String> {
        let times = ElectionTimes {
            lease_duration: self.leader_elect_lease_duration,
            renew_deadline: self.leader_elect_renew_deadline,
            retry_period: self.leader_elect_retry_period,
        };
        times.check().map_err(|why| format!("error: --leader-elect-…: {why} (1.2)"))?;
        Ok(times)
    }

    /// The ranges that nodes are given; `services` is the network of cluster IPs.
    fn pod_ranges(&self, services: ([u8; 4], u8)) -> Result<Option<PodRanges>, String> {
        let Some(cluster) = self.cluster_cidr else { return Ok(None) };
        let ranges = PodRanges { cluster, mask: self.node_cidr_mask_size, services: Some(services) };
        ranges.check().map_err(|why| format!("error: --node-cidr-mask-size {}: {why}", ranges.mask))?;
        Ok(Some(ranges))
    }

    /// Whether a component runs here. Each of the others works through the API server beside it.
    fn runs(&self, component: Component) -> bool {
        self.components.contains(&component)
    }

    /// Where others reach a server that listens at this address.
    fn advertised(&self, address: SocketAddr) -> Result<SocketAddr, String> {
        match self.advertise_address {
            None => Ok(advertised(address)),
            Some(ip) if ip.is_loopback() || ip.is_unspecified() => Err(format!(
                "error: --advertise-address {ip}: other hosts do not reach this one by it; give an address of this host"
            )),
            Some(ip) => Ok(SocketAddr::new(ip, address.port())),
        }
    }

    fn run(&self) -> Result<Exit, String> {
        start_log(self.log_format);
        let (election, scheduling) = (self.election()?, scheduling(self.scheduler_config.as_deref())?);
        if !self.runs(Component::Apiserver) {
            return Err("error: --components: apiserver is missing; the others work through it".to_owned());
        }
        if self.etcd.endpoints.is_empty() {
            return Err("error: --etcd is missing; the servers of a cluster share one etcd, give its URLs".to_owned());
        }
        let mut api = ApiOptions::default();
        api.service_cidr = self.service_cluster_ip_range.unwrap_or(api.service_cidr);
        api.features = self.feature_gates;
        let pod_ranges = self.pod_ranges(api.service_cidr)?;
        let dir = self.pki.as_deref().expect("it is required");
        let runtime = service::http_threads()?;
        let listener = runtime.block_on(TcpListener::bind(self.listen)).map_err(|e| listen_error(self.listen, &e))?;
        let address = listener.local_addr().map_err(|e| listen_error(self.listen, &e))?;
        let (advertised, reached) = (self.advertised(address)?, reached_at(address));
        let mut running = Running::claim(address)?;
        let names = [address.ip(), advertised.ip(), api.first_service_ip().into()];
        let pki = pki::of_servers(dir, &names, &init::hosts(dir)?)?;
        let tls = sockets::tls(Some(&pki.ca_pem), &pki.server.certificate_pem, &pki.server.key_pem)?;
        let host = host_name()?;
        let unique = tokens::uuid().map_err(|status| format!("error: {}", status.message))?;
        let authority = pki::read_authority(dir)?;
        let several = Several {
            pod_ranges,
            holder: format!("{host}_{unique}"),
            host,
            at: Some(advertised).filter(|at| !at.ip().is_loopback()),
            election,
            shutdown_delay: self.shutdown_delay_duration,
            kubelets: Kubelets::new(&pki.ca_pem, &pki::kubelet_client(&authority)?)?,
            authority,
            signing_duration: self.cluster_signing_duration,
        };
        // It is dropped last, when all has been recorded.
        let (_recording, recorder) = self.record.begin("server", time_of_day())?;
        let start = Start {
            seed: service::random_number()?,
            nodes: self.first_node..self.first_node + self.nodes,
            docker: None,
            components: Components {
                controllers: self.runs(Component::Controllers),
                scheduler: self.runs(Component::Scheduler),
            },
            load_balancers: LoadBalancerRange { cidr: self.load_balancer_range },
            images: image_profiles(self.image_profile.as_deref())?,
            scheduling,
            clock: Clock::new(1),
            api,
            advertised,
            root_ca: Some(pki.ca_pem.clone()),
            front_proxy: Some(pki::front_proxy(&pki.ca_pem, Some(dir))?),
            authorisation: self.authorization_mode.iter().map(|mode| mode.core()).collect(),
            several: Some(several),
            recorder,
        };
        let keys = Keys::kept_in(&init::signing_key(dir))?;
        let tokens = TokenOptions { keys, issuer: ISSUER.to_owned(), audiences: Vec::new() };
        let data = Data::Etcd(self.etcd.clone());
        let service = Service::start(&runtime, start, (data, tokens), reached.to_string())?;
        let url = format!("https://{reached}");
        running.describe(&Instance {
            pid: std::process::id(),
            url: url.clone(),
            kubeconfig: init::kubeconfig(dir),
            nodes: self.nodes,
        })?;
        service.serve(&runtime, vec![listener], tls, || {
            println!("serving {url}");
            tracing::info!(address = %address, "the API is served");
        })
    }
}

/// The name of this host.
pub fn host_name() -> Result<String, String> {
    const FILE: &str = "/proc/sys/kernel/hostname";
    let name = std::fs::read_to_string(FILE).map_err(|e| format!("error: {FILE}: {}", crate::disk::explain(&e)))?;
    Ok(name.trim().to_lowercase())
}
