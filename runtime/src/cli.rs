//! The command line.

use std::ops::Range;
use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgGroup, Args, Parser, Subcommand, ValueEnum};
use skeg_core::scheduler::gpu::Policy;
use skeg_sim::files::{LoadOptions, duration};
use skeg_sim::look::Show;
use skeg_sim::scenario::FaultLevel;

/// A container orchestrator that speaks the Kubernetes API: rehearse a cluster before it runs.
#[derive(Parser, Debug)]
#[command(name = "skeg", version, max_term_width = 100, arg_required_else_help = true, after_help = EXIT_CODES)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

const EXIT_CODES: &str = "\
Exit codes:
  0  all went well
  2  bad input or bad usage
  3  an invariant was broken
  4  the declared state was not reached and kept, or an expectation was not met";

const RUN_HELP: &str = "\
Examples:
  skeg sim run examples/shop-zone-outage.yaml
      a scenario: its cluster, manifests, timeline and expectations
  skeg sim run app.yaml --nodes 5000 --zones 3
      plain manifests on 5,000 nodes; ends when everything is ready
  skeg sim run app.yaml --nodes 50 --for 10m --faults heavy --seed 7 --report run.html
      ten minutes of faults drawn by seed 7, then everything heals; a page with plots
  skeg sim run app.yaml --nodes 50 --for 10m --faults heavy --seeds 0..1000 --jobs 2
      a thousand such runs; each failing seed is printed with the command that replays it
  kubectl get nodes,all,cm,pdb -A -o yaml > live.yaml && skeg sim run live.yaml --keep-bindings
      a live cluster as it stands, with its own nodes

Exit codes:
  0  all went well
  2  bad input or bad usage
  3  an invariant was broken
  4  the declared state was not reached and kept, or an expectation was not met";

const EXPLORE_HELP: &str = "\
Examples:
  skeg sim explore --time 10m --jobs 2
      ten minutes of small clusters; each seed that fails is printed with the command that runs it again
  skeg sim explore app.yaml --nodes 5 --time 10m
      your own manifests: their cluster, users and faults are drawn
  skeg sim explore --seed 7
      one of them, with its report

Exit codes:
  0  all went well
  2  bad input or bad usage
  3  an invariant was broken
  4  the declared state was not reached and kept";

/// The ids of [`CampaignArgs`].
const CAMPAIGN: [&str; 4] = ["jobs", "fail_fast", "time", "junit"];

const SHRINK_HELP: &str = "\
Examples:
  skeg sim shrink --seed 417 --out small.yaml
      what `skeg sim explore --seed 417` ran
  skeg sim shrink app.yaml --nodes 50 --for 10m --faults heavy --seed 7 --out small.yaml
      what `skeg sim run` ran with the same arguments
  skeg sim run small.yaml --seed 417
      runs the result

The expectations of a scenario are not part of the result: what it keeps is a broken invariant, a state that is not
reached, or a panic.

Exit codes:
  0  the scenario is written
  2  bad input or bad usage, or the seed does not fail";

const WHY_HELP: &str = "\
Examples:
  skeg sim why --seed 417
      what `skeg sim explore --seed 417` ran
  skeg sim why small.yaml --seed 417
      what `skeg sim shrink --out small.yaml` left of it: the story is shorter
  skeg sim why app.yaml --nodes 50 --for 10m --faults heavy --seed 7
      what `skeg sim run` ran with the same arguments

Each line is a commit of the store, with who asked for it, or a fault. What a writer had not heard of when it asked, of
the same objects, their owners and what those own, is remarked on below it.

Exit codes:
  0  the story is told
  2  bad input or bad usage, or the seed does not fail";

const REPLAY_HELP: &str = "\
Examples:
  skeg sim replay run.trace
      a simulated run, which `skeg sim run --trace run.trace` recorded
  skeg sim replay run.trace --until 93.2s --show queue --show view
      what controllers do and have before them at that moment of it, and how far their views have come
  skeg sim replay run.trace --until 93.2s --show deploy/shop/web
      a Deployment as the store has it, and which revision of it each process sees
  skeg sim replay /var/lib/skeg/recordings
      a real one, which `skeg up`, `skeg server` or `skeg agent` recorded with --record: each of its machines is given
      the inputs that it had there, and each decision is compared (docs/recording.md)

Exit codes:
  0  all is as it was recorded
  2  bad input or bad usage
  3  something is not, or, of a simulated run, an invariant was broken
  4  of a simulated run: the declared state was not reached and kept, or an expectation was not met";

const ARRIVALS_HELP: &str = "\
Examples:
  skeg sim arrivals openb_node_list_gpu_node.csv openb_pod_list_default.csv --seeds 0..10 --report gpus.html
      the openb trace under every policy: tables, and a page with the curves
  skeg sim arrivals nodes.csv pods.csv --policy FGD,BestFit --arrivals 100 --output json

Columns of the nodes: sn, cpu_milli, memory_mib, gpu, model; of the pods: name, cpu_milli, memory_mib, num_gpu,
gpu_milli, gpu_spec (models, such as V100M16|V100M32; may be left out). Others are passed over.

Exit codes:
  0  all went well
  2  bad input or bad usage";

/// Commands.
#[derive(Subcommand, Debug)]
pub enum Command {
    /// Simulate a cluster: deterministic, in virtual time, with faults.
    #[command(subcommand)]
    Sim(Sim),
    /// Run a cluster with simulated nodes, and serve the Kubernetes API for it.
    #[cfg(feature = "up")]
    #[command(after_help = crate::up::UP_HELP)]
    Up(crate::up::UpArgs),
    /// Run one of several servers of a cluster that is kept in etcd.
    #[cfg(feature = "up")]
    #[command(after_help = crate::up::SERVER_HELP)]
    Server(Box<crate::up::ServerArgs>),
    /// Run the agent of a node, which talks to the servers over HTTP.
    #[cfg(feature = "up")]
    #[command(after_help = crate::up::AGENT_HELP)]
    Agent(crate::up::AgentArgs),
    /// Replace a ReplicationController by another one, pod by pod.
    #[cfg(feature = "up")]
    #[command(after_help = crate::up::ROLLING_UPDATE_HELP)]
    RollingUpdate(crate::up::RollingUpdateArgs),
    /// End a cluster that `skeg up` runs, or a server.
    #[cfg(feature = "up")]
    Down(crate::up::InstanceArgs),
    /// Say whether a cluster runs, and where; exit code 1 if none does.
    #[cfg(feature = "up")]
    Status(crate::up::InstanceArgs),
    /// Say what this host lacks: Docker's engine, nftables, etcd, the servers and their clocks.
    #[cfg(feature = "up")]
    #[command(after_help = crate::up::DOCTOR_HELP)]
    Doctor(crate::up::DoctorArgs),
    /// Make kube-apiserver, etcd and kubectl for test suites on controller-runtime's envtest.
    #[cfg(feature = "up")]
    #[command(after_help = crate::up::envtest::HELP)]
    EnvtestAssets(crate::up::envtest::AssetsArgs),
    /// Print the version.
    Version,
}

/// Commands of the simulator.
#[derive(Subcommand, Debug)]
pub enum Sim {
    /// Run scenarios, manifests or exports of a live cluster.
    #[command(after_help = RUN_HELP)]
    Run(RunArgs),
    /// Say where a pod could run at the end of a run and where not, with scores, and what would make it fit.
    Explain(ExplainArgs),
    /// Run many small clusters, each drawn whole by its seed: nodes, workloads, users, faults.
    #[command(after_help = EXPLORE_HELP)]
    Explore(ExploreArgs),
    /// Make a small scenario file of a failing seed; it fails in the same way.
    #[command(after_help = SHRINK_HELP)]
    Shrink(ShrinkArgs),
    /// Say how a failure came about: who wrote what, what each writer had not heard of, which faults were in force.
    #[command(after_help = WHY_HELP)]
    Why(WhyArgs),
    /// Let the pods of a trace arrive under policies for sharing GPUs, and say how much of the GPUs is not allocated.
    #[command(after_help = ARRIVALS_HELP)]
    Arrivals(ArrivalsArgs),
    /// Run a recorded trace, or the machines of a recorded real run, again, and compare every event or decision; or
    /// look into the machines of a trace at a moment.
    #[command(after_help = REPLAY_HELP)]
    Replay(ReplayArgs),
    /// Make profiles of images (`spec.images`, `--image-profile`) after how they behaved in a recorded real run.
    Fit(FitArgs),
    /// Show the first event where two recorded runs part; exit code 1 if they do.
    Diff(DiffArgs),
}

/// Arguments of every command that runs many seeds.
#[derive(Args, Debug, Clone, Default)]
pub struct CampaignArgs {
    /// Runs at the same time; as many as there are CPUs where not given.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub jobs: Option<u32>,
    /// Start no further run once one has failed.
    #[arg(long)]
    pub fail_fast: bool,
    /// Start no further run after this real time.
    #[arg(long, visible_alias = "max-time", value_name = "DURATION", value_parser = positive_duration)]
    pub time: Option<Duration>,
    /// Write the result of each seed as JUnit XML.
    #[arg(long, value_name = "FILE")]
    pub junit: Option<PathBuf>,
}

/// Arguments of `sim run`.
#[derive(Args, Debug, Clone)]
#[command(group = ArgGroup::new("of seeds").args(CAMPAIGN).multiple(true).requires("seeds"))]
pub struct RunArgs {
    /// Scenarios, Kubernetes manifests, exports (`kubectl get … -o yaml`), directories of them; `-` for standard input.
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<String>,
    /// Nodes of the cluster (16 CPUs, 64Gi, 110 pods each unless a scenario says otherwise).
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub nodes: Option<u32>,
    /// Zones that nodes are spread over.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub zones: Option<u32>,
    /// Seed of everything that is drawn: the same seed, the same run.
    #[arg(long, value_name = "SEED", default_value_t = 0)]
    pub seed: u64,
    /// Virtual time to run; without it, plain manifests run until everything has converged.
    #[arg(long = "for", value_name = "DURATION", value_parser = positive_duration)]
    pub duration: Option<Duration>,
    /// Virtual time, after all faults have healed, to reach the declared state and keep it.
    #[arg(long, value_name = "DURATION", value_parser = positive_duration)]
    pub settle: Option<Duration>,
    /// How heavily faults are drawn by the seed.
    #[arg(long, value_name = "LEVEL")]
    pub faults: Option<Faults>,
    /// Keep the pods of an export on their nodes, rather than let the scheduler place them anew.
    #[arg(long)]
    pub keep_bindings: bool,
    /// How pods are scheduled: a KubeSchedulerConfiguration, as kube-scheduler takes it (docs/scheduler.md).
    #[arg(long, value_name = "FILE")]
    pub scheduler_config: Option<String>,
    /// Refuse input (exit code 2) of which this build does not carry out everything, rather than warn of it.
    #[arg(long)]
    pub strict: bool,
    /// What is printed on standard output.
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    pub output: Output,
    /// Write a self-contained page with plots.
    #[arg(long, value_name = "FILE")]
    pub report: Option<PathBuf>,
    /// Record every event, for `skeg sim replay` and `skeg sim diff`.
    #[arg(long, value_name = "FILE")]
    pub trace: Option<PathBuf>,
    /// Run every seed of a range, such as 0..1000 (the end is not run).
    #[arg(long, value_name = "A..B", value_parser = seed_range, conflicts_with_all = ["seed", "trace", "report"])]
    pub seeds: Option<Range<u64>>,
    /// How the seeds are run.
    #[command(flatten)]
    pub campaign: CampaignArgs,
    /// Check invariants, but print only the result.
    #[arg(long, short)]
    pub quiet: bool,
}

/// What is explained.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq)]
pub enum Explained {
    /// Where a pod could run and where not.
    Pod,
}

/// Arguments of `sim explain`.
#[derive(Args, Debug)]
pub struct ExplainArgs {
    /// What is explained.
    #[arg(value_name = "pod")]
    pub what: Explained,
    /// Its name.
    #[arg(value_name = "NAME")]
    pub name: String,
    /// Its namespace.
    #[arg(long, short, value_name = "NAMESPACE", default_value = "default")]
    pub namespace: String,
    /// The run at whose end it is explained.
    #[command(flatten)]
    pub run: RunArgs,
}

/// Arguments of `sim explore`.
#[derive(Args, Debug, Clone)]
pub struct ExploreArgs {
    /// Manifests whose objects are the workload; without any, workloads are drawn too.
    #[arg(value_name = "FILE")]
    pub files: Vec<String>,
    /// Nodes of the cluster of the FILEs.
    #[arg(long, value_name = "N", requires = "files", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub nodes: Option<u32>,
    /// Explore these seeds, such as 0..1000 (the end is not run); from 0 on where not given.
    #[arg(long, value_name = "A..B", value_parser = seed_range)]
    pub seeds: Option<Range<u64>>,
    /// Run one seed, and report on it as `skeg sim run` does.
    #[arg(long, value_name = "SEED", conflicts_with_all = ["seeds", "time", "jobs", "fail_fast", "junit"])]
    pub seed: Option<u64>,
    /// Write what the seed draws as a scenario file, which `skeg sim run FILE --seed SEED` runs alike.
    #[arg(long, value_name = "FILE", requires = "seed")]
    pub out: Option<PathBuf>,
    /// How the seeds are run; for a minute where neither seeds nor a time are given.
    #[command(flatten)]
    pub campaign: CampaignArgs,
    /// What is printed on standard output.
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    pub output: Output,
    /// Print only the result.
    #[arg(long, short)]
    pub quiet: bool,
}

/// Which run failed.
#[derive(Args, Debug, Clone)]
pub struct FailedArgs {
    /// The FILEs of the run that failed; none for a seed of `skeg sim explore`.
    #[arg(value_name = "FILE")]
    pub files: Vec<String>,
    /// The seed that failed.
    #[arg(long, value_name = "SEED")]
    pub seed: u64,
    /// The FILEs were explored (`skeg sim explore FILE`), not run.
    #[arg(long, requires = "files")]
    pub explored: bool,
    /// Nodes of the cluster, as in the run that failed.
    #[arg(long, value_name = "N", requires = "files", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub nodes: Option<u32>,
    /// Zones that nodes are spread over, as in the run that failed.
    #[arg(long, value_name = "N", requires = "files", value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub zones: Option<u32>,
    /// Virtual time to run, as in the run that failed.
    #[arg(long = "for", value_name = "DURATION", requires = "files", value_parser = positive_duration)]
    pub duration: Option<Duration>,
    /// Virtual time to settle, as in the run that failed.
    #[arg(long, value_name = "DURATION", requires = "files", value_parser = positive_duration)]
    pub settle: Option<Duration>,
    /// How pods are scheduled, as in the run that failed.
    #[arg(long, value_name = "FILE", requires = "files")]
    pub scheduler_config: Option<String>,
    /// How heavily faults are drawn, as in the run that failed.
    #[arg(long, value_name = "LEVEL", requires = "files")]
    pub faults: Option<Faults>,
    /// Show no progress.
    #[arg(long, short)]
    pub quiet: bool,
}

/// Arguments of `sim why`.
#[derive(Args, Debug, Clone)]
pub struct WhyArgs {
    /// The run.
    #[command(flatten)]
    pub failed: FailedArgs,
    /// Write a page with the story as a sequence diagram, and all that `skeg sim run --report` shows.
    #[arg(long, value_name = "FILE.html")]
    pub report: Option<PathBuf>,
    /// What is printed on standard output.
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    pub output: Output,
}

/// Arguments of `sim shrink`.
#[derive(Args, Debug, Clone)]
pub struct ShrinkArgs {
    /// The run.
    #[command(flatten)]
    pub failed: FailedArgs,
    /// Where the scenario is written; standard output if not given.
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// Real time after which no further step is tried.
    #[arg(long, value_name = "DURATION", default_value = "1m", value_parser = positive_duration)]
    pub time: Duration,
}

/// How GPUs are shared.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq)]
#[value(rename_all = "PascalCase")]
pub enum SharingPolicy {
    /// Any node that fits, any device.
    Random,
    /// The least dot product of what is free and what is asked for.
    DotProd,
    /// The least left of CPU and GPU.
    BestFit,
    /// Used devices before idle ones, used nodes before idle ones.
    Packing,
    /// The least fragmentation, by the most usual pods of the trace.
    #[value(name = "FGD")]
    Fgd,
}

/// Arguments of `sim arrivals`.
#[derive(Args, Debug, Clone)]
pub struct ArrivalsArgs {
    /// A table of nodes.
    #[arg(value_name = "NODES.csv")]
    pub nodes: String,
    /// A table of pods.
    #[arg(value_name = "PODS.csv")]
    pub pods: String,
    /// How GPUs are shared; every policy where not given.
    #[arg(long, value_name = "POLICY", value_delimiter = ',', ignore_case = true)]
    pub policy: Vec<SharingPolicy>,
    /// Until how many percent of the GPUs pods arrive.
    #[arg(long, value_name = "PERCENT", default_value_t = 130, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub arrivals: u32,
    /// The seeds of each policy, such as 0..10 (the end is not run): they draw the order, and one of several nodes that
    /// are equally good.
    #[arg(long, value_name = "A..B", value_parser = seed_range, default_value = "0..1")]
    pub seeds: Range<u64>,
    /// Runs at the same time; as many as there are CPUs where not given.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub jobs: Option<u32>,
    /// What is printed on standard output.
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    pub output: Output,
    /// Write a self-contained page with the curves.
    #[arg(long, value_name = "FILE")]
    pub report: Option<PathBuf>,
    /// Show no progress.
    #[arg(long, short)]
    pub quiet: bool,
}

impl ArrivalsArgs {
    /// The policies, each once.
    pub fn policies(&self) -> Vec<Policy> {
        let of = |policy: &SharingPolicy| match policy {
            SharingPolicy::Random => Policy::Random,
            SharingPolicy::DotProd => Policy::DotProd,
            SharingPolicy::BestFit => Policy::BestFit,
            SharingPolicy::Packing => Policy::Packing,
            SharingPolicy::Fgd => Policy::Fgd,
        };
        let mut all: Vec<Policy> = Vec::new();
        for policy in self.policy.iter().map(of) {
            if !all.contains(&policy) {
                all.push(policy);
            }
        }
        all
    }
}

/// Arguments of `sim fit`.
#[derive(Args, Debug)]
pub struct FitArgs {
    /// A directory that `skeg agent --record`, or one of the others that record, wrote.
    #[arg(value_name = "DIR")]
    pub dir: PathBuf,
    /// Write the profiles to this file; otherwise they are printed.
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
}

/// Arguments of `sim replay`.
#[derive(Args, Debug)]
pub struct ReplayArgs {
    /// A file that `skeg sim run --trace` wrote, or a directory that `skeg server --record`, or one of the others that
    /// record, wrote.
    #[arg(value_name = "TRACE|DIR")]
    pub trace: PathBuf,
    /// Run a trace up to this virtual time only, and show what the machines have then.
    #[arg(long, value_name = "DURATION", value_parser = positive_duration, requires = "show")]
    pub until: Option<Duration>,
    /// What to show: an object in the store and in every view (`pod/shop/web-0`), `view` (how far each view has come),
    /// `queue` (what controllers do and have before them), `lease` (who leads); may be given several times.
    #[arg(long, value_name = "WHAT", requires = "until", value_parser = shown)]
    pub show: Vec<String>,
    /// What is printed on standard output.
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    pub output: Output,
}

/// Checks what is to be shown; keys are not shared between threads, as arguments are.
fn shown(text: &str) -> Result<String, String> {
    text.parse::<Show>().map(|_| text.to_owned())
}

/// Arguments of `sim diff`.
#[derive(Args, Debug)]
pub struct DiffArgs {
    /// A recorded run.
    #[arg(value_name = "A")]
    pub a: PathBuf,
    /// Another one.
    #[arg(value_name = "B")]
    pub b: PathBuf,
}

/// How heavily faults are drawn.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq)]
pub enum Faults {
    /// No faults.
    None,
    /// A few mishaps: a node now and then, slow pulls, dropped connections.
    Light,
    /// Everything, all the time.
    Heavy,
}

/// What is printed.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq)]
pub enum Output {
    /// A readable report.
    Text,
    /// Exactly one JSON object.
    Json,
}

impl RunArgs {
    /// What the command line says about the scenario.
    pub fn load_options(&self) -> LoadOptions {
        LoadOptions {
            nodes: self.nodes.map(|n| n as usize),
            zones: self.zones.map(|n| n as usize),
            duration: self.duration,
            settle: self.settle,
            faults: self.faults.map(|f| match f {
                Faults::None => FaultLevel::None,
                Faults::Light => FaultLevel::Light,
                Faults::Heavy => FaultLevel::Heavy,
            }),
            keep_bindings: self.keep_bindings,
            scheduler_config: self.scheduler_config.clone(),
        }
    }

    /// The command line that runs one seed of these arguments again.
    pub fn replay_command(&self, seed: u64) -> String {
        let mut parts = vec!["skeg sim run".to_owned()];
        parts.extend(self.files.iter().map(|f| quote(f)));
        let mut option = |name: &str, value: Option<String>| {
            if let Some(value) = value {
                parts.push(format!("--{name} {value}"));
            }
        };
        option("nodes", self.nodes.map(|n| n.to_string()));
        option("zones", self.zones.map(|n| n.to_string()));
        option("for", self.duration.map(duration::format));
        option("settle", self.settle.map(duration::format));
        option("faults", self.faults.map(|f| format!("{f:?}").to_lowercase()));
        option("scheduler-config", self.scheduler_config.as_deref().map(quote));
        if self.keep_bindings {
            parts.push("--keep-bindings".to_owned());
        }
        parts.push(format!("--seed {seed}"));
        parts.join(" ")
    }
}

impl RunArgs {
    /// A run of these files with the defaults of `skeg sim run`.
    fn of(files: &[String], quiet: bool) -> RunArgs {
        RunArgs {
            files: files.to_vec(),
            nodes: None,
            zones: None,
            seed: 0,
            duration: None,
            settle: None,
            faults: None,
            keep_bindings: false,
            scheduler_config: None,
            strict: false,
            output: Output::Text,
            report: None,
            trace: None,
            seeds: None,
            campaign: CampaignArgs::default(),
            quiet,
        }
    }
}

impl FailedArgs {
    /// As the reader of files takes them.
    pub fn run_args(&self) -> RunArgs {
        RunArgs {
            nodes: self.nodes,
            zones: self.zones,
            seed: self.seed,
            duration: self.duration,
            settle: self.settle,
            faults: self.faults,
            scheduler_config: self.scheduler_config.clone(),
            ..RunArgs::of(&self.files, self.quiet)
        }
    }
}

impl ExploreArgs {
    /// As the reader of files takes them.
    pub fn run_args(&self) -> RunArgs {
        RunArgs { nodes: self.nodes, output: self.output, ..RunArgs::of(&self.files, self.quiet) }
    }

    /// The command line that runs one seed of these arguments again.
    pub fn replay_command(&self, seed: u64) -> String {
        let files = self.files.iter().map(|f| quote(f));
        let nodes = self.nodes.map(|n| format!("--nodes {n}"));
        let parts = ["skeg sim explore".to_owned()].into_iter().chain(files).chain(nodes);
        let parts: Vec<String> = parts.chain([format!("--seed {seed}")]).collect();
        parts.join(" ")
    }
}

fn quote(text: &str) -> String {
    let plain = text.chars().all(|c| c.is_ascii_alphanumeric() || "-_./=".contains(c));
    if plain { text.to_owned() } else { format!("'{}'", text.replace('\'', "'\\''")) }
}

/// A span of time such as `15s`.
#[cfg(feature = "up")]
pub fn duration(text: &str) -> Result<Duration, String> {
    duration::parse(text).ok_or_else(|| duration::FORM.to_owned())
}

fn positive_duration(text: &str) -> Result<Duration, String> {
    match duration::parse(text) {
        Some(d) if !d.is_zero() => Ok(d),
        Some(_) => Err("must be longer than 0s".to_owned()),
        None => Err(duration::FORM.to_owned()),
    }
}

fn seed_range(text: &str) -> Result<Range<u64>, String> {
    let range = text.split_once("..").and_then(|(a, b)| Some(a.parse().ok()?..b.parse().ok()?));
    match range {
        Some(range) if range.start < range.end => Ok(range),
        Some(_) => Err("the range is empty".to_owned()),
        None => Err("a range is written like 0..1000".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::{Cli, Command, Sim};
    use clap::{CommandFactory, Parser};

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_seed_is_run_again_by_what_is_printed() {
        let line = "skeg sim run a.yaml --nodes 50 --for 10m --faults heavy --seeds 0..9 --jobs 2";
        let parse = |line: &str| match Cli::try_parse_from(line.split(' ')).unwrap().command {
            Command::Sim(Sim::Run(args)) => args,
            other => panic!("{other:?}"),
        };
        let again = parse(line).replay_command(7);
        assert_eq!(again, "skeg sim run a.yaml --nodes 50 --for 10m --faults heavy --seed 7");
        assert_eq!(parse(&again).replay_command(7), again);
    }

    #[test]
    fn bad_usage_is_refused() {
        for line in [
            "skeg sim run",
            "skeg sim run a --nodes 0",
            "skeg sim run a --for 5",
            "skeg sim run a --for 0s",
            "skeg sim run a --seeds 5..5",
            "skeg sim run a --jobs 2",
            "skeg sim run a --seeds 0..2 --seed 1",
            "skeg sim run a --faults some",
            "skeg sim arrivals n.csv",
            "skeg sim arrivals n.csv p.csv --policy Worst",
            "skeg sim arrivals n.csv p.csv --arrivals 0",
        ] {
            assert_eq!(Cli::try_parse_from(line.split(' ')).unwrap_err().exit_code(), 2, "{line}");
        }
    }

    /// What a help says of options is about those that the command has.
    #[test]
    fn help_names_only_options_that_are_there() {
        fn check(command: &mut clap::Command, path: &str) {
            let known: Vec<String> = command.get_arguments().filter_map(|a| a.get_long()).map(str::to_owned).collect();
            for text in command.get_arguments().filter_map(clap::Arg::get_help).map(ToString::to_string) {
                // Another command stands between back quotes.
                let own = text.split('`').filter(|part| !part.starts_with("skeg ")).collect::<String>();
                let named = own.split(|c: char| !c.is_ascii_alphanumeric() && c != '-');
                for option in named.filter_map(|word| word.strip_prefix("--")).filter(|name| !name.is_empty()) {
                    assert!(
                        known.iter().any(|known| known == option),
                        "{path} has no --{option}, its help says: {text}"
                    );
                }
            }
            for sub in command.get_subcommands_mut() {
                let path = format!("{path} {}", sub.get_name());
                check(sub, &path);
            }
        }
        check(&mut Cli::command(), "skeg");
    }
}
