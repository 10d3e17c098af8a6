//! Controllers: nearly pure functions from a view to a plan, run by one generic runner.
//!
//! A controller declares which kinds it reads, maps a change to keys, and plans the writes for a key. It never sends
//! anything: the [`Runner`] owns the queue, the back-off, the writes in flight and the
//! read-your-writes check. Controllers never call each other; they interact only through the store.

mod attach_detach;
mod availability;
mod claim;
mod cluster;
mod cluster_role_aggregation;
#[cfg(test)]
mod cluster_tests;
mod cron_job;
mod daemon_set;
pub mod deployment;
mod disruption;
mod endpoint_slice;
mod endpoint_slice_mirroring;
mod endpoints;
mod ephemeral_volume;
#[cfg(test)]
pub(crate) mod fake_cluster;
mod garbage_collector;
mod groups;
mod hash;
mod history;
mod horizontal_pod_autoscaler;
mod job;
mod journal;
mod load_balancer;
mod manager;
mod namespace;
mod node_ipam;
mod node_lifecycle;
mod persistent_volume;
mod plan;
mod pod_control;
mod pod_gc;
pub mod replica_set;
mod resource_claim;
mod resource_quota;
pub mod rolling_update;
pub(crate) mod root_ca;
mod runner;
mod service_account;
mod service_account_token;
mod service_backends;
mod service_cidr;
mod stateful_set;
#[cfg(test)]
pub(crate) mod testing;
mod ttl_after_finished;
mod volume_protection;
#[cfg(test)]
pub(crate) mod workload_world;

pub use cluster::cluster_controllers;
pub use garbage_collector::GarbageCollector;
pub use horizontal_pod_autoscaler::{Described, Metrics, MetricsSource, PodUsage};
pub use load_balancer::LoadBalancerRange;
pub use manager::{ControllerManager, ManagerConfig};
pub use node_ipam::PodRanges;
pub use plan::{Controller, EventNote, Plan, Write};
pub use runner::{Mandate, Runner, Turn, Work};
pub use service_account_token::TokenSigner;

/// All controllers, in the order in which the manager runs them.
pub fn all(config: &ManagerConfig) -> Vec<Box<dyn Controller>> {
    let mut all: Vec<Box<dyn Controller>> = vec![
        Box::new(deployment::DeploymentController::default()),
        Box::new(replica_set::ReplicaSetController::replica_sets()),
        Box::new(replica_set::ReplicaSetController::replication_controllers()),
    ];
    all.extend(cluster_controllers(config));
    let load_balancers = config.load_balancers.map(load_balancer::LoadBalancerController::new);
    all.extend(load_balancers.map(|c| Box::new(c) as Box<dyn Controller>));
    let ranges = config.pod_ranges.map(node_ipam::NodeIpamController::new);
    all.extend(ranges.map(|c| Box::new(c) as Box<dyn Controller>));
    if config.access_control {
        all.push(Box::new(cluster_role_aggregation::ClusterRoleAggregationController));
    }
    let publisher = config.root_ca.as_ref().map(root_ca::RootCaPublisher::new);
    all.extend(publisher.map(|c| Box::new(c) as Box<dyn Controller>));
    let tokens = config.tokens.as_ref();
    let tokens = tokens.map(|signer| service_account_token::TokenController::new(signer, config.root_ca.as_ref()));
    all.extend(tokens.map(|c| Box::new(c) as Box<dyn Controller>));
    all.push(Box::new(stateful_set::StatefulSetController));
    all.push(Box::<daemon_set::DaemonSetController>::default());
    all.push(Box::<job::JobController>::default());
    all.push(Box::new(cron_job::CronJobController));
    all.push(Box::<resource_quota::ResourceQuotaController>::default());
    all.push(Box::new(ttl_after_finished::TtlAfterFinishedController));
    if let Some(metrics) = &config.autoscaling {
        let autoscaler = horizontal_pod_autoscaler::HorizontalPodAutoscalerController::new(metrics.clone());
        all.push(Box::new(autoscaler));
    }
    if config.volumes {
        all.push(Box::<persistent_volume::PersistentVolumeBinder>::default());
        all.push(Box::new(persistent_volume::Provisioner { real_nodes: config.real_nodes }));
        all.push(Box::new(persistent_volume::Resizer));
        all.push(Box::<volume_protection::ClaimProtection>::default());
        all.push(Box::new(volume_protection::VolumeProtection));
        all.push(Box::new(ephemeral_volume::EphemeralVolumeController));
        all.push(Box::<attach_detach::AttachDetachController>::default());
        if !config.real_nodes {
            all.push(Box::new(attach_detach::Attacher));
        }
    }
    if config.devices {
        all.push(Box::<resource_claim::ResourceClaimController>::default());
    }
    all
}
