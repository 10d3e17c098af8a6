//! Role and ClusterRole. Source: `pkg/apis/rbac/validation`.

use k8s_openapi::api::rbac::v1::{ClusterRole, Role};
use serde_json::Value;

use super::JsonStrategy;
use super::fields::{Errors, list, selector};
use crate::object::validation::names::{self, Wrongs};
use crate::object::validation::path::{Go, Path};
use crate::object::{Dynamic, FieldError};

impl JsonStrategy for Role {
    const NAME: fn(&str) -> Wrongs = names::path_segment;

    fn validate(d: &Dynamic, errors: &mut Errors) {
        rules(d, true, errors);
    }
}

impl JsonStrategy for ClusterRole {
    const NAME: fn(&str) -> Wrongs = names::path_segment;

    fn validate(d: &Dynamic, errors: &mut Errors) {
        rules(d, false, errors);
        if d.body.get("aggregationRule").is_none_or(Value::is_null) {
            return;
        }
        let (root, all) = (Path::Root("aggregationRule"), list(&d.body, &["aggregationRule", "clusterRoleSelectors"]));
        let at = root.field("clusterRoleSelectors");
        if all.is_empty() {
            let detail = "at least one clusterRoleSelector required if aggregationRule is non-nil";
            errors.push(FieldError::required(at, detail));
        }
        for (i, value) in all.iter().enumerate() {
            selector(value, &at.index(i), errors);
        }
    }
}

fn rules(d: &Dynamic, namespaced: bool, errors: &mut Errors) {
    let at = &Path::Root("rules");
    for (i, rule) in list(&d.body, &["rules"]).iter().enumerate() {
        let at = at.index(i);
        let count = |field: &str| rule.get(field).and_then(Value::as_array).map_or(0, Vec::len);
        if count("verbs") == 0 {
            errors.push(FieldError::required(at.field("verbs"), "verbs must contain at least one value"));
        }
        if count("nonResourceURLs") > 0 {
            if namespaced {
                let urls = Go(rule["nonResourceURLs"].to_string());
                let detail = "namespaced rules cannot apply to non-resource URLs";
                errors.push(FieldError::invalid(at.field("nonResourceURLs"), urls, detail));
            }
            continue;
        }
        if count("apiGroups") == 0 {
            let detail = "resource rules must supply at least one api group";
            errors.push(FieldError::required(at.field("apiGroups"), detail));
        }
        if count("resources") == 0 {
            let detail = "resource rules must supply at least one resource";
            errors.push(FieldError::required(at.field("resources"), detail));
        }
    }
}
