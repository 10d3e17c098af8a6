//! The Node object: registration, adoption of an existing Node, and its status (`kubelet_node_status.go`,
//! `nodestatus/setters.go`).

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;

use k8s_openapi::api::core::v1 as core_v1;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use super::backoff::Retry;
use super::pressure::Pressure;
use super::{AgentConfig, Out};
use crate::api::{Call, Reason, ReqId, ReqIds, Request, Response, Status, Subresource, ToServer, WriteOptions};
use crate::limits::{NODE_STATUS_INTERVAL, NODE_STATUS_UPDATE_FREQUENCY, REQUEST_TIMEOUT};
use crate::machine::{Deadline, Mono, Now};
use crate::object::{
    HOSTNAME_LABEL, Kind, Labels, Milli, Node, Object, ObjectKey, ObjectMeta, ReportedNodeStatus, Revision,
    TAINT_UNSCHEDULABLE, is_extended_resource, node_condition,
};
use crate::random::Rng;

/// How long registration waits for the container runtime's first reply.
const RUNTIME_PATIENCE: Duration = Duration::from_secs(2);
/// The kubelet version in the Node's status.
const KUBELET_VERSION: &str = concat!("v1.36.0+skeg-", env!("CARGO_PKG_VERSION"));

/// What must be done about the Node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Need {
    /// It must be created.
    Register,
    /// It must be read.
    Read,
    /// Its labels must be set to the configured ones.
    Adopt,
    /// Its status must be written.
    Status,
    /// Nothing until the next report, or until another client changes the Node.
    Nothing,
}

/// Maintains the Node object.
#[derive(Debug)]
pub(super) struct NodeKeeper {
    config: Rc<AgentConfig>,
    info: core_v1::NodeSystemInfo,
    user: Rc<str>,
    ids: ReqIds,
    /// The Node from the API's last reply.
    node: Option<Node>,
    /// The Node has existed during this process's life. If it is deleted after that, it is not created again before a
    /// restart (`registrationCompleted`), because the deletion was intended.
    registered: bool,
    need: Need,
    in_flight: Option<(ReqId, Mono, Need)>,
    next: Option<Mono>,
    /// When the status must be reported even if it has not changed.
    report_at: Mono,
    /// Set if the status has changed: when it must be reported.
    changed_at: Option<Mono>,
    reported: Option<Revision>,
    /// The last reported status, kept only if another report needs to change nothing but its time; and whether it says
    /// that the container runtime is up.
    made: Option<(ReportedNodeStatus, bool, Pressure)>,
    /// The volumes in use that the last request reported.
    sent: Vec<String>,
    /// Those volumes that the API server has confirmed to be in the status, and that every request since has reported.
    told: BTreeSet<String>,
    /// Whether any volume has ever been in use.
    knows_volumes: bool,
    retry: Retry,
}

/// What the status reports in addition to the configuration.
pub(super) struct Facts {
    /// Whether the container runtime replies.
    pub(super) runtime_is_up: bool,
    /// What the node is short of.
    pub(super) pressure: Pressure,
    /// Images that are present.
    pub(super) images: Vec<core_v1::ContainerImage>,
    /// The attachable volumes that are in use, sorted.
    pub(super) volumes_in_use: Vec<String>,
    /// Whether those that were in use before may still be.
    pub(super) and_old_ones: bool,
}

impl NodeKeeper {
    pub(super) fn new(config: Rc<AgentConfig>, user: Rc<str>, part: u16) -> NodeKeeper {
        NodeKeeper {
            info: config.node_info(),
            config,
            user,
            ids: ReqIds::new(part),
            node: None,
            registered: false,
            need: Need::Register,
            in_flight: None,
            next: None,
            report_at: Mono::ZERO,
            changed_at: None,
            reported: None,
            made: None,
            sent: Vec::new(),
            told: BTreeSet::new(),
            knows_volumes: false,
            retry: Retry::default(),
        }
    }

    /// Handles the start of the process: registration follows soon, after a random delay.
    pub(super) fn begin(&mut self, now: Now, rng: &mut Rng) {
        self.next = Some(now.mono + RUNTIME_PATIENCE + rng.duration(Duration::ZERO, Duration::from_millis(500)));
    }

    /// Handles the container runtime's first reply: registration need not wait any longer.
    pub(super) fn runtime_is_up(&mut self, now: Now, rng: &mut Rng) {
        if self.node.is_none() && self.in_flight.is_none() && self.need == Need::Register {
            let soon = now.mono + rng.duration(Duration::ZERO, Duration::from_millis(500));
            self.next = Some(self.next.map_or(soon, |at| at.min(soon)));
        } else {
            self.changed(now);
        }
    }

    /// Handles a change of the status: it is reported at the next tick of the kubelet's status loop.
    pub(super) fn changed(&mut self, now: Now) {
        if self.node.is_some() && self.changed_at.is_none() {
            self.changed_at = Some(now.mono + NODE_STATUS_UPDATE_FREQUENCY);
        }
    }

    /// Handles a hint that the Node is gone or its status was overwritten: it is checked immediately.
    pub(super) fn check(&mut self, now: Now) {
        if self.need == Need::Nothing {
            self.need = Need::Read;
            self.next = Some(now.mono);
        }
    }

    /// Handles the Node as the agent's watch shows it (`None`: deleted) at a revision: another client may have written
    /// its status or deleted it.
    pub(super) fn seen(&mut self, now: Now, shown: Option<&Node>, revision: Revision, rng: &mut Rng) {
        let Some(known) = &self.node else { return };
        if self.in_flight.is_some() || self.need != Need::Nothing {
            return;
        }
        match shown {
            Some(node) if node.rv > known.rv => self.answered(Need::Read, node.clone(), false, now, rng),
            Some(_) => {}
            None if revision > known.rv => self.is_gone(now, rng),
            None => {}
        }
    }

    /// Handles that the Node does not exist. Before registration this is temporary. After registration, the kubelet
    /// looks for the Node at every status report, without success until another client creates it again.
    fn is_gone(&mut self, now: Now, rng: &mut Rng) {
        self.node = None;
        let pause = if self.registered { NODE_STATUS_UPDATE_FREQUENCY } else { self.retry.next(rng) };
        self.need = if self.registered { Need::Read } else { Need::Register };
        self.next = Some(now.mono + pause);
    }

    /// The Node from the API's last reply.
    pub(super) fn node(&self) -> Option<&Node> {
        self.node.as_ref()
    }

    /// Sends the requests that are due.
    pub(super) fn handle_timeout(
        &mut self,
        now: Now,
        facts: impl FnOnce() -> Facts,
        rng: &mut Rng,
        out: &mut Vec<Out>,
    ) {
        if self.in_flight.is_some_and(|(_, at, _)| at <= now.mono) {
            self.in_flight = None;
            self.unknown(now, rng);
        }
        if self.in_flight.is_some() || !self.is_due(now.mono) {
            return;
        }
        if self.need == Need::Nothing {
            self.need = Need::Status;
        }
        let name = &self.config.node_name;
        let options = WriteOptions::default();
        let call = match (self.need, &self.node) {
            (Need::Register, _) | (Need::Adopt | Need::Status, None) => {
                self.need = Need::Register;
                let facts = facts();
                let node = self.fresh(&facts, now);
                self.note_made(&node.status, &facts);
                self.note_sent(&node);
                Call::Create { object: Object::Node(node), options }
            }
            (Need::Read | Need::Nothing, _) => Call::Get { key: ObjectKey::new(Kind::NODE, "", name), rv: None },
            (Need::Adopt, Some(node)) => {
                let object = Object::Node(self.adopted(node));
                Call::Update { object, subresource: Subresource::None, options }
            }
            (Need::Status, Some(node)) => {
                let mut node = node.clone();
                *node.status_mut() = self.report(&facts(), now);
                self.changed_at = None;
                self.note_sent(&node);
                Call::Update { object: Object::Node(node), subresource: Subresource::Status, options }
            }
        };
        let id = self.ids.next();
        self.in_flight = Some((id, now.mono + REQUEST_TIMEOUT, self.need));
        self.next = None;
        out.push(Out::Api(ToServer::Request(id, Request::new(&self.user, call))));
    }

    fn is_due(&self, now: Mono) -> bool {
        self.poll_timeout().is_some_and(|d| d.at <= now)
    }

    /// Handles a request with an unknown outcome: the Node is read before anything else.
    fn unknown(&mut self, now: Now, rng: &mut Rng) {
        if self.node.is_some() {
            self.need = Need::Read;
        }
        self.next = Some(now.mono + self.retry.next(rng));
    }

    /// Handles a reply; returns whether it shows that the Node is registered.
    pub(super) fn replied(&mut self, now: Now, id: ReqId, result: Result<Response, Status>, rng: &mut Rng) -> bool {
        let Some((_, _, asked)) = self.in_flight.take_if(|(i, ..)| *i == id) else { return false };
        match result {
            Ok(Response::Object(Object::Node(node))) => {
                self.retry.reset();
                let first = self.node.is_none();
                self.answered(asked, node, first, now, rng);
                return true;
            }
            Err(status) if status.reason == Reason::AlreadyExists || status.reason == Reason::Conflict => {
                self.need = Need::Read;
                self.next = Some(now.mono);
            }
            Err(status) if status.reason == Reason::NotFound => self.is_gone(now, rng),
            Ok(_) | Err(_) => self.next = Some(now.mono + self.retry.next(rng)),
        }
        false
    }

    fn answered(&mut self, asked: Need, node: Node, first: bool, now: Now, rng: &mut Rng) {
        if self.node.as_ref().is_some_and(|n| n.rv > node.rv && n.uid() == node.uid()) {
            // A stale read has no information.
            return self.rest();
        }
        if matches!(asked, Need::Register | Need::Status) {
            self.told = in_use(&node.status).iter().filter(|name| self.sent.contains(name)).cloned().collect();
        }
        let has = |k: &str, v: &str| node.meta.labels.as_ref().and_then(|l| l.get(k)).is_some_and(|have| have == v);
        let wrong_labels = || self.config.node_labels().iter().any(|(k, v)| !has(k, v));
        let well = || {
            node_condition(&node.status, "Ready").is_some_and(|c| c.status == "True")
                && node.status.capacity == Some(with_extended(self.config.quantities(), node.status.capacity.as_ref()))
                && in_use(&node.status) == self.sent
                && self.told.iter().eq(&self.sent)
        };
        self.need = match asked {
            Need::Status => {
                self.report_at = now.mono + rng.jitter(NODE_STATUS_INTERVAL, 4);
                self.reported = Some(node.rv);
                Need::Nothing
            }
            _ if wrong_labels() => Need::Adopt,
            Need::Register if well() => {
                // The Node was created with its status; from now on, reports are spread over the interval.
                self.report_at = now.mono + rng.duration(NODE_STATUS_INTERVAL / 2, NODE_STATUS_INTERVAL);
                Need::Nothing
            }
            Need::Read if !first && well() => Need::Nothing,
            Need::Register | Need::Read | Need::Adopt | Need::Nothing => Need::Status,
        };
        (self.node, self.registered) = (Some(node), true);
        if self.need == Need::Nothing { self.rest() } else { self.next = Some(now.mono) }
    }

    /// What a request that reports the volumes in use means for those that were confirmed.
    fn note_sent(&mut self, node: &Node) {
        self.sent = in_use(&node.status).to_vec();
        self.told.retain(|name| self.sent.contains(name));
        self.knows_volumes |= !self.sent.is_empty();
    }

    /// The volumes that the status is known to say are in use, and those that it says are attached; `None` if no volume
    /// has ever been in use.
    pub(super) fn volumes(&self) -> Option<(&BTreeSet<String>, &[core_v1::AttachedVolume])> {
        let attached = self.node.as_ref().and_then(|node| node.status.volumes_attached.as_deref());
        self.knows_volumes.then(|| (&self.told, attached.unwrap_or_default()))
    }

    fn rest(&mut self) {
        self.need = Need::Nothing;
        self.next = None;
    }

    /// Handles the loss of the connection.
    pub(super) fn disconnected(&mut self, now: Now, rng: &mut Rng) {
        if self.in_flight.take().is_some() {
            self.unknown(now, rng);
        }
    }

    /// When `handle_timeout` is next needed.
    pub(super) fn poll_timeout(&self) -> Option<Deadline> {
        if let Some((_, at, _)) = self.in_flight {
            return Some(Deadline { at, why: "request of the node is overdue" });
        }
        let why = match self.need {
            Need::Register => "register the node",
            Need::Read => "read the node",
            Need::Adopt => "adopt the node",
            Need::Status => "report the node's status",
            Need::Nothing => {
                let at = self.changed_at.map_or(self.report_at, |at| at.min(self.report_at));
                return Some(Deadline { at, why: "report the node's status" });
            }
        };
        Some(Deadline { at: self.next?, why })
    }

    fn fresh(&self, facts: &Facts, now: Now) -> Node {
        let annotations = [("volumes.kubernetes.io/controller-managed-attach-detach".to_owned(), "true".to_owned())];
        let meta = ObjectMeta {
            name: Some(self.config.node_name.to_string()),
            labels: Some(self.config.node_labels()),
            annotations: Some(BTreeMap::from(annotations)),
            ..ObjectMeta::default()
        };
        let (mut taints, cordoned) = (self.config.taints.clone(), !self.config.register_schedulable);
        // The taint is created together with the Node, so that no pod is scheduled before the node lifecycle controller
        // sets it.
        if cordoned && taints.iter().all(|t| t.key != TAINT_UNSCHEDULABLE) {
            let (key, effect) = (TAINT_UNSCHEDULABLE.to_owned(), "NoSchedule".to_owned());
            taints.push(core_v1::Taint { key, effect, value: None, time_added: None });
        }
        let spec = core_v1::NodeSpec {
            provider_id: self.config.provider_id.as_deref().map(str::to_owned),
            taints: (!taints.is_empty()).then_some(taints),
            unschedulable: cordoned.then_some(true),
            ..core_v1::NodeSpec::default()
        };
        Node::new(meta, spec, ReportedNodeStatus::new(self.status(facts, now)))
    }

    /// An existing Node with the configured labels; everything that others set is kept.
    fn adopted(&self, node: &Node) -> Node {
        let mut node = node.clone();
        node.meta_mut().labels.get_or_insert_default().extend(self.config.node_labels());
        if node.spec.provider_id.is_none() && self.config.provider_id.is_some() {
            node.spec_mut().provider_id = self.config.provider_id.as_deref().map(str::to_owned);
        }
        node
    }

    /// The status to report. If nothing has changed since the last report, only its time is new.
    fn report(&mut self, facts: &Facts, now: Now) -> ReportedNodeStatus {
        if let (Some((last, was_up, pressure)), Some(node)) = (&self.made, &self.node)
            && node.status.same_apart_from_report(last)
            && (*was_up, *pressure) == (facts.runtime_is_up, facts.pressure)
            && last.images.as_deref().unwrap_or_default() == facts.images
            && in_use(last) == self.in_use(facts)
        {
            return last.reported_at(now.wall.to_time());
        }
        let status = ReportedNodeStatus::new(self.status(facts, now));
        self.note_made(&status, facts);
        status
    }

    /// Keeps the status for the next report, unless the Ready condition does not have the report's time.
    fn note_made(&mut self, status: &ReportedNodeStatus, facts: &Facts) {
        let tells = node_condition(status, "Ready").is_some_and(|c| status.is_reported(c));
        self.made = tells.then(|| (status.clone(), facts.runtime_is_up, facts.pressure));
    }

    /// The volumes in use to report.
    fn in_use(&self, facts: &Facts) -> Vec<String> {
        let old = self.node.as_ref().filter(|_| facts.and_old_ones).map_or(&[][..], |node| in_use(&node.status));
        let mut names: Vec<String> = facts.volumes_in_use.iter().chain(old).cloned().collect();
        names.sort();
        names.dedup();
        names
    }

    fn status(&self, facts: &Facts, now: Now) -> core_v1::NodeStatus {
        let old = self.node.as_ref().map(|n| &**n.status);
        let config = &self.config;
        let address =
            |type_: &str, address: &str| core_v1::NodeAddress { type_: type_.to_owned(), address: address.to_owned() };
        let port = core_v1::DaemonEndpoint { port: 10250 };
        core_v1::NodeStatus {
            capacity: Some(with_extended(config.quantities(), old.and_then(|old| old.capacity.as_ref()))),
            allocatable: Some(with_extended(config.allocatable(), old.and_then(|old| old.capacity.as_ref()))),
            addresses: Some(vec![address("InternalIP", &config.host_ip), address("Hostname", &config.node_name)]),
            conditions: Some(conditions(old, facts, now)),
            node_info: Some(self.info.clone()),
            images: (!facts.images.is_empty()).then(|| facts.images.clone()),
            daemon_endpoints: Some(core_v1::NodeDaemonEndpoints { kubelet_endpoint: Some(port) }),
            volumes_attached: old.and_then(|s| s.volumes_attached.clone()),
            volumes_in_use: Some(self.in_use(facts)).filter(|names| !names.is_empty()),
            ..core_v1::NodeStatus::default()
        }
    }
}

/// The node's own resources, and the extended ones that others have advertised in the capacity of its Node.
fn with_extended(
    own: BTreeMap<String, Quantity>,
    capacity: Option<&BTreeMap<String, Quantity>>,
) -> BTreeMap<String, Quantity> {
    let mut all = own;
    for (name, quantity) in capacity.into_iter().flatten().filter(|(name, _)| is_extended_resource(name)) {
        all.entry(name.clone()).or_insert_with(|| quantity.clone());
    }
    all
}

/// The volumes that a status says are in use.
fn in_use(status: &core_v1::NodeStatus) -> &[String] {
    status.volumes_in_use.as_deref().unwrap_or_default()
}

/// The conditions with the kubelet's messages; conditions of other components are kept.
fn conditions(old: Option<&core_v1::NodeStatus>, facts: &Facts, now: Now) -> Vec<core_v1::NodeCondition> {
    let ready = if facts.runtime_is_up {
        ("Ready", "True", "KubeletReady", "kubelet is posting ready status")
    } else {
        ("Ready", "False", "KubeletNotReady", "container runtime is down")
    };
    let memory = match facts.pressure.memory {
        true => ("True", "KubeletHasInsufficientMemory", "kubelet has insufficient memory available"),
        false => ("False", "KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
    };
    let disk = match facts.pressure.disk {
        true => ("True", "KubeletHasDiskPressure", "kubelet has disk pressure"),
        false => ("False", "KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
    };
    let pids = match facts.pressure.pids {
        true => ("True", "KubeletHasInsufficientPID", "kubelet has insufficient PID available"),
        false => ("False", "KubeletHasSufficientPID", "kubelet has sufficient PID available"),
    };
    let own = [
        ("MemoryPressure", memory.0, memory.1, memory.2),
        ("DiskPressure", disk.0, disk.1, disk.2),
        ("PIDPressure", pids.0, pids.1, pids.2),
        ready,
    ];
    let foreign = old.into_iter().flat_map(|s| s.conditions.iter().flatten());
    let foreign = foreign.filter(|c| own.iter().all(|o| o.0 != c.type_)).cloned();
    let time = now.wall.to_time();
    let make = |(type_, status, reason, message): (&str, &str, &str, &str)| {
        let same = old.and_then(|s| node_condition(s, type_)).filter(|c| c.status == status);
        core_v1::NodeCondition {
            type_: type_.to_owned(),
            status: status.to_owned(),
            reason: Some(reason.to_owned()),
            message: Some(message.to_owned()),
            last_heartbeat_time: Some(time.clone()),
            last_transition_time: same.and_then(|c| c.last_transition_time.clone()).or_else(|| Some(time.clone())),
        }
    };
    foreign.chain(own.into_iter().map(make)).collect()
}

impl AgentConfig {
    /// All labels of the node: the kubelet's own and the configured ones.
    pub(super) fn node_labels(&self) -> Labels {
        let own = [
            (HOSTNAME_LABEL, &*self.node_name),
            ("kubernetes.io/os", &*self.os),
            ("kubernetes.io/arch", &*self.arch),
            ("beta.kubernetes.io/os", &*self.os),
            ("beta.kubernetes.io/arch", &*self.arch),
        ];
        let mut labels: Labels = own.into_iter().map(|(k, v)| (k.to_owned(), v.to_owned())).collect();
        labels.extend(self.labels.iter().map(|(k, v)| (k.clone(), v.clone())));
        labels
    }

    /// Capacity, with the kubelet's default of 110 pods.
    pub(super) fn quantities(&self) -> BTreeMap<String, Quantity> {
        let mut all: BTreeMap<_, _> = self.capacity.iter().map(|(k, v)| (k.clone(), Quantity(v.clone()))).collect();
        all.entry("pods".to_owned()).or_insert_with(|| Quantity("110".to_owned()));
        all
    }

    /// Capacity minus what is reserved for the system.
    pub(super) fn allocatable(&self) -> BTreeMap<String, Quantity> {
        let mut all = self.quantities();
        for (name, reserved) in &self.reserved {
            let Some(quantity) = all.get_mut(name) else { continue };
            let left = Milli(Milli::of(quantity).0 - Milli::parse(reserved).unwrap_or_default().0).max(Milli::ZERO);
            let binary = matches!(name.as_str(), "memory" | "ephemeral-storage") || name.starts_with("hugepages-");
            quantity.0 = if binary { left.to_binary() } else { left.to_decimal() };
        }
        all
    }

    fn node_info(&self) -> core_v1::NodeSystemInfo {
        // The same machine keeps its ids, whichever process describes it.
        let mut ids = Rng::stream(0, &self.node_name, 0);
        core_v1::NodeSystemInfo {
            architecture: self.arch.to_string(),
            operating_system: self.os.to_string(),
            os_image: self.os_image.to_string(),
            kernel_version: self.kernel_version.to_string(),
            container_runtime_version: self.runtime_version.to_string(),
            kubelet_version: KUBELET_VERSION.to_owned(),
            kube_proxy_version: String::new(),
            machine_id: ids.uuid().replace('-', ""),
            system_uuid: ids.uuid(),
            boot_id: ids.uuid(),
            ..core_v1::NodeSystemInfo::default()
        }
    }
}
