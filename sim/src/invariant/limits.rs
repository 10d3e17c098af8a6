//! `limits-are-kept`: containers of new pods have what the LimitRanges of their namespace give those that do not say,
//! and are within their bounds. Checked once API servers must have heard of a LimitRange.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Container;
use serde_json::Value;
use skeg_core::object::{Milli, Object, ObjectKey};

use super::binding::VIEW_LAG;
use super::{Commit, Invariant, Report};

/// The items about containers, with the time of their creation.
#[derive(Debug, Default)]
pub(super) struct Limits(BTreeMap<ObjectKey, (f64, Vec<Value>)>);

impl Limits {
    pub fn range(&mut self, commit: &Commit<'_>) {
        let Some(key) = commit.new.or(commit.old).map(Object::key) else { return };
        let Some(range) = commit.new else {
            self.0.remove(&key);
            return;
        };
        let mut items = range.to_json()["spec"]["limits"].as_array().cloned().unwrap_or_default();
        items.retain(|item| item["type"] == "Container");
        // What a change allows or asks for is not heard of at once, either.
        self.0.insert(key, (commit.at, items));
    }

    pub fn pod(&self, commit: &Commit<'_>, report: &mut Report) {
        let (None, Some(pod)) = (commit.old, commit.new_pod()) else { return };
        let heard = self
            .0
            .iter()
            .filter(|(key, (since, _))| key.namespace() == pod.namespace() && commit.at - since > VIEW_LAG);
        for (key, (_, items)) in heard {
            let containers = || pod.spec.containers.iter().chain(pod.spec.init_containers.iter().flatten());
            for item in items {
                if let Some(wrong) = containers().find_map(|container| wrong(container, item)) {
                    report.broken(Invariant::LimitsAreKept, commit.at, format!("{} by {key}: {wrong}", pod.key()));
                }
            }
        }
    }
}

/// What a container has and must not have, or must have and has not.
fn wrong(container: &Container, item: &Value) -> Option<String> {
    let name = &container.name;
    let resources = container.resources.clone().unwrap_or_default();
    let (requests, limits) = (resources.requests.unwrap_or_default(), resources.limits.unwrap_or_default());
    let each = |field: &str| item[field].as_object().into_iter().flatten().map(|(name, amount)| (name.clone(), amount));
    let missing = each("default").find(|(resource, _)| !limits.contains_key(resource)).map(|(r, _)| ("limit", r));
    let missing = missing.or_else(|| {
        each("defaultRequest").find(|(resource, _)| !requests.contains_key(resource)).map(|(r, _)| ("request", r))
    });
    if let Some((what, resource)) = missing {
        return Some(format!("container {name} has no {what} of {resource}"));
    }
    let amount = |value: &Value| value.as_str().and_then(|text| Milli::parse(text).ok());
    let less = each("min").find(|(r, least)| requests.get(r).map(Milli::of) < amount(least));
    if let Some((resource, _)) = less {
        return Some(format!("container {name} asks for too little {resource}"));
    }
    let more = each("max").find(|(r, most)| limits.get(r).map(Milli::of) > amount(most));
    more.map(|(resource, _)| format!("container {name} may use too much {resource}"))
}
