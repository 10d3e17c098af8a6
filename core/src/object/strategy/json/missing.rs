//! Defaults of bodies that are held as JSON: what is missing is looked for first, so that a body in which nothing is
//! missing is not copied.

use std::rc::Rc;

use serde_json::{Map, Value, json};

use crate::object::Dynamic;
use crate::object::decode::rounded_up;

/// Sets the defaults that `look` finds to be missing in an object's body.
pub(super) fn fill(d: &mut Dynamic, look: impl FnOnce(&mut Missing<'_>)) {
    let mut m = Missing { body: &d.body, found: Vec::new() };
    look(&mut m);
    let found = m.found;
    if !found.is_empty() {
        let body = Rc::make_mut(&mut d.body);
        for (path, value) in found {
            put(body, &path, value);
        }
    }
}

/// The defaults that are found to be missing in a body so far.
pub(super) struct Missing<'a> {
    body: &'a Map<String, Value>,
    /// The paths at which a value is missing, and the default values.
    found: Vec<(Vec<String>, Value)>,
}

impl<'a> Missing<'a> {
    /// The value at a path of keys and indices.
    pub(super) fn get(&self, path: &[&str]) -> Option<&'a Value> {
        let (first, rest) = path.split_first()?;
        let mut value = self.body.get(*first)?;
        for key in rest {
            value = match value {
                Value::Array(items) => items.get(key.parse::<usize>().ok()?)?,
                other => other.get(*key)?,
            };
        }
        Some(value)
    }

    /// Whether there is a value at a path.
    pub(super) fn has(&self, path: &[&str]) -> bool {
        self.get(path).is_some_and(|v| !v.is_null())
    }

    /// The list at a path; empty if there is none.
    pub(super) fn list(&self, path: &[&str]) -> &'a [Value] {
        self.get(path).and_then(Value::as_array).map_or(&[], Vec::as_slice)
    }

    /// The text at a path; empty if there is none.
    pub(super) fn text(&self, path: &[&str]) -> &'a str {
        self.get(path).and_then(Value::as_str).unwrap_or("")
    }

    /// Records rounded-up values for the amounts of a resource list that are finer than thousandths
    /// (`SetDefaults_ResourceList`).
    pub(super) fn round(&mut self, list: &[&str]) {
        for (name, amount) in self.get(list).and_then(Value::as_object).into_iter().flatten() {
            if let Some(rounded) = amount.as_str().and_then(rounded_up) {
                let path = list.iter().copied().chain([name.as_str()]).map(str::to_owned);
                self.found.push((path.collect(), json!(rounded)));
            }
        }
    }

    /// Records a default for `key` in `parent` if the field is absent or the empty string.
    pub(super) fn at(&mut self, parent: &[&str], key: &str, value: impl FnOnce() -> Value) {
        let mut path = parent.to_vec();
        path.push(key);
        let unset = match self.get(&path) {
            None | Some(Value::Null) => true,
            Some(Value::String(s)) => s.is_empty(),
            Some(_) => false,
        };
        if unset {
            self.found.push((path.into_iter().map(str::to_owned).collect(), value()));
        }
    }

    /// Records that a value is to be replaced.
    pub(super) fn set(&mut self, path: &[&str], value: Value) {
        self.found.push((path.iter().map(|key| (*key).to_owned()).collect(), value));
    }
}

/// Sets the value at a path of keys and indices, creating missing objects.
fn put(body: &mut Map<String, Value>, path: &[String], value: Value) {
    let Some((last, parents)) = path.split_last() else { return };
    let Some((first, rest)) = parents.split_first() else {
        body.insert(last.clone(), value);
        return;
    };
    let mut at = body.entry(first.clone()).or_insert_with(|| json!({}));
    for key in rest {
        let next = match at {
            Value::Array(items) => key.parse::<usize>().ok().and_then(|i| items.get_mut(i)),
            Value::Object(map) => Some(map.entry(key.clone()).or_insert_with(|| json!({}))),
            _ => None,
        };
        let Some(next) = next else { return };
        at = next;
    }
    if let Value::Object(map) = at {
        map.insert(last.clone(), value);
    }
}
