//! The checks of the baseline standard, sorted by name.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{Container, LifecycleHandler, PodSpec, Probe, SELinuxOptions};

use super::{Check, Violation, containers, has_own_users, named, names, plural, quoted, setters, violation};
use crate::object::ObjectMeta;

pub(super) const CHECKS: &[Check] = &[
    Check { id: "appArmorProfile", revisions: &[(0, app_armor)], overrides: None },
    Check { id: "capabilities_baseline", revisions: &[(0, capabilities)], overrides: None },
    Check { id: "hostNamespaces", revisions: &[(0, host_namespaces)], overrides: None },
    Check { id: "hostPathVolumes", revisions: &[(0, host_paths)], overrides: None },
    Check { id: "hostPorts", revisions: &[(0, host_ports)], overrides: None },
    Check { id: "hostProbesAndHostLifecycle", revisions: &[(34, hosts_of_probes)], overrides: None },
    Check { id: "privileged", revisions: &[(0, privileged)], overrides: None },
    Check { id: "procMount", revisions: &[(0, proc_mount), (35, proc_mount_1_35)], overrides: None },
    Check { id: "seLinuxOptions", revisions: &[(0, se_linux_1_0), (31, se_linux_1_31)], overrides: None },
    Check { id: "seccompProfile_baseline", revisions: &[(0, seccomp_1_0), (19, seccomp)], overrides: None },
    Check {
        id: "sysctls",
        revisions: &[(0, sysctls_1_0), (27, sysctls_1_27), (29, sysctls_1_29), (32, sysctls_1_32)],
        overrides: None,
    },
    Check { id: "windowsHostProcess", revisions: &[(0, host_process)], overrides: None },
];

const APP_ARMOR: &str = "container.apparmor.security.beta.kubernetes.io/";

fn app_armor(meta: &ObjectMeta, spec: &PodSpec) -> Option<Violation> {
    let allowed = |t: &str| matches!(t, "RuntimeDefault" | "Localhost");
    let own = spec.security_context.as_ref().and_then(|c| c.app_armor_profile.as_ref());
    let of =
        |c: &Container| c.security_context.as_ref().and_then(|c| c.app_armor_profile.as_ref()).map(|p| p.type_.clone());
    let bad = names(spec, |c| of(c).is_some_and(|t| !allowed(&t)));
    let mut values: BTreeSet<String> = containers(spec).filter_map(of).filter(|t| !allowed(t)).collect();
    let pod = own.filter(|p| !allowed(&p.type_));
    values.extend(pod.map(|p| p.type_.clone()));
    let annotations = meta.annotations.iter().flatten().filter(|(k, v)| {
        k.starts_with(APP_ARMOR) && !v.is_empty() && *v != "runtime/default" && !v.starts_with("localhost/")
    });
    let annotations: Vec<String> = annotations.map(|(k, v)| format!("{k}={v:?}")).collect();
    let mut who: Vec<String> = setters(pod.is_some(), &bad).into_iter().collect();
    if !annotations.is_empty() {
        who.push(plural("annotation", "annotations", annotations.len()).to_owned());
    }
    if who.is_empty() {
        return None;
    }
    let values: Vec<String> = values.into_iter().chain(annotations).collect();
    let reason = plural("forbidden AppArmor profile", "forbidden AppArmor profiles", values.len());
    violation(reason, format!("{} must not set AppArmor profile type to {}", who.join(" and "), quoted(&values)))
}

const CAPABILITIES: &[&str] = &[
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];

fn capabilities(_: &ObjectMeta, spec: &PodSpec) -> Option<Violation> {
    added_beyond(spec, CAPABILITIES).and_then(|detail| violation("non-default capabilities", detail))
}

/// Describes the containers that add capabilities other than the allowed ones.
pub(super) fn added_beyond(spec: &PodSpec, allowed: &[&str]) -> Option<String> {
    let added = |c: &Container| {
        let capabilities = c.security_context.as_ref().and_then(|c| c.capabilities.as_ref());
        let added = capabilities.and_then(|c| c.add.clone()).unwrap_or_default();
        added.into_iter().filter(|c| !allowed.contains(&c.as_str())).collect::<Vec<_>>()
    };
    let bad = names(spec, |c| !added(c).is_empty());
    let all: BTreeSet<String> = containers(spec).flat_map(added).collect();
    let all: Vec<String> = all.into_iter().collect();
    let words = || format!("{} must not include {} in securityContext.capabilities.add", named(&bad), quoted(&all));
    (!bad.is_empty()).then(words)
}

fn host_namespaces(_: &ObjectMeta, spec: &PodSpec) -> Option<Violation> {
    let shared = [("hostNetwork", spec.host_network), ("hostPID", spec.host_pid), ("hostIPC", spec.host_ipc)];
    let shared: Vec<String> =
        shared.into_iter().filter(|(_, on)| *on == Some(true)).map(|(field, _)| format!("{field}=true")).collect();
    if shared.is_empty() { None } else { violation("host namespaces", shared.join(", ")) }
}

fn host_paths(_: &ObjectMeta, spec: &PodSpec) -> Option<Violation> {
    let volumes = spec.volumes.iter().flatten().filter(|v| v.host_path.is_some());
    let volumes: Vec<&str> = volumes.map(|v| v.name.as_str()).collect();
    if volumes.is_empty() {
        return None;
    }
    violation("hostPath volumes", format!("{} {}", plural("volume", "volumes", volumes.len()), quoted(&volumes)))
}

fn host_ports(_: &ObjectMeta, spec: &PodSpec) -> Option<Violation> {
    let ports =
        |c: &Container| c.ports.iter().flatten().filter_map(|p| p.host_port).filter(|p| *p != 0).collect::<Vec<_>>();
    let bad = names(spec, |c| !ports(c).is_empty());
    if bad.is_empty() {
        return None;
    }
    let all: BTreeSet<String> = containers(spec).flat_map(ports).map(|p| p.to_string()).collect();
    let all: Vec<String> = all.into_iter().collect();
    let uses = plural("uses", "use", bad.len());
    let detail = format!("{} {uses} {} {}", named(&bad), plural("hostPort", "hostPorts", all.len()), all.join(", "));
    violation("hostPort", detail)
}

fn hosts_of_probes(_: &ObjectMeta, spec: &PodSpec) -> Option<Violation> {
    let hosts = |http: Option<Option<&String>>, tcp: Option<Option<&String>>| {
        [http, tcp].into_iter().flatten().flatten().filter(|h| !h.is_empty()).cloned().collect::<Vec<_>>()
    };
    let of_probe =
        |p: &Probe| hosts(p.http_get.as_ref().map(|h| h.host.as_ref()), p.tcp_socket.as_ref().map(|t| t.host.as_ref()));
    let of_hook = |h: &LifecycleHandler| {
        hosts(h.http_get.as_ref().map(|h| h.host.as_ref()), h.tcp_socket.as_ref().map(|t| t.host.as_ref()))
    };
    let of = |c: &Container| {
        let probes = [&c.liveness_probe, &c.readiness_probe, &c.startup_probe].into_iter().flatten();
        let hooks = c.lifecycle.iter().flat_map(|l| [&l.post_start, &l.pre_stop]).flatten();
        probes.flat_map(of_probe).chain(hooks.flat_map(of_hook)).collect::<Vec<String>>()
    };
    let bad: BTreeSet<&str> = names(spec, |c| !of(c).is_empty()).into_iter().collect();
    if bad.is_empty() {
        return None;
    }
    let bad: Vec<&str> = bad.into_iter().collect();
    let all: BTreeSet<String> = containers(spec).flat_map(of).collect();
    let all: Vec<String> = all.into_iter().collect();
    let what = plural("probe or lifecycle host", "probe or lifecycle hosts", all.len());
    let detail = format!("{} {} {what} {}", named(&bad), plural("uses", "use", bad.len()), quoted(&all));
    violation("probe or lifecycle host", detail)
}

fn privileged(_: &ObjectMeta, spec: &PodSpec) -> Option<Violation> {
    let bad = names(spec, |c| c.security_context.as_ref().is_some_and(|s| s.privileged == Some(true)));
    if bad.is_empty() {
        return None;
    }
    violation("privileged", format!("{} must not set securityContext.privileged=true", named(&bad)))
}

pub(super) fn proc_mount(_: &ObjectMeta, spec: &PodSpec) -> Option<Violation> {
    let of = |c: &Container| c.security_context.as_ref().and_then(|s| s.proc_mount.clone()).filter(|m| m != "Default");
    let bad = names(spec, |c| of(c).is_some());
    if bad.is_empty() {
        return None;
    }
    let all: BTreeSet<String> = containers(spec).filter_map(of).collect();
    let all: Vec<String> = all.into_iter().collect();
    violation("procMount", format!("{} must not set securityContext.procMount to {}", named(&bad), quoted(&all)))
}

fn proc_mount_1_35(meta: &ObjectMeta, spec: &PodSpec) -> Option<Violation> {
    if has_own_users(spec) { None } else { proc_mount(meta, spec) }
}

fn se_linux_1_0(_: &ObjectMeta, spec: &PodSpec) -> Option<Violation> {
    se_linux(spec, &["", "container_t", "container_init_t", "container_kvm_t"])
}

fn se_linux_1_31(_: &ObjectMeta, spec: &PodSpec) -> Option<Violation> {
    se_linux(spec, &["", "container_t", "container_init_t", "container_kvm_t", "container_engine_t"])
}

fn se_linux(spec: &PodSpec, allowed: &[&str]) -> Option<Violation> {
    let text = |t: &Option<String>| t.clone().unwrap_or_default();
    let bad_type = |o: &SELinuxOptions| Some(text(&o.type_)).filter(|t| !allowed.contains(&t.as_str()));
    let is_bad = |o: &SELinuxOptions| bad_type(o).is_some() || !text(&o.user).is_empty() || !text(&o.role).is_empty();
    let own = spec.security_context.as_ref().and_then(|c| c.se_linux_options.as_ref());
    let of = |c: &Container| c.security_context.as_ref().and_then(|c| c.se_linux_options.clone());
    let bad = names(spec, |c| of(c).is_some_and(|o| is_bad(&o)));
    let who = setters(own.is_some_and(is_bad), &bad)?;
    let all: Vec<SELinuxOptions> = own.cloned().into_iter().chain(containers(spec).filter_map(of)).collect();
    let types: BTreeSet<String> = all.iter().filter_map(bad_type).collect();
    let types: Vec<String> = types.into_iter().collect();
    let mut wrongs = Vec::new();
    if !types.is_empty() {
        wrongs.push(format!("{} {}", plural("type", "types", types.len()), quoted(&types)));
    }
    if all.iter().any(|o| !text(&o.user).is_empty()) {
        wrongs.push("user may not be set".to_owned());
    }
    if all.iter().any(|o| !text(&o.role).is_empty()) {
        wrongs.push("role may not be set".to_owned());
    }
    let detail = format!("{who} set forbidden securityContext.seLinuxOptions: {}", wrongs.join("; "));
    violation("seLinuxOptions", detail)
}

const SECCOMP_OF_POD: &str = "seccomp.security.alpha.kubernetes.io/pod";
const SECCOMP_OF_CONTAINER: &str = "container.seccomp.security.alpha.kubernetes.io/";

fn seccomp_1_0(meta: &ObjectMeta, spec: &PodSpec) -> Option<Violation> {
    let keys = containers(spec).map(|c| format!("{SECCOMP_OF_CONTAINER}{}", c.name));
    let keys = std::iter::once(SECCOMP_OF_POD.to_owned()).chain(keys);
    let good = |v: &str| matches!(v, "runtime/default" | "docker/default") || v.starts_with("localhost/");
    let value = |key: &String| meta.annotations.as_ref().and_then(|a| a.get(key)).filter(|v| !good(v));
    let bad: BTreeSet<String> = keys.filter_map(|k| value(&k).map(|v| format!("{k}={v:?}"))).collect();
    if bad.is_empty() {
        return None;
    }
    let bad: Vec<String> = bad.into_iter().collect();
    let detail = format!("forbidden {} {}", plural("annotation", "annotations", bad.len()), bad.join(", "));
    violation("seccompProfile", detail)
}

/// Describes forbidden profiles that are set by the pod or its containers.
pub(super) fn bad_seccomp(spec: &PodSpec) -> Option<String> {
    let allowed = |t: &str| matches!(t, "RuntimeDefault" | "Localhost");
    let own = spec.security_context.as_ref().and_then(|c| c.seccomp_profile.as_ref()).map(|p| p.type_.clone());
    let own = own.filter(|t| !allowed(t));
    let of = |c: &Container| {
        let profile = c.security_context.as_ref().and_then(|c| c.seccomp_profile.as_ref());
        profile.map(|p| p.type_.clone()).filter(|t| !allowed(t))
    };
    let bad = names(spec, |c| of(c).is_some());
    let who = setters(own.is_some(), &bad)?;
    let all: BTreeSet<String> = own.into_iter().chain(containers(spec).filter_map(of)).collect();
    let all: Vec<String> = all.into_iter().collect();
    Some(format!("{who} must not set securityContext.seccompProfile.type to {}", quoted(&all)))
}

fn seccomp(_: &ObjectMeta, spec: &PodSpec) -> Option<Violation> {
    bad_seccomp(spec).and_then(|detail| violation("seccompProfile", detail))
}

const SYSCTLS: &[&str] = &[
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.ping_group_range",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_wmem",
];

/// Each version allows more sysctls than the ones before.
fn sysctls(spec: &PodSpec, allowed: &[&str]) -> Option<Violation> {
    let list = spec.security_context.iter().flat_map(|c| c.sysctls.iter().flatten());
    let bad: Vec<&str> = list.map(|s| s.name.as_str()).filter(|n| !allowed.contains(n)).collect();
    if bad.is_empty() { None } else { violation("forbidden sysctls", bad.join(", ")) }
}

fn sysctls_1_0(_: &ObjectMeta, spec: &PodSpec) -> Option<Violation> {
    sysctls(spec, &SYSCTLS[..5])
}

fn sysctls_1_27(_: &ObjectMeta, spec: &PodSpec) -> Option<Violation> {
    sysctls(spec, &SYSCTLS[..6])
}

fn sysctls_1_29(_: &ObjectMeta, spec: &PodSpec) -> Option<Violation> {
    sysctls(spec, &SYSCTLS[..10])
}

fn sysctls_1_32(_: &ObjectMeta, spec: &PodSpec) -> Option<Violation> {
    sysctls(spec, SYSCTLS)
}

fn host_process(_: &ObjectMeta, spec: &PodSpec) -> Option<Violation> {
    let windows = spec.security_context.as_ref().and_then(|c| c.windows_options.as_ref());
    let own = windows.is_some_and(|o| o.host_process == Some(true));
    let bad = names(spec, |c| {
        let windows = c.security_context.as_ref().and_then(|c| c.windows_options.as_ref());
        windows.is_some_and(|o| o.host_process == Some(true))
    });
    let who = setters(own, &bad)?;
    violation("hostProcess", format!("{who} must not set securityContext.windowsOptions.hostProcess=true"))
}
