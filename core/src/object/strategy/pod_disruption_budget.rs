//! PodDisruptionBudget. Source: `pkg/registry/policy/poddisruptionbudget/strategy.go`.

use std::rc::Rc;

use k8s_openapi::api::policy::v1 as policy_v1;

use super::Strategy;
use crate::object::{FieldError, Kind, Obj, Object, ObjectMeta, PodDisruptionBudget, Resource, validation};

spec_and_status!(PodDisruptionBudget policy_v1::PodDisruptionBudget, POD_DISRUPTION_BUDGET,
    policy_v1::PodDisruptionBudgetSpec, policy_v1::PodDisruptionBudgetStatus);

impl Strategy for policy_v1::PodDisruptionBudget {
    fn validate(object: &PodDisruptionBudget, errors: &mut Vec<FieldError>) {
        validation::budget(&object.spec, errors);
    }
}
