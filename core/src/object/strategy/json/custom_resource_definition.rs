//! CustomResourceDefinition. Source: `apiextensions-apiserver/pkg/apis/apiextensions/validation`.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use serde_json::{Value, json};

use super::JsonStrategy;
use super::fields::{Errors, list, required, text};
use super::missing::Missing;
use super::webhook_client;
use crate::object::validation::path::{Go, Path};
use crate::object::validation::{names, one_of};
use crate::object::{Dynamic, FieldError, structural};

impl JsonStrategy for CustomResourceDefinition {
    fn defaults(m: &mut Missing<'_>) {
        let kind = m.text(&["spec", "names", "kind"]);
        if !kind.is_empty() {
            m.at(&["spec", "names"], "singular", || json!(kind.to_lowercase()));
            m.at(&["spec", "names"], "listKind", || json!(format!("{kind}List")));
        }
        m.at(&["spec"], "conversion", || json!({"strategy": "None"}));
        let service = ["spec", "conversion", "webhook", "clientConfig", "service"];
        if m.has(&service) {
            m.at(&service, "port", || json!(443));
        }
    }

    fn validate(d: &Dynamic, errors: &mut Errors) {
        let (plural, group) = (text(&d.body, &["spec", "names", "plural"]), text(&d.body, &["spec", "group"]));
        let name = d.meta.name.as_deref().unwrap_or("");
        if name != format!("{plural}.{group}") {
            errors.push(FieldError::invalid("metadata.name", name, "must be spec.names.plural+\".\"+spec.group"));
        }
        if group.is_empty() {
            errors.push(FieldError::required("spec.group", ""));
        } else if !group.contains('.') {
            errors.push(FieldError::invalid("spec.group", group, "should be a domain with at least one dot"));
        }
        let scope = text(&d.body, &["spec", "scope"]);
        one_of(scope, &["Cluster", "Namespaced"], &Path::Root("spec").field("scope"), errors);
        for field in ["plural", "singular", "kind", "listKind"] {
            required(&d.body, &["spec", "names", field], errors);
        }
        let versions = list(&d.body, &["spec", "versions"]);
        for (index, version) in versions.iter().enumerate() {
            let at = format!("spec.versions[{index}].schema.openAPIV3Schema");
            match version.pointer("/schema/openAPIV3Schema") {
                Some(schema) => structural::check(schema, &at, errors),
                None => errors.push(FieldError::required(at, "schemas are required")),
            }
        }
        let conversion = d.body.get("spec").and_then(|spec| spec.get("conversion"));
        if let Some(conversion) = conversion.filter(|conversion| !conversion.is_null()) {
            validate_conversion(conversion, &Path::Root("spec").field("conversion"), errors);
        }
        let stored = versions.iter().filter(|v| v.get("storage") == Some(&Value::Bool(true))).count();
        if stored != 1 {
            let shown = Go(Value::Array(versions.to_vec()).to_string());
            errors.push(FieldError::invalid(
                "spec.versions",
                shown,
                "must have exactly one version marked as storage version",
            ));
        }
    }

    fn validate_update(new: &Dynamic, old: &Dynamic, errors: &mut Errors) {
        let spec = |d: &Dynamic| d.body.get("spec").cloned().unwrap_or_default();
        let (now, was) = (spec(new), spec(old));
        for path in ["/group", "/scope", "/names/kind", "/names/plural"] {
            if now.pointer(path) != was.pointer(path) {
                let field = format!("spec{}", path.replace('/', "."));
                let shown = now.pointer(path).and_then(Value::as_str).unwrap_or("");
                errors.push(FieldError::invalid(field, shown, "field is immutable"));
            }
        }
    }
}

/// `validateCustomResourceConversion`. Errors name fields as upstream's internal type does.
fn validate_conversion(conversion: &Value, at: &Path<'_>, errors: &mut Errors) {
    let strategy = conversion["strategy"].as_str().unwrap_or_default();
    match strategy {
        "" => errors.push(FieldError::required(at.field("strategy"), "")),
        strategy => one_of(strategy, &["None", "Webhook"], &at.field("strategy"), errors),
    }
    let given = |value: &'_ Value| !value.is_null();
    let webhook = &conversion["webhook"];
    let (client, versions) = (&webhook["clientConfig"], webhook["conversionReviewVersions"].as_array());
    let versions = versions.map_or(&[][..], Vec::as_slice);
    let (client_at, versions_at) = (&at.field("webhookClientConfig"), &at.field("conversionReviewVersions"));
    if strategy == "Webhook" {
        match given(client) {
            true => webhook_client::validate(client, client_at, errors),
            false => errors.push(FieldError::required(client_at, "required when strategy is set to Webhook")),
        }
        return validate_review_versions(versions, versions_at, errors);
    }
    let why = "should not be set when strategy is not set to Webhook";
    if given(client) {
        errors.push(FieldError::forbidden(client_at, why));
    }
    if !versions.is_empty() {
        errors.push(FieldError::forbidden(versions_at, why));
    }
}

/// `validateConversionReviewVersions`.
fn validate_review_versions(versions: &[Value], at: &Path<'_>, errors: &mut Errors) {
    if versions.is_empty() {
        return errors.push(FieldError::required(at, ""));
    }
    for (index, version) in versions.iter().enumerate() {
        let text = version.as_str().unwrap_or_default();
        if versions[..index].contains(version) {
            errors.push(FieldError::invalid(at.index(index), text, "duplicate version"));
            continue;
        }
        errors.extend(names::label_1035(text).into_iter().map(|why| FieldError::invalid(at.index(index), text, why)));
    }
    if !versions.iter().any(|version| version == "v1" || version == "v1beta1") {
        let shown = Go(Value::Array(versions.to_vec()).to_string());
        errors.push(FieldError::invalid(at, shown, "must include at least one of v1, v1beta1"));
    }
}
