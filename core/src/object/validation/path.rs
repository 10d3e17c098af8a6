//! Field paths as linked parts on the stack: a string is built only if there is an error to report.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

use crate::object::{IntOrString, LabelSelector};

/// The path of a field: `spec.containers[0].resources.limits[cpu]`.
#[derive(Clone, Copy)]
pub(in crate::object) enum Path<'a> {
    Root(&'static str),
    Field(&'a Path<'a>, &'a str),
    Index(&'a Path<'a>, usize),
    Key(&'a Path<'a>, &'a str),
}

impl<'a> Path<'a> {
    pub(in crate::object) fn field(&'a self, name: &'a str) -> Path<'a> {
        Path::Field(self, name)
    }

    pub(in crate::object) fn index(&'a self, index: usize) -> Path<'a> {
        Path::Index(self, index)
    }

    pub(in crate::object) fn key(&'a self, key: &'a str) -> Path<'a> {
        Path::Key(self, key)
    }
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Path::Root(name) => f.write_str(name),
            Path::Field(Path::Root(""), name) => f.write_str(name),
            Path::Field(parent, name) => write!(f, "{parent}.{name}"),
            Path::Index(parent, index) => write!(f, "{parent}[{index}]"),
            Path::Key(parent, key) => write!(f, "{parent}[{key}]"),
        }
    }
}

impl From<&Path<'_>> for String {
    fn from(path: &Path<'_>) -> String {
        path.to_string()
    }
}

impl From<Path<'_>> for String {
    fn from(path: Path<'_>) -> String {
        path.to_string()
    }
}

/// A value other than a string, number or boolean, in the form in which `field.Error` prints it: as JSON.
pub(in crate::object) struct Go(pub String);

impl fmt::Debug for Go {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Go {
    fn json(value: &impl Serialize) -> Go {
        Go(serde_json::to_string(value).expect("maps, lists and texts are JSON"))
    }

    pub(in crate::object) fn map(map: Option<&BTreeMap<String, String>>) -> Go {
        Go::json(&map)
    }

    pub(in crate::object) fn strings(list: &[String]) -> Go {
        Go::json(&list)
    }

    pub(in crate::object) fn int_or_string(value: &IntOrString) -> Go {
        Go::json(value)
    }

    /// A selector, with `matchLabels` first as in Go's type.
    pub(in crate::object) fn selector(s: &LabelSelector) -> Go {
        let mut fields = Vec::new();
        if let Some(labels) = s.match_labels.as_ref().filter(|l| !l.is_empty()) {
            fields.push(format!("\"matchLabels\":{}", Go::json(labels).0));
        }
        if let Some(list) = s.match_expressions.as_ref().filter(|l| !l.is_empty()) {
            fields.push(format!("\"matchExpressions\":{}", Go::json(list).0));
        }
        Go(format!("{{{}}}", fields.join(",")))
    }
}
