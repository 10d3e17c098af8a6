//! Sends what was recorded to a cluster, and compares the answers.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::{Duration, Instant};

use regex_lite::{Captures, Regex};
use serde_json::Value;
use skeg_core::protobuf;

use super::normal::{Masks, Numbers, differences, json};
use super::session::{Answer, Body, Exchange, Session, Shown};
use crate::client::{self, Cluster};

/// How long what a controller still has to do may take.
const PATIENCE: Duration = Duration::from_secs(15);
/// How long nothing may have changed before answers are recorded: the longest that a simulated container takes to
/// start, on the cluster's clock, and then some.
const QUIET: Duration = Duration::from_millis(500);
/// The most failures that are told.
const FAILURES: usize = 4;
/// Headers of answers that clients go by.
const HEADERS: [&str; 4] = ["warning", "upgrade", "sec-websocket-protocol", "x-stream-protocol-version"];

/// A session that is replayed.
struct Replay<'a> {
    cluster: &'a Cluster,
    reference: Regex,
    masks: Masks,
    numbers: Numbers,
    /// Answers by the numbers of case and exchange, which begin with one.
    answers: BTreeMap<(usize, usize), Value>,
}

/// Replays a session; returns where answers differ from what was recorded.
pub fn compare(cluster: &Cluster, session: &Session) -> Vec<String> {
    let mut failures = Vec::new();
    let mut replay = Replay::new(cluster);
    replay.each(session, |replay, section, place, exchange| {
        let begun = Instant::now();
        loop {
            let (different, upgraded) = match replay.ask(section, place, exchange) {
                Ok(answer) => (against(exchange, &answer), answer.code == 101),
                Err(why) => (vec![why], false),
            };
            let changes = exchange.method != "GET" && exchange.upgrade().is_none() || upgraded;
            let waits = !changes && begun.elapsed() < PATIENCE;
            if different.is_empty() {
                return true;
            } else if !waits {
                let Exchange { method, target, .. } = exchange;
                let title = &session[place.0 - 1].title;
                failures.push(format!("{} {title}\n  {method} {target}\n    {}", place.0, different.join("\n    ")));
                return failures.len() < FAILURES;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    });
    failures
}

/// Replays a session, each request once nothing changes any more; returns it with what is answered. Where a request
/// is about what was there for a moment only, its case ends before it.
pub fn answer(cluster: &Cluster, session: &Session) -> Session {
    let mut answered = session.clone();
    let mut changes = true;
    let mut replay = Replay::new(cluster);
    replay.each(session, |replay, section, place, exchange| {
        if changes {
            replay.await_quiet();
        }
        let exchanges = &mut answered[place.0 - 1].exchanges;
        if exchanges.len() < place.1 {
            return true;
        }
        // What was recorded before says nothing about when it is settled.
        let answer = Answer { body: Shown::Nothing, ..exchange.answer.clone() };
        match replay.ask(section, place, &Exchange { answer, ..exchange.clone() }) {
            Ok(answer) => exchanges[place.1 - 1].answer = answer,
            Err(why) => {
                eprintln!("case {place:?}, {} {}, is left out: {why}", exchange.method, exchange.target);
                exchanges.truncate(place.1 - 1);
            }
        }
        changes = exchange.method != "GET" || exchange.upgrade().is_some();
        true
    });
    answered
}

/// Where an answer differs from what was recorded.
fn against(exchange: &Exchange, found: &Answer) -> Vec<String> {
    let expect = &exchange.answer;
    let mut all = Vec::new();
    if (expect.code, &expect.head) != (found.code, &found.head) {
        all.push(format!("recorded {} {}, found {} {}", expect.code, expect.head, found.code, found.head));
    }
    match (&expect.body, &found.body) {
        (Shown::Nothing, _) => {}
        (Shown::Json(expect), Shown::Json(found)) => differences(expect, found, "", &mut all),
        (expect, found) if expect == found => {}
        (expect, found) => all.push(format!("recorded {expect:?}, found {found:?}")),
    }
    all
}

impl Exchange {
    /// The protocol that it asks for, if that is not HTTP.
    pub fn upgrade(&self) -> Option<&str> {
        self.headers.iter().find(|(name, _)| name == "upgrade").map(|(_, value)| &**value)
    }

    /// Whether the answer does not end by itself.
    fn streams(&self) -> bool {
        let watches = ["watch=true", "watch=1", "follow=true"].iter().any(|flag| self.target.contains(flag));
        watches || self.upgrade().is_some()
    }
}

impl Replay<'_> {
    fn new(cluster: &Cluster) -> Replay<'_> {
        let reference = Regex::new(r"\{\{(\d+)\.(\d+)(/[^}]*)\}\}").expect("a pattern");
        let (masks, numbers, answers) = (Masks::default(), Numbers::default(), BTreeMap::new());
        Replay { cluster, reference, masks, numbers, answers }
    }

    /// Each exchange with its section and the numbers of case and exchange, as long as `ask` wants more.
    fn each(&mut self, session: &Session, mut ask: impl FnMut(&mut Self, &str, (usize, usize), &Exchange) -> bool) {
        for (case, of) in session.iter().enumerate() {
            self.numbers = Numbers::default();
            for (number, exchange) in of.exchanges.iter().enumerate() {
                if !ask(self, &of.section, (case + 1, number + 1), exchange) {
                    return;
                }
            }
        }
    }

    /// A text in which references are replaced by what was answered.
    fn fill(&self, text: &str) -> Result<String, String> {
        let mut missing = None;
        let filled = self.reference.replace_all(text, |found: &Captures<'_>| {
            let number = |index: usize| found[index].parse::<usize>().expect("digits");
            let answer = self.answers.get(&(number(1), number(2)));
            let value = answer.and_then(|answer| answer.pointer(&found[3])).and_then(Value::as_str);
            value
                .unwrap_or_else(|| {
                    missing = Some(format!("nothing was answered at {}", &found[0]));
                    ""
                })
                .to_owned()
        });
        let filled = filled.into_owned();
        missing.map_or(Ok(filled), Err)
    }

    /// Sends a request; returns the answer as it is compared.
    fn ask(&mut self, section: &str, place: (usize, usize), exchange: &Exchange) -> Result<Answer, String> {
        let target = self.fill(&exchange.target)?;
        let body = match &exchange.body {
            Body::None => Vec::new(),
            Body::Text(text) => self.fill(text)?.into_bytes(),
            Body::Protobuf(bytes) => bytes.clone(),
            Body::Encoded(said) => {
                let said = serde_json::from_str(&self.fill(said)?).map_err(|e| e.to_string())?;
                protobuf::encode(&said).map_err(|e| e.to_string())?
            }
        };
        let mut headers: Vec<(&str, &str)> = exchange.headers.iter().map(|(name, value)| (&**name, &**value)).collect();
        if exchange.upgrade() == Some("websocket") {
            headers.extend([("Sec-WebSocket-Version", "13"), ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==")]);
        }
        let found = match exchange.streams() {
            true => self.cluster.head_of(&exchange.method, &target, &headers),
            false => self.cluster.send(&exchange.method, &target, &headers, &body),
        };
        let mut shown = Shown::Nothing;
        if !exchange.streams() {
            let media_type = found.header("content-type").unwrap_or_default();
            if let Some(value) = json(media_type, &found.body) {
                self.masks.learn(&value);
                self.answers.insert(place, value);
            }
            let mut numbers = std::mem::take(&mut self.numbers);
            let begun = numbers.clone();
            shown = self.masks.shown(section, &target, media_type, &found.body, &mut numbers);
            // What is asked again has not taken numbers.
            self.numbers = if self.is_settled(exchange, &shown) { numbers } else { begun };
        }
        if exchange.method != "GET" {
            unsettle(&mut shown);
        }
        Ok(Answer { code: found.code, head: head(&found), body: shown })
    }

    fn is_settled(&self, exchange: &Exchange, shown: &Shown) -> bool {
        exchange.method != "GET" || exchange.answer.body == Shown::Nothing || {
            let found = Answer { body: shown.clone(), ..exchange.answer.clone() };
            against(exchange, &found).is_empty()
        }
    }

    /// Waits until nothing has changed for a while.
    fn await_quiet(&self) {
        let (begun, mut last, mut since) = (Instant::now(), String::new(), Instant::now());
        while since.elapsed() < QUIET {
            assert!(begun.elapsed() < PATIENCE, "something changes all the time");
            let now = self.fingerprint();
            if now != last {
                (last, since) = (now, Instant::now());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// The versions of all that controllers and agents write, but for what they always write.
    fn fingerprint(&self) -> String {
        let mut all = String::new();
        for path in [
            "/api/v1/pods",
            "/api/v1/services",
            "/api/v1/namespaces",
            "/api/v1/serviceaccounts",
            "/api/v1/configmaps",
            "/api/v1/replicationcontrollers",
            "/apis/apps/v1/deployments",
            "/apis/apps/v1/replicasets",
            "/apis/batch/v1/jobs",
            "/apis/batch/v1/cronjobs",
            "/apis/policy/v1/poddisruptionbudgets",
            "/apis/discovery.k8s.io/v1/endpointslices",
            "/apis/apiextensions.k8s.io/v1/customresourcedefinitions",
        ] {
            let accept = ("Accept", "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io");
            let list = self.cluster.send("GET", path, &[accept], b"").json();
            for item in list["items"].as_array().into_iter().flatten() {
                let _ = write!(all, "{} ", item["metadata"]["resourceVersion"]);
            }
        }
        all
    }
}

/// The headers of an answer that matter.
fn head(answer: &client::Answer) -> String {
    let mut head = answer.header("content-type").unwrap_or("-").to_owned();
    for (name, value) in answer.headers.iter().filter(|(name, _)| HEADERS.contains(&&**name)) {
        let _ = write!(head, " | {name}: {value}");
    }
    head
}

/// What a write answers has the status that controllers have come to by then.
fn unsettle(shown: &mut Shown) {
    let Shown::Json(value) = shown else { return };
    if value.pointer("/metadata/resourceVersion").is_some()
        && let Some(fields) = value.as_object_mut()
    {
        fields.remove("status");
    }
}
