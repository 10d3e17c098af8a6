//! The controllers of the cluster itself: services, nodes, namespaces and garbage collection.

use super::disruption::DisruptionController;
use super::endpoint_slice::EndpointSliceController;
use super::endpoint_slice_mirroring::EndpointSliceMirroringController;
use super::endpoints::EndpointsController;
use super::garbage_collector::GarbageCollector;
use super::namespace::NamespaceController;
use super::node_lifecycle::NodeLifecycleController;
use super::pod_gc::PodGcController;
use super::service_account::ServiceAccountController;
use super::service_cidr::{IpAddressRepair, ServiceCidrController};
use super::{Controller, ManagerConfig};
/// One new instance of each controller.
pub fn cluster_controllers(config: &ManagerConfig) -> Vec<Box<dyn Controller>> {
    vec![
        Box::new(EndpointsController),
        Box::new(EndpointSliceController::new(config.max_endpoints_per_slice)),
        Box::<NodeLifecycleController>::default(),
        Box::<PodGcController>::default(),
        Box::new(GarbageCollector::new(config.kinds.clone(), config.features)),
        Box::new(NamespaceController::new(config.kinds.clone(), config.features)),
        Box::new(ServiceAccountController),
        Box::new(DisruptionController),
        Box::new(EndpointSliceMirroringController),
        Box::new(ServiceCidrController),
        Box::new(IpAddressRepair),
    ]
}
