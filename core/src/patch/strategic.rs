//! Kubernetes' strategic merge patch, as `k8s.io/apimachinery/pkg/util/strategicpatch` applies it.
//!
//! Source: <https://github.com/kubernetes/community/blob/main/contributors/devel/sig-api-machinery/strategic-merge-patch.md>.

use serde_json::{Map, Value};

use crate::schema::{Shape, Type};

pub(super) const DIRECTIVE: &str = "$patch";
pub(super) const RETAIN: &str = "$retainKeys";
pub(super) const ORDER: &str = "$setElementOrder/";
pub(super) const DELETE: &str = "$deleteFromPrimitiveList/";

type Fields = Map<String, Value>;

/// The error message for a patch that cannot be applied.
pub(super) type Wrong = String;

/// How strategic merge patch treats a field.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Treatment<'a> {
    /// Maps are merged, lists are replaced.
    Plain,
    /// Lists are merged: lists of maps by this merge key; lists of primitives as sets, if the key is empty.
    Merge(&'a str),
    /// Maps are replaced.
    Replace,
}

/// How a field is treated, and its type. For a list it is the type of the items.
pub(super) fn treatment<'a>(of: Type<'a>, name: &str) -> (Treatment<'a>, Type<'a>) {
    let Some(inner) = of.field(name) else { return (Treatment::Plain, Type::any()) };
    let inner = match inner.shape() {
        Shape::List(items, _) => items,
        Shape::Scalar(_) | Shape::Message(_) | Shape::Map(_) => inner,
    };
    let Some(field) = of.message().and_then(|m| m.field(name)) else { return (Treatment::Plain, inner) };
    match &field.merge.by {
        Some(by) => (Treatment::Merge(by), inner),
        None if field.merge.replace => (Treatment::Replace, inner),
        None => (Treatment::Plain, inner),
    }
}

/// Merges `patch` into `original`, an object of type `of`.
pub(super) fn merge(original: Fields, mut patch: Fields, of: Type<'_>) -> Result<Fields, Wrong> {
    match patch.remove(DIRECTIVE) {
        None => {}
        Some(directive) => match directive.as_str() {
            Some("replace") => return Ok(patch),
            Some("delete") => return Ok(Fields::new()),
            Some("merge") => {}
            _ => return Err(unknown_directive(&directive, &patch)),
        },
    }
    let mut merged = original;
    retain(&mut merged, &mut patch)?;
    ordered_lists(&mut merged, &mut patch, of)?;
    for (key, value) in patch {
        if let Some(field) = key.strip_prefix(DELETE) {
            remove_items(&mut merged, field, &value)?;
            continue;
        }
        let (treatment, inner) = treatment(of, &key);
        let next = match (merged.remove(&key), value) {
            (_, Value::Null) => continue,
            (Some(Value::Object(old)), Value::Object(new)) if treatment != Treatment::Replace => {
                Value::Object(merge(old, new, inner)?)
            }
            (Some(Value::Array(old)), Value::Array(new)) => match treatment {
                Treatment::Merge(by) => Value::Array(merge_list(old, new, by, inner)?),
                Treatment::Plain | Treatment::Replace => Value::Array(new.into_iter().map(plain).collect()),
            },
            (_, new) => plain(new),
        };
        merged.insert(key, next);
    }
    Ok(merged)
}

fn unknown_directive(directive: &Value, map: &Fields) -> Wrong {
    let name = directive.as_str().map_or_else(|| directive.to_string(), str::to_owned);
    format!("unknown patch type found: {name} in map: {}", Value::Object(map.clone()))
}

/// Carries out `$retainKeys`: removes all other keys from the map.
fn retain(merged: &mut Fields, patch: &mut Fields) -> Result<(), Wrong> {
    let Some(keys) = patch.remove(RETAIN) else { return Ok(()) };
    let Value::Array(keys) = keys else { return Err(format!("$retainKeys directive should have a list, got {keys}")) };
    let keys: Vec<&str> = keys.iter().filter_map(Value::as_str).collect();
    for (key, value) in patch.iter() {
        if !value.is_null() && !key.starts_with('$') && !keys.contains(&key.as_str()) {
            return Err(format!("{key:?} is not in the $retainKeys list {keys:?} of the patch"));
        }
    }
    merged.retain(|key, _| keys.contains(&key.as_str()));
    Ok(())
}

/// Merges the lists with a `$setElementOrder` directive, puts them in that order, and takes them out of the patch.
fn ordered_lists(merged: &mut Fields, patch: &mut Fields, of: Type<'_>) -> Result<(), Wrong> {
    let orders: Vec<String> = patch.keys().filter(|k| k.starts_with(ORDER)).cloned().collect();
    for directive in orders {
        let field = directive[ORDER.len()..].to_owned();
        let Some(Value::Array(order)) = patch.remove(&directive) else {
            return Err(format!("{directive} should have a list"));
        };
        let (treatment, inner) = treatment(of, &field);
        let by = match treatment {
            Treatment::Merge(by) => by,
            Treatment::Plain | Treatment::Replace => "",
        };
        let (had_new, new) = match patch.remove(&field) {
            Some(Value::Array(new)) => (true, new),
            Some(other) => {
                // If the value is not a list, the directive has no effect.
                patch.insert(field, other);
                continue;
            }
            None => (false, Vec::new()),
        };
        same_order(&new, &order, by)?;
        let server = match merged.get(&field) {
            Some(Value::Array(old)) => old.clone(),
            _ => Vec::new(),
        };
        let list = match (server.is_empty(), had_new) {
            (true, false) => continue,
            (true, true) => without_deleted(new),
            (false, false) => server.clone(),
            (false, true) => match treatment {
                Treatment::Merge(by) => merge_list(server.clone(), new, by, inner)?,
                Treatment::Plain | Treatment::Replace => new.into_iter().map(plain).collect(),
            },
        };
        merged.insert(field, Value::Array(reorder(list, &order, &server, by)));
    }
    Ok(())
}

/// Checks that the items of a list in a patch are in the order of its `$setElementOrder` directive.
fn same_order(items: &[Value], order: &[Value], by: &str) -> Result<(), Wrong> {
    let mut last = 0;
    for item in items.iter().filter(|i| i.get(DIRECTIVE).is_none()) {
        match position(order, item, by) {
            Some(i) if i >= last => last = i,
            _ => {
                let (items, order) = (Value::from(items.to_vec()), Value::from(order.to_vec()));
                return Err(format!(
                    "The order in patch list:\n{items}\n doesn't match $setElementOrder list:\n{order}\n"
                ));
            }
        }
    }
    Ok(())
}

fn remove_items(merged: &mut Fields, field: &str, gone: &Value) -> Result<(), Wrong> {
    let Value::Array(gone) = gone else { return Err(format!("{DELETE}{field} should have a list")) };
    if let Some(Value::Array(items)) = merged.get_mut(field) {
        items.retain(|item| !gone.contains(item));
    }
    Ok(())
}

/// Merges a list of maps by a key, or a list of primitives as a set.
fn merge_list(old: Vec<Value>, new: Vec<Value>, by: &str, of: Type<'_>) -> Result<Vec<Value>, Wrong> {
    if old.is_empty() && new.is_empty() {
        return Ok(old);
    }
    let maps = |list: &[Value]| list.iter().any(Value::is_object);
    if by.is_empty() || !(maps(&old) || maps(&new)) {
        if maps(&old) || maps(&new) {
            return Err("cannot merge lists without merge key".to_owned());
        }
        let mut merged: Vec<Value> = Vec::with_capacity(old.len() + new.len());
        for item in old.iter().chain(&new) {
            if !merged.contains(item) {
                merged.push(item.clone());
            }
        }
        return Ok(reorder(merged, &new, &old, ""));
    }
    let server = old.clone();
    let (mut merged, wanted) = match special_items(old, new, by)? {
        Special::Replaced(list) => return Ok(list),
        Special::Rest(merged, wanted) => (merged, wanted),
    };
    for item in &wanted {
        let Value::Object(fields) = item else { return Err(no_merge_key(item, by)) };
        if fields.get(by).is_none_or(Value::is_null) {
            return Err(no_merge_key(item, by));
        }
        match position(&merged, item, by) {
            Some(i) => {
                let Value::Object(existing) = merged[i].take() else { return Err(no_merge_key(item, by)) };
                merged[i] = Value::Object(merge(existing, fields.clone(), of)?);
            }
            None => merged.push(plain(item.clone())),
        }
    }
    Ok(reorder(merged, &wanted, &server, by))
}

fn no_merge_key(item: &Value, by: &str) -> Wrong {
    format!("map: {item} does not contain declared merge key: {by}")
}

enum Special {
    /// The new list, if a `$patch: replace` directive replaces it.
    Replaced(Vec<Value>),
    /// The old list without the deleted items, and the items of the patch without directives.
    Rest(Vec<Value>, Vec<Value>),
}

/// Carries out the directives among the items of a patch: `$patch: delete` and `$patch: replace`.
fn special_items(mut old: Vec<Value>, new: Vec<Value>, by: &str) -> Result<Special, Wrong> {
    let (mut rest, mut replace) = (Vec::with_capacity(new.len()), false);
    for item in new {
        let Some(directive) = item.get(DIRECTIVE) else {
            rest.push(item);
            continue;
        };
        match directive.as_str() {
            Some("delete") => {
                let gone = item.get(by).filter(|v| !v.is_null()).ok_or_else(|| no_merge_key(&item, by))?;
                old.retain(|o| o.get(by) != Some(gone));
            }
            Some("replace") => replace = true,
            Some("merge") => return Err("merging lists cannot yet be specified in the patch".to_owned()),
            _ => return Err(unknown_directive(directive, item.as_object().unwrap_or(&Fields::new()))),
        }
    }
    Ok(if replace { Special::Replaced(rest.into_iter().map(plain).collect()) } else { Special::Rest(old, rest) })
}

/// The index of the item with the same merge key, or with the same value if the items are primitives.
fn position(list: &[Value], item: &Value, by: &str) -> Option<usize> {
    if by.is_empty() {
        return list.iter().position(|other| other == item);
    }
    let key = item.get(by)?;
    list.iter().position(|other| other.get(by) == Some(key))
}

/// Orders a merged list: items of the patch in the order of the patch, the others in the order of the live list; then
/// interleaves both by their positions in the live list.
fn reorder(merged: Vec<Value>, patch_order: &[Value], server_order: &[Value], by: &str) -> Vec<Value> {
    let place = |order: &[Value], item: &Value| position(order, item, by).unwrap_or(usize::MAX);
    let (mut patched, mut others): (Vec<Value>, Vec<Value>) =
        merged.into_iter().partition(|item| position(patch_order, item, by).is_some());
    patched.sort_by_cached_key(|item| place(patch_order, item));
    others.sort_by_cached_key(|item| place(server_order, item));
    let mut woven = Vec::with_capacity(patched.len() + others.len());
    let (mut patched, mut others) = (patched.into_iter().peekable(), others.into_iter().peekable());
    loop {
        let first_is_other = match (others.peek(), patched.peek()) {
            (None, None) => return woven,
            (Some(_), None) => true,
            (None, Some(_)) => false,
            (Some(o), Some(p)) => match (position(server_order, o, by), position(server_order, p, by)) {
                (Some(o), Some(p)) => o < p,
                _ => false,
            },
        };
        woven.extend(if first_is_other { others.next() } else { patched.next() });
    }
}

fn without_deleted(items: Vec<Value>) -> Vec<Value> {
    items.into_iter().filter(|i| i.get(DIRECTIVE).and_then(Value::as_str) != Some("delete")).map(plain).collect()
}

/// A value that did not exist before, without directives and nulls, which would delete something.
fn plain(value: Value) -> Value {
    match value {
        Value::Object(fields) => Value::Object(
            fields
                .into_iter()
                .filter(|(k, v)| {
                    !v.is_null() && k != DIRECTIVE && k != RETAIN && !k.starts_with(ORDER) && !k.starts_with(DELETE)
                })
                .map(|(k, v)| (k, plain(v)))
                .collect(),
        ),
        Value::Array(items) => Value::Array(
            items
                .into_iter()
                .filter(|i| i.get(DIRECTIVE).and_then(Value::as_str) != Some("delete"))
                .map(plain)
                .collect(),
        ),
        other => other,
    }
}
