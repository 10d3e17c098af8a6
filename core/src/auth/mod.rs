//! Who asks, what they want to do, and whether they may.
//!
//! What comes in: a [`User`], an [`Attempt`] and, for RBAC, the roles and bindings of a cluster. What goes out: a
//! [`Verdict`]. Nothing here knows how a user proved who they are.
//!
//! Source: kubernetes `staging/src/k8s.io/apiserver/pkg/authorization`.

pub mod legacy_token;
pub mod rbac;
pub mod token;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::api::{Details, Reason, Status};

/// The group whose members may do everything, whatever authorisers say.
pub const MASTERS: &str = "system:masters";
/// The group of every user who has proved who they are.
pub const AUTHENTICATED: &str = "system:authenticated";
/// The group of users who have not.
pub const UNAUTHENTICATED: &str = "system:unauthenticated";
/// The name of a user who has not proved who they are.
pub const ANONYMOUS: &str = "system:anonymous";
/// The group of every service account.
pub const SERVICE_ACCOUNTS: &str = "system:serviceaccounts";
const SERVICE_ACCOUNT: &str = "system:serviceaccount:";

/// An authenticated or anonymous user.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct User {
    /// Name.
    pub name: String,
    /// A name that no other user had before; empty if there is none.
    pub uid: String,
    /// Groups, including `system:authenticated` or `system:unauthenticated`.
    pub groups: Vec<String>,
    /// What the authenticator tells in addition.
    pub extra: BTreeMap<String, Vec<String>>,
}

impl User {
    /// A user without UID and extra values.
    pub fn new(name: &str, groups: &[&str]) -> User {
        User { name: name.to_owned(), groups: groups.iter().map(|g| (*g).to_owned()).collect(), ..User::default() }
    }

    /// The user of a request without credentials.
    pub fn anonymous() -> User {
        User::new(ANONYMOUS, &[UNAUTHENTICATED])
    }

    /// The user that a service account is.
    pub fn service_account(namespace: &str, name: &str, uid: &str) -> User {
        let groups = [SERVICE_ACCOUNTS, &format!("{SERVICE_ACCOUNTS}:{namespace}"), AUTHENTICATED];
        User { uid: uid.to_owned(), ..User::new(&service_account_name(namespace, name), &groups) }
    }

    /// Whether the user is in a group.
    pub fn is_in(&self, group: &str) -> bool {
        self.groups.iter().any(|g| g == group)
    }
}

/// The name of the user that a service account is.
pub fn service_account_name(namespace: &str, name: &str) -> String {
    format!("{SERVICE_ACCOUNT}{namespace}:{name}")
}

/// Namespace and name of the service account that a user name stands for.
pub fn split_service_account(user: &str) -> Option<(&str, &str)> {
    user.strip_prefix(SERVICE_ACCOUNT)?.split_once(':').filter(|(_, name)| !name.contains(':'))
}

/// What a user wants to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Attempt<'a> {
    /// `get`, `list`, `watch`, `create`, `update`, `patch`, `delete`, `deletecollection` and verbs that are no requests
    /// (`bind`, `escalate`, `impersonate`, …); for paths, the HTTP method in lower case.
    pub verb: &'a str,
    /// To what.
    pub to: Target<'a>,
}

/// What a request is about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Target<'a> {
    /// Objects.
    Resource(Resource<'a>),
    /// A path that is not about objects, such as `/healthz`.
    Path(&'a str),
}

/// An object or a collection.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Resource<'a> {
    /// API group; empty for the core group.
    pub group: &'a str,
    /// Plural name.
    pub resource: &'a str,
    /// Subresource; empty if the request is about the object itself.
    pub subresource: &'a str,
    /// Namespace; empty for all namespaces or a cluster-scoped resource.
    pub namespace: &'a str,
    /// Name of the object; empty if the request names none.
    pub name: &'a str,
}

impl<'a> Attempt<'a> {
    /// An attempt at objects.
    pub fn at(verb: &'a str, resource: Resource<'a>) -> Attempt<'a> {
        Attempt { verb, to: Target::Resource(resource) }
    }

    /// An attempt at a path.
    pub fn path(verb: &'a str, path: &'a str) -> Attempt<'a> {
        Attempt { verb, to: Target::Path(path) }
    }
}

/// What an authoriser says of an attempt. Each carries the reason, which may be empty.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// It is allowed; no other authoriser is asked.
    Allow(String),
    /// It is forbidden; no other authoriser is asked.
    Deny(String),
    /// This authoriser does not know; where none allows an attempt, it is forbidden.
    NoOpinion(String),
}

impl Verdict {
    /// Whether the attempt is allowed.
    pub fn allows(&self) -> bool {
        matches!(self, Verdict::Allow(_))
    }

    /// The reason; may be empty.
    pub fn reason(&self) -> &str {
        match self {
            Verdict::Allow(why) | Verdict::Deny(why) | Verdict::NoOpinion(why) => why,
        }
    }
}

/// Decides whether users may do what they attempt.
pub trait Authoriser {
    /// Judges an attempt.
    fn judge(&self, user: &User, attempt: &Attempt<'_>) -> Verdict;

    /// Everything that a user may do in a namespace (empty: at the cluster scope).
    fn rules(&self, user: &User, namespace: &str) -> Vec<rbac::Rule>;
}

/// An authoriser of `--authorization-mode`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Mode {
    /// Everybody may do everything.
    AlwaysAllow,
    /// Nobody may do anything.
    AlwaysDeny,
    /// What roles and bindings say.
    Rbac,
}

/// The authorisers of a server: each of its modes in order, after members of [`MASTERS`] have been let through.
#[derive(Clone, Debug, Default)]
pub struct Authority {
    /// The modes.
    pub modes: Vec<Mode>,
    /// The roles and bindings for [`Mode::Rbac`].
    pub policy: rbac::Policy,
}

impl Authoriser for Authority {
    fn judge(&self, user: &User, attempt: &Attempt<'_>) -> Verdict {
        if user.is_in(MASTERS) {
            return Verdict::Allow(String::new());
        }
        let mut reasons = Vec::new();
        for mode in &self.modes {
            let verdict = match mode {
                Mode::AlwaysAllow => Verdict::Allow(String::new()),
                Mode::AlwaysDeny => Verdict::NoOpinion("Everything is forbidden.".to_owned()),
                Mode::Rbac => self.policy.judge(user, attempt),
            };
            match verdict {
                Verdict::NoOpinion(why) if why.is_empty() => {}
                Verdict::NoOpinion(why) => reasons.push(why),
                decided @ (Verdict::Allow(_) | Verdict::Deny(_)) => return decided,
            }
        }
        Verdict::NoOpinion(reasons.join("\n"))
    }

    fn rules(&self, user: &User, namespace: &str) -> Vec<rbac::Rule> {
        let of = |mode: &Mode| match mode {
            Mode::AlwaysAllow => vec![rbac::Rule::all_resources(), rbac::Rule::all_paths()],
            Mode::AlwaysDeny => Vec::new(),
            Mode::Rbac => self.policy.rules(user, namespace),
        };
        self.modes.iter().flat_map(of).collect()
    }
}

/// The refusal of an attempt, 403, in the words of kube-apiserver (`responsewriters.Forbidden`).
pub fn forbidden(user: &User, attempt: &Attempt<'_>, reason: &str) -> Status {
    let (name, verb) = (&user.name, attempt.verb);
    let mut details = Details::default();
    let mut message = match attempt.to {
        Target::Path(path) => format!("forbidden: User {name:?} cannot {verb} path {path:?}"),
        Target::Resource(of) => {
            let mut asked = of.resource.to_owned();
            if !of.subresource.is_empty() {
                asked = format!("{asked}/{}", of.subresource);
            }
            let mut qualified = of.resource.to_owned();
            if !of.group.is_empty() {
                qualified = format!("{qualified}.{}", of.group);
            }
            if !of.name.is_empty() {
                qualified = format!("{qualified} {:?}", of.name);
            }
            let place = match of.namespace {
                "" => "at the cluster scope".to_owned(),
                namespace => format!("in the namespace {namespace:?}"),
            };
            details = Details {
                name: of.name.to_owned(),
                group: of.group.to_owned(),
                kind: of.resource.to_owned(),
                ..Details::default()
            };
            let what = format!("resource {asked:?} in API group {:?}", of.group);
            format!("{qualified} is forbidden: User {name:?} cannot {verb} {what} {place}")
        }
    };
    if !reason.is_empty() {
        message = format!("{message}: {reason}");
    }
    Status { reason: Reason::Forbidden, message: message.into(), details: Some(Box::new(details)) }
}

#[cfg(test)]
mod tests {
    use super::{Attempt, Authoriser, Authority, Mode, Resource, User, Verdict, forbidden, split_service_account};

    #[test]
    fn refusals_are_in_kubernetes_words() {
        let check = |attempt: Attempt<'_>, reason: &str, want: &str| {
            assert_eq!(&*forbidden(&User::new("jane", &[]), &attempt, reason).message, want);
        };
        let of = Resource { group: "apps", resource: "deployments", namespace: "a", ..Resource::default() };
        check(
            Attempt::at("list", of),
            "",
            "deployments.apps is forbidden: User \"jane\" cannot list resource \"deployments\" in API group \"apps\" \
             in the namespace \"a\"",
        );
        let of = Resource { resource: "nodes", subresource: "status", name: "n", ..Resource::default() };
        check(
            Attempt::at("patch", of),
            "Everything is forbidden.",
            "nodes \"n\" is forbidden: User \"jane\" cannot patch resource \"nodes/status\" in API group \"\" at the \
             cluster scope: Everything is forbidden.",
        );
        check(Attempt::path("get", "/metrics"), "", "forbidden: User \"jane\" cannot get path \"/metrics\"");
    }

    #[test]
    fn the_first_mode_that_knows_decides() {
        let attempt = Attempt::path("get", "/metrics");
        let check = |modes: &[Mode], groups: &[&str], want: bool| {
            let authority = Authority { modes: modes.to_vec(), ..Authority::default() };
            assert_eq!(authority.judge(&User::new("jane", groups), &attempt).allows(), want, "{modes:?} {groups:?}");
        };
        check(&[], &[], false);
        check(&[Mode::AlwaysAllow], &[], true);
        check(&[Mode::AlwaysDeny], &[], false);
        check(&[Mode::AlwaysDeny], &["system:masters"], true);
        check(&[Mode::Rbac, Mode::AlwaysAllow], &[], true);
        check(&[Mode::Rbac], &[], false);
        let denying = Authority { modes: vec![Mode::Rbac, Mode::AlwaysDeny], ..Authority::default() };
        let verdict = denying.judge(&User::anonymous(), &attempt);
        assert_eq!(verdict, Verdict::NoOpinion("Everything is forbidden.".to_owned()));
    }

    #[test]
    fn service_accounts_are_users() {
        let account = User::service_account("a", "b", "u");
        assert_eq!(split_service_account(&account.name), Some(("a", "b")));
        assert!(account.is_in("system:serviceaccounts:a") && account.is_in("system:authenticated"));
        for other in ["system:serviceaccount:a", "system:serviceaccount:a:b:c", "jane"] {
            assert_eq!(split_service_account(other), None, "{other}");
        }
    }
}
