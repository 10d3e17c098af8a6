//! Admission of a pod on the node: what the kubelet's predicates (`pkg/kubelet/lifecycle/predicate.go`) check again
//! when a bound pod arrives: resources, node affinity, host ports.

use std::collections::BTreeMap;
use std::rc::Rc;

use k8s_openapi::api::core::v1 as core_v1;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use crate::object::{self, Labels, Milli, is_extended_resource, matches_node};

/// Resource amounts. CPU is in thousandths of a core, everything else in whole units.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Amounts {
    /// Thousandths of a core.
    pub(super) cpu: i64,
    /// Bytes.
    pub(super) memory: i64,
    /// All other resources: `ephemeral-storage`, `nvidia.com/gpu`, …; few, sorted by name.
    pub(super) others: Vec<(Rc<str>, i64)>,
}

impl Amounts {
    fn of(map: Option<&BTreeMap<String, Quantity>>) -> Amounts {
        let mut a = Amounts::default();
        for (name, quantity) in map.into_iter().flatten() {
            a.add_one(name, quantity);
        }
        a
    }

    fn add_one(&mut self, name: &str, quantity: &Quantity) {
        match name {
            "cpu" => self.cpu += Milli::of(quantity).milli(),
            "memory" => self.memory += Milli::of(quantity).value(),
            "pods" => {}
            _ => *self.other(name) += Milli::of(quantity).value(),
        }
    }

    fn other(&mut self, name: &str) -> &mut i64 {
        let at = match self.others.binary_search_by(|(n, _)| (**n).cmp(name)) {
            Ok(at) => at,
            Err(at) => {
                self.others.insert(at, (Rc::from(name), 0));
                at
            }
        };
        &mut self.others[at].1
    }

    fn has(&self, name: &str) -> bool {
        self.others.binary_search_by(|(n, _)| (**n).cmp(name)).is_ok()
    }

    pub(super) fn get(&self, name: &str) -> i64 {
        self.others.binary_search_by(|(n, _)| (**n).cmp(name)).map_or(0, |at| self.others[at].1)
    }

    /// Adds `times` (1 or -1) times the other amounts.
    pub(super) fn add(&mut self, other: &Amounts, times: i64) {
        self.cpu += other.cpu * times;
        self.memory += other.memory * times;
        for (name, amount) in &other.others {
            *self.other(name) += amount * times;
        }
    }
}

/// The effective resource requests of a pod.
pub(super) fn pod_requests(spec: &core_v1::PodSpec) -> Amounts {
    let mut asks = Amounts::default();
    for (name, amount) in object::pod_requests(spec) {
        match name.as_str() {
            "cpu" => asks.cpu = amount.milli(),
            "memory" => asks.memory = amount.value(),
            "pods" => {}
            _ => *asks.other(&name) = amount.value(),
        }
    }
    asks
}

/// When a pod is turned away, and for whose sake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    /// When it comes.
    Admission,
    /// Later, because it holds more than it may.
    Limit,
    /// Later, because the node is short of something.
    Pressure,
}

/// Why a pod was rejected, or evicted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Rejection {
    /// When, and for whose sake.
    pub(super) cause: Cause,
    /// `OutOfcpu`, `NodeAffinity`, `NodePorts`.
    pub(super) reason: String,
    /// The kubelet's message.
    pub(super) message: String,
}

impl Rejection {
    pub(super) fn on_admission(reason: String, message: String) -> Rejection {
        Rejection { cause: Cause::Admission, reason, message }
    }
}

/// The node's allocatable resources and what its pods use of them.
#[derive(Debug, Default)]
pub(super) struct Room {
    /// Allocatable resources.
    pub(super) allocatable: Amounts,
    /// Maximum number of pods.
    pub(super) max_pods: i64,
    /// Total requests of the admitted pods that have not terminated.
    pub(super) used: Amounts,
    /// Number of those pods.
    pub(super) pods: i64,
    /// Host ports in use: protocol, address, port.
    ports: Vec<HostPort>,
}

type HostPort = (String, String, i32);

fn host_ports(spec: &core_v1::PodSpec) -> impl Iterator<Item = HostPort> + '_ {
    let containers = spec
        .containers
        .iter()
        .chain(spec.init_containers.iter().flatten().filter(|c| c.restart_policy.as_deref() == Some("Always")));
    containers.flat_map(|c| c.ports.iter().flatten()).filter_map(|p| {
        let port = p.host_port.filter(|p| *p > 0)?;
        let ip = p.host_ip.as_deref().filter(|ip| !ip.is_empty()).unwrap_or("0.0.0.0");
        Some((p.protocol.as_deref().unwrap_or("TCP").to_owned(), ip.to_owned(), port))
    })
}

fn ports_clash(a: &HostPort, b: &HostPort) -> bool {
    a.0 == b.0 && a.2 == b.2 && (a.1 == b.1 || a.1 == "0.0.0.0" || b.1 == "0.0.0.0")
}

impl Room {
    /// Creates it from allocatable quantities.
    pub(super) fn new(allocatable: &BTreeMap<String, Quantity>) -> Room {
        let max_pods = allocatable.get("pods").map_or(i64::MAX, |q| Milli::of(q).value());
        Room { allocatable: Amounts::of(Some(allocatable)), max_pods, ..Room::default() }
    }

    /// Whether a pod fits beside the pods that are already admitted.
    pub(super) fn check(
        &self,
        spec: &core_v1::PodSpec,
        asks: &Amounts,
        node_name: &str,
        labels: Option<&Labels>,
    ) -> Result<(), Rejection> {
        if self.pods + 1 > self.max_pods {
            return Err(out_of("pods", 1, self.pods, self.max_pods));
        }
        let mut needs = vec![
            ("cpu", asks.cpu, self.used.cpu, self.allocatable.cpu),
            ("memory", asks.memory, self.used.memory, self.allocatable.memory),
        ];
        // Extended resources that the kubelet knows nothing of are the scheduler's business.
        let known = |name: &str| self.allocatable.has(name) || !is_extended_resource(name);
        let others = asks.others.iter().filter(|(name, _)| known(name));
        needs.extend(others.map(|(n, q)| (&**n, *q, self.used.get(n), self.allocatable.get(n))));
        for (name, requested, used, capacity) in needs {
            if requested > 0 && requested > capacity - used {
                return Err(out_of(name, requested, used, capacity));
            }
        }
        if !matches_node(spec, node_name, labels) {
            return Err(predicate("NodeAffinity", "node(s) didn't match Pod's node affinity/selector"));
        }
        if host_ports(spec).any(|p| self.ports.iter().any(|q| ports_clash(&p, q))) {
            return Err(predicate("NodePorts", "node(s) didn't have free ports for the requested pod ports"));
        }
        Ok(())
    }

    /// Why a pod that holds `held` cannot have `asks` instead: `Infeasible` if it never can, `Deferred` if it cannot at
    /// present. `None` if it can.
    pub(super) fn refuses(&self, held: &Amounts, asks: &Amounts) -> Option<(&'static str, String)> {
        let needs = [
            ("memory", asks.memory, self.used.memory - held.memory, self.allocatable.memory),
            ("cpu", asks.cpu, self.used.cpu - held.cpu, self.allocatable.cpu),
        ];
        if let Some((name, requested, _, capacity)) =
            needs.iter().find(|(_, requested, _, capacity)| requested > capacity)
        {
            let why = format!("Node didn't have enough capacity: {name}, requested: {requested}, capacity: {capacity}");
            return Some(("Infeasible", why));
        }
        let mut short = needs.iter().rev().filter(|(_, requested, used, capacity)| *requested > capacity - used);
        short
            .next()
            .map(|(name, requested, used, capacity)| ("Deferred", out_of(name, *requested, *used, *capacity).message))
    }

    /// Counts other requests of a pod that is there.
    pub(super) fn exchange(&mut self, held: &Amounts, asks: &Amounts) {
        self.used.add(held, -1);
        self.used.add(asks, 1);
    }

    /// Adds a pod's requests and host ports.
    pub(super) fn take(&mut self, spec: &core_v1::PodSpec, asks: &Amounts) {
        self.used.add(asks, 1);
        self.pods += 1;
        self.ports.extend(host_ports(spec));
    }

    /// Subtracts a pod's requests and host ports.
    pub(super) fn leave(&mut self, spec: &core_v1::PodSpec, asks: &Amounts) {
        self.used.add(asks, -1);
        self.pods -= 1;
        assert!(self.pods >= 0, "a pod leaves once");
        for port in host_ports(spec) {
            if let Some(at) = self.ports.iter().position(|p| *p == port) {
                self.ports.swap_remove(at);
            }
        }
    }
}

fn out_of(name: &str, requested: i64, used: i64, capacity: i64) -> Rejection {
    let message =
        format!("Node didn't have enough resource: {name}, requested: {requested}, used: {used}, capacity: {capacity}");
    Rejection::on_admission(format!("OutOf{name}"), message)
}

fn predicate(name: &str, why: &str) -> Rejection {
    Rejection::on_admission(name.to_owned(), format!("Predicate {name} failed: {why}"))
}

#[cfg(test)]
mod tests {
    use super::{Room, pod_requests};
    use k8s_openapi::api::core::v1::PodSpec;
    use serde_json::{Value, json};

    fn spec(v: Value) -> PodSpec {
        serde_json::from_value(v).unwrap()
    }

    fn room() -> Room {
        Room::new(&serde_json::from_value(json!({"cpu": "4", "memory": "8Gi", "pods": "2", "x.io/gpu": "1"})).unwrap())
    }

    fn asks(cpu: &str) -> Value {
        json!({"containers": [{"name": "c", "resources": {"requests": {"cpu": cpu}}}]})
    }

    fn check(room: &Room, pod: Value, expect: Result<(), (&str, &str)>) {
        let pod = spec(pod);
        let labels = [("disk".to_owned(), "ssd".to_owned())].into();
        let got = room.check(&pod, &pod_requests(&pod), "n1", Some(&labels)).map_err(|r| (r.reason, r.message));
        assert_eq!(got, expect.map_err(|(r, m)| (r.to_owned(), m.to_owned())));
    }

    #[test]
    fn rejects_in_the_kubelets_words() {
        let mut room = room();
        check(&room, asks("4"), Ok(()));
        let full = spec(asks("4"));
        room.take(&full, &pod_requests(&full));
        let words = "Node didn't have enough resource: cpu, requested: 100, used: 4000, capacity: 4000";
        check(&room, asks("100m"), Err(("OutOfcpu", words)));
        check(&room, json!({"containers": []}), Ok(()));
        let empty = spec(json!({"containers": []}));
        room.take(&empty, &pod_requests(&empty));
        let words = "Node didn't have enough resource: pods, requested: 1, used: 2, capacity: 2";
        check(&room, json!({"containers": []}), Err(("OutOfpods", words)));
        room.leave(&full, &pod_requests(&full));
        check(&room, asks("4"), Ok(()));
        let words = "Node didn't have enough resource: x.io/gpu, requested: 2, used: 0, capacity: 1";
        let gpu = json!({"containers": [{"name": "c", "resources": {"requests": {"x.io/gpu": 2}}}]});
        check(&room, gpu, Err(("OutOfx.io/gpu", words)));
        let advertised = json!({"containers": [{"name": "c", "resources": {"requests": {"y.io/foo": 2}}}]});
        check(&room, advertised, Ok(()));
    }

    #[test]
    fn node_affinity_and_ports() {
        let mut room = room();
        let words = "Predicate NodeAffinity failed: node(s) didn't match Pod's node affinity/selector";
        let select = |k: &str, v: &str| json!({"containers": [], "nodeSelector": {k: v}});
        check(&room, select("disk", "ssd"), Ok(()));
        check(&room, select("disk", "hdd"), Err(("NodeAffinity", words)));
        let by_name = |name: &str| {
            json!({"containers": [], "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution":
                {"nodeSelectorTerms": [{"matchFields": [{"key": "metadata.name", "operator": "In", "values": [name]}]}]}}}})
        };
        check(&room, by_name("n1"), Ok(()));
        check(&room, by_name("n2"), Err(("NodeAffinity", words)));
        let port = json!({"containers": [{"name": "c", "ports": [{"containerPort": 80, "hostPort": 80}]}]});
        let holder = spec(port.clone());
        room.take(&holder, &pod_requests(&holder));
        let words = "Predicate NodePorts failed: node(s) didn't have free ports for the requested pod ports";
        check(&room, port, Err(("NodePorts", words)));
    }
}
