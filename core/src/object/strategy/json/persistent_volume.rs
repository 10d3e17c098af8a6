//! PersistentVolume. Source: `pkg/apis/core/validation` (`ValidatePersistentVolumeSpec`).

use std::rc::Rc;

use k8s_openapi::api::core::v1::PersistentVolume;
use serde_json::{Map, Value, json};

use super::JsonStrategy;
use super::fields::{Errors, at, list, text};
use super::missing::{Missing, fill};
use crate::object::validation::path::{Go, Path};
use crate::object::validation::{names, one_of, push_all, volume};
use crate::object::{Dynamic, FieldError, Milli};

impl JsonStrategy for PersistentVolume {
    fn prepare_for_create(object: &mut Dynamic) {
        object.status = Some(Rc::new(json!({"phase": "Pending"})));
    }

    fn apply_defaults(object: &mut Dynamic) {
        fill(object, Self::defaults);
        pending(&mut object.status);
    }

    fn defaults(m: &mut Missing<'_>) {
        m.round(&["spec", "capacity"]);
        m.at(&["spec"], "volumeMode", || json!("Filesystem"));
        m.at(&["spec"], "persistentVolumeReclaimPolicy", || json!("Retain"));
    }

    /// Does not validate the volume source itself.
    fn validate(d: &Dynamic, errors: &mut Errors) {
        spec(&d.body, errors);
    }
}

/// Sets the phase of a volume or claim without one.
pub(super) fn pending(status: &mut Option<Rc<Value>>) {
    let phase = status.as_ref().and_then(|s| s.get("phase")).and_then(Value::as_str).unwrap_or("");
    if phase.is_empty() {
        let status = Rc::make_mut(status.get_or_insert_with(|| Rc::new(json!({}))));
        if let Value::Object(map) = status {
            map.insert("phase".to_owned(), json!("Pending"));
        }
    }
}

fn spec(body: &Map<String, Value>, errors: &mut Errors) {
    let root = &Path::Root("spec");
    let modes: Vec<String> =
        list(body, &["spec", "accessModes"]).iter().filter_map(|v| v.as_str().map(str::to_owned)).collect();
    volume::access_modes(Some(&modes), "", &root.field("accessModes"), errors);
    let capacity = at(body, &["spec", "capacity"]).and_then(Value::as_object);
    let path = root.field("capacity");
    if capacity.is_none_or(Map::is_empty) {
        errors.push(FieldError::required(path, ""));
    }
    if capacity.is_none_or(|c| !c.contains_key("storage") || c.len() > 1) {
        let shown = Go(capacity.map_or("null".to_owned(), |c| Value::Object(c.clone()).to_string()));
        errors.push(FieldError::not_supported(path, shown, &["storage"]));
    }
    for (name, amount) in capacity.into_iter().flatten() {
        let amount = amount.as_str().unwrap_or("");
        if Milli::parse(amount).is_ok_and(|m| m.0 <= 0) {
            errors.push(FieldError::invalid(path.key(name), amount, "must be greater than zero"));
        }
    }
    let policies: [(&str, &[&str]); 2] =
        [("persistentVolumeReclaimPolicy", &["Delete", "Recycle", "Retain"]), ("volumeMode", &["Block", "Filesystem"])];
    for (field, known) in policies {
        match text(body, &["spec", field]) {
            "" => {}
            policy => one_of(policy, known, &root.field(field), errors),
        }
    }
    let sources = at(body, &["spec"]).and_then(Value::as_object).into_iter().flatten();
    let sources: Vec<&String> = sources.map(|(k, _)| k).filter(|k| VOLUME_SOURCES.contains(&k.as_str())).collect();
    match sources.as_slice() {
        [] => errors.push(FieldError::required(root, "must specify a volume type")),
        [_, more @ ..] => {
            for source in more {
                errors.push(FieldError::forbidden(root.field(source), "may not specify more than 1 volume type"));
            }
        }
    }
    if at(body, &["spec", "local"]).is_some() && at(body, &["spec", "nodeAffinity"]).is_none() {
        errors.push(FieldError::required(root.field("nodeAffinity"), "Local volume requires node affinity"));
    }
    let class = text(body, &["spec", "storageClassName"]);
    if !class.is_empty() {
        push_all(errors, &root.field("storageClassName"), class, names::subdomain(class));
    }
}

const VOLUME_SOURCES: &[&str] = &[
    "awsElasticBlockStore",
    "azureDisk",
    "azureFile",
    "cephfs",
    "cinder",
    "csi",
    "fc",
    "flexVolume",
    "flocker",
    "gcePersistentDisk",
    "glusterfs",
    "hostPath",
    "iscsi",
    "local",
    "nfs",
    "photonPersistentDisk",
    "portworxVolume",
    "quobyte",
    "rbd",
    "scaleIO",
    "storageos",
    "vsphereVolume",
];
