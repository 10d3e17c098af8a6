//! A reader's own view of the cluster: what its informers have told it, indexed for its questions.
//!
//! A view may be behind, and may even go back in time after a relist from an older replica. Whoever decides by it
//! must be right all the same.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::object::{Kind, Obj, Object, ObjectKey, Resource, Revision, controller_of};

/// A question that a view can answer without a scan.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Index {
    /// By UID of the managing owner (`controller: true`); objects without one are under `namespace/` + namespace.
    Controller,
    /// By UID of every owner.
    Owner,
    /// Pods by `spec.nodeName` (empty while unbound).
    Node,
    /// By each label, as `namespace/key=value`.
    Label,
    /// Services by the first pair of `spec.selector`, as `namespace/key=value`: which may select an object is asked
    /// by each of its labels.
    Selector,
}

/// A change that a view has just taken in.
#[derive(Clone, Debug)]
pub struct Change {
    /// Which object.
    pub key: ObjectKey,
    /// What the view showed before.
    pub old: Option<Object>,
    /// What it shows now.
    pub new: Option<Object>,
}

/// Objects of one kind as one reader knows them.
#[derive(Debug)]
pub struct View {
    kind: Kind,
    objects: BTreeMap<ObjectKey, Object>,
    indexes: Vec<(Index, BTreeMap<Arc<str>, BTreeSet<ObjectKey>>)>,
    revision: Revision,
    synced: bool,
}

impl View {
    /// An empty view that maintains these indexes.
    pub fn new(kind: Kind, indexes: &[Index]) -> View {
        let indexes = indexes.iter().map(|i| (*i, BTreeMap::new())).collect();
        View { kind, objects: BTreeMap::new(), indexes, revision: Revision(0), synced: false }
    }

    /// The kind that it is of.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Whether the first list has been taken in.
    pub fn is_synced(&self) -> bool {
        self.synced
    }

    /// Declares the first list taken in (or, after a relist began, not yet).
    pub fn set_synced(&mut self, synced: bool) {
        self.synced = synced;
    }

    /// The revision up to which nothing is missing.
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// Sets the revision; only a relist may go back.
    pub fn set_revision(&mut self, revision: Revision) {
        self.revision = revision;
    }

    /// One object.
    pub fn get(&self, key: &ObjectKey) -> Option<&Object> {
        self.objects.get(key)
    }

    /// How many objects there are.
    pub fn len(&self) -> usize {
        self.objects.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.objects.is_empty()
    }

    /// All objects in order of their keys.
    pub fn iter(&self) -> impl Iterator<Item = (&ObjectKey, &Object)> {
        self.objects.iter()
    }

    /// The objects of one namespace in order of their names.
    pub fn namespace<'a>(&'a self, namespace: &str) -> impl Iterator<Item = &'a Object> + use<'a> {
        let range = ObjectKey::range_start(self.kind, namespace)..ObjectKey::range_end(self.kind, namespace);
        self.objects.range(range).map(|(_, o)| o)
    }

    /// The objects under `value` of an index, in order of their keys. Panics if the index is not maintained.
    pub fn indexed<'a>(&'a self, index: Index, value: &str) -> impl Iterator<Item = &'a Object> + use<'a> {
        let (_, map) = self.indexes.iter().find(|(i, _)| *i == index).expect("an index is declared before it is used");
        map.get(value).into_iter().flatten().filter_map(|key| self.objects.get(key))
    }

    /// How many objects are under `value` of an index. Panics if the index is not maintained.
    pub fn indexed_len(&self, index: Index, value: &str) -> usize {
        let (_, map) = self.indexes.iter().find(|(i, _)| *i == index).expect("an index is declared before it is used");
        map.get(value).map_or(0, BTreeSet::len)
    }

    /// Takes in an object; answers what was there before.
    pub fn upsert(&mut self, key: ObjectKey, object: Object) -> Option<Object> {
        let old = self.objects.get(&key).cloned();
        if let Some(old) = &old {
            self.reindex(&key, old, Some(&object));
        }
        for (index, map) in &mut self.indexes {
            each_value(*index, &object, |value| match map.get_mut(value) {
                Some(set) => {
                    set.insert(key.clone());
                }
                None => {
                    map.insert(Arc::from(value), BTreeSet::from([key.clone()]));
                }
            });
        }
        self.objects.insert(key, object);
        old
    }

    /// Forgets an object; answers what was there.
    pub fn remove(&mut self, key: &ObjectKey) -> Option<Object> {
        let old = self.objects.remove(key)?;
        self.reindex(key, &old, None);
        Some(old)
    }

    /// Drops the index entries of `old` that `new` does not have as well.
    fn reindex(&mut self, key: &ObjectKey, old: &Object, new: Option<&Object>) {
        if new.is_some_and(|n| Arc::ptr_eq(n.meta(), old.meta()) && n.same_spec(old)) {
            return;
        }
        for (index, map) in &mut self.indexes {
            each_value(*index, old, |value| {
                if let Some(set) = map.get_mut(value) {
                    set.remove(key);
                    if set.is_empty() {
                        map.remove(value);
                    }
                }
            });
        }
    }
}

fn each_value(index: Index, object: &Object, mut f: impl FnMut(&str)) {
    match index {
        Index::Controller => match controller_of(object.meta()) {
            Some(owner) => f(&owner.uid),
            None => f(&format!("namespace/{}", object.namespace())),
        },
        Index::Owner => object.meta().owner_references.iter().flatten().for_each(|o| f(&o.uid)),
        Index::Node => {
            if let Object::Pod(pod) = object {
                f(pod.spec.node.as_deref().unwrap_or(""));
            }
        }
        Index::Label => {
            for (k, v) in object.labels().into_iter().flatten() {
                f(&format!("{}/{k}={v}", object.namespace()));
            }
        }
        Index::Selector => {
            if let Object::Service(service) = object
                && let Some((k, v)) = service.spec.selector.iter().flatten().next()
            {
                f(&format!("{}/{k}={v}", service.namespace()));
            }
        }
    }
}

/// All views of one reader, one a kind.
#[derive(Debug, Default)]
pub struct Views {
    views: Vec<View>,
}

impl Views {
    /// From its views; at most one of each kind.
    pub fn new(views: Vec<View>) -> Views {
        Views { views }
    }

    /// For tests: views of these objects, with every index.
    pub fn of(kinds: &[Kind], objects: impl IntoIterator<Item = Object>) -> Views {
        let all = [Index::Controller, Index::Owner, Index::Node, Index::Label, Index::Selector];
        let mut views = Views::new(kinds.iter().map(|k| View::new(*k, &all)).collect());
        for view in &mut views.views {
            view.set_synced(true);
        }
        for object in objects {
            views.view_mut(object.kind()).upsert(object.key(), object);
        }
        views
    }

    /// The view of a kind. Panics if the reader does not watch it.
    pub fn view(&self, kind: Kind) -> &View {
        self.views.iter().find(|v| v.kind == kind).expect("a reader asks only for kinds that it watches")
    }

    /// The view of a kind, for taking in a change.
    pub fn view_mut(&mut self, kind: Kind) -> &mut View {
        self.views.iter_mut().find(|v| v.kind == kind).expect("a reader is told only of kinds that it watches")
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &View> {
        self.views.iter()
    }

    /// Whether every view has taken in its first list.
    pub fn is_synced(&self) -> bool {
        self.views.iter().all(View::is_synced)
    }

    /// One typed object.
    pub fn get<R: Resource>(&self, key: &ObjectKey) -> Option<&Obj<R>> {
        self.view(R::KIND).get(key).and_then(Object::get::<R>)
    }

    /// One typed object by namespace and name.
    pub fn named<R: Resource>(&self, namespace: &str, name: &str) -> Option<&Obj<R>> {
        self.get::<R>(&ObjectKey::new(R::KIND, namespace, name))
    }

    /// All typed objects of a namespace; of all namespaces where it is empty.
    pub fn list<'a, R: Resource>(&'a self, namespace: &str) -> impl Iterator<Item = &'a Obj<R>> + use<'a, R> {
        self.view(R::KIND).namespace(namespace).filter_map(Object::get::<R>)
    }

    /// The typed objects that are managed by the owner with this UID.
    pub fn controlled_by<'a, R: Resource>(&'a self, uid: &str) -> impl Iterator<Item = &'a Obj<R>> + use<'a, R> {
        self.view(R::KIND).indexed(Index::Controller, uid).filter_map(Object::get::<R>)
    }

    /// The typed objects of a namespace that nobody manages: candidates for adoption.
    pub fn orphans<'a, R: Resource>(&'a self, namespace: &str) -> impl Iterator<Item = &'a Obj<R>> + use<'a, R> {
        self.view(R::KIND).indexed(Index::Controller, &format!("namespace/{namespace}")).filter_map(Object::get::<R>)
    }
}

#[cfg(test)]
mod tests {
    use super::{Index, View, Views};
    use crate::object::{Kind, Object, Pod};
    use serde_json::json;

    fn pod(name: &str, node: &str) -> Object {
        Object::from_json(json!({"apiVersion":"v1","kind":"Pod",
            "metadata":{"name":name,"namespace":"d","labels":{"app":"a"}},"spec":{"nodeName":node,"containers":[]}}))
        .unwrap()
    }

    #[test]
    fn indexes_follow_changes() {
        let mut view = View::new(Kind::POD, &[Index::Node, Index::Label]);
        let key = pod("p", "").key();
        assert!(view.upsert(key.clone(), pod("p", "")).is_none());
        view.upsert(key.clone(), pod("p", "n1"));
        assert_eq!(view.indexed(Index::Node, "").count(), 0);
        assert_eq!(view.indexed(Index::Node, "n1").count(), 1);
        assert_eq!(view.indexed(Index::Label, "d/app=a").count(), 1);
        view.remove(&key);
        assert_eq!(view.indexed(Index::Node, "n1").count(), 0);
    }

    #[test]
    fn typed_reads() {
        let views = Views::of(&[Kind::POD], [pod("p", "n1")]);
        assert_eq!(views.list::<k8s_openapi::api::core::v1::Pod>("d").map(Pod::name).collect::<Vec<_>>(), ["p"]);
        assert_eq!(views.orphans::<k8s_openapi::api::core::v1::Pod>("d").count(), 1);
    }
}
