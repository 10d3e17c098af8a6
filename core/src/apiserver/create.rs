//! The create call: admission, name generation, server-set metadata, allocation, and the write to the store.

use super::admission::CREATE;
use super::certificate;
use super::gated;
use super::write::{Commit, Deciding, Decision, Write};
use crate::api::{Call, Status, Subresource};
use crate::limits;
use crate::object::{FieldError, Object, ObjectKey};
use crate::store::StoreKey;

/// Longest prefix of a generated name (`maxGeneratedNameLength`): a name has 63 characters, five of which are random.
const GENERATED_PREFIX: usize = 58;

impl Deciding<'_> {
    pub(super) fn create(&mut self, write: &mut Write) -> Decision {
        let admitted = match self.admitted(write) {
            Ok(object) => object,
            Err(decision) => return decision,
        };
        let key = admitted.key();
        if self.object(write, &key).is_some() {
            return self.name_taken(write, &key, admitted);
        }
        let mut object = match self.customs.of(key.kind).cloned() {
            None => admitted,
            Some(custom) => match self.in_version(write, &custom, &admitted, custom.storage_version()) {
                Ok(object) => object,
                Err(decision) => return decision,
            },
        };
        let mut allocation = match self.allocate_addresses(write, &key, None, &mut object) {
            Ok(allocation) => allocation,
            Err(decision) => return decision,
        };
        match self.charge_quotas(write, None, &object) {
            Ok(charges) => allocation.charges = charges,
            Err(decision) => return decision,
        }
        let commit = Commit::create(&key, object);
        self.finish_commit(commit, key.kind, allocation)
    }

    /// Runs admission and returns the object as it will be stored, without allocated values (addresses, ports, quota);
    /// a custom one in the version in which it was written. Runs once per request: a retry uses the result again.
    fn admitted(&mut self, write: &mut Write) -> Result<Object, Decision> {
        if let Some(object) = &write.admitted {
            return Ok(object.clone());
        }
        let Call::Create { object, .. } = &write.request.call else { unreachable!("not a create") };
        let mut object = object.clone();
        check_shape(&object).map_err(Decision::refuse)?;
        self.namespace_lifecycle(write, &object)?;
        self.stamp(&mut object);
        self.set_own_fields(write, &mut object);
        match self.shape_new(write, &mut object).map_err(Decision::refuse)? {
            Some(custom) => {
                let accept = |deciding: &Deciding<'_>, value| custom.accept(deciding, value);
                self.consult_mutating(write, CREATE, &mut object, None, &accept)?;
                custom.admit_new(&object).map_err(Decision::refuse)?;
                self.consult_validating(write, CREATE, Some(&object), None)?;
            }
            None => self.admit_new(write, &mut object)?,
        }
        let version = object.info().version.clone();
        self.track(write, None, &mut object, Subresource::None, &version);
        write.admitted = Some(object.clone());
        Ok(object)
    }

    /// Sets of a new object what only the server sets: whatever a client, a policy or a webhook says of it is not kept.
    pub(super) fn set_own_fields(&self, write: &Write, object: &mut Object) {
        let counted = object.info().has_generation;
        let meta = object.meta_mut();
        meta.generation = counted.then_some(1);
        meta.deletion_timestamp = None;
        meta.deletion_grace_period_seconds = None;
        meta.self_link = None;
        object.prepare_for_create();
        gated::drop_disabled(self.config.features, object, None);
        certificate::note_requester(object, write.request.identity.as_deref());
    }

    /// Gives a new object its UID and its time of creation, and a name if one is to be generated.
    fn stamp(&mut self, object: &mut Object) {
        let uid = self.rng.uuid();
        let suffix = object.name().is_empty().then(|| self.rng.name_suffix(5));
        let now = self.now.wall.to_time();
        let meta = object.meta_mut();
        meta.uid = Some(uid);
        meta.creation_timestamp = Some(now);
        if let (Some(suffix), Some(prefix)) = (suffix, meta.generate_name.as_deref()) {
            meta.name = Some(generated(prefix, &suffix));
        }
    }

    /// Handles a name that is taken. A generated name is drawn again, but only if the object was read from the store
    /// for this write: the cache alone may be stale. Otherwise the request is refused, once the store has confirmed
    /// that the object exists.
    fn name_taken(&mut self, write: &mut Write, key: &ObjectKey, mut object: Object) -> Decision {
        let Call::Create { object: asked, .. } = &write.request.call else { unreachable!("not a create") };
        let generated_name = asked.name().is_empty();
        let known = write.fresh.iter().any(|(k, _)| matches!(k, StoreKey::Object(k) if k == key));
        if !generated_name || !known || write.names_tried + 1 >= limits::NAME_ATTEMPTS {
            return Decision::refuse_if(key, Status::already_exists(object.info(), key.name()));
        }
        write.names_tried += 1;
        let suffix = self.rng.name_suffix(5);
        let prefix = object.meta().generate_name.clone().unwrap_or_default();
        object.meta_mut().name = Some(generated(&prefix, &suffix));
        write.admitted = Some(object);
        self.create(write)
    }
}

fn generated(prefix: &str, suffix: &str) -> String {
    let end = prefix.char_indices().nth(GENERATED_PREFIX).map_or(prefix.len(), |(i, _)| i);
    format!("{}{suffix}", &prefix[..end])
}

fn check_shape(object: &Object) -> Result<(), Status> {
    let info = object.info();
    if object.rv().0 != 0 {
        return Err(Status::bad_request("resourceVersion should not be set on objects to be created"));
    }
    if info.namespaced && object.namespace().is_empty() {
        return Err(Status::bad_request("an empty namespace may not be set during creation"));
    }
    if object.name().is_empty() && object.meta().generate_name.as_deref().unwrap_or("").is_empty() {
        let error = FieldError::required("metadata.name", "name or generateName is required");
        return Err(Status::invalid(object.info(), "", &[error]));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::generated;

    #[test]
    fn generated_names_keep_to_63_characters() {
        assert_eq!(generated("web-", "abcde"), "web-abcde");
        assert_eq!(generated(&"x".repeat(80), "abcde").len(), 63);
        assert_eq!(generated(&"é".repeat(80), "abcde").chars().count(), 63);
    }
}
