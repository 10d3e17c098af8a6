//! Tables of volumes, claims and storage classes, and of ConfigMaps and Secrets.

use serde_json::{Value, json};

use super::{Column, Printer, Time, age, flag, list_at, name, number, or_none, str_at, str_or, text, wide};
use crate::object::Kind;

pub(super) fn printer(kind: Kind) -> Option<Printer> {
    let (columns, cells): (&[Column], fn(&Value, Time) -> Vec<Value>) = match kind {
        Kind::PERSISTENT_VOLUME => (VOLUME, volume),
        Kind::PERSISTENT_VOLUME_CLAIM => (CLAIM, claim),
        Kind::STORAGE_CLASS => (STORAGE_CLASS, storage_class),
        Kind::CSI_DRIVER => (CSI_DRIVER, csi_driver),
        Kind::CSI_NODE => (CSI_NODE, csi_node),
        Kind::VOLUME_ATTACHMENT => (ATTACHMENT, attachment),
        Kind::CONFIG_MAP => (CONFIG_MAP, config_map),
        Kind::SECRET => (SECRET, secret),
        _ => return None,
    };
    Some(Printer { columns, cells })
}

/// Abbreviated access modes (`RWO,ROX`), in Kubernetes' order.
fn access_modes(modes: &[Value]) -> String {
    let known =
        [("ReadWriteOnce", "RWO"), ("ReadOnlyMany", "ROX"), ("ReadWriteMany", "RWX"), ("ReadWriteOncePod", "RWOP")];
    let has = |mode: &str| modes.iter().any(|m| m == mode);
    known.iter().filter(|(mode, _)| has(mode)).map(|(_, short)| *short).collect::<Vec<_>>().join(",")
}

fn phase(o: &Value) -> &str {
    if o.pointer("/metadata/deletionTimestamp").is_some() { "Terminating" } else { str_at(o, "/status/phase") }
}

/// The storage class of a volume or claim: the old annotation if it is set, otherwise the field.
fn class(o: &Value) -> &str {
    match o.pointer("/metadata/annotations/volume.beta.kubernetes.io~1storage-class").and_then(Value::as_str) {
        Some(class) => class,
        None => str_at(o, "/spec/storageClassName"),
    }
}

const VOLUME: &[Column] = &[
    text("Name"),
    text("Capacity"),
    text("Access Modes"),
    text("Reclaim Policy"),
    text("Status"),
    text("Claim"),
    text("StorageClass"),
    text("VolumeAttributesClass"),
    text("Reason"),
    text("Age"),
    wide("VolumeMode"),
];

fn volume(o: &Value, now: Time) -> Vec<Value> {
    let claim = o.pointer("/spec/claimRef");
    let claim = claim.map_or(String::new(), |r| format!("{}/{}", str_at(r, "/namespace"), str_at(r, "/name")));
    vec![
        json!(name(o)),
        json!(str_at(o, "/spec/capacity/storage")),
        json!(access_modes(list_at(o, "/spec/accessModes"))),
        json!(str_at(o, "/spec/persistentVolumeReclaimPolicy")),
        json!(phase(o)),
        json!(claim),
        json!(class(o)),
        json!(str_or(o, "/spec/volumeAttributesClassName", "<unset>")),
        json!(str_at(o, "/status/reason")),
        age(o, now),
        json!(str_or(o, "/spec/volumeMode", "<unset>")),
    ]
}

const CLAIM: &[Column] = &[
    text("Name"),
    text("Status"),
    text("Volume"),
    text("Capacity"),
    text("Access Modes"),
    text("StorageClass"),
    text("VolumeAttributesClass"),
    text("Age"),
    wide("VolumeMode"),
];

fn claim(o: &Value, now: Time) -> Vec<Value> {
    let volume = str_at(o, "/spec/volumeName");
    let (capacity, modes) = match volume {
        "" => ("", String::new()),
        _ => (str_at(o, "/status/capacity/storage"), access_modes(list_at(o, "/status/accessModes"))),
    };
    vec![
        json!(name(o)),
        json!(phase(o)),
        json!(volume),
        json!(capacity),
        json!(modes),
        json!(class(o)),
        json!(str_or(o, "/spec/volumeAttributesClassName", "<unset>")),
        age(o, now),
        json!(str_or(o, "/spec/volumeMode", "<unset>")),
    ]
}

const STORAGE_CLASS: &[Column] = &[
    text("Name"),
    text("Provisioner"),
    text("ReclaimPolicy"),
    text("VolumeBindingMode"),
    Column { name: "AllowVolumeExpansion", type_: "boolean", priority: 0 },
    text("Age"),
];

fn storage_class(o: &Value, now: Time) -> Vec<Value> {
    let is_default =
        ["storageclass.kubernetes.io~1is-default-class", "storageclass.beta.kubernetes.io~1is-default-class"]
            .iter()
            .any(|a| str_at(o, &format!("/metadata/annotations/{a}")) == "true");
    let shown = if is_default { format!("{} (default)", name(o)) } else { name(o).to_owned() };
    vec![
        json!(shown),
        json!(str_at(o, "/provisioner")),
        json!(str_or(o, "/reclaimPolicy", "Delete")),
        json!(str_or(o, "/volumeBindingMode", "Immediate")),
        json!(o["allowVolumeExpansion"] == true),
        age(o, now),
    ]
}

const CSI_DRIVER: &[Column] = &[
    text("Name"),
    Column { name: "AttachRequired", type_: "boolean", priority: 0 },
    Column { name: "PodInfoOnMount", type_: "boolean", priority: 0 },
    Column { name: "StorageCapacity", type_: "boolean", priority: 0 },
    text("TokenRequests"),
    Column { name: "RequiresRepublish", type_: "boolean", priority: 0 },
    text("Modes"),
    text("Age"),
];

fn csi_driver(o: &Value, now: Time) -> Vec<Value> {
    let flag = |path: &str, or: bool| json!(o.pointer(path).and_then(Value::as_bool).unwrap_or(or));
    let joined = |path: &str, field: Option<&str>| {
        let text = |v: &Value| field.map_or(v.as_str().unwrap_or(""), |f| str_at(v, f)).to_owned();
        list_at(o, path).iter().map(text).collect::<Vec<_>>().join(",")
    };
    let tokens = joined("/spec/tokenRequests", Some("/audience"));
    let tokens = if tokens.is_empty() { "<unset>".to_owned() } else { tokens };
    vec![
        json!(name(o)),
        flag("/spec/attachRequired", true),
        flag("/spec/podInfoOnMount", false),
        flag("/spec/storageCapacity", false),
        json!(tokens),
        flag("/spec/requiresRepublish", false),
        json!(or_none(joined("/spec/volumeLifecycleModes", None))),
        age(o, now),
    ]
}

const CSI_NODE: &[Column] = &[text("Name"), number("Drivers"), text("Age")];

fn csi_node(o: &Value, now: Time) -> Vec<Value> {
    vec![json!(name(o)), json!(list_at(o, "/spec/drivers").len()), age(o, now)]
}

const ATTACHMENT: &[Column] = &[
    text("Name"),
    text("Attacher"),
    text("PV"),
    text("Node"),
    Column { name: "Attached", type_: "boolean", priority: 0 },
    text("Age"),
];

fn attachment(o: &Value, now: Time) -> Vec<Value> {
    vec![
        json!(name(o)),
        json!(str_at(o, "/spec/attacher")),
        json!(str_at(o, "/spec/source/persistentVolumeName")),
        json!(str_at(o, "/spec/nodeName")),
        json!(flag(o.pointer("/status/attached")) == "True"),
        age(o, now),
    ]
}

const CONFIG_MAP: &[Column] = &[text("Name"), number("Data"), text("Age")];

fn entries(o: &Value, field: &str) -> usize {
    o[field].as_object().map_or(0, serde_json::Map::len)
}

fn config_map(o: &Value, now: Time) -> Vec<Value> {
    vec![json!(name(o)), json!(entries(o, "data") + entries(o, "binaryData")), age(o, now)]
}

const SECRET: &[Column] = &[text("Name"), text("Type"), number("Data"), text("Age")];

fn secret(o: &Value, now: Time) -> Vec<Value> {
    vec![json!(name(o)), json!(str_at(o, "/type")), json!(entries(o, "data")), age(o, now)]
}
