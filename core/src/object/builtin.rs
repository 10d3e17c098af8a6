//! The built-in kinds: every resource that Kubernetes 1.36 serves by default, in the version in which Skeg holds it,
//! and those of feature gates ([`FeatureGates::serves`](crate::features::FeatureGates::serves)).
//!
//! A new row must go to the end: a kind's number is its row, and determines the order of its objects' keys.

use std::borrow::Cow;

use super::kind::{Kind, KindInfo, Verbs};

/// Whether `names` contains `name`. A hand-written loop, since the table is built at compile time.
const fn contains(names: &[&str], name: &str) -> bool {
    let mut index = 0;
    while index < names.len() {
        let (known, wanted) = (names[index].as_bytes(), name.as_bytes());
        let mut same = known.len() == wanted.len();
        let mut at = 0;
        while same && at < wanted.len() {
            same = known[at] == wanted[at];
            at += 1;
        }
        if same {
            return true;
        }
        index += 1;
    }
    false
}

macro_rules! kinds {
    ($($konst:ident $kind:literal $plural:literal $group:literal $version:literal $scope:ident $verbs:ident
       [$($short:literal)*] [$($category:literal)*] [$($sub:literal)*] $gen:ident $on_update:ident
       $([$($field:literal)*])?;)*) => {
        /// Every built-in kind, in order of number.
        pub(super) static TABLE: &[KindInfo] = &[$(KindInfo {
            group: Cow::Borrowed($group),
            version: Cow::Borrowed($version),
            also: Cow::Borrowed(&[]),
            kind: Cow::Borrowed($kind),
            plural: Cow::Borrowed($plural),
            singular: Cow::Borrowed(""),
            namespaced: kinds!(@scope $scope),
            short_names: Cow::Borrowed(&[$(Cow::Borrowed($short)),*]),
            categories: Cow::Borrowed(&[$(Cow::Borrowed($category)),*]),
            subresources: Cow::Borrowed(&[$(Cow::Borrowed($sub)),*]),
            selectable: kinds!(@fields $([$($field)*])?),
            verbs: Verbs::$verbs,
            has_status: contains(&[$($sub),*], "status"),
            has_generation: kinds!(@gen $gen),
            create_on_update: kinds!(@creates $on_update),
            unconditional_update: kinds!(@unconditional $on_update),
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
    (@fields) => { Cow::Borrowed(&[]) };
    (@fields [$($field:literal)*]) => { Cow::Borrowed(&[$(Cow::Borrowed($field)),*]) };
    (@scope ns) => { true };
    (@scope cluster) => { false };
    (@gen counted) => { true };
    (@gen plain) => { false };
    // What an update may omit: `any` lets it omit the revision, `creates` lets it name an object that does not exist.
    (@creates creates) => { true };
    (@creates any) => { false };
    (@creates based) => { false };
    (@creates creates_based) => { true };
    (@unconditional creates) => { true };
    (@unconditional any) => { true };
    (@unconditional based) => { false };
    (@unconditional creates_based) => { false };
}

kinds! {
    NAMESPACE "Namespace" "namespaces" "" "v1" cluster Single ["ns"] [] ["finalize" "status"] plain any
        ["status.phase"];
    NODE "Node" "nodes" "" "v1" cluster All ["no"] [] ["proxy" "status"] plain any ["spec.unschedulable"];
    POD "Pod" "pods" "" "v1" ns All ["po"] ["all"] ["attach" "binding" "ephemeralcontainers" "eviction" "exec" "log"
        "portforward" "proxy" "resize" "status"] counted any ["spec.nodeName" "spec.restartPolicy"
        "spec.schedulerName" "spec.serviceAccountName" "spec.hostNetwork" "status.phase" "status.podIP" "status.podIPs"
        "status.nominatedNodeName"];
    SERVICE "Service" "services" "" "v1" ns All ["svc"] ["all"] ["proxy" "status"] plain creates
        ["spec.clusterIP" "spec.type"];
    ENDPOINTS "Endpoints" "endpoints" "" "v1" ns All ["ep"] [] [] plain creates;
    EVENT "Event" "events" "" "v1" ns All ["ev"] [] [] plain creates
        ["involvedObject.kind" "involvedObject.namespace" "involvedObject.name" "involvedObject.uid"
        "involvedObject.apiVersion" "involvedObject.resourceVersion" "involvedObject.fieldPath" "reason"
        "reportingComponent" "source" "type"];
    REPLICATION_CONTROLLER "ReplicationController" "replicationcontrollers" "" "v1" ns All ["rc"] ["all"]
        ["scale" "status"] counted any ["status.replicas"];
    SERVICE_ACCOUNT "ServiceAccount" "serviceaccounts" "" "v1" ns All ["sa"] [] ["token"] plain any;
    CONFIG_MAP "ConfigMap" "configmaps" "" "v1" ns All ["cm"] [] [] plain any;
    SECRET "Secret" "secrets" "" "v1" ns All [] [] [] plain any ["type"];
    PERSISTENT_VOLUME "PersistentVolume" "persistentvolumes" "" "v1" cluster All ["pv"] [] ["status"] plain any;
    PERSISTENT_VOLUME_CLAIM "PersistentVolumeClaim" "persistentvolumeclaims" "" "v1" ns All ["pvc"] [] ["status"]
        plain any;
    POD_TEMPLATE "PodTemplate" "podtemplates" "" "v1" ns All [] [] [] counted any;
    RESOURCE_QUOTA "ResourceQuota" "resourcequotas" "" "v1" ns All ["quota"] [] ["status"] plain any;
    LIMIT_RANGE "LimitRange" "limitranges" "" "v1" ns All ["limits"] [] [] plain creates;
    REPLICA_SET "ReplicaSet" "replicasets" "apps" "v1" ns All ["rs"] ["all"] ["scale" "status"] counted any
        ["status.replicas"];
    DEPLOYMENT "Deployment" "deployments" "apps" "v1" ns All ["deploy"] ["all"] ["scale" "status"] counted any;
    STATEFUL_SET "StatefulSet" "statefulsets" "apps" "v1" ns All ["sts"] ["all"] ["scale" "status"] counted any;
    DAEMON_SET "DaemonSet" "daemonsets" "apps" "v1" ns All ["ds"] ["all"] ["status"] counted any;
    CONTROLLER_REVISION "ControllerRevision" "controllerrevisions" "apps" "v1" ns All [] [] [] plain any;
    JOB "Job" "jobs" "batch" "v1" ns All [] ["all"] ["status"] counted any ["status.successful"];
    CRON_JOB "CronJob" "cronjobs" "batch" "v1" ns All ["cj"] ["all"] ["status"] counted any;
    HORIZONTAL_POD_AUTOSCALER "HorizontalPodAutoscaler" "horizontalpodautoscalers" "autoscaling" "v2" ns All ["hpa"]
        ["all"] ["status"] counted any;
    POD_DISRUPTION_BUDGET "PodDisruptionBudget" "poddisruptionbudgets" "policy" "v1" ns All ["pdb"] [] ["status"]
        counted based;
    LEASE "Lease" "leases" "coordination.k8s.io" "v1" ns All [] [] [] plain creates_based;
    ENDPOINT_SLICE "EndpointSlice" "endpointslices" "discovery.k8s.io" "v1" ns All [] [] [] counted any;
    INGRESS "Ingress" "ingresses" "networking.k8s.io" "v1" ns All ["ing"] [] ["status"] counted any;
    INGRESS_CLASS "IngressClass" "ingressclasses" "networking.k8s.io" "v1" cluster All [] [] [] counted any;
    NETWORK_POLICY "NetworkPolicy" "networkpolicies" "networking.k8s.io" "v1" ns All ["netpol"] [] [] counted any;
    ROLE "Role" "roles" "rbac.authorization.k8s.io" "v1" ns All [] [] [] plain creates;
    ROLE_BINDING "RoleBinding" "rolebindings" "rbac.authorization.k8s.io" "v1" ns All [] [] [] plain creates;
    CLUSTER_ROLE "ClusterRole" "clusterroles" "rbac.authorization.k8s.io" "v1" cluster All [] [] [] plain creates;
    CLUSTER_ROLE_BINDING "ClusterRoleBinding" "clusterrolebindings" "rbac.authorization.k8s.io" "v1" cluster All [] []
        [] plain creates;
    PRIORITY_CLASS "PriorityClass" "priorityclasses" "scheduling.k8s.io" "v1" cluster All ["pc"] [] [] counted any;
    STORAGE_CLASS "StorageClass" "storageclasses" "storage.k8s.io" "v1" cluster All ["sc"] [] [] plain any;
    CSI_DRIVER "CSIDriver" "csidrivers" "storage.k8s.io" "v1" cluster All [] [] [] plain based;
    CSI_NODE "CSINode" "csinodes" "storage.k8s.io" "v1" cluster All [] [] [] plain based;
    VOLUME_ATTACHMENT "VolumeAttachment" "volumeattachments" "storage.k8s.io" "v1" cluster All [] [] ["status"]
        plain based;
    RUNTIME_CLASS "RuntimeClass" "runtimeclasses" "node.k8s.io" "v1" cluster All [] [] [] plain based;
    CUSTOM_RESOURCE_DEFINITION "CustomResourceDefinition" "customresourcedefinitions" "apiextensions.k8s.io" "v1"
        cluster All ["crd" "crds"] ["api-extensions"] ["status"] counted based;
    MUTATING_WEBHOOK_CONFIGURATION "MutatingWebhookConfiguration" "mutatingwebhookconfigurations"
        "admissionregistration.k8s.io" "v1" cluster All [] ["api-extensions"] [] counted based;
    VALIDATING_WEBHOOK_CONFIGURATION "ValidatingWebhookConfiguration" "validatingwebhookconfigurations"
        "admissionregistration.k8s.io" "v1" cluster All [] ["api-extensions"] [] counted based;
    COMPONENT_STATUS "ComponentStatus" "componentstatuses" "" "v1" cluster Read ["cs"] [] [] plain any;
    BINDING "Binding" "bindings" "" "v1" ns Create [] [] [] plain any;
    TOKEN_REVIEW "TokenReview" "tokenreviews" "authentication.k8s.io" "v1" cluster Create [] [] [] plain any;
    SELF_SUBJECT_REVIEW "SelfSubjectReview" "selfsubjectreviews" "authentication.k8s.io" "v1" cluster Create [] [] []
        plain any;
    SUBJECT_ACCESS_REVIEW "SubjectAccessReview" "subjectaccessreviews" "authorization.k8s.io" "v1" cluster Create [] []
        [] plain any;
    SELF_SUBJECT_ACCESS_REVIEW "SelfSubjectAccessReview" "selfsubjectaccessreviews" "authorization.k8s.io" "v1" cluster
        Create [] [] [] plain any;
    SELF_SUBJECT_RULES_REVIEW "SelfSubjectRulesReview" "selfsubjectrulesreviews" "authorization.k8s.io" "v1" cluster
        Create [] [] [] plain any;
    LOCAL_SUBJECT_ACCESS_REVIEW "LocalSubjectAccessReview" "localsubjectaccessreviews" "authorization.k8s.io" "v1" ns
        Create [] [] [] plain any;
    CERTIFICATE_SIGNING_REQUEST "CertificateSigningRequest" "certificatesigningrequests" "certificates.k8s.io" "v1"
        cluster All ["csr"] [] ["approval" "status"] plain any ["spec.signerName"];
    IP_ADDRESS "IPAddress" "ipaddresses" "networking.k8s.io" "v1" cluster All ["ip"] [] [] plain any;
    SERVICE_CIDR "ServiceCIDR" "servicecidrs" "networking.k8s.io" "v1" cluster All [] [] ["status"] plain any;
    FLOW_SCHEMA "FlowSchema" "flowschemas" "flowcontrol.apiserver.k8s.io" "v1" cluster All [] [] ["status"] counted any;
    PRIORITY_LEVEL_CONFIGURATION "PriorityLevelConfiguration" "prioritylevelconfigurations"
        "flowcontrol.apiserver.k8s.io" "v1" cluster All [] [] ["status"] counted any;
    CSI_STORAGE_CAPACITY "CSIStorageCapacity" "csistoragecapacities" "storage.k8s.io" "v1" ns All [] [] [] plain based;
    VOLUME_ATTRIBUTES_CLASS "VolumeAttributesClass" "volumeattributesclasses" "storage.k8s.io" "v1" cluster All ["vac"]
        [] [] plain any;
    DEVICE_CLASS "DeviceClass" "deviceclasses" "resource.k8s.io" "v1" cluster All [] [] [] counted any;
    RESOURCE_CLAIM "ResourceClaim" "resourceclaims" "resource.k8s.io" "v1" ns All [] [] ["status"] plain any;
    RESOURCE_CLAIM_TEMPLATE "ResourceClaimTemplate" "resourceclaimtemplates" "resource.k8s.io" "v1" ns All [] [] []
        plain any;
    RESOURCE_SLICE "ResourceSlice" "resourceslices" "resource.k8s.io" "v1" cluster All [] [] [] counted any
        ["spec.driver" "spec.nodeName"];
    VALIDATING_ADMISSION_POLICY "ValidatingAdmissionPolicy" "validatingadmissionpolicies" "admissionregistration.k8s.io"
        "v1" cluster All [] ["api-extensions"] ["status"] counted based;
    VALIDATING_ADMISSION_POLICY_BINDING "ValidatingAdmissionPolicyBinding" "validatingadmissionpolicybindings"
        "admissionregistration.k8s.io" "v1" cluster All [] ["api-extensions"] [] counted based;
    MUTATING_ADMISSION_POLICY "MutatingAdmissionPolicy" "mutatingadmissionpolicies" "admissionregistration.k8s.io" "v1"
        cluster All [] ["api-extensions"] [] counted based;
    MUTATING_ADMISSION_POLICY_BINDING "MutatingAdmissionPolicyBinding" "mutatingadmissionpolicybindings"
        "admissionregistration.k8s.io" "v1" cluster All [] ["api-extensions"] [] counted based;
    API_SERVICE "APIService" "apiservices" "apiregistration.k8s.io" "v1" cluster All [] ["api-extensions"] ["status"]
        plain based;
    // Served only where the gate GenericWorkload is on.
    WORKLOAD "Workload" "workloads" "scheduling.k8s.io" "v1alpha2" ns All [] [] [] plain any;
    POD_GROUP "PodGroup" "podgroups" "scheduling.k8s.io" "v1alpha2" ns All [] [] ["status"] plain any;
}
