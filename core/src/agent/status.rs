//! A pod's status as the kubelet makes it: phase, conditions, container statuses
//! (`kubelet_pods.go` `generateAPIPodStatus`, `status/generate.go`).

use std::rc::Rc;

use k8s_openapi::api::core::v1 as core_v1;

use super::pod::{Container, Exit, Life, PodState, Role, SandboxLife, Shared, StopReason, container_spec};
use super::sync::DEADLINE_MESSAGE;
use crate::machine::{Now, Wall};
use crate::object::pod_condition;
use crate::object::qos_class;

/// Conditions that the kubelet sets; whatever else stands in a status is someone else's.
const OWN_CONDITIONS: [&str; 5] =
    ["PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled"];

/// What a condition says: whether it holds, or else why not.
type Verdict = Result<Option<&'static str>, (&'static str, String)>;

impl PodState {
    /// Whether the status is to be made later: the kubelet shows nothing in the middle of starting containers (unless
    /// they were ready, which must be taken back), nor between the end of the last container and that of the sandbox.
    pub(super) fn holds_status(&self) -> bool {
        let was_ready = pod_condition(&self.write.base, "ContainersReady").is_some_and(|c| c.status == "True");
        let starting =
            !was_ready && self.containers.iter().any(|c| matches!(c.life, Life::Creating | Life::Starting(_)));
        let ending = self.stop.is_some() && !self.finished && self.containers.iter().all(|c| !c.is_up());
        (starting || ending) && !self.suspect && self.write.base.start_time.is_some()
    }

    /// The status that the pod now has.
    pub(super) fn make_status(&self, now: Now, shared: &Shared) -> core_v1::PodStatus {
        let old = &self.write.base;
        let api = &self.pod.status;
        let mut status = core_v1::PodStatus {
            observed_generation: self.pod.meta.generation,
            start_time: old.start_time.clone().or_else(|| Some(now.wall.to_time())),
            qos_class: old.qos_class.clone().or_else(|| Some(qos_class(&self.pod.spec.shared).to_owned())),
            host_ip: Some(String::from(&*shared.config.host_ip)),
            host_ips: Some(vec![core_v1::HostIP { ip: String::from(&*shared.config.host_ip) }]),
            // Not the kubelet's: kept as the API has them.
            nominated_node_name: api.nominated_node_name.clone(),
            resource_claim_statuses: api.resource_claim_statuses.clone(),
            resize: api.resize.clone(),
            ephemeral_container_statuses: api.ephemeral_container_statuses.clone(),
            extended_resource_claim_status: api.extended_resource_claim_status.clone(),
            ..core_v1::PodStatus::default()
        };
        if let Some(rejection) = &self.rejection {
            status.phase = Some("Failed".to_owned());
            status.reason = Some(rejection.reason.clone());
            status.message = Some(format!("Pod was rejected: {}", rejection.message));
            status.conditions.clone_from(&api.conditions);
            return status;
        }
        let is_terminal = matches!(old.phase.as_deref(), Some("Succeeded" | "Failed"));
        if is_terminal && !self.knows_an_end() {
            // It ended before this agent's time; what was told then stands.
            return core_v1::PodStatus { observed_generation: self.pod.meta.generation, ..(**old).clone() };
        }
        self.fill(&mut status, now, shared);
        status
    }

    /// Whether this agent has seen the pod run, or end.
    fn knows_an_end(&self) -> bool {
        self.containers.iter().any(|c| c.runs > 0 || c.last.is_some() || c.is_up())
    }

    fn fill(&self, status: &mut core_v1::PodStatus, now: Now, shared: &Shared) {
        let make = |role: fn(Role) -> bool| -> Vec<core_v1::ContainerStatus> {
            let of_role = self.containers.iter().filter(|c| role(c.role));
            // They are large, and the store keeps many a version: no room is left for more.
            let mut all = Vec::with_capacity(of_role.clone().count());
            all.extend(of_role.map(|c| self.container_status(c, shared)));
            all
        };
        let inits = make(|r| r != Role::Main);
        let mains = make(|r| r == Role::Main);
        status.phase = Some(self.phase().to_owned());
        if self.finished && self.stop.is_some_and(|s| s.reason == StopReason::DeadlineExceeded) {
            status.phase = Some("Failed".to_owned());
            status.reason = Some("DeadlineExceeded".to_owned());
            status.message = Some(DEADLINE_MESSAGE.to_owned());
        } else if matches!(self.write.base.phase.as_deref(), Some("Succeeded" | "Failed")) {
            // A terminal phase is never left.
            status.phase.clone_from(&self.write.base.phase);
            status.reason.clone_from(&self.write.base.reason);
            status.message.clone_from(&self.write.base.message);
        }
        let host_network = self.pod.spec.host_network == Some(true);
        let ip = match &self.ip {
            Some(_) if host_network => Some(String::from(&*shared.config.host_ip)),
            Some(ip) => Some(String::from(&**ip)),
            // As the kubelet, the address of a pod that has ended stays.
            None => self.write.base.pod_ip.clone().filter(|_| self.stop.is_some()),
        };
        status.pod_ips = ip.clone().map(|ip| vec![core_v1::PodIP { ip }]);
        status.pod_ip = ip;
        let phase = status.phase.clone().unwrap_or_default();
        let initialized = self.initialized_verdict(&inits, &phase);
        let containers_ready = self.containers_ready_verdict(&inits, &mains, &phase);
        let ready = match &containers_ready {
            Ok(_) => self.readiness_gates_verdict(),
            Err(e) => Err(e.clone()),
        };
        let sandbox = if self.sandbox_life == SandboxLife::Ready && self.ip.is_some() {
            Ok(None)
        } else {
            Err(("", String::new()))
        };
        let verdicts = [sandbox, initialized, ready, containers_ready, Ok(None)];
        status.conditions = Some(self.conditions(verdicts, now));
        status.init_container_statuses = (!inits.is_empty()).then_some(inits);
        status.container_statuses = Some(mains);
    }

    /// `getPhase`.
    fn phase(&self) -> &'static str {
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
                    waiting += i32::from(!self.finished);
                }
                Role::Main if is_running => running += 1,
                Role::Main => match ended {
                    Some(code) => {
                        stopped += 1;
                        succeeded += i32::from(code == 0);
                    }
                    None => waiting += 1,
                },
            }
        }
        let policy = self.pod.spec.restart_policy.as_deref().unwrap_or("Always");
        if self.finished {
            // No container will run again: the phase must be a final one.
            let mains = self.containers.iter().filter(|c| c.role == Role::Main).count() as i32;
            let all_well = stopped == succeeded && stopped == mains && stopped > 0 && failed_init == 0;
            return if all_well { "Succeeded" } else { "Failed" };
        }
        if failed_init > 0 && policy == "Never" {
            // Terminal only once everything has stopped.
            return "Pending";
        }
        if pending_init > 0 || (pending_sidecars > 0 && !self.initialized) || waiting > 0 {
            return "Pending";
        }
        if running > 0 || stopped > 0 { "Running" } else { "Pending" }
    }

    /// Exit code of a container's last run, if it does not run now.
    fn ended_code(&self, c: &Container) -> Option<i32> {
        match &c.life {
            Life::Exited(e) => Some(e.code),
            Life::Running(..) => None,
            Life::Waiting | Life::Pulling | Life::Creating | Life::Starting(_) => c.last.as_ref().map(|e| e.code),
        }
    }

    fn container_status(&self, c: &Container, shared: &Shared) -> core_v1::ContainerStatus {
        let runtime_id = |id: &super::runtime::ContainerId| [&*shared.runtime_name, "://", &*id.0].concat();
        let ended = |e: &Exit| core_v1::ContainerState {
            terminated: Some(terminated(e, e.id.as_ref().map(runtime_id))),
            ..core_v1::ContainerState::default()
        };
        let last = c.last.as_deref().map(ended);
        let waits = |reason: &str, message: Option<String>| core_v1::ContainerState {
            waiting: Some(core_v1::ContainerStateWaiting { reason: Some(reason.to_owned()), message }),
            ..core_v1::ContainerState::default()
        };
        let (state, last_state) = match (&c.life, &c.waiting) {
            (Life::Running(_, at), _) => {
                let running = core_v1::ContainerStateRunning { started_at: Some(at.to_time()) };
                (core_v1::ContainerState { running: Some(running), ..core_v1::ContainerState::default() }, last)
            }
            (Life::Exited(e), Some(w)) if self.stop.is_none() => (waits(&w.reason, text(&w.message)), Some(ended(e))),
            (Life::Exited(e), _) => (ended(e), last),
            (_, Some(w)) if !self.finished => (waits(&w.reason, text(&w.message)), last),
            // Between two runs the end of the last one is shown.
            _ if last.is_some() => (last.unwrap_or_default(), None),
            _ if self.finished && self.initialized => (ended(&never_found()), None),
            _ => {
                let any_init = self.containers.iter().any(|c| c.role != Role::Main);
                (waits(if any_init { "PodInitializing" } else { "ContainerCreating" }, None), None)
            }
        };
        let id = match &c.life {
            Life::Running(id, _) | Life::Starting(id) => Some(id),
            Life::Exited(e) => e.id.as_ref(),
            Life::Waiting | Life::Pulling | Life::Creating => c.last.as_ref().and_then(|e| e.id.as_ref()),
        };
        let image = self.image_of_run(c);
        let is_running = matches!(c.life, Life::Running(..));
        let ready = match c.role {
            Role::Init => c.exit().is_some_and(|e| e.code == 0) || (self.initialized && !is_running),
            Role::Sidecar | Role::Main => is_running && c.started && c.ready,
        };
        core_v1::ContainerStatus {
            name: String::from(&*c.name),
            ready,
            restart_count: i32::try_from(c.runs.saturating_sub(1)).unwrap_or(i32::MAX),
            image_id: if c.runs > 0 { image.clone() } else { String::new() },
            image,
            container_id: id.map(runtime_id),
            started: Some(is_running && c.started),
            state: Some(state),
            last_state: Some(last_state.unwrap_or_default()),
            ..core_v1::ContainerStatus::default()
        }
    }

    /// The image that a container runs, which for a moment is not the one that its spec names.
    fn image_of_run(&self, c: &Container) -> String {
        if c.force_restart {
            let told = self.write.base.container_statuses.iter().chain(&self.write.base.init_container_statuses);
            if let Some(s) = told.flatten().find(|s| s.name == *c.name) {
                return s.image.clone();
            }
        }
        container_spec(&self.pod, c).and_then(|s| s.image.clone()).unwrap_or_default()
    }

    /// `GeneratePodInitializedCondition`.
    fn initialized_verdict(&self, inits: &[core_v1::ContainerStatus], phase: &str) -> Verdict {
        if phase == "Succeeded" {
            return Ok(Some("PodCompleted"));
        }
        if self.initialized {
            return Ok(None);
        }
        let roles = self.containers.iter().filter(|c| c.role != Role::Main).map(|c| c.role);
        let incomplete = inits.iter().zip(roles).filter(|(s, role)| match role {
            Role::Sidecar => s.started != Some(true),
            Role::Init | Role::Main => !s.ready,
        });
        let names: Vec<&str> = incomplete.map(|(s, _)| s.name.as_str()).collect();
        if names.is_empty() {
            return Ok(None);
        }
        Err(("ContainersNotInitialized", format!("containers with incomplete status: [{}]", names.join(" "))))
    }

    /// `GenerateContainersReadyCondition`.
    fn containers_ready_verdict(
        &self,
        inits: &[core_v1::ContainerStatus],
        mains: &[core_v1::ContainerStatus],
        phase: &str,
    ) -> Verdict {
        match phase {
            "Succeeded" => return Err(("PodCompleted", String::new())),
            "Failed" => return Err(("PodFailed", String::new())),
            _ => {}
        }
        let roles = self.containers.iter().filter(|c| c.role != Role::Main).map(|c| c.role);
        let sidecars = inits.iter().zip(roles).filter(|(_, r)| *r == Role::Sidecar).map(|(s, _)| s);
        let unready: Vec<&str> = sidecars.chain(mains).filter(|s| !s.ready).map(|s| s.name.as_str()).collect();
        if unready.is_empty() {
            return Ok(None);
        }
        Err(("ContainersNotReady", format!("containers with unready status: [{}]", unready.join(" "))))
    }

    /// `GeneratePodReadyCondition`, when the containers are.
    fn readiness_gates_verdict(&self) -> Verdict {
        let mut messages = Vec::new();
        for gate in self.pod.spec.readiness_gates.iter().flatten() {
            let name = &gate.condition_type;
            match pod_condition(&self.pod.status, name) {
                None => {
                    messages.push(format!("corresponding condition of pod readiness gate {name:?} does not exist."));
                }
                Some(c) if c.status != "True" => messages
                    .push(format!("the status of pod readiness gate {name:?} is not \"True\", but {}", c.status)),
                Some(_) => {}
            }
        }
        if messages.is_empty() { Ok(None) } else { Err(("ReadinessGatesNotReady", messages.join(", "))) }
    }

    fn conditions(&self, verdicts: [Verdict; 5], now: Now) -> Vec<core_v1::PodCondition> {
        let own = OWN_CONDITIONS.iter().zip(verdicts).map(|(type_, verdict)| {
            let (holds, reason, message) = match verdict {
                Ok(reason) => ("True", reason.unwrap_or(""), String::new()),
                Err((reason, message)) => ("False", reason, message),
            };
            let old = pod_condition(&self.write.base, type_).filter(|c| c.status == holds);
            core_v1::PodCondition {
                type_: (*type_).to_owned(),
                status: holds.to_owned(),
                reason: text(reason),
                message: text(&message),
                observed_generation: self.pod.meta.generation,
                last_transition_time: old
                    .and_then(|c| c.last_transition_time.clone())
                    .or_else(|| Some(now.wall.to_time())),
                last_probe_time: None,
            }
        });
        let foreign = self.pod.status.conditions.iter().flatten();
        let mut all = Vec::with_capacity(OWN_CONDITIONS.len());
        all.extend(own);
        all.extend(foreign.filter(|c| !OWN_CONDITIONS.contains(&c.type_.as_str())).cloned());
        all
    }
}

fn text(s: &str) -> Option<String> {
    (!s.is_empty()).then(|| s.to_owned())
}

fn terminated(e: &Exit, container_id: Option<String>) -> core_v1::ContainerStateTerminated {
    let reason = match &*e.reason {
        "" if e.code == 0 => "Completed",
        "" => "Error",
        given => given,
    };
    core_v1::ContainerStateTerminated {
        container_id,
        exit_code: e.code,
        reason: Some(reason.to_owned()),
        message: text(&e.message),
        started_at: e.started_at.map(Wall::to_time),
        finished_at: Some(e.finished_at).filter(|at| at.0 != 0).map(Wall::to_time),
        signal: None,
    }
}

/// A container of an initialised pod that was never seen to run, when the pod has ended.
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
