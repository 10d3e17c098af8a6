//! Server-side apply, the managers of fields, and what is minded of patches.

use std::rc::Rc;

use serde_json::{Value, json};

use super::{Cluster, cluster, deployment, key, object_in, refusal, request, set_phase};
use crate::api::{
    Call, FieldValidation, Patch, Precondition, Reason, Request, Response, Status, Subresource, WriteOptions,
};
use crate::apiserver::{ApiServer, Config};
use crate::object::{Kind, Object, ObjectKey};
use crate::random::Rng;

/// A cluster whose server tracks the managers of fields from the beginning.
fn tracking() -> Cluster {
    let mut c = cluster(1);
    let config = Config { track_fields: true, ..Config::default() };
    c.servers = vec![ApiServer::new(config, Rng::stream(1, "apiserver", 0))];
    c.tick(0);
    c
}

fn by(manager: &str, call: Call) -> Request {
    Request { field_manager: Some(Rc::from(manager)), ..request(call) }
}

impl Cluster {
    fn answer(&mut self, request: Request) -> Result<Response, Status> {
        let id = self.send(0, request);
        self.reply(id).expect("the request is answered at once")
    }

    fn patch(&mut self, key: &ObjectKey, patch: Patch, validation: FieldValidation) -> Result<Object, Status> {
        let options = WriteOptions { field_validation: validation, ..WriteOptions::default() };
        let (key, precondition) = (key.clone(), Precondition::default());
        let call = Call::Patch { key, patch, subresource: Subresource::None, precondition, options };
        self.answer(request(call)).map(object_in)
    }

    fn apply(&mut self, key: &ObjectKey, manager: &str, force: bool, body: Value) -> Result<Object, Status> {
        self.patch(key, Patch::Apply { body, manager: manager.to_owned(), force }, FieldValidation::Ignore)
    }
}

fn replicas(n: i32) -> Value {
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}, "spec": {"replicas": n}})
}

/// `manager/operation/subresource` of each entry.
fn managers(object: &Object) -> Vec<String> {
    let entries = object.meta().managed_fields.clone().unwrap_or_default();
    let text = |t: Option<String>| t.unwrap_or_default();
    entries.into_iter().map(|e| format!("{}/{}/{}", text(e.manager), text(e.operation), text(e.subresource))).collect()
}

#[test]
fn apply_creates_conflicts_and_takes_over() {
    let mut c = tracking();
    let web = key(Kind::DEPLOYMENT, "web");
    let made = c.apply(&web, "one", false, deployment("web", 3)).unwrap();
    assert_eq!(managers(&made), ["one/Apply/"]);
    assert_eq!(made.meta().generation, Some(1));
    // Defaults are nobody's.
    let json = made.to_json();
    assert_eq!(json["spec"]["strategy"]["type"], "RollingUpdate");
    assert_eq!(json["metadata"]["managedFields"][0]["fieldsV1"]["f:spec"].get("f:strategy"), None);

    // Once more it changes nothing.
    let again = c.apply(&web, "one", false, deployment("web", 3)).unwrap();
    assert_eq!(again, made);
    assert_eq!(c.created.len(), 1, "only the first one has created it");

    let (reason, message) = refusal(c.apply(&web, "two", false, replicas(5)));
    assert_eq!(reason, Reason::Conflict);
    assert_eq!(message, "Apply failed with 1 conflict: conflict with \"one\": .spec.replicas");
    let taken = c.apply(&web, "two", true, replicas(5)).unwrap();
    assert_eq!(managers(&taken), ["one/Apply/", "two/Apply/"]);
    assert_eq!(taken.meta().generation, Some(2));
    let (_, message) = refusal(c.apply(&web, "", false, replicas(5)));
    assert_eq!(
        message,
        "PatchOptions.meta.k8s.io \"\" is invalid: fieldManager: Required value: is required for apply patch"
    );
}

#[test]
fn plain_writes_have_managers_too() {
    let mut c = tracking();
    let web = key(Kind::DEPLOYMENT, "web");
    let object = Object::from_json(deployment("web", 3)).unwrap();
    let options = WriteOptions::default();
    let made = object_in(c.answer(by("kubectl-client-side-apply", Call::Create { object, options })).unwrap());
    assert_eq!(managers(&made), ["kubectl-client-side-apply/Update/"]);
    let scale = Call::SetScale { key: web.clone(), replicas: 4, rv: Default::default(), options };
    c.answer(by("kubectl", scale)).unwrap();
    let scaled = c.get(&web).unwrap();
    assert_eq!(managers(&scaled), ["kubectl/Update/scale", "kubectl-client-side-apply/Update/"]);
    let (_, message) = refusal(c.apply(&web, "helm", false, replicas(9)));
    assert_eq!(
        message,
        "Apply failed with 1 conflict: conflict with \"kubectl\" with subresource \"scale\" using apps/v1: .spec.replicas"
    );
    // Without a manager of its own, whoever asks is named by what the user's name begins with.
    let Object::Deployment(mut d) = scaled else { panic!("not a Deployment") };
    d.status_mut().observed_generation = Some(2);
    let status = Call::Update { object: d.into(), subresource: Subresource::Status, options };
    let user = Rc::from("controller-manager/deployment");
    let reported = object_in(c.answer(*Request::new(&user, status)).unwrap());
    assert_eq!(managers(&reported)[0], "controller-manager/Update/status");
}

#[test]
fn nothing_is_tracked_where_nobody_asked() {
    let mut c = cluster(1);
    let made = c.create(super::pod("p")).unwrap();
    let mut running = made.clone();
    set_phase(&mut running, "Running");
    let running = c.update_status(running).unwrap();
    assert_eq!(running.meta().managed_fields, None);
    assert!(Rc::ptr_eq(running.meta(), made.meta()), "a report copies no metadata");
    // From the first apply on it is.
    let labels = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "labels": {"x": "y"}}});
    let applied = c.apply(&key(Kind::POD, "p"), "me", false, labels).unwrap();
    assert_eq!(managers(&applied), ["me/Apply/", "before-first-apply/Update/"]);
    let mut renamed = applied;
    renamed.meta_mut().labels = Some([("x".to_owned(), "z".to_owned())].into());
    let renamed = c.update(renamed).unwrap();
    assert_eq!(managers(&renamed), ["before-first-apply/Update/", "test/Update/"]);
}

#[test]
fn unknown_fields_of_patches_are_minded_as_asked() {
    let mut c = cluster(1);
    c.create(deployment("web", 3)).unwrap();
    let web = key(Kind::DEPLOYMENT, "web");
    let patch = |n: i32| Patch::Merge(json!({"spec": {"foo": 1, "replicas": n}}));
    let (reason, message) = refusal(c.patch(&web, patch(4), FieldValidation::Strict));
    assert_eq!(reason, Reason::Invalid);
    assert!(message.starts_with(" \"\" is invalid: patch: Invalid value: "), "{message}");
    assert!(message.ends_with("strict decoding error: unknown field \"spec.foo\""), "{message}");
    assert!(c.warnings.is_empty());
    c.patch(&web, patch(5), FieldValidation::Warn).unwrap();
    let warned: Vec<String> = std::mem::take(&mut c.warnings).into_iter().map(|(_, text)| text).collect();
    assert_eq!(warned, ["unknown field \"spec.foo\""]);
    let patched = c.patch(&web, patch(6), FieldValidation::Ignore).unwrap().to_json();
    assert!(c.warnings.is_empty());
    assert_eq!((patched["spec"]["replicas"].as_i64(), patched["spec"].get("foo")), (Some(6), None));
}

#[test]
fn a_renewal_is_decided_alike_whether_or_not_it_shares_memory() {
    let mut c = tracking();
    let lease = |renewed: &str| {
        json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": "l", "namespace": "default"},
            "spec": {"holderIdentity": "a", "renewTime": renewed}})
    };
    let made = c.create(lease("2026-01-01T00:00:00.000000Z")).unwrap();
    let renewed = |object: &Object, seconds: u32, read_anew: bool| {
        let mut json = object.to_json();
        json["spec"]["renewTime"] = json!(format!("2026-01-01T00:00:{seconds:02}.000000Z"));
        let Object::Lease(mut own) = object.clone() else { panic!("a Lease") };
        let Object::Lease(read) = Object::from_json(json.clone()).unwrap() else { panic!("a Lease") };
        own.renewal = read.renewal;
        if read_anew { Object::Lease(read) } else { Object::Lease(own) }
    };
    c.now = c.now + std::time::Duration::from_secs(60);
    let shared = c.update(renewed(&made, 10, false)).unwrap();
    let anew = c.update(renewed(&shared, 20, true)).unwrap();
    assert!(shared.rv() < anew.rv());
    let fields = |object: &Object| object.meta().managed_fields.clone();
    assert_eq!((fields(&shared), fields(&anew)), (fields(&made), fields(&made)));
}
