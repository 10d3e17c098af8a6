//! `skeg agent`: the agent of one node in a process of its own, which talks to the API servers over HTTP.
//!
//! The agent is the machine that `skeg up` and the simulator run; [`link`] translates its messages, [`client`] carries
//! them to one of the servers and goes on to the next if need be, [`host`] is the thread on which it runs, and
//! [`certificate`] gets and renews what the servers know the node by.

mod certificate;
mod client;
mod host;
mod kubeconfig;
mod link;

use std::path::PathBuf;
use std::rc::Rc;
use std::sync::{Arc, mpsc};

use clap::{Args, ValueEnum};
use skeg_core::Rng;
use skeg_sim::runtime::NodeRuntime;
use skeg_sim::subnet::Subnet;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;

use super::args::LogFormat;
use super::{image_profiles, service, start_log};
use crate::Exit;
use crate::disk::explain;
use certificate::Identity;
use client::Client;
use host::{Carrier, Host, Inbound};
use kubeconfig::Credentials;

/// The end of the text of `skeg agent --help`.
pub const AGENT_HELP: &str = "\
Examples:
  skeg server kubeconfig /etc/skeg --node node-7 --out node-7.conf
      what makes an agent node-7, made where the cluster's keys are
  skeg agent --kubeconfig node-7.conf --number 7
      the node, on any host that reaches the servers
  skeg agent --bootstrap-kubeconfig bootstrap.conf --kubeconfig /var/lib/skeg/node.conf --number 7
      the same with a token for any node, which `skeg server token` makes

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
    /// What runs the containers.
    #[arg(long, value_name = "RUNTIME", default_value = "simulated")]
    runtime: RuntimeKind,
    /// Which of the cluster's simulated nodes this is: the addresses of the node and of its pods follow from it. No two
    /// nodes may have the same number.
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=20_000))]
    number: u32,
    /// Name of the node; `node-N` where not given. The kubeconfig's user must be this node.
    #[arg(long, value_name = "NAME")]
    node_name: Option<String>,
    /// How images behave: a YAML file of `spec.images` as a scenario has it, from an image's name to its profile.
    #[arg(long, value_name = "FILE")]
    image_profile: Option<PathBuf>,
    /// How the log is written to standard error.
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    log_format: LogFormat,
}

/// What runs containers.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
enum RuntimeKind {
    /// Nothing: containers behave as the profiles of their images say.
    Simulated,
}

/// `skeg agent`: runs until it is asked to stop.
pub fn agent(args: &AgentArgs) -> Result<Exit, String> {
    start_log(args.log_format);
    let RuntimeKind::Simulated = args.runtime;
    let http = service::http_threads()?;
    let images = image_profiles(args.image_profile.as_deref())?;
    let seed = service::random_number()?;
    let node = args.node_name.clone().unwrap_or_else(|| service::node(args.number).node_name.to_string());
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
    credentials.certificate.as_deref().map_or(Ok(()), |own| identity.check(own))?;
    let (config, own, servers) =
        (credentials.config.clone(), credentials.certificate.clone(), credentials.servers.join(","));
    let client = Client::new(credentials);
    let client = Arc::new(client.map_err(|why| format!("error: {}: {why}", args.kubeconfig.display()))?);
    if let Some(own) = own {
        let rng = Rng::stream(seed, "certificate", 0);
        http.spawn(certificate::renew(identity, Arc::clone(&client), config, own, rng));
    }

    let (tell, inbox) = mpsc::channel();
    let carrier = Carrier { client, runtime: http.handle().clone(), tell: tell.clone() };
    let number = args.number;
    let (alive, ended) = oneshot::channel::<()>();
    // The machine and what it holds stay on the thread that makes them.
    let machine = move || {
        let _alive = alive;
        let mut config = service::node(number);
        config.node_name = Rc::from(node);
        let subnets = Subnet::of_agents(std::iter::repeat_n(&config, number as usize + 1));
        let subnet = subnets.into_iter().next_back().expect("there is one for this node");
        let mut runtime = NodeRuntime::new(number, subnet, Rng::stream(seed, "runtime", 0));
        runtime.open();
        Host::new(config, runtime, images, carrier, Rng::stream(seed, "agent", 0)).run(&inbox);
    };
    let thread = std::thread::Builder::new().name("agent".to_owned()).spawn(machine);
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
        Ok(()) => Ok(Exit::Well),
        Err(_) => Err("error: the agent has crashed, see above; this is a bug of skeg".to_owned()),
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
