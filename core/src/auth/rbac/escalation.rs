//! Nobody grants what they do not have: the check of roles and bindings when they are written.
//!
//! Source: kubernetes `pkg/registry/rbac/validation` (`ConfirmNoEscalation`, `Covers`, `CompactRules`) and
//! `pkg/registry/rbac/{clusterrole,role,clusterrolebinding,rolebinding}/policybased`.

use std::collections::{BTreeMap, BTreeSet};

use super::{Rule, has, path_covers};
use crate::auth::{Authoriser, User};

/// What a user attempts to grant and does not have, in Kubernetes' words.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Escalation(pub String);

/// Checks that a user has every permission of these rules in a namespace (empty: at the cluster scope).
pub fn check_grant(held: &impl Authoriser, user: &User, namespace: &str, granted: &[Rule]) -> Result<(), Escalation> {
    let held = held.rules(user, namespace);
    let missing: Vec<Rule> =
        granted.iter().flat_map(single).filter(|one| !held.iter().any(|h| covers(h, one))).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let told: BTreeSet<String> = compact(missing).iter().map(described).collect();
    let told: Vec<String> = told.into_iter().collect();
    Err(Escalation(format!(
        "user {:?} (groups={}) is attempting to grant RBAC permissions not currently held:\n{}",
        user.name,
        quoted(&user.groups),
        told.join("\n")
    )))
}

/// Whether rules give everything that one of a role does.
pub(super) fn covered(held: &[Rule], asked: &Rule) -> bool {
    single(asked).iter().all(|one| held.iter().any(|held| covers(held, one)))
}

/// The rules of one verb for one resource (and name), or for one path, that a rule consists of.
fn single(rule: &Rule) -> Vec<Rule> {
    let one = |word: &String| vec![word.clone()];
    let mut all = Vec::new();
    for group in &rule.groups {
        for resource in &rule.resources {
            for verb in &rule.verbs {
                let of = Rule { verbs: one(verb), groups: one(group), resources: one(resource), ..Rule::default() };
                if rule.names.is_empty() {
                    all.push(of);
                } else {
                    all.extend(rule.names.iter().map(|name| Rule { names: one(name), ..of.clone() }));
                }
            }
        }
    }
    let paths = rule.paths.iter().flat_map(|path| rule.verbs.iter().map(move |verb| (path, verb)));
    all.extend(paths.map(|(path, verb)| Rule { verbs: one(verb), paths: one(path), ..Rule::default() }));
    all
}

/// Whether a rule gives everything that a [`single`] one does.
fn covers(held: &Rule, asked: &Rule) -> bool {
    let all = |held: &[String], asked: &[String]| has(held, "*") || asked.iter().all(|word| has(held, word));
    let resource = |asked: &String| {
        has(&held.resources, asked)
            || asked.split_once('/').is_some_and(|(_, sub)| has(&held.resources, &format!("*/{sub}")))
    };
    let path = |asked: &String| held.paths.iter().any(|held| path_covers(held, asked));
    let names = match asked.names.is_empty() {
        true => held.names.is_empty(),
        false => held.names.is_empty() || asked.names.iter().all(|name| has(&held.names, name)),
    };
    all(&held.verbs, &asked.verbs)
        && all(&held.groups, &asked.groups)
        && (has(&held.resources, "*") || asked.resources.iter().all(resource))
        && names
        && asked.paths.iter().all(path)
}

/// Joins the verbs of rules for the same resource and name; rules for paths stay as they are.
fn compact(rules: Vec<Rule>) -> Vec<Rule> {
    let mut joined: BTreeMap<(Vec<String>, Vec<String>, Vec<String>), Rule> = BTreeMap::new();
    let mut all = Vec::new();
    for rule in rules {
        if !rule.paths.is_empty() {
            all.push(rule);
            continue;
        }
        let of = (rule.groups.clone(), rule.resources.clone(), rule.names.clone());
        match joined.get_mut(&of) {
            Some(known) => known.verbs.extend(rule.verbs),
            None => drop(joined.insert(of, rule)),
        }
    }
    all.extend(joined.into_values());
    all
}

/// A list as Go's `%q` prints it.
fn quoted(words: &[String]) -> String {
    format!("[{}]", words.iter().map(|word| format!("{word:?}")).collect::<Vec<_>>().join(" "))
}

/// A rule in short (`rbacv1helpers.CompactString`).
fn described(rule: &Rule) -> String {
    let parts = [
        ("APIGroups", &rule.groups),
        ("Resources", &rule.resources),
        ("NonResourceURLs", &rule.paths),
        ("ResourceNames", &rule.names),
        ("Verbs", &rule.verbs),
    ];
    let told =
        parts.iter().filter(|(_, words)| !words.is_empty()).map(|(name, words)| format!("{name}:{}", quoted(words)));
    format!("{{{}}}", told.collect::<Vec<_>>().join(", "))
}
