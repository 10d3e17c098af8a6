//! Validation of the sources of environment variables. Source: `pkg/apis/core/validation` (`ValidateEnv`,
//! `ValidateEnvFrom`), `pkg/apis/core/pods` (the fields that can be read).

use k8s_openapi::api::core::v1::{EnvFromSource, EnvVar, ObjectFieldSelector, ResourceFieldSelector};

use super::path::Path;
use super::{names, push_all};
use crate::object::{FieldError, Milli};

/// `ValidateEnv`.
pub(super) fn vars(list: &[EnvVar], at: &Path<'_>, errors: &mut Vec<FieldError>) {
    for (i, e) in list.iter().enumerate() {
        let at = at.index(i);
        if e.name.is_empty() {
            errors.push(FieldError::required(at.field("name"), ""));
        } else {
            push_all(errors, &at.field("name"), &e.name, names::env_name(&e.name));
        }
        value_from(e, &at.field("valueFrom"), errors);
    }
}

fn value_from(e: &EnvVar, at: &Path<'_>, errors: &mut Vec<FieldError>) {
    let Some(source) = &e.value_from else { return };
    if let Some(f) = &source.field_ref {
        field(f, ENV_FIELDS, &at.field("fieldRef"), errors);
    }
    if let Some(r) = &source.resource_field_ref {
        resource_field(r, false, &at.field("resourceFieldRef"), errors);
    }
    let keys = [
        ("configMapKeyRef", source.config_map_key_ref.as_ref().map(|r| (&r.name, &r.key))),
        ("secretKeyRef", source.secret_key_ref.as_ref().map(|r| (&r.name, &r.key))),
    ];
    for (field, reference) in keys {
        let Some((name, key)) = reference else { continue };
        let at = at.field(field);
        push_all(errors, &at.field("name"), name, names::subdomain(name));
        config_key(key, &at.field("key"), errors);
    }
    if let Some(f) = &source.file_key_ref {
        let at = at.field("fileKeyRef");
        config_key(&f.key, &at.field("key"), errors);
        if f.volume_name.is_empty() {
            errors.push(FieldError::required(at.field("volumeName"), ""));
        }
        if f.path.is_empty() {
            errors.push(FieldError::required(at.field("path"), ""));
        } else {
            super::volume::local_path(&f.path, &at.field("path"), errors);
        }
    }
    let given = [
        source.field_ref.is_some(),
        source.resource_field_ref.is_some(),
        source.config_map_key_ref.is_some(),
        source.secret_key_ref.is_some(),
        source.file_key_ref.is_some(),
    ];
    match given.iter().filter(|g| **g).count() {
        0 => errors.push(FieldError::invalid(
            at,
            "",
            "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`",
        )),
        _ if e.value.as_deref().is_some_and(|v| !v.is_empty()) => {
            errors.push(FieldError::invalid(at, "", "may not be specified when `value` is not empty"));
        }
        1 => {}
        _ => errors.push(FieldError::invalid(at, "", "may not have more than one field specified at a time")),
    }
}

fn config_key(key: &str, at: &Path<'_>, errors: &mut Vec<FieldError>) {
    if key.is_empty() {
        errors.push(FieldError::required(at, ""));
    } else {
        push_all(errors, at, key, names::config_key(key));
    }
}

/// `ValidateEnvFrom`.
pub(super) fn from(list: &[EnvFromSource], at: &Path<'_>, errors: &mut Vec<FieldError>) {
    for (i, e) in list.iter().enumerate() {
        let item = at.index(i);
        if let Some(prefix) = e.prefix.as_deref().filter(|p| !p.is_empty()) {
            push_all(errors, &item.field("prefix"), prefix, names::env_name(prefix));
        }
        let sources = [
            ("configMapRef", e.config_map_ref.as_ref().map(|r| &r.name)),
            ("secretRef", e.secret_ref.as_ref().map(|r| &r.name)),
        ];
        for (field, name) in sources {
            let Some(name) = name else { continue };
            let at = item.field(field);
            if name.is_empty() {
                errors.push(FieldError::required(at.field("name"), ""));
            } else {
                // A trailing dash is allowed, as in name prefixes (upstream's `NameIsDNSSubdomain` with `prefix`).
                let masked = name.strip_suffix('-').filter(|n| !n.is_empty()).map(|n| format!("{n}a"));
                push_all(errors, &at.field("name"), name, names::subdomain(masked.as_deref().unwrap_or(name)));
            }
        }
        match sources.iter().filter(|(_, n)| n.is_some()).count() {
            0 => errors.push(FieldError::invalid(at, "", "must specify one of: `configMapRef` or `secretRef`")),
            1 => {}
            _ => errors.push(FieldError::invalid(at, "", "may not have more than one field specified at a time")),
        }
    }
}

/// The pod fields that an environment variable can refer to, beside single labels and annotations.
const ENV_FIELDS: &[&str] = &[
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];
/// The pod fields that a file of a downward API volume can refer to.
pub(super) const FILE_FIELDS: &[&str] =
    &["metadata.annotations", "metadata.labels", "metadata.name", "metadata.namespace", "metadata.uid"];

/// `validateObjectFieldSelector`.
pub(super) fn field(f: &ObjectFieldSelector, known: &[&str], at: &Path<'_>, errors: &mut Vec<FieldError>) {
    let path = f.field_path.as_str();
    if f.api_version.as_deref().unwrap_or("").is_empty() {
        errors.push(FieldError::required(at.field("apiVersion"), ""));
        return;
    }
    if path.is_empty() {
        errors.push(FieldError::required(at.field("fieldPath"), ""));
        return;
    }
    let subscripted = path.strip_suffix("']").and_then(|p| p.split_once("['"));
    let convertible = match subscripted {
        Some((map, _)) => matches!(map, "metadata.annotations" | "metadata.labels"),
        None => {
            ENV_FIELDS.contains(&path)
                || FILE_FIELDS.contains(&path)
                || matches!(path, "spec.restartPolicy" | "spec.schedulerName" | "status.phase" | "spec.host")
        }
    };
    if !convertible {
        let why = match subscripted {
            Some((map, _)) => format!("field label does not support subscript: {map}"),
            None => format!("field label not supported: {path}"),
        };
        errors.push(FieldError::invalid(at.field("fieldPath"), path, format!("error converting fieldPath: {why}")));
        return;
    }
    match subscripted {
        Some(("metadata.annotations", key)) => push_all(errors, at, key, names::qualified(&key.to_lowercase())),
        Some((_, key)) => push_all(errors, at, key, names::qualified(key)),
        None if !known.contains(&path) => {
            errors.push(FieldError::not_supported(at.field("fieldPath"), path, known));
        }
        None => {}
    }
}

const RESOURCES: &[&str] = &[
    "limits.cpu",
    "limits.ephemeral-storage",
    "limits.memory",
    "requests.cpu",
    "requests.ephemeral-storage",
    "requests.memory",
];

/// `validateContainerResourceFieldSelector`. In a volume (`file`), the container must be named.
pub(super) fn resource_field(r: &ResourceFieldSelector, file: bool, at: &Path<'_>, errors: &mut Vec<FieldError>) {
    let name = r.resource.as_str();
    let huge = name.starts_with("limits.hugepages-") || name.starts_with("requests.hugepages-");
    if file && r.container_name.as_deref().unwrap_or("").is_empty() {
        errors.push(FieldError::required(at.field("containerName"), ""));
    } else if name.is_empty() {
        errors.push(FieldError::required(at.field("resource"), ""));
    } else if !RESOURCES.contains(&name) && !huge {
        errors.push(FieldError::not_supported(at.field("resource"), name, RESOURCES));
    }
    let Some(divisor) = r.divisor.as_ref().filter(|d| Milli::of(d).0 != 0) else { return };
    let (allowed, what): (&[&str], &str) = match name.split_once('.').map(|(_, resource)| resource) {
        Some("cpu") => (&["1m", "1"], "cpu"),
        Some("memory") => (BYTES, "memory"),
        Some("ephemeral-storage") => (BYTES, "local ephemeral storage"),
        Some(resource) if resource.starts_with("hugepages-") => (BYTES, "hugepages"),
        _ => return,
    };
    if !allowed.contains(&divisor.0.as_str()) {
        let list = if what == "cpu" { "1m and 1".to_owned() } else { allowed.join(", ") };
        let detail = format!("only divisor's values {list} are supported with the {what} resource");
        errors.push(FieldError::invalid(at.field("divisor"), name, detail));
    }
}

const BYTES: &[&str] = &["1", "1k", "1M", "1G", "1T", "1P", "1E", "1Ki", "1Mi", "1Gi", "1Ti", "1Pi", "1Ei"];
