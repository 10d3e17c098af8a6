//! The event recorder, with correlation as in client-go's `EventCorrelator`: equal events are counted, similar ones are
//! aggregated, floods are dropped.
//!
//! Events are best-effort: a write that fails after one retry is dropped, and every queue here is bounded.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{EventSource, ObjectReference};
use serde_json::json;
use smallvec::SmallVec;

use crate::api::{
    Call, FromServer, Patch, Precondition, Reason, ReqId, ReqIds, Request, Response, Status, Subresource, ToServer,
    WriteOptions,
};
use crate::limits;
use crate::machine::{Deadline, Mono, Now, Wall};
use crate::object::{Event, EventOrigin, EventSpec, Object, ObjectMeta, Stamp, Text};
use crate::random::{Rng, mix, mix_bytes};

/// Entries in each of the correlator's caches (client-go `maxLruCacheEntries`).
const CACHE_ENTRIES: usize = 4096;
/// Burst of events that one object may produce (client-go `defaultSpamBurst`).
const SPAM_BURST: u32 = 25;
/// Time after which one more event is allowed (client-go `defaultSpamQPS`: one in five minutes).
const SPAM_REFILL: Duration = Duration::from_secs(300);
/// How many different messages with one reason cause aggregation (client-go `defaultAggregateMaxEvents`).
const AGGREGATE_MESSAGES: usize = 10;
/// Interval within which they count as similar (client-go `defaultAggregateIntervalInSeconds`).
const AGGREGATE_INTERVAL: Duration = Duration::from_secs(600);
/// How many different messages a recorder shares among its events.
const SHARED_MESSAGES: usize = 64;
/// Limit of writes that are in flight or wait for a retry (client-go `maxQueuedEvents`).
const MAX_PENDING: usize = 1000;
/// Delay before the only retry (client-go `defaultSleepDuration`).
const RETRY_AFTER: Duration = Duration::from_secs(10);

/// A least-recently-used cache, keyed by the hash of the key. It keeps the order of use only once it is full: most
/// recorders (there is one for each node) never are.
#[derive(Debug)]
struct Lru<V> {
    entries: BTreeMap<u64, (u64, V)>,
    by_use: Option<BTreeMap<u64, u64>>,
    clock: u64,
}

impl<V> Lru<V> {
    fn new() -> Lru<V> {
        Lru { entries: BTreeMap::new(), by_use: None, clock: 0 }
    }

    /// Returns the entry of a key, creating it if absent, and marks it as the most recently used.
    fn touch(&mut self, key: u64, make: impl FnOnce() -> V) -> &mut V {
        self.clock += 1;
        let clock = self.clock;
        let entry = self.entries.entry(key).or_insert_with(|| (0, make()));
        let before = std::mem::replace(&mut entry.0, clock);
        if let Some(by_use) = &mut self.by_use {
            by_use.remove(&before);
            by_use.insert(clock, key);
        }
        if self.entries.len() > CACHE_ENTRIES {
            let order = || self.entries.iter().map(|(key, (used, _))| (*used, *key)).collect();
            let (_, oldest) = self.by_use.get_or_insert_with(order).pop_first().expect("there are entries");
            self.entries.remove(&oldest);
        }
        &mut self.entries.get_mut(&key).expect("it was just put there, as the newest").1
    }

    fn peek_mut(&mut self, key: u64) -> Option<&mut V> {
        self.entries.get_mut(&key).map(|(_, v)| v)
    }
}

/// Token bucket for the events of one object.
#[derive(Debug)]
struct Bucket {
    tokens: u32,
    since: Mono,
    /// The object, as its events name it.
    about: Rc<ObjectReference>,
}

/// The different messages that were recorded for one reason.
#[derive(Debug)]
struct Similar {
    /// In order; fewer than are aggregated.
    messages: SmallVec<[u64; 2]>,
    last: Mono,
}

/// An Event as this recorder believes it to be in the cluster.
#[derive(Debug)]
struct Logged {
    event: Event,
    /// Whether the Event has been created, as far as this recorder knows.
    created: bool,
    /// A write of it is in flight or waits for its retry.
    busy: bool,
    /// Its count was increased while it was busy.
    dirty: bool,
    count: i32,
}

#[derive(Debug)]
struct Sent {
    log: u64,
    until: Mono,
    create: bool,
    retried: bool,
}

/// The type of an Event.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum EventType {
    /// Something expected happened.
    Normal,
    /// Something needs attention.
    Warning,
}

impl EventType {
    /// Its name in the API.
    fn name(self) -> &'static str {
        match self {
            EventType::Normal => "Normal",
            EventType::Warning => "Warning",
        }
    }
}

/// Records the Events of one component.
#[derive(Debug)]
pub struct Recorder {
    component: Rc<str>,
    /// What all its events say of who reports them.
    origin: Rc<EventOrigin>,
    /// Messages that came lately: those that read alike are held once.
    messages: BTreeSet<Rc<str>>,
    enabled: bool,
    ids: ReqIds,
    rng: Rng,
    spam: Lru<Bucket>,
    similar: Lru<Similar>,
    logged: Lru<Logged>,
    sent: BTreeMap<ReqId, Sent>,
    retries: VecDeque<(Mono, u64)>,
}

impl Recorder {
    /// Creates a recorder for a component (`kubelet`, `default-scheduler`) on a host (may be empty). If `enabled` is
    /// false, it does nothing.
    pub fn new(component: Rc<str>, host: Rc<str>, enabled: bool, part: u16, rng: Rng) -> Recorder {
        let text = |s: &str| (!s.is_empty()).then(|| s.to_owned());
        let origin = EventOrigin {
            source: Some(EventSource { component: text(&component), host: text(&host) }),
            reporting_component: text(&component),
            reporting_instance: text(&host),
        };
        Recorder {
            component,
            origin: Rc::new(origin),
            messages: BTreeSet::new(),
            enabled,
            ids: ReqIds::new(part),
            rng,
            spam: Lru::new(),
            similar: Lru::new(),
            logged: Lru::new(),
            sent: BTreeMap::new(),
            retries: VecDeque::new(),
        }
    }

    /// Whether this recorder is enabled; if not, a caller need not format a message.
    pub fn is_enabled(&self) -> bool {
        self.enabled
    }

    /// Records an event about the object `about`.
    pub fn record(
        &mut self,
        now: Now,
        about: &Object,
        type_: EventType,
        reason: &str,
        message: &str,
        out: &mut Vec<ToServer>,
    ) {
        if !self.enabled || self.sent.len() + self.retries.len() >= MAX_PENDING {
            return;
        }
        let object = mix_bytes(mix(1, u64::from(about.kind().0)), about.uid().as_bytes());
        let object = mix_bytes(mix_bytes(object, about.namespace().as_bytes()), about.name().as_bytes());
        let class = mix_bytes(mix(object, type_ as u64), reason.as_bytes());
        let single = mix_bytes(class, message.as_bytes());
        let combined = self.is_combined(now, class, single);
        let log = if combined { class } else { single };
        // The token bucket is checked last, as in client-go: a dropped event still counts as similar.
        let Some(reference) = self.take_token(now, object, about) else { return };
        let text = self.text(message, combined);
        let begin = EventSpec {
            about: reference,
            about_revision: about.rv().0,
            origin: Rc::clone(&self.origin),
            type_: Text::from(type_.name()),
            reason: Text::from(reason),
            message: text,
            first_timestamp: Stamp::of(now.wall),
            last_timestamp: Stamp::of(now.wall),
            count: Some(1),
            rest: None,
        };
        self.log(now, log, begin);
        self.write(now, log, out);
    }

    /// Handles a message from the server; ignores messages for other parts.
    pub fn handle(&mut self, now: Now, input: &FromServer, out: &mut Vec<ToServer>) {
        match input {
            FromServer::Reply(id, result) => {
                if let Some(sent) = self.sent.remove(id) {
                    self.take_reply(now, sent, result, out);
                }
            }
            FromServer::Disconnected => {
                let lost = std::mem::take(&mut self.sent);
                lost.into_values().for_each(|sent| self.retry(now, &sent));
            }
            FromServer::Watch(..) => {}
        }
    }

    /// Retries writes whose reply was lost; drops those that were lost twice.
    pub fn handle_timeout(&mut self, now: Now, out: &mut Vec<ToServer>) {
        while let Some(entry) = self.sent.first_entry() {
            if entry.get().until > now.mono {
                break;
            }
            let sent = entry.remove();
            self.retry(now, &sent);
        }
        while self.retries.front().is_some_and(|(at, _)| *at <= now.mono) {
            let (_, log) = self.retries.pop_front().expect("it was there in the line above");
            self.send(now, log, true, out);
        }
    }

    /// When `handle_timeout` is next needed.
    pub fn poll_timeout(&self) -> Option<Deadline> {
        let sent = self.sent.first_key_value().map(|(_, s)| Deadline { at: s.until, why: "event write timed out" });
        let retry = self.retries.front().map(|(at, _)| Deadline { at: *at, why: "retry event write" });
        Deadline::earlier(sent, retry)
    }

    /// Takes one of an object's tokens, if any is left; answers how events name the object.
    fn take_token(&mut self, now: Now, object: u64, about: &Object) -> Option<Rc<ObjectReference>> {
        let make = || Bucket { tokens: SPAM_BURST, since: now.mono, about: Rc::new(reference(about)) };
        let bucket = self.spam.touch(object, make);
        let refilled = (now.mono - bucket.since).as_nanos() / SPAM_REFILL.as_nanos();
        if refilled > 0 {
            let refilled = u32::try_from(refilled).unwrap_or(u32::MAX);
            bucket.tokens = bucket.tokens.saturating_add(refilled).min(SPAM_BURST);
            bucket.since = bucket.since + SPAM_REFILL.saturating_mul(refilled);
        }
        let some = bucket.tokens > 0;
        bucket.tokens -= u32::from(some);
        some.then(|| Rc::clone(&bucket.about))
    }

    /// A message, held once by all events that say it.
    fn text(&mut self, message: &str, combined: bool) -> Text {
        let combined = combined.then(|| combined_message(message));
        let message = combined.as_deref().unwrap_or(message);
        if let Some(known) = self.messages.get(message) {
            return Text::from(known);
        }
        if self.messages.len() >= SHARED_MESSAGES {
            self.messages.clear();
        }
        let message: Rc<str> = Rc::from(message);
        self.messages.insert(Rc::clone(&message));
        Text::from(&message)
    }

    /// Whether there were so many different messages for this reason that they are now aggregated.
    fn is_combined(&mut self, now: Now, class: u64, message: u64) -> bool {
        let similar = self.similar.touch(class, || Similar { messages: SmallVec::new(), last: now.mono });
        if now.mono - similar.last > AGGREGATE_INTERVAL {
            similar.messages.clear();
        }
        if let Err(place) = similar.messages.binary_search(&message) {
            similar.messages.insert(place, message);
        }
        similar.last = now.mono;
        let combined = similar.messages.len() >= AGGREGATE_MESSAGES;
        if combined {
            similar.messages.remove(0);
        }
        combined
    }

    /// Increases the count of the event, or creates it.
    fn log(&mut self, now: Now, log: u64, begin: EventSpec) {
        let (stamp, message, rng) = (begin.last_timestamp, begin.message.clone(), &mut self.rng);
        let entry = self.logged.touch(log, || Logged {
            event: new_event(now.wall, begin, rng),
            created: false,
            busy: false,
            dirty: false,
            count: 0,
        });
        entry.count = entry.count.saturating_add(1);
        if entry.count > 1 {
            let count = entry.count;
            let spec = entry.event.spec_mut();
            (spec.count, spec.last_timestamp, spec.message) = (Some(count), stamp, message);
        }
    }

    /// Writes the current state of the entry, or marks it dirty if a write is in flight.
    fn write(&mut self, now: Now, log: u64, out: &mut Vec<ToServer>) {
        let entry = self.logged.peek_mut(log).expect("it has just been logged");
        if entry.busy {
            entry.dirty = true;
        } else {
            self.send(now, log, false, out);
        }
    }

    fn send(&mut self, now: Now, log: u64, retried: bool, out: &mut Vec<ToServer>) {
        let Some(entry) = self.logged.peek_mut(log) else { return };
        entry.busy = true;
        entry.dirty = false;
        let create = !entry.created;
        let options = WriteOptions::default();
        let call = if create {
            Call::Create { object: Object::Event(entry.event.clone()), options }
        } else {
            let spec = &entry.event.spec;
            let (last, message) = (spec.last_timestamp.to_time(), spec.message.to_option());
            let body = json!({"count": entry.count, "lastTimestamp": last, "message": message});
            let key = entry.event.key();
            let precondition = Precondition::default();
            Call::Patch { key, patch: Patch::Merge(body), subresource: Subresource::None, precondition, options }
        };
        let id = self.ids.next();
        out.push(ToServer::Request(id, Request::new(&self.component, call)));
        self.sent.insert(id, Sent { log, until: now.mono + limits::REQUEST_TIMEOUT, create, retried });
    }

    fn take_reply(&mut self, now: Now, sent: Sent, result: &Result<Response, Status>, out: &mut Vec<ToServer>) {
        let created = match result {
            Ok(_) => true,
            // This create was retried, and the first attempt had been carried out.
            Err(s) if sent.create && s.reason == Reason::AlreadyExists => true,
            // The Event has expired by its time to live; it is created anew.
            Err(s) if !sent.create && s.reason == Reason::NotFound => {
                if let Some(entry) = self.logged.peek_mut(sent.log) {
                    entry.created = false;
                    entry.event = new_event(now.wall, (*entry.event.spec).clone(), &mut self.rng);
                    self.send(now, sent.log, sent.retried, out);
                }
                return;
            }
            Err(s) if is_transient(s) => return self.retry(now, &sent),
            Err(_) => false,
        };
        let Some(entry) = self.logged.peek_mut(sent.log) else { return };
        entry.created |= created;
        entry.busy = false;
        if let (Ok(Response::Object(Object::Event(stored))), false) = (result, entry.dirty) {
            // The same in what it says, and held by others anyway.
            entry.event = stored.clone();
        }
        if entry.dirty && created {
            self.send(now, sent.log, false, out);
        }
    }

    fn retry(&mut self, now: Now, sent: &Sent) {
        if !sent.retried {
            self.retries.push_back((now.mono + RETRY_AFTER, sent.log));
        } else if let Some(entry) = self.logged.peek_mut(sent.log) {
            entry.busy = false;
        }
    }
}

fn is_transient(status: &Status) -> bool {
    use Reason as R;
    matches!(
        status.reason,
        R::Timeout | R::ServerTimeout | R::ServiceUnavailable | R::TooManyRequests | R::InternalError | R::Conflict
    )
}

fn combined_message(message: &str) -> String {
    format!("(combined from similar events): {message}")
}

/// How events name an object, but for its version.
fn reference(about: &Object) -> ObjectReference {
    let text = |s: &str| (!s.is_empty()).then(|| s.to_owned());
    let info = about.info();
    ObjectReference {
        api_version: Some(info.api_version()),
        kind: Some(info.kind.to_string()),
        name: text(about.name()),
        namespace: text(about.namespace()),
        uid: text(about.uid()),
        resource_version: None,
        field_path: None,
    }
}

/// An Event that is not stored yet, named as client-go does: object and nanoseconds in hexadecimal. A clock here shows
/// microseconds, so that the rest is drawn, and two recorders don't meet.
fn new_event(wall: Wall, spec: EventSpec, rng: &mut Rng) -> Event {
    let about = spec.about.name.as_deref().unwrap_or("");
    let name = format!("{about}.{:x}", wall.0.saturating_mul(1000).saturating_add(rng.below(1000) as i64));
    let namespace = spec.about.namespace.as_deref().unwrap_or("default").to_owned();
    Event::new(ObjectMeta { name: Some(name), namespace: Some(namespace), ..ObjectMeta::default() }, spec, ())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use serde_json::{Value, json};

    use super::{EventType, MAX_PENDING, Recorder, SPAM_BURST};
    use crate::api::{Call, FromServer, Patch, Response, Status, ToServer};
    use crate::limits;
    use crate::machine::{Mono, Now, Wall};
    use crate::object::{Kind, Object, ObjectKey};
    use crate::random::Rng;

    #[derive(Default)]
    struct Cluster {
        events: BTreeMap<ObjectKey, Value>,
    }

    impl Cluster {
        /// Carries out the requests that were sent; if `deaf` is true, replies are lost.
        fn serve(&mut self, now: Now, r: &mut Recorder, mut out: Vec<ToServer>, deaf: bool) {
            while let Some(message) = out.pop() {
                let ToServer::Request(id, request) = message else { panic!() };
                let reply = match request.call {
                    Call::Create { object: Object::Event(e), .. } => {
                        let known = self.events.insert(e.key(), Object::Event(e.clone()).to_json());
                        match known {
                            Some(_) => Err(Status::already_exists(Kind::EVENT.row(), e.name())),
                            None => Ok(Response::Object(Object::Event(e))),
                        }
                    }
                    Call::Patch { key, patch: Patch::Merge(body), .. } => match self.events.get_mut(&key) {
                        Some(event) => {
                            json_patch::merge(event, &body);
                            Ok(Response::Object(Object::from_json(event.clone()).unwrap()))
                        }
                        None => Err(Status::not_found(Kind::EVENT.row(), key.name())),
                    },
                    other => panic!("{other:?}"),
                };
                if !deaf {
                    r.handle(now, &FromServer::Reply(id, reply), &mut out);
                }
            }
        }

        fn counts(&self) -> Vec<(String, i64)> {
            let read = |e: &Value| (e["message"].as_str().unwrap().to_owned(), e["count"].as_i64().unwrap());
            self.events.values().map(read).collect()
        }
    }

    fn pod() -> Object {
        Object::from_json(json!({"apiVersion":"v1","kind":"Pod",
            "metadata":{"name":"p","namespace":"d","uid":"u1","resourceVersion":"7"},"spec":{"containers":[]}}))
        .unwrap()
    }

    fn at(seconds: u64) -> Now {
        Now { mono: Mono(seconds * 1_000_000_000), wall: Wall(1_000_000 * seconds as i64) }
    }

    fn recorder() -> Recorder {
        Recorder::new("kubelet".into(), "n1".into(), true, 4, Rng::from_seed(3))
    }

    #[test]
    fn repeats_are_counted() {
        let (mut r, mut c) = (recorder(), Cluster::default());
        for second in 0..3 {
            let mut out = Vec::new();
            r.record(at(second), &pod(), EventType::Warning, "BackOff", "again", &mut out);
            c.serve(at(second), &mut r, out, false);
        }
        assert_eq!(c.counts(), [("again".to_owned(), 3)]);
        let event = c.events.values().next().unwrap();
        assert_eq!(event["involvedObject"]["uid"], "u1");
        assert_eq!(event["source"], json!({"component": "kubelet", "host": "n1"}));
        assert_eq!(event["firstTimestamp"], "1970-01-01T00:00:00Z");
        assert_eq!(event["lastTimestamp"], "1970-01-01T00:00:02Z");
        assert!(event["metadata"]["name"].as_str().unwrap().starts_with("p."));
    }

    #[test]
    fn what_comes_while_a_write_is_on_its_way_follows_it() {
        let (mut r, mut c) = (recorder(), Cluster::default());
        let mut out = Vec::new();
        (0..5).for_each(|_| r.record(at(1), &pod(), EventType::Normal, "Pulled", "x", &mut out));
        assert_eq!(out.len(), 1);
        c.serve(at(1), &mut r, out, false);
        assert_eq!(c.counts(), [("x".to_owned(), 5)]);
    }

    #[test]
    fn floods_are_dropped_and_similar_ones_combined() {
        let (mut r, mut c) = (recorder(), Cluster::default());
        for i in 0..100 {
            let mut out = Vec::new();
            r.record(at(1), &pod(), EventType::Normal, "Odd", &format!("number {i}"), &mut out);
            c.serve(at(1), &mut r, out, false);
        }
        assert_eq!(c.events.len(), 10);
        let total: i64 = c.counts().iter().map(|(_, n)| n).sum();
        assert_eq!(total, i64::from(SPAM_BURST));
        let combined: Vec<_> = c.counts().into_iter().filter(|(m, _)| m.starts_with("(combined from")).collect();
        assert_eq!(combined.len(), 1);
        assert_eq!(combined[0].1, 16);
    }

    #[test]
    fn a_lost_reply_is_retried_once_under_the_same_name() {
        let (mut r, mut c) = (recorder(), Cluster::default());
        let mut out = Vec::new();
        r.record(at(1), &pod(), EventType::Normal, "Killing", "x", &mut out);
        c.serve(at(1), &mut r, out, true);
        let mut now = at(1);
        for _ in 0..2 {
            now.mono = r.poll_timeout().unwrap().at;
            let mut out = Vec::new();
            r.handle_timeout(now, &mut out);
            c.serve(now, &mut r, out, false);
        }
        assert_eq!(c.counts(), [("x".to_owned(), 1)]);
        assert!(r.poll_timeout().is_none());
    }

    #[test]
    fn what_is_lost_twice_is_dropped_and_nothing_piles_up() {
        let mut r = recorder();
        let mut out = Vec::new();
        for i in 0..2 * MAX_PENDING {
            let mut o = pod();
            o.meta_mut().uid = Some(format!("u{i}"));
            r.record(at(1), &o, EventType::Normal, "Odd", "x", &mut out);
        }
        assert_eq!(out.len(), MAX_PENDING);
        let mut now = at(1) + limits::REQUEST_TIMEOUT;
        for _ in 0..8 {
            r.handle_timeout(now, &mut out);
            now = now + Duration::from_secs(10);
        }
        assert_eq!(out.len(), 2 * MAX_PENDING);
        assert!(r.poll_timeout().is_none());
    }

    #[test]
    fn a_disabled_recorder_says_nothing() {
        let mut r = Recorder::new("x".into(), "".into(), false, 4, Rng::from_seed(3));
        let mut out = Vec::new();
        r.record(at(1), &pod(), EventType::Normal, "Odd", "x", &mut out);
        assert!(out.is_empty() && r.poll_timeout().is_none());
    }
}
