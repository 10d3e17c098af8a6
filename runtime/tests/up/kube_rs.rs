//! kube-rs with a cluster: what an operator written in Rust does all day.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::io::AsyncBufReadExt;
use futures_util::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret};
use kube::api::{
    ApiResource, AttachParams, DeleteParams, DynamicObject, GroupVersionKind, ListParams, LogParams, Patch,
    PatchParams, PostParams,
};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::runtime::controller::{Action, Controller};
use kube::runtime::reflector::{self, ObjectRef};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, Config, Resource, ResourceExt};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use crate::client::{Cluster, PATIENCE};

const NAMESPACE: &str = "default";

/// Runs a client with a cluster.
fn with_cluster<F: Future<Output = ()>>(test: &str, run: impl FnOnce(Client) -> F) {
    let cluster = Cluster::start(test, &["--nodes", "2"]);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.expect("it can be made").block_on(async {
        let kubeconfig = Kubeconfig::read_from(&cluster.kubeconfig).expect("kube-rs reads it");
        let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await;
        let client = Client::try_from(config.expect("it says everything")).expect("it connects");
        timeout(PATIENCE * 2, run(client)).await.expect("it ends in time");
    });
}

fn of<K: for<'a> serde::Deserialize<'a>>(value: Value) -> K {
    serde_json::from_value(value).expect("it is of this kind")
}

fn config_map(name: &str, labels: Value) -> ConfigMap {
    of(
        json!({"apiVersion": "v1", "kind": "ConfigMap", "data": {"a": "1"}, "metadata": {"name": name, "labels": labels}}),
    )
}

async fn wait_for<T, F: Future<Output = Option<T>>>(what: &str, mut get: impl FnMut() -> F) -> T {
    let found = async {
        loop {
            match get().await {
                Some(found) => return found,
                None => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    };
    timeout(PATIENCE, found).await.unwrap_or_else(|_| panic!("{what}"))
}

#[test]
fn watchers_and_reflectors_see_every_change() {
    with_cluster("kube-rs-watch", |client| async move {
        let maps: Api<ConfigMap> = Api::namespaced(client, NAMESPACE);
        for name in ["one", "two", "three"] {
            let made = maps.create(&PostParams::default(), &config_map(name, json!({"seen": "yes"}))).await;
            made.expect("it is created");
        }
        maps.create(&PostParams::default(), &config_map("other", json!({}))).await.expect("it is created");
        // In pages, and by a list that streams.
        for config in [watcher::Config::default().page_size(2), watcher::Config::default().streaming_lists()] {
            let (reader, writer) = reflector::store();
            let events =
                reflector::reflector(writer, watcher(maps.clone(), config.labels("seen=yes"))).default_backoff();
            let mut events = Box::pin(events);
            let mut initial = Vec::new();
            loop {
                match events.try_next().await.expect("it watches").expect("it never ends") {
                    watcher::Event::Init => {}
                    watcher::Event::InitApply(map) => initial.push(map.name_any()),
                    watcher::Event::InitDone => break,
                    other => panic!("{other:?} before the list is complete"),
                }
            }
            initial.sort();
            assert_eq!(initial, ["one", "three", "two"]);
            reader.wait_until_ready().await.expect("it is there");
            let patch = Patch::Merge(json!({"data": {"a": "2"}}));
            maps.patch("two", &PatchParams::default(), &patch).await.expect("it is patched");
            maps.delete("three", &DeleteParams::default()).await.expect("it is deleted");
            let changed = events.try_next().await.expect("it watches").expect("it never ends");
            assert!(matches!(&changed, watcher::Event::Apply(map) if map.name_any() == "two"), "{changed:?}");
            let gone = events.try_next().await.expect("it watches").expect("it never ends");
            assert!(matches!(&gone, watcher::Event::Delete(map) if map.name_any() == "three"), "{gone:?}");
            let held = |name: &str| reader.get(&ObjectRef::new(name).within(NAMESPACE));
            assert_eq!(held("two").expect("it is held").data, Some([("a".to_owned(), "2".to_owned())].into()));
            assert_eq!((held("three"), held("other"), reader.state().len()), (None, None, 2));
            let patch = Patch::Merge(json!({"data": {"a": "1"}}));
            maps.patch("two", &PatchParams::default(), &patch).await.expect("it is patched");
            let again = config_map("three", json!({"seen": "yes"}));
            maps.create(&PostParams::default(), &again).await.expect("it is created");
        }
        let page = maps.list(&ListParams::default().limit(1)).await.expect("it lists");
        assert!(page.items.len() == 1 && page.metadata.continue_.is_some_and(|token| !token.is_empty()));
    });
}

/// Makes for each map a Secret with the same content.
struct Context {
    client: Client,
    runs: AtomicUsize,
}

async fn reconcile(map: Arc<ConfigMap>, context: Arc<Context>) -> Result<Action, kube::Error> {
    context.runs.fetch_add(1, Ordering::Relaxed);
    let secrets: Api<Secret> = Api::namespaced(context.client.clone(), NAMESPACE);
    let content: BTreeMap<String, String> = map.data.clone().unwrap_or_default();
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "stringData": content, "metadata":
        {"name": map.name_any(), "ownerReferences": [map.controller_owner_ref(&()).expect("it has a UID")]}});
    secrets.patch(&map.name_any(), &PatchParams::apply("copies").force(), &Patch::Apply(secret)).await?;
    Ok(Action::requeue(Duration::from_secs(2)))
}

#[test]
fn a_controller_keeps_what_its_objects_own() {
    with_cluster("kube-rs-controller", |client| async move {
        let maps: Api<ConfigMap> = Api::namespaced(client.clone(), NAMESPACE);
        let secrets: Api<Secret> = Api::namespaced(client.clone(), NAMESPACE);
        let context = Arc::new(Context { client, runs: AtomicUsize::new(0) });
        let controller = Controller::new(maps.clone(), watcher::Config::default().labels("copy=yes"))
            .owns(secrets.clone(), watcher::Config::default())
            .run(reconcile, |_, _, _| Action::requeue(Duration::from_millis(200)), Arc::clone(&context))
            .for_each(|result| async move { drop(result.expect("it reconciles")) });
        let running = tokio::spawn(controller);
        let map = maps.create(&PostParams::default(), &config_map("m", json!({"copy": "yes"}))).await;
        let map = map.expect("it is created");
        let value = |secret: Option<Secret>| Some(String::from_utf8(secret?.data?.remove("a")?.0).expect("it is text"));
        let get = || async { value(secrets.get_opt("m").await.expect("it is read")) };
        assert_eq!(wait_for("the secret is made", get).await, "1");
        let first = secrets.get("m").await.expect("it is there");
        assert_eq!(first.owner_references()[0].uid, map.uid().expect("it has one"));

        // What is deleted is made again, and a change is followed.
        secrets.delete("m", &DeleteParams::default()).await.expect("it is deleted");
        let other = || async { secrets.get_opt("m").await.expect("it is read").filter(|s| s.uid() != first.uid()) };
        wait_for("the secret is made again", other).await;
        let patch = Patch::Merge(json!({"data": {"a": "2"}}));
        maps.patch("m", &PatchParams::default(), &patch).await.expect("it is patched");
        wait_for("the change is copied", || async { get().await.filter(|value| value == "2") }).await;
        // Nothing changes any more, and it comes back by itself.
        let before = context.runs.load(Ordering::Relaxed);
        let later = || async { (context.runs.load(Ordering::Relaxed) > before + 1).then_some(()) };
        wait_for("it comes back by itself", later).await;

        maps.delete("m", &DeleteParams::default()).await.expect("it is deleted");
        let gone = || async { secrets.get_opt("m").await.expect("it is read").is_none().then_some(()) };
        wait_for("the secret goes with its owner", gone).await;
        running.abort();
    });
}

#[test]
fn managers_of_one_field_conflict() {
    with_cluster("kube-rs-apply", |client| async move {
        let maps: Api<ConfigMap> = Api::namespaced(client.clone(), NAMESPACE);
        let apply = |manager: &str, colour: &str, force: bool| {
            let params = PatchParams { force, ..PatchParams::apply(manager) };
            let map =
                json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m"}, "data": {"colour": colour}});
            let maps = maps.clone();
            async move { maps.patch("m", &params, &Patch::Apply(map)).await }
        };
        apply("one", "red", false).await.expect("it is applied");
        let Err(kube::Error::Api(refused)) = apply("two", "blue", false).await else { panic!("a conflict") };
        assert_eq!((refused.code, refused.reason.as_str()), (409, "Conflict"));
        assert!(refused.message.contains("conflict with \"one\": .data.colour"), "{}", refused.message);
        let taken = apply("two", "blue", true).await.expect("it is forced");
        let managers: Vec<_> = taken.managed_fields().iter().filter_map(|entry| entry.manager.as_deref()).collect();
        assert_eq!(managers, ["two"]);
        // What is missing in what was read last is no reason to overwrite what somebody else wrote since.
        let mut stale = taken;
        apply("two", "green", false).await.expect("it is applied");
        stale.data = None;
        let Err(kube::Error::Api(refused)) = maps.replace("m", &PostParams::default(), &stale).await else {
            panic!("old")
        };
        assert!(refused.message.contains("the object has been modified"), "{}", refused.message);

        // A custom resource that no type describes.
        let definition = json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
            "metadata": {"name": "boats.example.com"}, "spec": {"group": "example.com", "scope": "Namespaced",
                "names": {"plural": "boats", "kind": "Boat"}, "versions": [{"name": "v1", "served": true,
                    "storage": true,
                    "subresources": {"status": {}}, "schema": {"openAPIV3Schema": {"type": "object",
                        "x-kubernetes-preserve-unknown-fields": true}}}]}});
        let kind = |group: &str, version: &str, kind: &str| {
            ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind))
        };
        let definitions: Api<DynamicObject> =
            Api::all_with(client.clone(), &kind("apiextensions.k8s.io", "v1", "CustomResourceDefinition"));
        definitions.create(&PostParams::default(), &of(definition)).await.expect("it is created");
        let boats: Api<DynamicObject> = Api::namespaced_with(client, NAMESPACE, &kind("example.com", "v1", "Boat"));
        let boat =
            json!({"apiVersion": "example.com/v1", "kind": "Boat", "metadata": {"name": "b"}, "spec": {"length": 3}});
        let made = || async { boats.patch("b", &PatchParams::apply("one"), &Patch::Apply(&boat)).await.ok() };
        wait_for("the definition is established", made).await;
        let status = Patch::Merge(json!({"status": {"afloat": true}}));
        let floats = boats.patch_status("b", &PatchParams::default(), &status).await.expect("it is patched");
        assert_eq!((&floats.data["status"]["afloat"], floats.metadata.generation), (&json!(true), Some(1)));
    });
}

#[test]
fn streams_reach_into_containers() {
    with_cluster("kube-rs-streams", |client| async move {
        let pods: Api<Pod> = Api::namespaced(client, NAMESPACE);
        let script = "echo first; sleep 1; echo second; sleep 1000";
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": {"containers": [
            {"name": "c", "image": "busybox", "command": ["sh", "-c", script], "ports": [{"containerPort": 80}]}]}});
        let account = || async { pods.create(&PostParams::default(), &of(pod.clone())).await.ok() };
        wait_for("the pod is created", account).await;
        let ready = kube::runtime::conditions::is_pod_running();
        let running = kube::runtime::wait::await_condition(pods.clone(), "p", ready).await;
        running.expect("it is watched");

        let follow = LogParams { follow: true, ..LogParams::default() };
        let mut lines = pods.log_stream("p", &follow).await.expect("it is read").lines();
        for want in ["first", "second"] {
            assert_eq!(lines.try_next().await.expect("it goes on").as_deref(), Some(want));
        }
        assert_eq!(pods.logs("p", &LogParams::default()).await.expect("it is read"), "first\nsecond\n");

        let params = AttachParams::default().stdin(true);
        let mut process = pods.exec("p", ["sh", "-c", "cat; echo wrong >&2; exit 3"], &params).await.expect("it runs");
        let mut stdin = process.stdin().expect("it was asked for");
        stdin.write_all(b"typed\n").await.expect("it is written");
        stdin.shutdown().await.expect("it ends");
        drop(stdin);
        let (mut out, mut err) = (String::new(), String::new());
        process.stdout().expect("it is there").read_to_string(&mut out).await.expect("it is text");
        process.stderr().expect("it is there").read_to_string(&mut err).await.expect("it is text");
        assert_eq!((out.as_str(), err.as_str()), ("typed\n", "wrong\n"));
        let status = process.take_status().expect("it is there").await.expect("it is told");
        assert_eq!(status.reason.as_deref(), Some("NonZeroExitCode"), "{status:?}");

        let mut forwarded = pods.portforward("p", &[80]).await.expect("it connects");
        let mut stream = forwarded.take_stream(80).expect("it was asked for");
        stream.write_all(b"GET / HTTP/1.0\r\n\r\n").await.expect("it is written");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("it answers");
        assert!(answer.contains("container c of pod default/p, port 80"), "{answer}");

        let debug = Patch::Strategic(json!({"spec": {"ephemeralContainers": [
            {"name": "d", "image": "busybox", "targetContainerName": "c", "command": ["sleep", "1000"]}]}}));
        pods.patch_ephemeral_containers("p", &PatchParams::default(), &debug).await.expect("it is added");
        let inside = AttachParams::default().container("d");
        let echo = || async { pods.exec("p", ["echo", "here"], &inside).await.ok() };
        let mut process = wait_for("the ephemeral container runs", echo).await;
        let mut out = String::new();
        process.stdout().expect("it is there").read_to_string(&mut out).await.expect("it is text");
        assert_eq!(out, "here\n");
    });
}
