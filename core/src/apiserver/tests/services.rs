//! Cluster IPs and node ports.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{Cluster, cluster, cluster_of, refusal};
use crate::api::{Reason, Status};
use crate::apiserver::Config;
use crate::object::{Kind, Object, ObjectKey, Service};

fn service(name: &str, spec: Value) -> Value {
    let mut manifest = json!({"apiVersion":"v1","kind":"Service","metadata":{"name":name,"namespace":"default"},
        "spec":{"selector":{"app":"web"},"ports":[{"name":"http","port":80,"protocol":"TCP"}]}});
    json_patch::merge(&mut manifest["spec"], &spec);
    manifest
}

fn make(c: &mut Cluster, server: usize, name: &str, spec: Value) -> Result<Service, Status> {
    c.create_at(server, service(name, spec)).map(as_service)
}

fn as_service(object: Object) -> Service {
    match object {
        Object::Service(s) => s,
        other => panic!("{other:?}"),
    }
}

fn ip(s: &Service) -> Option<&str> {
    s.spec.cluster_ip.as_deref()
}

fn port(s: &Service) -> Option<i32> {
    s.spec.ports.as_ref().and_then(|p| p[0].node_port)
}

fn small(servers: usize) -> Cluster {
    let config = Config { service_cidr: ([10, 0, 0, 0], 29), node_port_range: (30000, 30003), ..Config::default() };
    cluster_of(servers, &config)
}

#[test]
fn services_get_what_their_type_wants() {
    let mut c = cluster(1);
    for (name, spec, has_ip, has_port) in [
        ("a", json!({}), true, false),
        ("b", json!({"type": "ClusterIP", "clusterIP": "None"}), false, false),
        ("c", json!({"type": "NodePort"}), true, true),
        ("d", json!({"type": "LoadBalancer"}), true, true),
        ("e", json!({"type": "LoadBalancer", "allocateLoadBalancerNodePorts": false}), true, false),
        ("f", json!({"type": "ExternalName", "externalName": "example.com"}), false, false),
    ] {
        let made = make(&mut c, 0, name, spec).unwrap();
        assert_eq!(ip(&made).is_some_and(|ip| ip.starts_with("10.")), has_ip, "{name}");
        assert_eq!(port(&made).is_some_and(|p| (30000..=32767).contains(&p)), has_port, "{name}");
        if has_ip {
            assert_eq!(made.spec.cluster_ips.as_ref().unwrap()[0], ip(&made).unwrap());
            assert_eq!(made.spec.ip_families.as_deref(), Some(&["IPv4".to_owned()][..]));
        }
    }
}

#[test]
fn what_is_taken_is_refused_until_it_is_free() {
    let mut c = cluster(2);
    let first = make(
        &mut c,
        0,
        "a",
        json!({"type": "NodePort", "clusterIP": "10.96.1.1", "ports": [{"port": 80, "nodePort": 30080}]}),
    )
    .unwrap();
    assert_eq!((ip(&first), port(&first)), (Some("10.96.1.1"), Some(30080)));
    for (spec, text) in [
        (
            json!({"clusterIP": "10.96.1.1"}),
            "Service \"b\" is invalid: spec.clusterIPs: Invalid value: [\"10.96.1.1\"]: failed to allocate IP \
             10.96.1.1: provided IP is already allocated",
        ),
        (
            json!({"clusterIP": "10.0.0.1"}),
            "Service \"b\" is invalid: spec.clusterIPs: Invalid value: [\"10.0.0.1\"]: failed to allocate IP 10.0.0.1: \
             the provided network does not match the current range",
        ),
        (
            json!({"clusterIP": "10.96.0.0"}),
            "Service \"b\" is invalid: spec.clusterIPs: Invalid value: [\"10.96.0.0\"]: failed to allocate IP \
             10.96.0.0: the provided IP (10.96.0.0) is not in the valid range. The range of valid IPs is 10.96.0.0/12",
        ),
        (
            json!({"type": "NodePort", "ports": [{"port": 80, "nodePort": 30080}]}),
            "Service \"b\" is invalid: spec.ports[0].nodePort: Invalid value: 30080: provided port is already allocated",
        ),
        (
            json!({"type": "NodePort", "ports": [{"port": 80, "nodePort": 80}]}),
            "Service \"b\" is invalid: spec.ports[0].nodePort: Invalid value: 80: provided port is not in the valid \
             range. The range of valid ports is 30000-32767",
        ),
    ] {
        assert_eq!(refusal(make(&mut c, 0, "b", spec)), (Reason::Invalid, text.to_owned()));
    }
    // A server that has not seen the deletion of a Service asks the store before it rejects.
    c.lagging[1] = true;
    c.delete(&first.key(), Default::default()).unwrap();
    make(
        &mut c,
        1,
        "b",
        json!({"type": "NodePort", "clusterIP": "10.96.1.1", "ports": [{"port": 80, "nodePort": 30080}]}),
    )
    .unwrap();
}

#[test]
fn two_servers_never_give_out_one_address() {
    let mut c = small(2);
    c.lagging = vec![true, true];
    let ids: Vec<u64> = (0..4)
        .map(|i| {
            let object = Object::from_json(service(&format!("s{i}"), json!({"type": "NodePort"}))).unwrap();
            let call = crate::api::Call::Create { object, options: Default::default() };
            c.send(i % 2, super::request(call))
        })
        .collect();
    // The servers that lost the race wait until their cache shows what was allocated.
    c.catch_up(0);
    c.catch_up(1);
    let made: Vec<Service> = ids
        .into_iter()
        .map(|id| as_service(super::object_in(c.reply(id).expect("answered by now").unwrap())))
        .collect();
    let ips: BTreeSet<_> = made.iter().map(|s| ip(s).unwrap().to_owned()).collect();
    let ports: BTreeSet<_> = made.iter().map(|s| port(s).unwrap()).collect();
    assert_eq!((ips.len(), ports.len()), (4, 4));
    // The fifth address is the last of the eight that can be allocated; there is no fifth port.
    assert_eq!(refusal(make(&mut c, 0, "x", json!({"type": "NodePort"}))).0, Reason::InternalError);
    make(&mut c, 0, "y", json!({})).unwrap();
    let text = "Internal error occurred: failed to allocate a serviceIP: range is full";
    assert_eq!(refusal(make(&mut c, 0, "z", json!({}))), (Reason::InternalError, text.to_owned()));
    c.delete(&made[0].key(), Default::default()).unwrap();
    assert_eq!(ip(&make(&mut c, 1, "z", json!({})).unwrap()), ip(&made[0]));
}

#[test]
fn updates_keep_take_and_give_back() {
    let mut c = cluster(1);
    let made = make(&mut c, 0, "a", json!({})).unwrap();
    let address = ip(&made).unwrap().to_owned();
    let change = |c: &mut Cluster, spec: Value| {
        let mut manifest = service("a", spec);
        manifest["metadata"]["labels"] = json!({"n": c.store.revision().to_string()});
        as_service(c.update(Object::from_json(manifest).unwrap()).unwrap())
    };
    // The manifest has neither address nor port: the allocated ones are kept.
    let node_port = change(&mut c, json!({"type": "NodePort"}));
    assert_eq!(ip(&node_port), Some(address.as_str()));
    let number = port(&node_port).unwrap();
    let again = change(&mut c, json!({"type": "NodePort", "sessionAffinity": "ClientIP"}));
    assert_eq!((ip(&again), port(&again)), (Some(address.as_str()), Some(number)));
    let back = change(&mut c, json!({"type": "ClusterIP"}));
    assert_eq!((ip(&back), port(&back)), (Some(address.as_str()), None));
    let other = make(&mut c, 0, "b", json!({"type": "NodePort", "ports": [{"port": 80, "nodePort": number}]})).unwrap();
    assert_eq!(port(&other), Some(number));
}

fn address(c: &mut Cluster, ip: &str) -> Option<Value> {
    c.get(&ObjectKey::new(Kind::IP_ADDRESS, "", ip)).map(|object| object.to_json())
}

#[test]
fn an_ip_address_stands_beside_each_cluster_ip() {
    let mut c = cluster(1);
    let made = make(&mut c, 0, "a", json!({"clusterIP": "10.96.1.1"})).unwrap();
    let found = address(&mut c, "10.96.1.1").expect("it is made with the Service");
    let labels = json!({"ipaddress.kubernetes.io/ip-family": "IPv4",
        "ipaddress.kubernetes.io/managed-by": "ipallocator.k8s.io"});
    let parent = json!({"group": "", "resource": "services", "namespace": "default", "name": "a"});
    assert_eq!((&found["metadata"]["labels"], &found["spec"]["parentRef"]), (&labels, &parent));
    assert!(found["metadata"]["uid"].is_string() && found["metadata"]["creationTimestamp"].is_string());

    let mut gone = Object::from(made.clone()).to_json();
    gone["spec"] = json!({"type": "ExternalName", "externalName": "example.com"});
    c.update(Object::from_json(gone).unwrap()).unwrap();
    assert_eq!(address(&mut c, "10.96.1.1"), None, "the Service has given its address back");

    let made = make(&mut c, 0, "b", json!({"clusterIP": "10.96.1.1"})).unwrap();
    c.delete(&made.key(), Default::default()).unwrap();
    assert_eq!(address(&mut c, "10.96.1.1"), None, "the Service is deleted");

    let by_hand = json!({"apiVersion": "networking.k8s.io/v1", "kind": "IPAddress", "metadata": {"name": "10.96.1.2"},
        "spec": {"parentRef": {"resource": "gateways", "group": "example.com", "name": "g"}}});
    c.create(by_hand).unwrap();
    let told = refusal(make(&mut c, 0, "c", json!({"clusterIP": "10.96.1.2"}))).1;
    assert!(told.ends_with("failed to allocate IP 10.96.1.2: provided IP is already allocated"), "{told}");
}

#[test]
fn further_ranges_give_addresses_while_they_are_ready() {
    let mut c = small(1);
    let default = c.get(&ObjectKey::new(Kind::SERVICE_CIDR, "", "kubernetes")).expect("every cluster has it").to_json();
    assert_eq!(default["spec"]["cidrs"], json!(["10.0.0.0/29"]));
    let condition = &default["status"]["conditions"][0];
    assert_eq!((&condition["type"], &condition["status"]), (&json!("Ready"), &json!("True")));
    let range = |name: &str, cidr: &str, ready: &str| {
        json!({"apiVersion": "networking.k8s.io/v1", "kind": "ServiceCIDR", "metadata": {"name": name},
            "spec": {"cidrs": [cidr]}, "status": {"conditions": [{"type": "Ready", "status": ready, "reason": "",
                "message": "", "lastTransitionTime": "2024-01-01T00:00:00Z"}]}})
    };
    c.create(range("unready", "10.2.0.0/24", "False")).unwrap();
    for i in 0..5 {
        make(&mut c, 0, &format!("s{i}"), json!({})).unwrap();
    }
    assert_eq!(refusal(make(&mut c, 0, "x", json!({}))).0, Reason::InternalError);
    c.create(range("more", "10.1.0.0/30", "True")).unwrap();
    let mut more: Vec<String> =
        (0..2).map(|i| ip(&make(&mut c, 0, &format!("t{i}"), json!({})).unwrap()).unwrap().to_owned()).collect();
    more.sort();
    assert_eq!(more, ["10.1.0.1", "10.1.0.2"]);
    assert_eq!(refusal(make(&mut c, 0, "x", json!({}))).0, Reason::InternalError);
}

#[test]
fn a_new_type_drops_what_led_traffic_in() {
    let mut c = cluster(1);
    let fields = ["externalTrafficPolicy", "allocateLoadBalancerNodePorts", "loadBalancerClass"];
    for (name, old, new) in [
        ("a", json!({"type": "NodePort"}), json!({"type": "ExternalName", "externalName": "example.com"})),
        ("b", json!({"type": "NodePort"}), json!({"type": "ClusterIP"})),
        ("c", json!({"type": "LoadBalancer", "loadBalancerClass": "example.com/c"}), json!({"type": "ClusterIP"})),
    ] {
        let mut whole = Object::from(make(&mut c, 0, name, old).unwrap()).to_json();
        assert_eq!(whole["spec"]["externalTrafficPolicy"], "Cluster", "{name}");
        json_patch::merge(&mut whole["spec"], &new);
        let changed = c.update(Object::from_json(whole).unwrap()).expect(name).to_json();
        for field in fields {
            assert_eq!(changed["spec"].get(field), None, "{name}: {field}");
        }
    }
}
