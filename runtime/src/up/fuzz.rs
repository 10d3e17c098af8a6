//! Fuzz loops over everything on the HTTP side that reads what a client sends: nothing may panic, whatever comes.
//!
//! Each target gets changed copies of good inputs, for a moment in ordinary tests, and for `SKEG_FUZZ_SECONDS` where
//! that is set. The inputs are drawn from `SKEG_FUZZ_SEED`, which is 1 where it is not set, so that a failure comes
//! again. They run on the stable toolchain, without instrumentation. What they found is replayed by the tests of the
//! module that it was found in.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use skeg_core::object::{FieldSelector, Kind, Milli, Selector};
use skeg_core::{Rng, Wall, patch, protobuf};
use skeg_sim::container::files::Files;
use skeg_sim::container::process::{Input, Process, Surroundings};
use skeg_sim::container::server::Connection;
use skeg_spdy::{Compressor, Session, frame};

use super::dns::wire;
use super::params::Params;
use super::route::{Route, route};
use super::served::Served;
use super::{accept, apiproxy, body};

/// How long a target is fuzzed in ordinary tests.
const MOMENT: Duration = Duration::from_millis(300);
/// Bytes at which parsers branch.
const LIKELY: &[u8] = b"\0\x01\x7f\x80\xff%/.,=!()[]{}\"'\\$;&|<>~-+eEmk09\n\r ";

/// A copy of a good input with a few changes.
fn changed(good: &[Vec<u8>], rng: &mut Rng) -> Vec<u8> {
    let pick = |rng: &mut Rng, n: usize| rng.below(n.max(1) as u64) as usize;
    let mut bytes = good[pick(rng, good.len())].clone();
    for _ in 0..=pick(rng, 4) {
        let at = pick(rng, bytes.len() + 1);
        match pick(rng, 6) {
            0 if at < bytes.len() => bytes[at] ^= 1 << pick(rng, 8),
            1 => bytes.insert(at, LIKELY[pick(rng, LIKELY.len())]),
            2 if at < bytes.len() => bytes[at] = LIKELY[pick(rng, LIKELY.len())],
            3 => bytes.truncate(at),
            4 => {
                // A part once more, somewhere.
                let end = (at + 1 + pick(rng, 64)).min(bytes.len());
                let part = bytes[at.min(end)..end].to_vec();
                let to = pick(rng, bytes.len() + 1);
                bytes.splice(to..to, part);
            }
            _ => {
                // The beginning of this input, and the end of another.
                let other = &good[pick(rng, good.len())];
                bytes.truncate(at);
                bytes.extend_from_slice(&other[pick(rng, other.len() + 1)..]);
            }
        }
    }
    bytes
}

/// Fuzzes a target; a panic fails with the input.
fn fuzz(name: &str, good: &[Vec<u8>], mut target: impl FnMut(&[u8])) {
    let given = |name: &str| std::env::var(name).ok().map(|n| n.parse::<u64>().expect("it is a number"));
    let (time, begun) = (given("SKEG_FUZZ_SECONDS").map_or(MOMENT, Duration::from_secs), Instant::now());
    let mut rng = Rng::stream(given("SKEG_FUZZ_SEED").unwrap_or(1), name, 0);
    let mut run = |input: &[u8]| {
        let panicked = catch_unwind(AssertUnwindSafe(|| target(input))).is_err();
        assert!(!panicked, "{name} panics on {:?}", String::from_utf8_lossy(input).escape_debug().to_string());
    };
    good.iter().for_each(|input| run(input));
    let mut count = 0_u64;
    while begun.elapsed() < time {
        run(&changed(good, &mut rng));
        count += 1;
    }
    println!("{name}: {count} inputs in {:?}", begun.elapsed());
}

fn texts(texts: &[&str]) -> Vec<Vec<u8>> {
    texts.iter().map(|text| text.as_bytes().to_vec()).collect()
}

fn pod() -> Value {
    json!({"kind": "Pod", "apiVersion": "v1", "metadata": {"name": "p", "labels": {"a": "b"}},
        "spec": {"containers": [{"name": "c", "image": "i", "ports": [{"containerPort": 80}],
            "resources": {"limits": {"cpu": "100m"}}}], "tolerations": [{"key": "k", "operator": "Exists"}]}})
}

#[test]
fn protobuf_bodies() {
    let deployment = json!({"kind": "Deployment", "apiVersion": "apps/v1", "metadata": {"name": "d"},
        "spec": {"replicas": 3, "selector": {"matchLabels": {"a": "b"}}, "template": {"spec": pod()["spec"]}}});
    let good: Vec<Vec<u8>> = [pod(), deployment].iter().map(|v| protobuf::encode(v).expect("it has a form")).collect();
    fuzz("protobuf", &good, |bytes| {
        if let Ok((value, _)) = body::object(protobuf::MEDIA_TYPE, bytes) {
            // What was read can be written, unless it has no kind.
            let _ = protobuf::encode(&value);
        }
    });
}

#[test]
fn json_and_yaml_bodies() {
    let good = texts(&[&pod().to_string(), "{\"a\": [1, 2.5e3, null, true, \"\\u00e9\"]}", "a: &x [1]\nb: *x\n"]);
    fuzz("bodies", &good, |bytes| {
        // Errors are what most inputs should get, here and below.
        let _ = body::object("application/json", bytes);
        let _ = body::object("application/yaml", bytes);
    });
}

#[test]
fn patches() {
    let good = texts(&[
        r#"{"spec":{"containers":[{"name":"c","image":"j"}],"$setElementOrder/containers":[{"name":"c"}]}}"#,
        r#"{"spec":{"containers":[{"$patch":"delete","name":"c"}],"tolerations":null}}"#,
        r#"{"metadata":{"labels":{"$patch":"replace","x":"y"}},"spec":{"$retainKeys":["containers"]}}"#,
        r#"[{"op":"replace","path":"/spec/containers/0/image","value":"j"},{"op":"test","path":"/metadata/name","value":"p"}]"#,
        r#"[{"op":"copy","from":"/spec","path":"/metadata/annotations"},{"op":"remove","path":"/spec/containers/-"}]"#,
    ]);
    fuzz("patches", &good, |bytes| {
        for media_type in ["json-patch", "merge-patch", "strategic-merge-patch"] {
            if let Ok((patch, _)) = body::patch(&format!("application/{media_type}+json"), bytes, "m", false) {
                let _ = patch::apply_value(Kind::POD, pod(), &patch);
            }
        }
    });
}

#[test]
fn selectors_and_quantities() {
    let good =
        texts(&["a=b,c!=d,e in (f,g),h notin (i),!j,k", "metadata.name=x,spec.nodeName!=y", "1.5Gi", "-3e-9", "100m"]);
    fuzz("selectors", &good, |bytes| {
        let text = String::from_utf8_lossy(bytes);
        if let Ok(selector) = Selector::parse(&text) {
            selector.matches(None);
        }
        let _ = FieldSelector::parse(&text);
        if let Ok(quantity) = Milli::parse(&text) {
            // What is printed can be read.
            assert!(Milli::parse(&quantity.to_decimal()).is_ok() && Milli::parse(&quantity.to_binary()).is_ok());
        }
    });
}

#[test]
fn urls() {
    let served = Served::built_in();
    let good = texts(&[
        "/api/v1/namespaces/a/pods/p/log?follow=true&tailLines=5",
        "/apis/apps/v1/namespaces/%61/deployments/..%2f..?labelSelector=a%3Db&limit=5&continue=x&resourceVersion=7",
        "/api/v1/watch/pods?timeoutSeconds=3&allowWatchBookmarks=1&sendInitialEvents=true&resourceVersionMatch=Exact",
        "/openapi/v3/apis/apps/v1?hash=0",
        "/api/v1/namespaces/a/services/http:s:80/proxy/..%2f//x?y",
    ]);
    fuzz("urls", &good, |bytes| {
        let text = String::from_utf8_lossy(bytes);
        let (path, query) = text.split_once('?').map_or((&*text, None), |(path, query)| (path, Some(query)));
        let (path, rest) = apiproxy::split(path).map_or((path, None), |(path, rest)| (path, Some(rest)));
        assert!(rest.is_none_or(|rest| rest.is_empty() || rest.starts_with('/')), "{path}");
        let _ = apiproxy::Named::read(&text);
        if let Ok(Route::Objects(objects)) = route(&served, path) {
            let parts = [Some(objects.namespace), objects.name, objects.subresource];
            for part in parts.into_iter().flatten() {
                assert!(!part.contains('/') && part != ".." && part != ".", "{path}");
            }
        }
        let params = Params::parse(query);
        let _ = (params.list(), params.watch(), params.deletion(None), params.write("CreateOptions"));
        let _ = (accept::negotiate(Some(&text)), accept::discovery(Some(&text)));
    });
}

#[test]
fn spdy_frames() {
    let (mut compressor, mut conversation) = (Compressor::default(), Vec::new());
    for (stream, kind) in [(1, "error"), (3, "stdin")] {
        frame::syn_stream(stream, &[("streamtype", kind)], &mut compressor, &mut conversation);
    }
    frame::data(3, b"hello", true, &mut conversation);
    frame::ping(1, &mut conversation);
    frame::reset(1, 5, &mut conversation);
    fuzz("spdy", &[conversation], |bytes| {
        let (mut session, mut events, mut out) = (Session::default(), Vec::new(), Vec::new());
        let _ = session.handle(bytes, &mut events, &mut out);
        for stream in [1, 3] {
            session.accept(stream, &mut out);
            session.send(stream, b"x", true, &mut out);
        }
    });
}

#[test]
fn scripts_and_their_input() {
    let good = texts(&[
        "echo \"$HOME\" 'x' | grep -v x > /tmp/f 2>&1 && cat < /tmp/f || exit 3",
        "tar cf - /etc | tar xf - -C /tmp; head -c 3 /etc/hosts; tail -n +2 /etc/hosts; kill -9 1",
        "cd /tmp; mkdir -p a/b; test -d a && [ 1 -lt 2 ]; printf '%s\\n' a; seq 3 | sort | wc -l; sleep 1m",
    ]);
    let surroundings = || Surroundings { tty: false, ..Surroundings::default() };
    fuzz("scripts", &good, |bytes| {
        let script = String::from_utf8_lossy(bytes).into_owned();
        for argv in [vec!["sh".to_owned(), "-c".to_owned(), script], ["tar", "xf", "-"].map(str::to_owned).into()] {
            let mut process = Process::new(&argv, surroundings()).expect("it is known");
            let (mut files, mut out) = (Files::new("h"), Vec::new());
            for input in [Input::Begin, Input::Stdin(bytes), Input::End, Input::Woken] {
                process.handle(Wall(0), input, &mut files, &mut out);
            }
        }
        Connection::new("me".to_owned()).handle(bytes);
    });
}

#[test]
fn messages_of_dns() {
    let named = |name: &str, type_: u16| wire::question(7, name, type_);
    let answer = {
        let query = wire::Query::read(&named("web.d.svc.cluster.local", wire::types::A)).expect("it is one");
        let alias = wire::Data::Cname("far.example".to_owned());
        let record = wire::Record { name: "web.d.svc.cluster.local".to_owned(), ttl: 5, data: alias };
        query.answer(&wire::Response { answer: vec![record], ..wire::Response::of(wire::Code::NoError) }, 512)
    };
    let good = [named("web.d.svc.cluster.local", wire::types::SRV), named("", wire::types::ANY), answer];
    fuzz("messages of DNS", &good, |bytes| {
        if let Ok(query) = wire::Query::read(bytes) {
            let records = wire::addresses(&good[2]).expect("it is whole").1;
            let response = wire::Response { answer: records, ..wire::Response::of(wire::Code::NoError) };
            assert!(query.answer(&response, query.udp_size()).len() <= wire::LARGEST_UDP);
        }
        let _ = wire::addresses(bytes);
        let _ = wire::is_response(&good[0], bytes);
    });
}
