//! Server-side apply, the managed fields of other writes, and unknown fields of patches and custom objects.
//!
//! Where managed fields are not tracked (`Config::track_fields`) and nobody has applied the object, a write costs one
//! look at its metadata.

use serde_json::Value;

use super::conversion::requested;
use super::write::{Deciding, Write};
use crate::api::{FieldValidation, Status, Subresource};
use crate::apply::{self, Writer};
use crate::object::{FieldError, Kind, KindRef, Object, ObjectKey, decode};
use crate::schema::{Type, builtin_kind};

impl<'a> Deciding<'a> {
    /// The types of a kind in a version. Any JSON if neither the table nor a definition knows it.
    pub(super) fn type_of(&self, kind: Kind, of: &KindRef) -> Type<'a> {
        match of {
            KindRef::BuiltIn(row) => builtin_kind(&row.api_version(), &row.kind),
            KindRef::Custom(info) => self.customs.of(kind).and_then(|custom| custom.types(&info.version)),
        }
        .unwrap_or(Type::any())
    }

    /// Calls `with` with the writer of an object of this kind and version.
    fn as_writer<T>(
        &self,
        manager: &str,
        of: &KindRef,
        subresource: Subresource,
        with: impl FnOnce(Writer<'_>) -> T,
    ) -> T {
        let (subresource, reset): (&str, &[&str]) = match subresource {
            Subresource::None if of.has_status => ("", &["status"]),
            Subresource::None => ("", &[]),
            Subresource::Status => ("status", &["spec"]),
            Subresource::Scale => ("scale", &[]),
            Subresource::Finalize => ("finalize", &[]),
            Subresource::Approval => ("approval", &["spec"]),
            Subresource::EphemeralContainers => ("ephemeralcontainers", &["status"]),
            Subresource::Resize => ("resize", &["status"]),
        };
        let time = serde_json::to_value(self.now.wall.to_time()).expect("a time serialises");
        let time = time.as_str().expect("a time is a text");
        with(Writer { manager, api_version: &of.api_version(), subresource, time, reset })
    }

    /// The object after a client has applied `body` to it (server-side apply). `current` is in the version of the
    /// request.
    pub(super) fn apply(
        &self,
        write: &Write,
        key: &ObjectKey,
        current: Option<&Object>,
        body: &Value,
        manager: &str,
        force: bool,
        subresource: Subresource,
    ) -> Result<Value, Status> {
        if manager.is_empty() {
            let error = FieldError::required("fieldManager", "is required for apply patch");
            return Err(Status::invalid_named("meta.k8s.io", "PatchOptions", "", &[error]));
        }
        let of = self.info(key.kind).in_version(requested(&write.request).unwrap_or_default());
        let live = current.map(Object::to_json);
        self.as_writer(manager, &of, subresource, |writer| {
            apply::apply(live.as_ref(), body, self.type_of(key.kind, &of), writer, force)
        })
    }

    /// Updates the managed fields of `new` after a write other than an apply, made in this version.
    pub(super) fn track(
        &self,
        write: &Write,
        current: Option<&Object>,
        new: &mut Object,
        subresource: Subresource,
        version: &str,
    ) {
        let tracked = self.config.track_fields || current.is_some_and(|c| c.meta().managed_fields.is_some());
        if !tracked || write.applies {
            return;
        }
        let request = &write.request;
        let agent = || request.user.split('/').next().unwrap_or("");
        let manager = request.field_manager.as_deref().unwrap_or_else(agent);
        let (kind, live) = (new.kind(), current.map(Object::to_json));
        let of = self.info(kind).in_version(version);
        let entries = self.as_writer(manager, &of, subresource, |writer| {
            apply::track(live.as_ref(), &new.to_json(), self.type_of(kind, &of), writer)
        });
        let entries = entries.filter(|e| !e.is_empty()).map(|entries| {
            let typed = serde_json::from_value(Value::Array(entries));
            typed.expect("entries are made of those that were typed, and of the same form")
        });
        if entries != new.meta().managed_fields {
            new.meta_mut().managed_fields = entries;
        }
    }

    /// Looks for unknown fields in a patched object; returns warnings.
    pub(super) fn check_patched_fields(
        &self,
        patched: &Value,
        validation: FieldValidation,
    ) -> Result<Vec<String>, Status> {
        let unknown = match self.kind_and_version(patched) {
            Some((kind, of)) => self.unknown(patched, kind, &of, validation),
            None => Vec::new(),
        };
        if unknown.is_empty() || validation == FieldValidation::Warn {
            return Ok(unknown.into_iter().map(|e| e.message).collect());
        }
        let list: Vec<&str> = unknown.iter().map(|e| e.message.as_str()).collect();
        let why = format!("strict decoding error: {}", list.join(", "));
        Err(Status::invalid_named("", "", "", &[FieldError::invalid("patch", patched.to_string(), why)]))
    }

    /// Looks for fields of a custom object that its definition does not have, beside those that were `minded` when its
    /// body was decoded; returns warnings. For built-in kinds all of this is done there.
    pub(super) fn check_custom_fields(
        &self,
        object: &Object,
        minded: &[decode::DecodeError],
        validation: FieldValidation,
    ) -> Result<Vec<String>, Status> {
        let Object::Dynamic(custom) = object else { return Ok(Vec::new()) };
        if validation == FieldValidation::Ignore {
            return Ok(Vec::new());
        }
        let mut unknown = self.unknown(&object.to_json(), object.kind(), &custom.of, validation);
        unknown.extend_from_slice(minded);
        if !unknown.is_empty() && validation == FieldValidation::Strict {
            return Err(decode::status(&custom.of, &unknown));
        }
        Ok(unknown.into_iter().map(|e| e.message).collect())
    }

    fn unknown(
        &self,
        value: &Value,
        kind: Kind,
        of: &KindRef,
        validation: FieldValidation,
    ) -> Vec<decode::DecodeError> {
        if validation == FieldValidation::Ignore {
            return Vec::new();
        }
        decode::unknown_fields(value, self.type_of(kind, of))
    }

    /// The kind and version of a manifest.
    fn kind_and_version(&self, value: &Value) -> Option<(Kind, KindRef)> {
        decode::kind_and_version(&self.config.kinds, value).ok()
    }
}
