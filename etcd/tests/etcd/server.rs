//! An etcd of a test's own: one member on free ports of the loopback interface.

use std::cell::RefCell;
use std::fs::{self, File};
use std::io::Write;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// Set where CI must not skip these tests.
const REQUIRED: &str = "SKEG_REQUIRE_ETCD";
/// Ten milliseconds, over and over: an etcd on a busy machine takes its time to start.
const TRIES: u32 = 6000;
/// A directory in memory, where there is one: etcd waits for its disk at every write, and wants 128 MiB of it at once.
const MEMORY: &str = "/dev/shm";

/// Where a member is: its address, and what its command line begins with that it runs there.
#[derive(Clone, Debug)]
pub struct Place {
    /// The address of its clients and its peers.
    pub ip: String,
    /// A command that runs another; empty on this host.
    pub within: Vec<String>,
}

impl Place {
    fn here() -> Place {
        Place { ip: "127.0.0.1".to_owned(), within: Vec::new() }
    }

    /// A command that runs there.
    pub fn command(&self, program: &str) -> Command {
        let mut words = self.within.iter().map(String::as_str).chain([program]);
        let mut command = Command::new(words.next().expect("there is the program at least"));
        command.args(words);
        command
    }
}

/// A running etcd. It is killed, and its data removed, when it is dropped.
pub struct Server {
    child: RefCell<Child>,
    dir: PathBuf,
    /// `http` or `https`, for its clients.
    scheme: &'static str,
    place: Place,
    ports: [u16; 2],
    more: Vec<String>,
}

impl Server {
    /// Starts an etcd; `None`, with a word about it, if there is none and that is allowed.
    pub fn start() -> Option<Server> {
        Server::with(&[])
    }

    /// Starts an etcd with more arguments.
    pub fn with(more: &[&str]) -> Option<Server> {
        Server::spawn("http", more)
    }

    /// Starts an etcd whose clients come over TLS, with the arguments that it needs for that.
    #[allow(dead_code, reason = "not every test that includes this file uses TLS")]
    pub fn over_tls(more: &[&str]) -> Option<Server> {
        Server::spawn("https", more)
    }

    /// Starts the members of one etcd.
    #[allow(dead_code, reason = "not every test that includes this file needs several")]
    pub fn members(count: usize) -> Option<Vec<Server>> {
        let ports = free_ports(2 * count);
        Server::members_at(ports.chunks(2).map(|pair| (Place::here(), [pair[0], pair[1]])).collect())
    }

    /// Starts the members of one etcd, each at its place and at these ports for its clients and its peers.
    #[allow(dead_code, reason = "not every test that includes this file needs several")]
    pub fn members_at(places: Vec<(Place, [u16; 2])>) -> Option<Vec<Server>> {
        let peers = places.iter().enumerate().map(|(n, (at, [_, peer]))| format!("m{n}=http://{}:{peer}", at.ip));
        let peers: Vec<String> = peers.collect();
        let start = |(n, (place, ports)): (usize, (Place, [u16; 2]))| {
            // Of a flag that is given twice, the last counts. Members wait for each other's heartbeats.
            let more = ["--name", &format!("m{n}"), "--initial-cluster", &peers.join(",")];
            let times = ["--heartbeat-interval", "100", "--election-timeout", "1000"];
            Server::spawn_at("http", place, ports, &[more, times].concat())
        };
        places.into_iter().enumerate().map(start).collect()
    }

    fn spawn(scheme: &'static str, more: &[&str]) -> Option<Server> {
        let ports = free_ports(2);
        Server::spawn_at(scheme, Place::here(), [ports[0], ports[1]], more)
    }

    fn spawn_at(scheme: &'static str, place: Place, ports: [u16; 2], more: &[&str]) -> Option<Server> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let memory = Path::new(MEMORY);
        let parent = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
        let dir = parent.join(format!("skeg-etcd-{}-{count}", std::process::id()));
        fs::create_dir_all(&dir).expect("the directory for temporary files can be written");
        let more: Vec<String> = more.iter().map(|arg| (*arg).to_owned()).collect();
        match spawn(&dir, scheme, &place, ports, &more) {
            Ok(child) => Some(Server { child: RefCell::new(child), dir, scheme, place, ports, more }),
            Err(e) if std::env::var_os(REQUIRED).is_some() => {
                panic!("etcd cannot be started: {e}; install it (apt-get install etcd-server), or unset {REQUIRED}")
            }
            Err(e) => {
                // Not by `eprintln!`, which the test harness swallows where a test passes.
                let line = format!("SKIPPED, for etcd cannot be started: {e} (apt-get install etcd-server)\n");
                std::io::stderr().write_all(line.as_bytes()).expect("standard error can be written");
                None
            }
        }
    }

    /// The URL of its clients.
    pub fn url(&self) -> String {
        format!("{}://{}:{}", self.scheme, self.place.ip, self.ports[0])
    }

    /// Kills it as `kill -9` does.
    pub fn kill(&mut self) {
        let child = self.child.get_mut();
        child.kill().expect("it is a child of this process");
        child.wait().expect("it is a child of this process");
    }

    /// Starts it again with the data that it had.
    pub fn restart(&mut self) {
        let child =
            spawn(&self.dir, self.scheme, &self.place, self.ports, &self.more).expect("it could be started before");
        self.child = RefCell::new(child);
    }

    /// Writes a backup of all that it holds to a file.
    #[allow(dead_code, reason = "not every test that includes this file makes backups")]
    pub fn save(&self, file: &Path) {
        etcdctl(Command::new("etcdctl").args(["--endpoints", &self.url(), "snapshot", "save"]).arg(file));
    }

    /// Starts it again with what a backup holds, and nothing else.
    #[allow(dead_code, reason = "not every test that includes this file makes backups")]
    pub fn restore(&mut self, file: &Path) {
        self.kill();
        let data = self.dir.join("data");
        fs::remove_dir_all(&data).expect("it is ours");
        let peer = format!("http://127.0.0.1:{}", self.ports[1]);
        let mut command = Command::new("etcdctl");
        command.args(["snapshot", "restore"]).arg(file).arg("--data-dir").arg(&data);
        command.args(["--name", "test", "--initial-cluster", &format!("test={peer}")]);
        etcdctl(command.args(["--initial-advertise-peer-urls", &peer]));
        self.restart();
    }

    /// Calls `open` until it succeeds: an etcd that was just started takes a moment.
    ///
    /// # Panics
    ///
    /// If etcd ends or takes too long, with its last words.
    pub fn until_ready<T>(&self, mut open: impl FnMut() -> Result<T, String>) -> T {
        let mut last = String::new();
        for _ in 0..TRIES {
            match open() {
                Ok(opened) => return opened,
                Err(why) => last = why,
            }
            if let Some(status) = self.child.borrow_mut().try_wait().expect("it is a child of this process") {
                panic!("etcd ended, {status}:\n{}", self.last_words());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("etcd does not become ready: {last}\n{}", self.last_words())
    }

    fn last_words(&self) -> String {
        let log = fs::read_to_string(log(&self.dir)).unwrap_or_else(|e| format!("its log cannot be read: {e}"));
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }
}

/// Runs etcdctl, which must succeed.
fn etcdctl(command: &mut Command) {
    let done = command.env("ETCDCTL_API", "3").output().expect("etcdctl is installed (apt-get install etcd-client)");
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
}

/// Free ports of the loopback interface.
pub fn free_ports(count: usize) -> Vec<u16> {
    // All are open at once, so that they differ.
    let open: Vec<TcpListener> =
        (0..count).map(|_| TcpListener::bind("127.0.0.1:0").expect("a port is free")).collect();
    open.iter().map(|listener| listener.local_addr().expect("it is bound").port()).collect()
}

/// The file with all that it says.
fn log(dir: &Path) -> PathBuf {
    dir.join("log")
}

fn spawn(dir: &Path, scheme: &str, place: &Place, [client, peer]: [u16; 2], more: &[String]) -> std::io::Result<Child> {
    let (client, peer) = (format!("{scheme}://{}:{client}", place.ip), format!("http://{}:{peer}", place.ip));
    let log = File::options().create(true).append(true).open(log(dir))?;
    place
        .command("etcd")
        .args(["--name", "test", "--data-dir"])
        .arg(dir.join("data"))
        .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
        .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
        .args(["--initial-cluster", &format!("test={peer}")])
        // It need not wait for other members before it leads.
        .args(["--heartbeat-interval", "20", "--election-timeout", "200"])
        .args(more)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have been killed by the test.
        let child = self.child.get_mut();
        let _ = child.kill();
        let _ = child.wait();
        let _ = fs::remove_dir_all(&self.dir);
    }
}
