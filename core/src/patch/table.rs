//! How strategic merge patch treats each field: which lists are merged, by which key, and where the types lead.
//!
//! Facts of Kubernetes' API (1.36): `patchStrategy` and `patchMergeKey`. They differ from the keys of server-side
//! apply for `ports` of containers and Services, among others. What is not here: maps are merged, lists replaced.

use Treatment::{Merge, Plain, Replace};

/// What strategic merge does with a field.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Treatment {
    /// A map is merged, a list replaced.
    Plain,
    /// A list is merged: of maps by this key, of primitives where the key is empty.
    Merge(&'static str),
    /// A map is replaced.
    Replace,
}

/// A type of which some field, at any depth, is not treated plainly.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Type(&'static str);

impl Type {
    /// A type of which nothing is known.
    pub(super) const PLAIN: Type = Type("");

    /// The type of a whole object of this kind.
    pub(super) fn of_kind(kind: &str) -> Type {
        ROWS.iter().find(|r| r.0 == kind).map_or(Type("Object"), |r| Type(r.0))
    }

    /// Whether a patch of this field, or of an item of it, says which of its keys stay (strategy `retainKeys`).
    pub(super) fn retains_keys(self, field: &str) -> bool {
        matches!(
            (self.0, field),
            ("DeploymentSpec", "strategy")
                | ("PodSpec", "volumes" | "resourceClaims")
                | ("PodStatus", "resourceClaimStatuses")
        )
    }

    /// How a field is treated, and the type of it (or of its items).
    pub(super) fn field(self, name: &str) -> (Treatment, Type) {
        if name == "metadata" && self != Type::PLAIN {
            return (Plain, Type("ObjectMeta"));
        }
        match ROWS.binary_search_by(|row| (row.0, row.1).cmp(&(self.0, name))) {
            Ok(i) => (ROWS[i].3, Type(ROWS[i].2)),
            Err(_) => (Plain, Type::PLAIN),
        }
    }
}

/// `(type, field, type of the field, treatment)`, sorted.
#[rustfmt::skip]
static ROWS: &[(&str, &str, &str, Treatment)] = &[
    ("CSINode", "spec", "CSINodeSpec", Plain),
    ("CSINode", "status", "CSINodeStatus", Plain),
    ("CSINodeSpec", "drivers", "", Merge("name")),
    ("CSINodeStatus", "storageHealth", "", Merge("name")),
    ("Container", "env", "", Merge("name")),
    ("Container", "ports", "", Merge("containerPort")),
    ("Container", "volumeDevices", "", Merge("devicePath")),
    ("Container", "volumeMounts", "", Merge("mountPath")),
    ("CronJob", "spec", "CronJobSpec", Plain),
    ("CronJobSpec", "jobTemplate", "JobTemplateSpec", Plain),
    ("DaemonSet", "spec", "DaemonSetSpec", Plain),
    ("DaemonSet", "status", "DaemonSetStatus", Plain),
    ("DaemonSetSpec", "template", "PodTemplateSpec", Plain),
    ("DaemonSetStatus", "conditions", "", Merge("type")),
    ("Deployment", "spec", "DeploymentSpec", Plain),
    ("Deployment", "status", "DeploymentStatus", Plain),
    ("DeploymentSpec", "template", "PodTemplateSpec", Plain),
    ("DeploymentStatus", "conditions", "", Merge("type")),
    ("EphemeralContainer", "env", "", Merge("name")),
    ("EphemeralContainer", "ports", "", Merge("containerPort")),
    ("EphemeralContainer", "volumeDevices", "", Merge("devicePath")),
    ("EphemeralContainer", "volumeMounts", "", Merge("mountPath")),
    ("EphemeralVolumeSource", "volumeClaimTemplate", "PersistentVolumeClaimTemplate", Plain),
    ("HorizontalPodAutoscaler", "status", "HorizontalPodAutoscalerStatus", Plain),
    ("HorizontalPodAutoscalerStatus", "conditions", "", Merge("type")),
    ("Job", "spec", "JobSpec", Plain),
    ("Job", "status", "JobStatus", Plain),
    ("JobSchedulingConfiguration", "resourceClaims", "", Merge("name")),
    ("JobSpec", "scheduling", "JobSchedulingConfiguration", Plain),
    ("JobSpec", "template", "PodTemplateSpec", Plain),
    ("JobStatus", "conditions", "", Merge("type")),
    ("JobTemplateSpec", "spec", "JobSpec", Plain),
    ("MutatingWebhook", "matchConditions", "", Merge("name")),
    ("MutatingWebhookConfiguration", "webhooks", "MutatingWebhook", Merge("name")),
    ("Namespace", "status", "NamespaceStatus", Plain),
    ("NamespaceStatus", "conditions", "", Merge("type")),
    ("Node", "spec", "NodeSpec", Plain),
    ("Node", "status", "NodeStatus", Plain),
    ("NodeAllocatableResourceClaimStatus", "mapping", "", Merge("name")),
    ("NodeAllocatableResourceClaimStatus", "overhead", "", Merge("name")),
    ("NodeSpec", "podCIDRs", "", Merge("")),
    ("NodeStatus", "addresses", "", Merge("type")),
    ("NodeStatus", "conditions", "", Merge("type")),
    ("ObjectMeta", "finalizers", "", Merge("")),
    ("ObjectMeta", "ownerReferences", "", Merge("uid")),
    ("PersistentVolumeClaim", "status", "PersistentVolumeClaimStatus", Plain),
    ("PersistentVolumeClaimStatus", "conditions", "", Merge("type")),
    ("PersistentVolumeClaimStatus", "healthStatus", "VolumeHealthStatus", Plain),
    ("Pod", "spec", "PodSpec", Plain),
    ("Pod", "status", "PodStatus", Plain),
    ("PodDisruptionBudget", "spec", "PodDisruptionBudgetSpec", Plain),
    ("PodDisruptionBudget", "status", "PodDisruptionBudgetStatus", Plain),
    ("PodDisruptionBudgetSpec", "selector", "", Replace),
    ("PodDisruptionBudgetStatus", "conditions", "", Merge("type")),
    ("PodSpec", "containers", "Container", Merge("name")),
    ("PodSpec", "ephemeralContainers", "EphemeralContainer", Merge("name")),
    ("PodSpec", "evictionResponders", "", Merge("name")),
    ("PodSpec", "hostAliases", "", Merge("ip")),
    ("PodSpec", "imagePullSecrets", "", Merge("name")),
    ("PodSpec", "initContainers", "Container", Merge("name")),
    ("PodSpec", "resourceClaims", "", Merge("name")),
    ("PodSpec", "schedulingGates", "", Merge("name")),
    ("PodSpec", "topologySpreadConstraints", "", Merge("topologyKey")),
    ("PodSpec", "volumes", "Volume", Merge("name")),
    ("PodStatus", "conditions", "", Merge("type")),
    ("PodStatus", "hostIPs", "", Merge("ip")),
    ("PodStatus", "nodeAllocatableResourceClaimStatuses", "NodeAllocatableResourceClaimStatus", Merge("resourceClaimName")),
    ("PodStatus", "podIPs", "", Merge("ip")),
    ("PodStatus", "resourceClaimStatuses", "", Merge("name")),
    ("PodTemplate", "template", "PodTemplateSpec", Plain),
    ("PodTemplateSpec", "spec", "PodSpec", Plain),
    ("ReplicaSet", "spec", "ReplicaSetSpec", Plain),
    ("ReplicaSet", "status", "ReplicaSetStatus", Plain),
    ("ReplicaSetSpec", "template", "PodTemplateSpec", Plain),
    ("ReplicaSetStatus", "conditions", "", Merge("type")),
    ("ReplicationController", "spec", "ReplicationControllerSpec", Plain),
    ("ReplicationController", "status", "ReplicationControllerStatus", Plain),
    ("ReplicationControllerSpec", "template", "PodTemplateSpec", Plain),
    ("ReplicationControllerStatus", "conditions", "", Merge("type")),
    ("Service", "spec", "ServiceSpec", Plain),
    ("Service", "status", "ServiceStatus", Plain),
    ("ServiceAccount", "secrets", "", Merge("name")),
    ("ServiceSpec", "ports", "", Merge("port")),
    ("ServiceStatus", "conditions", "", Merge("type")),
    ("StatefulSet", "spec", "StatefulSetSpec", Plain),
    ("StatefulSet", "status", "StatefulSetStatus", Plain),
    ("StatefulSetSpec", "template", "PodTemplateSpec", Plain),
    ("StatefulSetStatus", "conditions", "", Merge("type")),
    ("ValidatingWebhook", "matchConditions", "", Merge("name")),
    ("ValidatingWebhookConfiguration", "webhooks", "ValidatingWebhook", Merge("name")),
    ("Volume", "ephemeral", "EphemeralVolumeSource", Plain),
    ("VolumeHealthStatus", "healthConditions", "", Merge("status")),
];

#[cfg(test)]
mod tests {
    use super::{ROWS, Treatment, Type};

    #[test]
    fn rows_are_sorted_and_lead_somewhere() {
        assert!(ROWS.windows(2).all(|w| (w[0].0, w[0].1) < (w[1].0, w[1].1)));
        for row in ROWS {
            assert!(row.2.is_empty() || ROWS.iter().any(|r| r.0 == row.2) || row.2.ends_with("Template"), "{row:?}");
        }
    }

    #[test]
    fn a_path_of_types() {
        let mut at = Type::of_kind("CronJob");
        for field in ["spec", "jobTemplate", "spec", "template", "spec"] {
            at = at.field(field).1;
        }
        let (treatment, container) = at.field("containers");
        assert_eq!(treatment, Treatment::Merge("name"));
        assert_eq!(container.field("ports"), (Treatment::Merge("containerPort"), Type::PLAIN));
        assert_eq!(Type::of_kind("ConfigMap").field("metadata").1.field("finalizers").0, Treatment::Merge(""));
        assert_eq!(Type::of_kind("ConfigMap").field("data"), (Treatment::Plain, Type::PLAIN));
    }
}
