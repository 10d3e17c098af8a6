//! The environment of a container's processes.
//!
//! Source: <https://kubernetes.io/docs/concepts/workloads/pods/downward-api/>.

use std::collections::BTreeMap;

use serde_json::Value;

/// The variables of a container: those that every container has, and those that its spec states or takes from fields
/// of the pod. References to ConfigMaps and Secrets are left out.
pub fn of(pod: &Value, container: &Value) -> BTreeMap<String, String> {
    let hostname = pod["spec"]["hostname"].as_str().or(pod["metadata"]["name"].as_str()).unwrap_or_default();
    let mut env: BTreeMap<String, String> = [
        ("HOME", "/root"),
        ("HOSTNAME", hostname),
        ("KUBERNETES_SERVICE_PORT", "443"),
        ("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .into();
    for variable in container["env"].as_array().into_iter().flatten() {
        let Some(name) = variable["name"].as_str() else { continue };
        let value = match &variable["valueFrom"] {
            Value::Null => Some(expanded(variable["value"].as_str().unwrap_or_default(), &env)),
            from => from["fieldRef"]["fieldPath"].as_str().and_then(|path| field(pod, path)),
        };
        env.extend(value.map(|value| (name.to_owned(), value)));
    }
    env
}

/// Replaces `$(NAME)` by the variables that come before; `$$` is a dollar.
fn expanded(text: &str, env: &BTreeMap<String, String>) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('$') {
        out += before;
        let reference = after.strip_prefix('(').and_then(|inside| inside.split_once(')'));
        rest = match (reference, after.strip_prefix('$')) {
            (Some((name, after)), _) if env.contains_key(name) => {
                out += &env[name];
                after
            }
            (_, Some(after)) => {
                out.push('$');
                after
            }
            _ => {
                out.push('$');
                after
            }
        };
    }
    out + rest
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
    fn variables_have_their_values() {
        let pod = json!({"metadata": {"name": "web-0", "namespace": "n", "labels": {"a/b": "c"}},
            "status": {"podIP": "10.0.0.1"}});
        let from = |path: &str| json!({"fieldRef": {"fieldPath": path}});
        let env = of(
            &pod,
            &json!({"env": [
                {"name": "A", "value": "x"},
                {"name": "B", "value": "$(A)-$(NONE)-$$(A)-$"},
                {"name": "IP", "valueFrom": from("status.podIP")},
                {"name": "LABEL", "valueFrom": from("metadata.labels['a/b']")},
                {"name": "SECRET", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}},
            ]}),
        );
        let check = |name: &str, want: Option<&str>| assert_eq!(env.get(name).map(String::as_str), want, "{name}");
        check("HOSTNAME", Some("web-0"));
        check("B", Some("x-$(NONE)-$(A)-$"));
        check("IP", Some("10.0.0.1"));
        check("LABEL", Some("c"));
        check("SECRET", None);
    }
}
