//! ConfigMap. Source: `pkg/apis/core/validation` (`ValidateConfigMap`).

use k8s_openapi::api::core::v1::ConfigMap;

use super::JsonStrategy;
use super::fields::{DATA_LIMIT, Errors, decoded_len, entries, immutable_data};
use crate::object::validation::path::Path;
use crate::object::validation::{names, push_all};
use crate::object::{Dynamic, FieldError};

impl JsonStrategy for ConfigMap {
    fn validate(d: &Dynamic, errors: &mut Errors) {
        let (data, binary) = (Path::Root("data"), Path::Root("binaryData"));
        let mut total = 0;
        for (key, value) in entries(&d.body, "data") {
            push_all(errors, &data.key(key), key, names::config_key(key));
            if d.body.get("binaryData").is_some_and(|b| b.get(key).is_some()) {
                errors.push(FieldError::invalid(data.key(key), key, "duplicate of key present in binaryData"));
            }
            total += value.len();
        }
        for (key, value) in entries(&d.body, "binaryData") {
            push_all(errors, &binary.key(key), key, names::config_key(key));
            total += if value.is_empty() { 0 } else { decoded_len(value) };
        }
        if total > DATA_LIMIT {
            errors.push(FieldError::too_long("", DATA_LIMIT));
        }
    }

    fn validate_update(new: &Dynamic, old: &Dynamic, errors: &mut Errors) {
        immutable_data(new, old, errors);
    }
}
