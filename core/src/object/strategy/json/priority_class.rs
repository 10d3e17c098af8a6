//! PriorityClass. Source: `pkg/apis/scheduling/validation`.

use k8s_openapi::api::scheduling::v1::PriorityClass;
use serde_json::json;

use super::JsonStrategy;
use super::fields::{Errors, number, text};
use super::missing::Missing;
use crate::object::validation::one_of;
use crate::object::validation::path::Path;
use crate::object::{Dynamic, FieldError};

/// The highest value of a PriorityClass that users may create.
const HIGHEST_USER_PRIORITY: i64 = 1_000_000_000;

impl JsonStrategy for PriorityClass {
    fn defaults(m: &mut Missing<'_>) {
        m.at(&[], "preemptionPolicy", || json!("PreemptLowerPriority"));
    }

    fn validate(d: &Dynamic, errors: &mut Errors) {
        let name = d.meta.name.as_deref().unwrap_or("");
        let system = ["system-node-critical", "system-cluster-critical"].contains(&name);
        if name.starts_with("system-") && !system {
            let detail = "priority class names with 'system-' prefix are reserved for system use only. error: \
                          this is not a known system priority class";
            errors.push(FieldError::forbidden("metadata.name", detail));
        } else if !system && number(&d.body, &["value"]).unwrap_or(0) > HIGHEST_USER_PRIORITY {
            let detail = format!("maximum allowed value of a user defined priority is {HIGHEST_USER_PRIORITY}");
            errors.push(FieldError::forbidden("value", detail));
        }
        match text(&d.body, &["preemptionPolicy"]) {
            "" => {}
            policy => one_of(policy, &["PreemptLowerPriority", "Never"], &Path::Root("preemptionPolicy"), errors),
        }
    }

    fn validate_update(new: &Dynamic, old: &Dynamic, errors: &mut Errors) {
        for field in ["value", "preemptionPolicy"] {
            if new.body.get(field) != old.body.get(field) {
                errors.push(FieldError::forbidden(field, "may not be changed in an update."));
            }
        }
    }
}
