//! StorageClass. Source: `pkg/apis/storage/validation`.

use k8s_openapi::api::storage::v1::StorageClass;
use serde_json::json;

use super::JsonStrategy;
use super::fields::{Errors, required};
use super::missing::Missing;
use crate::object::{Dynamic, FieldError};

impl JsonStrategy for StorageClass {
    fn defaults(m: &mut Missing<'_>) {
        m.at(&[], "reclaimPolicy", || json!("Delete"));
        m.at(&[], "volumeBindingMode", || json!("Immediate"));
    }

    fn validate(d: &Dynamic, errors: &mut Errors) {
        required(&d.body, &["provisioner"], errors);
    }

    fn validate_update(new: &Dynamic, old: &Dynamic, errors: &mut Errors) {
        for (field, detail) in [
            ("parameters", "updates to parameters are forbidden."),
            ("provisioner", "updates to provisioner are forbidden."),
            ("reclaimPolicy", "updates to reclaimPolicy are forbidden."),
            ("volumeBindingMode", "updates to volumeBindingMode are forbidden."),
        ] {
            if new.body.get(field) != old.body.get(field) {
                errors.push(FieldError::forbidden(field, detail));
            }
        }
    }
}
