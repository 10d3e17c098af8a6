//! Runs the real `kubectl`.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;

use crate::Exit;
use crate::disk::explain;

/// The kubectl that `SKEG_KUBECTL` names, or else the first one on the path that is not this binary.
fn real() -> Option<PathBuf> {
    if let Some(named) = env::var_os("SKEG_KUBECTL").filter(|named| !named.is_empty()) {
        return Some(PathBuf::from(named));
    }
    let own = env::current_exe().and_then(fs::canonicalize).ok();
    let same = |path: &PathBuf| {
        let found = fs::canonicalize(path).ok();
        let bytes = |p: &PathBuf| fs::metadata(p).map(|m| (std::os::unix::fs::MetadataExt::ino(&m), m.len())).ok();
        found == own || found.as_ref().and_then(bytes) == own.as_ref().and_then(bytes)
    };
    let path = env::var_os("PATH")?;
    let mut all = env::split_paths(&path).map(|dir| dir.join("kubectl"));
    all.find(|file| file.is_file() && !same(file))
}

pub(super) fn run(args: Vec<OsString>) -> Result<Exit, String> {
    let Some(real) = real() else {
        return Err("error: there is no kubectl on the path; install it, or name it with SKEG_KUBECTL".to_owned());
    };
    let failed = Command::new(&real).args(args.into_iter().skip(1)).exec();
    Err(format!("error: {}: {}", real.display(), explain(&failed)))
}
