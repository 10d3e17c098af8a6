//! `skeg agent`: the agent of one node in a process of its own, which talks to the API servers over HTTP.
//!
//! The agent is the machine that `skeg up` and the simulator run; [`link`] translates its messages, [`client`] carries
//! them to one of the servers and goes on to the next if need be, [`host`] is the thread on which it runs.

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

use super::args::LogFormat;
use super::{image_profiles, service, start_log};
use crate::Exit;
use crate::disk::explain;
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

Exit codes:
  0  it ran, and was asked to end
  2  bad input or bad usage";

/// Arguments of `agent`.
#[derive(Args, Debug)]
pub struct AgentArgs {
    /// How the servers are reached, and who this node is. Of the extension `skeg.dev/servers`, all servers are used.
    #[arg(long, value_name = "FILE")]
    kubeconfig: PathBuf,
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
    let Credentials { servers, tls, token } = Credentials::read(&args.kubeconfig)?;
    let client = Client::new(&servers, tls, token.as_deref());
    let client = client.map_err(|why| format!("error: {}: {why}", args.kubeconfig.display()))?;
    let images = image_profiles(args.image_profile.as_deref())?;
    let seed = service::random_number()?;

    let (tell, inbox) = mpsc::channel();
    let carrier = Carrier { client: Arc::new(client), runtime: http.handle().clone(), tell: tell.clone() };
    let (number, name) = (args.number, args.node_name.clone());
    // The machine and what it holds stay on the thread that makes them.
    let machine = move || {
        let mut config = service::node(number);
        if let Some(name) = name {
            config.node_name = Rc::from(name);
        }
        let subnets = Subnet::of_agents(std::iter::repeat_n(&config, number as usize + 1));
        let subnet = subnets.into_iter().next_back().expect("there is one for this node");
        let mut runtime = NodeRuntime::new(number, subnet, Rng::stream(seed, "runtime", 0));
        runtime.open();
        Host::new(config, runtime, images, carrier, Rng::stream(seed, "agent", 0)).run(&inbox);
    };
    let thread = std::thread::Builder::new().name("agent".to_owned()).spawn(machine);
    let thread = thread.map_err(|e| format!("error: threads could not be started: {}", explain(&e)))?;
    let stopped = http.block_on(async {
        let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        tracing::info!(servers = servers.join(","), "the agent runs");
        tokio::select! {
            _ = term.recv() => {}
            _ = int.recv() => {}
            () = ended(&thread) => {}
        }
        Ok::<(), std::io::Error>(())
    });
    stopped.map_err(|e| format!("error: signals cannot be listened to: {}", explain(&e)))?;
    // An error means that the thread has ended already.
    let _ = tell.send(Inbound::Stop);
    match thread.join() {
        Ok(()) => Ok(Exit::Well),
        Err(_) => Err("error: the agent has crashed, see above; this is a bug of skeg".to_owned()),
    }
}

/// Completes once a thread has ended.
async fn ended(thread: &std::thread::JoinHandle<()>) {
    while !thread.is_finished() {
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    }
}
