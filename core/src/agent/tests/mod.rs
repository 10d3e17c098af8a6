//! Tests a whole agent against a small API and a small container runtime. Results are transcripts of what the agent
//! wrote to the API.

mod ephemeral;
mod eviction;
mod faults;
mod references;
mod resize;
mod stories;

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use k8s_openapi::api::core::v1 as core_v1;
use serde_json::{Value, json};

use super::{
    AgentConfig, ContainerId, ContainerInfo, ContainerSpec, ContainerState, CreatedContainer, ImageInfo, In, NodeAgent,
    OpId, Out, ProbeAction, RuntimeCommand, RuntimeError, RuntimeEvent, SandboxId, SandboxInfo,
};
use crate::api::{Call, FromServer, Patch, ReqId, Response, Status, Subresource, ToServer, WatchEvent};
use crate::machine::{Machine, Mono, Now, Wall};
use crate::object::{Kind, Object, ObjectKey, Pod, Revision, Text};
use crate::random::Rng;

const EPOCH: Wall = Wall(1_700_000_000_000_000);
const LATENCY: Duration = Duration::from_millis(1);

/// How containers of an image behave. Probes and hooks state their own result: an `exec` of `ok`, `fail`, `after N`
/// (succeeds once the container has run for N seconds), `until N`, or `sleep N`.
#[derive(Clone)]
struct Behaviour {
    pull: Result<Duration, &'static str>,
    exit: Option<(Duration, i32)>,
    stop: Duration,
}

struct FakeContainer {
    spec: Rc<ContainerSpec>,
    state: ContainerState,
    since: Mono,
}

struct FakeRuntime {
    images: BTreeMap<Rc<str>, u64>,
    sandboxes: BTreeMap<SandboxId, SandboxInfo>,
    containers: BTreeMap<ContainerId, FakeContainer>,
    behaviours: BTreeMap<String, Behaviour>,
    made: u32,
    /// What the node uses.
    node: super::NodeUse,
    /// With what images were pulled.
    pulls: Vec<Vec<super::PullSecret>>,
    /// What was mounted and unmounted, in words.
    mounted: Vec<String>,
    /// Why no directory can be emptied; `None` if each can.
    busy_directory: Option<String>,
    /// How many commands of each name are lost.
    lose: BTreeMap<&'static str, u32>,
}

#[derive(Default)]
struct FakeApi {
    objects: BTreeMap<ObjectKey, Object>,
    revision: u64,
    watch: Option<ReqId>,
    node_watch: Option<ReqId>,
    history: Vec<WatchEvent>,
    /// By how many changes the next list lags.
    list_behind: usize,
    /// For each of the next writes, whose reply is lost, whether it is carried out.
    lose: Vec<bool>,
    events: Vec<String>,
    requests: usize,
}

enum Due {
    Input(In),
    Stop(ContainerId, i32),
    Exit(ContainerId, u32, i32),
}

/// A node with much of everything.
fn plenty() -> super::NodeUse {
    let supply = super::Supply { capacity: 1 << 40, available: 1 << 39 };
    super::NodeUse {
        memory: supply,
        node_disk: supply,
        node_inodes: supply,
        image_disk: supply,
        image_inodes: supply,
        pids: supply,
        has_image_disk: false,
        pods: Vec::new(),
    }
}

struct World {
    now: Mono,
    agent: NodeAgent,
    incarnation: u64,
    config: AgentConfig,
    queue: BTreeMap<(Mono, u64), Due>,
    seq: u64,
    api: FakeApi,
    runtime: FakeRuntime,
    transcript: Vec<String>,
    /// The completion of the current command is lost.
    mute: bool,
    /// How often `handle_timeout` was called.
    wakeups: usize,
}

/// Commands whose completion can be lost.
const LOSABLE: [&str; 8] = [
    "List",
    "PullImage",
    "RunSandbox",
    "StopSandbox",
    "RemoveSandbox",
    "CreateContainer",
    "StartContainer",
    "StopContainer",
];

fn command_name(command: &RuntimeCommand) -> &'static str {
    match command {
        RuntimeCommand::List { .. } => LOSABLE[0],
        RuntimeCommand::PullImage { .. } => LOSABLE[1],
        RuntimeCommand::RunSandbox { .. } => LOSABLE[2],
        RuntimeCommand::StopSandbox { .. } => LOSABLE[3],
        RuntimeCommand::RemoveSandbox { .. } => LOSABLE[4],
        RuntimeCommand::CreateContainer { .. } => LOSABLE[5],
        RuntimeCommand::StartContainer { .. } => LOSABLE[6],
        RuntimeCommand::StopContainer { .. } => LOSABLE[7],
        RuntimeCommand::MountVolumes { .. }
        | RuntimeCommand::UnmountVolumes { .. }
        | RuntimeCommand::EmptyDirectory { .. }
        | RuntimeCommand::RemoveDirectory { .. }
        | RuntimeCommand::ListImages { .. }
        | RuntimeCommand::RemoveImage { .. }
        | RuntimeCommand::Measure { .. }
        | RuntimeCommand::UpdateContainer { .. }
        | RuntimeCommand::RemoveContainer { .. }
        | RuntimeCommand::Probe { .. }
        | RuntimeCommand::Stats { .. } => "",
    }
}

fn dead_sandbox() -> RuntimeError {
    RuntimeError { reason: "".into(), message: "the sandbox is dead".into() }
}

fn seconds(s: f64) -> Duration {
    Duration::from_millis((s * 1000.0) as u64)
}

impl World {
    fn new() -> World {
        let config = AgentConfig {
            node_name: "n1".into(),
            capacity: [("cpu", "4"), ("memory", "8Gi"), ("pods", "10")].map(|(k, v)| (k.into(), v.into())).into(),
            host_ip: "10.0.0.1".into(),
            relist_interval: Duration::ZERO,
            ..AgentConfig::default()
        };
        let mut runtime = FakeRuntime {
            images: BTreeMap::new(),
            sandboxes: BTreeMap::new(),
            containers: BTreeMap::new(),
            behaviours: BTreeMap::new(),
            made: 0,
            node: plenty(),
            pulls: Vec::new(),
            mounted: Vec::new(),
            busy_directory: None,
            lose: BTreeMap::new(),
        };
        let quick = Behaviour { pull: Ok(seconds(1.0)), exit: None, stop: seconds(0.5) };
        let named = [
            ("app:1", quick.clone()),
            ("app:2", quick.clone()),
            ("step:1", Behaviour { exit: Some((seconds(2.0), 0)), ..quick.clone() }),
            ("crash:1", Behaviour { exit: Some((seconds(1.0), 1)), ..quick.clone() }),
            ("stubborn:1", Behaviour { stop: seconds(1e6), ..quick.clone() }),
            ("missing:1", Behaviour { pull: Err("not found"), ..quick.clone() }),
        ];
        runtime.behaviours = named.map(|(k, v)| (k.to_owned(), v)).into();
        let agent = NodeAgent::new(config.clone(), Rng::stream(1, "n1", 0));
        World {
            now: Mono::ZERO,
            agent,
            incarnation: 0,
            config,
            queue: BTreeMap::new(),
            seq: 0,
            api: FakeApi::default(),
            runtime,
            transcript: Vec::new(),
            mute: false,
            wakeups: 0,
        }
    }

    fn now(&self) -> Now {
        Now { mono: self.now, wall: EPOCH + self.now.since(Mono::ZERO) }
    }

    fn later(&mut self, after: Duration, due: Due) {
        self.seq += 1;
        self.queue.insert((self.now + after, self.seq), due);
    }

    fn tell(&mut self, after: Duration, event: RuntimeEvent) {
        if !self.mute {
            self.later(after + LATENCY, Due::Input(In::Runtime(event)));
        }
    }

    fn run_for(&mut self, duration: f64) {
        let end = self.now + seconds(duration);
        loop {
            let timeout = self.agent.poll_timeout().map(|d| d.at.max(self.now));
            let input = self.queue.first_key_value().map(|((at, _), _)| *at);
            let Some(next) = timeout.into_iter().chain(input).min().filter(|at| *at <= end) else { break };
            self.now = next;
            let mut out = Vec::new();
            if input == Some(next) {
                let (_, due) = self.queue.pop_first().unwrap();
                self.due(due, &mut out);
            } else {
                self.wakeups += 1;
                self.agent.handle_timeout(self.now(), &mut out);
            }
            for o in out {
                match o {
                    Out::Api(message) => self.api(message),
                    Out::Runtime(command) => self.command(command),
                }
            }
        }
        self.now = end;
    }

    fn due(&mut self, due: Due, out: &mut Vec<Out>) {
        match due {
            Due::Input(input) => self.agent.handle(self.now(), input, out),
            Due::Stop(id, code) => self.exit(&id, code),
            Due::Exit(id, attempt, code) => {
                if self.runtime.containers.get(&id).is_some_and(|c| c.spec.attempt == attempt) {
                    self.exit(&id, code);
                }
            }
        }
    }

    fn exit(&mut self, id: &ContainerId, exit_code: i32) {
        let finished_at = self.now().wall;
        let Some(c) = self.runtime.containers.get_mut(id) else { return };
        let ContainerState::Running { started_at } = c.state else { return };
        let reason = if exit_code == 0 { "Completed" } else { "Error" };
        c.state =
            ContainerState::Exited { exit_code, reason: reason.into(), message: "".into(), started_at, finished_at };
        let event = RuntimeEvent::Exited { container: id.clone(), state: c.state.clone() };
        self.tell(Duration::ZERO, event);
    }

    // The runtime.

    fn image(&self, spec: &ContainerSpec) -> String {
        spec.container().and_then(|c| c.image.clone()).unwrap()
    }

    /// What pods use: a megabyte of memory and of disk for each character of the name of a container.
    fn uses(&self, pods: &[Rc<str>]) -> Vec<super::PodUse> {
        let of = |uid: &Rc<str>| {
            let running = |c: &&FakeContainer| matches!(c.state, ContainerState::Running { .. });
            let own = self.runtime.containers.values().filter(|c| c.spec.pod_uid == *uid).filter(running);
            let containers = own.map(|c| {
                let bytes = (c.spec.name.len() as u64) << 20;
                let (root, log) = (super::DiskUse { bytes, inodes: 1 }, super::DiskUse::default());
                super::ContainerUse { name: Rc::clone(&c.spec.name), memory: bytes, processes: 1, root, log }
            });
            super::PodUse { pod_uid: Rc::clone(uid), containers: containers.collect(), volumes: Vec::new() }
        };
        pods.iter().map(of).collect()
    }

    fn loses(&mut self, name: &'static str) -> bool {
        match self.runtime.lose.get_mut(name) {
            Some(n) if *n > 0 => {
                *n -= 1;
                true
            }
            _ => false,
        }
    }

    fn command(&mut self, command: RuntimeCommand) {
        self.mute = self.loses(command_name(&command));
        self.carry_out(command);
        self.mute = false;
    }

    fn carry_out(&mut self, command: RuntimeCommand) {
        match command {
            RuntimeCommand::List { op } => self.list(op),
            RuntimeCommand::PullImage { op, image, secrets } => {
                self.runtime.pulls.push(secrets);
                let behaviour = self.runtime.behaviours[&*image].clone();
                let (after, result) = match behaviour.pull {
                    Ok(time) => {
                        self.runtime.images.insert(Rc::clone(&image), 1000);
                        (time, Ok(ImageInfo { image, bytes: 1000 }))
                    }
                    Err(e) => (seconds(0.5), Err(RuntimeError { reason: "ErrImagePull".into(), message: e.into() })),
                };
                self.tell(after, RuntimeEvent::Pulled { op, result });
            }
            RuntimeCommand::ListImages { op } => {
                let used: Vec<_> = self.runtime.containers.values().map(|c| self.image(&c.spec)).collect();
                let image = |(name, bytes): (&Rc<str>, &u64)| super::StoredImage {
                    id: format!("id of {name}").into(),
                    names: vec![Rc::clone(name)],
                    bytes: *bytes,
                    in_use: used.iter().any(|used| **used == **name),
                    pinned: false,
                };
                let images = self.runtime.images.iter().map(image).collect();
                let result = Ok(super::ImageDisk { capacity: 10_000, available: 0, images });
                self.tell(Duration::ZERO, RuntimeEvent::ImagesListed { op, result });
            }
            RuntimeCommand::UpdateContainer { op, container, resources } => {
                assert!(self.runtime.containers.contains_key(&container), "it is there");
                let limits = serde_json::to_value(&resources.limits).unwrap();
                self.runtime.mounted.push(format!("update {}", limits["cpu"].as_str().unwrap_or("-")));
                let result = match &self.runtime.busy_directory {
                    Some(why) => Err(RuntimeError { reason: "".into(), message: why.as_str().into() }),
                    None => Ok(()),
                };
                self.tell(seconds(1.0), RuntimeEvent::Updated { op, result });
            }
            RuntimeCommand::Measure { op, pods } => {
                let result = Ok(super::NodeUse { pods: self.uses(&pods), ..self.runtime.node.clone() });
                self.tell(Duration::ZERO, RuntimeEvent::Measured { op, result });
            }
            RuntimeCommand::RemoveImage { op, id } => {
                let removed = self.runtime.images.remove(id.trim_start_matches("id of "));
                assert!(removed.is_some(), "{id} is there");
                self.tell(Duration::ZERO, RuntimeEvent::ImageRemoved { op, result: Ok(()) });
            }
            RuntimeCommand::RunSandbox { op, pod_uid, pod, .. } => {
                self.runtime.made += 1;
                let id = SandboxId(format!("s{}", self.runtime.made).into());
                let ip = format!("10.1.0.{}", self.runtime.made).into();
                let info = SandboxInfo { id: id.clone(), pod_uid, pod, ip, ready: true };
                self.runtime.sandboxes.insert(id, info.clone());
                self.tell(seconds(0.1), RuntimeEvent::SandboxRunning { op, result: Ok(info) });
            }
            RuntimeCommand::StopSandbox { op, sandbox } => {
                let mut running = self.runtime.containers.values().filter(|c| c.spec.sandbox == sandbox);
                assert!(!running.any(|c| matches!(c.state, ContainerState::Running { .. })), "containers stop first");
                if let Some(s) = self.runtime.sandboxes.get_mut(&sandbox) {
                    s.ready = false;
                }
                self.tell(Duration::ZERO, RuntimeEvent::SandboxStopped { op, result: Ok(()) });
            }
            RuntimeCommand::RemoveSandbox { op, sandbox } => {
                self.runtime.sandboxes.remove(&sandbox);
                self.runtime.containers.retain(|_, c| c.spec.sandbox != sandbox);
                self.tell(Duration::ZERO, RuntimeEvent::SandboxRemoved { op, result: Ok(()) });
            }
            RuntimeCommand::MountVolumes { op, volumes } => {
                self.runtime.mounted.push(format!("{:?}", volumes.volumes));
                self.tell(Duration::ZERO, RuntimeEvent::Mounted { op, result: Ok(()) });
            }
            RuntimeCommand::UnmountVolumes { op, pod_uid } => {
                self.runtime.mounted.push(format!("unmount {pod_uid}"));
                self.tell(Duration::ZERO, RuntimeEvent::Unmounted { op, result: Ok(()) });
            }
            RuntimeCommand::EmptyDirectory { op, path } => {
                self.runtime.mounted.push(format!("empty {path}"));
                let result = match &self.runtime.busy_directory {
                    Some(why) => Err(RuntimeError { reason: "".into(), message: why.as_str().into() }),
                    None => Ok(()),
                };
                self.tell(Duration::ZERO, RuntimeEvent::DirectoryDone { op, result });
            }
            RuntimeCommand::RemoveDirectory { op, path } => {
                self.runtime.mounted.push(format!("remove {path}"));
                self.tell(Duration::ZERO, RuntimeEvent::DirectoryDone { op, result: Ok(()) });
            }
            RuntimeCommand::CreateContainer { op, spec } => {
                if !self.runtime.sandboxes.get(&spec.sandbox).is_some_and(|s| s.ready) {
                    return self.tell(Duration::ZERO, RuntimeEvent::Created { op, result: Err(dead_sandbox()) });
                }
                let clash = |c: &FakeContainer| {
                    c.spec.pod_uid == spec.pod_uid
                        && c.spec.name == spec.name
                        && (c.spec.attempt == spec.attempt || matches!(c.state, ContainerState::Running { .. }))
                };
                assert!(!self.runtime.containers.values().any(clash), "{} attempt {} twice", spec.name, spec.attempt);
                self.runtime.made += 1;
                let id = ContainerId(format!("c{}", self.runtime.made).into());
                let state = ContainerState::Created;
                self.runtime.containers.insert(id.clone(), FakeContainer { spec, state, since: self.now });
                self.tell(
                    Duration::ZERO,
                    RuntimeEvent::Created { op, result: Ok(CreatedContainer { id, image_id: Rc::default() }) },
                );
            }
            RuntimeCommand::StartContainer { op, container } => self.start(op, &container),
            RuntimeCommand::StopContainer { op, container, grace_seconds } => self.stop(op, container, grace_seconds),
            RuntimeCommand::RemoveContainer { op, container } => {
                self.runtime.containers.remove(&container);
                self.tell(Duration::ZERO, RuntimeEvent::Removed { op, result: Ok(()) });
            }
            RuntimeCommand::Probe { op, container, action, .. } => self.probe(op, &container, &action),
            RuntimeCommand::Stats { op } => self.tell(LATENCY, RuntimeEvent::StatsRead { op, stats: Vec::new() }),
        }
    }

    fn list(&mut self, op: OpId) {
        let r = &self.runtime;
        let sandboxes = r.sandboxes.values().cloned().collect();
        let info = |(id, c): (&ContainerId, &FakeContainer)| ContainerInfo {
            id: id.clone(),
            sandbox: c.spec.sandbox.clone(),
            pod_uid: Rc::clone(&c.spec.pod_uid),
            name: Rc::clone(&c.spec.name),
            attempt: c.spec.attempt,
            state: c.state.clone(),
            image_id: Rc::default(),
        };
        let containers = r.containers.iter().map(info).collect();
        let images = r.images.iter().map(|(i, b)| ImageInfo { image: Rc::clone(i), bytes: *b }).collect();
        self.tell(Duration::ZERO, RuntimeEvent::Listed { op, sandboxes, containers, images });
    }

    fn start(&mut self, op: OpId, id: &ContainerId) {
        let spec = Rc::clone(&self.runtime.containers[id].spec);
        if !self.runtime.sandboxes[&spec.sandbox].ready {
            return self.tell(Duration::ZERO, RuntimeEvent::Started { op, result: Err(dead_sandbox()) });
        }
        let behaviour = self.runtime.behaviours[&self.image(&spec)].clone();
        let started_at = self.now().wall + seconds(0.2);
        let since = self.now + seconds(0.2);
        let c = self.runtime.containers.get_mut(id).unwrap();
        (c.state, c.since) = (ContainerState::Running { started_at }, since);
        self.tell(seconds(0.2), RuntimeEvent::Started { op, result: Ok(()) });
        if let Some((after, code)) = behaviour.exit {
            self.later(seconds(0.2) + after, Due::Exit(id.clone(), spec.attempt, code));
        }
    }

    fn stop(&mut self, op: OpId, id: ContainerId, grace_seconds: u32) {
        let line = format!("stop {} grace={grace_seconds}", self.runtime.containers[&id].spec.name);
        self.say(&line);
        let spec = Rc::clone(&self.runtime.containers[&id].spec);
        let wanted = self.runtime.behaviours[&self.image(&spec)].stop;
        let grace = Duration::from_secs(u64::from(grace_seconds));
        let code = if wanted > grace { 137 } else { 143 };
        self.later(wanted.min(grace), Due::Stop(id, code));
        self.tell(wanted.min(grace), RuntimeEvent::Stopped { op, result: Ok(()) });
    }

    fn probe(&mut self, op: OpId, id: &ContainerId, action: &ProbeAction) {
        let exec = match action {
            ProbeAction::Probe(p) => p.exec.clone(),
            ProbeAction::Hook(h) => h.exec.clone(),
        };
        let words = exec.and_then(|e| e.command).unwrap();
        let number = words.get(1).and_then(|w| w.parse::<f64>().ok()).unwrap_or(0.0);
        let age = self.now.since(self.runtime.containers[id].since).as_secs_f64();
        let (after, ok) = match words[0].as_str() {
            "ok" => (0.0, true),
            "after" => (0.0, age >= number),
            "until" => (0.0, age < number),
            "sleep" => (number, true),
            _ => (0.0, false),
        };
        let result = if ok { Ok(()) } else { Err(RuntimeError { reason: "".into(), message: "bad".into() }) };
        self.tell(seconds(after), RuntimeEvent::Probed { op, result });
    }

    // The API.

    fn api(&mut self, message: ToServer) {
        let ToServer::Request(id, request) = message else { return };
        self.api.requests += 1;
        let is_pod_write = matches!(&request.call, Call::Update { object: Object::Pod(_), .. } | Call::Delete { .. });
        let lost = if is_pod_write { self.api.lose.pop() } else { None };
        if lost == Some(false) {
            return;
        }
        let result = match request.call {
            Call::List { kind: kind @ (Kind::NODE | Kind::SERVICE | Kind::PERSISTENT_VOLUME), .. } => {
                let all = self.api.objects.values().filter(|o| o.kind() == kind).cloned().collect();
                let rv = Revision(self.api.revision);
                Ok(Response::List { items: Rc::new(all), rv, rest: None })
            }
            // These do not change here.
            Call::Watch { kind: Kind::SERVICE | Kind::PERSISTENT_VOLUME, .. } => return,
            Call::Watch { kind: Kind::NODE, .. } => {
                self.api.node_watch = Some(id);
                return;
            }
            Call::List { kind, .. } => {
                let (items, rv) = self.list_pods(kind);
                Ok(Response::List { items: Rc::new(items), rv, rest: None })
            }
            Call::Watch { options, .. } => {
                self.api.watch = Some(id);
                let missed: Vec<_> = self.api.history.iter().filter(|e| e.rv() > options.rv).cloned().collect();
                for event in missed {
                    self.later(LATENCY, Due::Input(In::Api(FromServer::Watch(id, event))));
                }
                return;
            }
            Call::Get { key, .. } => self
                .api
                .objects
                .get(&key)
                .cloned()
                .map(Response::Object)
                .ok_or_else(|| Status::not_found(key.kind.row(), key.name())),
            Call::Create { object, .. } => self.create(object),
            Call::Update { object, subresource, .. } => self.update(object, subresource),
            Call::Delete { key, options } => {
                assert!(options.precondition.uid.is_some() && options.grace_seconds == Some(0));
                match self.api.objects.get(&key) {
                    Some(o) if Some(o.uid()) == options.precondition.uid.as_deref() => {
                        let name = key.name().to_owned();
                        self.say(&format!("{name} deleted"));
                        Ok(Response::Object(self.remove(&key)))
                    }
                    Some(_) => Err(Status::conflict(key.kind.row(), key.name(), "uid")),
                    None => Err(Status::not_found(key.kind.row(), key.name())),
                }
            }
            Call::Patch { key, patch: Patch::Merge(patch), .. } if key.kind == Kind::EVENT => {
                self.api.events.push(format!("again: {}", patch["message"].as_str().unwrap()));
                Ok(Response::Object(self.api.objects[&key].clone()))
            }
            call => panic!("the agent does not ask {call:?}"),
        };
        if lost.is_none() {
            self.later(LATENCY, Due::Input(In::Api(FromServer::Reply(id, result))));
        }
    }

    /// Lists the pods, possibly as they were some changes ago.
    fn list_pods(&mut self, kind: Kind) -> (Vec<Object>, Revision) {
        assert_eq!(kind, Kind::POD);
        let behind = std::mem::take(&mut self.api.list_behind);
        let upto = self.api.history.len().saturating_sub(behind);
        let mut pods = BTreeMap::new();
        for event in &self.api.history[..upto] {
            match event {
                WatchEvent::Added(o) | WatchEvent::Modified(o) => drop(pods.insert(o.key(), o.clone())),
                WatchEvent::Deleted(o) => drop(pods.remove(&o.key())),
                WatchEvent::Bookmark { .. } => {}
            }
        }
        let rv = upto.checked_sub(1).map_or(Revision(0), |at| self.api.history[at].rv());
        (pods.into_values().collect(), rv)
    }

    fn create(&mut self, mut object: Object) -> Result<Response, Status> {
        let key = object.key();
        if object.kind() == Kind::EVENT {
            let event = object.to_json();
            self.api.events.push(format!(
                "{}: {}",
                event["reason"].as_str().unwrap(),
                event["message"].as_str().unwrap()
            ));
        }
        if self.api.objects.contains_key(&key) {
            return Err(Status::already_exists(key.kind.row(), key.name()));
        }
        self.api.revision += 1;
        object.set_rv(Revision(self.api.revision));
        if object.meta().uid.is_none() {
            object.meta_mut().uid = Some(format!("uid-{}", self.api.revision));
        }
        object.meta_mut().creation_timestamp.get_or_insert_with(|| EPOCH.to_time());
        self.api.objects.insert(key, object.clone());
        Ok(Response::Object(object))
    }

    fn update(&mut self, object: Object, subresource: Subresource) -> Result<Response, Status> {
        let key = object.key();
        assert_ne!(object.rv(), Revision(0), "{key}: a write without a revision would overwrite what others wrote");
        let Some(stored) = self.api.objects.get(&key) else {
            return Err(Status::not_found(key.kind.row(), key.name()));
        };
        if stored.rv() != object.rv() || stored.uid() != object.uid() {
            return Err(Status::stale(key.kind.row(), key.name()));
        }
        let mut new = stored.clone();
        match subresource {
            Subresource::Status => new.take_status(&object),
            _ => new = object,
        }
        if let Object::Pod(p) = &new {
            let line = describe(p);
            self.say(&line);
        }
        self.put(new.clone());
        Ok(Response::Object(self.api.objects[&key].clone()))
    }

    fn put(&mut self, mut object: Object) {
        self.api.revision += 1;
        object.set_rv(Revision(self.api.revision));
        let is_new = self.api.objects.insert(object.key(), object.clone()).is_none();
        if object.kind() == Kind::NODE {
            self.watch_node(WatchEvent::Modified(object));
        } else if object.kind() == Kind::POD {
            self.watch(if is_new { WatchEvent::Added(object) } else { WatchEvent::Modified(object) });
        }
    }

    fn remove(&mut self, key: &ObjectKey) -> Object {
        let mut object = self.api.objects.remove(key).unwrap();
        self.api.revision += 1;
        object.set_rv(Revision(self.api.revision));
        if object.kind() == Kind::NODE {
            self.watch_node(WatchEvent::Deleted(object.clone()));
        } else if object.kind() == Kind::POD {
            self.watch(WatchEvent::Deleted(object.clone()));
        }
        object
    }

    fn watch_node(&mut self, event: WatchEvent) {
        if let Some(id) = self.api.node_watch {
            self.later(LATENCY, Due::Input(In::Api(FromServer::Watch(id, event))));
        }
    }

    fn watch(&mut self, event: WatchEvent) {
        self.api.history.push(event.clone());
        if let Some(id) = self.api.watch {
            self.later(LATENCY, Due::Input(In::Api(FromServer::Watch(id, event))));
        }
    }

    // Steps of a test.

    fn say(&mut self, line: &str) {
        self.transcript.push(format!("{:.1} {}", self.now.as_secs_f64(), line.trim_end()));
    }

    fn apply(&mut self, name: &str, spec: Value) -> ObjectKey {
        self.api.revision += 1;
        let uid = format!("{name}-{}", self.api.revision);
        let mut spec = spec;
        spec["nodeName"] = json!("n1");
        let object = Object::from_json(json!({"apiVersion": "v1", "kind": "Pod", "spec": spec,
            "metadata": {"name": name, "namespace": "d", "uid": uid, "generation": 1}}))
        .unwrap();
        let key = object.key();
        self.put(object);
        key
    }

    /// Changes a pod as another client does.
    fn edit(&mut self, key: &ObjectKey, edit: impl FnOnce(&mut Value)) {
        let mut value = self.api.objects[key].to_json();
        edit(&mut value);
        let generation = value["metadata"]["generation"].as_i64().unwrap();
        value["metadata"]["generation"] = json!(generation + 1);
        self.put(Object::from_json(value).unwrap());
    }

    fn delete(&mut self, key: &ObjectKey, grace: i64) {
        let mut object = self.api.objects[key].clone();
        object.meta_mut().deletion_timestamp = Some(self.now().wall.to_time());
        object.meta_mut().deletion_grace_period_seconds = Some(grace);
        self.put(object);
    }

    fn restart_agent(&mut self) {
        self.incarnation += 1;
        self.agent = NodeAgent::new(self.config.clone(), Rng::stream(1, "n1", self.incarnation));
        (self.api.watch, self.api.node_watch) = (None, None);
        // Messages in flight to the old process are lost.
        self.queue.retain(|_, due| !matches!(due, Due::Input(_)));
    }

    fn pod(&self, key: &ObjectKey) -> &Pod {
        self.api.objects[key].get::<core_v1::Pod>().unwrap()
    }

    fn check(&self, expect: &str) {
        let want: Vec<&str> = expect.lines().map(str::trim).filter(|l| !l.is_empty()).collect();
        assert!(self.transcript == want, "the story went:\n{}\n", self.transcript.join("\n"));
    }
}

/// One line: `name Phase[/Reason] TRUECONDITIONS container=state…`
fn describe(pod: &Pod) -> String {
    let s = &pod.status;
    let letter = |type_: &Text| match type_.as_str() {
        "PodReadyToStartContainers" => "P",
        "Initialized" => "I",
        "Ready" => "R",
        "ContainersReady" => "C",
        "PodScheduled" => "S",
        _ => "x",
    };
    let conditions = s.conditions.iter().filter(|c| c.status == Text::TRUE);
    let letters: String = conditions.map(|c| letter(&c.type_)).collect();
    let reason = s.reason.get().map(|r| format!("/{r}")).unwrap_or_default();
    let mut line = format!("{} {}{reason} {letters}", pod.name(), s.phase.get().unwrap_or("-"));
    let ephemeral = s.ephemeral_container_statuses();
    for c in s.init_container_statuses.iter().chain(&s.container_statuses).chain(&ephemeral) {
        let state = describe_state(&c.state);
        let last = Some(describe_state(&c.last_state)).filter(|l| !l.is_empty());
        let last = last.map(|l| format!("<{l}")).unwrap_or_default();
        let restarts = if c.restart_count > 0 { format!("#{}", c.restart_count) } else { String::new() };
        let ready = if c.ready { "+" } else { "" };
        line.push_str(&format!(" {}={state}{last}{restarts}{ready}", c.name));
    }
    line
}

fn describe_state(s: &crate::object::ContainerState) -> String {
    use crate::object::ContainerState;
    match s {
        ContainerState::Waiting { reason, .. } => reason.to_string(),
        ContainerState::Running { .. } => "running".to_owned(),
        ContainerState::Terminated(t) => format!("{}({})", t.reason, t.exit_code),
        ContainerState::Absent | ContainerState::Empty | ContainerState::Several(_) => String::new(),
    }
}

fn container(name: &str, image: &str) -> Value {
    json!({"name": name, "image": image})
}

fn with(mut container: Value, field: &str, value: Value) -> Value {
    container[field] = value;
    container
}

fn exec(words: &[&str]) -> Value {
    json!({"exec": {"command": words}})
}

fn probe(words: &[&str], period: i32, failures: i32) -> Value {
    json!({"exec": {"command": words}, "periodSeconds": period, "failureThreshold": failures})
}

/// A world whose agent has registered its Node.
fn ready_world() -> World {
    let mut world = World::new();
    world.run_for(10.0);
    world
}
