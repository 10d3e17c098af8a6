//! Tables of pods and workloads.

use serde_json::{Value, json};

use super::{
    Column, Printer, Time, age, containers, flag, int_at, label_selector, labels, list_at, name, number, or_none, pod,
    str_at, str_or, text, wide,
};
use crate::object::Kind;

pub(super) fn printer(kind: Kind) -> Option<Printer> {
    let (columns, cells): (&[Column], fn(&Value, Time) -> Vec<Value>) = match kind {
        Kind::POD => (pod::COLUMNS, pod::cells),
        Kind::POD_TEMPLATE => (POD_TEMPLATE, pod_template),
        Kind::REPLICA_SET | Kind::REPLICATION_CONTROLLER => (REPLICA_SET, replica_set),
        Kind::DEPLOYMENT => (DEPLOYMENT, deployment),
        Kind::STATEFUL_SET => (STATEFUL_SET, stateful_set),
        Kind::DAEMON_SET => (DAEMON_SET, daemon_set),
        Kind::JOB => (JOB, job),
        Kind::CRON_JOB => (CRON_JOB, cron_job),
        Kind::CONTROLLER_REVISION => (CONTROLLER_REVISION, controller_revision),
        Kind::HORIZONTAL_POD_AUTOSCALER => (AUTOSCALER, autoscaler),
        Kind::POD_DISRUPTION_BUDGET => (DISRUPTION_BUDGET, disruption_budget),
        _ => return None,
    };
    Some(Printer { columns, cells })
}

const POD_TEMPLATE: &[Column] = &[text("Name"), text("Containers"), text("Images"), text("Pod Labels")];

fn pod_template(o: &Value, _: Time) -> Vec<Value> {
    let [names, images] = containers(list_at(o, "/template/spec/containers"));
    vec![json!(name(o)), names, images, json!(labels(o.pointer("/template/metadata/labels")))]
}

const REPLICA_SET: &[Column] = &[
    text("Name"),
    number("Desired"),
    number("Current"),
    number("Ready"),
    text("Age"),
    wide("Containers"),
    wide("Images"),
    wide("Selector"),
];

/// Row of a ReplicaSet or ReplicationController.
fn replica_set(o: &Value, now: Time) -> Vec<Value> {
    let [names, images] = containers(list_at(o, "/spec/template/spec/containers"));
    let selector = match o["kind"].as_str() {
        Some("ReplicationController") => labels(o.pointer("/spec/selector")),
        _ => label_selector(o.pointer("/spec/selector")),
    };
    vec![
        json!(name(o)),
        json!(int_at(o, "/spec/replicas")),
        json!(int_at(o, "/status/replicas")),
        json!(int_at(o, "/status/readyReplicas")),
        age(o, now),
        names,
        images,
        json!(selector),
    ]
}

const DEPLOYMENT: &[Column] = &[
    text("Name"),
    text("Ready"),
    number("Up-to-date"),
    number("Available"),
    text("Age"),
    wide("Containers"),
    wide("Images"),
    wide("Selector"),
];

fn deployment(o: &Value, now: Time) -> Vec<Value> {
    let [names, images] = containers(list_at(o, "/spec/template/spec/containers"));
    vec![
        json!(name(o)),
        json!(format!("{}/{}", int_at(o, "/status/readyReplicas"), int_at(o, "/spec/replicas"))),
        json!(int_at(o, "/status/updatedReplicas")),
        json!(int_at(o, "/status/availableReplicas")),
        age(o, now),
        names,
        images,
        json!(label_selector(o.pointer("/spec/selector"))),
    ]
}

const STATEFUL_SET: &[Column] = &[text("Name"), text("Ready"), text("Age"), wide("Containers"), wide("Images")];

fn stateful_set(o: &Value, now: Time) -> Vec<Value> {
    let [names, images] = containers(list_at(o, "/spec/template/spec/containers"));
    let ready = format!("{}/{}", int_at(o, "/status/readyReplicas"), int_at(o, "/spec/replicas"));
    vec![json!(name(o)), json!(ready), age(o, now), names, images]
}

const DAEMON_SET: &[Column] = &[
    text("Name"),
    number("Desired"),
    number("Current"),
    number("Ready"),
    number("Up-to-date"),
    number("Available"),
    text("Node Selector"),
    text("Age"),
    wide("Containers"),
    wide("Images"),
    wide("Selector"),
];

fn daemon_set(o: &Value, now: Time) -> Vec<Value> {
    let [names, images] = containers(list_at(o, "/spec/template/spec/containers"));
    vec![
        json!(name(o)),
        json!(int_at(o, "/status/desiredNumberScheduled")),
        json!(int_at(o, "/status/currentNumberScheduled")),
        json!(int_at(o, "/status/numberReady")),
        json!(int_at(o, "/status/updatedNumberScheduled")),
        json!(int_at(o, "/status/numberAvailable")),
        json!(labels(o.pointer("/spec/template/spec/nodeSelector"))),
        age(o, now),
        names,
        images,
        json!(label_selector(o.pointer("/spec/selector"))),
    ]
}

const JOB: &[Column] = &[
    text("Name"),
    text("Status"),
    text("Completions"),
    text("Duration"),
    text("Age"),
    wide("Containers"),
    wide("Images"),
    wide("Selector"),
];

fn job(o: &Value, now: Time) -> Vec<Value> {
    let succeeded = int_at(o, "/status/succeeded");
    let completions = match (o.pointer("/spec/completions"), int_at(o, "/spec/parallelism")) {
        (Some(completions), _) => format!("{succeeded}/{completions}"),
        (None, parallelism @ 2..) => format!("{succeeded}/1 of {parallelism}"),
        (None, _) => format!("{succeeded}/1"),
    };
    let has = |type_: &str| {
        list_at(o, "/status/conditions").iter().any(|c| str_at(c, "/type") == type_ && str_at(c, "/status") == "True")
    };
    let status = if has("Complete") {
        "Complete"
    } else if has("Failed") {
        "Failed"
    } else if o.pointer("/metadata/deletionTimestamp").is_some() {
        "Terminating"
    } else if has("Suspended") {
        "Suspended"
    } else if has("FailureTarget") {
        "FailureTarget"
    } else if has("SuccessCriteriaMet") {
        "SuccessCriteriaMet"
    } else {
        "Running"
    };
    let duration = now.between(str_at(o, "/status/startTime"), str_at(o, "/status/completionTime"));
    let [names, images] = containers(list_at(o, "/spec/template/spec/containers"));
    let selector = label_selector(o.pointer("/spec/selector"));
    vec![
        json!(name(o)),
        json!(status),
        json!(completions),
        json!(duration),
        age(o, now),
        names,
        images,
        json!(selector),
    ]
}

const CRON_JOB: &[Column] = &[
    text("Name"),
    text("Schedule"),
    text("Timezone"),
    Column { name: "Suspend", type_: "boolean", priority: 0 },
    number("Active"),
    text("Last Schedule"),
    text("Age"),
    wide("Containers"),
    wide("Images"),
    wide("Selector"),
];

fn cron_job(o: &Value, now: Time) -> Vec<Value> {
    let last = match str_at(o, "/status/lastScheduleTime") {
        "" => "<none>".to_owned(),
        at => now.since(at),
    };
    let [names, images] = containers(list_at(o, "/spec/jobTemplate/spec/template/spec/containers"));
    vec![
        json!(name(o)),
        json!(str_at(o, "/spec/schedule")),
        json!(str_or(o, "/spec/timeZone", "<none>")),
        json!(flag(o.pointer("/spec/suspend"))),
        json!(list_at(o, "/status/active").len()),
        json!(last),
        age(o, now),
        names,
        images,
        json!(label_selector(o.pointer("/spec/jobTemplate/spec/selector"))),
    ]
}

const CONTROLLER_REVISION: &[Column] = &[text("Name"), text("Controller"), number("Revision"), text("Age")];

fn controller_revision(o: &Value, now: Time) -> Vec<Value> {
    let owners = list_at(o, "/metadata/ownerReferences");
    let controller = owners.iter().find(|r| r["controller"] == true).map(|r| {
        let kind = str_at(r, "/kind").to_lowercase();
        let group = str_at(r, "/apiVersion").split_once('/').map_or(String::new(), |(group, _)| format!(".{group}"));
        format!("{kind}{group}/{}", str_at(r, "/name"))
    });
    let controller = or_none(controller.unwrap_or_default());
    vec![json!(name(o)), json!(controller), json!(int_at(o, "/revision")), age(o, now)]
}

const AUTOSCALER: &[Column] = &[
    text("Name"),
    text("Reference"),
    text("Targets"),
    text("MinPods"),
    number("MaxPods"),
    number("Replicas"),
    text("Age"),
];

fn autoscaler(o: &Value, now: Time) -> Vec<Value> {
    let reference = format!("{}/{}", str_at(o, "/spec/scaleTargetRef/kind"), str_at(o, "/spec/scaleTargetRef/name"));
    let least = o.pointer("/spec/minReplicas").map_or("<unset>".to_owned(), Value::to_string);
    vec![
        json!(name(o)),
        json!(reference),
        json!(targets(list_at(o, "/spec/metrics"), list_at(o, "/status/currentMetrics"))),
        json!(least),
        json!(int_at(o, "/spec/maxReplicas")),
        json!(int_at(o, "/status/currentReplicas")),
        age(o, now),
    ]
}

/// `cpu: 12%/50%`: current and target metrics of an autoscaler.
fn targets(specs: &[Value], current: &[Value]) -> String {
    let show = |(i, spec): (usize, &Value)| -> String {
        let type_ = str_at(spec, "/type");
        let field = match type_ {
            "" => return "<unknown type>".to_owned(),
            type_ => format!("{}{}", type_[..1].to_lowercase(), &type_[1..]),
        };
        let now = current.get(i).and_then(|c| c.pointer(&format!("/{field}/current")));
        let Some(target) = spec.pointer(&format!("/{field}/target")) else { return "<unknown type>".to_owned() };
        let is = |name: &str, unit: &str| {
            let text = now.and_then(|now| now.get(name)).map(|v| v.as_str().map_or(v.to_string(), str::to_owned));
            text.map_or("<unknown>".to_owned(), |text| format!("{text}{unit}"))
        };
        let label = match type_ {
            "Resource" => format!("{}: ", str_at(spec, "/resource/name")),
            "ContainerResource" => format!("{}: ", str_at(spec, "/containerResource/name")),
            _ => String::new(),
        };
        let resource = !label.is_empty();
        match (target.get("averageValue").and_then(Value::as_str), target.get("value").and_then(Value::as_str)) {
            (Some(average), _) if type_ == "Pods" || resource => {
                format!("{label}{}/{average}", is("averageValue", ""))
            }
            (Some(average), _) => format!("{}/{average} (avg)", is("averageValue", "")),
            (None, _) if resource => {
                let target = target.get("averageUtilization").map_or("<auto>".to_owned(), |t| format!("{t}%"));
                format!("{label}{}/{target}", is("averageUtilization", "%"))
            }
            (None, value) => format!("{}/{}", is("value", ""), value.unwrap_or("")),
        }
    };
    let all: Vec<String> = specs.iter().enumerate().map(show).collect();
    match all.len() {
        0 => "<none>".to_owned(),
        n @ 3.. => format!("{} + {} more...", all[..2].join(", "), n - 2),
        _ => all.join(", "),
    }
}

const DISRUPTION_BUDGET: &[Column] =
    &[text("Name"), text("Min Available"), text("Max Unavailable"), number("Allowed Disruptions"), text("Age")];

fn disruption_budget(o: &Value, now: Time) -> Vec<Value> {
    let bound = |path: &str| match o.pointer(path) {
        Some(Value::String(text)) => text.clone(),
        Some(number) => number.to_string(),
        None => "N/A".to_owned(),
    };
    vec![
        json!(name(o)),
        json!(bound("/spec/minAvailable")),
        json!(bound("/spec/maxUnavailable")),
        json!(int_at(o, "/status/disruptionsAllowed")),
        age(o, now),
    ]
}
