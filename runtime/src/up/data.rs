//! The data directory of a cluster: journal and snapshots.
//!
//! | file | content |
//! |---|---|
//! | `format` | the version of this layout; the error for another version names it |
//! | `lock` | locked while a cluster uses the directory |
//! | `snapshot-N` | the whole state at the start of generation N; the first generation has none |
//! | `journal-N` | every commit since then |
//! | `pki` | certificate and key of the certificate authority |
//!
//! To start a generation, its snapshot is written and synced under a temporary name and renamed; then its journal is
//! created; then older generations are deleted. So the newest snapshot and its journal always contain everything that
//! was acknowledged.
//!
//! This is a journal of our own and not a database because the data is a log by nature: one sequential write and one
//! `fsync` for a group of commits is the least work that a disk can do, and recovery reads one file from front to back.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc::Receiver;

use skeg_core::store::journal;

use super::ask::{Inbound, ToCluster};
use crate::disk::explain;

/// Version of the layout.
const FORMAT: u32 = 1;
/// A new generation starts when the journal is longer than this, and longer than twice the previous snapshot.
pub const ROTATE_FROM: u64 = 16 << 20;

/// A data directory that is locked by this process.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    /// Whether acknowledged commits must survive a crash of the host, and not only of the process.
    fsync: bool,
    /// Locked until the process ends.
    _lock: File,
    generation: u64,
}

/// The content of a data directory.
#[derive(Debug)]
pub struct Found {
    /// The newest snapshot; `None` in the first generation.
    pub snapshot: Option<Vec<u8>>,
    /// The journal since the snapshot.
    pub journal: Vec<u8>,
}

/// The default data directory.
pub fn default_path() -> Result<PathBuf, String> {
    if let Some(dir) = std::env::var_os("XDG_DATA_HOME").filter(|dir| !dir.is_empty()) {
        return Ok(Path::new(&dir).join("skeg"));
    }
    let home = std::env::var_os("HOME").filter(|home| !home.is_empty());
    let home = home.ok_or("error: there is no home directory; name a directory with --data-dir, or use --in-memory")?;
    Ok(Path::new(&home).join(".local").join("share").join("skeg"))
}

fn error(path: &Path, e: &std::io::Error) -> String {
    format!("error: {}: {}", path.display(), explain(e))
}

/// Syncs a directory, so that its file names survive a crash of the host.
fn sync_dir(path: &Path) -> std::io::Result<()> {
    File::open(path)?.sync_all()
}

/// Writes a whole file. It is synced before it is renamed to its final name.
fn put_file(dir: &Path, name: &str, bytes: &[u8]) -> std::io::Result<()> {
    let beside = dir.join(format!("{name}.new"));
    let mut file = File::create(&beside)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&beside, dir.join(name))?;
    sync_dir(dir)
}

impl DataDir {
    /// The path of the directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Opens and locks a directory, and creates it if it does not exist. Without `fsync`, a crash of the host may lose
    /// the last commits (etcd's `--unsafe-no-fsync`).
    pub fn open(path: &Path, fsync: bool) -> Result<(DataDir, Found), String> {
        fs::create_dir_all(path).map_err(|e| error(path, &e))?;
        let lock_path = path.join("lock");
        let opened = OpenOptions::new().write(true).create(true).truncate(false).open(&lock_path);
        let lock = opened.map_err(|e| error(&lock_path, &e))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let why = "a running cluster uses this directory; end it, or name another with --data-dir";
                return Err(format!("error: {}: {why}", path.display()));
            }
            Err(TryLockError::Error(e)) => return Err(error(&lock_path, &e)),
        }
        check_format(path)?;
        let generation = newest_generation(path)?;
        let dir = DataDir { path: path.to_owned(), fsync, _lock: lock, generation };
        let snapshot = dir.read(&dir.snapshot_path(generation))?;
        let journal = dir.read(&dir.journal_path(generation))?.unwrap_or_default();
        Ok((dir, Found { snapshot, journal }))
    }

    fn snapshot_path(&self, generation: u64) -> PathBuf {
        self.path.join(format!("snapshot-{generation}"))
    }

    fn journal_path(&self, generation: u64) -> PathBuf {
        self.path.join(format!("journal-{generation}"))
    }

    fn read(&self, path: &Path) -> Result<Option<Vec<u8>>, String> {
        match fs::read(path) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(error(path, &e)),
        }
    }

    /// Opens the journal for appending at `end`; everything after `end` is cut off.
    pub fn continue_journal(self, end: usize) -> Result<Journal, String> {
        let path = self.journal_path(self.generation);
        let begin = || -> std::io::Result<(File, u64)> {
            let mut file = OpenOptions::new().write(true).create(true).truncate(false).open(&path)?;
            file.set_len(end as u64)?;
            file.seek(SeekFrom::End(0))?;
            let mut length = end as u64;
            if length == 0 {
                length = begin_journal(&mut file)?;
            }
            file.sync_all()?;
            sync_dir(&self.path)?;
            Ok((file, length))
        };
        let (file, length) = begin().map_err(|e| error(&path, &e))?;
        self.remove_older();
        let snapshot = fs::metadata(self.snapshot_path(self.generation)).map_or(0, |m| m.len());
        Ok(Journal { dir: self, file, length, snapshot })
    }

    /// Deletes older generations: everything in them is in the newest one.
    fn remove_older(&self) {
        for entry in fs::read_dir(&self.path).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let old = generation_of(&name.to_string_lossy()).is_some_and(|(_, g)| g < self.generation);
            if old && let Err(e) = fs::remove_file(entry.path()) {
                tracing::warn!("{}", error(&entry.path(), &e));
            }
        }
    }
}

fn begin_journal(file: &mut File) -> std::io::Result<u64> {
    let mut head = Vec::new();
    journal::begin(&mut head);
    file.write_all(&head)?;
    Ok(head.len() as u64)
}

fn check_format(path: &Path) -> Result<(), String> {
    let file = path.join("format");
    match fs::read_to_string(&file) {
        Ok(text) if text.trim() == FORMAT.to_string() => Ok(()),
        Ok(text) => {
            let given = text.trim();
            Err(format!(
                "error: {}: the data is of format {given:?}, and this version of skeg reads format {FORMAT}; use the \
                 version that wrote it, or name another directory with --data-dir",
                file.display()
            ))
        }
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            put_file(path, "format", format!("{FORMAT}\n").as_bytes()).map_err(|e| error(&file, &e))
        }
        Err(e) => Err(error(&file, &e)),
    }
}

/// Kind of file (`snapshot` or `journal`) and generation; `None` for other files.
fn generation_of(name: &str) -> Option<(&str, u64)> {
    let (what, number) = name.split_once('-')?;
    matches!(what, "snapshot" | "journal").then(|| number.parse().ok().map(|n| (what, n)))?
}

/// The generation of the newest snapshot; 0 if there is none.
fn newest_generation(path: &Path) -> Result<u64, String> {
    let entries = fs::read_dir(path).map_err(|e| error(path, &e))?;
    let names = entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
    let snapshots =
        names.filter_map(|name| generation_of(&name).filter(|(what, _)| *what == "snapshot").map(|(_, n)| n));
    Ok(snapshots.max().unwrap_or(0))
}

/// A write to disk. Jobs are executed in order.
#[derive(Debug)]
pub enum Job {
    /// Appends bytes to the journal. `Synced` with this number is sent when they are safely on disk.
    Append(Vec<u8>, u64),
    /// Starts a new generation with this snapshot.
    Rotate(Vec<u8>),
}

/// The open journal.
#[derive(Debug)]
pub struct Journal {
    dir: DataDir,
    file: File,
    length: u64,
    snapshot: u64,
}

impl Journal {
    /// How many bytes may be appended before a new generation must start.
    pub fn room(&self) -> u64 {
        ROTATE_FROM.max(2 * self.snapshot).saturating_sub(self.length)
    }

    /// Executes jobs until all senders are gone. Jobs that have queued up during a write are written and synced
    /// together. On an I/O error the cluster is told to stop; nothing of the failed write has been acknowledged.
    pub fn run(mut self, jobs: &Receiver<Job>, cluster: &ToCluster) {
        while let Ok(first) = jobs.recv() {
            if let Err(e) = self.write(first, jobs, cluster) {
                let path = self.dir.journal_path(self.dir.generation);
                tracing::error!("{}", error(&path, &e));
                // An error means that the cluster has stopped.
                let _ = cluster.send(Inbound::Fail(error(&path, &e)));
                return;
            }
        }
    }

    fn write(&mut self, first: Job, jobs: &Receiver<Job>, cluster: &ToCluster) -> std::io::Result<()> {
        let (mut next, mut bytes, mut number) = (Some(first), Vec::new(), 0);
        let mut snapshot = None;
        while let Some(job) = next {
            match job {
                Job::Append(more, n) => {
                    bytes.extend_from_slice(&more);
                    number = n;
                }
                Job::Rotate(state) => {
                    snapshot = Some(state);
                    break;
                }
            }
            next = jobs.try_recv().ok();
        }
        if !bytes.is_empty() {
            self.file.write_all(&bytes)?;
            if self.dir.fsync {
                self.file.sync_data()?;
            }
            self.length += bytes.len() as u64;
            // An error means that the cluster has stopped.
            let _ = cluster.send(Inbound::Synced(number));
        }
        match snapshot {
            Some(state) => self.rotate(&state),
            None => Ok(()),
        }
    }

    fn rotate(&mut self, state: &[u8]) -> std::io::Result<()> {
        let generation = self.dir.generation + 1;
        put_file(&self.dir.path, &format!("snapshot-{generation}"), state)?;
        self.dir.generation = generation;
        self.file = File::create(self.dir.journal_path(generation))?;
        self.length = begin_journal(&mut self.file)?;
        self.snapshot = state.len() as u64;
        self.file.sync_all()?;
        sync_dir(&self.dir.path)?;
        self.dir.remove_older();
        tracing::info!(generation, bytes = state.len(), "a new generation of the data has begun");
        Ok(())
    }
}
