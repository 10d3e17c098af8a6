//! The one registry of kinds. Discovery, paths, RESTMapping, validation of scope, `kubectl get` short names and the
//! store's keys all derive from this table; adding a built-in kind is adding a row here.

use std::fmt;

/// A kind of object: an index into the registry. `Copy`, small, and ordered as the table is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Kind(pub u16);

/// What the registry knows of a kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KindInfo {
    /// API group; empty for the core group.
    pub group: &'static str,
    /// Version within the group.
    pub version: &'static str,
    /// Kind as in manifests: `Pod`.
    pub kind: &'static str,
    /// Plural resource name as in paths: `pods`.
    pub plural: &'static str,
    /// Whether objects live in a namespace.
    pub namespaced: bool,
    /// `kubectl`'s short names.
    pub short_names: &'static [&'static str],
    /// Subresources that may be addressed.
    pub subresources: &'static [&'static str],
    /// Whether `metadata.generation` counts changes of the spec.
    pub has_generation: bool,
}

impl KindInfo {
    /// `v1` or `apps/v1`.
    pub fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.to_owned() } else { format!("{}/{}", self.group, self.version) }
    }

    /// Singular resource name: the kind in lower case.
    pub fn singular(&self) -> String {
        self.kind.to_lowercase()
    }

    /// `pods` or `deployments.apps`: the qualified resource of error messages.
    pub fn qualified(&self) -> String {
        if self.group.is_empty() { self.plural.to_owned() } else { format!("{}.{}", self.plural, self.group) }
    }
}

macro_rules! kinds {
    ($($konst:ident $kind:literal $plural:literal $group:literal $version:literal $scope:ident
       [$($short:literal)*] [$($sub:literal)*] $gen:ident;)*) => {
        /// Every built-in kind, in the order of their indices.
        static TABLE: &[KindInfo] = &[$(KindInfo {
            group: $group, version: $version, kind: $kind, plural: $plural,
            namespaced: kinds!(@scope $scope), short_names: &[$($short),*], subresources: &[$($sub),*],
            has_generation: kinds!(@gen $gen),
        }),*];
        #[allow(non_camel_case_types, clippy::upper_case_acronyms)]
        #[derive(Clone, Copy)]
        #[repr(u16)]
        enum Index { $($konst),* }
        impl Kind {
            $(#[doc = concat!("`", $kind, "` of group `", $group, "`.")]
              pub const $konst: Kind = Kind(Index::$konst as u16);)*
        }
    };
    (@scope ns) => { true };
    (@scope cluster) => { false };
    (@gen counted) => { true };
    (@gen plain) => { false };
}

kinds! {
    NAMESPACE "Namespace" "namespaces" "" "v1" cluster ["ns"] ["status" "finalize"] plain;
    NODE "Node" "nodes" "" "v1" cluster ["no"] ["status"] plain;
    POD "Pod" "pods" "" "v1" ns ["po"] ["status" "binding" "eviction" "ephemeralcontainers" "resize"] counted;
    SERVICE "Service" "services" "" "v1" ns ["svc"] ["status"] plain;
    ENDPOINTS "Endpoints" "endpoints" "" "v1" ns ["ep"] [] plain;
    EVENT "Event" "events" "" "v1" ns ["ev"] [] plain;
    REPLICATION_CONTROLLER "ReplicationController" "replicationcontrollers" "" "v1" ns ["rc"] ["status" "scale"] counted;
    SERVICE_ACCOUNT "ServiceAccount" "serviceaccounts" "" "v1" ns ["sa"] ["token"] plain;
    CONFIG_MAP "ConfigMap" "configmaps" "" "v1" ns ["cm"] [] plain;
    SECRET "Secret" "secrets" "" "v1" ns [] [] plain;
    PERSISTENT_VOLUME "PersistentVolume" "persistentvolumes" "" "v1" cluster ["pv"] ["status"] plain;
    PERSISTENT_VOLUME_CLAIM "PersistentVolumeClaim" "persistentvolumeclaims" "" "v1" ns ["pvc"] ["status"] plain;
    POD_TEMPLATE "PodTemplate" "podtemplates" "" "v1" ns [] [] counted;
    RESOURCE_QUOTA "ResourceQuota" "resourcequotas" "" "v1" ns ["quota"] ["status"] plain;
    LIMIT_RANGE "LimitRange" "limitranges" "" "v1" ns ["limits"] [] plain;
    REPLICA_SET "ReplicaSet" "replicasets" "apps" "v1" ns ["rs"] ["status" "scale"] counted;
    DEPLOYMENT "Deployment" "deployments" "apps" "v1" ns ["deploy"] ["status" "scale"] counted;
    STATEFUL_SET "StatefulSet" "statefulsets" "apps" "v1" ns ["sts"] ["status" "scale"] counted;
    DAEMON_SET "DaemonSet" "daemonsets" "apps" "v1" ns ["ds"] ["status"] counted;
    CONTROLLER_REVISION "ControllerRevision" "controllerrevisions" "apps" "v1" ns [] [] plain;
    JOB "Job" "jobs" "batch" "v1" ns [] ["status"] counted;
    CRON_JOB "CronJob" "cronjobs" "batch" "v1" ns ["cj"] ["status"] counted;
    HORIZONTAL_POD_AUTOSCALER "HorizontalPodAutoscaler" "horizontalpodautoscalers" "autoscaling" "v2" ns ["hpa"] ["status"] counted;
    POD_DISRUPTION_BUDGET "PodDisruptionBudget" "poddisruptionbudgets" "policy" "v1" ns ["pdb"] ["status"] counted;
    LEASE "Lease" "leases" "coordination.k8s.io" "v1" ns [] [] plain;
    ENDPOINT_SLICE "EndpointSlice" "endpointslices" "discovery.k8s.io" "v1" ns [] [] counted;
    INGRESS "Ingress" "ingresses" "networking.k8s.io" "v1" ns ["ing"] ["status"] counted;
    INGRESS_CLASS "IngressClass" "ingressclasses" "networking.k8s.io" "v1" cluster [] [] counted;
    NETWORK_POLICY "NetworkPolicy" "networkpolicies" "networking.k8s.io" "v1" ns ["netpol"] [] counted;
    ROLE "Role" "roles" "rbac.authorization.k8s.io" "v1" ns [] [] plain;
    ROLE_BINDING "RoleBinding" "rolebindings" "rbac.authorization.k8s.io" "v1" ns [] [] plain;
    CLUSTER_ROLE "ClusterRole" "clusterroles" "rbac.authorization.k8s.io" "v1" cluster [] [] plain;
    CLUSTER_ROLE_BINDING "ClusterRoleBinding" "clusterrolebindings" "rbac.authorization.k8s.io" "v1" cluster [] [] plain;
    PRIORITY_CLASS "PriorityClass" "priorityclasses" "scheduling.k8s.io" "v1" cluster ["pc"] [] counted;
    STORAGE_CLASS "StorageClass" "storageclasses" "storage.k8s.io" "v1" cluster ["sc"] [] plain;
    CSI_DRIVER "CSIDriver" "csidrivers" "storage.k8s.io" "v1" cluster [] [] plain;
    CSI_NODE "CSINode" "csinodes" "storage.k8s.io" "v1" cluster [] [] plain;
    VOLUME_ATTACHMENT "VolumeAttachment" "volumeattachments" "storage.k8s.io" "v1" cluster [] ["status"] plain;
    RUNTIME_CLASS "RuntimeClass" "runtimeclasses" "node.k8s.io" "v1" cluster [] [] plain;
    CUSTOM_RESOURCE_DEFINITION "CustomResourceDefinition" "customresourcedefinitions" "apiextensions.k8s.io" "v1" cluster ["crd" "crds"] ["status"] counted;
    MUTATING_WEBHOOK_CONFIGURATION "MutatingWebhookConfiguration" "mutatingwebhookconfigurations" "admissionregistration.k8s.io" "v1" cluster [] [] counted;
    VALIDATING_WEBHOOK_CONFIGURATION "ValidatingWebhookConfiguration" "validatingwebhookconfigurations" "admissionregistration.k8s.io" "v1" cluster [] [] counted;
}

impl Kind {
    /// Every built-in kind.
    pub fn all() -> impl Iterator<Item = Kind> {
        (0..TABLE.len() as u16).map(Kind)
    }

    /// The row of the registry.
    pub fn info(self) -> &'static KindInfo {
        &TABLE[usize::from(self.0)]
    }

    /// Finds a kind by `apiVersion` and `kind` as a manifest gives them.
    pub fn by_api_version(api_version: &str, kind: &str) -> Option<Kind> {
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        Kind::all().find(|k| {
            let i = k.info();
            i.kind == kind && i.group == group && i.version == version
        })
    }

    /// Finds a kind by group and plural resource name as a path gives them.
    pub fn by_resource(group: &str, plural: &str) -> Option<Kind> {
        Kind::all().find(|k| k.info().plural == plural && k.info().group == group)
    }

    /// Finds a kind as a person names it on a command line: plural, singular or short name, with or without group.
    pub fn by_alias(alias: &str) -> Option<Kind> {
        let lower = alias.to_lowercase();
        let (name, group) = match lower.split_once('.') {
            Some((name, group)) => (name, Some(group)),
            None => (lower.as_str(), None),
        };
        Kind::all().find(|k| {
            let i = k.info();
            (i.plural == name || i.singular() == name || i.short_names.contains(&name))
                && group.is_none_or(|g| g == i.group)
        })
    }
}

impl fmt::Debug for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.info().kind)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.info().kind)
    }
}

#[cfg(test)]
mod tests {
    use super::Kind;

    #[test]
    fn rows_are_unique_and_found_again() {
        for kind in Kind::all() {
            let i = kind.info();
            assert_eq!(Kind::by_api_version(&i.api_version(), i.kind), Some(kind));
            assert_eq!(Kind::by_resource(i.group, i.plural), Some(kind));
            assert_eq!(Kind::by_alias(i.plural), Some(kind));
        }
        assert_eq!(Kind::by_alias("deploy"), Some(Kind::DEPLOYMENT));
        assert_eq!(Kind::by_alias("deployments.apps"), Some(Kind::DEPLOYMENT));
        assert_eq!(Kind::by_api_version("extensions/v1beta1", "Deployment"), None);
    }
}
