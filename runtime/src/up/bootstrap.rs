//! Creates the objects that every Kubernetes cluster has, except the namespaces and PriorityClasses, which the API
//! server creates itself: the Service `kubernetes` with its endpoints, a default StorageClass, and where names are
//! served, the Service `kube-dns`.

use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;

use serde_json::{Value, json};
use skeg_core::Object;
use skeg_core::api::{
    Call, FromServer, Patch, Precondition, Reason, ReqIds, Request, Subresource, ToServer, WriteOptions,
};

use super::bootstrap_tokens::BOOTSTRAPPERS;
use super::pki::NODES;

/// Which request is in flight.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Asked {
    Create,
    /// The object exists (from an earlier run of the cluster), so it is patched to its current content.
    Patch,
}

/// Creates the objects one after the other.
#[derive(Debug)]
pub struct Bootstrap {
    /// What is made again where a user has deleted it.
    kept: Vec<Value>,
    wanted: VecDeque<Value>,
    /// Whether all objects have been created once. From then on an existing object is not changed.
    once: bool,
    /// Whether other servers do the same: then an existing object may be another's, and is not changed either.
    shared: bool,
    asked: Option<Asked>,
    ids: ReqIds,
    /// Error messages for the log.
    refused: Vec<String>,
}

impl Bootstrap {
    /// `advertised` is the API server's address; `service_ip` the cluster IP of the Service `kubernetes`; `dns` that of
    /// the Service `kube-dns`, and where its server is, or `None` if each node has one of its own. If the API is served
    /// by several (`shared`), the endpoints are kept by [`Peers`](super::servers::peers::Peers).
    pub fn new(
        advertised: SocketAddr,
        service_ip: Ipv4Addr,
        dns: Option<(Ipv4Addr, Option<SocketAddr>)>,
        shared: bool,
    ) -> Bootstrap {
        let mut all = vec![service(service_ip, advertised.port()), skeg_core::volume::standard_class().to_json()];
        // Endpoints must not be loopback addresses: a loopback address means a different server on every host.
        if !shared && !advertised.ip().is_loopback() && !advertised.ip().is_unspecified() {
            all.extend([endpoints(advertised), endpoint_slice(advertised)]);
        }
        if let Some((service_ip, server)) = dns {
            all.push(dns_service(service_ip, server.is_none()));
            all.extend(server.map(dns_slice));
        }
        let mut wanted: VecDeque<Value> = all.clone().into();
        if shared {
            wanted.extend(dns_roles());
            wanted.push_back(volumes_role());
            wanted.extend(NODE_BINDINGS.map(binding));
        }
        Bootstrap { kept: all, wanted, once: false, shared, asked: None, ids: ReqIds::new(1), refused: Vec::new() }
    }

    /// Starts a new pass if the last one is complete, because a user may have deleted an object. Returns the next
    /// request, if any.
    pub fn look_again(&mut self) -> Option<ToServer> {
        if self.is_done() {
            self.wanted = self.kept.clone().into();
        }
        self.next_request()
    }

    /// Whether every object of the current pass has been created or refused.
    pub fn is_done(&self) -> bool {
        self.wanted.is_empty()
    }

    /// Whether a pass has ever been completed.
    pub fn was_done(&self) -> bool {
        self.once
    }

    /// Takes the error messages since the last call.
    pub fn take_refused(&mut self) -> Vec<String> {
        std::mem::take(&mut self.refused)
    }

    /// Makes the next request; `None` if one is in flight or nothing is left to create.
    fn next_request(&mut self) -> Option<ToServer> {
        if self.asked.is_some() {
            return None;
        }
        let wanted = self.wanted.front()?.clone();
        self.asked = Some(Asked::Create);
        let object = Object::from_json(wanted).expect("what every cluster has is well-formed");
        Some(self.request(Call::Create { object, options: WriteOptions::default() }))
    }

    fn request(&mut self, call: Call) -> ToServer {
        ToServer::Request(self.ids.next(), Request::new(&Rc::from("system:apiserver"), call))
    }

    /// Handles a reply of the API server. Returns the next request, if any.
    pub fn answered(&mut self, message: FromServer) -> Option<ToServer> {
        let FromServer::Reply(_, result) = message else { return None };
        let asked = self.asked.take().expect("nothing is answered that was not asked");
        let wanted = self.wanted.front().expect("what is asked for is wanted");
        match result {
            Err(status) if status.reason == Reason::AlreadyExists && (self.once || self.shared) => {}
            Err(status) if status.reason == Reason::AlreadyExists && asked == Asked::Create => {
                let object = Object::from_json(wanted.clone()).expect("it was well-formed before");
                let call = Call::Patch {
                    key: object.key(),
                    patch: Patch::Merge(wanted.clone()),
                    subresource: Subresource::None,
                    precondition: Precondition::default(),
                    options: WriteOptions::default(),
                };
                self.asked = Some(Asked::Patch);
                return Some(self.request(call));
            }
            Err(status) => self.refused.push(status.message.into()),
            Ok(_) => {}
        }
        self.wanted.pop_front();
        self.once |= self.wanted.is_empty();
        self.next_request()
    }
}

fn service(address: Ipv4Addr, port: u16) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": "kubernetes", "namespace": "default",
            "labels": {"component": "apiserver", "provider": "kubernetes"}},
        "spec": {"type": "ClusterIP", "clusterIP": address, "sessionAffinity": "None",
            "ports": [{"name": "https", "protocol": "TCP", "port": 443, "targetPort": port}]},
    })
}

fn endpoints(at: SocketAddr) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Endpoints",
        "metadata": {"name": "kubernetes", "namespace": "default",
            "labels": {"endpointslice.kubernetes.io/skip-mirror": "true"}},
        "subsets": [{"addresses": [{"ip": at.ip()}],
            "ports": [{"name": "https", "protocol": "TCP", "port": at.port()}]}],
    })
}

fn endpoint_slice(at: SocketAddr) -> Value {
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {"name": "kubernetes", "namespace": "default",
            "labels": {"kubernetes.io/service-name": "kubernetes"}},
        "addressType": if at.is_ipv4() { "IPv4" } else { "IPv6" },
        "endpoints": [{"addresses": [at.ip()], "conditions": {"ready": true}}],
        "ports": [{"name": "https", "protocol": "TCP", "port": at.port()}],
    })
}

/// What agents may do, and those that want to become one: bindings with their ClusterRoles and groups. The last three
/// are kubeadm's, which has a group of its own for its tokens. The first, Kubernetes leaves to its Node authoriser,
/// which asks further what is bound to the node. They are made when a server starts; an administrator may delete them.
const NODE_BINDINGS: [(&str, &str, &str); 7] = [
    ("skeg:nodes", "system:node", NODES),
    ("skeg:node-volumes", "skeg:node-volumes", NODES),
    // Agents carry out what Services are, and serve their names.
    ("skeg:node-proxier", "system:node-proxier", NODES),
    ("system:coredns", "system:coredns", NODES),
    ("skeg:kubelet-bootstrap", "system:node-bootstrapper", BOOTSTRAPPERS),
    (
        "skeg:node-autoapprove-bootstrap",
        "system:certificates.k8s.io:certificatesigningrequests:nodeclient",
        BOOTSTRAPPERS,
    ),
    (
        "skeg:node-autoapprove-certificate-rotation",
        "system:certificates.k8s.io:certificatesigningrequests:selfnodeclient",
        NODES,
    ),
];

fn binding((name, role, group): (&str, &str, &str)) -> Value {
    json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding",
        "metadata": {"name": name},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": group}],
    })
}

/// What the server of names of a node reads, as kubeadm has it for CoreDNS, and where it says that it is.
fn dns_roles() -> [Value; 3] {
    let api = "rbac.authorization.k8s.io";
    let rule = |group: &str, resources: &[&str], verbs: &[&str]| json!({"apiGroups": [group], "resources": resources, "verbs": verbs});
    let reads = ["list", "watch"];
    let own = json!({"name": "skeg:node-dns", "namespace": "kube-system"});
    [
        json!({"apiVersion": format!("{api}/v1"), "kind": "ClusterRole",
            "metadata": {"name": "system:coredns"}, "rules": [
            rule("", &["endpoints", "services", "pods", "namespaces"], &reads),
            rule("discovery.k8s.io", &["endpointslices"], &reads),
        ]}),
        json!({"apiVersion": format!("{api}/v1"), "kind": "Role", "metadata": own, "rules": [
            rule("discovery.k8s.io", &["endpointslices"], &["create", "get", "update"]),
        ]}),
        json!({"apiVersion": format!("{api}/v1"), "kind": "RoleBinding", "metadata": own,
            "roleRef": {"apiGroup": api, "kind": "Role", "name": "skeg:node-dns"},
            "subjects": [{"apiGroup": api, "kind": "Group", "name": NODES}]}),
    ]
}

/// Agents empty the directories that volumes are made of, and delete these volumes then.
fn volumes_role() -> Value {
    json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": "skeg:node-volumes"},
        "rules": [{"apiGroups": [""], "resources": ["persistentvolumes"], "verbs": ["get", "list", "watch", "delete"]}]})
}

/// As kubeadm makes it, but without a selector: its server is no pod. Where each node has one of its own, what a pod
/// asks stays on its node.
fn dns_service(address: Ipv4Addr, local: bool) -> Value {
    let policy = if local { "Local" } else { "Cluster" };
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": "kube-dns", "namespace": "kube-system",
            "labels": {"k8s-app": "kube-dns", "kubernetes.io/cluster-service": "true",
                "kubernetes.io/name": "CoreDNS"}},
        "spec": {"type": "ClusterIP", "clusterIP": address, "sessionAffinity": "None",
            "internalTrafficPolicy": policy, "ports": [{"name": "dns", "protocol": "UDP", "port": 53, "targetPort": 53},
                {"name": "dns-tcp", "protocol": "TCP", "port": 53, "targetPort": 53}]},
    })
}

fn dns_slice(at: SocketAddr) -> Value {
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {"name": "kube-dns", "namespace": "kube-system",
            "labels": {"kubernetes.io/service-name": "kube-dns"}},
        "addressType": "IPv4",
        "endpoints": [{"addresses": [at.ip()], "conditions": {"ready": true}}],
        "ports": [{"name": "dns", "protocol": "UDP", "port": at.port()},
            {"name": "dns-tcp", "protocol": "TCP", "port": at.port()}],
    })
}

#[cfg(test)]
mod tests {
    use skeg_core::Revision;
    use skeg_core::api::{Call, FromServer, Response, ToServer};

    use super::{Bootstrap, NODE_BINDINGS};

    #[test]
    fn what_may_be_deleted_is_made_only_at_the_start() {
        let mut bootstrap = Bootstrap::new("10.0.0.1:6443".parse().unwrap(), "10.96.0.1".parse().unwrap(), None, true);
        let mut pass = || {
            let (mut made, mut next) = (Vec::new(), bootstrap.look_again());
            while let Some(ToServer::Request(id, request)) = next {
                let Call::Create { object, .. } = &request.call else { panic!("{request:?}") };
                made.push(object.name().to_owned());
                next = bootstrap.answered(FromServer::Reply(id, Ok(Response::Done { rv: Revision(1) })));
            }
            made
        };
        let (first, second) = (pass(), pass());
        assert_eq!(second, ["kubernetes", "standard"]);
        let roles = ["system:coredns", "skeg:node-dns", "skeg:node-dns", "skeg:node-volumes"];
        let bindings: Vec<&str> = NODE_BINDINGS.iter().map(|(name, ..)| *name).collect();
        assert_eq!(first, [&["kubernetes", "standard"], &roles[..], &bindings[..]].concat());
    }
}
