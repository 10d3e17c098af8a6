//! Frames: bytes to frames and back.

use std::fmt;

use crate::headers::{Compressor, Decompressor, Headers};

/// Maximum bytes of a control frame.
pub const MAX_CONTROL: usize = 64 << 10;

const VERSION: u16 = 3;
const SYN_STREAM: u16 = 1;
const SYN_REPLY: u16 = 2;
const RST_STREAM: u16 = 3;
const PING: u16 = 6;
const GOAWAY: u16 = 7;
const HEADERS: u16 = 8;
const FIN: u8 = 1;

/// How a peer broke the protocol.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Error(pub &'static str);

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for Error {}

/// A frame, or a part of a data frame.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Frame {
    /// Opens a stream.
    SynStream {
        /// The stream.
        stream: u32,
        /// Whether its sender sends nothing more on it.
        fin: bool,
        /// Its headers.
        headers: Headers,
    },
    /// Accepts a stream.
    SynReply {
        /// The stream.
        stream: u32,
        /// Whether its sender sends nothing more on it.
        fin: bool,
        /// Its headers.
        headers: Headers,
    },
    /// Ends a stream in both directions.
    Reset {
        /// The stream.
        stream: u32,
    },
    /// Asks for the same frame in return.
    Ping(u32),
    /// The sender takes no more streams.
    GoAway,
    /// More headers of a stream.
    Headers {
        /// The stream.
        stream: u32,
        /// Whether its sender sends nothing more on it.
        fin: bool,
    },
    /// Data of a stream. A data frame may be handed out in parts; `fin` belongs to the last one.
    Data {
        /// The stream.
        stream: u32,
        /// The bytes.
        bytes: Vec<u8>,
        /// Whether its sender sends nothing more on it.
        fin: bool,
    },
}

/// Turns bytes into frames.
#[derive(Debug, Default)]
pub struct Decoder {
    buffer: Vec<u8>,
    /// How much of the buffer has been read. It is dropped when more comes, not at each of the many frames of a chunk.
    read: usize,
    headers: Decompressor,
    /// The data frame that is being read: its stream, its flags and how many bytes are still to come.
    open: Option<(u32, u8, usize)>,
}

impl Decoder {
    /// Takes bytes from the peer.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.buffer.drain(..self.read);
        self.read = 0;
        self.buffer.extend_from_slice(bytes);
    }

    /// What has come and has not been read.
    fn rest(&self) -> &[u8] {
        &self.buffer[self.read..]
    }

    /// The next frame; `None` if more bytes are needed.
    pub fn frame(&mut self) -> Result<Option<Frame>, Error> {
        loop {
            if let Some((stream, flags, left)) = self.open {
                return Ok(self.part(stream, flags, left));
            }
            let Some((head, _)) = self.rest().split_first_chunk::<8>() else { return Ok(None) };
            let [a, b, c, d, flags, length @ ..] = *head;
            let length = u32::from_be_bytes([0, length[0], length[1], length[2]]) as usize;
            if a & 0x80 == 0 {
                self.read += 8;
                self.open = Some((u32::from_be_bytes([a, b, c, d]), flags, length));
                continue;
            }
            if u16::from_be_bytes([a & 0x7f, b]) != VERSION {
                return Err(Error("the frame is not of SPDY/3"));
            }
            if length > MAX_CONTROL {
                return Err(Error("a control frame is too large"));
            }
            let Some(frame) = self.rest().get(8..8 + length).map(<[u8]>::to_vec) else { return Ok(None) };
            self.read += 8 + length;
            if let Some(frame) = self.control(u16::from_be_bytes([c, d]), flags, &frame)? {
                return Ok(Some(frame));
            }
        }
    }

    /// What has come of a data frame.
    fn part(&mut self, stream: u32, flags: u8, left: usize) -> Option<Frame> {
        let rest = self.rest();
        if left > 0 && rest.is_empty() {
            return None;
        }
        let bytes = rest[..left.min(rest.len())].to_vec();
        self.read += bytes.len();
        let left = left - bytes.len();
        self.open = (left > 0).then_some((stream, flags, left));
        Some(Frame::Data { stream, bytes, fin: left == 0 && flags & FIN != 0 })
    }

    /// A control frame; `None` if its type means nothing here.
    fn control(&mut self, kind: u16, flags: u8, frame: &[u8]) -> Result<Option<Frame>, Error> {
        let short = || Error("a control frame is too short");
        let number = |at: usize| {
            let bytes = frame.get(at..at + 4).ok_or_else(short)?;
            Ok(u32::from_be_bytes([bytes[0] & 0x7f, bytes[1], bytes[2], bytes[3]]))
        };
        let fin = flags & FIN != 0;
        Ok(Some(match kind {
            SYN_STREAM => {
                let stream = number(0)?;
                let headers = self.headers.read(frame.get(10..).ok_or_else(short)?)?;
                Frame::SynStream { stream, fin, headers }
            }
            SYN_REPLY => {
                let stream = number(0)?;
                Frame::SynReply { stream, fin, headers: self.headers.read(&frame[4..])? }
            }
            HEADERS => {
                let stream = number(0)?;
                // They must be read, since later blocks refer to them.
                self.headers.read(&frame[4..])?;
                Frame::Headers { stream, fin }
            }
            RST_STREAM => Frame::Reset { stream: number(0)? },
            PING => {
                let bytes = frame.first_chunk::<4>().ok_or_else(short)?;
                Frame::Ping(u32::from_be_bytes(*bytes))
            }
            GOAWAY => Frame::GoAway,
            _ => return Ok(None),
        }))
    }
}

fn control(kind: u16, flags: u8, body: &[&[u8]], out: &mut Vec<u8>) {
    let length: usize = body.iter().map(|part| part.len()).sum();
    out.extend_from_slice(&(0x8000 | VERSION).to_be_bytes());
    out.extend_from_slice(&kind.to_be_bytes());
    // Bodies are far smaller than 16 MiB.
    out.extend_from_slice(&((u32::from(flags) << 24) | length as u32).to_be_bytes());
    body.iter().for_each(|part| out.extend_from_slice(part));
}

/// Appends a SYN_STREAM frame.
pub fn syn_stream(stream: u32, headers: &[(&str, &str)], compressor: &mut Compressor, out: &mut Vec<u8>) {
    let block = compressor.write(headers);
    control(SYN_STREAM, 0, &[&stream.to_be_bytes(), &[0; 6], &block], out);
}

/// Appends a SYN_REPLY frame.
pub fn syn_reply(stream: u32, headers: &[(&str, &str)], compressor: &mut Compressor, out: &mut Vec<u8>) {
    let block = compressor.write(headers);
    control(SYN_REPLY, 0, &[&stream.to_be_bytes(), &block], out);
}

/// Appends a RST_STREAM frame.
pub fn reset(stream: u32, status: u32, out: &mut Vec<u8>) {
    control(RST_STREAM, 0, &[&stream.to_be_bytes(), &status.to_be_bytes()], out);
}

/// Appends a PING frame.
pub fn ping(id: u32, out: &mut Vec<u8>) {
    control(PING, 0, &[&id.to_be_bytes()], out);
}

/// Appends a GOAWAY frame with status OK.
pub fn go_away(last: u32, out: &mut Vec<u8>) {
    control(GOAWAY, 0, &[&last.to_be_bytes(), &0u32.to_be_bytes()], out);
}

/// Appends data frames, as many as the bytes need; with `fin`, the last one ends the stream.
pub fn data(stream: u32, bytes: &[u8], fin: bool, out: &mut Vec<u8>) {
    const MOST: usize = 32 << 10;
    let mut rest = bytes;
    loop {
        let (part, more) = rest.split_at(rest.len().min(MOST));
        rest = more;
        let flags = u32::from(fin && rest.is_empty());
        out.extend_from_slice(&stream.to_be_bytes());
        out.extend_from_slice(&((flags << 24) | part.len() as u32).to_be_bytes());
        out.extend_from_slice(part);
        if rest.is_empty() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Decoder, Error, Frame, data, go_away, ping, reset, syn_reply, syn_stream};
    use crate::headers::Compressor;
    use proptest::prelude::*;

    fn frames(bytes: &[u8], at_once: usize) -> (Vec<Frame>, Option<Error>) {
        let mut decoder = Decoder::default();
        let mut frames: Vec<Frame> = Vec::new();
        for chunk in bytes.chunks(at_once) {
            decoder.feed(chunk);
            loop {
                match decoder.frame() {
                    Ok(Some(frame)) => frames.push(frame),
                    Ok(None) => break,
                    Err(e) => return (frames, Some(e)),
                }
            }
        }
        (frames, None)
    }

    /// Frames with the parts of data frames put together.
    fn joined(frames: Vec<Frame>) -> Vec<Frame> {
        let mut all: Vec<Frame> = Vec::new();
        for frame in frames {
            match (all.last_mut(), frame) {
                (Some(Frame::Data { stream, bytes, fin }), Frame::Data { stream: same, bytes: more, fin: last })
                    if *stream == same && !*fin =>
                {
                    bytes.extend(more);
                    *fin = last;
                }
                (_, frame) => all.push(frame),
            }
        }
        all
    }

    fn some_of_all() -> (Vec<u8>, Vec<Frame>) {
        let (mut compressor, mut out) = (Compressor::default(), Vec::new());
        let headers = |h: &[(&str, &str)]| h.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
        syn_stream(1, &[("streamtype", "error")], &mut compressor, &mut out);
        syn_stream(3, &[("streamtype", "data"), ("port", "80")], &mut compressor, &mut out);
        syn_reply(3, &[], &mut compressor, &mut out);
        data(3, b"hello", false, &mut out);
        ping(7, &mut out);
        data(3, &[9; 100_000], true, &mut out);
        reset(1, 5, &mut out);
        go_away(3, &mut out);
        let frames = vec![
            Frame::SynStream { stream: 1, fin: false, headers: headers(&[("streamtype", "error")]) },
            Frame::SynStream { stream: 3, fin: false, headers: headers(&[("streamtype", "data"), ("port", "80")]) },
            Frame::SynReply { stream: 3, fin: false, headers: Vec::new() },
            Frame::Data { stream: 3, bytes: b"hello".to_vec(), fin: false },
            Frame::Ping(7),
            Frame::Data { stream: 3, bytes: vec![9; 100_000], fin: true },
            Frame::Reset { stream: 1 },
            Frame::GoAway,
        ];
        (out, frames)
    }

    #[test]
    fn frames_are_the_same_however_they_are_split() {
        let (bytes, want) = some_of_all();
        for at_once in [1, 3, 8, 1000, bytes.len()] {
            let (got, error) = frames(&bytes, at_once);
            assert_eq!(error, None);
            assert_eq!(joined(got), want, "{at_once} bytes at once");
        }
    }

    /// Work that grew with the square of the frames that come at once would take minutes.
    #[test]
    fn many_frames_may_come_at_once() {
        const EACH: u32 = 200_000;
        let mut out = Vec::new();
        for n in 0..EACH {
            ping(n, &mut out);
            data(1, b"0123456789", false, &mut out);
            reset(n, 5, &mut out);
        }
        let (got, error) = frames(&out, out.len());
        assert_eq!((got.len(), error), (3 * EACH as usize, None));
        assert_eq!(got.last(), Some(&Frame::Reset { stream: EACH - 1 }));
    }

    #[test]
    fn frames_that_are_not_right_are_refused() {
        let check = |bytes: &[u8], want: &'static str| assert_eq!(frames(bytes, 64).1, Some(Error(want)), "{bytes:?}");
        check(&[0x80, 2, 0, 1, 0, 0, 0, 0], "the frame is not of SPDY/3");
        check(&[0x80, 3, 0, 1, 0, 0, 0, 4, 0, 0, 0, 1], "a control frame is too short");
        check(&[0x80, 3, 0, 6, 0, 0, 0, 0], "a control frame is too short");
        check(&[0x80, 3, 0, 1, 0, 0xff, 0xff, 0xff], "a control frame is too large");
        // Settings and window updates are passed over.
        assert_eq!(frames(&[0x80, 3, 0, 9, 0, 0, 0, 0], 8), (Vec::new(), None));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), at_once in 1usize..20) {
            frames(&bytes, at_once);
        }

        #[test]
        fn no_change_of_good_bytes_makes_it_panic(at in any::<prop::sample::Index>(), to in any::<u8>()) {
            let (mut bytes, _) = some_of_all();
            bytes.truncate(400);
            let at = at.index(bytes.len());
            bytes[at] = to;
            frames(&bytes, 64);
        }
    }
}
