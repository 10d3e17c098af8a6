//! PodTemplate.

use std::rc::Rc;

use k8s_openapi::api::core::v1::{PodSpec, PodTemplate, PodTemplateSpec};
use serde::Deserialize;

use super::JsonStrategy;
use super::fields::{Errors, typed};
use crate::object::Dynamic;
use crate::object::defaults::Defaults;
use crate::object::validation::path::Path;
use crate::object::validation::workload;

impl JsonStrategy for PodTemplate {
    fn apply_defaults(object: &mut Dynamic) {
        // A template that cannot be decoded is left as it is; validation refuses it.
        let Some(Ok(mut template)) = object.body.get("template").map(PodTemplateSpec::deserialize) else { return };
        if template.lacks() {
            template.fill();
            let value = serde_json::to_value(&template).expect("k8s-openapi types serialise");
            Rc::make_mut(&mut object.body).insert("template".to_owned(), value);
        }
    }

    fn validate(d: &Dynamic, errors: &mut Errors) {
        typed(d, "template", errors, |t: &PodTemplateSpec, e| {
            let none = PodSpec::default();
            let pod = t.spec.as_ref().unwrap_or(&none);
            workload::template(t.metadata.as_ref(), pod, &Path::Root("template"), e);
        });
    }
}
