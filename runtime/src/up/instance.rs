//! The running clusters of this user on this host. Each has a file that describes it, and holds a lock on the file
//! while it runs.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::args::InstanceArgs;
use crate::Exit;
use crate::disk::explain;

/// How long `skeg down` waits for a cluster to stop.
const PATIENCE: Duration = Duration::from_secs(30);

/// The description of a running cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Instance {
    /// Its process id.
    pub pid: u32,
    /// URL of its API.
    pub url: String,
    /// Path of its kubeconfig.
    pub kubeconfig: PathBuf,
    /// How many nodes it was started with.
    pub nodes: u32,
}

/// The file of the cluster in this process; it is deleted when the cluster stops.
#[derive(Debug)]
pub struct Running {
    file: File,
    path: PathBuf,
}

fn directory() -> PathBuf {
    match std::env::var_os("XDG_RUNTIME_DIR") {
        Some(dir) if !dir.is_empty() => Path::new(&dir).join("skeg"),
        _ => std::env::temp_dir().join(format!("skeg-{}", rustix::process::getuid().as_raw())),
    }
}

fn path_of(listen: SocketAddr) -> PathBuf {
    directory().join(format!("{listen}.json").replace([':', '[', ']'], "_"))
}

fn error(path: &Path, e: &std::io::Error) -> String {
    format!("error: {}: {}", path.display(), explain(e))
}

impl Running {
    /// Locks the file for an address. Fails if another cluster is running at it.
    pub fn claim(listen: SocketAddr) -> Result<Running, String> {
        let path = path_of(listen);
        fs::create_dir_all(directory()).map_err(|e| error(&directory(), &e))?;
        let opened = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
        let file = opened.map_err(|e| error(&path, &e))?;
        match file.try_lock() {
            Ok(()) => Ok(Running { file, path }),
            Err(TryLockError::WouldBlock) => {
                Err(format!("error: a cluster runs at {listen} already; `skeg down --listen {listen}` ends it"))
            }
            Err(TryLockError::Error(e)) => Err(error(&path, &e)),
        }
    }

    /// Writes the description of the cluster.
    pub fn describe(&mut self, instance: &Instance) -> Result<(), String> {
        let text = serde_json::to_string(instance).expect("an instance is plain data");
        let written = self.file.set_len(0).and_then(|()| self.file.rewind());
        written.and_then(|()| self.file.write_all(text.as_bytes())).map_err(|e| error(&self.path, &e))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Err(e) = fs::remove_file(&self.path) {
            tracing::warn!("{}", error(&self.path, &e));
        }
    }
}

/// The cluster that is running at an address, if any.
fn find(listen: SocketAddr) -> Result<Option<Instance>, String> {
    let path = path_of(listen);
    let mut file = match File::open(&path) {
        Ok(file) => file,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(error(&path, &e)),
    };
    if file.try_lock_shared().is_ok() {
        // The file is not locked: that cluster crashed without deleting it.
        return Ok(None);
    }
    let mut text = String::new();
    file.read_to_string(&mut text).map_err(|e| error(&path, &e))?;
    serde_json::from_str(&text).map(Some).map_err(|e| format!("error: {}: {e}", path.display()))
}

/// `skeg status`.
pub fn status(args: &InstanceArgs) -> Result<Exit, String> {
    match find(args.listen)? {
        Some(Instance { pid, url, kubeconfig, nodes }) => {
            println!("running: {url}, {nodes} nodes, process {pid}, kubeconfig {}", kubeconfig.display());
            Ok(Exit::Well)
        }
        None => {
            println!("not running: no cluster at {}", args.listen);
            Ok(Exit::Differs)
        }
    }
}

/// `skeg down`: asks the cluster to stop, and waits until it has.
pub fn down(args: &InstanceArgs) -> Result<Exit, String> {
    let Some(instance) = find(args.listen)? else {
        return Err(format!("error: no cluster runs at {}; name its address with --listen", args.listen));
    };
    let pid = i32::try_from(instance.pid).ok().and_then(rustix::process::Pid::from_raw);
    let pid = pid.ok_or_else(|| format!("error: {} is no process", instance.pid))?;
    rustix::process::kill_process(pid, rustix::process::Signal::TERM)
        .map_err(|e| format!("error: process {}: {}", instance.pid, explain(&e.into())))?;
    let asked = Instant::now();
    while find(args.listen)?.is_some() {
        if asked.elapsed() > PATIENCE {
            return Err(format!("error: process {} has not ended in {PATIENCE:?}", instance.pid));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    println!("ended: {}", instance.url);
    Ok(Exit::Well)
}
