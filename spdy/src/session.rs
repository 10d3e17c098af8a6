//! One connection from the server's side: which streams are open, and what is said on them.

use std::collections::BTreeMap;

use crate::frame::{self, Decoder, Error, Frame};
use crate::headers::{Compressor, Headers};

/// Maximum number of streams that are open at once.
pub const MAX_STREAMS: usize = 1024;

/// RST_STREAM: the stream is not open.
const INVALID_STREAM: u32 = 2;
/// RST_STREAM: the stream was refused before it was worked on.
const REFUSED_STREAM: u32 = 3;

/// The number of a stream.
pub type StreamId = u32;

/// What the client did.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Event {
    /// It opens a stream, which [`Session::accept`] or [`Session::reset`] answers.
    Opened(StreamId, Headers),
    /// It sends bytes.
    Data(StreamId, Vec<u8>),
    /// It sends nothing more on a stream.
    Finished(StreamId),
    /// It ends a stream in both directions.
    Reset(StreamId),
    /// It opens no more streams.
    GoAway,
}

#[derive(Clone, Copy, Debug)]
struct Open {
    /// Whether the client may still send.
    reads: bool,
    /// Whether the server may still send.
    writes: bool,
}

/// The streams of a connection. Every method appends to `out` what is to be sent.
#[derive(Debug, Default)]
pub struct Session {
    decoder: Decoder,
    compressor: Compressor,
    streams: BTreeMap<StreamId, Open>,
    last: StreamId,
}

impl Session {
    /// Takes bytes from the client. After an error the connection must be closed.
    pub fn handle(&mut self, bytes: &[u8], events: &mut Vec<Event>, out: &mut Vec<u8>) -> Result<(), Error> {
        self.decoder.feed(bytes);
        while let Some(frame) = self.decoder.frame()? {
            match frame {
                Frame::SynStream { stream, fin, headers } => self.opened(stream, fin, headers, events, out)?,
                Frame::Data { stream, bytes, fin } => {
                    if !self.streams.get(&stream).is_some_and(|open| open.reads) {
                        frame::reset(stream, INVALID_STREAM, out);
                        continue;
                    }
                    if !bytes.is_empty() {
                        events.push(Event::Data(stream, bytes));
                    }
                    if fin {
                        self.finished(stream, events);
                    }
                }
                Frame::Headers { stream, fin } => {
                    if fin && self.streams.get(&stream).is_some_and(|open| open.reads) {
                        self.finished(stream, events);
                    }
                }
                Frame::Reset { stream } => {
                    if self.streams.remove(&stream).is_some() {
                        events.push(Event::Reset(stream));
                    }
                }
                // The server's own numbers are even; it sends no pings.
                Frame::Ping(id) if id % 2 == 1 => frame::ping(id, out),
                Frame::Ping(_) => {}
                Frame::GoAway => events.push(Event::GoAway),
                Frame::SynReply { .. } => return Err(Error("a stream that was not opened is accepted")),
            }
        }
        Ok(())
    }

    fn opened(
        &mut self,
        stream: StreamId,
        fin: bool,
        headers: Headers,
        events: &mut Vec<Event>,
        out: &mut Vec<u8>,
    ) -> Result<(), Error> {
        if stream.is_multiple_of(2) || stream <= self.last {
            return Err(Error("a stream's number is even or was used before"));
        }
        self.last = stream;
        if self.streams.len() >= MAX_STREAMS {
            frame::reset(stream, REFUSED_STREAM, out);
            return Ok(());
        }
        self.streams.insert(stream, Open { reads: true, writes: true });
        events.push(Event::Opened(stream, headers));
        if fin {
            self.finished(stream, events);
        }
        Ok(())
    }

    fn finished(&mut self, stream: StreamId, events: &mut Vec<Event>) {
        if let Some(open) = self.streams.get_mut(&stream) {
            open.reads = false;
            events.push(Event::Finished(stream));
            self.forget(stream);
        }
    }

    /// Forgets a stream on which nothing more is sent in either direction.
    fn forget(&mut self, stream: StreamId) {
        if self.streams.get(&stream).is_some_and(|open| !open.reads && !open.writes) {
            self.streams.remove(&stream);
        }
    }

    /// Accepts a stream that the client has opened.
    pub fn accept(&mut self, stream: StreamId, out: &mut Vec<u8>) {
        if self.streams.contains_key(&stream) {
            frame::syn_reply(stream, &[], &mut self.compressor, out);
        }
    }

    /// Sends bytes on a stream; with `fin`, they are the last. Bytes for a stream that is no longer open are dropped.
    pub fn send(&mut self, stream: StreamId, bytes: &[u8], fin: bool, out: &mut Vec<u8>) {
        let Some(open) = self.streams.get_mut(&stream).filter(|open| open.writes) else { return };
        if bytes.is_empty() && !fin {
            return;
        }
        frame::data(stream, bytes, fin, out);
        open.writes = !fin;
        self.forget(stream);
    }

    /// Ends a stream in both directions, or refuses it.
    pub fn reset(&mut self, stream: StreamId, out: &mut Vec<u8>) {
        if self.streams.remove(&stream).is_some() {
            frame::reset(stream, REFUSED_STREAM, out);
        }
    }

    /// Says that no more streams are taken.
    pub fn go_away(&mut self, out: &mut Vec<u8>) {
        frame::go_away(self.last, out);
    }
}

#[cfg(test)]
mod tests {
    use super::{Event, MAX_STREAMS, Session};
    use crate::frame::{Decoder, Error, Frame, data, ping, reset, syn_stream};
    use crate::headers::Compressor;

    /// A client and a server; what each says goes to the other at once.
    #[derive(Default)]
    struct Pair {
        server: Session,
        client: Decoder,
        compressor: Compressor,
    }

    impl Pair {
        fn say(&mut self, bytes: &[u8]) -> (Result<Vec<Event>, Error>, Vec<Frame>) {
            let (mut events, mut out) = (Vec::new(), Vec::new());
            let result = self.server.handle(bytes, &mut events, &mut out);
            (result.map(|()| events), self.hears(&out))
        }

        fn hears(&mut self, bytes: &[u8]) -> Vec<Frame> {
            self.client.feed(bytes);
            std::iter::from_fn(|| self.client.frame().expect("the server keeps to the protocol")).collect()
        }

        fn open(&mut self, stream: u32) -> Vec<u8> {
            let mut out = Vec::new();
            syn_stream(stream, &[("streamType", "stdin")], &mut self.compressor, &mut out);
            out
        }
    }

    #[test]
    fn a_stream_lives_until_both_sides_have_finished() {
        let mut pair = Pair::default();
        let open = pair.open(1);
        let headers = vec![("streamtype".to_owned(), "stdin".to_owned())];
        assert_eq!(pair.say(&open), (Ok(vec![Event::Opened(1, headers)]), Vec::new()));
        let mut out = Vec::new();
        pair.server.accept(1, &mut out);
        assert_eq!(pair.hears(&out), [Frame::SynReply { stream: 1, fin: false, headers: Vec::new() }]);
        let mut bytes = Vec::new();
        data(1, b"in", true, &mut bytes);
        assert_eq!(pair.say(&bytes).0, Ok(vec![Event::Data(1, b"in".to_vec()), Event::Finished(1)]));
        assert_eq!(
            pair.say(&bytes),
            (Ok(Vec::new()), vec![Frame::Reset { stream: 1 }]),
            "it said that it had finished"
        );
        let mut out = Vec::new();
        pair.server.send(1, b"out", true, &mut out);
        pair.server.send(1, b"more", false, &mut out);
        assert_eq!(pair.hears(&out), [Frame::Data { stream: 1, bytes: b"out".to_vec(), fin: true }]);
    }

    #[test]
    fn clients_that_break_the_protocol_are_told_so() {
        let mut pair = Pair::default();
        let (first, again) = (pair.open(3), pair.open(1));
        assert!(pair.say(&first).0.is_ok());
        assert!(pair.say(&again).0.is_err(), "numbers only grow");
        let even = Pair::default().open(2);
        assert!(Pair::default().say(&even).0.is_err());
        let mut bytes = Vec::new();
        ping(5, &mut bytes);
        reset(9, 5, &mut bytes);
        assert_eq!(Pair::default().say(&bytes), (Ok(Vec::new()), vec![Frame::Ping(5)]));
    }

    #[test]
    fn streams_are_bounded() {
        let mut pair = Pair::default();
        for n in 0..MAX_STREAMS as u32 {
            let open = pair.open(2 * n + 1);
            assert_eq!(pair.say(&open).0.map(|events| events.len()), Ok(1));
        }
        let last = 2 * MAX_STREAMS as u32 + 1;
        let open = pair.open(last);
        assert_eq!(pair.say(&open), (Ok(Vec::new()), vec![Frame::Reset { stream: last }]));
    }
}
