//! The files of a container, in memory.

use std::collections::BTreeMap;

/// Maximum bytes of all files of a container.
const MAX_BYTES: usize = 64 << 20;
/// Maximum number of files and directories of a container.
const MAX_ENTRIES: usize = 10_000;

/// Why something cannot be done with a file, in the words of `strerror`.
pub type Why = &'static str;

/// There is no such file.
pub const NOT_FOUND: Why = "No such file or directory";
const IS_DIRECTORY: Why = "Is a directory";
const NOT_DIRECTORY: Why = "Not a directory";
const FULL: Why = "No space left on device";

/// A file or a directory.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Entry {
    /// A directory.
    Directory,
    /// A file and its content.
    File(Vec<u8>),
}

/// A tree of files. Paths are absolute and without `.` and `..`, as [`absolute`] makes them.
#[derive(Clone, Debug)]
pub struct Files {
    entries: BTreeMap<String, Entry>,
    bytes: usize,
}

/// An absolute path, from one that may be relative to `directory`.
pub fn absolute(directory: &str, path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    let from = if path.starts_with('/') { "" } else { directory };
    for part in from.split('/').chain(path.split('/')) {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

fn parent(path: &str) -> &str {
    match path.rfind('/') {
        None | Some(0) => "/",
        Some(at) => &path[..at],
    }
}

impl Files {
    /// The files of a container that has just started.
    pub fn new(hostname: &str) -> Files {
        let mut files = Files { entries: BTreeMap::new(), bytes: 0 };
        files.entries.insert("/".to_owned(), Entry::Directory);
        for directory in ["/bin", "/dev", "/etc", "/home", "/proc", "/root", "/tmp", "/usr", "/var"] {
            files.entries.insert(directory.to_owned(), Entry::Directory);
        }
        let hosts = format!("127.0.0.1\tlocalhost\n::1\tlocalhost\n127.0.1.1\t{hostname}\n");
        for (path, content) in [("/etc/hostname", format!("{hostname}\n")), ("/etc/hosts", hosts)] {
            files.write(path, content.as_bytes(), false).expect("the directory is there and has room");
        }
        files
    }

    /// A file or directory.
    pub fn get(&self, path: &str) -> Option<&Entry> {
        self.entries.get(path)
    }

    /// Whether a path is a directory.
    pub fn is_directory(&self, path: &str) -> bool {
        matches!(self.get(path), Some(Entry::Directory))
    }

    /// The content of a file.
    pub fn read(&self, path: &str) -> Result<&[u8], Why> {
        match self.get(path) {
            Some(Entry::File(bytes)) => Ok(bytes),
            Some(Entry::Directory) => Err(IS_DIRECTORY),
            None => Err(NOT_FOUND),
        }
    }

    /// Writes a file anew, or appends to it.
    pub fn write(&mut self, path: &str, bytes: &[u8], append: bool) -> Result<(), Why> {
        match self.get(parent(path)) {
            Some(Entry::Directory) => {}
            Some(Entry::File(_)) => return Err(NOT_DIRECTORY),
            None => return Err(NOT_FOUND),
        }
        let old = match self.get(path) {
            Some(Entry::Directory) => return Err(IS_DIRECTORY),
            Some(Entry::File(old)) => Some(old.len()),
            None => None,
        };
        let freed = if append { 0 } else { old.unwrap_or(0) };
        let full = self.bytes - freed + bytes.len() > MAX_BYTES || (old.is_none() && self.entries.len() >= MAX_ENTRIES);
        if full {
            return Err(FULL);
        }
        self.bytes = self.bytes - freed + bytes.len();
        let entry = self.entries.entry(path.to_owned()).or_insert_with(|| Entry::File(Vec::new()));
        let Entry::File(content) = entry else { unreachable!("directories are refused above") };
        if !append {
            content.clear();
        }
        content.extend_from_slice(bytes);
        Ok(())
    }

    /// Makes a directory; with `parents`, those above it too, and it may exist.
    pub fn make_directory(&mut self, path: &str, parents: bool) -> Result<(), Why> {
        match self.get(path) {
            Some(Entry::Directory) if parents => return Ok(()),
            Some(_) => return Err("File exists"),
            None => {}
        }
        match self.get(parent(path)) {
            Some(Entry::Directory) => {}
            Some(Entry::File(_)) => return Err(NOT_DIRECTORY),
            None if parents => self.make_directory(parent(path), true)?,
            None => return Err(NOT_FOUND),
        }
        if self.entries.len() >= MAX_ENTRIES {
            return Err(FULL);
        }
        self.entries.insert(path.to_owned(), Entry::Directory);
        Ok(())
    }

    /// Removes a file; with `recursive`, a directory with all that is in it.
    pub fn remove(&mut self, path: &str, recursive: bool) -> Result<(), Why> {
        match self.get(path) {
            None => return Err(NOT_FOUND),
            Some(Entry::Directory) if !recursive => return Err(IS_DIRECTORY),
            Some(Entry::Directory) if path == "/" => return Err("Device or resource busy"),
            Some(_) => {}
        }
        let gone: Vec<String> = self.below(path).map(|(path, _)| path.to_owned()).collect();
        for path in gone.iter().map(String::as_str).chain([path]) {
            if let Some(Entry::File(bytes)) = self.entries.remove(path) {
                self.bytes -= bytes.len();
            }
        }
        Ok(())
    }

    /// All that is in a directory and below it, in the order of the paths.
    pub fn below<'a>(&'a self, directory: &'a str) -> impl Iterator<Item = (&'a str, &'a Entry)> {
        let prefix = if directory == "/" { "/".to_owned() } else { format!("{directory}/") };
        let from = prefix.clone();
        let after = self.entries.range(from..).map(|(path, entry)| (path.as_str(), entry));
        after.take_while(move |(path, _)| path.starts_with(&prefix)).filter(|(path, _)| *path != "/")
    }

    /// The names in a directory.
    pub fn list<'a>(&'a self, directory: &'a str) -> impl Iterator<Item = (&'a str, &'a Entry)> {
        let from = if directory == "/" { 1 } else { directory.len() + 1 };
        let inside = self.below(directory).map(move |(path, entry)| (&path[from..], entry));
        inside.filter(|(name, _)| !name.contains('/'))
    }
}

#[cfg(test)]
mod tests {
    use super::{FULL, Files, IS_DIRECTORY, MAX_BYTES, NOT_DIRECTORY, NOT_FOUND, absolute};

    #[test]
    fn paths_become_absolute() {
        let check = |directory: &str, path: &str, want: &str| assert_eq!(absolute(directory, path), want);
        check("/", "tmp", "/tmp");
        check("/a/b", "../c/./d/", "/a/c/d");
        check("/a", "/x//y", "/x/y");
        check("/a", "../../../etc/passwd", "/etc/passwd");
        check("/a", "", "/a");
    }

    #[test]
    fn files_are_written_and_removed() {
        let mut files = Files::new("web");
        assert_eq!(files.read("/etc/hostname"), Ok(&b"web\n"[..]));
        assert_eq!(files.write("/etc/hosts", b"", false), Ok(()), "what was there in the beginning counts too");
        assert_eq!(files.write("/tmp/a", b"one", false), Ok(()));
        assert_eq!(files.write("/tmp/a", b"two", true), Ok(()));
        assert_eq!(files.read("/tmp/a"), Ok(&b"onetwo"[..]));
        assert_eq!(files.write("/tmp/a/b", b"", false), Err(NOT_DIRECTORY));
        assert_eq!(files.write("/none/b", b"", false), Err(NOT_FOUND));
        assert_eq!(files.write("/tmp", b"", false), Err(IS_DIRECTORY));
        assert_eq!(files.make_directory("/tmp/x/y", false), Err(NOT_FOUND));
        assert_eq!(files.make_directory("/tmp/x/y", true), Ok(()));
        assert_eq!(files.write("/tmp/x/y/z", b"deep", false), Ok(()));
        assert_eq!(files.list("/tmp").map(|(name, _)| name).collect::<Vec<_>>(), ["a", "x"]);
        assert_eq!(files.remove("/tmp/x", false), Err(IS_DIRECTORY));
        assert_eq!(files.remove("/tmp/x", true), Ok(()));
        assert_eq!(files.list("/tmp").map(|(name, _)| name).collect::<Vec<_>>(), ["a"]);
        assert!(files.list("/").any(|(name, _)| name == "etc"));
    }

    #[test]
    fn a_container_can_be_full() {
        let mut files = Files::new("web");
        let big = vec![0; MAX_BYTES / 2 + 1];
        assert_eq!(files.write("/tmp/a", &big, false), Ok(()));
        assert_eq!(files.write("/tmp/b", &big, false), Err(FULL));
        assert_eq!(files.write("/tmp/a", &big, true), Err(FULL));
        assert_eq!(files.write("/tmp/a", &big, false), Ok(()));
        assert_eq!(files.remove("/tmp/a", false), Ok(()));
        assert_eq!(files.write("/tmp/b", &big, false), Ok(()));
    }
}
