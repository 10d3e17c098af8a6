//! The open HTTP requests, on the machines' thread: turns requests from HTTP into calls of the API server, and its
//! replies into answers.

use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::sync::Arc;

use serde_json::{Value, json};
use skeg_core::api::{
    Annotations, Call, DeleteOptions, FromServer, Patch, Precondition, Reason, ReqId, Request, Response, Rest, Scale,
    Status, ToServer, WatchEvent,
};
use skeg_core::apiserver::Note;
use skeg_core::auth::User;
use skeg_core::object::FieldError;
use skeg_core::object::decode::{self, DecodeError};
use skeg_core::{Kinds, Object, ObjectKey, Revision};
use tokio::sync::oneshot;

use super::ask::{
    self, Answer, Ask, Deletion, Event, EventSink, Events, FieldValidation, Reply, Target, WatchEncoding, What,
};
use super::reply;
use super::served::Resource;

/// How many objects of a list, or events with which a watch begins, are encoded at once. Other requests, as renewals of
/// leases, are answered between.
const SLICE: usize = 64;

/// What an open request waits for.
enum Waiting {
    /// The reply to its only call.
    Answer {
        reply: oneshot::Sender<Reply>,
        resource: Arc<Resource>,
        warnings: Vec<String>,
        created: bool,
        as_text: bool,
    },
    /// The pod to bind: the binding has no UID, so the pod is read first.
    Bind { reply: oneshot::Sender<Reply>, resource: Arc<Resource>, identity: Rc<User>, to: (Rc<str>, Annotations) },
    /// The events of a watch.
    Watch(Watcher),
}

struct Watcher {
    resource: Arc<Resource>,
    sink: EventSink,
    encoding: WatchEncoding,
    /// The reply that starts the watch; taken when the API server has accepted it.
    begin: Option<(oneshot::Sender<Reply>, Events)>,
    /// The events that it begins with, as far as they are not encoded yet, and those that have come since; whether an
    /// event is of the former.
    backlog: VecDeque<(WatchEvent, bool)>,
}

/// A list that is being encoded.
struct Listing {
    reply: oneshot::Sender<Reply>,
    resource: Arc<Resource>,
    warnings: Vec<String>,
    items: Rc<Vec<Object>>,
    /// How many of them are encoded.
    done: usize,
    shown: Shown,
    rv: Revision,
    rest: Option<Box<Rest>>,
}

/// The items of a list that are encoded.
enum Shown {
    Values(Vec<Value>),
    /// JSON with commas between.
    Text(Vec<u8>),
}

/// What is left to encode.
enum Backlog {
    List(Box<Listing>),
    /// The watch of this request.
    Watch(u64),
}

/// The event that was encoded last. All watchers receive an event one after the other, so one entry is enough.
struct Encoded {
    key: ObjectKey,
    resource: Arc<Resource>,
    rv: Revision,
    type_: &'static str,
    encoding: WatchEncoding,
    event: Event,
}

/// All HTTP requests that are not answered yet.
pub struct Clients {
    /// The registry of kinds, including those of custom resources.
    kinds: Kinds,
    next: u64,
    waiting: BTreeMap<u64, Waiting>,
    encoded: Option<Encoded>,
    /// They take turns.
    backlogs: VecDeque<Backlog>,
    /// Whether no watch begins any more.
    ending: bool,
}

impl Clients {
    /// Makes an empty set of requests. `kinds` is the cluster's registry of kinds.
    pub fn new(kinds: Kinds) -> Clients {
        Clients { kinds, next: 0, waiting: BTreeMap::new(), encoded: None, backlogs: VecDeque::new(), ending: false }
    }

    /// Takes a request. Returns the message to the API server; `None` if the request was invalid and has been answered.
    pub fn ask(&mut self, ask: Ask, reply: oneshot::Sender<Reply>) -> Option<ToServer> {
        self.next += 1;
        let id = self.next;
        let user: Rc<str> = Rc::from(ask.user.name.as_str());
        let identity = Rc::new(User::clone(&ask.user));
        let resource = ask.resource;
        let manager: Rc<str> = Rc::from(ask.manager);
        let version = resource.kind.built_in().is_none().then(|| Rc::from(&*resource.info.version));
        let mut warnings: Vec<String> = resource.warning().map(str::to_owned).into_iter().collect();
        let (validation, duplicates) = (ask.validation, ask.duplicates);
        let mut minded = Vec::new();
        let body = Body { kinds: &self.kinds, resource: &resource, validation, duplicates, minded: &mut minded };
        let as_text = matches!(ask.what, What::List { as_text: true, .. });
        let call = match call(ask.what, body, &mut warnings) {
            Ok(Asked::Call(call)) => {
                self.waiting.insert(id, Waiting::Answer { reply, resource, warnings, created: false, as_text });
                call
            }
            Ok(Asked::Bind(target, to)) => {
                self.waiting.insert(id, Waiting::Bind { reply, resource, identity: Rc::clone(&identity), to });
                Call::Get { key: key(&target), rv: None }
            }
            Ok(Asked::Watch(..)) if self.ending => {
                let status = Status::unavailable("the apiserver is shutting down, please try again later");
                finish(reply, Err(status), warnings);
                return None;
            }
            Ok(Asked::Watch(call, encoding)) => {
                let (sink, events) = ask::events(id);
                let begin = Some((reply, events));
                self.waiting
                    .insert(id, Waiting::Watch(Watcher { resource, sink, encoding, begin, backlog: VecDeque::new() }));
                call
            }
            Err(status) => {
                finish(reply, Err(status), warnings);
                return None;
            }
        };
        let mut request = Request::new(&user, call);
        request.field_manager = Some(manager);
        request.identity = Some(identity);
        request.version = version;
        request.minded = minded;
        Some(ToServer::Request(ReqId(id), request))
    }

    /// The client of a watch has disconnected. Returns the message to the API server.
    pub fn cancel(&mut self, watch: u64) -> ToServer {
        self.waiting.remove(&watch);
        ToServer::Cancel(ReqId(watch))
    }

    /// Ends all watches, since the server is about to stop; none begins any more. Returns the messages to the API
    /// server.
    pub fn end_watches(&mut self) -> Vec<ToServer> {
        self.ending = true;
        let watches = self.waiting.iter().filter(|(_, waiting)| matches!(waiting, Waiting::Watch(_)));
        let watches: Vec<u64> = watches.map(|(id, _)| *id).collect();
        watches.into_iter().map(|id| self.cancel(id)).collect()
    }

    /// Must be called after the API server has handled a request. A watch that it has not refused has started. Returns
    /// the next message to the API server, if any.
    pub fn handled(&mut self, id: ReqId) -> Option<ToServer> {
        let Some(Waiting::Watch(watcher)) = self.waiting.get_mut(&id.0) else { return None };
        let (reply, events) = watcher.begin.take()?;
        finish(reply, Ok(Answer::Watch(events)), Vec::new());
        self.show_events(id.0)
    }

    /// Whether anything is left to encode.
    pub fn has_backlog(&self) -> bool {
        !self.backlogs.is_empty()
    }

    /// Encodes a slice of what is left. Returns the next message to the API server, if any.
    pub fn work_off(&mut self) -> Option<ToServer> {
        match self.backlogs.pop_front()? {
            Backlog::List(listing) => {
                self.show_items(listing);
                None
            }
            Backlog::Watch(id) => self.show_events(id),
        }
    }

    fn show_items(&mut self, mut listing: Box<Listing>) {
        let Listing { resource, items, done, shown, .. } = &mut *listing;
        let next = &items[*done..items.len().min(*done + SLICE)];
        *done += next.len();
        match shown {
            Shown::Values(values) => values.extend(next.iter().map(|object| resource.present(object.to_json()))),
            Shown::Text(text) => {
                for object in next {
                    if !text.is_empty() {
                        text.push(b',');
                    }
                    object.write_item(text);
                }
            }
        }
        if *done < items.len() {
            // Nobody waits for it where the client has disconnected.
            if !listing.reply.is_closed() {
                self.backlogs.push_back(Backlog::List(listing));
            }
            return;
        }
        let Listing { reply, warnings, done: count, shown, rv, rest, .. } = *listing;
        let result = Ok(match shown {
            Shown::Values(items) => list(items, rv, rest),
            Shown::Text(items) => {
                let (continue_from, remaining) = rest_of(rest);
                Answer::Text { items, count, rv: rv.0, continue_from, remaining }
            }
        });
        // An error means that the client has disconnected, which is fine.
        let _ = reply.send(Reply { result, warnings, created: false });
    }

    fn show_events(&mut self, id: u64) -> Option<ToServer> {
        for _ in 0..SLICE {
            let Some(Waiting::Watch(watcher)) = self.waiting.get_mut(&id) else { return None };
            let (event, initial) = watcher.backlog.pop_front()?;
            if let Some(message) = self.show(id, event, initial) {
                return Some(message);
            }
        }
        self.backlogs.push_back(Backlog::Watch(id));
        None
    }

    /// The API server reports something about a request before it replies.
    pub fn noted(&mut self, id: ReqId, note: Note) {
        if let Some(Waiting::Answer { warnings, created, .. }) = self.waiting.get_mut(&id.0) {
            match note {
                Note::Warning(text) => warnings.push(text.into()),
                Note::Created => *created = true,
            }
        }
    }

    /// Handles a message of the API server. Returns the next message to it, if any.
    pub fn answered(&mut self, message: FromServer) -> Option<ToServer> {
        match message {
            FromServer::Reply(id, result) => self.replied(id, result),
            FromServer::Watch(id, event) => self.happened(id, event),
            FromServer::Disconnected => unreachable!("there is no line that could break"),
        }
    }

    fn replied(&mut self, id: ReqId, result: Result<Response, Status>) -> Option<ToServer> {
        // A reply to a watch that has been cancelled is ignored.
        match (self.waiting.remove(&id.0)?, result) {
            (Waiting::Answer { reply, resource, warnings, as_text, .. }, Ok(Response::List { items, rv, rest })) => {
                let shown = match as_text {
                    true => Shown::Text(Vec::new()),
                    false => Shown::Values(Vec::with_capacity(items.len())),
                };
                self.show_items(Box::new(Listing { reply, resource, warnings, items, done: 0, shown, rv, rest }));
            }
            (Waiting::Answer { reply, resource, warnings, created, .. }, result) => {
                let result = result.map(|response| answer(response, &resource));
                // An error means that the client has disconnected, which is fine.
                let _ = reply.send(Reply { result, warnings, created });
            }
            (Waiting::Bind { reply, resource, identity, to: (node, annotations) }, Ok(Response::Object(pod))) => {
                let call = Call::Bind { pod: pod.key(), uid: Rc::from(pod.uid()), node, annotations };
                let warnings = Vec::new();
                let as_text = false;
                self.waiting.insert(id.0, Waiting::Answer { reply, resource, warnings, created: false, as_text });
                let mut request = Request::new(&Rc::from(identity.name.as_str()), call);
                request.identity = Some(identity);
                return Some(ToServer::Request(id, request));
            }
            (Waiting::Bind { reply, resource, .. }, result) => {
                finish(reply, result.map(|response| answer(response, &resource)), Vec::new());
            }
            (Waiting::Watch(mut watcher), Err(status)) => {
                match watcher.begin.take() {
                    // As in Kubernetes' watch cache, a watch from a revision that is too old starts, and then ends with
                    // an ERROR event.
                    Some((reply, events)) if matches!(status.reason, Reason::Expired | Reason::Gone) => {
                        finish(reply, Ok(Answer::Watch(events)), Vec::new());
                    }
                    Some((reply, _)) => {
                        finish(reply, Err(status), Vec::new());
                        return None;
                    }
                    None => {}
                }
                watcher.sink.send(encode("ERROR", status.to_json(), watcher.encoding), true);
            }
            (Waiting::Watch(_), Ok(response)) => unreachable!("a watch is not answered by {response:?}"),
        }
        None
    }

    fn happened(&mut self, id: ReqId, event: WatchEvent) -> Option<ToServer> {
        let Some(Waiting::Watch(watcher)) = self.waiting.get_mut(&id.0) else { return Some(ToServer::Cancel(id)) };
        let initial = watcher.begin.is_some();
        if initial || !watcher.backlog.is_empty() {
            watcher.backlog.push_back((event, initial));
            return None;
        }
        self.show(id.0, event, false)
    }

    /// Hands an event on; `initial` if the watch begins with it.
    fn show(&mut self, id: u64, event: WatchEvent, initial: bool) -> Option<ToServer> {
        let Some(Waiting::Watch(watcher)) = self.waiting.get(&id) else { return None };
        let (type_, object) = match event {
            WatchEvent::Added(object) => ("ADDED", object),
            WatchEvent::Modified(object) => ("MODIFIED", object),
            WatchEvent::Deleted(object) => ("DELETED", object),
            WatchEvent::Bookmark { rv, initial_events_end } => {
                let event = encode("BOOKMARK", bookmark(&watcher.resource, rv, initial_events_end), watcher.encoding);
                return self.hand_on(id, event, initial);
            }
        };
        let encoding = watcher.encoding;
        let same = |e: &&Encoded| {
            let same_view = Arc::ptr_eq(&e.resource, &watcher.resource) && e.encoding == encoding;
            same_view && e.rv == object.rv() && e.type_ == type_ && e.key == *object.key_ref()
        };
        let event = match self.encoded.as_ref().filter(same) {
            Some(encoded) => encoded.event.clone(),
            None => {
                let resource = Arc::clone(&watcher.resource);
                let event = encode(type_, resource.present(object.to_json()), encoding);
                let (key, rv) = (object.key(), object.rv());
                self.encoded = Some(Encoded { key, resource, rv, type_, encoding, event: event.clone() });
                event
            }
        };
        self.hand_on(id, event, initial)
    }

    fn hand_on(&mut self, id: u64, event: Event, initial: bool) -> Option<ToServer> {
        let Some(Waiting::Watch(watcher)) = self.waiting.get(&id) else { return None };
        if watcher.sink.send(event, initial) {
            return None;
        }
        tracing::debug!(watch = id, "a watcher that is gone, or too slow, is cut off");
        Some(self.cancel(id))
    }
}

fn finish(reply: oneshot::Sender<Reply>, result: Result<Answer, Status>, warnings: Vec<String>) {
    // An error means that the client has disconnected, which is fine.
    let _ = reply.send(Reply { result, warnings, created: false });
}

fn encode(type_: &'static str, object: Value, encoding: WatchEncoding) -> Event {
    match encoding {
        WatchEncoding::Json => Event::Line(reply::encode_event(type_, &object, false).into()),
        WatchEncoding::Protobuf => Event::Line(reply::encode_event(type_, &object, true).into()),
        WatchEncoding::Values { .. } => Event::Value(type_, Arc::new(object)),
    }
}

fn bookmark(resource: &Resource, rv: Revision, initial_events_end: bool) -> Value {
    let info = &resource.info;
    let mut metadata = json!({"resourceVersion": rv.to_string(), "creationTimestamp": null});
    if initial_events_end {
        metadata["annotations"] = json!({"k8s.io/initial-events-end": "true"});
    }
    json!({"kind": info.kind, "apiVersion": info.api_version(), "metadata": metadata})
}

fn answer(response: Response, resource: &Resource) -> Answer {
    let shown = |object: &Object| resource.present(object.to_json());
    match response {
        Response::Object(object) => Answer::Object(shown(&object)),
        Response::List { items, rv, rest } => list(items.iter().map(shown).collect(), rv, rest),
        Response::Scale(scale) => Answer::Object(scale_json(&scale)),
        Response::Done { .. } => Answer::Done,
    }
}

fn list(items: Vec<Value>, rv: Revision, rest: Option<Box<Rest>>) -> Answer {
    let (continue_from, remaining) = rest_of(rest);
    Answer::List { items, rv: rv.0, continue_from, remaining }
}

/// Where a list goes on, and how much is left.
fn rest_of(rest: Option<Box<Rest>>) -> (Option<String>, Option<u64>) {
    rest.map_or((None, None), |rest| (Some(rest.continue_from), rest.remaining))
}

/// The response for a scale subresource: an `autoscaling/v1` Scale.
fn scale_json(scale: &Scale) -> Value {
    json!({
        "kind": "Scale", "apiVersion": "autoscaling/v1",
        "metadata": {"name": scale.key.name(), "namespace": scale.key.namespace(),
            "resourceVersion": scale.rv.to_string()},
        "spec": {"replicas": scale.replicas},
        "status": {"replicas": scale.current, "selector": scale.selector},
    })
}

fn key(target: &Target) -> ObjectKey {
    ObjectKey::new(target.kind, &target.namespace, &target.name)
}

/// A decoded request.
enum Asked {
    Call(Call),
    Watch(Call, WatchEncoding),
    /// A binding without the pod's UID: the pod must be read first.
    Bind(Target, (Rc<str>, Annotations)),
}

fn call(what: What, decoder: Body<'_>, warnings: &mut Vec<String>) -> Result<Asked, Status> {
    let call = match what {
        What::Get { target, rv } => Call::Get { key: key(&target), rv: rv.map(Revision) },
        What::List { kind, namespace, mut options, .. } => {
            options.fields = decoder.resource.fields_to_held(options.fields)?;
            Call::List { kind, namespace: Rc::from(namespace), options }
        }
        What::Watch { kind, namespace, mut options, encoding } => {
            options.fields = decoder.resource.fields_to_held(options.fields)?;
            let call = Call::Watch { kind, namespace: Rc::from(namespace), options };
            return Ok(Asked::Watch(call, encoding));
        }
        What::Create { namespace, body, options } => {
            let mut object = decoder.object(body, warnings)?;
            set_namespace(&mut object, &namespace)?;
            Call::Create { object, options }
        }
        What::Update { target, body, subresource, options } => {
            let mut object = decoder.object(body, warnings)?;
            check_name(&object, &target.name)?;
            set_namespace(&mut object, &target.namespace)?;
            Call::Update { object, subresource, options }
        }
        What::Patch { target, patch, subresource, options } => {
            warnings.extend(mind_patch(&patch, &decoder.duplicates, decoder.validation)?);
            let patch = decoder.resource.patch_to_held(patch)?;
            Call::Patch { key: key(&target), patch, subresource, precondition: Precondition::default(), options }
        }
        What::Delete { target, options } => Call::Delete { key: key(&target), options: deletion(options) },
        What::DeleteCollection { kind, namespace, mut list, options } => {
            list.fields = decoder.resource.fields_to_held(list.fields)?;
            Call::DeleteCollection { kind, namespace: Rc::from(namespace), list, options: deletion(options) }
        }
        What::Bind { target, uid: Some(uid), node, annotations } => {
            Call::Bind { pod: key(&target), uid: Rc::from(uid), node: Rc::from(node), annotations }
        }
        What::Bind { target, uid: None, node, annotations } => {
            return Ok(Asked::Bind(target, (Rc::from(node), annotations)));
        }
        What::Evict { target, options } => Call::Evict { pod: key(&target), options: deletion(options) },
        What::Connect { target, subresource, options } => {
            Call::Connect { key: key(&target), subresource, options: Box::new(options) }
        }
        What::GetScale { target } => Call::GetScale { key: key(&target) },
        What::SetScale { target, replicas, rv, options } => {
            Call::SetScale { key: key(&target), replicas, rv: Revision(rv), options }
        }
    };
    Ok(Asked::Call(call))
}

/// What is said of the fields that come twice in a patch; refuses them if they are to be.
fn mind_patch(patch: &Patch, twice: &[DecodeError], validation: FieldValidation) -> Result<Vec<String>, Status> {
    if twice.is_empty() || validation == FieldValidation::Ignore {
        return Ok(Vec::new());
    }
    let messages: Vec<String> = twice.iter().map(|e| e.message.clone()).collect();
    let applied = || format!("error strict decoding YAML: error converting YAML to JSON: {}", messages.join(", "));
    match (patch, validation) {
        (Patch::Apply { .. }, FieldValidation::Strict) => Err(Status::bad_request(applied())),
        (Patch::Apply { .. }, _) => Ok(vec![applied()]),
        (Patch::Json(body) | Patch::Merge(body) | Patch::Strategic(body), FieldValidation::Strict) => {
            let why = format!("strict decoding error: {}", messages.join(", "));
            Err(Status::invalid_named("", "", "", &[FieldError::invalid("patch", body.to_string(), why)]))
        }
        (Patch::Json(_) | Patch::Merge(_) | Patch::Strategic(_), _) => Ok(messages),
    }
}

fn deletion(options: Deletion) -> DeleteOptions {
    let Deletion { uid, rv, grace_seconds, propagation, dry_run } = options;
    let precondition = Precondition { uid: uid.map(Rc::from), rv: rv.map(Revision) };
    DeleteOptions { precondition, grace_seconds, propagation, dry_run }
}

/// How to decode a request's body. The path determines its resource and version.
struct Body<'a> {
    kinds: &'a Kinds,
    resource: &'a Resource,
    validation: FieldValidation,
    duplicates: Vec<DecodeError>,
    /// What the API server is to mind, which knows the definitions of custom kinds.
    minded: &'a mut Vec<DecodeError>,
}

impl Body<'_> {
    fn object(self, mut body: Value, warnings: &mut Vec<String>) -> Result<Object, Status> {
        let info = &self.resource.info;
        let whole = |message: String| DecodeError { path: String::new(), message, unknown_field: false };
        let Some(map) = body.as_object_mut() else {
            return Err(decode::status(info, &[whole("json: cannot unmarshal into an object".to_owned())]));
        };
        check_revision(map.get("metadata"))?;
        for (field, expected) in [("apiVersion", info.api_version()), ("kind", info.kind.to_string())] {
            match map.get(field) {
                None | Some(Value::Null) => drop(map.insert(field.to_owned(), Value::String(expected))),
                Some(Value::String(given)) if given.is_empty() => {
                    map.insert(field.to_owned(), Value::String(expected));
                }
                Some(Value::String(given)) if *given != expected => {
                    let what = if field == "kind" { "kind" } else { "API version" };
                    return Err(Status::bad_request(format!(
                        "the {what} in the data ({given}) does not match the expected {what} ({expected})"
                    )));
                }
                Some(_) => {}
            }
        }
        let (object, mut unknown) = decode::with_unknown(self.kinds, self.resource.to_held(body))
            .map_err(|errors| decode::status(info, &errors))?;
        unknown.extend(self.duplicates);
        if object.kind().built_in().is_none() {
            *self.minded = unknown;
            return Ok(object);
        }
        match self.validation {
            FieldValidation::Strict if !unknown.is_empty() => return Err(decode::status(info, &unknown)),
            FieldValidation::Warn => warnings.extend(unknown.into_iter().map(|e| e.message)),
            FieldValidation::Ignore | FieldValidation::Strict => {}
        }
        Ok(object)
    }
}

/// A resourceVersion that cannot be parsed must never become an unconditional write.
fn check_revision(metadata: Option<&Value>) -> Result<(), Status> {
    match metadata.and_then(|m| m.get("resourceVersion")) {
        Some(Value::String(rv)) if !rv.is_empty() && rv.parse::<u64>().is_err() => Err(Status::bad_request(format!(
            "metadata.resourceVersion: Invalid value: {rv:?}: strconv.ParseUint: parsing {rv:?}: invalid syntax"
        ))),
        _ => Ok(()),
    }
}

fn check_name(object: &Object, name: &str) -> Result<(), Status> {
    if object.name() == name {
        return Ok(());
    }
    let given = object.name();
    Err(Status::bad_request(format!("the name of the object ({given}) does not match the name on the URL ({name})")))
}

fn set_namespace(object: &mut Object, namespace: &str) -> Result<(), Status> {
    if object.namespace().is_empty() && !namespace.is_empty() {
        object.meta_mut().namespace = Some(namespace.to_owned());
    }
    if object.namespace() == namespace {
        return Ok(());
    }
    let why = "the namespace of the provided object does not match the namespace sent on the request";
    Err(Status::bad_request(why))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::up::served::Served;
    use skeg_core::Kind;
    use skeg_core::api::{ListOptions, WatchOptions};

    /// Asks for a watch; returns its number and where its reply comes.
    fn watch(clients: &mut Clients) -> (ReqId, oneshot::Receiver<Reply>) {
        let (namespace, options) = (String::new(), WatchOptions::default());
        ask_for(clients, What::Watch { kind: Kind::POD, namespace, options, encoding: WatchEncoding::Json })
    }

    fn ask_for(clients: &mut Clients, what: What) -> (ReqId, oneshot::Receiver<Reply>) {
        let ask = Ask {
            user: Arc::new(User::anonymous()),
            resource: Arc::clone(Served::built_in().by_path("", "v1", "pods").expect("it is served")),
            what,
            manager: String::new(),
            validation: FieldValidation::Ignore,
            duplicates: Vec::new(),
        };
        let (reply, answer) = oneshot::channel();
        let Some(ToServer::Request(id, _)) = clients.ask(ask, reply) else { panic!("it is a request") };
        (id, answer)
    }

    fn pod(number: usize) -> Object {
        let value = json!({"apiVersion": "v1", "kind": "Pod", "spec": {"containers": []},
            "metadata": {"name": format!("p{number}"), "namespace": "n", "resourceVersion": "1"}});
        Object::from_json(value).expect("a pod reads")
    }

    #[test]
    fn a_long_list_is_encoded_in_slices() {
        [false, true].into_iter().for_each(check_slices);
    }

    fn check_slices(as_text: bool) {
        let mut clients = Clients::new(Kinds::default());
        let ask = |clients: &mut Clients| {
            let (namespace, options) = (String::new(), ListOptions::default());
            ask_for(clients, What::List { kind: Kind::POD, namespace, options, as_text })
        };
        let list = |pods: usize| {
            let items = Rc::new((0..pods).map(pod).collect());
            Ok(Response::List { items, rv: Revision(7), rest: None })
        };
        let (long, mut whole) = ask(&mut clients);
        let (short, mut other) = ask(&mut clients);
        assert!(clients.answered(FromServer::Reply(long, list(3 * SLICE))).is_none());
        assert!(clients.has_backlog() && whole.try_recv().is_err());
        clients.answered(FromServer::Reply(short, list(1)));
        assert!(other.try_recv().is_ok(), "others are answered meanwhile");
        let mut slices = 1;
        while clients.has_backlog() {
            assert!(clients.work_off().is_none());
            slices += 1;
        }
        let items: Vec<Value> = match whole.try_recv().expect("it is whole").result {
            Ok(Answer::List { items, rv: 7, .. }) if !as_text => items,
            Ok(Answer::Text { items, rv: 7, .. }) if as_text => {
                let text = String::from_utf8(items).expect("JSON is text");
                serde_json::from_str(&format!("[{text}]")).expect("it is JSON")
            }
            other => panic!("{other:?}"),
        };
        assert_eq!((slices, items.len(), &items[191]["metadata"]["name"]), (3, 3 * SLICE, &json!("p191")));
        // Nobody waits for this one any more.
        let (gone, nobody) = ask(&mut clients);
        drop(nobody);
        clients.answered(FromServer::Reply(gone, list(3 * SLICE)));
        assert!(!clients.has_backlog());
    }

    #[test]
    fn what_comes_while_a_watch_begins_comes_after_what_it_begins_with() {
        let mut clients = Clients::new(Kinds::default());
        let (id, mut reply) = watch(&mut clients);
        for number in 0..2 * SLICE + 1 {
            clients.answered(FromServer::Watch(id, WatchEvent::Added(pod(number))));
        }
        clients.handled(id);
        let Ok(Reply { result: Ok(Answer::Watch(mut events)), .. }) = reply.try_recv() else { panic!() };
        clients.answered(FromServer::Watch(id, WatchEvent::Deleted(pod(0))));
        while clients.has_backlog() {
            assert!(clients.work_off().is_none());
        }
        clients.answered(FromServer::Watch(id, WatchEvent::Deleted(pod(1))));
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        let mut seen = Vec::new();
        while let std::task::Poll::Ready(Some(Event::Line(line))) = events.poll(&mut context) {
            let event: Value = serde_json::from_slice(&line).expect("it is JSON");
            seen.push((event["type"].clone(), event["object"]["metadata"]["name"].clone()));
        }
        let added = (0..2 * SLICE + 1).map(|number| (json!("ADDED"), json!(format!("p{number}"))));
        let deleted = (0..2).map(|number| (json!("DELETED"), json!(format!("p{number}"))));
        assert_eq!(seen, added.chain(deleted).collect::<Vec<_>>());
    }

    #[test]
    fn watches_that_are_asked_for_together_all_start() {
        let mut clients = Clients::new(Kinds::default());
        let [(first, mut a), (second, mut b), (third, mut c)] = [(); 3].map(|()| watch(&mut clients));
        clients.handled(first);
        assert!(matches!(a.try_recv(), Ok(Reply { result: Ok(Answer::Watch(_)), .. })));
        assert!(b.try_recv().is_err() && c.try_recv().is_err(), "the API server has not handled these yet");
        // One that is refused has not started.
        clients.answered(FromServer::Reply(second, Err(Status::bad_request("no"))));
        clients.handled(second);
        assert!(matches!(b.try_recv(), Ok(Reply { result: Err(_), .. })));
        clients.handled(third);
        assert!(matches!(c.try_recv(), Ok(Reply { result: Ok(Answer::Watch(_)), .. })));
    }
}
