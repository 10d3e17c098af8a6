//! The controllers of the cluster itself: services, nodes, namespaces and garbage collection.

use super::Controller;
use super::disruption::DisruptionController;
use super::endpoint_slice::EndpointSliceController;
use super::endpoints::EndpointsController;
use super::garbage_collector::GarbageCollector;
use super::namespace::NamespaceController;
use super::node_lifecycle::NodeLifecycleController;
use super::pod_gc::PodGcController;
use super::service_account::ServiceAccountController;
use crate::object::Kinds;

/// One new instance of each controller, for a world with these kinds.
pub fn cluster_controllers(kinds: &Kinds) -> Vec<Box<dyn Controller>> {
    vec![
        Box::new(EndpointsController),
        Box::new(EndpointSliceController),
        Box::<NodeLifecycleController>::default(),
        Box::<PodGcController>::default(),
        Box::new(GarbageCollector::new(kinds.clone())),
        Box::new(NamespaceController::new(kinds.clone())),
        Box::new(ServiceAccountController),
        Box::new(DisruptionController),
    ]
}
