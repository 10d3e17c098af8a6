//! `scheduler-at-rest-equals-store`: at the end of a run, the scheduler counts on each node exactly the pods that are
//! bound to it. If it missed that a pod terminated, that room stays reserved for ever; if it missed a pod altogether,
//! it assigns that pod's room a second time.
//!
//! `bound-as-seen`: the scheduler never binds a pod to a node that its own view shows as gone or, unless the pod's
//! profile does not mind, as one that the pod may not run on (see `placement`). It decides and sends the binding in one
//! step, so its view has not changed meanwhile, unless it sends again what has an unknown outcome. Pods with claims are
//! not judged: their bindings wait for these.

use std::collections::BTreeMap;

use skeg_core::object::{Kind, Object, ObjectKey, Revision};
use skeg_core::scheduler::SchedulerProcess;
use skeg_core::scheduler::profile::Plugin;
use skeg_core::scheduler::resources::ResourceId;
use skeg_core::store::StoreKey;
use skeg_core::volume::has_claims;

use super::reading::place;
use super::{placement, spread};
use crate::process::Running;
use crate::world::World;

/// Returns a description of a binding that the scheduler's own view contradicts as it is sent, or `None`.
pub fn bound_blindly(scheduler: &SchedulerProcess, pod: &ObjectKey, node: &str) -> Option<String> {
    let [pods, nodes] = scheduler.views();
    let Some(Object::Pod(pod)) = pods.get(pod) else { return None };
    // It may still be carried out, so it is not decided anew.
    if scheduler.binds_again(&pod.key()) {
        return None;
    }
    let spec = &pod.spec;
    if has_claims(&spec.shared) || spec.shared.resource_claims.iter().flatten().next().is_some() {
        return None;
    }
    let Some(Object::Node(seen)) = nodes.get(&ObjectKey::new(Kind::NODE, "", node)) else {
        return Some(format!("{} is bound to {node}, which the scheduler sees no more", pod.key()));
    };
    let judged = |plugin: Plugin| scheduler.scheduler().filters_by(pod, plugin);
    let why = placement::unfit(pod, seen, pods, judged).or_else(|| {
        // What other pods there are is known where no other is on its way to a node.
        let is_known = judged(Plugin::PodTopologySpread) && scheduler.scheduler().assumed() == 1;
        is_known.then(|| spread::broken(pod, seen, pods, nodes)).flatten()
    })?;
    Some(format!("{} is bound to {node}, which the scheduler sees {why}", pod.key()))
}

/// Returns a description of the first node on which a scheduler's pod count differs from the store, or `None`. Nodes
/// whose pods have changed since `judged` are skipped, because the events may still be in transit.
pub fn miscounting(world: &World, judged: Revision) -> Option<String> {
    let mut pods: BTreeMap<&str, i64> = BTreeMap::new();
    for object in crate::converge::objects(&world.store, Kind::POD) {
        let Object::Pod(pod) = object else { continue };
        if let Some(node) = place(pod) {
            *pods.entry(node).or_default() += 1;
        }
    }
    let changes = world.store.changes_after(judged);
    let changed = |node: &str| {
        changes.iter().filter(|c| matches!(c.key(), StoreKey::Object(key) if key.kind == Kind::POD)).any(|change| {
            let on = |kv: Option<&skeg_core::store::KeyValue>| match kv.map(|kv| &kv.value) {
                Some(skeg_core::store::Stored::Object(Object::Pod(pod))) => pod.spec.node.as_deref() == Some(node),
                _ => false,
            };
            on(change.value.as_deref()) || on(change.previous.as_deref())
        })
    };
    world.processes.iter().find_map(|process| {
        let Running::Scheduler(scheduler) = process.running.as_ref()? else { return None };
        if scheduler.views().iter().any(|view| !view.is_synced()) {
            return None;
        }
        let nodes = scheduler.scheduler().nodes();
        world.nodes.iter().find_map(|host| {
            world.store.object(&ObjectKey::new(Kind::NODE, "", &host.name))?;
            let slot = nodes.slot(&host.name)?;
            let counted = nodes.requested(ResourceId::PODS, slot);
            let bound = pods.get(host.name.as_str()).copied().unwrap_or(0);
            (counted != bound && !changed(&host.name)).then(|| {
                format!("{}: it counts {counted} pods on {}, and {bound} are bound to it", process.name, host.name)
            })
        })
    })
}
