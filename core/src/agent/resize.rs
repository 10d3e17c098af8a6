//! Resizing containers in place: a pod whose containers ask for other resources than they have gets them once the node
//! has room (kubelet `pkg/kubelet/allocation`, KEP-1287).
//!
//! Only simulated containers are resized. Of real ones nothing tells the runtime, so the node says that it cannot.

use k8s_openapi::api::core::v1 as core_v1;

use super::admission::{Amounts, pod_requests};
use super::pod::{Ctx, PodState, container_spec};
use crate::limits::RESIZE_RETRY;
use crate::machine::Mono;
use crate::object::{Pod, PodCondition, Stamp, Text, resources_of, same_resources};

/// The condition of a pod whose resize waits.
pub(super) const PENDING: &str = "PodResizePending";

/// What a pod's containers have been given, and why they have not been given what they ask for.
#[derive(Debug)]
pub(super) struct Resized {
    /// The spec with the resources that are in effect.
    allocated: core_v1::PodSpec,
    waits: Option<Waits>,
    /// When it is tried again.
    retry: Option<Mono>,
}

#[derive(Debug)]
struct Waits {
    /// `Deferred` or `Infeasible`.
    reason: Text,
    message: Text,
}

impl Resized {
    /// What a pod's status says of it; `None` if its containers have had the same resources all the time.
    pub(super) fn told(pod: &Pod) -> Option<Box<Resized>> {
        let allocated = core_v1::PodSpec::clone(&*crate::object::allocated(pod)?);
        let told = pod.status.condition(&Text::from(PENDING));
        let waits = told.map(|c| Waits { reason: c.reason.clone(), message: c.message.clone() });
        Some(Box::new(Resized { allocated, waits, retry: None }))
    }

    /// The requests that the pod holds on the node.
    pub(super) fn requests(&self) -> Amounts {
        pod_requests(&self.allocated)
    }

    /// When a deferred resize is tried again.
    pub(super) fn retry(&self) -> Option<Mono> {
        self.retry
    }

    /// What a container's status says of its resources, beside what every status says.
    pub(super) fn status(&self, name: &str) -> Option<Box<core_v1::ContainerStatus>> {
        let all = self.allocated.init_containers.iter().flatten().chain(&self.allocated.containers);
        let given = all.into_iter().find(|container| container.name == name).map(resources_of)?;
        let allocated_resources = given.requests.clone();
        let status = core_v1::ContainerStatus { resources: Some(given), allocated_resources, ..Default::default() };
        Some(Box::new(status))
    }

    /// The condition that says why a resize waits.
    pub(super) fn condition(
        &self,
        old: Option<&PodCondition>,
        generation: Option<i64>,
        now: Stamp,
    ) -> Option<PodCondition> {
        let waits = self.waits.as_ref()?;
        Some(PodCondition {
            type_: Text::from(PENDING),
            status: Text::TRUE,
            reason: waits.reason.clone(),
            message: waits.message.clone(),
            observed_generation: generation,
            last_transition_time: old.map_or(Stamp::NONE, |c| c.last_transition_time).or(now),
            last_probe_time: Stamp::NONE,
        })
    }
}

impl PodState {
    /// Notes that the pod's containers are to have other resources.
    pub(super) fn resources_changed(&mut self, new: &Pod) {
        if self.resized.is_none() && !same_resources(&self.pod.spec.shared, &new.spec.shared) {
            let allocated = core_v1::PodSpec::clone(&self.pod.spec.shared);
            self.resized = Some(Box::new(Resized { allocated, waits: None, retry: None }));
        }
    }

    /// Gives the containers the resources that they ask for, if the node has them.
    pub(super) fn resize(&mut self, ctx: &mut Ctx<'_>) {
        let Some(resized) = self.resized.as_deref_mut().filter(|_| self.admitted) else { return };
        let spec = &self.pod.spec.shared;
        resized.retry = None;
        if ctx.shared.adopting && !same_resources(&resized.allocated, spec) {
            // What other pods hold is not counted yet.
            resized.retry = Some(ctx.now.mono);
            return;
        }
        if same_resources(&resized.allocated, spec) {
            self.write.dirty |= resized.waits.take().is_some();
            return;
        }
        let (held, asks) = (resized.requests(), pod_requests(spec));
        let told = resized.waits.take();
        let refused = match ctx.shared.config.resolve {
            true => {
                Some(("Infeasible", "In-place resize is not supported for real containers on this node".to_owned()))
            }
            false => ctx.shared.room.refuses(&held, &asks),
        };
        if let Some((reason, message)) = refused {
            self.write.dirty |= told.is_none_or(|told| *message != *told.message.as_str());
            resized.retry = (reason == "Deferred").then(|| ctx.now.mono + RESIZE_RETRY);
            resized.waits = Some(Waits { reason: Text::from(reason), message: Text::from(&*message) });
            return;
        }
        ctx.shared.room.exchange(&held, &asks);
        let before = std::mem::replace(&mut resized.allocated, core_v1::PodSpec::clone(spec));
        self.asks = Some(Box::new(asks));
        self.write.dirty = true;
        for c in &mut self.containers {
            let old =
                before.containers.iter().chain(before.init_containers.iter().flatten()).find(|o| o.name == *c.name);
            if let (Some(old), Some(new)) = (old, container_spec(&self.pod, c)) {
                c.force_restart |= c.is_up() && restarts(old, new);
            }
        }
    }
}

/// Whether a container must be restarted for what has changed, as its `resizePolicy` says.
fn restarts(old: &core_v1::Container, new: &core_v1::Container) -> bool {
    let (old, wanted) = (resources_of(old), resources_of(new));
    let mut restarting =
        new.resize_policy.iter().flatten().filter(|policy| policy.restart_policy == "RestartContainer");
    restarting.any(|policy| {
        let name = &policy.resource_name;
        let of = |r: &core_v1::ResourceRequirements| {
            [&r.requests, &r.limits].map(|map| map.as_ref().and_then(|map| map.get(name).cloned()))
        };
        of(&old) != of(&wanted)
    })
}
