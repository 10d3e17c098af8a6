//! The history of a StatefulSet's or a DaemonSet's template, kept as ControllerRevisions.
//!
//! A revision's data is a strategic merge patch that restores the template. Revisions are immutable but for their
//! number: going back to an earlier template gives its revision the highest number.
//!
//! Source: upstream's `pkg/controller/history`.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::PodTemplateSpec;
use serde_json::{Value, json};

use super::Write;
use super::claim::{Candidate, claim, controller_ref};
use super::hash::{encoded, fnv1a};
use crate::api::Subresource;
use crate::client::{Index, Views};
use crate::object::{Kind, Labels, Object, Selector};

/// Label of a StatefulSet's revision that tells the hash of its data; a DaemonSet's has [`POD_REVISION_LABEL`].
pub(super) const HASH_LABEL: &str = "controller.kubernetes.io/hash";
/// Label of a pod that tells the revision that it was made from.
pub(super) const POD_REVISION_LABEL: &str = "controller-revision-hash";

/// The revisions of an owner, oldest number first; of equal numbers, the one created first.
#[derive(Debug)]
pub(super) struct History<'a> {
    owner: &'a Object,
    pub revisions: Vec<&'a Object>,
}

/// What must be written before an owner's template has a revision.
#[derive(Debug)]
pub(super) enum Recorded<'a> {
    /// The template has this revision, the newest.
    Is(&'a Object),
    /// This makes it so.
    After(Box<Write>),
    /// Another object has the name; the owner's collision count must grow.
    Collides,
}

/// `revision` of a ControllerRevision; zero if it tells none.
pub(super) fn number(revision: &Object) -> i64 {
    field(revision, "revision").and_then(Value::as_i64).unwrap_or(0)
}

/// The hash of a revision's data, as its label tells it.
pub(super) fn hash<'a>(revision: &'a Object, hash_label: &str) -> &'a str {
    revision.labels().and_then(|l| l.get(hash_label)).map_or("", String::as_str)
}

fn field<'a>(revision: &'a Object, name: &str) -> Option<&'a Value> {
    match revision {
        Object::Dynamic(d) => d.body.get(name),
        _ => None,
    }
}

/// The pod template that a revision restores; `None` if its data tells none.
pub(super) fn template(revision: &Object) -> Option<PodTemplateSpec> {
    let mut template = field(revision, "data")?.pointer("/spec/template")?.clone();
    template.as_object_mut()?.remove("$patch");
    serde_json::from_value(template).ok()
}

/// The data of a revision that restores this template.
fn data(template: &PodTemplateSpec) -> Value {
    let mut template = serde_json::to_value(template).expect("a pod template serialises");
    template["$patch"] = json!("replace");
    json!({"spec": {"template": template}})
}

impl<'a> History<'a> {
    /// The revisions that `owner` controls.
    pub(super) fn of(views: &'a Views, owner: &'a Object) -> History<'a> {
        let view = views.view(Kind::CONTROLLER_REVISION);
        let mut revisions: Vec<&Object> = view.indexed(Index::Controller, owner.uid()).collect();
        let age = |r: &&'a Object| (number(r), r.meta().creation_timestamp.clone(), r.name());
        revisions.sort_by(|a, b| age(a).cmp(&age(b)));
        History { owner, revisions }
    }

    /// Adoptions of revisions that match and that nobody controls, and releases of those that match no longer.
    pub(super) fn claims(&self, views: &Views, selector: &Selector) -> Vec<Write> {
        let view = views.view(Kind::CONTROLLER_REVISION);
        let orphans = view.indexed(Index::Controller, &format!("namespace/{}", self.owner.namespace()));
        claim(self.owner, selector, self.revisions.iter().copied().chain(orphans).map(Candidate::from))
    }

    /// The revision by name.
    pub(super) fn named(&self, name: &str) -> Option<&'a Object> {
        self.revisions.iter().copied().find(|r| r.name() == name)
    }

    /// The revision of a template, or what makes it the newest.
    pub(super) fn record(
        &self,
        views: &'a Views,
        template: &PodTemplateSpec,
        hash_label: &str,
        labels: &Labels,
        collisions: i32,
    ) -> Recorded<'a> {
        let data = data(template);
        let next = self.revisions.last().map_or(1, |r| number(r) + 1);
        let equal = self.revisions.iter().rev().copied().find(|r| field(r, "data") == Some(&data));
        match equal {
            Some(known) if self.revisions.last().is_some_and(|last| last.name() == known.name()) => Recorded::Is(known),
            Some(known) => {
                let mut value = known.to_json();
                value["revision"] = json!(next);
                let copy = Object::from_json(value).expect("a revision of another number reads");
                Recorded::After(Box::new(Write::Update(copy, Subresource::None)))
            }
            None => {
                let revision = self.revision(data, hash_label, labels, next, collisions);
                let taken = views.view(Kind::CONTROLLER_REVISION).get(revision.key_ref()).is_some();
                if taken { Recorded::Collides } else { Recorded::After(Box::new(Write::Create(revision))) }
            }
        }
    }

    fn revision(&self, data: Value, hash_label: &str, labels: &Labels, number: i64, collisions: i32) -> Object {
        let hash = encoded(fnv1a(&serde_json::to_vec(&data).expect("JSON serialises"), collisions));
        let mut labels: BTreeMap<String, String> = labels.clone();
        labels.insert(hash_label.to_owned(), hash.clone());
        let (info, owner) = (Kind::CONTROLLER_REVISION.row(), self.owner);
        // A name is at most 253 letters long, with room for a dash and the hash (`ControllerRevisionName`).
        let prefix: String = owner.name().chars().take(223).collect();
        let value = json!({
            "apiVersion": info.api_version(), "kind": info.kind,
            "metadata": {
                "name": format!("{prefix}-{hash}"), "namespace": owner.namespace(), "labels": labels,
                "annotations": owner.meta().annotations, "ownerReferences": [controller_ref(owner)],
            },
            "data": data, "revision": number,
        });
        Object::from_json(value).expect("a revision reads")
    }

    /// Deletions of the oldest revisions beyond the limit that nothing uses.
    pub(super) fn truncate(&self, limit: i32, is_live: impl Fn(&str) -> bool) -> Vec<Write> {
        let idle: Vec<&Object> = self.revisions.iter().copied().filter(|r| !is_live(r.name())).collect();
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let surplus = idle.len().saturating_sub(limit);
        idle[..surplus].iter().map(|r| delete(r)).collect()
    }
}

fn delete(object: &Object) -> Write {
    Write::Delete { key: object.key(), uid: object.uid().into(), rv: None, grace_seconds: None, propagation: None }
}
