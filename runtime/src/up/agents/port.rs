//! The port of an agent that runs real containers: servers ask it for logs and streams of its pods.
//!
//! Paths are the kubelet's, parameters those of the API. Who asks is known by a client certificate of the cluster's
//! authority, and must be allowed to use the subresource `proxy` of the node, which the servers are asked about.
//!
//! Source: kubernetes `pkg/kubelet/server/server.go`, `pkg/kubelet/server/auth.go`.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, RwLock};
use std::time::Duration;

use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use hyper::{Method, Request, Response};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use serde_json::{Value, json};
use skeg_core::api::{Reason, Status};
use skeg_core::auth::{ANONYMOUS, User};
use tokio::net::TcpListener;
use tokio::sync::oneshot;

use super::client::Client;
use crate::disk::explain;
use crate::up::accept::Encoding;
use crate::up::ask;
use crate::up::clock::time_of_day;
use crate::up::identity::unauthorised;
use crate::up::params::Params;
use crate::up::reply::{self, Content};
use crate::up::route::{not_found, segments};
use crate::up::server::{self, Respond};
use crate::up::streams::visit::Visit;
use crate::up::streams::{self, Upgrade};
use crate::up::usage;

/// The kubelet's port, which every Node names.
pub const PORT: u16 = 10250;

/// What requests are answered with.
pub struct Port {
    /// Reads pods, and asks what users may do.
    pub client: Arc<Client>,
    /// Name of the node.
    pub node: String,
    /// Where visits to containers go.
    pub local: ask::ToCluster,
}

/// The certificate that the port shows; another one takes its place before it ends.
#[derive(Debug, Default)]
pub struct Shown(RwLock<Option<Arc<CertifiedKey>>>);

impl Shown {
    /// Shows this one from now on; both are PEM.
    pub fn show(&self, certificate: &str, key: &str) -> Result<(), String> {
        let chain = CertificateDer::pem_slice_iter(certificate.as_bytes()).collect::<Result<Vec<_>, _>>();
        let chain = chain.map_err(|e| e.to_string())?;
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(|e| e.to_string())?;
        let provider = rustls::crypto::ring::default_provider();
        let certified = CertifiedKey::from_der(chain, key, &provider).map_err(|e| e.to_string())?;
        *self.0.write().expect("nobody panics while it is held") = Some(Arc::new(certified));
        Ok(())
    }
}

impl ResolvesServerCert for Shown {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0.read().expect("nobody panics while it is held").clone()
    }
}

/// Takes the port.
pub async fn listen() -> Result<TcpListener, String> {
    let at = SocketAddr::from((Ipv4Addr::UNSPECIFIED, PORT));
    TcpListener::bind(at).await.map_err(|e| format!("error: {at}: {}; another agent or kubelet has it", explain(&e)))
}

impl Port {
    /// Serves for ever. `authority` is whose client certificates are believed, PEM.
    pub async fn serve(self, listener: TcpListener, authority: String, shown: Arc<Shown>) {
        match server::tls_shown(&authority, shown) {
            Ok(tls) => {
                let never = std::future::pending();
                server::serve(vec![listener], tls, Arc::new(self), never, Duration::ZERO).await;
            }
            Err(why) => tracing::error!("the agent's port is not served: {why}"),
        }
    }

    /// Refuses who may not use the node's subresource `proxy` (kubelet authorisation by webhook).
    async fn authorise(&self, user: &User, method: &Method) -> Result<(), Status> {
        if user.name == ANONYMOUS {
            return Err(unauthorised());
        }
        let verb = if *method == Method::POST { "create" } else { "get" };
        let attributes = json!({"verb": verb, "version": "v1", "resource": "nodes", "subresource": "proxy",
            "name": self.node});
        let review = json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview",
            "spec": {"user": user.name, "groups": user.groups, "resourceAttributes": attributes}});
        let path = "/apis/authorization.k8s.io/v1/subjectaccessreviews".to_owned();
        let reviewed = self.client.call(Method::POST, path, Some(&review)).await;
        let reviewed = reviewed.map_err(|why| Status::internal(format!("Authorization error: {why}")))?;
        if reviewed["status"]["allowed"] == true {
            return Ok(());
        }
        let message = format!("Forbidden (user={}, verb={verb}, resource=nodes, subresource(s)=[proxy])", user.name);
        Err(Status { reason: Reason::Forbidden, message: message.into(), details: None })
    }

    /// A pod of this node.
    async fn pod(&self, namespace: &str, name: &str) -> Result<Value, Status> {
        let path = format!("/api/v1/namespaces/{namespace}/pods/{name}");
        let pod = self.client.call(Method::GET, path, None).await;
        let pod = pod.ok().filter(|pod| pod["spec"]["nodeName"] == self.node.as_str());
        pod.ok_or_else(|| {
            let message = format!("pod {name:?} in namespace {namespace:?} is not on node {:?}", self.node);
            Status { reason: Reason::NotFound, message: message.into(), details: None }
        })
    }

    /// What this node and its pods use.
    async fn summary(&self) -> Result<Response<Content>, Status> {
        let path = format!("/api/v1/pods?fieldSelector=spec.nodeName%3D{}", self.node);
        let pods = self.client.call(Method::GET, path, None).await.map_err(Status::unavailable)?;
        let (reply, used) = oneshot::channel();
        let ended = || Status::unavailable("the agent is ending");
        self.local.send(ask::Inbound::Visit(Visit::Usage { reply })).map_err(|_| ended())?;
        let used = used.await.map_err(|_| ended())?;
        if used.unknown.contains(&self.node) {
            return Err(Status::internal("the engine of containers does not say what they use"));
        }
        let pods = pods["items"].as_array().map_or(&[][..], Vec::as_slice);
        Ok(reply::typed("application/json", &usage::summary(&self.node, pods, &used, time_of_day())))
    }

    async fn answer(&self, user: &User, request: Request<Incoming>) -> Result<Response<Content>, Status> {
        let (mut head, _) = request.into_parts();
        let connection = head.extensions.remove::<OnUpgrade>();
        self.authorise(user, &head.method).await?;
        let (segments, params) = (segments(head.uri.path())?, Params::parse(head.uri.query()));
        let parts: Vec<&str> = segments.iter().map(String::as_str).collect();
        let upgrade = || Upgrade::new(&head.headers, connection);
        match (&head.method, &parts[..]) {
            (&Method::GET, ["healthz"]) => Ok(reply::text(200, "ok".to_owned())),
            (&Method::GET, ["stats", "summary"]) => self.summary().await,
            (&Method::GET, ["containerLogs", namespace, name, _]) => {
                let pod = self.pod(namespace, name).await?;
                streams::log::read(&pod, &params, time_of_day(), &self.local).await
            }
            (&Method::GET | &Method::POST, ["exec", namespace, name, _]) => {
                streams::exec(&self.pod(namespace, name).await?, &params, upgrade()?, &self.local)
            }
            (&Method::GET | &Method::POST, ["attach", namespace, name, _]) => {
                streams::attach(&self.pod(namespace, name).await?, &params, upgrade()?, &self.local)
            }
            (&Method::GET | &Method::POST, ["portForward", namespace, name]) => {
                streams::port_forward(&self.pod(namespace, name).await?, &params, upgrade()?, &self.local)
            }
            _ => Err(not_found()),
        }
    }
}

impl Respond for Port {
    async fn respond(&self, user: Arc<User>, request: Request<Incoming>) -> Response<Content> {
        let answered = self.answer(&user, request).await;
        answered.unwrap_or_else(|status| reply::status(&status, Encoding::default()))
    }
}
