//! The journal of a runner's own writes, by key: which writes the views must show before the key is reconciled again
//! (read-your-writes), and which writes have an unknown outcome.
//!
//! - After a write that was answered, the key waits until the view of that kind has reached the write's revision.
//! - After a delete that was answered with NotFound, which has no revision, the key waits until the view no longer
//!   shows the object.
//! - After a create with an unknown outcome, the next create for the key uses the same generated name, so that the
//!   child is never created twice.
//! - A delete with an unknown outcome is sent again before the key is reconciled, so that no second child is chosen for
//!   deletion; and so is the create of a child by a fixed name where the next decision may make one by another name.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use super::{Write, daemon_set, job};
use crate::client::Views;
use crate::limits;
use crate::machine::Mono;
use crate::object::{Kind, Object, ObjectKey, Revision};

/// A generated name that may already be in use.
#[derive(Debug)]
struct Uncertain {
    generate_name: String,
    place: Option<String>,
    child: ObjectKey,
}

/// Which of its owner's children an object is to be; `None` if they are all alike. Each pod of a DaemonSet is for a
/// node, each of an indexed Job for an index.
fn place(wish: &Object) -> Option<String> {
    let Object::Pod(pod) = wish else { return None };
    let index = pod.meta.annotations.as_ref().and_then(|annotations| annotations.get(job::INDEX));
    index.cloned().or_else(|| daemon_set::target(pod).map(str::to_owned))
}

fn generate_name(wish: &Object) -> &str {
    wish.meta().generate_name.as_deref().unwrap_or_default()
}

#[derive(Debug, Default)]
struct Entry {
    revisions: Vec<(Kind, Revision)>,
    gone: Vec<(ObjectKey, Rc<str>)>,
    creates: Vec<Uncertain>,
    /// Writes to send again.
    uncertain: Vec<Write>,
    /// The time at which the key began to wait; `None` if it does not wait.
    parked: Option<Mono>,
}

impl Entry {
    /// Removes the writes that the views now show.
    fn settle(&mut self, views: &Views) {
        self.revisions.retain(|(kind, rv)| views.view(*kind).revision() < *rv);
        self.gone.retain(|(key, uid)| views.view(key.kind).get(key).is_some_and(|o| o.uid() == &**uid));
        let shown = |child: &ObjectKey| views.has(child.kind) && views.view(child.kind).get(child).is_some();
        self.creates.retain(|u| !shown(&u.child));
        self.uncertain.retain(|write| !matches!(write, Write::Create(object) if shown(&object.key())));
    }

    fn waits(&self) -> bool {
        !self.revisions.is_empty() || !self.gone.is_empty()
    }

    fn is_empty(&self) -> bool {
        !self.waits() && self.creates.is_empty() && self.uncertain.is_empty()
    }
}

/// What to do with a key.
#[derive(Debug)]
pub(super) enum Verdict {
    /// Reconcile the key.
    Go,
    /// Wait: the views do not show the key's own writes yet. The journal wakes the key when they do.
    Wait,
    /// First send these writes again, because their outcome is unknown.
    Resolve(Vec<Write>),
}

/// The journal of one runner, by key.
#[derive(Debug, Default)]
pub(super) struct Journal {
    entries: BTreeMap<ObjectKey, Entry>,
    /// Keys that wait until the view of a kind reaches a revision.
    by_revision: BTreeMap<Kind, BTreeSet<(Revision, ObjectKey)>>,
    /// Keys that wait until an object is gone from the view.
    by_gone: BTreeMap<ObjectKey, Vec<ObjectKey>>,
    /// The time at which each waiting key has waited too long.
    patience: BTreeSet<(Mono, ObjectKey)>,
}

impl Journal {
    /// Whether any key waits to see a write in a view.
    pub(super) fn is_waiting(&self) -> bool {
        !self.patience.is_empty()
    }

    /// Records that a write for `key` succeeded at revision `rv`.
    pub(super) fn wrote(&mut self, views: &Views, key: &ObjectKey, kind: Kind, rv: Revision) {
        if !views.has(kind) || views.view(kind).revision() >= rv {
            return;
        }
        let revisions = &mut self.entries.entry(key.clone()).or_default().revisions;
        match revisions.iter_mut().find(|(k, _)| *k == kind) {
            Some((_, known)) => *known = (*known).max(rv),
            None => revisions.push((kind, rv)),
        }
    }

    /// Records that a delete for `key` was answered with NotFound.
    pub(super) fn found_gone(&mut self, views: &Views, key: &ObjectKey, child: &ObjectKey, uid: &Rc<str>) {
        if views.has(child.kind) && views.view(child.kind).get(child).is_some_and(|o| o.uid() == &**uid) {
            self.entries.entry(key.clone()).or_default().gone.push((child.clone(), Rc::clone(uid)));
        }
    }

    /// Records that a create for `key` with a generated name has an unknown outcome.
    pub(super) fn uncertain_create(&mut self, key: &ObjectKey, wish: &Object, child: ObjectKey) {
        let creates = &mut self.entries.entry(key.clone()).or_default().creates;
        if creates.iter().all(|u| u.child != child) {
            creates.push(Uncertain { generate_name: generate_name(wish).to_owned(), place: place(wish), child });
        }
    }

    /// Records that a delete for `key`, or a create by a fixed name, has an unknown outcome.
    pub(super) fn uncertain(&mut self, key: &ObjectKey, write: Write) {
        self.entries.entry(key.clone()).or_default().uncertain.push(write);
    }

    /// Takes the generated name of an earlier create for the same purpose and with an unknown outcome; `None` if there
    /// is none.
    pub(super) fn reuse(&mut self, key: &ObjectKey, wish: &Object) -> Option<ObjectKey> {
        let creates = &mut self.entries.get_mut(key)?.creates;
        let (kind, namespace, base, place) = (wish.kind(), wish.namespace(), generate_name(wish), place(wish));
        let fits = |u: &Uncertain| {
            let of_it = u.child.kind == kind && u.child.namespace() == namespace;
            of_it && u.generate_name == base && u.place == place
        };
        let at = creates.iter().position(fits)?;
        Some(creates.remove(at).child)
    }

    /// Decides whether a key may be reconciled. A key that must wait is woken later by [`reached`](Self::reached) or
    /// [`changed`](Self::changed).
    pub(super) fn judge(&mut self, now: Mono, views: &Views, key: &ObjectKey) -> Verdict {
        let Some(entry) = self.entries.get_mut(key) else { return Verdict::Go };
        entry.settle(views);
        if entry.waits() {
            for (kind, rv) in &entry.revisions {
                self.by_revision.entry(*kind).or_default().insert((*rv, key.clone()));
            }
            for (child, _) in &entry.gone {
                let waiting = self.by_gone.entry(child.clone()).or_default();
                if !waiting.contains(key) {
                    waiting.push(key.clone());
                }
            }
            if entry.parked.is_none() {
                entry.parked = Some(now);
                self.patience.insert((now + limits::OWN_WRITES_PATIENCE, key.clone()));
            }
            return Verdict::Wait;
        }
        if let Some(since) = entry.parked.take() {
            self.patience.remove(&(since + limits::OWN_WRITES_PATIENCE, key.clone()));
        }
        let mut uncertain = std::mem::take(&mut entry.uncertain);
        // Nobody waits for the children of what is gone.
        if views.has(key.kind) && views.view(key.kind).get(key).is_none() {
            uncertain.retain(|write| !matches!(write, Write::Create(_)));
        }
        if entry.is_empty() {
            self.entries.remove(key);
        }
        if uncertain.is_empty() { Verdict::Go } else { Verdict::Resolve(uncertain) }
    }

    /// Must be called when the view of a kind has reached a revision. Calls `wake` for each key that waited for it.
    pub(super) fn reached(&mut self, kind: Kind, rv: Revision, mut wake: impl FnMut(ObjectKey)) {
        let Some(waiting) = self.by_revision.get_mut(&kind) else { return };
        while waiting.first().is_some_and(|(wanted, _)| *wanted <= rv) {
            wake(waiting.pop_first().expect("it was there in the line above").1);
        }
    }

    /// Must be called when an object has changed in the view. Calls `wake` for each key that waited for it to be gone.
    pub(super) fn changed(&mut self, child: &ObjectKey, wake: impl FnMut(ObjectKey)) {
        if !self.by_gone.is_empty() {
            self.by_gone.remove(child).into_iter().flatten().for_each(wake);
        }
    }

    /// The earliest time at which a key has waited too long; `None` if no key waits.
    pub(super) fn next_at(&self) -> Option<Mono> {
        self.patience.first().map(|(at, _)| *at)
    }

    /// The kinds whose views have not shown a write in time; these kinds should be listed again. Restarts the
    /// time-outs.
    pub(super) fn overdue(&mut self, now: Mono) -> BTreeSet<Kind> {
        let mut kinds = BTreeSet::new();
        while self.patience.first().is_some_and(|(at, _)| *at <= now) {
            let (_, key) = self.patience.pop_first().expect("it was there in the line above");
            let entry = self.entries.get_mut(&key).expect("a key that waits has an entry");
            entry.parked = Some(now);
            kinds.extend(entry.revisions.iter().map(|(k, _)| *k));
            kinds.extend(entry.gone.iter().map(|(c, _)| c.kind));
            self.patience.insert((now + limits::OWN_WRITES_PATIENCE, key));
        }
        kinds
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;

    use super::{Journal, Verdict, job};
    use crate::client::Views;
    use crate::limits;
    use crate::machine::Mono;
    use crate::object::{Kind, Object, ObjectKey, Revision};

    fn key(name: &str) -> ObjectKey {
        ObjectKey::new(Kind::REPLICA_SET, "d", name)
    }

    fn pod(name: &str, uid: &str) -> Object {
        Object::from_json(json!({"apiVersion":"v1","kind":"Pod","metadata":{"name":name,"namespace":"d","uid":uid},
            "spec":{"containers":[]}}))
        .unwrap()
    }

    #[test]
    fn waits_for_revisions_and_names_the_key_once() {
        let mut views = Views::of(&[Kind::POD], []);
        let mut j = Journal::default();
        j.wrote(&views, &key("a"), Kind::POD, Revision(7));
        j.wrote(&views, &key("a"), Kind::POD, Revision(5));
        j.wrote(&views, &key("a"), Kind::EVENT, Revision(9));
        assert!(matches!(j.judge(Mono::ZERO, &views, &key("a")), Verdict::Wait));
        assert!(matches!(j.judge(Mono::ZERO, &views, &key("b")), Verdict::Go));
        let mut woken = Vec::new();
        j.reached(Kind::POD, Revision(6), |k| woken.push(k));
        assert!(woken.is_empty());
        views.view_mut(Kind::POD).set_revision(Revision(7));
        j.reached(Kind::POD, Revision(7), |k| woken.push(k));
        assert_eq!(woken, [key("a")]);
        assert!(matches!(j.judge(Mono::ZERO, &views, &key("a")), Verdict::Go));
        assert!(j.entries.is_empty() && j.next_at().is_none());
    }

    #[test]
    fn waits_for_the_end_of_what_is_gone() {
        let mut views = Views::of(&[Kind::POD], [pod("p", "1")]);
        let child = pod("p", "1").key();
        let mut j = Journal::default();
        j.found_gone(&views, &key("a"), &child, &"1".into());
        assert!(matches!(j.judge(Mono::ZERO, &views, &key("a")), Verdict::Wait));
        views.view_mut(Kind::POD).upsert(child.clone(), pod("p", "2"));
        let mut woken = Vec::new();
        j.changed(&child, |k| woken.push(k));
        assert_eq!(woken, [key("a")]);
        assert!(matches!(j.judge(Mono::ZERO, &views, &key("a")), Verdict::Go));
    }

    /// A pod without a name that is to be made.
    fn wish(base: &str, more: serde_json::Value) -> Object {
        let mut value = json!({"apiVersion": "v1", "kind": "Pod", "spec": {"containers": []},
            "metadata": {"generateName": base, "namespace": "d"}});
        json_patch::merge(&mut value, &more);
        Object::from_json(value).unwrap()
    }

    #[test]
    fn names_are_used_again_unless_they_have_shown_up() {
        let mut views = Views::of(&[Kind::POD], []);
        let mut j = Journal::default();
        let any = |base: &str| wish(base, json!({}));
        for name in ["r-1", "r-2"] {
            j.uncertain_create(&key("a"), &any("r-"), ObjectKey::new(Kind::POD, "d", name));
        }
        views.view_mut(Kind::POD).upsert(pod("r-1", "1").key(), pod("r-1", "1"));
        assert!(matches!(j.judge(Mono::ZERO, &views, &key("a")), Verdict::Go));
        assert!(j.reuse(&key("a"), &any("other-")).is_none());
        assert!(j.reuse(&key("b"), &any("r-")).is_none());
        assert_eq!(j.reuse(&key("a"), &any("r-")).unwrap().name(), "r-2");
        assert!(j.reuse(&key("a"), &any("r-")).is_none());
    }

    #[test]
    fn names_are_used_again_for_the_same_node_or_index() {
        let on = |node: &str| {
            let field = json!({"key": "metadata.name", "operator": "In", "values": [node]});
            wish(
                "r-",
                json!({"spec": {"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution":
                {"nodeSelectorTerms": [{"matchFields": [field]}]}}}}}),
            )
        };
        let index = |index: &str| wish("r-", json!({"metadata": {"annotations": {job::INDEX: index}}}));
        for [first, second] in [[on("n1"), on("n2")], [index("0"), index("1")]] {
            let mut j = Journal::default();
            j.uncertain_create(&key("a"), &first, ObjectKey::new(Kind::POD, "d", "r-1"));
            j.uncertain_create(&key("a"), &second, ObjectKey::new(Kind::POD, "d", "r-2"));
            assert_eq!(j.reuse(&key("a"), &second).unwrap().name(), "r-2");
            assert!(j.reuse(&key("a"), &second).is_none(), "the other is for somewhere else");
            assert_eq!(j.reuse(&key("a"), &first).unwrap().name(), "r-1");
        }
    }

    #[test]
    fn patience_ends_and_begins_anew() {
        let views = Views::of(&[Kind::POD], []);
        let mut j = Journal::default();
        j.wrote(&views, &key("a"), Kind::POD, Revision(7));
        j.judge(Mono::ZERO, &views, &key("a"));
        let due = j.next_at().unwrap();
        assert!(j.overdue(Mono::ZERO + Duration::from_secs(1)).is_empty());
        assert_eq!(j.overdue(due).into_iter().collect::<Vec<_>>(), [Kind::POD]);
        assert_eq!(j.next_at(), Some(due + limits::OWN_WRITES_PATIENCE));
    }
}
