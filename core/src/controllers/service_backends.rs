//! Which pods back a service, and at which addresses and ports; used for Endpoints and EndpointSlices.
//!
//! A pod's services are found by its labels, and a service's pods by the rarest pair of its selector; neither scans a
//! namespace.

use k8s_openapi::api::core::v1::{self as core_v1, ObjectReference, ServicePort};

use crate::client::{Change, Index, Views};
use crate::object::{
    Addresses, IntOrString, Kind, Labels, Object, ObjectKey, Pod, Service, Text, is_pod_ready, is_pod_terminal,
};

/// Label of the Endpoints and EndpointSlices of services without a cluster IP.
pub(super) const HEADLESS_LABEL: &str = "service.kubernetes.io/headless";

/// An IP family, named as in `spec.ipFamilies`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Family {
    V4,
    V6,
}

impl Family {
    /// Name of the family, which is also the `addressType` of slices.
    pub(super) fn name(self) -> &'static str {
        match self {
            Family::V4 => "IPv4",
            Family::V6 => "IPv6",
        }
    }

    fn of(ip: &str) -> Family {
        if ip.contains(':') { Family::V6 } else { Family::V4 }
    }
}

/// Families of a service, the primary one first.
pub(super) fn families(service: &Service) -> Vec<Family> {
    let named: Vec<Family> = service
        .spec
        .ip_families
        .iter()
        .flatten()
        .filter_map(|f| [Family::V4, Family::V6].into_iter().find(|x| x.name() == f))
        .collect();
    if !named.is_empty() {
        return named;
    }
    match service.spec.cluster_ip.as_deref() {
        Some(ip) if !ip.is_empty() && ip != "None" => vec![Family::of(ip)],
        _ => vec![Family::V4],
    }
}

/// Whether the service has no cluster IP (the negation of `helper.IsServiceIPSet`).
pub(super) fn is_headless(service: &Service) -> bool {
    matches!(service.spec.cluster_ip.as_deref(), None | Some("" | "None"))
}

/// Whether the control plane manages the endpoints of this service: it has a selector and is not of type ExternalName.
pub(super) fn is_managed(service: &Service) -> bool {
    service.spec.selector.is_some() && service.spec.type_.as_deref() != Some("ExternalName")
}

/// The pods that a service selects, in key order.
pub(super) fn selected_pods<'a>(views: &'a Views, service: &Service) -> Vec<&'a Pod> {
    let Some(selector) = &service.spec.selector else { return Vec::new() };
    let pods = views.view(Kind::POD);
    let namespace = service.namespace();
    let rarest = selector
        .iter()
        .map(|(k, v)| format!("{namespace}/{k}={v}"))
        .min_by_key(|value| pods.indexed_len(Index::Label, value));
    let Some(value) = rarest else { return views.list::<core_v1::Pod>(namespace).collect() };
    let labelled = pods.indexed(Index::Label, &value).filter_map(Object::get::<core_v1::Pod>);
    let mut selected: Vec<&Pod> = labelled.filter(|pod| selects(selector, pod.meta.labels.as_ref())).collect();
    selected.sort_unstable_by_key(|pod| pod.name());
    selected
}

/// Whether the labels contain every pair of a service's selector.
pub(super) fn selects(selector: &Labels, labels: Option<&Labels>) -> bool {
    selector.iter().all(|(k, v)| labels.and_then(|l| l.get(k)) == Some(v))
}

/// Adds the keys of the services that a change of a pod affects.
pub(super) fn services_of_pod(change: &Change, views: &Views, keys: &mut Vec<ObjectKey>) {
    let old = change.old.as_ref().and_then(Object::get::<core_v1::Pod>);
    let new = change.new.as_ref().and_then(Object::get::<core_v1::Pod>);
    let mut same_labels = false;
    if let (Some(old), Some(new)) = (old, new) {
        same_labels = std::rc::Rc::ptr_eq(&old.meta, &new.meta) || old.meta.labels == new.meta.labels;
        if same_labels && same_backend(old, new) {
            return;
        }
    }
    let namespace = change.key.namespace();
    for pod in old.filter(|_| !same_labels).into_iter().chain(new) {
        services_with_labels(views, namespace, pod.meta.labels.as_ref(), keys);
    }
}

/// Adds the keys of the services in `namespace` that select these labels.
pub(super) fn services_with_labels(views: &Views, namespace: &str, labels: Option<&Labels>, keys: &mut Vec<ObjectKey>) {
    let services = views.view(Kind::SERVICE);
    if services.is_empty() {
        return;
    }
    for (k, v) in labels.into_iter().flatten() {
        for object in services.paired(Index::Selector, namespace, k, v) {
            let selector = object.get::<core_v1::Service>().and_then(|s| s.spec.selector.as_ref());
            if selector.is_some_and(|s| selects(s, labels)) {
                keys.push(object.key());
            }
        }
    }
}

/// Whether two states of a pod result in the same endpoint.
fn same_backend(old: &Pod, new: &Pod) -> bool {
    old.meta.deletion_timestamp.is_some() == new.meta.deletion_timestamp.is_some()
        && old.meta.uid == new.meta.uid
        && old.spec.node == new.spec.node
        && old.status.pod_ip == new.status.pod_ip
        && old.status.pod_ips == new.status.pod_ips
        && is_pod_ready(old) == is_pod_ready(new)
        && is_pod_terminal(old) == is_pod_terminal(new)
        && old.spec.hostname == new.spec.hostname
        && old.spec.subdomain == new.spec.subdomain
}

/// Whether a pod can back any service (`ShouldPodBeInEndpoints`).
pub(super) fn can_back(pod: &Pod, include_terminating: bool) -> bool {
    let has_ip = !pod.status.pod_ip.is_empty() || pod.status.pod_ips != Addresses::Absent;
    has_ip && !is_pod_terminal(pod) && (include_terminating || pod.meta.deletion_timestamp.is_none())
}

/// The pod's address in a family.
pub(super) fn pod_address(pod: &Pod, family: Family) -> Option<&str> {
    let many = pod.status.pod_ips.all(&pod.status.pod_ip).iter().filter_map(Text::get);
    many.chain(pod.status.pod_ip.get()).find(|ip| Family::of(ip) == family)
}

/// The pod port that a service port refers to (`podutil.FindPort`).
pub(super) fn target_port(pod: &Pod, port: &ServicePort) -> Option<i32> {
    let name = match &port.target_port {
        None => return Some(port.port),
        Some(IntOrString::Int(0)) => return Some(port.port),
        Some(IntOrString::Int(n)) => return Some(*n),
        Some(IntOrString::String(name)) => name,
    };
    let protocol = port.protocol.as_deref().unwrap_or("TCP");
    let sidecars = pod.spec.init_containers.iter().flatten().filter(|c| c.restart_policy.as_deref() == Some("Always"));
    pod.spec
        .containers
        .iter()
        .chain(sidecars)
        .flat_map(|c| c.ports.iter().flatten())
        .find(|p| p.name.as_ref() == Some(name) && p.protocol.as_deref().unwrap_or("TCP") == protocol)
        .map(|p| p.container_port)
}

/// The pod's host name in the service's domain (`ShouldSetHostname`).
pub(super) fn endpoint_hostname(pod: &Pod, service: &Service) -> Option<String> {
    let hostname = pod.spec.hostname.as_ref().filter(|h| !h.is_empty())?;
    (pod.spec.subdomain.as_deref() == Some(service.name())).then(|| hostname.clone())
}

/// The `targetRef` of an endpoint.
pub(super) fn target_ref(pod: &Pod) -> ObjectReference {
    ObjectReference {
        kind: Some("Pod".to_owned()),
        namespace: pod.meta.namespace.clone(),
        name: pod.meta.name.clone(),
        uid: pod.meta.uid.clone(),
        ..ObjectReference::default()
    }
}

#[cfg(test)]
mod tests {
    use super::{Family, can_back, families, pod_address, services_of_pod, target_port};
    use crate::client::{Change, Views};
    use crate::controllers::fake_cluster::{pod, service, with};
    use crate::object::{Kind, Object, ObjectKey};
    use k8s_openapi::api::core::v1 as core_v1;
    use serde_json::json;

    fn typed(object: &Object) -> &crate::object::Pod {
        object.get::<core_v1::Pod>().expect("a pod")
    }

    #[test]
    fn target_ports_are_numbers_or_names_of_the_same_protocol() {
        let p = with(
            pod("p", "n1"),
            json!({"spec":{"containers":[{"name":"c","ports":[
                {"name":"web","containerPort":8080},{"name":"dns","containerPort":53,"protocol":"UDP"}]}],
                "initContainers":[{"name":"i","ports":[{"name":"no","containerPort":1}]},
                    {"name":"s","restartPolicy":"Always","ports":[{"name":"side","containerPort":9}]}]}}),
        );
        for (port, expect) in [
            (json!({"port":80}), Some(80)),
            (json!({"port":80,"targetPort":81}), Some(81)),
            (json!({"port":80,"targetPort":"web"}), Some(8080)),
            (json!({"port":80,"targetPort":"dns"}), None),
            (json!({"port":80,"targetPort":"dns","protocol":"UDP"}), Some(53)),
            (json!({"port":80,"targetPort":"side"}), Some(9)),
            (json!({"port":80,"targetPort":"no"}), None),
        ] {
            let text = port.to_string();
            assert_eq!(target_port(typed(&p), &serde_json::from_value(port).unwrap()), expect, "{text}");
        }
    }

    #[test]
    fn addresses_by_family() {
        let p =
            with(pod("p", "n1"), json!({"status":{"podIP":"10.0.0.1","podIPs":[{"ip":"10.0.0.1"},{"ip":"fd::1"}]}}));
        assert_eq!(pod_address(typed(&p), Family::V4), Some("10.0.0.1"));
        assert_eq!(pod_address(typed(&p), Family::V6), Some("fd::1"));
        let s = with(service("s"), json!({"spec":{"ipFamilies":["IPv6","IPv4"]}}));
        assert_eq!(families(s.get::<core_v1::Service>().unwrap()), [Family::V6, Family::V4]);
    }

    #[test]
    fn who_can_back_a_service() {
        for (patch, terminating, expect) in [
            (json!({}), false, true),
            (json!({"status":{"podIP":null,"podIPs":null}}), true, false),
            (json!({"status":{"phase":"Failed"}}), true, false),
            (json!({"metadata":{"deletionTimestamp":"2024-01-01T00:00:00Z"}}), false, false),
            (json!({"metadata":{"deletionTimestamp":"2024-01-01T00:00:00Z"}}), true, true),
        ] {
            let text = patch.to_string();
            assert_eq!(can_back(typed(&with(pod("p", "n1"), patch)), terminating), expect, "{text}");
        }
    }

    #[test]
    fn a_pod_concerns_the_services_that_selected_or_select_it() {
        let other = with(service("other"), json!({"spec":{"selector":{"app":"b"}}}));
        let narrow = with(service("narrow"), json!({"spec":{"selector":{"app":"web","tier":"x"}}}));
        let views = Views::of(&[Kind::SERVICE], [service("s"), other, narrow]);
        let now_b = with(pod("p", "n1"), json!({"metadata":{"labels":{"app":"b"}}}));
        let unready = with(pod("p", "n1"), json!({"status":{"conditions":[{"type":"Ready","status":"False"}]}}));
        let noise = with(pod("p", "n1"), json!({"metadata":{"annotations":{"x":"y"}}}));
        for (old, new, expect) in [
            (None, Some(pod("p", "n1")), vec!["d/s"]),
            (Some(pod("p", "n1")), None, vec!["d/s"]),
            (Some(pod("p", "n1")), Some(now_b), vec!["d/s", "d/other"]),
            (Some(pod("p", "n1")), Some(unready), vec!["d/s"]),
            (Some(pod("p", "n1")), Some(noise), vec![]),
        ] {
            let mut keys: Vec<ObjectKey> = Vec::new();
            services_of_pod(&Change { key: pod("p", "n1").key(), old, new }, &views, &mut keys);
            assert_eq!(keys.iter().map(ObjectKey::path).collect::<Vec<_>>(), expect);
        }
    }
}
