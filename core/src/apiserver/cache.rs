//! The watch cache: every object as this server last heard of it, and the recent changes for watchers that resume.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use crate::limits;
use crate::machine::Mono;
use crate::object::{Kind, Object, ObjectKey, Revision};
use crate::store::{KeyValue, StoreEvent, StoreKey, Stored};

/// How long a change is kept at least, as upstream's `eventFreshDuration`, as long as the ring may still grow.
const FRESH: Duration = Duration::from_secs(75);

/// A change of one object.
#[derive(Clone, Debug)]
pub(super) struct CacheEvent {
    pub key: ObjectKey,
    pub old: Option<Object>,
    pub new: Option<Object>,
    pub rv: Revision,
    at: Mono,
}

#[derive(Debug, Default)]
struct KindCache {
    objects: BTreeMap<ObjectKey, Object>,
    recent: VecDeque<CacheEvent>,
    /// Changes up to here are no longer in `recent`.
    forgotten: Revision,
}

/// The cache of all kinds.
#[derive(Debug, Default)]
pub(super) struct Cache {
    kinds: Vec<KindCache>,
    revision: Revision,
    loaded: bool,
}

fn object_of(kv: KeyValue) -> Option<(ObjectKey, Object)> {
    match (kv.key, kv.value) {
        (StoreKey::Object(key), Stored::Object(object)) => Some((key, object)),
        _ => None,
    }
}

impl Cache {
    /// Takes the whole keyspace in, as of `revision`; answers the changes against what was there before.
    pub fn load(&mut self, kvs: Vec<KeyValue>, revision: Revision, at: Mono) -> Vec<CacheEvent> {
        let mut fresh: Vec<BTreeMap<ObjectKey, Object>> = Vec::new();
        fresh.resize_with(Kind::all().count(), BTreeMap::new);
        for (key, object) in kvs.into_iter().filter_map(object_of) {
            fresh[usize::from(key.kind.0)].insert(key, object);
        }
        let mut changes = Vec::new();
        self.kinds.resize_with(fresh.len(), KindCache::default);
        for (cache, fresh) in self.kinds.iter_mut().zip(fresh) {
            let before = std::mem::replace(&mut cache.objects, fresh);
            // What happened between is unknown, so nobody can resume from before.
            cache.recent.clear();
            cache.forgotten = revision;
            for (key, old) in &before {
                let new = cache.objects.get(key);
                if new.is_none_or(|n| n.rv() != old.rv()) {
                    let rv = new.map_or(revision, Object::rv);
                    changes.push(CacheEvent { key: key.clone(), old: Some(old.clone()), new: new.cloned(), rv, at });
                }
            }
            for (key, new) in cache.objects.iter().filter(|(k, _)| !before.contains_key(*k)) {
                let (key, rv) = (key.clone(), new.rv());
                changes.push(CacheEvent { key, old: None, new: Some(new.clone()), rv, at });
            }
        }
        changes.sort_by_key(|c| c.rv);
        self.revision = revision;
        self.loaded = true;
        changes
    }

    /// Takes one change in; answers it as watchers see it.
    pub fn apply(&mut self, event: &StoreEvent, at: Mono) -> Option<CacheEvent> {
        let StoreKey::Object(key) = &event.key else { return None };
        let cache = &mut self.kinds[usize::from(key.kind.0)];
        let new = match event.value.as_ref().map(|kv| &kv.value) {
            Some(Stored::Object(object)) => Some(object.clone()),
            Some(Stored::Mark(_)) => return None,
            None => None,
        };
        let old = match &new {
            Some(object) => match cache.objects.get_mut(key) {
                Some(slot) => Some(std::mem::replace(slot, object.clone())),
                None => cache.objects.insert(key.clone(), object.clone()),
            },
            None => cache.objects.remove(key),
        };
        let change = CacheEvent { key: key.clone(), old, new, rv: event.revision, at };
        cache.recent.push_back(change.clone());
        while cache.recent.len() > limits::WATCH_CACHE_EVENTS
            && (cache.recent.len() > 10 * limits::WATCH_CACHE_EVENTS || at.since(cache.recent[0].at) > FRESH)
        {
            cache.forgotten = cache.recent.pop_front().expect("it is longer than the limit").rv;
        }
        Some(change)
    }

    /// Nothing up to this revision is missing.
    pub fn advance(&mut self, revision: Revision) {
        self.revision = self.revision.max(revision);
    }

    /// The revision that the cache has reached.
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// Whether the first load is done.
    pub fn is_loaded(&self) -> bool {
        self.loaded
    }

    /// One object.
    pub fn get(&self, key: &ObjectKey) -> Option<&Object> {
        self.kinds.get(usize::from(key.kind.0))?.objects.get(key)
    }

    /// One object with the cache's own copy of its key.
    pub fn get_entry(&self, key: &ObjectKey) -> Option<(&ObjectKey, &Object)> {
        self.kinds.get(usize::from(key.kind.0))?.objects.get_key_value(key)
    }

    /// Objects of a kind in a namespace (all where it is empty), after a key if one is given.
    pub fn range<'a>(
        &'a self,
        kind: Kind,
        namespace: &str,
        after: Option<&ObjectKey>,
    ) -> impl Iterator<Item = (&'a ObjectKey, &'a Object)> + use<'a> {
        use std::ops::Bound::{Excluded, Included};
        let start = match after {
            Some(key) => Excluded(key.clone()),
            None => Included(ObjectKey::range_start(kind, namespace)),
        };
        let end = Excluded(ObjectKey::range_end(kind, namespace));
        let cache = self.kinds.get(usize::from(kind.0));
        cache.into_iter().flat_map(move |c| c.objects.range((start.clone(), end.clone())))
    }

    /// Changes of a kind after `revision`; or, as an error, the oldest revision one can resume from.
    pub fn since(&self, kind: Kind, revision: Revision) -> Result<impl Iterator<Item = &CacheEvent>, Revision> {
        let cache = &self.kinds[usize::from(kind.0)];
        if revision < cache.forgotten {
            return Err(cache.forgotten);
        }
        let first = cache.recent.partition_point(|c| c.rv <= revision);
        Ok(cache.recent.range(first..))
    }
}
