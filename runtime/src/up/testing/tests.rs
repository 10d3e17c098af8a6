//! Clusters of tests, asked over plain HTTP; `tests/operator.rs` does so with kube-rs.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::{Method, Request};
use serde_json::{Value, json};
use tokio::time::Instant;
use tower_service::Service as _;

use super::{Builder, Perturb, Service, TestCluster};

const PODS: &str = "/api/v1/namespaces/default/pods";

/// Sends a request; returns the code of the answer and its body.
pub(crate) async fn ask(service: &mut Service, method: Method, path: &str, body: Option<Value>) -> (u16, Value) {
    let bytes = body.map(|body| serde_json::to_vec(&body).expect("values serialise")).unwrap_or_default();
    let request = Request::builder().method(method).uri(path).header("Content-Type", "application/json");
    let request = request.body(Full::new(Bytes::from(bytes))).expect("it is a request");
    let response = service.call(request).await.expect("there is an answer");
    let code = response.status().as_u16();
    let bytes = response.into_body().collect().await.expect("it has a body").to_bytes();
    (code, serde_json::from_slice(&bytes).unwrap_or_default())
}

fn pod(name: &str) -> Value {
    json!({"metadata": {"name": name, "labels": {"app": "x"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}})
}

/// Creates a pod, and waits until it runs.
async fn a_pod_runs(cluster: TestCluster) {
    let mut service = cluster.service();
    assert_eq!(ask(&mut service, Method::POST, PODS, Some(pod("a"))).await.0, 201);
    loop {
        let (_, pod) = ask(&mut service, Method::GET, &format!("{PODS}/a"), None).await;
        if pod["status"]["phase"] == "Running" {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[test]
fn an_hour_takes_no_longer_than_what_happens_in_it() {
    let begun = std::time::Instant::now();
    let report = TestCluster::builder().nodes(2).limit(Duration::from_secs(7200)).run(|cluster| async {
        a_pod_runs(cluster).await;
        tokio::time::sleep(Duration::from_secs(3600)).await;
    });
    let report = report.expect("it runs");
    assert!(report.lasted > Duration::from_secs(3600) && report.disturbances.is_empty(), "{report:?}");
    assert!(begun.elapsed() < Duration::from_secs(60), "{:?}", begun.elapsed());
}

#[test]
fn whatever_fails_is_told_with_its_seed() {
    let cluster = || TestCluster::builder().seed(7);
    let fails = |builder: Builder, want: &str| {
        let failure = builder.run(a_pod_runs).expect_err(want);
        assert!(failure.why.contains(want) && failure.seed == 7, "{failure}");
        assert!(failure.to_string().contains("TestCluster::builder().seed(7)"), "{failure}");
    };
    fails(
        cluster().invariant("no pods", |objects| match objects.list("v1", "pods").len() {
            0 => Ok(()),
            count => Err(format!("there are {count}")),
        }),
        "invariant no pods: there are 1",
    );
    fails(cluster().invariant("none", |_| panic!("of itself")), "invariant none panicked: of itself");
    fails(cluster().nodes(0).limit(Duration::from_secs(60)), "the test is not over after 60s");
    let failure = cluster().run(|_| async { panic!("by {}", "itself") }).expect_err("it panics");
    assert_eq!(failure.why, "by itself");
    let failure = cluster().run(|cluster| async move {
        cluster.program("p", |_| async { panic!("inside") });
        tokio::time::sleep(Duration::from_secs(1)).await;
    });
    assert_eq!(failure.expect_err("it panics").why, "p panicked: inside");
}

#[test]
fn a_user_may_do_what_its_roles_say() {
    let ended = TestCluster::builder().run(|cluster| async move {
        let mut service = cluster.service_as("jane", &["developers"]);
        let (code, status) = ask(&mut service, Method::GET, PODS, None).await;
        assert_eq!((code, &status["reason"]), (403, &json!("Forbidden")));
        assert!(status["message"].as_str().is_some_and(|m| m.contains("User \"jane\" cannot list")), "{status}");
    });
    ended.expect("it holds");
}

/// A program that creates a pod every second, and lists them.
async fn busy(mut service: Service) {
    for n in 0..60 {
        let _ = ask(&mut service, Method::POST, PODS, Some(pod(&format!("p{n}")))).await;
        let _ = ask(&mut service, Method::GET, &format!("{PODS}?resourceVersion=0"), None).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

fn disturbed(seed: u64) -> Vec<String> {
    let builder = TestCluster::builder().seed(seed).perturb(Perturb::Heavy);
    let report = builder.run(|cluster| async move {
        cluster.program("busy", busy);
        tokio::time::sleep(Duration::from_secs(200)).await;
    });
    report.expect("nothing is judged").disturbances.iter().map(ToString::to_string).collect()
}

#[test]
fn the_seed_decides_what_is_disturbed() {
    let first = disturbed(1);
    assert!(first.len() > 10, "{first:#?}");
    assert_eq!(first, disturbed(1));
    assert_ne!(first, disturbed(2));
    for want in ["429", "503", "504", "late", "restarted"] {
        assert!(first.iter().any(|line| line.contains(want)), "{want} in {first:#?}");
    }
}

#[test]
fn a_program_is_restarted_and_what_it_had_is_cut_off() {
    let starts = Rc::new(Cell::new(0));
    let counted = Rc::clone(&starts);
    let ended = TestCluster::builder().perturb(Perturb::Heavy).run(move |cluster| {
        let counted = Rc::clone(&counted);
        async move {
            let begun = Instant::now();
            cluster.program("busy", move |service| {
                counted.set(counted.get() + 1);
                busy(service)
            });
            tokio::time::sleep(Duration::from_secs(300)).await;
            cluster.heal().await;
            assert!(begun.elapsed() >= Duration::from_secs(330), "what is held back has time to come");
        }
    });
    ended.expect("nothing is judged");
    assert!(starts.get() > 1, "{}", starts.get());
}

#[test]
fn a_failure_is_shown_with_what_it_takes() {
    let builder = TestCluster::builder().perturb(Perturb::Heavy).invariant("at most three", |objects| {
        // It fails without any disturbance.
        match objects.list("v1", "pods").len() {
            0..=3 => Ok(()),
            count => Err(format!("{count} pods")),
        }
    });
    let checked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        builder.check(3..5, |cluster| async move {
            cluster.program("busy", busy);
            tokio::time::sleep(Duration::from_secs(60)).await;
        });
    }));
    let told = super::said(&*checked.expect_err("it fails"));
    assert!(told.starts_with("seed 3: invariant at most three: 4 pods"), "{told}");
    assert!(told.contains("nothing needs to be disturbed for that"), "{told}");
}
