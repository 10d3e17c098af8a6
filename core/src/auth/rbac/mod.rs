//! Role-based access control: what roles and bindings allow.
//!
//! A [`Policy`] holds roles and bindings as plain values that may cross threads, indexed by whom they are about, so
//! that judging an attempt costs what the user's own bindings are and not the cluster's. It is kept up to date by
//! [`Change`]s, one for each changed object.
//!
//! Source: kubernetes `plugin/pkg/auth/authorizer/rbac/rbac.go`, `pkg/registry/rbac/validation/rule.go`.

pub mod bootstrap;
mod escalation;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::Value;

use super::{Attempt, Authoriser, Target, User, Verdict, service_account_name};
use crate::object::{Dynamic, Kind, Object, ObjectKey};

pub use escalation::{Escalation, check_grant};

/// The API group of roles and bindings.
pub const GROUP: &str = "rbac.authorization.k8s.io";
/// The kinds that a policy is made of.
pub const KINDS: [Kind; 4] = [Kind::ROLE, Kind::CLUSTER_ROLE, Kind::ROLE_BINDING, Kind::CLUSTER_ROLE_BINDING];

/// A `PolicyRule`: what may be done to resources, or to paths that are not about objects.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Rule {
    /// Verbs; `*` is all.
    pub verbs: Vec<String>,
    /// API groups; `*` is all.
    pub groups: Vec<String>,
    /// Resources, with a slash and the subresource; `*` is all, `*/scale` that subresource of all.
    pub resources: Vec<String>,
    /// Names of objects; none is all.
    pub names: Vec<String>,
    /// Paths; a `*` at the end is whatever follows.
    pub paths: Vec<String>,
}

fn owned(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

fn has(list: &[String], word: &str) -> bool {
    list.iter().any(|w| w == word)
}

/// Whether a path of a rule covers a path.
fn path_covers(rule: &str, path: &str) -> bool {
    rule == "*" || rule == path || rule.ends_with('*') && path.starts_with(rule.trim_end_matches('*'))
}

impl Rule {
    /// Everything to all resources.
    pub fn all_resources() -> Rule {
        let all = || owned(&["*"]);
        Rule { verbs: all(), groups: all(), resources: all(), ..Rule::default() }
    }

    /// Everything to all paths.
    pub fn all_paths() -> Rule {
        Rule { verbs: owned(&["*"]), paths: owned(&["*"]), ..Rule::default() }
    }

    /// Reads a rule of a role.
    pub fn of_json(value: &Value) -> Rule {
        let list = |name: &str| {
            let words = value.get(name).and_then(Value::as_array).into_iter().flatten();
            words.filter_map(Value::as_str).map(str::to_owned).collect()
        };
        Rule {
            verbs: list("verbs"),
            groups: list("apiGroups"),
            resources: list("resources"),
            names: list("resourceNames"),
            paths: list("nonResourceURLs"),
        }
    }

    /// Whether it allows an attempt.
    pub fn allows(&self, attempt: &Attempt<'_>) -> bool {
        if !has(&self.verbs, "*") && !has(&self.verbs, attempt.verb) {
            return false;
        }
        match attempt.to {
            Target::Path(path) => self.paths.iter().any(|rule| path_covers(rule, path)),
            Target::Resource(of) => {
                let group = has(&self.groups, "*") || has(&self.groups, of.group);
                let is = |rule: &str| match (rule, of.subresource) {
                    ("*", _) => true,
                    (rule, "") => rule == of.resource,
                    (rule, sub) => match rule.split_once('/') {
                        Some((resource, subresource)) => {
                            subresource == sub && (resource == "*" || resource == of.resource)
                        }
                        None => false,
                    },
                };
                let named = self.names.is_empty() || has(&self.names, of.name);
                group && named && self.resources.iter().any(|rule| is(rule))
            }
        }
    }
}

/// The rules of a role.
pub fn rules_of(role: &Dynamic) -> Vec<Rule> {
    role.body.get("rules").and_then(Value::as_array).into_iter().flatten().map(Rule::of_json).collect()
}

/// Whom a binding is about, as authentication names them.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Subject {
    User(String),
    Group(String),
}

/// A RoleBinding or ClusterRoleBinding.
#[derive(Debug)]
struct Binding {
    /// `Role` or `ClusterRole`, and its name.
    role: (String, String),
    /// Each subject with its description in reasons.
    subjects: Vec<(Subject, String)>,
}

impl Binding {
    fn of_json(namespace: &str, value: &Value) -> Binding {
        let text = |value: &Value, name: &str| value.get(name).and_then(Value::as_str).unwrap_or("").to_owned();
        let reference = value.get("roleRef").unwrap_or(&Value::Null);
        let subjects = value.get("subjects").and_then(Value::as_array).into_iter().flatten();
        let subject = |subject: &Value| {
            let (kind, name) = (text(subject, "kind"), text(subject, "name"));
            let mut described = format!("{kind} {name:?}");
            let subject = match kind.as_str() {
                "User" => Subject::User(name),
                "Group" => Subject::Group(name),
                "ServiceAccount" => {
                    let given = text(subject, "namespace");
                    let at = if given.is_empty() { namespace.to_owned() } else { given };
                    described = format!("{kind} {:?}", format!("{name}/{at}"));
                    if at.is_empty() {
                        return None;
                    }
                    Subject::User(service_account_name(&at, &name))
                }
                _ => return None,
            };
            Some((subject, described))
        };
        let role = (text(reference, "kind"), text(reference, "name"));
        Binding { role, subjects: subjects.filter_map(subject).collect() }
    }
}

/// Namespace (empty for the cluster's) and name.
type Place = (String, String);

/// What has changed of a policy.
#[derive(Clone, Debug)]
pub enum Change {
    /// Everything that was known is forgotten.
    Clear,
    /// A role (in a namespace, or without one a ClusterRole) has these rules.
    Role(Place, Arc<[Rule]>),
    /// A role is gone.
    RoleGone(Place),
    /// A binding is as this JSON of its `roleRef` and `subjects`.
    Binding(Place, Arc<BindingOf>),
    /// A binding is gone.
    BindingGone(Place),
}

/// A binding within a [`Change`].
#[derive(Debug)]
pub struct BindingOf(Binding);

impl Change {
    /// The change that an object of one of [`KINDS`] makes to a policy: `None` is a deletion.
    pub fn of(key: &ObjectKey, object: Option<&Object>) -> Change {
        let place = (key.namespace().to_owned(), key.name().to_owned());
        let is_role = matches!(key.kind, Kind::ROLE | Kind::CLUSTER_ROLE);
        let body = match object {
            Some(Object::Dynamic(held)) => held,
            Some(_) | None if is_role => return Change::RoleGone(place),
            Some(_) | None => return Change::BindingGone(place),
        };
        if is_role {
            return Change::Role(place, rules_of(body).into());
        }
        let json = |name: &str| (name.to_owned(), body.body.get(name).cloned().unwrap_or_default());
        let value = Value::Object(["roleRef", "subjects"].into_iter().map(json).collect());
        let binding = Binding::of_json(&place.0, &value);
        Change::Binding(place, Arc::new(BindingOf(binding)))
    }
}

/// Roles and bindings. See the module's documentation.
#[derive(Clone, Debug, Default)]
pub struct Policy {
    roles: BTreeMap<Place, Arc<[Rule]>>,
    bindings: BTreeMap<Place, Arc<BindingOf>>,
    /// The names of bindings by subject and namespace.
    by_subject: BTreeMap<(Subject, String), BTreeSet<String>>,
}

/// The rules that a binding gives, or that its role does not exist.
struct Given<'p> {
    binding: (&'p str, &'p str),
    role: &'p (String, String),
    subject: &'p str,
    rules: Result<&'p [Rule], String>,
}

impl Given<'_> {
    /// The binding in words.
    fn described(&self) -> String {
        let (namespace, name) = self.binding;
        let (kind, role) = self.role;
        let binding = match namespace {
            "" => format!("ClusterRoleBinding {name:?}"),
            namespace => format!("RoleBinding {:?}", format!("{name}/{namespace}")),
        };
        format!("{binding} of {kind} {role:?} to {}", self.subject)
    }
}

impl Policy {
    /// Takes a change in.
    pub fn apply(&mut self, change: &Change) {
        match change {
            Change::Clear => *self = Policy::default(),
            Change::Role(place, rules) => drop(self.roles.insert(place.clone(), Arc::clone(rules))),
            Change::RoleGone(place) => drop(self.roles.remove(place)),
            Change::BindingGone(place) => self.forget_binding(place),
            Change::Binding(place, binding) => {
                self.forget_binding(place);
                for (subject, _) in &binding.0.subjects {
                    let names = self.by_subject.entry((subject.clone(), place.0.clone())).or_default();
                    names.insert(place.1.clone());
                }
                self.bindings.insert(place.clone(), Arc::clone(binding));
            }
        }
    }

    fn forget_binding(&mut self, place: &Place) {
        let Some(old) = self.bindings.remove(place) else { return };
        for (subject, _) in &old.0.subjects {
            let at = (subject.clone(), place.0.clone());
            if let Some(names) = self.by_subject.get_mut(&at) {
                names.remove(&place.1);
                if names.is_empty() {
                    self.by_subject.remove(&at);
                }
            }
        }
    }

    /// The rules that a binding in a namespace refers to (`GetRoleReferenceRules`). The error names the role that does
    /// not exist.
    pub fn referenced(&self, kind: &str, name: &str, namespace: &str) -> Result<&[Rule], String> {
        let (place, word) = match kind {
            "ClusterRole" => (String::new(), "clusterrole"),
            "Role" => (namespace.to_owned(), "role"),
            other => return Err(format!("unsupported role reference kind: {other:?}")),
        };
        let found = self.roles.get(&(place, name.to_owned()));
        found.map(|rules| &**rules).ok_or_else(|| format!("{word}.{GROUP} {name:?} not found"))
    }

    /// What a user's bindings give, the cluster's first, then those in a namespace.
    fn given<'p>(&'p self, user: &User, namespace: &str) -> impl Iterator<Item = Given<'p>> {
        let by_name = std::iter::once(Subject::User(user.name.clone()));
        let subjects: Vec<Subject> = by_name.chain(user.groups.iter().cloned().map(Subject::Group)).collect();
        let places = [Some(""), Some(namespace).filter(|n| !n.is_empty())].into_iter().flatten();
        let mut found: Vec<(&'p (Subject, String), &'p String)> = Vec::new();
        for place in places {
            for subject in &subjects {
                let at = self.by_subject.get_key_value(&(subject.clone(), place.to_owned()));
                found.extend(at.into_iter().flat_map(|(at, names)| names.iter().map(move |name| (at, name))));
            }
        }
        found.into_iter().map(move |((subject, place), name)| {
            let binding = &self.bindings[&(place.clone(), name.clone())].0;
            let (_, described) = binding.subjects.iter().find(|(s, _)| s == subject).expect("it is indexed by it");
            let (kind, role) = &binding.role;
            let rules = self.referenced(kind, role, place);
            Given { binding: (place, name), role: &binding.role, subject: described, rules }
        })
    }
}

impl Authoriser for Policy {
    fn judge(&self, user: &User, attempt: &Attempt<'_>) -> Verdict {
        let namespace = match attempt.to {
            Target::Resource(of) => of.namespace,
            Target::Path(_) => "",
        };
        let mut lost = BTreeSet::new();
        for given in self.given(user, namespace) {
            match &given.rules {
                Ok(rules) if rules.iter().any(|rule| rule.allows(attempt)) => {
                    return Verdict::Allow(format!("RBAC: allowed by {}", given.described()));
                }
                Ok(_) => {}
                Err(why) => drop(lost.insert(why.clone())),
            }
        }
        let lost: Vec<String> = lost.into_iter().collect();
        Verdict::NoOpinion(match lost.as_slice() {
            [] => String::new(),
            [one] => format!("RBAC: {one}"),
            many => format!("RBAC: [{}]", many.join(", ")),
        })
    }

    fn rules(&self, user: &User, namespace: &str) -> Vec<Rule> {
        self.given(user, namespace).filter_map(|given| given.rules.ok()).flatten().cloned().collect()
    }
}

#[cfg(test)]
mod tests;
