//! Tests the reports of one fixed outcome against golden files; `UPDATE_GOLDEN=1 cargo test -p skeg-sim report`
//! regenerates them.

use std::path::PathBuf;

use super::{page, shortened, text};
use crate::outcome::{
    ExpectationResult, Happening, InvariantResult, NotConverged, Outcome, PendingPod, PodStarts, Rollout, Sample,
    Workload,
};

fn happening(at: f64, what: &str) -> Happening {
    Happening { at, what: what.to_owned() }
}

fn workload(kind: &str, name: &str, ready: i32, desired: i32) -> Workload {
    Workload { kind: kind.to_owned(), namespace: "shop".to_owned(), name: name.to_owned(), desired, ready }
}

fn sample(at: f64, ready: usize, running: usize, pending: usize, nodes_ready: usize) -> Sample {
    let pods = [("Ready", ready), ("Running", running), ("Pending", pending)];
    Sample {
        at,
        pods: pods.map(|(phase, n)| (phase.to_owned(), n)).into(),
        nodes_ready,
        utilisation: [("cpu", ready as f64 / 40.0), ("memory", ready as f64 / 80.0)]
            .map(|(k, v)| (k.to_owned(), v))
            .into(),
    }
}

fn outcome() -> Outcome {
    Outcome {
        name: "shop <zone> outage".to_owned(),
        seed: 7,
        nodes: 5000,
        simulated_seconds: 1830.0,
        wall_seconds: 1.25,
        events: 1_234_567,
        event_hash: "00deadbeef00cafe".to_owned(),
        converged: false,
        not_converged: vec![NotConverged { what: "Deployment shop/api".to_owned(), why: "11 of 12 ready".to_owned() }],
        not_converged_total: 3,
        warnings: vec!["Ingress shop/i: kind: stored, but ingress is not simulated yet".to_owned()],
        invariants: vec![
            InvariantResult { name: "node-capacity".to_owned(), broken: false, details: Vec::new() },
            InvariantResult {
                name: "one-leader".to_owned(),
                broken: true,
                details: vec![happening(61.5, "a leads while b still does")],
            },
        ],
        expectations: vec![
            ExpectationResult { what: "web ready".to_owned(), met: true, seen: "9".to_owned() },
            ExpectationResult { what: "api ready".to_owned(), met: false, seen: "11".to_owned() },
        ],
        workloads: vec![workload("Deployment", "web", 9, 9), workload("Deployment", "api", 11, 12)],
        pods: [("Pending", 3), ("Running", 20)].map(|(k, n)| (k.to_owned(), n)).into(),
        pending: ["a", "b", "c"]
            .map(|p| PendingPod {
                pod: format!("shop/{p}"),
                why: if p == "c" { "no nodes available" } else { "0/3 nodes are available: 3 Insufficient cpu." }
                    .to_owned(),
            })
            .into(),
        pending_total: 120,
        pod_starts: PodStarts::default(),
        rollouts: vec![Rollout {
            workload: "Deployment shop/api".to_owned(),
            started: 300.0,
            finished: None,
            lowest_available: 7,
            desired: 12,
        }],
        faults: vec![happening(320.0, "zone-b loses power")],
        in_vain: vec![],
        actions: vec![happening(300.0, "image of api"), happening(0.0, "apply 14 objects")],
        event_reasons: [("Scheduled".to_owned(), 1500), ("Killing".to_owned(), 12)].into(),
        counters: [("watch events".to_owned(), 99_000)].into(),
        utilisation: [("cpu".to_owned(), 0.4567), ("memory".to_owned(), 0.2)].into(),
        series: vec![sample(0.0, 0, 0, 23, 0), sample(900.0, 10, 18, 5, 30), sample(1830.0, 20, 20, 3, 30)],
        peak_rss_bytes: 123 << 20,
    }
}

fn check(name: &str, got: &str) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src/report/golden").join(name);
    if option_env!("UPDATE_GOLDEN").is_some() {
        std::fs::create_dir_all(path.parent().expect("it has one")).expect("it can be made");
        std::fs::write(&path, got).expect("it can be written");
    }
    let want = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(got == want, "{name} differs; build with UPDATE_GOLDEN=1 if that is meant. Got:\n{got}");
}

#[test]
fn the_text_is_as_before() {
    check("report.txt", &text(&outcome(), false));
}

#[test]
fn the_page_is_as_before() {
    check("report.html", &page(&outcome(), &[]));
}

#[test]
fn the_page_needs_nothing_else_and_escapes_what_it_is_given() {
    let html = page(&outcome(), &[]);
    for outside in ["http://", "https://", "<script", "src=", "@import", "url("] {
        assert!(!html.contains(outside), "{outside}");
    }
    assert!(html.contains("shop &lt;zone&gt; outage") && !html.contains("<zone>"));
    assert!(html.contains("prefers-color-scheme:dark"));
    let opened = |tag: &str| html.matches(&format!("<{tag}>")).count() + html.matches(&format!("<{tag} ")).count();
    for tag in ["svg", "table", "tr", "figure", "g", "title", "div"] {
        assert_eq!(opened(tag), html.matches(&format!("</{tag}>")).count(), "{tag}");
    }
}

#[test]
fn an_empty_outcome_is_reported_too() {
    assert!(text(&Outcome::default(), true).contains("not converged"));
    assert!(page(&Outcome::default(), &[]).contains("</html>"));
}

#[test]
fn what_is_shortened_says_so() {
    assert_eq!(shortened("ä", 1), "ä");
    assert_eq!(shortened(&"ä".repeat(5), 3), "äää… and 4 bytes more");
}
