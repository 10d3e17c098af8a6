//! The three-way patch of `kubectl apply`. It changes the live object to what the file says, and deletes what was in
//! the last applied file and no longer is in this one. Fields that neither file has are left alone.
//!
//! Source: `CreateThreeWayMergePatch` of `k8s.io/apimachinery/pkg/util/strategicpatch`. As there, the patch consists of
//! the *additions and changes* from the live object to the file, merged over the *deletions* from the last file to this
//! one.

use serde_json::{Map, Value, json};

use super::strategic::{DELETE, DIRECTIVE, ORDER, RETAIN, Treatment, treatment};
use crate::schema::Type;

type Fields = Map<String, Value>;

/// Which differences go into the patch.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Want {
    Changes,
    Deletions,
}

/// How two values are compared.
#[derive(Clone, Copy)]
struct How {
    want: Want,
    /// Whether the patch of a map lists the keys to keep (`$retainKeys`). All other keys are removed, whoever set them.
    retain: bool,
}

/// The strategic merge patch for an object of type `of`; empty if nothing has to change.
pub(super) fn patch(original: &Fields, modified: &Fields, current: &Fields, of: Type<'_>) -> Result<Fields, String> {
    let changes = diff(current, modified, of, How { want: Want::Changes, retain: false })?;
    let deletions = diff(original, modified, of, How { want: Want::Deletions, retain: false })?;
    Ok(lay_over(deletions, changes, of))
}

/// The patch from one map to another (`diffMaps`).
fn diff(old: &Fields, new: &Fields, of: Type<'_>, how: How) -> Result<Fields, String> {
    let (want, mut patch) = (how.want, Fields::new());
    for (key, new) in new {
        let old = match old.get(key) {
            Some(old) if same_type(old, new) => old,
            Some(_) | None => {
                if want == Want::Changes {
                    patch.insert(key.clone(), new.clone());
                }
                continue;
            }
        };
        let (treatment, inner) = treatment(of, key);
        let how = How { want, retain: retains_keys(of, key) };
        match (old, new, treatment) {
            (Value::Object(old), Value::Object(new), Treatment::Plain | Treatment::Merge(_)) => {
                let inner = diff(old, new, inner, how)?;
                if !inner.is_empty() {
                    patch.insert(key.clone(), Value::Object(inner));
                }
            }
            (Value::Array(old), Value::Array(new), Treatment::Merge(by)) => {
                patch.extend(diff_list(key, old, new, by, inner, how)?);
            }
            // Upstream also puts an unchanged map with the `replace` strategy into the patch. That has no effect, so it
            // is left out here.
            _ if want == Want::Changes && old != new => _ = patch.insert(key.clone(), new.clone()),
            _ => {}
        }
    }
    if want == Want::Deletions {
        patch.extend(old.keys().filter(|k| !new.contains_key(*k)).map(|k| (k.clone(), Value::Null)));
    }
    let cleared = || old.keys().any(|k| !new.contains_key(k));
    if how.retain && !new.is_empty() && (!patch.is_empty() || cleared()) {
        let mut keys: Vec<&String> = new.iter().filter(|(_, v)| !v.is_null()).map(|(k, _)| k).collect();
        keys.sort_unstable();
        patch.insert(RETAIN.to_owned(), json!(keys));
    }
    Ok(patch)
}

/// Whether the patch of a field or of its items has `$retainKeys`.
fn retains_keys(of: Type<'_>, name: &str) -> bool {
    of.message().and_then(|m| m.field(name)).is_some_and(|f| f.merge.retain_keys)
}

fn same_type(a: &Value, b: &Value) -> bool {
    std::mem::discriminant(a) == std::mem::discriminant(b)
}

/// The patch from one list to another, for lists that are merged by a key or as sets (`diffLists`).
fn diff_list(field: &str, old: &[Value], new: &[Value], by: &str, of: Type<'_>, how: How) -> Result<Fields, String> {
    let mut patch = Fields::new();
    if old.is_empty() {
        if !new.is_empty() && how.want == Want::Changes {
            patch.insert(field.to_owned(), Value::from(new.to_vec()));
        }
        return Ok(patch);
    }
    let items = if by.is_empty() {
        let added = new.iter().filter(|v| !old.contains(v)).cloned();
        let removed: Vec<Value> = old.iter().filter(|v| !new.contains(v)).cloned().collect();
        match how.want {
            Want::Changes => added.collect(),
            Want::Deletions => {
                if !removed.is_empty() {
                    patch.insert(format!("{DELETE}{field}"), Value::from(removed));
                }
                Vec::new()
            }
        }
    } else {
        diff_maps_of_list(old, new, by, of, how)?
    };
    let reordered = old.len() != new.len() || old.iter().zip(new).any(|(a, b)| key_of(a, by) != key_of(b, by));
    if !items.is_empty() || reordered || patch.contains_key(&format!("{DELETE}{field}")) {
        let only_key = |v: &Value| if by.is_empty() { v.clone() } else { json!({by: v[by]}) };
        patch.insert(format!("{ORDER}{field}"), new.iter().map(only_key).collect());
    }
    if !items.is_empty() {
        patch.insert(field.to_owned(), Value::from(items));
    }
    Ok(patch)
}

fn key_of<'v>(item: &'v Value, by: &str) -> &'v Value {
    if by.is_empty() { item } else { &item[by] }
}

/// Walks both lists in order of their keys, as upstream does. Items with the same key are paired in that order.
fn diff_maps_of_list(old: &[Value], new: &[Value], by: &str, of: Type<'_>, how: How) -> Result<Vec<Value>, String> {
    let (old, sorted) = (by_key(old, by)?, by_key(new, by)?);
    let (mut changed, mut deleted): (Vec<Value>, Vec<Value>) = (Vec::new(), Vec::new());
    let (mut i, mut j) = (0, 0);
    loop {
        match (old.get(i), sorted.get(j)) {
            (None, None) => break,
            (Some((a, before)), Some((b, after))) if a == b => {
                let mut patch = diff(before, after, of, how)?;
                if !patch.is_empty() {
                    patch.insert(by.to_owned(), after[by].clone());
                    changed.push(Value::Object(patch));
                }
                (i, j) = (i + 1, j + 1);
            }
            (Some((a, before)), after) if after.is_none_or(|(b, _)| a < b) => {
                if how.want == Want::Deletions {
                    deleted.push(json!({DIRECTIVE: "delete", by: before[by]}));
                }
                i += 1;
            }
            (_, Some((_, after))) => {
                if how.want == Want::Changes {
                    changed.push(Value::Object((*after).clone()));
                }
                j += 1;
            }
            (Some(_), None) => unreachable!("an item without a counterpart is deleted above"),
        }
    }
    sort_as(&mut changed, new, by);
    changed.extend(deleted);
    Ok(changed)
}

/// The items with their keys as text, sorted by key.
fn by_key<'v>(items: &'v [Value], by: &str) -> Result<Vec<(String, &'v Fields)>, String> {
    let keyed = items.iter().map(|item| match (item, item.get(by)) {
        (Value::Object(fields), Some(Value::String(key))) => Ok((key.clone(), fields)),
        (Value::Object(fields), Some(key)) if !key.is_null() => Ok((key.to_string(), fields)),
        _ => Err(format!("map: {item} does not contain declared merge key: {by}")),
    });
    let mut keyed = keyed.collect::<Result<Vec<_>, _>>()?;
    keyed.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(keyed)
}

/// Sorts items into the order of another list.
fn sort_as(items: &mut [Value], order: &[Value], by: &str) {
    let place = |item: &Value| order.iter().position(|o| key_of(o, by) == key_of(item, by)).unwrap_or(order.len());
    items.sort_by_key(place);
}

/// Merges one patch over another (`mergeMap`, for two patches and without carrying out directives).
fn lay_over(mut fields: Fields, over: Fields, of: Type<'_>) -> Fields {
    for (key, value) in over {
        let (treatment, inner) = treatment(of, &key);
        let next = match (fields.remove(&key), value) {
            (Some(Value::Object(under)), Value::Object(over)) if treatment != Treatment::Replace => {
                Value::Object(lay_over(under, over, inner))
            }
            (Some(Value::Array(under)), Value::Array(over)) => match treatment {
                Treatment::Merge(by) if !by.is_empty() => {
                    // Directives sort before field names, so the `$setElementOrder` of this list is already in
                    // `fields`.
                    let order = fields.get(&format!("{ORDER}{key}")).and_then(Value::as_array);
                    Value::from(lay_list_over(under, over, by, inner, order.map_or(&[], Vec::as_slice)))
                }
                // `$setElementOrder` and `$retainKeys` come from the same file in both patches, so they are equal.
                Treatment::Merge(_) | Treatment::Plain | Treatment::Replace => Value::from(over),
            },
            (_, over) => over,
        };
        fields.insert(key, next);
    }
    fields
}

fn lay_list_over(under: Vec<Value>, over: Vec<Value>, by: &str, of: Type<'_>, order: &[Value]) -> Vec<Value> {
    let (deleted, mut merged): (Vec<Value>, Vec<Value>) = under.into_iter().partition(|i| i.get(DIRECTIVE).is_some());
    for item in over {
        let known = merged.iter_mut().find(|m| m[by] == item[by]);
        match (known, item) {
            (Some(Value::Object(known)), Value::Object(item)) => *known = lay_over(std::mem::take(known), item, of),
            (_, item) => merged.push(item),
        }
    }
    sort_as(&mut merged, order, by);
    merged.extend(deleted);
    merged
}
