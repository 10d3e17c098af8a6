//! Grace periods, finalizers, propagation, preconditions, collections, namespaces.

use std::rc::Rc;

use serde_json::json;

use super::{cluster, config_map, deployment, key, pod, refusal, request, set_phase};
use crate::api::{Call, DeleteOptions, ListOptions, Precondition, Propagation, Reason, Response, Subresource};
use crate::machine::Wall;
use crate::object::{FieldSelector, Kind, Object, Revision, Selector};

fn grace(seconds: i64) -> DeleteOptions {
    DeleteOptions { grace_seconds: Some(seconds), ..DeleteOptions::default() }
}

fn policy(propagation: Propagation) -> DeleteOptions {
    DeleteOptions { propagation: Some(propagation), ..DeleteOptions::default() }
}

#[test]
fn pods_are_deleted_gracefully() {
    // (bound, phase, requested grace) → the pod's grace; `None`: the pod is removed.
    for (bound, phase, asked, expect) in [
        (true, "Running", None, Some(30)),
        (true, "Running", Some(5), Some(5)),
        (true, "Running", Some(0), None),
        (true, "Running", Some(-1), Some(1)),
        (true, "Succeeded", None, None),
        (true, "Failed", Some(9), None),
        (false, "Pending", None, None),
        (false, "Pending", Some(9), None),
    ] {
        let mut c = cluster(1);
        let mut made = if bound { c.running_pod("a", "n1") } else { c.create(pod("a")).unwrap() };
        set_phase(&mut made, phase);
        let made = c.update_status(made).unwrap();
        let options = DeleteOptions { grace_seconds: asked, ..DeleteOptions::default() };
        let answer = c.delete(&made.key(), options).unwrap();
        assert_eq!(answer.rv(), c.store.revision());
        let left = c.get(&made.key());
        assert_eq!(
            left.as_ref().map(|p| p.meta().deletion_grace_period_seconds.unwrap()),
            expect,
            "{bound} {phase} {asked:?}"
        );
        if let (Some(left), Some(seconds)) = (left, expect) {
            let deadline = left.meta().deletion_timestamp.clone().unwrap();
            assert_eq!(Wall::from_time(&deadline).0, c.now.wall.0 + seconds * 1_000_000);
            assert_eq!(left.meta().generation, Some(2));
        }
    }
}

#[test]
fn grace_is_only_shortened() {
    let mut c = cluster(1);
    let made = c.running_pod("a", "n1");
    let start = c.now.wall;
    c.delete(&made.key(), DeleteOptions::default()).unwrap();
    c.tick(3);
    for (asked, expect) in [(None, 30), (Some(60), 30), (Some(10), 10), (Some(20), 10), (None, 10)] {
        let before = c.store.revision();
        let options = DeleteOptions { grace_seconds: asked, ..DeleteOptions::default() };
        let answer = c.delete(&made.key(), options).unwrap();
        let meta = answer.meta();
        assert_eq!(meta.deletion_grace_period_seconds, Some(expect), "{asked:?}");
        // A shortened grace period counts from the start of the deletion.
        let deadline = Wall::from_time(meta.deletion_timestamp.as_ref().unwrap());
        assert_eq!(deadline.0, start.0 + expect * 1_000_000, "{asked:?}");
        assert_eq!(c.store.revision() > before, asked == Some(10), "{asked:?}");
        assert_eq!(meta.generation, Some(2));
    }
    c.delete(&made.key(), grace(0)).unwrap();
    assert_eq!(c.get(&made.key()), None);
}

#[test]
fn finalizers_hold_what_is_deleted() {
    let mut c = cluster(1);
    let mut manifest = config_map("a");
    manifest["metadata"]["finalizers"] = json!(["x/one", "x/two"]);
    let made = c.create(manifest).unwrap();
    let marked = c.delete(&made.key(), DeleteOptions::default()).unwrap();
    assert!(marked.is_deleting());
    assert_eq!(marked.meta().deletion_grace_period_seconds, Some(0));
    let before = c.store.revision();
    assert_eq!(c.delete(&made.key(), DeleteOptions::default()).unwrap(), marked, "deleting again changes nothing");
    assert_eq!(c.store.revision(), before);

    let mut one = marked;
    one.meta_mut().finalizers = Some(vec!["x/two".to_owned()]);
    let mut none = c.update(one).unwrap();
    assert!(none.is_deleting());
    none.meta_mut().finalizers = None;
    c.update(none).unwrap();
    assert_eq!(c.get(&made.key()), None, "the last finalizer was all that held it");
}

#[test]
fn a_pod_waits_for_both_its_finalizers_and_its_node() {
    let mut c = cluster(1);
    let made = c.running_pod("a", "n1");
    let mut held = made.clone();
    held.meta_mut().finalizers = Some(vec!["x/one".to_owned()]);
    let mut held = c.update(held).unwrap();
    c.delete(&made.key(), DeleteOptions::default()).unwrap();
    // Without its finalizer, the pod still has its grace period.
    held = c.get(&held.key()).unwrap();
    let mut free = held.clone();
    free.meta_mut().finalizers = None;
    let mut free = c.update(free).unwrap();
    assert!(c.get(&made.key()).is_some());
    free.meta_mut().finalizers = Some(vec!["x/one".to_owned()]);
    // (A finalizer cannot be added to an object that is being deleted; validation checks that.)
    let _ = free;
    c.delete(&made.key(), grace(0)).unwrap();
    assert_eq!(c.get(&made.key()), None);
}

#[test]
fn propagation_becomes_finalizers() {
    for (before, options, after) in [
        (vec![], policy(Propagation::Background), None),
        (vec![], policy(Propagation::Foreground), Some(vec!["foregroundDeletion"])),
        (vec![], policy(Propagation::Orphan), Some(vec!["orphan"])),
        (vec!["x/y"], policy(Propagation::Orphan), Some(vec!["x/y", "orphan"])),
        (vec!["foregroundDeletion"], policy(Propagation::Orphan), Some(vec!["orphan"])),
        (vec!["orphan"], policy(Propagation::Background), None),
        (vec!["orphan"], DeleteOptions::default(), Some(vec!["orphan"])),
        (vec!["foregroundDeletion"], DeleteOptions::default(), Some(vec!["foregroundDeletion"])),
    ] {
        let mut c = cluster(1);
        let mut manifest = deployment("a", 1);
        manifest["metadata"]["finalizers"] = json!(before);
        let made = c.create(manifest).unwrap();
        c.delete(&made.key(), options.clone()).unwrap();
        let left = c.get(&made.key()).map(|o| o.meta().finalizers.clone().unwrap_or_default());
        let after = after.map(|a| a.into_iter().map(str::to_owned).collect::<Vec<_>>());
        assert_eq!(left, after, "{before:?} {options:?}");
    }
}

#[test]
fn replication_controllers_orphan_by_default() {
    let mut c = cluster(1);
    let manifest = json!({"apiVersion":"v1","kind":"ReplicationController","metadata":{"name":"a","namespace":"default"},
        "spec":{"replicas":1,"selector":{"app":"web"},"template":{"metadata":{"labels":{"app":"web"}},
        "spec":{"containers":[{"name":"c","image":"i"}]}}}});
    let made = c.create(manifest).unwrap();
    let marked = c.delete(&made.key(), DeleteOptions::default()).unwrap();
    assert_eq!(marked.meta().finalizers, Some(vec!["orphan".to_owned()]));
}

#[test]
fn preconditions_must_hold() {
    let mut c = cluster(1);
    let made = c.create(config_map("a")).unwrap();
    let with = |precondition| DeleteOptions { precondition, ..DeleteOptions::default() };
    let uid = |uid: &str| Precondition { uid: Some(Rc::from(uid)), rv: None };
    let rv = |rv| Precondition { uid: None, rv: Some(rv) };
    let (reason, text) = refusal(c.delete(&made.key(), with(uid("other"))));
    assert_eq!(reason, Reason::Conflict);
    assert!(text.contains("the UID in the precondition (other) does not match the UID in record"), "{text}");
    assert_eq!(refusal(c.delete(&made.key(), with(rv(Revision(1))))).0, Reason::Conflict);
    c.delete(&made.key(), with(Precondition { uid: uid(made.uid()).uid, rv: Some(made.rv()) })).unwrap();
    assert_eq!(refusal(c.delete(&made.key(), with(uid(made.uid())))).0, Reason::NotFound);
}

#[test]
fn a_precondition_is_held_against_the_store_and_not_a_stale_cache() {
    let mut c = cluster(2);
    let first = c.create(config_map("a")).unwrap();
    c.lagging[1] = true;
    c.delete(&first.key(), DeleteOptions::default()).unwrap();
    let second = c.create(config_map("a")).unwrap();
    let with = |uid: &str| DeleteOptions {
        precondition: Precondition { uid: Some(Rc::from(uid)), rv: None },
        ..DeleteOptions::default()
    };
    let delete = |options| Call::Delete { key: first.key(), options };
    assert_eq!(refusal(c.call_at(1, delete(with(first.uid())))).0, Reason::Conflict, "that one is gone");
    c.call_at(1, delete(with(second.uid()))).unwrap();
    assert_eq!(c.get(&first.key()), None);
}

#[test]
fn collections_delete_what_matches() {
    let mut c = cluster(2);
    for name in ["a", "b", "c"] {
        let mut manifest = config_map(name);
        manifest["metadata"]["labels"] = json!({"app": if name == "c" { "x" } else { "y" }});
        c.create(manifest).unwrap();
    }
    let all = |list| Call::DeleteCollection {
        kind: Kind::CONFIG_MAP,
        namespace: Rc::from("default"),
        list,
        options: DeleteOptions::default(),
    };
    let labelled = ListOptions { labels: Selector::parse("app=y").unwrap(), ..ListOptions::default() };
    // A request that the store has not answered yet is not in the way.
    c.cut_off[0] = true;
    c.send(0, request(all(labelled.clone())));
    c.cut_off[0] = false;
    let Response::Done { rv } = c.call(all(labelled.clone())).unwrap() else { panic!() };
    assert_eq!(rv, c.store.revision());
    assert_eq!(c.list_at(0, Kind::CONFIG_MAP, ListOptions::default()).unwrap(), ["c"]);
    assert!(matches!(c.call(all(labelled)).unwrap(), Response::Done { rv: Revision(0) }));
    let odd = ListOptions { fields: FieldSelector::equal("data.k", "v"), ..ListOptions::default() };
    assert_eq!(refusal(c.call(all(odd))).0, Reason::BadRequest);
}

#[test]
fn namespaces_end_once_they_are_empty() {
    let mut c = cluster(1);
    let made = c.create(json!({"apiVersion":"v1","kind":"Namespace","metadata":{"name":"a"}})).unwrap();
    let Object::Namespace(ns) = &made else { panic!() };
    assert_eq!(
        (ns.status.phase.as_deref(), ns.spec.finalizers.as_deref()),
        (Some("Active"), Some(&["kubernetes".to_owned()][..]))
    );
    assert_eq!(ns.meta.labels.as_ref().unwrap()["kubernetes.io/metadata.name"], "a");

    // Finalizers in the spec change only through `/finalize`.
    let mut sneaky = made.clone();
    let Object::Namespace(ns) = &mut sneaky else { panic!() };
    ns.spec_mut().finalizers = None;
    let before = c.store.revision();
    c.update(sneaky).unwrap();
    assert_eq!(c.store.revision(), before);

    let marked = c.delete(&made.key(), DeleteOptions::default()).unwrap();
    let Object::Namespace(ns) = &marked else { panic!() };
    assert_eq!(ns.status.phase.as_deref(), Some("Terminating"));
    let mut manifest = config_map("x");
    manifest["metadata"]["namespace"] = json!("a");
    let text =
        "configmaps \"x\" is forbidden: unable to create new content in namespace a because it is being terminated";
    assert_eq!(refusal(c.create(manifest)), (Reason::Forbidden, text.to_owned()));
    assert_eq!(c.delete(&made.key(), DeleteOptions::default()).unwrap(), marked);

    let mut empty = marked;
    let Object::Namespace(ns) = &mut empty else { panic!() };
    ns.spec_mut().finalizers = None;
    c.update_at(0, empty, Subresource::Finalize).unwrap();
    assert_eq!(c.get(&made.key()), None);
}

#[test]
fn some_namespaces_stay() {
    let mut c = cluster(1);
    for name in ["default", "kube-system", "kube-public"] {
        let text = format!("namespaces {name:?} is forbidden: this namespace may not be deleted");
        let refused = refusal(c.delete(&key(Kind::NAMESPACE, name), DeleteOptions::default()));
        assert_eq!(refused, (Reason::Forbidden, text));
    }
}
