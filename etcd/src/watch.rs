//! Watches. Each has a stream of its own, so that progress is asked for one watch at a time and the end of one watch
//! ends nothing else.

use etcd_client::{Client, Error, EventType, WatchOptions, WatchResponse, WatchStream};
use skeg_core::store::remote::{ByteEvent, ByteKeyValue, ByteReply, ByteSpan, FromRemote};
use skeg_core::store::{StoreError, WatchId};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinHandle;

use crate::error::{self, Cause};
use crate::format::FORMAT_KEY;
use crate::request::{ends, key_value, newest, read_at, revision, signed};
use crate::{LARGEST_MESSAGE, REQUEST_TIMEOUT, Tell};

/// A watch that is open or is being opened. Dropping it ends it.
pub struct Watching {
    task: JoinHandle<()>,
    progress: UnboundedSender<()>,
}

impl Watching {
    /// Asks etcd to say how far the watch is.
    pub fn ask_for_progress(&self) {
        // An error means that the watch has ended, which it says by itself.
        let _ = self.progress.send(());
    }

    /// Whether the watch has ended.
    pub fn has_ended(&self) -> bool {
        self.task.is_finished()
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Opens a watch. Its reply goes to the request with this id; its events follow.
pub fn begin(client: Client, id: u64, watch: WatchId, span: ByteSpan, from: u64, tell: Tell) -> Watching {
    let (progress, asked) = unbounded_channel();
    let task = tokio::spawn(async move {
        let opened = tokio::time::timeout(REQUEST_TIMEOUT, open(&client, span, from)).await;
        let opened = match opened {
            Ok(Ok(opened)) => opened,
            Ok(Err(e)) => return tell(FromRemote::Reply(id, refusal(watch, &e))),
            Err(_) => return tell(FromRemote::Reply(id, ByteReply::Error(StoreError::Unavailable))),
        };
        match opened {
            Opened::Stream(stream, revision) => {
                tell(FromRemote::Reply(id, ByteReply::Watching { revision, watch }));
                let compacted = follow(stream, watch, asked, &tell).await;
                tell(FromRemote::WatchCanceled { watch, compacted });
            }
            Opened::Compacted(oldest) => {
                tell(FromRemote::Reply(id, ByteReply::WatchCanceled { watch, compacted: Some(oldest) }));
            }
        }
    });
    Watching { task, progress }
}

fn refusal(watch: WatchId, e: &Error) -> ByteReply {
    tracing::warn!(watch = watch.0, "a watch of etcd could not be opened: {}", error::show(e));
    // What was compacted is found out before; the other causes have no revision.
    match Cause::of(e) {
        Cause::Compacted | Cause::Future => ByteReply::Error(StoreError::Unavailable),
        Cause::Other(refusal) => ByteReply::Error(refusal.store_error()),
    }
}

enum Opened {
    /// The stream, and etcd's revision when it was created.
    Stream(WatchStream, u64),
    /// The first revision is compacted; the oldest one is this.
    Compacted(u64),
}

async fn open(client: &Client, span: ByteSpan, from: u64) -> Result<Opened, Error> {
    // etcd creates a watch of the past at once and finds out later that it is compacted.
    if from > 0 {
        match read_at(client, from).await {
            Ok(()) => {}
            Err(e) if Cause::of(&e) == Cause::Compacted => return Ok(Opened::Compacted(oldest(client).await?)),
            Err(e) if Cause::of(&e) == Cause::Future => {}
            Err(e) => return Err(e),
        }
    }
    let (start, end) = ends(span);
    let options = WatchOptions::new().with_range(end).with_start_revision(signed(from)).with_prev_key().with_fragment();
    let mut watches = client.watch_client().max_decoding_message_size(LARGEST_MESSAGE);
    let mut stream = watches.watch(start, Some(options)).await?;
    match stream.message().await? {
        Some(response) if response.canceled() => Err(Error::WatchError(response.cancel_reason().to_owned())),
        Some(response) => Ok(Opened::Stream(stream, revision(response.header()))),
        None => Err(Error::WatchError("the stream ended".to_owned())),
    }
}

/// Passes on what a watch hears until it ends. Returns the oldest revision if that is why.
async fn follow(stream: WatchStream, watch: WatchId, mut asked: UnboundedReceiver<()>, tell: &Tell) -> Option<u64> {
    let (mut sender, mut responses) = stream.split();
    loop {
        let response = tokio::select! {
            response = responses.message() => response,
            Some(()) = asked.recv() => {
                if let Err(e) = sender.request_progress().await {
                    tracing::warn!(watch = watch.0, "a watch of etcd has ended: {}", error::show(&e));
                    return None;
                }
                continue;
            }
        };
        let response = match response {
            Ok(Some(response)) => response,
            Ok(None) => return None,
            Err(e) => {
                tracing::warn!(watch = watch.0, "a watch of etcd has ended: {}", error::show(&e));
                return None;
            }
        };
        if response.canceled() {
            return (response.compact_revision() > 0).then(|| response.compact_revision() as u64);
        }
        if !response.created() {
            tell(events(watch, &response));
        }
    }
}

fn events(watch: WatchId, response: &WatchResponse) -> FromRemote {
    let event = |event: &etcd_client::Event| ByteEvent {
        kv: event.kv().map_or_else(nothing, key_value),
        previous: event.prev_kv().map(key_value),
        deleted: event.event_type() == EventType::Delete,
    };
    FromRemote::Events {
        watch,
        revision: revision(response.header()),
        events: response.events().iter().map(event).collect(),
        more: response.0.fragment,
    }
}

/// Stands for the key of an event without one, which etcd never sends; decoding it is an error.
fn nothing() -> ByteKeyValue {
    let (key, value) = (Vec::new(), Vec::new());
    ByteKeyValue { key, value, create_revision: 0, mod_revision: 0, version: 0, lease: 0 }
}

/// The oldest revision that can be read. etcd says it only to a watch that asks for an older one.
pub async fn oldest(client: &Client) -> Result<u64, Error> {
    let options = WatchOptions::new().with_start_revision(1);
    let mut stream = client.watch_client().watch(FORMAT_KEY, Some(options)).await?;
    while let Some(response) = stream.message().await? {
        if response.canceled() && response.compact_revision() > 0 {
            return Ok(response.compact_revision() as u64);
        }
        if !response.created() {
            break;
        }
    }
    // Nothing is compacted.
    newest(client).await.map(|newest| newest.min(1))
}
