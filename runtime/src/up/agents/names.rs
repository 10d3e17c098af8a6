//! The endpoint by which pods of this node reach its server of names: an EndpointSlice of the Service `kube-dns`, whose
//! traffic stays on its node. It goes with the Node.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::Method;
use serde_json::{Value, json};
use tokio::time::sleep;

use super::client::Client;

const SLICES: &str = "/apis/discovery.k8s.io/v1/namespaces/kube-system/endpointslices";
/// How often it is looked whether the slice is as it should be.
const INTERVAL: Duration = Duration::from_secs(30);
/// How long to wait after a failure.
const AGAIN: Duration = Duration::from_secs(2);

/// The slice. `uid` is the Node's.
fn slice(node: &str, uid: &str, at: SocketAddr) -> Value {
    let ports = ["UDP", "TCP"].map(|protocol| {
        let name = if protocol == "UDP" { "dns" } else { "dns-tcp" };
        json!({"name": name, "protocol": protocol, "port": at.port()})
    });
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {"name": format!("kube-dns-{node}"), "namespace": "kube-system",
            "labels": {"kubernetes.io/service-name": "kube-dns", "endpointslice.kubernetes.io/managed-by": "skeg.dev"},
            "ownerReferences": [{"apiVersion": "v1", "kind": "Node", "name": node, "uid": uid}]},
        "addressType": "IPv4",
        "endpoints": [{"addresses": [at.ip()], "nodeName": node, "conditions": {"ready": true}}],
        "ports": ports,
    })
}

/// Whether a slice is as it should be.
fn is_as(found: &Value, wanted: &Value) -> bool {
    let same = |pointer: &str| found.pointer(pointer) == wanted.pointer(pointer);
    ["/metadata/labels", "/metadata/ownerReferences", "/endpoints", "/ports"].into_iter().all(same)
}

/// Writes the slice if it is not as it should be.
async fn look(client: &Client, node: &str, at: SocketAddr) -> Result<(), String> {
    let found = client.call(Method::GET, format!("/api/v1/nodes/{node}"), None).await?;
    let uid = found["metadata"]["uid"].as_str().ok_or("the node has no UID")?;
    let mut wanted = slice(node, uid, at);
    let path = format!("{SLICES}/kube-dns-{node}");
    match client.call(Method::GET, path.clone(), None).await {
        Ok(found) if is_as(&found, &wanted) => return Ok(()),
        Ok(found) => {
            wanted["metadata"]["resourceVersion"] = found["metadata"]["resourceVersion"].clone();
            client.call(Method::PUT, path, Some(&wanted)).await?;
        }
        Err(why) if why.starts_with("404") => {
            client.call(Method::POST, SLICES.to_owned(), Some(&wanted)).await?;
        }
        Err(why) => return Err(why),
    }
    Ok(())
}

/// Keeps the slice for ever. `at` is where the server listens.
pub async fn keep(client: Arc<Client>, node: String, at: SocketAddr) {
    let mut said = String::new();
    loop {
        let wait = match look(&client, &node, at).await {
            Ok(()) => INTERVAL,
            Err(why) => {
                // A node that is new is not registered at once.
                if said != why {
                    tracing::info!("the endpoint of the node's names is not there yet: {why}");
                    said = why;
                }
                AGAIN
            }
        };
        sleep(wait).await;
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{is_as, slice};

    #[test]
    fn a_slice_of_another_port_is_written_again() {
        let at = |port: u16| slice("node-1", "u", ([172, 17, 0, 1], port).into());
        let mut stored = at(53);
        stored["metadata"]["resourceVersion"] = json!("7");
        assert!(is_as(&stored, &at(53)) && !is_as(&stored, &at(54)));
        assert!(!is_as(&stored, &slice("node-1", "new", ([172, 17, 0, 1], 53).into())));
        assert_eq!(
            stored["endpoints"][0],
            json!({"addresses": ["172.17.0.1"], "nodeName": "node-1",
            "conditions": {"ready": true}})
        );
    }
}
