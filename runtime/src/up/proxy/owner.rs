//! Who serves a table of nftables: what tells a cluster that runs from one that was killed.
//!
//! The process that serves a table holds a socket of the same name in the abstract namespace (unix(7)). That is as
//! local to a network as the table is, and ends with the process, however that ends.

use std::io::{self, ErrorKind};
use std::net::Ipv4Addr;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// Held by the process that serves a table.
#[derive(Debug)]
pub struct Ownership(#[expect(dead_code, reason = "that it is open is what it is for")] UnixDatagram);

fn address(table: &str) -> io::Result<SocketAddr> {
    SocketAddr::from_abstract_name(table)
}

impl Ownership {
    /// Becomes the one process of this network that serves the table.
    pub fn take(table: &str) -> Result<Ownership, String> {
        match address(table).and_then(|address| UnixDatagram::bind_addr(&address)) {
            Ok(socket) => Ok(Ownership(socket)),
            Err(e) if e.kind() == ErrorKind::AddrInUse => {
                Err(format!("another process of this cluster serves the table {table}"))
            }
            Err(e) => Err(format!("the table {table}: {e}")),
        }
    }
}

/// Whether a process serves the table. Where that cannot be told, one may.
pub fn runs(table: &str) -> bool {
    let asked = address(table).and_then(|address| UnixDatagram::unbound()?.connect_addr(&address));
    !asked.is_err_and(|e| e.kind() == ErrorKind::ConnectionRefused)
}

/// Whether two networks have an address in common.
pub fn overlap((a, a_length): (Ipv4Addr, u8), (b, b_length): (Ipv4Addr, u8)) -> bool {
    let shared = u32::from(a_length.min(b_length));
    shared == 0 || (a.to_bits() ^ b.to_bits()) >> (32 - shared) == 0
}
