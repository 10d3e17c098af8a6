//! The throughput of the scheduler machine alone: without API and election, and with no objects in its inner loop.

use std::time::Instant;

use skeg_core::scheduler::{DEFAULT_SCHEDULER, Decision, Scheduler};
use skeg_core::{Now, Rng};

use crate::Figure;
use crate::objects::{Template, node};

const NODES: usize = 5_000;
const PODS: usize = 50_000;

/// 50,000 pods of 100m and 500Mi on 5,000 nodes (4 CPUs, 32Gi, 110 pods): pods per second, from the arrival of the
/// first pod to the binding of the last. All nodes are evaluated for each pod.
pub fn basic_5000() -> Figure {
    let now = Now::default();
    let mut scheduler = Scheduler::new(DEFAULT_SCHEDULER.into(), Rng::from_seed(1));
    for i in 0..NODES {
        scheduler.node_changed(now, &node(i));
    }
    let template = Template::new();
    let pods: Vec<_> = (0..PODS).map(|i| template.pod(i, i as u64 + 1)).collect();
    let started = Instant::now();
    for pod in &pods {
        scheduler.pod_changed(now, pod);
    }
    let mut bound = 0;
    while let Some(decision) = scheduler.next(now) {
        match decision {
            Decision::Bind { .. } => bound += 1,
            Decision::Unschedulable { pod, message, .. } => panic!("{pod}: {message}"),
        }
    }
    let seconds = started.elapsed().as_secs_f64();
    assert_eq!(bound, PODS, "every pod finds a node");
    Figure { name: "schedule/basic-5000", value: PODS as f64 / seconds, unit: "pods/s" }
}
