//! A network of pods in Docker, with the range that servers gave the node (`--docker-network`).

use std::net::Ipv4Addr;

use serde_json::{Value, json};

use super::engine::{Engine, Failure};
use crate::up::proxy::network;

/// Longest name of a device.
const LONGEST: usize = 15;

/// A network that containers are to have.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Network {
    /// Its name, and that of its bridge.
    pub name: String,
    /// The addresses of pods, of which the first is the host's.
    pub range: (Ipv4Addr, u8),
}

impl Network {
    /// A network of this name with a node's `spec.podCIDR`.
    pub fn new(name: &str, cidr: &str) -> Result<Network, String> {
        if name.is_empty() || name.len() > LONGEST || name == "bridge" {
            return Err(format!("error: --docker-network {name:?}: a name of at most {LONGEST} bytes, and not bridge"));
        }
        let range = network(cidr).ok_or_else(|| format!("error: the node's podCIDR {cidr:?} is no network of IPv4"))?;
        Ok(Network { name: name.to_owned(), range })
    }

    fn cidr(&self) -> String {
        format!("{}/{}", self.range.0, self.range.1)
    }

    fn body(&self) -> Value {
        let gateway = Ipv4Addr::from_bits(self.range.0.to_bits() + 1).to_string();
        json!({"Name": self.name, "Driver": "bridge", "CheckDuplicate": true,
            "IPAM": {"Driver": "default", "Config": [{"Subnet": self.cidr(), "Gateway": gateway}]},
            "Options": {"com.docker.network.bridge.name": self.name,
                "com.docker.network.bridge.enable_icc": "true",
                "com.docker.network.bridge.enable_ip_masquerade": "true"}})
    }

    /// Sees to it that the engine has the network. One of another range is made anew, unless containers are in it.
    pub(super) async fn ensure(&self, engine: &Engine) -> Result<(), String> {
        let error = |e: Failure| format!("error: the network {} of Docker: {e}", self.name);
        let path = format!("/networks/{}", self.name);
        match engine.get(&path).await {
            Ok(there) if self.is_as(&there) => return Ok(()),
            Ok(there) => {
                let within = there["Containers"].as_object().map_or(0, serde_json::Map::len);
                if within > 0 {
                    return Err(format!(
                        "error: the network {} of Docker has not the range {} of this node, and {within} containers are \
                         in it; end them (`docker rm --force`), and start the agent again",
                        self.name,
                        self.cidr()
                    ));
                }
                engine.remove(&path).await.map_err(error)?;
            }
            Err(e) if e.is_missing() => {}
            Err(e) => return Err(error(e)),
        }
        engine.post("/networks/create", Some(&self.body())).await.map(drop).map_err(error)?;
        tracing::info!(range = self.cidr(), "Docker has the network {} for pods", self.name);
        Ok(())
    }

    /// Whether this is what the engine says of it.
    fn is_as(&self, there: &Value) -> bool {
        let all = there["IPAM"]["Config"].as_array().into_iter().flatten();
        all.filter_map(|config| config["Subnet"].as_str()).eq([self.cidr()])
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::Network;

    #[test]
    fn a_network_has_the_range_of_its_node() {
        let network = Network::new("skeg0", "10.244.3.0/24").unwrap();
        let body = network.body();
        assert_eq!(body["IPAM"]["Config"], json!([{"Subnet": "10.244.3.0/24", "Gateway": "10.244.3.1"}]));
        let check =
            |config: Value, expect: bool| assert_eq!(network.is_as(&json!({"IPAM": {"Config": config}})), expect);
        check(json!([{"Subnet": "10.244.3.0/24", "Gateway": "10.244.3.1"}]), true);
        check(json!([{"Subnet": "10.244.4.0/24"}]), false);
        check(json!([]), false);
        check(Value::Null, false);
    }

    #[test]
    fn names_that_no_bridge_can_have_are_refused() {
        for (name, cidr, expect) in [
            ("bridge", "10.0.0.0/24", "not bridge"),
            ("", "10.0.0.0/24", "a name of at most 15"),
            ("sixteen-letters-", "10.0.0.0/24", "a name of at most 15"),
            ("skeg0", "fd00::/64", "no network of IPv4"),
        ] {
            let why = Network::new(name, cidr).unwrap_err();
            assert!(why.contains(expect), "{why}");
        }
    }
}
