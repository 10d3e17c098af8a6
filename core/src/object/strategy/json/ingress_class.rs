//! IngressClass.

use k8s_openapi::api::networking::v1::IngressClass;
use serde_json::json;

use super::JsonStrategy;
use super::fields::{Errors, text, typed_or_none};
use super::missing::Missing;
use crate::object::Dynamic;
use crate::object::validation::path::{Go, Path};
use crate::object::validation::{meta, networking};

impl JsonStrategy for IngressClass {
    fn defaults(m: &mut Missing<'_>) {
        if m.has(&["spec", "parameters"]) {
            m.at(&["spec", "parameters"], "scope", || json!("Cluster"));
        }
    }

    fn validate(d: &Dynamic, errors: &mut Errors) {
        typed_or_none(d, errors, networking::class);
    }

    fn validate_update(new: &Dynamic, old: &Dynamic, errors: &mut Errors) {
        let controller = |d: &Dynamic| text(&d.body, &["spec", "controller"]).to_owned();
        let show = |c: &String| Go(format!("{c:?}"));
        let root = &Path::Root("spec");
        meta::immutable(&controller(new), &controller(old), &root.field("controller"), show, errors);
    }
}
