//! The link between a machine and API servers that are reached over HTTP: requests of the machine as requests of HTTP,
//! and what comes back as messages to the machine. Pure; [`client`](super::client) carries them.
//!
//! Only what an agent asks for is translated.

use std::rc::Rc;

use form_urlencoded::Serializer;
use hyper::Method;
use serde_json::{Value, json};
use skeg_core::api::{
    Call, DeleteOptions, Patch, Propagation, Request, Response, Rest, Status, Subresource, WatchEvent,
};
use skeg_core::object::{FieldSelector, KindInfo, Selector};
use skeg_core::{Kind, Object, ObjectKey, Revision};

/// A request of HTTP, as plain data.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Ask {
    /// The method.
    pub method: Method,
    /// Path and query.
    pub path: String,
    /// The media type of the body.
    pub media_type: &'static str,
    /// The body; empty for none.
    pub body: Vec<u8>,
}

/// What the reply to a request is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Expect {
    /// An object of this kind, or nothing but a success.
    Object(Kind),
    /// A list of this kind.
    List(Kind),
    /// The events of a watch.
    Events,
}

fn path(kind: Kind, namespace: &str, name: &str, subresource: &str) -> String {
    let KindInfo { group, version, plural, namespaced, .. } = kind.row();
    let mut path = if group.is_empty() { format!("/api/{version}") } else { format!("/apis/{group}/{version}") };
    if *namespaced && !namespace.is_empty() {
        path += &format!("/namespaces/{namespace}");
    }
    path += &format!("/{plural}");
    for part in [name, subresource].into_iter().filter(|part| !part.is_empty()) {
        path += &format!("/{part}");
    }
    path
}

fn path_of(key: &ObjectKey, subresource: Subresource) -> String {
    path(key.kind, key.namespace(), key.name(), subresource.name())
}

/// A path with those parameters that are not empty.
fn with_query(path: String, parameters: &[(&str, String)]) -> String {
    let said: Vec<_> = parameters.iter().filter(|(_, value)| !value.is_empty()).collect();
    if said.is_empty() {
        return path;
    }
    let pairs = said.iter().map(|(name, value)| (name, value));
    format!("{path}?{}", Serializer::new(String::new()).extend_pairs(pairs).finish())
}

fn selectors(labels: &Selector, fields: &FieldSelector) -> [(&'static str, String); 2] {
    let term = |(path, value, equal): &(String, String, bool)| {
        let operator = if *equal { "=" } else { "!=" };
        format!("{path}{operator}{value}")
    };
    let fields: Vec<String> = fields.terms.iter().map(term).collect();
    let labels = if labels.is_everything() { String::new() } else { labels.to_string() };
    [("labelSelector", labels), ("fieldSelector", fields.join(","))]
}

/// `DeleteOptions` as the body of a request.
fn deletion(options: &DeleteOptions) -> Value {
    let mut body = json!({"kind": "DeleteOptions", "apiVersion": "v1"});
    let DeleteOptions { precondition, grace_seconds, propagation, dry_run } = options;
    if let Some(uid) = &precondition.uid {
        body["preconditions"]["uid"] = json!(&**uid);
    }
    if let Some(rv) = precondition.rv {
        body["preconditions"]["resourceVersion"] = json!(rv.to_string());
    }
    if let Some(seconds) = grace_seconds {
        body["gracePeriodSeconds"] = json!(seconds);
    }
    if let Some(propagation) = propagation {
        body["propagationPolicy"] = json!(match propagation {
            Propagation::Background => "Background",
            Propagation::Foreground => "Foreground",
            Propagation::Orphan => "Orphan",
        });
    }
    if *dry_run {
        body["dryRun"] = json!(["All"]);
    }
    body
}

/// Translates a request, and says what its reply will be.
pub fn ask(request: &Request) -> (Ask, Expect) {
    const JSON: &str = "application/json";
    let write = |method: Method, path: String, media_type, body: &Value| Ask {
        method,
        path: with_query(path, &[("fieldManager", manager(request))]),
        media_type,
        body: body.to_string().into_bytes(),
    };
    let read = |path: String| Ask { method: Method::GET, path, media_type: JSON, body: Vec::new() };
    let expect = Expect::Object(request.call.kind());
    match &request.call {
        Call::Get { key, rv } => {
            let rv = rv.map_or_else(String::new, |rv| rv.to_string());
            (read(with_query(path_of(key, Subresource::None), &[("resourceVersion", rv)])), expect)
        }
        Call::List { kind, namespace, options } => {
            let [labels, fields] = selectors(&options.labels, &options.fields);
            let limit = if options.limit == 0 { String::new() } else { options.limit.to_string() };
            let said = [
                labels,
                fields,
                ("limit", limit),
                ("continue", options.continue_from.clone().unwrap_or_default()),
                ("resourceVersion", options.rv.map_or_else(String::new, |rv| rv.to_string())),
                ("resourceVersionMatch", if options.exact { "Exact".to_owned() } else { String::new() }),
            ];
            (read(with_query(path(*kind, namespace, "", ""), &said)), Expect::List(*kind))
        }
        Call::Watch { kind, namespace, options } => {
            let [labels, fields] = selectors(&options.labels, &options.fields);
            let flag = |set: bool| if set { "true".to_owned() } else { String::new() };
            let said = [
                ("watch", "true".to_owned()),
                labels,
                fields,
                ("resourceVersion", options.rv.to_string()),
                ("allowWatchBookmarks", flag(options.bookmarks)),
                ("sendInitialEvents", flag(options.send_initial_events)),
                (
                    "resourceVersionMatch",
                    if options.send_initial_events { "NotOlderThan".to_owned() } else { String::new() },
                ),
            ];
            (read(with_query(path(*kind, namespace, "", ""), &said)), Expect::Events)
        }
        Call::Create { object, .. } => {
            let at = path(object.kind(), object.namespace(), "", "");
            (write(Method::POST, at, JSON, &object.to_json()), expect)
        }
        Call::Update { object, subresource, .. } => {
            (write(Method::PUT, path_of(&object.key(), *subresource), JSON, &object.to_json()), expect)
        }
        Call::Patch { key, patch, subresource, precondition, .. } => {
            let (media_type, body) = match patch {
                Patch::Merge(body) => ("application/merge-patch+json", body.clone()),
                Patch::Strategic(body) => ("application/strategic-merge-patch+json", body.clone()),
                Patch::Json(body) => ("application/json-patch+json", body.clone()),
                Patch::Apply { body, .. } => ("application/apply-patch+yaml", body.clone()),
            };
            let mut body = body;
            // Over HTTP, a patch carries its preconditions in its metadata.
            if let (Some(uid), Some(map)) = (&precondition.uid, body.as_object_mut()) {
                let metadata = map.entry("metadata").or_insert_with(|| json!({}));
                metadata["uid"] = json!(&**uid);
            }
            if let (Some(rv), Some(map)) = (precondition.rv, body.as_object_mut()) {
                let metadata = map.entry("metadata").or_insert_with(|| json!({}));
                metadata["resourceVersion"] = json!(rv.to_string());
            }
            (write(Method::PATCH, path_of(key, *subresource), media_type, &body), expect)
        }
        Call::Delete { key, options } => {
            let body = deletion(options).to_string().into_bytes();
            let path = path_of(key, Subresource::None);
            (Ask { method: Method::DELETE, path, media_type: JSON, body }, expect)
        }
        Call::DeleteCollection { .. }
        | Call::Bind { .. }
        | Call::Evict { .. }
        | Call::Connect { .. }
        | Call::GetScale { .. }
        | Call::SetScale { .. } => unreachable!("an agent asks for nothing of the kind: {:?}", request.call),
    }
}

/// Who manages what is written: the user's name up to the first `/`, as the API server takes it from a machine.
fn manager(request: &Request) -> String {
    let name = request.field_manager.as_deref().unwrap_or(&request.user);
    name.split('/').next().unwrap_or_default().to_owned()
}

/// An object of a reply; that of a list says neither its version nor its kind.
fn object(kind: Kind, mut value: Value) -> Result<Object, Status> {
    let info = kind.row();
    if let Some(map) = value.as_object_mut() {
        map.entry("apiVersion").or_insert_with(|| json!(info.api_version()));
        map.entry("kind").or_insert_with(|| json!(info.kind));
    }
    Object::from_json(value).map_err(|why| unreadable(&why))
}

/// What cannot be read may have been carried out.
fn unreadable(why: &str) -> Status {
    Status::timeout(format!("the server's reply cannot be read: {why}"))
}

fn revision(list: &Value) -> Revision {
    Revision(list["metadata"]["resourceVersion"].as_str().and_then(|rv| rv.parse().ok()).unwrap_or(0))
}

/// Translates a reply.
pub fn reply(expect: Expect, code: u16, body: &[u8]) -> Result<Response, Status> {
    let mut value: Value = serde_json::from_slice(body).map_err(|e| unreadable(&e.to_string()))?;
    if code >= 400 || value["kind"] == "Status" && value["status"] == "Failure" {
        return Err(Status::from_json(&value, code));
    }
    match expect {
        Expect::Object(_) if value["kind"] == "Status" => Ok(Response::Done { rv: Revision(0) }),
        Expect::Object(kind) => object(kind, value).map(Response::Object),
        Expect::List(kind) => {
            let (rv, metadata) = (revision(&value), &value["metadata"]);
            let rest = metadata["continue"].as_str().filter(|token| !token.is_empty()).map(|token| {
                Box::new(Rest { continue_from: token.to_owned(), remaining: metadata["remainingItemCount"].as_u64() })
            });
            let items = match value["items"].take() {
                Value::Array(items) => items,
                _ => Vec::new(),
            };
            let items = items.into_iter().map(|item| object(kind, item)).collect::<Result<Vec<_>, _>>()?;
            Ok(Response::List { items: Rc::new(items), rv, rest })
        }
        Expect::Events => Err(unreadable("a watch has events and no reply")),
    }
}

/// Translates an event of a watch. The error is its last one.
pub fn event(line: &[u8]) -> Result<WatchEvent, Status> {
    let mut value: Value = serde_json::from_slice(line).map_err(|e| unreadable(&e.to_string()))?;
    let about = value["object"].take();
    let read = |value| Object::from_json(value).map_err(|why| unreadable(&why));
    match value["type"].as_str().unwrap_or_default() {
        "ADDED" => read(about).map(WatchEvent::Added),
        "MODIFIED" => read(about).map(WatchEvent::Modified),
        "DELETED" => read(about).map(WatchEvent::Deleted),
        "BOOKMARK" => Ok(WatchEvent::Bookmark {
            rv: revision(&about),
            initial_events_end: about["metadata"]["annotations"]["k8s.io/initial-events-end"] == "true",
        }),
        "ERROR" => {
            let code = about["code"].as_u64().and_then(|code| u16::try_from(code).ok()).unwrap_or(500);
            Err(Status::from_json(&about, code))
        }
        other => Err(unreadable(&format!("{other:?} is no event"))),
    }
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use serde_json::json;
    use skeg_core::api::{
        Call, DeleteOptions, ListOptions, Patch, Precondition, Reason, Request, Response, Status, Subresource,
        WatchEvent, WatchOptions, WriteOptions,
    };
    use skeg_core::object::FieldSelector;
    use skeg_core::{Kind, Object, ObjectKey, Revision};

    use super::{Expect, ask, event, reply};

    fn check(call: Call, expect: &str, body: &str) {
        let (ask, _) = ask(&Request::new(&Rc::from("kubelet/node-1"), call));
        assert_eq!(format!("{} {}", ask.method, ask.path), expect);
        assert_eq!(String::from_utf8(ask.body).unwrap(), body);
    }

    #[test]
    fn requests_become_requests_of_http() {
        let pod = ObjectKey::new(Kind::POD, "n", "p");
        check(Call::Get { key: pod.clone(), rv: None }, "GET /api/v1/namespaces/n/pods/p", "");
        let rv = Some(Revision(0));
        check(Call::Get { key: pod.clone(), rv }, "GET /api/v1/namespaces/n/pods/p?resourceVersion=0", "");
        let fields = FieldSelector::equal("spec.nodeName", "node-1");
        let options = ListOptions { fields: fields.clone(), rv, ..ListOptions::default() };
        let list = Call::List { kind: Kind::POD, namespace: "".into(), options };
        check(list, "GET /api/v1/pods?fieldSelector=spec.nodeName%3Dnode-1&resourceVersion=0", "");
        let options = WatchOptions { fields, rv: Revision(7), bookmarks: true, ..WatchOptions::default() };
        check(
            Call::Watch { kind: Kind::POD, namespace: "".into(), options },
            "GET /api/v1/pods?watch=true&fieldSelector=spec.nodeName%3Dnode-1&resourceVersion=7&allowWatchBookmarks=true",
            "",
        );
        let lease = ObjectKey::new(Kind::LEASE, "kube-node-lease", "node-1");
        let precondition = Precondition { uid: Some("u".into()), rv: None };
        let patch = Call::Patch {
            key: lease,
            patch: Patch::Merge(json!({"a": 1})),
            subresource: Subresource::None,
            precondition: precondition.clone(),
            options: WriteOptions::default(),
        };
        check(
            patch,
            "PATCH /apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/node-1?fieldManager=kubelet",
            r#"{"a":1,"metadata":{"uid":"u"}}"#,
        );
        let options = DeleteOptions { precondition, grace_seconds: Some(0), ..DeleteOptions::default() };
        check(
            Call::Delete { key: pod, options },
            "DELETE /api/v1/namespaces/n/pods/p",
            r#"{"apiVersion":"v1","gracePeriodSeconds":0,"kind":"DeleteOptions","preconditions":{"uid":"u"}}"#,
        );
        let object = Object::from_json(json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "node-1"}}));
        let call = Call::Update {
            object: object.unwrap(),
            subresource: Subresource::Status,
            options: WriteOptions::default(),
        };
        let (ask, expect) = ask(&Request::new(&Rc::from("kubelet"), call));
        assert_eq!(
            (ask.path.as_str(), expect),
            ("/api/v1/nodes/node-1/status?fieldManager=kubelet", Expect::Object(Kind::NODE))
        );
    }

    #[test]
    fn replies_become_replies() {
        let pods = Expect::List(Kind::POD);
        let body = json!({"kind": "PodList", "metadata": {"resourceVersion": "9", "continue": "more"},
            "items": [{"metadata": {"name": "p", "namespace": "n", "resourceVersion": "5"}}]});
        let Ok(Response::List { items, rv, rest }) = reply(pods, 200, body.to_string().as_bytes()) else { panic!() };
        assert_eq!((items[0].name(), items[0].rv(), rv), ("p", Revision(5), Revision(9)));
        assert_eq!(rest.unwrap().continue_from, "more");
        let success = json!({"kind": "Status", "status": "Success"}).to_string();
        assert!(matches!(reply(Expect::Object(Kind::POD), 200, success.as_bytes()), Ok(Response::Done { .. })));
        let refused = Status::stale(Kind::POD.row(), "p");
        let read = reply(Expect::Object(Kind::POD), 409, refused.to_json().to_string().as_bytes()).unwrap_err();
        assert_eq!(read, refused);
        let unreadable = reply(Expect::Object(Kind::POD), 200, b"<html>").unwrap_err();
        assert!(unreadable.is_unknown_outcome(), "{unreadable:?}");
    }

    #[test]
    fn lines_become_events() {
        let line = |type_: &str, object: serde_json::Value| json!({"type": type_, "object": object}).to_string();
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "resourceVersion": "5"}});
        assert!(matches!(event(line("ADDED", pod).as_bytes()), Ok(WatchEvent::Added(o)) if o.rv() == Revision(5)));
        let bookmark = json!({"kind": "Pod", "apiVersion": "v1", "metadata": {"resourceVersion": "8"}});
        let read = event(line("BOOKMARK", bookmark).as_bytes());
        assert!(matches!(read, Ok(WatchEvent::Bookmark { rv: Revision(8), initial_events_end: false })));
        let gone = Status::expired("too old resource version: 1 (2)");
        let last = event(line("ERROR", gone.to_json()).as_bytes()).unwrap_err();
        assert_eq!((last.reason, last), (Reason::Expired, gone));
        assert!(event(b"{").is_err() && event(b"{\"type\":\"OTHER\"}").is_err());
    }
}
