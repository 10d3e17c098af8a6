//! Links between hosts, and clients' connections to API servers.
//!
//! A connection behaves like TCP: in order, and without loss while it is alive. Packet loss on a link shows as latency
//! (retransmission). A broken link, or a fault that affects a connection, kills it: from then on no message gets
//! through in either direction (so a request may be lost before it is carried out, or its reply afterwards), until both
//! ends notice.

use std::collections::BTreeSet;
use std::time::Duration;

use skeg_core::Rng;

use crate::fault::FaultId;
use crate::ids::ApiId;

/// A host: number 0 is the store's, followed by those of the API servers, the control-plane processes, the users and
/// the nodes.
pub type HostId = u32;

/// Links that are cut in one direction.
#[derive(Clone, Debug)]
struct Cut {
    by: FaultId,
    from: BTreeSet<HostId>,
    to: BTreeSet<HostId>,
}

/// Hosts with slow and lossy links.
#[derive(Clone, Debug)]
struct Slow {
    by: FaultId,
    hosts: BTreeSet<HostId>,
    extra: Duration,
    loss_percent: u64,
}

/// Hosts whose links deliver nothing before a certain time.
#[derive(Clone, Debug)]
struct Clog {
    by: FaultId,
    hosts: BTreeSet<HostId>,
    until: u64,
}

fn nanos(duration: Duration) -> u64 {
    duration.as_nanos() as u64
}

/// The network.
#[derive(Debug)]
pub struct Network {
    /// Range in nanoseconds.
    latency: (u64, u64),
    cuts: Vec<Cut>,
    slow: Vec<Slow>,
    /// Hosts whose links deliver nothing before a certain time; messages sent before arrive then.
    clogs: Vec<Clog>,
    rng: Rng,
}

impl Network {
    /// Creates a network whose links have a one-way latency between two bounds.
    pub fn new(latency: (Duration, Duration), rng: Rng) -> Network {
        let latency = (nanos(latency.0), nanos(latency.1));
        Network { latency, cuts: Vec::new(), slow: Vec::new(), clogs: Vec::new(), rng }
    }

    /// Cuts the links from one group of hosts to another; hosts that are in both groups keep the links between them.
    pub fn cut(&mut self, by: FaultId, from: BTreeSet<HostId>, to: BTreeSet<HostId>, one_way: bool) {
        if !one_way {
            self.cuts.push(Cut { by, from: to.clone(), to: from.clone() });
        }
        self.cuts.push(Cut { by, from, to });
    }

    /// Makes the links of some hosts slow and lossy.
    pub fn degrade(&mut self, by: FaultId, hosts: BTreeSet<HostId>, extra: Duration, loss_percent: u64) {
        self.slow.push(Slow { by, hosts, extra, loss_percent });
    }

    /// Delays everything on the links of some hosts until a certain time; nothing is lost.
    pub fn clog(&mut self, by: FaultId, hosts: BTreeSet<HostId>, until: u64) {
        self.clogs.push(Clog { by, hosts, until });
    }

    /// Undoes a fault's changes to links.
    pub fn mend(&mut self, id: FaultId) {
        self.cuts.retain(|cut| cut.by != id);
        self.slow.retain(|slow| slow.by != id);
        self.clogs.retain(|clog| clog.by != id);
    }

    /// Whether no message gets from one host to another.
    #[inline(always)]
    pub fn is_cut(&self, from: HostId, to: HostId) -> bool {
        from != to && self.cuts.iter().any(|c| c.from.contains(&from) && c.to.contains(&to))
    }

    /// How long a message sent at `now` takes, in nanoseconds.
    #[inline(always)]
    pub fn delay(&mut self, now: u64, from: HostId, to: HostId) -> u64 {
        let delay = self.rng.range(self.latency.0, self.latency.1);
        if self.slow.is_empty() && self.clogs.is_empty() { delay } else { self.hindered(now, from, to, delay) }
    }

    /// The delay of a message if some links are slow or clogged.
    #[cold]
    fn hindered(&mut self, now: u64, from: HostId, to: HostId, mut delay: u64) -> u64 {
        for slow in &self.slow {
            if slow.hosts.contains(&from) || slow.hosts.contains(&to) {
                delay += nanos(slow.extra);
                // Each loss costs a retransmission time-out, which doubles.
                let mut timeout = Duration::from_millis(200);
                while timeout < Duration::from_secs(10) && self.rng.chance(slow.loss_percent, 100) {
                    delay += nanos(timeout);
                    timeout *= 2;
                }
            }
        }
        if !self.clogs.is_empty() {
            self.clogs.retain(|clog| clog.until > now);
            let held = self.clogs.iter().filter(|clog| clog.hosts.contains(&from) || clog.hosts.contains(&to));
            let until = held.map(|clog| clog.until).max().unwrap_or(now);
            delay += until - now;
        }
        delay
    }
}

/// A client's connection to an API server. It is small, because thousands are read in turn.
#[derive(Clone, Copy, Debug)]
pub struct Connection {
    /// When the last message so far arrives at the server; the next one arrives later.
    pub up: u64,
    /// When the last message so far arrives at the client.
    pub down: u64,
    id: u32,
    /// Life of the API server process that it is connected to.
    pub life: u32,
    api: ApiId,
    /// Nothing gets through any more; both ends will notice.
    pub dead: bool,
}

impl Connection {
    /// Creates a connection at this time: its id at the server, and the API server and its life.
    pub fn new(id: u64, api: ApiId, life: u32, now: u64) -> Connection {
        let id = u32::try_from(id).expect("a run has fewer than four milliards of connections");
        Connection { up: now, down: now, id, life, api, dead: false }
    }

    /// Its id at the server.
    pub fn id(&self) -> u64 {
        u64::from(self.id)
    }

    /// The API server.
    pub fn api(&self) -> ApiId {
        self.api
    }
}

#[cfg(test)]
mod tests {
    use super::Network;
    use crate::fault::FaultId;
    use skeg_core::Rng;
    use std::collections::BTreeSet;
    use std::time::Duration;

    #[test]
    fn cuts_are_per_direction_and_each_is_mended_alone() {
        let ms = Duration::from_millis(1);
        let mut net = Network::new((ms, ms), Rng::from_seed(1));
        net.cut(FaultId(1), BTreeSet::from([1]), BTreeSet::from([2]), true);
        assert!(net.is_cut(1, 2) && !net.is_cut(2, 1));
        net.cut(FaultId(2), BTreeSet::from([3]), BTreeSet::from([4]), false);
        assert!(net.is_cut(3, 4) && net.is_cut(4, 3));
        net.degrade(FaultId(3), BTreeSet::from([5]), 3 * ms, 0);
        let mut delay = |now, from, to| Duration::from_nanos(net.delay(now, from, to));
        assert_eq!((delay(0, 5, 6), delay(0, 1, 6)), (4 * ms, ms));
        net.clog(FaultId(4), BTreeSet::from([1]), 7_000_000);
        let clogged = [0, 5_000_000, 7_000_000].map(|now| Duration::from_nanos(net.delay(now, 6, 1)));
        assert_eq!(clogged, [8 * ms, 3 * ms, ms]);
        net.clog(FaultId(5), BTreeSet::from([1]), 9_000_000);
        net.mend(FaultId(1));
        assert!(!net.is_cut(1, 2) && net.is_cut(3, 4) && net.delay(0, 5, 6) == 4_000_000);
        [2, 3, 5].into_iter().for_each(|id| net.mend(FaultId(id)));
        assert!(!net.is_cut(3, 4) && net.delay(0, 5, 6) == 1_000_000 && net.delay(0, 1, 6) == 1_000_000);
    }
}
