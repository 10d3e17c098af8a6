//! Serves the cluster's names to the pods of the Docker node, by UDP and TCP.
//!
//! What comes in: queries of pods, which reach this by the cluster IP of the Service `kube-dns` in `kube-system` (the
//! tenth of its network, where users and programs expect it), whose one endpoint is a free port at the bridge's own
//! address; so port 53 of the host stays whose it is. What goes out: answers. Names of the cluster are looked up on the
//! machines' thread ([`Lookup`]), which has them; all other names are asked of the host's own name servers
//! ([`forward`]).
//!
//! Source: Kubernetes' DNS-based service discovery 1.1.0
//! (<https://github.com/kubernetes/dns/blob/master/docs/specification.md>); where it leaves a choice, CoreDNS with
//! kubeadm's configuration.

pub mod forward;
#[cfg(test)]
mod tests;
pub mod wire;

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use skeg_core::dns::{self, Answer, ClusterDns, DnsConfig, RecordData, RecordType};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, oneshot};
use tokio::time::timeout;

use super::ask::{Inbound, ToCluster};
use forward::Resolvers;
use wire::{Bad, Code, Data, Query, Record, Response, types};

/// The domain of all names of the cluster.
pub const DOMAIN: &str = "cluster.local";
/// Most queries by UDP that are worked on at once; what comes beyond is dropped, and asked again by its client.
const QUERIES: usize = 512;
/// Most open TCP connections.
const CONNECTIONS: usize = 128;
/// How long a TCP connection may be silent (RFC 7766 leaves it to the server).
const IDLE: Duration = Duration::from_secs(10);
/// How long the machines' thread may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often a port is tried that must be free for both TCP and UDP.
const ATTEMPTS: u32 = 16;

/// A question for the machines' thread.
#[derive(Debug)]
pub struct Lookup {
    name: String,
    type_: RecordType,
    /// Whether the type is one that no record has: then only whether the name exists is asked.
    existence: bool,
    reply: oneshot::Sender<Found>,
}

/// What the machines' thread knows about a name.
#[derive(Debug)]
enum Found {
    /// Its records, and others that the client will ask for.
    Records(Vec<Record>, Vec<Record>),
    /// It exists, without records of this type.
    NoData,
    /// It does not exist.
    NxDomain,
    /// It is not the cluster's.
    NotOurs,
    /// The state of the cluster has not been read yet.
    Unknown,
}

fn record(record: dns::Record) -> Record {
    let data = match record.data {
        RecordData::A(ip) => Data::A(ip),
        RecordData::Aaaa(ip) => Data::Aaaa(ip),
        RecordData::Cname(name) => Data::Cname(name.to_string()),
        RecordData::Ptr(name) => Data::Ptr(name.to_string()),
        RecordData::Srv { priority, weight, port, target } => {
            Data::Srv { priority, weight, port, target: target.to_string() }
        }
        RecordData::Txt(text) => Data::Txt(text.to_string()),
    };
    Record { name: record.name.to_string(), ttl: record.ttl, data }
}

impl Lookup {
    /// Answers from the machine that knows the cluster's names.
    pub fn answer(self, dns: &ClusterDns) {
        let found = match dns.resolve(&self.name, self.type_) {
            None => Found::Unknown,
            Some(Answer::NoData) => Found::NoData,
            Some(Answer::NxDomain) => Found::NxDomain,
            Some(Answer::NotOurs) => Found::NotOurs,
            Some(Answer::Records { mut answer, additional }) => {
                if self.existence {
                    // An alias answers every type.
                    answer.retain(|record| matches!(record.data, RecordData::Cname(_)));
                }
                match answer.is_empty() {
                    true => Found::NoData,
                    false => Found::Records(
                        answer.into_iter().map(record).collect(),
                        additional.into_iter().map(record).collect(),
                    ),
                }
            }
        };
        // An error means that the client has gone.
        let _ = self.reply.send(found);
    }
}

/// The core's word for a type, and whether it is none that a record has.
fn record_type(type_: u16) -> (RecordType, bool) {
    match type_ {
        types::A => (RecordType::A, false),
        types::AAAA => (RecordType::Aaaa, false),
        types::CNAME => (RecordType::Cname, false),
        types::PTR => (RecordType::Ptr, false),
        types::SRV => (RecordType::Srv, false),
        types::TXT => (RecordType::Txt, false),
        types::ANY => (RecordType::Any, false),
        _ => (RecordType::Any, true),
    }
}

/// The sockets of the server.
#[derive(Debug)]
pub struct Sockets {
    udp: UdpSocket,
    tcp: TcpListener,
    address: SocketAddr,
}

impl Sockets {
    /// Takes a port of this address that is free for both protocols.
    pub async fn bind(ip: IpAddr) -> io::Result<Sockets> {
        let mut last = io::Error::from(io::ErrorKind::AddrInUse);
        for _ in 0..ATTEMPTS {
            let tcp = TcpListener::bind((ip, 0)).await?;
            let address = tcp.local_addr()?;
            match UdpSocket::bind(address).await {
                Ok(udp) => return Ok(Sockets { udp, tcp, address }),
                Err(e) => last = e,
            }
        }
        Err(last)
    }

    /// Where they are.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves for ever. `service` is the cluster IP by which pods reach the server.
    pub fn start(self, threads: &Handle, service: Ipv4Addr, inbox: ToCluster) {
        let not = vec![IpAddr::V4(service), self.address.ip()];
        self.start_with(threads, Resolvers::of_host(not), inbox);
    }

    fn start_with(self, threads: &Handle, resolvers: Resolvers, inbox: ToCluster) {
        let server = Arc::new(Server { inbox, resolvers, turn: AtomicUsize::new(0) });
        threads.spawn(datagrams(Arc::new(self.udp), Arc::clone(&server)));
        threads.spawn(connections(self.tcp, server));
    }
}

async fn datagrams(socket: Arc<UdpSocket>, server: Arc<Server>) {
    let permits = Arc::new(Semaphore::new(QUERIES));
    let mut buffer = vec![0; 1 << 16];
    loop {
        let (length, from) = match socket.recv_from(&mut buffer).await {
            Ok(received) => received,
            Err(e) => {
                // An ICMP error about an earlier answer, or the system is short of something.
                tracing::debug!("a query could not be received: {e}");
                tokio::time::sleep(Duration::from_millis(1)).await;
                continue;
            }
        };
        let Ok(permit) = Arc::clone(&permits).try_acquire_owned() else { continue };
        let (socket, server, query) = (Arc::clone(&socket), Arc::clone(&server), buffer[..length].to_vec());
        tokio::spawn(async move {
            let _permit = permit;
            if let Some(answer) = server.answer(&query, false).await
                && let Err(e) = socket.send_to(&answer, from).await
            {
                tracing::debug!("an answer could not be sent to {from}: {e}");
            }
        });
    }
}

async fn connections(listener: TcpListener, server: Arc<Server>) {
    let permits = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let permit = Arc::clone(&permits).acquire_owned().await.expect("the semaphore stays open");
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(e) => {
                tracing::warn!("a connection for names could not be accepted: {e}");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let server = Arc::clone(&server);
        tokio::spawn(async move {
            let _permit = permit;
            if let Err(e) = connection(stream, &server).await {
                tracing::debug!("a connection for names ended: {e}");
            }
        });
    }
}

/// Answers the queries of a connection, one after the other.
async fn connection(mut stream: TcpStream, server: &Server) -> io::Result<()> {
    loop {
        let Some(query) = timeout(IDLE, forward::read_message(&mut stream)).await?? else { return Ok(()) };
        let Some(answer) = server.answer(&query, true).await else { return Ok(()) };
        timeout(IDLE, stream.write_all(&forward::framed(&answer))).await??;
    }
}

/// What every query needs.
struct Server {
    inbox: ToCluster,
    resolvers: Resolvers,
    /// Counts answers, so that addresses are told in another order each time.
    turn: AtomicUsize,
}

impl Server {
    /// The answer to a message; `None` if it gets none.
    async fn answer(&self, message: &[u8], by_tcp: bool) -> Option<Vec<u8>> {
        let query = match Query::read(message) {
            Ok(query) => query,
            Err(Bad::Silence) => return None,
            Err(Bad::Told(answer)) => return Some(answer),
        };
        let size = if by_tcp { usize::from(u16::MAX) } else { query.udp_size() };
        let response = match self.look_up(&query).await {
            Found::Unknown => Response::of(Code::ServFail),
            Found::NotOurs => match self.resolvers.ask(message, by_tcp).await {
                Ok(answer) => return Some(answer),
                Err(why) => {
                    tracing::debug!("{} cannot be resolved: {why}", query.name);
                    Response::of(Code::ServFail)
                }
            },
            Found::NoData if query.type_ == types::SOA && query.name == DOMAIN => {
                Response { authoritative: true, answer: vec![soa()], ..Response::of(Code::NoError) }
            }
            Found::NoData => negative(Code::NoError),
            Found::NxDomain => negative(Code::NxDomain),
            Found::Records(answer, additional) => self.positive(&query, answer, additional).await,
        };
        Some(query.answer(&response, size))
    }

    async fn look_up(&self, query: &Query) -> Found {
        let (reply, found) = oneshot::channel();
        let (type_, existence) = record_type(query.type_);
        let lookup = Lookup { name: query.name.clone(), type_, existence, reply };
        // Errors mean that the cluster ends.
        if self.inbox.send(Inbound::Resolve(lookup)).is_err() {
            return Found::Unknown;
        }
        match timeout(PATIENCE, found).await {
            Ok(Ok(found)) => found,
            _ => Found::Unknown,
        }
    }

    /// An answer with records. A client asks one server for the whole way, so what an alias outside of the cluster
    /// leads to is part of the answer.
    async fn positive(&self, query: &Query, mut answer: Vec<Record>, additional: Vec<Record>) -> Response {
        let mut response = Response { authoritative: true, ..Response::of(Code::NoError) };
        let is_address = matches!(query.type_, types::A | types::AAAA);
        let target = match answer.last().map(|record| &record.data) {
            Some(Data::Cname(target)) if is_address && !is_ours(target) => Some(target.clone()),
            _ => None,
        };
        if let Some(target) = target {
            match self.resolvers.addresses(&target, query.type_).await {
                Ok((code, more)) => {
                    response.code = code;
                    answer.extend(more);
                }
                Err(why) => {
                    tracing::debug!("{target} cannot be resolved: {why}");
                    response.code = Code::ServFail;
                }
            }
        }
        let addresses =
            answer.iter().position(|r| matches!(r.data, Data::A(_) | Data::Aaaa(_))).unwrap_or(answer.len());
        let addresses = &mut answer[addresses..];
        if !addresses.is_empty() {
            let turn = self.turn.fetch_add(1, Ordering::Relaxed);
            addresses.rotate_left(turn % addresses.len());
        }
        Response { answer, additional, ..response }
    }
}

fn is_ours(name: &str) -> bool {
    name.strip_suffix(DOMAIN).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

/// The start of the cluster's zone.
fn soa() -> Record {
    let ttl = DnsConfig::default().ttl;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let data = Data::Soa {
        primary: format!("ns.dns.{DOMAIN}"),
        contact: format!("hostmaster.{DOMAIN}"),
        serial: now.as_secs() as u32,
        ttl,
    };
    Record { name: DOMAIN.to_owned(), ttl, data }
}

/// The answer that something is not there. The start of the zone says how long that may be remembered (RFC 2308).
fn negative(code: Code) -> Response {
    Response { authoritative: true, authority: vec![soa()], ..Response::of(code) }
}
