//! Get, list and watch: from the cache, once it is as fresh as the caller asks.

use std::sync::Arc;

use super::cache::CacheEvent;
use super::watch::Watchers;
use super::{ApiServer, ConnId, Job, Out, Pending, fields};
use crate::api::{Call, FromServer, ListOptions, ReqId, Response, Status, WatchEvent, WatchOptions};
use crate::machine::Now;
use crate::object::{Kind, Object, ObjectKey, Revision};
use crate::store::{KeyValue, StoreKey, StoreRequest, Stored};

/// A continue token: the revision of the list and the last key of the page before.
fn token(rv: Revision, last: &ObjectKey) -> String {
    format!("{}:{}", rv.0, last.path())
}

fn parse_token(kind: Kind, token: &str) -> Result<(Revision, ObjectKey), Status> {
    let parsed = token.split_once(':').and_then(|(rv, path)| Some((Revision(rv.parse().ok()?), path)));
    let (rv, path) = parsed.ok_or_else(|| Status::bad_request("continue key is not valid: malformed token"))?;
    Ok((rv, ObjectKey::from_path(kind, path)))
}

impl ApiServer {
    /// The revision that a read asks the cache to have reached; `None`: as fresh as the store.
    pub(super) fn freshness(call: &Call) -> Option<Revision> {
        match call {
            Call::Get { rv, .. } => *rv,
            Call::List { options, .. } if options.continue_from.is_some() || options.exact => Some(Revision(0)),
            Call::List { options, .. } => options.rv,
            Call::Watch { options, .. } => Some(options.rv),
            _ => None,
        }
    }

    /// Answers a read from the cache as it is.
    pub(super) fn read(&mut self, now: Now, job: Job, out: &mut Vec<Out>) {
        let (conn, id) = (job.conn, job.id);
        match job.request.call {
            Call::Get { key, .. } => {
                let found = self.cache.get(&key).cloned().map(Response::Object);
                let result = found.ok_or_else(|| Status::not_found(key.kind, key.name()));
                out.push(Out::Client(conn, FromServer::Reply(id, result)));
            }
            Call::List { kind, ref namespace, ref options } => {
                if let Err(status) = fields::check(kind, &options.fields) {
                    out.push(Out::Client(conn, FromServer::Reply(id, Err(status))));
                    return;
                }
                match self.list_at(kind, options) {
                    Err(status) => out.push(Out::Client(conn, FromServer::Reply(id, Err(status)))),
                    Ok(None) => {
                        let rv = self.cache.revision();
                        let objects = self.cache.range(kind, namespace, None).map(|(k, o)| (k.clone(), o.clone()));
                        let response = page(objects, kind, options, rv);
                        out.push(Out::Client(conn, FromServer::Reply(id, Ok(response))));
                    }
                    Ok(Some((rv, after))) => {
                        let start = after.map_or_else(
                            || ObjectKey::range_start(kind, namespace),
                            |k| {
                                // The smallest key after the last one of the page before.
                                ObjectKey::from_path(kind, &format!("{}\0", k.path()))
                            },
                        );
                        let request = StoreRequest::Range {
                            start: StoreKey::Object(start),
                            end: StoreKey::Object(ObjectKey::range_end(kind, namespace)),
                            at: Some(rv),
                            limit: 0,
                        };
                        self.ask(now, request, Pending::Page { conn, id, kind, options: options.clone(), rv }, out);
                    }
                }
            }
            Call::Watch { kind, namespace, options } => self.watch(conn, id, kind, namespace, options, out),
            other => unreachable!("not a read: {other:?}"),
        }
    }

    /// Whether a list has to be read at an old revision from the store, and from where on.
    fn list_at(&self, kind: Kind, options: &ListOptions) -> Result<Option<(Revision, Option<ObjectKey>)>, Status> {
        if let Some(text) = &options.continue_from {
            let (rv, after) = parse_token(kind, text)?;
            return Ok(Some((rv, Some(after))));
        }
        match options.rv {
            Some(rv) if options.exact && rv.0 != 0 => Ok(Some((rv, None))),
            _ => Ok(None),
        }
    }

    /// A page that the store has read at an old revision.
    pub(super) fn page_from_store(
        &mut self,
        conn: ConnId,
        id: ReqId,
        kind: Kind,
        options: &ListOptions,
        rv: Revision,
        kvs: Vec<KeyValue>,
        out: &mut Vec<Out>,
    ) {
        let objects = kvs.into_iter().filter_map(|kv| match (kv.key, kv.value) {
            (StoreKey::Object(key), Stored::Object(object)) => Some((key, object)),
            _ => None,
        });
        let response = page(objects, kind, options, rv);
        out.push(Out::Client(conn, FromServer::Reply(id, Ok(response))));
    }

    fn watch(
        &mut self,
        conn: ConnId,
        id: ReqId,
        kind: Kind,
        namespace: Arc<str>,
        options: WatchOptions,
        out: &mut Vec<Out>,
    ) {
        if let Err(status) = fields::check(kind, &options.fields) {
            out.push(Out::Client(conn, FromServer::Reply(id, Err(status))));
            return;
        }
        let send = |event, out: &mut Vec<Out>| out.push(Out::Client(conn, FromServer::Watch(id, event)));
        let revision = self.cache.revision();
        if options.rv.0 == 0 || options.send_initial_events {
            for (_, object) in self.cache.range(kind, &namespace, None) {
                if Watchers::selects(&namespace, &options, object) {
                    send(WatchEvent::Added(object.clone()), out);
                }
            }
            if options.send_initial_events {
                send(WatchEvent::Bookmark { rv: revision, initial_events_end: true }, out);
            }
            self.watchers.add(conn, id, kind, namespace, options, revision);
            return;
        }
        let from = options.rv;
        let missed: Vec<CacheEvent> = match self.cache.since(kind, from) {
            Ok(missed) => missed.cloned().collect(),
            Err(oldest) => {
                let text = format!("too old resource version: {from} ({oldest})");
                out.push(Out::Client(conn, FromServer::Reply(id, Err(Status::expired(text)))));
                return;
            }
        };
        // Registered first, so that what was missed goes the same way as what comes.
        self.watchers.add(conn, id, kind, namespace, options, from);
        for change in &missed {
            self.watchers.replay(conn, id, change, out);
        }
    }
}

/// One page of a list, with the token of the next.
fn page(
    objects: impl Iterator<Item = (ObjectKey, Object)>,
    _kind: Kind,
    options: &ListOptions,
    rv: Revision,
) -> Response {
    let wanted =
        |o: &Object| options.labels.matches(o.labels()) && options.fields.matches(|path| fields::value(o, path));
    let limit = if options.limit == 0 { usize::MAX } else { options.limit };
    let mut items = Vec::new();
    let (mut last, mut left) = (None, 0u64);
    for (key, object) in objects.filter(|(_, o)| wanted(o)) {
        if items.len() < limit {
            items.push(object);
            last = Some(key);
        } else {
            left += 1;
        }
    }
    let continue_from = last.filter(|_| left > 0).map(|key| token(rv, &key));
    Response::List { items: Arc::new(items), rv, continue_from, remaining: (left > 0).then_some(left) }
}
