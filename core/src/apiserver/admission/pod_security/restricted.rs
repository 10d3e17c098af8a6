//! The checks that the restricted standard has in addition to the baseline, sorted by name.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{Container, PodSpec};

use super::baseline::{added_beyond, bad_seccomp, proc_mount};
use super::{Check, Violation, has_own_users, is_windows, named, names, plural, quoted, setters, violation};
use crate::object::{ObjectMeta, validation};

pub(super) const CHECKS: &[Check] = &[
    Check {
        id: "allowPrivilegeEscalation",
        revisions: &[(8, escalation), (25, |m, s| if is_windows(s) { None } else { escalation(m, s) })],
        overrides: None,
    },
    Check {
        id: "capabilities_restricted",
        revisions: &[(22, capabilities), (25, |m, s| if is_windows(s) { None } else { capabilities(m, s) })],
        overrides: Some("capabilities_baseline"),
    },
    Check { id: "procMount_restricted", revisions: &[(35, proc_mount)], overrides: Some("procMount") },
    Check { id: "restrictedVolumes", revisions: &[(0, volumes)], overrides: Some("hostPathVolumes") },
    Check {
        id: "runAsNonRoot",
        revisions: &[(0, non_root), (35, |m, s| if has_own_users(s) { None } else { non_root(m, s) })],
        overrides: None,
    },
    Check {
        id: "runAsUser",
        revisions: &[(23, run_as_user), (35, |m, s| if has_own_users(s) { None } else { run_as_user(m, s) })],
        overrides: None,
    },
    Check {
        id: "seccompProfile_restricted",
        revisions: &[(19, seccomp), (25, |m, s| if is_windows(s) { None } else { seccomp(m, s) })],
        overrides: Some("seccompProfile_baseline"),
    },
];

fn escalation(_: &ObjectMeta, spec: &PodSpec) -> Option<Violation> {
    let bad = names(spec, |c| c.security_context.as_ref().is_none_or(|s| s.allow_privilege_escalation != Some(false)));
    if bad.is_empty() {
        return None;
    }
    let detail = format!("{} must set securityContext.allowPrivilegeEscalation=false", named(&bad));
    violation("allowPrivilegeEscalation != false", detail)
}

fn capabilities(_: &ObjectMeta, spec: &PodSpec) -> Option<Violation> {
    let drops_all = |c: &Container| {
        let capabilities = c.security_context.as_ref().and_then(|s| s.capabilities.as_ref());
        capabilities.and_then(|c| c.drop.as_ref()).is_some_and(|d| d.iter().any(|c| c == "ALL"))
    };
    let keeps = names(spec, |c| !drops_all(c));
    let words = || format!("{} must set securityContext.capabilities.drop=[\"ALL\"]", named(&keeps));
    let kept = (!keeps.is_empty()).then(words);
    let details: Vec<String> = kept.into_iter().chain(added_beyond(spec, &["NET_BIND_SERVICE"])).collect();
    if details.is_empty() { None } else { violation("unrestricted capabilities", details.join("; ")) }
}

const VOLUMES: &[&str] = &[
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "image",
    "persistentVolumeClaim",
    "projected",
    "secret",
];

fn volumes(_: &ObjectMeta, spec: &PodSpec) -> Option<Violation> {
    let (mut bad, mut types) = (Vec::new(), BTreeSet::new());
    for v in spec.volumes.iter().flatten() {
        let mut sources = validation::volume_sources(v).peekable();
        let first = sources.peek().copied().unwrap_or("unknown");
        if !sources.any(|source| VOLUMES.contains(&source)) {
            bad.push(v.name.as_str());
            types.insert(first);
        }
    }
    if bad.is_empty() {
        return None;
    }
    let types: Vec<&str> = types.into_iter().collect();
    let detail = format!(
        "{} {} {} {} {}",
        plural("volume", "volumes", bad.len()),
        quoted(&bad),
        plural("uses", "use", bad.len()),
        plural("restricted volume type", "restricted volume types", types.len()),
        quoted(&types)
    );
    violation("restricted volume types", detail)
}

fn non_root(_: &ObjectMeta, spec: &PodSpec) -> Option<Violation> {
    const REASON: &str = "runAsNonRoot != true";
    let own = spec.security_context.as_ref().and_then(|c| c.run_as_non_root);
    let of = |c: &Container| c.security_context.as_ref().and_then(|s| s.run_as_non_root);
    let refusing = names(spec, |c| of(c) == Some(false));
    if let Some(who) = setters(own == Some(false), &refusing) {
        return violation(REASON, format!("{who} must not set securityContext.runAsNonRoot=false"));
    }
    let silent = names(spec, |c| of(c).is_none());
    if own == Some(true) || silent.is_empty() {
        return None;
    }
    violation(REASON, format!("pod or {} must set securityContext.runAsNonRoot=true", named(&silent)))
}

fn run_as_user(_: &ObjectMeta, spec: &PodSpec) -> Option<Violation> {
    let own = spec.security_context.as_ref().and_then(|c| c.run_as_user);
    let root = names(spec, |c| c.security_context.as_ref().and_then(|s| s.run_as_user) == Some(0));
    let who = setters(own == Some(0), &root)?;
    violation("runAsUser=0", format!("{who} must not set runAsUser=0"))
}

fn seccomp(_: &ObjectMeta, spec: &PodSpec) -> Option<Violation> {
    if let Some(detail) = bad_seccomp(spec) {
        return violation("seccompProfile", detail);
    }
    let own = spec.security_context.as_ref().and_then(|c| c.seccomp_profile.as_ref());
    let silent = names(spec, |c| c.security_context.as_ref().and_then(|s| s.seccomp_profile.as_ref()).is_none());
    if own.is_some() || silent.is_empty() {
        return None;
    }
    let detail = format!(
        "pod or {} must set securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\"",
        named(&silent)
    );
    violation("seccompProfile", detail)
}
