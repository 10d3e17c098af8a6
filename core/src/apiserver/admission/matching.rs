//! Which requests a webhook or an admission policy is about.
//!
//! Source: kubernetes `staging/src/k8s.io/apiserver/pkg/admission/plugin/webhook/predicates`.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use serde_json::Value;

use super::webhook::Operation;
use crate::apiserver::write::{Deciding, Write};
use crate::object::{Kind, KindInfo, Object, ObjectKey, Selector};

/// A request, as rules ask about it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked<'a> {
    pub(super) operation: Operation,
    pub(super) of: &'a KindInfo,
    pub(super) subresource: &'a str,
    pub(super) name: &'a str,
}

/// Which requests something is about.
#[derive(Debug)]
pub(super) struct Matching {
    /// `matchPolicy: Equivalent`.
    equivalent: bool,
    rules: Vec<Rule>,
    excluded: Vec<Rule>,
    namespaces: Selector,
    objects: Selector,
}

#[derive(Debug)]
struct Rule {
    operations: Vec<String>,
    groups: Vec<String>,
    versions: Vec<String>,
    resources: Vec<String>,
    names: Vec<String>,
    scope: String,
}

/// The strings of a list.
pub(super) fn words(value: &Value) -> Vec<String> {
    value.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}

fn covers(list: &[String], word: &str) -> bool {
    list.iter().any(|w| w == "*" || w == word)
}

/// A selector; validation has made sure that it can be read.
pub(super) fn selector(value: &Value) -> Selector {
    let read = serde_json::from_value::<LabelSelector>(value.clone()).ok();
    read.and_then(|s| Selector::from_label_selector(&s).ok()).unwrap_or_else(Selector::everything)
}

impl Rule {
    fn read(value: &Value) -> Rule {
        Rule {
            operations: words(&value["operations"]),
            groups: words(&value["apiGroups"]),
            versions: words(&value["apiVersions"]),
            resources: words(&value["resources"]),
            names: words(&value["resourceNames"]),
            scope: value["scope"].as_str().unwrap_or("*").to_owned(),
        }
    }

    fn matches(&self, asked: &Asked<'_>, version: &str) -> bool {
        let scope = match self.scope.as_str() {
            "Namespaced" => asked.of.namespaced,
            "Cluster" => !asked.of.namespaced,
            _ => true,
        };
        let resource = |rule: &String| {
            let (resource, subresource) = rule.split_once('/').unwrap_or((rule, ""));
            (resource == "*" || resource == asked.of.plural) && (subresource == "*" || subresource == asked.subresource)
        };
        scope
            && covers(&self.operations, asked.operation.name())
            && covers(&self.groups, &asked.of.group)
            && covers(&self.versions, version)
            && self.resources.iter().any(resource)
            && (self.names.is_empty() || self.names.iter().any(|name| name == asked.name))
    }
}

impl Matching {
    /// Reads a webhook, whose rules are `rules`, or match resources, whose rules are `resourceRules`.
    pub(super) fn read(value: &Value, rules: &str) -> Matching {
        let list = |name: &str| value[name].as_array().into_iter().flatten().map(Rule::read).collect();
        Matching {
            equivalent: value["matchPolicy"] != "Exact",
            rules: list(rules),
            excluded: list("excludeResourceRules"),
            namespaces: selector(&value["namespaceSelector"]),
            objects: selector(&value["objectSelector"]),
        }
    }

    /// Whether it covers a request, as a binding's does: without rules it covers whatever it does not exclude.
    pub(super) fn covers(&self, asked: &Asked<'_>) -> bool {
        if self.rules.is_empty() {
            return !self.excluded.iter().any(|rule| rule.matches(asked, &asked.of.version));
        }
        self.version_for(asked).is_some()
    }

    /// The version in which it is asked about a request; `None` if its rules don't cover it. Of the versions in which
    /// the resource is served, one that equals the request's is preferred.
    pub(super) fn version_for(&self, asked: &Asked<'_>) -> Option<String> {
        let excludes = |version: &str| self.excluded.iter().any(|rule| rule.matches(asked, version));
        let matches = |version: &str| self.rules.iter().any(|rule| rule.matches(asked, version)) && !excludes(version);
        if matches(&asked.of.version) {
            return Some(asked.of.version.to_string());
        }
        let same_group = asked.of.also.iter().filter(|also| also.group == asked.of.group);
        let mut others = same_group.map(|also| also.version.to_string());
        if self.equivalent { others.find(|version| matches(version)) } else { None }
    }
}

impl Deciding<'_> {
    /// Whether the selectors of `matching` select an object, as it is or was.
    pub(super) fn selects(
        &self,
        write: &Write,
        matching: &Matching,
        new: Option<&Object>,
        old: Option<&Object>,
    ) -> bool {
        let about = new.or(old).expect("a write is about an object");
        let selected = |object: &Object| matching.objects.matches(object.meta().labels.as_ref());
        self.namespace_matches(write, matching, about) && new.iter().chain(&old).any(|object| selected(object))
    }

    /// Whether it is about what is in the namespace of an object.
    fn namespace_matches(&self, write: &Write, matching: &Matching, about: &Object) -> bool {
        if matching.namespaces.is_everything() {
            return true;
        }
        if about.kind() == Kind::NAMESPACE {
            return matching.namespaces.matches(about.meta().labels.as_ref());
        }
        if about.namespace().is_empty() {
            return true;
        }
        let key = ObjectKey::new(Kind::NAMESPACE, "", about.namespace());
        self.known(write, &key).is_some_and(|namespace| matching.namespaces.matches(namespace.meta().labels.as_ref()))
    }
}

#[cfg(test)]
mod tests {
    use super::{Asked, Matching};
    use crate::apiserver::admission::webhook::Operation;
    use crate::object::{GroupVersion, Kind, KindInfo};
    use serde_json::{Value, json};

    #[test]
    fn rules_match_as_upstreams() {
        let check = |rule: Value, policy: &str, operation: Operation, of: &KindInfo, sub: &str, want: Option<&str>| {
            let matching = Matching::read(&json!({"rules": [rule], "matchPolicy": policy}), "rules");
            let asked = Asked { operation, of, subresource: sub, name: "" };
            assert_eq!(matching.version_for(&asked).as_deref(), want, "{rule} {operation:?} {}/{sub}", of.plural);
        };
        let rule = |operations: &[&str], group: &str, version: &str, resource: &str, scope: &str| {
            json!({"operations": operations, "apiGroups": [group], "apiVersions": [version], "resources": [resource],
                "scope": scope})
        };
        let (pods, nodes, create) = (Kind::POD.row(), Kind::NODE.row(), Operation::Create);
        check(rule(&["CREATE"], "", "v1", "pods", "*"), "Exact", create, pods, "", Some("v1"));
        check(rule(&["UPDATE"], "", "v1", "pods", "*"), "Exact", create, pods, "", None);
        check(rule(&["*"], "*", "*", "*", "*"), "Exact", create, pods, "", Some("v1"));
        check(rule(&["*"], "*", "*", "*", "*"), "Exact", Operation::Update, pods, "status", None);
        check(rule(&["*"], "*", "*", "*/*", "*"), "Exact", Operation::Update, pods, "status", Some("v1"));
        check(rule(&["*"], "", "v1", "pods/*", "*"), "Exact", Operation::Update, pods, "status", Some("v1"));
        check(rule(&["*"], "apps", "v1", "pods", "*"), "Exact", create, pods, "", None);
        check(rule(&["*"], "*", "*", "*", "Namespaced"), "Exact", create, nodes, "", None);
        check(rule(&["*"], "*", "*", "*", "Cluster"), "Exact", create, nodes, "", Some("v1"));
        let also = vec![GroupVersion { group: "example.com".into(), version: "v1beta1".into() }];
        let widgets = KindInfo {
            group: "example.com".into(),
            version: "v1".into(),
            plural: "widgets".into(),
            also: also.into(),
            ..KindInfo::custom()
        };
        let beta = || rule(&["*"], "example.com", "v1beta1", "widgets", "*");
        check(beta(), "Exact", create, &widgets, "", None);
        check(beta(), "Equivalent", create, &widgets, "", Some("v1beta1"));
    }
}
