//! Channels over a WebSocket: the first byte of a message is the number of its channel.
//!
//! Source: kubernetes `staging/src/k8s.io/apimachinery/pkg/util/httpstream/wsstream/conn.go`.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use futures_util::{SinkExt, StreamExt};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

use super::upgrade::Socket;

/// The channel of v5 on which a client says that it has finished another channel.
const CLOSE: u8 = 255;

/// The connection broke.
#[derive(Clone, Copy, Debug)]
pub struct Broken;

/// What a client says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Said {
    /// Bytes on a channel.
    Bytes(u8, Vec<u8>),
    /// Nothing more comes on a channel.
    Finished(u8),
}

/// A WebSocket with channels.
pub struct Channels {
    socket: Socket,
    base64: bool,
    closes: bool,
}

impl Channels {
    /// `protocol` is the subprotocol, such as `v4.base64.channel.k8s.io`.
    pub fn new(socket: Socket, protocol: &str) -> Channels {
        Channels { socket, base64: protocol.contains("base64."), closes: protocol.starts_with("v5.") }
    }

    /// What the client says next; `None` when it has gone. May be dropped while it waits.
    pub async fn next(&mut self) -> Option<Said> {
        loop {
            let message = match self.socket.next().await?.ok()? {
                Message::Binary(bytes) if !self.base64 => bytes.to_vec(),
                Message::Text(text) if self.base64 => {
                    let (channel, rest) = text.as_bytes().split_first()?;
                    let mut bytes = vec![channel.checked_sub(b'0')?];
                    bytes.extend(STANDARD.decode(rest).ok()?);
                    bytes
                }
                Message::Close(_) => return None,
                // Some clients send text where bytes are meant.
                Message::Text(text) => text.as_bytes().to_vec(),
                Message::Binary(_) | Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => continue,
            };
            let Some((channel, bytes)) = message.split_first() else { continue };
            return Some(match (*channel, bytes) {
                (CLOSE, [finished]) if self.closes => Said::Finished(*finished),
                (channel, bytes) => Said::Bytes(channel, bytes.to_vec()),
            });
        }
    }

    /// Sends bytes on a channel.
    pub async fn send(&mut self, channel: u8, bytes: &[u8]) -> Result<(), Broken> {
        let message = match self.base64 {
            true => Message::text(format!("{}{}", char::from(b'0' + channel), STANDARD.encode(bytes))),
            false => Message::binary([&[channel], bytes].concat()),
        };
        self.socket.send(message).await.map_err(|_| Broken)
    }

    /// Ends the connection.
    pub async fn close(mut self) {
        let normal = CloseFrame { code: CloseCode::Normal, reason: "".into() };
        // An error means that the client has gone first.
        let _ = self.socket.close(Some(normal)).await;
        while let Some(Ok(_)) = self.socket.next().await {}
    }
}
