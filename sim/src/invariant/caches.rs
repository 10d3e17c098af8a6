//! `caches-at-rest-equal-store`: at the end of a run, every API server's watch cache equals the store.

use std::collections::{BTreeMap, BTreeSet};

use skeg_core::object::{ObjectKey, Revision};
use skeg_core::store::StoreKey;

use crate::converge::objects;
use crate::world::World;

/// Compares every API server's watch cache with the store as it was at revision `judged`. Returns a description of the
/// first difference, or `None`. Objects that have changed since `judged` are skipped, because their events may still be
/// in transit.
pub fn stale_cache(world: &World, judged: Revision) -> Option<String> {
    let changed: BTreeSet<StoreKey> = world.store.changes_after(judged).iter().map(|e| e.key().clone()).collect();
    for api in world.api_servers() {
        for kind in api.kinds().all() {
            let settled = |key: &ObjectKey| !changed.contains(&StoreKey::Object(key.clone()));
            let truth: BTreeMap<ObjectKey, Revision> =
                objects(&world.store, kind).map(|o| (o.key(), o.rv())).filter(|(k, _)| settled(k)).collect();
            let cached: BTreeMap<ObjectKey, Revision> =
                api.cached(kind).map(|(k, o)| (k.clone(), o.rv())).filter(|(k, _)| settled(k)).collect();
            if truth == cached {
                continue;
            }
            let differs = |key: &&ObjectKey| truth.get(*key) != cached.get(*key);
            let key = truth.keys().chain(cached.keys()).find(differs);
            if let Some(key) = key {
                let (t, c) = (truth.get(key), cached.get(key));
                return Some(format!("{}: the store has {key} at {t:?}, the cache at {c:?}", api.name()));
            }
        }
    }
    None
}
