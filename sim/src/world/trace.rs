//! The trace of a run: a description of every event, and every commit with what it changed.
//!
//! Commits and requests are described completely, except the objects in requests. Replies may be abbreviated, because
//! they follow from what was committed.

use std::fmt::Write;

use serde_json::Value;
use skeg_core::store::{StoreEvent, Stored};

use super::{Event, TAGS, World};
use crate::report::shortened;

/// Maximum length of the description of a message that contains what others have written.
const MOST: usize = 300;

impl World {
    /// Describes an event for the trace.
    #[cold]
    pub(super) fn describe(&mut self, slot: u32) {
        let event = self.event_queue.peek(slot);
        let text = format!("{event:?}");
        let text = match event {
            Event::ToClient { .. } | Event::FromStore { .. } => shortened(&text, MOST),
            Event::ToApi { .. }
            | Event::ToStore { .. }
            | Event::Closed { .. }
            | Event::Runtime { .. }
            | Event::Extender { .. }
            | Event::Mend(_)
            | Event::Restart { .. }
            | Event::StoreWake => text,
            Event::Step(i) => self.timeline[*i].describe(),
        };
        self.trace.current = format!("{} {}: {text}", TAGS[event.tag() as usize], event.who());
    }

    /// Appends what the store has just committed to the description of the event.
    #[cold]
    pub(super) fn describe_commits(&mut self) {
        for change in self.store.just_changed().flat_map(|batch| &**batch) {
            self.trace.current.push_str(&commit(change));
        }
    }
}

/// Describes a commit: ` | r7 put pods/default/web: spec.nodeName="node-1"`.
fn commit(change: &StoreEvent) -> String {
    let (key, revision) = (change.key(), change.revision);
    let before = change.previous.as_deref().and_then(|kv| kv.value.object());
    let key = format!("{key:?}");
    match change.value.as_deref().map(|kv| &kv.value) {
        None => format!(" | {revision:?} delete {key}"),
        Some(Stored::Mark(_, text)) => format!(" | {revision:?} put {key}: {text:?}"),
        Some(Stored::Object(object)) => match before {
            None => format!(" | {revision:?} create {key}: {}", object.to_json()),
            Some(before) => {
                let mut text = String::new();
                difference(&mut String::new(), &before.to_json(), &object.to_json(), &mut text);
                format!(" | {revision:?} put {key}:{text}")
            }
        },
    }
}

/// Describes a commit of an object in short: of what is created or deleted the name, of what is changed the changes.
/// `None` for what is no object.
pub(super) fn in_short(change: &StoreEvent) -> Option<String> {
    let revision = change.revision;
    let before = change.previous.as_deref().and_then(|kv| kv.value.object());
    let after = change.value.as_deref().and_then(|kv| kv.value.object());
    let (Some(before), Some(after)) = (before, after) else {
        let what = if after.is_some() { "create" } else { "delete" };
        return Some(format!("{revision:?} {what} {}", after.or(before)?.key()));
    };
    let [before, after] = [before, after].map(|object| {
        let mut value = object.to_json();
        value["metadata"]["resourceVersion"] = Value::Null;
        value
    });
    let mut text = format!("{revision:?} put {}:", change.value.as_deref()?.value.object()?.key());
    difference(&mut String::new(), &before, &after, &mut text);
    Some(text)
}

/// Appends ` path=value` for each place where two values differ, and ` -path` for a removed value.
fn difference(path: &mut String, old: &Value, new: &Value, text: &mut String) {
    let within = |path: &mut String, name: &str, go: &mut dyn FnMut(&mut String)| {
        let length = path.len();
        if !path.is_empty() {
            path.push('.');
        }
        path.push_str(name);
        go(path);
        path.truncate(length);
    };
    match (old, new) {
        (old, new) if old == new => {}
        (Value::Object(old), Value::Object(new)) => {
            for name in old.keys().filter(|name| !new.contains_key(*name)) {
                within(path, name, &mut |path| write!(text, " -{path}").expect("a string takes what is written"));
            }
            for (name, new) in new {
                let old = old.get(name).unwrap_or(&Value::Null);
                within(path, name, &mut |path| difference(path, old, new, text));
            }
        }
        (Value::Array(old), Value::Array(new)) if old.len() == new.len() => {
            for (i, (old, new)) in old.iter().zip(new).enumerate() {
                within(path, &i.to_string(), &mut |path| difference(path, old, new, text));
            }
        }
        (_, new) => write!(text, " {path}={new}").expect("a string takes what is written"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::{MOST, difference};

    #[test]
    fn what_changed_is_told_whole() {
        let check = |old: Value, new: Value, expect: &str| {
            let mut text = String::new();
            difference(&mut String::new(), &old, &new, &mut text);
            assert_eq!(text, expect);
        };
        check(json!({"a": 1}), json!({"a": 1}), "");
        check(json!({"a": {"b": 1, "c": 2}}), json!({"a": {"b": 3, "d": {"e": null}}}), " -a.c a.b=3 a.d={\"e\":null}");
        check(json!({"l": [{"x": 1}, {"x": 2}]}), json!({"l": [{"x": 1}, {"x": 5}]}), " l.1.x=5");
        check(json!({"l": [1]}), json!({"l": [1, 2]}), " l=[1,2]");
        let long = "x".repeat(10 * MOST);
        check(json!({}), json!({"a": long}), &format!(" a=\"{long}\""));
    }
}
