//! `metadata.managedFields`: who manages which fields, as the API shows it and as it is reckoned with.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::fields::FieldSet;
use crate::limits::UPDATE_MANAGERS;

/// How fields came to be managed; in the order of the words.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Operation {
    Apply,
    Update,
}

impl Operation {
    fn word(self) -> &'static str {
        match self {
            Operation::Apply => "Apply",
            Operation::Update => "Update",
        }
    }
}

/// What tells managers apart. Whoever applies is the same one in every version.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Manager {
    pub(super) name: String,
    pub(super) operation: Operation,
    /// Empty for whoever applies.
    pub(super) api_version: String,
    pub(super) subresource: String,
}

impl Manager {
    pub(super) fn new(name: &str, operation: Operation, api_version: &str, subresource: &str) -> Manager {
        let api_version = if operation == Operation::Apply { "" } else { api_version };
        let name = if name.is_empty() { "unknown" } else { name };
        Manager {
            name: name.to_owned(),
            operation,
            api_version: api_version.to_owned(),
            subresource: subresource.to_owned(),
        }
    }

    /// As messages name it.
    pub(super) fn show(&self) -> String {
        let mut shown = format!("{:?}", self.name);
        if !self.subresource.is_empty() {
            shown += &format!(" with subresource {:?}", self.subresource);
        }
        if self.operation == Operation::Update {
            shown += &format!(" using {}", self.api_version);
        }
        shown
    }
}

/// What a manager manages.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Owned {
    pub(super) set: FieldSet,
    /// The version in which the fields are named.
    pub(super) api_version: String,
    /// RFC 3339.
    pub(super) time: Option<String>,
}

/// Every manager of an object.
pub(super) type Managers = BTreeMap<Manager, Owned>;

/// Reads `managedFields`; an error says what is wrong with which entry.
pub(super) fn decode(entries: &[Value]) -> Result<Managers, String> {
    let mut managers = Managers::new();
    for (i, entry) in entries.iter().enumerate() {
        let text = |key: &str| entry.get(key).and_then(Value::as_str).unwrap_or("");
        let operation = match text("operation") {
            "Apply" => Operation::Apply,
            "Update" => Operation::Update,
            _ => return Err("operation must be `Apply` or `Update`".to_owned()),
        };
        if text("apiVersion").is_empty() {
            return Err("apiVersion must not be empty".to_owned());
        }
        match text("fieldsType") {
            "FieldsV1" => {}
            "" => return Err(format!("missing fieldsType in managed fields entry {i}")),
            other => return Err(format!("invalid fieldsType {other:?} in managed fields entry {i}")),
        }
        let set = match entry.get("fieldsV1") {
            None | Some(Value::Null) => FieldSet::default(),
            Some(fields) => FieldSet::from_json(fields).map_err(|why| format!("error decoding set: {why}"))?,
        };
        let manager = Manager::new(text("manager"), operation, text("apiVersion"), text("subresource"));
        let time = entry.get("time").and_then(Value::as_str).map(str::to_owned);
        managers.insert(manager, Owned { set, api_version: text("apiVersion").to_owned(), time });
    }
    Ok(managers)
}

/// Writes `managedFields`, in Kubernetes' order: by operation, time and name.
pub(super) fn encode(managers: &Managers) -> Vec<Value> {
    let mut sorted: Vec<(&Manager, &Owned)> = managers.iter().collect();
    sorted.sort_by_key(|(manager, owned)| {
        (manager.operation, &owned.time, &manager.name, &owned.api_version, &manager.subresource)
    });
    let entry = |(manager, owned): (&Manager, &Owned)| {
        let mut entry = Map::new();
        entry.insert("manager".to_owned(), json!(manager.name));
        entry.insert("operation".to_owned(), json!(manager.operation.word()));
        entry.insert("apiVersion".to_owned(), json!(owned.api_version));
        if let Some(time) = &owned.time {
            entry.insert("time".to_owned(), json!(time));
        }
        entry.insert("fieldsType".to_owned(), json!("FieldsV1"));
        entry.insert("fieldsV1".to_owned(), owned.set.to_json());
        if !manager.subresource.is_empty() {
            entry.insert("subresource".to_owned(), json!(manager.subresource));
        }
        Value::Object(entry)
    };
    sorted.into_iter().map(entry).collect()
}

/// Puts the oldest updaters of a version together where there are too many (`capManagersManager`).
pub(super) fn cap(managers: &mut Managers) {
    let mut updaters: Vec<Manager> = managers.keys().filter(|m| m.operation == Operation::Update).cloned().collect();
    let mut count = updaters.len();
    updaters.sort_by_key(|m| (managers[m].time.clone(), m.clone()));
    let mut first_of = BTreeMap::<String, Manager>::new();
    for manager in updaters {
        if count <= UPDATE_MANAGERS {
            return;
        }
        let version = managers[&manager].api_version.clone();
        let Some(first) = first_of.get(&version) else {
            first_of.insert(version, manager);
            continue;
        };
        let bucket = Manager::new("ancient-changes", Operation::Update, &version, "");
        if !managers.contains_key(&bucket)
            && let Some(oldest) = managers.remove(first)
        {
            managers.insert(bucket.clone(), oldest);
        }
        if let (Some(owned), Some(all)) = (managers.remove(&manager), managers.get_mut(&bucket)) {
            all.set = all.set.union(&owned.set);
            all.time = owned.time;
            count -= 1;
        }
    }
}
