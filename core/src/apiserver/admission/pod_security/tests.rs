use k8s_openapi::api::core::v1::PodSpec;
use serde_json::{Value, json};

use super::{Level, Standard, level, version, violations, wrong_labels};
use crate::object::ObjectMeta;

fn said(standard: &str, annotations: &Value, spec: Value) -> String {
    let (name, of) = standard.split_once(':').unwrap_or((standard, "latest"));
    let standard = Standard { level: level(name).unwrap(), minor: version(of).unwrap() };
    let meta: ObjectMeta = serde_json::from_value(json!({"annotations": annotations})).unwrap();
    let spec: PodSpec = serde_json::from_value(spec).unwrap();
    violations(standard, &meta, &spec).unwrap_or_default()
}

/// Checks a pod against a standard. The pod has one container `a`; `container` is merged into the container and `pod`
/// into the spec.
fn check(standard: &str, pod: Value, container: Value, want: &str) {
    check_annotated(standard, &Value::Null, pod, container, want);
}

fn check_annotated(standard: &str, annotations: &Value, pod: Value, container: Value, want: &str) {
    let mut spec = json!({"containers": [{"name": "a", "image": "i"}]});
    json_patch::merge(&mut spec["containers"][0], &container);
    json_patch::merge(&mut spec, &pod);
    assert_eq!(said(standard, annotations, spec.clone()), want, "{standard} {spec}");
}

fn secured(context: Value) -> Value {
    json!({"securityContext": context})
}

/// A container that satisfies the restricted standard.
fn tight() -> Value {
    json!({"allowPrivilegeEscalation": false, "runAsNonRoot": true, "capabilities": {"drop": ["ALL"]},
        "seccompProfile": {"type": "RuntimeDefault"}})
}

fn tight_with(more: &Value) -> Value {
    let mut context = tight();
    json_patch::merge(&mut context, more);
    secured(context)
}

#[test]
fn ephemeral_containers_are_looked_at_last() {
    let added =
        |context: Value| json!({"ephemeralContainers": [{"name": "d", "image": "i", "securityContext": context}]});
    check("restricted", added(tight()), secured(tight()), "");
    check(
        "baseline",
        added(json!({"privileged": true})),
        secured(json!({"privileged": true})),
        "privileged (containers \"a\", \"d\" must not set securityContext.privileged=true)",
    );
}

#[test]
fn a_plain_pod() {
    check("privileged", json!({"hostPID": true}), secured(json!({"privileged": true})), "");
    check("baseline", json!({}), json!({}), "");
    check("restricted", json!({}), secured(tight()), "");
    check(
        "restricted",
        json!({}),
        json!({}),
        "allowPrivilegeEscalation != false (container \"a\" must set \
         securityContext.allowPrivilegeEscalation=false), unrestricted capabilities (container \"a\" must set \
         securityContext.capabilities.drop=[\"ALL\"]), runAsNonRoot != true (pod or container \"a\" must set \
         securityContext.runAsNonRoot=true), seccompProfile (pod or container \"a\" must set \
         securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\")",
    );
}

#[test]
fn baseline_checks() {
    for (pod, container, want) in [
        (
            json!({"hostPID": true, "hostNetwork": true, "hostIPC": true}),
            json!({}),
            "host namespaces (hostNetwork=true, hostPID=true, hostIPC=true)",
        ),
        (
            json!({}),
            secured(json!({"privileged": true})),
            "privileged (container \"a\" must not set securityContext.privileged=true)",
        ),
        (
            json!({}),
            secured(json!({"capabilities": {"add": ["SYS_ADMIN", "CHOWN", "BPF"]}})),
            "non-default capabilities (container \"a\" must not include \"BPF\", \"SYS_ADMIN\" in \
             securityContext.capabilities.add)",
        ),
        (
            json!({"volumes": [{"name": "v", "hostPath": {"path": "/"}}, {"name": "w", "hostPath": {"path": "/"}}]}),
            json!({}),
            "hostPath volumes (volumes \"v\", \"w\")",
        ),
        (
            json!({}),
            json!({"ports": [{"containerPort": 1, "hostPort": 80}, {"containerPort": 2, "hostPort": 443}]}),
            "hostPort (container \"a\" uses hostPorts 443, 80)",
        ),
        (
            json!({}),
            json!({"livenessProbe": {"httpGet": {"port": 80, "host": "10.0.0.1"}}}),
            "probe or lifecycle host (container \"a\" uses probe or lifecycle host \"10.0.0.1\")",
        ),
        (
            json!({}),
            secured(json!({"procMount": "Unmasked"})),
            "procMount (container \"a\" must not set securityContext.procMount to \"Unmasked\")",
        ),
        (json!({"hostUsers": false}), secured(json!({"procMount": "Unmasked"})), ""),
        (
            secured(json!({"seLinuxOptions": {"type": "t", "user": "u"}})),
            secured(json!({"seLinuxOptions": {"role": "r"}})),
            "seLinuxOptions (pod and container \"a\" set forbidden securityContext.seLinuxOptions: type \"t\"; user \
             may not be set; role may not be set)",
        ),
        (
            secured(json!({"seccompProfile": {"type": "Unconfined"}})),
            json!({}),
            "seccompProfile (pod must not set securityContext.seccompProfile.type to \"Unconfined\")",
        ),
        (
            json!({}),
            secured(json!({"appArmorProfile": {"type": "Unconfined"}})),
            "forbidden AppArmor profile (container \"a\" must not set AppArmor profile type to \"Unconfined\")",
        ),
        (
            secured(json!({"sysctls": [{"name": "kernel.msgmax", "value": "1"}]})),
            json!({}),
            "forbidden sysctls (kernel.msgmax)",
        ),
        (
            secured(json!({"windowsOptions": {"hostProcess": true}})),
            json!({}),
            "hostProcess (pod must not set securityContext.windowsOptions.hostProcess=true)",
        ),
    ] {
        check("baseline", pod, container, want);
    }
}

#[test]
fn restricted_checks() {
    for (pod, more, want) in [
        (
            json!({"volumes": [{"name": "v", "hostPath": {"path": "/"}}, {"name": "w", "nfs": {"server": "s", "path": "/"}},
                {"name": "x", "emptyDir": {}}]}),
            json!({}),
            "restricted volume types (volumes \"v\", \"w\" use restricted volume types \"hostPath\", \"nfs\")",
        ),
        (json!({}), json!({"capabilities": {"add": ["NET_BIND_SERVICE"]}}), ""),
        (
            json!({}),
            json!({"capabilities": {"add": ["CHOWN"]}}),
            "unrestricted capabilities (container \"a\" must not include \"CHOWN\" in securityContext.capabilities.add)",
        ),
        (
            json!({}),
            json!({"runAsNonRoot": false}),
            "runAsNonRoot != true (container \"a\" must not set securityContext.runAsNonRoot=false)",
        ),
        (json!({"securityContext": {"runAsNonRoot": true}}), json!({"runAsNonRoot": null}), ""),
        (json!({}), json!({"runAsUser": 0}), "runAsUser=0 (container \"a\" must not set runAsUser=0)"),
        (json!({"hostUsers": false}), json!({"runAsUser": 0, "runAsNonRoot": null}), ""),
        (json!({"securityContext": {"seccompProfile": {"type": "Localhost"}}}), json!({"seccompProfile": null}), ""),
    ] {
        check("restricted", pod, tight_with(&more), want);
    }
    let bare = json!({"name": "b", "image": "i"});
    check(
        "restricted",
        json!({"initContainers": [bare], "os": {"name": "windows"}}),
        secured(tight()),
        "runAsNonRoot != true (pod or container \"b\" must set securityContext.runAsNonRoot=true)",
    );
}

#[test]
fn standards_as_of_a_version() {
    let unmasked = || secured(json!({"procMount": "Unmasked"}));
    check(
        "baseline:v1.34",
        json!({"hostUsers": false}),
        unmasked(),
        "procMount (container \"a\" must not set securityContext.procMount to \"Unmasked\")",
    );
    check("baseline:v1.35", json!({"hostUsers": false}), unmasked(), "");
    check("baseline:v1.99", json!({"hostUsers": false}), unmasked(), "");
    let sysctl = || secured(json!({"sysctls": [{"name": "net.ipv4.tcp_rmem", "value": "1"}]}));
    check("baseline:v1.31", sysctl(), json!({}), "forbidden sysctls (net.ipv4.tcp_rmem)");
    check("baseline:v1.32", sysctl(), json!({}), "");
    check("restricted:v1.7", secured(json!({"runAsNonRoot": true})), json!({}), "");
    let unconfined = json!({"seccomp.security.alpha.kubernetes.io/pod": "unconfined"});
    let want = "seccompProfile (forbidden annotation seccomp.security.alpha.kubernetes.io/pod=\"unconfined\")";
    check_annotated("baseline:v1.18", &unconfined, json!({}), json!({}), want);
    check_annotated("baseline:v1.19", &unconfined, json!({}), json!({}), "");
}

#[test]
fn labels_of_namespaces() {
    let check = |name: &str, value: &str, want: &[&str]| {
        let labels = [(format!("pod-security.kubernetes.io/{name}"), value.to_owned())];
        let errors = wrong_labels(Some(&labels.into_iter().collect()));
        assert_eq!(errors.iter().map(ToString::to_string).collect::<Vec<_>>(), want, "{name}={value}");
    };
    for good in ["privileged", "baseline", "restricted"] {
        check("enforce", good, &[]);
    }
    for good in ["latest", "v1.0", "v1.36"] {
        check("warn-version", good, &[]);
    }
    check(
        "audit",
        "tight",
        &["metadata.labels[pod-security.kubernetes.io/audit]: Invalid value: \"tight\": must be one of privileged, \
           baseline, restricted"],
    );
    for bad in ["v1", "1.20", "v1.01", "v2.0", ""] {
        check(
            "enforce-version",
            bad,
            &[&format!(
                "metadata.labels[pod-security.kubernetes.io/enforce-version]: Invalid value: {bad:?}: must be \
                 \"latest\" or \"v1.x\""
            )],
        );
    }
    assert_eq!(Standard { level: Level::Baseline, minor: Some(30) }.to_string(), "baseline:v1.30");
}
