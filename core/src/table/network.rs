//! Tables of Services, their endpoints, and Ingresses and policies.

use serde_json::{Value, json};

use super::{
    Column, Printer, Time, age, first_of, int_at, label_selector, labels, list_at, name, or_none, str_at, str_or, text,
    wide,
};
use crate::object::Kind;

pub(super) fn printer(kind: Kind) -> Option<Printer> {
    let (columns, cells): (&[Column], fn(&Value, Time) -> Vec<Value>) = match kind {
        Kind::SERVICE => (SERVICE, service),
        Kind::ENDPOINTS => (ENDPOINTS, endpoints),
        Kind::ENDPOINT_SLICE => (ENDPOINT_SLICE, endpoint_slice),
        Kind::INGRESS => (INGRESS, ingress),
        Kind::INGRESS_CLASS => (INGRESS_CLASS, ingress_class),
        Kind::NETWORK_POLICY => (NETWORK_POLICY, network_policy),
        Kind::IP_ADDRESS => (IP_ADDRESS, ip_address),
        Kind::SERVICE_CIDR => (SERVICE_CIDR, service_cidr),
        _ => return None,
    };
    Some(Printer { columns, cells })
}

const SERVICE: &[Column] = &[
    text("Name"),
    text("Type"),
    text("Cluster-IP"),
    text("External-IP"),
    text("Port(s)"),
    text("Age"),
    wide("Selector"),
];

fn service(o: &Value, now: Time) -> Vec<Value> {
    let port = |p: &Value| {
        let (port, protocol) = (int_at(p, "/port"), str_at(p, "/protocol"));
        match int_at(p, "/nodePort") {
            0 => format!("{port}/{protocol}"),
            node_port => format!("{port}:{node_port}/{protocol}"),
        }
    };
    let ports = list_at(o, "/spec/ports").iter().map(port).collect::<Vec<_>>().join(",");
    vec![
        json!(name(o)),
        json!(str_at(o, "/spec/type")),
        json!(str_or(o, "/spec/clusterIP", "<none>")),
        json!(external_ip(o)),
        json!(or_none(ports)),
        age(o, now),
        json!(labels(o.pointer("/spec/selector"))),
    ]
}

fn texts(list: &[Value]) -> Vec<String> {
    list.iter().filter_map(Value::as_str).map(str::to_owned).collect()
}

/// Addresses and host names of a load balancer, sorted and without duplicates.
fn load_balancer(o: &Value) -> Vec<String> {
    let mut found: Vec<String> = list_at(o, "/status/loadBalancer/ingress")
        .iter()
        .map(|i| str_or(i, "/ip", str_at(i, "/hostname")).to_owned())
        .filter(|a| !a.is_empty())
        .collect();
    found.sort();
    found.dedup();
    found
}

fn external_ip(o: &Value) -> String {
    let external = texts(list_at(o, "/spec/externalIPs"));
    match str_at(o, "/spec/type") {
        "ClusterIP" | "NodePort" => or_none(external.join(",")),
        "LoadBalancer" => {
            let all = [load_balancer(o), external].concat().join(",");
            if all.is_empty() { "<pending>".to_owned() } else { all }
        }
        "ExternalName" => str_at(o, "/spec/externalName").to_owned(),
        _ => "<unknown>".to_owned(),
    }
}

const ENDPOINTS: &[Column] = &[text("Name"), text("Endpoints"), text("Age")];

fn endpoints(o: &Value, now: Time) -> Vec<Value> {
    let mut all = Vec::new();
    for subset in list_at(o, "/subsets") {
        let addresses = list_at(subset, "/addresses");
        let ports = list_at(subset, "/ports");
        if ports.is_empty() {
            all.extend(addresses.iter().map(|a| str_at(a, "/ip").to_owned()));
        }
        for port in ports {
            let at = |a: &Value| {
                let ip = str_at(a, "/ip");
                let ip = if ip.contains(':') { format!("[{ip}]") } else { ip.to_owned() };
                format!("{ip}:{}", int_at(port, "/port"))
            };
            all.extend(addresses.iter().map(at));
        }
    }
    vec![json!(name(o)), json!(or_none(first_of(&all, 3))), age(o, now)]
}

const ENDPOINT_SLICE: &[Column] = &[text("Name"), text("AddressType"), text("Ports"), text("Endpoints"), text("Age")];

fn endpoint_slice(o: &Value, now: Time) -> Vec<Value> {
    let unset = |all: &[String]| if all.is_empty() { "<unset>".to_owned() } else { first_of(all, 3) };
    let port = |p: &Value| p.get("port").map_or_else(|| str_or(p, "/name", "*").to_owned(), Value::to_string);
    let ports: Vec<String> = list_at(o, "/ports").iter().map(port).collect();
    let addresses: Vec<String> =
        list_at(o, "/endpoints").iter().flat_map(|e| texts(list_at(e, "/addresses"))).collect();
    vec![json!(name(o)), json!(str_at(o, "/addressType")), json!(unset(&ports)), json!(unset(&addresses)), age(o, now)]
}

const INGRESS: &[Column] = &[text("Name"), text("Class"), text("Hosts"), text("Address"), text("Ports"), text("Age")];

fn ingress(o: &Value, now: Time) -> Vec<Value> {
    let rules = list_at(o, "/spec/rules");
    let hosts: Vec<String> =
        rules.iter().map(|r| str_at(r, "/host").to_owned()).filter(|host| !host.is_empty()).collect();
    let hosts = if hosts.is_empty() { "*".to_owned() } else { first_of(&hosts, 3) };
    let ports = if list_at(o, "/spec/tls").is_empty() { "80" } else { "80, 443" };
    vec![
        json!(name(o)),
        json!(str_or(o, "/spec/ingressClassName", "<none>")),
        json!(hosts),
        json!(load_balancer(o).join(",")),
        json!(ports),
        age(o, now),
    ]
}

const INGRESS_CLASS: &[Column] = &[text("Name"), text("Controller"), text("Parameters"), text("Age")];

fn ingress_class(o: &Value, now: Time) -> Vec<Value> {
    let parameters = o.pointer("/spec/parameters").map(|p| {
        let group = match str_at(p, "/apiGroup") {
            "" => String::new(),
            group => format!(".{group}"),
        };
        format!("{}{group}/{}", str_at(p, "/kind"), str_at(p, "/name"))
    });
    let parameters = or_none(parameters.unwrap_or_default());
    vec![json!(name(o)), json!(str_at(o, "/spec/controller")), json!(parameters), age(o, now)]
}

const NETWORK_POLICY: &[Column] = &[text("Name"), text("Pod-Selector"), text("Age")];

fn network_policy(o: &Value, now: Time) -> Vec<Value> {
    vec![json!(name(o)), json!(label_selector(o.pointer("/spec/podSelector"))), age(o, now)]
}

const IP_ADDRESS: &[Column] = &[text("Name"), text("ParentRef"), text("Age")];

fn ip_address(o: &Value, now: Time) -> Vec<Value> {
    let parent = o.pointer("/spec/parentRef").filter(|p| p.is_object()).map(|p| {
        let resource = match (str_at(p, "/resource"), str_at(p, "/group")) {
            (resource, "") => resource.to_owned(),
            (resource, group) => format!("{resource}.{group}"),
        };
        match str_at(p, "/namespace") {
            "" => format!("{resource}/{}", str_at(p, "/name")),
            namespace => format!("{resource}/{namespace}/{}", str_at(p, "/name")),
        }
    });
    vec![json!(name(o)), json!(or_none(parent.unwrap_or_default())), age(o, now)]
}

const SERVICE_CIDR: &[Column] = &[text("Name"), text("CIDRs"), text("Age")];

fn service_cidr(o: &Value, now: Time) -> Vec<Value> {
    vec![json!(name(o)), json!(texts(list_at(o, "/spec/cidrs")).join(",")), age(o, now)]
}
