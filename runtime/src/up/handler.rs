//! Turns HTTP requests into requests to the API server, and its answers into HTTP responses.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use hyper::body::Incoming;
use hyper::header::{ACCEPT, ACCEPT_ENCODING, HeaderMap, USER_AGENT};
use hyper::upgrade::OnUpgrade;
use hyper::{Method, Request, Response, Uri};
use serde_json::{Value, json};
use skeg_core::Kind;
use skeg_core::api::{Annotations, ListOptions, Patch, Reason, Status, Subresource};
use skeg_core::auth::{self, ANONYMOUS, Authoriser, MASTERS, User};
use skeg_core::flow::Width;
use skeg_core::object::decode::DecodeError;
use skeg_core::object::{FieldSelector, Verbs};
use tokio::sync::oneshot;

use super::accept::{self, Accepted, Encoding};
use super::aggregator::{Remote, proxy};
use super::ask::{Answer, Ask, FieldValidation, Inbound, Reply, Target, ToCluster, WatchEncoding, What};
use super::attempt::Asked;
use super::cluster::Shared;
use super::conversion::Source;
use super::flow::Flow;
use super::flow::gate::{Gate, Permit};
use super::identity;
use super::metrics::{self, Labels, Metrics, Present};
use super::openapi::Documents;
use super::params::{FIELD_MANAGER, Params};
use super::perturb::Serves;
use super::render::{IncludeObject, ListMeta, Look};
use super::reply::Content;
use super::route::{Objects, Route, not_found};
use super::selection::Selection;
use super::served::{Resource, Served};
use super::server::Respond;
use super::streams::remote::Carried;
use super::streams::visit::Visit;
use super::streams::{self, Upgrade};
use super::tokens::{self, Tokens};
use super::usage::Used;
use super::{accept::Shape, apiproxy, body, conversion, discovery, openapi, reply, review, usage};

/// Seconds until a watch ends, if the client gives no time-out. The actual time is between one and two times as long
/// and depends on the watch's number, so that watches do not all end at once (`--min-request-timeout`).
const WATCH_TIMEOUT: u64 = 1800;

/// Paths that everybody may get (`--authorization-always-allow-paths`).
const ALWAYS_ALLOWED: [&str; 3] = ["/healthz", "/readyz", "/livez"];

/// State that all connections share.
#[derive(Debug)]
pub struct Handler {
    pub(super) cluster: ToCluster,
    pub(super) shared: Shared,
    documents: Documents,
    /// `address:port` that clients use.
    address: String,
    pub(super) tokens: Arc<Tokens>,
    gate: Arc<Gate>,
    metrics: Metrics,
    /// Which of several endpoints is the next to be asked.
    pub(super) turn: AtomicUsize,
}

/// The head of a request, and the user.
pub(super) struct Head<'a> {
    user: &'a Arc<User>,
    method: &'a Method,
    pub(super) headers: &'a HeaderMap,
    params: Params,
    pub(super) accepted: Accepted,
}

fn header(headers: &HeaderMap, name: hyper::header::HeaderName) -> Option<&str> {
    headers.get(name).and_then(|v| v.to_str().ok())
}

pub(super) fn wants_gzip(headers: &HeaderMap) -> bool {
    header(headers, ACCEPT_ENCODING).is_some_and(|v| v.split(',').any(|e| e.trim().starts_with("gzip")))
}

fn method_not_allowed() -> Status {
    let message = "the server does not allow this method on the requested resource".into();
    Status { reason: Reason::MethodNotAllowed, message, details: None }
}

impl Handler {
    /// `cluster` is the channel to the machines' thread.
    pub fn new(cluster: ToCluster, shared: Shared, address: String, tokens: Arc<Tokens>) -> Handler {
        Handler {
            cluster,
            shared,
            documents: Documents::default(),
            address,
            tokens,
            gate: Arc::new(Gate::new()),
            metrics: Metrics::default(),
            turn: AtomicUsize::new(0),
        }
    }

    /// Responds to a request. Every error becomes a `Status`.
    async fn answer(&self, user: Arc<User>, request: Request<Incoming>) -> Response<Content> {
        let (mut head, body) = request.into_parts();
        let upgrade = head.extensions.remove::<OnUpgrade>();
        let method = head.method.clone();
        // What follows a proxy in a path is another server's.
        let whole = head.uri.path();
        let (path, rest) = apiproxy::split(whole).map_or((whole, None), |(path, rest)| (path, Some(rest)));
        let accepted = accept::negotiate(header(&head.headers, ACCEPT));
        let encoding = accepted.as_ref().map(|a| a.encoding).unwrap_or_default();
        let mut flow = None;
        let answered = async {
            let user = match tokens::bearer(&head.headers) {
                // A client certificate has said already who it is.
                Some(token) if user.name == ANONYMOUS => self.user_of(token).await.map(Arc::new).map_err(|why| {
                    tracing::debug!("a token was refused: {why}");
                    identity::unauthorised()
                })?,
                Some(_) | None => Arc::clone(&user),
            };
            let params = Params::parse(head.uri.query());
            let user = &self.authorise(&user, (&head.method, path), &head.headers, &params, &mut flow)?;
            let enter = |width| self.enter(flow.as_ref(), width, &method);
            if let Some(remote) = self.remote(path) {
                let _permit = enter(Width::of(1)).await?;
                return Ok(self.pass_on(&remote, user, (&method, &head.uri, &head.headers), body).await);
            }
            let (served, route) = self.find(path).await?;
            // They last, and an agent that is asked for one asks a server in turn (`--max-requests-inflight` exempts
            // them).
            let lasts = rest.is_some() || matches!(&route, Route::Objects(objects) if is_stream(objects));
            let width = match &route {
                Route::Objects(objects) => self.gate.width(&method, objects, &params),
                _ => Width::of(1),
            };
            let _permit = if lasts { None } else { Some(enter(width).await?) };
            if let (Some(rest), Route::Objects(objects)) = (rest, &route) {
                let from = (whole, rest, head.uri.query());
                return self.proxy(objects, from, user, (&method, &head.headers, body)).await;
            }
            match route {
                Route::Objects(objects) => {
                    let head = Head { user, method: &method, headers: &head.headers, params, accepted: accepted? };
                    self.objects(&head, objects, body, upgrade).await
                }
                route => {
                    let head =
                        Head { user, method: &method, headers: &head.headers, params, accepted: Accepted::default() };
                    self.other(&head, &served, route)
                }
            }
        };
        let mut response = answered.await.unwrap_or_else(|status| reply::status(&status, encoding));
        flow.iter().for_each(|flow: &Flow| reply::tell_class(&mut response, &flow.class));
        tracing::debug!(%method, path = whole, user = user.name, code = response.status().as_u16());
        response
    }

    /// Checks that a user may do what a request attempts; returns as whom they do it. `flow` becomes what the request
    /// belongs to.
    fn authorise(
        &self,
        user: &Arc<User>,
        (method, path): (&Method, &str),
        headers: &HeaderMap,
        params: &Params,
        flow: &mut Option<Flow>,
    ) -> Result<Arc<User>, Status> {
        let authority = self.shared.authority.read().expect("nobody panics while it is changed");
        let acted = identity::impersonated(headers, user, &*authority)?;
        let user = acted.map_or_else(|| Arc::clone(user), Arc::new);
        let asked = Asked::read(method, path, params)?;
        let flows = Arc::clone(&self.shared.flows.read().expect("nobody panics while it is replaced"));
        *flow = flows.of(&user, &asked.attempt());
        if ALWAYS_ALLOWED.contains(&path) {
            return Ok(user);
        }
        let verdict = authority.judge(&user, &asked.attempt());
        if verdict.allows() { Ok(user) } else { Err(auth::forbidden(&user, &asked.attempt(), verdict.reason())) }
    }

    /// Lets a request in, perhaps after a while.
    async fn enter(&self, flow: Option<&Flow>, width: Width, method: &Method) -> Result<Permit, Status> {
        let flows = Arc::clone(&self.shared.flows.read().expect("nobody panics while it is replaced"));
        let writes = !matches!(*method, Method::GET | Method::HEAD);
        self.gate.enter(&flows, flow, (width, writes)).await.map_err(|_| overloaded())
    }

    /// Responds to a path that is not about objects. Only discovery depends on the `Accept` header, and parses it
    /// itself.
    fn other(&self, head: &Head<'_>, served: &Served, route: Route) -> Result<Response<Content>, Status> {
        let (method, headers) = (head.method, head.headers);
        if !matches!(*method, Method::GET | Method::HEAD) {
            return Err(method_not_allowed());
        }
        let gzip = wants_gzip(headers);
        let remotes = self.remotes();
        let json = |value: &Value| Ok(reply::value(200, value, accept::Encoding::Json, gzip));
        match route {
            Route::Health { readiness, check } => self.health(readiness, check.as_deref(), &head.params),
            Route::Version => json(&discovery::version()),
            Route::Metrics => {
                let (reads, writes) = self.gate.present();
                let mut text = self.metrics.text(discovery::KUBERNETES_VERSION, Present { reads, writes });
                self.gate.show(|dispatcher| metrics::flows(&mut text, dispatcher));
                Ok(reply::plain(metrics::MEDIA_TYPE, text))
            }
            Route::Root => json(&json!({"paths": paths(served, &remotes)})),
            Route::Groups { legacy } => {
                if let Some(version) = accept::discovery(header(headers, ACCEPT)) {
                    let value = discovery::aggregated(served, &remotes, legacy, version);
                    return Ok(reply::typed(&discovery::aggregated_type(version), &value));
                }
                let value = match legacy {
                    true => discovery::api_versions(&self.address),
                    false => discovery::api_groups(served, &remotes),
                };
                json(&value)
            }
            Route::Group(group) => json(&discovery::api_group(served, &remotes, &group).ok_or_else(not_found)?),
            Route::Resources { group, version } => {
                json(&discovery::api_resources(served, &group, &version).ok_or_else(not_found)?)
            }
            Route::OpenIdConfiguration => Ok(self.tokens.configuration()),
            Route::KeySet => Ok(self.tokens.key_set()),
            Route::OpenApiV2 => {
                let document = self.documents.get_v2(served, header(headers, ACCEPT))?;
                Ok(reply::document(&document, headers, gzip, false))
            }
            Route::OpenApiIndex => json(&openapi::index(served, &remotes)),
            Route::OpenApi(path) => {
                let document = self.documents.get(served, &path).ok_or_else(not_found)?;
                let asked = head.params.said("hash");
                if asked.is_some_and(|asked| asked != document.hash) {
                    return Ok(reply::moved(&format!("/openapi/v3/{path}?hash={}", document.hash)));
                }
                Ok(reply::document(&document, headers, gzip, asked.is_some()))
            }
            Route::Objects(_) => unreachable!("objects are answered elsewhere"),
        }
    }

    fn health(&self, readiness: bool, check: Option<&str>, params: &Params) -> Result<Response<Content>, Status> {
        let checks: Vec<(&str, bool)> = match readiness {
            false => vec![("ping", true)],
            true => vec![
                ("ping", true),
                ("etcd", self.shared.connected.load(Ordering::Acquire)),
                ("poststarthook/bootstrap", self.shared.ready.load(Ordering::Acquire)),
                ("poststarthook/rbac/bootstrap-roles", self.shared.has_policy.load(Ordering::Acquire)),
                ("shutdown", !self.shared.ending.load(Ordering::Acquire)),
            ],
        };
        let name = match readiness {
            true => "readyz",
            false => "livez",
        };
        if let Some(check) = check {
            let (_, well) = checks.iter().find(|(name, _)| *name == check).ok_or_else(not_found)?;
            return Ok(if *well { reply::text(200, "ok".to_owned()) } else { failed(&checks, name) });
        }
        if checks.iter().any(|(_, well)| !well) {
            return Ok(failed(&checks, name));
        }
        if params.get("verbose").is_none() {
            return Ok(reply::text(200, "ok".to_owned()));
        }
        let lines: String = checks.iter().map(|(name, _)| format!("[+]{name} ok\n")).collect();
        Ok(reply::text(200, format!("{lines}{name} check passed\n")))
    }

    /// Responds to a request for one object or a collection.
    async fn objects(
        &self,
        head: &Head<'_>,
        objects: Objects,
        body: Incoming,
        upgrade: Option<OnUpgrade>,
    ) -> Result<Response<Content>, Status> {
        // A proxy is asked by its own path, and by no other that leads there.
        if let Some(subresource) = &objects.subresource
            && (subresource == "proxy" || !objects.resource.has_subresource(subresource))
        {
            return Err(not_found());
        }
        if objects.watch && head.method != Method::GET {
            return Err(method_not_allowed());
        }
        let watches =
            head.method == Method::GET && objects.subresource.is_none() && (objects.watch || head.params.flag("watch"));
        let verb = match (head.method, &objects.name) {
            (_, _) if watches => "watch",
            (&Method::GET, Some(_)) => "get",
            (&Method::GET, None) => "list",
            (&Method::POST, _) => "create",
            (&Method::PUT, Some(_)) => "update",
            (&Method::PATCH, Some(_)) => "patch",
            (&Method::DELETE, Some(_)) => "delete",
            (&Method::DELETE, None) => "deletecollection",
            _ => return Err(method_not_allowed()),
        };
        let info = &objects.resource.info;
        let computed = info.verbs == Verbs::Read && matches!(verb, "get" | "list");
        if !info.verbs.stored() && !computed && (verb != "create" || objects.name.is_some()) {
            return Err(method_not_allowed());
        }
        let labels = labels(&objects, verb);
        let begun = Instant::now();
        let answered = self.objects_authorised(head, objects, verb, body, upgrade).await;
        let code = answered.as_ref().map_or_else(|status| status.reason.code(), |response| response.status().as_u16());
        self.metrics.answered(labels, code, begun);
        answered
    }

    /// Responds to a request that is allowed.
    async fn objects_authorised(
        &self,
        head: &Head<'_>,
        objects: Objects,
        verb: &str,
        body: Incoming,
        upgrade: Option<OnUpgrade>,
    ) -> Result<Response<Content>, Status> {
        let info = &objects.resource.info;
        if is_stream(&objects) && verb != "watch" {
            return self.stream(head, &objects, upgrade).await;
        }
        match verb {
            "watch" => self.watch(head, &objects).await,
            "get" | "list" if !info.verbs.stored() => self.usage(head, &objects).await,
            "get" | "list" => self.read(head, &objects).await,
            "create" if !info.verbs.stored() => self.review(head, &objects, body).await,
            "create" if objects.subresource.as_deref() == Some("token") => {
                self.request_token(head, &objects, body).await
            }
            _ => self.write(head, &objects, verb, body).await,
        }
    }

    /// Responds to a request for a pod's logs, or for streams into its containers.
    async fn stream(
        &self,
        head: &Head<'_>,
        objects: &Objects,
        upgrade: Option<OnUpgrade>,
    ) -> Result<Response<Content>, Status> {
        let subresource = objects.subresource.as_deref().unwrap_or_default();
        if !matches!((head.method, subresource), (&Method::GET, _) | (&Method::POST, "exec" | "attach" | "portforward"))
        {
            return Err(method_not_allowed());
        }
        if let Some((subresource, options)) = streams::options(subresource, &head.params) {
            let what = What::Connect { target: target(objects)?, subresource, options };
            self.ask(head, objects, what, Written::default()).await?.result?;
        }
        let what = What::Get { target: target(objects)?, rv: None };
        let Answer::Object(pod) = self.ask(head, objects, what, Written::default()).await?.result? else {
            unreachable!("a get is answered by an object")
        };
        let node = pod["spec"]["nodeName"].as_str().unwrap_or_default();
        if self.shared.shares_store && !node.is_empty() && !self.shared.own_nodes.contains(node) {
            let container = match subresource {
                "portforward" => None,
                _ => Some(streams::container(&pod, &head.params)?),
            };
            let (method, params, headers) = (head.method, &head.params, head.headers);
            let carried = Carried { subresource, pod: &pod, container, method, params, headers };
            return self.stream_elsewhere(node, carried, upgrade).await;
        }
        let upgrade = || Upgrade::new(head.headers, upgrade);
        match subresource {
            "exec" => streams::exec(&pod, &head.params, upgrade()?, &self.cluster),
            "attach" => streams::attach(&pod, &head.params, upgrade()?, &self.cluster),
            "portforward" => streams::port_forward(&pod, &head.params, upgrade()?, &self.cluster),
            _ => streams::log::read(&pod, &head.params, self.shared.clock.now().wall, &self.cluster).await,
        }
    }

    /// Has the agent of a node answer.
    async fn stream_elsewhere(
        &self,
        node: &str,
        carried: Carried<'_>,
        upgrade: Option<OnUpgrade>,
    ) -> Result<Response<Content>, Status> {
        let kubelets = self.shared.kubelets.as_ref().expect("what shares a store has agents");
        let Some(node) = self.look_up(Kind::NODE, "", node).await? else {
            return Err(Status::internal(format!("error dialing backend: node {node:?} not found")));
        };
        kubelets.carry(&node, carried, upgrade).await
    }

    /// What containers and nodes use, here and where the agents are of other processes.
    pub(super) async fn used(&self) -> Result<Used, Status> {
        let mut used = self.used_here().await?;
        let Some(kubelets) = &self.shared.kubelets else { return Ok(used) };
        let served = self.shared.catalogue.now();
        let nodes = served.by_path("", "v1", "nodes").expect("it is built in");
        let what =
            What::List { kind: Kind::NODE, namespace: String::new(), options: ListOptions::default(), as_text: false };
        let Answer::List { items, .. } = self.ask_for_itself(nodes, what).await?.result? else {
            unreachable!("a list is answered by a list")
        };
        let name = |node: &Value| node["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        let elsewhere = items.into_iter().filter(|node| !self.shared.own_nodes.contains(&name(node)));
        let asked: Vec<_> = elsewhere.map(|node| (name(&node), tokio::spawn(kubelets.clone().used(node)))).collect();
        for (node, asked) in asked {
            match asked.await.unwrap_or_else(|e| Err(e.to_string())) {
                Ok(there) => used.extend(there),
                Err(why) => {
                    tracing::debug!(node, "what it uses is not known: {why}");
                    used.unknown.insert(node);
                }
            }
        }
        Ok(used)
    }

    /// What the containers of this process use.
    pub(super) async fn used_here(&self) -> Result<Used, Status> {
        let (reply, used) = oneshot::channel();
        self.cluster.send(Inbound::Visit(Visit::Usage { reply })).map_err(|_| gone())?;
        used.await.map_err(|_| gone())
    }

    /// Responds with the metrics of nodes or pods.
    async fn usage(&self, head: &Head<'_>, objects: &Objects) -> Result<Response<Content>, Status> {
        let look = self.look(head, objects)?;
        let pods = objects.resource.info.namespaced;
        let kind = if pods { Kind::POD } else { Kind::NODE };
        let mut options = head.params.list()?;
        // As metrics-server's, the list comes in one piece.
        (options.limit, options.continue_from) = (0, None);
        if let Some(name) = &objects.name {
            options.fields.terms.extend(FieldSelector::equal("metadata.name", name).terms);
        }
        let what = What::List { kind, namespace: objects.namespace.clone(), options, as_text: false };
        let measured = self.shared.catalogue.now();
        let plural = &kind.row().plural;
        let resource = measured.by_path("", "v1", plural).ok_or_else(not_found)?;
        let of = Objects { resource: Arc::clone(resource), ..objects.clone() };
        let Answer::List { items, rv, .. } = self.ask(head, &of, what, Written::default()).await?.result? else {
            unreachable!("a list is answered by a list")
        };
        let (used, now) = (self.used().await?, self.shared.clock.now().wall);
        let mut metrics = match pods {
            true => usage::of_pods(&items, &used, now),
            false => usage::of_nodes(&items, &used, now),
        };
        let value = match &objects.name {
            None => look.list(metrics, &ListMeta { rv, ..ListMeta::default() }),
            Some(name) => {
                let missing = || usage::not_found(&objects.resource, &objects.namespace, name);
                look.object(metrics.pop().ok_or_else(missing)?)
            }
        };
        // These kinds have no protobuf form here; every client takes JSON.
        Ok(reply::value(200, &value, Encoding::Json, wants_gzip(head.headers)))
    }

    /// Responds to a review.
    async fn review(&self, head: &Head<'_>, objects: &Objects, body: Incoming) -> Result<Response<Content>, Status> {
        if let Shape::Table(_) = head.accepted.shape {
            return Err(accept::no_table(&objects.resource.info.qualified()));
        }
        let (media_type, bytes) = (body::media_type(head.headers), body::read(body).await?);
        let validation = head.params.field_validation("CreateOptions")?;
        let body = review::Body { decoded: body::object(&media_type, &bytes)?, validation };
        let (kind, namespace) = (objects.resource.kind, &objects.namespace);
        let (mut review, warnings) = review::read(kind, body)?;
        review["status"] = match kind {
            Kind::TOKEN_REVIEW => self.review_token(&review["spec"]).await?,
            kind => {
                let authority = self.shared.authority.read().expect("nobody panics while it is changed");
                review::status(kind, namespace, head.user, &authority, &review)?
            }
        };
        let mut response = reply::value(201, &review, head.accepted.encoding, wants_gzip(head.headers));
        reply::warn(&mut response, &warnings);
        Ok(response)
    }

    fn look(&self, head: &Head<'_>, objects: &Objects) -> Result<Look, Status> {
        let include = match head.params.said("includeObject") {
            None | Some("Metadata") => IncludeObject::Metadata,
            Some("None") => IncludeObject::None,
            Some("Object") => IncludeObject::Object,
            Some(other) => return Err(Status::bad_request(format!("unrecognized includeObject value: {other:?}"))),
        };
        let resource = Arc::clone(&objects.resource);
        Ok(Look { resource, shape: head.accepted.shape, include, now: self.shared.clock.now().wall })
    }

    async fn read(&self, head: &Head<'_>, objects: &Objects) -> Result<Response<Content>, Status> {
        let (kind, namespace) = (objects.resource.kind, objects.namespace.clone());
        let look = self.look(head, objects)?;
        let mut selection = None;
        let what = match (&objects.name, objects.subresource.as_deref()) {
            (Some(_), Some("scale")) => What::GetScale { target: target(objects)? },
            (Some(_), _) => What::Get { target: target(objects)?, rv: head.params.resource_version()? },
            (None, _) => {
                let mut options = head.params.list()?;
                selection = Selection::take(&objects.resource, &mut options.fields)?;
                let is_plain = (look.shape, head.accepted.encoding) == (Shape::Whole, Encoding::Json);
                let as_text = is_plain && selection.is_none() && objects.resource.is_shown_as_held();
                What::List { kind, namespace, options, as_text }
            }
        };
        let reply = self.ask(head, objects, what, Written::default()).await?;
        let note_size = |count: usize, remaining: Option<u64>| {
            let is_whole = ["labelSelector", "fieldSelector", "continue"].iter().all(|p| head.params.said(p).is_none());
            if is_whole && objects.namespace.is_empty() {
                self.gate.note_size(kind, count + remaining.unwrap_or(0) as usize);
            }
        };
        let value = match reply.result? {
            Answer::Text { items, count, rv, continue_from, remaining } => {
                note_size(count, remaining);
                let body = look.list_of_text(&items, &ListMeta { rv, continue_from, remaining });
                return Ok(reply::json(200, body, wants_gzip(head.headers)));
            }
            Answer::Object(scale) if objects.subresource.as_deref() == Some("scale") => scale,
            Answer::Object(object) => look.object(object),
            Answer::List { mut items, rv, continue_from, mut remaining } => {
                note_size(items.len(), remaining);
                if let Some(selection) = &selection {
                    items.retain(|item| selection.holds(item));
                    // How much of what is left fits is not known.
                    remaining = None;
                }
                look.list(items, &ListMeta { rv, continue_from, remaining })
            }
            other @ (Answer::Done | Answer::Watch(_)) => unreachable!("a read is not answered by {other:?}"),
        };
        Ok(reply::value(200, &value, head.accepted.encoding, wants_gzip(head.headers)))
    }

    async fn watch(&self, head: &Head<'_>, objects: &Objects) -> Result<Response<Content>, Status> {
        let (kind, namespace) = (objects.resource.kind, objects.namespace.clone());
        let look = self.look(head, objects)?;
        let (mut options, timeout) = head.params.watch()?;
        if let Some(name) = &objects.name {
            options.fields.terms.extend(FieldSelector::equal("metadata.name", name).terms);
        }
        let watcher = self.gate.watch(objects, &options.fields);
        let selected = self.selected(head, objects, &mut options).await?;
        // Custom resources have no protobuf form.
        let protobuf = head.accepted.encoding == Encoding::Protobuf && kind.built_in().is_some();
        let encoding = match look.shape {
            Shape::Whole if protobuf => WatchEncoding::Protobuf,
            Shape::Whole if objects.resource.conversion().is_none() => WatchEncoding::Json,
            Shape::Whole | Shape::Table(_) | Shape::Metadata(_) => WatchEncoding::Values { protobuf },
        };
        let what = What::Watch { kind, namespace, options, encoding };
        let reply = self.ask(head, objects, what, Written::default()).await?;
        let Answer::Watch(events) = reply.result? else { unreachable!("a watch is answered by its events") };
        let timeout = timeout.unwrap_or(Duration::from_secs(WATCH_TIMEOUT + events.id % WATCH_TIMEOUT));
        let events = Source::new(events, &objects.resource, selected, self.cluster.clone());
        Ok(reply::watch(events, (look, encoding), self.cluster.clone(), timeout, watcher))
    }

    async fn write(
        &self,
        head: &Head<'_>,
        objects: &Objects,
        verb: &str,
        body: Incoming,
    ) -> Result<Response<Content>, Status> {
        let look = self.look(head, objects)?;
        let media_type = body::media_type(head.headers);
        let bytes = body::read(body).await?;
        let kind = match verb {
            "create" => "CreateOptions",
            "update" => "UpdateOptions",
            "patch" => "PatchOptions",
            _ => "DeleteOptions",
        };
        let mut written = Written {
            manager: self.manager(head, kind)?,
            validation: head.params.field_validation(kind)?,
            duplicates: Vec::new(),
        };
        let what = match verb {
            "create" => self.create(head, objects, body::object(&media_type, &bytes)?, &mut written)?,
            "update" => self.update(head, objects, body::object(&media_type, &bytes)?, &mut written)?,
            "patch" => {
                let (subresource, options) = (subresource(objects)?, head.params.write("PatchOptions")?);
                let manager = head.params.field_manager("PatchOptions")?;
                let force = head.params.force(media_type == body::APPLY)?;
                let (patch, duplicates) = body::patch(&media_type, &bytes, manager, force)?;
                written.duplicates = duplicates;
                check_patch(&patch)?;
                What::Patch { target: target(objects)?, patch, subresource, options }
            }
            "delete" | "deletecollection" => {
                let given = if bytes.is_empty() { None } else { Some(body::object(&media_type, &bytes)?.0) };
                let options = head.params.deletion(given.as_ref())?;
                match verb {
                    "delete" if objects.subresource.is_none() => What::Delete { target: target(objects)?, options },
                    "delete" => return Err(method_not_allowed()),
                    _ => {
                        let (kind, namespace) = (objects.resource.kind, objects.namespace.clone());
                        let mut list = head.params.list()?;
                        if let Some(selection) = Selection::take(&objects.resource, &mut list.fields)? {
                            return self.delete_selected(head, objects, list, (selection, options)).await;
                        }
                        What::DeleteCollection { kind, namespace, list, options }
                    }
                }
            }
            other => unreachable!("{other} is no write"),
        };
        let is_scale = objects.subresource.as_deref() == Some("scale");
        let reply = self.ask(head, objects, what, written).await?;
        let code = if verb == "create" || reply.created { 201 } else { 200 };
        let value = match reply.result? {
            Answer::Object(object) if verb == "delete" => deleted(&look, object),
            Answer::Object(scale) if is_scale => scale,
            Answer::Object(object) => look.object(object),
            Answer::Done => reply::success(None),
            other @ (Answer::List { .. } | Answer::Text { .. } | Answer::Watch(_)) => {
                unreachable!("a write is not answered by {other:?}")
            }
        };
        let mut response = reply::value(code, &value, head.accepted.encoding, wants_gzip(head.headers));
        reply::warn(&mut response, &reply.warnings);
        Ok(response)
    }

    /// The field manager of a write: the parameter `fieldManager`, or else the first part of the user agent.
    fn manager(&self, head: &Head<'_>, options: &str) -> Result<String, Status> {
        let given = head.params.field_manager(options)?;
        let agent = || header(head.headers, USER_AGENT).and_then(|agent| agent.split('/').next()).unwrap_or_default();
        let manager = if given.is_empty() { agent() } else { given };
        Ok(manager.chars().filter(|c| !c.is_control()).take(FIELD_MANAGER).collect())
    }

    fn create(
        &self,
        head: &Head<'_>,
        objects: &Objects,
        (body, duplicates): body::Decoded,
        written: &mut Written,
    ) -> Result<What, Status> {
        written.duplicates = duplicates;
        let text = |v: &Value| v.as_str().filter(|s| !s.is_empty()).map(str::to_owned);
        match objects.subresource.as_deref() {
            None if objects.name.is_none() => {
                let namespace = objects.namespace.clone();
                Ok(What::Create { namespace, body, options: head.params.write("CreateOptions")? })
            }
            Some("binding") => {
                let node = text(&body["target"]["name"]);
                let node = node.ok_or_else(|| Status::bad_request("target.name: Required value"))?;
                let annotations = serde_json::from_value(body["metadata"]["annotations"].clone());
                let annotations: Option<Annotations> =
                    annotations.map_err(|e| Status::bad_request(format!("metadata.annotations: {e}")))?;
                let (uid, annotations) = (text(&body["metadata"]["uid"]), annotations.unwrap_or_default());
                Ok(What::Bind { target: target(objects)?, uid, node, annotations })
            }
            Some("eviction") => {
                let mut options = head.params.deletion(body.get("deleteOptions"))?;
                options.dry_run |= head.params.write("CreateOptions")?.dry_run;
                Ok(What::Evict { target: target(objects)?, options })
            }
            _ => Err(method_not_allowed()),
        }
    }

    fn update(
        &self,
        head: &Head<'_>,
        objects: &Objects,
        (body, duplicates): body::Decoded,
        written: &mut Written,
    ) -> Result<What, Status> {
        written.duplicates = duplicates;
        let (target, options) = (target(objects)?, head.params.write("UpdateOptions")?);
        if objects.subresource.as_deref() != Some("scale") {
            return Ok(What::Update { target, body, subresource: subresource(objects)?, options });
        }
        let replicas = match &body["spec"]["replicas"] {
            Value::Null => 0,
            given => given.as_i64().and_then(|n| i32::try_from(n).ok()).ok_or_else(|| {
                let why = format!(
                    "json: cannot unmarshal {given} into Go struct field ScaleSpec.spec.replicas of type int32"
                );
                Status::bad_request(format!("Scale in version \"v1\" cannot be handled as a Scale: {why}"))
            })?,
        };
        let rv = match body["metadata"]["resourceVersion"].as_str() {
            None | Some("") => 0,
            Some(rv) => rv.parse().map_err(|_| {
                Status::bad_request(format!("metadata.resourceVersion: Invalid value: {rv:?}: must be a number"))
            })?,
        };
        Ok(What::SetScale { target, replicas, rv, options })
    }

    /// The group-versions that other servers serve.
    fn remotes(&self) -> Arc<Vec<Remote>> {
        Arc::clone(&self.shared.remotes.read().expect("nobody panics while it is replaced"))
    }

    /// The server that a path is led to.
    fn remote(&self, path: &str) -> Option<Remote> {
        let path = path.trim_start_matches('/');
        let described = path.strip_prefix("openapi/v3/");
        let mut parts = described.unwrap_or(path).split('/');
        let (Some("apis"), Some(group), Some(version)) = (parts.next(), parts.next(), parts.next()) else {
            return None;
        };
        let remotes = self.remotes();
        let found = remotes.iter().find(|remote| remote.group == group && remote.version == version);
        found.filter(|remote| described.is_none() || remote.found.openapi.is_some()).cloned()
    }

    /// Has another server answer.
    async fn pass_on(
        &self,
        remote: &Remote,
        user: &User,
        (method, uri, headers): (&Method, &Uri, &HeaderMap),
        body: Incoming,
    ) -> Response<Content> {
        let unavailable = || proxy::refused(503, "service unavailable");
        if !remote.is_available {
            return unavailable();
        }
        let (sender, reached) = oneshot::channel();
        if self.cluster.send(Inbound::Reach(remote.service.clone(), sender)).is_err() {
            return unavailable();
        }
        let Ok(Ok(at)) = reached.await else { return unavailable() };
        let target = uri.path_and_query().map_or("/", |target| target.as_str());
        let passed = proxy::Passed { user, method, target, headers, body };
        proxy::pass(remote, &at, self.shared.proxy_client.as_deref(), passed).await
    }

    /// Reads something for the server itself.
    pub(super) async fn ask_for_itself(&self, resource: &Arc<Resource>, what: What) -> Result<Reply, Status> {
        let user = Arc::new(User::new("system:apiserver", &[MASTERS]));
        self.send(user, resource, what, Written::default()).await
    }

    /// Sends a request to the machines' thread and waits for the answer.
    pub(super) async fn ask(
        &self,
        head: &Head<'_>,
        objects: &Objects,
        what: What,
        written: Written,
    ) -> Result<Reply, Status> {
        let mut reply = self.send(Arc::clone(head.user), &objects.resource, what, written).await?;
        if let Ok(answer) = reply.result {
            reply.result = conversion::convert_answer(&self.cluster, &objects.resource, answer).await;
        }
        Ok(reply)
    }

    pub(super) async fn send(
        &self,
        user: Arc<User>,
        resource: &Arc<Resource>,
        what: What,
        written: Written,
    ) -> Result<Reply, Status> {
        let Written { manager, validation, duplicates } = written;
        let resource = Arc::clone(resource);
        deliver(&self.cluster, Ask { user, resource, what, manager, validation, duplicates }).await
    }
}

/// Sends a request to the machines' thread and waits for the answer. If the thread ends meanwhile, a write may have
/// been carried out.
async fn deliver(cluster: &ToCluster, ask: Ask) -> Result<Reply, Status> {
    let (sender, answer) = oneshot::channel();
    let reads = ask.what.reads();
    cluster.send(Inbound::Ask(ask, sender)).map_err(|_| gone())?;
    answer.await.map_err(|_| if reads { gone() } else { unknown_outcome() })
}

impl Serves for Handler {
    fn served(&self) -> Arc<Served> {
        self.shared.catalogue.now()
    }
}

impl Respond for Handler {
    async fn respond(&self, user: Arc<User>, request: Request<Incoming>) -> Response<Content> {
        self.answer(user, request).await
    }
}

/// Whether a request asks for a log, or for streams into a container.
fn is_stream(objects: &Objects) -> bool {
    matches!(objects.subresource.as_deref(), Some("log" | "exec" | "attach" | "portforward"))
}

/// The labels of a request among the metrics.
fn labels(objects: &Objects, verb: &str) -> Labels {
    let info = &objects.resource.info;
    let subresource = objects.subresource.clone().unwrap_or_default();
    Labels {
        verb: Labels::verb(verb, is_stream(objects) && subresource != "log"),
        group: info.group.to_string(),
        version: info.version.to_string(),
        resource: info.plural.to_string(),
        subresource,
        scope: match (&objects.name, objects.namespace.is_empty()) {
            (Some(_), _) => "resource",
            (None, false) => "namespace",
            (None, true) => "cluster",
        },
    }
}

fn paths(served: &Served, remotes: &[Remote]) -> Vec<String> {
    let fixed = [
        "/.well-known/openid-configuration",
        "/api",
        "/apis",
        "/healthz",
        "/livez",
        "/metrics",
        "/openapi/v2",
        "/openapi/v3",
        "/openid/v1/jwks",
        "/readyz",
        "/version",
    ];
    let versions = served.group_versions().into_iter().map(|(path, ..)| format!("/{path}"));
    let others = remotes.iter().map(|remote| format!("/apis/{}/{}", remote.group, remote.version));
    let mut all: Vec<String> = fixed.iter().map(|p| (*p).to_owned()).chain(versions).chain(others).collect();
    all.sort();
    all.dedup();
    all
}

/// What a write has besides its object.
#[derive(Default)]
pub(super) struct Written {
    manager: String,
    validation: FieldValidation,
    duplicates: Vec<DecodeError>,
}

fn failed(checks: &[(&str, bool)], name: &str) -> Response<Content> {
    let line = |(name, well): &(&str, bool)| match well {
        true => format!("[+]{name} ok\n"),
        false => format!("[-]{name} failed: reason withheld\n"),
    };
    reply::text(500, format!("{}{name} check failed\n", checks.iter().map(line).collect::<String>()))
}

fn overloaded() -> Status {
    Status::too_many_requests("Too many requests, please try again later.", Duration::from_secs(1))
}

fn target(objects: &Objects) -> Result<Target, Status> {
    let name = objects.name.clone().ok_or_else(method_not_allowed)?;
    Ok(Target { kind: objects.resource.kind, namespace: objects.namespace.clone(), name })
}

fn subresource(objects: &Objects) -> Result<Subresource, Status> {
    match objects.subresource.as_deref() {
        None => Ok(Subresource::None),
        Some("status") => Ok(Subresource::Status),
        Some("scale") => Ok(Subresource::Scale),
        Some("finalize") => Ok(Subresource::Finalize),
        Some("approval") => Ok(Subresource::Approval),
        Some("ephemeralcontainers") => Ok(Subresource::EphemeralContainers),
        Some("resize") => Ok(Subresource::Resize),
        Some(_) => Err(method_not_allowed()),
    }
}

/// Refuses a resourceVersion that cannot be parsed: it must never become an unconditional write.
fn check_patch(patch: &Patch) -> Result<(), Status> {
    let rv = match patch {
        Patch::Merge(body) | Patch::Strategic(body) => body.pointer("/metadata/resourceVersion"),
        Patch::Json(operations) => {
            let path = "/metadata/resourceVersion";
            let sets = |op: &&Value| op["path"] == path && matches!(op["op"].as_str(), Some("add" | "replace"));
            operations.as_array().into_iter().flatten().rfind(sets).and_then(|op| op.get("value"))
        }
        Patch::Apply { body, .. } => body.pointer("/metadata/resourceVersion"),
    };
    match rv.and_then(Value::as_str) {
        Some(rv) if !rv.is_empty() && rv.parse::<u64>().is_err() => {
            Err(Status::bad_request(format!("metadata.resourceVersion: Invalid value: {rv:?}: must be a number")))
        }
        _ => Ok(()),
    }
}

/// 503 where the machines' thread has ended, and has carried out nothing.
pub(super) fn gone() -> Status {
    Status::unavailable("the server is shutting down")
}

/// 504, as [`Timeout`](Reason::Timeout): what was asked for may have been carried out.
fn unknown_outcome() -> Status {
    Status::timeout("Timeout: request did not complete within the allotted timeout")
}

/// Kinds for which the response to a delete is the deleted object; for the others it is a `Status`.
const SHOWN_WHEN_DELETED: [Kind; 9] = [
    Kind::POD,
    Kind::SERVICE,
    Kind::SERVICE_ACCOUNT,
    Kind::PERSISTENT_VOLUME,
    Kind::PERSISTENT_VOLUME_CLAIM,
    Kind::POD_TEMPLATE,
    Kind::RESOURCE_QUOTA,
    Kind::STORAGE_CLASS,
    Kind::VOLUME_ATTACHMENT,
];

/// The response to a delete: the object if it still exists (because of finalizers or a grace period) or if its kind is
/// in [`SHOWN_WHEN_DELETED`]; a `Status` otherwise.
fn deleted(look: &Look, object: Value) -> Value {
    let stays = !object["metadata"]["deletionTimestamp"].is_null();
    if stays || SHOWN_WHEN_DELETED.contains(&look.resource.kind) {
        return look.object(object);
    }
    let info = &look.resource.info;
    let mut details = json!({"name": object["metadata"]["name"], "kind": info.plural,
        "uid": object["metadata"]["uid"]});
    if !info.group.is_empty() {
        details["group"] = json!(info.group);
    }
    reply::success(Some(details))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;
    use skeg_core::Kind;
    use skeg_core::auth::User;
    use tokio::sync::mpsc::unbounded_channel;

    use super::{Ask, FieldValidation, Target, What, deliver, gone, unknown_outcome};
    use crate::up::served::Served;

    #[tokio::test]
    async fn a_write_that_was_taken_may_have_been_carried_out() {
        let resource = Arc::clone(Served::built_in().by_path("", "v1", "configmaps").unwrap());
        let ask = |what: What| Ask {
            user: Arc::new(User::anonymous()),
            resource: Arc::clone(&resource),
            what,
            manager: String::new(),
            validation: FieldValidation::default(),
            duplicates: Vec::new(),
        };
        let read = || {
            let target = Target { kind: Kind::CONFIG_MAP, namespace: "n".to_owned(), name: "m".to_owned() };
            What::Get { target, rv: None }
        };
        let write = || {
            let body = json!({"metadata": {"name": "m"}});
            What::Create { namespace: "n".to_owned(), body, options: skeg_core::api::WriteOptions::default() }
        };
        let unknown = unknown_outcome();
        assert!(unknown.is_unknown_outcome() && !gone().is_unknown_outcome());
        for (what, taken, expect) in
            [(read(), false, gone()), (write(), false, gone()), (read(), true, gone()), (write(), true, unknown)]
        {
            let (cluster, mut inbox) = unbounded_channel();
            // The thread takes the request and ends, or it has ended before.
            match taken {
                true => drop(std::thread::spawn(move || drop(inbox.blocking_recv()))),
                false => drop(inbox),
            }
            assert_eq!(deliver(&cluster, ask(what)).await.unwrap_err(), expect);
        }
    }
}
