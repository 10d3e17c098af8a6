//! The node agent machine: Kubernetes' kubelet, as decisions over a container-runtime port.
//!
//! What comes in: the API server's replies and watch events, the container runtime's completions and events. What goes
//! out: requests to the API server, commands to the runtime. Never starts a container before the runtime has listed
//! what is already running. Never kills a pod as unknown before the view of the API is complete. Never leaves a pod's
//! terminal phase.
//!
//! Files: `node` and `lease` maintain the Node and its heartbeat; `pods` is the table of pods; `pod` applies the
//! runtime's replies to one pod, `sync` decides the next step, `lifecycle` terminates containers and pods, `probe` and
//! `images` handle probes and images, `image_collection` removes images that nothing uses, `pressure` says which pod
//! goes when the node is short of something and `eviction` when that is looked at, `ephemeral` adds containers to a
//! pod that runs, `references` reads what pods refer to, `attachments` knows which volumes the node uses,
//! `environment`, `volumes` and `services` make of it what real containers get, `adopt` reconstructs a pod from the
//! runtime's list; `status` makes a pod's status and `write` sends it to the API.

mod admission;
mod adopt;
mod attachments;
mod backoff;
mod directories;
mod environment;
mod ephemeral;
mod eviction;
mod image_collection;
mod images;
mod lease;
mod lifecycle;
mod node;
mod pod;
mod pods;
mod pressure;
mod probe;
mod read_ahead;
mod references;
mod resize;
mod runtime;
mod services;
mod status;
mod sync;
#[cfg(test)]
mod tests;
mod volumes;
mod write;

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use k8s_openapi::api::core::v1 as core_v1;
use serde::{Deserialize, Serialize};

use crate::api::{FromServer, ReqId, ReqIds, Response, Status, ToServer, WatchEvent};
use crate::client::{EventType, Informer, InformerConfig, Recorder, View};
use crate::limits::{NODE_STATUS_MAX_IMAGES, RUNTIME_RELIST_INTERVAL};
use crate::machine::{Deadline, Machine, Mono, Now};
use crate::object::{FieldSelector, Kind, Object, ObjectKey, Selector};
use crate::random::Rng;

use admission::Room;
use directories::Directories;
pub use environment::expand;
use eviction::{Act, Evictor};
use image_collection::ImageCollector;
pub use image_collection::ImagePolicy;
use images::Images;
use lease::{Heartbeat, NodeLease};
use node::{Facts, NodeKeeper};
use pod::Shared;
use pods::Pods;
use pressure::{Eviction, Pressure, Signal};
pub use pressure::{EvictionPolicy, Limit, Threshold};
use references::References;
pub use runtime::{
    ContainerId, ContainerInfo, ContainerSpec, ContainerState, ContainerStats, ContainerUse, CreatedContainer, DiskUse,
    FileContent, HOOK_FELL_BACK, ImageDisk, ImageInfo, Mount, NodeUse, OpId, PROBE_ERRORED, PodUse, PodVolume,
    PodVolumes, ProbeAction, PullSecret, Resolved, RuntimeCommand, RuntimeError, RuntimeEvent, SandboxId, SandboxInfo,
    StoredImage, Supply, VolumeContent, VolumeFile,
};
use services::Services;

/// Parts of the agent as an API client; replies are routed by them.
const INFORMER: u16 = 1;
const NODE: u16 = 2;
const PODS: u16 = 3;
const RECORDER: u16 = 4;
const LEASE: u16 = 5;
const NODE_INFORMER: u16 = 6;
const REFERENCES: u16 = 7;
const SERVICES: u16 = 8;
const VOLUMES: u16 = 9;
const DIRECTORIES: u16 = 10;

/// How a node registers and reports itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AgentConfig {
    /// Name of the Node.
    pub node_name: Rc<str>,
    /// Labels in addition to the kubelet's own (host name, os, arch): zone, region, pool, …
    pub labels: BTreeMap<String, String>,
    /// Taints that the Node is registered with; see [`AgentConfig::parse_taint`].
    pub taints: Vec<core_v1::Taint>,
    /// Whether the Node is registered as schedulable (`registerSchedulable`); if not, it is registered as cordoned.
    pub register_schedulable: bool,
    /// Capacity by resource, as quantities. `pods` defaults to 110.
    pub capacity: BTreeMap<String, String>,
    /// The part of the capacity that is reserved for the system and therefore not allocatable.
    pub reserved: BTreeMap<String, String>,
    /// Address of the node.
    pub host_ip: Rc<str>,
    /// `spec.providerID`.
    pub provider_id: Option<Rc<str>>,
    /// Whether Events are recorded.
    pub record_events: bool,
    /// Most images that the Node's status lists; zero means none.
    pub status_max_images: usize,
    /// Interval at which the runtime's list is read as a check; zero means never.
    pub relist_interval: Duration,
    /// `kubernetes.io/os`.
    pub os: Rc<str>,
    /// `kubernetes.io/arch`.
    pub arch: Rc<str>,
    /// `status.nodeInfo.osImage`.
    pub os_image: Rc<str>,
    /// `status.nodeInfo.kernelVersion`.
    pub kernel_version: Rc<str>,
    /// `status.nodeInfo.containerRuntimeVersion`, `name://version`; the name is also the scheme of container ids.
    pub runtime_version: Rc<str>,
    /// Whether the runtime runs real containers: the agent then works out environments, mounts and volumes, and
    /// watches Services for that. A simulated runtime needs none of it.
    pub resolve: bool,
    /// Whether pods get the cluster's DNS server (`clusterDNS`). If not, those that ask for it get a warning.
    pub cluster_dns: bool,
    /// When images that nothing uses are removed; `None`: never.
    #[serde(default)]
    pub images: Option<ImagePolicy>,
    /// When pods are evicted; `None`: never, and no limit of what they hold on the disk counts.
    #[serde(default)]
    pub eviction: Option<EvictionPolicy>,
}

impl Default for AgentConfig {
    fn default() -> AgentConfig {
        AgentConfig {
            node_name: Rc::from("node"),
            labels: BTreeMap::new(),
            taints: Vec::new(),
            register_schedulable: true,
            capacity: BTreeMap::new(),
            reserved: BTreeMap::new(),
            host_ip: Rc::from("127.0.0.1"),
            provider_id: None,
            record_events: true,
            status_max_images: NODE_STATUS_MAX_IMAGES,
            relist_interval: RUNTIME_RELIST_INTERVAL,
            os: Rc::from("linux"),
            arch: Rc::from("amd64"),
            os_image: Rc::from("Skeg"),
            kernel_version: Rc::from("6.12.0"),
            runtime_version: Rc::from("containerd://2.1.0"),
            resolve: false,
            cluster_dns: false,
            images: None,
            eviction: None,
        }
    }
}

impl AgentConfig {
    /// Parses `key=value:Effect` or `key:Effect`, the format of kubectl and `--register-with-taints`.
    pub fn parse_taint(text: &str) -> Result<core_v1::Taint, String> {
        let invalid = |why: &str| format!("invalid taint spec: {text}, {why}");
        let (name, effect) = text.rsplit_once(':').ok_or_else(|| invalid("expected key=value:effect"))?;
        if !matches!(effect, "NoSchedule" | "PreferNoSchedule" | "NoExecute") {
            return Err(invalid("unsupported taint effect"));
        }
        let (key, value) = name.split_once('=').map_or((name, None), |(k, v)| (k, Some(v)));
        if key.is_empty() {
            return Err(invalid("the key must not be empty"));
        }
        Ok(core_v1::Taint {
            key: key.to_owned(),
            value: value.filter(|v| !v.is_empty()).map(str::to_owned),
            effect: effect.to_owned(),
            time_added: None,
        })
    }
}

/// Inputs of the agent.
#[derive(Debug, Serialize, Deserialize)]
pub enum In {
    /// From the API server.
    Api(FromServer),
    /// From the container runtime.
    Runtime(RuntimeEvent),
}

/// Outputs of the agent.
#[derive(Debug, Serialize, Deserialize)]
pub enum Out {
    /// To the API server.
    Api(ToServer),
    /// To the container runtime.
    Runtime(RuntimeCommand),
}

/// The agent of one node. See the module's documentation for the contract.
///
/// The fields that a heartbeat touches come first and together. Heartbeats are most of what an idle agent does, and
/// with thousands of agents taking turns, these fields are fetched from main memory every time.
#[derive(Debug)]
#[repr(C)]
pub struct NodeAgent {
    lease: NodeLease,
    /// The earliest deadline of everything except the Lease.
    others: Option<Deadline>,
    rng: Rng,
    begun: bool,
    max_images: usize,
    node: NodeKeeper,
    informer: Informer,
    view: View,
    /// Watches the agent's own Node, so that changes by others are seen immediately.
    own: Box<OwnNode>,
    pods: Pods,
}

/// The Node of an agent, as it is watched.
#[derive(Debug)]
struct OwnNode {
    informer: Informer,
    view: View,
    /// The volumes that are directories of it, if it is a real one.
    directories: Option<Directories>,
    /// Removes images, if it is to.
    collector: Option<ImageCollector>,
    /// Evicts pods, if it is to.
    evictor: Option<Evictor>,
}

/// A separate random stream for a part of the agent.
fn fork(rng: &mut Rng) -> Rng {
    Rng::from_seed(rng.next_u64())
}

fn is_due(deadline: Option<Deadline>, now: Now) -> bool {
    deadline.is_some_and(|d| d.at <= now.mono)
}

impl NodeAgent {
    /// Creates an agent that has no state yet.
    pub fn new(config: AgentConfig, mut rng: Rng) -> NodeAgent {
        let config = Rc::new(config);
        let name = Rc::clone(&config.node_name);
        let user: Rc<str> = Rc::from(format!("system:node:{name}"));
        let informer = Informer::new(
            InformerConfig {
                kind: Kind::POD,
                namespace: Rc::from(""),
                labels: Selector::everything(),
                fields: FieldSelector::equal("spec.nodeName", &name),
                user: Rc::clone(&user),
            },
            INFORMER,
            fork(&mut rng),
        );
        let own = Informer::new(
            InformerConfig {
                kind: Kind::NODE,
                namespace: Rc::from(""),
                labels: Selector::everything(),
                fields: FieldSelector::equal("metadata.name", &name),
                user: Rc::clone(&user),
            },
            NODE_INFORMER,
            fork(&mut rng),
        );
        let scheme = config.runtime_version.split_once("://").map_or("containerd", |(scheme, _)| scheme);
        let shared = Shared {
            runtime_name: Rc::from(scheme),
            user: Rc::clone(&user),
            recorder: Recorder::new(
                Rc::from("kubelet"),
                Rc::clone(&name),
                config.record_events,
                RECORDER,
                fork(&mut rng),
            ),
            rng: fork(&mut rng),
            ids: ReqIds::new(PODS),
            requests: BTreeMap::new(),
            images: Images::default(),
            references: Box::new(References::new(Rc::clone(&user), REFERENCES, config.resolve)),
            attachments: Box::default(),
            services: config.resolve.then(|| Box::new(Services::new(Rc::clone(&user), SERVICES, fork(&mut rng)))),
            room: Room::new(&config.allocatable()),
            node_meta: None,
            config: Rc::clone(&config),
            containers: BTreeMap::new(),
            last_op: 0,
            wants_list: false,
            adopting: false,
            pressure: Pressure::default(),
        };
        let directories =
            config.resolve.then(|| Directories::new(&name, &user, (VOLUMES, DIRECTORIES), fork(&mut rng)));
        let collector = config.images.map(ImageCollector::new);
        let evictor = config.eviction.clone().map(Evictor::new);
        NodeAgent {
            informer,
            view: View::new(Kind::POD, &[]),
            own: Box::new(OwnNode { informer: own, view: View::new(Kind::NODE, &[]), directories, collector, evictor }),
            lease: NodeLease::new(name, Rc::clone(&user), LEASE),
            pods: Pods::new(shared, config.relist_interval),
            rng: fork(&mut rng),
            begun: false,
            max_images: config.status_max_images,
            others: Some(Deadline { at: Mono::ZERO, why: "start the agent" }),
            node: NodeKeeper::new(config, user, NODE),
        }
    }

    /// How many pods the agent manages, including terminating ones.
    pub fn pods(&self) -> usize {
        self.pods.len()
    }

    /// Its views of its pods and of its own Node, for observers.
    pub fn views(&self) -> [&View; 2] {
        [&self.view, &self.own.view]
    }

    /// The key of the Lease that the next heartbeat will renew.
    #[inline]
    pub fn lease_key(&self) -> Option<&ObjectKey> {
        self.lease.key()
    }

    fn handle_api(&mut self, now: Now, message: FromServer, out: &mut Vec<Out>) {
        match message {
            FromServer::Reply(id, result) => match id.part() {
                NODE => self.node_replied(now, id, result, out),
                PODS => self.pods.replied(now, id, result, out),
                REFERENCES => self.pods.reference_replied(now, id, result, out),
                RECORDER => self.tell_recorder(now, &FromServer::Reply(id, result), out),
                SERVICES => self.pods.tell_services(now, &FromServer::Reply(id, result), out),
                NODE_INFORMER => self.tell_own_informer(now, &FromServer::Reply(id, result), out),
                VOLUMES => self.tell_directories(now, &FromServer::Reply(id, result), out),
                DIRECTORIES => {
                    let (directories, recorder) = (&mut self.own.directories, &mut self.pods.shared.recorder);
                    directories.iter_mut().for_each(|d| d.replied(now, id, &result, recorder, out));
                }
                _ => self.tell_informer(now, &FromServer::Reply(id, result), out),
            },
            FromServer::Watch(id, _) if id.part() == NODE_INFORMER => self.tell_own_informer(now, &message, out),
            FromServer::Watch(id, _) if id.part() == SERVICES => self.pods.tell_services(now, &message, out),
            FromServer::Watch(id, _) if id.part() == VOLUMES => self.tell_directories(now, &message, out),
            FromServer::Watch(..) => self.tell_informer(now, &message, out),
            FromServer::Disconnected => {
                self.tell_informer(now, &message, out);
                self.tell_own_informer(now, &message, out);
                self.tell_recorder(now, &message, out);
                self.pods.tell_services(now, &message, out);
                self.tell_directories(now, &message, out);
                self.own.directories.iter_mut().for_each(|directories| directories.disconnected(now));
                self.node.disconnected(now, &mut self.rng);
                self.lease.disconnected(now, &mut self.rng);
                self.pods.disconnected(now, out);
            }
        }
    }

    /// Handles a bookmark, which only advances the view's revision: there are no changes, and no deadline moves.
    #[inline(always)]
    fn bookmark(&mut self, now: Now, id: ReqId, message: &FromServer) {
        let (mut requests, mut changes) = (Vec::new(), Vec::new());
        let own = &mut *self.own;
        let (informer, view) = match id.part() {
            NODE_INFORMER => (&mut own.informer, &mut own.view),
            _ => (&mut self.informer, &mut self.view),
        };
        informer.handle(now, message, view, &mut requests, &mut changes);
        assert!(requests.is_empty() && changes.is_empty(), "a bookmark is no news");
    }

    #[inline(always)]
    fn lease_replied(&mut self, now: Now, id: ReqId, result: Result<Response, Status>, out: &mut Vec<Out>) {
        let check = self.lease.replied(now, id, result, &mut self.rng) == Heartbeat::Check;
        if check {
            self.node.check(now);
        }
        if check || is_due(self.others, now) {
            self.beat(now, out);
            self.others = self.deadline_of_others();
        } else {
            self.renew(now, out);
        }
    }

    fn node_replied(&mut self, now: Now, id: ReqId, result: Result<Response, Status>, out: &mut Vec<Out>) {
        if self.node.replied(now, id, result, &mut self.rng) {
            self.lease.begin(now);
        }
        self.see_own_node(now);
        self.beat(now, out);
    }

    /// Passes the Node in the watch's view to the `NodeKeeper`; pods are admitted by its labels.
    fn see_own_node(&mut self, now: Now) {
        let view = &self.own.view;
        if view.is_synced() {
            let shown = view.iter().find_map(|(_, o)| o.get::<core_v1::Node>());
            self.node.seen(now, shown, view.revision(), &mut self.rng);
            // What was seen while a request was on its way is newer than the last reply.
            let newest = self.node.node().into_iter().chain(shown).max_by_key(|node| node.rv);
            self.pods.shared.node_meta = newest.map(|node| Rc::clone(&node.meta));
        } else {
            self.pods.shared.node_meta = self.node.node().map(|node| Rc::clone(&node.meta));
        }
    }

    fn tell_own_informer(&mut self, now: Now, message: &FromServer, out: &mut Vec<Out>) {
        let (mut requests, mut changes) = (Vec::new(), Vec::new());
        let OwnNode { informer, view, .. } = &mut *self.own;
        informer.handle(now, message, view, &mut requests, &mut changes);
        out.extend(requests.into_iter().map(Out::Api));
        if !changes.is_empty() {
            self.see_own_node(now);
            self.beat(now, out);
        }
    }

    /// Runs what is due for the Node and its Lease.
    fn beat(&mut self, now: Now, out: &mut Vec<Out>) {
        let (pods, max_images) = (&self.pods, self.max_images);
        let facts = || {
            let (volumes_in_use, and_old_ones) = pods.volumes_in_use();
            Facts {
                runtime_is_up: pods.runtime_is_up(),
                pressure: pods.shared.pressure,
                images: pods.shared.images.status(max_images),
                volumes_in_use,
                and_old_ones,
            }
        };
        self.node.handle_timeout(now, facts, &mut self.rng, out);
        if let Some((told, attached)) = self.node.volumes() {
            self.pods.volumes_told(now, told, attached, out);
        }
        self.renew(now, out);
    }

    /// Sees to it that the Node says which volumes are in use.
    fn tell_volumes(&mut self, now: Now) {
        if self.node.node().is_some() && self.pods.shared.attachments.take_changed() {
            self.node.changed(now);
        }
    }

    /// Runs what is due for the Lease.
    #[inline(always)]
    fn renew(&mut self, now: Now, out: &mut Vec<Out>) {
        let node = &self.node;
        self.lease.handle_timeout(now, || node.node(), &mut self.rng, out);
    }

    fn tell_informer(&mut self, now: Now, message: &FromServer, out: &mut Vec<Out>) {
        let (mut requests, mut changes) = (Vec::new(), Vec::new());
        self.informer.handle(now, message, &mut self.view, &mut requests, &mut changes);
        out.extend(requests.into_iter().map(Out::Api));
        self.pods.view_changed(now, &self.view, changes, out);
    }

    fn tell_directories(&mut self, now: Now, message: &FromServer, out: &mut Vec<Out>) {
        self.own.directories.iter_mut().for_each(|directories| directories.tell(now, message, out));
    }

    fn tell_recorder(&mut self, now: Now, message: &FromServer, out: &mut Vec<Out>) {
        let mut requests = Vec::new();
        self.pods.shared.recorder.handle(now, message, &mut requests);
        out.extend(requests.into_iter().map(Out::Api));
    }

    fn deadline_of_others(&self) -> Option<Deadline> {
        let pods = Deadline::earlier(self.pods.poll_timeout(), self.pods.shared.recorder.poll_timeout());
        let pods = match &self.pods.shared.services {
            Some(services) => Deadline::earlier(pods, services.poll_timeout()),
            None => pods,
        };
        let directories = self.own.directories.as_ref().and_then(|directories| directories.poll_timeout());
        let collector = self.own.collector.as_ref().map(ImageCollector::poll_timeout);
        let directories = Deadline::earlier(directories, collector);
        let directories = Deadline::earlier(directories, self.own.evictor.as_ref().map(Evictor::poll_timeout));
        let pods = Deadline::earlier(pods, directories);
        let informers = Deadline::earlier(self.informer.poll_timeout(), self.own.informer.poll_timeout());
        Deadline::earlier(self.node.poll_timeout(), Deadline::earlier(informers, pods))
    }

    /// Lets the collector of images do what is due, or take in what the runtime says.
    fn collect(&mut self, now: Now, event: Option<RuntimeEvent>, out: &mut Vec<Out>) {
        let Some(collector) = &mut self.own.collector else { return };
        let said = match event {
            Some(event) => collector.handle(now, event, &mut self.pods.shared.images, out),
            None => collector.handle_timeout(now, &mut self.pods.shared.images, out),
        };
        let swept = collector.take_swept();
        if collector.take_removed() {
            self.pods.list_again(now, out);
        }
        for (reason, message) in said {
            self.tell_of_node(now, EventType::Warning, reason, &message, out);
        }
        let evictor = self.own.evictor.as_mut().filter(|evictor| swept && evictor.is_reclaiming());
        if let Some(act) = evictor.map(|evictor| evictor.reclaimed(now.mono, &self.pods.candidates())) {
            self.act(now, act, out);
        }
    }

    /// Records an Event about the Node. Before it is known, nobody can be told about it.
    fn tell_of_node(&mut self, now: Now, type_: EventType, reason: &str, message: &str, out: &mut Vec<Out>) {
        let Some(node) = self.node.node().cloned().map(Object::Node) else { return };
        let mut requests = Vec::new();
        self.pods.shared.recorder.record(now, &node, type_, reason, message, &mut requests);
        out.extend(requests.into_iter().map(Out::Api));
    }

    /// Has the node measured, if it is time, and no pod that was evicted is still ending.
    fn look_for_pressure(&mut self, now: Now, out: &mut Vec<Out>) {
        let Some(evictor) = &mut self.own.evictor else { return };
        if evictor.is_waiting_for(now.mono).is_some_and(|uids| self.pods.are_ending(uids)) {
            return evictor.wait(now.mono);
        }
        if let Some(act) = evictor.handle_timeout(now.mono, &self.pods.candidates()) {
            self.act(now, act, out);
        }
    }

    /// Handles what the node uses.
    fn measured(&mut self, now: Now, op: OpId, result: Result<NodeUse, RuntimeError>, out: &mut Vec<Out>) {
        let Some(evictor) = &mut self.own.evictor else { return };
        let node = result.as_ref().map_err(|_| ());
        let (act, short) = evictor.measured(now.mono, op, node, &self.pods.candidates());
        let pressure = evictor.pressure(now.mono);
        self.set_pressure(now, pressure, out);
        if let Some(resource) = short.map(Signal::resource) {
            let message = format!("Attempting to reclaim {resource}");
            self.tell_of_node(now, EventType::Warning, "EvictionThresholdMet", &message, out);
        }
        if let Some(act) = act {
            self.act(now, act, out);
        }
    }

    /// Sets what the node counts as short of. Its conditions say so with its next status.
    fn set_pressure(&mut self, now: Now, pressure: Pressure, out: &mut Vec<Out>) {
        let was = std::mem::replace(&mut self.pods.shared.pressure, pressure);
        if was == pressure {
            return;
        }
        self.node.changed(now);
        for (was, is, [short, enough]) in [
            (was.memory, pressure.memory, ["NodeHasInsufficientMemory", "NodeHasSufficientMemory"]),
            (was.disk, pressure.disk, ["NodeHasDiskPressure", "NodeHasNoDiskPressure"]),
            (was.pids, pressure.pids, ["NodeHasInsufficientPID", "NodeHasSufficientPID"]),
        ] {
            if was != is {
                let reason = if is { short } else { enough };
                let message = format!("Node {} status is now: {reason}", self.pods.shared.config.node_name);
                self.tell_of_node(now, EventType::Normal, reason, &message, out);
            }
        }
    }

    fn act(&mut self, now: Now, act: Act, out: &mut Vec<Out>) {
        match act {
            Act::Measure(op, pods) => out.push(Out::Runtime(RuntimeCommand::Measure { op, pods })),
            Act::Evict(evictions) => {
                evictions.into_iter().for_each(|eviction: Eviction| self.pods.evict(eviction, now, out));
            }
            Act::Reclaim(_) => match (&mut self.own.collector, &mut self.own.evictor) {
                (Some(collector), _) => collector.sweep(now.mono),
                (None, Some(evictor)) => {
                    let act = evictor.reclaimed(now.mono, &self.pods.candidates());
                    self.act(now, act, out);
                }
                (None, None) => {}
            },
        }
    }

    fn handle_runtime(&mut self, now: Now, event: RuntimeEvent, out: &mut Vec<Out>) {
        if let RuntimeEvent::DirectoryDone { op, result } = event {
            let (directories, recorder) = (&mut self.own.directories, &mut self.pods.shared.recorder);
            return directories.iter_mut().for_each(|d| d.done(now, op, result.clone(), recorder, out));
        }
        if let RuntimeEvent::ImagesListed { .. } | RuntimeEvent::ImageRemoved { .. } = event {
            return self.collect(now, Some(event), out);
        }
        if let RuntimeEvent::Measured { op, result } = event {
            return self.measured(now, op, result, out);
        }
        if let RuntimeEvent::Pulled { result: Ok(image), .. } = &event {
            self.own.collector.iter_mut().for_each(|collector| collector.pulled(&image.image));
        }
        let was_up = self.pods.runtime_is_up();
        self.pods.runtime_event(now, &self.view, event, out);
        if was_up != self.pods.runtime_is_up() {
            self.node.runtime_is_up(now, &mut self.rng);
        }
        if self.pods.shared.images.take_changed() && self.max_images > 0 {
            self.node.changed(now);
        }
    }
}

impl Machine for NodeAgent {
    type In = In;
    type Out = Out;

    fn handle(&mut self, now: Now, input: In, out: &mut Vec<Out>) {
        match input {
            In::Api(FromServer::Reply(id, result)) if id.part() == LEASE => {
                return self.lease_replied(now, id, result, out);
            }
            In::Api(message @ FromServer::Watch(id, WatchEvent::Bookmark { .. }))
                if [INFORMER, NODE_INFORMER].contains(&id.part()) =>
            {
                return self.bookmark(now, id, &message);
            }
            In::Api(message) => self.handle_api(now, message, out),
            In::Runtime(event) => self.handle_runtime(now, event, out),
        }
        self.tell_volumes(now);
        self.others = self.deadline_of_others();
    }

    fn handle_timeout(&mut self, now: Now, out: &mut Vec<Out>) {
        if !is_due(self.others, now) {
            return self.renew(now, out);
        }
        if !self.begun {
            self.begun = true;
            self.node.begin(now, &mut self.rng);
        }
        let due = |d| is_due(d, now);
        self.beat(now, out);
        if due(self.informer.poll_timeout()) {
            let mut requests = Vec::new();
            self.informer.handle_timeout(now, &mut self.view, &mut requests);
            out.extend(requests.into_iter().map(Out::Api));
        }
        if due(self.own.informer.poll_timeout()) {
            let mut requests = Vec::new();
            let OwnNode { informer, view, .. } = &mut *self.own;
            informer.handle_timeout(now, view, &mut requests);
            out.extend(requests.into_iter().map(Out::Api));
        }
        if due(self.pods.poll_timeout()) {
            self.pods.handle_timeout(now, out);
        }
        self.pods.services_timeout(now, out);
        if let Some(directories) = &mut self.own.directories
            && due(directories.poll_timeout())
        {
            directories.handle_timeout(now, out);
        }
        if self.own.collector.as_ref().is_some_and(|collector| due(Some(collector.poll_timeout()))) {
            self.collect(now, None, out);
        }
        if self.own.evictor.as_ref().is_some_and(|evictor| due(Some(evictor.poll_timeout()))) {
            self.look_for_pressure(now, out);
        }
        if due(self.pods.shared.recorder.poll_timeout()) {
            let mut requests = Vec::new();
            self.pods.shared.recorder.handle_timeout(now, &mut requests);
            out.extend(requests.into_iter().map(Out::Api));
        }
        self.tell_volumes(now);
        self.others = self.deadline_of_others();
    }

    fn poll_timeout(&self) -> Option<Deadline> {
        Deadline::earlier(self.lease.poll_timeout(), self.others)
    }
}
