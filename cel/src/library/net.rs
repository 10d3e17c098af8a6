//! IP addresses, networks and URLs.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::collections::BTreeMap;
use std::rc::Rc;

use super::url::Url;
use crate::value::{Error, Key, Value, fail};

/// Reads an address as Kubernetes' library does: without a zone, and without IPv4 inside of IPv6.
fn address(text: &str) -> Result<IpAddr, String> {
    match text.parse() {
        Ok(IpAddr::V6(v6)) if v6.to_ipv4_mapped().is_some() => {
            Err(format!("IPv4-mapped IPv6 address is not allowed: {text:?}"))
        }
        Ok(ip) => Ok(ip),
        Err(_) => Err(format!(
            "IP Address {text:?} parse error during conversion from string: ParseAddr({text:?}): unable to parse IP"
        )),
    }
}

fn network(text: &str) -> Result<(IpAddr, u8), String> {
    let bad = || format!("network address parse error during conversion from string: netip.ParsePrefix({text:?})");
    let (ip, bits) = text.split_once('/').ok_or_else(bad)?;
    let ip = address(ip).map_err(|_| bad())?;
    let plain = bits == "0" || !bits.starts_with(['0', '+']);
    match bits.parse::<u8>() {
        Ok(bits) if plain && bits <= width(ip) => Ok((ip, bits)),
        _ => Err(bad()),
    }
}

fn width(ip: IpAddr) -> u8 {
    if ip.is_ipv4() { 32 } else { 128 }
}

/// The address with only the first bits kept.
fn masked(ip: IpAddr, bits: u8) -> IpAddr {
    match ip {
        IpAddr::V4(ip) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(bits)).unwrap_or(0);
            IpAddr::V4(Ipv4Addr::from(u32::from(ip) & mask))
        }
        IpAddr::V6(ip) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(bits)).unwrap_or(0);
            IpAddr::V6(Ipv6Addr::from(u128::from(ip) & mask))
        }
    }
}

fn contains(of: (IpAddr, u8), ip: IpAddr, bits: u8) -> bool {
    of.0.is_ipv4() == ip.is_ipv4() && bits >= of.1 && masked(ip, of.1) == masked(of.0, of.1)
}

fn is_link_local(ip: IpAddr, multicast: bool) -> bool {
    match (ip, multicast) {
        (IpAddr::V4(ip), false) => ip.is_link_local(),
        (IpAddr::V6(ip), false) => ip.segments()[0] & 0xffc0 == 0xfe80,
        (IpAddr::V4(ip), true) => ip.octets()[..3] == [224, 0, 0],
        (IpAddr::V6(ip), true) => ip.segments()[0] & 0xff0f == 0xff02,
    }
}

fn is_global_unicast(ip: IpAddr) -> bool {
    let broadcast = matches!(ip, IpAddr::V4(v4) if v4.is_broadcast());
    !(broadcast || ip.is_unspecified() || ip.is_loopback() || ip.is_multicast() || is_link_local(ip, false))
}

/// Calls a function of this file.
pub(super) fn call<'a>(name: &str, args: &[Value<'a>]) -> Option<Result<Value<'a>, Error>> {
    let bool = |is| Ok(Value::Bool(is));
    Some(match (name, args) {
        ("ip", [Value::String(text)]) => address(text).map(Value::Ip).map_err(Error::Failed),
        ("ip", [Value::Cidr(ip, _)]) => Ok(Value::Ip(*ip)),
        ("isIP", [Value::String(text)]) => bool(address(text).is_ok()),
        ("ip.isCanonical", [Value::String(text)]) => match address(text) {
            Ok(ip) => bool(ip.to_string() == **text),
            Err(why) => fail(why),
        },
        ("family", [Value::Ip(ip)]) => Ok(Value::Int(if ip.is_ipv4() { 4 } else { 6 })),
        ("isUnspecified", [Value::Ip(ip)]) => bool(ip.is_unspecified()),
        ("isLoopback", [Value::Ip(ip)]) => bool(ip.is_loopback()),
        ("isLinkLocalMulticast", [Value::Ip(ip)]) => bool(is_link_local(*ip, true)),
        ("isLinkLocalUnicast", [Value::Ip(ip)]) => bool(is_link_local(*ip, false)),
        ("isGlobalUnicast", [Value::Ip(ip)]) => bool(is_global_unicast(*ip)),
        ("cidr", [Value::String(text)]) => network(text).map(|(ip, n)| Value::Cidr(ip, n)).map_err(Error::Failed),
        ("isCIDR", [Value::String(text)]) => bool(network(text).is_ok()),
        ("containsIP", [Value::Cidr(ip, bits), Value::Ip(other)]) => bool(contains((*ip, *bits), *other, 128)),
        ("containsIP", [Value::Cidr(ip, bits), Value::String(other)]) => match address(other) {
            Ok(other) => bool(contains((*ip, *bits), other, 128)),
            Err(why) => fail(why),
        },
        ("containsCIDR", [Value::Cidr(ip, bits), Value::Cidr(other, n)]) => bool(contains((*ip, *bits), *other, *n)),
        ("containsCIDR", [Value::Cidr(ip, bits), Value::String(other)]) => match network(other) {
            Ok((other, n)) => bool(contains((*ip, *bits), other, n)),
            Err(why) => fail(why),
        },
        ("masked", [Value::Cidr(ip, bits)]) => Ok(Value::Cidr(masked(*ip, *bits), *bits)),
        ("prefixLength", [Value::Cidr(_, bits)]) => Ok(Value::Int(i64::from(*bits))),
        ("string", [Value::Ip(ip)]) => Ok(Value::text(ip.to_string())),
        ("string", [Value::Cidr(ip, bits)]) => Ok(Value::text(format!("{ip}/{bits}"))),
        ("url", [Value::String(text)]) => match Url::parse(text) {
            Some(url) => Ok(Value::Url(Rc::new(url))),
            None => {
                fail(format!("URL parse error during conversion from string: parse {text:?}: invalid URI for request"))
            }
        },
        ("isURL", [Value::String(text)]) => bool(Url::parse(text).is_some()),
        ("getScheme", [Value::Url(url)]) => Ok(Value::text(url.scheme.clone())),
        ("getHost", [Value::Url(url)]) => Ok(Value::text(url.host.clone())),
        ("getHostname", [Value::Url(url)]) => Ok(Value::text(url.host_and_port().0)),
        ("getPort", [Value::Url(url)]) => Ok(Value::text(url.host_and_port().1)),
        ("getEscapedPath", [Value::Url(url)]) => Ok(Value::text(url.path.clone())),
        ("getQuery", [Value::Url(url)]) => {
            let list = |values: &Vec<String>| Value::list(values.iter().map(|v| Value::text(v.clone())).collect());
            let all = url.query.iter().map(|(name, values)| (Key::String(name.clone()), list(values)));
            Ok(Value::Map(Rc::new(all.collect::<BTreeMap<_, _>>())))
        }
        _ => return None,
    })
}
