//! The simulated container runtime of a node: images, sandboxes and containers, with times drawn by the seed.
//!
//! A command results in a [`Fire`] that is due later. Its effect takes place when it fires, so a node that dies in
//! between has done nothing.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use skeg_core::agent::{
    ContainerId, ContainerInfo, ContainerSpec, ContainerState, ContainerStats, ContainerUse, CreatedContainer, DiskUse,
    ImageDisk, ImageInfo, NodeUse, OpId, PodUse, ProbeAction, RuntimeCommand, RuntimeError, RuntimeEvent, SandboxId,
    SandboxInfo, StoredImage, Supply,
};
use skeg_core::{Rng, Wall};

use crate::container::inside::{Inside, Next, ProcessId};
use crate::container::process::Input;
use crate::hook;
use crate::scenario::ImageProfile;
use crate::subnet::Subnet;

/// The image whose profile says how long a sandbox takes to start: that of the container that holds a pod's network.
pub const SANDBOX: &str = "pause";
/// Bandwidth of image pulls in bytes per second.
const PULL_BANDWIDTH: u64 = 100 << 20;
/// Size of the disk that a node's images are on, in bytes.
const IMAGE_DISK: u64 = 100 << 30;
/// A node's memory in bytes, files of a disk, and process ids.
const NODE_MEMORY: u64 = 64 << 30;
const NODE_INODES: u64 = 10_000_000;
const NODE_PIDS: u64 = 4 << 20;
/// Exit code of a killed process.
const KILLED: i32 = 137;

/// Something that the runtime completes at a later time.
#[derive(Clone, Debug)]
pub enum Fire {
    /// A command completes.
    Command(RuntimeCommand),
    /// A container stops as requested, with this exit code; this also completes the command.
    Stop(OpId, ContainerId, i32),
    /// A container exits by itself.
    Exit(ContainerId, i32),
    /// A process in a container has slept long enough.
    Wake(ProcessId),
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
    addresses: Subnet,
    rng: Rng,
    /// Fault: one in this many starts and pulls fails or takes long; zero means none.
    pub trouble_one_in: u64,
    /// What clients see inside the containers; `None` if there are no such clients, as in the simulator.
    inside: Option<Inside>,
}

/// The profile of an image: that of the longest prefix of its name in the scenario.
pub fn profile<'a>(
    profiles: &'a BTreeMap<String, ImageProfile>,
    image: &str,
    or: &'a ImageProfile,
) -> &'a ImageProfile {
    let known = profiles.iter().filter(|(prefix, _)| image.starts_with(prefix.as_str()));
    known.max_by_key(|(prefix, _)| prefix.len()).map_or(or, |(_, p)| p)
}

/// Behaviour of a container whose image has no profile. A container that is not restarted after success (an init
/// container, or a container of a Job's pod) does some work and exits, as an ephemeral one without input does; others
/// keep running.
fn default_for(spec: &ContainerSpec) -> ImageProfile {
    let init = spec.pod.init_containers.iter().flatten().find(|c| c.name == *spec.name);
    let runs_once = match (&spec.ephemeral, init) {
        (Some(ephemeral), _) => ephemeral.stdin != Some(true),
        (None, Some(init)) => init.restart_policy.as_deref() != Some("Always"),
        (None, None) => matches!(spec.pod.restart_policy.as_deref(), Some("OnFailure" | "Never")),
    };
    let exit = runs_once.then_some((Duration::from_secs(1), 0));
    ImageProfile { exit, ..ImageProfile::default() }
}

fn error<T>(reason: &str, message: &str) -> Result<T, RuntimeError> {
    Err(RuntimeError { reason: Rc::from(reason), message: Rc::from(message) })
}

fn image_of(spec: &ContainerSpec) -> &str {
    spec.container().and_then(|c| c.image.as_deref()).unwrap_or("")
}

impl NodeRuntime {
    /// Creates an empty runtime for the node with this number and pod subnet.
    pub fn new(node: u32, addresses: Subnet, rng: Rng) -> NodeRuntime {
        NodeRuntime {
            node,
            images: BTreeMap::new(),
            sandboxes: BTreeMap::new(),
            containers: BTreeMap::new(),
            next: 1,
            addresses,
            rng,
            trouble_one_in: 0,
            inside: None,
        }
    }

    /// Lets clients look inside the containers that start from now on. Commands that the scripted shell understands are
    /// then played.
    pub fn open(&mut self) {
        self.inside = Some(Inside::default());
    }

    /// The inside of the containers, if it is open.
    pub fn inside(&self) -> Option<&Inside> {
        self.inside.as_ref()
    }

    /// The inside of the containers, if it is open. What is to be done [`Self::next`] must be handed to the runtime.
    pub fn inside_mut(&mut self) -> Option<&mut Inside> {
        self.inside.as_mut()
    }

    /// What is to be done next in the containers, as what the runtime completes later.
    pub fn next(next: Vec<Next>, later: &mut Vec<(Duration, Fire)>) {
        later.extend(next.into_iter().map(|next| match next {
            Next::Wake(after, process) => (after, Fire::Wake(process)),
            Next::Exit(container, code) => (Duration::from_millis(1), Fire::Exit(container, code)),
        }));
    }

    fn trouble(&mut self) -> bool {
        self.trouble_one_in > 0 && self.rng.chance(1, self.trouble_one_in)
    }

    /// Handles a command; returns when it (or its consequence) fires.
    pub fn command(&mut self, command: RuntimeCommand, profiles: &BTreeMap<String, ImageProfile>) -> (Duration, Fire) {
        let default = ImageProfile::default();
        let ms = Duration::from_millis;
        let mut delay = match &command {
            RuntimeCommand::PullImage { image, .. } if !self.images.contains_key(image) => {
                let profile = profile(profiles, image, &default);
                match profile.pull {
                    Some((from, to)) => self.rng.duration(from, to),
                    None => {
                        let least = Duration::from_millis(200 + profile.bytes * 1000 / PULL_BANDWIDTH);
                        self.rng.jitter(least, 30)
                    }
                }
            }
            RuntimeCommand::RunSandbox { .. } => {
                let (from, to) = profiles.get(SANDBOX).map_or((ms(20), ms(200)), |sandbox| sandbox.start);
                self.rng.duration(from, to)
            }
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
            RuntimeCommand::Probe { container, action: ProbeAction::Hook(hook), .. } => {
                // A sleep takes exactly its time, however slow the machine is.
                if let Some(told) = hook::told_by(hook) {
                    return (told.max(ms(1)), Fire::Command(command));
                }
                let image = self.containers.get(container).map_or("", |c| image_of(&c.spec));
                profile(profiles, image, &default).hook + self.rng.duration(ms(1), ms(5))
            }
            RuntimeCommand::List { .. }
            | RuntimeCommand::PullImage { .. }
            | RuntimeCommand::StopSandbox { .. }
            | RuntimeCommand::RemoveSandbox { .. }
            | RuntimeCommand::MountVolumes { .. }
            | RuntimeCommand::UnmountVolumes { .. }
            | RuntimeCommand::EmptyDirectory { .. }
            | RuntimeCommand::RemoveDirectory { .. }
            | RuntimeCommand::CreateContainer { .. }
            | RuntimeCommand::RemoveContainer { .. }
            | RuntimeCommand::Probe { .. }
            | RuntimeCommand::ListImages { .. }
            | RuntimeCommand::RemoveImage { .. }
            | RuntimeCommand::Measure { .. }
            | RuntimeCommand::UpdateContainer { .. }
            | RuntimeCommand::Stats { .. } => self.rng.duration(ms(1), ms(5)),
        };
        if self.trouble() {
            delay *= 10;
        }
        (delay, Fire::Command(command))
    }

    /// Fires what is due; returns the events for the agent and further fires.
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
            Fire::Wake(process) => {
                let mut next = Vec::new();
                if let Some(inside) = &mut self.inside {
                    inside.feed(wall, process, Input::Woken, &mut next);
                }
                NodeRuntime::next(next, later);
            }
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
        if let Some(inside) = &mut self.inside {
            inside.end(wall, id, code);
        }
    }

    fn remove(&mut self, id: &ContainerId) {
        self.containers.remove(id);
        if let Some(inside) = &mut self.inside {
            inside.remove(id);
        }
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
            RuntimeCommand::PullImage { op, image, .. } => {
                let result = self.pull(&image, profile(profiles, &image, &default));
                RuntimeEvent::Pulled { op, result }
            }
            RuntimeCommand::RunSandbox { op, pod_uid, pod, host_network, .. } => {
                let result = if self.trouble() {
                    error("FailedCreatePodSandBox", "simulated failure of the sandbox")
                } else {
                    self.run_sandbox(pod_uid, pod, host_network)
                };
                RuntimeEvent::SandboxRunning { op, result }
            }
            RuntimeCommand::StopSandbox { op, sandbox } => {
                let ids: Vec<ContainerId> = self.in_sandbox(&sandbox);
                for id in ids {
                    self.exit(wall, &id, KILLED, events);
                }
                self.leave_network(&sandbox);
                RuntimeEvent::SandboxStopped { op, result: Ok(()) }
            }
            RuntimeCommand::RemoveSandbox { op, sandbox } => {
                for id in self.in_sandbox(&sandbox) {
                    self.remove(&id);
                }
                self.leave_network(&sandbox);
                self.sandboxes.remove(&sandbox);
                RuntimeEvent::SandboxRemoved { op, result: Ok(()) }
            }
            // The volumes of simulated containers have nothing inside.
            RuntimeCommand::MountVolumes { op, .. } => RuntimeEvent::Mounted { op, result: Ok(()) },
            RuntimeCommand::UnmountVolumes { op, .. } => RuntimeEvent::Unmounted { op, result: Ok(()) },
            RuntimeCommand::EmptyDirectory { op, .. } | RuntimeCommand::RemoveDirectory { op, .. } => {
                RuntimeEvent::DirectoryDone { op, result: Ok(()) }
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
                self.remove(&container);
                RuntimeEvent::Removed { op, result: Ok(()) }
            }
            RuntimeCommand::Probe { op, container, action, .. } => {
                let result = self.probe(at, &container, &action);
                if result.is_ok() {
                    self.log_probe(wall, &container, &action);
                }
                RuntimeEvent::Probed { op, result }
            }
            RuntimeCommand::Stats { op } => self.stats(op, profiles),
            RuntimeCommand::ListImages { op } => RuntimeEvent::ImagesListed { op, result: Ok(self.image_disk()) },
            // What a simulated container may use limits nothing that it does.
            RuntimeCommand::UpdateContainer { op, .. } => RuntimeEvent::Updated { op, result: Ok(()) },
            RuntimeCommand::Measure { op, pods } => {
                RuntimeEvent::Measured { op, result: Ok(self.node_use(&pods, profiles)) }
            }
            RuntimeCommand::RemoveImage { op, id } => {
                self.images.remove(&id);
                RuntimeEvent::ImageRemoved { op, result: Ok(()) }
            }
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
            image_id: Rc::default(),
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

    fn run_sandbox(&mut self, pod_uid: Rc<str>, pod: Rc<str>, host_network: bool) -> Result<SandboxInfo, RuntimeError> {
        self.next += 1;
        let id = SandboxId(Rc::from(format!("sandbox-{}-{}", self.node, self.next)));
        let ip = match if host_network { Ok(Rc::from("")) } else { self.addresses.take() } {
            Ok(ip) => ip,
            Err(why) => return error("FailedCreatePodSandBox", &format!("failed to setup network for sandbox: {why}")),
        };
        let info = SandboxInfo { id: id.clone(), pod_uid, pod, ip, ready: true };
        self.sandboxes.insert(id, info.clone());
        Ok(info)
    }

    /// Releases the address of a stopped sandbox.
    fn leave_network(&mut self, id: &SandboxId) {
        let Some(sandbox) = self.sandboxes.get_mut(id) else { return };
        sandbox.ready = false;
        if !sandbox.ip.is_empty() {
            self.addresses.release(&sandbox.ip);
            sandbox.ip = Rc::from("");
        }
    }

    fn create(&mut self, spec: Rc<ContainerSpec>) -> Result<CreatedContainer, RuntimeError> {
        if !self.sandboxes.get(&spec.sandbox).is_some_and(|s| s.ready) {
            return error("CreateContainerError", "the sandbox does not run");
        }
        if self.trouble() {
            return error("CreateContainerError", "simulated failure of the creation");
        }
        self.next += 1;
        let id = ContainerId(Rc::from(format!("container-{}-{}", self.node, self.next)));
        self.containers.insert(id.clone(), Container { spec, state: ContainerState::Created, ready_at: u64::MAX });
        Ok(CreatedContainer { id, image_id: Rc::default() })
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
        let (exit, lines) = (profile.exit, profile.log.clone());
        if !self.open_container(wall, id, &lines, profiles, later)
            && let Some((after, code)) = exit
        {
            later.push((after, Fire::Exit(id.clone(), code)));
        }
        Ok(())
    }

    /// Lets clients look inside a container that has just started. Returns whether its command is played, and says so
    /// when it exits. A container whose image has a profile does what the profile says.
    fn open_container(
        &mut self,
        wall: Wall,
        id: &ContainerId,
        lines: &[String],
        profiles: &BTreeMap<String, ImageProfile>,
        later: &mut Vec<(Duration, Fire)>,
    ) -> bool {
        let (Some(inside), Some(c)) = (&mut self.inside, self.containers.get(id)) else { return false };
        let image = image_of(&c.spec);
        let has_profile = profiles.keys().any(|prefix| image.starts_with(prefix.as_str()));
        let pod = self.sandboxes.get(&c.spec.sandbox).map_or("", |s| &*s.pod);
        let hostname = pod.rsplit('/').next().unwrap_or_default();
        let mut next = Vec::new();
        let played = inside.start(wall, id, &c.spec, hostname, !has_profile, &mut next);
        lines.iter().for_each(|line| inside.log(wall, id, line.clone()));
        NodeRuntime::next(next, later);
        played
    }

    fn probe(&self, at: u64, id: &ContainerId, action: &ProbeAction) -> Result<(), RuntimeError> {
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

    /// Logs the request of a probe or hook that the container has answered.
    fn log_probe(&mut self, wall: Wall, id: &ContainerId, action: &ProbeAction) {
        let Some(inside) = &mut self.inside else { return };
        let (agent, get) = match action {
            ProbeAction::Probe(probe) => ("kube-probe/1.36", probe.http_get.as_ref()),
            ProbeAction::Hook(hook) => ("kube-lifecycle/1.36", hook.http_get.as_ref()),
        };
        if let Some(get) = get.filter(|_| inside.main(id).is_none()) {
            let path = get.path.as_deref().unwrap_or("/");
            inside.log(wall, id, format!("\"GET {path} HTTP/1.1\" 200 \"{agent}\""));
        }
    }

    /// What its containers use, by their profiles. They write nothing.
    fn node_use(&self, pods: &[Rc<str>], profiles: &BTreeMap<String, ImageProfile>) -> NodeUse {
        let default = ImageProfile::default();
        let of = |c: &Container| ContainerUse {
            name: Rc::clone(&c.spec.name),
            memory: profile(profiles, image_of(&c.spec), &default).memory_bytes,
            processes: 1,
            root: DiskUse::default(),
            log: DiskUse::default(),
        };
        let in_use: u64 = self.running_containers().map(|(_, c)| of(c).memory).sum();
        let whole = |capacity: u64, used: u64| Supply { capacity, available: capacity.saturating_sub(used) };
        let disk = self.image_disk();
        let pod = |uid: &Rc<str>| PodUse {
            pod_uid: Rc::clone(uid),
            containers: self.running_containers().filter(|(_, c)| c.spec.pod_uid == *uid).map(|(_, c)| of(c)).collect(),
            volumes: Vec::new(),
        };
        NodeUse {
            memory: whole(NODE_MEMORY, in_use),
            node_disk: whole(IMAGE_DISK, 0),
            node_inodes: whole(NODE_INODES, 0),
            image_disk: Supply { capacity: disk.capacity, available: disk.available },
            image_inodes: whole(NODE_INODES, 0),
            pids: whole(NODE_PIDS, self.running_containers().count() as u64),
            has_image_disk: true,
            pods: pods.iter().map(pod).collect(),
        }
    }

    /// Its images, each under one name that is also its id.
    fn image_disk(&self) -> ImageDisk {
        let image = |(name, bytes): (&Rc<str>, &u64)| StoredImage {
            id: Rc::clone(name),
            names: vec![Rc::clone(name)],
            bytes: *bytes,
            in_use: self.containers.values().any(|c| image_of(&c.spec) == &**name),
            pinned: false,
        };
        let used: u64 = self.images.values().sum();
        ImageDisk {
            capacity: IMAGE_DISK,
            available: IMAGE_DISK.saturating_sub(used),
            images: self.images.iter().map(image).collect(),
        }
    }

    fn stats(&self, op: OpId, profiles: &BTreeMap<String, ImageProfile>) -> RuntimeEvent {
        let default = ImageProfile::default();
        let stats = self.running_containers().map(|(id, c)| {
            let p = profile(profiles, image_of(&c.spec), &default);
            ContainerStats { id: id.clone(), cpu_milli: p.cpu_milli, memory_bytes: p.memory_bytes }
        });
        RuntimeEvent::StatsRead { op, stats: stats.collect() }
    }

    fn running_containers(&self) -> impl Iterator<Item = (&ContainerId, &Container)> {
        self.containers.iter().filter(|(_, c)| matches!(c.state, ContainerState::Running { .. }))
    }

    /// What every running container uses: CPU in thousandths of a core, and bytes of memory.
    pub fn usage(&self, profiles: &BTreeMap<String, ImageProfile>) -> impl Iterator<Item = (&ContainerSpec, u64, u64)> {
        let default = ImageProfile::default();
        self.running_containers().map(move |(_, c)| {
            let p = profile(profiles, image_of(&c.spec), &default);
            (&*c.spec, p.cpu_milli, p.memory_bytes)
        })
    }

    /// Handles a loss of power: nothing is running any more; if the disk is lost too, nothing is left.
    pub fn power_off(&mut self, wall: Wall, disk_lost: bool) {
        if disk_lost {
            self.images.clear();
            self.addresses.release_all();
            self.sandboxes.clear();
            self.containers.clear();
            self.inside = self.inside.take().map(|_| Inside::default());
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

    /// Every container with its state.
    pub fn containers(&self) -> impl Iterator<Item = (&ContainerId, &Rc<ContainerSpec>, &ContainerState)> {
        self.containers.iter().map(|(id, c)| (id, &c.spec, &c.state))
    }

    /// The newest run of a pod's container: its id, what it was made from and its state.
    pub fn find(&self, pod_uid: &str, name: &str) -> Option<(&ContainerId, &ContainerSpec, &ContainerState)> {
        let runs = self.containers.iter().filter(|(_, c)| *c.spec.pod_uid == *pod_uid && *c.spec.name == *name);
        runs.max_by_key(|(_, c)| c.spec.attempt).map(|(id, c)| (id, &*c.spec, &c.state))
    }

    /// Running containers of a pod.
    pub fn running(&self, pod_uid: &str) -> Vec<ContainerId> {
        let of_pod = |c: &Container| *c.spec.pod_uid == *pod_uid && matches!(c.state, ContainerState::Running { .. });
        self.containers.iter().filter(|(_, c)| of_pod(c)).map(|(id, _)| id.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};
    use std::rc::Rc;
    use std::time::Duration;

    use serde_json::{Value, json};
    use skeg_core::agent::{
        ContainerId, ContainerSpec, CreatedContainer, OpId, ProbeAction, RuntimeCommand, RuntimeEvent, SandboxId,
        SandboxInfo,
    };
    use skeg_core::{Rng, Wall};

    use super::{ImageProfile, NodeRuntime, Subnet};

    struct Node {
        runtime: NodeRuntime,
        profiles: BTreeMap<String, ImageProfile>,
    }

    impl Node {
        fn new() -> Node {
            let addresses = Subnet::of_nodes(&[110]).remove(0);
            let slow = ImageProfile { hook: Duration::from_secs(7), ..ImageProfile::default() };
            Node {
                runtime: NodeRuntime::new(0, addresses, Rng::from_seed(1)),
                profiles: [("slow:1".to_owned(), slow)].into(),
            }
        }

        /// Carries out a command; returns how long it took and the event for the agent.
        fn does(&mut self, command: RuntimeCommand) -> (Duration, RuntimeEvent) {
            let (delay, fire) = self.runtime.command(command, &self.profiles);
            let (mut events, mut later) = (Vec::new(), Vec::new());
            self.runtime.fire(0, Wall(0), fire, &self.profiles, &mut events, &mut later);
            (delay, events.pop().expect("a command is answered"))
        }

        fn sandbox(&mut self, n: usize, host_network: bool) -> SandboxInfo {
            let (uid, pod) = (Rc::from(format!("u{n}")), Rc::from(format!("d/p{n}")));
            let run =
                RuntimeCommand::RunSandbox { op: OpId(1), pod_uid: uid, pod, host_network, spec: Default::default() };
            match self.does(run).1 {
                RuntimeEvent::SandboxRunning { result, .. } => result.unwrap(),
                other => panic!("{other:?}"),
            }
        }

        fn running(&mut self, image: &str) -> ContainerId {
            let sandbox = self.sandbox(0, false);
            let pod: k8s_openapi::api::core::v1::PodSpec =
                serde_json::from_value(json!({"containers": [{"name": "c", "image": image}]})).unwrap();
            let (pod_uid, name) = (Rc::from("u0"), Rc::from("c"));
            let spec = ContainerSpec {
                sandbox: sandbox.id,
                pod_uid,
                pod: pod.into(),
                name,
                attempt: 0,
                ephemeral: None,
                target: None,
                resolved: None,
            };
            let created = self.does(RuntimeCommand::CreateContainer { op: OpId(1), spec: Rc::new(spec) }).1;
            let RuntimeEvent::Created { result: Ok(CreatedContainer { id: container, .. }), .. } = created else {
                panic!("{created:?}")
            };
            self.does(RuntimeCommand::StartContainer { op: OpId(1), container: container.clone() });
            container
        }
    }

    #[test]
    fn hooks_take_their_time() {
        let check = |image: &str, hook: Value, at_least: u64, below_ms: u64| {
            let mut node = Node::new();
            let container = node.running(image);
            let action = ProbeAction::Hook(Rc::new(serde_json::from_value(hook.clone()).unwrap()));
            let (took, answer) =
                node.does(RuntimeCommand::Probe { op: OpId(1), container, action, timeout_seconds: 30, address: None });
            let range = Duration::from_secs(at_least)..Duration::from_millis(at_least * 1000 + below_ms);
            assert!(range.contains(&took), "{image} {hook}: {took:?}");
            assert_eq!(answer, RuntimeEvent::Probed { op: OpId(1), result: Ok(()) });
        };
        check("app:1", json!({"sleep": {"seconds": 20}}), 20, 1);
        check("app:1", json!({"exec": {"command": ["sleep", "20"]}}), 20, 1);
        check("slow:1", json!({"exec": {"command": ["sh", "-c", "sleep 20"]}}), 20, 1);
        check("slow:1", json!({"exec": {"command": ["drain"]}}), 7, 10);
        check("slow:1", json!({"httpGet": {"port": 80}}), 7, 10);
        check("app:1", json!({"exec": {"command": ["drain"]}}), 0, 10);
    }

    #[test]
    fn every_pod_has_an_address_of_its_own() {
        let mut node = Node::new();
        let mut live: Vec<SandboxInfo> = Vec::new();
        for n in 0..1000 {
            if live.len() == 110 {
                let sandbox: SandboxId = live.remove(n % 110).id;
                node.does(RuntimeCommand::StopSandbox { op: OpId(1), sandbox: sandbox.clone() });
                node.does(RuntimeCommand::RemoveSandbox { op: OpId(1), sandbox });
            }
            live.push(node.sandbox(n, false));
            let addresses: BTreeSet<_> = live.iter().map(|s| Rc::clone(&s.ip)).collect();
            assert_eq!(addresses.len(), live.len());
        }
        assert_eq!(&*node.sandbox(1000, true).ip, "", "a pod on the node's network needs none");
    }
}
