//! Placeholders for what is secret: of the same length, equal for equal values, and keyed, so that nobody finds a value
//! by trying. The key is drawn when a recording begins, and is written nowhere.
//!
//! Replaced are the values of Secrets' `data` and `stringData` wherever a Secret, or a patch of one, is part of a
//! message, and kubectl's annotation of what was applied last; in what agents tell container runtimes, all that came
//! from Secrets. A machine that is given the placeholders decides the same with them, unless it looks at a value.

use std::collections::{BTreeMap, BTreeSet};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::hmac::{HMAC_SHA256, Key, sign};
use serde_json::{Map, Value};

const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
/// Where a message says what it is, at the latest.
const HEAD: usize = 128;
/// Values that are shorter than this are replaced where they stand alone, and not within other text.
const FOUND_IN_TEXT: usize = 4;

/// Replaces what is secret.
pub struct Secrets {
    key: Key,
    /// Values that have been replaced, as text, with what they were replaced by.
    texts: BTreeMap<String, String>,
    /// The same for values in base64.
    encoded: BTreeMap<String, String>,
    /// What is looked for within other text, by how it begins, so that many values cost no more than few.
    beginnings: BTreeMap<[u8; FOUND_IN_TEXT], Vec<String>>,
    /// Consultations about Secrets, whose answers may change them.
    consulted: BTreeSet<u64>,
}

/// The text of a map's value; empty if there is none.
fn text<'a>(map: &'a Map<String, Value>, field: &str) -> &'a str {
    map.get(field).and_then(Value::as_str).unwrap_or_default()
}

/// Goes to a part of a value, with its place as a JSON pointer.
fn within<T>(place: &mut String, part: &str, go: impl FnOnce(&mut String) -> T) -> T {
    let length = place.len();
    place.push('/');
    place.push_str(&part.replace('~', "~0").replace('/', "~1"));
    let result = go(place);
    place.truncate(length);
    result
}

impl Secrets {
    pub fn new(key: &[u8]) -> Secrets {
        Secrets {
            key: Key::new(HMAC_SHA256, key),
            texts: BTreeMap::new(),
            encoded: BTreeMap::new(),
            beginnings: BTreeMap::new(),
            consulted: BTreeSet::new(),
        }
    }

    /// Whether a text may hold something that is secret. It is asked for every message, so it is coarse.
    pub fn concern(message: &str) -> bool {
        // Answers from outside, refusals and warnings say what they are at their beginning.
        let head = &message.as_bytes()[..message.len().min(HEAD)];
        let begins = |name: &[u8]| head.windows(name.len()).any(|part| part == name);
        begins(b"\"Consulted\"") || begins(b"\"Err\"") || begins(b"\"Note\"") || message.contains("ecret")
    }

    /// Whether any value has been replaced so far.
    pub fn are_known(&self) -> bool {
        !self.texts.is_empty()
    }

    /// Replaces what is secret in a message, and lists where. In a message of an agent, `everywhere` is set: what came
    /// from Secrets is then looked for in all its text.
    pub fn hide(&mut self, message: &mut Value, everywhere: bool) -> Vec<String> {
        let mut hidden = Vec::new();
        self.note_consultation(message);
        self.walk(message, &mut String::new(), &mut hidden);
        self.answers(message, &mut hidden);
        if everywhere {
            self.scrub(message, &mut String::new(), &mut hidden);
        }
        hidden
    }

    /// Remembers a question about a Secret.
    fn note_consultation(&mut self, message: &Value) {
        let Some(asked) = message.get("Consult") else { return };
        let about = |question: &Value| question["body"]["request"]["kind"]["kind"] == "Secret";
        if asked[1].as_array().is_some_and(|questions| questions.iter().any(about)) {
            self.consulted.extend(asked[0].as_u64());
        }
    }

    /// Replaces what answers about Secrets change in them.
    fn answers(&mut self, message: &mut Value, hidden: &mut Vec<String>) {
        let Some(answered) = message.get_mut("Consulted") else { return };
        if !answered[0].as_u64().is_some_and(|id| self.consulted.remove(&id)) {
            return;
        }
        for (n, answer) in answered[1].as_array_mut().into_iter().flatten().enumerate() {
            let Some(patch) = answer.pointer_mut("/Ok/response/patch") else { continue };
            let bytes = patch.as_str().and_then(|text| STANDARD.decode(text).ok()).unwrap_or_default();
            let Ok(mut operations) = serde_json::from_slice::<Value>(&bytes) else { continue };
            self.json_patch(&mut operations, &mut String::new(), &mut Vec::new());
            *patch = Value::String(STANDARD.encode(operations.to_string()));
            hidden.push(format!("/Consulted/1/{n}/Ok/response/patch"));
        }
    }

    fn walk(&mut self, value: &mut Value, place: &mut String, hidden: &mut Vec<String>) {
        match value {
            Value::Object(map) => {
                if text(map, "kind") == "Secret" && text(map, "apiVersion") == "v1" {
                    self.secret(map, place, hidden);
                }
                let patches = text(map, "key").starts_with("secrets:");
                for (name, value) in map {
                    within(place, name, |place| match name.as_str() {
                        // What is applied is a Secret as well, and no placeholder gets another.
                        "patch" if patches => self.patch(value, place, hidden),
                        // Refusals may quote what they are about.
                        "Err" | "Note" => self.scrub(value, place, hidden),
                        _ => self.walk(value, place, hidden),
                    });
                }
            }
            Value::Array(items) => {
                for (n, item) in items.iter_mut().enumerate() {
                    within(place, &n.to_string(), |place| self.walk(item, place, hidden));
                }
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }

    /// Replaces the values of a Secret, or of what is merged into one.
    fn secret(&mut self, map: &mut Map<String, Value>, place: &mut String, hidden: &mut Vec<String>) {
        // Of the Secrets that controllers fill with tokens, all but the token is public, and compared with what is.
        let public: &[&str] = match text(map, "type") {
            "kubernetes.io/service-account-token" => &["ca.crt", "namespace"],
            _ => &[],
        };
        for (field, encoded) in [("data", true), ("stringData", false)] {
            let Some(values) = map.get_mut(field) else { continue };
            within(place, field, |place| match values {
                Value::Object(values) => {
                    for (name, value) in values.iter_mut().filter(|(name, _)| !public.contains(&name.as_str())) {
                        within(place, name, |place| self.leaf(value, encoded, place, hidden));
                    }
                }
                other => self.leaf(other, encoded, place, hidden),
            });
        }
        let annotations = map.get_mut("metadata").and_then(|m| m.get_mut("annotations"));
        if let Some(annotations) = annotations {
            within(place, "metadata", |place| {
                within(place, "annotations", |place| self.annotations(annotations, place, hidden))
            });
        }
    }

    fn annotations(&mut self, annotations: &mut Value, place: &mut String, hidden: &mut Vec<String>) {
        if let Some(applied) = annotations.get_mut(LAST_APPLIED) {
            within(place, LAST_APPLIED, |place| self.leaf(applied, false, place, hidden));
        }
    }

    fn patch(&mut self, patch: &mut Value, place: &mut String, hidden: &mut Vec<String>) {
        let Value::Object(patch) = patch else { return };
        for (name, body) in patch {
            within(place, name, |place| match (name.as_str(), body) {
                ("Json", operations) => self.json_patch(operations, place, hidden),
                ("Apply", apply) => {
                    let Some(Value::Object(body)) = apply.get_mut("body") else { return };
                    within(place, "body", |place| self.secret(body, place, hidden));
                }
                (_, Value::Object(body)) => self.secret(body, place, hidden),
                (_, other) => self.leaf(other, false, place, hidden),
            });
        }
    }

    fn json_patch(&mut self, operations: &mut Value, place: &mut String, hidden: &mut Vec<String>) {
        let applied = LAST_APPLIED.replace('/', "~1");
        for (n, operation) in operations.as_array_mut().into_iter().flatten().enumerate() {
            let path = operation["path"].as_str().unwrap_or_default().to_owned();
            let Some(value) = operation.get_mut("value") else { continue };
            let place = &mut format!("{place}/{n}/value");
            match (path.as_str(), value) {
                ("", Value::Object(whole)) => self.secret(whole, place, hidden),
                ("/metadata/annotations", annotations) => self.annotations(annotations, place, hidden),
                (path, value) if path.starts_with("/data") => self.leaf(value, true, place, hidden),
                (path, value) if path.starts_with("/stringData") || path.ends_with(&applied) => {
                    self.leaf(value, false, place, hidden);
                }
                _ => {}
            }
        }
    }

    /// Replaces all that a value holds; `encoded` says that text in it is base64.
    fn leaf(&mut self, value: &mut Value, encoded: bool, place: &mut String, hidden: &mut Vec<String>) {
        match value {
            Value::String(text) if !text.is_empty() => {
                *text = if encoded { self.of_base64(text) } else { self.of_text(text) };
                hidden.push(place.clone());
            }
            Value::Number(number) => {
                let (number, digit) = (number.to_string(), |byte: u8| char::from(b'1' + byte % 9));
                let digits: String = self.stream(number.as_bytes()).take(number.len().min(15)).map(digit).collect();
                *value = Value::from(digits.parse::<u64>().expect("fifteen digits are a number"));
                hidden.push(place.clone());
            }
            Value::Object(map) => {
                for (name, value) in map {
                    within(place, name, |place| self.leaf(value, encoded, place, hidden));
                }
            }
            Value::Array(items) => {
                for (n, item) in items.iter_mut().enumerate() {
                    within(place, &n.to_string(), |place| self.leaf(item, encoded, place, hidden));
                }
            }
            Value::Null | Value::Bool(_) | Value::String(_) => {}
        }
    }

    /// The placeholder of a text.
    pub fn of_text(&mut self, value: &str) -> String {
        if let Some(placeholder) = self.texts.get(value) {
            return placeholder.clone();
        }
        let placeholder = String::from_utf8(self.placeholder(value.as_bytes())).expect("that of text is text");
        self.texts.insert(value.to_owned(), placeholder.clone());
        self.look_for(value);
        // Files of containers are written in base64, too.
        self.know_encoded(STANDARD.encode(value), STANDARD.encode(&placeholder));
        placeholder
    }

    fn know_encoded(&mut self, value: String, placeholder: String) {
        self.look_for(&value);
        self.encoded.insert(value, placeholder);
    }

    /// Has a value looked for within other text.
    fn look_for(&mut self, value: &str) {
        let Some(begins) = value.as_bytes().first_chunk() else { return };
        let same = self.beginnings.entry(*begins).or_default();
        if !same.iter().any(|known| known == value) {
            same.push(value.to_owned());
        }
    }

    /// The placeholder of bytes in base64, in base64.
    fn of_base64(&mut self, encoded: &str) -> String {
        if let Some(placeholder) = self.encoded.get(encoded) {
            return placeholder.clone();
        }
        let placeholder = match STANDARD.decode(encoded) {
            Ok(bytes) if STANDARD.encode(&bytes) == encoded => {
                if let Ok(text) = std::str::from_utf8(&bytes) {
                    self.of_text(text);
                }
                STANDARD.encode(self.placeholder(&bytes))
            }
            // What is wrong with it stays as wrong.
            Ok(_) | Err(_) => {
                let mut stream = self.stream(encoded.as_bytes());
                let other = |c: char| match c {
                    c if c.is_ascii_alphanumeric() => {
                        char::from(ALPHABET[usize::from(stream.next().unwrap_or(0)) % 62])
                    }
                    c => c,
                };
                encoded.chars().map(other).collect()
            }
        };
        self.know_encoded(encoded.to_owned(), placeholder.clone());
        placeholder
    }

    /// An endless stream of bytes that follows from a value and the key.
    fn stream(&self, value: &[u8]) -> impl Iterator<Item = u8> + use<> {
        let (key, value) = (self.key.clone(), value.to_vec());
        (0u64..).flat_map(move |block| {
            let tag = sign(&key, &[&block.to_le_bytes()[..], &value].concat());
            <[u8; 32]>::try_from(tag.as_ref()).expect("SHA-256 has 32 bytes")
        })
    }

    /// Of the same length; text if the value is text, and a JSON object if it is one.
    fn placeholder(&self, value: &[u8]) -> Vec<u8> {
        let letters = self.stream(value).map(|byte| ALPHABET[usize::from(byte) % 62]);
        let is_object = value.starts_with(b"{") && serde_json::from_slice::<Map<String, Value>>(value).is_ok();
        match value.len() {
            0 => Vec::new(),
            n if is_object && n > 6 => [b"{\"", &*letters.take(n - 6).collect::<Vec<u8>>(), b"\":0}"].concat(),
            n if is_object => [&b"{}"[..], &b"    "[..n - 2]].concat(),
            n if std::str::from_utf8(value).is_ok() => letters.take(n).collect(),
            n => std::iter::once(0xff).chain(letters).take(n).collect(),
        }
    }

    /// Replaces what came from Secrets in all text of a value.
    fn scrub(&mut self, value: &mut Value, place: &mut String, hidden: &mut Vec<String>) {
        match value {
            Value::String(text) => {
                if let Some(clean) = self.scrubbed(text) {
                    *text = clean;
                    hidden.push(place.clone());
                }
            }
            Value::Object(map) => {
                for (name, value) in map {
                    within(place, name, |place| self.scrub(value, place, hidden));
                }
            }
            Value::Array(items) => {
                for (n, item) in items.iter_mut().enumerate() {
                    within(place, &n.to_string(), |place| self.scrub(item, place, hidden));
                }
            }
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }

    /// A text without what came from Secrets; `None` if there is nothing of it in it.
    fn scrubbed(&self, text: &str) -> Option<String> {
        if let Some(placeholder) = self.replaced(text) {
            return Some(placeholder.clone());
        }
        let bytes = text.as_bytes();
        let at = |(n, begins): (usize, &[u8])| {
            let known = self.beginnings.get(begins).into_iter().flatten();
            known.filter(move |value| bytes[n..].starts_with(value.as_bytes()))
        };
        let found: BTreeSet<&String> = bytes.windows(FOUND_IN_TEXT).enumerate().flat_map(at).collect();
        // The longest first: one value may be part of another.
        let mut found: Vec<_> = found.into_iter().collect();
        found.sort_by_key(|value| usize::MAX - value.len());
        let with = |clean: String, value: &&String| match self.replaced(value) {
            Some(placeholder) => clean.replace(&***value, placeholder),
            None => clean,
        };
        (!found.is_empty()).then(|| found.iter().fold(text.to_owned(), with))
    }

    /// What a whole text was replaced by, as it is or in base64.
    fn replaced(&self, text: &str) -> Option<&String> {
        self.texts.get(text).or_else(|| self.encoded.get(text))
    }
}
