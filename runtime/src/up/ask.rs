//! What crosses between the threads of HTTP and the thread of the machines: plain values, never an `Rc`.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::Value;
use skeg_core::Kind;
pub use skeg_core::api::FieldValidation;
use skeg_core::api::{ListOptions, Patch, Propagation, Status, Subresource, WatchOptions, WriteOptions};
use skeg_core::object::decode::DecodeError;
use tokio::sync::{mpsc, oneshot};

use super::served::Resource;

/// Most bytes of events that wait for a watcher; one that reads slower is cut off. What a watch begins with does not
/// count.
const WATCH_BACKLOG: usize = 32 << 20;

/// A request to the API server.
#[derive(Debug)]
pub struct Ask {
    /// Name of the user.
    pub user: String,
    /// The resource that the path names.
    pub resource: Arc<Resource>,
    /// What is asked.
    pub what: What,
    /// Who manages the fields that are written.
    pub manager: String,
    /// Strictness of the decoder.
    pub validation: FieldValidation,
    /// Fields that occur twice in the body.
    pub duplicates: Vec<DecodeError>,
}

/// One object by name.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Target {
    /// Its kind.
    pub kind: Kind,
    /// Its namespace; empty for cluster-scoped kinds.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

/// `DeleteOptions`, as far as the API server takes them.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Deletion {
    /// `preconditions.uid`.
    pub uid: Option<String>,
    /// `preconditions.resourceVersion`.
    pub rv: Option<u64>,
    /// `gracePeriodSeconds`.
    pub grace_seconds: Option<i64>,
    /// `propagationPolicy`.
    pub propagation: Option<Propagation>,
    /// `dryRun=All`.
    pub dry_run: bool,
}

/// The calls of [`skeg_core::api::Call`] before anything is decoded.
#[derive(Debug)]
#[allow(missing_docs)]
pub enum What {
    Get { target: Target, rv: Option<u64> },
    List { kind: Kind, namespace: String, options: ListOptions },
    Watch { kind: Kind, namespace: String, options: WatchOptions, encoding: WatchEncoding },
    Create { namespace: String, body: Value, options: WriteOptions },
    Update { target: Target, body: Value, subresource: Subresource, options: WriteOptions },
    Patch { target: Target, patch: Patch, subresource: Subresource, options: WriteOptions },
    Delete { target: Target, options: Deletion },
    DeleteCollection { kind: Kind, namespace: String, list: ListOptions, options: Deletion },
    Bind { target: Target, uid: Option<String>, node: String },
    Evict { target: Target, options: Deletion },
    GetScale { target: Target },
    SetScale { target: Target, replicas: i32, rv: u64, options: WriteOptions },
}

/// How a watcher wants its events.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum WatchEncoding {
    /// As they are: encoded once for everybody.
    Json,
    /// Frames of protobuf: encoded once for everybody.
    Protobuf,
    /// As values, out of which tables and the like are made.
    Values {
        /// Whether what is made of them is written as protobuf.
        protobuf: bool,
    },
}

impl WatchEncoding {
    /// Whether events are written as protobuf.
    pub fn is_protobuf(self) -> bool {
        matches!(self, WatchEncoding::Protobuf | WatchEncoding::Values { protobuf: true })
    }
}

/// A good answer.
#[derive(Debug)]
#[allow(missing_docs)]
pub enum Answer {
    Object(Value),
    List {
        items: Vec<Value>,
        rv: u64,
        continue_from: Option<String>,
        remaining: Option<u64>,
    },
    /// Done, with nothing to show.
    Done,
    Watch(Events),
}

/// An answer with its warnings.
#[derive(Debug)]
pub struct Reply {
    /// The answer.
    pub result: Result<Answer, Status>,
    /// What is said in `Warning` headers.
    pub warnings: Vec<String>,
    /// Whether an apply has created the object.
    pub created: bool,
}

/// To the thread of the machines.
#[derive(Debug)]
pub enum Inbound {
    /// A request, and where its answer goes.
    Ask(Ask, oneshot::Sender<Reply>),
    /// The watch with this number has nobody who reads it.
    Cancel(u64),
    /// The journal has made safe what it was given, up to this number.
    Synced(u64),
    /// The journal cannot be written: nothing can be acknowledged any more.
    Fail(String),
    /// The end.
    Stop,
}

/// One event of a watch, ready to be written.
#[derive(Clone, Debug)]
pub enum Event {
    /// A line with its end, or a frame.
    Line(Arc<[u8]>),
    /// `ADDED`, `MODIFIED`, `DELETED`, `BOOKMARK` or `ERROR`, and the object.
    Value(&'static str, Arc<Value>),
}

impl Event {
    fn weight(&self) -> usize {
        match self {
            Event::Line(line) => line.len(),
            // About what an object weighs on the wire; values are shared by all watchers.
            Event::Value(..) => 2048,
        }
    }
}

/// Where the machines' thread puts the events of a watch.
#[derive(Debug)]
pub struct EventSink {
    events: mpsc::UnboundedSender<(usize, Event)>,
    waiting: Arc<AtomicUsize>,
}

/// Where HTTP takes them. Dropping it ends the watch.
#[derive(Debug)]
pub struct Events {
    /// The number of the watch.
    pub id: u64,
    events: mpsc::UnboundedReceiver<(usize, Event)>,
    waiting: Arc<AtomicUsize>,
}

/// The two ends of a watch.
pub fn events(id: u64) -> (EventSink, Events) {
    let (sender, receiver) = mpsc::unbounded_channel();
    let waiting = Arc::new(AtomicUsize::new(0));
    (EventSink { events: sender, waiting: Arc::clone(&waiting) }, Events { id, events: receiver, waiting })
}

impl EventSink {
    /// Hands on an event. False if the watcher is gone, or reads so slowly that it is to be cut off.
    pub fn send(&self, event: Event, initial: bool) -> bool {
        let weight = if initial { 0 } else { event.weight() };
        let waiting = self.waiting.fetch_add(weight, Ordering::Relaxed) + weight;
        waiting <= WATCH_BACKLOG && self.events.send((weight, event)).is_ok()
    }
}

impl Events {
    /// The next event; none: the watch has ended.
    pub fn poll(&mut self, cx: &mut std::task::Context<'_>) -> std::task::Poll<Option<Event>> {
        self.events.poll_recv(cx).map(|next| {
            let (weight, event) = next?;
            self.waiting.fetch_sub(weight, Ordering::Relaxed);
            Some(event)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::{Event, WATCH_BACKLOG, events};

    #[test]
    fn a_slow_watcher_is_cut_off_and_what_it_begins_with_does_not_count() {
        let (sink, mut reader) = events(1);
        let half = Event::Line(vec![b'x'; WATCH_BACKLOG / 2 + 1].into());
        assert!(sink.send(half.clone(), true));
        assert!(sink.send(half.clone(), true), "it begins with more than the backlog");
        assert!(sink.send(half.clone(), false));
        assert!(!sink.send(half.clone(), false));
        let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
        let mut read = 0;
        while reader.poll(&mut cx).is_ready() {
            read += 1;
        }
        assert_eq!(read, 3);
        let (sink, reader) = events(2);
        assert!(sink.send(half.clone(), false));
        drop(reader);
        assert!(!sink.send(half, true), "nobody reads");
    }
}
