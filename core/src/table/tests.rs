use serde_json::{Value, json};

use super::{Time, cells, columns, completed};
use crate::machine::Wall;
use crate::object::Kind;

const NOW: Time = Time(Wall(1_000_000_000));

fn check(kind: Kind, object: Value, want: Value) {
    assert_eq!(Value::Array(cells(kind, &object, NOW)), want, "{object}");
}

fn meta(name: &str) -> Value {
    json!({"name": name, "creationTimestamp": "1970-01-01T00:15:00Z"})
}

#[test]
fn every_kind_has_as_many_cells_as_columns() {
    for kind in Kind::all() {
        assert_eq!(cells(kind, &json!({"metadata": meta("x")}), NOW).len(), columns(kind).len(), "{kind}");
        assert!(columns(kind).iter().any(|c| c.name == "Name"), "{kind}");
    }
}

/// A pod with one container, compared with the cells of `kubectl get pods`.
fn check_pod(status: Value, more: Value, want: [&str; 3]) {
    let mut pod = json!({"metadata": meta("p"), "status": status,
        "spec": {"containers": [{"name": "c"}], "initContainers": [{"name": "i"}, {"name": "s", "restartPolicy": "Always"}]}});
    if let (Some(pod), Value::Object(more)) = (pod["metadata"].as_object_mut(), more) {
        pod.extend(more);
    }
    let cells = cells(Kind::POD, &pod, NOW);
    let got: Vec<&str> = cells[1..4].iter().map(|c| c.as_str().unwrap()).collect();
    assert_eq!(got, want, "{pod}");
}

#[test]
fn a_pod_says_in_one_word_how_it_is() {
    let waiting = |reason: &str| json!({"waiting": {"reason": reason}});
    let none = || json!({});
    check_pod(json!({"phase": "Pending"}), none(), ["0/2", "Pending", "0"]);
    check_pod(
        json!({"phase": "Pending", "initContainerStatuses": [{"name": "i", "state": waiting("PodInitializing")}]}),
        none(),
        ["0/2", "Init:0/2", "0"],
    );
    check_pod(
        json!({"phase": "Pending", "initContainerStatuses": [{"name": "i", "restartCount": 2,
            "state": {"terminated": {"exitCode": 3}}}]}),
        none(),
        ["0/2", "Init:ExitCode:3", "2"],
    );
    check_pod(
        json!({"phase": "Running", "initContainerStatuses": [
            {"name": "i", "restartCount": 2, "state": {"terminated": {"exitCode": 0}}},
            {"name": "s", "started": true, "ready": true, "state": {"running": {}}}],
            "containerStatuses": [{"name": "c", "ready": true, "restartCount": 1, "state": {"running": {}},
                "lastState": {"terminated": {"finishedAt": "1970-01-01T00:16:30Z"}}}]}),
        none(),
        ["2/2", "Running", "1 (10s ago)"],
    );
    check_pod(
        json!({"phase": "Running", "containerStatuses": [{"name": "c", "restartCount": 4, "state": waiting("CrashLoopBackOff")}]}),
        none(),
        ["0/2", "CrashLoopBackOff", "4"],
    );
    check_pod(
        json!({"phase": "Succeeded", "containerStatuses": [{"name": "c", "state": {"terminated": {"exitCode": 0, "reason": "Completed"}}}]}),
        none(),
        ["0/2", "Completed", "0"],
    );
    check_pod(json!({"phase": "Running"}), json!({"deletionTimestamp": "x"}), ["0/2", "Terminating", "0"]);
    check_pod(
        json!({"phase": "Pending", "conditions": [{"type": "PodScheduled", "reason": "SchedulingGated"}]}),
        none(),
        ["0/2", "SchedulingGated", "0"],
    );
    assert_eq!(completed(Kind::POD, &json!({"status": {"phase": "Failed"}})).unwrap()["reason"], "Failed");
}

#[test]
fn workloads_tell_their_replicas() {
    let template = json!({"spec": {"containers": [{"name": "a", "image": "x"}, {"name": "b", "image": "y"}]}});
    let selector = json!({"matchLabels": {"app": "w"}});
    check(
        Kind::DEPLOYMENT,
        json!({"metadata": meta("d"), "spec": {"replicas": 3, "template": template, "selector": selector},
            "status": {"readyReplicas": 2, "updatedReplicas": 3, "availableReplicas": 2}}),
        json!(["d", "2/3", 3, 2, "100s", "a,b", "x,y", "app=w"]),
    );
    check(
        Kind::JOB,
        json!({"metadata": meta("j"), "spec": {"completions": 2, "template": template},
            "status": {"succeeded": 2, "startTime": "1970-01-01T00:15:00Z", "completionTime": "1970-01-01T00:15:09Z",
                "conditions": [{"type": "Complete", "status": "True"}]}}),
        json!(["j", "Complete", "2/2", "9s", "100s", "a,b", "x,y", "<none>"]),
    );
    check(
        Kind::HORIZONTAL_POD_AUTOSCALER,
        json!({"metadata": meta("h"), "spec": {"scaleTargetRef": {"kind": "Deployment", "name": "d"}, "minReplicas": 1,
            "maxReplicas": 5, "metrics": [{"type": "Resource", "resource": {"name": "cpu",
                "target": {"type": "Utilization", "averageUtilization": 50}}}]}, "status": {"currentReplicas": 2}}),
        json!(["h", "Deployment/d", "cpu: <unknown>/50%", "1", 5, 2, "100s"]),
    );
}

#[test]
fn services_and_nodes_tell_their_addresses() {
    check(
        Kind::SERVICE,
        json!({"metadata": meta("s"), "spec": {"type": "LoadBalancer", "clusterIP": "10.96.0.9", "selector": {"a": "b"},
            "ports": [{"port": 80, "nodePort": 30080, "protocol": "TCP"}]}}),
        json!(["s", "LoadBalancer", "10.96.0.9", "<pending>", "80:30080/TCP", "100s", "a=b"]),
    );
    check(
        Kind::ENDPOINTS,
        json!({"metadata": meta("e"), "subsets": [{"addresses": [{"ip": "10.0.0.1"}, {"ip": "10.0.0.2"}],
            "ports": [{"port": 80}, {"port": 443}]}]}),
        json!(["e", "10.0.0.1:80,10.0.0.2:80,10.0.0.1:443 + 1 more...", "100s"]),
    );
    check(
        Kind::NODE,
        json!({"metadata": {"name": "n", "creationTimestamp": "1970-01-01T00:15:00Z",
                "labels": {"node-role.kubernetes.io/worker": ""}}, "spec": {"unschedulable": true},
            "status": {"conditions": [{"type": "Ready", "status": "False"}], "nodeInfo": {"kubeletVersion": "v1"},
                "addresses": [{"type": "InternalIP", "address": "172.16.0.1"}]}}),
        json!([
            "n",
            "NotReady,SchedulingDisabled",
            "worker",
            "100s",
            "v1",
            "172.16.0.1",
            "<none>",
            "<unknown>",
            "<unknown>",
            "<unknown>"
        ]),
    );
    check(
        Kind::EVENT,
        json!({"metadata": meta("e"), "involvedObject": {"kind": "Pod", "name": "p"}, "type": "Normal", "reason": "R",
            "message": " text ", "lastTimestamp": "1970-01-01T00:16:00Z", "count": 2, "source": {"component": "c"}}),
        json!(["40s", "Normal", "R", "pod/p", "", "c", "text", "<unknown>", 2, "e"]),
    );
    check(Kind::LIMIT_RANGE, json!({"metadata": meta("l")}), json!(["l", "1970-01-01T00:15:00Z"]));
}

#[test]
fn an_api_service_says_who_serves_it_and_whether() {
    let of = |spec: Value, status: Value, want: Value| {
        check(Kind::API_SERVICE, json!({"metadata": meta("v1.x"), "spec": spec, "status": status}), want);
    };
    let condition =
        |status: &str, reason: &str| json!({"conditions": [{"type": "Available", "status": status, "reason": reason}]});
    let service = json!({"service": {"namespace": "n", "name": "s"}});
    of(json!({}), condition("True", "Local"), json!(["v1.x", "Local", "True", "100s"]));
    of(
        service.clone(),
        condition("False", "MissingEndpoints"),
        json!(["v1.x", "n/s", "False (MissingEndpoints)", "100s"]),
    );
    of(service, json!({}), json!(["v1.x", "n/s", "Unknown", "100s"]));
}

#[test]
fn flow_schemas_say_whether_their_level_is_missing() {
    let schema = json!({"metadata": meta("s"), "spec": {"matchingPrecedence": 5, "priorityLevelConfiguration":
        {"name": "p"}, "distinguisherMethod": {"type": "ByUser"}}});
    check(Kind::FLOW_SCHEMA, schema, json!(["s", "p", 5, "ByUser", "100s", "?"]));
    let level = json!({"metadata": meta("p"), "spec": {"type": "Limited", "limited": {"nominalConcurrencyShares": 5,
        "limitResponse": {"type": "Queue", "queuing": {"queues": 4, "handSize": 2, "queueLengthLimit": 9}}}}});
    check(Kind::PRIORITY_LEVEL_CONFIGURATION, level, json!(["p", "Limited", 5, 4, 2, 9, "100s"]));
}

#[test]
fn ranges_and_addresses_of_services() {
    check(
        Kind::SERVICE_CIDR,
        json!({"metadata": meta("kubernetes"), "spec": {"cidrs": ["10.96.0.0/12", "fd00::/64"]}}),
        json!(["kubernetes", "10.96.0.0/12,fd00::/64", "100s"]),
    );
    for (parent, want) in [
        (json!({"resource": "services", "namespace": "default", "name": "a"}), "services/default/a"),
        (json!({"resource": "gateways", "group": "example.com", "name": "g"}), "gateways.example.com/g"),
        (json!(null), "<none>"),
    ] {
        let object = json!({"metadata": meta("10.96.0.1"), "spec": {"parentRef": parent}});
        check(Kind::IP_ADDRESS, object, json!(["10.96.0.1", want, "100s"]));
    }
}
