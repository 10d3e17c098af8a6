//! Validation of scheduling constraints: affinity, tolerations, topology spread. Source: `pkg/apis/core/validation`.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{
    Affinity, NodeSelectorRequirement, NodeSelectorTerm, PodAffinityTerm, Taint, Toleration, TopologySpreadConstraint,
    WeightedPodAffinityTerm,
};

use super::path::{Go, Path};
use super::{meta, names, one_of, push_all};
use crate::object::FieldError;

const EFFECTS: &[&str] = &["NoSchedule", "PreferNoSchedule", "NoExecute"];

/// `ValidateTolerations`.
pub(in crate::object) fn tolerations(list: &[Toleration], at: &Path<'_>, errors: &mut Vec<FieldError>) {
    for (i, t) in list.iter().enumerate() {
        let at = at.index(i);
        let text = |s: &'_ Option<String>| s.clone().unwrap_or_default();
        let (key, operator, value, effect) = (text(&t.key), text(&t.operator), text(&t.value), text(&t.effect));
        if !key.is_empty() {
            push_all(errors, &at.field("key"), &key, names::qualified(&key));
        }
        if key.is_empty() && operator != "Exists" {
            let detail = "operator must be Exists when `key` is empty, which means \"match all values and all keys\"";
            errors.push(FieldError::invalid(at.field("operator"), &operator, detail));
        }
        if t.toleration_seconds.is_some() && effect != "NoExecute" {
            let detail = "effect must be 'NoExecute' when `tolerationSeconds` is set";
            errors.push(FieldError::invalid(at.field("effect"), &effect, detail));
        }
        match operator.as_str() {
            "" | "Equal" => {
                let wrongs = names::label_value(&value);
                if !wrongs.is_empty() {
                    errors.push(FieldError::invalid(at.field("operator"), &value, wrongs.join(";")));
                }
            }
            "Exists" if !value.is_empty() => {
                let detail = "value must be empty when `operator` is 'Exists'";
                errors.push(FieldError::invalid(at.field("operator"), &value, detail));
            }
            "Exists" => {}
            "Lt" | "Gt" => {
                if value.parse::<i64>().is_err() {
                    let detail = "value must be a valid integer when `operator` is 'Lt' or 'Gt'";
                    errors.push(FieldError::invalid(at.field("value"), &value, detail));
                }
            }
            other => {
                errors.push(FieldError::not_supported(at.field("operator"), other, &["Equal", "Exists", "Lt", "Gt"]));
            }
        }
        if !effect.is_empty() {
            one_of(&effect, EFFECTS, &at.field("effect"), errors);
        }
    }
}

/// Validates the taints of a node.
pub(super) fn taints(list: &[Taint], at: &Path<'_>, errors: &mut Vec<FieldError>) {
    let mut seen = BTreeSet::new();
    for (i, t) in list.iter().enumerate() {
        let at = at.index(i);
        push_all(errors, &at.field("key"), &t.key, names::qualified(&t.key));
        let value = t.value.as_deref().unwrap_or("");
        let wrongs = names::label_value(value);
        if !wrongs.is_empty() {
            errors.push(FieldError::invalid(at.field("value"), value, wrongs.join(";")));
        }
        if t.effect.is_empty() {
            errors.push(FieldError::required(at.field("effect"), ""));
        } else {
            one_of(&t.effect, EFFECTS, &at.field("effect"), errors);
        }
        if !seen.insert((t.key.as_str(), t.effect.as_str())) {
            let shown =
                format!("{{\"Key\":{:?},\"Value\":{value:?},\"Effect\":{:?},\"TimeAdded\":null}}", t.key, t.effect);
            let mut error = FieldError::duplicate(at, Go(shown));
            error.detail = "taints must be unique by key and effect pair".to_owned();
            errors.push(error);
        }
    }
}

/// `validateAffinity`.
pub(super) fn affinity(a: &Affinity, at: &Path<'_>, errors: &mut Vec<FieldError>) {
    const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
    const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";
    if let Some(n) = &a.node_affinity {
        let at = at.field("nodeAffinity");
        if let Some(required) = &n.required_during_scheduling_ignored_during_execution {
            let at = at.field(REQUIRED);
            let at = at.field("nodeSelectorTerms");
            if required.node_selector_terms.is_empty() {
                errors.push(FieldError::required(at, "must have at least one node selector term"));
            }
            for (i, term) in required.node_selector_terms.iter().enumerate() {
                node_term(term, true, &at.index(i), errors);
            }
        }
        for (i, p) in n.preferred_during_scheduling_ignored_during_execution.iter().flatten().enumerate() {
            let at = at.field(PREFERRED);
            let at = at.index(i);
            weight(p.weight, &at, errors);
            // A preferred term may have values that are not valid label values: such a term matches no node.
            node_term(&p.preference, false, &at.field("preference"), errors);
        }
    }
    let of_pods = [
        (
            "podAffinity",
            a.pod_affinity.as_ref().map(|p| {
                (
                    &p.required_during_scheduling_ignored_during_execution,
                    &p.preferred_during_scheduling_ignored_during_execution,
                )
            }),
        ),
        (
            "podAntiAffinity",
            a.pod_anti_affinity.as_ref().map(|p| {
                (
                    &p.required_during_scheduling_ignored_during_execution,
                    &p.preferred_during_scheduling_ignored_during_execution,
                )
            }),
        ),
    ];
    for (field, terms) in of_pods {
        let Some((required, preferred)) = terms else { continue };
        let at = at.field(field);
        for (i, term) in required.iter().flatten().enumerate() {
            pod_term(term, &at.field(REQUIRED).index(i), errors);
        }
        for (i, term) in preferred.iter().flatten().enumerate() {
            weighted(term, &at.field(PREFERRED).index(i), errors);
        }
    }
}

fn weighted(term: &WeightedPodAffinityTerm, at: &Path<'_>, errors: &mut Vec<FieldError>) {
    weight(term.weight, at, errors);
    pod_term(&term.pod_affinity_term, &at.field("podAffinityTerm"), errors);
}

fn weight(weight: i32, at: &Path<'_>, errors: &mut Vec<FieldError>) {
    if !(1..=100).contains(&weight) {
        errors.push(FieldError::invalid(at.field("weight"), weight, "must be in the range 1-100"));
    }
}

fn pod_term(term: &PodAffinityTerm, at: &Path<'_>, errors: &mut Vec<FieldError>) {
    for (s, field) in [(&term.label_selector, "labelSelector"), (&term.namespace_selector, "namespaceSelector")] {
        if let Some(s) = s {
            meta::selector(s, &at.field(field), errors);
        }
    }
    for name in term.namespaces.iter().flatten() {
        push_all(errors, &at.field("namespace"), name, names::label(name));
    }
    label_keys(term, at, errors);
    if term.topology_key.is_empty() {
        errors.push(FieldError::required(at.field("topologyKey"), "can not be empty"));
    }
    push_all(errors, &at.field("topologyKey"), &term.topology_key, names::qualified(&term.topology_key));
}

/// `validateMatchLabelKeysAndMismatchLabelKeys`.
fn label_keys(term: &PodAffinityTerm, at: &Path<'_>, errors: &mut Vec<FieldError>) {
    let matching = term.match_label_keys.as_deref().unwrap_or_default();
    let other = term.mismatch_label_keys.as_deref().unwrap_or_default();
    for (keys, field) in [(matching, "matchLabelKeys"), (other, "mismatchLabelKeys")] {
        if !keys.is_empty() && term.label_selector.is_none() {
            let detail = "must not be specified when labelSelector is not set";
            errors.push(FieldError::forbidden(at.field(field), detail));
            continue;
        }
        for (i, key) in keys.iter().enumerate() {
            push_all(errors, &at.field(field).index(i), key, names::qualified(key));
        }
    }
    let mut selected: BTreeSet<&str> = BTreeSet::new();
    if let Some(s) = &term.label_selector {
        selected.extend(s.match_labels.iter().flatten().map(|(k, _)| k.as_str()));
        for e in s.match_expressions.iter().flatten() {
            if let Some(i) = matching.iter().position(|k| *k == e.key).filter(|_| selected.contains(e.key.as_str())) {
                let detail = "exists in both matchLabelKeys and labelSelector";
                errors.push(FieldError::invalid(at.index(i), &e.key, detail));
            }
            selected.insert(&e.key);
        }
    }
    for (i, key) in matching.iter().enumerate().filter(|(_, key)| other.contains(key)) {
        let detail = "exists in both matchLabelKeys and mismatchLabelKeys";
        errors.push(FieldError::invalid(at.field("matchLabelKeys").index(i), key, detail));
    }
}

/// Validates a term of a node selector. If `possible` is true, its values must be valid label values.
pub(super) fn node_term(term: &NodeSelectorTerm, possible: bool, at: &Path<'_>, errors: &mut Vec<FieldError>) {
    for (i, r) in term.match_expressions.iter().flatten().enumerate() {
        node_requirement(r, possible, &at.field("matchExpressions").index(i), errors);
    }
    for (i, r) in term.match_fields.iter().flatten().enumerate() {
        field_requirement(r, &at.field("matchFields").index(i), errors);
    }
}

fn node_requirement(r: &NodeSelectorRequirement, possible: bool, at: &Path<'_>, errors: &mut Vec<FieldError>) {
    let values = r.values.as_deref().unwrap_or_default();
    match r.operator.as_str() {
        "In" | "NotIn" if values.is_empty() => {
            let detail = "must be specified when `operator` is 'In' or 'NotIn'";
            errors.push(FieldError::required(at.field("values"), detail));
        }
        "In" | "NotIn" => {}
        "Exists" | "DoesNotExist" if !values.is_empty() => {
            let detail = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";
            errors.push(FieldError::forbidden(at.field("values"), detail));
        }
        "Exists" | "DoesNotExist" => {}
        "Gt" | "Lt" if values.len() != 1 => {
            let detail = "must be specified single value when `operator` is 'Lt' or 'Gt'";
            errors.push(FieldError::required(at.field("values"), detail));
        }
        "Gt" | "Lt" => {}
        other => errors.push(FieldError::invalid(at.field("operator"), other, "not a valid selector operator")),
    }
    push_all(errors, &at.field("key"), &r.key, names::qualified(&r.key));
    for (i, value) in values.iter().enumerate().filter(|_| possible) {
        push_all(errors, &at.field("values").index(i), value, names::label_value(value));
    }
}

fn field_requirement(r: &NodeSelectorRequirement, at: &Path<'_>, errors: &mut Vec<FieldError>) {
    match r.operator.as_str() {
        "In" | "NotIn" => {
            if r.values.as_deref().unwrap_or_default().len() != 1 {
                let detail = "must be only one value when `operator` is 'In' or 'NotIn' for node field selector";
                errors.push(FieldError::required(at.field("values"), detail));
            }
        }
        other => errors.push(FieldError::invalid(at.field("operator"), other, "not a valid selector operator")),
    }
    if r.key != "metadata.name" {
        errors.push(FieldError::invalid(at.field("key"), &r.key, "not a valid field selector key"));
        return;
    }
    for (i, name) in r.values.iter().flatten().enumerate() {
        push_all(errors, &at.field("values").index(i), name, names::subdomain(name));
    }
}

/// `validateTopologySpreadConstraints`.
pub(super) fn spreading(list: &[TopologySpreadConstraint], at: &Path<'_>, errors: &mut Vec<FieldError>) {
    for (i, c) in list.iter().enumerate() {
        let at = at.index(i);
        if c.max_skew <= 0 {
            errors.push(FieldError::invalid(at.field("maxSkew"), c.max_skew, "must be greater than zero"));
        }
        if c.topology_key.is_empty() {
            errors.push(FieldError::required(at.field("topologyKey"), "can not be empty"));
        }
        let actions = &["DoNotSchedule", "ScheduleAnyway"];
        one_of(&c.when_unsatisfiable, actions, &at.field("whenUnsatisfiable"), errors);
        let pair = |c: &TopologySpreadConstraint| (c.topology_key.clone(), c.when_unsatisfiable.clone());
        if list[i + 1..].iter().any(|later| pair(later) == pair(c)) {
            let pair = format!("{{{}, {}}}", c.topology_key, c.when_unsatisfiable);
            errors.push(FieldError::duplicate(at.field("{topologyKey, whenUnsatisfiable}"), pair));
        }
        if let Some(domains) = c.min_domains {
            let at = at.field("minDomains");
            if domains <= 0 {
                errors.push(FieldError::invalid(at, domains, "must be greater than zero"));
            }
            if c.when_unsatisfiable != "DoNotSchedule" {
                let detail =
                    format!("can only use minDomains if whenUnsatisfiable=DoNotSchedule, not {}", c.when_unsatisfiable);
                errors.push(FieldError::invalid(at, domains, detail));
            }
        }
        for (policy, field) in
            [(&c.node_affinity_policy, "nodeAffinityPolicy"), (&c.node_taints_policy, "nodeTaintsPolicy")]
        {
            if let Some(policy) = policy {
                one_of(policy, &["Honor", "Ignore"], &at.field(field), errors);
            }
        }
        spread_keys(c, &at.field("matchLabelKeys"), errors);
        if let Some(s) = &c.label_selector {
            meta::selector(s, &at.field("labelSelector"), errors);
        }
    }
}

/// `validateMatchLabelKeysInTopologySpread`.
fn spread_keys(c: &TopologySpreadConstraint, at: &Path<'_>, errors: &mut Vec<FieldError>) {
    let keys = c.match_label_keys.as_deref().unwrap_or_default();
    if !keys.is_empty() && c.label_selector.is_none() {
        errors.push(FieldError::forbidden(at, "must not be specified when labelSelector is not set"));
    }
    let selects = |key: &String| {
        c.label_selector.as_ref().is_some_and(|s| {
            let expressions = s.match_expressions.iter().flatten();
            s.match_labels.as_ref().is_some_and(|l| l.contains_key(key))
                || expressions.into_iter().any(|e| e.key == *key)
        })
    };
    for (i, key) in keys.iter().enumerate() {
        push_all(errors, &at.index(i), key, names::qualified(key));
        if selects(key) {
            errors.push(FieldError::invalid(at.index(i), key, "exists in both matchLabelKeys and labelSelector"));
        }
    }
}
