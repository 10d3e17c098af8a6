//! The environment of a container's processes.
//!
//! Source: <https://kubernetes.io/docs/tasks/inject-data-application/define-environment-variable-container/>.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Container;
use skeg_core::agent::expand;

/// The variables of a container: those that every container has, and those that its spec states or takes from fields
/// of the pod, which `field` knows by their paths. References to ConfigMaps and Secrets are left out.
pub fn of(container: &Container, hostname: &str, field: impl Fn(&str) -> Option<String>) -> BTreeMap<String, String> {
    let mut env: BTreeMap<String, String> = [
        ("HOME", "/root"),
        ("HOSTNAME", hostname),
        ("KUBERNETES_SERVICE_PORT", "443"),
        ("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .into();
    for variable in container.env.iter().flatten() {
        let value = match &variable.value_from {
            None => {
                Some(expand(variable.value.as_deref().unwrap_or_default(), |name| env.get(name).map(String::as_str)))
            }
            Some(from) => from.field_ref.as_ref().and_then(|from| field(&from.field_path)),
        };
        env.extend(value.map(|value| (variable.name.clone(), value)));
    }
    env
}

#[cfg(test)]
mod tests {
    use super::of;
    use serde_json::json;

    #[test]
    fn variables_have_their_values() {
        let from = |path: &str| json!({"fieldRef": {"fieldPath": path}});
        let container = json!({"name": "c", "env": [
            {"name": "A", "value": "x"},
            {"name": "B", "value": "$(A)-$(NONE)-$$(A)-$"},
            {"name": "IP", "valueFrom": from("status.podIP")},
            {"name": "UID", "valueFrom": from("metadata.uid")},
            {"name": "SECRET", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}},
        ]});
        let container = serde_json::from_value(container).unwrap();
        let env = of(&container, "web-0", |path| (path == "status.podIP").then(|| "10.0.0.1".to_owned()));
        let check = |name: &str, want: Option<&str>| assert_eq!(env.get(name).map(String::as_str), want, "{name}");
        check("HOSTNAME", Some("web-0"));
        check("B", Some("x-$(NONE)-$(A)-$"));
        check("IP", Some("10.0.0.1"));
        check("UID", None);
        check("SECRET", None);
    }
}
