//! Serves the Services of the Docker node: carries out the changes of its service table by nftables.
//!
//! What comes in: the changes of the table, from the machines' thread. What goes out: transactions of `nft`, each of
//! them whole or not at all, and, where UDP endpoints have gone, removals of their flows by `conntrack`. A thread of
//! its own runs the programs. What was refused, or what somebody else has removed, is mended by setting up the whole
//! table again. At the end the table is removed; after a kill it stays until the cluster's next start replaces it, or
//! until another cluster starts that needs the same addresses.

mod owner;
mod rules;
#[cfg(test)]
mod tests;

use std::io::{self, Write};
use std::net::Ipv4Addr;
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use skeg_core::proxy::{Host, Protocol, TableChange};

use owner::Ownership;
pub use owner::overlap;
pub use rules::network;
use rules::{Change, Flow, Rules};

/// How often it is looked whether the table is still there.
const CHECK: Duration = Duration::from_secs(30);
/// Delay before the whole table is set up after a failure, the first time and at most.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));
/// What every table of this program is called, before the cluster's own part.
const TABLES: &str = "skeg-proxy";
/// Longest part of a program's complaint that is told.
const LONGEST: usize = 400;

/// The nftables of this host, found to work.
#[derive(Debug)]
pub struct Nftables {
    /// Name of this cluster's table.
    table: String,
    /// Held as long as the table is served.
    ownership: Ownership,
    /// Name of the cluster.
    owner: String,
    /// The network of cluster IPs.
    services: (Ipv4Addr, u8),
    /// See [`Rules::new`].
    within: Option<(Ipv4Addr, u8)>,
}

fn explain(e: &io::Error) -> String {
    match e.kind() {
        io::ErrorKind::NotFound => "it is not installed".to_owned(),
        _ => e.to_string(),
    }
}

/// Runs a program; returns what it printed, or what it complained of.
pub fn run(program: &str, args: &[&str], input: &str) -> Result<String, String> {
    let mut command = Command::new(program);
    command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|e| format!("{program}: {}", explain(&e)))?;
    // The program reads all before it prints anything.
    let written = child.stdin.take().expect("it is piped").write_all(input.as_bytes());
    let output = child.wait_with_output().map_err(|e| format!("{program}: {}", explain(&e)))?;
    if !output.status.success() {
        let complaint = String::from_utf8_lossy(&output.stderr);
        let complaint: String = complaint.trim().chars().take(LONGEST).collect();
        return Err(format!("{program}: {complaint} ({})", output.status));
    }
    written.map_err(|e| format!("{program}: {}", explain(&e)))?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Carries out a transaction: all of it or nothing.
fn transact(text: &str) -> Result<(), String> {
    run("nft", &["-f", "-"], text).map(drop)
}

/// The name of a cluster's table. A cluster finds the one that it left behind, and does not touch another's.
fn table_of(cluster: &str) -> String {
    // FNV-1a: it only has to differ between the few clusters of a host.
    let hash = cluster.bytes().fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    format!("{TABLES}-{hash:08x}")
}

impl Nftables {
    /// Looks whether Services can be served on this host. `cluster` names the cluster, `services` is its network of
    /// cluster IPs; `within` as in [`Rules::new`].
    pub fn find(cluster: &str, services: (Ipv4Addr, u8), within: Option<(Ipv4Addr, u8)>) -> Result<Nftables, String> {
        let table = table_of(cluster);
        let ownership = Ownership::take(&table)?;
        let found = Nftables { table, ownership, owner: cluster.to_owned(), services, within };
        let mut rules = found.rules();
        rules.replace();
        let (text, _) = rules.take();
        // `-c` checks and changes nothing.
        run("nft", &["-c", "-f", "-"], &text).map_err(|why| {
            let install = if why.ends_with("not installed") { " (apt-get install nftables)" } else { "" };
            format!("{why}{install}")
        })?;
        Ok(found)
    }

    fn rules(&self) -> Rules {
        Rules::new(&self.table, &self.owner, self.services, self.within)
    }

    /// The names of other clusters' tables, each with whether its cluster runs.
    fn others(&self) -> Vec<(String, bool)> {
        let tables = run("nft", &["list", "tables", "ip"], "").unwrap_or_default();
        let names = tables.lines().filter_map(|line| line.strip_prefix("table ip "));
        let others = names.filter(|name| name.starts_with(TABLES) && *name != self.table);
        others.map(|name| (name.to_owned(), owner::runs(name))).collect()
    }

    /// Removes what clusters that were killed have left behind, if it is in the way: a table with the same addresses.
    /// Such a cluster sets up its table again when it starts.
    pub fn clear(&self) {
        for (other, _) in self.others().into_iter().filter(|(_, runs)| !runs) {
            let network = run("nft", &["list", "chain", "ip", &other, "no-endpoints"], "").ok();
            let network = network.as_deref().and_then(rules::served);
            if network.is_some_and(|network| !overlap(network, self.services)) {
                continue;
            }
            match run("nft", &["delete", "table", "ip", &other], "") {
                Ok(_) => tracing::info!("what a cluster that was killed had left of its Services is removed: {other}"),
                Err(why) => tracing::warn!("what a cluster that was killed has left of its Services stays: {why}"),
            }
        }
    }

    /// What whoever runs the cluster should know about this host: a sentence each.
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        for (other, runs) in self.others() {
            warnings.push(if runs {
                format!(
                    "another cluster's Services are in the table {other}: if both have the same addresses, one of \
                     them is not reached (--service-cluster-ip-range)"
                )
            } else {
                format!(
                    "a cluster that was killed has left Services with other addresses in the table {other}: a node \
                     port that both have leads there (`nft delete table ip {other}`)"
                )
            });
        }
        if let Err(why) = run("conntrack", &["--version"], "") {
            warnings.push(format!(
                "UDP clients that go on sending stay with an endpoint that has gone: {why} (apt-get install conntrack)"
            ));
        }
        warnings
    }

    /// Starts the thread that carries out changes.
    pub fn start(self) -> Result<Proxy, String> {
        let (changes, inbox) = channel();
        let thread = std::thread::Builder::new().name("proxy".to_owned());
        let thread = thread.spawn(move || {
            Applier::new(self.rules()).run(&inbox);
            drop(self.ownership);
        });
        let thread = thread.map_err(|e| format!("error: threads could not be started: {}", explain(&e)))?;
        Ok(Proxy { changes, thread })
    }
}

/// The thread that carries out changes.
#[derive(Debug)]
pub struct Proxy {
    changes: Sender<Change>,
    thread: JoinHandle<()>,
}

impl Proxy {
    /// Carries out a change of the table, a moment later.
    pub fn apply(&self, change: &TableChange) {
        if let Some(change) = Change::of(change) {
            self.changes.send(change).expect("the thread ends only with this");
        }
    }

    /// Removes the table, and waits until that is done.
    pub fn end(self) {
        drop(self.changes);
        self.thread.join().expect("the thread does not panic");
    }
}

/// What the thread knows.
struct Applier {
    rules: Rules,
    /// Whether the table has been set up.
    is_there: bool,
    /// After a failure: how long until the whole table is set up again.
    retry: Option<Duration>,
}

impl Applier {
    fn new(rules: Rules) -> Applier {
        Applier { rules, is_there: false, retry: None }
    }

    /// Carries out changes until there are no more to come.
    fn run(mut self, inbox: &Receiver<Change>) {
        loop {
            match inbox.recv_timeout(self.retry.unwrap_or(CHECK)) {
                Ok(change) => {
                    // What has come meanwhile goes into the same transaction.
                    std::iter::once(change).chain(inbox.try_iter()).for_each(|change| self.rules.apply(change));
                    if self.retry.is_some() {
                        self.rules.replace();
                    }
                    self.carry_out();
                }
                Err(RecvTimeoutError::Timeout) if self.retry.is_some() => self.mend(),
                Err(RecvTimeoutError::Timeout) => self.look(),
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        if let Err(why) = transact(&self.rules.removal()) {
            tracing::warn!("the rules of Services are left behind: {why}");
        }
    }

    /// Sets up the whole table.
    fn mend(&mut self) {
        self.rules.replace();
        self.carry_out();
    }

    /// Sets up the table again if somebody has removed it.
    fn look(&mut self) {
        if self.is_there && run("nft", &["list", "chain", "ip", self.rules.table(), "services"], "").is_err() {
            tracing::warn!("somebody has removed the rules of Services: they are set up again");
            self.mend();
        }
    }

    fn carry_out(&mut self) {
        let (text, flows) = self.rules.take();
        if text.is_empty() {
            return;
        }
        match transact(&text) {
            Ok(()) => {
                if self.retry.take().is_some() {
                    tracing::info!("Services are served again");
                }
                self.is_there = true;
                flows.iter().for_each(forget);
            }
            Err(why) => {
                // A difference that does not fit says that the table is not what it should be.
                let wait = self.retry.map_or(RETRY.0, |wait| (wait * 2).min(RETRY.1));
                tracing::warn!("a change of Services could not be carried out; all are set up in {wait:?}: {why}");
                self.retry = Some(wait);
            }
        }
    }
}

/// Makes the kernel forget a UDP client's flows. That there are none is no failure; that the program is missing has
/// been said at the start.
fn forget(flow: &Flow) {
    let port = flow.frontend.port.to_string();
    let address = match flow.frontend.host {
        Host::Ip(ip) => Some(ip.to_string()),
        Host::NodeV4 | Host::NodeV6 => None,
    };
    let backend = flow.backend.map(|ip| ip.to_string());
    debug_assert_eq!(flow.frontend.protocol, Protocol::Udp);
    let mut args = vec!["-D", "-p", "udp", "--orig-port-dst", &port];
    args.extend(address.iter().flat_map(|address| ["--orig-dst", address]));
    args.extend(backend.iter().flat_map(|backend| ["--reply-src", backend]));
    if let Err(why) = run("conntrack", &args, "")
        && !why.contains("0 flow entries")
    {
        tracing::debug!("{why}");
    }
}
