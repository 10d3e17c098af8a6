//! What a webhook is sent, and how its answer is read.
//!
//! Source: kubernetes `staging/src/k8s.io/apiserver/pkg/admission/plugin/webhook/{request,errors}`,
//! <https://kubernetes.io/docs/reference/access-authn-authz/extensible-admission-controllers/>.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::Operation;
use super::configuration::Hook;
use crate::api::{Details, Reason, Status};
use crate::apiserver::admission::matching::Asked;
use crate::apiserver::write::Write;
use crate::auth::{AUTHENTICATED, User};
use crate::object::Object;

/// An object in a version.
fn shown(object: Option<&Object>, api_version: &str) -> Value {
    let Some(object) = object else { return Value::Null };
    let mut value = object.to_json();
    value["apiVersion"] = json!(api_version);
    value
}

/// The AdmissionReview that asks a webhook about a request.
pub(super) fn question(hook: &Hook, mut request: Value, uid: &str) -> Value {
    let version = hook.review_version;
    request["uid"] = json!(uid);
    json!({"kind": "AdmissionReview", "apiVersion": format!("admission.k8s.io/{version}"), "request": request})
}

/// An AdmissionRequest without its UID, in the version `version` of the resource.
pub(in crate::apiserver::admission) fn request(
    write: &Write,
    asked: &Asked<'_>,
    version: &str,
    (new, old): (Option<&Object>, Option<&Object>),
) -> Value {
    let Asked { operation, of, subresource, .. } = asked;
    // What a subresource takes may be of another kind, in its one version.
    let own = of.subresource(subresource).filter(|sub| sub.kind != of.kind);
    let kind = |version: &str| match &own {
        Some(sub) => json!({"group": sub.group, "version": sub.version, "kind": sub.kind}),
        None => json!({"group": of.group, "version": version, "kind": of.kind}),
    };
    let resource = |version: &str| json!({"group": of.group, "version": version, "resource": of.plural});
    let (group, shown_in) = own.as_ref().map_or((&*of.group, version), |sub| (&*sub.group, &*sub.version));
    let api_version = if group.is_empty() { shown_in.to_owned() } else { format!("{group}/{shown_in}") };
    let about = new.or(old).expect("a request is about an object");
    let user = write.request.identity.as_deref().cloned();
    let user = user.unwrap_or_else(|| User::new(&write.request.user, &[AUTHENTICATED]));
    let mut info = json!({"username": user.name, "groups": user.groups});
    if !user.uid.is_empty() {
        info["uid"] = json!(user.uid);
    }
    if !user.extra.is_empty() {
        info["extra"] = json!(user.extra);
    }
    let dry_run = write.request.call.is_dry_run();
    let manager = write.request.field_manager.as_deref();
    let options = operation.options().map_or(Value::Null, |kind| options(dry_run, kind, manager));
    let mut request = json!({
        "kind": kind(version), "resource": resource(version),
        "requestKind": kind(&of.version), "requestResource": resource(&of.version),
        "name": about.name(), "operation": operation.name(), "userInfo": info,
        "object": shown(new, &api_version), "oldObject": shown(old, &api_version),
        "dryRun": dry_run, "options": options,
    });
    if let (Operation::Connect, Some(object)) = (operation, request["object"].as_object_mut()) {
        // What goes with a connection has no metadata of its own.
        object.remove("metadata");
    }
    if !about.namespace().is_empty() {
        request["namespace"] = json!(about.namespace());
    } else if &*of.plural == "namespaces" && of.group.is_empty() {
        request["namespace"] = json!(about.name());
    }
    if !subresource.is_empty() {
        request["subResource"] = json!(subresource);
        request["requestSubResource"] = json!(subresource);
    }
    request
}

/// The options of a request.
fn options(dry_run: bool, kind: &str, manager: Option<&str>) -> Value {
    let mut options = json!({"kind": kind, "apiVersion": "meta.k8s.io/v1"});
    if dry_run {
        options["dryRun"] = json!(["All"]);
    }
    if kind != "DeleteOptions"
        && let Some(manager) = manager.filter(|manager| !manager.is_empty())
    {
        options["fieldManager"] = json!(manager);
    }
    options
}

/// What a webhook has answered.
#[derive(Debug, PartialEq)]
pub(super) struct Verdict {
    /// `Err` is its refusal.
    pub(super) allowed: Result<(), Status>,
    /// A JSON patch.
    pub(super) patch: Option<Value>,
    pub(super) warnings: Vec<String>,
}

/// Reads an answer; the error says why it is none.
pub(super) fn answer(hook: &Hook, uid: &str, value: &Value) -> Result<Verdict, String> {
    let expected = format!("admission.k8s.io/{}", hook.review_version);
    if value["kind"] != "AdmissionReview" || value["apiVersion"] != expected {
        let (version, kind) = (value["apiVersion"].as_str(), value["kind"].as_str());
        let got = format!("{}, Kind={}", version.unwrap_or_default(), kind.unwrap_or_default());
        return Err(format!("expected webhook response of {expected}, Kind=AdmissionReview, got {got}"));
    }
    let response = &value["response"];
    if response.is_null() {
        return Err("webhook response was absent".to_owned());
    }
    let told = response["uid"].as_str().unwrap_or_default();
    if hook.review_version == "v1" && told != uid {
        return Err(format!("expected response.uid={uid:?}, got {told:?}"));
    }
    let patch = match response["patch"].as_str().filter(|patch| !patch.is_empty()) {
        None => None,
        Some(_) if hook.review_version == "v1" && response["patchType"] != "JSONPatch" => {
            return Err("webhook returned response.patch but not response.patchType".to_owned());
        }
        Some(patch) => {
            let bytes = STANDARD.decode(patch).map_err(|e| format!("response.patch is no base64: {e}"))?;
            Some(serde_json::from_slice(&bytes).map_err(|e| format!("response.patch is no JSON: {e}"))?)
        }
    };
    let warnings = response["warnings"].as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned);
    let allowed = match response["allowed"] == true {
        true => Ok(()),
        false => Err(denied(&hook.name, &response["status"])),
    };
    Ok(Verdict { allowed, patch, warnings: warnings.collect() })
}

/// The refusal of a webhook (`ToStatusErr`).
fn denied(hook: &str, status: &Value) -> Status {
    let by = format!("admission webhook {hook:?} denied the request");
    let text = |name: &str| status[name].as_str().filter(|text| !text.is_empty());
    let message = match (text("message"), text("reason")) {
        (Some(why), _) | (None, Some(why)) => format!("{by}: {why}"),
        (None, None) => format!("{by} without explanation"),
    };
    let code = status["code"].as_u64().filter(|code| *code >= 400).unwrap_or(400);
    let details = status.get("details").filter(|details| !details.is_null()).map(|details| {
        let text = |name: &str| details[name].as_str().unwrap_or_default().to_owned();
        Box::new(Details { name: text("name"), group: text("group"), kind: text("kind"), ..Details::default() })
    });
    Status { reason: reason(code), message: message.into(), details }
}

/// The reason that stands for a code.
fn reason(code: u64) -> Reason {
    match code {
        401 => Reason::Unauthorized,
        403 => Reason::Forbidden,
        404 => Reason::NotFound,
        405 => Reason::MethodNotAllowed,
        406 => Reason::NotAcceptable,
        409 => Reason::Conflict,
        410 => Reason::Gone,
        413 => Reason::RequestEntityTooLarge,
        415 => Reason::UnsupportedMediaType,
        422 => Reason::Invalid,
        429 => Reason::TooManyRequests,
        503 => Reason::ServiceUnavailable,
        504 => Reason::Timeout,
        500.. => Reason::InternalError,
        _ => Reason::BadRequest,
    }
}
