//! The volumes of pods on this host: directories under the state directory, on tmpfs where nothing must get on a disk.
//!
//! | path under `pods/UID` | what |
//! |---|---|
//! | `volumes/NAME` | a volume |
//! | `subpaths/CONTAINER/N` | the part of a volume that a container's N-th mount names, mounted here |
//! | `containers/NAME/ATTEMPT` | what a run of a container says about its end |
//!
//! Files are replaced all at once, as kubernetes `pkg/volume/util/atomic_writer.go` does: what is visible are links
//! through `..data`, which is itself a link that is renamed. A path within a volume is opened beneath it, so that no
//! link in it leads out, and mounted by its open file, so that no later change of it matters (CVE-2017-1002101,
//! CVE-2021-25741).

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, Permissions};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, PermissionsExt, symlink};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::mount::{MountFlags, UnmountFlags};

use super::persistent;
use super::spec::{self, Bind};
use crate::disk::explain;

/// A volume, with the tokens made.
#[derive(Clone, Debug)]
pub struct Volume {
    /// Its name.
    pub name: String,
    /// What it has inside.
    pub content: Content,
}

/// What a volume has inside.
#[derive(Clone)]
pub enum Content {
    /// Nothing at first; on tmpfs of at most this many bytes where it is in memory.
    Empty { memory: bool, size_limit: Option<i64> },
    /// A path of the host.
    Host { path: String, type_: String },
    /// A path of the host that is a PersistentVolume; see [`super::persistent::mount`].
    Persistent { path: String, type_: String, made: bool, takes_group: bool },
    /// Files.
    Files { secret: bool, files: Vec<(String, i32, Vec<u8>)> },
    /// What cannot be made, and why.
    Wrong(String),
}

impl std::fmt::Debug for Content {
    // Never the files: they may be secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Content::Empty { .. } => "Empty",
            Content::Host { .. } => "Host",
            Content::Persistent { .. } => "Persistent",
            Content::Files { .. } => "Files",
            Content::Wrong(_) => "Wrong",
        })
    }
}

/// Why a volume could not be made.
pub(super) type Why = String;

fn pod_dir(state: &Path, uid: &str) -> PathBuf {
    state.join("pods").join(uid)
}

/// Where a pod's volumes are.
pub(super) fn dir_of(state: &Path, uid: &str) -> PathBuf {
    pod_dir(state, uid).join("volumes")
}

fn volume_dir(state: &Path, uid: &str, name: &str) -> PathBuf {
    dir_of(state, uid).join(name)
}

/// Where a run of a container says something about its end.
pub fn termination_file(state: &Path, uid: &str, container: &str, attempt: u32) -> PathBuf {
    pod_dir(state, uid).join("containers").join(container).join(attempt.to_string())
}

pub(super) fn told(path: &Path, e: &io::Error) -> Why {
    format!("{}: {}", path.display(), explain(e))
}

/// Whether something is mounted exactly here.
pub(super) fn is_mount(path: &Path) -> bool {
    mounts().is_ok_and(|all| all.iter().any(|at| at == path))
}

/// Every mount point of this process.
fn mounts() -> io::Result<Vec<PathBuf>> {
    Ok(mount_table()?.into_iter().map(|(_, at)| at).collect())
}

/// All that is mounted for this process: which path of its file system, and where.
pub(super) fn mount_table() -> io::Result<Vec<(PathBuf, PathBuf)>> {
    let text = fs::read_to_string("/proc/self/mountinfo")?;
    let unescape =
        |field: &str| field.replace("\\040", " ").replace("\\011", "\t").replace("\\012", "\n").replace("\\134", "\\");
    let pair = |line: &str| {
        let mut fields = line.split(' ').skip(3).map(|field| PathBuf::from(unescape(field)));
        Some((fields.next()?, fields.next()?))
    };
    Ok(text.lines().filter_map(pair).collect())
}

/// Makes a pod's volumes, or brings their files up to date.
pub fn mount(state: &Path, uid: &str, fs_group: Option<i64>, volumes: &[Volume]) -> Result<(), Why> {
    for volume in volumes {
        let dir = volume_dir(state, uid, &volume.name);
        make(&dir, fs_group, &volume.content)
            .map_err(|why| format!("MountVolume.SetUp failed for volume {:?} : {why}", volume.name))?;
    }
    Ok(())
}

fn make(dir: &Path, fs_group: Option<i64>, content: &Content) -> Result<(), Why> {
    let io = |e: &io::Error| told(dir, e);
    match content {
        Content::Wrong(why) => Err(why.clone()),
        Content::Host { path, type_ } => check_host_path(Path::new(path), type_),
        Content::Persistent { path, type_, made, takes_group } => {
            persistent::mount(dir, Path::new(path), type_, *made, fs_group.filter(|_| *takes_group))
        }
        Content::Empty { memory, size_limit } => {
            fs::create_dir_all(dir).map_err(|e| io(&e))?;
            if *memory && !is_mount(dir) {
                mount_tmpfs(dir, *size_limit, "0777").map_err(|e| io(&e))?;
            }
            let mode = if fs_group.is_some() { 0o2777 } else { 0o777 };
            own(dir, fs_group).and_then(|()| chmod(dir, mode)).map_err(|e| io(&e))
        }
        Content::Files { secret, files } => {
            fs::create_dir_all(dir).map_err(|e| io(&e))?;
            if *secret && !is_mount(dir) {
                mount_tmpfs(dir, None, "0755").map_err(|e| io(&e))?;
            }
            chmod(dir, 0o755).and_then(|()| write_files(dir, files, fs_group)).map_err(|e| io(&e))
        }
    }
}

pub(super) fn chmod(path: &Path, mode: u32) -> io::Result<()> {
    fs::set_permissions(path, Permissions::from_mode(mode))
}

fn own(path: &Path, group: Option<i64>) -> io::Result<()> {
    match group.and_then(|group| u32::try_from(group).ok()) {
        Some(group) => std::os::unix::fs::lchown(path, None, Some(group)),
        None => Ok(()),
    }
}

fn mount_tmpfs(dir: &Path, size: Option<i64>, mode: &str) -> io::Result<()> {
    let size = size.map_or(String::new(), |size| format!(",size={size}"));
    let data = std::ffi::CString::new(format!("mode={mode}{size}"))?;
    let flags = MountFlags::NOSUID | MountFlags::NODEV;
    Ok(rustix::mount::mount("tmpfs", dir, "tmpfs", flags, Some(data.as_c_str()))?)
}

/// `pkg/volume/hostpath` (`checkTypeInternal`).
pub(super) fn check_host_path(path: &Path, type_: &str) -> Result<(), Why> {
    let shown = path.display();
    let create = |made: io::Result<()>| match made {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        made => made.map_err(|e| told(path, &e)),
    };
    match type_ {
        // A directory that is missing is made, as container runtimes do.
        "" if !path.exists() => return create(fs::create_dir_all(path)),
        "" => return Ok(()),
        "DirectoryOrCreate" if !path.exists() => {
            create(fs::create_dir_all(path))?;
            return chmod(path, 0o755).map_err(|e| told(path, &e));
        }
        "FileOrCreate" if !path.exists() => {
            create(File::create_new(path).map(drop))?;
            return chmod(path, 0o644).map_err(|e| told(path, &e));
        }
        _ => {}
    }
    let Ok(found) = fs::metadata(path).map(|meta| meta.file_type()) else {
        let what = match type_ {
            "Directory" => "directory",
            "File" => "file",
            "Socket" => "socket file",
            "CharDevice" => "character device",
            "BlockDevice" => "block device",
            _ => "path",
        };
        return Err(format!("hostPath type check failed: {shown} is not a {what}"));
    };
    let (well, what) = match type_ {
        "Directory" | "DirectoryOrCreate" => (found.is_dir(), "directory"),
        "File" | "FileOrCreate" => (found.is_file(), "file"),
        "Socket" => (found.is_socket(), "socket file"),
        "CharDevice" => (found.is_char_device(), "character device"),
        "BlockDevice" => (found.is_block_device(), "block device"),
        other => return Err(format!("{other} is an invalid volume type")),
    };
    if well { Ok(()) } else { Err(format!("hostPath type check failed: {shown} is not a {what}")) }
}

/// Replaces the files of a volume all at once, unless they are as they should be.
fn write_files(dir: &Path, files: &[(String, i32, Vec<u8>)], group: Option<i64>) -> io::Result<()> {
    let wanted: BTreeMap<&Path, (u32, &[u8])> = files
        .iter()
        .map(|(path, mode, bytes)| {
            (Path::new(path.as_str()), (u32::try_from(*mode).unwrap_or(0o644), bytes.as_slice()))
        })
        .collect();
    if let Some(bad) = wanted.keys().find(|path| !path.components().all(|c| matches!(c, Component::Normal(_)))) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("invalid path {bad:?}")));
    }
    let data = dir.join("..data");
    let old = fs::read_link(&data).ok();
    if old.is_some() && is_as_wanted(&data, &wanted) {
        return Ok(());
    }
    let number = old.as_ref().and_then(|old| old.to_str()?.strip_prefix("..data_")?.parse::<u64>().ok()).unwrap_or(0);
    let new = format!("..data_{}", number + 1);
    let target = dir.join(&new);
    if target.exists() {
        fs::remove_dir_all(&target)?;
    }
    fs::create_dir(&target)?;
    chmod(&target, 0o755)?;
    for (path, (mode, bytes)) in &wanted {
        let file = target.join(path);
        if let Some(parent) = file.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::write(&file, bytes)?;
        own(&file, group)?;
        // Its group may read what its owner may.
        chmod(&file, if group.is_some() { mode | 0o440 } else { *mode })?;
    }
    let beside = dir.join("..data_tmp");
    let _ = fs::remove_file(&beside);
    symlink(&new, &beside)?;
    fs::rename(&beside, &data)?;
    let first = |path: &&Path| path.components().next().map(|c| PathBuf::from(c.as_os_str()));
    let visible: BTreeSet<PathBuf> = wanted.keys().filter_map(first).collect();
    for entry in fs::read_dir(dir)?.flatten() {
        let name = PathBuf::from(entry.file_name());
        let hidden = entry.file_name().to_string_lossy().starts_with("..");
        if !hidden && !visible.contains(&name) {
            fs::remove_file(entry.path())?;
        }
    }
    for name in visible {
        match symlink(Path::new("..data").join(&name), dir.join(&name)) {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
            made => made?,
        }
    }
    match old.filter(|old| *old != Path::new(&new)) {
        Some(old) => fs::remove_dir_all(dir.join(old)),
        None => Ok(()),
    }
}

fn is_as_wanted(data: &Path, wanted: &BTreeMap<&Path, (u32, &[u8])>) -> bool {
    fn count(dir: &Path) -> usize {
        let entries = fs::read_dir(dir).into_iter().flatten().flatten();
        entries.map(|e| if e.file_type().is_ok_and(|t| t.is_dir()) { count(&e.path()) } else { 1 }).sum()
    }
    let same = |(path, (_, bytes)): (&&Path, &(u32, &[u8]))| fs::read(data.join(path)).is_ok_and(|is| is == *bytes);
    wanted.iter().all(same) && count(data) == wanted.len()
}

/// Removes a pod's volumes with all that is in them, and what its containers said. Nothing is removed while anything is
/// mounted there: it might be a directory of the host.
pub fn unmount(state: &Path, uid: &str) -> Result<(), Why> {
    let dir = pod_dir(state, uid);
    if uid.is_empty() || !dir.exists() {
        return Ok(());
    }
    let within = || -> Result<Vec<PathBuf>, Why> {
        let mut all = mounts().map_err(|e| told(&dir, &e))?;
        all.retain(|at| at.starts_with(&dir));
        all.sort();
        Ok(all)
    };
    for at in within()?.iter().rev() {
        rustix::mount::unmount(at, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW).map_err(|e| told(at, &e.into()))?;
    }
    if let Some(still) = within()?.first() {
        return Err(format!("{} is still mounted", still.display()));
    }
    fs::remove_dir_all(&dir).map_err(|e| told(&dir, &e))
}

/// What a container sees of this host: its volumes, and the file for its last words.
pub fn binds(state: &Path, of: &spec::Container, volumes: &[(String, Option<String>)]) -> Result<Vec<Bind>, Why> {
    let mut binds = Vec::new();
    for (n, mount) in of.mounts.iter().enumerate() {
        let Some((_, host)) = volumes.iter().find(|(name, _)| *name == mount.volume) else {
            return Err(format!("the pod has no volume {:?}", mount.volume));
        };
        let root = host.as_ref().map_or_else(|| volume_dir(state, &of.pod_uid, &mount.volume), PathBuf::from);
        let source = match mount.sub_path.as_str() {
            "" => root,
            path => {
                let at = pod_dir(state, &of.pod_uid).join("subpaths").join(&of.name).join(n.to_string());
                let failed = |why: String| {
                    format!(
                        "failed to prepare subPath for volumeMount {:?} of container {:?}: {why}",
                        mount.volume, of.name
                    )
                };
                mount_sub_path(&root, path, &at).map_err(failed)?;
                at
            }
        };
        binds.push(Bind {
            source: source.display().to_string(),
            target: mount.path.clone(),
            read_only: mount.read_only,
            propagation: mount.propagation.clone(),
        });
    }
    let path = of.spec().and_then(|c| c.termination_message_path.clone()).filter(|path| !path.is_empty());
    let target = path.unwrap_or_else(|| "/dev/termination-log".to_owned());
    let source = termination_file(state, &of.pod_uid, &of.name, of.attempt);
    let made = || -> io::Result<()> {
        fs::create_dir_all(source.parent().unwrap_or(state))?;
        File::create(&source)?;
        chmod(&source, 0o666)
    };
    made().map_err(|e| told(&source, &e))?;
    binds.push(Bind { source: source.display().to_string(), target, read_only: false, propagation: None });
    Ok(binds)
}

/// Mounts a path within a volume at `at`. It is made, as a directory, if it is not there.
fn mount_sub_path(root: &Path, path: &str, at: &Path) -> Result<(), Why> {
    let relative = Path::new(path);
    let wrong = || format!("{path:?} must be a relative path and must not contain '..'");
    if relative.is_absolute() || relative.components().any(|c| matches!(c, Component::ParentDir)) {
        return Err(wrong());
    }
    let opened = open_beneath(root, relative).map_err(|e| match e.raw_os_error() {
        // A link leads out of the volume.
        Some(code) if code == rustix::io::Errno::XDEV.raw_os_error() => {
            format!("subpath {path:?} is not within the volume path")
        }
        _ => told(&root.join(relative), &e),
    })?;
    // An earlier run of the container had it.
    while is_mount(at) {
        rustix::mount::unmount(at, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW).map_err(|e| told(at, &e.into()))?;
    }
    let is_dir = rustix::fs::fstat(&opened).map(|s| rustix::fs::FileType::from_raw_mode(s.st_mode).is_dir());
    let place = || -> io::Result<()> {
        fs::create_dir_all(at.parent().unwrap_or(root))?;
        if is_dir? {
            let _ = fs::remove_file(at);
            fs::create_dir_all(at)?;
        } else {
            let _ = fs::remove_dir(at);
            File::create(at)?;
        }
        // By its number, so that it is what was opened, whatever its path leads to by now.
        rustix::mount::mount_bind(format!("/proc/self/fd/{}", opened.as_raw_fd()), at)?;
        Ok(())
    };
    place().map_err(|e| told(at, &e))
}

/// Opens a path beneath a directory. Links are followed as long as they stay beneath it; what is missing is made.
fn open_beneath(root: &Path, path: &Path) -> io::Result<OwnedFd> {
    let root = rustix::fs::open(root, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let open = |path: &Path, flags: OFlags| {
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
        rustix::fs::openat2(&root, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve)
    };
    let (mut sofar, mut parent) = (PathBuf::new(), None::<OwnedFd>);
    for component in path.components().filter(|c| matches!(c, Component::Normal(_))) {
        sofar.push(component);
        let found = match open(&sofar, OFlags::PATH) {
            Err(rustix::io::Errno::NOENT) => {
                let made = match &parent {
                    Some(parent) => rustix::fs::mkdirat(parent, component.as_os_str(), Mode::from_raw_mode(0o750)),
                    None => rustix::fs::mkdirat(&root, component.as_os_str(), Mode::from_raw_mode(0o750)),
                };
                made?;
                open(&sofar, OFlags::PATH)
            }
            found => found,
        };
        parent = Some(found?);
    }
    match parent {
        Some(found) => Ok(found),
        None => Ok(root),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::path::{Path, PathBuf};

    use super::{check_host_path, open_beneath, write_files};

    pub fn scratch(test: &str) -> PathBuf {
        let dir = std::env::temp_dir().join(format!("skeg-volumes-{test}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(&dir).unwrap();
        dir
    }

    #[test]
    fn files_are_replaced_all_at_once() {
        let dir = scratch("files");
        let file = |path: &str, mode: i32, text: &str| (path.to_owned(), mode, text.as_bytes().to_vec());
        write_files(&dir, &[file("a", 0o644, "1"), file("d/b", 0o400, "2")], None).unwrap();
        assert_eq!(fs::read_to_string(dir.join("a")).unwrap(), "1");
        assert_eq!(fs::read_to_string(dir.join("d/b")).unwrap(), "2");
        assert_eq!(fs::metadata(dir.join("d/b")).unwrap().permissions().mode() & 0o777, 0o400);
        let first = fs::read_link(dir.join("..data")).unwrap();
        write_files(&dir, &[file("a", 0o644, "1"), file("d/b", 0o400, "2")], None).unwrap();
        assert_eq!(fs::read_link(dir.join("..data")).unwrap(), first, "what is right is not written again");
        write_files(&dir, &[file("a", 0o644, "3"), file("c", 0o644, "4")], None).unwrap();
        assert_eq!(fs::read_to_string(dir.join("a")).unwrap(), "3");
        assert_eq!(fs::read_to_string(dir.join("c")).unwrap(), "4");
        assert!(!dir.join("d").exists() && !dir.join(&first).exists(), "what is old is gone");
        assert!(write_files(&dir, &[file("../x", 0o644, "")], None).is_err());
        fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn no_path_leads_out_of_a_volume() {
        let dir = scratch("beneath");
        let volume = dir.join("volume");
        fs::create_dir_all(volume.join("sub")).unwrap();
        fs::write(volume.join("file"), "").unwrap();
        symlink("/etc", volume.join("absolute")).unwrap();
        symlink("../..", volume.join("sub/up")).unwrap();
        symlink("sub", volume.join("well")).unwrap();
        let check = |path: &str, well: bool| {
            assert_eq!(open_beneath(&volume, Path::new(path)).is_ok(), well, "{path}");
        };
        check("sub", true);
        check("file", true);
        check("well", true);
        check("new/deep", true);
        assert!(volume.join("new/deep").is_dir());
        check("well/new", true);
        assert!(volume.join("sub/new").is_dir());
        check("absolute", false);
        check("absolute/passwd", false);
        check("sub/up", false);
        check("sub/up/outside", false);
        check("file/below", false);
        assert!(!dir.join("outside").exists());
        fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn host_paths_are_checked() {
        let dir = scratch("host");
        fs::write(dir.join("file"), "").unwrap();
        let check = |name: &str, type_: &str, want: &str| {
            let got = check_host_path(&dir.join(name), type_).err().unwrap_or_default();
            assert_eq!(got.replace(&dir.display().to_string(), ""), want, "{name} {type_}");
        };
        check("file", "File", "");
        check("file", "Directory", "hostPath type check failed: /file is not a directory");
        check("none", "File", "hostPath type check failed: /none is not a file");
        check("none", "Socket", "hostPath type check failed: /none is not a socket file");
        check("file", "CharDevice", "hostPath type check failed: /file is not a character device");
        check("a/b", "DirectoryOrCreate", "");
        check("a/b", "Directory", "");
        check("a/c", "FileOrCreate", "");
        check("a/c", "File", "");
        check("a/b", "FileOrCreate", "hostPath type check failed: /a/b is not a file");
        check("new", "", "");
        check("new", "Directory", "");
        fs::remove_dir_all(&dir).unwrap();
    }
}
