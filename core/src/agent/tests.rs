//! Life stories of pods: a whole agent against a small API and a small container runtime, told as transcripts of what
//! the API was told.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1 as core_v1;
use serde_json::{Value, json};

use super::{
    AgentConfig, ContainerId, ContainerInfo, ContainerSpec, ContainerState, ImageInfo, In, NodeAgent, OpId, Out,
    ProbeAction, RuntimeCommand, RuntimeError, RuntimeEvent, SandboxId, SandboxInfo,
};
use crate::api::{Call, FromServer, Patch, ReqId, Response, Status, Subresource, ToServer, WatchEvent};
use crate::machine::{Machine, Mono, Now, Wall};
use crate::object::{Kind, Object, ObjectKey, Pod, Revision};
use crate::random::Rng;

const EPOCH: Wall = Wall(1_700_000_000_000_000);
const LATENCY: Duration = Duration::from_millis(1);

/// How containers of an image behave. Probes and hooks say themselves how they go: `exec` of `ok`, `fail`,
/// `after N` (succeeds once the container has run for so many seconds), `until N`, `sleep N`.
#[derive(Clone)]
struct Behaviour {
    pull: Result<Duration, &'static str>,
    exit: Option<(Duration, i32)>,
    stop: Duration,
}

struct FakeContainer {
    spec: Arc<ContainerSpec>,
    state: ContainerState,
    since: Mono,
}

#[derive(Default)]
struct FakeRuntime {
    images: BTreeMap<Arc<str>, u64>,
    sandboxes: BTreeMap<SandboxId, SandboxInfo>,
    containers: BTreeMap<ContainerId, FakeContainer>,
    behaviours: BTreeMap<String, Behaviour>,
    made: u32,
    /// Commands that are swallowed, by name, so often.
    lose: BTreeMap<&'static str, u32>,
}

#[derive(Default)]
struct FakeApi {
    objects: BTreeMap<ObjectKey, Object>,
    revision: u64,
    watch: Option<ReqId>,
    /// The next writes are carried out (true) or not, and their replies lost.
    lose: Vec<bool>,
    events: Vec<String>,
    requests: usize,
}

enum Due {
    Input(In),
    Stop(ContainerId, i32),
    Exit(ContainerId, u32, i32),
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
        let mut runtime = FakeRuntime::default();
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
        self.later(after + LATENCY, Due::Input(In::Runtime(event)));
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
        let mut all = spec.pod.init_containers.iter().flatten().chain(&spec.pod.containers);
        all.find(|c| c.name == *spec.name).and_then(|c| c.image.clone()).unwrap()
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
        match command {
            RuntimeCommand::List { op } => self.list(op),
            RuntimeCommand::PullImage { op, image } => {
                let behaviour = self.runtime.behaviours[&*image].clone();
                let (after, result) = match behaviour.pull {
                    Ok(time) => {
                        self.runtime.images.insert(Arc::clone(&image), 1000);
                        (time, Ok(ImageInfo { image, bytes: 1000 }))
                    }
                    Err(e) => (seconds(0.5), Err(RuntimeError { reason: "ErrImagePull".into(), message: e.into() })),
                };
                self.tell(after, RuntimeEvent::Pulled { op, result });
            }
            RuntimeCommand::RunSandbox { op, pod_uid, pod, .. } => {
                self.runtime.made += 1;
                let id = SandboxId(format!("s{}", self.runtime.made).into());
                let ip = format!("10.1.0.{}", self.runtime.made).into();
                let info = SandboxInfo { id: id.clone(), pod_uid, pod, ip, ready: true };
                self.runtime.sandboxes.insert(id, info.clone());
                if !self.loses("RunSandbox") {
                    self.tell(seconds(0.1), RuntimeEvent::SandboxRunning { op, result: Ok(info) });
                }
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
            RuntimeCommand::CreateContainer { op, spec } => {
                assert!(self.runtime.sandboxes[&spec.sandbox].ready);
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
                if !self.loses("CreateContainer") {
                    self.tell(Duration::ZERO, RuntimeEvent::Created { op, result: Ok(id) });
                }
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
            pod_uid: Arc::clone(&c.spec.pod_uid),
            name: Arc::clone(&c.spec.name),
            attempt: c.spec.attempt,
            state: c.state.clone(),
        };
        let containers = r.containers.iter().map(info).collect();
        let images = r.images.iter().map(|(i, b)| ImageInfo { image: Arc::clone(i), bytes: *b }).collect();
        self.tell(Duration::ZERO, RuntimeEvent::Listed { op, sandboxes, containers, images });
    }

    fn start(&mut self, op: OpId, id: &ContainerId) {
        let spec = Arc::clone(&self.runtime.containers[id].spec);
        let behaviour = self.runtime.behaviours[&self.image(&spec)].clone();
        let started_at = self.now().wall + seconds(0.2);
        let since = self.now + seconds(0.2);
        let c = self.runtime.containers.get_mut(id).unwrap();
        (c.state, c.since) = (ContainerState::Running { started_at }, since);
        if !self.loses("StartContainer") {
            self.tell(seconds(0.2), RuntimeEvent::Started { op, result: Ok(()) });
        }
        if let Some((after, code)) = behaviour.exit {
            self.later(seconds(0.2) + after, Due::Exit(id.clone(), spec.attempt, code));
        }
    }

    fn stop(&mut self, op: OpId, id: ContainerId, grace_seconds: u32) {
        let line = format!("stop {} grace={grace_seconds}", self.runtime.containers[&id].spec.name);
        self.say(&line);
        let spec = Arc::clone(&self.runtime.containers[&id].spec);
        let wanted = self.runtime.behaviours[&self.image(&spec)].stop;
        let grace = Duration::from_secs(u64::from(grace_seconds));
        let code = if wanted > grace { 137 } else { 143 };
        self.later(wanted.min(grace), Due::Stop(id, code));
        if !self.loses("StopContainer") {
            self.tell(wanted.min(grace), RuntimeEvent::Stopped { op, result: Ok(()) });
        }
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
            Call::List { kind, .. } => {
                let items = self.api.objects.values().filter(|o| o.kind() == kind).cloned().collect();
                let rv = Revision(self.api.revision);
                Ok(Response::List { items: Arc::new(items), rv, continue_from: None, remaining: None })
            }
            Call::Watch { .. } => {
                self.api.watch = Some(id);
                return;
            }
            Call::Get { key, .. } => self
                .api
                .objects
                .get(&key)
                .cloned()
                .map(Response::Object)
                .ok_or_else(|| Status::not_found(key.kind, key.name())),
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
                    Some(_) => Err(Status::conflict(key.kind, key.name(), "uid")),
                    None => Err(Status::not_found(key.kind, key.name())),
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
            return Err(Status::already_exists(key.kind, key.name()));
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
        let Some(stored) = self.api.objects.get(&key) else {
            return Err(Status::not_found(key.kind, key.name()));
        };
        if stored.rv() != object.rv() || stored.uid() != object.uid() {
            return Err(Status::stale(key.kind, key.name()));
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
        if object.kind() == Kind::POD {
            self.watch(if is_new { WatchEvent::Added(object) } else { WatchEvent::Modified(object) });
        }
    }

    fn remove(&mut self, key: &ObjectKey) -> Object {
        let mut object = self.api.objects.remove(key).unwrap();
        self.api.revision += 1;
        object.set_rv(Revision(self.api.revision));
        if object.kind() == Kind::POD {
            self.watch(WatchEvent::Deleted(object.clone()));
        }
        object
    }

    fn watch(&mut self, event: WatchEvent) {
        if let Some(id) = self.api.watch {
            self.later(LATENCY * 2, Due::Input(In::Api(FromServer::Watch(id, event))));
        }
    }

    // What a story does.

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

    fn delete(&mut self, key: &ObjectKey, grace: i64) {
        let mut object = self.api.objects[key].clone();
        object.meta_mut().deletion_timestamp = Some(self.now().wall.to_time());
        object.meta_mut().deletion_grace_period_seconds = Some(grace);
        self.put(object);
    }

    fn restart_agent(&mut self) {
        self.incarnation += 1;
        self.agent = NodeAgent::new(self.config.clone(), Rng::stream(1, "n1", self.incarnation));
        self.api.watch = None;
        // What was on its way to the old process is lost.
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

/// `name Phase[/Reason] TRUECONDITIONS container=state…`
fn describe(pod: &Pod) -> String {
    let s = &pod.status;
    let letter = |type_: &str| match type_ {
        "PodReadyToStartContainers" => "P",
        "Initialized" => "I",
        "Ready" => "R",
        "ContainersReady" => "C",
        "PodScheduled" => "S",
        _ => "x",
    };
    let conditions = s.conditions.iter().flatten().filter(|c| c.status == "True");
    let letters: String = conditions.map(|c| letter(&c.type_)).collect();
    let reason = s.reason.as_ref().map(|r| format!("/{r}")).unwrap_or_default();
    let mut line = format!("{} {}{reason} {letters}", pod.name(), s.phase.as_deref().unwrap());
    let statuses = s.init_container_statuses.iter().flatten().chain(s.container_statuses.iter().flatten());
    for c in statuses {
        let state = c.state.as_ref().map(describe_state).unwrap_or_default();
        let last = c.last_state.as_ref().map(describe_state).filter(|l| !l.is_empty());
        let last = last.map(|l| format!("<{l}")).unwrap_or_default();
        let restarts = if c.restart_count > 0 { format!("#{}", c.restart_count) } else { String::new() };
        let ready = if c.ready { "+" } else { "" };
        line.push_str(&format!(" {}={state}{last}{restarts}{ready}", c.name));
    }
    line
}

fn describe_state(s: &core_v1::ContainerState) -> String {
    if let Some(w) = &s.waiting {
        w.reason.clone().unwrap_or_default()
    } else if s.running.is_some() {
        "running".to_owned()
    } else if let Some(t) = &s.terminated {
        format!("{}({})", t.reason.as_deref().unwrap_or(""), t.exit_code)
    } else {
        String::new()
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

/// A world whose agent has registered.
fn ready_world() -> World {
    let mut world = World::new();
    world.run_for(10.0);
    world
}

#[test]
fn registers_beats_and_comes_back() {
    let mut world = ready_world();
    let node_key = ObjectKey::new(Kind::NODE, "", "n1");
    let lease_key = ObjectKey::new(Kind::LEASE, "kube-node-lease", "n1");
    let node = world.api.objects[&node_key].to_json();
    let ready = &node["status"]["conditions"][3];
    assert_eq!((&ready["type"], &ready["status"]), (&json!("Ready"), &json!("True")));
    assert_eq!(ready["message"], "kubelet is posting ready status");
    assert_eq!(node["status"]["allocatable"]["pods"], "10");
    assert_eq!(node["metadata"]["labels"]["kubernetes.io/hostname"], "n1");
    let lease = world.api.objects[&lease_key].to_json();
    assert_eq!(lease["metadata"]["ownerReferences"][0]["uid"], node["metadata"]["uid"]);
    let requests = world.api.requests;
    world.run_for(100.0);
    let renewals = world.api.requests - requests;
    assert!((10..=15).contains(&renewals), "{renewals} requests in 100 s of rest");

    // The controller took it for dead: it says again that it is not.
    let mut node = world.api.objects[&node_key].clone();
    if let Some(n) = node.get_mut::<core_v1::Node>() {
        n.status_mut().conditions.as_mut().unwrap()[3].status = "Unknown".to_owned();
    }
    world.put(node);
    world.run_for(70.0);
    assert_eq!(world.api.objects[&node_key].to_json()["status"]["conditions"][3]["status"], "True");

    // The Node and its Lease are deleted: both come back.
    world.remove(&node_key);
    world.remove(&lease_key);
    world.run_for(20.0);
    let node = world.api.objects[&node_key].to_json();
    let lease = world.api.objects[&lease_key].to_json();
    assert_eq!(lease["metadata"]["ownerReferences"][0]["uid"], node["metadata"]["uid"]);

    // A new process adopts the Node that it finds.
    world.restart_agent();
    world.run_for(20.0);
    assert_eq!(world.api.objects[&node_key].uid(), node["metadata"]["uid"].as_str().unwrap());
}

#[test]
fn a_plain_pod_lives_and_is_deleted() {
    let mut world = ready_world();
    let key = world.apply("p", json!({"containers": [container("a", "app:1"), container("b", "app:1")]}));
    world.run_for(10.0);
    assert_eq!(world.pod(&key).status.pod_ip.as_deref(), Some("10.1.0.1"));
    world.delete(&key, 30);
    world.run_for(10.0);
    world.check(
        "10.0 p Pending IS a=ContainerCreating b=ContainerCreating
         11.5 p Running PIRCS a=running+ b=running+
         20.0 stop a grace=30
         20.0 stop b grace=30
         20.5 p Failed IS a=Error(143) b=Error(143)
         20.5 p deleted",
    );
    assert_eq!(world.agent.pods(), 0);
    assert!(world.runtime.sandboxes.is_empty());
}

#[test]
fn init_containers_then_sidecars_then_the_rest() {
    let mut world = ready_world();
    let sidecar = with(container("side", "app:1"), "restartPolicy", json!("Always"));
    let sidecar = with(sidecar, "startupProbe", probe(&["after", "2"], 1, 30));
    let last = with(container("last", "app:1"), "restartPolicy", json!("Always"));
    let spec = json!({"initContainers": [container("one", "step:1"), sidecar, last],
        "containers": [container("a", "app:1")]});
    let key = world.apply("p", spec);
    world.run_for(10.0);
    world.delete(&key, 30);
    world.run_for(10.0);
    world.check(
        "10.0 p Pending S one=PodInitializing side=PodInitializing last=PodInitializing a=PodInitializing
         11.3 p Pending PS one=running side=PodInitializing last=PodInitializing a=PodInitializing
         13.3 p Pending PS one=Completed(0)+ side=PodInitializing last=PodInitializing a=PodInitializing
         14.5 p Pending PS one=Completed(0)+ side=running last=PodInitializing a=PodInitializing
         16.9 p Running PIRCS one=Completed(0)+ side=running+ last=running+ a=running+
         20.0 stop a grace=30
         20.5 stop last grace=30
         21.0 stop side grace=29
         21.5 p Failed IS one=Completed(0)+ side=Error(143) last=Error(143) a=Error(143)
         21.5 p deleted",
    );
}

#[test]
fn a_job_completes_and_its_sidecar_ends() {
    let mut world = ready_world();
    let sidecar = with(container("side", "app:1"), "restartPolicy", json!("Always"));
    let spec =
        json!({"restartPolicy": "OnFailure", "initContainers": [sidecar], "containers": [container("a", "step:1")]});
    let key = world.apply("p", spec);
    world.run_for(20.0);
    assert_eq!(world.runtime.containers.len(), 2, "what has ended is kept for its logs");
    world.delete(&key, 0);
    world.run_for(5.0);
    world.check(
        "10.0 p Pending S side=PodInitializing a=PodInitializing
         11.3 p Pending PIS side=running+ a=PodInitializing
         12.5 p Running PIRCS side=running+ a=running+
         14.5 stop side grace=30
         14.5 p Running PIS side=running+ a=Completed(0)
         15.0 p Succeeded IS side=Error(143) a=Completed(0)
         30.0 p deleted",
    );
    assert!(world.runtime.sandboxes.is_empty());
}

#[test]
fn a_crash_loop_backs_off() {
    let mut world = ready_world();
    world.apply("p", json!({"containers": [container("a", "crash:1")]}));
    world.run_for(60.0);
    world.check(
        "10.0 p Pending IS a=ContainerCreating
         11.3 p Running PIRCS a=running+
         12.3 p Running PIS a=Error(1)
         12.5 p Running PIRCS a=running<Error(1)#1+
         13.5 p Running PIS a=CrashLoopBackOff<Error(1)#1
         23.7 p Running PIRCS a=running<Error(1)#2+
         24.7 p Running PIS a=CrashLoopBackOff<Error(1)#2
         44.9 p Running PIRCS a=running<Error(1)#3+
         45.9 p Running PIS a=CrashLoopBackOff<Error(1)#3",
    );
    let message = world.pod(&ObjectKey::new(Kind::POD, "d", "p")).to_whole();
    let message = serde_json::to_value(message).unwrap()["status"]["containerStatuses"][0].to_string();
    assert!(message.contains("back-off 40s restarting failed container=a pod=p_d(p-"), "{message}");
}

#[test]
fn one_that_never_restarts_fails() {
    let mut world = ready_world();
    world.apply(
        "p",
        json!({"restartPolicy": "Never", "containers": [container("a", "crash:1"), container("b", "step:1")]}),
    );
    world.apply(
        "q",
        json!({"restartPolicy": "Never", "initContainers": [container("i", "crash:1")],
        "containers": [container("a", "app:1")]}),
    );
    world.run_for(20.0);
    world.check(
        "10.0 p Pending IS a=ContainerCreating b=ContainerCreating
         10.0 q Pending S i=PodInitializing a=PodInitializing
         11.3 p Pending PIS a=running+ b=ContainerCreating
         11.3 q Pending PS i=running a=PodInitializing
         12.3 p Pending PIS a=Error(1) b=ContainerCreating
         12.3 q Failed S i=Error(1) a=PodInitializing
         12.5 p Running PIS a=Error(1) b=running+
         14.5 p Failed IS a=Error(1) b=Completed(0)",
    );
}

#[test]
fn an_image_that_is_missing() {
    let mut world = ready_world();
    world.apply("p", json!({"containers": [container("a", "missing:1")]}));
    let never = with(container("a", "app:2"), "imagePullPolicy", json!("Never"));
    world.apply("q", json!({"containers": [never]}));
    world.run_for(60.0);
    world.check(
        "10.0 p Pending IS a=ContainerCreating
         10.0 q Pending IS a=ContainerCreating
         10.1 q Pending PIS a=ErrImageNeverPull
         10.6 p Pending PIS a=ErrImagePull
         31.1 p Pending PIS a=ImagePullBackOff
         41.6 p Pending PIS a=ErrImagePull
         51.6 p Pending PIS a=ImagePullBackOff",
    );
}

#[test]
fn probes_decide_on_readiness_and_life() {
    let mut world = ready_world();
    let a = with(container("a", "app:1"), "startupProbe", probe(&["after", "3"], 2, 10));
    let a = with(a, "readinessProbe", probe(&["after", "7"], 1, 3));
    let a = with(a, "livenessProbe", probe(&["until", "15"], 5, 2));
    world.apply("p", json!({"containers": [a], "terminationGracePeriodSeconds": 5}));
    world.run_for(35.0);
    world.check(
        "10.0 p Pending IS a=ContainerCreating
         11.3 p Running PIS a=running
         15.3 p Running PIS a=running
         18.3 p Running PIRCS a=running+
         35.3 stop a grace=5
         35.8 p Running PIS a=Error(143)
         36.0 p Running PIS a=running<Error(143)#1
         40.0 p Running PIS a=running<Error(143)#1
         43.0 p Running PIRCS a=running<Error(143)#1+",
    );
    assert!(world.api.events.iter().any(|e| e == "Unhealthy: Liveness probe failed: bad"), "{:?}", world.api.events);
    assert!(world.api.events.iter().any(|e| e == "Killing: Container a failed liveness probe, will be restarted"));
}

#[test]
fn hooks_run_within_the_grace_period() {
    let mut world = ready_world();
    let a = with(
        container("a", "stubborn:1"),
        "lifecycle",
        json!({"postStart": exec(&["sleep", "1"]), "preStop": exec(&["sleep", "4"])}),
    );
    let b = with(container("b", "app:1"), "lifecycle", json!({"preStop": exec(&["sleep", "100"])}));
    let key = world.apply("p", json!({"containers": [a, b]}));
    world.run_for(10.0);
    world.delete(&key, 10);
    world.run_for(20.0);
    world.check(
        "10.0 p Pending IS a=ContainerCreating b=ContainerCreating
         12.3 p Pending PIS a=running+ b=ContainerCreating
         13.5 p Running PIRCS a=running+ b=running+
         24.0 stop a grace=6
         30.0 stop b grace=2
         30.5 p Failed IS a=Error(137) b=Error(143)
         30.5 p deleted",
    );
}

#[test]
fn a_shorter_grace_hastens_the_end() {
    let mut world = ready_world();
    let key = world.apply("p", json!({"containers": [container("a", "stubborn:1")]}));
    world.run_for(10.0);
    world.delete(&key, 300);
    world.run_for(10.0);
    world.delete(&key, 1);
    world.run_for(10.0);
    world.check(
        "10.0 p Pending IS a=ContainerCreating
         11.3 p Running PIRCS a=running+
         20.0 stop a grace=300
         30.0 stop a grace=2
         32.0 p Failed IS a=Error(137)
         32.0 p deleted",
    );
}

#[test]
fn an_agent_restart_changes_nothing_for_what_runs() {
    let mut world = ready_world();
    let a = with(container("a", "app:1"), "readinessProbe", probe(&["ok"], 5, 3));
    let key = world.apply("p", json!({"containers": [a]}));
    world.run_for(10.0);
    let told = world.transcript.len();
    world.restart_agent();
    world.run_for(30.0);
    assert_eq!(world.transcript.len(), told, "{:?}", world.transcript);

    // At every moment of a pod's way up, too.
    world.delete(&key, 1);
    world.run_for(10.0);
    for i in 0..25 {
        let name = format!("p{i}");
        let key = world.apply(
            &name,
            json!({"containers": [container("a", "app:2"), container("b", "app:1")],
            "initContainers": [container("i", "step:1")]}),
        );
        world.run_for(f64::from(i) * 0.2);
        world.restart_agent();
        world.run_for(30.0);
        let pod = world.pod(&key);
        assert!(
            describe(pod).ends_with("Running PIRCS i=Completed(0)+ a=running+ b=running+"),
            "{i}: {}",
            describe(pod)
        );
        world.delete(&key, 1);
        world.run_for(f64::from(i) * 0.2);
        world.restart_agent();
        world.run_for(10.0);
        assert!(!world.api.objects.contains_key(&key), "{i}");
        assert!(world.runtime.sandboxes.is_empty(), "{i}");
        world.runtime.images.remove("app:2");
    }
}

#[test]
fn a_reboot_begins_anew() {
    let mut world = ready_world();
    let key = world
        .apply("p", json!({"containers": [container("a", "app:1")], "initContainers": [container("i", "step:1")]}));
    let once = world.apply("q", json!({"restartPolicy": "Never", "containers": [container("a", "app:1")]}));
    world.run_for(10.0);
    world.transcript.clear();
    world.runtime.sandboxes.clear();
    world.runtime.containers.clear();
    world.restart_agent();
    world.run_for(20.0);
    let _ = (key, once);
    world.check(
        "20.0 p Pending IS i=Completed(0)+ a=ContainerStatusUnknown(137)
         20.0 q Failed IS a=ContainerStatusUnknown(137)
         20.3 p Pending PS i=running<Completed(0)#1 a=ContainerStatusUnknown(137)
         22.5 p Running PIRCS i=Completed(0)<Completed(0)#1+ a=running<ContainerStatusUnknown(137)#1+",
    );
}

#[test]
fn who_does_not_fit_is_turned_away() {
    let mut world = ready_world();
    let asks = |cpu: &str| json!({"containers": [with(container("a", "app:1"), "resources", json!({"requests": {"cpu": cpu}}))]});
    let first = world.apply("p", asks("3"));
    world.run_for(5.0);
    let second = world.apply("q", asks("2"));
    world.run_for(5.0);
    let message = world.pod(&second).status.message.clone().unwrap();
    assert_eq!(
        message,
        "Pod was rejected: Node didn't have enough resource: cpu, requested: 2000, used: 3000, capacity: 4000"
    );
    // A restart of the agent rejects nobody who runs.
    world.restart_agent();
    world.run_for(5.0);
    world.delete(&first, 1);
    world.run_for(5.0);
    world.apply("r", asks("4"));
    world.run_for(5.0);
    world.check(
        "10.0 p Pending IS a=ContainerCreating
         11.3 p Running PIRCS a=running+
         15.0 q Failed/OutOfcpu 
         25.0 stop a grace=2
         25.5 p Failed IS a=Error(143)
         25.5 p deleted
         30.0 r Pending IS a=ContainerCreating
         30.3 r Running PIRCS a=running+",
    );
}

#[test]
fn pods_that_vanish_are_killed() {
    let mut world = ready_world();
    let key = world.apply("p", json!({"containers": [container("a", "app:1")]}));
    world.run_for(10.0);
    world.remove(&key);
    world.run_for(5.0);
    assert!(world.runtime.sandboxes.is_empty() && world.agent.pods() == 0);
    // While the agent is away, too; and another pod of that name waits until the old one is gone.
    let key = world.apply("p", json!({"containers": [container("a", "stubborn:1")]}));
    world.run_for(10.0);
    world.remove(&key);
    world.apply("p", json!({"containers": [container("a", "app:1")]}));
    world.run_for(0.5);
    assert_eq!(world.runtime.sandboxes.len(), 1);
    world.run_for(10.0);
    assert_eq!((world.runtime.sandboxes.len(), world.agent.pods()), (1, 1));
    world.remove(&key);
    world.restart_agent();
    world.run_for(15.0);
    assert!(world.runtime.sandboxes.is_empty() && world.agent.pods() == 0);
    world.check(
        "10.0 p Pending IS a=ContainerCreating
         11.3 p Running PIRCS a=running+
         20.0 stop a grace=2
         25.0 p Pending IS a=ContainerCreating
         26.3 p Running PIRCS a=running+
         35.0 stop a grace=2
         35.0 p Pending IS a=ContainerCreating
         37.3 p Running PIRCS a=running+
         45.5 stop a grace=2",
    );
}

#[test]
fn an_active_deadline_ends_a_pod() {
    let mut world = ready_world();
    world.apply("p", json!({"activeDeadlineSeconds": 5, "containers": [container("a", "app:1")]}));
    world.run_for(20.0);
    world.check(
        "10.0 p Pending IS a=ContainerCreating
         11.3 p Running PIRCS a=running+
         15.0 stop a grace=30
         15.5 p Failed/DeadlineExceeded IS a=Error(143)",
    );
}

#[test]
fn a_changed_image_restarts_its_container() {
    let mut world = ready_world();
    let key = world.apply("p", json!({"containers": [container("a", "app:1"), container("b", "app:1")]}));
    world.run_for(10.0);
    let mut pod = world.api.objects[&key].clone();
    if let Some(p) = pod.get_mut::<core_v1::Pod>() {
        Arc::make_mut(&mut p.spec_mut().shared).containers[1].image = Some("app:2".to_owned());
    }
    world.put(pod);
    world.run_for(10.0);
    world.check(
        "10.0 p Pending IS a=ContainerCreating b=ContainerCreating
         11.5 p Running PIRCS a=running+ b=running+
         20.0 stop b grace=30
         20.5 p Running PIS a=running+ b=Error(143)
         21.7 p Running PIRCS a=running+ b=running<Error(143)#1+",
    );
}

#[test]
fn a_dead_sandbox_is_made_anew() {
    let mut world = ready_world();
    let key = world
        .apply("p", json!({"containers": [container("a", "app:1")], "initContainers": [container("i", "step:1")]}));
    world.run_for(10.0);
    world.transcript.clear();
    let id = world.runtime.sandboxes.keys().next().unwrap().clone();
    world.runtime.sandboxes.get_mut(&id).unwrap().ready = false;
    world.runtime.containers.clear();
    world.tell(Duration::ZERO, RuntimeEvent::SandboxGone { sandbox: id });
    world.run_for(10.0);
    let _ = key;
    world.check(
        "20.0 p Pending IS i=Completed(0)+ a=ContainerStatusUnknown(137)
         20.3 p Pending PS i=running<Completed(0)#1 a=ContainerStatusUnknown(137)
         22.5 p Running PIRCS i=Completed(0)<Completed(0)#1+ a=running<ContainerStatusUnknown(137)#1+",
    );
}

#[test]
fn readiness_gates_and_others_conditions() {
    let mut world = ready_world();
    let key = world
        .apply("p", json!({"readinessGates": [{"conditionType": "x.io/in"}], "containers": [container("a", "app:1")]}));
    world.run_for(5.0);
    let set = |world: &mut World, type_: &str, status: &str| {
        let mut pod = world.api.objects[&key].clone();
        if let Some(p) = pod.get_mut::<core_v1::Pod>() {
            let all = p.status_mut().conditions.as_mut().unwrap();
            all.retain(|c| c.type_ != type_);
            let (type_, status) = (type_.to_owned(), status.to_owned());
            all.push(core_v1::PodCondition { type_, status, ..Default::default() });
        }
        world.put(pod);
        world.run_for(5.0);
    };
    set(&mut world, "x.io/in", "True");
    // As the node life cycle controller does to the pods of a node that it cannot reach.
    set(&mut world, "Ready", "False");
    world.check(
        "10.0 p Pending IS a=ContainerCreating
         11.3 p Running PICS a=running+
         15.0 p Running PIRCSx a=running+
         20.0 p Running PIRCSx a=running+",
    );
}

#[test]
fn lost_replies_and_broken_connections() {
    for lose in [vec![true], vec![false], vec![false, true], vec![true, false, true, false]] {
        let mut world = ready_world();
        world.api.lose = lose.clone();
        let key = world.apply("p", json!({"containers": [container("a", "app:1")]}));
        world.run_for(120.0);
        assert!(describe(world.pod(&key)).ends_with("Running PIRCS a=running+"), "{lose:?}");
        world.api.lose = lose.clone();
        world.delete(&key, 1);
        world.run_for(120.0);
        assert!(!world.api.objects.contains_key(&key) && world.agent.pods() == 0, "{lose:?}");
    }
}

#[test]
fn lost_runtime_commands() {
    for command in ["RunSandbox", "CreateContainer", "StartContainer", "StopContainer"] {
        let mut world = ready_world();
        world.runtime.lose = BTreeMap::from([(command, 1)]);
        let key = world.apply("p", json!({"containers": [container("a", "app:1")]}));
        world.run_for(400.0);
        assert!(
            describe(world.pod(&key)).contains("Running PIRCS a=running"),
            "{command} {}",
            describe(world.pod(&key))
        );
        world.delete(&key, 1);
        world.run_for(400.0);
        assert!(world.runtime.sandboxes.is_empty() && world.agent.pods() == 0, "{command}");
    }
}
