//! Which dependents an owner manages: adopts matching orphans and releases dependents that no longer match.
//!
//! As in `controller_ref_manager.go`. Before an adoption, the stored owner is checked with an empty patch at the
//! revision that the view shows. An owner that has been deleted in the meantime must not adopt, because the garbage
//! collector would then delete the orphan too.

use serde_json::{Value, json};

use super::Write;
use crate::api::{Patch, Subresource};
use crate::client::{Change, Views};
use crate::object::{Kind, Meta, Obj, Object, ObjectKey, OwnerReference, Resource, Revision, Selector, controller_of};

/// The owners of a kind that a change of a dependant concerns: those that control it or did, and, where nobody controls
/// it now, those that may adopt it (`adopts`, asked of each owner in the namespace).
pub(super) fn concerned(
    owner: Kind,
    change: &Change,
    views: &Views,
    adopts: impl Fn(&Object, &Object) -> bool,
    keys: &mut Vec<ObjectKey>,
) {
    let kind_name = &*owner.row().kind;
    for object in change.old.iter().chain(change.new.iter()) {
        let Some(reference) = controller_of(object.meta()).filter(|r| r.kind == kind_name) else { continue };
        let (namespace, name) = (object.namespace(), &reference.name);
        if !keys.iter().any(|key| key.is(owner, namespace, name)) {
            let known = views.view(owner).key(namespace, name).cloned();
            keys.push(known.unwrap_or_else(|| ObjectKey::new(owner, namespace, name)));
        }
    }
    let orphan = change.new.as_ref().filter(|o| controller_of(o.meta()).is_none() && !o.is_deleting());
    if let Some(orphan) = orphan.filter(|o| o.labels().is_some_and(|l| !l.is_empty())) {
        for object in views.view(owner).namespace(orphan.namespace()) {
            if adopts(object, orphan) && !keys.contains(object.key_ref()) {
                keys.push(object.key());
            }
        }
    }
}

/// The owner reference of the managing owner (`metav1.NewControllerRef`).
pub(super) fn controller_ref(owner: &Object) -> OwnerReference {
    let info = owner.info();
    OwnerReference {
        api_version: info.api_version(),
        kind: info.kind.to_string(),
        name: owner.name().to_owned(),
        uid: owner.uid().to_owned(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}

/// A dependent that may be adopted or released.
#[derive(Clone, Copy, Debug)]
pub(super) struct Candidate<'a> {
    key: &'a ObjectKey,
    meta: &'a Meta,
    rv: Revision,
}

impl<'a, C: Resource> From<&'a Obj<C>> for Candidate<'a> {
    fn from(object: &'a Obj<C>) -> Candidate<'a> {
        Candidate { key: object.meta.key(C::KIND), meta: &object.meta, rv: object.rv }
    }
}

impl<'a> From<&'a Object> for Candidate<'a> {
    fn from(object: &'a Object) -> Candidate<'a> {
        Candidate { key: object.key_ref(), meta: object.meta(), rv: object.rv() }
    }
}

/// The adoptions and releases after which the owner manages exactly the matching candidates. The candidates are orphans
/// and the dependents that it already manages.
pub(super) fn claim<'a>(
    owner: &Object,
    selector: &Selector,
    candidates: impl Iterator<Item = Candidate<'a>>,
) -> Vec<Write> {
    let mut writes = Vec::new();
    let mut adopts = false;
    for candidate in candidates.filter(|_| !owner.is_deleting()) {
        let matches = selector.matches(candidate.meta.labels.as_ref());
        match controller_of(candidate.meta) {
            Some(other) if other.uid == owner.uid() && !matches => writes.push(set_owners(owner, candidate, false)),
            None if matches && candidate.meta.deletion_timestamp.is_none() => {
                if !adopts {
                    writes.push(look(owner));
                }
                adopts = true;
                writes.push(set_owners(owner, candidate, true));
            }
            Some(_) | None => {}
        }
    }
    writes
}

/// A patch that changes nothing and fails if the stored owner differs from the view.
fn look(owner: &Object) -> Write {
    Write::Patch {
        key: owner.key(),
        uid: owner.uid().into(),
        rv: Some(owner.rv()),
        patch: Patch::Merge(json!({})),
        subresource: Subresource::None,
    }
}

/// Removes the candidate's reference to this owner, keeps those to other owners, and adds one to this owner if `adopt`
/// is true.
fn set_owners(owner: &Object, candidate: Candidate<'_>, adopt: bool) -> Write {
    let mut references = candidate.meta.owner_references.clone().unwrap_or_default();
    references.retain(|r| r.uid != owner.uid());
    references.extend(adopt.then(|| controller_ref(owner)));
    let references = if references.is_empty() { Value::Null } else { json!(references) };
    Write::Patch {
        key: candidate.key.clone(),
        uid: candidate.meta.uid.as_deref().unwrap_or("").into(),
        rv: Some(candidate.rv),
        patch: Patch::Merge(json!({"metadata": {"ownerReferences": references}})),
        subresource: Subresource::None,
    }
}
