//! Create, update, patch, scale, leases, fences, and two servers that write at the same time.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::{
    Cluster, cluster, config_map, deployment, fenced, key, object_in, pod, refusal, request, set_data, set_phase,
};
use crate::api::{
    Call, DeleteOptions, FieldValidation, Patch, Precondition, Reason, Response, Subresource, WriteOptions,
};
use crate::limits;
use crate::object::{Kind, Object, ObjectKey, RenewTime, Revision};

const DRY: WriteOptions = WriteOptions { dry_run: true, field_validation: FieldValidation::Ignore };

#[test]
fn certificates_are_approved_apart_from_their_status() {
    let pem = |type_: &str| STANDARD.encode(format!("-----BEGIN {type_}-----\nMAA=\n-----END {type_}-----\n"));
    let mut c = cluster(1);
    let request = json!({"apiVersion": "certificates.k8s.io/v1", "kind": "CertificateSigningRequest",
        "metadata": {"name": "r"}, "spec": {"request": pem("CERTIFICATE REQUEST"), "signerName": "example.com/s",
            "usages": ["client auth"]}});
    let made = c.create(request).unwrap();
    let with = |object: &Object, status: serde_json::Value| {
        let mut value = object.to_json();
        value["status"] = status;
        value["spec"]["signerName"] = json!("example.com/other");
        Object::from_json(value).unwrap()
    };
    let condition = |type_: &str| json!({"type": type_, "status": "True", "reason": "r"});
    let certificate = pem("CERTIFICATE");
    let mut asked = with(&made, json!({"conditions": [condition("Approved")], "certificate": certificate}));
    asked.meta_mut().annotations = Some([("by".to_owned(), "me".to_owned())].into());
    let approved = c.update_at(0, asked, Subresource::Approval).unwrap();
    let value = approved.to_json();
    assert_eq!(value["spec"]["signerName"], "example.com/s");
    assert_eq!(value["metadata"]["annotations"], json!({"by": "me"}));
    assert_eq!(
        (&value["status"]["conditions"][0]["type"], value["status"].get("certificate")),
        (&json!("Approved"), None)
    );
    assert!(value["status"]["conditions"][0]["lastUpdateTime"].is_string());
    let denied = with(&approved, json!({"conditions": [condition("Denied")]}));
    let refused = c.update_status(denied).unwrap_err().message;
    assert!(refused.contains("updates may not add a condition of type \"Denied\""), "{refused}");
    let forgotten = with(&approved, json!({"conditions": [condition("Failed")], "certificate": certificate}));
    let refused = c.update_status(forgotten).unwrap_err().message;
    assert!(refused.contains("updates may not remove a condition of type \"Approved\""), "{refused}");
    let mut other = condition("Approved");
    other["reason"] = json!("other");
    let signed = with(&approved, json!({"conditions": [other, condition("Failed")], "certificate": certificate}));
    let signed = c.update_status(signed).unwrap().to_json();
    assert_eq!(signed["status"]["conditions"][0], approved.to_json()["status"]["conditions"][0]);
    let types: Vec<_> = signed["status"]["conditions"].as_array().unwrap().iter().map(|c| &c["type"]).collect();
    assert_eq!((json!(types), &signed["status"]["certificate"]), (json!(["Approved", "Failed"]), &json!(certificate)));
    let plain = c.create(config_map("a")).unwrap();
    assert!(c.update_at(0, plain, Subresource::Approval).is_err(), "nothing else is approved");
}

#[test]
fn create_stamps_and_refuses() {
    let mut c = cluster(1);
    let made = c.create(deployment("a", 1)).unwrap();
    let meta = made.meta();
    assert_eq!((meta.generation, meta.uid.as_ref().map(String::len)), (Some(1), Some(36)));
    assert_eq!(meta.creation_timestamp, Some(c.now.wall.to_time()));
    assert_eq!(made.rv(), c.store.revision());
    assert_eq!(c.get(&made.key()), Some(made));

    let mut with_rv = config_map("x");
    with_rv["metadata"]["resourceVersion"] = json!("7");
    let mut nameless = config_map("");
    nameless["metadata"] = json!({"namespace": "default"});
    let mut homeless = config_map("x");
    homeless["metadata"] = json!({"name": "x"});
    let mut lost = config_map("x");
    lost["metadata"]["namespace"] = json!("nowhere");
    for (manifest, reason, text) in [
        (deployment("a", 1), Reason::AlreadyExists, "deployments.apps \"a\" already exists"),
        (with_rv, Reason::BadRequest, "resourceVersion should not be set on objects to be created"),
        (
            nameless,
            Reason::Invalid,
            "ConfigMap \"\" is invalid: metadata.name: Required value: name or generateName is required",
        ),
        (homeless, Reason::BadRequest, "an empty namespace may not be set during creation"),
        (lost, Reason::NotFound, "namespaces \"nowhere\" not found"),
    ] {
        assert_eq!(refusal(c.create(manifest)), (reason, text.to_owned()));
    }
}

#[test]
fn generated_names_avoid_what_is_taken() {
    let mut c = cluster(1);
    let mut manifest = config_map("");
    manifest["metadata"] = json!({"generateName": "a-", "namespace": "default"});
    let names: Vec<String> = (0..5).map(|_| c.create(manifest.clone()).unwrap().name().to_owned()).collect();
    for (i, name) in names.iter().enumerate() {
        assert!(name.starts_with("a-") && name.len() == 7 && !names[..i].contains(name), "{names:?}");
    }
}

#[test]
fn status_and_spec_are_written_apart() {
    let mut c = cluster(1);
    let made = c.create(deployment("a", 1)).unwrap();
    let mut both = made.clone();
    let Object::Deployment(d) = &mut both else { panic!() };
    d.spec_mut().replicas = Some(5);
    d.status_mut().replicas = Some(3);
    d.meta_mut().annotations = Some([("k".to_owned(), "v".to_owned())].into());
    d.meta_mut().uid = None;

    let after = c.update(both.clone()).unwrap();
    let Object::Deployment(d) = &after else { panic!() };
    assert_eq!((d.spec.replicas, d.status.replicas, d.meta.generation), (Some(5), None, Some(2)));
    assert_eq!(d.meta.uid, made.meta().uid);

    both.set_rv(after.rv());
    let Object::Deployment(d) = &mut both else { panic!() };
    d.spec_mut().replicas = Some(7);
    d.meta_mut().labels = Some([("k".to_owned(), "v".to_owned())].into());
    let after = c.update_status(both).unwrap();
    let Object::Deployment(d) = &after else { panic!() };
    assert_eq!((d.spec.replicas, d.status.replicas, d.meta.generation), (Some(5), Some(3), Some(2)));
    assert_eq!(d.meta.labels, None, "the labels of a Deployment don't come with its status");
}

#[test]
fn a_renewal_shares_all_else_and_may_come_from_anybody() {
    let mut c = cluster(1);
    let manifest = json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "spec": {"holderIdentity": "n"},
        "metadata": {"name": "l", "namespace": "default"}});
    let made = c.create(manifest).unwrap();
    let Object::Lease(lease) = &made else { panic!("a Lease") };
    let mut renewed = lease.clone();
    renewed.renewal = RenewTime::of(c.now.wall);
    let after = c.update(renewed.into()).unwrap();
    assert!(after.shares_parts(&made) && after.rv() > made.rv());
    assert_eq!(c.get(&made.key()), Some(after.clone()), "it is stored");
    assert_eq!(c.update(after.clone()).unwrap().rv(), after.rv(), "nothing new is no change");

    // Objects that a client sends over the wire share no parts with stored ones.
    let mut body = after.to_json();
    body["spec"]["renewTime"] = json!("2031-01-01T00:00:00.000007Z");
    let last = c.update(Object::from_json(body.clone()).unwrap()).unwrap();
    assert_eq!((&last.to_json()["spec"], last.rv().0), (&body["spec"], after.rv().0 + 1));
    assert_eq!(refusal(c.update(after)).0, Reason::Conflict, "a renewal expects its base");
}

#[test]
fn updates_expect_their_base() {
    let mut c = cluster(1);
    let first = c.create(config_map("a")).unwrap();
    let mut second = first.clone();
    set_data(&mut second, "2");
    let second = c.update(second).unwrap();
    let mut stale = first.clone();
    set_data(&mut stale, "3");
    let text = "Operation cannot be fulfilled on configmaps \"a\": the object has been modified; please apply your \
                changes to the latest version and try again";
    assert_eq!(refusal(c.update(stale.clone())), (Reason::Conflict, text.to_owned()));
    stale.set_rv(Revision(0));
    let third = c.update(stale.clone()).unwrap();
    assert!(third.rv() > second.rv());
    stale.meta_mut().uid = Some("other".to_owned());
    assert_eq!(refusal(c.update(stale)).0, Reason::Conflict);
    let mut absent = first;
    absent.meta_mut().name = Some("b".to_owned());
    assert_eq!(refusal(c.update(absent)), (Reason::NotFound, "configmaps \"b\" not found".to_owned()));
}

#[test]
fn what_changes_nothing_writes_nothing() {
    let mut c = cluster(1);
    let made = c.create(deployment("a", 1)).unwrap();
    let before = c.store.revision();
    assert_eq!(c.update(made.clone()).unwrap(), made);
    assert_eq!(c.update_status(made.clone()).unwrap(), made);
    let call = patch_call(&made, json!({"spec": {"replicas": 1}}));
    assert_eq!(object_in(c.call(call).unwrap()), made);
    assert_eq!(c.store.revision(), before);
}

#[test]
fn dry_runs_answer_and_write_nothing() {
    let mut c = cluster(1);
    let made = c.create(config_map("a")).unwrap();
    let before = c.store.revision();
    let object = Object::from_json(config_map("b")).unwrap();
    assert_eq!(object_in(c.call(Call::Create { object, options: DRY }).unwrap()).name(), "b");
    let object = Object::from_json(config_map("a")).unwrap();
    assert_eq!(refusal(c.call(Call::Create { object, options: DRY })).0, Reason::AlreadyExists);
    let mut changed = made;
    set_data(&mut changed, "2");
    let call = Call::Update { object: changed, subresource: Subresource::None, options: DRY };
    assert_eq!(object_in(c.call(call).unwrap()).to_json()["data"]["k"], "2");
    assert_eq!(c.store.revision(), before);
}

fn patch_call(object: &Object, body: Value) -> Call {
    Call::Patch {
        key: object.key(),
        patch: Patch::Merge(body),
        subresource: Subresource::None,
        precondition: Precondition::default(),
        options: WriteOptions::default(),
    }
}

#[test]
fn patches_apply_to_what_is_there() {
    let mut c = cluster(1);
    let made = c.create(deployment("a", 1)).unwrap();
    let patched = object_in(c.call(patch_call(&made, json!({"spec": {"replicas": 4}}))).unwrap());
    let (Object::Deployment(new), Object::Deployment(old)) = (&patched, &made) else { panic!() };
    assert_eq!((new.spec.replicas, new.meta.generation), (Some(4), Some(2)));
    assert!(new.spec.pod.is_held_as(&old.spec.pod), "an untouched pod spec stays shared");
    for (body, reason) in [
        (json!({"metadata": {"resourceVersion": made.rv().to_string()}}), Reason::Conflict),
        (json!({"metadata": {"uid": "other"}}), Reason::Conflict),
        (json!({"metadata": {"name": "b"}}), Reason::BadRequest),
    ] {
        assert_eq!(refusal(c.call(patch_call(&made, body.clone()))).0, reason, "{body}");
    }
}

#[test]
fn scale_reads_and_writes_replicas() {
    let mut c = cluster(1);
    let sts = json!({"apiVersion":"apps/v1","kind":"StatefulSet","metadata":{"name":"s","namespace":"default"},
        "spec":{"replicas":1,"serviceName":"s","selector":{"matchLabels":{"app":"db"}},
        "template":{"metadata":{"labels":{"app":"db"}},"spec":{"containers":[{"name":"c","image":"i"}]}}}});
    for made in [c.create(deployment("a", 2)).unwrap(), c.create(sts).unwrap()] {
        let set = |replicas, rv| Call::SetScale { key: made.key(), replicas, rv, options: WriteOptions::default() };
        let scale = |c: &mut Cluster, call| match c.call(call).unwrap() {
            Response::Scale(scale) => *scale,
            other => panic!("{other:?} instead of a scale"),
        };
        let grown = scale(&mut c, set(5, made.rv()));
        assert_eq!((grown.replicas, grown.rv), (5, c.store.revision()));
        assert_eq!(refusal(c.call(set(6, made.rv()))).0, Reason::Conflict);
        assert_eq!(refusal(c.call(set(-1, Revision(0)))).0, Reason::Invalid);
        let read = scale(&mut c, Call::GetScale { key: made.key() });
        assert!(read.replicas == 5 && read.selector.starts_with("app="), "{read:?}");
        assert_eq!(c.get(&made.key()).unwrap().meta().generation, Some(2));
        let mut patch = patch_call(&made, json!({"spec": {"replicas": 6}}));
        if let Call::Patch { subresource, .. } = &mut patch {
            *subresource = Subresource::Scale;
        }
        assert_eq!(scale(&mut c, patch).replicas, 6);
    }
    let made = c.create(config_map("x")).unwrap();
    assert_eq!(refusal(c.call(Call::GetScale { key: made.key() })).0, Reason::MethodNotAllowed);
}

fn lease(holder: &str) -> Object {
    let manifest = json!({"apiVersion":"coordination.k8s.io/v1","kind":"Lease",
        "metadata":{"name":"kube-scheduler","namespace":"kube-system"},
        "spec":{"holderIdentity":holder,"leaseDurationSeconds":15}});
    Object::from_json(manifest).unwrap()
}

fn renew(c: &mut Cluster, object: &Object, holder: &str, seconds: i32) -> Object {
    let mut object = object.clone();
    let Object::Lease(l) = &mut object else { panic!() };
    l.spec_mut().holder_identity = Some(holder.to_owned());
    l.spec_mut().lease_duration_seconds = Some(seconds);
    c.update(object).unwrap()
}

#[test]
fn a_fence_holds_as_long_as_the_leader() {
    let mut c = cluster(1);
    let options = WriteOptions::default();
    let acquired = object_in(c.call(Call::Create { object: lease("a"), options }).unwrap());
    let (election, epoch) = (acquired.key(), acquired.rv());
    let mut n = 0;
    let mut write = |c: &mut Cluster| {
        n += 1;
        let object = Object::from_json(config_map(&format!("c{n}"))).unwrap();
        let id = c.send(0, fenced(Call::Create { object, options }, &election, epoch));
        c.reply(id).unwrap()
    };
    write(&mut c).unwrap();
    let renewed = renew(&mut c, &acquired, "a", 16);
    write(&mut c).expect("a renewal is not an acquisition");
    let taken = renew(&mut c, &renewed, "b", 16);
    let status = write(&mut c).unwrap_err();
    assert!(status.is_fenced(), "{status}");
    assert_eq!(
        &*status.message,
        "Operation cannot be fulfilled on configmaps \"c3\": leadership of lease \"kube-system/kube-scheduler\" was lost"
    );
    renew(&mut c, &taken, "a", 16);
    assert!(write(&mut c).unwrap_err().is_fenced(), "the same leader again is another epoch");
}

#[test]
fn deleting_the_lease_ends_the_lead() {
    let mut c = cluster(1);
    let options = WriteOptions::default();
    let acquired = object_in(c.call(Call::Create { object: lease("a"), options }).unwrap());
    c.delete(&acquired.key(), Default::default()).unwrap();
    let object = Object::from_json(config_map("c")).unwrap();
    let id = c.send(0, fenced(Call::Create { object, options }, &acquired.key(), acquired.rv()));
    assert!(c.reply(id).unwrap().unwrap_err().is_fenced());
}

#[test]
fn a_lagging_server_decides_on_what_the_store_says() {
    let mut c = cluster(2);
    let first = c.create(config_map("a")).unwrap();
    c.lagging[1] = true;
    let mut second = first.clone();
    set_data(&mut second, "2");
    let second = c.update(second).unwrap();
    let other = c.create(config_map("b")).unwrap();

    // What the lagging server has not seen: a newer base revision, an object, a name in use.
    let mut third = second;
    set_data(&mut third, "3");
    let third = c.update_at(1, third, Subresource::None).unwrap();
    let mut changed = other;
    set_data(&mut changed, "b2");
    c.update_at(1, changed, Subresource::None).unwrap();
    assert_eq!(refusal(c.create_at(1, config_map("b"))).0, Reason::AlreadyExists);
    let mut stale = first;
    set_data(&mut stale, "x");
    assert_eq!(refusal(c.update_at(1, stale.clone(), Subresource::None)).0, Reason::Conflict);
    let patched = c.call_at(1, patch_call(&third, json!({"data": {"l": "w"}}))).map(object_in).unwrap();
    assert_eq!(patched.to_json()["data"], json!({"k": "3", "l": "w"}));
    // An object that is gone conflicts with nothing, though the server's cache has it at a later revision.
    c.delete(&stale.key(), DeleteOptions::default()).unwrap();
    assert_eq!(refusal(c.update_at(1, stale, Subresource::None)).0, Reason::NotFound);
    assert!(c.servers[1].revision() < c.servers[0].revision());
    c.catch_up(1);
    assert_eq!(c.servers[1].revision(), c.store.revision());
}

#[test]
fn a_namespace_that_the_cache_has_not_seen_is_looked_up() {
    let mut c = cluster(2);
    c.lagging[1] = true;
    c.create(json!({"apiVersion":"v1","kind":"Namespace","metadata":{"name":"new"}})).unwrap();
    let mut manifest = config_map("a");
    manifest["metadata"]["namespace"] = json!("new");
    c.create_at(1, manifest).unwrap();
}

#[test]
fn concurrent_patches_all_count() {
    let mut c = cluster(2);
    let made = c.create(config_map("a")).unwrap();
    c.lagging = vec![true, true];
    for i in 0..6 {
        let call = patch_call(&made, json!({"data": {format!("k{i}"): "v"}}));
        c.call_at(i % 2, call).unwrap();
    }
    let data = c.get(&made.key()).unwrap().to_json()["data"].clone();
    assert_eq!(data.as_object().unwrap().len(), 7);
}

#[test]
fn events_live_for_an_hour() {
    let mut c = cluster(1);
    let event = |name: &str| {
        json!({"apiVersion":"v1","kind":"Event","metadata":{"name":name,"namespace":"default"},
        "involvedObject":{"kind":"Pod","name":"p","namespace":"default"},"reason":"Testing"})
    };
    c.create(event("a")).unwrap();
    c.tick(30);
    c.create(event("b")).unwrap();
    c.tick(limits::EVENT_TTL.as_secs() - 60);
    let names = |c: &mut Cluster| c.list_at(0, Kind::EVENT, Default::default()).unwrap();
    assert_eq!(names(&mut c), ["a", "b"]);
    c.tick(120);
    assert!(names(&mut c).is_empty());
}

#[test]
fn equal_parts_are_stored_once() {
    let mut c = cluster(1);
    let made = c.running_pod("a", "n1");
    // An object from the wire is a separate copy of the stored one.
    let mut copy = Object::from_json(made.to_json()).unwrap();
    set_phase(&mut copy, "Failed");
    c.update_status(copy).unwrap();
    let mut copy = Object::from_json(c.get(&made.key()).unwrap().to_json()).unwrap();
    copy.meta_mut().annotations = Some([("k".to_owned(), "v".to_owned())].into());
    c.update(copy).unwrap();
    let (Object::Pod(old), Some(Object::Pod(new))) = (&made, c.get(&made.key())) else { panic!() };
    assert!(old.spec.shared.is_held_as(&new.spec.shared));
}

#[test]
fn what_a_server_is_not_told_it_does_not_know() {
    let mut c = cluster(1);
    let made = c.create(pod("a")).unwrap();
    let call = Call::Update { object: made.clone(), subresource: Subresource::Finalize, options: DRY };
    assert_eq!(refusal(c.call(call)).0, Reason::MethodNotAllowed);
    let id = c.send(0, request(Call::Get { key: key(Kind::POD, "b"), rv: Some(Revision(0)) }));
    assert_eq!(refusal(c.reply(id).unwrap()), (Reason::NotFound, "pods \"b\" not found".to_owned()));
    let odd = ObjectKey::new(Kind::LEASE, "default", "x");
    assert_eq!(c.get(&odd), None);
}
