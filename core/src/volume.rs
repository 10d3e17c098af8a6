//! Claims, volumes and storage classes, as the binder, the scheduler, admission and the agent read them.
//!
//! Source: `k8s.io/component-helpers/storage/volume`, `k8s.io/csi-translation-lib`.

use k8s_openapi::api::core::v1::{PodSpec, Volume};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::object::{Kind, Milli, Object, ObjectKey, Pod};

/// Annotation of a claim that is bound.
pub const BIND_COMPLETED: &str = "pv.kubernetes.io/bind-completed";
/// Annotation of a claim or a volume whose other half was chosen by a controller and not by a user.
pub const BOUND_BY_CONTROLLER: &str = "pv.kubernetes.io/bound-by-controller";
/// Annotation of a volume: the provisioner that made it.
pub const PROVISIONED_BY: &str = "pv.kubernetes.io/provisioned-by";
/// Annotation of a claim: the node of its first consumer, chosen by the scheduler.
pub const SELECTED_NODE: &str = "volume.kubernetes.io/selected-node";
/// Annotations of a claim: the provisioner that is to make its volume. The first is the older name.
pub const PROVISIONER: [&str; 2] =
    ["volume.beta.kubernetes.io/storage-provisioner", "volume.kubernetes.io/storage-provisioner"];
/// Label of volumes that the provisioner has made as a directory of a node: the node.
pub const DIRECTORY_OF_NODE: &str = "skeg.dev/directory-of";
/// Where on a node these directories are, by the names of the volumes.
pub const DIRECTORIES: &str = "/var/lib/skeg/volumes";
/// Provisioner of a class whose volumes are made by hand.
pub const NO_PROVISIONER: &str = "kubernetes.io/no-provisioner";
/// Annotation of the StorageClass of claims that name none.
pub const IS_DEFAULT: &str = "storageclass.kubernetes.io/is-default-class";
/// Finalizer of claims: a pod may use it.
pub const CLAIM_PROTECTION: &str = "kubernetes.io/pvc-protection";
/// Finalizer of volumes: a claim may be bound to it.
pub const VOLUME_PROTECTION: &str = "kubernetes.io/pv-protection";
/// The older annotation for the class of a claim or a volume.
pub const OLD_CLASS: &str = "volume.beta.kubernetes.io/storage-class";
/// The older annotation of a default class.
const WAS_DEFAULT: &str = "storageclass.beta.kubernetes.io/is-default-class";

/// The value at a JSON pointer within an object of a kind that is held as JSON.
pub fn value<'a>(object: &'a Object, path: &str) -> Option<&'a Value> {
    let Object::Dynamic(dynamic) = object else { return None };
    let path = path.strip_prefix('/')?;
    let (first, rest) = path.find('/').map_or((path, ""), |slash| path.split_at(slash));
    let part = if first == "status" { dynamic.status.as_deref() } else { dynamic.body.get(first) };
    part?.pointer(rest)
}

/// The text at a JSON pointer; empty if there is none.
pub fn text<'a>(object: &'a Object, path: &str) -> &'a str {
    value(object, path).and_then(Value::as_str).unwrap_or("")
}

/// An annotation of an object.
pub fn annotation<'a>(object: &'a Object, key: &str) -> Option<&'a str> {
    object.meta().annotations.as_ref()?.get(key).map(String::as_str)
}

/// The StorageClass of a claim or a volume; empty if it has none.
pub fn class_of(object: &Object) -> &str {
    annotation(object, OLD_CLASS).unwrap_or_else(|| text(object, "/spec/storageClassName"))
}

/// Whether a claim says anything about its class, be it that it wants none.
pub fn names_class(claim: &Object) -> bool {
    annotation(claim, OLD_CLASS).is_some() || value(claim, "/spec/storageClassName").is_some_and(Value::is_string)
}

/// The default StorageClass.
pub fn default_class<'a>(classes: impl Iterator<Item = &'a Object>) -> Option<&'a Object> {
    crate::object::default_class(classes, &[IS_DEFAULT, WAS_DEFAULT])
}

/// The default class of a cluster that has none of its own: directories of the nodes, made when a pod is scheduled, as
/// in clusters on one machine.
pub fn standard_class() -> Object {
    let class = json!({
        "apiVersion": "storage.k8s.io/v1", "kind": "StorageClass",
        "metadata": {"name": "standard", "annotations": {IS_DEFAULT: "true"}},
        "provisioner": "skeg.dev/local-path",
        "reclaimPolicy": "Delete", "volumeBindingMode": "WaitForFirstConsumer",
    });
    Object::from_json(class).expect("the class is well-formed")
}

/// Whether claims of a class are bound only once a pod that uses them is scheduled.
pub fn waits_for_consumer(class: &Object) -> bool {
    text(class, "/volumeBindingMode") == "WaitForFirstConsumer"
}

/// The access modes of a claim or a volume.
pub fn access_modes(object: &Object) -> impl Iterator<Item = &str> {
    let modes = value(object, "/spec/accessModes").and_then(Value::as_array);
    modes.into_iter().flatten().filter_map(Value::as_str)
}

/// `Filesystem`, or `Block`.
pub fn volume_mode(object: &Object) -> &str {
    match text(object, "/spec/volumeMode") {
        "" => "Filesystem",
        mode => mode,
    }
}

fn quantity(object: &Object, path: &str) -> Milli {
    Milli::parse(text(object, path)).unwrap_or_default()
}

/// How much a claim asks for.
pub fn requested(claim: &Object) -> Milli {
    quantity(claim, "/spec/resources/requests/storage")
}

/// How much a volume has.
pub fn capacity(volume: &Object) -> Milli {
    quantity(volume, "/spec/capacity/storage")
}

/// Whether a claim is bound.
pub fn is_bound(claim: &Object) -> bool {
    annotation(claim, BIND_COMPLETED).is_some()
}

/// The claim that a volume names, and its UID, which is empty if only a user has named it.
pub fn claim_of(volume: &Object) -> Option<(ObjectKey, &str)> {
    let claim = value(volume, "/spec/claimRef")?;
    let of = |field: &str| claim.get(field).and_then(Value::as_str);
    let key = ObjectKey::new(Kind::PERSISTENT_VOLUME_CLAIM, of("namespace")?, of("name")?);
    Some((key, of("uid").unwrap_or("")))
}

/// Whether a volume names a claim, whoever has named it (`IsVolumeBoundToClaim`).
pub fn is_for(volume: &Object, claim: &Object) -> bool {
    claim_of(volume).is_some_and(|(key, uid)| key == claim.key() && (uid.is_empty() || uid == claim.uid()))
}

/// The CSI driver that has replaced a provisioner which was part of Kubernetes; others are their own.
pub fn csi_name(provisioner: &str) -> &str {
    match provisioner {
        "kubernetes.io/aws-ebs" => "ebs.csi.aws.com",
        "kubernetes.io/azure-disk" => "disk.csi.azure.com",
        "kubernetes.io/azure-file" => "file.csi.azure.com",
        "kubernetes.io/cinder" => "cinder.csi.openstack.org",
        "kubernetes.io/gce-pd" => "pd.csi.storage.gke.io",
        "kubernetes.io/portworx-volume" => "pxd.portworx.com",
        "kubernetes.io/vsphere-volume" => "csi.vsphere.vmware.com",
        other => other,
    }
}

/// The CSI driver of a volume; `None` if it is of another kind.
pub fn csi_driver(volume: &Object) -> Option<&str> {
    value(volume, "/spec/csi/driver")?.as_str()
}

/// The unique name of a CSI volume in the status of nodes (`GetUniqueVolumeName`); `None` if it is of another kind.
pub fn unique_name(volume: &Object) -> Option<String> {
    let driver = csi_driver(volume)?;
    Some(format!("kubernetes.io/csi/{driver}^{}", text(volume, "/spec/csi/volumeHandle")))
}

/// Whether the volumes of a driver have to be attached to a node before they are mounted.
pub fn requires_attachment(driver: &Object) -> bool {
    value(driver, "/spec/attachRequired") != Some(&json!(false))
}

/// The name of the VolumeAttachment of a CSI volume to a node (`getAttachmentName`).
pub fn attachment_name(volume: &Object, node: &str) -> String {
    let of = |field| text(volume, field);
    let whole = format!("{}{}{node}", of("/spec/csi/volumeHandle"), of("/spec/csi/driver"));
    let hash = Sha256::digest(whole.as_bytes());
    hash.iter().fold("csi-".to_owned(), |name, byte| format!("{name}{byte:02x}"))
}

/// Whether a VolumeAttachment is one that the attach/detach controller has asked for, as its name tells. Others are
/// their makers' business.
pub fn is_of_controller(attachment: &Object) -> bool {
    let hash = attachment.name().strip_prefix("csi-");
    hash.is_some_and(|hash| hash.len() == 64 && hash.bytes().all(|b| b.is_ascii_hexdigit()))
}

/// The names of the volume and the node that a VolumeAttachment brings together.
pub fn attachment_of(attachment: &Object) -> (&str, &str) {
    (text(attachment, "/spec/source/persistentVolumeName"), text(attachment, "/spec/nodeName"))
}

/// Whether the volume of a VolumeAttachment is attached.
pub fn is_attached(attachment: &Object) -> bool {
    value(attachment, "/status/attached") == Some(&json!(true))
}

/// The name of the claim of a pod's volume; `None` if the volume has no claim.
pub fn claim_name(pod: &str, volume: &Volume) -> Option<String> {
    match (&volume.persistent_volume_claim, &volume.ephemeral) {
        (Some(claim), _) => Some(claim.claim_name.clone()),
        (None, Some(_)) => Some(format!("{pod}-{}", volume.name)),
        (None, None) => None,
    }
}

/// Whether a volume was made for a claim that is gone, and is to go with it.
pub fn is_released(volume: &Object) -> bool {
    text(volume, "/status/phase") == "Released"
        && claim_of(volume).is_some()
        && !volume.is_deleting()
        && text(volume, "/spec/persistentVolumeReclaimPolicy") == "Delete"
        && annotation(volume, PROVISIONED_BY).is_some()
}

/// Whether a volume is a directory which the provisioner had made on a node.
pub fn is_directory_of_node(volume: &Object) -> bool {
    volume.labels().is_some_and(|labels| labels.contains_key(DIRECTORY_OF_NODE))
}

/// Whether pods with this spec have claims.
pub fn has_claims(spec: &PodSpec) -> bool {
    spec.volumes.iter().flatten().any(|v| v.persistent_volume_claim.is_some() || v.ephemeral.is_some())
}

/// The claims that a pod uses, with the volumes that name them: those that exist by themselves, and ephemeral ones.
pub fn claims(pod: &Pod) -> impl Iterator<Item = (ObjectKey, &Volume)> {
    pod.spec.shared.volumes.iter().flatten().filter_map(|volume| {
        let name = claim_name(pod.name(), volume)?;
        Some((ObjectKey::new(Kind::PERSISTENT_VOLUME_CLAIM, pod.namespace(), &name), volume))
    })
}

/// Why a claim with the name of a pod's ephemeral volume is not that volume's; `None` if it is (`VolumeIsForPod`).
pub fn not_of_pod(pod: &Pod, claim: &Object) -> Option<String> {
    let owned = claim.meta().owner_references.iter().flatten();
    let is_its = owned.into_iter().any(|owner| owner.controller == Some(true) && owner.uid == pod.uid());
    (!is_its).then(|| {
        let (claim, pod) = (claim.key(), pod.key());
        format!("PVC {} was not created for pod {} (pod is not owner)", claim.path(), pod.path())
    })
}

/// Whether no container of a pod runs any more and it is about to be removed (`podIsShutDown`).
pub fn is_shut_down(pod: &Pod) -> bool {
    pod.meta.deletion_timestamp.is_some() && pod.meta.deletion_grace_period_seconds == Some(0)
}

/// Whether a pod that is on a node uses a claim (`podUsesPVC`); a pod that has ended does, until it is deleted.
pub fn is_used_by(claim: &Object, pod: &Object) -> bool {
    let Object::Pod(pod) = pod else { return false };
    let uses = |volume: &Volume| {
        volume.persistent_volume_claim.is_some() || !is_shut_down(pod) && not_of_pod(pod, claim).is_none()
    };
    pod.spec.node.is_some() && claims(pod).any(|(key, volume)| key == *claim.key_ref() && uses(volume))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::{class_of, default_class, names_class};
    use crate::object::Object;

    fn object(value: Value) -> Object {
        Object::from_json(value).unwrap()
    }

    #[test]
    fn a_claim_names_its_class_by_field_or_by_annotation() {
        let claim = |annotations: Value, spec: Value| {
            object(json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "spec": spec,
                "metadata": {"name": "c", "namespace": "d", "annotations": annotations}}))
        };
        let old = json!({"volume.beta.kubernetes.io/storage-class": "old"});
        for (annotations, spec, class, named) in [
            (json!({}), json!({}), "", false),
            (json!({}), json!({"storageClassName": ""}), "", true),
            (json!({}), json!({"storageClassName": "new"}), "new", true),
            (old.clone(), json!({}), "old", true),
            (old, json!({"storageClassName": "new"}), "old", true),
        ] {
            let claim = claim(annotations, spec);
            assert_eq!((class_of(&claim), names_class(&claim)), (class, named), "{claim:?}");
        }
    }

    #[test]
    fn the_newest_default_class_counts() {
        let class = |name: &str, default: &str, second: u32| {
            object(json!({"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "provisioner": "p",
                "metadata": {"name": name, "creationTimestamp": format!("2024-01-01T00:00:{second:02}Z"),
                    "annotations": {"storageclass.kubernetes.io/is-default-class": default}}}))
        };
        let check = |classes: &[Object], expect: Option<&str>| {
            assert_eq!(default_class(classes.iter()).map(Object::name), expect);
        };
        check(&[class("a", "false", 0)], None);
        check(&[class("a", "true", 0), class("b", "true", 0)], Some("a"));
        check(&[class("a", "true", 0), class("b", "true", 1), class("c", "false", 2)], Some("b"));
    }
}
