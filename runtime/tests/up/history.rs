//! Clients whose operations are recorded, with what came of each, over servers of which any may be cut off or killed;
//! and watches that are recorded. What is recorded is judged by [`crate::linear`] and [`crate::told`].

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::client::{Answer, Cluster, Tried};
use crate::linear::{Call, Op, Outcome};
use crate::load::MAPS;
use crate::told::{Committed, Kind, Told};

/// How long a client waits for a connection, and for each part of an answer.
const PATIENCE: Duration = Duration::from_secs(2);
/// Keys that are in use at once, and how long. The history of a key that is used for longer takes longer to check.
const KEYS: u64 = 4;
const IN_USE: Duration = Duration::from_secs(10);
/// No revision, so all are beyond it.
const GIVEN_UP: u64 = 0;
/// What selects all that is recorded.
const SELECTOR: &str = "labelSelector=recorded%3Dyes";

/// Random numbers of a client: the same choices in each run, at other moments.
struct Choices(u64);

impl Choices {
    fn below(&mut self, bound: u64) -> u64 {
        // Xorshift, by Marsaglia.
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

/// What several clients share.
pub struct Recorder<'a> {
    servers: &'a [Cluster],
    begun: Instant,
    /// The next value; each is written once.
    value: AtomicU64,
    ended: AtomicBool,
    /// The revision up to which watches are followed; [`GIVEN_UP`] where that does not matter any more.
    until: AtomicU64,
}

fn object(key: &str, value: u64, base: Option<u64>) -> Vec<u8> {
    let mut metadata = json!({"name": key, "labels": {"recorded": "yes"}});
    if let Some(base) = base {
        metadata["resourceVersion"] = json!(base.to_string());
    }
    json!({"metadata": metadata, "data": {"value": value.to_string()}}).to_string().into_bytes()
}

fn revision(object: &Value) -> u64 {
    let rv = object["metadata"]["resourceVersion"].as_str().and_then(|rv| rv.parse().ok());
    rv.unwrap_or_else(|| panic!("it has a revision: {object}"))
}

fn value(object: &Value) -> u64 {
    let value = object["data"]["value"].as_str().and_then(|value| value.parse().ok());
    value.unwrap_or_else(|| panic!("it has a value: {object}"))
}

fn name(object: &Value) -> String {
    object["metadata"]["name"].as_str().expect("a name").to_owned()
}

/// What an answer says of an operation.
fn outcome(call: Call, answer: &Answer) -> Outcome {
    let reason = || answer.json()["reason"].as_str().unwrap_or_default().to_owned();
    match (answer.code, call) {
        (200, Call::Get) => Outcome::Found(revision(&answer.json()), value(&answer.json())),
        (201, Call::Create(_)) | (200, Call::Update { .. }) => Outcome::Written(revision(&answer.json())),
        (200, Call::Delete { .. }) => Outcome::Deleted,
        (404, _) => Outcome::Absent,
        (409, Call::Create(_)) if reason() == "AlreadyExists" => Outcome::Exists,
        (409, Call::Update { .. } | Call::Delete { base: Some(_) }) if reason() == "Conflict" => Outcome::Conflict,
        (429 | 503, _) => Outcome::Refused,
        (500 | 504, _) => Outcome::Unknown,
        _ => panic!("{call:?} was answered by {}: {}", answer.code, answer.text()),
    }
}

impl Recorder<'_> {
    pub fn new(servers: &[Cluster]) -> Recorder<'_> {
        Recorder {
            servers,
            begun: Instant::now(),
            value: AtomicU64::new(1),
            ended: AtomicBool::new(false),
            until: AtomicU64::new(u64::MAX),
        }
    }

    /// The time since the beginning, in nanoseconds.
    fn now(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_nanos()).expect("no test takes that long")
    }

    /// Works on keys until it is told to stop; returns the operations by key.
    pub fn work(&self, client: u64) -> Vec<(String, Op)> {
        let (mut choices, mut ops) = (Choices(client * 7919 + 1), Vec::new());
        let mut known: BTreeMap<String, u64> = BTreeMap::new();
        while !self.has_ended() {
            let round = self.begun.elapsed().as_secs() / IN_USE.as_secs();
            let key = format!("r-{round}-{}", choices.below(KEYS));
            let call = self.choose(&mut choices, known.get(&key).copied());
            let server = usize::try_from(choices.below(self.servers.len() as u64)).expect("it is small");
            let begun = self.now();
            let outcome = self.send(&self.servers[server], &key, call);
            let ended = self.now();
            match outcome {
                Outcome::Written(rv) | Outcome::Found(rv, _) => known.insert(key.clone(), rv),
                Outcome::Absent | Outcome::Deleted => known.remove(&key),
                Outcome::Conflict | Outcome::Exists | Outcome::Unknown | Outcome::Refused => None,
            };
            ops.push((key, Op { begun, ended, call, outcome }));
            std::thread::sleep(Duration::from_millis(30));
        }
        ops
    }

    /// Writes something else of the same kind until it is told to stop: bookmarks tell of what concerns no watch.
    pub fn make_noise(&self) {
        for (n, server) in self.servers.iter().cycle().enumerate().take_while(|_| !self.has_ended()) {
            let body = json!({"metadata": {"name": format!("noise-{n}")}}).to_string();
            // What comes of it does not matter.
            let _ = server.attempt("POST", MAPS, body.as_bytes(), PATIENCE);
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn choose(&self, choices: &mut Choices, base: Option<u64>) -> Call {
        let value = || self.value.fetch_add(1, Ordering::Relaxed);
        match (choices.below(20), base) {
            (0..=4, _) => Call::Create(value()),
            (5..=12, Some(base)) => Call::Update { base, value: value() },
            (13, _) => Call::Delete { base: None },
            (14, Some(base)) => Call::Delete { base: Some(base) },
            _ => Call::Get,
        }
    }

    fn send(&self, server: &Cluster, key: &str, call: Call) -> Outcome {
        let path = format!("{MAPS}/{key}");
        let tried = match call {
            Call::Create(value) => server.attempt("POST", MAPS, &object(key, value, None), PATIENCE),
            Call::Update { base, value } => server.attempt("PUT", &path, &object(key, value, Some(base)), PATIENCE),
            Call::Delete { base: None } => server.attempt("DELETE", &path, b"", PATIENCE),
            Call::Delete { base: Some(base) } => {
                let options = json!({"preconditions": {"resourceVersion": base.to_string()}});
                server.attempt("DELETE", &path, options.to_string().as_bytes(), PATIENCE)
            }
            Call::Get => server.attempt("GET", &path, b"", PATIENCE),
        };
        match tried {
            Tried::Unsent => Outcome::Refused,
            Tried::Unanswered => Outcome::Unknown,
            Tried::Answered(answer) => outcome(call, &answer),
        }
    }

    /// Ends all clients, and writes one more object, which ends the watches once they have told of it.
    pub fn end(&self) {
        self.ended.store(true, Ordering::Relaxed);
        let value = self.value.fetch_add(1, Ordering::Relaxed);
        let Tried::Answered(made) = self.servers[0].attempt("POST", MAPS, &object("last", value, None), PATIENCE)
        else {
            panic!("the last object is not made");
        };
        assert_eq!(made.code, 201, "{}", made.text());
        self.until.store(revision(&made.json()), Ordering::Relaxed);
    }

    /// Ends all clients and, where nothing else does, all watches.
    pub fn stop(&self) {
        self.ended.store(true, Ordering::Relaxed);
        let _ = self.until.compare_exchange(u64::MAX, GIVEN_UP, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// Whether clients are to end.
    pub fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Relaxed)
    }

    /// Lists, and follows a watch from there on, which goes on at the next server where it ends. `seconds` is how long
    /// each is asked for; without that, it ends when its server does.
    pub fn watch(&self, first: usize, seconds: Option<u32>) -> Vec<Told> {
        let (mut told, mut last) = (Vec::new(), None);
        let timeout = seconds.map_or_else(String::new, |seconds| format!("&timeoutSeconds={seconds}"));
        for server in self.servers.iter().cycle().skip(first) {
            let until = self.until.load(Ordering::Relaxed);
            if last >= Some(until) || until == GIVEN_UP {
                return told;
            }
            let Some(from) = last else {
                let list = server.attempt("GET", &format!("{MAPS}?{SELECTOR}"), b"", PATIENCE);
                if let Tried::Answered(answer) = list
                    && answer.code == 200
                {
                    let list = answer.json();
                    let items = list["items"].as_array().expect("a list").iter();
                    let items = items.map(|item| (name(item), (revision(item), value(item)))).collect();
                    last = Some(revision(&list));
                    told.push(Told::Listed { rv: revision(&list), items });
                }
                continue;
            };
            let path = format!("{MAPS}?watch=1&{SELECTOR}&allowWatchBookmarks=true&resourceVersion={from}{timeout}");
            let code = server.follow(&path, 3 * PATIENCE, |event| {
                if let Some(one) = read(&event) {
                    last = Some(reached(&one));
                    told.push(one);
                } else {
                    last = None;
                }
                last.is_some_and(|last| last < self.until.load(Ordering::Relaxed))
            });
            if code != Some(200) {
                std::thread::sleep(Duration::from_millis(50));
            }
        }
        unreachable!("there are servers")
    }

    /// Watches that begin with all that is there, one after the other.
    pub fn watch_anew(&self, first: usize) -> Vec<Told> {
        let mut told = Vec::new();
        let begins = "sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true";
        let path = format!("{MAPS}?watch=1&{SELECTOR}&{begins}&timeoutSeconds=3");
        for server in self.servers.iter().cycle().skip(first) {
            let (mut items, mut is_whole, mut last) = (BTreeMap::new(), false, 0);
            let code = server.follow(&path, 3 * PATIENCE, |event| {
                let Some(one) = read(&event) else { return false };
                last = reached(&one);
                match one {
                    Told::Event { key, rv, value, .. } if !is_whole => {
                        assert!(items.insert(key, (rv, value)).is_none(), "it comes once: {event}");
                    }
                    Told::Bookmark(rv) if !is_whole => {
                        let annotation = &event["object"]["metadata"]["annotations"]["k8s.io/initial-events-end"];
                        assert_eq!(annotation, "true", "{event}");
                        is_whole = true;
                        told.push(Told::Listed { rv, items: std::mem::take(&mut items) });
                    }
                    one => told.push(one),
                }
                last < self.until.load(Ordering::Relaxed)
            });
            if last >= self.until.load(Ordering::Relaxed) {
                return told;
            }
            if code != Some(200) {
                std::thread::sleep(Duration::from_millis(50));
            }
        }
        unreachable!("there are servers")
    }
}

/// An event of a watch; `None` if it is told that it cannot go on from there.
fn read(event: &Value) -> Option<Told> {
    let object = &event["object"];
    let kind = match event["type"].as_str() {
        Some("ADDED") => Kind::Added,
        Some("MODIFIED") => Kind::Modified,
        Some("DELETED") => Kind::Deleted,
        Some("BOOKMARK") => return Some(Told::Bookmark(revision(object))),
        Some("ERROR") => {
            // 410: it is compacted. 5xx: the server has lost the store.
            assert!(object["code"] == 410 || object["code"].as_u64() >= Some(500), "{event}");
            return None;
        }
        _ => panic!("it is no event: {event}"),
    };
    Some(Told::Event { kind, key: name(object), rv: revision(object), value: value(object) })
}

fn reached(told: &Told) -> u64 {
    match told {
        Told::Listed { rv, .. } | Told::Event { rv, .. } | Told::Bookmark(rv) => *rv,
    }
}

/// What operations were told to have committed.
pub fn acknowledged(ops: &[(String, Op)]) -> Result<Committed, String> {
    let mut committed = Committed::new();
    for (key, op) in ops {
        let (Call::Create(value) | Call::Update { value, .. }, Outcome::Written(rv)) = (op.call, op.outcome) else {
            continue;
        };
        if let Some(other) = committed.insert(rv, (key.clone(), Some(value))) {
            return Err(format!("revision {rv} was told twice: {op:?} and {other:?}"));
        }
    }
    Ok(committed)
}

/// The longest time in which no write was acknowledged.
pub fn longest_silence(ops: &[(String, Op)]) -> Duration {
    let written = |(_, op): &(String, Op)| matches!(op.outcome, Outcome::Written(_)).then_some(op.ended);
    let mut times: Vec<u64> = ops.iter().filter_map(written).collect();
    times.sort_unstable();
    let gaps = times.windows(2).map(|pair| pair[1] - pair[0]);
    Duration::from_nanos(gaps.max().unwrap_or(u64::MAX))
}
