//! Names that are not the cluster's: they are asked of the host's own name servers.
//!
//! A client's query is handed on as it is, by the protocol that it came by, and so is the answer. The host's
//! `/etc/resolv.conf` is read each time, because a laptop changes its networks.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

use super::wire::{self, Code, Record};

/// How long a name server may take before the next one is asked. A client waits five seconds.
const PATIENCE: Duration = Duration::from_secs(2);
/// Most name servers that are asked (`MAXNS` of resolv.conf(5)).
const SERVERS: usize = 3;
const PORT: u16 = 53;

/// The host's name servers.
#[derive(Debug)]
pub struct Resolvers {
    file: PathBuf,
    port: u16,
    /// The cluster's own server: to ask it would go round in a circle.
    not: Vec<IpAddr>,
}

/// The name servers of a resolv.conf, without these.
fn servers(text: &str, not: &[IpAddr]) -> Vec<IpAddr> {
    let named = text.lines().filter_map(|line| line.trim().strip_prefix("nameserver")).map(str::trim);
    let mut servers: Vec<IpAddr> = named.filter_map(|address| address.parse().ok()).collect();
    if servers.is_empty() {
        // As resolv.conf(5) says.
        servers.push(Ipv4Addr::LOCALHOST.into());
    }
    servers.retain(|address| !not.contains(address));
    servers.truncate(SERVERS);
    servers
}

/// Reads a message with its length before it; `None` at the end of the stream.
pub async fn read_message(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<Vec<u8>>> {
    let length = match stream.read_u16().await {
        Ok(length) => length,
        Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(e) => return Err(e),
    };
    let mut message = vec![0; usize::from(length)];
    stream.read_exact(&mut message).await?;
    Ok(Some(message))
}

/// A message with its length before it.
pub fn framed(message: &[u8]) -> Vec<u8> {
    let length = u16::try_from(message.len()).expect("messages are cut to this");
    [&length.to_be_bytes(), message].concat()
}

impl Resolvers {
    /// The servers that this host uses, except these addresses.
    pub fn of_host(not: Vec<IpAddr>) -> Resolvers {
        Resolvers { file: "/etc/resolv.conf".into(), port: PORT, not }
    }

    /// The servers of another file, at another port.
    #[cfg(test)]
    pub fn of(file: PathBuf, port: u16) -> Resolvers {
        Resolvers { file, port, not: Vec::new() }
    }

    /// Hands a query on; returns the answer, or why there is none.
    pub async fn ask(&self, query: &[u8], by_tcp: bool) -> Result<Vec<u8>, String> {
        let text = std::fs::read_to_string(&self.file).unwrap_or_default();
        let mut why = format!("{} names no server that could be asked", self.file.display());
        for server in servers(&text, &self.not) {
            let at = SocketAddr::new(server, self.port);
            let asked = async { if by_tcp { ask_by_tcp(at, query).await } else { ask_by_udp(at, query).await } };
            match timeout(PATIENCE, asked).await {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(e)) => why = format!("{at}: {e}"),
                Err(_) => why = format!("{at}: it does not answer"),
            }
        }
        Err(why)
    }

    /// The addresses of a name, with the aliases that lead to them, and the code of the answer.
    pub async fn addresses(&self, name: &str, type_: u16) -> Result<(Code, Vec<Record>), String> {
        let mut id = [0; 2];
        getrandom::fill(&mut id).map_err(|e| e.to_string())?;
        let query = wire::question(u16::from_be_bytes(id), name, type_);
        let mut answer = self.ask(&query, false).await?;
        if answer.get(2).is_some_and(|flags| flags & 2 != 0) {
            // It was truncated.
            answer = self.ask(&query, true).await?;
        }
        match wire::addresses(&answer) {
            Some((0, records)) => Ok((Code::NoError, records)),
            Some((3, records)) => Ok((Code::NxDomain, records)),
            Some((code, _)) => Err(format!("the name server answers with code {code}")),
            None => Err("the name server's answer cannot be read".to_owned()),
        }
    }
}

async fn ask_by_udp(server: SocketAddr, query: &[u8]) -> io::Result<Vec<u8>> {
    let any: SocketAddr = match server {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (std::net::Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    // A socket for each query: its port is drawn by the system, so that an answer cannot be guessed.
    let socket = UdpSocket::bind(any).await?;
    socket.connect(server).await?;
    socket.send(query).await?;
    let mut buffer = vec![0; 1 << 16];
    loop {
        let length = socket.recv(&mut buffer).await?;
        if wire::is_response(query, &buffer[..length]) {
            buffer.truncate(length);
            return Ok(buffer);
        }
    }
}

async fn ask_by_tcp(server: SocketAddr, query: &[u8]) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(server).await?;
    stream.write_all(&framed(query)).await?;
    let answer = read_message(&mut stream).await?;
    let answer = answer.filter(|answer| wire::is_response(query, answer));
    answer.ok_or_else(|| io::Error::other("its answer is not to the question"))
}

#[cfg(test)]
mod tests {
    use super::servers;
    use std::net::{IpAddr, Ipv4Addr};

    #[test]
    fn the_hosts_servers_are_those_of_its_file() {
        let not = [IpAddr::from([10, 96, 0, 10])];
        let check = |text: &str, want: &[&str]| {
            let got: Vec<String> = servers(text, &not).iter().map(IpAddr::to_string).collect();
            assert_eq!(got, want, "{text:?}");
        };
        check("", &[&Ipv4Addr::LOCALHOST.to_string()]);
        check("search a\nnameserver 1.1.1.1\n nameserver\t::1 \nnameserver x\n", &["1.1.1.1", "::1"]);
        check("nameserver 10.96.0.10", &[]);
        check(
            "nameserver 1.1.1.1\nnameserver 2.2.2.2\nnameserver 3.3.3.3\nnameserver 4.4.4.4",
            &["1.1.1.1", "2.2.2.2", "3.3.3.3"],
        );
    }
}
