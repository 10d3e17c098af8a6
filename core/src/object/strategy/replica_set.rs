//! ReplicaSet. Source: `pkg/registry/apps/replicaset/strategy.go`.

use std::borrow::Cow;
use std::rc::Rc;

use k8s_openapi::api::apps::v1 as apps_v1;

use super::{Replicas, Strategy, check_counts, number, scale_by};
use crate::object::validation::{available, workload};
use crate::object::{
    FieldError, Kind, Obj, Object, ObjectMeta, ReplicaSet, Resource, SharedPodSpec, Templated, defaults,
};

templated!(ReplicaSet apps_v1::ReplicaSet, REPLICA_SET, apps_v1::ReplicaSetSpec, apps_v1::ReplicaSetStatus);

impl Strategy for apps_v1::ReplicaSet {
    fn apply_defaults(object: &mut ReplicaSet) {
        defaults::templated(&mut object.spec);
    }

    fn validate(object: &ReplicaSet, errors: &mut Vec<FieldError>) {
        workload::replica_set(&object.spec, errors);
    }

    fn validate_update(new: &ReplicaSet, old: &ReplicaSet, errors: &mut Vec<FieldError>) {
        if !Rc::ptr_eq(&new.spec, &old.spec) {
            Self::validate(new, errors);
            workload::fixed_selector(&new.spec.selector, &old.spec.selector, errors);
        }
    }

    fn validate_status_update(new: &ReplicaSet, _old: &ReplicaSet, errors: &mut Vec<FieldError>) {
        let s = &new.status;
        let counts = [
            ("replicas", Some(s.replicas)),
            ("fullyLabeledReplicas", s.fully_labeled_replicas),
            ("readyReplicas", s.ready_replicas),
            ("availableReplicas", s.available_replicas),
        ];
        check_counts(s.replicas, &counts, errors);
        available(s.available_replicas, s.ready_replicas, errors);
    }

    fn field<'a>(object: &'a ReplicaSet, _path: &str) -> Option<Cow<'a, str>> {
        number(Some(object.status.replicas))
    }

    fn replicas(object: &ReplicaSet) -> Option<i32> {
        Some(object.spec.replicas.unwrap_or(1))
    }

    fn scale(object: &ReplicaSet) -> Option<Replicas> {
        scale_by(object.spec.replicas, Some(object.status.replicas), &object.spec.selector)
    }

    fn set_replicas(object: &mut ReplicaSet, replicas: i32) {
        object.spec_mut().replicas = Some(replicas);
    }

    fn pod_spec(object: &ReplicaSet) -> Option<&SharedPodSpec> {
        Some(&object.spec.pod)
    }

    fn set_pod_spec(object: &mut ReplicaSet, spec: SharedPodSpec) {
        object.spec_mut().pod = spec;
    }
}
