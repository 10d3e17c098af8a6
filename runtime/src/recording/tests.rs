//! Whole clusters that are recorded in virtual time and replayed, recordings that were changed or damaged, and what is
//! secret.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hyper::Method;
use serde::Serialize;
use serde_json::{Value, json};
use skeg_core::agent::{self, AgentConfig, NodeAgent, RuntimeCommand, RuntimeEvent};
use skeg_core::api::{Call, FromServer, ReqId, Request, Response, Status, ToServer, WriteOptions};
use skeg_core::apiserver::{self, ConnId};
use skeg_core::controllers::{ControllerManager, ManagerConfig};
use skeg_core::scheduler::{self, SchedulerConfig, SchedulerProcess};
use skeg_core::store::{self, MemoryStore, StoreClient};
use skeg_core::{Kinds, Machine, Mono, Now, Object, Revision, Rng, Wall};

use super::format::{FORMAT, Of};
use super::replay::{Replayed, all};
use super::secrets::Secrets;
use super::tape::{Tape, Track};
use super::writer::begin;
use crate::up::testing::tests::ask;
use crate::up::testing::{Service, TestCluster};

const DEFAULT: &str = "/api/v1/namespaces/default";
const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";
const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
const WIDGETS: &str = "/apis/example.com/v1/namespaces/default/widgets";
/// What no recording may hold.
const SECRET: &str = "s3cr3t-";

/// An empty directory for one test.
fn scratch(test: &str) -> PathBuf {
    let dir = std::env::temp_dir().join(format!("skeg-recording-{test}-{}", std::process::id()));
    if dir.exists() {
        std::fs::remove_dir_all(&dir).expect("it is ours");
    }
    std::fs::create_dir_all(&dir).expect("it can be made");
    dir
}

/// The files of the recordings in a directory.
fn files(dir: &Path) -> Vec<PathBuf> {
    let entries = |dir: &Path| std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect::<Vec<_>>();
    let mut all: Vec<PathBuf> = entries(dir).iter().flat_map(|dir| entries(dir)).collect();
    all.sort();
    all
}

fn definition() -> Value {
    let schema = json!({"openAPIV3Schema": {"type": "object", "properties": {"spec": {"type": "object",
        "properties": {"n": {"type": "number"}}}}}});
    json!({"metadata": {"name": "widgets.example.com"}, "spec": {"group": "example.com", "scope": "Namespaced",
        "names": {"plural": "widgets", "kind": "Widget"},
        "versions": [{"name": "v1", "served": true, "storage": true, "schema": schema}]}})
}

/// One thing that a user does, drawn from a stream.
async fn act(service: &mut Service, rng: &mut Rng, n: u64) {
    let template = |image: &str| {
        let spec = json!({"containers": [{"name": "c", "image": image,
            "env": [{"name": "E", "valueFrom": {"secretKeyRef": {"name": "s0", "key": "k"}}}]}]});
        json!({"metadata": {"labels": {"app": "x"}}, "spec": spec})
    };
    let some = |rng: &mut Rng, kind: &str| format!("{kind}{}", rng.below(4));
    let spec = json!({"replicas": rng.below(4), "selector": {"matchLabels": {"app": "x"}},
        "template": template(&format!("i:{}", rng.below(3)))});
    let secret = format!("{SECRET}{n}");
    let (method, path, body) = match rng.below(10) {
        0 | 1 => (Method::POST, DEPLOYMENTS.to_owned(), json!({"metadata": {"name": some(rng, "d")}, "spec": spec})),
        2 | 3 => (Method::PUT, format!("{DEPLOYMENTS}/{}", some(rng, "d")), json!({"metadata": {}, "spec": spec})),
        4 => (Method::DELETE, format!("{DEPLOYMENTS}/{}", some(rng, "d")), json!({})),
        5 => {
            let data = json!({"k": secret, "json": format!("{{\"{SECRET}\":{n}}}")});
            (
                Method::POST,
                format!("{DEFAULT}/secrets"),
                json!({"metadata": {"name": some(rng, "s")}, "stringData": data}),
            )
        }
        6 => {
            let data = json!({"k": STANDARD.encode(&secret), "wrong": format!("{SECRET}!")});
            (Method::PUT, format!("{DEFAULT}/secrets/{}", some(rng, "s")), json!({"metadata": {}, "data": data}))
        }
        7 => {
            let annotations = json!({"kubernetes.io/service-account.name": "default"});
            let metadata = json!({"name": some(rng, "t"), "annotations": annotations});
            let body = json!({"metadata": metadata, "type": "kubernetes.io/service-account-token"});
            (Method::POST, format!("{DEFAULT}/secrets"), body)
        }
        8 => {
            let body = json!({"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": some(rng, "w")},
                "spec": {"n": 0.1, "unknown": true}});
            (Method::POST, WIDGETS.to_owned(), body)
        }
        _ => (Method::DELETE, format!("{DEFAULT}/secrets/{}", some(rng, "s")), json!({})),
    };
    ask(service, method, &path, Some(body)).await;
}

/// Records a cluster whose users do things that are drawn by this seed.
fn record(dir: &Path, seed: u64, acts: u64) {
    let builder = TestCluster::builder().nodes(2).seed(seed).record(dir);
    let ended = builder.run(|cluster| async move {
        let (mut service, mut rng) = (cluster.service(), Rng::stream(seed, "users", 0));
        ask(&mut service, Method::POST, DEFINITIONS, Some(definition())).await;
        for n in 0..acts {
            act(&mut service, &mut rng, n).await;
            tokio::time::sleep(Duration::from_millis(rng.below(3000))).await;
        }
    });
    ended.expect("nothing is judged");
}

fn replay(dir: &Path) -> Replayed {
    all(dir).expect("it can be read")
}

#[test]
fn machines_decide_again_what_they_decided() {
    for seed in 0..3 {
        let dir = scratch(&format!("again-{seed}"));
        record(&dir, seed, 60);
        let result = replay(&dir);
        assert_eq!((result.diverged(), &result.first), (0, &None), "seed {seed}");
        assert!(result.excused.is_empty() && result.notes.is_empty(), "seed {seed}: {result:?}");
        let names: Vec<&str> = result.machines.iter().map(|machine| machine.machine.as_str()).collect();
        assert_eq!(names, ["controller-manager", "scheduler", "agent node-0", "agent node-1", "api-server"]);
        let few = result.machines.iter().find(|machine| machine.inputs < 50 || machine.decisions < 20);
        assert_eq!(few, None, "seed {seed}");
        let text: String = files(&dir).iter().map(|path| std::fs::read_to_string(path).expect("text")).collect();
        assert!(text.contains("\"Secret\"") && text.contains("widgets.example.com"), "seed {seed}");
        let encoded = STANDARD.encode(SECRET);
        let found = [SECRET, encoded.trim_end_matches('=')].into_iter().find(|secret| text.contains(&**secret));
        assert_eq!(found, None, "seed {seed}");
        std::fs::remove_dir_all(&dir).expect("it is ours");
    }
}

#[test]
fn a_decision_that_was_changed_is_seen() {
    let dir = scratch("changed");
    record(&dir, 7, 10);
    let path = &files(&dir)[0];
    let whole = std::fs::read_to_string(path).expect("it is text");
    let check = |change: &dyn Fn(&mut Value) -> bool, want: &str| {
        let mut done = false;
        let mut lines: Vec<String> = Vec::new();
        for line in whole.lines() {
            let mut value: Value = serde_json::from_str(line).expect("lines are JSON");
            let changed = !done && change(&mut value["step"]);
            done |= changed;
            lines.push(if changed { value.to_string() } else { line.to_owned() });
        }
        assert!(done, "{want}: there is nothing to change");
        std::fs::write(path, lines.join("\n") + "\n").expect("it is ours");
        let result = replay(&dir);
        let first = result.first.as_ref().expect(want);
        assert_eq!(result.diverged(), 1, "{want}: {first:?}");
        assert!(first.recorded.contains(want) || first.now.contains(want), "{want}: {first:?}");
        assert!(!first.inputs.is_empty(), "{first:?}");
    };
    check(&|step| step["out"].as_array_mut().is_some_and(|out| out.pop().is_some()), "nothing more");
    let wakes = |step: &mut Value| match step["next"].as_u64() {
        Some(next) => {
            step["next"] = json!(next + 1);
            true
        }
        None => false,
    };
    check(&wakes, "to be woken at");
    let said = |step: &mut Value| match step.pointer_mut("/out/0/whole/Store/1/Txn/success/0/Put/key/Object") {
        Some(key) => {
            *key = json!("pods:default/another");
            true
        }
        None => false,
    };
    check(&said, "pods:default/another");
    let digested = |step: &mut Value| match step.pointer_mut("/out/0/digest/digest") {
        Some(digest) => {
            *digest = json!("0");
            true
        }
        None => false,
    };
    check(&digested, "by digest");
    std::fs::remove_dir_all(&dir).expect("it is ours");
}

#[test]
fn what_follows_from_a_value_is_excused_and_listed() {
    let dir = scratch("excused");
    record(&dir, 3, 30);
    let path = &files(&dir)[0];
    let whole = std::fs::read_to_string(path).expect("it is text");
    let mut lines: Vec<String> = Vec::new();
    let mut changed = 0;
    for line in whole.lines() {
        let mut value: Value = serde_json::from_str(line).expect("lines are JSON");
        let step = &mut value["step"];
        let hidden = (step["hidden"][0][0].as_u64(), step["hidden"][0][1].as_str().map(str::to_owned));
        if let (0, (Some(n), Some(place))) = (changed, hidden)
            && let Some(at) = step.pointer_mut(&format!("/out/{n}/whole{place}"))
        {
            *at = json!("another");
            changed += 1;
            lines.push(value.to_string());
        } else {
            lines.push(line.to_owned());
        }
    }
    assert_eq!(changed, 1);
    std::fs::write(path, lines.join("\n") + "\n").expect("it is ours");
    let result = replay(&dir);
    assert_eq!((result.diverged(), result.excused.len()), (0, 1), "{result:?}");
    assert!(result.excused[0].places[0].contains("/data/"), "{result:?}");
    std::fs::remove_dir_all(&dir).expect("it is ours");
}

#[test]
fn what_is_damaged_is_told() {
    let dir = scratch("damaged");
    record(&dir, 1, 3);
    let path = &files(&dir)[0];
    let whole = std::fs::read_to_string(path).expect("it is text");
    let put = |text: &str| std::fs::write(path, text).expect("it is ours");

    // The process was killed while it wrote the last line.
    let last = whole.trim_end().rfind('\n').expect("there are lines");
    put(&whole[..last - 20]);
    let result = replay(&dir);
    assert_eq!(result.diverged(), 0);
    assert!(result.notes[0].contains("without an end"), "{result:?}");

    let refused = |text: &str, want: &[&str]| {
        put(text);
        let why = all(&dir).expect_err(want[0]);
        assert!(why.starts_with("error: ") && why.contains(path.to_str().unwrap()), "{why}");
        assert!(want.iter().all(|want| why.contains(want)), "{why}");
    };
    let newer = whole.replacen(&format!("\"skeg_recording\":{FORMAT}"), "\"skeg_recording\":99", 1);
    refused(&newer, &["its format is 99", "this skeg reads 1", "newer"]);
    refused(&whole[1..], &["line 1", "cannot be read"]);
    let (header, rest) = whole.split_once('\n').expect("there are lines");
    refused(rest, &["line 1: it is no header"]);
    refused(&whole.replacen("\"part\":1", "\"part\":2", 1), &["part 2", "put back what is missing"]);
    refused(&format!("{header}\n{{\"other\":1}}\n{rest}"), &["line 2", "cannot be read"]);
    let unknown = whole.replacen("{\"machine\":{\"number\":0", "{\"machine\":{\"number\":77", 1);
    refused(&unknown, &["machine 0, which has not begun"]);

    put(&whole);
    let empty = scratch("empty");
    assert!(all(&empty).expect_err("it is empty").contains("there is no recording in it"));
    assert!(all(&empty.join("none")).expect_err("it is not there").contains("no such file"));
    for dir in [dir, empty] {
        std::fs::remove_dir_all(&dir).expect("it is ours");
    }
}

#[test]
fn a_recording_ends_at_its_limit_and_the_machines_go_on() {
    let dir = scratch("limit");
    let now = |n: u64| Now { mono: Mono(n), wall: Wall(0) };
    let (recording, recorder) = begin(&dir, 20_000, "test", Wall(0)).expect("it begins");
    let tape = Tape::new(recorder, Kinds::default());
    let config = SchedulerConfig::default();
    let track = tape.machine("scheduler", (1, "scheduler", 1), || Of::Scheduler(config.clone()));
    let mut scheduler = Client(SchedulerProcess::new(config, Rng::stream(1, "scheduler", 1)), track);
    for n in 0..40_000 {
        scheduler.step(now(n * 10_000_000), None);
    }
    drop((scheduler, tape));
    drop(recording);
    let size: u64 = files(&dir).iter().map(|path| std::fs::metadata(path).unwrap().len()).sum();
    assert!((18_000..20_100).contains(&size), "{size}");
    let result = replay(&dir);
    assert!(result.notes[0].contains("--record-limit was reached"), "{result:?}");
    assert!(result.diverged() == 0 && (10..40_000).contains(&result.machines[0].inputs), "{result:?}");
    // What is there counts, so that a process that begins again and again fills no disk.
    assert!(begin(&dir, size, "test", Wall(1)).expect("it is no error").1.is_none());
    std::fs::remove_dir_all(&dir).expect("it is ours");
}

/// What becomes of a message, and where it was changed.
fn hidden(secrets: &mut Secrets, mut message: Value, everywhere: bool) -> (Value, Vec<String>) {
    let places = secrets.hide(&mut message, everywhere);
    (message, places)
}

fn secret(data: Value, strings: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "data": data, "stringData": strings})
}

#[test]
fn placeholders_are_as_long_as_values_and_equal_for_equal_ones() {
    let mut secrets = Secrets::new(&[7; 32]);
    let password = "correct horse battery";
    let message = secret(json!({"a": STANDARD.encode(password)}), json!({"b": password, "c": "other", "n": 1234567}));
    let (clean, places) = hidden(&mut secrets, json!({"object": message}), false);
    let text = |value: &Value| value.as_str().expect("it is text").to_owned();
    let [a, b, c] = ["/object/data/a", "/object/stringData/b", "/object/stringData/c"]
        .map(|at| text(clean.pointer(at).expect("it is there")));
    assert_eq!(places.len(), 4, "{places:?}");
    assert_eq!(STANDARD.decode(&a).expect("base64"), b.as_bytes(), "data and stringData have the same placeholder");
    assert_eq!((b.len(), c.len()), (password.len(), 5));
    assert!(b != password && c != "other" && clean["object"]["stringData"]["n"] != 1234567, "{clean}");
    assert_eq!(clean["object"]["stringData"]["n"].to_string().len(), 7);
    let other = Secrets::new(&[8; 32]).of_text(password);
    assert_ne!(b, other, "another recording has other placeholders");
    // What is JSON stays so, what is no text stays so, and what is not even base64.
    for shape in ["{}", "{ }", "{\"a\":1}", "{\"auths\":{\"r.io\":{\"auth\":\"dTpw\"}}}"] {
        let placeholder = secrets.of_text(shape);
        assert_eq!(placeholder.len(), shape.len(), "{shape}");
        assert!(serde_json::from_str::<serde_json::Map<String, Value>>(&placeholder).is_ok(), "{placeholder}");
    }
    let raw = STANDARD.encode([1, 200, 3]);
    let (clean, _) = hidden(&mut secrets, secret(json!({"raw": raw, "no": "ab=c!\n", "empty": ""}), json!({})), false);
    let bytes = STANDARD.decode(text(&clean["data"]["raw"])).expect("base64");
    assert!(bytes.len() == 3 && std::str::from_utf8(&bytes).is_err(), "{bytes:?}");
    let no = text(&clean["data"]["no"]);
    assert!(no.len() == 6 && &no[2..3] == "=" && no.ends_with("!\n") && !no.starts_with("ab"), "{no}");
    assert_eq!(clean["data"]["empty"], "");
}

#[test]
fn secrets_are_found_wherever_they_are() {
    let check = |message: Value, kept: &[&str]| {
        let mut secrets = Secrets::new(&[7; 32]);
        let (clean, places) = hidden(&mut secrets, message.clone(), false);
        assert!(!places.is_empty(), "{message}");
        assert!(!clean.to_string().contains("hush"), "{clean}");
        assert!(!clean.to_string().contains(STANDARD.encode("hush").trim_end_matches('=')), "{clean}");
        assert!(kept.iter().all(|kept| clean.to_string().contains(kept)), "{clean}");
    };
    let encoded = STANDARD.encode("hush");
    let applied =
        json!({"kubectl.kubernetes.io/last-applied-configuration": "{\"stringData\":{\"a\":\"hush\"}}", "x": "y"});
    check(json!({"metadata": {"annotations": applied, "name": "n"}, "kind": "Secret", "apiVersion": "v1"}), &["\"y\""]);
    let patch = |patch: Value| json!({"Patch": {"key": "secrets:n/s", "patch": patch, "subresource": "None"}});
    check(patch(json!({"Merge": {"stringData": {"a": "hush", "gone": null}}})), &["null"]);
    check(
        patch(
            json!({"Strategic": {"data": {"a": encoded, "$patch": "replace"}, "metadata": {"annotations": applied}}}),
        ),
        &[],
    );
    check(patch(json!({"Apply": {"manager": "m", "force": true, "body": {"stringData": {"a": "hush"}}}})), &["\"m\""]);
    check(
        patch(json!({"Json": [{"op": "add", "path": "/data/a", "value": encoded},
        {"op": "test", "path": "/stringData", "value": {"b": "hush"}},
        {"op": "replace", "path": "/metadata/annotations", "value": applied},
        {"op": "replace", "path": "", "value": {"stringData": {"c": "hush"}}},
        {"op": "replace", "path": "/metadata/labels", "value": {"kept": "label"}}]})),
        &["label"],
    );
    // What is applied is a Secret, too, and has the placeholder that it has elsewhere.
    let whole =
        patch(json!({"Apply": {"manager": "m", "force": true, "body": secret(json!({}), json!({"a": "hush"}))}}));
    let mut secrets = Secrets::new(&[7; 32]);
    let (clean, _) = hidden(&mut secrets, whole, false);
    assert_eq!(clean["Patch"]["patch"]["Apply"]["body"]["stringData"]["a"], secrets.of_text("hush"));
    let about = json!({"kind": {"kind": "Secret"}, "object": secret(json!({"a": encoded}), json!({}))});
    check(json!({"Consult": [3, [{"body": {"request": about}}]]}), &[]);
    // Of Secrets for tokens, all but the token is public.
    let data = json!({"ca.crt": STANDARD.encode("public"), "namespace": STANDARD.encode("n"), "token": encoded});
    let token =
        json!({"apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/service-account-token", "data": data});
    check(token, &[&STANDARD.encode("public"), &STANDARD.encode("n")]);
}

#[test]
fn what_came_of_a_secret_is_found_again() {
    let mut secrets = Secrets::new(&[7; 32]);
    hidden(&mut secrets, secret(json!({}), json!({"a": "long enough", "b": "pin"})), false);
    let placeholder = secrets.of_text("long enough");
    let message = json!({"Runtime": {"CreateContainer": {"spec": {"resolved": {"env": [["A", "long enough"],
        ["B", "pin"], ["C", "see long enough here"], ["D", "a pin too"]],
        "files": [{"Bytes": STANDARD.encode("long enough")}]}}}}});
    let (clean, places) = hidden(&mut secrets, message, true);
    let env = |n: usize| clean.pointer(&format!("/Runtime/CreateContainer/spec/resolved/env/{n}/1")).unwrap().clone();
    assert_eq!((env(0), env(2)), (json!(placeholder), json!(format!("see {placeholder} here"))));
    assert_eq!((env(1), env(3)), (json!(secrets.of_text("pin")), json!("a pin too")));
    assert!(clean.to_string().contains(&STANDARD.encode(&placeholder)), "{clean}");
    assert_eq!(places.len(), 4, "{places:?}");
    // One value may begin as another does, or be part of it.
    let [long, short] = ["long enough to see", "enough"].map(|value| secrets.of_text(value));
    let (clean, _) = hidden(&mut secrets, json!({"t": "xlong enough to see, long enough, enough"}), true);
    assert_eq!(clean["t"], format!("x{long}, {placeholder}, {short}"));
    // Refusals may quote, and answers of webhooks may change Secrets. Each says so in its first bytes.
    let status = Status::bad_request("of no object");
    let refused = FromServer::Reply(ReqId(u64::MAX), Err(status.clone()));
    let told = apiserver::Out::Client(ConnId(u64::MAX), refused.clone());
    let warned = apiserver::Note::Warning("w".into());
    let warned = apiserver::Out::Note(ConnId(u64::MAX), ReqId(u64::MAX), warned);
    let answered = apiserver::In::Consulted(u64::MAX, Vec::new());
    let answer = FromServer::Reply(ReqId(u64::MAX), Ok(Response::Done { rv: Revision(1) }));
    let text = |message: &dyn Fn() -> serde_json::Result<String>| message().expect("it is written");
    for (message, concerns) in [
        (text(&|| serde_json::to_string(&refused)), true),
        (text(&|| serde_json::to_string(&told)), true),
        (text(&|| serde_json::to_string(&warned)), true),
        (text(&|| serde_json::to_string(&answered)), true),
        (text(&|| serde_json::to_string(&answer)), false),
    ] {
        assert_eq!(Secrets::concern(&message), concerns, "{message}");
    }
    let refused = json!({"Client": [1, {"Reply": [2, {"Err": {"message": "Invalid value: long enough"}}]}]});
    let (clean, _) = hidden(&mut secrets, refused, false);
    assert!(clean.to_string().contains(&format!("Invalid value: {placeholder}")), "{clean}");
    let about = |kind: &str| json!([{"body": {"request": {"kind": {"kind": kind}}}}]);
    let patch = json!([{"op": "add", "path": "/data/x", "value": STANDARD.encode("from a webhook")}]).to_string();
    let answer = json!([{"Ok": {"response": {"patch": STANDARD.encode(&patch)}}}]);
    for (id, kind, stays) in [(1, "Secret", false), (2, "ConfigMap", true)] {
        hidden(&mut secrets, json!({"Consult": [id, about(kind)]}), false);
        let (clean, _) = hidden(&mut secrets, json!({"Consulted": [id, answer]}), false);
        assert_eq!(clean["Consulted"][1] == answer, stays, "{clean}");
    }
}

/// Where recordings of each format are that has landed.
fn golden(format: u32) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join("recordings").join(format.to_string())
}

/// A machine that is a client of the API server.
struct Client<M>(M, Track);

impl<M: Machine<In: Serialize, Out: Serialize>> Client<M> {
    /// Gives it an input, or `None` if its time may have come.
    fn step(&mut self, now: Now, input: Option<M::In>) -> Vec<M::Out> {
        let mut out = Vec::new();
        let is_due = self.0.poll_timeout().is_some_and(|deadline| deadline.at <= now.mono);
        match input {
            Some(input) => {
                self.1.handle(now, &input);
                self.0.handle(now, input, &mut out);
            }
            None if is_due => {
                self.1.timeout(now);
                self.0.handle_timeout(now, &mut out);
            }
            None => return out,
        }
        self.1.decided(&out, self.0.poll_timeout());
        out
    }
}

/// Records one machine of each kind for two seconds, in which a Secret and a pod are made.
fn record_small(dir: &Path) {
    let (recording, recorder) = begin(dir, 1 << 30, "golden", Wall(0)).expect("it begins");
    let (kinds, rng) = (Kinds::default(), |name: &str| Rng::stream(1, name, 0));
    let tape = Tape::new(recorder, kinds.clone());
    let track = |name: &str, of: Of| tape.machine(name, (1, name, 0), || of);
    let config = apiserver::Config { kinds: kinds.clone(), track_fields: true, ..apiserver::Config::default() };
    let api = apiserver::ApiServer::new(config.clone(), rng("api-server"));
    let mut api = Client(api, track("api-server", Of::ApiServer(config)));
    let config = ManagerConfig { leader_elect: false, kinds, ..ManagerConfig::default() };
    let of = Of::Controllers { config: config.clone(), images: None, measured: false, signs: false };
    let mut manager = Client(ControllerManager::new(config, rng("controllers")), track("controllers", of));
    let config = SchedulerConfig { leader_elect: false, ..SchedulerConfig::default() };
    let scheduler = SchedulerProcess::new(config.clone(), rng("scheduler"));
    let mut scheduler = Client(scheduler, track("scheduler", Of::Scheduler(config)));
    let config = AgentConfig { capacity: [("cpu".to_owned(), "4".to_owned())].into(), ..AgentConfig::default() };
    let mut agent = Client(NodeAgent::new(config.clone(), rng("agent")), track("agent", Of::Agent(config)));
    let (mut store, mut queue) = (MemoryStore::new(), VecDeque::new());
    let user = Rc::from("someone");
    let create = |object: Value| Call::Create {
        object: Object::from_json(object).expect("it is one"),
        options: WriteOptions::default(),
    };
    let metadata = json!({"name": "a", "namespace": "default"});
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "default"}});
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata,
        "spec": {"containers": [{"name": "c", "image": "i"}]}});
    let mut secret = secret(json!({"a": STANDARD.encode(SECRET)}), json!({}));
    secret["metadata"] = metadata;
    let mut calls: VecDeque<Call> = [namespace, secret, pod].map(create).into();
    for tick in 0..40u64 {
        let now = Now { mono: Mono(tick * 50_000_000), wall: Wall(1_800_000_000_000_000 + tick as i64 * 50_000) };
        if tick > 10
            && let Some(call) = calls.pop_front()
        {
            let request = ToServer::Request(ReqId(tick), Request::new(&user, call));
            queue.push_back(apiserver::In::Client(ConnId(9), request));
        }
        let to_api = |conn: u64| move |message| apiserver::In::Client(ConnId(conn), message);
        let asks_nobody = |said| match said {
            scheduler::Out::Api(message) => to_api(1)(message),
            scheduler::Out::Ask { .. } => panic!("it has no extenders"),
        };
        let mut out = api.step(now, None);
        queue.extend(manager.step(now, None).into_iter().map(to_api(0)));
        queue.extend(scheduler.step(now, None).into_iter().map(asks_nobody));
        let mut told = agent.step(now, None);
        loop {
            for command in std::mem::take(&mut told) {
                match command {
                    agent::Out::Api(message) => queue.push_back(to_api(2)(message)),
                    agent::Out::Runtime(RuntimeCommand::List { op }) => {
                        let (sandboxes, containers, images) = (Vec::new(), Vec::new(), Vec::new());
                        let listed = RuntimeEvent::Listed { op, sandboxes, containers, images };
                        told.extend(agent.step(now, Some(agent::In::Runtime(listed))));
                    }
                    agent::Out::Runtime(_) => {}
                }
            }
            for out in std::mem::take(&mut out) {
                match out {
                    apiserver::Out::Store(id, request) => {
                        let mut said = Vec::new();
                        store.handle(now, store::In::Request(StoreClient(0), id, request), &mut said);
                        queue.extend(said.into_iter().map(|said| apiserver::In::Store(said.msg)));
                    }
                    apiserver::Out::Client(ConnId(0), message) => {
                        queue.extend(manager.step(now, Some(message)).into_iter().map(to_api(0)));
                    }
                    apiserver::Out::Client(ConnId(1), message) => {
                        let said = scheduler.step(now, Some(scheduler::In::Api(message)));
                        queue.extend(said.into_iter().map(asks_nobody));
                    }
                    apiserver::Out::Client(ConnId(2), message) => {
                        told.extend(agent.step(now, Some(agent::In::Api(message))));
                    }
                    apiserver::Out::Client(..) | apiserver::Out::Note(..) | apiserver::Out::Consult(..) => {}
                }
            }
            match queue.pop_front() {
                Some(input) => out = api.step(now, Some(input)),
                None if told.is_empty() => break,
                None => {}
            }
        }
    }
    drop((api, manager, scheduler, agent, tape));
    drop(recording);
}

/// What was written in each format is read, whatever is decided today.
#[test]
fn recordings_of_each_format_are_read() {
    let now = scratch("golden");
    record_small(&now);
    assert_eq!((replay(&now).diverged(), replay(&now).first), (0, None));
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::create_dir_all(golden(FORMAT)).expect("it can be made");
        std::fs::copy(&files(&now)[0], golden(FORMAT).join("000001.jsonl")).expect("it can be written");
    }
    for format in 1..=FORMAT {
        let result = replay(&golden(format));
        let read: Vec<(&str, bool)> =
            result.machines.iter().map(|machine| (machine.machine.as_str(), machine.inputs > 10)).collect();
        assert_eq!(read, ["api-server", "controllers", "scheduler", "agent"].map(|name| (name, true)), "{format}");
        assert!(result.notes.is_empty(), "{result:?}");
    }
    std::fs::remove_dir_all(&now).expect("it is ours");
}
