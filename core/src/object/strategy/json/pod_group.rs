//! Workload and PodGroup. Source: `pkg/registry/scheduling/{workload,podgroup}/strategy.go`, `pkg/apis/scheduling`,
//! `staging/src/k8s.io/api/scheduling/v1alpha2/types.go` of 1.36.
//!
//! The fields behind gates of their own (TopologyAwareWorkloadScheduling, WorkloadAwarePreemption,
//! DRAWorkloadResourceClaims), which are off, are dropped when they are written.

use std::rc::Rc;

use k8s_openapi::api::scheduling::v1alpha2::{PodGroup, Workload};
use serde_json::{Map, Value};

use super::JsonStrategy;
use super::fields::{Errors, at, list};
use super::resource_claim::{differ, name, size};
use crate::object::validation::names;
use crate::object::validation::path::Go;
use crate::object::{Dynamic, FieldError, validation::meta};

/// `WorkloadMaxPodGroupTemplates`.
const TEMPLATES_MAX: usize = 8;
/// What is behind gates that are off.
const GATED: [&str; 5] = ["schedulingConstraints", "disruptionMode", "priorityClassName", "priority", "resourceClaims"];

impl JsonStrategy for PodGroup {
    fn prepare_for_create(group: &mut Dynamic) {
        group.status = None;
        prepare(group, |body| body.get_mut("spec").into_iter().collect());
    }

    fn prepare_for_update(group: &mut Dynamic, _old: &Dynamic) {
        prepare(group, |body| body.get_mut("spec").into_iter().collect());
    }

    fn validate(group: &Dynamic, errors: &mut Errors) {
        let none = Value::Null;
        let spec = group.body.get("spec").unwrap_or(&none);
        if let Some(of) = spec.get("podGroupTemplateRef").filter(|of| !of.is_null()) {
            match of.get("workload").filter(|of| !of.is_null()) {
                None => errors.push(none_of("spec.podGroupTemplateRef", &["workload"])),
                Some(workload) => {
                    let path = "spec.podGroupTemplateRef.workload";
                    name(text(workload, "workloadName"), names::subdomain, &format!("{path}.workloadName"), errors);
                    let template = text(workload, "podGroupTemplateName");
                    name(template, names::label, &format!("{path}.podGroupTemplateName"), errors);
                }
            }
        }
        policy(spec.get("schedulingPolicy"), "spec.schedulingPolicy", errors);
    }

    fn validate_update(new: &Dynamic, old: &Dynamic, errors: &mut Errors) {
        immutable(new, old, &["podGroupTemplateRef", "schedulingPolicy"], errors);
    }
}

impl JsonStrategy for Workload {
    fn prepare_for_create(workload: &mut Dynamic) {
        prepare(workload, templates_mut);
    }

    fn prepare_for_update(workload: &mut Dynamic, _old: &Dynamic) {
        prepare(workload, templates_mut);
    }

    fn validate(workload: &Dynamic, errors: &mut Errors) {
        if let Some(controller) = at(&workload.body, &["spec", "controllerRef"]).filter(|c| !c.is_null()) {
            let path = "spec.controllerRef";
            match text(controller, "apiGroup") {
                "" => {}
                group => name(group, names::subdomain, &format!("{path}.apiGroup"), errors),
            }
            for field in ["kind", "name"] {
                name(text(controller, field), names::path_segment, &format!("{path}.{field}"), errors);
            }
        }
        let (templates, path) = (list(&workload.body, &["spec", "podGroupTemplates"]), "spec.podGroupTemplates");
        if templates.is_empty() {
            errors.push(FieldError::required(path, ""));
        }
        size(templates, TEMPLATES_MAX, path, errors);
        for (i, template) in templates.iter().enumerate() {
            name(text(template, "name"), names::label, &format!("{path}[{i}].name"), errors);
            policy(template.get("schedulingPolicy"), &format!("{path}[{i}].schedulingPolicy"), errors);
        }
        differ(templates.iter().map(|t| text(t, "name")), |i| format!("{path}[{i}]"), errors);
    }

    fn validate_update(new: &Dynamic, old: &Dynamic, errors: &mut Errors) {
        immutable(new, old, &["controllerRef", "podGroupTemplates"], errors);
    }
}

fn text<'a>(of: &'a Value, field: &str) -> &'a str {
    of.get(field).and_then(Value::as_str).unwrap_or_default()
}

fn templates_mut(body: &mut Map<String, Value>) -> Vec<&mut Value> {
    let templates = body.get_mut("spec").and_then(|spec| spec.get_mut("podGroupTemplates"));
    templates.and_then(Value::as_array_mut).into_iter().flatten().collect()
}

/// Drops what is behind gates.
fn prepare(object: &mut Dynamic, of: fn(&mut Map<String, Value>) -> Vec<&mut Value>) {
    for part in of(Rc::make_mut(&mut object.body)).into_iter().filter_map(Value::as_object_mut) {
        GATED.iter().for_each(|field| drop(part.remove(*field)));
    }
}

fn none_of(path: &str, members: &[&str]) -> FieldError {
    let members: Vec<String> = members.iter().map(|member| format!("`{member}`")).collect();
    FieldError::invalid(path, "", format!("must specify one of: {}", members.join(", ")))
}

/// Exactly one policy.
fn policy(policy: Option<&Value>, path: &str, errors: &mut Errors) {
    let given = |field: &str| policy.and_then(|p| p.get(field)).filter(|p| !p.is_null());
    match (given("basic"), given("gang")) {
        (None, None) => errors.push(none_of(path, &["basic", "gang"])),
        (Some(_), Some(_)) => {
            errors.push(FieldError::invalid(path, "{basic, gang}", "must specify exactly one of: `basic`, `gang`"));
        }
        (Some(_), None) => {}
        (None, Some(gang)) => match gang.get("minCount").and_then(Value::as_i64).unwrap_or(0) {
            0 => errors.push(FieldError::required(format!("{path}.gang.minCount"), "")),
            n if n < 0 => {
                let why = "must be greater than or equal to 1";
                errors.push(FieldError::invalid(format!("{path}.gang.minCount"), n, why));
            }
            _ => {}
        },
    }
}

fn immutable(new: &Dynamic, old: &Dynamic, fields: &[&str], errors: &mut Errors) {
    for field in fields {
        let (now, before) = (at(&new.body, &["spec", field]), at(&old.body, &["spec", field]));
        if now != before {
            let shown = Go(now.unwrap_or(&Value::Null).to_string());
            errors.push(FieldError::invalid(format!("spec.{field}"), shown, meta::IMMUTABLE));
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use crate::object::{Object, validation};

    fn whole(kind: &str, spec: &Value) -> Object {
        let value = json!({"apiVersion": "scheduling.k8s.io/v1alpha2", "kind": kind,
            "metadata": {"name": "g", "namespace": "d", "uid": "u"}, "spec": spec});
        Object::from_json(value).unwrap()
    }

    fn gang(count: i64) -> Value {
        json!({"gang": {"minCount": count}})
    }

    fn check(kind: &str, spec: Value, expect: &[&str]) {
        let told: Vec<String> = validation::create(&whole(kind, &spec)).iter().map(ToString::to_string).collect();
        assert_eq!(told, expect, "{spec}");
    }

    #[test]
    fn groups_are_validated() {
        let of = |policy: Value| json!({"schedulingPolicy": policy});
        check("PodGroup", of(gang(3)), &[]);
        check("PodGroup", of(json!({"basic": {}})), &[]);
        let one = "spec.schedulingPolicy: Invalid value: \"\": must specify one of: `basic`, `gang`";
        check("PodGroup", of(json!({})), &[one]);
        let both =
            "spec.schedulingPolicy: Invalid value: \"{basic, gang}\": must specify exactly one of: `basic`, `gang`";
        check("PodGroup", of(json!({"basic": {}, "gang": {"minCount": 1}})), &[both]);
        check("PodGroup", of(gang(0)), &["spec.schedulingPolicy.gang.minCount: Required value"]);
        let least = "spec.schedulingPolicy.gang.minCount: Invalid value: -1: must be greater than or equal to 1";
        check("PodGroup", of(gang(-1)), &[least]);
        let from = |reference: Value| json!({"schedulingPolicy": gang(1), "podGroupTemplateRef": reference});
        check("PodGroup", from(json!({"workload": {"workloadName": "w", "podGroupTemplateName": "t"}})), &[]);
        let none = "spec.podGroupTemplateRef: Invalid value: \"\": must specify one of: `workload`";
        check("PodGroup", from(json!({})), &[none]);
        check(
            "PodGroup",
            from(json!({"workload": {}})),
            &[
                "spec.podGroupTemplateRef.workload.workloadName: Required value",
                "spec.podGroupTemplateRef.workload.podGroupTemplateName: Required value",
            ],
        );
    }

    #[test]
    fn workloads_are_validated() {
        let template = |name: &str| json!({"name": name, "schedulingPolicy": gang(2)});
        let controller = json!({"apiGroup": "batch", "kind": "Job", "name": "j"});
        check("Workload", json!({"controllerRef": controller, "podGroupTemplates": [template("a")]}), &[]);
        check("Workload", json!({}), &["spec.podGroupTemplates: Required value"]);
        check(
            "Workload",
            json!({"podGroupTemplates": [template("a"), template("a")]}),
            &["spec.podGroupTemplates[1]: Duplicate value: \"a\""],
        );
        let nine: Vec<Value> = (0..9).map(|i| template(&format!("t{i}"))).collect();
        let many = "spec.podGroupTemplates: Too many: 9: must have at most 8 items";
        check("Workload", json!({"podGroupTemplates": nine}), &[many]);
        check(
            "Workload",
            json!({"controllerRef": {"name": "a/b"}, "podGroupTemplates": [{"name": "a"}]}),
            &[
                "spec.controllerRef.kind: Required value",
                "spec.controllerRef.name: Invalid value: \"a/b\": may not contain '/'",
                "spec.podGroupTemplates[0].schedulingPolicy: Invalid value: \"\": must specify one of: `basic`, `gang`",
            ],
        );
    }

    #[test]
    fn what_gates_hide_is_dropped_and_a_spec_stays() {
        let mut group =
            whole("PodGroup", &json!({"schedulingPolicy": gang(2), "priority": 7, "disruptionMode": "Pod"}));
        group.prepare_for_create();
        assert_eq!(group.to_json()["spec"], json!({"schedulingPolicy": gang(2)}));
        let changed = whole("PodGroup", &json!({"schedulingPolicy": gang(3)}));
        let told = validation::update(&changed, &group);
        assert_eq!(told.len(), 1, "{told:?}");
        assert!(told[0].to_string().starts_with("spec.schedulingPolicy: Invalid value: "), "{told:?}");
        let mut workload = whole(
            "Workload",
            &json!({"podGroupTemplates": [
            {"name": "a", "schedulingPolicy": gang(2), "schedulingConstraints": {"topology": [{"key": "rack"}]}}]}),
        );
        workload.prepare_for_create();
        let kept = json!({"podGroupTemplates": [{"name": "a", "schedulingPolicy": gang(2)}]});
        assert_eq!(workload.to_json()["spec"], kept);
    }
}
