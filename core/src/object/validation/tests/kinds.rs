//! Further tests of Jobs, StatefulSets, Ingresses, NetworkPolicies and classes.

use serde_json::{Value, json};

use super::{check, check_update, of, with};

fn job(spec: Value) -> Value {
    let mut all = json!({"template": {"metadata": {"labels": {"a": "b"}},
        "spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]}}});
    json_patch::merge(&mut all, &spec);
    of("batch/v1", "Job", json!({"spec": all}))
}

fn indexed(spec: Value) -> Value {
    let mut all = json!({"completionMode": "Indexed", "completions": 5});
    json_patch::merge(&mut all, &spec);
    job(all)
}

#[test]
fn indexed_jobs() {
    check(indexed(json!({})), &[]);
    let mut endless = indexed(json!({}));
    endless["spec"].as_object_mut().unwrap().remove("completions");
    check(endless.clone(), &[]);
    // Only if parallelism is absent too do both default to one.
    endless["spec"]["parallelism"] = json!(2);
    check(endless, &["spec.completions: Required value: when completion mode is Indexed"]);
    check(
        job(json!({"backoffLimitPerIndex": 1})),
        &["spec.backoffLimitPerIndex: Invalid value: 1: requires indexed completion mode"],
    );
    check(
        indexed(json!({"maxFailedIndexes": 6})),
        &[
            "spec.backoffLimitPerIndex: Required value: when maxFailedIndexes is specified",
            "spec.maxFailedIndexes: Invalid value: 6: must be less than or equal to completions",
        ],
    );
    let long = "x".repeat(62);
    let why = format!(
        "metadata.name: Invalid value: \"{long}\": will not able to create pod with invalid DNS label: {long}-4"
    );
    check(with(indexed(json!({})), "/metadata/name", json!(long)), &[&why]);
    check_update(indexed(json!({"completions": 7, "parallelism": 7})), indexed(json!({})), &[]);
    check_update(
        indexed(json!({"completions": 7, "parallelism": 6})),
        indexed(json!({"parallelism": 6})),
        &["spec.completions: Invalid value: 7: can only be modified in tandem with spec.parallelism"],
    );
    check_update(
        job(json!({"managedBy": "x.y/z"})),
        job(json!({})),
        &["spec.managedBy: Invalid value: \"x.y/z\": field is immutable"],
    );
}

#[test]
fn policies_of_jobs() {
    let rule = |rule: Value| job(json!({"podFailurePolicy": {"rules": [rule]}}));
    check(rule(json!({"action": "FailJob", "onExitCodes": {"operator": "In", "values": [1, 2]}})), &[]);
    check(
        rule(json!({"action": "FailJob"})),
        &[
            "spec.podFailurePolicy.rules[0]: Invalid value: specifying one of OnExitCodes and OnPodConditions is required",
        ],
    );
    check(
        rule(json!({"action": "FailIndex", "onExitCodes": {"containerName": "d", "operator": "In", "values": [2, 0]}})),
        &[
            "spec.podFailurePolicy.rules[0].action: Invalid value: \"FailIndex\": requires the backoffLimitPerIndex to be set",
            "spec.podFailurePolicy.rules[0].onExitCodes.containerName: Invalid value: \"d\": must be one of the container or initContainer names in the pod template",
            "spec.podFailurePolicy.rules[0].onExitCodes.values[1]: Invalid value: 0: must not be 0 for the In operator",
            "spec.podFailurePolicy.rules[0].onExitCodes.values: Invalid value: [2,0]: must be ordered",
        ],
    );
    let success = |rule: Value| indexed(json!({"successPolicy": {"rules": [rule]}}));
    check(success(json!({"succeededIndexes": "0,2-3", "succeededCount": 3})), &[]);
    check(
        success(json!({"succeededIndexes": "0,2-3", "succeededCount": 4})),
        &[
            "spec.successPolicy.rules[0].succeededCount: Invalid value: 4: must be less than or equal to 3 (the number of indexes in the specified succeededIndexes field)",
        ],
    );
    check(
        success(json!({"succeededIndexes": "7"})),
        &[
            "spec.successPolicy.rules[0].succeededIndexes: Invalid value: \"7\": error parsing succeededIndexes: too large index: \"7\"",
        ],
    );
    check(
        job(json!({"successPolicy": {"rules": [{"succeededCount": 1}]}})),
        &[
            "spec.successPolicy: Invalid value: {\"Rules\":[{\"SucceededCount\":1,\"SucceededIndexes\":null}]}: requires indexed completion mode",
        ],
    );
}

#[test]
fn cron_jobs() {
    let cron = |more: Value| {
        let mut spec = json!({"schedule": "@daily", "jobTemplate": {"spec": job(json!({}))["spec"]}});
        json_patch::merge(&mut spec, &more);
        of("batch/v1", "CronJob", json!({"spec": spec}))
    };
    check(cron(json!({"timeZone": "Europe/Zurich"})), &[]);
    check(
        cron(json!({"timeZone": "Mars/../Base"})),
        &["spec.timeZone: Invalid value: \"Mars/../Base\": unknown time zone Mars/../Base"],
    );
    check(
        cron(json!({"timeZone": "Europe/Zuerich"})),
        &["spec.timeZone: Invalid value: \"Europe/Zuerich\": unknown time zone Europe/Zuerich"],
    );
    check(
        cron(json!({"timeZone": "Local"})),
        &[
            "spec.timeZone: Invalid value: \"Local\": timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones",
        ],
    );
    check(
        cron(json!({"jobTemplate": {"spec": {"manualSelector": true}}})),
        &["spec.jobTemplate.spec.manualSelector: Unsupported value: true: supported values: \"nil\", \"false\""],
    );
}

#[test]
fn update_strategies() {
    let of_kind = |kind: &str, strategy: Value| {
        let template =
            json!({"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
        let spec = json!({"selector": {"matchLabels": {"a": "b"}}, "template": template, "updateStrategy": strategy});
        of("apps/v1", kind, json!({"spec": spec}))
    };
    let sts = |strategy: Value| of_kind("StatefulSet", strategy);
    check(sts(json!({"rollingUpdate": {"maxUnavailable": "10%"}})), &[]);
    check(
        sts(json!({"rollingUpdate": {"maxUnavailable": 0}})),
        &["spec.updateStrategy.rollingUpdate.maxUnavailable: Invalid value: 0: cannot be 0"],
    );
    check(
        sts(json!({"type": "OnDelete", "rollingUpdate": {"partition": 1}})),
        &[
            "spec.updateStrategy.rollingUpdate: Invalid value: {\"Partition\":1,\"MaxUnavailable\":null}: only allowed for updateStrategy 'RollingUpdate'",
        ],
    );
    check(
        sts(json!({"type": "Never"})),
        &[
            "spec.updateStrategy: Invalid value: {\"Type\":\"Never\",\"RollingUpdate\":null}: must be 'RollingUpdate' or 'OnDelete'",
        ],
    );
    check(
        of_kind("DaemonSet", json!({"type": "Never"})),
        &[
            "spec.updateStrategy: Unsupported value: {\"Type\":\"Never\",\"RollingUpdate\":null}: supported values: \"RollingUpdate\", \"OnDelete\"",
        ],
    );
}

#[test]
fn ingresses() {
    let ingress = |spec: Value| of("networking.k8s.io/v1", "Ingress", json!({"spec": spec}));
    let path = |path: Value| ingress(json!({"rules": [{"host": "a.b", "http": {"paths": [path]}}]}));
    let backend = json!({"service": {"name": "s", "port": {"number": 80}}});
    check(path(json!({"path": "/", "pathType": "Prefix", "backend": backend})), &[]);
    check(
        path(json!({"path": "a//b/..", "pathType": "Exact", "backend": {}})),
        &[
            "spec.rules[0].http.paths[0].path: Invalid value: \"a//b/..\": must be an absolute path",
            "spec.rules[0].http.paths[0].path: Invalid value: \"a//b/..\": must not contain '//'",
            "spec.rules[0].http.paths[0].path: Invalid value: \"a//b/..\": cannot end with '/..'",
            "spec.rules[0].http.paths[0].backend: Invalid value: \"\": resource or service backend is required",
        ],
    );
    check(
        ingress(json!({"defaultBackend": {"service": {"name": "s"}}})),
        &["spec.defaultBackend: Required value: port name or number is required"],
    );
    check(
        ingress(json!({"rules": [{"host": "10.0.0.1"}]})),
        &["spec.rules[0].host: Invalid value: \"10.0.0.1\": must be a DNS name, not an IP address"],
    );
    check(ingress(json!({"rules": [{"host": "*.a.b"}], "tls": [{"hosts": ["*.a.b"], "secretName": "s"}]})), &[]);
    check(ingress(json!({})), &["spec: Invalid value: null: either `defaultBackend` or `rules` must be specified"]);
    let mut twice = ingress(json!({"ingressClassName": "b", "defaultBackend": backend}));
    twice["metadata"]["annotations"] = json!({"kubernetes.io/ingress.class": "a"});
    check(
        twice,
        &[
            "annotations.kubernetes.io/ingress.class: Invalid value: \"a\": must match `ingressClassName` when both are specified",
        ],
    );
}

#[test]
fn network_policies() {
    let policy = |spec: Value| of("networking.k8s.io/v1", "NetworkPolicy", json!({"spec": spec}));
    check(policy(json!({"podSelector": {}, "policyTypes": ["Ingress"]})), &[]);
    let from = |from: Value| policy(json!({"podSelector": {}, "ingress": [{"from": [from]}]}));
    check(from(json!({"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"]}})), &[]);
    check(from(json!({})), &["spec.ingress[0].from[0]: Required value: must specify a peer"]);
    check(
        from(json!({"ipBlock": {"cidr": "10.0.0.0/8", "except": ["11.0.0.0/16", "10.0.0.0/8"]}})),
        &[
            "spec.ingress[0].from[0].ipBlock.except[0]: Invalid value: \"11.0.0.0/16\": must be a strict subset of `cidr`",
            "spec.ingress[0].from[0].ipBlock.except[1]: Invalid value: \"10.0.0.0/8\": must be a strict subset of `cidr`",
        ],
    );
    check(
        from(json!({"podSelector": {}, "ipBlock": {"cidr": "::/0"}})),
        &["spec.ingress[0].from[0]: Forbidden: may not specify both ipBlock and another peer"],
    );
    let port = |port: Value| policy(json!({"podSelector": {}, "egress": [{"ports": [port]}]}));
    check(
        port(json!({"port": 80, "endPort": 79})),
        &["spec.egress[0].ports[0].endPort: Invalid value: 80: must be greater than or equal to `port`"],
    );
    check(
        port(json!({"port": "http", "endPort": 79})),
        &["spec.egress[0].ports[0].endPort: Invalid value: 79: may not be specified when `port` is non-numeric"],
    );
}

#[test]
fn classes() {
    let class = |api: &str, kind: &str, body: Value| {
        let mut all = json!({"apiVersion": api, "kind": kind, "metadata": {"name": "x"}});
        json_patch::merge(&mut all, &body);
        all
    };
    let ingress = |spec: Value| class("networking.k8s.io/v1", "IngressClass", json!({"spec": spec}));
    check(ingress(json!({"controller": "x.y/z"})), &[]);
    check(
        ingress(json!({"controller": "z"})),
        &["spec.controller: Invalid value: \"z\": must be a domain-prefixed path (such as \"acme.io/foo\")"],
    );
    check_update(
        ingress(json!({"controller": "x.y/a"})),
        ingress(json!({"controller": "x.y/z"})),
        &["spec.controller: Invalid value: \"x.y/a\": field is immutable"],
    );
    let runtime = |body: Value| class("node.k8s.io/v1", "RuntimeClass", body);
    check(runtime(json!({"handler": "kata", "overhead": {"podFixed": {"cpu": "250m"}}})), &[]);
    check(
        runtime(json!({"handler": "kata", "overhead": {"podFixed": {"cpu": "-1"}},
            "scheduling": {"tolerations": [{"key": "a", "operator": "Exists"}, {"key": "a", "operator": "Exists"}]}})),
        &[
            "overhead.limits[cpu]: Invalid value: \"-1\": must be greater than or equal to 0",
            "scheduling.tolerations[1]: Duplicate value: {\"key\":\"a\",\"operator\":\"Exists\"}",
        ],
    );
}

/// Selectors that the server reads for itself: one that cannot be read must not select everything.
#[test]
fn selectors_of_webhooks_and_roles() {
    let odd = json!({"matchExpressions": [{"key": "a", "operator": "Like", "values": ["b"]}]});
    let wrong =
        |at: &str| format!("{at}.matchExpressions[0].operator: Invalid value: \"Like\": not a valid selector operator");
    for kind in ["MutatingWebhookConfiguration", "ValidatingWebhookConfiguration"] {
        let hooks = |hook: Value| {
            let body = json!({"metadata": {"name": "x"}, "webhooks": [hook]});
            of("admissionregistration.k8s.io/v1", kind, body)
        };
        check(hooks(json!({"name": "a.b.c", "objectSelector": {"matchLabels": {"a": "b"}}})), &[]);
        for field in ["namespaceSelector", "objectSelector"] {
            check(hooks(json!({"name": "a.b.c", field: odd})), &[&wrong(&format!("webhooks[0].{field}"))]);
        }
    }
    let role = |rule: Value| {
        let body = json!({"metadata": {"name": "x"}, "aggregationRule": rule});
        of("rbac.authorization.k8s.io/v1", "ClusterRole", body)
    };
    check(role(json!({"clusterRoleSelectors": [{"matchLabels": {"a": "b"}}]})), &[]);
    check(role(json!({"clusterRoleSelectors": [odd]})), &[&wrong("aggregationRule.clusterRoleSelectors[0]")]);
    let none = "aggregationRule.clusterRoleSelectors: Required value: at least one clusterRoleSelector required if \
                aggregationRule is non-nil";
    check(role(json!({})), &[none]);
}

#[test]
fn conversions_of_definitions() {
    let with = |conversion: Value| {
        let schema = json!({"openAPIV3Schema": {"type": "object"}});
        let version = json!({"name": "v1", "served": true, "storage": true, "schema": schema});
        let body = json!({"metadata": {"name": "ws.x.y"}, "spec": {"group": "x.y", "scope": "Cluster",
            "names": {"plural": "ws", "kind": "W"}, "versions": [version], "conversion": conversion}});
        of("apiextensions.k8s.io/v1", "CustomResourceDefinition", body)
    };
    let hook = |client: Value, versions: Value| {
        with(json!({"strategy": "Webhook", "webhook": {"clientConfig": client, "conversionReviewVersions": versions}}))
    };
    let service = |more: Value| {
        let mut service = json!({"namespace": "n", "name": "s"});
        json_patch::merge(&mut service, &more);
        hook(json!({"service": service}), json!(["v1"]))
    };
    check(with(json!({"strategy": "None"})), &[]);
    check(hook(json!({"url": "https://h:1/p"}), json!(["v2", "v1beta1"])), &[]);
    check(service(json!({"path": "/a/b/"})), &[]);
    let set = "should not be set when strategy is not set to Webhook";
    check(
        with(json!({"strategy": "None", "webhook": {"clientConfig": {}, "conversionReviewVersions": ["v1"]}})),
        &[
            &format!("spec.conversion.webhookClientConfig: Forbidden: {set}"),
            &format!("spec.conversion.conversionReviewVersions: Forbidden: {set}"),
        ],
    );
    check(
        with(json!({"strategy": "Other"})),
        &["spec.conversion.strategy: Unsupported value: \"Other\": supported values: \"None\", \"Webhook\""],
    );
    check(
        with(json!({"strategy": "Webhook"})),
        &[
            "spec.conversion.webhookClientConfig: Required value: required when strategy is set to Webhook",
            "spec.conversion.conversionReviewVersions: Required value",
        ],
    );
    let client = "spec.conversion.webhookClientConfig";
    check(
        hook(json!({}), json!(["v1"])),
        &[&format!("{client}: Required value: exactly one of url or service is required")],
    );
    let versions = "spec.conversion.conversionReviewVersions";
    check(
        hook(json!({"url": "https://h"}), json!(["v2", "v2"])),
        &[
            &format!("{versions}[1]: Invalid value: \"v2\": duplicate version"),
            &format!("{versions}: Invalid value: [\"v2\",\"v2\"]: must include at least one of v1, v1beta1"),
        ],
    );
    check(
        hook(json!({"url": "http://u@/p?q#f"}), json!(["v1"])),
        &[
            &format!(
                "{client}.url: Invalid value: \"http\": 'https' is the only allowed URL scheme; desired format: \
                https://host[/path]"
            ),
            &format!("{client}.url: Invalid value: \"\": host must be specified; desired format: https://host[/path]"),
            &format!("{client}.url: Invalid value: \"u\": user information is not permitted in the URL"),
            &format!("{client}.url: Invalid value: \"f\": fragments are not permitted in the URL"),
            &format!("{client}.url: Invalid value: \"q\": query parameters are not permitted in the URL"),
        ],
    );
    check(
        service(json!({"name": "", "port": 0, "path": "/a//b"})),
        &[
            &format!("{client}.service.name: Required value"),
            &format!(
                "{client}.service.port: Invalid value: 0: port is not valid: must be between 1 and 65535, inclusive"
            ),
            &format!("{client}.service.path: Invalid value: \"/a//b\": segment[1] may not be empty"),
        ],
    );
    check(
        service(json!({"path": "a"})),
        &[
            &format!("{client}.service.path: Invalid value: \"a\": must start with a '/'"),
            &format!("{client}.service.path: Invalid value: \"a\": segment[0] may not be empty"),
        ],
    );
}

#[test]
fn api_services() {
    let with = |name: &str, more: Value| {
        let mut spec = json!({"group": "x.y", "version": "v1", "groupPriorityMinimum": 100, "versionPriority": 10});
        json_patch::merge(&mut spec, &more);
        of("apiregistration.k8s.io/v1", "APIService", json!({"metadata": {"name": name}, "spec": spec}))
    };
    let check = |more: Value, want: &[&str]| check(with("v1.x.y", more), want);
    let service = |more: Value| {
        let mut spec = json!({"service": {"namespace": "n", "name": "s"}});
        json_patch::merge(&mut spec, &more);
        spec
    };
    check(json!({}), &[]);
    check(service(json!({"insecureSkipTLSVerify": true})), &[]);
    super::check(with("v1.", json!({"group": null})), &[]);
    super::check(
        with("v2.", json!({"group": null, "version": "v2"})),
        &["spec.group: Required value: only v1 may have an empty group and it better be legacy kube"],
    );
    super::check(
        with("x", json!({})),
        &["metadata.name: Invalid value: \"x\": must be `spec.version+\".\"+spec.group`: \"v1.x.y\""],
    );
    check(
        json!({"groupPriorityMinimum": 20001, "versionPriority": 0}),
        &[
            "spec.groupPriorityMinimum: Invalid value: 20001: must be positive and less than 20000",
            "spec.versionPriority: Invalid value: 0: must be positive and less than 1000",
        ],
    );
    check(
        json!({"caBundle": "AAAA", "insecureSkipTLSVerify": true}),
        &[
            "spec.caBundle: Invalid value: \"3 bytes\": local APIServices may not have a caBundle",
            "spec.insecureSkipTLSVerify: Invalid value: true: local APIServices may not have insecureSkipTLSVerify",
        ],
    );
    check(
        service(json!({"caBundle": "AAAA", "insecureSkipTLSVerify": true, "service": {"name": "", "namespace": ""}})),
        &[
            "spec.service.namespace: Required value",
            "spec.service.name: Required value",
            "spec.insecureSkipTLSVerify: Invalid value: true: may not be true if caBundle is present",
        ],
    );
}

#[test]
fn flow_schemas_and_priority_levels() {
    let object = |kind: &str, name: &str, spec: Value| {
        of("flowcontrol.apiserver.k8s.io/v1", kind, json!({"metadata": {"name": name}, "spec": spec}))
    };
    let schema = |name: &str, precedence: i64, level: &str| {
        object(
            "FlowSchema",
            name,
            json!({"matchingPrecedence": precedence, "priorityLevelConfiguration": {"name": level}}),
        )
    };
    check(schema("a", 2, "p"), &[]);
    check(schema("exempt", 1, "exempt"), &[]);
    check(
        schema("a", 1, ""),
        &[
            "spec.matchingPrecedence: Invalid value: 1: only the schema named 'exempt' may have matchingPrecedence 1",
            "spec.priorityLevelConfiguration.name: Required value: must reference a priority level",
        ],
    );
    let most = "spec.matchingPrecedence: Invalid value: 10001: must not be greater than 10000";
    check(schema("a", 10001, "p"), &[most]);
    check(schema("a", -1, "p"), &["spec.matchingPrecedence: Invalid value: -1: must be a positive value"]);
    let level = |name: &str, spec: Value| object("PriorityLevelConfiguration", name, spec);
    check(level("exempt", json!({"type": "Exempt"})), &[]);
    check(level("a", json!({"type": "Limited", "limited": {"limitResponse": {"type": "Reject"}}})), &[]);
    check(
        level("a", json!({"type": "Limited"})),
        &["spec.limited: Required value: must not be empty when type is Limited"],
    );
    let only = "type must be 'Exempt' if and only if `name` is 'exempt'";
    check(level("a", json!({"type": "Exempt"})), &[&format!("spec.type: Invalid value: \"Exempt\": {only}")]);
}
