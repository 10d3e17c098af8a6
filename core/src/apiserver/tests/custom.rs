//! A custom kind that appears while a world is running: defined, used, garbage-collected and deleted, beside another
//! world in the same process that does not know it. The test drives the store, API server and controller manager by
//! hand.

use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::time::Duration;

use serde_json::{Value, json};

use crate::api::{
    Call, DeleteOptions, FieldValidation, FromServer, ListOptions, Patch, Precondition, ReqId, Request, Response,
    Status, Subresource, ToServer, WatchEvent, WatchOptions, WriteOptions,
};
use crate::apiserver::{self, ApiServer, ConnId, Note};
use crate::controllers::{ControllerManager, ManagerConfig};
use crate::machine::{Machine, Mono, Now, Wall};
use crate::object::{FieldSelector, Kind, Kinds, Object, ObjectKey, Revision, decode};
use crate::random::Rng;
use crate::store::{self, FromStore, MemoryStore, StoreClient, StoreRequest};

const TEST: ConnId = ConnId(1);
const MANAGER: ConnId = ConnId(2);
const GONE: &str = "the server could not find the requested resource";

/// A message in flight to one of the machines; each arrives immediately.
enum Message {
    Store(u64, StoreRequest),
    Api(FromStore),
    Server(ConnId, ToServer),
    Client(ConnId, FromServer),
}

struct World {
    store: MemoryStore,
    api: ApiServer,
    manager: ControllerManager,
    kinds: Kinds,
    now: Now,
    wire: VecDeque<Message>,
    replies: BTreeMap<ReqId, Result<Response, Status>>,
    seen: Vec<String>,
    warnings: Vec<String>,
    next: u64,
}

impl World {
    fn new() -> World {
        let kinds = Kinds::default();
        let config = apiserver::Config { kinds: kinds.clone(), ..apiserver::Config::default() };
        let manager = ManagerConfig { leader_elect: false, kinds: kinds.clone(), ..ManagerConfig::default() };
        let mut world = World {
            store: MemoryStore::new(),
            api: ApiServer::new(config, Rng::stream(1, "api", 0)),
            manager: ControllerManager::new(manager, Rng::stream(1, "manager", 0)),
            kinds,
            now: Now { mono: Mono::ZERO, wall: Wall(1_700_000_000_000_000) },
            wire: VecDeque::new(),
            replies: BTreeMap::new(),
            seen: Vec::new(),
            warnings: Vec::new(),
            next: 1,
        };
        world.run(5);
        world
    }

    fn run(&mut self, seconds: u64) {
        for _ in 0..seconds * 10 {
            self.now = self.now + Duration::from_millis(100);
            let (mut to_api, mut out, mut asked) = (Vec::new(), Vec::new(), Vec::new());
            self.store.handle_timeout(self.now, &mut to_api);
            self.api.handle_timeout(self.now, &mut out);
            self.manager.handle_timeout(self.now, &mut asked);
            self.send_on(to_api, out, asked);
            self.pump();
        }
    }

    fn send_on(&mut self, to_api: Vec<store::Out>, out: Vec<apiserver::Out>, asked: Vec<ToServer>) {
        self.wire.extend(to_api.into_iter().map(|message| Message::Api(message.msg)));
        for message in out {
            match message {
                apiserver::Out::Client(conn, message) => self.wire.push_back(Message::Client(conn, message)),
                apiserver::Out::Store(id, request) => self.wire.push_back(Message::Store(id, request)),
                apiserver::Out::Note(_, _, Note::Warning(text)) => self.warnings.push(text.into()),
                apiserver::Out::Note(_, _, Note::Created) | apiserver::Out::Consult(..) => {}
            }
        }
        self.wire.extend(asked.into_iter().map(|message| Message::Server(MANAGER, message)));
    }

    fn pump(&mut self) {
        while let Some(message) = self.wire.pop_front() {
            let (mut to_api, mut out, mut asked) = (Vec::new(), Vec::new(), Vec::new());
            match message {
                Message::Store(id, request) => {
                    let request = store::In::Request(StoreClient(0), id, request);
                    self.store.handle(self.now, request, &mut to_api);
                }
                Message::Api(message) => self.api.handle(self.now, apiserver::In::Store(message), &mut out),
                Message::Server(conn, message) => {
                    self.api.handle(self.now, apiserver::In::Client(conn, message), &mut out);
                }
                Message::Client(MANAGER, message) => self.manager.handle(self.now, message, &mut asked),
                Message::Client(_, message) => self.take(message),
            }
            self.send_on(to_api, out, asked);
        }
    }

    fn take(&mut self, message: FromServer) {
        match message {
            FromServer::Reply(id, result) => drop(self.replies.insert(id, result)),
            FromServer::Watch(_, event) => self.seen.extend(match event {
                WatchEvent::Added(o) => Some(format!("+{}", o.name())),
                WatchEvent::Modified(o) => Some(format!("~{}", o.name())),
                WatchEvent::Deleted(o) => Some(format!("-{}", o.name())),
                WatchEvent::Bookmark { .. } => None,
            }),
            FromServer::Disconnected => unreachable!("nothing breaks here"),
        }
    }

    fn send(&mut self, request: Box<Request>) -> ReqId {
        let id = ReqId(self.next);
        self.next += 1;
        self.wire.push_back(Message::Server(TEST, ToServer::Request(id, request)));
        self.pump();
        id
    }

    fn request(&mut self, request: Box<Request>) -> Result<Response, Status> {
        let id = self.send(request);
        self.replies.remove(&id).expect("a request is answered at once")
    }

    fn call(&mut self, call: Call) -> Result<Response, Status> {
        self.request(Request::new(&Rc::from("test"), call))
    }

    fn create(&mut self, manifest: Value) -> Result<Value, String> {
        let object = decode::lenient_in(&self.kinds, manifest).map_err(|errors| errors[0].message.clone())?;
        shown(self.call(Call::Create { object, options: WriteOptions::default() }))
    }

    fn get(&mut self, key: &ObjectKey) -> Result<Value, String> {
        shown(self.call(Call::Get { key: key.clone(), rv: None }))
    }

    fn update(&mut self, value: Value, subresource: Subresource) -> Result<Value, String> {
        let object = decode::lenient_in(&self.kinds, value).map_err(|errors| errors[0].message.clone())?;
        shown(self.call(Call::Update { object, subresource, options: WriteOptions::default() }))
    }

    fn patch(&mut self, key: &ObjectKey, patch: Patch) -> Result<Value, String> {
        let (precondition, options) = (Precondition::default(), WriteOptions::default());
        shown(self.call(Call::Patch { key: key.clone(), patch, subresource: Subresource::None, precondition, options }))
    }

    fn delete(&mut self, key: &ObjectKey) -> Result<Value, String> {
        shown(self.call(Call::Delete { key: key.clone(), options: DeleteOptions::default() }))
    }

    fn names(&mut self, kind: Kind, fields: &str) -> Result<String, String> {
        let options = ListOptions { fields: FieldSelector::parse(fields).unwrap(), ..ListOptions::default() };
        match self.call(Call::List { kind, namespace: Rc::from(""), options }) {
            Ok(Response::List { items, .. }) => Ok(items.iter().map(Object::name).collect::<Vec<_>>().join(" ")),
            Ok(other) => panic!("{other:?} instead of a list"),
            Err(status) => Err(status.message.into()),
        }
    }
}

fn shown(result: Result<Response, Status>) -> Result<Value, String> {
    match result {
        Ok(Response::Object(object)) => Ok(object.to_json()),
        Ok(Response::Scale(scale)) => Ok(json!([scale.replicas, scale.current, scale.selector])),
        Ok(other) => panic!("{other:?} instead of an object"),
        Err(status) => Err(status.message.into()),
    }
}

fn definition() -> Value {
    let schema = json!({"type": "object", "properties": {
        "spec": {"type": "object", "required": ["size"], "properties": {
            "size": {"type": "integer", "minimum": 1, "maximum": 9},
            "colour": {"type": "string", "enum": ["red", "green"], "default": "red"},
            "ports": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["number"],
                "items": {"type": "object", "required": ["number"], "properties": {
                    "number": {"type": "integer"}, "protocol": {"type": "string", "default": "TCP"}}}}}},
        "status": {"type": "object", "properties": {
            "size": {"type": "integer"}, "selector": {"type": "string"}}}}});
    let version = |name: &str, storage: bool| {
        json!({"name": name, "served": true, "storage": storage,
            "schema": {"openAPIV3Schema": schema},
            "selectableFields": [{"jsonPath": ".spec.colour"}],
            "subresources": {"status": {}, "scale": {"specReplicasPath": ".spec.size",
                "statusReplicasPath": ".status.size", "labelSelectorPath": ".status.selector"}}})
    };
    json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "widgets.example.com"},
        "spec": {"group": "example.com", "scope": "Namespaced",
            "names": {"plural": "widgets", "kind": "Widget", "shortNames": ["wd"], "categories": ["all"]},
            "versions": [version("v1beta1", false), version("v1", true)]}})
}

fn definition_key(name: &str) -> ObjectKey {
    ObjectKey::new(Kind::CUSTOM_RESOURCE_DEFINITION, "", name)
}

fn widget(name: &str, spec: Value) -> Value {
    json!({"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": name, "namespace": "default"},
        "spec": spec})
}

fn config_map(name: &str, owner: &Value) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": "default",
        "ownerReferences": owned_by(owner)}})
}

fn owned_by(owner: &Value) -> Value {
    json!([{"apiVersion": owner["apiVersion"], "kind": owner["kind"], "name": owner["metadata"]["name"],
        "uid": owner["metadata"]["uid"]}])
}

fn key(kind: Kind, name: &str) -> ObjectKey {
    ObjectKey::new(kind, "default", name)
}

/// A world in which widgets are defined, and their kind.
fn with_widgets() -> (World, Kind) {
    let mut world = World::new();
    let refused = world.create(widget("early", json!({"size": 1}))).unwrap_err();
    assert_eq!(refused, "no matches for kind \"Widget\" in version \"example.com/v1\"");
    world.create(definition()).unwrap();
    world.run(1);
    let kind = world.kinds.by_resource("example.com", "widgets").expect("the definition is established");
    (world, kind)
}

#[test]
fn a_definition_is_established_and_discovery_tells_of_it() {
    let (mut here, kind) = with_widgets();
    let found = here.get(&definition_key("widgets.example.com")).unwrap();
    let conditions = found["status"]["conditions"].as_array().unwrap();
    let tell = |c: &Value| format!("{}={} {}", c["type"], c["status"], c["reason"]).replace('"', "");
    let told: Vec<String> = conditions.iter().map(tell).collect();
    assert_eq!(told, ["NamesAccepted=True NoConflicts", "Established=True InitialNamesAccepted"]);
    assert_eq!(found["status"]["storedVersions"], json!(["v1"]));
    assert_eq!(found["status"]["acceptedNames"]["singular"], "widget");
    let (served, info) = here.api.by_path("example.com", "v1beta1", "widgets").expect("it is served in both versions");
    assert_eq!((served, &*info.kind, info.namespaced), (kind, "Widget", true));
    assert_eq!(*info.subresources, ["scale", "status"]);
    assert!(here.api.resources().any(|(of, _)| of == kind));
}

#[test]
fn a_definition_that_cannot_be_served_says_why() {
    let (mut here, _) = with_widgets();
    let mut rival = definition();
    rival["metadata"]["name"] = json!("gadgets.example.com");
    rival["spec"]["names"] = json!({"plural": "gadgets", "kind": "Widget"});
    here.create(rival).unwrap();
    here.run(1);
    let rival = here.get(&definition_key("gadgets.example.com")).unwrap();
    assert_eq!(rival["status"]["conditions"][0]["message"], "\"WidgetList\" is already in use");
    assert_eq!(rival["status"]["conditions"][1]["status"], "False");
    assert!(here.api.by_path("example.com", "v1", "gadgets").is_none());
    // Its names are free once the other definition is deleted.
    here.delete(&definition_key("widgets.example.com")).unwrap();
    here.run(3);
    assert!(here.api.by_path("example.com", "v1", "gadgets").is_some());

    let mut broken = definition();
    broken["metadata"]["name"] = json!("xs.example.com");
    broken["spec"]["names"] = json!({"plural": "xs", "kind": "X"});
    broken["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"] = json!({"a": {}});
    assert_eq!(
        here.create(broken).unwrap_err(),
        "CustomResourceDefinition.apiextensions.k8s.io \"xs.example.com\" is invalid: \
         spec.versions[0].schema.openAPIV3Schema.properties[a].type: Required value: must not be empty for specified \
         object fields"
    );
}

#[test]
fn custom_objects_are_applied_by_their_schema() {
    let (mut here, kind) = with_widgets();
    let apply = |manager: &str, force: bool, version: &str, spec: Value| {
        let body = json!({"apiVersion": format!("example.com/{version}"), "kind": "Widget",
            "metadata": {"name": "a"}, "spec": spec});
        Patch::Apply { body, manager: manager.to_owned(), force }
    };
    let a = key(kind, "a");
    here.patch(&a, apply("one", false, "v1", json!({"size": 2, "ports": [{"number": 80}]}))).unwrap();
    // Items of a list belong to whoever applied them, and what is applied no more goes.
    here.patch(&a, apply("two", false, "v1beta1", json!({"ports": [{"number": 81}]}))).unwrap();
    let both = here.patch(&a, apply("one", false, "v1", json!({"size": 3}))).unwrap();
    assert_eq!(both["spec"]["ports"], json!([{"number": 81, "protocol": "TCP"}]));
    let versions = both["metadata"]["managedFields"].as_array().unwrap().iter().map(|m| &m["apiVersion"]);
    assert_eq!(versions.collect::<Vec<_>>(), ["example.com/v1", "example.com/v1beta1"]);
    assert_eq!(
        here.patch(&a, apply("two", false, "v1", json!({"size": 4}))).unwrap_err(),
        "Apply failed with 1 conflict: conflict with \"one\": .spec.size"
    );
    assert_eq!(here.patch(&a, apply("two", true, "v1", json!({"size": 4}))).unwrap()["spec"]["size"], 4);
    assert!(
        here.patch(&a, apply("two", true, "v1", json!({"weight": 4})))
            .unwrap_err()
            .ends_with(".spec.weight: field not declared in schema")
    );
}

#[test]
fn fields_that_a_definition_does_not_have_are_minded_as_asked() {
    let (mut here, _) = with_widgets();
    let mut create = |name: &str, field_validation| {
        let object = decode::lenient_in(&here.kinds, widget(name, json!({"size": 1, "wieght": 2}))).unwrap();
        let options = WriteOptions { field_validation, ..WriteOptions::default() };
        shown(here.call(Call::Create { object, options }))
    };
    assert_eq!(
        create("a", FieldValidation::Strict).unwrap_err(),
        "Widget in version \"v1\" cannot be handled as a Widget: strict decoding error: unknown field \"spec.wieght\""
    );
    create("b", FieldValidation::Ignore).unwrap();
    create("c", FieldValidation::Warn).unwrap();
    assert_eq!(here.warnings, ["unknown field \"spec.wieght\""]);

    // What was minded when the body was read is told together with it.
    let metadata = json!({"name": "d", "namespace": "default", "nmae": "e"});
    let value = json!({"apiVersion": "example.com/v1", "kind": "Widget", "metadata": metadata,
        "spec": {"size": 1, "wieght": 2}});
    let (object, minded) = decode::with_unknown(&here.kinds, value).unwrap();
    let options = WriteOptions { field_validation: FieldValidation::Strict, ..WriteOptions::default() };
    let mut request = Request::new(&Rc::from("test"), Call::Create { object, options });
    request.minded = minded;
    let status = here.request(request).unwrap_err();
    let both = "strict decoding error: unknown field \"spec.wieght\", unknown field \"metadata.nmae\"";
    assert!(status.message.ends_with(both), "{status}");
}

#[test]
fn finalizers_of_custom_objects_need_no_path_and_are_warned_of() {
    let (mut here, kind) = with_widgets();
    let mut manifest = widget("a", json!({"size": 1}));
    manifest["metadata"]["finalizers"] = json!(["mine", "example.com/mine"]);
    let mut made = here.create(manifest).unwrap();
    let warning = |name: &str| {
        format!(
            "metadata.finalizers: {name:?}: prefer a domain-qualified finalizer name including a path (/) to avoid \
             accidental conflicts with other finalizer writers"
        )
    };
    assert_eq!(std::mem::take(&mut here.warnings), [warning("mine")]);
    made["metadata"]["finalizers"] = json!(["mine", "yours"]);
    here.update(made, Subresource::None).unwrap();
    let patch = json!({"metadata": {"finalizers": ["mine", "yours", "foregroundDeletion", "ours"]}});
    here.patch(&key(kind, "a"), Patch::Merge(patch)).unwrap();
    assert_eq!(here.warnings, [warning("yours"), warning("ours")], "what a write adds");
}

#[test]
fn custom_objects_keep_the_rules_of_their_definition() {
    let mut here = World::new();
    let mut ruled = definition();
    for version in ruled["spec"]["versions"].as_array_mut().unwrap() {
        version["schema"]["openAPIV3Schema"]["properties"]["spec"]["x-kubernetes-validations"] = json!([
            {"rule": "!has(self.ports) || self.ports.size() <= self.size", "message": "more ports than size"},
            {"rule": "self.size >= oldSelf.size", "messageExpression": "'size was ' + string(oldSelf.size)"}]);
    }
    let mut broken = ruled.clone();
    broken["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["x-kubernetes-validations"] =
        json!([{"rule": "self.x"}]);
    let why = here.create(broken).unwrap_err();
    assert!(why.contains(".openAPIV3Schema.x-kubernetes-validations[0].rule: Invalid value: "), "{why}");
    assert!(why.contains("compilation failed: ERROR: <input>:1:5: undefined field 'x'\n | self.x\n | ....^"), "{why}");
    here.create(ruled).unwrap();
    let ports = json!([{"number": 80}, {"number": 81}]);
    assert_eq!(
        here.create(widget("a", json!({"size": 1, "ports": ports}))).unwrap_err(),
        "Widget.example.com \"a\" is invalid: spec: Invalid value: \"object\": more ports than size"
    );
    let mut made = here.create(widget("a", json!({"size": 2, "ports": ports}))).unwrap();
    made["spec"]["size"] = json!(1);
    assert_eq!(
        here.update(made, Subresource::None).unwrap_err(),
        "Widget.example.com \"a\" is invalid: [spec: Invalid value: \"object\": more ports than size, spec: Invalid \
         value: \"object\": size was 2]"
    );
}

#[test]
fn custom_objects_are_created_as_their_schema_says() {
    let (mut here, kind) = with_widgets();
    let made = here.create(widget("a", json!({"size": 2, "unknown": 1, "ports": [{"number": 80}]}))).unwrap();
    assert_eq!(made["spec"], json!({"size": 2, "colour": "red", "ports": [{"number": 80, "protocol": "TCP"}]}));
    assert_eq!(made["metadata"]["generation"], 1);
    for (spec, why) in [
        (json!({}), "spec.size: Required value"),
        (json!({"size": 0}), "spec.size: Invalid value: 0: spec.size in body should be greater than or equal to 1"),
        (
            json!({"size": 1, "colour": "blue"}),
            "spec.colour: Unsupported value: \"blue\": supported values: \"red\", \"green\"",
        ),
    ] {
        let refused = here.create(widget("b", spec)).unwrap_err();
        assert_eq!(refused, format!("Widget.example.com \"b\" is invalid: {why}"));
    }
    // The other version stores the same resource.
    let mut old = widget("b", json!({"size": 3, "colour": "green"}));
    old["apiVersion"] = json!("example.com/v1beta1");
    assert_eq!(here.create(old).unwrap()["apiVersion"], "example.com/v1");
    assert_eq!(here.names(kind, "").unwrap(), "a b");
    assert_eq!(here.names(kind, "spec.colour=green").unwrap(), "b");
    assert_eq!(here.names(kind, "spec.size=2").unwrap_err(), "field label not supported: spec.size");
}

#[test]
fn custom_objects_are_changed_as_their_definition_says() {
    let (mut here, kind) = with_widgets();
    let call = Call::Watch { kind, namespace: Rc::from("default"), options: WatchOptions::default() };
    here.send(Request::new(&Rc::from("test"), call));
    here.create(widget("a", json!({"size": 2}))).unwrap();
    let patched = here.patch(&key(kind, "a"), Patch::Merge(json!({"spec": {"size": 4, "more": 1}}))).unwrap();
    assert_eq!((&patched["spec"]["size"], &patched["metadata"]["generation"]), (&json!(4), &json!(2)));
    assert_eq!(patched["spec"].get("more"), None);
    let refused = here.patch(&key(kind, "a"), Patch::Strategic(json!({"spec": {"size": 5}}))).unwrap_err();
    assert!(refused.starts_with("the body of the request was in an unknown format"), "{refused}");
    let mut unbased = patched.clone();
    unbased["metadata"]["resourceVersion"] = Value::Null;
    assert_eq!(
        here.update(unbased, Subresource::None).unwrap_err(),
        "widgets.example.com \"a\" is invalid: metadata.resourceVersion: Invalid value: 0x0: must be specified for an \
         update"
    );

    let mut status = patched.clone();
    status["status"] = json!({"size": 4, "selector": "app=a", "junk": 1});
    status["spec"]["size"] = json!(9);
    let kept = here.update(status, Subresource::Status).unwrap();
    assert_eq!(kept["status"], json!({"size": 4, "selector": "app=a"}));
    assert_eq!((&kept["spec"]["size"], &kept["metadata"]["generation"]), (&json!(4), &json!(2)));
    assert_eq!(shown(here.call(Call::GetScale { key: key(kind, "a") })).unwrap(), json!([4, 4, "app=a"]));
    let (rv, options) = (Revision(0), WriteOptions::default());
    here.call(Call::SetScale { key: key(kind, "a"), replicas: 6, rv, options }).unwrap();
    let scaled = here.get(&key(kind, "a")).unwrap();
    assert_eq!((&scaled["spec"]["size"], &scaled["metadata"]["generation"]), (&json!(6), &json!(3)));

    here.delete(&key(kind, "a")).unwrap();
    assert_eq!(here.seen.join(" "), "+a ~a ~a ~a -a");
    assert_eq!(here.get(&key(kind, "a")).unwrap_err(), "widgets.example.com \"a\" not found");
}

#[test]
fn custom_objects_own_and_are_owned() {
    let (mut here, kind) = with_widgets();
    let owner = here.create(widget("owner", json!({"size": 1}))).unwrap();
    here.create(config_map("owned", &owner)).unwrap();
    let mut anchor = config_map("anchor", &Value::Null);
    anchor["metadata"]["ownerReferences"] = Value::Null;
    let anchor = here.create(anchor).unwrap();
    let mut child = widget("child", json!({"size": 1}));
    child["metadata"]["ownerReferences"] = owned_by(&anchor);
    here.create(child).unwrap();
    here.run(5);
    assert_eq!(here.names(kind, "").unwrap(), "child owner");
    here.delete(&key(kind, "owner")).unwrap();
    here.delete(&key(Kind::CONFIG_MAP, "anchor")).unwrap();
    here.run(10);
    assert_eq!((here.names(kind, "").unwrap(), here.names(Kind::CONFIG_MAP, "").unwrap()), Default::default());

    // Deleting a namespace deletes its widgets.
    here.create(json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "n"}})).unwrap();
    let mut far = widget("far", json!({"size": 1}));
    far["metadata"]["namespace"] = json!("n");
    here.create(far).unwrap();
    here.delete(&ObjectKey::new(Kind::NAMESPACE, "", "n")).unwrap();
    here.run(20);
    assert_eq!(here.names(kind, "").unwrap(), "");
    assert_eq!(here.get(&ObjectKey::new(Kind::NAMESPACE, "", "n")).unwrap_err(), "namespaces \"n\" not found");
}

#[test]
fn custom_objects_go_with_their_definition_and_other_worlds_know_nothing() {
    let (mut here, kind) = with_widgets();
    let mut there = World::new();
    let mut held = widget("held", json!({"size": 1}));
    held["metadata"]["finalizers"] = json!(["example.com/hold"]);
    here.create(held).unwrap();
    here.create(widget("free", json!({"size": 1}))).unwrap();
    let call = Call::Watch { kind, namespace: Rc::from(""), options: WatchOptions::default() };
    let watch = here.send(Request::new(&Rc::from("test"), call));
    here.delete(&definition_key("widgets.example.com")).unwrap();
    here.run(3);
    assert_eq!(here.names(kind, "").unwrap(), "held");
    let refused = here.create(widget("late", json!({"size": 1}))).unwrap_err();
    assert_eq!(refused, "create not allowed while custom resource definition is terminating");
    here.patch(&key(kind, "held"), Patch::Merge(json!({"metadata": {"finalizers": null}}))).unwrap();
    here.run(3);
    let gone = here.get(&definition_key("widgets.example.com")).unwrap_err();
    assert_eq!(gone, "customresourcedefinitions.apiextensions.k8s.io \"widgets.example.com\" not found");
    assert_eq!(here.names(kind, "").unwrap_err(), GONE);
    let end = here.replies.remove(&watch).expect("the watch ends");
    assert_eq!(&*end.unwrap_err().message, GONE);

    // The definition is created again, and the kind's watchers resume.
    here.create(definition()).unwrap();
    here.run(5);
    let owner = here.create(widget("owner", json!({"size": 1}))).unwrap();
    here.create(config_map("owned", &owner)).unwrap();
    here.run(1);
    here.delete(&key(kind, "owner")).unwrap();
    here.run(10);
    assert_eq!(here.names(Kind::CONFIG_MAP, "").unwrap(), "");

    there.run(5);
    assert_eq!(there.kinds.by_resource("example.com", "widgets"), None);
    assert!(there.create(widget("a", json!({"size": 1}))).is_err());
    assert_eq!(there.names(kind, "").unwrap_err(), GONE);
}
