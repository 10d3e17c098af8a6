//! A pod's status as the kubelet generates it: phase, conditions, container statuses (`kubelet_pods.go`
//! `generateAPIPodStatus`, `status/generate.go`).

use std::rc::Rc;

use super::admission::Cause;
use super::pod::{Container, Exit, Life, PodState, Role, SandboxLife, Shared, StopReason, container_spec};
use super::resize;
use super::runtime::ContainerId;
use super::sync::DEADLINE_MESSAGE;
use crate::machine::{Now, Wall};
use crate::object::{
    Addresses, ContainerState, ContainerStatus, PodCondition, PodStatus, Stamp, Terminated, Text, is_status_terminal,
    qos_class,
};

/// Conditions that the kubelet sets; all other conditions of a status belong to other components.
const OWN_CONDITIONS: [Text; 5] =
    [Text::POD_READY_TO_START_CONTAINERS, Text::INITIALIZED, Text::READY, Text::CONTAINERS_READY, Text::POD_SCHEDULED];

/// The state of a condition. `Ok` with a reason: it is true; `Err` with a reason and a message: it is false.
type Verdict = Result<Text, (Text, Text)>;

impl PodState {
    /// Whether the status must not be generated yet. The kubelet reports nothing while containers are starting (unless
    /// they were ready, which must be withdrawn), nor between the end of the last container and the end of the sandbox.
    pub(super) fn holds_status(&self) -> bool {
        let was_ready = self.write.base.condition(&Text::CONTAINERS_READY).is_some_and(|c| c.status == Text::TRUE);
        let starting =
            !was_ready && self.containers.iter().any(|c| matches!(c.life, Life::Creating | Life::Starting(_)));
        let ending = self.ending.stop.is_some() && !self.ending.finished && self.containers.iter().all(|c| !c.is_up());
        (starting || ending) && !self.suspect && self.write.base.start_time.is_some()
    }

    /// Generates the pod's current status.
    pub(super) fn make_status(&self, now: Now, shared: &Shared) -> PodStatus {
        let old = &self.write.base;
        let api = &self.pod.status;
        let mut status = PodStatus {
            observed_generation: self.pod.meta.generation,
            start_time: old.start_time.or(Stamp::of(now.wall)),
            qos_class: old.qos_class.or(|| qos_class(&self.pod.spec.shared).into()),
            host_ip: (&shared.config.host_ip).into(),
            host_ips: Addresses::TheOne,
            // Not owned by the kubelet: kept as they are in the API.
            nominated_node_name: api.nominated_node_name.clone(),
            rest: api.rest.clone(),
            ..PodStatus::default()
        };
        if let Some(rejection) = self.rejection.as_ref().filter(|r| r.cause == Cause::Admission) {
            status.phase = Text::FAILED;
            status.reason = Text::from(&*rejection.reason);
            status.message = Text::from(&*format!("Pod was rejected: {}", rejection.message));
            status.conditions.clone_from(&api.conditions);
            return status;
        }
        if is_status_terminal(old) && !self.knows_an_end() {
            // The pod ended before this agent started; the status that was reported then is kept.
            return PodStatus { observed_generation: self.pod.meta.generation, ..(**old).clone() };
        }
        self.fill(&mut status, now, shared);
        status
    }

    /// Whether this agent has observed the pod running or terminating.
    fn knows_an_end(&self) -> bool {
        self.containers.iter().any(|c| c.runs > 0 || c.last.is_some() || c.is_up())
    }

    fn fill(&self, status: &mut PodStatus, now: Now, shared: &Shared) {
        let make = |role: fn(Role) -> bool| -> Vec<ContainerStatus> {
            let of_role = self.containers.iter().filter(|c| role(c.role));
            // Statuses are large and the store keeps many versions of them, so no spare capacity is allocated.
            let mut all = Vec::with_capacity(of_role.clone().count());
            all.extend(of_role.map(|c| self.container_status(c, shared)));
            all
        };
        let inits = make(Role::is_init);
        let mains = make(|r| r == Role::Main);
        status.phase = self.phase();
        if self.ending.finished && self.ending.stop.is_some_and(|s| s.reason == StopReason::DeadlineExceeded) {
            status.phase = Text::FAILED;
            status.reason = Text::DEADLINE_EXCEEDED;
            status.message = DEADLINE_MESSAGE.into();
        } else if let Some(evicted) = self.rejection.as_ref().filter(|_| self.ending.finished) {
            status.phase = Text::FAILED;
            status.reason = Text::from(&*evicted.reason);
            status.message = Text::from(&*evicted.message);
        } else if is_status_terminal(&self.write.base) {
            // A terminal phase is never left.
            status.phase.clone_from(&self.write.base.phase);
            status.reason.clone_from(&self.write.base.reason);
            status.message.clone_from(&self.write.base.message);
        }
        status.pod_ip = match &self.sandbox.ip {
            Some(ip) => self.write.base.pod_ip.reread(ip),
            // As in the kubelet, a terminated pod keeps its address.
            None if self.ending.stop.is_some() => self.write.base.pod_ip.clone(),
            None => Text::EMPTY,
        };
        if !status.pod_ip.is_empty() {
            status.pod_ips = Addresses::TheOne;
        }
        let initialized = self.initialized_verdict(&inits, &status.phase);
        let containers_ready = self.containers_ready_verdict(&inits, &mains, &status.phase);
        let ready = match &containers_ready {
            Ok(_) => self.readiness_gates_verdict(),
            Err(e) => Err(e.clone()),
        };
        let sandbox = if self.sandbox.life == SandboxLife::Ready && self.sandbox.ip.is_some() {
            Ok(Text::EMPTY)
        } else {
            Err((Text::EMPTY, Text::EMPTY))
        };
        let verdicts = [sandbox, initialized, ready, containers_ready, Ok(Text::EMPTY)];
        status.conditions = self.conditions(verdicts, now);
        status.set_ephemeral_container_statuses(&make(|r| r == Role::Ephemeral));
        status.init_container_statuses = inits;
        status.container_statuses = mains;
    }

    /// The phase (kubelet `getPhase`).
    fn phase(&self) -> Text {
        let (mut pending_init, mut pending_sidecars, mut failed_init) = (0, 0, 0);
        let (mut running, mut waiting, mut stopped, mut succeeded) = (0, 0, 0, 0);
        for c in &self.containers {
            let ended = self.ended_code(c);
            let is_running = matches!(c.life, Life::Running(..));
            match c.role {
                Role::Init if is_running => pending_init += 1,
                Role::Init if self.initialized => {}
                Role::Init => match ended {
                    Some(0) if c.exit().is_some_and(|e| !e.stale) => {}
                    Some(code) if code != 0 => failed_init += 1,
                    _ => pending_init += 1,
                },
                Role::Sidecar if is_running => {
                    pending_sidecars += i32::from(!c.started);
                    running += 1;
                }
                Role::Sidecar if ended.is_some() => {}
                Role::Sidecar => {
                    pending_sidecars += 1;
                    waiting += i32::from(!self.ending.finished);
                }
                Role::Main if is_running => running += 1,
                Role::Main => match ended {
                    Some(code) => {
                        stopped += 1;
                        succeeded += i32::from(code == 0);
                    }
                    None => waiting += 1,
                },
                Role::Ephemeral => {}
            }
        }
        let policy = self.pod.spec.restart_policy.as_deref().unwrap_or("Always");
        if self.ending.finished {
            // No container will run again, so the phase must become terminal.
            let mains = self.containers.iter().filter(|c| c.role == Role::Main).count() as i32;
            let all_well = stopped == succeeded && stopped == mains && stopped > 0 && failed_init == 0;
            return if all_well { Text::SUCCEEDED } else { Text::FAILED };
        }
        if failed_init > 0 && policy == "Never" {
            // It becomes terminal only after everything has stopped.
            return Text::PENDING;
        }
        if pending_init > 0 || (pending_sidecars > 0 && !self.initialized) || waiting > 0 {
            return Text::PENDING;
        }
        if running > 0 || stopped > 0 { Text::RUNNING } else { Text::PENDING }
    }

    /// Exit code of a container's last run; `None` if it is running or has never run.
    fn ended_code(&self, c: &Container) -> Option<i32> {
        match &c.life {
            Life::Exited(e) => Some(e.code),
            Life::Running(..) => None,
            Life::Waiting | Life::Pulling | Life::Creating | Life::Starting(_) => c.last.as_ref().map(|e| e.code),
        }
    }

    fn container_status(&self, c: &Container, shared: &Shared) -> ContainerStatus {
        let told = &self.write.base;
        let old = told.container_statuses.iter().chain(&told.init_container_statuses).find(|s| s.name == *c.name);
        let runtime_id = |id: &ContainerId| match old.filter(|old| names(&old.container_id, shared, id)) {
            Some(old) => old.container_id.clone(),
            None => Text::from(&*[&*shared.runtime_name, "://", &*id.0].concat()),
        };
        let ended = |e: &Exit| ContainerState::Terminated(Box::new(terminated(e, e.id.as_ref().map(runtime_id))));
        let last = c.last.as_deref().map_or(ContainerState::Empty, ended);
        let (state, last_state) = match (&c.life, &c.waiting) {
            (Life::Running(_, at), _) => (ContainerState::Running { started_at: Stamp::of(*at) }, last),
            (Life::Exited(e), Some(w)) if self.ending.stop.is_none() => (waits(&w.reason, &w.message), ended(e)),
            (Life::Exited(e), _) => (ended(e), last),
            (_, Some(w)) if !self.ending.finished => (waits(&w.reason, &w.message), last),
            // Between two runs, the termination of the last run is shown.
            (Life::Waiting | Life::Pulling | Life::Creating | Life::Starting(_), _)
                if last != ContainerState::Empty =>
            {
                (last, ContainerState::Empty)
            }
            (Life::Waiting | Life::Pulling | Life::Creating | Life::Starting(_), _)
                if self.ending.finished && self.initialized && c.role != Role::Ephemeral =>
            {
                (ended(&never_found()), ContainerState::Empty)
            }
            (Life::Waiting | Life::Pulling | Life::Creating | Life::Starting(_), _) => {
                let any_init = self.containers.iter().any(|c| c.role.is_init());
                let reason = if any_init { "PodInitializing" } else { "ContainerCreating" };
                (waits(reason, ""), ContainerState::Empty)
            }
        };
        let id = match &c.life {
            Life::Running(id, _) | Life::Starting(id) => Some(id),
            Life::Exited(e) => e.id.as_ref(),
            Life::Waiting | Life::Pulling | Life::Creating => c.last.as_ref().and_then(|e| e.id.as_ref()),
        };
        // A container that was made, and maybe not started, is made again: until then its number stays.
        let runs = i32::try_from(c.runs.saturating_sub(1)).unwrap_or(i32::MAX);
        let restart_count = runs.max(old.map_or(0, |old| old.restart_count));
        let image = self.image_of_run(c, old);
        let is_running = matches!(c.life, Life::Running(..));
        let ready = match c.role {
            Role::Init => c.exit().is_some_and(|e| e.code == 0) || (self.initialized && !is_running),
            Role::Sidecar | Role::Main => is_running && c.started && c.ready,
            // Nobody probes it, so nobody says that it is ready.
            Role::Ephemeral => false,
        };
        ContainerStatus {
            name: Text::from(&c.name),
            ready,
            restart_count,
            image_id: match &*c.image_id {
                _ if c.runs == 0 => Text::EMPTY,
                "" => image.clone(),
                id => Text::from(id),
            },
            image,
            container_id: id.map(runtime_id).unwrap_or_default(),
            started: (c.role != Role::Ephemeral).then_some(is_running && c.started),
            state,
            last_state,
            rest: self.resized.as_ref().and_then(|resized| resized.status(&c.name)),
        }
    }

    /// The image that a container is running; until a restart, this may differ from the image in its spec.
    fn image_of_run(&self, c: &Container, old: Option<&ContainerStatus>) -> Text {
        match (old, container_spec(&self.pod, c).and_then(|s| s.image.as_deref())) {
            (Some(old), _) if c.force_restart => old.image.clone(),
            (Some(old), Some(image)) => old.image.reread(image),
            (_, image) => Text::from(image.unwrap_or("")),
        }
    }

    /// The Initialized condition (`GeneratePodInitializedCondition`).
    fn initialized_verdict(&self, inits: &[ContainerStatus], phase: &Text) -> Verdict {
        if *phase == Text::SUCCEEDED {
            return Ok(Text::POD_COMPLETED);
        }
        if self.initialized {
            return Ok(Text::EMPTY);
        }
        let roles = self.containers.iter().map(|c| c.role).filter(|role| role.is_init());
        let incomplete = inits.iter().zip(roles).filter(|(s, role)| match role {
            Role::Sidecar => s.started != Some(true),
            Role::Init | Role::Main | Role::Ephemeral => !s.ready,
        });
        let names: Vec<&str> = incomplete.map(|(s, _)| s.name.as_str()).collect();
        if names.is_empty() {
            return Ok(Text::EMPTY);
        }
        let message = format!("containers with incomplete status: [{}]", names.join(" "));
        Err((Text::CONTAINERS_NOT_INITIALIZED, Text::from(&*message)))
    }

    /// The ContainersReady condition (`GenerateContainersReadyCondition`).
    fn containers_ready_verdict(&self, inits: &[ContainerStatus], mains: &[ContainerStatus], phase: &Text) -> Verdict {
        if *phase == Text::SUCCEEDED {
            return Err((Text::POD_COMPLETED, Text::EMPTY));
        }
        if *phase == Text::FAILED {
            return Err((Text::POD_FAILED, Text::EMPTY));
        }
        let roles = self.containers.iter().map(|c| c.role).filter(|role| role.is_init());
        let sidecars = inits.iter().zip(roles).filter(|(_, r)| *r == Role::Sidecar).map(|(s, _)| s);
        let unready: Vec<&str> = sidecars.chain(mains).filter(|s| !s.ready).map(|s| s.name.as_str()).collect();
        if unready.is_empty() {
            return Ok(Text::EMPTY);
        }
        let message = format!("containers with unready status: [{}]", unready.join(" "));
        Err((Text::CONTAINERS_NOT_READY, Text::from(&*message)))
    }

    /// The Ready condition, once all containers are ready (`GeneratePodReadyCondition`).
    fn readiness_gates_verdict(&self) -> Verdict {
        let mut messages = Vec::new();
        for gate in self.pod.spec.readiness_gates.iter().flatten() {
            let name = &gate.condition_type;
            match self.pod.status.condition(&Text::from(&**name)) {
                None => {
                    messages.push(format!("corresponding condition of pod readiness gate {name:?} does not exist."));
                }
                Some(c) if c.status != Text::TRUE => messages
                    .push(format!("the status of pod readiness gate {name:?} is not \"True\", but {}", c.status)),
                Some(_) => {}
            }
        }
        if messages.is_empty() {
            return Ok(Text::EMPTY);
        }
        Err((Text::READINESS_GATES_NOT_READY, Text::from(&*messages.join(", "))))
    }

    /// Why the pod ends for the node's sake.
    fn disrupts(&self) -> Option<&str> {
        self.rejection.as_ref().filter(|r| r.cause == Cause::Pressure).map(|r| r.message.as_str())
    }

    fn conditions(&self, verdicts: [Verdict; 5], now: Now) -> Vec<PodCondition> {
        let own = OWN_CONDITIONS.into_iter().zip(verdicts).map(|(type_, verdict)| {
            let (status, reason, message) = match verdict {
                Ok(reason) => (Text::TRUE, reason, Text::EMPTY),
                Err((reason, message)) => (Text::FALSE, reason, message),
            };
            let old = self.write.base.condition(&type_).filter(|c| c.status == status);
            PodCondition {
                type_,
                status,
                reason,
                message,
                observed_generation: self.pod.meta.generation,
                last_transition_time: old.map_or(Stamp::NONE, |c| c.last_transition_time).or(Stamp::of(now.wall)),
                last_probe_time: Stamp::NONE,
            }
        });
        let is_own = |c: &PodCondition| {
            OWN_CONDITIONS.contains(&c.type_)
                || self.resized.is_some() && (c.type_ == *resize::PENDING || c.type_ == *resize::IN_PROGRESS)
                || self.disrupts().is_some() && c.type_ == Text::DISRUPTION_TARGET
        };
        let foreign = self.pod.status.conditions.iter().filter(|c| !is_own(c));
        let pending = self.resized.as_ref().and_then(|resized| {
            let old = self.write.base.condition(&Text::from(resize::PENDING));
            resized.condition(old, self.pod.meta.generation, Stamp::of(now.wall))
        });
        let progress = self.resized.as_ref().and_then(|resized| {
            let old = self.write.base.condition(&Text::from(resize::IN_PROGRESS));
            resized.progress(old, self.pod.meta.generation, Stamp::of(now.wall))
        });
        let disrupted = self.disrupts().map(|message| PodCondition {
            type_: Text::DISRUPTION_TARGET,
            status: Text::TRUE,
            reason: "TerminationByKubelet".into(),
            message: Text::from(message),
            observed_generation: self.pod.meta.generation,
            last_transition_time: self
                .write
                .base
                .condition(&Text::DISRUPTION_TARGET)
                .map_or(Stamp::NONE, |c| c.last_transition_time)
                .or(Stamp::of(now.wall)),
            last_probe_time: Stamp::NONE,
        });
        let more = pending.into_iter().chain(progress).chain(disrupted);
        // The store keeps many versions of statuses, so no spare capacity is allocated.
        let mut all = Vec::with_capacity(OWN_CONDITIONS.len() + foreign.clone().count() + more.size_hint().0);
        all.extend(own);
        all.extend(foreign.cloned());
        all.extend(more);
        all
    }
}

fn waits(reason: &str, message: &str) -> ContainerState {
    ContainerState::Waiting { reason: reason.into(), message: message.into() }
}

/// Whether a text is this container's id in the form used in statuses.
fn names(text: &Text, shared: &Shared, id: &ContainerId) -> bool {
    let bare = text.as_str().strip_prefix(&*shared.runtime_name).and_then(|rest| rest.strip_prefix("://"));
    bare == Some(&*id.0)
}

fn terminated(e: &Exit, container_id: Option<Text>) -> Terminated {
    let reason = match &*e.reason {
        "" if e.code == 0 => Text::COMPLETED,
        "" => Text::ERROR,
        _ => Text::from(&e.reason),
    };
    Terminated {
        container_id: container_id.unwrap_or_default(),
        exit_code: e.code,
        reason,
        message: Text::from(&e.message),
        started_at: e.started_at.map_or(Stamp::NONE, Stamp::of),
        finished_at: if e.finished_at.0 == 0 { Stamp::NONE } else { Stamp::of(e.finished_at) },
        signal: None,
    }
}

/// The exit of a container that was never seen running in an initialized pod that has ended.
fn never_found() -> Exit {
    Exit {
        id: None,
        code: 137,
        reason: Rc::from("ContainerStatusUnknown"),
        message: Rc::from("The container could not be located when the pod was terminated"),
        started_at: None,
        finished_at: Wall(0),
        seen: crate::machine::Mono::ZERO,
        stale: false,
    }
}
