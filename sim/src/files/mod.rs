//! Turns files into scenarios: manifests, exports of a live cluster, and scenario documents.
//!
//! What comes in: file names, and a [`Source`] that reads the files. What goes out: one [`Scenario`], or all problems
//! that were found, each with its file, document, line and field. Never returns a scenario if there is any problem.
//! Memory is bounded by limits on files, nesting and aliases (see [`yaml`]).

pub mod action;
pub mod check;
pub mod duration;
pub mod export;
pub mod fields;
pub mod gaps;
pub mod manifest;
pub mod openb;
pub mod problem;
pub mod scenario;
pub mod scheduler;
pub mod tree;
pub mod write;
pub mod yaml;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use skeg_core::Object;

use crate::scenario::{Cluster, FaultLevel, ImageProfile, NodePool, Scenario, Step, UserAction};
use manifest::Manifests;
pub use problem::{Problem, Problems};
use yaml::Document;

/// Default number of zones.
pub const DEFAULT_ZONES: usize = 3;
/// Default number of nodes.
pub const DEFAULT_NODES: usize = 10;
/// Default number of API servers.
pub const DEFAULT_API_SERVERS: usize = 2;
/// Default number of replicas of the control plane.
const DEFAULT_CONTROL_REPLICAS: usize = 2;
/// Default maximum duration of a run of plain manifests; the run ends earlier when everything has converged.
pub const DEFAULT_DURATION: Duration = Duration::from_secs(3600);
/// Default time to settle.
pub const DEFAULT_SETTLE: Duration = Duration::from_secs(900);

/// Where files are read from.
pub trait Source {
    /// The content of a file. A file larger than [`yaml::MAX_FILE_BYTES`] is cut off one byte after that limit. The
    /// error says why the file cannot be read.
    fn read(&self, path: &str) -> Result<Vec<u8>, String>;
    /// If the path is a directory, the paths of the manifests in it, sorted; otherwise `None`.
    fn directory(&self, path: &str) -> Option<Vec<String>>;
}

/// The settings from the command line. Where one is `None`, the scenario's setting or the default applies.
#[derive(Clone, Debug, Default)]
pub struct LoadOptions {
    /// Number of nodes.
    pub nodes: Option<usize>,
    /// Number of zones.
    pub zones: Option<usize>,
    /// Virtual duration of the run. If it is given nowhere, a run of plain manifests ends when it has converged.
    pub duration: Option<Duration>,
    /// Virtual time to settle.
    pub settle: Option<Duration>,
    /// Level of drawn faults.
    pub faults: Option<FaultLevel>,
    /// Whether the pods of an export keep their nodes.
    pub keep_bindings: bool,
    /// A file that says how pods are scheduled.
    pub scheduler_config: Option<String>,
}

/// A scenario, with messages for the user.
#[derive(Debug)]
pub struct Loaded {
    /// The scenario to run.
    pub scenario: Scenario,
    /// What was left out or added.
    pub notes: Vec<String>,
    /// Features of the input that are not implemented.
    pub warnings: Vec<String>,
}

/// Reads files into one scenario.
pub fn load(paths: &[String], source: &dyn Source, options: &LoadOptions) -> Result<Loaded, Problems> {
    let mut problems = Problems::default();
    let documents = read_all(paths, source, &mut problems);
    let (scenarios, plain): (Vec<Document>, Vec<Document>) = documents.into_iter().partition(scenario::is_scenario);
    let (configurations, plain): (Vec<Document>, Vec<Document>) =
        plain.into_iter().partition(scheduler::is_configuration);
    let configuration = read_scheduling(&configurations, source, options, &mut problems);
    let mut manifests = manifest::read(&plain, options.keep_bindings, &mut problems);
    let mut given = scenario::Given::default();
    for (i, document) in scenarios.iter().enumerate() {
        if i > 0 {
            problems.push(document.problem("kind", "a run has one Scenario, and another one is given; run them apart"));
            continue;
        }
        let mut inner = Manifests::default();
        let mut inner_problems = Problems::default();
        let mut read = |field: &fields::Field<'_>| read_named(document, field, source, &mut inner, &mut inner_problems);
        given = scenario::read(document, &mut read, &mut problems);
        let extra = inner_problems.list.into_iter();
        extra.for_each(|p| problems.push(p));
        problems.more += inner_problems.more;
        // `given` contains the objects themselves; `inner` adds the nodes and what was left out.
        inner.objects = std::mem::take(&mut given.objects);
        manifests.merge(inner, &mut problems);
    }
    given.scheduling = configuration.scheduling;
    if scenarios.is_empty() && problems.is_empty() && manifests.objects.is_empty() && manifests.nodes.is_empty() {
        for path in paths {
            problems.push(Problems::file(path, "there is no object in it; give Kubernetes manifests or a Scenario"));
        }
    }
    let mut loaded = assemble(paths, given, manifests, scenarios.first(), options, &mut problems);
    loaded.warnings.extend(configuration.warnings.into_iter().chain(configuration.simulated));
    problems.sort();
    problems.warnings.clone_from(&loaded.warnings);
    if problems.is_empty() { Ok(loaded) } else { Err(problems) }
}

/// How pods are scheduled: by a document among the input, or by a file of its own.
fn read_scheduling(
    documents: &[Document],
    source: &dyn Source,
    options: &LoadOptions,
    problems: &mut Problems,
) -> scheduler::Configuration {
    let own = options.scheduler_config.as_deref();
    let second = if own.is_some() { documents.first() } else { documents.get(1) };
    if let Some(second) = second {
        let message = format!("a run has one {}, and another one is given; leave one out", scheduler::KIND);
        problems.push(second.problem("kind", message));
    }
    match (own, documents.first()) {
        (Some(path), _) => scheduler::only(path, &read_one(path, source, problems), problems),
        (None, Some(document)) => scheduler::read(document, problems),
        (None, None) => scheduler::Configuration::default(),
    }
}

/// Reads a file that contains only image profiles, in the format of a scenario's `spec.images`.
pub fn images(file: &str, bytes: &[u8]) -> Result<BTreeMap<String, ImageProfile>, Problems> {
    let mut problems = Problems::default();
    let documents = yaml::parse(file, bytes, &mut problems);
    let images = documents.iter().flat_map(|document| scenario::read_images(document, &mut problems)).collect();
    if problems.is_empty() { Ok(images) } else { Err(problems) }
}

fn read_all(paths: &[String], source: &dyn Source, problems: &mut Problems) -> Vec<Document> {
    let mut documents = Vec::new();
    for path in paths {
        match source.directory(path) {
            Some(files) if files.is_empty() => {
                problems.push(Problems::file(path, "the directory holds no .yaml, .yml or .json file"));
            }
            Some(files) => files.iter().for_each(|file| documents.extend(read_one(file, source, problems))),
            None => documents.extend(read_one(path, source, problems)),
        }
    }
    documents
}

fn read_one(path: &str, source: &dyn Source, problems: &mut Problems) -> Vec<Document> {
    match source.read(path) {
        Ok(bytes) => yaml::parse(path, &bytes, problems),
        Err(why) => {
            problems.push(Problems::file(path, why));
            Vec::new()
        }
    }
}

/// Reads the manifests of a scenario's field: files or directories (paths are relative to the scenario's file), or
/// inline objects.
fn read_named(
    scenario: &Document,
    field: &fields::Field<'_>,
    source: &dyn Source,
    all: &mut Manifests,
    problems: &mut Problems,
) -> Option<Vec<Object>> {
    let single = [field.clone()];
    let items = match field.tree.items() {
        Some(_) => field.items()?,
        None => single.to_vec(),
    };
    let before = problems.list.len() + problems.more;
    let mut objects = Vec::new();
    for item in items {
        let mut read = match item.tree.text() {
            Some(path) => {
                let full = Path::new(&scenario.file).parent().unwrap_or(Path::new("")).join(path);
                let full = full.to_string_lossy().into_owned();
                match source.directory(&full).map_or_else(
                    || source.read(&full).map(|b| vec![(full.clone(), b)]),
                    |files| files.into_iter().map(|f| source.read(&f).map(|b| (f, b))).collect(),
                ) {
                    Ok(files) => {
                        let mut documents = Vec::new();
                        for (file, bytes) in files {
                            documents.extend(yaml::parse(&file, &bytes, problems));
                        }
                        manifest::read(&documents, false, problems)
                    }
                    Err(why) => {
                        item.fail(format!("Invalid value: {path:?}: {why}"));
                        continue;
                    }
                }
            }
            None => manifest::read_inline(scenario, item.tree, &item.path, problems),
        };
        objects.append(&mut read.objects);
        if field.path == "spec.manifests" {
            all.merge(read, problems);
        } else if !read.nodes.is_empty() {
            item.fail("Forbidden: a Node cannot be applied during a run; give it a pool in spec.cluster.pools");
        }
    }
    (problems.list.len() + problems.more == before).then_some(objects)
}

/// Combines the parts. The command line takes precedence over the scenario, the scenario over the nodes of an export,
/// and those over the defaults.
fn assemble(
    paths: &[String],
    mut given: scenario::Given,
    mut manifests: Manifests,
    document: Option<&Document>,
    options: &LoadOptions,
    problems: &mut Problems,
) -> Loaded {
    let mut notes: Vec<String> = manifests.dropped.iter().map(|((why, kind), n)| dropped_note(why, kind, *n)).collect();
    let made = manifests.add_namespaces();
    if !made.is_empty() {
        notes.push(format!("namespaces that the input names and does not give are made: {}", made.join(", ")));
    }
    let features = given.features.unwrap_or_default();
    let warnings = gaps::warnings(&manifests.objects, &given.timeline, features);
    if let Some(why) = gaps::unserved(&manifests.objects, &given.timeline, features) {
        problems.push(Problems::file(paths.first().map_or("input", String::as_str), why));
    }
    if manifests.add_default_class() {
        notes.push("the input has claims without a class and no default StorageClass: \"standard\" is made".to_owned());
    }
    let exported = export::group_pools(std::mem::take(&mut manifests.nodes));
    apply_nodes(&mut given, exported, options, document, problems, &mut notes);
    if given.name.is_empty() {
        let stem = |p: &String| Path::new(p).file_stem().map(|s| s.to_string_lossy().into_owned());
        given.name = paths.first().and_then(stem).unwrap_or_default();
    }
    given.zones = options.zones.or(given.zones);
    given.faults = options.faults.or(given.faults);
    given.settle = options.settle.or(given.settle);
    if let Some(duration) = options.duration {
        if let (Some(last), Some(document)) = (given.timeline.last().filter(|s| s.at > duration), document) {
            let (at, end) = (duration::format(last.at), duration::format(duration));
            problems.push(
                document
                    .problem("spec.timeline", format!("the step at {at} is after the end of the run (--for {end})")),
            );
        }
        given.stop_when_converged.get_or_insert(false);
        given.duration = Some(duration);
    }
    let fallback = given.timeline.last().map_or(DEFAULT_DURATION, |s| s.at + DEFAULT_DURATION);
    let mut scenario = given.finish(default_cluster(), fallback, DEFAULT_SETTLE);
    if scenario.faults != FaultLevel::None && options.duration.is_none() && scenario.stop_when_converged {
        // Faults are drawn over the whole duration, so the run must not end early.
        scenario.stop_when_converged = false;
        if fallback == DEFAULT_DURATION {
            scenario.duration = Duration::from_secs(600);
        }
    }
    let exported = manifests.exported;
    let (exported, written) = manifests.objects.into_iter().partition(|o| exported.contains(&o.key()));
    for (objects, action) in [(written, UserAction::Apply as fn(_) -> _), (exported, UserAction::Create)] {
        let objects: Vec<Object> = objects;
        if !objects.is_empty() {
            scenario.timeline.insert(0, Step::at(Duration::ZERO, action(objects)));
        }
    }
    Loaded { scenario, notes, warnings }
}

fn dropped_note(why: &str, kind: &str, n: usize) -> String {
    format!("left out: {n} {kind}{} ({why})", if n == 1 { "" } else { "s" })
}

fn apply_nodes(
    given: &mut scenario::Given,
    exported: Vec<NodePool>,
    options: &LoadOptions,
    document: Option<&Document>,
    problems: &mut Problems,
    notes: &mut Vec<String>,
) {
    match options.nodes {
        Some(nodes) if given.pools.len() > 1 => {
            let pools = given.pools.len();
            let message = format!("--nodes {nodes} contradicts the {pools} pools of the Scenario; change their counts");
            problems.push(match document {
                Some(d) => d.problem("spec.cluster.pools", message),
                None => Problems::file("command line", message),
            });
        }
        Some(nodes) => {
            let mut pool = given.pools.pop().unwrap_or_else(default_pool);
            pool.count = nodes;
            given.pools = vec![pool];
        }
        None if given.pools.is_empty() => given.pools = exported,
        None if !exported.is_empty() => {
            notes.push("left out: Nodes of the input, since the Scenario gives its own pools".to_owned());
        }
        None => {}
    }
}

fn default_pool() -> NodePool {
    NodePool {
        name: "node".to_owned(),
        count: DEFAULT_NODES,
        names: Vec::new(),
        capacity: scenario::default_capacity(),
        labels: BTreeMap::new(),
        taints: Vec::new(),
        zone: None,
        cordoned: false,
    }
}

/// The default cluster.
pub fn default_cluster() -> Cluster {
    Cluster {
        pools: vec![default_pool()],
        zones: DEFAULT_ZONES,
        api_servers: DEFAULT_API_SERVERS,
        control_replicas: DEFAULT_CONTROL_REPLICAS,
        proxies: true,
        users: 1,
        max_endpoints_per_slice: skeg_core::limits::MAX_ENDPOINTS_PER_SLICE,
        service_cidr: skeg_core::apiserver::DEFAULT_SERVICE_CIDR,
        latency: (Duration::from_micros(500), Duration::from_millis(2)),
        store_latency: (Duration::from_millis(1), Duration::from_millis(4)),
        record_events: true,
        features: skeg_core::features::FeatureGates::default(),
    }
}
