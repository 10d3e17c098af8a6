//! Validation of a container's volume mounts and devices. Source: `pkg/apis/core/validation` (`ValidateVolumeMounts`,
//! `ValidateVolumeDevices`).

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{SecurityContext, Volume, VolumeDevice, VolumeMount};

use super::path::Path;
use super::{one_of, volume};
use crate::object::FieldError;

/// The valid volumes of a pod, by name.
pub(super) type Volumes<'a> = BTreeMap<&'a str, &'a Volume>;

/// Validates the mounts and devices of one container.
pub(super) fn all(
    mounts: &[VolumeMount],
    devices: &[VolumeDevice],
    security: Option<&SecurityContext>,
    volumes: &Volumes<'_>,
    at: &Path<'_>,
    errors: &mut Vec<FieldError>,
) {
    let privileged = security.is_some_and(|s| s.privileged == Some(true));
    let path = at.field("volumeMounts");
    let mut points = BTreeSet::new();
    for (i, m) in mounts.iter().enumerate() {
        let item = path.index(i);
        let source = volumes.get(m.name.as_str()).copied();
        mount(m, source.is_some(), &item, errors);
        if !points.insert(m.mount_path.as_str()) {
            errors.push(FieldError::invalid(item.field("mountPath"), &m.mount_path, "must be unique"));
        }
        if devices.iter().any(|d| d.name == m.name) {
            let detail = "must not already exist in volumeDevices";
            errors.push(FieldError::invalid(item.field("name"), &m.name, detail));
        }
        if devices.iter().any(|d| d.device_path == m.mount_path) {
            let detail = "must not already exist as a path in volumeDevices";
            errors.push(FieldError::invalid(item.field("mountPath"), &m.mount_path, detail));
        }
        // From here on, upstream's paths name the list without an index.
        sub_paths(m, source, &path, &item, errors);
        propagation(m, privileged, &path, errors);
    }
    self::devices(devices, mounts, volumes, &at.field("volumeDevices"), errors);
}

fn mount(m: &VolumeMount, known: bool, at: &Path<'_>, errors: &mut Vec<FieldError>) {
    if m.name.is_empty() {
        errors.push(FieldError::required(at.field("name"), ""));
    }
    if !known {
        errors.push(FieldError::not_found(at.field("name"), &m.name));
    }
    if m.mount_path.is_empty() {
        errors.push(FieldError::required(at.field("mountPath"), ""));
    }
}

fn sub_paths(m: &VolumeMount, source: Option<&Volume>, list: &Path<'_>, item: &Path<'_>, errors: &mut Vec<FieldError>) {
    let (path, expression) = (m.sub_path.as_deref().unwrap_or(""), m.sub_path_expr.as_deref().unwrap_or(""));
    for (field, path) in [("subPath", path), ("subPathExpr", expression)] {
        if !path.is_empty() && source.is_some_and(|v| v.image.is_some()) {
            errors.push(FieldError::invalid(item.field(field), path, "not allowed in image volume sources"));
        }
    }
    if !path.is_empty() {
        volume::descending_path(path, &list.field("subPath"), errors);
    }
    if !expression.is_empty() {
        if !path.is_empty() {
            let detail = "subPathExpr and subPath are mutually exclusive";
            errors.push(FieldError::invalid(item.field("subPathExpr"), expression, detail));
        }
        volume::descending_path(expression, &list.field("subPathExpr"), errors);
    }
}

fn propagation(m: &VolumeMount, privileged: bool, list: &Path<'_>, errors: &mut Vec<FieldError>) {
    if let Some(propagation) = &m.mount_propagation {
        let at = list.field("mountPropagation");
        one_of(propagation, &["Bidirectional", "HostToContainer", "None"], &at, errors);
        if propagation == "Bidirectional" && !privileged {
            let detail = "Bidirectional mount propagation is available only to privileged containers";
            errors.push(FieldError::forbidden(at, detail));
        }
    }
    let at = list.field("recursiveReadOnly");
    match m.recursive_read_only.as_deref() {
        None | Some("Disabled") => {}
        Some("Enabled" | "IfPossible") => {
            if m.read_only != Some(true) {
                errors.push(FieldError::forbidden(at, "may only be specified when readOnly is true"));
            }
            if m.mount_propagation.as_deref().is_some_and(|p| p != "None") {
                let detail = "may only be specified when mountPropagation is None or not specified";
                errors.push(FieldError::forbidden(at, detail));
            }
        }
        Some(other) => one_of(other, &["Disabled", "Enabled", "IfPossible"], &at, errors),
    }
}

fn devices(
    list: &[VolumeDevice],
    mounts: &[VolumeMount],
    volumes: &Volumes<'_>,
    at: &Path<'_>,
    errors: &mut Vec<FieldError>,
) {
    let (mut paths, mut names) = (BTreeSet::new(), BTreeSet::new());
    for (i, d) in list.iter().enumerate() {
        let at = at.index(i);
        let source = volumes.get(d.name.as_str());
        if d.name.is_empty() {
            errors.push(FieldError::required(at.field("name"), ""));
        }
        if names.contains(d.name.as_str()) {
            errors.push(FieldError::invalid(at.field("name"), &d.name, "must be unique"));
        }
        match source {
            Some(v) if v.persistent_volume_claim.is_none() && v.ephemeral.is_none() => {
                let detail = "can only use volume source type of PersistentVolumeClaim or Ephemeral for block mode";
                errors.push(FieldError::invalid(at.field("name"), &d.name, detail));
            }
            Some(_) => {}
            None => errors.push(FieldError::not_found(at.field("name"), &d.name)),
        }
        if d.device_path.is_empty() {
            errors.push(FieldError::required(at.field("devicePath"), ""));
        }
        if paths.contains(d.device_path.as_str()) {
            errors.push(FieldError::invalid(at.field("devicePath"), &d.device_path, "must be unique"));
        }
        if d.device_path.split('/').any(|part| part == "..") {
            let detail = "can not contain backsteps ('..')";
            errors.push(FieldError::invalid(at.field("devicePath"), &d.device_path, detail));
        } else {
            paths.insert(d.device_path.as_str());
        }
        if mounts.iter().any(|m| m.name == d.name) {
            errors.push(FieldError::invalid(at.field("name"), &d.name, "must not already exist in volumeMounts"));
        }
        if mounts.iter().any(|m| m.mount_path == d.device_path) {
            let detail = "must not already exist as a path in volumeMounts";
            errors.push(FieldError::invalid(at.field("devicePath"), &d.device_path, detail));
        }
        if !d.name.is_empty() {
            names.insert(d.name.as_str());
        }
    }
}
