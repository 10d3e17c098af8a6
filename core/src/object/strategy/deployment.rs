//! Deployment. Source: `pkg/registry/apps/deployment/strategy.go`.

use std::rc::Rc;

use k8s_openapi::api::apps::v1 as apps_v1;

use super::{Replicas, Strategy, scale_by};
use crate::object::validation::{available, counted, workload};
use crate::object::{
    Deployment, FieldError, Kind, Obj, Object, ObjectMeta, Resource, SharedPodSpec, Templated, defaults,
};

templated!(Deployment apps_v1::Deployment, DEPLOYMENT, apps_v1::DeploymentSpec, apps_v1::DeploymentStatus);

impl Strategy for apps_v1::Deployment {
    const LABELS_WITH_STATUS: bool = false;

    fn apply_defaults(object: &mut Deployment) {
        defaults::templated(&mut object.spec);
    }

    fn validate(object: &Deployment, errors: &mut Vec<FieldError>) {
        workload::deployment(&object.spec, errors);
    }

    fn validate_update(new: &Deployment, old: &Deployment, errors: &mut Vec<FieldError>) {
        if !Rc::ptr_eq(&new.spec, &old.spec) {
            Self::validate(new, errors);
            workload::fixed_selector(&new.spec.selector, &old.spec.selector, errors);
        }
    }

    fn validate_status_update(new: &Deployment, _old: &Deployment, errors: &mut Vec<FieldError>) {
        let s = &new.status;
        let counts = [
            ("replicas", s.replicas),
            ("updatedReplicas", s.updated_replicas),
            ("readyReplicas", s.ready_replicas),
            ("availableReplicas", s.available_replicas),
        ];
        counted(&counts, s.replicas.unwrap_or(0), errors);
        available(s.available_replicas, s.ready_replicas, errors);
    }

    replicated!();

    fn scale(object: &Deployment) -> Option<Replicas> {
        scale_by(object.spec.replicas, object.status.replicas, &object.spec.selector)
    }

    pod_template!();
}
