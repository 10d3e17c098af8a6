//! ValidatingAdmissionPolicy, MutatingAdmissionPolicy and their bindings.
//!
//! Source: kubernetes `pkg/apis/admissionregistration/{v1/defaults.go,validation}`.

use k8s_openapi::api::admissionregistration::v1::{
    MutatingAdmissionPolicy, MutatingAdmissionPolicyBinding, ValidatingAdmissionPolicy,
    ValidatingAdmissionPolicyBinding,
};
use serde_json::{Value, json};

use super::JsonStrategy;
use super::fields::{Errors, at, list, selector, text};
use super::missing::Missing;
use crate::object::validation::path::{Go, Path};
use crate::object::{Dynamic, FieldError, cel};

/// What a mutating policy may be about: nothing is left to change of what is deleted.
const OPERATIONS: [&str; 4] = ["*", "CONNECT", "CREATE", "UPDATE"];

/// Sets the defaults of `matchConstraints` or `matchResources`.
fn resources(m: &mut Missing<'_>, field: &'static str) {
    let at = ["spec", field];
    if !m.has(&at) {
        return;
    }
    m.at(&at, "matchPolicy", || json!("Equivalent"));
    m.at(&at, "namespaceSelector", || json!({}));
    m.at(&at, "objectSelector", || json!({}));
    for rules in ["resourceRules", "excludeResourceRules"] {
        for i in 0..m.list(&["spec", field, rules]).len() {
            m.at(&["spec", field, rules, &i.to_string()], "scope", || json!("*"));
        }
    }
}

/// Checks `matchConstraints` or `matchResources`.
fn check_resources(d: &Dynamic, field: &'static str, errors: &mut Errors) {
    let Some(resources) = at(&d.body, &["spec", field]) else { return };
    let root = Path::Root("spec");
    let path = root.field(field);
    for name in ["namespaceSelector", "objectSelector"] {
        selector(resources.get(name).unwrap_or(&Value::Null), &path.field(name), errors);
    }
}

/// Checks the `matchConstraints` of a policy.
fn check_constraints(d: &Dynamic, errors: &mut Errors) {
    if at(&d.body, &["spec", "matchConstraints"]).is_none_or(Value::is_null) {
        errors.push(FieldError::required("spec.matchConstraints", ""));
    } else if list(&d.body, &["spec", "matchConstraints", "resourceRules"]).is_empty() {
        errors.push(FieldError::required("spec.matchConstraints.resourceRules", ""));
    }
    check_resources(d, "matchConstraints", errors);
}

/// Checks what bindings of both kinds have: `policyName`, `matchResources` and `paramRef`.
fn check_binding(d: &Dynamic, errors: &mut Errors) {
    if text(&d.body, &["spec", "policyName"]).is_empty() {
        errors.push(FieldError::required("spec.policyName", ""));
    }
    check_resources(d, "matchResources", errors);
    if let Some(param) = at(&d.body, &["spec", "paramRef"]) {
        let has = |name: &str| param.get(name).is_some_and(|v| !v.is_null() && v != "");
        if has("name") == has("selector") {
            let why = "one of name or selector must be specified";
            errors.push(FieldError::required("spec.paramRef", why));
        }
    }
}

impl JsonStrategy for MutatingAdmissionPolicy {
    fn defaults(m: &mut Missing<'_>) {
        m.at(&["spec"], "failurePolicy", || json!("Fail"));
        m.at(&["spec"], "reinvocationPolicy", || json!("Never"));
        resources(m, "matchConstraints");
    }

    fn validate(d: &Dynamic, errors: &mut Errors) {
        check_constraints(d, errors);
        for (rule, of) in list(&d.body, &["spec", "matchConstraints", "resourceRules"]).iter().enumerate() {
            let operations = of.get("operations").and_then(Value::as_array);
            for (index, operation) in operations.into_iter().flatten().enumerate() {
                let name = operation.as_str().unwrap_or_default();
                if !OPERATIONS.contains(&name) {
                    let at = format!("spec.matchConstraints.resourceRules[{rule}].operations[{index}]");
                    errors.push(FieldError::not_supported(at, name, &OPERATIONS));
                }
            }
        }
        let policy = text(&d.body, &["spec", "reinvocationPolicy"]);
        if !["Never", "IfNeeded"].contains(&policy) {
            errors.push(FieldError::not_supported("spec.reinvocationPolicy", policy, &["IfNeeded", "Never"]));
        }
        if list(&d.body, &["spec", "mutations"]).is_empty() {
            errors.push(FieldError::required("spec.mutations", "mutations must contain at least one item"));
        }
        cel::mutating_policy(d.body.get("spec").unwrap_or(&Value::Null), errors);
    }
}

impl JsonStrategy for MutatingAdmissionPolicyBinding {
    fn defaults(m: &mut Missing<'_>) {
        resources(m, "matchResources");
    }

    fn validate(d: &Dynamic, errors: &mut Errors) {
        check_binding(d, errors);
    }
}

impl JsonStrategy for ValidatingAdmissionPolicy {
    fn defaults(m: &mut Missing<'_>) {
        m.at(&["spec"], "failurePolicy", || json!("Fail"));
        resources(m, "matchConstraints");
    }

    fn validate(d: &Dynamic, errors: &mut Errors) {
        check_constraints(d, errors);
        let is_empty = |field| list(&d.body, &["spec", field]).is_empty();
        if is_empty("validations") && is_empty("auditAnnotations") {
            let why = "validations or auditAnnotations must contain at least one item";
            errors.push(FieldError::required("spec.validations", why));
            errors.push(FieldError::required("spec.auditAnnotations", why));
        }
        cel::policy(d.body.get("spec").unwrap_or(&Value::Null), errors);
    }
}

impl JsonStrategy for ValidatingAdmissionPolicyBinding {
    fn defaults(m: &mut Missing<'_>) {
        resources(m, "matchResources");
    }

    fn validate(d: &Dynamic, errors: &mut Errors) {
        let actions = list(&d.body, &["spec", "validationActions"]);
        if actions.is_empty() {
            errors.push(FieldError::required("spec.validationActions", "at least one validation action is required"));
        }
        for (index, action) in actions.iter().enumerate() {
            let name = action.as_str().unwrap_or_default();
            if !["Audit", "Deny", "Warn"].contains(&name) {
                let at = format!("spec.validationActions[{index}]");
                errors.push(FieldError::not_supported(at, name, &["Audit", "Deny", "Warn"]));
            } else if actions[..index].contains(action) {
                errors.push(FieldError::duplicate(format!("spec.validationActions[{index}]"), name));
            }
        }
        if actions.contains(&json!("Deny")) && actions.contains(&json!("Warn")) {
            let why = "must not contain both Deny and Warn (repeating the same validation failure information in the \
                       API response and headers serves no purpose)";
            errors.push(FieldError::invalid(
                "spec.validationActions",
                Go(Value::Array(actions.to_vec()).to_string()),
                why,
            ));
        }
        check_binding(d, errors);
    }
}
