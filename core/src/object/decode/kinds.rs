//! The k8s-openapi type as which each built-in kind is decoded.

use std::collections::BTreeMap;

use k8s_openapi::api::{
    admissionregistration::v1 as admissionregistration_v1, authentication::v1 as authentication_v1,
    authorization::v1 as authorization_v1, autoscaling::v2 as autoscaling_v2, certificates::v1 as certificates_v1,
    core::v1 as core_v1, flowcontrol::v1 as flowcontrol_v1, networking::v1 as networking_v1, node::v1 as node_v1,
    rbac::v1 as rbac_v1, resource::v1 as resource_v1, scheduling::v1 as scheduling_v1, storage::v1 as storage_v1,
};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1 as apiextensions_v1;
use k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1 as apiregistration_v1;
use k8s_openapi::serde::Serialize;
use serde::Deserialize;
use serde_json::Value;

use super::{DecodeError, reader};
use crate::object::{Dynamic, FieldError, Kind, KindRef, Obj, Object, Resource};

macro_rules! read_as {
    ($kind:ident, $of:ident, $value:ident;
     dynamic { $($dynamic:ident $other:ty;)* }) => {
        match $kind {
            $(Kind::$dynamic => dynamic::<$other>($kind, $of, $value),)*
            Kind::SECRET => secret($of, $value),
            // A kind without a k8s-openapi type is held as the JSON that was sent.
            other => custom(other, $of, $value),
        }
    };
}

/// Decodes a value as the type of `kind`, whose description is `of`.
pub(super) fn read(kind: Kind, of: KindRef, value: Value) -> Result<Object, DecodeError> {
    let value = match Object::read_typed(kind, value) {
        Ok(read) => return read,
        Err(value) => value,
    };
    read_as! { kind, of, value;
        dynamic {
            CONFIG_MAP core_v1::ConfigMap;
            PERSISTENT_VOLUME core_v1::PersistentVolume;
            PERSISTENT_VOLUME_CLAIM core_v1::PersistentVolumeClaim;
            POD_TEMPLATE core_v1::PodTemplate;
            RESOURCE_QUOTA core_v1::ResourceQuota;
            LIMIT_RANGE core_v1::LimitRange;
            HORIZONTAL_POD_AUTOSCALER autoscaling_v2::HorizontalPodAutoscaler;
            INGRESS networking_v1::Ingress;
            INGRESS_CLASS networking_v1::IngressClass;
            NETWORK_POLICY networking_v1::NetworkPolicy;
            ROLE rbac_v1::Role;
            ROLE_BINDING rbac_v1::RoleBinding;
            CLUSTER_ROLE rbac_v1::ClusterRole;
            CLUSTER_ROLE_BINDING rbac_v1::ClusterRoleBinding;
            PRIORITY_CLASS scheduling_v1::PriorityClass;
            STORAGE_CLASS storage_v1::StorageClass;
            CSI_DRIVER storage_v1::CSIDriver;
            CSI_NODE storage_v1::CSINode;
            VOLUME_ATTACHMENT storage_v1::VolumeAttachment;
            RUNTIME_CLASS node_v1::RuntimeClass;
            CUSTOM_RESOURCE_DEFINITION apiextensions_v1::CustomResourceDefinition;
            MUTATING_WEBHOOK_CONFIGURATION admissionregistration_v1::MutatingWebhookConfiguration;
            VALIDATING_WEBHOOK_CONFIGURATION admissionregistration_v1::ValidatingWebhookConfiguration;
            COMPONENT_STATUS core_v1::ComponentStatus;
            BINDING core_v1::Binding;
            TOKEN_REVIEW authentication_v1::TokenReview;
            SELF_SUBJECT_REVIEW authentication_v1::SelfSubjectReview;
            SUBJECT_ACCESS_REVIEW authorization_v1::SubjectAccessReview;
            SELF_SUBJECT_ACCESS_REVIEW authorization_v1::SelfSubjectAccessReview;
            SELF_SUBJECT_RULES_REVIEW authorization_v1::SelfSubjectRulesReview;
            LOCAL_SUBJECT_ACCESS_REVIEW authorization_v1::LocalSubjectAccessReview;
            CERTIFICATE_SIGNING_REQUEST certificates_v1::CertificateSigningRequest;
            IP_ADDRESS networking_v1::IPAddress;
            SERVICE_CIDR networking_v1::ServiceCIDR;
            FLOW_SCHEMA flowcontrol_v1::FlowSchema;
            PRIORITY_LEVEL_CONFIGURATION flowcontrol_v1::PriorityLevelConfiguration;
            CSI_STORAGE_CAPACITY storage_v1::CSIStorageCapacity;
            VOLUME_ATTRIBUTES_CLASS storage_v1::VolumeAttributesClass;
            DEVICE_CLASS resource_v1::DeviceClass;
            RESOURCE_CLAIM resource_v1::ResourceClaim;
            RESOURCE_CLAIM_TEMPLATE resource_v1::ResourceClaimTemplate;
            RESOURCE_SLICE resource_v1::ResourceSlice;
            VALIDATING_ADMISSION_POLICY admissionregistration_v1::ValidatingAdmissionPolicy;
            VALIDATING_ADMISSION_POLICY_BINDING admissionregistration_v1::ValidatingAdmissionPolicyBinding;
            MUTATING_ADMISSION_POLICY admissionregistration_v1::MutatingAdmissionPolicy;
            MUTATING_ADMISSION_POLICY_BINDING admissionregistration_v1::MutatingAdmissionPolicyBinding;
            API_SERVICE apiregistration_v1::APIService;
        }
    }
}

/// Decodes a value as a kind with a typed form.
pub(in crate::object) fn typed<R: Resource + for<'de> Deserialize<'de>>(value: Value) -> Result<Object, DecodeError> {
    let whole: R = reader::read(value)?;
    let bad_revision = |e: FieldError| DecodeError { path: e.field.clone(), ..DecodeError::whole(e.to_string()) };
    Ok(R::into_object(Obj::from_whole(whole).map_err(bad_revision)?))
}

fn dynamic<T: Serialize + for<'de> Deserialize<'de>>(
    kind: Kind,
    of: KindRef,
    value: Value,
) -> Result<Object, DecodeError> {
    let whole: T = reader::read(value)?;
    hold(kind, of, &whole)
}

fn hold<T: Serialize>(kind: Kind, of: KindRef, whole: &T) -> Result<Object, DecodeError> {
    let value = serde_json::to_value(whole).map_err(|e| DecodeError::whole(e.to_string()))?;
    custom(kind, of, value)
}

fn custom(kind: Kind, of: KindRef, value: Value) -> Result<Object, DecodeError> {
    Dynamic::from_json(kind, of, value).map(Object::Dynamic).map_err(DecodeError::whole)
}

/// Merges `stringData` over `data`: `stringData` is write-only in the API.
fn secret(of: KindRef, value: Value) -> Result<Object, DecodeError> {
    let mut secret: core_v1::Secret = reader::read(value)?;
    if let Some(texts) = secret.string_data.take() {
        let data = secret.data.get_or_insert_with(BTreeMap::new);
        data.extend(texts.into_iter().map(|(k, v)| (k, k8s_openapi::ByteString(v.into_bytes()))));
    }
    hold(Kind::SECRET, of, &secret)
}

#[cfg(test)]
mod tests {
    use super::Kind;
    use serde_json::json;

    #[test]
    fn every_kind_of_the_registry_is_checked_against_its_type() {
        for kind in Kind::all() {
            let info = kind.row();
            let value = json!({"apiVersion": info.api_version(), "kind": info.kind, "metadata": {}, "nope": 1});
            let errors = super::super::strict(value).expect_err(&info.kind);
            assert_eq!(errors[0].message, "unknown field \"nope\"", "{kind}");
        }
    }
}
