//! Resizing containers in place: a pod whose containers ask for other resources than they have gets them once the node
//! has room (kubelet `pkg/kubelet/allocation`, KEP-1287).
//!
//! Simulated containers have at once what they are given. Of real ones the runtime is told, and until it has done so
//! the status says which resources they still have.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use k8s_openapi::api::core::v1 as core_v1;

use super::admission::{Amounts, pod_requests};
use super::pod::{Ctx, Life, PodState, What, container_spec};
use super::runtime::{RuntimeCommand, RuntimeError};
use crate::limits::RESIZE_RETRY;
use crate::machine::Mono;
use crate::object::{Pod, PodCondition, SharedPodSpec, Stamp, Text, resources_of, same_resources};

/// The condition of a pod whose resize waits.
pub(super) const PENDING: &str = "PodResizePending";
/// The condition of a pod whose containers have not yet what they were given.
pub(super) const IN_PROGRESS: &str = "PodResizeInProgress";

/// What a pod's containers have been given, and why they have not been given what they ask for.
#[derive(Debug)]
pub(super) struct Resized {
    /// The spec with the resources that are in effect.
    allocated: core_v1::PodSpec,
    waits: Option<Waits>,
    /// When it is tried again.
    retry: Option<Mono>,
    /// What real containers still have, by name, if it is not what they were given.
    behind: BTreeMap<String, core_v1::ResourceRequirements>,
    /// Why the runtime could not give them that, and when it is told again.
    failed: Option<(String, Mono)>,
}

#[derive(Debug)]
struct Waits {
    /// `Deferred` or `Infeasible`.
    reason: Text,
    message: Text,
}

/// A condition that is true; it keeps the time of the one before, if there was one.
fn condition(
    type_: &str,
    (reason, message): (Text, Text),
    old: Option<&PodCondition>,
    generation: Option<i64>,
    now: Stamp,
) -> PodCondition {
    PodCondition {
        type_: Text::from(type_),
        status: Text::TRUE,
        reason,
        message,
        observed_generation: generation,
        last_transition_time: old.map_or(Stamp::NONE, |c| c.last_transition_time).or(now),
        last_probe_time: Stamp::NONE,
    }
}

impl Resized {
    /// What a pod's status says of it; `None` if its containers have had the same resources all the time.
    pub(super) fn told(pod: &Pod) -> Option<Box<Resized>> {
        let allocated = core_v1::PodSpec::clone(&*crate::object::allocated(pod)?);
        let told = pod.status.condition(&Text::from(PENDING));
        let waits = told.map(|c| Waits { reason: c.reason.clone(), message: c.message.clone() });
        Some(Box::new(Resized { allocated, waits, retry: None, behind: BTreeMap::new(), failed: None }))
    }

    /// The requests that the pod holds on the node.
    pub(super) fn requests(&self) -> Amounts {
        pod_requests(&self.allocated)
    }

    /// When a deferred resize is tried again.
    pub(super) fn retry(&self) -> Option<Mono> {
        self.retry.into_iter().chain(self.failed.as_ref().map(|(_, again)| *again)).min()
    }

    /// What a container was given.
    fn given(&self, name: &str) -> Option<core_v1::ResourceRequirements> {
        let all = self.allocated.init_containers.iter().flatten().chain(&self.allocated.containers);
        all.into_iter().find(|container| container.name == name).map(resources_of)
    }

    /// What a container's status says of its resources, beside what every status says.
    pub(super) fn status(&self, name: &str) -> Option<Box<core_v1::ContainerStatus>> {
        let given = self.given(name)?;
        let allocated_resources = given.requests.clone();
        let resources = Some(self.behind.get(name).cloned().unwrap_or(given));
        let status = core_v1::ContainerStatus { resources, allocated_resources, ..Default::default() };
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
        Some(condition(PENDING, (waits.reason.clone(), waits.message.clone()), old, generation, now))
    }
}

impl Resized {
    /// The condition that says that containers have not yet what they were given.
    pub(super) fn progress(
        &self,
        old: Option<&PodCondition>,
        generation: Option<i64>,
        now: Stamp,
    ) -> Option<PodCondition> {
        if self.behind.is_empty() {
            return None;
        }
        let (reason, message) = self.failed.as_ref().map_or(("", ""), |(why, _)| ("Error", why.as_str()));
        Some(condition(IN_PROGRESS, (Text::from(reason), Text::from(message)), old, generation, now))
    }
}

impl PodState {
    /// The spec with the resources that its containers were given, for a runtime of real ones.
    pub(super) fn given_spec(&self, ctx: &Ctx<'_>) -> SharedPodSpec {
        let mut spec = self.pod.spec.shared.clone();
        let resized = self.resized.as_ref().filter(|_| ctx.shared.config.resolve);
        if let Some(resized) = resized.filter(|resized| !same_resources(&resized.allocated, &spec)) {
            let own = spec.make_mut();
            for container in own.init_containers.iter_mut().flatten().chain(&mut own.containers) {
                container.resources = resized.given(&container.name);
            }
        }
        spec
    }

    /// Tells the runtime of the resources that containers were given and do not have yet.
    fn actuate(&mut self, ctx: &mut Ctx<'_>) {
        let Some(resized) = self.resized.as_deref_mut().filter(|resized| !resized.behind.is_empty()) else { return };
        if resized.failed.as_ref().is_some_and(|(_, again)| *again > ctx.now.mono) {
            return;
        }
        let mut due = Vec::new();
        for (i, c) in self.containers.iter().enumerate() {
            let Some(given) = resized.given(&c.name).filter(|_| resized.behind.contains_key(&*c.name)) else {
                continue;
            };
            match (&c.life, c.id()) {
                (Life::Creating, _) => {}
                (_, Some(id)) if !c.force_restart => due.push((i as u16, id.clone(), Rc::new(given))),
                (_, Some(_)) => {}
                // The next one is created with what it was given.
                (_, None) => self.write.dirty |= resized.behind.remove(&*c.name).is_some(),
            }
        }
        for (i, container, resources) in due {
            if self.ops.iter().any(|op| matches!(op.what, What::Update(j, _) if i == j)) {
                continue;
            }
            let what = What::Update(i, Rc::clone(&resources));
            self.command(ctx, what, Duration::ZERO, |op| RuntimeCommand::UpdateContainer { op, container, resources });
        }
    }

    /// Handles that a container has got these resources, or why not.
    pub(super) fn updated(
        &mut self,
        i: u16,
        has: &core_v1::ResourceRequirements,
        result: Result<(), RuntimeError>,
        ctx: &mut Ctx<'_>,
    ) {
        let (Some(resized), Some(c)) = (self.resized.as_deref_mut(), self.containers.get(usize::from(i))) else {
            return;
        };
        self.write.dirty = true;
        match result {
            Ok(()) if resized.given(&c.name).as_ref() == Some(has) => {
                resized.behind.remove(&*c.name);
                resized.failed = None;
            }
            // It was given others meanwhile.
            Ok(()) => {
                resized.behind.insert(c.name.to_string(), has.clone());
                resized.failed = None;
            }
            Err(e) => resized.failed = Some((e.message.to_string(), ctx.now.mono + RESIZE_RETRY)),
        }
    }

    /// Notes that the pod's containers are to have other resources.
    pub(super) fn resources_changed(&mut self, new: &Pod) {
        if self.resized.is_none() && !same_resources(&self.pod.spec.shared, &new.spec.shared) {
            let allocated = core_v1::PodSpec::clone(&self.pod.spec.shared);
            let (behind, failed) = (BTreeMap::new(), None);
            self.resized = Some(Box::new(Resized { allocated, waits: None, retry: None, behind, failed }));
        }
    }

    /// Gives the containers the resources that they ask for, if the node has them.
    pub(super) fn resize(&mut self, ctx: &mut Ctx<'_>) {
        self.give(ctx);
        self.actuate(ctx);
    }

    fn give(&mut self, ctx: &mut Ctx<'_>) {
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
        if let Some((reason, message)) = ctx.shared.room.refuses(&held, &asks) {
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
                let differs = resources_of(old) != resources_of(new);
                c.force_restart |= c.is_up() && restarts(old, new);
                if ctx.shared.config.resolve && differs {
                    resized.behind.entry(c.name.to_string()).or_insert_with(|| resources_of(old));
                    resized.failed = None;
                }
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
