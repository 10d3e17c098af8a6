//! Decides the next step of a rolling update from what has just been read.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use serde_json::json;

use super::{
    CleanupPolicy, DESIRED_REPLICAS, Memory, NEXT_CONTROLLER, ORIGINAL_REPLICAS, Observed, RENAME_FROM,
    RollingUpdateConfig, SOURCE_ID, delete, set_key, set_template_key, template_hash, update,
};
use crate::api::{Call, Patch, Precondition, Propagation, Subresource, WriteOptions};
use crate::machine::{Now, Wall};
use crate::object::{
    Object, ObjectMeta, Pod, ReplicationController, Revision, Selector, controller_of, is_pod_active, is_pod_ready,
    scaled,
};

/// Label that keeps a controller from selecting its pods while it takes over a name.
const RENAMING: &str = "kubectl.kubernetes.io/renaming";

/// What to do next.
#[derive(Debug)]
pub(super) enum Step {
    /// Write, then read again.
    Write { call: Call, message: Option<String> },
    /// Read again later.
    Wait(Duration),
    /// The update is complete.
    Done,
    /// Give up with this message.
    Failed(String),
}

fn write(call: Call) -> Step {
    Step::Write { call, message: None }
}

fn tell(call: Call, message: String) -> Step {
    Step::Write { call, message: Some(message) }
}

fn note<'a>(rc: &'a ReplicationController, annotation: &str) -> Option<&'a str> {
    rc.meta.annotations.as_ref()?.get(annotation).map(String::as_str)
}

fn number(rc: &ReplicationController, annotation: &str) -> Option<i32> {
    note(rc, annotation)?.parse().ok()
}

fn annotate(rc: &mut ReplicationController, annotation: &str, value: String) {
    rc.meta_mut().annotations.get_or_insert_default().insert(annotation.to_owned(), value);
}

fn size(rc: &ReplicationController) -> i32 {
    rc.spec.replicas.unwrap_or(1)
}

/// Whether a controller has observed its spec and has as many pods as requested.
fn is_settled(rc: &ReplicationController) -> bool {
    rc.status.observed_generation.unwrap_or(0) >= rc.meta.generation.unwrap_or(0) && rc.status.replicas == size(rc)
}

fn source_id(rc: &ReplicationController) -> String {
    format!("{}:{}", rc.name(), rc.uid())
}

/// Decides the next step.
pub(super) fn decide(config: &RollingUpdateConfig, observed: &Observed, memory: &mut Memory, now: Now) -> Step {
    if let Some(renamed) = observed.old.as_ref().filter(|rc| note(rc, RENAME_FROM).is_some()) {
        return rename(renamed, observed.new.as_ref());
    }
    match (&observed.old, &observed.new) {
        (None, None) => Step::Failed(format!("replicationcontrollers {:?} not found", config.old)),
        (None, Some(new)) => finish(config, new),
        (Some(old), None) if !config.rollback && is_result(config, old) => Step::Done,
        (Some(old), new) if config.rollback => roll_back(config, old, new.as_ref(), observed, memory, now),
        (Some(old), Some(new)) if is_preserved(config, old, new) => match note(old, NEXT_CONTROLLER) {
            Some(_) => write(update(without_notes(old))),
            None => Step::Done,
        },
        (Some(old), new) => roll_forward(config, old, new.as_ref(), observed, memory, now),
    }
}

/// Whether an update whose old controller must be kept has finished with the new controller.
fn is_preserved(config: &RollingUpdateConfig, old: &ReplicationController, new: &ReplicationController) -> bool {
    config.cleanup == CleanupPolicy::Preserve && size(old) == 0 && note(new, SOURCE_ID).is_none()
}

/// Whether the controller with the old name is already the new one, after it took over the name.
fn is_result(config: &RollingUpdateConfig, old: &ReplicationController) -> bool {
    let wanted = config.new.spec.selector.clone().unwrap_or_default();
    let mut with_key = wanted.clone();
    with_key.entry(config.key.to_string()).or_insert_with(|| template_hash(&config.new, &config.key));
    old.spec.selector.as_ref().is_some_and(|s| *s == wanted || *s == with_key)
}

fn roll_forward(
    config: &RollingUpdateConfig,
    old: &ReplicationController,
    new: Option<&ReplicationController>,
    observed: &Observed,
    memory: &mut Memory,
    now: Now,
) -> Step {
    if let Some(step) = prepare_old(config, old, observed) {
        return step;
    }
    let Some(new) = new else { return create(config, old) };
    if note(new, SOURCE_ID) != Some(&source_id(old)) || number(new, DESIRED_REPLICAS).is_none() {
        return Step::Failed(format!(
            "Missing/unexpected annotations for controller {}, expected {SOURCE_ID} : {}",
            new.name(),
            source_id(old)
        ));
    }
    scale(config, old, (new, &observed.new_pods), config.cleanup, memory, now)
}

/// Makes the old controller's pods distinguishable from the new one's, and records the initial number of replicas.
fn prepare_old(config: &RollingUpdateConfig, old: &ReplicationController, observed: &Observed) -> Option<Step> {
    let key = &*config.key;
    let template_value = old.spec.template_meta().and_then(|m| m.labels.as_ref()).and_then(|l| l.get(key)).cloned();
    let selector_value = old.spec.selector.as_ref().and_then(|s| s.get(key)).cloned();
    let noted = note(old, NEXT_CONTROLLER) == Some(config.new.name()) && number(old, ORIGINAL_REPLICAS).is_some();
    if !noted || (template_value.is_none() && needs_key(config, old)) {
        let mut copy = old.clone();
        annotate(&mut copy, NEXT_CONTROLLER, config.new.name().to_owned());
        if number(old, ORIGINAL_REPLICAS).is_none() {
            annotate(&mut copy, ORIGINAL_REPLICAS, size(old).to_string());
        }
        // New pods get the label first, then existing pods, and then it is added to the selector.
        if template_value.is_none() && needs_key(config, old) {
            let hash = template_hash(old, key);
            set_template_key(&mut copy.spec_mut().fields, key, &hash);
        }
        return Some(write(update(copy)));
    }
    let value = template_value?;
    let unlabelled = |p: &&Pod| p.meta.labels.as_ref().is_none_or(|l| !l.contains_key(key));
    let own = |p: &&Pod| controller_of(&p.meta).is_none_or(|o| o.uid == old.uid());
    let mut strays = observed.old_pods.iter().filter(own).filter(unlabelled).filter(|p| is_pod_active(p));
    if selector_value.is_none() && needs_key(config, old) {
        return Some(match strays.next() {
            Some(pod) => write(label(pod, key, &value)),
            None => {
                let mut copy = old.clone();
                set_key(&mut copy.spec_mut().fields, key, &value);
                write(update(copy))
            }
        });
    }
    // A pod that was created from the previous template after the other pods were labelled.
    selector_value.and(strays.next()).map(|pod| write(delete(&Object::Pod(pod.clone()), None)))
}

/// Whether the selectors of the two controllers would select each other's pods.
fn needs_key(config: &RollingUpdateConfig, old: &ReplicationController) -> bool {
    let selects = |selector: Option<&BTreeMap<String, String>>, other: &ReplicationController| {
        let mut selector = selector.cloned().unwrap_or_default();
        selector.remove(&*config.key);
        Selector::from_map(&selector).matches(other.spec.template_meta().and_then(|m| m.labels.as_ref()))
    };
    selects(old.spec.selector.as_ref(), &config.new) || selects(config.new.spec.selector.as_ref(), old)
}

fn label(pod: &Pod, key: &str, value: &str) -> Call {
    Call::Patch {
        key: pod.key(),
        patch: Patch::Merge(json!({"metadata": {"labels": {key: value}}})),
        subresource: Subresource::None,
        precondition: Precondition { uid: Some(Rc::from(pod.uid())), rv: None },
        options: WriteOptions::default(),
    }
}

fn create(config: &RollingUpdateConfig, old: &ReplicationController) -> Step {
    let mut new = config.new.clone();
    let desired = new.spec.replicas.or_else(|| number(old, ORIGINAL_REPLICAS)).unwrap_or_else(|| size(old));
    if new.name() == old.name() {
        return Step::Failed(format!("{} cannot have the same name as the existing controller", new.name()));
    }
    if needs_key(config, old) {
        let hash = template_hash(&new, &config.key);
        set_key(&mut new.spec_mut().fields, &config.key, &hash);
    }
    new.rv = Revision(0);
    new.meta_mut().namespace = Some(config.namespace.to_string());
    annotate(&mut new, SOURCE_ID, source_id(old));
    annotate(&mut new, DESIRED_REPLICAS, desired.to_string());
    new.spec_mut().replicas = Some(0);
    let message = format!("Created {}", new.name());
    let object = Object::ReplicationController(new);
    tell(Call::Create { object, options: WriteOptions::default() }, message)
}

/// Scales the new controller up and the old one down; when that is complete, cleans up.
fn scale(
    config: &RollingUpdateConfig,
    old: &ReplicationController,
    to: (&ReplicationController, &[Pod]),
    cleanup: CleanupPolicy,
    memory: &mut Memory,
    now: Now,
) -> Step {
    let new = to.0;
    let desired = number(new, DESIRED_REPLICAS).unwrap_or_else(|| size(new));
    let sizes = (size(old), size(new));
    let progress = memory.progress.filter(|(_, o, n)| (*o, *n) == sizes);
    let since = progress.map_or(now.mono, |(since, ..)| since);
    memory.progress = Some((since, sizes.0, sizes.1));
    if now.mono - since > config.timeout {
        return Step::Failed("timed out waiting for any update progress to be made".to_owned());
    }
    if !is_settled(old) || !is_settled(new) {
        return Step::Wait(config.interval);
    }
    if sizes == (0, desired) {
        return clean_up(config, old, new, cleanup);
    }
    // A process that has just started does not know when the last step was.
    let rest = config.update_period.saturating_sub(now.mono - *memory.scaled.get_or_insert(now.mono));
    let fresh = sizes.1 == 0;
    if !fresh && !rest.is_zero() {
        return Step::Wait(rest.min(config.interval.max(Duration::from_millis(1))));
    }
    let own = to.1.iter().filter(|p| controller_of(&p.meta).is_some_and(|o| o.uid == new.uid()));
    let available = own.filter(|p| is_available(p, config.min_ready_seconds, now.wall)).count() as i32;
    match next_sizes(config, sizes, available, desired) {
        Some((down, _)) if down != sizes.0 => {
            memory.scaled = Some(now.mono);
            tell(resized(old, down), format!("Scaling {} down to {down}", old.name()))
        }
        Some((_, up)) => {
            memory.scaled = Some(now.mono);
            tell(resized(new, up), format!("Scaling {} up to {up}", new.name()))
        }
        None => Step::Wait(config.interval),
    }
}

fn is_available(pod: &Pod, min_ready_seconds: i32, now: Wall) -> bool {
    let needed = Duration::from_secs(u64::try_from(min_ready_seconds).unwrap_or(0));
    let long_enough = || pod.status.summary().since().is_some_and(|since| now.since(since) >= needed);
    is_pod_active(pod) && is_pod_ready(pod) && (needed.is_zero() || long_enough())
}

fn resized(rc: &ReplicationController, replicas: i32) -> Call {
    let mut copy = rc.clone();
    copy.spec_mut().replicas = Some(replicas);
    update(copy)
}

/// The sizes of the old and the new controller after the next step, of which one differs; `None` if nothing can be done
/// now.
///
/// Every replica of the old controller counts, ready or not. Pods that are not ready are deleted first when it is
/// scaled down, so this does not reduce the available pods below the limit, and a broken old version does not block the
/// update.
pub(super) fn next_sizes(
    config: &RollingUpdateConfig,
    (old, new): (i32, i32),
    new_available: i32,
    desired: i32,
) -> Option<(i32, i32)> {
    let mut unavailable = scaled(&config.max_unavailable, desired, false).unwrap_or(0).max(0);
    let mut surge = scaled(&config.max_surge, desired, true).unwrap_or(0).max(0);
    // If both were zero, the update could never advance.
    if unavailable == 0 && surge == 0 {
        surge = 1;
    }
    if desired == 0 {
        unavailable = old;
    }
    let least = (desired - unavailable).max(0);
    if new > desired {
        return Some((old, desired));
    }
    let room = if old == 0 { desired - new } else { desired + surge - (old + new) };
    if new < desired && room > 0 {
        return Some((old, (new + room).min(desired)));
    }
    if old == 0 {
        return None;
    }
    let spare = old + new_available - least;
    if spare <= 0 {
        return None;
    }
    let whole = new == desired && new_available == desired;
    Some((if whole { 0 } else { (old - spare).max(0) }, new))
}

/// The update is complete: deletes the old controller or keeps it.
fn clean_up(
    config: &RollingUpdateConfig,
    old: &ReplicationController,
    new: &ReplicationController,
    cleanup: CleanupPolicy,
) -> Step {
    match cleanup {
        CleanupPolicy::Delete | CleanupPolicy::Rename => {
            let message = format!("Update succeeded. Deleting {}", old.name());
            tell(delete(&Object::ReplicationController(old.clone()), None), message)
        }
        CleanupPolicy::Preserve => finish(config, new),
    }
}

fn without_notes(rc: &ReplicationController) -> ReplicationController {
    let mut copy = rc.clone();
    let annotations = copy.meta_mut().annotations.get_or_insert_default();
    annotations.retain(|k, _| ![SOURCE_ID, DESIRED_REPLICAS, ORIGINAL_REPLICAS, NEXT_CONTROLLER].contains(&&**k));
    copy
}

/// The old controller is gone: the new one takes over its name, or its annotations are removed.
fn finish(config: &RollingUpdateConfig, new: &ReplicationController) -> Step {
    if config.rollback && note(new, SOURCE_ID).is_some_and(|s| s.starts_with(&format!("{}:", config.old))) {
        return Step::Failed(format!("couldn't find original replica count of {:?}", config.old));
    }
    if note(new, SOURCE_ID).is_none() && note(new, DESIRED_REPLICAS).is_none() {
        return Step::Done;
    }
    if config.cleanup != CleanupPolicy::Rename || config.rollback {
        return write(update(without_notes(new)));
    }
    // A copy with the old name, which selects nothing yet: whatever happens next, one of the two exists.
    let mut twin = without_notes(new);
    let (namespace, labels) = (twin.meta.namespace.clone(), twin.meta.labels.clone());
    let annotations = twin.meta.annotations.clone();
    *twin.meta_mut() =
        ObjectMeta { name: Some(config.old.to_string()), namespace, labels, annotations, ..Default::default() };
    annotate(&mut twin, RENAME_FROM, new.name().to_owned());
    annotate(&mut twin, DESIRED_REPLICAS, size(new).to_string());
    twin.rv = Revision(0);
    twin.set_status(Default::default());
    set_key(&mut twin.spec_mut().fields, RENAMING, "true");
    twin.spec_mut().replicas = Some(0);
    let message = format!("Renaming {} to {}", new.name(), config.old);
    let object = Object::ReplicationController(twin);
    tell(Call::Create { object, options: WriteOptions::default() }, message)
}

/// The copy has the old name: the other controller stops selecting its pods, then the copy selects them.
fn rename(twin: &ReplicationController, new: Option<&ReplicationController>) -> Step {
    match new {
        Some(new) if new.meta.deletion_timestamp.is_some() => Step::Wait(Duration::from_secs(1)),
        Some(new) => {
            let object = Object::ReplicationController(new.clone());
            write(delete(&object, Some(Propagation::Orphan)))
        }
        None => {
            let mut copy = twin.clone();
            let replicas = number(twin, DESIRED_REPLICAS).unwrap_or_else(|| size(twin));
            let annotations = copy.meta_mut().annotations.get_or_insert_default();
            annotations.retain(|k, _| k != RENAME_FROM && k != DESIRED_REPLICAS);
            let spec = &mut copy.spec_mut().fields;
            spec.replicas = Some(replicas);
            spec.selector.get_or_insert_default().remove(RENAMING);
            let meta = spec.template.get_or_insert_default().metadata.get_or_insert_default();
            meta.labels.get_or_insert_default().remove(RENAMING);
            write(update(copy))
        }
    }
}

/// Rolls back to the old controller: swaps the roles and finally deletes the new controller.
fn roll_back(
    config: &RollingUpdateConfig,
    old: &ReplicationController,
    new: Option<&ReplicationController>,
    observed: &Observed,
    memory: &mut Memory,
    now: Now,
) -> Step {
    let Some(new) = new else {
        // The new controller was never created, or the rollback is complete.
        let swapped = note(old, SOURCE_ID).is_some();
        let noted = swapped || note(old, NEXT_CONTROLLER).is_some() || note(old, ORIGINAL_REPLICAS).is_some();
        return if noted { write(update(without_notes(old))) } else { Step::Done };
    };
    if note(old, SOURCE_ID) != Some(&source_id(new)) || number(old, DESIRED_REPLICAS).is_none() {
        let Some(original) = note(old, ORIGINAL_REPLICAS) else {
            return Step::Failed(format!("couldn't find original replica count of {:?}", old.name()));
        };
        let mut copy = old.clone();
        annotate(&mut copy, SOURCE_ID, source_id(new));
        annotate(&mut copy, DESIRED_REPLICAS, original.to_owned());
        return tell(update(copy), format!("Setting {:?} replicas to {original}", old.name()));
    }
    scale(config, new, (old, &observed.old_pods), CleanupPolicy::Delete, memory, now)
}
