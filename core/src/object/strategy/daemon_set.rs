//! DaemonSet. Source: `pkg/registry/apps/daemonset/strategy.go`.

use std::rc::Rc;

use k8s_openapi::api::apps::v1 as apps_v1;

use super::Strategy;
use crate::object::validation::workload;
use crate::object::{
    DaemonSet, FieldError, Kind, Obj, Object, ObjectMeta, Resource, SharedPodSpec, Templated, defaults,
};

templated!(DaemonSet apps_v1::DaemonSet, DAEMON_SET, apps_v1::DaemonSetSpec, apps_v1::DaemonSetStatus);

impl Strategy for apps_v1::DaemonSet {
    fn apply_defaults(object: &mut DaemonSet) {
        defaults::templated(&mut object.spec);
    }

    fn validate(object: &DaemonSet, errors: &mut Vec<FieldError>) {
        workload::daemon_set(&object.spec, errors);
    }

    fn validate_update(new: &DaemonSet, old: &DaemonSet, errors: &mut Vec<FieldError>) {
        if !Rc::ptr_eq(&new.spec, &old.spec) {
            Self::validate(new, errors);
            workload::fixed_selector(&new.spec.selector, &old.spec.selector, errors);
        }
    }

    pod_template!();
}
