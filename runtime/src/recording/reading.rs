//! Reads the files of recordings, line by line.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use super::format::{EXTENSION, Ended, FORMAT, Header, Line};
use crate::progress::Progress;
use crate::run::file_error;

/// The files of each recording in a directory, in their order: of the directory itself, or of those within.
pub fn recordings(dir: &Path) -> Result<Vec<Vec<PathBuf>>, String> {
    let entries = |dir: &Path| -> Result<Vec<PathBuf>, String> {
        let all = std::fs::read_dir(dir).map_err(|e| file_error(dir, &e))?;
        let mut all = all.map(|entry| Ok(entry?.path())).collect::<std::io::Result<Vec<_>>>();
        all.as_mut().map(|all| all.sort()).map_err(|e| file_error(dir, e))?;
        all.map_err(|e| file_error(dir, &e))
    };
    let parts = |all: Vec<PathBuf>| -> Vec<PathBuf> {
        all.into_iter().filter(|path| path.extension().is_some_and(|e| e == EXTENSION)).collect()
    };
    let own = entries(dir)?;
    let mut found = vec![parts(own.clone())];
    for path in own.into_iter().filter(|path| path.is_dir()) {
        found.push(parts(entries(&path)?));
    }
    found.retain(|files| !files.is_empty());
    if found.is_empty() {
        let what = "there is no recording in it; give the directory that --record was given";
        return Err(format!("error: {}: {what}", dir.display()));
    }
    Ok(found)
}

/// Reads the files of one recording, and hands on each line that says something of a machine. Returns why the recording
/// ends, if it says so.
pub fn read(
    files: &[PathBuf],
    progress: &Progress,
    mut take: impl FnMut(Line) -> Result<(), String>,
) -> Result<Option<Ended>, String> {
    let mut ended = None;
    for (n, path) in files.iter().enumerate() {
        let file = File::open(path).map_err(|e| file_error(path, &e))?;
        let mut lines = BufReader::with_capacity(1 << 20, file);
        let mut line = Vec::new();
        for number in 1.. {
            line.clear();
            if lines.read_until(b'\n', &mut line).map_err(|e| file_error(path, &e))? == 0 {
                break;
            }
            progress.read(line.len() as u64);
            let at = || format!("error: {}: line {number}", path.display());
            if !line.ends_with(b"\n") && n + 1 == files.len() {
                break;
            }
            let read = serde_json::from_slice(&line);
            let read: Line = read.map_err(|e| format!("{}: it cannot be read: {e}; {DAMAGED}", at()))?;
            match read {
                Line::Header(header) if number == 1 => check(&header, n, path)?,
                _ if number == 1 => return Err(format!("{}: it is no header; {DAMAGED}", at())),
                Line::Header(_) => return Err(format!("{}: a header in the middle; {DAMAGED}", at())),
                Line::End(why) => ended = Some(why),
                line => take(line).map_err(|why| format!("{}: {why}; {DAMAGED}", at()))?,
            }
        }
    }
    Ok(ended)
}

/// What to do about a file that cannot be read.
const DAMAGED: &str = "it is damaged, or of another version of skeg; take the recording again";

fn check(header: &Header, n: usize, path: &Path) -> Result<(), String> {
    let (theirs, path) = (header.skeg_recording, path.display());
    if theirs > FORMAT {
        let version = &header.version;
        return Err(format!(
            "error: {path}: its format is {theirs}, this skeg reads {FORMAT}; replay it with skeg {version} or newer"
        ));
    }
    if header.part as usize != n + 1 {
        return Err(format!(
            "error: {path}: it is part {} of its recording, and the {} that is there; put back what is missing",
            header.part,
            n + 1
        ));
    }
    if n == 0 && header.version != env!("CARGO_PKG_VERSION") {
        eprintln!("note: {path}: recorded by version {}, this is {}", header.version, env!("CARGO_PKG_VERSION"));
    }
    Ok(())
}

/// What is remarkable about how a recording ends.
pub fn note(recording: &str, ended: Option<Ended>) -> Option<String> {
    let why = match ended {
        Some(Ended::Stopped) => return None,
        Some(Ended::Limit) => "it ends where --record-limit was reached",
        Some(Ended::Slow) => "it ends where the disk did not keep up",
        None => "it ends without an end: the process was killed, or goes on; what it wrote last may be missing",
    };
    Some(format!("{recording}: {why}"))
}
