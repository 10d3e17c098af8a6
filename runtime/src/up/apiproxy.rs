//! The proxies: `pods/NAME/proxy`, `services/NAME/proxy` and `nodes/NAME/proxy` pass an HTTP request on to a port of a
//! pod, and what nodes say of themselves to their agents' callers.
//!
//! A pod that real containers run for is asked itself; for a simulated one answers what answers on its ports.
//!
//! Source: kubernetes `pkg/registry/core/{pod,service,node}/rest`, apimachinery `pkg/util/proxy`.

use std::convert::Infallible;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Duration;

use http_body_util::BodyExt;
use hyper::body::{Body, Bytes, Frame, Incoming};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{
    AUTHORIZATION, CONNECTION, HOST, HeaderMap, HeaderName, HeaderValue, LOCATION, PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION, TE, TRAILER, TRANSFER_ENCODING, UPGRADE,
};
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use skeg_core::Kind;
use skeg_core::api::{ListOptions, Status};
use skeg_core::auth::User;
use skeg_core::object::FieldSelector;
use tokio::net::TcpStream;

use super::ask::{Answer, Target, What};
use super::handler::{Handler, Written};
use super::reply::{self, Content};
use super::route::{Objects, not_found};
use super::streams::Ports;
use super::usage;

/// How long it may take to reach a pod.
const REACH: Duration = Duration::from_secs(30);
/// Headers that are about one connection and are not passed on (RFC 9110, 7.6.1).
const OF_A_CONNECTION: [HeaderName; 9] = [
    CONNECTION,
    TRANSFER_ENCODING,
    UPGRADE,
    TE,
    TRAILER,
    PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
];

/// A path with a proxy in it: as far as `/proxy`, and what comes after it.
pub fn split(path: &str) -> Option<(&str, &str)> {
    let parts: Vec<&str> = path.strip_prefix('/')?.split('/').collect();
    let at = match parts.as_slice() {
        ["api", "v1", "namespaces", _, "pods" | "services", _, "proxy", ..] => 7,
        ["api", "v1", "nodes", _, "proxy", ..] => 5,
        _ => return None,
    };
    let length = parts[..at].iter().map(|part| part.len() + 1).sum();
    Some(path.split_at(length))
}

/// What goes with a request that is passed on, as admission sees it.
fn options(kind: Kind, rest: &str) -> Value {
    let mut options = json!({"kind": format!("{}ProxyOptions", kind.row().kind), "apiVersion": "v1"});
    if !rest.is_empty() {
        options["path"] = json!(percent_encoding::percent_decode_str(rest).decode_utf8_lossy());
    }
    options
}

/// `NAME`, `NAME:PORT` or `SCHEME:NAME:PORT`, as a proxy's path names what it leads to (`SplitSchemeNamePort`).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Named {
    /// `http` or `https`; empty if it is not said.
    pub scheme: String,
    /// The object's name.
    pub name: String,
    /// Number or name; empty if it is not said.
    pub port: String,
}

impl Named {
    /// Reads it; `None` if it is none of the three.
    pub fn read(id: &str) -> Option<Named> {
        let (scheme, name, port) = match id.split(':').collect::<Vec<_>>()[..] {
            [name] => ("", name, ""),
            [name, port] => ("", name, port),
            [scheme @ ("http" | "https"), name, port] => (scheme, name, port),
            _ => return None,
        };
        (!name.is_empty()).then(|| Named { scheme: scheme.to_owned(), name: name.to_owned(), port: port.to_owned() })
    }
}

/// Who is asked in a proxy's place.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct To {
    /// The pod's address.
    pub address: String,
    /// Its port.
    pub port: u16,
}

/// The port of a pod that is asked: the one that is named, or else the first that the pod declares.
pub fn to_pod(pod: &Value, asked: &str) -> Result<To, Status> {
    let address = allowed(pod["status"]["podIP"].as_str().unwrap_or_default())?;
    let declared = || {
        let containers = pod["spec"]["containers"].as_array().into_iter().flatten();
        let first = containers.filter_map(|c| c["ports"][0]["containerPort"].as_u64()).next();
        u16::try_from(first.unwrap_or(80)).unwrap_or(80)
    };
    let port = if asked.is_empty() { Some(declared()) } else { asked.parse().ok() };
    let unknown = || unreachable(&format!("dial tcp: lookup tcp/{asked}: unknown port"));
    Ok(To { address, port: port.ok_or_else(unknown)? })
}

/// An address, if it is one that others may be led to (`IsProxyableIP`).
fn allowed(address: &str) -> Result<String, Status> {
    let is_unicast = |ip: IpAddr| match ip {
        IpAddr::V4(ip) => !ip.is_link_local() && !ip.is_broadcast(),
        IpAddr::V6(ip) => !ip.is_unicast_link_local(),
    };
    let good = |ip: &IpAddr| !ip.is_unspecified() && !ip.is_loopback() && !ip.is_multicast() && is_unicast(*ip);
    let found = address.parse::<IpAddr>().ok().map(|ip| ip.to_canonical()).filter(good);
    found.map(|ip| ip.to_string()).ok_or_else(|| Status::bad_request("address not allowed"))
}

/// The name of the port of a Service that is asked for by number or name.
pub fn port_of_service(service: &Value, asked: &str) -> Result<String, Status> {
    let Ok(number) = asked.parse::<i64>() else { return Ok(asked.to_owned()) };
    let mut ports = service["spec"]["ports"].as_array().into_iter().flatten();
    let found = ports.find(|port| port["port"] == number);
    let name = service["metadata"]["name"].as_str().unwrap_or_default();
    let missing = || Status::unavailable(format!("no service port {number} found for service {name:?}"));
    Ok(found.ok_or_else(missing)?["name"].as_str().unwrap_or_default().to_owned())
}

/// An endpoint of a Service with the port of this name: its address and port, and the pod behind it. `turn` chooses
/// among several.
pub fn to_service(endpoints: &Value, id: &Named, port: &str, turn: usize) -> Result<(To, Option<String>), Status> {
    let none = |name: &str| Status::unavailable(format!("no endpoints available for service {name:?}"));
    let subsets = endpoints["subsets"].as_array().filter(|s| !s.is_empty()).ok_or_else(|| none(&id.name))?;
    for subset in subsets {
        let addresses = subset["addresses"].as_array().map_or(&[][..], Vec::as_slice);
        let mut ports = subset["ports"].as_array().into_iter().flatten();
        let found = ports.find(|p| p["name"].as_str().unwrap_or_default() == port);
        if let (false, Some(number)) = (addresses.is_empty(), found.and_then(|p| p["port"].as_u64())) {
            let at = &addresses[turn % addresses.len()];
            let to = To {
                address: allowed(at["ip"].as_str().unwrap_or_default())?,
                port: u16::try_from(number).unwrap_or_default(),
            };
            let pod = Some(&at["targetRef"]).filter(|of| of["kind"] == "Pod").and_then(|of| of["name"].as_str());
            return Ok((to, pod.map(str::to_owned)));
        }
    }
    let whole = [&id.scheme, &id.name, &id.port].into_iter().filter(|part| !part.is_empty());
    Err(none(&whole.cloned().collect::<Vec<_>>().join(":")))
}

/// Nobody can be asked.
fn unreachable(why: &str) -> Status {
    Status::unavailable(format!("error trying to reach service: {why}"))
}

/// A request that is passed on.
pub struct Passed {
    /// Its method.
    pub method: Method,
    /// Its path after `proxy`, and its query.
    pub target: String,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Incoming,
}

/// The answer to a path that ends with `proxy`: what is there has links that are relative to it.
pub fn redirect(path: &str, query: Option<&str>) -> Response<Content> {
    let query = query.map_or(String::new(), |query| format!("?{query}"));
    let mut response = reply::text(301, String::new());
    if let Ok(to) = HeaderValue::from_str(&format!("{path}/{query}")) {
        response.headers_mut().insert(LOCATION, to);
    }
    response
}

impl Handler {
    /// Responds to a request for a proxy. `path` and `query` are the request's, `rest` is what follows `proxy`.
    pub(super) async fn proxy(
        &self,
        objects: &Objects,
        (path, rest, query): (&str, &str, Option<&str>),
        user: &Arc<User>,
        (method, headers, body): (&Method, &HeaderMap, Incoming),
    ) -> Result<Response<Content>, Status> {
        // Authorisation has judged the path without its empty segments: what it took for a name is no subresource.
        if objects.subresource.as_deref() != Some("proxy") {
            return Err(not_found());
        }
        let (id, kind) = (objects.name.as_deref().unwrap_or_default(), objects.resource.kind);
        let target = Target { kind, namespace: objects.namespace.clone(), name: id.to_owned() };
        let what = What::Connect { target, subresource: "proxy", options: options(kind, rest) };
        self.send(Arc::clone(user), &objects.resource, what, Written::default()).await?.result?;
        if rest.is_empty() && matches!(*method, Method::GET | Method::HEAD) {
            return Ok(redirect(path, query));
        }
        let singular = kind.row().kind.to_lowercase();
        let named = Named::read(id).ok_or_else(|| Status::bad_request(format!("invalid {singular} request {id:?}")))?;
        if named.scheme == "https" || headers.contains_key(UPGRADE) {
            let what = if named.scheme == "https" { "TLS" } else { "another protocol" };
            return Err(unreachable(&format!("{what} is not there yet")));
        }
        let object = self.required(kind, &objects.namespace, &named.name).await?;
        let (pod, to) = match kind {
            Kind::NODE => return self.node_proxy(&object, method, rest, query).await,
            Kind::POD => {
                let to = to_pod(&object, &named.port)?;
                (Some(object), to)
            }
            _ => {
                let port = port_of_service(&object, &named.port)?;
                let endpoints = self.look_up(Kind::ENDPOINTS, &objects.namespace, &named.name).await?;
                let turn = self.turn.fetch_add(1, Ordering::Relaxed);
                let (to, pod) = to_service(&endpoints.unwrap_or_default(), &named, &port, turn)?;
                let pod = match pod {
                    Some(pod) => self.look_up(Kind::POD, &objects.namespace, &pod).await?,
                    None => None,
                };
                (pod, to)
            }
        };
        let target = format!("/{}{}", rest.trim_start_matches('/'), query.map_or(String::new(), |q| format!("?{q}")));
        let passed = Passed { method: method.clone(), target, headers: headers.clone(), body };
        if let Some(pod) = &pod
            && !self.is_real(pod).await?
        {
            return simulated(pod, &to, &passed);
        }
        let at = format!("{}:{}", to.address, to.port);
        let connected = tokio::time::timeout(REACH, TcpStream::connect((to.address.as_str(), to.port))).await;
        let failed = |why: &str| unreachable(&format!("dial tcp {at}: {why}"));
        let stream = connected.map_err(|_| failed("i/o timeout"))?.map_err(|e| {
            let why = e.to_string().to_lowercase();
            failed(&format!("connect: {}", why.split(" (os").next().unwrap_or_default()))
        })?;
        ask(stream, &to, passed).await
    }

    /// Whether real containers run for a pod.
    async fn is_real(&self, pod: &Value) -> Result<bool, Status> {
        let node = self.look_up(Kind::NODE, "", pod["spec"]["nodeName"].as_str().unwrap_or_default()).await?;
        Ok(node.as_ref().is_some_and(is_of_docker))
    }

    /// Asks the port of a node's agent; for the nodes of this process, says what that would.
    async fn node_proxy(
        &self,
        node: &Value,
        method: &Method,
        rest: &str,
        query: Option<&str>,
    ) -> Result<Response<Content>, Status> {
        let name = node["metadata"]["name"].as_str().unwrap_or_default();
        let kubelets = self.shared.kubelets.as_ref();
        let is_own = self.shared.own_nodes.contains(name) || kubelets.is_none() && is_of_docker(node);
        if !is_own {
            let kubelets = kubelets.ok_or_else(|| unreachable(&format!("node {name:?} has no agent")))?;
            let target = format!("{rest}{}", query.map_or(String::new(), |query| format!("?{query}")));
            return kubelets.ask(node, method, &target).await;
        }
        let fields = FieldSelector::equal("spec.nodeName", name);
        let options = ListOptions { fields, ..ListOptions::default() };
        let served = self.shared.catalogue.now();
        let pods = served.by_path("", "v1", "pods").expect("it is built in");
        let what = What::List { kind: Kind::POD, namespace: String::new(), options, as_text: false };
        let Answer::List { items, .. } = self.ask_for_itself(pods, what).await?.result? else {
            unreachable!("a list is answered by a list")
        };
        Ok(match rest {
            "/healthz" => reply::text(200, "ok".to_owned()),
            "/stats/summary" => {
                let (used, now) = (self.used_here().await?, self.shared.clock.now().wall);
                reply::typed("application/json", &usage::summary(name, &items, &used, now))
            }
            _ => reply::text(404, "404 page not found\n".to_owned()),
        })
    }
}

/// Whether a node runs real containers: it says which runtime it has.
fn is_of_docker(node: &Value) -> bool {
    let version = node["status"]["nodeInfo"]["containerRuntimeVersion"].as_str();
    version.is_some_and(|version| version.starts_with("docker://"))
}

/// What answers on the ports of a simulated pod.
fn simulated(pod: &Value, to: &To, passed: &Passed) -> Result<Response<Content>, Status> {
    let refused = |_| unreachable(&format!("dial tcp {}:{}: connect: connection refused", to.address, to.port));
    let mut connection = Ports::of(pod).connect(to.port).map_err(refused)?;
    let head = format!("{} {} HTTP/1.0\r\n\r\n", passed.method, passed.target);
    let answer = String::from_utf8_lossy(&connection.handle(head.as_bytes())).into_owned();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let code = head.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(502);
    Ok(reply::text(code, body.to_owned()))
}

async fn ask(stream: TcpStream, to: &To, passed: Passed) -> Result<Response<Content>, Status> {
    let (mut sender, connection) =
        http1::handshake(TokioIo::new(stream)).await.map_err(|e| unreachable(&e.to_string()))?;
    // What is wrong with it, its one request says.
    tokio::spawn(connection);
    let mut request = Request::new(passed.body);
    *request.method_mut() = passed.method;
    *request.uri_mut() = passed.target.parse().map_err(|_| Status::bad_request("the path cannot be passed on"))?;
    // Who asks, and in whose name, is nothing to a pod, and a pod has no use for another's proof of it.
    let mut kept = end_to_end(&passed.headers);
    let is_about_users = |name: &&HeaderName| **name == AUTHORIZATION || name.as_str().starts_with("impersonate-");
    let about_users: Vec<HeaderName> = kept.keys().filter(is_about_users).cloned().collect();
    about_users.iter().for_each(|name| drop(kept.remove(name)));
    *request.headers_mut() = kept;
    let host = HeaderValue::from_str(&format!("{}:{}", to.address, to.port));
    request.headers_mut().insert(HOST, host.map_err(|_| Status::bad_request("address not allowed"))?);
    let response = sender.send_request(request).await.map_err(|e| unreachable(&e.to_string()))?;
    let (head, body) = response.into_parts();
    let mut answer = Response::new(Rest::new(body, sender).boxed_unsync());
    *answer.status_mut() = head.status;
    *answer.headers_mut() = end_to_end(&head.headers);
    Ok(answer)
}

/// The headers that are passed on.
pub fn end_to_end(headers: &HeaderMap) -> HeaderMap {
    let named = headers.get_all(CONNECTION).iter().filter_map(|value| value.to_str().ok());
    let named: Vec<String> = named.flat_map(|value| value.split(',')).map(|name| name.trim().to_lowercase()).collect();
    let mut kept = HeaderMap::new();
    for (name, value) in headers {
        if !OF_A_CONNECTION.contains(name) && !named.iter().any(|of| of == name.as_str()) {
            kept.append(name.clone(), value.clone());
        }
    }
    kept
}

/// The body of an answer of another server, which ends where that ends.
pub struct Rest<B> {
    body: Incoming,
    /// The connection is closed with it.
    _sender: SendRequest<B>,
}

impl<B> Rest<B> {
    /// `sender` is of the connection on which the answer comes.
    pub fn new(body: Incoming, sender: SendRequest<B>) -> Rest<B> {
        Rest { body, _sender: sender }
    }
}

impl<B> Body for Rest<B> {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Pin::new(&mut self.body).poll_frame(cx).map(|frame| frame.and_then(Result::ok).map(Ok))
    }
}

#[cfg(test)]
mod tests {
    use super::{Named, To, end_to_end, options, port_of_service, split, to_pod, to_service};
    use hyper::header::{HeaderMap, HeaderValue};
    use serde_json::json;
    use skeg_core::Kind;

    #[test]
    fn what_follows_proxy_is_not_a_path_of_the_api() {
        let check = |path: &str, want: Option<(&str, &str)>| assert_eq!(split(path), want, "{path}");
        let head = "/api/v1/namespaces/n/pods/http:p:80/proxy";
        check(head, Some((head, "")));
        check(&format!("{head}/"), Some((head, "/")));
        check(&format!("{head}/a%2Fb/../c"), Some((head, "/a%2Fb/../c")));
        check("/api/v1/nodes/n/proxy/healthz", Some(("/api/v1/nodes/n/proxy", "/healthz")));
        check("/api/v1/namespaces/n/pods/p/proxyx", None);
        check("p:/api/v1/namespaces/n/services/s/proxy/x", None);
        check("/api/v1/namespaces/n/configmaps/p/proxy", None);
        check("/apis/apps/v1/namespaces/n/pods/p/proxy", None);
    }

    #[test]
    fn what_goes_with_what_is_passed_on() {
        let service = json!({"kind": "ServiceProxyOptions", "apiVersion": "v1", "path": "/a b/"});
        assert_eq!(options(Kind::SERVICE, "/a%20b/"), service);
        assert_eq!(options(Kind::NODE, ""), json!({"kind": "NodeProxyOptions", "apiVersion": "v1"}));
    }

    #[test]
    fn names_come_with_scheme_and_port() {
        let check = |id: &str, want: Option<[&str; 3]>| {
            let got = Named::read(id).map(|n| [n.scheme, n.name, n.port]);
            assert_eq!(got, want.map(|all| all.map(str::to_owned)), "{id}");
        };
        check("p", Some(["", "p", ""]));
        check("p:web", Some(["", "p", "web"]));
        check("https:p:443", Some(["https", "p", "443"]));
        check("http:p:", Some(["http", "p", ""]));
        check("ftp:p:1", None);
        check(":80", None);
        check("a:b:c:d", None);
    }

    #[test]
    fn pods_and_services_lead_to_an_address() {
        let pod = json!({"metadata": {"name": "p"}, "status": {"podIP": "10.1.0.1"}, "spec": {"containers": [
            {"name": "a"}, {"name": "b", "ports": [{"containerPort": 8080}]}]}});
        let to = |port| To { address: "10.1.0.1".to_owned(), port };
        assert_eq!(to_pod(&pod, "").unwrap(), to(8080));
        assert_eq!(to_pod(&pod, "81").unwrap(), to(81));
        for address in ["", "127.0.0.1", "169.254.0.1", "0.0.0.0", "::1", "ff02::1", "255.255.255.255"] {
            let refused = to_pod(&json!({"status": {"podIP": address}}), "").unwrap_err();
            assert_eq!((refused.reason.code(), &*refused.message), (400, "address not allowed"), "{address}");
        }

        let service =
            json!({"metadata": {"name": "s"}, "spec": {"ports": [{"port": 80, "name": "web"}, {"port": 81}]}});
        let port = |asked: &str| port_of_service(&service, asked).map_err(|status| status.message.to_string());
        assert_eq!(port("80"), Ok("web".to_owned()));
        assert_eq!(port("81"), Ok(String::new()));
        assert_eq!(port("web"), Ok("web".to_owned()));
        assert_eq!(port("82"), Err("no service port 82 found for service \"s\"".to_owned()));

        let endpoints = json!({"subsets": [{"addresses": [{"ip": "10.1.0.1", "targetRef": {"kind": "Pod", "name": "p"}},
            {"ip": "10.1.0.2"}], "ports": [{"name": "web", "port": 8080}]}]});
        let id = Named::read("http:s:web").unwrap();
        let got = |port: &str, turn| to_service(&endpoints, &id, port, turn).map_err(|s| s.message.to_string());
        assert_eq!(got("web", 0), Ok((to(8080), Some("p".to_owned()))));
        assert_eq!(got("web", 3).unwrap().0.address, "10.1.0.2");
        assert_eq!(got("other", 0), Err("no endpoints available for service \"http:s:web\"".to_owned()));
        let none = to_service(&json!({}), &id, "web", 0).unwrap_err();
        assert_eq!((none.reason.code(), &*none.message), (503, "no endpoints available for service \"s\""));
    }

    #[test]
    fn what_is_about_a_connection_stays_with_it() {
        let mut headers = HeaderMap::new();
        for (name, value) in [("connection", "close, x-own"), ("x-own", "1"), ("x-kept", "2"), ("upgrade", "h2c")] {
            headers.insert(name, HeaderValue::from_static(value));
        }
        let kept = end_to_end(&headers);
        assert_eq!((kept.len(), &kept["x-kept"]), (1, &HeaderValue::from_static("2")));
    }
}
