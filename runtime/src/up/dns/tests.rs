//! Messages as bytes, and a server on loopback between a client, a stand-in for the machines' thread and one for the
//! host's name server.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::mpsc::unbounded_channel;

use super::forward::{Resolvers, framed, read_message};
use super::wire::{Bad, Code, Data, LARGEST_UDP, Query, Record, Response, addresses, is_response, question, types};
use super::{Found, Inbound, Sockets};

fn address(name: &str, last: u8) -> Record {
    Record { name: name.to_owned(), ttl: 30, data: Data::A(Ipv4Addr::new(10, 0, 0, last)) }
}

/// A query without EDNS.
fn plain(name: &str, type_: u16) -> Vec<u8> {
    let mut bytes = question(7, name, type_);
    bytes.truncate(bytes.len() - 11);
    bytes[11] = 0;
    bytes
}

#[test]
fn queries_are_read() {
    let check = |bytes: &[u8], want: Result<(&str, u16, usize), Option<u16>>| {
        let got = match Query::read(bytes) {
            Ok(query) => Ok((query.name.clone(), query.type_, query.udp_size())),
            Err(Bad::Silence) => Err(None),
            Err(Bad::Told(answer)) => {
                assert_eq!((&answer[..2], answer[2] & 0x80), (&bytes[..2], 0x80), "a response with the same number");
                Err(Some(u16::from(answer[3] & 15)))
            }
        };
        assert_eq!(got, want.map(|(name, type_, size)| (name.to_owned(), type_, size)), "{bytes:?}");
    };
    let with = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = plain("web.d", types::A);
        change(&mut bytes);
        bytes
    };
    check(
        &question(7, "Web.D.svc.cluster.LOCAL", types::SRV),
        Ok(("web.d.svc.cluster.local", types::SRV, LARGEST_UDP)),
    );
    check(&plain("web.d", types::A), Ok(("web.d", types::A, 512)));
    check(&plain("", types::ANY), Ok(("", types::ANY, 512)));
    check(&with(&|b| b[13] = b'.'), Ok(("\\046eb.d", types::A, 512)));
    check(&with(&|b| b[2] |= 0x80), Err(None));
    check(&[1, 2, 3], Err(None));
    check(&with(&|b| b.truncate(20)), Err(Some(Code::FormErr as u16)));
    check(&with(&|b| b[5] = 2), Err(Some(Code::FormErr as u16)));
    check(&with(&|b| b[2] = 0x28), Err(Some(Code::NotImp as u16)));
    check(&with(&|b| *b.last_mut().unwrap() = 3), Err(Some(Code::Refused as u16)));
    // A pointer to itself.
    check(&with(&|b| b[12..14].copy_from_slice(&[0xc0, 12])), Err(Some(Code::FormErr as u16)));
    let mut newer = question(7, "web.d", types::A);
    let version = newer.len() - 5;
    newer[version] = 1;
    check(&newer, Err(Some(0)));
}

#[test]
fn answers_are_written() {
    let query = Query::read(&question(7, "web.d", types::A)).unwrap();
    let response = Response {
        authoritative: true,
        answer: vec![
            Record { name: "web.d".to_owned(), ttl: 5, data: Data::Cname("x.y".to_owned()) },
            address("x.y", 1),
        ],
        ..Response::of(Code::NoError)
    };
    let bytes = query.answer(&response, 512);
    let want: &[u8] = &[
        0, 7, 0x85, 0x80, 0, 1, 0, 2, 0, 0, 0, 1, // header
        3, b'w', b'e', b'b', 1, b'd', 0, 0, 1, 0, 1, // question
        0xc0, 12, 0, 5, 0, 1, 0, 0, 0, 5, 0, 5, 1, b'x', 1, b'y', 0, // alias
        1, b'x', 1, b'y', 0, 0, 1, 0, 1, 0, 0, 0, 30, 0, 4, 10, 0, 0, 1, // address
        0, 0, 41, 4, 0xd0, 0, 0, 0, 0, 0, 0, // EDNS
    ];
    assert_eq!(bytes, want);
    assert!(is_response(&question(7, "web.d", types::A), &bytes));
    assert!(!is_response(&question(8, "web.d", types::A), &bytes), "another number");
    assert!(!is_response(&question(7, "web.e", types::A), &bytes), "another question");
    assert_eq!(addresses(&bytes), Some((0, response.answer)));

    let srv = Data::Srv { priority: 0, weight: 100, port: 80, target: "t".to_owned() };
    let record = |data| Record { name: "n".to_owned(), ttl: 1, data };
    let query = Query::read(&plain("n", types::ANY)).unwrap();
    let answer = vec![record(srv), record(Data::Ptr("p".to_owned())), record(Data::Txt("ab".to_owned()))];
    let bytes = query.answer(&Response { answer, ..Response::of(Code::NoError) }, 512);
    let want: &[u8] = &[
        0xc0, 12, 0, 33, 0, 1, 0, 0, 0, 1, 0, 9, 0, 0, 0, 100, 0, 80, 1, b't', 0, // SRV
        0xc0, 12, 0, 12, 0, 1, 0, 0, 0, 1, 0, 3, 1, b'p', 0, // PTR
        0xc0, 12, 0, 16, 0, 1, 0, 0, 0, 1, 0, 3, 2, b'a', b'b', // TXT
    ];
    assert_eq!(&bytes[19..], want);
    let bytes = query.answer(&super::negative(Code::NxDomain), 512);
    assert_eq!((bytes[3] & 15, bytes[9]), (3, 1));
    assert!(bytes.ends_with(&30_u32.to_be_bytes()), "the least time to live");
}

#[test]
fn what_does_not_fit_is_said_to_be_missing() {
    let many: Vec<Record> = (0..100).map(|n| address("web.d", n)).collect();
    let query = Query::read(&plain("web.d", types::A)).unwrap();
    let check = |response: Response, size: usize, want: (bool, usize, usize)| {
        let bytes = query.answer(&response, size);
        assert!(bytes.len() <= size, "{}", bytes.len());
        let got = (bytes[2] & 2 != 0, usize::from(bytes[7]), usize::from(bytes[11]));
        assert_eq!(got, want);
    };
    let answer = Response { answer: many.clone(), ..Response::of(Code::NoError) };
    check(answer.clone(), 512, (true, 30, 0));
    check(answer, 65_535, (false, 100, 0));
    let additional = Response { answer: many[..2].to_vec(), additional: many, ..Response::of(Code::NoError) };
    check(additional, 512, (false, 2, 28));
}

/// The host's name server: it knows `far.example`, and over TCP alone `long.example`.
async fn stand_in() -> SocketAddr {
    let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = tcp.local_addr().unwrap();
    let udp = UdpSocket::bind(at).await.unwrap();
    let answer = |message: &[u8], by_tcp: bool| {
        let query = Query::read(message).unwrap();
        let known = |last| Response { answer: vec![address(&query.name, last)], ..Response::of(Code::NoError) };
        match query.name.as_str() {
            "far.example" => query.answer(&known(77), 512),
            "long.example" if by_tcp => query.answer(&known(78), 512),
            "long.example" => query.answer(&known(78), 40),
            _ => query.answer(&Response::of(Code::NxDomain), 512),
        }
    };
    tokio::spawn(async move {
        let mut buffer = [0; 2000];
        loop {
            let (length, from) = udp.recv_from(&mut buffer).await.unwrap();
            // Somebody guesses: neither number nor question are those of the query.
            udp.send_to(&question(1, "guess", types::A), from).await.unwrap();
            udp.send_to(&answer(&buffer[..length], false), from).await.unwrap();
        }
    });
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = tcp.accept().await.unwrap();
            let message = read_message(&mut stream).await.unwrap().unwrap();
            tokio::io::AsyncWriteExt::write_all(&mut stream, &framed(&answer(&message, true))).await.unwrap();
        }
    });
    at
}

/// A server whose machines' thread knows what this says, and the host's name server.
async fn server(knows: fn(&str) -> Found) -> SocketAddr {
    let upstream = stand_in().await;
    let file: PathBuf = std::env::temp_dir().join(format!("skeg-dns-{}-{}", std::process::id(), upstream.port()));
    std::fs::write(&file, "nameserver 127.0.0.1\n").unwrap();
    let (inbox, mut asked) = unbounded_channel();
    std::thread::spawn(move || {
        while let Some(inbound) = asked.blocking_recv() {
            if let Inbound::Resolve(lookup) = inbound {
                let found = knows(&lookup.name);
                lookup.reply.send(found).unwrap();
            }
        }
    });
    let sockets = Sockets::bind(IpAddr::V4(Ipv4Addr::LOCALHOST)).await.unwrap();
    let at = sockets.address();
    sockets.start_with(&tokio::runtime::Handle::current(), Resolvers::of(file, upstream.port()), inbox);
    at
}

async fn by_udp(server: SocketAddr, query: &[u8]) -> Vec<u8> {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.send_to(query, server).await.unwrap();
    let mut buffer = [0; 2000];
    let (length, _) = socket.recv_from(&mut buffer).await.unwrap();
    buffer[..length].to_vec()
}

async fn by_tcp(server: SocketAddr, queries: &[&[u8]]) -> Vec<Vec<u8>> {
    let mut stream = TcpStream::connect(server).await.unwrap();
    let mut answers = Vec::new();
    for query in queries {
        tokio::io::AsyncWriteExt::write_all(&mut stream, &framed(query)).await.unwrap();
        answers.push(read_message(&mut stream).await.unwrap().unwrap());
    }
    answers
}

fn knows(name: &str) -> Found {
    let alias = |to: &str| Record { name: name.to_owned(), ttl: 30, data: Data::Cname(to.to_owned()) };
    match name {
        "web.d.svc.cluster.local" => Found::Records(vec![address(name, 1), address(name, 2)], Vec::new()),
        "many.d.svc.cluster.local" => Found::Records((0..100).map(|n| address(name, n)).collect(), Vec::new()),
        "out.d.svc.cluster.local" => Found::Records(vec![alias("far.example")], Vec::new()),
        "long.d.svc.cluster.local" => Found::Records(vec![alias("long.example")], Vec::new()),
        "lost.d.svc.cluster.local" => Found::Records(vec![alias("no.example")], Vec::new()),
        "cluster.local" => Found::NoData,
        "early.cluster.local" => Found::Unknown,
        name if name.ends_with("cluster.local") => Found::NxDomain,
        _ => Found::NotOurs,
    }
}

/// Code, and the last numbers of the addresses in an answer, in order.
fn told(answer: &[u8]) -> (u16, Vec<u8>) {
    let (code, records) = addresses(answer).expect("it can be read");
    let last = |record: &Record| match record.data {
        Data::A(ip) => Some(ip.octets()[3]),
        _ => None,
    };
    let mut numbers: Vec<u8> = records.iter().filter_map(last).collect();
    numbers.sort_unstable();
    (code, numbers)
}

#[test]
fn a_server_answers_what_it_knows_and_asks_for_the_rest() {
    let threads = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    threads.block_on(async {
        let server = server(knows).await;
        let cases: [(&str, u16, &[u8]); 8] = [
            ("web.d.svc.cluster.local", 0, &[1, 2]),
            ("out.d.svc.cluster.local", 0, &[77]),
            ("long.d.svc.cluster.local", 0, &[78]),
            ("lost.d.svc.cluster.local", 3, &[]),
            ("none.d.svc.cluster.local", 3, &[]),
            ("cluster.local", 0, &[]),
            ("early.cluster.local", 2, &[]),
            ("far.example", 0, &[77]),
        ];
        for (name, code, want) in cases {
            let query = question(9, name, types::A);
            assert_eq!(told(&by_udp(server, &query).await), (code, want.to_vec()), "{name} by UDP");
            assert_eq!(told(&by_tcp(server, &[&query]).await[0]), (code, want.to_vec()), "{name} by TCP");
        }
        // More than fits: as many as fit by UDP, all by TCP, where a connection takes several queries.
        let many = plain("many.d.svc.cluster.local", types::A);
        let cut = by_udp(server, &many).await;
        assert_eq!((cut[2] & 2, told(&cut).1.len()), (2, 29));
        let whole = by_tcp(server, &[&many, &many]).await;
        assert_eq!(whole.iter().map(|answer| told(answer).1.len()).collect::<Vec<_>>(), [100, 100]);
        // The first address is another each time.
        let web = question(9, "web.d.svc.cluster.local", types::A);
        let first = |answer: &[u8]| addresses(answer).unwrap().1[0].clone();
        assert_ne!(first(&by_udp(server, &web).await), first(&by_udp(server, &web).await));
        // An answer that is not there says how long that may be remembered.
        let none = by_udp(server, &plain("none.d.svc.cluster.local", types::A)).await;
        assert_eq!((none[2] & 4, none[9]), (4, 1), "authoritative, with the start of the zone");
        assert!(none.ends_with(&30_u32.to_be_bytes()));
    });
}
