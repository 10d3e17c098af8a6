//! RoleBinding and ClusterRoleBinding. Source: `pkg/apis/rbac/validation`.

use k8s_openapi::api::rbac::v1::{ClusterRoleBinding, RoleBinding};
use serde_json::{Value, json};

use super::JsonStrategy;
use super::fields::{Errors, list, required, text};
use super::missing::Missing;
use crate::auth::rbac::GROUP;
use crate::object::validation::names::{self, Wrongs};
use crate::object::validation::one_of;
use crate::object::validation::path::{Go, Path};
use crate::object::{Dynamic, FieldError};

impl JsonStrategy for RoleBinding {
    const NAME: fn(&str) -> Wrongs = names::path_segment;

    fn defaults(m: &mut Missing<'_>) {
        groups(m);
    }

    fn validate(d: &Dynamic, errors: &mut Errors) {
        binding(d, true, errors);
    }

    fn validate_update(new: &Dynamic, old: &Dynamic, errors: &mut Errors) {
        fixed_role(new, old, errors);
    }
}

impl JsonStrategy for ClusterRoleBinding {
    const NAME: fn(&str) -> Wrongs = names::path_segment;

    fn defaults(m: &mut Missing<'_>) {
        groups(m);
    }

    fn validate(d: &Dynamic, errors: &mut Errors) {
        binding(d, false, errors);
    }

    fn validate_update(new: &Dynamic, old: &Dynamic, errors: &mut Errors) {
        fixed_role(new, old, errors);
    }
}

/// Sets the default API groups of the role and of the subjects.
fn groups(m: &mut Missing<'_>) {
    m.at(&["roleRef"], "apiGroup", || json!(GROUP));
    for i in 0..m.list(&["subjects"]).len() {
        let i = i.to_string();
        if matches!(m.text(&["subjects", &i, "kind"]), "User" | "Group") {
            m.at(&["subjects", &i], "apiGroup", || json!(GROUP));
        }
    }
}

fn binding(d: &Dynamic, namespaced: bool, errors: &mut Errors) {
    let group = text(&d.body, &["roleRef", "apiGroup"]);
    one_of(group, &[GROUP], &Path::Root("roleRef").field("apiGroup"), errors);
    let kinds: &[&str] = if namespaced { &["Role", "ClusterRole"] } else { &["ClusterRole"] };
    one_of(text(&d.body, &["roleRef", "kind"]), kinds, &Path::Root("roleRef").field("kind"), errors);
    required(&d.body, &["roleRef", "name"], errors);
    let at = &Path::Root("subjects");
    for (i, subject) in list(&d.body, &["subjects"]).iter().enumerate() {
        let at = at.index(i);
        let get = |field: &str| subject.get(field).and_then(Value::as_str).unwrap_or("");
        if get("name").is_empty() {
            errors.push(FieldError::required(at.field("name"), ""));
        }
        one_of(get("kind"), &["Group", "ServiceAccount", "User"], &at.field("kind"), errors);
        if get("kind") == "ServiceAccount" && get("namespace").is_empty() && !namespaced {
            errors.push(FieldError::required(at.field("namespace"), ""));
        }
    }
}

/// Checks that a binding keeps its role.
fn fixed_role(new: &Dynamic, old: &Dynamic, errors: &mut Errors) {
    if new.body.get("roleRef") != old.body.get("roleRef") {
        let shown = Go(new.body.get("roleRef").map(ToString::to_string).unwrap_or_default());
        errors.push(FieldError::invalid("roleRef", shown, "cannot change roleRef"));
    }
}
