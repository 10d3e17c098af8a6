//! Built-in resources that are served in a second version beside the held one, and the conversion between the two.
//!
//! Source: upstream's `pkg/apis/events/v1/conversion.go` and `pkg/apis/autoscaling/v1/conversion.go`. What the older
//! version of a HorizontalPodAutoscaler has no field for stands in annotations there, as upstream puts it.

use serde_json::{Map, Value, json};

use super::{FieldSelector, Kind};
use crate::api::{Patch, Status};

/// The second versions that are served: kind, group and version.
pub const SECOND_VERSIONS: [(Kind, &str, &str); 2] =
    [(Kind::EVENT, "events.k8s.io", "v1"), (Kind::HORIZONTAL_POD_AUTOSCALER, "autoscaling", "v1")];

/// Fields of an Event that have other names in `events.k8s.io/v1`: as they are held, and there.
const EVENT_FIELDS: [(&str, &str); 7] = [
    ("involvedObject", "regarding"),
    ("message", "note"),
    ("source", "deprecatedSource"),
    ("firstTimestamp", "deprecatedFirstTimestamp"),
    ("lastTimestamp", "deprecatedLastTimestamp"),
    ("count", "deprecatedCount"),
    ("reportingComponent", "reportingController"),
];
const METRICS: &str = "autoscaling.alpha.kubernetes.io/metrics";
const BEHAVIOR: &str = "autoscaling.alpha.kubernetes.io/behavior";
const CURRENT_METRICS: &str = "autoscaling.alpha.kubernetes.io/current-metrics";
const CONDITIONS: &str = "autoscaling.alpha.kubernetes.io/conditions";

/// Converts an object in any served version to the held one. `apiVersion` says which version it is written in.
pub fn to_held(kind: Kind, mut value: Value) -> Value {
    let written = value["apiVersion"].as_str().unwrap_or("").to_owned();
    match (kind, &*written) {
        (Kind::EVENT, "events.k8s.io/v1") => rename(&mut value, |(held, there)| (there, held)),
        (Kind::HORIZONTAL_POD_AUTOSCALER, "autoscaling/v1") => autoscaler_to_held(&mut value),
        _ => return value,
    }
    value["apiVersion"] = json!(kind.row().api_version());
    value
}

/// A field selector in a second version, by the names of the held one.
pub fn fields_to_held(kind: Kind, mut fields: FieldSelector) -> Result<FieldSelector, Status> {
    if kind == Kind::EVENT {
        for (path, _, _) in &mut fields.terms {
            let (first, rest) = path.split_once('.').map_or((&**path, None), |(first, rest)| (first, Some(rest)));
            let held = EVENT_FIELDS.iter().find(|(_, there)| *there == first).map(|(held, _)| *held);
            let known = held.is_some_and(|held| matches!(held, "involvedObject" | "reportingComponent"));
            if !known && !matches!(first, "metadata" | "reason" | "type") {
                return Err(Status::bad_request(format!("field label not supported: {path}")));
            }
            if let Some(held) = held {
                *path = rest.map_or_else(|| held.to_owned(), |rest| format!("{held}.{rest}"));
            }
        }
    }
    Ok(fields)
}

/// Converts a patch for an object in a second version to one for the held version. A patch of fields that the held
/// version has in another structure is refused.
pub fn patch_to_held(kind: Kind, api_version: &str, patch: Patch) -> Result<Patch, Status> {
    let held = kind.row().api_version();
    if api_version == held || !SECOND_VERSIONS.iter().any(|(second, ..)| *second == kind) {
        return Ok(patch);
    }
    let refuse = |what: &str| Status::bad_request(format!("{what} cannot be patched in {api_version}; use {held}"));
    let convert = |mut body: Value| {
        if ["/spec/targetCPUUtilizationPercentage", "/status/currentCPUUtilizationPercentage"]
            .iter()
            .any(|path| body.pointer(path).is_some())
        {
            return Err(refuse("the utilization of the CPU"));
        }
        if kind == Kind::EVENT {
            rename(&mut body, |(held, there)| (there, held));
        }
        if body.get("apiVersion").is_some() {
            body["apiVersion"] = json!(held);
        }
        Ok(body)
    };
    match patch {
        Patch::Merge(body) => convert(body).map(Patch::Merge),
        Patch::Strategic(body) => convert(body).map(Patch::Strategic),
        Patch::Json(operations) => {
            let places = |name: &'static str| {
                operations.as_array().into_iter().flatten().filter_map(move |operation| operation[name].as_str())
            };
            let renamed = |place: &str| {
                let first = place.trim_start_matches('/').split('/').next().unwrap_or_default();
                EVENT_FIELDS.iter().any(|(_, there)| *there == first) || place.contains("CPUUtilizationPercentage")
            };
            match places("path").chain(places("from")).find(|place| renamed(place)) {
                Some(place) => Err(refuse(place)),
                None => Ok(Patch::Json(operations)),
            }
        }
        Patch::Apply { .. } => Err(refuse("an applied configuration")),
    }
}

/// Converts an object from the held version to another served one.
pub fn shown_in(kind: Kind, api_version: &str, mut value: Value) -> Value {
    match (kind, api_version) {
        (Kind::EVENT, "events.k8s.io/v1") => {
            rename(&mut value, |pair| pair);
            // A time that must be there, and may be null.
            if value.get("eventTime").is_none() {
                value["eventTime"] = Value::Null;
            }
        }
        (Kind::HORIZONTAL_POD_AUTOSCALER, "autoscaling/v1") => autoscaler_shown(&mut value),
        _ => return value,
    }
    value["apiVersion"] = json!(api_version);
    value
}

fn rename(value: &mut Value, way: impl Fn((&'static str, &'static str)) -> (&'static str, &'static str)) {
    let Value::Object(map) = value else { return };
    for pair in EVENT_FIELDS {
        let (from, to) = way(pair);
        if let Some(field) = map.remove(from) {
            map.insert(to.to_owned(), field);
        }
    }
}

/// Takes an annotation's JSON away.
fn take_annotation(value: &mut Value, name: &str) -> Option<Value> {
    let annotations = value.pointer_mut("/metadata/annotations")?.as_object_mut()?;
    let text = annotations.remove(name)?;
    // What is no JSON is dropped, as upstream does.
    serde_json::from_str(text.as_str()?).ok()
}

fn annotate(value: &mut Value, name: &str, what: &Value) {
    if let Value::Object(map) = value {
        let metadata = map.entry("metadata").or_insert_with(|| json!({}));
        if !metadata["annotations"].is_object() {
            metadata["annotations"] = json!({});
        }
        metadata["annotations"][name] = json!(what.to_string());
    }
}

fn part<'a>(value: &'a mut Value, name: &str) -> Option<&'a mut Map<String, Value>> {
    value.get_mut(name)?.as_object_mut()
}

fn autoscaler_to_held(value: &mut Value) {
    let mut metrics: Vec<Value> = take_list(value, METRICS).into_iter().map(|m| metric_to_held(m, "target")).collect();
    let mut current: Vec<Value> =
        take_list(value, CURRENT_METRICS).into_iter().map(|m| metric_to_held(m, "current")).collect();
    let behavior = take_annotation(value, BEHAVIOR);
    let conditions = take_annotation(value, CONDITIONS);
    if let Some(spec) = part(value, "spec") {
        if let Some(percent) = spec.remove("targetCPUUtilizationPercentage").filter(|p| !p.is_null()) {
            // The one metric that `autoscaling/v1` has a field for.
            metrics.insert(
                0,
                json!({"type": "Resource", "resource": {"name": "cpu",
                "target": {"type": "Utilization", "averageUtilization": percent}}}),
            );
        }
        spec.extend((!metrics.is_empty()).then(|| ("metrics".to_owned(), Value::Array(metrics))));
        spec.extend(behavior.map(|behavior| ("behavior".to_owned(), behavior)));
    }
    if let Some(status) = part(value, "status") {
        let percent = status.remove("currentCPUUtilizationPercentage").filter(|p| !p.is_null());
        // The annotation has all of them.
        if let Some(percent) = percent.filter(|_| current.is_empty()) {
            current.push(json!({"type": "Resource", "resource": {"name": "cpu",
                "current": {"averageUtilization": percent}}}));
        }
        status.extend((!current.is_empty()).then(|| ("currentMetrics".to_owned(), Value::Array(current))));
        status.extend(conditions.map(|conditions| ("conditions".to_owned(), conditions)));
    }
    let bare = value.pointer("/metadata/annotations").and_then(Value::as_object).is_some_and(Map::is_empty);
    if bare && let Some(metadata) = part(value, "metadata") {
        metadata.remove("annotations");
    }
}

fn take_list(value: &mut Value, annotation: &str) -> Vec<Value> {
    match take_annotation(value, annotation) {
        Some(Value::Array(list)) => list,
        _ => Vec::new(),
    }
}

fn autoscaler_shown(value: &mut Value) {
    let take = |of: &mut Value, name: &str, field: &str| part(of, name).and_then(|map| map.remove(field));
    let mut metrics = list(take(value, "spec", "metrics"));
    let cpu = metrics.iter().position(|m| cpu_percent(m, "target").is_some());
    if let (Some(cpu), Some(spec)) = (cpu, part(value, "spec")) {
        let percent = cpu_percent(&metrics.remove(cpu), "target");
        spec.extend(percent.map(|percent| ("targetCPUUtilizationPercentage".to_owned(), percent)));
    }
    if !metrics.is_empty() {
        annotate(value, METRICS, &metrics.into_iter().map(|m| metric_shown(m, "target")).collect());
    }
    if let Some(behavior) = take(value, "spec", "behavior") {
        annotate(value, BEHAVIOR, &behavior);
    }
    let current = list(take(value, "status", "currentMetrics"));
    let cpu = current.iter().find_map(|m| cpu_percent(m, "current"));
    if let (Some(cpu), Some(status)) = (cpu, part(value, "status")) {
        status.insert("currentCPUUtilizationPercentage".to_owned(), cpu);
    }
    if !current.is_empty() {
        annotate(value, CURRENT_METRICS, &current.into_iter().map(|m| metric_shown(m, "current")).collect());
    }
    if let Some(conditions) = take(value, "status", "conditions") {
        annotate(value, CONDITIONS, &conditions);
    }
}

fn list(value: Option<Value>) -> Vec<Value> {
    match value {
        Some(Value::Array(list)) => list,
        _ => Vec::new(),
    }
}

/// The utilization of the CPU, if that is what a metric is of.
fn cpu_percent(metric: &Value, target: &str) -> Option<Value> {
    let resource = metric.get("resource").filter(|r| r["name"] == "cpu" && metric["type"] == "Resource")?;
    resource.get(target)?.get("averageUtilization").filter(|percent| !percent.is_null()).cloned()
}

/// The source of a metric, and what `autoscaling/v1` calls its parts: `(value, average value, average utilization)`.
fn names(type_: &str, target: &str) -> (&'static str, [&'static str; 3]) {
    let wanted = target == "target";
    match type_ {
        "Object" => ("object", [if wanted { "targetValue" } else { "currentValue" }, "averageValue", ""]),
        "Pods" => ("pods", ["", if wanted { "targetAverageValue" } else { "currentAverageValue" }, ""]),
        "External" if wanted => ("external", ["targetValue", "targetAverageValue", ""]),
        "External" => ("external", ["currentValue", "currentAverageValue", ""]),
        _ => {
            let source = if type_ == "ContainerResource" { "containerResource" } else { "resource" };
            let parts = if wanted {
                ["", "targetAverageValue", "targetAverageUtilization"]
            } else {
                ["", "currentAverageValue", "currentAverageUtilization"]
            };
            (source, parts)
        }
    }
}

const PARTS: [&str; 3] = ["value", "averageValue", "averageUtilization"];
const TARGET_TYPES: [&str; 3] = ["Value", "AverageValue", "Utilization"];

/// A metric of `autoscaling/v1`'s annotations as it is held.
fn metric_to_held(metric: Value, target: &str) -> Value {
    let type_ = metric["type"].as_str().unwrap_or("").to_owned();
    let (source, there) = names(&type_, target);
    let Some(Value::Object(mut from)) = metric.get(source).cloned() else { return metric };
    let mut to = Map::new();
    let mut amounts = Map::new();
    for (index, name) in there.iter().enumerate() {
        if let Some(amount) = from.remove(*name).filter(|a| !a.is_null()) {
            // The average of an object is beside a zero value, which is none.
            amounts.retain(|known, _| known != "value" && known != "type");
            if target == "target" {
                amounts.insert("type".to_owned(), json!(TARGET_TYPES[index]));
            }
            amounts.insert(PARTS[index].to_owned(), amount);
        }
    }
    let selector = if source == "external" { "metricSelector" } else { "selector" };
    if let Some(name) = from.remove("metricName") {
        let mut of = json!({"name": name});
        if let Some(selector) = from.remove(selector) {
            of["selector"] = selector;
        }
        to.insert("metric".to_owned(), of);
    }
    if source == "object"
        && let Some(object) = from.remove("target")
    {
        to.insert("describedObject".to_owned(), object);
    }
    to.extend(from);
    to.insert(target.to_owned(), Value::Object(amounts));
    json!({"type": type_, source: to})
}

/// A metric as `autoscaling/v1` has it in annotations.
fn metric_shown(metric: Value, target: &str) -> Value {
    let type_ = metric["type"].as_str().unwrap_or("").to_owned();
    let (source, there) = names(&type_, target);
    let Some(Value::Object(mut from)) = metric.get(source).cloned() else { return metric };
    let mut to = Map::new();
    if let Some(Value::Object(amounts)) = from.remove(target) {
        for (name, part) in there.iter().zip(PARTS).filter(|(name, _)| !name.is_empty()) {
            to.extend(amounts.get(part).map(|amount| ((*name).to_owned(), amount.clone())));
        }
    }
    if source == "object" {
        // That field is not optional there.
        to.entry(there[0]).or_insert_with(|| json!("0"));
        to.extend(from.remove("describedObject").map(|object| ("target".to_owned(), object)));
    }
    let selector = if source == "external" { "metricSelector" } else { "selector" };
    if let Some(Value::Object(mut of)) = from.remove("metric") {
        to.extend(of.remove("name").map(|name| ("metricName".to_owned(), name)));
        to.extend(of.remove("selector").map(|s| (selector.to_owned(), s)));
    }
    to.extend(from);
    json!({"type": type_, source: to})
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::{fields_to_held, patch_to_held, shown_in, to_held};
    use crate::api::Patch;
    use crate::object::{FieldSelector, Kind};

    fn check(kind: Kind, held: Value, api_version: &str, shown: Value) {
        assert_eq!(shown_in(kind, api_version, held.clone()), shown);
        assert_eq!(to_held(kind, shown), held);
    }

    #[test]
    fn patches_name_fields_as_the_held_version_does() {
        let check = |kind: Kind, version: &str, patch: Patch, want: Option<Patch>| {
            assert_eq!(patch_to_held(kind, version, patch.clone()).ok(), want, "{patch:?}");
        };
        let (event, hpa) = (Kind::EVENT, Kind::HORIZONTAL_POD_AUTOSCALER);
        let series = json!({"series": {"count": 2}, "note": "m"});
        let held = json!({"series": {"count": 2}, "message": "m"});
        check(event, "events.k8s.io/v1", Patch::Strategic(series.clone()), Some(Patch::Strategic(held)));
        check(event, "v1", Patch::Strategic(series.clone()), Some(Patch::Strategic(series)));
        let count = json!([{"op": "replace", "path": "/series/count", "value": 3}]);
        check(event, "events.k8s.io/v1", Patch::Json(count.clone()), Some(Patch::Json(count)));
        check(event, "events.k8s.io/v1", Patch::Json(json!([{"op": "remove", "path": "/note"}])), None);
        let most = json!({"apiVersion": "autoscaling/v1", "spec": {"maxReplicas": 3}});
        let held = json!({"apiVersion": "autoscaling/v2", "spec": {"maxReplicas": 3}});
        check(hpa, "autoscaling/v1", Patch::Merge(most), Some(Patch::Merge(held)));
        let percent = json!({"spec": {"targetCPUUtilizationPercentage": 3}});
        check(hpa, "autoscaling/v1", Patch::Merge(percent), None);
    }

    #[test]
    fn events_are_selected_by_the_names_of_their_version() {
        let check = |text: &str, want: Result<&str, &str>| {
            let held = fields_to_held(Kind::EVENT, FieldSelector::parse(text).unwrap());
            let want = want.map(|want| FieldSelector::parse(want).unwrap());
            assert_eq!(held.map_err(|status| status.message.to_string()), want.map_err(str::to_owned), "{text}");
        };
        check("reportingController=c,type!=Normal", Ok("reportingComponent=c,type!=Normal"));
        check("regarding.kind=Pod,metadata.name=e,reason=r", Ok("involvedObject.kind=Pod,metadata.name=e,reason=r"));
        check("involvedObject.kind=Pod", Err("field label not supported: involvedObject.kind"));
        check("note=n", Err("field label not supported: note"));
    }

    #[test]
    fn events_are_the_same_by_other_names() {
        check(
            Kind::EVENT,
            json!({"apiVersion": "v1", "kind": "Event", "metadata": {"name": "e"}, "message": "m", "count": 2,
                "involvedObject": {"kind": "Pod"}, "reportingComponent": "c", "reason": "r", "eventTime": null,
                "source": {"component": "s"}, "firstTimestamp": "f", "lastTimestamp": "l"}),
            "events.k8s.io/v1",
            json!({"apiVersion": "events.k8s.io/v1", "kind": "Event", "metadata": {"name": "e"}, "note": "m",
                "deprecatedCount": 2, "regarding": {"kind": "Pod"}, "reportingController": "c", "reason": "r",
                "eventTime": null, "deprecatedSource": {"component": "s"}, "deprecatedFirstTimestamp": "f",
                "deprecatedLastTimestamp": "l"}),
        );
    }

    #[test]
    fn what_the_older_autoscaler_has_no_field_for_is_annotated() {
        let external = json!([{"type": "External", "external": {"metricName": "q", "targetAverageValue": "3",
            "metricSelector": {"matchLabels": {"a": "b"}}}}]);
        check(
            Kind::HORIZONTAL_POD_AUTOSCALER,
            json!({"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": {"name": "h"},
                "spec": {"maxReplicas": 5, "behavior": {"scaleDown": {"stabilizationWindowSeconds": 1}}, "metrics": [
                    {"type": "Resource", "resource": {"name": "cpu",
                        "target": {"type": "Utilization", "averageUtilization": 80}}},
                    {"type": "External", "external": {"metric": {"name": "q", "selector": {"matchLabels": {"a": "b"}}},
                        "target": {"type": "AverageValue", "averageValue": "3"}}}]},
                "status": {"desiredReplicas": 1, "currentMetrics": [{"type": "Resource", "resource": {"name": "cpu",
                    "current": {"averageUtilization": 40, "averageValue": "1"}}}]}}),
            "autoscaling/v1",
            json!({"apiVersion": "autoscaling/v1", "kind": "HorizontalPodAutoscaler",
                "metadata": {"name": "h", "annotations": {
                    "autoscaling.alpha.kubernetes.io/metrics": external.to_string(),
                    "autoscaling.alpha.kubernetes.io/current-metrics": json!([{"type": "Resource",
                        "resource": {"name": "cpu", "currentAverageValue": "1", "currentAverageUtilization": 40}}])
                    .to_string(),
                    "autoscaling.alpha.kubernetes.io/behavior": "{\"scaleDown\":{\"stabilizationWindowSeconds\":1}}"}},
                "spec": {"maxReplicas": 5, "targetCPUUtilizationPercentage": 80},
                "status": {"desiredReplicas": 1, "currentCPUUtilizationPercentage": 40}}),
        );
        check(
            Kind::HORIZONTAL_POD_AUTOSCALER,
            json!({"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": {},
                "spec": {"metrics": [{"type": "Object", "object": {"metric": {"name": "q"},
                    "describedObject": {"kind": "Service", "name": "s"},
                    "target": {"type": "AverageValue", "averageValue": "3"}}}]}}),
            "autoscaling/v1",
            json!({"apiVersion": "autoscaling/v1", "kind": "HorizontalPodAutoscaler",
                "metadata": {"annotations": {"autoscaling.alpha.kubernetes.io/metrics": json!([{"type": "Object",
                    "object": {"averageValue": "3", "metricName": "q", "target": {"kind": "Service", "name": "s"},
                        "targetValue": "0"}}]).to_string()}},
                "spec": {}}),
        );
    }
}
