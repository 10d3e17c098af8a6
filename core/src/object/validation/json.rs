//! Validation of kinds that are held as JSON: the essentials of each, and their pod templates through their types.
//! Source: `pkg/apis/*/validation`.

use std::rc::Rc;

use k8s_openapi::api::apps::v1::{DaemonSetSpec, StatefulSetSpec};
use k8s_openapi::api::batch::v1::{CronJobSpec, JobSpec};
use k8s_openapi::api::core::v1::{PersistentVolumeClaimSpec, PodSpec, PodTemplateSpec};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::path::{Go, Path};
use super::{names, not_negative, one_of, push_all, volume, workload};
use crate::object::{Dynamic, FieldError, Kind, Milli, structural};

/// Most bytes in a ConfigMap or Secret.
const DATA_LIMIT: usize = 1024 * 1024;

type Errors = Vec<FieldError>;

/// The rules of a dynamic object's kind.
pub(super) fn create(d: &Dynamic, errors: &mut Errors) {
    let root = &Path::Root("spec");
    match d.kind {
        Kind::STATEFUL_SET => typed(d, "spec", errors, |s: &StatefulSetSpec, e| workload::stateful_set(s, e)),
        Kind::DAEMON_SET => typed(d, "spec", errors, |s: &DaemonSetSpec, e| workload::daemon_set(s, e)),
        Kind::JOB => typed(d, "spec", errors, |s: &JobSpec, e| workload::job(s, root, true, e)),
        Kind::CRON_JOB => typed(d, "spec", errors, |s: &CronJobSpec, e| workload::cron_job(s, e)),
        Kind::POD_TEMPLATE => typed(d, "template", errors, |t: &PodTemplateSpec, e| {
            let none = PodSpec::default();
            let pod = t.spec.as_ref().unwrap_or(&none);
            workload::template(t.metadata.as_ref(), pod, &Path::Root("template"), e);
        }),
        Kind::PERSISTENT_VOLUME_CLAIM => {
            typed(d, "spec", errors, |s: &PersistentVolumeClaimSpec, e| volume::claim(s, root, e));
        }
        Kind::CONFIG_MAP => config_map(&d.body, errors),
        Kind::SECRET => secret(&d.body, errors),
        Kind::PERSISTENT_VOLUME => persistent_volume(&d.body, errors),
        Kind::HORIZONTAL_POD_AUTOSCALER => autoscaler(&d.body, errors),
        Kind::PRIORITY_CLASS => priority_class(d, errors),
        Kind::STORAGE_CLASS => required(&d.body, &["provisioner"], errors),
        Kind::ROLE | Kind::CLUSTER_ROLE => role(d, errors),
        Kind::ROLE_BINDING | Kind::CLUSTER_ROLE_BINDING => role_binding(d, errors),
        Kind::INGRESS => ingress(&d.body, errors),
        Kind::NETWORK_POLICY => network_policy(&d.body, errors),
        Kind::RESOURCE_QUOTA => quota(&d.body, errors),
        Kind::CUSTOM_RESOURCE_DEFINITION => definition(d, errors),
        Kind::RUNTIME_CLASS => required(&d.body, &["handler"], errors),
        Kind::INGRESS_CLASS => required(&d.body, &["spec", "controller"], errors),
        Kind::CONTROLLER_REVISION => not_negative(number(&d.body, &["revision"]), &Path::Root("revision"), errors),
        _ => {}
    }
}

/// What may change in a dynamic object. Shared bodies are the same body.
pub(super) fn update(new: &Dynamic, old: &Dynamic, errors: &mut Errors) {
    if Rc::ptr_eq(&new.body, &old.body) || new.body == old.body {
        return;
    }
    create(new, errors);
    let spec = |d: &Dynamic| d.body.get("spec").cloned();
    match new.kind {
        Kind::STATEFUL_SET => both(new, old, errors, workload::stateful_set_update),
        Kind::DAEMON_SET => both(new, old, errors, |n: &DaemonSetSpec, o, e| {
            workload::fixed_selector(&n.selector, &o.selector, e);
        }),
        Kind::JOB => both(new, old, errors, workload::job_update),
        Kind::CONFIG_MAP | Kind::SECRET => immutable_data(new, old, errors),
        Kind::PERSISTENT_VOLUME_CLAIM => both(new, old, errors, claim_update),
        Kind::PRIORITY_CLASS => {
            for field in ["value", "preemptionPolicy"] {
                if new.body.get(field) != old.body.get(field) {
                    errors.push(FieldError::forbidden(field, "may not be changed in an update."));
                }
            }
        }
        Kind::STORAGE_CLASS => {
            for (field, detail) in [
                ("parameters", "updates to parameters are forbidden."),
                ("provisioner", "updates to provisioner are forbidden."),
                ("reclaimPolicy", "updates to reclaimPolicy are forbidden."),
                ("volumeBindingMode", "updates to volumeBindingMode are forbidden."),
            ] {
                if new.body.get(field) != old.body.get(field) {
                    errors.push(FieldError::forbidden(field, detail));
                }
            }
        }
        Kind::ROLE_BINDING | Kind::CLUSTER_ROLE_BINDING if new.body.get("roleRef") != old.body.get("roleRef") => {
            let shown = Go(new.body.get("roleRef").map(ToString::to_string).unwrap_or_default());
            errors.push(FieldError::invalid("roleRef", shown, "cannot change roleRef"));
        }
        Kind::CONTROLLER_REVISION if new.body.get("data") != old.body.get("data") => {
            errors.push(FieldError::invalid("data", Go("{}".to_owned()), "field is immutable"));
        }
        Kind::CUSTOM_RESOURCE_DEFINITION => {
            let (now, was) = (spec(new).unwrap_or_default(), spec(old).unwrap_or_default());
            for path in ["/group", "/scope", "/names/kind", "/names/plural"] {
                if now.pointer(path) != was.pointer(path) {
                    let field = format!("spec{}", path.replace('/', "."));
                    let shown = now.pointer(path).and_then(Value::as_str).unwrap_or("");
                    errors.push(FieldError::invalid(field, shown, "field is immutable"));
                }
            }
        }
        _ => {}
    }
}

fn typed<T: for<'de> Deserialize<'de>>(
    d: &Dynamic,
    field: &str,
    errors: &mut Errors,
    check: impl FnOnce(&T, &mut Errors),
) {
    match d.body.get(field) {
        None | Some(Value::Null) => errors.push(FieldError::required(field, "")),
        Some(value) => match T::deserialize(value) {
            Ok(spec) => check(&spec, errors),
            Err(e) => errors.push(FieldError::invalid(field, Go(value.to_string()), e.to_string())),
        },
    }
}

/// Both specs as their type; one that does not read as such has been reported by [`create`].
fn both<T: for<'de> Deserialize<'de>>(
    new: &Dynamic,
    old: &Dynamic,
    errors: &mut Errors,
    check: impl FnOnce(&T, &T, &mut Errors),
) {
    let read = |d: &Dynamic| d.body.get("spec").and_then(|s| T::deserialize(s).ok());
    if let (Some(n), Some(o)) = (read(new), read(old)) {
        check(&n, &o, errors);
    }
}

fn at<'a>(body: &'a Map<String, Value>, path: &[&str]) -> Option<&'a Value> {
    let (first, rest) = path.split_first()?;
    rest.iter().try_fold(body.get(*first)?, |v, key| v.get(*key))
}

fn text<'a>(body: &'a Map<String, Value>, path: &[&str]) -> &'a str {
    at(body, path).and_then(Value::as_str).unwrap_or("")
}

fn number(body: &Map<String, Value>, path: &[&str]) -> Option<i64> {
    at(body, path).and_then(Value::as_i64)
}

fn list<'a>(body: &'a Map<String, Value>, path: &[&str]) -> &'a [Value] {
    at(body, path).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn required(body: &Map<String, Value>, path: &[&str], errors: &mut Errors) {
    if text(body, path).is_empty() {
        errors.push(FieldError::required(path.join("."), ""));
    }
}

fn entries<'a>(body: &'a Map<String, Value>, field: &str) -> impl Iterator<Item = (&'a String, &'a str)> {
    let map = body.get(field).and_then(Value::as_object);
    map.into_iter().flatten().map(|(k, v)| (k, v.as_str().unwrap_or("")))
}

/// Bytes that a text in base64 stands for.
fn decoded_len(base64: &str) -> usize {
    base64.len() / 4 * 3 - base64.bytes().rev().take_while(|b| *b == b'=').count().min(2)
}

fn config_map(body: &Map<String, Value>, errors: &mut Errors) {
    let (data, binary) = (Path::Root("data"), Path::Root("binaryData"));
    let mut total = 0;
    for (key, value) in entries(body, "data") {
        push_all(errors, &data.key(key), key, names::config_key(key));
        if body.get("binaryData").is_some_and(|b| b.get(key).is_some()) {
            errors.push(FieldError::invalid(data.key(key), key, "duplicate of key present in binaryData"));
        }
        total += value.len();
    }
    for (key, value) in entries(body, "binaryData") {
        push_all(errors, &binary.key(key), key, names::config_key(key));
        total += if value.is_empty() { 0 } else { decoded_len(value) };
    }
    if total > DATA_LIMIT {
        errors.push(FieldError::too_long("", DATA_LIMIT));
    }
}

fn secret(body: &Map<String, Value>, errors: &mut Errors) {
    let data = Path::Root("data");
    let mut total = 0;
    for (key, value) in entries(body, "data") {
        push_all(errors, &data.key(key), key, names::config_key(key));
        total += if value.is_empty() { 0 } else { decoded_len(value) };
    }
    if total > DATA_LIMIT {
        errors.push(FieldError::too_long("data", DATA_LIMIT));
    }
    let has = |key: &str| body.get("data").is_some_and(|d| d.get(key).is_some());
    let needed: &[&str] = match text(body, &["type"]) {
        "kubernetes.io/tls" => &["tls.crt", "tls.key"],
        "kubernetes.io/dockerconfigjson" => &[".dockerconfigjson"],
        "kubernetes.io/dockercfg" => &[".dockercfg"],
        "kubernetes.io/ssh-auth" => &["ssh-privatekey"],
        "kubernetes.io/basic-auth" if !has("username") && !has("password") => &["username", "password"],
        _ => &[],
    };
    for key in needed {
        if !has(key) {
            errors.push(FieldError::required(data.key(key), ""));
        }
    }
}

fn immutable_data(new: &Dynamic, old: &Dynamic, errors: &mut Errors) {
    const DETAIL: &str = "field is immutable when `immutable` is set";
    if old.body.get("immutable") == Some(&Value::Bool(true)) {
        if new.body.get("immutable") != Some(&Value::Bool(true)) {
            errors.push(FieldError::forbidden("immutable", DETAIL));
        }
        for field in ["data", "binaryData"] {
            if new.body.get(field) != old.body.get(field) {
                errors.push(FieldError::forbidden(field, DETAIL));
            }
        }
    }
    let (now, was) = (text(&new.body, &["type"]), text(&old.body, &["type"]));
    if new.kind == Kind::SECRET && now != was {
        errors.push(FieldError::invalid("type", now, "field is immutable"));
    }
}

fn claim_update(new: &PersistentVolumeClaimSpec, old: &PersistentVolumeClaimSpec, errors: &mut Errors) {
    let fixed = |s: &PersistentVolumeClaimSpec| PersistentVolumeClaimSpec {
        resources: None,
        volume_attributes_class_name: None,
        ..s.clone()
    };
    let (now, mut was) = (fixed(new), fixed(old));
    // A claim is bound, and gets a class, after it was made.
    if old.volume_name.as_deref().unwrap_or("").is_empty() {
        was.volume_name.clone_from(&now.volume_name);
    }
    if old.storage_class_name.is_none() {
        was.storage_class_name.clone_from(&now.storage_class_name);
    }
    if now != was {
        let detail = "spec is immutable after creation except resources.requests and volumeAttributesClassName for \
                      bound claims";
        errors.push(FieldError::forbidden("spec", detail));
    }
    let size = |s: &PersistentVolumeClaimSpec| {
        s.resources.as_ref().and_then(|r| r.requests.as_ref()).and_then(|r| r.get("storage")).map(Milli::of)
    };
    if size(new) < size(old) {
        let detail = "field can not be less than status.capacity";
        errors.push(FieldError::forbidden("spec.resources.requests.storage", detail));
    }
}

fn persistent_volume(body: &Map<String, Value>, errors: &mut Errors) {
    let at = &Path::Root("spec");
    let modes: Vec<String> =
        list(body, &["spec", "accessModes"]).iter().filter_map(|v| v.as_str().map(str::to_owned)).collect();
    volume::access_modes(Some(&modes), &at.field("accessModes"), errors);
    if self::at(body, &["spec", "capacity"]).and_then(Value::as_object).is_none_or(Map::is_empty) {
        errors.push(FieldError::required(at.field("capacity"), ""));
    }
    match text(body, &["spec", "persistentVolumeReclaimPolicy"]) {
        "" => {}
        policy => {
            one_of(policy, &["Delete", "Recycle", "Retain"], &at.field("persistentVolumeReclaimPolicy"), errors);
        }
    }
}

fn autoscaler(body: &Map<String, Value>, errors: &mut Errors) {
    let at = &Path::Root("spec");
    let (min, max) = (number(body, &["spec", "minReplicas"]), number(body, &["spec", "maxReplicas"]).unwrap_or(0));
    if let Some(min) = min.filter(|m| *m < 1) {
        errors.push(FieldError::invalid(at.field("minReplicas"), min, "must be greater than or equal to 1"));
    }
    if max < 1 {
        errors.push(FieldError::invalid(at.field("maxReplicas"), max, "must be greater than 0"));
    }
    if min.is_some_and(|min| max < min) {
        let detail = "must be greater than or equal to `minReplicas`";
        errors.push(FieldError::invalid(at.field("maxReplicas"), max, detail));
    }
    for field in ["kind", "name"] {
        required(body, &["spec", "scaleTargetRef", field], errors);
    }
}

/// Highest priority that a class of a user may have.
const HIGHEST_USER_PRIORITY: i64 = 1_000_000_000;

fn priority_class(d: &Dynamic, errors: &mut Errors) {
    let name = d.meta.name.as_deref().unwrap_or("");
    let system = ["system-node-critical", "system-cluster-critical"].contains(&name);
    if name.starts_with("system-") && !system {
        let detail = "priority class names with 'system-' prefix are reserved for system use only. error: \
                      this is not a known system priority class";
        errors.push(FieldError::forbidden("metadata.name", detail));
    } else if !system && number(&d.body, &["value"]).unwrap_or(0) > HIGHEST_USER_PRIORITY {
        let detail = format!("maximum allowed value of a user defined priority is {HIGHEST_USER_PRIORITY}");
        errors.push(FieldError::forbidden("value", detail));
    }
    match text(&d.body, &["preemptionPolicy"]) {
        "" => {}
        policy => one_of(policy, &["PreemptLowerPriority", "Never"], &Path::Root("preemptionPolicy"), errors),
    }
}

fn role(d: &Dynamic, errors: &mut Errors) {
    let at = &Path::Root("rules");
    for (i, rule) in list(&d.body, &["rules"]).iter().enumerate() {
        let at = at.index(i);
        let count = |field: &str| rule.get(field).and_then(Value::as_array).map_or(0, Vec::len);
        if count("verbs") == 0 {
            errors.push(FieldError::required(at.field("verbs"), "verbs must contain at least one value"));
        }
        if count("nonResourceURLs") > 0 {
            if d.kind == Kind::ROLE {
                let urls = Go(rule["nonResourceURLs"].to_string());
                let detail = "namespaced rules cannot apply to non-resource URLs";
                errors.push(FieldError::invalid(at.field("nonResourceURLs"), urls, detail));
            }
            continue;
        }
        if count("apiGroups") == 0 {
            let detail = "resource rules must supply at least one api group";
            errors.push(FieldError::required(at.field("apiGroups"), detail));
        }
        if count("resources") == 0 {
            let detail = "resource rules must supply at least one resource";
            errors.push(FieldError::required(at.field("resources"), detail));
        }
    }
}

fn role_binding(d: &Dynamic, errors: &mut Errors) {
    let group = text(&d.body, &["roleRef", "apiGroup"]);
    one_of(group, &["rbac.authorization.k8s.io"], &Path::Root("roleRef").field("apiGroup"), errors);
    let kinds: &[&str] = if d.kind == Kind::ROLE_BINDING { &["Role", "ClusterRole"] } else { &["ClusterRole"] };
    one_of(text(&d.body, &["roleRef", "kind"]), kinds, &Path::Root("roleRef").field("kind"), errors);
    required(&d.body, &["roleRef", "name"], errors);
    let at = &Path::Root("subjects");
    for (i, subject) in list(&d.body, &["subjects"]).iter().enumerate() {
        let at = at.index(i);
        let get = |field: &str| subject.get(field).and_then(Value::as_str).unwrap_or("");
        if get("name").is_empty() {
            errors.push(FieldError::required(at.field("name"), ""));
        }
        one_of(get("kind"), &["Group", "ServiceAccount", "User"], &at.field("kind"), errors);
        if get("kind") == "ServiceAccount" && get("namespace").is_empty() && d.kind == Kind::CLUSTER_ROLE_BINDING {
            errors.push(FieldError::required(at.field("namespace"), ""));
        }
    }
}

fn ingress(body: &Map<String, Value>, errors: &mut Errors) {
    let at = &Path::Root("spec");
    let rules = list(body, &["spec", "rules"]);
    if rules.is_empty() && self::at(body, &["spec", "defaultBackend"]).is_none() {
        let detail = "either `defaultBackend` or `rules` must be specified";
        errors.push(FieldError::invalid(at, Go("[]networking.IngressRule(nil)".to_owned()), detail));
    }
    let at = at.field("rules");
    for (i, rule) in rules.iter().enumerate() {
        let at = at.index(i);
        let host = rule.get("host").and_then(Value::as_str).unwrap_or("");
        let plain = host.strip_prefix("*.").unwrap_or(host);
        if !plain.is_empty() {
            push_all(errors, &at.field("host"), host, names::subdomain(plain));
        }
        let paths = rule.pointer("/http/paths").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        for (j, path) in paths.iter().enumerate() {
            let at = at.field("http");
            let at = at.field("paths");
            let at = at.index(j);
            ingress_path(path, &at, errors);
        }
    }
}

fn ingress_path(path: &Value, at: &Path<'_>, errors: &mut Errors) {
    let get = |field: &str| path.get(field).and_then(Value::as_str).unwrap_or("");
    let (text, kind) = (get("path"), get("pathType"));
    if kind.is_empty() {
        errors.push(FieldError::required(at.field("pathType"), "pathType must be specified"));
        return;
    }
    one_of(kind, &["Exact", "ImplementationSpecific", "Prefix"], &at.field("pathType"), errors);
    if kind != "ImplementationSpecific" && !text.starts_with('/') {
        errors.push(FieldError::invalid(at.field("path"), text, "must be an absolute path"));
    }
    let service = path.pointer("/backend/service");
    if service.is_none() && path.pointer("/backend/resource").is_none() {
        let detail = "resource or service backend is required";
        errors.push(FieldError::required(at.field("backend"), detail));
    }
    if let Some(service) = service {
        let at = at.field("backend");
        let at = at.field("service");
        if service.get("name").and_then(Value::as_str).unwrap_or("").is_empty() {
            errors.push(FieldError::required(at.field("name"), ""));
        }
        let port = |field: &str| service.pointer(&format!("/port/{field}")).is_some_and(|v| !v.is_null());
        if !port("name") && !port("number") {
            errors.push(FieldError::required(at, "port name or number is required"));
        }
    }
}

fn network_policy(body: &Map<String, Value>, errors: &mut Errors) {
    let at = &Path::Root("spec");
    for (i, type_) in list(body, &["spec", "policyTypes"]).iter().enumerate() {
        let at = at.field("policyTypes");
        one_of(type_.as_str().unwrap_or(""), &["Egress", "Ingress"], &at.index(i), errors);
    }
}

fn quota(body: &Map<String, Value>, errors: &mut Errors) {
    let at = Path::Root("spec");
    let at = at.field("hard");
    for (name, amount) in self::at(body, &["spec", "hard"]).and_then(Value::as_object).into_iter().flatten() {
        let at = at.key(name);
        push_all(errors, &at, name, names::qualified(name));
        let amount = amount.as_str().unwrap_or("");
        if Milli::parse(amount).is_ok_and(|m| m.0 < 0) {
            errors.push(FieldError::invalid(at, amount, names::NOT_NEGATIVE));
        }
    }
}

fn definition(d: &Dynamic, errors: &mut Errors) {
    let (plural, group) = (text(&d.body, &["spec", "names", "plural"]), text(&d.body, &["spec", "group"]));
    let name = d.meta.name.as_deref().unwrap_or("");
    if name != format!("{plural}.{group}") {
        errors.push(FieldError::invalid("metadata.name", name, "must be spec.names.plural+\".\"+spec.group"));
    }
    if group.is_empty() {
        errors.push(FieldError::required("spec.group", ""));
    } else if !group.contains('.') {
        errors.push(FieldError::invalid("spec.group", group, "should be a domain with at least one dot"));
    }
    let scope = text(&d.body, &["spec", "scope"]);
    one_of(scope, &["Cluster", "Namespaced"], &Path::Root("spec").field("scope"), errors);
    for field in ["plural", "singular", "kind", "listKind"] {
        required(&d.body, &["spec", "names", field], errors);
    }
    let versions = list(&d.body, &["spec", "versions"]);
    for (index, version) in versions.iter().enumerate() {
        let at = format!("spec.versions[{index}].schema.openAPIV3Schema");
        match version.pointer("/schema/openAPIV3Schema") {
            Some(schema) => structural::check(schema, &at, errors),
            None => errors.push(FieldError::required(at, "schemas are required")),
        }
    }
    let stored = versions.iter().filter(|v| v.get("storage") == Some(&Value::Bool(true))).count();
    if stored != 1 {
        let shown = Go(Value::Array(versions.to_vec()).to_string());
        errors.push(FieldError::invalid(
            "spec.versions",
            shown,
            "must have exactly one version marked as storage version",
        ));
    }
}
