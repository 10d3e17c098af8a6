//! Tables: the columns that `kubectl get` shows of each kind, and the cells of an object.
//!
//! What comes in: an object as JSON, and the server's time. What goes out: cells, one a column, those of low priority
//! (`-o wide`) included.
//!
//! Source: upstream's `pkg/printers/internalversion/printers.go`; for kinds without columns of their own apiserver's
//! `pkg/registry/rest/table.go`.

mod age;
mod cluster;
mod network;
mod pod;
mod storage;
#[cfg(test)]
mod tests;
mod workload;

use serde_json::{Value, json};

use crate::machine::Wall;
use crate::object::Kind;

pub use age::{Time, human_duration};

/// A column of a table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Column {
    /// Its heading.
    pub name: &'static str,
    /// `string`, `integer`, `boolean`, `number`.
    pub type_: &'static str,
    /// Zero: always shown; more: only where there is room (`-o wide`).
    pub priority: i32,
}

/// A column of text that is always shown.
const fn text(name: &'static str) -> Column {
    Column { name, type_: "string", priority: 0 }
}

/// A column of whole numbers that is always shown.
const fn number(name: &'static str) -> Column {
    Column { name, type_: "integer", priority: 0 }
}

/// A column of text that is shown where there is room.
const fn wide(name: &'static str) -> Column {
    Column { name, type_: "string", priority: 1 }
}

impl Column {
    /// As a `TableColumnDefinition`.
    pub fn to_json(&self) -> Value {
        let (format, type_) = match self.name {
            "Name" => ("name", self.type_),
            "Created At" => ("", "date"),
            _ => ("", self.type_),
        };
        let description = match self.name {
            "Name" => {
                "Name must be unique within a namespace. Is required when creating resources, although some resources \
                 may allow a client to request the generation of an appropriate name automatically."
            }
            "Age" | "Created At" => {
                "CreationTimestamp is a timestamp representing the server time when this object was created."
            }
            _ => "",
        };
        json!({"name": self.name, "type": type_, "format": format, "description": description,
            "priority": self.priority})
    }
}

/// The columns of a kind without any of its own.
const DEFAULT: &[Column] = &[text("Name"), text("Created At")];

/// How a kind is shown.
struct Printer {
    columns: &'static [Column],
    cells: fn(&Value, Time) -> Vec<Value>,
}

/// The printer of a kind, if it has one of its own.
fn printer(kind: Kind) -> Option<Printer> {
    let family: [fn(Kind) -> Option<Printer>; 4] =
        [workload::printer, network::printer, storage::printer, cluster::printer];
    family.iter().find_map(|find| find(kind))
}

/// The columns of a kind.
pub fn columns(kind: Kind) -> &'static [Column] {
    printer(kind).map_or(DEFAULT, |printer| printer.columns)
}

/// The cells of an object of a kind.
pub fn cells(kind: Kind, object: &Value, now: Time) -> Vec<Value> {
    match printer(kind) {
        Some(printer) => (printer.cells)(object, now),
        None => vec![json!(name(object)), json!(str_at(object, "/metadata/creationTimestamp"))],
    }
}

/// The `TableRowCondition` of an object that has run to its end.
pub fn completed(kind: Kind, object: &Value) -> Option<Value> {
    let (reason, message) = match (kind, str_at(object, "/status/phase")) {
        (Kind::POD, "Succeeded") => ("Succeeded", "The pod has completed successfully."),
        (Kind::POD, "Failed") => ("Failed", "The pod failed."),
        _ => return None,
    };
    Some(json!({"type": "Completed", "status": "True", "reason": reason, "message": message}))
}

/// Text at a path; empty where there is none.
fn str_at<'a>(object: &'a Value, path: &str) -> &'a str {
    object.pointer(path).and_then(Value::as_str).unwrap_or("")
}

/// Text at a path, or something else where there is none.
fn str_or<'a>(object: &'a Value, path: &str, or: &'a str) -> &'a str {
    match str_at(object, path) {
        "" => or,
        text => text,
    }
}

/// A number at a path; zero where there is none.
fn int_at(object: &Value, path: &str) -> i64 {
    object.pointer(path).and_then(Value::as_i64).unwrap_or(0)
}

/// A list at a path.
fn list_at<'a>(object: &'a Value, path: &str) -> &'a [Value] {
    object.pointer(path).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn name(object: &Value) -> &str {
    str_at(object, "/metadata/name")
}

/// How long ago an object was created.
fn age(object: &Value, now: Time) -> Value {
    json!(now.since(str_at(object, "/metadata/creationTimestamp")))
}

/// `a=b,c=d`, or `<none>`.
fn labels(map: Option<&Value>) -> String {
    let pairs = map.and_then(Value::as_object).into_iter().flatten();
    or_none(pairs.map(|(k, v)| format!("{k}={}", v.as_str().unwrap_or(""))).collect::<Vec<_>>().join(","))
}

/// A `LabelSelector` in one line, `<none>` where it selects by nothing.
fn label_selector(selector: Option<&Value>) -> String {
    let Some(selector) = selector else { return "<none>".to_owned() };
    match serde_json::from_value(selector.clone()) {
        Ok(selector) => match crate::object::Selector::from_label_selector(&selector) {
            Ok(selector) => or_none(selector.to_string()),
            Err(_) => "<error>".to_owned(),
        },
        Err(_) => "<error>".to_owned(),
    }
}

fn or_none(text: String) -> String {
    if text.is_empty() { "<none>".to_owned() } else { text }
}

/// `true`, `false`, or `<unset>`.
fn flag(value: Option<&Value>) -> String {
    match value.and_then(Value::as_bool) {
        Some(true) => "True".to_owned(),
        Some(false) => "False".to_owned(),
        None => "<unset>".to_owned(),
    }
}

/// Names and images of containers.
fn containers(list: &[Value]) -> [Value; 2] {
    let join = |field: &str| json!(list.iter().map(|c| str_at(c, field)).collect::<Vec<_>>().join(","));
    [join("/name"), join("/image")]
}

/// The first of some texts, and how many more there are.
fn first_of(all: &[String], most: usize) -> String {
    let shown = all[..all.len().min(most)].join(",");
    if all.len() > most { format!("{shown} + {} more...", all.len() - most) } else { shown }
}

/// The wall clock at a time; for tests.
impl From<Wall> for Time {
    fn from(wall: Wall) -> Time {
        Time(wall)
    }
}
