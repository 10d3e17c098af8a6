//! Sets of fields, and their JSON (`FieldsV1`).
//!
//! Source: structured-merge-diff's `fieldpath`. `{"f:spec": {"f:replicas": {}}}` is the set of one path; `"."` says that a
//! path is in the set itself, where paths below it are too.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fmt;

use serde_json::{Map, Value};

use crate::limits::FIELDS_DEPTH;
use crate::schema::{Shape, Type};

/// One step of a path, in structured-merge-diff's order.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Step {
    /// A field, or an entry of a map.
    Field(String),
    /// The item of a list that has these keys, in their order.
    Key(Vec<(String, Atom)>),
    /// The item of a set.
    Value(Atom),
    /// An item of an atomic list.
    Index(u64),
}

/// A scalar that names an item.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Atom(pub(super) Value);

impl Eq for Atom {}

impl PartialOrd for Atom {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Atom {
    fn cmp(&self, other: &Self) -> Ordering {
        let rank = |v: &Value| match v {
            Value::Number(_) => 0,
            Value::String(_) => 1,
            Value::Bool(_) => 2,
            Value::Array(_) => 3,
            Value::Object(_) => 4,
            Value::Null => 5,
        };
        match (&self.0, &other.0) {
            (Value::String(a), Value::String(b)) => a.cmp(b),
            (Value::Bool(a), Value::Bool(b)) => a.cmp(b),
            (Value::Number(a), Value::Number(b)) => match (a.as_i64(), b.as_i64()) {
                (Some(a), Some(b)) => a.cmp(&b),
                _ => a.as_f64().unwrap_or(0.0).total_cmp(&b.as_f64().unwrap_or(0.0)),
            },
            (a, b) => rank(a).cmp(&rank(b)).then_with(|| a.to_string().cmp(&b.to_string())),
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Step::Field(name) => write!(f, ".{name}"),
            Step::Key(keys) => {
                let keys: Vec<String> = keys.iter().map(|(name, value)| format!("{name}={}", value.0)).collect();
                write!(f, "[{}]", keys.join(","))
            }
            Step::Value(value) => write!(f, "[={}]", value.0),
            Step::Index(index) => write!(f, "[{index}]"),
        }
    }
}

impl Step {
    pub(super) fn field(name: &str) -> Step {
        Step::Field(name.to_owned())
    }

    fn to_key(&self) -> String {
        match self {
            Step::Field(name) => format!("f:{name}"),
            Step::Key(keys) => {
                let map: Map<String, Value> =
                    keys.iter().map(|(name, value)| (name.clone(), value.0.clone())).collect();
                format!("k:{}", Value::Object(map))
            }
            Step::Value(value) => format!("v:{}", value.0),
            Step::Index(index) => format!("i:{index}"),
        }
    }

    /// `None` for a kind of step that is not known, which is to be dropped.
    fn parse(key: &str) -> Result<Option<Step>, String> {
        let Some((kind, rest)) = key.split_once(':') else { return Err(format!("missing colon: {key}")) };
        let json = || serde_json::from_str::<Value>(rest).map_err(|e| format!("parsing key as path element: {e}"));
        Ok(Some(match kind {
            "f" => Step::field(rest),
            "v" => Step::Value(Atom(json()?)),
            "k" => match json()? {
                Value::Object(map) => Step::Key(map.into_iter().map(|(name, value)| (name, Atom(value))).collect()),
                other => return Err(format!("parsing key as path element: {other} is no object")),
            },
            "i" => Step::Index(rest.parse().map_err(|_| format!("parsing key as path element: {rest:?}"))?),
            _ => return Ok(None),
        }))
    }
}

/// A set of paths, as a tree.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub(super) struct FieldSet(BTreeMap<Step, Branch>);

#[derive(Clone, PartialEq, Eq, Default, Debug)]
struct Branch {
    /// The path that ends here is in the set.
    member: bool,
    below: FieldSet,
}

impl Branch {
    fn is_empty(&self) -> bool {
        !self.member && self.below.is_empty()
    }
}

impl FieldSet {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds a path. The whole object is nobody's.
    pub(super) fn insert(&mut self, path: &[Step]) {
        let Some((first, rest)) = path.split_first() else { return };
        let branch = self.0.entry(first.clone()).or_default();
        if rest.is_empty() { branch.member = true } else { branch.below.insert(rest) }
    }

    pub(super) fn with(mut self, path: &[&str]) -> FieldSet {
        let path: Vec<Step> = path.iter().map(|name| Step::field(name)).collect();
        self.insert(&path);
        self
    }

    /// Whether the path of one step is in the set.
    pub(super) fn has(&self, step: &Step) -> bool {
        self.0.get(step).is_some_and(|b| b.member)
    }

    /// What is below a step.
    pub(super) fn below(&self, step: &Step) -> Option<&FieldSet> {
        self.0.get(step).map(|b| &b.below).filter(|s| !s.is_empty())
    }

    fn combine(&self, other: &FieldSet, keep: fn(bool, bool) -> bool) -> FieldSet {
        let none = Branch::default();
        let steps = self.0.keys().chain(other.0.keys().filter(|step| !self.0.contains_key(*step)));
        let combined = steps.filter_map(|step| {
            let (a, b) = (self.0.get(step).unwrap_or(&none), other.0.get(step).unwrap_or(&none));
            let branch = Branch { member: keep(a.member, b.member), below: a.below.combine(&b.below, keep) };
            (!branch.is_empty()).then(|| (step.clone(), branch))
        });
        FieldSet(combined.collect())
    }

    pub(super) fn union(&self, other: &FieldSet) -> FieldSet {
        self.combine(other, |a, b| a || b)
    }

    pub(super) fn difference(&self, other: &FieldSet) -> FieldSet {
        self.combine(other, |a, b| a && !b)
    }

    pub(super) fn intersection(&self, other: &FieldSet) -> FieldSet {
        self.combine(other, |a, b| a && b)
    }

    /// Without the fields of these names at the top, and what is below them.
    pub(super) fn without(&self, names: &[&str]) -> FieldSet {
        let kept = self.0.iter().filter(|(step, _)| !matches!(step, Step::Field(f) if names.contains(&f.as_str())));
        FieldSet(kept.map(|(step, branch)| (step.clone(), branch.clone())).collect())
    }

    /// With every named field that something is below of, as far as the type names it.
    pub(super) fn with_named_fields(&self, of: Type<'_>) -> FieldSet {
        let message = of.message();
        let grown = self.0.iter().map(|(step, branch)| {
            let (named, inner) = match step {
                Step::Field(name) => (message.is_some_and(|m| m.field(name).is_some()), of.field(name)),
                Step::Key(_) => (false, of.items()),
                Step::Value(_) | Step::Index(_) => (false, None),
            };
            let below = branch.below.with_named_fields(inner.unwrap_or(Type::any()));
            (step.clone(), Branch { member: branch.member || (named && !below.is_empty()), below })
        });
        FieldSet(grown.collect())
    }

    /// Every path, in order.
    pub(super) fn paths(&self) -> Vec<Vec<Step>> {
        let mut all = Vec::new();
        self.collect(&mut Vec::new(), &mut all);
        all
    }

    fn collect(&self, at: &mut Vec<Step>, all: &mut Vec<Vec<Step>>) {
        // Members come before what is below them and beside them, as upstream walks.
        for (step, _) in self.0.iter().filter(|(_, branch)| branch.member) {
            all.push(at.iter().chain([step]).cloned().collect());
        }
        for (step, branch) in &self.0 {
            at.push(step.clone());
            branch.below.collect(at, all);
            at.pop();
        }
    }

    /// As `FieldsV1`.
    pub(super) fn to_json(&self) -> Value {
        let fields = self.0.iter().map(|(step, branch)| {
            let mut below = branch.below.to_json();
            if branch.member && !branch.below.is_empty() {
                below["."] = Value::Object(Map::new());
            }
            (step.to_key(), below)
        });
        Value::Object(fields.collect())
    }

    /// From `FieldsV1`.
    pub(super) fn from_json(value: &Value) -> Result<FieldSet, String> {
        FieldSet::read(value, 0)
    }

    fn read(value: &Value, depth: usize) -> Result<FieldSet, String> {
        let Value::Object(fields) = value else { return Err("fieldsV1 is not an object".to_owned()) };
        if depth > FIELDS_DEPTH {
            return Err(format!("fieldsV1 is nested more than {FIELDS_DEPTH} levels deep"));
        }
        let mut set = FieldSet::default();
        for (key, value) in fields.iter().filter(|(key, _)| *key != ".") {
            let Some(step) = Step::parse(key)? else { continue };
            let below = FieldSet::read(value, depth + 1)?;
            let member = below.is_empty() || value.get(".").is_some();
            set.0.insert(step, Branch { member, below });
        }
        Ok(set)
    }
}

/// The path as messages show it: `.spec.containers[name="a"].image`.
pub(super) fn show(path: &[Step]) -> String {
    path.iter().map(Step::to_string).collect()
}

/// The step to an item of a list that is no atomic one. An error says what the item lacks.
pub(super) fn item_step(item: &Value, list: Type<'_>) -> Result<Step, String> {
    use crate::schema::ListType;
    let Shape::List(of, kind) = list.shape() else { return Err("invalid indexing of non-associative list".to_owned()) };
    match kind {
        ListType::Map(keys) => key_step(item, keys, of),
        ListType::Set => match item {
            Value::Object(_) => Err("associative list without keys has an element that's a map type".to_owned()),
            Value::Array(_) => Err("not supported: associative list with lists as elements".to_owned()),
            Value::Null => Err("associative list without keys has an element that's an explicit null".to_owned()),
            scalar => Ok(Step::Value(Atom(scalar.clone()))),
        },
        ListType::Unsaid | ListType::Atomic => Err("invalid indexing of non-associative list".to_owned()),
    }
}

fn key_step(item: &Value, keys: &[Box<str>], of: Type<'_>) -> Result<Step, String> {
    let fields = match item {
        Value::Object(fields) => fields,
        Value::Null => return Err("associative list with keys may not have a null element".to_owned()),
        _ => return Err("associative list with keys may not have non-map elements".to_owned()),
    };
    let mut found: Vec<(String, Atom)> = Vec::with_capacity(keys.len());
    for key in keys {
        let value = fields.get(&**key).cloned().or_else(|| of.default_of(key));
        found.extend(value.map(|value| (key.to_string(), Atom(value))));
    }
    if found.is_empty() {
        let quoted: Vec<String> = keys.iter().map(|k| format!("{k:?}")).collect();
        return Err(format!(
            "associative list with keys has an element that omits all key fields [{}] (and doesn't have default values \
             for any key fields)",
            quoted.join(" ")
        ));
    }
    found.sort();
    Ok(Step::Key(found))
}
