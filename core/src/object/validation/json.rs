//! Validation of kinds that are held as JSON: the most important rules of each. Pod templates in them are decoded as
//! their types and validated as everywhere else. Source: `pkg/apis/*/validation`.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use k8s_openapi::api::core::v1::{
    LimitRangeItem, LimitRangeSpec, PersistentVolumeClaimSpec, PodSpec, PodTemplateSpec, ResourceRequirements,
};
use k8s_openapi::api::node::v1::{Overhead, Scheduling};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::path::{Go, Path};
use super::resources::Of;
use super::{names, networking, one_of, push_all, resources, volume, workload};
use crate::object::{Dynamic, FieldError, Kind, Milli, structural};

/// The maximum size of a ConfigMap's or Secret's data in bytes.
const DATA_LIMIT: usize = 1024 * 1024;

type Errors = Vec<FieldError>;

/// Validates a dynamic object by the rules of its kind.
pub(super) fn create(d: &Dynamic, errors: &mut Errors) {
    let root = &Path::Root("spec");
    match d.kind {
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
        Kind::INGRESS => typed_or_none(d, errors, networking::ingress),
        Kind::NETWORK_POLICY => typed_or_none(d, errors, networking::policy),
        Kind::RESOURCE_QUOTA => quota(&d.body, errors),
        Kind::LIMIT_RANGE => typed(d, "spec", errors, limit_range),
        Kind::CUSTOM_RESOURCE_DEFINITION => definition(d, errors),
        Kind::RUNTIME_CLASS => runtime_class(d, errors),
        Kind::INGRESS_CLASS => typed_or_none(d, errors, networking::class),
        _ => {}
    }
}

/// The additional rules for new objects.
pub(super) fn of_new(d: &Dynamic, errors: &mut Errors) {
    if d.kind == Kind::INGRESS {
        networking::class_given_twice(&d.meta, text(&d.body, &["spec", "ingressClassName"]), errors);
    }
}

/// Validates an update of a dynamic object. An unchanged body is not checked again.
pub(super) fn update(new: &Dynamic, old: &Dynamic, errors: &mut Errors) {
    if Rc::ptr_eq(&new.body, &old.body) || new.body == old.body {
        return;
    }
    create(new, errors);
    let root = &Path::Root("spec");
    let spec = |d: &Dynamic| d.body.get("spec").cloned();
    match new.kind {
        Kind::CONFIG_MAP | Kind::SECRET => immutable_data(new, old, errors),
        Kind::RESOURCE_QUOTA => {
            let scopes = |d: &Dynamic| {
                let set = list(&d.body, &["spec", "scopes"]).iter().filter_map(Value::as_str);
                set.map(str::to_owned).collect::<BTreeSet<_>>()
            };
            if scopes(new) != scopes(old) {
                let shown = Go(Value::Array(list(&new.body, &["spec", "scopes"]).to_vec()).to_string());
                errors.push(FieldError::invalid("spec.scopes", shown, "field is immutable"));
            }
        }
        Kind::PERSISTENT_VOLUME_CLAIM => both(new, old, errors, claim_update),
        Kind::PRIORITY_CLASS => {
            for field in ["value", "preemptionPolicy"] {
                if new.body.get(field) != old.body.get(field) {
                    errors.push(FieldError::forbidden(field, "may not be changed in an update."));
                }
            }
        }
        Kind::RUNTIME_CLASS => {
            let handler = |d: &Dynamic| text(&d.body, &["handler"]).to_owned();
            let show = |h: &String| Go(format!("{h:?}"));
            super::meta::immutable(&handler(new), &handler(old), &Path::Root("handler"), show, errors);
        }
        Kind::INGRESS_CLASS => {
            let controller = |d: &Dynamic| text(&d.body, &["spec", "controller"]).to_owned();
            let show = |c: &String| Go(format!("{c:?}"));
            let at = root.field("controller");
            super::meta::immutable(&controller(new), &controller(old), &at, show, errors);
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

/// As [`typed`], for a spec that may be absent; an absent one is validated as an empty one.
fn typed_or_none<T: for<'de> Deserialize<'de> + Default>(
    d: &Dynamic,
    errors: &mut Errors,
    check: impl FnOnce(&T, &mut Errors),
) {
    match d.body.get("spec") {
        None | Some(Value::Null) => check(&T::default(), errors),
        Some(_) => typed(d, "spec", errors, check),
    }
}

/// Decodes both specs as their type. One that cannot be decoded has already been reported by [`create`].
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

/// The number of bytes that a base64 text encodes.
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
    // Binding and the choice of a storage class happen after a claim was created, so these fields may be set once.
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

/// `ValidatePersistentVolumeSpec`, without the rules of each volume source.
fn persistent_volume(body: &Map<String, Value>, errors: &mut Errors) {
    let at = &Path::Root("spec");
    let modes: Vec<String> =
        list(body, &["spec", "accessModes"]).iter().filter_map(|v| v.as_str().map(str::to_owned)).collect();
    volume::access_modes(Some(&modes), "", &at.field("accessModes"), errors);
    let capacity = self::at(body, &["spec", "capacity"]).and_then(Value::as_object);
    let path = at.field("capacity");
    if capacity.is_none_or(Map::is_empty) {
        errors.push(FieldError::required(path, ""));
    }
    if capacity.is_none_or(|c| !c.contains_key("storage") || c.len() > 1) {
        let shown = Go(capacity.map_or("null".to_owned(), |c| Value::Object(c.clone()).to_string()));
        errors.push(FieldError::not_supported(path, shown, &["storage"]));
    }
    for (name, amount) in capacity.into_iter().flatten() {
        let amount = amount.as_str().unwrap_or("");
        if Milli::parse(amount).is_ok_and(|m| m.0 <= 0) {
            errors.push(FieldError::invalid(path.key(name), amount, "must be greater than zero"));
        }
    }
    let policies: [(&str, &[&str]); 2] =
        [("persistentVolumeReclaimPolicy", &["Delete", "Recycle", "Retain"]), ("volumeMode", &["Block", "Filesystem"])];
    for (field, known) in policies {
        match text(body, &["spec", field]) {
            "" => {}
            policy => one_of(policy, known, &at.field(field), errors),
        }
    }
    let sources = self::at(body, &["spec"]).and_then(Value::as_object).into_iter().flatten();
    let sources: Vec<&String> = sources.map(|(k, _)| k).filter(|k| VOLUME_SOURCES.contains(&k.as_str())).collect();
    match sources.as_slice() {
        [] => errors.push(FieldError::required(at, "must specify a volume type")),
        [_, more @ ..] => {
            for source in more {
                errors.push(FieldError::forbidden(at.field(source), "may not specify more than 1 volume type"));
            }
        }
    }
    if self::at(body, &["spec", "local"]).is_some() && self::at(body, &["spec", "nodeAffinity"]).is_none() {
        errors.push(FieldError::required(at.field("nodeAffinity"), "Local volume requires node affinity"));
    }
    let class = text(body, &["spec", "storageClassName"]);
    if !class.is_empty() {
        push_all(errors, &at.field("storageClassName"), class, names::subdomain(class));
    }
}

const VOLUME_SOURCES: &[&str] = &[
    "awsElasticBlockStore",
    "azureDisk",
    "azureFile",
    "cephfs",
    "cinder",
    "csi",
    "fc",
    "flexVolume",
    "flocker",
    "gcePersistentDisk",
    "glusterfs",
    "hostPath",
    "iscsi",
    "local",
    "nfs",
    "photonPersistentDisk",
    "portworxVolume",
    "quobyte",
    "rbd",
    "scaleIO",
    "storageos",
    "vsphereVolume",
];

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

/// The highest value of a PriorityClass that users may create.
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

/// `ValidateRuntimeClass`.
fn runtime_class(d: &Dynamic, errors: &mut Errors) {
    let handler = text(&d.body, &["handler"]);
    push_all(errors, &Path::Root("handler"), handler, names::label(handler));
    if d.body.get("overhead").is_some_and(|o| !o.is_null()) {
        typed(d, "overhead", errors, |o: &Overhead, e| {
            let limits = ResourceRequirements { limits: o.pod_fixed.clone(), ..ResourceRequirements::default() };
            resources::requirements(&limits, Of::Container, &BTreeSet::new(), &Path::Root("overhead"), e);
        });
    }
    if d.body.get("scheduling").is_some_and(|s| !s.is_null()) {
        typed(d, "scheduling", errors, |s: &Scheduling, e| {
            let at = &Path::Root("scheduling");
            super::meta::labels(s.node_selector.as_ref(), &at.field("nodeSelector"), e);
            let (path, list) = (at.field("tolerations"), s.tolerations.as_deref().unwrap_or_default());
            super::scheduling::tolerations(list, &path, e);
            for (i, t) in list.iter().enumerate().filter(|(i, t)| list[..*i].contains(t)) {
                let shown = Go(serde_json::to_string(t).unwrap_or_default());
                e.push(FieldError::duplicate(path.index(i), shown));
            }
        });
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

/// `ValidateResourceQuotaSpec`.
fn quota(body: &Map<String, Value>, errors: &mut Errors) {
    let at = &Path::Root("spec");
    let hard = self::at(body, &["spec", "hard"]).and_then(Value::as_object);
    for (name, amount) in hard.into_iter().flatten() {
        let at = at.field("hard");
        let at = at.key(name);
        resources::quota_resource(name, &at, errors);
        resources::quantity(name, &Quantity(amount.as_str().unwrap_or("").to_owned()), &at, errors);
    }
    let scopes: Vec<String> =
        list(body, &["spec", "scopes"]).iter().filter_map(|s| s.as_str().map(str::to_owned)).collect();
    let names = || hard.into_iter().flatten().map(|(name, _)| name.as_str());
    let path = at.field("scopes");
    for scope in &scopes {
        if !SCOPES.contains(&scope.as_str()) {
            errors.push(FieldError::invalid(path, Go::strings(&scopes), "unsupported scope"));
        }
        for _ in names().filter(|name| !scope_counts(scope, name)) {
            let detail = "unsupported scope applied to resource";
            errors.push(FieldError::invalid(path, Go::strings(&scopes), detail));
        }
    }
    let has = |scope: &str| scopes.iter().any(|s| s == scope);
    for pair in [["BestEffort", "NotBestEffort"], ["Terminating", "NotTerminating"]] {
        if pair.iter().all(|scope| has(scope)) {
            errors.push(FieldError::invalid(path, Go::strings(&scopes), "conflicting scopes"));
        }
    }
    let path = at.field("scopeSelector");
    let path = path.field("matchExpressions");
    for e in list(body, &["spec", "scopeSelector", "matchExpressions"]) {
        scope_requirement(e, &path, errors);
    }
}

const SCOPES: &[&str] = &[
    "BestEffort",
    "CrossNamespacePodAffinity",
    "NotBestEffort",
    "NotTerminating",
    "PriorityClass",
    "Terminating",
    "VolumeAttributesClass",
];

/// `IsResourceQuotaScopeValidForResource`, for the resources that Kubernetes names.
fn scope_counts(scope: &str, resource: &str) -> bool {
    if resource.contains('/') {
        return true;
    }
    let of_pods = resource == "pods"
        || ["cpu", "memory", "ephemeral-storage"].iter().any(|r| {
            resource == *r
                || resource.strip_prefix("requests.") == Some(r)
                || resource.strip_prefix("limits.") == Some(r)
        });
    match scope {
        "BestEffort" => resource == "pods",
        "VolumeAttributesClass" => matches!(resource, "persistentvolumeclaims" | "requests.storage"),
        _ => of_pods || resource.starts_with("requests.hugepages-") || resource.starts_with("hugepages-"),
    }
}

fn scope_requirement(e: &Value, at: &Path<'_>, errors: &mut Errors) {
    let get = |field: &str| e.get(field).and_then(Value::as_str).unwrap_or("");
    let (scope, operator) = (get("scopeName"), get("operator"));
    let values = e.get("values").and_then(Value::as_array).map_or(0, Vec::len);
    if !SCOPES.contains(&scope) {
        errors.push(FieldError::invalid(at.field("scopeName"), scope, "unsupported scope"));
    }
    if !matches!(scope, "PriorityClass" | "VolumeAttributesClass") && operator != "Exists" && SCOPES.contains(&scope) {
        let detail = "must be 'Exists' when scope is any of ResourceQuotaScopeTerminating, \
                      ResourceQuotaScopeNotTerminating, ResourceQuotaScopeBestEffort, ResourceQuotaScopeNotBestEffort \
                      or ResourceQuotaScopeCrossNamespacePodAffinity";
        errors.push(FieldError::invalid(at.field("operator"), operator, detail));
    }
    match (operator, values) {
        ("In" | "NotIn", 0) => {
            let detail = "must be at least one value when `operator` is 'In' or 'NotIn' for scope selector";
            errors.push(FieldError::required(at.field("values"), detail));
        }
        ("Exists" | "DoesNotExist", n) if n > 0 => {
            let detail = "must be no value when `operator` is 'Exist' or 'DoesNotExist' for scope selector";
            errors.push(FieldError::invalid(at.field("values"), Go(e["values"].to_string()), detail));
        }
        ("In" | "NotIn" | "Exists" | "DoesNotExist", _) => {}
        (other, _) => errors.push(FieldError::invalid(at.field("operator"), other, "not a valid selector operator")),
    }
}

/// `ValidateLimitRange`.
fn limit_range(spec: &LimitRangeSpec, errors: &mut Errors) {
    let at = Path::Root("spec");
    let at = at.field("limits");
    for (i, item) in spec.limits.iter().enumerate() {
        let path = at.index(i);
        let type_ = item.type_.as_str();
        push_all(errors, &path.field("type"), type_, names::qualified(type_));
        let known = ["Container", "PersistentVolumeClaim", "Pod"].contains(&type_);
        if names::qualified(type_).is_empty() && !type_.contains('/') && !known {
            let detail = "must be a standard limit type or fully qualified";
            errors.push(FieldError::invalid(path.field("type"), type_, detail));
        }
        if spec.limits[..i].iter().any(|earlier| earlier.type_ == item.type_) {
            errors.push(FieldError::duplicate(path.field("type"), type_));
        }
        limits(item, &path, errors);
    }
}

type Amounts = Option<BTreeMap<String, Quantity>>;

fn limits(item: &LimitRangeItem, at: &Path<'_>, errors: &mut Errors) {
    let of_pod = item.type_ == "Pod";
    let lists: [(&str, &Amounts); 5] = [
        ("max", &item.max),
        ("min", &item.min),
        ("default", &item.default),
        ("defaultRequest", &item.default_request),
        ("maxLimitRequestRatio", &item.max_limit_request_ratio),
    ];
    let mut all = BTreeSet::new();
    for (field, list) in lists {
        if of_pod && field.starts_with("default") {
            if list.as_ref().is_some_and(|l| !l.is_empty()) {
                errors.push(FieldError::forbidden(at.field(field), "may not be specified when `type` is 'Pod'"));
            }
            continue;
        }
        for name in list.iter().flatten().map(|(name, _)| name) {
            let path = at.field(field);
            let path = path.key(name);
            if matches!(item.type_.as_str(), "Pod" | "Container") {
                resources::container_resource(name, &path, errors);
            } else {
                resources::resource(name, &path, errors);
            }
            all.insert(name.as_str());
        }
    }
    let bounds_storage = [&item.min, &item.max].iter().any(|l| l.as_ref().is_some_and(|l| l.contains_key("storage")));
    if item.type_ == "PersistentVolumeClaim" && !bounds_storage {
        let detail = "either minimum or maximum storage value is required, but neither was provided";
        errors.push(FieldError::required(at.field("limits"), detail));
    }
    for name in all {
        limits_of(item, name, at, errors);
    }
}

/// Checks the bounds of one resource against each other.
fn limits_of(item: &LimitRangeItem, name: &str, at: &Path<'_>, errors: &mut Errors) {
    let of = |list: &'_ Amounts| list.as_ref().and_then(|l| l.get(name)).cloned();
    let (min, max, ratio) = (of(&item.min), of(&item.max), of(&item.max_limit_request_ratio));
    let (limit, request) =
        if item.type_ == "Pod" { (None, None) } else { (of(&item.default), of(&item.default_request)) };
    let above = |a: &Option<Quantity>, b: &Option<Quantity>| match (a, b) {
        (Some(a), Some(b)) if Milli::of(a) > Milli::of(b) => Some((a.0.clone(), b.0.clone())),
        _ => None,
    };
    let rows = [
        (&min, &max, "min", &min, ["min value", "max value"]),
        (&min, &request, "defaultRequest", &request, ["min value", "default request value"]),
        (&request, &max, "defaultRequest", &request, ["default request value", "max value"]),
        (&request, &limit, "defaultRequest", &request, ["default request value", "default limit value"]),
        (&min, &limit, "default", &min, ["min value", "default value"]),
        (&limit, &max, "default", &max, ["default value", "max value"]),
    ];
    for (low, high, field, shown, [a, b]) in rows {
        if let Some((x, y)) = above(low, high) {
            let shown = shown.as_ref().map_or("", |q| &q.0);
            let detail = format!("{a} {x} is greater than {b} {y}");
            errors.push(FieldError::invalid(at.field(field).key(name), shown, detail));
        }
    }
    if let Some(r) = &ratio {
        let path = at.field("maxLimitRequestRatio");
        if Milli::of(r) < Milli::units(1) {
            errors.push(FieldError::invalid(path.key(name), &r.0, format!("ratio {} is less than 1", r.0)));
        }
        if let (Some(min), Some(max)) = (&min, &max) {
            // Compared in exact integers; only the numbers in the message are rounded.
            let (low, high) = (Milli::of(min).0, Milli::of(max).0);
            if low > 0 && Milli::of(r).0 * low > high * 1000 {
                let most = high as f64 / low as f64;
                let detail = format!("ratio {} is greater than max/min = {most:.6}", r.0);
                errors.push(FieldError::invalid(path.key(name), &r.0, detail));
            }
        }
    }
    if let (Some(limit), Some(request)) = (&limit, &request)
        && !resources::overcommits(name)
        && Milli::of(limit) != Milli::of(request)
    {
        let detail = format!("default value {} must equal to defaultRequest value {} in {name}", limit.0, request.0);
        errors.push(FieldError::invalid(at.field("defaultRequest").key(name), &request.0, detail));
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
