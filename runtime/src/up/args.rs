//! Arguments of `skeg up`, `skeg down` and `skeg status`.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use skeg_core::auth::Mode;
use skeg_core::features::FeatureGates;

use super::docker::UpkeepArgs;
use super::perturb::Perturb;
use crate::recording::writer::RecordArgs;

/// The end of the text of `skeg up --help`.
pub const UP_HELP: &str = "\
Examples:
  skeg up
      ten simulated nodes; kubectl is set up to use them under the context `skeg`
  skeg up --nodes 1000 --kubeconfig /tmp/skeg.yaml
      a thousand nodes; the kubeconfig is written to a file of its own

  sudo skeg up --docker --kubeconfig /tmp/skeg.yaml
      one node that runs real containers, by Docker
  skeg up --in-memory
      nothing is kept: the cluster is gone when it ends
  skeg up --etcd http://127.0.0.1:2379
      the cluster is kept in etcd

A cluster ends by Ctrl-C, SIGTERM or `skeg down`. What it was is found again in its data directory, or in etcd, by the
next one, also after a crash: nothing is acknowledged before it is safe on disk.

Exit codes:
  0  it ran, and was asked to end
  2  bad input or bad usage";

/// The default network of addresses for Services of type LoadBalancer.
pub const LOAD_BALANCERS: &str = "172.30.0.0/16";

/// Arguments of `up`.
#[derive(Args, Debug, Clone)]
pub struct UpArgs {
    /// Simulated nodes (16 CPUs, 64Gi, 110 pods each).
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(0..=20_000))]
    pub nodes: u32,
    /// Run real containers: the cluster's one node is Docker's engine on this host. Needs root.
    #[arg(long, conflicts_with_all = ["nodes", "speed", "image_profile"])]
    pub docker: bool,
    /// Where Docker listens: a path, or unix://PATH.
    #[arg(long, value_name = "SOCKET", default_value = "unix:///var/run/docker.sock", requires = "docker")]
    pub docker_host: String,
    /// How a Docker node keeps room on itself.
    #[command(flatten)]
    pub upkeep: UpkeepArgs,
    /// Address to serve the API at; port 0 takes any that is free.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:6443")]
    pub listen: SocketAddr,
    /// Where the cluster is kept; ~/.local/share/skeg where not given. Of a cluster in etcd, only the certificate
    /// authority and the key that signs tokens of service accounts.
    #[arg(long, value_name = "DIR", conflicts_with = "in_memory")]
    pub data_dir: Option<PathBuf>,
    /// Keep nothing on disk.
    #[arg(long, conflicts_with = "endpoints")]
    pub in_memory: bool,
    /// How etcd is reached, if the cluster is kept there.
    #[command(flatten)]
    pub etcd: EtcdArgs,
    /// How much faster than real time the cluster's time runs, so that back-offs, leases, TTLs and schedules pass in a
    /// fraction. Connections, time-outs of watches and certificates stay on real time. Ages that a client computes by
    /// its own clock are wrong; those in the columns of `kubectl get` are the cluster's.
    #[arg(long, value_name = "FACTOR", default_value_t = 1, requires = "in_memory",
        value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub speed: u32,
    /// Addresses for Services of type LoadBalancer.
    #[arg(long, value_name = "CIDR", default_value = LOAD_BALANCERS, value_parser = cidr)]
    pub load_balancer_range: ([u8; 4], u8),
    /// The network of cluster IPs. Clusters on one host that run real containers need different ones.
    #[arg(long, value_name = "CIDR", value_parser = cidr)]
    pub service_cluster_ip_range: Option<([u8; 4], u8)>,
    /// Features that are off by default: `GenericWorkload=true,GangScheduling=true` (docs/scheduler.md).
    #[arg(long, value_name = "NAME=BOOL,...", default_value = "", hide_default_value = true,
        value_parser = FeatureGates::parse)]
    pub feature_gates: FeatureGates,
    /// How images behave: a YAML file of `spec.images` as a scenario has it, from an image's name to its profile.
    #[arg(long, value_name = "FILE")]
    pub image_profile: Option<PathBuf>,
    /// How pods are scheduled: a KubeSchedulerConfiguration, as kube-scheduler takes it (docs/scheduler.md).
    #[arg(long, value_name = "FILE")]
    pub scheduler_config: Option<PathBuf>,
    /// How it is decided what users may do; several are asked in this order. The administrator may everything.
    #[arg(long, value_name = "MODES", default_value = "RBAC", value_delimiter = ',')]
    pub authorization_mode: Vec<AuthorizationMode>,
    /// Where to write the kubeconfig; without it, it is merged into your own ($KUBECONFIG or ~/.kube/config).
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// Disturb clients, so that a program's mistakes show: refuse requests, lose replies, hold back, end and expire
    /// watches, answer lists of any version from an old cache. All of it may happen on any cluster.
    #[arg(long, value_name = "LEVEL")]
    pub perturb: Option<Perturb>,
    /// Decides generated names, and what is disturbed of each program's n-th request; random where not given.
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
    /// How it is recorded, if it is.
    #[command(flatten)]
    pub record: RecordArgs,
    /// How the log is written to standard error.
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    pub log_format: LogFormat,
}

/// How to reach etcd. The names of the files are `kube-apiserver`'s.
#[derive(Args, Debug, Clone)]
pub struct EtcdArgs {
    /// Keep the cluster in etcd, whose members have these URLs.
    #[arg(long = "etcd", value_name = "URL,…", value_delimiter = ',')]
    pub endpoints: Vec<String>,
    /// Certificates of the authorities that sign etcd's certificate, for https URLs.
    #[arg(long = "etcd-cafile", value_name = "FILE", requires = "endpoints")]
    pub authorities: Option<PathBuf>,
    /// Certificate by which etcd knows this client.
    #[arg(long = "etcd-certfile", value_name = "FILE", requires_all = ["authorities", "key"])]
    pub certificate: Option<PathBuf>,
    /// Key of that certificate.
    #[arg(long = "etcd-keyfile", value_name = "FILE", requires = "certificate")]
    pub key: Option<PathBuf>,
    /// Name of etcd's user, if it authenticates by passwords.
    #[arg(long = "etcd-user", value_name = "NAME", requires_all = ["endpoints", "password"])]
    pub user: Option<String>,
    /// File with the password of that user; white space at its end does not count.
    #[arg(long = "etcd-password-file", value_name = "FILE", requires = "user")]
    pub password: Option<PathBuf>,
}

/// What a network looks like.
const CIDR: &str = "a network of IPv4 is written like 10.0.0.0/24, at most /30";

/// Parses an IPv4 network such as `10.0.0.0/24`, and clears its host bits.
pub fn cidr(text: &str) -> Result<([u8; 4], u8), String> {
    skeg_core::apiserver::parse_cidr(text).ok_or_else(|| CIDR.to_owned())
}

/// How it is decided what users may do, in Kubernetes' words.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub enum AuthorizationMode {
    /// Roles and bindings say.
    #[value(name = "RBAC")]
    Rbac,
    /// Everybody may everything.
    #[value(name = "AlwaysAllow")]
    AlwaysAllow,
    /// Nobody may anything.
    #[value(name = "AlwaysDeny")]
    AlwaysDeny,
}

impl AuthorizationMode {
    /// The mode in the core's words.
    pub fn core(self) -> Mode {
        match self {
            AuthorizationMode::Rbac => Mode::Rbac,
            AuthorizationMode::AlwaysAllow => Mode::AlwaysAllow,
            AuthorizationMode::AlwaysDeny => Mode::AlwaysDeny,
        }
    }
}

/// How the log is written.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub enum LogFormat {
    /// Lines to read.
    Text,
    /// A JSON object a line.
    Json,
}

/// Arguments of `down` and `status`.
#[derive(Args, Debug, Clone)]
pub struct InstanceArgs {
    /// Address that the cluster was told to listen at.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:6443")]
    pub listen: SocketAddr,
}
