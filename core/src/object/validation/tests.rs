mod kinds;
mod pods;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::{create, status_update, update};
use crate::object::{Object, decode, defaults};

fn object(value: &Value) -> Object {
    let mut object = decode::strict(value.clone()).unwrap_or_else(|e| panic!("{e:?} in {value}"));
    defaults::apply(&mut object);
    object
}

fn texts(errors: &[crate::object::FieldError]) -> Vec<String> {
    errors.iter().map(ToString::to_string).collect()
}

/// Checks the errors for a new object.
fn check(value: Value, want: &[&str]) {
    assert_eq!(texts(&create(&object(&value))), want, "{value}");
}

fn check_update(new: Value, old: Value, want: &[&str]) {
    assert_eq!(texts(&update(&object(&new), &object(&old))), want, "{new}");
}

fn of(api_version: &str, kind: &str, body: Value) -> Value {
    let mut all = json!({"apiVersion": api_version, "kind": kind, "metadata": {"name": "x", "namespace": "d"}});
    if let (Value::Object(all), Value::Object(body)) = (&mut all, body) {
        all.extend(body);
    }
    all
}

fn with(mut value: Value, path: &str, to: Value) -> Value {
    let (parent, key) = path.rsplit_once('/').unwrap();
    let parent = value.pointer_mut(parent).unwrap_or_else(|| panic!("{path}"));
    match parent {
        Value::Array(items) => items[key.parse::<usize>().unwrap()] = to,
        other => other[key] = to,
    }
    value
}

fn pod() -> Value {
    of(
        "v1",
        "Pod",
        json!({"spec": {"containers": [{"name": "c", "image": "i", "ports": [{"containerPort": 80, "name": "http"}],
            "resources": {"limits": {"cpu": "100m"}, "requests": {"cpu": "100m"}}}],
            "volumes": [{"name": "v", "emptyDir": {}}]}}),
    )
}

fn pod_with(path: &str, to: Value) -> Value {
    with(pod(), &format!("/spec/{path}"), to)
}

fn deployment() -> Value {
    of(
        "apps/v1",
        "Deployment",
        json!({"spec": {"selector": {"matchLabels": {"app": "web"}}, "template": {
            "metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}}}),
    )
}

fn service() -> Value {
    of("v1", "Service", json!({"spec": {"selector": {"a": "b"}, "ports": [{"port": 80}]}}))
}

const SUBDOMAIN: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";

#[test]
fn names_by_kind() {
    check(pod(), &[]);
    check(
        with(pod(), "/metadata/name", json!("Bad_Name")),
        &[&format!("metadata.name: Invalid value: \"Bad_Name\": {SUBDOMAIN}")],
    );
    check(
        with(service(), "/metadata/name", json!("1st")),
        &[
            "metadata.name: Invalid value: \"1st\": a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is '[a-z]([-a-z0-9]*[a-z0-9])?')",
        ],
    );
    let namespace = |name: &str| json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
    check(namespace("a"), &[]);
    check(
        namespace("a.b"),
        &[
            "metadata.name: Invalid value: \"a.b\": a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')",
        ],
    );
    let role = of("rbac.authorization.k8s.io/v1", "Role", json!({"rules": []}));
    check(with(role, "/metadata/name", json!("system:x")), &[]);
    check(
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"namespace": "d"}}),
        &["metadata.name: Required value: name or generateName is required"],
    );
    check(
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}}),
        &["metadata.namespace: Required value"],
    );
    check(
        json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "a", "namespace": "d"}}),
        &["metadata.namespace: Forbidden: not allowed on this type"],
    );
}

#[test]
fn metadata() {
    let meta = |field: &str, to: Value| with(of("v1", "ConfigMap", json!({})), &format!("/metadata/{field}"), to);
    check(
        meta("labels", json!({"a": "b c"})),
        &[
            "metadata.labels: Invalid value: \"b c\": a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')",
        ],
    );
    check(
        meta("finalizers", json!(["mine"])),
        &[
            "metadata.finalizers[0]: Invalid value: \"mine\": name is neither a standard finalizer name nor is it fully qualified",
        ],
    );
    check(meta("finalizers", json!(["x.y/mine", "foregroundDeletion"])), &[]);
    check(
        meta("ownerReferences", json!([{"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": ""}])),
        &["metadata.ownerReferences.uid: Invalid value: \"\": uid must not be empty"],
    );
    check(
        meta("annotations", json!({"a": "x".repeat(300_000)})),
        &["metadata.annotations: Too long: may not be more than 262144 bytes"],
    );
    check(meta("generateName", json!("x-")), &[]);
}

#[test]
fn metadata_updates() {
    let old = with(with(pod(), "/metadata/uid", json!("u")), "/metadata/generation", json!(4));
    let change = |path: &str, to: Value| with(old.clone(), path, to);
    check_update(old.clone(), old.clone(), &[]);
    check_update(
        change("/metadata/uid", json!("v")),
        old.clone(),
        &["metadata.uid: Invalid value: \"v\": field is immutable"],
    );
    check_update(change("/metadata/uid", Value::Null), old.clone(), &[]);
    check_update(
        change("/metadata/generation", json!(3)),
        old.clone(),
        &["metadata.generation: Invalid value: 3: must not be decremented"],
    );
    let deleting = change("/metadata/deletionTimestamp", json!("2030-01-01T00:00:00Z"));
    check_update(
        deleting.clone(),
        old.clone(),
        &["metadata.deletionTimestamp: Invalid value: \"2030-01-01T00:00:00Z\": field is immutable"],
    );
    check_update(
        with(deleting.clone(), "/metadata/finalizers", json!(["a.b/c"])),
        deleting,
        &[
            "metadata.finalizers: Forbidden: no new finalizers can be added if the object is being deleted, found new finalizers [\"a.b/c\"]",
        ],
    );
}

#[test]
fn containers() {
    check(pod_with("containers", json!([])), &["spec.containers: Required value"]);
    check(pod_with("containers/0/image", Value::Null), &["spec.containers[0].image: Required value"]);
    check(
        pod_with("containers", json!([{"name": "c", "image": "i"}, {"name": "c", "image": "i"}])),
        &["spec.containers[1].name: Duplicate value: \"c\""],
    );
    check(
        pod_with("initContainers", json!([{"name": "c", "image": "i"}])),
        &["spec.initContainers[0].name: Duplicate value: \"c\""],
    );
    check(
        pod_with("initContainers", json!([{"name": "i", "image": "i", "livenessProbe": {"exec": {"command": ["a"]}}}])),
        &[
            "spec.initContainers[0].livenessProbe: Forbidden: may not be set for init containers without restartPolicy=Always",
        ],
    );
    check(
        pod_with("containers/0/resources", json!({"limits": {"cpu": "100m"}, "requests": {"cpu": "200m"}})),
        &[
            "spec.containers[0].resources.requests: Invalid value: \"200m\": must be less than or equal to cpu limit of 100m",
        ],
    );
    check(
        pod_with("containers/0/resources", json!({"limits": {"x.y/gpu": "0.5"}})),
        &[
            "spec.containers[0].resources.limits[x.y/gpu]: Invalid value: \"500m\": must be an integer",
            "spec.containers[0].resources.requests[x.y/gpu]: Invalid value: \"500m\": must be an integer",
        ],
    );
    check(
        pod_with("containers/0/resources", json!({"requests": {"x.y/gpu": "1"}})),
        &["spec.containers[0].resources.limits: Required value: Limit must be set for non overcommitable resources"],
    );
    check(
        pod_with("containers/0/resources", json!({"requests": {"cpus": "-1"}})),
        &[
            "spec.containers[0].resources.requests[cpus]: Invalid value: \"cpus\": must be a standard resource type or fully qualified",
            "spec.containers[0].resources.requests[cpus]: Invalid value: \"cpus\": must be a standard resource for containers",
            "spec.containers[0].resources.requests[cpus]: Invalid value: \"-1\": must be greater than or equal to 0",
        ],
    );
    check(
        pod_with(
            "containers/0/resources",
            json!({"requests": {"hugepages-2Mi": "2Mi"}, "limits": {"hugepages-2Mi": "2Mi"}}),
        ),
        &["spec.containers[0].resources: Forbidden: HugePages require cpu or memory"],
    );
    check(
        pod_with(
            "containers/0/ports",
            json!([{"containerPort": 70000}, {"name": "h", "containerPort": 1}, {"name": "h", "containerPort": 2}]),
        ),
        &[
            "spec.containers[0].ports[0].containerPort: Invalid value: 70000: must be between 1 and 65535, inclusive",
            "spec.containers[0].ports[2].name: Duplicate value: \"h\"",
        ],
    );
    check(
        pod_with("containers/0/imagePullPolicy", json!("Sometimes")),
        &[
            "spec.containers[0].imagePullPolicy: Unsupported value: \"Sometimes\": supported values: \"Always\", \"IfNotPresent\", \"Never\"",
        ],
    );
    check(
        pod_with("containers/0/livenessProbe", json!({"successThreshold": 2})),
        &[
            "spec.containers[0].livenessProbe: Required value: must specify a handler type",
            "spec.containers[0].livenessProbe.successThreshold: Invalid value: 2: must be 1",
        ],
    );
    check(
        pod_with(
            "containers/0/env",
            json!([{"name": "a=b"}, {"name": "A", "value": "x", "valueFrom": {"fieldRef": {"fieldPath": "spec.x"}}}]),
        ),
        &[
            "spec.containers[0].env[0].name: Invalid value: \"a=b\": a valid environment variable name must consist only of printable ASCII characters other than '='",
            "spec.containers[0].env[1].valueFrom.fieldRef.fieldPath: Invalid value: \"spec.x\": error converting fieldPath: field label not supported: spec.x",
            "spec.containers[0].env[1].valueFrom: Invalid value: \"\": may not be specified when `value` is not empty",
        ],
    );
}

#[test]
fn volumes_and_mounts() {
    let mounts = json!([{"name": "v", "mountPath": "/a"}, {"name": "w", "mountPath": "/a", "subPath": "../x"}]);
    check(
        pod_with("containers/0/volumeMounts", mounts),
        &[
            "spec.containers[0].volumeMounts[1].name: Not found: \"w\"",
            "spec.containers[0].volumeMounts[1].mountPath: Invalid value: \"/a\": must be unique",
            "spec.containers[0].volumeMounts.subPath: Invalid value: \"../x\": must not contain '..'",
        ],
    );
    check(
        pod_with(
            "volumes",
            json!([{"name": "a", "emptyDir": {}, "hostPath": {"path": ""}}, {"name": "a", "secret": {}}]),
        ),
        &[
            "spec.volumes[0].hostPath: Forbidden: may not specify more than 1 volume type",
            "spec.volumes[1].secret.secretName: Required value",
        ],
    );
}

#[test]
fn pods() {
    check(
        pod_with("restartPolicy", json!("Maybe")),
        &["spec.restartPolicy: Unsupported value: \"Maybe\": supported values: \"Always\", \"OnFailure\", \"Never\""],
    );
    check(pod_with("terminationGracePeriodSeconds", json!(-1)), &[]);
    check(
        pod_with(
            "tolerations",
            json!([{"operator": "Equal"}, {"key": "a", "operator": "Exists", "effect": "NoSchedule", "tolerationSeconds": 1}]),
        ),
        &[
            "spec.tolerations[0].operator: Invalid value: \"Equal\": operator must be Exists when `key` is empty, which means \"match all values and all keys\"",
            "spec.tolerations[1].effect: Invalid value: \"NoSchedule\": effect must be 'NoExecute' when `tolerationSeconds` is set",
        ],
    );
    let affinity = json!({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
        {"matchExpressions": [{"key": "a", "operator": "Near"}, {"key": "a", "operator": "In"}]}]}},
        "podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 0, "podAffinityTerm": {"topologyKey": ""}}]}});
    check(
        pod_with("affinity", affinity),
        &[
            "spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[0].matchExpressions[0].operator: Invalid value: \"Near\": not a valid selector operator",
            "spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[0].matchExpressions[1].values: Required value: must be specified when `operator` is 'In' or 'NotIn'",
            "spec.affinity.podAntiAffinity.preferredDuringSchedulingIgnoredDuringExecution[0].weight: Invalid value: 0: must be in the range 1-100",
            "spec.affinity.podAntiAffinity.preferredDuringSchedulingIgnoredDuringExecution[0].podAffinityTerm.topologyKey: Required value: can not be empty",
            "spec.affinity.podAntiAffinity.preferredDuringSchedulingIgnoredDuringExecution[0].podAffinityTerm.topologyKey: Invalid value: \"\": name part must be non-empty",
            "spec.affinity.podAntiAffinity.preferredDuringSchedulingIgnoredDuringExecution[0].podAffinityTerm.topologyKey: Invalid value: \"\": name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')",
        ],
    );
    check(
        pod_with("topologySpreadConstraints", json!([{"maxSkew": 0, "topologyKey": "zone", "whenUnsatisfiable": "X"}])),
        &[
            "spec.topologySpreadConstraints[0].maxSkew: Invalid value: 0: must be greater than zero",
            "spec.topologySpreadConstraints[0].whenUnsatisfiable: Unsupported value: \"X\": supported values: \"DoNotSchedule\", \"ScheduleAnyway\"",
        ],
    );
}

#[test]
fn pod_updates() {
    check_update(pod_with("containers/0/image", json!("j")), pod(), &[]);
    check_update(pod_with("tolerations", json!([{"operator": "Exists"}])), pod(), &[]);
    check_update(
        pod_with("containers", json!([{"name": "c", "image": "i"}, {"name": "d", "image": "i"}])),
        pod(),
        &["spec.containers: Forbidden: pod updates may not add or remove containers"],
    );
    check_update(
        pod_with("priority", json!(5)),
        pod(),
        &[
            "spec: Forbidden: pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)\n- priority: nil\n+ priority: 5",
        ],
    );
    let gated = pod_with("schedulingGates", json!([{"name": "x.y/z"}]));
    check_update(pod(), gated.clone(), &[]);
    check_update(
        gated,
        pod(),
        &["spec.schedulingGates[0].name: Forbidden: only deletion is allowed, but found new scheduling gate 'x.y/z'"],
    );
}

#[test]
fn an_ended_container_stays_ended() {
    let state = |state: Value| {
        let status = json!({"containerStatuses": [{"name": "c", "image": "i", "imageID": "", "ready": false,
            "restartCount": 0, "state": state}]});
        let mut p = pod_with("restartPolicy", json!("Never"));
        p["status"] = status;
        object(&p)
    };
    let (ended, running) = (state(json!({"terminated": {"exitCode": 1}})), state(json!({"running": {}})));
    assert_eq!(texts(&status_update(&ended, &running)), [] as [&str; 0]);
    assert_eq!(
        texts(&status_update(&running, &ended)),
        ["status.containerStatuses[0].state: Forbidden: may not be transitioned to non-terminated state"]
    );
}

#[test]
fn deployments() {
    check(deployment(), &[]);
    let change = |path: &str, to: Value| with(deployment(), path, to);
    check(
        change("/spec/template/metadata/labels", json!({"app": "other"})),
        &[
            "spec.template.metadata.labels: Invalid value: {\"app\":\"other\"}: `selector` does not match template `labels`",
        ],
    );
    check(
        change("/spec/replicas", json!(-1)),
        &["spec.replicas: Invalid value: -1: must be greater than or equal to 0"],
    );
    check(
        change("/spec/selector", json!({})),
        &[
            "spec.selector: Required value",
            "spec.template.metadata.labels: Invalid value: {\"app\":\"web\"}: `selector` does not match template `labels`",
        ],
    );
    check(
        change("/spec/strategy", json!({"rollingUpdate": {"maxUnavailable": 0, "maxSurge": 0}})),
        &["spec.strategy.rollingUpdate.maxUnavailable: Invalid value: 0: may not be 0 when `maxSurge` is 0"],
    );
    check(
        change("/spec/strategy", json!({"type": "Recreate", "rollingUpdate": {}})),
        &["spec.strategy.rollingUpdate: Forbidden: may not be specified when strategy `type` is 'Recreate'"],
    );
    check(
        change("/spec/minReadySeconds", json!(600)),
        &["spec.progressDeadlineSeconds: Invalid value: 600: must be greater than minReadySeconds"],
    );
    check(
        change("/spec/template/spec/restartPolicy", json!("Never")),
        &["spec.template.spec.restartPolicy: Unsupported value: \"Never\": supported values: \"Always\""],
    );
    check(
        change("/spec/template/spec/containers/0/image", json!("")),
        &["spec.template.spec.containers[0].image: Required value"],
    );
    let other = json!({"matchLabels": {"app": "x"}});
    check_update(
        with(change("/spec/selector", other), "/spec/template/metadata/labels", json!({"app": "x"})),
        deployment(),
        &["spec.selector: Invalid value: {\"matchLabels\":{\"app\":\"x\"}}: field is immutable"],
    );
}

#[test]
fn other_workloads() {
    let template = json!({"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i",
        "volumeMounts": [{"name": "data", "mountPath": "/d"}]}]}});
    let sts = of(
        "apps/v1",
        "StatefulSet",
        json!({"spec": {"serviceName": "s", "selector": {"matchLabels": {"a": "b"}},
        "template": template, "volumeClaimTemplates": [{"metadata": {"name": "data"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}}]}}),
    );
    check(sts.clone(), &[]);
    check(
        with(sts.clone(), "/spec/podManagementPolicy", json!("Random")),
        &["spec.podManagementPolicy: Invalid value: \"Random\": must be 'OrderedReady' or 'Parallel'"],
    );
    // A StatefulSet's pod template is not validated until a pod is created from it.
    check(with(sts.clone(), "/spec/volumeClaimTemplates", json!([])), &[]);
    check_update(with(sts.clone(), "/spec/replicas", json!(5)), sts.clone(), &[]);
    check_update(
        with(sts.clone(), "/spec/serviceName", json!("t")),
        sts,
        &[
            "spec: Forbidden: updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden",
        ],
    );
    let plain = json!({"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    let job = of("batch/v1", "Job", json!({"spec": {"template": plain}}));
    check(job.clone(), &["spec.template.spec.restartPolicy: Required value: valid values: \"OnFailure\", \"Never\""]);
    let job = with(job, "/spec/template/spec/restartPolicy", json!("Never"));
    check(job.clone(), &[]);
    check_update(
        with(job.clone(), "/spec/completions", json!(3)),
        job.clone(),
        &["spec.completions: Invalid value: 3: field is immutable"],
    );
    let cron =
        of("batch/v1", "CronJob", json!({"spec": {"schedule": "* * * *", "jobTemplate": {"spec": job["spec"]}}}));
    check(cron.clone(), &["spec.schedule: Invalid value: \"* * * *\": expected exactly 5 fields, found 4: [* * * *]"]);
    check(with(cron, "/spec/schedule", json!("@daily")), &[]);
    let ds = of(
        "apps/v1",
        "DaemonSet",
        json!({"spec": {"selector": {"matchLabels": {"a": "b"}}, "template": plain,
        "updateStrategy": {"rollingUpdate": {"maxUnavailable": 0}}}}),
    );
    check(ds, &["spec.updateStrategy.rollingUpdate.maxUnavailable: Required value: cannot be 0 when maxSurge is 0"]);
}

#[test]
fn services_and_endpoints() {
    check(service(), &[]);
    let change = |path: &str, to: Value| with(service(), path, to);
    check(change("/spec/ports", json!([])), &["spec.ports: Required value"]);
    check(
        change("/spec/ports", json!([{"port": 80}, {"port": 80, "name": "b", "nodePort": 30000}])),
        &[
            "spec.ports[0].name: Required value",
            "spec.ports[1]: Duplicate value: {\"Name\":\"\",\"Protocol\":\"TCP\",\"AppProtocol\":null,\"Port\":80,\"TargetPort\":0,\"NodePort\":0}",
            "spec.ports[1].nodePort: Forbidden: may not be used when `type` is 'ClusterIP'",
        ],
    );
    check(
        change("/spec/type", json!("Public")),
        &[
            "spec.type: Unsupported value: \"Public\": supported values: \"ClusterIP\", \"ExternalName\", \"LoadBalancer\", \"NodePort\"",
        ],
    );
    check(change("/spec/type", json!("ExternalName")), &["spec.externalName: Required value"]);
    check(
        change("/spec/clusterIP", json!("10.0.0.256")),
        &[
            "spec.clusterIPs[0]: Invalid value: \"10.0.0.256\": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",
        ],
    );
    check_update(
        change("/spec/clusterIP", json!("10.0.0.2")),
        change("/spec/clusterIP", json!("10.0.0.1")),
        &["spec.clusterIPs[0]: Invalid value: [\"10.0.0.2\"]: may not change once set"],
    );
    let slice = |address: &str| {
        of(
            "discovery.k8s.io/v1",
            "EndpointSlice",
            json!({"addressType": "IPv4", "endpoints": [{"addresses": [address]}], "ports": [{"port": 80}]}),
        )
    };
    check(slice("10.0.0.1"), &[]);
    check(slice("::1"), &["endpoints[0].addresses[0]: Invalid value: \"::1\": must be an IPv4 address"]);
}

#[test]
fn small_kinds() {
    check(
        of("v1", "ConfigMap", json!({"data": {"a/b": "x"}})),
        &[
            "data[a/b]: Invalid value: \"a/b\": a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')",
        ],
    );
    check(
        of("v1", "ConfigMap", json!({"data": {"a": "x".repeat(1_048_577)}})),
        &[": Too long: may not be more than 1048576 bytes"],
    );
    check(
        of("v1", "Secret", json!({"type": "kubernetes.io/tls", "data": {"tls.crt": ""}})),
        &["data[tls.key]: Required value"],
    );
    let frozen = of("v1", "ConfigMap", json!({"immutable": true, "data": {"a": "1"}}));
    check_update(
        with(frozen.clone(), "/data/a", json!("2")),
        frozen,
        &["data: Forbidden: field is immutable when `immutable` is set"],
    );
    let node = |taints: Value| json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n"}, "spec": {"taints": taints}});
    check(
        node(json!([{"key": "a", "effect": "Never"}])),
        &[
            "metadata.taints[0].effect: Unsupported value: \"Never\": supported values: \"NoSchedule\", \"PreferNoSchedule\", \"NoExecute\"",
        ],
    );
    check(
        of("coordination.k8s.io/v1", "Lease", json!({"spec": {"leaseDurationSeconds": 0}})),
        &["spec.leaseDurationSeconds: Invalid value: 0: must be greater than 0"],
    );
    check(
        of("policy/v1", "PodDisruptionBudget", json!({"spec": {"minAvailable": 1, "maxUnavailable": "101%"}})),
        &[
            "spec: Invalid value: {\"maxUnavailable\":\"101%\",\"minAvailable\":1}: minAvailable and maxUnavailable cannot be both set",
            "spec.maxUnavailable: Invalid value: \"101%\": must not be greater than 100%",
        ],
    );
    let target =
        json!({"spec": {"maxReplicas": 1, "minReplicas": 2, "scaleTargetRef": {"kind": "Deployment", "name": "d"}}});
    check(
        of("autoscaling/v2", "HorizontalPodAutoscaler", target),
        &["spec.maxReplicas: Invalid value: 1: must be greater than or equal to `minReplicas`"],
    );
    check(
        json!({"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": "p"}, "value": 2_000_000_000}),
        &["value: Forbidden: maximum allowed value of a user defined priority is 1000000000"],
    );
    let paths = json!({"spec": {"rules": [{"http": {"paths": [{"path": "/", "backend": {"service": {"name": "s", "port": {"number": 80}}}}]}}]}});
    check(
        of("networking.k8s.io/v1", "Ingress", paths),
        &["spec.rules[0].http.paths[0].pathType: Required value: pathType must be specified"],
    );
}

/// Random JSON of any shape.
pub(crate) fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "[a-z%/.é-]{0,6}".prop_map(Value::from),
        prop::sample::select(vec!["1Gi", "100%", "None", "ClientIP", "IPv4", "2030-01-01T00:00:00Z"])
            .prop_map(Value::from),
    ];
    let key = || prop_oneof![prop::sample::select(KEYS), Just("x")];
    leaf.prop_recursive(5, 48, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(key(), inner, 0..6)
                .prop_map(|m| Value::Object(m.into_iter().map(|(k, v)| (k.to_owned(), v)).collect())),
        ]
    })
}

/// Real field names, so that random JSON reaches deep into the types.
const KEYS: &[&str] = &[
    "metadata",
    "name",
    "namespace",
    "labels",
    "annotations",
    "spec",
    "status",
    "data",
    "template",
    "containers",
    "image",
    "resources",
    "limits",
    "requests",
    "cpu",
    "ports",
    "port",
    "selector",
    "matchLabels",
    "replicas",
    "volumes",
    "secret",
    "items",
    "env",
    "value",
    "strategy",
    "rollingUpdate",
    "maxSurge",
    "type",
    "rules",
    "subsets",
    "endpoints",
    "addresses",
    "limits",
    "jobTemplate",
    "schedule",
    "volumeClaimTemplates",
    "webhooks",
    "versions",
    "names",
    "$patch",
    "$retainKeys",
    "$setElementOrder/containers",
    "$deleteFromPrimitiveList/finalizers",
    "finalizers",
    "conditions",
    "taints",
    "tolerations",
    "stringData",
    "ownerReferences",
];

proptest! {
    #[test]
    fn nothing_that_can_be_read_makes_it_panic(bodies in prop::collection::vec(any_json(), 6)) {
        for (i, kind) in crate::object::Kind::all().enumerate() {
            let info = kind.row();
            let mut value = json!({"apiVersion": info.api_version(), "kind": info.kind});
            for (field, body) in ["metadata", "spec", "status", "data", "subsets", "webhooks"].iter().zip(bodies.iter().cycle().skip(i)) {
                value[*field] = body.clone();
            }
            let _ = decode::strict(value.clone());
            // An error in one field hides those in others, so each field is also tried alone.
            for field in ["metadata", "spec", "status", "data", "subsets", "webhooks"] {
                let mut one = json!({"apiVersion": info.api_version(), "kind": info.kind});
                one[field] = value[field].clone();
                let Ok(mut object) = decode::lenient(one) else { continue };
                let before = object.clone();
                defaults::apply(&mut object);
                create(&object);
                update(&object, &before);
                status_update(&object, &before);
                let again = decode::strict(object.to_json());
                prop_assert_eq!(again, Ok(object));
            }
        }
    }
}
