//! Whether a pod may run on a node, read naively from the objects: the node's taints and labels, the ports that other
//! pods have there, and the pods that it keeps away from, or that keep away from it.

use k8s_openapi::api::core::v1::{self as core_v1, NodeSelectorRequirement, NodeSelectorTerm, PodAffinityTerm};
use skeg_core::client::View;
use skeg_core::object::{Labels, Node, Object, Pod, Selector, TAINT_UNSCHEDULABLE};
use skeg_core::scheduler::profile::Plugin;

use super::evictions::tolerates;
use super::reading::place;

/// Views of more pods than this are not searched for those on a node.
const SEARCHED: usize = 5_000;

/// Why a pod may not run on a node; `None` if it may, as far as the judged plug-ins see to it.
pub(super) fn unfit(pod: &Pod, node: &Node, pods: &View, judged: impl Fn(Plugin) -> bool) -> Option<String> {
    let tolerations = || pod.spec.tolerations.iter().flatten();
    if node.spec.unschedulable == Some(true) && judged(Plugin::NodeUnschedulable) {
        let of_cordon = |key: &str| key.is_empty() || key == TAINT_UNSCHEDULABLE;
        if !tolerations().any(|toleration| of_cordon(toleration.key.as_deref().unwrap_or_default())) {
            return Some("as unschedulable".to_owned());
        }
    }
    let keeps_away = |taint: &&core_v1::Taint| {
        matches!(&*taint.effect, "NoSchedule" | "NoExecute") && !tolerations().any(|t| tolerates(t, taint))
    };
    let taint = node.spec.taints.iter().flatten().find(keeps_away).filter(|_| judged(Plugin::TaintToleration));
    if let Some(taint) = taint.filter(|taint| taint.key != TAINT_UNSCHEDULABLE) {
        return Some(format!("with the taint {}:{}", taint.key, taint.effect));
    }
    if judged(Plugin::NodeAffinity) && !likes(pod, node) {
        return Some("with other labels than the pod asks for".to_owned());
    }
    let rules = (ports(pod).next().is_some() && judged(Plugin::NodePorts))
        || (anti_affinity(pod).next().is_some() && judged(Plugin::InterPodAffinity));
    if !rules || pods.len() > SEARCHED {
        return None;
    }
    let others = pods.iter().filter_map(|(_, object)| match object {
        Object::Pod(other) => Some(other),
        _ => None,
    });
    let is_there = |other: &&Pod| place(other).is_some_and(|place| **place == *node.name()) && other.uid() != pod.uid();
    others.filter(is_there).find_map(|other| {
        let taken = ports(pod).find(|port| ports(other).any(|other| other == *port));
        if let Some((port, protocol)) = taken.filter(|_| judged(Plugin::NodePorts)) {
            return Some(format!("with {} on port {port}/{protocol}", other.key()));
        }
        let apart = anti_affinity(pod).any(|term| keeps_from(pod, term, other));
        (apart && judged(Plugin::InterPodAffinity)).then(|| format!("with {}, which it keeps away from", other.key()))
    })
}

/// The ports of the node that a pod takes. Those of single addresses are left out.
fn ports(pod: &Pod) -> impl Iterator<Item = (i32, &str)> {
    let all = pod.spec.containers.iter().flat_map(|container| container.ports.iter().flatten());
    let everywhere = all.filter(|port| port.host_ip.as_deref().unwrap_or_default().is_empty());
    everywhere.filter_map(|port| Some((port.host_port?, port.protocol.as_deref().unwrap_or("TCP"))))
}

/// The required terms of anti-affinity between nodes. Those with selectors of namespaces or with label keys are left
/// out.
fn anti_affinity(pod: &Pod) -> impl Iterator<Item = &PodAffinityTerm> {
    let rules = pod.spec.affinity.as_ref().and_then(|affinity| affinity.pod_anti_affinity.as_ref());
    let terms = rules.and_then(|rules| rules.required_during_scheduling_ignored_during_execution.as_ref());
    terms.into_iter().flatten().filter(|term| {
        let is_plain = term.namespace_selector.is_none() && term.namespaces.is_none();
        is_plain
            && term.match_label_keys.is_none()
            && term.mismatch_label_keys.is_none()
            && term.topology_key == HOSTNAME
    })
}

const HOSTNAME: &str = "kubernetes.io/hostname";

fn keeps_from(pod: &Pod, term: &PodAffinityTerm, other: &Pod) -> bool {
    let selector = term.label_selector.as_ref().and_then(|s| Selector::from_label_selector(s).ok());
    pod.namespace() == other.namespace() && selector.is_some_and(|s| s.matches(other.meta.labels.as_ref()))
}

/// Whether a node has the labels, or the name, that a pod asks for.
pub(super) fn likes(pod: &Pod, node: &Node) -> bool {
    let labels = node.meta.labels.as_ref();
    let has = |(key, value): (&String, &String)| labels.and_then(|labels| labels.get(key)) == Some(value);
    let affinity = pod.spec.affinity.as_ref().and_then(|affinity| affinity.node_affinity.as_ref());
    let required = affinity.and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref());
    let term_fits = |term: &NodeSelectorTerm| {
        let name = Labels::from([("metadata.name".to_owned(), node.name().to_owned())]);
        let by_label = term.match_expressions.iter().flatten().all(|rule| rule_fits(rule, labels));
        by_label && term.match_fields.iter().flatten().all(|rule| rule_fits(rule, Some(&name)))
    };
    let terms_fit = required.is_none_or(|required| required.node_selector_terms.iter().any(term_fits));
    terms_fit && pod.spec.node_selector.iter().flatten().all(has)
}

fn rule_fits(rule: &NodeSelectorRequirement, labels: Option<&Labels>) -> bool {
    let value = labels.and_then(|labels| labels.get(&rule.key));
    let listed = || value.is_some_and(|value| rule.values.iter().flatten().any(|one| one == value));
    let bound = || rule.values.iter().flatten().next().and_then(|bound| bound.parse::<i64>().ok());
    let number = || value.and_then(|value| value.parse::<i64>().ok());
    match &*rule.operator {
        "In" => listed(),
        "NotIn" => !listed(),
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        "Gt" => number().zip(bound()).is_some_and(|(number, bound)| number > bound),
        "Lt" => number().zip(bound()).is_some_and(|(number, bound)| number < bound),
        // What is not known is not judged.
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use skeg_core::client::Views;
    use skeg_core::object::{Kind, Object, Pod};

    use super::unfit;

    fn pod(name: &str, spec: Value) -> Pod {
        let mut spec = spec;
        spec["containers"] =
            if spec["containers"].is_null() { json!([{"name": "c"}]) } else { spec["containers"].take() };
        let metadata = json!({"name": name, "namespace": "d", "uid": name, "labels": {"app": "web"}});
        let value = json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec});
        match Object::from_json(value) {
            Ok(Object::Pod(pod)) => pod,
            other => panic!("{other:?}"),
        }
    }

    /// Whether a pod may run beside a pod with the port 80 on a node of zone `a` with the rank 3 and the taint `mine`.
    fn fits(spec: Value) -> bool {
        let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n", "labels": {"zone": "a", "rank": "3"}},
            "spec": {"taints": [{"key": "mine", "effect": "NoSchedule"}]}});
        let Ok(Object::Node(node)) = Object::from_json(node) else { panic!("a node") };
        let there =
            json!({"nodeName": "n", "containers": [{"name": "c", "ports": [{"containerPort": 80, "hostPort": 80}]}]});
        let views = Views::of(&[Kind::POD], [pod("other", there).into()]);
        unfit(&pod("p", spec), &node, views.view(Kind::POD), |_| true).is_none()
    }

    #[test]
    fn a_node_is_read_as_the_scheduler_should() {
        let mine = json!([{"key": "mine", "operator": "Exists"}]);
        let affinity = |key: &str, operator: &str, values: Value| {
            let rule = json!({"key": key, "operator": operator, "values": values});
            let required = json!({"nodeSelectorTerms": [{"matchExpressions": [rule]}]});
            json!({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": required}})
        };
        let apart = |app: &str| {
            let term = json!({"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": {"app": app}}});
            json!({"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}})
        };
        let port = |port: u16| json!([{"name": "c", "ports": [{"containerPort": 80, "hostPort": port}]}]);
        assert!(!fits(json!({})), "the taint keeps it away");
        for (rule, value, expect) in [
            ("priority", json!(1), true),
            ("nodeSelector", json!({"zone": "a"}), true),
            ("nodeSelector", json!({"zone": "b"}), false),
            ("affinity", affinity("zone", "In", json!(["a", "b"])), true),
            ("affinity", affinity("zone", "NotIn", json!(["a"])), false),
            ("affinity", affinity("disk", "Exists", json!(null)), false),
            ("affinity", affinity("disk", "DoesNotExist", json!(null)), true),
            ("affinity", affinity("rank", "Gt", json!(["2"])), true),
            ("affinity", affinity("rank", "Lt", json!(["2"])), false),
            ("affinity", apart("web"), false),
            ("affinity", apart("db"), true),
            ("containers", port(80), false),
            ("containers", port(81), true),
        ] {
            let told = format!("{rule}: {value}");
            assert_eq!(fits(json!({"tolerations": mine, rule: value})), expect, "{told}");
        }
    }
}
