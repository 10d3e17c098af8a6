//! Writes a scenario as a file from which [`load`](super::load) reads the same scenario, so that one that was drawn or
//! shrunk can be read, changed and kept.

use core::net::Ipv4Addr;
use std::fmt::Write as _;
use std::time::Duration;

use serde_json::{Map, Value, json};
use skeg_core::Object;
use skeg_core::api::Patch;
use skeg_core::features::FeatureGates;
use skeg_core::object::ObjectKey;

use super::action;
use super::scenario::API_VERSION;
use crate::scenario::{Action, Cluster, FaultLevel, ImageProfile, Load, NodeSet, Scenario, Step, UserAction};
use crate::user::taint;

/// The fields of a step's action, in order.
pub(crate) type Fields = Vec<(&'static str, Value)>;

/// A scenario as a YAML document, and as another one how its pods are scheduled. Its expectations are left out, and so
/// is what only an export can give: names of nodes that are not numbered, and cordoned pools.
pub fn scenario(scenario: &Scenario) -> String {
    let mut spec = Map::new();
    spec.insert("cluster".to_owned(), cluster(&scenario.cluster));
    let images = scenario.images.iter().map(|(name, profile)| (name.clone(), image(profile)));
    spec.insert("images".to_owned(), Value::Object(images.collect()));
    let mut steps = scenario.timeline.as_slice();
    if let Some((Step { at: Duration::ZERO, when: None, action: Action::User(UserAction::Apply(objects)) }, rest)) =
        steps.split_first()
    {
        spec.insert("manifests".to_owned(), manifests(objects));
        steps = rest;
    }
    spec.insert("timeline".to_owned(), steps.iter().map(step).collect());
    let loads: Vec<Value> = scenario.loads.iter().filter(|load| gives(scenario, &load.target)).map(load).collect();
    if !loads.is_empty() {
        spec.insert("load".to_owned(), loads.into());
    }
    spec.insert("faults".to_owned(), level(scenario.faults).into());
    spec.insert("duration".to_owned(), duration(scenario.duration));
    spec.insert("settle".to_owned(), duration(scenario.settle));
    spec.insert("stopWhenConverged".to_owned(), scenario.stop_when_converged.into());
    let mut text = String::new();
    for (key, value) in [
        ("apiVersion", json!(API_VERSION)),
        ("kind", json!("Scenario")),
        ("metadata", json!({"name": scenario.name})),
        ("spec", Value::Object(spec)),
    ] {
        entry(&mut text, 0, key, &value);
    }
    if let Some(document) = &scenario.scheduling.document {
        text += "---\n";
        document.as_object().into_iter().flatten().for_each(|(key, value)| entry(&mut text, 0, key, value));
    }
    text
}

fn level(level: FaultLevel) -> &'static str {
    match level {
        FaultLevel::None => "none",
        FaultLevel::Listed => "listed",
        FaultLevel::Light => "light",
        FaultLevel::Heavy => "heavy",
    }
}

/// A duration, to the nanosecond.
pub(crate) fn duration(d: Duration) -> Value {
    let nanos = d.as_nanos();
    let units = [("s", 1_000_000_000), ("ms", 1_000_000), ("us", 1_000)];
    let (unit, scale) = units.into_iter().find(|(_, scale)| nanos.is_multiple_of(*scale)).unwrap_or(("ns", 1));
    format!("{}{unit}", nanos / scale).into()
}

/// Adds the field `for` if the fault has a duration.
pub(crate) fn lasting(mut fields: Fields, lasts: Option<Duration>) -> Fields {
    fields.extend(lasts.map(|lasts| ("for", duration(lasts))));
    fields
}

/// The field that gives a set of nodes.
pub(crate) fn nodes(set: &NodeSet) -> (&'static str, Value) {
    match set {
        NodeSet::All => ("all", true.into()),
        NodeSet::Names(names) => ("names", names.as_slice().into()),
        NodeSet::Zone(zone) => ("zone", zone.as_str().into()),
        NodeSet::Labels(selector) => ("labels", selector.to_string().into()),
        NodeSet::Random(count) => ("random", (*count).into()),
        NodeSet::ControlPlane => ("controlPlane", true.into()),
        NodeSet::Machine(name) => ("machine", name.as_str().into()),
        NodeSet::Actor => ("actor", true.into()),
    }
}

/// Fields as a map.
pub(crate) fn map(fields: Fields) -> Value {
    Value::Object(fields.into_iter().map(|(key, value)| (key.to_owned(), value)).collect())
}

fn range((from, to): (Duration, Duration)) -> Value {
    let text = |d| duration(d).as_str().unwrap_or_default().to_owned();
    format!("{}..{}", text(from), text(to)).into()
}

fn cidr((base, prefix): ([u8; 4], u8)) -> Value {
    format!("{}/{prefix}", Ipv4Addr::from(base)).into()
}

fn cluster(cluster: &Cluster) -> Value {
    let pools = cluster.pools.iter().map(|pool| {
        let mut value = json!({"name": pool.name, "count": pool.count, "capacity": pool.capacity});
        if !pool.labels.is_empty() {
            value["labels"] = json!(pool.labels);
        }
        if !pool.taints.is_empty() {
            value["taints"] = json!(pool.taints);
        }
        if let Some(zone) = &pool.zone {
            value["zone"] = json!(zone);
        }
        value
    });
    let mut written = json!({
        "zones": cluster.zones, "apiServers": cluster.api_servers, "controlReplicas": cluster.control_replicas,
        "proxies": cluster.proxies, "users": cluster.users, "serviceCIDR": cidr(cluster.service_cidr),
        "maxEndpointsPerSlice": cluster.max_endpoints_per_slice, "recordEvents": cluster.record_events,
        "latency": range(cluster.latency),
        "storeLatency": range(cluster.store_latency), "pools": pools.collect::<Vec<_>>(),
    });
    if cluster.features != FeatureGates::default() {
        let FeatureGates { generic_workload, gang_scheduling } = cluster.features;
        written["featureGates"] = json!({"GenericWorkload": generic_workload, "GangScheduling": gang_scheduling});
    }
    written
}

/// The fields of a profile that differ from the default, as they stand in a scenario.
pub fn image(profile: &ImageProfile) -> Value {
    let fields = |p: &ImageProfile| {
        let exit = p.exit.map(|(after, code)| json!({"after": duration(after), "code": code}));
        [
            ("size", p.bytes.to_string().into()),
            ("pull", p.pull.map(range).unwrap_or_default()),
            ("start", range(p.start)),
            ("ready", range(p.ready)),
            ("stop", duration(p.stop)),
            ("hook", duration(p.hook)),
            ("crashOneIn", p.crash_one_in.into()),
            ("pullFails", p.pull_fails.into()),
            ("neverReady", p.never_ready.into()),
            ("cpu", format!("{}m", p.cpu_milli).into()),
            ("memory", p.memory_bytes.to_string().into()),
            ("exit", exit.unwrap_or_default()),
        ]
    };
    let (fields, usual) = (fields(profile), fields(&ImageProfile::default()));
    map(fields.into_iter().zip(usual).filter(|(field, usual)| field != usual).map(|(field, _)| field).collect())
}

fn manifests(objects: &[Object]) -> Value {
    objects.iter().map(Object::to_json).collect()
}

fn target(key: &ObjectKey) -> Value {
    let mut value = json!({"kind": key.kind.to_string(), "name": key.name()});
    if !key.namespace().is_empty() {
        value["namespace"] = json!(key.namespace());
    }
    value
}

fn load(load: &Load) -> Value {
    let cpu = format!("{}m", load.cpu_milli);
    json!({"at": duration(load.at), "target": target(&load.target), "cpu": cpu})
}

/// Whether an object is among those that the scenario applies: a file may not name others.
fn gives(scenario: &Scenario, key: &ObjectKey) -> bool {
    let applied = scenario.timeline.iter().flat_map(|step| match &step.action {
        Action::User(UserAction::Apply(objects)) => objects.as_slice(),
        Action::User(_) | Action::Fault(_) => &[],
    });
    applied.into_iter().any(|object| object.key() == *key)
}

fn step(step: &Step) -> Value {
    let (name, value) = match &step.action {
        Action::User(action) => user(action),
        Action::Fault(fault) => (fault.name(), map(fault.write())),
    };
    let mut fields = Map::new();
    fields.insert("at".to_owned(), duration(step.at));
    fields.extend(step.when.iter().map(|moment| ("when".to_owned(), moment.write())));
    fields.insert(name.to_owned(), value);
    Value::Object(fields)
}

fn user(action: &UserAction) -> (&'static str, Value) {
    match action {
        UserAction::Apply(objects) | UserAction::Create(objects) => ("apply", manifests(objects)),
        UserAction::Replace { objects, cascade } => {
            ("replace", json!({"objects": manifests(objects), "cascade": action::cascade_name(*cascade)}))
        }
        UserAction::Delete { key, cascade, grace_period } => {
            let mut value = json!({"target": target(key), "cascade": action::cascade_name(*cascade)});
            if let Some(seconds) = grace_period {
                value["gracePeriod"] = json!(seconds);
            }
            ("delete", value)
        }
        UserAction::Scale { key, replicas } => ("scale", json!({"target": target(key), "replicas": replicas})),
        UserAction::SetImage { key, container, image } => {
            ("setImage", json!({"target": target(key), "container": container, "image": image}))
        }
        UserAction::Patch { key, patch } => {
            let (kind, patch) = match patch {
                Patch::Strategic(patch) => ("strategic", patch),
                Patch::Merge(patch) => ("merge", patch),
                Patch::Json(patch) => ("json", patch),
                Patch::Apply { .. } => unreachable!("no step applies on the server's side"),
            };
            ("patch", json!({"target": target(key), "type": kind, "patch": patch}))
        }
        UserAction::Rollback { key, to_revision: None } => ("rollback", json!({"target": target(key)})),
        UserAction::Rollback { key, to_revision: Some(revision) } => {
            ("rollback", json!({"target": target(key), "toRevision": revision}))
        }
        UserAction::Pause { key, paused } => (if *paused { "pause" } else { "resume" }, json!({"target": target(key)})),
        UserAction::Restart { key } => ("restart", json!({"target": target(key)})),
        UserAction::RollingUpdate { old, new, interval, rollback_after } => {
            let new = manifests(std::slice::from_ref(new));
            let mut value = json!({"old": target(old), "new": new, "interval": duration(*interval)});
            if let Some(after) = rollback_after {
                value["rollbackAfter"] = duration(*after);
            }
            ("rollingUpdate", value)
        }
        UserAction::Cordon { nodes: set, cordoned } => {
            (if *cordoned { "cordon" } else { "uncordon" }, map(vec![nodes(set)]))
        }
        UserAction::Taint { nodes: set, taint, removed } => {
            let mut value = map(vec![nodes(set)]);
            value["taint"] = json!(taint::text(taint));
            (if *removed { "untaint" } else { "taint" }, value)
        }
        UserAction::Drain { nodes: set } => ("drain", map(vec![nodes(set)])),
    }
}

/// A value is written on one line if it is no longer than this, indentation included.
const SHORT: usize = 90;

/// An entry of a map, at an indentation.
fn entry(text: &mut String, indent: usize, key: &str, value: &Value) {
    let flow = serde_json::to_string(value).expect("a value is a text");
    let nested =
        !matches!(value, Value::Object(map) if map.is_empty()) && !matches!(value, Value::Array(a) if a.is_empty());
    match value {
        Value::Object(fields) if nested && flow.len() + indent > SHORT => {
            writeln!(text, "{:indent$}{key}:", "").expect("a string takes text");
            fields.iter().for_each(|(key, value)| entry(text, indent + 2, key, value));
        }
        Value::Array(items) if nested && flow.len() + indent > SHORT => {
            writeln!(text, "{:indent$}{key}:", "").expect("a string takes text");
            items.iter().for_each(|value| item(text, indent, value));
        }
        _ => writeln!(text, "{:indent$}{key}: {flow}", "").expect("a string takes text"),
    }
}

/// An item of a list: a map begins beside its dash.
fn item(text: &mut String, indent: usize, value: &Value) {
    let flow = serde_json::to_string(value).expect("a value is a text");
    match value {
        Value::Object(fields) if flow.len() + indent > SHORT => {
            let begin = text.len();
            fields.iter().for_each(|(key, value)| entry(text, indent + 2, key, value));
            text.replace_range(begin + indent..begin + indent + 1, "-");
        }
        _ => writeln!(text, "{:indent$}- {flow}", "").expect("a string takes text"),
    }
}

#[cfg(test)]
mod tests {
    use crate::explore;
    use crate::files::{LoadOptions, Source, load};
    use crate::scenario::{Action, Scenario, UserAction};

    struct Text(String);

    impl Source for Text {
        fn read(&self, _path: &str) -> Result<Vec<u8>, String> {
            Ok(self.0.clone().into_bytes())
        }

        fn directory(&self, _path: &str) -> Option<Vec<String>> {
            None
        }
    }

    fn read(text: String) -> Scenario {
        let source = Text(text);
        let loaded = load(&["drawn.yaml".to_owned()], &source, &LoadOptions::default());
        loaded.unwrap_or_else(|problems| panic!("{problems}\n{}", source.0)).scenario
    }

    /// Everything about a scenario. The keys of its objects are made when they are first asked for.
    fn shown(scenario: &Scenario) -> String {
        for step in &scenario.timeline {
            if let Action::User(UserAction::Apply(objects) | UserAction::Replace { objects, .. }) = &step.action {
                objects.iter().for_each(|object| drop(object.key()));
            }
        }
        format!("{scenario:#?}")
    }

    #[test]
    fn what_is_written_is_read_as_the_same() {
        for seed in 0..200 {
            let drawn = explore::draw(seed);
            let text = super::scenario(&drawn);
            let read = read(text.clone());
            let (drawn, read) = (shown(&drawn), shown(&read));
            let differs = drawn.lines().zip(read.lines()).find(|(drawn, read)| drawn != read);
            assert!(drawn == read, "seed {seed}: {differs:?}\n{text}");
        }
    }
}
