//! Tables: the columns that `kubectl get` shows for each kind, and the cells of an object.
//!
//! What comes in: an object as JSON and the server's time. What goes out: one cell for each column, including the
//! low-priority columns (`-o wide`).
//!
//! Source: upstream's `pkg/printers/internalversion/printers.go`; for kinds without their own columns, apiserver's
//! `pkg/registry/rest/table.go`.

mod age;
mod cluster;
mod custom;
mod json_path;
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
pub use custom::CustomColumns;

/// A column of a table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Column {
    /// Its heading.
    pub name: &'static str,
    /// `string`, `integer`, `boolean`, `number`.
    pub type_: &'static str,
    /// Zero: always shown; greater than zero: shown only with `-o wide`.
    pub priority: i32,
}

/// A text column that is always shown.
const fn text(name: &'static str) -> Column {
    Column { name, type_: "string", priority: 0 }
}

/// A number column that is always shown.
const fn number(name: &'static str) -> Column {
    Column { name, type_: "integer", priority: 0 }
}

/// A text column that is shown with `-o wide`.
const fn wide(name: &'static str) -> Column {
    Column { name, type_: "string", priority: 1 }
}

impl Column {
    /// Its `TableColumnDefinition`.
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
            "Age" | "Created At" => CREATED,
            _ => "",
        };
        json!({"name": self.name, "type": type_, "format": format, "description": description,
            "priority": self.priority})
    }
}

/// What a column of the time of creation says of itself.
const CREATED: &str = "CreationTimestamp is a timestamp representing the server time when this object was created.";
/// The first column of every kind.
const NAME: Column = text("Name");
/// The columns of a kind without its own printer.
const DEFAULT: &[Column] = &[text("Name"), text("Created At")];

/// How a kind is printed.
struct Printer {
    columns: &'static [Column],
    cells: fn(&Value, Time) -> Vec<Value>,
}

/// The printer of a kind; `None` if it uses the default.
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

/// The `TableRowCondition` of an object that has completed; `None` for others.
pub fn completed(kind: Kind, object: &Value) -> Option<Value> {
    let (reason, message) = match (kind, str_at(object, "/status/phase")) {
        (Kind::POD, "Succeeded") => ("Succeeded", "The pod has completed successfully."),
        (Kind::POD, "Failed") => ("Failed", "The pod failed."),
        _ => return None,
    };
    Some(json!({"type": "Completed", "status": "True", "reason": reason, "message": message}))
}

/// The string at a path; empty if there is none.
fn str_at<'a>(object: &'a Value, path: &str) -> &'a str {
    object.pointer(path).and_then(Value::as_str).unwrap_or("")
}

/// The string at a path, or `or` if there is none.
fn str_or<'a>(object: &'a Value, path: &str, or: &'a str) -> &'a str {
    match str_at(object, path) {
        "" => or,
        text => text,
    }
}

/// The number at a path; zero if there is none.
fn int_at(object: &Value, path: &str) -> i64 {
    object.pointer(path).and_then(Value::as_i64).unwrap_or(0)
}

/// The list at a path; empty if there is none.
fn list_at<'a>(object: &'a Value, path: &str) -> &'a [Value] {
    object.pointer(path).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn name(object: &Value) -> &str {
    str_at(object, "/metadata/name")
}

/// Time since an object was created.
fn age(object: &Value, now: Time) -> Value {
    json!(now.since(str_at(object, "/metadata/creationTimestamp")))
}

/// `a=b,c=d`, or `<none>`.
fn labels(map: Option<&Value>) -> String {
    let pairs = map.and_then(Value::as_object).into_iter().flatten();
    or_none(pairs.map(|(k, v)| format!("{k}={}", v.as_str().unwrap_or(""))).collect::<Vec<_>>().join(","))
}

/// A `LabelSelector` in one line; `<none>` if it is empty.
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

/// The first `most` texts and how many more there are.
fn first_of(all: &[String], most: usize) -> String {
    let shown = all[..all.len().min(most)].join(",");
    if all.len() > most { format!("{shown} + {} more...", all.len() - most) } else { shown }
}

/// Converts a wall-clock time; for tests.
impl From<Wall> for Time {
    fn from(wall: Wall) -> Time {
        Time(wall)
    }
}
