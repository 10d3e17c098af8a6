//! Paths of fields as linked parts on the stack: text is made only when there is an error to report.

use std::collections::BTreeMap;
use std::fmt;

use crate::object::{IntOrString, LabelSelector};

/// Path of a field: `spec.containers[0].resources.limits[cpu]`.
#[derive(Clone, Copy)]
pub(super) enum Path<'a> {
    Root(&'static str),
    Field(&'a Path<'a>, &'a str),
    Index(&'a Path<'a>, usize),
    Key(&'a Path<'a>, &'a str),
}

impl<'a> Path<'a> {
    pub(super) fn field(&'a self, name: &'a str) -> Path<'a> {
        Path::Field(self, name)
    }

    pub(super) fn index(&'a self, index: usize) -> Path<'a> {
        Path::Index(self, index)
    }

    pub(super) fn key(&'a self, key: &'a str) -> Path<'a> {
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

/// A value printed as Go's `%#v` prints it.
pub(super) struct Go(pub String);

impl fmt::Debug for Go {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Go {
    pub(super) fn map(map: Option<&BTreeMap<String, String>>) -> Go {
        let Some(map) = map else { return Go("map[string]string(nil)".to_owned()) };
        let pairs: Vec<String> = map.iter().map(|(k, v)| format!("{k:?}:{v:?}")).collect();
        Go(format!("map[string]string{{{}}}", pairs.join(", ")))
    }

    pub(super) fn strings(list: &[String]) -> Go {
        let items: Vec<String> = list.iter().map(|s| format!("{s:?}")).collect();
        Go(format!("[]string{{{}}}", items.join(", ")))
    }

    pub(super) fn int_or_string(value: &IntOrString) -> Go {
        Go(match value {
            IntOrString::Int(n) => format!("intstr.IntOrString{{Type:0, IntVal:{n}, StrVal:\"\"}}"),
            IntOrString::String(s) => format!("intstr.IntOrString{{Type:1, IntVal:0, StrVal:{s:?}}}"),
        })
    }

    pub(super) fn selector(s: &LabelSelector) -> Go {
        let expressions = match &s.match_expressions {
            None => "[]v1.LabelSelectorRequirement(nil)".to_owned(),
            Some(list) => {
                let items: Vec<String> = list
                    .iter()
                    .map(|e| {
                        let values = match &e.values {
                            None => "[]string(nil)".to_owned(),
                            Some(v) => Go::strings(v).0,
                        };
                        format!(
                            "v1.LabelSelectorRequirement{{Key:{:?}, Operator:{:?}, Values:{values}}}",
                            e.key, e.operator
                        )
                    })
                    .collect();
                format!("[]v1.LabelSelectorRequirement{{{}}}", items.join(", "))
            }
        };
        let labels = Go::map(s.match_labels.as_ref()).0;
        Go(format!("v1.LabelSelector{{MatchLabels:{labels}, MatchExpressions:{expressions}}}"))
    }
}
