//! Client watches, indexed so that the cost of an event depends only on the watches that it may concern: watches of a
//! whole kind, a namespace, a name, or the pods of a node are looked up separately.

use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::time::Duration;

use super::cache::{Cache, node_of, object_of};
use super::{ConnId, Out, fields, reply};
use crate::api::{FromServer, ReqId, Status, WatchEvent, WatchOptions};
use crate::limits;
use crate::machine::{Mono, Now};
use crate::object::{FieldSelector, Kind, NameMap, Object, ObjectKey, Revision, Selector};
use crate::store::{KeyValue, StoreEvent, StoreKey};

/// A watcher's place in the index of its kind.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Place {
    All,
    Namespace(Rc<str>),
    Name(Rc<str>),
    Node(Rc<str>),
}

#[derive(Debug)]
struct Watcher {
    conn: ConnId,
    id: ReqId,
    kind: Kind,
    namespace: Rc<str>,
    labels: Selector,
    fields: FieldSelector,
    place: Place,
    /// The watch has no selector beyond its place in the index.
    plain: bool,
    /// Events up to this revision are older than the watch.
    floor: Revision,
    /// The revision that the client knows it has reached.
    told: Revision,
    serial: u64,
}

impl Watcher {
    fn matches(&self, object: &Object) -> bool {
        (self.namespace.is_empty() || object.namespace() == &*self.namespace)
            && self.labels.matches(object.meta().labels.as_ref())
            && fields::matches(object, &self.fields)
    }

    /// Whether an event is of the watch's namespace. The index sees to it for the events to come, not for those missed.
    fn is_within(&self, event: &StoreEvent) -> bool {
        let StoreKey::Object(key) = event.key() else { return false };
        self.namespace.is_empty() || key.namespace() == &*self.namespace
    }

    /// The event as this watcher receives it: objects enter and leave its selection. `None` if it does not concern this
    /// watcher.
    #[inline(always)]
    fn see(&self, event: &StoreEvent) -> Option<WatchEvent> {
        let old = event.previous.as_deref().and_then(object_of);
        let new = event.value.as_deref().and_then(object_of);
        let (had, has) =
            if self.plain { (old, new) } else { (old.filter(|o| self.matches(o)), new.filter(|o| self.matches(o))) };
        match (had, has) {
            (None, None) => None,
            (None, Some(new)) => Some(WatchEvent::Added(new.clone())),
            (Some(_), Some(new)) => Some(WatchEvent::Modified(new.clone())),
            (Some(old), None) => {
                let mut last = old.clone();
                last.set_rv(event.revision);
                Some(WatchEvent::Deleted(last))
            }
        }
    }
}

#[derive(Debug, Default)]
struct KindIndex {
    all: Vec<u32>,
    by_namespace: NameMap<Vec<u32>>,
    by_name: NameMap<Vec<u32>>,
    by_node: NameMap<Vec<u32>>,
}

impl KindIndex {
    fn add(&mut self, place: &Place, slot: u32) {
        match place {
            Place::All => &mut self.all,
            Place::Namespace(ns) => self.by_namespace.entry(ns),
            Place::Name(name) => self.by_name.entry(name),
            Place::Node(node) => self.by_node.entry(node),
        }
        .push(slot);
    }

    fn remove(&mut self, place: &Place, slot: u32) {
        let (map, key) = match place {
            Place::All => return self.all.retain(|s| *s != slot),
            Place::Namespace(ns) => (&mut self.by_namespace, ns),
            Place::Name(name) => (&mut self.by_name, name),
            Place::Node(node) => (&mut self.by_node, node),
        };
        let slots = map.get_mut(key).expect("a watcher is in its index");
        slots.retain(|s| *s != slot);
        if slots.is_empty() {
            map.remove(key);
        }
    }
}

/// All watches of a server.
#[derive(Debug, Default)]
pub(super) struct Watchers {
    slots: Vec<Option<Watcher>>,
    free: Vec<u32>,
    by_request: BTreeMap<(ConnId, ReqId), u32>,
    kinds: Vec<KindIndex>,
    /// Times of bookmarks, sorted: `(due, slot, serial)`.
    bookmarks: VecDeque<(Mono, u32, u64)>,
    next_serial: u64,
    /// Scratch space for the slots that an event may concern.
    concerned: Vec<u32>,
}

impl Watchers {
    /// How many watches a kind has.
    pub(super) fn count(&self, kind: Kind) -> usize {
        self.slots.iter().flatten().filter(|w| w.kind == kind).count()
    }

    /// Starts a watch and sends the events that it missed. The cache must have reached the requested revision.
    pub(super) fn start(
        &mut self,
        now: Now,
        cache: &Cache,
        conn: ConnId,
        id: ReqId,
        kind: Kind,
        namespace: Rc<str>,
        options: WatchOptions,
        out: &mut Vec<Out>,
    ) {
        let WatchOptions { labels, fields, rv, bookmarks, send_initial_events, timeout } = options;
        let bookmark = bookmarks.then(|| first_bookmark(timeout));
        let place = match (fields.required("spec.nodeName"), fields.required("metadata.name")) {
            (Some(node), _) if kind == Kind::POD => Place::Node(Rc::from(node)),
            (_, Some(name)) => Place::Name(Rc::from(name)),
            _ if !namespace.is_empty() => Place::Namespace(Rc::clone(&namespace)),
            _ => Place::All,
        };
        let plain =
            labels.is_everything() && fields.terms.is_empty() && matches!(place, Place::All | Place::Namespace(_));
        let mut watcher = Watcher {
            conn,
            id,
            kind,
            namespace,
            labels,
            fields,
            place,
            plain,
            floor: rv,
            told: rv,
            serial: self.next_serial,
        };
        if rv.0 == 0 || send_initial_events {
            watcher.send_everything(cache, out);
            let rv = cache.revision();
            (watcher.floor, watcher.told) = (rv, rv);
            if send_initial_events {
                out.push(Out::Client(
                    conn,
                    FromServer::Watch(id, WatchEvent::Bookmark { rv, initial_events_end: true }),
                ));
            }
        } else {
            match cache.events_after(kind, rv) {
                Err(oldest) => {
                    let text = format!("too old resource version: {rv} ({oldest})");
                    return reply(conn, id, Err(Status::expired(text)), out);
                }
                Ok(events) => {
                    for event in events {
                        if watcher.is_within(event)
                            && let Some(seen) = watcher.see(event)
                        {
                            watcher.told = event.revision;
                            out.push(Out::Client(conn, FromServer::Watch(id, seen)));
                        }
                    }
                    // The client may have seen a revision on another server that is ahead of this cache.
                    watcher.floor = rv.max(cache.revision());
                }
            }
        }
        self.register(now, watcher, bookmark);
    }

    fn register(&mut self, now: Now, watcher: Watcher, bookmark: Option<Duration>) {
        self.cancel(watcher.conn, watcher.id);
        self.next_serial += 1;
        let kind = usize::from(watcher.kind.0);
        if self.kinds.len() <= kind {
            self.kinds.resize_with(kind + 1, KindIndex::default);
        }
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            self.slots.len() as u32 - 1
        });
        if let Some(after) = bookmark {
            // Most come at the end.
            let due = (now.mono + after, slot, watcher.serial);
            let at = self.bookmarks.partition_point(|other| *other <= due);
            self.bookmarks.insert(at, due);
        }
        self.kinds[kind].add(&watcher.place, slot);
        self.by_request.insert((watcher.conn, watcher.id), slot);
        self.slots[slot as usize] = Some(watcher);
    }

    /// Ends a watch without a message; an unknown watch is ignored.
    pub(super) fn cancel(&mut self, conn: ConnId, id: ReqId) {
        let Some(slot) = self.by_request.remove(&(conn, id)) else { return };
        let watcher = self.slots[slot as usize].take().expect("an indexed slot is taken");
        self.kinds[usize::from(watcher.kind.0)].remove(&watcher.place, slot);
        self.free.push(slot);
    }

    /// Ends the watches of a connection.
    pub(super) fn close(&mut self, conn: ConnId) {
        let range = (conn, ReqId(0))..=(conn, ReqId(u64::MAX));
        let ids: Vec<ReqId> = self.by_request.range(range).map(|((_, id), _)| *id).collect();
        for id in ids {
            self.cancel(conn, id);
        }
    }

    /// Ends all watches: the server has missed events, so clients must relist.
    pub(super) fn end_all(&mut self, out: &mut Vec<Out>) {
        for ((conn, id), _) in std::mem::take(&mut self.by_request) {
            reply(conn, id, Err(Status::expired("the watch cache was loaded anew; list again")), out);
        }
        let next_serial = self.next_serial;
        *self = Watchers { next_serial, ..Watchers::default() };
    }

    /// Ends all watches of a kind that is no longer served.
    pub(super) fn end_kind(&mut self, kind: Kind, out: &mut Vec<Out>) {
        let of_kind = |w: &&Watcher| w.kind == kind;
        let ended: Vec<(ConnId, ReqId)> = self.slots.iter().flatten().filter(of_kind).map(|w| (w.conn, w.id)).collect();
        for (conn, id) in ended {
            self.cancel(conn, id);
            reply(conn, id, Err(Status::not_served()), out);
        }
    }

    /// Sends an event to the watchers that it concerns.
    #[inline(always)]
    pub(super) fn dispatch(&mut self, key: &ObjectKey, event: &StoreEvent, out: &mut Vec<Out>) {
        let Some(index) = self.kinds.get(usize::from(key.kind.0)) else { return };
        let concerned = &mut self.concerned;
        concerned.clear();
        concerned.extend_from_slice(&index.all);
        if !index.by_namespace.is_empty() {
            concerned.extend(index.by_namespace.get(key.namespace()).into_iter().flatten());
        }
        if !index.by_name.is_empty() {
            concerned.extend(index.by_name.get(key.name()).into_iter().flatten());
        }
        if !index.by_node.is_empty() {
            let (old, new) = (node_name(event.previous.as_deref()), node_name(event.value.as_deref()));
            concerned.extend(old.and_then(|n| index.by_node.get(n)).into_iter().flatten());
            if new != old {
                concerned.extend(new.and_then(|n| index.by_node.get(n)).into_iter().flatten());
            }
        }
        for slot in concerned.iter() {
            let watcher = self.slots[*slot as usize].as_mut().expect("an indexed slot is taken");
            if event.revision <= watcher.floor {
                continue;
            }
            if let Some(seen) = watcher.see(event) {
                watcher.told = event.revision;
                out.push(Out::Client(watcher.conn, FromServer::Watch(watcher.id, seen)));
            }
        }
    }

    /// Sends the bookmarks that are due, except to watchers for which nothing has happened since their last message.
    pub(super) fn send_bookmarks(&mut self, now: Now, cache: &Cache, out: &mut Vec<Out>) {
        while let Some((due, slot, serial)) = self.bookmarks.front().copied()
            && due <= now.mono
        {
            self.bookmarks.pop_front();
            let Some(watcher) = self.slots[slot as usize].as_mut().filter(|w| w.serial == serial) else { continue };
            self.bookmarks.push_back((now.mono + limits::BOOKMARK_INTERVAL, slot, serial));
            if cache.last_event(watcher.kind) > watcher.told {
                let rv = cache.revision();
                watcher.told = rv;
                let event = WatchEvent::Bookmark { rv, initial_events_end: false };
                out.push(Out::Client(watcher.conn, FromServer::Watch(watcher.id, event)));
            }
        }
    }
}

/// When a watch gets its first bookmark: after the interval, or before its time-out, if that is sooner (the API
/// server's `nextBookmarkTime`).
fn first_bookmark(timeout: Option<Duration>) -> Duration {
    let before = timeout.map(|timeout| timeout.saturating_sub(limits::BOOKMARK_BEFORE_TIMEOUT));
    let before = before.filter(|before| !before.is_zero());
    before.unwrap_or(limits::BOOKMARK_INTERVAL).min(limits::BOOKMARK_INTERVAL)
}

/// The node of a pod; empty if it has none.
fn node_name(kv: Option<&KeyValue>) -> Option<&str> {
    let object = object_of(kv?)?;
    Some(node_of(object).map_or("", |n| n))
}

impl Watcher {
    fn send_everything(&self, cache: &Cache, out: &mut Vec<Out>) {
        let mut send = |object: &Object| {
            if self.plain || self.matches(object) {
                out.push(Out::Client(self.conn, FromServer::Watch(self.id, WatchEvent::Added(object.clone()))));
            }
        };
        match &self.place {
            Place::Node(node) if !node.is_empty() => cache.pods_of_node(node).for_each(|(_, o)| send(o)),
            Place::Name(name) if !self.namespace.is_empty() || cache.stands_alone(self.kind, name) => {
                cache.get(&ObjectKey::new(self.kind, &self.namespace, name)).into_iter().for_each(send);
            }
            Place::All | Place::Namespace(_) | Place::Name(_) | Place::Node(_) => {
                cache.range(self.kind, &self.namespace).for_each(|(_, o)| send(o));
            }
        }
    }
}
