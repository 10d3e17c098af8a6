//! The image of the container that holds a pod's namespaces. It is made here and never pulled: one static program of
//! 256 bytes.

use hyper::Method;
use hyper::body::Bytes;

use super::engine::{Engine, Failure, query};

/// The image's name.
pub const IMAGE: &str = "skeg-pause:1";

/// Where the program is loaded.
const BASE: u32 = 0x40_0000;
/// Length of the headers of an ELF file with one segment.
const HEADERS: u32 = 64 + 56;
/// Where the two `struct sigaction` are in the file.
const ACTIONS: u32 = 0xc0;
/// Length of the file.
const LENGTH: u64 = 0x100;

/// The program, for x86-64: it ignores SIGCHLD, so that the kernel reaps the orphans of a pod that shares its process
/// namespace; ends at SIGTERM, which the first process of a namespace otherwise ignores; and waits.
fn program() -> Vec<u8> {
    // rt_sigaction(signal, action, NULL, 8)
    let sigaction = |signal: u8, action: u32| {
        let mut code = vec![0xb8, 13, 0, 0, 0, 0xbf, signal, 0, 0, 0, 0xbe];
        code.extend(action.to_le_bytes());
        code.extend([0x31, 0xd2, 0x41, 0xba, 8, 0, 0, 0, 0x0f, 0x05]);
        code
    };
    let mut code = sigaction(17, BASE + ACTIONS);
    code.extend(sigaction(15, BASE + ACTIONS + 32));
    // Again and again: pause()
    code.extend([0xb8, 34, 0, 0, 0, 0x0f, 0x05, 0xeb, 0xf7]);
    let exit = u64::from(BASE + HEADERS) + code.len() as u64;
    // exit_group(0)
    code.extend([0x31, 0xff, 0xb8, 231, 0, 0, 0, 0x0f, 0x05]);

    let mut file = vec![0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let (half, word, long) = (u16::to_le_bytes, u32::to_le_bytes, u64::to_le_bytes);
    file.extend([half(2), half(62)].concat());
    file.extend(word(1));
    file.extend([long(u64::from(BASE + HEADERS)), long(64), long(0)].concat());
    file.extend(word(0));
    file.extend([half(64), half(56), half(1), half(0), half(0), half(0)].concat());
    // One segment with everything, readable and executable.
    file.extend([word(1), word(5)].concat());
    file.extend(
        [long(0), long(u64::from(BASE)), long(u64::from(BASE)), long(LENGTH), long(LENGTH), long(4096)].concat(),
    );
    file.extend(code);
    file.resize(ACTIONS as usize, 0);
    // SIG_IGN.
    file.extend([long(1), long(0), long(0), long(0)].concat());
    // The handler, SA_RESTORER and the restorer, without which the kernel takes no handler.
    file.extend([long(exit), long(0x0400_0000), long(exit), long(0)].concat());
    file
}

/// A tar archive with one executable file.
fn archive(name: &str, content: &[u8]) -> Vec<u8> {
    let mut header = [0_u8; 512];
    let mut put = |at: usize, text: &str| header[at..at + text.len()].copy_from_slice(text.as_bytes());
    put(0, name);
    put(100, "0000755\0");
    put(108, "0000000\0");
    put(116, "0000000\0");
    put(124, &format!("{:011o}\0", content.len()));
    put(136, "00000000000\0");
    put(148, "        ");
    put(156, "0");
    put(257, "ustar\x0000");
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    let mut archive = header.to_vec();
    archive.extend(content);
    archive.resize(archive.len().next_multiple_of(512) + 1024, 0);
    archive
}

/// Makes the image if it is not there.
pub async fn provide(engine: &Engine) -> Result<(), Failure> {
    match engine.get(&format!("/images/{IMAGE}/json")).await {
        Err(e) if e.is_missing() => {}
        found => return found.map(drop),
    }
    let (name, tag) = IMAGE.split_once(':').expect("it has a tag");
    let changes = r#"ENTRYPOINT ["/pause"]"#;
    let query = query(&[("fromSrc", "-"), ("repo", name), ("tag", tag), ("changes", changes)]);
    let archive = Bytes::from(archive("pause", &program()));
    let body = engine.stream(Method::POST, &format!("/images/create?{query}"), "application/x-tar", archive).await?;
    super::images::finish(body).await.map_err(|why| Failure::Refused(500, why))
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_program_is_as_long_as_its_header_says() {
        let program = super::program();
        assert_eq!(program.len() as u64, super::LENGTH);
        assert_eq!(super::archive("pause", &program).len(), 512 + 512 + 1024);
    }

    /// It is run as the first process of a container by the tests of Docker; here, as an ordinary process.
    #[test]
    #[cfg(all(target_os = "linux", target_arch = "x86_64"))]
    fn the_program_waits_until_it_is_asked_to_end() {
        use std::os::unix::fs::PermissionsExt;
        use std::time::Duration;
        let path = std::env::temp_dir().join(format!("skeg-pause-{}", std::process::id()));
        std::fs::write(&path, super::program()).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        let mut child = std::process::Command::new(&path).spawn().unwrap();
        std::fs::remove_file(&path).unwrap();
        std::thread::sleep(Duration::from_millis(200));
        assert!(child.try_wait().unwrap().is_none(), "it waits");
        let pid = rustix::process::Pid::from_child(&child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(0));
    }
}
