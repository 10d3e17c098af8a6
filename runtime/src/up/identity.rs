//! Authentication by client certificate, and authorization.

use skeg_core::api::{Reason, Status};
use x509_parser::prelude::{FromDer, X509Certificate};

/// An authenticated or anonymous user.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Identity {
    /// Name of the user.
    pub name: String,
    /// Groups, including `system:authenticated` or `system:unauthenticated`.
    pub groups: Vec<String>,
}

/// The group whose members may do everything.
pub const MASTERS: &str = "system:masters";

impl Identity {
    /// The user of a request without a client certificate.
    pub fn anonymous() -> Identity {
        Identity { name: "system:anonymous".to_owned(), groups: vec!["system:unauthenticated".to_owned()] }
    }

    /// The user of a client certificate: common name as name, organizations as groups. The caller must have verified
    /// that our certificate authority signed it.
    pub fn of_certificate(der: &[u8]) -> Option<Identity> {
        let (_, certificate) = X509Certificate::from_der(der).ok()?;
        let subject = certificate.subject();
        let name = subject.iter_common_name().next()?.as_str().ok()?.to_owned();
        let organisations = subject.iter_organization().filter_map(|o| o.as_str().ok()).map(str::to_owned);
        let groups = organisations.chain(["system:authenticated".to_owned()]).collect();
        Some(Identity { name, groups })
    }

    /// Whether the user is authenticated.
    pub fn is_authenticated(&self) -> bool {
        self.groups.iter().any(|g| g == "system:authenticated")
    }

    /// Whether the user is an administrator of the cluster.
    pub fn is_master(&self) -> bool {
        self.groups.iter().any(|g| g == MASTERS)
    }
}

/// What a user wants to do.
#[derive(Clone, Debug)]
pub struct Attempt<'a> {
    /// `get`, `list`, `watch`, `create`, `update`, `patch`, `delete`, `deletecollection`.
    pub verb: &'a str,
    /// API group.
    pub group: &'a str,
    /// Resource; with a slash and the subresource, if any.
    pub resource: &'a str,
    /// Namespace; empty for all namespaces or a cluster-scoped kind.
    pub namespace: &'a str,
    /// Name of the object; empty if the request names none.
    pub name: &'a str,
}

/// Reviews about the requesting user, which every authenticated user may create (`system:basic-user`): group and
/// resource.
pub const OWN_REVIEWS: [(&str, &str); 3] = [
    ("authentication.k8s.io", "selfsubjectreviews"),
    ("authorization.k8s.io", "selfsubjectaccessreviews"),
    ("authorization.k8s.io", "selfsubjectrulesreviews"),
];

/// Paths that every authenticated user may get (`system:discovery`).
pub const DISCOVERY: [&str; 11] = [
    "/api",
    "/api/*",
    "/apis",
    "/apis/*",
    "/healthz",
    "/livez",
    "/openapi",
    "/openapi/*",
    "/readyz",
    "/version",
    "/version/",
];

/// Whether a user may do something with objects: administrators may do everything, other authenticated users may only
/// create [`OWN_REVIEWS`].
pub fn allows(identity: &Identity, attempt: &Attempt<'_>) -> bool {
    let own = attempt.verb == "create" && OWN_REVIEWS.contains(&(attempt.group, attempt.resource));
    identity.is_master() || own && identity.is_authenticated()
}

/// Whether a user may access a path that is not about objects.
pub fn allows_path(identity: &Identity, verb: &str, path: &str) -> bool {
    let within = |rule: &str| match rule.strip_suffix('*') {
        Some(prefix) => path.starts_with(prefix),
        None => path == rule,
    };
    identity.is_master() || identity.is_authenticated() && verb == "get" && DISCOVERY.iter().any(|rule| within(rule))
}

/// 403 if the user may not do this.
pub fn authorise(identity: &Identity, attempt: &Attempt<'_>) -> Result<(), Status> {
    if allows(identity, attempt) {
        return Ok(());
    }
    let Attempt { verb, group, resource, namespace, name } = attempt;
    let place = match *namespace {
        "" => "at the cluster scope".to_owned(),
        namespace => format!("in the namespace {namespace:?}"),
    };
    let qualified = match (*group, resource.split('/').next().unwrap_or_default()) {
        ("", plural) => plural.to_owned(),
        (group, plural) => format!("{plural}.{group}"),
    };
    let named = if name.is_empty() { String::new() } else { format!(" {name:?}") };
    let user = &identity.name;
    let why = format!("User {user:?} cannot {verb} resource {resource:?} in API group {group:?} {place}");
    let message = format!("{qualified}{named} is forbidden: {why}").into();
    Err(Status { reason: Reason::Forbidden, message, details: None })
}

/// 403 if the user may not access a path that is not about objects. `public` paths are open to everybody, the others to
/// authenticated users.
pub fn authorise_path(identity: &Identity, public: bool, path: &str) -> Result<(), Status> {
    if public || identity.is_authenticated() {
        return Ok(());
    }
    let message = format!("forbidden: User {:?} cannot get path {path:?}", identity.name).into();
    Err(Status { reason: Reason::Forbidden, message, details: None })
}

/// 401.
pub fn unauthorised() -> Status {
    Status { reason: Reason::Unauthorized, message: "Unauthorized".into(), details: None }
}

#[cfg(test)]
mod tests {
    use super::{Attempt, Identity, authorise, authorise_path};

    #[test]
    fn a_stranger_is_refused_in_kubernetes_words() {
        let stranger = Identity::anonymous();
        let attempt = Attempt { verb: "list", group: "apps", resource: "deployments", namespace: "a", name: "" };
        let want = "deployments.apps is forbidden: User \"system:anonymous\" cannot list resource \"deployments\" in \
                    API group \"apps\" in the namespace \"a\"";
        assert_eq!(&*authorise(&stranger, &attempt).unwrap_err().message, want);
        assert!(authorise_path(&stranger, true, "/healthz").is_ok());
        assert_eq!(authorise_path(&stranger, false, "/apis").unwrap_err().reason.code(), 403);
    }
}
