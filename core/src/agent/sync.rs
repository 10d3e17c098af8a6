//! Decides what to do next for a pod (kubelet `syncPod` and `computePodActions`). The decision is made from the pod's
//! whole state after every change, so it does not depend on the order in which changes arrived.

use std::time::Duration;

use k8s_openapi::api::core::v1 as core_v1;

use super::admission::Cause;
use super::attachments::Unmounted;
use super::backoff::go_duration;
use super::images::Pull;
use super::pod::{Ctx, Exit, Life, PodState, Role, SandboxLife, Stop, StopReason, What, container_spec};
use super::references::{claim_needed, environment_needs, volume_needs};
use super::runtime::{PullSecret, RuntimeCommand, RuntimeError};
use super::volumes::Mounting;
use crate::client::EventType;
use crate::limits::{CONTAINER_BACKOFF_BASE, MOUNT_BACKOFF_BASE, MOUNT_BACKOFF_MAX};
use crate::machine::Mono;
use crate::object::{Kind, ObjectKey, Pod, pod_phase};
use crate::resource_claim::{self, Named};
use crate::volume::has_claims;
use std::rc::Rc;

/// What must be done about one container in the order of containers.
enum Step {
    /// Nothing; continue with the next container.
    Pass,
    /// Nothing, and the next container must wait for it.
    Hold,
    /// It must be started; `hold` says whether the next container must wait for it.
    Start { hold: bool },
}

/// Seconds that a pod has which is evicted (`immediateEvictionGracePeriodSeconds`).
const EVICTION_GRACE: i64 = 1;
/// After how many failures to mount, two minutes (`podAttachAndMountTimeout`), a pod that waits for its volumes to be
/// attached says so.
const ATTACH_PATIENCE: u32 = 8;

impl PodState {
    /// Does whatever is due and writes the resulting status.
    pub(super) fn sync(&mut self, ctx: &mut Ctx<'_>) {
        self.expire(ctx);
        self.check_request(ctx);
        if !self.suspect && self.unverified.is_none() {
            self.decide_stop(ctx);
            match self.ending.stop {
                Some(stop) if !self.ending.finished => self.advance_pod_stop(stop, ctx),
                Some(_) => {}
                None => {
                    self.resize(ctx);
                    self.advance(ctx);
                }
            }
            self.run_probes(ctx);
            self.clear_strays(ctx);
            if self.ending.finished {
                self.leave(ctx);
            }
        }
        self.write_status(ctx);
    }

    /// Handles commands that timed out and back-offs that have passed.
    fn expire(&mut self, ctx: &mut Ctx<'_>) {
        let now = ctx.now.mono;
        while let Some(at) = self.ops.iter().position(|o| o.deadline <= now) {
            let what = self.ops.swap_remove(at).what;
            self.overdue(what, ctx);
        }
        self.sandbox.retry = self.sandbox.retry.filter(|at| *at > now);
        self.mount_retry = self.mount_retry.filter(|at| *at > now);
        for c in &mut self.containers {
            c.retry_at = c.retry_at.filter(|at| *at > now);
        }
    }

    fn overdue(&mut self, what: What, ctx: &mut Ctx<'_>) {
        let late = || RuntimeError { reason: "".into(), message: "context deadline exceeded".into() };
        match what {
            What::Probe(i, kind) => return self.probed(i, kind, Err(late()), ctx),
            What::PreStop(i) => return self.pre_stop_ended(i, Err(late()), ctx),
            What::PostStart(i) => return self.post_start_ended(i, Err(late()), ctx),
            What::RemoveContainer => return,
            What::Update(i, given) => return self.updated(i, &given, Err(late()), ctx),
            What::Mount => return self.mounted(Err(late()), ctx),
            What::Unmount => return self.unmounted(Err(late()), ctx),
            What::RunSandbox => self.sandbox.life = SandboxLife::None,
            What::StopSandbox => self.sandbox.life = SandboxLife::Dead,
            What::RemoveSandbox => self.sandbox.life = SandboxLife::Stopped,
            What::StopStray(_) | What::RemoveStray(_) => {}
            What::Create(i) => self.containers[usize::from(i)].life = Life::Waiting,
            What::Start(_) => {}
            What::Stop(i) => self.containers[usize::from(i)].stop = Stop::Again(ctx.now.mono),
        }
        self.doubt(ctx);
    }

    /// Decides whether the pod must stop, and why.
    fn decide_stop(&mut self, ctx: &mut Ctx<'_>) {
        let now = ctx.now.mono;
        if self.pod.meta.deletion_timestamp.is_some() && self.in_api {
            let grace = self.pod.meta.deletion_grace_period_seconds.unwrap_or_else(|| self.grace_seconds());
            if self.ending.deletion_grace.is_none_or(|seen| grace < seen) {
                self.ending.deletion_grace = Some(grace);
                self.begin_pod_stop(StopReason::Deleted, grace, now);
            }
        }
        if self.ending.stop.is_some() {
            return;
        }
        if self.ending.active_until.is_none() {
            self.set_active_deadline(ctx.now);
        }
        if let Some(rejection) = &self.rejection {
            let (reason, grace) = match rejection.cause {
                Cause::Admission => (StopReason::Rejected, 0),
                Cause::Limit | Cause::Pressure => (StopReason::Evicted, EVICTION_GRACE),
            };
            self.begin_pod_stop(reason, grace, now);
        } else if matches!(pod_phase(&self.pod), "Succeeded" | "Failed") {
            self.begin_pod_stop(StopReason::Completed, self.grace_seconds(), now);
        } else if self.ending.active_until.is_some_and(|at| at <= now) {
            self.begin_pod_stop(StopReason::DeadlineExceeded, self.grace_seconds(), now);
            self.event(ctx, EventType::Normal, "DeadlineExceeded", || DEADLINE_MESSAGE.to_owned());
        } else if self.is_complete() {
            self.begin_pod_stop(StopReason::Completed, self.grace_seconds(), now);
        }
    }

    fn grace_seconds(&self) -> i64 {
        self.pod.spec.termination_grace_period_seconds.unwrap_or(30)
    }

    /// Whether no container will run again: all main containers have completed, or an init container has failed
    /// permanently.
    fn is_complete(&self) -> bool {
        let done = |c: &super::pod::Container| c.exit().is_some_and(|e| !self.should_restart(c, e));
        let failed = |c: &super::pod::Container| done(c) && c.exit().is_some_and(|e| e.code != 0);
        if !self.initialized && self.containers.iter().any(|c| c.role == Role::Init && failed(c)) {
            return true;
        }
        let mut mains = self.containers.iter().filter(|c| c.role == Role::Main).peekable();
        mains.peek().is_some() && mains.all(done)
    }

    /// Whether a container must be restarted after this exit.
    fn should_restart(&self, c: &super::pod::Container, exit: &Exit) -> bool {
        if c.role == Role::Ephemeral {
            return false;
        }
        if c.force_restart || c.role == Role::Sidecar {
            return true;
        }
        let spec = container_spec(&self.pod, c);
        if spec.is_some_and(|s| rules_restart(s, exit.code)) {
            return true;
        }
        let own = spec.and_then(|s| s.restart_policy.as_deref());
        match own.or(self.pod.spec.restart_policy.as_deref()).unwrap_or("Always") {
            "Never" => false,
            "Always" if c.role == Role::Main => true,
            _ => exit.code != 0,
        }
    }

    /// Advances a pod that should run.
    fn advance(&mut self, ctx: &mut Ctx<'_>) {
        match self.sandbox.life {
            SandboxLife::None => return self.run_sandbox(ctx),
            SandboxLife::Dead => return self.stop_sandbox(ctx),
            SandboxLife::Stopped => return self.remove_sandbox(ctx),
            SandboxLife::Creating | SandboxLife::Stopping | SandboxLife::Removing => return,
            SandboxLife::Ready => {}
        }
        if ctx.shared.attachments.is_unsure(self.slot) {
            self.recall_volumes(ctx);
        }
        self.refresh_volumes(ctx);
        self.stop_changed(ctx);
        self.advance_stops(ctx);
        self.start_next(ctx);
    }

    fn run_sandbox(&mut self, ctx: &mut Ctx<'_>) {
        if !self.admitted || self.has_predecessor || self.sandbox.retry.is_some() || !self.sandbox.strays.is_empty() {
            return;
        }
        if (self.refers && !(self.mounts(ctx) && self.prepares(ctx))) || !self.has_volumes(ctx) {
            return;
        }
        self.sandbox.life = SandboxLife::Creating;
        self.warn_of_dns(ctx);
        let pod_uid = Rc::clone(&self.uid);
        let pod = Rc::from(format!("{}/{}", self.pod.namespace(), self.pod.name()));
        let host_network = self.pod.spec.host_network == Some(true);
        let spec = self.pod.spec.shared.clone();
        self.command(ctx, What::RunSandbox, Duration::ZERO, |op| RuntimeCommand::RunSandbox {
            op,
            pod_uid,
            pod,
            host_network,
            spec,
        });
    }

    /// Says that a pod that real containers run for has no cluster DNS.
    fn warn_of_dns(&self, ctx: &mut Ctx<'_>) {
        let spec = &self.pod.spec;
        let policy = spec.dns_policy.as_deref().unwrap_or("ClusterFirst");
        let cluster = match policy {
            "ClusterFirst" => spec.host_network != Some(true),
            policy => policy == "ClusterFirstWithHostNet",
        };
        if ctx.shared.config.resolve && !ctx.shared.config.cluster_dns && cluster {
            let pod = self.format();
            self.event(ctx, EventType::Warning, "MissingClusterDNS", || {
                format!(
                    "pod: {pod:?}. kubelet does not have ClusterDNS IP configured and cannot create Pod using \
                     {policy:?} policy. Falling back to \"Default\" policy."
                )
            });
        }
    }

    /// Whether the pod's volumes can be mounted, which must happen before its sandbox is created. If not, mounting is
    /// retried after a delay that doubles (`exponentialbackoff`).
    fn mounts(&mut self, ctx: &mut Ctx<'_>) -> bool {
        if self.mount_retry.is_some() {
            return false;
        }
        let (spec, namespace) = (&self.pod.spec.shared, self.pod.namespace());
        let volumes = || spec.volumes.iter().flatten();
        let claims = || volumes().filter_map(|v| Some((v, claim_needed(self.pod.name(), namespace, v)?)));
        let mut known = true;
        for need in volumes().flat_map(|v| volume_needs(v, namespace)).chain(claims().map(|(_, need)| need)) {
            known &= ctx.shared.references.ask(&need.key, self.slot, ctx.now, ctx.out);
        }
        if !known {
            return false;
        }
        let references = &ctx.shared.references;
        let unusable = claims().find_map(|(volume, need)| {
            let why = need.wrong(references)?;
            Some((volume.name.clone(), need.key, why))
        });
        let failed = volumes().filter_map(|v| {
            let wrongs: Vec<String> = volume_needs(v, namespace).filter_map(|n| n.wrong(references)).collect();
            match wrongs.as_slice() {
                [] => None,
                [one] => Some((v.name.clone(), one.clone())),
                many => Some((v.name.clone(), format!("[{}]", many.join(", ")))),
            }
        });
        let mut unmounted = Unmounted { failed: failed.collect(), unusable, unattached: Vec::new() };
        if unmounted.is_empty() && has_claims(spec) && !self.attaches(ctx, &mut unmounted) {
            return false;
        }
        if unmounted.is_empty() {
            return true;
        }
        self.tell_unmounted(ctx, &unmounted);
        self.back_off_mount(ctx);
        false
    }

    /// Whether the pod may use its claims for devices, as the API server says (`PrepareResources`). Drivers of devices
    /// are simulated: they have nothing else to prepare.
    fn prepares(&mut self, ctx: &mut Ctx<'_>) -> bool {
        let claims: Vec<Named> = resource_claim::claims(&self.pod).map(|(_, named)| named).collect();
        let mut known = true;
        for key in claims.iter().filter_map(Named::claim) {
            known &= ctx.shared.references.ask(key, self.slot, ctx.now, ctx.out);
        }
        if !known {
            return false;
        }
        let Some(why) = claims.iter().find_map(|named| self.unprepared(ctx, named)) else { return true };
        self.event(ctx, EventType::Warning, "FailedPrepareDynamicResources", || {
            format!("Failed to prepare dynamic resources: {why}")
        });
        self.back_off_mount(ctx);
        false
    }

    /// Why a pod may not use a claim.
    fn unprepared(&self, ctx: &Ctx<'_>, named: &Named) -> Option<String> {
        let pod = self.pod.key();
        let key = match named {
            Named::NotNeeded => return None,
            Named::NotMade => return Some(format!("pod {:?}: ResourceClaim not created yet", pod.path())),
            Named::Own(key) | Named::Made(key) => key,
        };
        let Some(claim) = ctx.shared.references.seen(key) else {
            let name = key.name();
            return Some(format!("fetch ResourceClaim {name}: resourceclaims.resource.k8s.io {name:?} not found"));
        };
        if matches!(named, Named::Made(_))
            && let Some(why) = resource_claim::not_of_pod(&pod, &self.uid, claim)
        {
            return Some(why);
        }
        if !resource_claim::is_reserved_for(claim, &self.uid) {
            let (name, uid, other) = (pod.name(), &self.uid, claim.uid());
            return Some(format!("pod {name} ({uid}) is not allowed to use ResourceClaim {} ({other})", key.name()));
        }
        resource_claim::allocation(claim).is_none().then(|| format!("ResourceClaim {} is not allocated", key.path()))
    }

    /// Says why volumes are not mounted.
    fn tell_unmounted(&self, ctx: &mut Ctx<'_>, unmounted: &Unmounted) {
        for (volume, why) in &unmounted.failed {
            self.event(ctx, EventType::Warning, "FailedMount", || {
                format!("MountVolume.SetUp failed for volume {volume:?} : {why}")
            });
        }
        if let Some((volume, claim, why)) = &unmounted.unusable {
            self.event(ctx, EventType::Warning, "FailedMount", || {
                format!(
                    "Unable to attach or mount volumes: unmounted volumes=[{volume}], unattached volumes=[], failed to \
                     process volumes=[{volume}]: error processing PVC {}: {why}",
                    claim.path()
                )
            });
        }
        if !unmounted.unattached.is_empty() && self.mount_failures >= ATTACH_PATIENCE {
            let volumes = unmounted.unattached.join(" ");
            self.event(ctx, EventType::Warning, "FailedMount", || {
                format!(
                    "Unable to attach or mount volumes: unmounted volumes=[{volumes}], unattached \
                     volumes=[{volumes}], failed to process volumes=[]: context deadline exceeded"
                )
            });
        }
    }

    /// Lets some time pass before volumes are mounted again.
    pub(super) fn back_off_mount(&mut self, ctx: &Ctx<'_>) {
        let delay = MOUNT_BACKOFF_BASE * 2_u32.pow(self.mount_failures.min(8));
        self.mount_failures += 1;
        self.mount_retry = Some(ctx.now.mono + delay.min(MOUNT_BACKOFF_MAX));
    }

    /// Whether everything that a container's environment refers to has been read.
    fn knows_environment(&self, i: usize, ctx: &mut Ctx<'_>) -> bool {
        if ctx.shared.services.as_ref().is_some_and(|services| !services.is_synced()) {
            return false;
        }
        let Some(c) = container_spec(&self.pod, &self.containers[i]).filter(|_| self.refers) else { return true };
        let mut known = true;
        for need in environment_needs(c, self.pod.namespace()) {
            known &= ctx.shared.references.ask(&need.key, self.slot, ctx.now, ctx.out);
        }
        known
    }

    /// Why a container's environment cannot be made; `None` if it can.
    fn wrong_environment(&self, i: usize, ctx: &Ctx<'_>) -> Option<String> {
        let c = container_spec(&self.pod, &self.containers[i]).filter(|_| self.refers)?;
        environment_needs(c, self.pod.namespace()).find_map(|need| need.wrong(&ctx.shared.references))
    }

    /// Stops containers whose spec has changed, so that they are started anew.
    fn stop_changed(&mut self, ctx: &mut Ctx<'_>) {
        for i in 0..self.containers.len() {
            let c = &self.containers[i];
            if c.force_restart && c.stop == Stop::No && matches!(c.life, Life::Running(..)) {
                let name = Rc::clone(&c.name);
                let until = ctx.now.mono + Duration::from_secs(u64::try_from(self.grace_seconds()).unwrap_or(0));
                self.begin_stop(i, until, || format!("Container {name} definition changed, will be restarted"), ctx);
            }
        }
    }

    /// Handles a change of the pod's spec in the API: containers with another image must be restarted.
    pub(super) fn spec_changed(&mut self, new: &Pod) {
        if Rc::ptr_eq(&self.pod.spec, &new.spec) || self.pod.spec.shared.is_held_as(&new.spec.shared) {
            return;
        }
        for c in &mut self.containers {
            let image = |pod: &Pod| container_spec(pod, c).and_then(|s| s.image.clone());
            if image(&self.pod) != image(new) && c.role != Role::Init {
                c.force_restart = c.is_up();
                (c.pull, c.retry_at) = (Default::default(), None);
                self.write.dirty = true;
            }
        }
        self.add_ephemeral_containers(new);
        self.resources_changed(new);
        let deadline = |pod: &Pod| pod.spec.active_deadline_seconds;
        if deadline(&self.pod) != deadline(new) {
            self.ending.active_until = None;
        }
    }

    /// Starts the containers whose turn it is, one at a time, as the kubelet's loop over `ContainersToStart`. Ephemeral
    /// ones come first, so that one can look into a pod whose init containers do not end.
    fn start_next(&mut self, ctx: &mut Ctx<'_>) {
        let busy = |life: &Life| matches!(life, Life::Pulling | Life::Creating | Life::Starting(_));
        if self.containers.iter().any(|c| busy(&c.life)) {
            return;
        }
        let all = self.containers.len();
        let ephemeral = self.containers.iter().position(|c| c.role == Role::Ephemeral).unwrap_or(all);
        for i in (ephemeral..all).chain(0..ephemeral) {
            match self.step(i) {
                Step::Pass => {}
                Step::Hold => return,
                Step::Start { hold } => {
                    if self.start(i, ctx) || hold {
                        return;
                    }
                }
            }
        }
    }

    fn step(&self, i: usize) -> Step {
        let c = &self.containers[i];
        let running = matches!(c.life, Life::Running(..));
        match c.role {
            Role::Init if self.initialized => Step::Pass,
            Role::Init if running => Step::Hold,
            Role::Init if c.exit().is_some_and(|e| e.code == 0 && !e.stale) => Step::Pass,
            Role::Init => Step::Start { hold: true },
            Role::Sidecar if running && (c.started || self.initialized) => Step::Pass,
            Role::Sidecar if running => Step::Hold,
            Role::Sidecar => Step::Start { hold: !self.initialized },
            Role::Main if running => Step::Pass,
            Role::Main if c.exit().is_some_and(|e| !self.should_restart(c, e)) => Step::Pass,
            Role::Main => Step::Start { hold: false },
            Role::Ephemeral if running || c.exit().is_some() => Step::Pass,
            Role::Ephemeral => Step::Start { hold: false },
        }
    }

    /// Starts a container unless a back-off forbids it; returns whether a command was sent.
    fn start(&mut self, i: usize, ctx: &mut Ctx<'_>) -> bool {
        if self.containers[i].retry_at.is_some() || self.in_crash_backoff(i, ctx) {
            return false;
        }
        if !self.knows_environment(i, ctx) {
            return true;
        }
        let Some(spec) = container_spec(&self.pod, &self.containers[i]) else { return false };
        match ctx.shared.images.decide(spec) {
            Pull::Present => {
                self.event(ctx, EventType::Normal, "Pulled", || {
                    let image = spec.image.as_deref().unwrap_or("");
                    format!("Container image {image:?} already present on machine")
                });
                self.create(i, ctx)
            }
            Pull::Needed => self.pull(i, ctx),
            Pull::Forbidden => {
                self.never_pull(i, ctx);
                false
            }
        }
    }

    /// Whether a terminated container must wait for its crash back-off before it is started again.
    fn in_crash_backoff(&mut self, i: usize, ctx: &mut Ctx<'_>) -> bool {
        let now = ctx.now.mono;
        let c = &mut self.containers[i];
        let Life::Exited(exit) = &c.life else { return false };
        let (seen, done) = (exit.seen, exit.code == 0 && exit.stale);
        if !c.force_restart && !done {
            if let Some(until) = c.crash.wait_until(now, seen) {
                c.retry_at = Some(until);
                self.crash_loop(i, ctx);
                return true;
            }
            c.crash.next(now, seen);
        }
        let c = &mut self.containers[i];
        if let Life::Exited(exit) = std::mem::replace(&mut c.life, Life::Waiting) {
            c.last = Some(exit);
        }
        false
    }

    fn crash_loop(&mut self, i: usize, ctx: &mut Ctx<'_>) {
        let (pod, name) = (self.format(), Rc::clone(&self.containers[i].name));
        let c = &mut self.containers[i];
        let delay = go_duration(c.crash.delay());
        let message = format!("back-off {delay} restarting failed container={name} pod={pod}");
        if c.wait_for("CrashLoopBackOff", message) {
            self.write.dirty = true;
            self.event(ctx, EventType::Warning, "BackOff", || {
                format!("Back-off restarting failed container {name} in pod {pod}")
            });
        }
    }

    fn pull(&mut self, i: usize, ctx: &mut Ctx<'_>) -> bool {
        let now = ctx.now.mono;
        let image = self.image(i);
        let pull = self.containers[i].pull;
        if let Some(until) = pull.updated().and_then(|at| pull.wait_until(now, at)) {
            let c = &mut self.containers[i];
            c.retry_at = Some(until);
            let why = c.waiting.as_ref().filter(|w| &*w.reason != "ImagePullBackOff").map(|w| w.message.clone());
            let why = why.map_or(String::new(), |w| format!(": ErrImagePull: {w}"));
            let backed_off = c.waiting.as_ref().is_some_and(|w| &*w.reason == "ImagePullBackOff");
            if !backed_off {
                self.write.dirty |= c.wait_for("ImagePullBackOff", format!("Back-off pulling image {image:?}{why}"));
                self.event(ctx, EventType::Normal, "BackOff", || format!("Back-off pulling image {image:?}"));
                self.event(ctx, EventType::Warning, "Failed", || "Error: ImagePullBackOff".to_owned());
            }
            return false;
        }
        let Some(secrets) = self.pull_secrets(ctx) else { return true };
        self.event(ctx, EventType::Normal, "Pulling", || format!("Pulling image {image:?}"));
        self.containers[i].life = Life::Pulling;
        let waiter = (self.slot, i as u16);
        ctx.shared.last_op += 1;
        let op = super::runtime::OpId(u64::from(super::pod::NODE_SLOT) << super::pod::OP_BITS | ctx.shared.last_op);
        if let Some((op, image)) = ctx.shared.images.wait(&image, &secrets, waiter, now, || op) {
            ctx.out.push(super::Out::Runtime(RuntimeCommand::PullImage { op, image, secrets }));
        }
        true
    }

    /// The Secrets with which the pod's images are pulled; `None` if they have not been read yet. Those that do not
    /// exist are told of and left out. Simulated registries ask for none.
    fn pull_secrets(&self, ctx: &mut Ctx<'_>) -> Option<Vec<PullSecret>> {
        if !ctx.shared.config.resolve {
            return Some(Vec::new());
        }
        let names = self.pod.spec.image_pull_secrets.iter().flatten().map(|secret| &secret.name);
        let names = names.filter(|name| !name.is_empty());
        let keys: Vec<_> = names.map(|name| ObjectKey::new(Kind::SECRET, self.pod.namespace(), name)).collect();
        let mut known = true;
        for key in &keys {
            known &= ctx.shared.references.ask(key, self.slot, ctx.now, ctx.out);
        }
        if !known {
            return None;
        }
        let references = &ctx.shared.references;
        let missing: Vec<_> = keys.iter().filter(|key| references.seen(key).is_none()).map(ObjectKey::name).collect();
        let secrets = keys.iter().filter_map(|key| references.pull_secret(key)).collect();
        if !missing.is_empty() {
            let missing = missing.join(", ");
            self.event(ctx, EventType::Warning, "FailedToRetrieveImagePullSecret", || {
                format!(
                    "Unable to retrieve some image pull secrets ({missing}); attempting to pull the image may not \
                     succeed."
                )
            });
        }
        Some(secrets)
    }

    fn never_pull(&mut self, i: usize, ctx: &mut Ctx<'_>) {
        let image = self.image(i);
        let c = &mut self.containers[i];
        c.retry_at = Some(ctx.now.mono + CONTAINER_BACKOFF_BASE);
        let message = format!("Container image {image:?} is not present with pull policy of Never");
        if c.wait_for("ErrImageNeverPull", message.clone()) {
            self.write.dirty = true;
            self.event(ctx, EventType::Warning, "ErrImageNeverPull", || message);
            self.event(ctx, EventType::Warning, "Failed", || "Error: ErrImageNeverPull".to_owned());
        }
    }

    /// Creates a container whose image is present; returns whether the command was sent.
    pub(super) fn create(&mut self, i: usize, ctx: &mut Ctx<'_>) -> bool {
        let Some(sandbox) = self.sandbox.id.clone().filter(|_| self.sandbox.life == SandboxLife::Ready) else {
            return false;
        };
        let target = self.target(i);
        let wrong = self.wrong_environment(i, ctx).or_else(|| self.wrong_mount(i, ctx));
        let wrong = wrong.or_else(|| target.as_ref().err().cloned());
        if let Some(why) = wrong {
            let c = &mut self.containers[i];
            c.retry_at = Some(ctx.now.mono + CONTAINER_BACKOFF_BASE);
            self.write.dirty |= c.wait_for("CreateContainerConfigError", why.clone());
            self.event(ctx, EventType::Warning, "Failed", || format!("Error: {why}"));
            return false;
        }
        self.containers[i].life = Life::Creating;
        let spec = Rc::new(self.container_to_create(i, sandbox, target.ok().flatten(), ctx));
        self.command(ctx, What::Create(i as u16), Duration::ZERO, |op| RuntimeCommand::CreateContainer { op, spec });
        true
    }

    /// Releases the resources of a pod that has stopped.
    fn leave(&mut self, ctx: &mut Ctx<'_>) {
        if let Some(asks) = self.asks.take() {
            ctx.shared.room.leave(&self.pod.spec.shared, &asks);
        }
        ctx.shared.attachments.release(self.slot);
        let over = !self.in_api || (self.write.deleted && !self.in_view);
        if self.unmount(ctx) && over && self.sandbox.life == SandboxLife::Stopped {
            self.remove_sandbox(ctx);
        }
    }

    /// Whether nothing is left of the pod, neither on the node nor in the agent's view.
    pub(super) fn is_gone(&self) -> bool {
        self.ending.finished
            && !self.in_api
            && !self.in_view
            && self.sandbox.life == SandboxLife::None
            && self.sandbox.strays.is_empty()
            && self.ops.is_empty()
            && !self.suspect
    }

    /// Sets when `activeDeadlineSeconds` passes, once `startTime` is known.
    fn set_active_deadline(&mut self, now: crate::machine::Now) {
        let Some(seconds) = self.pod.spec.active_deadline_seconds.and_then(|s| u64::try_from(s).ok()) else { return };
        let start = self.write.base.start_time.wall().unwrap_or(now.wall);
        let left = Duration::from_secs(seconds).saturating_sub(now.wall.since(start));
        self.ending.active_until = Some(now.mono + left);
    }

    /// When the pod must be processed next, and why.
    pub(super) fn next_deadline(&self) -> Option<(Mono, &'static str)> {
        let mut next = self.write.deadline();
        let mut add = |at: Mono, why: &'static str| {
            if next.is_none_or(|(n, _)| at < n) {
                next = Some((at, why));
            }
        };
        self.ops.iter().for_each(|o| add(o.deadline, "container runtime command is overdue"));
        if self.suspect {
            return next;
        }
        for c in &self.containers {
            match c.stop {
                Stop::Hook(at) | Stop::Turn(at) => add(at, "grace period ends"),
                Stop::Stopped(at) => add(at, "exit of a stopped container is overdue"),
                Stop::Again(at) => add(at, "stop a container again"),
                Stop::No | Stop::Told => {}
            }
            if let Some(at) = c.retry_at.filter(|_| self.ending.stop.is_none()) {
                add(at, "back-off of a container ends");
            }
            if let Some(at) = c.probes.as_ref().and_then(|p| p.deadline(c.started)) {
                add(at, "probe a container");
            }
        }
        if let Some(at) = self.sandbox.retry {
            add(at, "retry a sandbox");
        }
        if let Some(at) = self.resized.as_ref().and_then(|r| r.retry()).filter(|_| self.ending.stop.is_none()) {
            add(at, "try a resize again");
        }
        let ended = self.ending.stop.is_some();
        if let Some(at) = self.mount_retry.filter(|_| !ended || self.volumes.life != Mounting::Unknown) {
            add(at, "mount volumes again");
        }
        if let Some(at) = self.volumes.look_at.filter(|_| !ended && self.volumes.life == Mounting::Mounted) {
            add(at, "compare volumes with what they are made from");
        }
        if let Some(at) = self.ending.active_until.filter(|_| self.ending.stop.is_none()) {
            add(at, "active deadline of a pod");
        }
        next
    }
}

/// Message in a pod's status after `activeDeadlineSeconds` has passed.
pub(super) const DEADLINE_MESSAGE: &str = "Pod was active on the node longer than the specified deadline";

/// Whether a container's `restartPolicyRules` require a restart after this exit code.
fn rules_restart(spec: &core_v1::Container, code: i32) -> bool {
    spec.restart_policy_rules.iter().flatten().any(|rule| {
        rule.action == "Restart"
            && rule.exit_codes.as_ref().is_some_and(|codes| {
                let listed = codes.values.as_ref().is_some_and(|v| v.contains(&code));
                match codes.operator.as_str() {
                    "In" => listed,
                    "NotIn" => !listed,
                    _ => false,
                }
            })
    })
}
