//! A SPDY/3.1 connection, on a socket of its own or inside a WebSocket (KEP-4006's tunnel for port-forward).

use std::collections::VecDeque;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use skeg_spdy::{Event, Session, StreamId};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

use super::upgrade::Socket;
use super::websocket::Broken;

/// How long a client may take to close a connection on which everything was said.
const FAREWELL: Duration = Duration::from_secs(5);
/// Bytes that are read at once.
const CHUNK: usize = 32 << 10;

/// What carries the frames.
pub enum Wire {
    /// The connection itself.
    Raw(TokioIo<Upgraded>),
    /// Binary messages, which may split frames anywhere.
    Tunnel(Box<Socket>),
}

impl Wire {
    /// The next bytes; `None` at the end. May be dropped while it waits.
    async fn read(&mut self) -> Option<Vec<u8>> {
        match self {
            Wire::Raw(io) => {
                let mut bytes = Vec::with_capacity(CHUNK);
                let read = io.read_buf(&mut bytes).await.ok()?;
                (read > 0).then_some(bytes)
            }
            Wire::Tunnel(socket) => loop {
                match socket.next().await?.ok()? {
                    Message::Binary(bytes) => return Some(bytes.to_vec()),
                    Message::Close(_) => return None,
                    Message::Text(_) | Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => {}
                }
            },
        }
    }

    async fn write(&mut self, bytes: Vec<u8>) -> Result<(), Broken> {
        match self {
            Wire::Raw(io) => {
                io.write_all(&bytes).await.map_err(|_| Broken)?;
                io.flush().await.map_err(|_| Broken)
            }
            Wire::Tunnel(socket) => socket.send(Message::binary(bytes)).await.map_err(|_| Broken),
        }
    }
}

/// A connection with streams.
pub struct Connection {
    wire: Wire,
    session: Session,
    events: VecDeque<Event>,
    out: Vec<u8>,
}

impl Connection {
    /// A connection on which nothing was said.
    pub fn new(wire: Wire) -> Connection {
        Connection { wire, session: Session::default(), events: VecDeque::new(), out: Vec::new() }
    }

    /// What the client does next; `None` when it has gone or broken the protocol. May be dropped while it waits. What
    /// is to be sent waits until [`Self::flush`].
    pub async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.events.pop_front() {
                return Some(event);
            }
            let bytes = self.wire.read().await?;
            let mut events = Vec::new();
            if let Err(e) = self.session.handle(&bytes, &mut events, &mut self.out) {
                tracing::debug!("a stream's client broke SPDY: {e}");
                return None;
            }
            self.events.extend(events);
        }
    }

    /// Accepts a stream.
    pub fn accept(&mut self, stream: StreamId) {
        self.session.accept(stream, &mut self.out);
    }

    /// Refuses a stream, or ends it.
    pub fn reset(&mut self, stream: StreamId) {
        self.session.reset(stream, &mut self.out);
    }

    /// Sends bytes on a stream; with `fin`, they are the last.
    pub fn send(&mut self, stream: StreamId, bytes: &[u8], fin: bool) {
        self.session.send(stream, bytes, fin, &mut self.out);
    }

    /// Sends what is waiting. Must not be dropped while it waits.
    pub async fn flush(&mut self) -> Result<(), Broken> {
        match self.out.is_empty() {
            true => Ok(()),
            false => self.wire.write(std::mem::take(&mut self.out)).await,
        }
    }

    /// Ends the connection: says so, and waits a moment for the client to close it.
    pub async fn close(mut self) {
        self.session.go_away(&mut self.out);
        if self.flush().await.is_err() {
            return;
        }
        let _ = tokio::time::timeout(FAREWELL, async {
            if let Wire::Tunnel(socket) = &mut self.wire {
                // Errors mean that the client has gone first.
                let _ = WebSocketStream::close(socket, None).await;
            }
            while self.wire.read().await.is_some() {}
        })
        .await;
        if let Wire::Raw(io) = &mut self.wire {
            let _ = io.shutdown().await;
        }
    }
}

/// The value of a header.
pub fn header<'a>(headers: &'a [(String, String)], name: &str) -> &'a str {
    headers.iter().find(|(n, _)| n == name).map_or("", |(_, v)| v)
}
