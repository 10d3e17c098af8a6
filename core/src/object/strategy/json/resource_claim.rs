//! ResourceClaim, ResourceClaimTemplate and DeviceClass. Source: `pkg/apis/resource/validation`,
//! `pkg/registry/resource`.
//!
//! Not validated: the cost of expressions beforehand, and the statuses of devices.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::resource::v1::{DeviceClass, ResourceClaim, ResourceClaimTemplate};
use serde_json::{Map, Value, json};

use super::JsonStrategy;
use super::fields::{Errors, at, list};
use super::missing::Missing;
use crate::object::device_selector::{self, DeviceSelector};
use crate::object::validation::names::{self, Wrongs};
use crate::object::validation::path::Go;
use crate::object::validation::{meta, too_many};
use crate::object::{Dynamic, FieldError, is_extended_resource};
use crate::resource_claim::RESERVED_MAX;

const REQUESTS_MAX: usize = 32;
const CONSTRAINTS_MAX: usize = 32;
const CONFIG_MAX: usize = 32;
const SELECTORS_MAX: usize = 32;
const ALTERNATIVES_MAX: usize = 8;
const RESULTS_MAX: usize = 32;
const NO_REQUEST: &str =
    "must be the name of a request in the claim or the name of a request and a subrequest separated by '/'";

impl JsonStrategy for ResourceClaim {
    /// What is allocated is nobody's to change with the rest.
    fn prepare_for_update(new: &mut Dynamic, old: &Dynamic) {
        new.status.clone_from(&old.status);
    }

    fn defaults(m: &mut Missing<'_>) {
        default_requests(m, &["spec", "devices"]);
    }

    fn validate_new(d: &Dynamic, errors: &mut Errors) {
        claim(d.body.get("spec"), "spec", errors);
    }

    fn validate_update(new: &Dynamic, old: &Dynamic, errors: &mut Errors) {
        immutable(new, old, errors);
    }

    fn validate_status_update(new: &Dynamic, old: &Dynamic, errors: &mut Errors) {
        status(new, old, errors);
    }
}

impl JsonStrategy for ResourceClaimTemplate {
    fn defaults(m: &mut Missing<'_>) {
        default_requests(m, &["spec", "spec", "devices"]);
    }

    fn validate_new(d: &Dynamic, errors: &mut Errors) {
        claim(at(&d.body, &["spec", "spec"]), "spec.spec", errors);
    }

    fn validate_update(new: &Dynamic, old: &Dynamic, errors: &mut Errors) {
        immutable(new, old, errors);
    }
}

impl JsonStrategy for DeviceClass {
    fn validate(d: &Dynamic, errors: &mut Errors) {
        selectors(list(&d.body, &["spec", "selectors"]), "spec.selectors", errors);
        let config = list(&d.body, &["spec", "config"]);
        size(config, CONFIG_MAX, "spec.config", errors);
        for (i, config) in config.iter().enumerate() {
            opaque(config, &format!("spec.config[{i}]"), errors);
        }
        if let Some(name) = at(&d.body, &["spec", "extendedResourceName"]).and_then(Value::as_str)
            && !is_extended_resource(name)
        {
            let why = "must be a valid extended resource name";
            errors.push(FieldError::invalid("spec.extendedResourceName", name, why));
        }
    }
}

/// The spec stays as it is.
fn immutable(new: &Dynamic, old: &Dynamic, errors: &mut Errors) {
    if new.body.get("spec") != old.body.get("spec") {
        let shown = Go(new.body.get("spec").unwrap_or(&Value::Null).to_string());
        errors.push(FieldError::invalid("spec", shown, meta::IMMUTABLE));
    }
}

fn default_requests(m: &mut Missing<'_>, devices: &[&str]) {
    let requests = [devices, &["requests"]].concat();
    for i in 0..m.list(&requests).len() {
        let i = i.to_string();
        let of = |tail: &[&str]| -> Vec<String> {
            requests.iter().copied().chain([i.as_str()]).chain(tail.iter().copied()).map(str::to_owned).collect()
        };
        if m.has(&strs(&of(&["exactly"]))) {
            default_request(m, &of(&["exactly"]));
        }
        for n in 0..m.list(&strs(&of(&["firstAvailable"]))).len() {
            default_request(m, &of(&["firstAvailable", &n.to_string()]));
        }
    }
}

fn strs(path: &[String]) -> Vec<&str> {
    path.iter().map(String::as_str).collect()
}

fn default_request(m: &mut Missing<'_>, path: &[String]) {
    let path = strs(path);
    let of = |field| [path.as_slice(), &[field]].concat();
    m.at(&path, "allocationMode", || json!("ExactCount"));
    let mode = m.text(&of("allocationMode"));
    let count = m.get(&of("count")).and_then(Value::as_i64).unwrap_or(0);
    if matches!(mode, "" | "ExactCount") && count == 0 {
        m.set(&of("count"), json!(1));
    }
    default_tolerations(m, &of("tolerations"));
}

fn default_tolerations(m: &mut Missing<'_>, path: &[&str]) {
    for i in 0..m.list(path).len() {
        let i = i.to_string();
        m.at(&[path, &[i.as_str()]].concat(), "operator", || json!("Equal"));
    }
}

fn text<'a>(of: &'a Value, field: &str) -> &'a str {
    of.get(field).and_then(Value::as_str).unwrap_or_default()
}

fn items<'a>(of: &'a Value, field: &str) -> &'a [Value] {
    of.get(field).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// Checks a name that must be there.
pub(super) fn name(value: &str, rule: fn(&str) -> Wrongs, path: &str, errors: &mut Errors) {
    if value.is_empty() {
        return errors.push(FieldError::required(path, ""));
    }
    errors.extend(rule(value).into_iter().map(|why| FieldError::invalid(path, value, why)));
}

/// `ValidateCSIDriverName`.
pub(super) fn driver(value: &str, path: &str, errors: &mut Errors) {
    if value.len() > 63 {
        errors.push(FieldError::too_long(path, 63));
    }
    name(&value.to_lowercase(), names::subdomain, path, errors);
}

pub(super) fn size(items: &[Value], max: usize, path: &str, errors: &mut Errors) {
    if items.len() > max {
        errors.push(too_many(path, items.len(), max));
    }
}

/// Names that must differ.
pub(super) fn differ<'a>(all: impl Iterator<Item = &'a str>, path: impl Fn(usize) -> String, errors: &mut Errors) {
    let mut seen = BTreeSet::new();
    for (i, name) in all.enumerate() {
        if !seen.insert(name) {
            errors.push(FieldError::duplicate(path(i), name));
        }
    }
}

/// The names of the requests of a claim, with those of their alternatives.
type Names<'a> = BTreeMap<&'a str, BTreeSet<&'a str>>;

fn names_of(devices: &Value) -> Names<'_> {
    let alternatives = |request| items(request, "firstAvailable").iter().map(|of| text(of, "name")).collect();
    items(devices, "requests").iter().map(|request| (text(request, "name"), alternatives(request))).collect()
}

fn claim(spec: Option<&Value>, path: &str, errors: &mut Errors) {
    let none = Value::Null;
    let devices = spec.and_then(|spec| spec.get("devices")).unwrap_or(&none);
    let path = format!("{path}.devices");
    let (requests, at) = (items(devices, "requests"), format!("{path}.requests"));
    size(requests, REQUESTS_MAX, &at, errors);
    for (i, of) in requests.iter().enumerate() {
        request(of, &format!("{at}[{i}]"), errors);
    }
    differ(requests.iter().map(|of| text(of, "name")), |i| format!("{at}[{i}]"), errors);
    let known = names_of(devices);
    let (constraints, at) = (items(devices, "constraints"), format!("{path}.constraints"));
    size(constraints, CONSTRAINTS_MAX, &at, errors);
    for (i, of) in constraints.iter().enumerate() {
        let at = format!("{at}[{i}]");
        references(of, &known, &at, errors);
        match of.get("matchAttribute").and_then(Value::as_str) {
            None => errors.push(FieldError::required(format!("{at}.matchAttribute"), "")),
            Some(attribute) => fully_qualified(attribute, &format!("{at}.matchAttribute"), errors),
        }
    }
    let (config, at) = (items(devices, "config"), format!("{path}.config"));
    size(config, CONFIG_MAX, &at, errors);
    for (i, of) in config.iter().enumerate() {
        references(of, &known, &format!("{at}[{i}]"), errors);
        opaque(of, &format!("{at}[{i}]"), errors);
    }
}

fn request(of: &Value, path: &str, errors: &mut Errors) {
    name(text(of, "name"), names::label, &format!("{path}.name"), errors);
    let exactly = of.get("exactly").filter(|exactly| !exactly.is_null());
    let several = items(of, "firstAvailable");
    match (exactly, several) {
        (None, []) => {
            errors.push(FieldError::required(path, "exactly one of `exactly` or `firstAvailable` is required"))
        }
        (Some(exactly), []) => asked(exactly, &format!("{path}.exactly"), errors),
        (None, several) => {
            let at = format!("{path}.firstAvailable");
            size(several, ALTERNATIVES_MAX, &at, errors);
            for (i, of) in several.iter().enumerate() {
                name(text(of, "name"), names::label, &format!("{at}[{i}].name"), errors);
                asked(of, &format!("{at}[{i}]"), errors);
            }
            differ(several.iter().map(|of| text(of, "name")), |i| format!("{at}[{i}]"), errors);
        }
        (Some(_), _) => {
            let why = "exactly one of `exactly` or `firstAvailable` is required, but multiple fields are set";
            errors.push(FieldError::invalid(path, Go("null".to_owned()), why));
        }
    }
}

/// What both kinds of requests have.
fn asked(of: &Value, path: &str, errors: &mut Errors) {
    name(text(of, "deviceClassName"), names::subdomain, &format!("{path}.deviceClassName"), errors);
    selectors(items(of, "selectors"), &format!("{path}.selectors"), errors);
    let count = of.get("count").and_then(Value::as_i64).unwrap_or(0);
    match text(of, "allocationMode") {
        "All" if count != 0 => {
            let why = "must not be specified when allocationMode is 'All'";
            errors.push(FieldError::invalid(format!("{path}.count"), count, why));
        }
        "ExactCount" if count <= 0 => {
            errors.push(FieldError::invalid(format!("{path}.count"), count, "must be greater than zero"));
        }
        "All" | "ExactCount" => {}
        other => {
            errors.push(FieldError::not_supported(format!("{path}.allocationMode"), other, &["All", "ExactCount"]));
        }
    }
    for (i, toleration) in items(of, "tolerations").iter().enumerate() {
        tolerated(toleration, &format!("{path}.tolerations[{i}]"), errors);
    }
}

fn tolerated(of: &Value, path: &str, errors: &mut Errors) {
    let key = text(of, "key");
    if !key.is_empty() {
        name(key, names::qualified, &format!("{path}.key"), errors);
    }
    match text(of, "operator") {
        "Exists" if !text(of, "value").is_empty() => {
            let why = "must be empty for operator `Exists`";
            errors.push(FieldError::invalid(format!("{path}.value"), text(of, "value"), why));
        }
        "Equal" => {
            let value = text(of, "value");
            let wrongs = names::label_value(value).into_iter();
            errors.extend(wrongs.map(|why| FieldError::invalid(format!("{path}.value"), value, why)));
        }
        "Exists" => {}
        other => errors.push(FieldError::not_supported(format!("{path}.operator"), other, &["Equal", "Exists"])),
    }
    let effect = text(of, "effect");
    if !matches!(effect, "" | "NoSchedule" | "NoExecute" | "None") {
        let known = ["NoExecute", "NoSchedule", "None"];
        errors.push(FieldError::not_supported(format!("{path}.effect"), effect, &known));
    }
}

fn selectors(all: &[Value], path: &str, errors: &mut Errors) {
    size(all, SELECTORS_MAX, path, errors);
    for (i, selector) in all.iter().enumerate() {
        let path = format!("{path}[{i}].cel");
        let Some(cel) = selector.get("cel").filter(|cel| !cel.is_null()) else {
            errors.push(FieldError::required(path, ""));
            continue;
        };
        let (expression, path) = (text(cel, "expression"), format!("{path}.expression"));
        if expression.len() > device_selector::MAX_LENGTH {
            errors.push(FieldError::too_long(path, device_selector::MAX_LENGTH));
        } else if let Err(why) = DeviceSelector::compile(expression) {
            errors.push(FieldError::invalid(path, expression, why));
        }
    }
}

/// References of a constraint, of configuration or of a result to requests.
fn references(of: &Value, known: &Names<'_>, path: &str, errors: &mut Errors) {
    let (all, path) = (items(of, "requests"), format!("{path}.requests"));
    size(all, REQUESTS_MAX, &path, errors);
    let all: Vec<&str> = all.iter().filter_map(Value::as_str).collect();
    for (i, name) in all.iter().enumerate() {
        reference(name, known, &format!("{path}[{i}]"), errors);
    }
    differ(all.into_iter(), |i| format!("{path}[{i}]"), errors);
}

fn reference(of: &str, known: &Names<'_>, path: &str, errors: &mut Errors) {
    let parts: Vec<&str> = of.split('/').collect();
    if parts.len() <= 2 {
        parts.iter().for_each(|part| name(part, names::label, path, errors));
    }
    let is_known = match parts.as_slice() {
        [request] => known.contains_key(request),
        [request, alternative] => known.get(request).is_some_and(|all| all.contains(alternative)),
        _ => false,
    };
    if !is_known {
        errors.push(FieldError::invalid(path, of, NO_REQUEST));
    }
}

/// `validateFullyQualifiedName`.
fn fully_qualified(value: &str, path: &str, errors: &mut Errors) {
    if value.is_empty() {
        return errors.push(FieldError::required(path, "name required"));
    }
    if !value.contains('/') {
        errors.push(FieldError::invalid(path, value, "must include a domain"));
    }
    qualified(value, path, errors);
}

/// `validateQualifiedName`: a domain, if any, and a C identifier.
pub(super) fn qualified(value: &str, path: &str, errors: &mut Errors) {
    if value.is_empty() {
        return errors.push(FieldError::required(path, "name required"));
    }
    let (domain, id) = match value.split_once('/') {
        Some((domain, id)) => (Some(domain), id),
        None => (None, value),
    };
    match domain {
        Some("") => errors.push(FieldError::required(path, "the domain must not be empty")),
        Some(domain) => driver(domain, path, errors),
        None => {}
    }
    let letters = |text: &str| text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    if id.is_empty() {
        errors.push(FieldError::required(path, "the name must not be empty"));
    } else if !letters(id) || id.as_bytes()[0].is_ascii_digit() {
        let why = "a valid C identifier must start with alphabetic character or '_', followed by a string of \
            alphanumeric characters or '_' (e.g. 'my_name',  or 'MY_NAME',  or 'MyName', regex used for validation is \
            '[A-Za-z_][A-Za-z0-9_]*')";
        errors.push(FieldError::invalid(path, id, why));
    } else if id.len() > 32 {
        errors.push(FieldError::too_long(path, 32));
    }
}

fn opaque(of: &Value, path: &str, errors: &mut Errors) {
    let path = format!("{path}.opaque");
    let Some(opaque) = of.get("opaque").filter(|opaque| !opaque.is_null()) else {
        return errors.push(FieldError::required(path, ""));
    };
    driver(text(opaque, "driver"), &format!("{path}.driver"), errors);
    match opaque.get("parameters") {
        None | Some(Value::Null) => errors.push(FieldError::required(format!("{path}.parameters"), "")),
        Some(Value::Object(_)) => {}
        Some(other) => {
            let why = "parameters must be a valid JSON object";
            errors.push(FieldError::invalid(format!("{path}.parameters"), Go(other.to_string()), why));
        }
    }
}

fn part<'a>(status: Option<&'a Value>, field: &str) -> Option<&'a Value> {
    status.and_then(|status| status.get(field)).filter(|value| !value.is_null())
}

fn status(new: &Dynamic, old: &Dynamic, errors: &mut Errors) {
    let (now, was) = (new.status.as_deref(), old.status.as_deref());
    let none = Map::new();
    let users = |status: Option<&Value>| -> Vec<Value> {
        part(status, "reservedFor").and_then(Value::as_array).cloned().unwrap_or_default()
    };
    let (users_now, users_before) = (users(now), users(was));
    size(&users_now, RESERVED_MAX, "status.reservedFor", errors);
    for (i, user) in users_now.iter().enumerate() {
        for field in ["resource", "name", "uid"] {
            if text(user, field).is_empty() {
                errors.push(FieldError::required(format!("status.reservedFor[{i}].{field}"), ""));
            }
        }
    }
    differ(users_now.iter().map(|user| text(user, "uid")), |i| format!("status.reservedFor[{i}].uid"), errors);
    let (allocation, before) = (part(now, "allocation"), part(was, "allocation"));
    if !users_now.is_empty() && allocation.is_none() {
        let why = "may not be specified when `allocated` is not set";
        errors.push(FieldError::forbidden("status.reservedFor", why));
    } else if new.meta.deletion_timestamp.is_some() && users_now.iter().any(|user| !users_before.contains(user)) {
        let why = "new entries may not be added while `deallocationRequested` or `deletionTimestamp` are set";
        errors.push(FieldError::forbidden("status.reservedFor", why));
    }
    match (allocation, before) {
        (Some(now), Some(before)) if now != before => {
            errors.push(FieldError::invalid("status.allocation", Go(now.to_string()), meta::IMMUTABLE));
        }
        (Some(now), None) => {
            let devices = at(&new.body, &["spec", "devices"]).cloned().unwrap_or(Value::Object(none));
            allocated(now, &names_of(&devices), errors);
        }
        (Some(_) | None, _) => {}
    }
}

/// `validateAllocationResult`.
fn allocated(allocation: &Value, known: &Names<'_>, errors: &mut Errors) {
    let path = "status.allocation.devices";
    let none = Value::Null;
    let devices = allocation.get("devices").unwrap_or(&none);
    let results = items(devices, "results");
    size(results, RESULTS_MAX, &format!("{path}.results"), errors);
    for (i, result) in results.iter().enumerate() {
        let path = format!("{path}.results[{i}]");
        reference(text(result, "request"), known, &format!("{path}.request"), errors);
        driver(text(result, "driver"), &format!("{path}.driver"), errors);
        pool(text(result, "pool"), &format!("{path}.pool"), errors);
        name(text(result, "device"), names::label, &format!("{path}.device"), errors);
    }
    let config = items(devices, "config");
    size(config, 2 * CONFIG_MAX, &format!("{path}.config"), errors);
    for (i, config) in config.iter().enumerate() {
        let path = format!("{path}.config[{i}]");
        match text(config, "source") {
            "" => errors.push(FieldError::required(format!("{path}.source"), "")),
            "FromClass" | "FromClaim" => {}
            other => {
                let known = ["FromClaim", "FromClass"];
                errors.push(FieldError::not_supported(format!("{path}.source"), other, &known));
            }
        }
        references(config, known, &path, errors);
        opaque(config, &path, errors);
    }
}

/// `validatePoolName`.
pub(super) fn pool(value: &str, path: &str, errors: &mut Errors) {
    if value.is_empty() {
        return errors.push(FieldError::required(path, ""));
    }
    if value.len() > 253 {
        errors.push(FieldError::too_long(path, 253));
    }
    for part in value.split('/') {
        errors.extend(names::subdomain(part).into_iter().map(|why| FieldError::invalid(path, part, why)));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use crate::object::{FieldError, Object, validation};

    fn whole(kind: &str, spec: Value) -> Object {
        let value = json!({"apiVersion": "resource.k8s.io/v1", "kind": kind, "metadata": {"name": "a"}, "spec": spec});
        let mut value = value;
        if kind != "DeviceClass" {
            value["metadata"]["namespace"] = json!("d");
        }
        let mut object = Object::from_json(value).unwrap();
        object.apply_defaults();
        object
    }

    fn claim(devices: Value) -> Object {
        whole("ResourceClaim", json!({"devices": devices}))
    }

    fn check(errors: &[FieldError], expect: &[&str]) {
        let told: Vec<String> = errors.iter().map(ToString::to_string).collect();
        assert_eq!(told, expect);
    }

    #[test]
    fn requests_get_defaults() {
        let devices = json!({"requests": [{"name": "a", "exactly": {"deviceClassName": "c", "tolerations": [{}]}},
            {"name": "b", "firstAvailable": [{"name": "x", "deviceClassName": "c", "allocationMode": "All"}]}]});
        let claim = claim(devices).to_json();
        let requests = &claim["spec"]["devices"]["requests"];
        assert_eq!(
            requests[0]["exactly"],
            json!({"deviceClassName": "c", "allocationMode": "ExactCount", "count": 1,
                "tolerations": [{"operator": "Equal"}]})
        );
        let all = json!({"name": "x", "deviceClassName": "c", "allocationMode": "All"});
        assert_eq!(requests[1]["firstAvailable"][0], all);
    }

    #[test]
    fn claims_are_validated() {
        let exactly = |patch: Value| {
            let mut of = json!({"deviceClassName": "c"});
            json_patch::merge(&mut of, &patch);
            json!({"requests": [{"name": "a", "exactly": of}]})
        };
        let at = "spec.devices.requests[0]";
        let refused = |devices: Value, expect: &[&str]| check(&validation::create(&claim(devices)), expect);
        refused(exactly(json!({})), &[]);
        refused(exactly(json!({"deviceClassName": null})), &[&format!("{at}.exactly.deviceClassName: Required value")]);
        refused(
            exactly(json!({"allocationMode": "Some", "count": 1})),
            &[&format!(
                "{at}.exactly.allocationMode: Unsupported value: \"Some\": supported values: \"All\", \"ExactCount\""
            )],
        );
        refused(
            exactly(json!({"allocationMode": "All", "count": 2})),
            &[&format!("{at}.exactly.count: Invalid value: 2: must not be specified when allocationMode is 'All'")],
        );
        refused(
            exactly(json!({"count": -1})),
            &[&format!("{at}.exactly.count: Invalid value: -1: must be greater than zero")],
        );
        refused(
            exactly(json!({"selectors": [{"cel": {"expression": "1"}}, {}]})),
            &[
                &format!(
                    "{at}.exactly.selectors[0].cel.expression: Invalid value: \"1\": must evaluate to bool or the \
                     unknown type, not int"
                ),
                &format!("{at}.exactly.selectors[1].cel: Required value"),
            ],
        );
        refused(
            json!({"requests": [{"name": "a"}, {"name": "a", "exactly": {"deviceClassName": "c"}}]}),
            &[
                &format!("{at}: Required value: exactly one of `exactly` or `firstAvailable` is required"),
                "spec.devices.requests[1]: Duplicate value: \"a\"",
            ],
        );
        let mut constrained = exactly(json!({}));
        constrained["constraints"] = json!([{"requests": ["b"], "matchAttribute": "numa"}, {}]);
        refused(
            constrained,
            &[
                "spec.devices.constraints[0].requests[0]: Invalid value: \"b\": must be the name of a request in the \
                 claim or the name of a request and a subrequest separated by '/'",
                "spec.devices.constraints[0].matchAttribute: Invalid value: \"numa\": must include a domain",
                "spec.devices.constraints[1].matchAttribute: Required value",
            ],
        );
    }

    #[test]
    fn a_claims_spec_stays() {
        let of = |class: &str| claim(json!({"requests": [{"name": "a", "exactly": {"deviceClassName": class}}]}));
        assert!(validation::update(&of("c"), &of("c")).is_empty());
        let told = validation::update(&of("other"), &of("c"));
        assert!(told[0].to_string().ends_with(": field is immutable"), "{told:?}");
    }

    #[test]
    fn statuses_are_validated() {
        let base = claim(json!({"requests": [{"name": "a", "exactly": {"deviceClassName": "c"}}]})).to_json();
        let with = |status: Value| {
            let mut claim = base.clone();
            claim["status"] = status;
            Object::from_json(claim).unwrap()
        };
        let got = |device: &str| json!({"devices": {"results": [{"request": "a", "driver": "d", "pool": "p", "device": device}]}});
        let user = json!([{"resource": "pods", "name": "p", "uid": "u"}]);
        let refused = |now: Value, before: Value, expect: &[&str]| {
            check(&validation::status_update(&with(now), &with(before)), expect);
        };
        refused(json!({"allocation": got("x"), "reservedFor": user}), json!({}), &[]);
        refused(json!({}), json!({"allocation": got("x"), "reservedFor": user}), &[]);
        let why = "status.reservedFor: Forbidden: may not be specified when `allocated` is not set";
        refused(json!({"reservedFor": user}), json!({}), &[why]);
        let told =
            validation::status_update(&with(json!({"allocation": got("y")})), &with(json!({"allocation": got("x")})));
        assert!(told[0].to_string().starts_with("status.allocation: Invalid value: "), "{told:?}");
        let mut twice = user.clone();
        twice.as_array_mut().unwrap().push(json!({"resource": "pods", "uid": "u"}));
        refused(
            json!({"allocation": got("x"), "reservedFor": twice}),
            json!({"allocation": got("x")}),
            &["status.reservedFor[1].name: Required value", "status.reservedFor[1].uid: Duplicate value: \"u\""],
        );
        let mut odd = got("x");
        odd["devices"]["results"][0]["request"] = json!("b");
        refused(
            json!({"allocation": odd}),
            json!({}),
            &["status.allocation.devices.results[0].request: Invalid value: \"b\": must be the name of a request in \
               the claim or the name of a request and a subrequest separated by '/'"],
        );
    }

    #[test]
    fn classes_are_validated() {
        let of = |spec: Value| validation::create(&whole("DeviceClass", spec));
        check(&of(json!({"selectors": [{"cel": {"expression": "device.driver == 'x'"}}]})), &[]);
        check(
            &of(json!({"config": [{}], "extendedResourceName": "cpu"})),
            &[
                "spec.config[0].opaque: Required value",
                "spec.extendedResourceName: Invalid value: \"cpu\": must be a valid extended resource name",
            ],
        );
    }
}
