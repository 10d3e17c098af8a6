//! The logs of containers, and the frames in which Docker sends what processes write.

use http_body_util::BodyExt;
use hyper::Method;
use hyper::body::{Bytes, Incoming};
use skeg_core::Wall;
use skeg_core::object::Time;
use skeg_sim::container::log::Line;

use super::engine::{Engine, Failure, query};

/// Splits what processes write into pieces, by the frames of eight bytes before each: the stream (1 standard output, 2
/// standard error), and the length. With a terminal there are no frames.
#[derive(Debug)]
pub struct Frames {
    tty: bool,
    buffer: Vec<u8>,
}

impl Frames {
    /// `tty` says whether the process has a terminal.
    pub fn new(tty: bool) -> Frames {
        Frames { tty, buffer: Vec::new() }
    }

    /// Takes bytes as they come; returns the pieces that are complete, and whether each is of standard error.
    pub fn take(&mut self, bytes: &[u8]) -> Vec<(bool, Vec<u8>)> {
        if self.tty {
            return vec![(false, bytes.to_vec())];
        }
        self.buffer.extend_from_slice(bytes);
        let mut pieces = Vec::new();
        while let Some(head) = self.buffer.first_chunk::<8>() {
            let length = u32::from_be_bytes([head[4], head[5], head[6], head[7]]) as usize;
            let stderr = head[0] == 2;
            if self.buffer.len() < 8 + length {
                break;
            }
            let piece = self.buffer[8..8 + length].to_vec();
            self.buffer.drain(..8 + length);
            pieces.push((stderr, piece));
        }
        pieces
    }
}

/// Makes lines of a log of what Docker sends: each piece begins with the time, and a long line comes in several.
#[derive(Debug)]
struct Reader {
    frames: Frames,
    /// Bytes of a terminal's log that are no whole line yet.
    rest: Vec<u8>,
    /// Lines that have begun, by stream.
    begun: [Option<Line>; 2],
}

impl Reader {
    fn new(tty: bool) -> Reader {
        Reader { frames: Frames::new(tty), rest: Vec::new(), begun: [None, None] }
    }

    fn take(&mut self, bytes: &[u8]) -> Vec<Line> {
        let mut lines = Vec::new();
        for (stderr, piece) in self.frames.take(bytes) {
            if !self.frames.tty {
                lines.extend(self.piece(stderr, &piece));
                continue;
            }
            self.rest.extend_from_slice(&piece);
            while let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
                let whole: Vec<u8> = self.rest.drain(..=end).collect();
                lines.extend(self.piece(false, &whole));
            }
        }
        lines
    }

    fn piece(&mut self, stderr: bool, bytes: &[u8]) -> Option<Line> {
        let at = bytes.iter().position(|byte| *byte == b' ').unwrap_or(bytes.len());
        let time = serde_json::from_value::<Time>(String::from_utf8_lossy(&bytes[..at]).into()).ok();
        let text = bytes.get(at + 1..).unwrap_or_default();
        let (text, ended) = text.strip_suffix(b"\n").map_or((text, false), |text| (text, true));
        let begun = &mut self.begun[usize::from(stderr)];
        let at = time.map_or(Wall(0), |time| Wall::from_time(&time));
        let line = begun.get_or_insert_with(|| Line { at, stderr, text: String::new() });
        line.text += &String::from_utf8_lossy(text);
        if ended { begun.take() } else { None }
    }

    /// Lines that have no end.
    fn finish(&mut self) -> impl Iterator<Item = Line> {
        self.begun.each_mut().into_iter().filter_map(Option::take).collect::<Vec<_>>().into_iter()
    }
}

/// A log that is read.
pub struct Log {
    body: Incoming,
    reader: Reader,
}

impl Log {
    /// Opens the log of a container. `tail` is how many lines at most, `since` seconds since 1970.
    pub async fn open(
        engine: &Engine,
        id: &str,
        follow: bool,
        tail: Option<&str>,
        since: Option<&str>,
    ) -> Result<Log, Failure> {
        let seen = engine.get(&format!("/containers/{id}/json")).await?;
        let mut pairs = vec![("stdout", "1"), ("stderr", "1"), ("timestamps", "1")];
        pairs.extend(follow.then_some(("follow", "1")));
        pairs.extend(tail.map(|tail| ("tail", tail)));
        pairs.extend(since.map(|since| ("since", since)));
        let path = format!("/containers/{id}/logs?{}", query(&pairs));
        let body = engine.stream(Method::GET, &path, "application/json", Bytes::new()).await?;
        Ok(Log { body, reader: Reader::new(seen["Config"]["Tty"] == true) })
    }

    /// The next lines; `None` at the end.
    pub async fn next(&mut self) -> Option<Vec<Line>> {
        match self.body.frame().await {
            Some(Ok(frame)) => Some(frame.data_ref().map(|data| self.reader.take(data)).unwrap_or_default()),
            Some(Err(_)) | None => {
                let last: Vec<Line> = self.reader.finish().collect();
                (!last.is_empty()).then_some(last)
            }
        }
    }
}

/// The lines of a log so far.
pub async fn read(engine: &Engine, id: &str, tail: Option<&str>, since: Option<&str>) -> Result<Vec<Line>, Failure> {
    let mut log = Log::open(engine, id, false, tail, since).await?;
    let mut all = Vec::new();
    while let Some(lines) = log.next().await {
        all.extend(lines);
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::{Frames, Reader};

    fn frame(stream: u8, text: &str) -> Vec<u8> {
        let mut bytes = vec![stream, 0, 0, 0];
        bytes.extend((text.len() as u32).to_be_bytes());
        bytes.extend(text.as_bytes());
        bytes
    }

    #[test]
    fn frames_may_come_in_any_pieces() {
        let all = [frame(1, "abc"), frame(2, ""), frame(2, "de")].concat();
        for size in 1..all.len() {
            let mut frames = Frames::new(false);
            let got: Vec<_> = all.chunks(size).flat_map(|chunk| frames.take(chunk)).collect();
            let want = [(false, b"abc".to_vec()), (true, Vec::new()), (true, b"de".to_vec())];
            assert_eq!(got, want, "{size}");
        }
        assert_eq!(Frames::new(true).take(b"xy"), [(false, b"xy".to_vec())]);
    }

    #[test]
    fn lines_are_joined_and_dated() {
        let check = |tty: bool, bytes: &[u8], want: &[(i64, bool, &str)]| {
            let mut reader = Reader::new(tty);
            let mut lines: Vec<_> = bytes.chunks(7).flat_map(|chunk| reader.take(chunk)).collect();
            lines.extend(reader.finish());
            let got: Vec<_> = lines.iter().map(|l| (l.at.0, l.stderr, l.text.as_str())).collect();
            assert_eq!(got, want);
        };
        let time = "1970-01-01T00:00:01.500000000Z";
        let long =
            [frame(1, &format!("{time} lo")), frame(2, &format!("{time} err\n")), frame(1, &format!("{time} ng\n"))];
        check(false, &long.concat(), &[(1_500_000, true, "err"), (1_500_000, false, "long")]);
        check(false, &frame(1, &format!("{time} no end")), &[(1_500_000, false, "no end")]);
        check(false, &frame(1, &format!("{time} \n")), &[(1_500_000, false, "")]);
        check(
            true,
            format!("{time} a b\n{time} c\n").as_bytes(),
            &[(1_500_000, false, "a b"), (1_500_000, false, "c")],
        );
    }
}
