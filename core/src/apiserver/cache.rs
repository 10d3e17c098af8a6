//! The watch cache: the store's state at one revision, and the recent events of each kind.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;

use super::addresses::Addresses;
use crate::limits;
use crate::object::{KeyMap, Kind, NameMap, Object, ObjectKey, Revision};
use crate::read_ahead::{Step, touch_shared};
use crate::store::{KeyValue, StoreEvent, StoreKey, Stored};

#[derive(Debug, Default)]
struct KindCache {
    objects: KeyMap<Object>,
    recent: VecDeque<StoreEvent>,
    /// Every event after this revision is in `recent`.
    floor: Revision,
    /// Revision of the last event.
    last: Revision,
}

/// The state of the store at one revision, as this server knows it.
#[derive(Debug, Default)]
pub(super) struct Cache {
    revision: Revision,
    /// Revision at which the whole cache was loaded.
    loaded: Revision,
    kinds: Vec<KindCache>,
    /// Revisions of the private keys.
    marks: BTreeMap<Rc<str>, Revision>,
    pods_by_node: NameMap<BTreeSet<ObjectKey>>,
    addresses: Addresses,
}

impl Cache {
    pub(super) fn revision(&self) -> Revision {
        self.revision
    }

    pub(super) fn get(&self, key: &ObjectKey) -> Option<&Object> {
        self.kind(key.kind)?.objects.get(key)
    }

    /// Reads ahead the memory that a look-up of this object will touch.
    pub(super) fn read_ahead(&self, key: &ObjectKey, step: Step) {
        if let Some(object) = self.kind(key.kind).and_then(|kind| kind.objects.read_ahead(key, step)) {
            object.read_ahead();
        }
    }

    /// An object and the cache's shared copy of its key.
    pub(super) fn entry(&self, key: &ObjectKey) -> Option<(&ObjectKey, &Object)> {
        self.kind(key.kind)?.objects.get_key_value(key)
    }

    pub(super) fn objects(&self, kind: Kind) -> impl Iterator<Item = (&ObjectKey, &Object)> {
        self.kind(kind).into_iter().flat_map(|k| k.objects.iter())
    }

    /// Whether a name without a namespace can identify an object of this kind.
    pub(super) fn stands_alone(&self, kind: Kind, name: &str) -> bool {
        // For a custom kind this is not known here, but an object with an empty namespace exists only if the kind is
        // cluster-scoped.
        let there = || self.kind(kind).is_some_and(|k| k.objects.find(kind, "", name).is_some());
        kind.built_in().map_or_else(there, |row| !row.namespaced)
    }

    /// The objects of a kind in a namespace (empty: in all namespaces), in key order.
    pub(super) fn range(&self, kind: Kind, namespace: &str) -> impl Iterator<Item = (&ObjectKey, &Object)> {
        let range = ObjectKey::range_start(kind, namespace)..ObjectKey::range_end(kind, namespace);
        self.kind(kind).into_iter().flat_map(move |k| k.objects.range(range.clone()))
    }

    /// The pods of a node, in key order.
    pub(super) fn pods_of_node(&self, node: &str) -> impl Iterator<Item = (&ObjectKey, &Object)> {
        let keys = self.pods_by_node.get(node).into_iter().flatten();
        keys.filter_map(|k| self.get(k).map(|o| (k, o)))
    }

    /// Revision of a private key; zero if it does not exist.
    pub(super) fn mark(&self, name: &str) -> Revision {
        self.marks.get(name).copied().unwrap_or_default()
    }

    pub(super) fn addresses(&self) -> &Addresses {
        &self.addresses
    }

    /// Revision of the last event of a kind.
    pub(super) fn last_event(&self, kind: Kind) -> Revision {
        self.kind(kind).map_or(Revision(0), |k| k.last)
    }

    /// The events of a kind after a revision. `Err` contains the oldest revision from which a watch can be resumed.
    pub(super) fn events_after(&self, kind: Kind, rv: Revision) -> Result<impl Iterator<Item = &StoreEvent>, Revision> {
        let cache = self.kind(kind);
        let floor = cache.map_or(self.loaded, |k| k.floor);
        if rv < floor {
            return Err(floor);
        }
        let recent = cache.map(|k| k.recent.range(k.recent.partition_point(|r| r.revision <= rv)..));
        Ok(recent.into_iter().flatten())
    }

    /// Replaces the whole cache with the store's contents.
    pub(super) fn load(&mut self, revision: Revision, kvs: Vec<Rc<KeyValue>>) {
        *self = Cache { revision, ..Cache::default() };
        self.loaded = revision;
        self.make_room(Kind::all().count());
        for kv in kvs {
            match (kv.key(), &kv.value) {
                (StoreKey::Object(key), Stored::Object(object)) => {
                    self.kind_mut(key.kind).last = revision;
                    self.replace(key, None, Some(object.clone()));
                }
                (StoreKey::Private(name), _) => {
                    self.marks.insert(Rc::clone(name), kv.mod_revision());
                }
                (StoreKey::Fence(_) | StoreKey::Object(_), _) => {}
            }
        }
    }

    /// Records that the cache has reached this revision.
    #[inline(always)]
    pub(super) fn advance(&mut self, revision: Revision) {
        assert!(revision >= self.revision, "the cache went back from {:?} to {revision:?}", self.revision);
        self.revision = revision;
    }

    /// The event with its previous value, if the store omitted that. The previous value is in this cache, which is at
    /// the revision before the event. `None` if nothing was omitted or the key is not an object's.
    #[inline]
    pub(super) fn completed(&self, event: &StoreEvent) -> Option<StoreEvent> {
        if event.lacks_previous() { self.complete(event) } else { None }
    }

    #[cold]
    fn complete(&self, event: &StoreEvent) -> Option<StoreEvent> {
        let StoreKey::Object(key) = event.key() else { return None };
        let value = Stored::Object(self.get(key)?.clone());
        let version = event.value.as_ref().map_or(0, |kv| kv.version - 1);
        let previous = KeyValue { version, value, entry: Rc::clone(&event.entry) };
        Some(StoreEvent { previous: Some(Rc::new(previous)), ..event.clone() })
    }

    /// Applies one event of a batch.
    #[inline(always)]
    pub(super) fn apply(&mut self, event: &StoreEvent) {
        match event.key() {
            StoreKey::Object(key) => {
                let old = event.previous.as_deref().and_then(object_of);
                self.replace(key, old, event.value.as_deref().and_then(object_of).cloned());
                self.kind_mut(key.kind).remember(event.clone());
            }
            StoreKey::Private(name) => match &event.value {
                Some(kv) => drop(self.marks.insert(Rc::clone(name), kv.mod_revision())),
                None => drop(self.marks.remove(name)),
            },
            StoreKey::Fence(_) => {}
        }
    }

    #[inline(always)]
    fn replace(&mut self, key: &ObjectKey, old: Option<&Object>, new: Option<Object>) {
        match key.kind {
            Kind::POD => self.index_pod(key, old, new.as_ref()),
            Kind::SERVICE => self.addresses.replace(key, old, new.as_ref()),
            _ => {}
        }
        let objects = &mut self.kind_mut(key.kind).objects;
        match new {
            Some(new) => drop(objects.put(key, new)),
            None => drop(objects.remove(key)),
        }
    }

    fn index_pod(&mut self, key: &ObjectKey, old: Option<&Object>, new: Option<&Object>) {
        let (old, new) = (old.and_then(node_of), new.and_then(node_of));
        if old == new {
            return;
        }
        if let Some(node) = old
            && let Some(pods) = self.pods_by_node.get_mut(node)
        {
            pods.remove(key);
            if pods.is_empty() {
                self.pods_by_node.remove(node);
            }
        }
        if let Some(node) = new {
            self.pods_by_node.entry_of(node).insert(key.clone());
        }
    }

    fn kind(&self, kind: Kind) -> Option<&KindCache> {
        self.kinds.get(usize::from(kind.0))
    }

    /// Extends the table of kinds. For a kind without events so far, all events since the load are known.
    fn make_room(&mut self, kinds: usize) {
        let floor = self.loaded;
        self.kinds.resize_with(kinds, || KindCache { floor, ..KindCache::default() });
    }

    fn kind_mut(&mut self, kind: Kind) -> &mut KindCache {
        let index = usize::from(kind.0);
        if index >= self.kinds.len() {
            self.make_room(index + 1);
        }
        &mut self.kinds[index]
    }
}

impl KindCache {
    #[inline(always)]
    fn remember(&mut self, recent: StoreEvent) {
        self.last = recent.revision;
        self.recent.push_back(recent);
        if self.recent.len() < limits::WATCH_CACHE_EVENTS + limits::FORGOTTEN_AT_ONCE {
            return;
        }
        let going = self.recent.iter().take(limits::FORGOTTEN_AT_ONCE);
        going.flat_map(|e| e.value.iter().chain(&e.previous)).for_each(touch_shared);
        while self.recent.len() > limits::WATCH_CACHE_EVENTS {
            // All events of a revision are dropped together, because a watch cannot be resumed in the middle of a
            // revision.
            let gone = self.recent.pop_front().expect("a ring over its bound is not empty").revision;
            self.floor = gone;
            while self.recent.front().is_some_and(|r| r.revision == gone) {
                self.recent.pop_front();
            }
        }
    }
}

/// The object of a value; `None` if it is a marker.
pub(super) fn object_of(kv: &KeyValue) -> Option<&Object> {
    match &kv.value {
        Stored::Object(o) => Some(o),
        Stored::Mark(..) => None,
    }
}

/// The node that a pod is bound to.
pub(super) fn node_of(object: &Object) -> Option<&Rc<str>> {
    match object {
        Object::Pod(pod) => pod.spec.node.as_ref(),
        _ => None,
    }
}
