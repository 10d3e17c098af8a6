//! Validation of what is written, in Kubernetes' words.

use super::{FieldError, Object};

/// What is wrong with a new object.
pub fn create(_object: &Object) -> Vec<FieldError> {
    Vec::new()
}

/// What is wrong with the metadata of a new object.
pub fn metadata_of_new(_object: &Object) -> Vec<FieldError> {
    Vec::new()
}

/// What is wrong with a changed object.
pub fn update(_new: &Object, _old: &Object) -> Vec<FieldError> {
    Vec::new()
}

/// What is wrong with a changed status.
pub fn status_update(_new: &Object, _old: &Object) -> Vec<FieldError> {
    Vec::new()
}
