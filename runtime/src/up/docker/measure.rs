//! What this host and its pods use, as the agent needs it to see whether the node is short of something.
//!
//! Source: kubernetes `pkg/kubelet/server/stats`, `pkg/kubelet/stats/pidlimit`, `pkg/volume/util/fs`.

use std::collections::BTreeSet;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

use serde_json::{Value, json};
use skeg_core::agent::{ContainerUse, DiskUse, NodeUse, PodUse, Supply};

use super::engine::{Failure, query};
use super::{Driver, blocking, spec, visits, volumes};

/// What was measured of this host.
#[derive(Clone, Copy, Debug)]
struct Host {
    memory: Supply,
    node: [Supply; 2],
    images: [Supply; 2],
    pids: Supply,
    has_image_disk: bool,
}

/// A container that runs.
#[derive(Debug)]
struct Container {
    name: String,
    memory: u64,
    processes: u64,
    root: DiskUse,
    log: DiskUse,
}

/// A pod: its UID, its containers and its volumes.
type Pod = (String, Vec<Container>, Vec<(String, DiskUse)>);

/// What was measured. It crosses threads.
#[derive(Debug)]
pub struct Measured {
    host: Host,
    pods: Vec<Pod>,
}

impl Measured {
    /// In the words of the agent.
    pub fn told(self) -> NodeUse {
        let Host { memory, node, images, pids, has_image_disk } = self.host;
        let container = |c: Container| ContainerUse {
            name: c.name.into(),
            memory: c.memory,
            processes: c.processes,
            root: c.root,
            log: c.log,
        };
        let pod = |(uid, containers, volumes): Pod| PodUse {
            pod_uid: uid.into(),
            containers: containers.into_iter().map(container).collect(),
            volumes: volumes.into_iter().map(|(name, disk)| (Rc::from(name), disk)).collect(),
        };
        NodeUse {
            memory,
            node_disk: node[0],
            node_inodes: node[1],
            image_disk: images[0],
            image_inodes: images[1],
            pids,
            has_image_disk,
            pods: self.pods.into_iter().map(pod).collect(),
        }
    }
}

/// Measures this host, and these pods.
pub async fn measure(driver: &Arc<Driver>, pods: Vec<String>) -> Result<Measured, String> {
    let (state, images) = (driver.state.clone(), PathBuf::from(&driver.images));
    let host = blocking(move || host(&state, &images)).await?;
    if pods.is_empty() {
        return Ok(Measured { host, pods: Vec::new() });
    }
    let filters = json!({"status": ["running"], "label": [
        format!("{}={}", spec::CLUSTER, driver.host.cluster), format!("{}=container", spec::TYPE)]});
    let path = format!("/containers/json?{}", query(&[("filters", &filters.to_string())]));
    let listed = driver.engine.get(&path).await.map_err(|e| e.to_string())?;
    let mut asked = Vec::new();
    for found in listed.as_array().into_iter().flatten() {
        let label = |name: &str| found["Labels"][name].as_str().unwrap_or_default().to_owned();
        let (uid, name) = (label(spec::POD_UID), label(spec::CONTAINER));
        let id = found["Id"].as_str().unwrap_or_default().to_owned();
        if pods.contains(&uid) {
            let driver = Arc::clone(driver);
            asked.push((uid, tokio::spawn(async move { container(&driver, &id, name).await })));
        }
    }
    let mut measured: Vec<Pod> = Vec::new();
    for uid in pods {
        let (state, pod) = (driver.state.clone(), uid.clone());
        let volumes = blocking(move || volumes_of(&state, &pod)).await?;
        measured.push((uid, Vec::new(), volumes));
    }
    for (uid, asked) in asked {
        let container = asked.await.map_err(|e| e.to_string())??;
        // One that has ended meanwhile uses nothing.
        let pod = measured.iter_mut().find(|(known, ..)| *known == uid);
        if let Some((_, containers, _)) = pod {
            containers.extend(container);
        }
    }
    Ok(Measured { host, pods: measured })
}

/// What a container uses; `None` if it is not there any more.
async fn container(driver: &Driver, id: &str, name: String) -> Result<Option<Container>, String> {
    let there = |answer: Result<Value, Failure>| match answer {
        Err(e) if e.is_missing() => Ok(None),
        answer => answer.map(Some).map_err(|e| e.to_string()),
    };
    let Some(seen) = there(driver.engine.get(&format!("/containers/{id}/json")).await)? else { return Ok(None) };
    let stats = driver.engine.get(&format!("/containers/{id}/stats?stream=false&one-shot=true")).await;
    let Some(stats) = there(stats)? else { return Ok(None) };
    let path = |pointer: &str| {
        seen.pointer(pointer).and_then(Value::as_str).filter(|path| !path.is_empty()).map(PathBuf::from)
    };
    let (upper, log) = (path("/GraphDriver/Data/UpperDir"), path("/LogPath"));
    let sized = match upper {
        Some(_) => None,
        // Only the engine knows where this one writes, and how much that is.
        None => there(driver.engine.get(&format!("/containers/{id}/json?size=1")).await)?,
    };
    let told = sized.and_then(|sized| sized["SizeRw"].as_u64()).unwrap_or(0);
    let (root, log) = blocking(move || {
        let root = upper.map_or(Ok(DiskUse { bytes: told, inodes: 0 }), |upper| disk_use(&upper))?;
        Ok((root, log.map_or(Ok(DiskUse::default()), |log| logs(&log))?))
    })
    .await?;
    let processes = stats["pids_stats"]["current"].as_u64().unwrap_or(0);
    Ok(Some(Container { name, memory: visits::measured(&stats).1, processes, root, log }))
}

/// What a container's log takes, with what was rotated away of it.
fn logs(log: &Path) -> Result<DiskUse, String> {
    let (Some(dir), Some(name)) = (log.parent(), log.file_name()) else { return Ok(DiskUse::default()) };
    let name = name.to_string_lossy().into_owned();
    let mut all = DiskUse::default();
    for entry in entries(dir)? {
        if entry.file_name().is_some_and(|file| file.to_string_lossy().starts_with(&name)) {
            all = all.plus(disk_use(&entry)?);
        }
    }
    Ok(all)
}

/// What is in each directory that is a volume of a pod.
fn volumes_of(state: &Path, uid: &str) -> Result<Vec<(String, DiskUse)>, String> {
    let dirs = entries(&volumes::dir_of(state, uid))?;
    let name = |dir: &Path| dir.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    dirs.iter().map(|dir| Ok((name(dir), disk_use(dir)?))).collect()
}

/// What is in a directory; nothing if that is not there.
fn entries(dir: &Path) -> Result<Vec<PathBuf>, String> {
    let listed = std::fs::read_dir(dir).and_then(|listed| listed.map(|entry| Ok(entry?.path())).collect());
    match listed {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        listed => listed.map_err(|e| volumes::told(dir, &e)),
    }
}

/// What a file takes, or a directory with all that is in it on the same disk. What several names lead to counts once;
/// what goes while it is looked at, not at all.
fn disk_use(path: &Path) -> Result<DiskUse, String> {
    let (mut all, mut known, mut left) = (DiskUse::default(), BTreeSet::new(), vec![path.to_owned()]);
    let mut disk = None;
    while let Some(path) = left.pop() {
        let file = match std::fs::symlink_metadata(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
            file => file.map_err(|e| volumes::told(&path, &e))?,
        };
        if *disk.get_or_insert(file.dev()) != file.dev()
            || file.nlink() > 1 && !file.is_dir() && !known.insert(file.ino())
        {
            continue;
        }
        all = all.plus(DiskUse { bytes: file.blocks() * 512, inodes: 1 });
        if file.is_dir() {
            left.extend(entries(&path)?);
        }
    }
    Ok(all)
}

fn host(state: &Path, images: &Path) -> Result<Host, String> {
    let read = |path: &str| std::fs::read_to_string(path).map_err(|e| volumes::told(Path::new(path), &e));
    let unread = |path: &str| format!("{path} says something unexpected");
    let meminfo = read("/proc/meminfo")?;
    let memory = memory_of(&meminfo).ok_or_else(|| unread("/proc/meminfo"))?;
    let most = |path: &str| read(path)?.trim().parse::<u64>().map_err(|_| unread(path));
    let capacity = most("/proc/sys/kernel/pid_max")?.min(most("/proc/sys/kernel/threads-max")?);
    let running = running_of(&read("/proc/loadavg")?).ok_or_else(|| unread("/proc/loadavg"))?;
    let device = |path: &Path| std::fs::metadata(path).map(|file| file.dev()).map_err(|e| volumes::told(path, &e));
    Ok(Host {
        memory,
        node: disk_of(state)?,
        images: disk_of(images)?,
        pids: Supply { capacity, available: capacity.saturating_sub(running) },
        has_image_disk: device(state)? != device(images)?,
    })
}

/// Bytes and files of a disk.
fn disk_of(path: &Path) -> Result<[Supply; 2], String> {
    let fs = rustix::fs::statvfs(path).map_err(|e| format!("{}: {e}", path.display()))?;
    let bytes = |blocks: u64| blocks.saturating_mul(fs.f_frsize);
    Ok([
        Supply { capacity: bytes(fs.f_blocks), available: bytes(fs.f_bavail) },
        Supply { capacity: fs.f_files, available: fs.f_ffree },
    ])
}

/// All but the working set is available: what is free, and what files take that nobody has read for a while.
fn memory_of(meminfo: &str) -> Option<Supply> {
    let kibibytes = |name: &str| {
        let line = meminfo.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        line.trim().strip_suffix(" kB")?.parse::<u64>().ok()
    };
    let available = kibibytes("MemFree")? + kibibytes("Inactive(file)")?;
    Some(Supply { capacity: kibibytes("MemTotal")? << 10, available: available << 10 })
}

/// Processes and threads that there are (proc_loadavg(5)).
fn running_of(loadavg: &str) -> Option<u64> {
    loadavg.split_whitespace().nth(3)?.split_once('/')?.1.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use skeg_core::agent::Supply;

    use super::{disk_use, logs, memory_of, running_of};

    #[test]
    fn a_host_is_measured_as_the_kernel_tells() {
        let meminfo = "MemTotal: 100 kB\nMemFree: 5 kB\nInactive:  30 kB\nInactive(file):   20 kB\n";
        assert_eq!(memory_of(meminfo), Some(Supply { capacity: 100 << 10, available: 25 << 10 }));
        assert_eq!((memory_of("MemTotal: x"), running_of("")), (None, None));
        assert_eq!(running_of("0.20 0.18 0.12 1/80 11206"), Some(80));
        let state = std::env::temp_dir();
        let host = super::host(&state, &state).unwrap();
        assert!(!host.has_image_disk && host.node == host.images && host.memory.available < host.memory.capacity);
        assert!(host.pids.available > 0 && host.pids.available < host.pids.capacity);
    }

    #[test]
    fn a_directory_takes_what_is_in_it_once() {
        let dir = crate::up::docker::volumes::tests::scratch("measure");
        fs::create_dir_all(dir.join("deep/er")).unwrap();
        let empty = disk_use(&dir).unwrap();
        fs::write(dir.join("deep/file"), vec![1; 100_000]).unwrap();
        fs::hard_link(dir.join("deep/file"), dir.join("again")).unwrap();
        std::os::unix::fs::symlink("/usr", dir.join("elsewhere")).unwrap();
        let full = disk_use(&dir).unwrap();
        assert_eq!(full.inodes, empty.inodes + 2, "the file and the link to elsewhere");
        assert!((100_000..120_000).contains(&(full.bytes - empty.bytes)), "{empty:?} {full:?}");
        for name in ["x.log", "x.log.1", "other"] {
            fs::write(dir.join(name), vec![1; 8192]).unwrap();
        }
        assert_eq!(logs(&dir.join("x.log")).unwrap().inodes, 2);
        assert_eq!(disk_use(&dir.join("none")).unwrap().inodes, 0);
        fs::remove_dir_all(&dir).unwrap();
    }
}
