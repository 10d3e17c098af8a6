//! Strategies of the kinds that are held as JSON ([`Dynamic`]), because no state machine reads their fields as a typed
//! struct. There is one file per kind, or per few similar kinds, with its defaults and validation; `json_kinds!` has
//! a row for each.
//!
//! The trait's default methods are the rules that most kinds share. Custom kinds have no row: they follow their schema.

mod admission_policy;
mod api_service;
mod certificate_signing_request;
mod config_map;
mod csi_driver;
mod custom_resource_definition;
mod fields;
mod flow_control;
mod horizontal_pod_autoscaler;
mod ingress;
mod ingress_class;
mod limit_range;
mod missing;
mod network_policy;
mod persistent_volume;
mod persistent_volume_claim;
mod pod_group;
mod pod_template;
mod priority_class;
mod resource_claim;
mod resource_quota;
mod resource_slice;
mod role;
mod role_binding;
mod runtime_class;
mod secret;
mod service_cidr;
mod storage_class;
mod webhook_client;
mod webhook_configuration;

use std::rc::Rc;

use k8s_openapi::api::{
    admissionregistration::v1 as admissionregistration_v1, authentication::v1 as authentication_v1,
    authorization::v1 as authorization_v1, autoscaling::v2 as autoscaling_v2, certificates::v1 as certificates_v1,
    core::v1 as core_v1, flowcontrol::v1 as flowcontrol_v1, networking::v1 as networking_v1, node::v1 as node_v1,
    rbac::v1 as rbac_v1, resource::v1 as resource_v1, scheduling::v1 as scheduling_v1,
    scheduling::v1alpha2 as scheduling_v1alpha2, storage::v1 as storage_v1,
};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1 as apiextensions_v1;
use k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1 as apiregistration_v1;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::Wall;
use crate::object::decode::{self, DecodeError};
use crate::object::validation::names::{self, Wrongs};
use crate::object::{Dynamic, FieldError, Kind, KindRef, Object};
use missing::{Missing, fill};

/// The rules of a kind that is held as JSON. It is implemented for the k8s-openapi type that the JSON must fit.
trait JsonStrategy: Serialize + for<'de> Deserialize<'de> {
    /// The rule for names: what is wrong with one.
    const NAME: fn(&str) -> Wrongs = names::subdomain;

    /// Changes what was decoded into the form in which it is held.
    fn normalize(&mut self) {}

    /// `PrepareForCreate`: clears what a client must not set in a new object. By default this is the status, since only
    /// controllers write it.
    fn prepare_for_create(object: &mut Dynamic) {
        if object.of.has_status {
            object.status = None;
        }
    }

    /// Restores from the stored object what an update of the whole object must not change (`PrepareForUpdate`).
    fn prepare_for_update(_new: &mut Dynamic, _old: &Dynamic) {}

    /// The same for an update of the status.
    fn prepare_for_status_update(_new: &mut Dynamic, _old: &Dynamic, _now: Wall) {}

    /// Takes from the object that was sent what the subresource `/approval` changes.
    fn approve(_new: &mut Dynamic, _sent: &Dynamic, _now: Wall) {}

    /// Looks for missing values in the body that have a default.
    fn defaults(_missing: &mut Missing<'_>) {}

    /// Sets defaults for fields that the client left out. Must not copy a part in which nothing is missing.
    fn apply_defaults(object: &mut Dynamic) {
        fill(object, Self::defaults);
    }

    /// Validates an object apart from its metadata.
    fn validate(_object: &Dynamic, _errors: &mut Vec<FieldError>) {}

    /// Validates what must hold only for a new object.
    fn validate_new(_object: &Dynamic, _errors: &mut Vec<FieldError>) {}

    /// Validates how an update changes the body. The new object is also validated by itself.
    fn validate_update(_new: &Dynamic, _old: &Dynamic, _errors: &mut Vec<FieldError>) {}

    /// Validates how an update changes the status.
    fn validate_status_update(_new: &Dynamic, _old: &Dynamic, _errors: &mut Vec<FieldError>) {}

    /// Validates what the subresource `/approval` makes of an object.
    fn validate_approval(_new: &Dynamic, _old: &Dynamic, _errors: &mut Vec<FieldError>) {}
}

/// Decodes a value as the type, and holds it as JSON.
fn read_as<T: JsonStrategy>(kind: Kind, of: KindRef, value: Value) -> Result<Object, DecodeError> {
    let mut whole: T = decode::read(value)?;
    whole.normalize();
    let value = serde_json::to_value(whole).map_err(|e| DecodeError::whole(e.to_string()))?;
    hold(kind, of, value)
}

fn hold(kind: Kind, of: KindRef, value: Value) -> Result<Object, DecodeError> {
    Dynamic::from_json(kind, of, value).map(Object::Dynamic).map_err(DecodeError::whole)
}

macro_rules! json_kinds {
    (with rules { $($ruled:ident $ruled_type:ty;)* } without rules { $($plain:ident $plain_type:ty;)* }) => {
        $(impl JsonStrategy for $plain_type {})*
        json_kinds! { $($ruled $ruled_type;)* $($plain $plain_type;)* }
    };
    ($($kind:ident $type:ty;)*) => {
        /// Decodes a value. That of a custom kind is held as it was sent.
        pub(in crate::object) fn read(kind: Kind, of: KindRef, value: Value) -> Result<Object, DecodeError> {
            match kind {
                $(Kind::$kind => read_as::<$type>(kind, of, value),)*
                custom => hold(custom, of, value),
            }
        }

        /// The rule for names of a kind.
        pub(in crate::object) fn name_rule(kind: Kind) -> fn(&str) -> Wrongs {
            match kind {
                $(Kind::$kind => <$type as JsonStrategy>::NAME,)*
                _custom => names::subdomain,
            }
        }

        /// See [`JsonStrategy::prepare_for_create`].
        pub(in crate::object) fn prepare_for_create(object: &mut Dynamic) {
            match object.kind {
                $(Kind::$kind => <$type as JsonStrategy>::prepare_for_create(object),)*
                _custom if object.of.has_status => object.status = None,
                _custom => {}
            }
        }

        /// See [`JsonStrategy::prepare_for_update`].
        pub(in crate::object) fn prepare_for_update(new: &mut Dynamic, old: &Dynamic) {
            match new.kind {
                $(Kind::$kind => <$type as JsonStrategy>::prepare_for_update(new, old),)*
                _custom => {}
            }
        }

        /// See [`JsonStrategy::prepare_for_status_update`].
        pub(in crate::object) fn prepare_for_status_update(new: &mut Dynamic, old: &Dynamic, now: Wall) {
            match new.kind {
                $(Kind::$kind => <$type as JsonStrategy>::prepare_for_status_update(new, old, now),)*
                _custom => {}
            }
        }

        /// See [`JsonStrategy::approve`].
        pub(in crate::object) fn approve(new: &mut Dynamic, sent: &Dynamic, now: Wall) {
            match new.kind {
                $(Kind::$kind => <$type as JsonStrategy>::approve(new, sent, now),)*
                _custom => {}
            }
        }

        /// See [`JsonStrategy::validate_status_update`].
        pub(in crate::object) fn validate_status_update(new: &Dynamic, old: &Dynamic, errors: &mut Vec<FieldError>) {
            match new.kind {
                $(Kind::$kind => <$type as JsonStrategy>::validate_status_update(new, old, errors),)*
                _custom => {}
            }
        }

        /// See [`JsonStrategy::validate_approval`].
        pub(in crate::object) fn validate_approval(new: &Dynamic, old: &Dynamic, errors: &mut Vec<FieldError>) {
            match new.kind {
                $(Kind::$kind => <$type as JsonStrategy>::validate_approval(new, old, errors),)*
                _custom => {}
            }
        }

        /// See [`JsonStrategy::apply_defaults`].
        pub(in crate::object) fn apply_defaults(object: &mut Dynamic) {
            match object.kind {
                $(Kind::$kind => <$type as JsonStrategy>::apply_defaults(object),)*
                _custom => {}
            }
        }

        fn validate(object: &Dynamic, errors: &mut Vec<FieldError>) {
            match object.kind {
                $(Kind::$kind => <$type as JsonStrategy>::validate(object, errors),)*
                _custom => {}
            }
        }

        /// Validates a new object apart from its metadata.
        pub(in crate::object) fn validate_new(object: &Dynamic, errors: &mut Vec<FieldError>) {
            validate(object, errors);
            match object.kind {
                $(Kind::$kind => <$type as JsonStrategy>::validate_new(object, errors),)*
                _custom => {}
            }
        }

        /// Validates an update apart from the metadata. A body that did not change is not validated again.
        pub(in crate::object) fn validate_update(new: &Dynamic, old: &Dynamic, errors: &mut Vec<FieldError>) {
            if Rc::ptr_eq(&new.body, &old.body) || new.body == old.body {
                return;
            }
            validate(new, errors);
            match new.kind {
                $(Kind::$kind => <$type as JsonStrategy>::validate_update(new, old, errors),)*
                _custom => {}
            }
        }
    };
}

json_kinds! {
    with rules {
        CONFIG_MAP core_v1::ConfigMap;
        API_SERVICE apiregistration_v1::APIService;
        PRIORITY_LEVEL_CONFIGURATION flowcontrol_v1::PriorityLevelConfiguration;
        FLOW_SCHEMA flowcontrol_v1::FlowSchema;
        SECRET core_v1::Secret;
        PERSISTENT_VOLUME core_v1::PersistentVolume;
        PERSISTENT_VOLUME_CLAIM core_v1::PersistentVolumeClaim;
        POD_TEMPLATE core_v1::PodTemplate;
        RESOURCE_QUOTA core_v1::ResourceQuota;
        LIMIT_RANGE core_v1::LimitRange;
        HORIZONTAL_POD_AUTOSCALER autoscaling_v2::HorizontalPodAutoscaler;
        INGRESS networking_v1::Ingress;
        INGRESS_CLASS networking_v1::IngressClass;
        NETWORK_POLICY networking_v1::NetworkPolicy;
        IP_ADDRESS networking_v1::IPAddress;
        SERVICE_CIDR networking_v1::ServiceCIDR;
        ROLE rbac_v1::Role;
        ROLE_BINDING rbac_v1::RoleBinding;
        CLUSTER_ROLE rbac_v1::ClusterRole;
        CLUSTER_ROLE_BINDING rbac_v1::ClusterRoleBinding;
        PRIORITY_CLASS scheduling_v1::PriorityClass;
        STORAGE_CLASS storage_v1::StorageClass;
        CSI_DRIVER storage_v1::CSIDriver;
        RUNTIME_CLASS node_v1::RuntimeClass;
        CERTIFICATE_SIGNING_REQUEST certificates_v1::CertificateSigningRequest;
        CUSTOM_RESOURCE_DEFINITION apiextensions_v1::CustomResourceDefinition;
        MUTATING_WEBHOOK_CONFIGURATION admissionregistration_v1::MutatingWebhookConfiguration;
        VALIDATING_WEBHOOK_CONFIGURATION admissionregistration_v1::ValidatingWebhookConfiguration;
        VALIDATING_ADMISSION_POLICY admissionregistration_v1::ValidatingAdmissionPolicy;
        VALIDATING_ADMISSION_POLICY_BINDING admissionregistration_v1::ValidatingAdmissionPolicyBinding;
        MUTATING_ADMISSION_POLICY admissionregistration_v1::MutatingAdmissionPolicy;
        MUTATING_ADMISSION_POLICY_BINDING admissionregistration_v1::MutatingAdmissionPolicyBinding;
        DEVICE_CLASS resource_v1::DeviceClass;
        RESOURCE_CLAIM resource_v1::ResourceClaim;
        RESOURCE_CLAIM_TEMPLATE resource_v1::ResourceClaimTemplate;
        RESOURCE_SLICE resource_v1::ResourceSlice;
        WORKLOAD scheduling_v1alpha2::Workload;
        POD_GROUP scheduling_v1alpha2::PodGroup;
    }
    without rules {
        CSI_NODE storage_v1::CSINode;
        VOLUME_ATTACHMENT storage_v1::VolumeAttachment;
        COMPONENT_STATUS core_v1::ComponentStatus;
        BINDING core_v1::Binding;
        TOKEN_REVIEW authentication_v1::TokenReview;
        SELF_SUBJECT_REVIEW authentication_v1::SelfSubjectReview;
        SUBJECT_ACCESS_REVIEW authorization_v1::SubjectAccessReview;
        SELF_SUBJECT_ACCESS_REVIEW authorization_v1::SelfSubjectAccessReview;
        SELF_SUBJECT_RULES_REVIEW authorization_v1::SelfSubjectRulesReview;
        LOCAL_SUBJECT_ACCESS_REVIEW authorization_v1::LocalSubjectAccessReview;
        CSI_STORAGE_CAPACITY storage_v1::CSIStorageCapacity;
        VOLUME_ATTRIBUTES_CLASS storage_v1::VolumeAttributesClass;
    }
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
            let errors = crate::object::decode::strict(value).expect_err(&info.kind);
            assert_eq!(errors[0].message, "unknown field \"nope\"", "{kind}");
        }
    }
}
