//! Reconstructs the agent's state of a pod from the runtime's list: after a restart of the agent, after a command with
//! an unknown outcome, and periodically as a check.

use std::collections::BTreeMap;
use std::rc::Rc;

use super::pod::{Container, Ctx, Exit, Life, PodState, Role, SandboxLife, Stop, What, exit_of, unknown_exit};
use super::runtime::{ContainerInfo, ContainerState, SandboxInfo};
use crate::machine::{Now, Wall};
use crate::object;

/// The part of a list that belongs to one pod.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) sandboxes: Vec<SandboxInfo>,
    pub(super) containers: Vec<ContainerInfo>,
}

/// Groups a list by pod.
pub(super) fn by_pod(sandboxes: Vec<SandboxInfo>, containers: Vec<ContainerInfo>) -> BTreeMap<Rc<str>, Found> {
    let mut pods: BTreeMap<Rc<str>, Found> = BTreeMap::new();
    for s in sandboxes {
        pods.entry(Rc::clone(&s.pod_uid)).or_default().sandboxes.push(s);
    }
    for c in containers {
        pods.entry(Rc::clone(&c.pod_uid)).or_default().containers.push(c);
    }
    pods
}

impl PodState {
    /// Lets a pod that this agent sees for the first time take over what an earlier agent left running.
    pub(super) fn adopt(&mut self, found: Found, ctx: &mut Ctx<'_>) {
        let before = self.pod.status.clone();
        let fresh = found.sandboxes.is_empty() && found.containers.is_empty();
        self.reconcile(found, ctx);
        // If the sandbox is gone, its init containers must run again, unless nothing of the pod is to run again.
        let never = self.pod.spec.restart_policy.as_deref() == Some("Never");
        let is_over = never && before.container_statuses.iter().any(has_run);
        let ephemeral = before.ephemeral_container_statuses();
        for i in 0..self.containers.len() {
            let name = Rc::clone(&self.containers[i].name);
            let role = self.containers[i].role;
            let list = match role {
                Role::Main => &before.container_statuses,
                Role::Init | Role::Sidecar => &before.init_container_statuses,
                Role::Ephemeral => &ephemeral,
            };
            let Some(old) = list.iter().find(|s| s.name == *name) else { continue };
            // An earlier agent may have made a new sandbox and come to some of them only.
            let is_new = self.sandbox.life == SandboxLife::Ready && !self.initialized;
            let has_run_here = self.containers[i].is_up() || self.containers[i].exit().is_some();
            let is_missing = is_new && role != Role::Main && !has_run_here;
            remember(&mut self.containers[i], old, ctx.now);
            let again = (fresh || is_missing && !self.pod.meta.is_deleting()) && !is_over;
            if let (true, Life::Exited(e)) = (again, &mut self.containers[i].life) {
                e.stale = true;
            }
        }
    }

    /// Sets the pod's state to what the list shows. Must be called only if the pod has no commands in flight except
    /// probes.
    pub(super) fn reconcile(&mut self, found: Found, ctx: &mut Ctx<'_>) {
        self.suspect = false;
        self.reconcile_sandbox(found.sandboxes, ctx);
        let mut seen: Vec<Option<ContainerInfo>> = self.containers.iter().map(|_| None).collect();
        for info in found.containers {
            if self.sandbox.id.as_ref() != Some(&info.sandbox) {
                continue;
            }
            let Some(i) = self.containers.iter().position(|c| *c.name == *info.name) else { continue };
            if seen[i].as_ref().is_none_or(|s| s.attempt < info.attempt) {
                seen[i] = Some(info);
            }
        }
        let any_main = self.containers.iter().zip(&seen).any(|(c, s)| c.role == Role::Main && s.is_some());
        self.initialized |= any_main && self.sandbox.life == SandboxLife::Ready;
        for (i, info) in seen.into_iter().enumerate() {
            self.reconcile_container(i, info, ctx);
        }
        self.write.dirty = true;
    }

    fn reconcile_sandbox(&mut self, sandboxes: Vec<SandboxInfo>, ctx: &mut Ctx<'_>) {
        let ours = sandboxes.iter().position(|s| Some(&s.id) == self.sandbox.id.as_ref());
        let chosen = ours.or_else(|| sandboxes.iter().position(|s| s.ready)).or(sandboxes.len().checked_sub(1));
        let mut strays = sandboxes;
        let chosen = chosen.map(|at| strays.remove(at));
        self.sandbox.strays = strays.into_iter().map(|s| (s.id, !s.ready)).collect();
        let Some(chosen) = chosen else {
            if self.sandbox.id.is_some() || self.sandbox.life != SandboxLife::None {
                self.forget_sandbox(ctx);
            }
            return;
        };
        if self.sandbox.id.as_ref() != Some(&chosen.id) {
            self.lose_containers(ctx);
            self.sandbox.ip = self.address(&chosen, ctx.shared);
            self.sandbox.id = Some(chosen.id);
            self.sandbox.life = if chosen.ready { SandboxLife::Ready } else { SandboxLife::Dead };
            return;
        }
        match (self.sandbox.life, chosen.ready) {
            (SandboxLife::Ready, false) => self.sandbox_gone(ctx),
            (SandboxLife::Stopped | SandboxLife::Removing | SandboxLife::Stopping, true) => {
                self.sandbox.life = SandboxLife::Dead;
            }
            (SandboxLife::None | SandboxLife::Creating, ready) => {
                self.sandbox.life = if ready { SandboxLife::Ready } else { SandboxLife::Dead };
            }
            (SandboxLife::Stopping | SandboxLife::Removing, false) => self.sandbox.life = SandboxLife::Stopped,
            (SandboxLife::Ready, true) | (SandboxLife::Dead, _) | (SandboxLife::Stopped, false) => {}
        }
    }

    fn reconcile_container(&mut self, i: usize, info: Option<ContainerInfo>, ctx: &mut Ctx<'_>) {
        let known = self.containers[i].id().cloned();
        let Some(info) = info else {
            if let Some(id) = known {
                let exit = unknown_exit(Some(id), &self.containers[i], ctx.now);
                self.exited(i, exit, ctx);
            } else if self.containers[i].life == Life::Creating {
                self.containers[i].life = Life::Waiting;
            }
            return;
        };
        let is_known = known.as_ref() == Some(&info.id);
        let is_past = self.containers[i].exit().is_some_and(|e| e.id.as_ref() == Some(&info.id));
        if is_past || self.containers[i].life == Life::Pulling {
            return;
        }
        if let (Some(old), false) = (known, is_known) {
            let exit = unknown_exit(Some(old), &self.containers[i], ctx.now);
            self.exited(i, exit, ctx);
        }
        let c = &mut self.containers[i];
        c.runs = c.runs.max(info.attempt + 1);
        c.image_id = info.image_id;
        match info.state {
            ContainerState::Created => {
                // Whether its start was requested is unknown, so it is discarded and created again.
                ctx.shared.containers.insert(info.id.clone(), (self.slot, i as u16));
                c.life = Life::Starting(info.id);
                c.runs -= 1;
                self.drop_container(i, ctx);
            }
            ContainerState::Running { started_at } => self.found_running(i, info.id, started_at, is_known, ctx),
            exited @ ContainerState::Exited { .. } => {
                let Some(exit) = exit_of(&info.id, exited, ctx.now.mono) else { return };
                let was_up = c.is_up();
                if !was_up && c.last.as_ref().is_some_and(|l| l.id.as_ref() == Some(&info.id)) {
                    return;
                }
                self.exited(i, exit, ctx);
            }
        }
    }

    fn found_running(
        &mut self,
        i: usize,
        id: super::runtime::ContainerId,
        started_at: Wall,
        is_known: bool,
        ctx: &mut Ctx<'_>,
    ) {
        let c = &mut self.containers[i];
        if is_known && matches!(c.life, Life::Running(..)) {
            return;
        }
        if !is_known {
            ctx.shared.containers.insert(id.clone(), (self.slot, i as u16));
        }
        c.life = Life::Starting(id);
        c.stop = Stop::No;
        if !self.has_op(&What::PostStart(i as u16)) {
            self.now_running(i, started_at, ctx);
        }
    }
}

/// Whether a status says that its container has been started.
fn has_run(status: &object::ContainerStatus) -> bool {
    [&status.state, &status.last_state].iter().any(|state| state.running().is_some() || state.terminated().is_some())
}

/// Takes over what the API's status says about a container if the list says less.
fn remember(c: &mut Container, old: &object::ContainerStatus, now: Now) {
    let restarts = u32::try_from(old.restart_count).unwrap_or(0);
    let ended = |t: &object::Terminated| Exit {
        id: None,
        code: t.exit_code,
        reason: Rc::from(t.reason.as_str()),
        message: Rc::from(t.message.as_str()),
        started_at: t.started_at.wall(),
        finished_at: t.finished_at.wall().unwrap_or(Wall(0)),
        seen: now.mono,
        stale: false,
    };
    let last = old.last_state.terminated().map(|t| Box::new(ended(t)));
    match &c.life {
        Life::Running(..) => {
            c.runs = c.runs.max(restarts + 1);
            c.last = c.last.take().or(last);
            // The agent before took the start from its own clock; what was reported must not change.
            if let (Life::Running(_, since), Some(reported)) = (&mut c.life, old.state.running())
                && restarts + 1 == c.runs
            {
                *since = reported.wall().unwrap_or(*since);
            }
            // A restart of the agent must not make a ready container unready or run its startup probe again.
            if old.started == Some(true) && restarts + 1 == c.runs {
                c.started = true;
                if let Some(p) = &mut c.probes {
                    p.skip_startup();
                }
                c.ready = old.ready || c.probes.as_ref().is_none_or(|p| !p.has(super::probe::ProbeKind::Readiness));
            }
        }
        Life::Exited(_) => {
            c.runs = c.runs.max(restarts + 1);
            c.last = c.last.take().or(last);
        }
        Life::Waiting | Life::Pulling | Life::Creating | Life::Starting(_) => {
            if let Some(t) = old.state.terminated() {
                c.runs = c.runs.max(restarts + 1);
                c.life = Life::Exited(Box::new(ended(t)));
                c.last = last;
            } else if let Some(started_at) = old.state.running() {
                c.runs = c.runs.max(restarts + 1);
                let mut exit = unknown_exit(None, c, now);
                exit.started_at = started_at.wall();
                c.life = Life::Exited(Box::new(exit));
                c.last = last;
            } else if last.is_some() {
                // It was waiting to be run again.
                c.runs = c.runs.max(restarts + 1);
                c.life = last.map_or(Life::Waiting, Life::Exited);
            }
        }
    }
}
