//! RuntimeClass. Source: `pkg/apis/node/validation` (`ValidateRuntimeClass`).

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::ResourceRequirements;
use k8s_openapi::api::node::v1::{Overhead, RuntimeClass, Scheduling};

use super::JsonStrategy;
use super::fields::{Errors, text, typed};
use crate::object::validation::path::{Go, Path};
use crate::object::validation::resources::{self, Of};
use crate::object::validation::{meta, names, push_all, scheduling};
use crate::object::{Dynamic, FieldError};

impl JsonStrategy for RuntimeClass {
    fn validate(d: &Dynamic, errors: &mut Errors) {
        let handler = text(&d.body, &["handler"]);
        push_all(errors, &Path::Root("handler"), handler, names::label(handler));
        if d.body.get("overhead").is_some_and(|o| !o.is_null()) {
            typed(d, "overhead", errors, |o: &Overhead, e| {
                let limits = ResourceRequirements { limits: o.pod_fixed.clone(), ..ResourceRequirements::default() };
                resources::requirements(&limits, Of::Container, &BTreeSet::new(), &Path::Root("overhead"), e);
            });
        }
        if d.body.get("scheduling").is_some_and(|s| !s.is_null()) {
            typed(d, "scheduling", errors, |s: &Scheduling, e| {
                let at = &Path::Root("scheduling");
                meta::labels(s.node_selector.as_ref(), &at.field("nodeSelector"), e);
                let (path, list) = (at.field("tolerations"), s.tolerations.as_deref().unwrap_or_default());
                scheduling::tolerations(list, &path, e);
                for (i, t) in list.iter().enumerate().filter(|(i, t)| list[..*i].contains(t)) {
                    let shown = Go(serde_json::to_string(t).unwrap_or_default());
                    e.push(FieldError::duplicate(path.index(i), shown));
                }
            });
        }
    }

    fn validate_update(new: &Dynamic, old: &Dynamic, errors: &mut Errors) {
        let handler = |d: &Dynamic| text(&d.body, &["handler"]).to_owned();
        let show = |h: &String| Go(format!("{h:?}"));
        meta::immutable(&handler(new), &handler(old), &Path::Root("handler"), show, errors);
    }
}
