//! Watchers: who is told of a change. They are indexed by what they select, so that thousands of node agents cost
//! nothing for pods of other nodes.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::cache::CacheEvent;
use super::{ConnId, Out, fields};
use crate::api::{FromServer, ReqId, WatchEvent, WatchOptions};
use crate::object::{FieldSelector, Kind, Object, Revision, Selector};

/// Where a watcher is found.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Place {
    All(Kind),
    Namespace(Kind, Arc<str>),
    Node(Arc<str>),
    Name(Kind, Arc<str>),
}

#[derive(Debug)]
struct Watcher {
    conn: ConnId,
    id: ReqId,
    place: Place,
    kind: Kind,
    namespace: Arc<str>,
    labels: Selector,
    fields: FieldSelector,
    bookmarks: bool,
    /// The revision that the client has been told of.
    sent: Revision,
}

impl Watcher {
    fn matches(&self, object: &Object) -> bool {
        (self.namespace.is_empty() || *self.namespace == *object.namespace())
            && (self.labels.is_everything() || self.labels.matches(object.labels()))
            && (self.fields.terms.is_empty() || self.fields.matches(|path| fields::value(object, path)))
    }

    /// What the watcher sees of a change, if anything.
    fn view(&self, change: &CacheEvent) -> Option<WatchEvent> {
        let was = change.old.as_ref().filter(|o| self.matches(o));
        let is = change.new.as_ref().filter(|o| self.matches(o));
        match (was, is) {
            (None, Some(new)) => Some(WatchEvent::Added(new.clone())),
            (Some(_), Some(new)) => Some(WatchEvent::Modified(new.clone())),
            (Some(old), None) => {
                let mut last = old.clone();
                last.set_rv(change.rv);
                Some(WatchEvent::Deleted(last))
            }
            (None, None) => None,
        }
    }
}

/// All watchers of a server.
#[derive(Debug, Default)]
pub(super) struct Watchers {
    slots: Vec<Option<Watcher>>,
    free: Vec<u32>,
    by_id: BTreeMap<(ConnId, ReqId), u32>,
    places: BTreeMap<Place, Vec<u32>>,
}

impl Watchers {
    /// Registers a watcher that has been told of everything up to `sent`.
    pub fn add(
        &mut self,
        conn: ConnId,
        id: ReqId,
        kind: Kind,
        namespace: Arc<str>,
        options: WatchOptions,
        sent: Revision,
    ) {
        let place = if let Some(node) = options.fields.required("spec.nodeName").filter(|_| kind == Kind::POD) {
            Place::Node(Arc::from(node))
        } else if let Some(name) = options.fields.required("metadata.name") {
            Place::Name(kind, Arc::from(name))
        } else if namespace.is_empty() {
            Place::All(kind)
        } else {
            Place::Namespace(kind, Arc::clone(&namespace))
        };
        let watcher = Watcher {
            conn,
            id,
            place: place.clone(),
            kind,
            namespace,
            labels: options.labels,
            fields: options.fields,
            bookmarks: options.bookmarks,
            sent,
        };
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            (self.slots.len() - 1) as u32
        });
        self.slots[slot as usize] = Some(watcher);
        let before = self.by_id.insert((conn, id), slot);
        assert!(before.is_none(), "a request id is used once per connection");
        self.places.entry(place).or_default().push(slot);
    }

    /// Ends one watch. False if there is none.
    pub fn remove(&mut self, conn: ConnId, id: ReqId) -> bool {
        let Some(slot) = self.by_id.remove(&(conn, id)) else { return false };
        let watcher = self.slots[slot as usize].take().expect("by_id names filled slots");
        let list = self.places.get_mut(&watcher.place).expect("a watcher is in its place");
        list.retain(|s| *s != slot);
        if list.is_empty() {
            self.places.remove(&watcher.place);
        }
        self.free.push(slot);
        true
    }

    /// Ends all watches of a connection.
    pub fn remove_connection(&mut self, conn: ConnId) {
        let ids = self.by_id.range((conn, ReqId(0))..=(conn, ReqId(u64::MAX))).map(|((_, id), _)| *id);
        for id in ids.collect::<Vec<_>>() {
            self.remove(conn, id);
        }
    }

    /// Tells everybody concerned of a change.
    pub fn dispatch(&mut self, change: &CacheEvent, out: &mut Vec<Out>) {
        let kind = change.key.kind;
        self.tell(&Place::All(kind), change, out);
        let namespace = change.key.namespace();
        if !namespace.is_empty() && self.watches_namespaces_of(kind) {
            self.tell(&Place::Namespace(kind, Arc::from(namespace)), change, out);
        }
        if kind == Kind::POD {
            let node = |o: &Option<Object>| match o {
                Some(Object::Pod(p)) => p.spec.node.clone(),
                _ => None,
            };
            let (was, is) = (node(&change.old), node(&change.new));
            if let Some(node) = is.clone() {
                self.tell(&Place::Node(node), change, out);
            }
            if let Some(node) = was.filter(|w| is.as_ref() != Some(w)) {
                self.tell(&Place::Node(node), change, out);
            }
        }
        if self.watches_names_of(kind) {
            self.tell(&Place::Name(kind, Arc::from(change.key.name())), change, out);
        }
    }

    fn watches_namespaces_of(&self, kind: Kind) -> bool {
        let first = self.places.range(Place::Namespace(kind, Arc::from(""))..).next();
        matches!(first, Some((Place::Namespace(k, _), _)) if *k == kind)
    }

    fn watches_names_of(&self, kind: Kind) -> bool {
        let first = self.places.range(Place::Name(kind, Arc::from(""))..).next();
        matches!(first, Some((Place::Name(k, _), _)) if *k == kind)
    }

    fn tell(&mut self, place: &Place, change: &CacheEvent, out: &mut Vec<Out>) {
        let Some(list) = self.places.get(place) else { return };
        for slot in list {
            let watcher = self.slots[*slot as usize].as_mut().expect("places name filled slots");
            if change.rv <= watcher.sent {
                continue;
            }
            if let Some(event) = watcher.view(change) {
                watcher.sent = change.rv;
                out.push(Out::Client(watcher.conn, FromServer::Watch(watcher.id, event)));
            }
        }
    }

    /// Tells one watcher of a change that it missed.
    pub fn replay(&mut self, conn: ConnId, id: ReqId, change: &CacheEvent, out: &mut Vec<Out>) {
        let slot = self.by_id[&(conn, id)];
        let watcher = self.slots[slot as usize].as_mut().expect("by_id names filled slots");
        if let Some(event) = watcher.view(change) {
            watcher.sent = change.rv;
            out.push(Out::Client(conn, FromServer::Watch(id, event)));
        }
    }

    /// Sends bookmarks to every `step`-th watcher from `first` on, where there is news.
    pub fn bookmark(&mut self, first: usize, step: usize, revision: Revision, out: &mut Vec<Out>) {
        for watcher in self.slots.iter_mut().skip(first).step_by(step).flatten() {
            if watcher.bookmarks && watcher.sent < revision {
                watcher.sent = revision;
                let event = WatchEvent::Bookmark { rv: revision, initial_events_end: false };
                out.push(Out::Client(watcher.conn, FromServer::Watch(watcher.id, event)));
            }
        }
    }

    /// Whether a matching object would be shown to a watch with these options.
    pub fn selects(namespace: &str, options: &WatchOptions, object: &Object) -> bool {
        (namespace.is_empty() || namespace == object.namespace())
            && options.labels.matches(object.labels())
            && options.fields.matches(|path| fields::value(object, path))
    }

    /// How many there are, of a kind.
    pub fn count(&self, kind: Kind) -> usize {
        self.slots.iter().flatten().filter(|w| w.kind == kind).count()
    }
}
