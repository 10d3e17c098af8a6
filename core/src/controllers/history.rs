//! The revision history of the pod template of a StatefulSet or DaemonSet, stored as ControllerRevisions.
//!
//! The data of a revision is a strategic merge patch that restores the template. Only a revision's number ever changes:
//! when the owner goes back to an earlier template, that template's revision gets the highest number.
//!
//! Source: upstream's `pkg/controller/history`.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1 as apps_v1;
use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::runtime::RawExtension;
use serde_json::{Value, json};

use super::Write;
use super::claim::{Candidate, claim, controller_ref};
use super::hash::{encoded, fnv1a};
use crate::api::Subresource;
use crate::client::Views;
use crate::object::{ControllerRevision, Labels, Object, ObjectMeta, Selector};

/// The label of a StatefulSet's revision that contains the hash of its data; a DaemonSet's revisions use
/// [`POD_REVISION_LABEL`].
pub(super) const HASH_LABEL: &str = "controller.kubernetes.io/hash";
/// The label of a pod that names the revision from which it was created.
pub(super) const POD_REVISION_LABEL: &str = "controller-revision-hash";

/// The revisions of an owner, sorted by number and then by creation time.
#[derive(Debug)]
pub(super) struct History<'a> {
    owner: &'a Object,
    pub revisions: Vec<&'a ControllerRevision>,
}

/// The revision of an owner's current template, or what is missing for it.
#[derive(Debug)]
pub(super) enum Recorded<'a> {
    /// The template has this revision, and it is the newest one.
    Is(&'a ControllerRevision),
    /// This write must be carried out first: it creates the revision or renumbers it.
    After(Box<Write>),
    /// Another object has the revision's name; the owner's `collisionCount` must be increased.
    Collides,
}

/// The hash of a revision's data, from its label; empty if there is no label.
pub(super) fn hash<'a>(revision: &'a ControllerRevision, hash_label: &str) -> &'a str {
    revision.meta.labels.as_ref().and_then(|l| l.get(hash_label)).map_or("", String::as_str)
}

fn data_of(revision: &ControllerRevision) -> Option<&Value> {
    revision.spec.data.as_ref().map(|data| &data.0)
}

/// The pod template that a revision restores; `None` if its data does not contain one.
pub(super) fn template(revision: &ControllerRevision) -> Option<PodTemplateSpec> {
    let mut template = data_of(revision)?.pointer("/spec/template")?.clone();
    template.as_object_mut()?.remove("$patch");
    serde_json::from_value(template).ok()
}

/// The data of the revision for a template.
fn data(template: &PodTemplateSpec) -> Value {
    let mut template = serde_json::to_value(template).expect("a pod template serialises");
    template["$patch"] = json!("replace");
    json!({"spec": {"template": template}})
}

impl<'a> History<'a> {
    /// The revisions that `owner` controls.
    pub(super) fn of(views: &'a Views, owner: &'a Object) -> History<'a> {
        let mut revisions: Vec<&ControllerRevision> =
            views.controlled_by::<apps_v1::ControllerRevision>(owner.uid()).collect();
        let age = |r: &&'a ControllerRevision| (r.spec.revision, r.meta.creation_timestamp.clone(), r.name());
        revisions.sort_by(|a, b| age(a).cmp(&age(b)));
        History { owner, revisions }
    }

    /// Adopts revisions that match the selector and have no controller, and releases those that no longer match.
    pub(super) fn claims(&self, views: &Views, selector: &Selector) -> Vec<Write> {
        let orphans = views.orphans::<apps_v1::ControllerRevision>(self.owner.namespace());
        claim(self.owner, selector, self.revisions.iter().copied().chain(orphans).map(Candidate::from))
    }

    /// The revision with this name.
    pub(super) fn named(&self, name: &str) -> Option<&'a ControllerRevision> {
        self.revisions.iter().copied().find(|r| r.name() == name)
    }

    /// The revision of a template if it exists and is the newest; otherwise the write that creates or renumbers it.
    pub(super) fn record(
        &self,
        views: &'a Views,
        template: &PodTemplateSpec,
        hash_label: &str,
        labels: &Labels,
        collisions: i32,
    ) -> Recorded<'a> {
        let data = data(template);
        let next = self.revisions.last().map_or(1, |r| r.spec.revision + 1);
        let equal = self.revisions.iter().rev().copied().find(|r| data_of(r) == Some(&data));
        match equal {
            Some(known) if self.revisions.last().is_some_and(|last| last.name() == known.name()) => Recorded::Is(known),
            Some(known) => {
                let mut copy = known.clone();
                copy.spec_mut().revision = next;
                Recorded::After(Box::new(Write::Update(copy.into(), Subresource::None)))
            }
            None => {
                let revision = self.revision(data, hash_label, labels, next, collisions);
                let taken = views.get::<apps_v1::ControllerRevision>(&revision.key()).is_some();
                if taken { Recorded::Collides } else { Recorded::After(Box::new(Write::Create(revision.into()))) }
            }
        }
    }

    fn revision(
        &self,
        data: Value,
        hash_label: &str,
        labels: &Labels,
        number: i64,
        collisions: i32,
    ) -> ControllerRevision {
        let hash = encoded(fnv1a(&serde_json::to_vec(&data).expect("JSON serialises"), collisions));
        let mut labels: BTreeMap<String, String> = labels.clone();
        labels.insert(hash_label.to_owned(), hash.clone());
        let owner = self.owner;
        // A name has at most 253 characters; this leaves room for a dash and the hash (`ControllerRevisionName`).
        let prefix: String = owner.name().chars().take(223).collect();
        let meta = ObjectMeta {
            name: Some(format!("{prefix}-{hash}")),
            namespace: owner.meta().namespace.clone(),
            labels: Some(labels),
            annotations: owner.meta().annotations.clone(),
            owner_references: Some(vec![controller_ref(owner)]),
            ..ObjectMeta::default()
        };
        let spec = apps_v1::ControllerRevision {
            data: Some(RawExtension(data)),
            revision: number,
            ..apps_v1::ControllerRevision::default()
        };
        ControllerRevision::new(meta, spec, ())
    }

    /// Deletes the oldest revisions beyond the limit. Revisions that are in use (`is_live`) are neither deleted nor
    /// counted.
    pub(super) fn truncate(&self, limit: i32, is_live: impl Fn(&str) -> bool) -> Vec<Write> {
        let idle: Vec<&ControllerRevision> = self.revisions.iter().copied().filter(|r| !is_live(r.name())).collect();
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let surplus = idle.len().saturating_sub(limit);
        idle[..surplus].iter().map(|r| delete(r)).collect()
    }
}

fn delete(object: &ControllerRevision) -> Write {
    Write::Delete { key: object.key(), uid: object.uid().into(), rv: None, grace_seconds: None, propagation: None }
}
