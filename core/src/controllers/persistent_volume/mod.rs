//! The persistent volume binder: brings claims and volumes together, and writes what has become of both.
//!
//! What comes in: claims, volumes, storage classes, pods without a node. What goes out: references from a claim to its
//! volume and back, phases, Events. Never gives one volume to two claims: a volume names its claim (with the UID, at
//! the volume's revision) before the claim names the volume. Each step is one write, and after a crash the next
//! reconcile goes on from what is stored. Never calls a claim gone, and so releases its volume, by a view of claims
//! that is older than the binding.
//!
//! `claim` and `volume` hold the two halves, `matching` chooses a volume, `catalog` keeps what is free. The provisioner
//! and the resizer (`provisioner`, `resizer`) stand for those outside Kubernetes. `recycle`, which is deprecated, is
//! refused as by a plug-in that cannot.
//!
//! Source: upstream's `pkg/controller/volume/persistentvolume`.

mod catalog;
mod claim;
mod matching;
mod provisioner;
mod resizer;
#[cfg(test)]
mod tests;
mod volume;

use serde_json::Value;

use super::{Controller, EventNote, Plan, Write};
use crate::api::Subresource;
use crate::client::{Change, EventType, Views, Watched};
use crate::machine::Now;
use crate::object::{Kind, Object, ObjectKey};
use crate::volume::{claim_of, text};
use catalog::Catalog;
pub use provisioner::Provisioner;
pub use resizer::Resizer;

/// The controller.
#[derive(Debug, Default)]
pub struct PersistentVolumeBinder {
    /// Made by the first reconcile, and kept up to date from then on.
    catalog: Option<Catalog>,
}

const WATCHES: &[Watched] = &[
    Watched { kind: Kind::PERSISTENT_VOLUME_CLAIM, indexes: &[] },
    Watched { kind: Kind::PERSISTENT_VOLUME, indexes: &[] },
    Watched { kind: Kind::STORAGE_CLASS, indexes: &[] },
    Watched { kind: Kind::POD, indexes: &[] },
];

impl Controller for PersistentVolumeBinder {
    fn name(&self) -> &'static str {
        "persistentvolume-controller"
    }

    fn watches(&self) -> &'static [Watched] {
        WATCHES
    }

    fn observe(&mut self, change: &Change, _now: Now) {
        if let Some(catalog) = &mut self.catalog {
            catalog.changed(change.old.as_ref(), change.new.as_ref());
        }
    }

    fn keys(&self, change: &Change, _views: &Views, keys: &mut Vec<ObjectKey>) {
        let waiting = |class: &str| self.catalog.iter().flat_map(|c| c.waiting(class)).cloned().collect::<Vec<_>>();
        match change.key.kind {
            Kind::STORAGE_CLASS => {
                keys.extend(waiting(change.key.name()));
                // Claims without a class get the default one once there is one.
                keys.extend(waiting(""));
            }
            Kind::PERSISTENT_VOLUME => {
                keys.push(change.key.clone());
                let both = change.old.iter().chain(&change.new);
                keys.extend(both.filter_map(claim_of).map(|(claim, _)| claim));
                let freed = change.new.as_ref().filter(|v| catalog::is_free(v));
                keys.extend(freed.into_iter().flat_map(|v| waiting(crate::volume::class_of(v))));
            }
            Kind::PERSISTENT_VOLUME_CLAIM => {
                keys.push(change.key.clone());
                let names = change.old.iter().chain(&change.new).map(|claim| text(claim, "/spec/volumeName"));
                let names = names.filter(|name| !name.is_empty());
                keys.extend(names.map(|name| ObjectKey::new(Kind::PERSISTENT_VOLUME, "", name)));
                keys.extend(self.catalog.iter().flat_map(|c| c.named(&change.key)).cloned());
            }
            _ => {}
        }
        keys.sort_unstable();
        keys.dedup();
    }

    fn reconcile(&mut self, views: &Views, key: &ObjectKey, _now: Now) -> Plan {
        let mut plan = Plan::nothing();
        let catalog = self.catalog.get_or_insert_with(|| Catalog::of(views));
        let Some(object) = views.view(key.kind).get(key) else { return plan };
        match key.kind {
            Kind::PERSISTENT_VOLUME => volume::sync(views, object, &mut plan),
            _ => claim::sync(catalog, views, object, &mut plan),
        }
        plan
    }
}

/// An update of an object, edited as JSON.
fn update(object: &Object, subresource: Subresource, edit: impl FnOnce(&mut Value)) -> Write {
    let mut value = object.to_json();
    edit(&mut value);
    let copy = Object::from_json(value).expect("an edited claim or volume reads");
    Write::Update(copy, subresource)
}

/// Removes an annotation from an object's JSON.
fn remove_annotation(value: &mut Value, key: &str) {
    if let Some(annotations) = value["metadata"]["annotations"].as_object_mut() {
        annotations.remove(key);
    }
}

fn event(plan: &mut Plan, about: &Object, type_: EventType, reason: &'static str, message: impl Into<String>) {
    plan.events.push(EventNote { about: about.clone(), type_, reason, message: message.into() });
}
