//! ResourceQuota. Source: `pkg/apis/core/validation` (`ValidateResourceQuotaSpec`).

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::ResourceQuota;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use serde_json::Value;

use super::JsonStrategy;
use super::fields::{Errors, at, list};
use super::missing::Missing;
use crate::object::validation::path::{Go, Path};
use crate::object::validation::resources;
use crate::object::{Dynamic, FieldError};

const SCOPES: &[&str] = &[
    "BestEffort",
    "CrossNamespacePodAffinity",
    "NotBestEffort",
    "NotTerminating",
    "PriorityClass",
    "Terminating",
    "VolumeAttributesClass",
];

impl JsonStrategy for ResourceQuota {
    fn defaults(m: &mut Missing<'_>) {
        m.round(&["spec", "hard"]);
    }

    fn validate(d: &Dynamic, errors: &mut Errors) {
        let root = &Path::Root("spec");
        let hard = at(&d.body, &["spec", "hard"]).and_then(Value::as_object);
        for (name, amount) in hard.into_iter().flatten() {
            let at = root.field("hard");
            let at = at.key(name);
            resources::quota_resource(name, &at, errors);
            resources::quantity(name, &Quantity(amount.as_str().unwrap_or("").to_owned()), &at, errors);
        }
        let scopes: Vec<String> =
            list(&d.body, &["spec", "scopes"]).iter().filter_map(|s| s.as_str().map(str::to_owned)).collect();
        let names = || hard.into_iter().flatten().map(|(name, _)| name.as_str());
        let path = root.field("scopes");
        for scope in &scopes {
            if !SCOPES.contains(&scope.as_str()) {
                errors.push(FieldError::invalid(path, Go::strings(&scopes), "unsupported scope"));
            }
            for _ in names().filter(|name| !scope_counts(scope, name)) {
                let detail = "unsupported scope applied to resource";
                errors.push(FieldError::invalid(path, Go::strings(&scopes), detail));
            }
        }
        let has = |scope: &str| scopes.iter().any(|s| s == scope);
        for pair in [["BestEffort", "NotBestEffort"], ["Terminating", "NotTerminating"]] {
            if pair.iter().all(|scope| has(scope)) {
                errors.push(FieldError::invalid(path, Go::strings(&scopes), "conflicting scopes"));
            }
        }
        let path = root.field("scopeSelector");
        let path = path.field("matchExpressions");
        for e in list(&d.body, &["spec", "scopeSelector", "matchExpressions"]) {
            scope_requirement(e, &path, errors);
        }
    }

    fn validate_update(new: &Dynamic, old: &Dynamic, errors: &mut Errors) {
        let scopes = |d: &Dynamic| {
            let set = list(&d.body, &["spec", "scopes"]).iter().filter_map(Value::as_str);
            set.map(str::to_owned).collect::<BTreeSet<_>>()
        };
        if scopes(new) != scopes(old) {
            let shown = Go(Value::Array(list(&new.body, &["spec", "scopes"]).to_vec()).to_string());
            errors.push(FieldError::invalid("spec.scopes", shown, "field is immutable"));
        }
    }
}

/// `IsResourceQuotaScopeValidForResource`, for the resources that Kubernetes names.
fn scope_counts(scope: &str, resource: &str) -> bool {
    if resource.contains('/') {
        return true;
    }
    let of_pods = resource == "pods"
        || ["cpu", "memory", "ephemeral-storage"].iter().any(|r| {
            resource == *r
                || resource.strip_prefix("requests.") == Some(r)
                || resource.strip_prefix("limits.") == Some(r)
        });
    match scope {
        "BestEffort" => resource == "pods",
        "VolumeAttributesClass" => matches!(resource, "persistentvolumeclaims" | "requests.storage"),
        _ => of_pods || resource.starts_with("requests.hugepages-") || resource.starts_with("hugepages-"),
    }
}

fn scope_requirement(e: &Value, at: &Path<'_>, errors: &mut Errors) {
    let get = |field: &str| e.get(field).and_then(Value::as_str).unwrap_or("");
    let (scope, operator) = (get("scopeName"), get("operator"));
    let values = e.get("values").and_then(Value::as_array).map_or(0, Vec::len);
    if !SCOPES.contains(&scope) {
        errors.push(FieldError::invalid(at.field("scopeName"), scope, "unsupported scope"));
    }
    if !matches!(scope, "PriorityClass" | "VolumeAttributesClass") && operator != "Exists" && SCOPES.contains(&scope) {
        let detail = "must be 'Exists' when scope is any of ResourceQuotaScopeTerminating, \
                      ResourceQuotaScopeNotTerminating, ResourceQuotaScopeBestEffort, ResourceQuotaScopeNotBestEffort \
                      or ResourceQuotaScopeCrossNamespacePodAffinity";
        errors.push(FieldError::invalid(at.field("operator"), operator, detail));
    }
    match (operator, values) {
        ("In" | "NotIn", 0) => {
            let detail = "must be at least one value when `operator` is 'In' or 'NotIn' for scope selector";
            errors.push(FieldError::required(at.field("values"), detail));
        }
        ("Exists" | "DoesNotExist", n) if n > 0 => {
            let detail = "must be no value when `operator` is 'Exist' or 'DoesNotExist' for scope selector";
            errors.push(FieldError::invalid(at.field("values"), Go(e["values"].to_string()), detail));
        }
        ("In" | "NotIn" | "Exists" | "DoesNotExist", _) => {}
        (other, _) => errors.push(FieldError::invalid(at.field("operator"), other, "not a valid selector operator")),
    }
}
