//! Disturbs what clients of the API see, by seed: requests that are refused, replies that are late or lost, watches
//! that lag, end, or have expired, lists from an old cache. Nothing here is wrong: a client of any Kubernetes cluster
//! must bear it. A program that takes a stale view for the truth shows it here within seconds.
//!
//! What is drawn for a client's n-th request depends on the seed, on the client's name, on `n` and on what the request
//! is; only the version that an old list shows is one that some client has named before.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::fmt;
use std::future::pending;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll};
use std::time::Duration;

use http_body_util::BodyExt;
use hyper::body::{Body, Bytes, Frame, Incoming};
use hyper::header::USER_AGENT;
use hyper::{Method, Request, Response, Uri};
use skeg_core::Rng;
use skeg_core::api::Status;
use skeg_core::auth::User;
use tokio::sync::Notify;
use tokio::time::{Instant, Sleep};

use super::accept::Encoding;
use super::params::Params;
use super::reply::{self, Content};
use super::served::{Resource, Served};
use super::server::Respond;

/// How late a request or a reply is at most.
const SHORT: Duration = Duration::from_secs(3);
/// After how long a watch that is cut ends at most.
const CUT: Duration = Duration::from_secs(20);
/// How many versions are remembered for old lists: the latest.
const SEEN: usize = 100;

/// How much is disturbed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub enum Perturb {
    /// One request in twenty, and one watch in four.
    Light,
    /// One request in five, and every second watch.
    Heavy,
}

impl Perturb {
    /// One request in this many is disturbed, and one watch in this many.
    fn rates(self) -> (u64, u64) {
        match self {
            Perturb::Light => (20, 4),
            Perturb::Heavy => (5, 2),
        }
    }

    /// How long events are held back at most.
    fn lag(self) -> Duration {
        match self {
            Perturb::Light => Duration::from_secs(5),
            Perturb::Heavy => Duration::from_secs(30),
        }
    }
}

/// A request: the client's name, and which of its requests it is, from 0.
pub type Nth = (Arc<str>, u64);

/// What happens to a request.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Disturbance {
    /// It is refused with 429 (Too Many Requests).
    Overloaded,
    /// It is refused with 503 (Service Unavailable).
    Unavailable,
    /// Somebody else has changed the object: 409 (Conflict).
    Conflict,
    /// It reaches the server late.
    LateRequest(Duration),
    /// It is carried out, and the reply comes late.
    LateReply(Duration),
    /// It is carried out, and the reply is 504 (Gateway Timeout).
    LostReply,
    /// A list from "any version" shows this one.
    OldList(u64),
    /// Events of a watch come late, by at most this much.
    HeldEvents(Duration),
    /// A watch ends after this time.
    CutWatch(Duration),
    /// The version that a watch begins from is too old: 410 (Expired).
    Expired,
    /// The program is started again before the request reaches the server.
    RestartBefore,
    /// The program is started again once the request has been carried out, and does not see the reply.
    RestartAfter,
}

impl fmt::Display for Disturbance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Disturbance::Overloaded => write!(f, "refused with 429"),
            Disturbance::Unavailable => write!(f, "refused with 503"),
            Disturbance::Conflict => write!(f, "refused with 409, as if somebody else had changed the object"),
            Disturbance::LateRequest(by) => write!(f, "reaches the server {by:?} late"),
            Disturbance::LateReply(by) => write!(f, "carried out, and its reply comes {by:?} late"),
            Disturbance::LostReply => write!(f, "carried out, but the reply is lost (504)"),
            Disturbance::OldList(revision) => write!(f, "shows the state of revision {revision}"),
            Disturbance::HeldEvents(by) => write!(f, "its events come up to {by:?} late"),
            Disturbance::CutWatch(after) => write!(f, "ends after {after:?}"),
            Disturbance::Expired => write!(f, "its version has expired (410)"),
            Disturbance::RestartBefore => write!(f, "the program is restarted before it is carried out"),
            Disturbance::RestartAfter => write!(f, "the program is restarted after it is carried out"),
        }
    }
}

/// A disturbance that took place.
#[derive(Clone, Debug)]
pub struct Done {
    /// The request.
    pub nth: Nth,
    /// How long the cluster had been running.
    pub at: Duration,
    /// Method and path of the request.
    pub request: String,
    /// What happened to it.
    pub what: Disturbance,
}

impl fmt::Display for Done {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Done { nth: (client, n), at, request, what } = self;
        write!(f, "{:>9.3}s  {client} #{n} {request}: {what}", at.as_secs_f64())
    }
}

#[derive(Debug, Default)]
struct State {
    /// How many requests each client has made.
    counts: BTreeMap<Arc<str>, u64>,
    /// Versions that clients have named.
    seen: BTreeSet<u64>,
    /// What took place, if that is to be known.
    done: Option<Vec<Done>>,
    /// Programs that may be restarted.
    programs: BTreeMap<Arc<str>, Arc<Notify>>,
}

/// Draws disturbances, and remembers them.
#[derive(Debug)]
pub struct Perturber {
    seed: u64,
    level: Perturb,
    /// If given, no other request is disturbed.
    only: Option<BTreeSet<Nth>>,
    started: Instant,
    calm: AtomicBool,
    state: Mutex<State>,
}

/// What a disturbance depends on.
struct Asked<'a> {
    method: &'a Method,
    params: &'a Params,
    /// The object that the path names.
    object: Option<(&'a Resource, &'a str)>,
    is_watch: bool,
    is_list: bool,
}

impl Perturber {
    /// Disturbs whatever is drawn.
    pub fn new(seed: u64, level: Perturb) -> Perturber {
        let (calm, state) = (AtomicBool::new(false), Mutex::default());
        Perturber { seed, level, only: None, started: Instant::now(), calm, state }
    }

    /// Remembers what takes place. `only`: if given, no other request is disturbed.
    pub fn recorded(self, only: Option<BTreeSet<Nth>>) -> Perturber {
        self.state().done = Some(Vec::new());
        Perturber { only, ..self }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nobody panics while it is changed")
    }

    /// From now on nothing is disturbed. Returns how long what was disturbed before may still take.
    pub fn calm(&self) -> Duration {
        self.calm.store(true, Ordering::Release);
        self.level.lag().max(CUT)
    }

    /// What has taken place so far, as far as it was recorded.
    pub fn done(&self) -> Vec<Done> {
        self.state().done.clone().unwrap_or_default()
    }

    /// From now on this program may be restarted: whoever runs it is told by what this returns.
    pub fn program(&self, name: &Arc<str>) -> Arc<Notify> {
        Arc::clone(self.state().programs.entry(Arc::clone(name)).or_default())
    }

    /// What happens to the next request of a client.
    fn draw(&self, client: &Arc<str>, asked: &Asked<'_>, request: &dyn Fn() -> String) -> Option<Disturbance> {
        let mut state = self.state();
        let count = state.counts.entry(Arc::clone(client)).or_default();
        let nth: Nth = (Arc::clone(client), *count);
        *count += 1;
        let version = asked.params.get("resourceVersion").and_then(|v| v.parse::<u64>().ok()).filter(|v| *v > 0);
        state.seen.extend(version);
        if state.seen.len() > SEEN {
            state.seen.pop_first();
        }
        if self.calm.load(Ordering::Acquire) || self.only.as_ref().is_some_and(|only| !only.contains(&nth)) {
            return None;
        }
        let mut rng = Rng::stream(self.seed, &format!("perturb {client}"), nth.1);
        let (requests, watches) = self.level.rates();
        if !rng.chance(1, if asked.is_watch { watches } else { requests }) {
            return None;
        }
        let can_restart = state.programs.contains_key(client);
        let what = self.choose(&mut rng, asked, version, can_restart, &state.seen)?;
        if let Some(done) = &mut state.done {
            done.push(Done { nth, at: self.started.elapsed(), request: request(), what });
        }
        Some(what)
    }

    fn choose(
        &self,
        rng: &mut Rng,
        asked: &Asked<'_>,
        version: Option<u64>,
        can_restart: bool,
        seen: &BTreeSet<u64>,
    ) -> Option<Disturbance> {
        let mut late = |longest: Duration| rng.duration(Duration::from_millis(1), longest);
        let (held, short, cut) = (late(self.level.lag()), late(SHORT), late(CUT));
        let mut all = match (asked.is_watch, asked.method == Method::GET) {
            (true, _) => {
                let held = Disturbance::HeldEvents(held);
                let expired = version.map(|_| Disturbance::Expired);
                [held, held, held, Disturbance::CutWatch(cut)].into_iter().chain(expired).collect()
            }
            (false, true) => vec![Disturbance::Overloaded, Disturbance::Unavailable, Disturbance::LateReply(short)],
            (false, false) => vec![
                Disturbance::Overloaded,
                Disturbance::Unavailable,
                Disturbance::LateRequest(short),
                Disturbance::LateReply(short),
                Disturbance::LostReply,
                Disturbance::LostReply,
            ],
        };
        // Only an update says which version it is of.
        if asked.method == Method::PUT && asked.object.is_some() {
            all.extend([Disturbance::Conflict; 2]);
        }
        if can_restart {
            all.extend([Disturbance::RestartBefore, Disturbance::RestartAfter]);
        }
        let of_any = asked.is_list && asked.params.get("resourceVersion") == Some("0");
        if of_any && asked.params.get("resourceVersionMatch") != Some("Exact") {
            let seen: Vec<u64> = seen.iter().copied().collect();
            if let Some(old) = rng.pick(&seen) {
                all = vec![Disturbance::OldList(*old)];
            }
        }
        rng.pick(&all).copied()
    }
}

/// Shows a list as of a revision.
fn as_of(uri: &Uri, revision: u64) -> Uri {
    let query = uri.query().unwrap_or_default().split('&').filter(|pair| !pair.starts_with("resourceVersion"));
    let query: Vec<&str> = query.filter(|pair| !pair.is_empty()).collect();
    let exact = format!("resourceVersion={revision}&resourceVersionMatch=Exact");
    let query = query.into_iter().chain([exact.as_str()]).collect::<Vec<_>>().join("&");
    format!("{}?{query}", uri.path()).parse().expect("it is made of parts of one")
}

/// Answers requests as `inner` does, disturbed.
#[derive(Debug)]
pub struct Perturbed<R> {
    /// What answers.
    pub inner: Arc<R>,
    /// What disturbs.
    pub perturber: Arc<Perturber>,
    /// The client's name; `None`: what its `User-Agent` says.
    pub client: Option<Arc<str>>,
}

/// The parts of a path that names objects.
fn objects_of(served: &Served, path: &str) -> (Option<Arc<Resource>>, Option<String>, bool) {
    let parts: Vec<&str> = path.split('/').skip(1).collect();
    let (group, rest) = match parts.as_slice() {
        ["api", version, rest @ ..] => (("", *version), rest),
        ["apis", group, version, rest @ ..] => ((*group, *version), rest),
        _ => return (None, None, false),
    };
    let rest = match rest {
        ["namespaces", _, rest @ ..] if !rest.is_empty() && !matches!(rest, ["status" | "finalize"]) => rest,
        rest => rest,
    };
    let resource = rest.first().and_then(|plural| served.by_path(group.0, group.1, plural)).cloned();
    let is_collection = resource.is_some() && rest.len() == 1;
    (resource, rest.get(1).map(|name| (*name).to_owned()), is_collection)
}

/// What names the programs that share a `User-Agent`: its first word, up to the version.
fn program_of(agent: Option<&str>) -> Arc<str> {
    Arc::from(
        agent.and_then(|agent| agent.split(['/', ' ']).next()).filter(|name| !name.is_empty()).unwrap_or("client"),
    )
}

impl<R: Respond + Serves> Respond for Perturbed<R> {
    async fn respond(&self, user: Arc<User>, mut request: Request<Incoming>) -> Response<Content> {
        let agent = request.headers().get(USER_AGENT).and_then(|agent| agent.to_str().ok());
        let client = self.client.clone().unwrap_or_else(|| program_of(agent));
        let params = Params::parse(request.uri().query());
        let (resource, name, is_collection) = objects_of(&self.inner.served(), request.uri().path());
        if resource.is_none() {
            // Health, discovery and documents are left alone.
            return self.inner.respond(user, request).await;
        }
        let is_read = request.method() == Method::GET;
        let is_watch = is_read && params.flag("watch");
        let asked = Asked {
            method: request.method(),
            params: &params,
            object: resource.as_deref().zip(name.as_deref()),
            is_watch,
            is_list: is_read && is_collection && !is_watch,
        };
        let line = || format!("{} {}", request.method(), request.uri());
        let drawn = self.perturber.draw(&client, &asked, &line);
        let refuse = |status: &Status| reply::status(status, Encoding::Json);
        if let Some(what) = drawn {
            tracing::info!(client = &*client, request = line(), "disturbed: {what}");
        }
        match drawn {
            None => self.inner.respond(user, request).await,
            Some(Disturbance::Overloaded) => {
                let why = "Too many requests, please try again later.";
                refuse(&Status::too_many_requests(why, Duration::from_secs(1)))
            }
            Some(Disturbance::Unavailable) => {
                refuse(&Status::unavailable("the server is currently unable to handle the request"))
            }
            Some(Disturbance::Conflict) => {
                let (resource, name) = asked.object.expect("only updates of an object conflict");
                refuse(&Status::stale(&resource.info, name))
            }
            Some(Disturbance::Expired) => {
                let version = params.get("resourceVersion").unwrap_or_default();
                refuse(&Status::expired(format!("too old resource version: {version}")))
            }
            Some(Disturbance::LateRequest(by)) => {
                tokio::time::sleep(by).await;
                self.inner.respond(user, request).await
            }
            Some(Disturbance::LateReply(by)) => {
                let response = self.inner.respond(user, request).await;
                tokio::time::sleep(by).await;
                response
            }
            Some(Disturbance::LostReply) => {
                drop(self.inner.respond(user, request).await);
                let why = "Timeout: request did not complete within the allotted timeout";
                refuse(&Status::timeout(why))
            }
            Some(Disturbance::OldList(revision)) => {
                *request.uri_mut() = as_of(request.uri(), revision);
                self.inner.respond(user, request).await
            }
            Some(Disturbance::HeldEvents(by)) => {
                let n = self.perturber.state().counts[&client];
                let rng = Rng::stream(self.perturber.seed, &format!("events {client}"), n);
                let perturber = Arc::clone(&self.perturber);
                let response = self.inner.respond(user, request).await;
                response.map(|inner| Held { inner, by, rng, perturber, held: None }.boxed_unsync())
            }
            Some(Disturbance::CutWatch(after)) => {
                let end = Box::pin(tokio::time::sleep(after));
                self.inner.respond(user, request).await.map(|inner| Cut { inner, end }.boxed_unsync())
            }
            Some(restart @ (Disturbance::RestartBefore | Disturbance::RestartAfter)) => {
                if restart == Disturbance::RestartAfter {
                    drop(self.inner.respond(user, request).await);
                }
                self.perturber.program(&client).notify_one();
                // The connection is closed by the program's end.
                pending().await
            }
        }
    }
}

/// What knows the resources that are served.
pub trait Serves {
    /// Those of this moment.
    fn served(&self) -> Arc<Served>;
}

/// The body of a watch whose events come late, in order.
struct Held {
    inner: Content,
    by: Duration,
    rng: Rng,
    perturber: Arc<Perturber>,
    held: Option<(Frame<Bytes>, Pin<Box<Sleep>>)>,
}

impl Body for Held {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        loop {
            let this = &mut *self;
            if let Some((frame, mut until)) = this.held.take() {
                if until.as_mut().poll(cx).is_ready() {
                    return Poll::Ready(Some(Ok(frame)));
                }
                this.held = Some((frame, until));
                return Poll::Pending;
            }
            match Pin::new(&mut this.inner).poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) if !this.perturber.calm.load(Ordering::Acquire) => {
                    let late =
                        if this.rng.chance(1, 2) { this.rng.duration(Duration::ZERO, this.by) } else { Duration::ZERO };
                    this.held = Some((frame, Box::pin(tokio::time::sleep(late))));
                }
                polled => return polled,
            }
        }
    }
}

/// The body of a watch that ends early.
struct Cut {
    inner: Content,
    end: Pin<Box<Sleep>>,
}

impl Body for Cut {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match Pin::new(&mut self.inner).poll_frame(cx) {
            Poll::Pending if self.end.as_mut().poll(cx).is_ready() => Poll::Ready(None),
            polled => polled,
        }
    }
}
