//! Authentication: who a request comes from, by client certificate; and impersonation.
//!
//! Source: <https://kubernetes.io/docs/reference/access-authn-authz/authentication/>.

use std::collections::BTreeMap;

use hyper::HeaderMap;
use hyper::header::HeaderValue;
use percent_encoding::percent_decode_str;
use skeg_core::api::{Reason, Status};
use skeg_core::auth::{
    self, ANONYMOUS, AUTHENTICATED, Attempt, Authoriser, Resource, UNAUTHENTICATED, User, split_service_account,
};
use x509_parser::prelude::{FromDer, X509Certificate};

const GROUP: &str = "authentication.k8s.io";
const AS_USER: &str = "impersonate-user";
const AS_GROUP: &str = "impersonate-group";
const AS_UID: &str = "impersonate-uid";
const AS_EXTRA: &str = "impersonate-extra-";

/// The user of a client certificate: common name as name, organizations as groups. The caller must have verified that a
/// trusted certificate authority signed it.
pub fn of_certificate(der: &[u8]) -> Option<User> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    let subject = certificate.subject();
    let name = subject.iter_common_name().next()?.as_str().ok()?.to_owned();
    let organisations = subject.iter_organization().filter_map(|o| o.as_str().ok()).map(str::to_owned);
    let groups = organisations.chain([AUTHENTICATED.to_owned()]).collect();
    Some(User { name, groups, ..User::default() })
}

/// 401.
pub fn unauthorised() -> Status {
    Status { reason: Reason::Unauthorized, message: "Unauthorized".into(), details: None }
}

/// The user that a request wants to act as (`kubectl --as`), if it names one. `user` is who asks, and must be allowed
/// to.
///
/// Source: kubernetes `staging/src/k8s.io/apiserver/pkg/endpoints/filters/impersonation`.
pub fn impersonated(headers: &HeaderMap, user: &User, authority: &impl Authoriser) -> Result<Option<User>, Status> {
    let all = |name: &str| -> Result<Vec<&str>, Status> {
        let values = headers.get_all(name).into_iter().map(text).collect::<Result<Vec<_>, _>>()?;
        Ok(values.into_iter().filter(|value| !value.is_empty()).collect())
    };
    let first = |name: &str| Ok(all(name)?.first().copied().unwrap_or_default());
    let (name, groups, uid) = (first(AS_USER)?, all(AS_GROUP)?, first(AS_UID)?);
    let extra = extra(headers)?;
    if name.is_empty() {
        if groups.is_empty() && uid.is_empty() && extra.is_empty() {
            return Ok(None);
        }
        return Err(Status::internal("requested impersonation of groups, UID or extra without impersonating a user"));
    }
    let may = |resource: Resource<'_>| {
        let attempt = Attempt::at("impersonate", resource);
        let verdict = authority.judge(user, &attempt);
        if verdict.allows() { Ok(()) } else { Err(auth::forbidden(user, &attempt, verdict.reason())) }
    };
    let mut acted = User { name: name.to_owned(), uid: uid.to_owned(), ..User::default() };
    match split_service_account(name) {
        Some((namespace, account)) => {
            may(Resource { resource: "serviceaccounts", namespace, name: account, ..Resource::default() })?;
            if groups.is_empty() {
                acted.groups = User::service_account(namespace, account, "").groups;
            }
        }
        None => may(Resource { resource: "users", name, ..Resource::default() })?,
    }
    for group in groups {
        may(Resource { resource: "groups", name: group, ..Resource::default() })?;
        acted.groups.push(group.to_owned());
    }
    for (key, values) in &extra {
        for value in values {
            may(Resource { group: GROUP, resource: "userextras", subresource: key, namespace: "", name: value })?;
        }
    }
    if !uid.is_empty() {
        may(Resource { group: GROUP, resource: "uids", name: uid, ..Resource::default() })?;
    }
    acted.extra = extra;
    let known = acted.is_in(AUTHENTICATED) || acted.is_in(UNAUTHENTICATED);
    if !known {
        acted.groups.push(if acted.name == ANONYMOUS { UNAUTHENTICATED } else { AUTHENTICATED }.to_owned());
    }
    Ok(Some(acted))
}

/// The value of a header for impersonation. One that is no text is refused: without it, the request would be carried
/// out as the user who sent it.
fn text(value: &HeaderValue) -> Result<&str, Status> {
    let refused = |_| Status::bad_request("a header for impersonation is not UTF-8");
    std::str::from_utf8(value.as_bytes()).map_err(refused)
}

/// The values of `Impersonate-Extra-KEY`, by their key.
fn extra(headers: &HeaderMap) -> Result<BTreeMap<String, Vec<String>>, Status> {
    let mut extra: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (name, value) in headers {
        let Some(key) = name.as_str().strip_prefix(AS_EXTRA) else { continue };
        let key = percent_decode_str(key).decode_utf8_lossy().into_owned();
        extra.entry(key).or_default().push(text(value)?.to_owned());
    }
    Ok(extra)
}

#[cfg(test)]
mod tests {
    use super::impersonated;
    use hyper::HeaderMap;
    use hyper::header::{HeaderName, HeaderValue};
    use skeg_core::auth::{Authority, Mode, User};

    fn ask(mode: Mode, given: &[(&str, &str)]) -> Result<Option<User>, String> {
        let mut headers = HeaderMap::new();
        for (name, value) in given {
            headers.append(name.parse::<HeaderName>().unwrap(), HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        let authority = Authority { modes: vec![mode], ..Authority::default() };
        impersonated(&headers, &User::new("jane", &[]), &authority).map_err(|status| status.message.into())
    }

    #[test]
    fn a_user_acts_as_another_where_that_is_allowed() {
        let check = |given: &[(&str, &str)], name: &str, groups: &[&str]| {
            let acted = ask(Mode::AlwaysAllow, given).unwrap().unwrap();
            assert_eq!((acted.name.as_str(), acted.groups), (name, groups.iter().map(|g| (*g).to_owned()).collect()));
        };
        let account = ("Impersonate-User", "system:serviceaccount:a:b");
        check(&[("Impersonate-User", "joe")], "joe", &["system:authenticated"]);
        check(&[("Impersonate-User", "joe"), ("Impersonate-Group", "g")], "joe", &["g", "system:authenticated"]);
        check(&[("Impersonate-User", "józef")], "józef", &["system:authenticated"]);
        check(&[("Impersonate-User", "system:anonymous")], "system:anonymous", &["system:unauthenticated"]);
        check(&[account], account.1, &["system:serviceaccounts", "system:serviceaccounts:a", "system:authenticated"]);
        check(&[account, ("Impersonate-Group", "g")], account.1, &["g", "system:authenticated"]);
        let extra = [("Impersonate-User", "joe"), ("Impersonate-Extra-a%2Fb", "c")];
        assert_eq!(ask(Mode::AlwaysAllow, &extra).unwrap().unwrap().extra["a/b"], ["c"]);
        assert_eq!(ask(Mode::AlwaysDeny, &[]), Ok(None));
    }

    #[test]
    fn who_may_not_act_as_another_is_refused() {
        let check = |given: &[(&str, &str)], want: &str| {
            let why = ask(Mode::Rbac, given).unwrap_err();
            assert!(why.contains(want), "{given:?}: {why}");
        };
        check(
            &[("Impersonate-User", "joe")],
            "users \"joe\" is forbidden: User \"jane\" cannot impersonate resource \"users\" in API group \"\" at the \
             cluster scope",
        );
        check(
            &[("Impersonate-User", "system:serviceaccount:a:b")],
            "cannot impersonate resource \"serviceaccounts\" in API group \"\" in the namespace \"a\"",
        );
        check(&[("Impersonate-Group", "g")], "without impersonating a user");
        for name in ["Impersonate-User", "Impersonate-Group", "Impersonate-Uid", "Impersonate-Extra-a"] {
            let headers = HeaderMap::from_iter([(name.parse().unwrap(), HeaderValue::from_bytes(b"\xff").unwrap())]);
            let why = impersonated(&headers, &User::new("jane", &[]), &Authority::default()).unwrap_err();
            assert_eq!(why.message, "a header for impersonation is not UTF-8".into(), "{name}");
        }
    }
}
