//! An informer: keeps one [`View`] up to date by list and watch. It resumes by resourceVersion, handles bookmarks, and
//! relists on 410.
//!
//! Call order: the owner passes every `FromServer` to `handle` (messages for other parts are ignored) and calls
//! `handle_timeout` at `poll_timeout`. The first call of `handle_timeout` starts the list.
//!
//! Never pushes a change that the view does not show; never applies an event of a watch that was abandoned; a relist
//! always reports the objects that were deleted in the meantime.

use std::rc::Rc;
use std::time::Duration;

use super::{Change, View};
use crate::api::{
    Call, FromServer, ListOptions, Reason, ReqId, ReqIds, Request, Response, Status, ToServer, WatchEvent, WatchOptions,
};
use crate::limits;
use crate::machine::{Deadline, Mono, Now};
use crate::object::{FieldSelector, Kind, Object, ObjectKey, Revision, Selector};
use crate::random::Rng;

/// What an informer watches.
#[derive(Clone, Debug)]
pub struct InformerConfig {
    /// Kind of objects.
    pub kind: Kind,
    /// Namespace; empty means all namespaces.
    pub namespace: Rc<str>,
    /// Only objects that match this label selector.
    pub labels: Selector,
    /// Only objects that match this field selector.
    pub fields: FieldSelector,
    /// Name of the component, for requests.
    pub user: Rc<str>,
}

/// What the informer does when its back-off has passed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Next {
    /// List with this resourceVersion: `Some(0)` accepts whatever the server's cache has, `None` requires the store's
    /// newest state.
    List(Option<Revision>),
    /// Watch from the view's revision.
    Watch,
}

#[derive(Debug)]
enum State {
    /// Waiting for `at`, then doing `next`.
    Waiting { at: Mono, next: Next },
    /// A list request is in flight; `pages` are the pages received so far.
    Listing { id: ReqId, until: Mono, rv: Option<Revision>, pages: Vec<Object> },
    /// A watch is open. `heard` is when the last message arrived and `check` is when the informer next checks for
    /// silence; they are separate so that an event moves no deadline. A watch that is silent for `patience` is treated
    /// as dead.
    Watching { id: ReqId, check: Mono, heard: Mono, patience: Duration },
    /// The kind is not served at present.
    Paused,
}

/// Keeps a view up to date. The owner holds the view, so that several views can be part of one [`Views`](super::Views).
#[derive(Debug)]
pub struct Informer {
    config: InformerConfig,
    ids: ReqIds,
    rng: Rng,
    state: State,
    /// Consecutive failures since the last success.
    failures: u32,
}

impl Informer {
    /// Creates an informer. `part` is the number by which replies are routed to it; it must be unique within the
    /// client.
    pub fn new(config: InformerConfig, part: u16, rng: Rng) -> Informer {
        let state = State::Waiting { at: Mono::ZERO, next: Next::List(Some(Revision(0))) };
        Informer { config, ids: ReqIds::new(part), rng, state, failures: 0 }
    }

    /// The kind that this informer watches.
    pub fn kind(&self) -> Kind {
        self.config.kind
    }

    /// Handles a message from the server; pushes the changes of the view in order.
    #[inline(always)]
    pub fn handle(
        &mut self,
        now: Now,
        input: &FromServer,
        view: &mut View,
        out: &mut Vec<ToServer>,
        changes: &mut Vec<Change>,
    ) {
        match input {
            FromServer::Watch(id, event) => self.take_event(now, *id, event, view, changes),
            FromServer::Reply(id, result) => match &self.state {
                State::Listing { id: listing, .. } if listing == id => {
                    self.take_list(now, result, view, out, changes);
                }
                State::Watching { id: watching, .. } if watching == id => self.take_end(now, result, view),
                State::Waiting { .. } | State::Listing { .. } | State::Watching { .. } | State::Paused => {}
            },
            FromServer::Disconnected => match self.state {
                State::Waiting { .. } | State::Paused => {}
                State::Listing { rv, .. } => self.wait(now, Next::List(rv), Duration::ZERO),
                State::Watching { .. } => self.wait(now, Next::Watch, Duration::ZERO),
            },
        }
    }

    /// Starts, resumes or repeats the list or watch if that is due.
    pub fn handle_timeout(&mut self, now: Now, view: &mut View, out: &mut Vec<ToServer>) {
        match self.state {
            State::Waiting { at, next } if at <= now.mono => self.go(now, next, view, out),
            State::Listing { until, rv, .. } if until <= now.mono => {
                self.wait(now, Next::List(rv), Duration::ZERO);
            }
            State::Watching { id, check, heard, patience } if check <= now.mono => {
                let silent = heard + patience;
                if silent <= now.mono {
                    out.push(ToServer::Cancel(id));
                    self.wait(now, Next::Watch, Duration::ZERO);
                } else {
                    self.state = State::Watching { id, check: silent, heard, patience };
                }
            }
            State::Waiting { .. } | State::Listing { .. } | State::Watching { .. } | State::Paused => {}
        }
    }

    /// Stops the informer and clears the view because the kind is no longer served.
    pub fn pause(&mut self, view: &mut View, out: &mut Vec<ToServer>, changes: &mut Vec<Change>) {
        if let State::Watching { id, .. } = self.state {
            out.push(ToServer::Cancel(id));
        }
        self.state = State::Paused;
        replace(view, &[], changes);
        view.set_synced(false);
    }

    /// Restarts the informer if it was stopped; takes effect at the next `handle_timeout`.
    pub fn resume(&mut self, now: Now) -> bool {
        let paused = matches!(self.state, State::Paused);
        if paused {
            self.state = State::Waiting { at: now.mono, next: Next::List(Some(Revision(0))) };
        }
        paused
    }

    /// When `handle_timeout` is next needed.
    pub fn poll_timeout(&self) -> Option<Deadline> {
        Some(match &self.state {
            State::Paused => return None,
            State::Waiting { at, next: Next::List(_) } => Deadline { at: *at, why: "list" },
            State::Waiting { at, next: Next::Watch } => Deadline { at: *at, why: "resume watch" },
            State::Listing { until, .. } => Deadline { at: *until, why: "list timed out" },
            State::Watching { check, .. } => Deadline { at: *check, why: "watch is silent" },
        })
    }

    /// Relists at a revision not older than `rv` (`None`: the store's newest). For an owner who knows that the view
    /// misses something. Takes effect at the next `handle_timeout`.
    pub fn relist(&mut self, now: Now, rv: Option<Revision>, out: &mut Vec<ToServer>) {
        let fresher = |asked: Option<Revision>| asked.is_none() || (rv.is_some() && asked >= rv);
        match self.state {
            State::Listing { rv: asked, .. } | State::Waiting { next: Next::List(asked), .. } if fresher(asked) => {
                return;
            }
            State::Watching { id, .. } => out.push(ToServer::Cancel(id)),
            State::Paused => return,
            State::Waiting { .. } | State::Listing { .. } => {}
        }
        self.state = State::Waiting { at: now.mono, next: Next::List(rv) };
    }

    fn go(&mut self, now: Now, next: Next, view: &View, out: &mut Vec<ToServer>) {
        match next {
            Next::List(rv) => self.list(now, rv, None, Vec::new(), out),
            Next::Watch => self.watch(now, view.revision(), out),
        }
    }

    fn list(
        &mut self,
        now: Now,
        rv: Option<Revision>,
        continue_from: Option<String>,
        pages: Vec<Object>,
        out: &mut Vec<ToServer>,
    ) {
        let id = self.ids.next();
        let c = &self.config;
        let first = continue_from.is_none();
        let options = ListOptions {
            labels: c.labels.clone(),
            fields: c.fields.clone(),
            limit: 0,
            continue_from,
            // A continue token contains its revision.
            rv: if first { rv } else { None },
            exact: false,
        };
        let call = Call::List { kind: c.kind, namespace: Rc::clone(&c.namespace), options };
        out.push(ToServer::Request(id, Request::new(&c.user, call)));
        self.state = State::Listing { id, until: now.mono + limits::REQUEST_TIMEOUT, rv, pages };
    }

    fn watch(&mut self, now: Now, rv: Revision, out: &mut Vec<ToServer>) {
        let id = self.ids.next();
        let c = &self.config;
        let options = WatchOptions {
            labels: c.labels.clone(),
            fields: c.fields.clone(),
            rv,
            bookmarks: true,
            send_initial_events: false,
            timeout: None,
        };
        let call = Call::Watch { kind: c.kind, namespace: Rc::clone(&c.namespace), options };
        out.push(ToServer::Request(id, Request::new(&c.user, call)));
        let patience = self.rng.jitter(limits::WATCH_PATIENCE, 100);
        self.state = State::Watching { id, check: now.mono + patience, heard: now.mono, patience };
    }

    /// Waits for the back-off (at least `least`), then does `next`.
    fn wait(&mut self, now: Now, next: Next, least: Duration) {
        let doubled = limits::RELIST_BACKOFF_BASE.saturating_mul(1 << self.failures.min(16));
        let backoff = self.rng.jitter(doubled.min(limits::RELIST_BACKOFF_MAX), 100);
        self.failures = self.failures.saturating_add(1);
        self.state = State::Waiting { at: now.mono + backoff.max(least), next };
    }

    fn take_list(
        &mut self,
        now: Now,
        result: &Result<Response, Status>,
        view: &mut View,
        out: &mut Vec<ToServer>,
        changes: &mut Vec<Change>,
    ) {
        let idle = State::Waiting { at: now.mono, next: Next::Watch };
        let State::Listing { rv: asked, mut pages, .. } = std::mem::replace(&mut self.state, idle) else {
            panic!("a list is taken in only while one is on its way");
        };
        match result {
            Ok(Response::List { items, rv, rest }) => {
                if let Some(rest) = rest {
                    pages.extend(items.iter().cloned());
                    self.list(now, asked, Some(rest.continue_from.clone()), pages, out);
                    return;
                }
                self.failures = 0;
                if pages.is_empty() {
                    replace(view, items, changes);
                } else {
                    pages.extend(items.iter().cloned());
                    replace(view, &pages, changes);
                }
                view.set_revision(*rv);
                view.set_synced(true);
                self.watch(now, *rv, out);
            }
            // Not a reply to a list; try again.
            Ok(Response::Object(_) | Response::Scale(_) | Response::Done { .. }) => {
                self.wait(now, Next::List(asked), Duration::ZERO);
            }
            Err(status) => {
                // As client-go does: if the server has compacted the revision or does not have it yet, the next list
                // does not ask for it.
                let next = if is_expired(status) || status.reason == Reason::Timeout { None } else { asked };
                self.wait(now, Next::List(next), retry_after(status));
            }
        }
    }

    /// Handles the end of a watch: resumes it, or relists if the revision is gone.
    fn take_end(&mut self, now: Now, result: &Result<Response, Status>, view: &View) {
        match result {
            Err(status) if is_expired(status) => self.wait(now, Next::List(None), retry_after(status)),
            Err(status) => self.wait(now, Next::Watch, retry_after(status)),
            Ok(_) => {
                assert!(view.is_synced(), "a watch follows a list");
                self.wait(now, Next::Watch, Duration::ZERO);
            }
        }
    }

    #[inline(always)]
    fn take_event(&mut self, now: Now, of: ReqId, event: &WatchEvent, view: &mut View, changes: &mut Vec<Change>) {
        let State::Watching { id, heard, .. } = &mut self.state else { return };
        if *id != of {
            return;
        }
        *heard = now.mono;
        self.failures = 0;
        match event {
            WatchEvent::Added(object) | WatchEvent::Modified(object) => view.learn(object, changes),
            WatchEvent::Deleted(object) => view.unlearn(object.namespace(), object.name(), changes),
            WatchEvent::Bookmark { .. } => {}
        }
        if event.rv() > view.revision() {
            view.set_revision(event.rv());
        }
    }
}

fn is_expired(status: &Status) -> bool {
    matches!(status.reason, Reason::Expired | Reason::Gone)
}

fn retry_after(status: &Status) -> Duration {
    let seconds = status.details.as_ref().and_then(|d| d.retry_after_seconds).unwrap_or(0);
    Duration::from_secs(u64::from(seconds))
}

/// Replaces the view's contents with a list and pushes every difference: deletions first, then new and changed objects.
fn replace(view: &mut View, items: &[Object], changes: &mut Vec<Change>) {
    if !view.is_empty() {
        let mut listed: Vec<ObjectKey> = items.iter().map(Object::key).collect();
        listed.sort_unstable();
        let gone: Vec<ObjectKey> =
            view.iter().map(|(k, _)| k).filter(|k| listed.binary_search(k).is_err()).cloned().collect();
        gone.iter().for_each(|key| view.unlearn(key.namespace(), key.name(), changes));
    }
    items.iter().for_each(|object| view.learn(object, changes));
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;
    use std::time::Duration;

    use serde_json::json;

    use super::{Informer, InformerConfig};
    use crate::api::{Call, FromServer, ReqId, Response, Status, ToServer, WatchEvent};
    use crate::client::{Change, Index, View};
    use crate::limits;
    use crate::machine::{Mono, Now};
    use crate::object::{FieldSelector, Kind, Object, Revision, Selector};
    use crate::random::Rng;

    fn object(name: &str, uid: &str, rv: u64) -> Object {
        Object::from_json(json!({"apiVersion":"v1","kind":"ConfigMap",
            "metadata":{"name":name,"namespace":"d","uid":uid,"resourceVersion":rv.to_string()}}))
        .unwrap()
    }

    struct Bench {
        now: Now,
        informer: Informer,
        view: View,
        out: Vec<ToServer>,
        changes: Vec<Change>,
    }

    impl Bench {
        fn new() -> Bench {
            let config = InformerConfig {
                kind: Kind::CONFIG_MAP,
                namespace: "".into(),
                labels: Selector::everything(),
                fields: FieldSelector::everything(),
                user: "test".into(),
            };
            Bench {
                now: Now::default(),
                informer: Informer::new(config, 3, Rng::from_seed(1)),
                view: View::new(Kind::CONFIG_MAP, &[Index::Owner]),
                out: Vec::new(),
                changes: Vec::new(),
            }
        }

        fn tell(&mut self, input: FromServer) {
            self.informer.handle(self.now, &input, &mut self.view, &mut self.out, &mut self.changes);
        }

        /// Advances time to the informer's deadline, which must be within `limit`.
        fn wake(&mut self, limit: Duration) {
            let at = self.informer.poll_timeout().unwrap().at;
            assert!(at <= self.now.mono + limit, "{at:?} is too late");
            self.now.mono = self.now.mono.max(at);
            self.informer.handle_timeout(self.now, &mut self.view, &mut self.out);
        }

        fn request(&mut self) -> (ReqId, Call) {
            assert_eq!(self.out.len(), 1, "{:?}", self.out);
            match self.out.pop() {
                Some(ToServer::Request(id, r)) => (id, r.call),
                other => panic!("{other:?}"),
            }
        }

        fn expect_list(&mut self, rv: Option<u64>) -> ReqId {
            let (id, call) = self.request();
            assert!(
                matches!(&call, Call::List { options, .. } if options.rv == rv.map(Revision) && options.limit == 0),
                "{call:?}"
            );
            id
        }

        fn expect_watch(&mut self, rv: u64) -> ReqId {
            let (id, call) = self.request();
            assert!(
                matches!(&call, Call::Watch { options, .. } if options.rv == Revision(rv) && options.bookmarks),
                "{call:?}"
            );
            id
        }

        fn list(&mut self, id: ReqId, rv: u64, items: Vec<Object>) {
            let items = Rc::new(items);
            let rv = Revision(rv);
            self.tell(FromServer::Reply(id, Ok(Response::List { items, rv, rest: None })));
        }

        fn told(&mut self) -> Vec<(String, Option<u64>, Option<u64>)> {
            let rv = |o: &Option<Object>| o.as_ref().map(|o| o.rv().0);
            self.changes.drain(..).map(|c| (c.key.name().to_owned(), rv(&c.old), rv(&c.new))).collect()
        }

        /// A bench with an open watch from revision 5 and the objects `a` and `b`.
        fn synced() -> (Bench, ReqId) {
            let mut b = Bench::new();
            b.wake(Duration::ZERO);
            let id = b.expect_list(Some(0));
            assert!(!b.view.is_synced());
            b.list(id, 5, vec![object("a", "1", 3), object("b", "2", 4)]);
            assert!(b.view.is_synced());
            assert_eq!(b.told().len(), 2);
            let watch = b.expect_watch(5);
            (b, watch)
        }
    }

    #[test]
    fn events_and_bookmarks_move_the_view() {
        let (mut b, id) = Bench::synced();
        b.tell(FromServer::Watch(id, WatchEvent::Modified(object("a", "1", 6))));
        b.tell(FromServer::Watch(id, WatchEvent::Deleted(object("b", "2", 7))));
        b.tell(FromServer::Watch(id, WatchEvent::Bookmark { rv: Revision(9), initial_events_end: false }));
        assert_eq!(b.told(), [("a".into(), Some(3), Some(6)), ("b".into(), Some(4), None)]);
        assert_eq!((b.view.revision(), b.view.len()), (Revision(9), 1));
        b.tell(FromServer::Watch(ReqId(id.0 + 1), WatchEvent::Modified(object("a", "1", 10))));
        assert_eq!(b.told(), []);
    }

    #[test]
    fn resumes_from_where_it_was() {
        let (mut b, id) = Bench::synced();
        b.tell(FromServer::Watch(id, WatchEvent::Modified(object("a", "1", 6))));
        b.tell(FromServer::Disconnected);
        b.wake(limits::RELIST_BACKOFF_BASE * 2);
        let second = b.expect_watch(6);
        b.tell(FromServer::Reply(second, Err(Status::unavailable("x"))));
        b.wake(limits::RELIST_BACKOFF_BASE * 4);
        b.expect_watch(6);
    }

    #[test]
    fn lists_again_on_expiry_and_tells_of_what_went() {
        let (mut b, id) = Bench::synced();
        b.told();
        b.tell(FromServer::Reply(id, Err(Status::expired("too old resource version"))));
        b.wake(limits::RELIST_BACKOFF_BASE * 2);
        let list = b.expect_list(None);
        b.list(list, 20, vec![object("b", "9", 18), object("c", "3", 19)]);
        let gone_then_new = [
            ("a".into(), Some(3), None),
            ("b".into(), Some(4), None),
            ("b".into(), None, Some(18)),
            ("c".into(), None, Some(19)),
        ];
        assert_eq!(b.told(), gone_then_new);
        b.expect_watch(20);
    }

    #[test]
    fn a_lost_list_is_asked_again_and_backs_off() {
        let mut b = Bench::new();
        b.wake(Duration::ZERO);
        let mut waited = Duration::ZERO;
        for _ in 0..4 {
            b.expect_list(Some(0));
            b.wake(limits::REQUEST_TIMEOUT);
            assert!(b.out.is_empty());
            let before = b.now.mono;
            b.wake(limits::RELIST_BACKOFF_MAX * 2);
            assert!(b.now.mono - before > waited / 2);
            waited = b.now.mono - before;
        }
        assert!(waited >= limits::RELIST_BACKOFF_BASE * 8);
    }

    #[test]
    fn a_silent_watch_is_given_up_but_an_active_one_is_not() {
        let (mut b, id) = Bench::synced();
        let silent = limits::WATCH_PATIENCE * 2;
        b.now.mono = Mono::ZERO + limits::BOOKMARK_INTERVAL;
        b.tell(FromServer::Watch(id, WatchEvent::Bookmark { rv: Revision(6), initial_events_end: false }));
        b.wake(silent);
        assert!(b.out.is_empty(), "heard of one interval ago");
        b.wake(silent);
        assert!(matches!(b.out.pop(), Some(ToServer::Cancel(c)) if c == id));
        b.wake(limits::RELIST_BACKOFF_MAX);
        b.expect_watch(6);
    }

    #[test]
    fn an_owner_can_ask_for_a_relist() {
        let (mut b, id) = Bench::synced();
        b.informer.relist(b.now, None, &mut b.out);
        assert!(matches!(b.out.pop(), Some(ToServer::Cancel(c)) if c == id));
        b.wake(Duration::ZERO);
        b.expect_list(None);
    }
}
