//! Clients that look into containers: logs, exec, attach, connections to ports, and what containers use.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use skeg_core::Wall;
use skeg_sim::container::process::Output;
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf, split};
use tokio::net::TcpStream;
use tokio::runtime::Handle;
use tokio::sync::mpsc;

use super::engine::{Engine, Failure, query};
use super::logs::{Frames, Log};
use super::{Driver, listing, spec};
use crate::up::streams::visit::{LogRead, Place, Visit, VisitId, Visited};
use crate::up::usage::{Usage, Used};

/// Numbers of visits to real containers begin here, so that they are told from those to simulated ones.
pub const FIRST: VisitId = 1 << 63;
/// How many lines of a followed log wait for its client.
const FOLLOWED: usize = 256;
/// How many bytes of a process's output are read at once.
const PIECE: usize = 32 << 10;

/// What a client does to its process.
#[derive(Debug)]
enum Deed {
    Write(Vec<u8>),
    End,
    Resize(u16, u16),
}

/// All visits that go on.
pub struct Visits {
    driver: Arc<Driver>,
    next: VisitId,
    deeds: BTreeMap<VisitId, mpsc::UnboundedSender<Deed>>,
}

/// The process that a client talks to.
enum Process {
    /// Of an exec, with its id.
    Exec(String),
    /// The container's own, with the container's id.
    Own(String),
}

impl Visits {
    /// No visits yet.
    pub fn new(driver: Arc<Driver>) -> Visits {
        Visits { driver, next: FIRST, deeds: BTreeMap::new() }
    }

    /// Takes a visit.
    pub fn handle(&mut self, visit: Visit, threads: &Handle) {
        let driver = Arc::clone(&self.driver);
        // Errors of replies mean that the client has gone, which is fine.
        match visit {
            Visit::Log { id, follow, tail, since, reply, .. } => drop(threads.spawn(async move {
                let _ = reply.send(read_log(&driver.engine, &id, follow, tail, since).await);
            })),
            Visit::Exec { place, argv, tty, reply, .. } => {
                let (id, deeds) = self.begin();
                threads.spawn(async move {
                    match exec(&driver, &place, argv, tty).await {
                        Ok((process, streams)) => {
                            let (says, heard) = mpsc::unbounded_channel();
                            if reply.send(Ok(Visited { id, heard })).is_ok() {
                                carry(&driver.engine, process, tty, streams, deeds, says).await;
                            }
                        }
                        Err(why) => drop(reply.send(Err(why))),
                    }
                });
            }
            Visit::Attach { place, stdin, reply } => {
                let (id, deeds) = self.begin();
                threads.spawn(async move {
                    match attach(&driver, &place, stdin).await {
                        Ok((process, tty, streams)) => {
                            let (says, heard) = mpsc::unbounded_channel();
                            if reply.send(Ok(Visited { id, heard })).is_ok() {
                                carry(&driver.engine, process, tty, streams, deeds, says).await;
                            }
                        }
                        Err(why) => drop(reply.send(Err(why))),
                    }
                });
            }
            Visit::Input { visit, bytes } => self.tell(visit, bytes.map_or(Deed::End, Deed::Write)),
            Visit::Resize { visit, width, height } => self.tell(visit, Deed::Resize(width, height)),
            Visit::Leave { visit } => drop(self.deeds.remove(&visit)),
            Visit::Dial { place, port, reply } => drop(threads.spawn(async move {
                let _ = reply.send(Some(dial(&driver, &place, port).await));
            })),
            Visit::Usage { reply } => drop(threads.spawn(async move {
                let used = usage(&driver).await;
                let _ = reply.send(used.unwrap_or_else(|e| {
                    tracing::warn!("what containers use is not known: {e}");
                    Used { unknown: [driver.node.clone()].into(), ..Used::default() }
                }));
            })),
        }
    }

    fn begin(&mut self) -> (VisitId, mpsc::UnboundedReceiver<Deed>) {
        self.deeds.retain(|_, deeds| !deeds.is_closed());
        self.next += 1;
        let (sender, receiver) = mpsc::unbounded_channel();
        self.deeds.insert(self.next, sender);
        (self.next, receiver)
    }

    fn tell(&self, visit: VisitId, deed: Deed) {
        if let Some(deeds) = self.deeds.get(&visit) {
            // An error means that the process has ended.
            let _ = deeds.send(deed);
        }
    }
}

async fn read_log(
    engine: &Engine,
    id: &str,
    follow: bool,
    tail: Option<usize>,
    since: Option<Wall>,
) -> Option<LogRead> {
    let tail = tail.map(|tail| tail.to_string());
    let since = since.map(|at| format!("{}.{:06}", at.0.div_euclid(1_000_000), at.0.rem_euclid(1_000_000)));
    let (tail, since) = (tail.as_deref(), since.as_deref());
    if !follow {
        let lines = super::logs::read(engine, id, tail, since).await.ok()?;
        return Some(LogRead { lines, follows: None });
    }
    let mut log = Log::open(engine, id, true, tail, since).await.ok()?;
    let (sender, follows) = mpsc::channel(FOLLOWED);
    tokio::spawn(async move {
        loop {
            let lines = tokio::select! {
                lines = log.next() => lines,
                () = sender.closed() => return,
            };
            let Some(lines) = lines else { return };
            for line in lines {
                if sender.send(line).await.is_err() {
                    return;
                }
            }
        }
    });
    Some(LogRead { lines: Vec::new(), follows: Some(follows) })
}

/// The running container of a place.
async fn find(driver: &Driver, place: &Place) -> Result<String, String> {
    let filters = json!({"status": ["running"], "label": [
        format!("{}={}", spec::CLUSTER, driver.host.cluster), format!("{}=container", spec::TYPE),
        format!("{}={}", spec::POD_UID, place.pod_uid), format!("{}={}", spec::CONTAINER, place.container),
    ]});
    let path = format!("/containers/json?{}", query(&[("filters", &filters.to_string())]));
    let listed = driver.engine.get(&path).await.map_err(|e| e.to_string())?;
    let id = listed[0]["Id"].as_str().map(str::to_owned);
    id.ok_or_else(|| format!("container not found ({:?})", place.container))
}

type Streams = TokioIo<Upgraded>;

async fn exec(driver: &Driver, place: &Place, argv: Vec<String>, tty: bool) -> Result<(Process, Streams), String> {
    let container = find(driver, place).await?;
    let told = |e: Failure| e.to_string();
    let wanted = json!({"AttachStdin": true, "AttachStdout": true, "AttachStderr": !tty, "Tty": tty, "Cmd": argv});
    let made = driver.engine.post(&format!("/containers/{container}/exec"), Some(&wanted)).await.map_err(told)?;
    let id = made["Id"].as_str().unwrap_or_default().to_owned();
    let begin = json!({"Detach": false, "Tty": tty});
    let streams = driver.engine.upgrade(&format!("/exec/{id}/start"), &begin).await.map_err(told)?;
    Ok((Process::Exec(id), streams))
}

async fn attach(driver: &Driver, place: &Place, stdin: bool) -> Result<(Process, bool, Streams), String> {
    let container = find(driver, place).await?;
    let told = |e: Failure| e.to_string();
    let seen = driver.engine.get(&format!("/containers/{container}/json")).await.map_err(told)?;
    let stdin = if stdin { "1" } else { "0" };
    let query = query(&[("stream", "1"), ("stdin", stdin), ("stdout", "1"), ("stderr", "1")]);
    let path = format!("/containers/{container}/attach?{query}");
    let streams = driver.engine.upgrade(&path, &json!({})).await.map_err(told)?;
    Ok((Process::Own(container), seen["Config"]["Tty"] == true, streams))
}

/// Carries bytes between a process and its client, until the process ends or the client leaves.
async fn carry(
    engine: &Engine,
    process: Process,
    tty: bool,
    streams: Streams,
    deeds: mpsc::UnboundedReceiver<Deed>,
    says: mpsc::UnboundedSender<Output>,
) {
    let (output, input) = split(streams);
    tokio::select! {
        () = write(engine, &process, input, deeds) => return,
        () = read(output, tty, &says) => {}
    }
    let code = match &process {
        Process::Exec(id) => {
            let ended = engine.get(&format!("/exec/{id}/json")).await;
            ended.ok().and_then(|ended| i32::try_from(ended["ExitCode"].as_i64()?).ok()).unwrap_or(-1)
        }
        Process::Own(_) => 0,
    };
    // An error means that the client has gone.
    let _ = says.send(Output::Exit(code));
}

async fn read(mut output: ReadHalf<Streams>, tty: bool, says: &mpsc::UnboundedSender<Output>) {
    let (mut frames, mut buffer) = (Frames::new(tty), vec![0; PIECE]);
    while let Ok(length @ 1..) = output.read(&mut buffer).await {
        for (stderr, piece) in frames.take(&buffer[..length]) {
            let output = if stderr { Output::Stderr(piece) } else { Output::Stdout(piece) };
            if says.send(output).is_err() {
                return;
            }
        }
    }
}

/// Ends when the client has left.
async fn write(
    engine: &Engine,
    process: &Process,
    mut input: WriteHalf<Streams>,
    mut deeds: mpsc::UnboundedReceiver<Deed>,
) {
    while let Some(deed) = deeds.recv().await {
        // Errors mean that the process has ended, which its output tells.
        let _ = match deed {
            Deed::Write(bytes) => input.write_all(&bytes).await,
            Deed::End => input.shutdown().await,
            Deed::Resize(width, height) => {
                let of = match process {
                    Process::Exec(id) => format!("/exec/{id}"),
                    Process::Own(id) => format!("/containers/{id}"),
                };
                engine.post(&format!("{of}/resize?w={width}&h={height}"), None).await.map(drop).or(Ok(()))
            }
        };
    }
}

/// A connection to a port of a pod, made from within its network as the kubelet does.
async fn dial(driver: &Driver, place: &Place, port: u16) -> Result<TcpStream, String> {
    let about = |why: String| {
        format!(
            "error forwarding port {port} to pod {}, uid : failed to execute portforward in network namespace: failed \
             to connect to localhost:{port} inside namespace: {why}",
            place.pod_uid
        )
    };
    let filters = json!({"status": ["running"], "label": [
        format!("{}={}", spec::CLUSTER, driver.host.cluster), format!("{}=podsandbox", spec::TYPE),
        format!("{}={}", spec::POD_UID, place.pod_uid),
    ]});
    let path = format!("/containers/json?{}", query(&[("filters", &filters.to_string())]));
    let listed = driver.engine.get(&path).await.map_err(|e| about(e.to_string()))?;
    let id = listed[0]["Id"].as_str().ok_or_else(|| about("the pod has no sandbox".to_owned()))?;
    let seen = driver.engine.get(&format!("/containers/{id}/json")).await.map_err(|e| about(e.to_string()))?;
    let pid = seen["State"]["Pid"].as_i64().unwrap_or(0);
    let (sender, connected) = tokio::sync::oneshot::channel();
    // A thread of its own, for it does not come back from the pod's network. The socket stays in that network.
    let thread = std::thread::Builder::new().name("dial".to_owned());
    let spawned =
        thread.spawn(move || drop(sender.send(connect_within(Path::new(&format!("/proc/{pid}/ns/net")), port))));
    spawned.map_err(|e| about(e.to_string()))?;
    let connected = connected.await.map_err(|e| about(e.to_string()))?;
    let stream = connected.map_err(|e| {
        let text = e.to_string().to_lowercase();
        about(format!("dial tcp4 127.0.0.1:{port}: connect: {}", text.split(" (os").next().unwrap_or_default()))
    })?;
    stream.set_nonblocking(true).and_then(|()| TcpStream::from_std(stream)).map_err(|e| about(e.to_string()))
}

fn connect_within(network: &Path, port: u16) -> std::io::Result<std::net::TcpStream> {
    use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
    let network = std::fs::File::open(network)?;
    move_into_link_name_space(std::os::fd::AsFd::as_fd(&network), Some(LinkNameSpaceType::Network))?;
    let first = std::net::TcpStream::connect(("127.0.0.1", port));
    first.or_else(|e| std::net::TcpStream::connect(("::1", port)).map_err(|_| e))
}

/// What every running container uses, and this host.
async fn usage(driver: &Arc<Driver>) -> Result<Used, Failure> {
    let (busy, begun) = (busy(), Instant::now());
    let all = driver.all().await?;
    let running = all.into_iter().filter(|c| !c.is_sandbox && matches!(c.state, listing::State::Running(_)));
    let asked: Vec<_> = running
        .map(|found| {
            let driver = Arc::clone(driver);
            tokio::spawn(async move {
                let stats = driver.engine.get(&format!("/containers/{}/stats?stream=false", found.id)).await;
                (found, stats)
            })
        })
        .collect();
    let mut used = Used::default();
    for asked in asked {
        // One that has ended meanwhile uses nothing.
        let Ok((found, Ok(stats))) = asked.await else { continue };
        let (cpu_milli, memory_bytes) = measured(&stats);
        let (pod_uid, container) = (found.pod_uid, found.name);
        used.containers.push(Usage { node: driver.node.clone(), pod_uid, container, cpu_milli, memory_bytes });
    }
    // The kernel counts in hundredths of a second: a shorter look says little.
    tokio::time::sleep(Duration::from_millis(200).saturating_sub(begun.elapsed())).await;
    if let (Some(before), Some(after), Some(memory)) = (busy, self::busy(), working_set()) {
        let window = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        used.nodes.insert(driver.node.clone(), (after.saturating_sub(before) * 10_000 / window.max(1), memory));
    }
    Ok(used)
}

/// How long the processors of this host have been busy, in hundredths of a second (proc_stat(5)).
fn busy() -> Option<u64> {
    busy_of(&std::fs::read_to_string("/proc/stat").ok()?)
}

fn busy_of(stat: &str) -> Option<u64> {
    let times = stat.lines().next()?.strip_prefix("cpu ")?.split_whitespace().map(str::parse::<u64>);
    let times = times.collect::<Result<Vec<_>, _>>().ok()?;
    // user, nice, system, idle, iowait, irq, softirq, steal; guests are among the first two.
    let idle = times.get(3)? + times.get(4)?;
    Some(times.iter().take(8).sum::<u64>() - idle)
}

/// The memory of this host that could not be had for anything else, in bytes (proc_meminfo(5)).
fn working_set() -> Option<u64> {
    working_set_of(&std::fs::read_to_string("/proc/meminfo").ok()?)
}

fn working_set_of(meminfo: &str) -> Option<u64> {
    let kibibytes = |name: &str| {
        let line = meminfo.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        line.trim().strip_suffix(" kB")?.parse::<u64>().ok()
    };
    Some(kibibytes("MemTotal")?.saturating_sub(kibibytes("MemAvailable")?) << 10)
}

/// CPU in thousandths of a core, and the working set in bytes.
pub(super) fn measured(stats: &Value) -> (u64, u64) {
    let number = |pointer: &str| stats.pointer(pointer).and_then(Value::as_u64).unwrap_or(0);
    let time = |name: &str| {
        let time = serde_json::from_value::<skeg_core::object::Time>(stats[name].clone());
        time.map_or(Wall(0), |time| Wall::from_time(&time))
    };
    let busy = number("/cpu_stats/cpu_usage/total_usage").saturating_sub(number("/precpu_stats/cpu_usage/total_usage"));
    let window = u64::try_from(time("read").since(time("preread")).as_nanos()).unwrap_or(u64::MAX);
    // Control groups of version 1 and 2.
    let idle = number("/memory_stats/stats/total_inactive_file").max(number("/memory_stats/stats/inactive_file"));
    (busy.saturating_mul(1000) / window.max(1), number("/memory_stats/usage").saturating_sub(idle))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    #[test]
    fn a_hosts_use_is_what_the_kernel_counts() {
        assert_eq!(super::busy_of("cpu  10 1 5 1000 50 0 2 3 4 0\ncpu0 1 1 1 1 1\n"), Some(21));
        assert_eq!(super::working_set_of("MemTotal:  100 kB\nMemFree: 5 kB\nMemAvailable:   40 kB\n"), Some(60 << 10));
        assert!(super::busy_of("").is_none() && super::working_set_of("MemTotal: x").is_none());
        assert!(super::busy().is_some() && super::working_set().is_some());
    }

    #[test]
    fn use_is_measured_over_the_time_between_two_readings() {
        let stats = json!({
            "read": "2026-01-01T00:00:02Z", "preread": "2026-01-01T00:00:01Z",
            "cpu_stats": {"cpu_usage": {"total_usage": 750_000_000_u64}},
            "precpu_stats": {"cpu_usage": {"total_usage": 500_000_000_u64}},
            "memory_stats": {"usage": 5000, "stats": {"total_inactive_file": 1000}},
        });
        assert_eq!(super::measured(&stats), (250, 4000));
        assert_eq!(super::measured(&json!({})), (0, 0));
    }
}
