//! RuntimeClass: a pod that names a runtime class gets its overhead and its scheduling constraints.
//!
//! Source: `plugin/pkg/admission/runtimeclass`, `pkg/util/tolerations` (KEP-585, KEP-688).

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Toleration;
use k8s_openapi::api::node::v1::{Overhead, Scheduling};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use serde::Deserialize;

use crate::api::Status;
use crate::apiserver::write::{Deciding, Decision, Write};
use crate::object::{Dynamic, Kind, Milli, Object, ObjectKey, Pod};
use crate::store::StoreKey;

type Amounts = BTreeMap<String, Quantity>;

impl Deciding<'_> {
    /// Admits a pod with the runtime class that it names, if it names one.
    pub(super) fn runtime_class(&mut self, write: &Write, object: &mut Object) -> Result<(), Decision> {
        let Object::Pod(pod) = object else { return Ok(()) };
        let Some(name) = pod.spec.shared.runtime_class_name.clone() else {
            return refuse_overhead(pod, None, Vec::new());
        };
        let key = ObjectKey::new(Kind::RUNTIME_CLASS, "", &name);
        let Some(Object::Dynamic(class)) = self.object(write, &key) else {
            let why = format!("pod rejected: RuntimeClass {name:?} not found");
            return Err(Decision::refuse_if(&key, Status::forbidden(Kind::POD.row(), pod.name(), &why)));
        };
        let keys = vec![StoreKey::Object(key)];
        let fixed = read::<Overhead>(&class, "overhead").map(|o| o.pod_fixed.unwrap_or_default());
        if let Some(fixed) = &fixed
            && pod.spec.shared.overhead.is_none()
        {
            pod.spec_mut().shared.make_mut().overhead = Some(fixed.clone());
        }
        refuse_overhead(pod, fixed.as_ref(), keys.clone())?;
        match read::<Scheduling>(&class, "scheduling") {
            Some(scheduling) => schedule(pod, scheduling, keys),
            None => Ok(()),
        }
    }
}

/// A field of a class; validation has made sure that it can be deserialized.
fn read<T: for<'de> Deserialize<'de>>(class: &Dynamic, field: &str) -> Option<T> {
    class.body.get(field).filter(|v| !v.is_null()).and_then(|v| T::deserialize(v).ok())
}

/// Rejects a pod whose overhead is not that of its class, or that has an overhead without a class.
fn refuse_overhead(pod: &Pod, fixed: Option<&Amounts>, keys: Vec<StoreKey>) -> Result<(), Decision> {
    let amounts = |list: &Amounts| list.iter().map(|(k, q)| (k.clone(), Milli::of(q))).collect::<BTreeMap<_, _>>();
    let why = match (&pod.spec.shared.overhead, fixed) {
        (Some(own), Some(fixed)) if amounts(own) != amounts(fixed) => {
            "pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead"
        }
        (Some(_), None) => "pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead",
        _ => return Ok(()),
    };
    Err(Decision::AnswerIf(keys, Err(Status::forbidden(Kind::POD.row(), pod.name(), why))))
}

/// Adds the class's node selector and tolerations to the pod's.
fn schedule(pod: &mut Pod, scheduling: Scheduling, keys: Vec<StoreKey>) -> Result<(), Decision> {
    let own = pod.spec.shared.node_selector.clone().unwrap_or_default();
    let wanted = scheduling.node_selector.unwrap_or_default();
    for (label, value) in &wanted {
        if let Some(other) = own.get(label).filter(|other| *other != value) {
            let why = format!(
                "conflict: runtimeClass.scheduling.nodeSelector[{label}] = {value}; pod.spec.nodeSelector[{label}] = \
                 {other}"
            );
            return Err(Decision::AnswerIf(keys, Err(Status::forbidden(Kind::POD.row(), pod.name(), &why))));
        }
    }
    let spec = pod.spec_mut().shared.make_mut();
    if !wanted.is_empty() {
        spec.node_selector.get_or_insert_default().extend(wanted);
    }
    let more = scheduling.tolerations.unwrap_or_default();
    if !more.is_empty() {
        let own = spec.tolerations.take().unwrap_or_default();
        spec.tolerations = Some(merged([own, more].concat()));
    }
    Ok(())
}

/// Merges tolerations (`MergeTolerations`): if one tolerates everything that another does, only the former is kept.
fn merged(all: Vec<Toleration>) -> Vec<Toleration> {
    let mut kept: Vec<Toleration> = Vec::new();
    for (i, t) in all.iter().enumerate() {
        let covered =
            kept.iter().any(|k| covers(k, t)) || all[i + 1..].iter().any(|later| later != t && covers(later, t));
        if !covered {
            kept.push(t.clone());
        }
    }
    kept
}

/// Whether `wide` tolerates everything that `t` does (`isSuperset`).
fn covers(wide: &Toleration, t: &Toleration) -> bool {
    if wide == t {
        return true;
    }
    let text = |s: &'_ Option<String>| s.clone().unwrap_or_default();
    let (operator, key, effect) = (text(&wide.operator), text(&wide.key), text(&wide.effect));
    if text(&t.key) != key && !(key.is_empty() && operator == "Exists") {
        return false;
    }
    if text(&t.effect) != effect && !effect.is_empty() {
        return false;
    }
    if effect == "NoExecute"
        && let Some(seconds) = wide.toleration_seconds
        && t.toleration_seconds.is_none_or(|s| s > seconds)
    {
        return false;
    }
    match operator.as_str() {
        "Equal" | "" => text(&t.operator) == "Equal" && text(&t.value) == text(&wide.value),
        "Exists" => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::{Toleration, merged};
    use serde_json::{Value, json};

    #[test]
    fn the_wider_toleration_is_kept() {
        let check = |all: Value, want: Value| {
            let read = |v: Value| serde_json::from_value::<Vec<Toleration>>(v).unwrap();
            assert_eq!(merged(read(all.clone())), read(want), "{all}");
        };
        let exact = json!({"key": "a", "operator": "Equal", "value": "b", "effect": "NoSchedule"});
        let any = json!({"key": "a", "operator": "Exists"});
        let all = json!({"operator": "Exists"});
        let short = json!({"key": "a", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 5});
        let long = json!({"key": "a", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 9});
        check(json!([exact, exact]), json!([exact]));
        check(json!([exact, any]), json!([any]));
        check(json!([any, exact]), json!([any]));
        check(json!([exact, any, all]), json!([all]));
        check(json!([short, long]), json!([long]));
        let other = json!({"key": "c", "operator": "Exists"});
        check(json!([any, other]), json!([any, other]));
    }
}
