//! Tables of nodes, namespaces, events, RBAC objects and cluster configuration.

use serde_json::{Value, json};

use super::{Column, Printer, Time, age, int_at, list_at, name, number, or_none, str_at, str_or, text, wide};
use crate::object::Kind;

pub(super) fn printer(kind: Kind) -> Option<Printer> {
    let (columns, cells): (&[Column], fn(&Value, Time) -> Vec<Value>) = match kind {
        Kind::NODE => (NODE, node),
        Kind::NAMESPACE => (NAMESPACE, namespace),
        Kind::EVENT => (EVENT, event),
        Kind::SERVICE_ACCOUNT => (SERVICE_ACCOUNT, service_account),
        Kind::RESOURCE_QUOTA => (QUOTA, quota),
        Kind::LEASE => (LEASE, lease),
        Kind::ROLE_BINDING | Kind::CLUSTER_ROLE_BINDING => (BINDING, binding),
        Kind::PRIORITY_CLASS => (PRIORITY_CLASS, priority_class),
        Kind::RUNTIME_CLASS => (RUNTIME_CLASS, runtime_class),
        Kind::MUTATING_WEBHOOK_CONFIGURATION | Kind::VALIDATING_WEBHOOK_CONFIGURATION => (WEBHOOKS, webhooks),
        Kind::API_SERVICE => (API_SERVICE, api_service),
        Kind::FLOW_SCHEMA => (FLOW_SCHEMA, flow_schema),
        Kind::PRIORITY_LEVEL_CONFIGURATION => (PRIORITY_LEVEL, priority_level),
        _ => return None,
    };
    Some(Printer { columns, cells })
}

const NODE: &[Column] = &[
    text("Name"),
    text("Status"),
    text("Roles"),
    text("Age"),
    text("Version"),
    wide("Internal-IP"),
    wide("External-IP"),
    wide("OS-Image"),
    wide("Kernel-Version"),
    wide("Container-Runtime"),
];

fn node(o: &Value, now: Time) -> Vec<Value> {
    let ready = list_at(o, "/status/conditions").iter().find(|c| str_at(c, "/type") == "Ready");
    let mut status = match ready.map(|c| str_at(c, "/status")) {
        Some("True") => "Ready".to_owned(),
        Some(_) => "NotReady".to_owned(),
        None => "Unknown".to_owned(),
    };
    if o.pointer("/spec/unschedulable") == Some(&Value::Bool(true)) {
        status.push_str(",SchedulingDisabled");
    }
    let labels = o.pointer("/metadata/labels").and_then(Value::as_object);
    let role = |(k, v): (&String, &Value)| match (k.strip_prefix("node-role.kubernetes.io/"), v.as_str()) {
        (Some(role), _) if !role.is_empty() => Some(role.to_owned()),
        (None, Some(role)) if k == "kubernetes.io/role" && !role.is_empty() => Some(role.to_owned()),
        _ => None,
    };
    let mut roles: Vec<String> = labels.into_iter().flatten().filter_map(role).collect();
    roles.sort();
    roles.dedup();
    let address = |type_: &str| {
        let found = list_at(o, "/status/addresses").iter().find(|a| str_at(a, "/type") == type_);
        json!(found.map_or("<none>", |a| str_at(a, "/address")))
    };
    let info = |field: &str| json!(str_or(o, &format!("/status/nodeInfo/{field}"), "<unknown>"));
    vec![
        json!(name(o)),
        json!(status),
        json!(or_none(roles.join(","))),
        age(o, now),
        json!(str_at(o, "/status/nodeInfo/kubeletVersion")),
        address("InternalIP"),
        address("ExternalIP"),
        info("osImage"),
        info("kernelVersion"),
        info("containerRuntimeVersion"),
    ]
}

const NAMESPACE: &[Column] = &[text("Name"), text("Status"), text("Age")];

fn namespace(o: &Value, now: Time) -> Vec<Value> {
    vec![json!(name(o)), json!(str_at(o, "/status/phase")), age(o, now)]
}

const EVENT: &[Column] = &[
    text("Last Seen"),
    text("Type"),
    text("Reason"),
    text("Object"),
    wide("Subobject"),
    wide("Source"),
    text("Message"),
    wide("First Seen"),
    Column { name: "Count", type_: "integer", priority: 1 },
    Column { name: "Name", type_: "string", priority: 1 },
];

fn event(o: &Value, now: Time) -> Vec<Value> {
    let first = now.since(str_or(o, "/firstTimestamp", str_at(o, "/eventTime")));
    let mut last = match str_at(o, "/lastTimestamp") {
        "" => first.clone(),
        at => now.since(at),
    };
    let mut count = int_at(o, "/count").max(1);
    if o.get("series").is_some_and(|s| !s.is_null()) {
        last = now.since(str_at(o, "/series/lastObservedTime"));
        count = int_at(o, "/series/count");
    }
    let kind = str_at(o, "/involvedObject/kind").to_lowercase();
    let object = match str_at(o, "/involvedObject/name") {
        "" => kind,
        name => format!("{kind}/{name}"),
    };
    let component = str_or(o, "/source/component", str_at(o, "/reportingComponent"));
    let source = match str_or(o, "/source/host", str_at(o, "/reportingInstance")) {
        "" => component.to_owned(),
        host => format!("{component}, {host}"),
    };
    vec![
        json!(last),
        json!(str_at(o, "/type")),
        json!(str_at(o, "/reason")),
        json!(object),
        json!(str_at(o, "/involvedObject/fieldPath")),
        json!(source),
        json!(str_at(o, "/message").trim()),
        json!(first),
        json!(count),
        json!(name(o)),
    ]
}

const SERVICE_ACCOUNT: &[Column] = &[text("Name"), number("Secrets"), text("Age")];

fn service_account(o: &Value, now: Time) -> Vec<Value> {
    vec![json!(name(o)), json!(list_at(o, "/secrets").len()), age(o, now)]
}

const QUOTA: &[Column] = &[text("Name"), text("Request"), text("Limit"), text("Age")];

fn quota(o: &Value, now: Time) -> Vec<Value> {
    let (mut requests, mut limits) = (Vec::new(), Vec::new());
    for (resource, hard) in o.pointer("/status/hard").and_then(Value::as_object).into_iter().flatten() {
        let used = o.pointer("/status/used").and_then(|u| u.get(resource)).and_then(Value::as_str).unwrap_or("0");
        let list = if resource.starts_with("limits") { &mut limits } else { &mut requests };
        list.push(format!("{resource}: {used}/{}", hard.as_str().unwrap_or("")));
    }
    vec![json!(name(o)), json!(requests.join(", ")), json!(limits.join(", ")), age(o, now)]
}

const LEASE: &[Column] = &[text("Name"), text("Holder"), text("Age")];

fn lease(o: &Value, now: Time) -> Vec<Value> {
    vec![json!(name(o)), json!(str_at(o, "/spec/holderIdentity")), age(o, now)]
}

const BINDING: &[Column] =
    &[text("Name"), text("Role"), text("Age"), wide("Users"), wide("Groups"), wide("ServiceAccounts")];

fn binding(o: &Value, now: Time) -> Vec<Value> {
    let subjects = |kind: &str| {
        let of_kind = list_at(o, "/subjects").iter().filter(|s| str_at(s, "/kind") == kind);
        let show = |s: &Value| match kind {
            "ServiceAccount" => format!("{}/{}", str_at(s, "/namespace"), str_at(s, "/name")),
            _ => str_at(s, "/name").to_owned(),
        };
        json!(of_kind.map(show).collect::<Vec<_>>().join(", "))
    };
    let role = format!("{}/{}", str_at(o, "/roleRef/kind"), str_at(o, "/roleRef/name"));
    vec![json!(name(o)), json!(role), age(o, now), subjects("User"), subjects("Group"), subjects("ServiceAccount")]
}

const PRIORITY_CLASS: &[Column] = &[
    text("Name"),
    number("Value"),
    Column { name: "Global-Default", type_: "boolean", priority: 0 },
    text("Age"),
    text("PreemptionPolicy"),
];

fn priority_class(o: &Value, now: Time) -> Vec<Value> {
    vec![
        json!(name(o)),
        json!(int_at(o, "/value")),
        json!(o["globalDefault"] == true),
        age(o, now),
        json!(str_or(o, "/preemptionPolicy", "PreemptLowerPriority")),
    ]
}

const RUNTIME_CLASS: &[Column] = &[text("Name"), text("Handler"), text("Age")];

fn runtime_class(o: &Value, now: Time) -> Vec<Value> {
    vec![json!(name(o)), json!(str_at(o, "/handler")), age(o, now)]
}

const FLOW_SCHEMA: &[Column] = &[
    text("Name"),
    text("PriorityLevel"),
    text("MatchingPrecedence"),
    text("DistinguisherMethod"),
    text("Age"),
    text("MissingPL"),
];

fn flow_schema(o: &Value, now: Time) -> Vec<Value> {
    let dangling = list_at(o, "/status/conditions").iter().find(|c| str_at(c, "/type") == "Dangling");
    vec![
        json!(name(o)),
        json!(str_at(o, "/spec/priorityLevelConfiguration/name")),
        json!(int_at(o, "/spec/matchingPrecedence")),
        json!(str_or(o, "/spec/distinguisherMethod/type", "<none>")),
        age(o, now),
        json!(dangling.map_or("?", |c| str_at(c, "/status"))),
    ]
}

const PRIORITY_LEVEL: &[Column] = &[
    text("Name"),
    text("Type"),
    text("NominalConcurrencyShares"),
    text("Queues"),
    text("HandSize"),
    text("QueueLengthLimit"),
    text("Age"),
];

fn priority_level(o: &Value, now: Time) -> Vec<Value> {
    let count = |path: &str| o.pointer(path).filter(|count| count.is_i64()).cloned().unwrap_or_else(|| json!("<none>"));
    let queuing = |field: &str| count(&format!("/spec/limited/limitResponse/queuing/{field}"));
    vec![
        json!(name(o)),
        json!(str_at(o, "/spec/type")),
        count("/spec/limited/nominalConcurrencyShares"),
        queuing("queues"),
        queuing("handSize"),
        queuing("queueLengthLimit"),
        age(o, now),
    ]
}

const API_SERVICE: &[Column] = &[text("Name"), text("Service"), text("Available"), text("Age")];

fn api_service(o: &Value, now: Time) -> Vec<Value> {
    let service = match o.pointer("/spec/service").filter(|service| !service.is_null()) {
        Some(service) => format!("{}/{}", str_at(service, "/namespace"), str_at(service, "/name")),
        None => "Local".to_owned(),
    };
    let available = list_at(o, "/status/conditions").iter().find(|c| str_at(c, "/type") == "Available");
    let available = match available.map(|c| (str_at(c, "/status"), str_at(c, "/reason"))) {
        None => "Unknown".to_owned(),
        Some((status, reason)) if status == "True" || reason.is_empty() => status.to_owned(),
        Some((status, reason)) => format!("{status} ({reason})"),
    };
    vec![json!(name(o)), json!(service), json!(available), age(o, now)]
}

const WEBHOOKS: &[Column] = &[text("Name"), number("Webhooks"), text("Age")];

fn webhooks(o: &Value, now: Time) -> Vec<Value> {
    vec![json!(name(o)), json!(list_at(o, "/webhooks").len()), age(o, now)]
}
