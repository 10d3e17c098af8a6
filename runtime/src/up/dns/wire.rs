//! The wire format of DNS, as far as a server needs it that answers one question a message and hands on all others.
//!
//! A file of our own and not a crate: five types of records and one option are read and written, and nothing is
//! resolved here. Names are text in lower case, labels joined by dots, without a dot at the end; what cannot be text of
//! host names is escaped (`\046`), so that no label can pretend to be two.
//!
//! Source: RFC 1035 (messages), 2308 (negative answers), 2782 (SRV), 3596 (AAAA), 6891 (EDNS).

use std::fmt::Write;
use std::net::{Ipv4Addr, Ipv6Addr};

/// Types of records.
pub mod types {
    /// An IPv4 address.
    pub const A: u16 = 1;
    /// An alias.
    pub const CNAME: u16 = 5;
    /// The start of a zone.
    pub const SOA: u16 = 6;
    /// A name, for a reverse lookup.
    pub const PTR: u16 = 12;
    /// Text.
    pub const TXT: u16 = 16;
    /// An IPv6 address.
    pub const AAAA: u16 = 28;
    /// A service's host and port.
    pub const SRV: u16 = 33;
    /// The pseudo record of EDNS.
    pub const OPT: u16 = 41;
    /// Every type.
    pub const ANY: u16 = 255;
}

/// Response codes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Code {
    /// All is well; there may be nothing to answer.
    NoError = 0,
    /// The query cannot be read.
    FormErr = 1,
    /// The server cannot tell now.
    ServFail = 2,
    /// There is no such name.
    NxDomain = 3,
    /// The server does not do that.
    NotImp = 4,
    /// The server does not want to.
    Refused = 5,
    /// A version of EDNS that is not known; its upper bits are in the pseudo record.
    BadVers = 16,
}

const HEADER: usize = 12;
const INTERNET: u16 = 1;
/// Longest name in bytes (RFC 1035, 2.3.4).
const LONGEST_NAME: usize = 255;
/// Largest UDP message without EDNS.
const PLAIN_UDP: usize = 512;
/// Largest UDP message that fits into the packets of every network (the recommendation of DNS Flag Day 2020).
pub const LARGEST_UDP: usize = 1232;

/// A question.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Query {
    id: u16,
    /// Whether the client asks for recursion, which is repeated in the answer.
    recursion: bool,
    /// The name that is asked for.
    pub name: String,
    /// The type that is asked for.
    pub type_: u16,
    /// The bytes of the question, which the answer repeats.
    question: Vec<u8>,
    /// The largest UDP message that the client takes; `None` if it does not know EDNS.
    edns: Option<usize>,
}

/// Why a message is no question that can be answered.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Bad {
    /// It is not answered: a response, or too short to have a number.
    Silence,
    /// It is answered by this message.
    Told(Vec<u8>),
}

/// The data of a record.
#[derive(Clone, PartialEq, Eq, Debug)]
#[allow(missing_docs)]
pub enum Data {
    A(Ipv4Addr),
    Aaaa(Ipv6Addr),
    Cname(String),
    Ptr(String),
    Srv { priority: u16, weight: u16, port: u16, target: String },
    Txt(String),
    Soa { primary: String, contact: String, serial: u32, ttl: u32 },
}

/// A record.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Record {
    /// Whose it is.
    pub name: String,
    /// Time to live in seconds.
    pub ttl: u32,
    /// What it says.
    pub data: Data,
}

/// An answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Response {
    /// How it went.
    pub code: Code,
    /// Whether this server decides about the name.
    pub authoritative: bool,
    /// The answer section.
    pub answer: Vec<Record>,
    /// The authority section.
    pub authority: Vec<Record>,
    /// The additional section.
    pub additional: Vec<Record>,
}

impl Response {
    /// An answer of this code without any record.
    pub fn of(code: Code) -> Response {
        Response { code, authoritative: false, answer: Vec::new(), authority: Vec::new(), additional: Vec::new() }
    }
}

/// Reads a message.
struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    fn byte(&mut self) -> Option<u8> {
        let byte = *self.bytes.get(self.at)?;
        self.at += 1;
        Some(byte)
    }

    fn u16(&mut self) -> Option<u16> {
        Some(u16::from_be_bytes([self.byte()?, self.byte()?]))
    }

    fn u32(&mut self) -> Option<u32> {
        Some(u32::from(self.u16()?) << 16 | u32::from(self.u16()?))
    }

    fn take(&mut self, length: usize) -> Option<&[u8]> {
        let bytes = self.bytes.get(self.at..self.at.checked_add(length)?)?;
        self.at += length;
        Some(bytes)
    }

    /// A name, following pointers to what stands before them.
    fn name(&mut self) -> Option<String> {
        let (mut name, mut length) = (String::new(), 0);
        // Where reading goes on after the name, once a pointer has been followed.
        let mut after = None;
        // A pointer must lead further to the front than the last one, so that there is no circle.
        let mut limit = self.at;
        loop {
            let head = self.byte()?;
            match head {
                0 => break,
                1..=63 => {
                    length += 1 + usize::from(head);
                    if length >= LONGEST_NAME {
                        return None;
                    }
                    if !name.is_empty() {
                        name.push('.');
                    }
                    for byte in self.take(usize::from(head))? {
                        match byte.to_ascii_lowercase() {
                            plain @ (b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_') => name.push(char::from(plain)),
                            other => write!(name, "\\{other:03}").expect("text can be written"),
                        }
                    }
                }
                192.. => {
                    let to = usize::from(head & 63) << 8 | usize::from(self.byte()?);
                    if to >= limit {
                        return None;
                    }
                    after.get_or_insert(self.at);
                    (self.at, limit) = (to, to);
                }
                64..=191 => return None,
            }
        }
        self.at = after.unwrap_or(self.at);
        Some(name)
    }
}

fn header(id: u16, flags: u16, counts: [usize; 4]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(LARGEST_UDP);
    bytes.extend(id.to_be_bytes());
    bytes.extend(flags.to_be_bytes());
    for count in counts {
        let count = u16::try_from(count).expect("sections are cut to what fits a message");
        bytes.extend(count.to_be_bytes());
    }
    bytes
}

/// A refusal of what could not be read whole.
fn refusal(id: u16, flags: u16, code: Code) -> Bad {
    // The operation and the wish for recursion are repeated.
    Bad::Told(header(id, 0x8000 | flags & 0x7900 | code as u16, [0; 4]))
}

impl Query {
    /// Reads a query.
    pub fn read(bytes: &[u8]) -> Result<Query, Bad> {
        let mut reader = Reader { bytes, at: 0 };
        let (Some(id), Some(flags)) = (reader.u16(), reader.u16()) else { return Err(Bad::Silence) };
        if flags & 0x8000 != 0 {
            return Err(Bad::Silence);
        }
        if flags & 0x7800 != 0 {
            return Err(refusal(id, flags, Code::NotImp));
        }
        let malformed = || refusal(id, flags, Code::FormErr);
        let mut counts = [0; 4];
        for count in &mut counts {
            *count = reader.u16().ok_or_else(malformed)?;
        }
        if counts[0] != 1 {
            return Err(malformed());
        }
        let name = reader.name().ok_or_else(malformed)?;
        let type_ = reader.u16().ok_or_else(malformed)?;
        let class = reader.u16().ok_or_else(malformed)?;
        let question = bytes[HEADER..reader.at].to_vec();
        if class != INTERNET && class != types::ANY {
            return Err(refusal(id, flags, Code::Refused));
        }
        let mut query = Query { id, recursion: flags & 0x100 != 0, name, type_, question, edns: None };
        for _ in 0..u32::from(counts[1]) + u32::from(counts[2]) + u32::from(counts[3]) {
            let name = reader.name().ok_or_else(malformed)?;
            let (type_, class) = (reader.u16().ok_or_else(malformed)?, reader.u16().ok_or_else(malformed)?);
            let ttl = reader.u32().ok_or_else(malformed)?;
            let length = reader.u16().ok_or_else(malformed)?;
            reader.take(usize::from(length)).ok_or_else(malformed)?;
            if type_ == types::OPT {
                if query.edns.is_some() || !name.is_empty() {
                    return Err(malformed());
                }
                query.edns = Some(usize::from(class).max(PLAIN_UDP));
                if (ttl >> 16) & 0xff != 0 {
                    return Err(Bad::Told(query.answer(&Response::of(Code::BadVers), LARGEST_UDP)));
                }
            }
        }
        Ok(query)
    }

    /// The largest answer that the client takes by UDP.
    pub fn udp_size(&self) -> usize {
        self.edns.unwrap_or(PLAIN_UDP).min(LARGEST_UDP)
    }

    /// The answer's bytes, at most this many. If not all records fit, it says that it is truncated; additional records
    /// that do not fit are left out without a word.
    pub fn answer(&self, response: &Response, size: usize) -> Vec<u8> {
        let mut code = response.code as u16;
        let opt = self.edns.map(|_| {
            let mut opt = vec![0];
            opt.extend(types::OPT.to_be_bytes());
            opt.extend((LARGEST_UDP as u16).to_be_bytes());
            opt.extend([(code >> 4) as u8, 0, 0, 0, 0, 0]);
            opt
        });
        code &= 15;
        let opt = opt.unwrap_or_default();
        let room = size.saturating_sub(opt.len());
        let mut bytes = vec![0; HEADER];
        bytes.extend(&self.question);
        let mut counts = [1, 0, 0, 0];
        let mut truncated = false;
        let sections = [&response.answer, &response.authority, &response.additional];
        for (n, section) in sections.into_iter().enumerate() {
            for record in section.iter().filter(|_| !truncated) {
                let end = bytes.len();
                self.write(record, &mut bytes);
                if bytes.len() > room {
                    bytes.truncate(end);
                    truncated = n < 2;
                    break;
                }
                counts[n + 1] += 1;
            }
        }
        if !opt.is_empty() {
            bytes.extend(opt);
            counts[3] += 1;
        }
        let mut flags = 0x8080 | code;
        for (is, flag) in [(self.recursion, 0x100), (response.authoritative, 0x400), (truncated, 0x200)] {
            flags |= if is { flag } else { 0 };
        }
        bytes[..HEADER].copy_from_slice(&header(self.id, flags, counts));
        bytes
    }

    fn write(&self, record: &Record, bytes: &mut Vec<u8>) {
        let type_ = match &record.data {
            Data::A(_) => types::A,
            Data::Aaaa(_) => types::AAAA,
            Data::Cname(_) => types::CNAME,
            Data::Ptr(_) => types::PTR,
            Data::Srv { .. } => types::SRV,
            Data::Txt(_) => types::TXT,
            Data::Soa { .. } => types::SOA,
        };
        if record.name == self.name {
            // A pointer to the question.
            bytes.extend((0xc000 | HEADER as u16).to_be_bytes());
        } else {
            put_name(&record.name, bytes);
        }
        bytes.extend(type_.to_be_bytes());
        bytes.extend(INTERNET.to_be_bytes());
        bytes.extend(record.ttl.to_be_bytes());
        let at = bytes.len();
        bytes.extend([0, 0]);
        match &record.data {
            Data::A(ip) => bytes.extend(ip.octets()),
            Data::Aaaa(ip) => bytes.extend(ip.octets()),
            Data::Cname(name) | Data::Ptr(name) => put_name(name, bytes),
            Data::Srv { priority, weight, port, target } => {
                [priority, weight, port].into_iter().for_each(|number| bytes.extend(number.to_be_bytes()));
                put_name(target, bytes);
            }
            Data::Txt(text) => {
                for part in text.as_bytes().chunks(255) {
                    bytes.push(part.len() as u8);
                    bytes.extend(part);
                }
            }
            Data::Soa { primary, contact, serial, ttl } => {
                put_name(primary, bytes);
                put_name(contact, bytes);
                // Refresh, retry and expiry are for secondary servers, of which there are none; CoreDNS's.
                for number in [*serial, 7200, 1800, 86_400, *ttl] {
                    bytes.extend(number.to_be_bytes());
                }
            }
        }
        let length = u16::try_from(bytes.len() - at - 2).expect("names and texts are short");
        bytes[at..at + 2].copy_from_slice(&length.to_be_bytes());
    }
}

/// Writes a name. Labels that are too long for DNS cannot be in Kubernetes' names; of an alias' target, which a user
/// wrote, what does not fit is cut off.
fn put_name(name: &str, bytes: &mut Vec<u8>) {
    let mut length = 1;
    for label in name.split('.').filter(|label| !label.is_empty()) {
        let label = plain(label);
        let label = &label[..label.len().min(63)];
        length += 1 + label.len();
        if length > LONGEST_NAME {
            break;
        }
        bytes.push(label.len() as u8);
        bytes.extend(label);
    }
    bytes.push(0);
}

/// The bytes of a label that [`Reader::name`] has escaped.
fn plain(label: &str) -> Vec<u8> {
    let (mut bytes, mut rest) = (Vec::new(), label.as_bytes());
    while let Some((first, after)) = rest.split_first() {
        let escaped =
            after.get(..3).filter(|_| *first == b'\\').and_then(|d| std::str::from_utf8(d).ok()?.parse().ok());
        match escaped {
            Some(byte) => {
                bytes.push(byte);
                rest = &after[3..];
            }
            None => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    bytes
}

/// A query for a name, as a resolver sends it; `None` if that is no name.
pub fn question(id: u16, name: &str, type_: u16) -> Vec<u8> {
    let mut bytes = header(id, 0x100, [1, 0, 0, 1]);
    put_name(name, &mut bytes);
    bytes.extend(type_.to_be_bytes());
    bytes.extend(INTERNET.to_be_bytes());
    bytes.push(0);
    bytes.extend(types::OPT.to_be_bytes());
    bytes.extend((LARGEST_UDP as u16).to_be_bytes());
    bytes.extend([0; 6]);
    bytes
}

/// Whether a message is the response to a query: its number and its question are the same.
pub fn is_response(query: &[u8], response: &[u8]) -> bool {
    let read = |bytes: &[u8]| {
        let mut reader = Reader { bytes, at: 0 };
        let (id, flags, count) = (reader.u16()?, reader.u16()?, reader.u16()?);
        reader.at = HEADER;
        // A server that cannot read the query may leave the question out.
        let question = if count == 0 { None } else { Some((reader.name()?, reader.u16()?, reader.u16()?)) };
        Some((id, flags & 0x8000 != 0, question))
    };
    match (read(query), read(response)) {
        (Some((id, false, asked)), Some((same, true, told))) => id == same && (told.is_none() || told == asked),
        _ => false,
    }
}

/// The addresses and aliases of a response's answer section, and its code; `None` if it cannot be read.
pub fn addresses(response: &[u8]) -> Option<(u16, Vec<Record>)> {
    let mut reader = Reader { bytes: response, at: 2 };
    let code = reader.u16()? & 15;
    let (questions, answers) = (reader.u16()?, reader.u16()?);
    reader.at = HEADER;
    for _ in 0..questions {
        reader.name()?;
        reader.take(4)?;
    }
    let mut records = Vec::new();
    for _ in 0..answers {
        let name = reader.name()?;
        let (type_, _class, ttl, length) = (reader.u16()?, reader.u16()?, reader.u32()?, usize::from(reader.u16()?));
        let end = reader.at + length;
        let data = match (type_, length) {
            (types::A, 4) => Data::A(Ipv4Addr::from_bits(reader.u32()?)),
            (types::AAAA, 16) => Data::Aaaa(Ipv6Addr::from(<[u8; 16]>::try_from(reader.take(16)?).ok()?)),
            (types::CNAME, _) => Data::Cname(reader.name()?),
            _ => {
                reader.take(length)?;
                continue;
            }
        };
        if reader.at != end {
            return None;
        }
        records.push(Record { name, ttl, data });
    }
    Some((code, records))
}
