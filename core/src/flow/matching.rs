//! Which requests the rules of a FlowSchema are about.
//!
//! Source: apiserver `pkg/util/flowcontrol/rule.go`.

use crate::auth::{Attempt, Resource, Target, User};
use serde_json::Value;

fn texts<'a>(value: &'a Value, name: &str) -> impl Iterator<Item = &'a str> {
    value[name].as_array().into_iter().flatten().filter_map(Value::as_str)
}

fn covers(rule: &Value, name: &str, word: &str) -> bool {
    texts(rule, name).any(|listed| listed == "*" || listed == word)
}

/// Whether rules are about what a user attempts.
pub fn is_about(rules: &Value, user: &User, attempt: &Attempt<'_>) -> bool {
    rules.as_array().into_iter().flatten().any(|rule| {
        let subjects = rule["subjects"].as_array().into_iter().flatten();
        let list = |name: &str| rule[name].as_array().into_iter().flatten();
        subjects.into_iter().any(|subject| is_subject(subject, user))
            && match &attempt.to {
                Target::Resource(resource) => {
                    list("resourceRules").any(|rule| is_about_resource(rule, attempt.verb, resource))
                }
                Target::Path(path) => list("nonResourceRules").any(|rule| is_about_path(rule, attempt.verb, path)),
            }
    })
}

fn is_subject(subject: &Value, user: &User) -> bool {
    let text = |pointer: &str| subject.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    match text("/kind") {
        "User" => text("/user/name") == "*" || text("/user/name") == user.name,
        "Group" => text("/group/name") == "*" || user.is_in(text("/group/name")),
        "ServiceAccount" => {
            let own = format!("system:serviceaccount:{}:", text("/serviceAccount/namespace"));
            let account = user.name.strip_prefix(&own);
            account
                .is_some_and(|account| text("/serviceAccount/name") == "*" || text("/serviceAccount/name") == account)
        }
        _ => false,
    }
}

fn is_about_resource(rule: &Value, verb: &str, resource: &Resource<'_>) -> bool {
    let named = match resource.subresource {
        "" => resource.resource.to_owned(),
        subresource => format!("{}/{subresource}", resource.resource),
    };
    covers(rule, "verbs", verb)
        && covers(rule, "resources", &named)
        && covers(rule, "apiGroups", resource.group)
        && match resource.namespace {
            "" => rule["clusterScope"] == true,
            namespace => covers(rule, "namespaces", namespace),
        }
}

fn is_about_path(rule: &Value, verb: &str, path: &str) -> bool {
    let is_listed = |listed: &str| {
        listed == "*"
            || listed == path
            || listed.strip_suffix('*').is_some_and(|p| p.ends_with('/') && path.starts_with(p))
    };
    covers(rule, "verbs", verb) && texts(rule, "nonResourceURLs").any(is_listed)
}

#[cfg(test)]
mod tests {
    use crate::auth::{Attempt, Resource, Target, User};

    use super::super::bootstrap::schemas;
    use super::is_about;

    /// The name of the first FlowSchema of every cluster that is about a request.
    fn first(user: &User, attempt: &Attempt<'_>) -> String {
        let mut all = schemas();
        all.sort_by_key(|wanted| wanted.object["spec"]["matchingPrecedence"].as_i64());
        let found = all.iter().find(|wanted| is_about(&wanted.object["spec"]["rules"], user, attempt));
        found.map(|wanted| wanted.object["metadata"]["name"].as_str().unwrap().to_owned()).unwrap_or_default()
    }

    #[test]
    fn requests_belong_where_upstream_puts_them() {
        let check = |user: &str, groups: &[&str], verb: &str, at: [&str; 4], want: &str| {
            let user = User::new(user, &[groups, &["system:authenticated"]].concat());
            let [group, resource, subresource, namespace] = at;
            let to = match group.starts_with('/') {
                true => Target::Path(group),
                false => Target::Resource(Resource { group, resource, subresource, namespace, name: "" }),
            };
            assert_eq!(first(&user, &Attempt { verb, to }), want, "{user:?} {verb} {at:?}");
        };
        let leases = ["coordination.k8s.io", "leases", "", "n"];
        let pods = ["", "pods", "", "n"];
        check("admin", &["system:masters"], "get", pods, "exempt");
        check("system:node:a", &["system:nodes"], "update", ["", "nodes", "status", ""], "system-node-high");
        check("system:node:a", &["system:nodes"], "update", leases, "system-node-high");
        check("system:node:a", &["system:nodes"], "get", pods, "system-nodes");
        check("system:kube-scheduler", &[], "update", leases, "system-leader-election");
        check("system:kube-scheduler", &[], "list", pods, "kube-scheduler");
        check("system:kube-controller-manager", &[], "update", ["", "endpoints", "", "n"], "endpoint-controller");
        let accounts: &[&str] = &["system:serviceaccounts"];
        check("system:serviceaccount:kube-system:a", accounts, "list", pods, "kube-system-service-accounts");
        check("system:serviceaccount:kube-system:a", accounts, "get", leases, "system-leader-election");
        check("system:serviceaccount:n:a", accounts, "list", pods, "service-accounts");
        check("jane", &[], "list", pods, "global-default");
        check("jane", &[], "get", ["/healthz", "", "", ""], "probes");
        check("jane", &[], "get", ["/version", "", "", ""], "global-default");
    }
}
