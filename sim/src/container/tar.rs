//! Tar archives, as far as `kubectl cp` needs them: ustar with files and directories, and the long names of GNU and
//! pax.

use super::files::{Entry, Files, Why, absolute};

const BLOCK: usize = 512;

fn octal(field: &[u8]) -> Option<usize> {
    let text: String = field.iter().take_while(|b| **b != 0).map(|b| *b as char).collect();
    usize::from_str_radix(text.trim(), 8).ok()
}

fn text(field: &[u8]) -> String {
    let end = field.iter().position(|b| *b == 0).unwrap_or(field.len());
    String::from_utf8_lossy(&field[..end]).into_owned()
}

/// The `path` record of a pax header.
fn pax_path(mut records: &[u8]) -> Option<String> {
    while let Some(space) = records.iter().position(|b| *b == b' ') {
        let length: usize = std::str::from_utf8(&records[..space]).ok()?.parse().ok()?;
        let (record, rest) = records.split_at_checked(length)?;
        let record = record.get(space + 1..)?;
        if let Some(path) = record.strip_prefix(b"path=") {
            return Some(String::from_utf8_lossy(path).trim_end_matches('\n').to_owned());
        }
        records = rest;
    }
    None
}

/// Unpacks an archive into a directory. Returns what went wrong, by name.
pub fn unpack(mut archive: &[u8], directory: &str, files: &mut Files) -> Result<(), String> {
    let mut long_name: Option<String> = None;
    while archive.len() >= BLOCK {
        let (head, rest) = archive.split_at(BLOCK);
        if head.iter().all(|b| *b == 0) {
            return Ok(());
        }
        if !checksum_holds(head) {
            return Err("tar: This does not look like a tar archive".to_owned());
        }
        let size = octal(&head[124..136]).ok_or("tar: invalid tar header")?;
        let content = rest.get(..size).ok_or("tar: Unexpected EOF in archive")?;
        archive = rest.get(size.next_multiple_of(BLOCK)..).unwrap_or_default();
        let (name, prefix) = (text(&head[..100]), text(&head[345..500]));
        let name = match long_name.take() {
            Some(name) => name,
            None if prefix.is_empty() || &head[257..262] != b"ustar" => name,
            None => format!("{prefix}/{name}"),
        };
        match head[156] {
            b'x' => long_name = pax_path(content),
            b'L' => long_name = Some(text(content)),
            b'g' => {}
            kind => extract(kind, &name, content, directory, files).map_err(|why| format!("tar: {name}: {why}"))?,
        }
    }
    if archive.is_empty() { Ok(()) } else { Err("tar: Unexpected EOF in archive".to_owned()) }
}

/// Names are taken relative to the directory, also those that begin with `/` or climb with `..`.
fn extract(kind: u8, name: &str, content: &[u8], directory: &str, files: &mut Files) -> Result<(), Why> {
    let path = absolute(directory, absolute("/", name).trim_start_matches('/'));
    match kind {
        b'5' => files.make_directory(&path, true),
        0 | b'0' | b'7' => {
            if let Some((above, _)) = path.rsplit_once('/').filter(|(above, _)| !above.is_empty()) {
                files.make_directory(above, true)?;
            }
            files.write(&path, content, false)
        }
        // Links and devices are not simulated.
        _ => Ok(()),
    }
}

fn sum(head: &[u8]) -> usize {
    let counted = |(at, byte): (usize, &u8)| usize::from(if (148..156).contains(&at) { b' ' } else { *byte });
    head.iter().enumerate().map(counted).sum()
}

fn checksum_holds(head: &[u8]) -> bool {
    octal(&head[148..156]) == Some(sum(head))
}

fn header(name: &str, size: usize, kind: u8, mode: &str) -> [u8; BLOCK] {
    let mut head = [0; BLOCK];
    let mut set = |at: usize, bytes: &[u8]| head[at..at + bytes.len()].copy_from_slice(bytes);
    set(0, &name.as_bytes()[..name.len().min(100)]);
    set(100, mode.as_bytes());
    set(108, b"0000000\0");
    set(116, b"0000000\0");
    set(124, format!("{size:011o}\0").as_bytes());
    set(136, b"00000000000\0");
    set(156, &[kind]);
    set(257, b"ustar\x0000");
    let sum = sum(&head);
    head[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    head
}

fn append(name: &str, entry: &Entry, archive: &mut Vec<u8>) {
    let (kind, mode, content) = match entry {
        Entry::Directory => (b'5', "0000755\0", &[][..]),
        Entry::File(content) => (b'0', "0000644\0", content.as_slice()),
    };
    if name.len() > 100 {
        archive.extend_from_slice(&header("././@LongLink", name.len() + 1, b'L', "0000644\0"));
        pad(&[name.as_bytes(), b"\0"].concat(), archive);
    }
    archive.extend_from_slice(&header(name, content.len(), kind, mode));
    pad(content, archive);
}

fn pad(content: &[u8], archive: &mut Vec<u8>) {
    archive.extend_from_slice(content);
    archive.resize(archive.len().next_multiple_of(BLOCK), 0);
}

/// Appends a file, or a directory with all that is in it, to an archive, under `name`.
pub fn pack(files: &Files, path: &str, name: &str, archive: &mut Vec<u8>) -> Result<(), Why> {
    let entry = files.get(path).ok_or(super::files::NOT_FOUND)?;
    let directory = matches!(entry, Entry::Directory);
    append(&if directory { format!("{name}/") } else { name.to_owned() }, entry, archive);
    for (inner, entry) in files.below(path).filter(|_| directory) {
        let slash = if *entry == Entry::Directory { "/" } else { "" };
        append(&format!("{name}{}{slash}", &inner[path.len()..]), entry, archive);
    }
    Ok(())
}

/// Appends the end of an archive.
pub fn finish(archive: &mut Vec<u8>) {
    archive.resize(archive.len() + 2 * BLOCK, 0);
}

#[cfg(test)]
mod tests {
    use super::{Files, finish, header, pack, pax_path, unpack};

    #[test]
    fn what_is_packed_is_unpacked() {
        let mut files = Files::new("a");
        let long = "d".repeat(120);
        files.make_directory(&format!("/tmp/in/{long}"), true).unwrap();
        files.write(&format!("/tmp/in/{long}/deep"), &[7; 1000], false).unwrap();
        files.write("/tmp/in/empty", b"", false).unwrap();
        let mut archive = Vec::new();
        pack(&files, "/tmp/in", "in", &mut archive).unwrap();
        finish(&mut archive);
        let mut other = Files::new("b");
        unpack(&archive, "/home/x", &mut other).unwrap();
        assert_eq!(other.read("/home/x/in/empty"), Ok(&b""[..]));
        assert_eq!(other.read(&format!("/home/x/in/{long}/deep")), Ok(&[7; 1000][..]));
        assert!(unpack(&archive[..700], "/", &mut other).unwrap_err().contains("Unexpected EOF"));
    }

    #[test]
    fn names_cannot_leave_the_directory() {
        let mut files = Files::new("a");
        for name in ["../../etc/hostname", "/etc/hostname"] {
            let mut archive = header(name, 0, b'0', "0000644\0").to_vec();
            finish(&mut archive);
            unpack(&archive, "/tmp", &mut files).unwrap();
        }
        assert_eq!(files.read("/etc/hostname"), Ok(&b"a\n"[..]));
        assert_eq!(files.read("/tmp/etc/hostname"), Ok(&b""[..]));
        assert!(unpack(&[1; 512], "/tmp", &mut files).is_err());
    }

    #[test]
    fn pax_records_are_read() {
        assert_eq!(pax_path(b"11 mtime=1\n15 path=a/b/cd\n"), Some("a/b/cd".to_owned()));
        assert_eq!(pax_path(b"99 path=x\n"), None);
        assert_eq!(pax_path(b"x"), None);
    }
}
