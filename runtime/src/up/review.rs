//! Reviews of the authentication and authorization APIs: who a user is, and what a user may do. A review is answered at
//! once and never stored.
//!
//! Source: <https://kubernetes.io/docs/reference/access-authn-authz/authorization/#checking-api-access>, and kubernetes
//! `pkg/registry/{authentication,authorization}`.

use serde_json::{Value, json};
use skeg_core::Kinds;
use skeg_core::api::{FieldValidation, Status};
use skeg_core::auth::{Attempt, Authoriser, Authority, Resource, User, Verdict};
use skeg_core::object::decode::{self, DecodeError};
use skeg_core::object::{FieldError, Kind, KindInfo};

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

/// Reads a review; returns it with warnings.
pub fn read(kind: Kind, body: Body) -> Result<(Value, Vec<String>), Status> {
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
    Ok((object.to_json(), warnings))
}

/// The status of a review that a user has created in a namespace (empty for cluster-scoped reviews). Tokens are
/// reviewed elsewhere.
pub fn status(
    kind: Kind,
    namespace: &str,
    user: &User,
    authority: &Authority,
    review: &Value,
) -> Result<Value, Status> {
    let (info, spec) = (kind.row(), &review["spec"]);
    match kind {
        Kind::SELF_SUBJECT_REVIEW => Ok(json!({"userInfo": user_info(user)})),
        Kind::SELF_SUBJECT_RULES_REVIEW => rules(user, authority, spec),
        Kind::SELF_SUBJECT_ACCESS_REVIEW => access(info, user, authority, spec),
        _ => {
            check_local(info, namespace, review)?;
            access(info, &subject(info, spec)?, authority, spec)
        }
    }
}

/// A user as `authentication.k8s.io` describes them.
pub fn user_info(user: &User) -> Value {
    let mut info = json!({"username": user.name, "groups": user.groups});
    if !user.uid.is_empty() {
        info["uid"] = json!(user.uid);
    }
    if !user.extra.is_empty() {
        info["extra"] = json!(user.extra);
    }
    info
}

fn text<'v>(value: &'v Value, name: &str) -> &'v str {
    value[name].as_str().unwrap_or_default()
}

fn words(value: &Value) -> Vec<String> {
    value.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}

/// The user that the spec of an access review names.
fn subject(info: &KindInfo, spec: &Value) -> Result<User, Status> {
    let (name, groups) = (text(spec, "user").to_owned(), words(&spec["groups"]));
    if name.is_empty() && groups.is_empty() {
        let error = FieldError::invalid("spec.user", "", "at least one of user or group must be specified");
        return Err(Status::invalid(info, "", &[error]));
    }
    let extra = spec["extra"].as_object().into_iter().flatten().map(|(key, values)| (key.clone(), words(values)));
    Ok(User { name, uid: text(spec, "uid").to_owned(), groups, extra: extra.collect() })
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
fn access(info: &KindInfo, user: &User, authority: &Authority, spec: &Value) -> Result<Value, Status> {
    let verdict = match (&spec["resourceAttributes"], &spec["nonResourceAttributes"]) {
        (Value::Null, Value::Null) => {
            let why = "exactly one of nonResourceAttributes or resourceAttributes must be specified";
            let error = FieldError::invalid("spec.resourceAttributes", format_args!("null"), why);
            return Err(Status::invalid(info, "", &[error]));
        }
        (of, Value::Null) => {
            let resource = Resource {
                group: text(of, "group"),
                resource: text(of, "resource"),
                subresource: text(of, "subresource"),
                namespace: text(of, "namespace"),
                name: text(of, "name"),
            };
            authority.judge(user, &Attempt::at(text(of, "verb"), resource))
        }
        (Value::Null, path) => authority.judge(user, &Attempt::path(text(path, "verb"), text(path, "path"))),
        (_, both) => {
            let why = "cannot be specified in combination with resourceAttributes";
            let error = FieldError::invalid("spec.nonResourceAttributes", format_args!("{both}"), why);
            return Err(Status::invalid(info, "", &[error]));
        }
    };
    let mut status = json!({"allowed": verdict.allows()});
    if matches!(verdict, Verdict::Deny(_)) {
        status["denied"] = json!(true);
    }
    if !verdict.reason().is_empty() {
        status["reason"] = json!(verdict.reason());
    }
    Ok(status)
}

/// The status of a SelfSubjectRulesReview: all rules that apply to the requesting user.
fn rules(user: &User, authority: &Authority, spec: &Value) -> Result<Value, Status> {
    let namespace = text(spec, "namespace");
    if namespace.is_empty() {
        return Err(Status::bad_request("no namespace on request"));
    }
    let (mut resources, mut paths) = (Vec::new(), Vec::new());
    for rule in authority.rules(user, namespace) {
        if !rule.resources.is_empty() {
            let mut of = json!({"verbs": rule.verbs, "apiGroups": rule.groups, "resources": rule.resources});
            if !rule.names.is_empty() {
                of["resourceNames"] = json!(rule.names);
            }
            resources.push(of);
        }
        if !rule.paths.is_empty() {
            paths.push(json!({"verbs": rule.verbs, "nonResourceURLs": rule.paths}));
        }
    }
    Ok(json!({"resourceRules": resources, "nonResourceRules": paths, "incomplete": false}))
}

#[cfg(test)]
mod tests {
    use super::{Body, read, status};
    use serde_json::{Value, json};
    use skeg_core::Kind;
    use skeg_core::api::{FieldValidation, Status};
    use skeg_core::auth::rbac::{Change, bootstrap};
    use skeg_core::auth::{Authority, Mode, User};

    fn ask(kind: Kind, groups: &[&str], spec: Value) -> Result<Value, Status> {
        let mut authority = Authority { modes: vec![Mode::Rbac], ..Authority::default() };
        for object in bootstrap::objects() {
            authority.policy.apply(&Change::of(&object.key(), Some(&object)));
        }
        let decoded = (json!({"spec": spec}), Vec::new());
        let body = Body { decoded, validation: FieldValidation::Strict };
        let (review, _) = read(kind, body)?;
        status(kind, "here", &User::new("jane", groups), &authority, &review)
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
        let by = "RBAC: allowed by ClusterRoleBinding \"system:discovery\" of ClusterRole \"system:discovery\" to Group \
                  \"system:authenticated\"";
        check(own, &jane, path("/apis/apps"), json!({"allowed": true, "reason": by}));
        check(own, &jane, path("/metrics"), allowed(false));
        let mut about = pods("get");
        about["user"] = json!("x");
        check(Kind::SUBJECT_ACCESS_REVIEW, &admin, about.clone(), allowed(false));
        about["groups"] = json!(["system:masters"]);
        check(Kind::LOCAL_SUBJECT_ACCESS_REVIEW, &jane, about, allowed(true));
        let info = json!({"userInfo": {"username": "jane", "groups": ["system:authenticated"]}});
        let user = User::new("jane", &jane);
        let told = status(Kind::SELF_SUBJECT_REVIEW, "", &user, &Authority::default(), &json!({})).unwrap();
        assert_eq!(told, info);
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
