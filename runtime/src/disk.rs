//! Files on this machine, for the readers in `skeg_sim::files`; and a record of what was read.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use serde::{Deserialize, Serialize};
use skeg_sim::files::Source;
use skeg_sim::files::yaml::{MAX_FILE_BYTES, too_large_file};

/// The file system; `-` is standard input.
pub struct Disk;

impl Source for Disk {
    fn read(&self, path: &str) -> Result<Vec<u8>, String> {
        let mut bytes = Vec::new();
        // One byte more than allowed, so that an endless device or pipe is rejected instead of read forever.
        let limit = MAX_FILE_BYTES + 1;
        let read = if path == "-" {
            io::stdin().lock().take(limit).read_to_end(&mut bytes)
        } else {
            File::open(path).and_then(|f| f.take(limit).read_to_end(&mut bytes))
        };
        match read {
            Err(e) => Err(explain(&e)),
            Ok(n) if n as u64 > MAX_FILE_BYTES => Err(too_large_file()),
            Ok(_) => Ok(bytes),
        }
    }

    fn directory(&self, path: &str) -> Option<Vec<String>> {
        if path == "-" || !Path::new(path).is_dir() {
            return None;
        }
        let entries = std::fs::read_dir(path).ok()?;
        let is_manifest = |p: &Path| {
            let extension = p.extension().and_then(|e| e.to_str()).unwrap_or("");
            matches!(extension, "yaml" | "yml" | "json") && p.is_file()
        };
        let mut files: Vec<String> = entries
            .filter_map(|e| e.ok().map(|e| e.path()))
            .filter(|p| is_manifest(p))
            .map(|p| p.to_string_lossy().into_owned())
            .collect();
        files.sort();
        Some(files)
    }
}

/// Files as they were read: for a trace, and for threads that each build the scenario again.
#[derive(Serialize, Deserialize, Clone, PartialEq, Debug, Default)]
pub struct Files {
    files: BTreeMap<String, String>,
    directories: BTreeMap<String, Vec<String>>,
}

impl Source for Files {
    fn read(&self, path: &str) -> Result<Vec<u8>, String> {
        let text = self.files.get(path).map(|text| text.clone().into_bytes());
        text.ok_or_else(|| "it is not among the files that were recorded; record the run again".to_owned())
    }

    fn directory(&self, path: &str) -> Option<Vec<String>> {
        self.directories.get(path).cloned()
    }
}

/// The file system, and a record of what was read from it.
#[derive(Default)]
pub struct Recording(RefCell<Files>);

impl Recording {
    /// What has been read so far.
    pub fn files(&self) -> Files {
        self.0.borrow().clone()
    }
}

impl Source for Recording {
    fn read(&self, path: &str) -> Result<Vec<u8>, String> {
        // Standard input can be read only once, but a scenario may name it twice.
        if let Some(text) = self.0.borrow().files.get(path) {
            return Ok(text.clone().into_bytes());
        }
        let bytes = Disk.read(path)?;
        if let Ok(text) = std::str::from_utf8(&bytes) {
            self.0.borrow_mut().files.insert(path.to_owned(), text.to_owned());
        }
        Ok(bytes)
    }

    fn directory(&self, path: &str) -> Option<Vec<String>> {
        let files = Disk.directory(path)?;
        self.0.borrow_mut().directories.insert(path.to_owned(), files.clone());
        Some(files)
    }
}

/// Writes a file that only its owner may read: beside it first and renamed then, so that nobody, a later start after a
/// crash included, reads an incomplete one.
#[cfg(feature = "up")]
pub fn write_private(path: &Path, text: &str) -> io::Result<()> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let mut beside = path.as_os_str().to_owned();
    beside.push(format!(".skeg-{}", std::process::id()));
    let mut file = File::options().write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    std::fs::rename(&beside, path)
}

/// Says what is wrong with a file and what to do, without the operating system's error numbers.
pub fn explain(e: &io::Error) -> String {
    match e.kind() {
        io::ErrorKind::NotFound => "there is no such file; correct the path".to_owned(),
        io::ErrorKind::PermissionDenied => "it may not be opened; change its permissions".to_owned(),
        _ => format!("it cannot be read or written: {e}"),
    }
}
