//! ReplicationController. Source: `pkg/registry/core/replicationcontroller/strategy.go`.

use std::borrow::Cow;
use std::rc::Rc;

use k8s_openapi::api::core::v1 as core_v1;

use super::{GarbageCollection, Replicas, Strategy, check_replicas, number};
use crate::object::validation::workload;
use crate::object::{
    FieldError, Kind, Labels, Obj, Object, ObjectMeta, ReplicationController, Resource, Selector, SharedPodSpec,
    Templated, defaults,
};

templated!(ReplicationController core_v1::ReplicationController, REPLICATION_CONTROLLER,
    core_v1::ReplicationControllerSpec, core_v1::ReplicationControllerStatus);

impl Strategy for core_v1::ReplicationController {
    /// They were introduced before the garbage collector; for compatibility they orphan by default.
    const GARBAGE_COLLECTION: GarbageCollection = GarbageCollection::OrphanDependents;

    fn apply_defaults(object: &mut ReplicationController) {
        defaults::templated(&mut object.spec);
        defaults::replication_controller(object);
    }

    fn validate(object: &ReplicationController, errors: &mut Vec<FieldError>) {
        workload::replication_controller(&object.spec, errors);
    }

    fn validate_status_update(new: &ReplicationController, _old: &ReplicationController, errors: &mut Vec<FieldError>) {
        let s = &new.status;
        check_replicas(s.replicas, s.fully_labeled_replicas, s.ready_replicas, s.available_replicas, errors);
    }

    fn field<'a>(object: &'a ReplicationController, _path: &str) -> Option<Cow<'a, str>> {
        number(Some(object.status.replicas))
    }

    replicated!();

    fn scale(object: &ReplicationController) -> Option<Replicas> {
        let selector = Selector::from_map(object.spec.selector.as_ref().unwrap_or(&Labels::new())).to_string();
        Some(Replicas { wanted: object.spec.replicas.unwrap_or(1), current: object.status.replicas, selector })
    }

    pod_template!();
}
