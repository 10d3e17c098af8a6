//! The store of a running cluster: in memory only, with a journal, or elsewhere (etcd). The result of a write is never
//! reported before it is safe on disk.

use std::collections::VecDeque;
use std::sync::mpsc::Sender;

use skeg_core::store::remote::{ByteRequest, FromRemote, Remote};
use skeg_core::store::{self, DurableStore, FromStore, MemoryStore, StoreClient, StoreRequest};
use skeg_core::{Deadline, Machine, Now};

use super::data::{Job, ROTATE_FROM};

/// The store of a cluster.
pub enum Keeper {
    /// In memory only: the data is lost when the cluster stops.
    Memory(MemoryStore),
    /// In a data directory.
    Durable(Box<Durable>),
    /// Elsewhere; its messages arrive through [`Keeper::received`].
    #[cfg_attr(not(feature = "etcd"), allow(dead_code))]
    Elsewhere(Box<Elsewhere>),
}

/// A store that runs elsewhere and keeps bytes.
pub struct Elsewhere {
    remote: Remote,
    /// Sends a request with this id.
    ask: Box<dyn Fn(u64, ByteRequest)>,
}

/// A store whose messages are held back until the journal is synced.
pub struct Durable {
    store: DurableStore,
    journal: Sender<Job>,
    /// Bytes that the journal may grow by before the next generation.
    room: u64,
    /// The number of the last group of bytes that was sent to the journal.
    written: u64,
    /// The number of the last group that is safely on disk.
    safe: u64,
    /// Messages that are held back, each until the group with this number is safe.
    held: VecDeque<(u64, FromStore)>,
}

impl Keeper {
    /// `store` is the recovered store; `room` is how many bytes the journal may grow by before the next generation.
    pub fn durable(store: DurableStore, journal: Sender<Job>, room: u64) -> Keeper {
        Keeper::Durable(Box::new(Durable { store, journal, room, written: 0, safe: 0, held: VecDeque::new() }))
    }

    /// A store elsewhere: `ask` sends it a request.
    #[cfg_attr(not(feature = "etcd"), allow(dead_code))]
    pub fn elsewhere(remote: Remote, ask: impl Fn(u64, ByteRequest) + 'static) -> Keeper {
        Keeper::Elsewhere(Box::new(Elsewhere { remote, ask: Box::new(ask) }))
    }

    /// Handles a message of a store elsewhere. Fails, with a message for the user, if that holds what Skeg cannot read.
    pub fn received(&mut self, message: FromRemote) -> Result<Vec<FromStore>, String> {
        let Keeper::Elsewhere(elsewhere) = self else { return Ok(Vec::new()) };
        elsewhere.remote.decode(message).map_err(|e| format!("error: etcd: {e}; it is left as it is"))
    }

    /// Handles a request of the API server. Returns the messages that may be sent at once.
    pub fn handle(&mut self, now: Now, from: StoreClient, id: u64, request: StoreRequest) -> Vec<FromStore> {
        let mut out = Vec::new();
        match self {
            Keeper::Memory(store) => {
                store.handle(now, store::In::Request(from, id, request), &mut out);
                out.into_iter().map(|out| out.msg).collect()
            }
            Keeper::Durable(durable) => {
                let mut bytes = Vec::new();
                durable.store.handle(now, store::In::Request(from, id, request), &mut out, &mut bytes);
                durable.hold(out, bytes)
            }
            Keeper::Elsewhere(elsewhere) => {
                let request = elsewhere.remote.encode(&request);
                (elsewhere.ask)(id, request);
                Vec::new()
            }
        }
    }

    /// Expires leases that are due. Returns the messages that may be sent at once.
    pub fn handle_timeout(&mut self, now: Now) -> Vec<FromStore> {
        let mut out = Vec::new();
        match self {
            Keeper::Memory(store) => {
                store.handle_timeout(now, &mut out);
                out.into_iter().map(|out| out.msg).collect()
            }
            Keeper::Durable(durable) => {
                let mut bytes = Vec::new();
                durable.store.handle_timeout(now, &mut out, &mut bytes);
                durable.hold(out, bytes)
            }
            Keeper::Elsewhere(_) => Vec::new(),
        }
    }

    /// When the next lease expires.
    pub fn poll_timeout(&self) -> Option<Deadline> {
        match self {
            Keeper::Memory(store) => store.poll_timeout(),
            Keeper::Durable(durable) => durable.store.poll_timeout(),
            Keeper::Elsewhere(_) => None,
        }
    }

    /// The journal has synced everything up to this group. Returns the messages that may be sent now.
    pub fn synced(&mut self, number: u64) -> Vec<FromStore> {
        let Keeper::Durable(durable) = self else { return Vec::new() };
        durable.safe = durable.safe.max(number);
        let ready = durable.held.partition_point(|(waits_for, _)| *waits_for <= durable.safe);
        durable.held.drain(..ready).map(|(_, message)| message).collect()
    }
}

impl Durable {
    /// Sends bytes to the journal. While any group is not yet safe, all messages are held back: they may depend on it.
    fn hold(&mut self, out: Vec<store::Out>, bytes: Vec<u8>) -> Vec<FromStore> {
        if !bytes.is_empty() {
            self.written += 1;
            self.room = self.room.saturating_sub(bytes.len() as u64);
            self.send(Job::Append(bytes, self.written));
            if self.room == 0 {
                let state: Vec<u8> = self.store.snapshot().flatten().collect();
                self.room = ROTATE_FROM.max(2 * state.len() as u64);
                self.send(Job::Rotate(state));
            }
        }
        let messages = out.into_iter().map(|out| out.msg);
        if self.written == self.safe {
            return messages.collect();
        }
        self.held.extend(messages.map(|message| (self.written, message)));
        Vec::new()
    }

    fn send(&self, job: Job) {
        // An error means that the journal has failed. It has sent the reason to the cluster, which stops; until then
        // all messages are held back, since no group becomes safe.
        let _ = self.journal.send(job);
    }
}
