//! The thread that writes a recording, into files of bounded size.
//!
//! A recording is kept from its beginning: a machine's state follows from all its inputs, so a file without those
//! before it is of no use. When the files reach their limit, the recording ends, with a warning, and the process goes
//! on.

use std::fmt;
use std::fs::{DirBuilder, File};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::thread::JoinHandle;

use clap::Args;
use skeg_core::Wall;

use super::format::{EXTENSION, Ended, FORMAT, Header, Line};
use crate::disk::explain;
use crate::run::file_error;

/// The size of a file. A line that is longer makes a longer file.
const PART: u64 = 64 << 20;
/// How much may wait to be written. A disk that is slower than this ends the recording.
const WAITING: u64 = 256 << 20;

/// How a process is recorded.
#[derive(Args, Debug, Clone)]
pub struct RecordArgs {
    /// Record every input and every decision of the machines into a directory of its own in DIR, for `skeg sim replay`
    /// (docs/recording.md). Values of Secrets are replaced.
    #[arg(long, value_name = "DIR")]
    record: Option<PathBuf>,
    /// How large all recordings in DIR may grow, such as 500Mi; the recording ends then, with a warning.
    #[arg(long, value_name = "SIZE", default_value = "1Gi", value_parser = size, requires = "record")]
    record_limit: u64,
}

/// Parses a number of bytes such as `500Mi`.
fn size(text: &str) -> Result<u64, String> {
    const UNITS: [(&str, u32); 3] = [("Ki", 10), ("Mi", 20), ("Gi", 30)];
    let unit = UNITS.into_iter().find_map(|(unit, shift)| Some((text.strip_suffix(unit)?, shift)));
    let (number, shift) = unit.unwrap_or((text, 0));
    let bytes = number.parse::<u64>().ok().and_then(|n| n.checked_mul(1 << shift)).filter(|bytes| *bytes > 0);
    bytes.ok_or_else(|| "a size is written like 1000000, 500Mi or 2Gi".to_owned())
}

/// Where the lines of a recording go.
pub struct Recorder {
    key: [u8; 32],
    lines: Sender<String>,
    shared: Arc<Shared>,
}

impl fmt::Debug for Recorder {
    // Never the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Recorder")
    }
}

#[derive(Default)]
struct Shared {
    /// Whether the recording has ended.
    has_ended: AtomicBool,
    /// Bytes that wait to be written.
    waiting: AtomicU64,
    /// Whether too many have.
    slow: AtomicBool,
}

/// A recording that is being written. It is complete once this is dropped, after the recorder.
#[derive(Default)]
pub struct Recording(Option<JoinHandle<()>>);

impl Drop for Recording {
    fn drop(&mut self) {
        // An error means that the thread has panicked, which has been printed.
        let _ = self.0.take().map(JoinHandle::join);
    }
}

impl RecordArgs {
    /// Begins to record a process of this name, if that is asked for.
    pub fn begin(&self, process: &str, now: Wall) -> Result<(Recording, Option<Recorder>), String> {
        match &self.record {
            Some(dir) => begin(dir, self.record_limit, process, now),
            None => Ok((Recording::default(), None)),
        }
    }
}

/// Begins a recording in a new directory within `dir`.
pub fn begin(dir: &Path, limit: u64, process: &str, now: Wall) -> Result<(Recording, Option<Recorder>), String> {
    private(dir).map_err(|e| file_error(dir, &e))?;
    let used = bytes_in(dir).map_err(|e| file_error(dir, &e))?;
    if used >= limit {
        tracing::warn!(
            "{}: nothing is recorded: the recordings there have reached --record-limit; move them away, or raise it",
            dir.display()
        );
        return Ok((Recording::default(), None));
    }
    let own = dir.join(format!("{process}-{}-{}", now.0 / 1_000_000, std::process::id()));
    private(&own).map_err(|e| file_error(&own, &e))?;
    let mut key = [0; 32];
    getrandom::fill(&mut key).map_err(|e| format!("error: the system gives no random numbers: {e}"))?;
    let shared = Arc::new(Shared::default());
    let (lines, inbox) = channel();
    let mut files = Files { dir: own.clone(), process: process.to_owned(), limit, used, part: 0, size: 0, out: None };
    files.next().map_err(|e| file_error(&own, &e))?;
    let theirs = Arc::clone(&shared);
    let thread = std::thread::Builder::new().name("recording".to_owned());
    let thread = thread.spawn(move || files.run(&inbox, &theirs));
    let thread = thread.map_err(|e| format!("error: threads could not be started: {}", explain(&e)))?;
    tracing::info!(dir = %own.display(), "every input of every machine is recorded");
    Ok((Recording(Some(thread)), Some(Recorder { key, lines, shared })))
}

/// Makes a directory that only its owner may read, unless it is there.
fn private(dir: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir)
}

/// The size of all files in a directory and those within.
fn bytes_in(dir: &Path) -> io::Result<u64> {
    let mut sum = 0;
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        let about = entry.metadata()?;
        sum += if about.is_dir() { bytes_in(&entry.path())? } else { about.len() };
    }
    Ok(sum)
}

impl Recorder {
    /// The key of placeholders.
    pub fn key(&self) -> &[u8] {
        &self.key
    }

    /// Whether the recording goes on.
    pub fn is_live(&self) -> bool {
        !self.shared.has_ended.load(Ordering::Relaxed)
    }

    /// Has a line written.
    pub fn send(&self, line: String) {
        if !self.is_live() {
            return;
        }
        let length = line.len() as u64;
        if self.shared.waiting.fetch_add(length, Ordering::Relaxed) + length > WAITING {
            self.shared.slow.store(true, Ordering::Relaxed);
            self.shared.has_ended.store(true, Ordering::Relaxed);
            return;
        }
        // An error means that the writer has ended; it has said why.
        let _ = self.lines.send(line);
    }
}

/// The files of a recording.
struct Files {
    dir: PathBuf,
    process: String,
    limit: u64,
    /// How much is used of the limit.
    used: u64,
    /// The number of the file that is being written.
    part: u32,
    /// Its size.
    size: u64,
    out: Option<BufWriter<File>>,
}

impl Files {
    /// Writes what comes until the recorder is gone, or the recording has to end.
    fn run(mut self, inbox: &Receiver<String>, shared: &Shared) {
        let written = self.write_all(inbox, shared);
        shared.has_ended.store(true, Ordering::Relaxed);
        let dir = self.dir.display();
        let why = match written {
            Ok(Ended::Stopped) => return,
            Ok(Ended::Limit) => "--record-limit is reached".to_owned(),
            Ok(Ended::Slow) => "the disk does not keep up".to_owned(),
            Err(e) => explain(&e),
        };
        tracing::warn!("{dir}: the recording ends here: {why}; it is complete up to now, and the process goes on");
    }

    fn write_all(&mut self, inbox: &Receiver<String>, shared: &Shared) -> io::Result<Ended> {
        loop {
            let line = match inbox.try_recv() {
                Ok(line) => Some(line),
                Err(TryRecvError::Disconnected) => None,
                Err(TryRecvError::Empty) => {
                    self.out().flush()?;
                    inbox.recv().ok()
                }
            };
            let ended = match &line {
                _ if shared.slow.load(Ordering::Relaxed) => Ended::Slow,
                None => Ended::Stopped,
                Some(line) if self.used + line.len() as u64 > self.limit => Ended::Limit,
                Some(line) => {
                    self.put(line)?;
                    shared.waiting.fetch_sub(line.len() as u64, Ordering::Relaxed);
                    continue;
                }
            };
            self.put(&serde_json::to_string(&Line::End(ended)).expect("a line is plain data"))?;
            self.out().flush()?;
            return Ok(ended);
        }
    }

    fn put(&mut self, line: &str) -> io::Result<()> {
        if self.size > 0 && self.size + line.len() as u64 > PART {
            self.out().flush()?;
            self.next()?;
        }
        self.write(line)
    }

    fn write(&mut self, line: &str) -> io::Result<()> {
        let length = line.len() as u64 + 1;
        self.out().write_all(line.as_bytes())?;
        self.out().write_all(b"\n")?;
        (self.size, self.used) = (self.size + length, self.used + length);
        Ok(())
    }

    /// Begins the next file.
    fn next(&mut self) -> io::Result<()> {
        self.part += 1;
        let path = self.dir.join(format!("{:06}.{EXTENSION}", self.part));
        let file = File::options().write(true).create_new(true).mode(0o600).open(path)?;
        self.out = Some(BufWriter::with_capacity(1 << 16, file));
        self.size = 0;
        let header = Header {
            skeg_recording: FORMAT,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            process: self.process.clone(),
            part: self.part,
        };
        self.write(&serde_json::to_string(&Line::Header(header)).expect("a line is plain data"))
    }

    fn out(&mut self) -> &mut BufWriter<File> {
        self.out.as_mut().expect("there is a file from the beginning")
    }
}
