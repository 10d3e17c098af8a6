//! Answers without what differs from run to run: placeholders stand for it, numbered by their first place in a case
//! where it matters which is which.
//!
//! Not compared at all: managed fields (but in the section about them), descriptions of columns, events (what is told
//! depends on timing), documents of OpenAPI and of metrics, which have tests of their own.

use std::collections::{BTreeMap, BTreeSet};

use regex_lite::{Captures, Regex};
use serde_json::{Map, Value, json};
use skeg_core::protobuf;

use super::session::Shown;

/// The section whose answers keep managed fields.
pub const APPLIES: &str = "server-side-apply";
/// Stands for whatever comes.
pub const ANY: &str = "<any>";

/// What is known of a session's values.
#[derive(Debug)]
pub struct Masks {
    volatile: Regex,
    /// Names that the server has generated, and what they were generated from.
    names: BTreeMap<String, String>,
}

/// The placeholders of a case.
#[derive(Clone, Default, Debug)]
pub struct Numbers {
    classes: BTreeMap<String, BTreeMap<String, usize>>,
    /// Generated names in the request itself, which may be another's of several that are alike.
    named: BTreeSet<String>,
}

impl Default for Masks {
    fn default() -> Masks {
        let volatile = [
            r"(?<uid>[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12})",
            r"(?<time>\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}(\.\d+)?(Z|[+-]\d{2}:\d{2}))",
            r"(?<ip>\b\d{1,3}\.\d{1,3}\.\d{1,3}\.\d{1,3}(:\d+|/\d+)?)",
            r"(?<token>eyJ[\w-]+\.[\w-]+\.[\w-]+)",
            r"(?s:(?<pem>-----BEGIN .*-----END [A-Z ]+-----))",
            r"(?<hash>\bhash=[0-9A-F]+)",
        ];
        Masks { volatile: Regex::new(&volatile.join("|")).expect("a pattern"), names: BTreeMap::new() }
    }
}

const CLASSES: [&str; 6] = ["uid", "time", "ip", "token", "pem", "hash"];

/// JSON of an answer, decoded if it is protobuf.
pub fn json(media_type: &str, body: &[u8]) -> Option<Value> {
    if media_type.starts_with(protobuf::MEDIA_TYPE) && protobuf::has_prefix(body) {
        return Some(protobuf::decode(body, None).expect("the server's protobuf can be read"));
    }
    media_type.starts_with("application/json").then(|| serde_json::from_slice(body).ok()).flatten()
}

/// Visits every object, the outer ones first.
pub fn visit(value: &Value, seen: &mut impl FnMut(&Map<String, Value>, &str), pointer: &str) {
    match value {
        Value::Object(fields) => {
            seen(fields, pointer);
            for (key, value) in fields {
                visit(value, seen, &format!("{pointer}/{}", key.replace('~', "~0").replace('/', "~1")));
            }
        }
        Value::Array(items) => {
            items.iter().enumerate().for_each(|(i, item)| visit(item, seen, &format!("{pointer}/{i}")));
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// The name of an object's metadata, if the server has generated it.
pub fn generated(fields: &Map<String, Value>) -> Option<(&str, &str)> {
    let (name, from) = (fields.get("name")?.as_str()?, fields.get("generateName")?.as_str()?);
    name.starts_with(from).then_some((name, from))
}

impl Masks {
    /// Learns the names that an answer tells.
    pub fn learn(&mut self, value: &Value) {
        let mut learn = |fields: &Map<String, Value>, _: &str| {
            if let Some((name, from)) = generated(fields) {
                self.names.insert(name.to_owned(), from.to_owned());
            }
        };
        visit(value, &mut learn, "");
    }

    /// An answer as it is compared.
    pub fn shown(&self, section: &str, target: &str, media_type: &str, body: &[u8], numbers: &mut Numbers) -> Shown {
        let path = target.split('?').next().unwrap_or_default();
        if path.starts_with("/openapi/v2") || path.starts_with("/openapi/v3/") || path == "/metrics" {
            return Shown::Nothing;
        }
        let Some(mut value) = json(media_type, body) else {
            let text = String::from_utf8_lossy(body).into_owned();
            return if text.is_empty() { Shown::Nothing } else { Shown::Text(self.text(&text, numbers)) };
        };
        numbers.named = self.names.keys().filter(|name| target.contains(name.as_str())).cloned().collect();
        strip(&mut value, section == APPLIES);
        if let Some(fields) = value.as_object_mut() {
            // Where pods run differs, and what is told of it.
            if target.contains("spec.nodeName") || path.ends_with("/events") {
                ["items", "rows"].iter().for_each(|list| cover(fields, list));
            }
        }
        if path.ends_with("/endpointslices") {
            // As many writes as it took.
            let items = value["items"].as_array_mut().into_iter().flatten();
            items.filter_map(|item| item["metadata"].as_object_mut()).for_each(|fields| cover(fields, "generation"));
        }
        self.sort(&mut value);
        self.mask(&mut value, numbers);
        Shown::Json(value)
    }

    /// Sorts lists by what does not differ from run to run.
    fn sort(&self, value: &mut Value) {
        for list in ["items", "rows"] {
            if let Some(items) = value.get_mut(list).and_then(Value::as_array_mut) {
                items.sort_by_cached_key(|item| {
                    let mut item = item.clone();
                    // Each has placeholders of its own here, so that numbers tell nothing.
                    self.mask(&mut item, &mut Numbers::default());
                    item.to_string()
                });
            }
        }
    }

    fn mask(&self, value: &mut Value, numbers: &mut Numbers) {
        match value {
            Value::String(text) => *text = self.text(text, numbers),
            Value::Array(items) => items.iter_mut().for_each(|item| self.mask(item, numbers)),
            Value::Object(fields) => fields.values_mut().for_each(|value| self.mask(value, numbers)),
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }

    fn text(&self, text: &str, numbers: &mut Numbers) -> String {
        let mut text = text.to_owned();
        for (name, from) in &self.names {
            if text.contains(name.as_str()) {
                let shown = match numbers.named.contains(name) {
                    true => "<named>".to_owned(),
                    false => format!("{from}<{}>", numbers.number(from, name)),
                };
                text = text.replace(name.as_str(), &shown);
            }
        }
        let masked = self.volatile.replace_all(&text, |found: &Captures<'_>| {
            let class = CLASSES.into_iter().find(|class| found.name(class).is_some()).expect("one has matched");
            match class {
                "uid" => format!("<uid-{}>", numbers.number(class, &found[0])),
                _ => format!("<{class}>"),
            }
        });
        masked.into_owned()
    }
}

impl Numbers {
    fn number(&mut self, class: &str, value: &str) -> usize {
        let of_class = self.classes.entry(class.to_owned()).or_default();
        let next = of_class.len() + 1;
        *of_class.entry(value.to_owned()).or_insert(next)
    }
}

/// What is compared of a table's columns.
fn columns(definitions: &[Value]) -> Vec<Value> {
    let text = |column: &Value, key: &str| column[key].as_str().unwrap_or_default().to_owned();
    let line = |column: &Value| {
        let [name, of, format] = ["name", "type", "format"].map(|key| text(column, key));
        format!("{name}: {of} {format} {}", column["priority"]).replace("  ", " ").into()
    };
    definitions.iter().map(line).collect()
}

/// Columns whose cells tell time or place.
fn tells_when_or_where(column: &Value) -> bool {
    let name = column["name"].as_str().unwrap_or_default();
    ["Age", "Last Seen", "First Seen", "Duration", "Last Schedule", "Node", "Created At"].contains(&name)
}

/// Takes out, or covers, what differs from run to run by what it is.
fn strip(value: &mut Value, keeps_managers: bool) {
    let definitions = value.get("columnDefinitions").and_then(Value::as_array).cloned();
    if let Some(definitions) = definitions {
        for row in value["rows"].as_array_mut().into_iter().flatten() {
            for (cell, column) in row["cells"].as_array_mut().into_iter().flatten().zip(&definitions) {
                if tells_when_or_where(column) {
                    *cell = ANY.into();
                }
                strip_cell(cell);
            }
        }
        value["columnDefinitions"] = columns(&definitions).into();
    }
    strip_objects(value, keeps_managers);
}

/// Ports that were given are in cells like `80:30123/TCP`.
fn strip_cell(cell: &mut Value) {
    if let Some((before, after)) = cell.as_str().and_then(|text| text.split_once(":3"))
        && after.contains("/TCP")
    {
        *cell = format!("{before}:<port>/TCP").into();
    }
}

fn cover(fields: &mut Map<String, Value>, key: &str) {
    if let Some(value) = fields.get_mut(key) {
        *value = ANY.into();
    }
}

fn strip_objects(value: &mut Value, keeps_managers: bool) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(|item| strip_objects(item, keeps_managers)),
        Value::Object(fields) => {
            let kind = fields.get("kind").and_then(Value::as_str).unwrap_or_default().to_owned();
            match &*kind {
                "HorizontalPodAutoscaler" | "ResourceQuota" => drop(fields.remove("status")),
                _ => {}
            }
            if !keeps_managers {
                fields.remove("managedFields");
            }
            // What a node has pulled.
            fields.remove("images");
            for key in ["resourceVersion", "nodePort", "nodeName", "usage", "timestamp", "containerID", "zone"] {
                if let Some(value) = fields.get_mut(key).filter(|value| !value.is_object() || key == "usage") {
                    *value = json!(format!("<{key}>"));
                }
            }
            fields.values_mut().for_each(|value| strip_objects(value, keeps_managers));
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// What two runs have alike; the rest is not compared.
pub fn common(one: &Value, other: &Value) -> Value {
    match (one, other) {
        (Value::Object(one), Value::Object(other)) => {
            let keys: BTreeSet<&String> = one.keys().chain(other.keys()).collect();
            let value = |key: &String| match (one.get(key), other.get(key)) {
                (Some(one), Some(other)) => common(one, other),
                _ => ANY.into(),
            };
            keys.into_iter().map(|key| (key.clone(), value(key))).collect::<Map<_, _>>().into()
        }
        (Value::Array(one), Value::Array(other)) if one.len() == other.len() => {
            one.iter().zip(other).map(|(one, other)| common(one, other)).collect()
        }
        _ if one == other => one.clone(),
        _ => ANY.into(),
    }
}

/// Where an answer differs from what was recorded, one line each.
pub fn differences(expect: &Value, found: &Value, pointer: &str, all: &mut Vec<String>) {
    match (expect, found) {
        (Value::String(any), _) if any == ANY => {}
        (Value::Object(expect), Value::Object(found)) => {
            let keys: BTreeSet<&String> = expect.keys().chain(found.keys()).collect();
            for key in keys {
                let at = format!("{pointer}/{key}");
                match (expect.get(key), found.get(key)) {
                    (Some(expect), Some(found)) => differences(expect, found, &at, all),
                    // A list may be empty, and then not be there.
                    (Some(any), None) | (None, Some(any)) if any == ANY => {}
                    (Some(expect), None) => all.push(format!("{at}: recorded {expect}, not there")),
                    (None, found) => all.push(format!("{at}: not recorded, found {}", found.unwrap_or(&Value::Null))),
                }
            }
        }
        (Value::Array(expect), Value::Array(found)) if expect.len() == found.len() => {
            for (i, (expect, found)) in expect.iter().zip(found).enumerate() {
                differences(expect, found, &format!("{pointer}/{i}"), all);
            }
        }
        _ if expect == found => {}
        _ => all.push(format!("{pointer}: recorded {expect}, found {found}")),
    }
}
