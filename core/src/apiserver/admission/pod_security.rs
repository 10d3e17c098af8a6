//! PodSecurity: a namespace with the corresponding labels accepts only pods that comply with a Pod Security Standard.
//!
//! Source: `k8s.io/pod-security-admission` and <https://kubernetes.io/docs/concepts/security/pod-security-standards/>.
//! The labels for warnings and audit annotations are validated but have no effect: this API does not have either yet.

mod baseline;
mod restricted;
#[cfg(test)]
mod tests;

use std::fmt;

use k8s_openapi::api::core::v1::{Container, PodSpec};

use crate::api::Status;
use crate::apiserver::write::{Deciding, Decision, Write};
use crate::object::{
    FieldError, Kind, Labels, Namespace, Object, ObjectKey, ObjectMeta, Pod, all_containers, as_container,
};
use crate::store::StoreKey;

const PREFIX: &str = "pod-security.kubernetes.io/";

/// The levels of the standards, the least strict first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Level {
    Privileged,
    Baseline,
    Restricted,
}

/// A standard as of a minor version of Kubernetes; `None` means the latest.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Standard {
    level: Level,
    minor: Option<u32>,
}

impl fmt::Display for Standard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let level = match self.level {
            Level::Privileged => "privileged",
            Level::Baseline => "baseline",
            Level::Restricted => "restricted",
        };
        match self.minor {
            Some(minor) => write!(f, "{level}:v1.{minor}"),
            None => write!(f, "{level}:latest"),
        }
    }
}

fn level(text: &str) -> Option<Level> {
    match text {
        "privileged" => Some(Level::Privileged),
        "baseline" => Some(Level::Baseline),
        "restricted" => Some(Level::Restricted),
        _ => None,
    }
}

/// Parses `latest` or `v1.` followed by a number without leading zeros.
fn version(text: &str) -> Option<Option<u32>> {
    if text == "latest" {
        return Some(None);
    }
    let minor = text.strip_prefix("v1.")?;
    let plain = minor == "0" || !minor.starts_with(['0', '+']);
    minor.parse().ok().filter(|_| plain).map(Some)
}

/// The standard that a namespace enforces.
fn enforced(labels: Option<&Labels>) -> Standard {
    let label = |name: &str| labels.and_then(|l| l.get(&format!("{PREFIX}{name}")));
    // An invalid level counts as the strictest.
    let level = label("enforce").map_or(Level::Privileged, |l| level(l).unwrap_or(Level::Restricted));
    let minor = label("enforce-version").and_then(|v| version(v)).unwrap_or(None);
    Standard { level, minor }
}

/// The errors in a namespace's labels.
fn wrong_labels(labels: Option<&Labels>) -> Vec<FieldError> {
    let mut errors = Vec::new();
    for mode in ["enforce", "audit", "warn"] {
        for (suffix, good, detail) in [
            ("", (|v| level(v).is_some()) as fn(&str) -> bool, "must be one of privileged, baseline, restricted"),
            ("-version", |v| version(v).is_some(), "must be \"latest\" or \"v1.x\""),
        ] {
            let label = format!("{PREFIX}{mode}{suffix}");
            if let Some(value) = labels.and_then(|l| l.get(&label)).filter(|v| !good(v)) {
                errors.push(FieldError::invalid(format!("metadata.labels[{label}]"), value, detail));
            }
        }
    }
    errors
}

impl Deciding<'_> {
    /// Rejects a pod that does not comply with its namespace's standard, and a namespace whose labels name none.
    pub(super) fn pod_security(&mut self, write: &Write, new: &Object, old: Option<&Object>) -> Result<(), Decision> {
        let pod = match (new, old) {
            (Object::Pod(pod), None) => pod,
            (Object::Pod(pod), Some(Object::Pod(old))) if is_significant(pod, old) => pod,
            (Object::Namespace(namespace), old) => return check_labels(namespace, old).map_err(Decision::refuse),
            _ => return Ok(()),
        };
        let key = ObjectKey::new(Kind::NAMESPACE, "", pod.namespace());
        let Some(Object::Namespace(namespace)) = self.known(write, &key) else { return Ok(()) };
        let standard = enforced(namespace.meta.labels.as_ref());
        let Some(why) = violations(standard, &pod.meta, &pod.spec.shared) else { return Ok(()) };
        let why = format!("violates PodSecurity \"{standard}\": {why}");
        let refusal = Status::forbidden(Kind::POD.row(), pod.name(), &why);
        Err(Decision::AnswerIf(vec![StoreKey::Object(key)], Err(refusal)))
    }
}

/// Labels that name no standard are refused where they are new.
fn check_labels(namespace: &Namespace, old: Option<&Object>) -> Result<(), Status> {
    let wrong = wrong_labels(namespace.meta.labels.as_ref());
    let before = match old {
        Some(Object::Namespace(old)) => wrong_labels(old.meta.labels.as_ref()),
        _ => Vec::new(),
    };
    if wrong.is_empty() || wrong == before {
        return Ok(());
    }
    Err(Status::invalid(Kind::NAMESPACE.row(), namespace.meta.name.as_deref().unwrap_or(""), &wrong))
}

/// Whether a change of a pod must be checked against the standard (`isSignificantPodUpdate`).
fn is_significant(new: &Pod, old: &Pod) -> bool {
    let images = |p: &Pod| all_containers(&p.spec).map(|c| c.image.clone()).collect::<Vec<_>>();
    !std::rc::Rc::ptr_eq(&new.spec, &old.spec) && images(new) != images(old)
}

/// A violated rule: its name and the details.
struct Violation {
    reason: String,
    detail: String,
}

fn violation(reason: &str, detail: String) -> Option<Violation> {
    Some(Violation { reason: reason.to_owned(), detail })
}

type Rule = fn(&ObjectMeta, &PodSpec) -> Option<Violation>;

/// A check of a standard: its revisions, each with the minor version since which it applies, and the baseline check
/// that it replaces.
struct Check {
    id: &'static str,
    revisions: &'static [(u32, Rule)],
    overrides: Option<&'static str>,
}

/// The newest minor version in which any check was revised.
const NEWEST: u32 = 35;

/// How a pod violates a standard, in Kubernetes' words; `None` if it complies.
fn violations(standard: Standard, meta: &ObjectMeta, spec: &PodSpec) -> Option<String> {
    // Every check looks at ephemeral containers too, after all others.
    let with_ephemeral;
    let spec = match spec.ephemeral_containers.as_deref().unwrap_or_default() {
        [] => spec,
        ephemeral => {
            let containers = spec.containers.iter().cloned().chain(ephemeral.iter().map(as_container)).collect();
            with_ephemeral = PodSpec { containers, ..spec.clone() };
            &with_ephemeral
        }
    };
    let minor = standard.minor.unwrap_or(NEWEST).min(NEWEST);
    let restricted = match standard.level {
        Level::Privileged => return None,
        Level::Baseline => &[][..],
        Level::Restricted => restricted::CHECKS,
    };
    let current = |c: &Check| c.revisions.iter().rfind(|(since, _)| *since <= minor).map(|(_, rule)| *rule);
    let stands_in = |id: &str| restricted.iter().any(|c| c.overrides == Some(id) && current(c).is_some());
    let baseline = baseline::CHECKS.iter().filter(|c| !stands_in(c.id));
    let broken = baseline.chain(restricted).filter_map(current).filter_map(|rule| rule(meta, spec));
    let words: Vec<String> = broken.map(|v| format!("{} ({})", v.reason, v.detail)).collect();
    (!words.is_empty()).then(|| words.join(", "))
}

/// Init containers first, in upstream's order.
fn containers(spec: &PodSpec) -> impl Iterator<Item = &Container> {
    spec.init_containers.iter().flatten().chain(&spec.containers)
}

fn names(spec: &PodSpec, bad: impl Fn(&Container) -> bool) -> Vec<&str> {
    containers(spec).filter(|c| bad(c)).map(|c| c.name.as_str()).collect()
}

fn quoted<S: AsRef<str>>(items: &[S]) -> String {
    items.iter().map(|i| format!("\"{}\"", i.as_ref())).collect::<Vec<_>>().join(", ")
}

fn plural<'a>(one: &'a str, many: &'a str, count: usize) -> &'a str {
    if count == 1 { one } else { many }
}

/// `container "a"` or `containers "a", "b"`.
fn named(bad: &[&str]) -> String {
    format!("{} {}", plural("container", "containers", bad.len()), quoted(bad))
}

/// What sets a bad value: the pod, containers, or both; `None` if neither.
fn setters(pod: bool, bad: &[&str]) -> Option<String> {
    let of_pod = pod.then(|| "pod".to_owned());
    let all: Vec<String> = of_pod.into_iter().chain((!bad.is_empty()).then(|| named(bad))).collect();
    (!all.is_empty()).then(|| all.join(" and "))
}

/// Whether a pod uses a user namespace; such a pod is exempt from the rules about root (KEP-127).
fn has_own_users(spec: &PodSpec) -> bool {
    spec.host_users == Some(false)
}

fn is_windows(spec: &PodSpec) -> bool {
    spec.os.as_ref().is_some_and(|os| os.name == "windows")
}
