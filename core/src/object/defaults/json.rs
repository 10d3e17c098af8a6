//! Defaults of kinds that are held as JSON. A spec whose k8s-openapi type has rules of its own is decoded as that type,
//! and is encoded again only if something was missing.

use std::rc::Rc;

use k8s_openapi::api::core::v1::PodTemplateSpec;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::rules::Defaults;
use crate::object::decode::rounded_up;
use crate::object::{Dynamic, Kind};

/// Sets the defaults of a dynamic object. Copies nothing if nothing is missing.
pub(super) fn apply(d: &mut Dynamic) {
    match d.kind {
        Kind::POD_TEMPLATE => through::<PodTemplateSpec>(d, "template"),
        _ => plain(d),
    }
}

fn through<T: Defaults + for<'de> Deserialize<'de> + serde::Serialize>(d: &mut Dynamic, field: &str) {
    // A spec that cannot be decoded is left as it is; validation refuses it.
    let Some(Ok(mut spec)) = d.body.get(field).map(T::deserialize) else { return };
    if !spec.lacks() {
        return;
    }
    spec.fill();
    let value = serde_json::to_value(&spec).expect("k8s-openapi types serialise");
    Rc::make_mut(&mut d.body).insert(field.to_owned(), value);
}

fn plain(d: &mut Dynamic) {
    let missing = missing_of(d.kind, &d.body);
    if !missing.is_empty() {
        let body = Rc::make_mut(&mut d.body);
        for (path, value) in missing {
            put(body, &path, value);
        }
    }
    if matches!(d.kind, Kind::PERSISTENT_VOLUME | Kind::PERSISTENT_VOLUME_CLAIM) {
        pending(&mut d.status);
    }
}

fn pending(status: &mut Option<Rc<Value>>) {
    let phase = status.as_ref().and_then(|s| s.get("phase")).and_then(Value::as_str).unwrap_or("");
    if phase.is_empty() {
        let status = Rc::make_mut(status.get_or_insert_with(|| Rc::new(json!({}))));
        if let Value::Object(map) = status {
            map.insert("phase".to_owned(), json!("Pending"));
        }
    }
}

/// The paths in a body at which a value is missing, and the default values.
type Missing = Vec<(Vec<String>, Value)>;

fn missing_of(kind: Kind, body: &Map<String, Value>) -> Missing {
    let mut m = Looking { body, missing: Vec::new() };
    match kind {
        Kind::SECRET => m.at(&[], "type", || json!("Opaque")),
        Kind::PERSISTENT_VOLUME_CLAIM => {
            m.at(&["spec"], "volumeMode", || json!("Filesystem"));
            m.round(&["spec", "resources", "requests"]);
            m.round(&["spec", "resources", "limits"]);
        }
        Kind::RESOURCE_QUOTA => m.round(&["spec", "hard"]),
        Kind::PERSISTENT_VOLUME => {
            m.round(&["spec", "capacity"]);
            m.at(&["spec"], "volumeMode", || json!("Filesystem"));
            m.at(&["spec"], "persistentVolumeReclaimPolicy", || json!("Retain"));
        }
        Kind::STORAGE_CLASS => {
            m.at(&[], "reclaimPolicy", || json!("Delete"));
            m.at(&[], "volumeBindingMode", || json!("Immediate"));
        }
        Kind::PRIORITY_CLASS => m.at(&[], "preemptionPolicy", || json!("PreemptLowerPriority")),
        Kind::CSI_DRIVER => csi_driver(&mut m),
        Kind::INGRESS_CLASS if m.has(&["spec", "parameters"]) => {
            m.at(&["spec", "parameters"], "scope", || json!("Cluster"));
        }
        Kind::NETWORK_POLICY => network_policy(&mut m),
        Kind::ROLE_BINDING | Kind::CLUSTER_ROLE_BINDING => role_binding(&mut m),
        Kind::LIMIT_RANGE => {
            limit_range(&mut m);
            limits_rounded(&mut m);
        }
        Kind::HORIZONTAL_POD_AUTOSCALER => autoscaler(&mut m),
        Kind::CUSTOM_RESOURCE_DEFINITION => definition(&mut m),
        Kind::MUTATING_WEBHOOK_CONFIGURATION => webhooks(&mut m, true),
        Kind::VALIDATING_WEBHOOK_CONFIGURATION => webhooks(&mut m, false),
        _ => {}
    }
    m.missing
}

/// The defaults that are found to be missing in a body so far.
struct Looking<'a> {
    body: &'a Map<String, Value>,
    missing: Missing,
}

impl<'a> Looking<'a> {
    fn get(&self, path: &[&str]) -> Option<&'a Value> {
        let (first, rest) = path.split_first()?;
        let mut value = self.body.get(*first)?;
        for key in rest {
            value = match value {
                Value::Array(items) => items.get(key.parse::<usize>().ok()?)?,
                other => other.get(*key)?,
            };
        }
        Some(value)
    }

    fn has(&self, path: &[&str]) -> bool {
        self.get(path).is_some_and(|v| !v.is_null())
    }

    fn list(&self, path: &[&str]) -> &'a [Value] {
        self.get(path).and_then(Value::as_array).map_or(&[], Vec::as_slice)
    }

    fn text(&self, path: &[&str]) -> &'a str {
        self.get(path).and_then(Value::as_str).unwrap_or("")
    }

    /// Records rounded-up values for the amounts of a resource list that are finer than thousandths
    /// (`SetDefaults_ResourceList`).
    fn round(&mut self, list: &[&str]) {
        for (name, amount) in self.get(list).and_then(Value::as_object).into_iter().flatten() {
            if let Some(rounded) = amount.as_str().and_then(rounded_up) {
                let path = list.iter().copied().chain([name.as_str()]).map(str::to_owned);
                self.missing.push((path.collect(), json!(rounded)));
            }
        }
    }

    /// Records a default for `key` in `parent` if the field is absent or the empty string.
    fn at(&mut self, parent: &[&str], key: &str, value: impl FnOnce() -> Value) {
        let mut path = parent.to_vec();
        path.push(key);
        let unset = match self.get(&path) {
            None | Some(Value::Null) => true,
            Some(Value::String(s)) => s.is_empty(),
            Some(_) => false,
        };
        if unset {
            self.missing.push((path.into_iter().map(str::to_owned).collect(), value()));
        }
    }
}

/// Sets the value at a path of keys and indices, creating missing objects.
fn put(body: &mut Map<String, Value>, path: &[String], value: Value) {
    let Some((last, parents)) = path.split_last() else { return };
    let Some((first, rest)) = parents.split_first() else {
        body.insert(last.clone(), value);
        return;
    };
    let mut at = body.entry(first.clone()).or_insert_with(|| json!({}));
    for key in rest {
        let next = match at {
            Value::Array(items) => key.parse::<usize>().ok().and_then(|i| items.get_mut(i)),
            Value::Object(map) => Some(map.entry(key.clone()).or_insert_with(|| json!({}))),
            _ => None,
        };
        let Some(next) = next else { return };
        at = next;
    }
    if let Value::Object(map) = at {
        map.insert(last.clone(), value);
    }
}

fn csi_driver(m: &mut Looking<'_>) {
    m.at(&["spec"], "attachRequired", || json!(true));
    m.at(&["spec"], "podInfoOnMount", || json!(false));
    m.at(&["spec"], "storageCapacity", || json!(false));
    m.at(&["spec"], "fsGroupPolicy", || json!("ReadWriteOnceWithFSType"));
    m.at(&["spec"], "volumeLifecycleModes", || json!(["Persistent"]));
    m.at(&["spec"], "requiresRepublish", || json!(false));
    m.at(&["spec"], "seLinuxMount", || json!(false));
}

fn network_policy(m: &mut Looking<'_>) {
    for direction in ["ingress", "egress"] {
        for i in 0..m.list(&["spec", direction]).len() {
            let rule = i.to_string();
            for j in 0..m.list(&["spec", direction, &rule, "ports"]).len() {
                m.at(&["spec", direction, &rule, "ports", &j.to_string()], "protocol", || json!("TCP"));
            }
        }
    }
    if m.list(&["spec", "policyTypes"]).is_empty() {
        let both = !m.list(&["spec", "egress"]).is_empty();
        let types = if both { json!(["Ingress", "Egress"]) } else { json!(["Ingress"]) };
        m.missing.push((vec!["spec".to_owned(), "policyTypes".to_owned()], types));
    }
}

fn role_binding(m: &mut Looking<'_>) {
    const GROUP: &str = "rbac.authorization.k8s.io";
    m.at(&["roleRef"], "apiGroup", || json!(GROUP));
    for i in 0..m.list(&["subjects"]).len() {
        let i = i.to_string();
        if matches!(m.text(&["subjects", &i, "kind"]), "User" | "Group") {
            m.at(&["subjects", &i], "apiGroup", || json!(GROUP));
        }
    }
}

/// The default limit of a container defaults to the maximum; the default request to the default limit, or else to the
/// minimum.
fn limit_range(m: &mut Looking<'_>) {
    for i in 0..m.list(&["spec", "limits"]).len() {
        let i = i.to_string();
        let item = |field: &'static str| ["spec", "limits", i.as_str(), field];
        if m.text(&item("type")) != "Container" {
            continue;
        }
        let amounts = |m: &Looking<'_>, field| {
            let list = m.get(&item(field)).and_then(Value::as_object).into_iter().flatten();
            let rounded = |v: &Value| v.as_str().and_then(rounded_up).map_or_else(|| v.clone(), Value::String);
            list.map(|(name, v)| (name.clone(), rounded(v))).collect::<Map<_, _>>()
        };
        let (max, min) = (amounts(m, "max"), amounts(m, "min"));
        let (old_limit, old_request) = (amounts(m, "default"), amounts(m, "defaultRequest"));
        let (mut limit, mut request) = (max, min);
        limit.extend(old_limit.clone());
        request.extend(limit.clone());
        request.extend(old_request.clone());
        for (field, old, new) in [("default", old_limit, limit), ("defaultRequest", old_request, request)] {
            if old != new {
                m.missing.push((item(field).map(str::to_owned).to_vec(), Value::Object(new)));
            }
        }
    }
}

fn limits_rounded(m: &mut Looking<'_>) {
    for i in 0..m.list(&["spec", "limits"]).len() {
        for field in ["max", "min", "default", "defaultRequest", "maxLimitRequestRatio"] {
            m.round(&["spec", "limits", &i.to_string(), field]);
        }
    }
}

fn autoscaler(m: &mut Looking<'_>) {
    m.at(&["spec"], "minReplicas", || json!(1));
    if m.list(&["spec", "metrics"]).is_empty() {
        let cpu = json!([{"type": "Resource",
            "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}}}]);
        m.missing.push((vec!["spec".to_owned(), "metrics".to_owned()], cpu));
    }
    if m.has(&["spec", "behavior"]) {
        let percent = json!({"type": "Percent", "value": 100, "periodSeconds": 15});
        let pods = json!({"type": "Pods", "value": 4, "periodSeconds": 15});
        let up = ["spec", "behavior", "scaleUp"];
        m.at(&up, "stabilizationWindowSeconds", || json!(0));
        m.at(&up, "selectPolicy", || json!("Max"));
        m.at(&up, "policies", || json!([pods, percent]));
        let down = ["spec", "behavior", "scaleDown"];
        m.at(&down, "selectPolicy", || json!("Max"));
        m.at(&down, "policies", || json!([percent]));
    }
}

fn definition(m: &mut Looking<'_>) {
    let kind = m.text(&["spec", "names", "kind"]);
    if !kind.is_empty() {
        m.at(&["spec", "names"], "singular", || json!(kind.to_lowercase()));
        m.at(&["spec", "names"], "listKind", || json!(format!("{kind}List")));
    }
    m.at(&["spec"], "conversion", || json!({"strategy": "None"}));
}

fn webhooks(m: &mut Looking<'_>, mutating: bool) {
    for i in 0..m.list(&["webhooks"]).len() {
        let i = i.to_string();
        let hook = ["webhooks", i.as_str()];
        m.at(&hook, "failurePolicy", || json!("Fail"));
        m.at(&hook, "matchPolicy", || json!("Equivalent"));
        m.at(&hook, "namespaceSelector", || json!({}));
        m.at(&hook, "objectSelector", || json!({}));
        m.at(&hook, "timeoutSeconds", || json!(10));
        if mutating {
            m.at(&hook, "reinvocationPolicy", || json!("Never"));
        }
        if m.has(&["webhooks", &i, "clientConfig", "service"]) {
            m.at(&["webhooks", &i, "clientConfig", "service"], "port", || json!(443));
        }
        for j in 0..m.list(&["webhooks", &i, "rules"]).len() {
            m.at(&["webhooks", &i, "rules", &j.to_string()], "scope", || json!("*"));
        }
    }
}
