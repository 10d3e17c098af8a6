//! `skeg agent`: the agent of one node in a process of its own, which talks to the API servers over HTTP.
//!
//! The agent is the machine that `skeg up` and the simulator run; [`link`] translates its messages, [`client`] carries
//! them to one of the servers and goes on to the next if need be, [`host`] is the thread on which it runs, and
//! [`certificate`] gets and renews what the servers know the node by. Its [`containers`] are simulated, or Docker's on
//! this host; those get [`tokens`], and Services and [`names`] by what is in [`serving`].

mod certificate;
mod client;
mod containers;
mod host;
mod kubeconfig;
pub mod link;
mod names;
mod port;
mod range;
mod routes;
mod rules;
mod serving;
mod tokens;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc;

use clap::Args;
use skeg_core::agent::{AgentConfig, EvictionPolicy};
use skeg_core::{Kinds, Rng};
use skeg_sim::runtime::NodeRuntime;
use skeg_sim::scenario::ImageProfile;
use skeg_sim::subnet::Subnet;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;

use super::args::{LogFormat, cidr};
use super::clock::time_of_day;
use super::cluster::ApiOptions;
use super::servers::host_name;
use super::{advertised, ask, docker, image_profiles, service, start_log};
use crate::Exit;
use crate::disk::explain;
use crate::recording::tape::Tape;
use crate::recording::writer::{RecordArgs, Recorder};
use certificate::Identity;
pub use client::Client;
use containers::{Containers, Real, Simulated};
use host::{Carrier, Host, Inbound};
pub use kubeconfig::Credentials;
use port::{Port, Shown};
use serving::Serving;

/// The end of the text of `skeg agent --help`.
pub const AGENT_HELP: &str = "\
Examples:
  skeg server kubeconfig /etc/skeg --node node-7 --out node-7.conf
      what makes an agent node-7, made where the cluster's keys are
  skeg agent --kubeconfig node-7.conf --number 7
      the node, on any host that reaches the servers
  skeg agent --bootstrap-kubeconfig bootstrap.conf --kubeconfig /var/lib/skeg/node.conf --number 7
      the same with a token for any node, which `skeg server token` makes
  sudo skeg agent --bootstrap-kubeconfig bootstrap.conf --kubeconfig /var/lib/skeg/node.conf --docker
      a node that runs real containers, by Docker on this host

Exit codes:
  0  it ran, and was asked to end
  2  bad input or bad usage";

/// Arguments of `agent`.
#[derive(Args, Debug)]
pub struct AgentArgs {
    /// How the servers are reached, and who this node is. Of the extension `skeg.dev/servers`, all servers are used.
    #[arg(long, value_name = "FILE")]
    kubeconfig: PathBuf,
    /// A kubeconfig with a bootstrap token. If --kubeconfig does not exist, or its certificate has ended, the node asks
    /// for one by this, and writes the other.
    #[arg(long, value_name = "FILE")]
    bootstrap_kubeconfig: Option<PathBuf>,
    /// Run real containers, by Docker's engine on this host; otherwise they are simulated. Needs root.
    #[arg(long, conflicts_with_all = ["number", "image_profile"])]
    docker: bool,
    #[command(flatten)]
    docker_node: DockerArgs,
    /// Which of the cluster's simulated nodes this is: the addresses of the node and of its pods follow from it. No two
    /// nodes may have the same number.
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=20_000))]
    number: u32,
    /// Name of the node; `node-N` where not given, and with --docker the host's name. The kubeconfig's user must be
    /// this node.
    #[arg(long, value_name = "NAME")]
    node_name: Option<String>,
    /// How images behave: a YAML file of `spec.images` as a scenario has it, from an image's name to its profile.
    #[arg(long, value_name = "FILE")]
    image_profile: Option<PathBuf>,
    /// How it is recorded, if it is.
    #[command(flatten)]
    record: RecordArgs,
    /// How the log is written to standard error.
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    log_format: LogFormat,
}

/// Arguments of an agent that runs real containers.
#[derive(Args, Debug)]
struct DockerArgs {
    /// Where Docker listens: a path, or unix://PATH.
    #[arg(long, value_name = "SOCKET", default_value = "unix:///var/run/docker.sock", requires = "docker")]
    docker_host: String,
    /// How it keeps room on itself.
    #[command(flatten)]
    upkeep: docker::UpkeepArgs,
    /// Address of the node (`InternalIP`), by which servers and other nodes reach it; where not given, that of the
    /// default network interface.
    #[arg(long, value_name = "IP", requires = "docker")]
    node_ip: Option<Ipv4Addr>,
    /// Where the files of pods are kept; /var/lib/skeg-NODE where not given.
    #[arg(long, value_name = "DIR", requires = "docker")]
    root_dir: Option<PathBuf>,
    /// A network of Docker for pods, which is made with the range of addresses that servers give this node
    /// (`skeg server --allocate-node-cidrs`); where not given, pods are on Docker's default bridge, with its own range.
    #[arg(long, value_name = "NAME", requires = "docker")]
    docker_network: Option<String>,
    /// The network of cluster IPs, the same as on all servers.
    #[arg(long, value_name = "CIDR", value_parser = cidr, requires = "docker")]
    service_cluster_ip_range: Option<([u8; 4], u8)>,
}

impl DockerArgs {
    /// Looks for the engine, once the node has the range that it needs.
    async fn find(&self, node: String, client: &Client) -> Result<docker::Found, String> {
        let network = match &self.docker_network {
            Some(name) => Some(docker::Network::new(name, &range::wait(client, &node).await)?),
            None => None,
        };
        let address = self.node_ip.map_or_else(|| advertised(([0, 0, 0, 0], 0).into()).ip(), IpAddr::from);
        if address.is_unspecified() {
            let why = "this host has no default route, so its address is not known";
            return Err(format!("error: --docker: {why}; give it by --node-ip"));
        }
        let (services, length) = self.service_cluster_ip_range.unwrap_or(ApiOptions::default().service_cidr);
        let options = docker::Options {
            socket: self.docker_host.trim_start_matches("unix://").into(),
            state: self.root_dir.clone().unwrap_or_else(|| format!("/var/lib/skeg-{node}").into()),
            cluster: format!("agent {node}"),
            node: Some(node),
            host_ip: address,
            ephemeral: false,
            services: (services.into(), length),
            network,
            images: self.upkeep.images(true)?,
            eviction: self.upkeep.eviction(EvictionPolicy::DEFAULT)?,
        };
        let found = docker::find(options).await?;
        docker::NOT_YET.iter().for_each(|what| tracing::warn!("not yet on a Docker node: {what}"));
        Ok(found)
    }
}

/// What the agent's thread makes its machines of.
struct Plan {
    node: String,
    seed: u64,
    number: u32,
    images: BTreeMap<String, ImageProfile>,
    docker: Option<(docker::Found, ask::ToCluster)>,
    carrier: Carrier,
    recorder: Option<Recorder>,
}

impl Plan {
    /// Makes the machines. They and what they hold stay on the thread that calls this.
    fn make(self) -> Result<Host, String> {
        let Plan { node, seed, number, images, docker, carrier, recorder } = self;
        let node: Rc<str> = Rc::from(node);
        let tape = Tape::new(recorder, Kinds::default());
        let Some((found, local)) = docker else {
            let config = AgentConfig { node_name: node, ..service::node(number) };
            let subnets = Subnet::of_agents(std::iter::repeat_n(&config, number as usize + 1));
            let subnet = subnets.into_iter().next_back().expect("there is one for this node");
            let mut runtime = NodeRuntime::new(number, subnet, Rng::stream(seed, "runtime", 0));
            runtime.open();
            let containers = Containers::Simulated(Simulated::new(runtime, images));
            let recorded = tape.agent(&config, (seed, "agent", 0));
            return Ok(Host::new(config, containers, None, carrier, recorded));
        };
        let (config, bridge) = (found.agent_config(), found.bridge());
        let (runtime, rules) = found.start(carrier.runtime.clone(), local)?;
        let serving = match (rules, bridge) {
            (Some(rules), Some(bridge)) => Some(Serving::new(&node, rules, bridge, seed, &tape)?),
            (_, _) => None,
        };
        let containers = Containers::Real(Real::new(runtime, carrier.clone()));
        let recorded = tape.agent(&config, (seed, "agent", 0));
        Ok(Host::new(config, containers, serving, carrier, recorded))
    }
}

/// `skeg agent`: runs until it is asked to stop.
pub fn agent(args: &AgentArgs) -> Result<Exit, String> {
    start_log(args.log_format);
    let http = service::http_threads()?;
    let images = image_profiles(args.image_profile.as_deref())?;
    let seed = service::random_number()?;
    let node = match &args.node_name {
        Some(name) => name.clone(),
        None if args.docker => host_name()?,
        None => service::node(args.number).node_name.to_string(),
    };
    let (kubeconfig, bootstrap) = (args.kubeconfig.clone(), args.bootstrap_kubeconfig.clone());
    let identity = Identity { node: node.clone(), kubeconfig, bootstrap };
    if let Some(bootstrap) = identity.bootstrap.as_deref().filter(|_| identity.is_of_no_use()) {
        let asked = async {
            tokio::select! {
                asked = certificate::bootstrap(&identity, bootstrap) => asked.map(|()| true),
                stopped = stopped() => stopped.map(|()| false),
            }
        };
        if !http.block_on(asked)? {
            return Ok(Exit::Well);
        }
    }
    let credentials = Credentials::read(&args.kubeconfig)?;
    let authority = String::from_utf8_lossy(&credentials.authority).into_owned();
    credentials.certificate.as_deref().map_or(Ok(()), |own| identity.check(own))?;
    let (config, own, servers) =
        (credentials.config.clone(), credentials.certificate.clone(), credentials.servers.join(","));
    let client = Client::new(credentials, "kubelet");
    let client = Arc::new(client.map_err(|why| format!("error: {}: {why}", args.kubeconfig.display()))?);
    if let Some(own) = own {
        let rng = Rng::stream(seed, "certificate", 0);
        http.spawn(certificate::renew(identity, Arc::clone(&client), config, own, rng));
    }
    let docker = match args.docker {
        true => {
            let found = async {
                tokio::select! {
                    found = args.docker_node.find(node.clone(), &client) => found.map(Some),
                    stopped = stopped() => stopped.map(|()| None),
                }
            };
            let Some(found) = http.block_on(found)? else { return Ok(Exit::Well) };
            Some(found)
        }
        false => None,
    };
    if let Some((_, at)) = docker.as_ref().and_then(docker::Found::dns) {
        http.spawn(names::keep(Arc::clone(&client), node.clone(), at));
    }

    let (tell, inbox) = mpsc::channel();
    let carrier = Carrier { client, runtime: http.handle().clone(), tell: tell.clone() };
    let docker = match docker {
        Some(found) => {
            let local = carrier.local()?;
            let listener = http.block_on(port::listen())?;
            let port = Port { client: Arc::clone(&carrier.client), node: node.clone(), local: local.clone() };
            http.spawn(open_port(port, listener, authority, found.host_ip(), Rng::stream(seed, "port", 0)));
            Some((found, local))
        }
        None => None,
    };
    // It is dropped last, when all has been recorded.
    let (_recording, recorder) = args.record.begin(&format!("agent-{node}"), time_of_day())?;
    let plan = Plan { node, seed, number: args.number, images, docker, carrier, recorder };
    let (alive, ended) = oneshot::channel::<()>();
    let machines = move || {
        let _alive = alive;
        plan.make().map(|host| host.run(&inbox))
    };
    let thread = std::thread::Builder::new().name("agent".to_owned()).spawn(machines);
    let thread = thread.map_err(|e| format!("error: threads could not be started: {}", explain(&e)))?;
    tracing::info!(servers, "the agent runs");
    http.block_on(async {
        tokio::select! {
            stopped = stopped() => stopped,
            // It is dropped with the thread.
            _ = ended => Ok(()),
        }
    })?;
    // An error means that the thread has ended already.
    let _ = tell.send(Inbound::Stop);
    match thread.join() {
        Ok(ended) => ended.map(|()| Exit::Well),
        Err(_) => Err("error: the agent has crashed, see above; this is a bug of skeg".to_owned()),
    }
}

/// Serves the port once it has its first certificate, and renews that.
async fn open_port(port: Port, listener: TcpListener, authority: String, ip: IpAddr, rng: Rng) {
    let (shown, (begun, begins)) = (Arc::new(Shown::default()), oneshot::channel());
    let (node, client) = (port.node.clone(), Arc::clone(&port.client));
    tokio::spawn(certificate::serve(node, ip, client, Arc::clone(&shown), begun, rng));
    if begins.await.is_ok() {
        port.serve(listener, authority, shown).await;
    }
}

/// Completes once the process is asked to end.
async fn stopped() -> Result<(), String> {
    let error = |e: std::io::Error| format!("error: signals cannot be listened to: {}", explain(&e));
    let mut term = signal(SignalKind::terminate()).map_err(error)?;
    let mut int = signal(SignalKind::interrupt()).map_err(error)?;
    tokio::select! {
        _ = term.recv() => {}
        _ = int.recv() => {}
    }
    Ok(())
}
