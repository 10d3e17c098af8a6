//! Ingress.

use k8s_openapi::api::networking::v1::Ingress;

use super::JsonStrategy;
use super::fields::{Errors, text, typed_or_none};
use crate::object::Dynamic;
use crate::object::validation::networking;

impl JsonStrategy for Ingress {
    fn validate(d: &Dynamic, errors: &mut Errors) {
        typed_or_none(d, errors, networking::ingress);
    }

    fn validate_new(d: &Dynamic, errors: &mut Errors) {
        networking::class_given_twice(&d.meta, text(&d.body, &["spec", "ingressClassName"]), errors);
    }
}
