//! The simulated container runtime of a node: images, sandboxes, containers, with times drawn by seed.
//!
//! A command is answered by a [`Fire`] that is due later; what it changes is changed when it fires, so that a node
//! that dies in between has done nothing.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use skeg_core::agent::{
    ContainerId, ContainerInfo, ContainerSpec, ContainerState, ContainerStats, ImageInfo, OpId, ProbeAction,
    RuntimeCommand, RuntimeError, RuntimeEvent, SandboxId, SandboxInfo,
};
use skeg_core::{Rng, Wall};

use crate::scenario::ImageProfile;

/// Bytes per second that a node pulls images with.
const PULL_BANDWIDTH: u64 = 100 << 20;
/// Exit code of a process that was killed.
const KILLED: i32 = 137;

/// Something that the runtime will have done by a moment.
#[derive(Clone, Debug)]
pub enum Fire {
    /// A command comes to its end.
    Command(RuntimeCommand),
    /// A container stops because it was asked to, with this exit code; the command is completed with it.
    Stop(OpId, ContainerId, i32),
    /// A container exits by itself.
    Exit(ContainerId, i32),
}

#[derive(Debug)]
struct Container {
    spec: Rc<ContainerSpec>,
    state: ContainerState,
    /// Virtual time from which probes succeed.
    ready_at: u64,
}

/// The runtime of one node.
#[derive(Debug)]
pub struct NodeRuntime {
    node: u32,
    images: BTreeMap<Rc<str>, u64>,
    sandboxes: BTreeMap<SandboxId, SandboxInfo>,
    containers: BTreeMap<ContainerId, Container>,
    next: u64,
    rng: Rng,
    /// Faults: starts and pulls fail or take long, one in so many.
    pub trouble_one_in: u64,
}

/// The profile of an image: the longest prefix of its name that the scenario knows.
pub fn profile<'a>(
    profiles: &'a BTreeMap<String, ImageProfile>,
    image: &str,
    or: &'a ImageProfile,
) -> &'a ImageProfile {
    let known = profiles.iter().filter(|(prefix, _)| image.starts_with(prefix.as_str()));
    known.max_by_key(|(prefix, _)| prefix.len()).map_or(or, |(_, p)| p)
}

/// How a container of an image without a profile behaves: an init container does its work and exits, others run.
fn default_for(spec: &ContainerSpec) -> ImageProfile {
    let mut inits = spec.pod.init_containers.iter().flatten();
    let runs_once = inits.any(|c| c.name == *spec.name && c.restart_policy.as_deref() != Some("Always"));
    let exit = runs_once.then_some((Duration::from_secs(1), 0));
    ImageProfile { exit, ..ImageProfile::default() }
}

fn error<T>(reason: &str, message: &str) -> Result<T, RuntimeError> {
    Err(RuntimeError { reason: Rc::from(reason), message: Rc::from(message) })
}

fn image_of(spec: &ContainerSpec) -> &str {
    let inits = spec.pod.init_containers.iter().flatten();
    let found = spec.pod.containers.iter().chain(inits).find(|c| c.name == *spec.name);
    found.and_then(|c| c.image.as_deref()).unwrap_or("")
}

impl NodeRuntime {
    /// An empty runtime of the node with this number.
    pub fn new(node: u32, rng: Rng) -> NodeRuntime {
        NodeRuntime {
            node,
            images: BTreeMap::new(),
            sandboxes: BTreeMap::new(),
            containers: BTreeMap::new(),
            next: 1,
            rng,
            trouble_one_in: 0,
        }
    }

    fn trouble(&mut self) -> bool {
        self.trouble_one_in > 0 && self.rng.chance(1, self.trouble_one_in)
    }

    /// Takes a command; answers when it (or what follows from it) fires.
    pub fn command(&mut self, command: RuntimeCommand, profiles: &BTreeMap<String, ImageProfile>) -> (Duration, Fire) {
        let default = ImageProfile::default();
        let ms = Duration::from_millis;
        let mut delay = match &command {
            RuntimeCommand::PullImage { image, .. } if !self.images.contains_key(image) => {
                let bytes = profile(profiles, image, &default).bytes;
                let least = Duration::from_millis(200 + bytes * 1000 / PULL_BANDWIDTH);
                self.rng.jitter(least, 30)
            }
            RuntimeCommand::RunSandbox { .. } => self.rng.duration(ms(20), ms(200)),
            RuntimeCommand::StartContainer { container, .. } => match self.containers.get(container) {
                Some(c) => {
                    let (from, to) = profile(profiles, image_of(&c.spec), &default).start;
                    self.rng.duration(from, to)
                }
                None => ms(1),
            },
            RuntimeCommand::StopContainer { op, container, grace_seconds } => {
                let running =
                    self.containers.get(container).filter(|c| matches!(c.state, ContainerState::Running { .. }));
                let Some(c) = running else { return (ms(1), Fire::Stop(*op, container.clone(), 0)) };
                let stop = profile(profiles, image_of(&c.spec), &default).stop;
                let grace = Duration::from_secs(u64::from(*grace_seconds));
                let code = if stop <= grace { 0 } else { KILLED };
                return (stop.min(grace).max(ms(1)), Fire::Stop(*op, container.clone(), code));
            }
            _ => self.rng.duration(ms(1), ms(5)),
        };
        if self.trouble() {
            delay *= 10;
        }
        (delay, Fire::Command(command))
    }

    /// Does what is due; answers what the agent is told and what follows later.
    pub fn fire(
        &mut self,
        at: u64,
        wall: Wall,
        fire: Fire,
        profiles: &BTreeMap<String, ImageProfile>,
        events: &mut Vec<RuntimeEvent>,
        later: &mut Vec<(Duration, Fire)>,
    ) {
        match fire {
            Fire::Command(command) => self.complete(at, wall, command, profiles, events, later),
            Fire::Stop(op, id, code) => {
                self.exit(wall, &id, code, events);
                events.push(RuntimeEvent::Stopped { op, result: Ok(()) });
            }
            Fire::Exit(id, code) => self.exit(wall, &id, code, events),
        }
    }

    fn exit(&mut self, wall: Wall, id: &ContainerId, code: i32, events: &mut Vec<RuntimeEvent>) {
        let Some(c) = self.containers.get_mut(id) else { return };
        let ContainerState::Running { started_at } = c.state else { return };
        let reason = if code == 0 { "Completed" } else { "Error" };
        let message = Rc::from("");
        c.state = ContainerState::Exited {
            exit_code: code,
            reason: Rc::from(reason),
            message,
            started_at,
            finished_at: wall,
        };
        events.push(RuntimeEvent::Exited { container: id.clone(), state: c.state.clone() });
    }

    fn complete(
        &mut self,
        at: u64,
        wall: Wall,
        command: RuntimeCommand,
        profiles: &BTreeMap<String, ImageProfile>,
        events: &mut Vec<RuntimeEvent>,
        later: &mut Vec<(Duration, Fire)>,
    ) {
        let default = ImageProfile::default();
        let done = match command {
            RuntimeCommand::List { op } => self.list(op),
            RuntimeCommand::PullImage { op, image } => {
                let result = self.pull(&image, profile(profiles, &image, &default));
                RuntimeEvent::Pulled { op, result }
            }
            RuntimeCommand::RunSandbox { op, pod_uid, pod, .. } => {
                let result = if self.trouble() {
                    error("FailedCreatePodSandBox", "simulated failure of the sandbox")
                } else {
                    Ok(self.run_sandbox(pod_uid, pod))
                };
                RuntimeEvent::SandboxRunning { op, result }
            }
            RuntimeCommand::StopSandbox { op, sandbox } => {
                let ids: Vec<ContainerId> = self.in_sandbox(&sandbox);
                for id in ids {
                    self.exit(wall, &id, KILLED, events);
                }
                if let Some(s) = self.sandboxes.get_mut(&sandbox) {
                    s.ready = false;
                }
                RuntimeEvent::SandboxStopped { op, result: Ok(()) }
            }
            RuntimeCommand::RemoveSandbox { op, sandbox } => {
                for id in self.in_sandbox(&sandbox) {
                    self.containers.remove(&id);
                }
                self.sandboxes.remove(&sandbox);
                RuntimeEvent::SandboxRemoved { op, result: Ok(()) }
            }
            RuntimeCommand::CreateContainer { op, spec } => RuntimeEvent::Created { op, result: self.create(spec) },
            RuntimeCommand::StartContainer { op, container } => {
                let result = self.start(at, wall, &container, profiles, later);
                RuntimeEvent::Started { op, result }
            }
            RuntimeCommand::StopContainer { op, container, .. } => {
                self.exit(wall, &container, KILLED, events);
                RuntimeEvent::Stopped { op, result: Ok(()) }
            }
            RuntimeCommand::RemoveContainer { op, container } => {
                self.containers.remove(&container);
                RuntimeEvent::Removed { op, result: Ok(()) }
            }
            RuntimeCommand::Probe { op, container, action, .. } => {
                RuntimeEvent::Probed { op, result: self.probe(at, &container, &action, profiles) }
            }
            RuntimeCommand::Stats { op } => self.stats(op, profiles),
        };
        events.push(done);
    }

    fn in_sandbox(&self, sandbox: &SandboxId) -> Vec<ContainerId> {
        self.containers.iter().filter(|(_, c)| c.spec.sandbox == *sandbox).map(|(id, _)| id.clone()).collect()
    }

    fn list(&self, op: OpId) -> RuntimeEvent {
        let containers = self.containers.iter().map(|(id, c)| ContainerInfo {
            id: id.clone(),
            sandbox: c.spec.sandbox.clone(),
            pod_uid: Rc::clone(&c.spec.pod_uid),
            name: Rc::clone(&c.spec.name),
            attempt: c.spec.attempt,
            state: c.state.clone(),
        });
        let images = self.images.iter().map(|(image, bytes)| ImageInfo { image: Rc::clone(image), bytes: *bytes });
        RuntimeEvent::Listed {
            op,
            sandboxes: self.sandboxes.values().cloned().collect(),
            containers: containers.collect(),
            images: images.collect(),
        }
    }

    fn pull(&mut self, image: &Rc<str>, profile: &ImageProfile) -> Result<ImageInfo, RuntimeError> {
        if profile.pull_fails {
            return error("ErrImagePull", &format!("failed to pull image {image:?}: not found"));
        }
        if self.trouble() {
            return error("ErrImagePull", &format!("failed to pull image {image:?}: connection reset by peer"));
        }
        self.images.insert(Rc::clone(image), profile.bytes);
        Ok(ImageInfo { image: Rc::clone(image), bytes: profile.bytes })
    }

    fn run_sandbox(&mut self, pod_uid: Rc<str>, pod: Rc<str>) -> SandboxInfo {
        self.next += 1;
        let n = self.next;
        let id = SandboxId(Rc::from(format!("sandbox-{}-{n}", self.node)));
        // 10.128.0.0/9 by node and pod: addresses come back only after 250 pods of a node.
        let host = (n % 250) + 2;
        let (high, low) = (128 + (self.node >> 8) % 128, self.node & 255);
        let info =
            SandboxInfo { id: id.clone(), pod_uid, pod, ip: Rc::from(format!("10.{high}.{low}.{host}")), ready: true };
        self.sandboxes.insert(id, info.clone());
        info
    }

    fn create(&mut self, spec: Rc<ContainerSpec>) -> Result<ContainerId, RuntimeError> {
        if !self.sandboxes.get(&spec.sandbox).is_some_and(|s| s.ready) {
            return error("CreateContainerError", "the sandbox does not run");
        }
        if self.trouble() {
            return error("CreateContainerError", "simulated failure of the creation");
        }
        self.next += 1;
        let id = ContainerId(Rc::from(format!("container-{}-{}", self.node, self.next)));
        self.containers.insert(id.clone(), Container { spec, state: ContainerState::Created, ready_at: u64::MAX });
        Ok(id)
    }

    fn start(
        &mut self,
        at: u64,
        wall: Wall,
        id: &ContainerId,
        profiles: &BTreeMap<String, ImageProfile>,
        later: &mut Vec<(Duration, Fire)>,
    ) -> Result<(), RuntimeError> {
        let trouble = self.trouble();
        let Some(c) = self.containers.get_mut(id) else { return error("RunContainerError", "no such container") };
        if trouble {
            return error("RunContainerError", "simulated failure of the start");
        }
        let default = default_for(&c.spec);
        let profile = profile(profiles, image_of(&c.spec), &default);
        c.state = ContainerState::Running { started_at: wall };
        let ready = self.rng.duration(profile.ready.0, profile.ready.1);
        c.ready_at = if profile.never_ready { u64::MAX } else { at + ready.as_nanos() as u64 };
        if profile.crash_one_in > 0 && self.rng.chance(1, profile.crash_one_in) {
            let after = self.rng.duration(Duration::from_millis(500), Duration::from_secs(5));
            later.push((after, Fire::Exit(id.clone(), 1)));
        }
        if let Some((after, code)) = profile.exit {
            later.push((after, Fire::Exit(id.clone(), code)));
        }
        Ok(())
    }

    fn probe(
        &self,
        at: u64,
        id: &ContainerId,
        action: &ProbeAction,
        _profiles: &BTreeMap<String, ImageProfile>,
    ) -> Result<(), RuntimeError> {
        let running = |c: &&Container| matches!(c.state, ContainerState::Running { .. });
        let Some(c) = self.containers.get(id).filter(running) else {
            return error("Unhealthy", "the container does not run");
        };
        match action {
            ProbeAction::Hook(_) => Ok(()),
            ProbeAction::Probe(_) if c.ready_at <= at => Ok(()),
            ProbeAction::Probe(_) => error("Unhealthy", "connection refused"),
        }
    }

    fn stats(&self, op: OpId, profiles: &BTreeMap<String, ImageProfile>) -> RuntimeEvent {
        let default = ImageProfile::default();
        let running = self.containers.iter().filter(|(_, c)| matches!(c.state, ContainerState::Running { .. }));
        let stats = running.map(|(id, c)| {
            let p = profile(profiles, image_of(&c.spec), &default);
            ContainerStats { id: id.clone(), cpu_milli: p.cpu_milli, memory_bytes: p.memory_bytes }
        });
        RuntimeEvent::StatsRead { op, stats: stats.collect() }
    }

    /// The machine lost power: nothing runs any more; with its disk, nothing is left at all.
    pub fn power_off(&mut self, wall: Wall, disk_lost: bool) {
        if disk_lost {
            self.images.clear();
            self.sandboxes.clear();
            self.containers.clear();
            return;
        }
        let ids: Vec<ContainerId> = self.containers.keys().cloned().collect();
        for id in ids {
            self.exit(wall, &id, KILLED, &mut Vec::new());
        }
        for sandbox in self.sandboxes.values_mut() {
            sandbox.ready = false;
        }
    }

    /// Running containers of a pod.
    pub fn running(&self, pod_uid: &str) -> Vec<ContainerId> {
        let of_pod = |c: &Container| *c.spec.pod_uid == *pod_uid && matches!(c.state, ContainerState::Running { .. });
        self.containers.iter().filter(|(_, c)| of_pod(c)).map(|(id, _)| id.clone()).collect()
    }
}
