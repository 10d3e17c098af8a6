//! ResourceSlice. Source: `pkg/apis/resource/validation` (`ValidateResourceSlice`).
//!
//! Not validated: counters, requests for capacity, conditions of bindings.

use k8s_openapi::api::resource::v1::ResourceSlice;
use serde_json::{Value, json};

use super::JsonStrategy;
use super::fields::{Errors, at, list, number, text};
use super::resource_claim::{differ, driver, name, pool, qualified, size};
use crate::object::validation::meta;
use crate::object::validation::names;
use crate::object::validation::path::Go;
use crate::object::{Dynamic, FieldError};

const DEVICES_MAX: usize = 128;
const DEVICES_WITH_TAINTS_MAX: usize = 64;
const ATTRIBUTES_MAX: usize = 32;
const TAINTS_MAX: usize = 16;
const PLACES: &str = "exactly one of `nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection` is required";

impl JsonStrategy for ResourceSlice {
    fn validate(d: &Dynamic, errors: &mut Errors) {
        driver(text(&d.body, &["spec", "driver"]), "spec.driver", errors);
        pool(text(&d.body, &["spec", "pool", "name"]), "spec.pool.name", errors);
        let of = |field| number(&d.body, &["spec", "pool", field]).unwrap_or(0);
        let (slices, generation) = (of("resourceSliceCount"), of("generation"));
        if slices <= 0 {
            let why = "must be greater than zero";
            errors.push(FieldError::invalid("spec.pool.resourceSliceCount", slices, why));
        }
        if generation < 0 {
            let why = "must be greater than or equal to zero";
            errors.push(FieldError::invalid("spec.pool.generation", generation, why));
        }
        place(d, errors);
        let devices = list(&d.body, &["spec", "devices"]);
        let tainted =
            devices.iter().any(|of| of.get("taints").and_then(Value::as_array).is_some_and(|t| !t.is_empty()));
        size(devices, if tainted { DEVICES_WITH_TAINTS_MAX } else { DEVICES_MAX }, "spec.devices", errors);
        for (i, of) in devices.iter().enumerate() {
            device(of, &format!("spec.devices[{i}]"), errors);
        }
        let names = devices.iter().map(|of| of.get("name").and_then(Value::as_str).unwrap_or_default());
        differ(names, |i| format!("spec.devices[{i}]"), errors);
    }

    fn validate_update(new: &Dynamic, old: &Dynamic, errors: &mut Errors) {
        for path in [["spec", "pool", "name"].as_slice(), &["spec", "driver"], &["spec", "nodeName"]] {
            if at(&new.body, path) != at(&old.body, path) {
                let shown = Go(json!(at(&new.body, path)).to_string());
                errors.push(FieldError::invalid(path.join("."), shown, meta::IMMUTABLE));
            }
        }
    }
}

fn place(d: &Dynamic, errors: &mut Errors) {
    let of = |field| at(&d.body, &["spec", field]).filter(|value| !value.is_null());
    let mut set = Vec::new();
    match of("nodeName").and_then(Value::as_str) {
        Some("") => {
            let why = "must be either unset or set to a non-empty string";
            errors.push(FieldError::invalid("spec.nodeName", "", why));
        }
        Some(node) => {
            set.push("`nodeName`");
            name(node, names::subdomain, "spec.nodeName", errors);
        }
        None => {}
    }
    if let Some(selector) = of("nodeSelector") {
        set.push("`nodeSelector`");
        let terms = selector.get("nodeSelectorTerms").cloned().unwrap_or_default();
        if terms.as_array().is_none_or(|terms| terms.len() != 1) {
            let why = "must have exactly one node selector term";
            errors.push(FieldError::invalid("spec.nodeSelector.nodeSelectorTerms", Go(terms.to_string()), why));
        }
    }
    for (field, shown) in [("allNodes", "`allNodes`"), ("perDeviceNodeSelection", "`perDeviceNodeSelection`")] {
        match of(field).and_then(Value::as_bool) {
            Some(true) => set.push(shown),
            Some(false) => {
                let why = "must be either unset or set to true";
                errors.push(FieldError::invalid(format!("spec.{field}"), false, why));
            }
            None => {}
        }
    }
    match set.len() {
        0 => errors.push(FieldError::required("spec", PLACES)),
        1 => {}
        _ => {
            let shown = format!("{{{}}}", set.join(", "));
            errors.push(FieldError::invalid("spec", shown, format!("{PLACES}, but multiple fields are set")));
        }
    }
}

fn device(of: &Value, path: &str, errors: &mut Errors) {
    let text = |field: &str| of.get(field).and_then(Value::as_str).unwrap_or_default();
    name(text("name"), names::label, &format!("{path}.name"), errors);
    let map = |field: &str| of.get(field).and_then(Value::as_object).into_iter().flatten();
    for (key, value) in map("attributes") {
        let path = format!("{path}.attributes[{key}]");
        qualified(key, &path, errors);
        attribute(value, &path, errors);
    }
    for (key, _) in map("capacity") {
        qualified(key, &format!("{path}.capacity[{key}]"), errors);
    }
    let all = map("attributes").count() + map("capacity").count();
    if all > ATTRIBUTES_MAX {
        let why = format!("the total number of attributes and capacities must not exceed {ATTRIBUTES_MAX}");
        errors.push(FieldError::invalid(path, all, why));
    }
    let none = Vec::new();
    let taints = of.get("taints").and_then(Value::as_array).unwrap_or(&none);
    size(taints, TAINTS_MAX, &format!("{path}.taints"), errors);
    for (i, taint) in taints.iter().enumerate() {
        let path = format!("{path}.taints[{i}]");
        let text = |field: &str| taint.get(field).and_then(Value::as_str).unwrap_or_default();
        name(text("key"), names::qualified, &format!("{path}.key"), errors);
        let effect = text("effect");
        if effect.is_empty() {
            errors.push(FieldError::required(format!("{path}.effect"), ""));
        } else if !matches!(effect, "NoSchedule" | "NoExecute" | "None") {
            let known = ["NoExecute", "NoSchedule", "None"];
            errors.push(FieldError::not_supported(format!("{path}.effect"), effect, &known));
        }
    }
}

fn attribute(value: &Value, path: &str, errors: &mut Errors) {
    let kinds = ["bool", "bools", "int", "ints", "string", "strings", "version", "versions"];
    let set = kinds.iter().filter(|kind| value.get(**kind).is_some_and(|value| !value.is_null())).count();
    match set {
        0 => errors.push(FieldError::required(path, "exactly one value must be specified")),
        1 => {}
        _ => {
            let shown = Go(value.to_string());
            errors.push(FieldError::invalid(path, shown, "exactly one value must be specified"));
        }
    }
    for kind in ["string", "version"] {
        let text = value.get(kind).and_then(Value::as_str).unwrap_or_default();
        if text.len() > 64 {
            errors.push(FieldError::too_long(format!("{path}.{kind}"), 64));
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use crate::object::{FieldError, Object, validation};

    fn slice(patch: Value) -> Object {
        let mut value = json!({"apiVersion": "resource.k8s.io/v1", "kind": "ResourceSlice", "metadata": {"name": "s"},
            "spec": {"driver": "gpu.example.com", "nodeName": "n", "devices": [{"name": "d0"}],
                "pool": {"name": "n", "generation": 1, "resourceSliceCount": 1}}});
        json_patch::merge(&mut value["spec"], &patch);
        Object::from_json(value).unwrap()
    }

    fn check(errors: &[FieldError], expect: &[&str]) {
        let told: Vec<String> = errors.iter().map(ToString::to_string).collect();
        assert_eq!(told, expect);
    }

    #[test]
    fn slices_are_validated() {
        let refused = |patch: Value, expect: &[&str]| check(&validation::create(&slice(patch)), expect);
        let places = "exactly one of `nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection` is required";
        refused(json!({}), &[]);
        refused(json!({"nodeName": null}), &[&format!("spec: Required value: {places}")]);
        refused(
            json!({"allNodes": true}),
            &[&format!("spec: Invalid value: \"{{`nodeName`, `allNodes`}}\": {places}, but multiple fields are set")],
        );
        refused(
            json!({"nodeName": null, "allNodes": false}),
            &[
                "spec.allNodes: Invalid value: false: must be either unset or set to true",
                &format!("spec: Required value: {places}"),
            ],
        );
        refused(
            json!({"pool": {"resourceSliceCount": 0, "generation": -1}}),
            &[
                "spec.pool.resourceSliceCount: Invalid value: 0: must be greater than zero",
                "spec.pool.generation: Invalid value: -1: must be greater than or equal to zero",
            ],
        );
        let device =
            json!({"name": "d0", "attributes": {"a/b": {}, "m": {"int": 1, "bool": true}}, "taints": [{"key": "k"}]});
        refused(
            json!({"devices": [device, {"name": "d0"}]}),
            &[
                "spec.devices[0].attributes[a/b]: Required value: exactly one value must be specified",
                "spec.devices[0].attributes[m]: Invalid value: {\"bool\":true,\"int\":1}: exactly one value must be \
                 specified",
                "spec.devices[0].taints[0].effect: Required value",
                "spec.devices[1]: Duplicate value: \"d0\"",
            ],
        );
    }

    #[test]
    fn a_slice_stays_where_it_is() {
        check(&validation::update(&slice(json!({"devices": []})), &slice(json!({}))), &[]);
        check(
            &validation::update(&slice(json!({"nodeName": "m"})), &slice(json!({}))),
            &["spec.nodeName: Invalid value: \"m\": field is immutable"],
        );
    }
}
