//! The API server machine.
//!
//! What comes in: requests of clients, each on a connection; replies and events of the store. What goes out: replies
//! and watch events to clients; requests to the store. What never happens: an answer that reads another server's
//! memory; a write that is not a transaction on the revision it was decided by.
//!
//! Path of a write: decode → admit → default → validate → transact → reply. Several servers run over one store; each
//! keeps a watch cache of its own, which may be behind.

use crate::api::{FromServer, ToServer};
use crate::store::{FromStore, StoreRequest};

/// Names a client's connection. A reconnect is another connection.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub struct ConnId(pub u64);

/// What the API server can be told.
#[derive(Debug)]
pub enum In {
    /// A client says something; the first message opens the connection.
    Client(ConnId, ToServer),
    /// A client's connection broke.
    Closed(ConnId),
    /// The store answers or tells of changes.
    Store(FromStore),
}

/// What the API server can ask for.
#[derive(Debug)]
pub enum Out {
    /// To a client.
    Client(ConnId, FromServer),
    /// To the store, with an id that its reply will carry.
    Store(u64, StoreRequest),
}
