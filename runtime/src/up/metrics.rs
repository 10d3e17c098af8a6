//! `/metrics`: what the server counts, in Prometheus' text format and under Kubernetes' names.
//!
//! Source: <https://kubernetes.io/docs/reference/instrumentation/metrics/>.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Mutex;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use skeg_core::flow::{self, Dispatcher};

/// The media type of the text format.
pub const MEDIA_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";
/// Upper bounds of the buckets of durations, in seconds.
const BUCKETS: [f64; 12] = [0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 2.0, 5.0, 10.0];
/// Maximum number of different labels; requests beyond it are not counted, so that memory stays bounded.
const MAX_SERIES: usize = 10_000;

/// The labels of a request.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct Labels {
    /// `GET`, `LIST`, `WATCH`, `POST`, `PUT`, `PATCH`, `DELETE`, `DELETECOLLECTION`, `CONNECT`.
    pub verb: &'static str,
    /// API group.
    pub group: String,
    /// Version.
    pub version: String,
    /// Resource.
    pub resource: String,
    /// Subresource; empty for none.
    pub subresource: String,
    /// `cluster`, `namespace` or `resource`.
    pub scope: &'static str,
}

impl Labels {
    /// `verb` is the authoriser's, such as `deletecollection`; `connects` is for exec, attach and port-forward.
    pub fn verb(verb: &str, connects: bool) -> &'static str {
        match verb {
            _ if connects => "CONNECT",
            "get" => "GET",
            "list" => "LIST",
            "watch" => "WATCH",
            "create" => "POST",
            "update" => "PUT",
            "patch" => "PATCH",
            "delete" => "DELETE",
            _ => "DELETECOLLECTION",
        }
    }

    fn text(&self) -> String {
        let Labels { verb, group, version, resource, subresource, scope } = self;
        format!(
            "component=\"apiserver\",group=\"{group}\",resource=\"{resource}\",scope=\"{scope}\",\
             subresource=\"{subresource}\",verb=\"{verb}\",version=\"{version}\""
        )
    }

    /// Whether its duration says nothing, since the client decides it.
    fn is_long(&self) -> bool {
        matches!(self.verb, "WATCH" | "CONNECT")
    }
}

#[derive(Default, Debug)]
struct Durations {
    buckets: [u64; BUCKETS.len()],
    count: u64,
    sum: f64,
}

#[derive(Default, Debug)]
struct Counts {
    requests: BTreeMap<(Labels, u16), u64>,
    durations: BTreeMap<Labels, Durations>,
}

/// All that is counted.
#[derive(Debug)]
pub struct Metrics {
    counts: Mutex<Counts>,
    begun: SystemTime,
}

impl Default for Metrics {
    fn default() -> Metrics {
        Metrics { counts: Mutex::default(), begun: SystemTime::now() }
    }
}

/// What the server does at the moment.
#[derive(Clone, Copy, Debug)]
pub struct Present {
    /// Reads that are being answered.
    pub reads: usize,
    /// Writes that are being answered.
    pub writes: usize,
}

impl Metrics {
    /// A request was answered.
    pub fn answered(&self, labels: Labels, code: u16, begun: Instant) {
        let seconds = begun.elapsed().as_secs_f64();
        let mut counts = self.counts.lock().expect("nobody panics while counting");
        if counts.requests.len() >= MAX_SERIES && !counts.requests.contains_key(&(labels.clone(), code)) {
            return;
        }
        if !labels.is_long() {
            let durations = counts.durations.entry(labels.clone()).or_default();
            durations.count += 1;
            durations.sum += seconds;
            for (bucket, bound) in durations.buckets.iter_mut().zip(BUCKETS) {
                *bucket += u64::from(seconds <= bound);
            }
        }
        *counts.requests.entry((labels, code)).or_default() += 1;
    }

    /// The text.
    pub fn text(&self, version: &str, present: Present) -> String {
        let mut text = String::new();
        head(&mut text, "kubernetes_build_info", "gauge", "[ALPHA] The version of Kubernetes whose API is served.");
        let (major, minor) = version.trim_start_matches('v').split_once('.').unwrap_or((version, ""));
        let minor = minor.split('.').next().unwrap_or_default();
        line(
            &mut text,
            "kubernetes_build_info",
            &format!("git_version=\"{version}\",major=\"{major}\",minor=\"{minor}\""),
            1,
        );
        let name = "apiserver_current_inflight_requests";
        head(&mut text, name, "gauge", "[STABLE] Requests that are being answered, of each kind.");
        line(&mut text, name, "request_kind=\"mutating\"", present.writes);
        line(&mut text, name, "request_kind=\"readOnly\"", present.reads);
        self.requests(&mut text);
        process(&mut text, self.begun);
        text
    }

    fn requests(&self, text: &mut String) {
        let counts = self.counts.lock().expect("nobody panics while counting");
        let name = "apiserver_request_total";
        head(text, name, "counter", "[STABLE] Requests, by verb, resource, scope and HTTP response code.");
        for ((labels, code), count) in &counts.requests {
            line(text, name, &format!("code=\"{code}\",{}", labels.text()), count);
        }
        let name = "apiserver_request_duration_seconds";
        head(text, name, "histogram", "[STABLE] How long requests took, in seconds.");
        for (labels, durations) in &counts.durations {
            let labels = labels.text();
            let bounds = BUCKETS.iter().map(f64::to_string).chain(["+Inf".to_owned()]);
            for (bound, count) in bounds.zip(durations.buckets.iter().chain([&durations.count])) {
                line(text, &format!("{name}_bucket"), &format!("{labels},le=\"{bound}\""), count);
            }
            line(text, &format!("{name}_sum"), &labels, durations.sum);
            line(text, &format!("{name}_count"), &labels, durations.count);
        }
    }
}

/// Writes what priority and fairness has decided.
pub fn flows(text: &mut String, dispatcher: &Dispatcher) {
    let of = |level: &str, schema: &str| format!("flow_schema=\"{schema}\",priority_level=\"{level}\"");
    let name = "apiserver_flowcontrol_dispatched_requests_total";
    head(text, name, "counter", "[BETA] Requests that were let in, by priority level and FlowSchema.");
    for (level, schema, totals) in dispatcher.totals() {
        line(text, name, &of(level, schema), totals.dispatched);
    }
    let name = "apiserver_flowcontrol_rejected_requests_total";
    head(text, name, "counter", "[BETA] Requests that were turned away, by priority level, FlowSchema and reason.");
    for (level, schema, totals) in dispatcher.totals() {
        for (why, count) in &totals.refused {
            line(text, name, &format!("{},reason=\"{}\"", of(level, schema), why.name()), count);
        }
    }
    let present = dispatcher.present();
    let mut gauge = |name: &str, help: &str, of_present: fn(&flow::Present) -> usize| {
        head(text, name, "gauge", help);
        for ((level, schema), present) in &present {
            line(text, name, &of(level, schema), of_present(present));
        }
    };
    let name = "apiserver_flowcontrol_current_inqueue_requests";
    gauge(name, "[BETA] Requests that wait.", |present| present.waiting);
    let name = "apiserver_flowcontrol_current_executing_requests";
    gauge(name, "[BETA] Requests that are being answered.", |present| present.executing);
    let name = "apiserver_flowcontrol_current_executing_seats";
    gauge(name, "[BETA] Seats that are taken.", |present| present.seats as usize);
    let name = "apiserver_flowcontrol_nominal_limit_seats";
    head(text, name, "gauge", "[BETA] Seats of each priority level by its shares.");
    for (level, limits) in dispatcher.limits() {
        line(text, name, &format!("priority_level=\"{level}\""), limits.nominal);
    }
    let name = "apiserver_flowcontrol_current_limit_seats";
    head(text, name, "gauge", "[ALPHA] Seats that each priority level may have now.");
    for (level, limits) in dispatcher.limits() {
        line(text, name, &format!("priority_level=\"{level}\""), limits.current.unwrap_or(limits.nominal));
    }
}

fn head(text: &mut String, name: &str, kind: &str, help: &str) {
    // Writing to a string cannot fail, here and below.
    let _ = write!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
}

fn line(text: &mut String, name: &str, labels: &str, value: impl std::fmt::Display) {
    let labels = if labels.is_empty() { String::new() } else { format!("{{{labels}}}") };
    let _ = writeln!(text, "{name}{labels} {value}");
}

/// What the operating system says of the process, where it says it under `/proc`.
fn process(text: &mut String, begun: SystemTime) {
    let begun = begun.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    let name = "process_start_time_seconds";
    head(text, name, "gauge", "Start time of the process since the Unix epoch, in seconds.");
    line(text, name, "", begun.as_secs_f64());
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        line.split_whitespace().next()?.parse::<u64>().ok()
    };
    if let Some(kilobytes) = field("VmRSS:") {
        let name = "process_resident_memory_bytes";
        head(text, name, "gauge", "Resident memory in bytes.");
        line(text, name, "", kilobytes << 10);
    }
    if let Some(threads) = field("Threads:") {
        head(text, "process_threads", "gauge", "Threads of the process.");
        line(text, "process_threads", "", threads);
    }
}

#[cfg(test)]
mod tests {
    use super::{Labels, Metrics, Present};
    use std::time::Instant;

    #[test]
    fn requests_are_counted_under_kubernetes_names() {
        let metrics = Metrics::default();
        let labels = |verb: &str| Labels {
            verb: Labels::verb(verb, false),
            version: "v1".to_owned(),
            resource: "pods".to_owned(),
            scope: "namespace",
            ..Labels::default()
        };
        for (verb, code) in [("list", 200), ("list", 200), ("create", 409), ("watch", 200)] {
            metrics.answered(labels(verb), code, Instant::now());
        }
        let text = metrics.text("v1.36.0", Present { reads: 2, writes: 1 });
        let series = |verb: &str| {
            format!(
                "component=\"apiserver\",group=\"\",resource=\"pods\",scope=\"namespace\",subresource=\"\",\
                     verb=\"{verb}\",version=\"v1\""
            )
        };
        for want in [
            format!("apiserver_request_total{{code=\"200\",{}}} 2\n", series("LIST")),
            format!("apiserver_request_total{{code=\"409\",{}}} 1\n", series("POST")),
            format!("apiserver_request_total{{code=\"200\",{}}} 1\n", series("WATCH")),
            format!("apiserver_request_duration_seconds_bucket{{{},le=\"+Inf\"}} 2\n", series("LIST")),
            format!("apiserver_request_duration_seconds_count{{{}}} 1\n", series("POST")),
            "apiserver_current_inflight_requests{request_kind=\"mutating\"} 1\n".to_owned(),
            "kubernetes_build_info{git_version=\"v1.36.0\",major=\"1\",minor=\"36\"} 1\n".to_owned(),
            "# TYPE process_start_time_seconds gauge\n".to_owned(),
        ] {
            assert!(text.contains(&want), "{want} is not in\n{text}");
        }
        assert!(!text.contains(&format!("duration_seconds_count{{{}}}", series("WATCH"))));
    }
}
