//! A reader's own view of the cluster: the objects that its informers have received, with indexes.
//!
//! A view may lag, and may even go back in time after a relist from a lagging replica. Whatever is decided from a view
//! must be correct even then.

use std::collections::BTreeSet;
use std::rc::Rc;

use crate::object::{KeyMap, Kind, NameMap, Obj, Object, ObjectKey, Resource, Revision, controller_of, joined};
use crate::read_ahead::Step;

/// An index that answers a query without a scan.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Index {
    /// By UID of the managing owner (`controller: true`); objects without one are under `namespace/` followed by the
    /// namespace.
    Controller,
    /// By UID of each owner.
    Owner,
    /// Pods by `spec.nodeName` (empty while unbound).
    Node,
    /// By each label, as `namespace/key=value`.
    Label,
    /// Services by the first pair of `spec.selector`, as `namespace/key=value`. The services that may select an object
    /// are found by looking up each of its labels.
    Selector,
}

/// A change that a view has just applied.
#[derive(Clone, Debug)]
pub struct Change {
    /// Key of the object.
    pub key: ObjectKey,
    /// The object before; `None` if it is new.
    pub old: Option<Object>,
    /// The object now; `None` if it was deleted.
    pub new: Option<Object>,
}

/// One index of a view: for each value, the slots of its objects. Keys are not kept in a tree here: comparing two keys
/// reads both names, which in a large cluster are rarely in the processor's cache.
#[derive(Debug)]
struct Grouping {
    index: Index,
    groups: NameMap<BTreeSet<u32>>,
}

impl Grouping {
    fn members(&self, value: &str) -> Option<&BTreeSet<u32>> {
        self.groups.get(value)
    }

    fn insert(&mut self, value: &str, slot: u32) {
        self.groups.entry(value).insert(slot);
    }

    fn remove(&mut self, value: &str, slot: u32) {
        let Some(members) = self.groups.get_mut(value) else { return };
        members.remove(&slot);
        if members.is_empty() {
            self.groups.remove(value);
        }
    }
}

/// The objects of one kind as one reader knows them.
///
/// Applying a change of an object costs the same however many other objects there are.
#[derive(Debug)]
pub struct View {
    kind: Kind,
    objects: KeyMap<Object>,
    indexes: Vec<Grouping>,
    revision: Revision,
    synced: bool,
}

impl View {
    /// Creates an empty view that maintains these indexes.
    pub fn new(kind: Kind, indexes: &[Index]) -> View {
        let grouping = |i: &Index| Grouping { index: *i, groups: NameMap::default() };
        View {
            kind,
            objects: KeyMap::default(),
            indexes: indexes.iter().map(grouping).collect(),
            revision: Revision(0),
            synced: false,
        }
    }

    /// The kind of its objects.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Whether the first list has been applied.
    pub fn is_synced(&self) -> bool {
        self.synced
    }

    /// Sets whether the first list has been applied; false again when a relist starts.
    pub fn set_synced(&mut self, synced: bool) {
        self.synced = synced;
    }

    /// The revision up to which the view has every change.
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// Sets the revision; only a relist may lower it.
    pub fn set_revision(&mut self, revision: Revision) {
        self.revision = revision;
    }

    /// Returns an object by its key.
    pub fn get(&self, key: &ObjectKey) -> Option<&Object> {
        self.objects.get(key)
    }

    /// Reads ahead the memory that changes of these objects will touch.
    pub fn read_ahead(&self, keys: &[&ObjectKey], step: Step) {
        for key in keys {
            self.objects.read_ahead(key, step);
        }
    }

    /// The view's own shared copy of a key, found by namespace and name.
    pub fn key(&self, namespace: &str, name: &str) -> Option<&ObjectKey> {
        self.objects.find(self.kind, namespace, name).map(|slot| &self.objects.at(slot).0)
    }

    /// Returns an object by namespace and name.
    pub fn find(&self, namespace: &str, name: &str) -> Option<&Object> {
        self.objects.find(self.kind, namespace, name).map(|slot| &self.objects.at(slot).1)
    }

    /// How many objects the view has.
    pub fn len(&self) -> usize {
        self.objects.len()
    }

    /// Whether the view has no objects.
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
        self.objects.range(range).map(|(_, object)| object)
    }

    fn grouping(&self, index: Index) -> &Grouping {
        self.indexes.iter().find(|g| g.index == index).expect("an index is declared before it is used")
    }

    /// The objects under `value` of an index, in order of their slots. This order has no meaning, but it is the same in
    /// every run. Panics if the index is not maintained.
    pub fn indexed<'a>(&'a self, index: Index, value: &str) -> impl Iterator<Item = &'a Object> + use<'a> {
        let members = self.grouping(index).members(value);
        members.into_iter().flatten().map(|slot| &self.objects.at(*slot).1)
    }

    /// The objects under a label or a selector pair; see [`indexed`](Self::indexed).
    pub fn paired<'a>(
        &'a self,
        index: Index,
        namespace: &str,
        key: &str,
        value: &str,
    ) -> impl Iterator<Item = &'a Object> + use<'a> {
        joined(&[namespace, "/", key, "=", value], |value| self.indexed(index, value))
    }

    /// How many objects are under `value` of an index. Panics if the index is not maintained.
    pub fn indexed_len(&self, index: Index, value: &str) -> usize {
        self.grouping(index).members(value).map_or(0, BTreeSet::len)
    }

    /// Inserts or replaces an object; returns the previous one.
    pub fn upsert(&mut self, key: ObjectKey, object: Object) -> Option<Object> {
        match self.objects.slot_of(&key) {
            Some(slot) => Some(self.replace(slot, object)),
            None => {
                self.insert(key, object);
                None
            }
        }
    }

    /// Removes an object; returns it.
    pub fn remove(&mut self, key: &ObjectKey) -> Option<Object> {
        self.objects.slot_of(key).map(|slot| self.take(slot).1)
    }

    /// Applies an object from a list or a watch and pushes the change. An object that the view already has is no
    /// change. If the object has another UID, the deletion of the old object is pushed first.
    #[inline(always)]
    pub(super) fn learn(&mut self, object: &Object, changes: &mut Vec<Change>) {
        let Some(slot) = self.objects.slot_of(object.key_ref()) else {
            let key = object.key();
            self.insert(key.clone(), object.clone());
            changes.push(Change { key, old: None, new: Some(object.clone()) });
            return;
        };
        let known = &self.objects.at(slot).1;
        if known.rv() == object.rv() {
            return;
        }
        if !Rc::ptr_eq(known.meta(), object.meta()) && known.uid() != object.uid() {
            let (key, old) = self.take(slot);
            self.insert(key.clone(), object.clone());
            changes.push(Change { key: key.clone(), old: Some(old), new: None });
            changes.push(Change { key, old: None, new: Some(object.clone()) });
            return;
        }
        let old = self.replace(slot, object.clone());
        changes.push(Change { key: self.objects.at(slot).0.clone(), old: Some(old), new: Some(object.clone()) });
    }

    /// Applies a deletion and pushes the change.
    pub(super) fn unlearn(&mut self, namespace: &str, name: &str, changes: &mut Vec<Change>) {
        if let Some(slot) = self.objects.find(self.kind, namespace, name) {
            let (key, object) = self.take(slot);
            changes.push(Change { key, old: Some(object), new: None });
        }
    }

    fn insert(&mut self, key: ObjectKey, object: Object) {
        let slot = self.objects.insert_new(key, object);
        let (_, object) = self.objects.at(slot);
        for grouping in &mut self.indexes {
            each_value(grouping.index, object, |value| grouping.insert(value, slot));
        }
    }

    #[inline(always)]
    fn replace(&mut self, slot: u32, object: Object) -> Object {
        let (_, place) = self.objects.at_mut(slot);
        let old = std::mem::replace(place, object);
        for grouping in &mut self.indexes {
            if !same_values(grouping.index, &old, place) {
                each_value(grouping.index, &old, |value| grouping.remove(value, slot));
                each_value(grouping.index, place, |value| grouping.insert(value, slot));
            }
        }
        old
    }

    fn take(&mut self, slot: u32) -> (ObjectKey, Object) {
        let (key, object) = self.objects.take(slot);
        for grouping in &mut self.indexes {
            each_value(grouping.index, &object, |value| grouping.remove(value, slot));
        }
        (key, object)
    }
}

/// Whether two states of an object have the same values in an index. May return false even if they do.
fn same_values(index: Index, old: &Object, new: &Object) -> bool {
    let same_meta = Rc::ptr_eq(old.meta(), new.meta());
    match index {
        Index::Controller | Index::Owner => same_meta || old.meta().owner_references == new.meta().owner_references,
        Index::Label => same_meta || old.labels() == new.labels(),
        Index::Node => match (old, new) {
            (Object::Pod(a), Object::Pod(b)) => a.spec.node == b.spec.node,
            _ => false,
        },
        Index::Selector => match (old, new) {
            (Object::Service(a), Object::Service(b)) => {
                Rc::ptr_eq(&a.spec, &b.spec) || a.spec.selector == b.spec.selector
            }
            _ => false,
        },
    }
}

fn each_value(index: Index, object: &Object, mut f: impl FnMut(&str)) {
    match index {
        Index::Controller => match controller_of(object.meta()) {
            Some(owner) => f(&owner.uid),
            None => joined(&["namespace/", object.namespace()], f),
        },
        Index::Owner => object.meta().owner_references.iter().flatten().for_each(|o| f(&o.uid)),
        Index::Node => {
            if let Object::Pod(pod) = object {
                f(pod.spec.node.as_deref().unwrap_or(""));
            }
        }
        Index::Label => {
            for (k, v) in object.labels().into_iter().flatten() {
                joined(&[object.namespace(), "/", k, "=", v], &mut f);
            }
        }
        Index::Selector => {
            if let Object::Service(service) = object
                && let Some((k, v)) = service.spec.selector.iter().flatten().next()
            {
                joined(&[service.namespace(), "/", k, "=", v], f);
            }
        }
    }
}

/// All views of one reader, one for each kind.
#[derive(Debug, Default)]
pub struct Views {
    views: Vec<View>,
    /// Position of the view of each kind.
    places: Vec<Option<u16>>,
    /// The custom kinds among them.
    custom: Vec<Kind>,
}

impl Views {
    /// Creates it from views, at most one for each kind.
    pub fn new(views: Vec<View>) -> Views {
        let mut all = Views { views: Vec::new(), places: Vec::new(), custom: Vec::new() };
        views.into_iter().for_each(|view| all.add(view));
        all
    }

    /// Adds the view of another kind.
    pub fn add(&mut self, view: View) {
        let kind = usize::from(view.kind.0);
        self.places.resize(self.places.len().max(kind + 1), None);
        let known = self.places[kind].replace(self.views.len() as u16);
        assert!(known.is_none(), "a reader has one view of a kind");
        self.custom.extend(Some(view.kind).filter(|kind| kind.built_in().is_none()));
        self.views.push(view);
    }

    /// The custom kinds that have a view.
    pub fn custom(&self) -> &[Kind] {
        &self.custom
    }

    fn place(&self, kind: Kind) -> Option<usize> {
        self.places.get(usize::from(kind.0)).copied().flatten().map(usize::from)
    }

    /// Whether there is a view of a kind.
    pub fn has(&self, kind: Kind) -> bool {
        self.place(kind).is_some()
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

    /// All views.
    pub fn all(&self) -> impl Iterator<Item = &View> {
        self.views.iter()
    }

    /// The view of a kind. Panics if the reader does not watch it.
    pub fn view(&self, kind: Kind) -> &View {
        let place = self.place(kind).expect("a reader asks only for kinds that it watches");
        &self.views[place]
    }

    /// The view of a kind; `None` if there is none or its first list has not been applied.
    pub fn synced(&self, kind: Kind) -> Option<&View> {
        self.place(kind).map(|place| &self.views[place]).filter(|view| view.synced)
    }

    /// The view of a kind, for applying a change.
    pub fn view_mut(&mut self, kind: Kind) -> &mut View {
        let place = self.place(kind).expect("a reader is told only of kinds that it watches");
        &mut self.views[place]
    }

    /// All views.
    pub fn iter(&self) -> impl Iterator<Item = &View> {
        self.views.iter()
    }

    /// Whether every view has applied its first list.
    pub fn is_synced(&self) -> bool {
        self.views.iter().all(View::is_synced)
    }

    /// Returns a typed object by its key.
    pub fn get<R: Resource>(&self, key: &ObjectKey) -> Option<&Obj<R>> {
        self.view(R::KIND).get(key).and_then(Object::get::<R>)
    }

    /// Returns a typed object by namespace and name.
    pub fn named<R: Resource>(&self, namespace: &str, name: &str) -> Option<&Obj<R>> {
        self.view(R::KIND).find(namespace, name).and_then(Object::get::<R>)
    }

    /// All typed objects in a namespace; in all namespaces if it is empty.
    pub fn list<'a, R: Resource>(&'a self, namespace: &str) -> impl Iterator<Item = &'a Obj<R>> + use<'a, R> {
        self.view(R::KIND).namespace(namespace).filter_map(Object::get::<R>)
    }

    /// The typed objects whose managing owner has this UID.
    pub fn controlled_by<'a, R: Resource>(&'a self, uid: &str) -> impl Iterator<Item = &'a Obj<R>> + use<'a, R> {
        self.view(R::KIND).indexed(Index::Controller, uid).filter_map(Object::get::<R>)
    }

    /// The typed objects in a namespace that have no managing owner: candidates for adoption.
    pub fn orphans<'a, R: Resource>(&'a self, namespace: &str) -> impl Iterator<Item = &'a Obj<R>> + use<'a, R> {
        let orphans = joined(&["namespace/", namespace], |value| self.view(R::KIND).indexed(Index::Controller, value));
        orphans.filter_map(Object::get::<R>)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::{Index, View, Views};
    use crate::object::{Kind, Object, ObjectKey, Pod};
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
    fn agrees_with_a_plain_map() {
        let mut rng = crate::random::Rng::from_seed(5);
        let mut view = View::new(Kind::POD, &[Index::Node, Index::Label]);
        let mut plain: BTreeMap<ObjectKey, Object> = BTreeMap::new();
        for _ in 0..3000 {
            let object = pod(&format!("p{}", rng.below(40)), ["", "n1", "n2"][rng.below(3) as usize]);
            let key = object.key();
            if rng.chance(1, 3) {
                assert_eq!(view.remove(&key), plain.remove(&key));
            } else {
                assert_eq!(view.upsert(key.clone(), object.clone()), plain.insert(key.clone(), object));
            }
            assert!(view.iter().eq(plain.iter()) && view.len() == plain.len());
            assert_eq!(view.get(&key), plain.get(&key));
            let indexed = |index, value| -> BTreeMap<_, _> {
                let all: BTreeMap<_, _> = view.indexed(index, value).map(|object| (object.key(), object)).collect();
                assert_eq!(
                    (all.len(), all.len()),
                    (view.indexed(index, value).count(), view.indexed_len(index, value))
                );
                all
            };
            for node in ["", "n1", "n2"] {
                let on = |o: &&Object| matches!(o, Object::Pod(p) if p.spec.node.as_deref().unwrap_or("") == node);
                assert!(indexed(Index::Node, node).into_values().eq(plain.values().filter(on)));
            }
            assert!(view.namespace("d").eq(plain.values()));
            assert!(indexed(Index::Label, "d/app=a").into_values().eq(plain.values()));
        }
    }

    #[test]
    fn typed_reads() {
        let views = Views::of(&[Kind::POD], [pod("p", "n1")]);
        assert_eq!(views.list::<k8s_openapi::api::core::v1::Pod>("d").map(Pod::name).collect::<Vec<_>>(), ["p"]);
        assert_eq!(views.orphans::<k8s_openapi::api::core::v1::Pod>("d").count(), 1);
    }
}
