//! Reads: get, list and the start of a watch, each as fresh as the request requires.
//!
//! A read without a resource version is as fresh as the store: the server asks the store for its revision and answers
//! from its cache once the cache has reached that revision. Pages after the first, and `resourceVersionMatch=Exact`,
//! are read from the store at their revision.
//!
//! Source: <https://kubernetes.io/docs/reference/using-api/api-concepts/#resource-versions>.

use std::collections::BTreeMap;
use std::rc::Rc;

use smallvec::smallvec;

use super::cache::{Cache, object_of};
use super::{ApiServer, ConnId, Job, Out, Write, collection, fields, reply, unavailable};
use crate::api::{Call, Cause, Details, ListOptions, ReqId, Response, Rest, Status, WatchOptions};
use crate::limits;
use crate::machine::{Mono, Now};
use crate::object::{Kind, KindInfo, Kinds, Object, ObjectKey, Revision};
use crate::store::{Op, StoreError, StoreKey, StoreReply, StoreRequest, Txn};

/// The type of a read.
#[derive(Debug)]
#[allow(missing_docs)]
pub(super) enum ReadKind {
    Get {
        key: ObjectKey,
        rv: Option<Revision>,
    },
    List {
        kind: Kind,
        namespace: Rc<str>,
        options: ListOptions,
    },
    Watch {
        kind: Kind,
        namespace: Rc<str>,
        options: WatchOptions,
    },
    /// Chooses the objects of a `deletecollection`.
    Victims(Box<collection::Victims>),
}

impl ReadKind {
    /// The read of a call that only reads.
    pub(super) fn of(call: Call) -> ReadKind {
        match call {
            Call::Get { key, rv } => ReadKind::Get { key, rv },
            Call::List { kind, namespace, options } => ReadKind::List { kind, namespace, options },
            Call::Watch { kind, namespace, options } => ReadKind::Watch { kind, namespace, options },
            other => unreachable!("not a read: {other:?}"),
        }
    }
}

/// A read for a client.
#[derive(Debug)]
pub(super) struct Read {
    pub(super) conn: ConnId,
    pub(super) id: ReqId,
    pub(super) what: ReadKind,
}

/// A list that is read from the store page by page until there are enough matching objects.
#[derive(Debug)]
pub(super) struct Page {
    pub(super) conn: ConnId,
    pub(super) id: ReqId,
    kind: Kind,
    namespace: Rc<str>,
    options: ListOptions,
    at: Option<Revision>,
    items: Vec<Object>,
}

/// What waits until the cache reaches a revision.
#[derive(Debug)]
enum Waiting {
    Read(Read),
    Write(Box<Write>),
}

/// Reads and writes that wait for the cache, by revision.
#[derive(Debug, Default)]
pub(super) struct Waits {
    by_revision: BTreeMap<(Revision, u64), (Mono, Waiting)>,
    next: u64,
}

impl Waits {
    fn add(&mut self, now: Now, revision: Revision, waiting: Waiting) {
        self.next += 1;
        self.by_revision.insert((revision, self.next), (now.mono + limits::CACHE_WAIT, waiting));
    }

    pub(super) fn add_write(&mut self, now: Now, revision: Revision, write: Box<Write>) {
        self.add(now, revision, Waiting::Write(write));
    }

    pub(super) fn is_empty(&self) -> bool {
        self.by_revision.is_empty()
    }

    /// Whether anything waits for this revision or an older one.
    pub(super) fn is_due(&self, reached: Revision) -> bool {
        self.by_revision.first_key_value().is_some_and(|((r, _), _)| *r <= reached)
    }

    fn drop_reads(&mut self, gone: impl Fn(&Read) -> bool) {
        self.by_revision.retain(|_, (_, w)| !matches!(w, Waiting::Read(read) if gone(read)));
    }

    pub(super) fn cancel(&mut self, conn: ConnId, id: ReqId) {
        self.drop_reads(|r| r.conn == conn && r.id == id);
    }

    pub(super) fn close(&mut self, conn: ConnId) {
        self.drop_reads(|r| r.conn == conn);
    }
}

impl ApiServer {
    pub(super) fn read(&mut self, now: Now, read: Read, out: &mut Vec<Out>) {
        if let Err(status) = check(&self.config.kinds, &read.what) {
            return reply(read.conn, read.id, Err(status), out);
        }
        let not_older = match &read.what {
            ReadKind::Get { key, rv: None } => {
                let get = Op::Get { key: StoreKey::Object(key.clone()) };
                let txn = Txn { success: smallvec![get], ..Txn::default() };
                let job = Job::Get(read.conn, read.id, key.clone());
                self.ask_store(now, job, StoreRequest::Txn(Box::new(txn)), out);
                return;
            }
            ReadKind::List { options, .. } if options.exact || options.continue_from.is_some() => {
                return self.read_exactly(now, read, out);
            }
            ReadKind::Get { rv, .. } => *rv,
            ReadKind::List { options, .. } => options.rv,
            // A watch-list is consistent unless it asks for a particular revision.
            ReadKind::Watch { options, .. } if options.send_initial_events && options.rv.0 == 0 => None,
            ReadKind::Watch { options, .. } if options.send_initial_events => Some(options.rv),
            ReadKind::Watch { .. } => Some(Revision(0)),
            ReadKind::Victims(_) => None,
        };
        match not_older {
            Some(rv) => self.serve_at(now, rv, read, out),
            None => {
                self.ask_store(now, Job::Revision(Box::new(read)), StoreRequest::Revision, out);
            }
        }
    }

    /// Handles the store's reply with its revision, which is not older than the request.
    pub(super) fn revision_known(&mut self, now: Now, read: Read, answer: StoreReply, out: &mut Vec<Out>) {
        match answer {
            StoreReply::Revision { revision } => self.serve_at(now, revision, read, out),
            StoreReply::Txn { .. }
            | StoreReply::Range { .. }
            | StoreReply::Watching { .. }
            | StoreReply::WatchCanceled { .. }
            | StoreReply::Compacted { .. }
            | StoreReply::Lease { .. }
            | StoreReply::Revoked { .. }
            | StoreReply::ProgressAsked
            | StoreReply::Error(_) => reply(read.conn, read.id, Err(unavailable()), out),
        }
    }

    fn serve_at(&mut self, now: Now, rv: Revision, read: Read, out: &mut Vec<Out>) {
        if rv <= self.cache.revision() {
            self.serve(now, read, out);
        } else {
            self.waits.add(now, rv, Waiting::Read(read));
            self.link.wait_for_revision(now);
        }
    }

    /// Continues all requests that waited for a revision which the cache has reached.
    pub(super) fn serve_waiting(&mut self, now: Now, out: &mut Vec<Out>) {
        let reached = self.cache.revision();
        while self.waits.is_due(reached) {
            let (_, (_, waiting)) = self.waits.by_revision.pop_first().expect("something is due");
            match waiting {
                Waiting::Read(read) => self.serve(now, read, out),
                Waiting::Write(write) => self.write(now, write, out),
            }
        }
    }

    /// Rejects requests that have waited for too long.
    pub(super) fn expire_waiting(&mut self, now: Now, out: &mut Vec<Out>) {
        let late = |(_, (deadline, _)): &(&(Revision, u64), &(Mono, Waiting))| *deadline <= now.mono;
        let late: Vec<(Revision, u64)> = self.waits.by_revision.iter().filter(late).map(|(k, _)| *k).collect();
        for key in late {
            let (_, waiting) = self.waits.by_revision.remove(&key).expect("the key was just listed");
            match waiting {
                Waiting::Read(read) => {
                    let status = too_large(key.0, self.cache.revision());
                    reply(read.conn, read.id, Err(status), out);
                }
                Waiting::Write(write) => self.answer(now, write.origin, Err(unavailable()), out),
            }
        }
    }

    /// Answers from the cache; the cache must be as fresh as the request requires.
    fn serve(&mut self, now: Now, read: Read, out: &mut Vec<Out>) {
        let Read { conn, id, what } = read;
        match what {
            ReadKind::Get { key, .. } => {
                let found = self.cache.get(&key).cloned().map(Response::Object);
                reply(
                    conn,
                    id,
                    found.ok_or_else(|| Status::not_found(&self.config.kinds.info(key.kind), key.name())),
                    out,
                );
            }
            ReadKind::List { kind, namespace, options } => {
                reply(conn, id, Ok(list(&self.cache, kind, &namespace, &options)), out);
            }
            ReadKind::Watch { kind, namespace, options } => {
                self.watchers.start(now, &self.cache, conn, id, kind, namespace, options, out);
            }
            ReadKind::Victims(victims) => self.victims_chosen(now, conn, id, *victims, out),
        }
    }

    fn read_exactly(&mut self, now: Now, read: Read, out: &mut Vec<Out>) {
        let Read { conn, id, what: ReadKind::List { kind, namespace, options } } = read else {
            unreachable!("only lists are read page by page")
        };
        let (at, start) = match &options.continue_from {
            Some(token) => match Token::decode(kind, &namespace, token) {
                Ok(token) => (token.rv, after(&token.last)),
                Err(status) => return reply(conn, id, Err(status), out),
            },
            None => (Some(options.rv.unwrap_or_default()), ObjectKey::range_start(kind, &namespace)),
        };
        let page = Page { conn, id, kind, namespace, options, at, items: Vec::new() };
        self.ask_page(now, page, start, out);
    }

    fn ask_page(&mut self, now: Now, page: Page, start: ObjectKey, out: &mut Vec<Out>) {
        let end = StoreKey::Object(ObjectKey::range_end(page.kind, &page.namespace));
        let limit = if page.options.limit == 0 { 0 } else { page.options.limit.max(limits::PAGE_SIZE) };
        let range = StoreRequest::Range { span: Box::new(StoreKey::Object(start)..end), at: page.at, limit };
        self.ask_store(now, Job::Page(Box::new(page)), range, out);
    }

    pub(super) fn page_read(&mut self, now: Now, mut page: Page, answer: StoreReply, out: &mut Vec<Out>) {
        let (revision, kvs, more, count) = match answer {
            StoreReply::Range { revision, kvs, more, count } => (revision, kvs, more, count),
            StoreReply::Error(error) => return reply(page.conn, page.id, Err(page_error(&page, &error)), out),
            StoreReply::Txn { .. }
            | StoreReply::Watching { .. }
            | StoreReply::WatchCanceled { .. }
            | StoreReply::Compacted { .. }
            | StoreReply::Lease { .. }
            | StoreReply::Revoked { .. }
            | StoreReply::Revision { .. }
            | StoreReply::ProgressAsked => return reply(page.conn, page.id, Err(unavailable()), out),
        };
        let rv = *page.at.get_or_insert(revision);
        let options = &page.options;
        let unfiltered = options.labels.is_everything() && options.fields.terms.is_empty();
        let mut seen = 0;
        for object in kvs.iter().filter_map(|kv| object_of(kv)) {
            if options.limit != 0 && page.items.len() == options.limit {
                break;
            }
            seen += 1;
            if selected(object, options) {
                page.items.push(object.clone());
            }
        }
        let left = count - seen;
        let full = options.limit != 0 && page.items.len() == options.limit;
        if !full && more {
            let last = kvs.last().and_then(|kv| object_of(kv)).expect("there is more only after something").key();
            return self.ask_page(now, page, after(&last), out);
        }
        let last = kvs.get(seen as usize - usize::from(seen > 0)).and_then(|kv| object_of(kv));
        let rest = last.filter(|_| full && left > 0).map(|last| rest(rv, last, unfiltered.then_some(left)));
        let items = Rc::new(page.items);
        reply(page.conn, page.id, Ok(Response::List { items, rv, rest }), out);
    }
}

/// Answers a get that was read from the store.
pub(super) fn got(conn: ConnId, id: ReqId, of: &KindInfo, key: &ObjectKey, answer: StoreReply, out: &mut Vec<Out>) {
    let result = match answer {
        StoreReply::Txn { results, .. } => match results.first().and_then(Option::as_deref).and_then(object_of) {
            Some(object) => Ok(Response::Object(object.clone())),
            None => Err(Status::not_found(of, key.name())),
        },
        StoreReply::Range { .. }
        | StoreReply::Watching { .. }
        | StoreReply::WatchCanceled { .. }
        | StoreReply::Compacted { .. }
        | StoreReply::Lease { .. }
        | StoreReply::Revoked { .. }
        | StoreReply::Revision { .. }
        | StoreReply::ProgressAsked
        | StoreReply::Error(_) => Err(unavailable()),
    };
    reply(conn, id, result, out);
}

fn check(kinds: &Kinds, what: &ReadKind) -> Result<(), Status> {
    match what {
        ReadKind::Get { .. } => Ok(()),
        ReadKind::List { kind, options, .. } => {
            if options.exact && options.continue_from.is_none() {
                match options.rv {
                    None => {
                        return Err(Status::bad_request(
                            "resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden unless \
                             resourceVersion is provided",
                        ));
                    }
                    Some(Revision(0)) => {
                        return Err(Status::bad_request(
                            "resourceVersionMatch: Forbidden: resourceVersionMatch \"exact\" is forbidden for \
                             resourceVersion \"0\"",
                        ));
                    }
                    Some(_) => {}
                }
            }
            if options.continue_from.is_some() && options.rv.is_some_and(|rv| rv.0 != 0) {
                return Err(Status::bad_request("specifying resource version is not allowed when using continue"));
            }
            fields::check(*kind, &kinds.info(*kind), &options.fields)
        }
        ReadKind::Watch { kind, options, .. } => fields::check(*kind, &kinds.info(*kind), &options.fields),
        ReadKind::Victims(victims) => fields::check(victims.kind, &kinds.info(victims.kind), &victims.list.fields),
    }
}

fn selected(object: &Object, options: &ListOptions) -> bool {
    options.labels.matches(object.meta().labels.as_ref()) && fields::matches(object, &options.fields)
}

/// Calls `take` with every matching object in the cache, in order, until it returns `false`.
pub(super) fn select<'a>(
    cache: &'a Cache,
    kind: Kind,
    namespace: &str,
    options: &ListOptions,
    mut take: impl FnMut(&'a ObjectKey, &'a Object) -> bool,
) {
    let mut step = |(key, object): (&'a ObjectKey, &'a Object)| {
        let here = namespace.is_empty() || key.namespace() == namespace;
        !(here && selected(object, options)) || take(key, object)
    };
    let node = options.fields.required("spec.nodeName").filter(|n| kind == Kind::POD && !n.is_empty());
    match (node, options.fields.required("metadata.name")) {
        (Some(node), _) => {
            let _ = cache.pods_of_node(node).all(step);
        }
        (None, Some(name)) if !namespace.is_empty() || cache.stands_alone(kind, name) => {
            let key = ObjectKey::new(kind, namespace, name);
            if let Some((key, object)) = cache.entry(&key) {
                step((key, object));
            }
        }
        _ => {
            let _ = cache.range(kind, namespace).all(step);
        }
    }
}

fn list(cache: &Cache, kind: Kind, namespace: &str, options: &ListOptions) -> Response {
    // With resourceVersion=0 the limit is ignored, as in Kubernetes' watch cache.
    let limit = if options.rv == Some(Revision(0)) { 0 } else { options.limit };
    let mut items = Vec::new();
    let mut left = 0u64;
    select(cache, kind, namespace, options, |_, object| {
        if limit != 0 && items.len() == limit {
            left += 1;
        } else {
            items.push(object.clone());
        }
        true
    });
    let rv = cache.revision();
    let last = items.last().filter(|_| left > 0);
    let unfiltered = options.labels.is_everything() && options.fields.terms.is_empty();
    let rest = last.map(|last| rest(rv, last, unfiltered.then_some(left)));
    Response::List { items: Rc::new(items), rv, rest }
}

fn rest(rv: Revision, last: &Object, remaining: Option<u64>) -> Box<Rest> {
    Box::new(Rest { continue_from: Token { rv: Some(rv), last: last.key() }.encode(), remaining })
}

/// 504 for a revision that the cache has not reached.
fn too_large(wanted: Revision, reached: Revision) -> Status {
    let message = format!("Timeout: Too large resource version: {wanted}, current: {reached}");
    let cause = Cause {
        reason: "ResourceVersionTooLarge".to_owned(),
        message: "Too large resource version".to_owned(),
        field: String::new(),
    };
    let details = Details { causes: vec![cause], retry_after_seconds: Some(1), ..Details::default() };
    Status { details: Some(Box::new(details)), ..Status::timeout(message) }
}

fn page_error(page: &Page, error: &StoreError) -> Status {
    match error {
        StoreError::Compacted { .. } if let Some(token) = &page.options.continue_from => {
            continues_at_newest(page.kind, &page.namespace, token)
        }
        StoreError::Compacted { .. } => Status::expired("The resourceVersion for the provided list is too old."),
        StoreError::FutureRevision { newest } => too_large(page.at.unwrap_or_default(), *newest),
        StoreError::LeaseNotFound
        | StoreError::TooLarge
        | StoreError::NoSpace
        | StoreError::Denied
        | StoreError::Unavailable => unavailable(),
    }
}

/// 410 for a list whose revision is compacted, with a token that takes it up again at the newest revision
/// (`handleCompactedErrorForPaging`).
fn continues_at_newest(kind: Kind, namespace: &str, token: &str) -> Status {
    let status = Status::expired(
        "The provided continue parameter is too old to display a consistent list result. You can start a new list \
         without the continue parameter, or use the continue token in this response to retrieve the remainder of the \
         results. Continuing with the provided token results in an inconsistent list - objects that were created, \
         modified, or deleted between the time the first chunk was returned and now may show up in the list.",
    );
    let continue_from = Token::decode(kind, namespace, token).map(|token| Token { rv: None, ..token }.encode());
    let details = Details { continue_from: continue_from.unwrap_or_default(), ..Details::default() };
    Status { details: Some(Box::new(details)), ..status }
}

/// The smallest key that is greater than `key`.
fn after(key: &ObjectKey) -> ObjectKey {
    ObjectKey::from_path(key.kind, &format!("{}\0", key.path()))
}

/// The continue token of a list; opaque to clients.
struct Token {
    /// `None`: the newest, whichever it is when the list is continued.
    rv: Option<Revision>,
    last: ObjectKey,
}

/// How a token says that its list is continued at the newest revision.
const NEWEST: &str = "-1";

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

impl Token {
    fn encode(&self) -> String {
        let rv = self.rv.map_or(NEWEST.to_owned(), |rv| rv.to_string());
        let text = format!("{rv}:{}", self.last.path());
        let mut encoded = String::new();
        for chunk in text.as_bytes().chunks(3) {
            let word = chunk.iter().fold(0u32, |w, b| w << 8 | u32::from(*b)) << (8 * (3 - chunk.len()));
            for i in 0..=chunk.len() {
                encoded.push(char::from(ALPHABET[(word >> (18 - 6 * i)) as usize & 63]));
            }
        }
        encoded
    }

    /// Reads the token of a list of this namespace; one that leads out of it is none.
    fn decode(kind: Kind, namespace: &str, token: &str) -> Result<Token, Status> {
        let bad = || Status::bad_request("continue key is not valid: unable to decode");
        let mut bytes = Vec::new();
        for chunk in token.as_bytes().chunks(4) {
            let mut word = 0u32;
            for b in chunk {
                word = word << 6 | ALPHABET.iter().position(|a| a == b).ok_or_else(bad)? as u32;
            }
            word <<= 6 * (4 - chunk.len());
            bytes.extend((0..chunk.len() - 1).map(|i| (word >> (16 - 8 * i)) as u8));
        }
        let text = String::from_utf8(bytes).map_err(|_| bad())?;
        let (rv, path) = text.split_once(':').ok_or_else(bad)?;
        let rv = if rv == NEWEST { None } else { Some(Revision(rv.parse().map_err(|_| bad())?)) };
        let last = ObjectKey::from_path(kind, path);
        if namespace.is_empty() || last.namespace() == namespace { Ok(Token { rv, last }) } else { Err(bad()) }
    }
}

#[cfg(test)]
mod tests {
    use super::Token;
    use crate::object::{Kind, ObjectKey, Revision};

    #[test]
    fn tokens_come_back() {
        for path in ["", "a", "ns/name", "ns/näme", "ns/abc", "ns/abcd"] {
            for rv in [Some(Revision(1234)), None] {
                let token = Token { rv, last: ObjectKey::from_path(Kind::POD, path) };
                let back = Token::decode(Kind::POD, "", &token.encode()).unwrap();
                assert_eq!((back.rv, back.last), (token.rv, token.last));
            }
        }
        for bad in ["", "%", "A", "AAAA", "MTIz"] {
            assert!(Token::decode(Kind::POD, "", bad).is_err(), "{bad}");
        }
        let token = Token { rv: Some(Revision(1)), last: ObjectKey::new(Kind::POD, "a", "x") }.encode();
        let into = |namespace| Token::decode(Kind::POD, namespace, &token).is_ok();
        assert_eq!(["a", "", "b"].map(into), [true, true, false], "a token leads into no other namespace");
    }
}
