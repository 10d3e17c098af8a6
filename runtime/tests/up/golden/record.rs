//! What a proxy has noted, as cases: each request once, and values that the server has given replaced by references
//! to the answers that told them.

use std::collections::{BTreeMap, BTreeSet};

use regex_lite::Regex;
use serde_json::{Map, Value};
use skeg_core::protobuf;

use super::normal::{generated, json, visit};
use super::proxy::{Notes, Passed};
use super::session::{Answer, Body, Case, Exchange, Session, Shown};

/// Headers of requests that matter.
const HEADERS: [&str; 5] = ["accept", "content-type", "upgrade", "sec-websocket-protocol", "x-stream-protocol-version"];

/// Where values were told that the server has given.
#[derive(Default)]
struct Told {
    /// Uids, generated names and paths of documents, and what stands for them.
    values: BTreeMap<String, String>,
    /// Generated names.
    names: BTreeSet<String>,
    revisions: BTreeMap<String, String>,
}

/// The cases of what was noted.
pub fn session(notes: Notes) -> Session {
    let mut told = Told::default();
    let mut session = Session::new();
    for (number, (section, title)) in notes.cases.into_iter().enumerate() {
        let passed: Vec<&Passed> = notes.passed.iter().filter(|passed| passed.case == number).collect();
        let mut exchanges = Vec::new();
        for (passed, of_many) in once_each(&passed) {
            exchanges.push(told.exchange(passed, of_many));
            let place = format!("{}.{}", number + 1, exchanges.len());
            // Of a watch, replays read nothing.
            if let Some(value) = json(&passed.media_type, &passed.answer).filter(|_| !passed.target.contains("watch="))
            {
                told.learn(&value, &place);
            }
        }
        let title = told.names.iter().fold(title, |title, name| title.replace(name, "<name>"));
        session.push(Case { section, title, exchanges });
    }
    session
}

/// Requests once each: of what is read again and again the last, of what is written again and again the first.
/// Objects that differ in what the server has generated of their names are alike; with each, whether it was of
/// several such.
fn once_each<'a>(passed: &[&'a Passed]) -> Vec<(&'a Passed, bool)> {
    let mut told = Told::default();
    passed.iter().filter_map(|p| json(&p.media_type, &p.answer)).for_each(|value| told.learn(&value, "0.0"));
    let mut kept: Vec<(String, &Passed, bool)> = Vec::new();
    let mut writes = 0;
    for passed in passed {
        let reads = passed.method == "GET" && !passed.headers.iter().any(|(name, _)| name == "upgrade");
        writes += usize::from(!reads);
        let shape = told.refer(&format!("{} {}", passed.method, passed.target));
        let shape = shape.split("/0.0/").map(|part| part.split_once("}}").map_or(part, |(_, rest)| rest));
        let mut shape: String = shape.collect();
        if reads {
            shape += &writes.to_string();
        }
        match kept.iter().position(|(other, ..)| *other == shape) {
            Some(place) => {
                let (_, first, of_many) = kept.remove(place);
                let again = (shape, first, of_many || first.target != passed.target);
                kept.insert(if reads { kept.len() } else { place }, again);
            }
            None => kept.push((shape, passed, false)),
        }
    }
    kept.into_iter().map(|(_, passed, of_many)| (passed, of_many)).collect()
}

impl Told {
    fn learn(&mut self, value: &Value, place: &str) {
        let mut learn = |fields: &Map<String, Value>, pointer: &str| {
            let mut tell = |key: &str, value: &str| {
                self.values.insert(value.to_owned(), format!("{{{{{place}{pointer}/{key}}}}}"));
            };
            if let Some((name, _)) = generated(fields) {
                tell("name", name);
                self.names.insert(name.to_owned());
            }
            for key in ["uid", "serverRelativeURL"] {
                if let Some(value) = fields.get(key).and_then(Value::as_str).filter(|value| value.len() > 8) {
                    tell(key, value);
                }
            }
            if let Some(revision) = fields.get("resourceVersion").and_then(Value::as_str) {
                self.revisions.insert(revision.to_owned(), format!("{{{{{place}{pointer}/resourceVersion}}}}"));
            }
        };
        visit(value, &mut learn, "");
    }

    /// A text with references in place of what was told.
    fn refer(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for (value, reference) in &self.values {
            text = text.replace(value.as_str(), reference);
        }
        let revision = Regex::new(r#"(resourceVersion(=|":"))(\d+)"#).expect("a pattern");
        let refer = |found: &regex_lite::Captures<'_>| match self.revisions.get(&found[3]) {
            Some(reference) => format!("{}{reference}", &found[1]),
            None => found[0].to_owned(),
        };
        let text = revision.replace_all(&text, refer).into_owned();
        // Clients draw it.
        let timeout = Regex::new(r"timeoutSeconds=\d+").expect("a pattern");
        timeout.replace_all(&text, "timeoutSeconds=300").into_owned()
    }

    /// What is asked of many objects of a list is asked of the first, since there may be fewer the next time.
    fn exchange(&self, passed: &Passed, of_many: bool) -> Exchange {
        let item = Regex::new(r"(\{\{[\d.]+/(?:items|rows)/)\d+").expect("a pattern");
        let refer = |text: &str| match (self.refer(text), of_many) {
            (text, true) => item.replace_all(&text, "${1}0").into_owned(),
            (text, false) => text,
        };
        let headers = passed.headers.iter().filter(|(name, _)| HEADERS.contains(&&**name)).cloned().collect();
        let body = if passed.body.is_empty() {
            Body::None
        } else if protobuf::has_prefix(&passed.body) {
            // Options have neither version nor kind, and refer to nothing that cannot be seen in JSON.
            let said = protobuf::decode(&passed.body, None).expect("the client's protobuf can be read").to_string();
            let referring = refer(&said);
            if referring == said { Body::Protobuf(passed.body.clone()) } else { Body::Encoded(referring) }
        } else {
            let text = String::from_utf8(passed.body.clone()).expect("other bodies are text");
            Body::Text(refer(text.trim_end()))
        };
        Exchange {
            method: passed.method.clone(),
            target: refer(&passed.target),
            headers,
            body,
            // Cluster after cluster answers it.
            answer: Answer { code: 0, head: String::new(), body: Shown::Nothing },
        }
    }
}
