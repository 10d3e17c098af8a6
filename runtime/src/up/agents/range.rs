//! The range of addresses that servers give a node (`spec.podCIDR`), which an agent waits for before it begins: the
//! network of its pods is made with it.

use std::time::Duration;

use hyper::Method;
use serde_json::{Value, json};

use super::client::Client;

/// How often it is looked whether there is one.
const RETRY: Duration = Duration::from_secs(1);

/// Waits until the Node has a range. One that is not registered yet is, as not ready: the agent completes it later.
pub async fn wait(client: &Client, node: &str) -> String {
    let path = format!("/api/v1/nodes/{node}");
    let mut said = String::new();
    loop {
        let found = client.call(Method::GET, path.clone(), None).await;
        let why = match found {
            Ok(found) => match cidr(&found) {
                Some(cidr) => return cidr,
                None => "it has none yet; servers give one with --allocate-node-cidrs and --cluster-cidr".to_owned(),
            },
            Err(why) if why.starts_with("404") => {
                let made = client.call(Method::POST, "/api/v1/nodes".to_owned(), Some(&bare(node))).await;
                made.err().unwrap_or_default()
            }
            Err(why) => why,
        };
        if why != said && !why.is_empty() {
            tracing::info!("the node waits for a range of addresses for its pods: {why}");
        }
        said = why;
        tokio::time::sleep(RETRY).await;
    }
}

fn cidr(node: &Value) -> Option<String> {
    node["spec"]["podCIDR"].as_str().filter(|cidr| !cidr.is_empty()).map(str::to_owned)
}

/// A Node of which nothing is known but its name. Nothing is to be scheduled to it.
fn bare(node: &str) -> Value {
    let taint = json!({"key": "node.kubernetes.io/not-ready", "effect": "NoSchedule"});
    json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": node, "labels": {"kubernetes.io/hostname": node}},
        "spec": {"taints": [taint]}})
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::cidr;

    #[test]
    fn an_empty_range_is_none() {
        assert_eq!(cidr(&json!({"spec": {"podCIDR": "10.0.0.0/24"}})).as_deref(), Some("10.0.0.0/24"));
        assert_eq!(cidr(&json!({"spec": {"podCIDR": ""}})), None);
        assert_eq!(cidr(&json!({"spec": {}})), None);
    }
}
