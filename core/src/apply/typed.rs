//! What structured-merge-diff's `typed` does with a value and its type: check, merge, compare, list and remove fields.

use serde_json::{Map, Value};

use super::fields::{FieldSet, Step, item_step, show};
use crate::schema::{Scalar, Shape, Type};

/// How a value is walked: as its type says, or as it is itself where the type says nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Form {
    /// One value, whatever is in it.
    Leaf,
    /// Named fields or entries.
    Map,
    /// Items told apart by key or value.
    List,
}

/// `value` is absent where there is none.
fn form(of: Type<'_>, value: Option<&Value>) -> Form {
    match of.shape() {
        Shape::Scalar(Scalar::Any) => match value {
            Some(Value::Object(_)) => Form::Map,
            _ => Form::Leaf,
        },
        Shape::Scalar(_) => Form::Leaf,
        _ if of.is_atomic() => Form::Leaf,
        Shape::Message(_) | Shape::Map(_) => Form::Map,
        Shape::List(..) => Form::List,
    }
}

/// How a pair is walked. Where the type leaves it open and the two differ, it is one value.
fn form_of_pair(of: Type<'_>, a: Option<&Value>, b: Option<&Value>) -> Form {
    match (a, b) {
        (Some(a), Some(b)) if !a.is_null() && !b.is_null() => {
            let (first, second) = (form(of, Some(a)), form(of, Some(b)));
            if first == second { first } else { Form::Leaf }
        }
        (Some(v), _) if !v.is_null() => form(of, Some(v)),
        (_, other) => form(of, other),
    }
}

fn inner<'a>(of: Type<'a>, name: &str) -> Type<'a> {
    of.field(name).unwrap_or(Type::any())
}

fn fields_of(value: Option<&Value>) -> Option<&Map<String, Value>> {
    value.and_then(Value::as_object).filter(|m| !m.is_empty())
}

fn items_of(value: Option<&Value>) -> &[Value] {
    value.and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// What a value has that its type does not allow; errors begin with the path.
pub(super) fn check(value: &Value, of: Type<'_>, duplicates: bool) -> Result<(), String> {
    let mut errors = Vec::new();
    check_at(value, of, duplicates, &mut Vec::new(), &mut errors);
    match errors.len() {
        0 => Ok(()),
        1 => Err(errors.remove(0)),
        _ => Err(format!("errors:\n  {}", errors.join("\n  "))),
    }
}

fn check_at(value: &Value, of: Type<'_>, duplicates: bool, at: &mut Vec<Step>, errors: &mut Vec<String>) {
    let located = |at: &[Step], why: String| if at.is_empty() { why } else { format!("{}: {why}", show(at)) };
    match (of.shape(), value) {
        (_, Value::Null) | (Shape::Scalar(Scalar::Any), _) => {}
        (Shape::Message(_), Value::Object(fields)) => {
            for (name, value) in fields {
                at.push(Step::field(name));
                match of.field(name) {
                    Some(inner) => check_at(value, inner, duplicates, at, errors),
                    None => {
                        errors.push(format!("{}: field not declared in schema", show(at)));
                        at.pop();
                        return;
                    }
                }
                at.pop();
            }
        }
        (Shape::Map(inner), Value::Object(fields)) => {
            for (name, value) in fields {
                at.push(Step::field(name));
                check_at(value, inner, duplicates, at, errors);
                at.pop();
            }
        }
        (Shape::List(inner, _), Value::Array(items)) => {
            let associative = !of.is_atomic();
            let mut seen = std::collections::BTreeSet::new();
            for (i, item) in items.iter().enumerate() {
                let step = if associative { item_step(item, of) } else { Ok(Step::Index(i as u64)) };
                let step = match step {
                    Ok(step) => step,
                    Err(why) => return errors.push(located(at, format!("element {i}: {why}"))),
                };
                if !seen.insert(step.clone()) && !duplicates {
                    errors.push(located(at, format!("duplicate entries for key {step}")));
                }
                at.push(step);
                check_at(item, inner, duplicates, at, errors);
                at.pop();
            }
        }
        (Shape::Message(message), Value::Array(_)) if message.is_list => {}
        (Shape::Message(_) | Shape::Map(_), other) => errors.push(located(at, format!("expected map, got {other}"))),
        (Shape::List(..), other) => errors.push(located(at, format!("expected list, got {other}"))),
        (Shape::Scalar(scalar), other) => {
            if let Some(why) = misfit(scalar, other) {
                errors.push(located(at, why));
            }
        }
    }
}

/// Why a value is no such scalar.
fn misfit(scalar: Scalar, value: &Value) -> Option<String> {
    use Scalar::{Any, Bool, Bytes, Double, Duration, Int32, Int64, IntOrString, MicroTime, Quantity};
    use Scalar::{SchemaOrArray, SchemaOrBool, SchemaOrStrings, String, Time};
    let go = |v: &Value| match v {
        Value::Object(_) | Value::Array(_) => format!("{v}"),
        scalar => format!("&value.valueUnstructured{{Value:{scalar}}}"),
    };
    match scalar {
        Int32 | Int64 | Double if !value.is_number() => {
            let kind = match value {
                Value::String(_) => "string",
                Value::Bool(_) => "bool",
                Value::Array(_) => "[]interface {}",
                Value::Object(_) => "map[string]interface {}",
                Value::Null | Value::Number(_) => "nil",
            };
            Some(format!("expected numeric (int or float), got {kind}"))
        }
        Bool if !value.is_boolean() => Some(format!("expected boolean, got {value}")),
        String | Bytes | Time | MicroTime | Duration if !value.is_string() => {
            Some(format!("expected string, got {}", go(value)))
        }
        IntOrString | Quantity if !value.is_string() && !value.is_number() => {
            Some(format!("expected any scalar, got {value}"))
        }
        Any | SchemaOrArray | SchemaOrBool | SchemaOrStrings => None,
        Int32 | Int64 | Double | Bool | String | Bytes | Time | MicroTime | Duration | IntOrString | Quantity => None,
    }
}

/// The paths of maps, lists and messages in a value that are one value by their type.
pub(super) fn atomic_parts(value: &Value, of: Type<'_>) -> Vec<String> {
    let mut found = Vec::new();
    add_atomic_parts(value, of, &mut Vec::new(), &mut found);
    found
}

fn add_atomic_parts(value: &Value, of: Type<'_>, at: &mut Vec<Step>, found: &mut Vec<String>) {
    if !matches!(of.shape(), Shape::Scalar(_)) && of.is_atomic() {
        found.push(show(at));
        return;
    }
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                at.push(Step::field(name));
                add_atomic_parts(value, inner(of, name), at, found);
                at.pop();
            }
        }
        Value::Array(items) => {
            for item in items {
                let Ok(step) = item_step(item, of) else { continue };
                at.push(step);
                add_atomic_parts(item, of.items().unwrap_or(Type::any()), at, found);
                at.pop();
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// The fields that a value has.
pub(super) fn field_set(value: &Value, of: Type<'_>) -> FieldSet {
    let mut set = FieldSet::default();
    add_fields(value, of, &mut Vec::new(), &mut set);
    set
}

fn add_fields(value: &Value, of: Type<'_>, at: &mut Vec<Step>, set: &mut FieldSet) {
    match (form(of, Some(value)), value) {
        (Form::Leaf, _) => set.insert(at),
        (Form::Map, Value::Object(fields)) => {
            let named = of.message();
            for (name, value) in fields {
                at.push(Step::field(name));
                add_fields(value, inner(of, name), at, set);
                let is_empty = value.is_null() || value.as_object().is_some_and(Map::is_empty);
                let is_named = named.is_some_and(|m| m.field(name).is_some());
                if is_empty || !is_named {
                    set.insert(at);
                }
                at.pop();
            }
        }
        (Form::List, Value::Array(items)) => {
            let steps: Vec<Option<Step>> = items.iter().map(|item| item_step(item, of).ok()).collect();
            let of = of.items().unwrap_or(Type::any());
            for (item, step) in items.iter().zip(&steps) {
                let Some(step) = step else { continue };
                at.push(step.clone());
                // Of items that come twice nothing but that they are there is known.
                if steps.iter().flatten().filter(|s| *s == step).count() == 1 {
                    add_fields(item, of, at, set);
                }
                set.insert(at);
                at.pop();
            }
        }
        (Form::Map | Form::List, _) => {}
    }
}

/// `over` merged over `base`: what is in neither is absent.
pub(super) fn merge(base: Option<&Value>, over: Option<&Value>, of: Type<'_>) -> Option<Value> {
    let newer = || over.or(base).cloned();
    match form_of_pair(of, base, over) {
        Form::Leaf => newer(),
        Form::Map => {
            let (old, new) = (fields_of(base), fields_of(over));
            if old.is_none() && new.is_none() {
                return newer();
            }
            let none = Map::new();
            let (old, new) = (old.unwrap_or(&none), new.unwrap_or(&none));
            let names = old.keys().chain(new.keys().filter(|name| !old.contains_key(*name)));
            let merged =
                names.filter_map(|name| Some((name.clone(), merge(old.get(name), new.get(name), inner(of, name))?)));
            let merged: Map<String, Value> = merged.collect();
            (!merged.is_empty()).then_some(Value::Object(merged))
        }
        Form::List => {
            let (old, new) = (items_of(base), items_of(over));
            if old.is_empty() && new.is_empty() {
                return newer();
            }
            Some(Value::Array(merge_items(old, new, of)))
        }
    }
}

/// Items of both, in an order that keeps that of the newer, and the older's where the newer says nothing.
fn merge_items(old: &[Value], new: &[Value], of: Type<'_>) -> Vec<Value> {
    let steps = |items: &[Value]| -> Vec<Option<Step>> { items.iter().map(|i| item_step(i, of).ok()).collect() };
    let (old_steps, new_steps) = (steps(old), steps(new));
    let inner = of.items().unwrap_or(Type::any());
    let find = |steps: &[Option<Step>], step: &Option<Step>| steps.iter().position(|s| s == step);
    let in_old = |step: &Option<Step>| {
        // Items that come twice are not merged with the newer one.
        let mut found = old_steps.iter().enumerate().filter(|(_, s)| *s == step).map(|(i, _)| i);
        found.next().filter(|_| found.next().is_none())
    };
    let mut shared = new_steps.iter().filter(|s| find(&old_steps, s).is_some());
    let mut next_shared = shared.next();
    let (mut out, mut merged) = (Vec::with_capacity(old.len().max(new.len())), Vec::<&Option<Step>>::new());
    let (mut l, mut r) = (0, 0);
    while l < old.len() || r < new.len() {
        if l < old.len() && r < new.len() {
            let step = &old_steps[l];
            if *step == new_steps[r] {
                merged.push(step);
                out.extend(merge(in_old(step).map(|i| &old[i]), Some(&new[r]), inner));
                (l, r) = (l + 1, r + 1);
                next_shared = shared.next();
                continue;
            }
            if find(&new_steps, step).is_some() && next_shared.is_some_and(|next| next != step) {
                // Shared, but not the one whose turn it is.
                l += 1;
                continue;
            }
        }
        if l < old.len() {
            let step = &old_steps[l];
            if find(&new_steps, step).is_none() {
                out.extend(merge(Some(&old[l]), None, inner));
                l += 1;
                continue;
            }
            if merged.contains(&step) {
                l += 1;
            }
        }
        if r < new.len() {
            let step = &new_steps[r];
            merged.push(step);
            out.extend(merge(in_old(step).map(|i| &old[i]), Some(&new[r]), inner));
            r += 1;
            if next_shared == Some(step) {
                next_shared = shared.next();
            }
        }
    }
    out
}

/// How two values differ.
#[derive(Default, Debug)]
pub(super) struct Comparison {
    pub(super) removed: FieldSet,
    pub(super) modified: FieldSet,
    pub(super) added: FieldSet,
}

pub(super) fn compare(old: &Value, new: &Value, of: Type<'_>) -> Comparison {
    let mut comparison = Comparison::default();
    comparison.at(Some(old), Some(new), of, &mut Vec::new());
    comparison
}

impl Comparison {
    fn at(&mut self, old: Option<&Value>, new: Option<&Value>, of: Type<'_>, at: &mut Vec<Step>) {
        let form = form_of_pair(of, old, new);
        let is_empty = match form {
            Form::Leaf => true,
            Form::Map => fields_of(old).is_none() && fields_of(new).is_none(),
            Form::List => items_of(old).is_empty() && items_of(new).is_empty(),
        };
        match (old, new) {
            (Some(old), Some(new)) if is_empty && old != new => self.modified.insert(at),
            (None, Some(_)) => self.added.insert(at),
            (Some(_), None) => self.removed.insert(at),
            (Some(_), Some(_)) | (None, None) => {}
        }
        if is_empty {
            return;
        }
        if form == Form::List {
            return self.items(items_of(old), items_of(new), of, at);
        }
        let none = Map::new();
        let (old, new) = (fields_of(old).unwrap_or(&none), fields_of(new).unwrap_or(&none));
        for name in old.keys().chain(new.keys().filter(|name| !old.contains_key(*name))) {
            at.push(Step::field(name));
            self.at(old.get(name), new.get(name), inner(of, name), at);
            at.pop();
        }
    }

    fn items(&mut self, old: &[Value], new: &[Value], of: Type<'_>, at: &mut Vec<Step>) {
        let index = |items: &[Value]| {
            let mut index = std::collections::BTreeMap::<Step, Vec<usize>>::new();
            for (i, item) in items.iter().enumerate() {
                if let Ok(step) = item_step(item, of) {
                    index.entry(step).or_default().push(i);
                }
            }
            index
        };
        let (was, is) = (index(old), index(new));
        let inner = of.items().unwrap_or(Type::any());
        for step in was.keys().chain(is.keys().filter(|step| !was.contains_key(*step))) {
            let (a, b) = (was.get(step).map_or(&[][..], Vec::as_slice), is.get(step).map_or(&[][..], Vec::as_slice));
            at.push(step.clone());
            match (a, b) {
                ([] | [_], [] | [_]) => self.at(a.first().map(|i| &old[*i]), b.first().map(|i| &new[*i]), inner, at),
                ([_, _, ..], [_, _, ..]) => {
                    if !a.iter().map(|i| &old[*i]).eq(b.iter().map(|i| &new[*i])) {
                        self.modified.insert(at);
                    }
                }
                ([_, _, ..], rest) => {
                    if let Some(i) = rest.first() {
                        self.at(None, Some(&new[*i]), inner, at);
                    }
                    self.removed.insert(at);
                }
                (rest, _) => {
                    if let Some(i) = rest.first() {
                        self.at(Some(&old[*i]), None, inner, at);
                    }
                    self.added.insert(at);
                }
            }
            at.pop();
        }
    }

    /// Without these fields and all below them.
    pub(super) fn without(self, names: &[&str]) -> Comparison {
        let Comparison { removed, modified, added } = self;
        Comparison { removed: removed.without(names), modified: modified.without(names), added: added.without(names) }
    }
}

/// The value without the fields of a set. What becomes empty by it is gone too.
pub(super) fn remove(value: &Value, set: &FieldSet, of: Type<'_>) -> Option<Value> {
    match (form(of, Some(value)), value) {
        (Form::Map, Value::Object(fields)) => {
            let kept = fields.iter().filter_map(|(name, value)| {
                let step = Step::field(name);
                if set.has(&step) {
                    return None;
                }
                match set.below(&step) {
                    Some(below) => Some((name.clone(), remove(value, below, inner(of, name)).unwrap_or(Value::Null))),
                    None => Some((name.clone(), value.clone())),
                }
            });
            let kept: Map<String, Value> = kept.collect();
            (!kept.is_empty()).then_some(Value::Object(kept))
        }
        (Form::List, Value::Array(items)) => {
            let inner = of.items().unwrap_or(Type::any());
            let kept = items.iter().filter_map(|item| {
                let Ok(step) = item_step(item, of) else { return Some(item.clone()) };
                if set.has(&step) {
                    return None;
                }
                match set.below(&step) {
                    Some(below) => Some(remove(item, below, inner).unwrap_or(Value::Null)),
                    None => Some(item.clone()),
                }
            });
            let kept: Vec<Value> = kept.collect();
            (!kept.is_empty()).then_some(Value::Array(kept))
        }
        // One value: nothing of it can be removed alone.
        (Form::Leaf, Value::Object(_) | Value::Array(_)) => None,
        (Form::Leaf | Form::Map | Form::List, _) => Some(value.clone()),
    }
}
