//! Which volumes are free, which claims wait, and which pods wait for claims: a cache of what a walk over the views
//! shows, so that one claim costs the same among ten thousand as among ten.

use crate::client::Views;
use crate::controllers::groups::Groups;
use crate::object::{Kind, Milli, Object, ObjectKey, is_pod_terminal};
use crate::volume;

/// See the module's documentation.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Catalog {
    /// Volumes that no claim is named by, by class, the smallest first.
    free: Groups<String, (Milli, ObjectKey)>,
    /// Volumes by the claim that they name.
    named: Groups<ObjectKey, ObjectKey>,
    /// Claims that are not bound, by class.
    waiting: Groups<String, ObjectKey>,
    /// Pods without a node, by the claims that they use.
    consumers: Groups<ObjectKey, ObjectKey>,
}

impl Catalog {
    /// Reads all views.
    pub(super) fn of(views: &Views) -> Catalog {
        let mut catalog = Catalog::default();
        for kind in [Kind::PERSISTENT_VOLUME, Kind::PERSISTENT_VOLUME_CLAIM, Kind::POD] {
            views.view(kind).iter().for_each(|(_, object)| catalog.changed(None, Some(object)));
        }
        catalog
    }

    /// Applies a change of a volume, a claim or a pod.
    pub(super) fn changed(&mut self, old: Option<&Object>, new: Option<&Object>) {
        old.into_iter().for_each(|object| self.note(object, false));
        new.into_iter().for_each(|object| self.note(object, true));
    }

    fn note(&mut self, object: &Object, there: bool) {
        match object {
            Object::Pod(pod) if pod.spec.node.is_none() && !is_pod_terminal(pod) => {
                self.consumers.put_user(pod, there);
            }
            Object::Dynamic(d) if d.kind == Kind::PERSISTENT_VOLUME => match volume::claim_of(object) {
                Some((claim, _)) => self.named.put(claim, object.key(), there),
                None if is_free(object) => {
                    let of = (volume::capacity(object), object.key());
                    self.free.put(volume::class_of(object).to_owned(), of, there);
                }
                None => {}
            },
            Object::Dynamic(d) if d.kind == Kind::PERSISTENT_VOLUME_CLAIM && !volume::is_bound(object) => {
                self.waiting.put(volume::class_of(object).to_owned(), object.key(), there);
            }
            _ => {}
        }
    }

    /// Free volumes of a class that are at least so large, the smallest first.
    pub(super) fn free(&self, class: &str, size: Milli) -> impl Iterator<Item = &ObjectKey> {
        let from = (size, ObjectKey::range_start(Kind::PERSISTENT_VOLUME, ""));
        self.free.get(class).map(|set| set.range(from..)).into_iter().flatten().map(|(_, key)| key)
    }

    /// Volumes that name a claim.
    pub(super) fn named(&self, claim: &ObjectKey) -> impl Iterator<Item = &ObjectKey> {
        self.named.get(claim).into_iter().flatten()
    }

    /// Claims of a class that are not bound.
    pub(super) fn waiting(&self, class: &str) -> impl Iterator<Item = &ObjectKey> {
        self.waiting.get(class).into_iter().flatten()
    }

    /// Pods without a node that use a claim.
    pub(super) fn consumers(&self, claim: &ObjectKey) -> impl Iterator<Item = &ObjectKey> {
        self.consumers.get(claim).into_iter().flatten()
    }
}

/// Whether a volume may be given to any claim that it suits.
pub(super) fn is_free(volume: &Object) -> bool {
    volume::claim_of(volume).is_none() && !volume.is_deleting() && volume::text(volume, "/status/phase") == "Available"
}
