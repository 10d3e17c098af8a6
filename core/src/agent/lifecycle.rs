//! Termination of containers and pods: hooks, grace periods, and the order in which sidecars stop (kubelet `killPod`,
//! `killContainer` and `terminationOrdering`).

use std::rc::Rc;
use std::time::Duration;

use k8s_openapi::api::core::v1 as core_v1;

use super::pod::{Container, Ctx, Life, PodState, PodStop, Role, SandboxLife, Stop, StopReason, What, container_spec};
use super::runtime::{HOOK_FELL_BACK, ProbeAction, RuntimeCommand, RuntimeError};
use crate::client::EventType;
use crate::limits::{CONTAINER_BACKOFF_BASE, MINIMUM_GRACE};
use crate::machine::Mono;

/// How long after a stop the container's exit event may take before the agent asks the runtime.
const EXIT_OVERDUE: Duration = Duration::from_secs(5);
/// Time-out of a postStart hook. The kubelet has none, but a lost reply must not block a pod forever.
const POST_START_TIMEOUT: Duration = Duration::from_secs(600);

fn whole_seconds(seconds: i64) -> Duration {
    Duration::from_secs(u64::try_from(seconds).unwrap_or(0))
}

impl PodState {
    /// Starts stopping the pod, or shortens the grace period of a stop in progress.
    pub(super) fn begin_pod_stop(&mut self, reason: StopReason, grace_seconds: i64, now: Mono) {
        // The kubelet grants at least one second.
        let until = now + whole_seconds(grace_seconds.max(1));
        self.write.dirty = true;
        match &mut self.ending.stop {
            Some(stop) => {
                if stop.reason == StopReason::Completed || stop.reason == StopReason::DeadlineExceeded {
                    // The reason of such a stop is final; only its grace period can get shorter.
                } else {
                    stop.reason = reason;
                }
                if until < stop.until {
                    stop.until = until;
                    self.hasten(until);
                }
            }
            None => {
                self.ending.stop = Some(PodStop { reason, until });
                self.containers.iter_mut().filter_map(|c| c.probes.as_mut()).for_each(|p| p.stop());
            }
        }
    }

    /// Applies a shorter grace period: waiting containers wait less, and stop commands that were already sent are sent
    /// again.
    fn hasten(&mut self, until: Mono) {
        for c in &mut self.containers {
            c.stop = match c.stop {
                Stop::Hook(at) => Stop::Hook(at.min(until)),
                Stop::Turn(at) => Stop::Turn(at.min(until)),
                Stop::Told => Stop::Again(Mono::ZERO),
                stop @ (Stop::No | Stop::Stopped(_) | Stop::Again(_)) => stop,
            };
        }
    }

    /// Starts stopping a running container, beginning with its preStop hook.
    pub(super) fn begin_stop(&mut self, i: usize, until: Mono, why: impl FnOnce() -> String, ctx: &mut Ctx<'_>) {
        let c = &self.containers[i];
        let Life::Running(id, _) = &c.life else { return };
        if c.stop != Stop::No {
            return;
        }
        let container = id.clone();
        self.event(ctx, EventType::Normal, "Killing", why);
        let hook = container_spec(&self.pod, &self.containers[i])
            .and_then(|s| s.lifecycle.as_ref())
            .and_then(|l| l.pre_stop.clone());
        match hook {
            Some(hook) if until > ctx.now.mono => {
                self.containers[i].stop = Stop::Hook(until);
                let grace = until.since(ctx.now.mono);
                self.hook((What::PreStop(i as u16), i), container, hook, grace, ctx);
            }
            _ => self.containers[i].stop = Stop::Turn(until),
        }
    }

    fn hook(
        &mut self,
        (what, i): (What, usize),
        container: super::runtime::ContainerId,
        handler: core_v1::LifecycleHandler,
        timeout: Duration,
        ctx: &mut Ctx<'_>,
    ) {
        let (handler, address) = self.hook_with_address(i, handler, ctx);
        let action = ProbeAction::Hook(Rc::new(handler));
        let timeout_seconds = u32::try_from(timeout.as_secs().max(1)).unwrap_or(u32::MAX);
        self.command(ctx, what, timeout, |op| RuntimeCommand::Probe {
            op,
            container,
            action,
            timeout_seconds,
            address,
        });
    }

    /// Runs a container's postStart hook after it started; only then does the container count as running.
    pub(super) fn run_post_start(&mut self, i: usize, ctx: &mut Ctx<'_>) {
        let hook = container_spec(&self.pod, &self.containers[i])
            .and_then(|s| s.lifecycle.as_ref())
            .and_then(|l| l.post_start.clone());
        match (hook, self.containers[i].id().cloned()) {
            (Some(hook), Some(id)) if self.ending.stop.is_none() => {
                self.hook((What::PostStart(i as u16), i), id, hook, POST_START_TIMEOUT, ctx);
            }
            _ => self.now_running(i, ctx.now.wall, ctx),
        }
    }

    /// The result of a hook. One that has succeeded by HTTP in place of HTTPS is told of.
    fn hook_ended(&self, result: Result<(), RuntimeError>, ctx: &mut Ctx<'_>) -> Result<(), RuntimeError> {
        match result {
            Err(e) if &*e.reason == HOOK_FELL_BACK => {
                self.event(ctx, EventType::Warning, HOOK_FELL_BACK, || {
                    format!(
                        "request to HTTPS lifecycle hook {} got HTTP response, retry with HTTP succeeded",
                        e.message
                    )
                });
                Ok(())
            }
            result => result,
        }
    }

    /// Handles the end of a postStart hook. A container whose hook failed is killed.
    pub(super) fn post_start_ended(&mut self, i: u16, result: Result<(), RuntimeError>, ctx: &mut Ctx<'_>) {
        let i = usize::from(i);
        if !matches!(self.containers[i].life, Life::Starting(_)) {
            return;
        }
        self.now_running(i, ctx.now.wall, ctx);
        if let Err(e) = self.hook_ended(result, ctx) {
            self.event(ctx, EventType::Warning, "FailedPostStartHook", || {
                format!("PostStartHook failed: {}", e.message)
            });
            let grace = self.pod.spec.termination_grace_period_seconds.unwrap_or(30);
            let until = ctx.now.mono + whole_seconds(grace);
            self.containers[i].started = false;
            self.containers[i].ready = false;
            self.begin_stop(i, until, || "FailedPostStartHook".to_owned(), ctx);
        }
    }

    /// Handles the end of a preStop hook; the container is stopped whether the hook failed or not.
    pub(super) fn pre_stop_ended(&mut self, i: u16, result: Result<(), RuntimeError>, ctx: &mut Ctx<'_>) {
        if let Err(e) = self.hook_ended(result, ctx) {
            self.event(ctx, EventType::Warning, "FailedPreStopHook", || format!("PreStopHook failed: {}", e.message));
        }
        let c = &mut self.containers[usize::from(i)];
        if let Stop::Hook(until) = c.stop {
            c.stop = Stop::Turn(until);
        }
    }

    /// Handles the runtime's reply to a stop.
    pub(super) fn stop_ended(&mut self, i: u16, result: Result<(), RuntimeError>, ctx: &mut Ctx<'_>) {
        let c = &mut self.containers[usize::from(i)];
        if c.stop != Stop::Told || !c.is_up() {
            return;
        }
        match result {
            // The exit is reported by a separate event.
            Ok(()) => c.stop = Stop::Stopped(ctx.now.mono + EXIT_OVERDUE),
            Err(e) => {
                c.stop = Stop::Again(ctx.now.mono + CONTAINER_BACKOFF_BASE);
                self.event(ctx, EventType::Warning, "FailedKillPod", || format!("error killing pod: {}", e.message));
                self.doubt(ctx);
            }
        }
    }

    /// Advances every container that is being stopped, if its time has come.
    pub(super) fn advance_stops(&mut self, ctx: &mut Ctx<'_>) {
        for i in 0..self.containers.len() {
            let now = ctx.now.mono;
            match self.containers[i].stop {
                Stop::Hook(until) if until <= now => self.tell(i, until, ctx),
                Stop::Turn(until) if until <= now || self.is_its_turn(i) => self.tell(i, until, ctx),
                Stop::Again(at) if at <= now => {
                    let until = self.ending.stop.map_or(now, |s| s.until);
                    self.tell(i, until, ctx);
                }
                Stop::Stopped(overdue) if overdue <= now => {
                    self.containers[i].stop = Stop::Again(now + CONTAINER_BACKOFF_BASE);
                    self.doubt(ctx);
                }
                Stop::No | Stop::Hook(_) | Stop::Turn(_) | Stop::Told | Stop::Stopped(_) | Stop::Again(_) => {}
            }
        }
    }

    /// Whether a container may stop now: in a terminating pod, sidecars wait for the main containers and for later
    /// sidecars (KEP-753).
    fn is_its_turn(&self, i: usize) -> bool {
        if self.ending.stop.is_none() || self.containers[i].role != Role::Sidecar {
            return true;
        }
        let comes_first = |(j, c): (usize, &Container)| match c.role {
            Role::Init | Role::Main => c.is_up(),
            Role::Sidecar => c.is_up() && j > i,
            Role::Ephemeral => false,
        };
        !self.containers.iter().enumerate().any(comes_first)
    }

    fn tell(&mut self, i: usize, until: Mono, ctx: &mut Ctx<'_>) {
        let Some(container) = self.containers[i].id().cloned() else { return };
        self.ops.retain(|o| o.what != What::PreStop(i as u16));
        self.containers[i].stop = Stop::Told;
        let grace = until.since(ctx.now.mono).max(MINIMUM_GRACE);
        // Rounded up, so that a hook that took no time leaves the full grace period.
        let grace_seconds = u32::try_from(grace.as_millis().div_ceil(1000)).unwrap_or(u32::MAX);
        self.command(ctx, What::Stop(i as u16), grace, |op| RuntimeCommand::StopContainer {
            op,
            container,
            grace_seconds,
        });
    }

    /// Advances a terminating pod: containers, then the sandbox, then what is left over.
    pub(super) fn advance_pod_stop(&mut self, stop: PodStop, ctx: &mut Ctx<'_>) {
        for i in 0..self.containers.len() {
            match self.containers[i].life {
                Life::Pulling => self.containers[i].life = Life::Waiting,
                // The postStart hook may never end; the container is running in any case.
                Life::Starting(_) if !self.has_op(&What::Start(i as u16)) => {
                    self.ops.retain(|o| o.what != What::PostStart(i as u16));
                    self.now_running(i, ctx.now.wall, ctx);
                }
                Life::Waiting | Life::Creating | Life::Starting(_) | Life::Running(..) | Life::Exited(_) => {}
            }
            let name = Rc::clone(&self.containers[i].name);
            self.begin_stop(i, stop.until, || format!("Stopping container {name}"), ctx);
        }
        self.advance_stops(ctx);
        let busy = |life: &Life| matches!(life, Life::Creating | Life::Starting(_) | Life::Running(..));
        if self.containers.iter().any(|c| busy(&c.life)) {
            return;
        }
        match self.sandbox.life {
            SandboxLife::Ready | SandboxLife::Dead => self.stop_sandbox(ctx),
            SandboxLife::Creating | SandboxLife::Stopping | SandboxLife::Removing => {}
            SandboxLife::None | SandboxLife::Stopped => {
                if !self.ending.finished {
                    self.ending.finished = true;
                    self.write.dirty = true;
                }
            }
        }
    }

    /// Stops the sandbox unless an attempt has just failed.
    pub(super) fn stop_sandbox(&mut self, ctx: &mut Ctx<'_>) {
        let Some(sandbox) = self.sandbox.id.clone() else {
            self.sandbox.life = SandboxLife::None;
            return;
        };
        if self.sandbox.retry.is_some_and(|at| at > ctx.now.mono) {
            return;
        }
        self.sandbox.life = SandboxLife::Stopping;
        self.command(ctx, What::StopSandbox, Duration::ZERO, |op| RuntimeCommand::StopSandbox { op, sandbox });
    }

    /// Removes the stopped sandbox unless an attempt has just failed.
    pub(super) fn remove_sandbox(&mut self, ctx: &mut Ctx<'_>) {
        let Some(sandbox) = self.sandbox.id.clone() else {
            self.sandbox.life = SandboxLife::None;
            return;
        };
        if self.sandbox.retry.is_some_and(|at| at > ctx.now.mono) {
            return;
        }
        self.sandbox.life = SandboxLife::Removing;
        self.command(ctx, What::RemoveSandbox, Duration::ZERO, |op| RuntimeCommand::RemoveSandbox { op, sandbox });
    }

    /// Removes one leftover sandbox of an earlier attempt.
    pub(super) fn clear_strays(&mut self, ctx: &mut Ctx<'_>) {
        let busy = self.ops.iter().any(|o| matches!(o.what, What::StopStray(_) | What::RemoveStray(_)));
        if busy || self.sandbox.retry.is_some_and(|at| at > ctx.now.mono) {
            return;
        }
        let Some((sandbox, stopped)) = self.sandbox.strays.first().cloned() else { return };
        if stopped {
            self.command(ctx, What::RemoveStray(sandbox.clone()), Duration::ZERO, |op| RuntimeCommand::RemoveSandbox {
                op,
                sandbox,
            });
        } else {
            self.command(ctx, What::StopStray(sandbox.clone()), Duration::ZERO, |op| RuntimeCommand::StopSandbox {
                op,
                sandbox,
            });
        }
    }
}
