//! Runs the real `kubectl`.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::MetadataExt;
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
    // Two names of one file have one inode.
    let inode = |path: &PathBuf| fs::metadata(path).map(|file| (file.dev(), file.ino())).ok();
    let own = env::current_exe().ok().as_ref().and_then(inode);
    let path = env::var_os("PATH")?;
    let mut all = env::split_paths(&path).map(|dir| dir.join("kubectl"));
    all.find(|file| file.is_file() && inode(file) != own)
}

pub(super) fn run(args: Vec<OsString>) -> Result<Exit, String> {
    let Some(real) = real() else {
        return Err("error: there is no kubectl on the path; install it, or name it with SKEG_KUBECTL".to_owned());
    };
    let failed = Command::new(&real).args(args.into_iter().skip(1)).exec();
    Err(format!("error: {}: {}", real.display(), explain(&failed)))
}
