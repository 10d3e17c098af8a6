//! The generic controller runner: the work queue, the writes, and the check that the views show the key's own writes.
//!
//! What comes in: changes of the informers, which it shares with other runners, and replies to its own requests; each
//! call carries the mandate that the owner holds at that moment. What goes out: requests.
//!
//! Never writes without a mandate. Never reconciles a key from a view that does not show the key's own earlier writes,
//! or that is older than the current leadership term. Never works on one key twice at the same time. After a create
//! with an unknown outcome, never tries another generated name for that child until the first name is resolved.
//!
//! Call order: `news` for each change of a kind that it `watches`, and for changes of every kind while it `waits`,
//! always after the views have applied the change; `handle` for each message of one of its parts, and for
//! `Disconnected`; `handle_timeout` when `poll_timeout` is due; `reset` after leadership was lost. All but `reset` take
//! the current mandate.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use super::journal::{Journal, Verdict};
use super::{Controller, EventNote, Plan, Write};
use crate::api::{
    Call, DeleteOptions, Fence, FromServer, ListOptions, Precondition, Reason, ReqId, ReqIds, Request, Response,
    Status, ToServer, WriteOptions,
};
use crate::client::{Change, Informers, Queue, Recorder, View, Views, Watched};
use crate::limits;
use crate::machine::{Deadline, Mono, Now};
use crate::object::{FieldSelector, Kind, Object, ObjectKey, Revision, controller_of};
use crate::random::Rng;
use crate::volume;

/// Length of the random suffix of a generated name (apiserver `names.randomLength`).
const SUFFIX_LETTERS: usize = 5;
/// Maximum length of a generated name's base, so that the whole name has at most 63 characters (apiserver
/// `maxGeneratedNameLength`).
const MAX_BASE_LETTERS: usize = 63 - SUFFIX_LETTERS;

/// Permission to write. Without a mandate, a runner only reads.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Mandate {
    /// Fence for every write; `None` where there is no leader election.
    pub fence: Option<Fence>,
}

impl Mandate {
    /// The revision at which this leadership term began; zero where there is no leader election.
    fn term(&self) -> Revision {
        self.fence.as_ref().map_or(Revision(0), |f| f.epoch)
    }
}

/// The context of every call of a runner.
#[derive(Debug)]
pub struct Turn<'a> {
    /// The current time.
    pub now: Now,
    /// The informers that it shares with other runners.
    pub informers: &'a mut Informers,
    /// Permission to write, if the owner holds it now.
    pub mandate: Option<&'a Mandate>,
    /// Receives the runner's requests.
    pub out: &'a mut Vec<ToServer>,
}

/// The stage of a request in flight.
#[derive(Debug)]
enum Stage {
    /// The write itself. For a create, `child` is the name that the runner generated, or that it tries again; and
    /// `reused` says whether an earlier request already used that name.
    Write { child: Option<ObjectKey>, reused: bool },
    /// A read of an existing child, to find out whether an earlier request created it.
    Confirm { child: ObjectKey },
}

#[derive(Debug)]
struct Sent {
    key: ObjectKey,
    index: usize,
    stage: Stage,
    until: Mono,
}

/// What a runner has to do for a key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Work {
    /// It is to be reconciled: at a time, or at once. It has failed so often in a row.
    #[allow(missing_docs)]
    Queued { at: Option<Mono>, failures: u32 },
    /// Its controller does not decide before its views show what it has written; so since when.
    #[allow(missing_docs)]
    AwaitsView { since: Mono },
    /// Its plan is being carried out: how many of its writes were sent, and how many of these are not answered.
    #[allow(missing_docs)]
    Writes { sent: usize, open: usize, of: usize },
}

/// A plan that is being carried out, for one key.
#[derive(Debug)]
struct Execution {
    writes: Vec<Write>,
    /// Index of the first write that has not been sent.
    next: usize,
    outstanding: usize,
    /// Number of creates in the next batch (slow start: batches double in size).
    batch: usize,
    failed: bool,
    /// The longest delay that the server has asked for (`Retry-After`).
    retry_after: Duration,
    events: Vec<EventNote>,
    requeue_after: Option<Duration>,
    /// Whether this execution repeats earlier writes with an unknown outcome. If so, the key is reconciled afterwards.
    resolving: bool,
}

/// Runs one controller over a connection that other runners may share.
pub struct Runner {
    controller: Box<dyn Controller>,
    /// Whether the controller watches a kind, indexed by the kind's number.
    watched: Vec<bool>,
    user: Rc<str>,
    first_part: u16,
    recorder: Recorder,
    ids: ReqIds,
    rng: Rng,
    queue: Queue,
    running: BTreeMap<ObjectKey, Execution>,
    requests: BTreeMap<ReqId, Sent>,
    journal: Journal,
    /// Keys whose decisions wait for a view to come to a later revision, and since when.
    waiting: BTreeMap<ObjectKey, Mono>,
    /// The leadership term that the state above belongs to.
    term: Option<Revision>,
    /// Set while some views are older than the start of the term: the time at which those kinds are listed again.
    catch_up: Option<Mono>,
    deposed: bool,
    keys: Vec<ObjectKey>,
}

impl std::fmt::Debug for Runner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Runner")
            .field("controller", &self.controller.name())
            .field("term", &self.term)
            .field("queued", &self.queue.len())
            .field("running", &self.running.len())
            .finish_non_exhaustive()
    }
}

impl Runner {
    /// Creates a runner that uses the parts `first_part .. first_part + PARTS`.
    pub fn new(controller: Box<dyn Controller>, record_events: bool, first_part: u16, mut rng: Rng) -> Runner {
        let user: Rc<str> = Rc::from(controller.name());
        let mut fork = |n: u64| Rng::from_seed(crate::random::mix(rng.next_u64(), n));
        let recorder = Recorder::new(Rc::clone(&user), Rc::from(""), record_events, first_part + 1, fork(1));
        let ids = ReqIds::new(first_part);
        let rng = fork(0);
        let mut watched = Vec::new();
        controller.watches().iter().for_each(|w| note(&mut watched, w.kind));
        Runner {
            controller,
            watched,
            user,
            first_part,
            recorder,
            ids,
            rng,
            queue: Queue::new(),
            running: BTreeMap::new(),
            requests: BTreeMap::new(),
            journal: Journal::default(),
            waiting: BTreeMap::new(),
            term: None,
            catch_up: None,
            deposed: false,
            keys: Vec::new(),
        }
    }

    /// How many parts of the connection a runner uses: one for writes, one for events.
    pub const PARTS: u16 = 2;

    /// What it is doing and has before it, by key; for people who look into it.
    pub fn tasks(&self) -> BTreeMap<&ObjectKey, Work> {
        let queued = self.queue.keys().map(|(key, at, failures)| (key, Work::Queued { at, failures }));
        let waiting = self.waiting.iter().map(|(key, since)| (key, Work::AwaitsView { since: *since }));
        let writes = |plan: &Execution| Work::Writes { sent: plan.next, open: plan.outstanding, of: plan.writes.len() };
        queued.chain(waiting).chain(self.running.iter().map(|(key, plan)| (key, writes(plan)))).collect()
    }

    /// Name of the controller.
    pub fn name(&self) -> &'static str {
        self.controller.name()
    }

    /// Whether its controller watches a kind.
    pub fn watches(&self, kind: Kind) -> bool {
        self.watched.get(usize::from(kind.0)) == Some(&true)
    }

    /// The additional kinds that the controller now wants to watch.
    pub fn watches_also(&mut self, views: &Views) -> Vec<Watched> {
        let also = if self.watches(Kind::CUSTOM_RESOURCE_DEFINITION) {
            self.controller.watches_also(views)
        } else {
            Vec::new()
        };
        also.iter().for_each(|w| note(&mut self.watched, w.kind));
        also
    }

    /// The controller.
    pub(super) fn controller(&self) -> &dyn Controller {
        &*self.controller
    }

    /// Whether any key waits for a view to show one of the key's own writes.
    pub fn waits(&self) -> bool {
        self.journal.is_waiting()
    }

    /// Whether nothing is queued, in flight, or waiting to see its own writes.
    pub fn is_idle(&self) -> bool {
        self.queue.is_empty() && self.running.is_empty() && self.journal.next_at().is_none()
    }

    /// Whether the server has rejected the fence of a write since this function was last called.
    pub fn take_deposed(&mut self) -> bool {
        std::mem::take(&mut self.deposed)
    }

    /// Handles a message from the server.
    pub fn handle(&mut self, turn: &mut Turn<'_>, input: &FromServer) {
        self.check_term(turn);
        match input {
            FromServer::Reply(id, result) => match id.part().checked_sub(self.first_part) {
                Some(0) => self.take_reply(turn, *id, result),
                Some(1) => self.recorder.handle(turn.now, input, turn.out),
                Some(_) | None => {}
            },
            FromServer::Watch(..) => {}
            FromServer::Disconnected => {
                self.recorder.handle(turn.now, input, turn.out);
                let lost = std::mem::take(&mut self.requests);
                lost.into_values().for_each(|sent| self.unknown_outcome(turn.now, sent));
            }
        }
        self.pump(turn);
    }

    /// Handles changes in the view of a kind: queues the affected keys and works on them. Returns false if there was
    /// nothing to do; then no deadline has changed.
    #[inline]
    pub fn news(&mut self, turn: &mut Turn<'_>, kind: Kind, changes: &[Change]) -> bool {
        self.check_term(turn);
        let is_watched = self.watches(kind);
        let (queue, views) = (&mut self.queue, turn.informers.views());
        for change in changes {
            if is_watched {
                self.controller.observe(change, turn.now);
                self.controller.keys(change, views, &mut self.keys);
                if !self.keys.is_empty() {
                    self.keys.drain(..).for_each(|key| queue.add(key));
                }
            }
            self.journal.changed(&change.key, |key| queue.add(key));
        }
        if self.journal.is_waiting() {
            self.journal.reached(kind, views.view(kind).revision(), |key| queue.add(key));
        }
        let stirred = !self.queue.is_empty() || self.catch_up.is_some();
        if stirred {
            self.pump(turn);
        }
        stirred
    }

    /// Handles everything that is due at `now`.
    pub fn handle_timeout(&mut self, turn: &mut Turn<'_>) {
        self.check_term(turn);
        let now = turn.now;
        self.recorder.handle_timeout(now, turn.out);
        while let Some(entry) = self.requests.first_entry() {
            if entry.get().until > now.mono {
                break;
            }
            let sent = entry.remove();
            self.unknown_outcome(now, sent);
        }
        for kind in self.journal.overdue(now.mono) {
            turn.informers.relist(now, kind, None, turn.out);
        }
        self.queue.advance(now.mono);
        // If the initial lists are incomplete or there is no mandate, it is too early to list again.
        let has_begun = turn.mandate.is_some() && self.is_synced(turn.informers.views());
        if self.catch_up.is_some_and(|at| at <= now.mono) && !has_begun {
            self.catch_up = Some(now.mono + limits::CATCH_UP_PATIENCE);
        }
        self.pump(turn);
    }

    /// When `handle_timeout` is next needed.
    pub fn poll_timeout(&self) -> Option<Deadline> {
        let at = |at: Option<Mono>, why| at.map(|at| Deadline { at, why });
        let own = [
            self.recorder.poll_timeout(),
            at(self.requests.first_key_value().map(|(_, s)| s.until), "write timed out"),
            at(self.queue.next_at(), "key is due"),
            at(self.journal.next_at(), "own writes don't show"),
            at(self.catch_up, "views are behind the term"),
        ];
        own.into_iter().fold(None, Deadline::earlier)
    }

    /// Drops all state of the last leadership term and continues with a new controller, as a restarted process would.
    /// The informers keep their views.
    pub fn reset(&mut self, controller: Box<dyn Controller>, views: &Views) {
        assert_eq!(self.controller.name(), controller.name(), "a controller is replaced by its like");
        self.controller = controller;
        self.term = None;
        self.catch_up = None;
        self.running.clear();
        self.requests.clear();
        self.journal = Journal::default();
        self.waiting.clear();
        self.queue = Queue::new();
        let mut keys = Vec::new();
        for view in views.iter().filter(|view| self.watched.get(usize::from(view.kind().0)) == Some(&true)) {
            for (key, object) in view.iter() {
                let change = Change { key: key.clone(), old: None, new: Some(object.clone()) };
                self.controller.keys(&change, views, &mut keys);
            }
        }
        keys.into_iter().for_each(|key| self.queue.add(key));
    }

    /// Starts the mandate's term if none has started; otherwise asserts that the state belongs to that term.
    fn check_term(&mut self, turn: &Turn<'_>) {
        let Some(mandate) = turn.mandate else { return };
        match self.term {
            Some(term) => assert_eq!(term, mandate.term(), "a runner is reset between two terms"),
            None => {
                self.term = Some(mandate.term());
                self.catch_up = Some(turn.now.mono + limits::CATCH_UP_PATIENCE);
            }
        }
    }

    fn watched<'a>(&self, views: &'a Views) -> impl Iterator<Item = &'a View> + use<'a> {
        self.controller.watches().iter().map(|w| views.view(w.kind))
    }

    fn is_synced(&self, views: &Views) -> bool {
        self.watched(views).all(View::is_synced)
    }

    /// Works on queued keys, at most `CONTROLLER_WORKERS` at a time.
    fn pump(&mut self, turn: &mut Turn<'_>) {
        let Some(mandate) = turn.mandate else { return };
        if self.queue.is_empty() && self.catch_up.is_none() {
            return;
        }
        if !self.is_synced(turn.informers.views()) || !self.is_caught_up(turn, mandate.term()) {
            return;
        }
        while self.running.len() < limits::CONTROLLER_WORKERS {
            let Some(key) = self.queue.pop() else { break };
            self.work(turn, key);
        }
    }

    /// Whether the views show everything that was written before this term. A view at the term's revision or later
    /// does, because the writes of earlier leaders are fenced off from the start of the term.
    fn is_caught_up(&mut self, turn: &mut Turn<'_>, term: Revision) -> bool {
        let Some(until) = self.catch_up else { return true };
        let views = turn.informers.views();
        let behind: Vec<Kind> = self.watched(views).filter(|v| v.revision() < term).map(View::kind).collect();
        if behind.is_empty() {
            self.catch_up = None;
            return true;
        }
        if until <= turn.now.mono {
            self.catch_up = Some(turn.now.mono + limits::OWN_WRITES_PATIENCE);
            behind.into_iter().for_each(|kind| turn.informers.relist(turn.now, kind, Some(term), turn.out));
        }
        false
    }

    fn work(&mut self, turn: &mut Turn<'_>, key: ObjectKey) {
        let views = turn.informers.views();
        let (plan, resolving) = match self.journal.judge(turn.now.mono, views, &key) {
            Verdict::Wait => {
                self.queue.done(&key);
                return;
            }
            Verdict::Resolve(writes) => (Plan { writes, ..Plan::default() }, true),
            Verdict::Go => (self.controller.reconcile(views, &key, turn.now), false),
        };
        self.tend_views(turn, &key, &plan.behind);
        plan.wake.into_iter().for_each(|woken| self.queue.add(woken));
        let execution = Execution {
            writes: plan.writes,
            next: 0,
            outstanding: 0,
            batch: limits::SLOW_START_INITIAL,
            failed: false,
            retry_after: Duration::ZERO,
            events: plan.events,
            requeue_after: plan.requeue_after,
            resolving,
        };
        let known = self.running.insert(key.clone(), execution);
        assert!(known.is_none(), "a key is worked on by one worker at a time");
        self.proceed(turn, &key);
    }

    /// Lists kinds again whose views have let a key wait for too long.
    fn tend_views(&mut self, turn: &mut Turn<'_>, key: &ObjectKey, behind: &[Kind]) {
        if behind.is_empty() {
            self.waiting.remove(key);
            return;
        }
        let since = *self.waiting.entry(key.clone()).or_insert(turn.now.mono);
        if turn.now.mono.since(since) >= limits::OWN_WRITES_PATIENCE {
            self.waiting.insert(key.clone(), turn.now.mono);
            behind.iter().for_each(|kind| turn.informers.relist(turn.now, *kind, None, turn.out));
        }
    }

    /// Sends the next group of writes, or finishes the execution if there is none or a write has failed.
    fn proceed(&mut self, turn: &mut Turn<'_>, key: &ObjectKey) {
        let execution = self.running.get_mut(key).expect("whoever proceeds is running");
        if execution.outstanding > 0 {
            return;
        }
        if execution.failed || execution.next == execution.writes.len() {
            self.finish(turn.now, key, turn.out);
            return;
        }
        let Some(mandate) = turn.mandate else {
            // No longer the leader; the owner will reset this runner.
            return;
        };
        let group = next_group(execution);
        for index in group {
            self.send(turn, key, index, mandate);
        }
    }

    fn send(&mut self, turn: &mut Turn<'_>, key: &ObjectKey, index: usize, mandate: &Mandate) {
        let execution = self.running.get(key).expect("whoever sends is running");
        let (write, resolving) = (execution.writes[index].clone(), execution.resolving);
        let (call, stage) = self.call(key, write, resolving);
        let until = turn.now.mono + limits::REQUEST_TIMEOUT;
        self.transmit(turn, Sent { key: key.clone(), index, stage, until }, call, mandate);
    }

    fn transmit(&mut self, turn: &mut Turn<'_>, sent: Sent, call: Call, mandate: &Mandate) {
        let id = self.ids.next();
        let (user, fence) = (Rc::clone(&self.user), mandate.fence.clone());
        let (identity, field_manager, version, minded) = (None, None, None, Vec::new());
        let request = Request { user, identity, field_manager, version, minded, fence, call };
        turn.out.push(ToServer::Request(id, Box::new(request)));
        self.running.get_mut(&sent.key).expect("whoever sends is running").outstanding += 1;
        self.requests.insert(id, sent);
    }

    /// Builds the API call for a write, which may repeat one of unknown outcome. Generates a name for a child without
    /// one.
    fn call(&mut self, key: &ObjectKey, write: Write, resolving: bool) -> (Call, Stage) {
        let options = WriteOptions::default();
        let mut stage = Stage::Write { child: None, reused: false };
        let call = match write {
            Write::Create(mut object) => {
                if object.name().is_empty() {
                    let (child, reused) = self.choose_name(key, &object);
                    object.meta_mut().name = Some(child.name().to_owned());
                    stage = Stage::Write { child: Some(child), reused };
                } else if resolving {
                    stage = Stage::Write { child: Some(object.key()), reused: true };
                }
                Call::Create { object, options }
            }
            Write::Update(object, subresource) => Call::Update { object, subresource, options },
            Write::Patch { key, uid, rv, patch, subresource } => {
                let precondition = Precondition { uid: Some(uid), rv };
                Call::Patch { key, patch, subresource, precondition, options }
            }
            Write::SetScale { key, replicas, rv, reason: _ } => Call::SetScale { key, replicas, rv, options },
            Write::Delete { key, uid, rv, grace_seconds, propagation } => {
                let precondition = Precondition { uid: Some(uid), rv };
                let options = DeleteOptions { precondition, grace_seconds, propagation, dry_run: false };
                Call::Delete { key, options }
            }
            Write::DeleteCollection { kind, namespace } => {
                let (list, options) = (ListOptions::default(), DeleteOptions::default());
                Call::DeleteCollection { kind, namespace, list, options }
            }
            Write::ExpectEmpty { kind, namespace } => Call::List { kind, namespace, options: ListOptions::default() },
            Write::ExpectUnused { claim } => {
                let (kind, namespace) = (Kind::POD, Rc::from(claim.namespace()));
                Call::List { kind, namespace, options: ListOptions::default() }
            }
            Write::ExpectMissing { key, .. } => {
                let fields = FieldSelector::equal("metadata.name", key.name());
                let (kind, namespace) = (key.kind, Rc::from(key.namespace()));
                Call::List { kind, namespace, options: ListOptions { fields, ..ListOptions::default() } }
            }
        };
        (call, stage)
    }

    fn choose_name(&mut self, key: &ObjectKey, object: &Object) -> (ObjectKey, bool) {
        if let Some(child) = self.journal.reuse(key, object) {
            return (child, true);
        }
        let base = object.meta().generate_name.as_deref().unwrap_or("");
        let cut = base.char_indices().nth(MAX_BASE_LETTERS).map_or(base.len(), |(i, _)| i);
        let name = format!("{}{}", &base[..cut], self.rng.name_suffix(SUFFIX_LETTERS));
        (ObjectKey::new(object.kind(), object.namespace(), &name), false)
    }

    fn take_reply(&mut self, turn: &mut Turn<'_>, id: ReqId, result: &Result<Response, Status>) {
        let Some(sent) = self.requests.remove(&id) else { return };
        if matches!(result, Err(status) if status.is_unknown_outcome()) {
            self.unknown_outcome(turn.now, sent);
            return;
        }
        let Sent { key, index, stage, .. } = sent;
        self.running.get_mut(&key).expect("a request belongs to a running execution").outstanding -= 1;
        match (stage, result) {
            (Stage::Write { .. }, Ok(Response::List { items, .. })) => {
                let refused = match &self.running[&key].writes[index] {
                    Write::ExpectEmpty { .. } => items.first().map(|first| Write::not_empty(first.info(), items)),
                    Write::ExpectUnused { claim } => {
                        let user = items.iter().find(|pod| volume::is_used_by(claim, pod));
                        user.map(|pod| Write::in_use(claim, pod))
                    }
                    Write::ExpectMissing { uid, .. } => {
                        let same = |object: &&Object| uid.as_deref().is_none_or(|uid| uid == object.uid());
                        items.iter().find(same).map(Write::is_there)
                    }
                    other => unreachable!("{other:?} is not answered by a list"),
                };
                if let Some(status) = refused {
                    self.failed(turn, &key, index, &status);
                }
            }
            (Stage::Write { .. }, Ok(response)) => self.succeeded(turn, &key, index, response),
            (Stage::Write { child: Some(child), reused: true }, Err(s)) if s.reason == Reason::AlreadyExists => {
                match turn.mandate {
                    Some(mandate) => {
                        let call = Call::Get { key: child.clone(), rv: None };
                        let until = turn.now.mono + limits::REQUEST_TIMEOUT;
                        let sent = Sent { key, index, stage: Stage::Confirm { child }, until };
                        self.transmit(turn, sent, call, mandate);
                        return;
                    }
                    None => self.remember(&key, index, Some(child)),
                }
            }
            // The earlier attempt may have been carried out, whatever becomes of this one.
            (Stage::Write { child: Some(child), reused: true }, Err(status)) => {
                self.failed(turn, &key, index, status);
                self.remember(&key, index, Some(child));
            }
            (Stage::Write { .. }, Err(status)) => self.failed(turn, &key, index, status),
            (Stage::Confirm { .. }, Ok(response)) if self.is_own_child(&key, index, response) => {
                self.succeeded(turn, &key, index, response);
            }
            // Another object happens to have this name; the next attempt uses a new name.
            (Stage::Confirm { .. }, Ok(_)) => self.running.get_mut(&key).expect("it runs").failed = true,
            (Stage::Confirm { child }, Err(_)) => self.remember(&key, index, Some(child)),
        }
        self.proceed(turn, &key);
    }

    /// Whether the object with a reused name is the child that this key wanted to create.
    fn is_own_child(&self, key: &ObjectKey, index: usize, response: &Response) -> bool {
        let (Write::Create(wanted), Response::Object(found)) = (&self.running[key].writes[index], response) else {
            return false;
        };
        let owner = |o: &Object| controller_of(o.meta()).map(|r| r.uid.clone());
        wanted.meta().generate_name == found.meta().generate_name && owner(wanted) == owner(found)
    }

    fn succeeded(&mut self, turn: &mut Turn<'_>, key: &ObjectKey, index: usize, response: &Response) {
        let views = turn.informers.views();
        let write = &self.running[key].writes[index];
        let (object, rv) = match response {
            Response::Object(object) => (Some(object), object.rv()),
            Response::Scale(scale) => (None, scale.rv),
            Response::List { rv, .. } | Response::Done { rv } => (None, *rv),
        };
        self.journal.wrote(views, key, write_kind(write), rv);
        if let Some(note) = self.controller.succeeded(views, key, write, object) {
            self.recorder.record(turn.now, &note.about, note.type_, note.reason, &note.message, turn.out);
        }
    }

    fn failed(&mut self, turn: &mut Turn<'_>, key: &ObjectKey, index: usize, status: &Status) {
        let views = turn.informers.views();
        let execution = self.running.get_mut(key).expect("a request belongs to a running execution");
        let write = &execution.writes[index];
        match (write, status.reason) {
            (Write::Delete { key: child, uid, .. }, Reason::NotFound) => {
                self.journal.found_gone(views, key, child, uid);
            }
            // A kind that is no longer served has no objects.
            (Write::DeleteCollection { .. } | Write::ExpectEmpty { .. }, Reason::NotFound) => {}
            (_, Reason::Conflict) => {
                execution.failed = true;
                self.deposed |= status.is_fenced();
            }
            // Every other failure of every write counts, whatever its reason.
            (_, _) => {
                execution.failed = true;
                execution.retry_after = execution.retry_after.max(retry_after(status));
                if let Some(note) = self.controller.failed(views, key, write, status) {
                    self.recorder.record(turn.now, &note.about, note.type_, note.reason, &note.message, turn.out);
                }
            }
        }
    }

    /// Handles a lost reply: the request may have been carried out, may not have been, or may still be carried out
    /// later.
    fn unknown_outcome(&mut self, now: Now, sent: Sent) {
        let Sent { key, index, stage, .. } = sent;
        let execution = self.running.get_mut(&key).expect("a request belongs to a running execution");
        execution.outstanding -= 1;
        execution.failed = true;
        let child = match stage {
            Stage::Write { child, .. } => child,
            Stage::Confirm { child } => Some(child),
        };
        self.remember(&key, index, child);
        if self.running[&key].outstanding == 0 {
            self.finish(now, &key, &mut Vec::new());
        }
    }

    /// Marks the execution as failed because the outcome of a write is unknown, and records the write in the journal.
    fn remember(&mut self, key: &ObjectKey, index: usize, child: Option<ObjectKey>) {
        let execution = self.running.get_mut(key).expect("a request belongs to a running execution");
        execution.failed = true;
        match (&execution.writes[index], child) {
            (Write::Create(object), Some(child)) if object.name().is_empty() => {
                self.journal.uncertain_create(key, object, child);
            }
            (write @ Write::Create(object), _) if self.controller.must_settle(object) => {
                self.journal.uncertain(key, write.clone());
            }
            (write @ Write::Delete { .. }, _) => self.journal.uncertain(key, write.clone()),
            // Repeating these writes is safe: either the server rejects them (because of their resourceVersion or
            // name), or they change nothing.
            (
                Write::Create(_)
                | Write::Update(..)
                | Write::Patch { .. }
                | Write::SetScale { .. }
                | Write::DeleteCollection { .. }
                | Write::ExpectEmpty { .. }
                | Write::ExpectUnused { .. }
                | Write::ExpectMissing { .. },
                _,
            ) => {}
        }
    }

    fn finish(&mut self, now: Now, key: &ObjectKey, out: &mut Vec<ToServer>) {
        let execution = self.running.remove(key).expect("what ends has been running");
        if execution.failed {
            self.queue.retry(now.mono, key.clone(), execution.retry_after);
        } else {
            for note in &execution.events {
                self.recorder.record(now, &note.about, note.type_, note.reason, &note.message, out);
            }
            self.queue.forget(key);
            if execution.resolving {
                self.queue.add(key.clone());
            }
        }
        if let Some(after) = execution.requeue_after {
            self.queue.add_after(now.mono, key.clone(), after);
        }
        self.queue.done(key);
    }
}

/// Returns the indexes of the writes to send together: a batch of creates, a run of deletes, or a single other write.
fn next_group(execution: &mut Execution) -> std::ops::Range<usize> {
    let start = execution.next;
    let rest = &execution.writes[start..];
    let run = |same: fn(&Write) -> bool| rest.iter().take_while(|w| same(w)).count();
    let count = match &rest[0] {
        Write::Create(_) => {
            let count = run(|w| matches!(w, Write::Create(_))).min(execution.batch);
            execution.batch *= 2;
            count
        }
        Write::Delete { .. } => run(|w| matches!(w, Write::Delete { .. })).min(limits::BURST_REPLICAS),
        Write::Update(..)
        | Write::Patch { .. }
        | Write::SetScale { .. }
        | Write::DeleteCollection { .. }
        | Write::ExpectEmpty { .. }
        | Write::ExpectUnused { .. }
        | Write::ExpectMissing { .. } => 1,
    };
    if !matches!(rest[0], Write::Create(_)) {
        execution.batch = limits::SLOW_START_INITIAL;
    }
    execution.next += count;
    start..start + count
}

fn note(watched: &mut Vec<bool>, kind: Kind) {
    let kind = usize::from(kind.0);
    watched.resize(watched.len().max(kind + 1), false);
    watched[kind] = true;
}

fn write_kind(write: &Write) -> Kind {
    match write {
        Write::Create(object) | Write::Update(object, _) => object.kind(),
        Write::Patch { key, .. } | Write::SetScale { key, .. } | Write::Delete { key, .. } => key.kind,
        Write::DeleteCollection { kind, .. } | Write::ExpectEmpty { kind, .. } => *kind,
        Write::ExpectUnused { .. } => Kind::POD,
        Write::ExpectMissing { key, .. } => key.kind,
    }
}

fn retry_after(status: &Status) -> Duration {
    let seconds = status.details.as_ref().and_then(|d| d.retry_after_seconds).unwrap_or(0);
    Duration::from_secs(u64::from(seconds))
}

#[cfg(test)]
mod tests;
