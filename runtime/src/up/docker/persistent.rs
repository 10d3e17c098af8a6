//! PersistentVolumes that are a path of this host: mounted where a pod's other volumes are, given to the pod's group,
//! and emptied and removed once they are released.
//!
//! Source: kubernetes `pkg/volume/local`, `pkg/volume/volume_linux.go` (`SetVolumeOwnership`).

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt, lchown};
use std::path::Path;

use super::volumes::{Why, check_host_path, chmod, is_mount, mount_table, told};

/// Mounts a path of the host at `at`, after it was checked by its type, as that of `hostPath`. Where `made` says so,
/// the directory is the volume's own: it is made, and everybody may write to it, since nobody knows the pod's user.
pub fn mount(at: &Path, path: &Path, type_: &str, made: bool, group: Option<i64>) -> Result<(), Why> {
    if made && !path.exists() {
        fs::create_dir_all(path).and_then(|()| chmod(path, 0o777)).map_err(|e| told(path, &e))?;
    }
    check_host_path(path, type_)?;
    if let Some(group) = group.and_then(|group| u32::try_from(group).ok()) {
        give_to(path, group).map_err(|e| told(path, &e))?;
    }
    if is_mount(at) {
        return Ok(());
    }
    let place = || -> io::Result<()> {
        if path.is_dir() {
            fs::create_dir_all(at)?;
        } else {
            fs::create_dir_all(at.parent().unwrap_or(at))?;
            File::create(at)?;
        }
        Ok(rustix::mount::mount_bind(path, at)?)
    };
    place().map_err(|e| told(at, &e))
}

/// Gives what is in a volume to a group, which may read and write it; what is made there later belongs to it, too.
fn give_to(path: &Path, group: u32) -> io::Result<()> {
    let about = fs::symlink_metadata(path)?;
    if about.gid() != group {
        lchown(path, None, Some(group))?;
    }
    if about.is_symlink() {
        return Ok(());
    }
    let mode = about.permissions().mode();
    let wanted = mode | if about.is_dir() { 0o2770 } else { 0o660 };
    if mode != wanted {
        chmod(path, wanted & 0o7777)?;
    }
    if about.is_dir() {
        for entry in fs::read_dir(path)? {
            give_to(&entry?.path(), group)?;
        }
    }
    Ok(())
}

/// Removes what is in the directory of a volume. Nothing is removed while it is mounted somewhere, or anything in it.
pub fn empty(path: &Path) -> Result<(), Why> {
    if fs::symlink_metadata(path).is_err_and(|e| e.kind() == io::ErrorKind::NotFound) {
        return Ok(());
    }
    // What is mounted elsewhere is known by its path within its file system, which ends alike.
    let shows = |root: &Path| path.file_name().is_some() && root.file_name() == path.file_name();
    let table = mount_table().map_err(|e| told(path, &e))?;
    if let Some((_, at)) = table.iter().find(|(root, at)| at.starts_with(path) || shows(root)) {
        return Err(format!("{} is still mounted at {}", path.display(), at.display()));
    }
    let remove = |entry: io::Result<fs::DirEntry>| -> io::Result<()> {
        let entry = entry?;
        if entry.file_type()?.is_dir() { fs::remove_dir_all(entry.path()) } else { fs::remove_file(entry.path()) }
    };
    fs::read_dir(path).and_then(|mut all| all.try_for_each(remove)).map_err(|e| told(path, &e))
}

/// Removes the directory of a volume, which has been emptied.
pub fn remove(path: &Path) -> Result<(), Why> {
    match fs::remove_dir(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed.map_err(|e| told(path, &e)),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::super::volumes::tests::scratch;
    use super::{MetadataExt, PermissionsExt, chmod, empty, fs, give_to, remove};

    #[test]
    fn a_group_may_write_and_links_are_not_followed() {
        let dir = scratch("group");
        let (volume, outside) = (dir.join("volume"), dir.join("outside"));
        fs::create_dir_all(volume.join("in")).unwrap();
        for file in [&outside, &volume.join("in/file")] {
            fs::write(file, "").unwrap();
            chmod(file, 0o600).unwrap();
        }
        symlink(&outside, volume.join("link")).unwrap();
        // Everybody is in a group of their own.
        let own = fs::metadata(&volume).unwrap().gid();
        give_to(&volume, own).unwrap();
        let mode = |path: &std::path::Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
        assert_eq!(mode(&volume.join("in")) & 0o2770, 0o2770);
        assert_eq!((mode(&volume.join("in/file")), mode(&outside)), (0o660, 0o600));
    }

    #[test]
    fn a_directory_is_emptied_and_removed() {
        let dir = scratch("emptied");
        let (volume, outside) = (dir.join("pvc-1"), dir.join("outside"));
        fs::create_dir_all(volume.join("a/b")).unwrap();
        fs::create_dir_all(&outside).unwrap();
        fs::write(outside.join("kept"), "").unwrap();
        fs::write(volume.join("a/file"), "").unwrap();
        symlink(&outside, volume.join("link")).unwrap();
        assert!(remove(&volume).is_err(), "it has something inside");
        empty(&volume).unwrap();
        assert_eq!(fs::read_dir(&volume).unwrap().count(), 0);
        assert!(outside.join("kept").exists());
        remove(&volume).unwrap();
        assert_eq!((empty(&volume), remove(&volume)), (Ok(()), Ok(())), "it is gone already");
    }
}
