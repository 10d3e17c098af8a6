//! Update and patch: what a client may change, and what stays.

use std::sync::Arc;

use super::ApiServer;
use super::create::fence_of;
use super::delete::is_to_be_removed;
use super::write::{Commit, Decision, Reply};
use crate::api::{Patch, Precondition, Response, Status, Subresource, WriteOptions};
use crate::machine::Now;
use crate::object::{Object, ObjectKey, Revision};

impl ApiServer {
    pub(super) fn decide_update(
        &mut self,
        now: Now,
        key: &ObjectKey,
        object: &Object,
        subresource: Subresource,
        current: &Object,
        options: WriteOptions,
    ) -> Decision {
        if object.rv().0 != 0 && object.rv() != current.rv() {
            return Decision::Refuse(Status::stale(key.kind, key.name()));
        }
        if !object.uid().is_empty() && object.uid() != current.uid() {
            return Decision::Refuse(uid_conflict(key, object.uid(), current.uid()));
        }
        self.replace(now, key, object, subresource, current, options, Reply::Object)
    }

    /// Merges what a client sent with what it may not change, and commits the difference.
    pub(super) fn replace(
        &mut self,
        _now: Now,
        key: &ObjectKey,
        object: &Object,
        subresource: Subresource,
        current: &Object,
        options: WriteOptions,
        reply: impl Fn(Object) -> Reply,
    ) -> Decision {
        let mut new = match subresource {
            Subresource::None => merge_main(object, current),
            Subresource::Status => {
                let mut new = current.clone();
                new.take_status(object);
                new
            }
            Subresource::Finalize => merge_finalizers(object, current),
            Subresource::Scale => return Decision::Refuse(Status::method_not_allowed(key.kind, "update of scale")),
        };
        if let Err(status) = self.admit_update(&mut new, current, subresource) {
            return Decision::Refuse(status);
        }
        let (compare, mut extra) = match self.allocations.for_update(&mut new, current, &mut self.rng) {
            Ok(allocated) => allocated,
            Err(errors) => return Decision::Refuse(Status::invalid(key.kind, key.name(), &errors)),
        };
        let same_spec = new.same_spec(current);
        if !same_spec && subresource == Subresource::None && key.kind.info().has_generation {
            let generation = current.meta().generation.unwrap_or(0) + 1;
            new.meta_mut().generation = Some(generation);
        }
        let same_meta = Arc::ptr_eq(new.meta(), current.meta()) || new.meta() == current.meta();
        if same_meta && same_spec && new.same_status(current) {
            return Decision::Unchanged(match reply(current.clone()) {
                Reply::Object(object) => Response::Object(object),
                Reply::Done => Response::Done { rv: Revision(0) },
                Reply::Scale(object) => super::scale::response(&object).expect("it was scaled"),
            });
        }
        if options.dry_run {
            return Decision::DryRun(Response::Object(new));
        }
        extra.extend(fence_of(key, Some(current), &new));
        let put = if is_to_be_removed(&new) {
            extra.extend(self.allocations.for_delete(current));
            None
        } else {
            Some(new.clone())
        };
        Decision::Commit(Commit { key: key.clone(), put, compare, extra, reply: reply(new) })
    }

    pub(super) fn decide_patch(
        &mut self,
        now: Now,
        key: &ObjectKey,
        patch: &Patch,
        subresource: Subresource,
        precondition: &Precondition,
        current: &Object,
        options: WriteOptions,
    ) -> Decision {
        if let Err(status) = check(key, precondition, current) {
            return Decision::Refuse(status);
        }
        let mut value = match crate::patch::apply(current, patch) {
            Ok(value) => value,
            Err(status) => return Decision::Refuse(status),
        };
        // A patch may name the revision and UID that it expects, by setting them.
        let asked = value["metadata"]["resourceVersion"].as_str().and_then(|rv| rv.parse::<u64>().ok());
        if asked.is_some_and(|rv| rv != current.rv().0) {
            return Decision::Refuse(Status::stale(key.kind, key.name()));
        }
        if let Some(uid) = value["metadata"]["uid"].as_str().filter(|uid| *uid != current.uid()) {
            return Decision::Refuse(uid_conflict(key, uid, current.uid()));
        }
        if let Some(meta) = value.get_mut("metadata").and_then(|m| m.as_object_mut()) {
            meta.remove("resourceVersion");
        }
        let object = match Object::from_json(value) {
            Ok(object) => object,
            Err(text) => return Decision::Refuse(Status::bad_request(text)),
        };
        if object.kind() != key.kind || object.key() != *key {
            return Decision::Refuse(Status::bad_request(
                "the name and kind of an object cannot be changed by a patch",
            ));
        }
        let object = share(object, current);
        self.replace(now, key, &object, subresource, current, options, Reply::Object)
    }
}

/// Shares the parts that a patch left as they were, so that equal pod specs stay one.
fn share(mut object: Object, current: &Object) -> Object {
    if object.same_spec(current) {
        object.take_spec(current);
    }
    if object.same_status(current) {
        object.take_status(current);
    }
    match (&mut object, current) {
        (Object::Pod(new), Object::Pod(old)) if new.spec.shared == old.spec.shared => {
            new.spec_mut().shared = Arc::clone(&old.spec.shared);
        }
        (Object::Deployment(new), Object::Deployment(old)) if new.spec.pod == old.spec.pod => {
            new.spec_mut().pod = Arc::clone(&old.spec.pod);
        }
        (Object::ReplicaSet(new), Object::ReplicaSet(old)) if new.spec.pod == old.spec.pod => {
            new.spec_mut().pod = Arc::clone(&old.spec.pod);
        }
        (Object::ReplicationController(new), Object::ReplicationController(old)) if new.spec.pod == old.spec.pod => {
            new.spec_mut().pod = Arc::clone(&old.spec.pod);
        }
        _ => {}
    }
    object
}

/// Checks what a client expects of the stored object.
pub(super) fn check(key: &ObjectKey, precondition: &Precondition, current: &Object) -> Result<(), Status> {
    if let Some(uid) = precondition.uid.as_deref().filter(|uid| *uid != current.uid()) {
        return Err(uid_conflict(key, uid, current.uid()));
    }
    if let Some(rv) = precondition.rv.filter(|rv| *rv != current.rv()) {
        let why = format!(
            "the ResourceVersion in the precondition ({rv}) does not match the ResourceVersion in record ({}). The object might have been modified",
            current.rv()
        );
        return Err(Status::conflict(key.kind, key.name(), &why));
    }
    Ok(())
}

fn uid_conflict(key: &ObjectKey, asked: &str, found: &str) -> Status {
    let why = format!("Precondition failed: UID in precondition: {asked}, UID in object meta: {found}");
    Status::conflict(key.kind, key.name(), &why)
}

/// What the client sent, with the status and the server's own metadata as they stand.
fn merge_main(object: &Object, current: &Object) -> Object {
    let mut new = object.clone();
    new.set_rv(current.rv());
    new.take_status(current);
    let old = current.meta();
    let server_part_is_same = {
        let m = new.meta();
        m.uid == old.uid
            && m.creation_timestamp == old.creation_timestamp
            && m.generation == old.generation
            && m.deletion_timestamp == old.deletion_timestamp
            && m.deletion_grace_period_seconds == old.deletion_grace_period_seconds
            && m.self_link.is_none()
    };
    if !server_part_is_same {
        let meta = new.meta_mut();
        meta.uid.clone_from(&old.uid);
        meta.creation_timestamp.clone_from(&old.creation_timestamp);
        meta.generation = old.generation;
        meta.deletion_timestamp.clone_from(&old.deletion_timestamp);
        meta.deletion_grace_period_seconds = old.deletion_grace_period_seconds;
        meta.self_link = None;
    }
    if let (Object::Pod(new), Object::Pod(old)) = (&mut new, current)
        && new.spec.node != old.spec.node
    {
        // The node is written by the binding alone.
        new.spec_mut().node.clone_from(&old.spec.node);
    }
    new
}

/// A namespace with the finalizers of its spec as the client sent them.
fn merge_finalizers(object: &Object, current: &Object) -> Object {
    let mut new = current.clone();
    if let (Object::Namespace(new), Object::Namespace(sent)) = (&mut new, object) {
        new.spec_mut().finalizers.clone_from(&sent.spec.finalizers);
    }
    new
}
