//! ControllerRevision. Source: `pkg/registry/apps/controllerrevision/strategy.go`.

use std::rc::Rc;

use k8s_openapi::api::apps::v1 as apps_v1;

use super::Strategy;
use crate::object::{ControllerRevision, FieldError, Inline, Kind, Obj, Object, ObjectMeta, Resource, validation};

flat!(ControllerRevision apps_v1::ControllerRevision, CONTROLLER_REVISION);

impl Strategy for apps_v1::ControllerRevision {
    fn validate(object: &ControllerRevision, errors: &mut Vec<FieldError>) {
        validation::revision(&object.spec, errors);
    }

    fn validate_update(new: &ControllerRevision, old: &ControllerRevision, errors: &mut Vec<FieldError>) {
        if !Rc::ptr_eq(&new.spec, &old.spec) {
            validation::revision_update(&new.spec, &old.spec, errors);
        }
    }
}
