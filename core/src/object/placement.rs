//! The rules of where a pod may run: node selectors and affinity, taints and tolerations.

use k8s_openapi::api::core::v1 as core_v1;
use k8s_openapi::api::core::v1::{Taint, Toleration};

use super::{Labels, Requirement};

/// Whether a toleration tolerates a taint (`ToleratesTaint`).
pub fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let effect = toleration.effect.as_deref().unwrap_or("");
    let key = toleration.key.as_deref().unwrap_or("");
    if !effect.is_empty() && effect != taint.effect || !key.is_empty() && key != taint.key {
        return false;
    }
    match toleration.operator.as_deref().unwrap_or("") {
        "" | "Equal" => toleration.value.as_deref().unwrap_or("") == taint.value.as_deref().unwrap_or(""),
        "Exists" => true,
        _ => false,
    }
}

/// Whether a node fits the pod's `nodeSelector` and required node affinity, as component-helpers'
/// `GetRequiredNodeAffinity`.
pub fn matches_node(spec: &core_v1::PodSpec, node_name: &str, labels: Option<&Labels>) -> bool {
    let has = |k: &String, v: &String| labels.is_some_and(|l| l.get(k) == Some(v));
    if !spec.node_selector.iter().flatten().all(|(k, v)| has(k, v)) {
        return false;
    }
    let required = spec
        .affinity
        .as_ref()
        .and_then(|a| a.node_affinity.as_ref())
        .and_then(|n| n.required_during_scheduling_ignored_during_execution.as_ref());
    let Some(required) = required else { return true };
    required.node_selector_terms.iter().any(|term| term_matches(term, node_name, labels))
}

fn term_matches(term: &core_v1::NodeSelectorTerm, node_name: &str, labels: Option<&Labels>) -> bool {
    let (expressions, fields) = (term.match_expressions.as_deref(), term.match_fields.as_deref());
    if expressions.is_none_or(<[_]>::is_empty) && fields.is_none_or(<[_]>::is_empty) {
        return false;
    }
    let name = Labels::from([("metadata.name".to_owned(), node_name.to_owned())]);
    let all = |list: Option<&[core_v1::NodeSelectorRequirement]>, labels: Option<&Labels>| {
        list.into_iter().flatten().all(|r| requirement(r).is_some_and(|r| r.matches(labels)))
    };
    all(expressions, labels) && all(fields, Some(&name))
}

fn requirement(r: &core_v1::NodeSelectorRequirement) -> Option<Requirement> {
    let (key, values) = (r.key.clone(), r.values.clone().unwrap_or_default());
    let bound = || values.first().and_then(|v| v.parse().ok());
    Some(match r.operator.as_str() {
        "In" => Requirement::In(key, values),
        "NotIn" => Requirement::NotIn(key, values),
        "Exists" => Requirement::Exists(key),
        "DoesNotExist" => Requirement::Absent(key),
        "Gt" => Requirement::Gt(key, bound()?),
        "Lt" => Requirement::Lt(key, bound()?),
        _ => return None,
    })
}
