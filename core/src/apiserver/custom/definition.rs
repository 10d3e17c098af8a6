//! The lifecycle of a CustomResourceDefinition: its names are accepted, it is established, and it is deleted after its
//! objects.
//!
//! Upstream's API server does this in separate controllers, and so does this one: each write is decided from the cache,
//! carries the revision on which it was decided, and is retried until the cache shows it. If there are several servers,
//! all of them try and one succeeds.
//!
//! Source: upstream's `apiextensions-apiserver/pkg/controller/{status,establish,finalizer}`.

use std::collections::BTreeSet;
use std::rc::Rc;

use serde_json::{Map, Value, json};

use super::super::write::{Deciding, Decision, Origin, Write};
use super::super::{ApiServer, Cache, Out};
use super::words;
use crate::api::{Call, DeleteOptions, Request, Subresource, WriteOptions};
use crate::limits;
use crate::machine::{Now, Wall};
use crate::object::{Dynamic, Kind, Object, ObjectKey};

/// The finalizer that keeps a definition until its objects are deleted.
const CLEANUP: &str = "customresourcecleanup.apiextensions.k8s.io";
/// The names that a definition claims, and the condition reason of a conflict over each.
const NAMES: [(&str, &str); 5] = [
    ("plural", "PluralConflict"),
    ("singular", "SingularConflict"),
    ("shortNames", "ShortNamesConflict"),
    ("kind", "KindConflict"),
    ("listKind", "ListKindConflict"),
];

/// The next step for a definition.
enum Step {
    Nothing,
    Update(Box<Object>, Subresource),
    /// Delete its objects.
    Collect,
}

/// Whether a condition is `True`.
pub(super) fn is_true(definition: &Dynamic, type_: &str) -> bool {
    condition(definition, type_).is_some_and(|c| c.get("status").and_then(Value::as_str) == Some("True"))
}

fn condition<'a>(definition: &'a Dynamic, type_: &str) -> Option<&'a Value> {
    let list = definition.status.as_ref()?.get("conditions")?.as_array()?;
    list.iter().find(|c| c.get("type").and_then(Value::as_str) == Some(type_))
}

/// Sets a condition; its transition time changes only if its status does.
fn set_condition(status: &mut Map<String, Value>, now: Wall, type_: &str, is: bool, reason: &str, message: &str) {
    let list = status.entry("conditions").or_insert_with(|| json!([]));
    let Value::Array(list) = list else { unreachable!("conditions are a list, as the definition was read") };
    let is = if is { "True" } else { "False" };
    let known = list.iter_mut().find(|c| c.get("type").and_then(Value::as_str) == Some(type_));
    let since = known.as_ref().filter(|c| c["status"] == is).map(|c| c["lastTransitionTime"].clone());
    let since = since.unwrap_or_else(|| json!(now.to_time()));
    let next = json!({"type": type_, "status": is, "reason": reason, "message": message, "lastTransitionTime": since});
    match known {
        Some(known) => *known = next,
        None => list.push(next),
    }
}

fn status_of(definition: &Dynamic) -> Map<String, Value> {
    let mut status = match definition.status.as_deref() {
        Some(Value::Object(status)) => status.clone(),
        _ => Map::new(),
    };
    if !status.get("conditions").is_some_and(Value::is_array) {
        status.insert("conditions".to_owned(), json!([]));
    }
    status
}

impl Deciding<'_> {
    /// Deletes a definition: it gets a finalizer, which keeps it until its objects are deleted.
    pub(in crate::apiserver) fn delete_definition(
        &self,
        key: &ObjectKey,
        current: &Object,
        options: &DeleteOptions,
    ) -> Decision {
        let mut last = current.clone();
        if !current.is_deleting()
            && let Object::Dynamic(d) = &mut last
        {
            let finalizers = Rc::make_mut(&mut d.meta).edit().finalizers.get_or_insert_default();
            if !finalizers.iter().any(|f| f == CLEANUP) {
                finalizers.push(CLEANUP.to_owned());
            }
            let mut status = status_of(d);
            let message = "CustomResourceDefinition marked for deletion; CustomResource deletion will begin soon";
            set_condition(&mut status, self.now.wall, "Terminating", true, "InstanceDeletionPending", message);
            d.status = Some(Rc::new(Value::Object(status)));
        }
        self.delete_object(key, current, last, options)
    }
}

impl ApiServer {
    /// Performs the next step for each pending definition. Whatever is not complete is checked again by the next
    /// housekeeping.
    pub(in crate::apiserver) fn tend_definitions(&mut self, now: Now, out: &mut Vec<Out>) {
        if self.customs.pending.is_empty() || !self.link.is_up() {
            return;
        }
        for key in self.customs.pending.clone() {
            let step = match self.cache.get(&key) {
                Some(Object::Dynamic(definition)) => self.next_step(now, definition),
                Some(_) | None => Step::Nothing,
            };
            match step {
                Step::Nothing => drop(self.customs.pending.remove(&key)),
                Step::Update(object, subresource) => {
                    let (object, options) = (*object, WriteOptions::default());
                    self.write_by_itself(now, Call::Update { object, subresource, options }, out);
                }
                Step::Collect => self.collect_objects(now, &key, out),
            }
        }
    }

    fn next_step(&self, now: Now, definition: &Dynamic) -> Step {
        let deleting = definition.meta.is_deleting();
        let cleans = definition.meta.finalizers.iter().flatten().any(|f| f == CLEANUP);
        if deleting && !cleans {
            return Step::Nothing;
        }
        if deleting {
            let left = self.customs.by_definition.get(definition.meta.key(definition.kind)).copied();
            if left.is_some_and(|kind| self.cache.objects(kind).next().is_some()) {
                return Step::Collect;
            }
            let mut next = definition.clone();
            Rc::make_mut(&mut next.meta).edit().finalizers.iter_mut().for_each(|list| list.retain(|f| f != CLEANUP));
            return Step::Update(Box::new(Object::Dynamic(next)), Subresource::None);
        }
        let status = Value::Object(named(&self.cache, definition, now.wall));
        if definition.status.as_deref() == Some(&status) {
            return Step::Nothing;
        }
        let mut next = definition.clone();
        next.status = Some(Rc::new(status));
        Step::Update(Box::new(Object::Dynamic(next)), Subresource::Status)
    }

    /// Deletes a batch of objects of a definition that is being deleted.
    fn collect_objects(&mut self, now: Now, definition: &ObjectKey, out: &mut Vec<Out>) {
        let Some(kind) = self.customs.by_definition.get(definition).copied() else { return };
        let there = self.cache.objects(kind).filter(|(_, object)| !object.is_deleting());
        let keys: Vec<ObjectKey> = there.map(|(key, _)| key.clone()).take(limits::COLLECTED_AT_ONCE).collect();
        for key in keys {
            self.write_by_itself(now, Call::Delete { key, options: DeleteOptions::default() }, out);
        }
    }

    fn write_by_itself(&mut self, now: Now, call: Call, out: &mut Vec<Out>) {
        let user = Rc::from("system:apiserver");
        self.write(now, Write::new(Origin::Bootstrap, Request::new(&user, call)), out);
    }
}

/// The status of a definition, given the names that other definitions of its group have been granted
/// (`calculateNamesAndConditions`).
fn named(cache: &Cache, definition: &Dynamic, now: Wall) -> Map<String, Value> {
    let mut status = status_of(definition);
    let (taken_resources, taken_kinds) = names_of_others(cache, definition);
    let spec = definition.body.get("spec").cloned().unwrap_or_default();
    let wanted = &spec["names"];
    let mut accepted = match status.get("acceptedNames") {
        Some(Value::Object(names)) => names.clone(),
        _ => Map::new(),
    };
    let mut conflict = None;
    for (name, reason) in NAMES {
        let Some(value) = wanted.get(name) else {
            accepted.remove(name);
            continue;
        };
        let taken = if name.ends_with("ind") { &taken_kinds } else { &taken_resources };
        let mut claims = words(Some(value)).chain(value.as_str().map(str::to_owned));
        match claims.find(|claim| taken.contains(claim)) {
            Some(claim) if accepted.get(name) != Some(value) => {
                conflict = Some((reason, format!("{claim:?} is already in use")));
            }
            Some(_) | None => drop(accepted.insert(name.to_owned(), value.clone())),
        }
    }
    match wanted.get("categories") {
        Some(categories) => drop(accepted.insert("categories".to_owned(), categories.clone())),
        None => drop(accepted.remove("categories")),
    }
    for name in ["kind", "plural"] {
        accepted.entry(name).or_insert_with(|| json!(""));
    }
    status.insert("acceptedNames".to_owned(), Value::Object(accepted));
    match conflict {
        Some((reason, message)) => {
            set_condition(&mut status, now, "NamesAccepted", false, reason, &message);
            if !is_true(definition, "Established") {
                let message = "not all names are accepted";
                set_condition(&mut status, now, "Established", false, "NotAccepted", message);
            }
        }
        None => {
            set_condition(&mut status, now, "NamesAccepted", true, "NoConflicts", "no conflicts found");
            let message = "the initial names have been accepted";
            set_condition(&mut status, now, "Established", true, "InitialNamesAccepted", message);
        }
    }
    remember_stored(&mut status, &spec);
    status
}

/// Adds the current storage version to `status.storedVersions`.
fn remember_stored(status: &mut Map<String, Value>, spec: &Value) {
    let versions = spec["versions"].as_array().into_iter().flatten();
    let stored = versions.filter(|version| version["storage"] == json!(true)).map(|version| version["name"].clone());
    let list = status.entry("storedVersions").or_insert_with(|| json!([]));
    if let Value::Array(list) = list {
        for name in stored {
            if !list.contains(&name) {
                list.push(name);
            }
        }
    }
}

/// The resource names and the kind names that other definitions of the same group have been granted.
fn names_of_others(cache: &Cache, definition: &Dynamic) -> (BTreeSet<String>, BTreeSet<String>) {
    let group = |d: &Dynamic| d.body.get("spec").map(|spec| spec["group"].clone());
    let (mut resources, mut kinds) = (BTreeSet::new(), BTreeSet::new());
    for (_, object) in cache.objects(Kind::CUSTOM_RESOURCE_DEFINITION) {
        let Object::Dynamic(other) = object else { continue };
        if other.meta.uid == definition.meta.uid || group(other) != group(definition) {
            continue;
        }
        let Some(names) = other.status.as_ref().and_then(|status| status.get("acceptedNames")) else { continue };
        let text = |name: &str| names.get(name).and_then(Value::as_str).filter(|t| !t.is_empty()).map(str::to_owned);
        resources.extend(text("plural").into_iter().chain(text("singular")).chain(words(names.get("shortNames"))));
        kinds.extend(text("kind").into_iter().chain(text("listKind")));
    }
    (resources, kinds)
}
