//! StatefulSet. Source: `pkg/registry/apps/statefulset/strategy.go`.

use std::rc::Rc;

use k8s_openapi::api::apps::v1 as apps_v1;

use super::{Replicas, Strategy, scale_by};
use crate::object::validation::names::{self, Wrongs};
use crate::object::validation::workload;
use crate::object::{
    FieldError, Kind, Obj, Object, ObjectMeta, Resource, SharedPodSpec, StatefulSet, Templated, defaults,
};

templated!(StatefulSet apps_v1::StatefulSet, STATEFUL_SET, apps_v1::StatefulSetSpec, apps_v1::StatefulSetStatus);

impl Strategy for apps_v1::StatefulSet {
    const NAME: fn(&str) -> Wrongs = names::label;

    fn apply_defaults(object: &mut StatefulSet) {
        defaults::templated(&mut object.spec);
    }

    fn validate(object: &StatefulSet, errors: &mut Vec<FieldError>) {
        workload::stateful_set(&object.spec, errors);
    }

    fn validate_update(new: &StatefulSet, old: &StatefulSet, errors: &mut Vec<FieldError>) {
        if !Rc::ptr_eq(&new.spec, &old.spec) {
            Self::validate(new, errors);
            workload::stateful_set_update(&new.spec, &old.spec, errors);
        }
    }

    replicated!();

    fn scale(object: &StatefulSet) -> Option<Replicas> {
        scale_by(object.spec.replicas, Some(object.status.replicas), &object.spec.selector)
    }

    pod_template!();
}
