//! What a Docker node needs to serve Services and their names: its bridge, nftables, and sockets for names.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::engine::Engine;
use crate::up::dns::Sockets;
use crate::up::proxy::{Nftables, network};

/// Whether what passes a bridge from port to port is seen by netfilter: without it, the answers of a pod on the same
/// bridge are not translated back.
const BRIDGE_NETFILTER: &str = "/proc/sys/net/bridge/bridge-nf-call-iptables";
const FORWARDING: &str = "/proc/sys/net/ipv4/ip_forward";
/// Which of a network's addresses is the cluster DNS's (kubeadm's choice).
const DNS_HOST: u32 = 10;

/// The bridge of pods: Docker's default one, or that of a network of their own.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Bridge {
    /// Name of its device.
    pub device: String,
    /// The host's address there, which is the pods' gateway.
    pub gateway: Ipv4Addr,
    /// The network of its pods.
    pub network: (Ipv4Addr, u8),
}

/// All that serves Services, found to work.
#[derive(Debug)]
pub struct Services {
    /// What rules are made with.
    pub nftables: Nftables,
    /// Where names are served.
    pub names: Sockets,
    /// The cluster IP of the Service `kube-dns`.
    pub dns: Ipv4Addr,
    /// The bridge.
    pub bridge: Bridge,
}

impl Bridge {
    /// The bridge, by what the engine says of its network.
    fn of(told: &Value) -> Option<Bridge> {
        let device = told["Options"]["com.docker.network.bridge.name"].as_str()?.to_owned();
        let v4 = told["IPAM"]["Config"].as_array()?.iter().find_map(|config| {
            let network = network(config["Subnet"].as_str()?)?;
            // Old engines leave it out where it is the first of the network.
            let first = Ipv4Addr::from_bits(network.0.to_bits() + 1);
            let gateway = config["Gateway"].as_str().and_then(|gateway| gateway.parse().ok()).unwrap_or(first);
            Some((gateway, network))
        });
        let (gateway, network) = v4?;
        Some(Bridge { device, gateway, network })
    }
}

/// The address of the cluster DNS in a network of cluster IPs; `None` if that is too small.
pub fn dns_address((network, length): (Ipv4Addr, u8)) -> Option<Ipv4Addr> {
    // The last address of a network is not given away.
    (length <= 28).then(|| Ipv4Addr::from_bits(network.to_bits() + DNS_HOST))
}

fn is_on(path: &str) -> bool {
    fs::read_to_string(path).is_ok_and(|text| text.trim() == "1")
}

/// Looks for all that is needed. `cluster` names the cluster, `services` is its network of cluster IPs, `pods` is the
/// name of Docker's network for pods. Says what is missing, or what is not as it should be.
pub(super) async fn find(
    engine: &Engine,
    cluster: &str,
    services: (Ipv4Addr, u8),
    pods: &str,
) -> Result<Services, String> {
    let told = engine.get(&format!("/networks/{pods}")).await.map_err(|e| e.to_string())?;
    let none = || format!("Docker has no bridge with IPv4 (`docker network inspect {pods}`)");
    let bridge = Bridge::of(&told).ok_or_else(none)?;
    let (network, length) = services;
    let dns = dns_address(services);
    let dns = dns.ok_or_else(|| format!("{network}/{length} is too small for the cluster DNS; /28 is enough"))?;
    if !is_on(FORWARDING) {
        return Err(format!("this host forwards no packets: `sysctl net.ipv4.ip_forward` is not 1 ({FORWARDING})"));
    }
    let masquerade_within = (!is_on(BRIDGE_NETFILTER)).then_some(bridge.network);
    let nftables = Nftables::find(cluster, services, masquerade_within)?;
    nftables.clear();
    nftables.warnings().iter().for_each(|warning| tracing::warn!("{warning}"));
    let names = Sockets::bind(IpAddr::V4(bridge.gateway)).await;
    let names = names.map_err(|e| format!("names cannot be served at the bridge's address {}: {e}", bridge.gateway))?;
    Ok(Services { nftables, names, dns, bridge })
}

/// Lets a pod reach itself by a Service: the bridge must send a packet back to the port that it came from (the
/// kubelet's `--hairpin-mode=hairpin-veth`). `pid` is a process in the pod's network.
pub(super) fn allow_hairpin(pid: u64, bridge: &str) -> io::Result<()> {
    // The devices of the pod's network, each with the index that the other end of its pair knows it by.
    let devices = fs::read_to_string(format!("/proc/{pid}/net/dev_mcast"))?;
    let indices = devices.lines().filter_map(|line| line.split_whitespace().next()).collect::<Vec<_>>();
    let ports = Path::new("/sys/class/net").join(bridge).join("brif");
    for port in fs::read_dir(ports)? {
        let name = port?.file_name();
        let device: PathBuf = Path::new("/sys/class/net").join(name);
        let peer = fs::read_to_string(device.join("iflink"))?;
        if indices.contains(&peer.trim()) {
            return fs::write(device.join("brport/hairpin_mode"), "1");
        }
    }
    Err(io::Error::new(io::ErrorKind::NotFound, "no port of the bridge leads to the pod"))
}

#[cfg(test)]
mod tests {
    use super::{Bridge, dns_address};
    use serde_json::{Value, json};
    use std::net::Ipv4Addr;

    #[test]
    fn the_bridge_is_what_the_engine_says() {
        let check = |config: Value, want: Option<(&str, u8)>| {
            let told = json!({"Options": {"com.docker.network.bridge.name": "docker0"}, "IPAM": {"Config": config}});
            let got = Bridge::of(&told).map(|bridge| (bridge.gateway.to_string(), bridge.network.1));
            assert_eq!(got, want.map(|(gateway, length)| (gateway.to_owned(), length)), "{told}");
        };
        check(json!([{"Subnet": "172.17.0.0/16", "Gateway": "172.17.0.9"}]), Some(("172.17.0.9", 16)));
        check(json!([{"Subnet": "172.17.0.0/16"}]), Some(("172.17.0.1", 16)));
        check(json!([{"Subnet": "fd00::/64"}, {"Subnet": "10.9.0.0/24"}]), Some(("10.9.0.1", 24)));
        check(json!([{"Subnet": "fd00::/64"}]), None);
        check(Value::Null, None);
    }

    #[test]
    fn the_cluster_dns_has_the_tenth_address() {
        let at = |length| dns_address((Ipv4Addr::new(10, 96, 0, 0), length)).map(|ip| ip.to_string());
        assert_eq!(at(12).as_deref(), Some("10.96.0.10"));
        assert_eq!(at(28).as_deref(), Some("10.96.0.10"));
        assert_eq!(at(29), None);
    }
}
