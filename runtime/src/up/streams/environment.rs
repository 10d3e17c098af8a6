//! The environment of a process that a client starts in a container.

use std::collections::BTreeMap;

use serde_json::Value;
use skeg_core::api::Status;
use skeg_sim::container::environment;

/// The variables of a container of a pod.
pub fn of(pod: &Value, container: &Value) -> Result<BTreeMap<String, String>, Status> {
    let hostname = pod["spec"]["hostname"].as_str().or(pod["metadata"]["name"].as_str()).unwrap_or_default();
    let container = serde_json::from_value(container.clone())
        .map_err(|why| Status::internal(format!("the container cannot be read: {why}")))?;
    Ok(environment::of(&container, hostname, |path| field(pod, path)))
}

/// A field of the downward API.
fn field(pod: &Value, path: &str) -> Option<String> {
    let keyed = |list: &str| {
        let key = path.strip_prefix(&format!("metadata.{list}['"))?.strip_suffix("']")?;
        Some(pod["metadata"][list][key].as_str().unwrap_or_default().to_owned())
    };
    let at = |pointer: &str| pod.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
    match path {
        "metadata.name" => at("/metadata/name"),
        "metadata.namespace" => at("/metadata/namespace"),
        "metadata.uid" => at("/metadata/uid"),
        "spec.nodeName" => at("/spec/nodeName"),
        "spec.serviceAccountName" => at("/spec/serviceAccountName"),
        "status.hostIP" => at("/status/hostIP"),
        "status.podIP" => at("/status/podIP"),
        _ => keyed("labels").or_else(|| keyed("annotations")),
    }
}

#[cfg(test)]
mod tests {
    use super::of;
    use serde_json::json;

    #[test]
    fn fields_of_the_pod_have_their_values() {
        let pod = json!({"metadata": {"name": "web-0", "namespace": "n", "labels": {"a/b": "c"}},
            "status": {"podIP": "10.0.0.1"}});
        let check = |path: &str, want: Option<&str>| {
            let from = json!({"fieldRef": {"fieldPath": path}});
            let env = of(&pod, &json!({"name": "c", "env": [{"name": "X", "valueFrom": from}]})).unwrap();
            assert_eq!((env.get("X").map(String::as_str), env["HOSTNAME"].as_str()), (want, "web-0"), "{path}");
        };
        check("status.podIP", Some("10.0.0.1"));
        check("metadata.labels['a/b']", Some("c"));
        check("metadata.labels['x']", Some(""));
        check("spec.nodeName", None);
    }
}
