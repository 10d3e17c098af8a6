//! ReplicaSet. Source: `pkg/registry/apps/replicaset/strategy.go`.

use std::borrow::Cow;
use std::rc::Rc;

use k8s_openapi::api::apps::v1 as apps_v1;

use super::{Replicas, Strategy, check_replicas, number, scale_by};
use crate::object::validation::workload;
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
        check_replicas(s.replicas, s.fully_labeled_replicas, s.ready_replicas, s.available_replicas, errors);
    }

    fn field<'a>(object: &'a ReplicaSet, _path: &str) -> Option<Cow<'a, str>> {
        number(Some(object.status.replicas))
    }

    replicated!();

    fn scale(object: &ReplicaSet) -> Option<Replicas> {
        scale_by(object.spec.replicas, Some(object.status.replicas), &object.spec.selector)
    }

    pod_template!();
}
