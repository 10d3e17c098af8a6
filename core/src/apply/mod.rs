//! Server-side apply, and who manages which field: Kubernetes' field management over structured-merge-diff, driven by
//! the [schema table](crate::schema).
//!
//! What comes in: an object as it stands, what a client applies or has written, and who writes when. What goes out: the
//! object as it is to stand, with its `managedFields`, or a `Status`. Values are JSON as clients see it.
//! Source: apimachinery `pkg/util/managedfields`, structured-merge-diff `merge`.

mod fields;
mod managed;
mod typed;

#[cfg(test)]
mod tests;

use serde_json::{Map, Value};

use crate::api::{Cause, Details, Reason, Status};
use crate::schema::Type;
use fields::{FieldSet, show};
use managed::{Manager, Managers, Operation, Owned};

/// The annotation in which client-side apply keeps what it applied last.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// Who writes, through what, and when.
#[derive(Clone, Copy, Debug)]
pub struct Writer<'a> {
    /// `fieldManager`, or what stands for it.
    pub manager: &'a str,
    /// Version in which the object is written: `apps/v1`.
    pub api_version: &'a str,
    /// `status`, …; empty for the object itself.
    pub subresource: &'a str,
    /// The time, RFC 3339 in seconds.
    pub time: &'a str,
    /// Fields at the top that this way of writing leaves as they are: `status`, or `spec`.
    pub reset: &'a [&'a str],
}

/// Applies a configuration to an object (`None`: to nothing, which creates it). The object that comes out has its
/// `managedFields`; it is the very same if there was nothing to do. 409 where another manager's field would change.
pub fn apply(
    live: Option<&Value>,
    config: &Value,
    of: Type<'_>,
    writer: Writer<'_>,
    force: bool,
) -> Result<Value, Status> {
    let empty = Value::Object(Map::new());
    let live = live.unwrap_or(&empty);
    let version = config.get("apiVersion").and_then(Value::as_str).unwrap_or("");
    if version != writer.api_version {
        return Err(Status::bad_request(format!(
            "Incorrect version specified in apply patch. Specified patch version: {version}, expected: {}",
            writer.api_version
        )));
    }
    if config["metadata"].get("managedFields").is_some_and(|m| !m.is_null()) {
        return Err(Status::bad_request("metadata.managedFields must be nil"));
    }
    let managers =
        managed::decode(entries(live)).map_err(|why| failed(format!("failed to decode managed fields: {why}")))?;
    let live = without_managed_fields(live);
    typed::check(config, of, false)
        .map_err(|why| failed(format!("failed to create typed patch object ({}): {why}", named(config))))?;
    typed::check(&live, of, true)
        .map_err(|why| failed(format!("failed to create typed live object ({}): {why}", named(&live))))?;

    let apply = Apply { live: &live, config, of, writer };
    let managers = apply.before_first(managers);
    let (object, managers) = match apply.carry_out(managers.clone(), force) {
        Err(conflicts) if writer.manager == "kubectl" => match apply.beyond_client_side(conflicts) {
            rest if rest.is_empty() => apply.carry_out(managers, true).map_err(conflict)?,
            rest => return Err(conflict(rest)),
        },
        other => other.map_err(conflict)?,
    };
    Ok(with_managed_fields(apply.with_last_applied(object), &managers))
}

/// Merges a configuration into an object without regard to who manages what, as a MutatingAdmissionPolicy does. What is
/// one value by its type cannot be merged, and is refused.
///
/// Source: apiserver `pkg/admission/plugin/policy/mutating/patch`.
pub fn merge(live: &Value, config: &Value, of: Type<'_>) -> Result<Value, String> {
    typed::check(config, of, false).map_err(|why| format!("failed to convert patch object to typed object: {why}"))?;
    let whole = typed::atomic_parts(config, of);
    if !whole.is_empty() {
        let what = "invalid ApplyConfiguration: may not mutate atomic arrays, maps or structs";
        return Err(format!("{what}: {}", whole.join(", ")));
    }
    Ok(typed::merge(Some(live), Some(config), of).unwrap_or_else(|| live.clone()))
}

/// The `managedFields` of an object that a create (`live` is `None`), update or patch is to store as `new`. `new` has
/// those that the client sent. `None`: nobody's fields are tracked, since none were before.
pub fn track(live: Option<&Value>, new: &Value, of: Type<'_>, writer: Writer<'_>) -> Option<Vec<Value>> {
    let empty = Value::Object(Map::new());
    let before = live.unwrap_or(&empty);
    let mut managers = managers_of(before, new, !writer.subresource.is_empty());
    if managers.is_empty() && live.is_some() {
        return None;
    }
    let (before, new) = (without_managed_fields(before), without_managed_fields(new));
    let me = Manager::new(writer.manager, Operation::Update, writer.api_version, writer.subresource);
    update(&mut managers, &before, &new, of, writer, me);
    managed::cap(&mut managers);
    Some(managed::encode(&managers))
}

/// Those that the client sent, if it sent any that can be read; it may say that there are to be none.
fn managers_of(live: &Value, new: &Value, of_subresource: bool) -> Managers {
    let stored = || managed::decode(entries(live)).unwrap_or_default();
    if of_subresource {
        return stored();
    }
    let is_blank = |entry: &Value| entry.as_object().is_some_and(Map::is_empty);
    match new["metadata"].get("managedFields").and_then(Value::as_array).map(Vec::as_slice) {
        Some([]) => Managers::new(),
        Some([one]) if is_blank(one) => Managers::new(),
        Some(sent) => managed::decode(sent).unwrap_or_else(|_| stored()),
        None => stored(),
    }
}

fn entries(object: &Value) -> &[Value] {
    object["metadata"]["managedFields"].as_array().map_or(&[], Vec::as_slice)
}

fn without_managed_fields(object: &Value) -> Value {
    let mut object = object.clone();
    if let Some(meta) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        meta.remove("managedFields");
    }
    object
}

fn with_managed_fields(mut object: Value, managers: &Managers) -> Value {
    let entries = managed::encode(managers);
    if !entries.is_empty() {
        object["metadata"]["managedFields"] = Value::Array(entries);
    }
    object
}

/// `<namespace>/<name>; apps/v1, Kind=Deployment`.
fn named(object: &Value) -> String {
    let meta = |key: &str| object["metadata"][key].as_str().unwrap_or("").to_owned();
    let text = |key: &str| object[key].as_str().unwrap_or("");
    let group_version = text("apiVersion");
    let group_version =
        if group_version.contains('/') { group_version.to_owned() } else { format!("/{group_version}") };
    format!("{}/{}; {group_version}, Kind={}", meta("namespace"), meta("name"), text("kind"))
}

fn failed(message: String) -> Status {
    Status { reason: Reason::InternalError, message: message.into(), details: None }
}

/// Fields that never belong to anybody.
fn is_everybodys() -> FieldSet {
    let meta = ["name", "namespace", "creationTimestamp", "selfLink", "uid", "generation", "resourceVersion"];
    let set = FieldSet::default().with(&["apiVersion"]).with(&["kind"]).with(&["metadata"]);
    meta.iter().fold(set, |set, name| set.with(&["metadata", name])).with(&["metadata", "managedFields"])
}

/// Fields of other managers that a write changes.
type Conflicts = Vec<(Manager, FieldSet)>;

/// Takes away from every manager but `me` what a change takes from it. Conflicts are refused unless forced.
fn take_over(
    managers: &mut Managers,
    changes: &typed::Comparison,
    me: Option<&Manager>,
    force: bool,
) -> Result<(), Conflicts> {
    let changed = changes.modified.union(&changes.added);
    let others = || managers.iter().filter(|(manager, _)| Some(*manager) != me);
    let conflicts: Conflicts = others()
        .map(|(manager, owned)| (manager.clone(), owned.set.intersection(&changed)))
        .filter(|(_, set)| !set.is_empty())
        .collect();
    if !force && !conflicts.is_empty() {
        return Err(conflicts);
    }
    for (_, owned) in managers.iter_mut().filter(|(manager, _)| Some(*manager) != me) {
        owned.set = owned.set.difference(&changed).difference(&changes.removed);
    }
    managers.retain(|_, owned| !owned.set.is_empty());
    Ok(())
}

/// A plain write by `me`: what it changed is its own.
fn update(managers: &mut Managers, live: &Value, new: &Value, of: Type<'_>, writer: Writer<'_>, me: Manager) {
    let changes = typed::compare(live, new, of).without(writer.reset);
    take_over(managers, &changes, None, true).expect("what is forced has no conflicts");
    let set = changes.modified.union(&changes.added).difference(&is_everybodys());
    if set.is_empty() {
        return;
    }
    let had = managers.get(&me).map(|owned| owned.set.clone()).unwrap_or_default();
    let owned =
        Owned { set: set.union(&had), api_version: writer.api_version.to_owned(), time: Some(writer.time.to_owned()) };
    managers.insert(me, owned);
}

/// An apply on its way.
struct Apply<'a> {
    live: &'a Value,
    config: &'a Value,
    of: Type<'a>,
    writer: Writer<'a>,
}

impl Apply<'_> {
    /// Where nobody's fields were tracked, all that there is belongs to whoever came before.
    fn before_first(&self, mut managers: Managers) -> Managers {
        if managers.is_empty() && self.live.as_object().is_some_and(|live| !live.is_empty()) {
            let me =
                Manager::new("before-first-apply", Operation::Update, self.writer.api_version, self.writer.subresource);
            update(&mut managers, &Value::Object(Map::new()), self.live, self.of, self.writer, me);
        }
        managers
    }

    fn carry_out(&self, mut managers: Managers, force: bool) -> Result<(Value, Managers), Conflicts> {
        let Writer { manager, api_version, subresource, time, reset } = self.writer;
        let me = Manager::new(manager, Operation::Apply, api_version, subresource);
        let merged = typed::merge(Some(self.live), Some(self.config), self.of).unwrap_or(Value::Null);
        let last = managers.get(&me).cloned();
        let set = typed::field_set(self.config, self.of).without(reset);
        let last_time = last.as_ref().and_then(|owned| owned.time.clone());
        let owned = Owned { set, api_version: api_version.to_owned(), time: last_time };
        managers.insert(me.clone(), owned);
        let object = match &last {
            Some(last) if !last.set.is_empty() => self.prune(merged, &managers, &last.set),
            _ => merged,
        };
        let changes = typed::compare(self.live, &object, self.of).without(reset);
        take_over(&mut managers, &changes, Some(&me), force)?;
        if let Some(owned) = managers.get_mut(&me) {
            owned.set = owned.set.difference(&is_everybodys());
            if object != *self.live {
                owned.time = Some(time.to_owned());
            }
        }
        managers.retain(|_, owned| !owned.set.is_empty());
        Ok((object, managers))
    }

    /// Without what was applied last time, is not applied now, and is nobody else's.
    fn prune(&self, merged: Value, managers: &Managers, last: &FieldSet) -> Value {
        let of = self.of;
        let without = |set: &FieldSet| typed::remove(&merged, set, of).unwrap_or(Value::Null);
        let named = |value: &Value| typed::field_set(value, of).with_named_fields(of);
        let last = last.with_named_fields(of);
        let pruned = without(&last);
        let everybodys = managers.values().fold(FieldSet::default(), |all, owned| all.union(&owned.set));
        // What somebody owns comes back, and so do its parents.
        let all = named(&merged);
        let kept = named(&pruned).union(&everybodys.with_named_fields(of));
        let pruned = without(&all.difference(&kept));
        // So does what the last apply did not own.
        without(&all.difference(&named(&pruned)).intersection(&last))
    }

    /// Conflicts beyond those with what client-side apply had applied, which kubectl's apply takes over.
    fn beyond_client_side(&self, conflicts: Conflicts) -> Conflicts {
        let text = self.live["metadata"]["annotations"][LAST_APPLIED].as_str().unwrap_or("");
        let Ok(applied) = serde_json::from_str::<Value>(text) else { return conflicts };
        if applied["apiVersion"] != self.writer.api_version || typed::check(&applied, self.of, false).is_err() {
            return conflicts;
        }
        let changes = typed::compare(&applied, self.live, self.of);
        let changed = changes.modified.union(&changes.added).union(&changes.removed);
        let allowed = typed::field_set(&applied, self.of).difference(&changed);
        let rest = conflicts.into_iter().map(|(manager, set)| (manager, set.difference(&allowed)));
        rest.filter(|(_, set)| !set.is_empty()).collect()
    }

    /// Keeps the annotation of client-side apply true, where there is one and kubectl applies.
    fn with_last_applied(&self, mut object: Value) -> Value {
        let annotation = &object["metadata"]["annotations"][LAST_APPLIED];
        if self.writer.manager != "kubectl" || annotation.as_str().is_none_or(str::is_empty) {
            return object;
        }
        let mut applied = self.config.clone();
        if let Some(annotations) = applied["metadata"].get_mut("annotations").and_then(Value::as_object_mut) {
            annotations.remove(LAST_APPLIED);
        }
        object["metadata"]["annotations"][LAST_APPLIED] = Value::String(format!("{applied}\n"));
        object
    }
}

/// 409, in the words of `NewConflictError`.
fn conflict(conflicts: Conflicts) -> Status {
    let shown: Vec<(String, Vec<String>)> = conflicts
        .iter()
        .map(|(manager, set)| (manager.show(), set.paths().iter().map(|path| show(path)).collect()))
        .collect();
    let all = || shown.iter().flat_map(|(manager, paths)| paths.iter().map(move |path| (manager, path)));
    let message = match all().count() {
        1 => {
            let (manager, path) = all().next().expect("there is one");
            format!("Apply failed with 1 conflict: conflict with {manager}: {path}")
        }
        count => {
            let of = |(manager, paths): &(String, Vec<String>)| {
                let paths: Vec<String> = paths.iter().map(|path| format!("- {path}")).collect();
                format!("conflicts with {manager}:\n{}", paths.join("\n"))
            };
            let all: Vec<String> = shown.iter().map(of).collect();
            format!("Apply failed with {count} conflicts: {}", all.join("\n"))
        }
    };
    let causes = all().map(|(manager, path)| Cause {
        reason: "FieldManagerConflict".to_owned(),
        message: format!("conflict with {manager}"),
        field: path.clone(),
    });
    let details = Details { causes: causes.collect(), ..Details::default() };
    Status { reason: Reason::Conflict, message: message.into(), details: Some(Box::new(details)) }
}
