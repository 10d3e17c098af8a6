//! The environment of a container: what its spec states, what it takes from ConfigMaps, Secrets and the pod itself, and
//! the variables of the namespace's Services; `$(NAME)` in values, commands and arguments.
//!
//! Source: kubernetes `pkg/kubelet/kubelet_pods.go` (`makeEnvironmentVariables`), `pkg/kubelet/envvars`,
//! `third_party/forked/golang/expansion`, `pkg/api/v1/resource/helpers.go`, `pkg/fieldpath`.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1 as core_v1;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use super::AgentConfig;
use super::references::References;
use crate::object::{Kind, Milli, ObjectKey, Pod};

/// Names and values, in the order in which they were first set.
#[derive(Debug, Default)]
pub(super) struct Variables {
    pub(super) all: Vec<(String, String)>,
}

impl Variables {
    fn set(&mut self, name: &str, value: String) {
        match self.all.iter_mut().find(|(n, _)| n == name) {
            Some(known) => known.1 = value,
            None => self.all.push((name.to_owned(), value)),
        }
    }

    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.all.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }
}

/// What the variables of a container are made from.
pub(super) struct Sources<'a> {
    /// The pod.
    pub(super) pod: &'a Pod,
    /// Its address; empty if it has none.
    pub(super) ip: &'a str,
    /// The node.
    pub(super) config: &'a AgentConfig,
    /// ConfigMaps and Secrets as they were read.
    pub(super) references: &'a References,
    /// The variables of Services.
    pub(super) services: BTreeMap<String, String>,
}

impl Sources<'_> {
    /// The variables of a container.
    pub(super) fn variables(&self, c: &core_v1::Container) -> Variables {
        let mut services = self.services.clone();
        let mut all = Variables::default();
        for from in c.env_from.iter().flatten() {
            let prefix = from.prefix.as_deref().unwrap_or("");
            let map = from.config_map_ref.as_ref().map(|r| (Kind::CONFIG_MAP, &r.name));
            let secret = from.secret_ref.as_ref().map(|r| (Kind::SECRET, &r.name));
            for (kind, name) in map.into_iter().chain(secret) {
                for (key, value) in self.references.entries(&self.key(kind, name)) {
                    let name = format!("{prefix}{key}");
                    if is_variable_name(&name) {
                        services.remove(&name);
                        all.set(&name, String::from_utf8_lossy(&value).into_owned());
                    }
                }
            }
        }
        for variable in c.env.iter().flatten() {
            let value = match (&variable.value, &variable.value_from) {
                (Some(value), _) if !value.is_empty() => {
                    Some(expand(value, |name| all.get(name).or_else(|| services.get(name).map(String::as_str))))
                }
                (_, Some(from)) => self.value_from(from, c),
                (_, None) => Some(String::new()),
            };
            if let Some(value) = value {
                services.remove(&variable.name);
                all.set(&variable.name, value);
            }
        }
        all.all.extend(services);
        all
    }

    fn key(&self, kind: Kind, name: &str) -> ObjectKey {
        ObjectKey::new(kind, self.pod.namespace(), name)
    }

    /// `None` if an optional key is not there: the variable is then not set.
    fn value_from(&self, from: &core_v1::EnvVarSource, c: &core_v1::Container) -> Option<String> {
        if let Some(field) = &from.field_ref {
            return self.field(&field.field_path);
        }
        if let Some(resource) = &from.resource_field_ref {
            return resource_field(resource, self.container(resource.container_name.as_deref(), c)?, self.config);
        }
        let map = from.config_map_key_ref.as_ref().map(|r| (Kind::CONFIG_MAP, &r.name, &r.key));
        let secret = from.secret_key_ref.as_ref().map(|r| (Kind::SECRET, &r.name, &r.key));
        let (kind, name, key) = map.or(secret)?;
        let mut entries = self.references.entries(&self.key(kind, name)).into_iter();
        entries.find(|(k, _)| k == key).map(|(_, value)| String::from_utf8_lossy(&value).into_owned())
    }

    fn container<'a>(&'a self, name: Option<&str>, own: &'a core_v1::Container) -> Option<&'a core_v1::Container> {
        match name.filter(|name| !name.is_empty()) {
            None => Some(own),
            Some(name) => self.named(name),
        }
    }

    /// A container of the pod.
    pub(super) fn named(&self, name: &str) -> Option<&core_v1::Container> {
        let spec = &self.pod.spec;
        spec.containers.iter().chain(spec.init_containers.iter().flatten()).find(|c| c.name == name)
    }

    /// A field of the pod, as the downward API gives it.
    pub(super) fn field(&self, path: &str) -> Option<String> {
        let meta = &self.pod.meta;
        let keyed = |list: &str, map: &Option<BTreeMap<String, String>>| {
            let key = path.strip_prefix(&format!("metadata.{list}['"))?.strip_suffix("']")?;
            Some(map.as_ref().and_then(|map| map.get(key)).cloned().unwrap_or_default())
        };
        Some(match path {
            "metadata.name" => self.pod.name().to_owned(),
            "metadata.namespace" => self.pod.namespace().to_owned(),
            "metadata.uid" => self.pod.uid().to_owned(),
            "metadata.labels" => formatted(meta.labels.as_ref()),
            "metadata.annotations" => formatted(meta.annotations.as_ref()),
            "spec.nodeName" => self.config.node_name.to_string(),
            "spec.serviceAccountName" => self.pod.spec.service_account_name.clone().unwrap_or_default(),
            "status.hostIP" | "status.hostIPs" => self.config.host_ip.to_string(),
            "status.podIP" | "status.podIPs" => self.ip.to_owned(),
            _ => return keyed("labels", &meta.labels).or_else(|| keyed("annotations", &meta.annotations)),
        })
    }
}

/// All labels or annotations in the format of a file (`FormatMap`).
fn formatted(map: Option<&BTreeMap<String, String>>) -> String {
    let lines: Vec<String> = map.into_iter().flatten().map(|(k, v)| format!("{k}={v:?}")).collect();
    lines.join("\n")
}

/// Whether a key of a ConfigMap or Secret can be the name of a variable: any printable ASCII except `=` (KEP-4369).
fn is_variable_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|b| matches!(b, b' '..=b'~') && b != b'=')
}

/// A resource of a container, in units of the divisor, rounded up (`ExtractContainerResourceValue`). A limit that is
/// not set is what the node has.
pub(super) fn resource_field(
    field: &core_v1::ResourceFieldSelector,
    c: &core_v1::Container,
    config: &AgentConfig,
) -> Option<String> {
    let (list, name) = field.resource.split_once('.')?;
    let resources = c.resources.as_ref();
    let limits = list == "limits";
    let map = resources.and_then(|r| if limits { r.limits.as_ref() } else { r.requests.as_ref() });
    let set = map.and_then(|map| map.get(name)).map(Milli::of);
    let of_node = || limits.then(|| config.allocatable().get(name).map(Milli::of)).flatten();
    let amount = set.or_else(of_node).unwrap_or_default().0;
    let divisor = field.divisor.as_ref().map_or(Milli::units(1), |q: &Quantity| Milli::of(q)).0;
    let divisor = if divisor == 0 { 1000 } else { divisor };
    Some(((amount + divisor - 1) / divisor).to_string())
}

/// Replaces `$(NAME)` where the name is known; `$$` is a dollar.
pub fn expand<'a>(text: &str, mut find: impl FnMut(&str) -> Option<&'a str>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('$') {
        out += before;
        rest = if let Some(after) = after.strip_prefix('$') {
            out.push('$');
            after
        } else if let Some((name, after)) = after.strip_prefix('(').and_then(|inside| inside.split_once(')')) {
            match find(name) {
                Some(value) => out += value,
                None => out += &format!("$({name})"),
            }
            after
        } else {
            out.push('$');
            after
        };
    }
    out + rest
}

/// The variables by which a Service is found: `NAME_SERVICE_HOST`, `NAME_SERVICE_PORT` and those that Docker's links
/// had (`pkg/kubelet/envvars`).
pub(super) fn of_service(name: &str, spec: &core_v1::ServiceSpec, all: &mut BTreeMap<String, String>) {
    let Some(ip) = spec.cluster_ip.as_deref().filter(|ip| !ip.is_empty() && *ip != "None") else { return };
    let shout = |text: &str| text.to_uppercase().replace('-', "_");
    let (prefix, mut set) = (shout(name), |name: String, value: String| drop(all.insert(name, value)));
    for (i, port) in spec.ports.iter().flatten().enumerate() {
        let protocol = port.protocol.as_deref().unwrap_or("TCP");
        let url = format!("{}://{ip}:{}", protocol.to_lowercase(), port.port);
        if i == 0 {
            set(format!("{prefix}_SERVICE_HOST"), ip.to_owned());
            set(format!("{prefix}_SERVICE_PORT"), port.port.to_string());
            set(format!("{prefix}_PORT"), url.clone());
        }
        if let Some(name) = port.name.as_deref().filter(|name| !name.is_empty()) {
            set(format!("{prefix}_SERVICE_PORT_{}", shout(name)), port.port.to_string());
        }
        let link = format!("{prefix}_PORT_{}_{}", port.port, protocol.to_uppercase());
        set(format!("{link}_PROTO"), protocol.to_lowercase());
        set(format!("{link}_PORT"), port.port.to_string());
        set(format!("{link}_ADDR"), ip.to_owned());
        set(link, url);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use k8s_openapi::api::core::v1::{Container, ResourceFieldSelector, ServiceSpec};
    use serde_json::{Value, json};

    use super::{expand, of_service, resource_field};
    use crate::agent::AgentConfig;

    #[test]
    fn references_are_expanded_as_upstream_does() {
        let check = |text: &str, want: &str| {
            let find = |name: &str| match name {
                "A" => Some("x"),
                "EMPTY" => Some(""),
                _ => None,
            };
            assert_eq!(expand(text, find), want, "{text}");
        };
        check("$(A)-$(NONE)-$$(A)-$", "x-$(NONE)-$(A)-$");
        check("$(EMPTY)|$A|$(A|$$$(A)", "|$A|$(A|$$$(A)");
        check("--$(A)$(A)", "--xx");
        check("", "");
    }

    #[test]
    fn resources_are_in_units_of_the_divisor() {
        let check = |resource: &str, divisor: &str, want: &str| {
            let c: Container = serde_json::from_value(json!({"name": "c", "resources":
                {"limits": {"cpu": "1500m"}, "requests": {"memory": "64Mi"}}}))
            .unwrap();
            let mut field = json!({"resource": resource});
            if !divisor.is_empty() {
                field["divisor"] = Value::String(divisor.to_owned());
            }
            let field: ResourceFieldSelector = serde_json::from_value(field).unwrap();
            let capacity = [("memory".to_owned(), "1Gi".to_owned())].into();
            let config = AgentConfig { capacity, ..AgentConfig::default() };
            assert_eq!(resource_field(&field, &c, &config).as_deref(), Some(want), "{resource} {divisor}");
        };
        check("limits.cpu", "", "2");
        check("limits.cpu", "1m", "1500");
        check("requests.memory", "1Mi", "64");
        check("requests.cpu", "", "0");
        check("limits.memory", "1Mi", "1024");
    }

    #[test]
    fn services_have_their_variables() {
        let spec: ServiceSpec = serde_json::from_value(json!({"clusterIP": "10.0.0.1", "ports":
            [{"name": "http-alt", "port": 80}, {"port": 53, "protocol": "UDP"}]}))
        .unwrap();
        let mut all = BTreeMap::new();
        of_service("my-db", &spec, &mut all);
        let text: Vec<String> = all.iter().map(|(k, v)| format!("{k}={v}")).collect();
        let want = "MY_DB_PORT=tcp://10.0.0.1:80 MY_DB_PORT_53_UDP=udp://10.0.0.1:53 MY_DB_PORT_53_UDP_ADDR=10.0.0.1 \
                    MY_DB_PORT_53_UDP_PORT=53 MY_DB_PORT_53_UDP_PROTO=udp MY_DB_PORT_80_TCP=tcp://10.0.0.1:80 \
                    MY_DB_PORT_80_TCP_ADDR=10.0.0.1 MY_DB_PORT_80_TCP_PORT=80 MY_DB_PORT_80_TCP_PROTO=tcp \
                    MY_DB_SERVICE_HOST=10.0.0.1 MY_DB_SERVICE_PORT=80 MY_DB_SERVICE_PORT_HTTP_ALT=80";
        assert_eq!(text.join(" "), want);
        let mut none = BTreeMap::new();
        of_service("headless", &ServiceSpec { cluster_ip: Some("None".to_owned()), ..spec }, &mut none);
        assert!(none.is_empty());
    }
}
