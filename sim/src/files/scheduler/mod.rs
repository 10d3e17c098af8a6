//! `KubeSchedulerConfiguration` of `kubescheduler.config.k8s.io/v1`: how pods are scheduled.
//!
//! What comes in: a document. What goes out: the core's [`Profile`]s with all defaults filled in, or problems in
//! Kubernetes' words; and a warning for whatever is asked and not carried out. Nothing is passed over in silence.
//! Source: `pkg/scheduler/apis/config` (defaults, validation) and `framework/runtime` (which plug-ins are enabled).

mod args;
mod extenders;
mod plugins;
#[cfg(test)]
mod tests;

use std::cell::RefCell;

use skeg_core::scheduler::DEFAULT_SCHEDULER;
use skeg_core::scheduler::profile::{Profile, Weights};

use super::fields::{Field, Fields, Reader};
use super::problem::Problems;
use super::yaml::{self, Document};
use crate::scenario::Scheduling;

/// The kind of the document.
pub const KIND: &str = "KubeSchedulerConfiguration";
/// The version of it that is read.
pub const API_VERSION: &str = "kubescheduler.config.k8s.io/v1";

/// How pods are scheduled, and what is asked in vain.
#[derive(Debug, Default)]
pub struct Configuration {
    /// How pods are scheduled.
    pub scheduling: Scheduling,
    /// What is asked and not carried out.
    pub warnings: Vec<String>,
    /// What is not carried out in a simulation.
    pub simulated: Vec<String>,
}

/// What is asked and not carried out.
struct Warnings<'a> {
    file: &'a str,
    list: RefCell<Vec<String>>,
}

impl Warnings<'_> {
    fn push(&self, path: &str, instead: &str) {
        self.list.borrow_mut().push(format!("{}: {path}: {instead}", self.file));
    }
}

/// Whether a document is such a configuration.
pub fn is_configuration(document: &Document) -> bool {
    document.root.get("kind").and_then(super::tree::Tree::text) == Some(KIND)
}

/// Reads a file that holds one configuration and nothing else.
pub fn read_file(file: &str, bytes: &[u8]) -> Result<Configuration, Problems> {
    let mut problems = Problems::default();
    let documents = yaml::parse(file, bytes, &mut problems);
    let configuration = only(file, &documents, &mut problems);
    problems.sort();
    if problems.is_empty() { Ok(configuration) } else { Err(problems) }
}

/// Reads the one configuration that the documents of a file are.
pub fn only(file: &str, documents: &[Document], problems: &mut Problems) -> Configuration {
    let Some(document) = documents.first() else {
        if problems.is_empty() {
            problems.push(Problems::file(file, format!("there is no {KIND} in it")));
        }
        return Configuration::default();
    };
    if let Some(second) = documents.get(1) {
        problems.push(second.problem("kind", format!("a scheduler has one {KIND}, and another document is given")));
    }
    if !is_configuration(document) {
        problems.push(document.problem("kind", format!("must be {KIND} of {API_VERSION}")));
        return Configuration::default();
    }
    read(document, problems)
}

/// Reads a configuration.
pub fn read(document: &Document, problems: &mut Problems) -> Configuration {
    for (path, line, first) in document.root.duplicates() {
        let message = format!("duplicate field; it is given in line {first} already, remove one");
        problems.push(document.problem_at(line, &path, message));
    }
    let reader = Reader::new(document, problems);
    let warnings = Warnings { file: &document.file, list: RefCell::default() };
    let Some(root) = reader.root().fields() else { return Configuration::default() };
    root.get("kind");
    if let Some(version) = root.require("apiVersion")
        && let Some(text) = version.text().filter(|text| *text != API_VERSION)
    {
        version.fail(format!("no kind {KIND:?} is registered for version {text:?}; write {API_VERSION}"));
    }
    general(&root, &warnings);
    let mut profiles = profiles(&root, &warnings);
    let extenders = extenders::read(&root, &mut profiles);
    root.finish();
    let file = &document.file;
    let instead = "a simulation plays it: it refuses no node and scores none but as faults say, and binds no pod";
    let simulated = (0..extenders.len()).map(|i| format!("{file}: extenders[{i}]: {instead}")).collect();
    let scheduling = Scheduling { profiles, extenders, document: Some(document.root.to_value()) };
    Configuration { scheduling, warnings: warnings.list.into_inner(), simulated }
}

/// An integer, whatever its size.
fn whole(field: &Field<'_>) -> Option<i64> {
    field.integer(i64::MIN, i64::MAX)
}

/// Fields that are known and have no effect. `read` reports what is wrong with one.
fn pass(fields: &Fields<'_>, keys: &[&'static str], read: impl Fn(&Field<'_>) -> bool) {
    keys.iter().filter_map(|key| fields.get(key)).for_each(|field| _ = read(&field));
}

/// What is not about profiles. None of it is carried out.
fn general(root: &Fields<'_>, warnings: &Warnings<'_>) {
    if let Some(n) = root.get("parallelism")
        && let Some(number) = whole(&n)
    {
        match number {
            i64::MIN..=0 => n.invalid("should be an integer value greater than zero"),
            1 => {}
            _ => warnings.push(&n.path, "nodes are looked at one after the other; no decision depends on it"),
        }
    }
    leader_election(root, warnings);
    if let Some(connection) = root.get("clientConnection") {
        let fields = connection.fields();
        if let Some(fields) = fields.filter(|fields| !fields.keys().is_empty()) {
            pass(&fields, &["kubeconfig", "acceptContentTypes", "contentType"], |f| f.text().is_some());
            pass(&fields, &["qps", "burst"], |_| true);
            fields.finish();
            warnings.push(&connection.path, "the scheduler has a connection of its own");
        }
    }
    for key in ["enableProfiling", "enableContentionProfiling"] {
        if let Some(profiling) = root.get(key).filter(|f| f.boolean() == Some(true)) {
            warnings.push(&profiling.path, "nothing is profiled");
        }
    }
    if let Some(delay) = root.get("delayCacheUntilActive").filter(|f| f.boolean() == Some(true)) {
        warnings.push(&delay.path, "a scheduler that does not lead reads along all the same");
    }
    percentage(root, warnings);
    back_off(root, warnings);
}

fn leader_election(root: &Fields<'_>, warnings: &Warnings<'_>) {
    let Some(election) = root.get("leaderElection") else { return };
    let Some(fields) = election.fields().filter(|fields| !fields.keys().is_empty()) else { return };
    let elects = fields.get("leaderElect").and_then(|f| f.boolean()) != Some(false);
    let lock = fields.get("resourceLock");
    if let Some(lock) =
        lock.filter(|lock| elects && lock.text().is_some_and(|text| text != "leases" && !text.is_empty()))
    {
        lock.invalid("resourceLock value must be \"leases\"");
    }
    let times = ["leaseDuration", "renewDeadline", "retryPeriod", "resourceName", "resourceNamespace"];
    pass(&fields, &times, |f| f.text().is_some());
    fields.finish();
    warnings
        .push(&election.path, "schedulers are elected as the cluster asks, by the Lease kube-system/kube-scheduler");
}

/// `percentageOfNodesToScore`, of all profiles or of one.
fn percentage(fields: &Fields<'_>, warnings: &Warnings<'_>) {
    let Some(percentage) = fields.get("percentageOfNodesToScore") else { return };
    match whole(&percentage) {
        None | Some(100) => {}
        Some(0..=99) => warnings.push(&percentage.path, "every node is looked at"),
        Some(_) => percentage.invalid("not in valid range [0-100]"),
    }
}

fn back_off(root: &Fields<'_>, warnings: &Warnings<'_>) {
    let read = |key, default| {
        let field = root.get(key);
        let n = field.as_ref().map_or(Some(default), whole).unwrap_or(default);
        if let Some(field) = field.as_ref().filter(|_| n != default) {
            warnings.push(&field.path, &format!("back-offs are those of the default, {default}s here"));
        }
        (field, n)
    };
    let ((initial, least), (max, most)) = (read("podInitialBackoffSeconds", 1), read("podMaxBackoffSeconds", 10));
    if let Some(initial) = initial.as_ref().filter(|_| least <= 0) {
        initial.invalid("must be greater than 0");
    }
    if let Some(field) = max.or(initial).filter(|_| most < least) {
        field.invalid("must be greater than or equal to PodInitialBackoffSeconds");
    }
}

fn profiles(root: &Fields<'_>, warnings: &Warnings<'_>) -> Vec<Profile> {
    let items = root.get("profiles").and_then(|all| all.items()).unwrap_or_default();
    if items.is_empty() {
        return vec![Profile::default()];
    }
    let read = |item: &Field<'_>| profile(item, items.len() == 1, warnings);
    let profiles: Vec<Profile> = items.iter().filter_map(read).collect();
    for (i, (item, name)) in items.iter().zip(profiles.iter().map(|p| &p.name)).enumerate() {
        let first = profiles.iter().position(|p| p.name == *name).filter(|first| *first < i && !name.is_empty());
        if let Some(first) = first.filter(|_| profiles.len() == items.len()) {
            let path = format!("{}.schedulerName", items[first].path);
            item.fields()
                .and_then(|f| f.get("schedulerName"))
                .unwrap_or_else(|| item.clone())
                .fail(format!("Duplicate value: {name:?}: {path} is the same"));
        }
    }
    profiles
}

fn profile(item: &Field<'_>, alone: bool, warnings: &Warnings<'_>) -> Option<Profile> {
    let fields = item.fields()?;
    let mut profile = Profile::default();
    let given = fields.keys().contains(&"schedulerName");
    profile.name = if alone && !given {
        DEFAULT_SCHEDULER.to_owned()
    } else {
        // Only a single profile is the default scheduler's where it is not said.
        fields.require("schedulerName").and_then(|name| name.name()).unwrap_or_default().to_owned()
    };
    percentage(&fields, warnings);
    plugins::read(fields.get("plugins"), item, &mut profile, warnings);
    args::read(fields.get("pluginConfig"), &mut profile, warnings);
    fields.finish();
    if profile.weights.sum() > Weights::MOST {
        item.fail(format!("total score of Score plugins could overflow: weights add up to at most {}", Weights::MOST));
    }
    Some(profile)
}
