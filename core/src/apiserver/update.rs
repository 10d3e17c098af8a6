//! The update and patch calls: which fields a client may change, and which ones keep their stored values.

use std::rc::Rc;

use super::admission;
use super::admission::webhook::Operation;
use super::custom::CustomResource;
use super::gated;
use super::write::{Commit, Deciding, Decision, Write};
use crate::api::{Call, Patch, Precondition, Response, Status, Subresource};
use crate::object::{Object, ObjectKey, ObjectMeta, take_ephemeral_containers, take_resources, validation};
use crate::patch;
use crate::store::StoreKey;

impl Deciding<'_> {
    pub(super) fn update(&mut self, write: &mut Write) -> Decision {
        let Call::Update { object, options, .. } = &write.request.call else { unreachable!("not an update") };
        if object.kind().built_in().is_none() {
            match self.check_custom_fields(object, &write.request.minded, options.field_validation) {
                Ok(mut warnings) => {
                    let current = self.known(write, object.key_ref());
                    warnings.extend(validation::finalizer_warnings(object, current));
                    write.warnings = warnings;
                }
                Err(status) => return Decision::refuse(status),
            }
        }
        let Call::Update { object, subresource, .. } = &write.request.call else { unreachable!("not an update") };
        let key = object.key_ref();
        let Some(current) = self.known(write, key) else {
            return Decision::refuse_if(key, Status::not_found(&self.info(key.kind), key.name()));
        };
        if let Err(decision) = check_base(key, object, current) {
            return decision;
        }
        self.replace(write, key, current, object.clone(), *subresource)
    }

    pub(super) fn patch(&mut self, write: &mut Write) -> Decision {
        let Call::Patch { key, patch, subresource, precondition, options } = &write.request.call else {
            unreachable!("not a patch")
        };
        if *subresource == Subresource::Scale {
            return self.patch_scale(write);
        }
        let (key, subresource, options) = (key.clone(), *subresource, *options);
        let Some(current) = self.object(write, &key) else {
            if matches!(patch, Patch::Apply { .. }) && subresource == Subresource::None {
                return self.apply_new(write, &key);
            }
            return Decision::refuse_if(&key, Status::not_found(&self.info(key.kind), key.name()));
        };
        if let Err(status) = check_precondition(&key, precondition, &current) {
            return Decision::refuse_if(&key, status);
        }
        let shown = match self.as_requested(write, &current) {
            Ok(shown) => shown,
            Err(decision) => return decision,
        };
        let Call::Patch { patch, .. } = &write.request.call else { unreachable!("not a patch") };
        let patched = match patch {
            Patch::Apply { body, manager, force } => {
                write.creates = false;
                self.apply(write, &key, Some(&shown), body, manager, *force, subresource)
            }
            Patch::Merge(_) | Patch::Json(_) | Patch::Strategic(_) => patch::apply(&shown, patch),
        };
        let patched = patched.and_then(|patched| {
            let warnings = self.check_patched_fields(&patched, options.field_validation)?;
            Ok((patched, warnings))
        });
        let patched = match patched {
            Ok((patched, warnings)) => {
                write.warnings = warnings;
                patched
            }
            Err(status) => return Decision::refuse_if(&key, status),
        };
        let object = match self.decode(patched) {
            Ok(object) => object,
            Err(status) => return Decision::refuse(status),
        };
        if object.kind() != key.kind || object.name() != key.name() || object.namespace() != key.namespace() {
            let why = "the name, namespace and kind of an object cannot be changed by a patch";
            return Decision::refuse(Status::bad_request(why));
        }
        if object.info().version != shown.info().version {
            let (given, expected) = (object.info().api_version(), shown.info().api_version());
            let why =
                format!("the API version in the data ({given}) does not match the expected API version ({expected})");
            return Decision::refuse(Status::bad_request(why));
        }
        // A patch that sets `resourceVersion` or `uid` makes it a precondition.
        if let Err(decision) = check_base(&key, &object, &current) {
            return decision;
        }
        if object.kind().built_in().is_none() {
            write.warnings.extend(validation::finalizer_warnings(&object, Some(&current)));
        }
        self.replace(write, &key, &current, object, subresource)
    }

    /// Server-side apply to an object that does not exist creates it.
    fn apply_new(&mut self, write: &mut Write, key: &ObjectKey) -> Decision {
        let Call::Patch { patch: Patch::Apply { body, manager, force }, options, precondition, .. } =
            &write.request.call
        else {
            unreachable!("not an apply")
        };
        if precondition.uid.is_some() || precondition.rv.is_some() {
            return Decision::refuse_if(key, Status::not_found(&self.info(key.kind), key.name()));
        }
        let options = *options;
        let made = self.apply(write, key, None, body, manager, *force, Subresource::None);
        let made =
            made.and_then(|made| Ok((self.check_patched_fields(&made, options.field_validation)?, self.decode(made)?)));
        let mut object = match made {
            Ok((warnings, object)) => {
                (write.warnings, write.creates) = (warnings, true);
                object
            }
            Err(status) => return Decision::refuse(status),
        };
        if object.name().is_empty() {
            object.meta_mut().name = Some(key.name().to_owned());
        }
        if object.namespace().is_empty() && !key.namespace().is_empty() {
            object.meta_mut().namespace = Some(key.namespace().to_owned());
        }
        if object.key() != *key {
            return Decision::refuse(Status::bad_request("the name and namespace of the object do not match the URL"));
        }
        let patch = std::mem::replace(&mut write.request.call, Call::Create { object, options });
        let decision = self.create(write);
        // Restore the patch, so that a retry applies again if somebody else creates the object first.
        if !matches!(decision, Decision::Consult(_)) {
            write.admitted = None;
        }
        write.request.call = patch;
        decision
    }

    /// Replaces `current` by `incoming`, keeping what the client may not change through this subresource.
    #[inline]
    pub(super) fn replace(
        &mut self,
        write: &Write,
        key: &ObjectKey,
        current: &Object,
        incoming: Object,
        subresource: Subresource,
    ) -> Decision {
        if let Some(custom) = self.customs.of(key.kind) {
            let custom = Rc::clone(custom);
            return self.replace_custom(write, &custom, key, current, incoming, subresource);
        }
        let Some(mut new) = self.merge(current, incoming, subresource) else {
            return Decision::refuse(Status::method_not_allowed(current.info(), "update"));
        };
        if write.request.identity.is_none() {
            // What is decided follows from what was sent, and not from whether it shares memory with what is stored.
            new.share(current);
        }
        let consults = self.consults_about(key.kind);
        if new.shares_parts(current) && !consults {
            // At most the renewal differs, and that has no defaults, validation or allocation.
            return self.store_change(key, current, new, Default::default());
        }
        if consults {
            let update = (Operation::Update, subresource.name());
            let asked = self.consult_mutating(write, update, &mut new, Some(current), &admission::accept);
            if let Err(decision) = asked {
                return decision;
            }
            // Webhooks and policies change no more than the client may.
            new = self.merge(current, new, subresource).expect("it has been merged before");
        }
        if let Err(decision) = self.check_grant(write, &new, Some(current)) {
            return decision;
        }
        if let Err(decision) = self.admit_changed(write, key, &mut new, current, subresource) {
            return decision;
        }
        self.track(write, Some(current), &mut new, subresource, &current.info().version);
        let mut allocation = match self.allocate_addresses(write, key, Some(current), &mut new) {
            Ok(allocation) => allocation,
            Err(decision) => return decision,
        };
        match self.charge_quotas(write, Some(current), &new) {
            Ok(charges) => allocation.charges = charges,
            Err(decision) => return decision,
        }
        self.store_change(key, current, new, allocation)
    }

    /// Builds the new object of an update: what was sent, as far as this subresource changes it. `None` if the kind has
    /// no such subresource that is updated.
    #[inline]
    fn merge(&self, current: &Object, sent: Object, subresource: Subresource) -> Option<Object> {
        Some(match subresource {
            Subresource::None => {
                let mut new = merge_main(current, sent);
                gated::drop_disabled(self.config.features, &mut new, Some(current));
                new
            }
            Subresource::Status if current.info().has_status => {
                let mut new = merge_status(current, &sent);
                new.prepare_for_status_update(current, self.now.wall);
                new
            }
            Subresource::Finalize if current.info().has_subresource("finalize") => merge_finalizers(current, &sent),
            Subresource::Approval if current.info().has_subresource("approval") => {
                let mut new = current.clone();
                new.approve(&sent, self.now.wall);
                take_labels_and_annotations(&mut new, &sent);
                new
            }
            Subresource::EphemeralContainers => merge_ephemeral(current, &sent)?,
            Subresource::Resize => merge_resize(current, &sent)?,
            Subresource::Status | Subresource::Finalize | Subresource::Scale | Subresource::Approval => return None,
        })
    }

    /// As [`replace`](Self::replace) for a custom object, by the rules of its definition, in the version in which
    /// `incoming` is written.
    fn replace_custom(
        &mut self,
        write: &Write,
        custom: &CustomResource,
        key: &ObjectKey,
        stored: &Object,
        mut incoming: Object,
        subresource: Subresource,
    ) -> Decision {
        let written = incoming.info().version.clone();
        custom.shape(&mut incoming);
        let current = match self.in_version(write, custom, stored, &written) {
            Ok(current) => current,
            Err(decision) => return decision,
        };
        let current = &current;
        let Some(mut new) = self.merge(current, incoming, subresource) else {
            return Decision::refuse(Status::method_not_allowed(current.info(), "update"));
        };
        let update = (Operation::Update, subresource.name());
        let accept = |deciding: &Deciding<'_>, value| custom.accept(deciding, value);
        if let Err(decision) = self.consult_mutating(write, update, &mut new, Some(current), &accept) {
            return decision;
        }
        new = self.merge(current, new, subresource).expect("it has been merged before");
        if let Err(status) = custom.admit_changed(&new, current) {
            return Decision::refuse_if(key, status);
        }
        if let Err(decision) = self.consult_validating(write, update, Some(&new), Some(current)) {
            return decision;
        }
        self.track(write, Some(current), &mut new, subresource, &written);
        self.store_custom(write, custom, key, stored, current, new)
    }

    /// As [`store_change`](Self::store_change) for a custom object; `current` is `stored` in the version of `new`.
    pub(super) fn store_custom(
        &mut self,
        write: &Write,
        custom: &CustomResource,
        key: &ObjectKey,
        stored: &Object,
        current: &Object,
        mut new: Object,
    ) -> Decision {
        let version = custom.storage_version();
        // What is stored in another version is stored anew, though nothing has changed.
        let outcome = self.outcome(current, &mut new);
        if outcome == Outcome::Unchanged && stored.info().version == version {
            let unchanged = Ok(Response::Object(stored.clone()));
            return Decision::AnswerIf(vec![StoreKey::Object(key.clone())], unchanged);
        }
        let new = match self.in_version(write, custom, &new, version) {
            Ok(new) => new,
            Err(decision) => return decision,
        };
        Decision::Commit(match outcome {
            Outcome::Finished => Commit::remove(key, stored, new),
            Outcome::Unchanged | Outcome::Changed => Commit::replace(key, stored, new),
        })
    }

    /// Commits a changed object: increments the generation, answers a no-op without a write, and removes an object
    /// whose last finalizer is gone.
    #[inline]
    pub(super) fn store_change(
        &self,
        key: &ObjectKey,
        current: &Object,
        mut new: Object,
        allocation: super::service_ip::Allocation,
    ) -> Decision {
        match self.outcome(current, &mut new) {
            Outcome::Unchanged => {
                let unchanged = Ok(Response::Object(current.clone()));
                Decision::AnswerIf(vec![StoreKey::Object(key.clone())], unchanged)
            }
            Outcome::Finished => Decision::Commit(Commit::remove(key, current, new)),
            Outcome::Changed => {
                let commit = Commit::replace(key, current, new);
                self.finish_commit(commit, key.kind, allocation)
            }
        }
    }

    /// What becomes of a changed object; increments its generation.
    #[inline]
    fn outcome(&self, current: &Object, new: &mut Object) -> Outcome {
        let same_spec = new.same_spec(current);
        // For a kind without a status subresource, a change of the status counts as a change of the spec.
        let counts = |new: &Object| !same_spec || !current.info().has_status && !new.same_status(current);
        let counted = current.info().has_generation && counts(new);
        if same_spec {
            // Share the stored spec instead of keeping an equal copy.
            new.take_spec(current);
        }
        if counted {
            let generation = current.meta().generation.unwrap_or(0) + 1;
            new.meta_mut().generation = Some(generation);
        }
        let same_meta = new.meta() == current.meta();
        match same_meta && same_spec && new.same_status(current) {
            true => Outcome::Unchanged,
            false if is_finished(new, current) => Outcome::Finished,
            false => Outcome::Changed,
        }
    }
}

/// What becomes of an object that has been changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Outcome {
    /// It is as it was.
    Unchanged,
    Changed,
    /// It was being deleted, and nothing holds it any more.
    Finished,
}

/// Checks the preconditions in an object that a client sent: its `resourceVersion` and `uid` must match the stored
/// object's.
#[inline]
fn check_base(key: &ObjectKey, object: &Object, current: &Object) -> Result<(), Decision> {
    if object.rv().0 == 0 && !current.info().unconditional_update {
        return Err(Decision::refuse_if(key, Status::unconditional(current.info(), key.name())));
    }
    if object.rv().0 != 0 && object.rv() != current.rv() {
        // Also a revision older than the cached one, which is stale for certain: the object may be gone by now, and one
        // that is not there conflicts with nothing.
        return Err(Decision::refuse_if(key, Status::stale(current.info(), key.name())));
    }
    if !Rc::ptr_eq(object.meta(), current.meta()) && !object.uid().is_empty() && object.uid() != current.uid() {
        return Err(Decision::refuse_if(key, uid_conflict(current, object.uid())));
    }
    Ok(())
}

fn uid_conflict(current: &Object, asked: &str) -> Status {
    let why = format!("Precondition failed: UID in precondition: {asked}, UID in object meta: {}", current.uid());
    Status::conflict(current.info(), current.name(), &why)
}

/// Checks a precondition; errors have the words of `rest.BeforeDelete`.
pub(super) fn check_precondition(key: &ObjectKey, precondition: &Precondition, current: &Object) -> Result<(), Status> {
    if let Some(uid) = precondition.uid.as_deref().filter(|uid| *uid != current.uid()) {
        let why = format!(
            "the UID in the precondition ({uid}) does not match the UID in record ({}). The object might have been \
             deleted and then recreated",
            current.uid()
        );
        return Err(Status::conflict(current.info(), key.name(), &why));
    }
    if let Some(rv) = precondition.rv.filter(|rv| *rv != current.rv()) {
        let why = format!(
            "the ResourceVersion in the precondition ({rv}) does not match the ResourceVersion in record ({}). The \
             object might have been modified",
            current.rv()
        );
        return Err(Status::conflict(current.info(), key.name(), &why));
    }
    Ok(())
}

/// Builds the new object of an update of the main resource: what the client sent, with the stored status and server-set
/// metadata.
fn merge_main(current: &Object, incoming: Object) -> Object {
    if !has_status(current) && Rc::ptr_eq(incoming.meta(), current.meta()) {
        // Nothing needs to be kept from the stored object.
        return incoming;
    }
    let mut new = current.clone();
    new.take_spec(&incoming);
    if !has_status(current) {
        new.take_status(&incoming);
    }
    new.prepare_for_update(current);
    new.share_pod_spec(current);
    let (sent, old) = (incoming.meta(), current.meta());
    if !Rc::ptr_eq(sent, old) && !same_client_part(sent, old) {
        let meta = new.meta_mut();
        let kept = std::mem::replace(meta, ObjectMeta::clone(sent));
        meta.name = kept.name;
        meta.namespace = kept.namespace;
        meta.generate_name = kept.generate_name;
        meta.uid = kept.uid;
        meta.creation_timestamp = kept.creation_timestamp;
        meta.generation = kept.generation;
        meta.deletion_timestamp = kept.deletion_timestamp;
        meta.deletion_grace_period_seconds = kept.deletion_grace_period_seconds;
        meta.self_link = None;
        meta.resource_version = None;
    }
    new
}

/// Whether the metadata fields that clients may change are equal.
fn same_client_part(a: &ObjectMeta, b: &ObjectMeta) -> bool {
    a.labels == b.labels
        && a.annotations == b.annotations
        && a.finalizers == b.finalizers
        && a.owner_references == b.owner_references
        && a.managed_fields == b.managed_fields
}

fn has_status(object: &Object) -> bool {
    object.info().has_status
}

/// Builds the new object of a status update: the stored object with the status that the client sent. Labels and
/// annotations are updated too, as upstream's strategies allow.
fn merge_status(current: &Object, incoming: &Object) -> Object {
    let mut new = current.clone();
    if !incoming.same_status(current) {
        new.take_status(incoming);
    }
    take_labels_and_annotations(&mut new, incoming);
    new
}

/// Labels, where they change with the status, and annotations as they were sent.
fn take_labels_and_annotations(new: &mut Object, sent: &Object) {
    let (sent, old) = (sent.meta(), new.meta());
    if Rc::ptr_eq(sent, old) {
        return;
    }
    let other_labels = sent.labels != old.labels && new.labels_change_with_status();
    let other_annotations = sent.annotations != old.annotations;
    if other_labels {
        new.meta_mut().labels.clone_from(&sent.labels);
    }
    if other_annotations {
        new.meta_mut().annotations.clone_from(&sent.annotations);
    }
}

/// Builds the new object of an update of ephemeral containers: of the stored pod, nothing else changes. `None` for
/// other kinds.
fn merge_ephemeral(current: &Object, incoming: &Object) -> Option<Object> {
    let mut new = current.clone();
    let (Object::Pod(pod), Object::Pod(sent)) = (&mut new, incoming) else { return None };
    take_ephemeral_containers(pod, sent);
    Some(new)
}

/// Builds the new object of a resize: of the stored pod, nothing but resources changes. `None` for other kinds.
fn merge_resize(current: &Object, incoming: &Object) -> Option<Object> {
    let mut new = current.clone();
    let (Object::Pod(pod), Object::Pod(sent)) = (&mut new, incoming) else { return None };
    take_resources(pod, sent);
    Some(new)
}

fn merge_finalizers(current: &Object, incoming: &Object) -> Object {
    let mut new = current.clone();
    new.finalize(incoming);
    take_labels_and_annotations(&mut new, incoming);
    new
}

/// Whether an object that is being deleted can be removed, since its last finalizer is gone
/// (`ShouldDeleteDuringUpdate`).
fn is_finished(new: &Object, current: &Object) -> bool {
    let meta = new.meta();
    meta.is_deleting() && !meta.has_finalizers() && new.ends_on_update(current)
}
