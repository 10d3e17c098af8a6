//! `metav1.Status`: errors as the API reports them. The texts are Kubernetes' own (apimachinery `pkg/api/errors`).

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::object::{FieldError, KindInfo};

/// Machine-readable reason, spelled as on the wire.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[allow(missing_docs)]
pub enum Reason {
    BadRequest,
    Unauthorized,
    Forbidden,
    NotFound,
    MethodNotAllowed,
    NotAcceptable,
    UnsupportedMediaType,
    AlreadyExists,
    Conflict,
    Gone,
    Expired,
    Invalid,
    TooManyRequests,
    Timeout,
    ServerTimeout,
    ServiceUnavailable,
    InternalError,
    RequestEntityTooLarge,
}

impl Reason {
    /// Every reason.
    const ALL: [Reason; 18] = [
        Reason::BadRequest,
        Reason::Unauthorized,
        Reason::Forbidden,
        Reason::NotFound,
        Reason::MethodNotAllowed,
        Reason::NotAcceptable,
        Reason::UnsupportedMediaType,
        Reason::AlreadyExists,
        Reason::Conflict,
        Reason::Gone,
        Reason::Expired,
        Reason::Invalid,
        Reason::TooManyRequests,
        Reason::Timeout,
        Reason::ServerTimeout,
        Reason::ServiceUnavailable,
        Reason::InternalError,
        Reason::RequestEntityTooLarge,
    ];

    /// The reason of a reply, by its name, or by the code where it names none that is known.
    fn read(name: &str, code: u16) -> Reason {
        let named = Reason::ALL.into_iter().find(|reason| format!("{reason:?}") == name);
        // Of two reasons with one code, the first is the usual one.
        named.or_else(|| Reason::ALL.into_iter().find(|reason| reason.code() == code)).unwrap_or(Reason::InternalError)
    }

    /// The HTTP status code.
    pub fn code(self) -> u16 {
        match self {
            Reason::BadRequest => 400,
            Reason::Unauthorized => 401,
            Reason::Forbidden => 403,
            Reason::NotFound => 404,
            Reason::MethodNotAllowed => 405,
            Reason::NotAcceptable => 406,
            Reason::AlreadyExists | Reason::Conflict => 409,
            Reason::Gone | Reason::Expired => 410,
            Reason::RequestEntityTooLarge => 413,
            Reason::UnsupportedMediaType => 415,
            Reason::Invalid => 422,
            Reason::TooManyRequests => 429,
            Reason::InternalError => 500,
            Reason::ServiceUnavailable => 503,
            Reason::Timeout | Reason::ServerTimeout => 504,
        }
    }
}

/// One cause of a failure.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Cause {
    /// `FieldValueInvalid`, `UnexpectedServerResponse`, `DisruptionBudget`, …
    pub reason: String,
    /// Human-readable message.
    pub message: String,
    /// Path of the field, if there is one.
    pub field: String,
}

/// What the failure refers to.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Details {
    /// Name of the object.
    pub name: String,
    /// API group.
    pub group: String,
    /// Kind or resource, whichever Kubernetes puts there.
    pub kind: String,
    /// Causes, one for each field.
    pub causes: Vec<Cause>,
    /// Delay before the client may retry.
    pub retry_after_seconds: Option<u32>,
    /// Of a list that cannot go on as it was, the token with which it can: `metadata.continue` on the wire. Empty
    /// otherwise.
    pub continue_from: String,
}

/// A failure as the API reports it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Status {
    /// Machine-readable reason; the HTTP code follows from it.
    pub reason: Reason,
    /// Human-readable message.
    pub message: Box<str>,
    /// What the failure refers to.
    pub details: Option<Box<Details>>,
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Status {}

impl Status {
    fn about(reason: Reason, of: &KindInfo, name: &str, message: String) -> Status {
        let details = Details {
            name: name.to_owned(),
            group: of.group.to_string(),
            kind: of.plural.to_string(),
            ..Details::default()
        };
        Status { reason, message: message.into(), details: Some(Box::new(details)) }
    }

    fn bare(reason: Reason, message: impl Into<Box<str>>) -> Status {
        Status { reason, message: message.into(), details: None }
    }

    /// 404 for an object that does not exist.
    pub fn not_found(of: &KindInfo, name: &str) -> Status {
        Status::about(Reason::NotFound, of, name, format!("{} {name:?} not found", of.qualified()))
    }

    /// 404 for a resource that is not served.
    pub fn not_served() -> Status {
        Status::bare(Reason::NotFound, "the server could not find the requested resource")
    }

    /// 409 for a create.
    pub fn already_exists(of: &KindInfo, name: &str) -> Status {
        Status::about(Reason::AlreadyExists, of, name, format!("{} {name:?} already exists", of.qualified()))
    }

    /// 409 for an update based on another revision.
    pub fn conflict(of: &KindInfo, name: &str, why: &str) -> Status {
        let message = format!("Operation cannot be fulfilled on {} {name:?}: {why}", of.qualified());
        Status::about(Reason::Conflict, of, name, message)
    }

    /// 409 because the resource version is not the stored one.
    pub fn stale(of: &KindInfo, name: &str) -> Status {
        Status::conflict(
            of,
            name,
            "the object has been modified; please apply your changes to the latest version and try again",
        )
    }

    /// 409 because the leadership that the write relied on was lost.
    pub fn fenced(of: &KindInfo, name: &str, lease: &str) -> Status {
        Status::conflict(of, name, &format!("leadership of lease {lease:?} was lost"))
    }

    /// Whether this is a [`fenced`](Self::fenced) status.
    pub fn is_fenced(&self) -> bool {
        self.reason == Reason::Conflict && self.message.ends_with("was lost")
    }

    /// 422 with a cause for each field.
    pub fn invalid(of: &KindInfo, name: &str, errors: &[FieldError]) -> Status {
        Status::invalid_named(&of.group, &of.kind, name, errors)
    }

    /// 422 for something that is no stored object: a request's options (`meta.k8s.io`, `PatchOptions`), or a patch.
    pub fn invalid_named(group: &str, kind: &str, name: &str, errors: &[FieldError]) -> Status {
        let gk = if group.is_empty() { kind.to_owned() } else { format!("{kind}.{group}") };
        let list = match errors {
            [one] => one.to_string(),
            many => format!("[{}]", many.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")),
        };
        let cause =
            |e: &FieldError| Cause { reason: e.kind.reason().to_owned(), message: e.body(), field: e.field.clone() };
        let details = Details {
            name: name.to_owned(),
            group: group.to_owned(),
            kind: kind.to_owned(),
            causes: errors.iter().map(cause).collect(),
            ..Details::default()
        };
        let message = format!("{gk} {name:?} is invalid: {list}");
        Status { reason: Reason::Invalid, message: message.into(), details: Some(Box::new(details)) }
    }

    /// 422 for an update without a resourceVersion.
    pub fn unconditional(of: &KindInfo, name: &str) -> Status {
        // Upstream puts the resource where the kind should be.
        let message = format!(
            "{} {name:?} is invalid: metadata.resourceVersion: Invalid value: 0x0: must be specified for an update",
            of.qualified()
        );
        let mut status = Status::about(Reason::Invalid, of, name, message);
        if let Some(details) = &mut status.details {
            details.causes.push(Cause {
                reason: "FieldValueInvalid".to_owned(),
                message: "Invalid value: 0x0: must be specified for an update".to_owned(),
                field: "metadata.resourceVersion".to_owned(),
            });
        }
        status
    }

    /// 403.
    pub fn forbidden(of: &KindInfo, name: &str, why: &str) -> Status {
        let message = if name.is_empty() {
            format!("{} is forbidden: {why}", of.qualified())
        } else {
            format!("{} {name:?} is forbidden: {why}", of.qualified())
        };
        Status::about(Reason::Forbidden, of, name, message)
    }

    /// 400.
    pub fn bad_request(message: impl Into<Box<str>>) -> Status {
        Status::bare(Reason::BadRequest, message)
    }

    /// 405.
    pub fn method_not_allowed(of: &KindInfo, verb: &str) -> Status {
        let message = format!("{verb} is not supported on resources of kind {:?}", of.qualified());
        Status::about(Reason::MethodNotAllowed, of, "", message)
    }

    /// 410: the revision has been compacted; the client must relist.
    pub fn expired(message: impl Into<Box<str>>) -> Status {
        Status::bare(Reason::Expired, message)
    }

    /// 429.
    pub fn too_many_requests(message: impl Into<Box<str>>, retry_after: Duration) -> Status {
        let mut s = Status::bare(Reason::TooManyRequests, message);
        let retry_after_seconds = Some(retry_after.as_secs() as u32);
        s.details = Some(Box::new(Details { retry_after_seconds, ..Details::default() }));
        s
    }

    /// 504: the outcome is unknown.
    pub fn timeout(message: impl Into<Box<str>>) -> Status {
        Status::bare(Reason::Timeout, message)
    }

    /// 413 (`NewRequestEntityTooLargeError`).
    pub fn too_large(why: &str) -> Status {
        Status::bare(Reason::RequestEntityTooLarge, format!("Request entity too large: {why}"))
    }

    /// 503: nothing was done.
    pub fn unavailable(message: impl Into<Box<str>>) -> Status {
        Status::bare(Reason::ServiceUnavailable, message)
    }

    /// 500.
    pub fn internal(message: impl Into<Box<str>>) -> Status {
        Status::bare(Reason::InternalError, format!("Internal error occurred: {}", message.into()))
    }

    /// Whether the write may have been carried out nevertheless.
    pub fn is_unknown_outcome(&self) -> bool {
        matches!(self.reason, Reason::Timeout | Reason::ServerTimeout)
    }

    /// The JSON form on the wire.
    pub fn to_json(&self) -> Value {
        let mut v = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": self.message, "reason": format!("{:?}", self.reason), "code": self.reason.code(),
        });
        if let Some(d) = &self.details {
            let mut details = serde_json::Map::new();
            for (k, text) in [("name", &d.name), ("group", &d.group), ("kind", &d.kind)] {
                if !text.is_empty() {
                    details.insert(k.to_owned(), json!(text));
                }
            }
            if !d.causes.is_empty() {
                let causes =
                    d.causes.iter().map(|c| json!({"reason": c.reason, "message": c.message, "field": c.field}));
                details.insert("causes".to_owned(), causes.collect());
            }
            if let Some(s) = d.retry_after_seconds {
                details.insert("retryAfterSeconds".to_owned(), json!(s));
            }
            if !d.continue_from.is_empty() {
                v["metadata"]["continue"] = json!(d.continue_from);
            }
            if !details.is_empty() || d.continue_from.is_empty() {
                v["details"] = Value::Object(details);
            }
        }
        v
    }

    /// A status as a server sent it, with the code of its reply.
    pub fn from_json(value: &Value, code: u16) -> Status {
        let text = |value: &Value, name: &str| value[name].as_str().unwrap_or_default().to_owned();
        let continue_from = text(&value["metadata"], "continue");
        let details = value.get("details").filter(|details| details.is_object());
        let has_details = details.is_some() || !continue_from.is_empty();
        let details = has_details.then(|| {
            let details = details.unwrap_or(&Value::Null);
            let cause =
                |c: &Value| Cause { reason: text(c, "reason"), message: text(c, "message"), field: text(c, "field") };
            Box::new(Details {
                name: text(details, "name"),
                group: text(details, "group"),
                kind: text(details, "kind"),
                causes: details["causes"].as_array().into_iter().flatten().map(cause).collect(),
                retry_after_seconds: details["retryAfterSeconds"].as_u64().and_then(|n| u32::try_from(n).ok()),
                continue_from,
            })
        });
        let message = text(value, "message").into();
        Status { reason: Reason::read(&text(value, "reason"), code), message, details }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;

    use super::{Details, Reason, Status};
    use crate::object::{ErrorKind, FieldError, Kind};

    #[test]
    fn what_a_server_sends_is_read_as_it_was() {
        for reason in Reason::ALL {
            let status = Status { reason, message: "m".into(), details: None };
            assert_eq!(Status::from_json(&status.to_json(), reason.code()), status);
        }
        let error = FieldError {
            kind: ErrorKind::Invalid,
            field: "spec.a".to_owned(),
            value: Some("1".to_owned()),
            detail: "no".to_owned(),
        };
        let continued = Details { continue_from: "token".to_owned(), ..Details::default() };
        for status in [
            Status::invalid(Kind::POD.row(), "p", &[error]),
            Status::too_many_requests("later", Duration::from_secs(7)),
            Status { details: Some(Box::new(continued)), ..Status::expired("old") },
        ] {
            assert_eq!(Status::from_json(&status.to_json(), 500), status);
        }
        // Of somebody else, such as a balancer before the servers.
        assert_eq!(Status::from_json(&json!({}), 503).reason, Reason::ServiceUnavailable);
        assert_eq!(Status::from_json(&json!({"reason": "New"}), 418).reason, Reason::InternalError);
    }
}
