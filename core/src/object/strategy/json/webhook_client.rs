//! The `clientConfig` of a webhook: a URL or a Service.
//!
//! Source: kubernetes `staging/src/k8s.io/apiserver/pkg/util/webhook/validation.go`.

use serde_json::Value;

use super::fields::Errors;
use crate::object::FieldError;
use crate::object::validation::names;
use crate::object::validation::path::Path;

const FORM: &str = "desired format: https://host[/path]";

/// Checks that it names one of both.
pub(super) fn validate(client: &Value, at: &Path<'_>, errors: &mut Errors) {
    let given = |name: &str| client.get(name).filter(|value| !value.is_null());
    match (given("url"), given("service")) {
        (Some(url), None) => validate_url(url.as_str().unwrap_or_default(), &at.field("url"), errors),
        (None, Some(service)) => validate_service(service, &at.field("service"), errors),
        (None, None) | (Some(_), Some(_)) => {
            errors.push(FieldError::required(at, "exactly one of url or service is required"));
        }
    }
}

/// `ValidateWebhookURL`.
fn validate_url(url: &str, at: &Path<'_>, errors: &mut Errors) {
    let (rest, fragment) = url.split_once('#').unwrap_or((url, ""));
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (scheme, rest) = rest.split_once(':').unwrap_or(("", rest));
    let authority = rest.strip_prefix("//").and_then(|rest| rest.split('/').next()).unwrap_or_default();
    let (user, host) = authority.rsplit_once('@').unwrap_or(("", authority));
    if !scheme.eq_ignore_ascii_case("https") {
        let why = format!("'https' is the only allowed URL scheme; {FORM}");
        errors.push(FieldError::invalid(at, scheme.to_ascii_lowercase(), why));
    }
    if host.is_empty() {
        errors.push(FieldError::invalid(at, "", format!("host must be specified; {FORM}")));
    }
    for (part, why) in [
        (user, "user information is not permitted in the URL"),
        (fragment, "fragments are not permitted in the URL"),
        (query, "query parameters are not permitted in the URL"),
    ] {
        if !part.is_empty() {
            errors.push(FieldError::invalid(at, part, why));
        }
    }
}

/// `ValidateWebhookService`.
fn validate_service(service: &Value, at: &Path<'_>, errors: &mut Errors) {
    let text = |name: &str| service[name].as_str().unwrap_or_default();
    for field in ["name", "namespace"] {
        if text(field).is_empty() {
            errors.push(FieldError::required(at.field(field), ""));
        }
    }
    let port = service["port"].as_i64().and_then(|port| i32::try_from(port).ok()).unwrap_or(0);
    if !names::is_port(port) {
        let why = "port is not valid: must be between 1 and 65535, inclusive";
        errors.push(FieldError::invalid(at.field("port"), port, why));
    }
    let (path, at) = (text("path"), &at.field("path"));
    if matches!(path, "" | "/") {
        return;
    }
    if path == "//" {
        return errors.push(FieldError::invalid(at, path, "segment[0] may not be empty"));
    }
    if !path.starts_with('/') {
        errors.push(FieldError::invalid(at, path, "must start with a '/'"));
    }
    // As upstream, which takes the first character for the slash.
    let mut rest = path.chars();
    rest.next();
    let rest = rest.as_str();
    for (index, step) in rest.strip_suffix('/').unwrap_or(rest).split('/').enumerate() {
        if step.is_empty() {
            errors.push(FieldError::invalid(at, path, format!("segment[{index}] may not be empty")));
            continue;
        }
        for wrong in names::subdomain(step) {
            errors.push(FieldError::invalid(at, path, format!("segment[{index}]: {wrong}")));
        }
    }
}
