//! Further tests of pods, templates, quotas and limit ranges.

use serde_json::{Value, json};

use super::{check, deployment, of, pod, pod_with, with};

fn container_with(field: &str, to: Value) -> Value {
    pod_with(&format!("containers/0/{field}"), to)
}

fn template_with(field: &str, to: Value) -> Value {
    with(deployment(), &format!("/spec/template/spec/{field}"), to)
}

#[test]
fn ports_on_the_hosts_network() {
    let ports = json!([{"name": "c", "image": "i", "ports": [{"containerPort": 7472}]}]);
    let on_host = |pod: Value| with(pod, "/spec/hostNetwork", json!(true));
    // Defaulting sets the host port in a pod, but not in a template.
    check(on_host(with(pod(), "/spec/containers", ports.clone())), &[]);
    check(with(template_with("containers", ports), "/spec/template/spec/hostNetwork", json!(true)), &[]);
    let other = json!([{"name": "c", "image": "i", "ports": [{"containerPort": 80, "hostPort": 81}]}]);
    let wrong = "ports[0].hostPort: Invalid value: 81: must match `containerPort` when `hostNetwork` is true";
    check(on_host(with(pod(), "/spec/containers", other.clone())), &[&format!("spec.containers[0].{wrong}")]);
    check(
        with(template_with("containers", other.clone()), "/spec/template/spec/hostNetwork", json!(true)),
        &[&format!("spec.template.spec.containers[0].{wrong}")],
    );
    let mut init = other;
    init[0]["name"] = json!("first");
    check(with(on_host(pod_with("containers/0/ports", json!([]))), "/spec/initContainers", init), &[]);
}

#[test]
fn containers_that_run_at_different_times_share_a_port_of_the_host() {
    let c = |name: &str| json!({"name": name, "image": "i", "ports": [{"containerPort": 1, "hostPort": 80}]});
    let mut sidecar = c("side");
    sidecar["restartPolicy"] = json!("Always");
    let spec = json!({"initContainers": [c("one"), sidecar], "containers": [c("main")]});
    check(of("v1", "Pod", json!({"spec": spec})), &[]);
    check(
        of("v1", "Pod", json!({"spec": {"containers": [c("a"), c("b")]}})),
        &["spec.containers[1].ports[0].hostPort: Duplicate value: \"TCP//80\""],
    );
}

#[test]
fn capabilities_beside_a_denied_escalation() {
    let context = |capability: &str| json!({"allowPrivilegeEscalation": false, "capabilities": {"add": [capability]}});
    check(container_with("securityContext", context("SYS_ADMIN")), &[]);
    check(
        container_with("securityContext", context("CAP_SYS_ADMIN")),
        &["spec.containers[0].securityContext: Invalid value: \
           {\"allowPrivilegeEscalation\":false,\"capabilities\":{\"add\":[\"CAP_SYS_ADMIN\"]}}: cannot set \
           `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN"],
    );
}

#[test]
fn the_group_of_a_pod_has_a_name() {
    check(pod_with("schedulingGroup", json!({"podGroupName": "g"})), &[]);
    let none = "schedulingGroup: Invalid value: \"\": must specify one of: `podGroupName`";
    check(pod_with("schedulingGroup", json!({})), &[&format!("spec.{none}")]);
    check(template_with("schedulingGroup", json!({})), &[&format!("spec.template.spec.{none}")]);
    check(
        pod_with("schedulingGroup", json!({"podGroupName": "G"})),
        &[
            "spec.schedulingGroup.podGroupName: Invalid value: \"G\": a lowercase RFC 1123 subdomain must consist of lower \
           case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. \
           'example.com', regex used for validation is \
           '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')",
        ],
    );
}

#[test]
fn a_template_without_a_spec_is_one_mistake() {
    let mut bare = deployment();
    bare["spec"]["template"].as_object_mut().unwrap().remove("spec");
    check(bare, &["spec.template.spec.containers: Required value"]);
}

#[test]
fn what_is_only_preferred_may_be_nonsense() {
    let expression = json!({"matchExpressions": [{"key": "a", "operator": "In", "values": ["not a label value"]}]});
    let preferred = json!({"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution":
        [{"weight": 1, "preference": expression}]}});
    check(pod_with("affinity", preferred), &[]);
    let required = json!({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution":
        {"nodeSelectorTerms": [expression]}}});
    let got = super::texts(&super::create(&super::object(&pod_with("affinity", required))));
    assert_eq!(got.len(), 1, "{got:?}");
    assert!(got[0].contains(".values[0]: Invalid value: \"not a label value\""), "{got:?}");
}

#[test]
fn pod_level_requests_cover_the_containers() {
    let asks = |pod: &str| {
        let spec = json!({"resources": {"requests": {"cpu": pod}},
            "containers": [{"name": "a", "image": "i", "resources": {"requests": {"cpu": "200m"}}}]});
        of("v1", "Pod", json!({"spec": spec}))
    };
    check(asks("200m"), &[]);
    check(
        asks("100m"),
        &[
            "spec.resources.requests[cpu]: Invalid value: \"100m\": must be greater than or equal to aggregate container \
           requests of 200m",
        ],
    );
    let storage = json!({"requests": {"ephemeral-storage": "1Gi"}});
    let idle = with(pod(), "/spec/containers/0/resources", json!({}));
    check(
        with(idle, "/spec/resources", storage),
        &["spec.resources.requests[ephemeral-storage]: Unsupported value: \"ephemeral-storage\": supported values: \
           \"cpu\", \"hugepages-\", \"memory\""],
    );
    let limited = json!({"limits": {"cpu": "50m"}, "requests": {"cpu": "50m"}});
    let got = super::texts(&super::create(&super::object(&pod_with("resources", limited))));
    assert!(got.iter().any(|e| e.contains("must be less than or equal to pod limits of 50m")), "{got:?}");
}

#[test]
fn huge_pages() {
    let with_limits = |limits: Value| container_with("resources", json!({"limits": limits}));
    check(with_limits(json!({"cpu": "1", "hugepages-2Mi": "4Mi"})), &[]);
    check(
        with_limits(json!({"hugepages-2Mi": "4Mi"})),
        &["spec.containers[0].resources: Forbidden: HugePages require cpu or memory"],
    );
    let got = super::texts(&super::create(&super::object(&with_limits(json!({"cpu": "1", "hugepages-2Mi": "3Mi"})))));
    assert!(
        got.contains(
            &"spec.containers[0].resources.limits[hugepages-2Mi]: Invalid value: \"3Mi\": 3Mi is not positive integer \
          multiple of hugepages-2Mi"
                .to_owned()
        ),
        "{got:?}"
    );
}

#[test]
fn restart_rules_and_resize_policies() {
    check(
        container_with(
            "restartPolicyRules",
            json!([{"action": "Restart", "exitCodes": {"operator": "In", "values": [1]}}]),
        ),
        &["spec.containers[0].restartPolicy: Required value: must specify restartPolicy when restart rules are used"],
    );
    let mut ruled = container_with("restartPolicyRules", json!([{"action": "Stop", "exitCodes": {"operator": "In"}}]));
    ruled["spec"]["containers"][0]["restartPolicy"] = json!("Never");
    check(
        ruled,
        &[
            "spec.containers[0].restartPolicyRules[0].action: Unsupported value: \"Stop\": supported values: \
             \"Restart\", \"RestartAllContainers\"",
            "spec.containers[0].restartPolicyRules[0].exitCodes.values: Required value: must specify at least one value",
        ],
    );
    let resize = json!([{"resourceName": "cpu", "restartPolicy": "RestartContainer"},
        {"resourceName": "cpu", "restartPolicy": "NotRequired"}]);
    check(container_with("resizePolicy", resize), &["spec.containers[0].resizePolicy[1]: Duplicate value: \"cpu\""]);
    let resize = json!([{"resourceName": "storage", "restartPolicy": "NotRequired"}]);
    check(
        container_with("resizePolicy", resize),
        &["spec.containers[0].resizePolicy: Unsupported value: \"storage\": supported values: \"cpu\", \"memory\""],
    );
}

#[test]
fn ephemeral_containers_are_for_looking_only() {
    let e = json!([{"name": "debug", "image": "i", "targetContainerName": "nobody", "ports": [{"containerPort": 1}],
        "lifecycle": {"preStop": {"sleep": {"seconds": 1}}}, "livenessProbe": {"tcpSocket": {"port": 1}}}]);
    let refused = [
        "spec.ephemeralContainers[0].targetContainerName: Not found: \"nobody\"",
        "spec.ephemeralContainers[0].ports: Forbidden: cannot be set for an Ephemeral Container",
        "spec.ephemeralContainers[0].livenessProbe: Forbidden: cannot be set for an Ephemeral Container",
        "spec.ephemeralContainers[0].lifecycle: Forbidden: cannot be set for an Ephemeral Container",
    ];
    add(json!([]), e.clone(), &refused);
    check(
        pod_with("ephemeralContainers", e),
        &[&refused[..], &["spec.ephemeralContainers: Forbidden: cannot be set on create"]].concat(),
    );
}

/// Checks the errors for a pod whose ephemeral containers change.
fn add(old: Value, new: Value, want: &[&str]) {
    let [new, old] = [new, old].map(|list| super::object(&pod_with("ephemeralContainers", list)));
    assert_eq!(super::texts(&crate::object::validation::ephemeral_update(&new, &old)), want);
}

#[test]
fn ephemeral_containers_are_only_added() {
    let e = |name: &str, image: &str| json!({"name": name, "image": image, "targetContainerName": "c"});
    add(json!([e("a", "i")]), json!([e("b", "i"), e("a", "i")]), &[]);
    add(json!([]), json!([e("a", "i"), e("a", "i")]), &["spec.ephemeralContainers[1].name: Duplicate value: \"a\""]);
    add(json!([]), json!([e("c", "i")]), &["spec.ephemeralContainers[0].name: Duplicate value: \"c\""]);
    add(json!([]), json!([e("a", "")]), &["spec.ephemeralContainers[0].image: Required value"]);
    let removed = "spec.ephemeralContainers: Forbidden: existing ephemeral containers \"a\" may not be removed\n";
    add(json!([e("a", "i")]), json!([e("b", "i")]), &[removed]);
    let changed =
        [json!([e("a", "i")]), json!([e("a", "j")])].map(|l| super::object(&pod_with("ephemeralContainers", l)));
    let errors = super::texts(&crate::object::validation::ephemeral_update(&changed[1], &changed[0]));
    let start = "spec.ephemeralContainers: Forbidden: existing ephemeral containers \"a\" may not be changed\n- {";
    assert!(matches!(&errors[..], [error] if error.starts_with(start)), "{errors:?}");

    // An ordinary update changes none.
    let [old, new] = [json!([e("a", "i")]), json!([e("a", "i"), e("b", "i")])];
    let [old, new] = [old, new].map(|list| super::object(&pod_with("ephemeralContainers", list)));
    let errors = super::texts(&crate::object::validation::update(&new, &old));
    let start = "spec: Forbidden: pod updates may not change fields other than `spec.containers[*].image`";
    assert!(matches!(&errors[..], [error] if error.starts_with(start)), "{errors:?}");

    let mirror = json!({"name": "x", "namespace": "d", "annotations": {"kubernetes.io/config.mirror": "m"}});
    let [old, new] = [json!([]), json!([e("c", "")])]
        .map(|list| super::object(&with(pod_with("ephemeralContainers", list), "/metadata", mirror.clone())));
    let errors = super::texts(&crate::object::validation::ephemeral_update(&new, &old));
    assert_eq!(errors, ["[]: Forbidden: static pods do not support ephemeral containers"]);
}

#[test]
fn ephemeral_containers_never_come_back() {
    let status = |state: Value| {
        let status =
            json!([{"name": "a", "image": "i", "imageID": "", "ready": false, "restartCount": 0, "state": state}]);
        super::object(&with(pod(), "/status", json!({"ephemeralContainerStatuses": status})))
    };
    let (ran, ended) = (status(json!({"running": {}})), status(json!({"terminated": {"exitCode": 1}})));
    let errors = |new, old| super::texts(&crate::object::validation::status_update(new, old));
    assert_eq!(errors(&ended, &ran), [] as [&str; 0]);
    assert_eq!(
        errors(&ran, &ended),
        ["status.ephemeralContainerStatuses[0].state: Forbidden: may not be transitioned to non-terminated state"]
    );
}

#[test]
fn environments_refer_to_one_thing_that_can_be_read() {
    let env = |from: Value| container_with("env", json!([{"name": "X", "valueFrom": from}]));
    check(env(json!({"fieldRef": {"fieldPath": "status.podIP"}})), &[]);
    check(env(json!({"fieldRef": {"fieldPath": "metadata.labels['a/b']"}})), &[]);
    check(
        env(json!({"fieldRef": {"fieldPath": "spec.volumes"}})),
        &["spec.containers[0].env[0].valueFrom.fieldRef.fieldPath: Invalid value: \"spec.volumes\": error converting \
           fieldPath: field label not supported: spec.volumes"],
    );
    check(
        env(json!({"resourceFieldRef": {"resource": "limits.cpu", "divisor": "2m"}})),
        &[
            "spec.containers[0].env[0].valueFrom.resourceFieldRef.divisor: Invalid value: \"limits.cpu\": only divisor's \
           values 1m and 1 are supported with the cpu resource",
        ],
    );
    check(
        env(json!({})),
        &["spec.containers[0].env[0].valueFrom: Invalid value: \"\": must specify one of: \
        `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`"],
    );
}

#[test]
fn limit_ranges() {
    let range = |item: Value| of("v1", "LimitRange", json!({"spec": {"limits": [item]}}));
    check(range(json!({"type": "Container", "max": {"cpu": "2"}, "min": {"cpu": "1"}, "default": {"cpu": "2"}})), &[]);
    check(
        range(json!({"type": "Container", "max": {"cpu": "1"}, "min": {"cpu": "2"}})),
        &[
            "spec.limits[0].min[cpu]: Invalid value: \"2\": min value 2 is greater than max value 1",
            "spec.limits[0].defaultRequest[cpu]: Invalid value: \"1\": min value 2 is greater than default request value 1",
            "spec.limits[0].default[cpu]: Invalid value: \"2\": min value 2 is greater than default value 1",
        ],
    );
    check(
        range(json!({"type": "Pod", "default": {"cpu": "1"}, "max": {"cpu": "1"}})),
        &["spec.limits[0].default: Forbidden: may not be specified when `type` is 'Pod'"],
    );
    check(
        range(json!({"type": "PersistentVolumeClaim"})),
        &[
            "spec.limits[0].limits: Required value: either minimum or maximum storage value is required, but neither was \
           provided",
        ],
    );
}

#[test]
fn quotas() {
    let quota = |spec: Value| of("v1", "ResourceQuota", json!({"spec": spec}));
    check(quota(json!({"hard": {"pods": "3", "requests.cpu": "1", "count/deployments.apps": "2"}})), &[]);
    check(
        quota(json!({"hard": {"pods": "1500m"}})),
        &["spec.hard[pods]: Invalid value: \"1500m\": must be an integer"],
    );
    check(
        quota(json!({"hard": {"pods": "-1"}})),
        &["spec.hard[pods]: Invalid value: \"-1\": must be greater than or equal to 0"],
    );
    check(
        quota(json!({"hard": {"pods": "1"}, "scopes": ["BestEffort", "NotBestEffort"]})),
        &["spec.scopes: Invalid value: [\"BestEffort\",\"NotBestEffort\"]: conflicting scopes"],
    );
    check(
        quota(json!({"hard": {"services": "1"}, "scopes": ["Terminating"]})),
        &["spec.scopes: Invalid value: [\"Terminating\"]: unsupported scope applied to resource"],
    );
}
