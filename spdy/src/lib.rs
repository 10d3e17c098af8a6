//! SPDY/3.1 as `kubectl exec`, `attach` and `port-forward` speak it, without IO: bytes go in, events come out, and what
//! is to be sent is appended to a buffer.
//!
//! Kubernetes multiplexes streams with `moby/spdystream`, which opens streams from the client's side only and does no
//! flow control; neither does this crate. WINDOW_UPDATE and SETTINGS frames are ignored.
//!
//! Everything that a peer can make grow is bounded: control frames, header blocks, the number of open streams. Data is
//! handed on as it comes and never collected. A peer that breaks the protocol gets an [`Error`]; the connection cannot
//! be used after that.
//!
//! Source: <https://www.chromium.org/spdy/spdy-protocol/spdy-protocol-draft3-1/>.

pub mod frame;
mod headers;
mod session;

pub use frame::{Error, MAX_CONTROL};
pub use headers::{Compressor, Decompressor, Headers, MAX_BLOCK};
pub use session::{Event, MAX_STREAMS, Session, StreamId};
