//! Roles and bindings: kept from the cache, made when a server starts, and checked when a user writes them.
//!
//! A server without [`Config::authorisation`](super::Config) has no policy, and trusts every client.
//!
//! Source: kubernetes `pkg/registry/rbac/{clusterrole,role,clusterrolebinding,rolebinding}/policybased/storage.go`,
//! `pkg/registry/rbac/rest/storage_rbac.go`.

use std::rc::Rc;

use serde_json::Value;

use super::write::{Deciding, Decision, Origin, Write};
use super::{ApiServer, Cache, Out};
use crate::api::{Call, DeleteOptions, Request, Response, Status, Subresource, WriteOptions};
use crate::auth::rbac::bootstrap::{self, Step};
use crate::auth::rbac::{self, Change, Rule, check_grant};
use crate::auth::{Attempt, Authoriser, Authority, MASTERS, Mode, Resource, User};
use crate::machine::Now;
use crate::object::{Kind, Object, ObjectKey, Revision};
use crate::store::{StoreEvent, StoreKey};

/// How far the roles and bindings that every cluster has are.
#[derive(Debug, Default)]
enum Setup {
    /// They are compared with the cluster's own once the cache has reached this revision.
    #[default]
    Due,
    /// So many writes are under way; the revision of the newest that has succeeded, and whether one failed.
    Writing { left: usize, newest: Revision, failed: bool },
    /// The cache has to reach this revision before they are compared.
    Await(Revision),
    /// A write has failed: they are compared again by the next housekeeping.
    Failed,
    /// Every cluster has them, and so has this one.
    Done,
}

/// A server's authorisers, and what it owes to those who hold copies of them.
#[derive(Debug)]
pub(super) struct Grants {
    pub(super) authority: Authority,
    changes: Vec<Change>,
    setup: Setup,
}

impl Grants {
    pub(super) fn new(modes: &[Mode]) -> Grants {
        let authority = Authority { modes: modes.to_vec(), ..Authority::default() };
        Grants { authority, changes: Vec::new(), setup: Setup::Due }
    }

    fn change(&mut self, change: Change) {
        self.authority.policy.apply(&change);
        self.changes.push(change);
    }

    /// Takes over what a cache holds after it was loaded anew.
    pub(super) fn load(&mut self, cache: &Cache) {
        self.change(Change::Clear);
        for kind in rbac::KINDS {
            for (key, object) in cache.objects(kind) {
                self.change(Change::of(key, Some(object)));
            }
        }
    }

    /// Takes over what the cache has just heard of.
    pub(super) fn follow(&mut self, cache: &Cache, events: &[StoreEvent]) {
        for event in events {
            if let StoreKey::Object(key) = event.key()
                && rbac::KINDS.contains(&key.kind)
            {
                self.change(Change::of(key, cache.get(key)));
            }
        }
    }
}

impl ApiServer {
    /// The authorisers; `None` if every client is trusted.
    pub fn authority(&self) -> Option<&Authority> {
        self.grants.as_ref().map(|grants| &grants.authority)
    }

    /// What has changed of roles and bindings since the last call, for a copy of the [`authority`](Self::authority). A
    /// driver of a server with authorisers has to call it from time to time.
    pub fn take_policy_changes(&mut self) -> Vec<Change> {
        self.grants.as_mut().map(|grants| std::mem::take(&mut grants.changes)).unwrap_or_default()
    }

    /// Whether the roles and bindings that every cluster has are there, or nobody needs them.
    pub fn has_policy(&self) -> bool {
        self.grants.as_ref().is_none_or(|grants| matches!(grants.setup, Setup::Done))
    }

    /// Makes the roles and bindings that every cluster has, if that is due.
    pub(super) fn set_policy_up(&mut self, now: Now, out: &mut Vec<Out>) {
        let Some(grants) = &mut self.grants else { return };
        match grants.setup {
            Setup::Due => {}
            Setup::Await(revision) if self.cache.revision() >= revision => {}
            Setup::Await(_) | Setup::Writing { .. } | Setup::Failed | Setup::Done => return,
        }
        let there = |namespace: &str| self.cache.get(&ObjectKey::new(Kind::NAMESPACE, "", namespace)).is_some();
        if !["kube-system", "kube-public"].into_iter().all(there) {
            return;
        }
        let mut calls = Vec::new();
        for wanted in bootstrap::objects() {
            let key = wanted.key();
            let held = self.cache.get(&key);
            let options = WriteOptions::default();
            calls.extend(bootstrap::step(&wanted, held).map(|step| match step {
                Step::Create(object) => Call::Create { object, options },
                Step::Update(object) => Call::Update { object, subresource: Subresource::None, options },
                Step::Delete => Call::Delete { key, options: DeleteOptions::default() },
            }));
        }
        grants.setup = match calls.len() {
            0 => Setup::Done,
            left => Setup::Writing { left, newest: Revision(0), failed: false },
        };
        let user = Rc::from("system:apiserver");
        for call in calls {
            self.write(now, Write::new(Origin::Policy, Request::new(&user, call)), out);
        }
    }

    /// One of the writes of [`set_policy_up`](Self::set_policy_up) has been answered.
    pub(super) fn policy_written(&mut self, now: Now, result: &Result<Response, Status>, out: &mut Vec<Out>) {
        let Some(Grants { setup, .. }) = &mut self.grants else { return };
        let Setup::Writing { left, newest, failed } = setup else { return };
        *left -= 1;
        match result {
            Ok(Response::Object(object)) => *newest = (*newest).max(object.rv()),
            Ok(_) => {}
            Err(_) => *failed = true,
        }
        if *left > 0 {
            return;
        }
        *setup = if *failed { Setup::Failed } else { Setup::Await(*newest) };
        self.set_policy_up(now, out);
    }

    /// Tries again what has failed of [`set_policy_up`](Self::set_policy_up).
    pub(super) fn retry_policy(&mut self, now: Now, out: &mut Vec<Out>) {
        if let Some(Grants { setup: setup @ Setup::Failed, .. }) = &mut self.grants {
            *setup = Setup::Due;
        }
        self.set_policy_up(now, out);
    }
}

/// The rules of a role as JSON, and its aggregation rule.
fn of_role(object: &Object) -> (Vec<Rule>, &Value) {
    let Object::Dynamic(role) = object else { unreachable!("roles are held as JSON") };
    let rules = role.body.get("rules").and_then(Value::as_array).into_iter().flatten();
    (rules.map(Rule::of_json).collect(), role.body.get("aggregationRule").unwrap_or(&Value::Null))
}

/// Kind and name of the role that a binding refers to.
fn reference(object: &Object) -> (&str, &str) {
    let Object::Dynamic(binding) = object else { unreachable!("bindings are held as JSON") };
    let reference = binding.body.get("roleRef").unwrap_or(&Value::Null);
    let text = |name: &str| reference.get(name).and_then(Value::as_str).unwrap_or("");
    (text("kind"), text("name"))
}

/// Whether an update changes only what lets the garbage collector delete an object in the end.
fn only_collects(new: &Object, old: &Object) -> bool {
    let mut same = old.clone();
    let meta = same.meta_mut();
    meta.owner_references.clone_from(&new.meta().owner_references);
    meta.finalizers.clone_from(&new.meta().finalizers);
    meta.managed_fields.clone_from(&new.meta().managed_fields);
    same.meta() == new.meta() && same.same_spec(new)
}

impl Deciding<'_> {
    /// Nobody grants what they do not have: checks a role or binding that a user creates or changes.
    pub(super) fn check_grant(&self, write: &Write, new: &Object, old: Option<&Object>) -> Result<(), Decision> {
        let kind = new.kind();
        if !rbac::KINDS.contains(&kind) {
            return Ok(());
        }
        let (Some(grants), Some(user)) = (self.grants, write.request.identity.as_deref()) else { return Ok(()) };
        if user.is_in(MASTERS) || old.is_some_and(|old| only_collects(new, old)) {
            return Ok(());
        }
        let checked = match kind {
            Kind::ROLE | Kind::CLUSTER_ROLE => check_role(&grants.authority, user, new, old),
            _ => check_binding(&grants.authority, user, new),
        };
        checked.map_err(Decision::refuse)
    }
}

/// A role may give what its writer has, unless the writer may `escalate`. It is checked although its rules stay as they
/// are: its labels may give them to a role that aggregates. One that aggregates may give anything, so whoever writes
/// it, or has it aggregate no longer, must have everything.
///
/// Source: kubernetes `pkg/registry/rbac/clusterrole/policybased`.
fn check_role(authority: &Authority, user: &User, new: &Object, old: Option<&Object>) -> Result<(), Status> {
    let ((rules, _), info) = (of_role(new), new.info());
    let (namespace, name) = (new.namespace(), new.name());
    // A request that creates names no object in its path.
    let named = if old.is_some() { name } else { "" };
    let role = Resource { group: rbac::GROUP, resource: &info.plural, subresource: "", namespace, name: named };
    if authority.judge(user, &Attempt::at("escalate", role)).allows() {
        return Ok(());
    }
    let forbid = |why: &str| Status::forbidden(info, name, why);
    check_grant(authority, user, namespace, &rules).map_err(|lacking| forbid(&lacking.0))?;
    let everything = [Rule::all_resources(), Rule::all_paths()];
    let aggregates = |role: &Object| !of_role(role).1.is_null();
    if (aggregates(new) || old.is_some_and(aggregates)) && check_grant(authority, user, namespace, &everything).is_err()
    {
        return Err(forbid("must have cluster-admin privileges to use the aggregationRule"));
    }
    Ok(())
}

/// A binding may give what its writer has, unless the writer may `bind` its role.
fn check_binding(authority: &Authority, user: &User, new: &Object) -> Result<(), Status> {
    let ((kind, name), namespace) = (reference(new), new.namespace());
    let of = if kind == "ClusterRole" { Kind::CLUSTER_ROLE } else { Kind::ROLE };
    let role = Resource { group: rbac::GROUP, resource: &of.row().plural, subresource: "", namespace, name };
    if authority.judge(user, &Attempt::at("bind", role)).allows() {
        return Ok(());
    }
    let Ok(rules) = authority.policy.referenced(kind, name, namespace) else {
        return Err(Status::not_found(of.row(), name));
    };
    check_grant(authority, user, namespace, rules)
        .map_err(|lacking| Status::forbidden(new.info(), new.name(), &lacking.0))
}
