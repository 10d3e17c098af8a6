//! Reads scenario documents (`kind: Scenario`) into [`Scenario`]s; the fields are described in `docs/scenarios.md`.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use skeg_core::features::FeatureGates;
use skeg_core::object::{Milli, ObjectKey};
use skeg_core::{Kind, Object};

use super::action;
use super::fields::{Field, Fields, Reader, nearest};
use super::problem::Problems;
use super::yaml::Document;
use crate::fault::{Fault, Target};
use crate::moment::Moment;
use crate::scenario::{
    Action, Cluster, Expectation, FaultLevel, ImageProfile, Load, NodePool, NodeSet, Scenario, Scheduling, Step,
    UserAction,
};

/// `apiVersion` of scenarios.
pub const API_VERSION: &str = "skeg.dev/v1alpha1";

/// Maximum number of nodes in a scenario.
const MAX_NODES: i64 = 1_000_000;

/// A scenario as its file gives it; the caller fills in defaults for what is absent.
#[derive(Default)]
pub struct Given {
    /// `metadata.name`.
    pub name: String,
    /// `spec.cluster.pools`; empty if not given.
    pub pools: Vec<NodePool>,
    /// `spec.cluster.zones`.
    pub zones: Option<usize>,
    /// `spec.cluster.apiServers`.
    pub api_servers: Option<usize>,
    /// `spec.cluster.controlReplicas`.
    pub control_replicas: Option<usize>,
    /// `spec.load`.
    pub loads: Vec<Load>,
    /// `spec.cluster.proxies`.
    pub proxies: Option<bool>,
    /// `spec.cluster.users`.
    pub users: Option<usize>,
    /// `spec.cluster.maxEndpointsPerSlice`.
    pub max_endpoints_per_slice: Option<usize>,
    /// `spec.cluster.serviceCIDR`.
    pub service_cidr: Option<([u8; 4], u8)>,
    /// `spec.cluster.latency`.
    pub latency: Option<(Duration, Duration)>,
    /// `spec.cluster.storeLatency`.
    pub store_latency: Option<(Duration, Duration)>,
    /// `spec.cluster.recordEvents`.
    pub record_events: Option<bool>,
    /// `spec.cluster.featureGates`.
    pub features: Option<FeatureGates>,
    /// `spec.images`.
    pub images: BTreeMap<String, ImageProfile>,
    /// `spec.timeline`, sorted by time.
    pub timeline: Vec<Step>,
    /// `spec.expect`.
    pub expectations: Vec<Expectation>,
    /// What a KubeSchedulerConfiguration beside it says.
    pub scheduling: Scheduling,
    /// `spec.faults`.
    pub faults: Option<FaultLevel>,
    /// `spec.duration`.
    pub duration: Option<Duration>,
    /// `spec.settle`.
    pub settle: Option<Duration>,
    /// `spec.stopWhenConverged`.
    pub stop_when_converged: Option<bool>,
    /// Objects of `spec.manifests`.
    pub objects: Vec<Object>,
}

/// Whether a document is a scenario.
pub fn is_scenario(document: &Document) -> bool {
    let text = |key| document.root.get(key).and_then(super::tree::Tree::text).unwrap_or("");
    text("kind") == "Scenario" && (text("apiVersion").starts_with("skeg.dev/") || text("apiVersion").is_empty())
}

/// Reads a scenario. `manifests` reads an element of `spec.manifests` (or of an `apply` step): the file that it names,
/// or the objects that it contains.
pub fn read(document: &Document, manifests: &mut action::ReadManifests<'_>, problems: &mut Problems) -> Given {
    for (path, line, first) in document.root.duplicates() {
        let message = format!("duplicate field; it is given in line {} already, remove one", first);
        problems.push(document.problem_at(line, &path, message));
    }
    let reader = Reader::new(document, problems);
    let mut given = Given::default();
    let Some(root) = reader.root().fields() else { return given };
    root.get("kind");
    if let Some(version) = root.require("apiVersion")
        && version.text().is_some_and(|v| v != API_VERSION)
    {
        version.fail(format!("Unsupported value: a Scenario is of apiVersion {API_VERSION}"));
    }
    if let Some(meta) = root.require("metadata").and_then(|m| m.fields()) {
        given.name = meta.require("name").and_then(|n| n.name()).unwrap_or("").to_owned();
        meta.finish();
    }
    if let Some(spec) = root.require("spec").and_then(|s| s.fields()) {
        read_spec(&spec, manifests, &mut given);
        spec.finish();
    }
    root.finish();
    given
}

fn read_spec(spec: &Fields<'_>, manifests: &mut action::ReadManifests<'_>, given: &mut Given) {
    if let Some(cluster) = spec.get("cluster").and_then(|c| c.fields()) {
        read_cluster(&cluster, given);
        cluster.finish();
    }
    if let Some(images) = spec.get("images").and_then(|i| i.fields()) {
        given.images = image_profiles(&images);
    }
    given.duration = positive(spec, "duration");
    given.settle = positive(spec, "settle");
    given.stop_when_converged = spec.get("stopWhenConverged").and_then(|s| s.boolean());
    given.faults = spec.get("faults").and_then(|f| {
        let text = f.text()?;
        let level = fault_level(text);
        if level.is_none() {
            f.fail(format!(
                "Unsupported value: {text:?}: supported values: \"heavy\", \"light\", \"listed\", \"none\""
            ));
        }
        level
    });
    let mut known = Known::default();
    if let Some(field) = spec.get("manifests")
        && let Some(objects) = manifests(&field)
    {
        objects.iter().for_each(|o| known.add(o));
        given.objects = objects;
    }
    let places = Places::of(given);
    if let Some(steps) = spec.get("timeline").and_then(|t| t.items()) {
        read_timeline(&steps, manifests, given, &mut known, &places);
    }
    for field in spec.get("load").and_then(|l| l.items()).unwrap_or_default() {
        if let Some(load) = load(&field, given, &known) {
            given.loads.push(load);
        }
    }
    given.loads.sort_by_key(|load| load.at);
    for field in spec.get("expect").and_then(|e| e.items()).unwrap_or_default() {
        if let Some(expectation) = action::expectation(&field) {
            check_expectation(&field, &expectation, given, &known);
            given.expectations.push(expectation);
        }
    }
}

/// An item of `spec.load`.
fn load(field: &Field<'_>, given: &Given, known: &Known) -> Option<Load> {
    let f = field.fields()?;
    let at = f.get("at").map_or(Some(Duration::ZERO), |at| at.duration());
    let target = f.require("target").and_then(|t| action::target(&t).filter(|key| known.check(&t, key)));
    let cpu = f.require("cpu").and_then(|cpu| cpu.quantity());
    if let (Some(at), Some(end)) = (at, given.duration)
        && at > end
    {
        field.fail("Invalid value: it begins after the end of the run");
    }
    f.finish();
    Some(Load { at: at?, target: target?, cpu_milli: u64::try_from(cpu?.milli()).unwrap_or(0) })
}

fn positive(f: &Fields<'_>, key: &'static str) -> Option<Duration> {
    let field = f.get(key)?;
    let duration = field.duration()?;
    if duration.is_zero() {
        field.invalid("must be longer than 0s");
        return None;
    }
    Some(duration)
}

/// Parses `none`, `light` or `heavy`.
pub fn fault_level(text: &str) -> Option<FaultLevel> {
    match text {
        "none" => Some(FaultLevel::None),
        "listed" => Some(FaultLevel::Listed),
        "light" => Some(FaultLevel::Light),
        "heavy" => Some(FaultLevel::Heavy),
        _ => None,
    }
}

/// A map of gates that are on or off.
fn feature_gates(field: &Field<'_>) -> Option<FeatureGates> {
    let mut gates = FeatureGates::default();
    for (name, value) in field.fields()?.all() {
        if let Err(why) = gates.set(name, value.boolean()?) {
            value.invalid(&why);
        }
    }
    match gates.check() {
        Ok(()) => Some(gates),
        Err(why) => {
            field.invalid(&why);
            None
        }
    }
}

fn read_cluster(f: &Fields<'_>, given: &mut Given) {
    given.zones = f.get("zones").and_then(|z| z.count(1, 1000));
    given.api_servers = f.get("apiServers").and_then(|n| n.count(1, 100));
    given.control_replicas = f.get("controlReplicas").and_then(|n| n.count(1, 100));
    given.proxies = f.get("proxies").and_then(|p| p.boolean());
    given.users = f.get("users").and_then(|n| n.count(1, 100));
    given.max_endpoints_per_slice = f.get("maxEndpointsPerSlice").and_then(|n| n.count(1, 1000));
    given.service_cidr = f.get("serviceCIDR").and_then(|c| c.cidr());
    given.record_events = f.get("recordEvents").and_then(|r| r.boolean());
    given.latency = f.get("latency").and_then(|l| l.duration_range());
    given.store_latency = f.get("storeLatency").and_then(|l| l.duration_range());
    given.features = f.get("featureGates").and_then(|gates| feature_gates(&gates));
    let pools = f.get("pools");
    for field in pools.as_ref().and_then(Field::items).unwrap_or_default() {
        if let Some(pool) = node_pool(&field) {
            if given.pools.iter().any(|p| p.name == pool.name) {
                field.fail(format!("Duplicate value: {:?}: a pool of this name is given already", pool.name));
            }
            given.pools.push(pool);
        }
    }
    if let Some(field) = pools.filter(|p| p.tree.items().is_some_and(<[_]>::is_empty)) {
        field.fail("Invalid value: a cluster needs at least one pool; leave the field out for the default one");
    }
}

fn node_pool(field: &Field<'_>) -> Option<NodePool> {
    let f = field.fields()?;
    let name = f.require("name").and_then(|n| {
        let name = n.name()?;
        let ok = name.len() <= 50
            && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
            && !name.starts_with('-')
            && !name.ends_with('-');
        if !ok {
            n.invalid("a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character");
        }
        ok.then(|| name.to_owned())
    });
    let count = f.require("count").and_then(|c| c.count(1, MAX_NODES));
    let mut capacity = default_capacity();
    if let Some(c) = f.get("capacity").and_then(|c| c.fields()) {
        for (resource, field) in c.all() {
            if let Some(quantity) = field.quantity() {
                let text = if is_in_bytes(resource) { quantity.to_binary() } else { quantity.to_decimal() };
                capacity.insert(resource.to_owned(), text);
            }
        }
    }
    let labels = f.get("labels").and_then(|l| l.text_map()).unwrap_or_default();
    let taints: Vec<String> =
        f.get("taints").and_then(|t| t.items()).unwrap_or_default().iter().filter_map(taint).collect();
    let zone = f.get("zone").and_then(|z| z.name()).map(str::to_owned);
    f.finish();
    Some(NodePool { name: name?, count: count?, names: Vec::new(), capacity, labels, taints, zone, cordoned: false })
}

fn is_in_bytes(resource: &str) -> bool {
    matches!(resource, "memory" | "ephemeral-storage") || resource.starts_with("hugepages-")
}

/// The capacity of a node whose pool gives none.
pub fn default_capacity() -> BTreeMap<String, String> {
    [("cpu", "16"), ("memory", "64Gi"), ("pods", "110"), ("ephemeral-storage", "100Gi")]
        .map(|(k, v)| (k.to_owned(), v.to_owned()))
        .into()
}

fn taint(field: &Field<'_>) -> Option<String> {
    let text = field.name()?;
    let effect = text.rsplit_once(':').map(|(_, e)| e);
    let key = text.split([':', '=']).next().unwrap_or("");
    if key.is_empty() || !matches!(effect, Some("NoSchedule" | "PreferNoSchedule" | "NoExecute")) {
        field.invalid("a taint is written key=value:Effect or key:Effect, with the effect NoSchedule, PreferNoSchedule or NoExecute");
        return None;
    }
    Some(text.to_owned())
}

/// Reads a document that contains only `spec.images`: a map from image names to profiles.
pub fn read_images(document: &Document, problems: &mut Problems) -> BTreeMap<String, ImageProfile> {
    for (path, line, first) in document.root.duplicates() {
        let message = format!("duplicate field; it is given in line {first} already, remove one");
        problems.push(document.problem_at(line, &path, message));
    }
    let reader = Reader::new(document, problems);
    reader.root().fields().map(|images| image_profiles(&images)).unwrap_or_default()
}

fn image_profiles(images: &Fields<'_>) -> BTreeMap<String, ImageProfile> {
    let profiles = images.all().into_iter();
    profiles.filter_map(|(name, field)| image_profile(&field).map(|profile| (name.to_owned(), profile))).collect()
}

fn image_profile(field: &Field<'_>) -> Option<ImageProfile> {
    let f = field.fields()?;
    let mut p = ImageProfile::default();
    let bytes = |q: Milli| u64::try_from(q.value()).unwrap_or(0);
    if let Some(q) = f.get("size").and_then(|s| s.quantity()) {
        p.bytes = bytes(q);
    }
    if let Some(range) = f.get("pull").and_then(|s| s.duration_range()) {
        p.pull = Some(range);
    }
    if let Some(range) = f.get("start").and_then(|s| s.duration_range()) {
        p.start = range;
    }
    if let Some(range) = f.get("ready").and_then(|s| s.duration_range()) {
        p.ready = range;
    }
    if let Some(exit) = f.get("exit").and_then(|e| e.fields()) {
        let after = exit.require("after").and_then(|a| a.duration());
        let code = exit.get("code").map_or(Some(0), |c| c.integer(0, 255));
        p.exit = after.zip(code).map(|(after, code)| (after, code as i32));
        exit.finish();
    }
    if let Some(n) = f.get("crashOneIn").and_then(|c| c.integer(0, i64::MAX)) {
        p.crash_one_in = n as u64;
    }
    if let Some(b) = f.get("pullFails").and_then(|c| c.boolean()) {
        p.pull_fails = b;
    }
    if let Some(b) = f.get("neverReady").and_then(|c| c.boolean()) {
        p.never_ready = b;
    }
    if let Some(d) = f.get("stop").and_then(|s| s.duration()) {
        p.stop = d;
    }
    if let Some(d) = f.get("hook").and_then(|s| s.duration()) {
        p.hook = d;
    }
    if let Some(q) = f.get("cpu").and_then(|s| s.quantity()) {
        p.cpu_milli = u64::try_from(q.milli()).unwrap_or(0);
    }
    if let Some(q) = f.get("memory").and_then(|s| s.quantity()) {
        p.memory_bytes = bytes(q);
    }
    if let Some(lines) = f.get("log").and_then(|lines| lines.texts()) {
        p.log = lines;
    }
    f.finish();
    Some(p)
}

/// The objects that exist at a step of the timeline, with the container names of those that have a pod template, and
/// the names of claims that StatefulSets make, without their ordinals.
#[derive(Default)]
struct Known(BTreeMap<ObjectKey, Vec<String>>, BTreeSet<ObjectKey>);

impl Known {
    fn add(&mut self, object: &Object) {
        let meta = object.meta();
        let kind = object.kind();
        let namespace = if kind.row().namespaced { meta.namespace.as_deref().unwrap_or("default") } else { "" };
        let key = ObjectKey::new(kind, namespace, meta.name.as_deref().unwrap_or(""));
        let pod = object.pod_spec().filter(|_| kind != Kind::POD);
        let containers = pod.map(|p| p.containers.iter().map(|c| c.name.clone()).collect()).unwrap_or_default();
        if let Object::StatefulSet(set) = object {
            for template in set.spec.volume_claim_templates.iter().flatten() {
                let prefix = format!("{}-{}", template.metadata.name.as_deref().unwrap_or(""), set.name());
                self.1.insert(ObjectKey::new(Kind::PERSISTENT_VOLUME_CLAIM, namespace, &prefix));
            }
        }
        self.0.insert(key, containers);
    }

    /// Whether a StatefulSet of the scenario makes this claim, if it has as many replicas.
    fn makes(&self, key: &ObjectKey) -> bool {
        let Some((prefix, ordinal)) = key.name().rsplit_once('-') else { return false };
        ordinal.parse::<u32>().is_ok() && self.1.contains(&ObjectKey::new(key.kind, key.namespace(), prefix))
    }

    /// Reports a problem and returns false if no manifest contains the target.
    fn check(&self, field: &Field<'_>, key: &ObjectKey) -> bool {
        if self.0.contains_key(key) || self.makes(key) {
            return true;
        }
        let others: Vec<String> = self.0.keys().filter(|k| k.kind == key.kind).map(|k| k.path().to_owned()).collect();
        let advice = match others.len() {
            0 => format!("no manifest of the scenario gives a {}", key.kind),
            1..=8 => format!("the scenario's are {}", others.join(", ")),
            n => format!("the scenario gives {n} others, such as {}", others[0]),
        };
        field.fail(format!("Not found: {} {:?}; {advice}", key.kind, key.path()));
        false
    }
}

/// The names to which node sets and faults may refer.
struct Places {
    zones: BTreeSet<String>,
    nodes: Option<BTreeSet<String>>,
    count: Option<usize>,
    api_servers: usize,
    /// The machines of the control plane, named after their processes.
    machines: BTreeSet<String>,
}

impl Places {
    fn of(given: &Given) -> Places {
        let spread = given.pools.is_empty() || given.pools.iter().any(|p| p.zone.is_none());
        let zones = if spread { given.zones.unwrap_or(super::DEFAULT_ZONES) } else { 0 };
        let mut zones: BTreeSet<String> = (0..zones).map(zone_name).collect();
        zones.extend(given.pools.iter().filter_map(|p| p.zone.clone()));
        let total: usize = given.pools.iter().map(|p| p.count).sum();
        // `None` if the scenario gives no pools: the nodes then come from the command line, an export or the defaults,
        // and the run checks the names.
        let nodes = (total > 0)
            .then(|| given.pools.iter().flat_map(|p| (0..p.count).map(|i| format!("{}-{i}", p.name))).collect());
        let api_servers = given.api_servers.unwrap_or(super::DEFAULT_API_SERVERS);
        let replicas = given.control_replicas.unwrap_or(super::DEFAULT_CONTROL_REPLICAS);
        let numbered = |role: &'static str, count| (0..count).map(move |i| format!("{role}-{i}"));
        let control = ["controller-manager", "scheduler", "dns"].into_iter().flat_map(|role| numbered(role, replicas));
        let machines = numbered("api-server", api_servers).chain(control).chain(["store".to_owned()]).collect();
        Places { zones, nodes, count: (total > 0).then_some(total), api_servers, machines }
    }

    /// The processes by name; `None` if the names of the nodes are not known yet.
    fn processes(&self) -> Option<BTreeSet<String>> {
        let of_nodes = self.nodes.as_ref()?.iter();
        let of_nodes = of_nodes.flat_map(|node| [format!("agent-{node}"), format!("proxy-{node}")]);
        Some(of_nodes.chain(self.machines.iter().cloned()).collect())
    }

    fn check(&self, field: &Field<'_>, set: &NodeSet) {
        match set {
            NodeSet::Zone(zone) if !self.zones.contains(zone) => {
                let zones: Vec<&str> = self.zones.iter().map(String::as_str).collect();
                let near = nearest(zone, &zones)
                    .map_or(format!("zones are {}", zones.join(", ")), |z| format!("did you mean {z:?}?"));
                field.fail(format!("Not found: zone {zone:?}; {near}"));
            }
            NodeSet::Names(names) => {
                for name in names {
                    if self.nodes.as_ref().is_some_and(|nodes| !nodes.contains(name)) {
                        field.fail(format!(
                            "Not found: node {name:?}; nodes are named after their pool: pool-0, pool-1"
                        ));
                    }
                }
            }
            NodeSet::Random(n) => {
                if let Some(count) = self.count.filter(|count| n > count) {
                    field.fail(format!("Invalid value: {n}: the cluster has {count} nodes"));
                }
            }
            NodeSet::Machine(name) if !self.machines.contains(name) => {
                let machines: Vec<&str> = self.machines.iter().map(String::as_str).collect();
                field.fail(format!("Not found: machine {name:?}; machines are {}", machines.join(", ")));
            }
            NodeSet::Zone(_)
            | NodeSet::All
            | NodeSet::Labels(_)
            | NodeSet::ControlPlane
            | NodeSet::Machine(_)
            | NodeSet::Actor => {}
        }
    }
}

/// The name of the `i`-th zone: `zone-a`, …, `zone-z`, `zone-26`, …
pub fn zone_name(i: usize) -> String {
    match u8::try_from(i) {
        Ok(n) if n < 26 => format!("zone-{}", char::from(b'a' + n)),
        _ => format!("zone-{i}"),
    }
}

fn read_timeline(
    steps: &[Field<'_>],
    manifests: &mut action::ReadManifests<'_>,
    given: &mut Given,
    known: &mut Known,
    places: &Places,
) {
    let mut read: Vec<(Step, Field<'_>)> = Vec::new();
    for field in steps {
        let Some(f) = field.fields() else { continue };
        let when = f.get("when");
        let at = match &when {
            Some(_) => f.get("at").map_or(Some(Duration::ZERO), |at| at.duration()),
            None => f.require("at").and_then(|at| at.duration()),
        };
        let moment = when.as_ref().map(|when| read_moment(when, places));
        let action = action::action(&f, manifests);
        if let (Some(at), Some(end)) = (at, given.duration)
            && at > end
        {
            let (at, end) = (super::duration::format(at), super::duration::format(end));
            field.fail(format!(
                "Invalid value: {at:?}: the step is after the end of the run ({end}); lengthen spec.duration"
            ));
        }
        let when = match moment {
            Some(moment) => moment.map(Some),
            None => Some(None),
        };
        if let (Some(at), Some(when), Some(action)) = (at, when, action) {
            read.push((Step { at, when, action }, field.clone()));
        }
    }
    read.sort_by_key(|(step, _)| step.at);
    for (step, field) in &read {
        if step.when.is_none() && is_about_actor(&step.action) {
            field.fail("Forbidden: actor is the machine of who did what the step waits for; say what in `when`");
        }
        match &step.action {
            Action::User(action) => check_action(field, action, known, places),
            Action::Fault(fault) => check_fault(field, fault, places),
        }
    }
    given.timeline = read.into_iter().map(|(step, _)| step).collect();
}

/// Reads what a step waits for. `None` if it can never happen; the problem has been reported.
fn read_moment(field: &Field<'_>, places: &Places) -> Option<Moment> {
    let moment = Moment::read(field)?;
    let processes = places.processes();
    if let Some(problem) = processes.and_then(|processes| moment.problem(&processes)) {
        field.fail(problem);
        return None;
    }
    Some(moment)
}

/// Whether a step is about the machine of whoever does what it waits for.
fn is_about_actor(action: &Action) -> bool {
    match action {
        Action::User(action) => action.nodes() == Some(&NodeSet::Actor),
        Action::Fault(fault) => {
            fault.targets().iter().any(|target| matches!(target, Target::Nodes(set) if **set == NodeSet::Actor))
        }
    }
}

/// Checks that the targets of a user action exist and are of kinds that support the action.
fn check_action(field: &Field<'_>, action: &UserAction, known: &mut Known, places: &Places) {
    let of_kind = |key: &ObjectKey, verb: &str, kinds: &[Kind]| {
        if !kinds.contains(&key.kind) {
            let names: Vec<&str> = kinds.iter().map(|k| &*k.row().kind).collect();
            field.fail(format!("Invalid value: {:?}: {verb} works on {}", key.to_string(), names.join(", ")));
        }
    };
    const SCALED: &[Kind] = &[Kind::DEPLOYMENT, Kind::REPLICA_SET, Kind::REPLICATION_CONTROLLER, Kind::STATEFUL_SET];
    match action {
        UserAction::Apply(objects) | UserAction::Create(objects) | UserAction::Replace { objects, .. } => {
            objects.iter().for_each(|o| known.add(o));
        }
        UserAction::Delete { key, .. } | UserAction::Patch { key, .. } if key.kind == Kind::NODE => {
            places.check(field, &NodeSet::Names(vec![key.name().to_owned()]));
        }
        // Pods are made by controllers.
        UserAction::Delete { key, .. } if key.kind == Kind::POD => {}
        UserAction::Delete { key, .. } | UserAction::Patch { key, .. } => _ = known.check(field, key),
        UserAction::Scale { key, .. } => {
            known.check(field, key);
            of_kind(key, "scale", SCALED);
        }
        UserAction::SetImage { key, container, .. } => {
            if known.check(field, key) {
                let containers = &known.0[key];
                if !containers.is_empty() && !containers.contains(container) {
                    field.fail(format!("Not found: container {container:?}; {key} has {}", containers.join(", ")));
                }
            }
        }
        UserAction::Rollback { key, .. } => {
            known.check(field, key);
            of_kind(key, "rollback", &[Kind::DEPLOYMENT]);
        }
        UserAction::Pause { key, .. } => {
            known.check(field, key);
            of_kind(key, "pause and resume", &[Kind::DEPLOYMENT]);
        }
        UserAction::Restart { key } => {
            known.check(field, key);
            of_kind(key, "restart", &[Kind::DEPLOYMENT, Kind::DAEMON_SET, Kind::STATEFUL_SET]);
        }
        UserAction::RollingUpdate { old, new, .. } => {
            known.check(field, old);
            known.add(new);
        }
        UserAction::Cordon { nodes, .. } | UserAction::Taint { nodes, .. } | UserAction::Drain { nodes } => {
            places.check(field, nodes);
        }
    }
}

/// Checks that the targets of a fault exist.
fn check_fault(field: &Field<'_>, fault: &Fault, places: &Places) {
    for target in fault.targets() {
        match target {
            Target::Nodes(set) => places.check(field, set),
            Target::ApiServer(index) if index >= places.api_servers => {
                let count = places.api_servers;
                field.fail(format!("Not found: API server {index}; the cluster has {count} of them, counted from 0"));
            }
            Target::ApiServer(_) => {}
        }
    }
}

fn check_expectation(field: &Field<'_>, expectation: &Expectation, given: &Given, known: &Known) {
    let by = match expectation {
        Expectation::Ready { key, by, .. } => {
            known.check(field, key);
            *by
        }
        Expectation::RolledOut { key, by } => {
            known.check(field, key);
            Some(*by)
        }
        Expectation::NeverBelow { keys, .. } => {
            for key in keys {
                known.check(field, key);
            }
            None
        }
        Expectation::Image { key, .. } => {
            known.check(field, key);
            None
        }
        Expectation::Pending { .. } => None,
    };
    if let (Some(by), Some(end)) = (by, given.duration) {
        let end = end + given.settle.unwrap_or(super::DEFAULT_SETTLE);
        if by > end {
            field.fail(format!(
                "Invalid value: {:?}: is after the end of the run ({})",
                super::duration::format(by),
                super::duration::format(end)
            ));
        }
    }
}

impl Given {
    /// Builds the scenario, with the defaults for what was not given.
    pub fn finish(self, defaults: Cluster, duration: Duration, settle: Duration) -> Scenario {
        let pools = if self.pools.is_empty() { defaults.pools } else { self.pools };
        Scenario {
            name: self.name,
            cluster: Cluster {
                pools,
                zones: self.zones.unwrap_or(defaults.zones),
                api_servers: self.api_servers.unwrap_or(defaults.api_servers),
                control_replicas: self.control_replicas.unwrap_or(defaults.control_replicas),
                proxies: self.proxies.unwrap_or(defaults.proxies),
                users: self.users.unwrap_or(defaults.users),
                max_endpoints_per_slice: self.max_endpoints_per_slice.unwrap_or(defaults.max_endpoints_per_slice),
                service_cidr: self.service_cidr.unwrap_or(defaults.service_cidr),
                latency: self.latency.unwrap_or(defaults.latency),
                store_latency: self.store_latency.unwrap_or(defaults.store_latency),
                record_events: self.record_events.unwrap_or(defaults.record_events),
                features: self.features.unwrap_or(defaults.features),
            },
            images: self.images,
            timeline: self.timeline,
            loads: self.loads,
            expectations: self.expectations,
            scheduling: self.scheduling,
            faults: self.faults.unwrap_or(FaultLevel::None),
            duration: self.duration.unwrap_or(duration),
            settle: self.settle.unwrap_or(settle),
            stop_when_converged: self.stop_when_converged.unwrap_or(self.duration.is_none()),
        }
    }
}
