//! Conversion of custom resources between versions by a webhook: what it is asked, and how its answer is read.
//!
//! An object is held in the version in which it was stored. A write is decided in the version of its request: what is
//! replaced is converted to that version first ([`Deciding::in_version`]), and what comes of it to the stored version
//! last. Each time, the write waits for the webhook, and is decided anew with its answer. Who reads gets what is
//! stored: the driver converts it with [`Conversion`], many objects by one question.
//!
//! Source: apiextensions-apiserver `pkg/apiserver/conversion`,
//! <https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definition-versioning/>.

use std::time::Duration;

use serde_json::{Map, Value, json};

use super::admission::webhook::{Answered, Callee, Consultation, certificates};
use super::custom::CustomResource;
use super::write::{Deciding, Decision, Write};
use crate::api::{Call, Patch, Reason, Request, Status, Subresource};
use crate::object::{Object, validation};

/// How long a webhook may take.
const TIMEOUT: Duration = Duration::from_secs(30);
/// The metadata that a webhook may change.
const CHANGEABLE: [&str; 2] = ["labels", "annotations"];

/// The webhook that converts the objects of a definition.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Conversion {
    callee: Callee,
    ca: Option<String>,
    /// The version of the ConversionReview; `None` if it understands none that is known.
    review_version: Option<&'static str>,
}

/// What is converted, for errors.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Converted {
    /// Objects one by one; the first one's version and kind.
    Each(String),
    /// The objects of a list in this version and of this kind.
    List(String),
}

impl Converted {
    /// Objects that are not in a list.
    pub fn each(objects: &[Value]) -> Converted {
        let first = objects.first().unwrap_or(&Value::Null);
        Converted::Each(named(text(first, "apiVersion"), text(first, "kind")))
    }

    /// The objects of a list.
    pub fn list(api_version: &str, kind: &str) -> Converted {
        Converted::List(named(api_version, &format!("{kind}List")))
    }

    fn name(&self) -> &str {
        match self {
            Converted::Each(name) | Converted::List(name) => name,
        }
    }

    /// 500: the webhook has not answered as it has to.
    fn failed(&self, why: &str) -> Status {
        plain(format!("conversion webhook for {} failed: {why}", self.name()))
    }

    /// 500: the webhook has made something else than the object in another version.
    fn invalid(&self, what: &str, index: usize, why: &str) -> Status {
        let (adjective, at) = match self {
            Converted::Each(_) => ("invalid", String::new()),
            Converted::List(_) if what == "object" => ("invalid converted", format!(" at index {index}")),
            Converted::List(_) => ("invalid", format!(" in object at index {index}")),
        };
        plain(format!("conversion webhook for {} returned {adjective} {what}{at}: {why}", self.name()))
    }
}

/// 500, without the words that most internal errors begin with.
fn plain(message: String) -> Status {
    Status { reason: Reason::InternalError, message: message.into(), details: None }
}

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap_or_default()
}

/// `GroupVersionKind.String`.
fn named(api_version: &str, kind: &str) -> String {
    format!("{api_version}, Kind={kind}")
}

impl Conversion {
    /// Reads the `spec` of a definition; `None` if its versions differ by name only.
    pub fn read(spec: &Value) -> Option<Conversion> {
        let conversion = spec.get("conversion").filter(|conversion| conversion["strategy"] == "Webhook")?;
        let client = &conversion["webhook"]["clientConfig"];
        let versions = conversion["webhook"]["conversionReviewVersions"].as_array().into_iter().flatten();
        let known = versions.filter_map(|version| ["v1", "v1beta1"].into_iter().find(|known| version == known));
        let (callee, ca) = (Callee::read(client), certificates(client));
        Some(Conversion { callee, ca, review_version: known.into_iter().next() })
    }

    /// The question how objects are written in the version `to`.
    pub fn question(&self, objects: &[Value], to: &str, uid: &str) -> Result<Consultation, Status> {
        let version = self.review_version.ok_or_else(|| plain("no supported conversion review versions".to_owned()))?;
        let request = json!({"uid": uid, "desiredAPIVersion": to, "objects": objects});
        let body = json!({"kind": "ConversionReview", "apiVersion": format!("apiextensions.k8s.io/{version}"),
            "request": request});
        Ok(Consultation { callee: self.callee.clone(), ca: self.ca.clone(), timeout: TIMEOUT, body })
    }

    /// Reads the answer to that question: the objects in their order, with the metadata that they had, but for labels
    /// and annotations.
    pub fn answer(
        &self,
        what: &Converted,
        objects: &[Value],
        to: &str,
        uid: &str,
        answered: Answered,
    ) -> Result<Vec<Value>, Status> {
        let made = answered.and_then(|answer| self.objects_in(answer, uid)).map_err(|why| what.failed(&why))?;
        if made.len() != objects.len() {
            let counts = format!("returned {} objects, expected {}", made.len(), objects.len());
            return Err(plain(format!("conversion webhook for {} {counts}", what.name())));
        }
        let pairs = objects.iter().zip(made).enumerate();
        pairs.map(|(index, (object, made))| take(what, index, object, made, to)).collect()
    }

    fn objects_in(&self, mut answer: Value, uid: &str) -> Result<Vec<Value>, String> {
        let is_v1 = self.review_version == Some("v1");
        let got = named(text(&answer, "apiVersion"), text(&answer, "kind"));
        let expected = named("apiextensions.k8s.io/v1", "ConversionReview");
        if is_v1 && got != expected {
            return Err(format!("expected webhook response of {expected}, got {got}"));
        }
        let response = answer["response"].take();
        if response.is_null() {
            return Err("no response provided".to_owned());
        }
        let told = text(&response, "uid");
        if is_v1 && told != uid {
            return Err(format!("expected response.uid={uid:?}, got {told:?}"));
        }
        let (status, message) = (text(&response["result"], "status"), text(&response["result"], "message"));
        match (status, message) {
            ("Success", _) => {}
            (status, "") => return Err(format!("response.result.status was '{status}', not 'Success'")),
            (_, message) => return Err(message.to_owned()),
        }
        Ok(response["convertedObjects"].as_array().cloned().unwrap_or_default())
    }
}

/// Takes a converted object if it is what it has to be, with the metadata of the original.
fn take(what: &Converted, index: usize, original: &Value, mut made: Value, to: &str) -> Result<Value, Status> {
    for (is, expected, got) in
        [("groupVersion", to, text(&made, "apiVersion")), ("kind", text(original, "kind"), text(&made, "kind"))]
    {
        if expected != got {
            let why = format!("invalid {is} (expected {expected}, received {got})");
            return Err(match what {
                Converted::List(_) => what.invalid("object", index, &why),
                Converted::Each(name) => {
                    plain(format!("conversion webhook for {name} returned invalid object at index {index}: {why}"))
                }
            });
        }
    }
    for (is, field) in [("name", "name"), ("namespace", "namespace"), ("UID", "uid")] {
        let (expected, got) = (text(&original["metadata"], field), text(&made["metadata"], field));
        if expected != got {
            return Err(what.invalid("object", index, &format!("must have the same {is}: {expected} != {got}")));
        }
    }
    let metadata = restored(&original["metadata"], made.get("metadata"));
    made["metadata"] = metadata.map_err(|why| what.invalid("metadata", index, &why))?;
    Ok(made)
}

/// The metadata of an object that was converted: that of the original, with the labels and annotations of what was made
/// of it.
fn restored(original: &Value, made: Option<&Value>) -> Result<Value, String> {
    let Some(made) = made else { return Err("missing metadata in converted object".to_owned()) };
    let Value::Object(made) = made else {
        return Err(format!("invalid metadata of type {} in converted object", go_type(made)));
    };
    let mut metadata = original.as_object().cloned().unwrap_or_default();
    for field in CHANGEABLE {
        let Some(changed) = made.get(field).filter(|changed| !changed.is_null()) else {
            metadata.remove(field);
            continue;
        };
        let Value::Object(map) = changed else {
            return Err(format!("invalid metadata.{field} of type {} in converted object", go_type(changed)));
        };
        if let Some((key, value)) = map.iter().find(|(_, value)| !value.is_string()) {
            let is = go_type(value);
            return Err(format!("metadata.{field}[{key}] must be a string, but is {is} in converted object"));
        }
        if metadata.get(field) != Some(changed) {
            check_changeable(field, map)?;
        }
        metadata.insert(field.to_owned(), changed.clone());
    }
    Ok(Value::Object(metadata))
}

/// Checks labels or annotations that a webhook has changed.
fn check_changeable(field: &str, map: &Map<String, Value>) -> Result<(), String> {
    let map = map.iter().map(|(key, value)| (key.clone(), value.as_str().unwrap_or_default().to_owned())).collect();
    let errors = match field {
        "labels" => validation::labels_of("metadata.labels", &map),
        _ => validation::annotations_of("metadata.annotation", &map),
    };
    let texts: Vec<String> = errors.iter().map(ToString::to_string).collect();
    match &texts[..] {
        [] => Ok(()),
        [one] => Err(one.clone()),
        more => Err(format!("[{}]", more.join(", "))),
    }
}

/// What Go calls the type of decoded JSON.
fn go_type(value: &Value) -> &'static str {
    match value {
        Value::Null => "<nil>",
        Value::Bool(_) => "bool",
        Value::Number(n) if n.is_i64() => "int64",
        Value::Number(_) => "float64",
        Value::String(_) => "string",
        Value::Array(_) => "[]interface {}",
        Value::Object(_) => "map[string]interface {}",
    }
}

/// What a write has had converted.
#[derive(Debug, Default)]
pub(super) struct Conversions {
    /// The object that a webhook is being asked about, the version that is wanted, and the UID of the question.
    asked: Option<(Object, String, String)>,
    answer: Option<Answered>,
    done: Vec<Done>,
}

/// An object, and what it is in another version.
#[derive(Debug)]
struct Done {
    from: Object,
    to: String,
    made: Value,
}

impl Conversions {
    /// Takes an answer, if a webhook was asked to convert.
    pub(super) fn take(&mut self, answers: &mut Vec<Answered>) -> bool {
        let is_due = self.asked.is_some() && self.answer.is_none();
        if is_due {
            self.answer = answers.pop();
        }
        is_due
    }

    /// What an object is in a version, if that has been asked. Only what a webhook may read a sense into counts: a
    /// decision that is made anew writes other times.
    fn known(&self, from: &Object, to: &str) -> Option<&Value> {
        let found = self.done.iter().find(|done| done.to == to && is_alike(&done.from, from));
        found.map(|done| &done.made)
    }
}

/// Whether a webhook makes the same of two objects.
fn is_alike(a: &Object, b: &Object) -> bool {
    let (x, y) = (a.meta(), b.meta());
    a.info().version == b.info().version
        && (&x.uid, &x.name, &x.labels, &x.annotations) == (&y.uid, &y.name, &y.labels, &y.annotations)
        && a.same_spec(b)
        && a.same_status(b)
}

/// The version in which a request is made, if it says one.
pub(super) fn requested(request: &Request) -> Option<&str> {
    let applied = match &request.call {
        Call::Patch { patch: Patch::Apply { body, .. }, subresource, .. } if *subresource != Subresource::Scale => {
            text(body, "apiVersion").rsplit('/').next()
        }
        _ => None,
    };
    request.version.as_deref().or(applied)
}

impl Deciding<'_> {
    /// A stored custom object in the version of the request that is about it; any other object as it is.
    pub(super) fn as_requested(&mut self, write: &Write, object: &Object) -> Result<Object, Decision> {
        let Some(custom) = self.customs.of(object.kind()).cloned() else { return Ok(object.clone()) };
        let version = requested(&write.request).unwrap_or(custom.storage_version());
        self.in_version(write, &custom, object, version)
    }

    /// An object in another version of its definition. The write has to wait if a webhook is to be asked.
    pub(super) fn in_version(
        &mut self,
        write: &Write,
        custom: &CustomResource,
        object: &Object,
        version: &str,
    ) -> Result<Object, Decision> {
        let is_due = self.config.webhooks && object.info().version != version;
        let Some(conversion) = custom.conversion.as_ref().filter(|_| is_due) else {
            return Ok(custom.retagged(object, version));
        };
        let mut object = object.clone();
        custom.fill(&mut object);
        let to = custom.api_version(version);
        let mut held = write.conversions.borrow_mut();
        if let Some(answer) = held.answer.take() {
            let (from, to, uid) = held.asked.take().expect("what is answered was asked");
            let original = [from.to_json()];
            let made = conversion.answer(&Converted::each(&original), &original, &to, &uid, answer);
            let made = made.map_err(Decision::refuse)?.remove(0);
            held.done.push(Done { from, to, made });
        }
        if let Some(made) = held.known(&object, &to) {
            let mut made = made.clone();
            let metadata = restored(&object.to_json()["metadata"], made.get("metadata"));
            made["metadata"] = metadata.expect("it was restored before");
            let mut made = custom.retagged(&self.decode(made).map_err(Decision::refuse)?, version);
            custom.prune(&mut made);
            return Ok(made);
        }
        let uid = self.rng.uuid();
        let call = conversion.question(&[object.to_json()], &to, &uid).map_err(Decision::refuse)?;
        held.asked = Some((object, to, uid));
        Err(Decision::Consult(vec![call]))
    }
}
