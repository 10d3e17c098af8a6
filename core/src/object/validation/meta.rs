//! Validation of metadata, on creation and on update, and of selectors.
//!
//! Source: `apimachinery/pkg/api/validation/objectmeta.go`, `apis/meta/v1/validation`.

use std::collections::BTreeSet;

use super::path::{Go, Path};
use super::{names, push_all};
use crate::object::{FieldError, LabelSelector, Labels, Object, ObjectMeta};

/// The maximum size of all annotations together, in bytes.
const ANNOTATIONS_LIMIT: usize = 256 * 1024;
/// What is wrong with a changed value of a field that stays as it is.
pub(in crate::object) const IMMUTABLE: &str = "field is immutable";

/// `ValidateObjectMeta`.
pub(super) fn create(object: &Object, errors: &mut Vec<FieldError>) {
    let meta = object.meta();
    let at = &Path::Root("metadata");
    let rule = object.name_rule();
    let name = meta.name.as_deref().unwrap_or("");
    if let Some(prefix) = meta.generate_name.as_deref().filter(|p| !p.is_empty()) {
        // A trailing dash is allowed, since the generated suffix follows it.
        let masked = match prefix.strip_suffix('-') {
            Some(head) if !head.is_empty() => format!("{head}a"),
            _ => prefix.to_owned(),
        };
        push_all(errors, &at.field("generateName"), prefix, rule(&masked));
    }
    if name.is_empty() {
        errors.push(FieldError::required(at.field("name"), "name or generateName is required"));
    } else {
        push_all(errors, &at.field("name"), name, rule(name));
    }
    if let Some(most) = object.longest_name().filter(|most| name.len() > *most) {
        errors.push(FieldError::invalid(at.field("name"), name, format!("must be no more than {most} characters")));
    }
    let namespace = meta.namespace.as_deref().unwrap_or("");
    match (object.info().namespaced, namespace.is_empty()) {
        (true, true) => errors.push(FieldError::required(at.field("namespace"), "")),
        (true, false) => push_all(errors, &at.field("namespace"), namespace, names::label(namespace)),
        (false, false) => errors.push(FieldError::forbidden(at.field("namespace"), "not allowed on this type")),
        (false, true) => {}
    }
    common(object, at, errors);
}

/// The rules of metadata that hold on every write.
fn common(object: &Object, at: &Path<'_>, errors: &mut Vec<FieldError>) {
    let meta = object.meta();
    if let Some(generation) = meta.generation.filter(|g| *g < 0) {
        errors.push(FieldError::invalid(at.field("generation"), generation, names::NOT_NEGATIVE));
    }
    labels(meta.labels.as_ref(), &at.field("labels"), errors);
    annotations(meta.annotations.as_ref(), &at.field("annotations"), errors);
    owners(meta, &at.field("ownerReferences"), errors);
    finalizers(meta, &at.field("finalizers"), errors);
    if names_finalizers_in_full(object) {
        kube_finalizers(meta, &at.field("finalizers"), errors);
    }
}

/// Validates a pod template's metadata: labels and annotations.
pub(super) fn template(meta: Option<&ObjectMeta>, at: &Path<'_>, errors: &mut Vec<FieldError>) {
    let Some(meta) = meta else { return };
    labels(meta.labels.as_ref(), &at.field("labels"), errors);
    annotations(meta.annotations.as_ref(), &at.field("annotations"), errors);
}

/// `ValidateTemplateObjectMeta`: in the template of a volume claim, only labels and annotations may be set.
pub(super) fn claim_template(meta: Option<&ObjectMeta>, at: &Path<'_>, errors: &mut Vec<FieldError>) {
    let Some(meta) = meta else { return };
    annotations(meta.annotations.as_ref(), &at.field("annotations"), errors);
    labels(meta.labels.as_ref(), &at.field("labels"), errors);
    for (field, set) in [
        ("name", meta.name.is_some()),
        ("generateName", meta.generate_name.is_some()),
        ("namespace", meta.namespace.is_some()),
        ("uID", meta.uid.is_some()),
        ("resourceVersion", meta.resource_version.is_some()),
        ("ownerReferences", meta.owner_references.is_some()),
        ("finalizers", meta.finalizers.is_some()),
    ] {
        if set {
            errors.push(FieldError::forbidden(at.field(field), "cannot be set"));
        }
    }
}

/// `ValidateLabels`.
pub(in crate::object) fn labels(labels: Option<&Labels>, at: &Path<'_>, errors: &mut Vec<FieldError>) {
    for (key, value) in labels.into_iter().flatten() {
        push_all(errors, at, key, names::qualified(key));
        push_all(errors, at, value, names::label_value(value));
    }
}

pub(super) fn annotations(annotations: Option<&Labels>, at: &Path<'_>, errors: &mut Vec<FieldError>) {
    let mut size = 0;
    for (key, value) in annotations.into_iter().flatten() {
        size += key.len() + value.len();
        let wrongs = if key.bytes().any(|b| b.is_ascii_uppercase()) {
            names::qualified(&key.to_lowercase())
        } else {
            names::qualified(key)
        };
        push_all(errors, at, key, wrongs);
    }
    if size > ANNOTATIONS_LIMIT {
        errors.push(FieldError::too_long(at, ANNOTATIONS_LIMIT));
    }
}

fn owners(meta: &ObjectMeta, at: &Path<'_>, errors: &mut Vec<FieldError>) {
    let mut controller: Option<&str> = None;
    for owner in meta.owner_references.iter().flatten() {
        let version_bad = owner.api_version.is_empty() || owner.api_version.ends_with('/');
        for (field, value, bad, detail) in [
            ("apiVersion", &owner.api_version, version_bad, "version must not be empty"),
            ("kind", &owner.kind, owner.kind.is_empty(), "kind must not be empty"),
            ("name", &owner.name, owner.name.is_empty(), "name must not be empty"),
            ("uid", &owner.uid, owner.uid.is_empty(), "uid must not be empty"),
        ] {
            if bad {
                errors.push(FieldError::invalid(at.field(field), value, detail));
            }
        }
        if owner.kind == "Event" && matches!(owner.api_version.as_str(), "v1" | "events.k8s.io/v1") {
            let shown = Go(format!("{}, Kind=Event", owner.api_version));
            errors.push(FieldError::invalid(at, shown, "is disallowed from being an owner"));
        }
        if owner.controller == Some(true) {
            if let Some(first) = controller {
                errors.push(FieldError::invalid(
                    at,
                    Go(format!("{:?}", [first, &owner.name])),
                    format!(
                        "Only one reference can have Controller set to true. Found \"true\" in references for {first} \
                         and {}",
                        owner.name
                    ),
                ));
            }
            controller.get_or_insert(&owner.name);
        }
    }
}

fn finalizers(meta: &ObjectMeta, at: &Path<'_>, errors: &mut Vec<FieldError>) {
    let list = meta.finalizers.as_deref().unwrap_or_default();
    for name in list {
        push_all(errors, at, name, names::qualified(name));
    }
    let has = |name: &str| list.iter().any(|f| f == name);
    if has("orphan") && has("foregroundDeletion") {
        let detail = "finalizer orphan and foregroundDeletion cannot be both set";
        errors.push(FieldError::invalid(at, Go::strings(list), detail));
    }
}

/// Whether a kind's finalizers need a path: those of custom resources and of the groups of API extension do not.
fn names_finalizers_in_full(object: &Object) -> bool {
    const LENIENT: [&str; 3] = ["apiextensions.k8s.io", "apiregistration.k8s.io", "admissionregistration.k8s.io"];
    object.kind().built_in().is_some() && !LENIENT.contains(&&*object.info().group)
}

/// `validateKubeFinalizerName`.
fn kube_finalizers(meta: &ObjectMeta, at: &Path<'_>, errors: &mut Vec<FieldError>) {
    for (i, name) in meta.finalizers.iter().flatten().enumerate() {
        if !name.contains('/') && !matches!(name.as_str(), "kubernetes" | "orphan" | "foregroundDeletion") {
            let detail = "name is neither a standard finalizer name nor is it fully qualified";
            errors.push(FieldError::invalid(at.index(i), name, detail));
        }
    }
}

/// What is said of the finalizers that a write adds to a custom resource (`generateWarningsFromObj`).
pub(crate) fn finalizer_warnings(new: &Object, old: Option<&Object>) -> Vec<String> {
    let had: BTreeSet<&String> = old.iter().flat_map(|old| old.meta().finalizers.iter().flatten()).collect();
    let added: BTreeSet<&String> = new.meta().finalizers.iter().flatten().filter(|f| !had.contains(f)).collect();
    let plain =
        added.into_iter().filter(|f| !f.contains('/') && !matches!(f.as_str(), "orphan" | "foregroundDeletion"));
    let warning = |name: &String| {
        format!(
            "metadata.finalizers: {name:?}: prefer a domain-qualified finalizer name including a path (/) to avoid \
             accidental conflicts with other finalizer writers"
        )
    };
    plain.map(warning).collect()
}

/// `ValidateObjectMetaUpdate`. Shared metadata is unchanged, and is not checked again.
#[inline]
pub(super) fn update(new: &Object, old: &Object, errors: &mut Vec<FieldError>) {
    let (n, o) = (new.meta(), old.meta());
    if std::rc::Rc::ptr_eq(n, o) {
        return;
    }
    let at = &Path::Root("metadata");
    // A field that the client left out of the update keeps its stored value.
    let mut same = |field, new: Option<&str>, old: Option<&str>| {
        if new.is_some_and(|n| !n.is_empty()) && new.unwrap_or("") != old.unwrap_or("") {
            errors.push(FieldError::invalid(at.field(field), new.unwrap_or(""), IMMUTABLE));
        }
    };
    same("name", n.name.as_deref(), o.name.as_deref());
    same("namespace", n.namespace.as_deref(), o.namespace.as_deref());
    same("uid", n.uid.as_deref(), o.uid.as_deref());
    let text = |t: &Option<crate::object::Time>| t.as_ref().map(|t| t.0.to_string());
    if n.creation_timestamp.is_some() && n.creation_timestamp != o.creation_timestamp {
        let shown = text(&n.creation_timestamp);
        errors.push(FieldError::invalid(at.field("creationTimestamp"), shown.unwrap_or_default(), IMMUTABLE));
    }
    if n.deletion_timestamp.is_some() && n.deletion_timestamp != o.deletion_timestamp {
        let shown = text(&n.deletion_timestamp);
        errors.push(FieldError::invalid(at.field("deletionTimestamp"), shown.unwrap_or_default(), IMMUTABLE));
    }
    let grace = |m: &ObjectMeta| m.deletion_grace_period_seconds;
    if let Some(seconds) = grace(n).filter(|_| grace(n) != grace(o)) {
        errors.push(FieldError::invalid(at.field("deletionGracePeriodSeconds"), seconds, IMMUTABLE));
    }
    if let Some(generation) = n.generation.filter(|g| *g < o.generation.unwrap_or(0)) {
        errors.push(FieldError::invalid(at.field("generation"), generation, "must not be decremented"));
    }
    if o.deletion_timestamp.is_some() {
        let known = |f: &String| o.finalizers.iter().flatten().any(|k| k == f);
        let added: Vec<String> = n.finalizers.iter().flatten().filter(|f| !known(f)).cloned().collect();
        if !added.is_empty() {
            errors.push(FieldError::forbidden(
                at.field("finalizers"),
                format!(
                    "no new finalizers can be added if the object is being deleted, found new finalizers {:?}",
                    Go::strings(&added)
                ),
            ));
        }
    }
    common(new, at, errors);
}

/// `ValidateLabelSelector`.
pub(in crate::object) fn selector(s: &LabelSelector, at: &Path<'_>, errors: &mut Vec<FieldError>) {
    labels(s.match_labels.as_ref(), &at.field("matchLabels"), errors);
    let at = at.field("matchExpressions");
    for (i, e) in s.match_expressions.iter().flatten().enumerate() {
        let at = at.index(i);
        let values = e.values.as_deref().unwrap_or_default();
        match e.operator.as_str() {
            "In" | "NotIn" if values.is_empty() => errors
                .push(FieldError::required(at.field("values"), "must be specified when `operator` is 'In' or 'NotIn'")),
            "In" | "NotIn" => {}
            "Exists" | "DoesNotExist" if !values.is_empty() => errors.push(FieldError::forbidden(
                at.field("values"),
                "may not be specified when `operator` is 'Exists' or 'DoesNotExist'",
            )),
            "Exists" | "DoesNotExist" => {}
            other => {
                errors.push(FieldError::invalid(at.field("operator"), other, "not a valid selector operator"));
            }
        }
        push_all(errors, &at.field("key"), &e.key, names::qualified(&e.key));
        for (j, value) in values.iter().enumerate() {
            push_all(errors, &at.field("values").index(j), value, names::label_value(value));
        }
    }
}

/// Reports an error if the field has changed.
pub(in crate::object) fn immutable<T: PartialEq>(
    new: &T,
    old: &T,
    at: &Path<'_>,
    show: impl FnOnce(&T) -> Go,
    errors: &mut Vec<FieldError>,
) {
    if new != old {
        errors.push(FieldError::invalid(at, show(new), IMMUTABLE));
    }
}

/// `IsDomainPrefixedPath`.
pub(super) fn domain_prefixed(text: &str, at: &Path<'_>, errors: &mut Vec<FieldError>) {
    match text.split_once('/') {
        _ if text.is_empty() => errors.push(FieldError::required(at, "")),
        Some((host, path)) if !host.is_empty() && !path.is_empty() => {
            push_all(errors, at, host, names::subdomain(host));
            let good = |b: u8| b.is_ascii_alphanumeric() || b"/-._~%!$&'()*+,;=:".contains(&b);
            if !path.bytes().all(good) {
                let detail = "Invalid path (regex used for validation is '[A-Za-z0-9/\\-._~%!$&'()*+,;=:]+')";
                errors.push(FieldError::invalid(at, path, detail));
            }
        }
        _ => {
            let detail = "must be a domain-prefixed path (such as \"acme.io/foo\")";
            errors.push(FieldError::invalid(at, text, detail));
        }
    }
}
