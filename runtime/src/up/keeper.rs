//! The store of a running cluster: in memory, or with a journal. A change is told to nobody before the journal has it
//! on disk.

use std::collections::VecDeque;
use std::sync::mpsc::Sender;

use skeg_core::store::{self, DurableStore, FromStore, MemoryStore, StoreClient, StoreRequest};
use skeg_core::{Deadline, Machine, Now};

use super::data::{Job, ROTATE_FROM};

/// Where a cluster keeps what it knows.
pub enum Keeper {
    /// Nowhere: it is gone when the cluster ends.
    Memory(MemoryStore),
    /// In a data directory.
    Durable(Box<Durable>),
}

/// A store whose messages wait for its journal.
pub struct Durable {
    store: DurableStore,
    journal: Sender<Job>,
    /// Bytes until the next generation.
    room: u64,
    /// Numbers the groups of bytes; the last one that was handed to the journal.
    written: u64,
    /// The last one that is safe.
    safe: u64,
    /// What waits, each for the bytes with this number.
    held: VecDeque<(u64, FromStore)>,
}

impl Keeper {
    /// Over a recovered store, and a journal that has room for so many bytes more.
    pub fn durable(store: DurableStore, journal: Sender<Job>, room: u64) -> Keeper {
        Keeper::Durable(Box::new(Durable { store, journal, room, written: 0, safe: 0, held: VecDeque::new() }))
    }

    /// Takes a request of the API server; what it may hear at once.
    pub fn handle(&mut self, now: Now, from: StoreClient, id: u64, request: StoreRequest) -> Vec<FromStore> {
        let (input, mut out) = (store::In::Request(from, id, request), Vec::new());
        match self {
            Keeper::Memory(store) => {
                store.handle(now, input, &mut out);
                out.into_iter().map(|out| out.msg).collect()
            }
            Keeper::Durable(durable) => {
                let mut bytes = Vec::new();
                durable.store.handle(now, input, &mut out, &mut bytes);
                durable.hold(out, bytes)
            }
        }
    }

    /// Ends leases that are due; what the API server may hear at once.
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
        }
    }

    /// When a lease ends next.
    pub fn poll_timeout(&self) -> Option<Deadline> {
        match self {
            Keeper::Memory(store) => store.poll_timeout(),
            Keeper::Durable(durable) => durable.store.poll_timeout(),
        }
    }

    /// Everything up to these bytes is safe; what the API server may hear now.
    pub fn synced(&mut self, number: u64) -> Vec<FromStore> {
        let Keeper::Durable(durable) = self else { return Vec::new() };
        durable.safe = durable.safe.max(number);
        let ready = durable.held.partition_point(|(waits_for, _)| *waits_for <= durable.safe);
        durable.held.drain(..ready).map(|(_, message)| message).collect()
    }
}

impl Durable {
    /// Hands bytes to the journal. Whatever is said from now on may rest on them, and waits with them.
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
        // A journal that has ended has said why, and ends the cluster; until then its silence holds everything back.
        let _ = self.journal.send(job);
    }
}
