//! Autoscalers go by what real containers use.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::docker::{container, end, start, to_use, with};
use crate::recording;

const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";
const AUTOSCALERS: &str = "/apis/autoscaling/v2/namespaces/default/horizontalpodautoscalers";
/// It is measured every 15 s, counts when it was measured 15 s after the pod has become ready, and is looked at every
/// 15 s.
const PATIENCE: Duration = Duration::from_secs(120);

#[test]
fn busy_containers_are_scaled_up() {
    let Some(_engine) = to_use() else { return };
    let record = recording::empty("docker-scales");
    let cluster = start("docker-scales", &["--in-memory", "--record", record.to_str().expect("text")]);
    let labels = json!({"app": "busy"});
    // It uses what it may, which is twice of what it asks for.
    let resources = json!({"requests": {"cpu": "20m"}, "limits": {"cpu": "40m"}});
    let busy = with(container("c", "while true; do :; done"), "resources", resources);
    let spec = json!({"terminationGracePeriodSeconds": 0, "automountServiceAccountToken": false, "containers": [busy]});
    cluster.create(
        DEPLOYMENTS,
        &json!({"metadata": {"name": "busy"}, "spec": {"replicas": 1, "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": spec}}}),
    );
    let target = json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": "busy"});
    let cpu = json!({"type": "Resource", "resource": {"name": "cpu",
        "target": {"type": "Utilization", "averageUtilization": 100}}});
    cluster.create(
        AUTOSCALERS,
        &json!({"metadata": {"name": "busy"},
            "spec": {"scaleTargetRef": target, "minReplicas": 1, "maxReplicas": 2, "metrics": [cpu]}}),
    );
    let begun = Instant::now();
    loop {
        let replicas = cluster.get(&format!("{DEPLOYMENTS}/busy")).json()["spec"]["replicas"].clone();
        if replicas == 2 {
            break;
        }
        let status = || cluster.get(&format!("{AUTOSCALERS}/busy")).json()["status"].clone();
        assert!(begun.elapsed() < PATIENCE, "{:#}", status());
        std::thread::sleep(Duration::from_millis(500));
    }
    let status: Value = cluster.get(&format!("{AUTOSCALERS}/busy")).json()["status"].clone();
    let measured = &status["currentMetrics"][0]["resource"]["current"]["averageUtilization"];
    assert!(measured.as_i64().is_some_and(|measured| (120..400).contains(&measured)), "{status:#}");
    end(cluster);
    recording::replays(&record);
}
