//! Endpoints and EndpointSlice. Source: `pkg/registry/core/endpoint/strategy.go`,
//! `pkg/registry/discovery/endpointslice/strategy.go`.

use std::rc::Rc;

use k8s_openapi::api::{core::v1 as core_v1, discovery::v1 as discovery_v1};

use super::Strategy;
use crate::object::validation::{service, slice_update};
use crate::object::{EndpointSlice, Endpoints, FieldError, Inline, Kind, Obj, Object, ObjectMeta, Resource, defaults};

flat!(Endpoints core_v1::Endpoints, ENDPOINTS);
flat!(EndpointSlice discovery_v1::EndpointSlice, ENDPOINT_SLICE);

impl Strategy for core_v1::Endpoints {
    fn apply_defaults(object: &mut Endpoints) {
        defaults::fill_shared(&mut object.spec);
    }

    fn validate(object: &Endpoints, errors: &mut Vec<FieldError>) {
        service::endpoints(&object.spec, errors);
    }
}

impl Strategy for discovery_v1::EndpointSlice {
    fn apply_defaults(object: &mut EndpointSlice) {
        defaults::fill_shared(&mut object.spec);
    }

    fn validate(object: &EndpointSlice, errors: &mut Vec<FieldError>) {
        service::slice(&object.spec, errors);
    }

    fn validate_update(new: &EndpointSlice, old: &EndpointSlice, errors: &mut Vec<FieldError>) {
        if !Rc::ptr_eq(&new.spec, &old.spec) {
            service::slice(&new.spec, errors);
            slice_update(&new.spec, &old.spec, errors);
        }
    }
}
