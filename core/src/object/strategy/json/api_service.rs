//! APIService. Source: `kube-aggregator/pkg/apis/apiregistration/validation`, `pkg/registry/apiservice`.

use k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1::APIService;
use serde_json::{Value, json};

use super::JsonStrategy;
use super::fields::{Errors, at, number, text};
use super::missing::Missing;
use crate::object::validation::names::{self, Wrongs};
use crate::object::{Dynamic, FieldError};
use std::rc::Rc;

impl JsonStrategy for APIService {
    const NAME: fn(&str) -> Wrongs = names::path_segment;

    fn defaults(m: &mut Missing<'_>) {
        if m.has(&["spec", "service"]) {
            m.at(&["spec", "service"], "port", || json!(443));
        }
    }

    /// What this server serves itself is available at once.
    fn prepare_for_create(object: &mut Dynamic) {
        let is_local = at(&object.body, &["spec", "service"]).is_none_or(Value::is_null);
        let now = &object.meta.creation_timestamp;
        object.status = is_local.then(|| {
            Rc::new(json!({"conditions": [{"type": "Available", "status": "True", "reason": "Local",
                "message": "Local APIServices are always available", "lastTransitionTime": now}]}))
        });
    }

    fn validate(d: &Dynamic, errors: &mut Errors) {
        let (group, version) = (text(&d.body, &["spec", "group"]), text(&d.body, &["spec", "version"]));
        let (name, required) = (d.meta.name.as_deref().unwrap_or(""), format!("{version}.{group}"));
        if name != required {
            let why = format!("must be `spec.version+\".\"+spec.group`: {required:?}");
            errors.push(FieldError::invalid("metadata.name", name, why));
        }
        if group.is_empty() && version != "v1" {
            let why = "only v1 may have an empty group and it better be legacy kube";
            errors.push(FieldError::required("spec.group", why));
        }
        let wrongs = |field: &str, value: &str, wrongs: Wrongs| {
            let errors = wrongs.into_iter().map(|why| FieldError::invalid(field, value, why));
            errors.collect::<Vec<_>>()
        };
        if !group.is_empty() {
            errors.extend(wrongs("spec.group", group, names::subdomain(group)));
        }
        errors.extend(wrongs("spec.version", version, names::label_1035(version)));
        for (field, most) in [("groupPriorityMinimum", 20000), ("versionPriority", 1000)] {
            let priority = number(&d.body, &["spec", field]).unwrap_or(0);
            if !(1..=most).contains(&priority) {
                let why = format!("must be positive and less than {most}");
                errors.push(FieldError::invalid(format!("spec.{field}"), priority, why));
            }
        }
        let skips = at(&d.body, &["spec", "insecureSkipTLSVerify"]) == Some(&Value::Bool(true));
        let ca = super::fields::decoded_len(text(&d.body, &["spec", "caBundle"]));
        if at(&d.body, &["spec", "service"]).is_none_or(Value::is_null) {
            if ca > 0 {
                let why = "local APIServices may not have a caBundle";
                errors.push(FieldError::invalid("spec.caBundle", format!("{ca} bytes"), why));
            }
            if skips {
                let why = "local APIServices may not have insecureSkipTLSVerify";
                errors.push(FieldError::invalid("spec.insecureSkipTLSVerify", true, why));
            }
            return;
        }
        for field in ["namespace", "name"] {
            if text(&d.body, &["spec", "service", field]).is_empty() {
                errors.push(FieldError::required(format!("spec.service.{field}"), ""));
            }
        }
        if skips && ca > 0 {
            let why = "may not be true if caBundle is present";
            errors.push(FieldError::invalid("spec.insecureSkipTLSVerify", true, why));
        }
    }
}
