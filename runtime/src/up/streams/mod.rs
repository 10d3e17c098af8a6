//! Streams into simulated containers: `kubectl logs`, `exec`, `attach`, `cp` and `port-forward`.
//!
//! Clients come by WebSocket (KEP-4006) or, older ones, by SPDY/3.1. The containers' logs, files and processes live on
//! the machines' thread (`skeg_sim::container`); bytes cross as [`visit::Visit`] and [`visit::Heard`].
//!
//! Source: <https://kep.k8s.io/4006>, kubernetes `staging/src/k8s.io/kubelet/pkg/cri/streaming`.

mod command;
mod environment;
mod exec;
pub mod log;
mod pod;
mod port_forward;
pub mod remote;
mod spdy;
mod upgrade;
pub mod visit;
mod websocket;

use serde_json::{Value, json};

use super::params::Params;

pub use exec::{attach, exec};
pub use pod::container;
pub use port_forward::{Ports, port_forward};
pub use upgrade::Upgrade;

/// What goes with a connection to a subresource of a pod, as admission sees it; `None` for logs, which are read.
pub fn options(subresource: &str, params: &Params) -> Option<(&'static str, Value)> {
    let (subresource, kind) = match subresource {
        "exec" => ("exec", "PodExecOptions"),
        "attach" => ("attach", "PodAttachOptions"),
        "portforward" => ("portforward", "PodPortForwardOptions"),
        _ => return None,
    };
    let mut options = json!({"kind": kind, "apiVersion": "v1"});
    if subresource == "portforward" {
        let ports: Vec<i32> = params.all("ports").filter_map(|port| port.parse().ok()).collect();
        if !ports.is_empty() {
            options["ports"] = json!(ports);
        }
        return Some((subresource, options));
    }
    for name in ["stdin", "stdout", "stderr", "tty"] {
        if params.flag(name) {
            options[name] = json!(true);
        }
    }
    if let Some(container) = params.said("container") {
        options["container"] = json!(container);
    }
    if subresource == "exec" {
        options["command"] = params.all("command").collect();
    }
    Some((subresource, options))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::options;
    use crate::up::params::Params;

    #[test]
    fn what_goes_with_a_connection() {
        let of = |subresource, query| options(subresource, &Params::parse(Some(query)));
        let exec = json!({"kind": "PodExecOptions", "apiVersion": "v1", "stdout": true, "command": ["ls", "-l"]});
        assert_eq!(of("exec", "stdout=true&tty=false&command=ls&command=-l"), Some(("exec", exec)));
        let attach = json!({"kind": "PodAttachOptions", "apiVersion": "v1", "stdin": true, "container": "c"});
        assert_eq!(of("attach", "stdin=1&container=c"), Some(("attach", attach)));
        let ports = json!({"kind": "PodPortForwardOptions", "apiVersion": "v1", "ports": [80, 81]});
        assert_eq!(of("portforward", "ports=80&ports=81"), Some(("portforward", ports)));
        assert_eq!(of("log", "follow=true"), None);
    }
}
