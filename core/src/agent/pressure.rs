//! When a node is short of something, and which of its pods goes then. Nothing here has state: what was measured and
//! what is configured come in, and what follows from it comes out.
//!
//! Source: kubernetes `pkg/kubelet/eviction/helpers.go`;
//! <https://kubernetes.io/docs/concepts/scheduling-eviction/node-pressure-eviction/>.

use std::cmp::Reverse;
use std::rc::Rc;
use std::time::Duration;

use k8s_openapi::api::core::v1 as core_v1;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use serde::{Deserialize, Serialize};

use super::admission::{Rejection, pod_requests};
use super::runtime::{ContainerUse, DiskUse, NodeUse, PodUse, Supply};
use crate::object::{Milli, Pod, qos_class, tolerates};

/// From this priority on a pod is critical (`SystemCriticalPriority`).
const CRITICAL: i32 = 2_000_000_000;
/// Reason of a pod that was evicted.
pub(super) const EVICTED: &str = "Evicted";
const EPHEMERAL_STORAGE: &str = "ephemeral-storage";

/// What may run short.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub enum Signal {
    MemoryAvailable,
    NodeFsAvailable,
    NodeFsInodesFree,
    ImageFsAvailable,
    ImageFsInodesFree,
    PidAvailable,
}

impl Signal {
    const ALL: [(Signal, &str); 6] = [
        (Signal::MemoryAvailable, "memory.available"),
        (Signal::NodeFsAvailable, "nodefs.available"),
        (Signal::NodeFsInodesFree, "nodefs.inodesFree"),
        (Signal::ImageFsAvailable, "imagefs.available"),
        (Signal::ImageFsInodesFree, "imagefs.inodesFree"),
        (Signal::PidAvailable, "pid.available"),
    ];

    /// The resource that is reclaimed.
    pub(super) fn resource(self) -> &'static str {
        match self {
            Signal::MemoryAvailable => "memory",
            Signal::NodeFsAvailable | Signal::ImageFsAvailable => EPHEMERAL_STORAGE,
            Signal::NodeFsInodesFree | Signal::ImageFsInodesFree => "inodes",
            Signal::PidAvailable => "pids",
        }
    }

    /// Whether there may be more of it once unused images have gone.
    pub(super) fn is_of_images(self, has_image_disk: bool) -> bool {
        match self {
            Signal::MemoryAvailable | Signal::PidAvailable => false,
            Signal::ImageFsAvailable | Signal::ImageFsInodesFree => true,
            Signal::NodeFsAvailable | Signal::NodeFsInodesFree => !has_image_disk,
        }
    }

    fn supply(self, node: &NodeUse) -> Supply {
        match self {
            Signal::MemoryAvailable => node.memory,
            Signal::NodeFsAvailable => node.node_disk,
            Signal::NodeFsInodesFree => node.node_inodes,
            Signal::ImageFsAvailable => node.image_disk,
            Signal::ImageFsInodesFree => node.image_inodes,
            Signal::PidAvailable => node.pids,
        }
    }
}

/// How little of something is too little.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Limit {
    /// Less than this, as it was written.
    Quantity(String),
    /// Less than so many millionths of what there is.
    Millionths(u32),
}

impl Limit {
    /// In units, for so much that there is.
    fn of(&self, capacity: u64) -> i64 {
        match self {
            Limit::Quantity(text) => Milli::parse(text).unwrap_or_default().value(),
            Limit::Millionths(part) => {
                i64::try_from(u128::from(capacity) * u128::from(*part) / 1_000_000).unwrap_or(i64::MAX)
            }
        }
    }

    fn shown(&self, capacity: u64) -> String {
        match self {
            Limit::Quantity(text) => text.clone(),
            Limit::Millionths(_) => binary(self.of(capacity)),
        }
    }
}

/// A signal and how little of it is too little.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Threshold {
    /// What may run short.
    pub signal: Signal,
    /// When it has.
    pub limit: Limit,
}

/// When pods are evicted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EvictionPolicy {
    /// `evictionHard`.
    pub thresholds: Vec<Threshold>,
    /// How long the node says that it is short of something after that was seen last
    /// (`evictionPressureTransitionPeriod`).
    pub transition_period: Duration,
    /// How often it is looked (`evictionMonitoringPeriod`).
    pub period: Duration,
}

impl EvictionPolicy {
    /// The kubelet's thresholds.
    pub const DEFAULT: &'static str =
        "memory.available<100Mi,nodefs.available<10%,nodefs.inodesFree<5%,imagefs.available<15%,imagefs.inodesFree<5%";

    /// Thresholds as they are written for `--eviction-hard`; empty for none. One of `0%` or `100%` is none, too.
    pub fn parse(text: &str, transition_period: Duration) -> Result<EvictionPolicy, String> {
        let mut thresholds: Vec<Threshold> = Vec::new();
        for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            let Some((name, value)) = part.split_once('<') else {
                return Err(format!("invalid eviction threshold syntax {part}, expected <signal><operator><quantity>"));
            };
            let Some((signal, _)) = Signal::ALL.into_iter().find(|(_, known)| *known == name) else {
                return Err(format!("unsupported eviction signal {name}"));
            };
            if thresholds.iter().any(|known| known.signal == signal) {
                return Err(format!("duplicate eviction threshold specified for {name}"));
            }
            if let Some(limit) = limit(value)? {
                thresholds.push(Threshold { signal, limit });
            }
        }
        Ok(EvictionPolicy { thresholds, transition_period, period: Duration::from_secs(10) })
    }

    /// What of a node's memory or disk is not for pods, since they would be evicted before they had it.
    pub fn reserved(&self, resource: &str, capacity: u64) -> Option<String> {
        let signal = match resource {
            "memory" => Signal::MemoryAvailable,
            EPHEMERAL_STORAGE => Signal::NodeFsAvailable,
            _ => return None,
        };
        let threshold = self.thresholds.iter().find(|threshold| threshold.signal == signal)?;
        Some(threshold.limit.of(capacity).to_string())
    }
}

fn limit(value: &str) -> Result<Option<Limit>, String> {
    if let Some(percent) = value.strip_suffix('%') {
        let millionths = Milli::parse(percent).map_err(|_| format!("invalid eviction threshold {value}"))?.0 * 10;
        return match u32::try_from(millionths) {
            Ok(0 | 1_000_000) => Ok(None),
            Ok(millionths @ 1..1_000_000) => Ok(Some(Limit::Millionths(millionths))),
            _ if millionths < 0 => Err(format!("eviction percentage threshold {value} must be >= 0%")),
            _ => Err(format!("eviction percentage threshold {value} must be <= 100%")),
        };
    }
    let quantity = Milli::parse(value).map_err(|_| format!("invalid eviction threshold {value}"))?;
    match quantity.0 {
        ..0 => Err(format!("eviction threshold {value} must be positive")),
        _ => Ok(Some(Limit::Quantity(value.to_owned()))),
    }
}

/// What a node is short of, as its conditions say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Pressure {
    pub(super) memory: bool,
    pub(super) disk: bool,
    pub(super) pids: bool,
}

impl Pressure {
    pub(super) fn any(self) -> bool {
        self != Pressure::default()
    }

    /// What thresholds that are met mean.
    pub(super) fn of(thresholds: &[&Threshold]) -> Pressure {
        let mut pressure = Pressure::default();
        for threshold in thresholds {
            match threshold.signal {
                Signal::MemoryAvailable => pressure.memory = true,
                Signal::PidAvailable => pressure.pids = true,
                Signal::NodeFsAvailable
                | Signal::NodeFsInodesFree
                | Signal::ImageFsAvailable
                | Signal::ImageFsInodesFree => pressure.disk = true,
            }
        }
        pressure
    }

    /// Why a pod may not come now (`Admit`).
    pub(super) fn refuses(self, spec: &core_v1::PodSpec) -> Option<Rejection> {
        if !self.any() || is_critical(spec) {
            return None;
        }
        if self == (Pressure { memory: true, ..Pressure::default() }) {
            let taint = core_v1::Taint {
                key: "node.kubernetes.io/memory-pressure".to_owned(),
                effect: "NoSchedule".to_owned(),
                ..core_v1::Taint::default()
            };
            let tolerated = spec.tolerations.iter().flatten().any(|toleration| tolerates(toleration, &taint));
            if qos_class(spec) != "BestEffort" || tolerated {
                return None;
            }
        }
        let all = [(self.memory, "MemoryPressure"), (self.disk, "DiskPressure"), (self.pids, "PIDPressure")];
        let names: Vec<&str> = all.into_iter().filter(|(is, _)| *is).map(|(_, name)| name).collect();
        let message = format!("The node had condition: [{}]. ", names.join(" "));
        Some(Rejection::on_admission(EVICTED.to_owned(), message))
    }
}

pub(super) fn is_critical(spec: &core_v1::PodSpec) -> bool {
    spec.priority.unwrap_or(0) >= CRITICAL
}

/// The thresholds that are met; memory's first, for that is the most urgent.
pub(super) fn met<'a>(policy: &'a EvictionPolicy, node: &NodeUse) -> Vec<&'a Threshold> {
    let is_met = |threshold: &&Threshold| {
        let Supply { capacity, available } = threshold.signal.supply(node);
        threshold.limit.of(capacity) > i64::try_from(available).unwrap_or(i64::MAX)
    };
    let mut met: Vec<_> = policy.thresholds.iter().filter(is_met).collect();
    met.sort_by_key(|threshold| threshold.signal != Signal::MemoryAvailable);
    met
}

/// A pod that may be evicted.
#[derive(Clone, Copy, Debug)]
pub(super) struct Candidate<'a> {
    pub(super) slot: u32,
    pub(super) uid: &'a Rc<str>,
    pub(super) pod: &'a Pod,
}

/// A pod that is evicted, and what its status says of that.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Eviction {
    pub(super) slot: u32,
    pub(super) uid: Rc<str>,
    pub(super) message: String,
    /// For the node's sake, and not for a limit of its own.
    pub(super) is_for_node: bool,
}

/// The pod that goes when this threshold is met; `None` if only critical ones are left.
pub(super) fn victim(threshold: &Threshold, node: &NodeUse, candidates: &[Candidate<'_>]) -> Option<Eviction> {
    let use_of = |candidate: &Candidate<'_>| node.pods.iter().find(|used| used.pod_uid == *candidate.uid);
    let mut ranked: Vec<_> = candidates.iter().filter(|c| !is_critical(&c.pod.spec.shared)).collect();
    // What is not known to use little goes first; then who uses more than it asked for, by priority and by how much.
    ranked.sort_by_key(|candidate| {
        let Some(used) = use_of(candidate) else { return (false, false, 0, Reverse(0)) };
        let priority = candidate.pod.spec.priority.unwrap_or(0);
        let (uses, asked) =
            (used_of(threshold.signal, node, candidate.pod, used), asked_of(threshold.signal, candidate.pod));
        let exceeds = threshold.signal != Signal::PidAvailable && uses > asked;
        (true, !exceeds, priority, Reverse(uses - asked))
    });
    let candidate = ranked.first()?;
    let message = message(threshold, node, candidate.pod, use_of(candidate));
    let (slot, uid) = (candidate.slot, Rc::clone(candidate.uid));
    Some(Eviction { slot, uid, message, is_for_node: true })
}

fn signed(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

/// What a pod uses of what is short.
fn used_of(signal: Signal, node: &NodeUse, pod: &Pod, used: &PodUse) -> i64 {
    let disk = || disk_of(signal, node, pod, used);
    signed(match signal {
        Signal::MemoryAvailable => used.containers.iter().map(|c| c.memory).sum(),
        Signal::PidAvailable => used.containers.iter().map(|c| c.processes).sum(),
        Signal::NodeFsAvailable | Signal::ImageFsAvailable => disk().bytes,
        Signal::NodeFsInodesFree | Signal::ImageFsInodesFree => disk().inodes,
    })
}

/// What a pod has on the disk that is short. Where images have a disk of their own, so have the containers' own files.
fn disk_of(signal: Signal, node: &NodeUse, pod: &Pod, used: &PodUse) -> DiskUse {
    let of_images = matches!(signal, Signal::ImageFsAvailable | Signal::ImageFsInodesFree);
    let (own, others) = (of_images || !node.has_image_disk, !of_images || !node.has_image_disk);
    let roots = used.containers.iter().map(|c| c.root).filter(|_| own);
    let logs = used.containers.iter().map(|c| c.log).filter(|_| others);
    roots.chain(logs).chain(volumes(pod, used).filter(|_| others)).fold(DiskUse::default(), DiskUse::plus)
}

/// What a pod's volumes hold that are on the node's disk and end with the pod.
fn volumes(pod: &Pod, used: &PodUse) -> impl Iterator<Item = DiskUse> {
    let on_disk = |v: &&core_v1::Volume| {
        v.config_map.is_some() || v.empty_dir.as_ref().is_some_and(|e| e.medium.as_deref().unwrap_or("").is_empty())
    };
    let names = pod.spec.volumes.iter().flatten().filter(on_disk).map(|v| v.name.as_str());
    names.filter_map(|name| used.volumes.iter().find(|(used, _)| **used == *name).map(|(_, disk)| *disk))
}

/// What a pod has asked for of what is short.
fn asked_of(signal: Signal, pod: &Pod) -> i64 {
    let asked = || pod_requests(&pod.spec.shared);
    match signal {
        Signal::MemoryAvailable => asked().memory,
        Signal::NodeFsAvailable | Signal::ImageFsAvailable => asked().get(EPHEMERAL_STORAGE),
        Signal::NodeFsInodesFree | Signal::ImageFsInodesFree | Signal::PidAvailable => 0,
    }
}

/// Why a pod is evicted (`evictionMessage`).
fn message(threshold: &Threshold, node: &NodeUse, pod: &Pod, used: Option<&PodUse>) -> String {
    let (resource, Supply { capacity, available }) = (threshold.signal.resource(), threshold.signal.supply(node));
    let mut message = format!("The node was low on resource: {resource}. ");
    message +=
        &format!("Threshold quantity: {}, available: {}. ", threshold.limit.shown(capacity), binary(signed(available)));
    for container in used.into_iter().flat_map(|used| &used.containers) {
        let Some((uses, asked)) = exceeding(resource, pod, container) else { continue };
        message += &format!(
            "Container {} was using {}, request is {asked}, has larger consumption of {resource}. ",
            container.name,
            binary(uses)
        );
    }
    message
}

/// What a container uses, if it is more than it asked for, and what it asked for.
fn exceeding(resource: &str, pod: &Pod, container: &ContainerUse) -> Option<(i64, String)> {
    let inits = pod.spec.init_containers.iter().flatten();
    let spec = pod.spec.containers.iter().chain(inits).find(|c| c.name == *container.name)?;
    let uses = signed(match resource {
        "memory" => container.memory,
        EPHEMERAL_STORAGE => container.root.bytes.saturating_add(container.log.bytes),
        _ => return None,
    });
    let requests = spec.resources.as_ref().and_then(|r| r.requests.as_ref());
    let asked = requests.and_then(|requests| requests.get(resource));
    let exceeds = uses > asked.map_or(0, |asked| Milli::of(asked).value());
    exceeds.then(|| (uses, asked.map_or("0".to_owned(), |asked| asked.0.clone())))
}

fn binary(n: i64) -> String {
    Milli::units(n).to_binary()
}

fn storage_limit(c: &core_v1::Container) -> Option<&Quantity> {
    let limit = c.resources.as_ref()?.limits.as_ref()?.get(EPHEMERAL_STORAGE)?;
    (Milli::of(limit).0 > 0).then_some(limit)
}

/// Whether a pod, or a part of it, may not hold more than so much on the disk.
pub(super) fn is_limited(spec: &core_v1::PodSpec) -> bool {
    let inits = spec.init_containers.iter().flatten();
    spec.containers.iter().chain(inits).any(|c| storage_limit(c).is_some())
        || spec.volumes.iter().flatten().any(|v| size_limit(v).is_some())
}

/// The limit of an `emptyDir` on the disk. One in memory is limited by its file system.
fn size_limit(v: &core_v1::Volume) -> Option<&Quantity> {
    let empty = v.empty_dir.as_ref().filter(|empty| empty.medium.as_deref().unwrap_or("").is_empty())?;
    empty.size_limit.as_ref().filter(|limit| Milli::of(limit).0 > 0)
}

/// Why a pod is evicted that holds more on the disk than it may (`localStorageEviction`); `None` if it does not.
pub(super) fn over_limit(pod: &Pod, used: &PodUse, has_image_disk: bool) -> Option<String> {
    let spec = &pod.spec.shared;
    let exceeds = |uses: u64, limit: i64| signed(uses) > limit;
    for volume in spec.volumes.iter().flatten() {
        let Some(limit) = size_limit(volume) else { continue };
        let holds = used.volumes.iter().find(|(name, _)| **name == *volume.name);
        if holds.is_some_and(|(_, disk)| exceeds(disk.bytes, Milli::of(limit).value())) {
            return Some(format!("Usage of EmptyDir volume {:?} exceeds the limit {:?}. ", volume.name, limit.0));
        }
    }
    let sidecars = spec.init_containers.iter().flatten().filter(|c| c.restart_policy.as_deref() == Some("Always"));
    let limits = spec.containers.iter().chain(sidecars).filter_map(storage_limit);
    let total: Option<i64> = limits.map(|limit| Milli::of(limit).value()).reduce(i64::saturating_add);
    let whole = used.containers.iter().map(|c| c.root.plus(c.log)).chain(volumes(pod, used));
    if let Some(total) = total
        && exceeds(whole.fold(DiskUse::default(), DiskUse::plus).bytes, total)
    {
        let total = binary(total);
        return Some(format!("Pod ephemeral local storage usage exceeds the total limit of containers {total}. "));
    }
    for container in &used.containers {
        let limit = spec.containers.iter().find(|c| c.name == *container.name).and_then(storage_limit);
        let own = if has_image_disk { 0 } else { container.root.bytes };
        if let Some(limit) = limit
            && exceeds(own.saturating_add(container.log.bytes), Milli::of(limit).value())
        {
            return Some(format!(
                "Container {} exceeded its local ephemeral storage limit {:?}. ",
                container.name, limit.0
            ));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;
    use std::time::Duration;

    use serde_json::{Value, json};

    use super::{Candidate, EvictionPolicy, Pressure, met, over_limit, victim};
    use crate::agent::runtime::{ContainerUse, DiskUse, NodeUse, PodUse, Supply};
    use crate::object::{Object, Pod};

    const GI: u64 = 1 << 30;

    fn policy(text: &str) -> EvictionPolicy {
        EvictionPolicy::parse(text, Duration::from_secs(300)).unwrap()
    }

    fn node(pods: Vec<PodUse>) -> NodeUse {
        let supply = |capacity, available| Supply { capacity, available };
        NodeUse {
            memory: supply(8 * GI, 85 << 10),
            node_disk: supply(100 * GI, 20 * GI),
            node_inodes: supply(1000, 40),
            image_disk: supply(100 * GI, 20 * GI),
            image_inodes: supply(1000, 40),
            pids: supply(4000, 10),
            has_image_disk: false,
            pods,
        }
    }

    fn pod(name: &str, spec: Value) -> Pod {
        let object = json!({"apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": name, "namespace": "d", "uid": name}, "spec": spec});
        Object::from_json(object).unwrap().get::<k8s_openapi::api::core::v1::Pod>().unwrap().clone()
    }

    /// A pod of one container and one volume: its memory, processes, own files and what is in its volume.
    fn used(pod: &str, memory: u64, processes: u64, root: u64, volume: u64) -> PodUse {
        let disk = |bytes: u64| DiskUse { bytes, inodes: bytes / 10 };
        let container = ContainerUse { name: "c".into(), memory, processes, root: disk(root), log: disk(10) };
        PodUse { pod_uid: pod.into(), containers: vec![container], volumes: vec![("v".into(), disk(volume))] }
    }

    fn spec(requests: Value) -> Value {
        let container = json!({"name": "c", "image": "i", "resources": {"requests": requests}});
        json!({"containers": [container], "volumes": [{"name": "v", "emptyDir": {}}]})
    }

    #[test]
    fn thresholds_are_read_as_the_kubelet_reads_them() {
        for (text, expect) in [
            ("", Ok(0)),
            (EvictionPolicy::DEFAULT, Ok(5)),
            ("memory.available<1.5Gi, pid.available<12.5%", Ok(2)),
            ("memory.available<0%,nodefs.available<100%", Ok(0)),
            ("memory.available>1Gi", Err("invalid eviction threshold syntax memory.available>1Gi, expected")),
            ("memory<1Gi", Err("unsupported eviction signal memory")),
            ("pid.available<1,pid.available<2", Err("duplicate eviction threshold specified for pid.available")),
            ("pid.available<101%", Err("must be <= 100%")),
            ("pid.available<-1%", Err("must be >= 0%")),
            ("pid.available<-1", Err("must be positive")),
            ("pid.available<x", Err("invalid eviction threshold x")),
        ] {
            let read = EvictionPolicy::parse(text, Duration::ZERO).map(|policy| policy.thresholds.len());
            match expect {
                Ok(count) => assert_eq!(read, Ok(count), "{text}"),
                Err(why) => assert!(read.as_ref().is_err_and(|e| e.contains(why)), "{text}: {read:?}"),
            }
        }
        assert_eq!(policy("memory.available<10%").reserved("memory", 1000), Some("100".to_owned()));
        assert_eq!(policy("memory.available<1Ki").reserved("memory", 1000), Some("1024".to_owned()));
        assert_eq!(policy("memory.available<1Ki").reserved("ephemeral-storage", 1000), None);
    }

    #[test]
    fn what_is_short_is_what_is_below_its_threshold() {
        for (thresholds, expect) in [
            ("memory.available<85Ki", vec![]),
            ("memory.available<86Ki", vec!["memory"]),
            ("nodefs.available<20%,imagefs.inodesFree<4%", vec![]),
            (
                "nodefs.available<20.1%,memory.available<1Gi,imagefs.inodesFree<5%",
                vec!["memory", "ephemeral-storage", "inodes"],
            ),
            ("pid.available<10", vec![]),
            ("pid.available<11", vec!["pids"]),
        ] {
            let policy = policy(thresholds);
            let found: Vec<_> = met(&policy, &node(Vec::new())).iter().map(|t| t.signal.resource()).collect();
            assert_eq!(found, expect, "{thresholds}");
        }
        let empty = NodeUse { node_disk: Supply { capacity: 0, available: 0 }, ..node(Vec::new()) };
        assert!(met(&policy("nodefs.available<10%"), &empty).is_empty(), "a disk without a size is not full");
    }

    /// Who goes first, of these pods with their uses.
    fn first(
        threshold: &str,
        has_image_disk: bool,
        pods: &[(&str, Value, Option<PodUse>)],
    ) -> Option<(String, String)> {
        let there: Vec<(Rc<str>, Pod)> =
            pods.iter().map(|(name, spec, _)| ((*name).into(), pod(name, spec.clone()))).collect();
        let candidates: Vec<_> = there.iter().zip(0..).map(|((uid, pod), slot)| Candidate { slot, uid, pod }).collect();
        let node = NodeUse { has_image_disk, ..node(pods.iter().filter_map(|(_, _, used)| used.clone()).collect()) };
        let policy = policy(threshold);
        let threshold = *met(&policy, &node).first().expect("it is met");
        victim(threshold, &node, &candidates).map(|eviction| (eviction.uid.to_string(), eviction.message))
    }

    #[test]
    fn who_uses_more_than_it_asked_for_goes_first_then_the_unimportant_then_the_greedy() {
        let asks = |memory: &str| spec(json!({"memory": memory}));
        let important = |memory: &str, priority: i32| {
            let mut spec = asks(memory);
            spec["priority"] = json!(priority);
            spec
        };
        let mi = |n: u64| n << 20;
        for (pods, expect) in [
            // Who stays within what it asked for goes after who does not, however much it uses.
            (vec![("a", asks("4Gi"), mi(4000)), ("b", asks("10Mi"), mi(11))], Some("b")),
            // Of those who do not, the least important.
            (vec![("a", important("1Mi", 10), mi(500)), ("b", important("1Mi", 9), mi(2))], Some("b")),
            // Of those, who uses most beyond what it asked for.
            (vec![("a", asks("900Mi"), mi(1000)), ("b", asks("1Mi"), mi(200))], Some("b")),
            // Who stays within it goes by priority, too.
            (vec![("a", important("1Gi", 5), mi(9)), ("b", important("1Gi", 4), mi(1))], Some("b")),
            (vec![("a", important("1Mi", 2_000_000_000), mi(500)), ("b", asks("1Gi"), mi(1))], Some("b")),
            (vec![("a", important("1Mi", 2_000_000_000), mi(500))], None),
        ] {
            let pods: Vec<_> = pods.into_iter().map(|(n, spec, m)| (n, spec, Some(used(n, m, 1, 0, 0)))).collect();
            let found = first("memory.available<100Mi", false, &pods).map(|(uid, _)| uid);
            assert_eq!(found.as_deref(), expect, "{pods:?}");
        }
        let unknown = [("a", asks("1Mi"), Some(used("a", mi(9), 1, 0, 0))), ("b", asks("1Gi"), None)];
        let (uid, message) = first("memory.available<100Mi", false, &unknown).expect("one goes");
        assert_eq!(uid, "b");
        assert_eq!(message, "The node was low on resource: memory. Threshold quantity: 100Mi, available: 85Ki. ");
    }

    #[test]
    fn each_resource_is_counted_where_it_is() {
        let plain = |name: &'static str, used: PodUse| (name, spec(json!({})), Some(used));
        let pods = [
            plain("root", used("root", 0, 5, 3000, 0)),
            plain("volume", used("volume", 0, 1, 0, 2000)),
            plain("forks", used("forks", 0, 70, 0, 0)),
        ];
        for (threshold, has_image_disk, expect) in [
            ("nodefs.available<99%", false, "root"),
            ("nodefs.available<99%", true, "volume"),
            ("nodefs.inodesFree<99%", true, "volume"),
            ("imagefs.available<99%", true, "root"),
            ("imagefs.inodesFree<99%", true, "root"),
            ("pid.available<11", false, "forks"),
        ] {
            let (uid, _) = first(threshold, has_image_disk, &pods).expect("one goes");
            assert_eq!(uid, expect, "{threshold} {has_image_disk}");
        }
        let asks = [("a", spec(json!({"ephemeral-storage": "1Ki"})), Some(used("a", 0, 1, 3 << 10, 0)))];
        let (_, message) = first("nodefs.available<50%", false, &asks).expect("it goes");
        let expect = "The node was low on resource: ephemeral-storage. Threshold quantity: 50Gi, available: 20Gi. \
                      Container c was using 3082, request is 1Ki, has larger consumption of ephemeral-storage. ";
        assert_eq!(message, expect);
    }

    #[test]
    fn who_holds_more_than_it_may_is_told_what() {
        let limited = |limit: Value, size: Value| {
            json!({"containers": [{"name": "c", "image": "i", "resources": {"limits": limit}}],
                "volumes": [{"name": "v", "emptyDir": {"sizeLimit": size}}]})
        };
        let storage = |limit: &str| json!({"ephemeral-storage": limit});
        for (spec, root, volume, has_image_disk, expect) in [
            (limited(json!({}), json!("1Ki")), 9999, 1024, false, None),
            (
                limited(json!({}), json!("1Ki")),
                0,
                1025,
                false,
                Some("Usage of EmptyDir volume \"v\" exceeds the limit \"1Ki\". "),
            ),
            (limited(storage("1Ki"), json!(null)), 500, 514, false, None),
            (
                limited(storage("1Ki"), json!(null)),
                500,
                515,
                false,
                Some("Pod ephemeral local storage usage exceeds the total limit of containers 1Ki. "),
            ),
        ] {
            let pod = pod("p", spec);
            let why = over_limit(&pod, &used("p", 0, 1, root, volume), has_image_disk);
            assert_eq!(why.as_deref(), expect, "{root} {volume}");
        }
        let two = json!({"containers": [{"name": "c", "image": "i", "resources": {"limits": storage("1Ki")}},
            {"name": "d", "image": "i", "resources": {"limits": storage("1Gi")}}]});
        let why = over_limit(&pod("p", two), &used("p", 0, 1, 1015, 0), false);
        assert_eq!(why.as_deref(), Some("Container c exceeded its local ephemeral storage limit \"1Ki\". "));
    }

    #[test]
    fn a_node_that_is_short_takes_no_pod_that_makes_it_worse() {
        let (memory, disk) =
            (Pressure { memory: true, ..Pressure::default() }, Pressure { disk: true, ..Pressure::default() });
        let tolerating = json!({"containers": [], "tolerations": [
            {"key": "node.kubernetes.io/memory-pressure", "operator": "Exists", "effect": "NoSchedule"}]});
        let critical = json!({"containers": [], "priority": 2_000_001_000});
        for (pressure, spec, expect) in [
            (Pressure::default(), spec(json!({})), None),
            (memory, spec(json!({})), Some("The node had condition: [MemoryPressure]. ")),
            (memory, spec(json!({"cpu": "1"})), None),
            (memory, tolerating.clone(), None),
            (disk, spec(json!({"cpu": "1"})), Some("The node had condition: [DiskPressure]. ")),
            (disk, tolerating.clone(), Some("The node had condition: [DiskPressure]. ")),
            (
                Pressure { disk: true, ..memory },
                tolerating,
                Some("The node had condition: [MemoryPressure DiskPressure]. "),
            ),
            (disk, critical, None),
        ] {
            let refused = pressure.refuses(&serde_json::from_value(spec.clone()).unwrap());
            assert_eq!(refused.map(|r| r.message).as_deref(), expect, "{pressure:?} {spec}");
        }
    }
}
