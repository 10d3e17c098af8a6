//! Looking into the machines of a run at a moment: what the store has of an object and what each process sees of it,
//! how far every view has come, what each controller is doing and has before it, and who leads.

use std::fmt;
use std::str::FromStr;

use serde_json::{Value, json};
use skeg_core::Kind;
use skeg_core::client::View;
use skeg_core::controllers::Work;
use skeg_core::object::{Object, ObjectKey};
use skeg_core::store::{StoreEvent, StoreKey};

use crate::process::{Process, Running};
use crate::report::Table;
use crate::world::World;

/// What is looked at.
#[derive(Clone, PartialEq, Debug)]
pub enum Show {
    /// An object in the store, and in every view.
    Object(ObjectKey),
    /// How far every view has come.
    View,
    /// What controllers are doing and have before them.
    Queue,
    /// Who leads.
    Lease,
}

impl FromStr for Show {
    type Err = String;

    fn from_str(text: &str) -> Result<Show, String> {
        let (kind, path) = match text.split_once('/') {
            Some(parts) => parts,
            None if text == "view" => return Ok(Show::View),
            None if text == "queue" => return Ok(Show::Queue),
            None if text == "lease" => return Ok(Show::Lease),
            None => return Err(format!("{text:?} is not view, queue, lease or an object, as pod/default/web-0")),
        };
        let known = Kind::by_alias(kind).ok_or_else(|| format!("there is no resource type {kind:?}"))?;
        let (namespace, name) = match path.split_once('/') {
            Some((namespace, name)) => (namespace, name),
            None if known.row().namespaced => ("default", path),
            None => ("", path),
        };
        if name.is_empty() || name.contains('/') {
            return Err(format!("{text:?} does not name an object; write kind/namespace/name or kind/name"));
        }
        Ok(Show::Object(ObjectKey::new(known, namespace, name)))
    }
}

impl fmt::Display for Show {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Show::Object(key) => write!(f, "{key}"),
            Show::View => f.write_str("view"),
            Show::Queue => f.write_str("queue"),
            Show::Lease => f.write_str("lease"),
        }
    }
}

/// What was seen.
#[derive(Clone, Debug)]
pub struct Look {
    /// Virtual seconds.
    pub at: f64,
    /// What was looked at.
    pub show: String,
    /// The object, if one was asked for and is in the store.
    pub object: Option<Value>,
    /// A row for each process, view or key.
    pub columns: &'static [&'static str],
    /// In the order of the columns.
    pub rows: Vec<Vec<String>>,
}

impl Look {
    /// As text that people read.
    pub fn text(&self) -> String {
        let mut text = format!("{} at {:.3} s\n", self.show, self.at);
        if let Some(object) = &self.object {
            text += &serde_json::to_string_pretty(object).expect("an object is JSON");
            text.push('\n');
        }
        if self.rows.is_empty() {
            return text + "  nothing\n";
        }
        let mut table = Table::new(self.columns);
        self.rows.iter().for_each(|row| table.row(row.clone()));
        text + &table.render()
    }

    /// For machines.
    pub fn json(&self) -> Value {
        let names = self.columns.iter().map(|column| column.to_lowercase().replace(' ', "_"));
        let names: Vec<String> = names.collect();
        let row = |row: &Vec<String>| -> Value {
            names.iter().zip(row).map(|(name, cell)| (name.clone(), Value::from(cell.as_str()))).collect()
        };
        json!({"at": self.at, "show": self.show, "object": self.object,
            "rows": self.rows.iter().map(row).collect::<Vec<_>>()})
    }
}

/// Looks into a world.
pub fn look(world: &World, show: &Show) -> Look {
    let (object, columns, rows): (_, &[&str], _) = match show {
        Show::Object(key) => {
            let object = world.store.object(key).map(Object::to_json);
            (object, &["SEEN BY", "REVISION", "VIEW IS AT"], seen_by(world, key))
        }
        Show::View => (None, &["PROCESS", "KIND", "OBJECTS", "VIEW IS AT", "CHANGES SINCE", "THE FIRST"], views(world)),
        Show::Queue => (None, &["CONTROLLER", "KEY", "STATE"], queues(world)),
        Show::Lease => (None, &["ROLE", "PROCESS", "LEADS", "LEASE HOLDER", "RENEWED"], leases(world)),
    };
    Look { at: world.seconds(), show: show.to_string(), object, columns, rows }
}

/// The views of a process.
fn views_of(process: &Process) -> Vec<&View> {
    match &process.running {
        Some(Running::Manager(m)) => m.views().collect(),
        Some(Running::Scheduler(m)) => m.views().into_iter().collect(),
        Some(Running::Agent(m)) => m.views().into_iter().collect(),
        Some(Running::Proxy(m)) => m.views().all().collect(),
        Some(Running::Dns(m)) => m.views().all().collect(),
        Some(Running::Api(_) | Running::User(_)) | None => Vec::new(),
    }
}

fn seen_by(world: &World, key: &ObjectKey) -> Vec<Vec<String>> {
    let stored = world.store.object(key).map(|object| format!("r{}", object.rv().0));
    let store = format!("r{}", world.store.revision().0);
    let mut rows = vec![vec!["the store".to_owned(), stored.unwrap_or_else(|| "none".to_owned()), store]];
    for process in world.processes.iter() {
        for view in views_of(process).into_iter().filter(|view| view.kind() == key.kind && view.is_synced()) {
            let seen = view.get(key).map_or_else(|| "none".to_owned(), |object| format!("r{}", object.rv().0));
            rows.push(vec![process.name.to_string(), seen, format!("r{}", view.revision().0)]);
        }
    }
    rows
}

fn views(world: &World) -> Vec<Vec<String>> {
    let mut rows = Vec::new();
    for process in world.processes.iter() {
        for view in views_of(process) {
            let is_its = |change: &StoreEvent| matches!(change.key(), StoreKey::Object(key) if key.kind == view.kind());
            let mut missed = world.store.changes_after(view.revision());
            missed.retain(is_its);
            let oldest = missed.first().map_or_else(String::new, |change| format!("{:?}", change.revision));
            let at = if view.is_synced() { format!("r{}", view.revision().0) } else { "not listed".to_owned() };
            let (kind, objects, missed) = (view.kind().to_string(), view.len().to_string(), missed.len().to_string());
            rows.push(vec![process.name.to_string(), kind, objects, at, missed, oldest]);
        }
    }
    rows
}

fn queues(world: &World) -> Vec<Vec<String>> {
    let mut rows = Vec::new();
    for process in world.processes.iter() {
        let Some(Running::Manager(manager)) = &process.running else { continue };
        for runner in manager.runners() {
            for (key, work) in runner.tasks() {
                let state = match work {
                    Work::Queued { at, failures } => {
                        let failed =
                            if failures > 0 { format!(", has failed {failures} times") } else { String::new() };
                        match at {
                            Some(at) => format!("queued for {:.3} s{failed}", at.0 as f64 / 1e9),
                            None => format!("queued{failed}"),
                        }
                    }
                    Work::AwaitsView { since } => {
                        format!("waits for its view since {:.3} s", since.0 as f64 / 1e9)
                    }
                    Work::Writes { sent, open, of } => format!("{sent} of {of} writes sent, {open} not answered"),
                };
                rows.push(vec![format!("{} ({})", runner.name(), process.name), key.to_string(), state]);
            }
        }
    }
    rows
}

fn leases(world: &World) -> Vec<Vec<String>> {
    let lease = |name: &str| world.store.object(&ObjectKey::new(Kind::LEASE, "kube-system", name));
    let mut rows = Vec::new();
    for id in world.processes.ids() {
        let Some((role, leads)) = world.leadership(id) else { continue };
        let name = if role == "scheduler" { "kube-scheduler" } else { "kube-controller-manager" };
        let spec = lease(name).map(Object::to_json).unwrap_or_default();
        let field = |path: &str| spec["spec"][path].as_str().unwrap_or("none").to_owned();
        let leads = if leads { "yes" } else { "no" };
        let process = world.processes[id].name.to_string();
        rows.push(vec![role.to_owned(), process, leads.to_owned(), field("holderIdentity"), field("renewTime")]);
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::Show;

    #[test]
    fn what_is_shown_is_named_as_kubectl_does() {
        for (text, expect) in [
            ("view", "view"),
            ("queue", "queue"),
            ("lease", "lease"),
            ("pod/shop/web-0", "Pod/shop/web-0"),
            ("deploy/web", "Deployment/default/web"),
            ("node/a", "Node/a"),
        ] {
            assert_eq!(text.parse::<Show>().unwrap().to_string(), expect);
        }
        for text in ["", "pods", "nothing/a", "pod/", "pod/a/", "pod/a/b/c"] {
            text.parse::<Show>().unwrap_err();
        }
    }
}
