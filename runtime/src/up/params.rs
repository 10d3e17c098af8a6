//! Query parameters: parsing and validation.
//!
//! Source: apimachinery `pkg/apis/meta/v1/types.go` and `pkg/apis/meta/internalversion/validation`.

use std::time::Duration;

use skeg_core::Revision;
use skeg_core::api::{ListOptions, Propagation, Status, WatchOptions, WriteOptions};
use skeg_core::object::{FieldSelector, Selector};

use super::ask::{Deletion, FieldValidation};

/// Maximum bytes of a `fieldManager` (`FieldManagerMaxLength`).
pub const FIELD_MANAGER: usize = 128;

/// The parameters of a request, in the order of the URL.
#[derive(Clone, Debug, Default)]
pub struct Params(Vec<(String, String)>);

impl Params {
    /// Parses the part of a URL after the question mark.
    pub fn parse(query: Option<&str>) -> Params {
        let pairs = form_urlencoded::parse(query.unwrap_or_default().as_bytes());
        Params(pairs.into_owned().collect())
    }

    /// The first value of a parameter.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    /// All of them.
    pub fn pairs(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// All values of a parameter, in their order.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    /// The first value of a parameter, unless it is empty.
    pub fn said(&self, name: &str) -> Option<&str> {
        self.get(name).filter(|v| !v.is_empty())
    }

    /// A boolean parameter. As in Kubernetes, every value except `false` and `0` is true, an empty one too; a missing
    /// parameter is false.
    pub fn flag(&self, name: &str) -> bool {
        self.get(name).is_some_and(|v| !matches!(v.to_ascii_lowercase().as_str(), "false" | "0"))
    }

    fn number<T: std::str::FromStr>(&self, name: &str) -> Result<Option<T>, Status> {
        let parse = |v: &str| v.parse().map_err(|_| parse_error(name, v));
        self.said(name).map(parse).transpose()
    }

    /// `resourceVersion`, which must be a number.
    pub fn resource_version(&self) -> Result<Option<u64>, Status> {
        let parse = |v: &str| {
            v.parse().map_err(|_| {
                invalid(&format!(
                    "resourceVersion: Invalid value: {v:?}: strconv.ParseUint: parsing \"{v}\": invalid syntax"
                ))
            })
        };
        self.said("resourceVersion").map(parse).transpose()
    }

    /// `labelSelector` and `fieldSelector`.
    fn selectors(&self) -> Result<(Selector, FieldSelector), Status> {
        let labels = Selector::parse(self.get("labelSelector").unwrap_or_default());
        let fields = FieldSelector::parse(self.get("fieldSelector").unwrap_or_default());
        let bad = |e: skeg_core::object::SelectorError| Status::bad_request(e.to_string());
        Ok((labels.map_err(bad)?, fields.map_err(bad)?))
    }

    /// Options of a list.
    pub fn list(&self) -> Result<ListOptions, Status> {
        let (labels, fields) = self.selectors()?;
        let rv = self.resource_version()?.map(Revision);
        let exact = match self.said("resourceVersionMatch") {
            None | Some("NotOlderThan") => false,
            Some("Exact") => true,
            Some(other) => {
                let known = "supported values: \"Exact\", \"NotOlderThan\"";
                return Err(invalid(&format!("resourceVersionMatch: Unsupported value: {other:?}: {known}")));
            }
        };
        if self.said("resourceVersionMatch").is_some() {
            if rv.is_none() {
                let why = "resourceVersionMatch is forbidden unless resourceVersion is provided";
                return Err(invalid(&format!("resourceVersionMatch: Forbidden: {why}")));
            }
            if self.said("continue").is_some() {
                let why = "resourceVersionMatch is forbidden when continue is provided";
                return Err(invalid(&format!("resourceVersionMatch: Forbidden: {why}")));
            }
            if exact && rv == Some(Revision(0)) {
                let why = "resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"";
                return Err(invalid(&format!("resourceVersionMatch: Forbidden: {why}")));
            }
        }
        if self.get("sendInitialEvents").is_some() {
            return Err(invalid("sendInitialEvents: Forbidden: sendInitialEvents is forbidden for list"));
        }
        let limit: i64 = self.number("limit")?.unwrap_or(0);
        let limit = usize::try_from(limit).unwrap_or(0);
        let continue_from = self.said("continue").map(str::to_owned);
        // A positive revision with a limit, but without `resourceVersionMatch`, means exactly that revision.
        let exact =
            exact || (limit > 0 && rv.is_some_and(|rv| rv.0 > 0) && self.said("resourceVersionMatch").is_none());
        Ok(ListOptions { labels, fields, limit, continue_from, rv, exact })
    }

    /// Options of a watch, and its time-out if the client gives one.
    pub fn watch(&self) -> Result<(WatchOptions, Option<Duration>), Status> {
        let (labels, fields) = self.selectors()?;
        let rv = Revision(self.resource_version()?.unwrap_or(0));
        let send_initial_events = self.flag("sendInitialEvents");
        let matching = self.said("resourceVersionMatch");
        if self.get("sendInitialEvents").is_some() {
            if matching != Some("NotOlderThan") {
                let why = "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan";
                return Err(invalid(&format!("resourceVersionMatch: Forbidden: {why}")));
            }
        } else if matching.is_some() {
            let why = "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided";
            return Err(invalid(&format!("resourceVersionMatch: Forbidden: {why}")));
        }
        let bookmarks = self.flag("allowWatchBookmarks");
        let timeout = self.number::<i64>("timeoutSeconds")?.and_then(|s| u64::try_from(s).ok()).filter(|s| *s > 0);
        let timeout = timeout.map(Duration::from_secs);
        Ok((WatchOptions { labels, fields, rv, bookmarks, send_initial_events, timeout }, timeout))
    }

    /// Options of a write. `options` is their kind in error messages, such as `CreateOptions`.
    pub fn write(&self, options: &str) -> Result<WriteOptions, Status> {
        let given = self.0.iter().filter(|(n, _)| n == "dryRun").map(|(_, v)| v.as_str());
        let dry_run = dry_run(options, given)?;
        Ok(WriteOptions { dry_run, field_validation: self.field_validation(options)? })
    }

    /// `fieldValidation`. `options` is the kind of the options in error messages.
    pub fn field_validation(&self, options: &str) -> Result<FieldValidation, Status> {
        match self.said("fieldValidation") {
            None | Some("Warn") => Ok(FieldValidation::Warn),
            Some("Ignore") => Ok(FieldValidation::Ignore),
            Some("Strict") => Ok(FieldValidation::Strict),
            Some(other) => {
                let known = "supported values: \"\", \"Ignore\", \"Strict\", \"Warn\"";
                Err(invalid_as(options, &format!("fieldValidation: Unsupported value: {other:?}: {known}")))
            }
        }
    }

    /// `fieldManager`; empty if it is not given. `options` is the kind of the options in error messages.
    pub fn field_manager(&self, options: &str) -> Result<&str, Status> {
        let manager = self.get("fieldManager").unwrap_or_default();
        if manager.len() > FIELD_MANAGER {
            let why = format!("fieldManager: Too long: may not be more than {FIELD_MANAGER} bytes");
            return Err(invalid_as(options, &why));
        }
        if manager.chars().any(|c| c.is_control() || c.is_whitespace() && c != ' ') {
            let why = format!("fieldManager: Invalid value: {manager:?}: should only contain printable characters");
            return Err(invalid_as(options, &why));
        }
        Ok(manager)
    }

    /// `force`, which is only allowed for server-side apply.
    pub fn force(&self, applies: bool) -> Result<bool, Status> {
        if self.said("force").is_some() && !applies {
            return Err(invalid_as("PatchOptions", "force: Forbidden: may not be specified for non-apply patch"));
        }
        Ok(self.flag("force"))
    }

    /// Options of a delete, from the query and the body. If both give a value, the body's is used.
    pub fn deletion(&self, body: Option<&serde_json::Value>) -> Result<Deletion, Status> {
        let mut options = Deletion {
            dry_run: self.write("DeleteOptions")?.dry_run,
            grace_seconds: self.number("gracePeriodSeconds")?,
            propagation: self.said("propagationPolicy").map(propagation).transpose()?,
            ..Deletion::default()
        };
        let orphan = |orphan: bool| if orphan { Propagation::Orphan } else { Propagation::Background };
        if let Some(v) = self.get("orphanDependents") {
            options.propagation = Some(orphan(!matches!(v, "false" | "0")));
        }
        let Some(body) = body.filter(|b| !b.is_null()) else { return Ok(options) };
        let text = |v: &serde_json::Value| v.as_str().filter(|s| !s.is_empty()).map(str::to_owned);
        options.uid = text(&body["preconditions"]["uid"]);
        if let Some(rv) = text(&body["preconditions"]["resourceVersion"]) {
            options.rv = Some(rv.parse().map_err(|_| parse_error("preconditions.resourceVersion", &rv))?);
        }
        if let Some(seconds) = body["gracePeriodSeconds"].as_i64() {
            options.grace_seconds = Some(seconds);
        }
        let policy = text(&body["propagationPolicy"]);
        if policy.is_some() && body["orphanDependents"].is_boolean() {
            let why = "orphanDependents and deletionPropagation cannot be both set";
            return Err(invalid_as("DeleteOptions", &format!("propagationPolicy: Invalid value: {policy:?}: {why}")));
        }
        if let Some(given) = body["orphanDependents"].as_bool() {
            options.propagation = Some(orphan(given));
        }
        if let Some(policy) = policy {
            options.propagation = Some(propagation(&policy)?);
        }
        let rounds = body["dryRun"].as_array().into_iter().flatten().filter_map(|v| v.as_str());
        options.dry_run |= dry_run("DeleteOptions", rounds)?;
        Ok(options)
    }
}

fn propagation(text: &str) -> Result<Propagation, Status> {
    match text {
        "Background" => Ok(Propagation::Background),
        "Foreground" => Ok(Propagation::Foreground),
        "Orphan" => Ok(Propagation::Orphan),
        other => {
            let known = "supported values: \"Background\", \"Foreground\", \"Orphan\"";
            Err(invalid_as("DeleteOptions", &format!("propagationPolicy: Unsupported value: {other:?}: {known}")))
        }
    }
}

fn dry_run<'a>(options: &str, values: impl Iterator<Item = &'a str>) -> Result<bool, Status> {
    let mut dry = false;
    for value in values.filter(|v| !v.is_empty()) {
        if value != "All" {
            let known = "supported values: \"All\"";
            return Err(invalid_as(options, &format!("dryRun: Unsupported value: {value:?}: {known}")));
        }
        dry = true;
    }
    Ok(dry)
}

fn parse_error(name: &str, value: &str) -> Status {
    Status::bad_request(format!("{name}: strconv.ParseInt: parsing {value:?}: invalid syntax"))
}

fn invalid(what: &str) -> Status {
    invalid_as("ListOptions", what)
}

/// 422 for invalid options of this kind.
fn invalid_as(kind: &str, what: &str) -> Status {
    use skeg_core::api::{Cause, Details, Reason};
    let (field, body) = what.split_once(": ").unwrap_or((what, ""));
    let reason = match body.split(": ").next().unwrap_or_default() {
        "Forbidden" => "FieldValueForbidden",
        "Unsupported value" => "FieldValueNotSupported",
        "Too long" => "FieldValueTooLong",
        _ => "FieldValueInvalid",
    };
    let cause = Cause { reason: reason.to_owned(), message: body.to_owned(), field: field.to_owned() };
    let group = "meta.k8s.io".to_owned();
    let details = Details { group: group.clone(), kind: kind.to_owned(), causes: vec![cause], ..Details::default() };
    let message = format!("{kind}.{group} \"\" is invalid: {what}").into();
    Status { reason: Reason::Invalid, message, details: Some(Box::new(details)) }
}

#[cfg(test)]
mod tests {
    use super::Params;
    use serde_json::json;
    use skeg_core::Revision;
    use skeg_core::api::{Propagation, Status};

    fn params(query: &str) -> Params {
        Params::parse(Some(query))
    }

    #[test]
    fn options_are_read() {
        let list = params("labelSelector=a%3Db%2Cc&fieldSelector=metadata.name%3Dx&limit=500&resourceVersion=7").list();
        let list = list.unwrap();
        assert_eq!((list.limit, list.rv, list.exact), (500, Some(Revision(7)), true));
        assert_eq!((list.labels.to_string(), list.fields.required("metadata.name")), ("a=b,c".to_owned(), Some("x")));
        let (watch, timeout) =
            params("watch=1&allowWatchBookmarks=true&timeoutSeconds=9&resourceVersion=3").watch().unwrap();
        assert_eq!((watch.rv, watch.bookmarks, timeout.map(|t| t.as_secs())), (Revision(3), true, Some(9)));
        let body = json!({"propagationPolicy": "Foreground", "gracePeriodSeconds": 0, "preconditions": {"uid": "u"}});
        let deletion = params("propagationPolicy=Orphan&dryRun=All").deletion(Some(&body)).unwrap();
        assert_eq!((deletion.propagation, deletion.grace_seconds), (Some(Propagation::Foreground), Some(0)));
        assert_eq!((deletion.uid.as_deref(), deletion.dry_run), (Some("u"), true));
    }

    #[test]
    fn contradictions_are_refused() {
        fn check<T: std::fmt::Debug>(what: &str, result: Result<T, Status>, code: u16, part: &str) {
            let status = result.unwrap_err();
            assert_eq!(status.reason.code(), code, "{what}: {status}");
            assert!(status.message.contains(part), "{what}: {status}");
        }
        let list = |q: &str, code, part| check(q, params(q).list(), code, part);
        list("resourceVersion=abc", 422, "Invalid value: \"abc\"");
        list("resourceVersion=-1", 422, "Invalid value: \"-1\"");
        list("resourceVersionMatch=Exact", 422, "forbidden unless resourceVersion is provided");
        list("resourceVersionMatch=Exact&resourceVersion=0", 422, "\"exact\" is forbidden");
        list("resourceVersionMatch=Some&resourceVersion=1", 422, "Unsupported value: \"Some\"");
        list("resourceVersionMatch=Exact&resourceVersion=1&continue=x", 422, "when continue is provided");
        list("sendInitialEvents=true", 422, "forbidden for list");
        list("limit=many", 400, "many");
        list("labelSelector=a%20in%20(", 400, "unable to parse requirement");
        list("fieldSelector=name", 400, "can't understand");
        let watch = |q: &str, code, part| check(q, params(q).watch(), code, part);
        watch("sendInitialEvents=true", 422, "NotOlderThan");
        watch("resourceVersionMatch=NotOlderThan", 422, "unless sendInitialEvents is provided");
        let dry_run = params("dryRun=Some");
        check("dryRun", dry_run.write("CreateOptions"), 422, "Unsupported value: \"Some\"");
        check("fieldValidation", params("fieldValidation=Lax").field_validation("CreateOptions"), 422, "\"Lax\"");
        let manager = |text: &str| params(&format!("fieldManager={text}"));
        check("manager", manager(&"x".repeat(129)).field_manager("PatchOptions"), 422, "Too long");
        check("manager", manager("a%0Ab").field_manager("PatchOptions"), 422, "printable");
        check("force", params("force=true").force(false), 422, "non-apply patch");
        assert!(params("force=true").force(true).unwrap());
        check("policy", params("propagationPolicy=Never").deletion(None), 422, "\"Never\"");
        let both = json!({"propagationPolicy": "Orphan", "orphanDependents": true});
        check("both", params("").deletion(Some(&both)), 422, "cannot be both set");
    }
}
