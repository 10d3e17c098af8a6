//! Label and field selectors, parsed from Kubernetes' query syntax or taken from `metav1.LabelSelector`.
//!
//! Source: <https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/#label-selectors>.

use std::collections::BTreeMap;
use std::fmt;

use k8s_openapi::apimachinery::pkg::apis::meta::v1 as meta_v1;
use serde::{Deserialize, Serialize};

/// The labels of an object.
pub type Labels = BTreeMap<String, String>;

/// One requirement on a label.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Requirement {
    /// The label exists and its value is one of these.
    In(String, Vec<String>),
    /// The label is absent, or its value is none of these.
    NotIn(String, Vec<String>),
    /// The label exists.
    Exists(String),
    /// The label is absent.
    Absent(String),
    /// The value is an integer greater than this one.
    Gt(String, i64),
    /// The value is an integer less than this one.
    Lt(String, i64),
}

/// A conjunction of requirements. An empty one matches everything.
#[derive(Clone, Debug, PartialEq, Eq, Default, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Selector {
    /// All must hold.
    pub requirements: Vec<Requirement>,
    /// If true, the selector matches nothing, whatever the requirements (a nil `LabelSelector`).
    pub nothing: bool,
}

/// The error for a selector that could not be parsed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SelectorError(pub String);

impl fmt::Display for SelectorError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Requirement {
    /// Whether labels meet the requirement. `None` means that there are no labels.
    pub fn matches(&self, labels: Option<&Labels>) -> bool {
        let get = |key: &str| labels.and_then(|l| l.get(key));
        match self {
            Requirement::In(key, values) => get(key).is_some_and(|v| values.contains(v)),
            Requirement::NotIn(key, values) => get(key).is_none_or(|v| !values.contains(v)),
            Requirement::Exists(key) => get(key).is_some(),
            Requirement::Absent(key) => get(key).is_none(),
            Requirement::Gt(key, bound) => get(key).and_then(|v| v.parse::<i64>().ok()).is_some_and(|v| v > *bound),
            Requirement::Lt(key, bound) => get(key).and_then(|v| v.parse::<i64>().ok()).is_some_and(|v| v < *bound),
        }
    }
}

impl Selector {
    /// A selector that matches everything.
    pub fn everything() -> Selector {
        Selector::default()
    }

    /// A selector that matches nothing.
    pub fn nothing() -> Selector {
        Selector { requirements: Vec::new(), nothing: true }
    }

    /// A selector that requires every pair of a map, as Services and ReplicationControllers have it.
    pub fn from_map(map: &Labels) -> Selector {
        let requirements = map.iter().map(|(k, v)| Requirement::In(k.clone(), vec![v.clone()])).collect();
        Selector { requirements, nothing: false }
    }

    /// Converts from `metav1.LabelSelector`; an empty one matches everything. An unknown operator is an error.
    pub fn from_label_selector(s: &meta_v1::LabelSelector) -> Result<Selector, SelectorError> {
        let mut selector = s.match_labels.as_ref().map(Selector::from_map).unwrap_or_default();
        for e in s.match_expressions.iter().flatten() {
            let values = e.values.clone().unwrap_or_default();
            selector.requirements.push(match e.operator.as_str() {
                "In" => Requirement::In(e.key.clone(), values),
                "NotIn" => Requirement::NotIn(e.key.clone(), values),
                "Exists" => Requirement::Exists(e.key.clone()),
                "DoesNotExist" => Requirement::Absent(e.key.clone()),
                other => return Err(SelectorError(format!("{other:?} is not a valid label selector operator"))),
            });
        }
        Ok(selector)
    }

    /// Whether labels match. `None` means that there are no labels.
    pub fn matches(&self, labels: Option<&Labels>) -> bool {
        !self.nothing && self.requirements.iter().all(|r| r.matches(labels))
    }

    /// Whether it matches everything by having no requirement.
    pub fn is_everything(&self) -> bool {
        !self.nothing && self.requirements.is_empty()
    }

    /// Parses `app=web,tier in (a, b),!legacy,gen>3` as Kubernetes' `labels.Parse`.
    pub fn parse(text: &str) -> Result<Selector, SelectorError> {
        let mut requirements = Vec::new();
        for part in split_outside_parens(text) {
            let part = part.trim();
            if part.is_empty() {
                if text.trim().is_empty() {
                    continue;
                }
                return Err(SelectorError(format!(
                    "unable to parse requirement: found '', expected: identifier in {text:?}"
                )));
            }
            requirements.push(parse_requirement(part)?);
        }
        Ok(Selector { requirements, nothing: false })
    }
}

fn split_outside_parens(text: &str) -> Vec<&str> {
    let (mut depth, mut start, mut parts) = (0i32, 0, Vec::new());
    for (i, c) in text.char_indices() {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(&text[start..i]);
                start = i + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    parts
}

fn parse_requirement(part: &str) -> Result<Requirement, SelectorError> {
    let bad = |what: &str| SelectorError(format!("unable to parse requirement: {what} in {part:?}"));
    if let Some(key) = part.strip_prefix('!') {
        return Ok(Requirement::Absent(label_key(key.trim())?));
    }
    if let Some(open) = part.find('(') {
        let list = part[open + 1..].strip_suffix(')').ok_or_else(|| bad("expected: ')'"))?;
        let mut head = part[..open].split_whitespace();
        let (key, op) = (head.next().ok_or_else(|| bad("expected: identifier"))?, head.next());
        let values = list.split(',').map(|v| v.trim().to_owned()).collect();
        return match (op, head.next()) {
            (Some("in"), None) => Ok(Requirement::In(label_key(key)?, values)),
            (Some("notin"), None) => Ok(Requirement::NotIn(label_key(key)?, values)),
            _ => Err(bad("expected: in, notin")),
        };
    }
    for (op, negate) in [("!=", true), ("==", false), ("=", false)] {
        if let Some((key, value)) = part.split_once(op) {
            let (key, values) = (label_key(key.trim())?, vec![value.trim().to_owned()]);
            return Ok(if negate { Requirement::NotIn(key, values) } else { Requirement::In(key, values) });
        }
    }
    for (op, above) in [('>', true), ('<', false)] {
        if let Some((key, value)) = part.split_once(op) {
            let bound = value
                .trim()
                .parse::<i64>()
                .map_err(|_| bad("for 'Gt', 'Lt' operators, the value must be an integer"))?;
            let key = label_key(key.trim())?;
            return Ok(if above { Requirement::Gt(key, bound) } else { Requirement::Lt(key, bound) });
        }
    }
    Ok(Requirement::Exists(label_key(part)?))
}

fn label_key(key: &str) -> Result<String, SelectorError> {
    let ok = !key.is_empty() && key.chars().all(|c| c.is_ascii_alphanumeric() || "-_./".contains(c));
    if ok {
        Ok(key.to_owned())
    } else {
        Err(SelectorError(format!("unable to parse requirement: <nil>: Invalid value: {key:?}")))
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, r) in self.requirements.iter().enumerate() {
            if i > 0 {
                f.write_str(",")?;
            }
            match r {
                Requirement::In(k, v) if v.len() == 1 => write!(f, "{k}={}", v[0])?,
                Requirement::NotIn(k, v) if v.len() == 1 => write!(f, "{k}!={}", v[0])?,
                Requirement::In(k, v) => write!(f, "{k} in ({})", v.join(","))?,
                Requirement::NotIn(k, v) => write!(f, "{k} notin ({})", v.join(","))?,
                Requirement::Exists(k) => f.write_str(k)?,
                Requirement::Absent(k) => write!(f, "!{k}")?,
                Requirement::Gt(k, n) => write!(f, "{k}>{n}")?,
                Requirement::Lt(k, n) => write!(f, "{k}<{n}")?,
            }
        }
        Ok(())
    }
}

/// A conjunction of `path=value` and `path!=value` on fields.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct FieldSelector {
    /// `(path, value, equal)`; all must hold.
    pub terms: Vec<(String, String, bool)>,
}

impl FieldSelector {
    /// A selector that matches everything.
    pub fn everything() -> FieldSelector {
        FieldSelector::default()
    }

    /// The selector `path=value`.
    pub fn equal(path: &str, value: &str) -> FieldSelector {
        FieldSelector { terms: vec![(path.to_owned(), value.to_owned(), true)] }
    }

    /// The value that the selector requires `path` to equal; `None` if it does not.
    pub fn required(&self, path: &str) -> Option<&str> {
        self.terms.iter().find(|(p, _, equal)| *equal && p == path).map(|(_, v, _)| v.as_str())
    }

    /// Parses `metadata.name=a,status.phase!=Running` as Kubernetes' `fields.ParseSelector`.
    pub fn parse(text: &str) -> Result<FieldSelector, SelectorError> {
        let mut terms = Vec::new();
        for part in text.split(',').filter(|p| !p.is_empty()) {
            let found = [("!=", false), ("==", true), ("=", true)]
                .into_iter()
                .find_map(|(op, equal)| part.split_once(op).map(|(k, v)| (k.to_owned(), v.to_owned(), equal)));
            terms.push(
                found.ok_or_else(|| SelectorError(format!("invalid selector: '{text}'; can't understand '{part}'")))?,
            );
        }
        Ok(FieldSelector { terms })
    }

    /// Whether an object's fields, which `get` looks up by path, match. An unknown path counts as the empty string.
    pub fn matches<'a>(&self, get: impl Fn(&str) -> Option<std::borrow::Cow<'a, str>>) -> bool {
        self.terms.iter().all(|(path, value, equal)| (get(path).as_deref().unwrap_or("") == value) == *equal)
    }
}

#[cfg(test)]
mod tests {
    use super::{FieldSelector, Labels, Selector};

    fn check(text: &str, labels: &[(&str, &str)], expect: bool) {
        let labels: Labels = labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        assert_eq!(Selector::parse(text).unwrap().matches(Some(&labels)), expect, "{text}");
    }

    #[test]
    fn matches_as_kubernetes_does() {
        check("", &[], true);
        check("a=1", &[("a", "1")], true);
        check("a==1,b!=2", &[("a", "1")], true);
        check("a in (1, 2),!c", &[("a", "2")], true);
        check("a notin (1,2)", &[("a", "2")], false);
        check("a", &[], false);
        check("n>3", &[("n", "4")], true);
        check("n<3", &[("n", "x")], false);
    }

    #[test]
    fn refuses_what_it_cannot_read() {
        for text in ["a in (1", "a b", ",", "=x", "n>x"] {
            assert!(Selector::parse(text).is_err(), "{text}");
        }
        assert!(FieldSelector::parse("metadata.name").is_err());
    }
}
