//! `pods/portforward`: connections to the ports of containers.
//!
//! By SPDY, each connection is a pair of streams, `data` and `error`, with the same `requestID`; kubectl from 1.31 on
//! sends the same SPDY frames inside a WebSocket. Older WebSocket clients open two channels for each of the `ports`
//! that they name in the URL.
//!
//! Source: kubernetes `staging/src/k8s.io/kubelet/pkg/cri/streaming/portforward`.

use std::collections::BTreeMap;

use hyper::Response;
use serde_json::Value;
use skeg_core::api::Status;
use skeg_sim::container::server;
use skeg_spdy::{Event, StreamId};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};

use super::pod;
use super::spdy::{Connection, Wire, header};
use super::upgrade::{Switching, Transport, Upgrade};
use super::visit::{Place, Visit};
use super::websocket::{Channels, Said};
use crate::up::ask::{Inbound, ToCluster};
use crate::up::params::Params;
use crate::up::reply::Content;

/// The subprotocol by SPDY.
const SPDY: &str = "portforward.k8s.io";
/// The subprotocol that carries SPDY inside a WebSocket.
const TUNNEL: &str = "SPDY/3.1+portforward.k8s.io";
const WEB_SOCKET: [&str; 5] =
    [TUNNEL, "v4.channel.k8s.io", "v4.base64.channel.k8s.io", "channel.k8s.io", "base64.channel.k8s.io"];
/// Maximum number of ports that a URL names; each takes two channels.
const MAX_PORTS: usize = 60;

/// How many pieces wait for a real server or its client; each is at most [`PIECE`] long from a server.
const WAITING: usize = 64;
/// How many bytes of a real server's answer are read at once.
const PIECE: usize = 32 << 10;

/// The ports on which simulated containers of a pod answer, and who answers.
#[derive(Clone, Debug)]
pub struct Ports {
    pod: String,
    open: BTreeMap<u16, String>,
}

/// Who makes connections to a pod.
struct Dialler {
    ports: Ports,
    place: Place,
    cluster: ToCluster,
}

/// The other end of a connection.
enum Server {
    /// Of a simulated container.
    Simulated(server::Connection),
    /// Of a real one: bytes for it.
    Real(mpsc::Sender<Vec<u8>>),
}

/// What a real server says on a connection; none when it has ended.
type Heard<K> = (K, Option<Vec<u8>>);

impl Dialler {
    /// Connects to a port. What a real server says comes with `key`.
    async fn connect<K: Copy + Send + 'static>(
        &self,
        port: u16,
        key: K,
        heard: &mpsc::Sender<Heard<K>>,
    ) -> Result<Server, String> {
        let (reply, dialled) = oneshot::channel();
        let gone = || "the cluster has ended".to_owned();
        let dial = Visit::Dial { place: self.place.clone(), port, reply };
        self.cluster.send(Inbound::Visit(dial)).map_err(|_| gone())?;
        match dialled.await.map_err(|_| gone())? {
            None => self.ports.connect(port).map(Server::Simulated),
            Some(stream) => Ok(Server::Real(serve_real(stream?, key, heard.clone()))),
        }
    }
}

/// Carries bytes between a socket and two channels, until either end is closed. Returns the channel to the socket.
fn serve_real<K: Copy + Send + 'static>(
    stream: TcpStream,
    key: K,
    heard: mpsc::Sender<Heard<K>>,
) -> mpsc::Sender<Vec<u8>> {
    let (sender, mut receiver) = mpsc::channel::<Vec<u8>>(WAITING);
    let (mut from, mut to) = stream.into_split();
    tokio::spawn(async move {
        while let Some(bytes) = receiver.recv().await {
            if to.write_all(&bytes).await.is_err() {
                return;
            }
        }
        // The client has ended its half. An error means that the server was first.
        let _ = to.shutdown().await;
    });
    tokio::spawn(async move {
        let mut buffer = vec![0; PIECE];
        loop {
            let length = from.read(&mut buffer).await.unwrap_or(0);
            let said = (length > 0).then(|| buffer[..length].to_vec());
            // An error means that the client has gone.
            if heard.send((key, said)).await.is_err() || length == 0 {
                return;
            }
        }
    });
    sender
}

impl Ports {
    /// The ports that running containers of this pod declare.
    pub fn of(pod: &Value) -> Ports {
        let namespace = pod["metadata"]["namespace"].as_str().unwrap_or_default();
        let name = pod::name(pod);
        let containers = pod["spec"]["containers"].as_array().into_iter().flatten();
        let sidecars = pod["spec"]["initContainers"].as_array().into_iter().flatten();
        let mut open = BTreeMap::new();
        for container in containers.chain(sidecars) {
            let container_name = container["name"].as_str().unwrap_or_default();
            let running = pod::status(pod, container_name).is_some_and(|s| !s["state"]["running"].is_null());
            for port in container["ports"].as_array().into_iter().flatten().filter(|_| running) {
                if let Some(number) = port["containerPort"].as_u64().and_then(|n| u16::try_from(n).ok()) {
                    let who = format!("container {container_name} of pod {namespace}/{name}, port {number}");
                    open.entry(number).or_insert(who);
                }
            }
        }
        let uid = pod["metadata"]["uid"].as_str().unwrap_or_default();
        Ports { pod: format!("{uid}, uid : failed to execute portforward in network namespace"), open }
    }

    /// A connection to a port, or the kubelet's error.
    pub fn connect(&self, port: u16) -> Result<server::Connection, String> {
        let refused = || {
            let why = format!("dial tcp4 127.0.0.1:{port}: connect: connection refused");
            format!("error forwarding port {port} to pod {}: failed to connect to localhost:{port}: {why}", self.pod)
        };
        self.open.get(&port).map(|who| server::Connection::new(who.clone())).ok_or_else(refused)
    }
}

/// Forwards connections to ports of this pod.
pub fn port_forward(
    pod: &Value,
    params: &Params,
    upgrade: Upgrade<'_>,
    cluster: &ToCluster,
) -> Result<Response<Content>, Status> {
    let place = pod::place(pod, String::new())?;
    if pod["status"]["phase"] != "Running" {
        let phase = pod["status"]["phase"].as_str().unwrap_or("Unknown");
        return Err(Status::bad_request(format!(
            "unable to forward port because pod is not running. Current status={phase}"
        )));
    }
    let dialler = Dialler { ports: Ports::of(pod), place, cluster: cluster.clone() };
    let agreed = upgrade.agree(&WEB_SOCKET, &[SPDY])?;
    let channels = agreed.transport == Transport::WebSocket && agreed.protocol != TUNNEL;
    let named = if channels { named_ports(params)? } else { Vec::new() };
    let (response, switching) = agreed.split();
    tokio::spawn(async move {
        let served = match channels {
            true => serve_channels(switching, &dialler, &named).await,
            false => serve_streams(switching, &dialler).await,
        };
        tracing::debug!(ended = served.is_some(), "a port-forward is over");
    });
    Ok(response)
}

/// The parameter `ports`, which may be repeated and may be a list.
fn named_ports(params: &Params) -> Result<Vec<u16>, Status> {
    let mut ports = Vec::new();
    for text in params.all("ports").flat_map(|list| list.split(',')) {
        match text.parse() {
            Ok(port) if port > 0 => ports.push(port),
            _ => return Err(Status::bad_request(format!("unable to parse {text:?} as a port"))),
        }
    }
    match ports.len() {
        0 => Err(Status::bad_request("query parameter \"ports\" is required")),
        n if n > MAX_PORTS => {
            Err(Status::bad_request(format!("at most {MAX_PORTS} ports can be forwarded by one connection")))
        }
        _ => Ok(ports),
    }
}

/// Two channels for each port: data, then errors. Each begins with the port's number. Channels have no end of their
/// own: the WebSocket is closed when the last connection has ended.
async fn serve_channels(switching: Switching, dialler: &Dialler, named: &[u16]) -> Option<()> {
    let protocol = switching.protocol.clone();
    let mut channels = Channels::new(switching.socket().await?, &protocol);
    let (says, mut heard) = mpsc::channel(WAITING);
    let mut open = BTreeMap::new();
    for (channel, port) in (0..).step_by(2).zip(named) {
        for channel in [channel, channel + 1] {
            channels.send(channel, &port.to_le_bytes()).await.ok()?;
        }
        match dialler.connect(*port, channel, &says).await {
            Ok(connection) => drop(open.insert(channel, connection)),
            Err(why) => channels.send(channel + 1, why.as_bytes()).await.ok()?,
        }
    }
    while !open.is_empty() {
        tokio::select! {
            Some((channel, said)) = heard.recv() => match said {
                Some(bytes) => channels.send(channel, &bytes).await.ok()?,
                None => drop(open.remove(&channel)),
            },
            said = channels.next() => {
                let Said::Bytes(channel, bytes) = said? else { continue };
                match open.get_mut(&channel) {
                    Some(Server::Simulated(connection)) => {
                        let answer = connection.handle(&bytes);
                        let closed = connection.is_closed();
                        if !answer.is_empty() {
                            channels.send(channel, &answer).await.ok()?;
                        }
                        if closed {
                            open.remove(&channel);
                        }
                    }
                    // An error means that the server has closed the connection.
                    Some(Server::Real(server)) => drop(server.send(bytes).await),
                    None => {}
                }
            }
        }
    }
    channels.close().await;
    Some(())
}

/// One of the two streams of a connection, until the other one is opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Pair {
    data: Option<StreamId>,
    error: Option<StreamId>,
}

/// Pairs of which one stream is open, by request. Each holds an open stream, so there are no more of them than streams.
#[derive(Debug, Default)]
struct Pairs(BTreeMap<String, Pair>);

impl Pairs {
    /// The pair of a stream that is opened, which leaves when it is whole; `None` if its type is not known.
    fn opened(&mut self, stream: StreamId, headers: &[(String, String)]) -> Option<Pair> {
        let half = match header(headers, "streamtype") {
            "data" => Pair { data: Some(stream), error: None },
            "error" => Pair { data: None, error: Some(stream) },
            _ => return None,
        };
        // Clients before 1.4 name no request: their error stream comes right before the data stream.
        let request = match header(headers, "requestid") {
            "" if half.data.is_some() => stream.saturating_sub(2).to_string(),
            "" => stream.to_string(),
            request => request.to_owned(),
        };
        let waiting = self.0.remove(&request).unwrap_or_default();
        let pair = Pair { data: half.data.or(waiting.data), error: half.error.or(waiting.error) };
        if pair.data.is_none() || pair.error.is_none() {
            self.0.insert(request, pair);
        }
        Some(pair)
    }

    /// Forgets the pair of a stream that is reset. One that is only finished is kept: kubectl finishes its error stream
    /// before it opens the data stream.
    fn reset(&mut self, stream: StreamId) {
        self.0.retain(|_, pair| pair.data != Some(stream) && pair.error != Some(stream));
    }
}

async fn serve_streams(switching: Switching, dialler: &Dialler) -> Option<()> {
    let wire = match switching.transport {
        Transport::Spdy => Wire::Raw(switching.raw().await?),
        Transport::WebSocket => Wire::Tunnel(Box::new(switching.socket().await?)),
    };
    let mut connection = Connection::new(wire);
    let mut pairs = Pairs::default();
    let mut open: BTreeMap<StreamId, Server> = BTreeMap::new();
    let (says, mut heard) = mpsc::channel::<Heard<StreamId>>(WAITING);
    loop {
        connection.flush().await.ok()?;
        let event = tokio::select! {
            Some((stream, said)) = heard.recv() => {
                match said {
                    Some(bytes) => connection.send(stream, &bytes, false),
                    None => {
                        connection.send(stream, b"", true);
                        open.remove(&stream);
                    }
                }
                continue;
            }
            event = connection.next() => event?,
        };
        match event {
            Event::Opened(stream, headers) => {
                let Ok(port) = header(&headers, "port").parse::<u16>() else {
                    connection.reset(stream);
                    continue;
                };
                let Some(pair) = pairs.opened(stream, &headers) else {
                    connection.reset(stream);
                    continue;
                };
                connection.accept(stream);
                if let Pair { data: Some(data), error: Some(error) } = pair {
                    match dialler.connect(port, data, &says).await {
                        Ok(server) => {
                            connection.send(error, b"", true);
                            open.insert(data, server);
                        }
                        Err(why) => {
                            connection.send(error, why.as_bytes(), true);
                            connection.send(data, b"", true);
                        }
                    }
                }
            }
            Event::Data(stream, bytes) => {
                match open.get_mut(&stream) {
                    Some(Server::Simulated(server)) => {
                        let answer = server.handle(&bytes);
                        let closed = server.is_closed();
                        connection.send(stream, &answer, closed);
                        if closed {
                            open.remove(&stream);
                        }
                    }
                    // An error means that the server has closed the connection, which is heard as well.
                    Some(Server::Real(server)) => drop(server.send(bytes).await),
                    None => {}
                }
            }
            // A real server may still answer; its end is heard.
            Event::Finished(stream) => {
                if let Some(Server::Simulated(_)) = open.remove(&stream) {
                    connection.send(stream, b"", true);
                }
            }
            Event::Reset(stream) => {
                pairs.reset(stream);
                open.remove(&stream);
            }
            Event::GoAway => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Pair, Pairs, Ports, named_ports};
    use crate::up::params::Params;
    use serde_json::json;

    #[test]
    fn declared_ports_of_running_containers_answer() {
        let pod = json!({"metadata": {"name": "p", "namespace": "n", "uid": "u"},
            "spec": {"containers": [{"name": "a", "ports": [{"containerPort": 80}]},
                {"name": "b", "ports": [{"containerPort": 81}]}]},
            "status": {"containerStatuses": [{"name": "a", "state": {"running": {}}}]}});
        let ports = Ports::of(&pod);
        assert!(ports.connect(80).is_ok());
        let refused = ports.connect(81).unwrap_err();
        assert!(refused.starts_with("error forwarding port 81 to pod u,"), "{refused}");
        assert!(refused.ends_with("dial tcp4 127.0.0.1:81: connect: connection refused"), "{refused}");
    }

    #[test]
    fn ports_are_named_in_the_url() {
        let check = |query: &str, want: Option<&[u16]>| {
            assert_eq!(named_ports(&Params::parse(Some(query))).ok().as_deref(), want, "{query}");
        };
        check("ports=80&ports=443,8080", Some(&[80, 443, 8080]));
        check("", None);
        check("ports=0", None);
        check("ports=99999", None);
    }

    #[test]
    fn pairs_last_as_long_as_a_stream_of_theirs() {
        let mut pairs = Pairs::default();
        let mut check = |stream, headers: &[(&str, &str)], want: Option<Pair>, left: usize| {
            let headers: Vec<_> = headers.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
            assert_eq!((pairs.opened(stream, &headers), pairs.0.len()), (want, left), "{headers:?}");
            // A reset of another stream changes nothing.
            pairs.reset(stream + 100);
            assert_eq!(pairs.0.len(), left);
        };
        let half = |data, error| Some(Pair { data, error });
        check(1, &[("streamtype", "error"), ("requestid", "0")], half(None, Some(1)), 1);
        check(3, &[("streamtype", "voice"), ("requestid", "1")], None, 1);
        check(5, &[("requestid", "2")], None, 1);
        check(7, &[("streamtype", "data"), ("requestid", "0")], half(Some(7), Some(1)), 0);
        check(9, &[("streamtype", "error")], half(None, Some(9)), 1);
        check(11, &[("streamtype", "data")], half(Some(11), Some(9)), 0);
        for n in 0..2000 {
            let kind = if n % 2 == 0 { "data" } else { "error" };
            let headers =
                [("streamtype", kind), ("requestid", &n.to_string())].map(|(n, v)| (n.to_owned(), v.to_owned()));
            assert!(pairs.opened(2 * n + 1, &headers).is_some());
            pairs.reset(2 * n + 1);
            assert_eq!(pairs.0.len(), 0, "stream {n} was reset");
        }
    }
}
