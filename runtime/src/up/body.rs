//! Request bodies: limits on size and depth, and decoding.

use std::fmt;
use std::time::Duration;

use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderMap};
use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};
use serde_saphyr::Spanned;
use skeg_core::api::{Patch, Reason, Status};
use skeg_core::limits::STRICT_ERRORS;
use skeg_core::object::decode::{self, DecodeError};
use skeg_core::protobuf;

/// Maximum bytes of a body (apiserver `MaxRequestBodyBytes`).
pub const MAX_BYTES: usize = 3 << 20;
/// Up to this many bytes of a body that is too large are read and discarded, so that the client reads the 413 instead
/// of a connection error.
const MAX_DISCARDED: usize = 32 << 20;
/// Time-out for receiving a body.
const PATIENCE: Duration = Duration::from_secs(30);
/// The media type of server-side apply.
pub const APPLY: &str = "application/apply-patch+yaml";
/// Maximum number of values in a YAML body; values that aliases repeat count each time.
const MAX_VALUES: usize = 300_000;
/// Maximum nesting depth of a YAML body; serde_json has a similar limit.
const MAX_DEPTH: usize = 100;
/// Stack size of the YAML parser, which recurses up to [`MAX_DEPTH`] levels deep with large frames.
const PARSER_STACK: usize = 16 << 20;

/// Reads a body until its end.
pub async fn read(body: Incoming) -> Result<Vec<u8>, Status> {
    match tokio::time::timeout(PATIENCE, collect(body)).await {
        Ok(read) => read,
        Err(_) => Err(Status::bad_request("the request body did not arrive in time")),
    }
}

async fn collect(mut body: Incoming) -> Result<Vec<u8>, Status> {
    let (mut bytes, mut length) = (Vec::new(), 0);
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|e| Status::bad_request(format!("unable to read the body: {e}")))?;
        let Ok(data) = frame.into_data() else { continue };
        length += data.len();
        if length <= MAX_BYTES {
            bytes.extend_from_slice(&data);
        } else if length > MAX_DISCARDED {
            break;
        }
    }
    if length <= MAX_BYTES {
        return Ok(bytes);
    }
    let message = format!("Request entity too large: limit is {MAX_BYTES}").into();
    Err(Status { reason: Reason::RequestEntityTooLarge, message, details: None })
}

/// The media type of a body, in lower case and without parameters; JSON if the header is missing.
pub fn media_type(headers: &HeaderMap) -> String {
    let given = headers.get(CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
    let bare = given.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    if bare.is_empty() || bare == "*/*" { "application/json".to_owned() } else { bare }
}

fn unsupported(given: &str, known: &[&str]) -> Status {
    let message = format!(
        "the body of the request was in an unknown format - accepted media types include: {}",
        known.join(", ")
    );
    tracing::debug!("a body of type {given:?} was refused");
    Status { reason: Reason::UnsupportedMediaType, message: message.into(), details: None }
}

/// A decoded object, and the fields that occur more than once in its body; the last occurrence is used.
pub type Decoded = (Value, Vec<DecodeError>);

/// Decodes an object. A protobuf body whose envelope names no kind is decoded as `DeleteOptions`.
pub fn object(media_type: &str, bytes: &[u8]) -> Result<Decoded, Status> {
    match media_type {
        "application/json" => decode::parse(bytes),
        "application/yaml" => yaml(bytes),
        protobuf::MEDIA_TYPE => {
            let decoded = protobuf::decode(bytes, Some(("v1", "DeleteOptions")));
            Ok((decoded.map_err(|e| Status::bad_request(e.0))?, Vec::new()))
        }
        other => Err(unsupported(other, &["application/json", "application/yaml", protobuf::MEDIA_TYPE])),
    }
}

/// Decodes a patch, with the fields that occur more than once in it. `manager` and `force` apply to server-side apply
/// only.
pub fn patch(media_type: &str, bytes: &[u8], manager: &str, force: bool) -> Result<(Patch, Vec<DecodeError>), Status> {
    let (body, twice) = match media_type {
        "application/json-patch+json" => return Ok((Patch::Json(json(bytes)?), Vec::new())),
        "application/merge-patch+json" | "application/strategic-merge-patch+json" => decode::parse(bytes)?,
        APPLY => yaml(bytes)?,
        other => {
            let known = [
                "application/json-patch+json",
                "application/merge-patch+json",
                "application/strategic-merge-patch+json",
                APPLY,
            ];
            return Err(unsupported(other, &known));
        }
    };
    let patch = match media_type {
        "application/merge-patch+json" => Patch::Merge(body),
        APPLY => Patch::Apply { body, manager: manager.to_owned(), force },
        _ => Patch::Strategic(body),
    };
    Ok((patch, twice))
}

fn json(bytes: &[u8]) -> Result<Value, Status> {
    let bad = |e: serde_json::Error| Status::bad_request(format!("couldn't get version/kind; json parse error: {e}"));
    serde_json::from_slice(bytes).map_err(bad)
}

fn yaml(bytes: &[u8]) -> Result<Decoded, Status> {
    // The parser gets its own thread for the stack size: the maximum depth must not depend on the caller's stack.
    std::thread::scope(|scope| {
        let parser = std::thread::Builder::new().stack_size(PARSER_STACK);
        let parser = parser.spawn_scoped(scope, || parse_yaml(bytes));
        let parser = parser.map_err(|e| Status::unavailable(format!("no thread could be started: {e}")))?;
        parser.join().expect("the parser does not panic")
    })
}

fn parse_yaml(bytes: &[u8]) -> Result<Decoded, Status> {
    let text = std::str::from_utf8(bytes).map_err(|_| Status::bad_request("yaml: the text is not UTF-8"))?;
    let mut options = serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_depth: MAX_DEPTH,
            flow_nesting_limit: MAX_DEPTH,
            max_nodes: MAX_VALUES,
            max_total_scalar_bytes: MAX_BYTES,
            max_events: 3 * MAX_VALUES,
            max_documents: 1,
        },
        alias_limits: serde_saphyr::alias_limits! { max_total_replayed_events: MAX_VALUES, },
        legacy_octal_numbers: true,
        reject_unsupported_tags: true,
        with_snippet: false,
        emit_comments: false,
    };
    let error = match serde_saphyr::from_str_with_options(text, options.clone()) {
        Ok(value) => return Ok((value, Vec::new())),
        Err(error) => error,
    };
    // Keys that come twice are no error to Kubernetes, which names them all; they are sought only where there are any.
    options.duplicate_keys = serde_saphyr::DuplicateKeyPolicy::PassThrough;
    if let Ok(Repeating { value, twice }) = serde_saphyr::from_str_with_options(text, options)
        && !twice.is_empty()
    {
        let message = format!("yaml: unmarshal errors:\n{}", twice.join("\n"));
        return Ok((value, vec![DecodeError { path: String::new(), message, unknown_field: true }]));
    }
    let error = error.to_string();
    let first = error.lines().next().unwrap_or_default();
    Err(Status::bad_request(format!("error converting YAML to JSON: yaml: {first}")))
}

/// YAML in which keys come twice in a map; the last occurrence is used.
struct Repeating {
    value: Value,
    /// A line for each key that its map already has, in the words of Go's decoder.
    twice: Vec<String>,
}

impl<'de> Deserialize<'de> for Repeating {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Repeating, D::Error> {
        let mut twice = Vec::new();
        let value = Noting(&mut twice).deserialize(deserializer)?;
        Ok(Repeating { value, twice })
    }
}

/// Reads a value and notes the keys that come twice in it.
struct Noting<'a>(&'a mut Vec<String>);

impl<'de> DeserializeSeed<'de> for Noting<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Noting<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any YAML")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, b: bool) -> Result<Value, E> {
        Ok(Value::Bool(b))
    }

    fn visit_i64<E>(self, n: i64) -> Result<Value, E> {
        Ok(n.into())
    }

    fn visit_u64<E>(self, n: u64) -> Result<Value, E> {
        Ok(n.into())
    }

    fn visit_f64<E: serde::de::Error>(self, n: f64) -> Result<Value, E> {
        serde_json::Number::from_f64(n).map(Value::Number).ok_or_else(|| E::custom("not a finite number"))
    }

    fn visit_str<E>(self, s: &str) -> Result<Value, E> {
        Ok(s.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element_seed(Noting(self.0))? {
            items.push(item);
        }
        Ok(Value::Array(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut fields = Map::new();
        while let Some(Spanned { value: name, referenced, .. }) = map.next_key::<Spanned<String>>()? {
            if fields.contains_key(&name) && self.0.len() < STRICT_ERRORS {
                self.0.push(format!("  line {}: key {name:?} already set in map", referenced.line()));
            }
            let value = map.next_value_seed(Noting(self.0))?;
            fields.insert(name, value);
        }
        Ok(Value::Object(fields))
    }
}

#[cfg(test)]
mod tests {
    use super::{object, patch};
    use serde_json::{Value, json};
    use skeg_core::api::Patch;

    #[test]
    fn bodies_come_as_json_or_yaml() {
        let want = json!({"kind": "Pod", "spec": {"n": 420}});
        assert_eq!(object("application/json", br#"{"kind":"Pod","spec":{"n":420}}"#).unwrap().0, want);
        assert_eq!(object("application/yaml", b"kind: Pod\nspec:\n  n: 0644\n").unwrap().0, want);
    }

    #[test]
    fn keys_that_come_twice_are_named_with_their_lines() {
        let check = |text: &str, value: Value, twice: &str| {
            let (read, minded) = object("application/yaml", text.as_bytes()).unwrap();
            assert_eq!(read, value, "{text}");
            let lines: Vec<&str> = minded.iter().map(|e| e.message.as_str()).collect();
            assert_eq!(lines, [format!("yaml: unmarshal errors:\n{twice}")], "{text}");
        };
        check(
            "a: 1\nb:\n- c: v\n  c: w\na: 2\n",
            json!({"a": 2, "b": [{"c": "w"}]}),
            "  line 4: key \"c\" already set in map\n  line 5: key \"a\" already set in map",
        );
        check("a: {b: 1.5, 'b': null}\n", json!({"a": {"b": null}}), "  line 1: key \"b\" already set in map");
        let (read, minded) = patch(super::APPLY, b"a: true\na: -1\n", "m", false).unwrap();
        assert_eq!(read, Patch::Apply { body: json!({"a": -1}), manager: "m".to_owned(), force: false });
        assert_eq!(minded[0].message, "yaml: unmarshal errors:\n  line 2: key \"a\" already set in map");
        let minded = patch("application/merge-patch+json", br#"{"a": {"b": 1, "b": 2}}"#, "", false).unwrap().1;
        assert_eq!(minded[0].message, "duplicate field \"a.b\"");
    }

    #[test]
    fn what_cannot_be_read_is_refused() {
        let deep = format!("{}1{}", "[".repeat(5000), "]".repeat(5000));
        let nested = format!("a: {}1{}", "{a: ".repeat(5000), "}".repeat(5000));
        let bomb = (0..30)
            .fold("x0: &x0 [a, a]\n".to_owned(), |text, i| format!("{text}x{}: &x{} [*x{i}, *x{i}]\n", i + 1, i + 1));
        for (media_type, body, code) in [
            ("application/json", "{", 400),
            ("application/json", &*deep, 400),
            ("application/json", "{\"a\": 1} x", 400),
            ("application/yaml", "a: [", 400),
            ("application/yaml", &*nested, 400),
            ("application/yaml", &*bomb, 400),
            ("application/yaml", "a: 1\n---\nb: 2\n", 400),
            ("text/plain", "{}", 415),
            ("application/vnd.kubernetes.protobuf", "k8s", 400),
        ] {
            let status = object(media_type, body.as_bytes()).unwrap_err();
            assert_eq!(status.reason.code(), code, "{media_type} {}", &body[..body.len().min(40)]);
        }
        assert_eq!(patch("application/json", b"{}", "", false).unwrap_err().reason.code(), 415);
    }
}
