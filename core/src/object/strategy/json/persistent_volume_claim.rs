//! PersistentVolumeClaim. Source: `pkg/apis/core/validation` (`ValidatePersistentVolumeClaim`).

use std::rc::Rc;

use k8s_openapi::api::core::v1::{PersistentVolumeClaim, PersistentVolumeClaimSpec};
use serde_json::json;

use super::JsonStrategy;
use super::fields::{Errors, both, typed};
use super::missing::{Missing, fill};
use super::persistent_volume::pending;
use crate::object::validation::path::Path;
use crate::object::validation::volume;
use crate::object::{Dynamic, FieldError, Milli};

impl JsonStrategy for PersistentVolumeClaim {
    fn prepare_for_create(object: &mut Dynamic) {
        object.status = Some(Rc::new(json!({"phase": "Pending"})));
    }

    fn apply_defaults(object: &mut Dynamic) {
        fill(object, Self::defaults);
        pending(&mut object.status);
    }

    fn defaults(m: &mut Missing<'_>) {
        m.at(&["spec"], "volumeMode", || json!("Filesystem"));
        m.round(&["spec", "resources", "requests"]);
        m.round(&["spec", "resources", "limits"]);
    }

    fn validate(d: &Dynamic, errors: &mut Errors) {
        typed(d, "spec", errors, |s: &PersistentVolumeClaimSpec, e| volume::claim(s, &Path::Root("spec"), e));
    }

    fn validate_update(new: &Dynamic, old: &Dynamic, errors: &mut Errors) {
        both(new, old, errors, spec_update);
    }
}

fn spec_update(new: &PersistentVolumeClaimSpec, old: &PersistentVolumeClaimSpec, errors: &mut Errors) {
    let fixed = |s: &PersistentVolumeClaimSpec| PersistentVolumeClaimSpec {
        resources: None,
        volume_attributes_class_name: None,
        ..s.clone()
    };
    let (now, mut was) = (fixed(new), fixed(old));
    // Binding and the choice of a storage class happen after a claim was created, so these fields may be set once.
    if old.volume_name.as_deref().unwrap_or("").is_empty() {
        was.volume_name.clone_from(&now.volume_name);
    }
    if old.storage_class_name.is_none() {
        was.storage_class_name.clone_from(&now.storage_class_name);
    }
    if now != was {
        let detail = "spec is immutable after creation except resources.requests and volumeAttributesClassName for \
                      bound claims";
        errors.push(FieldError::forbidden("spec", detail));
    }
    let size = |s: &PersistentVolumeClaimSpec| {
        s.resources.as_ref().and_then(|r| r.requests.as_ref()).and_then(|r| r.get("storage")).map(Milli::of)
    };
    if size(new) < size(old) {
        let detail = "field can not be less than status.capacity";
        errors.push(FieldError::forbidden("spec.resources.requests.storage", detail));
    }
}
