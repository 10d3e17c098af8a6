//! Validation of security contexts: users, capabilities, profiles, sysctls, Windows options, and the fields that the
//! pod's operating system rules out. Source: `pkg/apis/core/validation`.

use k8s_openapi::api::core::v1::{
    AppArmorProfile, PodSecurityContext, PodSpec, SeccompProfile, SecurityContext, WindowsSecurityContextOptions,
};

use super::path::{Go, Path};
use super::{names, one_of, push_all, volume};
use crate::object::FieldError;

const MAX_ID: i64 = i32::MAX as i64;

/// Validates a numeric user or group ID.
fn id(id: Option<i64>, at: &Path<'_>, errors: &mut Vec<FieldError>) {
    if let Some(id) = id.filter(|id| !(0..=MAX_ID).contains(id)) {
        errors.push(FieldError::invalid(at, id, "must be between 0 and 2147483647, inclusive"));
    }
}

/// `ValidateSecurityContext`. `host_users`: whether the pod uses the host's user namespace.
pub(super) fn of_container(s: &SecurityContext, host_users: bool, at: &Path<'_>, errors: &mut Vec<FieldError>) {
    id(s.run_as_user, &at.field("runAsUser"), errors);
    id(s.run_as_group, &at.field("runAsGroup"), errors);
    if let Some(mount) = &s.proc_mount {
        one_of(mount, &["Default", "Unmasked"], &at.field("procMount"), errors);
        if host_users && mount == "Unmasked" {
            let detail = "`hostUsers` must be false to use `Unmasked`";
            errors.push(FieldError::invalid(at.field("procMount"), mount, detail));
        }
    }
    seccomp(s.seccomp_profile.as_ref(), &at.field("seccompProfile"), errors);
    if s.allow_privilege_escalation == Some(false) {
        let shown = || Go(serde_json::to_string(s).unwrap_or_default());
        if s.privileged == Some(true) {
            let detail = "cannot set `allowPrivilegeEscalation` to false and `privileged` to true";
            errors.push(FieldError::invalid(at, shown(), detail));
        }
        // `SYS_ADMIN` without the `CAP_` prefix is not refused, as in upstream.
        for _ in s.capabilities.iter().flat_map(|c| c.add.iter().flatten()).filter(|c| *c == "CAP_SYS_ADMIN") {
            let detail = "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN";
            errors.push(FieldError::invalid(at, shown(), detail));
        }
    }
    windows_options(s.windows_options.as_ref(), &at.field("windowsOptions"), errors);
    app_armor(s.app_armor_profile.as_ref(), &at.field("appArmorProfile"), errors);
}

/// `validatePodSpecSecurityContext`.
pub(super) fn of_pod(spec: &PodSpec, at: &Path<'_>, errors: &mut Vec<FieldError>) {
    let at = at.field("securityContext");
    let none = PodSecurityContext::default();
    let c = spec.security_context.as_ref().unwrap_or(&none);
    for (field, value) in [("fsGroup", c.fs_group), ("runAsUser", c.run_as_user), ("runAsGroup", c.run_as_group)] {
        id(value, &at.field(field), errors);
    }
    for (i, group) in c.supplemental_groups.iter().flatten().enumerate() {
        id(Some(*group), &at.field("supplementalGroups").index(i), errors);
    }
    if spec.host_pid == Some(true) && spec.share_process_namespace == Some(true) {
        let detail = "ShareProcessNamespace and HostPID cannot both be enabled";
        errors.push(FieldError::invalid(at.field("shareProcessNamespace"), true, detail));
    }
    sysctls(spec, c, &at.field("sysctls"), errors);
    if let Some(policy) = &c.fs_group_change_policy {
        one_of(policy, &["Always", "OnRootMismatch"], &at.field("fsGroupChangePolicy"), errors);
    }
    seccomp(c.seccomp_profile.as_ref(), &at.field("seccompProfile"), errors);
    windows_options(c.windows_options.as_ref(), &at.field("windowsOptions"), errors);
    app_armor(c.app_armor_profile.as_ref(), &at.field("appArmorProfile"), errors);
    if let Some(policy) = &c.supplemental_groups_policy {
        one_of(policy, &["Merge", "Strict"], &at.field("supplementalGroupsPolicy"), errors);
    }
    if let Some(policy) = &c.se_linux_change_policy {
        one_of(policy, &["MountOption", "Recursive"], &at.field("seLinuxChangePolicy"), errors);
    }
}

/// `[a-z0-9]([-_a-z0-9]*[a-z0-9])?`
fn is_sysctl_segment(text: &str) -> bool {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = text.as_bytes();
    let ends = bytes.first().is_some_and(|b| plain(*b)) && bytes.last().is_some_and(|b| plain(*b));
    ends && bytes.iter().all(|b| plain(*b) || b"-_".contains(b))
}

fn sysctls(spec: &PodSpec, c: &PodSecurityContext, at: &Path<'_>, errors: &mut Vec<FieldError>) {
    let list = c.sysctls.as_deref().unwrap_or_default();
    for (i, s) in list.iter().enumerate() {
        let at = at.index(i);
        let at = at.field("name");
        let good = s.name.len() <= 253 && s.name.split(['.', '/']).all(is_sysctl_segment);
        if s.name.is_empty() {
            errors.push(FieldError::required(at, ""));
        } else if !good {
            let detail = "must have at most 253 characters and match regex \
                          ^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$";
            errors.push(FieldError::invalid(at, &s.name, detail));
        } else if list[..i].iter().any(|earlier| earlier.name == s.name) {
            errors.push(FieldError::duplicate(at, &s.name));
        }
        let dotted = s.name.replace('/', ".");
        let of_ipc = ["kernel.shm", "kernel.msg", "fs.mqueue."].iter().any(|p| dotted.starts_with(p));
        if spec.host_network == Some(true) && dotted.starts_with("net.") {
            errors.push(FieldError::invalid(at, &s.name, "may not be specified when 'hostNetwork' is true"));
        } else if spec.host_ipc == Some(true) && (of_ipc || dotted == "kernel.sem") {
            errors.push(FieldError::invalid(at, &s.name, "may not be specified when 'hostIPC' is true"));
        }
    }
}

/// `validateSeccompProfileField`.
fn seccomp(profile: Option<&SeccompProfile>, at: &Path<'_>, errors: &mut Vec<FieldError>) {
    let Some(p) = profile else { return };
    match p.type_.as_str() {
        "" => errors.push(FieldError::required(at.field("type"), "type is required when seccompProfile is set")),
        type_ => one_of(type_, &["Localhost", "RuntimeDefault", "Unconfined"], &at.field("type"), errors),
    }
    match (&p.localhost_profile, p.type_ == "Localhost") {
        (None, true) => {
            let detail = "must be set when seccomp type is Localhost";
            errors.push(FieldError::required(at.field("localhostProfile"), detail));
        }
        (Some(path), true) => volume::descending_path(path, &at.field("localhostProfile"), errors),
        (Some(path), false) => {
            let shown = Go(serde_json::json!({"Type": p.type_, "LocalhostProfile": path}).to_string());
            let detail = "can only be set when seccomp type is Localhost";
            errors.push(FieldError::invalid(at.field("localhostProfile"), shown, detail));
        }
        (None, false) => {}
    }
}

/// `ValidateAppArmorProfileField`.
fn app_armor(profile: Option<&AppArmorProfile>, at: &Path<'_>, errors: &mut Vec<FieldError>) {
    const NEEDED: &str = "must be set when AppArmor type is Localhost";
    let Some(p) = profile else { return };
    let path = at.field("localhostProfile");
    match (p.type_.as_str(), &p.localhost_profile) {
        ("Localhost", None) => errors.push(FieldError::required(path, NEEDED)),
        ("Localhost", Some(name)) => {
            if name.trim() != name {
                errors.push(FieldError::invalid(path, name, "must not be padded with whitespace"));
            } else if name.is_empty() {
                errors.push(FieldError::required(path, NEEDED));
            }
            if name.len() > 4095 {
                errors.push(FieldError::too_long(path, 4095));
            }
        }
        ("RuntimeDefault" | "Unconfined", Some(name)) => {
            errors.push(FieldError::invalid(path, name, "can only be set when AppArmor type is Localhost"));
        }
        ("RuntimeDefault" | "Unconfined", None) => {}
        ("", _) => errors.push(FieldError::required(at.field("type"), "type is required when appArmorProfile is set")),
        (other, _) => one_of(other, &["Localhost", "RuntimeDefault", "Unconfined"], &at.field("type"), errors),
    }
}

/// `validateWindowsSecurityContextOptions`.
fn windows_options(options: Option<&WindowsSecurityContextOptions>, at: &Path<'_>, errors: &mut Vec<FieldError>) {
    let Some(o) = options else { return };
    if let Some(name) = &o.gmsa_credential_spec_name {
        push_all(errors, &at.field("gmsaCredentialSpecName"), name, names::subdomain(name));
    }
    if let Some(spec) = &o.gmsa_credential_spec {
        let at = at.field("gmsaCredentialSpec");
        if spec.is_empty() {
            errors.push(FieldError::invalid(at, spec, "gmsaCredentialSpec cannot be an empty string"));
        } else if spec.len() > 64 * 1024 {
            errors.push(FieldError::invalid(at, spec, "gmsaCredentialSpec size must be under 64 KiB"));
        }
    }
    if let Some(name) = &o.run_as_user_name {
        for wrong in wrongs_of_windows_user(name) {
            errors.push(FieldError::invalid(at.field("runAsUserName"), name, wrong));
        }
    }
}

fn wrongs_of_windows_user(name: &str) -> Vec<&'static str> {
    if name.is_empty() {
        return vec!["runAsUserName cannot be an empty string"];
    }
    if name.chars().any(|c| c.is_ascii_control()) {
        return vec!["runAsUserName cannot contain control characters"];
    }
    let (domain, user) = match name.split('\\').collect::<Vec<_>>()[..] {
        [user] => (None, user),
        [domain, user] => (Some(domain), user),
        _ => return vec!["runAsUserName cannot contain more than one backslash"],
    };
    let mut wrongs = Vec::new();
    if domain.is_some_and(|d| d.len() >= 256) {
        wrongs.push("runAsUserName's Domain length must be under 256 characters");
    }
    if domain.is_some_and(|d| !is_windows_domain(d)) {
        wrongs.push("runAsUserName's Domain doesn't match the NetBios nor the DNS format");
    }
    if user.is_empty() {
        wrongs.push("runAsUserName's User cannot be empty");
    } else if user.len() > 104 {
        wrongs.push("runAsUserName's User length must not be longer than 104 characters");
    }
    if !user.is_empty() && user.chars().all(|c| c == '.' || c == ' ') {
        wrongs.push("runAsUserName's User cannot contain only periods or spaces");
    }
    if user.contains(['"', '/', '\\', ':', ';', '|', '=', ',', '+', '*', '?', '<', '>', '@', '[', ']']) {
        wrongs.push("runAsUserName's User cannot contain the following characters: \"/\\:;|=,+*?<>@[]");
    }
    wrongs
}

fn is_windows_domain(d: &str) -> bool {
    let barred = ['\\', '/', ':', '*', '?', '"', '<', '>', '|'];
    let net_bios = (1..=15).contains(&d.chars().count()) && !d.starts_with('.') && !d.contains(barred);
    let label = |l: &str| {
        let inner = l.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        (1..=63).contains(&l.len()) && inner && !l.starts_with('-') && !l.ends_with('-')
    };
    net_bios || d.split('.').all(label)
}

/// `validateHostUsers`: a pod with its own user namespace must not use any other namespace of the host.
pub(super) fn host_users(spec: &PodSpec, at: &Path<'_>, errors: &mut Vec<FieldError>) {
    if spec.host_users != Some(false) {
        return;
    }
    for (field, shared) in [("hostNetwork", spec.host_network), ("HostPID", spec.host_pid), ("HostIPC", spec.host_ipc)]
    {
        if shared == Some(true) {
            errors.push(FieldError::forbidden(at.field(field), "when `pod.Spec.HostUsers` is false"));
        }
    }
}

/// `validateWindowsHostProcessPod`.
pub(super) fn host_process(spec: &PodSpec, at: &Path<'_>, errors: &mut Vec<FieldError>) {
    let of = |o: Option<&WindowsSecurityContextOptions>| o.and_then(|o| o.host_process);
    let pod = of(spec.security_context.as_ref().and_then(|c| c.windows_options.as_ref()));
    let (mut all, mut on_host) = (0, 0);
    for (field, i, context) in contexts(spec) {
        let own = of(context.and_then(|c| c.windows_options.as_ref()));
        all += 1;
        on_host += usize::from(own.or(pod) == Some(true));
        if let (Some(pod), Some(own)) = (pod, own)
            && pod != own
        {
            let at = at.field(field);
            let at = at.index(i);
            let at = at.field("securityContext");
            let at = at.field("windowsOptions");
            let detail = format!("pod hostProcess value must be identical if both are specified, was {pod}");
            errors.push(FieldError::invalid(at.field("hostProcess"), own, detail));
        }
    }
    if on_host == 0 {
        return;
    }
    if on_host != all {
        let detail = "If pod contains any hostProcess containers then all containers must be HostProcess containers";
        errors.push(FieldError::invalid(at, "", detail));
    }
    if spec.host_network != Some(true) {
        let detail = "hostNetwork must be true if pod contains any hostProcess containers";
        errors.push(FieldError::invalid(at.field("hostNetwork"), false, detail));
    }
}

/// The security context of every container, with the name of the list and the index in it.
fn contexts(spec: &PodSpec) -> impl Iterator<Item = (&'static str, usize, Option<&SecurityContext>)> {
    let inits = spec.init_containers.iter().flatten().enumerate();
    let mains = spec.containers.iter().enumerate();
    let others = spec.ephemeral_containers.iter().flatten().enumerate();
    inits
        .map(|(i, c)| ("initContainers", i, c.security_context.as_ref()))
        .chain(mains.map(|(i, c)| ("containers", i, c.security_context.as_ref())))
        .chain(others.map(|(i, c)| ("ephemeralContainers", i, c.security_context.as_ref())))
}

/// `validateOS`, `validateLinux`, `validateWindows`.
pub(super) fn operating_system(spec: &PodSpec, at: &Path<'_>, errors: &mut Vec<FieldError>) {
    let Some(os) = &spec.os else { return };
    match os.name.as_str() {
        "" => errors.push(FieldError::required(at.field("os").field("name"), "cannot be empty")),
        "linux" => {
            let pod = spec.security_context.as_ref().is_some_and(|c| c.windows_options.is_some());
            let of_containers = |c: Option<&SecurityContext>| c.is_some_and(|c| c.windows_options.is_some());
            let set = vec![("windowsOptions", pod)];
            barred(set, "windows options cannot be set for a linux pod", &at.field("securityContext"), errors);
            for (field, i, context) in contexts(spec) {
                let at = at.field(field);
                let at = at.index(i);
                let set = vec![("windowsOptions", of_containers(context))];
                barred(set, "windows options cannot be set for a linux pod", &at.field("securityContext"), errors);
            }
        }
        "windows" => windows(spec, at, errors),
        other => errors.push(FieldError::not_supported(at.field("os"), other, &["linux", "windows"])),
    }
}

fn barred(set: Vec<(&str, bool)>, detail: &str, at: &Path<'_>, errors: &mut Vec<FieldError>) {
    for (field, _) in set.into_iter().filter(|(_, set)| *set) {
        errors.push(FieldError::forbidden(at.field(field), detail));
    }
}

fn windows(spec: &PodSpec, at: &Path<'_>, errors: &mut Vec<FieldError>) {
    const DETAIL: &str = "cannot be set for a windows pod";
    let none = PodSecurityContext::default();
    let c = spec.security_context.as_ref().unwrap_or(&none);
    let own = vec![
        ("appArmorProfile", c.app_armor_profile.is_some()),
        ("seLinuxOptions", c.se_linux_options.is_some()),
        ("seccompProfile", c.seccomp_profile.is_some()),
        ("fsGroup", c.fs_group.is_some()),
        ("fsGroupChangePolicy", c.fs_group_change_policy.is_some()),
        ("sysctls", c.sysctls.as_ref().is_some_and(|s| !s.is_empty())),
        ("runAsUser", c.run_as_user.is_some()),
        ("runAsGroup", c.run_as_group.is_some()),
        ("supplementalGroups", c.supplemental_groups.is_some()),
        ("supplementalGroupsPolicy", c.supplemental_groups_policy.is_some()),
        ("seLinuxChangePolicy", c.se_linux_change_policy.is_some()),
    ];
    barred(own, DETAIL, &at.field("securityContext"), errors);
    let of_spec = vec![
        ("hostUsers", spec.host_users.is_some()),
        ("hostPID", spec.host_pid == Some(true)),
        ("hostIPC", spec.host_ipc == Some(true)),
        ("shareProcessNamespace", spec.share_process_namespace.is_some()),
    ];
    barred(of_spec, DETAIL, at, errors);
    for (field, i, context) in contexts(spec) {
        let Some(c) = context else { continue };
        let at = at.field(field);
        let at = at.index(i);
        let set = vec![
            ("appArmorProfile", c.app_armor_profile.is_some()),
            ("seLinuxOptions", c.se_linux_options.is_some()),
            ("seccompProfile", c.seccomp_profile.is_some()),
            ("capabilities", c.capabilities.is_some()),
            ("readOnlyRootFilesystem", c.read_only_root_filesystem.is_some()),
            ("privileged", c.privileged.is_some()),
            ("allowPrivilegeEscalation", c.allow_privilege_escalation.is_some()),
            ("procMount", c.proc_mount.is_some()),
            ("runAsUser", c.run_as_user.is_some()),
            ("runAsGroup", c.run_as_group.is_some()),
        ];
        barred(set, DETAIL, &at.field("securityContext"), errors);
    }
}
