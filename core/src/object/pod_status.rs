//! A Pod's status, with a summary of the fields that are read most often.

use k8s_openapi::api::core::v1 as core_v1;
use serde::Serialize;

use super::part::Summarize;
use super::{Stamp, Text};
use crate::machine::Wall;

/// A Pod's status in compact form. It has fields for what most pods have; `rest` keeps all other fields of Kubernetes'
/// type, so that nothing that a client sent is lost.
///
/// `Serialize` is for digests only: clients see [`to_whole`](Self::to_whole).
#[derive(Clone, PartialEq, Default, Debug, Serialize)]
#[allow(missing_docs)]
pub struct PodStatus {
    pub phase: Text,
    pub reason: Text,
    pub message: Text,
    pub nominated_node_name: Text,
    pub qos_class: Text,
    pub host_ip: Text,
    pub host_ips: Addresses,
    pub pod_ip: Text,
    pub pod_ips: Addresses,
    pub start_time: Stamp,
    pub observed_generation: Option<i64>,
    pub conditions: Vec<PodCondition>,
    pub init_container_statuses: Vec<ContainerStatus>,
    pub container_statuses: Vec<ContainerStatus>,
    /// Kubernetes' type with the fields that are not above; those above are unset in it. `None` if there are none.
    pub rest: Option<Box<core_v1::PodStatus>>,
}

/// The list of addresses of a pod or its host (`podIPs`, `hostIPs`). The first address has a field of its own (`podIP`,
/// `hostIP`).
#[derive(Clone, PartialEq, Default, Debug, Serialize)]
pub enum Addresses {
    /// There is no list.
    #[default]
    Absent,
    /// The list has one item, which equals the field of its own.
    TheOne,
    /// Any other list.
    These(Box<[Text]>),
}

/// A condition of a Pod.
#[derive(Clone, PartialEq, Default, Debug, Serialize)]
#[allow(missing_docs)]
pub struct PodCondition {
    pub type_: Text,
    pub status: Text,
    pub reason: Text,
    pub message: Text,
    pub last_transition_time: Stamp,
    pub last_probe_time: Stamp,
    pub observed_generation: Option<i64>,
}

/// The status of a container.
#[derive(Clone, PartialEq, Default, Debug, Serialize)]
#[allow(missing_docs)]
pub struct ContainerStatus {
    pub name: Text,
    pub image: Text,
    pub image_id: Text,
    pub container_id: Text,
    pub state: ContainerState,
    pub last_state: ContainerState,
    pub restart_count: i32,
    pub ready: bool,
    pub started: Option<bool>,
    /// Kubernetes' type with the fields that are not above; those above are unset in it. `None` if there are none.
    pub rest: Option<Box<core_v1::ContainerStatus>>,
}

/// The current or last state of a container.
#[derive(Clone, PartialEq, Default, Debug, Serialize)]
#[allow(missing_docs)]
pub enum ContainerState {
    /// There is no state.
    #[default]
    Absent,
    /// There is a state with no field set: the last state of a container that has not terminated before.
    Empty,
    Waiting {
        reason: Text,
        message: Text,
    },
    Running {
        started_at: Stamp,
    },
    Terminated(Box<Terminated>),
    /// More than one state at once. No kubelet sends this, but the API does not forbid it.
    Several(Box<[ContainerState]>),
}

/// How a container terminated.
#[derive(Clone, PartialEq, Default, Debug, Serialize)]
#[allow(missing_docs)]
pub struct Terminated {
    pub container_id: Text,
    pub reason: Text,
    pub message: Text,
    pub exit_code: i32,
    pub signal: Option<i32>,
    pub started_at: Stamp,
    pub finished_at: Stamp,
}

/// `None` for an empty list, since Kubernetes' types do not distinguish the two (`omitempty`).
fn some<T, U>(list: &[T], to_whole: impl FnMut(&T) -> U) -> Option<Vec<U>> {
    (!list.is_empty()).then(|| list.iter().map(to_whole).collect())
}

fn each<T, U>(list: Option<Vec<T>>, new: impl FnMut(T) -> U) -> Vec<U> {
    let mut all: Vec<U> = list.map_or_else(Vec::new, |list| list.into_iter().map(new).collect());
    // Keep no unused capacity, since the store holds many versions.
    all.shrink_to_fit();
    all
}

/// The remaining fields of a status after the common ones are taken out; `None` if none of them is set.
fn rest<T: Default + PartialEq>(left: T) -> Option<Box<T>> {
    (left != T::default()).then(|| Box::new(left))
}

impl PodStatus {
    /// Converts from Kubernetes' type.
    pub fn new(mut whole: core_v1::PodStatus) -> PodStatus {
        let host_ip = Text::from(whole.host_ip.take());
        let pod_ip = Text::from(whole.pod_ip.take());
        PodStatus {
            phase: whole.phase.take().into(),
            reason: whole.reason.take().into(),
            message: whole.message.take().into(),
            nominated_node_name: whole.nominated_node_name.take().into(),
            qos_class: whole.qos_class.take().into(),
            host_ips: Addresses::new(each(whole.host_ips.take(), |a| Text::from(&*a.ip)), &host_ip),
            host_ip,
            pod_ips: Addresses::new(each(whole.pod_ips.take(), |a| Text::from(&*a.ip)), &pod_ip),
            pod_ip,
            start_time: whole.start_time.take().into(),
            observed_generation: whole.observed_generation.take(),
            conditions: each(whole.conditions.take(), PodCondition::new),
            init_container_statuses: each(whole.init_container_statuses.take(), ContainerStatus::new),
            container_statuses: each(whole.container_statuses.take(), ContainerStatus::new),
            rest: rest(whole),
        }
    }

    /// Converts to Kubernetes' type.
    pub fn to_whole(&self) -> core_v1::PodStatus {
        core_v1::PodStatus {
            phase: self.phase.to_option(),
            reason: self.reason.to_option(),
            message: self.message.to_option(),
            nominated_node_name: self.nominated_node_name.to_option(),
            qos_class: self.qos_class.to_option(),
            host_ip: self.host_ip.to_option(),
            host_ips: some(self.host_ips.all(&self.host_ip), |a| core_v1::HostIP { ip: a.to_string() }),
            pod_ip: self.pod_ip.to_option(),
            pod_ips: some(self.pod_ips.all(&self.pod_ip), |a| core_v1::PodIP { ip: a.to_string() }),
            start_time: self.start_time.to_time(),
            observed_generation: self.observed_generation,
            conditions: some(&self.conditions, PodCondition::to_whole),
            init_container_statuses: some(&self.init_container_statuses, ContainerStatus::to_whole),
            container_statuses: some(&self.container_statuses, ContainerStatus::to_whole),
            ..self.rest.as_deref().cloned().unwrap_or_default()
        }
    }

    /// A condition by type.
    pub fn condition(&self, type_: &Text) -> Option<&PodCondition> {
        self.conditions.iter().find(|c| c.type_ == *type_)
    }

    /// Sets a condition. Its `lastTransitionTime` becomes `now` if its status changes, and is kept otherwise.
    pub fn set_condition_at(&mut self, now: Wall, mut condition: PodCondition) {
        let old = self.condition(&condition.type_).filter(|old| old.status == condition.status);
        condition.last_transition_time = old.map_or(Stamp::of(now), |old| old.last_transition_time);
        self.set_condition(condition);
    }

    /// Replaces the condition of the same type, or appends it.
    pub fn set_condition(&mut self, condition: PodCondition) {
        match self.conditions.iter_mut().find(|c| c.type_ == condition.type_) {
            Some(old) => *old = condition,
            None => {
                // Keep no unused capacity, since the store holds many versions.
                self.conditions.reserve_exact(1);
                self.conditions.push(condition);
            }
        }
    }
}

impl Addresses {
    fn new(all: Vec<Text>, first: &Text) -> Addresses {
        match &*all {
            [] => Addresses::Absent,
            [one] if one == first => Addresses::TheOne,
            _ => Addresses::These(all.into()),
        }
    }

    /// All addresses, given the one that has a field of its own.
    pub fn all<'a>(&'a self, first: &'a Text) -> &'a [Text] {
        match self {
            Addresses::Absent => &[],
            Addresses::TheOne => std::slice::from_ref(first),
            Addresses::These(all) => all,
        }
    }
}

impl PodCondition {
    fn new(whole: core_v1::PodCondition) -> PodCondition {
        PodCondition {
            type_: Text::from(&*whole.type_),
            status: Text::from(&*whole.status),
            reason: whole.reason.into(),
            message: whole.message.into(),
            last_transition_time: whole.last_transition_time.into(),
            last_probe_time: whole.last_probe_time.into(),
            observed_generation: whole.observed_generation,
        }
    }

    fn to_whole(&self) -> core_v1::PodCondition {
        core_v1::PodCondition {
            type_: self.type_.to_string(),
            status: self.status.to_string(),
            reason: self.reason.to_option(),
            message: self.message.to_option(),
            last_transition_time: self.last_transition_time.to_time(),
            last_probe_time: self.last_probe_time.to_time(),
            observed_generation: self.observed_generation,
        }
    }
}

impl ContainerStatus {
    pub(super) fn new(mut whole: core_v1::ContainerStatus) -> ContainerStatus {
        ContainerStatus {
            name: Text::from(&*std::mem::take(&mut whole.name)),
            image: Text::from(&*std::mem::take(&mut whole.image)),
            image_id: Text::from(&*std::mem::take(&mut whole.image_id)),
            container_id: whole.container_id.take().into(),
            state: whole.state.take().into(),
            last_state: whole.last_state.take().into(),
            restart_count: std::mem::take(&mut whole.restart_count),
            ready: std::mem::take(&mut whole.ready),
            started: whole.started.take(),
            rest: rest(whole),
        }
    }

    pub(super) fn to_whole(&self) -> core_v1::ContainerStatus {
        core_v1::ContainerStatus {
            name: self.name.to_string(),
            image: self.image.to_string(),
            image_id: self.image_id.to_string(),
            container_id: self.container_id.to_option(),
            state: self.state.to_whole(),
            last_state: self.last_state.to_whole(),
            restart_count: self.restart_count,
            ready: self.ready,
            started: self.started,
            ..self.rest.as_deref().cloned().unwrap_or_default()
        }
    }
}

impl From<Option<core_v1::ContainerState>> for ContainerState {
    fn from(whole: Option<core_v1::ContainerState>) -> ContainerState {
        let Some(whole) = whole else { return ContainerState::Absent };
        let waiting =
            whole.waiting.map(|w| ContainerState::Waiting { reason: w.reason.into(), message: w.message.into() });
        let running = whole.running.map(|r| ContainerState::Running { started_at: r.started_at.into() });
        let terminated = whole.terminated.map(|t| ContainerState::Terminated(Box::new(Terminated::new(t))));
        let mut all: Vec<ContainerState> = [waiting, running, terminated].into_iter().flatten().collect();
        match all.len() {
            0 => ContainerState::Empty,
            1 => all.remove(0),
            _ => ContainerState::Several(all.into()),
        }
    }
}

impl ContainerState {
    fn to_whole(&self) -> Option<core_v1::ContainerState> {
        let mut whole = core_v1::ContainerState::default();
        match self {
            ContainerState::Absent => return None,
            ContainerState::Empty => {}
            ContainerState::Waiting { reason, message } => {
                whole.waiting =
                    Some(core_v1::ContainerStateWaiting { reason: reason.to_option(), message: message.to_option() });
            }
            ContainerState::Running { started_at } => {
                whole.running = Some(core_v1::ContainerStateRunning { started_at: started_at.to_time() });
            }
            ContainerState::Terminated(t) => whole.terminated = Some(t.to_whole()),
            ContainerState::Several(all) => {
                for state in all.iter().filter_map(ContainerState::to_whole) {
                    whole.waiting = whole.waiting.or(state.waiting);
                    whole.running = whole.running.or(state.running);
                    whole.terminated = whole.terminated.or(state.terminated);
                }
            }
        }
        Some(whole)
    }

    /// The states that are set; normally exactly one.
    pub fn all(&self) -> &[ContainerState] {
        match self {
            ContainerState::Several(all) => all,
            one => std::slice::from_ref(one),
        }
    }

    /// The terminated state; `None` if there is none.
    pub fn terminated(&self) -> Option<&Terminated> {
        self.all().iter().find_map(|state| match state {
            ContainerState::Terminated(t) => Some(&**t),
            _ => None,
        })
    }

    /// The start time of a running container; `None` if it is not running.
    pub fn running(&self) -> Option<Stamp> {
        self.all().iter().find_map(|state| match state {
            ContainerState::Running { started_at } => Some(*started_at),
            _ => None,
        })
    }
}

impl Terminated {
    fn new(whole: core_v1::ContainerStateTerminated) -> Terminated {
        Terminated {
            container_id: whole.container_id.into(),
            reason: whole.reason.into(),
            message: whole.message.into(),
            exit_code: whole.exit_code,
            signal: whole.signal,
            started_at: whole.started_at.into(),
            finished_at: whole.finished_at.into(),
        }
    }

    fn to_whole(&self) -> core_v1::ContainerStateTerminated {
        core_v1::ContainerStateTerminated {
            container_id: self.container_id.to_option(),
            reason: self.reason.to_option(),
            message: self.message.to_option(),
            exit_code: self.exit_code,
            signal: self.signal,
            started_at: self.started_at.to_time(),
            finished_at: self.finished_at.to_time(),
        }
    }
}

/// A Pod's phase.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs)]
pub enum PodPhase {
    Pending,
    Running,
    Succeeded,
    Failed,
    Unknown,
    /// A phase that is not defined by Kubernetes.
    Other,
}

/// The status of a Pod's `Ready` condition.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PodReadiness {
    /// There is no such condition.
    Absent,
    /// The condition is not `True`.
    Not,
    /// The condition is `True`.
    Ready,
}

/// The facts about a Pod's status that are read most often.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PodSummary {
    /// `lastTransitionTime` of the `Ready` condition.
    since: Stamp,
    /// The highest restart count among its containers, without init containers.
    pub restarts: i32,
    /// `status.phase`; `Pending` if unset.
    pub phase: PodPhase,
    /// Whether the pod is ready.
    pub readiness: PodReadiness,
}

impl Summarize for PodStatus {
    type Summary = PodSummary;

    fn summarize(&self) -> PodSummary {
        let ready = self.condition(&Text::READY);
        PodSummary {
            since: ready.map_or(Stamp::NONE, |c| c.last_transition_time),
            restarts: self.container_statuses.iter().map(|c| c.restart_count).max().unwrap_or(0),
            phase: match self.phase.as_str() {
                "" | "Pending" => PodPhase::Pending,
                "Running" => PodPhase::Running,
                "Succeeded" => PodPhase::Succeeded,
                "Failed" => PodPhase::Failed,
                "Unknown" => PodPhase::Unknown,
                _ => PodPhase::Other,
            },
            readiness: match ready {
                None => PodReadiness::Absent,
                Some(c) if c.status == Text::TRUE => PodReadiness::Ready,
                Some(_) => PodReadiness::Not,
            },
        }
    }
}

impl PodSummary {
    /// Whether the `Ready` condition is `True`.
    pub fn is_ready(&self) -> bool {
        self.readiness == PodReadiness::Ready
    }

    /// `lastTransitionTime` of the `Ready` condition; `None` if unset.
    pub fn since(&self) -> Option<Wall> {
        self.since.wall()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::{Addresses, ContainerState, PodPhase, PodReadiness, PodStatus};
    use crate::machine::Wall;
    use crate::object::{Part, Stamp, Summarized, Text};

    fn status(value: Value) -> PodStatus {
        PodStatus::new(serde_json::from_value(value).expect("a status"))
    }

    #[test]
    fn what_came_in_goes_out() {
        let ended = json!({"terminated": {"exitCode": 3, "signal": 9, "reason": "OOMKilled", "message": "m",
            "startedAt": "2026-01-01T00:00:01Z", "finishedAt": "2026-01-01T00:00:09Z", "containerID": "x://y"}});
        let waiting = json!({"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 10s"}});
        let running = json!({"running": {"startedAt": "2026-01-01T00:00:02Z"}});
        let several = json!({"running": {"startedAt": "2026-01-01T00:00:03Z"}, "terminated": {"exitCode": 5}});
        let container = |name: &str, state: &Value, last: &Value| {
            json!({"name": name, "image": "i", "imageID": "sha", "containerID": "sim://1", "ready": true,
                "started": true, "restartCount": 4, "state": state, "lastState": last, "stopSignal": "SIGTERM",
                "volumeMounts": [{"name": "v", "mountPath": "/v"}]})
        };
        let full = json!({
            "phase": "Running", "reason": "r", "message": "m", "nominatedNodeName": "n", "qosClass": "Burstable",
            "hostIP": "10.0.0.1", "hostIPs": [{"ip": "10.0.0.1"}],
            "podIP": "10.1.0.1", "podIPs": [{"ip": "10.1.0.1"}, {"ip": "fd00::1"}],
            "startTime": "2026-01-01T00:00:00Z", "observedGeneration": 2, "resize": "Proposed",
            "resourceClaimStatuses": [{"name": "c"}],
            "ephemeralContainerStatuses": [
                {"name": "e", "image": "", "imageID": "", "ready": false, "restartCount": 0},
            ],
            "conditions": [
                {"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:07Z"},
                {"type": "x.io/gate", "status": "Unknown", "reason": "Why", "message": "because",
                 "lastProbeTime": "2026-01-01T00:00:08Z", "observedGeneration": 2},
            ],
            "initContainerStatuses": [container("a", &ended, &json!({}))],
            "containerStatuses": [
                container("b", &waiting, &ended), container("c", &running, &json!({})),
                container("d", &several, &json!({})),
                {"name": "f", "image": "", "imageID": "", "ready": false, "restartCount": 0},
            ],
        });
        for value in [json!({}), json!({"phase": "Odd", "podIP": "10.0.0.1"}), full.clone()] {
            assert_eq!(serde_json::to_value(status(value.clone()).to_whole()).expect("it is written"), value);
        }
        let full = status(full);
        assert_eq!((&full.host_ips, full.pod_ips.all(&full.pod_ip).len()), (&Addresses::TheOne, 2));
        // If several states are set, each one counts, as for API validation and the kubelet.
        let several = &full.container_statuses[2].state;
        assert!(matches!(several, ContainerState::Several(all) if all.len() == 2));
        assert_eq!(
            (several.running().map(Stamp::is_some), several.terminated().map(|t| t.exit_code)),
            (Some(true), Some(5))
        );
        assert_eq!(full.init_container_statuses[0].state.terminated().map(|t| t.exit_code), Some(3));
    }

    #[test]
    fn what_is_common_has_no_rest() {
        let value = json!({"phase": "Pending", "conditions": [{"type": "Ready", "status": "False"}],
            "containerStatuses": [{"name": "a", "image": "i", "imageID": "", "ready": false, "restartCount": 0}]});
        let status = status(value);
        assert!(status.rest.is_none() && status.container_statuses[0].rest.is_none());
        assert!(size_of::<PodStatus>() <= 272, "{}", size_of::<PodStatus>());
    }

    #[test]
    fn the_brief_is_that_of_the_status_also_after_a_change() {
        let container = |n| json!({"name": "c", "image": "i", "imageID": "", "ready": true, "restartCount": n});
        let status = status(json!({
            "phase": "Running",
            "conditions": [
                {"type": "Initialized", "status": "True", "lastTransitionTime": "2026-01-01T00:00:01Z"},
                {"type": "Ready", "status": "True", "lastTransitionTime": "1970-01-01T00:00:07Z"},
            ],
            "containerStatuses": [container(3), container(5)],
        }));
        let mut held = Summarized::new(status);
        let summary = held.summary();
        assert_eq!((summary.phase, summary.is_ready(), summary.restarts), (PodPhase::Running, true, 5));
        assert_eq!(summary.since(), Some(Wall(7_000_000)));
        let copy = held.clone();
        let changed = held.make_mut();
        changed.phase = Text::FAILED;
        changed.conditions[1].status = Text::FALSE;
        assert_eq!((held.summary().phase, held.summary().readiness), (PodPhase::Failed, PodReadiness::Not));
        assert_eq!(copy.summary(), summary, "a copy that was made before is as it was");
        let none = Summarized::new(PodStatus::default()).summary();
        assert_eq!((none.phase, none.readiness, none.since()), (PodPhase::Pending, PodReadiness::Absent, None));
        assert_eq!(size_of::<Summarized<PodStatus>>(), 24);
    }
}
