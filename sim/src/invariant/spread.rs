//! Whether a pod keeps to its hard constraints of how pods are spread over domains, read naively from the objects.
//! Constraints with `minDomains`, `matchLabelKeys` or `nodeTaintsPolicy: Honor` are left out.
//!
//! Source: <https://kubernetes.io/docs/concepts/scheduling-eviction/topology-spread-constraints/>, KEP-895.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::TopologySpreadConstraint;
use skeg_core::client::View;
use skeg_core::object::{Node, Object, Pod, Selector};

use super::placement::likes;
use super::reading::place;

fn hard(pod: &Pod) -> impl Iterator<Item = &TopologySpreadConstraint> {
    let all = pod.spec.topology_spread_constraints.iter().flatten();
    all.filter(|constraint| constraint.when_unsatisfiable == "DoNotSchedule")
}

fn is_judged(constraint: &TopologySpreadConstraint) -> bool {
    constraint.min_domains.is_none()
        && constraint.match_label_keys.is_none()
        && constraint.node_taints_policy.as_deref().is_none_or(|policy| policy == "Ignore")
}

fn domain<'a>(node: &'a Node, key: &str) -> Option<&'a str> {
    node.meta.labels.as_ref()?.get(key).map(String::as_str)
}

/// Which constraint a pod breaks on a node; `None` if none. The views must show every pod that has a node.
pub(super) fn broken(pod: &Pod, node: &Node, pods: &View, nodes: &View) -> Option<String> {
    hard(pod).filter(|constraint| is_judged(constraint)).find_map(|constraint| {
        let key = &constraint.topology_key;
        let Some(here) = domain(node, key) else { return Some(format!("without the label {key}")) };
        let selector = constraint.label_selector.as_ref().and_then(|s| Selector::from_label_selector(s).ok())?;
        let honours = constraint.node_affinity_policy.as_deref().is_none_or(|policy| policy == "Honor");
        let counts = |node: &Node| {
            hard(pod).all(|other| domain(node, &other.topology_key).is_some()) && (!honours || likes(pod, node))
        };
        let all = nodes.iter().filter_map(|(_, object)| match object {
            Object::Node(node) if counts(node) => Some((node.name(), domain(node, key)?)),
            _ => None,
        });
        let domains: BTreeMap<&str, &str> = all.collect();
        let mut counted: BTreeMap<&str, i64> = domains.values().map(|domain| (*domain, 0)).collect();
        for (_, object) in pods.iter() {
            let Object::Pod(other) = object else { continue };
            let is_one = other.namespace() == pod.namespace()
                && other.uid() != pod.uid()
                && other.meta.deletion_timestamp.is_none()
                && selector.matches(other.meta.labels.as_ref());
            let domain = place(other).filter(|_| is_one).and_then(|place| domains.get(&**place));
            if let Some(count) = domain.and_then(|domain| counted.get_mut(domain)) {
                *count += 1;
            }
        }
        let itself = i64::from(selector.matches(pod.meta.labels.as_ref()));
        let least = counted.values().min().copied().unwrap_or(0);
        let skew = counted.get(here).copied().unwrap_or(0) + itself - least;
        (skew > i64::from(constraint.max_skew)).then(|| {
            format!("in {key} {here}, which then has {skew} more than another, and {} may", constraint.max_skew)
        })
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use skeg_core::client::Views;
    use skeg_core::object::{Kind, Object};

    use super::broken;

    fn object(kind: &str, name: &str, labels: Value, spec: Value) -> Object {
        let metadata =
            json!({"name": name, "namespace": if kind == "Pod" { "d" } else { "" }, "uid": name, "labels": labels});
        Object::from_json(json!({"apiVersion": "v1", "kind": kind, "metadata": metadata, "spec": spec}))
            .expect("it reads")
    }

    /// Whether a pod may be on a node of zone `a`, where so many pods of its kind are in each zone.
    fn fits(constraint: Value, there: &[(&str, usize)]) -> bool {
        let containers = json!([{"name": "c"}]);
        let mut all = Vec::new();
        for (zone, count) in there {
            all.push(object("Node", zone, json!({"zone": zone}), json!({})));
            for n in 0..*count {
                let spec = json!({"nodeName": zone, "containers": containers});
                all.push(object("Pod", &format!("{zone}-{n}"), json!({"app": "web"}), spec));
            }
        }
        // Neither counts: one is in another namespace of labels, the other on a node without a zone.
        all.push(object("Node", "bare", json!({}), json!({})));
        all.push(object("Pod", "other", json!({"app": "db"}), json!({"nodeName": "a", "containers": containers})));
        let views = Views::of(&[Kind::POD, Kind::NODE], all);
        let (pods, nodes) = (views.view(Kind::POD), views.view(Kind::NODE));
        let spec = json!({"containers": containers, "topologySpreadConstraints": [constraint]});
        let Object::Pod(pod) = object("Pod", "p", json!({"app": "web"}), spec) else { panic!("a pod") };
        let Some(Object::Node(node)) = nodes.find("", "a") else { panic!("a node") };
        broken(&pod, node, pods, nodes).is_none()
    }

    #[test]
    fn skews_are_counted_as_documented() {
        let constraint = |changes: Value| {
            let mut value = json!({"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule",
                "labelSelector": {"matchLabels": {"app": "web"}}});
            for (field, change) in changes.as_object().expect("fields") {
                value[field] = change.clone();
            }
            value
        };
        for (patch, there, expect) in [
            (json!({}), vec![("a", 0), ("b", 0)], true),
            (json!({}), vec![("a", 1), ("b", 1)], true),
            (json!({}), vec![("a", 1), ("b", 0)], false),
            (json!({"maxSkew": 2}), vec![("a", 1), ("b", 0)], true),
            (json!({}), vec![("a", 5)], true),
            (json!({"whenUnsatisfiable": "ScheduleAnyway"}), vec![("a", 9), ("b", 0)], true),
            (json!({"labelSelector": {"matchLabels": {"app": "db"}}}), vec![("a", 9), ("b", 0)], true),
            (json!({"topologyKey": "rack"}), vec![("a", 0)], false),
        ] {
            assert_eq!(fits(constraint(patch.clone()), &there), expect, "{patch} {there:?}");
        }
    }
}
