//! Reviews of the authentication and authorization APIs: who a user is, and what a user may do. A review is answered at
//! once and never stored.
//!
//! Source: <https://kubernetes.io/docs/reference/access-authn-authz/authorization/#checking-api-access>, and kubernetes
//! `pkg/registry/{authentication,authorization}`.

use serde_json::{Value, json};
use skeg_core::Kinds;
use skeg_core::api::{FieldValidation, Status};
use skeg_core::object::decode::{self, DecodeError};
use skeg_core::object::{FieldError, Kind, KindInfo};

use super::identity::{self, Attempt, Identity};

/// The kinds of reviews.
pub const REVIEWS: [Kind; 6] = [
    Kind::TOKEN_REVIEW,
    Kind::SELF_SUBJECT_REVIEW,
    Kind::SUBJECT_ACCESS_REVIEW,
    Kind::SELF_SUBJECT_ACCESS_REVIEW,
    Kind::SELF_SUBJECT_RULES_REVIEW,
    Kind::LOCAL_SUBJECT_ACCESS_REVIEW,
];

/// The body of a review.
pub struct Body {
    /// The JSON, and the fields that occur more than once in it.
    pub decoded: (Value, Vec<DecodeError>),
    /// Strictness of the decoder.
    pub validation: FieldValidation,
}

/// Answers a review that the user `identity` has created in a namespace (empty for cluster-scoped reviews). Returns the
/// review with its status, and warnings. With `always_allow`, every user may do everything.
pub fn answer(
    kind: Kind,
    namespace: &str,
    identity: &Identity,
    always_allow: bool,
    body: Body,
) -> Result<(Value, Vec<String>), Status> {
    let info = kind.row();
    let (mut value, duplicates) = body.decoded;
    if let Some(fields) = value.as_object_mut() {
        fields.entry("apiVersion").or_insert_with(|| info.api_version().into());
        fields.entry("kind").or_insert_with(|| (*info.kind).into());
    }
    let (object, warnings) = decode::read_body(&Kinds::default(), value, duplicates, body.validation)?;
    if object.kind() != kind {
        let given = &object.info().kind;
        return Err(Status::bad_request(format!(
            "the kind in the data ({given}) does not match the expected kind ({})",
            info.kind
        )));
    }
    let mut review = object.to_json();
    let allow = |mut status: Value| {
        status["allowed"] = json!(always_allow || status["allowed"] == true);
        status
    };
    review["status"] = match kind {
        // Tokens are not issued yet, so no token is valid.
        Kind::TOKEN_REVIEW => json!({"user": {}, "error": "invalid bearer token"}),
        Kind::SELF_SUBJECT_REVIEW => {
            json!({"userInfo": {"username": identity.name, "groups": identity.groups}})
        }
        Kind::SELF_SUBJECT_RULES_REVIEW => rules(identity, always_allow, &review["spec"])?,
        Kind::SELF_SUBJECT_ACCESS_REVIEW => allow(access(info, identity, &review["spec"])?),
        _ => {
            check_local(info, namespace, &review)?;
            allow(access(info, &subject(info, &review["spec"])?, &review["spec"])?)
        }
    };
    Ok((review, warnings))
}

fn text<'v>(value: &'v Value, name: &str) -> &'v str {
    value[name].as_str().unwrap_or_default()
}

/// The user that the spec of an access review names.
fn subject(info: &KindInfo, spec: &Value) -> Result<Identity, Status> {
    let groups: Vec<String> =
        spec["groups"].as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect();
    let name = text(spec, "user").to_owned();
    if name.is_empty() && groups.is_empty() {
        let error = FieldError::invalid("spec.user", "", "at least one of user or group must be specified");
        return Err(Status::invalid(info, "", &[error]));
    }
    Ok(Identity { name, groups })
}

/// The namespace in the spec of a LocalSubjectAccessReview must be the review's own.
fn check_local(info: &KindInfo, namespace: &str, review: &Value) -> Result<(), Status> {
    let asked = text(&review["spec"]["resourceAttributes"], "namespace");
    if info.namespaced && asked != namespace {
        let why = "must match metadata.namespace";
        let error = FieldError::invalid("spec.resourceAttributes.namespace", asked, why);
        return Err(Status::invalid(info, "", &[error]));
    }
    Ok(())
}

/// The status of an access review.
fn access(info: &KindInfo, identity: &Identity, spec: &Value) -> Result<Value, Status> {
    let allowed = match (&spec["resourceAttributes"], &spec["nonResourceAttributes"]) {
        (Value::Null, Value::Null) => {
            let why = "exactly one of nonResourceAttributes or resourceAttributes must be specified";
            let error = FieldError::invalid("spec.resourceAttributes", format_args!("null"), why);
            return Err(Status::invalid(info, "", &[error]));
        }
        (of, Value::Null) => {
            let (plural, subresource) = (text(of, "resource"), text(of, "subresource"));
            let resource = if subresource.is_empty() { plural.to_owned() } else { format!("{plural}/{subresource}") };
            let (group, namespace) = (text(of, "group"), text(of, "namespace"));
            let attempt =
                Attempt { verb: text(of, "verb"), group, resource: &resource, namespace, name: text(of, "name") };
            identity::allows(identity, &attempt)
        }
        (Value::Null, path) => identity::allows_path(identity, text(path, "verb"), text(path, "path")),
        (_, both) => {
            let why = "cannot be specified in combination with resourceAttributes";
            let error = FieldError::invalid("spec.nonResourceAttributes", format_args!("{both}"), why);
            return Err(Status::invalid(info, "", &[error]));
        }
    };
    Ok(json!({"allowed": allowed}))
}

/// The status of a SelfSubjectRulesReview: all rules that apply to the requesting user.
fn rules(identity: &Identity, always_allow: bool, spec: &Value) -> Result<Value, Status> {
    if text(spec, "namespace").is_empty() {
        return Err(Status::bad_request("no namespace on request"));
    }
    let (mut resources, mut paths) = (Vec::new(), Vec::new());
    if always_allow || identity.is_master() {
        resources.push(json!({"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}));
        paths.push(json!({"verbs": ["*"], "nonResourceURLs": ["*"]}));
    }
    if identity.is_authenticated() {
        for (group, resource) in identity::OWN_REVIEWS {
            resources.push(json!({"verbs": ["create"], "apiGroups": [group], "resources": [resource]}));
        }
        paths.push(json!({"verbs": ["get"], "nonResourceURLs": identity::DISCOVERY}));
    }
    Ok(json!({"resourceRules": resources, "nonResourceRules": paths, "incomplete": false}))
}

#[cfg(test)]
mod tests {
    use super::{Body, answer};
    use crate::up::identity::Identity;
    use serde_json::{Value, json};
    use skeg_core::Kind;
    use skeg_core::api::{FieldValidation, Status};

    fn ask(kind: Kind, groups: &[&str], spec: Value) -> Result<Value, Status> {
        let groups = groups.iter().map(|g| (*g).to_owned()).collect();
        let identity = Identity { name: "jane".to_owned(), groups };
        let decoded = (json!({"spec": spec}), Vec::new());
        let body = Body { decoded, validation: FieldValidation::Strict };
        answer(kind, "here", &identity, false, body).map(|(review, _)| review["status"].clone())
    }

    #[test]
    fn reviews_say_who_somebody_is_and_what_somebody_may() {
        let (admin, jane) = (["system:masters", "system:authenticated"], ["system:authenticated"]);
        let pods = |verb: &str| json!({"resourceAttributes": {"verb": verb, "resource": "pods", "namespace": "here"}});
        let path = |path: &str| json!({"nonResourceAttributes": {"verb": "get", "path": path}});
        let allowed = |allowed: bool| json!({"allowed": allowed});
        let check = |kind: Kind, groups: &[&str], spec: Value, want: Value| {
            assert_eq!(ask(kind, groups, spec.clone()).unwrap(), want, "{groups:?} {spec}");
        };
        let own = Kind::SELF_SUBJECT_ACCESS_REVIEW;
        check(own, &admin, pods("delete"), allowed(true));
        check(own, &jane, pods("get"), allowed(false));
        check(own, &jane, path("/apis/apps"), allowed(true));
        check(own, &jane, path("/metrics"), allowed(false));
        let mut about = pods("get");
        about["user"] = json!("x");
        check(Kind::SUBJECT_ACCESS_REVIEW, &admin, about.clone(), allowed(false));
        about["groups"] = json!(["system:masters"]);
        check(Kind::LOCAL_SUBJECT_ACCESS_REVIEW, &jane, about, allowed(true));
        let info = json!({"userInfo": {"username": "jane", "groups": ["system:authenticated"]}});
        let decoded = (json!({}), Vec::new());
        let body = Body { decoded, validation: FieldValidation::Strict };
        let identity = Identity { name: "jane".to_owned(), groups: vec!["system:authenticated".to_owned()] };
        assert_eq!(answer(Kind::SELF_SUBJECT_REVIEW, "", &identity, false, body).unwrap().0["status"], info);
        let rules = ask(Kind::SELF_SUBJECT_RULES_REVIEW, &admin, json!({"namespace": "here"})).unwrap();
        assert_eq!(rules["resourceRules"][0]["verbs"], json!(["*"]));
    }

    #[test]
    fn reviews_that_ask_nothing_or_too_much_are_refused() {
        let refused = |kind: Kind, spec: Value, code: u16, part: &str| {
            let status = ask(kind, &[], spec.clone()).unwrap_err();
            assert_eq!(status.reason.code(), code, "{spec}: {status}");
            assert!(status.message.contains(part), "{spec}: {status}");
        };
        let own = Kind::SELF_SUBJECT_ACCESS_REVIEW;
        refused(own, json!({}), 422, "exactly one of nonResourceAttributes or resourceAttributes must be specified");
        let both = json!({"resourceAttributes": {}, "nonResourceAttributes": {}});
        refused(own, both, 422, "cannot be specified in combination with resourceAttributes");
        let nobody = json!({"resourceAttributes": {"namespace": "here"}});
        refused(Kind::SUBJECT_ACCESS_REVIEW, nobody, 422, "at least one of user or group must be specified");
        let elsewhere = json!({"user": "x", "resourceAttributes": {"namespace": "there"}});
        refused(Kind::LOCAL_SUBJECT_ACCESS_REVIEW, elsewhere, 422, "must match metadata.namespace");
        refused(Kind::SELF_SUBJECT_RULES_REVIEW, json!({}), 400, "no namespace on request");
        refused(own, json!({"resourceAttribute": {}}), 400, "unknown field");
        refused(own, json!([]), 400, "cannot unmarshal");
    }
}
