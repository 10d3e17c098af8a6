//! One pod on the node: the agent's state of its sandbox and containers, and how the runtime's replies change it.
//!
//! This file only applies replies and events. What to do next is decided in `sync`, `lifecycle` and `probe`.

use std::rc::Rc;
use std::time::Duration;

use k8s_openapi::api::core::v1 as core_v1;

use super::admission::{Amounts, Rejection, Room};
use super::adopt::Found;
use super::attachments::Attachments;
use super::backoff::{Backoff, go_duration};
use super::ephemeral::Ephemeral;
use super::images::Images;
use super::pressure::Pressure;
use super::probe::{ProbeKind, Probes};
use super::references::{References, refers};
use super::resize::Resized;
use super::runtime::{
    ContainerId, ContainerState, CreatedContainer, ImageInfo, OpId, RuntimeCommand, RuntimeError, RuntimeEvent,
    SandboxId, SandboxInfo,
};
use super::services::Services;
use super::volumes::Volumes;
use super::write::StatusWrite;
use super::{AgentConfig, Out};
use crate::api::{ReqId, ReqIds};
use crate::client::{EventType, Recorder};
use crate::limits::{CONTAINER_BACKOFF_BASE, RUNTIME_REQUEST_TIMEOUT};
use crate::machine::{Mono, Now, Wall};
use crate::object::{Meta, Object, ObjectMeta, Pod};
use crate::random::Rng;

/// State that all pods of a node share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) runtime_name: Rc<str>,
    pub(super) user: Rc<str>,
    pub(super) recorder: Recorder,
    pub(super) rng: Rng,
    pub(super) ids: ReqIds,
    /// Requests in flight, with the slot of their pod.
    pub(super) requests: std::collections::BTreeMap<ReqId, u32>,
    pub(super) images: Images,
    pub(super) references: Box<References>,
    pub(super) attachments: Box<Attachments>,
    /// Services, for the environment of real containers.
    pub(super) services: Option<Box<Services>>,
    pub(super) room: Room,
    pub(super) config: Rc<AgentConfig>,
    /// Metadata of the Node; `None` until it is known.
    pub(super) node_meta: Option<Rc<Meta>>,
    /// The pod slot and container index of each container id.
    pub(super) containers: std::collections::BTreeMap<ContainerId, (u32, u16)>,
    /// Number of the last command.
    pub(super) last_op: u64,
    /// Something is in doubt: the runtime's list must be read.
    pub(super) wants_list: bool,
    /// Pods that were here before are being taken in, one after the other.
    pub(super) adopting: bool,
    /// What the node is short of.
    pub(super) pressure: Pressure,
}

impl Shared {
    /// The id of the next command for a pod's slot.
    pub(super) fn op(&mut self, slot: u32) -> OpId {
        self.last_op += 1;
        OpId(u64::from(slot) << OP_BITS | self.last_op)
    }
}

/// How many bits of an [`OpId`] number the commands; the remaining bits are the pod's slot.
pub(super) const OP_BITS: u32 = 40;
/// The slot of commands that belong to no pod.
pub(super) const NODE_SLOT: u32 = (1 << 24) - 1;
/// The slot of commands about directories of volumes.
pub(super) const DIRECTORIES_SLOT: u32 = NODE_SLOT - 1;
/// The slot of commands about images that nothing uses.
pub(super) const IMAGES_SLOT: u32 = NODE_SLOT - 2;
/// The slot of commands that measure the node.
pub(super) const EVICTION_SLOT: u32 = NODE_SLOT - 3;

/// The context of one step.
pub(super) struct Ctx<'a> {
    pub(super) now: Now,
    pub(super) shared: &'a mut Shared,
    pub(super) out: &'a mut Vec<Out>,
}

/// The type of a container in its pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// Runs to completion before the next container starts.
    Init,
    /// Init container with `restartPolicy: Always`; runs beside the main containers (KEP-753).
    Sidecar,
    /// One of `spec.containers`.
    Main,
    /// Added to the pod to look into it; started once.
    Ephemeral,
}

impl Role {
    /// Whether it is one of `spec.initContainers`.
    pub(super) fn is_init(self) -> bool {
        match self {
            Role::Init | Role::Sidecar => true,
            Role::Main | Role::Ephemeral => false,
        }
    }
}

/// A terminated run of a container.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Exit {
    pub(super) id: Option<ContainerId>,
    pub(super) code: i32,
    pub(super) reason: Rc<str>,
    pub(super) message: Rc<str>,
    pub(super) started_at: Option<Wall>,
    pub(super) finished_at: Wall,
    /// When the agent learned of it.
    pub(super) seen: Mono,
    /// It was in a sandbox that no longer exists.
    pub(super) stale: bool,
}

/// The lifecycle state of a container.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Life {
    /// Not created.
    Waiting,
    /// Waits for its image.
    Pulling,
    /// Is being created.
    Creating,
    /// Is being started, or its postStart hook is running.
    Starting(ContainerId),
    /// Is running, since this time.
    Running(ContainerId, Wall),
    /// Has terminated.
    Exited(Box<Exit>),
}

/// How far the stop of a running container has got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    /// Is not being stopped.
    No,
    /// Its preStop hook is running; the grace period ends at this time.
    Hook(Mono),
    /// It waits for containers that must stop first; the grace period ends at this time.
    Turn(Mono),
    /// The stop command is in flight.
    Told,
    /// The runtime has stopped it; its exit event is expected before this time.
    Stopped(Mono),
    /// The runtime failed to stop it; the stop is retried at this time.
    Again(Mono),
}

/// Why a container is waiting.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Waiting {
    pub(super) reason: Rc<str>,
    pub(super) message: String,
}

/// One container of a pod.
#[derive(Clone, Debug)]
pub(super) struct Container {
    pub(super) name: Rc<str>,
    pub(super) role: Role,
    /// Index in `init_containers` or `containers`.
    pub(super) index: u16,
    /// Its spec, if it is ephemeral. That never changes.
    pub(super) ephemeral: Option<Rc<Ephemeral>>,
    /// How many times it was created; `restartCount` is one less.
    pub(super) runs: u32,
    pub(super) life: Life,
    /// Id of the image of its newest run; empty if that is the image's name.
    pub(super) image_id: Rc<str>,
    pub(super) last: Option<Box<Exit>>,
    pub(super) waiting: Option<Box<Waiting>>,
    pub(super) crash: Backoff,
    pub(super) pull: Backoff,
    /// It must not be started before this time.
    pub(super) retry_at: Option<Mono>,
    pub(super) stop: Stop,
    /// It must be restarted whatever the restart policy is, because its spec changed.
    pub(super) force_restart: bool,
    /// The startup probe (if any) and the postStart hook (if any) have succeeded.
    pub(super) started: bool,
    /// The readiness probe (if any) has succeeded.
    pub(super) ready: bool,
    pub(super) probes: Option<Box<Probes>>,
}

impl Container {
    pub(super) fn new(name: &str, role: Role, index: usize) -> Container {
        Container {
            name: Rc::from(name),
            role,
            index: index as u16,
            ephemeral: None,
            runs: 0,
            life: Life::Waiting,
            image_id: Rc::default(),
            last: None,
            waiting: None,
            crash: Backoff::default(),
            pull: Backoff::default(),
            retry_at: None,
            stop: Stop::No,
            force_restart: false,
            started: false,
            ready: false,
            probes: None,
        }
    }

    /// Its id while it is up; `None` otherwise.
    pub(super) fn id(&self) -> Option<&ContainerId> {
        match &self.life {
            Life::Starting(id) | Life::Running(id, _) => Some(id),
            Life::Waiting | Life::Pulling | Life::Creating | Life::Exited(_) => None,
        }
    }

    /// Whether processes of it may be running.
    pub(super) fn is_up(&self) -> bool {
        self.id().is_some()
    }

    /// The last run, if it has terminated and no other has been started.
    pub(super) fn exit(&self) -> Option<&Exit> {
        match &self.life {
            Life::Exited(e) => Some(e),
            Life::Waiting | Life::Pulling | Life::Creating | Life::Starting(_) | Life::Running(..) => None,
        }
    }

    /// Sets why the container waits; returns whether that changed.
    pub(super) fn wait_for(&mut self, reason: &str, message: String) -> bool {
        if self.waiting.as_ref().is_some_and(|w| &*w.reason == reason && w.message == message) {
            return false;
        }
        self.waiting = Some(Box::new(Waiting { reason: Rc::from(reason), message }));
        true
    }
}

/// Spec of a container; `None` if the pod's known spec does not have it.
pub(super) fn container_spec<'a>(pod: &'a Pod, c: &'a Container) -> Option<&'a core_v1::Container> {
    match c.role {
        Role::Main => pod.spec.containers.get(usize::from(c.index)),
        Role::Init | Role::Sidecar => pod.spec.init_containers.as_ref()?.get(usize::from(c.index)),
        Role::Ephemeral => c.ephemeral.as_ref().map(|e| &*e.spec),
    }
}

/// A pod's sandbox, and those that earlier attempts have left.
#[derive(Debug, Default)]
pub(super) struct Sandbox {
    pub(super) id: Option<SandboxId>,
    pub(super) life: SandboxLife,
    /// When to retry after a failure; nothing is done with the sandbox before.
    pub(super) retry: Option<Mono>,
    /// The pod's address.
    pub(super) ip: Option<Rc<str>>,
    /// Leftover sandboxes of earlier attempts that must be removed: id, and whether it is stopped.
    pub(super) strays: Vec<(SandboxId, bool)>,
}

/// The lifecycle state of the sandbox.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum SandboxLife {
    /// There is none.
    #[default]
    None,
    /// It is being created.
    Creating,
    /// It is running.
    Ready,
    /// It has died and must be removed.
    Dead,
    /// It is being stopped.
    Stopping,
    /// It has stopped.
    Stopped,
    /// It is being removed.
    Removing,
}

/// The purpose of a command in flight.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum What {
    RunSandbox,
    StopSandbox,
    RemoveSandbox,
    StopStray(SandboxId),
    RemoveStray(SandboxId),
    Create(u16),
    Start(u16),
    PostStart(u16),
    PreStop(u16),
    Stop(u16),
    Probe(u16, ProbeKind),
    RemoveContainer,
    /// Gives a container these resources.
    Update(u16, Rc<core_v1::ResourceRequirements>),
    Mount,
    Unmount,
}

/// A command in flight.
#[derive(Clone, Debug)]
pub(super) struct Op {
    pub(super) id: OpId,
    pub(super) what: What,
    pub(super) deadline: Mono,
}

/// Why a pod must stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StopReason {
    /// Its containers have completed.
    Completed,
    /// It was rejected on admission.
    Rejected,
    /// It was evicted.
    Evicted,
    /// `activeDeadlineSeconds` has passed.
    DeadlineExceeded,
    /// It is being deleted.
    Deleted,
    /// It does not exist in the API.
    Removed,
}

/// The state of a pod's stop.
#[derive(Clone, Copy, Debug)]
pub(super) struct PodStop {
    pub(super) reason: StopReason,
    /// When the grace period ends.
    pub(super) until: Mono,
}

/// Why a pod ends, and how far that has got.
#[derive(Debug, Default)]
pub(super) struct Ending {
    pub(super) stop: Option<PodStop>,
    /// Stopped for good: nothing will run again.
    pub(super) finished: bool,
    /// The `deletionGracePeriodSeconds` that the stop uses.
    pub(super) deletion_grace: Option<i64>,
    /// When `activeDeadlineSeconds` passes.
    pub(super) active_until: Option<Mono>,
}

/// One pod on the node.
#[derive(Debug)]
pub(super) struct PodState {
    pub(super) slot: u32,
    /// The newest version of the pod that the agent has received.
    pub(super) pod: Pod,
    pub(super) uid: Rc<str>,
    /// Whether it still exists in the API.
    pub(super) in_api: bool,
    /// Whether it is in the agent's view.
    pub(super) in_view: bool,
    pub(super) admitted: bool,
    /// Why it was rejected, or evicted later.
    pub(super) rejection: Option<Box<Rejection>>,
    /// The resources that it holds on the node, while it holds any.
    pub(super) asks: Option<Box<Amounts>>,
    /// What its containers have been given, if they have ever asked for something else than at first.
    pub(super) resized: Option<Box<Resized>>,
    pub(super) sandbox: Sandbox,
    /// Init containers first, then main and ephemeral containers, in the order of the spec.
    pub(super) containers: Vec<Container>,
    /// A main container was started in this sandbox.
    pub(super) initialized: bool,
    pub(super) ops: Vec<Op>,
    pub(super) ending: Ending,
    /// Set if only the runtime knows the pod so far; nothing is done before the API has said whether the pod exists.
    pub(super) unverified: Option<Box<Found>>,
    /// Set if the API has confirmed such a pod: its state must be created anew from this pod.
    pub(super) verified: Option<Box<Pod>>,
    /// Another pod with the same name is still on the node and must be gone first.
    pub(super) has_predecessor: bool,
    /// It refers to ConfigMaps, Secrets or claims.
    pub(super) refers: bool,
    /// How often its volumes could not be mounted, and when to retry.
    pub(super) mount_failures: u32,
    pub(super) mount_retry: Option<Mono>,
    pub(super) volumes: Box<Volumes>,
    /// The outcome of a command is unknown: nothing is done before the runtime's list was read.
    pub(super) suspect: bool,
    /// Number of the last command or event that changed this state.
    pub(super) touched: u64,
    pub(super) write: StatusWrite,
    /// This pod's entry in the agent's timer table.
    pub(super) deadline: Option<(Mono, &'static str)>,
}

impl PodState {
    /// Creates the state of a pod from the API.
    pub(super) fn new(slot: u32, pod: Pod) -> PodState {
        let mut containers = Vec::with_capacity(pod.spec.containers.len());
        for (i, c) in pod.spec.init_containers.iter().flatten().enumerate() {
            let role = if c.restart_policy.as_deref() == Some("Always") { Role::Sidecar } else { Role::Init };
            containers.push(Container::new(&c.name, role, i));
        }
        for (i, c) in pod.spec.containers.iter().enumerate() {
            containers.push(Container::new(&c.name, Role::Main, i));
        }
        let mut state = PodState {
            slot,
            uid: Rc::from(pod.uid()),
            write: StatusWrite::new(&pod),
            refers: refers(&pod.spec.shared),
            mount_failures: 0,
            mount_retry: None,
            volumes: Box::default(),
            pod: pod.clone(),
            in_api: true,
            in_view: true,
            admitted: false,
            rejection: None,
            asks: None,
            resized: Resized::told(&pod),
            sandbox: Sandbox::default(),
            containers,
            initialized: false,
            ops: Vec::new(),
            ending: Ending::default(),
            unverified: None,
            verified: None,
            has_predecessor: false,
            suspect: false,
            touched: 0,
            deadline: None,
        };
        state.add_ephemeral_containers(&pod);
        state
    }

    /// Creates the state of a pod that only the runtime knows.
    pub(super) fn orphan(slot: u32, uid: &str, found: Found) -> PodState {
        let path = found.sandboxes.first().map_or(uid, |s| &*s.pod);
        let mut names: Vec<_> = found.containers.iter().map(|c| Rc::clone(&c.name)).collect();
        names.sort();
        names.dedup();
        let (namespace, name) = path.split_once('/').unwrap_or(("", path));
        let meta = ObjectMeta {
            name: Some(name.to_owned()),
            namespace: Some(namespace.to_owned()),
            uid: Some(uid.to_owned()),
            ..ObjectMeta::default()
        };
        let mut state = PodState::new(slot, Pod::new(meta, Default::default(), Default::default()));
        state.containers = names.iter().enumerate().map(|(i, n)| Container::new(n, Role::Main, i)).collect();
        state.in_view = false;
        state.write.read_again();
        state.unverified = Some(Box::new(found));
        state
    }

    /// `name_namespace(uid)`, the format of the kubelet's `format.Pod`.
    pub(super) fn format(&self) -> String {
        format!("{}_{}({})", self.pod.name(), self.pod.namespace(), self.uid)
    }

    /// Sends a command whose completion is routed to this pod.
    pub(super) fn command(
        &mut self,
        ctx: &mut Ctx<'_>,
        what: What,
        extra: Duration,
        make: impl FnOnce(OpId) -> RuntimeCommand,
    ) {
        let id = ctx.shared.op(self.slot);
        self.touched = ctx.shared.last_op;
        self.ops.push(Op { id, what, deadline: ctx.now.mono + RUNTIME_REQUEST_TIMEOUT + extra });
        ctx.out.push(Out::Runtime(make(id)));
    }

    /// Whether a command with this purpose is in flight.
    pub(super) fn has_op(&self, what: &What) -> bool {
        self.ops.iter().any(|o| o.what == *what)
    }

    /// Records an event about the pod; the message is formatted only if events are recorded.
    pub(super) fn event(&self, ctx: &mut Ctx<'_>, type_: EventType, reason: &str, message: impl FnOnce() -> String) {
        if !ctx.shared.config.record_events || !self.in_api {
            return;
        }
        let mut requests = Vec::new();
        let about = Object::Pod(self.pod.clone());
        ctx.shared.recorder.record(ctx.now, &about, type_, reason, &message(), &mut requests);
        ctx.out.extend(requests.into_iter().map(Out::Api));
    }

    /// Handles the completion of a command of this pod.
    pub(super) fn completed(&mut self, op: OpId, event: RuntimeEvent, ctx: &mut Ctx<'_>) {
        let Some(at) = self.ops.iter().position(|o| o.id == op) else {
            // The command timed out, or belonged to a pod that used this slot before. The completion of a probe or a
            // stop contains nothing that the exit event has not reported.
            ctx.shared.wants_list |= !matches!(event, RuntimeEvent::Probed { .. } | RuntimeEvent::Stopped { .. });
            return;
        };
        let what = self.ops.swap_remove(at).what;
        if !matches!(what, What::Probe(..)) {
            self.touched = ctx.shared.last_op;
        }
        match (what, event) {
            (What::RunSandbox, RuntimeEvent::SandboxRunning { result, .. }) => self.sandbox_running(result, ctx),
            (What::StopSandbox, RuntimeEvent::SandboxStopped { result, .. }) => self.sandbox_stopped(result, ctx),
            (What::RemoveSandbox, RuntimeEvent::SandboxRemoved { result, .. }) => self.sandbox_removed(result, ctx),
            (What::StopStray(id), RuntimeEvent::SandboxStopped { result, .. }) => self.stray(&id, result, false, ctx),
            (What::RemoveStray(id), RuntimeEvent::SandboxRemoved { result, .. }) => self.stray(&id, result, true, ctx),
            (What::Create(i), RuntimeEvent::Created { result, .. }) => self.created(i, result, ctx),
            (What::Start(i), RuntimeEvent::Started { result, .. }) => self.container_started(i, result, ctx),
            (What::PostStart(i), RuntimeEvent::Probed { result, .. }) => self.post_start_ended(i, result, ctx),
            (What::PreStop(i), RuntimeEvent::Probed { result, .. }) => self.pre_stop_ended(i, result, ctx),
            (What::Stop(i), RuntimeEvent::Stopped { result, .. }) => self.stop_ended(i, result, ctx),
            (What::Probe(i, kind), RuntimeEvent::Probed { result, .. }) => self.probed(i, kind, result, ctx),
            (What::Update(i, given), RuntimeEvent::Updated { result, .. }) => self.updated(i, &given, result, ctx),
            (What::Mount, RuntimeEvent::Mounted { result, .. }) => self.mounted(result, ctx),
            (What::Unmount, RuntimeEvent::Unmounted { result, .. }) => self.unmounted(result, ctx),
            // A dead container that could not be removed is removed together with its sandbox.
            (What::RemoveContainer, RuntimeEvent::Removed { .. }) => {}
            // The reply does not match the command: the list must be read.
            (
                What::RunSandbox
                | What::StopSandbox
                | What::RemoveSandbox
                | What::StopStray(_)
                | What::RemoveStray(_)
                | What::Create(_)
                | What::Start(_)
                | What::PostStart(_)
                | What::PreStop(_)
                | What::Stop(_)
                | What::Probe(..)
                | What::Mount
                | What::Unmount
                | What::Update(..)
                | What::RemoveContainer,
                _,
            ) => self.doubt(ctx),
        }
    }

    /// Handles a command with an unknown outcome.
    pub(super) fn doubt(&mut self, ctx: &mut Ctx<'_>) {
        self.suspect = true;
        ctx.shared.wants_list = true;
    }

    fn sandbox_running(&mut self, result: Result<SandboxInfo, RuntimeError>, ctx: &mut Ctx<'_>) {
        match result {
            Ok(info) => {
                self.sandbox.ip = self.address(&info, ctx.shared);
                self.sandbox.id = Some(info.id);
                self.sandbox.life = SandboxLife::Ready;
            }
            Err(e) => {
                self.sandbox.life = SandboxLife::None;
                self.sandbox.retry = Some(ctx.now.mono + ctx.shared.rng.jitter(CONTAINER_BACKOFF_BASE, 50));
                self.event(ctx, EventType::Warning, "FailedCreatePodSandBox", || {
                    format!("Failed to create pod sandbox: {}", e.message)
                });
            }
        }
    }

    /// The pod's address: its sandbox's, or the node's if it uses the host network.
    pub(super) fn address(&self, sandbox: &SandboxInfo, shared: &Shared) -> Option<Rc<str>> {
        let on_host = self.pod.spec.host_network == Some(true);
        let ip = if on_host { &shared.config.host_ip } else { &sandbox.ip };
        (!ip.is_empty()).then(|| Rc::clone(ip))
    }

    fn sandbox_stopped(&mut self, result: Result<(), RuntimeError>, ctx: &mut Ctx<'_>) {
        match result {
            Ok(()) => self.sandbox.life = SandboxLife::Stopped,
            Err(e) => {
                self.sandbox.life = SandboxLife::Dead;
                self.sandbox.retry = Some(ctx.now.mono + ctx.shared.rng.jitter(CONTAINER_BACKOFF_BASE, 50));
                self.event(ctx, EventType::Warning, "FailedKillPod", || format!("error killing pod: {}", e.message));
                self.doubt(ctx);
            }
        }
    }

    fn sandbox_removed(&mut self, result: Result<(), RuntimeError>, ctx: &mut Ctx<'_>) {
        match result {
            Ok(()) => self.forget_sandbox(ctx),
            Err(_) => {
                // It stays stopped, and removing it is retried later; if it is gone already, the list shows that.
                self.sandbox.life = SandboxLife::Stopped;
                self.sandbox.retry = Some(ctx.now.mono + ctx.shared.rng.jitter(CONTAINER_BACKOFF_BASE, 50));
                self.doubt(ctx);
            }
        }
    }

    /// Handles that the sandbox and its containers no longer exist.
    pub(super) fn forget_sandbox(&mut self, ctx: &mut Ctx<'_>) {
        self.sandbox.id = None;
        self.sandbox.ip = None;
        self.sandbox.life = SandboxLife::None;
        self.sandbox.retry = None;
        self.initialized &= self.ending.finished;
        self.lose_containers(ctx);
    }

    /// Marks all containers of the sandbox as no longer running.
    pub(super) fn lose_containers(&mut self, ctx: &mut Ctx<'_>) {
        for i in 0..self.containers.len() {
            if let Some(id) = self.containers[i].id().cloned() {
                self.exited(i, unknown_exit(Some(id), &self.containers[i], ctx.now), ctx);
            }
            let finished = self.ending.finished;
            match &mut self.containers[i].life {
                Life::Exited(e) => e.stale |= !finished,
                life @ (Life::Creating | Life::Starting(_)) => *life = Life::Waiting,
                Life::Waiting | Life::Pulling | Life::Running(..) => {}
            }
        }
    }

    /// Handles that the sandbox has died by itself.
    pub(super) fn sandbox_gone(&mut self, ctx: &mut Ctx<'_>) {
        if self.sandbox.life != SandboxLife::Ready {
            return;
        }
        self.touched = ctx.shared.last_op;
        self.sandbox.life = SandboxLife::Dead;
        self.initialized = false;
        self.lose_containers(ctx);
        self.write.dirty = true;
        if self.ending.stop.is_none() {
            self.event(ctx, EventType::Normal, "SandboxChanged", || {
                "Pod sandbox changed, it will be killed and re-created.".to_owned()
            });
        }
    }

    fn stray(&mut self, id: &SandboxId, result: Result<(), RuntimeError>, removed: bool, ctx: &mut Ctx<'_>) {
        match (result, removed) {
            (Ok(()), true) => self.sandbox.strays.retain(|(s, _)| s != id),
            (Ok(()), false) => self.sandbox.strays.iter_mut().filter(|(s, _)| s == id).for_each(|s| s.1 = true),
            (Err(_), _) => {
                self.sandbox.retry = Some(ctx.now.mono + ctx.shared.rng.jitter(CONTAINER_BACKOFF_BASE, 50));
                self.doubt(ctx);
            }
        }
    }

    /// Handles the completion of an image pull that a container waited for.
    pub(super) fn pulled(&mut self, i: u16, since: Mono, result: &Result<ImageInfo, RuntimeError>, ctx: &mut Ctx<'_>) {
        let i = usize::from(i);
        if self.containers.get(i).is_none_or(|c| c.life != Life::Pulling) {
            return;
        }
        self.touched = ctx.shared.last_op;
        match result {
            Ok(info) => {
                let took = go_duration(ctx.now.mono.since(since));
                self.event(ctx, EventType::Normal, "Pulled", || {
                    format!(
                        "Successfully pulled image {:?} in {took} ({took} including waiting). Image size: {} bytes.",
                        info.image, info.bytes
                    )
                });
                self.containers[i].pull.reset();
                self.containers[i].life = Life::Waiting;
                self.create(i, ctx);
            }
            Err(e) => self.pull_failed(i, e, ctx),
        }
    }

    fn pull_failed(&mut self, i: usize, e: &RuntimeError, ctx: &mut Ctx<'_>) {
        let image = self.image(i);
        let c = &mut self.containers[i];
        c.life = Life::Waiting;
        let delay = c.pull.next(ctx.now.mono, ctx.now.mono);
        // As in the kubelet's next sync of the pod: the reason then changes to ImagePullBackOff if the container still
        // waits.
        c.retry_at = Some(ctx.now.mono + delay.min(CONTAINER_BACKOFF_BASE));
        let reason = if e.reason.is_empty() { "ErrImagePull" } else { &e.reason };
        self.write.dirty |= c.wait_for(reason, e.message.to_string());
        self.event(ctx, EventType::Warning, "Failed", || format!("Failed to pull image {image:?}: {}", e.message));
        self.event(ctx, EventType::Warning, "Failed", || format!("Error: {reason}"));
    }

    /// The image in a container's spec.
    pub(super) fn image(&self, i: usize) -> String {
        container_spec(&self.pod, &self.containers[i]).and_then(|c| c.image.clone()).unwrap_or_default()
    }

    fn created(&mut self, i: u16, result: Result<CreatedContainer, RuntimeError>, ctx: &mut Ctx<'_>) {
        let i = usize::from(i);
        let name = Rc::clone(&self.containers[i].name);
        match result {
            Ok(CreatedContainer { id, image_id }) => {
                self.event(ctx, EventType::Normal, "Created", || format!("Created container: {name}"));
                ctx.shared.containers.insert(id.clone(), (self.slot, i as u16));
                let c = &mut self.containers[i];
                c.runs += 1;
                c.image_id = image_id;
                c.life = Life::Starting(id.clone());
                self.initialized |= c.role == Role::Main;
                if self.ending.stop.is_some() {
                    // It was never started, so it need not be stopped; it is removed with the sandbox.
                    self.drop_container(i, ctx);
                    return;
                }
                self.command(ctx, What::Start(i as u16), Duration::ZERO, |op| RuntimeCommand::StartContainer {
                    op,
                    container: id,
                });
            }
            Err(e) => self.start_failed(i, "CreateContainerError", &e, ctx),
        }
    }

    /// Discards a container that was created and is not running.
    pub(super) fn drop_container(&mut self, i: usize, ctx: &mut Ctx<'_>) {
        if let Some(id) = self.containers[i].id().cloned() {
            ctx.shared.containers.remove(&id);
            self.containers[i].life = Life::Waiting;
            self.remove_container(id, ctx);
        }
    }

    fn remove_container(&mut self, container: ContainerId, ctx: &mut Ctx<'_>) {
        self.command(ctx, What::RemoveContainer, Duration::ZERO, |op| RuntimeCommand::RemoveContainer {
            op,
            container,
        });
    }

    fn start_failed(&mut self, i: usize, reason: &str, e: &RuntimeError, ctx: &mut Ctx<'_>) {
        let reason = if e.reason.is_empty() { reason } else { &*e.reason };
        let c = &mut self.containers[i];
        c.life = Life::Waiting;
        let delay = c.crash.next(ctx.now.mono, ctx.now.mono);
        c.retry_at = Some(ctx.now.mono + delay);
        self.write.dirty |= c.wait_for(reason, e.message.to_string());
        self.event(ctx, EventType::Warning, "Failed", || format!("Error: {}", e.message));
        // The sandbox may have died, and the event of its death may have arrived first.
        self.doubt(ctx);
    }

    fn container_started(&mut self, i: u16, result: Result<(), RuntimeError>, ctx: &mut Ctx<'_>) {
        let i = usize::from(i);
        // It may have exited already, and the exit event was handled. What could not be started has exited too.
        if !matches!(self.containers[i].life, Life::Starting(_)) {
            if let Err(e) = result {
                self.event(ctx, EventType::Warning, "Failed", || format!("Error: {}", e.message));
            }
            return;
        }
        match result {
            Ok(()) => {
                let name = Rc::clone(&self.containers[i].name);
                self.event(ctx, EventType::Normal, "Started", || format!("Started container {name}"));
                self.run_post_start(i, ctx);
            }
            // It is not tried again, so this was its end.
            Err(e) if self.containers[i].role == Role::Ephemeral => {
                self.event(ctx, EventType::Warning, "Failed", || format!("Error: {}", e.message));
                let id = self.containers[i].id().cloned();
                self.exited(i, never_started(id, &e, ctx.now), ctx);
            }
            Err(e) => {
                self.drop_container(i, ctx);
                self.start_failed(i, "RunContainerError", &e, ctx);
            }
        }
    }

    /// Handles that a container is running: starts its probes and records the event.
    pub(super) fn now_running(&mut self, i: usize, started_at: Wall, ctx: &mut Ctx<'_>) {
        let stopping = self.ending.stop.is_some();
        let c = &mut self.containers[i];
        let Some(id) = c.id().cloned() else { return };
        c.life = Life::Running(id, started_at);
        c.waiting = None;
        c.retry_at = None;
        c.force_restart = false;
        self.write.dirty = true;
        let spec = container_spec(&self.pod, &self.containers[i]);
        let probes = spec.and_then(|s| Probes::new(s, ctx.now.mono, stopping));
        let c = &mut self.containers[i];
        c.started = probes.as_ref().is_none_or(|p| !p.has(ProbeKind::Startup));
        c.ready = c.started && probes.as_ref().is_none_or(|p| !p.has(ProbeKind::Readiness));
        c.probes = probes.map(Box::new);
    }

    /// Handles an exit event from the runtime.
    pub(super) fn runtime_exit(&mut self, i: usize, id: &ContainerId, state: ContainerState, ctx: &mut Ctx<'_>) {
        if self.containers.get(i).and_then(Container::id) != Some(id) {
            return;
        }
        self.touched = ctx.shared.last_op;
        match exit_of(id, state, ctx.now.mono) {
            Some(exit) => self.exited(i, exit, ctx),
            None => self.doubt(ctx),
        }
    }

    /// Handles the end of a container's run.
    pub(super) fn exited(&mut self, i: usize, exit: Exit, ctx: &mut Ctx<'_>) {
        let index = i as u16;
        self.ops.retain(|o| match o.what {
            What::Probe(j, _) | What::PreStop(j) | What::PostStart(j) | What::Stop(j) | What::Update(j, _) => {
                j != index
            }
            What::RunSandbox
            | What::StopSandbox
            | What::RemoveSandbox
            | What::StopStray(_)
            | What::RemoveStray(_)
            | What::Create(_)
            | What::Start(_)
            | What::Mount
            | What::Unmount
            | What::RemoveContainer => true,
        });
        let c = &mut self.containers[i];
        if let Some(id) = c.id() {
            ctx.shared.containers.remove(id);
        }
        // One dead container is kept for its logs, as with the kubelet's `MaxPerPodContainerCount`.
        let older = c.last.as_mut().and_then(|l| l.id.take());
        c.life = Life::Exited(Box::new(exit));
        c.stop = Stop::No;
        (c.started, c.ready) = (false, false);
        c.probes = None;
        c.waiting = None;
        c.retry_at = None;
        // A terminating pod reports its containers' exits together, as in the kubelet's `SyncTerminatingPod`.
        self.write.dirty |= self.ending.stop.is_none();
        if let Some(id) = older.filter(|_| self.sandbox.life == SandboxLife::Ready) {
            self.remove_container(id, ctx);
        }
    }
}

/// How a run ended according to the runtime; `None` if it has not ended.
pub(super) fn exit_of(id: &ContainerId, state: ContainerState, seen: Mono) -> Option<Exit> {
    match state {
        ContainerState::Exited { exit_code, reason, message, started_at, finished_at } => Some(Exit {
            id: Some(id.clone()),
            code: exit_code,
            reason,
            message,
            started_at: Some(started_at),
            finished_at,
            seen,
            stale: false,
        }),
        ContainerState::Created | ContainerState::Running { .. } => None,
    }
}

/// The exit of a container that could not be started, as containerd reports it.
fn never_started(id: Option<ContainerId>, e: &RuntimeError, now: Now) -> Exit {
    Exit {
        id,
        code: 128,
        reason: Rc::from("StartError"),
        message: Rc::clone(&e.message),
        started_at: None,
        finished_at: now.wall,
        seen: now.mono,
        stale: false,
    }
}

/// The exit of a run whose end was not observed.
pub(super) fn unknown_exit(id: Option<ContainerId>, c: &Container, now: Now) -> Exit {
    let started_at = match &c.life {
        Life::Running(_, at) => Some(*at),
        Life::Waiting | Life::Pulling | Life::Creating | Life::Starting(_) | Life::Exited(_) => None,
    };
    Exit {
        id,
        code: 137,
        reason: Rc::from("ContainerStatusUnknown"),
        message: Rc::from(
            "The container could not be located when the pod was deleted.  The container used to be Running",
        ),
        started_at,
        finished_at: now.wall,
        seen: now.mono,
        stale: false,
    }
}
