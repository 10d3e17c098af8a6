//! `views-at-rest-equal-store`: at the end of a run, every process's view equals the store. This finds a lost watch
//! event even if no decision has been made from the stale view yet.

use std::collections::{BTreeMap, BTreeSet};

use skeg_core::client::View;
use skeg_core::object::{Kind, Object, ObjectKey, Revision};
use skeg_core::store::StoreKey;

use crate::process::{Process, Role, Running};
use crate::world::World;

/// Services and EndpointSlices with one of these labels are not watched by service proxies.
const NOT_PROXIED: [&str; 2] = ["service.kubernetes.io/headless", "service.kubernetes.io/service-proxy-name"];

/// The stored objects that each view should show: all by kind and key, those that service proxies watch, and pods by
/// their node.
struct Truth<'a> {
    changed: BTreeSet<ObjectKey>,
    proxied: BTreeMap<Kind, BTreeMap<&'a ObjectKey, Revision>>,
    all: BTreeMap<Kind, BTreeMap<&'a ObjectKey, Revision>>,
    pods_of: BTreeMap<&'a str, BTreeMap<&'a ObjectKey, Revision>>,
}

/// Compares the views of every process with the store as it was at revision `judged`. Returns a description of the
/// first difference, naming the process and the object, or `None`. Objects that have changed since `judged` are
/// skipped, because their events may still be in transit. Views that have not received their first list are skipped as
/// well.
pub fn stale_view(world: &World, judged: Revision) -> Option<String> {
    let mut truth =
        Truth { changed: BTreeSet::new(), proxied: BTreeMap::new(), all: BTreeMap::new(), pods_of: BTreeMap::new() };
    for change in world.store.changes_after(judged) {
        if let StoreKey::Object(key) = change.key() {
            truth.changed.insert(key.clone());
        }
    }
    for kind in Kind::all() {
        let all = truth.all.entry(kind).or_default();
        for (key, object) in world.store.objects(kind).filter(|(key, _)| !truth.changed.contains(*key)) {
            all.insert(key, object.rv());
            let is_proxied = |object: &Object| {
                object.labels().is_none_or(|labels| !NOT_PROXIED.iter().any(|label| labels.contains_key(*label)))
            };
            if matches!(kind, Kind::SERVICE | Kind::ENDPOINT_SLICE) && is_proxied(object) {
                truth.proxied.entry(kind).or_default().insert(key, object.rv());
            }
            if let Object::Pod(pod) = object
                && let Some(node) = &pod.spec.node
            {
                truth.pods_of.entry(node).or_default().insert(key, object.rv());
            }
        }
    }
    world.processes.iter().find_map(|process| stale(process, &truth))
}

fn stale(process: &Process, truth: &Truth<'_>) -> Option<String> {
    let everything = |view: &View| differs(process, view, truth, truth.all.get(&view.kind()));
    match process.running.as_ref()? {
        Running::Api(_) | Running::User(_) => None,
        Running::Manager(m) => m.views().find_map(everything),
        Running::Scheduler(m) => m.views().into_iter().find_map(everything),
        Running::Proxy(m) => {
            let own = |view: &View| differs(process, view, truth, truth.proxied.get(&view.kind()));
            m.views().all().find_map(own)
        }
        Running::Dns(m) => m.views().all().find_map(everything),
        Running::Agent(m) => {
            let Role::Agent(_, config) = &process.role else { unreachable!("an agent's role is an agent's") };
            m.views().into_iter().find_map(|view| match view.kind() {
                Kind::POD => differs(process, view, truth, truth.pods_of.get(&*config.node_name)),
                // An agent watches only its own Node.
                kind => {
                    let own = ObjectKey::new(kind, "", &config.node_name);
                    let own = truth.all.get(&kind).and_then(|all| all.get_key_value(&own));
                    differs(process, view, truth, Some(&own.map(|(key, rv)| (*key, *rv)).into_iter().collect()))
                }
            })
        }
    }
}

fn differs(
    process: &Process,
    view: &View,
    truth: &Truth<'_>,
    expect: Option<&BTreeMap<&ObjectKey, Revision>>,
) -> Option<String> {
    if !view.is_synced() {
        return None;
    }
    let shown: BTreeMap<&ObjectKey, Revision> =
        view.iter().map(|(key, object)| (key, object.rv())).filter(|(key, _)| !truth.changed.contains(*key)).collect();
    let none = BTreeMap::new();
    let expect = expect.unwrap_or(&none);
    if *expect == shown {
        return None;
    }
    let key = expect.keys().chain(shown.keys()).find(|key| expect.get(*key) != shown.get(*key))?;
    let (has, sees) = (expect.get(key), shown.get(key));
    Some(format!("{}: the store has {key} at {has:?}, its view shows {sees:?}", process.name))
}
