//! Messages between the HTTP threads and the machines' thread. They are plain values and never contain an `Rc`.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::Value;
use skeg_core::Kind;
pub use skeg_core::api::FieldValidation;
use skeg_core::api::{Annotations, ListOptions, Patch, Propagation, Status, Subresource, WatchOptions, WriteOptions};
use skeg_core::apiserver::{Answered, Consultation};
use skeg_core::auth::User;
use skeg_core::object::decode::DecodeError;
use skeg_core::store::remote::FromRemote;
use tokio::sync::{mpsc, oneshot};

use super::aggregator::Found;
use super::consult::Reached;
use super::dns::Lookup;
use super::docker::Happened;
use super::served::Resource;
use super::streams::visit::Visit;
use super::usage::Used;

/// Maximum bytes of events that are queued for one watcher; a watcher whose queue exceeds it is disconnected. The
/// watch's initial events do not count.
const WATCH_BACKLOG: usize = 32 << 20;

/// The channel to the machines' thread.
pub type ToCluster = mpsc::UnboundedSender<Inbound>;

/// A request to the API server.
#[derive(Debug)]
pub struct Ask {
    /// Who asks.
    pub user: Arc<User>,
    /// The resource that the path names.
    pub resource: Arc<Resource>,
    /// The call.
    pub what: What,
    /// The field manager of a write.
    pub manager: String,
    /// Strictness of the decoder.
    pub validation: FieldValidation,
    /// Fields that occur more than once in the body.
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

/// The parts of `DeleteOptions` that the API server supports.
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

/// The calls of [`skeg_core::api::Call`], with bodies that are not decoded yet.
#[derive(Debug)]
#[allow(missing_docs)]
pub enum What {
    Get {
        target: Target,
        rv: Option<u64>,
    },
    /// With `as_text`, the items are encoded as JSON right away.
    List {
        kind: Kind,
        namespace: String,
        options: ListOptions,
        as_text: bool,
    },
    Watch {
        kind: Kind,
        namespace: String,
        options: WatchOptions,
        encoding: WatchEncoding,
    },
    Create {
        namespace: String,
        body: Value,
        options: WriteOptions,
    },
    Update {
        target: Target,
        body: Value,
        subresource: Subresource,
        options: WriteOptions,
    },
    Patch {
        target: Target,
        patch: Patch,
        subresource: Subresource,
        options: WriteOptions,
    },
    Delete {
        target: Target,
        options: Deletion,
    },
    DeleteCollection {
        kind: Kind,
        namespace: String,
        list: ListOptions,
        options: Deletion,
    },
    Bind {
        target: Target,
        uid: Option<String>,
        node: String,
        annotations: Annotations,
    },
    Evict {
        target: Target,
        options: Deletion,
    },
    Connect {
        target: Target,
        subresource: &'static str,
        options: Value,
    },
    GetScale {
        target: Target,
    },
    SetScale {
        target: Target,
        replicas: i32,
        rv: u64,
        options: WriteOptions,
    },
}

impl What {
    /// Whether it changes nothing.
    pub fn reads(&self) -> bool {
        match self {
            What::Get { .. }
            | What::List { .. }
            | What::Watch { .. }
            | What::Connect { .. }
            | What::GetScale { .. } => true,
            What::Create { .. }
            | What::Update { .. }
            | What::Patch { .. }
            | What::Delete { .. }
            | What::DeleteCollection { .. }
            | What::Bind { .. }
            | What::Evict { .. }
            | What::SetScale { .. } => false,
        }
    }
}

/// How a watcher receives its events.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum WatchEncoding {
    /// Lines of JSON with whole objects, encoded once for all watchers.
    Json,
    /// Protobuf frames with whole objects, encoded once for all watchers.
    Protobuf,
    /// JSON values, from which HTTP makes Tables or metadata-only objects.
    Values {
        /// Whether the result is encoded as protobuf.
        protobuf: bool,
    },
}

impl WatchEncoding {
    /// Whether events are encoded as protobuf.
    pub fn is_protobuf(self) -> bool {
        matches!(self, WatchEncoding::Protobuf | WatchEncoding::Values { protobuf: true })
    }
}

/// A successful answer.
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
    /// A list whose items are encoded: as JSON, without `apiVersion` and `kind`, and with commas between.
    Text {
        items: Vec<u8>,
        count: usize,
        rv: u64,
        continue_from: Option<String>,
        remaining: Option<u64>,
    },
    /// Success without an object to return.
    Done,
    Watch(Events),
}

/// An answer with its warnings.
#[derive(Debug)]
pub struct Reply {
    /// The answer, or the failure as a `Status`.
    pub result: Result<Answer, Status>,
    /// Texts for `Warning` headers.
    pub warnings: Vec<String>,
    /// Whether a server-side apply created the object.
    pub created: bool,
}

/// A message to the machines' thread.
#[derive(Debug)]
pub enum Inbound {
    /// A request, and the channel for its reply.
    Ask(Ask, oneshot::Sender<Reply>),
    /// Something about the inside of a container.
    Visit(Visit),
    /// Does anybody here need to know what pods use?
    NeedsUsage(oneshot::Sender<bool>),
    /// What pods use.
    Measured(Used),
    /// The client of the watch with this number has disconnected.
    Cancel(u64),
    /// A question to somebody outside, and the channel for the answer.
    Consult(Consultation, oneshot::Sender<Answered>),
    /// Where is the Service with this namespace and name, and port?
    Reach((String, String, u16), oneshot::Sender<Reached>),
    /// What the server of an APIService has said of itself, or why it has not.
    Probed(String, Result<Found, String>),
    /// The answers to the API server's questions with this number.
    Consulted(u64, Vec<Answered>),
    /// What came of a question of the scheduler, which is the member of this number, to an extender.
    Extender(usize, u64, Answered),
    /// The journal has everything up to this number safely on disk.
    Synced(u64),
    /// Something that the runtime of the Docker node tells its agent.
    Runtime(Happened),
    /// A pod asks for a name.
    Resolve(Lookup),
    /// A message of a store elsewhere (etcd).
    #[cfg_attr(not(feature = "etcd"), allow(dead_code))]
    Store(FromRemote),
    /// The journal cannot be written, so nothing can be acknowledged any more.
    Fail(String),
    /// The process will stop: what it leads is given up, and its address is taken out of the endpoints. The sender is
    /// dropped once that is done.
    Leave(oneshot::Sender<()>),
    /// The process is about to stop: all watches end, and none begins any more.
    EndWatches,
    /// The process must stop.
    Stop,
}

/// One event of a watch.
#[derive(Clone, Debug)]
pub enum Event {
    /// Encoded: a line of JSON with its newline, or a protobuf frame.
    Line(Arc<[u8]>),
    /// The event type (`ADDED`, `MODIFIED`, `DELETED`, `BOOKMARK` or `ERROR`) and the object.
    Value(&'static str, Arc<Value>),
}

impl Event {
    fn weight(&self) -> usize {
        match self {
            Event::Line(line) => line.len(),
            // An estimate of the encoded size. All watchers share the value itself.
            Event::Value(..) => 2048,
        }
    }
}

/// The sending end of a watch, on the machines' thread.
#[derive(Debug)]
pub struct EventSink {
    events: mpsc::UnboundedSender<(usize, Event)>,
    waiting: Arc<AtomicUsize>,
}

/// The receiving end of a watch, on an HTTP thread. Dropping it ends the watch.
#[derive(Debug)]
pub struct Events {
    /// The number of the watch.
    pub id: u64,
    events: mpsc::UnboundedReceiver<(usize, Event)>,
    waiting: Arc<AtomicUsize>,
}

/// Makes both ends of a watch.
pub fn events(id: u64) -> (EventSink, Events) {
    let (sender, receiver) = mpsc::unbounded_channel();
    let waiting = Arc::new(AtomicUsize::new(0));
    (EventSink { events: sender, waiting: Arc::clone(&waiting) }, Events { id, events: receiver, waiting })
}

impl EventSink {
    /// Sends an event. Returns false if the watcher has disconnected, or is so slow that it must be disconnected.
    pub fn send(&self, event: Event, initial: bool) -> bool {
        let weight = if initial { 0 } else { event.weight() };
        let waiting = self.waiting.fetch_add(weight, Ordering::Relaxed) + weight;
        waiting <= WATCH_BACKLOG && self.events.send((weight, event)).is_ok()
    }
}

impl Events {
    /// Polls for the next event; `None` if the watch has ended.
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
