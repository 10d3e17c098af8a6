//! The provisioner: makes a volume for each claim whose class asks for one, and deletes it once it is released.
//!
//! Where nodes are simulated, it stands for the external provisioners of all StorageClasses, each of which runs as pods
//! of its own in a real cluster. Where nodes are real, it makes directories of the selected node for the first two of
//! these, which that node's agent looks after ([`crate::agent`]), and leaves all others alone:
//!
//! | provisioner | volume |
//! |---|---|
//! | `…local-path`, `…local` | a directory of the selected node, to which the volume is bound |
//! | `…hostpath` | a directory that any node is taken to reach |
//! | disks of clouds (EBS, persistent disk, Azure disk, Cinder) | a CSI volume of one zone |
//! | any other | a CSI volume that every node reaches, unless the class has `allowedTopologies` |
//!
//! Source: `sigs.k8s.io/sig-storage-lib-external-provisioner` (Events, annotations, names),
//! `kubernetes-csi/external-provisioner` (topology).

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::volume::delete;
use super::{Controller, EventNote, Plan, Write, event, remove_annotation, update};
use crate::api::{Reason, Status, Subresource};
use crate::client::{Change, EventType, Views, Watched};
use crate::controllers::hash::fnv1a;
use crate::limits;
use crate::machine::Now;
use crate::object::{Kind, Object, ObjectKey, ZONE_LABEL};
use crate::volume::{
    DIRECTORIES, DIRECTORY_OF_NODE, PROVISIONED_BY, PROVISIONER, SELECTED_NODE, annotation, class_of, csi_name,
    is_released, text, value, waits_for_consumer,
};

/// The controller.
#[derive(Debug)]
pub struct Provisioner {
    /// Whether nodes run real containers.
    pub real_nodes: bool,
}

const WATCHES: &[Watched] = &[
    Watched { kind: Kind::PERSISTENT_VOLUME_CLAIM, indexes: &[] },
    Watched { kind: Kind::PERSISTENT_VOLUME, indexes: &[] },
    Watched { kind: Kind::STORAGE_CLASS, indexes: &[] },
    Watched { kind: Kind::NODE, indexes: &[] },
];

/// CSI drivers whose volumes can be reached only from the zone that they are in.
const ZONAL: [&str; 4] = ["ebs.csi.aws.com", "pd.csi.storage.gke.io", "disk.csi.azure.com", "cinder.csi.openstack.org"];

impl Controller for Provisioner {
    fn name(&self) -> &'static str {
        "external-provisioner"
    }

    fn watches(&self) -> &'static [Watched] {
        WATCHES
    }

    fn keys(&self, change: &Change, views: &Views, keys: &mut Vec<ObjectKey>) {
        match change.key.kind {
            Kind::STORAGE_CLASS => {
                let asks =
                    |claim: &Object| text(claim, "/spec/volumeName").is_empty() && class_of(claim) == change.key.name();
                let claims = views.view(Kind::PERSISTENT_VOLUME_CLAIM).iter();
                keys.extend(claims.filter(|(_, claim)| asks(claim)).map(|(key, _)| key.clone()));
            }
            Kind::NODE => {}
            _ => keys.push(change.key.clone()),
        }
    }

    fn reconcile(&mut self, views: &Views, key: &ObjectKey, _now: Now) -> Plan {
        let mut plan = Plan::nothing();
        let Some(object) = views.view(key.kind).get(key).filter(|o| !o.is_deleting()) else { return plan };
        if key.kind == Kind::PERSISTENT_VOLUME {
            plan.writes.extend((!self.real_nodes && is_released(object)).then(|| delete(object)));
            return plan;
        }
        if self.real_nodes && !provisioner_of(object).is_some_and(is_directory) {
            return plan;
        }
        if let Some(node) = selected_in_vain(views, object) {
            // A view that is older than the selection may not show a new node.
            if views.view(Kind::NODE).revision() < object.rv() {
                plan.wait_for(Kind::NODE, limits::GARBAGE_RETRY);
                return plan;
            }
            let why = format!("failed to get target node: node {node:?} not found");
            event(&mut plan, object, EventType::Warning, "ProvisioningFailed", why);
            plan.writes.push(update(object, Subresource::None, |v| remove_annotation(v, SELECTED_NODE)));
            return plan;
        }
        if self.real_nodes && lacks_node(views, object) {
            let why = "configuration error, no node was specified".to_owned();
            event(&mut plan, object, EventType::Warning, "ProvisioningFailed", why);
            return plan;
        }
        let Some(volume) = wanted(views, object, self.real_nodes) else { return plan };
        if views.view(Kind::PERSISTENT_VOLUME).find("", volume.name()).is_none() {
            let asked = format!("External provisioner is provisioning volume for claim \"{}\"", key.path());
            event(&mut plan, object, EventType::Normal, "Provisioning", asked);
            let made = format!("Successfully provisioned volume {}", volume.name());
            event(&mut plan, object, EventType::Normal, "ProvisioningSucceeded", made);
            plan.writes.push(Write::Create(volume));
        }
        plan
    }

    fn failed(&mut self, views: &Views, key: &ObjectKey, write: &Write, error: &Status) -> Option<EventNote> {
        // A volume that exists was made by an attempt whose reply was lost.
        if !matches!(write, Write::Create(_)) || error.reason == Reason::AlreadyExists {
            return None;
        }
        let about = views.view(Kind::PERSISTENT_VOLUME_CLAIM).get(key)?.clone();
        let class = class_of(&about);
        let message = format!("failed to provision volume with StorageClass {class:?}: {error}");
        Some(EventNote { about, type_: EventType::Warning, reason: "ProvisioningFailed", message })
    }
}

/// The node that was selected for a claim without a volume and is gone: the claim waits for another one to be selected.
fn selected_in_vain<'a>(views: &Views, claim: &'a Object) -> Option<&'a str> {
    provisioner_of(claim)?;
    let node = annotation(claim, SELECTED_NODE).filter(|_| text(claim, "/spec/volumeName").is_empty())?;
    views.view(Kind::NODE).find("", node).is_none().then_some(node)
}

/// Whom a claim waits for.
fn provisioner_of(claim: &Object) -> Option<&str> {
    PROVISIONER.iter().find_map(|key| annotation(claim, key))
}

/// Whether a claim waits for a directory of no node in particular: its class does not wait for a pod.
fn lacks_node(views: &Views, claim: &Object) -> bool {
    let class = views.view(Kind::STORAGE_CLASS).find("", class_of(claim));
    text(claim, "/spec/volumeName").is_empty()
        && annotation(claim, SELECTED_NODE).is_none()
        && class.is_some_and(|class| !waits_for_consumer(class))
}

/// The volume that a claim waits for; `None` if it waits for none that is to be made.
fn wanted(views: &Views, claim: &Object, real_nodes: bool) -> Option<Object> {
    let by = provisioner_of(claim)?;
    let class = views.view(Kind::STORAGE_CLASS).find("", class_of(claim))?;
    let node = annotation(claim, SELECTED_NODE);
    let named = !text(claim, "/spec/volumeName").is_empty();
    if named || csi_name(text(class, "/provisioner")) != by || waits_for_consumer(class) && node.is_none() {
        return None;
    }
    let name = format!("pvc-{}", claim.uid());
    let (asked, of) = (claim.to_json(), class.to_json());
    let or = |value: &Value, default: Value| if value.is_null() { default } else { value.clone() };
    let mut spec = json!({
        "capacity": {"storage": asked["spec"]["resources"]["requests"]["storage"]},
        "accessModes": asked["spec"]["accessModes"],
        "volumeMode": or(&asked["spec"]["volumeMode"], json!("Filesystem")),
        "persistentVolumeReclaimPolicy": or(&of["reclaimPolicy"], json!("Delete")),
        "storageClassName": class.name(),
        "claimRef": {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "namespace": claim.namespace(),
            "name": claim.name(), "uid": claim.uid(), "resourceVersion": claim.rv().0.to_string()},
    });
    if is_directory(by) {
        let path = format!("{DIRECTORIES}/{name}");
        spec["hostPath"] = json!({"path": path, "type": "DirectoryOrCreate"});
    } else {
        spec["csi"] = json!({"driver": by, "volumeHandle": name});
    }
    for field in ["mountOptions", "volumeAttributesClassName"] {
        let source = if field == "mountOptions" { &of[field] } else { &asked["spec"][field] };
        if !source.is_null() {
            spec[field] = source.clone();
        }
    }
    let node = node.filter(|_| is_local(by) || real_nodes);
    let place = node.map(|node| ("kubernetes.io/hostname", node.to_owned()));
    if let Some((key, at)) = place.or_else(|| zone(views, claim, class, by).map(|zone| (ZONE_LABEL, zone))) {
        spec["nodeAffinity"] = json!({"required": {"nodeSelectorTerms": [{"matchExpressions": [
            {"key": key, "operator": "In", "values": [at]}]}]}});
    }
    let mut metadata = json!({"name": name, "annotations": {PROVISIONED_BY: by}});
    if let Some(node) = node {
        metadata["labels"] = json!({DIRECTORY_OF_NODE: node});
    }
    let volume = json!({"apiVersion": "v1", "kind": "PersistentVolume", "metadata": metadata, "spec": spec});
    Some(Object::from_json(volume).expect("a volume that is made of a claim and a class reads"))
}

/// Whether the volumes of a provisioner are directories.
fn is_directory(provisioner: &str) -> bool {
    is_local(provisioner) || provisioner.ends_with("hostpath")
}

/// Whether the volumes of a provisioner are directories of one node each.
fn is_local(provisioner: &str) -> bool {
    provisioner.ends_with("local-path") || provisioner.ends_with("/local")
}

/// The zone that a claim's volume is made in: that of the selected node, or else one that the class allows, by the
/// claim's name, so that the claims of a StatefulSet are spread over zones (`ChooseZoneForVolume`).
fn zone(views: &Views, claim: &Object, class: &Object, by: &str) -> Option<String> {
    let allowed: BTreeSet<&str> = topologies(class).collect();
    if !ZONAL.contains(&by) && allowed.is_empty() {
        return None;
    }
    let nodes = views.view(Kind::NODE);
    let of = |node: &Object| node.labels().and_then(|labels| labels.get(ZONE_LABEL)).cloned();
    if let Some(node) = annotation(claim, SELECTED_NODE) {
        return nodes.find("", node).and_then(of);
    }
    let all: BTreeSet<String> = nodes.iter().filter_map(|(_, node)| of(node)).collect();
    let all: Vec<String> =
        all.into_iter().filter(|zone| allowed.is_empty() || allowed.contains(zone.as_str())).collect();
    let (base, ordinal) = claim.name().rsplit_once('-').unwrap_or((claim.name(), ""));
    let (base, ordinal) = ordinal.parse::<u32>().map_or((claim.name(), 0), |ordinal| (base, ordinal));
    let count = u32::try_from(all.len()).ok().filter(|n| *n > 0)?;
    all.into_iter().nth((fnv1a(base.as_bytes(), 0).wrapping_add(ordinal) % count) as usize)
}

/// The zones that a class allows.
fn topologies(class: &Object) -> impl Iterator<Item = &str> {
    let terms = value(class, "/allowedTopologies").and_then(Value::as_array).into_iter().flatten();
    let labels = terms.filter_map(|term| term["matchLabelExpressions"].as_array()).flatten();
    let zones = labels.filter(|label| label["key"] == ZONE_LABEL).filter_map(|label| label["values"].as_array());
    zones.flatten().filter_map(Value::as_str)
}
