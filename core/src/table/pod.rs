//! The table row of a pod: how many containers are ready, and its status in one word.

use serde_json::{Value, json};

use super::age::later;
use super::{Column, Time, age, int_at, list_at, name, str_at, str_or, text, wide};

pub(super) const COLUMNS: &[Column] = &[
    text("Name"),
    text("Ready"),
    text("Status"),
    text("Restarts"),
    text("Age"),
    wide("IP"),
    wide("Node"),
    wide("Nominated Node"),
    wide("Readiness Gates"),
];

/// Number of restarts and time of the last one.
#[derive(Clone, Copy, Default)]
struct Restarts<'a> {
    count: i64,
    last: &'a str,
}

impl<'a> Restarts<'a> {
    fn add(&mut self, status: &'a Value) {
        self.count += int_at(status, "/restartCount");
        self.last = later(self.last, str_at(status, "/lastState/terminated/finishedAt"));
    }
}

fn has(value: &Value, path: &str) -> bool {
    value.pointer(path).is_some_and(|v| !v.is_null())
}

/// Why a container terminated: `Error`, `Signal:9`, `ExitCode:1`.
fn ended(status: &Value) -> String {
    match (str_at(status, "/state/terminated/reason"), int_at(status, "/state/terminated/signal")) {
        ("", 0) => format!("ExitCode:{}", int_at(status, "/state/terminated/exitCode")),
        ("", signal) => format!("Signal:{signal}"),
        (reason, _) => reason.to_owned(),
    }
}

/// What the states of the init containers say about the pod.
struct Init<'a> {
    reason: Option<String>,
    ready: usize,
    restarts: Restarts<'a>,
    of_sidecars: Restarts<'a>,
}

fn look_at_init(pod: &Value) -> Init<'_> {
    let specs = list_at(pod, "/spec/initContainers");
    let is_sidecar =
        |name: &str| specs.iter().any(|c| str_at(c, "/name") == name && str_at(c, "/restartPolicy") == "Always");
    let mut init = Init { reason: None, ready: 0, restarts: Restarts::default(), of_sidecars: Restarts::default() };
    for (i, status) in list_at(pod, "/status/initContainerStatuses").iter().enumerate() {
        init.restarts.add(status);
        let sidecar = is_sidecar(str_at(status, "/name"));
        if sidecar {
            init.of_sidecars.add(status);
        }
        let terminated = has(status, "/state/terminated");
        if terminated && int_at(status, "/state/terminated/exitCode") == 0 {
            continue;
        }
        if sidecar && status["started"] == true {
            init.ready += usize::from(status["ready"] == true);
            continue;
        }
        let waits_for = str_at(status, "/state/waiting/reason");
        init.reason = Some(match waits_for {
            _ if terminated => format!("Init:{}", ended(status)),
            "" | "PodInitializing" => format!("Init:{i}/{}", specs.len()),
            reason => format!("Init:{reason}"),
        });
        break;
    }
    init
}

fn condition<'a>(pod: &'a Value, type_: &str) -> Option<&'a Value> {
    list_at(pod, "/status/conditions").iter().find(|c| str_at(c, "/type") == type_)
}

fn is_true(pod: &Value, type_: &str) -> bool {
    condition(pod, type_).is_some_and(|c| str_at(c, "/status") == "True")
}

/// Number of ready containers, the status word, and the restarts.
fn summary(pod: &Value) -> (usize, String, Restarts<'_>) {
    let phase = str_at(pod, "/status/phase");
    let mut reason = str_or(pod, "/status/reason", phase).to_owned();
    if condition(pod, "PodScheduled").is_some_and(|c| str_at(c, "/reason") == "SchedulingGated") {
        "SchedulingGated".clone_into(&mut reason);
    }
    let init = look_at_init(pod);
    let (mut ready, mut restarts) = (init.ready, init.restarts);
    let initializing = init.reason.is_some();
    reason = init.reason.unwrap_or(reason);
    if !initializing || is_true(pod, "Initialized") {
        restarts = init.of_sidecars;
        let mut running = false;
        for status in list_at(pod, "/status/containerStatuses").iter().rev() {
            restarts.add(status);
            match str_at(status, "/state/waiting/reason") {
                "" if has(status, "/state/terminated") => reason = ended(status),
                "" if status["ready"] == true && has(status, "/state/running") => {
                    running = true;
                    ready += 1;
                }
                "" => {}
                waits_for => waits_for.clone_into(&mut reason),
            }
        }
        if reason == "Completed" && running {
            (if is_true(pod, "Ready") { "Running" } else { "NotReady" }).clone_into(&mut reason);
        }
    }
    if has(pod, "/metadata/deletionTimestamp") {
        if str_at(pod, "/status/reason") == "NodeLost" {
            "Unknown".clone_into(&mut reason);
        } else if !matches!(phase, "Succeeded" | "Failed") {
            "Terminating".clone_into(&mut reason);
        }
    }
    (ready, reason, restarts)
}

pub(super) fn cells(pod: &Value, now: Time) -> Vec<Value> {
    let (ready, reason, restarts) = summary(pod);
    let sidecars = list_at(pod, "/spec/initContainers").iter().filter(|c| str_at(c, "/restartPolicy") == "Always");
    let total = list_at(pod, "/spec/containers").len() + sidecars.count();
    let restarts = match (restarts.count, restarts.last) {
        (count, "") | (count @ 0, _) => count.to_string(),
        (count, last) => format!("{count} ({} ago)", now.since(last)),
    };
    let gates = list_at(pod, "/spec/readinessGates");
    let met = gates.iter().filter(|g| is_true(pod, str_at(g, "/conditionType"))).count();
    let gates = if gates.is_empty() { "<none>".to_owned() } else { format!("{met}/{}", gates.len()) };
    vec![
        json!(name(pod)),
        json!(format!("{ready}/{total}")),
        json!(reason),
        json!(restarts),
        age(pod, now),
        json!(str_or(pod, "/status/podIP", "<none>")),
        json!(str_or(pod, "/spec/nodeName", "<none>")),
        json!(str_or(pod, "/status/nominatedNodeName", "<none>")),
        json!(gates),
    ]
}
